/* SPDX-License-Identifier: MIT */
/*
 * HPET (IA-PC HPET specification 1.0a).
 *
 * The main counter is not kept running, it follows from the instant:
 *
 *	data sheet	counter_ticks + floor(((t - counter_at_ns) * 10^6 + frac) / period_fs)
 *	QEMU		floor((t + offset_ns) / 10), all modulo 2^64
 *
 * and stands still at counter_ticks while it is halted. expiry_ns of each timer is the
 * first ns at which its comparator is due. In periodic mode the comparator register
 * holds the next match, so a match moves it on by period_ticks.
 *
 * What QEMU's timers do differently:
 *   - They are set up when the counter starts, when a comparator is written, and when
 *     the interrupt is enabled while the counter runs; for a counter that starts, a
 *     comparator that is still all ones stays off. They run with their interrupt
 *     disabled.
 *   - A comparator that is up to half the range behind is due one tick later.
 *   - A 32-bit one-shot that would have to wait past the wrap of the counter first fires
 *     at 0xffffffff (.wrap), then at its match, then no more.
 *   - A periodic comparator moves on only when the counter is past it. Late by more than
 *     a tick, as timers of a host are, that is at its expiry. Handled in its very ns
 *     (.exact) it is not: it fires, fires again one tick later, and moves on then.
 *   - Writing the running counter changes what it will be halted at, and no more.
 *   - The timer after the last one can be programmed, but is not saved.
 */
#include <stdio.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/ticks.h"

#define CFG_ENABLE 1u
#define CFG_LEGACY 2u

#define TN_LEVEL 0x0002u
#define TN_ENABLE 0x0004u
#define TN_PERIODIC 0x0008u
#define TN_PERIODIC_CAP 0x0010u
#define TN_SIZE_CAP 0x0020u
#define TN_SETVAL 0x0040u
#define TN_32BIT 0x0100u
#define TN_ROUTE 0x3e00u
#define TN_FSB 0x4000u
#define TN_FSB_CAP 0x8000u
#define TN_WRITABLE 0x7f4eu

#define REG_CAP 0x000
#define REG_CFG 0x010
#define REG_ISR 0x020
#define REG_COUNTER 0x0f0
#define REG_TIMERS 0x100
#define TIMER_BYTES 0x20
#define TIMER_CFG 0x00
#define TIMER_CMP 0x08
#define TIMER_FSB 0x10

#define TICK_NS 10			/* QEMU's */
#define FS_PER_NS 1000000

static const struct gclk_hpet_dialect dialects[GCLK_N_DIALECTS] = {
	[GCLK_DIALECT_DATASHEET] = {
		.name = "datasheet", .capability = 0x8086a001,
	},
	[GCLK_DIALECT_QEMU] = {
		.name = "qemu", .period_fs = TICK_NS * FS_PER_NS, .counts_by_offset = 1,
		.one_shot_32_once = 1, .fires_at_wrap = 1, .past_fires = 1, .arms_disabled = 1,
		.set_needs_low = 1, .exact_twice = 1, .period_31_bits = 1, .lowers_on_disable = 1,
		.capability = 0x8086a001,
	},
	/* the kernel has none: a VMM on KVM brings its own */
	[GCLK_DIALECT_KVM] = {
		.name = "kvm", .capability = 0x8086a001,
	},
};
GCLK_API const struct gclk_hpet_dialect *const gclk_hpet_dialects = dialects;

static const struct gclk_hpet_dialect *facts_of(const struct gclk_hpet *hpet)
{
	return &dialects[hpet->dialect];
}

static bool is_enabled(const struct gclk_hpet *hpet)
{
	return (hpet->config & CFG_ENABLE) != 0;
}

static bool is_legacy(const struct gclk_hpet *hpet)
{
	return (hpet->config & CFG_LEGACY) != 0;
}

static bool is_periodic(const struct gclk_hpet_timer *timer)
{
	return (timer->config & TN_PERIODIC) != 0;
}

static bool is_32_bit(const struct gclk_hpet_timer *timer)
{
	return (timer->config & TN_32BIT) != 0 || !(timer->config & TN_SIZE_CAP);
}

static uint64_t cut(const struct gclk_hpet_timer *timer, uint64_t v)
{
	return is_32_bit(timer) ? (uint32_t)v : v;
}

static uint32_t period_fs(const struct gclk_hpet *hpet)
{
	uint32_t fixed = facts_of(hpet)->period_fs;

	return fixed ? fixed : hpet->period_fs ? hpet->period_fs : TICK_NS * FS_PER_NS;
}

/* ---- the main counter ---- */

/* QEMU: what is added to the axis to give the counter in ns. */
static uint64_t offset_of(const struct gclk_hpet *hpet)
{
	if (GCLK_HAS(hpet, hpet, offset_ns)) {
		return (uint64_t)hpet->offset_ns;
	}
	return hpet->counter_ticks * TICK_NS - (uint64_t)hpet->counter_at_ns;
}

