/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <guestclock/devices.h>
#include <guestclock/kvm.h>

#include "core/calendar.h"
#include "core/error.h"
#include "core/pvclock.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/json-state.h"
#include "migrator/offsets.h"
#include "migrator/proof.h"
#include "migrator/situation.h"

/* A wall clock that was moved by more against the monotonic one has been set. */
#define WALL_SET_NS GCLK_NS_PER_MS
/* How long the RTC's next second is waited for, and between two looks. */
#define EDGE_NS (GCLK_NS_PER_S + 200 * GCLK_NS_PER_MS)
#define LOOK_NS (2 * GCLK_NS_PER_MS)
#define HPET_COUNTER "xp /2wx 0xfed000f0"
#define FS_PER_NS 1000000
/* How often the guest's clock page is looked at for one of after the load. */
#define PAGE_LOOKS 25
#define PAGE_NAP_NS (20 * GCLK_NS_PER_MS)

static const char needs_monitor[] = "only the monitor shows it, which was not to be asked";
static const char not_shown[] = "nothing outside the guest shows it";

/* ---- from the plan ---- */

static void take_tsc(struct proof *p, const struct gclk_state *state)
{
	p->tsc = calloc(state->n_vcpus ? state->n_vcpus : 1, sizeof(*p->tsc));
	for (uint32_t i = 0; p->tsc && i < state->n_vcpus; i++) {
		const struct gclk_tsc *tsc = &state->tsc[i];
		struct proof_tsc *to = &p->tsc[p->n_tsc];

		if (!GCLK_HAS(tsc, tsc, value_ticks)) {
			continue;
		}
		to->vcpu = GCLK_HAS(tsc, tsc, vcpu) ? tsc->vcpu : i;
		to->ticks = tsc->value_ticks;
		to->hz = GCLK_HAS(tsc, tsc, frequency_hz) ? tsc->frequency_hz : 0;
		to->hz_den = GCLK_HAS(tsc, tsc, frequency_den) ? tsc->frequency_den : 1;
		p->n_tsc++;
	}
}

/* Bit 0 of the MSR says that the guest uses it. */
static uint64_t page_of(const struct gclk_state *state)
{
	const struct gclk_vcpu *vcpu = state->n_vcpus ? &state->vcpu[0] : NULL;
	uint64_t msr = 0;

	if (vcpu && GCLK_HAS(vcpu, vcpu, system_time_msr)) {
		msr = vcpu->system_time_msr;
	}
	if (vcpu && !(msr & 1) && GCLK_HAS(vcpu, vcpu, system_time_old_msr)) {
		msr = vcpu->system_time_old_msr;
	}
	return msr & 1 ? msr - 1 : 0;
}

static void take_hpet(struct proof *p, const struct gclk_hpet *hpet)
{
	p->has_hpet = GCLK_HAS(hpet, hpet, config) && (hpet->config & 1) &&
		      GCLK_HAS(hpet, hpet, period_fs) && GCLK_HAS(hpet, hpet, offset_ns);
	p->hpet_period_fs = hpet->period_fs;
	p->hpet_offset_ns = hpet->offset_ns;
}

void proof_take(struct proof *p, const struct gclk_state *state,
		const struct gclk_carrier *carrier, const struct gclk_host *host,
		const struct gclk_when *when)
{
	proof_free(p);
	p->taken = true;
	p->accelerator = state->guest.accelerator;
	p->host = *host;
	p->load_ns = when->load.ns;
	p->run_ns = when->run.ns;
	for (unsigned i = 0; i < GCLK_N_CLOCKS; i++) {
		p->starts[i] = carrier->rows[i].start;
	}
	take_tsc(p, state);
	p->page = page_of(state);
	p->kvmclock_ns = state->kvmclock.clock_ns;
	p->axis_ns = state->virtual_clock.clock_ns;
	p->rtc = state->rtc;
	take_hpet(p, &state->hpet);
}

void proof_free(struct proof *p)
{
	free(p->tsc);
	memset(p, 0, sizeof(*p));
}

/* ---- one clock's verdict ---- */

