/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "image/container-private.h"

#define STREAM_MAGIC UINT32_C(0x5145564d)	/* QEVM */
#define SPOOL_BYTES (UINT32_C(1) << 20)

const char *gclk_container_kind_name(enum gclk_container_kind kind)
{
	static const char *const names[] = { "qemu-stream", "libvirt-save", "qcow2-snapshot" };

	return (unsigned)kind < GCLK_COUNT(names) ? names[kind] : "unknown";
}

static bool is_stream(const void *bytes, size_t n)
{
	return n >= 4 && gclk_get_be32(bytes) == STREAM_MAGIC;
}

bool gclk_container_probe(const void *bytes, size_t n)
{
	return is_stream(bytes, n) || gclk_libvirt_save_probe(bytes, n) ||
	       gclk_qcow2_probe(bytes, n) ||
	       gclk_compression_probe(bytes, n) != GCLK_COMPRESSION_NONE;
}

const struct gclk_container_info *gclk_container_info(const struct gclk_container *c)
{
	return &c->info;
}

/* ---- reading forwards ---- */

static int read_some(struct gclk_container *c, void *buf, size_t n, size_t *ret_n,
		     struct gclk_error *reterr)
{
	ssize_t r;

	do {
		r = c->info.pipe ? read(c->fd, buf, n) : pread(c->fd, buf, n, (off_t)c->at);
	} while (r < 0 && errno == EINTR);
	if (r < 0) {
		return gclk_fail(reterr, GCLK_SYS, c->name, GCLK_NO_OFFSET,
				 "cannot read the input: %m");
	}
	c->at += (uint64_t)r;
	*ret_n = (size_t)r;
	return 0;
}

/* The bytes of the file or pipe, those first that were only looked at. */
static int supply_raw(void *ctx, void *buf, size_t n, size_t *ret_n, struct gclk_error *reterr)
{
	struct gclk_container *c = ctx;
	size_t left = c->n_peeked - c->peeked_at;

	if (!c->info.pipe || !left) {
		return read_some(c, buf, n, ret_n, reterr);
	}
	*ret_n = GCLK_MIN(n, left);
	memcpy(buf, c->peeked + c->peeked_at, *ret_n);
	c->peeked_at += *ret_n;
	return 0;
}

static int supply_decompressed(void *ctx, void *buf, size_t n, size_t *ret_n,
			       struct gclk_error *reterr)
{
	struct gclk_container *c = ctx;

	return gclk_decompressor_read(c->decompressor, buf, n, ret_n, reterr);
}

/* Of a qcow2: not in the file's order. */
static int supply_mapped(void *ctx, void *buf, size_t n, size_t *ret_n,
			 struct gclk_error *reterr)
{
	struct gclk_container *c = ctx;
	uint64_t size;
	int r;

	r = c->stream.size(c->stream.ctx, &size, reterr);
	if (r < 0) {
		return r;
	}
	*ret_n = c->at < size ? (size_t)GCLK_MIN((uint64_t)n, size - c->at) : 0;
	r = *ret_n ? c->stream.read(c->stream.ctx, c->at, buf, *ret_n, reterr) : 0;
	c->at += *ret_n;
	return r;
}

/* The stream from its first byte, for the first time or again. */
static int start_source(void *ctx, struct gclk_source *ret, struct gclk_error *reterr)
{
	struct gclk_container *c = ctx;
	struct gclk_source raw = { supply_raw, c };
	int r;

	if (c->info.pipe && c->pipe_used) {
		return gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET,
				 "the input is a pipe and can be read only once");
	}
	c->pipe_used = true;
	if (c->info.kind == GCLK_CONTAINER_QCOW2) {
		c->at = 0;
		*ret = (struct gclk_source){ supply_mapped, c };
		return 0;
	}
	c->at = c->info.pipe ? c->at : c->info.stream_offset;
	if (c->info.compression == GCLK_COMPRESSION_NONE) {
		*ret = raw;
		return 0;
	}
	c->decompressor = gclk_decompressor_free(c->decompressor);
	r = gclk_decompressor_open(c->info.compression, &raw, &c->decompressor, reterr);
	if (r == 0) {
		*ret = (struct gclk_source){ supply_decompressed, c };
	}
	return r;
}

