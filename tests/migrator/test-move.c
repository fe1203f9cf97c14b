/* SPDX-License-Identifier: MIT */
/* The report of a move: out of a plan, as JSON both ways, as a line of the audit log. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/move.h"

#define MS GCLK_NS_PER_MS
#define S GCLK_NS_PER_S
#define NOON (INT64_C(1790000000) * S)

/* ---- JSON ---- */

static void random_text(char *to, size_t size)
{
	size_t n = gclk_random_below(size);

	for (size_t i = 0; i < n; i++) {
		to[i] = (char)(' ' + gclk_random_below(95));
	}
	to[n] = 0;
}

static struct gclk_instant random_instant(void)
{
	if (gclk_random_below(4) == 0) {
		return (struct gclk_instant){ 0, GCLK_UNBOUNDED };
	}
	return (struct gclk_instant){ 1 + (int64_t)(gclk_random_bits() >> 1),
				      gclk_random_bits() };
}

static void random_clock(struct move_clock *clock, unsigned which)
{
	strcpy(clock->clock, gclk_clock_names[which]);
	clock->correction_ns = (int64_t)gclk_random_bits();
	clock->error_ns = (int64_t)gclk_random_bits();
	clock->bound_ns = gclk_random_below(3) ? gclk_random_bits() : GCLK_UNBOUNDED;
	clock->proof = (uint8_t)gclk_random_below(3);
	strcpy(clock->read_by, clock->proof ? "tsc-offset" : "");
	clock->read_ns = clock->proof ? (int64_t)gclk_random_bits() : 0;
	clock->read_width_ns = clock->proof ? gclk_random_bits() : 0;
	random_text(clock->unread, clock->proof ? 1 : sizeof(clock->unread));
}

static void random_entry(struct gclk_ledger_entry *entry, unsigned which)
{
	snprintf(entry->timer, sizeof(entry->timer), "hpet[%u]", which);
	entry->period_ns = gclk_random_bits();
	entry->owed_before = gclk_random_bits();
	entry->missed = gclk_random_bits();
	entry->replayed = gclk_random_bits();
	entry->merged = gclk_random_bits();
	entry->dropped = gclk_random_bits();
	entry->policy = (uint8_t)gclk_random_below(5);
}

static void random_move(struct move *move)
{
	move_init(move, "migrate");
	random_text(move->domain, sizeof(move->domain));
	strcpy(move->uuid,
	       gclk_random_below(2) ? "8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a0" : "");
	random_text(move->from, sizeof(move->from));
	random_text(move->to, sizeof(move->to));
	random_text(move->why, sizeof(move->why));
	move->written_ns = (int64_t)gclk_random_bits();
	move->verdict = (uint8_t)gclk_random_below(6);
	move->stopped = random_instant();
	move->planned = random_instant();
	move->ran = random_instant();
	strcpy(move->stopped_basis, move->stopped.ns ? "event" : "");
	strcpy(move->ran_basis, move->ran.ns ? "monitor" : "");
	move->gap_ns = (int64_t)gclk_random_bits();
	move->blackout_ns = (int64_t)(gclk_random_bits() >> 1);
	move->hold_ns = (int64_t)(gclk_random_bits() >> 1);
	move->disagreement.ns = (int64_t)gclk_random_bits();
	move->disagreement.uncertainty_ns = gclk_random_bits();
	strcpy(move->disagreement_basis, "exchange");
	move->round_trip_ns = gclk_random_bits();
	for (move->n_clocks = 0; move->n_clocks < gclk_random_below(GCLK_N_CLOCKS + 1);) {
		random_clock(&move->clocks[move->n_clocks], move->n_clocks);
		move->n_clocks++;
	}
	for (move->n_ledger = 0;
	     move->n_ledger < gclk_random_below(MOVE_LEDGER_MAX + 1);) {
		random_entry(&move->ledger[move->n_ledger], move->n_ledger);
		move->n_ledger++;
	}
	for (unsigned n = (unsigned)gclk_random_below(GCLK_FINDINGS_MAX + 1); n > 0;
	     n--) {
		gclk_findings_add(
			&move->findings,
			gclk_finding_table[gclk_random_below(gclk_n_finding_infos)].id,
			"hpet[2]", "%llu and a \"quote\"",
			(unsigned long long)gclk_random_bits());
	}
}

