/* SPDX-License-Identifier: MIT */
/*
 * The incremental parser of QEMU migration streams: bytes are pushed in pieces
 * of any size; RAM passes through unlooked-at, the device tail is held.
 *
 *	header  configuration  [commands]  START...  PART...  END...   passed on
 *	FULL x N  EOF  vmdesc                                          held
 *	anything after the vmdesc                                      not consumed
 *
 * Reads x86 precopy streams of QEMU 4.2 to 10.2, and the main channel of a
 * multifd migration. Nothing here waits for the end of input: the stream is
 * complete with the last byte of its vmdesc.
 */
#ifndef GCLK_IMAGE_QEMU_STREAM_H
#define GCLK_IMAGE_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "image/qemu/grant.h"
#include "image/qemu/vmdesc.h"

/*
 * Default limit: with the longest description and its model a hostile stream stays
 * below 50 MiB; a guest of 1024 vCPUs needs about 18 MiB.
 */
#define GCLK_STREAM_TAIL_BYTES (24u << 20)

#define GCLK_STREAM_MORE 1	/* a positive result: the stream goes on */

struct gclk_stream;
struct gclk_tail;

/* One block of guest RAM, as the setup of `ram` announces it. */
struct gclk_stream_block {
	char name[256];
	uint64_t length;	/* bytes */
	uint64_t guest_address;	/* only with x-ignore-shared, else UINT64_MAX */
	uint64_t page_size;	/* 0 where the stream does not say */
};

/* What stands before the RAM. Complete once gclk_stream_phase() is past SETUP. */
struct gclk_stream_head {
	char machine[256];	/* "pc-i440fx-7.2"; "" without a configuration */
	bool has_configuration;
	bool ignore_shared;	/* capability x-ignore-shared: no shared RAM in here */
	bool has_uuid;
	uint8_t uuid[16];
	bool return_path;	/* OPEN_RETURN_PATH was seen */
	bool one_way;		/* the first section began without it */
	bool postcopy_advised;	/* POSTCOPY_ADVISE was seen: it may, but need not, come */
	bool has_footers;	/* known with the end of the first section */
	size_t n_blocks;
	struct gclk_stream_block *blocks;
};

enum gclk_stream_phase {
	GCLK_STREAM_HEAD,	/* header, configuration, commands */
	GCLK_STREAM_SETUP,	/* START sections */
	GCLK_STREAM_ROUNDS,	/* after the setup of `ram`: PART; the guest may run */
	GCLK_STREAM_FINAL,	/* an END section was seen: the guest is stopped */
	GCLK_STREAM_DEVICES,	/* the tail is being held */
	GCLK_STREAM_DONE,
	GCLK_STREAM_FAILED,
};

/*
 * A record of one guest page, for those who need to look at a page of RAM. The
 * last record of a page wins. @bytes is @n bytes as on the wire: the fill byte of
 * ZERO, 4096 bytes of PAGE, encoded bytes of the others.
 */
enum gclk_ram_kind { GCLK_RAM_ZERO, GCLK_RAM_PAGE, GCLK_RAM_XBZRLE, GCLK_RAM_ZLIB };

struct gclk_ram_record {
	enum gclk_ram_kind kind;
	const char *block;
	uint64_t offset;	/* in the block, a multiple of 4096 */
	const uint8_t *bytes;
	size_t n;
};

/*
 * @want:	asked for every page record; says whether @record is to be called
 * @record:	shown a wanted record; a negative status fails the push
 * @watch:	optional, for speed: whoever wants no others of whole and zero pages says so,
 *		and is not asked about them; it is looked at anew in each push
 */
struct gclk_ram_visitor {
	const struct gclk_page_watch *watch;
	bool (*want)(void *ctx, const char *block, uint64_t offset);
	int (*record)(void *ctx, const struct gclk_ram_record *r,
		      struct gclk_error *reterr);
	void *ctx;
};

struct gclk_stream_options {
	size_t tail_bytes;		/* limit on the tail; 0 for the default */
	struct gclk_ram_visitor ram;	/* want == NULL: nobody looks */
};

/**
 * gclk_stream_new() - a parser at the first byte of a stream
 * @options:	copied; NULL for the defaults
 *
 * Errors: NOMEM.
 */
int gclk_stream_new(const struct gclk_stream_options *options, struct gclk_stream **ret,
		    struct gclk_error *reterr);

/* Accepts NULL, returns NULL. */
struct gclk_stream *gclk_stream_free(struct gclk_stream *s);

/*
 * What a push made of its bytes, in this order: @passed ones are of no interest
 * and may go on, @held ones are now in the tail, the rest is not consumed.
 */
struct gclk_stream_taken { size_t passed, held; };

/**
 * gclk_stream_push() - the next bytes of the stream
 * @bytes:	any number of them, also 0
 * @ret:	how the bytes divide
 *
 * Returns GCLK_STREAM_MORE when all bytes were consumed and the stream goes on,
 * 0 when it is complete: bytes behind the vmdesc belong to the caller, and later
 * pushes consume nothing.
 *
 * Errors: as below, each with the offset in the stream of the byte that shows it;
 * nothing of this push is then consumed, and every later push fails alike.
 *   MALFORMED    not a QEMU stream, or it contradicts itself
 *   VERSION      a stream, section or record version that is not known
 *   UNSUPPORTED  recognised but not readable: postcopy, mapped-ram, RDMA, COLO,
 *                TLS, a multifd side channel, xen-save-devices-state, an unknown
 *                iterable, a tail beyond the limit
 *   NOMEM
 */
int gclk_stream_push(struct gclk_stream *s, const void *bytes, size_t n,
		     struct gclk_stream_taken *ret, struct gclk_error *reterr);

/**
 * gclk_stream_end() - the input has ended; was that the end of the stream?
 *
 * Returns 0 when the stream is complete. Errors: TRUNCATED, naming what was being
 * read; UNSUPPORTED where the device state ended without a vmdesc that fits it
 * (suppressed, as for machine types up to 2.2); the earlier error of a failed push.
 */
int gclk_stream_end(struct gclk_stream *s, struct gclk_error *reterr);

/*
 * What need not be pushed of what comes next. Who has let @n bytes go by such a grant says
 * so before the next push, with what is left of .rest.
 */
void gclk_stream_grant(const struct gclk_stream *s, struct gclk_grant *ret);
void gclk_stream_went(struct gclk_stream *s, uint64_t n, uint64_t rest);

enum gclk_stream_phase gclk_stream_phase(const struct gclk_stream *s);

/* Bytes consumed so far = the stream offset of the next one. */
uint64_t gclk_stream_offset(const struct gclk_stream *s);

/* Borrowed, valid while @s lives; fields fill in as the stream goes by. */
const struct gclk_stream_head *gclk_stream_head(const struct gclk_stream *s);

/* Moves the head out of @s, which can then only be freed; the caller frees its blocks. */
void gclk_stream_take_head(struct gclk_stream *s, struct gclk_stream_head *ret);

/*
 * The bytes held so far, for a caller that gives up on the stream and passes it
 * untouched. Borrowed until the next call on @s.
 */
const uint8_t *gclk_stream_held(const struct gclk_stream *s, size_t *ret_n);

/**
 * gclk_stream_take_tail() - move the tail out of a complete stream
 * @ret:	as gclk_tail_read() would give it; free with gclk_tail_free()
 *
 * Errors: STATE while the stream is not complete, or taken before.
 */
int gclk_stream_take_tail(struct gclk_stream *s, struct gclk_tail **ret,
			  struct gclk_error *reterr);

#endif
