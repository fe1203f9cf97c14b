/* SPDX-License-Identifier: MIT */
/* Numbers and foreign text on their way to a person. */
#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "gclk-test.h"
#include "migrator/message.h"
#include "migrator/text.h"

GCLK_TEST(text, counts_in_groups_of_three)
{
	char to[TEXT_BYTES];

	CU_ASSERT_STRING_EQUAL(text_count(to, 0), "0");
	CU_ASSERT_STRING_EQUAL(text_count(to, 999), "999");
	CU_ASSERT_STRING_EQUAL(text_count(to, 1000), "1 000");
	CU_ASSERT_STRING_EQUAL(text_count(to, UINT64_MAX), "18 446 744 073 709 551 615");
	CU_ASSERT_STRING_EQUAL(text_signed(to, INT64_MIN), "-9 223 372 036 854 775 808");
	CU_ASSERT_STRING_EQUAL(text_signed(to, 12), "+12");
}

GCLK_TEST(text, approximate_spans)
{
	char to[TEXT_BYTES];

	CU_ASSERT_STRING_EQUAL(text_approx(to, 0), "0 ns");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 999), "999 ns");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 1000), "1.00 us");
	CU_ASSERT_STRING_EQUAL(text_approx(to, -12345678), "-12.3 ms");
	CU_ASSERT_STRING_EQUAL(text_approx(to, -2999999737), "-3.00 s");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 999500), "1.00 ms");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 999499), "999 us");
	CU_ASSERT_STRING_EQUAL(text_uncertain(to, 3551000) + strlen("±"), "3.56 ms");
	CU_ASSERT_STRING_EQUAL(text_uncertain(to, 3550000) + strlen("±"), "3.55 ms");
	CU_ASSERT_STRING_EQUAL(text_uncertain(to, INT64_MAX) + strlen("±"), "106752 d 0 h");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 119900000000), "2 min 0 s");
	CU_ASSERT_STRING_EQUAL(text_approx(to, 120000000000), "2 min 0 s");
	CU_ASSERT_STRING_EQUAL(text_approx(to, INT64_C(7980) * 1000000000), "2 h 13 min");
	CU_ASSERT_STRING_EQUAL(text_approx(to, INT64_C(90000) * 1000000000), "1 d 1 h");
	CU_ASSERT_STRING_EQUAL(text_approx(to, INT64_MIN), "-106752 d 0 h");
}

GCLK_TEST(text, frequencies_are_exact)
{
	char to[TEXT_BYTES];

	CU_ASSERT_STRING_EQUAL(text_hz(to, 2000000000, 1), "2 GHz");
	CU_ASSERT_STRING_EQUAL(text_hz(to, 2000000123, 1), "2.000000123 GHz");
	CU_ASSERT_STRING_EQUAL(text_hz(to, 1193182, 1), "1.193182 MHz");
	CU_ASSERT_STRING_EQUAL(text_hz(to, 1, 1), "1 Hz");
	CU_ASSERT_STRING_EQUAL(text_hz(to, UINT64_C(1000000000000000), 10000000),
			       "100 MHz");
	CU_ASSERT_STRING_EQUAL(text_hz(to, UINT64_C(1000000000000000), 69841279),
			       "14.31817994 MHz");
}

GCLK_TEST(text, decimals_follow_the_uncertainty)
{
	char to[TEXT_BYTES];

	CU_ASSERT_STRING_EQUAL(text_instant(to, 1500000001, UINT64_C(2000000000)),
			       "1970-01-01 00:00:01 UTC");
	CU_ASSERT_STRING_EQUAL(text_instant(to, 1500000001, 5000000),
			       "1970-01-01 00:00:01.500 UTC");
	CU_ASSERT_STRING_EQUAL(text_instant(to, 1500000001, 0),
			       "1970-01-01 00:00:01.500000001 UTC");
}

