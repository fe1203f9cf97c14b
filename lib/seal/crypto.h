/* SPDX-License-Identifier: MIT */
/*
 * The five algorithms of a sealed bundle, by OpenSSL's EVP: each one call that succeeds
 * as a whole or leaves nothing behind. The known-answer tests come in here, too.
 *
 * All return 0 or a negative status; GCLK_NOMEM, and GCLK_UNSUPPORTED where libcrypto
 * refuses (a build or a configuration that does without the algorithm).
 */
#ifndef GCLK_SEAL_CRYPTO_H
#define GCLK_SEAL_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>
#include <openssl/evp.h>

#define GCLK_RAW_KEY_BYTES 32
#define GCLK_NONCE_BYTES 12

/* Bytes that lie somewhere. */
struct gclk_bytes {
	const void *p;
	size_t n;
};

/*
 * Fills @reterr from OpenSSL's own errors, which are used up; @what was to be done. Memory
 * is to blame where any of them says so, for others follow from that.
 */
int gclk_crypto_fail(struct gclk_error *reterr, const char *what);

/* Whether what just failed did so for want of memory; uses OpenSSL's errors up. */
int gclk_crypto_lacks_memory(void);

int gclk_crypto_sha256(const struct gclk_bytes *parts, size_t n_parts, uint8_t ret[32],
		       struct gclk_error *reterr);

int gclk_crypto_sign(EVP_PKEY *key, struct gclk_bytes text, uint8_t ret_signature[64],
		     struct gclk_error *reterr);

/* Errors: GCLK_REFUSED when the signature does not match. */
int gclk_crypto_verify(EVP_PKEY *key, struct gclk_bytes text, const uint8_t signature[64],
		       struct gclk_error *reterr);

/* The X25519 secret of two keys; all zero (a key of small order) is GCLK_REFUSED. */
int gclk_crypto_agree(EVP_PKEY *own, EVP_PKEY *peer, uint8_t ret_secret[32],
		      struct gclk_error *reterr);

int gclk_crypto_hkdf(struct gclk_bytes secret, struct gclk_bytes salt,
		     struct gclk_bytes info, void *ret, size_t n, struct gclk_error *reterr);

/* AES-256-GCM; @aad is authenticated beside the text. @to has room for text.n bytes. */
int gclk_crypto_encrypt(const uint8_t key[32], const uint8_t nonce[GCLK_NONCE_BYTES],
			struct gclk_bytes aad, struct gclk_bytes text, uint8_t *to,
			uint8_t ret_tag[16], struct gclk_error *reterr);

/* Errors: GCLK_REFUSED when the tag does not match; @to is wiped then. */
int gclk_crypto_decrypt(const uint8_t key[32], const uint8_t nonce[GCLK_NONCE_BYTES],
			struct gclk_bytes aad, struct gclk_bytes text,
			const uint8_t tag[16], uint8_t *to, struct gclk_error *reterr);

#endif
