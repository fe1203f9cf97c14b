/* SPDX-License-Identifier: MIT */
/*
 * Holds a log of what a guest did to stock QEMU's devices against our models.
 *
 * Standard input, one event a line, in the order in which they happened:
 *
 *	c DEVICE				compare this device: pit rtc hpet lapic pm
 *	o slew					the RTC replays lost ticks
 *	o seconds N				what the RTC showed at 0
 *	o cmos INDEX VALUE			what the machine put there
 *	o routes MASK				inputs that the HPET says it can drive
 *	w SPACE SIZE ADDR VALUE T		the guest wrote (SPACE p: port, m: memory)
 *	r SPACE SIZE ADDR VALUE T		... and read VALUE
 *	i VECTOR T				an interrupt handler was entered
 *	d T					interrupts were off, up to now
 *	m N T					script N begins
 *	e T					the machine was stopped
 *	f DEVICE FIELD VALUE			what its stream says: "pit channels[0].count 4660"
 *
 * Every value read must be the model's. Between events every rise of every line is found
 * by asking for the next edge again and again, and their number must be what advancing
 * in one go says. A handler must be entered within SLACK_NS of the first rise that it
 * answers, later rises up to its entry are one with it, none comes without a rise, and none
 * is left over.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"

#define HPET_BASE 0xfed00000u
#define LAPIC_BASE 0xfee00000u
#define PM_BASE 0x600u

#define VECTOR_PIT 0x20u
#define VECTOR_RTC (rtc.catches_up ? 0x58u : 0x28u)	/* IOAPIC : PIC */
#define VECTOR_SCI 0x29u
#define VECTOR_PIN 0x50u
#define VECTOR_LEVEL 0x64u		/* of HPET timer 0 on its level-triggered input */

/*
 * A handler stamps its entry ENTRY_NS after the interrupt is taken, and that waits
 * for the end of an access with interrupts off (about 100 instructions), of another
 * handler (200), or of the two together: each instruction takes 1 ns.
 */
#define SLACK_NS 1000
#define ENTRY_NS 4

enum { PIT, RTC, HPET, LAPIC, PM, N_DEVICES };
static const char *const names[N_DEVICES] = { "pit", "rtc", "hpet", "lapic", "pm" };

static struct gclk_pit pit;
static struct gclk_rtc rtc;
static struct gclk_hpet hpet;
static struct gclk_lapic lapic;
static struct gclk_pm_timer pm;

static bool compared[N_DEVICES];
static unsigned long line_number, script_number;
static unsigned long n_steps[N_DEVICES], n_rises[N_DEVICES], n_interrupts, n_fields,
	n_together, n_held_ever, n_bad;
static int64_t now, latest_slack, deaf_until;
static int64_t seen[N_DEVICES];		/* each device is as it was at that instant, afterwards */
static bool legacy;

static void bad(const char *what, uint64_t ours, uint64_t theirs)
{
	if (n_bad++ < 20) {
		printf("mismatch: line %lu, script %lu, t %" PRId64 ": %s: ours %" PRIu64
		       " (0x%" PRIx64 "), QEMU's %" PRIu64 " (0x%" PRIx64 ")\n",
		       line_number, script_number, now, what, ours, ours, theirs, theirs);
	}
}

/* ---- rises waiting for their interrupt, by vector ---- */

static struct queue {
	int64_t *at;
	size_t first, n, room;
	bool first_is_answered;		/* perhaps: see interrupt() */
} queues[256];

static void rise(unsigned vector, unsigned device, int64_t t)
{
	struct queue *q = &queues[vector];

	n_rises[device]++;
	if (q->n == q->room) {
		q->room = q->room ? 2 * q->room : 64;
		q->at = realloc(q->at, q->room * sizeof(*q->at));
		if (!q->at) {
			abort();
		}
	}
	q->at[q->n++] = t;
}

