/* SPDX-License-Identifier: MIT */
/*
 * Sealing and opening; <guestclock/seal.h> draws the bytes.
 *
 * Encrypted first, then signed, each over the names of both:
 *
 *	key, nonce  = HKDF(X25519(ephemeral, recipient), info: header)
 *	ciphertext  = AES-256-GCM(key, nonce, aad: header, bundle)
 *	signature   = Ed25519(signer, header | ciphertext | tag)
 *	header      = ..., id of the signer, id of the recipient, ephemeral key
 *
 * Nobody but the signer can put a text before another recipient: the recipient's id is
 * signed. Nobody can put his own signature on another's text, without knowing it: the
 * signer's id has gone into the key. And no byte is decrypted, or read beyond the header,
 * that the signer did not sign.
 */
#include <string.h>

#include <openssl/crypto.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "seal/key.h"

#define LABEL "guestclock seal v1"

struct content_key {
	uint8_t key[32];
	uint8_t nonce[GCLK_NONCE_BYTES];
};

GCLK_API size_t gclk_seal_bytes(size_t payload_bytes, int is_encrypted)
{
	return GCLK_SEAL_HEADER_BYTES + payload_bytes +
	       (is_encrypted ? GCLK_SEAL_TAG_BYTES : 0) + GCLK_SEAL_SIGNATURE_BYTES;
}

GCLK_API int gclk_seal_guest(const struct gclk_seal_key *signer, const char *name,
			     uint8_t ret_guest[GCLK_SEAL_GUEST_BYTES], struct gclk_error *reterr)
{
	static const char label[] = "guestclock guest v1";
	const struct gclk_bytes parts[] = { { label, sizeof(label) - 1 },
					    { signer->id, sizeof(signer->id) },
					    { name, strlen(name) } };
	uint8_t hash[32];
	int r = gclk_crypto_sha256(parts, GCLK_COUNT(parts), hash, reterr);

	if (r == 0) {
		memcpy(ret_guest, hash, GCLK_SEAL_GUEST_BYTES);
	}
	return r;
}

static void put_header(uint8_t *p, const struct gclk_sealed *s, const uint8_t ephemeral[32])
{
	static const uint8_t magic[8] = { 0x89, 'G', 'C', 'S', 'L', '\r', '\n', 0x1a };

	memset(p, 0, GCLK_SEAL_HEADER_BYTES);
	memcpy(p, magic, sizeof(magic));
	gclk_put_le16(p + 8, GCLK_SEAL_VERSION);
	gclk_put_le16(p + 10, s->suite);
	gclk_put_le32(p + 12, GCLK_SEAL_HEADER_BYTES);
	gclk_put_le32(p + 16, s->payload_bytes);
	gclk_put_le64(p + 24, s->sequence);
	memcpy(p + 40, s->guest, sizeof(s->guest));
	memcpy(p + 56, s->signer, sizeof(s->signer));
	memcpy(p + 88, s->recipient, sizeof(s->recipient));
	memcpy(p + 120, ephemeral, 32);
}

/* What both sides derive from the secret that they share, and from the header. */
static int derive(EVP_PKEY *own, EVP_PKEY *peer, const uint8_t *header,
		  struct content_key *ret, struct gclk_error *reterr)
{
	uint8_t secret[32], info[sizeof(LABEL) - 1 + GCLK_SEAL_HEADER_BYTES];
	int r = gclk_crypto_agree(own, peer, secret, reterr);

	if (r < 0) {
		return r;
	}
	memcpy(info, LABEL, sizeof(LABEL) - 1);
	memcpy(info + sizeof(LABEL) - 1, header, GCLK_SEAL_HEADER_BYTES);
	r = gclk_crypto_hkdf((struct gclk_bytes){ secret, sizeof(secret) },
			     (struct gclk_bytes){ NULL, 0 },
			     (struct gclk_bytes){ info, sizeof(info) }, ret, sizeof(*ret), reterr);
	OPENSSL_cleanse(secret, sizeof(secret));
	return r;
}

