/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "migrator/diff.h"
#include "migrator/message.h"
#include "migrator/text.h"

int change_has(const struct change *change, const void *side)
{
	return side && gclk_record_has(side, change->record, change->field->index);
}

static int is_signed(const struct gclk_field *field)
{
	return field->type == GCLK_TYPE_i32 || field->type == GCLK_TYPE_i64;
}

static int same_value(const struct gclk_field *field, const void *a, const void *b)
{
	const char *x = (const char *)a + field->offset,
		   *y = (const char *)b + field->offset;

	if (field->type == GCLK_TYPE_STRING) {
		return !strncmp(x, y, field->size);
	}
	return !memcmp(x, y, field->size);
}

static void add(struct changes *out, const struct change *change)
{
	if (out->n == out->max) {
		unsigned max = out->max ? 2 * out->max : 64;
		struct change *more = realloc(out->items, max * sizeof(*more));

		if (!more) {
			out->no_memory = 1;
			return;
		}
		out->items = more;
		out->max = max;
	}
	out->items[out->n++] = *change;
}

/* Either record may be NULL. */
static void diff_record(const struct gclk_record *record, const void *a, const void *b,
			const char *clock, struct changes *out)
{
	struct change change = { .record = record, .a = a, .b = b };

	snprintf(change.clock, sizeof(change.clock), "%s", clock);
	for (unsigned i = 0; i < record->n_fields; i++) {
		int has_a, has_b;

		change.field = &record->fields[i];
		has_a = change_has(&change, a);
		has_b = change_has(&change, b);
		if (has_a != has_b || (has_a && !same_value(change.field, a, b))) {
			add(out, &change);
		}
	}
}

/* How many subrecords of a kind a record has; none where it is not there. */
static unsigned sub_count(const struct gclk_subrecord *sub, const void *base)
{
	if (!base) {
		return 0;
	}
	if (sub->count_offset < 0) {
		return sub->max;
	}
	return GCLK_MIN(((const uint8_t *)base)[sub->count_offset], sub->max);
}

static const void *sub_at(const struct gclk_subrecord *sub, const void *base, unsigned i)
{
	return i < sub_count(sub, base)
		       ? (const char *)base + sub->offset + (size_t)i * sub->record->size
		       : NULL;
}

static void diff_tree(const struct gclk_record *record, const void *a, const void *b,
		      const char *clock, struct changes *out)
{
	diff_record(record, a, b, clock, out);
	for (unsigned s = 0; s < record->n_subs; s++) {
		const struct gclk_subrecord *sub = &record->subs[s];
		unsigned n = GCLK_MAX(sub_count(sub, a), sub_count(sub, b));

		for (unsigned i = 0; i < n; i++) {
			char name[64];

			snprintf(name, sizeof(name), "%.36s.%.12s[%u]", clock, sub->name,
				 i);
			diff_record(sub->record, sub_at(sub, a, i), sub_at(sub, b, i),
				    name, out);
		}
	}
}

static void diff_part(const struct gclk_part *part, const struct gclk_state *a,
		      const struct gclk_state *b, struct changes *out)
{
	uint32_t n_a, n_b;
	const char *p = gclk_state_part(a, part, &n_a),
		   *q = gclk_state_part(b, part, &n_b);
	char clock[64];

	for (uint32_t i = 0; i < GCLK_MAX(n_a, n_b); i++) {
		size_t at = (size_t)i * part->record->size;

		if (part->is_array) {
			snprintf(clock, sizeof(clock), "%s[%" PRIu32 "]", part->name, i);
		} else {
			snprintf(clock, sizeof(clock), "%s", part->name);
		}
		diff_tree(part->record, i < n_a ? p + at : NULL, i < n_b ? q + at : NULL,
			  clock, out);
	}
}

int diff_states(const struct gclk_state *a, const struct gclk_state *b,
		struct changes *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		diff_part(&gclk_parts[i], a, b, ret);
	}
	if (ret->no_memory) {
		changes_free(ret);
		return GCLK_NOMEM;
	}
	return 0;
}

void changes_free(struct changes *changes)
{
	free(changes->items);
	memset(changes, 0, sizeof(*changes));
}

