/* SPDX-License-Identifier: MIT */
/* guestclock log: what was done to guests' clocks, and when, out of the audit log. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/message.h"
#include "migrator/move.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

#define LINE_MAX_BYTES ((size_t)1 << 18) /* no report is a fourth of that */

/* What the tables need of a move; the whole one is thirty times as big. */
struct entry {
	char domain[64], what[96], from[64], to[64];
	int64_t written_ns, blackout_ns, error_ns;
	uint64_t bound_ns; /* the widest; GCLK_UNBOUNDED where there is none */
	struct gclk_disagreement disagreement;
	uint8_t verdict;
	bool has_clocks;
};

struct log {
	const char *path, *domain;
	int64_t since_ns;
	bool json;
	struct entry *entries;
	size_t n, max;
	struct json_object *moves; /* with --json */
	const struct gclk_worker *worker;
	struct gclk_reading *reading; /* of one */
	unsigned damaged;
	uint64_t first_damaged; /* its line */
	struct gclk_error why;
};

static struct own {
	const char *file;
	bool has_since;
	struct moment since;
} own;

/* ---- options ---- */

static int set_file(struct options *o, const char *text, struct gclk_error *reterr)
{
	(void)reterr;
	((struct own *)o->own)->file = text;
	return 0;
}

/* "24h" is that long ago, everything else an instant. */
static int set_since(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct own *to = o->own;
	int64_t ns = 0;

	to->has_since = true;
	if (parse_span(text, &ns, NULL) == 0) {
		to->since = (struct moment){ .relative = true, .at = { .ns = -ns } };
		return 0;
	}
	return parse_resume(text, &to->since, reterr);
}

static const struct option_row rows[] = {
	{ "since", 0, "TIME", set_since,
	  "moves from then on, or DURATION: of the last 24h" },
	{ "file", 0, "FILE", set_file, "default " AUDIT_PATH },
};

/* ---- reading ---- */

static bool is_wanted(const struct log *log, const struct move *move)
{
	return move->written_ns >= log->since_ns &&
	       (!log->domain || !strcmp(move->domain, log->domain) ||
		!strcasecmp(move->uuid, log->domain));
}

static int64_t magnitude(int64_t ns)
{
	return ns < 0 ? gclk_sub_sat(0, ns) : ns;
}

/* Of all clocks the worst: the largest known error, the widest bound. */
static void take_clocks(struct entry *entry, const struct move *move)
{
	entry->has_clocks = move->n_clocks > 0;
	entry->bound_ns = move->n_clocks ? 0 : GCLK_UNBOUNDED;
	for (uint32_t i = 0; i < move->n_clocks; i++) {
		const struct move_clock *clock = &move->clocks[i];

		if (magnitude(clock->error_ns) > magnitude(entry->error_ns)) {
			entry->error_ns = clock->error_ns;
		}
		entry->bound_ns = GCLK_MAX(entry->bound_ns, clock->bound_ns);
	}
}

static int add_entry(struct log *log, const struct move *move)
{
	struct entry *entry;

	if (log->n == log->max) {
		size_t max = log->max ? 2 * log->max : 64;
		struct entry *more = realloc(log->entries, max * sizeof(*more));

		if (!more) {
			return GCLK_NOMEM;
		}
		log->entries = more;
		log->max = max;
	}
	entry = &log->entries[log->n++];
	memset(entry, 0, sizeof(*entry));
	gclk_text_copy(entry->domain, sizeof(entry->domain),
		       move->domain[0] ? move->domain : move->uuid);
	gclk_text_copy(entry->from, sizeof(entry->from), move->from);
	gclk_text_copy(entry->to, sizeof(entry->to), move->to);
	snprintf(entry->what, sizeof(entry->what), "%s%s%.32s%s%.32s", move->verb,
		 move->from[0] || move->to[0] ? " " : "", move->from,
		 move->from[0] || move->to[0] ? " -> " : "", move->to);
	entry->written_ns = move->written_ns;
	entry->blackout_ns = move->blackout_ns;
	entry->disagreement = move->disagreement;
	entry->verdict = move->verdict;
	take_clocks(entry, move);
	return 0;
}

