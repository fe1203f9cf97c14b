/* SPDX-License-Identifier: MIT */
/*
 * How large a file may become that is made from somebody else's compressed one: a small
 * image can unpack to any size, and a full disk stops guests that have nothing to do with it.
 */
#ifndef GCLK_MIGRATOR_VIRT_ROOM_H
#define GCLK_MIGRATOR_VIRT_ROOM_H

#include <stdint.h>
#include <sys/resource.h>

#include <guestclock/error.h>

/* What others keep of a file system: a twentieth of it, at most 1 GiB. */
uint64_t room_reserve(uint64_t all_bytes);

/**
 * room_beside() - how many bytes a new file may have beside @path
 *
 * Errors: GCLK_SYS, GCLK_RANGE.
 */
int room_beside(const char *path, uint64_t *ret, struct gclk_error *reterr);

/**
 * room_limit() - no file of this process, nor of one that it starts, grows beyond that
 * @ret_before:	for room_unlimit()
 *
 * Whoever tries gets EFBIG here, and is ended by SIGXFSZ where it does not ignore that. For
 * the time of one work: files that are larger already cannot be written at their end. Errors:
 * GCLK_SYS.
 */
int room_limit(uint64_t bytes, struct rlimit *ret_before, struct gclk_error *reterr);
void room_unlimit(const struct rlimit *before);

#endif
