/* SPDX-License-Identifier: MIT */
/*
 * Results and errors.
 *
 * Every function that can fail returns 0, or a negative enum gclk_status, or a
 * positive condition that its own description names. The place and the reason
 * go into a caller-owned struct gclk_error, which may be NULL; it is written on
 * failure only. The library never prints and never allocates for an error.
 */
#ifndef GUESTCLOCK_ERROR_H
#define GUESTCLOCK_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Returned negated: -GCLK_RANGE. The values are also the exit codes of the
 * command, hence 2 (usage), which only programs use.
 */
enum gclk_status {
	GCLK_OK = 0,
	GCLK_REFUSED = 1,	/* a finding of severity error, nothing was touched (R6) */
	GCLK_USAGE = 2,
	GCLK_SYS = 3,		/* a system call failed; sys_errno says how */
	GCLK_NOMEM = 4,
	GCLK_TRUNCATED = 5,	/* the bytes end before the format does */
	GCLK_MALFORMED = 6,	/* the bytes contradict the format */
	GCLK_VERSION = 7,	/* a version that this release does not know */
	GCLK_UNSUPPORTED = 8,	/* well-formed, but cannot be handled; the message says why */
	GCLK_RANGE = 9,		/* a value outside what its field allows */
	GCLK_LOSSY = 10,	/* would round a guest-visible value */
	GCLK_STATE = 11,	/* wrong order of calls, or the object is busy */
	GCLK_PEER = 12,		/* the other end misbehaved */
	GCLK_UNPROVEN = 13,	/* changed, but the read-back did not prove it (R7) */
};

#define GCLK_ERROR_NO_OFFSET UINT64_MAX

struct gclk_error {
	int status;		/* an enum gclk_status, positive */
	int sys_errno;		/* errno of the failed call, or 0 */
	uint64_t offset;	/* byte offset in the input, or GCLK_ERROR_NO_OFFSET */
	char where[96];		/* field path, section or file part: "hpet/timers[2].period" */
	char message[256];	/* one sentence, no final newline */
};

/**
 * gclk_status_name() - the kebab-case name of a status
 * @status:	an enum gclk_status, of either sign
 *
 * Returns a static string, "unknown" for anything else. It serves as the ID in
 * the command's messages.
 */
const char *gclk_status_name(int status);

#ifdef __cplusplus
}
#endif
#endif
