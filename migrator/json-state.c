/* SPDX-License-Identifier: MIT */
/* Records to JSON. Reading is in json-read.c. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/time.h"
#include "migrator/json-state.h"

#define NAME_BYTES 80

/* Takes @value. False, for good, once memory was short. */
static bool put(struct json_object *map, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(map, key, value) == 0) {
		return true;
	}
	json_object_put(value);
	return false;
}

static bool append(struct json_object *list, struct json_object *value)
{
	if (value && json_object_array_add(list, value) == 0) {
		return true;
	}
	json_object_put(value);
	return false;
}

static struct json_object *decimal(uint64_t value, bool is_signed)
{
	char text[24];

	if (is_signed) {
		snprintf(text, sizeof(text), "%" PRId64, (int64_t)value);
	} else {
		snprintf(text, sizeof(text), "%" PRIu64, value);
	}
	return json_object_new_string(text);
}

static struct json_object *base64(const unsigned char *p, size_t n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((n + 2) / 3 * 4 + 1), *to = text;
	struct json_object *value;

	if (!text) {
		return NULL;
	}
	for (size_t i = 0; i < n; i += 3) {
		uint32_t b = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
			     (i + 2 < n ? p[i + 2] : 0);

		*to++ = digits[b >> 18];
		*to++ = digits[b >> 12 & 63];
		*to++ = i + 1 < n ? digits[b >> 6 & 63] : '=';
		*to++ = i + 2 < n ? digits[b & 63] : '=';
	}
	value = json_object_new_string_len(text, (int)(to - text));
	free(text);
	return value;
}

static struct json_object *number(const struct gclk_field *field, uint64_t value)
{
	switch (field->type) {
	case GCLK_TYPE_u64:
		return decimal(value, false);
	case GCLK_TYPE_i64:
		return decimal(value, true);
	default:
		return json_object_new_int64((int64_t)value);
	}
}

static struct json_object *enum_value(const struct gclk_field *field, uint64_t value)
{
	for (const struct gclk_name *n = field->names; n->name; n++) {
		if (n->value == value) {
			return json_object_new_string(n->name);
		}
	}
	return number(field, value);
}

static struct json_object *field_value(const struct gclk_field *field, const void *base)
{
	const char *at = (const char *)base + field->offset;
	uint64_t value;

	switch (field->type) {
	case GCLK_TYPE_STRING:
		return json_object_new_string_len(at, (int)strnlen(at, field->size));
	case GCLK_TYPE_BYTES:
		return base64((const unsigned char *)at, field->size);
	default:
		value = gclk_record_get(base, field);
	}
	if (field->unit == GCLK_UNIT_BOOL && value <= 1) {
		return json_object_new_boolean(value == 1);
	}
	return field->unit == GCLK_UNIT_ENUM ? enum_value(field, value) : number(field, value);
}

/* The names of the single bits that are set. */
static bool put_bit_names(struct json_object *map, const struct gclk_field *field,
			  uint64_t value)
{
	struct json_object *list = json_object_new_array();
	char key[NAME_BYTES];
	bool good = list != NULL;

	for (const struct gclk_name *n = field->names; good && n->name; n++) {
		if ((n->value & (n->value - 1)) == 0 && (value & n->value)) {
			good = append(list, json_object_new_string(n->name));
		}
	}
	snprintf(key, sizeof(key), "%s_names", field->name);
	if (!good) {
		json_object_put(list);
		return false;
	}
	return put(map, key, list);
}

/* Real time: always, or as the record's own axis says; a timer that is off has none. */
static bool is_real_time(const struct gclk_record *record, const struct gclk_field *field,
			 const void *base, uint64_t value)
{
	int axis = gclk_record_find(record, "axis");

	if (field->unit == GCLK_UNIT_REALTIME_NS) {
		return field->type == GCLK_TYPE_i64 || value <= INT64_MAX;
	}
	return field->unit == GCLK_UNIT_AXIS_NS && (int64_t)value >= 0 && axis >= 0 &&
	       gclk_record_has(base, record, (unsigned)axis) &&
	       gclk_record_get(base, &record->fields[axis]) == GCLK_AXIS_REALTIME;
}

