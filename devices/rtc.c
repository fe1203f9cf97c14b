/* SPDX-License-Identifier: MIT */
/*
 * MC146818 real-time clock.
 *
 * The time is not kept running. Second s of the guest's calendar begins at
 *
 *	zero + (s - base_s) * 10^9,   zero = base_at_ns - offset_ns
 *
 * on the record's axis; the registers are written from that when somebody looks. While
 * SET is up, or the divider does not run, the registers are the time; when it goes on,
 * base_s is taken from them. Setting SET keeps the part of the second, releasing the
 * divider sets it to 1/2.
 *
 * Events are kept as the instants at which they are due: periodic_expiry_ns,
 * update_expiry_ns (end of an update: UF, and AF at next_alarm_ns). The interrupt stays
 * up until register C is read, so in an interval without accesses the line rises at
 * most once, whatever falls into it; how many ticks fell into it is another question
 * (_edges, _updates, _alarms), answered by division.
 *
 * What QEMU does differently:
 *   - Periodic ticks exist only while PIE is set. The tick numbers of its own axis give
 *     the grid, floor(clock) + 1 ns; the phase starts with the change that set PIE, and
 *     a change of rate counts from the last tick.
 *   - One timer serves update and alarm, and is only kept where it could change a
 *     flag: with UF unread it waits for the alarm, with AF unread too it is off.
 *   - Reading UIP latches it until that timer fires.
 *   - Writing the time while it runs puts the part of the second back to offset_ns.
 *   - With 12 hours, the alarm's AM/PM is that of the current hour, and hours with the PM
 *     bit are misread; the two errors meet where both sides have the same format.
 *   - Time is a 64-bit number of ns: years outside 1678..2261 wrap.
 *   - With lost tick policy slew (.catches_up), a tick that finds the interrupt pending is
 *     owed, and replayed at 2 to 8 times the rate, and when register C is read.
 *     Whether it is pending QEMU asks the local APIC; .irq_pending stands for that where
 *     somebody keeps it, else the line being up does.
 *
 * Not modelled: the square-wave pin, and daylight saving (DSE is kept, as in QEMU).
 */
#include <string.h>

#include <guestclock/devices.h>

#include "core/calendar.h"
#include "core/error.h"
#include "core/util.h"
#include "devices/line.h"
#include "devices/ticks.h"

#define HZ GCLK_RTC_HZ
#define S_NS GCLK_NS_PER_S
#define DAY_S 86400

enum {
	R_SECONDS = 0, R_SECONDS_ALARM = 1, R_MINUTES = 2, R_MINUTES_ALARM = 3, R_HOURS = 4,
	R_HOURS_ALARM = 5, R_WEEKDAY = 6, R_DAY = 7, R_MONTH = 8, R_YEAR = 9,
	R_A = 10, R_B = 11, R_C = 12, R_D = 13, R_CENTURY = 0x32, R_PS2_CENTURY = 0x37,
};

#define A_UIP 0x80
#define A_DIVIDER 0x70
#define A_RESET 0x60
#define A_RATE 0x0f
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define C_FLAGS 0x70

static const struct gclk_rtc_dialect dialects[GCLK_N_DIALECTS] = {
	[GCLK_DIALECT_DATASHEET] = {
		.name = "datasheet", .set_clears_uie = 1, .enable_raises = 1,
		.uip_before_ns = 244140, .update_ns = 1984000, .other_crystals = 1,
	},
	[GCLK_DIALECT_QEMU] = {
		.name = "qemu", .pf_needs_pie = 1, .plus_one_ns = 1, .phase_from_now = 1,
		.alarm_pm_of_hours = 1, .set_clears_uie = 1, .enable_raises = 1,
		.update_by_timer = 1, .wraps_64 = 1, .uip_before_ns = 244140,
		.acks_to_reinject = 20,
	},
	/* the kernel has none: a VMM on KVM brings its own */
	[GCLK_DIALECT_KVM] = {
		.name = "kvm", .set_clears_uie = 1, .enable_raises = 1,
		.uip_before_ns = 244140, .update_ns = 1984000, .other_crystals = 1,
	},
};
GCLK_API const struct gclk_rtc_dialect *const gclk_rtc_dialects = dialects;

static const struct gclk_rtc_dialect *facts_of(const struct gclk_rtc *rtc)
{
	return &dialects[rtc->dialect];
}

static bool is_set(const struct gclk_rtc *rtc)
{
	return (rtc->cmos[R_B] & B_SET) != 0;
}

/* Both patterns 110 and 111 hold the divider in reset. */
static bool resets(uint8_t reg_a)
{
	return (reg_a & A_RESET) == A_RESET;
}

static bool divider_runs(uint8_t reg_a)
{
	return (reg_a & A_DIVIDER) <= 0x20;
}

GCLK_API int gclk_rtc_is_running(const struct gclk_rtc *rtc)
{
	return !is_set(rtc) && divider_runs(rtc->cmos[R_A]);
}

GCLK_API uint32_t gclk_rtc_period_clocks(uint8_t reg_a)
{
	unsigned rate = reg_a & A_RATE;

	return rate == 0 ? 0 : rate <= 2 ? 64u << rate : 1u << (rate - 1);
}

/* The same for the device's own crystal, and 0 where no tick would be seen. */
static uint32_t tick_clocks(const struct gclk_rtc *rtc)
{
	uint8_t a = rtc->cmos[R_A];

	if (facts_of(rtc)->pf_needs_pie) {
		return rtc->cmos[R_B] & B_PIE ? gclk_rtc_period_clocks(a) : 0;
	}
	if (!divider_runs(a)) {
		return 0;
	}
	if (facts_of(rtc)->other_crystals && (a & A_DIVIDER) < 0x20 && (a & A_RATE) <= 2) {
		return a & A_RATE;	/* 32768 and 16384 Hz with the faster crystals */
	}
	return gclk_rtc_period_clocks(a);
}

