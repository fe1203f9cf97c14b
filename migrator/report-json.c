/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/time.h"
#include "migrator/json-text.h"
#include "migrator/report-json.h"

static struct json_object *must(struct json_object *value)
{
	if (!value) {
		say_no_memory();
		exit(GCLK_NOMEM);
	}
	return value;
}

struct json_object *json_must(struct json_object *value)
{
	return must(value);
}

struct json_object *json_new_map(void)
{
	return must(json_object_new_object());
}

struct json_object *json_new_list(void)
{
	return must(json_object_new_array());
}

void json_put(struct json_object *map, const char *key, struct json_object *value)
{
	if (json_object_object_add(map, key, value) < 0) {
		must(NULL);
	}
}

void json_append(struct json_object *list, struct json_object *value)
{
	if (json_object_array_add(list, value) < 0) {
		must(NULL);
	}
}

struct json_object *json_text(const char *text)
{
	size_t size = text ? strlen(text) + 1 : 0;
	struct json_object *value;
	char *clean;

	if (size <= 1) {
		return NULL;
	}
	clean = malloc(size);
	value = clean ? json_object_new_string(clean_text(clean, size, text)) : NULL;
	free(clean);
	return must(value);
}

struct json_object *json_i64(int64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, n);
	return must(json_object_new_string(text));
}

struct json_object *json_u64(uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	return must(json_object_new_string(text));
}

struct json_object *json_bound(uint64_t ns)
{
	return ns == GCLK_UNBOUNDED ? NULL : json_u64(ns);
}

struct json_object *json_answer(const char *verb)
{
	struct json_object *answer = json_new_map();

	json_put(answer, "schema", json_text(JSON_SCHEMA));
	json_put(answer, "verb", json_text(verb));
	return answer;
}

struct json_object *json_realtime(int64_t ns)
{
	struct json_object *map = json_new_map();
	char text[GCLK_REAL_TEXT_BYTES];

	json_put(map, "realtime_ns", json_i64(ns));
	json_put(map, "rfc3339", json_text(gclk_real_format(gclk_real_of_ns(ns), text)));
	return map;
}

struct json_object *json_instant(const struct gclk_instant *at)
{
	struct json_object *map = json_realtime(at->ns);

	json_put(map, "uncertainty_ns", json_bound(at->uncertainty_ns));
	return map;
}

/* An upper limit has a time of unbounded uncertainty; without evidence there is none. */
struct json_object *json_captured(const struct gclk_instant *at, const char *basis)
{
	struct json_object *map = json_instant(at);

	if (at->uncertainty_ns == GCLK_UNBOUNDED && !at->ns) {
		json_put(map, "realtime_ns", NULL);
		json_put(map, "rfc3339", NULL);
	}
	json_put(map, "basis", json_text(basis));
	return map;
}

struct json_object *json_findings(const struct gclk_findings *findings)
{
	struct json_object *list = json_new_list();

	for (unsigned i = 0; i < findings->n; i++) {
		const struct gclk_finding *f = &findings->items[i];
		struct json_object *map = json_new_map();

		json_put(map, "id", json_text(f->info->id));
		json_put(map, "severity", json_text(gclk_severity_names[f->severity]));
		json_put(map, "clock", json_text(f->clock));
		json_put(map, "message", json_text(f->message));
		json_put(map, "advice", json_text(f->info->advice));
		json_put(map, "forced", must(json_object_new_boolean(f->forced)));
		json_append(list, map);
	}
	return list;
}

/* As it stands there: a number up to 32 bits, decimal text up to 64, else hex. */
static struct json_object *source_value(const struct gclk_source_field *field)
{
	char *hex;
	struct json_object *value;

	if (field->size <= 4) {
		return must(json_object_new_int64((int64_t)field->value));
	}
	if (field->size <= 8) {
		return field->is_signed ? json_i64((int64_t)field->value)
					: json_u64(field->value);
	}
	hex = malloc(2 * (size_t)field->size + 1);
	if (!hex) {
		must(NULL);
	}
	for (uint32_t i = 0; i < field->size; i++) {
		snprintf(hex + 2 * (size_t)i, 3, "%02x", field->bytes[i]);
	}
	value = must(json_object_new_string(hex));
	free(hex);
	return value;
}

/* The map of a section, made when it is first asked for. */
static struct json_object *section_map(struct json_object *source,
				       const struct gclk_source_field *field)
{
	struct json_object *map = NULL;
	char raw[512], name[512];

	if (field->instance) {
		snprintf(raw, sizeof(raw), "%s#%" PRIu32, field->section,
			 field->instance);
	} else {
		snprintf(raw, sizeof(raw), "%s", field->section);
	}
	clean_text(name, sizeof(name), raw);
	if (!json_object_object_get_ex(source, name, &map)) {
		map = json_new_map();
		json_put(source, name, map);
	}
	return map;
}

/* A section may hold a field of the same name twice: "name", "name#1". */
static void add_source_field(struct json_object *section,
			     const struct gclk_source_field *field)
{
	char name[256], again[280];

	clean_text(name, sizeof(name), field->field);
	snprintf(again, sizeof(again), "%s", name);
	for (unsigned i = 1; json_object_object_get_ex(section, again, NULL); i++) {
		snprintf(again, sizeof(again), "%s#%u", name, i);
	}
	json_put(section, again, source_value(field));
}

int json_source(const struct gclk_image *image, struct json_object **ret)
{
	struct json_object *source = json_new_map();
	struct gclk_source_field field;
	int r = 1;

	for (unsigned i = 0; image && (r = gclk_image_source_field(image, i, &field)) > 0; i++) {
		add_source_field(section_map(source, &field), &field);
	}
	if (r < 0) {
		json_object_put(source);
		return r;
	}
	*ret = source;
	return 0;
}

struct json_object *json_value(const struct change *change, const void *side)
{
	const struct gclk_field *field = change->field;
	uint64_t value;
	char text[600];

	if (!change_has(change, side)) {
		return NULL;
	}
	if (field->type == GCLK_TYPE_STRING || field->type == GCLK_TYPE_BYTES ||
	    field->unit == GCLK_UNIT_ENUM) {
		value_text(field, side, text, sizeof(text));
		return text[0] ? json_text(text) : must(json_object_new_string(""));
	}
	value = gclk_record_get(side, field);
	if (field->unit == GCLK_UNIT_BOOL) {
		return must(json_object_new_boolean(value != 0));
	}
	switch (field->type) {
	case GCLK_TYPE_u64:
		return json_u64(value);
	case GCLK_TYPE_i64:
		return json_i64((int64_t)value);
	default:
		return must(json_object_new_int64((int64_t)value));
	}
}

void json_print(struct json_object *answer)
{
	char *text = json_to_text(answer, NULL);

	if (!text) {
		must(NULL);
	}
	puts(text);
	free(text);
	json_object_put(answer);
}