/* A rise that may have been answered and got no interrupt of its own was. */
static void drop_answered(struct queue *q, int64_t t)
{
	if (q->first_is_answered && q->first < q->n && q->at[q->first] + SLACK_NS < t) {
		q->first++;
		q->first_is_answered = false;
		n_together++;
	}
}

/*
 * The interrupt was taken at @t, its stamp less ENTRY_NS: for a rise before that, which had waited
 * for interrupts to be let in, or else for one at that very instant. If one waited and
 * another came at that instant, either came first: then the other one may be in this
 * interrupt, or get one of its own.
 */
static void interrupt(unsigned vector, int64_t t)
{
	struct queue *q = &queues[vector & 0xff];
	int64_t first;
	char what[64];

	n_interrupts++;
	drop_answered(q, t);
	first = q->first < q->n ? q->at[q->first] : INT64_MAX;
	if (first > t) {
		snprintf(what, sizeof(what), "interrupt 0x%x without a rise, next at", vector);
		bad(what, first == INT64_MAX ? 0 : (uint64_t)first, (uint64_t)t);
		return;
	}
	first = GCLK_MAX(first, deaf_until);
	if (t - first > SLACK_NS) {
		snprintf(what, sizeof(what), "interrupt 0x%x is late for its rise", vector);
		bad(what, (uint64_t)first, (uint64_t)t);
	}
	latest_slack = GCLK_MAX(latest_slack, t - first);
	first = q->at[q->first];
	while (q->first < q->n && (q->at[q->first] < t || q->at[q->first] == first)) {
		q->first++;
	}
	q->first_is_answered = q->first < q->n && q->at[q->first] == t;
	if (q->first == q->n) {
		q->first = q->n = 0;
	}
}

/* Rises that nobody answered by @t. */
static void look_for_left_over(int64_t t)
{
	char what[64];

	for (unsigned v = 0; v < 256; v++) {
		struct queue *q = &queues[v];

		drop_answered(q, t);
		if (q->first < q->n && GCLK_MAX(q->at[q->first], deaf_until) + SLACK_NS < t) {
			snprintf(what, sizeof(what), "rise of 0x%x without an interrupt", v);
			bad(what, (uint64_t)q->at[q->first], 0);
			q->first = q->n;
		}
	}
}

/* ---- from the last event to this one ---- */

static unsigned long n_listed[N_DEVICES];
static unsigned long hpet_listed[GCLK_HPET_TIMERS_MAX];

static unsigned hpet_vector(unsigned n)
{
	int route = gclk_hpet_timer_route(&hpet, n);

	if (route < 0) {
		return (unsigned)hpet.timers[n].fsb_route & 0xff;
	}
	return route == 0 ? VECTOR_PIT : route == 8 ? VECTOR_RTC : VECTOR_PIN + (unsigned)route;
}

static void list_hpet(unsigned n, int64_t t)
{
	const struct gclk_hpet_timer *timer = &hpet.timers[n];
	bool level = (timer->config & 0x4002) == 2;
	bool up = timer->irq_level && !(timer->config & 0x4000);
	int64_t e, from = seen[HPET];

	hpet_listed[n] = 0;
	if (!gclk_hpet_timer_interrupts(&hpet, n) || (level && up)) {
		return;
	}
	while (e = gclk_hpet_timer_next(&hpet, n, from), e != GCLK_TIMER_OFF && e <= t) {
		if (up) {
			up = false;	/* this pulse ends a level that was still up */
			from = e;
			continue;
		}
		rise(hpet_vector(n), HPET, e);
		hpet_listed[n]++;
		if (level) {
			break;
		}
		from = e;
	}
}

static void list_pit(int64_t t)
{
	int64_t e, from = seen[PIT];

	while (e = gclk_pit_next_edge(&pit, from), e != GCLK_TIMER_OFF && e <= t) {
		rise(VECTOR_PIT, PIT, e);
		n_listed[PIT]++;
		from = e;
	}
}