static struct move_clock *clock_in(struct move *move, enum gclk_clock clock)
{
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		if (!strcmp(move->clocks[i].clock, gclk_clock_names[clock])) {
			return &move->clocks[i];
		}
	}
	return NULL;
}

static void unread(struct move *move, enum gclk_clock clock, const char *why)
{
	struct move_clock *c = clock_in(move, clock);

	if (c && !c->read_by[0]) {
		gclk_text_copy(c->unread, sizeof(c->unread), why);
	}
}

static uint64_t magnitude(int64_t ns)
{
	return ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
}

static void differs(struct move *move, const struct move_clock *c)
{
	char off[GCLK_DURATION_TEXT_BYTES], bound[GCLK_DURATION_TEXT_BYTES];
	char width[GCLK_DURATION_TEXT_BYTES];

	gclk_duration_format(c->read_ns, off);
	gclk_duration_format((int64_t)GCLK_MIN(c->bound_ns, (uint64_t)INT64_MAX), bound);
	gclk_duration_format((int64_t)GCLK_MIN(c->read_width_ns, (uint64_t)INT64_MAX), width);
	gclk_findings_add(&move->findings, "clock-not-as-planned", c->clock,
			  "by %s it reads %s off what was planned, more than its bound of %s "
			  "and the reading's width of %s explain",
			  c->read_by, off, bound, width);
}

/* It reads @off_ns more than the plan has it read, to @width_ns. */
static void compare(struct move *move, enum gclk_clock clock, const char *by, int64_t off_ns,
		    uint64_t width_ns)
{
	struct move_clock *c = clock_in(move, clock);
	uint64_t limit;

	if (!c) {
		return;
	}
	gclk_text_copy(c->read_by, sizeof(c->read_by), by);
	c->unread[0] = 0;
	c->read_ns = off_ns;
	c->read_width_ns = width_ns;
	if (c->bound_ns == GCLK_UNBOUNDED) {
		gclk_text_copy(c->unread, sizeof(c->unread), "no bound to hold it against");
		return;
	}
	if (__builtin_add_overflow(c->bound_ns, width_ns, &limit)) {
		limit = GCLK_UNBOUNDED;
	}
	c->proof = magnitude(gclk_sub_sat(off_ns, c->error_ns)) <= limit ? MOVE_VERIFIED :
									  MOVE_DIFFERS;
	if (c->proof == MOVE_DIFFERS) {
		differs(move, c);
	}
}

/* ---- the host's clocks ---- */

struct reading {
	const struct proof *p;
	struct move *move;
	struct gclk_host now;
	pid_t pid;
	const char *root;
	struct offsets offsets;
	proof_ask ask;
	void *ctx;
};

static int64_t limited(gclk_i128 ns)
{
	return (int64_t)GCLK_MIN(GCLK_MAX(ns, (gclk_i128)INT64_MIN), (gclk_i128)INT64_MAX);
}

/* All that was planned stands on the wall clock. */
static bool wall_was_set(const struct gclk_host *then, const struct gclk_host *now)
{
	int64_t a, b;

	if (!GCLK_HAS(host, then, monotonic_ns) || !GCLK_HAS(host, then, realtime_ns)) {
		return false;
	}
	a = gclk_sub_sat(then->realtime_ns, then->monotonic_ns);
	b = gclk_sub_sat(now->realtime_ns, now->monotonic_ns);
	return magnitude(gclk_sub_sat(b, a)) >
	       WALL_SET_NS + then->sample_width_ns + now->sample_width_ns;
}

/* The host's TSC at an instant of its wall clock, from the sample. */
static uint64_t host_tsc_at(const struct gclk_host *now, int64_t real_ns)
{
	uint64_t den = GCLK_HAS(host, now, tsc_hz_den) ? now->tsc_hz_den : 1;
	gclk_i128 ns = (gclk_i128)now->realtime_ns - real_ns;

	return now->tsc_ticks - (uint64_t)(ns * (gclk_i128)now->tsc_hz /
					   ((gclk_i128)GCLK_NS_PER_S * (gclk_i128)den));
}

