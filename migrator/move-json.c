/* SPDX-License-Identifier: MIT */
/*
 * A move as JSON, and back. What the rows below name is written and read by one loop
 * each; the rest are instants and lists. Text comes from another host or from a file
 * that others may have written: everything is looked at, and cleaned for terminals.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/json-state.h"
#include "migrator/move.h"
#include "migrator/report-json.h"

enum kind {
	TEXT, /* "" is null */
	SIGNED,
	UNSIGNED,
	SPAN,		/* >= 0 */
	KNOWN_SPAN,	/* the same; null is 0 */
	KNOWN_UNSIGNED, /* null is 0 */
	READ,		/* of a clock that was read; else null, which is 0 */
	READ_WIDTH,
	BOUND,		/* null is GCLK_UNBOUNDED */
};

struct row {
	const char *name;
	enum kind kind;
	size_t offset, size;
};
#define ROW(type, member, kind)                                                          \
	{                                                                                \
#member, kind, offsetof(struct type, member),                            \
			sizeof(((struct type *)0)->member)                               \
	}

static const struct row head_rows[] = {
	ROW(move, domain, TEXT),
	ROW(move, uuid, TEXT),
	ROW(move, from, TEXT),
	ROW(move, to, TEXT),
	ROW(move, why, TEXT),
	ROW(move, gap_ns, SIGNED),
	ROW(move, blackout_ns, KNOWN_SPAN),
	ROW(move, hold_ns, SPAN),
	ROW(move, round_trip_ns, KNOWN_UNSIGNED),
};

static const struct row clock_rows[] = {
	ROW(move_clock, correction_ns, SIGNED),
	ROW(move_clock, error_ns, SIGNED),
	ROW(move_clock, bound_ns, BOUND),
	ROW(move_clock, read_by, TEXT),
	ROW(move_clock, read_ns, READ),
	ROW(move_clock, read_width_ns, READ_WIDTH),
	ROW(move_clock, unread, TEXT),
};

static const struct row ledger_rows[] = {
	ROW(gclk_ledger_entry, timer, TEXT),
	ROW(gclk_ledger_entry, period_ns, UNSIGNED),
	ROW(gclk_ledger_entry, owed_before, UNSIGNED),
	ROW(gclk_ledger_entry, missed, UNSIGNED),
	ROW(gclk_ledger_entry, replayed, UNSIGNED),
	ROW(gclk_ledger_entry, merged, UNSIGNED),
	ROW(gclk_ledger_entry, dropped, UNSIGNED),
};

static const struct row disagreement_rows[] = {
	ROW(gclk_disagreement, ns, SIGNED),
	ROW(gclk_disagreement, uncertainty_ns, BOUND),
};

/* ---- writing ---- */

static struct json_object *value_of(const struct row *row, const char *base)
{
	const char *at = base + row->offset;
	uint64_t n;

	if (row->kind == TEXT) {
		return json_text(at);
	}
	memcpy(&n, at, sizeof(n));
	if ((row->kind == READ || row->kind == READ_WIDTH) &&
	    !((const struct move_clock *)(const void *)base)->read_by[0]) {
		return NULL;
	}
	switch (row->kind) {
	case SIGNED:
	case SPAN:
	case READ:
		return json_i64((int64_t)n);
	case KNOWN_SPAN:
		return n ? json_i64((int64_t)n) : NULL;
	case KNOWN_UNSIGNED:
		return n ? json_u64(n) : NULL;
	case BOUND:
		return json_bound(n);
	default:
		return json_u64(n);
	}
}

static void put_rows(struct json_object *map, const struct row *rows, size_t n,
		     const void *base)
{
	for (size_t i = 0; i < n; i++) {
		json_put(map, rows[i].name, value_of(&rows[i], base));
	}
}

/* An instant that nobody knows anything of is null. */
static struct json_object *instant_json(const struct gclk_instant *at, const char *basis)
{
	struct json_object *map;

	if (!at->ns && at->uncertainty_ns == GCLK_UNBOUNDED) {
		return NULL;
	}
	map = json_instant(at);
	if (basis) {
		json_put(map, "basis", json_text(basis));
	}
	return map;
}

static struct json_object *clocks_json(const struct move *move)
{
	struct json_object *list = json_new_list();