/* ---- the calendar in the registers ---- */

/* A register as a number; -1 for a "don't care" alarm, whatever else stands there as it is. */
static int from_register(const struct gclk_rtc *rtc, uint8_t raw)
{
	if (gclk_rtc_alarm_is_any(raw)) {
		return -1;
	}
	return rtc->cmos[R_B] & B_BINARY ? raw : gclk_bcd_to_binary(raw);
}

static uint8_t to_register(const struct gclk_rtc *rtc, int64_t v)
{
	return (uint8_t)(rtc->cmos[R_B] & B_BINARY ? v : (v / 10) << 4 | v % 10);
}

/*
 * The day number of a date that need not exist: months count on beyond 12 at the
 * rhythm of 153 days in 5 months from March, divisions go towards zero.
 */
static int64_t day_number(int64_t year, int64_t month, int64_t day)
{
	if (month < 3) {
		month += 12;
		year--;
	}
	return day + (153 * month - 457) / 5 + 365 * year + year / 4 - year / 100 + year / 400 -
	       719469;
}

static int hours_in(const struct gclk_rtc *rtc)
{
	int hour = from_register(rtc, rtc->cmos[R_HOURS] & 0x7f);

	if (!(rtc->cmos[R_B] & B_24H)) {
		hour = hour % 12 + (rtc->cmos[R_HOURS] & 0x80 ? 12 : 0);
	}
	return hour;
}

/* What the registers say, in seconds since 1970. */
static int64_t seconds_in(const struct gclk_rtc *rtc)
{
	const uint8_t *r = rtc->cmos;
	int64_t year = from_register(rtc, r[R_YEAR]) + 100 * from_register(rtc, r[R_CENTURY]);
	int64_t days = day_number(year, from_register(rtc, r[R_MONTH]),
				  from_register(rtc, r[R_DAY]));

	return days * DAY_S + 3600 * (int64_t)hours_in(rtc) +
	       60 * from_register(rtc, r[R_MINUTES]) + from_register(rtc, r[R_SECONDS]);
}

static uint8_t hour_register(const struct gclk_rtc *rtc, int hour)
{
	uint8_t twelve = to_register(rtc, hour % 12 ? hour % 12 : 12);

	if (rtc->cmos[R_B] & B_24H) {
		return to_register(rtc, hour);
	}
	return hour >= 12 ? twelve | 0x80 : twelve;
}

static void write_registers(struct gclk_rtc *rtc, int64_t seconds)
{
	uint8_t *r = rtc->cmos;
	struct gclk_civil c;

	if (gclk_civil_from_seconds(seconds, &c) < 0) {
		return;
	}
	r[R_SECONDS] = to_register(rtc, c.second);
	r[R_MINUTES] = to_register(rtc, c.minute);
	r[R_HOURS] = hour_register(rtc, c.hour);
	r[R_WEEKDAY] = to_register(
		rtc, gclk_weekday_from_days(gclk_floor_div(seconds, DAY_S)) + 1);
	r[R_DAY] = to_register(rtc, c.day);
	r[R_MONTH] = to_register(rtc, c.month);
	r[R_YEAR] = to_register(rtc, gclk_floor_mod(c.year, 100));
	r[R_CENTURY] = to_register(rtc, gclk_floor_mod(gclk_floor_div(c.year, 100), 100));
}

/* ---- the time ---- */

/* The instant at which second base_s began. */
static int64_t zero_of(const struct gclk_rtc *rtc)
{
	return gclk_sub(rtc->base_at_ns, rtc->offset_ns);
}

/* base_s, held 34,000 years around 1970, so that sums of seconds stay in 64 bits. */
static int64_t base_of(const struct gclk_rtc *rtc)
{
	int64_t far = INT64_C(1) << 40;

	return GCLK_MAX(-far, GCLK_MIN(rtc->base_s, far));
}

/* QEMU: ns since 1970 modulo 2^64. */
static uint64_t wrapped_ns(const struct gclk_rtc *rtc, int64_t t)
{
	return (uint64_t)rtc->base_s * (uint64_t)S_NS + (uint64_t)t - (uint64_t)rtc->base_at_ns +
	       (uint64_t)rtc->offset_ns;
}

/* The running time, whether or not it runs into the registers. */
static int64_t running_seconds(const struct gclk_rtc *rtc, int64_t t, int64_t *ret_ns)
{
	int64_t since;

	if (facts_of(rtc)->wraps_64) {
		since = (int64_t)wrapped_ns(rtc, t);
		*ret_ns = since % S_NS;
		return since / S_NS;
	}
	since = gclk_sub(t, zero_of(rtc));
	*ret_ns = gclk_floor_mod(since, S_NS);
	return gclk_add(base_of(rtc), gclk_floor_div(since, S_NS));
}

GCLK_API int64_t gclk_rtc_seconds_at(const struct gclk_rtc *rtc, int64_t t, int64_t *ret_ns)
{
	int64_t seconds = running_seconds(rtc, t, ret_ns);

	return gclk_rtc_is_running(rtc) ? seconds : seconds_in(rtc);
}

static void refresh(struct gclk_rtc *rtc, int64_t t)
{
	int64_t ns;

	if (!is_set(rtc)) {
		write_registers(rtc, running_seconds(rtc, t, &ns));
	}
}

GCLK_API void gclk_rtc_sync_cmos(struct gclk_rtc *rtc, int64_t t)
{
	if (gclk_rtc_is_running(rtc)) {
		refresh(rtc, t);
	}
}

/* The registers are the time at @t, @part_ns into the second. */
static void take_registers(struct gclk_rtc *rtc, int64_t t, int64_t part_ns)
{
	GCLK_SET(rtc, rtc, base_s, seconds_in(rtc));
	GCLK_SET(rtc, rtc, base_at_ns, t);
	GCLK_SET(rtc, rtc, offset_ns, part_ns);
}