/* A line that its reader died of is one damaged line: the next one gets another reader. */
static int read_move(struct log *log, const char *line, size_t size, struct move *ret,
		     struct gclk_error *reterr)
{
	int r = log->worker && !log->reading
			? gclk_reading_new(log->worker, &log->reading, reterr)
			: 0;

	r = r < 0 ? r : foreign_move_by(log->reading, line, size, ret, reterr);
	if (r == -GCLK_PEER) {
		log->reading = gclk_reading_free(log->reading);
	}
	return r;
}

static int take_line(struct log *log, const char *line, size_t size, uint64_t number,
		     struct move *move)
{
	struct gclk_error error;
	int r = read_move(log, line, size, move, &error);

	if (r < 0) {
		if (!log->damaged++) {
			log->first_damaged = number;
			log->why = error;
		}
		return r == -GCLK_NOMEM ? GCLK_NOMEM : 0;
	}
	if (!is_wanted(log, move)) {
		return 0;
	}
	if (log->json) {
		json_append(log->moves, move_to_json(move));
	}
	return add_entry(log, move);
}

/* A line into @line. Returns its length, 0 at the end; what is too long is cut. */
static size_t next_line(FILE *file, char line[LINE_MAX_BYTES])
{
	size_t n = 0;
	int c;

	while ((c = getc_unlocked(file)) != EOF) {
		if (n < LINE_MAX_BYTES) {
			line[n++] = (char)c;
		}
		if (c == '\n') {
			break;
		}
	}
	return n;
}

static int read_lines(struct log *log, FILE *file)
{
	struct move *move = malloc(sizeof(*move));
	char *line = malloc(LINE_MAX_BYTES);
	uint64_t number = 0;
	size_t n;
	int r = move && line ? 0 : GCLK_NOMEM;

	while (r == 0 && (n = next_line(file, line)) > 0) {
		number++;
		if (line[0] != '\n') {
			r = take_line(log, line, n, number, move);
		}
	}
	free(move);
	free(line);
	if (r == 0 && ferror(file)) {
		r = GCLK_SYS;
		message("error", log->path, gclk_status_name(r), EFFECT_NONE, NULL,
			"it cannot be read: %s", strerror(errno));
	} else if (r) {
		message("error", log->path, gclk_status_name(r), EFFECT_NONE, NULL,
			"no memory for the moves");
	}
	return r;
}

static int read_log(struct log *log, bool must_be_there)
{
	FILE *file = fopen(log->path, "re");
	struct gclk_error error;
	int r;

	if (!file && errno == ENOENT && !must_be_there) {
		return 0; /* nothing was moved yet */
	}
	if (!file) {
		message("error", log->path, gclk_status_name(GCLK_SYS), EFFECT_NONE, NULL,
			"it cannot be opened: %s", strerror(errno));
		return GCLK_SYS;
	}
	if (log->worker && gclk_reading_new(log->worker, &log->reading, &error) < 0) {
		fclose(file);
		return fail(log->path, &error, EFFECT_NONE, NULL);
	}
	r = read_lines(log, file);
	log->reading = gclk_reading_free(log->reading);
	fclose(file);
	if (r == 0 && log->damaged) {
		message("warning", log->path, gclk_status_name(GCLK_MALFORMED),
			EFFECT_READING, NULL, "%u %s left out: line %" PRIu64 ": %s%s%s",
			log->damaged,
			log->damaged == 1 ? "damaged line was" : "damaged lines were",
			log->first_damaged, log->why.where, log->why.where[0] ? ": " : "",
			log->why.message);
	}
	return r;
}

/* ---- host pairs ---- */

/* Percentiles by the nearest rank, over the moves that were carried out. */
struct spread {
	size_t n;
	uint64_t p50, p95, max;
};

struct pair {
	const char *from, *to;
	unsigned moves, done;
	struct spread blackout, error, bound;
};

static int by_number(const void *a, const void *b)
{
	return gclk_compare(*(const uint64_t *)a, *(const uint64_t *)b);
}

static void spread_of(uint64_t *values, size_t n, struct spread *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (n) {
		qsort(values, n, sizeof(*values), by_number);
		ret->n = n;
		ret->p50 = values[(n * 50 + 99) / 100 - 1];
		ret->p95 = values[(n * 95 + 99) / 100 - 1];
		ret->max = values[n - 1];
	}
}

