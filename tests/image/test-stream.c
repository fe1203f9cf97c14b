/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/pvclock.h"
#include "core/util.h"
#include "gclk-test.h"
#include "image/qemu/page.h"
#include "image/qemu/stream.h"
#include "image/qemu/tail.h"
#include "stream-writer.h"

/* What came of pushing a stream. */
struct result {
	int status;			/* 0, GCLK_STREAM_MORE or negative */
	int end;			/* of gclk_stream_end() */
	struct gclk_error error, end_error;
	size_t consumed, held, granted;
	struct gclk_tail *tail;
};

/* GRANTED: random pieces, of which what need not be shown is not. */
enum cut { CUT_WHOLE, CUT_BYTES, CUT_RANDOM, CUT_GRANTED, N_CUTS };

static size_t piece(enum cut cut, size_t left)
{
	size_t n = cut == CUT_WHOLE ? left : cut == CUT_BYTES ? 1 :
		   (size_t)gclk_random_bits() % 5000;

	return n < left ? n : left;
}

/* How many of the next bytes go without being shown. */
static size_t go_by_grant(struct gclk_stream *s, const uint8_t *p, size_t n)
{
	struct gclk_grant grant;
	size_t went;

	gclk_stream_grant(s, &grant);
	went = gclk_grant_use(&grant, p, n);
	CU_ASSERT_FATAL(went <= n);
	gclk_stream_went(s, went, grant.rest);
	return went;
}

/* Pushes all of @b; whatever is not passed must come out of the tail, byte by byte. */
static struct result push(const struct bytes *b, enum cut cut,
			  const struct gclk_stream_options *options)
{
	struct result r = { .status = GCLK_STREAM_MORE };
	struct gclk_stream *s = NULL;
	struct bytes out = { 0 };

	CU_ASSERT_FATAL(gclk_stream_new(options, &s, NULL) == 0);
	while (r.status > 0 && r.consumed < b->n) {
		struct gclk_stream_taken taken = { 0, 0 };
		size_t n = piece(cut, b->n - r.consumed), went = 0;
		/* a copy of exactly n bytes: reading beyond them is caught */
		uint8_t *copy = malloc(n ? n : 1);

		memcpy(copy, b->p + r.consumed, n);
		if (cut == CUT_GRANTED && n) {
			went = go_by_grant(s, copy, n);
			put(&out, copy, went);
			r.consumed += went;
			r.granted += went;
			n -= went;
		}
		r.status = gclk_stream_push(s, copy + went, n, &taken, &r.error);
		free(copy);
		if (r.status < 0) {
			break;
		}
		CU_ASSERT_FATAL(taken.passed + taken.held <= n);
		CU_ASSERT(!r.held || !taken.passed);
		CU_ASSERT(r.status == 0 || taken.passed + taken.held == n);
		put(&out, b->p + r.consumed, taken.passed);
		r.consumed += taken.passed + taken.held;
		r.held += taken.held;
		GCLK_EQ(gclk_stream_offset(s), r.consumed);
	}
	r.end = gclk_stream_end(s, &r.end_error);
	if (r.status == 0) {
		CU_ASSERT(gclk_stream_take_tail(s, &r.tail, NULL) == 0);
		CU_ASSERT(gclk_stream_take_tail(s, &r.tail, NULL) == -GCLK_STATE);
		GCLK_EQ(r.tail->offset, out.n);
		put(&out, r.tail->bytes, r.tail->size);
		GCLK_EQ(out.n, r.consumed);
		CU_ASSERT(!memcmp(out.p, b->p, out.n));	/* the identity */
	}
	bytes_free(&out);
	gclk_stream_free(s);
	return r;
}

static struct gclk_tail *expect_complete(const struct bytes *b, enum cut cut)
{
	struct result r = push(b, cut, NULL);

	if (r.status) {
		printf("\n    %d: %s at %lld [%s] / %s\n", r.status, r.error.message,
		       (long long)r.error.offset, r.error.where, r.end_error.message);
	}
	GCLK_EQ(r.status, 0);
	GCLK_EQ(r.end, 0);
	return r.tail;
}

/* With @b pushed in any pieces, the same refusal at the same place. */
static void expect_refused(const struct bytes *b, int status, size_t offset,
			   const char *word)
{
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct result r = push(b, (enum cut)cut, NULL);

		GCLK_EQ(r.status, -status);
		GCLK_EQ(r.error.offset, offset);
		if (!strstr(r.error.message, word)) {
			printf("\n    '%s' is not in: %s\n", word, r.error.message);
		}
		CU_ASSERT(strstr(r.error.message, word) != NULL);
		GCLK_EQ(r.end, r.status);
		gclk_tail_free(r.tail);
	}
}

GCLK_TEST(stream, small_stream_in_pieces_of_every_size)
{
	for (int dialect = 0; dialect < N_DIALECTS; dialect++) {
		for (int i = 0; i < 2 * N_CUTS; i++) {
			struct bytes b = { 0 };
			size_t at = put_small_stream(&b, (enum dialect)dialect, i & 1);
			struct gclk_tail *tail = expect_complete(&b, (enum cut)(i / 2));

			CU_ASSERT_PTR_NOT_NULL_FATAL(tail);
			GCLK_EQ(tail->offset, at);
			GCLK_EQ(tail->offset + tail->size, b.n);
			GCLK_EQ(tail->head.has_footers, i & 1);
			GCLK_EQ(tail->head.return_path, 1);
			GCLK_EQ(tail->head.n_blocks, 2);
			CU_ASSERT_STRING_EQUAL(tail->head.blocks[1].name, "pc.bios");
			GCLK_EQ(tail->head.blocks[1].length, 0x4000);
			CU_ASSERT_STRING_EQUAL(tail->head.machine,
					       i & 1 ? "pc-i440fx-7.2" : "");
			CU_ASSERT_PTR_NOT_NULL(
				gclk_vmdesc_find(tail->desc, "hpet", 0, NULL));
			gclk_tail_free(tail);
			bytes_free(&b);
		}
	}
}

