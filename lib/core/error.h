/* SPDX-License-Identifier: MIT */
#ifndef GCLK_CORE_ERROR_H
#define GCLK_CORE_ERROR_H

#include <guestclock/error.h>

/*
 * Fills @reterr, if there is one, and returns -status, so that a failing branch
 * is one statement: return gclk_fail(reterr, GCLK_RANGE, "pit", off, "count %u", n);
 * errno is recorded for GCLK_SYS. @where may be NULL.
 */
int gclk_fail(struct gclk_error *reterr, enum gclk_status status, const char *where,
	      uint64_t offset, const char *format, ...) __attribute__((format(printf, 5, 6)));

#define GCLK_NO_OFFSET GCLK_ERROR_NO_OFFSET

#endif
