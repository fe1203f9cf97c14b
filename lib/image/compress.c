/* SPDX-License-Identifier: MIT */
/*
 * Each compression is a row: how to begin, to take one step, to end. A step eats some
 * input and makes some output; everything around it is common to all.
 */
#include <bzlib.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lzma.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "core/error.h"
#include "core/util.h"
#include "image/compress.h"

extern char **environ;

#define BUFFER_BYTES (UINT32_C(1) << 17)
/* Dictionary and window of 32 MiB, and what the decoder needs besides. */
#define XZ_MEMORY_BYTES (UINT64_C(34) << 20)
#define ZSTD_WINDOW_LOG 25

static const struct {
	const char *name;
	uint8_t n_magic;
	uint8_t magic[GCLK_COMPRESSION_MAGIC_BYTES];
} kinds[] = {
	[GCLK_COMPRESSION_NONE] = { "none", 0, { 0 } },
	[GCLK_COMPRESSION_GZIP] = { "gzip", 3, { 0x1f, 0x8b, 8 } },
	[GCLK_COMPRESSION_BZIP2] = { "bzip2", 3, { 'B', 'Z', 'h' } },
	[GCLK_COMPRESSION_XZ] = { "xz", 6, { 0xfd, '7', 'z', 'X', 'Z', 0 } },
	[GCLK_COMPRESSION_LZOP] = { "lzop", 9, { 0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n' } },
	[GCLK_COMPRESSION_ZSTD] = { "zstd", 4, { 0x28, 0xb5, 0x2f, 0xfd } },
};

const char *gclk_compression_name(enum gclk_compression compression)
{
	return (unsigned)compression < GCLK_COUNT(kinds) ? kinds[compression].name : NULL;
}

enum gclk_compression gclk_compression_probe(const void *bytes, size_t n)
{
	for (size_t i = 1; i < GCLK_COUNT(kinds); i++) {
		if (n >= kinds[i].n_magic && !memcmp(bytes, kinds[i].magic, kinds[i].n_magic)) {
			return (enum gclk_compression)i;
		}
	}
	return GCLK_COMPRESSION_NONE;
}

static int no_memory(const char *name, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_NOMEM, name, GCLK_NO_OFFSET, "no memory for %s", name);
}

/* ---- a program as a filter ---- */

/*
 * Its standard input is a socket, so that writing to one that has died is an error
 * (MSG_NOSIGNAL) and no signal, which a library must not raise.
 */
struct program {
	pid_t pid;
	int to, from;		/* -1: closed */
};

static void close_fd(int *fd)
{
	if (*fd >= 0) {
		close(*fd);
	}
	*fd = -1;
}

static int program_wait(struct program *p)
{
	int status = -1;

	if (p->pid > 0) {
		while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR) {
			continue;
		}
	}
	p->pid = 0;
	return status;
}

static void program_end(struct program *p)
{
	close_fd(&p->to);
	close_fd(&p->from);
	if (p->pid > 0) {
		kill(p->pid, SIGKILL);
		program_wait(p);
	}
}

static int spawn_between(struct program *p, char *const *argv, int in, int out)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t pipe_signal;
	int r;

	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigdefault(&attr, &pipe_signal);
	posix_spawn_file_actions_adddup2(&actions, in, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	r = posix_spawnp(&p->pid, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static bool runs_nothing;

void gclk_compression_run_nothing(void)
{
	runs_nothing = true;
}

static int program_begin(struct program *p, const char *name, const char *option,
			 struct gclk_error *reterr)
{
	char argv0[16], argv1[8];
	char *const argv[] = { argv0, argv1, NULL };
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, r;

	if (runs_nothing) {
		p->to = p->from = -1;
		return gclk_fail(reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
				 "no library reads its format, and a confined process does not "
				 "run the program %s: [privilege] confine = no has root run it",
				 name);
	}
	strcpy(argv0, name);
	strcpy(argv1, option);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 ||
	    pipe2(out, O_CLOEXEC) < 0) {
		r = errno;
	} else {
		r = spawn_between(p, argv, in[0], out[1]);
	}
	close_fd(&in[0]);
	close_fd(&out[1]);
	p->to = in[1];
	p->from = out[0];
	if (!r) {
		return 0;
	}
	p->pid = 0;
	program_end(p);
	if (r == ENOENT) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, name, GCLK_NO_OFFSET,
				 "the program %s is not installed, and no library reads its "
				 "format", name);
	}
	errno = r;
	return gclk_fail(reterr, GCLK_SYS, name, GCLK_NO_OFFSET, "cannot run %s: %m", name);
}