static bool put_rfc3339(struct json_object *map, const struct gclk_field *field, uint64_t value)
{
	char key[NAME_BYTES], text[GCLK_REAL_TEXT_BYTES];
	size_t n = strlen(field->name);

	n -= n > 3 && !strcmp(field->name + n - 3, "_ns") ? 3 : 0;
	snprintf(key, sizeof(key), "%.*s_rfc3339", (int)n, field->name);
	gclk_real_format(gclk_real_of_ns((int64_t)value), text);
	return put(map, key, json_object_new_string(text));
}

static bool put_field(struct json_object *map, const struct gclk_record *record,
		      const struct gclk_field *field, const void *base)
{
	uint64_t value = gclk_record_get(base, field);

	if (!put(map, field->name, field_value(field, base))) {
		return false;
	}
	if (field->names && field->unit == GCLK_UNIT_HEX) {
		return put_bit_names(map, field, value);
	}
	return !is_real_time(record, field, base, value) || put_rfc3339(map, field, value);
}

/* ---- records in records ---- */

static bool is_count(const struct gclk_record *record, const struct gclk_field *field)
{
	for (unsigned i = 0; i < record->n_subs; i++) {
		if (record->subs[i].count_offset == field->offset) {
			return true;
		}
	}
	return false;
}

static bool has_any(const void *base)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	return has != 0;
}

/* A record's list is as long as its count, or has all or none of its elements. */
static unsigned list_length(const struct gclk_subrecord *sub, const void *base)
{
	const char *at = (const char *)base + sub->offset;
	unsigned n;

	if (sub->count_offset >= 0) {
		n = ((const uint8_t *)base)[sub->count_offset];
		return n < sub->max ? n : sub->max;
	}
	if (has_any(base)) {
		return sub->max;
	}
	for (unsigned i = 0; i < sub->max; i++) {
		if (has_any(at + (size_t)i * sub->record->size)) {
			return sub->max;
		}
	}
	return 0;
}

static struct json_object *list_of(const struct gclk_record *record, const char *first, size_t n)
{
	struct json_object *list = json_object_new_array();
	bool good = list != NULL;

	for (size_t i = 0; good && i < n; i++) {
		good = append(list, json_from_record(record, first + i * record->size));
	}
	if (!good) {
		json_object_put(list);
		return NULL;
	}
	return list;
}

static bool put_subs(struct json_object *map, const struct gclk_subrecord *sub,
		     const void *base)
{
	unsigned n = list_length(sub, base);

	return n == 0 ||
	       put(map, sub->name, list_of(sub->record, (const char *)base + sub->offset, n));
}

struct json_object *json_from_record(const struct gclk_record *record, const void *base)
{
	struct json_object *map = json_object_new_object();
	bool good = map != NULL;

	for (unsigned i = 0; good && i < record->n_fields; i++) {
		if (gclk_record_has(base, record, i) && !is_count(record, &record->fields[i])) {
			good = put_field(map, record, &record->fields[i], base);
		}
	}
	for (unsigned i = 0; good && i < record->n_subs; i++) {
		good = put_subs(map, &record->subs[i], base);
	}
	if (!good) {
		json_object_put(map);
		return NULL;
	}
	return map;
}

/* ---- states ---- */

static bool put_head(struct json_object *map, const struct gclk_state *state)
{
	struct json_object *names;
	bool good = put(map, "n_vcpus", json_object_new_int64(state->n_vcpus));

	if (good && state->timers_left_out > 0) {
		good = put(map, "timers_left_out", json_object_new_int64(state->timers_left_out));
	}
	if (!good || state->n_incompatible == 0) {
		return good;
	}
	names = json_object_new_array();
	good = put(map, "incompatible", names);
	for (uint32_t i = 0; good && i < state->n_incompatible; i++) {
		good = append(names, json_object_new_string(state->incompatible[i]));
	}
	return good;
}

