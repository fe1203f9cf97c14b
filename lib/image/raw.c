/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/raw.h"

/* ---- facts ---- */

static int64_t to_ns(const struct statx_timestamp *t)
{
	return t->tv_sec * GCLK_NS_PER_S + t->tv_nsec;
}

int gclk_file_facts(int fd, struct gclk_file_facts *ret, struct gclk_error *reterr)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot read the file's attributes: %m");
	}
	*ret = (struct gclk_file_facts){
		.regular = S_ISREG(st.stx_mode),
		.has_birth = st.stx_mask & STATX_BTIME,
		.mtime_ns = to_ns(&st.stx_mtime),
		.bytes = S_ISREG(st.stx_mode) ? st.stx_size : 0,
		.mode = st.stx_mode & 07777,
		.uid = st.stx_uid,
		.gid = st.stx_gid,
		.device = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor,
		.inode = st.stx_ino,
	};
	if (ret->has_birth) {
		ret->birth_ns = to_ns(&st.stx_btime);
	}
	return 0;
}

/* ---- locks ---- */

enum { PERMISSION_BASE = 100, UNSHARED_BASE = 200, N_PERMISSIONS = 4, READ = 0, WRITE = 1,
       RESIZE = 3 };

static int say_in_use(const char *name, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_STATE, name, GCLK_NO_OFFSET,
			 "another process has the file open for use: the domain is on, or a tool "
			 "works on it");
}

static int lock_byte(int fd, off_t byte, const char *name, struct gclk_error *reterr)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte,
			      .l_len = 1 };

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
		return 0;
	}
	if (errno == EAGAIN || errno == EACCES) {
		return say_in_use(name, reterr);
	}
	return gclk_fail(reterr, GCLK_SYS, name, GCLK_NO_OFFSET, "cannot lock the file: %m");
}

/* Does somebody else hold any lock there? A write lock would collide with it. */
static int expect_unlocked(int fd, off_t from, off_t n, const char *name,
			   struct gclk_error *reterr)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from,
			      .l_len = n };

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0) {
		return gclk_fail(reterr, GCLK_SYS, name, GCLK_NO_OFFSET,
				 "cannot ask for the file's locks: %m");
	}
	return lock.l_type == F_UNLCK ? 0 : say_in_use(name, reterr);
}

/*
 * First say what we do, then look whether it collides; two that come at once both
 * see the other and give up.
 */
int gclk_file_lock(int fd, const char *name, struct gclk_error *reterr)
{
	static const off_t used[] = { READ, WRITE, RESIZE };
	int r = 0;

	for (size_t i = 0; r == 0 && i < GCLK_COUNT(used); i++) {
		r = lock_byte(fd, PERMISSION_BASE + used[i], name, reterr);
	}
	for (off_t i = 0; r == 0 && i < N_PERMISSIONS; i++) {
		r = lock_byte(fd, UNSHARED_BASE + i, name, reterr);
	}
	/* Bits that later releases may add are looked at too: hence 64 of each. */
	r = r < 0 ? r : expect_unlocked(fd, PERMISSION_BASE, 64, name, reterr);
	r = r < 0 ? r : expect_unlocked(fd, UNSHARED_BASE, 64, name, reterr);
	if (r < 0) {
		struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET,
				     .l_start = PERMISSION_BASE, .l_len = 200 };

		fcntl(fd, F_OFD_SETLK, &all);
	}
	return r;
}

/* ---- output ---- */

/* The directory part of a path, with its slash; "./" where there is none. */
static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");
}

static int set_owner(int fd, const struct stat *like)
{
	struct stat now;

	if (fstat(fd, &now) < 0) {
		return -1;
	}
	if (now.st_uid == like->st_uid && now.st_gid == like->st_gid) {
		return 0;
	}
	if (fchown(fd, like->st_uid, like->st_gid) == 0) {
		return 0;
	}
	/* Not ours to give away; the group may be. */
	return fchown(fd, (uid_t)-1, like->st_gid);
}