/* Complete with its last byte, not before and not by an end of input. */
GCLK_TEST(stream, done_with_the_last_byte_and_trailing_bytes_stay)
{
	struct bytes b = { 0 };
	size_t end;

	put_small_stream(&b, DIALECT_7_2, true);
	end = b.n;
	put_text(&b, "something behind it \0\6\0\0\0\2{}");
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct result r = push(&b, (enum cut)cut, NULL);

		GCLK_EQ(r.status, 0);
		GCLK_EQ(r.consumed, end);
		gclk_tail_free(r.tail);
	}
	b.n = end - 1;
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct result r = push(&b, (enum cut)cut, NULL);

		GCLK_EQ(r.status, GCLK_STREAM_MORE);
		GCLK_EQ(r.end, -GCLK_TRUNCATED);
	}
	bytes_free(&b);
}

GCLK_TEST(stream, truncated_at_every_offset)
{
	struct bytes b = { 0 };
	size_t tail = put_small_stream(&b, DIALECT_7_2, true), n = b.n;

	for (b.n = 0; b.n < n; b.n++) {
		struct result r = push(&b, CUT_WHOLE, NULL);

		GCLK_EQ(r.status, GCLK_STREAM_MORE);
		/* where the device state just ended it may be one without description */
		if (r.end != -GCLK_TRUNCATED) {
			GCLK_EQ(r.end, -GCLK_UNSUPPORTED);
			CU_ASSERT(b.n > tail && b.p[b.n - 1] == 0);
		}
		GCLK_EQ(r.end_error.offset, b.n);
		CU_ASSERT(r.end_error.message[0] != 0);
	}
	bytes_free(&b);
}

/* Any flipped bit: an error that says where, a longer wait, or a correct reading. */
GCLK_TEST(stream, every_bit_flipped)
{
	struct bytes b = { 0 };
	size_t tail = put_small_stream(&b, DIALECT_7_2, true);
	unsigned refused = 0, read = 0, waiting = 0;

	for (size_t at = 0; at < b.n * 8; at++) {
		struct result r;

		b.p[at / 8] ^= (uint8_t)(1u << at % 8);
		r = push(&b, CUT_WHOLE, NULL);
		b.p[at / 8] ^= (uint8_t)(1u << at % 8);
		if (r.status == 0) {
			read++;
			GCLK_EQ(r.tail->offset, tail);
			GCLK_EQ(r.consumed, b.n);
		} else if (r.status < 0) {
			refused++;
			CU_ASSERT(r.error.message[0] && r.error.offset <= b.n);
		} else {
			waiting++;
			CU_ASSERT(r.end < 0 && r.end_error.message[0]);
		}
		gclk_tail_free(r.tail);
	}
	CU_ASSERT(refused > 500 && read > 1000 && waiting > 100);
	bytes_free(&b);
}

GCLK_TEST(stream, random_bytes_behind_any_prefix)
{
	struct bytes b = { 0 };
	size_t n;

	put_small_stream(&b, DIALECT_7_2, true);
	n = b.n;
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		struct bytes c = { 0 };
		struct result r;

		put(&c, b.p, (size_t)gclk_random_below(n));
		put_random(&c, (size_t)gclk_random_below(3000));
		r = push(&c, CUT_RANDOM, NULL);
		CU_ASSERT(r.status != 0);
		CU_ASSERT(r.status > 0 || r.error.message[0]);
		bytes_free(&c);
	}
	bytes_free(&b);
}

/* --- refused by name --- */

static size_t begin(struct bytes *b)
{
	*b = (struct bytes){ 0 };
	put_header(b, "pc-q35-10.2");
	return b->n;
}

static void begin_ram(struct bytes *b, uint64_t length)
{
	begin(b);
	put_start(b, 3, "ram", 0, 4);
	put64(b, length | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, length);
	put_eos(b);
	put_footer(b, 3);
}

static void refuse_bytes(const void *p, size_t n, int status, size_t offset,
			 const char *word)
{
	struct bytes b = { 0 };

	put(&b, p, n);
	put_zero(&b, 64);
	expect_refused(&b, status, offset, word);
	bytes_free(&b);
}

GCLK_TEST(stream, other_protocols_are_recognised)
{
	refuse_bytes("\x16\x03\x01\x02", 4, GCLK_UNSUPPORTED, 0, "TLS");
	refuse_bytes("\x11\x22\x33\x44\0\0\0\1", 8, GCLK_UNSUPPORTED, 0, "multifd");
	refuse_bytes("QEVM\0\0\0\2", 8, GCLK_VERSION, 4, "version 2");
	refuse_bytes("QEVN\0\0\0\3", 8, GCLK_MALFORMED, 0, "not a QEMU migration stream");
	refuse_bytes("LibvirtQemudSave", 16, GCLK_MALFORMED, 0,
		     "not a QEMU migration stream");
}

GCLK_TEST(stream, commands_of_postcopy_and_colo_are_refused)
{
	static const struct { unsigned number; const char *word;
	} refused[] = {
		{ 4, "POSTCOPY_LISTEN" },
		{ 5, "POSTCOPY_RUN" },
		{ 6, "POSTCOPY_RAM_DISCARD" },
		{ 7, "PACKAGED" },
		{ 8, "COLO" },
		{ 9, "POSTCOPY_RESUME" },
		{ 10, "RECV_BITMAP" },
		{ 0, "command 0" },
		{ 12, "command 12" },
		{ 65535, "command 65535" },
	};

	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct bytes b;
		size_t at;

		begin_ram(&b, 0x2000);
		at = b.n;
		put_command(&b, refused[i].number, "\0\0\1\0", 4);
		expect_refused(&b, GCLK_UNSUPPORTED, at, refused[i].word);
		bytes_free(&b);
	}
}

GCLK_TEST(stream, command_with_a_wrong_length)
{
	struct bytes b;
	size_t at = begin(&b);

	put_command(&b, 2, "12345", 5);
	expect_refused(&b, GCLK_MALFORMED, at, "PING");
	bytes_free(&b);
}

