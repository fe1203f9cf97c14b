/* SPDX-License-Identifier: MIT */
/*
 * i8254 programmable interval timer.
 *
 * We store no count. A channel is its mode, its count N and the instant of its
 * last load; everything it shows later follows from d, the clocks since then.
 * F = 1193182 Hz; "ns of tick k" are the last ns at or before tick k (floor) and
 * the first at or after it (ceil). They differ by one, except where k is a
 * multiple of GRID = F / 2, because 10^9 / F = 500000000 / 596591 in lowest terms.
 *
 * How IRQ0 follows the output is the dialect's own:
 *
 *   data sheet   at the first ns at which d has the new value (ceil)
 *   KVM          a pulse every P = floor(N * 10^9 / F) ns, no level
 *   QEMU         a timer visits instants c. At a visit OUT is looked at as of d(c), and
 *		  the next visit is planned for floor(ns) of the tick k of the next change,
 *		  or c + 1 where that is not after c. As d(floor(k)) = k - 1, a visit mostly
 *		  comes 1 ns too early to see the change and is followed by one that does:
 *		  modes 0, 1, 3, 4, 5 change at ceil(k) after all.
 *		  In mode 2 OUT is up for the one tick d mod N = 0, and from a low output the
 *		  next change is taken to be one tick late. So visits see d = mN at
 *		  floor(mN + 1), where IRQ0 rises, and d = mN - 1 at floor(mN), where it falls;
 *		  at a tick whose ns is exact (every 596591) the visit sees the tick after,
 *		  and one edge is lost: exact mN keeps OUT up through mN + 1, exact mN + 1
 *		  is seen as down and mN + N is skipped.
 *
 * Thus the visits of mode 2 are the ticks mN and mN + 1, m >= 1, without
 *   mN + 1  where mN is exact, and without  mN + N  where mN + 1 is;
 * mN + 1 is up unless exact, mN is down unless exact. Rises in a range are the
 * mN + 1 in it, less those that are exact and those after an exact mN: each
 * counted by division, so that no answer depends on the length of the range.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/line.h"
#include "devices/ticks.h"

#define HZ GCLK_PIT_HZ
#define GRID (GCLK_PIT_HZ / 2)	/* ticks between those that fall on a whole ns */
#define NEVER_MODE 0xff

enum { LSB = 1, MSB = 2, WORD = 3, WORD_HIGH = 4 };

static const struct gclk_pit_dialect dialects[GCLK_N_DIALECTS] = {
	[GCLK_DIALECT_DATASHEET] = {
		.name = "datasheet",
		.counts_bcd = 1, .loads_on_clock = 1, .gate_stops = 1, .reload_waits = 1,
		.low_at_one = 1, .low_pulse = 1, .odd_by_halves = 1, .modes_6_7_alias = 1,
		.refresh_shift = 14, .reset_mode = 0,
	},
	[GCLK_DIALECT_QEMU] = {
		.name = "qemu",
		.steps_by_timer = 1, .refresh_by_read = 1, .reset_mode = 3,
	},
	[GCLK_DIALECT_KVM] = {
		.name = "kvm",
		.modes_6_7_alias = 1, .period_in_ns = 1, .refresh_shift = 14,
		.min_period_ns = 200000, .reset_mode = NEVER_MODE,
	},
};
GCLK_API const struct gclk_pit_dialect *const gclk_pit_dialects = dialects;

static const struct gclk_pit_dialect *facts_of(const struct gclk_pit *pit)
{
	return &dialects[pit->dialect];
}

static uint16_t bcd_of(uint32_t n)
{
	return (uint16_t)(n / 1000 % 10 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10);
}

static uint32_t bcd_value(uint32_t bcd)
{
	return (bcd >> 12 & 15) * 1000 + (bcd >> 8 & 15) * 100 + (bcd >> 4 & 15) * 10 + (bcd & 15);
}

static bool in_bcd(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	return f->counts_bcd && ch->bcd;
}

/* N: the count as a number of clocks. */
static int64_t clocks_of(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
			 uint32_t written)
{
	if (in_bcd(f, ch)) {
		uint32_t n = bcd_value(written & 0xffff);

		return n ? n : 10000;
	}
	return written ? written : 65536;
}

static int64_t reload(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	return clocks_of(f, ch, ch->count);
}

/* The mode by which the output goes; QEMU's modes 6 and 7 go by mode 0 but count by 2. */
static unsigned out_mode(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	if (ch->mode <= 5) {
		return ch->mode;
	}
	return f->modes_6_7_alias && ch->mode <= 7 ? ch->mode - 4u : 0;
}

static unsigned count_mode(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	(void)f;
	return ch->mode <= 5 ? ch->mode : ch->mode == 7 && f->modes_6_7_alias ? 3 : 2;
}

static bool waits_for_gate(unsigned mode)
{
	return mode == 1 || mode == 5;
}

static bool is_periodic(unsigned mode)
{
	return mode == 2 || mode == 3;
}

/*
 * KVM takes 1193181 Hz for the clock: 20000 periods of 11932 counts, in a laboratory whose time
 * is virtual, came 10.0002 ms apart to 0.2 ps of that, and 9 ns a period later than by 1193182.
 */
#define KERNEL_HZ 1193181

/* KVM: the interval of channel 0's timer. */
static int64_t kernel_period_ns(const struct gclk_pit_dialect *f,
				const struct gclk_pit_channel *ch)
{
	int64_t p = gclk_tick_floor(reload(f, ch), KERNEL_HZ);

	return is_periodic(out_mode(f, ch)) && p < f->min_period_ns ? f->min_period_ns : p;
}

