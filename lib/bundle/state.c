/* SPDX-License-Identifier: MIT */
/*
 * A state is packed without a tree of all of it: the bytes of a protobuf message
 * are the bytes of its pieces one after the other, so that a ClockState with one
 * single record at a time, built on the stack, gives them all.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "bundle/bind.h"
#include "bundle/memory.h"
#include "bundle/state.h"
#include "core/error.h"
#include "core/util.h"
#include "devices/state.h"

#define STATE (&guestclock__v1__clock_state__descriptor)

/* ---- the head: what is not a record ---- */

/* Kebab-case, as all names of features are; they are shown to people. */
static bool is_feature_name(const char *name)
{
	return name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

static void drop_names(Guestclock__V1__ClockState *message, ProtobufCAllocator *mem)
{
	for (size_t i = 0; i < message->n_incompatible; i++) {
		gclk_mem_free(mem, message->incompatible[i]);
	}
	gclk_mem_free(mem, message->incompatible);
	message->incompatible = NULL;
	message->n_incompatible = 0;
}

static bool add_names(Guestclock__V1__ClockState *message, const struct gclk_state *state,
		      ProtobufCAllocator *mem)
{
	size_t size = sizeof(state->incompatible[0]);

	if (state->n_incompatible == 0) {
		return true;
	}
	message->incompatible =
		gclk_mem_alloc(mem, state->n_incompatible * sizeof(*message->incompatible));
	if (!message->incompatible) {
		return false;
	}
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		message->incompatible[i] = gclk_mem_alloc(mem, size);
		if (!message->incompatible[i]) {
			return false;
		}
		memcpy(message->incompatible[i], state->incompatible[i], size);
		message->n_incompatible = i + 1;
	}
	return true;
}

static int put_head(Guestclock__V1__ClockState *message, const struct gclk_state *state,
		    ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		if (!is_feature_name(state->incompatible[i])) {
			return gclk_fail(reterr, GCLK_RANGE, "incompatible", GCLK_NO_OFFSET,
					 "name %" PRIu32 " is not in kebab-case", i);
		}
	}
	drop_names(message, mem);
	if (!add_names(message, state, mem)) {
		return gclk_fail(reterr, GCLK_NOMEM, "incompatible", GCLK_NO_OFFSET,
				 "out of memory");
	}
	message->has_n_vcpus = 1;
	message->n_vcpus = state->n_vcpus;
	message->has_timers_left_out = state->timers_left_out != 0;
	message->timers_left_out = state->timers_left_out;
	return 0;
}

static int get_names(struct gclk_state *state, const Guestclock__V1__ClockState *message,
		     struct gclk_error *reterr)
{
	if (message->n_incompatible > GCLK_INCOMPATIBLE_MAX) {
		return gclk_fail(reterr, GCLK_VERSION, "incompatible", GCLK_NO_OFFSET,
				 "the state needs %zu features, more than this release can name",
				 message->n_incompatible);
	}
	for (size_t i = 0; i < message->n_incompatible; i++) {
		const char *name = message->incompatible[i];

		if (!is_feature_name(name)) {
			return gclk_fail(reterr, GCLK_MALFORMED, "incompatible", GCLK_NO_OFFSET,
					 "name %zu is not in kebab-case", i);
		}
		if (strlen(name) >= sizeof(state->incompatible[i])) {
			return gclk_fail(reterr, GCLK_VERSION, "incompatible", GCLK_NO_OFFSET,
					 "name %zu is longer than this release can keep", i);
		}
		memcpy(state->incompatible[i], name, strlen(name) + 1);
	}
	state->n_incompatible = (uint32_t)message->n_incompatible;
	return 0;
}

/* ---- the parts ---- */

struct bound_part {
	const struct gclk_part *part;
	const ProtobufCFieldDescriptor *field;
	struct gclk_binding binding;
};

static int bind_part(struct bound_part *bound, const struct gclk_part *part,
		     struct gclk_error *reterr)
{
	bound->part = part;
	bound->field = protobuf_c_message_descriptor_get_field_by_name(STATE, part->name);
	if (!bound->field ||
	    !gclk_bind(&bound->binding, part->record, bound->field->descriptor)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, part->name, GCLK_NO_OFFSET,
				 "the schema has not all of its fields");
	}
	return 0;
}

/* As long as n_vcpus says; the other lists have a length of their own. */
static bool is_per_vcpu(const struct gclk_part *part)
{
	return part->is_array && part->record != &gclk_timer_record;
}

/*
 * A part's records, and how many of them there are to write: of a device, and of
 * the vCPUs, none when all are empty.
 */
static const char *part_records(const struct gclk_state *state, const struct gclk_part *part,
				uint32_t *ret_n)
{
	const char *records = gclk_state_part(state, part, ret_n);
	uint32_t n = part->is_array ? *ret_n : 1;

	if (part->is_array && !is_per_vcpu(part)) {
		return records;
	}
	*ret_n = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (!gclk_record_is_empty(part->record, records + (size_t)i * part->record->size)) {
			*ret_n = n;
			break;
		}
	}
	return records;
}