/* ---- seal ---- */

static int encrypt(EVP_PKEY *ephemeral, EVP_PKEY *recipient, uint8_t *p,
		   struct gclk_bytes bundle, struct gclk_error *reterr)
{
	uint8_t *to = p + GCLK_SEAL_HEADER_BYTES;
	struct content_key content;
	int r = derive(ephemeral, recipient, p, &content, reterr);

	if (r == 0) {
		r = gclk_crypto_encrypt(content.key, content.nonce,
					(struct gclk_bytes){ p, GCLK_SEAL_HEADER_BYTES }, bundle,
					to, to + bundle.n, reterr);
	}
	OPENSSL_cleanse(&content, sizeof(content));
	return r;
}

/* Header and payload. */
static int put_encrypted(const struct gclk_sealed *s, const struct gclk_seal_key *recipient,
			 struct gclk_bytes bundle, uint8_t *p, struct gclk_error *reterr)
{
	EVP_PKEY *ephemeral = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	uint8_t raw[GCLK_RAW_KEY_BYTES];
	size_t n = sizeof(raw);
	int r;

	if (!ephemeral || EVP_PKEY_get_raw_public_key(ephemeral, raw, &n) != 1) {
		EVP_PKEY_free(ephemeral);
		return gclk_crypto_fail(reterr, "make a key (X25519)");
	}
	put_header(p, s, raw);
	r = encrypt(ephemeral, recipient->agree, p, bundle, reterr);
	EVP_PKEY_free(ephemeral);
	return r;
}

static int check_arguments(const struct gclk_seal_key *signer, size_t n, size_t want,
			   size_t size, struct gclk_error *reterr)
{
	if (!signer->is_private) {
		return gclk_fail(reterr, GCLK_STATE, "key", GCLK_NO_OFFSET,
				 "to seal needs the private key of the signer, this is a public "
				 "one");
	}
	if (n == 0 || n > GCLK_SEAL_MAX_BYTES || want > size) {
		return gclk_fail(reterr, GCLK_RANGE, "seal", GCLK_NO_OFFSET,
				 "%zu bytes cannot be sealed into %zu", n, size);
	}
	return 0;
}

GCLK_API int64_t gclk_seal(const struct gclk_seal_key *signer,
			   const struct gclk_seal_key *recipient,
			   const uint8_t guest[GCLK_SEAL_GUEST_BYTES], uint64_t sequence,
			   const void *bundle, size_t n, void *buf, size_t size,
			   struct gclk_error *reterr)
{
	static const uint8_t none[32];
	size_t all = gclk_seal_bytes(n, recipient != NULL);
	size_t text = all - GCLK_SEAL_SIGNATURE_BYTES;
	struct gclk_sealed s = { .sequence = sequence, .payload_bytes = (uint32_t)n };
	uint8_t *p = buf;
	int r = check_arguments(signer, n, all, size, reterr);

	if (r < 0) {
		return r;
	}
	memcpy(s.guest, guest, sizeof(s.guest));
	memcpy(s.signer, signer->id, sizeof(s.signer));
	if (recipient) {
		s.suite = GCLK_SEAL_ENCRYPTED;
		memcpy(s.recipient, recipient->id, sizeof(s.recipient));
		r = put_encrypted(&s, recipient, (struct gclk_bytes){ bundle, n }, p, reterr);
	} else {
		s.suite = GCLK_SEAL_SIGNED;
		put_header(p, &s, none);
		memcpy(p + GCLK_SEAL_HEADER_BYTES, bundle, n);
	}
	if (r == 0) {
		r = gclk_crypto_sign(signer->sign, (struct gclk_bytes){ p, text }, p + text,
				     reterr);
	}
	if (r < 0) {
		OPENSSL_cleanse(p, all);
		return r;
	}
	return (int64_t)all;
}

/* ---- open ---- */