GCLK_TEST(text, local_time_names_its_zone)
{
	char to[TEXT_BYTES];

	setenv("TZ", "CET-1", 1);
	CU_ASSERT_STRING_EQUAL(text_local(to, 1500000000, 2000000000),
			       "01:00:01.500 (CET)");
	CU_ASSERT_STRING_EQUAL(text_local(to, 1500000000, INT64_C(172800) * 1000000000),
			       "1970-01-01 01:00:01.500 (CET)");
	/* before 1970 the second still begins below */
	CU_ASSERT_STRING_EQUAL(text_local(to, -1, 0), "00:59:59.999 (CET)");
	unsetenv("TZ");
}

/* What a guest can put into a name does not reach the terminal. */
GCLK_TEST(text, foreign_text_is_cleaned)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "web1", "web1" },
		{ "a\033[31mb", "a?[31mb" },
		{ "a\tb\nc", "a?b?c" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xc2\x9b"
		  "31m",
		  "??31m" },	      /* C1 control sequence introducer */
		{ "\xc0\xaf", "??" }, /* overlong */
		{ "\xe2\x80\xae"
		  "abc",
		  "???abc" }, /* turns the direction of writing */
		{ "\xe2\x81\xa7", "???" }, /* so does this */
		{ "\xed\xa0\x80", "???" }, /* half of a pair of UTF-16's */
		{ "\xf4\x90\x80\x80", "????" }, /* beyond what Unicode has */
		{ "\xf0\x9f\x95\x90", "\xf0\x9f\x95\x90" },
		{ "\xff\xfe", "??" },
		{ "end\xe2\x82", "end??" },
	};
	char to[64];

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CU_ASSERT_STRING_EQUAL(clean_text(to, sizeof(to), rows[i].in),
				       rows[i].out);
	}
}

GCLK_TEST(text, what_does_not_fit_is_cut_visibly)
{
	char to[8];

	CU_ASSERT_STRING_EQUAL(clean_text(to, sizeof(to), "1234567"), "1234567");
	CU_ASSERT_STRING_EQUAL(clean_text(to, sizeof(to), "12345678"), "1234...");
	CU_ASSERT_STRING_EQUAL(clean_text(to, sizeof(to), "123\xc3\xbc\xc3\xbc\xc3\xbc"),
			       "123...");
}

/* Never longer than the buffer, never a control character, always UTF-8, whatever the bytes. */
GCLK_TEST(text, random_bytes_come_out_clean)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		char in[40], to[32];
		size_t n = gclk_random_below(sizeof(in) - 1),
		       size = 5 + gclk_random_below(27);

		for (size_t k = 0; k < n; k++) {
			/* of half of the bytes such that characters of several may come of them */
			in[k] = (char)(gclk_random_below(2) ? 1 + gclk_random_below(255)
							    : 0x80 + gclk_random_below(0x78));
		}
		in[n] = 0;
		memset(to, 0x55, sizeof(to));
		clean_text(to, size, in);
		CU_ASSERT(strlen(to) < size);
		for (const char *s = to; *s; s++) {
			CU_ASSERT((unsigned char)*s >= 0x20 && *s != 0x7f);
		}
		CU_ASSERT(gclk_text_is_utf8(to, strlen(to)));
		CU_ASSERT(size == sizeof(to) || to[size] == 0x55);
	}
}

GCLK_TEST(text, shell_quoting)
{
	char to[64];

	CU_ASSERT_STRING_EQUAL(shell_quote(to, sizeof(to), "/a/b-1.save"), "/a/b-1.save");
	CU_ASSERT_STRING_EQUAL(shell_quote(to, sizeof(to), "a b"), "'a b'");
	CU_ASSERT_STRING_EQUAL(shell_quote(to, sizeof(to), "it's"), "'it'\\''s'");
	CU_ASSERT_STRING_EQUAL(shell_quote(to, sizeof(to), ""), "''");
}