/*
 * One step: gives it up to @n_in bytes, takes up to @n_out. @in is NULL when there
 * will be no more. Blocks until one of both was possible; *@ret_end when it has
 * ended, and ended well.
 */
static int program_step(struct program *p, const char *name, const uint8_t *in, size_t n_in,
			size_t *ret_eaten, uint8_t *out, size_t n_out, size_t *ret_made,
			bool *ret_end, struct gclk_error *reterr)
{
	struct pollfd fds[2];
	ssize_t n;
	int status;

	*ret_eaten = *ret_made = 0;
	if (!in && p->to >= 0) {
		close_fd(&p->to);
	}
	fds[0] = (struct pollfd){ .fd = p->from, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = n_in ? p->to : -1, .events = POLLOUT };
	if (poll(fds, 2, -1) < 0 && errno != EINTR) {
		return gclk_fail(reterr, GCLK_SYS, name, GCLK_NO_OFFSET, "cannot wait for %s: %m",
				 name);
	}
	if (fds[1].revents) {
		n = send(p->to, in, n_in, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EPIPE) {	/* its exit status tells the rest */
			close_fd(&p->to);
			n = (ssize_t)n_in;
		}
		*ret_eaten = n > 0 ? (size_t)n : 0;
	}
	if (!fds[0].revents) {
		return 0;
	}
	n = read(p->from, out, n_out);
	if (n < 0 && errno != EINTR) {
		return gclk_fail(reterr, GCLK_SYS, name, GCLK_NO_OFFSET, "cannot read from %s: %m",
				 name);
	}
	*ret_made = n > 0 ? (size_t)n : 0;
	if (n != 0) {
		return 0;
	}
	status = program_wait(p);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		return gclk_fail(reterr, GCLK_MALFORMED, name, GCLK_NO_OFFSET,
				 "%s fails with status %d: the file is damaged or truncated", name,
				 WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	*ret_end = true;
	return 0;
}

/* ---- reading ---- */

struct gclk_decompressor {
	enum gclk_compression kind;
	struct gclk_source from;
	uint8_t *in;
	size_t in_at, in_n;
	uint64_t eaten;		/* compressed bytes that were used up */
	bool from_ended;
	bool in_member;		/* the decoder is set up and not at its end */
	bool ended;
	int failed;
	z_stream z;
	bz_stream bz;
	lzma_stream xz;
	ZSTD_DCtx *zstd;
	struct program lzop;
};

/* Where the bytes that are being decoded stand in the compressed file. */
static uint64_t place(const struct gclk_decompressor *d)
{
	return d->eaten;
}

static int damaged(const struct gclk_decompressor *d, const char *why,
		   struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_MALFORMED, kinds[d->kind].name, place(d),
			 "the compressed data is damaged (%s)", why);
}

/* Sets up a decoder for a member; members may follow each other. */
static int begin_member(struct gclk_decompressor *d, struct gclk_error *reterr)
{
	bool fine = true;

	switch (d->kind) {
	case GCLK_COMPRESSION_GZIP:
		fine = inflateInit2(&d->z, 15 + 16) == Z_OK;
		break;
	case GCLK_COMPRESSION_BZIP2:
		fine = BZ2_bzDecompressInit(&d->bz, 0, 0) == BZ_OK;
		break;
	case GCLK_COMPRESSION_XZ:
		fine = lzma_stream_decoder(&d->xz, XZ_MEMORY_BYTES, 0) == LZMA_OK;
		break;
	case GCLK_COMPRESSION_ZSTD:
		d->zstd = d->zstd ? d->zstd : ZSTD_createDCtx();
		fine = d->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax,
								       ZSTD_WINDOW_LOG));
		break;
	case GCLK_COMPRESSION_LZOP:
		return program_begin(&d->lzop, "lzop", "-dc", reterr);
	case GCLK_COMPRESSION_NONE:
		break;
	}
	return fine ? 0 : no_memory(kinds[d->kind].name, reterr);
}

