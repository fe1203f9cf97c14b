/* SPDX-License-Identifier: MIT */
#ifndef GCLK_SEAL_KEY_H
#define GCLK_SEAL_KEY_H

#include <guestclock/seal.h>

#include "seal/crypto.h"

struct gclk_seal_key {
	EVP_PKEY *sign;		/* Ed25519 */
	EVP_PKEY *agree;	/* X25519 */
	int is_private;
	uint8_t id[GCLK_SEAL_ID_BYTES];
};

/* A key of raw bytes (RFC 8032, RFC 7748); @type is EVP_PKEY_ED25519 or EVP_PKEY_X25519. */
EVP_PKEY *gclk_raw_key(int type, int is_private, const uint8_t raw[GCLK_RAW_KEY_BYTES]);

/* Takes both keys, which it also frees when it fails. NULL keys fail. */
int gclk_seal_key_of(EVP_PKEY *sign, EVP_PKEY *agree, int is_private,
		     struct gclk_seal_key **ret, struct gclk_error *reterr);

#endif
