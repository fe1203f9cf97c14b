/* SPDX-License-Identifier: MIT */
/*
 * From a record's rows (<guestclock/record.h>) to its field table:
 *
 *	#define UNIT_gclk_axis_names GCLK_UNIT_ENUM	each list of names in E rows
 *	FIELDS(rtc, GCLK_RTC_FIELDS)
 *	PLAIN(rtc)					defines gclk_rtc_record
 *
 * Names are short because only files of tables include this.
 */
#ifndef GCLK_DEVICES_ROWS_H
#define GCLK_DEVICES_ROWS_H

#include <assert.h>
#include <string.h>

#include <guestclock/record.h>

#include "core/util.h"
#include "devices/allow.h"

/* clang-format off */
/* An E row is a BOOL where its names are the booleans', else an ENUM. */
#define UNIT_gclk_bool_names		GCLK_UNIT_BOOL

/*
 * A list of names. Rows use it itself; programs get a pointer, since lists grow and the size
 * of what a program refers to is in the program.
 */
#define NAMES(list) \
	extern const struct gclk_name list##_[]; \
	GCLK_API const struct gclk_name *const list = list##_; \
	const struct gclk_name list##_[]

#define PLACE(R, member) \
	.offset = offsetof(struct gclk_##R, member), \
	.size = sizeof(((struct gclk_##R *)0)->member), \
	.index = gclk_##R##_f_##member

/* Whether a row's range is less than its type holds. */
#define LESS_u8(min, max)	((min) > 0 || (max) < UINT8_MAX)
#define LESS_u16(min, max)	((min) > 0 || (max) < UINT16_MAX)
#define LESS_u32(min, max)	((min) > 0 || (max) < UINT32_MAX)
#define LESS_u64(min, max)	((min) > 0 || (max) < UINT64_MAX)
#define LESS_i32(min, max)	1
#define LESS_i64(min, max)	((min) != GCLK_I64_MIN || (max) != GCLK_I64_MAX)

#define ROW_F(R, kind, member, unit_, min_, max_, doc_) \
	{ .name = #member, .doc = doc_, .min = (uint64_t)(min_), .max = (uint64_t)(max_), \
	  .type = GCLK_TYPE_##kind, .unit = GCLK_UNIT_##unit_, \
	  PLACE(R, member) },
#define ROW_E(R, kind, member, names_, doc_) \
	{ .name = #member, .doc = doc_, .names = names_##_, .max = UINT64_MAX, \
	  .type = GCLK_TYPE_##kind, .unit = UNIT_##names_, PLACE(R, member) },
#define ROW_M(R, kind, member, names_, doc_) \
	{ .name = #member, .doc = doc_, .names = names_##_, .max = UINT64_MAX, \
	  .type = GCLK_TYPE_##kind, .unit = GCLK_UNIT_HEX, PLACE(R, member) },
#define ROW_B(R, bytes, member, doc_) \
	{ .name = #member, .doc = doc_, .type = GCLK_TYPE_BYTES, .unit = GCLK_UNIT_HEX, \
	  PLACE(R, member) },
#define ROW_S(R, bytes, member, doc_) \
	{ .name = #member, .doc = doc_, .type = GCLK_TYPE_STRING, .unit = GCLK_UNIT_NONE, \
	  PLACE(R, member) },

/* What the table says, as code: whether all that is present is allowed. */
#define SPAN_u8 gclk_within
#define SPAN_u16 gclk_within
#define SPAN_u32 gclk_within
#define SPAN_u64 gclk_within
#define SPAN_i32 gclk_within_signed
#define SPAN_i64 gclk_within_signed
#define HOLDS_F(R, kind, member, unit, min_, max_, doc) \
	&& (!LESS_##kind((uint64_t)(min_), (uint64_t)(max_)) || !GCLK_HAS(R, p, member) || \
	    SPAN_##kind(p->member, min_, max_))
#define HOLDS_E(R, kind, member, names, doc) \
	&& (!GCLK_HAS(R, p, member) || (UNIT_##names == GCLK_UNIT_BOOL ? p->member <= 1 : \
					gclk_names_have(names##_, p->member)))
#define HOLDS_M(R, kind, member, names, doc) \
	&& (!GCLK_HAS(R, p, member) || !p->member || gclk_names_cover(names##_, p->member))
#define HOLDS_B(R, bytes, member, doc)
#define HOLDS_S(R, bytes, member, doc) \
	&& (!GCLK_HAS(R, p, member) || memchr(p->member, 0, bytes))

#define FIELDS(R, LIST) \
	static int R##_holds(const void *record) \
	{ \
		const struct gclk_##R *p = record; \
		return !(p->has & ~(UINT64_MAX >> (64 - gclk_##R##_n_fields))) \
			LIST(HOLDS_F, HOLDS_E, HOLDS_M, HOLDS_B, HOLDS_S, R); \
	} \
	static const struct gclk_field R##_fields[] = { \
		LIST(ROW_F, ROW_E, ROW_M, ROW_B, ROW_S, R) \
	}; \
	static_assert(GCLK_COUNT(R##_fields) == gclk_##R##_n_fields, "one row per member"); \
	static_assert(gclk_##R##_n_fields <= 64, "one presence bit per member"); \
	static_assert(offsetof(struct gclk_##R, has) == 0, "generic code finds .has first"); \
	static_assert(sizeof(struct gclk_##R) <= UINT16_MAX, "offsets have 16 bits");

#define RECORD(R) \
	.name = #R, .fields = R##_fields, .holds = R##_holds, \
	.n_fields = gclk_##R##_n_fields, \
	.size = sizeof(struct gclk_##R)
#define PLAIN(R) \
	GCLK_API const struct gclk_record gclk_##R##_record = { RECORD(R) };
/* clang-format on */

#endif
