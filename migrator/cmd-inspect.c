/* SPDX-License-Identifier: MIT */
/* guestclock inspect: every clock of a guest, in human terms. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <guestclock/kvm.h>
#include <guestclock/seal.h>

#include "core/error.h"
#include "migrator/json-state.h"
#include "migrator/report-json.h"
#include "migrator/report-plan.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/timeline.h"
#include "migrator/verbs.h"

static struct json_object *rewrite_json(const struct source *source)
{
	if (!source_is_rewritten(source)) {
		return NULL;
	}
	return json_must(json_from_record(&gclk_rewrite_record, &source->rewrite));
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

/* Of a redacted one only what was taken out of it: raw fields may hold the host's clocks. */
static int answer_json(const struct source *source, const struct gclk_findings *findings,
		       bool redact)
{
	struct json_object *answer, *fields = NULL;
	struct gclk_error error;
	int r = redact ? 0 : json_source(source->image, &fields);

	if (r < 0) {
		gclk_fail(&error, (enum gclk_status)-r, NULL, GCLK_NO_OFFSET,
			  "the source's own fields could not be had");
		return fail(source->path, &error, EFFECT_NONE, NULL);
	}
	answer = json_answer("inspect");
	json_put(answer, "format", json_text(source->format));
	json_put(answer, "captured", json_captured(&source->captured, source->basis));
	json_put(answer, "domain", domain_json(source));
	json_put(answer, "rewrite", rewrite_json(source));
	json_put(answer, "state", json_must(json_from_state(source->state)));
	json_put(answer, "source", fields);
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

/* ---- a sealed bundle: what it says of itself, which is not proven ---- */

static void hex(char *to, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		sprintf(to + 2 * i, "%02x", bytes[i]);
	}
}

static int sealed_json(const struct gclk_sealed *sealed, const char *signer,
		       const char *recipient)
{
	struct json_object *answer = json_answer("inspect"), *map = json_new_map();
	char guest[2 * GCLK_SEAL_GUEST_BYTES + 1];

	hex(guest, sealed->guest, sizeof(sealed->guest));
	json_put(answer, "format", json_text("sealed"));
	json_put(map, "encrypted", json_object_new_boolean(*recipient != 0));
	json_put(map, "signer", json_text(signer));
	json_put(map, "recipient", json_text(recipient));
	json_put(map, "guest", json_text(guest));
	json_put(map, "sequence", json_u64(sealed->sequence));
	json_put(map, "payload_bytes", json_u64(sealed->payload_bytes));
	json_put(answer, "sealed", map);
	json_print(answer);
	return 0;
}

static void sealed_text(const char *path, const struct gclk_sealed *sealed,
			const char *signer, const char *recipient)
{
	char name[512];

	put_line("file", "a sealed bundle of %" PRIu32 " bytes, %s", sealed->payload_bytes,
		 *recipient ? "signed and encrypted" : "signed, not encrypted");
	put_line("signed by", "key %.16s (not proven before it is opened)", signer);
	if (*recipient) {
		put_line("recipient", "key %.16s", recipient);
	}
	put_line("sequence", "%" PRIu64, sealed->sequence);
	shell_quote(name, sizeof(name), path);
	put_line("to open it", "guestclock open --key SIGNER.pub %s%s -o OUT",
		 *recipient ? "--recipient KEY " : "", name);
}

static int inspect_sealed(const struct options *o, const unsigned char *first, size_t n)
{
	char signer[2 * GCLK_SEAL_ID_BYTES + 1], recipient[2 * GCLK_SEAL_ID_BYTES + 1];
	struct gclk_sealed sealed;
	struct gclk_error error;

	if (gclk_sealed_look(first, n, 0, &sealed, &error) < 0) {
		return fail(o->files[0], &error, EFFECT_NONE, NULL);
	}
	hex(signer, sealed.signer, sizeof(sealed.signer));
	hex(recipient, sealed.recipient, sizeof(sealed.recipient));
	if (sealed.suite != GCLK_SEAL_ENCRYPTED) {
		recipient[0] = 0;
	}
	if (given(o, OPTION(JSON))) {
		return sealed_json(&sealed, signer, recipient);
	}
	sealed_text(o->files[0], &sealed, signer, recipient);
	return 0;
}

/* ---- a picture of the timers ---- */

static struct { const char *timeline; } own;

static int set_timeline(struct options *o, const char *text, struct gclk_error *reterr)
{
	(void)o;
	(void)reterr;
	own.timeline = text;
	return 0;
}

static const struct option_row rows[] = {
	{ .name = "timeline", .argument = "FILE.svg", .set = set_timeline,
	  .help = "draw when each timer interrupts the guest, before and\n"
		  "after the capture; with --elapsed, across such a gap" },
};

static int draw(const struct options *o, const struct source *source)
{
	static struct situation situation;
	struct gclk_plan *plan = NULL;
	struct gclk_error error;
	int r = 0;

	if (!own.timeline) {
		return 0;
	}
	if (given(o, OPTION(ELAPSED))) {
		r = situation_find(&situation, source, o, 0);
		r = r ? r : make_plan(source, &situation, &plan);
	}
	if (r == GCLK_REFUSED && plan) {
		r = say_refused(source, plan);
	} else if (r == 0 && timeline_write(source, plan, own.timeline, &error) < 0) {
		r = fail(own.timeline, &error, EFFECT_NONE, NULL);
	}
	gclk_plan_free(plan);
	return r;
}

/* A gap begins with the captured state, also where the image has been rewritten. */
static int open_source(const struct options *o, struct source *source)
{
	enum source_use use = given(o, OPTION(ELAPSED)) ? SOURCE_STATE : SOURCE_LOOK;
	struct gclk_error error;
	int r = source_open(source, o->files[0], o, use);

	if (r == 0 && given(o, OPTION(REDACT)) && source_redact(source, &error) < 0) {
		r = fail(o->files[0], &error, EFFECT_NONE, NULL);
	}
	return r;
}

static int run(const struct options *o)
{
	static struct gclk_findings findings;
	unsigned char first[GCLK_SEAL_HEADER_BYTES];
	struct source source;
	size_t n = 0;
	int r;

	if (source_begin(o->files[0], first, sizeof(first), &n, NULL) == 0 &&
	    gclk_bytes_are_sealed(first, n)) {
		return inspect_sealed(o, first, n);
	}
	r = open_source(o, &source);
	if (r == 0) {
		gclk_lint(source.state, NULL,
			  source.stands_at.uncertainty_ns == GCLK_UNBOUNDED
				  ? NULL
				  : &source.stands_at,
			  &findings);
		if (source.image) {
			gclk_image_lint(source.image, &findings);
		}
		r = given(o, OPTION(JSON)) ? answer_json(&source, &findings,
							 given(o, OPTION(REDACT)))
					   : answer_text(&source, &findings);
		r = r ? r : draw(o, &source);
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
		"rewritten it shows what a loader will find, and for which resume. Of a "
		"sealed bundle it shows who sealed it, for whom, and how to open it.",
	.example = "guestclock inspect /var/lib/libvirt/qemu/save/web1.save",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT) | OPTION(CHECK) | OPTION(REDACT) |
		   OPTION(CONF) | OPTION(HOST) | OPTION(ELAPSED) | OPTION(GAP) |
		   OPTION(TICKS) | OPTION(FORCE),
	.own_rows = rows,
	.n_own_rows = 1,
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