static int expect_selected(const struct gclk_container *c, struct gclk_error *reterr)
{
	if (c->qcow2 && !gclk_qcow2_selected(c->qcow2)) {
		return gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET,
				 "no snapshot of the image was chosen");
	}
	return 0;
}

int gclk_container_source(struct gclk_container *c, const struct gclk_source **ret,
			  struct gclk_error *reterr)
{
	int r = expect_selected(c, reterr);

	c->sequential.forward.read = NULL;	/* its place is taken */
	r = r < 0 ? r : start_source(c, &c->source, reterr);
	if (r == 0) {
		*ret = &c->source;
	}
	return r;
}

/* ---- windows ---- */

static int check_head(const struct gclk_container *c, struct gclk_error *reterr)
{
	uint8_t head[16];
	size_t n = (size_t)GCLK_MIN(c->all.size, sizeof(head));
	int r;

	r = gclk_window_read(&c->all, 0, head, n, reterr);
	if (r < 0) {
		return r;
	}
	if (is_stream(head, n)) {
		return 0;
	}
	if (gclk_libvirt_save_probe(head, n) || gclk_qcow2_probe(head, n)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, c->name, 0,
				 "a whole image was compressed with %s; decompress it first",
				 gclk_compression_name(c->info.compression));
	}
	return gclk_fail(reterr, GCLK_MALFORMED, c->name, c->info.stream_offset,
			 "no QEMU stream begins here");
}

static int load_sequential(struct gclk_container *c, struct gclk_error *reterr)
{
	struct gclk_source from;
	int r;

	c->sequential = (struct gclk_sequential){
		.restart = c->info.pipe ? NULL : start_source,
		.ctx = c,
		.progress = c->progress,
		.head_max = GCLK_CONTAINER_HEAD,
		.tail_max = GCLK_CONTAINER_TAIL,
	};
	r = start_source(c, &from, reterr);
	r = r < 0 ? r : gclk_sequential_load(&c->sequential, &from, reterr);
	if (r < 0) {
		gclk_sequential_free(&c->sequential);
		return r;
	}
	c->all = (struct gclk_window){ .read = gclk_sequential_read, .ctx = &c->sequential,
				       .size = c->sequential.total };
	return 0;
}

int gclk_container_load(struct gclk_container *c, struct gclk_error *reterr)
{
	int r = expect_selected(c, reterr);

	if (r < 0 || c->loaded) {
		return r;
	}
	if (c->info.random_access) {
		c->all = (struct gclk_window){ .read = c->stream.read, .ctx = c->stream.ctx };
		r = c->stream.size(c->stream.ctx, &c->all.size, reterr);
	} else {
		r = load_sequential(c, reterr);
	}
	r = r < 0 ? r : check_head(c, reterr);
	c->loaded = r == 0;
	return r;
}

uint64_t gclk_container_original_size(const struct gclk_container *c)
{
	uint64_t size = c->current.size;

	for (size_t i = 0; i < c->undo.n_patches; i++) {
		size = size - c->undo.patches[i].n_new + c->undo.patches[i].n_old;
	}
	return size;
}

static int read_original(void *ctx, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr)
{
	struct gclk_container *c = ctx;

	return gclk_undo_original(&c->current, &c->undo, offset, buf, n, reterr);
}

/* Where the stream ends, if it is known: a qcow2 says it. */
static uint64_t known_end(const struct gclk_container *c)
{
	return c->qcow2 ? gclk_qcow2_selected(c->qcow2)->vm_state_bytes : c->stream_end;
}

int gclk_container_look(struct gclk_container *c, struct gclk_error *reterr)
{
	int r = gclk_container_load(c, reterr);

	if (r < 0) {
		return r;
	}
	if (!c->looked) {
		c->look_result = gclk_undo_find(&c->all, known_end(c), &c->undo, &c->look_error);
		c->looked = true;
		c->current = c->all;
		/* Behind a vm state there is nothing but a record of ours. */
		c->current.size = c->look_result == 0 ? c->undo.base :
				  c->qcow2 ? known_end(c) : c->all.size;
		c->original = (struct gclk_window){ .read = read_original, .ctx = c };
		c->original.size = gclk_container_original_size(c);
	}
	if (c->look_result < 0 && reterr) {
		*reterr = c->look_error;
	}
	return c->look_result;
}

