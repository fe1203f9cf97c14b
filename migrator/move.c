/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <guestclock/devices.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/json-text.h"
#include "migrator/move.h"

const char *const move_verdict_names[6] = {
	[MOVE_DONE] = "done",	    [MOVE_UNPROVEN] = "unproven",
	[MOVE_LATE] = "late",	    [MOVE_UNTOUCHED] = "untouched",
	[MOVE_REFUSED] = "refused", [MOVE_CANCELLED] = "cancelled",
};

const char *const move_proof_names[3] = {
	[MOVE_UNVERIFIED] = "unverified",
	[MOVE_VERIFIED] = "verified",
	[MOVE_DIFFERS] = "differs",
};

void move_init(struct move *move, const char *verb)
{
	memset(move, 0, sizeof(*move));
	gclk_text_copy(move->verb, sizeof(move->verb), verb);
	move->stopped.uncertainty_ns = GCLK_UNBOUNDED;
	move->planned.uncertainty_ns = GCLK_UNBOUNDED;
	move->ran.uncertainty_ns = GCLK_UNBOUNDED;
	move->disagreement.uncertainty_ns = GCLK_UNBOUNDED;
}

/* ---- out of a plan ---- */

/* What does not fit is the limit. */
static int64_t limited(gclk_i128 ns)
{
	return (int64_t)GCLK_MIN(GCLK_MAX(ns, (gclk_i128)INT64_MIN),
				 (gclk_i128)INT64_MAX);
}

/* @ticks of a clock of @hz / @den, in ns. */
static int64_t ns_of_ticks(int64_t ticks, uint64_t hz, uint64_t den)
{
	return limited((gclk_i128)ticks * GCLK_NS_PER_S * (gclk_i128)den / (gclk_i128)hz);
}

/* By its own frequency, or its host's; by what was counted where nobody knows one. */
static int64_t tsc_correction(const struct gclk_state *before,
			      const struct gclk_host *host, const struct gclk_plan *plan)
{
	const struct gclk_tsc *old = &before->tsc[0], *new = &plan->state->tsc[0];
	int64_t ticks = (int64_t)(new->value_ticks - old->value_ticks);

	if (GCLK_HAS(tsc, new, frequency_hz)) {
		return ns_of_ticks(ticks, new->frequency_hz,
				   GCLK_HAS(tsc, new, frequency_den) ? new->frequency_den
								     : 1);
	}
	if (GCLK_HAS(host, host, tsc_hz)) {
		return ns_of_ticks(ticks, host->tsc_hz,
				   GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den
								    : 1);
	}
	return ticks ? plan->counted_ns : 0;
}

static gclk_i128 rtc_at(const struct gclk_state *state, const struct gclk_plan *plan)
{
	const struct gclk_rtc *rtc = &state->rtc;
	uint8_t axis = GCLK_HAS(rtc, rtc, axis) ? rtc->axis : GCLK_AXIS_GUEST;
	int64_t now = axis == GCLK_AXIS_GUEST ? state->virtual_clock.clock_ns
					      : plan->when.run.ns;
	int64_t below = 0, s = gclk_rtc_seconds_at(rtc, now, &below);

	return (gclk_i128)s * GCLK_NS_PER_S + below;
}

/* Everything else rides on the shared axis. */
static int64_t correction(enum gclk_clock clock, const struct gclk_state *before,
			  const struct gclk_host *host, const struct gclk_plan *plan)
{
	const struct gclk_state *after = plan->state;

	switch (clock) {
	case GCLK_CLOCK_TSC:
		return tsc_correction(before, host, plan);
	case GCLK_CLOCK_KVMCLOCK:
		return (int64_t)(after->kvmclock.clock_ns - before->kvmclock.clock_ns);
	case GCLK_CLOCK_RTC:
		return limited(rtc_at(after, plan) - rtc_at(before, plan));
	default:
		return gclk_sub_sat(after->virtual_clock.clock_ns,
				    before->virtual_clock.clock_ns);
	}
}

static enum gclk_clock clock_of(const char *name)
{
	enum gclk_clock clock = 0;

	while (clock < GCLK_N_CLOCKS && strcmp(gclk_clock_names[clock], name)) {
		clock++;
	}
	return clock;
}

