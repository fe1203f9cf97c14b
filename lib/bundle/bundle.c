/* SPDX-License-Identifier: MIT */
/*
 * The envelope. A bundle is the decoded message of guestclock.v1.Bundle and
 * nothing else, so that what this release does not understand in it is written
 * out again. Every change is made in a copy of the message, which takes the
 * old one's place when it is whole.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "bundle/bind.h"
#include "bundle/bundle.h"
#include "bundle/crc32.h"
#include "bundle/memory.h"
#include "bundle/state.h"
#include "core/error.h"
#include "core/util.h"

#define BUNDLE (&guestclock__v1__bundle__descriptor)

/* Memory for the trees of one bundle: old and new of the largest state need half of it. */
#define BUDGET_BYTES ((size_t)40 << 20)

static const uint8_t magic[8] = { 0x89, 'G', 'C', 'L', 'K', '\r', '\n', 0x1a };

/* Features that this release knows: the names that may stand in an incompatible list. */
static const char *const known_features[] = { NULL };

struct gclk_bundle {
	Guestclock__V1__Bundle *tree;
	struct gclk_budget budget;
	ProtobufCAllocator mem;
};

/* ---- bytes ---- */

static void store_le32(uint8_t *p, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++) {
		p[i] = (uint8_t)(value >> 8 * i);
	}
}

static uint32_t load_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

GCLK_API int gclk_bytes_are_bundle(const void *buf, size_t size)
{
	return size >= sizeof(magic) && !memcmp(buf, magic, sizeof(magic));
}

static int check_size(size_t body, size_t size, struct gclk_error *reterr)
{
	size_t all = GCLK_BUNDLE_HEADER_BYTES + body;

	if (all > GCLK_BUNDLE_MAX_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "bundle", GCLK_NO_OFFSET,
				 "%zu bytes are more than the %" PRIu32 " that a bundle can have",
				 all, GCLK_BUNDLE_MAX_BYTES);
	}
	if (size > 0 && all > size) {
		return gclk_fail(reterr, GCLK_RANGE, "bundle", GCLK_NO_OFFSET,
				 "%zu bytes do not fit into %zu", all, size);
	}
	return 0;
}

static void put_header(uint8_t *buf, size_t body)
{
	memcpy(buf, magic, sizeof(magic));
	store_le32(buf + 8, (uint32_t)body);
	store_le32(buf + 12, gclk_crc32(buf + GCLK_BUNDLE_HEADER_BYTES, body));
}

static int check_header(const uint8_t *p, size_t size, struct gclk_error *reterr)
{
	size_t body;

	if (size && memcmp(p, magic, GCLK_MIN(size, sizeof(magic)))) {
		return gclk_fail(reterr, GCLK_MALFORMED, "bundle", 0, "this is not a bundle");
	}
	if (size < GCLK_BUNDLE_HEADER_BYTES) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "bundle", size,
				 "a bundle begins with %d bytes, there are %zu",
				 GCLK_BUNDLE_HEADER_BYTES, size);
	}
	body = load_le32(p + 8);
	if (body > GCLK_BUNDLE_MAX_BYTES - GCLK_BUNDLE_HEADER_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "bundle", 8,
				 "a body of %zu bytes is more than a bundle can have", body);
	}
	if (size - GCLK_BUNDLE_HEADER_BYTES < body) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "bundle", size,
				 "the body has %zu bytes, there are %zu", body,
				 size - GCLK_BUNDLE_HEADER_BYTES);
	}
	if (size - GCLK_BUNDLE_HEADER_BYTES > body) {
		return gclk_fail(reterr, GCLK_MALFORMED, "bundle",
				 GCLK_BUNDLE_HEADER_BYTES + body, "bytes follow the bundle's end");
	}
	if (gclk_crc32(p + GCLK_BUNDLE_HEADER_BYTES, body) != load_le32(p + 12)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "bundle", 12,
				 "the checksum does not match the body");
	}
	return 0;
}

/* ---- the object ---- */