static void list_rtc(int64_t t)
{
	int64_t e = gclk_rtc_next_edge(&rtc, seen[RTC]);

	if (e != GCLK_TIMER_OFF && e <= t) {
		n_listed[RTC] = 1;
		if (!legacy) {
			rise(VECTOR_RTC, RTC, e);
		}
	}
}

static void list_lapic(int64_t t)
{
	int64_t e, from = seen[LAPIC];

	while (e = gclk_lapic_next(&lapic, from), e != GCLK_TIMER_OFF && e <= t) {
		rise(lapic.lvt_timer & 0xff, LAPIC, e);
		n_listed[LAPIC]++;
		from = e;
	}
}

static void list_pm(int64_t t)
{
	int64_t e = gclk_pm_timer_next_edge(&pm, seen[PM]);

	if (e != GCLK_TIMER_OFF && e <= t) {
		rise(VECTOR_SCI, PM, e);
		n_listed[PM] = 1;
	}
}

static void list_hpets(int64_t t)
{
	for (unsigned n = 0; n < hpet.n_timers; n++) {
		list_hpet(n, t);
	}
}

static void list_rises(int64_t t)
{
	static void (*const by_device[N_DEVICES])(int64_t) = { list_pit, list_rtc, list_hpets,
							       list_lapic, list_pm };

	memset(n_listed, 0, sizeof(n_listed));
	for (unsigned d = 0; d < N_DEVICES; d++) {
		if (compared[d]) {
			by_device[d](t);
		}
	}
}

/* What an access or an advance says happened, against what was listed. */
static void settle(unsigned device, unsigned vector, const struct gclk_line *line, int64_t t)
{
	uint64_t extra = line->rises - n_listed[device];

	if (extra > 1 || (extra == 1 && line->last_rise_ns != t)) {
		bad("rises in one go against those found one by one", line->rises,
		    n_listed[device]);
	} else if (extra == 1 && !(device == RTC && legacy)) {
		rise(vector, device, t);
	}
}

/* Timer 1 has had input 8 up in legacy mode, so that the RTC does not raise it again. */
static bool hpet_holds_8;

static void settle_hpet(const struct gclk_hpet_lines *lines, int64_t t)
{
	struct gclk_line line;

	for (unsigned n = 0; n < hpet.n_timers; n++) {
		if (lines->rises[n] != hpet_listed[n]) {
			bad("HPET rises in one go", lines->rises[n], hpet_listed[n]);
		}
	}
	if (lines->lowered & 1 && !legacy) {
		gclk_pit_lowered(&pit);
	}
	if (lines->legacy > 0) {
		legacy = true;
		gclk_pit_silence(&pit, 1, t, NULL);
	} else if (lines->legacy < 0) {
		legacy = false;
		gclk_pit_silence(&pit, 0, t, &line);
		if (line.rises) {
			rise(VECTOR_PIT, PIT, t);
		}
		if (rtc.irq_level && !hpet_holds_8) {
			rise(VECTOR_RTC, RTC, t);
		}
	}
}

/* Every device but one up to @t, in one go. */
static void advance_others(int device, int64_t t)
{
	struct gclk_hpet_lines lines;
	struct gclk_line line;

	if (compared[PIT] && device != PIT) {
		gclk_pit_advance(&pit, t, &line);
		settle(PIT, VECTOR_PIT, &line, t);
	}
	if (compared[RTC] && device != RTC) {
		gclk_rtc_advance(&rtc, t, &line);
		settle(RTC, VECTOR_RTC, &line, t);
	}
	if (compared[LAPIC] && device != LAPIC) {
		gclk_lapic_advance(&lapic, t, &line);
		settle(LAPIC, 0, &line, t);
	}
	if (compared[PM] && device != PM) {
		gclk_pm_timer_advance(&pm, t, &line);
		settle(PM, VECTOR_SCI, &line, t);
	}
	if (compared[HPET] && device != HPET) {
		gclk_hpet_advance(&hpet, t, &lines);
		settle_hpet(&lines, t);
	}
	for (int d = 0; d < N_DEVICES; d++) {
		seen[d] = d == device ? seen[d] : t;
	}
	now = t;
}

