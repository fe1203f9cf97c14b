/* SPDX-License-Identifier: MIT */
#include <lzma.h>
#include <string.h>

#include "core/cursor.h"
#include "core/error.h"
#include "gclk-test.h"
#include "image/record.h"
#include "memory-io.h"

#define STREAM_BYTES 6000

/* A stream of noise without our magic in it. */
static struct memory new_stream(size_t n)
{
	struct memory m = { 0 };

	memory_set_size(&m, n);
	for (size_t i = 0; i < n; i++) {
		m.bytes[i] = (uint8_t)gclk_random();
	}
	return m;
}

/* A list of patches whose new bytes are the old ones, changed here and there. */
struct patches {
	struct gclk_patch list[8];
	size_t n;
	uint8_t old_bytes[8][64], new_bytes[8][64];
};

static struct patches *new_patches(const struct memory *original, unsigned shape)
{
	static const struct {
		uint64_t offset;
		uint32_t n;
	} shapes[3][5] = {
		{ { 0, 8 }, { 100, 8 }, { 108, 4 }, { 4000, 64 }, { STREAM_BYTES - 8, 8 } },
		{ { 4, 8 }, { 104, 6 }, { 2000, 8 }, { 3990, 20 }, { 4050, 30 } },
		{ { 99, 1 }, { 100, 40 }, { 4010, 2 } },
	};
	struct patches *p = calloc(1, sizeof(*p));

	for (size_t i = 0; i < 5 && shapes[shape][i].n; i++) {
		struct gclk_patch *patch = &p->list[p->n];

		patch->offset = shapes[shape][i].offset;
		patch->n_old = patch->n_new = shapes[shape][i].n;
		memcpy(p->old_bytes[i], original->bytes + patch->offset, patch->n_old);
		memcpy(p->new_bytes[i], p->old_bytes[i], patch->n_old);
		for (uint32_t k = 0; k < patch->n_old; k++) {
			if (k % 3 != 1) {	/* some bytes of a range stay */
				p->new_bytes[i][k] = (uint8_t)(p->old_bytes[i][k] + 1 + shape);
			}
		}
		patch->old_bytes = p->old_bytes[i];
		patch->new_bytes = p->new_bytes[i];
		p->n++;
	}
	return p;
}

static int apply(struct memory *m, uint64_t end, const struct patches *p, struct gclk_error *e)
{
	struct gclk_io io = memory_io(m);

	return gclk_undo_apply(&io, end, p->list, p->n, "payload", 7, e);
}

static int revert(struct memory *m, uint64_t end, struct gclk_error *e)
{
	struct gclk_io io = memory_io(m);

	return gclk_undo_revert(&io, end, e);
}

static bool starts_patched(const struct memory *m, const struct memory *original,
			   const struct patches *p)
{
	struct memory want = memory_copy(original);
	bool same;

	for (size_t i = 0; i < p->n; i++) {
		memory_put(&want, p->list[i].offset, p->list[i].new_bytes, p->list[i].n_new);
	}
	same = m->n > want.n && !memcmp(m->bytes, want.bytes, want.n);
	memory_free(&want);
	return same;
}

GCLK_TEST(record, apply_then_undo_is_identity)
{
	for (uint64_t end = STREAM_BYTES; end; end = end == STREAM_BYTES ? UINT64_MAX : 0) {
		struct memory original = new_stream(STREAM_BYTES), m = memory_copy(&original);
		struct patches *p = new_patches(&original, 0);
		struct gclk_window w;
		struct gclk_undo undo;
		enum gclk_undo_state state;

		GCLK_EQ(apply(&m, end, p, NULL), 0);
		CU_ASSERT(starts_patched(&m, &original, p));
		w = memory_window(&m);
		GCLK_EQ(gclk_undo_find(&w, GCLK_UNDO_UNKNOWN_END, &undo, NULL), 0);
		GCLK_EQ(undo.base, STREAM_BYTES);
		GCLK_EQ(undo.offset, STREAM_BYTES);
		GCLK_EQ(undo.n_patches, p->n);
		CU_ASSERT(undo.n_payload == 7 && !memcmp(undo.payload, "payload", 7));
		GCLK_EQ(gclk_undo_state(&w, &undo, &state, NULL), 0);
		GCLK_EQ(state, GCLK_UNDO_APPLIED);
		gclk_undo_free(&undo);
		GCLK_EQ(revert(&m, end, NULL), 0);
		CU_ASSERT(memory_same(&m, &original));
		GCLK_EQ(revert(&m, end, NULL), GCLK_UNDO_NONE);
		memory_free(&m);
		memory_free(&original);
		free(p);
	}
}

