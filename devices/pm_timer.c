/* SPDX-License-Identifier: MIT */
/*
 * The ACPI power management timer: a free-running counter of 3.579545 MHz.
 *
 * It is the shared axis seen in other units; only its overflow has a state. Each
 * change of the counter's top bit, that is each multiple of half its range, sets
 * TMR_STS, and with TMR_EN raises the system control interrupt. overflow_ticks is
 * the next multiple that counts: clearing TMR_STS looks for it anew, so overflows
 * while the status stands are not seen. The status is set when somebody looks or
 * when the timer fires, not before: that is how the saved form has it. The ns of
 * an overflow is the last one at or before its tick.
 *
 * The other bits of PM1 are kept as written and take part in the interrupt's level;
 * nothing here sets them.
 */
#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/line.h"
#include "devices/ticks.h"

#define HZ GCLK_PM_TIMER_HZ
#define TMR 0x0001u
#define COMMON 0x0521u	/* timer, global, power button, RTC: what can raise the interrupt */

static int64_t axis(const struct gclk_pm_timer *pm, int64_t t)
{
	return gclk_add(t, pm->offset_ns);
}

static int64_t half(const struct gclk_pm_timer *pm)
{
	return INT64_C(1) << ((pm->bits ? pm->bits : 24) - 1);
}

GCLK_API uint32_t gclk_pm_timer_at(const struct gclk_pm_timer *pm, int64_t t)
{
	return (uint32_t)gclk_floor_mod(gclk_ticks_by(axis(pm, t), HZ), 2 * half(pm));
}

/* The number of the overflow that is the last at or before @t. */
static int64_t overflow_by(const struct gclk_pm_timer *pm, int64_t t)
{
	int64_t last = gclk_scale_up(gclk_add(axis(pm, t), 1), HZ, GCLK_NS_PER_S) - 1;

	return gclk_floor_div(last, half(pm));
}

static int64_t instant_of(const struct gclk_pm_timer *pm, int64_t ticks)
{
	return gclk_sub(gclk_tick_floor(ticks, HZ), pm->offset_ns);
}

GCLK_API int64_t gclk_pm_timer_overflow_next(const struct gclk_pm_timer *pm, int64_t t)
{
	return instant_of(pm, gclk_clip((gclk_i128)(overflow_by(pm, t) + 1) * half(pm)));
}

GCLK_API uint64_t gclk_pm_timer_overflows(const struct gclk_pm_timer *pm, int64_t t0, int64_t t1)
{
	return t1 <= t0 ? 0 : (uint64_t)(overflow_by(pm, t1) - overflow_by(pm, t0));
}

/* The status as of @t. */
static uint16_t status_at(const struct gclk_pm_timer *pm, int64_t t)
{
	return t >= instant_of(pm, pm->overflow_ticks) ? pm->status | TMR : pm->status;
}

/* Looks at the status, sets the line, and arms the timer if it is waited for. */
static void update(struct gclk_pm_timer *pm, int64_t t, struct gclk_line *line)
{
	GCLK_SET(pm_timer, pm, status, status_at(pm, t));
	GCLK_SET(pm_timer, pm, irq_level, (pm->status & pm->enable & COMMON) != 0);
	GCLK_SET(pm_timer, pm, expiry_ns,
		 (pm->enable & TMR) && !(pm->status & TMR) ? instant_of(pm, pm->overflow_ticks)
							   : GCLK_TIMER_OFF);
	gclk_line_set(line, pm->irq_level, t);
}

static uint8_t level_of(const struct gclk_pm_timer *pm)
{
	return GCLK_HAS(pm_timer, pm, irq_level) ? pm->irq_level
						 : (pm->status & pm->enable & COMMON) != 0;
}

static void advance(struct gclk_pm_timer *pm, int64_t t, struct gclk_line *line)
{
	gclk_line_begin(line, level_of(pm));
	if (pm->expiry_ns != GCLK_TIMER_OFF && GCLK_HAS(pm_timer, pm, expiry_ns) &&
	    pm->expiry_ns <= t) {
		update(pm, pm->expiry_ns, line);
	}
}

