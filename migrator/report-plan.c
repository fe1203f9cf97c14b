/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/json-state.h"
#include "migrator/readings.h"
#include "migrator/report-json.h"
#include "migrator/report-plan.h"
#include "migrator/report-text.h"

int make_plan(const struct source *source, const struct situation *situation,
	      struct gclk_plan **ret)
{
	struct gclk_error error;
	int r;

	*ret = NULL;
	if (!source->image) {
		message("error", source->path, gclk_status_name(GCLK_UNSUPPORTED),
			EFFECT_NONE, NULL,
			"a bundle does not say who will load it; a plan wants an image");
		return GCLK_UNSUPPORTED;
	}
	*ret = gclk_plan_new(source->state->n_vcpus);
	if (!*ret) {
		message("error", source->path, gclk_status_name(GCLK_NOMEM), EFFECT_NONE,
			NULL, "no memory for a plan");
		return GCLK_NOMEM;
	}
	r = gclk_plan(source->state, gclk_image_carrier(source->image), &situation->host,
		      &situation->when, &situation->disagreement,
		      &situation->settings.policy, *ret, &error);
	if (r < 0 && r != -GCLK_REFUSED) {
		return fail(source->path, &error, EFFECT_NONE, NULL);
	}
	return -r;
}

int say_refused(const struct source *source, const struct gclk_plan *plan)
{
	for (unsigned i = 0; i < plan->findings.n; i++) {
		const struct gclk_finding *f = &plan->findings.items[i];
		char text[448], try[128];

		if (!f->info->refuses || f->forced) {
			continue;
		}
		snprintf(text, sizeof(text), "%s%s%s", f->clock, f->clock[0] ? ": " : "",
			 f->message);
		snprintf(try, sizeof(try),
			 "guestclock explain %s; --force=%s overrides it", f->info->id,
			 f->info->id);
		message("error", source->path, f->info->id, EFFECT_NONE, try, "%s", text);
	}
	return GCLK_REFUSED;
}

static void put_host(const struct gclk_host *host)
{
	char hz[TEXT_BYTES], known[TEXT_BYTES] = "";
	uint64_t den = GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1;

	if (!GCLK_HAS(host, host, tsc_hz)) {
		put_line("runs on", "%s, TSC frequency not known", host->hostname);
		return;
	}
	if (GCLK_HAS(host, host, tsc_hz_ppb)) {
		snprintf(known, sizeof(known), " %s%" PRIu32 ".%03" PRIu32 " ppm",
			 plus_minus(), host->tsc_hz_ppb / 1000, host->tsc_hz_ppb % 1000);
	}
	put_line("runs on", "%s, TSC %s%s%s", host->hostname,
		 text_hz(hz, host->tsc_hz, den), known,
		 host->flags & GCLK_HOST_TSC_SCALING ? ", can scale it" : "");
}

static void put_circumstances(const struct situation *s, const struct gclk_plan *plan)
{
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES], policy[64];

	if (!strcmp(s->basis, "given")) {
		put_line("stopped", "%s %s, as given",
			 text_instant(a, plan->when.captured.ns,
				      plan->when.captured.uncertainty_ns),
			 text_uncertain(b, plan->when.captured.uncertainty_ns));
	}
	put_host(&s->host);
	text_local(b, plan->when.run.ns, s->now_ns);
	put_line("resume", "%s%s%s",
		 text_instant(a, plan->when.run.ns,
			      GCLK_MAX(plan->when.run.uncertainty_ns, UINT64_C(1000000))),
		 strstr(b, "(UTC)") ? "" : "; here ", strstr(b, "(UTC)") ? "" : b);
	if (plan->when.load.ns != plan->when.run.ns) {
		put_line("loaded", "%s before",
			 text_approx(a, plan->when.run.ns - plan->when.load.ns));
	}
	setting_value(&s->settings, SETTING_GAP, policy);
	put_line("gap", "%s %s; policy %s (%s): %s are counted",
		 text_span(a, plan->gap_ns), text_uncertain(b, plan->gap_uncertainty_ns),
		 policy, s->settings.origin[SETTING_GAP], text_span(c, plan->counted_ns));
	put_line("wall clocks", "destination minus source %s %s (%s)",
		 text_approx(a, s->disagreement.ns),
		 text_uncertain(b, s->disagreement.uncertainty_ns),
		 s->disagreement_basis);
}

