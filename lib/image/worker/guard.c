/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <unistd.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "image/io.h"
#include "image/worker/guard.h"

#define FORMAT_OFFSET 28		/* in a save image; 4 bytes */
#define QCOW2_CLUSTER_BITS 20		/* in its header; 4 bytes, big-endian */

/* Where what the host says ends and what the guest says begins. */
static int find_floor(int fd, uint64_t *ret, struct gclk_error *reterr)
{
	uint8_t head[GCLK_LIBVIRT_HEADER_BYTES] = { 0 };
	ssize_t n = pread(fd, head, sizeof(head), 0);
	struct gclk_libvirt_save save;

	*ret = 0;
	if (n < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, 0, "cannot read the file: %m");
	}
	if (n == (ssize_t)sizeof(head) && gclk_libvirt_save_probe(head, sizeof(head)) &&
	    gclk_libvirt_save_header(head, &save, NULL) == 0) {
		*ret = GCLK_LIBVIRT_HEADER_BYTES + (uint64_t)save.data_len;
	} else if (gclk_qcow2_probe(head, (size_t)n)) {
		uint32_t bits = gclk_get_be32(head + QCOW2_CLUSTER_BITS);

		/* what no qcow2 has: then nothing is written */
		*ret = bits <= 21 ? UINT64_C(1) << bits : UINT64_MAX;
		*ret = bits < 9 ? UINT64_MAX : *ret;
	}
	return 0;
}

int gclk_guard_begin(int fd, bool writable, struct gclk_guard *ret, struct gclk_error *reterr)
{
	struct gclk_io file = gclk_io_file(fd);
	int r = 0;

	*ret = (struct gclk_guard){ .writable = writable };
	if (lseek(fd, 0, SEEK_CUR) < 0) {
		return 0;		/* a pipe: nothing to guard */
	}
	r = file.size(file.ctx, &ret->size, reterr);
	r = r < 0 ? r : find_floor(fd, &ret->floor, reterr);
	ret->size_max = ret->size + GCLK_GUARD_GROWTH_MAX;
	return r;
}

int gclk_guard_narrow(struct gclk_guard *guard, const struct gclk_facts *facts,
		      struct gclk_error *reterr)
{
	if (!guard->writable || facts->kind == GCLK_CONTAINER_QCOW2 || !facts->in_place) {
		return 0;
	}
	if (facts->tail_begin < guard->floor || facts->tail_end > guard->size ||
	    facts->tail_end - facts->tail_begin > GCLK_GUARD_TAIL_MAX) {
		return gclk_fail(reterr, GCLK_PEER, NULL, facts->tail_begin,
				 "the confined process that reads the file says that its device "
				 "state is where it cannot be");
	}
	guard->begin = facts->tail_begin;
	return 0;
}

static uint64_t lowest(const struct gclk_guard *guard)
{
	return GCLK_MAX(guard->floor, guard->begin);
}

bool gclk_guard_allows_write(const struct gclk_guard *guard, uint64_t offset, uint64_t n)
{
	return guard->writable && offset >= lowest(guard) && offset <= guard->size_max &&
	       n <= guard->size_max - offset;
}

bool gclk_guard_allows_size(const struct gclk_guard *guard, uint64_t size)
{
	return guard->writable && size >= lowest(guard) && size <= guard->size_max;
}

/* Both ends of one piece of the head. */
static bool same_piece(int in, int out, uint64_t at, size_t n, bool plain)
{
	uint8_t a[4096], b[4096];

	if (pread(in, a, n, (off_t)at) != (ssize_t)n ||
	    pread(out, b, n, (off_t)at) != (ssize_t)n) {
		return false;
	}
	if (plain && at == 0 && n >= FORMAT_OFFSET + 4) {
		memset(a + FORMAT_OFFSET, 0, 4);
	}
	return !memcmp(a, b, n);
}

int gclk_guard_check_copy(const struct gclk_guard *guard, int in, int out, bool plain,
			  struct gclk_error *reterr)
{
	for (uint64_t at = 0; at < guard->floor; at += 4096) {
		size_t n = (size_t)GCLK_MIN(guard->floor - at, UINT64_C(4096));

		if (!same_piece(in, out, at, n, plain)) {
			return gclk_fail(reterr, GCLK_PEER, NULL, at,
					 "the confined process that copied the file did not leave "
					 "its head as it is");
		}
	}
	return 0;
}