/* Clocks since the load. */
static int64_t elapsed(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[n];
	int64_t since;

	if (f->loads_on_clock) {
		if (GCLK_HAS(pit_channel, ch, held_ticks) && ch->held_ticks >= 0) {
			return ch->held_ticks;
		}
		since = gclk_ticks_by(t, HZ) - gclk_ticks_by(ch->load_time_ns, HZ);
		return GCLK_MAX(since, 0);
	}
	if (f->period_in_ns && n == 0 && GCLK_HAS(pit_channel, ch, held_ticks) &&
	    ch->held_ticks >= 0) {
		return ch->held_ticks;
	}
	since = gclk_sub(t, ch->load_time_ns);
	if (f->period_in_ns && n == 0 && is_periodic(out_mode(f, ch))) {
		since = gclk_floor_mod(since, kernel_period_ns(f, ch));
	}
	return gclk_ticks_by(since, f->period_in_ns ? KERNEL_HZ : HZ);
}

/* The output after @d clocks. */
static uint8_t out_of(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
		      int64_t d)
{
	int64_t n = reload(f, ch);

	switch (out_mode(f, ch)) {
	case 1:
		return f->low_pulse ? d >= n : d < n;
	case 2:
		if (f->low_at_one) {
			return gclk_floor_mod(d, n) != n - 1 || n == 1;
		}
		return gclk_floor_mod(d, n) == 0 && d != 0;
	case 3:
		return gclk_floor_mod(d, n) < (n + 1) / 2;
	case 4:
	case 5:
		return f->low_pulse ? d != n : d == n;
	default:
		return d >= n;
	}
}

/* Whether the channel's output is at rest: no count since the control word, or no trigger. */
static bool at_rest(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	return f->loads_on_clock && !ch->triggered;
}

static uint8_t resting_out(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	return out_mode(f, ch) != 0;
}

static uint8_t output(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[n];

	if (at_rest(f, ch)) {
		return resting_out(f, ch);
	}
	if (f->gate_stops && !ch->gate && is_periodic(out_mode(f, ch))) {
		return 1;
	}
	return out_of(f, ch, elapsed(pit, n, t));
}

static uint16_t counting_element(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[n];
	int64_t c = reload(f, ch), d = at_rest(f, ch) ? 0 : elapsed(pit, n, t), left, half;
	int64_t width = in_bcd(f, ch) ? 10000 : 65536;

	switch (count_mode(f, ch)) {
	case 2:
		left = c - gclk_floor_mod(d, c);
		break;
	case 3:
		if (!f->odd_by_halves || c % 2 == 0) {
			left = c - 2 * gclk_floor_mod(d, c) % c;
			break;
		}
		d = gclk_floor_mod(d, c);
		half = (c + 1) / 2;
		left = c - 1 - 2 * (d < half ? d : d - half);
		break;
	default:
		left = gclk_floor_mod(c - d, width);
		break;
	}
	return in_bcd(f, ch) ? bcd_of((uint32_t)(left % width)) : (uint16_t)left;
}

/* ---- QEMU's timer of channel 0 ---- */

/* The ns of tick @k after the load; exact where the tick falls on a whole ns. */
static bool exact(int64_t k)
{
	return k % GRID == 0;
}

/* The tick of the change after @d, or -1. */
static int64_t change_after(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
			    int64_t d)
{
	int64_t n = reload(f, ch), base = d - gclk_floor_mod(d, n), half = (n + 1) / 2;

	switch (out_mode(f, ch)) {
	case 2:
		return d == base && d != 0 ? base + n : base + n + 1;
	case 3:
		return d - base < half ? base + half : base + n;
	case 4:
	case 5:
		return d < n ? n : d == n ? n + 1 : -1;
	default:
		return d < n ? n : -1;
	}
}

/* Plans the visit after @c, and returns the output as of @c. */
static uint8_t look(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch, int64_t c)
{
	int64_t d = gclk_ticks_by(gclk_sub(c, ch->load_time_ns), HZ);
	int64_t k = change_after(f, ch, d), next = GCLK_TIMER_OFF;

	if (k >= 0) {
		next = gclk_add(ch->load_time_ns, gclk_tick_floor(k, HZ));
		next = next <= c ? gclk_add(c, 1) : next;
	}
	GCLK_SET(pit_channel, ch, next_transition_ns, next);
	return out_of(f, ch, d);
}

static bool is_due(const struct gclk_pit_channel *ch, int64_t t)
{
	return ch->next_transition_ns != GCLK_TIMER_OFF && ch->next_transition_ns <= t;
}

static void visit(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch,
		  struct gclk_line *line)
{
	int64_t c = ch->next_transition_ns;

	gclk_line_set(line, look(f, ch, c), c);
}

/* Modes 3, and 2 with a count of 1, at @t: the line is as the count says. */
static void jump_plain(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch, int64_t t,
		       struct gclk_line *line)
{
	int64_t n = reload(f, ch), load = ch->load_time_ns;
	int64_t d0 = gclk_ticks_by(gclk_sub(ch->next_transition_ns - 1, load), HZ);
	int64_t d1 = gclk_ticks_by(gclk_sub(t, load), HZ), k;

	if (n > 1) {
		k = gclk_floor_div(d1, n) * n;
		gclk_line_rise(line, (uint64_t)(gclk_floor_div(d1, n) - gclk_floor_div(d0, n)),
			       gclk_add(load, gclk_tick_ceil(k, HZ)));
	}
	/* with a count of 1 each tick is a change that is none */
	k = n == 1 ? d1 + 1 : change_after(f, ch, d1);
	ch->next_transition_ns = gclk_add(load, gclk_tick_floor(k, HZ));
	if (ch->next_transition_ns <= t) {
		ch->next_transition_ns = gclk_add(t, 1);
	}
	line->level = out_of(f, ch, d1);
}