static bool same_pair(const struct entry *a, const struct entry *b)
{
	return !strcmp(a->from, b->from) && !strcmp(a->to, b->to);
}

static bool is_carried_out(const struct entry *entry)
{
	return entry->verdict <= MOVE_UNTOUCHED;
}

/* The pair of entries[first], whose entries are collected from there on. */
static int take_pair(const struct log *log, size_t first, struct pair *ret)
{
	uint64_t *values = malloc(3 * (log->n - first) * sizeof(*values));
	uint64_t *errors = values + (log->n - first), *bounds = errors + (log->n - first);
	size_t n_blackouts = 0, n_errors = 0;

	if (!values) {
		return GCLK_NOMEM;
	}
	*ret = (struct pair){ .from = log->entries[first].from,
			      .to = log->entries[first].to };
	for (size_t i = first; i < log->n; i++) {
		const struct entry *entry = &log->entries[i];

		if (!same_pair(entry, &log->entries[first])) {
			continue;
		}
		ret->moves++;
		ret->done += entry->verdict == MOVE_DONE;
		if (is_carried_out(entry) && entry->blackout_ns) {
			values[n_blackouts++] = (uint64_t)entry->blackout_ns;
		}
		if (is_carried_out(entry) && entry->has_clocks) {
			bounds[n_errors] = entry->bound_ns;
			errors[n_errors++] = (uint64_t)magnitude(entry->error_ns);
		}
	}
	spread_of(values, n_blackouts, &ret->blackout);
	spread_of(errors, n_errors, &ret->error);
	spread_of(bounds, n_errors, &ret->bound);
	free(values);
	return 0;
}

static bool is_first_of_pair(const struct log *log, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		if (same_pair(&log->entries[k], &log->entries[i])) {
			return false;
		}
	}
	return log->entries[i].from[0] || log->entries[i].to[0];
}

/* ---- answers ---- */

static const char *approx(char to[TEXT_BYTES], const struct spread *spread, uint64_t ns)
{
	if (!spread->n) {
		return "-";
	}
	if (ns == GCLK_UNBOUNDED) {
		return "unbounded";
	}
	return text_approx(to, (int64_t)GCLK_MIN(ns, (uint64_t)INT64_MAX));
}

static int put_pairs(const struct log *log)
{
	static const char *const headings[] = { "HOSTS", ">MOVES",
						">DONE", ">BLACKOUT",
						">95 %", ">OFF BY 95 %",
						">MOST", ">BOUND AT MOST" };
	struct table table;

	table_begin(&table, 8, headings);
	for (size_t i = 0; i < log->n; i++) {
		char name[140], moves[16], done[16], t[5][TEXT_BYTES];
		struct pair pair;

		if (!is_first_of_pair(log, i)) {
			continue;
		}
		if (take_pair(log, i, &pair)) {
			table.no_memory = true;
			break;
		}
		snprintf(name, sizeof(name), "%s -> %s", pair.from[0] ? pair.from : "?",
			 pair.to[0] ? pair.to : "?");
		snprintf(moves, sizeof(moves), "%u", pair.moves);
		snprintf(done, sizeof(done), "%u", pair.done);
		table_row(&table, name, moves, done,
			  approx(t[0], &pair.blackout, pair.blackout.p50),
			  approx(t[1], &pair.blackout, pair.blackout.p95),
			  approx(t[2], &pair.error, pair.error.p95),
			  approx(t[3], &pair.error, pair.error.max),
			  approx(t[4], &pair.bound, pair.bound.max));
	}
	putchar('\n');
	return table_end(&table, stdout);
}

static void put_entry(struct table *table, const struct entry *entry)
{
	char when[TEXT_BYTES], blackout[TEXT_BYTES], error[TEXT_BYTES], bound[TEXT_BYTES];
	char apart[TEXT_BYTES];
	bool known = entry->disagreement.uncertainty_ns != GCLK_UNBOUNDED;

	table_row(table, text_instant(when, entry->written_ns, GCLK_NS_PER_S),
		  entry->domain, entry->what, move_verdict_names[entry->verdict],
		  entry->blackout_ns ? text_approx(blackout, entry->blackout_ns) : "-",
		  entry->has_clocks ? text_approx(error, entry->error_ns) : "-",
		  entry->has_clocks ? text_uncertain(bound, entry->bound_ns) : "-",
		  known ? text_approx(apart, entry->disagreement.ns) : "-");
}

