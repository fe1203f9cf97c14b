/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <guestclock/state.h>

#include "core/util.h"
#include "gclk-test.h"

static const struct gclk_record *const records[] = {
#define ONE(R, LIST) &gclk_##R##_record,
	GCLK_RECORDS(ONE)
#undef ONE
};

static bool is_number(const struct gclk_field *f)
{
	return f->type != GCLK_TYPE_BYTES && f->type != GCLK_TYPE_STRING;
}

static bool is_signed(const struct gclk_field *f)
{
	return f->type == GCLK_TYPE_i32 || f->type == GCLK_TYPE_i64;
}

static uint64_t largest(const struct gclk_field *f)
{
	uint64_t all = f->size >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * f->size) - 1;

	return is_signed(f) ? all >> 1 : all;
}

/* A value that the row allows. */
static uint64_t allowed(const struct gclk_field *f)
{
	return f->names ? f->names[0].value : f->min;
}

static union {
	uint64_t has;
	unsigned char bytes[32768];
} buffer;

GCLK_TEST(record, rows_tile_their_struct)
{
	for (unsigned i = 0; i < GCLK_COUNT(records); i++) {
		const struct gclk_record *r = records[i];
		unsigned end = sizeof(uint64_t);

		CU_ASSERT(r->size <= sizeof(buffer));
		for (unsigned j = 0; j < r->n_fields; j++) {
			const struct gclk_field *f = &r->fields[j];

			GCLK_EQ(f->index, j);
			CU_ASSERT(f->offset >= end && f->offset - end < 8);
			CU_ASSERT(f->doc[0] != 0);
			GCLK_EQ(gclk_record_find(r, f->name), j);
			end = f->offset + f->size;
		}
		CU_ASSERT(end <= r->size);
		GCLK_EQ(gclk_record_find(r, "no such field"), -1);
		GCLK_EQ(gclk_record_has(&buffer, r, r->n_fields), 0);
	}
}

GCLK_TEST(record, set_then_get_is_identity_and_touches_nothing_else)
{
	for (unsigned i = 0; i < GCLK_COUNT(records); i++) {
		for (unsigned j = 0; j < records[i]->n_fields; j++) {
			const struct gclk_field *f = &records[i]->fields[j];
			uint64_t value = gclk_random() & largest(f);
			unsigned touched = 0;

			if (!is_number(f)) {
				continue;
			}
			memset(&buffer, 0, sizeof(buffer));
			gclk_record_set(&buffer, f, value);
			GCLK_EQ(gclk_record_get(&buffer, f), value);
			GCLK_EQ(buffer.has, UINT64_C(1) << j);
			CU_ASSERT(gclk_record_has(&buffer, records[i], j));
			for (unsigned k = sizeof(uint64_t); k < records[i]->size; k++) {
				touched += buffer.bytes[k] &&
					   (k < f->offset || k >= f->offset + f->size);
			}
			GCLK_EQ(touched, 0);
			if (is_signed(f)) {
				gclk_record_set(&buffer, f, (uint64_t)-5);
				GCLK_EQ(gclk_record_get(&buffer, f), -5);
			}
		}
	}
}

static void refused(const struct gclk_record *r, const struct gclk_field *f, uint64_t value)
{
	struct gclk_error error = { 0 };
	char where[160];

	memset(&buffer, 0, sizeof(buffer));
	gclk_record_set(&buffer, f, value);
	GCLK_EQ(gclk_record_validate(r, &buffer, "x", &error), -GCLK_RANGE);
	snprintf(where, sizeof(where), "x.%s", f->name);
	CU_ASSERT_STRING_EQUAL(error.where, where);
}

GCLK_TEST(record, each_field_out_of_range_is_refused_by_name)
{
	unsigned n_refused = 0;

	for (unsigned i = 0; i < GCLK_COUNT(records); i++) {
		for (unsigned j = 0; j < records[i]->n_fields; j++) {
			const struct gclk_field *f = &records[i]->fields[j];
			uint64_t bits = 0;

			if (!is_number(f)) {
				continue;
			}
			memset(&buffer, 0, sizeof(buffer));
			gclk_record_set(&buffer, f, allowed(f));
			GCLK_EQ(gclk_record_validate(records[i], &buffer, "x", NULL), 0);
			for (const struct gclk_name *n = f->names; n && n->name; n++) {
				bits |= n->value;
			}
			if (f->names && f->unit == GCLK_UNIT_HEX) {
				if (~bits & largest(f)) {
					refused(records[i], f, ~bits & largest(f));
					n_refused++;
				}
			} else if (f->names) {
				refused(records[i], f, largest(f));
				n_refused++;
			} else {
				if (f->max < largest(f)) {
					refused(records[i], f, f->max + 1);
					n_refused++;
				}
				if (f->min != (is_signed(f) ? ~largest(f) : 0) &&
				    (f->type != GCLK_TYPE_i64 || f->min != (uint64_t)INT64_MIN)) {
					refused(records[i], f, f->min - 1);
					n_refused++;
				}
			}
		}
	}
	CU_ASSERT(n_refused > 50);
}

GCLK_TEST(record, a_text_must_end_and_bits_must_have_rows)
{
	struct gclk_guest guest = { 0 };
	struct gclk_error error = { 0 };

	memset(guest.machine, 'x', sizeof(guest.machine));
	GCLK_EQ(gclk_record_validate(&gclk_guest_record, &guest, "guest", &error), 0);
	guest.has = GCLK_BIT(guest, machine);
	GCLK_EQ(gclk_record_validate(&gclk_guest_record, &guest, "guest", &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "guest.machine");
	guest.has = UINT64_C(1) << 63;
	GCLK_EQ(gclk_record_validate(&gclk_guest_record, &guest, "guest", &error), -GCLK_RANGE);
}

GCLK_TEST(record, subrecords_are_visited_and_counted)
{
	struct gclk_hpet hpet = { 0 };
	struct gclk_error error = { 0 };

	GCLK_SET(hpet, &hpet, n_timers, 3);
	GCLK_SET(hpet_timer, &hpet.timers[2], config, 1);
	GCLK_EQ(gclk_record_validate(&gclk_hpet_record, &hpet, "hpet", &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "hpet.timers[2].config");
	hpet.n_timers = 2;
	GCLK_EQ(gclk_record_validate(&gclk_hpet_record, &hpet, "hpet", &error), 0);
	hpet.has = 0;		/* so that only the count can be refused */
	hpet.n_timers = 33;
	GCLK_EQ(gclk_record_validate(&gclk_hpet_record, &hpet, "hpet", &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "hpet.timers");
}