static uint64_t scaled(const struct vcpu_offset *v, uint64_t host_ticks)
{
	gclk_u128 ticks = host_ticks;

	if (v->ratio && v->frac_bits < 64) {
		ticks = ticks * v->ratio >> v->frac_bits;
	}
	return (uint64_t)ticks + (uint64_t)v->offset_ticks;
}

/* The sample's own width, and what the TSC may have gone wrong since @from_ns. */
static uint64_t width_since(const struct gclk_host *now, int64_t from_ns)
{
	uint64_t since = magnitude(gclk_sub_sat(now->realtime_ns, from_ns));
	uint64_t ppb = GCLK_HAS(host, now, tsc_hz_ppb) ? now->tsc_hz_ppb : 1000000;

	return now->sample_width_ns + 1 +
	       (uint64_t)((gclk_u128)since * ppb / (uint64_t)GCLK_NS_PER_S);
}

/* ---- debugfs ---- */

static const struct vcpu_offset *offset_of(const struct offsets *offsets, uint32_t vcpu)
{
	for (uint32_t i = 0; i < offsets->n; i++) {
		if (offsets->items[i].vcpu == vcpu) {
			return &offsets->items[i];
		}
	}
	return NULL;
}

/* What one vCPU's TSC read at the load, less what it was to read. */
static int64_t tsc_off(const struct reading *r, const struct proof_tsc *tsc,
		       const struct vcpu_offset *v)
{
	const struct gclk_host *now = &r->now;
	uint64_t hz = tsc->hz ? tsc->hz : now->tsc_hz;
	uint64_t den = tsc->hz ? tsc->hz_den :
		       GCLK_HAS(host, now, tsc_hz_den) ? now->tsc_hz_den : 1;
	int64_t start_ns = r->p->starts[GCLK_CLOCK_TSC] == GCLK_START_LOAD ? r->p->load_ns :
									     r->p->run_ns;
	int64_t ticks = (int64_t)(scaled(v, host_tsc_at(now, start_ns)) - tsc->ticks);

	return limited((gclk_i128)ticks * GCLK_NS_PER_S * (gclk_i128)den / (gclk_i128)hz);
}

/* The vCPU that is off the most speaks for all. */
static void read_tsc(struct reading *r)
{
	struct gclk_error error;
	int64_t worst = 0;
	uint32_t n = 0;

	if (r->p->accelerator != GCLK_ACCEL_KVM) {
		unread(r->move, GCLK_CLOCK_TSC, "nothing outside an emulated guest shows it");
		return;
	}
	if (!GCLK_HAS(host, &r->now, tsc_hz)) {
		unread(r->move, GCLK_CLOCK_TSC, "the host's own frequency is not known");
		return;
	}
	if (offsets_read(r->root, r->pid, &r->offsets, &error) < 0) {
		unread(r->move, GCLK_CLOCK_TSC, error.message);
		return;
	}
	for (uint32_t i = 0; i < r->p->n_tsc; i++) {
		const struct vcpu_offset *v = offset_of(&r->offsets, r->p->tsc[i].vcpu);
		int64_t off = v ? tsc_off(r, &r->p->tsc[i], v) : 0;

		n += v != NULL;
		worst = magnitude(off) > magnitude(worst) ? off : worst;
	}
	if (!n || n != r->p->n_tsc) {
		unread(r->move, GCLK_CLOCK_TSC, "the kernel does not show all of its vCPUs");
		return;
	}
	compare(r->move, GCLK_CLOCK_TSC, "tsc-offset", worst, width_since(&r->now, r->p->load_ns));
}

/* ---- the monitor ---- */

/* "00000000fed000f0: 0x12 0x34": the numbers between each colon and the end of its line. */
static bool parse_dump(const char *text, uint32_t *to, unsigned n)
{
	unsigned had = 0;

	while (text && had < n && (text = strchr(text, ':'))) {
		char *end;

		for (text++; had < n && !strncmp(text, " 0x", 3); text = end) {
			unsigned long value = strtoul(text, &end, 16);

			if (value > UINT32_MAX) {
				return false;
			}
			to[had++] = (uint32_t)value;
		}
	}
	return had == n;
}