static void advance(int64_t t)
{
	advance_others(-1, t);
}

/* When a timer that may not interrupt next expires: QEMU then lowers the input it would drive. */
static int64_t next_lowering(int64_t t)
{
	int64_t first = t, e;

	for (unsigned n = 0; compared[HPET] && n < hpet.n_timers; n++) {
		e = gclk_hpet_timer_next(&hpet, n, seen[HPET]);
		if (!gclk_hpet_timer_interrupts(&hpet, n) && e != GCLK_TIMER_OFF &&
		    gclk_hpet_timer_route(&hpet, n) == 0) {
			first = GCLK_MIN(first, e);
		}
	}
	return first;
}

/* Goes up to the last instant before @t at which one device changes another. */
static void approach(int64_t t)
{
	int64_t e;

	while (compared[PIT] && (e = next_lowering(t)) < t) {
		list_rises(e);
		advance(e);
	}
}

/* ---- accesses ---- */

struct access {
	bool write, memory;
	unsigned size;
	uint32_t addr, value;
	int64_t t;
};

static int device_at(const struct access *a)
{
	if (a->memory) {
		return a->addr - HPET_BASE < 0x400 ? HPET : a->addr - LAPIC_BASE < 0x1000 ? LAPIC : -1;
	}
	if ((a->addr >= 0x40 && a->addr <= 0x43) || a->addr == 0x61) {
		return PIT;
	}
	return a->addr == 0x70 || a->addr == 0x71	     ? RTC
	       : a->addr - PM_BASE < 12 && a->addr >= PM_BASE ? PM
							      : -1;
}

static uint32_t access_pit(const struct access *a)
{
	struct gclk_line line;
	uint32_t v = 0;

	if (a->write) {
		gclk_pit_write(&pit, (uint16_t)a->addr, (uint8_t)a->value, a->t, &line);
	} else {
		v = gclk_pit_read(&pit, (uint16_t)a->addr, a->t, &line);
	}
	settle(PIT, VECTOR_PIT, &line, a->t);
	return v;
}

static uint32_t access_rtc(const struct access *a)
{
	struct gclk_line line;
	uint32_t v = 0;

	if (a->write) {
		gclk_rtc_write(&rtc, (uint16_t)a->addr, (uint8_t)a->value, a->t, &line);
	} else {
		v = gclk_rtc_read(&rtc, (uint16_t)a->addr, a->t, &line);
	}
	settle(RTC, VECTOR_RTC, &line, a->t);
	return v;
}

static uint32_t access_hpet(const struct access *a)
{
	struct gclk_hpet_lines lines;
	uint32_t v = 0;

	hpet_holds_8 = legacy && hpet.timers[1].irq_level;
	if (a->write) {
		gclk_hpet_write(&hpet, a->addr - HPET_BASE, 4, a->value, a->t, &lines);
	} else {
		v = (uint32_t)gclk_hpet_read(&hpet, a->addr - HPET_BASE, 4, a->t, &lines);
	}
	settle_hpet(&lines, a->t);
	return v;
}

static uint32_t access_lapic(const struct access *a)
{
	struct gclk_line line;
	uint32_t v = 0;

	if (a->write) {
		gclk_lapic_write(&lapic, a->addr - LAPIC_BASE, a->value, a->t, &line);
	} else {
		v = gclk_lapic_read(&lapic, a->addr - LAPIC_BASE, a->t, &line);
	}
	settle(LAPIC, 0, &line, a->t);
	return v;
}

static uint32_t access_pm(const struct access *a)
{
	struct gclk_line line;
	uint32_t v = 0;

	if (a->write) {
		gclk_pm_timer_write(&pm, a->addr - PM_BASE, a->value, a->t, &line);
	} else {
		v = gclk_pm_timer_read(&pm, a->addr - PM_BASE, a->t, &line);
	}
	settle(PM, VECTOR_SCI, &line, a->t);
	return v;
}

