/* SPDX-License-Identifier: MIT */
/* What measurements of live streams need: a stream, and the filter's other process. */
#ifndef GCLK_BENCH_STREAM_H
#define GCLK_BENCH_STREAM_H

#include <guestclock/image.h>

#include "../tests/image/stream-writer.h"

/*
 * @n bytes up to somewhere in a round of memory: records of @flag, W_PAGE or W_ZERO. A new
 * part of the section begins every 48 MiB, about as often as at 1 GiB/s with QEMU's 50 ms.
 */
void make_stream(struct bytes *b, unsigned flag, size_t n);

/*
 * The program started anew, as the daemon's are; what it would give up besides costs nothing
 * while bytes flow. Its main() calls bench_entry() first.
 */
extern const struct gclk_worker bench_worker;
void bench_entry(char **argv);

/* Processor time of all that has run here, ended children's too. */
double all_cpu_s(void);

/* The one in the middle; sorts them. */
double median(double *values, unsigned n);

#endif