/* Mode 2, N > 1: whether a tick of the form mN or mN + 1 is visited. */
static bool is_visited(int64_t k, int64_t n)
{
	return k % n == 1 % n ? !exact(k - 1) : k % n == 0 && !(k > n && exact(k - n + 1));
}

static bool is_up(int64_t k, int64_t n)
{
	return k % n == 1 % n ? !exact(k) : exact(k);
}

/* m in lo..hi that are = r modulo s */
static int64_t count_residue(int64_t lo, int64_t hi, int64_t r, int64_t s)
{
	return hi < lo ? 0 : gclk_floor_div(hi - r, s) - gclk_floor_div(lo - 1 - r, s);
}

static int64_t gcd(int64_t a, int64_t b)
{
	while (b) {
		int64_t r = a % b;

		a = b;
		b = r;
	}
	return a;
}

/* x with a * x = 1 modulo GRID, a coprime to it */
static int64_t inverse(int64_t a)
{
	int64_t r0 = GRID, r1 = a % GRID, x0 = 0, x1 = 1;

	while (r1) {
		int64_t q = r0 / r1, r = r0 - q * r1, x = x0 - q * x1;

		r0 = r1;
		r1 = r;
		x0 = x1;
		x1 = x;
	}
	return gclk_floor_mod(x0, GRID);
}

/* Rises at visits mN + 1, m in lo..hi. */
static int64_t rises_in(int64_t lo, int64_t hi, int64_t n)
{
	int64_t g = gcd(n, GRID), count = hi < lo ? 0 : hi - lo + 1;

	count -= count_residue(lo, hi, 0, GRID / g);
	if (g == 1) {
		count -= count_residue(lo, hi, gclk_floor_mod(-inverse(n), GRID), GRID);
	}
	return count;
}

/* Tick m*N + 1 or m*N at or before @k that is visited; and the one after it. */
static int64_t visited_by(int64_t k, int64_t n)
{
	do {
		k = k % n > 1 ? k - k % n + 1 : k;
		if (is_visited(k, n)) {
			return k;
		}
		k--;
	} while (k > 0);
	return 0;
}

static int64_t visited_after(int64_t k, int64_t n)
{
	do {
		k = k % n == 0 ? k + 1 : k - k % n + n;
	} while (!is_visited(k, n));
	return k;
}

/* The last tick whose planned visit is at or before @t. */
static int64_t planned_by(const struct gclk_pit_channel *ch, int64_t t)
{
	int64_t x = gclk_sub(t, ch->load_time_ns);

	return gclk_scale_up(gclk_add(x, 1), HZ, GCLK_NS_PER_S) - 1;
}

/* The last m whose rise at mN + 1 is planned at or before tick @k; below @lo: none. */
static int64_t last_rise(int64_t k, int64_t n, int64_t lo)
{
	int64_t m = gclk_floor_div(k - 1, n);

	while (m >= lo && (exact(m * n) || exact(m * n + 1))) {
		m--;
	}
	return m;
}

/* Mode 2, N > 1, from a visit that was planned by another one. */
static void jump_mode_2(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch,
			int64_t t, struct gclk_line *line)
{
	int64_t n = reload(f, ch);
	int64_t first = planned_by(ch, ch->next_transition_ns), last = planned_by(ch, t);
	int64_t lo = gclk_floor_div(first - 1 + n - 1, n), hi = gclk_floor_div(last - 1, n);
	int64_t at = visited_by(last, n), m = last_rise(last, n, lo);

	gclk_line_rise(line, (uint64_t)rises_in(lo, hi, n),
		       gclk_add(ch->load_time_ns, gclk_tick_floor(m * n + 1, HZ)));
	ch->next_transition_ns =
		gclk_add(ch->load_time_ns, gclk_tick_floor(visited_after(at, n), HZ));
	line->level = is_up(at, n);
}

#define VISITS_BY_HAND 6	/* all of a one-shot; beyond, a periodic mode is in its stride */

static void step_timer(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch, int64_t t,
		       struct gclk_line *line)
{
	for (unsigned i = 0; i < VISITS_BY_HAND && is_due(ch, t); i++) {
		visit(f, ch, line);
	}
	if (!is_due(ch, t)) {
		return;
	}
	if (out_mode(f, ch) == 2 && reload(f, ch) > 1) {
		jump_mode_2(f, ch, t, line);
	} else {
		jump_plain(f, ch, t, line);
	}
}

/* The level of IRQ0 where the source does not say: the one that the next visit was planned from. */
static uint8_t level_before(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch)
{
	int64_t n = reload(f, ch), k;

	if (ch->next_transition_ns == GCLK_TIMER_OFF) {
		return out_of(f, ch, INT64_MAX / 4);
	}
	if (out_mode(f, ch) == 2 && n > 1) {
		k = gclk_ticks_by(gclk_sub(ch->next_transition_ns + 1, ch->load_time_ns), HZ);
		return k % n == 0 && k > 0;
	}
	return out_of(f, ch,
		      gclk_ticks_by(gclk_sub(ch->next_transition_ns - 1, ch->load_time_ns), HZ));
}

/* ---- the data sheet's channel ---- */

/* Rises of the output between two numbers of clocks since the load. */
static int64_t rises_of(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
			int64_t d0, int64_t d1, int64_t *ret_last)
{
	int64_t n = reload(f, ch), at;

	switch (out_mode(f, ch)) {
	case 2:
	case 3:
		*ret_last = gclk_floor_div(d1, n) * n;
		return n == 1 ? 0 : gclk_floor_div(d1, n) - gclk_floor_div(d0, n);
	case 4:
	case 5:
		at = n + 1;
		break;
	default:
		at = n;
		break;
	}
	*ret_last = at;
	return d0 < at && at <= d1;
}