static void end_member(struct gclk_decompressor *d)
{
	switch (d->kind) {
	case GCLK_COMPRESSION_GZIP:
		inflateEnd(&d->z);
		d->z = (z_stream){ 0 };
		break;
	case GCLK_COMPRESSION_BZIP2:
		BZ2_bzDecompressEnd(&d->bz);
		d->bz = (bz_stream){ 0 };
		break;
	case GCLK_COMPRESSION_XZ:
		lzma_end(&d->xz);
		d->xz = (lzma_stream)LZMA_STREAM_INIT;
		break;
	case GCLK_COMPRESSION_ZSTD:
		ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only);
		break;
	case GCLK_COMPRESSION_LZOP:
		program_end(&d->lzop);
		break;
	case GCLK_COMPRESSION_NONE:
		break;
	}
}

struct step {
	const uint8_t *in;
	size_t n_in;
	uint8_t *out;
	size_t n_out;
	size_t eaten, made;
	bool end;		/* of the member */
};

static int gzip_step(struct gclk_decompressor *d, struct step *s, struct gclk_error *reterr)
{
	int r;

	d->z.next_in = (Bytef *)(uintptr_t)s->in;
	d->z.avail_in = (uInt)s->n_in;
	d->z.next_out = s->out;
	d->z.avail_out = (uInt)s->n_out;
	r = inflate(&d->z, Z_NO_FLUSH);
	s->eaten = s->n_in - d->z.avail_in;
	s->made = s->n_out - d->z.avail_out;
	s->end = r == Z_STREAM_END;
	if (r == Z_MEM_ERROR) {
		return no_memory("gzip", reterr);
	}
	return r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR ? 0 :
	       damaged(d, d->z.msg ? d->z.msg : "inflate", reterr);
}

static int bzip2_step(struct gclk_decompressor *d, struct step *s, struct gclk_error *reterr)
{
	int r;

	d->bz.next_in = (char *)(uintptr_t)s->in;
	d->bz.avail_in = (unsigned)s->n_in;
	d->bz.next_out = (char *)s->out;
	d->bz.avail_out = (unsigned)s->n_out;
	r = BZ2_bzDecompress(&d->bz);
	s->eaten = s->n_in - d->bz.avail_in;
	s->made = s->n_out - d->bz.avail_out;
	s->end = r == BZ_STREAM_END;
	if (r == BZ_MEM_ERROR) {
		return no_memory("bzip2", reterr);
	}
	return r == BZ_OK || r == BZ_STREAM_END ? 0 : damaged(d, "bzip2", reterr);
}

static int xz_step(struct gclk_decompressor *d, struct step *s, struct gclk_error *reterr)
{
	lzma_ret r;

	d->xz.next_in = s->in;
	d->xz.avail_in = s->n_in;
	d->xz.next_out = s->out;
	d->xz.avail_out = s->n_out;
	r = lzma_code(&d->xz, LZMA_RUN);
	s->eaten = s->n_in - d->xz.avail_in;
	s->made = s->n_out - d->xz.avail_out;
	s->end = r == LZMA_STREAM_END;
	if (r == LZMA_MEMLIMIT_ERROR) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "xz", place(d),
				 "decompressing needs %" PRIu64 " bytes of memory, allowed are %"
				 PRIu64, lzma_memusage(&d->xz), XZ_MEMORY_BYTES);
	}
	if (r == LZMA_MEM_ERROR) {
		return no_memory("xz", reterr);
	}
	return r == LZMA_OK || r == LZMA_STREAM_END || r == LZMA_BUF_ERROR ? 0 :
	       damaged(d, "xz", reterr);
}

static int zstd_step(struct gclk_decompressor *d, struct step *s, struct gclk_error *reterr)
{
	ZSTD_inBuffer in = { s->in, s->n_in, 0 };
	ZSTD_outBuffer out = { s->out, s->n_out, 0 };
	size_t r = ZSTD_decompressStream(d->zstd, &out, &in);

	s->eaten = in.pos;
	s->made = out.pos;
	s->end = r == 0;
	if (ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "zstd", place(d),
				 "decompressing needs a window of more than %d MiB",
				 1 << (ZSTD_WINDOW_LOG - 20));
	}
	return ZSTD_isError(r) ? damaged(d, ZSTD_getErrorName(r), reterr) : 0;
}