/* The text of a move; the caller's. */
static char *text_of(const struct move *move)
{
	struct json_object *json = move_to_json(move);
	char *text = strdup(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));

	json_object_put(json);
	return text;
}

GCLK_TEST(move, json_brings_everything_back)
{
	struct move *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));

	for (unsigned i = 0; i < 200 * gclk_test_scale(); i++) {
		struct gclk_error error = { 0 };
		char *text, *again;

		random_move(a);
		text = text_of(a);
		GCLK_EQ(move_from_json(text, strlen(text), b, &error), 0);
		CU_ASSERT_STRING_EQUAL(error.message, "");
		again = text_of(b);
		CU_ASSERT_STRING_EQUAL(text, again);
		CU_ASSERT(strchr(text, '\n') == NULL);
		/* what is unknown is no zero, and the reverse */
		GCLK_EQ(b->stopped.uncertainty_ns, a->stopped.uncertainty_ns);
		GCLK_EQ(b->blackout_ns, a->blackout_ns);
		GCLK_EQ(b->findings.n, a->findings.n);
		GCLK_EQ(b->findings.n_refusing, a->findings.n_refusing);
		CU_ASSERT_STRING_EQUAL(b->domain, a->domain);
		for (uint32_t k = 0; k < a->n_clocks; k++) {
			GCLK_EQ(b->clocks[k].proof, a->clocks[k].proof);
			GCLK_EQ(b->clocks[k].read_ns, a->clocks[k].read_ns);
			CU_ASSERT_STRING_EQUAL(b->clocks[k].unread, a->clocks[k].unread);
		}
		free(text);
		free(again);
	}
	free(a);
	free(b);
}

#define HEAD                                                                             \
	"{\"schema\":\"guestclock.v1\",\"verb\":\"migrate\",\"verdict\":\"done\","       \
	"\"gap_ns\":\"5\",\"hold_ns\":\"0\""

