/* SPDX-License-Identifier: MIT */
/*
 * A clock state is one block of memory:
 *
 *	struct gclk_state | tsc[n] | vcpu[n] | lapic[n] | timers[GCLK_TIMERS_MAX]
 *
 * The arrays never move, so the distance from tsc to vcpu tells for how many
 * vCPUs the block was made, whatever n_vcpus says now.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/state.h"

static_assert(sizeof(struct gclk_state) % _Alignof(struct gclk_tsc) == 0, "tsc is aligned");
static_assert(sizeof(struct gclk_tsc) % _Alignof(struct gclk_vcpu) == 0, "vcpu is aligned");
static_assert(sizeof(struct gclk_vcpu) % _Alignof(struct gclk_lapic) == 0, "lapic is aligned");
static_assert(sizeof(struct gclk_lapic) % _Alignof(struct gclk_timer) == 0, "timers are aligned");

GCLK_API struct gclk_state *gclk_state_new(uint32_t n_vcpus)
{
	struct gclk_state *state;
	size_t per_vcpu = sizeof(*state->tsc) + sizeof(*state->vcpu) + sizeof(*state->lapic);

	if (n_vcpus < 1 || n_vcpus > GCLK_VCPUS_MAX) {
		return NULL;
	}
	state = calloc(1, sizeof(*state) + n_vcpus * per_vcpu +
				  GCLK_TIMERS_MAX * sizeof(*state->timers));
	if (!state) {
		return NULL;
	}
	state->n_vcpus = n_vcpus;
	state->tsc = (struct gclk_tsc *)(state + 1);
	state->vcpu = (struct gclk_vcpu *)(state->tsc + n_vcpus);
	state->lapic = (struct gclk_lapic *)(state->vcpu + n_vcpus);
	state->timers = (struct gclk_timer *)(state->lapic + n_vcpus);
	return state;
}

GCLK_API struct gclk_state *gclk_state_free(struct gclk_state *state)
{
	free(state);
	return NULL;
}

uint32_t gclk_state_capacity(const struct gclk_state *state)
{
	return (uint32_t)((const struct gclk_tsc *)state->vcpu - state->tsc);
}

/* Everything but the pointers to the arrays, which belong to the block. */
static void copy_head(struct gclk_state *to, const struct gclk_state *from)
{
	struct gclk_tsc *tsc = to->tsc;
	struct gclk_vcpu *vcpu = to->vcpu;
	struct gclk_lapic *lapic = to->lapic;
	struct gclk_timer *timers = to->timers;

	*to = *from;
	to->tsc = tsc;
	to->vcpu = vcpu;
	to->lapic = lapic;
	to->timers = timers;
}

/* Records beyond those in use are zero, always: most states have none, and room for many. */
static void clear_timers(struct gclk_state *state, uint32_t from)
{
	uint32_t n = GCLK_MIN(state->n_timers, (uint32_t)GCLK_TIMERS_MAX);

	if (from < n) {
		memset(state->timers + from, 0, (n - from) * sizeof(*state->timers));
	}
}

GCLK_API void gclk_state_clear(struct gclk_state *state)
{
	const struct gclk_state empty = { .n_vcpus = state->n_vcpus };
	uint32_t room = gclk_state_capacity(state);

	clear_timers(state, 0);
	copy_head(state, &empty);
	memset(state->tsc, 0, room * sizeof(*state->tsc));
	memset(state->vcpu, 0, room * sizeof(*state->vcpu));
	memset(state->lapic, 0, room * sizeof(*state->lapic));
}

GCLK_API int gclk_state_assign(struct gclk_state *to, const struct gclk_state *from,
			       struct gclk_error *reterr)
{
	uint32_t n = from->n_vcpus, room = gclk_state_capacity(to);

	if (to == from) {
		return 0;
	}
	if (n > room) {
		return gclk_fail(reterr, GCLK_RANGE, "n_vcpus", GCLK_NO_OFFSET,
				 "a state with %" PRIu32 " vCPUs does not fit into one made for %" PRIu32,
				 n, room);
	}
	if (from->n_timers > GCLK_TIMERS_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, "n_timers", GCLK_NO_OFFSET,
				 "%" PRIu32 " is more than %d", from->n_timers, GCLK_TIMERS_MAX);
	}
	clear_timers(to, from->n_timers);
	copy_head(to, from);
	memcpy(to->tsc, from->tsc, n * sizeof(*to->tsc));
	memcpy(to->vcpu, from->vcpu, n * sizeof(*to->vcpu));
	memcpy(to->lapic, from->lapic, n * sizeof(*to->lapic));
	memcpy(to->timers, from->timers, from->n_timers * sizeof(*to->timers));
	memset(to->tsc + n, 0, (room - n) * sizeof(*to->tsc));
	memset(to->vcpu + n, 0, (room - n) * sizeof(*to->vcpu));
	memset(to->lapic + n, 0, (room - n) * sizeof(*to->lapic));
	return 0;
}