/* The instant at which the channel has counted @d clocks. */
static int64_t instant_of(const struct gclk_pit_channel *ch, int64_t d)
{
	return gclk_tick_ceil(gclk_ticks_by(ch->load_time_ns, HZ) + d, HZ);
}

static void count_on(const struct gclk_pit *pit, unsigned n, int64_t t0, int64_t t1,
		     struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[n];
	int64_t last = 0, count;

	if (at_rest(f, ch) || ch->held_ticks >= 0 || t1 <= t0) {
		line->level = output(pit, n, t1);
		return;
	}
	count = rises_of(f, ch, elapsed(pit, n, t0), elapsed(pit, n, t1), &last);
	gclk_line_rise(line, (uint64_t)count, instant_of(ch, last));
	line->level = output(pit, n, t1);
}

/* The clocks into a period at which a count that waited for its end begins. */
static int64_t phase_after_load(const struct gclk_pit_dialect *f,
				const struct gclk_pit_channel *ch, uint8_t out_after)
{
	return out_mode(f, ch) == 3 && !out_after ? (reload(f, ch) + 1) / 2 : 0;
}

/* Takes over the written count at its instant. */
static void load_pending(struct gclk_pit *pit, unsigned n)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];
	int64_t at = ch->pending_at_ns, tick = gclk_ticks_by(at, HZ);
	uint8_t out = output(pit, n, at);

	ch->count = ch->pending_count;
	if (ch->triggered && ch->held_ticks < 0) {
		tick -= phase_after_load(f, ch, out);
	}
	ch->load_time_ns = gclk_tick_ceil(tick, HZ);
	ch->held_ticks = f->gate_stops && !ch->gate && !waits_for_gate(out_mode(f, ch)) ? 0 : -1;
	ch->triggered = 1;
	ch->pending_count = 0;
	ch->pending_at_ns = GCLK_TIMER_OFF;
	ch->null_count = 0;
}

static void advance_counting(struct gclk_pit *pit, unsigned n, int64_t t0, int64_t t,
			     struct gclk_line *line)
{
	struct gclk_pit_channel *ch = &pit->channels[n];
	int64_t at = ch->pending_at_ns;

	if (ch->pending_count && at != GCLK_TIMER_OFF && at <= t) {
		count_on(pit, n, t0, at, line);
		load_pending(pit, n);
		gclk_line_set(line, output(pit, n, at), at);
		t0 = at;
	}
	count_on(pit, n, t0, t, line);
}

/* ---- KVM's timer of channel 0 ---- */

/* Pulses after the load, by @t. */
static int64_t kernel_pulses(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
			     int64_t t)
{
	int64_t since = gclk_sub(t, ch->load_time_ns), p = kernel_period_ns(f, ch);

	switch (ch->mode) {
	case 0:
	case 1:
	case 4:
		return since >= p;
	case 2:
	case 3:
		return since < 0 ? 0 : since / p;
	default:
		return 0;
	}
}

/* The first pulse after @t. */
static int64_t next_pulse(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
			  int64_t t)
{
	int64_t k = kernel_pulses(f, ch, t);

	if (ch->mode > 4 || (k && !is_periodic(ch->mode))) {
		return GCLK_TIMER_OFF;
	}
	return gclk_add(ch->load_time_ns, gclk_clip((gclk_i128)(k + 1) * kernel_period_ns(f, ch)));
}

/* The data sheet's next rise from the state as it stands, not after @until. */
static int64_t next_count_up(const struct gclk_pit *pit, int64_t t, int64_t until)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t n = reload(f, ch), d, at = -1;

	if (at_rest(f, ch) || ch->held_ticks >= 0) {
		return GCLK_TIMER_OFF;
	}
	d = elapsed(pit, 0, t);
	switch (out_mode(f, ch)) {
	case 2:
	case 3:
		at = n > 1 ? (gclk_floor_div(d, n) + 1) * n : -1;
		break;
	case 4:
	case 5:
		at = d < n + 1 ? n + 1 : -1;
		break;
	default:
		at = d < n ? n : -1;
		break;
	}
	if (at < 0 || instant_of(ch, at) > until) {
		return GCLK_TIMER_OFF;
	}
	return instant_of(ch, at);
}

/* ... or from the count that is still to be loaded. */
static int64_t next_up(const struct gclk_pit *pit, int64_t t)
{
	struct gclk_pit copy = *pit;
	int64_t at = pit->channels[0].pending_at_ns, edge;
	struct gclk_line line;

	if (pit->channels[0].pending_count && at != GCLK_TIMER_OFF) {
		edge = next_count_up(pit, t, at);
		if (edge != GCLK_TIMER_OFF) {
			return edge;
		}
		gclk_line_begin(&line, output(pit, 0, t));
		advance_counting(&copy, 0, t, at, &line);
		if (line.rises) {
			return line.last_rise_ns;
		}
		t = at;
	}
	return next_count_up(&copy, t, INT64_MAX);
}

/* ---- advancing ---- */

/*
 * In every dialect next_transition_ns is when IRQ0 next does something: QEMU's next
 * visit, else the next rise. So a state says by itself which rises are past.
 */
static void plan_rise(struct gclk_pit *pit, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[0];

	if (!f->steps_by_timer) {
		GCLK_SET(pit_channel, ch, next_transition_ns,
			 f->period_in_ns ? next_pulse(f, ch, t) : next_up(pit, t));
	}
}

static void begin(const struct gclk_pit *pit, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	uint8_t level = 0;

	if (f->steps_by_timer) {
		level = GCLK_HAS(pit_channel, ch, irq_level) ? ch->irq_level : level_before(f, ch);
	} else if (!f->period_in_ns) {
		level = ch->irq_level;
	}
	gclk_line_begin(line, level);
}

