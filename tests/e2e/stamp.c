/* SPDX-License-Identifier: MIT */
/*
 * Time stamps for the end-to-end harness, taken without the interpreter in the way: a
 * read that is stamped the moment it returns, and a wait that ends at an instant.
 *
 * Built into a shared object by qemu.py or meson, called through ctypes (which lets go
 * of the interpreter's lock meanwhile). Nothing here is part of the library under test.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

struct stamp {
	uint64_t tsc;
	int64_t raw_ns, realtime_ns, monotonic_ns;
};

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void stamp_now(struct stamp *ret);
EXPORTED long stamped_read(int fd, void *buf, unsigned long n_bytes, struct stamp *ret);
EXPORTED void wait_realtime(int64_t until_ns, int64_t spin_ns);

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static uint64_t tsc(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_ia32_rdtsc();
#else
	return 0;
#endif
}

/* The best of a few brackets: the TSC is the middle of the narrowest one. */
void stamp_now(struct stamp *ret)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 3; i++) {
		struct stamp s;
		uint64_t before = tsc(), after;

		s.raw_ns = clock_ns(CLOCK_MONOTONIC_RAW);
		s.realtime_ns = clock_ns(CLOCK_REALTIME);
		s.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
		after = tsc();
		s.tsc = before + (after - before) / 2;
		if (after - before < best || i == 0) {
			best = after - before;
			*ret = s;
		}
	}
}

/*
 * Wait for bytes, stamp, then read them. Returns the count, 0 at the end, -1 with errno.
 */
long stamped_read(int fd, void *buf, unsigned long n_bytes, struct stamp *ret)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (poll(&p, 1, -1) < 0 && errno == EINTR) {
	}
	stamp_now(ret);
	return read(fd, buf, n_bytes);
}

/* Sleep until shortly before an instant of CLOCK_REALTIME, then watch the clock. */
void wait_realtime(int64_t until_ns, int64_t spin_ns)
{
	int64_t sleep_until = until_ns - spin_ns;
	struct timespec ts = {
		.tv_sec = sleep_until / 1000000000,
		.tv_nsec = sleep_until % 1000000000,
	};

	while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL) == EINTR) {
	}
	while (clock_ns(CLOCK_REALTIME) < until_ns) {
	}
}
