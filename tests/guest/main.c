/* SPDX-License-Identifier: MIT */
/*
 * The test guest: reads every clock of a PC at once and says what it read.
 *
 * It keeps no time of its own and corrects nothing: what it prints is what the machine
 * answered. README.md explains the command line and the lines.
 */
#include "guest.h"

/* One report. Each value carries the low half of the TSC read just before it. */
struct sample {
	uint64_t first_tsc, mark_tsc, last_tsc;
	uint64_t hpet, rtc_bcd;
	struct pv_reading pv;
	uint32_t pm, lapic, hpet_at, pm_at, lapic_at, pit0_at, pit2_at, rtc_at;
	uint16_t pit0, pit2;
	uint8_t rtc_uip, rtc_seconds_again;
	uint32_t counts[N_SOURCES];
	uint64_t last[N_SOURCES];
};

static const char *command_line = "";
static uint32_t n_stopped_seen;
static uint8_t last_second;
static uint32_t look_ticks;

static size_t match(const char *text, const char *key)
{
	size_t i = 0;

	while (key[i] && text[i] == key[i]) {
		i++;
	}
	return key[i] ? 0 : i;
}

const char *option(const char *key)
{
	for (const char *p = command_line; *p; p++) {
		size_t n = p == command_line || p[-1] == ' ' ? match(p, key) : 0;

		if (n && p[n] == '=') {
			return p + n + 1;
		}
	}
	return NULL;
}

uint32_t option_number(const char *key, uint32_t absent)
{
	const char *p = option(key);
	uint32_t value = 0;

	if (!p || *p < '0' || *p > '9') {
		return absent;
	}
	while (*p >= '0' && *p <= '9') {
		value = 10 * value + (uint32_t)(*p++ - '0');
	}
	return value;
}

bool option_is(const char *key, const char *word)
{
	const char *p = option(key);
	size_t n = p ? match(p, word) : 0;

	return n && (p[n] == ' ' || !p[n]);
}

static uint32_t since(const struct sample *s)
{
	return (uint32_t)(rdtsc() - s->first_tsc);
}

/* Interrupts off. Cheapest and finest clocks first, so that they stand close together. */
static void take(struct sample *s)
{
	s->first_tsc = rdtsc();
	serial_mark();
	s->mark_tsc = rdtsc();
	if (pvclock_present()) {
		pvclock_read(&s->pv);
	}
	if (hpet_base) {
		s->hpet_at = since(s);
		s->hpet = hpet_counter();
	}
	s->lapic_at = since(s);
	s->lapic = mmio_read(LAPIC + LAPIC_CURRENT);
	if (pm_timer_port) {
		s->pm_at = since(s);
		s->pm = inl(pm_timer_port);
	}
	s->pit0_at = since(s);
	s->pit0 = pit_latch(0);
	s->pit2_at = since(s);
	s->pit2 = pit_latch(2);
	s->rtc_at = since(s);
	s->rtc_uip = rtc_read(0x0a) >> 7;
	s->rtc_bcd = rtc_time_bcd();
	s->rtc_seconds_again = rtc_read(0);
	for (int i = 0; i < N_SOURCES; i++) {
		s->counts[i] = tallies[i].count;
		s->last[i] = tallies[i].last_tsc;
	}
	s->last_tsc = rdtsc();
}

static void print_clocks(const struct sample *s)
{
	line_hex("t0", s->first_tsc, 16);
	line_hex("t1", s->mark_tsc, 16);
	line_hex("t9", s->last_tsc, 16);
	if (pvclock_present()) {
		n_stopped_seen += s->pv.flags >> 1 & 1;
		line_at("pv", s->pv.ns, 16, (uint32_t)(s->pv.tsc - s->first_tsc));
		line_hex("pvflags", s->pv.flags, 2);
		line_hex("stopped", n_stopped_seen, 4);
	}
	if (hpet_base) {
		line_at("hpet", s->hpet, 16, s->hpet_at);
	}
	line_at("lapic", s->lapic, 8, s->lapic_at);
	if (pm_timer_port) {
		line_at("pm", s->pm, 8, s->pm_at);
	}
	line_at("pit0", s->pit0, 4, s->pit0_at);
	line_at("pit2", s->pit2, 4, s->pit2_at);
	line_at("rtc", s->rtc_bcd, 14, s->rtc_at);
	line_hex("uip", s->rtc_uip, 1);
	line_hex("again", s->rtc_seconds_again, 2);
}

