/* SPDX-License-Identifier: MIT */
/*
 * JSON to records: json-state.h says what is accepted. Text comes from anywhere,
 * and a tree takes up to three hundred times the bytes of its text ("{},{},{}"),
 * so its size is reckoned before it is made.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json_tokener.h>
#include <json-c/linkhash.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/json-state.h"

#define PATH_BYTES 96
#define DEPTH_MAX 16		/* no object of ours is deeper than 7 */

#define TEXT_MAX_BYTES ((size_t)16 << 20)

/*
 * What json-c 0.16 takes for an object, a list, a member and an element, with the
 * table that grows beside the old one: a member can then take 300 for a moment.
 */
#define TREE_MAX_BYTES ((size_t)44 << 20)
#define OBJECT_BYTES 800
#define LIST_BYTES 160
#define MEMBER_BYTES 220
#define ELEMENT_BYTES 105

static int malformed(struct gclk_error *reterr, const char *path, const char *what)
{
	return gclk_fail(reterr, GCLK_MALFORMED, path, GCLK_NO_OFFSET, "%s", what);
}

/* Paths are for people: one that is too long is cut. */
static void join(char where[PATH_BYTES], const char *path, const char *name)
{
	if (snprintf(where, PATH_BYTES, "%s%s%s", path, *path ? "." : "", name) < 0) {
		*where = 0;
	}
}

static void join_index(char where[PATH_BYTES], const char *path, size_t i)
{
	if (snprintf(where, PATH_BYTES, "%s[%zu]", path, i) < 0) {
		*where = 0;
	}
}

/* ---- text to tree ---- */

/* The end of the string that begins at @i, or the text's end. */
static size_t string_end(const char *text, size_t size, size_t i)
{
	for (i++; i < size && text[i] != '"'; i++) {
		i += text[i] == '\\';
	}
	return i;
}

/*
 * Refuses a text whose tree would take too much memory. json-c takes names in
 * single quotes even when it is strict; here they would hide what is counted.
 */
static int reckon(const char *text, size_t size, struct gclk_error *reterr)
{
	size_t bytes = 0;
	uint64_t lists = 0;	/* bit 0: the innermost bracket is a list's */

	for (size_t i = 0; i < size && bytes <= TREE_MAX_BYTES; i++) {
		switch (text[i]) {
		case '"':
			i = string_end(text, size, i);
			break;
		case '\'':
			return gclk_fail(reterr, GCLK_MALFORMED, "json", i,
					 "JSON has no single quotes");
		case '{':
			bytes += OBJECT_BYTES;
			lists <<= 1;
			break;
		case '[':
			bytes += LIST_BYTES + ELEMENT_BYTES;
			lists = lists << 1 | 1;
			break;
		case '}':
		case ']':
			lists >>= 1;
			break;
		case ':':
			bytes += MEMBER_BYTES;
			break;
		case ',':
			bytes += lists & 1 ? ELEMENT_BYTES : 0;
			break;
		default:
			break;
		}
	}
	if (bytes > TREE_MAX_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "json", GCLK_NO_OFFSET,
				 "the JSON would take more than %zu bytes of memory",
				 TREE_MAX_BYTES);
	}
	return 0;
}

/* The bytes of the character at @text, which is UTF-8; its number. */
static unsigned character(const char *text, uint32_t *ret)
{
	const unsigned char *p = (const unsigned char *)text;
	unsigned n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;

	*ret = n == 1 ? *p : *p & (0x7fU >> n);
	for (unsigned i = 1; i < n; i++) {
		*ret = *ret << 6 | (p[i] & 0x3f);
	}
	return n;
}

/*
 * The next piece of a text in ASCII: a character, or what a backslash escapes as it is.
 * Returns the bytes of the text that it stands for.
 */
