/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "image/worker/facts.h"

static int refuse(const char *what, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process that reads the file answers what cannot be: %s",
			 what);
}

#define TAME(array) gclk_text_tame(array, sizeof(array))

/* ---- states ---- */

void gclk_state_pieces(const struct gclk_state *state, struct gclk_state *scratch,
		       struct gclk_piece to[GCLK_STATE_PIECES])
{
	*scratch = *state;
	scratch->tsc = NULL;		/* where our memory lies is nobody's business */
	scratch->vcpu = NULL;
	scratch->lapic = NULL;
	scratch->timers = NULL;
	to[0] = (struct gclk_piece){ scratch, sizeof(*scratch) };
	to[1] = (struct gclk_piece){ state->tsc, state->n_vcpus * sizeof(*state->tsc) };
	to[2] = (struct gclk_piece){ state->vcpu, state->n_vcpus * sizeof(*state->vcpu) };
	to[3] = (struct gclk_piece){ state->lapic, state->n_vcpus * sizeof(*state->lapic) };
	to[4] = (struct gclk_piece){ state->timers, state->n_timers * sizeof(*state->timers) };
}

static void tame_state(struct gclk_state *state)
{
	TAME(state->guest.machine);
	TAME(state->guest.name);
	TAME(state->guest.uuid);
	for (uint32_t i = 0; i < state->n_timers; i++) {
		TAME(state->timers[i].name);
	}
}

int gclk_take_state(struct gclk_rest *rest, struct gclk_state **ret, struct gclk_error *reterr)
{
	size_t used;
	int r = gclk_state_unflatten(rest->at, rest->n, &used, ret, reterr);

	if (r < 0) {
		return r == -GCLK_NOMEM ? r : refuse("a state", reterr);
	}
	tame_state(*ret);
	rest->at += used;
	rest->n -= used;
	return 0;
}

/* ---- the other answers ---- */

int gclk_take_done(struct gclk_rest *rest, int *ret_result, struct gclk_error *ret_said,
		   struct gclk_error *reterr)
{
	int32_t result[2];

	if (!gclk_rest_take(rest, result, sizeof(result)) ||
	    !gclk_rest_take(rest, ret_said, sizeof(*ret_said)) || result[0] < -GCLK_UNPROVEN) {
		return refuse("a result", reterr);
	}
	TAME(ret_said->where);
	TAME(ret_said->message);
	ret_said->status = result[0] < 0 ? -result[0] : 0;
	*ret_result = result[0];
	return 0;
}

static uint8_t truth(uint8_t value)
{
	return value != 0;
}

static bool take_timers(struct gclk_domain *domain)
{
	if (domain->n_timers > GCLK_DOMAIN_MAX_TIMERS) {
		return false;
	}
	for (size_t i = 0; i < domain->n_timers; i++) {
		struct gclk_domain_timer *timer = &domain->timers[i];

		TAME(timer->name);
		TAME(timer->track);
		TAME(timer->mode);
		if ((unsigned)timer->present > GCLK_DOMAIN_YES ||
		    (unsigned)timer->ticks > GCLK_DOMAIN_TICKS_DISCARD) {
			return false;
		}
	}
	return true;
}

static bool take_metadata(struct gclk_domain *domain)
{
	if (domain->n_metadata > GCLK_DOMAIN_MAX_METADATA) {
		return false;
	}
	for (size_t i = 0; i < domain->n_metadata; i++) {
		TAME(domain->metadata[i].name);
		TAME(domain->metadata[i].value);
	}
	return true;
}

static bool take_domain(struct gclk_domain *domain)
{
	struct gclk_domain_clock *clock = &domain->clock;

	TAME(domain->name);
	TAME(domain->uuid);
	TAME(domain->machine);
	TAME(clock->offset);
	TAME(clock->timezone);
	TAME(clock->basis);
	clock->adjustment_reset = truth(clock->adjustment_reset);
	clock->has_adjustment = truth(clock->has_adjustment);
	clock->has_start = truth(clock->has_start);
	domain->has_metadata = truth(domain->has_metadata);
	return (unsigned)domain->type <= GCLK_DOMAIN_QEMU &&
	       (unsigned)domain->hv_stimer <= GCLK_DOMAIN_YES &&
	       (unsigned)domain->hv_synic <= GCLK_DOMAIN_YES &&
	       (unsigned)domain->hv_frequencies <= GCLK_DOMAIN_YES &&
	       (unsigned)domain->hv_reenlightenment <= GCLK_DOMAIN_YES &&
	       (unsigned)domain->invtsc <= GCLK_DOMAIN_YES && take_timers(domain) &&
	       take_metadata(domain);
}