static void print_interrupts(const struct sample *s)
{
	static const char *const counts[] = { "npit", "nrtc", "nedge", "nhpet", "nlapic" };
	static const char *const stamps[] = { "zpit", "zrtc", "zedge", "zhpet", "zlapic" };

	for (int i = 0; i < N_SOURCES; i++) {
		line_hex(counts[i], s->counts[i], 8);
		line_hex(stamps[i], s->last[i], 16);
	}
	line_hex("edge", edge_time_bcd, 14);
	line_hex("aedge", edge_not_before, 16);
}

static void print_aps(void)
{
	static char key[] = "tsc1", ticks[] = "nap1";

	if (!n_aps) {
		return;
	}
	line_hex("apbegin", rdtsc(), 16);
	sample_aps();
	line_hex("apend", rdtsc(), 16);
	for (uint32_t i = 1; i <= n_aps && i <= 9; i++) {
		key[3] = ticks[3] = (char)('0' + i);
		line_hex(key, ap_tsc[i], 16);
		line_hex(ticks, ap_ticks[i], 8);
	}
}

static void report(void)
{
	static struct sample s;
	static uint32_t sequence;

	__asm__ volatile("cli");
	take(&s);
	__asm__ volatile("sti");
	line_begin("G");
	line_hex("seq", sequence++, 8);
	print_clocks(&s);
	print_interrupts(&s);
	print_aps();
	line_end();
	if (option_is("pet", "yes")) {
		watchdog_pet();
	}
}

static void print_boot(uint32_t tsc_khz)
{
	serial_mark();
	line_begin("B");
	line_hex("tsckhz", tsc_khz, 8);
	line_hex("hpet", hpet_base, 8);
	line_hex("pmport", pm_timer_port, 4);
	line_hex("pvclock", pvclock_present(), 1);
	line_hex("cpus", n_aps + 1, 2);
	line_end();
}

/* The RTC's update edge by looking: between this look's end and the begin of the one before. */
static void watch_edge(void)
{
	static uint64_t last_look;
	uint64_t begin;
	uint8_t second;

	if (rdtsc() - last_look < look_ticks) {
		return;
	}
	__asm__ volatile("cli");
	begin = rdtsc();
	second = rtc_read(0);
	if (second != last_second) {
		last_second = second;
		tallies[SRC_UPDATE].count++;
		tallies[SRC_UPDATE].last_tsc = rdtsc();
		edge_not_before = last_look;
		edge_time_bcd = rtc_time_bcd();
	}
	last_look = begin;
	__asm__ volatile("sti");
}

static void idle(uint64_t tsc_ticks, bool halt, bool watch)
{
	uint64_t start = rdtsc();

	while (rdtsc() - start < tsc_ticks) {
		if (halt) {
			__asm__ volatile("sti; hlt");
		} else {
			__asm__ volatile("pause");
		}
		if (watch) {
			watch_edge();
		}
	}
}

void guest_main(const uint32_t *info);

void guest_main(const uint32_t *info)
{
	uint32_t tsc_khz, fastest, per_second;

	if (info && info[0] & 4 && info[4]) {
		command_line = (const char *)(uintptr_t)info[4];
	}
	serial_init();
	irq_init();
	find_clocks();
	tsc_khz = option_number("tsckhz", 0);
	tsc_khz = tsc_khz ? tsc_khz : calibrate_tsc();
	last_second = rtc_read(0);
	look_ticks = tsc_khz / 20;	/* 50 us: each look keeps the emulator from its own work */
	fastest = arm_timers(tsc_khz);
	if (option_number("smp", 1) > 1) {
		start_aps(option_number("smp", 1) - 1, tsc_khz);
	}
	print_boot(tsc_khz);
	per_second = option_number("report", 10);
	per_second = per_second ? per_second : 1;
	for (;;) {
		report();
		idle((uint64_t)(tsc_khz / per_second) * 1000,
		     fastest >= 2 * per_second && !option_is("idle", "poll"),
		     option_is("edge", "poll"));
	}
}