GCLK_API struct gclk_bundle *gclk_bundle_free(struct gclk_bundle *bundle)
{
	if (bundle) {
		protobuf_c_message_free_unpacked((ProtobufCMessage *)bundle->tree, &bundle->mem);
		free(bundle);
	}
	return NULL;
}

static struct gclk_bundle *bundle_without_tree(void)
{
	struct gclk_bundle *bundle = calloc(1, sizeof(*bundle));

	if (bundle) {
		bundle->budget.left = BUDGET_BYTES;
		bundle->mem = gclk_budget_allocator(&bundle->budget);
	}
	return bundle;
}

GCLK_API struct gclk_bundle *gclk_bundle_new(void)
{
	struct gclk_bundle *bundle = bundle_without_tree();

	if (!bundle) {
		return NULL;
	}
	bundle->tree = (Guestclock__V1__Bundle *)gclk_message_new(BUNDLE, &bundle->mem);
	if (!bundle->tree) {
		return gclk_bundle_free(bundle);
	}
	bundle->tree->has_format_version = 1;
	bundle->tree->format_version = GCLK_BUNDLE_FORMAT_VERSION;
	return bundle;
}

static int parse(struct gclk_bundle *bundle, const uint8_t *body, size_t n,
		 struct gclk_error *reterr)
{
	bundle->budget.exceeded = bundle->budget.no_memory = false;
	bundle->tree = (Guestclock__V1__Bundle *)protobuf_c_message_unpack(BUNDLE, &bundle->mem,
									    n, body);
	if (bundle->tree) {
		return 0;
	}
	if (bundle->budget.exceeded) {
		return gclk_fail(reterr, GCLK_RANGE, "bundle", GCLK_BUNDLE_HEADER_BYTES,
				 "the body would take more than %zu bytes of memory",
				 BUDGET_BYTES);
	}
	if (bundle->budget.no_memory) {
		return gclk_fail(reterr, GCLK_NOMEM, "bundle", GCLK_NO_OFFSET, "out of memory");
	}
	return gclk_fail(reterr, GCLK_MALFORMED, "bundle", GCLK_BUNDLE_HEADER_BYTES,
			 "the body is not a message of guestclock.v1.Bundle");
}

/*
 * protobuf-c reads a field of number 0, which is none, when it is spelt long, keeps it
 * as one that it does not know, and writes it short: nobody reads that again.
 */
static bool has_field_zero(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *d = message->descriptor;

	for (unsigned i = 0; i < message->n_unknown_fields; i++) {
		if (message->unknown_fields[i].tag == 0) {
			return true;
		}
	}
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const uint8_t *member = (const uint8_t *)message + f->offset;
		bool many = f->label == PROTOBUF_C_LABEL_REPEATED;
		size_t n = many ? *(const size_t *)(const void *)((const uint8_t *)message +
								   f->quantifier_offset) : 1;
		void *const *children = many ? *(void *const *const *)(const void *)member :
				      (void *const *)(const void *)member;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
			continue;
		}
		for (size_t k = 0; k < n; k++) {
			if (children[k] && has_field_zero(children[k])) {
				return true;
			}
		}
	}
	return false;
}

static int check_fields(const Guestclock__V1__Bundle *tree, struct gclk_error *reterr)
{
	if (has_field_zero(&tree->base)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "bundle", GCLK_BUNDLE_HEADER_BYTES,
				 "the body has a field of number 0");
	}
	return 0;
}

static int check_version(const Guestclock__V1__Bundle *tree, struct gclk_error *reterr)
{
	if (!tree->has_format_version) {
		return gclk_fail(reterr, GCLK_MALFORMED, "format_version",
				 GCLK_BUNDLE_HEADER_BYTES, "the bundle does not say its version");
	}
	if (tree->format_version != GCLK_BUNDLE_FORMAT_VERSION) {
		return gclk_fail(reterr, GCLK_VERSION, "format_version",
				 GCLK_BUNDLE_HEADER_BYTES,
				 "version %" PRIu32 " is not known, only %d", tree->format_version,
				 GCLK_BUNDLE_FORMAT_VERSION);
	}
	return 0;
}

