/* SPDX-License-Identifier: MIT */
/*
 * The parts of an answer for programs, schema guestclock.v1: names in snake_case with
 * their units, 64-bit integers as decimal strings, instants also as RFC 3339,
 * unbounded as null. A program that is out of memory here ends with GCLK_NOMEM.
 */
#ifndef GCLK_MIGRATOR_REPORT_JSON_H
#define GCLK_MIGRATOR_REPORT_JSON_H

#include <json-c/json_object.h>

#include <guestclock/plan.h>

#include "migrator/diff.h"
#include "migrator/source.h"

#define JSON_SCHEMA "guestclock.v1"

/* {"schema": "guestclock.v1", "verb": @verb} */
struct json_object *json_answer(const char *verb);

/* A value that there is memory for: what makes one answers NULL where there is none. */
struct json_object *json_must(struct json_object *value);

struct json_object *json_new_map(void);
struct json_object *json_new_list(void);
/* Each takes @value. */
void json_put(struct json_object *map, const char *key, struct json_object *value);
void json_append(struct json_object *list, struct json_object *value);

/* Invalid UTF-8 and control characters become '?'. NULL and "" become null. */
struct json_object *json_text(const char *text);
struct json_object *json_i64(int64_t n);
struct json_object *json_u64(uint64_t n);
/* null for GCLK_UNBOUNDED */
struct json_object *json_bound(uint64_t ns);

/* {"realtime_ns", "rfc3339"} and, for an instant, "uncertainty_ns". */
struct json_object *json_realtime(int64_t ns);
struct json_object *json_instant(const struct gclk_instant *at);

struct json_object *json_captured(const struct gclk_instant *at, const char *basis);
struct json_object *json_findings(const struct gclk_findings *findings);

/*
 * The source's sections: {"timer": {"cpu_clock_offset": "..."}, "cpu#1": ...}. Returns 0, or
 * a negative status where they could not be had.
 */
int json_source(const struct gclk_image *image, struct json_object **ret);

/* A field's value on one side of a change. */
struct json_object *json_value(const struct change *change, const void *side);

/* Prints and frees @answer. */
void json_print(struct json_object *answer);

#endif
