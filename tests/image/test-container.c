/* SPDX-License-Identifier: MIT */
#include <byteswap.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/error.h"
#include "gclk-test.h"
#include "image/container.h"
#include "image/raw.h"

static char directory[] = "/tmp/gclk-container-XXXXXX";

static void clean_up(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	(void)!system(command);
}

static const char *path_of(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	static bool made;
	char *path = paths[next++ % 8];

	if (!made) {
		made = mkdtemp(directory) != NULL;
		atexit(clean_up);
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

struct bytes {
	uint8_t *at;
	size_t n;
};

static void add(struct bytes *b, const void *more, size_t n)
{
	b->at = realloc(b->at, b->n + n + 1);
	memcpy(b->at + b->n, more, n);
	b->n += n;
}

static struct bytes copy_bytes(const struct bytes *b)
{
	struct bytes copy = { 0 };

	add(&copy, b->at, b->n);
	return copy;
}

static void free_bytes(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){ 0 };
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->n == b->n && (!a->n || !memcmp(a->at, b->at, a->n));
}

static void store(const char *name, const struct bytes *b)
{
	FILE *f = fopen(path_of(name), "w");

	CU_ASSERT(!b->n || fwrite(b->at, 1, b->n, f) == b->n);
	fclose(f);
}

static struct bytes load(const char *name)
{
	FILE *f = fopen(path_of(name), "r");
	struct bytes b = { 0 };
	uint8_t buf[65536];
	size_t n;

	while (f && (n = fread(buf, 1, sizeof(buf), f)) > 0) {
		add(&b, buf, n);
	}
	if (f) {
		fclose(f);
	}
	return b;
}

/* What begins like a stream; what follows is nobody's business here. */
static struct bytes new_stream(size_t n)
{
	struct bytes b = { malloc(n), n };

	for (size_t i = 0; i < n; i++) {
		b.at[i] = i / 4096 % 3 ? 0 : (uint8_t)gclk_random();
	}
	memcpy(b.at, "QEVM\0\0\0\3", 8);
	b.at[n - 1] = '}';
	return b;
}

#define XML "<domain type='kvm'><name>guest</name></domain>"

static struct bytes new_head(uint32_t format, bool swap)
{
	static const uint8_t padding[3000];
	uint32_t words[19] = { 2, sizeof(XML) + 7 + sizeof(padding), 1, format, sizeof(XML) };
	struct bytes b = { 0 };

	for (unsigned i = 0; swap && i < 5; i++) {
		words[i] = bswap_32(words[i]);
	}
	add(&b, "LibvirtQemudSave", 16);
	add(&b, words, sizeof(words));
	add(&b, XML, sizeof(XML));
	add(&b, "cookie", 7);
	add(&b, padding, sizeof(padding));
	return b;
}

static int to_bytes(void *ctx, const void *buf, size_t n, struct gclk_error *reterr)
{
	(void)reterr;
	add(ctx, buf, n);
	return 0;
}

static struct bytes compressed(unsigned kind, const struct bytes *plain)
{
	struct gclk_compressor *c = NULL;
	struct bytes out = { 0 };
	struct gclk_sink sink = { to_bytes, &out };

	GCLK_EQ(gclk_compressor_open(kind, &sink, &c, NULL), 0);
	GCLK_EQ(gclk_compressor_write(c, plain->at, plain->n, NULL), 0);
	GCLK_EQ(gclk_compressor_finish(c, NULL), 0);
	gclk_compressor_free(c);
	return out;
}

static bool have_lzop(void)
{
	return system("lzop --version >/dev/null 2>&1") == 0;
}

/* A file of each kind around @stream. @libvirt: 0 bare, 1 in a save image, 2 swapped. */
static bool store_kind(const char *name, unsigned kind, unsigned libvirt,
		       const struct bytes *stream)
{
	struct bytes all = { 0 }, inner;

	if (kind == GCLK_COMPRESSION_LZOP && !have_lzop()) {
		return false;
	}
	if (libvirt) {
		all = new_head(kind, libvirt == 2);
	}
	inner = kind ? compressed(kind, stream) : copy_bytes(stream);
	add(&all, inner.at, inner.n);
	store(name, &all);
	free_bytes(&all);
	free_bytes(&inner);
	return true;
}

static struct gclk_container *open_container(const char *name, bool writable)
{
	struct gclk_container_options options = { .writable = writable };
	struct gclk_container *c = NULL;
	struct gclk_error e = { 0 };

	if (gclk_container_open(path_of(name), &options, &c, &e) < 0) {
		printf("\n    %s: %s\n", e.where, e.message);
	}
	return c;
}

static int open_status(const char *name, struct gclk_error *e)
{
	struct gclk_container *c = NULL;
	int r = gclk_container_open(path_of(name), NULL, &c, e);

	gclk_container_free(c);
	return r;
}

static struct bytes window_bytes(struct gclk_container *c, enum gclk_view view)
{
	const struct gclk_window *w = NULL;
	struct bytes b = { 0 };

	GCLK_EQ(gclk_container_window(c, view, &w, NULL), 0);
	if (w) {
		b.n = w->size;
		b.at = malloc(b.n + 1);
		GCLK_EQ(gclk_window_read(w, 0, b.at, b.n, NULL), 0);
	}
	return b;
}

static struct bytes view_of(const char *name, enum gclk_view view)
{
	struct gclk_container *c = open_container(name, false);
	struct bytes b = { 0 };

	CU_ASSERT_PTR_NOT_NULL(c);
	if (c) {
		b = window_bytes(c, view);
	}
	gclk_container_free(c);
	return b;
}

static void expect_view(const char *name, enum gclk_view view, const struct bytes *want)
{
	struct bytes b = view_of(name, view);

	CU_ASSERT(same(&b, want));
	free_bytes(&b);
}

/* ---- reading ---- */

GCLK_TEST(container, every_kind_gives_the_stream)
{
	struct bytes stream = new_stream(300000);

	for (unsigned kind = 0; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		for (unsigned libvirt = 0; libvirt < 3; libvirt++) {
			const struct gclk_container_info *info;
			const struct gclk_source *source = NULL;
			struct gclk_container *c;
			struct bytes b, forwards = { 0 };
			uint8_t buf[5000];
			size_t n = 1;

			if (!store_kind("in", kind, libvirt, &stream)) {
				continue;
			}
			c = open_container("in", false);
			info = gclk_container_info(c);
			GCLK_EQ(info->kind, libvirt ? GCLK_CONTAINER_LIBVIRT : GCLK_CONTAINER_STREAM);
			GCLK_EQ(info->compression, kind);
			GCLK_EQ(info->random_access, !kind);
			GCLK_EQ(info->in_place, !kind);
			GCLK_EQ(info->stream_offset, libvirt ? 92 + sizeof(XML) + 7 + 3000 : 0);
			CU_ASSERT(info->file.regular && info->file.mtime_ns > 0);
			CU_ASSERT(!info->file.has_birth || info->file.birth_ns <= info->file.mtime_ns);
			if (libvirt) {
				CU_ASSERT_STRING_EQUAL(info->libvirt->xml, XML);
				CU_ASSERT_STRING_EQUAL(info->libvirt->cookie, "cookie");
				GCLK_EQ(info->libvirt->swapped, libvirt == 2);
			}
			b = window_bytes(c, GCLK_VIEW_CURRENT);
			CU_ASSERT(same(&b, &stream));
			free_bytes(&b);
			GCLK_EQ(gclk_container_source(c, &source, NULL), 0);
			while (n) {
				GCLK_EQ(source->read(source->ctx, buf, sizeof(buf), &n, NULL), 0);
				add(&forwards, buf, n);
			}
			CU_ASSERT(same(&forwards, &stream));
			free_bytes(&forwards);
			gclk_container_free(c);
		}
	}
	free_bytes(&stream);
}

/* Beyond what is kept: a window over compressed bytes reads them again. */
GCLK_TEST(container, long_compressed_streams_are_read_anywhere)
{
	struct bytes stream = new_stream(GCLK_CONTAINER_TAIL + 3000001);
	const struct gclk_window *w = NULL;
	struct gclk_container *c;
	uint8_t buf[70000];

	store_kind("in", GCLK_COMPRESSION_ZSTD, 1, &stream);
	c = open_container("in", false);
	GCLK_EQ(gclk_container_window(c, GCLK_VIEW_CURRENT, &w, NULL), 0);
	GCLK_EQ(w->size, stream.n);
	for (unsigned i = 0; i < 60; i++) {
		size_t n = gclk_random_below(sizeof(buf));
		uint64_t at = gclk_random_below(i < 20 ? 4000000 : stream.n - n);

		GCLK_EQ(gclk_window_read(w, at, buf, n, NULL), 0);
		CU_ASSERT(!memcmp(buf, stream.at + at, n));
	}
	gclk_container_free(c);
	free_bytes(&stream);
}

/* A pipe that @b comes out of, written by a child. */
static int pipe_of(const struct bytes *b, pid_t *ret_child)
{
	int fds[2];

	CU_ASSERT(pipe(fds) == 0);
	fflush(stdout);
	*ret_child = fork();
	if (*ret_child == 0) {
		size_t at = 0;

		close(fds[0]);
		signal(SIGPIPE, SIG_IGN);
		while (at < b->n) {
			ssize_t n = write(fds[1], b->at + at, b->n - at);

			if (n <= 0) {
				_exit(1);
			}
			at += (size_t)n;
		}
		_exit(0);
	}
	close(fds[1]);
	return fds[0];
}

GCLK_TEST(container, pipes_are_read_once)
{
	struct bytes stream = new_stream(2000000);

	for (unsigned kind = 0; kind <= GCLK_COMPRESSION_ZSTD; kind += 5) {
		for (unsigned libvirt = 0; libvirt < 2; libvirt++) {
			const struct gclk_source *source;
			struct gclk_container *c = NULL;
			const struct gclk_window *w;
			struct gclk_copy copy = { 0 };
			struct bytes file, b;
			pid_t child;
			int fd;

			store_kind("in", kind, libvirt, &stream);
			file = load("in");
			fd = pipe_of(&file, &child);
			GCLK_EQ(gclk_container_open_fd(fd, "pipe", NULL, &c, NULL), 0);
			CU_ASSERT(gclk_container_info(c)->pipe);
			CU_ASSERT_FALSE(gclk_container_info(c)->in_place);
			b = window_bytes(c, GCLK_VIEW_CURRENT);
			CU_ASSERT(same(&b, &stream));
			GCLK_EQ(gclk_container_source(c, &source, NULL), -GCLK_STATE);
			GCLK_EQ(gclk_container_copy(c, path_of("out"), &copy, NULL), -GCLK_STATE);
			GCLK_EQ(gclk_container_window(c, GCLK_VIEW_ORIGINAL, &w, NULL), 0);
			gclk_container_free(c);
			close(fd);
			waitpid(child, NULL, 0);
			free_bytes(&b);
			free_bytes(&file);
		}
	}
	free_bytes(&stream);
}

GCLK_TEST(container, what_is_not_an_image_is_refused_by_name)
{
	struct bytes stream = new_stream(5000), b = { 0 }, packed;
	struct gclk_error e = { 0 };

	store("in", &b);
	GCLK_EQ(open_status("in", &e), -GCLK_TRUNCATED);
	add(&b, "hello", 5);
	store("in", &b);
	GCLK_EQ(open_status("in", &e), -GCLK_MALFORMED);
	free_bytes(&b);

	b = new_head(0, false);
	store("in", &b);	/* no stream behind it */
	CU_ASSERT(open_status("in", &e) < 0);
	add(&b, "not a stream", 12);
	store("in", &b);
	GCLK_EQ(open_status("in", &e), -GCLK_MALFORMED);
	memcpy(b.at, "LibvirtQemudPart", 16);
	store("in", &b);
	GCLK_EQ(open_status("in", &e), -GCLK_STATE);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "incomplete"));
	free_bytes(&b);

	b = new_head(6, false);
	store("in", &b);
	GCLK_EQ(open_status("in", &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "mapped-ram"));
	free_bytes(&b);

	b = new_head(0, false);		/* somebody ran gzip over the image */
	add(&b, stream.at, stream.n);
	packed = compressed(GCLK_COMPRESSION_GZIP, &b);
	store("in", &packed);
	{
		struct gclk_container *c = open_container("in", false);
		const struct gclk_window *w;

		GCLK_EQ(gclk_container_window(c, GCLK_VIEW_CURRENT, &w, &e), -GCLK_UNSUPPORTED);
		CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "decompress it first"));
		gclk_container_free(c);
	}
	GCLK_EQ(open_status("no such file", &e), -GCLK_SYS);
	GCLK_EQ(e.sys_errno, ENOENT);
	free_bytes(&b);
	free_bytes(&packed);
	free_bytes(&stream);
}

