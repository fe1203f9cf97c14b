/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "migrator/output.h"

static int write_all(int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return -1;
		}
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

/* A file, a pipe or a device that is there and is no regular file is written directly. */
static int is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static int write_to(const char *path, int flags, const void *bytes, size_t size, int sync)
{
	int fd = open(path, flags | O_WRONLY | O_CLOEXEC, 0666);
	int saved;

	if (fd < 0) {
		return -1;
	}
	if (write_all(fd, bytes, size) < 0 || (sync && fsync(fd) < 0)) {
		saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return close(fd);
}

static int replace(const char *path, const void *bytes, size_t size)
{
	char *beside = malloc(strlen(path) + 32);
	int r, saved;

	if (!beside) {
		return -1;
	}
	sprintf(beside, "%s.%ld.new", path, (long)getpid());
	r = write_to(beside, O_CREAT | O_EXCL, bytes, size, 1);
	if (r == 0) {
		r = rename(beside, path);
	}
	if (r < 0) {
		saved = errno;
		if (saved != EEXIST) {
			unlink(beside);
		}
		errno = saved;
	}
	free(beside);
	return r;
}

int write_whole(const char *path, const void *bytes, size_t size,
		struct gclk_error *reterr)
{
	int r;

	if (!strcmp(path, "-")) {
		r = fwrite(bytes, 1, size, stdout) == size ? 0 : -1;
	} else if (is_special(path)) {
		r = write_to(path, 0, bytes, size, 0);
	} else {
		r = replace(path, bytes, size);
	}
	if (r < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "it cannot be written");
	}
	return 0;
}
