/* SPDX-License-Identifier: MIT */
/* guestclock seal: sign a clock state, and encrypt it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/message.h"
#include "migrator/output.h"
#include "migrator/payload.h"
#include "migrator/report-json.h"
#include "migrator/seal/seal.h"
#include "migrator/text.h"

static struct seal_options own;

struct job {
	struct gclk_seal_key *signer, *recipient;
	char guest[512]; /* its UUID, else its name */
	void *bundle;
	size_t n_bundle;
	uint64_t sequence;
};

static void name_guest(struct job *job, const struct gclk_state *state)
{
	const struct gclk_guest *guest = &state->guest;

	snprintf(job->guest, sizeof(job->guest), "%s",
		 guest->uuid[0] ? guest->uuid : guest->name[0] ? guest->name : "(nameless)");
}

/* A bundle is sealed as it stands: what this release does not understand stays in it. */
static int take_bundle(const struct options *o, struct job *job, const struct source *source,
		       struct gclk_error *reterr)
{
	const char *path = o->files[0];
	struct gclk_bundle *bundle;
	int r;

	if (!source->image && strcmp(path, "-")) {
		const struct gclk_worker *worker;
		char *bytes;

		r = read_whole(path, GCLK_BUNDLE_MAX_BYTES, &bytes, &job->n_bundle, reterr);
		if (r == 0 && gclk_bytes_are_bundle(bytes, job->n_bundle)) {
			job->bundle = bytes;
			r = confine_worker(o->conf, &worker, reterr);
			return r < 0 ? r : foreign_check_bundle(worker, bytes, job->n_bundle,
								reterr);
		}
		if (r < 0) {
			return r;
		}
		free(bytes);
	}
	r = bundle_of(source, &bundle, reterr);
	if (r == 0) {
		r = bundle_bytes(bundle, &job->bundle, &job->n_bundle, reterr);
		gclk_bundle_free(bundle);
	}
	return r;
}

/*
 * The next sequence: the wall clock's ns, or one more than the last where that is later.
 * So it goes on after the file is lost, and on another host that has the key.
 */
static int take_sequence(struct job *job, uint8_t guest[GCLK_SEAL_GUEST_BYTES],
			 struct gclk_error *reterr)
{
	char usual[PATH_MAX];
	const char *path = seal_sequences(&own, usual, sizeof(usual));
	int64_t now_ns = wall_clock_ns();
	struct sequence_key key;
	struct gclk_error error;
	int r = gclk_seal_guest(job->signer, job->guest, guest, reterr);

	if (r < 0) {
		return r;
	}
	memcpy(key.signer, gclk_seal_key_id(job->signer), sizeof(key.signer));
	memcpy(key.guest, guest, sizeof(key.guest));
	job->sequence = (uint64_t)GCLK_MAX(now_ns, INT64_C(1));
	if (!path) {
		gclk_fail(&error, GCLK_STATE, NULL, GCLK_NO_OFFSET, "there is no home");
		r = -1;
	} else {
		r = sequence_take(path, &key, job->sequence, &job->sequence, &error);
	}
	if (r < 0) {
		seal_warn_sequences(path, &error, "the sequence is the wall clock's time alone");
	} else if (r == SEQUENCE_FORGOT) {
		seal_warn_forgotten(path);
	}
	return 0;
}

static int seal(struct job *job, const char *path, struct gclk_error *reterr)
{
	size_t size = gclk_seal_bytes(job->n_bundle, job->recipient != NULL);
	uint8_t guest[GCLK_SEAL_GUEST_BYTES], *bytes;
	int64_t n = take_sequence(job, guest, reterr);

	if (n < 0) {
		return (int)n;
	}
	bytes = malloc(size);
	if (!bytes) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for %zu bytes", size);
	}
	n = gclk_seal(job->signer, job->recipient, guest, job->sequence, job->bundle,
		      job->n_bundle, bytes, size, reterr);
	if (n > 0) {
		n = write_whole(path, bytes, (size_t)n, reterr);
	}
	free(bytes);
	return (int)n;
}