GCLK_TEST(container, truncated_and_flipped_heads_are_survived)
{
	struct bytes stream = new_stream(5000), good;

	store_kind("in", 1, 1, &stream);
	good = load("in");
	for (size_t i = 0; i < good.n; i += i < 200 ? 1 : 97) {
		for (unsigned how = 0; how < 2; how++) {
			struct bytes b = copy_bytes(&good);
			struct gclk_container *c = NULL;
			const struct gclk_window *w;

			if (how) {
				b.at[i] ^= 0x81;
			} else {
				b.n = i;
			}
			store("in", &b);
			if (gclk_container_open(path_of("in"), NULL, &c, NULL) == 0) {
				(void)gclk_container_window(c, GCLK_VIEW_ORIGINAL, &w, NULL);
			}
			gclk_container_free(c);
			free_bytes(&b);
		}
	}
	free_bytes(&good);
	free_bytes(&stream);
}

/* ---- rewriting ---- */

struct change {
	struct gclk_patch list[6];
	size_t n;
	uint8_t old[6][64], new[6][64];
};

static void change(struct change *c, const struct bytes *stream, uint64_t offset, uint32_t n_old,
		   uint32_t n_new)
{
	struct gclk_patch *p = &c->list[c->n];

	*p = (struct gclk_patch){ offset, n_old, n_new, c->old[c->n], c->new[c->n] };
	memcpy(c->old[c->n], stream->at + offset, n_old);
	for (uint32_t i = 0; i < n_new; i++) {
		c->new[c->n][i] = i < n_old ? (uint8_t)(stream->at[offset + i] + 1) :
					      (uint8_t)gclk_random();
	}
	c->n++;
}

