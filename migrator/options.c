/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <string.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/options.h"
#include "migrator/text.h"

/*
 * "A±B": cuts @text into A (returned in @head) and B. Also "+-" and "+/-".
 * Returns B, or NULL when there is none.
 */
static const char *split_uncertainty(const char *text, char head[128],
				     struct gclk_error *reterr, int *ret_status)
{
	static const char *const signs[] = { "\xc2\xb1", "+/-", "+-", "\xb1" };
	size_t n = strlen(text);
	const char *tail = NULL;

	for (unsigned i = 0; i < GCLK_COUNT(signs) && !tail; i++) {
		const char *at = strstr(text, signs[i]);

		if (at) {
			n = (size_t)(at - text);
			tail = at + strlen(signs[i]);
		}
	}
	*ret_status = 0;
	if (n >= 128) {
		*ret_status = gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
					"\"%.20s...\" is too long", text);
		return NULL;
	}
	memcpy(head, text, n);
	head[n] = 0;
	return tail;
}

int parse_span(const char *text, int64_t *ret_ns, struct gclk_error *reterr)
{
	int64_t ns = 0;
	int r = gclk_duration_parse(text, &ns, reterr);

	if (r < 0) {
		return r;
	}
	if (ns < 0) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is negative", text);
	}
	*ret_ns = ns;
	return 0;
}

static int parse_uncertainty(const char *text, uint64_t *ret_ns,
			     struct gclk_error *reterr)
{
	int64_t ns = 0;
	int r = parse_span(text, &ns, reterr);

	if (r == 0) {
		*ret_ns = (uint64_t)ns;
	}
	return r;
}

/* ns per unit of the last digit of the seconds in a TIME: 1 s without decimals. */
static uint64_t resolution_ns(const char *time)
{
	const char *point = strpbrk(time, ".,");
	uint64_t ns = GCLK_NS_PER_S;

	if (!point) {
		return ns;
	}
	for (const char *s = point + 1; *s >= '0' && *s <= '9' && ns > 1; s++) {
		ns /= 10;
	}
	return ns;
}

static int parse_time(const char *text, bool is_reading, struct gclk_instant *ret,
		      struct gclk_error *reterr)
{
	char head[128];
	int r;
	const char *tail = split_uncertainty(text, head, reterr, &r);
	struct gclk_instant at = { 0 };
	gclk_real t;

	if (r < 0 || (r = gclk_real_parse(head, &t, reterr)) < 0) {
		return r;
	}
	at.ns = t.ns;
	if (tail && (r = parse_uncertainty(tail, &at.uncertainty_ns, reterr)) < 0) {
		return r;
	}
	if (!tail && is_reading) {
		at.uncertainty_ns = resolution_ns(head);
	}
	*ret = at;
	return 0;
}

int parse_captured(const char *text, struct gclk_instant *ret, struct gclk_error *reterr)
{
	return parse_time(text, true, ret, reterr);
}

/* A signed distance, with an uncertainty if one is given. */
static int parse_distance(const char *text, struct moment *ret, struct gclk_error *reterr)
{
	struct moment moment = { .relative = true };
	char head[128];
	int r;
	const char *tail = split_uncertainty(text, head, reterr, &r);

	if (r < 0 || (r = gclk_duration_parse(head, &moment.at.ns, reterr)) < 0 ||
	    (tail &&
	     (r = parse_uncertainty(tail, &moment.at.uncertainty_ns, reterr)) < 0)) {
		return r;
	}
	*ret = moment;
	return 0;
}

int parse_resume(const char *text, struct moment *ret, struct gclk_error *reterr)
{
	if (!strcmp(text, "now")) {
		*ret = (struct moment){ .relative = true };
		return 0;
	}
	if (text[0] == '+') {
		return parse_distance(text + 1, ret, reterr);
	}
	ret->relative = false;
	return parse_time(text, false, &ret->at, reterr);
}

int parse_load(const char *text, struct moment *ret, struct gclk_error *reterr)
{
	if (text[0] == '-') {
		return parse_distance(text, ret, reterr);
	}
	ret->relative = false;
	return parse_time(text, false, &ret->at, reterr);
}

