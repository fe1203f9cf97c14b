/* SPDX-License-Identifier: MIT */
/*
 * Time as text. The grammars, with D a decimal digit:
 *
 *	instant  = date ( "T" | "t" | " " ) clock zone
 *	         | "@" [ "+" | "-" ] D+ [ fraction ]		seconds since 1970, UTC
 *	date     = DDDD "-" DD "-" DD
 *	clock    = DD ":" DD ":" DD [ fraction ]
 *	fraction = "." D+
 *	zone     = "Z" | "z" | ( "+" | "-" ) DD ":" DD
 *
 *	duration = [ "+" | "-" ] ( number | ( number unit )+ )
 *	number   = D+ [ fraction ]
 *	unit     = "d" | "h" | "min" | "m" | "s" | "ms" | "us" | "ns"
 *
 * A zone is required: an instant without one would depend on where it is read. Units
 * descend. Nothing may follow. Every number is taken exactly or refused.
 */
#include "core/time.h"

#include <string.h>

#include "core/calendar.h"

#define MAX_DECIMALS 18		/* after trailing zeros; 10^18 fits 64 bits */
#define MAX_OFFSET_MINUTES (24 * 60 - 1)

static const uint64_t power_of_10[MAX_DECIMALS + 1] = {
	UINT64_C(1), UINT64_C(10), UINT64_C(100), UINT64_C(1000), UINT64_C(10000),
	UINT64_C(100000), UINT64_C(1000000), UINT64_C(10000000), UINT64_C(100000000),
	UINT64_C(1000000000), UINT64_C(10000000000), UINT64_C(100000000000),
	UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000),
	UINT64_C(1000000000000000), UINT64_C(10000000000000000),
	UINT64_C(100000000000000000), UINT64_C(1000000000000000000),
};

/*
 * A text being read. As with a cursor the first error is remembered, nothing is accepted
 * after it, and every number read from then on is one that its place allows.
 */
struct reader {
	const char *start, *at;
	const char *what;		/* "time", "duration" */
	struct gclk_error *reterr;
	int status;
};

/* A decimal number as written: whole + digits / 10^n. */
struct decimal {
	uint64_t whole, digits;
	unsigned n;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static void refuse(struct reader *in, enum gclk_status status, const char *why)
{
	unsigned long at = (unsigned long)(in->at - in->start);

	if (in->status == 0) {
		in->status = gclk_fail(in->reterr, status, in->what, at,
				       "not a %s: %s at character %lu", in->what, why,
				       at + 1);
	}
}

static bool accept(struct reader *in, char c)
{
	if (in->status || *in->at != c) {
		return false;
	}
	in->at++;
	return true;
}

/* An optional sign; true for a minus. */
static bool accept_sign(struct reader *in)
{
	return !accept(in, '+') && accept(in, '-');
}

static void expect(struct reader *in, char c, const char *why)
{
	if (!accept(in, c)) {
		refuse(in, GCLK_MALFORMED, why);
	}
}

/* Exactly @n digits, a value of @low..@high; errors are reported at the first digit. */
static unsigned fixed(struct reader *in, unsigned n, unsigned low, unsigned high,
		      const char *why)
{
	unsigned value = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!is_digit(in->at[i])) {
			refuse(in, GCLK_MALFORMED, why);
			return low;
		}
		value = value * 10 + (unsigned)(in->at[i] - '0');
	}
	if (value < low || value > high) {
		refuse(in, GCLK_RANGE, why);
		return low;
	}
	in->at += n;
	return value;
}

static uint64_t whole_number(struct reader *in)
{
	uint64_t value = 0;
	const char *p;

	if (!is_digit(*in->at)) {
		refuse(in, GCLK_MALFORMED, "a digit is expected");
		return 0;
	}
	for (p = in->at; is_digit(*p); p++) {
		if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
			refuse(in, GCLK_RANGE, "the number is too large");
			return 0;
		}
	}
	in->at = p;
	return value;
}