void gclk_container_forget(struct gclk_container *c)
{
	gclk_undo_free(&c->undo);
	gclk_sequential_free(&c->sequential);
	c->loaded = c->looked = false;
}

int gclk_container_undo(struct gclk_container *c, const struct gclk_undo **ret,
			enum gclk_undo_state *ret_state, struct gclk_error *reterr)
{
	enum gclk_undo_state state;
	int r = gclk_container_look(c, reterr);

	if (r != 0) {
		return r;
	}
	r = gclk_undo_state(&c->all, &c->undo, &state, reterr);
	if (r == 0) {
		*ret = &c->undo;
		if (ret_state) {
			*ret_state = state;
		}
	}
	return r;
}

int gclk_container_window(struct gclk_container *c, enum gclk_view view,
			  const struct gclk_window **ret, struct gclk_error *reterr)
{
	const struct gclk_undo *undo;
	int r = gclk_container_load(c, reterr);

	if (r < 0) {
		return r;
	}
	/* A record that is refused leaves the present bytes as readable as they were. */
	r = gclk_container_look(c, NULL);
	if (view == GCLK_VIEW_CURRENT) {
		*ret = &c->current;
		return 0;
	}
	r = gclk_container_undo(c, &undo, NULL, reterr);
	if (r < 0) {
		return r;
	}
	*ret = &c->original;
	return 0;
}

void gclk_container_set_end(struct gclk_container *c, uint64_t stream_end)
{
	if (c->stream_end != stream_end) {
		c->stream_end = stream_end;
		gclk_undo_free(&c->undo);
		c->looked = false;
	}
}

/* ---- opening ---- */

static int open_libvirt(struct gclk_container *c, struct gclk_error *reterr)
{
	uint8_t header[GCLK_LIBVIRT_HEADER_BYTES], *data;
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < sizeof(header)) {
		size_t n = 0;

		r = supply_raw(c, header + at, sizeof(header) - at, &n, reterr);
		if (r == 0 && !n) {
			return gclk_fail(reterr, GCLK_TRUNCATED, c->name, at,
					 "the image ends within its header");
		}
		at += r < 0 ? 0 : n;
	}
	r = r < 0 ? r : gclk_libvirt_save_header(header, &c->libvirt, reterr);
	if (r < 0) {
		return r;
	}
	data = malloc(c->libvirt.data_len);
	if (!data) {
		return gclk_fail(reterr, GCLK_NOMEM, c->name, GCLK_NO_OFFSET, "no memory for the XML");
	}
	for (at = 0; r == 0 && at < c->libvirt.data_len;) {
		size_t n = 0;

		r = supply_raw(c, data + at, c->libvirt.data_len - at, &n, reterr);
		if (r == 0 && !n) {
			r = gclk_fail(reterr, GCLK_TRUNCATED, c->name,
				      GCLK_LIBVIRT_HEADER_BYTES + at,
				      "the image ends within its XML");
		}
		at += r < 0 ? 0 : n;
	}
	r = r < 0 ? r : gclk_libvirt_save_texts(&c->libvirt, data, reterr);
	free(data);
	c->info.kind = GCLK_CONTAINER_LIBVIRT;
	c->info.libvirt = &c->libvirt;
	c->info.compression = (enum gclk_compression)c->libvirt.format;
	c->info.stream_offset = GCLK_LIBVIRT_HEADER_BYTES + (uint64_t)c->libvirt.data_len;
	return r;
}

static int open_qcow2(struct gclk_container *c, const struct gclk_container_options *options,
		      struct gclk_error *reterr)
{
	int r;

	if (c->info.pipe) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, c->name, GCLK_NO_OFFSET,
				 "a qcow2 image cannot be read from a pipe");
	}
	r = gclk_qcow2_open(&c->file, &c->qcow2, reterr);
	if (r < 0) {
		return r;
	}
	c->info.kind = GCLK_CONTAINER_QCOW2;
	c->info.snapshots = gclk_qcow2_snapshots(c->qcow2, &c->info.n_snapshots);
	if (options->defer_snapshot) {
		return 0;
	}
	r = gclk_qcow2_select(c->qcow2, options->snapshot, reterr);
	if (r < 0) {
		return r;
	}
	c->info.snapshot = gclk_qcow2_selected(c->qcow2);
	c->info.stream_offset = gclk_qcow2_vm_state_offset(c->qcow2);
	c->stream = gclk_qcow2_vm_state(c->qcow2);
	return 0;
}

