/* SPDX-License-Identifier: MIT */
/*
 * Messages of a few numbers and texts, read by hand. What the two ends say to each other
 * while a guest stands still is of this kind, and too urgent for another process; the
 * encoding (protobuf's) of such a message is a row of
 *
 *	varint	number of the field << 3 | 0: a varint follows; 2: a length and so many bytes;
 *				     1 and 5: 8 and 4 bytes
 *
 * Nothing is allocated, followed or nested: a field of bytes is where it lies, and what is
 * in it is not looked at. Pure.
 */
#ifndef GCLK_MIGRATOR_PEER_SMALL_H
#define GCLK_MIGRATOR_PEER_SMALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMALL_FIELDS 6

enum small_kind {
	SMALL_NONE,
	SMALL_U32,
	SMALL_U64,
	SMALL_S64,		/* zigzag: 0, -1, 1, -2, ... */
	SMALL_BYTES,
};

struct small_value {
	bool has;
	uint64_t n;		/* of SMALL_S64: as int64_t */
	const uint8_t *bytes;	/* within the message */
	size_t size;
};

/**
 * small_read() - the fields of a message
 * @kinds:	of the fields 1, 2, ...; SMALL_NONE and those beyond are passed over
 * @ret:	the last of each
 *
 * Returns whether that is a message.
 */
bool small_read(const uint8_t *body, size_t n, const uint8_t kinds[SMALL_FIELDS],
		struct small_value ret[SMALL_FIELDS]);

#endif