/* R9: rewriting again starts from the captured state, and leaves no trace of the first. */
GCLK_TEST(record, rewriting_again_equals_rewriting_once)
{
	struct memory original = new_stream(STREAM_BYTES), once = memory_copy(&original),
		      often = memory_copy(&original);
	struct patches *p[3];

	for (unsigned i = 0; i < 3; i++) {
		p[i] = new_patches(&original, i);
	}
	for (unsigned i = 0; i < 12; i++) {
		GCLK_EQ(apply(&often, UINT64_MAX, p[i * 5 % 3], NULL), 0);
		CU_ASSERT(starts_patched(&often, &original, p[i * 5 % 3]));
	}
	GCLK_EQ(apply(&once, STREAM_BYTES, p[11 * 5 % 3], NULL), 0);
	CU_ASSERT(memory_same(&once, &often));
	GCLK_EQ(revert(&often, UINT64_MAX, NULL), 0);
	CU_ASSERT(memory_same(&often, &original));
	for (unsigned i = 0; i < 3; i++) {
		free(p[i]);
	}
	memory_free(&once);
	memory_free(&often);
	memory_free(&original);
}

GCLK_TEST(record, nothing_to_change_changes_no_byte)
{
	struct memory original = new_stream(STREAM_BYTES), m = memory_copy(&original);
	struct patches *p = new_patches(&original, 0);

	memcpy(p->new_bytes, p->old_bytes, sizeof(p->new_bytes));
	GCLK_EQ(apply(&m, UINT64_MAX, p, NULL), 0);
	GCLK_EQ(m.n_ops, 0);
	CU_ASSERT(memory_same(&m, &original));
	memory_free(&m);
	memory_free(&original);
	free(p);
}

GCLK_TEST(record, original_is_read_through_patches)
{
	struct memory original = new_stream(STREAM_BYTES), m = memory_copy(&original);
	struct patches *p = new_patches(&original, 1);
	uint8_t buf[STREAM_BYTES];
	struct gclk_undo undo;
	struct gclk_window w;

	GCLK_EQ(apply(&m, UINT64_MAX, p, NULL), 0);
	w = memory_window(&m);
	GCLK_EQ(gclk_undo_find(&w, UINT64_MAX, &undo, NULL), 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t from = gclk_random_below(STREAM_BYTES);
		size_t n = gclk_random_below(STREAM_BYTES - from + 1);

		GCLK_EQ(gclk_undo_original(&w, &undo, from, buf, n, NULL), 0);
		CU_ASSERT(!memcmp(buf, original.bytes + from, n));
	}
	gclk_undo_free(&undo);
	memory_free(&m);
	memory_free(&original);
	free(p);
}