GCLK_TEST(move, hostile_json_is_refused_whole)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ HEAD "}", 0 },
		{ HEAD ",\"of_a_later_release\":[{}]}", 0 },
		{ "[]", GCLK_MALFORMED },
		{ HEAD, GCLK_TRUNCATED },
		{ HEAD "}x", GCLK_MALFORMED },
		{ "{\"schema\":\"guestclock.v2\",\"verb\":\"migrate\",\"verdict\":"
		  "\"done\","
		  "\"gap_ns\":\"5\",\"hold_ns\":\"0\"}",
		  GCLK_VERSION },
		{ "{\"schema\":\"guestclock.v1\",\"verb\":\"\",\"verdict\":\"done\","
		  "\"gap_ns\":\"5\",\"hold_ns\":\"0\"}",
		  GCLK_MALFORMED },
		{ "{\"schema\":\"guestclock.v1\",\"verb\":\"migrate\",\"verdict\":"
		  "\"fine\","
		  "\"gap_ns\":\"5\",\"hold_ns\":\"0\"}",
		  GCLK_MALFORMED },
		{ "{\"schema\":\"guestclock.v1\",\"verb\":\"migrate\",\"verdict\":"
		  "\"done\","
		  "\"hold_ns\":\"0\"}",
		  GCLK_MALFORMED },
		{ HEAD ",\"domain\":5}", GCLK_MALFORMED },
		{ HEAD ",\"domain\":\"a\\u0000b\"}", GCLK_MALFORMED },
		{ HEAD ",\"uuid\":\"../../etc/passwd\"}", GCLK_MALFORMED },
		{ HEAD ",\"uuid\":\"8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a\"}",
		  GCLK_MALFORMED },
		{ HEAD ",\"uuid\":\"8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a0a\"}",
		  GCLK_MALFORMED },
		{ HEAD ",\"blackout_ns\":\"-1\"}", GCLK_RANGE },
		{ HEAD ",\"blackout_ns\":1.5}", GCLK_MALFORMED },
		{ HEAD ",\"blackout_ns\":\"1 \"}", GCLK_MALFORMED },
		{ HEAD ",\"blackout_ns\":\"0x1\"}", GCLK_MALFORMED },
		{ HEAD ",\"blackout_ns\":\"9223372036854775808\"}", GCLK_MALFORMED },
		{ HEAD ",\"round_trip_ns\":\"18446744073709551616\"}", GCLK_MALFORMED },
		{ HEAD ",\"stopped\":7}", GCLK_MALFORMED },
		{ HEAD ",\"stopped\":{}}", GCLK_MALFORMED },
		{ HEAD ",\"stopped\":{\"realtime_ns\":\"7\",\"basis\":{}}}",
		  GCLK_MALFORMED },
		{ HEAD ",\"disagreement\":[]}", GCLK_MALFORMED },
		{ HEAD ",\"clocks\":{}}", GCLK_MALFORMED },
		{ HEAD ",\"clocks\":[null]}", GCLK_MALFORMED },
		{ HEAD ",\"clocks\":[{\"clock\":\"sundial\",\"correction_ns\":\"0\","
		       "\"error_ns\":\"0\"}]}",
		  GCLK_MALFORMED },
		{ HEAD ",\"clocks\":[{},{},{},{},{},{},{},{},{}]}", GCLK_RANGE },
		{ HEAD ",\"ledger\":[{\"timer\":\"pit\"}]}", GCLK_MALFORMED },
		{ HEAD ",\"ledger\":[{\"timer\":\"p i "
		       "t\",\"period_ns\":\"0\",\"owed_before\":\"0\","
		       "\"missed\":\"0\",\"replayed\":\"0\",\"merged\":\"0\",\"dropped\":"
		       "\"0\","
		       "\"policy\":\"merge\"}]}",
		  GCLK_MALFORMED },
		{ HEAD ",\"findings\":[{\"id\":\"no-such-finding\"}]}", 0 },
		{ HEAD ",\"findings\":[{\"id\":5}]}", GCLK_MALFORMED },
		{ HEAD ",\"findings\":\"none\"}", GCLK_MALFORMED },
	};
	struct move *move = malloc(sizeof(*move)),
		    *untouched = malloc(sizeof(*untouched));

	memset(untouched, 0xa5, sizeof(*untouched));
	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		struct gclk_error error = { 0 };
		int r;

		memcpy(move, untouched, sizeof(*move));
		r = move_from_json(cases[i].text, strlen(cases[i].text), move, &error);
		if (r != -cases[i].status) {
			printf("\n    %s: %s", cases[i].text, error.message);
		}
		GCLK_EQ(r, -cases[i].status);
		GCLK_EQ(memcmp(move, untouched, sizeof(*move)) == 0, r < 0);
	}
	free(move);
	free(untouched);
}

GCLK_TEST(move, a_finding_of_a_later_release_is_counted)
{
	static const char text[] = HEAD ",\"findings\":[{\"id\":\"no-such-finding\"},"
					"{\"id\":\"gap-long\",\"severity\":\"warning\","
					"\"message\":\"\\u001b[2J\"}]}";
	struct move *move = malloc(sizeof(*move));

	GCLK_EQ(move_from_json(text, strlen(text), move, NULL), 0);
	GCLK_EQ(move->findings.left_out, gclk_finding_by_id("gap-long") ? 1 : 2);
	if (move->findings.n) {
		CU_ASSERT_STRING_EQUAL(move->findings.items[0].message, "?[2J");
	}
	free(move);
}

/* Whatever bytes change: an answer or an error, and an answer is valid JSON again. */
GCLK_TEST(move, any_damage_is_survived)
{
	struct move *move = malloc(sizeof(*move)), *back = malloc(sizeof(*back));

	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		char *text, *again;
		size_t size;

		random_move(move);
		text = text_of(move);
		size = gclk_random_below(4) ? strlen(text)
					    : gclk_random_below(strlen(text));
		for (uint64_t n = 1 + gclk_random_below(3); n > 0 && size > 0; n--) {
			text[gclk_random_below(size)] = (char)gclk_random_below(256);
		}
		if (move_from_json(text, size, back, NULL) == 0) {
			again = text_of(back);
			GCLK_EQ(move_from_json(again, strlen(again), move, NULL), 0);
			free(again);
		}
		free(text);
	}
	free(move);
	free(back);
}

/* ---- out of a plan ---- */

