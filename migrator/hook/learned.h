/* SPDX-License-Identifier: MIT */
/*
 * What earlier restores on this host teach: how long it takes from the last device
 * state's reading until the guest runs, and how fast an image is read.
 */
#ifndef GCLK_MIGRATOR_HOOK_LEARNED_H
#define GCLK_MIGRATOR_HOOK_LEARNED_H

#include <stdint.h>

#include <guestclock/error.h>

#define LEARNED_DIR "/var/lib/guestclock"
#define LEARNED_MAX 32

/* One restore. */
struct lesson {
	int64_t to_load_ns;	/* from the reading of the tail to the end of the load */
	int64_t to_run_ns;	/* ... to the resume */
	uint64_t bytes_per_s;	/* of the reading; 0: too short to tell */
};

/* What they come to: the middle, and how far the others lie from it. */
struct learned {
	unsigned n;
	struct lesson lessons[LEARNED_MAX];	/* oldest first */
	int64_t to_load_ns, to_run_ns;
	uint64_t to_load_spread_ns, to_run_spread_ns;
	uint64_t bytes_per_s;
};

/**
 * learned_read() - from a file of earlier restores
 * @path:	need not exist; lines that are none are skipped
 *
 * Never fails: without lessons there are built-in figures with a wide spread.
 */
void learned_read(const char *path, struct learned *ret);

/* The same from lessons that are in memory already. */
void learned_conclude(struct learned *learned);

/* Appends one; the oldest make room. The file is replaced in one step. */
int learned_add(const char *path, const struct lesson *lesson, struct gclk_error *reterr);

#endif
