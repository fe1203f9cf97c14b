/* SPDX-License-Identifier: MIT */
/*
 * The timer devices of a PC, as plain values.
 *
 * One struct per device (<guestclock/state.h>) is both the live device and its
 * saved form. No function here reads a clock, allocates, or remembers anything
 * outside the struct: the instant is always an argument, in ns on the axis that
 * the device stands on (the guest's shared axis; the RTC's own .axis). A state
 * says what the device is from its last change on; asking about an earlier
 * instant gives what it would have been without that change.
 *
 * Each device answers, without changing:
 *	_peek		its registers as the guest would read them at t
 *	_next_edge	when its interrupt next rises, strictly after t
 *	_edges		how many times it rises in (t0, t1]
 * and _advance turns the state at one instant into the state at a later one. The
 * cost of none of them depends on how far the instants lie apart. _read and
 * _write are the guest's accesses, with their side effects; they advance first.
 *
 * Where implementations differ, .dialect says whose device it is, and a const
 * struct of facts says what that means: gclk_pit_dialects and its siblings.
 */
#ifndef GUESTCLOCK_DEVICES_H
#define GUESTCLOCK_DEVICES_H

#include <guestclock/state.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GCLK_N_DIALECTS 3

/*
 * What an interrupt line did during a call. Results are written whole: a caller
 * that wants a total adds up. Every pointer to one may be NULL.
 */
struct gclk_line {
	uint64_t rises;		/* rising edges; a pulse counts as one */
	int64_t last_rise_ns;	/* the last of them; GCLK_TIMER_OFF: none */
	uint8_t level;		/* at the end; 0 after a pulse */
};

/* A timer as a ledger sees it. */
struct gclk_cadence {
	uint8_t armed;		/* it will fire (again) if nobody touches it */
	uint8_t periodic;
	uint64_t period_num;	/* the period is period_num / period_den ns; 0 / 1 if */
	uint64_t period_den;	/* the timer is not periodic */
};

/* ---- PIT (i8254) ---- */

#define GCLK_PIT_HZ 1193182
#define GCLK_PIT_CHANNELS 3

struct gclk_pit_dialect {
	const char *name;
	uint8_t counts_bcd;		/* BCD mode is honoured, not only stored */
	uint8_t loads_on_clock;		/* a count is loaded at the next CLK; null count is shown */
	uint8_t gate_stops;		/* a low gate stops counting */
	uint8_t reload_waits;		/* modes 2 and 3 take a new count at the end of the (half) period */
	uint8_t low_at_one;		/* mode 2: OUT is low while the count is 1, else high only at reload */
	uint8_t low_pulse;		/* modes 4, 5 strobe low, mode 1 is low while it counts; else the inverse */
	uint8_t odd_by_halves;		/* mode 3, odd: two halves from N - 1; else count - 2d mod count */
	uint8_t modes_6_7_alias;	/* modes 6, 7 are 2, 3 */
	uint8_t steps_by_timer;		/* IRQ0 follows a timer that rounds each transition down to a ns */
	uint8_t period_in_ns;		/* IRQ0 is a pulse every floor(count / clock) ns */
	uint8_t refresh_by_read;	/* port 0x61 bit 4 toggles at each read, else with time */
	uint8_t refresh_shift;		/* log2 of its half period in ns, where it follows time */
	uint32_t min_period_ns;		/* shorter periods are stretched to this */
	uint8_t reset_mode;		/* mode after power-on */
};
extern const struct gclk_pit_dialect *const gclk_pit_dialects;	/* GCLK_N_DIALECTS */

/* Power-on at @t. */
void gclk_pit_init(struct gclk_pit *pit, enum gclk_dialect dialect, int64_t t);

int gclk_pit_validate(const struct gclk_pit *pit, struct gclk_error *reterr);

/**
 * gclk_pit_count_at() - what the counting element of a channel holds
 * @n:	channel 0..2
 *
 * Units: ticks of GCLK_PIT_HZ as a guest reads them, in BCD where the channel counts
 *        so; 0 stands for 65536 (10000)
 */
uint16_t gclk_pit_count_at(const struct gclk_pit *pit, unsigned n, int64_t t);

/* The output of a channel, 0 or 1, from its count alone. */
int gclk_pit_out_at(const struct gclk_pit *pit, unsigned n, int64_t t);