static void put_config_subsection(struct bytes *b, const char *name, uint32_t version)
{
	put8(b, 5);
	put_name(b, name);
	put32(b, version);
}

GCLK_TEST(stream, capabilities_that_change_the_stream)
{
	struct bytes b;
	size_t at;

	begin(&b);
	put_config_subsection(&b, "configuration/capabilities", 1);
	put32(&b, 2);
	put_name(&b, "x-ignore-shared");
	put8(&b, 10);
	at = b.n;
	put_text(&b, "mapped-ram");
	expect_refused(&b, GCLK_UNSUPPORTED, at, "mapped-ram");
	bytes_free(&b);

	begin(&b);
	put_config_subsection(&b, "configuration/capabilities", 1);
	put32(&b, 1);
	put8(&b, 3);
	at = b.n;
	put_text(&b, "new");
	expect_refused(&b, GCLK_UNSUPPORTED, at, "'new'");
	bytes_free(&b);

	at = begin(&b) + 2;
	put_config_subsection(&b, "configuration/other", 1);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "configuration/other");
	bytes_free(&b);

	begin(&b);
	put_config_subsection(&b, "configuration/target-page-bits", 1);
	at = b.n;
	put32(&b, 16);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "2^16");
	bytes_free(&b);
}

GCLK_TEST(stream, state_without_ram_or_of_unknown_parts)
{
	struct bytes b = { 0 };
	size_t at;

	put_header(&b, NULL);	/* xen-save-devices-state */
	at = b.n + 6;
	put8(&b, 4);
	put32(&b, 0);
	put_name(&b, "timer");
	put64(&b, 2);
	put_zero(&b, 30);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "xen-save-devices-state");
	bytes_free(&b);

	at = begin(&b) + 6;
	put_start(&b, 1, "spapr/htab", 0, 1);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "'spapr/htab'");
	bytes_free(&b);

	at = begin(&b) + 6;
	put_start(&b, 1, "ram", 0, 3);
	expect_refused(&b, GCLK_VERSION, at, "version 3");
	bytes_free(&b);

	begin_ram(&b, 0x2000);
	at = b.n + 6;
	put8(&b, 4);
	put32(&b, 9);
	put_name(&b, "cpu");
	put64(&b, 12);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "'cpu'");
	bytes_free(&b);

	begin_ram(&b, 0x2000);
	at = b.n;
	put8(&b, 0);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "without any device");
	bytes_free(&b);

	begin_ram(&b, 0x2000);
	at = b.n;
	put_part(&b, 2, 4);
	expect_refused(&b, GCLK_MALFORMED, at, "number 4");
	bytes_free(&b);
}

/* One RAM record that is wrong, after a good setup. @at counts from its first byte. */
static void refuse_record(const struct bytes *record, int status, size_t at,
			  const char *word)
{
	struct bytes b;

	begin_ram(&b, 0x2000);
	put_part(&b, 2, 3);
	at += b.n;
	put(&b, record->p, record->n);
	put_zero(&b, 64);
	expect_refused(&b, status, at, word);
	bytes_free(&b);
}

GCLK_TEST(stream, bad_ram_records)
{
	static const unsigned flags[] = {
		0, 1, 0x400, 0x800, W_PAGE | W_ZERO, W_CONTINUE
	};
	struct bytes r = { 0 };

	put64(&r, W_HOOK | W_CONTINUE);
	refuse_record(&r, GCLK_UNSUPPORTED, 0, "RDMA");
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		r.n = 0;
		put64(&r, flags[i]);
		refuse_record(&r, GCLK_UNSUPPORTED, 0, "flags");
	}
	r.n = 0;
	put_page_word(&r, NULL, 0, W_PAGE);
	refuse_record(&r, GCLK_MALFORMED, 0, "none was before");
	r.n = 0;
	put_page_word(&r, "other", 0, W_PAGE);
	refuse_record(&r, GCLK_MALFORMED, 9, "'other'");
	r.n = 0;
	put_page_word(&r, "pc.ram", 0x2000, W_PAGE);
	refuse_record(&r, GCLK_MALFORMED, 9, "0x2000");
	r.n = 0;
	put_page_word(&r, "pc.ram", UINT64_C(1) << 63, W_ZERO);
	refuse_record(&r, GCLK_MALFORMED, 9, "0x8000000000000000");
	r.n = 0;
	put_page_word(&r, "pc.ram", 0, W_XBZRLE);
	put(&r, "\1\x10\1", 3);
	refuse_record(&r, GCLK_MALFORMED, 15, "4097");
	r.n = 0;
	put_page_word(&r, "pc.ram", 0, W_XBZRLE);
	put(&r, "\2\0\1", 3);
	refuse_record(&r, GCLK_VERSION, 15, "encoding 2");
	r.n = 0;
	put_page_word(&r, "pc.ram", 0, W_ZLIB);
	put32(&r, UINT32_MAX);
	refuse_record(&r, GCLK_MALFORMED, 15, "4294967295");
	r.n = 0;
	put64(&r, 0x1000 | W_MEM_SIZE);
	refuse_record(&r, GCLK_MALFORMED, 0, "list of RAM blocks");
	bytes_free(&r);
}

GCLK_TEST(stream, bad_block_list)
{
	struct bytes b;
	size_t at;

	begin(&b);
	put_start(&b, 3, "ram", 0, 4);
	put64(&b, (UINT64_C(1) << 63) | W_MEM_SIZE);
	at = b.n + 1;
	put_name(&b, "pc.ram");
	put64(&b, UINT64_MAX);
	expect_refused(&b, GCLK_MALFORMED, at, "0x8000000000000000");
	b.n = at - 1;
	put_name(&b, "a\x1b[2J");
	put64(&b, 0x1000);
	expect_refused(&b, GCLK_MALFORMED, at, "0x1b");
	b.n = at - 1;
	put_name(&b, "");
	expect_refused(&b, GCLK_MALFORMED, at - 1, "without a name");
	b.n = at - 1;
	for (unsigned i = 0; i < 5000; i++) {
		put_name(&b, "b");
		put64(&b, 0);
	}
	expect_refused(&b, GCLK_UNSUPPORTED, at + 4096 * 10, "4096 RAM blocks");
	bytes_free(&b);
}