static const struct gclk_carrier carrier = {
	.name = "test",
	.rows = {
		[GCLK_CLOCK_TSC] = { .set = GCLK_SET_OWN, .start = GCLK_START_LOAD },
		[GCLK_CLOCK_KVMCLOCK] = { .set = GCLK_SET_OWN, .start = GCLK_START_RUN },
		[GCLK_CLOCK_VIRTUAL] = { .set = GCLK_SET_OWN, .start = GCLK_START_RUN,
					 .start_uncertainty_ns = 100000 },
		[GCLK_CLOCK_RTC] = { .set = GCLK_SET_OWN, .start = GCLK_START_ALWAYS },
		[GCLK_CLOCK_HPET] = { .set = GCLK_SET_AXIS, .start = GCLK_START_RUN },
		[GCLK_CLOCK_PM_TIMER] = { .set = GCLK_SET_AXIS, .start = GCLK_START_RUN },
		[GCLK_CLOCK_PIT] = { .set = GCLK_SET_AXIS, .start = GCLK_START_RUN },
		[GCLK_CLOCK_LAPIC] = { .set = GCLK_SET_AXIS, .start = GCLK_START_RUN },
	},
};

static struct gclk_state *a_state(uint32_t n_vcpus)
{
	struct gclk_state *state = gclk_state_new(n_vcpus);

	for (uint32_t i = 0; i < n_vcpus; i++) {
		GCLK_SET(tsc, &state->tsc[i], value_ticks, 1000000);
		GCLK_SET(tsc, &state->tsc[i], frequency_hz, 2000000000);
	}
	GCLK_SET(kvmclock, &state->kvmclock, clock_ns, 77 * S);
	GCLK_SET(virtual_clock, &state->virtual_clock, clock_ns, 80 * S);
	return state;
}

static struct gclk_plan *planned(const struct gclk_state *state,
				 const struct gclk_host *host, int64_t gap_ns,
				 int64_t resume_ns)
{
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_when when = {
		.captured = { NOON, 1000 },
		.load = { NOON + gap_ns - resume_ns, 0 },
		.run = { NOON + gap_ns, 2000 },
	};
	struct gclk_disagreement none = { 0, 500 };
	struct gclk_error error = { 0 };

	GCLK_EQ(gclk_plan(state, &carrier, host, &when, &none, &gclk_policy_default, plan,
			  &error),
		0);
	CU_ASSERT_STRING_EQUAL(error.message, "");
	return plan;
}

static const struct move_clock *find(const struct move *move, const char *clock)
{
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		if (!strcmp(move->clocks[i].clock, clock)) {
			return &move->clocks[i];
		}
	}
	CU_FAIL("the clock is missing");
	return &move->clocks[0];
}

GCLK_TEST(move, corrections_are_those_of_the_plan)
{
	struct gclk_host host = { 0 };
	struct gclk_state *state = a_state(1);
	struct move *move = malloc(sizeof(*move));
	struct gclk_plan *plan;

	GCLK_SET(host, &host, tsc_hz, 2000000000);
	plan = planned(state, &host, 40 * MS, 5 * MS);
	move_init(move, "migrate");
	move_take_plan(move, state, &carrier, &host, plan);
	GCLK_EQ(move->gap_ns, 40 * MS);
	GCLK_EQ(move->planned.ns, NOON + 40 * MS);
	GCLK_EQ(find(move, "tsc")->correction_ns, 35 * MS); /* it runs from the load on */
	GCLK_EQ(find(move, "kvmclock")->correction_ns, 40 * MS);
	GCLK_EQ(find(move, "virtual_clock")->correction_ns, 40 * MS);
	GCLK_EQ(find(move, "tsc")->error_ns, 0);
	GCLK_EQ(move->disagreement.uncertainty_ns, 500);
	gclk_plan_free(plan);
	gclk_state_free(state);
	free(move);
}

