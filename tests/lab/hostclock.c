/* SPDX-License-Identifier: MIT */
/*
 * This host's clocks at one instant, for truth that nothing of the library takes part in:
 * TSC ticks, CLOCK_MONOTONIC_RAW, _REALTIME and _MONOTONIC in ns, and the TSC ticks that the
 * reading of them took. The TSC is the middle of the narrowest of a few brackets.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define TRIES 32

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(void)
{
	int64_t raw = 0, real = 0, mono = 0;
	uint64_t tsc = 0, narrowest = UINT64_MAX;

	for (int i = 0; i < TRIES; i++) {
		uint64_t before = __builtin_ia32_rdtsc();
		int64_t now = clock_ns(CLOCK_REALTIME);
		uint64_t width = __builtin_ia32_rdtsc() - before;

		if (width < narrowest) {
			narrowest = width;
			tsc = before + width / 2;
			real = now;
			raw = clock_ns(CLOCK_MONOTONIC_RAW);
			mono = clock_ns(CLOCK_MONOTONIC);
		}
	}
	printf("%" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRIu64 "\n", tsc, raw, real,
	       mono, narrowest);
	return 0;
}
