/* SPDX-License-Identifier: MIT */
#include <guestclock/devices.h>

#include "core/util.h"
#include "gclk-test.h"

#define HALF (INT64_C(1) << 23)
#define HZ INT64_C(3579545)

GCLK_TEST(pm_timer, reads_the_axis)
{
	struct gclk_pm_timer pm;

	gclk_pm_timer_init(&pm, 24, 0);
	GCLK_EQ(gclk_pm_timer_at(&pm, 1000000000), 3579545);
	GCLK_EQ(gclk_pm_timer_at(&pm, 5000000000), 5 * HZ % (2 * HALF));
	pm.bits = 32;
	GCLK_EQ(gclk_pm_timer_at(&pm, 5000000000), 5 * HZ);
	pm.offset_ns = -4000000000;
	GCLK_EQ(gclk_pm_timer_at(&pm, 5000000000), HZ);
}

GCLK_TEST(pm_timer, overflows_are_counted)
{
	struct gclk_pm_timer pm;

	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(60));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(60));
		int64_t next;

		gclk_pm_timer_init(&pm, gclk_random_below(2) ? 24 : 32, 0);
		pm.offset_ns = (int64_t)gclk_random_below(10000000000) - 5000000000;
		next = gclk_pm_timer_overflow_next(&pm, a);
		CU_ASSERT(next > a);
		GCLK_EQ(gclk_pm_timer_overflows(&pm, a, next - 1), 0);
		GCLK_EQ(gclk_pm_timer_overflows(&pm, a, next), 1);
		/* the top bit has changed one ns later at the latest */
		GCLK_EQ((gclk_pm_timer_at(&pm, next + 1) ^ gclk_pm_timer_at(&pm, next - 300)) >>
				(pm.bits - 1),
			1);
		GCLK_EQ(gclk_pm_timer_overflows(&pm, 0, a) + gclk_pm_timer_overflows(&pm, a, b),
			gclk_pm_timer_overflows(&pm, 0, b));
	}
}

GCLK_TEST(pm_timer, the_interrupt_stays_until_cleared)
{
	struct gclk_pm_timer pm;
	struct gclk_line line;
	int64_t t = 100;

	gclk_pm_timer_init(&pm, 24, 0);
	GCLK_EQ(gclk_pm_timer_read(&pm, GCLK_PM_STATUS, t, NULL), 1);
	gclk_pm_timer_write(&pm, GCLK_PM_STATUS, 1, t, NULL);
	gclk_pm_timer_write(&pm, GCLK_PM_ENABLE, 1, t, &line);
	GCLK_EQ(line.level, 0);
	GCLK_EQ(pm.overflow_ticks, HALF);
	GCLK_EQ(pm.expiry_ns, HALF * 1000000000 / HZ);
	GCLK_EQ(gclk_pm_timer_next_edge(&pm, t), pm.expiry_ns);
	GCLK_EQ(gclk_pm_timer_edges(&pm, t, INT64_MAX), 1);
	gclk_pm_timer_advance(&pm, 10000000000, &line);
	GCLK_EQ(line.rises, 1);
	GCLK_EQ(line.last_rise_ns, HALF * 1000000000 / HZ);
	GCLK_EQ(line.level, 1);
	GCLK_EQ(gclk_pm_timer_next_edge(&pm, 10000000000), GCLK_TIMER_OFF);
	gclk_pm_timer_write(&pm, GCLK_PM_STATUS, 1, 10000000000, &line);
	GCLK_EQ(line.level, 0);
	GCLK_EQ(pm.overflow_ticks, 5 * HALF);
}