/* Data sheet: ticks and rest since counter_at_ns. */
static gclk_u128 ticks_since(const struct gclk_hpet *hpet, int64_t t, uint32_t *ret_frac)
{
	gclk_u128 fs = (gclk_u128)(uint64_t)gclk_sub(t, hpet->counter_at_ns) * FS_PER_NS +
		       hpet->counter_frac_fs;

	if (t < hpet->counter_at_ns) {
		*ret_frac = hpet->counter_frac_fs;
		return 0;
	}
	*ret_frac = (uint32_t)(fs % period_fs(hpet));
	return fs / period_fs(hpet);
}

GCLK_API uint64_t gclk_hpet_counter_at(const struct gclk_hpet *hpet, int64_t t,
				       uint32_t *ret_frac_fs)
{
	uint32_t frac = hpet->counter_frac_fs;
	uint64_t v = hpet->counter_ticks, ns;

	if (is_enabled(hpet) && facts_of(hpet)->counts_by_offset) {
		ns = (uint64_t)t + offset_of(hpet);
		v = ns / TICK_NS;
		frac = (uint32_t)(ns % TICK_NS) * FS_PER_NS;
	} else if (is_enabled(hpet)) {
		v += (uint64_t)ticks_since(hpet, t, &frac);
	}
	if (ret_frac_fs) {
		*ret_frac_fs = frac;
	}
	return v;
}

/* ---- QEMU's timers ---- */

static uint64_t qemu_ticks(const struct gclk_hpet *hpet, int64_t t)
{
	return ((uint64_t)t + offset_of(hpet)) / TICK_NS;
}

/* Ticks until the comparator is due, 1 where it is past. */
static uint64_t qemu_diff(const struct gclk_hpet_timer *timer, uint64_t now)
{
	uint64_t diff = timer->comparator_ticks - now;

	if (timer->config & TN_32BIT) {
		return (int32_t)(uint32_t)diff > 0 ? (uint32_t)diff : 1;
	}
	return (int64_t)diff > 0 ? diff : 1;
}

static void qemu_arm(struct gclk_hpet_timer *timer, int64_t t, uint64_t ticks)
{
	int64_t expiry = GCLK_TIMER_OFF;

	if (ticks < INT64_MAX / 2 / TICK_NS) {
		expiry = gclk_add(t, (int64_t)(ticks * TICK_NS));
	}
	GCLK_SET(hpet_timer, timer, expiry_ns, expiry);
}

static void qemu_set(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer, int64_t t)
{
	uint64_t now = qemu_ticks(hpet, t), diff = qemu_diff(timer, now);
	uint32_t to_wrap = UINT32_MAX - (uint32_t)now;

	GCLK_SET(hpet_timer, timer, wrap, 0);
	if ((timer->config & TN_32BIT) && !is_periodic(timer) && to_wrap < (uint32_t)diff) {
		diff = to_wrap;
		timer->wrap = 1;
	}
	qemu_arm(timer, t, diff);
}

/* With 32 bits the high half of a period does nothing. Alone it would have QEMU search for ever. */
static uint64_t qemu_period(const struct gclk_hpet_timer *timer)
{
	return timer->config & TN_32BIT ? (uint32_t)timer->period_ticks : timer->period_ticks;
}

#define STEPS_MAX 4096	/* a period of more than half the range walks backwards */

/* Moves the comparator of a periodic timer past the counter. */
static void qemu_move_on(struct gclk_hpet_timer *timer, uint64_t now, bool exact)
{
	bool narrow = (timer->config & TN_32BIT) != 0;
	uint64_t period = qemu_period(timer), behind, k;
	uint64_t half = narrow ? UINT64_C(1) << 31 : UINT64_C(1) << 63;

	for (unsigned i = 0; i < STEPS_MAX; i++) {
		behind = now - timer->comparator_ticks + !exact;
		behind = narrow ? (uint32_t)behind : behind;
		if (behind == 0 || behind > half) {
			return;
		}
		k = period < half ? (behind - 1) / period + 1 : 1;
		timer->comparator_ticks += k * period;
		if (narrow) {
			timer->comparator_ticks = (uint32_t)timer->comparator_ticks;
		}
	}
}

/* One expiry, without its interrupt. */
static void qemu_expire(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer)
{
	int64_t t = timer->expiry_ns;
	uint64_t now = qemu_ticks(hpet, t);

	timer->expiry_ns = GCLK_TIMER_OFF;
	if (is_periodic(timer) && qemu_period(timer)) {
		qemu_move_on(timer, now, hpet->exact);
		qemu_arm(timer, t, qemu_diff(timer, now));
	} else if ((timer->config & TN_32BIT) && !is_periodic(timer) && timer->wrap) {
		qemu_arm(timer, t, qemu_diff(timer, now));
		timer->wrap = 0;
	}
}

struct expiries {
	uint64_t count;
	int64_t first, last;
};

static void note(struct expiries *e, uint64_t count, int64_t first, int64_t last)
{
	if (count) {
		e->first = e->count ? e->first : first;
		e->count += count;
		e->last = last;
	}
}

/*
 * Skips the whole periods of a periodic timer in its stride. Its expiries are one
 * period apart, and each is a pair one tick apart if handled exactly; with a period
 * of one tick the pairs run together.
 */