static struct bytes changed(const struct bytes *stream, const struct change *c)
{
	struct bytes b = { 0 };
	size_t at = 0;

	for (size_t i = 0; i < c->n; i++) {
		add(&b, stream->at + at, c->list[i].offset - at);
		add(&b, c->list[i].new_bytes, c->list[i].n_new);
		at = c->list[i].offset + c->list[i].n_old;
	}
	add(&b, stream->at + at, stream->n - at);
	return b;
}

static struct change *first_change(const struct bytes *stream)
{
	struct change *c = calloc(1, sizeof(*c));

	change(c, stream, 8, 8, 8);
	change(c, stream, 4096, 16, 16);
	change(c, stream, stream->n - 300, 8, 8);
	change(c, stream, stream->n - 8, 8, 8);
	return c;
}

/* Overlaps the first, touches it, leaves parts of it, inserts and removes. */
static struct change *second_change(const struct bytes *stream, bool lengths)
{
	struct change *c = calloc(1, sizeof(*c));

	change(c, stream, 12, 8, 8);
	change(c, stream, 4090, 30, 30);
	if (lengths) {
		change(c, stream, 5000, 0, 37);
		change(c, stream, stream->n - 298, 4, 9);
		change(c, stream, stream->n - 6, 6, 2);
	}
	return c;
}

