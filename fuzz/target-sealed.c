/* SPDX-License-Identifier: MIT */
/* A sealed bundle and a key: without the signer's key nothing opens, whatever the bytes. */
#include <string.h>

#include <guestclock/seal.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gclk_seal_key *ours;
	struct gclk_seal_key *key = NULL;
	struct gclk_error error = { 0 };
	struct gclk_sealed sealed;
	uint8_t *bundle = malloc(size + 1);
	int r;

	if (!ours) {
		FUZZ_CHECK(gclk_seal_key_new(&ours, &error) == 0);
	}
	FUZZ_CHECK(bundle);
	gclk_bytes_are_sealed(data, size);
	r = gclk_sealed_look(data, size, size, &sealed, &error);
	FUZZ_CHECK(r == 0 || (error.status == -r && error.message[0]));
	FUZZ_CHECK(gclk_unseal(ours, ours, 0, data, size, bundle, size, &sealed, &error) < 0);
	r = gclk_seal_key_parse(data, size, &key, &error);
	FUZZ_CHECK(r == 0 || (error.status == -r && error.message[0] && !key));
	gclk_seal_key_free(key);
	free(bundle);
	return 0;
}
