/* SPDX-License-Identifier: MIT */
/* A bundle: read, write, read gives the same. The checksum is made right, or nothing gets in. */
#include <string.h>

#include <guestclock/bundle.h>

#include "bundle/crc32.h"
#include "core/cursor.h"
#include "fuzz.h"

static void check_again(const struct gclk_bundle *bundle)
{
	struct gclk_error error = { 0 };
	int64_t n = gclk_bundle_pack(bundle, NULL, 0, &error), m;
	struct gclk_bundle *again = NULL;
	uint8_t *a, *b;

	FUZZ_CHECK(n > 0);
	a = malloc((size_t)n);
	b = malloc((size_t)n);
	FUZZ_CHECK(a && b && gclk_bundle_pack(bundle, a, (size_t)n, &error) == n);
	FUZZ_CHECK(gclk_bundle_unpack(a, (size_t)n, &again, &error) == 0);
	m = gclk_bundle_pack(again, b, (size_t)n, &error);
	FUZZ_CHECK(m == n && !memcmp(a, b, (size_t)n));
	gclk_bundle_free(again);
	free(a);
	free(b);
}

static void use(const struct gclk_bundle *bundle)
{
	uint32_t n = gclk_bundle_n_vcpus(bundle);
	struct gclk_provenance provenance;
	struct gclk_rewrite rewrite;
	struct gclk_host host;
	struct gclk_state *state = n && n <= GCLK_VCPUS_MAX ? gclk_state_new(n) : NULL;
	struct gclk_error error = { 0 };

	gclk_bundle_provenance(bundle, &provenance, &error);
	gclk_bundle_rewrite(bundle, &rewrite, &error);
	gclk_bundle_host(bundle, &host, &error);
	if (state && gclk_bundle_state(bundle, state, &error) == 0) {
		FUZZ_CHECK(gclk_state_validate(state, &error) == 0);
		FUZZ_CHECK(gclk_state_pack(state, NULL, 0, &error) > 0);
		gclk_state_unknown_feature(state);
	}
	gclk_state_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_bundle *bundle = NULL;
	struct gclk_error error = { 0 };
	uint8_t *copy = malloc(size + 1);
	int r;

	FUZZ_CHECK(copy);
	if (size) {
		memcpy(copy, data, size);
	}
	if (size >= GCLK_BUNDLE_HEADER_BYTES && fuzz_hash(data, size) % 64) {
		gclk_put_le32(copy + 8, (uint32_t)(size - GCLK_BUNDLE_HEADER_BYTES));
		gclk_put_le32(copy + 12, gclk_crc32(copy + GCLK_BUNDLE_HEADER_BYTES,
						    size - GCLK_BUNDLE_HEADER_BYTES));
	}
	r = gclk_bundle_unpack(copy, size, &bundle, &error);
	if (r == 0) {
		use(bundle);
		check_again(bundle);
	} else {
		FUZZ_CHECK(error.status == -r && error.message[0] && !bundle);
	}
	gclk_bundle_free(bundle);
	free(copy);
	return 0;
}