static int copy_with(const char *from, const char *to, const struct change *c, bool replace,
		     struct gclk_error *e)
{
	struct gclk_copy copy = { .patches = c ? c->list : NULL, .n_patches = c ? c->n : 0,
				  .payload = "plan", .n_payload = 4, .replace = replace };
	struct gclk_container *in = open_container(from, false);
	int r = in ? gclk_container_copy(in, path_of(to), &copy, e) : -1;

	gclk_container_free(in);
	return r;
}

static int rewrite_with(const char *name, const struct change *c, struct gclk_error *e)
{
	struct gclk_container *in = open_container(name, true);
	int r = in ? gclk_container_rewrite(in, c->list, c->n, "plan", 4, e) : -1;

	gclk_container_free(in);
	return r;
}

static int revert(const char *name, struct gclk_error *e)
{
	struct gclk_container *c = NULL;
	struct gclk_container_options options = { .writable = true };
	int r = gclk_container_open(path_of(name), &options, &c, e);

	r = r < 0 ? r : gclk_container_revert(c, e);
	gclk_container_free(c);
	return r;
}

static unsigned count_files(void)
{
	char command[128];
	unsigned n = 0;
	FILE *f;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", directory);
	f = popen(command, "r");
	CU_ASSERT(fscanf(f, "%u", &n) == 1);
	pclose(f);
	return n;
}