static int check_signer(const struct gclk_seal_key *signer, const struct gclk_sealed *s,
			const uint8_t *p, size_t n, struct gclk_error *reterr)
{
	size_t text = n - GCLK_SEAL_SIGNATURE_BYTES;

	if (memcmp(s->signer, signer->id, sizeof(s->signer))) {
		return gclk_fail(reterr, GCLK_REFUSED, "seal", 56,
				 "another key sealed it: %02x%02x%02x%02x..., not "
				 "%02x%02x%02x%02x...",
				 s->signer[0], s->signer[1], s->signer[2], s->signer[3],
				 signer->id[0], signer->id[1], signer->id[2], signer->id[3]);
	}
	return gclk_crypto_verify(signer->sign, (struct gclk_bytes){ p, text }, p + text, reterr);
}

static int check_recipient(const struct gclk_seal_key *recipient, const struct gclk_sealed *s,
			   struct gclk_error *reterr)
{
	const uint8_t *id = s->recipient;

	if (!recipient) {
		return gclk_fail(reterr, GCLK_REFUSED, "seal", 88,
				 "it is encrypted; to open it needs the private key "
				 "%02x%02x%02x%02x... of its recipient",
				 id[0], id[1], id[2], id[3]);
	}
	if (memcmp(id, recipient->id, sizeof(s->recipient))) {
		return gclk_fail(reterr, GCLK_REFUSED, "seal", 88,
				 "it is for another recipient: %02x%02x%02x%02x..., not "
				 "%02x%02x%02x%02x...",
				 id[0], id[1], id[2], id[3], recipient->id[0], recipient->id[1],
				 recipient->id[2], recipient->id[3]);
	}
	if (!recipient->is_private) {
		return gclk_fail(reterr, GCLK_STATE, "key", GCLK_NO_OFFSET,
				 "to open needs the private key of the recipient, this is a "
				 "public one");
	}
	return 0;
}

static int decrypt(const struct gclk_seal_key *recipient, const uint8_t *p, size_t n,
		   uint8_t *to, struct gclk_error *reterr)
{
	EVP_PKEY *ephemeral = gclk_raw_key(EVP_PKEY_X25519, 0, p + 120);
	const uint8_t *text = p + GCLK_SEAL_HEADER_BYTES;
	struct content_key content;
	int r;

	if (!ephemeral) {
		return gclk_crypto_fail(reterr, "take a key (X25519)");
	}
	r = derive(recipient->agree, ephemeral, p, &content, reterr);
	EVP_PKEY_free(ephemeral);
	if (r == 0) {
		r = gclk_crypto_decrypt(content.key, content.nonce,
					(struct gclk_bytes){ p, GCLK_SEAL_HEADER_BYTES },
					(struct gclk_bytes){ text, n }, text + n, to, reterr);
	}
	OPENSSL_cleanse(&content, sizeof(content));
	return r;
}

GCLK_API int gclk_unseal(const struct gclk_seal_key *signer,
			 const struct gclk_seal_key *recipient, uint64_t last_sequence,
			 const void *sealed, size_t n, void *buf, size_t size,
			 struct gclk_sealed *ret, struct gclk_error *reterr)
{
	const uint8_t *p = sealed;
	struct gclk_sealed s;
	int r = gclk_sealed_look(p, n, n, &s, reterr);

	if (r < 0) {
		return r;
	}
	if (s.payload_bytes > size) {
		return gclk_fail(reterr, GCLK_RANGE, "seal", GCLK_NO_OFFSET,
				 "%u bytes do not fit into %zu", s.payload_bytes, size);
	}
	r = check_signer(signer, &s, p, n, reterr);
	if (r == 0 && s.suite == GCLK_SEAL_ENCRYPTED) {
		r = check_recipient(recipient, &s, reterr);
		if (r == 0) {
			r = decrypt(recipient, p, s.payload_bytes, buf, reterr);
		}
	} else if (r == 0) {
		memcpy(buf, p + GCLK_SEAL_HEADER_BYTES, s.payload_bytes);
	}
	if (r < 0) {
		return r;
	}
	if (ret) {
		*ret = s;
	}
	return s.sequence < last_sequence ? GCLK_SEAL_OLDER : 0;
}
