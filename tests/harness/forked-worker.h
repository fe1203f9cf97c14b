/* SPDX-License-Identifier: MIT */
/*
 * A worker of a test: a child that reads, with no more than this process's own rights, or
 * does what a script says instead.
 */
#ifndef GCLK_FORKED_WORKER_H
#define GCLK_FORKED_WORKER_H

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <guestclock/image.h>

struct forked {
	gclk_worker_reader *read;
	void (*script)(int socket);	/* or NULL: it works */
	unsigned started, stopped;
	pid_t last;			/* started */
};

static inline int forked_start(void *ctx, struct gclk_worker_process *ret,
			       struct gclk_error *reterr)
{
	struct forked *forked = ctx;
	int ends[2];

	(void)reterr;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
		return -GCLK_SYS;
	}
	fflush(NULL);
	*ret = (struct gclk_worker_process){ ends[0], fork() };
	if (ret->pid == 0) {
		close(ends[0]);
		if (forked->script) {
			forked->script(ends[1]);
		} else {
			gclk_worker_run(ends[1], NULL, forked->read);
		}
		_exit(0);
	}
	close(ends[1]);
	forked->started++;
	forked->last = ret->pid;
	return 0;
}

static inline void forked_stop(void *ctx, struct gclk_worker_process *process, int failed,
			       struct gclk_error *reterr)
{
	struct forked *forked = ctx;

	close(process->socket);
	kill(process->pid, SIGKILL);
	waitpid(process->pid, NULL, 0);
	forked->stopped++;
	if (failed) {
		*reterr = (struct gclk_error){ .status = GCLK_PEER, .message = "it has died" };
	}
}

#define FORKED_WORKER(forked) { forked_start, forked_stop, forked, 0 }

#endif
