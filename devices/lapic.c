/* SPDX-License-Identifier: MIT */
/*
 * The timer of a local APIC: one-shot, periodic, TSC-deadline.
 *
 * The counter is not stored, the instant of its next expiry is; the count is what
 * is left until then, in units of divider x bus period.
 *
 *   data sheet, KVM	P = TMICT x unit. Masking silences expiries and leaves the counter
 *			alone; a new divider keeps the count and changes its pace.
 *   QEMU (emulated)	unit = divider x 1 ns, P = (TMICT + 1) x unit, and the count is
 *			derived from the load instant. A masked timer is not armed: unmasked
 *			again it continues on its old grid, and a one-shot with less than one
 *			unit to go is lost. A new divider shows in the count at once, but an
 *			armed expiry stays where it was.
 *
 * TSC-deadline: the deadline is an MSR of the vCPU (struct gclk_tsc); this record
 * only knows the mode. Hardware that emulates it in QEMU does not exist: there bit 18
 * of the LVT is stored and means nothing.
 */
#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/line.h"
#include "devices/ticks.h"

#define LVT_VECTOR 0xffu
#define LVT_MASKED 0x10000u
#define LVT_PERIODIC 0x20000u
#define LVT_DEADLINE 0x40000u
#define LVT_MODE (LVT_PERIODIC | LVT_DEADLINE)

#define REG_LVT 0x320
#define REG_TMICT 0x380
#define REG_TMCCT 0x390
#define REG_TDCR 0x3e0

static const struct gclk_lapic_dialect dialects[GCLK_N_DIALECTS] = {
	[GCLK_DIALECT_DATASHEET] = {
		.name = "datasheet", .has_deadline = 1, .mode_change_clears = 1,
		.lvt_mask = LVT_VECTOR | LVT_MASKED | LVT_MODE,
	},
	[GCLK_DIALECT_QEMU] = {
		.name = "qemu", .counts_to_minus_one = 1, .masked_stops = 1, .divider_is_lazy = 1,
		.lvt_mask = 0xffffffff,
	},
	[GCLK_DIALECT_KVM] = {
		.name = "kvm", .has_deadline = 1, .mode_change_clears = 1, .min_period_ns = 200000,
		.lvt_mask = LVT_VECTOR | 0x1000 | LVT_MASKED | LVT_MODE,
	},
};
GCLK_API const struct gclk_lapic_dialect *const gclk_lapic_dialects = dialects;

static const struct gclk_lapic_dialect *facts_of(const struct gclk_lapic *lapic)
{
	return &dialects[lapic->dialect];
}

static unsigned shift_of(uint32_t divide_config)
{
	return ((divide_config & 3) + (divide_config >> 1 & 4) + 1) & 7;
}

GCLK_API unsigned gclk_lapic_divider(uint32_t divide_config)
{
	return 1u << shift_of(divide_config);
}

static unsigned shift_in(const struct gclk_lapic *lapic)
{
	return GCLK_HAS(lapic, lapic, divide_shift) ? lapic->divide_shift
						    : shift_of(lapic->divide_config);
}

static int64_t unit_ns(const struct gclk_lapic *lapic)
{
	int64_t bus = facts_of(lapic)->counts_to_minus_one || !lapic->bus_ns ? 1 : lapic->bus_ns;

	return bus << shift_in(lapic);
}

static bool is_deadline(const struct gclk_lapic *lapic)
{
	return facts_of(lapic)->has_deadline && (lapic->lvt_timer & LVT_MODE) == LVT_DEADLINE;
}

static bool is_periodic(const struct gclk_lapic *lapic)
{
	return (lapic->lvt_timer & LVT_PERIODIC) != 0 && !is_deadline(lapic);
}

static bool is_masked(const struct gclk_lapic *lapic)
{
	return (lapic->lvt_timer & LVT_MASKED) != 0;
}

/* The grid of the expiries. */
static int64_t period_ns(const struct gclk_lapic *lapic)
{
	const struct gclk_lapic_dialect *f = facts_of(lapic);
	int64_t p = ((int64_t)lapic->initial_count + f->counts_to_minus_one) * unit_ns(lapic);

	return is_periodic(lapic) && p < f->min_period_ns ? f->min_period_ns : p;
}