/* The first bytes; of a pipe they are handed out again later. */
static int peek(struct gclk_container *c, struct gclk_error *reterr)
{
	int r = 0;

	while (r == 0 && c->n_peeked < sizeof(c->peeked)) {
		size_t n = 0;

		r = read_some(c, c->peeked + c->n_peeked, sizeof(c->peeked) - c->n_peeked, &n,
			      reterr);
		if (r < 0 || !n) {
			break;
		}
		c->n_peeked += n;
	}
	c->at = c->info.pipe ? c->at : 0;
	return r;
}

static int recognise(struct gclk_container *c, const struct gclk_container_options *options,
		     struct gclk_error *reterr)
{
	int r = peek(c, reterr);

	if (r < 0) {
		return r;
	}
	if (gclk_qcow2_probe(c->peeked, c->n_peeked)) {
		return open_qcow2(c, options, reterr);
	}
	if (gclk_libvirt_save_probe(c->peeked, c->n_peeked)) {
		return open_libvirt(c, reterr);
	}
	c->info.compression = gclk_compression_probe(c->peeked, c->n_peeked);
	if (c->info.compression == GCLK_COMPRESSION_NONE && !is_stream(c->peeked, c->n_peeked)) {
		return gclk_fail(reterr, c->n_peeked ? GCLK_MALFORMED : GCLK_TRUNCATED, c->name, 0,
				 c->n_peeked ? "this is no QEMU stream, libvirt save image, qcow2 or "
				 "compressed stream" : "the input is empty");
	}
	return 0;
}

/* What the kind and the file together allow. */
static int settle(struct gclk_container *c, struct gclk_error *reterr)
{
	bool plain = c->info.compression == GCLK_COMPRESSION_NONE;

	c->info.random_access = plain && !c->info.pipe;
	c->info.in_place = c->info.random_access && c->info.file.regular &&
			   c->spool.fd < 0 && (!c->qcow2 || gclk_qcow2_selected(c->qcow2));
	if (c->info.random_access && !c->qcow2) {
		c->part = (struct gclk_io_part){ c->file, c->info.stream_offset };
		c->stream = gclk_io_from(&c->part);
	}
	/* Say now what is no stream, where that costs nothing. */
	if (c->info.random_access && (!c->qcow2 || gclk_qcow2_selected(c->qcow2))) {
		return gclk_container_load(c, reterr);
	}
	return 0;
}

/*
 * By way of memory: splice() from a pipe into a file goes page by page, and was measured
 * slower than this by a fifth.
 */
static int copy_pipe(struct gclk_container *c, struct gclk_error *reterr)
{
	uint8_t *piece = aligned_alloc(4096, SPOOL_BYTES);	/* the kernel copies pages */
	size_t n = 0;
	int r = 0;

	if (!piece) {
		return gclk_fail(reterr, GCLK_NOMEM, c->name, GCLK_NO_OFFSET, "no memory");
	}
	(void)!fcntl(c->fd, F_SETPIPE_SZ, SPOOL_BYTES);
	do {
		r = read_some(c, piece, SPOOL_BYTES, &n, reterr);
		r = r < 0 ? r : gclk_output_write(&c->spool, piece, n, reterr);
		if (r == 0 && c->progress.report &&
		    c->progress.report(c->progress.ctx, c->spool.bytes, 0)) {
			r = gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET, "cancelled");
		}
	} while (r == 0 && n);
	free(piece);
	return r;
}

