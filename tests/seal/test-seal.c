/* SPDX-License-Identifier: MIT */
/* Sealed bundles: there and back, and every way in which one is not what it was. */
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "core/cursor.h"
#include "core/util.h"
#include "gclk-test.h"
#include "seal/key.h"

#define ROOM 1024

static struct gclk_seal_key *alice, *bob, *eve;

static void make_keys(void)
{
	if (!alice) {
		GCLK_EQ(gclk_seal_key_new(&alice, NULL), 0);
		GCLK_EQ(gclk_seal_key_new(&bob, NULL), 0);
		GCLK_EQ(gclk_seal_key_new(&eve, NULL), 0);
	}
}

__attribute__((destructor)) static void drop_keys(void)
{
	gclk_seal_key_free(alice);
	gclk_seal_key_free(bob);
	gclk_seal_key_free(eve);
}

struct sealed {
	uint8_t bundle[128], bytes[ROOM];
	size_t n_bundle, n;
	const struct gclk_seal_key *recipient;
};

/* From alice to bob, or to anybody. */
static void make(struct sealed *s, int is_encrypted)
{
	uint8_t guest[GCLK_SEAL_GUEST_BYTES];
	int64_t n;

	make_keys();
	s->n_bundle = 1 + gclk_random_below(sizeof(s->bundle));
	for (size_t i = 0; i < s->n_bundle; i++) {
		s->bundle[i] = (uint8_t)gclk_random();
	}
	s->recipient = is_encrypted ? bob : NULL;
	GCLK_EQ(gclk_seal_guest(alice, "guest", guest, NULL), 0);
	n = gclk_seal(alice, s->recipient, guest, 7, s->bundle, s->n_bundle, s->bytes,
		      sizeof(s->bytes), NULL);
	CU_ASSERT_FATAL(n > 0);
	s->n = (size_t)n;
	GCLK_EQ(s->n, gclk_seal_bytes(s->n_bundle, is_encrypted));
}

/* Opens it, and holds that after a refusal nothing of the bundle is there. */
static int open_it(const struct sealed *s, const uint8_t *bytes, size_t n,
		   const struct gclk_seal_key *signer, const struct gclk_seal_key *recipient)
{
	uint8_t to[ROOM];
	struct gclk_error error;
	struct gclk_sealed ret = { 0 };
	int r;

	memset(to, 0, sizeof(to));
	r = gclk_unseal(signer, recipient, 0, bytes, n, to, sizeof(to), &ret, &error);
	if (r < 0) {
		uint8_t any = 0;

		for (size_t i = 0; i < sizeof(to); i++) {
			any |= to[i];
		}
		GCLK_EQ(any, 0);
		GCLK_EQ(ret.suite, 0);
		CU_ASSERT(error.status == -r && error.message[0] != 0);
		return r;
	}
	CU_ASSERT(ret.payload_bytes == s->n_bundle && !memcmp(to, s->bundle, s->n_bundle));
	CU_ASSERT(!memcmp(ret.signer, gclk_seal_key_id(alice), 32));
	GCLK_EQ(ret.sequence, 7);
	return r;
}

GCLK_TEST(seal, what_was_sealed_is_opened)
{
	for (unsigned i = 0; i < 200 * gclk_test_scale(); i++) {
		struct sealed s;

		make(&s, i & 1);
		GCLK_EQ(open_it(&s, s.bytes, s.n, alice, s.recipient), 0);
		GCLK_EQ(memmem(s.bytes, s.n, s.bundle, s.n_bundle) != NULL && s.n_bundle > 8,
			!(i & 1) && s.n_bundle > 8);
	}
}