/* What memory holds, as words. */
static bool dump(struct reading *r, const char *command, uint32_t *to, unsigned n,
		 enum gclk_clock clock)
{
	struct gclk_error error;
	char *answer = NULL;
	bool ok = false;

	if (r->ask(r->ctx, command, true, &answer, &error) < 0) {
		unread(r->move, clock, error.message);
		return false;
	}
	ok = parse_dump(answer, to, n);
	if (!ok) {
		unread(r->move, clock, "the monitor's answer is not understood");
	}
	free(answer);
	return ok;
}

/*
 * The page that the kernel writes when the first vCPU runs again. One that is older than
 * the load, or was being written, is read again; a vCPU that sleeps has none.
 */
static bool read_page(struct reading *r, struct gclk_pvclock *ret)
{
	const struct timespec nap = { 0, PAGE_NAP_NS };
	uint32_t words[GCLK_PVCLOCK_BYTES / 4];
	struct gclk_error error;
	char command[48];

	snprintf(command, sizeof(command), "xp /8wx 0x%" PRIx64, r->p->page);
	for (unsigned i = 0; i < PAGE_LOOKS; i++) {
		int s;

		if (!dump(r, command, words, GCLK_COUNT(words), GCLK_CLOCK_KVMCLOCK)) {
			return false;
		}
		/* words of a little-endian machine */
		s = gclk_pvclock_parse((const uint8_t *)words, ret, &error);
		if (s == 0 && ret->tsc_timestamp >= r->p->tsc[0].ticks) {
			return true;
		}
		unread(r->move, GCLK_CLOCK_KVMCLOCK,
		       s < 0 ? error.message : "the guest's page is older than the load");
		nanosleep(&nap, NULL);
	}
	return false;
}

/*
 * The guest's own page, with its TSC as debugfs shows it: what the guest would compute
 * now, which is after the page was written.
 */
static void read_kvmclock(struct reading *r)
{
	const struct vcpu_offset *v = r->offsets.n ? &r->offsets.items[0] : NULL;
	struct gclk_error error;
	struct gclk_pvclock page;
	uint64_t ns;

	if (!clock_in(r->move, GCLK_CLOCK_KVMCLOCK)) {
		return;
	}
	if (!r->p->page || !v || !r->p->n_tsc) {
		unread(r->move, GCLK_CLOCK_KVMCLOCK,
		       r->p->page ? "it stands on the TSC, which is not shown" :
				    "the guest does not use its page");
		return;
	}
	if (!read_page(r, &page)) {
		return;
	}
	if (gclk_host_sample(&r->now, &error) < 0 || wall_was_set(&r->p->host, &r->now) ||
	    gclk_pvclock_ns_at(&page, scaled(v, r->now.tsc_ticks), &ns) < 0) {
		unread(r->move, GCLK_CLOCK_KVMCLOCK, "the host's clocks and the page do not agree");
		return;
	}
	compare(r->move, GCLK_CLOCK_KVMCLOCK, "clock-page",
		limited((gclk_i128)(int64_t)(ns - r->p->kvmclock_ns) -
			((gclk_i128)r->now.realtime_ns - r->p->run_ns)),
		width_since(&r->now, r->p->run_ns));
}

/* The shared axis at an instant of the wall clock, as planned. */
static int64_t axis_at(const struct proof *p, int64_t real_ns)
{
	return gclk_add_sat(p->axis_ns, gclk_sub_sat(real_ns, p->run_ns));
}

/* The HPET's counter, and with it the shared axis that it counts. */
static void read_hpet(struct reading *r)
{
	int64_t before = wall_clock_ns(), after, at, want;
	uint32_t words[2];
	gclk_u128 fs;
	int64_t off;
	uint64_t width;

	if (!r->p->has_hpet) {
		unread(r->move, GCLK_CLOCK_HPET, "its counter stands");
		unread(r->move, GCLK_CLOCK_VIRTUAL, not_shown);
		return;
	}
	if (!dump(r, HPET_COUNTER, words, 2, GCLK_CLOCK_HPET)) {
		return;
	}
	after = wall_clock_ns();
	at = before + (after - before) / 2;
	want = gclk_add_sat(axis_at(r->p, at), r->p->hpet_offset_ns);
	fs = ((gclk_u128)words[1] << 32 | words[0]) * r->p->hpet_period_fs;
	off = limited((gclk_i128)(fs / FS_PER_NS) - want);
	width = (uint64_t)(after - before) / 2 + r->p->hpet_period_fs / FS_PER_NS + 1;
	compare(r->move, GCLK_CLOCK_HPET, "counter", off, width);
	compare(r->move, GCLK_CLOCK_VIRTUAL, "hpet", off, width);
}