static int64_t part_of_second(const struct gclk_rtc *rtc, int64_t t)
{
	int64_t ns;

	if (facts_of(rtc)->wraps_64) {
		return (int64_t)(wrapped_ns(rtc, t) % (uint64_t)S_NS);
	}
	running_seconds(rtc, t, &ns);
	return ns;
}

/* ---- updates and alarms ---- */

/* How many seconds have begun after base_s by @t. */
static int64_t updates_by(const struct gclk_rtc *rtc, int64_t t)
{
	return gclk_floor_div(gclk_sub(t, zero_of(rtc)), S_NS);
}

GCLK_API int64_t gclk_rtc_update_next(const struct gclk_rtc *rtc, int64_t t)
{
	if (!gclk_rtc_is_running(rtc)) {
		return GCLK_TIMER_OFF;
	}
	return gclk_add(zero_of(rtc), gclk_clip((gclk_i128)(updates_by(rtc, t) + 1) * S_NS));
}

GCLK_API uint64_t gclk_rtc_updates(const struct gclk_rtc *rtc, int64_t t0, int64_t t1)
{
	if (t1 <= t0 || !gclk_rtc_is_running(rtc)) {
		return 0;
	}
	return (uint64_t)(updates_by(rtc, t1) - updates_by(rtc, t0));
}

/* The hours, minutes and seconds that the alarm registers match. */
struct alarm {
	uint64_t hours, minutes, seconds;
};

/* Of the values 0..n-1, those whose register would read @raw: all, one or none. */
static uint64_t matching(const struct gclk_rtc *rtc, uint8_t raw, unsigned n, bool hour)
{
	bool twelve = hour && !(rtc->cmos[R_B] & B_24H);
	unsigned v;

	if (gclk_rtc_alarm_is_any(raw)) {
		return (UINT64_C(1) << n) - 1;
	}
	v = (unsigned)from_register(rtc, twelve ? raw & 0x7f : raw);
	if (twelve) {
		v = v % 12 + (raw & 0x80 ? 12 : 0);
	}
	if (v >= n || raw != (hour ? hour_register(rtc, (int)v) : to_register(rtc, v))) {
		return 0;
	}
	return UINT64_C(1) << v;
}

static struct alarm alarm_of(const struct gclk_rtc *rtc)
{
	return (struct alarm){
		.hours = matching(rtc, rtc->cmos[R_HOURS_ALARM], 24, true),
		.minutes = matching(rtc, rtc->cmos[R_MINUTES_ALARM], 60, false),
		.seconds = matching(rtc, rtc->cmos[R_SECONDS_ALARM], 60, false),
	};
}

static int64_t bits_below(uint64_t set, unsigned n)
{
	return __builtin_popcountll(set & ((UINT64_C(1) << n) - 1));
}

/* Matches among the first @x seconds of a day. */
static int64_t matches_below(const struct alarm *a, int64_t x)
{
	unsigned h = (unsigned)(x / 3600), m = (unsigned)(x / 60 % 60), s = (unsigned)(x % 60);
	int64_t per_minute = bits_below(a->seconds, 60);
	int64_t per_hour = bits_below(a->minutes, 60) * per_minute, n;

	n = bits_below(a->hours, h) * per_hour;
	if (h < 24 && a->hours >> h & 1) {
		n += bits_below(a->minutes, m) * per_minute;
		if (a->minutes >> m & 1) {
			n += bits_below(a->seconds, s);
		}
	}
	return n;
}

/* Matches at seconds before @s, counted from the first of day 0. */
static int64_t matches_before(const struct alarm *a, int64_t s)
{
	return gclk_floor_div(s, DAY_S) * matches_below(a, DAY_S) +
	       matches_below(a, gclk_floor_mod(s, DAY_S));
}

static unsigned first_bit(uint64_t set, unsigned from)
{
	set &= ~((UINT64_C(1) << from) - 1);
	return set ? (unsigned)__builtin_ctzll(set) : 64;
}

/* The first match at or after second @x of a day; DAY_S or more: none today. */
static int64_t match_from(const struct alarm *a, int64_t x)
{
	unsigned h = (unsigned)(x / 3600), m = (unsigned)(x / 60 % 60), s = (unsigned)(x % 60);
	unsigned h0 = (unsigned)__builtin_ctzll(a->minutes), s0 = (unsigned)__builtin_ctzll(a->seconds);

	if (a->hours >> h & 1) {
		if (a->minutes >> m & 1 && first_bit(a->seconds, s) < 60) {
			return h * 3600 + m * 60 + first_bit(a->seconds, s);
		}
		if (m < 59 && first_bit(a->minutes, m + 1) < 60) {
			return h * 3600 + first_bit(a->minutes, m + 1) * 60 + s0;
		}
	}
	if (h < 23 && first_bit(a->hours, h + 1) < 24) {
		return first_bit(a->hours, h + 1) * 3600 + h0 * 60 + s0;
	}
	return DAY_S;
}

GCLK_API uint64_t gclk_rtc_alarms(const struct gclk_rtc *rtc, int64_t t0, int64_t t1)
{
	struct alarm a = alarm_of(rtc);
	int64_t s0, s1;

	if (t1 <= t0 || !gclk_rtc_is_running(rtc)) {
		return 0;
	}
	s0 = base_of(rtc) + updates_by(rtc, t0);
	s1 = base_of(rtc) + updates_by(rtc, t1);
	return (uint64_t)(matches_before(&a, s1 + 1) - matches_before(&a, s0 + 1));
}