static void qemu_skip(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer, int64_t t,
		      struct expiries *e)
{
	bool narrow = (timer->config & TN_32BIT) != 0;
	uint64_t period = qemu_period(timer);
	int64_t span, periods;
	bool pairs = hpet->exact && period > 1;

	if (!is_periodic(timer) || !period || period > INT64_MAX / 2 / TICK_NS ||
	    (narrow && period >> 31)) {
		return;
	}
	if (pairs && cut(timer, qemu_ticks(hpet, timer->expiry_ns)) !=
			     cut(timer, timer->comparator_ticks)) {
		return;
	}
	span = (int64_t)period * TICK_NS;
	periods = gclk_sub(t, timer->expiry_ns) / span;
	note(e, (uint64_t)periods << pairs, timer->expiry_ns,
	     timer->expiry_ns + (periods - 1) * span + (pairs ? TICK_NS : 0));
	timer->expiry_ns += periods * span;
	timer->comparator_ticks += (uint64_t)periods * period;
	if (narrow && periods) {
		timer->comparator_ticks = (uint32_t)timer->comparator_ticks;
	}
}

static bool is_due(const struct gclk_hpet_timer *timer, int64_t t)
{
	return GCLK_HAS(hpet_timer, timer, expiry_ns) &&
	       timer->expiry_ns != GCLK_TIMER_OFF && timer->expiry_ns <= t;
}

static void qemu_advance(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer, int64_t t,
			 struct expiries *e)
{
	/* up to four until the stride, then the skip, then what is left of a period */
	for (unsigned i = 0; i < 16 && is_due(timer, t); i++) {
		int64_t at = timer->expiry_ns;

		if (i >= 3) {
			qemu_skip(hpet, timer, t, e);
			if (!is_due(timer, t)) {
				return;
			}
			at = timer->expiry_ns;
		}
		qemu_expire(hpet, timer);
		note(e, 1, at, at);
	}
}

/* ---- the data sheet's comparators ---- */

/* When the counter has gone @ticks beyond its value at counter_at_ns. */
static int64_t instant_of(const struct gclk_hpet *hpet, gclk_u128 ticks)
{
	gclk_u128 fs;

	if (ticks > (gclk_u128)INT64_MAX * FS_PER_NS / period_fs(hpet)) {
		return GCLK_TIMER_OFF;
	}
	fs = ticks * period_fs(hpet) - hpet->counter_frac_fs + (FS_PER_NS - 1);
	if (fs / FS_PER_NS > (uint64_t)gclk_sub(INT64_MAX, hpet->counter_at_ns)) {
		return GCLK_TIMER_OFF;
	}
	return hpet->counter_at_ns + (int64_t)(fs / FS_PER_NS);
}

/* The first match after the counter's state at @t. */
static int64_t match_after(const struct gclk_hpet *hpet, const struct gclk_hpet_timer *timer,
			   int64_t t)
{
	uint32_t frac;
	gclk_u128 since, distance;
	uint64_t left;

	if (!is_enabled(hpet)) {
		return GCLK_TIMER_OFF;
	}
	since = ticks_since(hpet, t, &frac);
	left = cut(timer, timer->comparator_ticks - hpet->counter_ticks - (uint64_t)since);
	distance = left ? left : is_32_bit(timer) ? (gclk_u128)1 << 32 : (gclk_u128)1 << 64;
	return instant_of(hpet, since + distance);
}

static void match_advance(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer, int64_t t,
			  struct expiries *e)
{
	bool moves = is_periodic(timer) && timer->period_ticks;
	gclk_u128 first, step, k;
	int64_t at = timer->expiry_ns;
	uint32_t frac;

	if (!is_due(timer, t) || !is_enabled(hpet)) {
		return;
	}
	/* the tick of the match itself: within the ns of its expiry there may be several */
	first = ticks_since(hpet, at, &frac);
	first -= cut(timer, hpet->counter_ticks + (uint64_t)first - timer->comparator_ticks);
	step = moves ? timer->period_ticks : (gclk_u128)1 << (is_32_bit(timer) ? 32 : 64);
	k = (ticks_since(hpet, t, &frac) - first) / step + 1;
	note(e, (uint64_t)k, at, instant_of(hpet, first + (k - 1) * step));
	if (moves) {
		timer->comparator_ticks =
			cut(timer, timer->comparator_ticks + (uint64_t)k * timer->period_ticks);
	}
	GCLK_SET(hpet_timer, timer, expiry_ns, instant_of(hpet, first + k * step));
}

/* ---- both ---- */

static void expire_until(const struct gclk_hpet *hpet, struct gclk_hpet_timer *timer, int64_t t,
			 struct expiries *e)
{
	*e = (struct expiries){ .first = GCLK_TIMER_OFF, .last = GCLK_TIMER_OFF };
	if (facts_of(hpet)->counts_by_offset) {
		qemu_advance(hpet, timer, t, e);
		return;
	}
	if (!GCLK_HAS(hpet_timer, timer, expiry_ns)) {
		GCLK_SET(hpet_timer, timer, expiry_ns,
			 match_after(hpet, timer, hpet->counter_at_ns));
	}
	match_advance(hpet, timer, t, e);
}

GCLK_API int gclk_hpet_timer_interrupts(const struct gclk_hpet *hpet, unsigned n)
{
	return is_enabled(hpet) && (hpet->timers[n].config & TN_ENABLE) != 0;
}

