/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "gclk-test.h"
#include "image/qemu/page.h"
#include "image/qemu/tail.h"
#include "stream-writer.h"

/*
 * A window on @b that counts what is read, with @n_pages zero-filled PAGE records put in
 * at @insert: guest RAM of any size that takes no memory.
 */
struct view {
	const struct bytes *b;
	size_t insert;
	uint64_t n_pages;
	uint64_t n_read;
	bool broken;
};

enum { RECORD = 8 + 4096 };

static uint8_t byte_at(const struct view *v, uint64_t at)
{
	uint64_t inserted = v->n_pages * RECORD;

	if (at < v->insert) {
		return v->b->p[at];
	}
	if (at >= v->insert + inserted) {
		return v->b->p[at - inserted];
	}
	/* page 0 again and again: be64 0x28 */
	return (at - v->insert) % RECORD == 7 ? W_PAGE | W_CONTINUE : 0;
}

static int read_view(void *ctx, uint64_t offset, void *buf, size_t n,
		     struct gclk_error *reterr)
{
	struct view *v = ctx;
	uint8_t *p = buf;

	v->n_read += n;
	if (v->broken) {
		return gclk_fail(reterr, GCLK_SYS, "view", offset, "broken");
	}
	if (!v->n_pages) {
		memcpy(p, v->b->p + offset, n);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		p[i] = byte_at(v, offset + i);
	}
	return 0;
}

static struct gclk_window window(struct view *v)
{
	return (struct gclk_window){ read_view, v->b->n + v->n_pages * RECORD, v };
}

/* Reads @b as a window that ends @behind bytes after the stream does. */
static int read_tail(struct view *v, uint64_t behind, bool never_walk,
		     struct gclk_tail **ret, struct gclk_error *reterr)
{
	struct gclk_window w = window(v);
	struct gclk_tail_options o = { .never_walk = never_walk };

	*ret = NULL;
	return gclk_tail_read(&w, w.size - behind, &o, ret, reterr);
}

/* A stream in which the window's pages can be inserted, at v->insert. */
static size_t put_long_stream(struct bytes *b, size_t *ret_insert)
{
	struct devices d;
	size_t tail;

	put_header(b, "pc-q35-7.2");
	put_start(b, 3, "ram", 0, 4);
	put64(b, 0x1000 | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, 0x1000);
	put_eos(b);
	put_footer(b, 3);
	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", 0, W_ZERO);
	put8(b, 0);
	*ret_insert = b->n;
	put_eos(b);
	put_footer(b, 3);
	put_part(b, 3, 3);
	put_eos(b);
	put_footer(b, 3);
	tail = b->n;
	devices_begin(&d, DIALECT_7_2, true);
	put_small_devices(&d);
	devices_end(&d, b);
	return tail;
}

