/* SPDX-License-Identifier: MIT */
/* guestclock diff: what differs between two clock states, in the unit of each field. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/diff.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

static int answer_json(const struct changes *changes)
{
	struct json_object *answer = json_answer("diff"), *list = json_new_list();
	char delta[48];

	for (unsigned i = 0; i < changes->n; i++) {
		const struct change *change = &changes->items[i];
		struct json_object *map = json_new_map();

		json_put(map, "clock", json_text(change->clock));
		json_put(map, "field", json_text(change->field->name));
		json_put(map, "unit", json_text(unit_name(change->field->unit)));
		json_put(map, "a", json_value(change, change->a));
		json_put(map, "b", json_value(change, change->b));
		json_put(map, "delta",
			 change_delta(change, delta) ? json_text(delta) : NULL);
		json_append(list, map);
	}
	json_put(answer, "changes", list);
	json_print(answer);
	return 0;
}

#define SHORT_TEXT 34 /* of a value that has no number, in a column */

static void side_text(const struct change *change, const void *side, char *to,
		      size_t size)
{
	char text[600];

	if (!change_has(change, side)) {
		snprintf(to, size, "(absent)");
		return;
	}
	value_text(change->field, side, text, sizeof(text));
	clean_text(to, GCLK_MIN(size, SHORT_TEXT + 1), text);
}

/* "+7 200 000 000 ticks", and what that is in time where the unit is one. */
static void delta_text(const struct change *change, char *to, size_t size)
{
	const char *unit = unit_name(change->field->unit);
	char digits[48], grouped[TEXT_BYTES], span[TEXT_BYTES];
	long long n;

	to[0] = 0;
	if (!change_delta(change, digits)) {
		return;
	}
	n = strtoll(digits, NULL, 10);
	snprintf(to, size, "%s%s%s", text_signed(grouped, n), unit[0] ? " " : "", unit);
	if (!strcmp(unit, "ns") && (n >= 1000 || n <= -1000)) {
		snprintf(to, size, "%.40s ns = %.40s", grouped, text_approx(span, n));
	}
}

static int answer_text(const struct options *o, const struct changes *changes)
{
	static const char *const headings[] = { "CLOCK", "FIELD", ">A", ">B", "B - A" };
	struct table table;

	if (!changes->n) {
		puts("no clock differs");
		return 0;
	}
	printf("A  ");
	put_text(stdout, o->files[0]);
	printf("\nB  ");
	put_text(stdout, o->files[1]);
	printf("\n\n");
	table_begin(&table, 5, headings);
	for (unsigned i = 0; i < changes->n; i++) {
		const struct change *change = &changes->items[i];
		char a[TEXT_BYTES], b[TEXT_BYTES], delta[2 * TEXT_BYTES];

		side_text(change, change->a, a, sizeof(a));
		side_text(change, change->b, b, sizeof(b));
		delta_text(change, delta, sizeof(delta));
		table_row(&table, change->clock, change->field->name, a, b, delta);
	}
	return table_end(&table, stdout);
}

static int compare(const struct options *o, const struct source *a,
		   const struct source *b)
{
	struct changes changes;
	int r = diff_states(a->state, b->state, &changes);

	if (r) {
		return r;
	}
	r = given(o, OPTION(JSON)) ? answer_json(&changes) : answer_text(o, &changes);
	if (r == 0 && given(o, OPTION(CHECK)) && changes.n) {
		r = GCLK_REFUSED;
	}
	changes_free(&changes);
	return r;
}

static int run(const struct options *o)
{
	struct source a, b = { 0 };
	int r;

	if (!strcmp(o->files[0], "-") && !strcmp(o->files[1], "-")) {
		return usage_error("diff", "standard input can be only one of the two");
	}
	r = source_open(&a, o->files[0], o, SOURCE_LOOK);
	if (r == 0) {
		r = source_open(&b, o->files[1], o, SOURCE_LOOK);
	}
	if (r == 0) {
		r = compare(o, &a, &b);
	}
	source_close(&a);
	source_close(&b);
	return r;
}

const struct verb verb_diff = {
	.name = "diff",
	.summary = "what differs between two saved guests, clock by clock",
	.synopsis = "A B",
	.text = "Compares the clock states of two files, field by field, in the unit of "
		"the field: ns, ticks, Hz. Of an image that was rewritten, what a "
		"loader will find counts. Exits 0 whether they differ or not; with "
		"--check 1 when they do.",
	.example = "guestclock diff before.save after.save",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT) | OPTION(CHECK),
	.min_files = 2,
	.max_files = 2,
	.run = run,
};