/* The armed expiry; a state of the kernel's may only say what the count was, and when. */
static int64_t armed_for(const struct gclk_lapic *lapic)
{
	int64_t left = (int64_t)lapic->current_count * unit_ns(lapic);

	if (GCLK_HAS(lapic, lapic, expiry_ns)) {
		return lapic->expiry_ns;
	}
	if (!lapic->initial_count || is_deadline(lapic)) {
		return GCLK_TIMER_OFF;
	}
	if (GCLK_HAS(lapic, lapic, current_count) && GCLK_HAS(lapic, lapic, captured_at_ns)) {
		if (left > 0) {
			return gclk_add(lapic->captured_at_ns,
					GCLK_MIN(left, period_ns(lapic)));
		}
		return is_periodic(lapic) ? gclk_add(lapic->captured_at_ns, period_ns(lapic))
					  : GCLK_TIMER_OFF;
	}
	return GCLK_HAS(lapic, lapic, load_time_ns)
		       ? gclk_add(lapic->load_time_ns, period_ns(lapic))
		       : GCLK_TIMER_OFF;
}

/* QEMU: the expiry after @t by the load instant. */
static int64_t expiry_after(const struct gclk_lapic *lapic, int64_t t)
{
	int64_t d = gclk_sub(t, lapic->load_time_ns) >> shift_in(lapic);
	int64_t n = (int64_t)lapic->initial_count + 1;

	if (is_masked(lapic)) {
		return GCLK_TIMER_OFF;
	}
	if (!is_periodic(lapic)) {
		return d >= n - 1 ? GCLK_TIMER_OFF
				  : gclk_add(lapic->load_time_ns, n * unit_ns(lapic));
	}
	if (!lapic->initial_count) {
		return GCLK_TIMER_OFF;
	}
	return gclk_add(lapic->load_time_ns,
			gclk_clip((gclk_i128)(gclk_floor_div(d, n) + 1) * n * unit_ns(lapic)));
}

static void arm(struct gclk_lapic *lapic, int64_t expiry)
{
	GCLK_SET(lapic, lapic, expiry_ns, expiry);
	if (expiry != GCLK_TIMER_OFF) {
		GCLK_SET(lapic, lapic, next_time_ns, expiry);
	}
}

static void advance_emulated(struct gclk_lapic *lapic, int64_t t, struct gclk_line *line)
{
	int64_t p = period_ns(lapic), c = lapic->expiry_ns, k;

	/* once off the grid after a change of the divider, thrice at most in one-shot mode */
	for (unsigned i = 0; i < 3 && c != GCLK_TIMER_OFF && c <= t; i++) {
		gclk_line_rise(line, 1, c);
		c = expiry_after(lapic, c);
	}
	if (c != GCLK_TIMER_OFF && c <= t) {
		k = gclk_add(gclk_sub(t, c) / p, 1);
		gclk_line_rise(line, (uint64_t)k, gclk_clip(c + (gclk_i128)(k - 1) * p));
		c = gclk_clip(c + (gclk_i128)k * p);
	}
	arm(lapic, c);
}

static void advance_counter(struct gclk_lapic *lapic, int64_t t, struct gclk_line *line)
{
	int64_t c = armed_for(lapic), p = period_ns(lapic), k = 1;

	if (c != GCLK_TIMER_OFF && c <= t) {
		if (is_periodic(lapic) && p > 0) {
			k = gclk_add(gclk_sub(t, c) / p, 1);
		}
		if (!is_masked(lapic)) {
			gclk_line_rise(line, (uint64_t)k, gclk_clip(c + (gclk_i128)(k - 1) * p));
			GCLK_SET(lapic, lapic, pending, 1);
		}
		c = is_periodic(lapic) && p > 0 ? gclk_add(c, gclk_clip((gclk_i128)k * p))
						: GCLK_TIMER_OFF;
	}
	arm(lapic, c);
}

static void advance(struct gclk_lapic *lapic, int64_t t, struct gclk_line *line)
{
	gclk_line_begin(line, 0);
	if (facts_of(lapic)->counts_to_minus_one) {
		advance_emulated(lapic, t, line);
	} else {
		advance_counter(lapic, t, line);
	}
}

GCLK_API void gclk_lapic_advance(struct gclk_lapic *lapic, int64_t t, struct gclk_line *irq)
{
	struct gclk_line line;

	advance(lapic, t, &line);
	gclk_line_give(&line, irq);
}