/* --- the variants of the setup --- */

/* After the setup of `ram` with what @list has: any devices, complete. */
static struct gclk_tail *finish(struct bytes *b, bool footers, enum cut cut)
{
	struct gclk_tail *tail;
	struct devices d;

	put_part(b, 3, 3);
	put_eos(b);
	if (footers) {
		put_footer(b, 3);
	}
	devices_begin(&d, DIALECT_7_2, footers);
	put_small_devices(&d);
	devices_end(&d, b);
	tail = expect_complete(b, cut);
	CU_ASSERT_PTR_NOT_NULL_FATAL(tail);
	bytes_free(b);
	return tail;
}

static void put_advise(struct bytes *b, uint64_t page_sizes)
{
	uint8_t data[16];

	gclk_put_be64(data, page_sizes);
	gclk_put_be64(data + 8, 4096);
	put_command(b, 3, data, 16);
}

struct block { const char *name; uint64_t length, page_size, address; };

static const struct block blocks[] = {
	{ "a", 0x1000, 0, 0 },
	{ "mem0", 0x400000, 0x200000, 0x200000 },
	{ "bios", 0x40000, 0, 0xfffc0000 },
	{ "mem1", 0x400000, 0x200000, 0 },
};

static void check_list(bool shared, bool advised, size_t first, size_t n, bool footers,
		       enum cut cut)
{
	struct bytes b = { 0 };
	struct gclk_tail *tail;
	uint64_t total = 0;

	put_header(&b, "pc");
	if (shared) {
		put_config_subsection(&b, "configuration/capabilities", 1);
		put32(&b, 1);
		put_name(&b, "x-ignore-shared");
	}
	if (advised) {
		put_advise(&b, 0x201000);
	}
	for (size_t i = first; i < first + n; i++) {
		total += blocks[i].length;
	}
	put_start(&b, 3, "ram", 0, 4);
	put64(&b, total | W_MEM_SIZE);
	for (size_t i = first; i < first + n; i++) {
		put_name(&b, blocks[i].name);
		put64(&b, blocks[i].length);
		if (advised && blocks[i].page_size) {
			put64(&b, blocks[i].page_size);
		}
		if (shared) {
			put64(&b, blocks[i].address);
		}
	}
	if (advised) {
		put64(&b, W_FLUSH);
	}
	put_eos(&b);
	if (footers) {
		put_footer(&b, 3);
	}
	tail = finish(&b, footers, cut);
	GCLK_EQ(tail->head.ignore_shared, shared);
	GCLK_EQ(tail->head.postcopy_advised, advised);
	GCLK_EQ(tail->head.n_blocks, n);
	for (size_t i = 0; i < n; i++) {
		const struct gclk_stream_block *block = &tail->head.blocks[i];
		const struct block *want = &blocks[first + i];

		CU_ASSERT_STRING_EQUAL(block->name, want->name);
		GCLK_EQ(block->length, want->length);
		GCLK_EQ(block->page_size, advised ? want->page_size : 0);
		GCLK_EQ(block->guest_address, shared ? want->address : UINT64_MAX);
	}
	gclk_tail_free(tail);
}

GCLK_TEST(stream, block_lists_with_and_without_page_sizes_and_addresses)
{
	for (unsigned i = 0; i < 16 * N_CUTS; i++) {
		bool shared = i & 1, advised = i & 2, footers = i & 4;

		if (i & 8) {
			check_list(shared, advised, 0, 4, footers, (enum cut)(i / 16));
		} else {
			check_list(shared, advised, 0, 3, footers, (enum cut)(i / 16));
			check_list(shared, advised, 1, 1, footers, (enum cut)(i / 16));
		}
	}
}

GCLK_TEST(stream, configuration_with_everything)
{
	struct bytes b = { 0 };
	struct gclk_tail *tail;

	put_header(&b, "pc-q35-9.2");
	put_config_subsection(&b, "configuration/target-page-bits", 1);
	put32(&b, 12);
	put_config_subsection(&b, "configuration/capabilities", 1);
	put32(&b, 0);
	put_config_subsection(&b, "configuration/uuid", 1);
	put_text(&b, "0123456789abcdef");
	put_command(&b, 3, NULL, 0);	/* dirty bitmaps only */
	put_start(&b, 3, "ram", 0, 4);
	put64(&b, 0x1000 | W_MEM_SIZE);
	put_name(&b, "r");
	put64(&b, 0x1000);
	put_eos(&b);
	put_footer(&b, 3);
	tail = finish(&b, true, CUT_RANDOM);
	CU_ASSERT(tail->head.has_uuid &&
		  !memcmp(tail->head.uuid, "0123456789abcdef", 16));
	CU_ASSERT(tail->head.has_configuration && !tail->head.ignore_shared);
	gclk_tail_free(tail);
}

/* --- other iterables, between the parts of ram --- */

static void put_bitmaps(struct bytes *b)
{
	put8(b, 0x08 | 0x04 | 0x10);		/* node, bitmap, START */
	put_name(b, "node0");
	put_name(b, "bitmap0");
	put32(b, 65536);
	put8(b, 3);
	put8(b, 0x04 | 0x10);			/* a name as long as what follows */
	put_name(b, "12345");
	put32(b, 65536);
	put8(b, 3);
	put8(b, 0x40 | 0x08);			/* BITS */
	put_name(b, "n");
	put64(b, 0);
	put32(b, 128);
	put64(b, 11);
	put_text(b, "\1\x40\x20 bitmaps");	/* bytes that are flags elsewhere */
	put16(b, 0x8000 | 0x40 | 0x02);		/* long flags: BITS of zeroes */
	put64(b, 128);
	put32(b, 128);
	put32(b, 0x80800000 | 0x20);		/* longer flags: COMPLETE */
	put8(b, 0x01);
}

