/* SPDX-License-Identifier: MIT */
/*
 * Keys and their text. An Ed25519 and an X25519 key that were drawn independently make
 * one key of ours, in two blocks of PEM:
 *
 *	-----BEGIN PRIVATE KEY-----	PKCS #8: DER prefix (16 bytes), then 32 bytes
 *	-----BEGIN PUBLIC KEY-----	SubjectPublicKeyInfo: prefix (12), then 32 bytes
 *
 * Both forms have one encoding only, which is compared byte by byte: no parser of ASN.1,
 * and no password prompt, stands between a file and a key. Blank lines and text around the
 * blocks are let through, as PEM has it; a third block is not.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "core/error.h"
#include "core/util.h"
#include "seal/key.h"

#define PEM_MAX_BYTES 16384
#define PREFIX_MAX 16

struct form {
	const char *label;
	uint8_t prefix[PREFIX_MAX];
	size_t n_prefix;
};

#define PKCS8(oid) { 0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, oid, 4, 0x22, 4, 0x20 }
#define SPKI(oid) { 0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, oid, 3, 0x21, 0 }
#define OID_X25519 0x6e
#define OID_ED25519 0x70

/* By is_private; Ed25519, then X25519 (RFC 8410). */
static const struct form forms[2][2] = {
	{ { "PUBLIC KEY", SPKI(OID_ED25519), 12 }, { "PUBLIC KEY", SPKI(OID_X25519), 12 } },
	{ { "PRIVATE KEY", PKCS8(OID_ED25519), 16 }, { "PRIVATE KEY", PKCS8(OID_X25519), 16 } },
};
static const int types[2] = { EVP_PKEY_ED25519, EVP_PKEY_X25519 };
static const char *const type_names[2] = { "Ed25519", "X25519" };

EVP_PKEY *gclk_raw_key(int type, int is_private, const uint8_t raw[GCLK_RAW_KEY_BYTES])
{
	return is_private ? EVP_PKEY_new_raw_private_key(type, NULL, raw, GCLK_RAW_KEY_BYTES)
			  : EVP_PKEY_new_raw_public_key(type, NULL, raw, GCLK_RAW_KEY_BYTES);
}

/*
 * The raw bytes of one half of a key. EVP_PKEY_get_raw_private_key() would leave a copy
 * behind in memory that it frees (OpenSSL 3.0: it exports the key to parameters first).
 */
static int raw_of(EVP_PKEY *key, int is_private, uint8_t ret[GCLK_RAW_KEY_BYTES],
		  struct gclk_error *reterr)
{
	const char *half = is_private ? OSSL_PKEY_PARAM_PRIV_KEY : OSSL_PKEY_PARAM_PUB_KEY;
	size_t n = 0;
	int ok = EVP_PKEY_get_octet_string_param(key, half, ret, GCLK_RAW_KEY_BYTES, &n);

	return ok == 1 && n == GCLK_RAW_KEY_BYTES ? 0
						  : gclk_crypto_fail(reterr, "read a key");
}

static int find_id(struct gclk_seal_key *key, struct gclk_error *reterr)
{
	static const char label[] = "guestclock key v1";
	uint8_t raw[2][GCLK_RAW_KEY_BYTES];
	const struct gclk_bytes parts[] = {
		{ label, sizeof(label) - 1 }, { raw[0], sizeof(raw[0]) }, { raw[1], sizeof(raw[1]) }
	};
	int r = raw_of(key->sign, 0, raw[0], reterr);

	if (r == 0) {
		r = raw_of(key->agree, 0, raw[1], reterr);
	}
	return r < 0 ? r : gclk_crypto_sha256(parts, GCLK_COUNT(parts), key->id, reterr);
}

GCLK_API struct gclk_seal_key *gclk_seal_key_free(struct gclk_seal_key *key)
{
	if (key) {
		EVP_PKEY_free(key->sign);	/* which wipes them */
		EVP_PKEY_free(key->agree);
		free(key);
	}
	return NULL;
}