static int decode_step(struct gclk_decompressor *d, struct step *s, struct gclk_error *reterr)
{
	switch (d->kind) {
	case GCLK_COMPRESSION_GZIP:
		return gzip_step(d, s, reterr);
	case GCLK_COMPRESSION_BZIP2:
		return bzip2_step(d, s, reterr);
	case GCLK_COMPRESSION_XZ:
		return xz_step(d, s, reterr);
	case GCLK_COMPRESSION_ZSTD:
		return zstd_step(d, s, reterr);
	case GCLK_COMPRESSION_LZOP:
		return program_step(&d->lzop, "lzop", d->from_ended && !s->n_in ? NULL : s->in,
				    s->n_in, &s->eaten, s->out, s->n_out, &s->made, &s->end,
				    reterr);
	case GCLK_COMPRESSION_NONE:
		break;
	}
	s->eaten = s->made = GCLK_MIN(s->n_in, s->n_out);
	memcpy(s->out, s->in, s->made);
	return 0;
}

static int refill(struct gclk_decompressor *d, struct gclk_error *reterr)
{
	size_t n;
	int r;

	if (d->in_at < d->in_n || d->from_ended) {
		return 0;
	}
	r = d->from.read(d->from.ctx, d->in, BUFFER_BYTES, &n, reterr);
	if (r < 0) {
		return r;
	}
	d->in_at = 0;
	d->in_n = n;
	d->from_ended = n == 0;
	return 0;
}

/* Between members: padding of zeros, the end, or another one. */
static int between_members(struct gclk_decompressor *d, struct gclk_error *reterr)
{
	int r;

	for (;;) {
		while (d->in_at < d->in_n && !d->in[d->in_at]) {
			d->in_at++;
			d->eaten++;
		}
		if (d->in_at < d->in_n) {
			break;
		}
		if (d->from_ended) {
			d->ended = true;
			return 0;
		}
		r = refill(d, reterr);
		if (r < 0) {
			return r;
		}
	}
	/* Members begin alike, but for zstd's skippable frames, which its library knows. */
	if (d->kind != GCLK_COMPRESSION_ZSTD && d->in[d->in_at] != kinds[d->kind].magic[0]) {
		return damaged(d, "something else follows it", reterr);
	}
	return begin_member(d, reterr);
}

static int advance(struct gclk_decompressor *d, uint8_t *buf, size_t n, size_t *ret_n,
		   struct gclk_error *reterr)
{
	struct step s;
	int r;

	r = refill(d, reterr);
	if (r < 0) {
		return r;
	}
	s = (struct step){ .in = d->in + d->in_at, .n_in = d->in_n - d->in_at, .out = buf,
			   .n_out = n };
	if (d->kind == GCLK_COMPRESSION_NONE && d->from_ended) {
		d->ended = true;
		return 0;
	}
	r = decode_step(d, &s, reterr);
	d->in_at += s.eaten;
	d->eaten += s.eaten;
	*ret_n = s.made;
	if (r < 0) {
		return r;
	}
	if (s.end) {
		d->in_member = false;
		end_member(d);
		d->ended = d->kind == GCLK_COMPRESSION_LZOP;
	} else if (d->from_ended && !s.n_in && !s.made && d->kind != GCLK_COMPRESSION_LZOP) {
		return gclk_fail(reterr, GCLK_TRUNCATED, kinds[d->kind].name, place(d),
				 "the compressed data ends in the middle");
	}
	return 0;
}

int gclk_decompressor_open(enum gclk_compression compression, const struct gclk_source *from,
			   struct gclk_decompressor **ret, struct gclk_error *reterr)
{
	struct gclk_decompressor *d = calloc(1, sizeof(*d));
	int r;

	if (d) {
		d->in = malloc(BUFFER_BYTES);
		d->kind = compression;
		d->from = *from;
		d->xz = (lzma_stream)LZMA_STREAM_INIT;
		d->lzop = (struct program){ 0, -1, -1 };
	}
	if (!d || !d->in) {
		gclk_decompressor_free(d);
		return no_memory(kinds[compression].name, reterr);
	}
	r = begin_member(d, reterr);
	if (r < 0) {
		gclk_decompressor_free(d);
		return r;
	}
	d->in_member = true;
	*ret = d;
	return 0;
}

int gclk_decompressor_read(struct gclk_decompressor *d, void *buf, size_t n, size_t *ret_n,
			   struct gclk_error *reterr)
{
	*ret_n = 0;
	if (d->failed) {
		return gclk_fail(reterr, GCLK_STATE, kinds[d->kind].name, place(d),
				 "reading has failed before");
	}
	while (*ret_n == 0 && !d->ended) {
		int r = 0;

		if (!d->in_member) {
			r = between_members(d, reterr);
			d->in_member = r == 0 && !d->ended;
		}
		if (d->in_member) {
			r = advance(d, buf, GCLK_MIN(n, (size_t)1 << 30), ret_n, reterr);
		}
		if (r < 0) {
			d->failed = r;
			return r;
		}
	}
	return 0;
}

