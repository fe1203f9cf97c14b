/* SPDX-License-Identifier: MIT */
/* Keys: their text there and back, what is not a key, and that no secret stays in freed memory. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "core/util.h"
#include "gclk-test.h"
#include "seal/key.h"

/* ---- libcrypto's memory: does what it gives back hold a secret? ---- */

static uint8_t secrets[2][32];
static int is_watching;
static unsigned n_leaks, n_frees;

static void look(const uint8_t *p, size_t n)
{
	for (unsigned i = 0; is_watching && i < 2; i++) {
		n_leaks += memmem(p, n, secrets[i], sizeof(secrets[i])) != NULL;
	}
}

/* 16 bytes before each block tell its length. */
static void *watched_malloc(size_t n, const char *file, int line)
{
	size_t *p = n ? calloc(1, n + 16) : NULL;

	(void)file;
	(void)line;
	if (!p) {
		return NULL;
	}
	*p = n;
	return (uint8_t *)p + 16;
}

static void watched_free(void *block, const char *file, int line)
{
	uint8_t *p = block;
	size_t n;

	(void)file;
	(void)line;
	if (!p) {
		return;
	}
	memcpy(&n, p - 16, sizeof(n));
	n_frees++;
	look(p, n);
	free(p - 16);
}

static void *watched_realloc(void *block, size_t n, const char *file, int line)
{
	void *next = watched_malloc(n, file, line);
	size_t old = 0;

	if (block) {
		memcpy(&old, (uint8_t *)block - 16, sizeof(old));
	}
	if (next && block) {
		memcpy(next, block, GCLK_MIN(n, old));
	}
	if (next || n == 0) {
		watched_free(block, file, line);
	}
	return next;
}

__attribute__((constructor)) static void watch(void)
{
	CRYPTO_set_mem_functions(watched_malloc, watched_realloc, watched_free);
}

static void take_secrets(const struct gclk_seal_key *key)
{
	size_t n = 32;

	GCLK_EQ(EVP_PKEY_get_raw_private_key(key->sign, secrets[0], &n), 1);
	GCLK_EQ(EVP_PKEY_get_raw_private_key(key->agree, secrets[1], &n), 1);
}

GCLK_TEST(seal_key, secrets_are_wiped_before_memory_is_given_back)
{
	struct gclk_seal_key *key, *again;
	char text[GCLK_SEAL_PEM_BYTES];
	uint8_t sealed[512], opened[64], guest[16] = { 0 };
	int64_t n, m;

	GCLK_EQ(gclk_seal_key_new(&key, NULL), 0);
	take_secrets(key);
	is_watching = 1;
	n_leaks = n_frees = 0;
	n = gclk_seal_key_text(key, 1, text, sizeof(text), NULL);
	CU_ASSERT_FATAL(n > 0);
	GCLK_EQ(gclk_seal_key_parse(text, (size_t)n, &again, NULL), 0);
	m = gclk_seal(again, key, guest, 1, "bundle", 6, sealed, sizeof(sealed), NULL);
	CU_ASSERT(m > 0);
	GCLK_EQ(gclk_unseal(again, key, 0, sealed, (size_t)m, opened, sizeof(opened), NULL, NULL),
		0);
	gclk_seal_key_free(key);
	gclk_seal_key_free(again);
	is_watching = 0;
	CU_ASSERT(n_frees > 10);
	GCLK_EQ(n_leaks, 0);
	/* and the watch does see one */
	is_watching = 1;
	OPENSSL_free(OPENSSL_memdup(secrets[0], 32));
	is_watching = 0;
	GCLK_EQ(n_leaks, 1);
}

/* ---- text ---- */

static int64_t make(int is_private, char text[GCLK_SEAL_PEM_BYTES], struct gclk_seal_key **ret)
{
	int64_t n;

	GCLK_EQ(gclk_seal_key_new(ret, NULL), 0);
	n = gclk_seal_key_text(*ret, is_private, text, GCLK_SEAL_PEM_BYTES, NULL);
	CU_ASSERT_FATAL(n > 0);
	GCLK_EQ(strlen(text), n);
	return n;
}