/*
 * The emulator counts an instruction before it executes it, and runs the timers that
 * are due when the instructions up to their instant are done. So the access at t comes
 * before the expiries at t: those are put off for the time of the access.
 */
static int64_t *held[8];
static unsigned n_held;

static void hold(int64_t *expiry, int64_t t)
{
	if (*expiry == t) {
		*expiry = t + 1;
		held[n_held++] = expiry;
		n_held_ever++;
	}
}

static void hold_due(int device, int64_t t)
{
	switch (device) {
	case PIT:
		hold(&pit.channels[0].next_transition_ns, t);
		break;
	case RTC:
		hold(&rtc.next_periodic_ns, t);
		hold(&rtc.periodic_expiry_ns, t);
		hold(&rtc.update_expiry_ns, t);
		break;
	case HPET:
		for (unsigned n = 0; n <= hpet.n_timers; n++) {
			hold(&hpet.timers[n].expiry_ns, t);
		}
		break;
	case LAPIC:
		hold(&lapic.next_time_ns, t);
		hold(&lapic.expiry_ns, t);
		break;
	default:
		hold(&pm.expiry_ns, t);
		break;
	}
}

/* What the access has not set anew is due now. */
static void release_due(void)
{
	for (unsigned i = 0; i < n_held; i++) {
		*held[i] -= *held[i] == now + 1;
	}
}

/* A comparator that is written when the counter is at its wrap is due in that ns. */
static bool is_set_to(int64_t t)
{
	bool any = false;

	for (unsigned n = 0; n <= hpet.n_timers; n++) {
		any |= hpet.timers[n].expiry_ns == t;
	}
	return any;
}

/*
 * The handler of a level clears its cause before it ends the interrupt: rises in between
 * are seen by nobody.
 */
static unsigned in_handler;	/* vector, up to the write that clears */

static void clear_cause(const struct access *a)
{
	struct queue *q = &queues[in_handler];

	if (!a->memory || !a->write || a->addr != HPET_BASE + 0x20 || !in_handler) {
		return;
	}
	if (in_handler >= VECTOR_LEVEL && a->value >> (in_handler - VECTOR_LEVEL) & 1) {
		n_together += q->n - q->first;
		q->first = q->n;
	}
	in_handler = 0;
}

static void access(const struct access *a)
{
	static uint32_t (*const by_device[N_DEVICES])(const struct access *) = {
		access_pit, access_rtc, access_hpet, access_lapic, access_pm,
	};
	int device = device_at(a);
	char what[64];
	uint32_t v;

	if (device < 0 || !compared[device]) {
		return;
	}
	approach(a->t - 1);
	list_rises(a->t - 1);
	advance(a->t - 1);
	n_held = 0;
	hold_due(device, a->t);
	memset(n_listed, 0, sizeof(n_listed));
	memset(hpet_listed, 0, sizeof(hpet_listed));
	clear_cause(a);
	v = by_device[device](a);
	now = a->t;
	release_due();
	seen[device] = n_held || is_set_to(a->t) ? a->t - 1 : a->t;
	n_steps[device]++;
	if (!a->write && v != a->value) {
		snprintf(what, sizeof(what), "read of %s 0x%x", names[device], a->addr);
		bad(what, v, a->value);
	}
}

/* ---- the stream at the end ---- */

/*
 * The machine may stop when its clock has arrived at an instant but the timers that are
 * due then have not run. So there are two right states: just before, and after. Each
 * device must be in one of them as a whole.
 */
enum { BEFORE, AFTER, N_ENDS };

static struct end {
	struct gclk_pit pit;
	struct gclk_rtc rtc;
	struct gclk_hpet hpet;
	struct gclk_lapic lapic;
	struct gclk_pm_timer pm;
	unsigned n_bad[N_DEVICES];
	char first_bad[N_DEVICES][192];
} ends[N_ENDS];