/* A copy may hold insertions and deletions: reading and checking follow the shift. */
GCLK_TEST(record, original_is_read_through_insertions)
{
	static const uint8_t in[6] = { 1, 2, 3, 4, 5, 6 };
	struct memory original = new_stream(300), m = { 0 };
	struct gclk_patch list[3] = {
		{ 10, 0, 6, NULL, in }, { 20, 4, 4, original.bytes + 20, in },
		{ 200, 5, 2, original.bytes + 200, in },
	};
	enum gclk_undo_state state;
	struct gclk_undo undo;
	struct gclk_window w;
	uint8_t buf[300], *bytes;
	size_t n;

	memory_put(&m, 0, original.bytes, 10);
	memory_put(&m, m.n, in, 6);
	memory_put(&m, m.n, original.bytes + 10, 10);
	memory_put(&m, m.n, in, 4);
	memory_put(&m, m.n, original.bytes + 24, 176);
	memory_put(&m, m.n, in, 2);
	memory_put(&m, m.n, original.bytes + 205, 95);
	GCLK_EQ(m.n, 303);
	GCLK_EQ(gclk_undo_pack(list, 3, NULL, 0, 303, 303, &bytes, &n, NULL), 0);
	memory_put(&m, 303, bytes, n);
	free(bytes);
	w = memory_window(&m);
	GCLK_EQ(gclk_undo_find(&w, UINT64_MAX, &undo, NULL), 0);
	GCLK_EQ(gclk_undo_state(&w, &undo, &state, NULL), 0);
	GCLK_EQ(state, GCLK_UNDO_APPLIED);
	for (unsigned from = 0; from < 300; from++) {
		GCLK_EQ(gclk_undo_original(&w, &undo, from, buf, 300 - from, NULL), 0);
		CU_ASSERT(!memcmp(buf, original.bytes + from, 300 - from));
	}
	gclk_undo_free(&undo);
	/* in place neither way */
	GCLK_EQ(revert(&m, UINT64_MAX, NULL), -GCLK_UNSUPPORTED);
	memory_free(&m);
	memory_free(&original);
}

struct crash {
	const struct memory *original, *old, *new;
	const struct patches *again;
	uint64_t end;
	unsigned n, n_rest;
};

/*
 * A power cut may leave the second part of an append without the first: bytes
 * behind the old file that nothing reads. They are ignored, and stay.
 */
static bool is_old_with_rest(const struct memory *image, const struct memory *old,
			     const struct crash *c)
{
	struct memory copy = memory_copy(image);
	bool rest = image->n > old->n && !memcmp(image->bytes, old->bytes, old->n);

	if (rest && image->n - old->n >= 4) {	/* a torn header would be ours to remove */
		rest = memcmp(image->bytes + old->n, "GCLK", 4);
	}

	rest = rest && revert(&copy, c->end, NULL) == GCLK_UNDO_NONE &&
	       memory_same(&copy, image) && apply(&copy, c->end, c->again, NULL) == 0 &&
	       starts_patched(&copy, image, c->again) && revert(&copy, c->end, NULL) == 0 &&
	       memory_same(&copy, image);
	memory_free(&copy);
	return rest;
}

/* The file is the old one, the new one, or one that undo makes the captured one. */
static void check_crash(struct memory *image, void *ctx)
{
	struct crash *c = ctx;
	struct memory undone, again;
	struct gclk_error e = { 0 };
	int r;

	c->n++;
	if (is_old_with_rest(image, c->old, c) || is_old_with_rest(image, c->original, c)) {
		c->n_rest++;
		return;
	}
	undone = memory_copy(image);
	again = memory_copy(image);
	r = revert(&undone, c->end, &e);
	if (r < 0 || !memory_same(&undone, c->original)) {
		printf("\n    crash state %u: undo says %d, %s\n", c->n, r, e.message);
	}
	CU_ASSERT(r >= 0 && memory_same(&undone, c->original));
	/* and rewriting goes on from there as if nothing had been */
	GCLK_EQ(apply(&again, c->end, c->again, NULL), 0);
	CU_ASSERT(memory_same(&again, c->new));
	memory_free(&undone);
	memory_free(&again);
}

static void crash_during(unsigned first, unsigned second, size_t trailing)
{
	struct memory original = new_stream(STREAM_BYTES + trailing), old, log;
	struct patches *p = new_patches(&original, second % 3), *before = NULL;
	struct crash c = { .original = &original, .end = STREAM_BYTES, .again = p };

	old = memory_copy(&original);
	if (first < 3) {
		before = new_patches(&original, first);
		GCLK_EQ(apply(&old, UINT64_MAX, before, NULL), 0);
	}
	log = memory_copy(&old);
	GCLK_EQ(apply(&log, UINT64_MAX, p, NULL), 0);
	c.old = &old;
	c.new = &log;
	memory_crash_everywhere(&old, &log, check_crash, &c);
	CU_ASSERT(c.n > 100 && c.n_rest <= 6);
	free(p);
	free(before);
	memory_free(&log);
	memory_free(&old);
	memory_free(&original);
}

