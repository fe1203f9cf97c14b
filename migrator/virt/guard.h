/* SPDX-License-Identifier: MIT */
/*
 * Work that must not end halfway: it is done by a process of its own, which neither the
 * terminal's signals nor the end of the command reach. The command waits for it; should
 * the worker be killed instead, the command resumes a guest that it left suspended.
 */
#ifndef GCLK_MIGRATOR_VIRT_GUARD_H
#define GCLK_MIGRATOR_VIRT_GUARD_H

#include <stdbool.h>
#include <stdint.h>

/* Shared by both processes. */
struct guard {
	char uri[512];	/* "": libvirt's default */
	char uuid[40];	/* of the guest */
	/* the worker has it suspended, or loaded so, and it is to run; else 0 */
	volatile int suspended;
};

/**
 * guard_run() - do @work in a process of its own
 * @work:	returns the exit code; what it prints is the command's
 * @interrupt:	what ^C does: SIGTERM is passed on to the worker; false: nothing
 *
 * Returns the exit code. Call it before there is a second thread.
 */
int guard_run(int (*work)(struct guard *guard, void *ctx), void *ctx, bool interrupt);

#endif