GCLK_API int64_t gclk_rtc_alarm_next(const struct gclk_rtc *rtc, int64_t t)
{
	struct alarm a = alarm_of(rtc);
	int64_t s, day;

	if (!gclk_rtc_is_running(rtc) || !a.hours || !a.minutes || !a.seconds) {
		return GCLK_TIMER_OFF;
	}
	s = base_of(rtc) + updates_by(rtc, t) + 1;
	day = gclk_floor_div(s, DAY_S);
	s = match_from(&a, gclk_floor_mod(s, DAY_S));
	if (s >= DAY_S) {
		day++;
		s = match_from(&a, 0);
	}
	return gclk_add(zero_of(rtc),
			gclk_clip((gclk_i128)(day * DAY_S + s - base_of(rtc)) * S_NS));
}

/* ---- periodic ticks ---- */

/* Data sheet: ticks since base_s began. QEMU: clocks of its axis of which ticks are planned. */
static int64_t ticks_by(const struct gclk_rtc *rtc, int64_t t)
{
	int64_t p = tick_clocks(rtc);

	return gclk_floor_div(gclk_ticks_by(gclk_sub(t, zero_of(rtc)), HZ), p);
}

static int64_t tick_instant(const struct gclk_rtc *rtc, int64_t n)
{
	return gclk_add(zero_of(rtc),
			gclk_tick_ceil(gclk_clip((gclk_i128)n * tick_clocks(rtc)), HZ));
}

/* QEMU: the clock of a planned tick, and the last clock planned at or before @t. */
static int64_t clock_of(int64_t planned)
{
	return gclk_ticks_by(planned, HZ);
}

static int64_t clock_by(int64_t t)
{
	return gclk_scale_up(t, HZ, S_NS) - 1;
}

static int64_t planned(int64_t clock)
{
	return gclk_add(gclk_tick_floor(clock, HZ), 1);
}

/* QEMU: ticks from the state's next one up to @t; the last one's instant goes to @ret_last. */
static int64_t planned_ticks(const struct gclk_rtc *rtc, int64_t t, int64_t *ret_last)
{
	int64_t next = rtc->periodic_expiry_ns, p = tick_clocks(rtc), k;

	if (!p || next == GCLK_TIMER_OFF || !GCLK_HAS(rtc, rtc, periodic_expiry_ns) || next > t) {
		return 0;
	}
	/* periods are powers of 2; the first tick is due even if it is off the grid */
	k = clock_by(t) - clock_of(next);
	k = k < 0 ? 0 : k >> __builtin_ctzll((uint64_t)p);
	if (ret_last) {
		*ret_last = k == 0 ? next : planned(clock_of(next) + k * p);
	}
	return k + 1;
}

GCLK_API int64_t gclk_rtc_periodic_next(const struct gclk_rtc *rtc, int64_t t)
{
	int64_t p = tick_clocks(rtc), k;

	if (!p) {
		return GCLK_TIMER_OFF;
	}
	if (!facts_of(rtc)->phase_from_now) {
		return tick_instant(rtc, ticks_by(rtc, t) + 1);
	}
	k = planned_ticks(rtc, t, NULL);
	if (k == 0) {
		return GCLK_HAS(rtc, rtc, periodic_expiry_ns) ? rtc->periodic_expiry_ns
							      : GCLK_TIMER_OFF;
	}
	return planned(clock_of(rtc->periodic_expiry_ns) + k * p);
}

GCLK_API int64_t gclk_rtc_periodic_last(const struct gclk_rtc *rtc, int64_t t)
{
	int64_t p = tick_clocks(rtc), next = gclk_rtc_periodic_next(rtc, t);

	if (next == GCLK_TIMER_OFF) {
		return GCLK_TIMER_OFF;
	}
	return facts_of(rtc)->phase_from_now ? planned(clock_of(next) - p)
					     : tick_instant(rtc, ticks_by(rtc, t));
}

GCLK_API uint64_t gclk_rtc_periodic_edges(const struct gclk_rtc *rtc, int64_t t0, int64_t t1)
{
	if (t1 <= t0 || !tick_clocks(rtc)) {
		return 0;
	}
	if (!facts_of(rtc)->phase_from_now) {
		return (uint64_t)(ticks_by(rtc, t1) - ticks_by(rtc, t0));
	}
	return (uint64_t)(planned_ticks(rtc, t1, NULL) - planned_ticks(rtc, t0, NULL));
}

GCLK_API void gclk_rtc_cadence(const struct gclk_rtc *rtc, struct gclk_cadence *ret)
{
	*ret = (struct gclk_cadence){ .period_den = 1 };
	if (!tick_clocks(rtc) || !(rtc->cmos[R_B] & B_PIE)) {
		return;
	}
	ret->armed = 1;
	ret->periodic = 1;
	ret->period_num = (uint64_t)tick_clocks(rtc) * (uint64_t)S_NS;
	ret->period_den = HZ;
}

/* ---- QEMU's timers ---- */

/* How the hour of an alarm is understood with 12 hours. */
static int alarm_hours(const struct gclk_rtc *rtc, int hour)
{
	if (hour == -1 || (rtc->cmos[R_B] & B_24H)) {
		return hour;
	}
	return (uint8_t)hour % 12 + (rtc->cmos[R_HOURS] & 0x80 ? 12 : 0);
}

/*
 * Seconds until the alarm, 1..86400, from what the registers say: a time of day is built
 * whose "don't care" parts are the earliest that lie ahead, and the distance to it taken.
 */
