/* SPDX-License-Identifier: MIT */
#include <guestclock/devices.h>

#include "core/util.h"
#include "gclk-test.h"

#define ENABLE 0x4u
#define PERIODIC 0x8u
#define SETVAL 0x40u
#define NARROW 0x100u

GCLK_TEST(hpet, known_gaps)
{
	static const struct {
		uint64_t c, m0, p;
		unsigned w;
		int64_t e;
		uint32_t fs;
		uint64_t ticks, m1, k, c1;
	} v[] = {
		{ 1500000, 1000000, 100000, 64, 10000000, 10000000, 1000000, 2000000, 6, 2100000 },
		{ 16, 0xfffffff0, 1000, 32, 1000, 10000000, 100, 0x100000054, 1, 0x3f8 },
		{ 16, 0xfffffff0, 1000, 32, 100000, 10000000, 10000, 0x100002700, 10, 0x2720 },
		{ 14318180, 14000000, 143182, 64, 1000000000, 69841279, 14318179, 0x1b019e3, 98,
		  0x1b09640 },
	};

	for (unsigned i = 0; i < GCLK_COUNT(v); i++) {
		struct gclk_hpet hpet;
		struct gclk_hpet_timer *timer = &hpet.timers[0];

		gclk_hpet_init(&hpet, GCLK_DIALECT_DATASHEET, 3, v[i].fs, 4, 7000);
		hpet.config = 1;
		hpet.counter_ticks = v[i].m0;
		timer->config |= ENABLE | PERIODIC | (v[i].w == 32 ? NARROW : 0);
		timer->comparator_ticks = v[i].c;
		timer->period_ticks = v[i].p;
		GCLK_UNSET(hpet_timer, timer, expiry_ns);
		GCLK_EQ(gclk_hpet_counter_at(&hpet, 7000 + v[i].e, NULL) - v[i].m0, v[i].ticks);
		GCLK_EQ(gclk_hpet_counter_at(&hpet, 7000 + v[i].e, NULL), v[i].m1);
		GCLK_EQ(gclk_hpet_timer_edges(&hpet, 0, 7000, 7000 + v[i].e), v[i].k);
		gclk_hpet_advance(&hpet, 7000 + v[i].e, NULL);
		GCLK_EQ(timer->comparator_ticks, v[i].c1);
	}
}

static struct gclk_hpet random_hpet(enum gclk_dialect dialect, int64_t t)
{
	static const uint32_t periods[] = { 10000000, 69841279, 41666667, 1, 99999999 };
	struct gclk_hpet hpet;
	uint64_t at = gclk_random_below(2) ? UINT32_MAX - gclk_random_below(100000)
					   : gclk_random_below(UINT64_C(1) << 40);

	gclk_hpet_init(&hpet, dialect, 3, periods[gclk_random_below(4)], 4, 0);
	hpet.exact = gclk_random_below(2);
	gclk_hpet_write(&hpet, 0xf0, 4, at & UINT32_MAX, t, NULL);
	gclk_hpet_write(&hpet, 0xf4, 4, at >> 32, t, NULL);
	if (gclk_random_below(2)) {
		gclk_hpet_write(&hpet, 0x10, 4, 1, t, NULL);
	}
	for (unsigned n = 0; n < 3; n++) {
		uint32_t reg = 0x100 + 0x20 * n;
		uint32_t config = gclk_random_below(4) ? ENABLE : 0;
		uint64_t c = at + gclk_random_below(UINT64_C(1) << gclk_random_below(24)) -
			     (gclk_random_below(8) == 0 ? 1000 : 0);

		config |= gclk_random_below(2) ? NARROW : 0;
		config |= gclk_random_below(2) ? PERIODIC | SETVAL : 0;
		gclk_hpet_write(&hpet, reg, 4, config, t, NULL);
		gclk_hpet_write(&hpet, reg + 8, 8, c, t, NULL);
		if (config & PERIODIC) {
			gclk_hpet_write(&hpet, reg + 8, 4,
					gclk_random_below(UINT64_C(1) << gclk_random_below(20)), t,
					NULL);
		}
	}
	gclk_hpet_write(&hpet, 0x10, 4, 1, t, NULL);
	return hpet;
}

