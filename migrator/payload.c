/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/payload.h"
#include "migrator/text.h"

#define SET_TEXT(record, p, member, text)                                                \
	do {                                                                             \
		const char *text_ = (text);                                              \
		if (text_ && *text_) {                                                   \
			(p)->has |= GCLK_BIT(record, member);                            \
			clean_text((p)->member, sizeof((p)->member), text_);             \
		}                                                                        \
	} while (0)

void provenance_of(const struct source *source, const struct gclk_instant *captured,
		   const char *basis, int32_t tai_offset_s, int64_t now_ns,
		   struct gclk_provenance *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (captured->uncertainty_ns != GCLK_UNBOUNDED) {
		GCLK_SET(provenance, ret, realtime_ns, captured->ns);
		GCLK_SET(provenance, ret, uncertainty_ns, captured->uncertainty_ns);
		SET_TEXT(provenance, ret, basis, basis);
	}
	if (tai_offset_s) {
		GCLK_SET(provenance, ret, tai_offset_s, tai_offset_s);
	}
	if (GCLK_HAS(provenance, &source->provenance, source_format)) {
		SET_TEXT(provenance, ret, source_format,
			 source->provenance.source_format);
		SET_TEXT(provenance, ret, source_detail,
			 source->provenance.source_detail);
	} else {
		SET_TEXT(provenance, ret, source_format, source->format);
		SET_TEXT(provenance, ret, source_detail, source->state->guest.machine);
	}
	SET_TEXT(provenance, ret, tool_version, GUESTCLOCK_VERSION);
	GCLK_SET(provenance, ret, written_realtime_ns, now_ns);
}

static void rewrite_of(const struct source *source, const struct situation *situation,
		       const struct gclk_plan *plan, struct gclk_rewrite *ret)
{
	memset(ret, 0, sizeof(*ret));
	GCLK_SET(rewrite, ret, at_realtime_ns, situation->now_ns);
	GCLK_SET(rewrite, ret, load_realtime_ns, plan->when.load.ns);
	GCLK_SET(rewrite, ret, run_realtime_ns, plan->when.run.ns);
	GCLK_SET(rewrite, ret, gap_ns, plan->gap_ns);
	GCLK_SET(rewrite, ret, counted_ns, plan->counted_ns);
	SET_TEXT(rewrite, ret, gap_policy, gclk_gap_policy_names[plan->policy]);
	SET_TEXT(rewrite, ret, carrier, gclk_image_carrier(source->image)->name);
	SET_TEXT(rewrite, ret, tool_version, GUESTCLOCK_VERSION);
	GCLK_SET(rewrite, ret, times, source->rewrite.times + 1);
}

/*
 * The host on whose wall clock the capture stands: known from before, or taken to be
 * this one. Where the operator said how far another one's clock is off, it is another
 * one, of which nothing else is known: then the next plan asks again.
 */
static struct gclk_host capture_host(const struct source *source,
				     const struct situation *situation)
{
	struct gclk_host host = source->host;

	if (host.has) {
		return host;
	}
	if (strcmp(situation->disagreement_basis, "given")) {
		return situation->here;
	}
	SET_TEXT(host, &host, hostname, "(another host)");
	return host;
}

int bundle_bytes(const struct gclk_bundle *bundle, void **ret, size_t *ret_size,
		 struct gclk_error *reterr)
{
	int64_t size = gclk_bundle_pack(bundle, NULL, 0, reterr);
	void *bytes;

	if (size < 0) {
		return (int)size;
	}
	bytes = malloc((size_t)size);
	if (!bytes) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a bundle of %lld bytes", (long long)size);
	}
	size = gclk_bundle_pack(bundle, bytes, (size_t)size, reterr);
	if (size < 0) {
		free(bytes);
		return (int)size;
	}
	*ret = bytes;
	*ret_size = (size_t)size;
	return 0;
}

static int fill_from(struct gclk_bundle *bundle, const struct source *source,
		     struct gclk_error *reterr)
{
	struct gclk_provenance provenance;
	int r;

	provenance_of(source, &source->captured, source->basis,
		      source->provenance.tai_offset_s, wall_clock_ns(), &provenance);
	r = gclk_bundle_set_state(bundle, source->state, reterr);
	if (r == 0) {
		r = gclk_bundle_set_provenance(bundle, &provenance, reterr);
	}
	if (r == 0 && source->host.has) {
		r = gclk_bundle_set_host(bundle, &source->host, reterr);
	}
	return r;
}

int bundle_of(const struct source *source, struct gclk_bundle **ret,
	      struct gclk_error *reterr)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	int r;

	if (!bundle) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a bundle");
	}
	r = fill_from(bundle, source, reterr);
	if (r < 0) {
		gclk_bundle_free(bundle);
		return r;
	}
	*ret = bundle;
	return 0;
}

static int fill(struct gclk_bundle *bundle, const struct source *source,
		const struct situation *situation, const struct gclk_plan *plan,
		struct gclk_error *reterr)
{
	struct gclk_host host = capture_host(source, situation);
	struct gclk_provenance provenance;
	struct gclk_rewrite rewrite;
	int r;

	provenance_of(source, &situation->when.captured, situation->basis,
		      situation->when.captured_tai_s, situation->now_ns, &provenance);
	rewrite_of(source, situation, plan, &rewrite);
	r = gclk_bundle_set_provenance(bundle, &provenance, reterr);
	if (r == 0) {
		r = gclk_bundle_set_host(bundle, &host, reterr);
	}
	if (r == 0) {
		r = gclk_bundle_set_rewrite(bundle, &rewrite, reterr);
	}
	if (r == 0) {
		r = gclk_bundle_set_plan(bundle, plan, gclk_image_carrier(source->image),
					 reterr);
	}
	return r;
}

int payload_make(const struct source *source, const struct situation *situation,
		 const struct gclk_plan *plan, void **ret, size_t *ret_size,
		 struct gclk_error *reterr)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	int r;

	if (!bundle) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a bundle");
	}
	r = fill(bundle, source, situation, plan, reterr);
	if (r == 0) {
		r = bundle_bytes(bundle, ret, ret_size, reterr);
	}
	gclk_bundle_free(bundle);
	return r;
}
