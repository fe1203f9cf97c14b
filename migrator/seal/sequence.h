/* SPDX-License-Identifier: MIT */
/*
 * The largest sequence seen of each guest and signer, in a file of lines
 *
 *	SIGNER GUEST SEQUENCE		64 and 32 hexadecimal digits, a decimal number
 *
 * that is replaced as a whole, under a lock on FILE.lock. Who is used last stands last. Of
 * more than 4096 the first one goes of the signer who has most.
 */
#ifndef GCLK_MIGRATOR_SEQUENCE_H
#define GCLK_MIGRATOR_SEQUENCE_H

#include <guestclock/seal.h>

/*
 * The file where none is named: $XDG_STATE_HOME/guestclock/sequences, else for root
 * /var/lib/guestclock/sequences, for others ~/.local/state/guestclock/sequences.
 * Its directory is made. NULL where there is no home.
 */
const char *sequence_file(char *to, size_t size);

struct sequence_key {
	uint8_t signer[GCLK_SEAL_ID_BYTES];
	uint8_t guest[GCLK_SEAL_GUEST_BYTES];
};

/* 0 where none is known. Errors: GCLK_SYS, GCLK_MALFORMED, GCLK_RANGE, GCLK_NOMEM. */
int sequence_largest(const char *path, const struct sequence_key *key, uint64_t *ret,
		     struct gclk_error *reterr);

#define SEQUENCE_FORGOT 1	/* done, and another line had to go for it */

/* Keeps @sequence if it is larger than what is known. Returns 0 or SEQUENCE_FORGOT. */
int sequence_note(const char *path, const struct sequence_key *key, uint64_t sequence,
		  struct gclk_error *reterr);

/* Takes the next one, which is not below @floor. Returns as above. */
int sequence_take(const char *path, const struct sequence_key *key, uint64_t floor,
		  uint64_t *ret, struct gclk_error *reterr);

#endif