static unsigned next_piece(const char *text, size_t left, char to[13], unsigned *ret_n)
{
	uint32_t c;
	unsigned n = character(text, &c);

	if (n == 1 && (c != '\\' || left == 1)) {
		*ret_n = 1;
		to[0] = *text;
	} else if (n == 1) {
		n += character(text + 1, &c);
		*ret_n = n;
		memcpy(to, text, n);
	} else if (c < 0x10000) {
		*ret_n = (unsigned)snprintf(to, 13, "\\u%04x", c & 0xffff);
	} else {
		*ret_n = (unsigned)snprintf(to, 13, "\\u%04x\\u%04x",
					    0xd7c0 + (c >> 10 & 0x7ff), 0xdc00 + (c & 0x3ff));
	}
	return n;
}

/*
 * The text with \u for all that is not ASCII, NULL without memory. Told to be strict,
 * json-c 0.18 (Debian 13) takes the bytes of such characters for control characters.
 */
static char *in_ascii(const char *text, size_t size, size_t *ret_size)
{
	char *ascii = malloc(3 * size + 13), *to = ascii;
	unsigned n;

	for (size_t i = 0; ascii && i < size; to += n) {
		i += next_piece(text + i, size - i, to, &n);
	}
	*ret_size = ascii ? (size_t)(to - ascii) : 0;
	return ascii;
}

/* Where in @text that is whose offset in ASCII is @at. */
static size_t before_escapes(const char *text, size_t size, size_t at)
{
	size_t i = 0;
	unsigned n;

	for (size_t before = 0; i < size && before < at; before += n) {
		char piece[13];

		i += next_piece(text + i, size - i, piece, &n);
		if (n == 2 && before + 1 == at) {	/* between a backslash and its character */
			return i - 1;
		}
	}
	return i;
}

static int parse_with(struct json_tokener *tokener, const char *text, size_t size,
		      struct json_object **ret, struct gclk_error *reterr)
{
	size_t n;
	char *ascii = in_ascii(text, size, &n);
	struct json_object *tree = ascii ? json_tokener_parse_ex(tokener, ascii, (int)n) : NULL;
	enum json_tokener_error error = json_tokener_get_error(tokener);
	size_t end = before_escapes(text, size, json_tokener_get_parse_end(tokener));

	free(ascii);
	if (!ascii) {
		return gclk_fail(reterr, GCLK_NOMEM, "json", GCLK_NO_OFFSET, "out of memory");
	}
	if (error == json_tokener_continue) {
		json_object_put(tree);
		return gclk_fail(reterr, GCLK_TRUNCATED, "json", size, "the JSON has no end");
	}
	while (error == json_tokener_success && end < size && strchr(" \t\r\n", text[end]) &&
	       text[end]) {
		end++;
	}
	if (error != json_tokener_success || end < size ||
	    !json_object_is_type(tree, json_type_object)) {
		json_object_put(tree);
		return gclk_fail(reterr, GCLK_MALFORMED, "json", end, "%s",
				 error != json_tokener_success ? json_tokener_error_desc(error) :
				 end < size ? "something follows the JSON object" :
					      "it is no JSON object");
	}
	*ret = tree;
	return 0;
}

int json_parse(const char *text, size_t size, struct json_object **ret,
	       struct gclk_error *reterr)
{
	struct json_tokener *tokener;
	int r;

	if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
		text += 3;
		size -= 3;
	}
	if (size > TEXT_MAX_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "json", GCLK_NO_OFFSET,
				 "%zu bytes of JSON are more than %zu", size, TEXT_MAX_BYTES);
	}
	r = reckon(text, size, reterr);
	if (r < 0) {
		return r;
	}
	if (!gclk_text_is_utf8(text, size)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "json", GCLK_NO_OFFSET,
				 "the JSON is no UTF-8");
	}
	tokener = json_tokener_new_ex(DEPTH_MAX);
	if (!tokener) {
		return gclk_fail(reterr, GCLK_NOMEM, "json", GCLK_NO_OFFSET, "out of memory");
	}
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	r = parse_with(tokener, text, size, ret, reterr);
	json_tokener_free(tokener);
	return r;
}

