/* SPDX-License-Identifier: MIT */
/* guestclock inspect: every clock of a guest, in human terms. */
#include <stdio.h>
#include <string.h>

#include <guestclock/kvm.h>

#include "migrator/json-state.h"
#include "migrator/report-json.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/verbs.h"

static struct json_object *rewrite_json(const struct source *source)
{
	if (!source_is_rewritten(source)) {
		return NULL;
	}
	return json_from_record(&gclk_rewrite_record, &source->rewrite);
}

/* As the XML has them; a policy that it does not say is null. */
static struct json_object *domain_timers_json(const struct gclk_domain *domain)
{
	struct json_object *list = json_new_list();

	for (size_t i = 0; i < domain->n_timers; i++) {
		const struct gclk_domain_timer *timer = &domain->timers[i];
		const char *ticks = timer->ticks == GCLK_DOMAIN_TICKS_NONE
					    ? NULL
					    : gclk_tick_policy_names[timer->ticks];
		struct json_object *map = json_new_map();

		json_put(map, "name", json_text(timer->name));
		json_put(map, "tickpolicy", json_text(ticks));
		json_append(list, map);
	}
	return list;
}

static struct json_object *domain_json(const struct source *source)
{
	const struct gclk_domain *domain =
		source->image ? gclk_image_domain(source->image) : NULL;
	struct json_object *map;

	if (!domain) {
		return NULL;
	}
	map = json_new_map();
	json_put(map, "name", json_text(domain->name));
	json_put(map, "uuid", json_text(domain->uuid));
	json_put(map, "machine", json_text(domain->machine));
	json_put(map, "clock_offset", json_text(domain->clock.offset));
	json_put(map, "clock_timezone", json_text(domain->clock.timezone));
	json_put(map, "timers", domain_timers_json(domain));
	return map;
}

static int answer_json(const struct source *source, const struct gclk_findings *findings)
{
	struct json_object *answer = json_answer("inspect");

	json_put(answer, "format", json_text(source->format));
	json_put(answer, "captured", json_captured(&source->captured, source->basis));
	json_put(answer, "domain", domain_json(source));
	json_put(answer, "rewrite", rewrite_json(source));
	json_put(answer, "state", json_from_state(source->state));
	json_put(answer, "source", json_source(source->image));
	json_put(answer, "findings", json_findings(findings));
	json_print(answer);
	return 0;
}

static int answer_text(const struct source *source, const struct gclk_findings *findings)
{
	struct readings readings;
	int r = readings_take(source->state, &source->stands_at, &readings);

	if (r == 0) {
		put_head(source, wall_clock_ns());
		r = put_readings(&readings);
		put_timeline(&readings);
		put_findings(findings);
		readings_free(&readings);
	}
	return r;
}

static int run(const struct options *o)
{
	static struct gclk_findings findings;
	struct source source;
	int r = source_open(&source, o->files[0], o, SOURCE_LOOK);

	if (r == 0) {
		gclk_lint(source.state, NULL,
			  source.stands_at.uncertainty_ns == GCLK_UNBOUNDED
				  ? NULL
				  : &source.stands_at,
			  &findings);
		if (source.image) {
			gclk_image_lint(source.image, &findings);
		}
		r = given(o, OPTION(JSON)) ? answer_json(&source, &findings)
					   : answer_text(&source, &findings);
	}
	source_close(&source);
	if (r == 0 && given(o, OPTION(CHECK)) && found_something(&findings)) {
		return GCLK_REFUSED;
	}
	return r;
}

const struct verb verb_inspect = {
	.name = "inspect",
	.summary = "what every clock of a saved guest says, and what is wrong with it",
	.synopsis = "FILE",
	.text = "FILE is a QEMU migration stream, a libvirt save image, a qcow2 file "
		"with a snapshot of a running machine, or a bundle; its content tells "
		"which. \"-\" is standard input. Shows what each clock reads, at what "
		"rate it runs, when each timer next interrupts the guest, when the "
		"state was captured and how well that is known. Of an image that was "
		"rewritten it shows what a loader will find, and for which resume.",
	.example = "guestclock inspect /var/lib/libvirt/qemu/save/web1.save",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT) | OPTION(CHECK),
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
