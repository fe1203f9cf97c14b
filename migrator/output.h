/* SPDX-License-Identifier: MIT */
/* Files that the command makes: whole or not at all. */
#ifndef GCLK_MIGRATOR_OUTPUT_H
#define GCLK_MIGRATOR_OUTPUT_H

#include <stddef.h>

#include <guestclock/error.h>

/**
 * write_whole() - a file that appears under its name when all of it is on disk
 * @path:	replaced if it is there; "-" is standard output
 */
int write_whole(const char *path, const void *bytes, size_t size,
		struct gclk_error *reterr);

#endif