int gclk_seal_key_of(EVP_PKEY *sign, EVP_PKEY *agree, int is_private,
		     struct gclk_seal_key **ret, struct gclk_error *reterr)
{
	struct gclk_seal_key *key = calloc(1, sizeof(*key));
	int r;

	if (!key || !sign || !agree) {
		free(key);
		EVP_PKEY_free(sign);
		EVP_PKEY_free(agree);
		return key ? gclk_crypto_fail(reterr, "make a key")
			   : gclk_fail(reterr, GCLK_NOMEM, "key", GCLK_NO_OFFSET,
				       "no memory for a key");
	}
	key->sign = sign;
	key->agree = agree;
	key->is_private = is_private;
	r = find_id(key, reterr);
	if (r < 0) {
		gclk_seal_key_free(key);
		return r;
	}
	*ret = key;
	return 0;
}

GCLK_API int gclk_seal_key_new(struct gclk_seal_key **ret, struct gclk_error *reterr)
{
	EVP_PKEY *sign, *agree;

	/* OpenSSL 3.0 generates keys in a context that it found no memory for, and falls */
	if (!OSSL_LIB_CTX_get0_global_default()) {
		return gclk_fail(reterr, GCLK_NOMEM, "key", GCLK_NO_OFFSET,
				 "no memory for libcrypto");
	}
	sign = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	agree = sign ? EVP_PKEY_Q_keygen(NULL, NULL, "X25519") : NULL;
	return gclk_seal_key_of(sign, agree, 1, ret, reterr);
}

GCLK_API int gclk_seal_key_is_private(const struct gclk_seal_key *key)
{
	return key->is_private;
}

GCLK_API const uint8_t *gclk_seal_key_id(const struct gclk_seal_key *key)
{
	return key->id;
}

/* ---- from text ---- */

struct block {
	char *label, *header;
	unsigned char *der;
	long n;
};

static void drop_block(struct block *block)
{
	OPENSSL_free(block->label);
	OPENSSL_free(block->header);
	OPENSSL_clear_free(block->der, block->der ? (size_t)block->n : 0);
}

/* Returns 1 with a block, 0 at the end. */
static int next_block(BIO *bio, struct block *ret, struct gclk_error *reterr)
{
	struct block block = { 0 };
	unsigned long code;

	if (PEM_read_bio(bio, &block.label, &block.header, &block.der, &block.n) == 1) {
		*ret = block;
		return 1;
	}
	code = ERR_peek_last_error();
	if (ERR_GET_REASON(code) == PEM_R_NO_START_LINE) {
		ERR_clear_error();
		return 0;
	}
	if (!code || gclk_crypto_lacks_memory()) {
		return gclk_fail(reterr, GCLK_NOMEM, "key", GCLK_NO_OFFSET,
				 "no memory to read a key");
	}
	return gclk_fail(reterr, GCLK_MALFORMED, "key", GCLK_NO_OFFSET,
			 "a block of PEM is damaged");
}

static int check_block(const struct block *block, unsigned i, int is_private,
		       struct gclk_error *reterr)
{
	const struct form *form = &forms[is_private][i];

	if (!strcmp(block->label, "ENCRYPTED PRIVATE KEY") || block->header[0]) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "key", GCLK_NO_OFFSET,
				 "the key is under a password");
	}
	if (strcmp(block->label, form->label) ||
	    block->n != (long)form->n_prefix + GCLK_RAW_KEY_BYTES ||
	    memcmp(block->der, form->prefix, form->n_prefix)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "key", GCLK_NO_OFFSET,
				 "block %u (%.40s) is not an %s %s in its one form", i + 1,
				 block->label, type_names[i],
				 is_private ? "private key" : "public key");
	}
	return 0;
}

/* One key of the two. @is_private: -1 before the first, which decides. */
static int read_key(BIO *bio, unsigned i, int *is_private, EVP_PKEY **ret,
		    struct gclk_error *reterr)
{
	struct block block = { 0 };
	int r = next_block(bio, &block, reterr);