static int64_t seconds_to_alarm(const struct gclk_rtc *rtc)
{
	int sec = from_register(rtc, rtc->cmos[R_SECONDS_ALARM]);
	int min = from_register(rtc, rtc->cmos[R_MINUTES_ALARM]);
	int hour = alarm_hours(rtc, from_register(rtc, rtc->cmos[R_HOURS_ALARM]));
	int now_s = from_register(rtc, rtc->cmos[R_SECONDS]);
	int now_m = from_register(rtc, rtc->cmos[R_MINUTES]);
	int now_h = alarm_hours(rtc, from_register(rtc, rtc->cmos[R_HOURS]));
	bool any_h = hour == -1, any_m = min == -1, any_s = sec == -1;
	int64_t left;

	hour = any_h ? now_h : hour;
	if (hour == now_h && (any_m || any_h)) {
		/* somewhere in this hour, or with any hour in the next one */
		if (any_m) {
			min = now_m;
			if (!any_s && now_s > sec) {
				min++;
			}
			sec = any_s ? now_s + 1 : sec;
			if (!any_h) {
				min += sec == 60;
				sec = sec == 60 ? 0 : sec;
				min %= 60;
			}
		} else if (now_m == min) {
			hour += !any_s && now_s > sec;
			sec = any_s ? now_s + 1 : sec;
			hour += sec == 60;
			sec = sec == 60 ? 0 : sec;
		} else if (now_m > min) {
			hour++;
		}
	} else if (hour == now_h && now_m == min) {
		sec = any_s ? now_s + 1 : sec;
		sec %= 60;
	}
	min = min == -1 ? 0 : min;
	sec = sec == -1 ? 0 : sec;
	if (sec == 60) {
		sec = 0;
		min++;
	}
	if (min == 60) {
		min = 0;
		hour++;
	}
	left = ((int64_t)(hour % 24 - now_h) * 60 + min - now_m) * 60 + sec - now_s;
	return left <= 0 ? left + DAY_S : left;
}

/* Decides when the timer of updates and alarms is due next. */
static void plan_update(struct gclk_rtc *rtc, int64_t t)
{
	uint8_t c = rtc->cmos[R_C];
	uint64_t next;

	if (resets(rtc->cmos[R_A])) {
		GCLK_SET(rtc, rtc, update_expiry_ns, GCLK_TIMER_OFF);
		return;
	}
	next = (uint64_t)t + (uint64_t)S_NS - wrapped_ns(rtc, t) % (uint64_t)S_NS;
	refresh(rtc, t);
	GCLK_SET(rtc, rtc, next_alarm_ns,
		 (int64_t)(next + (uint64_t)(seconds_to_alarm(rtc) - 1) * (uint64_t)S_NS));
	if (!(rtc->cmos[R_A] & A_UIP) && (c & C_UF)) {
		if (is_set(rtc) || (c & C_AF)) {
			GCLK_SET(rtc, rtc, update_expiry_ns, GCLK_TIMER_OFF);
			return;
		}
		next = (uint64_t)rtc->next_alarm_ns;
	}
	GCLK_SET(rtc, rtc, update_expiry_ns, (int64_t)next);
}

/* Whether a raise would reach the processor. */
static bool would_reach(const struct gclk_rtc *rtc, const struct gclk_line *line)
{
	return GCLK_HAS(rtc, rtc, irq_pending) ? !rtc->irq_pending : !line->level;
}

/* Returns whether it was more than an interrupt that is there already. */
static bool raise(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	bool reached = would_reach(rtc, line);

	rtc->cmos[R_C] |= C_IRQF;
	line->level = 1;
	if (reached) {
		gclk_line_rise(line, 1, t);
		if (GCLK_HAS(rtc, rtc, irq_pending)) {
			rtc->irq_pending = 1;
		}
	}
	return reached;
}

GCLK_API void gclk_rtc_taken(struct gclk_rtc *rtc)
{
	GCLK_SET(rtc, rtc, irq_pending, 0);
}

static void update_ends(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	uint8_t flags = C_UF, fresh;

	refresh(rtc, t);
	rtc->cmos[R_A] &= (uint8_t)~A_UIP;
	if ((uint64_t)t >= (uint64_t)rtc->next_alarm_ns) {
		flags |= C_AF;
	}
	fresh = flags & (uint8_t)~rtc->cmos[R_C];
	rtc->cmos[R_C] |= flags;
	if (fresh & rtc->cmos[R_B]) {
		raise(rtc, t, line);
	}
	plan_update(rtc, t);
}

/* Owed ticks are tried at a fraction of the period. */
static void plan_replay(struct gclk_rtc *rtc, int64_t t)
{
	int64_t parts = GCLK_MIN(rtc->owed_ticks, 7u) + 1;

	GCLK_SET(rtc, rtc, coalesced_expiry_ns,
		 rtc->owed_ticks ? gclk_add(t, gclk_tick_floor(rtc->period_clocks / parts, HZ))
				 : GCLK_TIMER_OFF);
}

/*
 * Plans the next tick after a change at @t, or after the tick at @t. @old_period is the
 * period before a change, 0 if none; clocks that it had counted are not lost.
 */
static void plan_periodic(struct gclk_rtc *rtc, int64_t t, uint32_t old_period)
{
	int64_t clock = clock_of(t), p = tick_clocks(rtc), lost = 0;
	uint32_t owed = rtc->owed_ticks;

	GCLK_SET(rtc, rtc, period_clocks, (uint32_t)p);
	if (!p) {
		rtc->owed_ticks = 0;
		GCLK_SET(rtc, rtc, periodic_expiry_ns, GCLK_TIMER_OFF);
		return;
	}
	if (old_period) {
		lost = clock - (clock_of(rtc->next_periodic_ns) - old_period);
	}
	if (rtc->catches_up) {
		lost += (int64_t)owed * old_period;
		rtc->owed_ticks = (uint32_t)(lost / p);
		lost %= p;
		if (owed != rtc->owed_ticks || (int64_t)old_period != p) {
			plan_replay(rtc, t);
		}
	} else {
		lost = GCLK_MIN(lost, p);
	}
	GCLK_SET(rtc, rtc, next_periodic_ns, planned(clock + p - lost));
	GCLK_SET(rtc, rtc, periodic_expiry_ns, rtc->next_periodic_ns);
}

/* What the replay timer did between the last tick at @from and @t, with nobody reading C. */
static void replay_in_vain(struct gclk_rtc *rtc, int64_t from, int64_t t)
{
	int64_t step;

	plan_replay(rtc, from);
	step = GCLK_MAX(gclk_sub(rtc->coalesced_expiry_ns, from), 1);
	if (rtc->coalesced_expiry_ns != GCLK_TIMER_OFF && rtc->coalesced_expiry_ns <= t) {
		rtc->coalesced_expiry_ns = gclk_clip(
			from + ((gclk_i128)(gclk_sub(t, from) / step) + 1) * step);
	}
}

