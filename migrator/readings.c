/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/calendar.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/readings.h"

#define VCPUS_SHOWN 4 /* beyond, one line stands for the rest */
#define TIMERS_SHOWN 6

struct taking {
	const struct gclk_state *state;
	const struct gclk_instant *captured;
	struct readings *out;
	bool has_axis;
	int64_t axis_ns; /* the shared axis at the capture */
};

static struct reading *add(struct taking *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static struct reading *add(struct taking *t, const char *format, ...)
{
	static struct reading nowhere;
	struct readings *out = t->out;
	struct reading *r;
	va_list args;

	if (out->n == out->max) {
		unsigned max = out->max ? 2 * out->max : 32;

		r = realloc(out->items, max * sizeof(*r));
		if (!r) {
			out->no_memory = 1;
			return &nowhere;
		}
		out->items = r;
		out->max = max;
	}
	r = &out->items[out->n++];
	memset(r, 0, sizeof(*r));
	va_start(args, format);
	vsnprintf(r->clock, sizeof(r->clock), format, args);
	va_end(args);
	return r;
}

static void say(char to[TEXT_BYTES], const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void say(char to[TEXT_BYTES], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(to, TEXT_BYTES, format, args);
	va_end(args);
}

/* Readings of such clocks can be subtracted. */
static void count(struct reading *r, uint64_t value, uint64_t hz, uint64_t den)
{
	r->counts = 1;
	r->value = value;
	r->hz = hz;
	r->hz_den = den;
}

/* @at on an axis that reads @now. */
static void arm(struct reading *r, int64_t at, int64_t now)
{
	if (at != GCLK_TIMER_OFF) {
		r->armed = 1;
		r->next_ns = gclk_sub_sat(at, now);
	}
}

/*
 * An expiry that had not been delivered at the stop, a moment after its time: it comes with
 * the resume, before the next one.
 */
static int64_t first_of(int64_t saved, int64_t next, int64_t now)
{
	return saved >= 0 && saved < now && next != GCLK_TIMER_OFF ? saved : next;
}

/* The earlier of two expiries, either of which may be off. */
static int64_t sooner(int64_t a, int64_t b)
{
	return a == GCLK_TIMER_OFF ? b : b == GCLK_TIMER_OFF ? a : GCLK_MIN(a, b);
}

static void repeat(struct reading *r, const struct gclk_cadence *cadence)
{
	if (cadence->periodic && cadence->period_den) {
		r->period_ns = cadence->period_num / cadence->period_den;
	}
}

static void read_one_tsc(struct taking *t, uint32_t i)
{
	const struct gclk_tsc *tsc = &t->state->tsc[i];
	struct reading *r =
		add(t, "tsc[%" PRIu32 "]", GCLK_HAS(tsc, tsc, vcpu) ? tsc->vcpu : i);
	char ticks[TEXT_BYTES];

	say(r->reads, "%.40s ticks", text_count(ticks, tsc->value_ticks));
	count(r, tsc->value_ticks, tsc->frequency_hz,
	      GCLK_HAS(tsc, tsc, frequency_den) ? tsc->frequency_den : 1);
	if (GCLK_HAS(tsc, tsc, frequency_hz)) {
		text_hz(r->rate, r->hz, r->hz_den);
	} else {
		say(r->rate, "its host's");
	}
}

/* Those that were not shown: how far they are from the first. */
static void read_other_tscs(struct taking *t, uint32_t from)
{
	int64_t low = 0, high = 0;
	char a[TEXT_BYTES], b[TEXT_BYTES];
	struct reading *r;

	for (uint32_t i = from; i < t->state->n_vcpus; i++) {
		int64_t d = (int64_t)(t->state->tsc[i].value_ticks -
				      t->state->tsc[0].value_ticks);

		low = GCLK_MIN(low, d);
		high = GCLK_MAX(high, d);
	}
	r = add(t, "tsc[%" PRIu32 "..%" PRIu32 "]", from, t->state->n_vcpus - 1);
	say(r->reads, "%.30s to %.30s ticks from tsc[0]", text_signed(a, low),
	    text_signed(b, high));
}

static uint32_t vcpus_shown(const struct gclk_state *state)
{
	return state->n_vcpus <= VCPUS_SHOWN ? state->n_vcpus : 1;
}

static void read_tscs(struct taking *t)
{
	uint32_t shown = vcpus_shown(t->state);

	for (uint32_t i = 0; i < shown; i++) {
		if (GCLK_HAS(tsc, &t->state->tsc[i], value_ticks)) {
			read_one_tsc(t, i);
		}
	}
	if (shown < t->state->n_vcpus && GCLK_HAS(tsc, &t->state->tsc[0], value_ticks)) {
		read_other_tscs(t, shown);
	}
}

static void read_ns_clocks(struct taking *t)
{
	const struct gclk_kvmclock *kvmclock = &t->state->kvmclock;
	struct reading *r;

	if (GCLK_HAS(kvmclock, kvmclock, clock_ns)) {
		r = add(t, "kvmclock");
		text_span(r->reads,
			  (int64_t)GCLK_MIN(kvmclock->clock_ns, (uint64_t)INT64_MAX));
		say(r->rate, "1 GHz");
		count(r, kvmclock->clock_ns, GCLK_NS_PER_S, 1);
		if (GCLK_HAS(kvmclock, kvmclock, reliable) && !kvmclock->reliable) {
			say(r->note, "recomputed from the guest's page when loaded");
		}
	}
	if (t->has_axis) {
		r = add(t, "virtual_clock");
		text_span(r->reads, t->axis_ns);
		count(r, (uint64_t)t->axis_ns, GCLK_NS_PER_S, 1);
		say(r->rate, "1 GHz");
	}
}

/* How well the RTC's own axis at the capture is known. */
enum rtc_axis { RTC_UNKNOWN, RTC_COARSE, RTC_KNOWN };

static enum rtc_axis rtc_now(const struct taking *t, int64_t *ret)
{
	const struct gclk_rtc *rtc = &t->state->rtc;
	uint8_t axis = GCLK_HAS(rtc, rtc, axis) ? rtc->axis : GCLK_AXIS_GUEST;

	if (axis == GCLK_AXIS_GUEST) {
		*ret = t->axis_ns;
		return t->has_axis ? RTC_KNOWN : RTC_UNKNOWN;
	}
	*ret = t->captured->ns;
	if (axis != GCLK_AXIS_REALTIME || !t->captured->ns) {
		return RTC_UNKNOWN;
	}
	return t->captured->uncertainty_ns == GCLK_UNBOUNDED ? RTC_COARSE : RTC_KNOWN;
}

static void say_rtc_time(struct reading *r, const struct gclk_rtc *rtc, int64_t now)
{
	static const char *const days[] = { "Sun", "Mon", "Tue", "Wed",
					    "Thu", "Fri", "Sat" };
	int64_t below = 0, s = gclk_rtc_seconds_at(rtc, now, &below);
	struct gclk_civil c;

	count(r, (uint64_t)s * GCLK_NS_PER_S + (uint64_t)below, GCLK_NS_PER_S, 1);
	if (gclk_civil_from_seconds(s, &c) < 0) {
		say(r->reads, "%" PRId64 " s since 1970", s);
		return;
	}
	say(r->reads, "%s %04" PRId32 "-%02u-%02u %02u:%02u:%02u.%03u",
	    days[gclk_weekday_from_days(gclk_days_from_civil(c.year, c.month, c.day))],
	    c.year, c.month, c.day, c.hour, c.minute, c.second,
	    (unsigned)(below / 1000000));
}

#define RTC_B_UIE 0x10
#define RTC_B_AIE 0x20
#define RTC_B_PIE 0x40

static void read_rtc(struct taking *t)
{
	const struct gclk_rtc *rtc = &t->state->rtc;
	struct gclk_cadence cadence = { 0 };
	struct reading *r;
	enum rtc_axis known;
	uint8_t reg_b = rtc->cmos[0x0b];
	int64_t now, next = GCLK_TIMER_OFF;

	if (!rtc->has) {
		return;
	}
	r = add(t, "rtc");
	say(r->rate, "1 Hz");
	known = rtc_now(t, &now);
	if (known == RTC_UNKNOWN) {
		say(r->reads, "(needs the instant of the capture)");
		return;
	}
	say_rtc_time(r, rtc, now);
	if (known == RTC_COARSE) {
		say(r->note, "to the second");
		r->counts = 0;
		return;
	}
	if (!gclk_rtc_is_running(rtc)) {
		say(r->note, "stopped");
	}
	if (reg_b & RTC_B_PIE) {
		next = gclk_rtc_periodic_next(rtc, now);
		gclk_rtc_cadence(rtc, &cadence);
		repeat(r, &cadence);
	}
	if (reg_b & RTC_B_AIE) {
		next = sooner(next, gclk_rtc_alarm_next(rtc, now));
		say(r->note, "alarm set");
	}
	if (reg_b & RTC_B_UIE) {
		next = sooner(next, gclk_rtc_update_next(rtc, now));
	}
	arm(r, next, now);
	if (GCLK_HAS(rtc, rtc, owed_ticks) && rtc->owed_ticks) {
		say(r->note, "owes %" PRIu32 " ticks", rtc->owed_ticks);
	}
}

#define PIT_UNPROGRAMMED 255

static void read_pit_channel(struct taking *t, unsigned n)
{
	const struct gclk_pit *pit = &t->state->pit;
	const struct gclk_pit_channel *channel = &pit->channels[n];
	struct gclk_cadence cadence = { 0 };
	struct reading *r = add(t, "pit[%u]", n);
	char ticks[TEXT_BYTES], reload[TEXT_BYTES];
	int64_t next;

	say(r->reads, "%.12s of %.12s, mode %u",
	    text_count(ticks, gclk_pit_count_at(pit, n, t->axis_ns)),
	    text_count(reload, channel->count), channel->mode);
	say(r->rate, "1.193182 MHz");
	if (n) {
		return;
	}
	gclk_pit_cadence(pit, &cadence);
	repeat(r, &cadence);
	next = gclk_pit_next_edge(pit, t->axis_ns);
	if (GCLK_HAS(pit_channel, channel, next_transition_ns) && !pit->in_kernel &&
	    !pit->irq_disabled) {
		next = first_of(channel->next_transition_ns, next, t->axis_ns);
	}
	arm(r, next, t->axis_ns);
	if (pit->irq_disabled) {
		r->silent = 1;
		say(r->note, "silenced by the HPET");
	} else if (pit->in_kernel) {
		say(r->note, "restarts at the resume");
	}
}

static void read_pit(struct taking *t)
{
	const struct gclk_pit *pit = &t->state->pit;

	if (!pit->has || !t->has_axis) {
		return;
	}
	for (unsigned n = 0; n < GCLK_PIT_CHANNELS; n++) {
		/* channel 1 refreshed memory once, and interrupts nobody */
		if (n != 1 && GCLK_HAS(pit_channel, &pit->channels[n], count) &&
		    pit->channels[n].mode != PIT_UNPROGRAMMED) {
			read_pit_channel(t, n);
		}
	}
}

#define HPET_ENABLE 1

static void read_hpet_timer(struct taking *t, unsigned n)
{
	const struct gclk_hpet *hpet = &t->state->hpet;
	struct gclk_cadence cadence = { 0 };
	char ticks[TEXT_BYTES];
	struct reading *r;
	int64_t next = gclk_hpet_timer_next(hpet, n, t->axis_ns);

	if (!gclk_hpet_timer_interrupts(hpet, n) || next == GCLK_TIMER_OFF) {
		return;
	}
	r = add(t, "hpet[%u]", n);
	say(r->reads, "until %.40s", text_count(ticks, hpet->timers[n].comparator_ticks));
	gclk_hpet_timer_cadence(hpet, n, &cadence);
	repeat(r, &cadence);
	if (GCLK_HAS(hpet_timer, &hpet->timers[n], expiry_ns)) {
		next = first_of(hpet->timers[n].expiry_ns, next, t->axis_ns);
	}
	arm(r, next, t->axis_ns);
}

static void read_hpet(struct taking *t)
{
	const struct gclk_hpet *hpet = &t->state->hpet;
	bool enabled = hpet->config & HPET_ENABLE;
	char ticks[TEXT_BYTES];
	struct reading *r;

	if (!hpet->has || !t->has_axis || !hpet->period_fs) {
		return;
	}
	r = add(t, "hpet");
	count(r, gclk_hpet_counter_at(hpet, t->axis_ns, NULL), UINT64_C(1000000000000000),
	      hpet->period_fs);
	say(r->reads, "%.40s ticks", text_count(ticks, r->value));
	text_hz(r->rate, UINT64_C(1000000000000000), hpet->period_fs);
	if (!enabled) {
		r->counts = 0;
		say(r->note, "stopped");
		return;
	}
	for (unsigned n = 0; n < hpet->n_timers && n < GCLK_HPET_TIMERS_MAX; n++) {
		read_hpet_timer(t, n);
	}
}

#define LVTT_MODE 0x60000
#define LVTT_DEADLINE 0x40000

static void read_deadline(struct taking *t, struct reading *r, uint32_t i)
{
	const struct gclk_tsc *tsc = &t->state->tsc[i];
	char ticks[TEXT_BYTES];

	say(r->rate, "the TSC's");
	if (!GCLK_HAS(tsc, tsc, deadline_ticks) || !tsc->deadline_ticks) {
		say(r->reads, "no deadline");
		return;
	}
	say(r->reads, "until tsc %.40s", text_count(ticks, tsc->deadline_ticks));
	if (GCLK_HAS(tsc, tsc, frequency_hz) && GCLK_HAS(tsc, tsc, value_ticks)) {
		arm(r, gclk_lapic_deadline_ns(tsc), 0);
	}
}

static void read_counting(struct taking *t, struct reading *r,
			  const struct gclk_lapic *lapic)
{
	struct gclk_cadence cadence = { 0 };
	uint64_t bus_ns = GCLK_HAS(lapic, lapic, bus_ns) ? lapic->bus_ns : 1;
	int64_t next;
	char ticks[TEXT_BYTES], initial[TEXT_BYTES];

	if (lapic->in_kernel && !GCLK_HAS(lapic, lapic, current_count)) {
		say(r->reads, "of %.20s", text_count(initial, lapic->initial_count));
		say(r->note, "restarts at the resume");
	} else {
		say(r->reads, "%.20s of %.20s",
		    text_count(ticks, gclk_lapic_count_at(lapic, t->axis_ns)),
		    text_count(initial, lapic->initial_count));
		next = gclk_lapic_next(lapic, t->axis_ns);
		if (GCLK_HAS(lapic, lapic, expiry_ns)) {
			next = first_of(lapic->expiry_ns, next, t->axis_ns);
		}
		arm(r, next, t->axis_ns);
	}
	text_hz(r->rate, GCLK_NS_PER_S,
		bus_ns * gclk_lapic_divider(lapic->divide_config));
	gclk_lapic_cadence(lapic, &cadence);
	repeat(r, &cadence);
}

/* A LAPIC timer that neither counts nor waits for a deadline. */
static bool lapic_is_idle(const struct gclk_state *state, uint32_t i)
{
	const struct gclk_lapic *lapic = &state->lapic[i];

	if ((lapic->lvt_timer & LVTT_MODE) == LVTT_DEADLINE) {
		return !state->tsc[i].deadline_ticks && !gclk_lapic_interrupts(lapic);
	}
	return !lapic->initial_count;
}

static void read_one_lapic(struct taking *t, uint32_t i)
{
	const struct gclk_lapic *lapic = &t->state->lapic[i];
	struct reading *r = add(t, "lapic[%" PRIu32 "]",
				GCLK_HAS(lapic, lapic, vcpu) ? lapic->vcpu : i);

	if (!gclk_lapic_interrupts(lapic)) {
		r->silent = 1;
		say(r->note, "masked");
	}
	if (lapic_is_idle(t->state, i)) {
		say(r->reads, "idle");
	} else if ((lapic->lvt_timer & LVTT_MODE) == LVTT_DEADLINE) {
		read_deadline(t, r, i);
	} else if (t->has_axis) {
		read_counting(t, r, lapic);
	}
}

static void read_lapics(struct taking *t)
{
	const struct gclk_state *state = t->state;
	uint32_t shown = 0, left = 0;
	bool few = state->n_vcpus <= VCPUS_SHOWN;

	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		if (!state->lapic[i].has) {
			continue;
		}
		if (few || (shown < VCPUS_SHOWN && !lapic_is_idle(state, i))) {
			read_one_lapic(t, i);
			shown++;
		} else {
			left++;
		}
	}
	if (left) {
		say(add(t, "lapic[...]")->reads, "%" PRIu32 " more", left);
	}
}

static void read_pm_timer(struct taking *t)
{
	const struct gclk_pm_timer *pm = &t->state->pm_timer;
	char ticks[TEXT_BYTES];
	struct reading *r;

	if (!pm->has || !t->has_axis) {
		return;
	}
	r = add(t, "pm_timer");
	say(r->reads, "%.20s ticks", text_count(ticks, gclk_pm_timer_at(pm, t->axis_ns)));
	say(r->rate, "3.579545 MHz");
	if (GCLK_HAS(pm_timer, pm, enable) && pm->enable & 1) {
		arm(r, gclk_pm_timer_next_edge(pm, t->axis_ns), t->axis_ns);
	}
}

static void read_i6300esb(struct taking *t)
{
	const struct gclk_i6300esb *watchdog = &t->state->i6300esb;
	enum gclk_watchdog_event event = GCLK_WATCHDOG_NONE;
	char stage[TEXT_BYTES];
	struct reading *r;

	if (!watchdog->has || !t->has_axis) {
		return;
	}
	r = add(t, "i6300esb");
	text_hz(r->rate, watchdog->clock_scale ? 1000000 : 1000, 1);
	if (!watchdog->enabled) {
		say(r->reads, "off");
		return;
	}
	say(r->reads, "stage %u, %.40s", watchdog->stage,
	    text_approx(stage, gclk_i6300esb_stage_ns(watchdog, watchdog->stage)));
	arm(r, gclk_i6300esb_next(watchdog, t->axis_ns, &event), t->axis_ns);
	if (event == GCLK_WATCHDOG_RESET) {
		say(r->note, "resets the guest");
	}
}

static int by_expiry(const void *a, const void *b)
{
	const struct gclk_timer *const *x = a, *const *y = b;

	return gclk_compare((*x)->expiry_ns, (*y)->expiry_ns);
}

/* "0000:00:03.0/e1000e#0/mit_timer" without the place of the device. */
static const char *short_name(const char *name)
{
	const char *slash = strchr(name, '/');

	return slash && strchr(slash + 1, '/') ? slash + 1 : name;
}

/* The other devices' timers that stand on the shared axis, soonest first. */
static void read_timers(struct taking *t)
{
	const struct gclk_timer *sorted[GCLK_TIMERS_MAX];
	unsigned n = 0;

	for (uint32_t i = 0; i < t->state->n_timers; i++) {
		if (t->state->timers[i].axis == GCLK_AXIS_GUEST) {
			sorted[n++] = &t->state->timers[i];
		}
	}
	if (!n || !t->has_axis) {
		return;
	}
	qsort(sorted, n, sizeof(sorted[0]), by_expiry);
	for (unsigned i = 0; i < GCLK_MIN(n, TIMERS_SHOWN); i++) {
		char name[64];
		struct reading *r =
			add(t, "%s",
			    clean_text(name, sizeof(name), short_name(sorted[i]->name)));

		say(r->reads, "armed");
		arm(r, sorted[i]->expiry_ns, t->axis_ns);
		if (sorted[i]->kind == GCLK_TIMER_WATCHDOG) {
			say(r->note, "watchdog");
		}
	}
	if (n > TIMERS_SHOWN) {
		say(add(t, "(other timers)")->reads, "%u more", n - TIMERS_SHOWN);
	}
}

int readings_take(const struct gclk_state *state, const struct gclk_instant *captured,
		  struct readings *ret)
{
	struct taking t = {
		.state = state,
		.captured = captured,
		.out = ret,
		.has_axis = GCLK_HAS(virtual_clock, &state->virtual_clock, clock_ns),
		.axis_ns = state->virtual_clock.clock_ns,
	};

	memset(ret, 0, sizeof(*ret));
	read_tscs(&t);
	read_ns_clocks(&t);
	read_rtc(&t);
	read_pit(&t);
	read_hpet(&t);
	read_lapics(&t);
	read_pm_timer(&t);
	read_i6300esb(&t);
	read_timers(&t);
	if (ret->no_memory) {
		readings_free(ret);
		return GCLK_NOMEM;
	}
	return 0;
}

void readings_free(struct readings *readings)
{
	free(readings->items);
	memset(readings, 0, sizeof(*readings));
}