static void put_disk(struct bytes *b)
{
	put64(b, 8 << 9 | 0x1);
	put_name(b, "drive0");
	put_random(b, 1 << 20);
	put64(b, 16 << 9 | 0x1 | 0x8);
	put_name(b, "drive0");
	put64(b, 50 << 9 | 0x4);
	put64(b, 0x2);
}

#define VFIO(n) (UINT64_C(0xffffffffef100000) | (n))

static void put_vfio_config(struct bytes *b)
{
	put64(b, VFIO(2));
	put_text(b, "opaque ");
	put64(b, VFIO(1));			/* not the end: another footer */
	put_footer(b, 77);
	put64(b, VFIO(1));
}

GCLK_TEST(stream, bitmaps_disks_and_vfio)
{
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct gclk_tail *tail;
		struct bytes b;

		begin(&b);
		put8(&b, 4);			/* early device */
		put32(&b, 50);
		put_name(&b, "0000:00:03.0/virtio-mem-device-early");
		put32(&b, 0);
		put32(&b, 1);
		put64(&b, 0x100000000);
		put64(&b, 200 << 21);		/* 200 blocks: 4 words */
		put64(&b, 1 << 21);
		put32(&b, 0);
		put64(&b, 0);
		put_random(&b, 32);
		put_footer(&b, 50);
		put_start(&b, 1, "block", 0, 1);
		put64(&b, 0x2);
		put_footer(&b, 1);
		put_start(&b, 3, "ram", 0, 4);
		put64(&b, 0x1000 | W_MEM_SIZE);
		put_name(&b, "r");
		put64(&b, 0x1000);
		put_eos(&b);
		put_footer(&b, 3);
		put_start(&b, 2, "dirty-bitmap", 0, 1);
		put_bitmaps(&b);
		put_footer(&b, 2);
		put_start(&b, 5, "0000:00:02.0:00.0/vfio", 0, 1);
		put64(&b, VFIO(3));
		put64(&b, VFIO(1));
		put_footer(&b, 5);
		put_part(&b, 2, 1);
		put_disk(&b);
		put_footer(&b, 1);
		put_part(&b, 2, 5);
		put64(&b, VFIO(4));
		put64(&b, 100);
		put_random(&b, 100);
		put64(&b, VFIO(5));		/* initial data sent: ends the part */
		put_footer(&b, 5);
		put_part(&b, 3, 5);
		put64(&b, VFIO(4));
		put64(&b, 0);
		put_vfio_config(&b);
		put_footer(&b, 5);
		put_part(&b, 3, 1);
		put64(&b, 0x2);
		put_footer(&b, 1);
		put_part(&b, 3, 2);
		put_bitmaps(&b);
		put_footer(&b, 2);
		tail = finish(&b, true, (enum cut)cut);
		gclk_tail_free(tail);
	}
}

GCLK_TEST(stream, bad_parts_of_other_iterables)
{
	struct bytes b;
	size_t at;

	begin(&b);
	put_start(&b, 2, "dirty-bitmap", 0, 1);
	at = b.n;
	put8(&b, 0x30);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "0x30");
	bytes_free(&b);
	begin(&b);
	put_start(&b, 2, "block", 0, 1);
	at = b.n;
	put64(&b, 0x10);
	expect_refused(&b, GCLK_UNSUPPORTED, at, "0x010");
	bytes_free(&b);
	begin(&b);
	put_start(&b, 2, "vfio", 0, 1);
	at = b.n;
	put64(&b, VFIO(9));
	expect_refused(&b, GCLK_MALFORMED, at, "vfio tag");
	b.n = at;
	put64(&b, VFIO(2));
	expect_refused(&b, GCLK_UNSUPPORTED, at, "without footers");
	b.n = at;
	put64(&b, VFIO(1));
	put_footer(&b, 3);
	expect_refused(&b, GCLK_MALFORMED, at + 8, "number 2 should end");
	bytes_free(&b);
}

/* A length of 2^64-1 in a stream is a wait, not a crash. */
GCLK_TEST(stream, immense_lengths)
{
	struct bytes b;
	struct result r;

	begin(&b);
	put_start(&b, 2, "vfio", 0, 1);
	put64(&b, VFIO(4));
	put64(&b, UINT64_MAX);
	put_random(&b, 5000);
	r = push(&b, CUT_RANDOM, NULL);
	GCLK_EQ(r.status, GCLK_STREAM_MORE);
	GCLK_EQ(r.end, -GCLK_TRUNCATED);
	bytes_free(&b);
	begin(&b);
	put8(&b, 4);
	put32(&b, 50);
	put_name(&b, "virtio-mem-device-early");
	put32(&b, 0);
	put32(&b, 1);
	put64(&b, 0);
	put64(&b, UINT64_MAX);
	put64(&b, 0);
	put_zero(&b, 12);
	r = push(&b, CUT_RANDOM, NULL);
	GCLK_EQ(r.status, -GCLK_MALFORMED);
	bytes_free(&b);
}

/* --- finding the description --- */

static void begin_devices(struct bytes *b, struct devices *d)
{
	begin_ram(b, 0x1000);
	put_part(b, 3, 3);
	put_eos(b);
	put_footer(b, 3);
	devices_begin(d, DIALECT_7_2, true);
}

