/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "image/qemu/json.h"

static void fail(struct gclk_json *j, const char *why)
{
	if (!j->why) {
		j->why = why;
	}
}

char gclk_json_peek(struct gclk_json *j)
{
	const char *p = j->text + j->at, *end = j->text + j->size;
	char c = 0;

	if (j->why) {
		return 0;
	}
	while (p < end && ((c = *p) == ' ' || c == '\n' || c == '\t' || c == '\r')) {
		p++;
	}
	j->at = (size_t)(p - j->text);
	return p < end ? c : 0;
}

static bool accept(struct gclk_json *j, char c)
{
	if (gclk_json_peek(j) != c) {
		return false;
	}
	j->at++;
	return true;
}

void gclk_json_enter(struct gclk_json *j, char open)
{
	if (!accept(j, open)) {
		fail(j, open == '{' ? "an object was expected" : "an array was expected");
	} else if (++j->depth > j->max_depth) {
		fail(j, "nested too deeply");
	}
	j->fresh = true;
}

/* Steps to the next item of a container, or over its closing bracket. */
static bool next(struct gclk_json *j, char close)
{
	bool fresh = j->fresh;

	j->fresh = false;
	if (accept(j, close)) {
		j->depth--;
		return false;
	}
	if (!fresh && !accept(j, ',')) {
		fail(j, "a comma or a closing bracket was expected");
	}
	return !j->why;
}

bool gclk_json_element(struct gclk_json *j)
{
	return next(j, ']');
}

bool gclk_json_member(struct gclk_json *j, const char **ret_key)
{
	size_t key;

	if (!next(j, '}')) {
		return false;
	}
	key = gclk_json_string(j);
	if (!accept(j, ':')) {
		fail(j, "a colon was expected");
	}
	if (j->why) {
		return false;
	}
	*ret_key = j->text + key;
	return true;
}

static int hex4(const char *p)
{
	int v = 0;

	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int digit = c >= '0' && c <= '9' ? c - '0' :
			    c >= 'a' && c <= 'f' ? c - 'a' + 10 :
			    c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0) {
			return -1;
		}
		v = v << 4 | digit;
	}
	return v;
}

/*
 * \uXXXX as UTF-8, which is never longer than its escape; halves of a surrogate
 * pair are encoded on their own, since names are compared and not displayed.
 */
static size_t put_utf8(char *to, int v)
{
	if (v < 0x80) {
		to[0] = (char)v;
		return 1;
	}
	if (v < 0x800) {
		to[0] = (char)(0xc0 | v >> 6);
		to[1] = (char)(0x80 | (v & 0x3f));
		return 2;
	}
	to[0] = (char)(0xe0 | v >> 12);
	to[1] = (char)(0x80 | (v >> 6 & 0x3f));
	to[2] = (char)(0x80 | (v & 0x3f));
	return 3;
}

/* One escape sequence behind its backslash; returns the bytes written to @to. */
static size_t unescape(struct gclk_json *j, char *to)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	const char *simple;
	char c;
	int v;

	if (j->at >= j->size) {
		return 0;
	}
	c = j->text[j->at++];
	if (c == 'u') {
		v = j->size - j->at >= 4 ? hex4(j->text + j->at) : -1;
		if (v <= 0) {
			fail(j, "a bad \\u escape in a string");
			return 0;
		}
		j->at += 4;
		return put_utf8(to, v);
	}
	simple = c ? strchr(from, c) : NULL;
	if (!simple) {
		fail(j, "a bad escape in a string");
		return 0;
	}
	*to = into[simple - from];
	return 1;
}

/* What ends a run of characters that stand for themselves; the text's own end among them. */
static const bool ends_run[256] = {
	[0] = 1,  [1] = 1,  [2] = 1,  [3] = 1,  [4] = 1,  [5] = 1,  [6] = 1,  [7] = 1,
	[8] = 1,  [9] = 1,  [10] = 1, [11] = 1, [12] = 1, [13] = 1, [14] = 1, [15] = 1,
	[16] = 1, [17] = 1, [18] = 1, [19] = 1, [20] = 1, [21] = 1, [22] = 1, [23] = 1,
	[24] = 1, [25] = 1, [26] = 1, [27] = 1, [28] = 1, [29] = 1, [30] = 1, [31] = 1,
	['"'] = 1, ['\\'] = 1,
};

/* The writer escapes hardly ever. */
static void skip_plain(struct gclk_json *j)
{
	const char *p = j->text + j->at;

	while (!ends_run[(unsigned char)*p]) {
		p++;
	}
	j->at = (size_t)(p - j->text);
}

size_t gclk_json_string(struct gclk_json *j)
{
	size_t start, from, to;

	if (!accept(j, '"')) {
		fail(j, "a string was expected");
		return 0;
	}
	start = to = j->at;
	j->has_control = false;
	while (!j->why) {
		char c;

		from = j->at;
		skip_plain(j);
		if (to != from) {
			memmove(j->text + to, j->text + from, j->at - from);
		}
		to += j->at - from;
		c = j->at < j->size ? j->text[j->at] : 0;
		if (c == '"') {
			j->text[to] = 0;	/* at most where the quote was */
			j->at++;
			return start;
		}
		if (c != '\\') {
			fail(j, j->at < j->size ? "a control character in a string" :
						  "a string without an end");
			break;
		}
		j->at++;
		from = to;
		to += unescape(j, j->text + to);
		j->has_control |= to > from && (unsigned char)j->text[from] < 0x20;
	}
	fail(j, "a string without an end");
	return 0;
}

int64_t gclk_json_int(struct gclk_json *j)
{
	bool negative = accept(j, '-');
	uint64_t v = 0;
	size_t digits = 0;

	if (!negative) {
		(void)gclk_json_peek(j);	/* over white space */
	}
	while (!j->why && j->at < j->size && j->text[j->at] >= '0' &&
	       j->text[j->at] <= '9') {
		v = v * 10 + (uint64_t)(j->text[j->at++] - '0');
		if (++digits > 18) {
			fail(j, "a number out of range");
		}
	}
	if (!digits) {
		fail(j, "a number was expected");
	}
	if (j->why) {
		return 0;
	}
	if (j->at < j->size && strchr(".eE", j->text[j->at])) {
		fail(j, "a whole number was expected");
	}
	return negative ? -(int64_t)v : (int64_t)v;
}

/* true, false, null and numbers, for skipping only. */
static void skip_word(struct gclk_json *j)
{
	size_t start = j->at;

	while (j->at < j->size) {
		char c = j->text[j->at];

		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' ||
		      c == '+' || c == '.' || c == 'E')) {
			break;
		}
		j->at++;
	}
	if (j->at == start) {
		fail(j, "a value was expected");
	}
}

void gclk_json_skip(struct gclk_json *j)
{
	const char *key;

	switch (gclk_json_peek(j)) {
	case '{':
		gclk_json_enter(j, '{');
		while (gclk_json_member(j, &key)) {
			gclk_json_skip(j);
		}
		break;
	case '[':
		gclk_json_enter(j, '[');
		while (gclk_json_element(j)) {
			gclk_json_skip(j);
		}
		break;
	case '"':
		(void)gclk_json_string(j);
		break;
	default:
		skip_word(j);
	}
}

void gclk_json_finish(struct gclk_json *j)
{
	if (!j->why && (gclk_json_peek(j) || j->at < j->size)) {
		fail(j, "text behind the end");
	}
}