/* ---- one value ---- */

/* The text of a JSON string without a NUL in it, or NULL. */
static const char *text_of(struct json_object *value)
{
	const char *text;

	if (!json_object_is_type(value, json_type_string)) {
		return NULL;
	}
	text = json_object_get_string(value);
	return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool is_signed(const struct gclk_field *field)
{
	return field->type == GCLK_TYPE_i32 || field->type == GCLK_TYPE_i64;
}

/* "-12", "18446744073709551615": digits and nothing else. */
static bool decimal(const char *text, bool with_sign, uint64_t *ret)
{
	bool negative = with_sign && *text == '-';
	char *end;

	text += negative;
	if (*text < '0' || *text > '9') {
		return false;
	}
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || *end || (with_sign && *ret > (uint64_t)INT64_MAX + negative)) {
		return false;
	}
	*ret = negative ? 0 - *ret : *ret;
	return true;
}

/* An integer, as a number or as a string of digits. */
static bool integer(struct json_object *value, bool with_sign, uint64_t *ret)
{
	const char *text = text_of(value);

	if (text) {
		return decimal(text, with_sign, ret);
	}
	if (!json_object_is_type(value, json_type_int)) {
		return false;
	}
	if (json_object_get_int64(value) < 0) {
		*ret = (uint64_t)json_object_get_int64(value);
		return with_sign;
	}
	*ret = json_object_get_uint64(value);
	return !with_sign || *ret <= INT64_MAX;
}

static bool fits(const struct gclk_field *field, uint64_t value)
{
	if (field->type == GCLK_TYPE_i32) {
		return (int64_t)value >= INT32_MIN && (int64_t)value <= INT32_MAX;
	}
	return field->size >= 8 || value >> 8 * field->size == 0;
}

static bool named(struct json_object *value, const struct gclk_field *field, uint64_t *ret)
{
	const char *text = text_of(value);

	for (const struct gclk_name *n = field->names; text && n->name; n++) {
		if (!strcmp(n->name, text)) {
			*ret = n->value;
			return true;
		}
	}
	return false;
}

static int number(struct json_object *value, const struct gclk_field *field, void *base,
		  const char *where, struct gclk_error *reterr)
{
	uint64_t n;

	if (field->unit == GCLK_UNIT_BOOL && json_object_is_type(value, json_type_boolean)) {
		n = json_object_get_boolean(value) != 0;
	} else if (field->unit == GCLK_UNIT_ENUM && named(value, field, &n)) {
		/* n is its value */
	} else if (!integer(value, is_signed(field), &n)) {
		return malformed(reterr, where, field->unit == GCLK_UNIT_ENUM ?
						"this is none of the field's names" :
						"this is no integer of the field's kind");
	}
	if (!fits(field, n)) {
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "the value does not fit its field");
	}
	gclk_record_set(base, field, n);
	return 0;
}

static void mark_present(void *base, const struct gclk_field *field)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	has |= UINT64_C(1) << field->index;
	memcpy(base, &has, sizeof(has));
}

static int text(struct json_object *value, const struct gclk_field *field, void *base,
		const char *where, struct gclk_error *reterr)
{
	const char *t = text_of(value);

	if (!t) {
		return malformed(reterr, where, "this is no text");
	}
	if (strlen(t) >= field->size) {
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "the text has %zu bytes, at most %d are possible", strlen(t),
				 field->size - 1);
	}
	memcpy((char *)base + field->offset, t, strlen(t) + 1);
	mark_present(base, field);
	return 0;
}