/* What is left until the expiry, 1..P; 0: nothing counts. */
static int64_t remaining_ns(const struct gclk_lapic *lapic, int64_t t)
{
	int64_t c = armed_for(lapic), p = period_ns(lapic), late;

	if (c == GCLK_TIMER_OFF || is_deadline(lapic)) {
		return 0;
	}
	if (t < c) {
		return gclk_sub(c, t);
	}
	late = gclk_sub(t, c);
	return is_periodic(lapic) && p > 0 ? p - late % p : 0;
}

GCLK_API uint32_t gclk_lapic_count_at(const struct gclk_lapic *lapic, int64_t t)
{
	int64_t d, n = (int64_t)lapic->initial_count;

	if (!facts_of(lapic)->counts_to_minus_one) {
		return (uint32_t)(remaining_ns(lapic, t) / unit_ns(lapic));
	}
	d = gclk_sub(t, lapic->load_time_ns) >> shift_in(lapic);
	if (is_periodic(lapic)) {
		return (uint32_t)(n - gclk_floor_mod(d, n + 1));
	}
	return d >= n ? 0 : (uint32_t)((uint64_t)n - (uint64_t)d);
}

GCLK_API int gclk_lapic_interrupts(const struct gclk_lapic *lapic)
{
	return !is_masked(lapic);
}

GCLK_API int64_t gclk_lapic_next(const struct gclk_lapic *lapic, int64_t t)
{
	struct gclk_lapic copy = *lapic;

	gclk_lapic_advance(&copy, t, NULL);
	return copy.expiry_ns;
}

GCLK_API int64_t gclk_lapic_last(const struct gclk_lapic *lapic, int64_t t)
{
	int64_t p = period_ns(lapic), next = gclk_lapic_next(lapic, t), since;

	if (is_deadline(lapic) || p <= 0 || !lapic->initial_count) {
		return GCLK_TIMER_OFF;
	}
	if (is_periodic(lapic) && next != GCLK_TIMER_OFF) {
		since = gclk_sub(next, p);
		return GCLK_HAS(lapic, lapic, load_time_ns) && since <= lapic->load_time_ns
			       ? GCLK_TIMER_OFF
			       : since;
	}
	since = armed_for(lapic);
	return since != GCLK_TIMER_OFF && since <= t ? since : GCLK_TIMER_OFF;
}

GCLK_API uint64_t gclk_lapic_edges(const struct gclk_lapic *lapic, int64_t t0, int64_t t1)
{
	struct gclk_lapic copy = *lapic;
	struct gclk_line line;

	if (t1 <= t0) {
		return 0;
	}
	copy.lvt_timer &= facts_of(lapic)->masked_stops ? ~0u : ~LVT_MASKED;
	advance(&copy, t0, &line);
	advance(&copy, t1, &line);
	return line.rises;
}

GCLK_API void gclk_lapic_cadence(const struct gclk_lapic *lapic, struct gclk_cadence *ret)
{
	*ret = (struct gclk_cadence){ .period_den = 1 };
	ret->armed = armed_for(lapic) != GCLK_TIMER_OFF;
	if (ret->armed && is_periodic(lapic)) {
		ret->periodic = 1;
		ret->period_num = (uint64_t)period_ns(lapic);
	}
}

GCLK_API int64_t gclk_lapic_deadline_ns(const struct gclk_tsc *tsc)
{
	uint64_t left = tsc->deadline_ticks - tsc->value_ticks;
	uint64_t den = tsc->frequency_den ? tsc->frequency_den : 1;
	gclk_u128 wide;

	if (tsc->deadline_ticks == 0) {
		return GCLK_TIMER_OFF;
	}
	if (tsc->deadline_ticks <= tsc->value_ticks) {
		return 0;
	}
	if (tsc->frequency_hz == 0 || den > UINT64_MAX / (uint64_t)GCLK_NS_PER_S) {
		return INT64_MAX;
	}
	wide = (gclk_u128)left * (den * (uint64_t)GCLK_NS_PER_S);
	wide = (wide + tsc->frequency_hz - 1) / tsc->frequency_hz;
	return wide > INT64_MAX ? INT64_MAX : (int64_t)wide;
}

/* ---- register access ---- */

static uint32_t read_register(const struct gclk_lapic *lapic, uint32_t offset, int64_t t)
{
	switch (offset) {
	case REG_LVT:
		return lapic->lvt_timer;
	case REG_TMICT:
		return lapic->initial_count;
	case REG_TMCCT:
		return gclk_lapic_count_at(lapic, t);
	case REG_TDCR:
		return lapic->divide_config;
	default:
		return 0;
	}
}

