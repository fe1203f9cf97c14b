/* SPDX-License-Identifier: MIT */
/*
 * A bundle written once, in tests/data/: this release must read in it what was
 * put in then, and write the same bytes again. The values stand beside it as
 * text. With GCLK_MAKE_GOLDEN naming a directory both files, and the list of
 * wire numbers, are written there anew; the comparison then goes on with the old ones.
 */
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "bundle/bundle.h"
#include "core/util.h"
#include "gclk-test.h"
#include "golden.h"
#include "random-state.h"

static char *read_file(const char *name, size_t *ret_n)
{
	FILE *file = fopen(name, "rb");
	char *bytes = calloc(1, (1 << 20) + 1);

	CU_ASSERT_FATAL(file != NULL && bytes != NULL);
	*ret_n = fread(bytes, 1, 1 << 20, file);
	fclose(file);
	return bytes;
}

static FILE *create(const char *dir, const char *name)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	CU_ASSERT_FATAL(file != NULL);
	return file;
}

static void print_bundle(FILE *out, const struct gclk_bundle *bundle)
{
	struct gclk_state *state = gclk_state_new(gclk_bundle_n_vcpus(bundle));
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;

	CU_ASSERT_FATAL(state != NULL);
	GCLK_EQ(gclk_bundle_state(bundle, state, NULL), 0);
	GCLK_EQ(gclk_bundle_provenance(bundle, &provenance, NULL), 0);
	GCLK_EQ(gclk_bundle_host(bundle, &host, NULL), 0);
	GCLK_EQ(gclk_bundle_rewrite(bundle, &rewrite, NULL), 0);
	print_state(out, state);
	print_record(out, "provenance", &gclk_provenance_record, &provenance);
	print_record(out, "host", &gclk_host_record, &host);
	print_record(out, "rewrite", &gclk_rewrite_record, &rewrite);
	gclk_state_free(state);
}

/* Each message once, though some are reached in several ways. */
static void print_numbers(FILE *out, const ProtobufCMessageDescriptor *message)
{
	static const ProtobufCMessageDescriptor *seen[64];
	unsigned n = 0;

	while (seen[n] && seen[n] != message) {
		n++;
	}
	if (seen[n] || n == GCLK_COUNT(seen) - 1) {
		return;
	}
	seen[n] = message;
	for (unsigned i = 0; i < message->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &message->fields[i];

		fprintf(out, "%s %s %u %u %u\n", message->short_name, f->name, f->id,
			(unsigned)f->type, (unsigned)f->label);
	}
	for (unsigned i = 0; i < message->n_fields; i++) {
		if (message->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
			print_numbers(out, message->fields[i].descriptor);
		}
	}
}

static struct gclk_bundle *new_golden(void)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_state *state = gclk_state_new(2);
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;

	random_state(state, 100);
	state->n_timers = 3;
	random_record(&gclk_provenance_record, &provenance, 100);
	random_record(&gclk_host_record, &host, 100);
	random_record(&gclk_rewrite_record, &rewrite, 100);
	GCLK_EQ(gclk_bundle_set_state(bundle, state, NULL), 0);
	GCLK_EQ(gclk_bundle_set_provenance(bundle, &provenance, NULL), 0);
	GCLK_EQ(gclk_bundle_set_host(bundle, &host, NULL), 0);
	GCLK_EQ(gclk_bundle_set_rewrite(bundle, &rewrite, NULL), 0);
	gclk_state_free(state);
	return bundle;
}

static void make_golden(const char *dir)
{
	struct gclk_bundle *bundle = new_golden();
	static uint8_t buf[1 << 20];
	int64_t n = gclk_bundle_pack(bundle, buf, sizeof(buf), NULL);
	FILE *out = create(dir, "bundle-v1.gclk");

	CU_ASSERT_FATAL(n > 0);
	GCLK_EQ(fwrite(buf, 1, (size_t)n, out), n);
	fclose(out);
	out = create(dir, "bundle-v1.txt");
	print_bundle(out, bundle);
	fclose(out);
	out = create(dir, "wire-numbers-v1.txt");
	print_numbers(out, &guestclock__v1__bundle__descriptor);
	fclose(out);
	gclk_bundle_free(bundle);
}

GCLK_TEST(golden, the_bundle_of_version_1_reads_as_it_did)
{
	struct gclk_bundle *bundle = NULL;
	struct gclk_error err = { 0 };
	size_t size, n_text, n_now = 0;
	char *bytes, *text, *now = NULL;
	static uint8_t again[1 << 20];
	FILE *out;

	if (getenv("GCLK_MAKE_GOLDEN")) {
		make_golden(getenv("GCLK_MAKE_GOLDEN"));
	}
	bytes = read_file(GCLK_TEST_DATA "/bundle-v1.gclk", &size);
	text = read_file(GCLK_TEST_DATA "/bundle-v1.txt", &n_text);
	GCLK_EQ(gclk_bundle_unpack(bytes, size, &bundle, &err), 0);
	CU_ASSERT_FATAL(bundle != NULL);
	out = open_memstream(&now, &n_now);
	print_bundle(out, bundle);
	fclose(out);
	GCLK_EQ(n_now, n_text);
	CU_ASSERT(n_text > 4000 && n_now == n_text && !memcmp(now, text, n_text));
	GCLK_EQ(gclk_bundle_pack(bundle, again, sizeof(again), &err), size);
	CU_ASSERT(!memcmp(again, bytes, size));
	gclk_bundle_free(bundle);
	free(now);
	free(text);
	free(bytes);
}