GCLK_API int gclk_hpet_timer_route(const struct gclk_hpet *hpet, unsigned n)
{
	if (hpet->timers[n].config & TN_FSB) {
		return -1;
	}
	if (is_legacy(hpet) && n <= 1) {
		return n == 0 ? 0 : 8;
	}
	return (int)((hpet->timers[n].config & TN_ROUTE) >> 9);
}

/* Takes a line down, and its status. */
static void lower(struct gclk_hpet *hpet, unsigned n, struct gclk_hpet_lines *lines)
{
	int route = gclk_hpet_timer_route(hpet, n);

	hpet->isr &= ~(UINT64_C(1) << n);
	if (route >= 0) {
		GCLK_SET(hpet_timer, &hpet->timers[n], irq_level, 0);
		lines->level &= ~(1u << n);
		lines->lowered |= 1u << route;
	}
}

static void interrupt(struct gclk_hpet *hpet, unsigned n, uint64_t count,
		      struct gclk_hpet_lines *lines)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];

	if (!count) {
		return;
	}
	if (!gclk_hpet_timer_interrupts(hpet, n)) {
		lower(hpet, n, lines);
		return;
	}
	if ((timer->config & TN_LEVEL) && !(timer->config & TN_FSB)) {
		count = !timer->irq_level;
		hpet->isr |= UINT64_C(1) << n;
		GCLK_SET(hpet_timer, timer, irq_level, 1);
		lines->level |= 1u << n;
	} else {
		hpet->isr &= ~(UINT64_C(1) << n);
		if (timer->irq_level && !(timer->config & TN_FSB)) {
			count--;	/* a pulse on a line that is up only ends that */
			timer->irq_level = 0;
			lines->level &= ~(1u << n);
		}
	}
	if (count) {
		lines->rises[n] += count;
		lines->pulsed |= 1u << n;
	}
}

/* QEMU lets the guest program one timer more than there are. */
static unsigned reachable(const struct gclk_hpet *hpet)
{
	unsigned n = hpet->n_timers + facts_of(hpet)->counts_by_offset;

	return n < GCLK_HPET_TIMERS_MAX ? n : GCLK_HPET_TIMERS_MAX;
}

static void begin(const struct gclk_hpet *hpet, struct gclk_hpet_lines *lines)
{
	memset(lines, 0, sizeof(*lines));
	for (unsigned n = 0; n < reachable(hpet); n++) {
		lines->level |= (uint32_t)hpet->timers[n].irq_level << n;
	}
}

static void advance(struct gclk_hpet *hpet, int64_t t, struct gclk_hpet_lines *lines)
{
	struct expiries e;

	begin(hpet, lines);
	for (unsigned n = 0; n < reachable(hpet); n++) {
		expire_until(hpet, &hpet->timers[n], t, &e);
		interrupt(hpet, n, e.count, lines);
	}
}

/* Most accesses find nothing to do. */
static bool is_any_due(const struct gclk_hpet *hpet, int64_t t)
{
	for (unsigned n = 0; n < reachable(hpet); n++) {
		const struct gclk_hpet_timer *timer = &hpet->timers[n];

		bool unknown = !GCLK_HAS(hpet_timer, timer, expiry_ns);

		if (is_due(timer, t) || (unknown && !facts_of(hpet)->counts_by_offset)) {
			return true;
		}
	}
	return false;
}

GCLK_API void gclk_hpet_advance(struct gclk_hpet *hpet, int64_t t, struct gclk_hpet_lines *lines)
{
	struct gclk_hpet_lines unused;

	if (is_any_due(hpet, t)) {
		advance(hpet, t, lines ? lines : &unused);
	} else if (lines) {
		begin(hpet, lines);
	}
}

GCLK_API int64_t gclk_hpet_timer_next(const struct gclk_hpet *hpet, unsigned n, int64_t t)
{
	struct gclk_hpet_timer timer = hpet->timers[n];
	struct expiries e;

	expire_until(hpet, &timer, t, &e);
	return timer.expiry_ns;
}

GCLK_API int64_t gclk_hpet_timer_last(const struct gclk_hpet *hpet, unsigned n, int64_t t)
{
	struct gclk_hpet_timer timer = hpet->timers[n];
	struct gclk_cadence cadence;
	struct expiries e;

	expire_until(hpet, &timer, t, &e);
	if (e.count) {
		return e.last;
	}
	gclk_hpet_timer_cadence(hpet, n, &cadence);
	if (!cadence.periodic || timer.expiry_ns == GCLK_TIMER_OFF) {
		return GCLK_TIMER_OFF;
	}
	/* before the state's own time: where the grid has it */
	return gclk_sub(timer.expiry_ns,
			(int64_t)(cadence.period_num / cadence.period_den));
}

GCLK_API uint64_t gclk_hpet_timer_edges(const struct gclk_hpet *hpet, unsigned n, int64_t t0,
					int64_t t1)
{
	struct gclk_hpet_timer timer = hpet->timers[n];
	struct expiries e;

	if (t1 <= t0) {
		return 0;
	}
	expire_until(hpet, &timer, t0, &e);
	expire_until(hpet, &timer, t1, &e);
	return e.count;
}

