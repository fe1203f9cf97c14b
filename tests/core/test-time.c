/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "core/time.h"
#include "property.h"

#define NS INT64_C(1000000000)

GCLK_TEST(time, sums_stop_at_the_ends)
{
	gclk_guest early = gclk_guest_of_ns(INT64_MIN),
		   late = gclk_guest_of_ns(INT64_MAX);
	gclk_guest t = gclk_guest_of_ns(5), sum = { 77 };
	gclk_span one = gclk_span_of_ns(1), minus = gclk_span_of_ns(-1), span = { 77 };

	GCLK_EQ(gclk_guest_add(t, one).ns, 6);
	GCLK_EQ(gclk_guest_add(late, one).ns, INT64_MAX);
	GCLK_EQ(gclk_guest_add(early, minus).ns, INT64_MIN);
	GCLK_EQ(gclk_guest_since(late, early).ns, INT64_MAX);
	GCLK_EQ(gclk_guest_since(early, late).ns, INT64_MIN);
	GCLK_EQ(gclk_guest_since(t, gclk_guest_of_ns(2)).ns, 3);
	GCLK_EQ(gclk_guest_add_checked(late, one, &sum), -GCLK_RANGE);
	GCLK_EQ(gclk_guest_since_checked(early, t, &span), -GCLK_RANGE);
	CU_ASSERT(sum.ns == 77 && span.ns == 77);
	GCLK_EQ(gclk_guest_add_checked(late, minus, &sum), 0);
	GCLK_EQ(sum.ns, INT64_MAX - 1);
	GCLK_EQ(gclk_guest_since_checked(t, late, &span), 0);
	GCLK_EQ(span.ns, 5 - INT64_MAX);
	GCLK_EQ(gclk_span_negate(gclk_span_of_ns(INT64_MIN)).ns, INT64_MAX);
	GCLK_EQ(gclk_span_magnitude_ns(gclk_span_of_ns(INT64_MIN)), UINT64_C(1) << 63);
	GCLK_EQ(gclk_span_add(one, minus).ns, 0);
	GCLK_EQ(gclk_span_sub(gclk_span_of_ns(INT64_MIN), one).ns, INT64_MIN);
	GCLK_EQ(gclk_sub_sat(0, INT64_MIN), INT64_MAX);
	GCLK_EQ(gclk_sub_sat(-1, INT64_MIN), INT64_MAX);
	GCLK_EQ(gclk_span_clamp(one, gclk_span_of_ns(2), gclk_span_of_ns(4)).ns, 2);
	GCLK_EQ(gclk_span_clamp(gclk_span_of_ns(9), gclk_span_of_ns(2),
				gclk_span_of_ns(4))
			.ns,
		4);
	GCLK_EQ(gclk_span_clamp(gclk_span_of_ns(3), gclk_span_of_ns(2),
				gclk_span_of_ns(4))
			.ns,
		3);
}

GCLK_TEST(time, instants_compare)
{
	gclk_mono a = gclk_mono_of_ns(-3), b = gclk_mono_of_ns(4);

	GCLK_EQ(gclk_mono_compare(a, b), -1);
	GCLK_EQ(gclk_mono_compare(b, a), 1);
	GCLK_EQ(gclk_mono_compare(a, a), 0);
	CU_ASSERT(gclk_mono_is_before(a, b) && !gclk_mono_is_before(a, a));
	GCLK_EQ(gclk_mono_later(a, b).ns, 4);
	GCLK_EQ(gclk_mono_earlier(a, b).ns, -3);
	GCLK_EQ(gclk_span_compare(gclk_span_of_ns(INT64_MIN), gclk_span_of_ns(INT64_MAX)),
		-1);
}

