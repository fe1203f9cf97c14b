/* SPDX-License-Identifier: MIT */
/* guestclock plan: what a rewriting would do, without doing it. */
#include "migrator/report-json.h"
#include "migrator/report-plan.h"
#include "migrator/report-text.h"
#include "migrator/verbs.h"

static int answer(const struct options *o, const struct source *source,
		  const struct situation *situation, const struct gclk_plan *plan)
{
	if (given(o, OPTION(JSON))) {
		json_print(plan_json("plan", source, situation, plan));
		return 0;
	}
	return put_plan(source, situation, plan);
}

static int plan_source(const struct options *o, const struct source *source)
{
	struct situation situation;
	struct gclk_plan *plan = NULL;
	int r = situation_find(&situation, source, o, 0);

	if (r) {
		return r;
	}
	r = make_plan(source, &situation, &plan);
	if (r == 0 || r == GCLK_REFUSED) {
		int refused = r;

		r = answer(o, source, &situation, plan);
		if (r == 0 && refused) {
			r = say_refused(source, plan);
		}
		if (r == 0 && given(o, OPTION(CHECK)) &&
		    found_something(&plan->findings)) {
			r = GCLK_REFUSED;
		}
	}
	gclk_plan_free(plan);
	return r;
}

static int run(const struct options *o)
{
	struct source source;
	int r = source_open(&source, o->files[0], o, SOURCE_STATE);

	if (r == 0) {
		r = plan_source(o, &source);
	}
	source_close(&source);
	return r;
}

const struct verb verb_plan = {
	.name = "plan",
	.summary = "what a rewriting would do, without doing it",
	.synopsis = "FILE",
	.text = "Works out what each clock of the guest in FILE must say when it runs "
		"again, what becomes of the interrupts that fell into the gap, and how "
		"far off each clock can be. The gap is the time from the stop of the "
		"guest to its resume. Nothing is changed.",
	.example = "guestclock plan --elapsed 1h --gap cap=60s web1.save",
	.options = OPTIONS_COMMON | OPTIONS_PLAN | OPTION(CHECK),
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