	for (uint32_t i = 0; i < move->n_clocks; i++) {
		struct json_object *map = json_new_map();

		json_put(map, "clock", json_text(move->clocks[i].clock));
		put_rows(map, clock_rows, GCLK_COUNT(clock_rows), &move->clocks[i]);
		json_put(map, "proof", json_text(move_proof_names[move->clocks[i].proof]));
		json_append(list, map);
	}
	return list;
}

static struct json_object *ledger_json(const struct move *move)
{
	struct json_object *list = json_new_list();

	for (uint32_t i = 0; i < move->n_ledger; i++) {
		struct json_object *map = json_new_map();

		put_rows(map, ledger_rows, GCLK_COUNT(ledger_rows), &move->ledger[i]);
		json_put(map, "policy",
			 json_text(gclk_tick_policy_names[move->ledger[i].policy]));
		json_append(list, map);
	}
	return list;
}

struct json_object *move_to_json(const struct move *move)
{
	struct json_object *answer = json_answer(move->verb),
			   *disagreement = json_new_map();

	put_rows(answer, head_rows, GCLK_COUNT(head_rows), move);
	json_put(answer, "written", json_realtime(move->written_ns));
	json_put(answer, "verdict", json_text(move_verdict_names[move->verdict]));
	json_put(answer, "stopped", instant_json(&move->stopped, move->stopped_basis));
	json_put(answer, "planned", instant_json(&move->planned, NULL));
	json_put(answer, "ran", instant_json(&move->ran, move->ran_basis));
	put_rows(disagreement, disagreement_rows, GCLK_COUNT(disagreement_rows),
		 &move->disagreement);
	json_put(disagreement, "basis", json_text(move->disagreement_basis));
	json_put(answer, "disagreement", disagreement);
	json_put(answer, "clocks", clocks_json(move));
	json_put(answer, "ledger", ledger_json(move));
	json_put(answer, "findings", json_findings(&move->findings));
	return answer;
}

/* ---- reading ---- */

static struct json_object *member(struct json_object *map, const char *name)
{
	struct json_object *found = NULL;

	return json_object_object_get_ex(map, name, &found) ? found : NULL;
}

static int wrong(struct gclk_error *reterr, enum gclk_status status, const char *name,
		 const char *what)
{
	return gclk_fail(reterr, status, name, GCLK_NO_OFFSET, "%s", what);
}

/* null is "". What a terminal must not see is '?'. */
static int read_text(struct json_object *value, const char *name, char *to, size_t size,
		     struct gclk_error *reterr)
{
	const char *text;

	to[0] = 0;
	if (!value) {
		return 0;
	}
	if (!json_object_is_type(value, json_type_string)) {
		return wrong(reterr, GCLK_MALFORMED, name, "this is no text");
	}
	text = json_object_get_string(value);
	if (strlen(text) != (size_t)json_object_get_string_len(value)) {
		return wrong(reterr, GCLK_MALFORMED, name, "there is a NUL in the text");
	}
	if (strlen(text) >= size) {
		return wrong(reterr, GCLK_RANGE, name, "the text is too long");
	}
	clean_text(to, size, text);
	return 0;
}

/* Decimal text, as 64-bit integers are written. */
static bool decimal(struct json_object *value, bool is_signed, uint64_t *ret)
{
	const char *text = json_object_get_string(value), *digits = text;
	bool negative;
	char *end;

	if (!json_object_is_type(value, json_type_string)) {
		return false;
	}
	negative = is_signed && *text == '-';
	digits += negative;
	if (!isdigit((unsigned char)*digits)) {
		return false;
	}
	errno = 0;
	*ret = strtoull(digits, &end, 10);
	if (errno || end != text + json_object_get_string_len(value) ||
	    (is_signed && *ret > (uint64_t)INT64_MAX + negative)) {
		return false;
	}
	*ret = negative ? 0 - *ret : *ret;
	return true;
}

static int read_number(struct json_object *value, const struct row *row, uint64_t *ret,
		       struct gclk_error *reterr)
{
	bool is_signed = row->kind == SIGNED || row->kind == SPAN ||
			 row->kind == KNOWN_SPAN || row->kind == READ;

	if (!value && (row->kind == KNOWN_SPAN || row->kind == KNOWN_UNSIGNED ||
		       row->kind == READ || row->kind == READ_WIDTH)) {
		*ret = 0;
		return 0;
	}
	if (!value && row->kind == BOUND) {
		*ret = GCLK_UNBOUNDED;
		return 0;
	}
	if (!value || !decimal(value, is_signed, ret)) {
		return wrong(reterr, GCLK_MALFORMED, row->name,
			     "this is no 64-bit integer");
	}
	if ((row->kind == SPAN || row->kind == KNOWN_SPAN) && (int64_t)*ret < 0) {
		return wrong(reterr, GCLK_RANGE, row->name, "the span is negative");
	}
	return 0;
}