GCLK_API int gclk_bundle_unpack(const void *buf, size_t size, struct gclk_bundle **ret_bundle,
				struct gclk_error *reterr)
{
	const uint8_t *p = buf;
	struct gclk_bundle *bundle;
	int r = check_header(p, size, reterr);

	if (r < 0) {
		return r;
	}
	bundle = bundle_without_tree();
	if (!bundle) {
		return gclk_fail(reterr, GCLK_NOMEM, "bundle", GCLK_NO_OFFSET, "out of memory");
	}
	r = parse(bundle, p + GCLK_BUNDLE_HEADER_BYTES, size - GCLK_BUNDLE_HEADER_BYTES, reterr);
	if (r == 0) {
		r = check_version(bundle->tree, reterr);
	}
	if (r == 0) {
		r = check_fields(bundle->tree, reterr);
	}
	if (r < 0) {
		gclk_bundle_free(bundle);
		return r;
	}
	*ret_bundle = bundle;
	return 0;
}

GCLK_API int64_t gclk_bundle_pack(const struct gclk_bundle *bundle, void *buf, size_t size,
				  struct gclk_error *reterr)
{
	size_t body = protobuf_c_message_get_packed_size(&bundle->tree->base);
	uint8_t *p = buf;
	int r = check_size(body, size, reterr);

	if (r < 0) {
		return r;
	}
	if (size > 0) {
		protobuf_c_message_pack(&bundle->tree->base, p + GCLK_BUNDLE_HEADER_BYTES);
		put_header(p, body);
	}
	return (int64_t)(GCLK_BUNDLE_HEADER_BYTES + body);
}

/* ---- changes ---- */

/* A copy of the tree, to be changed and then committed or dropped. */
static Guestclock__V1__Bundle *copy_tree(struct gclk_bundle *bundle, struct gclk_error *reterr)
{
	size_t n = protobuf_c_message_get_packed_size(&bundle->tree->base);
	uint8_t *bytes = malloc(n > 0 ? n : 1);
	ProtobufCMessage *copy = NULL;

	if (bytes) {
		protobuf_c_message_pack(&bundle->tree->base, bytes);
		copy = protobuf_c_message_unpack(BUNDLE, &bundle->mem, n, bytes);
		free(bytes);
	}
	if (!copy) {
		gclk_fail(reterr, GCLK_NOMEM, "bundle", GCLK_NO_OFFSET, "out of memory");
	}
	return (Guestclock__V1__Bundle *)copy;
}

static int commit(struct gclk_bundle *bundle, Guestclock__V1__Bundle *copy, int result)
{
	Guestclock__V1__Bundle *out = result < 0 ? copy : bundle->tree;

	if (result == 0) {
		bundle->tree = copy;
	}
	protobuf_c_message_free_unpacked(&out->base, &bundle->mem);
	return result;
}

static const ProtobufCFieldDescriptor *part_field(const char *name)
{
	return protobuf_c_message_descriptor_get_field_by_name(BUNDLE, name);
}

/* The message of a part, made if need be. */
static ProtobufCMessage *part_message(Guestclock__V1__Bundle *tree,
				      const ProtobufCFieldDescriptor *field,
				      ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	ProtobufCMessage *child = gclk_message_child(&tree->base, field);

	if (!child) {
		child = gclk_message_new(field->descriptor, mem);
		if (!child) {
			gclk_fail(reterr, GCLK_NOMEM, field->name, GCLK_NO_OFFSET,
				  "out of memory");
			return NULL;
		}
		gclk_message_set_child(&tree->base, field, child, mem);
	}
	return child;
}

static int put_record(Guestclock__V1__Bundle *tree, const char *name,
		      const struct gclk_record *record, const void *base,
		      ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	const ProtobufCFieldDescriptor *field = part_field(name);
	struct gclk_binding binding;
	ProtobufCMessage *child;

	if (!base) {
		gclk_message_set_child(&tree->base, field, NULL, mem);
		return 0;
	}
	if (!gclk_bind(&binding, record, field->descriptor)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
				 "the schema has not all of its fields");
	}
	child = part_message(tree, field, mem, reterr);
	return child ? gclk_message_from_record(&binding, child, base, mem, name, reterr)
		     : -GCLK_NOMEM;
}