/* Device state that holds whatever a guest may have put there. */
GCLK_TEST(stream, things_that_look_like_a_description)
{
	struct bytes other = { 0 }, trap = { 0 };
	size_t tail = put_small_stream(&other, DIALECT_7_2, true);

	put_footer(&trap, 1);
	put(&trap, "\0\6\0\xff\xff\xff{", 7);		/* longer than what follows */
	put_footer(&trap, 1);
	put(&trap, "\0\6\0\0\0\2{}", 8);		/* JSON, but no description */
	put_footer(&trap, 1);
	put(&trap, "\0\6\0\0\0\3{x}", 9);		/* no JSON */
	put_footer(&trap, 1);
	put(&trap, "\0\6\0\0\0\x0f{\"devices\": []}", 21);
	put(&trap, other.p + tail + 30,
	    other.n - tail - 30); /* the end of another guest */
	put(&trap, "\0\6\0\6\0\6\0\6\0\0\0\0\6", 13);
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct bytes b;
		struct devices d;
		struct gclk_tail *t;

		begin_devices(&b, &d);
		device_opaque(&d, "slirp", 0, trap.p, trap.n);
		put_small_devices(&d);
		devices_end(&d, &b);
		t = expect_complete(&b, (enum cut)cut);
		CU_ASSERT_PTR_NOT_NULL_FATAL(t);
		GCLK_EQ(t->offset + t->size, b.n);
		GCLK_EQ(gclk_vmdesc_n_sections(t->desc), 8);
		gclk_tail_free(t);
		bytes_free(&b);
	}
	bytes_free(&other);
	bytes_free(&trap);
}

GCLK_TEST(stream, a_description_that_does_not_fit_is_refused_with_the_reason)
{
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct bytes b;
		struct devices d;
		struct result r;
		size_t at;

		begin_devices(&b, &d);
		at = b.n;
		device_begin(&d, "first", 0, "first", 1);
		field_be(&d, "x", "uint64", 1, 8);
		device_end(&d);
		device_begin(&d, "second", 0, "second", 1);
		field_be(&d, "x", "uint64", 1, 8);
		put8(&d.bytes, 0x55);			/* one byte too many */
		device_end(&d);
		devices_end(&d, &b);
		r = push(&b, (enum cut)cut, NULL);
		GCLK_EQ(r.status, -GCLK_MALFORMED);
		CU_ASSERT_STRING_EQUAL(r.error.where, "second");
		GCLK_EQ(r.error.offset, at + 32 + 28);	/* where its footer should be */
		bytes_free(&b);
	}
}

GCLK_TEST(stream, no_description_at_all)
{
	for (int footers = 0; footers < 2; footers++) {
		struct bytes b = { 0 };
		size_t tail = put_small_stream(&b, DIALECT_7_2, footers), n = tail;
		struct result r;

		while (memcmp(b.p + n, "\0\6\0\0", 4) || b.p[n + 6] != '{') {
			n++;
		}
		b.n = n + 1;				/* with the EOF byte */
		r = push(&b, CUT_RANDOM, NULL);
		GCLK_EQ(r.status, GCLK_STREAM_MORE);
		GCLK_EQ(r.end, -GCLK_UNSUPPORTED);
		GCLK_EQ(r.held, b.n - tail);
		bytes_free(&b);
	}
}

GCLK_TEST(stream, the_tail_has_a_limit)
{
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct gclk_stream_options o = { 0 };
		struct bytes b = { 0 };
		size_t tail = put_small_stream(&b, DIALECT_7_2, true);
		struct result r;

		o.tail_bytes = b.n - tail;
		r = push(&b, (enum cut)cut, &o);
		GCLK_EQ(r.status, 0);
		gclk_tail_free(r.tail);
		o.tail_bytes--;
		r = push(&b, (enum cut)cut, &o);
		GCLK_EQ(r.status, -GCLK_UNSUPPORTED);
		GCLK_EQ(r.error.offset, b.n - 1);
		bytes_free(&b);
	}
}

/* A guest that fills its devices with false descriptions ends in a refusal, soon. */
GCLK_TEST(stream, many_false_descriptions)
{
	struct bytes b = { 0 };
	struct result r;

	begin_ram(&b, 0x1000);
	put_part(&b, 3, 3);
	put_eos(&b);
	put_footer(&b, 3);
	put8(&b, 4);
	for (unsigned i = 0; i < 100; i++) {
		put_footer(&b, 1);
		put(&b, "\0\6\0\x80\0\0{\"a\":", 11);
	}
	r = push(&b, CUT_RANDOM, NULL);
	GCLK_EQ(r.status, -GCLK_UNSUPPORTED);
	bytes_free(&b);
}

GCLK_TEST(stream, what_was_held_can_be_had_back)
{
	struct gclk_stream_taken taken;
	struct gclk_stream *s;
	struct bytes b = { 0 };
	size_t tail = put_small_stream(&b, DIALECT_7_2, true), n;
	const uint8_t *held;

	CU_ASSERT_FATAL(gclk_stream_new(NULL, &s, NULL) == 0);
	GCLK_EQ(gclk_stream_phase(s), GCLK_STREAM_HEAD);
	GCLK_EQ(gclk_stream_push(s, NULL, 0, &taken, NULL), GCLK_STREAM_MORE);
	GCLK_EQ(gclk_stream_push(s, b.p, tail + 40, &taken, NULL), GCLK_STREAM_MORE);
	GCLK_EQ(taken.passed, tail);
	GCLK_EQ(taken.held, 40);
	GCLK_EQ(gclk_stream_phase(s), GCLK_STREAM_DEVICES);
	held = gclk_stream_held(s, &n);
	CU_ASSERT(n == 40 && !memcmp(held, b.p + tail, n));
	GCLK_EQ(gclk_stream_take_tail(s, NULL, NULL), -GCLK_STATE);
	gclk_stream_free(s);
	gclk_stream_free(NULL);
	bytes_free(&b);
}

/* --- pages --- */

static void check_pages(const struct gclk_pages *pages)
{
	uint8_t want[4096];

	for (unsigned i = 0; i < 4096; i++) {
		want[i] = (uint8_t)(i / 16);
	}
	want[5] = 'x';
	want[6] = 'y';
	CU_ASSERT(pages->pages[0].known && !memcmp(pages->pages[0].bytes, want, 4096));
	memset(want, 0x5a, sizeof(want));
	CU_ASSERT(pages->pages[1].known && !memcmp(pages->pages[1].bytes, want, 4096));
	memset(want, 0, sizeof(want));
	CU_ASSERT(pages->pages[2].known && !memcmp(pages->pages[2].bytes, want, 4096));
	CU_ASSERT(!pages->pages[3].known);
}