/* R9, for each kind: a copy of a rewritten copy starts from what was captured. */
GCLK_TEST(container, copies_of_every_kind_are_right)
{
	struct bytes stream = new_stream(300000);
	struct change *first = first_change(&stream), *second = second_change(&stream, true);
	struct bytes one = changed(&stream, first), two = changed(&stream, second);

	for (unsigned kind = 0; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		for (unsigned libvirt = 0; libvirt < 3; libvirt++) {
			struct bytes before, after;
			unsigned files;

			if (!store_kind("in", kind, libvirt, &stream)) {
				continue;
			}
			unlink(path_of("a"));
			unlink(path_of("b"));
			unlink(path_of("c"));
			before = load("in");
			GCLK_EQ(copy_with("in", "a", first, false, NULL), 0);
			after = load("in");
			CU_ASSERT(same(&before, &after));
			free_bytes(&after);
			expect_view("a", GCLK_VIEW_CURRENT, &one);
			expect_view("a", GCLK_VIEW_ORIGINAL, &stream);
			GCLK_EQ(copy_with("a", "b", second, false, NULL), 0);
			expect_view("b", GCLK_VIEW_CURRENT, &two);
			expect_view("b", GCLK_VIEW_ORIGINAL, &stream);
			GCLK_EQ(copy_with("b", "c", first, false, NULL), 0);
			expect_view("c", GCLK_VIEW_CURRENT, &one);
			files = count_files();
			GCLK_EQ(copy_with("b", "b", first, true, NULL), 0);
			expect_view("b", GCLK_VIEW_CURRENT, &one);
			GCLK_EQ(count_files(), files);
			GCLK_EQ(copy_with("b", "b", second, true, NULL), 0);
			/* header, XML, cookie, data_len as they were; and what is in it again */
			GCLK_EQ(revert("b", NULL), 0);
			GCLK_EQ(revert("b", NULL), GCLK_UNDO_NONE);
			expect_view("b", GCLK_VIEW_CURRENT, &stream);
			after = load("b");
			CU_ASSERT(kind ? after.n > 0 : same(&before, &after));
			if (libvirt) {
				CU_ASSERT(!memcmp(before.at, after.at, 92 + sizeof(XML) + 7 + 3000));
			}
			free_bytes(&after);
			free_bytes(&before);
		}
	}
	free(first);
	free(second);
	free_bytes(&one);
	free_bytes(&two);
	free_bytes(&stream);
}

GCLK_TEST(container, in_place_and_back)
{
	struct bytes stream = new_stream(300000);
	struct change *first = first_change(&stream), *second = second_change(&stream, false);
	struct bytes one = changed(&stream, first), two = changed(&stream, second);

	for (unsigned libvirt = 0; libvirt < 3; libvirt++) {
		const struct gclk_undo *undo = NULL;
		enum gclk_undo_state state;
		struct gclk_container *c;
		struct bytes before, after;

		store_kind("in", 0, libvirt, &stream);
		before = load("in");
		GCLK_EQ(rewrite_with("in", first, NULL), 0);
		expect_view("in", GCLK_VIEW_CURRENT, &one);
		expect_view("in", GCLK_VIEW_ORIGINAL, &stream);
		GCLK_EQ(rewrite_with("in", second, NULL), 0);
		expect_view("in", GCLK_VIEW_CURRENT, &two);
		c = open_container("in", false);
		GCLK_EQ(gclk_container_undo(c, &undo, &state, NULL), 0);
		GCLK_EQ(state, GCLK_UNDO_APPLIED);
		CU_ASSERT(undo->n_payload == 4 && !memcmp(undo->payload, "plan", 4));
		GCLK_EQ(gclk_container_rewrite(c, first->list, first->n, NULL, 0, NULL),
			-GCLK_STATE);	/* not opened for it */
		gclk_container_free(c);
		GCLK_EQ(revert("in", NULL), 0);
		after = load("in");
		CU_ASSERT(same(&before, &after));
		free_bytes(&before);
		free_bytes(&after);
	}
	free(first);
	free(second);
	free_bytes(&one);
	free_bytes(&two);
	free_bytes(&stream);
}

/* R9: what does not match is refused, and nothing is written. */
GCLK_TEST(container, mismatches_are_refused)
{
	struct bytes stream = new_stream(100000), before, after;
	struct change *c = first_change(&stream);
	struct gclk_error e = { 0 };
	unsigned files;
	int fd;

	store_kind("in", 0, 1, &stream);
	before = load("in");
	c->old[1][3] ^= 1;
	GCLK_EQ(rewrite_with("in", c, &e), -GCLK_MALFORMED);
	GCLK_EQ(e.offset, 4096);
	after = load("in");
	CU_ASSERT(same(&before, &after));
	free_bytes(&after);
	files = count_files();
	GCLK_EQ(copy_with("in", "new", c, false, &e), -GCLK_MALFORMED);
	GCLK_EQ(e.offset, 4096);
	GCLK_EQ(count_files(), files);
	c->old[1][3] ^= 1;
	store_kind("zs", GCLK_COMPRESSION_ZSTD, 1, &stream);
	c->old[3][3] ^= 1;
	files = count_files();
	GCLK_EQ(copy_with("zs", "new", c, false, &e), -GCLK_MALFORMED);
	GCLK_EQ(e.offset, stream.n - 8);
	GCLK_EQ(count_files(), files);
	c->old[3][3] ^= 1;
	/* a byte of a rewritten range that is neither */
	GCLK_EQ(rewrite_with("in", c, NULL), 0);
	fd = open(path_of("in"), O_RDWR);
	CU_ASSERT(pwrite(fd, "\xee\xee\xee", 3, 92 + sizeof(XML) + 7 + 3000 + 4097) == 3);
	close(fd);
	GCLK_EQ(revert("in", &e), -GCLK_MALFORMED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "not of this image"));
	GCLK_EQ(copy_with("in", "new", c, false, &e), -GCLK_MALFORMED);
	free(c);
	free_bytes(&before);
	free_bytes(&stream);
}