GCLK_TEST(seal, every_flipped_bit_is_refused)
{
	for (int is_encrypted = 0; is_encrypted < 2; is_encrypted++) {
		struct sealed s;

		make(&s, is_encrypted);
		for (size_t bit = 0; bit < 8 * s.n; bit++) {
			s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			CU_ASSERT(open_it(&s, s.bytes, s.n, alice, s.recipient) < 0);
			s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		GCLK_EQ(open_it(&s, s.bytes, s.n, alice, s.recipient), 0);
	}
}

static void sign_again(struct sealed *s, const struct gclk_seal_key *signer)
{
	size_t n = s->n - GCLK_SEAL_SIGNATURE_BYTES;

	GCLK_EQ(gclk_crypto_sign(signer->sign, (struct gclk_bytes){ s->bytes, n }, s->bytes + n,
				 NULL), 0);
}

/* The encryption itself holds the header and the text, whoever signs anew. */
GCLK_TEST(seal, every_flipped_bit_under_a_new_signature_is_refused_by_the_tag)
{
	struct sealed s;

	make(&s, 1);
	for (size_t bit = 0; bit < 8 * (s.n - GCLK_SEAL_SIGNATURE_BYTES); bit++) {
		s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		sign_again(&s, alice);
		CU_ASSERT(open_it(&s, s.bytes, s.n, alice, bob) < 0);
		s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	sign_again(&s, alice);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), 0);
}

GCLK_TEST(seal, every_truncation_is_refused)
{
	for (int is_encrypted = 0; is_encrypted < 2; is_encrypted++) {
		struct sealed s;

		make(&s, is_encrypted);
		for (size_t n = 0; n < s.n; n++) {
			uint8_t *cut = malloc(n ? n : 1);	/* its end is the heap's */

			CU_ASSERT_FATAL(cut != NULL);
			memcpy(cut, s.bytes, n);
			GCLK_EQ(open_it(&s, cut, n, alice, s.recipient), -GCLK_TRUNCATED);
			free(cut);
		}
	}
}

GCLK_TEST(seal, appended_bytes_are_refused)
{
	for (int is_encrypted = 0; is_encrypted < 2; is_encrypted++) {
		struct sealed s;

		make(&s, is_encrypted);
		for (size_t n = 1; n < 65; n++) {
			s.bytes[s.n + n - 1] = (uint8_t)gclk_random();
			GCLK_EQ(open_it(&s, s.bytes, s.n + n, alice, s.recipient), -GCLK_MALFORMED);
		}
	}
}

GCLK_TEST(seal, wrong_keys_are_refused)
{
	struct sealed s;

	make(&s, 1);
	GCLK_EQ(open_it(&s, s.bytes, s.n, eve, bob), -GCLK_REFUSED);	/* signer */
	GCLK_EQ(open_it(&s, s.bytes, s.n, bob, bob), -GCLK_REFUSED);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, eve), -GCLK_REFUSED);	/* recipient */
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, alice), -GCLK_REFUSED);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, NULL), -GCLK_REFUSED);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), 0);
}

/* A key half ours: the signer's id, but not his Ed25519 key, and so for the recipient. */
GCLK_TEST(seal, an_id_does_not_stand_in_for_its_key)
{
	struct gclk_seal_key false_alice, false_bob;
	struct sealed s;

	make(&s, 1);
	false_alice = *eve;
	memcpy(false_alice.id, alice->id, sizeof(alice->id));
	false_bob = *eve;
	memcpy(false_bob.id, bob->id, sizeof(bob->id));
	GCLK_EQ(open_it(&s, s.bytes, s.n, &false_alice, bob), -GCLK_REFUSED);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, &false_bob), -GCLK_REFUSED);
}

/* eve takes alice's text for her own: bob, who asks for eve's, does not get it. */
GCLK_TEST(seal, a_text_cannot_be_signed_by_another)
{
	struct sealed s;

	make(&s, 1);
	memcpy(s.bytes + 56, eve->id, sizeof(eve->id));
	sign_again(&s, eve);
	GCLK_EQ(open_it(&s, s.bytes, s.n, eve, bob), -GCLK_REFUSED);
}