static void take_clocks(struct move *move, const struct gclk_state *before,
			const struct gclk_carrier *carrier, const struct gclk_host *host,
			const struct gclk_plan *plan)
{
	move->n_clocks = 0;
	for (unsigned i = 0; i < plan->n_bounds; i++) {
		enum gclk_clock clock = clock_of(plan->bounds[i].clock);
		struct move_clock *to = &move->clocks[move->n_clocks];

		if (clock == GCLK_N_CLOCKS) {
			continue;
		}
		memset(to, 0, sizeof(*to));
		gclk_text_copy(to->clock, sizeof(to->clock), gclk_clock_names[clock]);
		to->correction_ns = correction(clock, before, host, plan);
		to->bound_ns = plan->bounds[i].bound_ns;
		to->start = carrier->rows[clock].start;
		to->start_ns = carrier->rows[clock].start_uncertainty_ns;
		move->n_clocks++;
	}
}

static bool says_something(const struct gclk_ledger_entry *entry)
{
	return entry->owed_before || entry->missed;
}

/* The row of @entry's device: "lapic" for "lapic[7]". */
static struct gclk_ledger_entry *device_row(struct move *move,
					    const struct gclk_ledger_entry *entry)
{
	char device[sizeof(entry->timer)];

	gclk_text_copy(device, sizeof(device), entry->timer);
	device[strcspn(device, "[")] = 0;
	for (uint32_t i = 0; i < move->n_ledger; i++) {
		if (!strcmp(move->ledger[i].timer, device)) {
			return &move->ledger[i];
		}
	}
	/* there are fewer devices than rows */
	struct gclk_ledger_entry *row = &move->ledger[move->n_ledger++];

	*row = (struct gclk_ledger_entry){ .period_ns = entry->period_ns,
					   .policy = entry->policy,
					   .why = entry->why };
	gclk_text_copy(row->timer, sizeof(row->timer), device);
	return row;
}

static void take_by_device(struct move *move, const struct gclk_plan *plan)
{
	for (uint32_t i = 0; i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *entry = &plan->ledger[i];

		if (says_something(entry)) {
			struct gclk_ledger_entry *row = device_row(move, entry);

			row->owed_before += entry->owed_before;
			row->missed += entry->missed;
			row->replayed += entry->replayed;
			row->merged += entry->merged;
			row->dropped += entry->dropped;
		}
	}
}

static void take_ledger(struct move *move, const struct gclk_plan *plan)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < plan->n_ledger; i++) {
		if (says_something(&plan->ledger[i]) && n++ < MOVE_LEDGER_MAX) {
			move->ledger[n - 1] = plan->ledger[i];
		}
	}
	move->n_ledger = n;
	if (n > MOVE_LEDGER_MAX) {
		move->n_ledger = 0;
		take_by_device(move, plan);
	}
}

void move_take_plan(struct move *move, const struct gclk_state *before,
		    const struct gclk_carrier *carrier, const struct gclk_host *host,
		    const struct gclk_plan *plan)
{
	move->gap_ns = plan->gap_ns;
	move->planned = plan->when.run;
	move->disagreement = plan->disagreement;
	take_clocks(move, before, carrier, host, plan);
	take_ledger(move, plan);
	move->findings = plan->findings;
}

/* The bound of a clock that was seen to start within @seen_ns of @at; -1: not seen. */
static uint64_t started_bound(const struct move_clock *clock, const struct gclk_instant *at,
			      int64_t seen_ns)
{
	uint64_t bound = clock->bound_ns;

	if (seen_ns >= 0 && bound != GCLK_UNBOUNDED && bound >= clock->start_ns) {
		bound = bound - clock->start_ns + (uint64_t)seen_ns;
	}
	return __builtin_add_overflow(bound, at->uncertainty_ns, &bound) ? GCLK_UNBOUNDED : bound;
}

void move_ran(struct move *move, const struct gclk_instant *at, int64_t until_ns,
	      const char *basis, int64_t tolerance_ns)
{
	/* mostly soon after the stamp: the middle of the span would be further off */
	int64_t seen_ns = until_ns ? GCLK_MAX(gclk_sub_sat(until_ns, at->ns), 0) : -1;
	int64_t late = gclk_sub_sat(at->ns, move->planned.ns);
	bool carried_out = move->verdict == MOVE_DONE || move->verdict == MOVE_UNPROVEN;

	move->ran = *at;
	gclk_text_copy(move->ran_basis, sizeof(move->ran_basis), basis);
	if (!carried_out) {
		return;
	}
	if (at->uncertainty_ns == GCLK_UNBOUNDED) {
		move->verdict = MOVE_UNPROVEN;
		return;
	}
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		struct move_clock *clock = &move->clocks[i];

		if (clock->start == GCLK_START_RUN) {
			clock->error_ns = gclk_sub_sat(0, late);
			clock->bound_ns = started_bound(clock, at, seen_ns);
		}
	}
	if (late > tolerance_ns) {
		move->verdict = MOVE_LATE;
	}
}

