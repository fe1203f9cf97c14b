/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "gclk-test.h"
#include "image/compress.h"

struct bytes {
	uint8_t *at;
	size_t n, read;
	size_t most;		/* a read gives no more than this at once */
};

static int append(void *ctx, const void *buf, size_t n, struct gclk_error *reterr)
{
	struct bytes *b = ctx;

	(void)reterr;
	b->at = realloc(b->at, b->n + n + 1);
	memcpy(b->at + b->n, buf, n);
	b->n += n;
	return 0;
}

static int supply(void *ctx, void *buf, size_t n, size_t *ret_n, struct gclk_error *reterr)
{
	struct bytes *b = ctx;
	size_t left = b->n - b->read;

	(void)reterr;
	n = n < left ? n : left;
	n = n < b->most ? n : b->most;
	if (n) {
		memcpy(buf, b->at + b->read, n);
	}
	b->read += n;
	*ret_n = n;
	return 0;
}

static bool have_lzop(void)
{
	return system("lzop --version >/dev/null 2>&1") == 0;
}

static struct bytes compress(enum gclk_compression kind, const struct bytes *plain)
{
	struct bytes out = { .most = SIZE_MAX };
	struct gclk_sink sink = { append, &out };
	struct gclk_compressor *c = NULL;

	GCLK_EQ(gclk_compressor_open(kind, &sink, &c, NULL), 0);
	for (size_t at = 0; at < plain->n;) {
		size_t n = 1 + gclk_random_below(100000);

		n = n < plain->n - at ? n : plain->n - at;
		GCLK_EQ(gclk_compressor_write(c, plain->at + at, n, NULL), 0);
		at += n;
	}
	GCLK_EQ(gclk_compressor_finish(c, NULL), 0);
	gclk_compressor_free(c);
	return out;
}

/* The status of the whole reading; what was read is appended to @out. */
static int decompress(enum gclk_compression kind, struct bytes *in, struct bytes *out,
		      struct gclk_error *e)
{
	struct gclk_source source = { supply, in };
	struct gclk_decompressor *d = NULL;
	uint8_t buf[70000];
	size_t n;
	int r;

	in->read = 0;
	r = gclk_decompressor_open(kind, &source, &d, e);
	while (r == 0) {
		r = gclk_decompressor_read(d, buf, 1 + gclk_random_below(sizeof(buf)), &n, e);
		if (r < 0 || !n) {
			break;
		}
		append(out, buf, n, NULL);
	}
	gclk_decompressor_free(d);
	return r;
}

/* Like memory: pages of zeros, of text, of noise. */
static struct bytes new_plain(size_t n)
{
	struct bytes b = { calloc(1, n + 1), n, 0, SIZE_MAX };

	for (size_t i = 0; i < n; i += 4096) {
		unsigned kind = gclk_random_below(3);

		for (size_t k = i; k < i + 4096 && k < n; k++) {
			b.at[k] = kind == 0 ? 0 : kind == 1 ? "guest memory "[k % 13] :
				  (uint8_t)gclk_random();
		}
	}
	return b;
}

static void free_bytes(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){ 0 };
}

GCLK_TEST(compress, there_and_back_is_identity)
{
	for (unsigned kind = 0; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		static const size_t sizes[] = { 0, 1, 4096, 3000001 };

		if (kind == GCLK_COMPRESSION_LZOP && !have_lzop()) {
			continue;
		}
		for (size_t i = 0; i < 4; i++) {
			struct bytes plain = new_plain(sizes[i]), out = { 0 };
			struct bytes packed = compress(kind, &plain);

			packed.most = i == 1 ? 1 : 1 + gclk_random_below(200000);
			GCLK_EQ(decompress(kind, &packed, &out, NULL), 0);
			GCLK_EQ(out.n, plain.n);
			CU_ASSERT(!out.n || !memcmp(out.at, plain.at, plain.n));
			if (kind) {
				GCLK_EQ(gclk_compression_probe(packed.at, packed.n), kind);
			}
			free_bytes(&out);
			free_bytes(&packed);
			free_bytes(&plain);
		}
	}
}

/* What libvirt's programs write we read, and they read what we write. */
GCLK_TEST(compress, programs_agree)
{
	struct bytes plain = new_plain(500000);
	char path[] = "/tmp/gclk-compress-XXXXXX", command[256];
	int fd = mkstemp(path);

	for (unsigned kind = 1; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		struct bytes in = { 0 }, out = { 0 }, packed;
		const char *name = gclk_compression_name(kind);
		uint8_t buf[4096];
		size_t n;
		FILE *f;

		snprintf(command, sizeof(command), "%s --version >/dev/null 2>&1 </dev/null", name);
		if (system(command) != 0) {
			printf("(no %s) ", name);
			continue;
		}
		packed = compress(kind, &plain);
		snprintf(command, sizeof(command), "%s -dc > %s", name, path);
		f = popen(command, "w");
		CU_ASSERT(fwrite(packed.at, 1, packed.n, f) == packed.n);
		GCLK_EQ(pclose(f), 0);
		snprintf(command, sizeof(command), "%s -c < %s", name, path);
		in.most = SIZE_MAX;
		f = popen(command, "r");
		while ((n = fread(buf, 1, sizeof(buf), f)) > 0) {
			append(&in, buf, n, NULL);
		}
		GCLK_EQ(pclose(f), 0);
		GCLK_EQ(decompress(kind, &in, &out, NULL), 0);
		GCLK_EQ(out.n, plain.n);
		CU_ASSERT(out.n == plain.n && !memcmp(out.at, plain.at, plain.n));
		free_bytes(&in);
		free_bytes(&out);
		free_bytes(&packed);
	}
	close(fd);
	unlink(path);
	free_bytes(&plain);
}

