/* SPDX-License-Identifier: MIT */
/*
 * CUnit with one-line registration:
 *
 *	GCLK_TEST(pit, restore_then_capture_is_identity) { CU_ASSERT(...); }
 *
 * registers case "restore_then_capture_is_identity" in suite "pit". The harness
 * has main(): options --seed N (random tests; printed at the start), --scale N
 * (multiplies random counts), --list, and names of suites or suite/case to run.
 */
#ifndef GCLK_TEST_H
#define GCLK_TEST_H

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct gclk_test {
	const char *suite;
	const char *name;
	void (*run)(void);
	struct gclk_test *next;
};

void gclk_test_register(struct gclk_test *test);

/* Counts the running case as skipped and says why on stdout; then return. */
void gclk_test_skip(const char *why);

/* The run's seed, and a generator on it: splitmix64, one stream per case. */
uint64_t gclk_test_seed(void);
uint64_t gclk_random(void);
uint64_t gclk_random_below(uint64_t n);		/* 0..n-1; n > 0 */
uint64_t gclk_random_bits(void);		/* a random width first: small numbers are likely */
unsigned gclk_test_scale(void);

#define GCLK_TEST(suite_, name_)                                                  \
	static void suite_##_##name_(void);                                       \
	__attribute__((constructor)) static void register_##suite_##_##name_(void) \
	{                                                                         \
		static struct gclk_test test = { #suite_, #name_, suite_##_##name_, NULL }; \
		gclk_test_register(&test);                                        \
	}                                                                         \
	static void suite_##_##name_(void)

/* Says both values when they differ; for integers of any signedness up to 64 bits. */
#define GCLK_EQ(a, b)                                                             \
	do {                                                                      \
		long long a_ = (long long)(a), b_ = (long long)(b);               \
		if (a_ != b_) {                                                   \
			printf("\n    %s:%d: %s = %lld (0x%llx), expected %lld (0x%llx)\n", \
			       __FILE__, __LINE__, #a, a_, (unsigned long long)a_, b_, \
			       (unsigned long long)b_);                           \
		}                                                                 \
		CU_ASSERT(a_ == b_);                                              \
	} while (0)

#endif
