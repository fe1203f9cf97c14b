/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json_object_iterator.h>

#include "core/util.h"
#include "migrator/json-text.h"

struct out {
	char *text;
	size_t n, room;
	bool failed; /* once and for all */
};

static void put(struct out *o, const char *bytes, size_t n)
{
	if (!o->failed && o->room - o->n <= n) {
		size_t room = GCLK_MAX(2 * o->room, o->n + n + 4096);
		char *more = realloc(o->text, room);

		o->failed = !more;
		o->text = more ? more : o->text;
		o->room = more ? room : o->room;
	}
	if (!o->failed) {
		memcpy(o->text + o->n, bytes, n);
		o->n += n;
		o->text[o->n] = 0;
	}
}

static void put_word(struct out *o, const char *word)
{
	put(o, word, strlen(word));
}

static void put_string(struct out *o, const char *s, size_t n)
{
	char escaped[8];

	put(o, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\') {
			put(o, "\\", 1);
			put(o, s + i, 1);
		} else if (c < 0x20) {
			snprintf(escaped, sizeof(escaped), "\\u%04x", c);
			put_word(o, escaped);
		} else {
			put(o, s + i, 1);
		}
	}
	put(o, "\"", 1);
}

static void new_line(struct out *o, unsigned level)
{
	put(o, "\n", 1);
	for (unsigned i = 0; i < level; i++) {
		put(o, "  ", 2);
	}
}

static void put_value(struct out *o, struct json_object *value, unsigned level);

static void put_map(struct out *o, struct json_object *map, unsigned level)
{
	struct json_object_iterator at = json_object_iter_begin(map);
	struct json_object_iterator end = json_object_iter_end(map);
	bool first = true;

	put(o, "{", 1);
	for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		const char *name = json_object_iter_peek_name(&at);

		put(o, ",", !first);
		first = false;
		new_line(o, level + 1);
		put_string(o, name, strlen(name));
		put(o, ": ", 2);
		put_value(o, json_object_iter_peek_value(&at), level + 1);
	}
	if (!first) {
		new_line(o, level);
	}
	put(o, "}", 1);
}

static void put_list(struct out *o, struct json_object *list, unsigned level)
{
	size_t n = json_object_array_length(list);

	put(o, "[", 1);
	for (size_t i = 0; i < n; i++) {
		put(o, ",", i > 0);
		new_line(o, level + 1);
		put_value(o, json_object_array_get_idx(list, i), level + 1);
	}
	if (n > 0) {
		new_line(o, level);
	}
	put(o, "]", 1);
}

static void put_number(struct out *o, struct json_object *value)
{
	char digits[24];

	/* json-c keeps what does not fit into int64_t as uint64_t */
	if (json_object_get_int64(value) < INT64_MAX) {
		snprintf(digits, sizeof(digits), "%" PRId64, json_object_get_int64(value));
	} else {
		snprintf(digits, sizeof(digits), "%" PRIu64, json_object_get_uint64(value));
	}
	put_word(o, digits);
}

/* The depth is that of our own answers, or of what json-c has read: 32. */
static void put_value(struct out *o, struct json_object *value, unsigned level)
{
	switch (json_object_get_type(value)) {
	case json_type_object:
		put_map(o, value, level);
		break;
	case json_type_array:
		put_list(o, value, level);
		break;
	case json_type_string:
		put_string(o, json_object_get_string(value),
			   (size_t)json_object_get_string_len(value));
		break;
	case json_type_boolean:
		put_word(o, json_object_get_boolean(value) ? "true" : "false");
		break;
	case json_type_int:
		put_number(o, value);
		break;
	case json_type_double: /* in none of our answers */
	case json_type_null:
		put_word(o, "null");
		break;
	}
}

char *json_to_text(struct json_object *tree, size_t *ret_size)
{
	struct out o = { 0 };

	put_value(&o, tree, 0);
	if (o.failed) {
		free(o.text);
		return NULL;
	}
	if (ret_size) {
		*ret_size = o.n;
	}
	return o.text;
}