static int read_rows(struct json_object *map, const struct row *rows, size_t n,
		     void *base, struct gclk_error *reterr)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct json_object *value = member(map, rows[i].name);
		char *to = (char *)base + rows[i].offset;
		uint64_t number = 0;

		if (rows[i].kind == TEXT) {
			r = read_text(value, rows[i].name, to, rows[i].size, reterr);
			continue;
		}
		r = read_number(value, &rows[i], &number, reterr);
		memcpy(to, &number, sizeof(number));
	}
	return r;
}

static int read_instant(struct json_object *top, const char *name,
			struct gclk_instant *ret, char *basis, size_t size,
			struct gclk_error *reterr)
{
	static const struct row ns = { "realtime_ns", SIGNED, 0, 8 };
	static const struct row uncertainty = { "uncertainty_ns", BOUND, 0, 8 };
	struct json_object *map = member(top, name);
	uint64_t number = 0;
	int r;

	if (!map) {
		*ret = (struct gclk_instant){ 0, GCLK_UNBOUNDED };
		return 0;
	}
	if (!json_object_is_type(map, json_type_object)) {
		return wrong(reterr, GCLK_MALFORMED, name, "this is no object");
	}
	r = read_number(member(map, ns.name), &ns, &number, reterr);
	ret->ns = (int64_t)number;
	if (r == 0) {
		r = read_number(member(map, uncertainty.name), &uncertainty,
				&ret->uncertainty_ns, reterr);
	}
	return r || !basis ? r
			   : read_text(member(map, "basis"), name, basis, size, reterr);
}

/* The place of a text in a list of names. */
static int read_name(struct json_object *value, const char *what,
		     const char *const names[], unsigned n, uint8_t *ret,
		     struct gclk_error *reterr)
{
	const char *text = json_object_is_type(value, json_type_string)
				   ? json_object_get_string(value)
				   : "";

	for (unsigned i = 0; i < n; i++) {
		if (!strcmp(names[i], text)) {
			*ret = (uint8_t)i;
			return 0;
		}
	}
	return wrong(reterr, GCLK_MALFORMED, what, "this is none of its names");
}

/* Each element of a list of objects; a missing list is empty. */
static int read_list(struct json_object *top, const char *name, size_t max,
		     int (*read)(struct json_object *, struct move *,
				 struct gclk_error *),
		     struct move *move, struct gclk_error *reterr)
{
	struct json_object *list = member(top, name);
	size_t n;
	int r = 0;

	if (!list) {
		return 0;
	}
	if (!json_object_is_type(list, json_type_array)) {
		return wrong(reterr, GCLK_MALFORMED, name, "this is no list");
	}
	n = json_object_array_length(list);
	if (n > max) {
		return wrong(reterr, GCLK_RANGE, name, "the list is too long");
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct json_object *item = json_object_array_get_idx(list, i);

		r = json_object_is_type(item, json_type_object)
			    ? read(item, move, reterr)
			    : wrong(reterr, GCLK_MALFORMED, name, "this is no object");
	}
	return r;
}

static int read_clock(struct json_object *item, struct move *move,
		      struct gclk_error *reterr)
{
	struct move_clock *clock = &move->clocks[move->n_clocks++];
	uint8_t which = 0;
	int r = read_name(member(item, "clock"), "clock", gclk_clock_names, GCLK_N_CLOCKS,
			  &which, reterr);

	gclk_text_copy(clock->clock, sizeof(clock->clock), gclk_clock_names[which]);
	/* earlier releases did not read any back */
	if (r == 0 && member(item, "proof")) {
		r = read_name(member(item, "proof"), "proof", move_proof_names,
			      GCLK_COUNT(move_proof_names), &clock->proof, reterr);
	}
	return r ? r : read_rows(item, clock_rows, GCLK_COUNT(clock_rows), clock, reterr);
}

/* "hpet[2]": what may stand where a device is named. */
static bool is_device(const char *name)
{
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_[].-")] == 0;
}

static int read_ledger(struct json_object *item, struct move *move,
		       struct gclk_error *reterr)
{
	struct gclk_ledger_entry *entry = &move->ledger[move->n_ledger++];
	int r = read_rows(item, ledger_rows, GCLK_COUNT(ledger_rows), entry, reterr);

