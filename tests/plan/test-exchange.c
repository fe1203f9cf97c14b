/* SPDX-License-Identifier: MIT */
/*
 * Two simulated clocks: here is the reference, there is off by something and drifts by a
 * rate that changes all the time within its limit. Whatever the paths do, the bound holds.
 */
#include <stdlib.h>

#include <guestclock/exchange.h>

#include "core/util.h"
#include "gclk-test.h"

#define S GCLK_NS_PER_S
#define MS GCLK_NS_PER_MS

struct pair {
	int64_t now_ns;			/* here */
	int64_t off_ns;			/* there minus here */
	int64_t rest;			/* of a ns, in 10^-9 ns */
	int64_t rate_ppb, limit_ppb;
	int64_t resolution_ns;
};

static void pass(struct pair *p, int64_t ns)
{
	gclk_i128 moved = (gclk_i128)ns * p->rate_ppb + p->rest;

	p->now_ns += ns;
	p->off_ns += (int64_t)(moved / S);
	p->rest = (int64_t)(moved % S);
	if (gclk_random_below(4) == 0) {
		p->rate_ppb = (int64_t)gclk_random_below((uint64_t)(2 * p->limit_ppb + 1)) -
			      p->limit_ppb;
	}
}

static int64_t coarse(const struct pair *p, int64_t ns)
{
	return ns - ns % p->resolution_ns;
}

static struct gclk_exchange exchange(struct pair *p, int64_t way_max_ns)
{
	struct gclk_exchange x;

	x.asked_ns = coarse(p, p->now_ns);
	pass(p, (int64_t)gclk_random_below((uint64_t)way_max_ns));
	x.heard_ns = coarse(p, p->now_ns + p->off_ns);
	pass(p, (int64_t)gclk_random_below(50000));
	x.answered_ns = coarse(p, p->now_ns + p->off_ns);
	pass(p, (int64_t)gclk_random_below((uint64_t)way_max_ns));
	x.got_ns = coarse(p, p->now_ns);
	return x;
}

static struct pair any_pair(void)
{
	struct pair p = { .now_ns = INT64_C(1790000000) * S, .limit_ppb = 1 };

	p.limit_ppb = (int64_t)gclk_random_below(1000000);
	p.off_ns = (int64_t)gclk_random() >> gclk_random_below(40) >> 4;
	p.resolution_ns = gclk_random_below(4) ? 1 : 1000;
	return p;
}

GCLK_TEST(exchange, the_bound_holds_whatever_the_paths_do)
{
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		struct pair p = any_pair();
		struct gclk_exchanges e;
		struct gclk_disagreement d;
		uint64_t least = UINT64_MAX;

		gclk_exchanges_init(&e, (uint64_t)p.limit_ppb, (uint64_t)p.resolution_ns);
		gclk_exchanges_at(&e, p.now_ns, &d);
		CU_ASSERT(d.uncertainty_ns == GCLK_UNBOUNDED);
		for (unsigned k = 0; k < 20; k++) {
			struct gclk_exchange x = exchange(&p, 10 + (int64_t)gclk_random_below(30 * MS));
			struct gclk_error error;
			int64_t off;

			GCLK_EQ(gclk_exchanges_add(&e, &x, &error), 0);
			least = GCLK_MIN(least, e.round_trip_ns);
			pass(&p, (int64_t)gclk_random_below(S));
			gclk_exchanges_at(&e, p.now_ns, &d);
			off = p.off_ns - d.ns;
			CU_ASSERT((uint64_t)(off < 0 ? -off : off) <= d.uncertainty_ns);
		}
		GCLK_EQ(e.n_steps, 0);
		GCLK_EQ(e.n, 20);
		GCLK_EQ(e.round_trip_ns, least);
	}
}