GCLK_TEST(compress, members_follow_each_other)
{
	static const enum gclk_compression kinds[] = { 1, 2, 3, 5 };

	for (size_t i = 0; i < 4; i++) {
		struct bytes a = new_plain(5000), b = new_plain(70000), out = { 0 };
		struct bytes packed = compress(kinds[i], &a), more = compress(kinds[i], &b);
		static const uint8_t zeros[512], rest[] = "rest";

		append(&packed, more.at, more.n, NULL);
		append(&packed, zeros, sizeof(zeros), NULL);
		GCLK_EQ(decompress(kinds[i], &packed, &out, NULL), 0);
		GCLK_EQ(out.n, a.n + b.n);
		CU_ASSERT(!memcmp(out.at, a.at, a.n) && !memcmp(out.at + a.n, b.at, b.n));
		append(&packed, rest, 4, NULL);
		GCLK_EQ(decompress(kinds[i], &packed, &out, NULL), -GCLK_MALFORMED);
		free_bytes(&a);
		free_bytes(&b);
		free_bytes(&out);
		free_bytes(&packed);
		free_bytes(&more);
	}
}

GCLK_TEST(compress, truncation_is_noticed_everywhere)
{
	for (unsigned kind = 1; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		struct bytes plain = new_plain(20000), packed;
		size_t whole;

		if (kind == GCLK_COMPRESSION_LZOP && !have_lzop()) {
			free_bytes(&plain);
			continue;
		}
		packed = compress(kind, &plain);
		whole = packed.n;
		for (size_t n = 0; n < whole; n += 1 + whole / (kind == GCLK_COMPRESSION_LZOP ? 5 : 300)) {
			struct bytes out = { 0 };

			packed.n = n;
			CU_ASSERT(decompress(kind, &packed, &out, NULL) < 0);
			CU_ASSERT(out.n <= plain.n);
			free_bytes(&out);
		}
		free_bytes(&plain);
		free_bytes(&packed);
	}
}

GCLK_TEST(compress, damage_is_survived)
{
	for (unsigned kind = 1; kind <= GCLK_COMPRESSION_ZSTD; kind++) {
		struct bytes plain = new_plain(20000), packed;

		if (kind == GCLK_COMPRESSION_LZOP) {	/* its program's business */
			free_bytes(&plain);
			continue;
		}
		packed = compress(kind, &plain);
		for (size_t i = 0; i < packed.n; i += 1 + packed.n / 500) {
			struct bytes out = { 0 };

			packed.at[i] ^= (uint8_t)(1 << gclk_random_below(8));
			(void)decompress(kind, &packed, &out, NULL);
			free_bytes(&out);
		}
		free_bytes(&plain);
		free_bytes(&packed);
	}
}

GCLK_TEST(compress, a_missing_program_is_named)
{
	struct bytes none = { 0 };
	struct gclk_source source = { supply, &none };
	struct gclk_decompressor *d = NULL;
	struct gclk_error e = { 0 };
	char *path = strdup(getenv("PATH"));

	setenv("PATH", "/nonexistent", 1);
	GCLK_EQ(gclk_decompressor_open(GCLK_COMPRESSION_LZOP, &source, &d, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "lzop is not installed"));
	setenv("PATH", path, 1);
	free(path);
}

/* A reader that is given up in the middle leaves no process behind. */
GCLK_TEST(compress, a_program_may_be_given_up)
{
	struct bytes plain = new_plain(2000000), packed;
	struct gclk_decompressor *d = NULL;
	struct gclk_source source;
	uint8_t buf[100];
	size_t n;

	if (!have_lzop()) {
		gclk_test_skip("lzop is not installed");
		free_bytes(&plain);
		return;
	}
	packed = compress(GCLK_COMPRESSION_LZOP, &plain);
	source = (struct gclk_source){ supply, &packed };
	GCLK_EQ(gclk_decompressor_open(GCLK_COMPRESSION_LZOP, &source, &d, NULL), 0);
	GCLK_EQ(gclk_decompressor_read(d, buf, sizeof(buf), &n, NULL), 0);
	gclk_decompressor_free(d);
	free_bytes(&packed);
	free_bytes(&plain);
}

GCLK_TEST(compress, what_needs_too_much_memory_is_refused)
{
	/* An xz of "x" with a dictionary of 64 MiB (xz -9), and a zstd window of 128 MiB. */
	static uint8_t xz9[] = {
		0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00,
		0x21, 0x01, 0x1c, 0x00, 0x00, 0x00, 0x10, 0xcf, 0x58, 0xcc, 0x01, 0x00, 0x00, 0x78,
	};
	static uint8_t zstd27[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00,
	};
	struct bytes in = { xz9, sizeof(xz9), 0, SIZE_MAX }, out = { 0 };

	GCLK_EQ(decompress(GCLK_COMPRESSION_XZ, &in, &out, NULL), -GCLK_UNSUPPORTED);
	in = (struct bytes){ zstd27, sizeof(zstd27), 0, SIZE_MAX };
	GCLK_EQ(decompress(GCLK_COMPRESSION_ZSTD, &in, &out, NULL), -GCLK_UNSUPPORTED);
	free_bytes(&out);
}