/* bob opens what he got and sends it on to eve as if alice had. */
GCLK_TEST(seal, a_text_cannot_be_sent_on_in_its_signers_name)
{
	uint8_t guest[GCLK_SEAL_GUEST_BYTES] = { 0 };
	struct gclk_seal_key disguised;
	struct sealed s;
	uint8_t signature[GCLK_SEAL_SIGNATURE_BYTES];

	make(&s, 1);
	memcpy(signature, s.bytes + s.n - sizeof(signature), sizeof(signature));
	disguised = *bob;
	memcpy(disguised.id, alice->id, sizeof(alice->id));
	GCLK_EQ(gclk_seal(&disguised, eve, guest, 7, s.bundle, s.n_bundle, s.bytes, sizeof(s.bytes),
			  NULL), s.n);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, eve), -GCLK_REFUSED);	/* bob's signature */
	memcpy(s.bytes + s.n - sizeof(signature), signature, sizeof(signature));
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, eve), -GCLK_REFUSED);	/* alice's for bob */
}

/* A signed bundle does not become an encrypted one, nor the other way round. */
GCLK_TEST(seal, suites_do_not_turn_into_each_other)
{
	struct sealed s;

	make(&s, 0);
	gclk_put_le16(s.bytes + 10, GCLK_SEAL_ENCRYPTED);
	CU_ASSERT(open_it(&s, s.bytes, s.n, alice, bob) < 0);
	make(&s, 1);
	gclk_put_le16(s.bytes + 10, GCLK_SEAL_SIGNED);
	CU_ASSERT(open_it(&s, s.bytes, s.n, alice, bob) < 0);
	CU_ASSERT(open_it(&s, s.bytes, s.n, alice, NULL) < 0);
}

GCLK_TEST(seal, another_version_is_named_before_anything_is_believed)
{
	struct gclk_error error;
	struct sealed s;

	make(&s, 1);
	for (unsigned version = 0; version < 4; version++) {
		gclk_put_le16(s.bytes + 8, (uint16_t)version);
		sign_again(&s, alice);
		GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), version == 1 ? 0 : -GCLK_VERSION);
	}
	gclk_put_le16(s.bytes + 8, 1);
	gclk_put_le16(s.bytes + 10, 3);
	sign_again(&s, alice);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), -GCLK_UNSUPPORTED);
	GCLK_EQ(gclk_unseal(alice, bob, 0, "\x89GCLK\r\n\x1a", 8, s.bundle, 1, NULL, &error),
		-GCLK_MALFORMED);
}

GCLK_TEST(seal, lengths_have_limits)
{
	static uint8_t large[GCLK_SEAL_MAX_BYTES + 1];
	uint8_t guest[GCLK_SEAL_GUEST_BYTES] = { 0 };
	size_t size = gclk_seal_bytes(sizeof(large), 1);
	uint8_t *to = malloc(size);
	struct sealed s;

	make(&s, 1);
	CU_ASSERT_FATAL(to != NULL);
	GCLK_EQ(gclk_seal(alice, bob, guest, 1, large, sizeof(large), to, size, NULL), -GCLK_RANGE);
	GCLK_EQ(gclk_seal(alice, bob, guest, 1, large, 0, to, size, NULL), -GCLK_RANGE);
	GCLK_EQ(gclk_seal(alice, bob, guest, 1, large, 10, to, gclk_seal_bytes(10, 1) - 1, NULL),
		-GCLK_RANGE);
	GCLK_EQ(gclk_seal(alice, bob, guest, 1, large, sizeof(large) - 1, to, size, NULL), size - 1);
	GCLK_EQ(gclk_unseal(alice, bob, 0, to, size - 1, large, sizeof(large) - 2, NULL, NULL),
		-GCLK_RANGE);
	GCLK_EQ(gclk_unseal(alice, bob, 0, to, size - 1, large, sizeof(large) - 1, NULL, NULL), 0);
	gclk_put_le32(s.bytes + 16, GCLK_SEAL_MAX_BYTES + 1);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), -GCLK_RANGE);
	gclk_put_le32(s.bytes + 16, 0);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), -GCLK_RANGE);
	gclk_put_le32(s.bytes + 16, UINT32_MAX);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), -GCLK_RANGE);
	free(to);
}