GCLK_TEST(time, sums_match_wider_arithmetic)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		int64_t a = (int64_t)gclk_random() >> gclk_random_below(64);
		int64_t b = (int64_t)gclk_random() >> gclk_random_below(64);
		gclk_i128 sum = (gclk_i128)a + b, difference = (gclk_i128)a - b;

		sum = GCLK_MIN(GCLK_MAX(sum, INT64_MIN), INT64_MAX);
		difference = GCLK_MIN(GCLK_MAX(difference, INT64_MIN), INT64_MAX);
		REQUIRE(gclk_add_sat(a, b) == sum && gclk_sub_sat(a, b) == difference,
			"%" PRId64 " %" PRId64, a, b);
	}
}

GCLK_TEST(time, instant_vectors)
{
	static const struct {
		const char *text;
		int64_t ns;
	} rows[] = {
		{ "2026-11-21T02:26:48.123456789Z", INT64_C(1795228008123456789) },
		{ "2026-11-21 02:26:48.123456789Z", INT64_C(1795228008123456789) },
		{ "2026-11-21t02:26:48z", INT64_C(1795228008000000000) },
		{ "2026-11-21T02:26:48.5Z", INT64_C(1795228008500000000) },
		{ "2026-11-21T02:26:48.500000000000000000000000Z",
		  INT64_C(1795228008500000000) },
		{ "2026-11-21T03:56:48+01:30", INT64_C(1795228008000000000) },
		{ "2026-11-20T21:41:48-04:45", INT64_C(1795228008000000000) },
		{ "2026-11-21T02:26:48-00:00", INT64_C(1795228008000000000) },
		{ "1970-01-01T00:00:00Z", 0 },
		{ "1969-12-31T23:59:59.999999999Z", -1 },
		{ "2024-02-29T00:00:00Z", INT64_C(1709164800000000000) },
		{ "1677-09-21T00:12:43.145224192Z", INT64_MIN },
		{ "2262-04-11T23:47:16.854775807Z", INT64_MAX },
		{ "@1795228008.123456789", INT64_C(1795228008123456789) },
		{ "@0", 0 },
		{ "@+1", NS },
		{ "@-1.5", -1500000000 },
		{ "@-9223372036.854775808", INT64_MIN },
		{ "@9223372036.854775807", INT64_MAX },
	};
	gclk_real t;

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		struct gclk_error err = { 0 };

		t.ns = 77;
		GCLK_EQ(gclk_real_parse(rows[i].text, &t, &err), 0);
		GCLK_EQ(t.ns, rows[i].ns);
	}
}