/* A duration whose unit is ns where none is said. */
static int parse_ns(const char *text, int64_t *ret_ns, struct gclk_error *reterr)
{
	char with_unit[136];
	size_t n = strspn(text, "+-0123456789.");

	if (*text == '+') {
		text++;
		n--;
	}
	snprintf(with_unit, sizeof(with_unit), "%s%s", text,
		 text[n] || n == 0 ? "" : "ns");
	return gclk_duration_parse(with_unit, ret_ns, reterr);
}

int parse_disagreement(const char *text, struct gclk_disagreement *ret,
		       struct gclk_error *reterr)
{
	struct gclk_disagreement d = { 0 };
	char head[128];
	int r;
	const char *tail = split_uncertainty(text, head, reterr, &r);
	int64_t uncertainty;

	if (r < 0) {
		return r;
	}
	if (!tail) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" does not say how well it is known: NS+-NS, for "
				 "instance %s+-1ms",
				 text, text);
	}
	if (head[0] && (r = parse_ns(head, &d.ns, reterr)) < 0) {
		return r;
	}
	if ((r = parse_ns(tail, &uncertainty, reterr)) < 0) {
		return r;
	}
	if (uncertainty < 0) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "the uncertainty in \"%s\" is negative", text);
	}
	d.uncertainty_ns = (uint64_t)uncertainty;
	*ret = d;
	return 0;
}

int parse_gap(const char *text, uint8_t *ret_gap, int64_t *ret_cap_ns,
	      struct gclk_error *reterr)
{
	int64_t cap_ns = 0;
	int r;

	if (!strncmp(text, "cap=", 4)) {
		r = parse_span(text + 4, &cap_ns, reterr);
		if (r < 0) {
			return r;
		}
		*ret_gap = GCLK_GAP_CAP;
		*ret_cap_ns = cap_ns;
		return 0;
	}
	for (uint8_t i = 0; i < GCLK_N_GAP_POLICIES; i++) {
		if (i != GCLK_GAP_CAP && !strcmp(text, gclk_gap_policy_names[i])) {
			*ret_gap = i;
			return 0;
		}
	}
	return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
			 "\"%s\" is no gap policy: count, freeze, wall or cap=DURATION",
			 text);
}

/* The index of @n bytes at @word in a list of names, or -1. */
static int find_name(const char *const *names, unsigned n_names, const char *word,
		     size_t n)
{
	for (unsigned i = 0; i < n_names; i++) {
		if (names[i] && strlen(names[i]) == n && !strncmp(names[i], word, n)) {
			return (int)i;
		}
	}
	return -1;
}

static int parse_one_tick(const char *text, size_t n, uint8_t ticks[],
			  struct gclk_error *reterr)
{
	const char *equals = memchr(text, '=', n);
	size_t n_timer = equals ? (size_t)(equals - text) : n;
	int timer = find_name(gclk_tick_timer_names, GCLK_N_TICK_TIMERS, text, n_timer);
	int policy = -1;

	if (timer < 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%.*s\" is no timer with ticks: pit, rtc, hpet, lapic "
				 "or pm_timer",
				 (int)GCLK_MIN(n_timer, (size_t)32), text);
	}
	if (equals) {
		policy = find_name(gclk_tick_policy_names,
				   GCLK_N_TICK_POLICIES, equals + 1,
				   n - n_timer - 1);
	}
	if (policy <= GCLK_TICKS_UNKNOWN) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%.*s\" names no tick policy: TIMER=delay, catchup, "
				 "merge or discard",
				 (int)GCLK_MIN(n, (size_t)48), text);
	}
	ticks[timer] = (uint8_t)policy;
	return 0;
}

int parse_ticks(const char *text, uint8_t ticks[GCLK_N_TICK_TIMERS],
		struct gclk_error *reterr)
{
	uint8_t parsed[GCLK_N_TICK_TIMERS];
	int r = 0;