static int digit64(char c)
{
	if (c >= 'A' && c <= 'Z') {
		return c - 'A';
	}
	if (c >= 'a' && c <= 'z') {
		return c - 'a' + 26;
	}
	if (c >= '0' && c <= '9') {
		return c - '0' + 52;
	}
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* Exactly @n bytes; both alphabets, padding optional, as protobuf's JSON has it. */
static bool unbase64(const char *t, unsigned char *to, size_t n)
{
	uint32_t bits = 0;
	unsigned have = 0;
	size_t used = 0;
	int digit;

	for (; (digit = digit64(*t)) >= 0; t++) {
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			if (used == n) {
				return false;
			}
			to[used++] = (unsigned char)(bits >> have);
		}
	}
	t += strspn(t, "=");
	return *t == 0 && used == n && have < 6 && (bits & ((1u << have) - 1)) == 0;
}

static int bytes(struct json_object *value, const struct gclk_field *field, void *base,
		 const char *where, struct gclk_error *reterr)
{
	const char *t = text_of(value);

	if (!t || !unbase64(t, (unsigned char *)base + field->offset, field->size)) {
		return gclk_fail(reterr, GCLK_MALFORMED, where, GCLK_NO_OFFSET,
				 "this is not base64 of %u bytes", field->size);
	}
	mark_present(base, field);
	return 0;
}

/* ---- records ---- */

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n > m && !strcmp(name + n - m, end);
}

/* What json_from_record() puts beside a number, for people. */
static bool is_remark(const struct gclk_record *record, const char *name)
{
	char field[PATH_BYTES];
	size_t n = strlen(name);

	if (n < sizeof(field) && ends_with(name, "_names")) {
		snprintf(field, sizeof(field), "%.*s", (int)(n - strlen("_names")), name);
		return gclk_record_find(record, field) >= 0;
	}
	if (n < sizeof(field) && ends_with(name, "_rfc3339")) {
		snprintf(field, sizeof(field), "%.*s_ns", (int)(n - strlen("_rfc3339")), name);
		return gclk_record_find(record, field) >= 0;
	}
	return false;
}

static int read_list(struct json_object *value, const struct gclk_record *record, char *first,
		     size_t n, const char *path, struct gclk_error *reterr)
{
	char where[PATH_BYTES];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		join_index(where, path, i);
		r = record_from_json(json_object_array_get_idx(value, i), record,
				     first + i * record->size, where, reterr);
	}
	return r;
}

static int list_length(struct json_object *value, size_t max, const char *path, size_t *ret_n,
		       struct gclk_error *reterr)
{
	if (!json_object_is_type(value, json_type_array)) {
		return malformed(reterr, path, "this is no list");
	}
	*ret_n = json_object_array_length(value);
	if (*ret_n > max) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "the list has %zu elements, at most %zu are possible", *ret_n,
				 max);
	}
	return 0;
}

static int read_subs(struct json_object *value, const struct gclk_record *record,
		     const struct gclk_subrecord *sub, void *base, const char *where,
		     struct gclk_error *reterr)
{
	size_t n = 0;
	int r = list_length(value, sub->max, where, &n, reterr);

	if (r < 0) {
		return r;
	}
	for (unsigned i = 0; n > 0 && i < record->n_fields; i++) {
		if (record->fields[i].offset == sub->count_offset) {
			gclk_record_set(base, &record->fields[i], n);
		}
	}
	return read_list(value, sub->record, (char *)base + sub->offset, n, where, reterr);
}

static const struct gclk_subrecord *find_sub(const struct gclk_record *record, const char *name)
{
	for (unsigned i = 0; i < record->n_subs; i++) {
		if (!strcmp(record->subs[i].name, name)) {
			return &record->subs[i];
		}
	}
	return NULL;
}

/* The number of subrecords is the length of their list: no name of its own. */
static bool is_count(const struct gclk_record *record, const struct gclk_field *field)
{
	for (unsigned i = 0; i < record->n_subs; i++) {
		if (record->subs[i].count_offset == field->offset) {
			return true;
		}
	}
	return false;
}

static int read_member(struct json_object *value, const char *name,
		       const struct gclk_record *record, void *base, const char *path,
		       struct gclk_error *reterr)
{
	const struct gclk_subrecord *sub = find_sub(record, name);
	int index = gclk_record_find(record, name);
	const struct gclk_field *field = index >= 0 ? &record->fields[index] : NULL;
	char where[PATH_BYTES];