/* Rising edges of IRQ0; _last_edge is at or before @t. GCLK_TIMER_OFF: none. */
int64_t gclk_pit_next_edge(const struct gclk_pit *pit, int64_t t);
int64_t gclk_pit_last_edge(const struct gclk_pit *pit, int64_t t);
uint64_t gclk_pit_edges(const struct gclk_pit *pit, int64_t t0, int64_t t1);
void gclk_pit_cadence(const struct gclk_pit *pit, struct gclk_cadence *ret);

/**
 * gclk_pit_transition_after() - the next change of IRQ0 that the device plans, after @t
 *
 * For a dialect that steps by timer it is the value that the device's own
 * next_transition_time has once everything up to and including @t was handled.
 * GCLK_TIMER_OFF: none.
 */
int64_t gclk_pit_transition_after(const struct gclk_pit *pit, int64_t t);

/**
 * gclk_pit_transition_raising() - the last planned change at or before @t that raises IRQ0
 *
 * A device restored with this as its next transition, at @t, delivers exactly one
 * interrupt for all that it missed. GCLK_TIMER_OFF: no edge fell between the state's
 * own next transition and @t.
 */
int64_t gclk_pit_transition_raising(const struct gclk_pit *pit, int64_t t);

void gclk_pit_advance(struct gclk_pit *pit, int64_t t, struct gclk_line *irq0);

/* Ports 0x40..0x43 and 0x61. */
uint8_t gclk_pit_peek(const struct gclk_pit *pit, uint16_t port, int64_t t);
uint8_t gclk_pit_read(struct gclk_pit *pit, uint16_t port, int64_t t, struct gclk_line *irq0);
void gclk_pit_write(struct gclk_pit *pit, uint16_t port, uint8_t value, int64_t t,
		    struct gclk_line *irq0);

/* The HPET's legacy mode cuts channel 0 off (1) or lets it through again (0). */
void gclk_pit_silence(struct gclk_pit *pit, int silent, int64_t t, struct gclk_line *irq0);

/*
 * Somebody else drove IRQ0 low (gclk_hpet_lines.lowered): a device that tells its level
 * again and again raises it with the next telling, even without a change of its own.
 */
void gclk_pit_lowered(struct gclk_pit *pit);

/* ---- RTC (MC146818) ---- */

#define GCLK_RTC_HZ 32768

struct gclk_rtc_dialect {
	const char *name;
	uint8_t pf_needs_pie;		/* the periodic flag is set only while PIE is */
	uint8_t plus_one_ns;		/* periodic instants are floor(clock) + 1 ns on the device's own axis */
	uint8_t phase_from_now;		/* periodic phase follows the last change, else the divider chain */
	uint8_t alarm_pm_of_hours;	/* 12 h alarms take AM/PM from the hours register and misread PM hours */
	uint8_t set_clears_uie;		/* writing SET clears UIE */
	uint8_t enable_raises;		/* enabling an interrupt whose flag is set raises the line */
	uint8_t update_by_timer;	/* UF and AF stop being looked at while UF (and AF) stay unread */
	uint8_t wraps_64;		/* time is kept in 64-bit ns and wraps after 584 years */
	uint32_t uip_before_ns;		/* UIP is set this long before the update */
	uint32_t update_ns;		/* ... and the update takes this long */
	uint8_t other_crystals;		/* dividers 000, 001 have rates of their own for RS 1, 2 */
	uint8_t acks_to_reinject;	/* ticks replayed in a row by reads of register C */
};
extern const struct gclk_rtc_dialect *const gclk_rtc_dialects;	/* GCLK_N_DIALECTS */

/* Power-on at @t, showing @seconds since 1970; BCD, 24 h, 1024 Hz selected, nothing enabled. */
void gclk_rtc_init(struct gclk_rtc *rtc, enum gclk_dialect dialect, int64_t seconds, int64_t t);

int gclk_rtc_validate(const struct gclk_rtc *rtc, struct gclk_error *reterr);

/*
 * Seconds since 1970 of what the clock shows; the sub-second part in ns goes to @ret_ns.
 * QEMU divides towards zero: there it is negative before 1970.
 */
int64_t gclk_rtc_seconds_at(const struct gclk_rtc *rtc, int64_t t, int64_t *ret_ns);

/* Whether time goes on: SET is clear and the divider runs. */
int gclk_rtc_is_running(const struct gclk_rtc *rtc);

/* Clocks of 32768 Hz between periodic ticks; 0: none. */
uint32_t gclk_rtc_period_clocks(uint8_t reg_a);