GCLK_TEST(time, instant_refusals)
{
	static const struct {
		const char *text;
		int status;
		unsigned at;
	} rows[] = {
		{ "", GCLK_MALFORMED, 0 },
		{ "now", GCLK_MALFORMED, 0 },
		{ "026-11-21T02:26:48Z", GCLK_MALFORMED, 0 },
		{ "2026/11/21T02:26:48Z", GCLK_MALFORMED, 4 },
		{ "2026-13-21T02:26:48Z", GCLK_RANGE, 5 },
		{ "2026-00-21T02:26:48Z", GCLK_RANGE, 5 },
		{ "2026-02-29T02:26:48Z", GCLK_RANGE, 8 },
		{ "2100-02-29T02:26:48Z", GCLK_RANGE, 8 },
		{ "2026-11-31T02:26:48Z", GCLK_RANGE, 8 },
		{ "2026-11-00T02:26:48Z", GCLK_RANGE, 8 },
		{ "2026-11-21", GCLK_MALFORMED, 10 },
		{ "2026-11-21  02:26:48Z", GCLK_MALFORMED, 11 },
		{ "2026-11-21T24:00:00Z", GCLK_RANGE, 11 },
		{ "2026-11-21T02:60:00Z", GCLK_RANGE, 14 },
		{ "2026-11-21T02:26Z", GCLK_MALFORMED, 16 },
		{ "2016-12-31T23:59:60Z", GCLK_UNSUPPORTED, 17 },
		{ "2016-12-31T23:59:60.5+00:00", GCLK_UNSUPPORTED, 17 },
		{ "2016-12-31T23:59:61Z", GCLK_RANGE, 17 },
		{ "2026-11-21T02:26:48", GCLK_MALFORMED, 19 },
		{ "2026-11-21T02:26:48.Z", GCLK_MALFORMED, 20 },
		{ "2026-11-21T02:26:48.1234567891Z", GCLK_LOSSY, 30 },
		{ "2026-11-21T02:26:48.0000000000000000000000001Z", GCLK_LOSSY, 45 },
		{ "2026-11-21T02:26:48,5Z", GCLK_MALFORMED, 19 },
		{ "2026-11-21T02:26:48+1:00", GCLK_MALFORMED, 20 },
		{ "2026-11-21T02:26:48+24:00", GCLK_RANGE, 20 },
		{ "2026-11-21T02:26:48+0100", GCLK_MALFORMED, 22 },
		{ "2026-11-21T02:26:48Z ", GCLK_MALFORMED, 20 },
		{ "1677-09-21T00:12:43.145224191Z", GCLK_RANGE, 30 },
		{ "2262-04-11T23:47:16.854775808Z", GCLK_RANGE, 30 },
		{ "9999-12-31T23:59:59Z", GCLK_RANGE, 20 },
		{ "@", GCLK_MALFORMED, 1 },
		{ "@1x", GCLK_MALFORMED, 2 },
		{ "@--1", GCLK_MALFORMED, 2 },
		{ "@9223372036.854775808", GCLK_RANGE, 21 },
		{ "@99999999999999999999", GCLK_RANGE, 1 },
		{ "@1.0000000001", GCLK_LOSSY, 13 },
	};

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		gclk_real t = { 77 };
		struct gclk_error err = { 0 };

		GCLK_EQ(gclk_real_parse(rows[i].text, &t, &err), -rows[i].status);
		GCLK_EQ(err.status, rows[i].status);
		if (err.offset != rows[i].at || !err.message[0] || t.ns != 77) {
			printf("\n    %s: %s\n", rows[i].text, err.message);
		}
		GCLK_EQ(err.offset, rows[i].at);
		GCLK_EQ(t.ns, 77);
		GCLK_EQ(gclk_real_parse(rows[i].text, &t, NULL), -rows[i].status);
	}
}

GCLK_TEST(time, instant_formats)
{
	char text[GCLK_REAL_TEXT_BYTES];
	gclk_real t = gclk_real_of_ns(INT64_C(1795228008123456789));

	CU_ASSERT_STRING_EQUAL(gclk_real_format(t, text),
			       "2026-11-21T02:26:48.123456789Z");
	CU_ASSERT_STRING_EQUAL(gclk_real_format_offset(t, 345, text),
			       "2026-11-21T08:11:48.123456789+05:45");
	CU_ASSERT_STRING_EQUAL(gclk_real_format_offset(t, -180, text),
			       "2026-11-20T23:26:48.123456789-03:00");
	CU_ASSERT_STRING_EQUAL(gclk_real_format_offset(t, 0, text),
			       "2026-11-21T02:26:48.123456789+00:00");
	CU_ASSERT_STRING_EQUAL(gclk_real_format_offset(t, 100000, text),
			       "2026-11-22T02:25:48.123456789+23:59");
	CU_ASSERT_STRING_EQUAL(gclk_real_format(gclk_real_of_ns(INT64_MIN), text),
			       "1677-09-21T00:12:43.145224192Z");
	CU_ASSERT_STRING_EQUAL(gclk_real_format(gclk_real_of_ns(INT64_MAX), text),
			       "2262-04-11T23:47:16.854775807Z");
	CU_ASSERT_STRING_EQUAL(gclk_real_format(gclk_real_of_ns(-1), text),
			       "1969-12-31T23:59:59.999999999Z");
}

