/* SPDX-License-Identifier: MIT */
/*
 * Sealed bundles: signed, and encrypted to one recipient if wanted.
 *
 * Layout, integers little-endian:
 *
 *	offset size
 *	     0    8  magic: 89 47 43 53 4c 0d 0a 1a ("GCSL" as a bundle's "GCLK")
 *	     8    2  format version, 1
 *	    10    2  suite: 1 signed, 2 encrypted and signed
 *	    12    4  length of the header, 152
 *	    16    4  length of the payload
 *	    20    4  0
 *	    24    8  sequence
 *	    32    8  0
 *	    40   16  tag of the guest
 *	    56   32  id of the signer's key
 *	    88   32  id of the recipient's key; suite 1: 0
 *	   120   32  ephemeral X25519 key; suite 1: 0
 *	   152       payload: a bundle; suite 2: AES-256-GCM of one, and 16 bytes of its tag
 *	     +   64  Ed25519 over everything before
 *
 * Suite 2 takes key and nonce from HKDF-SHA256: no salt, the X25519 secret of the
 * ephemeral key and the recipient's, info "guestclock seal v1" and the header. The
 * header is also what GCM authenticates beside the text. So a signature holds for one
 * recipient, and a text for one signer; docs/security.md says why in this order.
 *
 * The first two functions are in libguestclock; all others in libguestclock-seal, which
 * needs libcrypto.
 */
#ifndef GUESTCLOCK_SEAL_H
#define GUESTCLOCK_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GCLK_SEAL_VERSION 1
#define GCLK_SEAL_HEADER_BYTES 152
#define GCLK_SEAL_TAG_BYTES 16
#define GCLK_SEAL_SIGNATURE_BYTES 64
#define GCLK_SEAL_MAX_BYTES (UINT32_C(16) << 20)	/* of the payload */
#define GCLK_SEAL_ID_BYTES 32
#define GCLK_SEAL_GUEST_BYTES 16
#define GCLK_SEAL_PEM_BYTES 1024	/* room enough for the text of any key */

enum gclk_seal_suite {
	GCLK_SEAL_SIGNED = 1,		/* Ed25519 */
	GCLK_SEAL_ENCRYPTED = 2,	/* Ed25519; X25519, HKDF-SHA256, AES-256-GCM */
};

/* What a sealed bundle says of itself. Before gclk_unseal() it is only what it says. */
struct gclk_sealed {
	uint16_t suite;			/* enum gclk_seal_suite */
	uint32_t payload_bytes;		/* of the bundle; an encrypted one has its tag besides */
	uint64_t sequence;		/* of this guest and signer: later ones are larger */
	uint8_t guest[GCLK_SEAL_GUEST_BYTES];
	uint8_t signer[GCLK_SEAL_ID_BYTES];
	uint8_t recipient[GCLK_SEAL_ID_BYTES];
};

/* Does a file that begins with these bytes claim to be a sealed bundle? 8 bytes are enough. */
int gclk_bytes_are_sealed(const void *buf, size_t size);

/**
 * gclk_sealed_look() - the header, unproven
 * @buf:	the begin of a sealed bundle, GCLK_SEAL_HEADER_BYTES at least
 * @size:	bytes at @buf
 * @all:	bytes of the whole, or 0: not known
 *
 * Errors: GCLK_MALFORMED, GCLK_TRUNCATED, GCLK_VERSION, GCLK_UNSUPPORTED (the suite),
 * GCLK_RANGE (too long).
 */
int gclk_sealed_look(const void *buf, size_t size, size_t all, struct gclk_sealed *ret,
		     struct gclk_error *reterr);

/* ---- libguestclock-seal ---- */

/* An Ed25519 and an X25519 key, both public or both private. */
struct gclk_seal_key;

/* Makes a private key. Ownership: the caller's. */
int gclk_seal_key_new(struct gclk_seal_key **ret, struct gclk_error *reterr);