/* A fraction, if there is one, with its trailing zeros taken off. */
static void fraction(struct reader *in, struct decimal *number)
{
	const char *digits, *end;

	if (!accept(in, '.')) {
		return;
	}
	digits = in->at;
	if (!is_digit(*digits)) {
		refuse(in, GCLK_MALFORMED, "a decimal is expected");
	}
	while (is_digit(*in->at)) {
		in->at++;
	}
	for (end = in->at; end > digits && end[-1] == '0'; end--) {
	}
	if (end - digits > MAX_DECIMALS) {
		refuse(in, GCLK_LOSSY, "decimals finer than a nanosecond");
		return;
	}
	number->n = (unsigned)(end - digits);
	for (; digits < end; digits++) {
		number->digits = number->digits * 10 + (uint64_t)(*digits - '0');
	}
}

static struct decimal decimal_number(struct reader *in)
{
	struct decimal number = { .whole = whole_number(in) };

	fraction(in, &number);
	return number;
}

static gclk_i128 to_ns(struct reader *in, struct decimal number, uint64_t unit_ns)
{
	gclk_u128 part = (gclk_u128)number.digits * unit_ns;

	if (part % power_of_10[number.n]) {
		refuse(in, GCLK_LOSSY, "decimals finer than a nanosecond");
	}
	return (gclk_i128)((gclk_u128)number.whole * unit_ns +
			   part / power_of_10[number.n]);
}

/* The end of the text and of the range. */
static int finish(struct reader *in, gclk_i128 ns, int64_t *ret_ns)
{
	if (*in->at) {
		refuse(in, GCLK_MALFORMED, "the end is expected");
	}
	if (ns < INT64_MIN || ns > INT64_MAX) {
		refuse(in, GCLK_RANGE, "it is beyond 292 years, which ends");
	}
	if (in->status == 0) {
		*ret_ns = (int64_t)ns;
	}
	return in->status;
}

static void parse_date(struct reader *in, struct gclk_civil *civil)
{
	unsigned last;

	civil->year = (int32_t)fixed(in, 4, 0, 9999, "a year of four digits is expected");
	expect(in, '-', "\"-\" is expected");
	civil->month = (uint8_t)fixed(in, 2, 1, 12, "a month 01..12 is expected");
	expect(in, '-', "\"-\" is expected");
	last = gclk_days_in_month(civil->year, civil->month);
	civil->day =
		(uint8_t)fixed(in, 2, 1, last, "a day that the month has is expected");
}

/* Sets the time of day and returns the ns within the second. */
static gclk_i128 parse_clock(struct reader *in, struct gclk_civil *civil)
{
	struct decimal below = { 0 };

	civil->hour = (uint8_t)fixed(in, 2, 0, 23, "hours 00..23 are expected");
	expect(in, ':', "\":\" is expected");
	civil->minute = (uint8_t)fixed(in, 2, 0, 59, "minutes 00..59 are expected");
	expect(in, ':', "\":\" is expected");
	if (!strncmp(in->at, "60", 2)) {
		refuse(in, GCLK_UNSUPPORTED,
		       "a leap second, which the host's clocks cannot express,");
	}
	civil->second = (uint8_t)fixed(in, 2, 0, 59, "seconds 00..59 are expected");
	fraction(in, &below);
	return to_ns(in, below, GCLK_NS_PER_S);
}

/* Seconds by which the written clock is ahead of UTC. */
static int parse_zone(struct reader *in)
{
	unsigned hours, minutes;
	bool behind;

	if (accept(in, 'Z') || accept(in, 'z')) {
		return 0;
	}
	if (*in->at != '+' && *in->at != '-') {
		refuse(in, GCLK_MALFORMED,
		       "a zone, \"Z\" for UTC or \"+HH:MM\", is expected");
	}
	behind = accept_sign(in);
	hours = fixed(in, 2, 0, 23, "a zone's hours 00..23 are expected");
	expect(in, ':', "\":\" is expected");
	minutes = fixed(in, 2, 0, 59, "a zone's minutes 00..59 are expected");
	return (int)(hours * 60 + minutes) * (behind ? -60 : 60);
}