/* One jump and many short steps give the same state and the same number of rises. */
GCLK_TEST(hpet, jumping_equals_stepping)
{
	for (unsigned i = 0; i < 4000 * gclk_test_scale(); i++) {
		int64_t t0 = (int64_t)gclk_random_below(1000000000), t1;
		struct gclk_hpet hpet = random_hpet((enum gclk_dialect)gclk_random_below(2), t0);
		struct gclk_hpet jump = hpet;
		struct gclk_hpet_lines lines, one;
		uint64_t rises[3] = { 0 };
		int64_t t = t0;

		t1 = t0 + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(28));
		gclk_hpet_advance(&jump, t1, &lines);
		for (unsigned k = 0; k < 300 && t < t1; k++) {
			t = k == 299 ? t1 : t + (int64_t)gclk_random_below((uint64_t)(t1 - t) / 8 + 30);
			t = t > t1 ? t1 : t;
			gclk_hpet_advance(&hpet, t, &one);
			for (unsigned n = 0; n < 3; n++) {
				rises[n] += one.rises[n];
			}
		}
		gclk_hpet_advance(&hpet, t1, NULL);
		for (unsigned n = 0; n < 3; n++) {
			GCLK_EQ(lines.rises[n], rises[n]);
			GCLK_EQ(jump.timers[n].comparator_ticks, hpet.timers[n].comparator_ticks);
			GCLK_EQ(jump.timers[n].expiry_ns, hpet.timers[n].expiry_ns);
			GCLK_EQ(jump.timers[n].wrap, hpet.timers[n].wrap);
		}
	}
}

GCLK_TEST(hpet, edges_add_up)
{
	for (unsigned i = 0; i < 10000 * gclk_test_scale(); i++) {
		struct gclk_hpet hpet = random_hpet((enum gclk_dialect)gclk_random_below(2), 0);
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));

		for (unsigned n = 0; n < 3; n++) {
			int64_t next = gclk_hpet_timer_next(&hpet, n, a);

			GCLK_EQ(gclk_hpet_timer_edges(&hpet, n, 0, a) +
					gclk_hpet_timer_edges(&hpet, n, a, b),
				gclk_hpet_timer_edges(&hpet, n, 0, b));
			if (next != GCLK_TIMER_OFF) {
				GCLK_EQ(gclk_hpet_timer_edges(&hpet, n, a, next - 1), 0);
				CU_ASSERT(gclk_hpet_timer_edges(&hpet, n, a, next) >= 1);
				GCLK_EQ(gclk_hpet_timer_last(&hpet, n, next), next);
			}
		}
	}
}

GCLK_TEST(hpet, conversion_keeps_time)
{
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		struct gclk_hpet hpet = random_hpet((enum gclk_dialect)gclk_random_below(2), 0), was;
		int64_t t = (int64_t)gclk_random_below(1000000000);
		uint64_t error_fs, counter = gclk_hpet_counter_at(&hpet, t, NULL);

		gclk_hpet_advance(&hpet, t, NULL);
		was = hpet;
		GCLK_EQ(gclk_hpet_convert(&hpet, GCLK_DIALECT_DATASHEET, 69841279, t, &error_fs, NULL),
			0);
		GCLK_EQ(gclk_hpet_counter_at(&hpet, t, NULL), counter);
		GCLK_EQ(gclk_hpet_validate(&hpet, NULL), 0);
		CU_ASSERT(error_fs <= 69841279 || was.period_fs == 1);
		for (unsigned n = 0; n < 3; n++) {
			int64_t before = was.timers[n].expiry_ns, after = hpet.timers[n].expiry_ns;

			/* a match beyond the wrap is as many ticks away as before, not as long */
			uint64_t ahead = was.timers[n].comparator_ticks - counter;
			bool comes = was.timers[n].config & NARROW ? (int32_t)ahead > 0
								   : (int64_t)ahead > 0;

			if (was.dialect == GCLK_DIALECT_DATASHEET && before != GCLK_TIMER_OFF &&
			    comes && was.period_fs > 1) {
				CU_ASSERT(after - before <= 141 && before - after <= 141);
			}
		}
	}
	{
		struct gclk_hpet hpet = random_hpet(GCLK_DIALECT_QEMU, 0);

		GCLK_EQ(gclk_hpet_convert(&hpet, GCLK_DIALECT_QEMU, 69841279, 0, NULL, NULL),
			-GCLK_UNSUPPORTED);
		GCLK_EQ(gclk_hpet_convert(&hpet, GCLK_DIALECT_DATASHEET, 0, 0, NULL, NULL),
			-GCLK_RANGE);
	}
}