static void answer(const struct options *o, const struct job *job)
{
	char signer[ID_TEXT_BYTES], recipient[ID_TEXT_BYTES] = "";

	id_text(signer, gclk_seal_key_id(job->signer), GCLK_SEAL_ID_BYTES);
	if (job->recipient) {
		id_text(recipient, gclk_seal_key_id(job->recipient), GCLK_SEAL_ID_BYTES);
	}
	if (!strcmp(o->output, "-")) {
		return;
	}
	if (given(o, OPTION(JSON))) {
		struct json_object *tree = json_answer("seal");

		json_put(tree, "output", json_text(o->output));
		json_put(tree, "signer", json_text(signer));
		json_put(tree, "recipient", json_text(recipient));
		json_put(tree, "sequence", json_u64(job->sequence));
		json_print(tree);
		return;
	}
	put_text(stdout, o->output);
	printf(": signed by %.16s%s%.16s\n", signer, job->recipient ? ", encrypted to " : "",
	       recipient);
}

static int seal_source(const struct options *o, struct job *job)
{
	struct gclk_error error;
	struct source source;
	int r = source_open(&source, o->files[0], o, SOURCE_STATE);

	if (r == 0) {
		name_guest(job, source.state);
		r = take_bundle(o, job, &source, &error);
		r = r < 0 ? fail(o->files[0], &error, EFFECT_NONE, NULL) : 0;
	}
	source_close(&source);
	if (r == 0 && seal(job, o->output, &error) < 0) {
		r = fail(o->output, &error, EFFECT_NONE, NULL);
	}
	free(job->bundle);
	return r;
}

static int run(const struct options *o)
{
	struct job job = { 0 };
	int r;

	if (!given(o, OPTION(OUTPUT)) || !own.key) {
		return usage_error("seal", "say whose seal and where to: --key NAME -o OUT");
	}
	if (!strcmp(o->output, "-") && isatty(STDOUT_FILENO)) {
		return usage_error("seal", "a sealed bundle is not for a terminal");
	}
	r = seal_read_key(own.key, &job.signer);
	if (r == 0 && !gclk_seal_key_is_private(job.signer)) {
		struct gclk_error error;

		gclk_fail(&error, GCLK_STATE, NULL, GCLK_NO_OFFSET,
			  "this is the public half of a key; to seal needs the private one");
		r = fail(own.key, &error, EFFECT_NONE, NULL);
	}
	if (r == 0 && own.to) {
		r = seal_read_key(own.to, &job.recipient);
	}
	if (r == 0) {
		r = seal_source(o, &job);
	}
	if (r == 0) {
		answer(o, &job);
	}
	gclk_seal_key_free(job.signer);
	gclk_seal_key_free(job.recipient);
	return r;
}

static const struct option_row rows[] = {
	{ "key", 0, "NAME", seal_set_key, "the private key that signs, from `guestclock keygen`", 0 },
	{ "to", 0, "RECIPIENT.pub", seal_set_to,
	  "encrypt: only who has this key's private half can\nopen it", 0 },
	{ "sequences", 0, "FILE", seal_set_sequences, SEQUENCES_HELP, 0 },
};

const struct verb verb_seal = {
	.name = "seal",
	.summary = SUMMARY_SEAL,
	.synopsis = "FILE -o OUT",
	.text = "Signs the clock state of FILE (Ed25519), so that whoever opens it knows whose "
		"it is and that nobody changed it; with --to it is encrypted as well (X25519, "
		"HKDF-SHA256, AES-256-GCM). A bundle is sealed as it stands, of anything else "
		"what `guestclock extract` gives. Each state of a guest gets a larger sequence "
		"than the one before, so that an old one cannot pass for a new one.",
	.example = "guestclock seal --key /etc/guestclock/host-a --to host-b.pub web1.save "
		   "-o web1.gseal",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT) | OPTION(OUTPUT),
	.min_files = 1,
	.max_files = 1,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