GCLK_API void gclk_pm_timer_advance(struct gclk_pm_timer *pm, int64_t t, struct gclk_line *sci)
{
	struct gclk_line line;

	advance(pm, t, &line);
	gclk_line_give(&line, sci);
}

GCLK_API int64_t gclk_pm_timer_next_edge(const struct gclk_pm_timer *pm, int64_t t)
{
	return GCLK_HAS(pm_timer, pm, expiry_ns) && pm->expiry_ns > t && !level_of(pm)
		       ? pm->expiry_ns
		       : GCLK_TIMER_OFF;
}

GCLK_API uint64_t gclk_pm_timer_edges(const struct gclk_pm_timer *pm, int64_t t0, int64_t t1)
{
	int64_t next = gclk_pm_timer_next_edge(pm, t0);

	return next != GCLK_TIMER_OFF && next <= t1;
}

GCLK_API uint32_t gclk_pm_timer_read(struct gclk_pm_timer *pm, unsigned reg, int64_t t,
				     struct gclk_line *sci)
{
	gclk_pm_timer_advance(pm, t, sci);
	switch (reg) {
	case GCLK_PM_STATUS:
		GCLK_SET(pm_timer, pm, status, status_at(pm, t));
		return pm->status;
	case GCLK_PM_ENABLE:
		return pm->enable;
	case GCLK_PM_TIMER:
		return gclk_pm_timer_at(pm, t);
	default:
		return 0;
	}
}

GCLK_API uint32_t gclk_pm_timer_peek(const struct gclk_pm_timer *pm, unsigned reg, int64_t t)
{
	struct gclk_pm_timer copy = *pm;

	return gclk_pm_timer_read(&copy, reg, t, NULL);
}

static void write_status(struct gclk_pm_timer *pm, uint16_t value, int64_t t)
{
	int64_t now = gclk_ticks_by(axis(pm, t), HZ);

	GCLK_SET(pm_timer, pm, status, status_at(pm, t));
	if (pm->status & value & TMR) {
		GCLK_SET(pm_timer, pm, overflow_ticks,
			 (gclk_floor_div(now, half(pm)) + 1) * half(pm));
	}
	pm->status &= (uint16_t)~value;
}

GCLK_API void gclk_pm_timer_write(struct gclk_pm_timer *pm, unsigned reg, uint32_t value,
				  int64_t t, struct gclk_line *sci)
{
	struct gclk_line line;

	advance(pm, t, &line);
	if (reg == GCLK_PM_STATUS) {
		write_status(pm, (uint16_t)value, t);
		update(pm, t, &line);
	} else if (reg == GCLK_PM_ENABLE) {
		GCLK_SET(pm_timer, pm, enable, (uint16_t)value);
		update(pm, t, &line);
	}
	gclk_line_give(&line, sci);
}

GCLK_API void gclk_pm_timer_init(struct gclk_pm_timer *pm, unsigned bits, int64_t t)
{
	*pm = (struct gclk_pm_timer){ .bits = (uint8_t)bits };
	pm->has = (UINT64_C(1) << gclk_pm_timer_n_fields) - 1;
	pm->expiry_ns = GCLK_TIMER_OFF;
	(void)t;
}

GCLK_API int gclk_pm_timer_validate(const struct gclk_pm_timer *pm, struct gclk_error *reterr)
{
	int r = gclk_record_validate(&gclk_pm_timer_record, pm, "pm_timer", reterr);

	if (r == 0 && GCLK_HAS(pm_timer, pm, bits) && pm->bits != 24 && pm->bits != 32) {
		return gclk_fail(reterr, GCLK_RANGE, "pm_timer.bits", GCLK_NO_OFFSET,
				 "a counter has 24 or 32 bits, not %u", pm->bits);
	}
	return r;
}
