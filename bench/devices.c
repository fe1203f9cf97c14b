/* SPDX-License-Identifier: MIT */
/*
 * What the device models cost. Each line: name, ns per call, limit. Exit status 1 if a
 * limit is passed, which a busy machine can bring about.
 */
#include <stdio.h>
#include <time.h>

#include <guestclock/devices.h>

#define S INT64_C(1000000000)
#define YEARS_10 (INT64_C(3652) * 86400 * S)
#define N_LAPICS 64
#define ROUNDS 200	/* short ones: the least is what it takes when nobody interrupts */

static struct gclk_pit pit;
static struct gclk_rtc rtc;
static struct gclk_hpet hpet;
static struct gclk_lapic lapics[N_LAPICS];
static volatile uint64_t sink;

static void power_on(void)
{
	gclk_pit_init(&pit, GCLK_DIALECT_QEMU, 0);
	gclk_pit_write(&pit, 0x43, 0x34, 0, NULL);
	gclk_pit_write(&pit, 0x40, 0xa9, 0, NULL);
	gclk_pit_write(&pit, 0x40, 0x04, 0, NULL);
	gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, 1700000000, 0);
	gclk_rtc_write(&rtc, 0x70, 10, 0, NULL);
	gclk_rtc_write(&rtc, 0x71, 0x23, 0, NULL);
	gclk_rtc_write(&rtc, 0x70, 11, 0, NULL);
	gclk_rtc_write(&rtc, 0x71, 0x42, 0, NULL);
	gclk_hpet_init(&hpet, GCLK_DIALECT_QEMU, 3, 10000000, 4, 0);
	for (uint32_t n = 0; n < 3; n++) {
		gclk_hpet_write(&hpet, 0x100 + 0x20 * n, 4, 0x4c, 0, NULL);
		gclk_hpet_write(&hpet, 0x108 + 0x20 * n, 8, 100000 * (n + 1), 0, NULL);
		gclk_hpet_write(&hpet, 0x108 + 0x20 * n, 4, 100000 * (n + 1), 0, NULL);
	}
	gclk_hpet_write(&hpet, 0x10, 4, 1, 0, NULL);
	for (unsigned i = 0; i < N_LAPICS; i++) {
		gclk_lapic_init(&lapics[i], GCLK_DIALECT_QEMU, 1, 0);
		gclk_lapic_write(&lapics[i], 0x320, 0x20030, 0, NULL);
		gclk_lapic_write(&lapics[i], 0x380, 1000000 + i, 0, NULL);
	}
}

/* A step of the instant that no call may know beforehand. */
static int64_t later(int64_t t)
{
	return t + 12345 + (t >> 3 & 0xfff);
}

static void rtc_edges(unsigned n)
{
	for (int64_t t = 0; n--; t = later(t)) {
		sink += gclk_rtc_periodic_edges(&rtc, t, t + YEARS_10);
	}
}

static void whole_machine(unsigned n)
{
	int64_t t = 0;

	while (n--) {
		if (t > YEARS_10 * 20) {
			power_on();
			t = 0;
		}
		t = later(t) + 3600 * S;
		gclk_pit_advance(&pit, t, NULL);
		gclk_rtc_advance(&rtc, t, NULL);
		gclk_hpet_advance(&hpet, t, NULL);
		for (unsigned i = 0; i < N_LAPICS; i++) {
			gclk_lapic_advance(&lapics[i], t, NULL);
		}
	}
}

static void pit_latch_and_read(unsigned n)
{
	for (int64_t t = 0; n--; t = later(t)) {
		gclk_pit_write(&pit, 0x43, 0x80, t, NULL);
		sink += gclk_pit_read(&pit, 0x42, t, NULL);
	}
}

static void rtc_read(unsigned n)
{
	gclk_rtc_write(&rtc, 0x70, 13, 0, NULL);
	for (int64_t t = 0; n--; t = later(t)) {
		sink += gclk_rtc_read(&rtc, 0x71, t, NULL);
	}
}

static void hpet_read(unsigned n)
{
	for (int64_t t = 0; n--; t = later(t)) {
		sink += gclk_hpet_read(&hpet, 0xf0, 4, t, NULL);
	}
}

static void lapic_read(unsigned n)
{
	for (int64_t t = 0; n--; t = later(t)) {
		sink += gclk_lapic_read(&lapics[0], 0x390, t, NULL);
	}
}

static const struct {
	const char *name;
	void (*run)(unsigned n);
	unsigned calls, accesses;	/* calls of run(), accesses in each */
	double limit_ns;
} cases[] = {
	{ "edges of an 8192 Hz RTC over 10 years", rtc_edges, 20000, 1, 100 },
	{ "a whole machine by an hour", whole_machine, 200, 1, 20000 },
	{ "PIT: access", pit_latch_and_read, 20000, 2, 50 },
	{ "RTC: access", rtc_read, 20000, 1, 50 },
	{ "HPET: access", hpet_read, 20000, 1, 50 },
	{ "LAPIC timer: access", lapic_read, 20000, 1, 50 },
};

static double ns_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(void)
{
	int failed = 0;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		double best = 1e18;

		for (unsigned round = 0; round < ROUNDS; round++) {
			double began;

			power_on();
			began = ns_now();
			cases[i].run(cases[i].calls);
			began = (ns_now() - began) / cases[i].calls / cases[i].accesses;
			best = began < best ? began : best;
		}
		printf("%-40s %10.1f ns  (limit %.0f)\n", cases[i].name, best, cases[i].limit_ns);
		failed |= best > cases[i].limit_ns;
	}
	return failed;
}