/* Against the C library's calendar, and back, at any offset. */
GCLK_TEST(time, instants_round_trip)
{
	for (uint64_t i = 0; i < N_RANDOM / 2; i++) {
		gclk_real t = { (int64_t)gclk_random() >> gclk_random_below(40) },
			  back = { 0 };
		int64_t below = (t.ns % NS + NS) % NS;
		time_t seconds = (time_t)(((gclk_i128)t.ns - below) / NS);
		int offset = (int)gclk_random_below(2879) - 1439;
		char text[GCLK_REAL_TEXT_BYTES], libc[96];
		struct tm tm;

		gmtime_r(&seconds, &tm);
		snprintf(libc, sizeof(libc),
			 "%04d-%02d-%02dT%02d:%02d:%02d.%09" PRId64 "Z",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
			 tm.tm_min, tm.tm_sec, below);
		REQUIRE(!strcmp(gclk_real_format(t, text), libc), "%s and %s", text,
			libc);
		REQUIRE(gclk_real_parse(text, &back, NULL) == 0 && back.ns == t.ns, "%s",
			text);
		gclk_real_format_offset(t, offset, text);
		REQUIRE(strlen(text) == 35 && gclk_real_parse(text, &back, NULL) == 0 &&
			back.ns == t.ns, "%s", text);
	}
}

GCLK_TEST(time, duration_vectors)
{
	static const struct {
		const char *text;
		int64_t ns;
	} rows[] = {
		{ "1h", 3600 * NS },
		{ "5s", 5 * NS },
		{ "250ms", NS / 4 },
		{ "1.5s", NS + NS / 2 },
		{ "120", 120 * NS },
		{ "0", 0 },
		{ "0.000000001", 1 },
		{ "3d2h", (3 * 24 + 2) * 3600 * NS },
		{ "1h30min", 5400 * NS },
		{ "1h30m", 5400 * NS },
		{ "1d1h1min1s1ms1us1ns", (86400 + 3600 + 60 + 1) * NS + 1001001 },
		{ "0.3333h", INT64_C(1199880000000) },
		{ "1.5us", 1500 },
		{ "20us", 20000 },
		{ "7ns", 7 },
		{ "-20us", -20000 },
		{ "+20us", 20000 },
		{ "-1h0.5s", -(3600 * NS + NS / 2) },
		{ "1.500000000000000000000s", NS + NS / 2 },
		{ "9223372036854775807ns", INT64_MAX },
		{ "-9223372036854775808ns", INT64_MIN },
		{ "106751d23h47min16.854775807s", INT64_MAX },
		{ "0.125d0.0000000000000000ns", 10800 * NS },
	};

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		struct gclk_error err = { 0 };
		int64_t ns = 77;

		GCLK_EQ(gclk_duration_parse(rows[i].text, &ns, &err), 0);
		if (ns != rows[i].ns) {
			printf("\n    %s: %s\n", rows[i].text, err.message);
		}
		GCLK_EQ(ns, rows[i].ns);
	}
}