static bool spans_hold(const struct gclk_facts *f)
{
	return f->tail_begin <= f->tail_end && f->span.begin >= f->tail_begin &&
	       f->span.begin <= f->span.end && f->span.end <= f->tail_end &&
	       f->span.stream_end <= f->tail_end;
}

int gclk_take_domain(struct gclk_rest *rest, struct gclk_domain *ret, struct gclk_error *reterr)
{
	if (!gclk_rest_take(rest, ret, sizeof(*ret)) || rest->n || !take_domain(ret)) {
		return refuse("a domain", reterr);
	}
	return 0;
}

int gclk_take_facts(struct gclk_rest *rest, struct gclk_facts *ret, struct gclk_error *reterr)
{
	if (!gclk_rest_take(rest, ret, sizeof(*ret)) || ret->kind > GCLK_CONTAINER_QCOW2 ||
	    !gclk_compression_name((enum gclk_compression)ret->compression) ||
	    ret->was_running < -1 || ret->was_running > 1 ||
	    ret->n_evidence > GCLK_EVIDENCE_MAX || !spans_hold(ret)) {
		return refuse("facts of an image", reterr);
	}
	for (uint32_t i = 0; i < ret->n_evidence; i++) {
		TAME(ret->evidence[i].basis);
		TAME(ret->evidence[i].note);
	}
	ret->in_place = truth(ret->in_place);
	ret->has_domain = truth(ret->has_domain);
	return !ret->has_domain || take_domain(&ret->domain) ? 0 : refuse("a domain", reterr);
}

/* So many whole records as there are; the caller's to free. */
static int take_list(struct gclk_rest *rest, size_t size, void **ret, unsigned *ret_n,
		     struct gclk_error *reterr)
{
	size_t n = rest->n / size;

	if (rest->n % size) {
		return refuse("a list's length", reterr);
	}
	*ret = calloc(n + 1, size);
	if (!*ret) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	gclk_rest_take(rest, *ret, n * size);
	*ret_n = (unsigned)n;
	return 0;
}

int gclk_take_changes(struct gclk_rest *rest, struct gclk_said_change **ret, unsigned *ret_n,
		      struct gclk_error *reterr)
{
	void *list;
	int r = take_list(rest, sizeof(**ret), &list, ret_n, reterr);

	if (r < 0) {
		return r;
	}
	*ret = list;
	for (unsigned i = 0; i < *ret_n; i++) {
		TAME((*ret)[i].section);
		TAME((*ret)[i].field);
	}
	return 0;
}

int gclk_take_fields(struct gclk_rest *rest, struct gclk_said_field **ret, unsigned *ret_n,
		     struct gclk_error *reterr)
{
	void *list;
	int r = take_list(rest, sizeof(**ret), &list, ret_n, reterr);

	if (r < 0) {
		return r;
	}
	*ret = list;
	for (unsigned i = 0; i < *ret_n; i++) {
		struct gclk_said_field *field = &(*ret)[i];

		TAME(field->section);
		TAME(field->field);
		field->is_signed = truth(field->is_signed);
		field->size = GCLK_MIN(field->size, (uint32_t)sizeof(field->bytes));
	}
	return 0;
}

int gclk_take_snapshots(struct gclk_rest *rest, struct gclk_snapshot *ret, unsigned max,
			unsigned *ret_n, struct gclk_error *reterr)
{
	void *list;
	unsigned n;
	int r = take_list(rest, sizeof(*ret), &list, &n, reterr);

	if (r < 0) {
		return r;
	}
	for (unsigned i = 0; i < GCLK_MIN(n, max); i++) {
		ret[i] = ((struct gclk_snapshot *)list)[i];
		TAME(ret[i].id);
		TAME(ret[i].name);
	}
	free(list);
	*ret_n = n;
	return 0;
}