GCLK_API void gclk_hpet_timer_cadence(const struct gclk_hpet *hpet, unsigned n,
				      struct gclk_cadence *ret)
{
	const struct gclk_hpet_timer *timer = &hpet->timers[n];
	gclk_u128 fs = (gclk_u128)timer->period_ticks * period_fs(hpet);

	*ret = (struct gclk_cadence){ .period_den = 1 };
	if (gclk_hpet_timer_next(hpet, n, gclk_sub(timer->expiry_ns, 1)) == GCLK_TIMER_OFF) {
		return;
	}
	ret->armed = 1;
	if (!is_periodic(timer) || !timer->period_ticks) {
		return;
	}
	ret->periodic = 1;
	ret->period_den = FS_PER_NS;
	while (fs > UINT64_MAX || (fs % 10 == 0 && ret->period_den > 1)) {
		fs /= 10;	/* a period of hours loses fs only where it has none */
		ret->period_den = ret->period_den > 1 ? ret->period_den / 10 : 1;
	}
	ret->period_num = (uint64_t)fs;
}

/* ---- register access ---- */

static uint64_t capability(const struct gclk_hpet *hpet)
{
	uint64_t low = GCLK_HAS(hpet, hpet, capability) ? hpet->capability
							: facts_of(hpet)->capability;

	low = (low & ~UINT64_C(0x1f00)) | (uint64_t)(hpet->n_timers - 1) << 8;
	return low | (uint64_t)period_fs(hpet) << 32;
}

static const uint64_t *timer_register(const struct gclk_hpet_timer *timer, uint32_t reg)
{
	switch (reg) {
	case TIMER_CFG:
		return &timer->config;
	case TIMER_CMP:
		return &timer->comparator_ticks;
	case TIMER_FSB:
		return &timer->fsb_route;
	default:
		return NULL;
	}
}

/* The 64-bit register at a multiple of 8. */
static uint64_t register_at(const struct gclk_hpet *hpet, uint32_t offset, int64_t t)
{
	uint32_t n = (offset - REG_TIMERS) / TIMER_BYTES;
	const uint64_t *p;

	switch (offset) {
	case REG_CAP:
		return capability(hpet);
	case REG_CFG:
		return hpet->config;
	case REG_ISR:
		return hpet->isr;
	case REG_COUNTER:
		return gclk_hpet_counter_at(hpet, t, NULL);
	default:
		break;
	}
	if (offset < REG_TIMERS || n >= reachable(hpet)) {
		return 0;
	}
	p = timer_register(&hpet->timers[n], offset % TIMER_BYTES);
	return p ? *p : 0;
}

GCLK_API uint64_t gclk_hpet_read(struct gclk_hpet *hpet, uint32_t offset, unsigned size,
				 int64_t t, struct gclk_hpet_lines *lines)
{
	uint64_t v;

	gclk_hpet_advance(hpet, t, lines);
	v = register_at(hpet, offset & ~7u, t);
	if (size == 8) {
		return v;
	}
	return offset & 4 ? v >> 32 : (uint32_t)v;
}

GCLK_API uint64_t gclk_hpet_peek(const struct gclk_hpet *hpet, uint32_t offset, unsigned size,
				 int64_t t)
{
	struct gclk_hpet copy = *hpet;

	return gclk_hpet_read(&copy, offset, size, t, NULL);
}

/* A write to a register of 64 bits: which bits, and what to. */
struct value {
	uint64_t bits, mask;
	bool high_half;		/* only bits 63:32 */
};

static uint64_t merged(uint64_t old, const struct value *v)
{
	return (old & ~v->mask) | (v->bits & v->mask);
}

/* Sets a timer up after anything that its next match depends on. */
static void set_up(struct gclk_hpet *hpet, unsigned n, int64_t t)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];

	if (facts_of(hpet)->counts_by_offset) {
		if (is_enabled(hpet)) {
			qemu_set(hpet, timer, t);
		}
		return;
	}
	GCLK_SET(hpet_timer, timer, expiry_ns, match_after(hpet, timer, t));
}

static void take_down(struct gclk_hpet *hpet, unsigned n, struct gclk_hpet_lines *lines)
{
	GCLK_SET(hpet_timer, &hpet->timers[n], expiry_ns, GCLK_TIMER_OFF);
	lower(hpet, n, lines);
}

/*
 * A timer has come to drive another input. What its status says of it holds there too; but
 * QEMU tells an input its level only when that changes, and leaves the old one as it is.
 */
static void reroute(struct gclk_hpet *hpet, unsigned n, struct gclk_hpet_lines *lines)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];
	bool up = !facts_of(hpet)->counts_by_offset && (hpet->isr >> n & 1) &&
		  !(timer->config & TN_FSB);

	if (up && !timer->irq_level) {
		lines->rises[n]++;
		lines->pulsed |= 1u << n;
	}
	GCLK_SET(hpet_timer, timer, irq_level, up);
	lines->level = (lines->level & ~(1u << n)) | (uint32_t)up << n;
}