	memcpy(parsed, ticks, sizeof(parsed));
	for (const char *s = text; r == 0;) {
		size_t n = strcspn(s, ", ");

		r = n || s == text ? parse_one_tick(s, n, parsed, reterr) : 0;
		if (!s[n]) {
			break;
		}
		s += n + 1;
	}
	if (r == 0) {
		memcpy(ticks, parsed, sizeof(parsed));
	}
	return r;
}

/* From here on: one function per option that has a value. */

static int set_color(struct options *o, const char *text, struct gclk_error *reterr)
{
	static const char *const names[] = { "auto", "always", "never" };
	int n = find_name(names, GCLK_COUNT(names), text, strlen(text));

	if (n < 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is not auto, always or never", text);
	}
	o->color = (enum color)n;
	return 0;
}

#define SET_TEXT(member)                                                                 \
	static int set_##member(struct options *o, const char *text,                     \
				struct gclk_error *reterr)                               \
	{                                                                                \
		if (!*text) {                                                            \
			return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,   \
					 "a name is missing");                           \
		}                                                                        \
		o->member = text;                                                        \
		return 0;                                                                \
	}
SET_TEXT(conf)
SET_TEXT(output)
SET_TEXT(snapshot)
SET_TEXT(host)

static int set_force(struct options *o, const char *text, struct gclk_error *reterr)
{
	const struct gclk_finding_info *info = gclk_finding_by_id(text);

	if (!info) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is no finding; `guestclock explain` lists them",
				 text);
	}
	if (!info->refuses) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" refuses nothing, so there is nothing to force",
				 text);
	}
	if (o->n_force == FORCE_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "more than %d findings", FORCE_MAX);
	}
	o->force[o->n_force++] = text;
	return 0;
}

static int set_captured(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_captured(text, &o->captured, reterr);
}

static int set_resume(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_resume(text, &o->resume, reterr);
}

static int set_load(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_load(text, &o->load, reterr);
}

static int set_elapsed(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_span(text, &o->elapsed_ns, reterr);
}

static int set_gap(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_gap(text, &o->gap, &o->cap_ns, reterr);
}

static int set_ticks(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_ticks(text, o->ticks, reterr);
}

static int set_disagreement(struct options *o, const char *text,
			    struct gclk_error *reterr)
{
	return parse_disagreement(text, &o->disagreement, reterr);
}

static int set_measure(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_span(text, &o->measure_ns, reterr);
}

