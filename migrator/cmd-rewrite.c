/* SPDX-License-Identifier: MIT */
/* guestclock rewrite: carries a plan out on an image. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/payload.h"
#include "migrator/report-json.h"
#include "migrator/report-plan.h"
#include "migrator/report-text.h"
#include "migrator/verbs.h"

struct rewriting {
	const struct options *o;
	struct source source;
	struct situation situation;
	struct gclk_plan *plan;
	const struct gclk_image_change *changes;
	unsigned n_changes;
};

/*
 * How long until the guest can run, where the operator does not say: a second for who
 * types the next command, and for a copy the time that it takes to write it.
 */
#define MARGIN_NS GCLK_NS_PER_S
#define RAW_BYTES_PER_S 400000000
#define COMPRESSED_BYTES_PER_S 20000000

static int64_t margin_ns(const struct rewriting *rw)
{
	const char *compression = gclk_image_compression(rw->source.image);
	int64_t rate =
		strcmp(compression, "none") ? COMPRESSED_BYTES_PER_S : RAW_BYTES_PER_S;
	struct stat st;

	if (given(rw->o, OPTION(IN_PLACE)) || stat(rw->source.path, &st) < 0) {
		return MARGIN_NS;
	}
	return MARGIN_NS + st.st_size / rate * GCLK_NS_PER_S;
}

static int check_output(const struct options *o)
{
	struct stat in, out;

	if (given(o, OPTION(OUTPUT)) == given(o, OPTION(IN_PLACE))) {
		return usage_error("rewrite", "say where to: -o OUT or --in-place");
	}
	if (given(o, OPTION(IN_PLACE)) && !strcmp(o->files[0], "-")) {
		return usage_error(
			"rewrite",
			"standard input cannot be changed in place; use -o OUT");
	}
	if (given(o, OPTION(OUTPUT)) && stat(o->files[0], &in) == 0 &&
	    stat(o->output, &out) == 0 && in.st_dev == out.st_dev &&
	    in.st_ino == out.st_ino) {
		return usage_error("rewrite", "%s is the input itself; use --in-place",
				   o->output);
	}
	return 0;
}

static const char *output_path(const struct rewriting *rw)
{
	return given(rw->o, OPTION(IN_PLACE)) ? rw->source.path : rw->o->output;
}

/* Failures that only a write can have had: then the image may be changed in part. */
static int say_failed(const struct rewriting *rw, struct gclk_error *error)
{
	bool touched = given(rw->o, OPTION(IN_PLACE)) &&
		       (error->status == GCLK_SYS || error->status == GCLK_UNPROVEN);
	bool copy = given(rw->o, OPTION(IN_PLACE)) && error->status == GCLK_UNSUPPORTED;
	char path[512], try[640];

	shell_quote(path, sizeof(path), rw->source.path);
	if (touched) {
		snprintf(try, sizeof(try), "guestclock undo %s", path);
	} else {
		snprintf(try, sizeof(try), "guestclock rewrite %s -o OUT", path);
	}
	return fail(rw->source.path, error,
		    touched || error->status == GCLK_UNPROVEN ? EFFECT_CHANGED : EFFECT_NONE,
		    touched || copy ? try : NULL);
}

static int carry_out(struct rewriting *rw)
{
	struct gclk_error error;
	void *payload = NULL;
	size_t size = 0;
	int r = gclk_image_encode(rw->source.image, rw->plan, &rw->changes,
				  &rw->n_changes, &error);

	if (r == 0) {
		r = payload_make(&rw->source, &rw->situation, rw->plan, &payload, &size,
				 &error);
	}
	if (r < 0) {
		return fail(rw->source.path, &error, EFFECT_NONE, NULL);
	}
	if (given(rw->o, OPTION(IN_PLACE))) {
		r = gclk_image_patch(rw->source.image, rw->plan, payload, size, &error);
	} else {
		r = gclk_image_write(rw->source.image, rw->plan, payload, size,
				     rw->o->output, &error);
	}
	progress_end(&rw->source.progress);
	free(payload);
	return r < 0 ? say_failed(rw, &error) : 0;
}

static void answer_json(const struct rewriting *rw)
{
	struct json_object *answer =
		plan_json("rewrite", &rw->source, &rw->situation, rw->plan);
	struct json_object *list = json_new_list();

	for (unsigned i = 0; i < rw->n_changes; i++) {
		const struct gclk_image_change *change = &rw->changes[i];
		struct json_object *map = json_new_map();

		json_put(map, "section", json_text(change->section));
		json_put(map, "instance", json_object_new_int64(change->instance));
		json_put(map, "field", json_text(change->field));
		json_put(map, "offset", json_u64(change->offset));
		json_put(map, "size", json_object_new_int64(change->size));
		json_put(map, "before", json_u64(change->before));
		json_put(map, "after", json_u64(change->after));
		json_append(list, map);
	}
	json_put(answer, "output",
		 rw->plan->findings.n_refusing ? NULL : json_text(output_path(rw)));
	json_put(answer, "changes", list);
	json_print(answer);
}

