/* SPDX-License-Identifier: MIT */
/*
 * The compressions of libvirt's save and dump images, as pull readers and push
 * writers. gzip, bzip2, xz and zstd are done in process; lzop has no library, so
 * its program is run (no shell).
 */
#ifndef GCLK_IMAGE_COMPRESS_H
#define GCLK_IMAGE_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

/* The numbers are libvirt's, as they stand in the header of a save image. */
enum gclk_compression {
	GCLK_COMPRESSION_NONE = 0,
	GCLK_COMPRESSION_GZIP = 1,
	GCLK_COMPRESSION_BZIP2 = 2,
	GCLK_COMPRESSION_XZ = 3,
	GCLK_COMPRESSION_LZOP = 4,
	GCLK_COMPRESSION_ZSTD = 5,
};

#define GCLK_COMPRESSION_MAGIC_BYTES 9

/* From now on lzop is unsupported: a confined process can run no program. */
void gclk_compression_run_nothing(void);

/* "gzip", ...; "none"; NULL for a number that is none of them. */
const char *gclk_compression_name(enum gclk_compression compression);

/* What the first bytes of a file say; NONE where they say nothing. */
enum gclk_compression gclk_compression_probe(const void *bytes, size_t n);

/* A sequential supply of bytes: a file, a pipe, a decompressor. */
struct gclk_source {
	/*
	 * Up to @n > 0 bytes; *@ret_n = 0 on success means the end, and nothing else does.
	 */
	int (*read)(void *ctx, void *buf, size_t n, size_t *ret_n, struct gclk_error *reterr);
	void *ctx;
};

/* The opposite: takes all @n bytes or fails. */
struct gclk_sink {
	int (*write)(void *ctx, const void *buf, size_t n, struct gclk_error *reterr);
	void *ctx;
};

struct gclk_decompressor;

/**
 * gclk_decompressor_open() - read what a source holds, decompressed
 * @from:	copied; its ctx must outlive the decompressor
 *
 * Members and frames that follow each other are read as one; zeros after the last
 * are padding, anything else is MALFORMED. Memory is bounded: xz with a dictionary
 * and zstd with a window above 32 MiB are refused (UNSUPPORTED).
 *
 * Errors: UNSUPPORTED when lzop is not installed, NOMEM, SYS.
 */
int gclk_decompressor_open(enum gclk_compression compression, const struct gclk_source *from,
			   struct gclk_decompressor **ret, struct gclk_error *reterr);
int gclk_decompressor_read(struct gclk_decompressor *d, void *buf, size_t n, size_t *ret_n,
			   struct gclk_error *reterr);
struct gclk_decompressor *gclk_decompressor_free(struct gclk_decompressor *d);

struct gclk_compressor;

/**
 * gclk_compressor_open() - compress into a sink as libvirt's programs would
 *
 * Levels: gzip 6, bzip2 9, xz 3, zstd 3, lzop its own, all as libvirt calls them.
 */
int gclk_compressor_open(enum gclk_compression compression, const struct gclk_sink *to,
			 struct gclk_compressor **ret, struct gclk_error *reterr);
int gclk_compressor_write(struct gclk_compressor *c, const void *buf, size_t n,
			  struct gclk_error *reterr);
/* Ends the compressed file; nothing may be written afterwards. */
int gclk_compressor_finish(struct gclk_compressor *c, struct gclk_error *reterr);
struct gclk_compressor *gclk_compressor_free(struct gclk_compressor *c);

#endif