GCLK_TEST(record, crash_during_first_rewriting)
{
	crash_during(9, 0, 0);
	crash_during(9, 1, 13);
}

GCLK_TEST(record, crash_while_superseding)
{
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = 0; k < 3; k++) {
			crash_during(i, k, i * 7);
		}
	}
}

/* One range over most of the stream; its new bytes are those of the patches of a shape. */
static int apply_open(struct memory *m, const struct memory *original, unsigned shape)
{
	struct gclk_io io = memory_io(m);
	struct memory want = memory_copy(original);
	struct patches *p = new_patches(original, shape);
	struct gclk_patch range = { .n_old = STREAM_BYTES - 8, .n_new = STREAM_BYTES - 8,
				    .old_bytes = original->bytes };
	int r;

	for (size_t i = 0; i < p->n; i++) {
		memory_put(&want, p->list[i].offset, p->list[i].new_bytes, p->list[i].n_new);
	}
	range.new_bytes = want.bytes;
	r = gclk_undo_apply_open(&io, STREAM_BYTES, &range, "open", 4, NULL);
	free(p);
	memory_free(&want);
	return r;
}

static void overwrite(struct memory *m, uint64_t offset, uint8_t byte)
{
	struct gclk_io io = memory_io(m);
	uint8_t bytes[3000];

	memset(bytes, byte, sizeof(bytes));
	GCLK_EQ(io.write(io.ctx, offset, bytes, sizeof(bytes), NULL), 0);
}

GCLK_TEST(record, an_open_record_bears_any_bytes)
{
	struct memory original = new_stream(STREAM_BYTES), m = memory_copy(&original), closed;
	struct patches *p = new_patches(&original, 2);
	enum gclk_undo_state state;
	struct gclk_window w;
	struct gclk_undo undo;

	GCLK_EQ(apply_open(&m, &original, 1), 0);
	for (unsigned i = 0; i < 3; i++) {
		overwrite(&m, 900 * i, (uint8_t)gclk_random());
		w = memory_window(&m);
		GCLK_EQ(gclk_undo_find(&w, STREAM_BYTES, &undo, NULL), 0);
		CU_ASSERT(undo.open);
		GCLK_EQ(gclk_undo_state(&w, &undo, &state, NULL), 0);
		GCLK_EQ(state, GCLK_UNDO_PARTIAL);
		gclk_undo_free(&undo);
	}
	closed = memory_copy(&m);
	GCLK_EQ(apply(&closed, STREAM_BYTES, p, NULL), 0);
	CU_ASSERT(starts_patched(&closed, &original, p));
	w = memory_window(&closed);
	GCLK_EQ(gclk_undo_find(&w, STREAM_BYTES, &undo, NULL), 0);
	CU_ASSERT(!undo.open && undo.n_patches == p->n && undo.offset == STREAM_BYTES);
	gclk_undo_free(&undo);
	/* and what it held is refused again when it is not its own */
	closed.bytes[p->list[0].offset] ^= 0x55;
	GCLK_EQ(revert(&closed, STREAM_BYTES, NULL), -GCLK_MALFORMED);
	GCLK_EQ(revert(&m, STREAM_BYTES, NULL), 0);
	CU_ASSERT(memory_same(&m, &original));
	free(p);
	memory_free(&closed);
	memory_free(&m);
	memory_free(&original);
}

GCLK_TEST(record, crash_while_open)
{
	for (unsigned first = 0; first < 4; first += 3) {
		struct memory original = new_stream(STREAM_BYTES), old, log;
		struct patches *p = new_patches(&original, 0), *before;
		struct crash c = { .original = &original, .end = STREAM_BYTES, .again = p };

		old = memory_copy(&original);
		if (first < 3) {
			before = new_patches(&original, first);
			GCLK_EQ(apply(&old, UINT64_MAX, before, NULL), 0);
			free(before);
		}
		log = memory_copy(&old);
		GCLK_EQ(apply_open(&log, &original, 1), 0);
		overwrite(&log, 0, 0xa5);
		overwrite(&log, 2000, 0x5a);
		GCLK_EQ(apply(&log, UINT64_MAX, p, NULL), 0);
		c.old = &old;
		c.new = &log;
		memory_crash_everywhere(&old, &log, check_crash, &c);
		CU_ASSERT(c.n > 60);
		free(p);
		memory_free(&log);
		memory_free(&old);
		memory_free(&original);
	}
}