static gclk_i128 parse_rfc3339(struct reader *in)
{
	struct gclk_civil civil = { 0 };
	gclk_i128 below;
	int64_t seconds;

	parse_date(in, &civil);
	if (!accept(in, 'T') && !accept(in, 't') && !accept(in, ' ')) {
		refuse(in, GCLK_MALFORMED, "\"T\" and a time of day are expected");
	}
	below = parse_clock(in, &civil);
	seconds = gclk_seconds_from_civil(&civil) - parse_zone(in);
	return (gclk_i128)seconds * GCLK_NS_PER_S + below;
}

static gclk_i128 parse_seconds(struct reader *in)
{
	bool negative = accept_sign(in);
	gclk_i128 ns = to_ns(in, decimal_number(in), GCLK_NS_PER_S);

	return negative ? -ns : ns;
}

int gclk_real_parse(const char *text, gclk_real *ret, struct gclk_error *reterr)
{
	struct reader in = { text, text, "time", reterr, 0 };
	gclk_i128 ns = accept(&in, '@') ? parse_seconds(&in) : parse_rfc3339(&in);

	return finish(&in, ns, &ret->ns);
}

static const struct unit {
	char name[4];
	uint64_t ns;
} units[] = {
	{ "d", UINT64_C(86400000000000) },
	{ "h", UINT64_C(3600000000000) },
	{ "min", UINT64_C(60000000000) },
	{ "m", UINT64_C(60000000000) },
	{ "s", UINT64_C(1000000000) },
	{ "ms", UINT64_C(1000000) },
	{ "us", UINT64_C(1000) },
	{ "ns", UINT64_C(1) },
};

/* The ns of the unit that is spelled here; 0 where that is none. */
static uint64_t parse_unit(struct reader *in)
{
	size_t n = strspn(in->at, "abcdefghijklmnopqrstuvwxyz");

	for (size_t i = 0; i < GCLK_COUNT(units); i++) {
		if (n == strlen(units[i].name) && !memcmp(in->at, units[i].name, n)) {
			in->at += n;
			return units[i].ns;
		}
	}
	refuse(in, GCLK_MALFORMED, "a unit, d h min s ms us or ns, is expected");
	return 0;
}

/*
 * One number and its unit, which must be below *last_ns, or 0 where this is the first. A
 * bare number is in seconds and stands alone.
 */
static gclk_i128 parse_component(struct reader *in, uint64_t *last_ns)
{
	struct decimal number = decimal_number(in);
	const char *name = in->at;
	uint64_t unit_ns = *name || *last_ns ? parse_unit(in) : GCLK_NS_PER_S;

	if (*last_ns && unit_ns >= *last_ns) {
		in->at = name;
		refuse(in, GCLK_MALFORMED, "a smaller unit is expected");
	}
	*last_ns = unit_ns;
	return to_ns(in, number, unit_ns);
}

int gclk_duration_parse(const char *text, int64_t *ret_ns, struct gclk_error *reterr)
{
	struct reader in = { text, text, "duration", reterr, 0 };
	bool negative = accept_sign(&in);
	uint64_t last_ns = 0;
	gclk_i128 sum = 0;

	do {
		sum += parse_component(&in, &last_ns);
	} while (in.status == 0 && *in.at);
	return finish(&in, negative ? -sum : sum, ret_ns);
}

/* @n digits of @value at @p; returns what follows them. */
static char *put_digits(char *p, unsigned n, uint64_t value)
{
	for (unsigned i = n; i-- > 0; value /= 10) {
		p[i] = (char)('0' + value % 10);
	}
	return p + n;
}