static void part_path(char *path, size_t size, const struct gclk_part *part, size_t i)
{
	if (part->is_array) {
		snprintf(path, size, "%s[%zu]", part->name, i);
	} else {
		snprintf(path, size, "%s", part->name);
	}
}

/* Message @i of a part, made if need be; NULL: no memory. */
static ProtobufCMessage *part_message(ProtobufCMessage *message, const struct bound_part *bound,
				      size_t i, ProtobufCAllocator *mem)
{
	const ProtobufCFieldDescriptor *field = bound->field;
	ProtobufCMessage *child;
	size_t n;

	if (bound->part->is_array) {
		return gclk_message_list(message, field, &n)[i];
	}
	child = gclk_message_child(message, field);
	if (!child) {
		child = gclk_message_new(field->descriptor, mem);
		gclk_message_set_child(message, field, child, mem);
	}
	return child;
}

static int put_record(ProtobufCMessage *message, const struct bound_part *bound, size_t i,
		      const void *base, size_t number, ProtobufCAllocator *mem,
		      struct gclk_error *reterr)
{
	ProtobufCMessage *child = part_message(message, bound, i, mem);
	char path[64];

	part_path(path, sizeof(path), bound->part, number);
	if (!child) {
		return gclk_fail(reterr, GCLK_NOMEM, path, GCLK_NO_OFFSET, "out of memory");
	}
	return gclk_message_from_record(&bound->binding, child, base, mem, path, reterr);
}

/* Removes a part's fields; a message that has more than them stays with the rest. */
static int remove_single(ProtobufCMessage *message, const struct bound_part *bound,
			 const void *empty, ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	ProtobufCMessage *child = gclk_message_child(message, bound->field);
	int r;

	if (!child) {
		return 0;
	}
	r = put_record(message, bound, 0, empty, 0, mem, reterr);
	if (r == 0 && protobuf_c_message_get_packed_size(child) == 0) {
		gclk_message_set_child(message, bound->field, NULL, mem);
	}
	return r;
}

static int put_part(ProtobufCMessage *message, const struct bound_part *bound,
		    const struct gclk_state *state, ProtobufCAllocator *mem,
		    struct gclk_error *reterr)
{
	const struct gclk_part *part = bound->part;
	uint32_t n;
	const char *records = part_records(state, part, &n);
	int r = 0;

	if (!part->is_array && n == 0) {
		return remove_single(message, bound, records, mem, reterr);
	}
	if (part->is_array && !gclk_message_resize(message, bound->field, n, mem)) {
		return gclk_fail(reterr, GCLK_NOMEM, part->name, GCLK_NO_OFFSET, "out of memory");
	}
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = put_record(message, bound, i, records + (size_t)i * part->record->size, i,
			       mem, reterr);
	}
	return r;
}

int gclk_message_from_state(Guestclock__V1__ClockState *message, const struct gclk_state *state,
			    ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	struct bound_part bound;
	int r = put_head(message, state, mem, reterr);

	for (unsigned i = 0; r == 0 && i < gclk_n_parts; i++) {
		r = bind_part(&bound, &gclk_parts[i], reterr);
		if (r == 0) {
			r = put_part(&message->base, &bound, state, mem, reterr);
		}
	}
	return r;
}

/* ---- back ---- */

uint32_t gclk_message_n_vcpus(const Guestclock__V1__ClockState *message)
{
	size_t n = GCLK_MAX(message->n_tsc, GCLK_MAX(message->n_vcpu, message->n_lapic));

	if (message->has_n_vcpus) {
		return GCLK_MAX(message->n_vcpus, 1);
	}
	return (uint32_t)GCLK_MIN(GCLK_MAX(n, 1), UINT32_MAX);
}

static int get_list(struct gclk_state *state, const ProtobufCMessage *message,
		    const struct bound_part *bound, struct gclk_error *reterr)
{
	const struct gclk_part *part = bound->part;
	uint32_t have, room = is_per_vcpu(part) ? state->n_vcpus : GCLK_TIMERS_MAX;
	char *records = gclk_state_part(state, part, &have);
	size_t n;
	ProtobufCMessage **list = gclk_message_list(message, bound->field, &n);
	char path[64];
	int r = 0;

	if (n > room) {
		return gclk_fail(reterr, GCLK_RANGE, part->name, GCLK_NO_OFFSET,
				 "%zu records where %" PRIu32 " are possible", n, room);
	}
	if (!is_per_vcpu(part)) {
		/* what an owner who has lowered n_timers left behind them */
		memset(records, 0, n * part->record->size);
		state->n_timers = (uint32_t)n;
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		part_path(path, sizeof(path), part, i);
		r = gclk_record_from_message(&bound->binding, records + i * part->record->size,
					     list[i], path, reterr);
	}
	return r;
}