/**
 * gclk_seal_key_parse() - a key from its text
 * @pem:	two blocks of PEM, Ed25519 first: PRIVATE KEY (PKCS #8) or PUBLIC KEY
 *
 * Errors: GCLK_MALFORMED; GCLK_UNSUPPORTED for keys under a password or of another
 * kind; GCLK_RANGE for more than 16 KiB; GCLK_NOMEM.
 */
int gclk_seal_key_parse(const void *pem, size_t size, struct gclk_seal_key **ret,
			struct gclk_error *reterr);

/* Accepts NULL, wipes what is secret. Returns NULL. */
struct gclk_seal_key *gclk_seal_key_free(struct gclk_seal_key *key);

int gclk_seal_key_is_private(const struct gclk_seal_key *key);

/* SHA-256 of "guestclock key v1", the Ed25519 and the X25519 public key; borrowed. */
const uint8_t *gclk_seal_key_id(const struct gclk_seal_key *key);

/**
 * gclk_seal_key_text() - a key as PEM
 * @is_private:	its secret half, too; the caller wipes @buf
 * @size:	bytes at @buf; GCLK_SEAL_PEM_BYTES suffice
 *
 * Returns the length without the NUL that ends it. Errors: GCLK_STATE when the secret
 * half is wanted of a public key, GCLK_RANGE.
 */
int64_t gclk_seal_key_text(const struct gclk_seal_key *key, int is_private, char *buf,
			   size_t size, struct gclk_error *reterr);

/**
 * gclk_seal_guest() - the tag of a guest
 * @signer:	whose sequences are meant: two signers' tags of a guest differ
 * @name:	its UUID, or what else tells it from the signer's other guests
 */
int gclk_seal_guest(const struct gclk_seal_key *signer, const char *name,
		    uint8_t ret_guest[GCLK_SEAL_GUEST_BYTES], struct gclk_error *reterr);

/* Bytes of a sealed bundle of @payload_bytes. */
size_t gclk_seal_bytes(size_t payload_bytes, int is_encrypted);

/**
 * gclk_seal() - sign a bundle, and encrypt it
 * @signer:	private
 * @recipient:	who alone can open it; or NULL: anybody reads it
 * @sequence:	larger than that of every earlier state of the guest
 * @bundle:	1..GCLK_SEAL_MAX_BYTES
 * @buf:	not overlapping @bundle
 * @size:	bytes at @buf, gclk_seal_bytes() at least
 *
 * Returns the length. Errors: GCLK_STATE (@signer has no secret half), GCLK_RANGE,
 * GCLK_NOMEM, GCLK_UNSUPPORTED (libcrypto does not do it). @buf then has no defined
 * content, and never a key or an unsigned text.
 */
int64_t gclk_seal(const struct gclk_seal_key *signer, const struct gclk_seal_key *recipient,
		  const uint8_t guest[GCLK_SEAL_GUEST_BYTES], uint64_t sequence,
		  const void *bundle, size_t n, void *buf, size_t size,
		  struct gclk_error *reterr);

#define GCLK_SEAL_OLDER 1	/* a condition: the sequence went back */

/**
 * gclk_unseal() - prove who sealed a bundle and that nothing was changed, and open it
 * @signer:	who must have sealed it; its public half suffices
 * @recipient:	private, whom it was encrypted to; or NULL
 * @last_sequence: the largest one seen of this guest and signer (gclk_sealed_look()), or 0
 * @buf:	for the bundle, not overlapping @sealed
 * @size:	bytes at @buf, those of the payload at least
 * @ret:	the header, proven; may be NULL. Its payload_bytes are at @buf.
 *
 * Returns 0, or GCLK_SEAL_OLDER when all is in order but a later state of the guest has
 * been seen. Errors: as gclk_sealed_look(); GCLK_REFUSED when another key sealed it, when
 * the signature or the tag does not match, when it is for another recipient or
 * @recipient is missing; GCLK_STATE (@recipient has no secret half); GCLK_RANGE (@size).
 * Nothing of the bundle is then at @buf.
 */
int gclk_unseal(const struct gclk_seal_key *signer, const struct gclk_seal_key *recipient,
		uint64_t last_sequence, const void *sealed, size_t n, void *buf, size_t size,
		struct gclk_sealed *ret, struct gclk_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