	if (r == 0 && (!entry->timer[0] || !is_device(entry->timer))) {
		r = wrong(reterr, GCLK_MALFORMED, "timer", "this is no timer's name");
	}
	return r ? r
		 : read_name(member(item, "policy"), "policy", gclk_tick_policy_names,
			     GCLK_N_TICK_POLICIES, &entry->policy, reterr);
}

/* One that this release does not know cannot be explained: it is counted. */
static int read_finding(struct json_object *item, struct move *move,
			struct gclk_error *reterr)
{
	struct gclk_findings *to = &move->findings;
	struct gclk_finding *finding = &to->items[to->n];
	char id[64];
	int r = read_text(member(item, "id"), "id", id, sizeof(id), reterr);

	if (r < 0) {
		return r;
	}
	finding->info = gclk_finding_by_id(id);
	if (!finding->info) {
		to->left_out++;
		return 0;
	}
	r = read_name(member(item, "severity"), "severity", gclk_severity_names,
		      GCLK_N_SEVERITIES, &finding->severity, reterr);
	r = r ? r
	      : read_text(member(item, "clock"), "clock", finding->clock,
			  sizeof(finding->clock), reterr);
	r = r ? r
	      : read_text(member(item, "message"), "message", finding->message,
			  sizeof(finding->message), reterr);
	finding->forced = json_object_get_boolean(member(item, "forced")) != 0;
	to->n_refusing += finding->info->refuses && !finding->forced;
	to->n++;
	return r;
}

static int read_disagreement(struct json_object *top, struct move *move,
			     struct gclk_error *reterr)
{
	struct json_object *map = member(top, "disagreement");
	int r;

	if (!map) {
		return 0;
	}
	if (!json_object_is_type(map, json_type_object)) {
		return wrong(reterr, GCLK_MALFORMED, "disagreement", "this is no object");
	}
	r = read_rows(map, disagreement_rows, GCLK_COUNT(disagreement_rows),
		      &move->disagreement, reterr);
	return r ? r
		 : read_text(member(map, "basis"), "disagreement",
			     move->disagreement_basis, sizeof(move->disagreement_basis),
			     reterr);
}

static int read_instants(struct json_object *top, struct move *move,
			 struct gclk_error *reterr)
{
	struct gclk_instant written = { 0 };
	int r = read_instant(top, "written", &written, NULL, 0, reterr);

	move->written_ns = written.ns;
	r = r ? r
	      : read_instant(top, "stopped", &move->stopped, move->stopped_basis,
			     sizeof(move->stopped_basis), reterr);
	r = r ? r : read_instant(top, "planned", &move->planned, NULL, 0, reterr);
	return r ? r
		 : read_instant(top, "ran", &move->ran, move->ran_basis,
				sizeof(move->ran_basis), reterr);
}

static bool is_uuid(const char *text)
{
	for (unsigned i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i])) {
			return false;
		}
	}
	return text[36] == 0;
}

static int read_head(struct json_object *top, struct move *move,
		     struct gclk_error *reterr)
{
	char verb[sizeof(move->verb)], schema[32];
	int r = read_text(member(top, "schema"), "schema", schema, sizeof(schema),
			  reterr);

	if (r == 0 && strcmp(schema, JSON_SCHEMA)) {
		r = wrong(reterr, GCLK_VERSION, "schema",
			  "the JSON is not of " JSON_SCHEMA);
	}
	r = r ? r : read_text(member(top, "verb"), "verb", verb, sizeof(verb), reterr);
	if (r == 0 && (!verb[0] || !is_device(verb))) {
		r = wrong(reterr, GCLK_MALFORMED, "verb", "this is no verb");
	}
	if (r < 0) {
		return r;
	}
	move_init(move, verb);
	r = read_rows(top, head_rows, GCLK_COUNT(head_rows), move, reterr);
	if (r == 0 && move->uuid[0] && !is_uuid(move->uuid)) {
		r = wrong(reterr, GCLK_MALFORMED, "uuid", "this is no UUID");
	}
	return r ? r
		 : read_name(member(top, "verdict"), "verdict", move_verdict_names,
			     GCLK_COUNT(move_verdict_names), &move->verdict, reterr);
}

static int read_move(struct json_object *top, struct move *move,
		     struct gclk_error *reterr)
{
	int r = read_head(top, move, reterr);