static void periodic_by_timer(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	int64_t last = 0, k = planned_ticks(rtc, t, &last), first = rtc->periodic_expiry_ns, owed;

	if (k == 0) {
		return;
	}
	rtc->cmos[R_C] |= C_PF;
	owed = k - raise(rtc, first, line);
	GCLK_SET(rtc, rtc, next_periodic_ns, planned(clock_of(first) + k * tick_clocks(rtc)));
	rtc->periodic_expiry_ns = rtc->next_periodic_ns;
	if (rtc->catches_up) {
		if (rtc->reinject_on_ack >= facts_of(rtc)->acks_to_reinject) {
			rtc->reinject_on_ack = 0;
		}
		rtc->owed_ticks += (uint32_t)owed;
		if (owed) {
			replay_in_vain(rtc, last, t);
		}
	}
}

/* A due replay: it succeeds if the line is down. */
static void replay(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	int64_t at = rtc->coalesced_expiry_ns;

	if (!rtc->catches_up || !GCLK_HAS(rtc, rtc, coalesced_expiry_ns) ||
	    at == GCLK_TIMER_OFF || at > t) {
		return;
	}
	if (rtc->owed_ticks) {
		rtc->cmos[R_C] |= C_PF;
		rtc->owed_ticks -= raise(rtc, at, line);
	}
	replay_in_vain(rtc, at, t);
}

#define EVENTS_MAX 4	/* an update and an alarm; then nobody looks until C is read */

/* Ticks and replays up to @t, in their order; of both only the first can be more than pending. */
static void tick_until(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	int64_t tick = GCLK_HAS(rtc, rtc, periodic_expiry_ns) ? rtc->periodic_expiry_ns
							      : GCLK_TIMER_OFF;

	if (rtc->catches_up && GCLK_HAS(rtc, rtc, coalesced_expiry_ns) &&
	    (tick == GCLK_TIMER_OFF || rtc->coalesced_expiry_ns < tick)) {
		replay(rtc, t, line);
	}
	periodic_by_timer(rtc, t, line);
	replay(rtc, t, line);
}

static void advance_by_timers(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	for (unsigned i = 0; i < EVENTS_MAX && GCLK_HAS(rtc, rtc, update_expiry_ns); i++) {
		int64_t at = rtc->update_expiry_ns;

		if (at == GCLK_TIMER_OFF || at > t) {
			break;
		}
		/* ticks before it come first, for the sake of who raises the line */
		tick_until(rtc, gclk_sub(at, 1), line);
		update_ends(rtc, at, line);
	}
	tick_until(rtc, t, line);
}

/* ---- the data sheet's flags ---- */

static void plan_events(struct gclk_rtc *rtc, int64_t t)
{
	GCLK_SET(rtc, rtc, period_clocks, tick_clocks(rtc));
	GCLK_SET(rtc, rtc, periodic_expiry_ns, gclk_rtc_periodic_next(rtc, t));
	GCLK_SET(rtc, rtc, next_periodic_ns, rtc->periodic_expiry_ns);
	GCLK_SET(rtc, rtc, update_expiry_ns, gclk_rtc_update_next(rtc, t));
	GCLK_SET(rtc, rtc, next_alarm_ns, gclk_rtc_alarm_next(rtc, t));
}

/* Sets the flag of an event that is due, and notes when it interrupted. */
static bool event(struct gclk_rtc *rtc, int64_t due, uint8_t flag, int64_t t, int64_t *ret_first)
{
	if (due == GCLK_TIMER_OFF || due > t) {
		return false;
	}
	rtc->cmos[R_C] |= flag;
	if (rtc->cmos[R_B] & flag) {	/* enables and flags have the same bits */
		*ret_first = GCLK_MIN(*ret_first, due);
	}
	return true;
}

static void advance_flags(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	int64_t first = INT64_MAX, last = 0, p = tick_clocks(rtc);

	if (rtc->catches_up && (rtc->cmos[R_B] & B_PIE) && p &&
	    rtc->periodic_expiry_ns != GCLK_TIMER_OFF && rtc->periodic_expiry_ns <= t) {
		last = ticks_by(rtc, t) -
		       ticks_by(rtc, gclk_sub(rtc->periodic_expiry_ns, 1));
		rtc->owed_ticks += (uint32_t)(last - would_reach(rtc, line));
	}
	if (event(rtc, rtc->periodic_expiry_ns, C_PF, t, &first)) {
		rtc->periodic_expiry_ns = gclk_rtc_periodic_next(rtc, t);
		rtc->next_periodic_ns = rtc->periodic_expiry_ns;
	}
	if (event(rtc, rtc->update_expiry_ns, C_UF, t, &first)) {
		rtc->update_expiry_ns = gclk_rtc_update_next(rtc, t);
	}
	if (event(rtc, rtc->next_alarm_ns, C_AF, t, &first)) {
		rtc->next_alarm_ns = gclk_rtc_alarm_next(rtc, t);
	}
	if (first != INT64_MAX) {
		raise(rtc, first, line);
	}
}

static void begin(const struct gclk_rtc *rtc, struct gclk_line *line)
{
	gclk_line_begin(line, GCLK_HAS(rtc, rtc, irq_level) ? rtc->irq_level
							    : rtc->cmos[R_C] >> 7);
}

static void end(struct gclk_rtc *rtc, const struct gclk_line *line, struct gclk_line *ret)
{
	GCLK_SET(rtc, rtc, irq_level, line->level);
	gclk_line_give(line, ret);
}