static void advance_by_timer(struct gclk_pit *pit, int64_t t, struct gclk_line *line)
{
	struct gclk_pit_channel *ch = &pit->channels[0];

	if (!pit->irq_disabled) {
		step_timer(facts_of(pit), ch, t, line);
	}
	GCLK_SET(pit_channel, ch, irq_level, line->level);
}

static void advance_pulses(struct gclk_pit *pit, int64_t from, int64_t t, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t k = kernel_pulses(f, ch, t);

	if (!pit->irq_disabled) {
		gclk_line_rise(line, (uint64_t)(k - kernel_pulses(f, ch, from)),
			       gclk_add(ch->load_time_ns,
					gclk_clip((gclk_i128)k * kernel_period_ns(f, ch))));
	}
}

static void advance_outputs(struct gclk_pit *pit, int64_t from, int64_t t, struct gclk_line *line)
{
	struct gclk_line unused;

	advance_counting(pit, 0, from, t, line);
	GCLK_SET(pit_channel, &pit->channels[0], irq_level, line->level);
	if (pit->irq_disabled) {
		gclk_line_begin(line, 0);
	}
	for (unsigned n = 1; n < GCLK_PIT_CHANNELS; n++) {
		gclk_line_begin(&unused, 0);
		advance_counting(pit, n, from, t, &unused);
	}
}

static void advance(struct gclk_pit *pit, int64_t t, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t from = t;

	begin(pit, line);
	if (f->steps_by_timer) {
		advance_by_timer(pit, t, line);
		return;
	}
	if (!GCLK_HAS(pit_channel, ch, next_transition_ns)) {
		from = ch->load_time_ns;
	} else if (is_due(ch, t)) {
		from = gclk_sub(ch->next_transition_ns, 1);
	}
	if (f->period_in_ns) {
		advance_pulses(pit, from, t, line);
	} else {
		advance_outputs(pit, from, t, line);
	}
	plan_rise(pit, t);
}

GCLK_API void gclk_pit_advance(struct gclk_pit *pit, int64_t t, struct gclk_line *irq0)
{
	struct gclk_line line;

	advance(pit, t, &line);
	gclk_line_give(&line, irq0);
}

/* ---- pure answers ---- */

/* The channel as it is once a count that is due by @t has been loaded. */
static void load_if_due(struct gclk_pit *copy, unsigned n, int64_t t)
{
	const struct gclk_pit_channel *ch = &copy->channels[n];

	if (facts_of(copy)->loads_on_clock && ch->pending_count &&
	    ch->pending_at_ns != GCLK_TIMER_OFF && ch->pending_at_ns <= t) {
		load_pending(copy, n);
	}
}

GCLK_API uint16_t gclk_pit_count_at(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	struct gclk_pit copy = *pit;

	load_if_due(&copy, n, t);
	return counting_element(&copy, n, t);
}

GCLK_API int gclk_pit_out_at(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	struct gclk_pit copy = *pit;

	load_if_due(&copy, n, t);
	return output(&copy, n, t);
}

GCLK_API uint64_t gclk_pit_edges(const struct gclk_pit *pit, int64_t t0, int64_t t1)
{
	struct gclk_pit copy = *pit;
	struct gclk_line line;

	if (t1 <= t0) {
		return 0;
	}
	advance(&copy, t0, &line);
	advance(&copy, t1, &line);
	return line.rises;
}

/* QEMU: visits on until the line rises; a periodic mode does so within six. */
static int64_t next_visit_up(struct gclk_pit *copy)
{
	const struct gclk_pit_dialect *f = facts_of(copy);
	struct gclk_pit_channel *ch = &copy->channels[0];
	struct gclk_line line;

	begin(copy, &line);
	for (unsigned i = 0; i < 8 && ch->next_transition_ns != GCLK_TIMER_OFF; i++) {
		visit(f, ch, &line);
		if (line.rises) {
			return line.last_rise_ns;
		}
	}
	return GCLK_TIMER_OFF;
}

GCLK_API int64_t gclk_pit_next_edge(const struct gclk_pit *pit, int64_t t)
{
	struct gclk_pit copy = *pit;

	if (pit->irq_disabled) {
		return GCLK_TIMER_OFF;
	}
	gclk_pit_advance(&copy, t, NULL);
	return facts_of(pit)->steps_by_timer ? next_visit_up(&copy)
					     : copy.channels[0].next_transition_ns;
}

GCLK_API int64_t gclk_pit_last_edge(const struct gclk_pit *pit, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t n = reload(f, ch), k, last;

	if (f->period_in_ns) {
		k = kernel_pulses(f, ch, t);
		return k ? gclk_add(ch->load_time_ns,
				    gclk_clip((gclk_i128)k * kernel_period_ns(f, ch)))
			 : GCLK_TIMER_OFF;
	}
	if (f->steps_by_timer && out_mode(f, ch) == 2) {
		/* a count of 1 goes up at its first visit and stays */
		k = n > 1 ? last_rise(planned_by(ch, t), n, 1) : planned_by(ch, t) >= 2;
		return k < 1 ? GCLK_TIMER_OFF
			     : gclk_add(ch->load_time_ns, gclk_tick_floor(k * n + 1, HZ));
	}
	if (at_rest(f, ch) || (f->steps_by_timer && out_mode(f, ch) == 1)) {
		return GCLK_TIMER_OFF;
	}
	if (f->steps_by_timer && out_mode(f, ch) >= 4) {
		last = elapsed(pit, 0, t) >= n ? n : 0;
	} else if (rises_of(f, ch, 0, elapsed(pit, 0, t), &last) <= 0) {
		last = 0;
	}
	if (last == 0) {
		return GCLK_TIMER_OFF;
	}
	return f->loads_on_clock ? instant_of(ch, last)
				 : gclk_add(ch->load_time_ns, gclk_tick_ceil(last, HZ));
}

