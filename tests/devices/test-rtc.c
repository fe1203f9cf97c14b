/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <guestclock/devices.h>

#include "core/calendar.h"
#include "core/util.h"
#include "gclk-test.h"

#define S INT64_C(1000000000)

static void put(struct gclk_rtc *rtc, uint8_t index, uint8_t value, int64_t t)
{
	gclk_rtc_write(rtc, 0x70, index, t, NULL);
	gclk_rtc_write(rtc, 0x71, value, t, NULL);
}

static uint8_t get(struct gclk_rtc *rtc, uint8_t index, int64_t t)
{
	gclk_rtc_write(rtc, 0x70, index, t, NULL);
	return gclk_rtc_read(rtc, 0x71, t, NULL);
}

GCLK_TEST(rtc, known_gaps)
{
	static const struct {
		uint8_t rate;
		int64_t clocks, e;
		uint64_t k;
	} v[] = {
		{ 6, 0, S, 1024 },	 { 6, 31, 30518, 1 },	     { 6, 31, 30517, 0 },
		{ 15, 16383, S, 2 },	 { 3, 0, 86400 * S, 707788800 },
	};

	for (unsigned i = 0; i < GCLK_COUNT(v); i++) {
		struct gclk_rtc rtc;
		int64_t t = (v[i].clocks * S + 32767) / 32768;

		gclk_rtc_init(&rtc, GCLK_DIALECT_DATASHEET, 0, 0);
		put(&rtc, 10, 0x20 | v[i].rate, t);
		GCLK_EQ(gclk_rtc_periodic_edges(&rtc, t, t + v[i].e), v[i].k);
	}
}

GCLK_TEST(rtc, periods)
{
	static const uint32_t clocks[16] = { 0,	 128, 256, 4,	8,    16,   32,	  64,
					     128, 256, 512, 1024, 2048, 4096, 8192, 16384 };

	for (unsigned i = 0; i < 16; i++) {
		GCLK_EQ(gclk_rtc_period_clocks((uint8_t)(0x20 | i)), clocks[i]);
	}
}

/* The guest reads the calendar's time, in each of its formats. */
GCLK_TEST(rtc, shows_the_calendar)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		int64_t start = (int64_t)gclk_random_below(9000000000);
		int64_t t = (int64_t)gclk_random_below(200 * 366 * 86400ull * (uint64_t)S);
		uint8_t b = (uint8_t)(gclk_random() & 6);
		struct gclk_rtc_format format = { .binary = (b & 4) != 0, .hours_24 = (b & 2) != 0,
						  .has_century = true };
		struct gclk_rtc_registers regs;
		struct gclk_civil civil;
		struct gclk_rtc rtc;
		int64_t ns;

		gclk_rtc_init(&rtc, (enum gclk_dialect)gclk_random_below(2), start, 0);
		put(&rtc, 11, b, 0);
		if (rtc.dialect == GCLK_DIALECT_QEMU && start + t / S >= INT64_MAX / S) {
			continue;	/* its 64 bits of ns are used up */
		}
		GCLK_EQ(gclk_rtc_seconds_at(&rtc, t, &ns), start + t / S);
		GCLK_EQ(ns, t % S);
		GCLK_EQ(gclk_civil_from_seconds(start + t / S, &civil), 0);
		GCLK_EQ(gclk_rtc_encode(&civil, &format, &regs, NULL), 0);
		GCLK_EQ(get(&rtc, 0, t), regs.second);
		GCLK_EQ(get(&rtc, 2, t), regs.minute);
		GCLK_EQ(get(&rtc, 4, t), regs.hour);
		GCLK_EQ(get(&rtc, 6, t), regs.weekday);
		GCLK_EQ(get(&rtc, 7, t), regs.day);
		GCLK_EQ(get(&rtc, 8, t), regs.month);
		GCLK_EQ(get(&rtc, 9, t), regs.year);
		GCLK_EQ(get(&rtc, 0x32, t), regs.century);
		GCLK_EQ(get(&rtc, 0x37, t), regs.century);
	}
}

