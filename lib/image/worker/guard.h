/* SPDX-License-Identifier: MIT */
/*
 * What a worker may have written for it. It asks for bytes at an offset in the file; the
 * asker, who holds the file, looks here. What a stranger would want to change is what
 * others act upon as the host's own words:
 *
 *	a save image	header and domain XML, which name programs, disks, devices
 *	a qcow2		its first cluster, whose header names other files
 *
 * and neither is ever written. Of a save image and a stream nothing before the device
 * state is written, either. All that the guard itself reads of a file is its first 92 bytes.
 */
#ifndef GCLK_IMAGE_WORKER_GUARD_H
#define GCLK_IMAGE_WORKER_GUARD_H

#include "image/worker/facts.h"

/* Device state, and a record behind it, are smaller. */
#define GCLK_GUARD_TAIL_MAX (UINT64_C(64) << 20)
#define GCLK_GUARD_GROWTH_MAX (UINT64_C(64) << 20)

struct gclk_guard {
	bool writable;
	uint64_t floor;			/* no byte before it */
	uint64_t begin;			/* nor before that: the device state */
	uint64_t size, size_max;	/* of the file: as it was, as it may become */
};

/* Of an open file. Errors: GCLK_SYS; of a head that is not whole the floor is 0. */
int gclk_guard_begin(int fd, bool writable, struct gclk_guard *ret, struct gclk_error *reterr);

/* With what the worker says about the image, once. Errors: GCLK_PEER. */
int gclk_guard_narrow(struct gclk_guard *guard, const struct gclk_facts *facts,
		      struct gclk_error *reterr);

bool gclk_guard_allows_write(const struct gclk_guard *guard, uint64_t offset, uint64_t n);
bool gclk_guard_allows_size(const struct gclk_guard *guard, uint64_t size);

/**
 * gclk_guard_check_copy() - the same head, byte for byte
 * @plain:	but for the format in a save image, which is 0
 *
 * Errors: GCLK_PEER, GCLK_SYS.
 */
int gclk_guard_check_copy(const struct gclk_guard *guard, int in, int out, bool plain,
			  struct gclk_error *reterr);

#endif