static int put_log(const struct log *log)
{
	static const char *const headings[] = { "WHEN",	  "GUEST",	 "WHAT",
						"BECAME", ">BLACKOUT",	 ">OFF BY",
						">BOUND", ">HOSTS APART" };
	struct table table;
	int r;

	if (!log->n) {
		fputs(log->domain ? "No move of " : "No move", stdout);
		put_text(stdout, log->domain ? log->domain : "");
		fputs(" is recorded in ", stdout);
		put_text(stdout, log->path);
		puts(".");
		return 0;
	}
	table_begin(&table, 8, headings);
	for (size_t i = 0; i < log->n; i++) {
		put_entry(&table, &log->entries[i]);
	}
	r = table_end(&table, stdout);
	return r ? r : put_pairs(log);
}

static struct json_object *spread_json(const struct spread *spread)
{
	struct json_object *map;

	if (!spread->n) {
		return NULL;
	}
	map = json_new_map();
	json_put(map, "p50", json_bound(spread->p50));
	json_put(map, "p95", json_bound(spread->p95));
	json_put(map, "max", json_bound(spread->max));
	return map;
}

static int answer_json(struct log *log)
{
	struct json_object *answer = json_answer("log"), *pairs = json_new_list();

	json_put(answer, "file", json_text(log->path));
	json_put(answer, "damaged_lines", json_object_new_int64(log->damaged));
	json_put(answer, "moves", log->moves);
	for (size_t i = 0; i < log->n; i++) {
		struct json_object *map;
		struct pair pair;

		if (!is_first_of_pair(log, i)) {
			continue;
		}
		if (take_pair(log, i, &pair)) {
			json_object_put(answer);
			json_object_put(pairs);
			return GCLK_NOMEM;
		}
		map = json_new_map();
		json_put(map, "from", json_text(pair.from));
		json_put(map, "to", json_text(pair.to));
		json_put(map, "moves", json_object_new_int64(pair.moves));
		json_put(map, "done", json_object_new_int64(pair.done));
		json_put(map, "blackout_ns", spread_json(&pair.blackout));
		json_put(map, "error_ns", spread_json(&pair.error));
		json_put(map, "bound_ns", spread_json(&pair.bound));
		json_append(pairs, map);
	}
	json_put(answer, "pairs", pairs);
	json_print(answer);
	return 0;
}

static int64_t since_ns(void)
{
	struct timespec now;

	if (!own.has_since) {
		return INT64_MIN;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	return !own.since.relative
		       ? own.since.at.ns
		       : gclk_add_sat(now.tv_sec * GCLK_NS_PER_S + now.tv_nsec,
				      own.since.at.ns);
}

static int run(const struct options *o)
{
	struct log log = {
		.path = own.file ? own.file : AUDIT_PATH,
		.domain = o->n_files ? o->files[0] : NULL,
		.since_ns = since_ns(),
		.json = given(o, OPTION(JSON)),
	};
	struct gclk_error error;
	int r;

	if (confine_worker(o->conf, &log.worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (log.json) {
		log.moves = json_new_list();
	}
	r = read_log(&log, own.file != NULL);
	if (r == 0) {
		r = log.json ? answer_json(&log) : put_log(&log);
	} else {
		json_object_put(log.moves);
	}
	free(log.entries);
	return r;
}

const struct verb verb_log = {
	.name = "log",
	.summary = "what was done to guests' clocks, and when",
	.synopsis = "[DOMAIN]",
	.text = "Reads the audit log, to which every migrate, save and restore, the "
		"daemon "
		"and the hook append a line: when, from where to where, how long the "
		"guest "
		"stood, how far its clocks are off, and how sure that is. Below it, for "
		"each pair of hosts, the median and the 95th percentile. DOMAIN is a "
		"name "
		"or a UUID.",
	.example = "guestclock log --since 24h web1",
	.options = OPTIONS_COMMON,
	.max_files = 1,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