	join(where, path, name);
	if (!value || (!field && !sub && is_remark(record, name))) {
		return 0;
	}
	if (sub) {
		return read_subs(value, record, sub, base, where, reterr);
	}
	if (!field || is_count(record, field)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, where, GCLK_NO_OFFSET,
				 "this release knows no such field");
	}
	switch (field->type) {
	case GCLK_TYPE_STRING:
		return text(value, field, base, where, reterr);
	case GCLK_TYPE_BYTES:
		return bytes(value, field, base, where, reterr);
	default:
		return number(value, field, base, where, reterr);
	}
}

/* Fields only; ranges are looked at when everything is there. */
static int read_fields(struct json_object *value, const struct gclk_record *record, void *base,
		       const char *path, struct gclk_error *reterr)
{
	int r = 0;

	memset(base, 0, record->size);
	if (!json_object_is_type(value, json_type_object)) {
		return malformed(reterr, path, "this is no object");
	}
	json_object_object_foreach(value, name, member)
	{
		r = read_member(member, name, record, base, path, reterr);
		if (r < 0) {
			break;
		}
	}
	return r;
}

int record_from_json(struct json_object *value, const struct gclk_record *record, void *base,
		     const char *path, struct gclk_error *reterr)
{
	int r = read_fields(value, record, base, path, reterr);

	return r < 0 ? r : gclk_record_validate(record, base, path, reterr);
}

/* ---- states ---- */

static const struct gclk_part *find_part(const char *name)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		if (!strcmp(gclk_parts[i].name, name)) {
			return &gclk_parts[i];
		}
	}
	return NULL;
}

static int read_part(struct json_object *value, const struct gclk_part *part,
		     struct gclk_state *state, struct gclk_error *reterr)
{
	bool timers = part->record == &gclk_timer_record;
	uint32_t have;
	char *records = gclk_state_part(state, part, &have);
	size_t n = 0;
	int r;

	if (!part->is_array) {
		return record_from_json(value, part->record, records, part->name, reterr);
	}
	r = list_length(value, timers ? GCLK_TIMERS_MAX : state->n_vcpus, part->name, &n, reterr);
	if (r < 0) {
		return r;
	}
	state->n_timers = timers ? (uint32_t)n : state->n_timers;
	return read_list(value, part->record, records, n, part->name, reterr);
}

static int read_features(struct json_object *value, struct gclk_state *state,
			 struct gclk_error *reterr)
{
	size_t n = 0;
	int r = list_length(value, GCLK_INCOMPATIBLE_MAX, "incompatible", &n, reterr);

	for (size_t i = 0; r == 0 && i < n; i++) {
		const char *name = text_of(json_object_array_get_idx(value, i));

		if (!name || strlen(name) >= sizeof(state->incompatible[i])) {
			return malformed(reterr, "incompatible", "this is no name of a feature");
		}
		memcpy(state->incompatible[i], name, strlen(name) + 1);
		state->n_incompatible = (uint32_t)i + 1;
	}
	return r;
}

static int read_u32(struct json_object *value, const char *name, uint32_t *ret,
		    struct gclk_error *reterr)
{
	uint64_t n;

	if (!integer(value, false, &n)) {
		return malformed(reterr, name, "this is no integer of the field's kind");
	}
	if (n > UINT32_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, name, GCLK_NO_OFFSET,
				 "the value does not fit its field");
	}
	*ret = (uint32_t)n;
	return 0;
}

static int read_state_member(struct json_object *value, const char *name,
			     struct gclk_state *state, struct gclk_error *reterr)
{
	const struct gclk_part *part = find_part(name);