/* The label is one of them (security.selinux). What may not be set is left out. */
static void copy_attributes(int from, int to)
{
	char names[4096], value[4096];
	ssize_t n = flistxattr(from, names, sizeof(names));

	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
		ssize_t k = fgetxattr(from, names + at, value, sizeof(value));

		if (k >= 0) {
			(void)!fsetxattr(to, names + at, value, (size_t)k, 0);
		}
	}
}

/*
 * The owner first, since it clears bits of the mode. Where the owner cannot be kept
 * nobody gets more than they had: the group's bits then are for another group.
 */
static int take_manner(int fd, int like, struct gclk_error *reterr)
{
	mode_t mode = 0600;
	struct stat st;

	if (like >= 0) {
		if (fstat(like, &st) < 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
					 "cannot read the file's attributes: %m");
		}
		mode = st.st_mode & 07777;
		if (!S_ISREG(st.st_mode)) {
			mode = 0600;
		} else if (set_owner(fd, &st) < 0) {
			mode &= 0700;
		}
		copy_attributes(like, fd);
	}
	if (fchmod(fd, mode) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot set the mode of the new file: %m");
	}
	return 0;
}

/* A file without a name, or where the file system has none, one with a hidden name. */
static int create_temporary(struct gclk_output *o, const char *directory)
{
	const char *base = strrchr(o->path, '/');

	o->fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (o->fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT &&
			   errno != EINVAL)) {
		return o->fd;
	}
	if (asprintf(&o->temporary, "%s.%s.guestclock-XXXXXX", directory,
		     base ? base + 1 : o->path) < 0) {
		o->temporary = NULL;
		return -1;
	}
	o->fd = mkostemp(o->temporary, O_CLOEXEC);
	if (o->fd < 0) {
		free(o->temporary);
		o->temporary = NULL;
	}
	return o->fd;
}

int gclk_output_open(const char *path, int like, struct gclk_output *ret,
		     struct gclk_error *reterr)
{
	struct gclk_output o = { .fd = -1 };
	char *directory;
	struct stat st;
	int r;

	/* Its name would be taken from a device, as from /dev/null. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, path, GCLK_NO_OFFSET,
				 "it is there, and no regular file: an image does not replace it");
	}
	/* Replacing a symbolic link would leave what it points to as it was. */
	o.path = realpath(path, NULL);
	o.sync = o.path != NULL;
	o.path = o.path ? o.path : strdup(path);
	directory = o.path ? directory_of(o.path) : NULL;
	if (!directory) {
		free(o.path);
		return gclk_fail(reterr, GCLK_NOMEM, path, GCLK_NO_OFFSET, "no memory");
	}
	if (create_temporary(&o, directory) < 0) {
		r = gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
			      "cannot create a file in %s: %m", directory);
	} else {
		r = take_manner(o.fd, like, reterr);
	}
	free(directory);
	if (r < 0) {
		gclk_output_close(&o);
		return r;
	}
	*ret = o;
	return 0;
}

/*
 * Hands what is written to the disk as we go, so that the sync at the end has little
 * left to wait for. A hint: its failure means nothing.
 */
#define FLUSH_BYTES (UINT64_C(32) << 20)

static void flush_behind(struct gclk_output *o)
{
	if (o->sync && o->bytes - o->flushed >= FLUSH_BYTES) {
		(void)!sync_file_range(o->fd, (off_t)o->flushed, (off_t)(o->bytes - o->flushed),
				       SYNC_FILE_RANGE_WRITE);
		o->flushed = o->bytes;
	}
}