/* Writing the date under SET makes it the time, with the part of the second kept. */
GCLK_TEST(rtc, set_freezes_and_restarts)
{
	for (unsigned dialect = 0; dialect < 2; dialect++) {
		struct gclk_rtc rtc;
		int64_t ns;

		gclk_rtc_init(&rtc, (enum gclk_dialect)dialect, 1000000000, 0);
		put(&rtc, 11, 0x82, 400000000);
		put(&rtc, 0, 0x59, 500000000);
		put(&rtc, 2, 0x59, 500000000);
		put(&rtc, 4, 0x23, 500000000);
		put(&rtc, 7, 0x28, 500000000);
		put(&rtc, 8, 0x02, 500000000);
		put(&rtc, 9, 0x24, 500000000);
		GCLK_EQ(get(&rtc, 0, 5 * S), 0x59);
		GCLK_EQ(gclk_rtc_update_next(&rtc, 5 * S), GCLK_TIMER_OFF);
		put(&rtc, 11, 0x02, 5 * S + 300000000);
		GCLK_EQ(gclk_rtc_update_next(&rtc, 5 * S + 300000000), 6 * S);
		GCLK_EQ(get(&rtc, 0, 6 * S - 1), 0x59);
		GCLK_EQ(get(&rtc, 0, 6 * S), 0x00);
		GCLK_EQ(get(&rtc, 7, 6 * S), 0x29);	/* 2024 is a leap year */
		GCLK_EQ(gclk_rtc_seconds_at(&rtc, 6 * S, &ns), 1709164800);
	}
}

GCLK_TEST(rtc, divider_reset_updates_half_a_second_later)
{
	for (unsigned dialect = 0; dialect < 2; dialect++) {
		struct gclk_rtc rtc;

		gclk_rtc_init(&rtc, (enum gclk_dialect)dialect, 1000000000, 0);
		put(&rtc, 10, 0x76, 100);
		GCLK_EQ(gclk_rtc_periodic_next(&rtc, 100), GCLK_TIMER_OFF);
		GCLK_EQ(get(&rtc, 0, 100), 0x40);
		put(&rtc, 10, 0x26, 7 * S);
		GCLK_EQ(gclk_rtc_update_next(&rtc, 7 * S), 7 * S + S / 2);
		GCLK_EQ(get(&rtc, 0, 7 * S + S / 2 - 1), 0x40);
		GCLK_EQ(get(&rtc, 0, 7 * S + S / 2), 0x41);
	}
}

GCLK_TEST(rtc, update_in_progress)
{
	struct gclk_rtc rtc;

	gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, 0, 0);
	GCLK_EQ(get(&rtc, 10, S - 244141) & 0x80, 0);
	GCLK_EQ(get(&rtc, 10, S - 244140) & 0x80, 0x80);
	GCLK_EQ(get(&rtc, 10, S - 1) & 0x80, 0x80);
	GCLK_EQ(get(&rtc, 10, S) & 0x80, 0);
	gclk_rtc_init(&rtc, GCLK_DIALECT_DATASHEET, 0, 0);
	GCLK_EQ(get(&rtc, 10, S - 1984000 - 244141) & 0x80, 0);
	GCLK_EQ(get(&rtc, 10, S - 1984000 - 244140) & 0x80, 0x80);
	GCLK_EQ(get(&rtc, 10, S) & 0x80, 0);
}