/* From now on the container is that of the spooled file. */
static int spool(struct gclk_container *c, const char *beside, struct gclk_error *reterr)
{
	int r;

	r = gclk_output_open(beside, -1, &c->spool, reterr);
	if (r < 0) {
		c->spool.fd = -1;
		return r;
	}
	c->spool.sync |= c->sync;
	r = copy_pipe(c, reterr);
	if (r < 0) {
		return r;
	}
	if (c->owns_fd) {
		close(c->fd);
	}
	c->owns_fd = false;
	c->fd = c->spool.fd;
	c->at = 0;
	c->info.pipe = false;
	return gclk_file_facts(c->fd, &c->info.file, reterr);
}

static int open_it(struct gclk_container *c, const struct gclk_container_options *options,
		   struct gclk_error *reterr)
{
	int r;

	r = gclk_file_facts(c->fd, &c->info.file, reterr);
	if (r < 0) {
		return r;
	}
	c->info.pipe = !c->info.file.regular && lseek(c->fd, 0, SEEK_CUR) < 0;
	if (c->info.pipe && options->spool_beside) {
		r = spool(c, options->spool_beside, reterr);
	}
	if (r == 0 && options->writable && !options->io) {
		r = c->info.file.regular && c->spool.fd < 0 ?
		    gclk_file_lock(c->fd, c->name, reterr) :
		    gclk_fail(reterr, GCLK_UNSUPPORTED, c->name, GCLK_NO_OFFSET,
			      "only a regular file can be rewritten in place");
	}
	c->file = options->io ? *options->io : gclk_io_file(c->fd);
	r = r < 0 ? r : recognise(c, options, reterr);
	return r < 0 ? r : settle(c, reterr);
}

static int open_with(int fd, bool owns_fd, const char *path, const char *name,
		     const struct gclk_container_options *options,
		     struct gclk_container **ret, struct gclk_error *reterr)
{
	static const struct gclk_container_options none;
	struct gclk_container *c = calloc(1, sizeof(*c));
	int r;

	options = options ? options : &none;
	if (c) {
		c->fd = fd;
		c->owns_fd = owns_fd;
		c->spool.fd = -1;
		c->stream_end = GCLK_UNDO_UNKNOWN_END;
		c->progress = options->progress;
		c->sync = options->sync;
		c->writable = options->writable;
		c->name = strdup(name);
		c->path = path ? strdup(path) : NULL;
	}
	if (!c || !c->name || (path && !c->path)) {
		r = gclk_fail(reterr, GCLK_NOMEM, name, GCLK_NO_OFFSET, "no memory");
	} else {
		r = open_it(c, options, reterr);
	}
	if (r < 0) {
		if (!c && owns_fd) {
			close(fd);
		}
		gclk_container_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int gclk_container_open_fd(int fd, const char *name,
			   const struct gclk_container_options *options,
			   struct gclk_container **ret, struct gclk_error *reterr)
{
	return open_with(fd, false, NULL, name, options, ret, reterr);
}

int gclk_container_open(const char *path, const struct gclk_container_options *options,
			struct gclk_container **ret, struct gclk_error *reterr)
{
	bool writable = options && options->writable;
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);

	if (fd < 0) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "cannot open it: %m");
	}
	return open_with(fd, true, path, path, options, ret, reterr);
}

struct gclk_container *gclk_container_free(struct gclk_container *c)
{
	if (c) {
		gclk_container_forget(c);
		gclk_decompressor_free(c->decompressor);
		gclk_qcow2_free(c->qcow2);
		gclk_libvirt_save_free(&c->libvirt);
		if (c->spool.fd >= 0) {
			gclk_output_close(&c->spool);
		}
		if (c->owns_fd) {
			close(c->fd);
		}
		free(c->path);
		free(c->name);
		free(c);
	}
	return NULL;
}

/* ---- in place ---- */

bool gclk_patches_change_length(const struct gclk_patch *patches, size_t n_patches)
{
	for (size_t i = 0; i < n_patches; i++) {
		if (patches[i].n_old != patches[i].n_new) {
			return true;
		}
	}
	return false;
}

static int check_ranges(struct gclk_container *c, const struct gclk_patch *patches,
			size_t n_patches, uint64_t *bytes, struct gclk_error *reterr)
{
	for (size_t i = 0; i < n_patches; i++) {
		int r = gclk_qcow2_check_range(c->qcow2, patches[i].offset, patches[i].n_old,
					       reterr);

		if (r < 0) {
			return r;
		}
		*bytes += 16 + 2 * (uint64_t)patches[i].n_old;
	}
	return 0;
}