/* clang-format off */
static const struct option_row rows[N_OPTIONS] = {
	[OPTION_HELP] = { "help", 'h', NULL, NULL, "this text" },
	[OPTION_JSON] = { "json", 0, NULL, NULL,
		"for programs: JSON, schema guestclock.v1" },
	[OPTION_COLOR] = { "color", 0, "WHEN", set_color,
		"auto (on a terminal, unless NO_COLOR is set), always, never" },
	[OPTION_CONF] = { "conf", 0, "FILE", set_conf,
		"settings; default /etc/guestclock/guestclock.conf" },
	[OPTION_OUTPUT] = { "output", 'o', "OUT", set_output,
		"write to OUT, which appears only when it is complete" },
	[OPTION_IN_PLACE] = { "in-place", 0, NULL, NULL,
		"change the file itself; `guestclock undo` takes it back" },
	[OPTION_SYNC] = { "sync", 0, NULL, NULL,
		"wait until a new OUT is on the disk, too" },
	[OPTION_SNAPSHOT] = { "snapshot", 0, "NAME", set_snapshot,
		"of a qcow2 file: the snapshot's name or id" },
	[OPTION_CHECK] = { "check", 0, NULL, NULL,
		"exit 1 also when something was found" },
	[OPTION_FORCE] = { "force", 0, "ID", set_force,
		"override the finding ID that refuses; once for each", true },
	[OPTION_HOST] = { "host", 0, "PROFILE", set_host,
		"where the guest will run, from `guestclock host -o`;\n"
		"default: this host" },
	[OPTION_CAPTURED_AT] = { "captured-at", 0, "TIME", set_captured,
		"when the guest stopped: 2026-11-21T02:26:48.125Z or\n"
		"@1795228008.125; +-DURATION may follow, else TIME is\n"
		"right to one unit of its last digit" },
	[OPTION_RESUME_AT] = { "resume-at", 0, "TIME", set_resume,
		"when it will run again: TIME or +DURATION from now" },
	[OPTION_LOAD_AT] = { "load-at", 0, "TIME", set_load,
		"when its load ends, where the TSC runs from then on (KVM):\n"
		"TIME, or -DURATION before the resume; default: the resume" },
	[OPTION_ELAPSED] = { "elapsed", 0, "DURATION", set_elapsed,
		"the gap itself, instead of --captured-at and --resume-at:\n"
		"1h, 90s, 1.5s, 250ms" },
	[OPTION_GAP] = { "gap", 0, "POLICY", set_gap,
		"what the clocks do about the gap: count, freeze, wall,\n"
		"cap=DURATION" },
	[OPTION_TICKS] = { "ticks", 0, "TIMER=POLICY", set_ticks,
		"missed interrupts of pit, rtc, hpet, lapic or pm_timer:\n"
		"delay, catchup, merge, discard; once for each", true },
	[OPTION_DISAGREEMENT] = { "disagreement", 0, "NS+-NS", set_disagreement,
		"this wall clock minus that of the host it was saved on,\n"
		"and how well that is known; units as in 2ms+-100us" },
	[OPTION_POLICY] = { "policy", 0, NULL, NULL,
		"print each setting and where it comes from" },
	[OPTION_MEASURE] = { "measure", 0, "DURATION", set_measure,
		"how long to measure the TSC; default 200ms, 0s: not at all" },
	[OPTION_REDACT] = { "redact", 0, NULL, NULL,
		"leave out what tells which host it was: its name, boot id,\n"
		"processor, clocks" },
};
/* clang-format on */

/* "-o, --output OUT" */
static void option_label(const struct option_row *row, char *to, size_t size)
{
	char letter[8] = "    ";

	if (row->letter) {
		snprintf(letter, sizeof(letter), "-%c, ", row->letter);
	}
	snprintf(to, size, "%s--%s%s%s", letter, row->name, row->argument ? " " : "",
		 row->argument ? row->argument : "");
}

#define HELP_COLUMN 30

static void help_row(const struct option_row *row, FILE *to)
{
	char label[64];
	const char *line = row->help;

	option_label(row, label, sizeof(label));
	fprintf(to, "  %-*s", HELP_COLUMN - 2, label);
	if (strlen(label) >= HELP_COLUMN - 2) {	/* a label that is too long has a line of its own */
		fprintf(to, "\n%*s", HELP_COLUMN, "");
	}
	while (*line) {
		size_t n = strcspn(line, "\n");

		fprintf(to, "%.*s\n", (int)n, line);
		line += n + (line[n] == '\n');
		if (*line) {
			fprintf(to, "%*s", HELP_COLUMN, "");
		}
	}
}

void options_help(const struct verb *verb, FILE *to)
{
	fprintf(to, "Usage: guestclock %s [OPTION...]%s%s\n\n", verb->name,
		verb->synopsis[0] ? " " : "", verb->synopsis);
	put_filled(to, 0, verb->text);
	fprintf(to, "\nExample:\n  %s\n\nOptions:\n", verb->example);
	for (unsigned i = 0; i < N_OPTIONS; i++) {
		if (verb->options & UINT32_C(1) << i) {
			help_row(&rows[i], to);
		}
	}
	for (unsigned i = 0; i < verb->n_own_rows; i++) {
		help_row(&verb->own_rows[i], to);
	}
}

/*
 * The rows that a verb takes, by a number: those of the table above first, the verb's
 * own ones after them. NULL: it does not take that one, or there is none.
 */
#define ROWS_MAX (N_OPTIONS + 64)

static const struct option_row *row_at(const struct verb *verb, unsigned i)
{
	if (i < N_OPTIONS) {
		return verb->options & UINT32_C(1) << i ? &rows[i] : NULL;
	}
	return i - N_OPTIONS < verb->n_own_rows ? &verb->own_rows[i - N_OPTIONS] : NULL;
}

