/* SPDX-License-Identifier: MIT */
/*
 * The timers: finding, arming, reading, acknowledging.
 *
 * Not used: PIT channel 0 in other modes than 2; HPET timers 1 and up except in legacy
 * replacement; the alarm of the RTC.
 */
#include "guest.h"

#define HPET_BASE	0xfed00000u
#define HPET_PERIOD	0x004
#define HPET_CONFIG	0x010
#define HPET_STATUS	0x020
#define HPET_COUNTER	0x0f0
#define HPET_T0_CONFIG	0x100
#define HPET_T0_ROUTES	0x104
#define HPET_T0_CMP	0x108

#define TN_LEVEL	(1u << 1)
#define TN_ENABLE	(1u << 2)
#define TN_PERIODIC	(1u << 3)
#define TN_SETVAL	(1u << 6)
#define TN_32BIT	(1u << 8)

#define MSR_TSC_DEADLINE 0x6e0u

uintptr_t hpet_base;
uint16_t pm_timer_port;
volatile uint64_t edge_time_bcd;
volatile uint64_t edge_not_before;

static uint32_t lapic_mode;		/* bits 17..18 of the LVT entry */
static uint32_t lapic_count;		/* initial count, or TSC ticks for the deadline */
static bool hpet_level;
static uintptr_t watchdog;

/* ---- finding ---- */

static uint32_t pci_read(unsigned int device, unsigned int function, unsigned int reg)
{
	outl(0xcf8, 0x80000000u | device << 11 | function << 8 | reg);
	return inl(0xcfc);
}

static void pci_write(unsigned int device, unsigned int function, unsigned int reg,
		      uint32_t value)
{
	outl(0xcf8, 0x80000000u | device << 11 | function << 8 | reg);
	outl(0xcfc, value);
}

/* The power management blocks of PIIX4 (function 3) and ICH9 have PMBASE at 0x40. */
static void find_pm_timer(void)
{
	for (unsigned int slot = 0; slot < 32 * 8; slot++) {
		uint32_t id = pci_read(slot / 8, slot % 8, 0);

		if (id == 0x71138086u || id == 0x29188086u) {
			uint32_t base = pci_read(slot / 8, slot % 8, 0x40) & 0xff80;

			pm_timer_port = base ? base + 8 : 0;
			return;
		}
	}
}

static void find_hpet(void)
{
	uint32_t period_fs;

	if (option_is("hpet", "none")) {
		return;
	}
	period_fs = mmio_read(HPET_BASE + HPET_PERIOD);
	if (period_fs >= 100000 && period_fs <= 100000000) {
		hpet_base = HPET_BASE;
		mmio_write(HPET_BASE + HPET_CONFIG, 0);
		mmio_write(HPET_BASE + HPET_COUNTER, 0);
		mmio_write(HPET_BASE + HPET_COUNTER + 4, 0);
		mmio_write(HPET_BASE + HPET_CONFIG, 1);
	}
}

static void start_channel_2(void)
{
	outb(0x61, (inb(0x61) & 0xfc) | 1);	/* gate on, speaker off */
	outb(0x43, 0xb4);			/* channel 2, both bytes, mode 2 */
	outb(0x42, 0);
	outb(0x42, 0);				/* 65536 */
}

void find_clocks(void)
{
	pm_timer_port = option_number("pmport", 0);
	if (!pm_timer_port) {
		find_pm_timer();
	}
	find_hpet();
	start_channel_2();
	pvclock_init();
}

/* ---- reading ---- */

uint16_t pit_latch(unsigned int channel)
{
	uint8_t low;

	outb(0x43, channel << 6);
	low = inb(0x40 + channel);
	return low | inb(0x40 + channel) << 8;
}

uint64_t hpet_counter(void)
{
	uint32_t high, low;

	do {
		high = mmio_read(hpet_base + HPET_COUNTER + 4);
		low = mmio_read(hpet_base + HPET_COUNTER);
	} while (high != mmio_read(hpet_base + HPET_COUNTER + 4));
	return (uint64_t)high << 32 | low;
}

