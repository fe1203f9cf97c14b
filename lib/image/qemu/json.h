/* SPDX-License-Identifier: MIT */
/*
 * A pull reader of JSON that builds nothing: the caller asks for what it expects,
 * skips what it does not know, and keeps strings as offsets into the text, where
 * they are unescaped and NUL-terminated in place. Memory is the text's own.
 *
 *	gclk_json_enter(&j, '{');
 *	while (gclk_json_member(&j, &key)) {
 *		if (!strcmp(key, "size")) {
 *			size = gclk_json_int(&j);
 *		} else {
 *			gclk_json_skip(&j);
 *		}
 *	}
 *
 * The first failure is remembered in @why with its position in @at; from then on
 * every call fails, so callers check once, at the end of each loop or of all.
 */
#ifndef GCLK_IMAGE_QEMU_JSON_H
#define GCLK_IMAGE_QEMU_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gclk_json {
	char *text;		/* text[size] is 0 */
	size_t size, at;
	unsigned depth, max_depth;
	bool fresh;		/* just behind an opening bracket: no comma yet */
	bool has_control;	/* the last string holds an escaped control character */
	const char *why;	/* NULL while all is well */
};

/* Next byte that is not white space, or 0 at the end or after a failure. */
char gclk_json_peek(struct gclk_json *j);

/* @open: '{' or '['. */
void gclk_json_enter(struct gclk_json *j, char open);

/* True: at the value of the member @ret_key. False: the object ended, or failure. */
bool gclk_json_member(struct gclk_json *j, const char **ret_key);

/* True: at the next element of an array. False: it ended, or failure. */
bool gclk_json_element(struct gclk_json *j);

/* Offset of a string in @text; 0 on failure (no string can begin there). */
size_t gclk_json_string(struct gclk_json *j);

/* A whole number; 0 on failure. */
int64_t gclk_json_int(struct gclk_json *j);

/* Any one value. */
void gclk_json_skip(struct gclk_json *j);

/* Nothing but white space may be left. */
void gclk_json_finish(struct gclk_json *j);

#endif
