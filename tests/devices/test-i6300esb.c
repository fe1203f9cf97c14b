/* SPDX-License-Identifier: MIT */
#include <guestclock/devices.h>

#include "gclk-test.h"

static struct gclk_i6300esb made(unsigned stage, int64_t expiry, int reboot, int free_run)
{
	struct gclk_i6300esb w = { 0 };

	GCLK_SET(i6300esb, &w, enabled, 1);
	GCLK_SET(i6300esb, &w, stage, (uint8_t)stage);
	GCLK_SET(i6300esb, &w, preload1, 1000);
	GCLK_SET(i6300esb, &w, preload2, 2000);
	GCLK_SET(i6300esb, &w, clock_scale, 0);
	GCLK_SET(i6300esb, &w, reboot_enabled, (uint8_t)reboot);
	GCLK_SET(i6300esb, &w, free_run, (uint8_t)free_run);
	GCLK_SET(i6300esb, &w, expiry_ns, expiry);
	return w;
}

GCLK_TEST(i6300esb, two_stages_then_reset)
{
	struct gclk_i6300esb w = made(1, 5000, 1, 0);
	int64_t second = INT64_C(2000) * 32768 * 30;
	enum gclk_watchdog_event event;

	GCLK_EQ(gclk_i6300esb_stage_ns(&w, 2), second);
	GCLK_EQ(gclk_i6300esb_next(&w, 4999, &event), 5000);
	GCLK_EQ(event, GCLK_WATCHDOG_INTERRUPT);
	GCLK_EQ(gclk_i6300esb_next(&w, 5000, &event), 5000 + second);
	GCLK_EQ(event, GCLK_WATCHDOG_RESET);
	GCLK_EQ(gclk_i6300esb_next(&w, 5000 + second, &event), GCLK_TIMER_OFF);
	GCLK_EQ(event, GCLK_WATCHDOG_NONE);
	GCLK_EQ(gclk_i6300esb_worst(&w, 0, 4999), GCLK_WATCHDOG_NONE);
	GCLK_EQ(gclk_i6300esb_worst(&w, 0, 5000), GCLK_WATCHDOG_INTERRUPT);
	GCLK_EQ(gclk_i6300esb_worst(&w, 0, INT64_MAX), GCLK_WATCHDOG_RESET);
	GCLK_EQ(gclk_i6300esb_worst(&w, 5000, 4000 + second), GCLK_WATCHDOG_NONE);
	w = made(2, 5000, 1, 1);
	GCLK_EQ(gclk_i6300esb_worst(&w, 0, 5000), GCLK_WATCHDOG_RESET);
	w.expiry_ns = GCLK_TIMER_OFF;
	GCLK_EQ(gclk_i6300esb_worst(&w, 0, INT64_MAX), GCLK_WATCHDOG_NONE);
}

GCLK_TEST(i6300esb, a_free_running_one_goes_round)
{
	struct gclk_i6300esb w = made(1, 5000, 0, 1);
	int64_t cycle = gclk_i6300esb_stage_ns(&w, 1) + gclk_i6300esb_stage_ns(&w, 2);
	int64_t t = 5000;
	enum gclk_watchdog_event event;

	for (unsigned i = 0; i < 100; i++) {
		GCLK_EQ(gclk_i6300esb_next(&w, t - 1, &event), t);
		GCLK_EQ(event, GCLK_WATCHDOG_INTERRUPT);
		GCLK_EQ(gclk_i6300esb_next(&w, t, &event), t + gclk_i6300esb_stage_ns(&w, 2));
		GCLK_EQ(event, GCLK_WATCHDOG_RELOAD);
		t += cycle;
	}
	GCLK_EQ(gclk_i6300esb_next(&w, 5000 + cycle * 1000000, &event),
		5000 + cycle * 1000000 + gclk_i6300esb_stage_ns(&w, 2));
	GCLK_EQ(gclk_i6300esb_validate(&w, NULL), 0);
	GCLK_UNSET(i6300esb, &w, stage);
	GCLK_EQ(gclk_i6300esb_validate(&w, NULL), -GCLK_RANGE);
}