static void check_tail(const struct gclk_tail *t, const struct bytes *b, size_t tail,
		       uint64_t inserted)
{
	const struct gclk_vmdesc_section *s;
	struct gclk_vmdesc_field f;

	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	GCLK_EQ(t->offset, tail + inserted);
	CU_ASSERT(t->size <= b->n - tail && !memcmp(t->bytes, b->p + tail, t->size));
	GCLK_EQ(t->bytes[t->sections_size], 0);
	s = gclk_vmdesc_find(t->desc, "timer", 0, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	CU_ASSERT(gclk_vmdesc_field(t->desc, s, "cpu_clock_offset", &f));
	GCLK_EQ(gclk_get_be64(t->bytes + f.offset), 222);
}

GCLK_TEST(tail, every_dialect_from_the_end)
{
	for (int i = 0; i < 2 * N_DIALECTS; i++) {
		struct bytes b = { 0 };
		size_t at = put_small_stream(&b, (enum dialect)(i / 2), i & 1);
		struct view v = { .b = &b };
		struct gclk_tail *t;

		GCLK_EQ(read_tail(&v, 0, true, &t, NULL), 0);
		check_tail(t, &b, at, 0);
		GCLK_EQ(t->size, b.n - at);
		GCLK_EQ(t->walked, 0);
		GCLK_EQ(t->head.n_blocks, 2);
		CU_ASSERT_STRING_EQUAL(t->head.machine, i & 1 ? "pc-i440fx-7.2" : "");
		gclk_tail_free(t);
		bytes_free(&b);
	}
}

/* The same bytes are read of a guest of 1 TiB as of one of 4 KiB. */
GCLK_TEST(tail, cost_does_not_grow_with_the_ram)
{
	struct bytes b = { 0 };
	struct view v = { .b = &b };
	size_t at = put_long_stream(&b, &v.insert);

	for (uint64_t pages = 0; pages <= UINT64_C(1) << 28;
	     pages = pages * 16 + (1 << 10)) {
		struct gclk_tail *t;

		v.n_pages = pages;
		v.n_read = 0;
		GCLK_EQ(read_tail(&v, 0, true, &t, NULL), 0);
		check_tail(t, &b, at, pages * RECORD);
		CU_ASSERT(v.n_read < 200000);
		gclk_tail_free(t);
	}
	bytes_free(&b);
}

static int count_progress(void *ctx, uint64_t done, uint64_t total)
{
	unsigned *n = ctx;

	CU_ASSERT(done <= total);
	return ++*n == 3;
}

GCLK_TEST(tail, bytes_behind_the_stream_make_it_walk)
{
	struct bytes b = { 0 };
	struct view v = { .b = &b, .n_pages = 3000 };
	size_t at = put_long_stream(&b, &v.insert), n = b.n;
	struct gclk_tail_options o = { .progress = count_progress };
	struct gclk_error err = { 0 };
	struct gclk_window w;
	struct gclk_tail *t;
	unsigned calls = 0;

	put_text(&b, "trailing bytes of somebody else");
	GCLK_EQ(read_tail(&v, 0, true, &t, &err), -GCLK_UNSUPPORTED);
	CU_ASSERT(err.message[0] != 0);
	GCLK_EQ(read_tail(&v, 0, false, &t, NULL), 0);
	check_tail(t, &b, at, v.n_pages * RECORD);
	GCLK_EQ(t->size, n - at);
	GCLK_EQ(t->walked, 1);
	gclk_tail_free(t);
	/* the same where the caller says where the stream ends */
	GCLK_EQ(read_tail(&v, b.n - n, true, &t, NULL), 0);
	GCLK_EQ(t->walked, 0);
	gclk_tail_free(t);
	/* a walk can be ended */
	v.n_pages = 10000;
	w = window(&v);
	o.ctx = &calls;
	GCLK_EQ(gclk_tail_read(&w, w.size, &o, &t, &err), -GCLK_STATE);
	GCLK_EQ(calls, 3);
	bytes_free(&b);
}

/* What both ways refuse, both ways in the same words where it is about the head. */
GCLK_TEST(tail, what_the_head_shows_is_refused_at_once)
{
#define HEAD(text, status) { text, sizeof(text) - 1, status }
	static const struct { const char *bytes; size_t n; int status; } heads[] = {
		HEAD("\x16\x03\x01\x02\x00\x00\x00\x00\x00", GCLK_UNSUPPORTED),
		HEAD("QEVM\0\0\0\2\0", GCLK_VERSION),
		HEAD("QEV", GCLK_TRUNCATED),
		HEAD("", GCLK_TRUNCATED),
		HEAD("QEVM\0\0\0\3\7\0\0\0\2pc\5\x1a""configuration/capabilities\0\0\0\1"
		     "\0\0\0\1\nmapped-ram", GCLK_UNSUPPORTED),
	};
#undef HEAD

	for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
		struct bytes b = { 0 };
		struct view v = { .b = &b };
		struct gclk_error err = { 0 };
		struct gclk_tail *t;

		put(&b, heads[i].bytes, heads[i].n);
		GCLK_EQ(read_tail(&v, 0, false, &t, &err), -heads[i].status);
		CU_ASSERT(err.message[0] != 0);
		bytes_free(&b);
	}
}

