/* SPDX-License-Identifier: MIT */
/*
 * Time values. Each type names the clock that it was read from; there is no implicit
 * way from one to another.
 *
 * For every instant type X there are
 *
 *	X gclk_X_add(X t, gclk_span by)			held at the ends of int64_t
 *	int gclk_X_add_checked(X t, gclk_span by, X *ret)	-GCLK_RANGE on overflow
 *	gclk_span gclk_X_since(X t, X earlier)		t - earlier, held at the ends
 *	int gclk_X_since_checked(X t, X earlier, gclk_span *ret)
 *	int gclk_X_compare(X a, X b)			-1, 0, 1
 *	bool gclk_X_is_before(X a, X b)
 *	X gclk_X_later(X a, X b), gclk_X_earlier(X a, X b)
 */
#ifndef GCLK_CORE_TIME_H
#define GCLK_CORE_TIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/util.h"

typedef struct { int64_t ns; } gclk_span;	/* a duration, of either sign */
typedef struct { int64_t ns; } gclk_real;	/* host CLOCK_REALTIME, since 1970 */
typedef struct { int64_t ns; } gclk_mono;	/* host CLOCK_MONOTONIC */
typedef struct { int64_t ns; } gclk_guest;	/* the guest's shared axis */

/* int64_t sums that stop at the ends of the type. */
static inline int64_t gclk_add_sat(int64_t a, int64_t b)
{
	int64_t sum;

	if (!__builtin_add_overflow(a, b, &sum)) {
		return sum;
	}
	return b < 0 ? INT64_MIN : INT64_MAX;
}

static inline int64_t gclk_sub_sat(int64_t a, int64_t b)
{
	int64_t difference;

	if (!__builtin_sub_overflow(a, b, &difference)) {
		return difference;
	}
	return b < 0 ? INT64_MAX : INT64_MIN;
}