GCLK_API uint32_t gclk_lapic_peek(const struct gclk_lapic *lapic, uint32_t offset, int64_t t)
{
	return read_register(lapic, offset, t);
}

GCLK_API uint32_t gclk_lapic_read(struct gclk_lapic *lapic, uint32_t offset, int64_t t,
				  struct gclk_line *irq)
{
	gclk_lapic_advance(lapic, t, irq);
	return read_register(lapic, offset, t);
}

static void write_lvt(struct gclk_lapic *lapic, uint32_t value, int64_t t)
{
	const struct gclk_lapic_dialect *f = facts_of(lapic);
	bool was_deadline = is_deadline(lapic);

	lapic->lvt_timer = value & f->lvt_mask;
	if (f->masked_stops) {
		arm(lapic, expiry_after(lapic, t));
	} else if (f->mode_change_clears && was_deadline != is_deadline(lapic)) {
		lapic->initial_count = 0;
		arm(lapic, GCLK_TIMER_OFF);
	}
}

static void write_initial_count(struct gclk_lapic *lapic, uint32_t value, int64_t t)
{
	if (is_deadline(lapic)) {
		return;
	}
	lapic->initial_count = value;
	GCLK_SET(lapic, lapic, load_time_ns, t);
	if (facts_of(lapic)->masked_stops) {
		arm(lapic, expiry_after(lapic, t));
	} else {
		arm(lapic, value ? gclk_add(t, period_ns(lapic)) : GCLK_TIMER_OFF);
	}
}

static void write_divider(struct gclk_lapic *lapic, uint32_t value, int64_t t)
{
	int64_t left = remaining_ns(lapic, t), old = unit_ns(lapic);

	lapic->divide_config = value & 0xb;
	GCLK_SET(lapic, lapic, divide_shift, (uint8_t)shift_of(value & 0xb));
	if (!facts_of(lapic)->divider_is_lazy && left > 0) {
		arm(lapic, gclk_add(t, gclk_clip((gclk_i128)left * unit_ns(lapic) / old)));
	}
}

GCLK_API void gclk_lapic_write(struct gclk_lapic *lapic, uint32_t offset, uint32_t value,
			       int64_t t, struct gclk_line *irq)
{
	gclk_lapic_advance(lapic, t, irq);
	switch (offset) {
	case REG_LVT:
		write_lvt(lapic, value, t);
		break;
	case REG_TMICT:
		write_initial_count(lapic, value, t);
		break;
	case REG_TDCR:
		write_divider(lapic, value, t);
		break;
	default:
		break;
	}
}

/* ---- lifecycle ---- */

GCLK_API void gclk_lapic_init(struct gclk_lapic *lapic, enum gclk_dialect dialect,
			      uint32_t bus_ns, int64_t t)
{
	*lapic = (struct gclk_lapic){ .dialect = (uint8_t)dialect, .bus_ns = bus_ns };
	GCLK_SET(lapic, lapic, dialect, (uint8_t)dialect);
	GCLK_SET(lapic, lapic, bus_ns, bus_ns);
	GCLK_SET(lapic, lapic, lvt_timer, LVT_MASKED);
	GCLK_SET(lapic, lapic, initial_count, 0);
	GCLK_SET(lapic, lapic, divide_config, 0);
	/* QEMU divides by 1 until the register is written, though it reads 0: divide by 2 */
	GCLK_SET(lapic, lapic, divide_shift,
		 (uint8_t)(facts_of(lapic)->divider_is_lazy ? 0 : shift_of(0)));
	GCLK_SET(lapic, lapic, load_time_ns, facts_of(lapic)->divider_is_lazy ? 0 : t);
	GCLK_SET(lapic, lapic, next_time_ns, 0);
	GCLK_SET(lapic, lapic, expiry_ns, GCLK_TIMER_OFF);
	GCLK_SET(lapic, lapic, pending, 0);
}

GCLK_API int gclk_lapic_validate(const struct gclk_lapic *lapic, struct gclk_error *reterr)
{
	int r = gclk_record_validate(&gclk_lapic_record, lapic, "lapic", reterr);

	if (r == 0 && GCLK_HAS(lapic, lapic, divide_config) && (lapic->divide_config & 4)) {
		return gclk_fail(reterr, GCLK_RANGE, "lapic.divide_config", GCLK_NO_OFFSET,
				 "0x%x has bit 2 set, which does not exist",
				 lapic->divide_config);
	}
	return r;
}