/* Bits of a timer's configuration that its capabilities let the guest write. */
static uint64_t writable(const struct gclk_hpet *hpet, const struct gclk_hpet_timer *timer)
{
	uint64_t mask = TN_WRITABLE;

	if (facts_of(hpet)->counts_by_offset) {
		return mask;
	}
	mask &= timer->config & TN_PERIODIC_CAP ? ~UINT64_C(0) : ~(uint64_t)(TN_PERIODIC | TN_SETVAL);
	mask &= timer->config & TN_SIZE_CAP ? ~UINT64_C(0) : ~(uint64_t)TN_32BIT;
	return timer->config & TN_FSB_CAP ? mask : mask & ~(uint64_t)TN_FSB;
}

static void write_timer_config(struct gclk_hpet *hpet, unsigned n, const struct value *v,
			       int64_t t, struct gclk_hpet_lines *lines)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];
	uint64_t old = timer->config, mask = v->mask & writable(hpet, timer);
	bool qemu = facts_of(hpet)->counts_by_offset;
	int route = gclk_hpet_timer_route(hpet, n);

	if (v->high_half) {
		return;
	}
	if (!(old & TN_FSB) && (v->bits & TN_FSB) && (mask & TN_FSB)) {
		lower(hpet, n, lines);
	}
	timer->config = (old & ~mask) | (v->bits & mask);
	if (gclk_hpet_timer_route(hpet, n) != route) {
		reroute(hpet, n, lines);
	}
	if (timer->config & TN_32BIT) {
		timer->comparator_ticks = (uint32_t)timer->comparator_ticks;
		timer->period_ticks = (uint32_t)timer->period_ticks;
	}
	if ((old & TN_ENABLE) && !(timer->config & TN_ENABLE)) {
		if (facts_of(hpet)->lowers_on_disable) {
			take_down(hpet, n, lines);
		} else if (!(hpet->isr >> n & 1) || !(timer->config & TN_LEVEL)) {
			lower(hpet, n, lines);
		}
	}
	if (!qemu || (!(old & TN_ENABLE) && (timer->config & TN_ENABLE))) {
		set_up(hpet, n, t);
	}
}

static void write_comparator(struct gclk_hpet *hpet, unsigned n, const struct value *v, int64_t t)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];
	bool narrow = (timer->config & TN_32BIT) != 0, set = (timer->config & TN_SETVAL) != 0;
	struct value period = *v;

	if (!is_periodic(timer) || set) {
		timer->comparator_ticks = merged(timer->comparator_ticks, v);
	}
	/* the high half of a value that is being set is only that of the comparator */
	if (is_periodic(timer) && !(v->high_half && set)) {
		if (facts_of(hpet)->period_31_bits && narrow) {
			period.bits &= UINT64_C(0x7fffffff) << (v->high_half ? 32 : 0);
		}
		timer->period_ticks = merged(timer->period_ticks, &period);
	}
	if (!facts_of(hpet)->counts_by_offset && is_32_bit(timer)) {
		timer->comparator_ticks = (uint32_t)timer->comparator_ticks;
		timer->period_ticks = (uint32_t)timer->period_ticks;
	}
	timer->config &= ~(uint64_t)TN_SETVAL;
	set_up(hpet, n, t);
}

static void write_timer(struct gclk_hpet *hpet, uint32_t offset, const struct value *v, int64_t t,
			struct gclk_hpet_lines *lines)
{
	unsigned n = (offset - REG_TIMERS) / TIMER_BYTES;

	if (n >= reachable(hpet)) {
		return;
	}
	switch (offset % TIMER_BYTES) {
	case TIMER_CFG:
		write_timer_config(hpet, n, v, t, lines);
		break;
	case TIMER_CMP:
		write_comparator(hpet, n, v, t);
		break;
	case TIMER_FSB:
		hpet->timers[n].fsb_route = merged(hpet->timers[n].fsb_route, v);
		break;
	default:
		break;
	}
}

/* The counter starts from counter_ticks. */
static void start(struct gclk_hpet *hpet, int64_t t)
{
	GCLK_SET(hpet, hpet, offset_ns,
		 (int64_t)(hpet->counter_ticks * TICK_NS - (uint64_t)t));
	GCLK_SET(hpet, hpet, counter_at_ns, t);
	for (unsigned n = 0; n < hpet->n_timers; n++) {
		if (!facts_of(hpet)->counts_by_offset ||
		    hpet->timers[n].comparator_ticks != UINT64_MAX) {
			set_up(hpet, n, t);
		}
	}
}

/* The counter stands at what it was at @t, when it ran. */
static void freeze(struct gclk_hpet *hpet, int64_t t)
{
	uint32_t frac;

	GCLK_SET(hpet, hpet, counter_ticks, gclk_hpet_counter_at(hpet, t, &frac));
	GCLK_SET(hpet, hpet, counter_frac_fs, facts_of(hpet)->counts_by_offset ? 0 : frac);
	GCLK_SET(hpet, hpet, counter_at_ns, t);
}

static void disarm_all(struct gclk_hpet *hpet, struct gclk_hpet_lines *lines)
{
	for (unsigned n = 0; n < hpet->n_timers; n++) {
		if (facts_of(hpet)->lowers_on_disable) {
			take_down(hpet, n, lines);
		} else {
			GCLK_SET(hpet_timer, &hpet->timers[n], expiry_ns, GCLK_TIMER_OFF);
		}
	}
}