GCLK_API int64_t gclk_pit_transition_after(const struct gclk_pit *pit, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit copy = *pit;

	if (!f->steps_by_timer) {
		return gclk_pit_next_edge(pit, t);
	}
	gclk_pit_advance(&copy, t, NULL);
	return copy.channels[0].next_transition_ns;
}

GCLK_API int64_t gclk_pit_transition_raising(const struct gclk_pit *pit, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t n = reload(f, ch), rise = gclk_pit_last_edge(pit, t), fall, k;

	if (!f->steps_by_timer) {
		return rise;
	}
	if (rise == GCLK_TIMER_OFF || !is_due(ch, rise)) {
		return GCLK_TIMER_OFF;
	}
	if (!is_periodic(out_mode(f, ch)) || n == 1) {
		return rise;
	}
	/* begin with the fall before it: an input that is still up sees no edge */
	k = gclk_ticks_by(gclk_sub(rise, ch->load_time_ns), HZ);
	if (out_mode(f, ch) == 2) {
		fall = gclk_add(ch->load_time_ns, gclk_tick_floor(k - k % n, HZ));
	} else {
		fall = gclk_add(ch->load_time_ns, gclk_tick_ceil(k - n + (n + 1) / 2, HZ));
	}
	return is_due(ch, fall) ? fall : rise;
}

GCLK_API void gclk_pit_cadence(const struct gclk_pit *pit, struct gclk_cadence *ret)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[0];
	int64_t n = reload(f, ch);

	*ret = (struct gclk_cadence){ .period_den = 1 };
	if (ch->count == 0 || pit->irq_disabled || at_rest(f, ch)) {
		return;
	}
	if (!is_periodic(out_mode(f, ch))) {
		ret->armed = ch->next_transition_ns != GCLK_TIMER_OFF &&
			     gclk_pit_next_edge(pit, gclk_sub(ch->next_transition_ns, 1)) !=
				     GCLK_TIMER_OFF;
		return;
	}
	if (f->steps_by_timer && (ch->next_transition_ns == GCLK_TIMER_OFF || n == 1)) {
		return;
	}
	ret->armed = 1;
	ret->periodic = 1;
	if (f->period_in_ns) {
		ret->period_num = (uint64_t)kernel_period_ns(f, ch);
	} else {
		ret->period_num = (uint64_t)n * (uint64_t)GCLK_NS_PER_S;
		ret->period_den = HZ;
	}
}

/* ---- register access ---- */

static void set_output(struct gclk_pit *pit, unsigned n, int64_t t, struct gclk_line *line)
{
	if (n == 0 && !facts_of(pit)->period_in_ns && !facts_of(pit)->steps_by_timer) {
		pit->channels[0].irq_level = output(pit, 0, t);
		if (!pit->irq_disabled) {
			gclk_line_set(line, pit->channels[0].irq_level, t);
		}
	}
}

/* Starts channel 0's timer at @t from what it counts now. */
static void restart_timer(struct gclk_pit *pit, unsigned n, int64_t t, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];

	if (n == 0 && f->steps_by_timer && !pit->irq_disabled) {
		gclk_line_set(line, look(f, ch, t), t);
		ch->irq_level = line->level;
	}
}

/* The next CLK after @t. */
static int64_t next_clock(int64_t t)
{
	return gclk_tick_ceil(gclk_ticks_by(t, HZ) + 1, HZ);
}

/* When a count written at @t is loaded. */
static int64_t load_instant(const struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	const struct gclk_pit_channel *ch = &pit->channels[n];
	unsigned mode = out_mode(f, ch);
	int64_t d, c = reload(f, ch), half = (c + 1) / 2, left;

	if (waits_for_gate(mode)) {
		return GCLK_TIMER_OFF;
	}
	if (!is_periodic(mode) || !ch->triggered) {
		return next_clock(t);
	}
	if (ch->held_ticks >= 0) {
		return GCLK_TIMER_OFF;
	}
	d = gclk_floor_mod(elapsed(pit, n, t), c);
	left = mode == 3 && d < half ? half - d : c - d;
	return gclk_tick_ceil(gclk_ticks_by(t, HZ) + left, HZ);
}

/* KVM's channel 0 counts by its timer, and mode 5 has none: it goes on from the last one's start. */
static bool has_timer(const struct gclk_pit_dialect *f, const struct gclk_pit_channel *ch,
		      unsigned n)
{
	return n != 0 || !f->period_in_ns || ch->mode <= 4;
}

/* Counting begins at @t. A timer that is too fast is stretched after its first period only. */
static void start_timer(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch, unsigned n,
			int64_t t)
{
	if (!has_timer(f, ch, n)) {
		return;
	}
	ch->load_time_ns = t;
	ch->held_ticks = -1;
	if (n == 0 && f->period_in_ns) {
		ch->load_time_ns = gclk_sub(t, kernel_period_ns(f, ch) -
						       gclk_tick_floor(reload(f, ch), KERNEL_HZ));
	}
}

/* ... which was the beginning of a period. */
static void keep_phase(const struct gclk_pit_dialect *f, struct gclk_pit_channel *ch, int64_t t)
{
	if (f->period_in_ns && is_periodic(ch->mode) && ch->held_ticks < 0) {
		ch->load_time_ns = gclk_add(ch->load_time_ns,
					    gclk_clip((gclk_i128)kernel_pulses(f, ch, t) *
						      kernel_period_ns(f, ch)));
	}
}

static void write_count(struct gclk_pit *pit, unsigned n, uint32_t value, int64_t t,
			struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];

	value = value ? value : 65536;
	if (!f->loads_on_clock) {
		ch->count = value;
		start_timer(f, ch, n, t);
		restart_timer(pit, n, t, line);
		return;
	}
	ch->pending_at_ns = load_instant(pit, n, t);
	ch->pending_count = value;
	ch->null_count = 1;
	if (out_mode(f, ch) == 0) {
		ch->triggered = 0;	/* OUT is low until the new count has run down */
		set_output(pit, n, t, line);
	}
}

