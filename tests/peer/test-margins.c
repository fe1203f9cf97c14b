/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/margins.h"
#include "migrator/peer/passage.h"

#define MS GCLK_NS_PER_MS

GCLK_TEST(margins, without_experience_the_usual_one)
{
	struct margins m = { 0 };
	struct margin c = margins_choose(&m, 40 * MS, 20 * MS);

	GCLK_EQ(c.ns, 40 * MS);
	GCLK_EQ(c.n, 0);
}

GCLK_TEST(margins, a_busy_host_is_given_more_but_not_more_than_the_hold)
{
	int64_t before = 0;

	GCLK_EQ(margins_guess(16 * MS, 0, 2, 0, 20 * MS), 16 * MS);
	GCLK_EQ(margins_guess(16 * MS, 4000, 2, 0, 20 * MS), 16 * MS);
	GCLK_EQ(margins_guess(16 * MS, 6000, 2, 0, 20 * MS), 24 * MS);
	GCLK_EQ(margins_guess(16 * MS, 12000, 2, 0, 20 * MS), 20 * MS + 48 * MS / 5);
	GCLK_EQ(margins_guess(16 * MS, 12000, 16, 0, 20 * MS), 16 * MS);
	GCLK_EQ(margins_guess(16 * MS, 12000, 2, 0, 0), 16 * MS);
	for (uint64_t load = 0; load < 100000; load += 50) {
		int64_t ns = margins_guess(16 * MS, load, 2, 0, 20 * MS);

		CU_ASSERT(ns >= before && ns >= 16 * MS);
		CU_ASSERT(ns <= 20 * MS + 4 * 16 * MS / 5);
		before = ns;
	}
	GCLK_EQ(margins_guess(16 * MS, UINT64_MAX, 2, 0, INT64_MAX / 2), 64 * MS);
	GCLK_EQ(margins_guess(16 * MS, UINT64_MAX, 0, 0, INT64_MAX / 2), 64 * MS);
	CU_ASSERT(margins_load_milli() < 1000 * 100000);
}

/* Idle or not: there nobody is ready early, so what is usual there is not held against the hold. */
GCLK_TEST(margins, a_slow_host_is_given_more)
{
	GCLK_EQ(margins_guess(16 * MS, 0, 2, 500, 20 * MS), 16 * MS);
	GCLK_EQ(margins_guess(16 * MS, 0, 2, 2500, 20 * MS), 40 * MS);
	GCLK_EQ(margins_guess(16 * MS, 0, 1, 2500, 20 * MS), 80 * MS);
	GCLK_EQ(margins_guess(16 * MS, 0, 1, 0, 0), 32 * MS);
	GCLK_EQ(margins_guess(16 * MS, 6000, 2, 2500, 90 * MS), 60 * MS);
	GCLK_EQ(margins_guess(16 * MS, 12000, 2, 2500, 20 * MS), 44 * MS);
	GCLK_EQ(margins_guess(16 * MS, 0, 2, UINT64_MAX, 0), 64 * MS);
	GCLK_EQ(margins_guess(16 * MS, UINT64_MAX, 1, UINT64_MAX, INT64_MAX / 2), 512 * MS);
}

GCLK_TEST(margins, the_high_one_of_many)
{
	struct margins m = { 0 };
	struct margin c;

	for (int i = 1; i <= 40; i++) {
		margins_add(&m, (10 * 40 + i) * MS / 40);
	}
	margins_add(&m, 500 * MS); /* once in forty does not count */
	c = margins_choose(&m, 40 * MS, 20 * MS);
	CU_ASSERT(c.ns > 10 * MS && c.ns <= 11 * MS);
	CU_ASSERT(c.low_ns < c.ns && c.ns == c.high_ns);
}

/* Three that went well do not tell how one goes that does not. */
GCLK_TEST(margins, the_usual_one_is_one_of_the_first)
{
	struct margins m = { 0 };

	for (unsigned n = 0; n < 6; n++) {
		struct margin c = margins_choose(&m, 24 * MS, 20 * MS);

		GCLK_EQ(c.n, n);
		GCLK_EQ(c.ns, n < MARGINS_FEW ? 24 * MS : 10 * MS);
		GCLK_EQ(c.low_ns, n ? 10 * MS : 24 * MS);
		margins_add(&m, 10 * MS);
	}
}

GCLK_TEST(margins, spread_wider_than_the_hold_it_is_cut)
{
	struct margins m = { 0 };
	struct margin c;

	margins_add(&m, 10 * MS);
	margins_add(&m, 300 * MS);
	c = margins_choose(&m, 40 * MS, 20 * MS);
	GCLK_EQ(c.ns, 30 * MS);
	GCLK_EQ(c.low_ns, 10 * MS);
	GCLK_EQ(c.high_ns, 300 * MS);
}

/* Moves that somebody made up could have every guest stand for a minute. */
GCLK_TEST(margins, nobody_stands_for_long_because_others_did)
{
	struct margins m = { 0 };
	struct margin c;

	for (int i = 0; i < MARGINS_MAX; i++) {
		margins_add(&m, 59 * GCLK_NS_PER_S);
	}
	c = margins_choose(&m, 40 * MS, 20 * MS);
	GCLK_EQ(c.ns, 2 * GCLK_NS_PER_S);
	GCLK_EQ(c.high_ns, 59 * GCLK_NS_PER_S);
}