/* As getopt_long() wants them; val is 256 + the row's number. */
static void getopt_rows(const struct verb *verb, struct option longs[ROWS_MAX + 1],
			char letters[2 * ROWS_MAX + 2])
{
	unsigned n = 0;

	*letters++ = ':';
	for (unsigned i = 0; i < ROWS_MAX; i++) {
		const struct option_row *row = row_at(verb, i);

		if (!row) {
			continue;
		}
		longs[n++] = (struct option){ row->name,
					      row->argument ? required_argument : no_argument,
					      NULL, (int)(256 + i) };
		if (row->letter) {
			*letters++ = row->letter;
			if (row->argument) {
				*letters++ = ':';
			}
		}
	}
	longs[n] = (struct option){ 0 };
	*letters = 0;
}

static int row_of(const struct verb *verb, int code)
{
	if (code >= 256) {
		return code - 256;
	}
	for (int i = 0; i < ROWS_MAX; i++) {
		const struct option_row *row = row_at(verb, (unsigned)i);

		if (row && row->letter == code) {
			return i;
		}
	}
	return -1;
}

static bool mark_given(struct options *o, int i)
{
	bool again;

	if (i < N_OPTIONS) {
		again = o->given & UINT32_C(1) << i;
		o->given |= UINT32_C(1) << i;
	} else {
		again = own_given(o, (unsigned)i - N_OPTIONS);
		o->own_given |= OWN_OPTION(i - N_OPTIONS);
	}
	return again;
}

static int apply(const struct verb *verb, int i, struct options *o)
{
	const struct option_row *row = row_at(verb, (unsigned)i);
	struct gclk_error error;

	if (mark_given(o, i) && row->argument && !row->repeats) {
		return usage_error(verb->name, "--%s is given twice", row->name);
	}
	if (row->set && row->set(o, optarg, &error) < 0) {
		return usage_error(verb->name, "--%s: %s", row->name, error.message);
	}
	return 0;
}

static int reject(const struct verb *verb, int code, char **argv)
{
	int i = optopt ? row_of(verb, optopt) : -1;
	const struct option_row *row = i >= 0 ? row_at(verb, (unsigned)i) : NULL;

	if (code == ':' && row) {
		return usage_error(verb->name, "--%s wants a value: %s", row->name,
				   row->argument);
	}
	if (row && optopt >= 256) {
		return usage_error(verb->name, "--%s takes no value", row->name);
	}
	if (optopt) {
		return usage_error(verb->name, "there is no option -%c here", optopt);
	}
	return usage_error(verb->name, "there is no option %s here", argv[optind - 1]);
}

static int take_files(const struct verb *verb, int argc, char **argv, struct options *o)
{
	int n = argc - optind;

	if (n < verb->min_files) {
		return usage_error(verb->name, "an argument is missing: %s", verb->synopsis);
	}
	if (n > verb->max_files) {
		return usage_error(verb->name, "\"%s\" is one argument too many",
				   argv[optind + verb->max_files]);
	}
	for (int i = 0; i < n; i++) {
		o->files[i] = argv[optind + i];
	}
	o->n_files = n;
	return 0;
}

int options_parse(const struct verb *verb, int argc, char **argv, struct options *ret)
{
	struct option longs[ROWS_MAX + 1];
	char letters[2 * ROWS_MAX + 2];
	int code, r;

	memset(ret, 0, sizeof(*ret));
	ret->own = verb->own;
	getopt_rows(verb, longs, letters);
	optind = 0;	/* not 1: that goes on amid the word at which an earlier parse ended */
	opterr = 0;
	for (;;) {
		optopt = 0;
		code = getopt_long(argc, argv, letters, longs, NULL);
		if (code == -1) {
			break;
		}
		if (code == '?' || code == ':') {
			return reject(verb, code, argv);
		}
		r = apply(verb, row_of(verb, code), ret);
		if (r) {
			return r;
		}
	}
	return given(ret, OPTION(HELP)) ? 0 : take_files(verb, argc, argv, ret);
}
