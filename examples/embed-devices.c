/* SPDX-License-Identifier: MIT */
/*
 * A machine with our RTC and HPET in it. The devices are plain structs and read no
 * clock: the program says what time it is, so an hour costs as much as a tick. The
 * struct is its own saved form; assignment saves and restores it.
 */
#include <inttypes.h>
#include <stdio.h>

#include <guestclock/devices.h>

#define SECOND INT64_C(1000000000)

static void rtc_write(struct gclk_rtc *rtc, uint8_t index, uint8_t value, int64_t now)
{
	gclk_rtc_write(rtc, 0x70, index, now, NULL);
	gclk_rtc_write(rtc, 0x71, value, now, NULL);
}

static uint8_t rtc_read(struct gclk_rtc *rtc, uint8_t index, int64_t now)
{
	gclk_rtc_write(rtc, 0x70, index, now, NULL);
	return gclk_rtc_read(rtc, 0x71, now, NULL);
}

int main(void)
{
	struct gclk_rtc rtc = { 0 }, saved;
	struct gclk_hpet hpet = { 0 };
	struct gclk_hpet_lines lines;
	struct gclk_line irq8;
	int64_t now = 0;

	/* power on at 2026-11-21 12:00:00 UTC; the guest asks for 64 Hz and 100 Hz */
	gclk_rtc_init(&rtc, GCLK_DIALECT_DATASHEET, 1795262400, now);
	rtc_write(&rtc, 0x0a, 0x2a, now);		/* divider runs, rate 64 Hz */
	rtc_write(&rtc, 0x0b, 0x42, now);		/* periodic interrupt, 24 h */
	gclk_hpet_init(&hpet, GCLK_DIALECT_DATASHEET, 3, 69841279, 0x00ff0000, now);
	gclk_hpet_write(&hpet, 0x100, 8, 0x10004c, now, NULL);	/* periodic, VAL_SET, enabled */
	gclk_hpet_write(&hpet, 0x108, 8, 143182, now, NULL);	/* first expiry, and period: 10 ms */
	gclk_hpet_write(&hpet, 0x010, 8, 1, now, NULL);		/* go */

	printf("next RTC edge at %" PRId64 " ns, next HPET expiry at %" PRId64 " ns\n",
	       gclk_rtc_next_edge(&rtc, now), gclk_hpet_timer_next(&hpet, 0, now));
	printf("ticks in the next hour: RTC %" PRIu64 ", HPET %" PRIu64 "\n",
	       gclk_rtc_periodic_edges(&rtc, now, now + 3600 * SECOND),
	       gclk_hpet_timer_edges(&hpet, 0, now, now + 3600 * SECOND));

	saved = rtc;
	now += 3600 * SECOND;
	gclk_rtc_advance(&rtc, now, &irq8);
	gclk_hpet_advance(&hpet, now, &lines);
	printf("an hour later: %02x:%02x:%02x, IRQ 8 rose %" PRIu64 " time%s (nobody read register C), "
	       "HPET timer 0 %" PRIu64 " times\n",
	       rtc_read(&rtc, 4, now), rtc_read(&rtc, 2, now), rtc_read(&rtc, 0, now), irq8.rises,
	       irq8.rises == 1 ? "" : "s", lines.rises[0]);

	rtc = saved;
	printf("restored: %02x:%02x:%02x\n", rtc_read(&rtc, 4, 0), rtc_read(&rtc, 2, 0),
	       rtc_read(&rtc, 0, 0));
	return 0;
}
