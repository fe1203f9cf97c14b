/* SPDX-License-Identifier: MIT */
/*
 * Records and states as JSON, and back, through their field tables: the names of
 * the schema, and of protobuf's JSON form its conventions.
 *
 *	64-bit integers		decimal strings; narrower ones are numbers
 *	E rows			the value's name; true and false for yes and no
 *	M rows			the number, and beside it "<name>_names": the single
 *				bits that are set
 *	bytes			base64
 *	instants of real time	the number, and beside it RFC 3339 with 9 decimals,
 *				"_ns" giving way to "_rfc3339"
 *	absent fields		left out; null is read as absent
 *	subrecords		lists, as long as there are records: counts are left out
 *
 * What stands beside a number is not read back. A name that this release does not
 * know is refused, for it would be lost in silence.
 */
#ifndef GCLK_MIGRATOR_JSON_STATE_H
#define GCLK_MIGRATOR_JSON_STATE_H

#include <json-c/json_object.h>

#include <guestclock/bundle.h>

/* NULL when memory is short. An empty record gives {}. */
struct json_object *json_from_record(const struct gclk_record *record, const void *base);

/*
 * {"n_vcpus", "tsc": [{...}, ...], "kvmclock": {...}, ...}: the parts that are there.
 * tsc, vcpu and lapic have an element for each vCPU or are left out.
 */
struct json_object *json_from_state(const struct gclk_state *state);

/**
 * json_from_bundle() - {"schema", "format": "bundle", "state", "provenance", "host", "rewrite"}
 * @ret:	the caller's, json_object_put()
 *
 * Errors: those of the bundle's parts; GCLK_NOMEM.
 */
int json_from_bundle(const struct gclk_bundle *bundle, struct json_object **ret,
		     struct gclk_error *reterr);

/**
 * record_from_json() - read a record
 * @value:	an object
 * @base:	overwritten; content undefined after an error
 * @path:	prefix of the place in an error
 *
 * Errors: GCLK_MALFORMED for another type than the field's, GCLK_UNSUPPORTED for
 * an unknown name, GCLK_RANGE.
 */
int record_from_json(struct json_object *value, const struct gclk_record *record, void *base,
		     const char *path, struct gclk_error *reterr);

/* @ret_state is the caller's, gclk_state_free(). The state is valid. */
int state_from_json(struct json_object *value, struct gclk_state **ret_state,
		    struct gclk_error *reterr);

/**
 * json_parse() - text to a tree of bounded size
 *
 * Errors: GCLK_MALFORMED with the offset; GCLK_RANGE when the tree would take
 * more than 44 MiB, which is reckoned before any of it is made: 4096 vCPUs with
 * some 35 fields each still fit.
 */
int json_parse(const char *text, size_t size, struct json_object **ret,
	       struct gclk_error *reterr);

/**
 * bundle_from_json() - read what json_from_bundle() or the inspect verb wrote
 *
 * Where there is no provenance, an inspect answer's "captured" is it.
 * Errors: also GCLK_VERSION for another schema.
 */
int bundle_from_json(const char *text, size_t size, struct gclk_bundle **ret_bundle,
		     struct gclk_error *reterr);

/* A host profile: the record, or an answer that has it as "host". */
int host_from_json(const char *text, size_t size, struct gclk_host *ret_host,
		   struct gclk_error *reterr);

#endif
