/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "migrator/seal/keyfile.h"

#define FILE_MAX 16384

char *id_text(char to[ID_TEXT_BYTES], const uint8_t *id, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++) {
		snprintf(to + 2 * i, 3, "%02x", id[i]);
	}
	return to;
}

static int check_owner(const struct stat *st, struct gclk_error *reterr)
{
	if (!S_ISREG(st->st_mode)) {
		return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				 "a key is an ordinary file, this is none");
	}
	if (st->st_uid != geteuid() && st->st_uid != 0) {
		return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				 "the key belongs to user %u, neither to you nor to root",
				 (unsigned)st->st_uid);
	}
	if (st->st_mode & 022) {
		return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				 "others can replace the key (mode %04o); chmod go-w",
				 (unsigned)st->st_mode & 07777);
	}
	return 0;
}

static int check_secret(const struct stat *st, struct gclk_error *reterr)
{
	if (st->st_mode & 077) {
		return gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				 "others can read the private key (mode %04o); chmod 600, and "
				 "make a new one if they may have",
				 (unsigned)st->st_mode & 07777);
	}
	return 0;
}

static int read_all(int fd, char *to, size_t size, size_t *ret_n, struct gclk_error *reterr)
{
	size_t used = 0;

	for (;;) {
		ssize_t n = read(fd, to + used, size - used);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, used, "reading failed");
		}
		used += (size_t)n;
		if (n == 0 || used == size) {
			break;
		}
	}
	*ret_n = used;
	return 0;
}

static int read_key(int fd, struct gclk_seal_key **ret, struct gclk_error *reterr)
{
	char text[FILE_MAX + 1];
	struct stat st;
	size_t n = 0;
	int r;

	if (fstat(fd, &st) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "it has no state");
	}
	r = check_owner(&st, reterr);
	if (r == 0) {
		r = read_all(fd, text, sizeof(text), &n, reterr);
	}
	if (r == 0) {
		r = gclk_seal_key_parse(text, n, ret, reterr);
	}
	explicit_bzero(text, sizeof(text));
	if (r == 0 && gclk_seal_key_is_private(*ret)) {
		r = check_secret(&st, reterr);
		if (r < 0) {
			*ret = gclk_seal_key_free(*ret);
		}
	}
	return r;
}

int keyfile_read(const char *path, struct gclk_seal_key **ret, struct gclk_error *reterr)
{
	/* a pipe that nobody writes to must not hold us up */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r;

	if (fd < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the key cannot be opened");
	}
	r = read_key(fd, ret, reterr);
	close(fd);
	return r;
}

static int write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno == EINTR) {
			continue;
		}
		if (done <= 0) {
			return -1;
		}
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

/* A new file with a mode that no umask widens; it is gone again if it cannot be whole. */
static int create(const char *path, mode_t mode, const char *text, size_t n,
		  struct gclk_error *reterr)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, mode);
	int r, saved;

	if (fd < 0) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
				 errno == EEXIST ? "%s is there already; no key is ever replaced"
						 : "%s cannot be made", path);
	}
	r = write_all(fd, text, n) < 0 || fsync(fd) < 0 ? -1 : 0;
	saved = errno;
	if (close(fd) < 0 && r == 0) {
		saved = errno;
		r = -1;
	}
	if (r < 0) {
		unlink(path);
		errno = saved;
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
				 "%s cannot be written", path);
	}
	return 0;
}

static int create_key(const char *path, mode_t mode, int is_private,
		      const struct gclk_seal_key *key, struct gclk_error *reterr)
{
	char text[GCLK_SEAL_PEM_BYTES];
	int64_t n = gclk_seal_key_text(key, is_private, text, sizeof(text), reterr);
	int r = n < 0 ? (int)n : create(path, mode, text, (size_t)n, reterr);

	explicit_bzero(text, sizeof(text));
	return r;
}

int keyfile_write(const char *path, const char *public_path, const struct gclk_seal_key *key,
		  struct gclk_error *reterr)
{
	int r = create_key(path, 0600, 1, key, reterr);

	if (r < 0) {
		return r;
	}
	r = create_key(public_path, 0644, 0, key, reterr);
	if (r < 0) {
		unlink(path);
	}
	return r;
}