GCLK_TEST(container, existing_files_are_kept_unless_told)
{
	struct bytes stream = new_stream(100000), other = { 0 }, after;
	struct change *c = first_change(&stream);
	struct gclk_error e = { 0 };

	store_kind("in", 0, 0, &stream);
	add(&other, "precious", 8);
	store("other", &other);
	GCLK_EQ(copy_with("in", "other", c, false, &e), -GCLK_STATE);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "exists"));
	after = load("other");
	CU_ASSERT(same(&after, &other));
	free_bytes(&after);
	/* through a link the file is replaced, not the link */
	CU_ASSERT(symlink("other", path_of("link")) == 0);
	GCLK_EQ(copy_with("in", "link", c, true, &e), 0);
	expect_view("other", GCLK_VIEW_ORIGINAL, &stream);
	CU_ASSERT(readlink(path_of("link"), (char[8]){ 0 }, 8) == 5);
	free(c);
	free_bytes(&other);
	free_bytes(&stream);
}

GCLK_TEST(container, only_what_replaces_waits_for_the_disk)
{
	const char *path = path_of("output");
	struct gclk_output output;

	for (unsigned round = 0; round < 3; round++) {	/* new, replacing, come up meanwhile */
		struct stat st;

		GCLK_EQ(gclk_output_open(path, -1, &output, NULL), 0);
		GCLK_EQ(output.sync, round == 1);
		GCLK_EQ(gclk_output_write(&output, "12345678", round + 1, NULL), 0);
		if (round == 2) {
			close(open(path, O_CREAT | O_WRONLY, 0600));
		}
		GCLK_EQ(gclk_output_commit(&output, true, NULL), 0);
		GCLK_EQ(output.sync, round > 0);
		gclk_output_close(&output);
		GCLK_EQ(stat(path, &st), 0);
		GCLK_EQ(st.st_size, round + 1);
		if (round == 1) {
			unlink(path);
		}
	}
	GCLK_EQ(gclk_output_open(path, -1, &output, NULL), 0);
	GCLK_EQ(gclk_output_commit(&output, false, NULL), -GCLK_STATE);
	gclk_output_close(&output);
}

GCLK_TEST(container, what_is_no_regular_file_is_not_replaced)
{
	struct gclk_output output;
	struct stat st;

	GCLK_EQ(mkfifo(path_of("pipe"), 0600), 0);
	GCLK_EQ(gclk_output_open(path_of("pipe"), -1, &output, NULL), -GCLK_UNSUPPORTED);
	GCLK_EQ(gclk_output_open("/dev/null", -1, &output, NULL), -GCLK_UNSUPPORTED);
	GCLK_EQ(stat(path_of("pipe"), &st), 0);
	CU_ASSERT(S_ISFIFO(st.st_mode));
}

GCLK_TEST(container, owner_mode_attributes_and_holes_follow)
{
	struct bytes stream = new_stream(100000);
	struct change *c = first_change(&stream);
	struct stat st, in;
	char value[8];
	bool attributes;
	int fd;

	store_kind("in", 0, 0, &stream);
	fd = open(path_of("in"), O_RDWR);
	CU_ASSERT(ftruncate(fd, 64 << 20) == 0);	/* a hole of 64 MiB, and an end */
	CU_ASSERT(pwrite(fd, "}", 1, (64 << 20) - 1) == 1);
	CU_ASSERT(fchmod(fd, 0640) == 0);
	attributes = fsetxattr(fd, "user.guestclock", "kept", 4, 0) == 0;
	if (geteuid() == 0) {
		CU_ASSERT(fchown(fd, 64055, 64056) == 0);
	}
	CU_ASSERT(fstat(fd, &in) == 0);
	close(fd);
	c->n = 2;	/* those of the old end are not at the end now, but still right */
	GCLK_EQ(copy_with("in", "out", c, true, NULL), 0);
	CU_ASSERT(stat(path_of("out"), &st) == 0);
	GCLK_EQ(st.st_mode, in.st_mode);
	GCLK_EQ(st.st_uid, in.st_uid);
	GCLK_EQ(st.st_gid, in.st_gid);
	CU_ASSERT(st.st_size > 64 << 20);
	CU_ASSERT(st.st_blocks < 8192);
	if (attributes) {
		GCLK_EQ(getxattr(path_of("out"), "user.guestclock", value, sizeof(value)), 4);
	}
	free(c);
	free_bytes(&stream);
}

