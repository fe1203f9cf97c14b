/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/message.h"
#include "migrator/situation.h"

#define PROFILE_MAX_BYTES ((size_t)1 << 20)
#define MEASURE_NS (100 * GCLK_NS_PER_MS)

int read_this_host(struct gclk_host *ret, struct gclk_error *reterr)
{
	int r = gclk_host_read(ret, 0, reterr);

	if (r == 0 && !GCLK_HAS(host, ret, tsc_hz)) {
		r = gclk_host_read(ret, MEASURE_NS, reterr);
	}
	return r;
}

static int read_profile(const char *path, const struct gclk_worker *worker,
			struct gclk_host *ret, struct gclk_error *reterr)
{
	char *text;
	size_t size;
	int r = read_whole(path, PROFILE_MAX_BYTES, &text, &size, reterr);

	if (r < 0) {
		return r;
	}
	r = foreign_host_json(worker, text, size, ret, reterr);
	free(text);
	return r;
}

int situation_find_hosts(struct situation *s, const struct options *o)
{
	const struct gclk_worker *worker;
	struct gclk_error error;

	if (read_this_host(&s->here, &error) < 0) {
		return fail(NULL, &error, EFFECT_NONE, NULL);
	}
	s->host = s->here;
	if (!wall_line_of(&s->line, &s->here)) {
		wall_line_begin(&s->line);
	}
	if (!given(o, OPTION(HOST))) {
		return 0;
	}
	if (confine_worker(o->conf, &worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (read_profile(o->host, worker, &s->host, &error) < 0) {
		return fail(o->host, &error, EFFECT_NONE, "guestclock host -o FILE");
	}
	return 0;
}

int find_settings(struct settings *settings, const struct source *source,
		  const struct options *o)
{
	const struct gclk_domain *domain =
		source->image ? gclk_image_domain(source->image) : NULL;
	struct gclk_error error;

	settings_init(settings);
	if (settings_read_file(settings, o->conf, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (domain && settings_read_domain(settings, domain, &error) < 0) {
		return fail(source->path, &error, EFFECT_NONE, NULL);
	}
	settings_read_options(settings, o);
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return *a && !strcmp(a, b);
}

static bool max_error(const struct gclk_host *host, uint64_t *ret)
{
	*ret = host->ntp_maxerror_ns;
	return host->flags & GCLK_HOST_SYNCHRONISED &&
	       GCLK_HAS(host, host, ntp_maxerror_ns);
}

/*
 * One boot of one host, and what its wall clock was set by in between, where both samples
 * tell. A leap second is such a step, which the plan allows for by itself.
 */
static void same_boot(const struct gclk_host *from, const struct gclk_host *to,
		      struct gclk_disagreement *ret)
{
	struct wall_line then, now;

	if (!wall_line_of(&then, from) || !wall_line_of(&now, to)) {
		return;
	}
	ret->ns = wall_line_apart_ns(&then, &now);
	if (from->tai_offset_s && to->tai_offset_s) {
		ret->ns += ((int64_t)to->tai_offset_s - from->tai_offset_s) * GCLK_NS_PER_S;
	}
	ret->uncertainty_ns = ret->ns ? then.width_ns + now.width_ns : 0;
}

const char *disagreement_find(const struct gclk_host *from, const struct gclk_host *to,
			      const struct gclk_host *here, struct gclk_disagreement *ret)
{
	bool assumed = !from->has;
	const struct gclk_host *source = assumed ? here : from;
	uint64_t a, b;

	*ret = (struct gclk_disagreement){ 0 };
	if (source == to || same_text(source->boot_id, to->boot_id)) {
		same_boot(source, to, ret);
		return assumed ? "assumed-same-host" : "same-boot";
	}
	if (max_error(source, &a) && max_error(to, &b) && a <= INT64_MAX &&
	    b <= INT64_MAX) {
		ret->uncertainty_ns = a + b;
		return "synchronised";
	}
	ret->uncertainty_ns = GCLK_UNBOUNDED;
	return "unmeasured";
}

static void find_disagreement(struct situation *s, const struct source *source,
			      const struct options *o)
{
	if (given(o, OPTION(DISAGREEMENT))) {
		s->disagreement = o->disagreement;
		s->disagreement_basis = "given";
		return;
	}
	s->disagreement_basis =
		disagreement_find(&source->host, &s->host, &s->here, &s->disagreement);
}

static void find_captured(struct situation *s, const struct source *source,
			  const struct options *o)
{
	struct gclk_when *when = &s->when;

	when->captured = source->captured;
	s->basis = source->basis;
	if (given(o, OPTION(CAPTURED_AT))) {
		when->captured = o->captured;
		s->basis = "given";
	}
	if (GCLK_HAS(provenance, &source->provenance, tai_offset_s)) {
		when->captured_tai_s = source->provenance.tai_offset_s;
	} else if (!strcmp(s->disagreement_basis, "assumed-same-host")) {
		when->captured_tai_s = s->here.tai_offset_s;
	}
}

static int find_when(struct situation *s, const struct options *o, int64_t margin_ns)
{
	struct gclk_when *when = &s->when;

	when->run = (struct gclk_instant){ gclk_add_sat(s->now_ns, margin_ns), 0 };
	if (given(o, OPTION(RESUME_AT))) {
		when->run = o->resume.at;
		if (o->resume.relative) {
			when->run.ns = gclk_add_sat(s->now_ns, o->resume.at.ns);
		}
	}
	when->load = when->run;
	if (given(o, OPTION(LOAD_AT))) {
		when->load = o->load.at;
		if (o->load.relative) {
			when->load.ns = gclk_add_sat(when->run.ns, o->load.at.ns);
		}
	}
	if (when->load.ns > when->run.ns) {
		return usage_error(NULL, "--load-at lies after the resume");
	}
	when->run_tai_s = s->host.tai_offset_s;
	when->elapsed_given = given(o, OPTION(ELAPSED));
	when->elapsed_ns = o->elapsed_ns;
	return 0;
}

int situation_find(struct situation *s, const struct source *source,
		   const struct options *o, int64_t margin_ns)
{
	int r;

	memset(s, 0, sizeof(*s));
	r = situation_find_hosts(s, o);
	if (r == 0) {
		r = find_settings(&s->settings, source, o);
	}
	if (r) {
		return r;
	}
	s->now_ns = wall_line_ns(&s->line);
	find_disagreement(s, source, o);
	find_captured(s, source, o);
	return find_when(s, o, margin_ns);
}