/* Neither clock is right: each gains or loses up to half the limit, the gap included. */
GCLK_TEST(exchange, a_gap_between_two_wrong_clocks)
{
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		struct pair here = any_pair(), there = any_pair();
		int64_t limit = here.limit_ppb / 2, gap = 0, stop, stopped = 0, wrong;
		struct gclk_disagreement d;
		struct gclk_exchanges e;

		here.limit_ppb = there.limit_ppb = limit;
		here.rate_ppb = there.rate_ppb = gclk_random_below(2) ? limit : -limit;
		gclk_exchanges_init(&e, (uint64_t)(2 * limit), 1000);
		stop = (int64_t)gclk_random_below(8);
		for (unsigned k = 0; k < 8; k++) {
			struct gclk_exchange x;

			x.asked_ns = here.now_ns + here.off_ns;
			x.heard_ns = there.now_ns + there.off_ns;
			x.answered_ns = x.heard_ns;
			if (k == stop) {
				gap = here.now_ns;
				stopped = x.heard_ns;
			}
			wrong = (int64_t)gclk_random_below(200 * MS);
			pass(&here, wrong);
			pass(&there, wrong);
			x.got_ns = here.now_ns + here.off_ns;
			GCLK_EQ(gclk_exchanges_add(&e, &x, NULL), 0);
		}
		gap = here.now_ns - gap;
		gclk_exchanges_over(&e, stopped, here.now_ns + here.off_ns, &d);
		wrong = here.now_ns + here.off_ns - stopped - d.ns - gap;
		CU_ASSERT((uint64_t)(wrong < 0 ? -wrong : wrong) <= d.uncertainty_ns);
	}
}

GCLK_TEST(exchange, nothing_asked_leaves_a_gap_unbounded)
{
	struct gclk_disagreement d;
	struct gclk_exchanges e;

	gclk_exchanges_init(&e, 1000000, 1000);
	gclk_exchanges_over(&e, 5 * S, 6 * S, &d);
	CU_ASSERT(d.uncertainty_ns == GCLK_UNBOUNDED);
}

/* Half the least round trip, the resolution, and what may have drifted since. */
GCLK_TEST(exchange, the_bound_is_no_larger_than_it_must_be)
{
	for (unsigned i = 0; i < 500; i++) {
		struct pair p = any_pair();
		struct gclk_exchanges e;
		struct gclk_disagreement d;
		int64_t began = p.now_ns;
		uint64_t allowed;

		gclk_exchanges_init(&e, (uint64_t)p.limit_ppb, (uint64_t)p.resolution_ns);
		for (unsigned k = 0; k < 20; k++) {
			struct gclk_exchange x = exchange(&p, 5 * MS);

			GCLK_EQ(gclk_exchanges_add(&e, &x, NULL), 0);
		}
		gclk_exchanges_at(&e, e.at_ns, &d);
		allowed = e.round_trip_ns / 2 + 3 * (uint64_t)p.resolution_ns + 2 +
			  (uint64_t)(p.now_ns - began) / 1000 * (uint64_t)p.limit_ppb / 1000000 + 25;
		CU_ASSERT(d.uncertainty_ns <= allowed);
	}
}

GCLK_TEST(exchange, slow_answers_do_no_harm)
{
	struct pair p = { .now_ns = 100 * S, .off_ns = 7 * S, .resolution_ns = 1 };
	const struct gclk_exchange quick = { 100 * S, 107 * S + 1000, 107 * S + 2000, 100 * S + 3000 };
	struct gclk_exchanges e;
	struct gclk_disagreement d;

	gclk_exchanges_init(&e, 0, 0);
	GCLK_EQ(gclk_exchanges_add(&e, &quick, NULL), 0);
	gclk_exchanges_at(&e, 200 * S, &d);
	GCLK_EQ(d.ns, 7 * S);
	GCLK_EQ(d.uncertainty_ns, 1000);
	p.now_ns = 101 * S;
	for (unsigned i = 0; i < 100; i++) {
		struct gclk_exchange x = exchange(&p, 500 * MS);

		GCLK_EQ(gclk_exchanges_add(&e, &x, NULL), 0);
	}
	gclk_exchanges_at(&e, 200 * S, &d);
	CU_ASSERT(d.uncertainty_ns <= 1000);
	GCLK_EQ(e.round_trip_ns, 2000);
}