	if (!value || !strcmp(name, "n_vcpus")) {
		return 0;
	}
	if (part) {
		return read_part(value, part, state, reterr);
	}
	if (!strcmp(name, "timers_left_out")) {
		return read_u32(value, name, &state->timers_left_out, reterr);
	}
	if (!strcmp(name, "incompatible")) {
		return read_features(value, state, reterr);
	}
	return gclk_fail(reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
			 "this release knows no such part of a state");
}

/* As it says, or as long as the longest list of vCPUs. */
static int count_vcpus(struct json_object *value, uint32_t *ret, struct gclk_error *reterr)
{
	static const char *const lists[] = { "tsc", "vcpu", "lapic" };
	struct json_object *member;
	size_t n = 1;

	if (json_object_object_get_ex(value, "n_vcpus", &member) && member) {
		return read_u32(member, "n_vcpus", ret, reterr);
	}
	for (unsigned i = 0; i < GCLK_COUNT(lists); i++) {
		if (json_object_object_get_ex(value, lists[i], &member) &&
		    json_object_is_type(member, json_type_array)) {
			n = GCLK_MAX(n, json_object_array_length(member));
		}
	}
	*ret = (uint32_t)GCLK_MIN(n, UINT32_MAX);
	return 0;
}

static int read_state(struct json_object *value, struct gclk_state *state,
		      struct gclk_error *reterr)
{
	int r = 0;

	json_object_object_foreach(value, name, member)
	{
		r = read_state_member(member, name, state, reterr);
		if (r < 0) {
			return r;
		}
	}
	return gclk_state_validate(state, reterr);
}

int state_from_json(struct json_object *value, struct gclk_state **ret_state,
		    struct gclk_error *reterr)
{
	struct gclk_state *state;
	uint32_t n;
	int r;

	if (!json_object_is_type(value, json_type_object)) {
		return malformed(reterr, "state", "this is no object");
	}
	r = count_vcpus(value, &n, reterr);
	if (r < 0) {
		return r;
	}
	if (n < 1 || n > GCLK_VCPUS_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, "n_vcpus", GCLK_NO_OFFSET,
				 "%" PRIu32 " is not within 1..%d", n, GCLK_VCPUS_MAX);
	}
	state = gclk_state_new(n);
	if (!state) {
		return gclk_fail(reterr, GCLK_NOMEM, "state", GCLK_NO_OFFSET, "out of memory");
	}
	r = read_state(value, state, reterr);
	if (r < 0) {
		gclk_state_free(state);
		return r;
	}
	*ret_state = state;
	return 0;
}

/* ---- whole answers ---- */

static struct json_object *member_of(struct json_object *map, const char *name)
{
	struct json_object *member;

	return json_object_object_get_ex(map, name, &member) ? member : NULL;
}

static int check_schema(struct json_object *top, struct gclk_error *reterr)
{
	const char *schema = text_of(member_of(top, "schema"));

	if (!schema) {
		return malformed(reterr, "schema", "the JSON does not say \"guestclock.v1\"");
	}
	if (strcmp(schema, "guestclock.v1")) {
		return gclk_fail(reterr, GCLK_VERSION, "schema", GCLK_NO_OFFSET,
				 "the JSON is not of \"guestclock.v1\"");
	}
	return 0;
}

/* A plan's state is what a guest shall have, not what it had. */
static int check_verb(struct json_object *top, struct gclk_error *reterr)
{
	const char *verb = text_of(member_of(top, "verb"));

	if (!verb || !strcmp(verb, "inspect") || !strcmp(verb, "extract")) {
		return 0;
	}
	return gclk_fail(reterr, GCLK_UNSUPPORTED, "verb", GCLK_NO_OFFSET,
			 "only what inspect and extract write is read back");
}

/* An inspect answer's "captured", without what is there for people. */
static int read_captured(struct json_object *captured, struct gclk_provenance *ret,
			 struct gclk_error *reterr)
{
	static const char *const names[] = { "realtime_ns", "uncertainty_ns", "basis" };
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; r == 0 && i < GCLK_COUNT(names); i++) {
		r = read_member(member_of(captured, names[i]), names[i], &gclk_provenance_record,
				ret, "captured", reterr);
	}
	return r < 0 ? r : gclk_record_validate(&gclk_provenance_record, ret, "captured", reterr);
}

