/* SPDX-License-Identifier: MIT */
#include <limits.h>
#include <string.h>

#include "core/text.h"
#include "core/util.h"
#include "gclk-test.h"

__attribute__((format(printf, 3, 4))) static void format(char *to, size_t size,
							 const char *format, ...)
{
	va_list args;

	va_start(args, format);
	gclk_text_vformat(to, size, format, args);
	va_end(args);
}

/* The oracle is the C library. */
#define SAME(size, ...)                                                           \
	do {                                                                      \
		char ours[128], theirs[128];                                      \
		memset(ours, 'x', sizeof(ours));                                  \
		format(ours, (size), __VA_ARGS__);                                \
		snprintf(theirs, (size), __VA_ARGS__);                            \
		if (strcmp(ours, theirs)) {                                       \
			printf("\n    \"%s\" is not \"%s\"\n", ours, theirs);     \
		}                                                                 \
		CU_ASSERT(!strcmp(ours, theirs) && ours[size] == 'x');            \
	} while (0)

GCLK_TEST(text, formats_as_the_c_library)
{
	static const long long numbers[] = { 0, 1, -1, 9, 10, -10, 999, 1000, INT_MAX, INT_MIN,
					     LLONG_MAX, LLONG_MIN };

	for (unsigned i = 0; i < GCLK_COUNT(numbers); i++) {
		long long n = numbers[i];

		SAME(120, "a %d b %u c %ld d %lu e %lld f %llu.", (int)n, (unsigned)n, (long)n,
		     (unsigned long)n, n, (unsigned long long)n);
		SAME(120, "%03d|%09lld|%05u", (int)n, n, (unsigned)n);
		SAME(120, "%x %5d %-4d| %.2s %c %% %s %p", (unsigned)n, (int)n, (int)n, "abc", 'd',
		     "e", (const void *)numbers);
	}
	SAME(120, "no conversion");
	SAME(120, "%s%s", "", "two");
	for (volatile unsigned size = 1; size < 30; size++) {
		SAME(size, "%s and %llu and %s", "one", 1234567890123ULL, "three");
	}
}

GCLK_TEST(text, copies_what_fits)
{
	char to[8];

	gclk_text_copy(to, sizeof(to), "1234567890");
	CU_ASSERT(!strcmp(to, "1234567"));
	gclk_text_copy(to, sizeof(to), "");
	CU_ASSERT(!strcmp(to, ""));
}

GCLK_TEST(text, utf8_has_one_form)
{
	static const struct {
		const char *text;
		bool fine;
	} cases[] = {
		{ "", true }, { "abc\x7f", true }, { "\xc2\x80", true }, { "\xdf\xbf", true },
		{ "\xe0\xa0\x80", true }, { "\xed\x9f\xbf", true }, { "\xee\x80\x80", true },
		{ "\xf0\x90\x80\x80", true }, { "\xf4\x8f\xbf\xbf", true },
		{ "\x80", false }, { "\xc0\xaf", false }, { "\xc1\xbf", false },
		{ "\xe0\x9f\xbf", false }, { "\xed\xa0\x80", false },
		{ "\xf0\x8f\xbf\xbf", false }, { "\xf4\x90\x80\x80", false },
		{ "\xf5\x80\x80\x80", false }, { "\xff", false }, { "\xc2" "a", false },
		{ "\xe2\x82" "a", false }, { "\xf0\x9f\x98" "a", false },
	};

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		size_t n = strlen(cases[i].text);

		CU_ASSERT(gclk_text_is_utf8(cases[i].text, n) == cases[i].fine);
		/* what ends in the middle of a character is none */
		for (size_t cut = 1; cases[i].fine && n < 5 && cut < n && i > 1; cut++) {
			CU_ASSERT(!gclk_text_is_utf8(cases[i].text, cut));
		}
	}
	CU_ASSERT(gclk_text_is_utf8("a\0b", 3));
}
