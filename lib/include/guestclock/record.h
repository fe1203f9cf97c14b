/* SPDX-License-Identifier: MIT */
/*
 * Records: plain structs with a field table.
 *
 * Every record of a clock state is declared once, as a list of rows
 *
 *	F(R, type, member, UNIT, min, max, "what it means")
 *
 * (R stands for the record's own name) from which come the struct's members, one presence bit per member, and the
 * row of the field table that drives validation, the schema binding, inspect,
 * diff and JSON. Row kinds:
 *
 *	F(R, type, member, UNIT, min, max, doc)	a number: u8 u16 u32 u64 i32 i64
 *	E(R, type, member, names, doc)		a number that is one of @names
 *	M(R, type, member, names, doc)		a number whose bits are @names
 *	B(R, size, member, doc)			uint8_t member[size]
 *	S(R, size, member, doc)			char member[size], NUL-terminated
 *
 * A member that the source did not give is absent: its bit in .has is 0 and its
 * value is 0. Read and write the bit with GCLK_HAS and GCLK_SET.
 */
#ifndef GUESTCLOCK_RECORD_H
#define GUESTCLOCK_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum gclk_type {
	GCLK_TYPE_u8, GCLK_TYPE_u16, GCLK_TYPE_u32, GCLK_TYPE_u64,
	GCLK_TYPE_i32, GCLK_TYPE_i64, GCLK_TYPE_BYTES, GCLK_TYPE_STRING,
};

enum gclk_unit {
	GCLK_UNIT_NONE,		/* a plain number: an index, a register as it is */
	GCLK_UNIT_NS, GCLK_UNIT_SECONDS, GCLK_UNIT_FS,
	GCLK_UNIT_REALTIME_NS,	/* ns since 1970-01-01T00:00:00Z */
	GCLK_UNIT_GUEST_NS,	/* ns on the guest's shared axis (virtual_clock.clock_ns) */
	GCLK_UNIT_AXIS_NS,	/* ns on the axis that the record's own .axis names */
	GCLK_UNIT_HZ, GCLK_UNIT_KHZ, GCLK_UNIT_PPB, GCLK_UNIT_PPM,
	GCLK_UNIT_TICKS,	/* of the clock that the record is about */
	GCLK_UNIT_COUNT, GCLK_UNIT_BITS, GCLK_UNIT_ADDRESS, GCLK_UNIT_BOOL, GCLK_UNIT_ENUM,
	GCLK_UNIT_HEX,		/* a register, best read in hex */
};

/* Names of values (E rows) or of bits (M rows: value is the bit's mask). */
struct gclk_name {
	uint64_t value;
	const char *name;
};

struct gclk_field {
	const char *name;		/* as in the schema and in JSON */
	const char *doc;
	const struct gclk_name *names;	/* NULL, or ended by { 0, NULL } */
	uint64_t min, max;		/* inclusive; as int64_t for i32 and i64 */
	uint16_t offset;		/* of the member in its struct */
	uint16_t size;			/* bytes of the member */
	uint8_t type;			/* enum gclk_type */
	uint8_t unit;			/* enum gclk_unit */
	uint8_t index;			/* of the row, and of its bit in .has */
};

/* Records inside a record: a fixed array whose length may be a member. */
struct gclk_subrecord {
	const char *name;
	const struct gclk_record *record;
	uint16_t offset;
	uint16_t max;
	int32_t count_offset;		/* of a uint8_t count member; -1: always @max */
};

struct gclk_record {
	const char *name;		/* as in the schema: "pit" */
	const struct gclk_field *fields;
	const struct gclk_subrecord *subs;
	int (*holds)(const void *record);	/* whether the rows allow all that is present; without subrecords */
	uint16_t n_fields, n_subs;
	uint16_t size;			/* of the struct; .has is its first member */
};

#define GCLK_C_u8 uint8_t
#define GCLK_C_u16 uint16_t
#define GCLK_C_u32 uint32_t
#define GCLK_C_u64 uint64_t
#define GCLK_C_i32 int32_t
#define GCLK_C_i64 int64_t