static int set_record(struct gclk_bundle *bundle, const char *name,
		      const struct gclk_record *record, const void *base,
		      struct gclk_error *reterr)
{
	Guestclock__V1__Bundle *copy;
	int r = base ? gclk_record_validate(record, base, name, reterr) : 0;

	if (r < 0) {
		return r;
	}
	copy = copy_tree(bundle, reterr);
	if (!copy) {
		return -GCLK_NOMEM;
	}
	return commit(bundle, copy, put_record(copy, name, record, base, &bundle->mem, reterr));
}

static int get_record(const struct gclk_bundle *bundle, const char *name,
		      const struct gclk_record *record, void *base, struct gclk_error *reterr)
{
	const ProtobufCFieldDescriptor *field = part_field(name);
	const ProtobufCMessage *child = gclk_message_child(&bundle->tree->base, field);
	struct gclk_binding binding;
	int r;

	if (!child) {
		return GCLK_BUNDLE_ABSENT;
	}
	if (!gclk_bind(&binding, record, field->descriptor)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
				 "the schema has not all of its fields");
	}
	memset(base, 0, record->size);
	r = gclk_record_from_message(&binding, base, child, name, reterr);
	return r < 0 ? r : gclk_record_validate(record, base, name, reterr);
}

GCLK_API int gclk_bundle_set_provenance(struct gclk_bundle *bundle,
					const struct gclk_provenance *provenance,
					struct gclk_error *reterr)
{
	return set_record(bundle, "provenance", &gclk_provenance_record, provenance, reterr);
}

GCLK_API int gclk_bundle_set_host(struct gclk_bundle *bundle, const struct gclk_host *host,
				  struct gclk_error *reterr)
{
	return set_record(bundle, "host", &gclk_host_record, host, reterr);
}

GCLK_API int gclk_bundle_set_rewrite(struct gclk_bundle *bundle,
				     const struct gclk_rewrite *rewrite,
				     struct gclk_error *reterr)
{
	return set_record(bundle, "rewrite", &gclk_rewrite_record, rewrite, reterr);
}

GCLK_API int gclk_bundle_provenance(const struct gclk_bundle *bundle,
				    struct gclk_provenance *ret_provenance,
				    struct gclk_error *reterr)
{
	return get_record(bundle, "provenance", &gclk_provenance_record, ret_provenance, reterr);
}

GCLK_API int gclk_bundle_host(const struct gclk_bundle *bundle, struct gclk_host *ret_host,
			      struct gclk_error *reterr)
{
	return get_record(bundle, "host", &gclk_host_record, ret_host, reterr);
}

GCLK_API int gclk_bundle_rewrite(const struct gclk_bundle *bundle,
				 struct gclk_rewrite *ret_rewrite, struct gclk_error *reterr)
{
	return get_record(bundle, "rewrite", &gclk_rewrite_record, ret_rewrite, reterr);
}

/* ---- the state ---- */

static int put_state(Guestclock__V1__Bundle *tree, const struct gclk_state *state,
		     ProtobufCAllocator *mem, struct gclk_error *reterr)
{
	const ProtobufCFieldDescriptor *field = part_field("state");

	if (!state) {
		gclk_message_set_child(&tree->base, field, NULL, mem);
		return 0;
	}
	if (!part_message(tree, field, mem, reterr)) {
		return -GCLK_NOMEM;
	}
	return gclk_message_from_state(tree->state, state, mem, reterr);
}

GCLK_API int gclk_bundle_set_state(struct gclk_bundle *bundle, const struct gclk_state *state,
				   struct gclk_error *reterr)
{
	Guestclock__V1__Bundle *copy;
	int r = state ? gclk_state_validate(state, reterr) : 0;