struct gclk_decompressor *gclk_decompressor_free(struct gclk_decompressor *d)
{
	if (d) {
		if (d->in_member) {
			end_member(d);
		}
		lzma_end(&d->xz);
		ZSTD_freeDCtx(d->zstd);
		free(d->in);
		free(d);
	}
	return NULL;
}

/* ---- writing ---- */

struct gclk_compressor {
	enum gclk_compression kind;
	struct gclk_sink to;
	uint8_t *out;
	bool open;
	z_stream z;
	bz_stream bz;
	lzma_stream xz;
	ZSTD_CCtx *zstd;
	struct program lzop;
};

static bool begin_zstd(struct gclk_compressor *c)
{
	c->zstd = ZSTD_createCCtx();
	return c->zstd &&
	       !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, 3)) &&
	       !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1));
}

static int begin_compressor(struct gclk_compressor *c, struct gclk_error *reterr)
{
	bool fine = true;

	switch (c->kind) {
	case GCLK_COMPRESSION_GZIP:
		fine = deflateInit2(&c->z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK;
		break;
	case GCLK_COMPRESSION_BZIP2:
		fine = BZ2_bzCompressInit(&c->bz, 9, 0, 0) == BZ_OK;
		break;
	case GCLK_COMPRESSION_XZ:
		fine = lzma_easy_encoder(&c->xz, 3, LZMA_CHECK_CRC64) == LZMA_OK;
		break;
	case GCLK_COMPRESSION_ZSTD:
		fine = begin_zstd(c);
		break;
	case GCLK_COMPRESSION_LZOP:
		return program_begin(&c->lzop, "lzop", "-c", reterr);
	case GCLK_COMPRESSION_NONE:
		break;
	}
	return fine ? 0 : no_memory(kinds[c->kind].name, reterr);
}

int gclk_compressor_open(enum gclk_compression compression, const struct gclk_sink *to,
			 struct gclk_compressor **ret, struct gclk_error *reterr)
{
	struct gclk_compressor *c = calloc(1, sizeof(*c));
	int r;

	if (c) {
		c->out = malloc(BUFFER_BYTES);
		c->kind = compression;
		c->to = *to;
		c->xz = (lzma_stream)LZMA_STREAM_INIT;
		c->lzop = (struct program){ 0, -1, -1 };
	}
	if (!c || !c->out) {
		gclk_compressor_free(c);
		return no_memory(kinds[compression].name, reterr);
	}
	r = begin_compressor(c, reterr);
	if (r < 0) {
		gclk_compressor_free(c);
		return r;
	}
	c->open = true;
	*ret = c;
	return 0;
}

static int broken(const struct gclk_compressor *c, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_SYS, kinds[c->kind].name, GCLK_NO_OFFSET,
			 "the compressor fails");
}

static int gzip_encode(struct gclk_compressor *c, struct step *s, bool finish,
		       struct gclk_error *reterr)
{
	int r;

	c->z.next_in = (Bytef *)(uintptr_t)s->in;
	c->z.avail_in = (uInt)s->n_in;
	c->z.next_out = s->out;
	c->z.avail_out = (uInt)s->n_out;
	r = deflate(&c->z, finish ? Z_FINISH : Z_NO_FLUSH);
	s->eaten = s->n_in - c->z.avail_in;
	s->made = s->n_out - c->z.avail_out;
	s->end = r == Z_STREAM_END;
	return r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR ? 0 : broken(c, reterr);
}

static int bzip2_encode(struct gclk_compressor *c, struct step *s, bool finish,
			struct gclk_error *reterr)
{
	int r;

	c->bz.next_in = (char *)(uintptr_t)s->in;
	c->bz.avail_in = (unsigned)s->n_in;
	c->bz.next_out = (char *)s->out;
	c->bz.avail_out = (unsigned)s->n_out;
	r = BZ2_bzCompress(&c->bz, finish ? BZ_FINISH : BZ_RUN);
	s->eaten = s->n_in - c->bz.avail_in;
	s->made = s->n_out - c->bz.avail_out;
	s->end = r == BZ_STREAM_END;
	return r == BZ_RUN_OK || r == BZ_FINISH_OK || r == BZ_STREAM_END ? 0 : broken(c, reterr);
}