GCLK_TEST(container, a_pipe_becomes_a_rewritten_file)
{
	struct bytes stream = new_stream(3000000);
	struct change *first = first_change(&stream), *second = second_change(&stream, true);
	struct bytes one = changed(&stream, first), two = changed(&stream, second);

	for (unsigned kind = 0; kind <= GCLK_COMPRESSION_ZSTD; kind += 5) {
		for (unsigned lengths = 0; lengths < 2; lengths++) {
			const struct change *which = lengths ? second : first;
			struct gclk_container_options options = { 0 };
			struct gclk_container *c = NULL;
			struct gclk_copy copy = { .patches = which->list, .n_patches = which->n };
			struct bytes file, b;
			struct stat st;
			pid_t child;
			int fd;

			store_kind("in", kind, 1, &stream);
			file = load("in");
			unlink(path_of("out"));
			options.spool_beside = path_of("out");
			fd = pipe_of(&file, &child);
			GCLK_EQ(gclk_container_open_fd(fd, "pipe", &options, &c, NULL), 0);
			CU_ASSERT_FALSE(gclk_container_info(c)->pipe);
			b = window_bytes(c, GCLK_VIEW_ORIGINAL);
			CU_ASSERT(same(&b, &stream));
			free_bytes(&b);
			GCLK_EQ(gclk_container_copy(c, path_of("out"), &copy, NULL), 0);
			gclk_container_free(c);
			close(fd);
			waitpid(child, NULL, 0);
			expect_view("out", GCLK_VIEW_CURRENT, lengths ? &two : &one);
			expect_view("out", GCLK_VIEW_ORIGINAL, &stream);
			CU_ASSERT(stat(path_of("out"), &st) == 0);
			GCLK_EQ(st.st_mode & 07777, 0600);
			GCLK_EQ(revert("out", NULL), 0);
			b = load("out");
			CU_ASSERT(kind ? b.n > 0 : same(&b, &file));
			free_bytes(&b);
			free_bytes(&file);
		}
	}
	free(first);
	free(second);
	free_bytes(&one);
	free_bytes(&two);
	free_bytes(&stream);
}

static int count_reports(void *ctx, uint64_t done, uint64_t total)
{
	unsigned *left = ctx;

	(void)done;
	(void)total;
	return --*left == 0;
}

GCLK_TEST(container, a_pass_can_be_cancelled)
{
	struct bytes stream = new_stream(40 << 20);
	struct gclk_container *c;
	unsigned left = 2, files;

	store_kind("in", 0, 0, &stream);
	c = open_container("in", false);
	files = count_files();
	GCLK_EQ(gclk_container_copy(c, path_of("never"),
				    &(struct gclk_copy){ .progress = { count_reports, &left } },
				    NULL), -GCLK_STATE);
	GCLK_EQ(count_files(), files);
	gclk_container_free(c);
	free_bytes(&stream);
}

/* Killed anywhere: the output is not there, or whole; nothing else is. */
GCLK_TEST(container, killed_copies_leave_nothing)
{
	struct bytes stream = new_stream(8 << 20);
	struct change *c = first_change(&stream);
	struct bytes one = changed(&stream, c);
	unsigned files, whole = 0;

	store_kind("in", 0, 1, &stream);
	unlink(path_of("out"));
	files = count_files();
	for (unsigned i = 0; i < 40; i++) {
		pid_t child;

		fflush(stdout);
		child = fork();
		if (child == 0) {
			_exit(copy_with("in", "out", c, true, NULL) < 0);
		}
		usleep((useconds_t)gclk_random_below(25000));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		if (access(path_of("out"), F_OK) == 0) {
			whole++;
			expect_view("out", GCLK_VIEW_CURRENT, &one);
			unlink(path_of("out"));
		}
		GCLK_EQ(count_files(), files);
	}
	printf("(%u of 40 had finished) ", whole);
	free(c);
	free_bytes(&one);
	free_bytes(&stream);
}

/* ---- qcow2 ---- */