	r = r ? r : read_instants(top, move, reterr);
	r = r ? r : read_disagreement(top, move, reterr);
	r = r ? r : read_list(top, "clocks", GCLK_N_CLOCKS, read_clock, move, reterr);
	r = r ? r : read_list(top, "ledger", MOVE_LEDGER_MAX, read_ledger, move, reterr);
	return r ? r
		 : read_list(top, "findings", GCLK_FINDINGS_MAX, read_finding, move,
			     reterr);
}

int move_from_json(const char *text, size_t size, struct move *ret,
		   struct gclk_error *reterr)
{
	struct json_object *top;
	struct move *move;
	int r = json_parse(text, size, &top, reterr);

	if (r < 0) {
		return r;
	}
	move = malloc(sizeof(*move));
	r = move ? read_move(top, move, reterr)
		 : gclk_fail(reterr, GCLK_NOMEM, "move", GCLK_NO_OFFSET, "out of memory");
	if (r == 0) {
		*ret = *move;
	}
	free(move);
	json_object_put(top);
	return r;
}

/* ---- out of another process's hands ---- */

static void settle_text(char *text, size_t size)
{
	char copy[2 * MOVE_TEXT];

	text[size - 1] = 0;
	gclk_text_copy(copy, sizeof(copy), text);
	memset(text, 0, size);
	clean_text(text, size, copy);
}
#define SETTLE(array) settle_text(array, sizeof(array))

static bool settle_rows(const struct row *rows, size_t n, void *base)
{
	for (size_t i = 0; i < n; i++) {
		char *at = (char *)base + rows[i].offset;
		int64_t ns = 0;

		if (rows[i].kind == TEXT) {
			settle_text(at, rows[i].size);
			continue;
		}
		memcpy(&ns, at, sizeof(ns));
		if ((rows[i].kind == SPAN || rows[i].kind == KNOWN_SPAN) && ns < 0) {
			return false;
		}
	}
	return true;
}

static bool settle_clock(struct move_clock *clock)
{
	bool known = false;

	SETTLE(clock->clock);
	for (unsigned i = 0; i < GCLK_N_CLOCKS; i++) {
		known |= !strcmp(clock->clock, gclk_clock_names[i]);
	}
	clock->start = 0;
	clock->start_ns = 0;
	return known && clock->proof < GCLK_COUNT(move_proof_names) &&
	       settle_rows(clock_rows, GCLK_COUNT(clock_rows), clock);
}

static bool settle_entry(struct gclk_ledger_entry *entry)
{
	entry->why = NULL;
	return settle_rows(ledger_rows, GCLK_COUNT(ledger_rows), entry) && entry->timer[0] &&
	       is_device(entry->timer) && entry->policy < GCLK_N_TICK_POLICIES;
}

static bool settle_findings(struct gclk_findings *findings)
{
	findings->n_refusing = 0;
	for (unsigned i = 0; i < findings->n; i++) {
		struct gclk_finding *finding = &findings->items[i];

		SETTLE(finding->clock);
		SETTLE(finding->message);
		finding->forced = finding->forced != 0;
		findings->n_refusing += finding->info->refuses && !finding->forced;
		if (finding->severity >= GCLK_N_SEVERITIES) {
			return false;
		}
	}
	return true;
}

static bool settle_lists(struct move *move)
{
	if (move->n_clocks > GCLK_N_CLOCKS || move->n_ledger > MOVE_LEDGER_MAX) {
		return false;
	}
	memset(move->clocks + move->n_clocks, 0,
	       (GCLK_N_CLOCKS - move->n_clocks) * sizeof(move->clocks[0]));
	memset(move->ledger + move->n_ledger, 0,
	       (MOVE_LEDGER_MAX - move->n_ledger) * sizeof(move->ledger[0]));
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		if (!settle_clock(&move->clocks[i])) {
			return false;
		}
	}
	for (uint32_t i = 0; i < move->n_ledger; i++) {
		if (!settle_entry(&move->ledger[i])) {
			return false;
		}
	}
	return settle_findings(&move->findings);
}

bool move_settle(struct move *move)
{
	SETTLE(move->verb);
	SETTLE(move->stopped_basis);
	SETTLE(move->ran_basis);
	SETTLE(move->disagreement_basis);
	return settle_rows(head_rows, GCLK_COUNT(head_rows), move) && move->verb[0] &&
	       is_device(move->verb) && (!move->uuid[0] || is_uuid(move->uuid)) &&
	       move->verdict < GCLK_COUNT(move_verdict_names) && settle_lists(move);
}