/* The vCPUs' lists have an element for each of them, or are not there at all. */
static bool put_list(struct json_object *map, const struct gclk_part *part, const char *records,
		     uint32_t n)
{
	bool wanted = part->record == &gclk_timer_record && n > 0;

	for (uint32_t i = 0; !wanted && i < n; i++) {
		wanted = has_any(records + (size_t)i * part->record->size);
	}
	return !wanted || put(map, part->name, list_of(part->record, records, n));
}

static bool put_part(struct json_object *map, const struct gclk_state *state,
		     const struct gclk_part *part)
{
	uint32_t n;
	const char *records = gclk_state_part(state, part, &n);
	struct json_object *value;

	if (part->is_array) {
		return put_list(map, part, records, n);
	}
	value = json_from_record(part->record, records);
	if (value && json_object_object_length(value) == 0) {
		json_object_put(value);
		return true;
	}
	return put(map, part->name, value);
}

struct json_object *json_from_state(const struct gclk_state *state)
{
	struct json_object *map = json_object_new_object();
	bool good = map && put_head(map, state);

	for (unsigned i = 0; good && i < gclk_n_parts; i++) {
		good = put_part(map, state, &gclk_parts[i]);
	}
	if (!good) {
		json_object_put(map);
		return NULL;
	}
	return map;
}

/* ---- bundles ---- */

static int no_memory(struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory for the JSON");
}

static int put_state(struct json_object *map, const struct gclk_bundle *bundle,
		     struct gclk_error *reterr)
{
	uint32_t n = gclk_bundle_n_vcpus(bundle);
	struct gclk_state *state;
	int r;

	if (n == 0) {
		return 0;
	}
	state = gclk_state_new(n);
	if (!state) {
		return gclk_fail(reterr, n > GCLK_VCPUS_MAX ? GCLK_RANGE : GCLK_NOMEM, "n_vcpus",
				 GCLK_NO_OFFSET, "no state for %" PRIu32 " vCPUs", n);
	}
	r = gclk_bundle_state(bundle, state, reterr);
	if (r == 0 && !put(map, "state", json_from_state(state))) {
		r = no_memory(reterr);
	}
	gclk_state_free(state);
	return r;
}

/* @found is what reading the record returned. */
static int put_record(struct json_object *map, const char *name, int found,
		      const struct gclk_record *record, const void *base,
		      struct gclk_error *reterr)
{
	if (found < 0) {
		return found;
	}
	if (found == GCLK_BUNDLE_ABSENT || put(map, name, json_from_record(record, base))) {
		return 0;
	}
	return no_memory(reterr);
}

static int put_records(struct json_object *map, const struct gclk_bundle *bundle,
		       struct gclk_error *reterr)
{
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;
	int r = put_record(map, "provenance", gclk_bundle_provenance(bundle, &provenance, reterr),
			   &gclk_provenance_record, &provenance, reterr);

	if (r == 0) {
		r = put_record(map, "host", gclk_bundle_host(bundle, &host, reterr),
			       &gclk_host_record, &host, reterr);
	}
	if (r == 0) {
		r = put_record(map, "rewrite", gclk_bundle_rewrite(bundle, &rewrite, reterr),
			       &gclk_rewrite_record, &rewrite, reterr);
	}
	return r;
}

int json_from_bundle(const struct gclk_bundle *bundle, struct json_object **ret,
		     struct gclk_error *reterr)
{
	struct json_object *map = json_object_new_object();
	int r = 0;

	if (!map || !put(map, "schema", json_object_new_string("guestclock.v1")) ||
	    !put(map, "format", json_object_new_string("bundle"))) {
		r = no_memory(reterr);
	}
	if (r == 0) {
		r = put_records(map, bundle, reterr);
	}
	if (r == 0) {
		r = put_state(map, bundle, reterr);
	}
	if (r < 0) {
		json_object_put(map);
		return r;
	}
	*ret = map;
	return 0;
}