GCLK_TEST(seal, a_sequence_that_goes_back_is_a_condition)
{
	struct sealed s;
	uint8_t to[ROOM];

	make(&s, 0);
	GCLK_EQ(gclk_unseal(alice, NULL, 6, s.bytes, s.n, to, sizeof(to), NULL, NULL), 0);
	GCLK_EQ(gclk_unseal(alice, NULL, 7, s.bytes, s.n, to, sizeof(to), NULL, NULL), 0);
	GCLK_EQ(gclk_unseal(alice, NULL, 8, s.bytes, s.n, to, sizeof(to), NULL, NULL),
		GCLK_SEAL_OLDER);
	CU_ASSERT(!memcmp(to, s.bundle, s.n_bundle));
}

GCLK_TEST(seal, public_keys_neither_seal_nor_decrypt)
{
	struct gclk_seal_key *public[2];
	const struct gclk_seal_key *private[2];
	char text[GCLK_SEAL_PEM_BYTES];
	uint8_t guest[GCLK_SEAL_GUEST_BYTES] = { 0 }, to[ROOM];
	struct sealed s;

	make(&s, 1);
	private[0] = alice;
	private[1] = bob;
	for (unsigned i = 0; i < 2; i++) {
		int64_t n = gclk_seal_key_text(private[i], 0, text, sizeof(text), NULL);

		GCLK_EQ(gclk_seal_key_parse(text, (size_t)n, &public[i], NULL), 0);
	}
	GCLK_EQ(gclk_seal(public[0], NULL, guest, 1, "x", 1, to, sizeof(to), NULL), -GCLK_STATE);
	GCLK_EQ(open_it(&s, s.bytes, s.n, public[0], public[1]), -GCLK_STATE);
	GCLK_EQ(open_it(&s, s.bytes, s.n, public[0], bob), 0);
	GCLK_EQ(gclk_seal(alice, public[1], guest, 7, s.bundle, s.n_bundle, s.bytes,
			  sizeof(s.bytes), NULL), s.n);
	GCLK_EQ(open_it(&s, s.bytes, s.n, alice, bob), 0);
	gclk_seal_key_free(public[0]);
	gclk_seal_key_free(public[1]);
}

GCLK_TEST(seal, two_sealings_share_no_key)
{
	struct sealed a;
	uint8_t again[ROOM];

	make(&a, 1);
	GCLK_EQ(gclk_seal(alice, bob, a.bytes + 40, 7, a.bundle, a.n_bundle, again, sizeof(again),
			  NULL), a.n);
	CU_ASSERT(memcmp(a.bytes + 120, again + 120, 32) != 0);
	CU_ASSERT(memcmp(a.bytes + 152, again + 152, a.n_bundle + 16) != 0);
}

GCLK_TEST(seal, guests_have_tags_of_their_own)
{
	uint8_t a[16], b[16], c[16];

	make_keys();
	GCLK_EQ(gclk_seal_guest(alice, "one", a, NULL), 0);
	GCLK_EQ(gclk_seal_guest(alice, "two", b, NULL), 0);
	GCLK_EQ(gclk_seal_guest(bob, "one", c, NULL), 0);
	CU_ASSERT(memcmp(a, b, 16) && memcmp(a, c, 16) && memcmp(b, c, 16));
}

/* Random bytes behind a header that makes sense: a refusal, not a fault. */
GCLK_TEST(seal, random_bytes_are_refused)
{
	for (unsigned i = 0; i < 5000 * gclk_test_scale(); i++) {
		struct sealed s;
		size_t n;

		if (i % 500 == 0) {
			make(&s, (i / 500) & 1);
		}
		n = gclk_random_below(s.n);
		for (uint64_t j = 0; j < 1 + gclk_random_below(8); j++) {
			s.bytes[gclk_random_below(s.n)] ^= (uint8_t)(1 + gclk_random_below(255));
		}
		CU_ASSERT(gclk_unseal(alice, bob, 0, s.bytes, gclk_random() & 1 ? n : s.n,
				      (uint8_t[ROOM]){ 0 }, ROOM, NULL, NULL) <= 0);
	}
}

/* ---- files that were written once ---- */

