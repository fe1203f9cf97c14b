/* SPDX-License-Identifier: MIT */
/*
 * Root does not parse what strangers wrote. What is read from an image, as root, is read
 * by a child that has nothing to lose: another user without groups and capabilities, an
 * empty root directory, no network, no other process to see, a short list of system calls
 * (syscalls.c), and one socket to its parent, through which the file comes to be read and
 * what it says is looked at (lib/image/worker). docs/security.md has the whole.
 *
 *	[privilege]
 *	confine = yes		; no: parse as root
 *	user = guestclock	; where it does not exist: nobody
 *	cpu = 1h		; processor time that one file may cost
 */
#ifndef GCLK_MIGRATOR_CONFINE_H
#define GCLK_MIGRATOR_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

#include <guestclock/image.h>

#define CONFINE_CPU_S 3600

struct confine_conf {
	bool confine;
	uid_t uid;
	gid_t gid;
	uint32_t cpu_s;		/* processor time; 0: no limit */
};

/**
 * confine_conf_read() - the section [privilege]
 * @path:	NULL: /etc/guestclock/guestclock.conf, which need not exist
 *
 * Errors: GCLK_MALFORMED, GCLK_SYS; GCLK_USAGE for a user that is root or does not exist.
 */
int confine_conf_read(const char *path, struct confine_conf *ret, struct gclk_error *reterr);

/**
 * confine_worker() - who reads images here
 * @conf_path:	as above
 * @ret:	for struct gclk_image_options: valid as long as the program; NULL: nobody
 *		else, for who is not root, or where the settings say so, or the environment
 *		(GUESTCLOCK_CONFINE=no, for debuggers)
 */
int confine_worker(const char *conf_path, const struct gclk_worker **ret,
		   struct gclk_error *reterr);

/* Workers that are started from now on have this niceness, where that is allowed. */
#define CONFINE_NICE_LIVE (-10)
void confine_set_nice(int nice);

/*
 * From now on one worker is started ahead of its need; after confine_worker(). It is for
 * streams, which may last for days: no limit on processor time, the patience with them
 * (struct gclk_worker) is enough.
 */
void confine_keep_spare(void);

/*
 * From now on workers are this program started anew, as where it has threads: they have
 * nothing of this process's memory. Needs confine_entry().
 */
void confine_start_anew(void);

/* Who reads in the worker what gclk_reading_ask() asks; before confine_entry(). foreign_read() else. */
void confine_set_reader(gclk_worker_reader *reader);

/**
 * confine_entry() - at the begin of main()
 *
 * A process that has threads cannot fork and go on: it starts its own program anew, which
 * comes by here. Returns -1 for all others, else the exit code.
 */
int confine_entry(int argc, char **argv);

/*
 * Which namespaces its workers share with this process, as one that ends tries it out:
 * "network ipc", "" for none; static. All else that they give up holds all the same.
 */
const char *confine_without(void);

/* ---- the parts, for tests ---- */

#define CONFINE_SOCKET 3

/**
 * confine_enter() - gives everything up but one socket
 * @socket:	becomes CONFINE_SOCKET; 0 to 2 are /dev/null, all others are closed
 * @ret_without:	which namespaces could not be had, "" for none; static
 *
 * There is no way back. Errors: GCLK_SYS with what could not be given up; then whoever
 * called is to end.
 */
int confine_enter(int socket, const struct confine_conf *conf, const char **ret_without,
		  struct gclk_error *reterr);

/* Only what the list allows, from now on. Errors: GCLK_SYS, GCLK_UNSUPPORTED. */
int confine_syscalls(struct gclk_error *reterr);

#endif