static void write_config(struct gclk_hpet *hpet, const struct value *v, int64_t t,
			 struct gclk_hpet_lines *lines)
{
	uint64_t old = hpet->config, new = merged(old, v) & (CFG_ENABLE | CFG_LEGACY);
	bool starts = !(old & CFG_ENABLE) && (new & CFG_ENABLE);
	bool stops = (old & CFG_ENABLE) && !(new & CFG_ENABLE);

	if (v->high_half) {
		return;
	}
	if (stops) {
		freeze(hpet, t);
	}
	hpet->config = new;
	if (starts) {
		start(hpet, t);
	} else if (stops) {
		disarm_all(hpet, lines);
	}
	if ((old ^ new) & CFG_LEGACY) {
		lines->legacy = new & CFG_LEGACY ? 1 : -1;
		lines->lowered |= 1u << 0 | (new & CFG_LEGACY ? 1u << 8 : 0);
		reroute(hpet, 0, lines);
		reroute(hpet, 1, lines);
	}
}

static void write_status(struct gclk_hpet *hpet, const struct value *v,
			 struct gclk_hpet_lines *lines)
{
	uint64_t clear = v->bits & v->mask & hpet->isr;

	for (unsigned n = 0; n < hpet->n_timers; n++) {
		if (clear >> n & 1) {
			lower(hpet, n, lines);
		}
	}
}

static void write_counter(struct gclk_hpet *hpet, const struct value *v)
{
	if (!is_enabled(hpet) || facts_of(hpet)->counts_by_offset) {
		GCLK_SET(hpet, hpet, counter_ticks, merged(hpet->counter_ticks, v));
		GCLK_SET(hpet, hpet, counter_frac_fs, 0);
	}
}

static void write_register(struct gclk_hpet *hpet, uint32_t offset, const struct value *v,
			   int64_t t, struct gclk_hpet_lines *lines)
{
	switch (offset) {
	case REG_CFG:
		write_config(hpet, v, t, lines);
		break;
	case REG_ISR:
		write_status(hpet, v, lines);
		break;
	case REG_COUNTER:
		write_counter(hpet, v);
		break;
	default:
		if (offset >= REG_TIMERS) {
			write_timer(hpet, offset, v, t, lines);
		}
		break;
	}
}

GCLK_API void gclk_hpet_write(struct gclk_hpet *hpet, uint32_t offset, unsigned size,
			      uint64_t value, int64_t t, struct gclk_hpet_lines *lines)
{
	struct gclk_hpet_lines own;
	struct value v = { .bits = value, .mask = UINT64_MAX };

	lines = lines ? lines : &own;
	advance(hpet, t, lines);
	if (size == 4) {
		v.high_half = (offset & 4) != 0;
		v.mask = v.high_half ? UINT64_C(0xffffffff) << 32 : UINT32_MAX;
		v.bits = v.high_half ? value << 32 : value & UINT32_MAX;
		write_register(hpet, offset & ~7u, &v, t, lines);
	} else if (facts_of(hpet)->set_needs_low) {
		/* arrives as two halves, low first */
		v = (struct value){ value & UINT32_MAX, UINT32_MAX, false };
		write_register(hpet, offset, &v, t, lines);
		v = (struct value){ value, UINT64_C(0xffffffff) << 32, true };
		write_register(hpet, offset, &v, t, lines);
	} else {
		write_register(hpet, offset, &v, t, lines);
	}
}

/* ---- lifecycle ---- */

GCLK_API void gclk_hpet_init(struct gclk_hpet *hpet, enum gclk_dialect dialect,
			     unsigned n_timers, uint32_t period, uint32_t route_capable,
			     int64_t t)
{
	const struct gclk_hpet_dialect *f = &dialects[dialect];

	*hpet = (struct gclk_hpet){ .dialect = (uint8_t)dialect };
	hpet->has = (UINT64_C(1) << gclk_hpet_n_fields) - 1;
	hpet->n_timers = (uint8_t)n_timers;
	hpet->period_fs = f->period_fs ? f->period_fs : period;
	hpet->capability = f->capability;
	hpet->counter_at_ns = t;
	for (unsigned n = 0; n < n_timers; n++) {
		struct gclk_hpet_timer *timer = &hpet->timers[n];

		timer->has = (UINT64_C(1) << gclk_hpet_timer_n_fields) - 1;
		timer->index = (uint8_t)n;
		timer->config = TN_PERIODIC_CAP | TN_SIZE_CAP | (uint64_t)route_capable << 32;
		timer->comparator_ticks = UINT64_MAX;
		timer->expiry_ns = GCLK_TIMER_OFF;
	}
}

static int validate_timer(const struct gclk_hpet *hpet, unsigned n, struct gclk_error *reterr)
{
	const struct gclk_hpet_timer *timer = &hpet->timers[n];
	char where[48];

	if (GCLK_HAS(hpet_timer, timer, index) && timer->index != n) {
		snprintf(where, sizeof(where), "hpet.timers[%u].index", n);
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "timer %u says that it is timer %u", n, timer->index);
	}
	return 0;
}