/* ---- the RTC ---- */

static int64_t mono_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
}

/*
 * A number in an answer of QEMU's, whose guest may have taken it over: found by its name,
 * at most 4 digits, and nothing else of the answer is read.
 */
static bool field(const char *answer, const char *name, int64_t *ret)
{
	char quoted[16];
	const char *at;
	unsigned n = 0;

	snprintf(quoted, sizeof(quoted), "\"%s\"", name);
	at = strstr(answer, quoted);
	if (!at) {
		return false;
	}
	at += strlen(quoted);
	at += strspn(at, " ");
	at += *at == ':';
	at += strspn(at, " ");
	for (*ret = 0; n < 5 && at[n] >= '0' && at[n] <= '9'; n++) {
		*ret = *ret * 10 + (at[n] - '0');
	}
	return n >= 1 && n <= 4;
}

/* The time that the answer shows, in seconds since 1970. */
static bool shown_seconds(const char *answer, int64_t *ret)
{
	int64_t second, minute, hour, day, month, year;

	if (!strstr(answer, "\"return\"") || !field(answer, "tm_sec", &second) ||
	    !field(answer, "tm_min", &minute) || !field(answer, "tm_hour", &hour) ||
	    !field(answer, "tm_mday", &day) || !field(answer, "tm_mon", &month) ||
	    !field(answer, "tm_year", &year) || second > 59 || minute > 59 || hour > 23 ||
	    day < 1 || day > 31 || month > 11 || year > 8099) {
		return false;
	}
	*ret = gclk_days_from_civil((int32_t)year + 1900, (unsigned)month + 1, (unsigned)day) *
		       86400 + hour * 3600 + minute * 60 + second;
	return true;
}

static bool ask_rtc(struct reading *r, int64_t *ret, struct gclk_error *reterr)
{
	static const char question[] =
		"{\"execute\": \"qom-get\", \"arguments\": "
		"{\"path\": \"/machine\", \"property\": \"rtc-time\"}}";
	char *answer = NULL;
	bool ok;

	if (r->ask(r->ctx, question, false, &answer, reterr) < 0) {
		return false;
	}
	ok = shown_seconds(answer, ret);
	if (!ok) {
		gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
			  "the monitor's answer is not understood");
	}
	free(answer);
	return ok;
}

/* What it was to show at an instant of the wall clock, ns since 1970. */
static gclk_i128 planned_rtc(const struct proof *p, int64_t real_ns)
{
	int64_t below = 0;
	int64_t t = p->rtc.axis == GCLK_AXIS_GUEST ? axis_at(p, real_ns) : real_ns;
	int64_t s = gclk_rtc_seconds_at(&p->rtc, t, &below);

	return (gclk_i128)s * GCLK_NS_PER_S + below;
}

/*
 * It shows whole seconds: the instant of an update is sought. The last answer of before began
 * at @before, the first one of after was there at @after.
 */
static bool find_edge(struct reading *r, int64_t *ret_seconds, int64_t *ret_before,
		      int64_t *ret_after)
{
	const struct timespec nap = { 0, LOOK_NS };
	int64_t end = mono_ns() + EDGE_NS, first, seconds, asked;
	struct gclk_error error;

	*ret_before = wall_clock_ns();
	if (!ask_rtc(r, &first, &error)) {
		unread(r->move, GCLK_CLOCK_RTC, error.message);
		return false;
	}
	while (mono_ns() < end) {
		nanosleep(&nap, NULL);
		asked = wall_clock_ns();
		if (!ask_rtc(r, &seconds, &error)) {
			unread(r->move, GCLK_CLOCK_RTC, error.message);
			return false;
		}
		if (seconds != first) {
			*ret_seconds = seconds;
			*ret_after = wall_clock_ns();
			return true;
		}
		*ret_before = asked;
	}
	unread(r->move, GCLK_CLOCK_RTC, "it does not go on");
	return false;
}