/* Flags gather until register C is read; the line rises once. */
GCLK_TEST(rtc, flags_and_line)
{
	for (unsigned dialect = 0; dialect < 2; dialect++) {
		struct gclk_rtc rtc;
		struct gclk_line line;

		gclk_rtc_init(&rtc, (enum gclk_dialect)dialect, 0, 0);
		put(&rtc, 10, 0x26, 0);
		put(&rtc, 11, 0x42, 0);
		GCLK_EQ(gclk_rtc_periodic_next(&rtc, 0), dialect ? 976563 : 976563);
		GCLK_EQ(gclk_rtc_next_edge(&rtc, 0), 976563);
		gclk_rtc_advance(&rtc, 10 * S, &line);
		GCLK_EQ(line.rises, 1);
		GCLK_EQ(line.last_rise_ns, 976563);
		GCLK_EQ(line.level, 1);
		GCLK_EQ(gclk_rtc_next_edge(&rtc, 10 * S), GCLK_TIMER_OFF);
		CU_ASSERT(gclk_rtc_periodic_edges(&rtc, 10 * S, 20 * S) == 10240);
		GCLK_EQ(get(&rtc, 12, 10 * S) & 0xd0, 0xd0);
		GCLK_EQ(get(&rtc, 12, 10 * S), 0);
		CU_ASSERT(gclk_rtc_next_edge(&rtc, 10 * S) > 10 * S);
		CU_ASSERT(gclk_rtc_next_edge(&rtc, 10 * S) < 10 * S + 976564);
	}
}

/* Alarms counted by division are those found second by second. */
GCLK_TEST(rtc, alarms_are_counted)
{
	for (unsigned i = 0; i < 60 * gclk_test_scale(); i++) {
		struct gclk_rtc rtc;
		uint8_t b = (uint8_t)(gclk_random() & 6);
		int64_t start = (int64_t)gclk_random_below(4000000000), found = 0, first = -1;
		int64_t t0 = (int64_t)gclk_random_below(200000) * 1000, t1;

		gclk_rtc_init(&rtc, GCLK_DIALECT_DATASHEET, start, 0);
		put(&rtc, 11, b, 0);
		for (uint8_t r = 1; r <= 5; r += 2) {
			/* what the clock shows at some time of the day, or anything */
			uint8_t show = get(&rtc, r - 1, (int64_t)gclk_random_below(86400) * S);

			put(&rtc, r, gclk_random_below(3) == 0 ? 0xc0 : show, 0);
		}
		t1 = t0 + (int64_t)gclk_random_below(200000) * S;
		for (int64_t t = t0 / S * S + S; t <= t1; t += S) {
			gclk_rtc_sync_cmos(&rtc, t);
			if ((gclk_rtc_alarm_is_any(rtc.cmos[1]) || rtc.cmos[1] == rtc.cmos[0]) &&
			    (gclk_rtc_alarm_is_any(rtc.cmos[3]) || rtc.cmos[3] == rtc.cmos[2]) &&
			    (gclk_rtc_alarm_is_any(rtc.cmos[5]) || rtc.cmos[5] == rtc.cmos[4])) {
				found++;
				first = first < 0 ? t : first;
			}
		}
		GCLK_EQ(gclk_rtc_alarms(&rtc, t0, t1), found);
		if (found) {
			GCLK_EQ(gclk_rtc_alarm_next(&rtc, t0), first);
		}
		GCLK_EQ(gclk_rtc_updates(&rtc, t0, t1), t1 / S - t0 / S);
	}
}

/* One jump and many short steps give the same registers and rises. */
GCLK_TEST(rtc, jumping_equals_stepping)
{
	for (unsigned i = 0; i < 3000 * gclk_test_scale(); i++) {
		struct gclk_rtc rtc, jump;
		int64_t t0 = (int64_t)gclk_random_below(3000000000), t = t0, t1;
		uint64_t rises = 0;
		int64_t last = GCLK_TIMER_OFF;
		struct gclk_line line, one;

		gclk_rtc_init(&rtc, (enum gclk_dialect)gclk_random_below(2),
			      (int64_t)gclk_random_below(4000000000), 0);
		rtc.catches_up = gclk_random_below(4) == 0;
		put(&rtc, 10, 0x20 | (uint8_t)gclk_random_below(16), t0 / 2);
		put(&rtc, 11, (uint8_t)(gclk_random() & 0x76), t0);
		if (gclk_random_below(2)) {
			put(&rtc, 1, 0xff, t0);
			put(&rtc, 3, gclk_random_below(2) ? 0xff : 0x10, t0);
			put(&rtc, 5, 0xff, t0);
		}
		if (gclk_random_below(2)) {
			get(&rtc, 12, t0);
		}
		jump = rtc;
		t1 = t0 + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(38));
		gclk_rtc_advance(&jump, t1, &line);
		for (unsigned k = 0; k < 200 && t < t1; k++) {
			t += (int64_t)gclk_random_below((uint64_t)(t1 - t) / 8 + 3000);
			t = k == 199 || t > t1 ? t1 : t;
			gclk_rtc_advance(&rtc, t, &one);
			rises += one.rises;
			last = one.rises ? one.last_rise_ns : last;
		}
		GCLK_EQ(line.rises, rises);
		GCLK_EQ(line.last_rise_ns, last);
		gclk_rtc_sync_cmos(&rtc, t1);
		gclk_rtc_sync_cmos(&jump, t1);
		CU_ASSERT(memcmp(rtc.cmos, jump.cmos, sizeof(rtc.cmos)) == 0);
		GCLK_EQ(jump.periodic_expiry_ns, rtc.periodic_expiry_ns);
		GCLK_EQ(jump.update_expiry_ns, rtc.update_expiry_ns);
		GCLK_EQ(jump.owed_ticks, rtc.owed_ticks);
		GCLK_EQ(jump.irq_level, rtc.irq_level);
	}
}

