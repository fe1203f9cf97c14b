/* SPDX-License-Identifier: MIT */
#include <limits.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>

#include "core/error.h"
#include "seal/crypto.h"

/* Uses up OpenSSL's errors. It may lack the memory even to note one. */
int gclk_crypto_lacks_memory(void)
{
	void *probe = OPENSSL_malloc(1024);
	int lacks = !probe;
	unsigned long code;

	OPENSSL_free(probe);
	while ((code = ERR_get_error())) {
		lacks |= ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE;
	}
	return lacks;
}

int gclk_crypto_fail(struct gclk_error *reterr, const char *what)
{
	unsigned long code = ERR_peek_last_error();
	const char *why = code ? ERR_reason_error_string(code) : NULL;
	int is_memory = gclk_crypto_lacks_memory() || !code;

	return is_memory ? gclk_fail(reterr, GCLK_NOMEM, "seal", GCLK_NO_OFFSET,
				     "no memory to %s", what)
			 : gclk_fail(reterr, GCLK_UNSUPPORTED, "seal", GCLK_NO_OFFSET,
				     "libcrypto cannot %s: %s", what, why ? why : "no reason");
}

int gclk_crypto_sha256(const struct gclk_bytes *parts, size_t n_parts, uint8_t ret[32],
		       struct gclk_error *reterr)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

	for (size_t i = 0; ok && i < n_parts; i++) {
		ok = EVP_DigestUpdate(ctx, parts[i].p, parts[i].n) == 1;
	}
	ok = ok && EVP_DigestFinal_ex(ctx, ret, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : gclk_crypto_fail(reterr, "hash (SHA-256)");
}

int gclk_crypto_sign(EVP_PKEY *key, struct gclk_bytes text, uint8_t ret_signature[64],
		     struct gclk_error *reterr)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t n = 64;
	int ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
		 EVP_DigestSign(ctx, ret_signature, &n, text.p, text.n) == 1 && n == 64;

	EVP_MD_CTX_free(ctx);
	return ok ? 0 : gclk_crypto_fail(reterr, "sign (Ed25519)");
}

/*
 * 1: it matches; 0: it does not; -1: nobody knows. A hash for which OpenSSL once lacked the
 * memory it does not find again, and says of every signature then that it does not match.
 */
static int verify_once(EVP_PKEY *key, struct gclk_bytes text, const uint8_t signature[64])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_MD *hash = EVP_MD_fetch(NULL, "SHA512", NULL);
	int ready = ctx && hash && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1;
	int ok = ready ? EVP_DigestVerify(ctx, signature, 64, text.p, text.n) : -1;

	EVP_MD_free(hash);
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* OpenSSL answers "no" also where a block of memory was missing: so it is asked again. */
int gclk_crypto_verify(EVP_PKEY *key, struct gclk_bytes text, const uint8_t signature[64],
		       struct gclk_error *reterr)
{
	int ok;

	ERR_clear_error();
	ok = verify_once(key, text, signature);
	if (ok == 0) {
		ERR_clear_error();
		ok = verify_once(key, text, signature);
	}
	if (ok == 1) {
		ERR_clear_error();
		return 0;
	}
	if (ok < 0) {
		return gclk_crypto_fail(reterr, "verify (Ed25519)");
	}
	if (gclk_crypto_lacks_memory()) {
		return gclk_fail(reterr, GCLK_NOMEM, "seal", GCLK_NO_OFFSET,
				 "no memory to verify (Ed25519)");
	}
	return gclk_fail(reterr, GCLK_REFUSED, "seal", GCLK_NO_OFFSET,
			 "the signature does not match: it was changed after it was sealed");
}

int gclk_crypto_agree(EVP_PKEY *own, EVP_PKEY *peer, uint8_t ret_secret[32],
		      struct gclk_error *reterr)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	size_t n = 32;
	int ready = ctx && EVP_PKEY_derive_init(ctx) == 1 &&
		    EVP_PKEY_derive_set_peer(ctx, peer) == 1;
	int ok = ready && EVP_PKEY_derive(ctx, ret_secret, &n) == 1 && n == 32;

	EVP_PKEY_CTX_free(ctx);
	if (ok) {
		return 0;
	}
	OPENSSL_cleanse(ret_secret, 32);
	if (!ready || ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE) {
		return gclk_crypto_fail(reterr, "agree on a key (X25519)");
	}
	ERR_clear_error();
	return gclk_fail(reterr, GCLK_REFUSED, "seal", GCLK_NO_OFFSET,
			 "the other X25519 key is one with which everybody agrees");
}

int gclk_crypto_hkdf(struct gclk_bytes secret, struct gclk_bytes salt,
		     struct gclk_bytes info, void *ret, size_t n, struct gclk_error *reterr)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret.p,
						  secret.n),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info.p,
						  info.n),
		OSSL_PARAM_construct_end(),	/* the salt, if there is one */
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	int ok;

	if (salt.n > 0) {
		params[3] = OSSL_PARAM_construct_octet_string(
			OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt.p, salt.n);
	}
	ok = ctx && EVP_KDF_derive(ctx, ret, n, params) == 1;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	if (!ok) {
		OPENSSL_cleanse(ret, n);
		return gclk_crypto_fail(reterr, "derive a key (HKDF-SHA256)");
	}
	return 0;
}

int gclk_crypto_encrypt(const uint8_t key[32], const uint8_t nonce[GCLK_NONCE_BYTES],
			struct gclk_bytes aad, struct gclk_bytes text, uint8_t *to,
			uint8_t ret_tag[16], struct gclk_error *reterr)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t none[16];
	int n, ok;

	ok = ctx && text.n <= INT_MAX && aad.n <= INT_MAX &&
	     EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
	     (aad.n == 0 || EVP_EncryptUpdate(ctx, NULL, &n, aad.p, (int)aad.n) == 1) &&
	     (text.n == 0 || EVP_EncryptUpdate(ctx, to, &n, text.p, (int)text.n) == 1) &&
	     EVP_EncryptFinal_ex(ctx, none, &n) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, ret_tag) == 1;
	EVP_CIPHER_CTX_free(ctx);
	if (!ok) {
		OPENSSL_cleanse(to, text.n);
		return gclk_crypto_fail(reterr, "encrypt (AES-256-GCM)");
	}
	return 0;
}

int gclk_crypto_decrypt(const uint8_t key[32], const uint8_t nonce[GCLK_NONCE_BYTES],
			struct gclk_bytes aad, struct gclk_bytes text,
			const uint8_t tag[16], uint8_t *to, struct gclk_error *reterr)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t expected[16], none[16];
	int n, ready, ok;

	memcpy(expected, tag, sizeof(expected));
	ready = ctx && text.n <= INT_MAX && aad.n <= INT_MAX &&
		EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		(aad.n == 0 || EVP_DecryptUpdate(ctx, NULL, &n, aad.p, (int)aad.n) == 1) &&
		(text.n == 0 || EVP_DecryptUpdate(ctx, to, &n, text.p, (int)text.n) == 1) &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, expected) == 1;
	ok = ready && EVP_DecryptFinal_ex(ctx, none, &n) == 1;
	EVP_CIPHER_CTX_free(ctx);
	if (ok) {
		return 0;
	}
	OPENSSL_cleanse(to, text.n);
	if (!ready) {
		return gclk_crypto_fail(reterr, "decrypt (AES-256-GCM)");
	}
	ERR_clear_error();
	return gclk_fail(reterr, GCLK_REFUSED, "seal", GCLK_NO_OFFSET,
			 "the ciphertext does not match its tag: it was not made for this "
			 "recipient by this signer");
}