int gclk_output_write(void *output, const void *buf, size_t n, struct gclk_error *reterr)
{
	struct gclk_output *o = output;
	const uint8_t *from = buf;

	while (n) {
		ssize_t r = pwrite(o->fd, from, n, (off_t)o->bytes);

		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r <= 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, o->bytes,
					 "cannot write %s: %m", o->path);
		}
		from += r;
		n -= (size_t)r;
		o->bytes += (uint64_t)r;
	}
	flush_behind(o);
	return 0;
}

#define PIECE_BYTES (UINT32_C(1) << 20)

/* By way of memory, where the kernel cannot copy between these two files. */
static int copy_piece_by_hand(struct gclk_output *o, int fd, uint64_t offset, size_t n,
			      void *buf, struct gclk_error *reterr)
{
	ssize_t r = pread(fd, buf, n, (off_t)offset);

	if (r < 0 && errno == EINTR) {
		return 0;
	}
	if (r < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, offset, "cannot read the file: %m");
	}
	if (r == 0) {
		return gclk_fail(reterr, GCLK_TRUNCATED, NULL, offset,
				 "the file has become shorter while it was read");
	}
	return gclk_output_write(o, buf, (size_t)r, reterr);
}

struct copying {
	int fd;
	uint64_t offset, end;
	const struct gclk_progress *progress;
	uint64_t done, total;
	void *buf;		/* allocated when the kernel cannot copy */
};

static int tell(const struct gclk_progress *progress, uint64_t done, uint64_t total,
		struct gclk_error *reterr)
{
	if (progress && progress->report && progress->report(progress->ctx, done, total)) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "cancelled");
	}
	return 0;
}

static int copy_data(struct gclk_output *o, struct copying *c, uint64_t data_end,
		     struct gclk_error *reterr)
{
	int r = 0;

	while (r == 0 && c->offset < data_end) {
		uint64_t before = o->bytes;
		size_t n = (size_t)GCLK_MIN(data_end - c->offset, UINT64_C(16) << 20);
		off_t from = (off_t)c->offset, to = (off_t)o->bytes;
		ssize_t k = c->buf ? -1 : copy_file_range(c->fd, &from, o->fd, &to, n, 0);

		if (k > 0) {
			o->bytes += (uint64_t)k;
			flush_behind(o);
		} else {
			c->buf = c->buf ? c->buf : malloc(PIECE_BYTES);
			if (!c->buf) {
				return gclk_fail(reterr, GCLK_NOMEM, NULL, c->offset, "no memory");
			}
			r = copy_piece_by_hand(o, c->fd, c->offset,
					       GCLK_MIN(n, (size_t)PIECE_BYTES), c->buf, reterr);
		}
		c->offset += o->bytes - before;
		r = r < 0 ? r : tell(c->progress, c->offset, c->end, reterr);
	}
	return r;
}

static int skip_hole(struct gclk_output *o, struct copying *c, uint64_t hole_end,
		     struct gclk_error *reterr)
{
	o->bytes += hole_end - c->offset;
	c->offset = hole_end;
	if (ftruncate(o->fd, (off_t)o->bytes) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, o->bytes, "cannot extend %s: %m", o->path);
	}
	return 0;
}

/* Where the next data begins, and ends, in [offset, end). */
static void next_data(const struct copying *c, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t data = lseek(c->fd, (off_t)c->offset, SEEK_DATA), hole = -1;

	if (data < 0) {		/* a hole up to the end, or nobody knows */
		*ret_from = errno == ENXIO ? c->end : c->offset;
		*ret_to = c->end;
		return;
	}
	*ret_from = GCLK_MIN((uint64_t)data, c->end);
	hole = lseek(c->fd, data, SEEK_HOLE);
	*ret_to = hole < 0 ? c->end : GCLK_MIN((uint64_t)hole, c->end);
}

int gclk_output_copy(struct gclk_output *output, int fd, uint64_t offset, uint64_t n,
		     const struct gclk_progress *progress, struct gclk_error *reterr)
{
	struct copying c = { .fd = fd, .offset = offset, .end = offset + n, .progress = progress };
	int r = 0;

	while (r == 0 && c.offset < c.end) {
		uint64_t from, to;

		next_data(&c, &from, &to);
		if (from > c.offset) {
			r = skip_hole(output, &c, from, reterr);
		}
		r = r < 0 ? r : copy_data(output, &c, to, reterr);
	}
	free(c.buf);
	return r;
}