GCLK_TEST(tail, a_window_that_fails_is_reported_as_such)
{
	struct bytes b = { 0 };
	struct view v = { .b = &b, .broken = true };
	struct gclk_error err = { 0 };
	struct gclk_tail *t;

	put_small_stream(&b, DIALECT_7_2, true);
	GCLK_EQ(read_tail(&v, 0, false, &t, &err), -GCLK_SYS);
	CU_ASSERT_STRING_EQUAL(err.message, "broken");
	bytes_free(&b);
}

GCLK_TEST(tail, truncated_at_every_offset)
{
	struct bytes b = { 0 };
	size_t n;

	put_small_stream(&b, DIALECT_7_2, true);
	n = b.n;
	for (b.n = 0; b.n < n; b.n++) {
		struct view v = { .b = &b };
		struct gclk_error err = { 0 };
		struct gclk_tail *t;
		int r = read_tail(&v, 0, false, &t, &err);

		CU_ASSERT(r == -GCLK_TRUNCATED || r == -GCLK_UNSUPPORTED);
		CU_ASSERT(err.offset <= b.n && err.message[0]);
	}
	bytes_free(&b);
}

/* Every byte changed: refused with a place, or the tail is where it is. */
GCLK_TEST(tail, every_byte_changed)
{
	struct bytes b = { 0 };
	size_t at = put_small_stream(&b, DIALECT_7_2, true);
	struct view v = { .b = &b };
	unsigned good = 0, bad = 0;

	for (size_t i = 0; i < b.n; i++) {
		uint8_t change = (uint8_t)(1 + gclk_random_below(255));
		struct gclk_error err = { 0 };
		struct gclk_tail *t;
		int r;

		b.p[i] ^= change;
		r = read_tail(&v, 0, false, &t, &err);
		b.p[i] ^= change;
		if (r == 0) {
			good++;
			GCLK_EQ(t->offset, at);
			GCLK_EQ(t->offset + t->size, b.n);
			gclk_tail_free(t);
		} else {
			bad++;
			CU_ASSERT(r < 0 && err.message[0] && err.offset <= b.n);
		}
	}
	CU_ASSERT(good > 1000 && bad > 1000);
	bytes_free(&b);
}

GCLK_TEST(tail, both_ways_agree_and_the_limit_holds)
{
	struct bytes b = { 0 };
	size_t at = put_small_stream(&b, DIALECT_8_2, true);
	struct view v = { .b = &b };
	struct gclk_window w = window(&v);
	struct gclk_tail_options o = { .tail_bytes = b.n - at };
	struct gclk_error err = { 0 };
	struct gclk_tail *t = NULL;

	GCLK_EQ(gclk_tail_read(&w, w.size, &o, &t, &err), 0);
	gclk_tail_free(t);
	o.tail_bytes--;
	GCLK_EQ(gclk_tail_read(&w, w.size, &o, &t, &err), -GCLK_UNSUPPORTED);
	bytes_free(&b);
}

GCLK_TEST(tail, ram_is_shown_to_a_visitor)
{
	struct gclk_page p = { .block = "pc.bios" };
	struct gclk_pages pages = { &p, 1 };
	struct gclk_ram_visitor visitor = gclk_pages_visitor(&pages);
	struct bytes b = { 0 };
	struct view v = { .b = &b };
	struct gclk_window w;

	put_small_stream(&b, DIALECT_7_2, true);
	w = window(&v);
	GCLK_EQ(gclk_tail_walk_ram(&w, &visitor, NULL, NULL), 0);
	CU_ASSERT(p.known && p.bytes[0] == 0x5a && p.bytes[4095] == 0x5a);
	bytes_free(&b);
}

/* --- real streams --- */

static const struct real {
	const char *name, *machine, *block;
	uint64_t page;
	bool footers, shared, uuid, return_path;
	size_t sections;
} reals[] = {
#include "real-streams.h"
};

static uint64_t value(const struct gclk_tail *t, const char *section, const char *path)
{
	const struct gclk_vmdesc_section *s = gclk_vmdesc_find(t->desc, section, 0, NULL);
	struct gclk_vmdesc_field f;

	if (!s || !gclk_vmdesc_field(t->desc, s, path, &f) || f.size > 8) {
		return 0xdeadbeefdeadbeef;
	}
	return gclk_get_be(t->bytes + f.offset, f.size);
}

struct check { const struct gclk_tail *t; unsigned n; };

