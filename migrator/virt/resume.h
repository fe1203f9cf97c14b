/* SPDX-License-Identifier: MIT */
/*
 * The destination's side owns the resume: a guest that arrived paused is resumed so that
 * it runs at a chosen instant, without anybody's help, and the instant at which it ran is
 * measured.
 *
 *	resume_open(NULL, uuid, &resume, &err);	before the device state goes on
 *	... the last byte is let go ...
 *	resume_at(resume, t_run_ns, give_up_ns, &resumed, &err);
 *	resume_close(resume);
 */
#ifndef GCLK_MIGRATOR_VIRT_RESUME_H
#define GCLK_MIGRATOR_VIRT_RESUME_H

#include <stdbool.h>
#include <sys/types.h>

#include <guestclock/error.h>
#include <guestclock/plan.h>

#include "migrator/wall.h"

struct resume;

struct resumed {
	struct gclk_instant at;	/* by the line; unbounded: not seen */
	int64_t until_ns;	/* by then its clocks ran: processors were seen to, or the call that resumed it came back; 0: neither */
	char basis[32];		/* "event": QEMU's stamp; "call": around the call that resumed it */
	int64_t ready_ns;	/* the soonest instant for which it could have been resumed; 0: not known */
};

/**
 * resume_open() - connect, listen for this domain
 * @uri:	NULL: libvirt's default
 * @uuid:	of the domain that will come
 *
 * Errors: GCLK_SYS.
 */
int resume_open(const char *uri, const char *uuid, struct resume **ret,
		struct gclk_error *reterr);

/**
 * resume_at() - wait until it has arrived and stands, have it run at @t_run_ns
 * @line:	by which all instants are told and taken: whoever sets the wall clock meanwhile,
 *		nothing here waits longer, or resumes at another moment
 * @pid:	the hypervisor's process, 0: libvirt's file names it, if any does
 * @t_run_ns:	by the line; at once where that has passed
 * @give_up_ns:	the same clock: how long to wait for its arrival
 *
 * Only for a guest that was running. One that somebody else has resumed meanwhile is
 * reported as what it is.
 *
 * Errors: GCLK_STATE where the domain did not arrive (its migration failed: the guest goes on
 * at the source) or cannot be resumed; GCLK_SYS where libvirt is gone.
 */
int resume_at(struct resume *resume, const struct wall_line *line, pid_t pid, int64_t t_run_ns,
	      int64_t give_up_ns, struct resumed *ret, struct gclk_error *reterr);

/* How many times as long as on an idle host libvirt takes to answer, in thousandths. */
uint64_t resume_slow_milli(const struct resume *resume);

/* The caller knows that it stands there, loaded: a restore has come back. */
void resume_has_arrived(struct resume *resume, int64_t at_ns);

/* Others resume it: when did it run? Errors as above; GCLK_STATE: not until @give_up_ns. */
int resume_watch(struct resume *resume, const struct wall_line *line, int64_t give_up_ns,
		 struct resumed *ret, struct gclk_error *reterr);

/**
 * resume_ask() - a question to QEMU's monitor, which marks the domain as tainted
 * @human:	in the monitor's language for people, else QMP
 * @ret:	malloc()ed
 *
 * libvirt lets it wait while a job of the domain goes on. Errors: GCLK_SYS, GCLK_STATE.
 */
int resume_ask(struct resume *resume, const char *command, bool human, char **ret,
	       struct gclk_error *reterr);

/* Accepts NULL, returns NULL. */
struct resume *resume_close(struct resume *resume);

#endif
