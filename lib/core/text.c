/* SPDX-License-Identifier: MIT */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/text.h"
#include "core/util.h"

/* Where the text goes on; @end is where its NUL must stand at the latest. */
struct text {
	char *at, *end;
};

static void put(struct text *text, const char *from, size_t n)
{
	n = GCLK_MIN(n, (size_t)(text->end - text->at));
	memcpy(text->at, from, n);
	text->at += n;
}

void gclk_text_copy(char *to, size_t size, const char *from)
{
	struct text text = { to, to + size - 1 };

	put(&text, from, strlen(from));
	*text.at = 0;
}

static void put_number(struct text *text, uint64_t value, bool negative, unsigned width)
{
	char digits[24], *first = digits + sizeof(digits);
	unsigned n;

	do {
		*--first = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	for (n = (unsigned)(digits + sizeof(digits) - first) + negative; n < width && n < 20; n++) {
		*--first = '0';
	}
	if (negative) {
		*--first = '-';
	}
	put(text, first, (size_t)(digits + sizeof(digits) - first));
}

static void put_signed(struct text *text, int64_t value, unsigned width)
{
	put_number(text, value < 0 ? -(uint64_t)value : (uint64_t)value, value < 0, width);
}

/* One conversion, whose % is behind; where the format goes on, or NULL: not known here. */
static const char *convert(struct text *text, const char *f, va_list *args)
{
	unsigned width = 0, n_long = 0;
	const char *s;

	if (*f == '0' && f[1] >= '1' && f[1] <= '9') {
		width = (unsigned)(f[1] - '0');
		f += 2;
	}
	for (; *f == 'l' && n_long < 2; f++) {
		n_long++;
	}
	switch (*f) {
	case 'd':
		put_signed(text, n_long == 2 ? va_arg(*args, long long) :
				 n_long ? va_arg(*args, long) : va_arg(*args, int), width);
		return f + 1;
	case 'u':
		put_number(text, n_long == 2 ? va_arg(*args, unsigned long long) :
				 n_long ? va_arg(*args, unsigned long) : va_arg(*args, unsigned),
			   false, width);
		return f + 1;
	case 's':
		if (width || n_long) {
			return NULL;
		}
		s = va_arg(*args, const char *);
		put(text, s, strlen(s));
		return f + 1;
	default:
		return NULL;
	}
}

void gclk_text_vformat(char *to, size_t size, const char *format, va_list args)
{
	struct text text = { to, to + size - 1 };
	const char *f = format, *end;
	va_list left;

	va_copy(left, args);
	while (f && *f) {
		end = strchrnul(f, '%');
		put(&text, f, (size_t)(end - f));
		f = *end ? convert(&text, end + 1, &left) : end;
	}
	va_end(left);
	*text.at = 0;
	if (!f) {
		vsnprintf(to, size, format, args);
	}
}

bool gclk_text_is_utf8(const char *text, size_t size)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + size;

	while (p < end) {
		unsigned char c = *p++;
		unsigned more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
		unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;

		if ((c >= 0x80 && c < 0xc2) || c > 0xf4) {
			return false;
		}
		for (; more > 0; more--, low = 0x80, high = 0xbf) {
			if (p == end || *p < low || *p > high) {
				return false;
			}
			p++;
		}
	}
	return true;
}

void gclk_text_tame(char *text, size_t size)
{
	size_t n;

	text[size - 1] = 0;
	n = strlen(text);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];

		text[i] = c < ' ' || c == 0x7f ? '?' : text[i];
	}
	memset(text + n, 0, size - n);
}