static void advance(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	begin(rtc, line);
	if (facts_of(rtc)->update_by_timer) {
		advance_by_timers(rtc, t, line);
	} else {
		advance_flags(rtc, t, line);
	}
}

GCLK_API void gclk_rtc_advance(struct gclk_rtc *rtc, int64_t t, struct gclk_line *irq8)
{
	struct gclk_line line;

	advance(rtc, t, &line);
	end(rtc, &line, irq8);
}

GCLK_API int64_t gclk_rtc_next_edge(const struct gclk_rtc *rtc, int64_t t)
{
	struct gclk_rtc copy = *rtc;
	struct gclk_line line;
	int64_t due[4];

	advance(&copy, t, &line);
	for (unsigned i = 0; i < EVENTS_MAX && would_reach(&copy, &line); i++) {
		int64_t next = INT64_MAX;

		due[0] = copy.cmos[R_B] & B_PIE ? copy.periodic_expiry_ns : GCLK_TIMER_OFF;
		due[1] = copy.update_expiry_ns;
		due[2] = facts_of(rtc)->update_by_timer ? GCLK_TIMER_OFF : copy.next_alarm_ns;
		due[3] = copy.catches_up && copy.owed_ticks &&
					 GCLK_HAS(rtc, &copy, coalesced_expiry_ns)
				 ? copy.coalesced_expiry_ns
				 : GCLK_TIMER_OFF;
		for (unsigned k = 0; k < GCLK_COUNT(due); k++) {
			if (due[k] != GCLK_TIMER_OFF) {
				next = GCLK_MIN(next, due[k]);
			}
		}
		if (next == INT64_MAX) {
			return GCLK_TIMER_OFF;
		}
		if (!facts_of(rtc)->update_by_timer && !(copy.cmos[R_B] & (B_UIE | B_PIE))) {
			next = copy.cmos[R_B] & B_AIE ? copy.next_alarm_ns : GCLK_TIMER_OFF;
			return next;
		}
		advance(&copy, next, &line);
		if (line.rises) {
			return line.last_rise_ns;
		}
	}
	return GCLK_TIMER_OFF;
}

GCLK_API uint64_t gclk_rtc_edges(const struct gclk_rtc *rtc, int64_t t0, int64_t t1)
{
	int64_t next = t1 <= t0 ? GCLK_TIMER_OFF : gclk_rtc_next_edge(rtc, t0);

	return next != GCLK_TIMER_OFF && next <= t1;
}

/* ---- register access ---- */

static bool update_in_progress(struct gclk_rtc *rtc, int64_t t)
{
	const struct gclk_rtc_dialect *f = facts_of(rtc);
	int64_t before = f->uip_before_ns + f->update_ns, due = rtc->update_expiry_ns, ns;

	if (!gclk_rtc_is_running(rtc)) {
		return false;
	}
	if (f->update_by_timer && due != GCLK_TIMER_OFF && t >= due - before) {
		rtc->cmos[R_A] |= A_UIP;
		return true;
	}
	running_seconds(rtc, t, &ns);
	return ns >= S_NS - before;
}

static uint8_t index_of(struct gclk_rtc *rtc)
{
	if ((rtc->cmos_index & 0x7f) == R_PS2_CENTURY) {
		rtc->cmos_index = (uint8_t)((rtc->cmos_index & 0x80) | R_CENTURY);
	}
	return rtc->cmos_index & 0x7f;
}

static bool is_time_register(uint8_t i)
{
	return i == R_CENTURY || i == R_SECONDS || i == R_MINUTES || i == R_HOURS ||
	       (i >= R_WEEKDAY && i <= R_YEAR);
}

static uint8_t read_flags(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	const struct gclk_rtc_dialect *f = facts_of(rtc);
	uint8_t value = rtc->cmos[R_C];

	gclk_line_set(line, 0, t);
	rtc->cmos[R_C] = 0;
	if (f->update_by_timer && (value & (C_UF | C_AF))) {
		plan_update(rtc, t);
	}
	if (rtc->catches_up && rtc->owed_ticks && (rtc->cmos[R_B] & B_PIE) &&
	    rtc->reinject_on_ack < (f->acks_to_reinject ? f->acks_to_reinject : UINT8_MAX)) {
		rtc->reinject_on_ack++;
		rtc->cmos[R_C] |= C_PF;
		rtc->owed_ticks -= raise(rtc, t, line);
	}
	return value;
}

static uint8_t read_data(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	uint8_t i = index_of(rtc);

	if (is_time_register(i)) {
		gclk_rtc_sync_cmos(rtc, t);
	} else if (i == R_A) {
		bool uip = update_in_progress(rtc, t);

		return rtc->cmos[R_A] | (uip ? A_UIP : 0);
	} else if (i == R_C) {
		return read_flags(rtc, t, line);
	}
	return rtc->cmos[i];
}

GCLK_API uint8_t gclk_rtc_read(struct gclk_rtc *rtc, uint16_t port, int64_t t,
			       struct gclk_line *irq8)
{
	struct gclk_line line;
	uint8_t value;

	advance(rtc, t, &line);
	value = port & 1 ? read_data(rtc, t, &line) : 0xff;
	end(rtc, &line, irq8);
	return value;
}

GCLK_API uint8_t gclk_rtc_peek(const struct gclk_rtc *rtc, uint16_t port, int64_t t)
{
	struct gclk_rtc copy = *rtc;

	return gclk_rtc_read(&copy, port, t, NULL);
}

/* After anything that moves an event. */
static void plan(struct gclk_rtc *rtc, int64_t t)
{
	if (facts_of(rtc)->update_by_timer) {
		plan_update(rtc, t);
	} else {
		plan_events(rtc, t);
	}
}

static void write_time(struct gclk_rtc *rtc, uint8_t i, uint8_t value, int64_t t)
{
	bool qemu = facts_of(rtc)->phase_from_now;

	if (!qemu) {
		gclk_rtc_sync_cmos(rtc, t);
	}
	rtc->cmos[i] = value;
	if (gclk_rtc_is_running(rtc)) {
		take_registers(rtc, t, qemu ? rtc->offset_ns : part_of_second(rtc, t));
		plan(rtc, t);
	}
}