GCLK_TEST(move, a_late_resume_is_a_known_error)
{
	struct gclk_host host = { 0 };
	struct gclk_state *state = a_state(1);
	struct move *move = malloc(sizeof(*move));
	struct gclk_instant at = { NOON + 43 * MS, 1500 };
	struct gclk_plan *plan;
	uint64_t bound;

	GCLK_SET(host, &host, tsc_hz, 2000000000);
	plan = planned(state, &host, 40 * MS, 5 * MS);
	move_init(move, "migrate");
	move_take_plan(move, state, &carrier, &host, plan);
	bound = find(move, "virtual_clock")->bound_ns;
	CU_ASSERT(bound < (uint64_t)MS);
	move_ran(move, &at, 0, "event", MS);
	GCLK_EQ(move->verdict, MOVE_LATE);
	GCLK_EQ(find(move, "kvmclock")->error_ns, -3 * MS);
	GCLK_EQ(find(move, "virtual_clock")->bound_ns, bound + 1500);
	GCLK_EQ(find(move, "kvmclock")->bound_ns, GCLK_UNBOUNDED); /* and stays so */
	GCLK_EQ(find(move, "tsc")->error_ns, 0);		   /* ran already */
	CU_ASSERT_STRING_EQUAL(move->ran_basis, "event");

	move_init(move, "migrate");
	move_take_plan(move, state, &carrier, &host, plan);
	at.ns = NOON + 40 * MS + 200000;
	move_ran(move, &at, 0, "event", MS);
	GCLK_EQ(move->verdict, MOVE_DONE);
	GCLK_EQ(find(move, "virtual_clock")->error_ns, -200000);

	/* what was seen of the start, instead of what the carrier fears: less, or more */
	for (int64_t seen = 0; seen <= 7 * MS; seen += 7 * MS) {
		uint64_t feared = carrier.rows[GCLK_CLOCK_VIRTUAL].start_uncertainty_ns;

		move_init(move, "migrate");
		move_take_plan(move, state, &carrier, &host, plan);
		move_ran(move, &at, at.ns + seen, "event", MS);
		GCLK_EQ(find(move, "virtual_clock")->bound_ns,
			bound - feared + (uint64_t)seen + at.uncertainty_ns);
		GCLK_EQ(find(move, "kvmclock")->bound_ns, GCLK_UNBOUNDED);
	}

	move_init(move, "migrate");
	move_take_plan(move, state, &carrier, &host, plan);
	at.uncertainty_ns = GCLK_UNBOUNDED;
	move_ran(move, &at, 0, "predicted", MS);
	GCLK_EQ(move->verdict, MOVE_UNPROVEN);
	GCLK_EQ(find(move, "virtual_clock")->error_ns, 0);

	move_init(move, "migrate");
	move->verdict = MOVE_CANCELLED;
	move_ran(move, &at, 0, "event", MS);
	GCLK_EQ(move->verdict, MOVE_CANCELLED);
	gclk_plan_free(plan);
	gclk_state_free(state);
	free(move);
}

GCLK_TEST(move, a_ledger_that_is_too_long_is_added_up)
{
	struct gclk_host host = { 0 };
	struct gclk_state *state = a_state(1);
	struct move *move = malloc(sizeof(*move));
	struct gclk_ledger_entry rows[40] = { 0 }, *own;
	struct gclk_plan *plan;
	uint32_t own_n, own_max;

	GCLK_SET(host, &host, tsc_hz, 2000000000);
	plan = planned(state, &host, 40 * MS, 0);
	own = plan->ledger;
	own_n = plan->n_ledger;
	own_max = plan->ledger_max;
	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		snprintf(rows[i].timer, sizeof(rows[i].timer), i ? "lapic[%u]" : "pit",
			 i);
		rows[i].missed = i == 7 ? 0 : 10;
		rows[i].replayed = 4;
		rows[i].period_ns = 1000;
		rows[i].policy = GCLK_TICKS_MERGE;
	}
	plan->ledger = rows;
	plan->n_ledger = GCLK_COUNT(rows);
	move_init(move, "migrate");
	move_take_plan(move, state, &carrier, &host, plan);
	GCLK_EQ(move->n_ledger, 2);
	CU_ASSERT_STRING_EQUAL(move->ledger[1].timer, "lapic");
	GCLK_EQ(move->ledger[1].missed, 380);
	GCLK_EQ(move->ledger[1].replayed, 152);
	GCLK_EQ(move->ledger[1].policy, GCLK_TICKS_MERGE);

	plan->n_ledger = MOVE_LEDGER_MAX + 1; /* the silent one is left out */
	move_take_plan(move, state, &carrier, &host, plan);
	GCLK_EQ(move->n_ledger, MOVE_LEDGER_MAX);
	CU_ASSERT_STRING_EQUAL(move->ledger[7].timer, "lapic[8]");
	plan->ledger = own;
	plan->n_ledger = own_n;
	plan->ledger_max = own_max;
	gclk_plan_free(plan);
	gclk_state_free(state);
	free(move);
}

