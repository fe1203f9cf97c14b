/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "gclk-test.h"
#include "random-state.h"

static bool chance(unsigned percent)
{
	return gclk_random_below(100) < percent;
}

static void mark(void *base, const struct gclk_field *field)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	has |= UINT64_C(1) << field->index;
	memcpy(base, &has, sizeof(has));
}

static uint64_t named_value(const struct gclk_field *field)
{
	unsigned n = 0;
	uint64_t bits = 0;

	for (; field->names[n].name; n++) {
		bits |= field->names[n].value;
	}
	if (field->unit == GCLK_UNIT_HEX) {
		return gclk_random() & bits;
	}
	return field->names[gclk_random_below(n)].value;
}

/* Ends of the range come often. Signed ranges work too: the difference is unsigned. */
static uint64_t value_in_range(const struct gclk_field *field)
{
	uint64_t span = field->max - field->min;

	switch (gclk_random_below(8)) {
	case 0:
		return field->min;
	case 1:
		return field->max;
	default:
		return field->min + (span == UINT64_MAX ? gclk_random_bits()
							: gclk_random_below(span + 1));
	}
}

/* Characters of one to four bytes. */
static void random_text(char *text, size_t size, bool full)
{
	static const char *const letters[] = { "a", "Z", "/", "\"", "\\", "\x7f", "\n",
					       "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x95\x91" };
	size_t n = full ? size - 1 : gclk_random_below(size), used = 0;

	memset(text, 0, size);
	while (used < n) {
		const char *letter = letters[gclk_random_below(10)];
		size_t more = strlen(letter);

		letter = used + more > n ? "x" : letter;
		memcpy(text + used, letter, strlen(letter));
		used += strlen(letter);
	}
}

static void random_field(const struct gclk_field *field, void *base, bool full)
{
	unsigned char *at = (unsigned char *)base + field->offset;

	switch (field->type) {
	case GCLK_TYPE_STRING:
		random_text((char *)at, field->size, full);
		mark(base, field);
		break;
	case GCLK_TYPE_BYTES:
		for (unsigned i = 0; i < field->size; i++) {
			at[i] = (unsigned char)gclk_random();
		}
		mark(base, field);
		break;
	default:
		gclk_record_set(base, field,
				field->names ? named_value(field) : value_in_range(field));
	}
}

static unsigned sub_count(const struct gclk_subrecord *sub, const void *base)
{
	return sub->count_offset < 0 ? sub->max : *((const uint8_t *)base + sub->count_offset);
}

/* A record that says which one of its list it is. */
static void set_number(const struct gclk_record *record, void *base, const char *name,
		       uint32_t number)
{
	int index = gclk_record_find(record, name);

	if (index >= 0 && gclk_record_has(base, record, (unsigned)index)) {
		gclk_record_set(base, &record->fields[index], number);
	}
}

void random_record(const struct gclk_record *record, void *base, unsigned percent)
{
	memset(base, 0, record->size);
	for (unsigned i = 0; i < record->n_fields; i++) {
		if (chance(percent)) {
			random_field(&record->fields[i], base, percent == 100);
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned j = 0; j < sub_count(sub, base); j++) {
			char *at = (char *)base + sub->offset + j * sub->record->size;

			random_record(sub->record, at, percent);
			set_number(sub->record, at, "index", j);
		}
	}
}

static void random_part(struct gclk_state *state, const struct gclk_part *part,
			unsigned percent)
{
	uint32_t count;
	char *p = gclk_state_part(state, part, &count);
	uint32_t n = part->is_array ? count : 1;

	for (uint32_t i = 0; i < n; i++, p += part->record->size) {
		random_record(part->record, p, percent);
		set_number(part->record, p, "vcpu", i);
	}
}

/* ---- what devices demand beyond the ranges ---- */

static void unset(void *base, const struct gclk_field *field)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	has &= ~(UINT64_C(1) << field->index);
	memcpy(base, &has, sizeof(has));
	memset((char *)base + field->offset, 0, field->size);
}

/*
 * The field that an error names, wherever it stands in a record, gets another value
 * or none; one that is absent gets a value where @fill, for it may be demanded.
 */
static void redraw(const struct gclk_record *record, void *base, const char *name, bool fill)
{
	int index = gclk_record_find(record, name);

	if (index >= 0 && gclk_record_has(base, record, (unsigned)index) && chance(40)) {
		unset(base, &record->fields[index]);
	} else if (index >= 0 && (fill || gclk_record_has(base, record, (unsigned)index))) {
		random_field(&record->fields[index], base, false);
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned j = 0; j < sub->max; j++) {
			char *at = (char *)base + sub->offset + (size_t)j * sub->record->size;

			if (j < sub_count(sub, base)) {
				redraw(sub->record, at, name, fill);
			} else {
				memset(at, 0, sub->record->size);
			}
		}
	}
}

