/* SPDX-License-Identifier: MIT */
#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gclk-test.h"

static struct gclk_test *first_test;
static uint64_t seed, random_state;
static unsigned scale = 1, n_skipped;
static const struct gclk_test *running;

void gclk_test_register(struct gclk_test *test)
{
	struct gclk_test **p = &first_test;

	while (*p) {
		p = &(*p)->next;
	}
	*p = test;
}

void gclk_test_skip(const char *why)
{
	n_skipped++;
	printf("skipped: %s/%s: %s\n", running ? running->suite : "?",
	       running ? running->name : "?", why);
}

uint64_t gclk_test_seed(void)
{
	return seed;
}

unsigned gclk_test_scale(void)
{
	return scale;
}

uint64_t gclk_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t gclk_random_below(uint64_t n)
{
	return gclk_random() % n;
}

uint64_t gclk_random_bits(void)
{
	uint64_t shift = gclk_random_below(64);

	return gclk_random() >> shift;
}

static bool selected(const struct gclk_test *test, int n_names, char **names)
{
	char full[256];

	if (n_names == 0) {
		return true;
	}
	snprintf(full, sizeof(full), "%s/%s", test->suite, test->name);
	for (int i = 0; i < n_names; i++) {
		if (!strcmp(names[i], test->suite) || !strcmp(names[i], full)) {
			return true;
		}
	}
	return false;
}

/* CUnit runs argument-less functions; this one finds its case by the test's name. */
static void run_current(void)
{
	const char *suite = CU_get_current_suite()->pName;
	const char *name = CU_get_current_test()->pName;

	for (struct gclk_test *test = first_test; test; test = test->next) {
		if (!strcmp(test->suite, suite) && !strcmp(test->name, name)) {
			random_state = seed;
			running = test;
			test->run();
			return;
		}
	}
	CU_FAIL("no such case");
}

static int add(const struct gclk_test *test)
{
	CU_pSuite suite = CU_get_suite(test->suite);

	if (!suite) {
		suite = CU_add_suite(test->suite, NULL, NULL);
	}
	return suite && CU_add_test(suite, test->name, run_current) ? 0 : -1;
}

static int list(void)
{
	for (struct gclk_test *test = first_test; test; test = test->next) {
		printf("%s/%s\n", test->suite, test->name);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int i = 1;

	seed = (uint64_t)time(NULL);
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--list")) {
			return list();
		}
		if (i + 1 < argc && !strcmp(argv[i], "--seed")) {
			seed = strtoull(argv[++i], NULL, 0);
		} else if (i + 1 < argc && !strcmp(argv[i], "--scale")) {
			scale = (unsigned)strtoul(argv[++i], NULL, 0);
		} else {
			fprintf(stderr, "usage: %s [--list] [--seed N] [--scale N] [SUITE[/CASE]...]\n",
				argv[0]);
			return 2;
		}
	}
	printf("seed: %llu\n", (unsigned long long)seed);
	if (CU_initialize_registry() != CUE_SUCCESS) {
		return 3;
	}
	for (struct gclk_test *test = first_test; test; test = test->next) {
		if (selected(test, argc - i, argv + i) && add(test) < 0) {
			fprintf(stderr, "%s\n", CU_get_error_msg());
			return 3;
		}
	}
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();

	unsigned run = CU_get_number_of_tests_run();
	unsigned failed = CU_get_number_of_tests_failed();

	CU_cleanup_registry();
	printf("cases: %u passed, %u failed, %u skipped\n", run - failed - n_skipped, failed,
	       n_skipped);
	if (run == 0) {
		return 2;
	}
	return failed ? 1 : 0;
}