static void read_rtc(struct reading *r)
{
	int64_t seconds, before, after, at;
	gclk_i128 off;

	if (!clock_in(r->move, GCLK_CLOCK_RTC)) {
		return;
	}
	if (!GCLK_HAS(rtc, &r->p->rtc, axis) || r->p->rtc.axis == GCLK_AXIS_MONOTONIC) {
		unread(r->move, GCLK_CLOCK_RTC, "the clock that drives it is not known");
		return;
	}
	if (!find_edge(r, &seconds, &before, &after)) {
		return;
	}
	at = before + (after - before) / 2;
	off = (gclk_i128)seconds * GCLK_NS_PER_S - planned_rtc(r->p, at);
	compare(r->move, GCLK_CLOCK_RTC, "qom", limited(off), (uint64_t)(after - before) / 2 + 1);
}

/* ---- all of them ---- */

static void read_all(struct reading *r)
{
	read_tsc(r);
	if (r->ask) {
		read_hpet(r);
		read_rtc(r);
		read_kvmclock(r);
	} else {
		unread(r->move, GCLK_CLOCK_KVMCLOCK, needs_monitor);
		unread(r->move, GCLK_CLOCK_HPET, needs_monitor);
		unread(r->move, GCLK_CLOCK_RTC, needs_monitor);
		unread(r->move, GCLK_CLOCK_VIRTUAL, r->p->has_hpet ? needs_monitor : not_shown);
	}
}

static bool was_carried_out(const struct move *move)
{
	return move->verdict == MOVE_DONE || move->verdict == MOVE_LATE ||
	       move->verdict == MOVE_UNPROVEN;
}

static const char wall_set[] = "the wall clock was set meanwhile";

/* What was compared by a clock that somebody set amid it says nothing. */
static void forget_all(struct move *move, unsigned n_findings)
{
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		struct move_clock *c = &move->clocks[i];

		c->proof = MOVE_UNVERIFIED;
		c->read_by[0] = 0;
		c->read_ns = 0;
		c->read_width_ns = 0;
		gclk_text_copy(c->unread, sizeof(c->unread), wall_set);
	}
	move->findings.n = n_findings;
}

static void read_or_say(struct reading *r)
{
	unsigned n_findings = r->move->findings.n;
	struct gclk_error error;

	if (gclk_host_sample(&r->now, &error) < 0 || wall_was_set(&r->p->host, &r->now)) {
		forget_all(r->move, n_findings);
		return;
	}
	read_all(r);
	if (gclk_host_sample(&r->now, &error) < 0 || wall_was_set(&r->p->host, &r->now)) {
		forget_all(r->move, n_findings);
	}
}

static void conclude(struct move *move)
{
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		struct move_clock *c = &move->clocks[i];

		if (!c->read_by[0] && !c->unread[0]) {
			gclk_text_copy(c->unread, sizeof(c->unread), not_shown);
		}
		if (c->proof == MOVE_DIFFERS && move->verdict != MOVE_UNPROVEN) {
			move->verdict = MOVE_UNPROVEN;
			snprintf(move->why, sizeof(move->why),
				 "clock-not-as-planned: the %s does not read what was written",
				 c->clock);
		}
	}
}

void proof_read(const struct proof *p, const char *root, pid_t pid, proof_ask ask, void *ctx,
		struct move *move)
{
	struct reading *r;

	if (!p->taken || !was_carried_out(move)) {
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		return;
	}
	*r = (struct reading){ .p = p, .move = move, .now = p->host, .pid = pid,
			       .root = root, .ask = ask, .ctx = ctx };
	read_or_say(r);
	conclude(move);
	offsets_free(&r->offsets);
	free(r);
}

int parse_verify(const char *text, uint8_t *ret, struct gclk_error *reterr)
{
	*ret = !strcmp(text, "monitor");
	return *ret || !strcmp(text, "outside") ?
		       0 :
		       gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is not outside or monitor", text);
}