GCLK_API int gclk_hpet_validate(const struct gclk_hpet *hpet, struct gclk_error *reterr)
{
	uint32_t fixed, period;
	int r = gclk_record_validate(&gclk_hpet_record, hpet, "hpet", reterr);

	if (r < 0 || !hpet->has) {
		return r;
	}
	fixed = facts_of(hpet)->period_fs;
	period = period_fs(hpet);
	if (!GCLK_HAS(hpet, hpet, n_timers)) {
		return gclk_fail(reterr, GCLK_RANGE, "hpet.n_timers", GCLK_NO_OFFSET,
				 "the number of timers is missing");
	}
	if (GCLK_HAS(hpet, hpet, period_fs) && fixed && hpet->period_fs != fixed) {
		return gclk_fail(reterr, GCLK_RANGE, "hpet.period_fs", GCLK_NO_OFFSET,
				 "this device has a period of %u fs, not %u", fixed,
				 hpet->period_fs);
	}
	if (hpet->counter_frac_fs >= period) {
		return gclk_fail(reterr, GCLK_RANGE, "hpet.counter_frac_fs", GCLK_NO_OFFSET,
				 "%u fs are a tick or more", hpet->counter_frac_fs);
	}
	if (hpet->isr >> hpet->n_timers >> (hpet->n_timers == 64)) {
		return gclk_fail(reterr, GCLK_RANGE, "hpet.isr", GCLK_NO_OFFSET,
				 "a timer that does not exist has interrupted");
	}
	for (unsigned n = 0; r == 0 && n < hpet->n_timers; n++) {
		r = validate_timer(hpet, n, reterr);
	}
	return r;
}

/* ---- another period ---- */

struct rescaling {
	uint64_t from_fs, to_fs, error_fs;
};

/* As many ticks of the new period as last nearest to as long. */
static uint64_t rescale(struct rescaling *by, uint64_t ticks)
{
	gclk_u128 was = (gclk_u128)ticks * by->from_fs, to = (was + by->to_fs / 2) / by->to_fs, is;
	uint64_t error;

	to = to > UINT64_MAX ? UINT64_MAX : to;
	to = to == 0 && ticks ? 1 : to;		/* 0 ticks ahead would be a whole wrap away */
	is = to * by->to_fs;
	error = (uint64_t)(is > was ? is - was : was - is);
	by->error_fs = GCLK_MAX(by->error_fs, error);
	return (uint64_t)to;
}

static void rescale_timer(struct gclk_hpet_timer *timer, uint64_t now, struct rescaling *by)
{
	uint64_t ahead = timer->comparator_ticks - now;
	bool behind = is_32_bit(timer) ? (int32_t)(uint32_t)ahead < 0 : (int64_t)ahead < 0;

	if (!behind && timer->comparator_ticks != UINT64_MAX) {
		timer->comparator_ticks = cut(timer, now + rescale(by, cut(timer, ahead)));
	}
	if (timer->period_ticks) {
		timer->period_ticks = rescale(by, timer->period_ticks);
	}
}

GCLK_API int gclk_hpet_convert(struct gclk_hpet *hpet, enum gclk_dialect to, uint32_t period,
			       int64_t t, uint64_t *ret_error_fs, struct gclk_error *reterr)
{
	const struct gclk_hpet_dialect *f = &dialects[to];
	struct rescaling by = { period_fs(hpet), period, 0 };
	uint32_t frac;

	if (period < 1 || period > GCLK_HPET_MAX_PERIOD_FS) {
		return gclk_fail(reterr, GCLK_RANGE, "hpet.period_fs", GCLK_NO_OFFSET,
				 "%u fs is not within 1..%d", period, GCLK_HPET_MAX_PERIOD_FS);
	}
	if (f->period_fs && f->period_fs != period) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "hpet.period_fs", GCLK_NO_OFFSET,
				 "the %s device has a period of %u fs only", f->name,
				 f->period_fs);
	}
	gclk_hpet_advance(hpet, t, NULL);
	GCLK_SET(hpet, hpet, counter_ticks, gclk_hpet_counter_at(hpet, t, &frac));
	GCLK_SET(hpet, hpet, counter_at_ns, t);
	GCLK_SET(hpet, hpet, counter_frac_fs, (uint32_t)((uint64_t)frac * period / by.from_fs));
	GCLK_SET(hpet, hpet, period_fs, period);
	GCLK_SET(hpet, hpet, dialect, (uint8_t)to);
	GCLK_SET(hpet, hpet, offset_ns,
		 (int64_t)(hpet->counter_ticks * TICK_NS + hpet->counter_frac_fs / FS_PER_NS -
			   (uint64_t)t));
	for (unsigned n = 0; n < hpet->n_timers; n++) {
		bool armed = hpet->timers[n].expiry_ns != GCLK_TIMER_OFF;

		rescale_timer(&hpet->timers[n], hpet->counter_ticks, &by);
		if (armed || !f->counts_by_offset) {
			set_up(hpet, n, t);
		}
	}
	if (ret_error_fs) {
		*ret_error_fs = by.error_fs;
	}
	return 0;
}
