/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "image/io.h"

/* The descriptor travels as the context itself: nothing to own. */
static int file_of(void *ctx)
{
	return (int)(intptr_t)ctx;
}

/* pread and pwrite take a signed offset. */
static bool addressable(uint64_t offset, size_t n)
{
	return n <= INT64_MAX && offset <= (uint64_t)INT64_MAX - n;
}

static int file_read(void *ctx, uint64_t offset, void *buf, size_t n,
		     struct gclk_error *reterr)
{
	uint8_t *to = buf;
	size_t done = 0;

	if (!addressable(offset, n)) {
		return gclk_fail(reterr, GCLK_TRUNCATED, NULL, offset,
				 "no file reaches to byte %" PRIu64, offset);
	}
	while (done < n) {
		ssize_t r = pread(file_of(ctx), to + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r < 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, offset + done,
					 "cannot read the file: %m");
		}
		if (r == 0) {
			return gclk_fail(reterr, GCLK_TRUNCATED, NULL, offset + done,
					 "%zu bytes wanted at %" PRIu64 ", the file ends after %zu",
					 n, offset, done);
		}
		done += (size_t)r;
	}
	return 0;
}

static int file_write(void *ctx, uint64_t offset, const void *buf, size_t n,
		      struct gclk_error *reterr)
{
	const uint8_t *from = buf;
	size_t done = 0;

	if (!addressable(offset, n)) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, offset,
				 "no file reaches to byte %" PRIu64, offset);
	}
	while (done < n) {
		ssize_t r = pwrite(file_of(ctx), from + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r <= 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, offset + done,
					 "cannot write the file: %m");
		}
		done += (size_t)r;
	}
	return 0;
}

static int file_sync(void *ctx, struct gclk_error *reterr)
{
	if (fsync(file_of(ctx)) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot bring the file to the disk: %m");
	}
	return 0;
}

static int file_resize(void *ctx, uint64_t size, struct gclk_error *reterr)
{
	if (!addressable(size, 0)) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, size, "no file is that long");
	}
	if (ftruncate(file_of(ctx), (off_t)size) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, size,
				 "cannot set the file's length: %m");
	}
	return 0;
}

static int file_size(void *ctx, uint64_t *ret_size, struct gclk_error *reterr)
{
	struct stat st;
	off_t end;

	if (fstat(file_of(ctx), &st) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot tell the file's length: %m");
	}
	end = st.st_size;
	if (S_ISBLK(st.st_mode)) {	/* a logical volume says 0 there */
		end = lseek(file_of(ctx), 0, SEEK_END);
	}
	if (end < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot tell the device's length: %m");
	}
	*ret_size = (uint64_t)end;
	return 0;
}

struct gclk_io gclk_io_file(int fd)
{
	return (struct gclk_io){
		.ctx = (void *)(intptr_t)fd,
		.read = file_read,
		.write = file_write,
		.sync = file_sync,
		.resize = file_resize,
		.size = file_size,
	};
}

/* Adding the base must not wrap; UINT64_MAX is past any end, so it fails below. */
static uint64_t lifted(const struct gclk_io_part *part, uint64_t offset)
{
	return offset > UINT64_MAX - part->base ? UINT64_MAX : offset + part->base;
}

static int part_read(void *ctx, uint64_t offset, void *buf, size_t n,
		     struct gclk_error *reterr)
{
	const struct gclk_io_part *part = ctx;

	return part->below.read(part->below.ctx, lifted(part, offset), buf, n, reterr);
}

static int part_write(void *ctx, uint64_t offset, const void *buf, size_t n,
		      struct gclk_error *reterr)
{
	const struct gclk_io_part *part = ctx;

	return part->below.write(part->below.ctx, lifted(part, offset), buf, n, reterr);
}

static int part_sync(void *ctx, struct gclk_error *reterr)
{
	const struct gclk_io_part *part = ctx;

	return part->below.sync(part->below.ctx, reterr);
}

static int part_resize(void *ctx, uint64_t size, struct gclk_error *reterr)
{
	const struct gclk_io_part *part = ctx;

	return part->below.resize(part->below.ctx, lifted(part, size), reterr);
}

static int part_size(void *ctx, uint64_t *ret_size, struct gclk_error *reterr)
{
	const struct gclk_io_part *part = ctx;
	uint64_t size;
	int r;

	r = part->below.size(part->below.ctx, &size, reterr);
	if (r < 0) {
		return r;
	}
	*ret_size = size > part->base ? size - part->base : 0;
	return 0;
}

struct gclk_io gclk_io_from(struct gclk_io_part *part)
{
	return (struct gclk_io){
		.ctx = part,
		.read = part_read,
		.write = part_write,
		.sync = part_sync,
		.resize = part_resize,
		.size = part_size,
	};
}
