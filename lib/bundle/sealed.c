/* SPDX-License-Identifier: MIT */
/* The header of a sealed bundle, for all who do not open it: no cryptography here. */
#include <inttypes.h>
#include <string.h>

#include <guestclock/seal.h>

#include "core/cursor.h"
#include "core/util.h"

static const uint8_t magic[8] = { 0x89, 'G', 'C', 'S', 'L', '\r', '\n', 0x1a };

GCLK_API int gclk_bytes_are_sealed(const void *buf, size_t size)
{
	return size >= sizeof(magic) && !memcmp(buf, magic, sizeof(magic));
}

static int check_kind(uint16_t version, uint16_t suite, uint32_t header,
		      struct gclk_error *reterr)
{
	if (version != GCLK_SEAL_VERSION) {
		return gclk_fail(reterr, GCLK_VERSION, "seal", 8,
				 "version %u is not known, only %d", version, GCLK_SEAL_VERSION);
	}
	if (suite != GCLK_SEAL_SIGNED && suite != GCLK_SEAL_ENCRYPTED) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "seal", 10,
				 "suite %u of algorithms is not known, only 1 and 2", suite);
	}
	if (header != GCLK_SEAL_HEADER_BYTES) {
		return gclk_fail(reterr, GCLK_MALFORMED, "seal", 12,
				 "a header of %" PRIu32 " bytes, version 1 has %d", header,
				 GCLK_SEAL_HEADER_BYTES);
	}
	return 0;
}

static int check_lengths(const struct gclk_sealed *s, size_t all, struct gclk_error *reterr)
{
	uint64_t want = (uint64_t)GCLK_SEAL_HEADER_BYTES + s->payload_bytes +
			(s->suite == GCLK_SEAL_ENCRYPTED ? GCLK_SEAL_TAG_BYTES : 0) +
			GCLK_SEAL_SIGNATURE_BYTES;

	if (s->payload_bytes == 0 || s->payload_bytes > GCLK_SEAL_MAX_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, "seal", 16,
				 "a payload of %" PRIu32 " bytes; it has 1 to %" PRIu32,
				 s->payload_bytes, GCLK_SEAL_MAX_BYTES);
	}
	if (all && all < want) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "seal", all,
				 "the sealed bundle has %" PRIu64 " bytes, there are %zu", want,
				 all);
	}
	if (all > want) {
		return gclk_fail(reterr, GCLK_MALFORMED, "seal", want,
				 "bytes follow the sealed bundle's end");
	}
	return 0;
}

static int is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++) {
		any |= p[i];
	}
	return any == 0;
}

/* What version 1 leaves free is 0, and so is what is only for a recipient. */
static int check_zeros(const uint8_t *p, const struct gclk_sealed *s,
		       struct gclk_error *reterr)
{
	if (!is_zero(p + 20, 4) || !is_zero(p + 32, 8)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "seal", 20,
				 "bytes of the header that must be 0 are not");
	}
	if (s->suite == GCLK_SEAL_SIGNED && !is_zero(p + 88, 64)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "seal", 88,
				 "a recipient, but the bundle is not encrypted");
	}
	return 0;
}

GCLK_API int gclk_sealed_look(const void *buf, size_t size, size_t all,
			      struct gclk_sealed *ret, struct gclk_error *reterr)
{
	const uint8_t *p = buf;
	struct gclk_sealed s = { 0 };
	int r;

	if (size && memcmp(p, magic, GCLK_MIN(size, sizeof(magic)))) {
		return gclk_fail(reterr, GCLK_MALFORMED, "seal", 0,
				 "this is not a sealed bundle");
	}
	if (size < GCLK_SEAL_HEADER_BYTES) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "seal", size,
				 "a sealed bundle begins with %d bytes, there are %zu",
				 GCLK_SEAL_HEADER_BYTES, size);
	}
	s.suite = gclk_get_le16(p + 10);
	s.payload_bytes = gclk_get_le32(p + 16);
	s.sequence = gclk_get_le64(p + 24);
	memcpy(s.guest, p + 40, sizeof(s.guest));
	memcpy(s.signer, p + 56, sizeof(s.signer));
	memcpy(s.recipient, p + 88, sizeof(s.recipient));
	r = check_kind(gclk_get_le16(p + 8), s.suite, gclk_get_le32(p + 12), reterr);
	if (r == 0) {
		r = check_lengths(&s, all, reterr);
	}
	if (r == 0) {
		r = check_zeros(p, &s, reterr);
	}
	if (r == 0) {
		*ret = s;
	}
	return r;
}
