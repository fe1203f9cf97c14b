/* SPDX-License-Identifier: MIT */
/*
 * The devices that are not the kernel's: RTC, HPET and ACPI PM timer, which are plain
 * structs of <guestclock/devices.h>, and as much of a serial port as a report needs.
 *
 * The structs read no clock. A guest's access says what time it is, and tells what the
 * access did to the interrupt lines; in between, one timerfd waits for the earliest
 * instant at which any of them will have something to say.
 */
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

#include "minivmm.h"

#define HPET_ADDRESS 0xfed00000u
#define HPET_BYTES 0x400
#define HPET_TIMERS 3
#define HPET_PERIOD_FS 10000000		/* 100 MHz */
#define HPET_ROUTES 0x00ff0000		/* IOAPIC pins 16..23 */
#define PM_IRQ 9
#define SERIAL_PORT 0x3f8
#define NS_PER_S INT64_C(1000000000)

void devices_power_on(struct vm *vm)
{
	int64_t now = gclk_kvm_axis_now(&vm->clocks);

	gclk_rtc_init(&vm->rtc, GCLK_DIALECT_DATASHEET, time(NULL), now);
	gclk_hpet_init(&vm->hpet, GCLK_DIALECT_DATASHEET, HPET_TIMERS, HPET_PERIOD_FS,
		       HPET_ROUTES, now);
	gclk_pm_timer_init(&vm->pm, 24, now);
}

/* ---- interrupt lines ---- */

static void set_line(struct vm *vm, unsigned gsi, uint8_t level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	if (vm->levels[gsi] != level) {
		vm->levels[gsi] = level;
		must(vm->fd, KVM_IRQ_LINE, &line, "KVM_IRQ_LINE");
	}
}

/* A line that rose while nobody looked: an edge, whatever it is now. */
static void follow(struct vm *vm, unsigned gsi, const struct gclk_line *line)
{
	if (line->rises) {
		set_line(vm, gsi, 0);
		set_line(vm, gsi, 1);
	}
	set_line(vm, gsi, line->level);
}

/* In legacy mode timer 1 of the HPET has IRQ 8, and the RTC none. */
static void follow_rtc(struct vm *vm, const struct gclk_line *line)
{
	if (!(vm->hpet.config & 2)) {
		follow(vm, RTC_IRQ, line);
	}
}

/* ... and timer 0 has IRQ 0: the kernel's PIT is told to be silent. */
static void silence_pit(struct vm *vm, bool silent)
{
	struct kvm_pit_state2 pit;

	must(vm->fd, KVM_GET_PIT2, &pit, "KVM_GET_PIT2");
	pit.flags = (pit.flags & ~(uint32_t)KVM_PIT_FLAGS_HPET_LEGACY) |
		    (silent ? KVM_PIT_FLAGS_HPET_LEGACY : 0);
	must(vm->fd, KVM_SET_PIT2, &pit, "KVM_SET_PIT2");
}

static void follow_hpet(struct vm *vm, const struct gclk_hpet_lines *lines)
{
	if (lines->legacy) {
		silence_pit(vm, lines->legacy > 0);
	}
	for (unsigned gsi = 0; gsi < 24; gsi++) {
		if (lines->lowered >> gsi & 1) {
			set_line(vm, gsi, 0);
		}
	}
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		int gsi = gclk_hpet_timer_route(&vm->hpet, n);

		if ((lines->pulsed >> n & 1) && gsi >= 0 && gsi < 24) {
			set_line(vm, (unsigned)gsi, 0);
			set_line(vm, (unsigned)gsi, 1);
			set_line(vm, (unsigned)gsi, lines->level >> n & 1);
		}
	}
}

/* An injection drove lines behind our back: the records say which are up now. */
void devices_injected(struct vm *vm)
{
	if (!(vm->hpet.config & 2)) {
		vm->levels[RTC_IRQ] = vm->rtc.irq_level;
	}
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		int gsi = gclk_hpet_timer_route(&vm->hpet, n);

		if (gsi >= 0 && gsi < 24 && vm->hpet.timers[n].irq_level) {
			vm->levels[gsi] = 1;
		}
	}
}

/* ---- time ---- */