/* After the crash of a second rewriting, the next one may crash as well. */
static void check_double_crash(struct memory *image, void *ctx)
{
	struct crash *c = ctx, inner = *c;
	struct memory old = memory_copy(image), log = memory_copy(image);

	if (gclk_random_below(40) == 0) {
		GCLK_EQ(apply(&log, c->end, c->again, NULL), 0);
		inner.old = &old;
		inner.new = &log;
		inner.n = 0;
		memory_crash_everywhere(&old, &log, check_crash, &inner);
		c->n += inner.n;
	}
	memory_free(&old);
	memory_free(&log);
}

GCLK_TEST(record, crash_after_crash)
{
	struct memory original = new_stream(STREAM_BYTES), old = memory_copy(&original), log;
	struct patches *a = new_patches(&original, 0), *b = new_patches(&original, 1);
	struct crash c = { .original = &original, .end = STREAM_BYTES, .again = b };

	GCLK_EQ(apply(&old, UINT64_MAX, a, NULL), 0);
	log = memory_copy(&old);
	GCLK_EQ(apply(&log, UINT64_MAX, b, NULL), 0);
	memory_crash_everywhere(&old, &log, check_double_crash, &c);
	CU_ASSERT(c.n > 1000);
	free(a);
	free(b);
	memory_free(&log);
	memory_free(&old);
	memory_free(&original);
}

static void check_revert_crash(struct memory *image, void *ctx)
{
	struct crash *c = ctx;
	struct gclk_error e = { 0 };
	int r = revert(image, c->end, &e);

	c->n++;
	if (r < 0 || !memory_same(image, c->original)) {
		printf("\n    crash state %u: undo says %d, %s\n", c->n, r, e.message);
	}
	CU_ASSERT(r >= 0 && memory_same(image, c->original));
}

GCLK_TEST(record, crash_during_undo)
{
	struct memory original = new_stream(STREAM_BYTES + 5), old = memory_copy(&original), log;
	struct patches *p = new_patches(&original, 0);
	struct crash c = { .original = &original, .end = STREAM_BYTES };

	GCLK_EQ(apply(&old, UINT64_MAX, p, NULL), 0);
	log = memory_copy(&old);
	GCLK_EQ(revert(&log, UINT64_MAX, NULL), 0);
	memory_crash_everywhere(&old, &log, check_revert_crash, &c);
	CU_ASSERT(c.n > 50);
	free(p);
	memory_free(&log);
	memory_free(&old);
	memory_free(&original);
}

/* A call that fails (disk full) is the same as a crash before it, with a report. */
GCLK_TEST(record, wrong_old_bytes_write_nothing)
{
	struct memory original = new_stream(STREAM_BYTES), m = memory_copy(&original);
	struct patches *p = new_patches(&original, 0);
	struct gclk_error e;

	p->old_bytes[3][5] ^= 1;
	GCLK_EQ(apply(&m, UINT64_MAX, p, &e), -GCLK_MALFORMED);
	GCLK_EQ(e.offset, 4000);
	GCLK_EQ(m.n_ops, 0);
	free(p);
	memory_free(&m);
	memory_free(&original);
}