/* Writes time and date at @t into the registers, in the guest's own format. */
void gclk_rtc_sync_cmos(struct gclk_rtc *rtc, int64_t t);

/*
 * Periodic ticks, whether or not the guest has acknowledged the one before;
 * _last is at or before @t. GCLK_TIMER_OFF: none.
 */
int64_t gclk_rtc_periodic_next(const struct gclk_rtc *rtc, int64_t t);
int64_t gclk_rtc_periodic_last(const struct gclk_rtc *rtc, int64_t t);
uint64_t gclk_rtc_periodic_edges(const struct gclk_rtc *rtc, int64_t t0, int64_t t1);
void gclk_rtc_cadence(const struct gclk_rtc *rtc, struct gclk_cadence *ret);

/* Ends of the update cycle, and among them those that match the alarm. */
int64_t gclk_rtc_update_next(const struct gclk_rtc *rtc, int64_t t);
uint64_t gclk_rtc_updates(const struct gclk_rtc *rtc, int64_t t0, int64_t t1);
int64_t gclk_rtc_alarm_next(const struct gclk_rtc *rtc, int64_t t);
uint64_t gclk_rtc_alarms(const struct gclk_rtc *rtc, int64_t t0, int64_t t1);

/* Rising edges of IRQ8: it stays up until register C is read. */
int64_t gclk_rtc_next_edge(const struct gclk_rtc *rtc, int64_t t);
uint64_t gclk_rtc_edges(const struct gclk_rtc *rtc, int64_t t0, int64_t t1);

void gclk_rtc_advance(struct gclk_rtc *rtc, int64_t t, struct gclk_line *irq8);

/*
 * The processor has taken the interrupt. Whoever calls this, and sets .irq_pending at the
 * start, makes the line one of an IOAPIC: a tick that finds the interrupt pending is lost
 * (or owed), one that finds it taken interrupts again although register C was not read.
 * Without, the line is one of a PIC, and pending until register C is read.
 */
void gclk_rtc_taken(struct gclk_rtc *rtc);

/* Ports 0x70 and 0x71. */
uint8_t gclk_rtc_peek(const struct gclk_rtc *rtc, uint16_t port, int64_t t);
uint8_t gclk_rtc_read(struct gclk_rtc *rtc, uint16_t port, int64_t t, struct gclk_line *irq8);
void gclk_rtc_write(struct gclk_rtc *rtc, uint16_t port, uint8_t value, int64_t t,
		    struct gclk_line *irq8);

/* ---- HPET ---- */

#define GCLK_HPET_MAX_PERIOD_FS 100000000

struct gclk_hpet_dialect {
	const char *name;
	uint32_t period_fs;		/* the period it always has; 0: any */
	uint8_t counts_by_offset;	/* the counter is (axis + offset) / period, the fraction is the axis' */
	uint8_t one_shot_32_once;	/* a 32-bit one-shot fires at its match once, not at every wrap */
	uint8_t fires_at_wrap;		/* ... and once when the counter reaches 0xffffffff */
	uint8_t past_fires;		/* a comparator up to half the range behind fires one tick later */
	uint8_t arms_disabled;		/* comparators run although their interrupt is not enabled */
	uint8_t set_needs_low;		/* VAL_SET is spent by the first half of a 64-bit write */
	uint8_t exact_twice;		/* an expiry handled in its very ns (.exact) fires again a tick later */
	uint8_t period_31_bits;		/* each half of a periodic value loses its top bit */
	uint8_t lowers_on_disable;	/* disabling a timer clears its status and lowers its line */
	uint32_t capability;		/* low half of the capability register, without the timer count */
};
extern const struct gclk_hpet_dialect *const gclk_hpet_dialects;	/* GCLK_N_DIALECTS */

/* What a call to the HPET did. */
struct gclk_hpet_lines {
	uint32_t pulsed;		/* bit n: timer n's line rose (and fell, if edge-triggered) */
	uint32_t level;			/* bit n: timer n's line is up afterwards */
	uint32_t lowered;		/* bit n: input n was driven low, whoever else had raised it */
	uint64_t rises[GCLK_HPET_TIMERS_MAX];	/* by timer; FSB messages count as rises */
	int8_t legacy;			/* 1: legacy mode began, PIT and RTC are cut off; -1: it ended */
};

void gclk_hpet_init(struct gclk_hpet *hpet, enum gclk_dialect dialect, unsigned n_timers,
		    uint32_t period_fs, uint32_t route_capable, int64_t t);