static int take_provenance(struct json_object *top, struct gclk_bundle *bundle,
			   struct gclk_error *reterr)
{
	struct json_object *own = member_of(top, "provenance"), *captured;
	struct gclk_provenance provenance;
	int r;

	captured = own ? NULL : member_of(top, "captured");
	if (!own && !json_object_is_type(captured, json_type_object)) {
		return 0;
	}
	r = own ? record_from_json(own, &gclk_provenance_record, &provenance, "provenance", reterr)
		: read_captured(captured, &provenance, reterr);
	return r < 0 ? r : gclk_bundle_set_provenance(bundle, &provenance, reterr);
}

static int take_others(struct json_object *top, struct gclk_bundle *bundle,
		       struct gclk_error *reterr)
{
	struct json_object *member = member_of(top, "host");
	struct gclk_host host;
	struct gclk_rewrite rewrite;
	int r = 0;

	if (member) {
		r = record_from_json(member, &gclk_host_record, &host, "host", reterr);
		r = r < 0 ? r : gclk_bundle_set_host(bundle, &host, reterr);
	}
	member = member_of(top, "rewrite");
	if (r == 0 && member) {
		r = record_from_json(member, &gclk_rewrite_record, &rewrite, "rewrite", reterr);
		r = r < 0 ? r : gclk_bundle_set_rewrite(bundle, &rewrite, reterr);
	}
	return r;
}

static int take_state(struct json_object *top, struct gclk_bundle *bundle,
		      struct gclk_error *reterr)
{
	struct json_object *member = member_of(top, "state");
	struct gclk_state *state;
	int r;

	if (!member) {
		return malformed(reterr, "state", "the JSON has no clock state");
	}
	r = state_from_json(member, &state, reterr);
	if (r == 0) {
		r = gclk_bundle_set_state(bundle, state, reterr);
		gclk_state_free(state);
	}
	return r;
}

static int fill_bundle(struct json_object *top, struct gclk_bundle *bundle,
		       struct gclk_error *reterr)
{
	int r = check_schema(top, reterr);

	if (r == 0) {
		r = check_verb(top, reterr);
	}
	if (r == 0) {
		r = take_provenance(top, bundle, reterr);
	}
	if (r == 0) {
		r = take_others(top, bundle, reterr);
	}
	return r < 0 ? r : take_state(top, bundle, reterr);
}

int bundle_from_json(const char *json, size_t size, struct gclk_bundle **ret_bundle,
		     struct gclk_error *reterr)
{
	struct gclk_bundle *bundle;
	struct json_object *top;
	int r = json_parse(json, size, &top, reterr);

	if (r < 0) {
		return r;
	}
	bundle = gclk_bundle_new();
	r = bundle ? fill_bundle(top, bundle, reterr)
		   : gclk_fail(reterr, GCLK_NOMEM, "bundle", GCLK_NO_OFFSET, "out of memory");
	json_object_put(top);
	if (r < 0) {
		gclk_bundle_free(bundle);
		return r;
	}
	*ret_bundle = bundle;
	return 0;
}

int host_from_json(const char *json, size_t size, struct gclk_host *ret_host,
		   struct gclk_error *reterr)
{
	struct json_object *top, *host;
	struct gclk_host read;
	int r = json_parse(json, size, &top, reterr);

	if (r < 0) {
		return r;
	}
	host = member_of(top, "host");
	if (host) {
		r = check_schema(top, reterr);
	}
	if (r == 0) {
		r = record_from_json(host ? host : top, &gclk_host_record, &read,
				     host ? "host" : "", reterr);
	}
	json_object_put(top);
	if (r == 0) {
		*ret_host = read;
	}
	return r;
}