const char *unit_name(unsigned unit)
{
	static const char *const names[] = {
		[GCLK_UNIT_NONE] = "",		 [GCLK_UNIT_NS] = "ns",
		[GCLK_UNIT_SECONDS] = "s",	 [GCLK_UNIT_FS] = "fs",
		[GCLK_UNIT_REALTIME_NS] = "ns",	 [GCLK_UNIT_GUEST_NS] = "ns",
		[GCLK_UNIT_AXIS_NS] = "ns",	 [GCLK_UNIT_HZ] = "hz",
		[GCLK_UNIT_KHZ] = "khz",	 [GCLK_UNIT_PPB] = "ppb",
		[GCLK_UNIT_PPM] = "ppm",	 [GCLK_UNIT_TICKS] = "ticks",
		[GCLK_UNIT_COUNT] = "",		 [GCLK_UNIT_BITS] = "bits",
		[GCLK_UNIT_ADDRESS] = "address", [GCLK_UNIT_BOOL] = "bool",
		[GCLK_UNIT_ENUM] = "enum",	 [GCLK_UNIT_HEX] = "register",
	};

	return unit < GCLK_COUNT(names) ? names[unit] : "";
}

static int has_delta(const struct gclk_field *field)
{
	return field->type != GCLK_TYPE_BYTES && field->type != GCLK_TYPE_STRING &&
	       !field->names && field->unit != GCLK_UNIT_HEX &&
	       field->unit != GCLK_UNIT_ADDRESS;
}

/* Decimal text of a 65-bit difference. */
static void wide_text(gclk_i128 n, char to[48])
{
	gclk_u128 magnitude = n < 0 ? (gclk_u128)-n : (gclk_u128)n;
	const uint64_t billion = UINT64_C(1000000000000000000);
	uint64_t high = (uint64_t)(magnitude / billion),
		 low = (uint64_t)(magnitude % billion);

	if (high) {
		snprintf(to, 48, "%s%" PRIu64 "%018" PRIu64, n < 0 ? "-" : "", high, low);
	} else {
		snprintf(to, 48, "%s%" PRIu64, n < 0 ? "-" : "", low);
	}
}

int change_delta(const struct change *change, char to[48])
{
	const struct gclk_field *field = change->field;
	uint64_t a, b;

	if (!has_delta(field) || !change_has(change, change->a) ||
	    !change_has(change, change->b)) {
		return 0;
	}
	a = gclk_record_get(change->a, field);
	b = gclk_record_get(change->b, field);
	if (field->type == GCLK_TYPE_u64 && field->unit == GCLK_UNIT_TICKS) {
		wide_text((int64_t)(b - a), to);
	} else if (is_signed(field)) {
		wide_text((gclk_i128)(int64_t)b - (int64_t)a, to);
	} else {
		wide_text((gclk_i128)b - (gclk_i128)a, to);
	}
	return 1;
}

static void bytes_text(const unsigned char *bytes, size_t n, char *to, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < n && used + 3 < size; i++) {
		used += (size_t)snprintf(to + used, size - used, "%02x", bytes[i]);
	}
}

/* The names of the bits that are set, with their value where they are wider than one. */
static void bits_text(const struct gclk_field *field, uint64_t value, char *to,
		      size_t size)
{
	size_t used = (size_t)snprintf(to, size, "0x%" PRIx64, value);

	for (const struct gclk_name *n = field->names; n->name && used < size; n++) {
		if (!(value & n->value)) {
			continue;
		}
		used += (size_t)snprintf(to + used, size - used, " %s", n->name);
		if (n->value & (n->value - 1) && used < size) {
			used += (size_t)snprintf(to + used, size - used, "=0x%" PRIx64,
						 (value & n->value) >>
							 __builtin_ctzll(n->value));
		}
	}
}

static void name_text(const struct gclk_field *field, uint64_t value, char *to,
		      size_t size)
{
	for (const struct gclk_name *n = field->names; n->name; n++) {
		if (n->value == value) {
			snprintf(to, size, "%s", n->name);
			return;
		}
	}
	snprintf(to, size, "%" PRIu64, value);
}

void value_text(const struct gclk_field *field, const void *record, char *to, size_t size)
{
	const unsigned char *p = (const unsigned char *)record + field->offset;
	char number[TEXT_BYTES];
	uint64_t value;

	if (field->type == GCLK_TYPE_STRING) {
		clean_text(to, size, (const char *)p);
		return;
	}
	if (field->type == GCLK_TYPE_BYTES) {
		bytes_text(p, field->size, to, size);
		return;
	}
	value = gclk_record_get(record, field);
	if (field->names && field->unit == GCLK_UNIT_HEX) {
		bits_text(field, value, to, size);
	} else if (field->names) {
		name_text(field, value, to, size);
	} else if (field->unit == GCLK_UNIT_HEX || field->unit == GCLK_UNIT_ADDRESS) {
		snprintf(to, size, "0x%" PRIx64, value);
	} else if (is_signed(field) && (int64_t)value < 0) {
		snprintf(to, size, "%s", text_signed(number, (int64_t)value));
	} else {
		snprintf(to, size, "%s", text_count(number, value));
	}
}