int gclk_hpet_validate(const struct gclk_hpet *hpet, struct gclk_error *reterr);

/* The main counter; @ret_frac_fs (may be NULL) is the part of a tick beyond it. */
uint64_t gclk_hpet_counter_at(const struct gclk_hpet *hpet, int64_t t, uint32_t *ret_frac_fs);

/* Expiries of timer @n, enabled to interrupt or not; _last is at or before @t. */
int64_t gclk_hpet_timer_next(const struct gclk_hpet *hpet, unsigned n, int64_t t);
int64_t gclk_hpet_timer_last(const struct gclk_hpet *hpet, unsigned n, int64_t t);
uint64_t gclk_hpet_timer_edges(const struct gclk_hpet *hpet, unsigned n, int64_t t0, int64_t t1);
void gclk_hpet_timer_cadence(const struct gclk_hpet *hpet, unsigned n, struct gclk_cadence *ret);

/* Whether an expiry of the timer reaches the guest: counter and interrupt are enabled. */
int gclk_hpet_timer_interrupts(const struct gclk_hpet *hpet, unsigned n);

void gclk_hpet_advance(struct gclk_hpet *hpet, int64_t t, struct gclk_hpet_lines *lines);

/* @size 4 or 8, @offset a multiple of it, below 0x400. */
uint64_t gclk_hpet_peek(const struct gclk_hpet *hpet, uint32_t offset, unsigned size, int64_t t);
uint64_t gclk_hpet_read(struct gclk_hpet *hpet, uint32_t offset, unsigned size, int64_t t,
			struct gclk_hpet_lines *lines);
void gclk_hpet_write(struct gclk_hpet *hpet, uint32_t offset, unsigned size, uint64_t value,
		     int64_t t, struct gclk_hpet_lines *lines);

/* The input of an interrupt controller that timer @n drives: 0 and 8 in legacy mode; -1: FSB. */
int gclk_hpet_timer_route(const struct gclk_hpet *hpet, unsigned n);

/**
 * gclk_hpet_convert() - the same HPET as another device, with another period
 * @to:	whose device it becomes
 * @period_fs:	its period, 1..GCLK_HPET_MAX_PERIOD_FS
 * @t:	the instant of the change
 * @ret_error_fs: the largest error of a period or of an expiry; may be NULL
 *
 * The counter goes on from the same reading at the new rate. What is left until each
 * comparator matches, and the period of each periodic timer, last as long as before,
 * rounded to the nearest tick.
 *
 * Errors: GCLK_UNSUPPORTED where the dialect's period is fixed and another one,
 *         GCLK_RANGE
 */
int gclk_hpet_convert(struct gclk_hpet *hpet, enum gclk_dialect to, uint32_t period_fs, int64_t t,
		      uint64_t *ret_error_fs, struct gclk_error *reterr);

/* ---- LAPIC timer ---- */

struct gclk_lapic_dialect {
	const char *name;
	uint8_t counts_to_minus_one;	/* the period is initial count + 1, not initial count */
	uint8_t masked_stops;		/* a masked timer is not armed; unmasking arms it on its old grid */
	uint8_t divider_is_lazy;	/* a new divider counts at once but does not move an armed expiry */
	uint8_t has_deadline;		/* the TSC-deadline mode exists */
	uint8_t mode_change_clears;	/* entering or leaving deadline mode clears the counts */
	uint32_t min_period_ns;		/* shorter periods are stretched to this */
	uint32_t lvt_mask;		/* bits of the LVT register that can be written */
};
extern const struct gclk_lapic_dialect *const gclk_lapic_dialects;	/* GCLK_N_DIALECTS */

void gclk_lapic_init(struct gclk_lapic *lapic, enum gclk_dialect dialect, uint32_t bus_ns,
		     int64_t t);

int gclk_lapic_validate(const struct gclk_lapic *lapic, struct gclk_error *reterr);

/* 1, 2, 4 ... 128 for a divide configuration register. */
unsigned gclk_lapic_divider(uint32_t divide_config);

uint32_t gclk_lapic_count_at(const struct gclk_lapic *lapic, int64_t t);

/* Expiries of the counting modes; _last is at or before @t. GCLK_TIMER_OFF: none. */
int64_t gclk_lapic_next(const struct gclk_lapic *lapic, int64_t t);
int64_t gclk_lapic_last(const struct gclk_lapic *lapic, int64_t t);
uint64_t gclk_lapic_edges(const struct gclk_lapic *lapic, int64_t t0, int64_t t1);
void gclk_lapic_cadence(const struct gclk_lapic *lapic, struct gclk_cadence *ret);