static int get_part(struct gclk_state *state, const ProtobufCMessage *message,
		    const struct gclk_part *part, struct gclk_error *reterr)
{
	struct bound_part bound;
	const ProtobufCMessage *child;
	uint32_t n;
	int r = bind_part(&bound, part, reterr);

	if (r < 0) {
		return r;
	}
	if (part->is_array) {
		return get_list(state, message, &bound, reterr);
	}
	child = gclk_message_child(message, bound.field);
	if (!child) {
		return 0;
	}
	return gclk_record_from_message(&bound.binding, gclk_state_part(state, part, &n), child,
					part->name, reterr);
}

static int get_all(struct gclk_state *state, const Guestclock__V1__ClockState *message,
		   struct gclk_error *reterr)
{
	int r = get_names(state, message, reterr);

	state->timers_left_out = message->has_timers_left_out ? message->timers_left_out : 0;
	for (unsigned i = 0; r == 0 && i < gclk_n_parts; i++) {
		r = get_part(state, &message->base, &gclk_parts[i], reterr);
	}
	return r < 0 ? r : gclk_state_validate(state, reterr);
}

int gclk_state_from_message(struct gclk_state *state, const Guestclock__V1__ClockState *message,
			    struct gclk_error *reterr)
{
	uint32_t n = gclk_message_n_vcpus(message), room = gclk_state_capacity(state);
	int r;

	gclk_state_clear(state);
	if (n > room) {
		return gclk_fail(reterr, GCLK_RANGE, "n_vcpus", GCLK_NO_OFFSET,
				 "the bundle has %" PRIu32
				 " vCPUs, the state was made for %" PRIu32,
				 n, room);
	}
	state->n_vcpus = n;
	r = get_all(state, message, reterr);
	if (r < 0) {
		gclk_state_clear(state);
	}
	return r;
}

/* ---- without a tree ---- */

void gclk_sink_message(struct gclk_sink *sink, const ProtobufCMessage *message)
{
	size_t n = protobuf_c_message_get_packed_size(message);

	if (sink->n <= sink->size && n <= sink->size - sink->n) {
		protobuf_c_message_pack(message, sink->buf + sink->n);
	}
	sink->n += n;
}

static void sink_varint(struct gclk_sink *sink, uint64_t value)
{
	for (bool more = true; more; value >>= 7, sink->n++) {
		more = value > 0x7f;
		if (sink->n < sink->size) {
			sink->buf[sink->n] = (uint8_t)((value & 0x7f) | (more ? 0x80 : 0));
		}
	}
}

void gclk_sink_prefix(struct gclk_sink *sink, uint32_t field, size_t n)
{
	sink_varint(sink, (uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
	sink_varint(sink, n);
}

static int sink_head(struct gclk_sink *sink, const struct gclk_state *state,
		     struct gclk_error *reterr)
{
	Guestclock__V1__ClockState piece = GUESTCLOCK__V1__CLOCK_STATE__INIT;
	struct gclk_arena arena = { .used = 0 };
	ProtobufCAllocator mem = gclk_arena_allocator(&arena);
	int r = put_head(&piece, state, &mem, reterr);

	if (r == 0) {
		gclk_sink_message(sink, &piece.base);
	}
	return r;
}

static int sink_record(struct gclk_sink *sink, const struct bound_part *bound,
		       const void *base, size_t number, struct gclk_arena *arena,
		       struct gclk_error *reterr)
{
	Guestclock__V1__ClockState piece = GUESTCLOCK__V1__CLOCK_STATE__INIT;
	ProtobufCAllocator mem = gclk_arena_allocator(arena);
	int r;

	arena->used = 0;
	if (bound->part->is_array && !gclk_message_resize(&piece.base, bound->field, 1, &mem)) {
		return gclk_fail(reterr, GCLK_NOMEM, bound->part->name, GCLK_NO_OFFSET,
				 "the record does not fit into its arena");
	}
	r = put_record(&piece.base, bound, 0, base, number, &mem, reterr);
	if (r == 0) {
		gclk_sink_message(sink, &piece.base);
	}
	return r;
}

static int sink_part(struct gclk_sink *sink, const struct gclk_state *state,
		     const struct gclk_part *part, struct gclk_arena *arena,
		     struct gclk_error *reterr)
{
	struct bound_part bound;
	uint32_t n;
	const char *records = part_records(state, part, &n);
	int r = bind_part(&bound, part, reterr);

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = sink_record(sink, &bound, records + (size_t)i * part->record->size, i,
				arena, reterr);
	}
	return r;
}

int gclk_sink_state(struct gclk_sink *sink, const struct gclk_state *state,
		    struct gclk_error *reterr)
{
	struct gclk_arena arena;
	int r = sink_head(sink, state, reterr);

	for (unsigned i = 0; r == 0 && i < gclk_n_parts; i++) {
		r = sink_part(sink, state, &gclk_parts[i], &arena, reterr);
	}
	return r;
}