GCLK_TEST(stream, pages_are_found_whatever_carried_them)
{
	for (int cut = 0; cut < N_CUTS; cut++) {
		struct gclk_page p[4] = {
			{ .block = "pc.ram", .offset = 4096 }, { .block = "pc.bios" },
			{ .block = "pc.ram", .offset = 0x2000 },
			{ .block = "pc.ram", .offset = 0x3000 },
		};
		struct gclk_pages pages = { p, 4 };
		struct gclk_stream_options o = { .ram = gclk_pages_visitor(&pages) };
		struct bytes b = { 0 };
		struct result r;

		memset(p[2].bytes, 0xff, sizeof(p[2].bytes));
		put_small_stream(&b, DIALECT_7_2, true);
		r = push(&b, (enum cut)cut, &o);
		GCLK_EQ(r.status, 0);
		check_pages(&pages);
		gclk_tail_free(r.tail);
		bytes_free(&b);
	}
}

/* What somebody who watches pages was shown, in order. */
struct shown {
	struct gclk_page_watch watch;
	uint64_t offsets[4096];
	unsigned n, watched, clocks;	/* all; of these, for either reason */
};

static bool want_any(void *ctx, const char *block, uint64_t offset)
{
	(void)ctx;
	(void)block;
	(void)offset;
	return true;
}

static int note_shown(void *ctx, const struct gclk_ram_record *r, struct gclk_error *reterr)
{
	struct shown *shown = ctx;
	bool clock = r->kind == GCLK_RAM_PAGE && gclk_page_looks_like_clock(r->bytes);
	bool watched = false;

	(void)reterr;
	for (unsigned i = 0; i < shown->watch.n; i++) {
		watched = watched || shown->watch.offsets[i] == r->offset;
	}
	shown->watched += watched;
	shown->clocks += clock;
	if (watched || clock) {
		CU_ASSERT_FATAL(shown->n < GCLK_COUNT(shown->offsets));
		shown->offsets[shown->n++] = r->offset;
	}
	if (clock && !watched) {
		gclk_watch_add(&shown->watch, r->offset);
	}
	return 0;
}

/* A page that begins as a clock does, or as little else than one. */
static void put_clock_like(struct bytes *b, bool clock)
{
	struct gclk_pvclock page = { .version = 2, .tsc_timestamp = 77, .system_time_ns = 1,
				     .scale = { 0x80000000, 0 }, .flags = 1 };
	uint8_t bytes[GCLK_PVCLOCK_BYTES];

	gclk_pvclock_write(&page, bytes);
	bytes[4] = !clock;
	put(b, bytes, sizeof(bytes));
	put_random(b, 4096 - sizeof(bytes));
}

/* Pages of any kind behind the setup of a guest, and all of its devices. */
static void put_many_pages(struct bytes *b, unsigned n)
{
	struct devices d;
	bool bios = false;

	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	put_start(b, 3, "ram", 0, 4);
	put64(b, 0x104000 | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, 0x100000);
	put_name(b, "pc.bios");
	put64(b, 0x4000);
	put_eos(b);
	put_footer(b, 3);
	put_part(b, 3, 3);
	for (unsigned i = 0; i < n; i++) {
		bool again = i > 0 && gclk_random_below(40);
		uint64_t kind = gclk_random_below(60);

		bios = again ? bios : i > 0 && gclk_random_below(2);
		put_page_word(b, again ? NULL : bios ? "pc.bios" : "pc.ram",
			      gclk_random_below(bios ? 4 : 256) * 4096,
			      kind < 30 ? W_ZERO : W_PAGE);
		if (kind < 30) {
			put8(b, 0);
		} else if (kind < 40) {
			put_clock_like(b, kind == 39);
		} else {
			put_random(b, 4096);
		}
	}
	put_eos(b);
	put_footer(b, 3);
	devices_begin(&d, DIALECT_7_2, true);
	put_small_devices(&d);
	devices_end(&d, b);
}

/* Nobody misses a page for that most of them are not shown to him. */
GCLK_TEST(stream, pages_that_somebody_watches_do_not_go_by_a_grant)
{
	size_t granted = 0, all = 0;

	for (unsigned round = 0; round < 10 * gclk_test_scale(); round++) {
		struct bytes b = { 0 };
		struct shown whole = { .watch.clock_pages = 1 }, cut;

		gclk_watch_add(&whole.watch, 0x2000);
		put_many_pages(&b, 1000);
		cut = whole;
		for (int i = 0; i < 2; i++) {
			struct shown *shown = i ? &cut : &whole;
			struct gclk_stream_options o = {
				.ram = { &shown->watch, want_any, note_shown, shown } };
			struct result r = push(&b, i ? CUT_GRANTED : CUT_WHOLE, &o);

			GCLK_EQ(r.status, 0);
			granted += r.granted;
			gclk_tail_free(r.tail);
		}
		CU_ASSERT(whole.clocks > 0 && whole.watched > 0);
		GCLK_EQ(cut.n, whole.n);
		CU_ASSERT(!memcmp(cut.offsets, whole.offsets, whole.n * sizeof(*whole.offsets)));
		all += b.n;
		bytes_free(&b);
	}
	/* half of them by and by; of one stream it is a fifth now and then, as the pieces fall */
	CU_ASSERT(granted > all / 4);
}

