/* SPDX-License-Identifier: MIT */
/* guestclock open: prove a sealed clock state, and take it out. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <guestclock/bundle.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/message.h"
#include "migrator/output.h"
#include "migrator/report-json.h"
#include "migrator/seal/seal.h"
#include "migrator/source.h"

#define SEALED_MAX \
	(GCLK_SEAL_HEADER_BYTES + GCLK_SEAL_MAX_BYTES + GCLK_SEAL_TAG_BYTES + \
	 GCLK_SEAL_SIGNATURE_BYTES)

static struct seal_options own;

struct job {
	const struct gclk_worker *worker;
	struct gclk_seal_key *signer, *recipient;
	char *sealed;
	size_t n_sealed;
	void *bundle;
	struct gclk_sealed head;
	uint64_t last; /* the largest sequence seen before; 0: none */
	struct gclk_findings findings;
};

static void key_of(const struct gclk_sealed *head, struct sequence_key *ret)
{
	memcpy(ret->signer, head->signer, sizeof(ret->signer));
	memcpy(ret->guest, head->guest, sizeof(ret->guest));
}

static void warn_sequences(const char *path, const struct gclk_error *error)
{
	seal_warn_sequences(path, error, "whether this state is an old one is not known");
}

static uint64_t largest_seen(const struct gclk_sealed *head, const char *path)
{
	struct sequence_key key;
	struct gclk_error error;
	uint64_t last = 0;

	key_of(head, &key);
	if (!path) {
		gclk_fail(&error, GCLK_STATE, NULL, GCLK_NO_OFFSET, "there is no home");
		warn_sequences(path, &error);
	} else if (sequence_largest(path, &key, &last, &error) < 0) {
		warn_sequences(path, &error);
	}
	return last;
}

static int open_sealed(struct job *job, const char *sequences, struct gclk_error *reterr)
{
	int r = gclk_sealed_look(job->sealed, job->n_sealed, job->n_sealed, &job->head, reterr);

	if (r < 0) {
		return r;
	}
	job->bundle = malloc(job->head.payload_bytes);
	if (!job->bundle) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a bundle of %" PRIu32 " bytes",
				 job->head.payload_bytes);
	}
	job->last = largest_seen(&job->head, sequences);
	r = gclk_unseal(job->signer, job->recipient, job->last, job->sealed, job->n_sealed,
			job->bundle, job->head.payload_bytes, &job->head, reterr);
	if (r == GCLK_SEAL_OLDER) {
		gclk_findings_add(&job->findings, "sealed-state-older", "",
				  "this state has the sequence %" PRIu64
				  ", a later one of the guest, %" PRIu64
				  ", has been sealed or opened here",
				  job->head.sequence, job->last);
	}
	return r < 0 ? r : foreign_check_bundle(job->worker, job->bundle,
						job->head.payload_bytes, reterr);
}

static void note_sequence(const struct job *job, const char *path)
{
	struct sequence_key key;
	struct gclk_error error;
	int r;

	key_of(&job->head, &key);
	r = path ? sequence_note(path, &key, job->head.sequence, &error) : 0;
	if (r < 0) {
		seal_warn_sequences(path, &error,
				    "that this state was opened will not be remembered");
	} else if (r == SEQUENCE_FORGOT) {
		seal_warn_forgotten(path);
	}
}

static void answer_json(const struct options *o, const struct job *job)
{
	char signer[ID_TEXT_BYTES], recipient[ID_TEXT_BYTES] = "";
	struct json_object *tree = json_answer("open");

	id_text(signer, job->head.signer, GCLK_SEAL_ID_BYTES);
	if (job->head.suite == GCLK_SEAL_ENCRYPTED) {
		id_text(recipient, job->head.recipient, GCLK_SEAL_ID_BYTES);
	}
	json_put(tree, "output", json_text(o->output));
	json_put(tree, "signer", json_text(signer));
	json_put(tree, "recipient", json_text(recipient));
	json_put(tree, "sequence", json_u64(job->head.sequence));
	json_put(tree, "last_sequence", job->last ? json_u64(job->last) : NULL);
	json_put(tree, "findings", json_findings(&job->findings));
	json_print(tree);
}

static void answer(const struct options *o, const struct job *job)
{
	char signer[ID_TEXT_BYTES];

	if (job->findings.n) {
		message("warning", o->files[0], job->findings.items[0].info->id, EFFECT_READING,
			NULL, "%s", job->findings.items[0].message);
	}
	if (!strcmp(o->output, "-")) {
		return;
	}
	if (given(o, OPTION(JSON))) {
		answer_json(o, job);
		return;
	}
	put_text(stdout, o->output);
	printf(": the bundle that %.16s sealed, unchanged\n",
	       id_text(signer, job->head.signer, GCLK_SEAL_ID_BYTES));
}

static int open_file(const struct options *o, struct job *job)
{
	char usual[PATH_MAX];
	const char *sequences = seal_sequences(&own, usual, sizeof(usual));
	struct gclk_error error;
	int r = confine_worker(o->conf, &job->worker, &error);

	if (r < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	r = read_whole(o->files[0], SEALED_MAX, &job->sealed, &job->n_sealed, &error);
	if (r == 0) {
		r = open_sealed(job, sequences, &error);
	}
	if (r < 0) {
		return fail(o->files[0], &error, EFFECT_NONE, NULL);
	}
	r = write_whole(o->output, job->bundle, job->head.payload_bytes, &error);
	if (r < 0) {
		return fail(o->output, &error, EFFECT_NONE, NULL);
	}
	note_sequence(job, sequences);
	answer(o, job);
	return given(o, OPTION(CHECK)) && job->findings.n ? GCLK_REFUSED : 0;
}

static int run(const struct options *o)
{
	static struct job job;
	int r;

	if (!given(o, OPTION(OUTPUT)) || !own.key) {
		return usage_error("open", "say whose seal and where to: --key NAME.pub -o OUT");
	}
	if (!strcmp(o->output, "-") && isatty(STDOUT_FILENO)) {
		return usage_error("open", "a bundle is not for a terminal");
	}
	r = seal_read_key(own.key, &job.signer);
	if (r == 0 && own.recipient) {
		r = seal_read_key(own.recipient, &job.recipient);
	}
	if (r == 0) {
		r = open_file(o, &job);
	}
	free(job.sealed);
	free(job.bundle);
	gclk_seal_key_free(job.signer);
	gclk_seal_key_free(job.recipient);
	return r;
}

static const struct option_row rows[] = {
	{ "key", 0, "NAME.pub", seal_set_key, "the public key of who must have sealed it", 0 },
	{ "recipient", 0, "KEY", seal_set_recipient,
	  "the private key that it was encrypted to", 0 },
	{ "sequences", 0, "FILE", seal_set_sequences, SEQUENCES_HELP, 0 },
};

const struct verb verb_open = {
	.name = "open",
	.summary = SUMMARY_OPEN,
	.synopsis = "FILE -o OUT",
	.text = "Proves that FILE was sealed with the private half of NAME.pub and that nothing "
		"in it was changed, decrypts it with --recipient, and writes the bundle that is "
		"in it. A state older than one that was seen of the guest here is a warning; "
		"with --check the exit code is 1 then.",
	.example = "guestclock open --key host-a.pub --recipient /etc/guestclock/host-b "
		   "web1.gseal -o web1.gclk",
	.options = OPTIONS_COMMON | OPTION(OUTPUT) | OPTION(CHECK),
	.min_files = 1,
	.max_files = 1,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