void move_wall_set(struct move *move, const struct gclk_rtc *rtc, int64_t by_ns)
{
	bool goes_with_it = GCLK_HAS(rtc, rtc, axis) && rtc->axis == GCLK_AXIS_REALTIME;
	char by[GCLK_DURATION_TEXT_BYTES];

	if (!by_ns) {
		return;
	}
	gclk_duration_format(by_ns, by);
	gclk_findings_add(&move->findings, "wall-clock-set", goes_with_it ? "rtc" : "",
			  "it was set by %s after the guest's clocks had been written%s", by,
			  goes_with_it ? ", and its real-time clock goes by it" : "");
	for (uint32_t i = 0; i < move->n_clocks && goes_with_it; i++) {
		struct move_clock *clock = &move->clocks[i];

		if (!strcmp(clock->clock, gclk_clock_names[GCLK_CLOCK_RTC])) {
			clock->error_ns = gclk_add_sat(clock->error_ns, by_ns);
		}
	}
}

/* ---- the audit log ---- */

static int open_log(const char *path)
{
	int flags = O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
	int fd = open(path, flags, 0640);
	char directory[512];
	const char *slash = strrchr(path, '/');

	if (fd < 0 && errno == ENOENT && slash > path &&
	    (size_t)(slash - path) < sizeof(directory)) {
		memcpy(directory, path, (size_t)(slash - path));
		directory[slash - path] = 0;
		if (mkdir(directory, 0755) == 0) {
			fd = open(path, flags, 0640);
		}
	}
	return fd;
}

/*
 * A line that a full disk cut short must not take the next one with it. Others that write
 * now are kept out: the size of a file grows by pages within one write().
 */
static bool ends_in_a_line(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	char last = '\n';

	return size <= 0 || pread(fd, &last, 1, size - 1) != 1 || last == '\n';
}

/* Without its breaks and what stands before each line: there are none within strings. */
static size_t on_one_line(char *text)
{
	char *to = text;

	for (const char *from = text; *from;) {
		if (*from == '\n') {
			from += 1 + strspn(from + 1, " ");
		} else {
			*to++ = *from++;
		}
	}
	*to = 0;
	return (size_t)(to - text);
}

char *move_to_text(const struct move *move, size_t *ret_size)
{
	struct json_object *json = move_to_json(move);
	char *text = json_to_text(json, NULL);

	*ret_size = text ? on_one_line(text) : 0;
	json_object_put(json);
	return text;
}

/* "\nTEXT\n": the first break is used where the file needs it. */
static char *line_of(const struct move *move, size_t *ret_size)
{
	size_t size;
	char *text = move_to_text(move, &size), *line = NULL;

	if (text) {
		line = malloc(size + 3);
	}
	if (line) {
		*ret_size = size + 2;
		line[0] = '\n';
		memcpy(line + 1, text, size);
		memcpy(line + 1 + size, "\n", 2);
	}
	free(text);
	return line;
}

/* A line for which there is no room is taken out again, where it can be: half of one tells nothing. */
static int append(int fd, const char *line, size_t size)
{
	size_t skip;
	off_t end;
	ssize_t n;

	while (flock(fd, LOCK_EX) < 0 && errno == EINTR) {
	}
	end = lseek(fd, 0, SEEK_END);
	skip = ends_in_a_line(fd) ? 1 : 0;
	do {
		n = write(fd, line + skip, size - skip);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 && (size_t)n < size - skip) {
		if (end >= 0 && ftruncate(fd, end) < 0) {
			/* no file of blocks; the next line begins anew */
		}
		errno = ENOSPC;
		return -1;
	}
	return n < 0 || (fdatasync(fd) < 0 && errno != EINVAL) ? -1 : 0;
}

int move_audit(const struct move *move, const char *path, struct gclk_error *reterr)
{
	size_t size = 0;
	char *line = line_of(move, &size);
	int fd, r;

	path = path ? path : AUDIT_PATH;
	if (!line) {
		return gclk_fail(reterr, GCLK_NOMEM, path, GCLK_NO_OFFSET,
				 "out of memory");
	}
	fd = open_log(path);
	r = fd < 0 ? -1 : append(fd, line, size);
	if (r < 0) {
		r = gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
			      "the audit log cannot be written: %s", strerror(errno));
	}
	free(line);
	if (fd >= 0) {
		close(fd);
	}
	return r;
}