	if (r == 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, "key", GCLK_NO_OFFSET,
				 "it has %u of the two blocks of a key, no %s one", i,
				 type_names[i]);
	}
	if (r < 0) {
		return r;
	}
	if (*is_private < 0) {
		*is_private = !strcmp(block.label, "PRIVATE KEY");
	}
	r = check_block(&block, i, *is_private, reterr);
	if (r == 0) {
		*ret = gclk_raw_key(types[i], *is_private,
				    block.der + forms[*is_private][i].n_prefix);
		r = *ret ? 0 : gclk_crypto_fail(reterr, "take a key");
	}
	drop_block(&block);
	return r;
}

static int check_end(BIO *bio, struct gclk_error *reterr)
{
	struct block block = { 0 };
	int r = next_block(bio, &block, reterr);

	if (r > 0) {
		drop_block(&block);
		return gclk_fail(reterr, GCLK_MALFORMED, "key", GCLK_NO_OFFSET,
				 "it has more than the two blocks of a key");
	}
	return r;
}

static int parse(BIO *bio, struct gclk_seal_key **ret, struct gclk_error *reterr)
{
	EVP_PKEY *sign = NULL, *agree = NULL;
	int is_private = -1;
	int r = read_key(bio, 0, &is_private, &sign, reterr);

	if (r == 0) {
		r = read_key(bio, 1, &is_private, &agree, reterr);
	}
	if (r == 0) {
		r = check_end(bio, reterr);
	}
	if (r < 0) {
		EVP_PKEY_free(sign);
		EVP_PKEY_free(agree);
		return r;
	}
	return gclk_seal_key_of(sign, agree, is_private, ret, reterr);
}

GCLK_API int gclk_seal_key_parse(const void *pem, size_t size, struct gclk_seal_key **ret,
				 struct gclk_error *reterr)
{
	BIO *bio;
	int r;

	if (size > PEM_MAX_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "key", GCLK_NO_OFFSET,
				 "%zu bytes are more than a key has", size);
	}
	bio = BIO_new_mem_buf(pem, (int)size);
	if (!bio) {
		return gclk_crypto_fail(reterr, "read a key");
	}
	r = parse(bio, ret, reterr);
	BIO_free(bio);
	return r;
}

/* ---- to text ---- */

/* One block behind @at bytes of @buf; returns the new end, or a negative status. */
static int64_t put_block(EVP_PKEY *key, const struct form *form, int is_private, char *buf,
			 size_t size, size_t at, struct gclk_error *reterr)
{
	uint8_t der[PREFIX_MAX + GCLK_RAW_KEY_BYTES];
	char text[128];
	size_t n_der = form->n_prefix + GCLK_RAW_KEY_BYTES;
	int r = raw_of(key, is_private, der + form->n_prefix, reterr);
	int n;

	if (r < 0) {
		return r;
	}
	memcpy(der, form->prefix, form->n_prefix);
	EVP_EncodeBlock((unsigned char *)text, der, (int)n_der);
	n = snprintf(buf + at, size - at, "-----BEGIN %s-----\n%.64s%s%s\n-----END %s-----\n",
		     form->label, text, strlen(text) > 64 ? "\n" : "",
		     strlen(text) > 64 ? text + 64 : "", form->label);
	OPENSSL_cleanse(der, sizeof(der));
	OPENSSL_cleanse(text, sizeof(text));
	if (n < 0 || (size_t)n >= size - at) {
		OPENSSL_cleanse(buf, size);
		return gclk_fail(reterr, GCLK_RANGE, "key", GCLK_NO_OFFSET,
				 "%zu bytes are too few for a key", size);
	}
	return (int64_t)(at + (size_t)n);
}

GCLK_API int64_t gclk_seal_key_text(const struct gclk_seal_key *key, int is_private, char *buf,
				    size_t size, struct gclk_error *reterr)
{
	int64_t n;

	if (is_private && !key->is_private) {
		return gclk_fail(reterr, GCLK_STATE, "key", GCLK_NO_OFFSET,
				 "a public key has no secret half");
	}
	is_private = !!is_private;
	n = put_block(key->sign, &forms[is_private][0], is_private, buf, size, 0, reterr);
	return n < 0 ? n : put_block(key->agree, &forms[is_private][1], is_private, buf, size,
				     (size_t)n, reterr);
}