/* Whether an expiry reaches the processor: not masked. */
int gclk_lapic_interrupts(const struct gclk_lapic *lapic);

/**
 * gclk_lapic_deadline_ns() - how long from the reading of a TSC to its deadline
 * @tsc:	value_ticks, frequency_hz (over frequency_den) and deadline_ticks present
 *
 * Returns ns, rounded up, 0 for a deadline that has passed, GCLK_TIMER_OFF where
 * none is set.
 */
int64_t gclk_lapic_deadline_ns(const struct gclk_tsc *tsc);

void gclk_lapic_advance(struct gclk_lapic *lapic, int64_t t, struct gclk_line *irq);

/* Offsets 0x320 (LVT timer), 0x380, 0x390 and 0x3e0 of the register page. */
uint32_t gclk_lapic_peek(const struct gclk_lapic *lapic, uint32_t offset, int64_t t);
uint32_t gclk_lapic_read(struct gclk_lapic *lapic, uint32_t offset, int64_t t,
			 struct gclk_line *irq);
void gclk_lapic_write(struct gclk_lapic *lapic, uint32_t offset, uint32_t value, int64_t t,
		      struct gclk_line *irq);

/* ---- ACPI PM timer ---- */

#define GCLK_PM_TIMER_HZ 3579545

/* Register offsets from the base of the PM block. */
#define GCLK_PM_STATUS 0
#define GCLK_PM_ENABLE 2
#define GCLK_PM_TIMER 8

void gclk_pm_timer_init(struct gclk_pm_timer *pm, unsigned bits, int64_t t);

int gclk_pm_timer_validate(const struct gclk_pm_timer *pm, struct gclk_error *reterr);

uint32_t gclk_pm_timer_at(const struct gclk_pm_timer *pm, int64_t t);

/* Changes of the counter's top bit, each of which sets TMR_STS. */
int64_t gclk_pm_timer_overflow_next(const struct gclk_pm_timer *pm, int64_t t);
uint64_t gclk_pm_timer_overflows(const struct gclk_pm_timer *pm, int64_t t0, int64_t t1);

/* Rising edges of the system control interrupt: it stays up until TMR_STS is cleared. */
int64_t gclk_pm_timer_next_edge(const struct gclk_pm_timer *pm, int64_t t);
uint64_t gclk_pm_timer_edges(const struct gclk_pm_timer *pm, int64_t t0, int64_t t1);

void gclk_pm_timer_advance(struct gclk_pm_timer *pm, int64_t t, struct gclk_line *sci);

uint32_t gclk_pm_timer_peek(const struct gclk_pm_timer *pm, unsigned reg, int64_t t);
uint32_t gclk_pm_timer_read(struct gclk_pm_timer *pm, unsigned reg, int64_t t,
			    struct gclk_line *sci);
void gclk_pm_timer_write(struct gclk_pm_timer *pm, unsigned reg, uint32_t value, int64_t t,
			 struct gclk_line *sci);

/* ---- i6300ESB watchdog: what a gap would trigger ---- */

enum gclk_watchdog_event {
	GCLK_WATCHDOG_NONE = 0,
	GCLK_WATCHDOG_INTERRUPT = 1,	/* the first stage ends */
	GCLK_WATCHDOG_RESET = 2,	/* the second stage ends, and resets the guest */
	GCLK_WATCHDOG_RELOAD = 3,	/* the second stage ends without a reset */
};

int gclk_i6300esb_validate(const struct gclk_i6300esb *wdt, struct gclk_error *reterr);

/* How long a stage lasts with its preload. */
int64_t gclk_i6300esb_stage_ns(const struct gclk_i6300esb *wdt, unsigned stage);

/**
 * gclk_i6300esb_next() - the first thing that happens strictly after @t
 * @ret_event:	what it is
 *
 * Returns its instant, or GCLK_TIMER_OFF.
 */
int64_t gclk_i6300esb_next(const struct gclk_i6300esb *wdt, int64_t t,
			   enum gclk_watchdog_event *ret_event);

/* The worst that happens in (t0, t1]. */
enum gclk_watchdog_event gclk_i6300esb_worst(const struct gclk_i6300esb *wdt, int64_t t0,
					     int64_t t1);

#ifdef __cplusplus
}
#endif
#endif
