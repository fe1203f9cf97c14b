/* SPDX-License-Identifier: MIT */
/* guestclock keygen: a key to seal clock states with, or to have them sealed for. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "migrator/message.h"
#include "migrator/report-json.h"
#include "migrator/seal/seal.h"

static void answer(const struct options *o, const char *public_path,
		   const struct gclk_seal_key *key)
{
	char id[ID_TEXT_BYTES];

	id_text(id, gclk_seal_key_id(key), GCLK_SEAL_ID_BYTES);
	if (given(o, OPTION(JSON))) {
		struct json_object *tree = json_answer("keygen");

		json_put(tree, "private_key", json_text(o->files[0]));
		json_put(tree, "public_key", json_text(public_path));
		json_put(tree, "id", json_text(id));
		json_print(tree);
		return;
	}
	put_text(stdout, o->files[0]);
	printf(": private key %.16s; keep it secret\n", id);
	put_text(stdout, public_path);
	puts(": its public half, for those who open what it sealed, or seal for it");
}

static int run(const struct options *o)
{
	char public_path[PATH_MAX];
	struct gclk_seal_key *key;
	struct gclk_error error;
	int r, n = snprintf(public_path, sizeof(public_path), "%s.pub", o->files[0]);

	if (n < 0 || (size_t)n >= sizeof(public_path)) {
		return usage_error("keygen", "the name is too long");
	}
	r = gclk_seal_key_new(&key, &error);
	if (r < 0) {
		return fail(o->files[0], &error, EFFECT_NONE, NULL);
	}
	r = keyfile_write(o->files[0], public_path, key, &error);
	if (r == 0) {
		answer(o, public_path, key);
	}
	gclk_seal_key_free(key);
	return r < 0 ? fail(o->files[0], &error, EFFECT_NONE, NULL) : 0;
}

const struct verb verb_keygen = {
	.name = "keygen",
	.summary = SUMMARY_KEYGEN,
	.synopsis = "NAME",
	.text = "Makes a key in two files: NAME, which nobody else may read (mode 0600), and "
		"NAME.pub. Each holds an Ed25519 key, for signatures, and an X25519 key, for "
		"encryption, as two blocks of PEM. A file that is there is never replaced.",
	.example = "guestclock keygen /etc/guestclock/host-a",
	.options = OPTIONS_COMMON,
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