GCLK_TEST(rtc, ticks_add_up)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(60));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(60));
		int64_t next;
		struct gclk_rtc rtc;

		gclk_rtc_init(&rtc, (enum gclk_dialect)gclk_random_below(2), 0, 0);
		put(&rtc, 10, 0x21 + (uint8_t)gclk_random_below(15), 0);
		put(&rtc, 11, 0x42, (int64_t)gclk_random_below(5000000));
		next = gclk_rtc_periodic_next(&rtc, a);
		GCLK_EQ(gclk_rtc_periodic_edges(&rtc, 0, a) + gclk_rtc_periodic_edges(&rtc, a, b),
			gclk_rtc_periodic_edges(&rtc, 0, b));
		GCLK_EQ(gclk_rtc_periodic_edges(&rtc, a, next - 1), 0);
		GCLK_EQ(gclk_rtc_periodic_edges(&rtc, a, next), 1);
		GCLK_EQ(gclk_rtc_periodic_last(&rtc, next), next);
	}
}

GCLK_TEST(rtc, owed_ticks_come_back_on_acknowledge)
{
	struct gclk_rtc rtc;
	struct gclk_line line;

	gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, 0, 0);
	rtc.catches_up = 1;
	put(&rtc, 10, 0x2a, 0);	/* 64 Hz, each tick 1 ns late */
	put(&rtc, 11, 0x42, 0);
	gclk_rtc_advance(&rtc, S + 1, &line);
	GCLK_EQ(line.rises, 1);
	GCLK_EQ(rtc.owed_ticks, 63);
	gclk_rtc_write(&rtc, 0x70, 12, S + 1, NULL);
	for (unsigned i = 0; i < 20; i++) {
		gclk_rtc_read(&rtc, 0x71, S + 1, &line);
		GCLK_EQ(line.level, 1);
	}
	GCLK_EQ(rtc.owed_ticks, 43);
	gclk_rtc_read(&rtc, 0x71, S + 1, &line);	/* no more than 20 in a row */
	GCLK_EQ(line.level, 0);
	GCLK_EQ(rtc.owed_ticks, 43);
}

GCLK_TEST(rtc, invalid_states_are_refused_by_name)
{
	struct gclk_error error = { 0 };
	struct gclk_rtc rtc;

	gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, 0, 0);
	GCLK_EQ(gclk_rtc_validate(&rtc, &error), 0);
	rtc.period_clocks = 3;
	GCLK_EQ(gclk_rtc_validate(&rtc, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "rtc.period_clocks");
	rtc.period_clocks = 32;
	rtc.dialect = 7;
	GCLK_EQ(gclk_rtc_validate(&rtc, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "rtc.dialect");
	rtc.dialect = 0;
	rtc.has &= ~GCLK_BIT(rtc, cmos);
	GCLK_EQ(gclk_rtc_validate(&rtc, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "rtc.cmos");
}