GCLK_TEST(margins, the_oldest_makes_room_and_nonsense_is_none)
{
	struct margins m = { 0 };

	for (int i = 0; i < 3 * MARGINS_MAX; i++) {
		margins_add(&m, i);
	}
	margins_add(&m, -1);
	margins_add(&m, INT64_MAX);
	GCLK_EQ(m.n, MARGINS_MAX);
	GCLK_EQ(m.delays_ns[0], 2 * MARGINS_MAX);
	GCLK_EQ(m.delays_ns[MARGINS_MAX - 1], 3 * MARGINS_MAX - 1);
}

static void in_directory(char path[64], char directory[32])
{
	strcpy(directory, "/tmp/gclk-margins-XXXXXX");
	CU_ASSERT_FATAL(mkdtemp(directory) != NULL);
	snprintf(path, 64, "%s/margins", directory);
}

static void put_away(const char *path, const char *directory)
{
	char lock[80];

	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	unlink(path);
	CU_ASSERT(rmdir(directory) == 0); /* no temporary file is left */
}

GCLK_TEST(margins, a_file_keeps_each_kind)
{
	char path[64], directory[32];
	struct margins m;

	in_directory(path, directory);
	margins_read(path, "load", &m);
	GCLK_EQ(m.n, 0);
	GCLK_EQ(margins_learn(path, "load", 5, NULL), 0);
	GCLK_EQ(margins_learn(path, "ready", 7, NULL), 0);
	GCLK_EQ(margins_learn(path, "load", 6, NULL), 0);
	margins_read(path, "load", &m);
	GCLK_EQ(m.n, 2);
	GCLK_EQ(m.delays_ns[0], 5);
	GCLK_EQ(m.delays_ns[1], 6);
	margins_read(path, "ready", &m);
	GCLK_EQ(m.n, 1);
	GCLK_EQ(m.delays_ns[0], 7);
	margins_read(path, "loa", &m);
	GCLK_EQ(m.n, 0);
	put_away(path, directory);
}

GCLK_TEST(margins, a_damaged_file_is_no_experience)
{
	static const char *const texts[] = { "", "\n\n", "load", "load x y", "load 1 2 x 3\n",
					     "load 99999999999999999999999999\n", "load -4 -5\n",
					     "load\nload 3\n" };
	char path[64], directory[32];
	struct margins m;
	FILE *file;

	in_directory(path, directory);
	for (unsigned i = 0; i < GCLK_COUNT(texts); i++) {
		file = fopen(path, "w");
		fputs(texts[i], file);
		fclose(file);
		margins_read(path, "load", &m);
		CU_ASSERT(m.n <= 2);
		GCLK_EQ(margins_learn(path, "load", 9, NULL), 0);
		margins_read(path, "load", &m);
		GCLK_EQ(m.delays_ns[m.n - 1], 9);
	}
	put_away(path, directory);
	CU_ASSERT(margins_learn("/nowhere/at/all", "load", 1, NULL) < 0);
}

GCLK_TEST(passage, the_stop_lies_between_the_marks)
{
	struct passage *p = calloc(1, sizeof(*p));
	int64_t low, high;

	passage_init(p, 100);
	for (int i = 1; i <= 100; i++) {
		passage_note(p, 100000, 50000, 1000 * i);
	}
	/* 5 MB: made once 4.68 MB had been written, which the mark before did not show yet */
	passage_stop(p, 5000000, 6000000, 200000, &low, &high);
	CU_ASSERT(low >= 44000 && low <= 47000);
	GCLK_EQ(high, 61000);
	/* nothing is known of the begin but that it was after the first connection */
	passage_stop(p, 10, 20, 200000, &low, &high);
	GCLK_EQ(low, 100);
	GCLK_EQ(high, 1000);
	/* a byte that has not come yet was written by now at the latest */
	passage_stop(p, 10000000, 10000000, 200000, &low, &high);
	GCLK_EQ(high, 200000);
	free(p);
}

GCLK_TEST(passage, what_has_been_forgotten_bounds_nothing)
{
	struct passage *p = calloc(1, sizeof(*p));
	int64_t low, high;

	passage_init(p, 100);
	for (int i = 1; i <= 3 * PASSAGE_MARKS; i++) {
		passage_note(p, 1000, 0, 1000 * i);
	}
	passage_stop(p, 1000 * PASSAGE_MARKS, 3000 * PASSAGE_MARKS - 500, 1, &low, &high);
	GCLK_EQ(low, 100);
	GCLK_EQ(high, 3000 * PASSAGE_MARKS);
	free(p);
}

/* A writer with a buffer of its own and a socket's; what it says bounds the truth. */
GCLK_TEST(passage, the_truth_is_within)
{
	struct passage *p = calloc(1, sizeof(*p));

	for (unsigned run = 0; run < 200 * gclk_test_scale(); run++) {
		uint64_t made = 0, written = 0, read = 0, ran = 0, after = 0, goal;
		int64_t now = 1000, stop = 0, low, high;

		passage_init(p, now);
		goal = 1000000 + gclk_random_below(5000000);
		while (read <= after || !stop) {
			now += 1 + (int64_t)gclk_random_below(1000);
			if (!stop && made >= goal && gclk_random_below(3) == 0) {
				stop = now;
				ran = made;
				after = made + 1;
				written = made; /* flushed */
			}
			if (gclk_random_below(2) && made - written < 200000) {
				made += gclk_random_below(100000);
			}
			if (gclk_random_below(2) && written - read < 200000) {
				written += gclk_random_below(made - written + 1);
			}
			if (stop && made > after) {
				written = GCLK_MAX(written, after);
			}
			if (gclk_random_below(2) && written > read) {
				uint64_t n = 1 + gclk_random_below(written - read);

				read += n;
				passage_note(p, n, written - read, now);
			}
		}
		passage_stop(p, ran, after, now, &low, &high);
		CU_ASSERT(low <= stop && stop <= high);
	}
	free(p);
}