GCLK_TEST(exchange, a_clock_that_was_set_begins_anew)
{
	struct pair p = any_pair();
	struct gclk_exchanges e;
	struct gclk_disagreement d;
	struct gclk_exchange x;

	p.limit_ppb = 50000;
	gclk_exchanges_init(&e, 50000, (uint64_t)p.resolution_ns);
	for (unsigned i = 0; i < 30; i++) {
		if (i == 15) {
			p.off_ns += 3 * S;
		}
		x = exchange(&p, MS);
		GCLK_EQ(gclk_exchanges_add(&e, &x, NULL), 0);
	}
	GCLK_EQ(e.n_steps, 1);
	GCLK_EQ(e.n, 15);
	gclk_exchanges_at(&e, p.now_ns, &d);
	CU_ASSERT((uint64_t)llabs(p.off_ns - d.ns) <= d.uncertainty_ns);
	CU_ASSERT(d.uncertainty_ns < 2 * MS);
}

GCLK_TEST(exchange, the_rate_lies_within_its_limits)
{
	for (unsigned i = 0; i < 200; i++) {
		const int64_t rate_ppb = (int64_t)gclk_random_below(1000001) - 500000;
		int64_t low = 0, high = 0, at = INT64_C(1790000000) * S;
		struct gclk_exchanges e;

		gclk_exchanges_init(&e, 500000, 1);
		for (int64_t k = 0; k < 20; k++, at += S) {
			int64_t there = 5 * S + at + k * rate_ppb, way = (int64_t)gclk_random_below(MS);
			struct gclk_exchange x = { at - way, there, there,
						   at + (int64_t)gclk_random_below(MS) };

			GCLK_EQ(gclk_exchanges_add(&e, &x, NULL), 0);
			CU_ASSERT(gclk_exchanges_rate(&e, &low, &high) || k < 2);
		}
		CU_ASSERT(low <= rate_ppb && rate_ppb <= high);
		CU_ASSERT(high - low < 250000);
	}
}

GCLK_TEST(exchange, impossible_stamps_are_refused)
{
	static const struct { struct gclk_exchange x; int status; } rows[] = {
		{ { 10, 100, 100, 9 }, -GCLK_PEER },		/* got before asked */
		{ { 10, 100, 99, 20 }, -GCLK_PEER },		/* answered before heard */
		{ { 10, 100, 200, 20 }, -GCLK_PEER },		/* kept for longer than away */
		{ { 10, INT64_MAX, INT64_MAX, 20 }, -GCLK_RANGE },
		{ { INT64_MIN, 0, 0, INT64_MAX }, -GCLK_RANGE },
		{ { 10, INT64_MIN, INT64_MIN, 20 }, -GCLK_RANGE },
		{ { 10, 100, 100, 20 }, 0 },
		{ { 5, 100, 100, 15 }, -GCLK_RANGE },		/* older than the one before */
	};
	struct gclk_exchanges e;

	gclk_exchanges_init(&e, 1000, 1);
	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		struct gclk_exchanges before = e;

		GCLK_EQ(gclk_exchanges_add(&e, &rows[i].x, NULL), rows[i].status);
		CU_ASSERT(rows[i].status == 0 || e.n == before.n);
	}
}

/* Any 64-bit numbers: an answer or an error, and no overflow. */
GCLK_TEST(exchange, hostile_stamps)
{
	for (unsigned i = 0; i < 100000; i++) {
		struct gclk_exchange x = {
			(int64_t)gclk_random_bits(), (int64_t)gclk_random_bits(),
			(int64_t)gclk_random_bits(), (int64_t)gclk_random_bits(),
		};
		struct gclk_exchange y = {
			x.asked_ns, x.heard_ns, (int64_t)gclk_random(), (int64_t)gclk_random(),
		};
		struct gclk_exchanges e;
		struct gclk_disagreement d;
		int64_t low, high;

		gclk_exchanges_init(&e, gclk_random_bits(), gclk_random_bits());
		gclk_exchanges_add(&e, &x, NULL);
		gclk_exchanges_add(&e, &y, NULL);
		gclk_exchanges_at(&e, (int64_t)gclk_random_bits(), &d);
		gclk_exchanges_rate(&e, &low, &high);
	}
}