	if (r < 0) {
		return r;
	}
	copy = copy_tree(bundle, reterr);
	if (!copy) {
		return -GCLK_NOMEM;
	}
	return commit(bundle, copy, put_state(copy, state, &bundle->mem, reterr));
}

GCLK_API int gclk_bundle_set_plan(struct gclk_bundle *bundle, const struct gclk_plan *plan,
				  const struct gclk_carrier *carrier, struct gclk_error *reterr)
{
	Guestclock__V1__Plan *message = NULL;

	if (plan) {
		message = gclk_message_from_plan(plan, carrier, &bundle->mem);
		if (!message) {
			return gclk_fail(reterr, GCLK_NOMEM, "plan", GCLK_NO_OFFSET,
					 "out of memory");
		}
	}
	gclk_message_set_child(&bundle->tree->base, part_field("plan"),
			       (ProtobufCMessage *)message, &bundle->mem);
	return 0;
}

GCLK_API uint32_t gclk_bundle_n_vcpus(const struct gclk_bundle *bundle)
{
	return bundle->tree->state ? gclk_message_n_vcpus(bundle->tree->state) : 0;
}

GCLK_API int gclk_bundle_state(const struct gclk_bundle *bundle, struct gclk_state *state,
			       struct gclk_error *reterr)
{
	if (!bundle->tree->state) {
		gclk_state_clear(state);
		return GCLK_BUNDLE_ABSENT;
	}
	return gclk_state_from_message(state, bundle->tree->state, reterr);
}

GCLK_API const char *gclk_state_unknown_feature(const struct gclk_state *state)
{
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		const char *const *known = known_features;

		while (*known && strcmp(*known, state->incompatible[i])) {
			known++;
		}
		if (!*known) {
			return state->incompatible[i];
		}
	}
	return NULL;
}

/* The body of a bundle with a state alone: version, then the state in pieces. */
static int sink_body(struct gclk_sink *sink, const struct gclk_state *state, size_t state_bytes,
		     struct gclk_error *reterr)
{
	Guestclock__V1__Bundle head = GUESTCLOCK__V1__BUNDLE__INIT;

	head.has_format_version = 1;
	head.format_version = GCLK_BUNDLE_FORMAT_VERSION;
	gclk_sink_message(sink, &head.base);
	gclk_sink_prefix(sink, part_field("state")->id, state_bytes);
	return gclk_sink_state(sink, state, reterr);
}

GCLK_API int64_t gclk_state_pack(const struct gclk_state *state, void *buf, size_t size,
				 struct gclk_error *reterr)
{
	struct gclk_sink count = { 0 }, body = { 0 };
	uint8_t *p = buf;
	int r = gclk_state_validate(state, reterr);

	if (r == 0) {
		r = gclk_sink_state(&count, state, reterr);
	}
	if (r == 0 && size > GCLK_BUNDLE_HEADER_BYTES) {
		body.buf = p + GCLK_BUNDLE_HEADER_BYTES;
		body.size = size - GCLK_BUNDLE_HEADER_BYTES;
	}
	if (r == 0) {
		r = sink_body(&body, state, count.n, reterr);
	}
	if (r == 0) {
		r = check_size(body.n, size, reterr);
	}
	if (r == 0 && size > 0) {
		put_header(p, body.n);
	}
	return r < 0 ? r : (int64_t)(GCLK_BUNDLE_HEADER_BYTES + body.n);
}

GCLK_API int gclk_state_unpack(struct gclk_state *state, const void *buf, size_t size,
			       struct gclk_error *reterr)
{
	struct gclk_bundle *bundle;
	int r = gclk_bundle_unpack(buf, size, &bundle, reterr);

	if (r < 0) {
		gclk_state_clear(state);
		return r;
	}
	r = gclk_bundle_state(bundle, state, reterr);
	gclk_bundle_free(bundle);
	if (r == GCLK_BUNDLE_ABSENT) {
		return gclk_fail(reterr, GCLK_MALFORMED, "state", GCLK_NO_OFFSET,
				 "the bundle has no clock state");
	}
	return r;
}