static int find_again(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	struct check *c = ctx;
	struct gclk_vmdesc_field f = { 0 };

	CU_ASSERT(gclk_vmdesc_field(c->t->desc, leaf->section, leaf->path, &f));
	GCLK_EQ(f.offset, leaf->offset);
	CU_ASSERT(leaf->offset + leaf->size <= c->t->sections_size);
	c->n++;
	return 0;
}

/* What the firmware of tests/data/streams/make.py programmed, and what always holds. */
static void check_real(const struct real *real, const struct gclk_tail *t)
{
	const struct gclk_vmdesc_section *pit =
		gclk_vmdesc_find(t->desc, "i8254", 0, NULL);
	struct gclk_vmdesc_field f;
	struct check c = { t, 0 };

	CU_ASSERT_STRING_EQUAL(t->head.machine, real->machine);
	GCLK_EQ(gclk_vmdesc_n_sections(t->desc), real->sections);
	GCLK_EQ(value(t, "i8254", "channels[0].count"), 1193);
	GCLK_EQ(value(t, "i8254", "channels[0].mode"), 2);
	CU_ASSERT(
		gclk_vmdesc_field(t->desc, pit, "=channels[0].next_transition_time", &f));
	GCLK_EQ(f.offset, pit->payload + 100);
	GCLK_EQ(pit->payload_size, 108);
	CU_ASSERT(gclk_vmdesc_field(t->desc,
				    gclk_vmdesc_find(t->desc, "mc146818rtc", 0, NULL),
				    "cmos_data", &f) &&
		  f.size * f.count == 128);
	GCLK_EQ(t->bytes[f.offset + 10], 0x26);
	GCLK_EQ(t->bytes[f.offset + 11], 0x42);
	CU_ASSERT(value(t, "timer", "cpu_clock_offset") > 500000000);
	CU_ASSERT(value(t, "timer", "cpu_clock_offset") < UINT64_C(100000000000));
	CU_ASSERT(gclk_vmdesc_field(t->desc, gclk_vmdesc_find(t->desc, "cpu", 0, NULL),
				    "env.tsc", &f));
	GCLK_EQ(f.offset, gclk_vmdesc_find(t->desc, "cpu", 0, NULL)->payload + 1157);
	GCLK_EQ(gclk_vmdesc_walk(t->desc, NULL, find_again, &c), 0);
	CU_ASSERT(c.n > 2000);
}

GCLK_TEST(tail, real_streams)
{
	for (size_t i = 0; i < sizeof(reals) / sizeof(*reals); i++) {
		struct bytes b = { 0 };
		struct view v = { .b = &b };
		struct gclk_tail *t;

		read_data(reals[i].name, &b);
		GCLK_EQ(read_tail(&v, 0, true, &t, NULL), 0);
		CU_ASSERT_PTR_NOT_NULL_FATAL(t);
		GCLK_EQ(t->offset + t->size, b.n);
		check_real(&reals[i], t);
		gclk_tail_free(t);
		bytes_free(&b);
	}
}

/* A sample of flips in real tails; every one is too many for every run. */
GCLK_TEST(tail, real_streams_with_random_flips)
{
	for (size_t i = 0; i < sizeof(reals) / sizeof(*reals); i++) {
		struct bytes b = { 0 };
		struct view v = { .b = &b };
		struct gclk_tail *t;
		size_t at;

		read_data(reals[i].name, &b);
		GCLK_EQ(read_tail(&v, 0, true, &t, NULL), 0);
		CU_ASSERT_PTR_NOT_NULL_FATAL(t);
		at = (size_t)t->offset;
		gclk_tail_free(t);
		for (unsigned k = 0; k < 30 * gclk_test_scale(); k++) {
			size_t bit = at * 8 + (size_t)gclk_random_below((b.n - at) * 8);
			struct gclk_error err = { 0 };

			b.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (read_tail(&v, 0, false, &t, &err)) {
				CU_ASSERT(err.message[0] && err.offset <= b.n);
			} else {
				GCLK_EQ(t->offset, at);
				gclk_tail_free(t);
			}
			b.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		bytes_free(&b);
	}
}