/* ---- the audit log ---- */

static char *slurp(const char *path, size_t *ret_size)
{
	struct stat st = { 0 };
	FILE *file = fopen(path, "r");
	char *text;

	stat(path, &st);
	text = malloc((size_t)st.st_size + 1);
	*ret_size = file ? fread(text, 1, (size_t)st.st_size, file) : 0;
	text[*ret_size] = 0;
	if (file) {
		fclose(file);
	}
	return text;
}

/* How many lines are moves; all of them are lines. */
static unsigned count_moves(const char *path, unsigned *ret_damaged)
{
	struct move *move = malloc(sizeof(*move));
	size_t size;
	char *text = slurp(path, &size), *line = text, *end;
	unsigned n = 0;

	*ret_damaged = 0;
	while ((end = strchr(line, '\n'))) {
		if (move_from_json(line, (size_t)(end - line), move, NULL) == 0) {
			n++;
		} else {
			++*ret_damaged;
		}
		line = end + 1;
	}
	CU_ASSERT_STRING_EQUAL(line, "");
	free(text);
	free(move);
	return n;
}

static void audit_test(const char *path)
{
	struct move *move = malloc(sizeof(*move));
	struct gclk_error error = { 0 };
	unsigned damaged;
	struct stat st;
	int fd;

	random_move(move);
	GCLK_EQ(move_audit(move, path, &error), 0);
	GCLK_EQ(stat(path, &st), 0);
	GCLK_EQ(st.st_mode & 07137, 0);
	GCLK_EQ(move_audit(move, path, &error), 0);
	GCLK_EQ(count_moves(path, &damaged), 2);
	GCLK_EQ(damaged, 0);

	/* a line that a full disk cut short */
	fd = open(path, O_WRONLY | O_APPEND);
	GCLK_EQ(write(fd, "{\"schema\":", 10), 10);
	close(fd);
	GCLK_EQ(move_audit(move, path, &error), 0);
	GCLK_EQ(count_moves(path, &damaged), 3);
	GCLK_EQ(damaged, 1);
	free(move);
}

/* Several programs write to it at once. */
static void audit_from_many(const char *path)
{
	struct move *move = malloc(sizeof(*move));
	pid_t children[4];
	unsigned damaged;

	random_move(move);
	for (unsigned i = 0; i < GCLK_COUNT(children); i++) {
		children[i] = fork();
		if (children[i] == 0) {
			int r = 0;

			for (unsigned n = 0; n < 20; n++) {
				r |= move_audit(move, path, NULL);
			}
			_exit(r != 0);
		}
	}
	for (unsigned i = 0; i < GCLK_COUNT(children); i++) {
		int status = -1;

		waitpid(children[i], &status, 0);
		GCLK_EQ(status, 0);
	}
	GCLK_EQ(count_moves(path, &damaged), 80);
	GCLK_EQ(damaged, 0);
	free(move);
}

GCLK_TEST(move, the_audit_log_has_a_line_for_each)
{
	char directory[] = "/tmp/gclk-move-XXXXXX", path[64], many[64], deep[64];
	struct gclk_error error = { 0 };
	struct move *move = malloc(sizeof(*move));

	CU_ASSERT_FATAL(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/log/moves.jsonl", directory);
	audit_test(path);
	snprintf(many, sizeof(many), "%s/log/many.jsonl", directory);
	audit_from_many(many);
	snprintf(deep, sizeof(deep), "%s/no/such/place.jsonl", directory);
	move_init(move, "save");
	GCLK_EQ(move_audit(move, deep, &error), -GCLK_SYS);
	CU_ASSERT(error.message[0] != 0);
	unlink(path);
	unlink(many);
	snprintf(path, sizeof(path), "%s/log", directory);
	rmdir(path);
	GCLK_EQ(rmdir(directory), 0);
	free(move);
}