static const struct reading *find(const struct readings *readings, const char *clock)
{
	for (unsigned i = 0; i < readings->n; i++) {
		if (!strcmp(readings->items[i].clock, clock)) {
			return &readings->items[i];
		}
	}
	return NULL;
}

/* "tsc[0]" is a "tsc". */
static bool is_clock(const char *name, const char *clock)
{
	size_t n = strlen(clock);

	return !strncmp(name, clock, n) && (name[n] == 0 || name[n] == '[');
}

static void bound_text(const struct gclk_plan *plan, const char *clock,
		       char to[TEXT_BYTES])
{
	to[0] = 0;
	for (unsigned i = 0; i < plan->n_bounds; i++) {
		if (is_clock(clock, plan->bounds[i].clock)) {
			text_uncertain(to, plan->bounds[i].bound_ns);
		}
	}
}

/* A TSC without a frequency of its own runs at its host's. */
static void rate_of(const struct reading *reading, const struct gclk_host *host,
		    uint64_t *ret_hz, uint64_t *ret_den)
{
	*ret_hz = reading->hz;
	*ret_den = reading->hz_den;
	if (!reading->hz && GCLK_HAS(host, host, tsc_hz)) {
		*ret_hz = host->tsc_hz;
		*ret_den = GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1;
	}
}

/* How far a clock was moved, in time where its rate is known. */
static void moved_text(const struct reading *from, const struct reading *to,
		       const struct gclk_host *host, char out[TEXT_BYTES])
{
	int64_t ticks = (int64_t)(to->value - from->value);
	char number[TEXT_BYTES];
	uint64_t hz, den;
	gclk_i128 ns;

	rate_of(to, host, &hz, &den);
	if (!hz) {
		snprintf(out, TEXT_BYTES, "%.60s ticks", text_signed(number, ticks));
		return;
	}
	ns = (gclk_i128)ticks * (int64_t)GCLK_NS_PER_S * (int64_t)den / (int64_t)hz;
	ns = GCLK_MIN(GCLK_MAX(ns, (gclk_i128)INT64_MIN), (gclk_i128)INT64_MAX);
	snprintf(out, TEXT_BYTES, "%s%.60s", ns < 0 ? "" : "+",
		 text_span(number, (int64_t)ns));
}

static int put_moves(const struct readings *from, const struct readings *to,
		     const struct gclk_host *host, const struct gclk_plan *plan)
{
	static const char *const headings[] = { "CLOCK", ">AS SAVED", ">AS PLANNED",
						">MOVED BY", ">BOUND" };
	struct table table;

	table_begin(&table, 5, headings);
	for (unsigned i = 0; i < from->n; i++) {
		const struct reading *old = &from->items[i], *new = find(to, old->clock);
		char moved[TEXT_BYTES], bound[TEXT_BYTES];

		if (!old->counts || !new || !new->counts) {
			continue;
		}
		moved_text(old, new, host, moved);
		bound_text(plan, old->clock, bound);
		table_row(&table, old->clock, old->reads, new->reads, moved, bound);
	}
	putchar('\n');
	return table_end(&table, stdout);
}

#define LEDGER_SHOWN 12

static int put_ledger(const struct gclk_plan *plan)
{
	static const char *const headings[] = { "TICKS OF", ">PERIOD",	 ">OWED",
						">MISSED",  ">REPLAYED", ">MERGED",
						">DROPPED", "POLICY" };
	struct table table;
	unsigned shown = 0;

	table_begin(&table, 8, headings);
	for (unsigned i = 0; i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *e = &plan->ledger[i];
		char n[5][TEXT_BYTES], period[TEXT_BYTES] = "once";

		if ((!e->owed_before && !e->missed) || shown++ >= LEDGER_SHOWN) {
			continue;
		}
		if (e->period_ns) {
			text_approx(period,
				    (int64_t)GCLK_MIN(e->period_ns, (uint64_t)INT64_MAX));
		}
		table_row(&table, e->timer, period, text_count(n[0], e->owed_before),
			  text_count(n[1], e->missed), text_count(n[2], e->replayed),
			  text_count(n[3], e->merged), text_count(n[4], e->dropped),
			  gclk_tick_policy_names[e->policy]);
	}
	if (shown) {
		putchar('\n');
	}
	if (shown > LEDGER_SHOWN) {
		printf("(the first %u of %u timers that missed ticks; --json has all)\n",
		       LEDGER_SHOWN, shown);
	}
	return table_end(&table, stdout);
}