/* Less than is there, never more; and nothing of a page whose beginning does not tell. */
GCLK_TEST(stream, a_grant_ends_where_it_says)
{
	struct gclk_page_watch watch = { .clock_pages = 1 };
	struct gclk_grant g = { .rest = 10 };
	struct bytes b = { 0 };

	put_random(&b, 10);
	put64(&b, 0x3000 | W_PAGE | W_CONTINUE);
	put_random(&b, 4096);
	put64(&b, 0x1000 | W_ZERO | W_CONTINUE);
	put8(&b, 0);
	GCLK_EQ(gclk_grant_use(&g, b.p, 4), 4);
	GCLK_EQ(g.rest, 6);
	GCLK_EQ(gclk_grant_use(&g, b.p + 4, b.n - 4), 6);
	g = (struct gclk_grant){ 10, 0x3000, &watch };	/* not that page */
	GCLK_EQ(gclk_grant_use(&g, b.p, b.n), 10);
	for (size_t n = 10; n < b.n; n++) {
		size_t went;

		g = (struct gclk_grant){ 10, 0x3001, &watch };
		went = gclk_grant_use(&g, b.p, n);
		GCLK_EQ(went, n < 10 + 8 + 32 ? 10 : n < 10 + 4104 ? n : 10 + 4104);
		GCLK_EQ(g.rest, went <= 10 || n >= 10 + 4104 ? 0 : 10 + 4104 - n);
	}
	g = (struct gclk_grant){ 10, 0x3001, NULL };
	GCLK_EQ(gclk_grant_use(&g, b.p, 10 + 9), 10 + 9);
	GCLK_EQ(g.rest, 4095);
	g = (struct gclk_grant){ 10, 0x3001, &watch };
	GCLK_EQ(gclk_grant_use(&g, b.p, b.n), b.n);
	bytes_free(&b);
}

static int apply_xbzrle(const char *bytes, size_t n, struct gclk_page *page)
{
	struct gclk_ram_record r = { GCLK_RAM_XBZRLE, "b", 0, (const uint8_t *)bytes, n };
	struct gclk_error err;

	return gclk_page_apply(page, &r, &err);
}

GCLK_TEST(stream, xbzrle_decodes_or_is_refused)
{
	struct gclk_page page = { .block = "b", .known = true }, before;

	GCLK_EQ(apply_xbzrle("\x80\x1f\1Z", 4, &page), 0); /* 3968 unchanged, one new */
	GCLK_EQ(page.bytes[3968], 'Z');
	GCLK_EQ(apply_xbzrle("\0\2ab\xfe\x1f", 6, &page), 0);	/* up to the very end */
	GCLK_EQ(page.bytes[1], 'b');
	before = page;
	GCLK_EQ(apply_xbzrle("\x81\x20\1Z", 4, &page), -GCLK_MALFORMED);	/* 4097 */
	GCLK_EQ(apply_xbzrle("\x80\x20\1Z", 4, &page), -GCLK_MALFORMED); /* 4096 + 1 */
	GCLK_EQ(apply_xbzrle("\0\3ab", 4, &page), -GCLK_MALFORMED);
	GCLK_EQ(apply_xbzrle("\x80", 1, &page), -GCLK_MALFORMED);
	GCLK_EQ(apply_xbzrle("\x80\x80\1", 3, &page), -GCLK_MALFORMED);
	CU_ASSERT(!memcmp(&before, &page, sizeof(page)));
	page.known = false;
	GCLK_EQ(apply_xbzrle("\0\1q", 3, &page), 0);
	CU_ASSERT(!page.known);
}

GCLK_TEST(stream, a_bad_page_that_somebody_wants_fails_the_push)
{
	struct gclk_page p = { .block = "pc.ram" };
	struct gclk_pages pages = { &p, 1 };
	struct gclk_stream_options o = { .ram = gclk_pages_visitor(&pages) };
	struct bytes b;
	struct result r;
	size_t at;

	begin_ram(&b, 0x1000);
	put_part(&b, 2, 3);
	put_page_word(&b, "pc.ram", 0, W_ZLIB);
	put32(&b, 20);
	at = b.n;
	put_text(&b, "not zlib at all, no.");
	r = push(&b, CUT_RANDOM, &o);
	GCLK_EQ(r.status, -GCLK_MALFORMED);
	GCLK_EQ(r.error.offset, at);
	r = push(&b, CUT_RANDOM, NULL);		/* who does not look does not see */
	GCLK_EQ(r.status, GCLK_STREAM_MORE);
	bytes_free(&b);
}

/* --- real streams --- */

/* @page: FNV-1a of the page at 0x20000 as QEMU itself dumped it, 0: not in the stream. */
static const struct real {
	const char *name, *machine, *block;
	uint64_t page;
	bool footers, shared, uuid, return_path;
	size_t sections;
} reals[] = {
#include "real-streams.h"
};

static uint64_t fnv1a(const uint8_t *p, size_t n)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	while (n--) {
		hash = (hash ^ *p++) * UINT64_C(0x100000001b3);
	}
	return hash;
}

static void check_real(const struct real *real, enum cut cut)
{
	struct gclk_page p = { .block = real->block, .offset = 0x20000 };
	struct gclk_pages pages = { &p, 1 };
	struct gclk_stream_options o = { .ram = gclk_pages_visitor(&pages) };
	struct bytes b = { 0 };
	struct result r;

	read_data(real->name, &b);
	r = push(&b, cut, cut == CUT_BYTES ? NULL : &o);
	GCLK_EQ(r.status, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r.tail);
	GCLK_EQ(r.consumed, b.n);
	CU_ASSERT_STRING_EQUAL(r.tail->head.machine, real->machine);
	GCLK_EQ(r.tail->head.has_footers, real->footers);
	GCLK_EQ(r.tail->head.ignore_shared, real->shared);
	GCLK_EQ(r.tail->head.has_uuid, real->uuid);
	GCLK_EQ(r.tail->head.return_path, real->return_path);
	GCLK_EQ(gclk_vmdesc_n_sections(r.tail->desc), real->sections);
	if (cut != CUT_BYTES) {
		GCLK_EQ(p.known, real->page != 0);
		CU_ASSERT(!real->page || fnv1a(p.bytes, sizeof(p.bytes)) == real->page);
	}
	gclk_tail_free(r.tail);
	bytes_free(&b);
}

GCLK_TEST(stream, real_streams_and_a_page_of_their_guests)
{
	for (size_t i = 0; i < sizeof(reals) / sizeof(*reals); i++) {
		for (int cut = 0; cut < N_CUTS; cut++) {
			check_real(&reals[i], (enum cut)cut);
		}
	}
}
