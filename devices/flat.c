/* SPDX-License-Identifier: MIT */
/* Records and states whose bytes another process has put together. */
#include <string.h>

#include <guestclock/state.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"

/* ---- records ---- */

static void clear_absent(const struct gclk_record *record, void *base)
{
	char *p = base;

	for (unsigned i = 0; i < record->n_fields; i++) {
		if (!gclk_record_has(base, record, i)) {
			memset(p + record->fields[i].offset, 0, record->fields[i].size);
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned k = 0; k < sub->max; k++) {
			clear_absent(sub->record, p + sub->offset + (size_t)k * sub->record->size);
		}
	}
}

/* They end, as is known by then; and a bundle could hold them. */
static int check_texts(const struct gclk_record *record, const void *base,
		       struct gclk_error *reterr)
{
	for (unsigned i = 0; i < record->n_fields; i++) {
		const struct gclk_field *field = &record->fields[i];
		const char *text = (const char *)base + field->offset;

		if (field->type == GCLK_TYPE_STRING && !gclk_text_is_utf8(text, strlen(text))) {
			return gclk_fail(reterr, GCLK_RANGE, field->name, GCLK_NO_OFFSET,
					 "the text is not UTF-8");
		}
	}
	return 0;
}

GCLK_API int gclk_record_settle(const struct gclk_record *record, void *base, const char *path,
				struct gclk_error *reterr)
{
	int r;

	clear_absent(record, base);
	r = gclk_record_validate(record, base, path, reterr);
	return r < 0 ? r : check_texts(record, base, reterr);
}

/* ---- states ---- */

/* The arrays in their order, each with the bytes that it has. */
static unsigned arrays_of(const struct gclk_state *state, void *ret[4], size_t ret_n[4])
{
	ret[0] = state->tsc;
	ret[1] = state->vcpu;
	ret[2] = state->lapic;
	ret[3] = state->timers;
	ret_n[0] = state->n_vcpus * sizeof(*state->tsc);
	ret_n[1] = state->n_vcpus * sizeof(*state->vcpu);
	ret_n[2] = state->n_vcpus * sizeof(*state->lapic);
	ret_n[3] = state->n_timers * sizeof(*state->timers);
	return 4;
}

GCLK_API size_t gclk_state_flat_bytes(const struct gclk_state *state)
{
	size_t n[4], all = sizeof(*state);
	void *arrays[4];

	for (unsigned i = 0; i < arrays_of(state, arrays, n); i++) {
		all += n[i];
	}
	return all;
}

GCLK_API void gclk_state_flatten(const struct gclk_state *state, void *to)
{
	struct gclk_state head = *state;
	uint8_t *at = to;
	void *arrays[4];
	size_t n[4];

	head.tsc = NULL;	/* where our memory lies is nobody's business */
	head.vcpu = NULL;
	head.lapic = NULL;
	head.timers = NULL;
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	for (unsigned i = 0; i < arrays_of(state, arrays, n); i++) {
		memcpy(at, arrays[i], n[i]);
		at += n[i];
	}
}

static int refuse(const char *what, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_MALFORMED, "state", GCLK_NO_OFFSET, "%s", what);
}

static void clear_all_absent(struct gclk_state *state)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		uint32_t count;
		char *p = gclk_state_part(state, part, &count);

		count = part->is_array ? count : 1;
		for (uint32_t k = 0; k < count; k++) {
			clear_absent(part->record, p + (size_t)k * part->record->size);
		}
	}
}

/* @state: new, of as many vCPUs as @head says. */
static int fill(struct gclk_state *state, const struct gclk_state *head, const uint8_t *bytes,
		size_t n, size_t *ret_used, struct gclk_error *reterr)
{
	struct gclk_state whole = *head;
	size_t used = sizeof(whole), sizes[4];
	void *arrays[4];

	whole.tsc = state->tsc;		/* never theirs */
	whole.vcpu = state->vcpu;
	whole.lapic = state->lapic;
	whole.timers = state->timers;
	*state = whole;
	for (unsigned i = 0; i < arrays_of(state, arrays, sizes); i++) {
		if (n - used < sizes[i]) {
			return refuse("fewer bytes than it has arrays", reterr);
		}
		memcpy(arrays[i], bytes + used, sizes[i]);
		used += sizes[i];
	}
	clear_all_absent(state);
	*ret_used = used;
	return gclk_state_validate(state, reterr);
}

GCLK_API int gclk_state_unflatten(const void *bytes, size_t n, size_t *ret_used,
				  struct gclk_state **ret, struct gclk_error *reterr)
{
	struct gclk_state head, *state;
	int r;

	if (n < sizeof(head)) {
		return refuse("fewer bytes than a state has", reterr);
	}
	memcpy(&head, bytes, sizeof(head));
	if (head.n_vcpus < 1 || head.n_vcpus > GCLK_VCPUS_MAX ||
	    head.n_timers > GCLK_TIMERS_MAX) {
		return refuse("a number of vCPUs or timers that cannot be", reterr);
	}
	state = gclk_state_new(head.n_vcpus);
	if (!state) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	r = fill(state, &head, bytes, n, ret_used, reterr);
	if (r < 0) {
		gclk_state_free(state);
		return r;
	}
	*ret = state;
	return 0;
}