static void write_channel(struct gclk_pit *pit, unsigned n, uint8_t value, int64_t t,
			  struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];

	switch (ch->write_state) {
	case MSB:
		write_count(pit, n, (uint32_t)value << 8, t, line);
		break;
	case WORD:
		ch->write_latch = value;
		ch->write_state = WORD_HIGH;
		if (f->loads_on_clock && out_mode(f, ch) == 0) {
			ch->triggered = 0;	/* the first byte stops the count */
			ch->pending_count = 0;
			set_output(pit, n, t, line);
		}
		break;
	case WORD_HIGH:
		ch->write_state = WORD;
		write_count(pit, n, ch->write_latch | (uint32_t)value << 8, t, line);
		break;
	default:
		write_count(pit, n, value, t, line);
		break;
	}
}

static void latch_count(struct gclk_pit *pit, unsigned n, int64_t t)
{
	struct gclk_pit_channel *ch = &pit->channels[n];

	if (!ch->count_latched) {
		ch->latched_count = counting_element(pit, n, t);
		ch->count_latched = ch->rw_mode;
	}
}

static void latch_status(struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];

	if (!ch->status_latched) {
		ch->status = (uint8_t)(output(pit, n, t) << 7 |
				       (f->loads_on_clock && ch->null_count) << 6 |
				       ch->rw_mode << 4 | ch->mode << 1 | ch->bcd);
		ch->status_latched = 1;
	}
}

static void write_control(struct gclk_pit *pit, uint8_t value, int64_t t, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[value >> 6];

	if (!(value >> 4 & 3)) {
		latch_count(pit, value >> 6, t);
		return;
	}
	if (value >> 6 == 0) {
		keep_phase(f, ch, t);
	}
	ch->rw_mode = ch->read_state = ch->write_state = value >> 4 & 3;
	ch->mode = value >> 1 & 7;
	if (ch->mode > 5 && f->modes_6_7_alias) {
		ch->mode -= 4;
	}
	ch->bcd = value & 1;
	if (f->loads_on_clock) {
		ch->triggered = 0;
		ch->pending_count = 0;
		ch->pending_at_ns = GCLK_TIMER_OFF;
		ch->held_ticks = -1;
		ch->null_count = 1;
		ch->count_latched = 0;
		set_output(pit, value >> 6, t, line);
	}
}

static void read_back(struct gclk_pit *pit, uint8_t value, int64_t t)
{
	for (unsigned n = 0; n < GCLK_PIT_CHANNELS; n++) {
		if (!(value >> (n + 1) & 1)) {
			continue;
		}
		if (!(value & 0x20)) {
			latch_count(pit, n, t);
		}
		if (!(value & 0x10)) {
			latch_status(pit, n, t);
		}
	}
}

static void gate_falls(struct gclk_pit *pit, unsigned n, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];

	if (f->gate_stops && !waits_for_gate(out_mode(f, ch)) && ch->triggered &&
	    ch->held_ticks < 0) {
		ch->held_ticks = elapsed(pit, n, t);
		if (is_periodic(out_mode(f, ch))) {
			ch->pending_at_ns = GCLK_TIMER_OFF;	/* now it waits for the gate */
		}
	}
}

static void gate_rises(struct gclk_pit *pit, unsigned n, int64_t t, struct gclk_line *line)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[n];
	unsigned mode = out_mode(f, ch);

	if (!f->loads_on_clock) {
		if (waits_for_gate(mode) || is_periodic(mode)) {
			ch->load_time_ns = t;
			restart_timer(pit, n, t, line);
		}
		return;
	}
	if (waits_for_gate(mode) || (is_periodic(mode) && ch->triggered)) {
		if (!ch->pending_count) {
			ch->pending_count = ch->count;
		}
		ch->pending_at_ns = next_clock(t);
		if (!ch->null_count && !ch->triggered && !ch->count) {
			ch->pending_count = 0;	/* nothing was ever written */
		}
	} else if (ch->held_ticks >= 0) {
		ch->load_time_ns = gclk_tick_ceil(gclk_ticks_by(t, HZ) - ch->held_ticks, HZ);
		ch->held_ticks = -1;
	}
}

static void set_gate(struct gclk_pit *pit, unsigned n, uint8_t level, int64_t t,
		     struct gclk_line *line)
{
	struct gclk_pit_channel *ch = &pit->channels[n];

	if (ch->gate && !level) {
		gate_falls(pit, n, t);
	}
	if (!ch->gate && level) {
		gate_rises(pit, n, t, line);
	}
	ch->gate = level;
}

GCLK_API void gclk_pit_write(struct gclk_pit *pit, uint16_t port, uint8_t value, int64_t t,
			     struct gclk_line *irq0)
{
	struct gclk_line line;

	advance(pit, t, &line);
	if (port == 0x61) {
		pit->speaker_data = value >> 1 & 1;
		set_gate(pit, 2, value & 1, t, &line);
	} else if ((port & 3) != 3) {
		write_channel(pit, port & 3, value, t, &line);
	} else if (value >> 6 == 3) {
		read_back(pit, value, t);
	} else {
		write_control(pit, value, t, &line);
	}
	plan_rise(pit, t);
	gclk_line_give(&line, irq0);
}

/* The byte that @state selects of @count, and the state after it. */
static uint8_t take_byte(uint8_t *state, uint16_t count)
{
	uint8_t byte = (uint8_t)(*state == MSB || *state == WORD_HIGH ? count >> 8 : count);

	*state = *state == WORD ? WORD_HIGH : *state == WORD_HIGH ? WORD : *state;
	return byte;
}

