/* SPDX-License-Identifier: MIT */
/*
 * The i6300ESB watchdog: what a gap would trigger.
 *
 * Two stages run one after the other, each preload x 2^15 (1 kHz) or x 2^5 (1 MHz)
 * clocks of 30 ns. The end of the first is at most an interrupt, the end of the
 * second resets the guest; without that, a free-running one starts again. There is
 * no register model: a guest that is loaded elsewhere brings the emulator's own.
 */
#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/ticks.h"

#define PCI_CLOCK_NS 30

GCLK_API int64_t gclk_i6300esb_stage_ns(const struct gclk_i6300esb *wdt, unsigned stage)
{
	int64_t preload = stage == 1 ? wdt->preload1 : wdt->preload2;

	return (preload << (wdt->clock_scale ? 5 : 15)) * PCI_CLOCK_NS;
}

/* The stage that ends at the armed expiry. */
static unsigned stage_of(const struct gclk_i6300esb *wdt)
{
	return wdt->stage == 2 ? 2 : 1;
}

static enum gclk_watchdog_event event_of(const struct gclk_i6300esb *wdt, unsigned stage)
{
	if (stage == 1) {
		return GCLK_WATCHDOG_INTERRUPT;
	}
	return wdt->reboot_enabled ? GCLK_WATCHDOG_RESET : GCLK_WATCHDOG_RELOAD;
}

/* Skips whole cycles of a free-running watchdog that resets nobody. */
static int64_t skip_cycles(const struct gclk_i6300esb *wdt, int64_t at, int64_t t)
{
	int64_t cycle = gclk_i6300esb_stage_ns(wdt, 1) + gclk_i6300esb_stage_ns(wdt, 2);

	return cycle > 0 && at <= t ? at + gclk_sub(t, at) / cycle * cycle : at;
}

GCLK_API int64_t gclk_i6300esb_next(const struct gclk_i6300esb *wdt, int64_t t,
				    enum gclk_watchdog_event *ret_event)
{
	int64_t at = wdt->expiry_ns;
	unsigned stage = stage_of(wdt);

	*ret_event = GCLK_WATCHDOG_NONE;
	if (!GCLK_HAS(i6300esb, wdt, expiry_ns) || at == GCLK_TIMER_OFF) {
		return GCLK_TIMER_OFF;
	}
	if (!wdt->reboot_enabled && wdt->free_run) {
		at = skip_cycles(wdt, at, t);
	}
	for (unsigned i = 0; i < 3 && at <= t; i++) {
		if (stage == 2 && (wdt->reboot_enabled || !wdt->free_run)) {
			return GCLK_TIMER_OFF;	/* it is over: reset, or run down */
		}
		stage = 3 - stage;
		at = gclk_add(at, gclk_i6300esb_stage_ns(wdt, stage));
	}
	if (at <= t) {
		return GCLK_TIMER_OFF;	/* preloads of 0 */
	}
	*ret_event = event_of(wdt, stage);
	return at;
}

GCLK_API enum gclk_watchdog_event gclk_i6300esb_worst(const struct gclk_i6300esb *wdt,
						      int64_t t0, int64_t t1)
{
	enum gclk_watchdog_event event, worst = GCLK_WATCHDOG_NONE;

	for (unsigned i = 0; i < 3; i++) {
		t0 = gclk_i6300esb_next(wdt, t0, &event);
		if (event == GCLK_WATCHDOG_NONE || t0 > t1) {
			break;
		}
		if (event == GCLK_WATCHDOG_RESET || worst == GCLK_WATCHDOG_NONE) {
			worst = event;
		}
	}
	return worst;
}

GCLK_API int gclk_i6300esb_validate(const struct gclk_i6300esb *wdt, struct gclk_error *reterr)
{
	int r = gclk_record_validate(&gclk_i6300esb_record, wdt, "i6300esb", reterr);

	if (r == 0 && GCLK_HAS(i6300esb, wdt, enabled) && wdt->enabled &&
	    (!GCLK_HAS(i6300esb, wdt, stage) || !GCLK_HAS(i6300esb, wdt, expiry_ns))) {
		return gclk_fail(reterr, GCLK_RANGE, "i6300esb.expiry_ns", GCLK_NO_OFFSET,
				 "an enabled watchdog needs its stage and expiry");
	}
	return r;
}