GCLK_TEST(seal_key, text_gives_the_same_key_again)
{
	for (int is_private = 0; is_private < 2; is_private++) {
		struct gclk_seal_key *key, *again;
		char text[GCLK_SEAL_PEM_BYTES], back[GCLK_SEAL_PEM_BYTES];
		int64_t n = make(is_private, text, &key);

		GCLK_EQ(gclk_seal_key_parse(text, (size_t)n, &again, NULL), 0);
		GCLK_EQ(gclk_seal_key_is_private(again), is_private);
		CU_ASSERT(!memcmp(gclk_seal_key_id(key), gclk_seal_key_id(again), 32));
		GCLK_EQ(gclk_seal_key_text(again, is_private, back, sizeof(back), NULL), n);
		CU_ASSERT(!strcmp(text, back));
		if (!is_private) {
			GCLK_EQ(gclk_seal_key_text(again, 1, back, sizeof(back), NULL),
				-GCLK_STATE);
		}
		gclk_seal_key_free(again);
		gclk_seal_key_free(key);
	}
	gclk_seal_key_free(NULL);
}

/* Both texts are what others read and write: libcrypto's own reader and writer say so. */
GCLK_TEST(seal_key, text_is_what_libcrypto_writes)
{
	struct gclk_seal_key *key;
	char text[GCLK_SEAL_PEM_BYTES];
	BIO *bio = BIO_new(BIO_s_mem());
	char *theirs;

	make(1, text, &key);
	GCLK_EQ(PEM_write_bio_PrivateKey(bio, key->sign, NULL, NULL, 0, NULL, NULL), 1);
	GCLK_EQ(PEM_write_bio_PrivateKey(bio, key->agree, NULL, NULL, 0, NULL, NULL), 1);
	GCLK_EQ(BIO_get_mem_data(bio, &theirs), strlen(text));
	CU_ASSERT(!memcmp(theirs, text, strlen(text)));
	CU_ASSERT(BIO_reset(bio) == 1);
	gclk_seal_key_text(key, 0, text, sizeof(text), NULL);
	GCLK_EQ(PEM_write_bio_PUBKEY(bio, key->sign), 1);
	GCLK_EQ(PEM_write_bio_PUBKEY(bio, key->agree), 1);
	GCLK_EQ(BIO_get_mem_data(bio, &theirs), strlen(text));
	CU_ASSERT(!memcmp(theirs, text, strlen(text)));
	BIO_free(bio);
	gclk_seal_key_free(key);
}

GCLK_TEST(seal_key, a_buffer_that_is_too_small_is_left_clean)
{
	struct gclk_seal_key *key;
	char text[GCLK_SEAL_PEM_BYTES];
	int64_t n = make(1, text, &key);

	for (int64_t size = 1; size <= n; size++) {
		memset(text, 'x', (size_t)size);
		GCLK_EQ(gclk_seal_key_text(key, 1, text, (size_t)size, NULL), -GCLK_RANGE);
		for (int64_t i = 0; i < size; i++) {
			GCLK_EQ(text[i], 0);
		}
	}
	gclk_seal_key_free(key);
}

static void refused(const char *text, size_t n, int status)
{
	struct gclk_seal_key *key = NULL;
	struct gclk_error error;

	GCLK_EQ(gclk_seal_key_parse(text, n, &key, &error), -status);
	CU_ASSERT(key == NULL);
	CU_ASSERT(error.message[0] != 0);
}

