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

#include <guestclock/record.h>

#include "core/util.h"

/* clang-format off */
/* An E row is a BOOL where its names are the booleans', else an ENUM. */
#define UNIT_gclk_bool_names		GCLK_UNIT_BOOL

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
	{ .name = #member, .doc = doc_, .names = names_, .max = UINT64_MAX, \
	  .type = GCLK_TYPE_##kind, .unit = UNIT_##names_, PLACE(R, member) },
#define ROW_M(R, kind, member, names_, doc_) \
	{ .name = #member, .doc = doc_, .names = names_, .max = UINT64_MAX, \
	  .type = GCLK_TYPE_##kind, .unit = GCLK_UNIT_HEX, PLACE(R, member) },
#define ROW_B(R, bytes, member, doc_) \
	{ .name = #member, .doc = doc_, .type = GCLK_TYPE_BYTES, .unit = GCLK_UNIT_HEX, \
	  PLACE(R, member) },
#define ROW_S(R, bytes, member, doc_) \
	{ .name = #member, .doc = doc_, .type = GCLK_TYPE_STRING, .unit = GCLK_UNIT_NONE, \
	  PLACE(R, member) },

/* The rows whose type holds values that they do not allow, as presence bits. */
#define MASK_F(R, kind, member, unit, min_, max_, doc) \
	| (LESS_##kind((uint64_t)(min_), (uint64_t)(max_)) ? GCLK_BIT(R, member) : 0)
#define MASK_E(R, kind, member, names, doc)	| GCLK_BIT(R, member)
#define MASK_M(R, kind, member, names, doc)	| GCLK_BIT(R, member)
#define MASK_B(R, bytes, member, doc)
#define MASK_S(R, bytes, member, doc)		| GCLK_BIT(R, member)

#define FIELDS(R, LIST) \
	static const uint64_t R##_restricted = 0 LIST(MASK_F, MASK_E, MASK_M, MASK_B, MASK_S, R); \
	static const struct gclk_field R##_fields[] = { \
		LIST(ROW_F, ROW_E, ROW_M, ROW_B, ROW_S, R) \
	}; \
	static_assert(GCLK_COUNT(R##_fields) == gclk_##R##_n_fields, "one row per member"); \
	static_assert(gclk_##R##_n_fields <= 64, "one presence bit per member"); \
	static_assert(offsetof(struct gclk_##R, has) == 0, "generic code finds .has first"); \
	static_assert(sizeof(struct gclk_##R) <= UINT16_MAX, "offsets have 16 bits");

#define RECORD(R) \
	.name = #R, .fields = R##_fields, .restricted = &R##_restricted, \
	.n_fields = gclk_##R##_n_fields, \
	.size = sizeof(struct gclk_##R)
#define PLAIN(R) \
	GCLK_API const struct gclk_record gclk_##R##_record = { RECORD(R) };
/* clang-format on */

#endif
