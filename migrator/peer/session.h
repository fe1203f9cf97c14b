/* SPDX-License-Identifier: MIT */
/* One move at its destination: what its control connection and its channels share. */
#ifndef GCLK_MIGRATOR_PEER_SESSION_H
#define GCLK_MIGRATOR_PEER_SESSION_H

#include <pthread.h>

#include "migrator/move.h"
#include "migrator/peer/asker.h"
#include "migrator/peer/destination_end.h"
#include "migrator/peer/margins.h"
#include "migrator/proof.h"
#include "migrator/wall.h"

enum session_state {
	SESSION_OPEN,
	SESSION_PASSING,	/* the main channel goes through untouched */
	SESSION_RELEASED,	/* the last byte has gone: no way back */
	SESSION_BROKEN,		/* before it had */
};

struct session {
	struct session *next;
	unsigned refs;
	uint8_t id[WIRE_SESSION_BYTES];
	struct destination_options options;
	struct wire_move move;
	const char *force[WIRE_FORCE_MAX + 1];	/* of move.policy */
	struct gclk_host host;			/* this one */
	int64_t opened_ns;			/* CLOCK_BOOTTIME */
	struct port *port;			/* control; others than its thread: session_send() */
	void *resume;				/* of options.resume, or NULL */
	int cancel;	/* eventfd: readable: the channels are to break off */
	int wake;	/* eventfd: the control thread is to look again */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum session_state state;
	struct gclk_error why;			/* of SESSION_BROKEN */
	bool refused;
	struct asker asker;			/* written by the control thread */
	bool want_burst;
	bool has_stopped, has_there;
	bool stop_taken;				/* the plan has it */
	struct wire_stopped stopped;
	int64_t stopped_boot_ns;		/* when that was heard */
	unsigned n_channels;
	bool has_main, main_over;
	struct gclk_error main_error;		/* .status 0: none */
	unsigned n_senders;			/* within session_send() */
	bool hung_up;				/* there is no port any more */

	/*
	 * The main channel's; freed with the session: the end of its process, and the start of
	 * one for the next move, take processors that the guest is about to be resumed with.
	 */
	struct gclk_filter *filter;

	/* the main channel's answer; the control thread reads it after the release */
	struct move report;
	struct wall_line line;			/* every instant here is by it, once a plan was made */
	int64_t run_ns;				/* T_run; 0: no plan was made */
	struct gclk_instant load;		/* T_load, as planned */
	bool runs;				/* it is to run at all */
	int64_t released_ns, shut_ns;		/* on the line; 0: not yet */
	struct proof proof;			/* what the plan has put where */
	pid_t pid;				/* the hypervisor's; 0: not known */
	bool is_guests;				/* that guest's, as libvirt says */
	bool began;				/* its stream, towards that */
};

/* Breaks everything off, unless the last byte has gone. Returns whether it did. */
bool session_break(struct session *session, const struct gclk_error *why, bool refused);

enum session_state session_state(struct session *session);

/* The control thread looks again. */
void session_wake(struct session *session);

/* The lock is held: waits for a change until @deadline_ns (CLOCK_MONOTONIC). */
bool session_wait(struct session *session, int64_t deadline_ns);

/**
 * session_send() - a message on the control connection, from the thread of a channel
 *
 * A channel may live longer than that connection, which is its own thread's. Errors: as
 * port_send(), and GCLK_STATE once session_hang_up() was called.
 */
int session_send(struct session *session, const struct wire_message *message,
		 struct gclk_error *reterr);

/* The port goes: waits for those who send on it, and lets nobody begin to. */
void session_hang_up(struct session *session);

void session_log(const struct session *session, int priority, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * main_channel_run() - relay and filter the main channel (main_channel.c)
 * @a:	the source
 * @b:	the hypervisor
 */
int main_channel_run(struct session *session, struct link *a, struct link *b,
		     struct gclk_error *reterr);

/* What is known of the move before any plan is made. */
void session_report_init(const struct session *session, struct move *ret);

/* The last byte has gone, or all bytes have passed: the resume, the report (closing.c). */
void session_conclude(struct session *session);

/* It was broken off: report that. */
void session_give_up(struct session *session);

#endif