uint8_t rtc_read(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void rtc_write(uint8_t reg, uint8_t value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

/* Century to second, two digits each, as the registers hold them (BCD unless set up
   otherwise by the firmware). */
uint64_t rtc_time_bcd(void)
{
	static const uint8_t regs[] = { 0x32, 9, 8, 7, 4, 2, 0 };
	uint64_t time = 0;

	for (size_t i = 0; i < sizeof(regs); i++) {
		time = time << 8 | rtc_read(regs[i]);
	}
	return time;
}

/* Ten milliseconds of channel 2, which runs down from 65536 once in 55 ms. */
uint32_t calibrate_tsc(void)
{
	const uint16_t ticks = PIT_HZ / 100;
	uint16_t start = pit_latch(2);
	uint64_t tsc = rdtsc();

	while ((uint16_t)(start - pit_latch(2)) < ticks) {
		__asm__ volatile("pause");
	}
	return (uint32_t)(rdtsc() - tsc) / 10;
}

/* ---- acknowledging ---- */

void ack_rtc(uint64_t tsc)
{
	uint8_t cause = rtc_read(0x0c);

	if (cause & 0x40) {
		tallies[SRC_RTC].count++;
		tallies[SRC_RTC].last_tsc = tsc;
	}
	if (cause & 0x10) {
		tallies[SRC_UPDATE].count++;
		tallies[SRC_UPDATE].last_tsc = tsc;
		edge_time_bcd = rtc_time_bcd();
	}
}

bool ack_hpet(void)
{
	if (hpet_level) {
		if (!(mmio_read(hpet_base + HPET_STATUS) & 1)) {
			return false;
		}
		mmio_write(hpet_base + HPET_STATUS, 1);
	}
	return true;
}

void rearm_lapic(void)
{
	if (lapic_mode == 0) {
		mmio_write(LAPIC + LAPIC_INITIAL, lapic_count);
	} else if (lapic_mode == 2) {
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + lapic_count);
	}
}

/* ---- arming ---- */

static void arm_pit(uint32_t hz)
{
	uint32_t n = PIT_HZ / hz;

	n = n > 65536 ? 65536 : n;
	route_isa(0, VEC_PIT);
	outb(0x43, 0x34);			/* channel 0, both bytes, mode 2 */
	outb(0x40, n & 0xff);
	outb(0x40, n >> 8 & 0xff);
}

/* Rates are 2^k from 2 to 8192 Hz: the divider selects 65536 >> rate. */
static void arm_rtc(uint32_t hz, bool update_edges)
{
	uint8_t b = rtc_read(0x0b) & 0x07;
	uint8_t rate = 0;

	while (hz && 65536u >> rate > hz) {
		rate++;
	}
	route_isa(8, VEC_RTC);
	rtc_write(0x0a, 0x20 | rate);
	rtc_write(0x0b, b | (hz ? 0x40 : 0) | (update_edges ? 0x10 : 0));
	rtc_read(0x0c);
}

/* The comparator first, then the period: two writes of the same register, both with
   "set value" up, which the low half takes away. The high half starts as all ones. */
static void hpet_program(uint32_t config, uint32_t period)
{
	uintptr_t t0 = hpet_base + HPET_T0_CONFIG;
	uint64_t first = hpet_counter() + period;

	mmio_write(t0, config | TN_PERIODIC | TN_SETVAL);
	mmio_write(hpet_base + HPET_T0_CMP + 4, config & TN_32BIT ? 0 : first >> 32);
	mmio_write(t0, config | TN_PERIODIC | TN_SETVAL);
	mmio_write(hpet_base + HPET_T0_CMP, (uint32_t)first);
	mmio_write(hpet_base + HPET_T0_CMP, period);
	mmio_write(t0, config | TN_PERIODIC | TN_ENABLE);
}

/*
 * On an IOAPIC pin of its own (16 or above) where the timer has one; else legacy
 * replacement, which takes IRQ 0 from the PIT and IRQ 8 from the RTC.
 */
static void arm_hpet(uint32_t hz)
{
	uint32_t routes = mmio_read(hpet_base + HPET_T0_ROUTES) & 0x00ff0000;
	uint32_t config = option_is("hpetbits", "32") ? TN_32BIT : 0;
	/* 10^15 fs / period / hz, without 64-bit division: the period in us, exact at 10 ns */
	uint32_t period_fs = mmio_read(hpet_base + HPET_PERIOD);
	uint32_t per_second = 1000000000u / (period_fs / 1000000u);
	unsigned int pin = 2;

	if (routes && !option_is("hpetmode", "legacy")) {
		pin = 31 - (unsigned int)__builtin_clz(routes);
		hpet_level = !option_is("hpettype", "edge");
		config |= pin << 9 | (hpet_level ? TN_LEVEL : 0);
	} else {
		mmio_write(hpet_base + HPET_CONFIG, 3);
	}
	route(pin, VEC_HPET, hpet_level);
	hpet_program(config, per_second / hz);
}

void arm_lapic(void)
{
	if (!lapic_count) {
		return;
	}
	mmio_write(LAPIC + LAPIC_DIVIDE, 0xb);	/* by 1 */
	mmio_write(LAPIC + LAPIC_LVT_TIMER, VEC_LAPIC | lapic_mode << 17);
	if (lapic_mode == 1) {
		mmio_write(LAPIC + LAPIC_INITIAL, lapic_count);
	} else {
		rearm_lapic();
	}
}

static void choose_lapic(uint32_t hz, uint32_t tsc_khz)
{
	uint32_t r[4];

	lapic_mode = option_is("lapicmode", "oneshot") ? 0 : 1;
	lapic_count = option_number("lapichz", 1000000000u) / hz;
	cpuid(1, r);
	if (option_is("lapicmode", "deadline") && r[2] >> 24 & 1) {
		lapic_mode = 2;
		lapic_count = tsc_khz / hz * 1000;
	}
}

/* The i6300esb: two stages of half the time each, 1 kHz steps, reset after the second. */
static void arm_watchdog(uint32_t seconds)
{
	for (unsigned int device = 0; device < 32; device++) {
		if (pci_read(device, 0, 0) != 0x25ab8086u) {
			continue;
		}
		pci_write(device, 0, 4, pci_read(device, 0, 4) | 2);
		watchdog = pci_read(device, 0, 0x10) & ~15u;
		for (uintptr_t reg = 0; reg <= 4; reg += 4) {
			mmio_write(watchdog + 12, 0x80);
			mmio_write(watchdog + 12, 0x86);
			mmio_write(watchdog + reg, seconds << 9);
		}
		pci_write(device, 0, 0x68, pci_read(device, 0, 0x68) | 2);
		watchdog_pet();
	}
}

void watchdog_pet(void)
{
	if (watchdog) {
		mmio_write(watchdog + 12, 0x80);
		mmio_write(watchdog + 12, 0x86);
		mmio_write(watchdog + 12, 0x100);
	}
}

uint32_t arm_timers(uint32_t tsc_khz)
{
	uint32_t pit = option_number("pit", 0), rtc = option_number("rtc", 0);
	uint32_t hpet = hpet_base ? option_number("hpet", 0) : 0;
	uint32_t lapic = option_number("lapic", 0), fastest = pit;

	if (pit) {
		arm_pit(pit);
	}
	if (rtc || option_is("edge", "irq")) {
		arm_rtc(rtc, option_is("edge", "irq"));
	}
	if (hpet) {
		arm_hpet(hpet);
	}
	if (lapic) {
		choose_lapic(lapic, tsc_khz);
		arm_lapic();
	}
	if (option_number("watchdog", 0)) {
		arm_watchdog(option_number("watchdog", 0));
	}
	fastest = rtc > fastest ? rtc : fastest;
	fastest = hpet > fastest ? hpet : fastest;
	return lapic > fastest ? lapic : fastest;
}
