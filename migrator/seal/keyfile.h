/* SPDX-License-Identifier: MIT */
/*
 * Keys in files. Of a private key nobody but its owner may read; of any key nobody else
 * may write; and a file of somebody else's (but root's) is none at all.
 */
#ifndef GCLK_MIGRATOR_KEYFILE_H
#define GCLK_MIGRATOR_KEYFILE_H

#include <guestclock/seal.h>

/* Errors: GCLK_REFUSED for an unsafe file; else as gclk_seal_key_parse(), and GCLK_SYS. */
int keyfile_read(const char *path, struct gclk_seal_key **ret, struct gclk_error *reterr);

/**
 * keyfile_write() - NAME (0600) and NAME.pub (0644), neither of which may be there
 * @public_path:	NAME.pub
 *
 * Both are there afterwards, or neither.
 */
int keyfile_write(const char *path, const char *public_path, const struct gclk_seal_key *key,
		  struct gclk_error *reterr);

/* The first 16 digits of an id, as people compare them. */
#define ID_TEXT_BYTES 65
char *id_text(char to[ID_TEXT_BYTES], const uint8_t *id, size_t n_bytes);

#endif