static void write_a(struct gclk_rtc *rtc, uint8_t value, int64_t t)
{
	uint8_t old = rtc->cmos[R_A];
	uint32_t old_period = tick_clocks(rtc);

	if (resets(value)) {
		gclk_rtc_sync_cmos(rtc, t);
		old &= (uint8_t)~A_UIP;
	} else if (resets(old) && divider_runs(value)) {
		if (!is_set(rtc)) {
			take_registers(rtc, t, S_NS / 2);
		}
		old &= (uint8_t)~A_UIP;
	}
	rtc->cmos[R_A] = (value & (uint8_t)~A_UIP) | (old & A_UIP);
	if (facts_of(rtc)->phase_from_now && ((old ^ value) & A_RATE)) {
		plan_periodic(rtc, t, old_period);
	}
	plan(rtc, t);
}

static void write_b(struct gclk_rtc *rtc, uint8_t value, int64_t t, struct gclk_line *line)
{
	uint8_t old = rtc->cmos[R_B];
	uint32_t old_period = tick_clocks(rtc);

	if (value & B_SET) {
		gclk_rtc_sync_cmos(rtc, t);
		rtc->cmos[R_A] &= (uint8_t)~A_UIP;
		value &= facts_of(rtc)->set_clears_uie ? (uint8_t)~B_UIE : 0xff;
	} else if ((old & B_SET) && divider_runs(rtc->cmos[R_A])) {
		/* the registers are still in the old format */
		take_registers(rtc, t, part_of_second(rtc, t));
	}
	if (value & rtc->cmos[R_C] & C_FLAGS) {
		raise(rtc, t, line);
	} else {
		rtc->cmos[R_C] &= (uint8_t)~C_IRQF;
		gclk_line_set(line, 0, t);
	}
	rtc->cmos[R_B] = value;
	if (facts_of(rtc)->phase_from_now && ((old ^ value) & B_PIE)) {
		plan_periodic(rtc, t, old_period);
	}
	plan(rtc, t);
}

static void write_data(struct gclk_rtc *rtc, uint8_t value, int64_t t, struct gclk_line *line)
{
	uint8_t i = index_of(rtc);

	if (is_time_register(i)) {
		write_time(rtc, i, value, t);
		return;
	}
	switch (i) {
	case R_SECONDS_ALARM:
	case R_MINUTES_ALARM:
	case R_HOURS_ALARM:
		rtc->cmos[i] = value;
		plan(rtc, t);
		break;
	case R_A:
		write_a(rtc, value, t);
		break;
	case R_B:
		write_b(rtc, value, t, line);
		break;
	case R_C:
	case R_D:
		break;
	default:
		rtc->cmos[i] = value;
		break;
	}
}

/* A change of rate can leave a tick that is overdue: it comes at once. */
static void catch_up_with(struct gclk_rtc *rtc, int64_t t, struct gclk_line *line)
{
	if (facts_of(rtc)->phase_from_now && rtc->periodic_expiry_ns != GCLK_TIMER_OFF &&
	    rtc->periodic_expiry_ns <= t) {
		uint64_t before = line->rises;

		periodic_by_timer(rtc, t, line);
		line->last_rise_ns = line->rises > before ? t : line->last_rise_ns;
	}
}

GCLK_API void gclk_rtc_write(struct gclk_rtc *rtc, uint16_t port, uint8_t value, int64_t t,
			     struct gclk_line *irq8)
{
	struct gclk_line line;

	advance(rtc, t, &line);
	if (port & 1) {
		write_data(rtc, value, t, &line);
		catch_up_with(rtc, t, &line);
	} else {
		/* bit 7 masks the NMI; QEMU does not keep it */
		rtc->cmos_index = facts_of(rtc)->phase_from_now ? value & 0x7f : value;
	}
	end(rtc, &line, irq8);
}

/* ---- lifecycle ---- */

GCLK_API void gclk_rtc_init(struct gclk_rtc *rtc, enum gclk_dialect dialect, int64_t seconds,
			    int64_t t)
{
	*rtc = (struct gclk_rtc){ .dialect = (uint8_t)dialect };
	rtc->has = (UINT64_C(1) << gclk_rtc_n_fields) - 1;
	GCLK_UNSET(rtc, rtc, irq_pending);
	rtc->axis = GCLK_AXIS_GUEST;
	rtc->cmos[R_A] = 0x26;
	rtc->cmos[R_B] = B_24H;
	rtc->cmos[R_D] = 0x80;
	rtc->base_s = seconds;
	rtc->base_at_ns = t;
	rtc->periodic_expiry_ns = GCLK_TIMER_OFF;
	rtc->update_expiry_ns = GCLK_TIMER_OFF;
	rtc->coalesced_expiry_ns = GCLK_TIMER_OFF;
	write_registers(rtc, seconds);
	plan(rtc, t);
}

GCLK_API int gclk_rtc_validate(const struct gclk_rtc *rtc, struct gclk_error *reterr)
{
	uint32_t p = rtc->period_clocks;
	int r = gclk_record_validate(&gclk_rtc_record, rtc, "rtc", reterr);

	if (r < 0 || !rtc->has) {
		return r;
	}
	if (!GCLK_HAS(rtc, rtc, cmos)) {
		return gclk_fail(reterr, GCLK_RANGE, "rtc.cmos", GCLK_NO_OFFSET,
				 "a clock without its registers");
	}
	if (GCLK_HAS(rtc, rtc, period_clocks) && (p & (p - 1))) {
		return gclk_fail(reterr, GCLK_RANGE, "rtc.period_clocks", GCLK_NO_OFFSET,
				 "%u is not a power of 2", p);
	}
	return 0;
}