GCLK_TEST(time, duration_refusals)
{
	static const struct {
		const char *text;
		int status;
		unsigned at;
	} rows[] = {
		{ "", GCLK_MALFORMED, 0 },
		{ "-", GCLK_MALFORMED, 1 },
		{ "+-1s", GCLK_MALFORMED, 1 },
		{ "s", GCLK_MALFORMED, 0 },
		{ ".5s", GCLK_MALFORMED, 0 },
		{ "1.s", GCLK_MALFORMED, 2 },
		{ "1 s", GCLK_MALFORMED, 1 },
		{ " 1s", GCLK_MALFORMED, 0 },
		{ "1s ", GCLK_MALFORMED, 2 },
		{ "1sec", GCLK_MALFORMED, 1 },
		{ "1H", GCLK_MALFORMED, 1 },
		{ "1h30", GCLK_MALFORMED, 4 },
		{ "1s1h", GCLK_MALFORMED, 3 },
		{ "1s1s", GCLK_MALFORMED, 3 },
		{ "1min1m", GCLK_MALFORMED, 5 },
		{ "1h-5s", GCLK_MALFORMED, 2 },
		{ "1e3s", GCLK_MALFORMED, 1 },
		{ "0x10", GCLK_MALFORMED, 1 },
		{ "0.5ns", GCLK_LOSSY, 5 },
		{ "0.0000000001", GCLK_LOSSY, 12 },
		{ "0.0000000000000000001d", GCLK_LOSSY, 21 },
		{ "9223372036854775808ns", GCLK_RANGE, 21 },
		{ "-9223372036854775809ns", GCLK_RANGE, 22 },
		{ "106752d", GCLK_RANGE, 7 },
		{ "18446744073709551615d", GCLK_RANGE, 21 },
		{ "18446744073709551616ns", GCLK_RANGE, 0 },
	};

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		struct gclk_error err = { 0 };
		int64_t ns = 77;

		GCLK_EQ(gclk_duration_parse(rows[i].text, &ns, &err), -rows[i].status);
		if (err.offset != rows[i].at) {
			printf("\n    %s: %s\n", rows[i].text, err.message);
		}
		GCLK_EQ(err.offset, rows[i].at);
		GCLK_EQ(ns, 77);
	}
}

GCLK_TEST(time, duration_formats)
{
	static const struct {
		int64_t ns;
		const char *text;
	} rows[] = {
		{ 0, "0s" },
		{ 1, "1ns" },
		{ 1500, "1.5us" },
		{ 250000000, "250ms" },
		{ 999999999, "999.999999ms" },
		{ NS, "1s" },
		{ NS + 1, "1.000000001s" },
		{ 60 * NS, "1min" },
		{ 5400 * NS, "1h30min" },
		{ -20000, "-20us" },
		{ -((3 * 24 + 2) * 3600 * NS + NS / 2), "-3d2h0.5s" },
		{ 86400 * NS, "1d" },
		{ INT64_MAX, "106751d23h47min16.854775807s" },
		{ INT64_MIN, "-106751d23h47min16.854775808s" },
	};
	char text[GCLK_DURATION_TEXT_BYTES];

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		CU_ASSERT_STRING_EQUAL(gclk_duration_format(rows[i].ns, text),
				       rows[i].text);
	}
}

GCLK_TEST(time, durations_round_trip)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		int64_t ns = (int64_t)gclk_random() >> gclk_random_below(64), back = 77;
		char text[GCLK_DURATION_TEXT_BYTES];

		if (i & 1) {	/* round numbers have the shorter texts */
			ns = ns / NS * NS;
		}
		gclk_duration_format(ns, text);
		REQUIRE(gclk_duration_parse(text, &back, NULL) == 0 && back == ns,
			"%" PRId64 ": %s", ns, text);
	}
}

/* Any text gives a value or a refusal that points into it. */
GCLK_TEST(time, parsers_bear_anything)
{
	static const char letters[] = "0123456789.:-+@TZ dhmsnui";

	for (uint64_t i = 0; i < N_RANDOM; i++) {
		char text[] = "2026-11-21T02:26:48.123456789+01:00";
		size_t n = gclk_random_below(sizeof(text)),
		       changes = 1 + gclk_random_below(3);
		struct gclk_error err = { .offset = 0 };
		gclk_real t = { 77 };
		int64_t ns = 77;
		int r;

		for (size_t k = 0; k < changes; k++) {
			text[gclk_random_below(sizeof(text) - 1)] =
				letters[gclk_random_below(sizeof(letters) - 1)];
		}
		text[n] = '\0';
		r = gclk_real_parse(text, &t, &err);
		REQUIRE(r == 0 || (r < 0 && err.offset <= n && t.ns == 77), "%s", text);
		r = gclk_duration_parse(text + n / 2, &ns, &err);
		REQUIRE(r == 0 || (r < 0 && err.offset <= n && ns == 77), "%s",
			text + n / 2);
	}
}
