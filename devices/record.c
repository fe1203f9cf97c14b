/* SPDX-License-Identifier: MIT */
/* Records seen through their field tables: one piece of code for every struct. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <guestclock/record.h>

#include "core/error.h"
#include "core/util.h"
#include "devices/allow.h"

#define PATH_MAX_BYTES 96

static bool is_signed(const struct gclk_field *field)
{
	return field->type == GCLK_TYPE_i32 || field->type == GCLK_TYPE_i64;
}

GCLK_API uint64_t gclk_record_get(const void *base, const struct gclk_field *field)
{
	const unsigned char *p = (const unsigned char *)base + field->offset;
	union {
		uint8_t u8;
		uint16_t u16;
		uint32_t u32;
		int32_t i32;
		uint64_t u64;
	} v = { 0 };

	switch (field->type) {
	case GCLK_TYPE_u8:
		return *p;
	case GCLK_TYPE_u16:
		memcpy(&v.u16, p, sizeof(v.u16));
		return v.u16;
	case GCLK_TYPE_u32:
		memcpy(&v.u32, p, sizeof(v.u32));
		return v.u32;
	case GCLK_TYPE_i32:
		memcpy(&v.i32, p, sizeof(v.i32));
		return (uint64_t)(int64_t)v.i32;
	case GCLK_TYPE_u64:
	case GCLK_TYPE_i64:
		memcpy(&v.u64, p, sizeof(v.u64));
		return v.u64;
	default:
		return 0;
	}
}

static void set_has(void *base, unsigned bit)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	has |= UINT64_C(1) << bit;
	memcpy(base, &has, sizeof(has));
}

GCLK_API void gclk_record_set(void *base, const struct gclk_field *field, uint64_t value)
{
	unsigned char *p = (unsigned char *)base + field->offset;
	uint8_t u8 = (uint8_t)value;
	uint16_t u16 = (uint16_t)value;
	uint32_t u32 = (uint32_t)value;

	switch (field->type) {
	case GCLK_TYPE_u8:
		memcpy(p, &u8, sizeof(u8));
		break;
	case GCLK_TYPE_u16:
		memcpy(p, &u16, sizeof(u16));
		break;
	case GCLK_TYPE_u32:
	case GCLK_TYPE_i32:
		memcpy(p, &u32, sizeof(u32));
		break;
	case GCLK_TYPE_u64:
	case GCLK_TYPE_i64:
		memcpy(p, &value, sizeof(value));
		break;
	default:
		return;
	}
	set_has(base, field->index);
}

static uint64_t presence(const void *base)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	return has;
}

GCLK_API int gclk_record_has(const void *base, const struct gclk_record *record,
			     unsigned field)
{
	return field < record->n_fields && (presence(base) >> field & 1);
}

GCLK_API int gclk_record_find(const struct gclk_record *record, const char *name)
{
	for (unsigned i = 0; i < record->n_fields; i++) {
		if (!strcmp(record->fields[i].name, name)) {
			return (int)i;
		}
	}
	return -1;
}

static bool names_allow(const struct gclk_field *field, uint64_t value)
{
	return field->unit == GCLK_UNIT_HEX ? gclk_names_cover(field->names, value) :
					      gclk_names_have(field->names, value);
}

static bool range_allows(const struct gclk_field *field, uint64_t value)
{
	return is_signed(field) ? gclk_within_signed((int64_t)value, field->min, field->max) :
				  gclk_within(value, field->min, field->max);
}

static int refuse(const struct gclk_field *field, uint64_t value, const char *path,
		  struct gclk_error *reterr)
{
	char where[PATH_MAX_BYTES];

	snprintf(where, sizeof(where), "%s%s%s", path, *path ? "." : "", field->name);
	if (field->names) {
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "the value 0x%" PRIx64 " has no meaning here", value);
	}
	if (is_signed(field)) {
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "%" PRId64 " is not within %" PRId64 "..%" PRId64,
				 (int64_t)value, (int64_t)field->min, (int64_t)field->max);
	}
	return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
			 "%" PRIu64 " is not within %" PRIu64 "..%" PRIu64, value, field->min,
			 field->max);
}

static int validate_field(const struct gclk_field *field, const void *base, const char *path,
			  struct gclk_error *reterr)
{
	const char *text = (const char *)base + field->offset;
	char where[PATH_MAX_BYTES];
	uint64_t value;

	if (field->type == GCLK_TYPE_BYTES) {
		return 0;
	}
	if (field->type == GCLK_TYPE_STRING) {
		if (memchr(text, 0, field->size)) {
			return 0;
		}
		snprintf(where, sizeof(where), "%s%s%s", path, *path ? "." : "", field->name);
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "the text has no end within %u bytes", field->size);
	}
	value = gclk_record_get(base, field);
	if (field->names ? names_allow(field, value) : range_allows(field, value)) {
		return 0;
	}
	return refuse(field, value, path, reterr);
}

/* The quick way: the text of a refusal is made only when there is one. */
static bool is_valid(const struct gclk_record *record, const void *base)
{
	const unsigned char *p = (const unsigned char *)base;

	if (!record->holds(base)) {
		return false;
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];
		unsigned count = sub->count_offset < 0 ? sub->max : p[sub->count_offset];

		for (unsigned n = 0; n < count; n++) {
			if (n >= sub->max ||
			    !is_valid(sub->record, p + sub->offset + (size_t)n * sub->record->size)) {
				return false;
			}
		}
	}
	return true;
}

GCLK_API int gclk_record_is_valid(const struct gclk_record *record, const void *base)
{
	return is_valid(record, base);
}

static int validate_subrecords(const struct gclk_subrecord *sub, const void *base,
			       const char *path, struct gclk_error *reterr)
{
	const unsigned char *p = (const unsigned char *)base;
	unsigned count = sub->count_offset < 0 ? sub->max : p[sub->count_offset];
	char where[PATH_MAX_BYTES];
	int r;

	if (count > sub->max) {
		snprintf(where, sizeof(where), "%s.%s", path, sub->name);
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "%u of them, at most %u are possible", count, sub->max);
	}
	for (unsigned i = 0; i < count; i++) {
		snprintf(where, sizeof(where), "%s%s%s[%u]", path, *path ? "." : "",
			 sub->name, i);
		r = gclk_record_validate(sub->record,
					 p + sub->offset + (size_t)i * sub->record->size,
					 where, reterr);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

GCLK_API int gclk_record_validate(const struct gclk_record *record, const void *base,
				  const char *path, struct gclk_error *reterr)
{
	uint64_t has = presence(base);
	int r;

	if (is_valid(record, base)) {
		return 0;
	}
	if (record->n_fields < 64 && has >> record->n_fields) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "presence bits 0x%" PRIx64 " name fields that do not exist",
				 has);
	}
	for (unsigned i = 0; i < record->n_fields; i++) {
		if (!(has >> i & 1)) {
			continue;
		}
		r = validate_field(&record->fields[i], base, path, reterr);
		if (r < 0) {
			return r;
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		r = validate_subrecords(&record->subs[i], base, path, reterr);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}