static char *read_data(const char *name, size_t *ret_n)
{
	char path[4096], *bytes = calloc(1, 1 << 20);
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", GCLK_TEST_DATA, name);
	file = fopen(path, "rb");
	CU_ASSERT_FATAL(file != NULL && bytes != NULL);
	*ret_n = fread(bytes, 1, 1 << 20, file);
	fclose(file);
	return bytes;
}

static struct gclk_seal_key *read_key_file(const char *name)
{
	struct gclk_seal_key *key = NULL;
	size_t n;
	char *text = read_data(name, &n);

	GCLK_EQ(gclk_seal_key_parse(text, n, &key, NULL), 0);
	free(text);
	return key;
}

static void write_data(const char *dir, const char *name, const void *bytes, size_t n)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	CU_ASSERT_FATAL(file != NULL);
	CU_ASSERT(fwrite(bytes, 1, n, file) == n);
	fclose(file);
}

static void make_golden(const char *dir)
{
	uint8_t guest[GCLK_SEAL_GUEST_BYTES], *to = malloc(1 << 20);
	char text[GCLK_SEAL_PEM_BYTES];
	size_t n;
	char *bundle = read_data("bundle-v1.gclk", &n);

	make_keys();
	GCLK_EQ(gclk_seal_guest(alice, "golden", guest, NULL), 0);
	write_data(dir, "seal-signer.pem", text,
		   (size_t)gclk_seal_key_text(alice, 1, text, sizeof(text), NULL));
	write_data(dir, "seal-recipient.pem", text,
		   (size_t)gclk_seal_key_text(bob, 1, text, sizeof(text), NULL));
	write_data(dir, "signed-v1.gseal", to,
		   (size_t)gclk_seal(alice, NULL, guest, 42, bundle, n, to, 1 << 20, NULL));
	write_data(dir, "encrypted-v1.gseal", to,
		   (size_t)gclk_seal(alice, bob, guest, 43, bundle, n, to, 1 << 20, NULL));
	free(bundle);
	free(to);
}

static void open_golden(const char *name, uint64_t sequence)
{
	struct gclk_seal_key *signer = read_key_file("seal-signer.pem");
	struct gclk_seal_key *recipient = read_key_file("seal-recipient.pem");
	size_t n, n_bundle;
	char *bundle = read_data("bundle-v1.gclk", &n_bundle), *bytes = read_data(name, &n);
	uint8_t *to = malloc(1 << 20), guest[GCLK_SEAL_GUEST_BYTES];
	struct gclk_sealed sealed;

	GCLK_EQ(gclk_unseal(signer, recipient, 0, bytes, n, to, 1 << 20, &sealed, NULL), 0);
	GCLK_EQ(gclk_seal_guest(signer, "golden", guest, NULL), 0);
	CU_ASSERT(sealed.sequence == sequence && !memcmp(sealed.guest, guest, sizeof(guest)));
	CU_ASSERT(sealed.payload_bytes == n_bundle && !memcmp(to, bundle, n_bundle));
	if (sealed.suite == GCLK_SEAL_SIGNED) {		/* Ed25519 signs the same way twice */
		GCLK_EQ(gclk_seal(signer, NULL, guest, 42, bundle, n_bundle, to, 1 << 20, NULL), n);
		CU_ASSERT(!memcmp(to, bytes, n));
	}
	for (size_t i = 0; i < n; i += 1 + gclk_random_below(8)) {
		char bit = (char)(1 << gclk_random_below(8));

		bytes[i] ^= bit;
		CU_ASSERT(gclk_unseal(signer, recipient, 0, bytes, n, to, 1 << 20, NULL, NULL) < 0);
		bytes[i] ^= bit;
	}
	free(to);
	free(bytes);
	free(bundle);
	gclk_seal_key_free(signer);
	gclk_seal_key_free(recipient);
}

GCLK_TEST(seal, what_was_sealed_long_ago_is_opened)
{
	const char *dir = getenv("GCLK_MAKE_GOLDEN");

	if (dir) {
		make_golden(dir);
	}
	open_golden("signed-v1.gseal", 42);
	open_golden("encrypted-v1.gseal", 43);
}
