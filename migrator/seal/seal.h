/* SPDX-License-Identifier: MIT */
/* What the three verbs of guestclock-seal share. */
#ifndef GCLK_MIGRATOR_SEAL_H
#define GCLK_MIGRATOR_SEAL_H

#include <guestclock/seal.h>

#include "migrator/seal/keyfile.h"
#include "migrator/seal/sequence.h"
#include "migrator/verbs.h"

extern const struct verb verb_keygen, verb_seal, verb_open;

/* The options of seal and open. */
struct seal_options {
	const char *key, *to, *recipient, *sequences;
};

int seal_set_key(struct options *o, const char *text, struct gclk_error *reterr);
int seal_set_to(struct options *o, const char *text, struct gclk_error *reterr);
int seal_set_recipient(struct options *o, const char *text, struct gclk_error *reterr);
int seal_set_sequences(struct options *o, const char *text, struct gclk_error *reterr);

#define SEQUENCES_HELP \
	"where the largest sequences are kept; default\n" \
	"/var/lib/guestclock/sequences, for users the same\n" \
	"below ~/.local/state"

/* The file of the sequences: @own's, or the usual one; NULL where there is none. */
const char *seal_sequences(const struct seal_options *own, char *to, size_t size);

/* Reads a key, or says what is wrong with it. Returns 0 or the exit code. */
int seal_read_key(const char *path, struct gclk_seal_key **ret);

/* A warning that the sequences could not be kept: sealing and opening go on without. */
void seal_warn_sequences(const char *path, const struct gclk_error *error, const char *effect);

/* After SEQUENCE_FORGOT. */
void seal_warn_forgotten(const char *path);

#endif