static char *put_char(char *p, char c)
{
	*p = c;
	return p + 1;
}

/* "2026-11-21T02:26:48.123456789", of a clock @offset_s ahead of UTC. */
static char *put_date_time(char *p, gclk_real t, int offset_s)
{
	int64_t seconds = t.ns / GCLK_NS_PER_S, below = t.ns % GCLK_NS_PER_S;
	struct gclk_civil civil = { 0 };

	if (below < 0) {
		below += GCLK_NS_PER_S;
		seconds--;
	}
	(void)gclk_civil_from_seconds(seconds + offset_s, &civil); /* 1677..2262 fits */
	p = put_char(put_digits(p, 4, (uint64_t)civil.year), '-');
	p = put_char(put_digits(p, 2, civil.month), '-');
	p = put_char(put_digits(p, 2, civil.day), 'T');
	p = put_char(put_digits(p, 2, civil.hour), ':');
	p = put_char(put_digits(p, 2, civil.minute), ':');
	p = put_char(put_digits(p, 2, civil.second), '.');
	return put_digits(p, 9, (uint64_t)below);
}

char *gclk_real_format(gclk_real t, char text[GCLK_REAL_TEXT_BYTES])
{
	strcpy(put_date_time(text, t, 0), "Z");
	return text;
}

char *gclk_real_format_offset(gclk_real t, int offset_minutes,
			      char text[GCLK_REAL_TEXT_BYTES])
{
	int offset = GCLK_MIN(GCLK_MAX(offset_minutes, -MAX_OFFSET_MINUTES),
			      MAX_OFFSET_MINUTES);
	unsigned magnitude = (unsigned)(offset < 0 ? -offset : offset);
	char *p = put_date_time(text, t, offset * 60);

	p = put_char(p, offset < 0 ? '-' : '+');
	p = put_char(put_digits(p, 2, magnitude / 60), ':');
	*put_digits(p, 2, magnitude % 60) = '\0';
	return text;
}

static char *put_number(char *p, uint64_t value)
{
	unsigned n = 1;

	while (n <= MAX_DECIMALS && value >= power_of_10[n]) {
		n++;
	}
	return put_digits(p, n, value);
}

/* value / 10^n without trailing zeros, then @unit. */
static char *put_decimal(char *p, uint64_t value, unsigned n, const char *unit)
{
	uint64_t rest = value % power_of_10[n];

	p = put_number(p, value / power_of_10[n]);
	if (rest) {
		for (; rest % 10 == 0; rest /= 10) {
			n--;
		}
		p = put_digits(put_char(p, '.'), n, rest);
	}
	return stpcpy(p, unit);
}

/* Below a second: one number, in the greatest unit that it has a whole one of. */
static char *put_short_duration(char *p, uint64_t ns)
{
	if (ns >= power_of_10[6]) {
		return put_decimal(p, ns, 6, "ms");
	}
	if (ns >= power_of_10[3]) {
		return put_decimal(p, ns, 3, "us");
	}
	return ns ? put_decimal(p, ns, 0, "ns") : stpcpy(p, "0s");
}

char *gclk_duration_format(int64_t ns, char text[GCLK_DURATION_TEXT_BYTES])
{
	uint64_t rest = gclk_span_magnitude_ns(gclk_span_of_ns(ns));
	char *p = text;

	if (ns < 0) {
		p = put_char(p, '-');
	}
	if (rest < GCLK_NS_PER_S) {
		put_short_duration(p, rest);
		return text;
	}
	for (size_t i = 0; i < 3; i++) {	/* d, h, min */
		if (rest >= units[i].ns) {
			p = stpcpy(put_number(p, rest / units[i].ns), units[i].name);
			rest %= units[i].ns;
		}
	}
	if (rest) {
		put_decimal(p, rest, 9, "s");
	}
	return text;
}