int put_plan(const struct source *source, const struct situation *situation,
	     const struct gclk_plan *plan)
{
	struct readings from, to = { 0 };
	int r = readings_take(source->state, &plan->when.captured, &from);

	if (r == 0) {
		r = readings_take(plan->state, &plan->when.run, &to);
	}
	if (r == 0) {
		put_head(source, situation->now_ns);
		put_circumstances(situation, plan);
		r = put_moves(&from, &to, &situation->host, plan);
	}
	if (r == 0) {
		r = put_ledger(plan);
		put_findings(&plan->findings);
	}
	readings_free(&from);
	readings_free(&to);
	return r;
}

static struct json_object *ledger_json(const struct gclk_plan *plan)
{
	struct json_object *list = json_new_list();

	for (unsigned i = 0; i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *e = &plan->ledger[i];
		struct json_object *map = json_new_map();

		json_put(map, "timer", json_text(e->timer));
		json_put(map, "period_ns", json_u64(e->period_ns));
		json_put(map, "owed_before", json_u64(e->owed_before));
		json_put(map, "missed", json_u64(e->missed));
		json_put(map, "replayed", json_u64(e->replayed));
		json_put(map, "merged", json_u64(e->merged));
		json_put(map, "dropped", json_u64(e->dropped));
		json_put(map, "policy", json_text(gclk_tick_policy_names[e->policy]));
		json_put(map, "why", json_text(e->why));
		json_append(list, map);
	}
	return list;
}

static struct json_object *bounds_json(const struct gclk_plan *plan)
{
	struct json_object *list = json_new_list();

	for (unsigned i = 0; i < plan->n_bounds; i++) {
		struct json_object *map = json_new_map();

		json_put(map, "clock", json_text(plan->bounds[i].clock));
		json_put(map, "bound_ns", json_bound(plan->bounds[i].bound_ns));
		json_append(list, map);
	}
	return list;
}

static struct json_object *disagreement_json(const struct situation *situation)
{
	struct json_object *map = json_new_map();

	json_put(map, "ns", json_i64(situation->disagreement.ns));
	json_put(map, "uncertainty_ns",
		 json_bound(situation->disagreement.uncertainty_ns));
	json_put(map, "basis", json_text(situation->disagreement_basis));
	return map;
}

struct json_object *plan_json(const char *verb, const struct source *source,
			      const struct situation *situation,
			      const struct gclk_plan *plan)
{
	struct json_object *answer = json_answer(verb);

	json_put(answer, "format", json_text(source->format));
	json_put(answer, "captured",
		 json_captured(&situation->when.captured, situation->basis));
	json_put(answer, "load_at", json_realtime(plan->when.load.ns));
	json_put(answer, "resume_at", json_realtime(plan->when.run.ns));
	json_put(answer, "disagreement", disagreement_json(situation));
	json_put(answer, "carrier", json_text(gclk_image_carrier(source->image)->name));
	json_put(answer, "host", json_text(situation->host.hostname));
	json_put(answer, "gap_ns", json_i64(plan->gap_ns));
	json_put(answer, "gap_uncertainty_ns", json_bound(plan->gap_uncertainty_ns));
	json_put(answer, "counted_ns", json_i64(plan->counted_ns));
	json_put(answer, "policy", json_text(gclk_gap_policy_names[plan->policy]));
	if (plan->policy == GCLK_GAP_CAP) {
		json_put(answer, "cap_ns", json_i64(situation->settings.policy.cap_ns));
	}
	json_put(answer, "refused",
		 json_object_new_boolean(plan->findings.n_refusing != 0));
	json_put(answer, "state", json_must(json_from_state(plan->state)));
	json_put(answer, "ledger", ledger_json(plan));
	json_put(answer, "bounds", bounds_json(plan));
	json_put(answer, "findings", json_findings(&plan->findings));
	return answer;
}