GCLK_TEST(seal_key, what_is_no_key_is_refused)
{
	struct gclk_seal_key *key;
	char text[GCLK_SEAL_PEM_BYTES], public[GCLK_SEAL_PEM_BYTES], both[4 * GCLK_SEAL_PEM_BYTES];
	static char large[16385];
	const char *second;
	int64_t n = make(1, text, &key);

	second = strstr(text + 1, "-----BEGIN");
	CU_ASSERT_FATAL(second != NULL);
	refused("", 0, GCLK_MALFORMED);
	refused("guestclock", 10, GCLK_MALFORMED);
	refused(text, (size_t)(second - text), GCLK_MALFORMED);		/* one block */
	refused(second, strlen(second), GCLK_UNSUPPORTED);		/* the other one */
	refused(large, sizeof(large), GCLK_RANGE);
	snprintf(both, sizeof(both), "%s%s", second, text);		/* wrong order */
	refused(both, strlen(both), GCLK_UNSUPPORTED);
	snprintf(both, sizeof(both), "%s%s", text, text);		/* too many */
	refused(both, strlen(both), GCLK_MALFORMED);
	gclk_seal_key_text(key, 0, public, sizeof(public), NULL);
	snprintf(both, sizeof(both), "%.*s%s", (int)(second - text), text,
		 strstr(public + 1, "-----BEGIN"));			/* half private */
	refused(both, strlen(both), GCLK_UNSUPPORTED);
	for (int64_t cut = 0; cut < n - 1; cut++) {
		struct gclk_seal_key *none = NULL;

		CU_ASSERT(gclk_seal_key_parse(text, (size_t)cut, &none, NULL) < 0);
	}
	gclk_seal_key_free(key);
}

GCLK_TEST(seal_key, a_key_under_a_password_is_refused_without_asking)
{
	struct gclk_seal_key *key;
	char text[GCLK_SEAL_PEM_BYTES], *theirs;
	BIO *bio = BIO_new(BIO_s_mem());
	long n;

	make(1, text, &key);
	GCLK_EQ(PEM_write_bio_PrivateKey(bio, key->sign, EVP_aes_256_cbc(),
					 (const unsigned char *)"secret", 6, NULL, NULL), 1);
	n = BIO_get_mem_data(bio, &theirs);
	refused(theirs, (size_t)n, GCLK_UNSUPPORTED);
	BIO_free(bio);
	gclk_seal_key_free(key);
}

GCLK_TEST(seal_key, keys_of_other_kinds_are_refused)
{
	static const char *const kinds[] = { "ED448", "X448", "X25519" };

	for (unsigned i = 0; i < GCLK_COUNT(kinds); i++) {
		EVP_PKEY *other = EVP_PKEY_Q_keygen(NULL, NULL, kinds[i]);
		BIO *bio = BIO_new(BIO_s_mem());
		char *text;
		long n;

		CU_ASSERT_FATAL(other != NULL);
		PEM_write_bio_PrivateKey(bio, other, NULL, NULL, 0, NULL, NULL);
		PEM_write_bio_PrivateKey(bio, other, NULL, NULL, 0, NULL, NULL);
		n = BIO_get_mem_data(bio, &text);
		refused(text, (size_t)n, GCLK_UNSUPPORTED);
		BIO_free(bio);
		EVP_PKEY_free(other);
	}
}

/* Random damage gives a refusal or another key, never this one and never a fault. */
GCLK_TEST(seal_key, damaged_text_is_no_fault)
{
	struct gclk_seal_key *key;
	char text[GCLK_SEAL_PEM_BYTES];
	int64_t n = make(1, text, &key);

	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		char damaged[GCLK_SEAL_PEM_BYTES];
		struct gclk_seal_key *other = NULL;

		memcpy(damaged, text, (size_t)n);
		for (uint64_t j = gclk_random_below(3) + 1; j > 0; j--) {
			damaged[gclk_random_below((uint64_t)n)] = (char)gclk_random();
		}
		if (gclk_seal_key_parse(damaged, (size_t)n, &other, NULL) == 0) {
			gclk_seal_key_free(other);
		}
	}
	gclk_seal_key_free(key);
}