static void *device_in(struct end *end, unsigned device)
{
	void *const bases[N_DEVICES] = { &end->pit, &end->rtc, &end->hpet, &end->lapic, &end->pm };

	return bases[device];
}

/* The state, with what QEMU refreshes before it saves. */
static void save(struct end *end, int64_t t)
{
	uint8_t a = rtc.cmos[10];

	*end = (struct end){ .pit = pit, .rtc = rtc, .hpet = hpet, .lapic = lapic, .pm = pm };
	if (hpet.config & 1) {
		end->hpet.counter_ticks = gclk_hpet_counter_at(&hpet, t, NULL);
	}
	end->rtc.cmos[10] = 0x26;	/* the time is written even while the divider is held */
	gclk_rtc_sync_cmos(&end->rtc, t);
	end->rtc.cmos[10] = a;
}

static void stop(int64_t t)
{
	approach(t - 1);
	list_rises(t - 1);
	advance(t - 1);
	save(&ends[BEFORE], t);
	list_rises(t);
	advance(t);
	save(&ends[AFTER], t);
	look_for_left_over(t);
}

/* The record and the field's name of a path like "pit channels[0].count". */
static const struct gclk_field *locate(void **base, unsigned device, const char *path)
{
	static const struct gclk_record *const records[N_DEVICES] = {
		&gclk_pit_record, &gclk_rtc_record, &gclk_hpet_record, &gclk_lapic_record,
		&gclk_pm_timer_record,
	};
	const struct gclk_record *record = records[device];
	const char *dot = strchr(path, '.');
	unsigned n;
	int index;

	if (dot) {
		n = (unsigned)strtoul(strchr(path, '[') + 1, NULL, 10);
		*base = (char *)*base + record->subs[0].offset + n * record->subs[0].record->size;
		record = record->subs[0].record;
		path = dot + 1;
	}
	index = gclk_record_find(record, path);
	if (index < 0) {
		printf("no field %s\n", path);
		exit(2);
	}
	return &record->fields[index];
}

static void compare(struct end *end, unsigned device, const char *path, uint64_t theirs)
{
	void *base = device_in(end, device);
	unsigned byte;
	uint64_t ours;

	if (sscanf(path, "cmos[%u]", &byte) == 1 && byte < 128) {
		ours = end->rtc.cmos[byte];
	} else {
		const struct gclk_field *field = locate(&base, device, path);

		ours = gclk_record_get(base, field);
	}
	if (ours != theirs && end->n_bad[device]++ == 0) {
		snprintf(end->first_bad[device], sizeof(end->first_bad[device]),
			 "%s: ours %" PRIu64 " (0x%" PRIx64 "), QEMU's %" PRIu64 " (0x%" PRIx64 ")",
			 path, ours, ours, theirs, theirs);
	}
}

static void field(const char *device_name, const char *path, const char *text)
{
	unsigned device = 0;

	while (device < N_DEVICES && strcmp(names[device], device_name)) {
		device++;
	}
	if (device == N_DEVICES || !compared[device]) {
		return;
	}
	n_fields++;
	for (unsigned i = 0; i < N_ENDS; i++) {
		compare(&ends[i], device, path, strtoull(text, NULL, 0));
	}
}

static void judge_stream(void)
{
	for (unsigned d = 0; d < N_DEVICES; d++) {
		unsigned best = ends[BEFORE].n_bad[d] < ends[AFTER].n_bad[d] ? BEFORE : AFTER;

		if (ends[best].n_bad[d]) {
			n_bad += ends[best].n_bad[d];
			printf("mismatch: stream at %" PRId64 ": %u fields of %s, first %s\n", now,
			       ends[best].n_bad[d], names[d], ends[best].first_bad[d]);
		}
	}
}

