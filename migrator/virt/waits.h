/* SPDX-License-Identifier: MIT */
/*
 * How long the threads of a running QEMU waited for a processor lately, as Linux counts it for
 * each: what stamps are late by on a busy host. Looked at every 10 ms, in a thread of its own.
 */
#ifndef GCLK_MIGRATOR_VIRT_WAITS_H
#define GCLK_MIGRATOR_VIRT_WAITS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct waits;

/* The counters of one thread, of /proc/PID/task/TID/schedstat. */
struct thread_counts {
	uint64_t waited_ns;	/* for a processor, up to the last time it got one */
	uint64_t runs;		/* how often it got one */
};

/* @fd: of that file; it is read from its start. */
bool thread_counts_read(int fd, struct thread_counts *ret);

/**
 * waits_watch() - begin
 * @root:	what stands before /proc: "" but in tests
 * @pid:	QEMU's
 *
 * Returns NULL where nothing can be seen: no such process, a kernel that does not count.
 */
struct waits *waits_watch(const char *root, pid_t pid);

/**
 * waits_lag() - by how much a stamp can be late
 * @age_ns:	how long ago one of the threads stamped what it did
 * @usual_ns:	how much without any waiting
 *
 * The longest time before the stamp that @usual_ns and all that the threads waited within that
 * time explain. 0: not known, since it would be longer than what was watched (0.6 s at most), or a
 * thread could not be watched.
 */
int64_t waits_lag(struct waits *waits, int64_t age_ns, int64_t usual_ns);

/* Accepts NULL, returns NULL. */
struct waits *waits_end(struct waits *waits);

/* For tests: the same of looks that were made, oldest first. Pure. */
struct waits_look {
	int64_t at_ns;		/* CLOCK_BOOTTIME, as the stamp */
	uint64_t waited_ns;	/* all threads, ever */
};
int64_t waits_lag_of(const struct waits_look *looks, unsigned n, int64_t stamp_ns,
		     int64_t usual_ns);

#endif