static int64_t earlier(int64_t a, int64_t b)
{
	return a == GCLK_TIMER_OFF || (b != GCLK_TIMER_OFF && b < a) ? b : a;
}

static int64_t next_event(const struct vm *vm, int64_t now)
{
	int64_t next = earlier(gclk_rtc_next_edge(&vm->rtc, now),
			       gclk_pm_timer_next_edge(&vm->pm, now));

	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		if (gclk_hpet_timer_interrupts(&vm->hpet, n)) {
			next = earlier(next, gclk_hpet_timer_next(&vm->hpet, n, now));
		}
	}
	return next;
}

/* An instant of 0 disarms the timer; one that has passed fires at once. */
static void arm(struct vm *vm, int64_t now)
{
	int64_t next = next_event(vm, now), host = next - vm->clocks.axis_ns;
	struct itimerspec when = { 0 };

	if (next != GCLK_TIMER_OFF) {
		when.it_value.tv_sec = host / NS_PER_S;
		when.it_value.tv_nsec = host % NS_PER_S;
	}
	timerfd_settime(vm->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Expiries since the record was last advanced, up to now. */
static uint64_t hpet_expiries(const struct vm *vm, unsigned n, int64_t now)
{
	int64_t next = vm->hpet.timers[n].expiry_ns;

	return next == GCLK_TIMER_OFF || !gclk_hpet_timer_interrupts(&vm->hpet, n) ?
		       0 : gclk_hpet_timer_edges(&vm->hpet, n, next - 1, now);
}

static uint64_t rtc_expiries(const struct vm *vm, int64_t now)
{
	struct gclk_cadence cadence;

	gclk_rtc_cadence(&vm->rtc, &cadence);
	return cadence.armed ? gclk_rtc_periodic_edges(&vm->rtc, vm->rtc.next_periodic_ns - 1, now)
			     : 0;
}

/*
 * While owed ticks are being delivered, one of the present may find its line still up with
 * one of the past. Both are the guest's: what did not raise the line is owed as well.
 */
static void count_lost(struct vm *vm, int64_t now)
{
	uint64_t expiries[HPET_TIMERS], rtc;
	struct gclk_hpet_lines lines;
	struct gclk_line line;

	if (!vm->plan || vm->plan->replay.phase != GCLK_REPLAY_RUNNING) {
		return;
	}
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		expiries[n] = hpet_expiries(vm, n, now);
	}
	gclk_hpet_advance(&vm->hpet, now, &lines);
	follow_hpet(vm, &lines);
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		if (expiries[n] > lines.rises[n]) {
			gclk_replay_owe(&vm->plan->replay, GCLK_TICK_HPET, n,
					(uint32_t)(expiries[n] - lines.rises[n]));
		}
	}
	rtc = rtc_expiries(vm, now);
	gclk_rtc_advance(&vm->rtc, now, &line);
	follow_rtc(vm, &line);
	if (rtc > line.rises) {
		gclk_replay_owe(&vm->plan->replay, GCLK_TICK_RTC, 0, (uint32_t)(rtc - line.rises));
	}
}

void devices_advance(struct vm *vm)
{
	int64_t now = gclk_kvm_axis_now(&vm->clocks);
	struct gclk_hpet_lines lines;
	struct gclk_line line;

	count_lost(vm, now);
	gclk_rtc_advance(&vm->rtc, now, &line);
	follow_rtc(vm, &line);
	gclk_hpet_advance(&vm->hpet, now, &lines);
	follow_hpet(vm, &lines);
	gclk_pm_timer_advance(&vm->pm, now, &line);
	follow(vm, PM_IRQ, &line);
	arm(vm, now);
}

static uint64_t period_of(const struct gclk_cadence *cadence)
{
	return cadence->armed && cadence->periodic ? cadence->period_num / cadence->period_den : 0;
}

/* An access may have given a timer another rate, or switched it off: owed ticks follow. */
static void follow_periods(struct vm *vm)
{
	struct gclk_cadence cadence;

	if (!vm->plan || vm->plan->replay.phase != GCLK_REPLAY_RUNNING) {
		return;
	}
	gclk_rtc_cadence(&vm->rtc, &cadence);
	gclk_replay_retime(&vm->plan->replay, GCLK_TICK_RTC, 0, period_of(&cadence));
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		gclk_hpet_timer_cadence(&vm->hpet, n, &cadence);
		gclk_replay_retime(&vm->plan->replay, GCLK_TICK_HPET, n, period_of(&cadence));
	}
}