GCLK_TEST(record, impossible_patches_are_refused)
{
	static const uint8_t bytes[16];
	static const struct {
		struct gclk_patch list[2];
		int status;
	} cases[] = {
		{ { { 20, 2, 2, bytes, bytes }, { 21, 2, 2, bytes, bytes } }, -GCLK_RANGE },
		{ { { 20, 2, 2, bytes, bytes }, { 10, 2, 2, bytes, bytes } }, -GCLK_RANGE },
		{ { { 20, 0, 2, bytes, bytes }, { 20, 0, 2, bytes, bytes } }, -GCLK_RANGE },
		{ { { 5, 2, 2, bytes, bytes }, { 99, 2, 2, bytes, bytes } }, -GCLK_RANGE },
		{ { { 5, 2, 2, bytes, bytes }, { UINT64_MAX, 2, 2, bytes, bytes } }, -GCLK_RANGE },
		{ { { 5, 2, 2, bytes, bytes }, { 50, 0, 3, bytes, bytes } }, -GCLK_UNSUPPORTED },
	};
	struct memory m = { 0 };
	struct gclk_io io = memory_io(&m);

	memory_set_size(&m, 100);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		GCLK_EQ(gclk_undo_apply(&io, UINT64_MAX, cases[i].list, 2, NULL, 0, NULL),
			cases[i].status);
		GCLK_EQ(m.n_ops, 0);
	}
	memory_free(&m);
}

/* R9: a record that does not match its bytes is refused; whichever byte it is. */
GCLK_TEST(record, any_flipped_byte_is_noticed)
{
	struct memory original = new_stream(STREAM_BYTES), good = memory_copy(&original);
	struct patches *p = new_patches(&original, 0);

	GCLK_EQ(apply(&good, UINT64_MAX, p, NULL), 0);
	for (size_t i = 0; i < good.n; i++) {
		struct memory m = memory_copy(&good);
		bool in_range = i >= STREAM_BYTES;
		int r;

		for (size_t k = 0; k < p->n; k++) {
			in_range |= i >= p->list[k].offset && i < p->list[k].offset + p->list[k].n_old;
		}
		if (!in_range && i % 50) {
			memory_free(&m);
			continue;
		}
		m.bytes[i] ^= 0x80;
		r = revert(&m, STREAM_BYTES, NULL);
		if (in_range) {
			CU_ASSERT(r < 0);
			GCLK_EQ(m.n_ops, 0);
			CU_ASSERT(apply(&m, STREAM_BYTES, p, NULL) < 0);
			GCLK_EQ(m.n_ops, 0);
		} else {	/* bytes that we never touched are not our business */
			GCLK_EQ(r, 0);
		}
		memory_free(&m);
	}
	free(p);
	memory_free(&good);
	memory_free(&original);
}

GCLK_TEST(record, any_truncation_is_noticed)
{
	struct memory original = new_stream(STREAM_BYTES), good = memory_copy(&original);
	struct patches *p = new_patches(&original, 0);

	GCLK_EQ(apply(&good, UINT64_MAX, p, NULL), 0);
	for (size_t n = STREAM_BYTES; n < good.n; n++) {
		struct memory m = memory_copy(&good);
		int r;

		memory_set_size(&m, n);
		r = revert(&m, STREAM_BYTES, NULL);
		/* without any range the rest cannot be told from foreign bytes */
		if (n >= STREAM_BYTES + 56 + 16 + 8 + 8) {
			GCLK_EQ(r, -GCLK_MALFORMED);
		}
		memory_free(&m);
	}
	free(p);
	memory_free(&good);
	memory_free(&original);
}

GCLK_TEST(record, hostile_records_are_survived)
{
	struct memory original = new_stream(STREAM_BYTES), good = memory_copy(&original);
	struct patches *p = new_patches(&original, 0);

	GCLK_EQ(apply(&good, UINT64_MAX, p, NULL), 0);
	for (unsigned i = 0; i < 3000 * gclk_test_scale(); i++) {
		struct memory m = memory_copy(&good);
		struct gclk_window w = memory_window(&m);
		enum gclk_undo_state state;
		struct gclk_undo undo;
		uint8_t buf[64];

		for (unsigned k = 0; k < 3; k++) {
			size_t at = STREAM_BYTES + gclk_random_below(m.n - STREAM_BYTES - 8);

			gclk_put_be64(m.bytes + at, gclk_random_bits());
		}
		/* as a forger would: checksums that fit */
		gclk_put_be64(m.bytes + STREAM_BYTES + 8, UINT64_C(1) << 32 | gclk_random_below(8));
		if (gclk_undo_find(&w, STREAM_BYTES, &undo, NULL) == 0) {
			(void)gclk_undo_state(&w, &undo, &state, NULL);
			(void)gclk_undo_original(&w, &undo, 0, buf, sizeof(buf), NULL);
			gclk_undo_free(&undo);
		}
		memory_free(&m);
	}
	free(p);
	memory_free(&good);
	memory_free(&original);
}