/* A name for a file that has none; it must be free. */
static int name_it(const struct gclk_output *o, const char *path)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

/* A hidden name beside the final one, to be renamed over it. */
static int name_it_hidden(struct gclk_output *o)
{
	const char *slash = strrchr(o->path, '/');
	int before = slash ? (int)(slash - o->path) + 1 : 0;

	for (unsigned i = 0; i < 100; i++) {
		char *hidden;

		if (asprintf(&hidden, "%.*s.%s.guestclock-%d-%u", before, o->path,
			     o->path + before, (int)getpid(), i) < 0) {
			return -1;
		}
		if (name_it(o, hidden) == 0) {
			o->temporary = hidden;
			return 0;
		}
		free(hidden);
		if (errno != EEXIST) {
			return -1;
		}
	}
	return -1;
}

static int give_name(struct gclk_output *o, bool replace)
{
	if (!replace) {
		return o->temporary ? renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path,
						RENAME_NOREPLACE) :
				      name_it(o, o->path);
	}
	if (!o->temporary && name_it(o, o->path) == 0) {
		return 0;
	}
	if (!o->temporary && (errno != EEXIST || name_it_hidden(o) < 0)) {
		return -1;
	}
	return rename(o->temporary, o->path);
}

static int sync_directory(const struct gclk_output *o)
{
	char *directory = directory_of(o->path);
	int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int r = fd < 0 ? -1 : fsync(fd);

	if (fd >= 0) {
		close(fd);
	}
	free(directory);
	return r;
}

int gclk_output_commit(struct gclk_output *output, bool replace, struct gclk_error *reterr)
{
	int r;

	if (output->sync && fsync(output->fd) < 0) {
		return gclk_fail(reterr, GCLK_SYS, output->path, GCLK_NO_OFFSET,
				 "cannot bring the file to the disk: %m");
	}
	r = give_name(output, replace && output->sync);
	if (r < 0 && errno == EEXIST && replace && !output->sync) {
		/* it has come up meanwhile */
		output->sync = true;
		return gclk_output_commit(output, replace, reterr);
	}
	if (r < 0) {
		if (errno == EEXIST) {
			return gclk_fail(reterr, GCLK_STATE, output->path, GCLK_NO_OFFSET,
					 "the file exists already");
		}
		return gclk_fail(reterr, GCLK_SYS, output->path, GCLK_NO_OFFSET,
				 "cannot put the new file in its place: %m");
	}
	free(output->temporary);
	output->temporary = NULL;
	if (output->sync && sync_directory(output) < 0) {
		return gclk_fail(reterr, GCLK_UNPROVEN, output->path, GCLK_NO_OFFSET,
				 "the file is in its place, but its directory cannot be brought "
				 "to the disk: %m");
	}
	return 0;
}

void gclk_output_close(struct gclk_output *output)
{
	if (output->temporary) {
		unlink(output->temporary);
	}
	if (output->fd >= 0) {
		close(output->fd);
	}
	free(output->temporary);
	free(output->path);
	*output = (struct gclk_output){ .fd = -1 };
}

/* ---- sequential reading ---- */

static int fd_read(void *ctx, void *buf, size_t n, size_t *ret_n, struct gclk_error *reterr)
{
	ssize_t r;

	do {
		r = read(*(const int *)ctx, buf, n);
	} while (r < 0 && errno == EINTR);
	if (r < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "cannot read the input: %m");
	}
	*ret_n = (size_t)r;
	return 0;
}

struct gclk_source gclk_source_fd(int *fd)
{
	return (struct gclk_source){ fd_read, fd };
}
