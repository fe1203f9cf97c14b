/* SPDX-License-Identifier: MIT */
#include <guestclock/devices.h>

#include "core/util.h"
#include "gclk-test.h"

#define LVT 0x320
#define TMICT 0x380
#define TDCR 0x3e0
#define PERIODIC 0x20000u

static const uint32_t configs[] = { 0xb, 0, 1, 2, 3, 8, 9, 0xa };

static struct gclk_lapic made(enum gclk_dialect dialect, uint32_t lvt, uint32_t config,
			      uint32_t bus_ns, uint32_t count, int64_t t)
{
	struct gclk_lapic lapic;

	gclk_lapic_init(&lapic, dialect, bus_ns, 0);
	gclk_lapic_write(&lapic, LVT, lvt, t, NULL);
	gclk_lapic_write(&lapic, TDCR, config, t, NULL);
	gclk_lapic_write(&lapic, TMICT, count, t, NULL);
	return lapic;
}

GCLK_TEST(lapic, dividers)
{
	for (unsigned i = 0; i < GCLK_COUNT(configs); i++) {
		GCLK_EQ(gclk_lapic_divider(configs[i]), 1u << i);
	}
}

GCLK_TEST(lapic, known_gaps)
{
	static const struct {
		uint32_t tmict, tmcct, config, bus;
		int64_t e;
		uint64_t k;
		uint32_t count;
		int64_t left;
	} v[] = {
		{ 1000000, 250000, 3, 1, 100000000, 7, 1000000, 16000000 },
		{ 1000000, 250000, 3, 1, 3999999, 0, 0, 1 },
		{ 1000000, 250000, 3, 1, 4000000, 1, 1000000, 16000000 },
		{ 62500, 1, 3, 40, 1000000000, 25, 1, 640 },
		{ 4000000, 1000000, 0xb, 1, 30000000, 8, 3000000, 3000000 },
	};

	for (unsigned i = 0; i < GCLK_COUNT(v); i++) {
		struct gclk_lapic lapic = { 0 };

		/* as captured from the kernel: a count, and when it was read */
		GCLK_SET(lapic, &lapic, dialect, GCLK_DIALECT_KVM);
		GCLK_SET(lapic, &lapic, lvt_timer, PERIODIC | 0x40);
		GCLK_SET(lapic, &lapic, initial_count, v[i].tmict);
		GCLK_SET(lapic, &lapic, current_count, v[i].tmcct);
		GCLK_SET(lapic, &lapic, divide_config, v[i].config);
		GCLK_SET(lapic, &lapic, bus_ns, v[i].bus);
		GCLK_SET(lapic, &lapic, captured_at_ns, 5000);
		GCLK_EQ(gclk_lapic_edges(&lapic, 5000, 5000 + v[i].e), v[i].k);
		GCLK_EQ(gclk_lapic_count_at(&lapic, 5000 + v[i].e), v[i].count);
		GCLK_EQ(gclk_lapic_next(&lapic, 5000 + v[i].e) - 5000 - v[i].e, v[i].left);
		gclk_lapic_advance(&lapic, 5000 + v[i].e, NULL);
		GCLK_EQ(gclk_lapic_count_at(&lapic, 5000 + v[i].e), v[i].count);
		GCLK_EQ(lapic.pending, v[i].k > 0);
		lapic.lvt_timer &= ~PERIODIC;
	}
}

GCLK_TEST(lapic, a_one_shot_fires_once)
{
	struct gclk_lapic lapic = made(GCLK_DIALECT_KVM, 0x40, 3, 1, 250000, 0);
	struct gclk_line line;

	GCLK_EQ(gclk_lapic_edges(&lapic, 0, 3999999), 0);
	GCLK_EQ(gclk_lapic_edges(&lapic, 0, 4000000), 1);
	GCLK_EQ(gclk_lapic_edges(&lapic, 0, INT64_MAX), 1);
	gclk_lapic_advance(&lapic, 1000000000, &line);
	GCLK_EQ(line.rises, 1);
	GCLK_EQ(line.last_rise_ns, 4000000);
	GCLK_EQ(gclk_lapic_count_at(&lapic, 1000000000), 0);
	/* an expired one-shot that becomes periodic stays at 0 */
	gclk_lapic_write(&lapic, LVT, PERIODIC | 0x40, 1000000000, NULL);
	GCLK_EQ(gclk_lapic_count_at(&lapic, 2000000000), 0);
	GCLK_EQ(gclk_lapic_next(&lapic, 2000000000), GCLK_TIMER_OFF);
}

