/* SPDX-License-Identifier: MIT */
#include "../tests/harness/gclk-test.h"
#include "common.h"

/* The same numbers each time. */
uint64_t gclk_random(void)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

double now_s(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