/* "hpet.timers[2].config" is the field config of the part hpet. */
static const struct gclk_part *part_of(const char *where)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		size_t n = strlen(gclk_parts[i].name);

		if (!strncmp(where, gclk_parts[i].name, n) && (where[n] == '.' || where[n] == '[')) {
			return &gclk_parts[i];
		}
	}
	return NULL;
}

/* Draws again what validation refuses; after many times the part goes. */
static void repair(struct gclk_state *state)
{
	struct gclk_error err;

	for (unsigned tries = 0; gclk_state_validate(state, &err) < 0; tries++) {
		const struct gclk_part *part = part_of(err.where);
		const char *name = strrchr(err.where, '.');
		uint32_t count;
		char *p;

		CU_ASSERT_FATAL(part != NULL && name != NULL);
		p = gclk_state_part(state, part, &count);
		count = part->is_array ? count : 1;
		for (uint32_t i = 0; i < count; i++, p += part->record->size) {
			if (tries % 200 == 199) {
				memset(p, 0, part->record->size);
			} else {
				redraw(part->record, p, name + 1, !part->is_array);
			}
		}
	}
}

void random_state(struct gclk_state *state, unsigned percent)
{
	gclk_state_clear(state);
	state->n_timers = (uint32_t)gclk_random_below(GCLK_TIMERS_MAX + 1);
	state->timers_left_out = chance(percent) ? (uint32_t)gclk_random_bits() : 0;
	state->n_incompatible = (uint32_t)gclk_random_below(GCLK_INCOMPATIBLE_MAX + 1);
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		memset(state->incompatible[i], 'a' + (int)i, sizeof(state->incompatible[i]) - 1);
	}
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		if (percent == 100 || chance(80)) {
			random_part(state, &gclk_parts[i], percent);
		}
	}
	repair(state);
}

bool records_equal(const struct gclk_record *record, const void *a, const void *b)
{
	const char *pa = a, *pb = b;

	if (memcmp(a, b, sizeof(uint64_t)) != 0) {
		printf("\n    %s: presence differs\n", record->name);
		return false;
	}
	for (unsigned i = 0; i < record->n_fields; i++) {
		const struct gclk_field *f = &record->fields[i];

		if (memcmp(pa + f->offset, pb + f->offset, f->size) != 0) {
			printf("\n    %s.%s differs\n", record->name, f->name);
			return false;
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned j = 0; j < sub->max; j++) {
			size_t at = sub->offset + (size_t)j * sub->record->size;

			if (!records_equal(sub->record, pa + at, pb + at)) {
				return false;
			}
		}
	}
	return true;
}

bool states_equal(const struct gclk_state *a, const struct gclk_state *b)
{
	if (a->n_vcpus != b->n_vcpus || a->n_timers != b->n_timers ||
	    a->timers_left_out != b->timers_left_out ||
	    a->n_incompatible != b->n_incompatible ||
	    memcmp(a->incompatible, b->incompatible, sizeof(a->incompatible)) != 0) {
		printf("\n    the heads differ\n");
		return false;
	}
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		uint32_t na, nb;
		const char *pa = gclk_state_part(a, part, &na);
		const char *pb = gclk_state_part(b, part, &nb);
		uint32_t n = part->is_array ? na : 1;

		for (uint32_t j = 0; j < n; j++) {
			size_t at = (size_t)j * part->record->size;

			if (na != nb || !records_equal(part->record, pa + at, pb + at)) {
				return false;
			}
		}
	}
	return true;
}

static unsigned count_in(const struct gclk_record *record, const void *base)
{
	uint64_t has;
	unsigned n;

	memcpy(&has, base, sizeof(has));
	n = (unsigned)__builtin_popcountll(has);
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned j = 0; j < sub->max; j++) {
			n += count_in(sub->record, (const char *)base + sub->offset +
							   (size_t)j * sub->record->size);
		}
	}
	return n;
}

unsigned count_fields(const struct gclk_state *state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < gclk_n_parts; i++) {
		uint32_t count;
		const char *p = gclk_state_part(state, &gclk_parts[i], &count);
		uint32_t all = gclk_parts[i].is_array ? count : 1;

		for (uint32_t j = 0; j < all; j++) {
			n += count_in(gclk_parts[i].record, p + (size_t)j * gclk_parts[i].record->size);
		}
	}
	return n;
}
