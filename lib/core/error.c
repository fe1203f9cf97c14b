/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"

static const char *const names[] = {
	[GCLK_OK] = "ok",
	[GCLK_REFUSED] = "refused",
	[GCLK_USAGE] = "usage",
	[GCLK_SYS] = "system",
	[GCLK_NOMEM] = "out-of-memory",
	[GCLK_TRUNCATED] = "truncated",
	[GCLK_MALFORMED] = "malformed",
	[GCLK_VERSION] = "version",
	[GCLK_UNSUPPORTED] = "unsupported",
	[GCLK_RANGE] = "range",
	[GCLK_LOSSY] = "lossy",
	[GCLK_STATE] = "state",
	[GCLK_PEER] = "peer",
	[GCLK_UNPROVEN] = "unproven",
};

GCLK_API const char *gclk_status_name(int status)
{
	unsigned n = status < 0 ? -(unsigned)status : (unsigned)status;

	return n < GCLK_COUNT(names) ? names[n] : "unknown";
}

int gclk_fail(struct gclk_error *reterr, enum gclk_status status, const char *where,
	      uint64_t offset, const char *format, ...)
{
	int saved = errno;
	va_list args;

	if (reterr) {
		reterr->status = (int)status;
		reterr->sys_errno = status == GCLK_SYS ? saved : 0;
		reterr->offset = offset;
		snprintf(reterr->where, sizeof(reterr->where), "%s", where ? where : "");
		va_start(args, format);
		vsnprintf(reterr->message, sizeof(reterr->message), format, args);
		va_end(args);
	}
	errno = saved;
	return -(int)status;
}