/* A header as one would be, with its own checksum right. */
static void forge_header(struct memory *m, uint64_t at, uint32_t n_ranges, uint64_t n,
			 uint64_t base)
{
	uint8_t h[56];

	memcpy(h, "GCLKUNDO", 8);
	gclk_put_be32(h + 8, 1);
	gclk_put_be32(h + 12, n_ranges);
	gclk_put_be64(h + 16, n);
	gclk_put_be64(h + 24, base);
	gclk_put_be64(h + 32, at);
	gclk_put_be64(h + 40, 0);
	gclk_put_be64(h + 48, lzma_crc64(h, 48, 0));
	memcpy(m->bytes + at, h, sizeof(h));
}

static void forge_footer(struct memory *m, uint64_t at, uint64_t n)
{
	gclk_put_be64(m->bytes + at, n);
	memcpy(m->bytes + at + 16, "GCLKDONE", 8);
}

/* Each is a megabyte long, and has the next ones in it: checksums without end. */
GCLK_TEST(record, records_within_records_are_not_looked_at_for_ever)
{
	enum { RECORDS = 40, LONG = 1 << 20 };
	struct memory m = new_stream(STREAM_BYTES);
	struct gclk_error error = { 0 };
	struct gclk_window w;
	struct gclk_undo undo;

	memory_set_size(&m, STREAM_BYTES + LONG + 24 * RECORDS + 8);
	for (unsigned i = 0; i < RECORDS; i++) {
		uint64_t at = STREAM_BYTES + 56 * i, end = STREAM_BYTES + LONG + 24 * (i + 1);

		forge_header(&m, at, 0, end - at, 0);
		forge_footer(&m, end - 24, end - at);
	}
	w = memory_window(&m);
	GCLK_EQ(gclk_undo_find(&w, STREAM_BYTES, &undo, &error), -GCLK_MALFORMED);
	CU_ASSERT(strstr(error.message, "too many") != NULL);
	memory_free(&m);
}

struct counting {
	struct memory *m;
	uint64_t last;
	unsigned backwards;
};

static int read_counting(void *ctx, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr)
{
	struct counting *c = ctx;

	c->backwards += offset < c->last;
	c->last = offset;
	return memory_read(c->m, offset, buf, n, reterr);
}

/* Of a compressed stream each step back costs all of it. */
GCLK_TEST(record, a_torn_record_is_not_read_to_and_fro)
{
	enum { RANGES = 1000 };
	struct memory m = new_stream(STREAM_BYTES);
	struct counting c = { .m = &m };
	struct gclk_window w;
	struct gclk_undo undo;
	uint64_t at = STREAM_BYTES + 56;

	memory_set_size(&m, at + RANGES * 24);
	forge_header(&m, STREAM_BYTES, RANGES, 3000000, STREAM_BYTES);
	for (unsigned i = 0; i < RANGES; i++, at += 24) {
		uint64_t where = i % 2 ? 10 : 5000;

		gclk_put_be64(m.bytes + at, where);
		gclk_put_be32(m.bytes + at + 8, 4);
		gclk_put_be32(m.bytes + at + 12, 4);
		memcpy(m.bytes + at + 16, m.bytes + where, 4);
		memcpy(m.bytes + at + 20, m.bytes + where, 4);
	}
	w = (struct gclk_window){ .read = read_counting, .ctx = &c, .size = m.n };
	GCLK_EQ(gclk_undo_find(&w, STREAM_BYTES, &undo, NULL), GCLK_UNDO_NONE);
	CU_ASSERT(c.backwards < 10);
	memory_free(&m);
}