GCLK_TEST(hpet, level_status_and_legacy)
{
	struct gclk_hpet hpet;
	struct gclk_hpet_lines lines;

	gclk_hpet_init(&hpet, GCLK_DIALECT_DATASHEET, 3, 10000000, 4, 0);
	gclk_hpet_write(&hpet, 0x100, 4, ENABLE | PERIODIC | SETVAL | NARROW | 2 | 2 << 9,
			0, NULL);
	gclk_hpet_write(&hpet, 0x108, 4, 1000, 0, NULL);
	gclk_hpet_write(&hpet, 0x108, 4, 1000, 0, NULL);
	gclk_hpet_write(&hpet, 0x10, 4, 3, 0, &lines);
	GCLK_EQ(lines.legacy, 1);
	GCLK_EQ(gclk_hpet_timer_route(&hpet, 0), 0);
	GCLK_EQ(gclk_hpet_timer_route(&hpet, 1), 8);
	gclk_hpet_advance(&hpet, 100000, &lines);
	GCLK_EQ(lines.rises[0], 1);	/* ten expiries, but the line stays up */
	GCLK_EQ(lines.level, 1);
	GCLK_EQ(gclk_hpet_peek(&hpet, 0x20, 4, 100000), 1);
	GCLK_EQ(gclk_hpet_peek(&hpet, 0x108, 4, 100000), 11000);
	gclk_hpet_write(&hpet, 0x20, 4, 1, 100000, &lines);
	GCLK_EQ(lines.level, 0);
	gclk_hpet_write(&hpet, 0x10, 4, 0, 100005, &lines);
	GCLK_EQ(lines.legacy, -1);
	GCLK_EQ(gclk_hpet_peek(&hpet, 0xf0, 8, 900000), 10000);
	gclk_hpet_write(&hpet, 0x10, 4, 1, 900000, NULL);
	GCLK_EQ(gclk_hpet_peek(&hpet, 0xf0, 8, 900005), 10001);	/* the fraction was kept */
	GCLK_EQ(gclk_hpet_peek(&hpet, 0x000, 8, 0), INT64_C(10000000) << 32 | 0x8086a201);
}

/* One timer of the data sheet's, one tick of the main counter at a time. */
GCLK_TEST(hpet, closed_form_equals_tick_by_tick)
{
	for (unsigned i = 0; i < 300 * gclk_test_scale(); i++) {
		bool narrow = gclk_random_below(2), periodic = gclk_random_below(2);
		uint64_t counter = UINT32_MAX - gclk_random_below(3000), edges = 0, cmp, period;
		uint64_t mask = narrow ? UINT32_MAX : UINT64_MAX;
		struct gclk_hpet hpet;

		gclk_hpet_init(&hpet, GCLK_DIALECT_DATASHEET, 3, 10000000, 4, 0);
		cmp = (counter + 1 + gclk_random_below(4000)) & mask;
		period = periodic ? 1 + gclk_random_below(1500) : 0;
		gclk_hpet_write(&hpet, 0xf0, 8, counter, 0, NULL);
		gclk_hpet_write(&hpet, 0x100, 4,
				ENABLE | (narrow ? NARROW : 0) | (periodic ? PERIODIC | SETVAL : 0),
				0, NULL);
		gclk_hpet_write(&hpet, 0x108, 8, cmp, 0, NULL);
		if (periodic) {
			gclk_hpet_write(&hpet, 0x108, 8, period, 0, NULL);
		}
		gclk_hpet_write(&hpet, 0x10, 4, 1, 0, NULL);
		for (int64_t t = 0; t <= 60000; t += 10) {
			uint64_t now = counter + (uint64_t)t / 10;

			if (t > 0 && (now & mask) == cmp) {
				edges++;
				cmp = (cmp + period) & mask;
			}
			GCLK_EQ(gclk_hpet_counter_at(&hpet, t, NULL), now);
			GCLK_EQ(gclk_hpet_timer_edges(&hpet, 0, 0, t), edges);
			GCLK_EQ(gclk_hpet_peek(&hpet, 0x108, 8, t), cmp);
		}
	}
}

static void refused(const struct gclk_hpet *hpet, const char *where)
{
	struct gclk_error error = { 0 };

	GCLK_EQ(gclk_hpet_validate(hpet, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, where);
}

GCLK_TEST(hpet, invalid_states_are_refused_by_name)
{
	struct gclk_hpet good, hpet;

	gclk_hpet_init(&good, GCLK_DIALECT_QEMU, 3, 10000000, 4, 0);
	GCLK_EQ(gclk_hpet_validate(&good, NULL), 0);
	hpet = good;
	hpet.n_timers = 33;
	refused(&hpet, "hpet.n_timers");
	hpet = good;
	GCLK_UNSET(hpet, &hpet, n_timers);
	refused(&hpet, "hpet.n_timers");
	hpet = good;
	hpet.period_fs = 69841279;
	refused(&hpet, "hpet.period_fs");
	hpet = good;
	hpet.isr = 8;
	refused(&hpet, "hpet.isr");
	hpet = good;
	hpet.counter_frac_fs = 10000000;
	refused(&hpet, "hpet.counter_frac_fs");
	hpet = good;
	hpet.config = 4;
	refused(&hpet, "hpet.config");
	hpet = good;
	hpet.timers[2].index = 1;
	refused(&hpet, "hpet.timers[2].index");
	hpet = good;
	hpet.timers[1].config = 0x10000;
	refused(&hpet, "hpet.timers[1].config");
	hpet = good;
	hpet.timers[0].wrap = 2;
	refused(&hpet, "hpet.timers[0].wrap");
}