__attribute__((format(printf, 1, 2)))
static int run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static int qemu(const char *file, const char *options, const char *commands)
{
	return run("cd %s && printf '%s\\nquit\\n' | timeout 60 qemu-system-x86_64 -accel tcg -m 16 "
		   "-nodefaults -display none -drive file=%s,if=ide %s -monitor stdio "
		   ">log 2>&1 && ! grep -qi error log", directory, commands, file, options);
}

GCLK_TEST(container, qcow2_snapshots_are_listed_chosen_and_rewritten)
{
	struct gclk_container_options options = { .defer_snapshot = true };
	const struct gclk_container_info *info;
	struct gclk_container *c = NULL;
	const struct gclk_window *w = NULL;
	struct gclk_error e = { 0 };
	struct change *some = calloc(1, sizeof(*some));
	struct bytes stream, want, before, after;

	path_of("");
	if (run("qemu-img --version >/dev/null 2>&1 && qemu-system-x86_64 --version >/dev/null 2>&1")) {
		gclk_test_skip("QEMU is not installed");
		free(some);
		return;
	}
	GCLK_EQ(run("qemu-img create -q -f qcow2 %s/q 16M", directory), 0);
	GCLK_EQ(qemu("q", "", "savevm one"), 0);
	GCLK_EQ(run("qemu-img snapshot -c disk-only %s/q", directory), 0);
	GCLK_EQ(gclk_container_open(path_of("q"), &options, &c, NULL), 0);
	info = gclk_container_info(c);
	GCLK_EQ(info->kind, GCLK_CONTAINER_QCOW2);
	GCLK_EQ(info->n_snapshots, 2);
	CU_ASSERT_STRING_EQUAL(info->snapshots[0].name, "one");
	GCLK_EQ(info->snapshots[1].vm_state_bytes, 0);
	CU_ASSERT_PTR_NULL(info->snapshot);
	GCLK_EQ(gclk_container_window(c, GCLK_VIEW_CURRENT, &w, &e), -GCLK_STATE);
	gclk_container_free(c);
	options = (struct gclk_container_options){ .snapshot = "disk-only" };
	GCLK_EQ(gclk_container_open(path_of("q"), &options, &c, &e), -GCLK_STATE);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "no state"));

	stream = view_of("q", GCLK_VIEW_ORIGINAL);
	CU_ASSERT(stream.n > 100000 && stream.at[stream.n - 1] == '}');
	change(some, &stream, stream.n - 100, 8, 8);	/* in the vmdesc */
	change(some, &stream, stream.n - 50, 8, 8);
	want = changed(&stream, some);
	before = load("q");
	GCLK_EQ(copy_with("q", "r", some, true, NULL), 0);
	expect_view("r", GCLK_VIEW_CURRENT, &want);
	expect_view("r", GCLK_VIEW_ORIGINAL, &stream);
	GCLK_EQ(run("qemu-img check -q %s/r >/dev/null", directory), 0);
	GCLK_EQ(qemu("r", "-loadvm one", "info status"), 0);
	GCLK_EQ(rewrite_with("q", some, NULL), 0);
	expect_view("q", GCLK_VIEW_CURRENT, &want);
	GCLK_EQ(run("qemu-img check -q %s/q >/dev/null", directory), 0);
	GCLK_EQ(revert("q", NULL), 0);
	after = load("q");
	CU_ASSERT(same(&before, &after));
	free_bytes(&after);
	GCLK_EQ(copy_with("r", "s", NULL, true, NULL), 0);	/* the captured one again */
	expect_view("s", GCLK_VIEW_CURRENT, &stream);
	some->list[0].n_new = 4;
	GCLK_EQ(copy_with("q", "t", some, true, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT(access(path_of("t"), F_OK) < 0);
	free(some);
	free_bytes(&stream);
	free_bytes(&want);
	free_bytes(&before);
}

GCLK_TEST(container, an_image_in_use_is_not_rewritten)
{
	struct bytes stream = new_stream(100000);
	struct change *some = first_change(&stream);
	struct gclk_container_options options = { .writable = true };
	struct gclk_container *a, *b = NULL;

	store_kind("in", 0, 0, &stream);
	a = open_container("in", true);
	GCLK_EQ(gclk_container_open(path_of("in"), &options, &b, NULL), -GCLK_STATE);
	b = open_container("in", false);	/* reading is free */
	CU_ASSERT_PTR_NOT_NULL(b);
	gclk_container_free(b);
	gclk_container_free(a);
	GCLK_EQ(rewrite_with("in", some, NULL), 0);
	free(some);
	free_bytes(&stream);
}