static inline int gclk_compare(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static inline gclk_span gclk_span_of_ns(int64_t ns)
{
	return (gclk_span){ ns };
}

static inline gclk_span gclk_span_add(gclk_span a, gclk_span b)
{
	return (gclk_span){ gclk_add_sat(a.ns, b.ns) };
}

static inline gclk_span gclk_span_sub(gclk_span a, gclk_span b)
{
	return (gclk_span){ gclk_sub_sat(a.ns, b.ns) };
}

static inline gclk_span gclk_span_negate(gclk_span a)
{
	return (gclk_span){ gclk_sub_sat(0, a.ns) };
}

static inline int gclk_span_compare(gclk_span a, gclk_span b)
{
	return gclk_compare(a.ns, b.ns);
}

/* |a|, which always fits an unsigned number. */
static inline uint64_t gclk_span_magnitude_ns(gclk_span a)
{
	return a.ns < 0 ? 0 - (uint64_t)a.ns : (uint64_t)a.ns;
}

/* @a held within @low..@high. */
static inline gclk_span gclk_span_clamp(gclk_span a, gclk_span low, gclk_span high)
{
	return a.ns < low.ns ? low : a.ns > high.ns ? high : a;
}

#define GCLK_INSTANT(name)                                                               \
	static inline gclk_##name gclk_##name##_of_ns(int64_t ns)                        \
	{                                                                                \
		return (gclk_##name){ ns };                                              \
	}                                                                                \
	static inline gclk_##name gclk_##name##_add(gclk_##name t, gclk_span by)         \
	{                                                                                \
		return (gclk_##name){ gclk_add_sat(t.ns, by.ns) };                       \
	}                                                                                \
	static inline int gclk_##name##_add_checked(gclk_##name t, gclk_span by,         \
						    gclk_##name *ret)                    \
	{                                                                                \
		gclk_##name sum;                                                         \
		if (__builtin_add_overflow(t.ns, by.ns, &sum.ns)) {                      \
			return -GCLK_RANGE;                                              \
		}                                                                        \
		*ret = sum;                                                              \
		return 0;                                                                \
	}                                                                                \
	static inline gclk_span gclk_##name##_since(gclk_##name t, gclk_##name earlier)  \
	{                                                                                \
		return (gclk_span){ gclk_sub_sat(t.ns, earlier.ns) };                    \
	}                                                                                \
	static inline int gclk_##name##_since_checked(                                   \
		gclk_##name t, gclk_##name earlier, gclk_span *ret)                      \
	{                                                                                \
		gclk_span span;                                                          \
		if (__builtin_sub_overflow(t.ns, earlier.ns, &span.ns)) {                \
			return -GCLK_RANGE;                                              \
		}                                                                        \
		*ret = span;                                                             \
		return 0;                                                                \
	}                                                                                \
	static inline int gclk_##name##_compare(gclk_##name a, gclk_##name b)            \
	{                                                                                \
		return gclk_compare(a.ns, b.ns);                                         \
	}                                                                                \
	static inline bool gclk_##name##_is_before(gclk_##name a, gclk_##name b)         \
	{                                                                                \
		return a.ns < b.ns;                                                      \
	}                                                                                \
	static inline gclk_##name gclk_##name##_later(gclk_##name a, gclk_##name b)      \
	{                                                                                \
		return a.ns > b.ns ? a : b;                                              \
	}                                                                                \
	static inline gclk_##name gclk_##name##_earlier(gclk_##name a, gclk_##name b)    \
	{                                                                                \
		return a.ns < b.ns ? a : b;                                              \
	}

GCLK_INSTANT(real)
GCLK_INSTANT(mono)
GCLK_INSTANT(guest)

/* Enough for every value, with the final NUL. */
#define GCLK_REAL_TEXT_BYTES 36		/* "2026-11-21T02:26:48.123456789+05:45" */
#define GCLK_DURATION_TEXT_BYTES 40	/* "-106751d23h47min16.854775808s" */

/**
 * gclk_real_format() - RFC 3339, UTC, always 9 decimals: "2026-11-21T02:26:48.123456789Z"
 * @t:	any instant (1677-09-21 to 2262-04-11)
 * @text:	receives the text
 *
 * Returns @text. gclk_real_parse() gives @t back.
 */
char *gclk_real_format(gclk_real t, char text[GCLK_REAL_TEXT_BYTES]);

/*
 * The same instant as a clock shows it that is @offset_minutes ahead of UTC (-1439..1439;
 * anything beyond is held there): "2026-11-21T08:11:48.123456789+05:45".
 */
char *gclk_real_format_offset(gclk_real t, int offset_minutes,
			      char text[GCLK_REAL_TEXT_BYTES]);

/**
 * gclk_real_parse() - an instant from text
 * @text:	"2026-11-21T02:26:48.123456789Z", "2026-11-21 02:26:48+01:00", or seconds
 *		since 1970: "@1795228008.5"
 * @ret:	the instant, exactly
 *
 * Errors: GCLK_MALFORMED with what was expected and the offset where; GCLK_RANGE for a
 *         date that does not exist or does not fit; GCLK_UNSUPPORTED for a leap second
 *         (:60), which CLOCK_REALTIME cannot express; GCLK_LOSSY for decimals finer than
 *         a ns
 */
int gclk_real_parse(const char *text, gclk_real *ret, struct gclk_error *reterr);

/**
 * gclk_duration_parse() - a duration from text
 * @text:	"1h", "3d2h", "1h30min", "1.5s", "250ms", "-20us", or "120": seconds
 * @ret_ns:	the duration, exactly
 *
 * Units: d h min (or m) s ms us ns, in this order, each at most once; any number may have
 *        decimals
 * Errors: GCLK_MALFORMED with the offset; GCLK_RANGE where it does not fit (292 years);
 *         GCLK_LOSSY for less than a ns
 */
int gclk_duration_parse(const char *text, int64_t *ret_ns, struct gclk_error *reterr);

/*
 * Exact, and read back by gclk_duration_parse(): "0s", "250ms", "1.5us", "59.000000001s",
 * "1h30min", "-3d2h0.5s". Returns @text.
 */
char *gclk_duration_format(int64_t ns, char text[GCLK_DURATION_TEXT_BYTES]);

#endif