GCLK_API void *gclk_state_part(const struct gclk_state *state, const struct gclk_part *part,
			       uint32_t *ret_count)
{
	union {
		const void *in;
		char *out;
	} base = { .in = state };
	char *at = base.out + part->offset;
	void *array;
	uint64_t has;

	if (!part->is_array) {
		memcpy(&has, at, sizeof(has));
		*ret_count = has != 0;
		return at;
	}
	memcpy(&array, at, sizeof(array));
	*ret_count = part->record == &gclk_timer_record ? state->n_timers : state->n_vcpus;
	return array;
}

static int validate_sizes(const struct gclk_state *state, struct gclk_error *reterr)
{
	if (state->n_vcpus < 1 || state->n_vcpus > gclk_state_capacity(state)) {
		return gclk_fail(reterr, GCLK_RANGE, "n_vcpus", GCLK_NO_OFFSET,
				 "%" PRIu32 " is not within 1..%" PRIu32, state->n_vcpus,
				 gclk_state_capacity(state));
	}
	if (state->n_timers > GCLK_TIMERS_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, "n_timers", GCLK_NO_OFFSET,
				 "%" PRIu32 " is more than %d", state->n_timers,
				 GCLK_TIMERS_MAX);
	}
	if (state->n_incompatible > GCLK_INCOMPATIBLE_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, "n_incompatible", GCLK_NO_OFFSET,
				 "%" PRIu32 " is more than %d", state->n_incompatible,
				 GCLK_INCOMPATIBLE_MAX);
	}
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		if (!memchr(state->incompatible[i], 0, sizeof(state->incompatible[i]))) {
			return gclk_fail(reterr, GCLK_RANGE, "incompatible", GCLK_NO_OFFSET,
					 "name %" PRIu32 " has no end", i);
		}
	}
	return 0;
}

/* What a device knows about itself beyond the ranges of its fields. */
static int validate_device(const struct gclk_record *record, const void *p,
			   struct gclk_error *reterr)
{
	if (record == &gclk_lapic_record) {
		return gclk_lapic_validate(p, reterr);
	}
	if (record == &gclk_pit_record) {
		return gclk_pit_validate(p, reterr);
	}
	if (record == &gclk_rtc_record) {
		return gclk_rtc_validate(p, reterr);
	}
	if (record == &gclk_hpet_record) {
		return gclk_hpet_validate(p, reterr);
	}
	if (record == &gclk_pm_timer_record) {
		return gclk_pm_timer_validate(p, reterr);
	}
	if (record == &gclk_i6300esb_record) {
		return gclk_i6300esb_validate(p, reterr);
	}
	return gclk_record_is_valid(record, p) ? 0 : -GCLK_RANGE;
}

static int validate_part(const struct gclk_state *state, const struct gclk_part *part,
			 struct gclk_error *reterr)
{
	uint32_t count;
	const char *p = gclk_state_part(state, part, &count);
	char path[64];
	int r;

	count = part->is_array ? count : 1;	/* records inside an absent one are looked at too */
	for (uint32_t i = 0; i < count; i++) {
		if (validate_device(part->record, p + (size_t)i * part->record->size, NULL) == 0) {
			continue;
		}
		if (part->is_array) {
			snprintf(path, sizeof(path), "%s[%" PRIu32 "]", part->name, i);
		} else {
			snprintf(path, sizeof(path), "%s", part->name);
		}
		r = gclk_record_validate(part->record, p + (size_t)i * part->record->size, path,
					 reterr);
		return r ? r : validate_device(part->record, p + (size_t)i * part->record->size,
					       reterr);
	}
	return 0;
}

/* Two records of one vCPU would be written one over the other. */
static int validate_vcpu_numbers(const struct gclk_state *state, const struct gclk_part *part,
				 struct gclk_error *reterr)
{
	uint8_t seen[GCLK_VCPUS_MAX / 8];
	uint32_t count;
	const char *p = gclk_state_part(state, part, &count);
	char path[64];
	int index;

	if (count < 2) {
		return 0;
	}
	memset(seen, 0, sizeof(seen));
	index = gclk_record_find(part->record, "vcpu");
	for (uint32_t i = 0; index >= 0 && i < count; i++, p += part->record->size) {
		uint64_t vcpu = gclk_record_get(p, &part->record->fields[index]);

		if (!gclk_record_has(p, part->record, (unsigned)index)) {
			continue;
		}
		if (seen[vcpu / 8] >> vcpu % 8 & 1) {
			snprintf(path, sizeof(path), "%s[%" PRIu32 "].vcpu", part->name, i);
			return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
					 "vCPU %" PRIu64 " stands there twice", vcpu);
		}
		seen[vcpu / 8] |= (uint8_t)(1u << vcpu % 8);
	}
	return 0;
}

GCLK_API int gclk_state_validate(const struct gclk_state *state, struct gclk_error *reterr)
{
	int r = validate_sizes(state, reterr);

	for (unsigned i = 0; r == 0 && i < gclk_n_parts; i++) {
		r = validate_part(state, &gclk_parts[i], reterr);
		if (r == 0 && gclk_parts[i].is_array) {
			r = validate_vcpu_numbers(state, &gclk_parts[i], reterr);
		}
	}
	return r;
}
