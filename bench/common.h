/* SPDX-License-Identifier: MIT */
/* What several measurements need; and gclk_random(), for the writers that are the tests'. */
#ifndef GCLK_BENCH_COMMON_H
#define GCLK_BENCH_COMMON_H

#include <time.h>

/* A clock's reading in seconds. */
double now_s(clockid_t clock);

#endif