static uint8_t read_channel(struct gclk_pit *pit, unsigned n, int64_t t)
{
	struct gclk_pit_channel *ch = &pit->channels[n];
	uint8_t value;

	if (ch->status_latched) {
		ch->status_latched = 0;
		return ch->status;
	}
	if (!ch->count_latched) {
		return take_byte(&ch->read_state, counting_element(pit, n, t));
	}
	value = (uint8_t)(ch->count_latched == MSB ? ch->latched_count >> 8 : ch->latched_count);
	ch->count_latched = ch->count_latched == WORD ? MSB : 0;
	return value;
}

static uint8_t read_port_61(struct gclk_pit *pit, int64_t t)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	uint8_t refresh;

	if (f->refresh_by_read) {
		/* stored as the bit of the port */
		pit->dummy_refresh_clock = !pit->dummy_refresh_clock;
		refresh = pit->dummy_refresh_clock;
	} else {
		refresh = (uint8_t)((uint64_t)t >> f->refresh_shift & 1);
	}
	return (uint8_t)(pit->channels[2].gate | pit->speaker_data << 1 | refresh << 4 |
			 output(pit, 2, t) << 5);
}

GCLK_API uint8_t gclk_pit_read(struct gclk_pit *pit, uint16_t port, int64_t t,
			       struct gclk_line *irq0)
{
	gclk_pit_advance(pit, t, irq0);
	if (port == 0x61) {
		return read_port_61(pit, t);
	}
	return (port & 3) == 3 ? 0 : read_channel(pit, port & 3, t);
}

GCLK_API uint8_t gclk_pit_peek(const struct gclk_pit *pit, uint16_t port, int64_t t)
{
	struct gclk_pit copy = *pit;

	return gclk_pit_read(&copy, port, t, NULL);
}

GCLK_API void gclk_pit_silence(struct gclk_pit *pit, int silent, int64_t t,
			       struct gclk_line *irq0)
{
	const struct gclk_pit_dialect *f = facts_of(pit);
	struct gclk_pit_channel *ch = &pit->channels[0];
	bool was_silent = pit->irq_disabled != 0;
	struct gclk_line line;

	advance(pit, t, &line);
	GCLK_SET(pit, pit, irq_disabled, silent != 0);
	line.level = 0;		/* of the line, while it is cut off */
	if (f->steps_by_timer) {
		ch->irq_level = 0;
	}
	if (was_silent && !silent && f->period_in_ns) {
		start_timer(f, ch, 0, t);	/* the kernel reloads from the count */
	} else if (was_silent && !silent && f->steps_by_timer) {
		restart_timer(pit, 0, t, &line);
	} else if (!silent) {
		gclk_line_set(&line, ch->irq_level, t);
	}
	plan_rise(pit, t);
	gclk_line_give(&line, irq0);
}

GCLK_API void gclk_pit_lowered(struct gclk_pit *pit)
{
	if (facts_of(pit)->steps_by_timer) {
		pit->channels[0].irq_level = 0;
	}
}

/* ---- lifecycle ---- */

GCLK_API void gclk_pit_init(struct gclk_pit *pit, enum gclk_dialect dialect, int64_t t)
{
	const struct gclk_pit_dialect *f = &dialects[dialect];

	*pit = (struct gclk_pit){ .dialect = (uint8_t)dialect };
	pit->has = (UINT64_C(1) << gclk_pit_n_fields) - 1;
	GCLK_UNSET(pit, pit, reinject);
	for (unsigned n = 0; n < GCLK_PIT_CHANNELS; n++) {
		struct gclk_pit_channel *ch = &pit->channels[n];

		ch->has = (UINT64_C(1) << gclk_pit_channel_n_fields) - 1;
		ch->mode = f->reset_mode;
		ch->count = 65536;
		ch->gate = n != 2;
		ch->load_time_ns = t;
		ch->next_transition_ns = GCLK_TIMER_OFF;
		ch->pending_at_ns = GCLK_TIMER_OFF;
		ch->held_ticks = -1;
	}
	if (f->period_in_ns) {
		pit->channels[0].held_ticks = 0;	/* no timer has run yet */
	}
	if (f->steps_by_timer) {
		/* the output is up from the start, but no one is told before the first visit */
		look(f, &pit->channels[0], t);
	}
	pit->in_kernel = f->period_in_ns;
}

static int validate_channel(const struct gclk_pit *pit, unsigned n, struct gclk_error *reterr)
{
	const struct gclk_pit_channel *ch = &pit->channels[n];

	if (GCLK_HAS(pit_channel, ch, mode) && ch->mode > 7 && ch->mode != NEVER_MODE) {
		return gclk_fail(reterr, GCLK_RANGE, "pit.channels.mode", GCLK_NO_OFFSET,
				 "channel %u has mode %u; 0..7 and 255 exist", n, ch->mode);
	}
	if (ch->count_latched == WORD_HIGH) {
		return gclk_fail(reterr, GCLK_RANGE, "pit.channels.count_latched",
				 GCLK_NO_OFFSET, "channel %u: 4 is not an access mode", n);
	}
	if (ch->has && ch->count == 0) {
		return gclk_fail(reterr, GCLK_RANGE, "pit.channels.count", GCLK_NO_OFFSET,
				 "channel %u has no count, or 0; 0 as written stands as 65536", n);
	}
	return 0;
}

GCLK_API int gclk_pit_validate(const struct gclk_pit *pit, struct gclk_error *reterr)
{
	int r = gclk_record_validate(&gclk_pit_record, pit, "pit", reterr);

	for (unsigned n = 0; r == 0 && n < GCLK_PIT_CHANNELS; n++) {
		r = validate_channel(pit, n, reterr);
	}
	return r;
}