/* ---- the guest's accesses ---- */

static uint8_t access_rtc(struct vm *vm, uint16_t port, uint8_t value, bool write)
{
	int64_t now = gclk_kvm_axis_now(&vm->clocks);
	struct gclk_line line;

	count_lost(vm, now);
	if (write) {
		gclk_rtc_write(&vm->rtc, port, value, now, &line);
		follow_periods(vm);
	} else {
		value = gclk_rtc_read(&vm->rtc, port, now, &line);
		if (vm->plan && port == 0x71 && (vm->rtc.cmos_index & 0x7f) == 0x0c) {
			gclk_replay_acknowledge(&vm->plan->replay, GCLK_TICK_RTC, 0);
		}
	}
	follow_rtc(vm, &line);
	arm(vm, now);
	return value;
}

static uint32_t access_pm(struct vm *vm, unsigned reg, uint32_t value, bool write)
{
	int64_t now = gclk_kvm_axis_now(&vm->clocks);
	struct gclk_line line;

	if (write) {
		gclk_pm_timer_write(&vm->pm, reg, value, now, &line);
	} else {
		value = gclk_pm_timer_read(&vm->pm, reg, now, &line);
	}
	follow(vm, PM_IRQ, &line);
	arm(vm, now);
	return value;
}

static uint64_t access_hpet(struct vm *vm, uint32_t offset, unsigned size, uint64_t value,
			    bool write)
{
	int64_t now = gclk_kvm_axis_now(&vm->clocks);
	struct gclk_hpet_lines lines;

	count_lost(vm, now);
	if (write) {
		gclk_hpet_write(&vm->hpet, offset, size, value, now, &lines);
		follow_periods(vm);
	} else {
		value = gclk_hpet_read(&vm->hpet, offset, size, now, &lines);
	}
	follow_hpet(vm, &lines);
	arm(vm, now);
	return value;
}

/* The transmitter is always empty; what is sent is standard output. */
static uint8_t access_serial(struct vm *vm, unsigned reg, uint8_t value, bool write)
{
	if (!write) {
		return reg == 5 ? 0x60 : reg == 3 ? vm->serial_lcr : 0;
	}
	if (reg == 3) {
		vm->serial_lcr = value;
	} else if (reg == 0 && !(vm->serial_lcr & 0x80)) {
		putchar(value);
		if (value == '@' || value == '\n') {
			fflush(stdout);		/* a mark, whose arrival is stamped, or a line */
		}
	}
	return value;
}

void device_port(struct vm *vm, uint16_t port, void *data, unsigned size, bool write)
{
	uint32_t value = 0xffffffff;

	if (write) {
		memcpy(&value, data, size);
	}
	pthread_mutex_lock(&vm->lock);
	if (port == 0x70 || port == 0x71) {
		value = access_rtc(vm, port, (uint8_t)value, write);
	} else if (port >= SERIAL_PORT && port < SERIAL_PORT + 8) {
		value = access_serial(vm, port - SERIAL_PORT, (uint8_t)value, write);
	} else if (port >= PM_BASE && port < PM_BASE + 12) {
		value = access_pm(vm, port - PM_BASE, value, write);
	}
	pthread_mutex_unlock(&vm->lock);
	if (!write) {
		memcpy(data, &value, size);
	}
}

void device_memory(struct vm *vm, uint64_t address, void *data, unsigned size, bool write)
{
	uint64_t value = UINT64_MAX, offset = address - HPET_ADDRESS;

	if (write) {
		memcpy(&value, data, size);
	}
	if (offset < HPET_BYTES && (size == 4 || size == 8) && offset % size == 0) {
		pthread_mutex_lock(&vm->lock);
		value = access_hpet(vm, (uint32_t)offset, size, value, write);
		pthread_mutex_unlock(&vm->lock);
	}
	if (!write) {
		memcpy(data, &value, size);
	}
}