/* The last line: what the operator has to do now. */
static void put_resume(const struct rewriting *rw)
{
	const struct gclk_plan *plan = rw->plan;
	char at[TEXT_BYTES], gap[TEXT_BYTES];

	text_local(at, plan->when.run.ns, rw->situation.now_ns);
	if (plan->when.elapsed_given) {
		printf("resume at %s or later: the guest finds %s counted, whenever it "
		       "is\n",
		       at, text_span(gap, plan->counted_ns));
	} else if (plan->policy == GCLK_GAP_COUNT ||
		   (plan->policy == GCLK_GAP_CAP && plan->counted_ns == plan->gap_ns)) {
		printf("resume at %s; each second later is a second slow\n", at);
	} else {
		printf("resume when you like: %s of the gap are counted\n",
		       text_span(gap, plan->counted_ns));
	}
}

static int answer_text(const struct rewriting *rw)
{
	int r = put_plan(&rw->source, &rw->situation, rw->plan);

	printf("\n%s", style(STYLE_BOLD));
	put_text(stdout, output_path(rw));
	printf("%s: %u field%s changed%s\n", style(STYLE_PLAIN), rw->n_changes,
	       rw->n_changes == 1 ? "" : "s",
	       rw->n_changes ? "; `guestclock undo` takes it back" : "");
	put_resume(rw);
	return r;
}

/* The plan is by the wall clock as it was at its beginning, and whoever resumes has the new one. */
static void say_if_set(struct rewriting *rw)
{
	int64_t by_ns = wall_line_step_ns(&rw->situation.line);
	char by[GCLK_DURATION_TEXT_BYTES];

	if (by_ns && !rw->plan->when.elapsed_given && rw->plan->counted_ns) {
		gclk_findings_add(&rw->plan->findings, "wall-clock-set", "",
				  "it was set by %s while the image was written: the resume instant is "
				  "by it as it was before", gclk_duration_format(by_ns, by));
	}
}

static void warn_if_late(const struct rewriting *rw)
{
	int64_t late_ns = wall_line_ns(&rw->situation.line) - rw->plan->when.run.ns;
	char late[TEXT_BYTES];

	if (late_ns > 0 && !rw->plan->when.elapsed_given &&
	    rw->plan->policy == GCLK_GAP_COUNT && !given(rw->o, OPTION(RESUME_AT))) {
		message("warning", output_path(rw), NULL, EFFECT_READING,
			"guestclock rewrite --resume-at +DURATION",
			"the resume instant passed %s ago: the guest will be that slow",
			text_approx(late, late_ns));
	}
}

static int rewrite(struct rewriting *rw)
{
	int r;

	if (!rw->source.image) {
		return make_plan(&rw->source, &rw->situation, &rw->plan);
	}
	r = situation_find(&rw->situation, &rw->source, rw->o, margin_ns(rw));
	if (r == 0) {
		r = make_plan(&rw->source, &rw->situation, &rw->plan);
	}
	if (r == GCLK_REFUSED) {
		if (given(rw->o, OPTION(JSON))) {
			answer_json(rw);
		}
		return say_refused(&rw->source, rw->plan);
	}
	if (r == 0) {
		r = carry_out(rw);
	}
	if (r) {
		return r;
	}
	say_if_set(rw);
	warn_if_late(rw);
	if (given(rw->o, OPTION(JSON))) {
		answer_json(rw);
		return 0;
	}
	return answer_text(rw);
}

static int run(const struct options *o)
{
	struct rewriting rw = { .o = o };
	int r = check_output(o);

	if (r) {
		return r;
	}
	r = source_open(&rw.source, o->files[0], o,
			given(o, OPTION(IN_PLACE)) ? SOURCE_CHANGE : SOURCE_COPY);
	if (r == 0) {
		r = rewrite(&rw);
	}
	gclk_plan_free(rw.plan);
	source_close(&rw.source);
	return r;
}

const struct verb verb_rewrite = {
	.name = "rewrite",
	.summary = "carry a plan out: a saved guest whose clocks are right when it runs "
		   "again",
	.synopsis = "IN (-o OUT | --in-place)",
	.text = "Rewrites the clocks of the saved guest IN for its resume, as "
		"`guestclock plan` shows it, either in place or into a copy. The "
		"original bytes stay in the image: rewriting again starts from them, "
		"and `guestclock undo` brings them back. The last line says when to "
		"resume the guest.",
	.example = "guestclock rewrite --in-place --resume-at +5s web1.save && virsh "
		   "restore web1.save",
	.options = OPTIONS_COMMON | OPTIONS_PLAN | OPTION(OUTPUT) | OPTION(IN_PLACE) | OPTION(SYNC),
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