GCLK_TEST(lapic, deadline)
{
	struct gclk_tsc tsc = { .value_ticks = 1000, .frequency_hz = 3000000000, .deadline_ticks = 1001 };
	struct gclk_lapic lapic = made(GCLK_DIALECT_KVM, 0x40040, 0xb, 1, 77, 0);

	GCLK_EQ(gclk_lapic_deadline_ns(&tsc), 1);
	tsc.deadline_ticks = 1000 + 3000000000;
	GCLK_EQ(gclk_lapic_deadline_ns(&tsc), 1000000000);
	tsc.frequency_den = 2;
	GCLK_EQ(gclk_lapic_deadline_ns(&tsc), 2000000000);
	tsc.deadline_ticks = 999;
	GCLK_EQ(gclk_lapic_deadline_ns(&tsc), 0);
	tsc.deadline_ticks = 0;
	GCLK_EQ(gclk_lapic_deadline_ns(&tsc), GCLK_TIMER_OFF);
	GCLK_EQ(lapic.initial_count, 0);	/* not writable in this mode */
	GCLK_EQ(gclk_lapic_next(&lapic, 0), GCLK_TIMER_OFF);
}

/* QEMU: a jump equals advancing expiry by expiry, also after a lazy change of the divider. */
GCLK_TEST(lapic, jumping_equals_expiring)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		uint32_t lvt = (gclk_random_below(4) ? PERIODIC : 0) | 0x30;
		uint32_t count = 1 + (uint32_t)gclk_random_below(UINT64_C(1) << gclk_random_below(32));
		struct gclk_lapic lapic = made((enum gclk_dialect)gclk_random_below(3), lvt,
					       configs[gclk_random_below(8)], 1, count, 1000);
		int64_t t = 1000 + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(40));
		struct gclk_lapic jump;
		struct gclk_line line, one;
		uint64_t rises = 0;
		int64_t last = GCLK_TIMER_OFF, stop;

		if (gclk_random_below(3) == 0) {
			gclk_lapic_write(&lapic, TDCR, configs[gclk_random_below(8)], t, NULL);
		}
		if (gclk_random_below(8) == 0) {
			gclk_lapic_write(&lapic, LVT, 0x10030 | (lvt & PERIODIC), t, NULL);
		}
		stop = t + (int64_t)gclk_random_below(((uint64_t)count + 1) << 10);
		jump = lapic;
		gclk_lapic_advance(&jump, stop, &line);
		for (unsigned k = 0; k < 3000 && lapic.expiry_ns != GCLK_TIMER_OFF &&
				     lapic.expiry_ns <= stop; k++) {
			gclk_lapic_advance(&lapic, lapic.expiry_ns, &one);
			rises += one.rises;
			last = one.rises ? one.last_rise_ns : last;
		}
		if (lapic.expiry_ns != GCLK_TIMER_OFF && lapic.expiry_ns <= stop) {
			continue;	/* too many to go through one by one */
		}
		GCLK_EQ(line.rises, rises);
		GCLK_EQ(line.last_rise_ns, last);
		GCLK_EQ(jump.expiry_ns, lapic.expiry_ns);
		GCLK_EQ(gclk_lapic_count_at(&jump, stop), gclk_lapic_count_at(&lapic, stop));
	}
}

GCLK_TEST(lapic, edges_add_up)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		struct gclk_lapic lapic =
			made((enum gclk_dialect)gclk_random_below(3),
			     (gclk_random_below(2) ? PERIODIC : 0) | 0x30, configs[gclk_random_below(8)],
			     1, (uint32_t)gclk_random_bits(), 0);
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t next = gclk_lapic_next(&lapic, a);

		GCLK_EQ(gclk_lapic_edges(&lapic, 0, a) + gclk_lapic_edges(&lapic, a, b),
			gclk_lapic_edges(&lapic, 0, b));
		if (next != GCLK_TIMER_OFF) {
			GCLK_EQ(gclk_lapic_edges(&lapic, a, next - 1), 0);
			GCLK_EQ(gclk_lapic_edges(&lapic, a, next), 1);
			GCLK_EQ(gclk_lapic_last(&lapic, next), next);
		}
	}
}

GCLK_TEST(lapic, invalid_states_are_refused_by_name)
{
	struct gclk_error error = { 0 };
	struct gclk_lapic lapic;

	gclk_lapic_init(&lapic, GCLK_DIALECT_KVM, 40, 0);
	GCLK_EQ(gclk_lapic_validate(&lapic, &error), 0);
	lapic.divide_config = 4;
	GCLK_EQ(gclk_lapic_validate(&lapic, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "lapic.divide_config");
	lapic.divide_config = 0;
	lapic.bus_ns = 0;
	GCLK_EQ(gclk_lapic_validate(&lapic, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "lapic.bus_ns");
}
