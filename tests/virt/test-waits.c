/* SPDX-License-Identifier: MIT */
/* Threads of this process stand in for a QEMU's, and the kernel counts what they waited. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/virt/waits.h"
#include "migrator/wall.h"

#define MS INT64_C(1000000)

/* One look each 10 ms, the last one at the stamp; how much had been waited until each. */
static int64_t lag_of(const unsigned *waited_ms, unsigned n, int64_t usual_ns)
{
	struct waits_look looks[64];
	const int64_t stamp = INT64_C(1700000000000000000);

	for (unsigned i = 0; i < n; i++) {
		looks[i].at_ns = stamp - (int64_t)(n - 1 - i) * 10 * MS;
		looks[i].waited_ns = waited_ms[i] * (uint64_t)MS;
	}
	return waits_lag_of(looks, n, stamp, usual_ns);
}

GCLK_TEST(waits, what_waiting_explains)
{
	static const unsigned calm[] = { 5, 5, 5, 5, 5 };
	static const unsigned early[] = { 5, 30, 30, 30, 30 };
	static const unsigned late[] = { 5, 5, 5, 5, 13 };
	static const unsigned always[] = { 0, 9, 18, 27, 36 };
	static const unsigned more[] = { 0, 20, 40, 60, 80 };

	GCLK_EQ(lag_of(calm, 5, 1500000), 1500000);
	/* what was waited before the longest time that is explained does not count */
	GCLK_EQ(lag_of(early, 5, 1500000), 1500000);
	GCLK_EQ(lag_of(late, 5, 1500000), 9500000);
	/* nine of ten ms, always: 36 in the last 40 */
	GCLK_EQ(lag_of(always, 5, 1500000), 37500000);
	/* more than was watched */
	GCLK_EQ(lag_of(more, 5, 1500000), 0);
	GCLK_EQ(lag_of(calm, 1, 1500000), 0);
	GCLK_EQ(lag_of(calm, 0, 1500000), 0);
}

/* The answer against its definition, tried for every time in steps of 0.1 ms. */
GCLK_TEST(waits, the_longest_time_that_is_explained)
{
	for (unsigned k = 0; k < 2000; k++) {
		unsigned waited[8] = { 0 };
		int64_t longest = 0, lag;

		for (unsigned i = 1; i < 8; i++) {
			waited[i] = waited[i - 1] + (unsigned)gclk_random_below(14);
		}
		lag = lag_of(waited, 8, MS);
		for (int64_t span = MS / 10; span <= 70 * MS; span += MS / 10) {
			unsigned look = (unsigned)(7 - (span + 10 * MS - 1) / (10 * MS));
			int64_t explained = MS + (waited[7] - waited[look]) * MS;

			longest = explained >= span ? span : longest;
		}
		if (longest == 70 * MS) {
			GCLK_EQ(lag, 0);
		} else {
			GCLK_EQ(lag, longest);
		}
	}
}

/* Two threads that want one processor: each waits for the other half of the time. */
static void *hog(void *arg)
{
	cpu_set_t *one = arg;

	pthread_setaffinity_np(pthread_self(), sizeof(*one), one);
	for (int64_t end = boot_clock_ns() + 60 * MS; boot_clock_ns() < end;) {
	}
	return NULL;
}

GCLK_TEST(waits, what_the_kernel_counts)
{
	struct waits *waits = waits_watch("", getpid());
	struct thread_counts before, after;
	pthread_t threads[2];
	cpu_set_t all, one;
	int64_t calm, busy;
	int cpu = 0, fd;

	CU_ASSERT_PTR_NOT_NULL_FATAL(waits);
	sched_getaffinity(0, sizeof(all), &all);
	while (!CPU_ISSET(cpu, &all)) {
		cpu++;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	nanosleep(&(struct timespec){ 0, 700 * MS }, NULL);
	calm = waits_lag(waits, 0, 2 * MS);
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, hog, &one), 0);
	}
	nanosleep(&(struct timespec){ 0, 50 * MS }, NULL);
	busy = waits_lag(waits, 0, 2 * MS);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
	}
	/* on a busy machine this one has waited, too: then there is more, or more than was seen */
	CU_ASSERT(calm == 0 || calm >= 2 * MS);
	CU_ASSERT(busy == 0 || busy >= 12 * MS);
	CU_ASSERT_PTR_NULL(waits_end(waits));
	fd = open("/proc/thread-self/schedstat", O_RDONLY);
	CU_ASSERT(thread_counts_read(fd, &before));
	nanosleep(&(struct timespec){ 0, MS }, NULL);
	CU_ASSERT(thread_counts_read(fd, &after));
	CU_ASSERT(after.runs > before.runs && after.waited_ns >= before.waited_ns);
	close(fd);
}

/* No descriptors are left for a look: what it does not see may have waited. */
GCLK_TEST(waits, a_look_that_cannot_see_knows_nothing)
{
	struct waits *waits = waits_watch("", getpid());
	struct rlimit before, none;
	int64_t lag_ns = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(waits);
	for (unsigned i = 0; i < 20 && !lag_ns; i++) {
		nanosleep(&(struct timespec){ 0, 100 * MS }, NULL);
		lag_ns = waits_lag(waits, 0, MS);
	}
	CU_ASSERT(lag_ns >= MS);
	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){ 0, before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	GCLK_EQ(waits_lag(waits, 0, MS), 0);
	setrlimit(RLIMIT_NOFILE, &before);
	GCLK_EQ(waits_lag(waits, 0, MS), 0);
	CU_ASSERT_PTR_NULL(waits_end(waits));
}

GCLK_TEST(waits, nothing_to_see)
{
	CU_ASSERT_PTR_NULL(waits_watch("/nowhere", getpid()));
	CU_ASSERT_PTR_NULL(waits_watch("", 0));
	CU_ASSERT_PTR_NULL(waits_watch("", -1));
	CU_ASSERT_PTR_NULL(waits_end(NULL));
}