#define GCLK_MEMBER_F(R, type, member, unit, min, max, doc) GCLK_C_##type member;
#define GCLK_MEMBER_E(R, type, member, names, doc) GCLK_C_##type member;
#define GCLK_MEMBER_M(R, type, member, names, doc) GCLK_C_##type member;
#define GCLK_MEMBER_B(R, size, member, doc) uint8_t member[size];
#define GCLK_MEMBER_S(R, size, member, doc) char member[size];

#define GCLK_INDEX_F(R, type, member, unit, min, max, doc) gclk_##R##_f_##member,
#define GCLK_INDEX_E(R, type, member, names, doc) gclk_##R##_f_##member,
#define GCLK_INDEX_M(R, type, member, names, doc) gclk_##R##_f_##member,
#define GCLK_INDEX_B(R, size, member, doc) gclk_##R##_f_##member,
#define GCLK_INDEX_S(R, size, member, doc) gclk_##R##_f_##member,

/* Members of a record's struct: uint64_t has, then one per row. */
#define GCLK_MEMBERS(R, LIST)                                                     \
	uint64_t has;                                                             \
	LIST(GCLK_MEMBER_F, GCLK_MEMBER_E, GCLK_MEMBER_M, GCLK_MEMBER_B, GCLK_MEMBER_S, R)

/* The index of each row, gclk_<record>_f_<member>, which is also its bit in .has. */
#define GCLK_INDEX(R, LIST)                                                       \
	enum gclk_##R##_field {                                                   \
		LIST(GCLK_INDEX_F, GCLK_INDEX_E, GCLK_INDEX_M, GCLK_INDEX_B, GCLK_INDEX_S, R) \
		gclk_##R##_n_fields                                               \
	};                                                                        \
	extern const struct gclk_record gclk_##R##_record;

#define GCLK_BIT(record, member) (UINT64_C(1) << gclk_##record##_f_##member)
#define GCLK_HAS(record, p, member) (((p)->has & GCLK_BIT(record, member)) != 0)
#define GCLK_SET(record, p, member, value)                                        \
	((p)->has |= GCLK_BIT(record, member), (p)->member = (value))
#define GCLK_UNSET(record, p, member)                                             \
	((p)->has &= ~GCLK_BIT(record, member), (p)->member = 0)

/**
 * gclk_record_get() - the value of a numeric field, sign-extended to 64 bits
 * @base:	the record
 * @field:	a row of its table that is neither BYTES nor STRING
 */
uint64_t gclk_record_get(const void *base, const struct gclk_field *field);

/* Sets a numeric field, cut to its width, and its presence bit. */
void gclk_record_set(void *base, const struct gclk_field *field, uint64_t value);

int gclk_record_has(const void *base, const struct gclk_record *record, unsigned field);

/**
 * gclk_record_find() - a row by name
 * Returns its index, or -1.
 */
int gclk_record_find(const struct gclk_record *record, const char *name);

/**
 * gclk_record_validate() - every present field within its range, names and counts known
 * @record:	the table
 * @base:	the record's struct
 * @path:	prefix for the place in the error, for instance "hpet"
 *
 * Subrecords are visited too. Errors: GCLK_RANGE with the path of the field.
 */
int gclk_record_validate(const struct gclk_record *record, const void *base, const char *path,
			 struct gclk_error *reterr);

/**
 * gclk_record_settle() - a record whose bytes come from anywhere, made safe to use
 *
 * Members whose presence bit is not set become 0, as everywhere else; then as
 * gclk_record_validate(), and texts have to be UTF-8: @base is safe to look at, and a bundle
 * can hold it, when it returns 0. Errors: GCLK_RANGE with the field.
 */
int gclk_record_settle(const struct gclk_record *record, void *base, const char *path,
		       struct gclk_error *reterr);

/* The same question, answered 1 or 0 without saying why. */
int gclk_record_is_valid(const struct gclk_record *record, const void *base);

#ifdef __cplusplus
}
#endif
#endif