/* Of a qcow2: its clusters, and room for two records and what joining them may add. */
int gclk_container_check_writable(struct gclk_container *c, const struct gclk_patch *patches,
				  size_t n_patches, size_t n_payload,
				  struct gclk_error *reterr)
{
	uint64_t bytes = 80 + n_payload, trailing;
	int r;

	if (!c->qcow2) {
		return 0;
	}
	r = gclk_qcow2_check_writable(c->qcow2, reterr);
	r = r < 0 ? r : check_ranges(c, c->undo.patches, c->undo.n_patches, &bytes, reterr);
	r = r < 0 ? r : check_ranges(c, patches, n_patches, &bytes, reterr);
	if (r == 0 && n_patches) {
		trailing = c->all.size - known_end(c);
		r = gclk_qcow2_check_room(c->qcow2, trailing ? GCLK_MAX(trailing, bytes) + bytes :
							       bytes, reterr);
	}
	return r;
}

static int expect_in_place(const struct gclk_container *c, struct gclk_error *reterr)
{
	if (!c->info.in_place) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, c->name, GCLK_NO_OFFSET,
				 "it cannot be rewritten in place, only as a whole");
	}
	if (!c->writable) {
		return gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET,
				 "it was not opened for writing");
	}
	return 0;
}

int gclk_container_rewrite(struct gclk_container *c, const struct gclk_patch *patches,
			   size_t n_patches, const void *payload, size_t n_payload,
			   struct gclk_error *reterr)
{
	int r = expect_in_place(c, reterr);

	r = r < 0 ? r : gclk_container_look(c, reterr);
	r = r < 0 ? r : gclk_container_check_writable(c, patches, n_patches, n_payload, reterr);
	if (r < 0) {
		return r;
	}
	r = gclk_undo_apply(&c->stream, known_end(c), patches, n_patches, payload, n_payload,
			    reterr);
	gclk_container_forget(c);
	return r;
}

int gclk_container_rewrite_open(struct gclk_container *c, const struct gclk_patch *range,
				const void *payload, size_t n_payload,
				struct gclk_error *reterr)
{
	int r = expect_in_place(c, reterr);

	if (r == 0 && c->qcow2) {
		r = gclk_fail(reterr, GCLK_UNSUPPORTED, c->name, GCLK_NO_OFFSET,
			      "a snapshot is not read forwards: it is rewritten before the load");
	}
	r = r < 0 ? r : gclk_container_look(c, reterr);
	if (r < 0) {
		return r;
	}
	r = gclk_undo_apply_open(&c->stream, known_end(c), range, payload, n_payload, reterr);
	gclk_container_forget(c);
	return r;
}

int gclk_container_overwrite(struct gclk_container *c, uint64_t offset, const void *bytes,
			     size_t n, struct gclk_error *reterr)
{
	int r = expect_in_place(c, reterr);

	return r < 0 ? r : c->stream.write(c->stream.ctx, offset, bytes, n, reterr);
}

/* By a copy that takes the place of the file: what is compressed, or was inserted. */
static int revert_by_copy(struct gclk_container *c, struct gclk_error *reterr)
{
	const struct gclk_copy plain = { .replace = true, .progress = c->progress };

	if (!c->path) {
		return gclk_fail(reterr, GCLK_STATE, c->name, GCLK_NO_OFFSET,
				 "undoing this needs a new file, and the input has no name");
	}
	return gclk_container_copy(c, c->path, &plain, reterr);
}

int gclk_container_revert(struct gclk_container *c, struct gclk_error *reterr)
{
	int r = gclk_container_look(c, reterr);

	if (r < 0) {
		return r;
	}
	if (!c->info.in_place || gclk_patches_change_length(c->undo.patches, c->undo.n_patches)) {
		return r == GCLK_UNDO_NONE ? r : revert_by_copy(c, reterr);
	}
	r = expect_in_place(c, reterr);
	r = r < 0 ? r : gclk_container_check_writable(c, NULL, 0, 0, reterr);
	r = r < 0 ? r : gclk_undo_revert(&c->stream, known_end(c), reterr);
	gclk_container_forget(c);
	return r;
}
