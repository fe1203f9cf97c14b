/* SPDX-License-Identifier: MIT */
/*
 * The destination end of live moves: takes control connections and channels of any number
 * of sessions, dials the hypervisor, filters the main channel, plans and patches, lets the
 * last byte go, has the guest resumed, and reports. A connection is served by the thread
 * that brings it.
 */
#ifndef GCLK_MIGRATOR_PEER_DESTINATION_END_H
#define GCLK_MIGRATOR_PEER_DESTINATION_END_H

#include <sys/types.h>

#include <guestclock/image.h>

#include "migrator/move.h"
#include "migrator/peer/link.h"
#include "migrator/wall.h"

struct destination_end;

/* When a guest ran. */
struct destination_ran {
	struct gclk_instant at;	/* by the line that was given */
	int64_t until_ns;	/* by then its clocks ran; 0: not known */
	char basis[32];
	int64_t ready_ns;	/* when it could have been resumed; 0: not known */
};

/* Who can resume a guest; no member may be NULL. Called from any thread. */
struct destination_resume {
	/*
	 * Is @pid, which listens on that guest's socket (-1: whoever does), its hypervisor, and
	 * with @awaited: is the guest to arrive here now? Returns 0, or 1 where nobody knows.
	 * Errors: GCLK_REFUSED: no
	 */
	int (*check)(void *ctx, const char *uuid, pid_t pid, bool awaited,
		     struct gclk_error *reterr);
	/* before anything of the device state goes on */
	int (*open)(void *ctx, const char *uuid, void **ret, struct gclk_error *reterr);
	/* how many times as long as usual it takes to be answered, in thousandths; 0: not known */
	uint64_t (*slow_milli)(void *resume);
	/* waits until the guest has arrived and stands; resumes it so that it runs at @t_run_ns;
	 * all instants are by @line; @pid: the hypervisor's process, 0: not known */
	int (*at)(void *resume, const struct wall_line *line, pid_t pid, int64_t t_run_ns,
		  int64_t give_up_ns, struct destination_ran *ret, struct gclk_error *reterr);
	/* others resume it: when did it run? */
	int (*watch)(void *resume, const struct wall_line *line, int64_t give_up_ns,
		     struct destination_ran *ret, struct gclk_error *reterr);
	/* asks the hypervisor's monitor: as proof_ask (migrator/proof.h) */
	int (*ask)(void *resume, const char *command, bool human, char **ret,
		   struct gclk_error *reterr);
	void (*close)(void *resume);
};

#define DESTINATION_DIRECTORIES 8
#define DESTINATION_PATH 256

struct destination_options {
	/* where the hypervisor's sockets may be; none: anywhere */
	char directories[DESTINATION_DIRECTORIES][DESTINATION_PATH];
	char own_paths[2][DESTINATION_PATH]; /* of this program: not to be dialled; or "" */
	char main_path[108];		/* in place of what the other end asks for; or "" */
	char storage_path[108];
	const struct destination_resume *resume;	/* or NULL: guests resume by themselves */
	void *resume_ctx;
	bool may_own_resume;		/* the other end may ask for it */
	char audit_path[DESTINATION_PATH];	/* "": no log */
	char margins_path[DESTINATION_PATH];	/* "": nothing is learned */
	unsigned max_sessions;		/* at once */
	unsigned max_channels;		/* of one session */
	size_t tail_bytes;		/* device state held, each; 0: the filter's own limit */
	int64_t max_hold_ns;		/* no session may ask for more */
	int dial_ms, hello_ms;
	const struct gclk_worker *worker;	/* who filters streams and reads hellos for us, or NULL */
	void (*log)(int priority, const char *text);	/* as in syslog; or NULL */
	void (*session)(int step);	/* 1: one has begun, -1: it has ended; or NULL */
	void (*ended)(const struct move *report);	/* how; or NULL */
};

void destination_options_init(struct destination_options *options);

/* @options is copied; .resume_ctx is borrowed. */
int destination_end_new(const struct destination_options *options, struct destination_end **ret,
			struct gclk_error *reterr);

/* For sessions that begin from now on. */
void destination_end_configure(struct destination_end *end,
			       const struct destination_options *options);

/**
 * destination_end_serve() - one connection, until it ends
 * @link:	taken over, and closed
 *
 * Returns the status of the session or of the channel; what went wrong has been logged
 * and told to the other end.
 */
int destination_end_serve(struct destination_end *end, struct link *link,
			  struct gclk_error *reterr);

/* The same with a hello that has been read already. */
struct wire_hello;
struct port;
int destination_end_serve_hello(struct destination_end *end, struct port *port,
				const struct wire_hello *hello, struct gclk_error *reterr);

/* What went wrong on a connection, to the log of @end. */
void destination_end_log(struct destination_end *end, int priority,
			 const struct gclk_error *error);

/* Sessions at the moment; those that have let a guest go and not yet seen it run. */
unsigned destination_end_sessions(struct destination_end *end, unsigned *ret_released);

/* Breaks all sessions off that have not let their guest go. */
void destination_end_stop(struct destination_end *end, const char *why);

/* When no thread serves any more. Accepts NULL, returns NULL. */
struct destination_end *destination_end_free(struct destination_end *end);

#endif