static int xz_encode(struct gclk_compressor *c, struct step *s, bool finish,
		     struct gclk_error *reterr)
{
	lzma_ret r;

	c->xz.next_in = s->in;
	c->xz.avail_in = s->n_in;
	c->xz.next_out = s->out;
	c->xz.avail_out = s->n_out;
	r = lzma_code(&c->xz, finish ? LZMA_FINISH : LZMA_RUN);
	s->eaten = s->n_in - c->xz.avail_in;
	s->made = s->n_out - c->xz.avail_out;
	s->end = r == LZMA_STREAM_END;
	return r == LZMA_OK || r == LZMA_STREAM_END || r == LZMA_BUF_ERROR ? 0 : broken(c, reterr);
}

static int zstd_encode(struct gclk_compressor *c, struct step *s, bool finish,
		       struct gclk_error *reterr)
{
	ZSTD_inBuffer in = { s->in, s->n_in, 0 };
	ZSTD_outBuffer out = { s->out, s->n_out, 0 };
	size_t r = ZSTD_compressStream2(c->zstd, &out, &in, finish ? ZSTD_e_end : ZSTD_e_continue);

	s->eaten = in.pos;
	s->made = out.pos;
	s->end = finish && r == 0;
	return ZSTD_isError(r) ? broken(c, reterr) : 0;
}

static int encode_step(struct gclk_compressor *c, struct step *s, bool finish,
		       struct gclk_error *reterr)
{
	switch (c->kind) {
	case GCLK_COMPRESSION_GZIP:
		return gzip_encode(c, s, finish, reterr);
	case GCLK_COMPRESSION_BZIP2:
		return bzip2_encode(c, s, finish, reterr);
	case GCLK_COMPRESSION_XZ:
		return xz_encode(c, s, finish, reterr);
	case GCLK_COMPRESSION_ZSTD:
		return zstd_encode(c, s, finish, reterr);
	case GCLK_COMPRESSION_LZOP:
		return program_step(&c->lzop, "lzop", finish ? NULL : s->in, s->n_in, &s->eaten,
				    s->out, s->n_out, &s->made, &s->end, reterr);
	case GCLK_COMPRESSION_NONE:
		break;
	}
	s->end = finish;
	return 0;
}

static int encode(struct gclk_compressor *c, const uint8_t *in, size_t n, bool finish,
		  struct gclk_error *reterr)
{
	bool done = !finish && !n;

	while (!done) {
		struct step s = { .in = in, .n_in = GCLK_MIN(n, (size_t)1 << 30), .out = c->out,
				  .n_out = BUFFER_BYTES };
		int r = encode_step(c, &s, finish, reterr);

		if (r == 0 && s.made) {
			r = c->to.write(c->to.ctx, c->out, s.made, reterr);
		}
		if (r < 0) {
			return r;
		}
		in += s.eaten;
		n -= s.eaten;
		done = finish ? s.end : !n;
	}
	return 0;
}

int gclk_compressor_write(struct gclk_compressor *c, const void *buf, size_t n,
			  struct gclk_error *reterr)
{
	if (c->kind == GCLK_COMPRESSION_NONE) {
		return n ? c->to.write(c->to.ctx, buf, n, reterr) : 0;
	}
	return encode(c, buf, n, false, reterr);
}

int gclk_compressor_finish(struct gclk_compressor *c, struct gclk_error *reterr)
{
	static const uint8_t none[1];

	return encode(c, none, 0, true, reterr);
}

static void end_compressor(struct gclk_compressor *c)
{
	switch (c->kind) {
	case GCLK_COMPRESSION_GZIP:
		deflateEnd(&c->z);
		break;
	case GCLK_COMPRESSION_BZIP2:
		BZ2_bzCompressEnd(&c->bz);
		break;
	case GCLK_COMPRESSION_LZOP:
		program_end(&c->lzop);
		break;
	case GCLK_COMPRESSION_XZ:	/* the caller frees these two in any case */
	case GCLK_COMPRESSION_ZSTD:
	case GCLK_COMPRESSION_NONE:
		break;
	}
}

struct gclk_compressor *gclk_compressor_free(struct gclk_compressor *c)
{
	if (c) {
		if (c->open) {
			end_compressor(c);
		}
		lzma_end(&c->xz);
		ZSTD_freeCCtx(c->zstd);
		free(c->out);
		free(c);
	}
	return NULL;
}