/* What the machine has set up before its guest begins. */
static void option(const char *text)
{
	char name[32];
	unsigned long long a = 0, b = 0;

	sscanf(text, "%31s %llu %llu", name, &a, &b);
	if (!strcmp(name, "slew")) {
		rtc.catches_up = 1;
		gclk_rtc_taken(&rtc);	/* from here on somebody says so */
	} else if (!strcmp(name, "seconds")) {
		gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, (int64_t)a, 0);
	} else if (!strcmp(name, "cmos") && a > 13 && a < 128) {
		rtc.cmos[a] = (uint8_t)b;
	} else if (!strcmp(name, "routes")) {
		gclk_hpet_init(&hpet, GCLK_DIALECT_QEMU, 3, 10000000, (uint32_t)a, 0);
		hpet.exact = 1;
	}
}

/*
 * An interrupt that waited is taken before the timers that are due in that ns run: one
 * that raises it again then is not lost in it.
 */
static void enter_handler(uint32_t vector, int64_t t)
{
	bool told = vector == VECTOR_RTC && rtc.catches_up;

	approach(t - 1);
	list_rises(t - 1);
	advance(t - 1);
	if (told && rtc.irq_pending) {
		gclk_rtc_taken(&rtc);
		told = false;
	}
	approach(t);
	list_rises(t);
	advance(t);
	if (told) {
		gclk_rtc_taken(&rtc);
	}
}

static void take(const char *line)
{
	struct access a = { 0 };
	char kind = line[0], space, name[32], path[64], text[64];
	uint32_t vector;
	int64_t t;

	switch (kind) {
	case 'c':
		for (unsigned i = 0; i < N_DEVICES; i++) {
			compared[i] |= sscanf(line, "c %31s", name) == 1 && !strcmp(name, names[i]);
		}
		break;
	case 'o':
		option(line + 1);
		break;
	case 'w':
	case 'r':
		if (sscanf(line + 1, " %c %u %" SCNx32 " %" SCNx32 " %" SCNd64, &space, &a.size,
			   &a.addr, &a.value, &a.t) != 5) {
			break;
		}
		a.write = kind == 'w';
		a.memory = space == 'm';
		access(&a);
		look_for_left_over(a.t);
		return;
	case 'i':
		if (sscanf(line + 1, "%" SCNx32 " %" SCNd64, &vector, &t) == 2) {
			t -= ENTRY_NS;
			enter_handler(vector, t);
			interrupt(vector, t);
			in_handler = vector >= VECTOR_LEVEL && vector < VECTOR_LEVEL + 3 ? vector : 0;
		}
		break;
	case 'd':
		deaf_until = strtoll(line + 1, NULL, 10);
		break;
	case 'm':
		script_number = strtoul(line + 1, NULL, 10);
		break;
	case 'e':
		stop(strtoll(line + 1, NULL, 10));
		break;
	case 'f':
		if (sscanf(line + 1, "%31s %63s %63s", name, path, text) == 3) {
			field(name, path, text);
		}
		break;
	default:
		break;
	}
}

int main(void)
{
	char line[256];

	gclk_pit_init(&pit, GCLK_DIALECT_QEMU, 0);
	gclk_rtc_init(&rtc, GCLK_DIALECT_QEMU, 0, 0);
	gclk_hpet_init(&hpet, GCLK_DIALECT_QEMU, 3, 10000000, 0xff0104, 0);
	hpet.exact = 1;
	gclk_lapic_init(&lapic, GCLK_DIALECT_QEMU, 1, 0);
	gclk_pm_timer_init(&pm, 24, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line_number++;
		take(line);
	}
	judge_stream();
	for (unsigned i = 0; i < N_DEVICES; i++) {
		if (compared[i]) {
			printf("%s: %lu accesses, %lu rises\n", names[i], n_steps[i], n_rises[i]);
		}
	}
	printf("interrupts: %lu, at most %" PRId64 " ns after their rise; rises in the ns of an "
	       "interrupt: %lu; expiries in the ns of an access: %lu; stream fields: %lu; "
	       "mismatches: %lu\n",
	       n_interrupts, latest_slack, n_together, n_held_ever, n_fields, n_bad);
	return n_bad ? 1 : 0;
}
