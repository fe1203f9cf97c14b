/* SPDX-License-Identifier: MIT */
/*
 * The live stream filter: the parser in front, an image without a container behind.
 *
 *	FILTERING --device state whole--> WHOLE --applied, next push--> THROUGH
 *	    |  \--unfilterable, some held--^ (without a state)             ^
 *	    |\---unfilterable, nothing held--------------------------------/
 *	    \----unfilterable, told to refuse----> REFUSED
 */
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "image/image.h"
#include "image/qemu/carrier.h"
#include "image/qemu/page.h"
#include "image/worker/far.h"

#define CLOCK_PAGES_MAX GCLK_WATCH_MAX
#define SILENCES 10			/* of a machine type that should describe its state */

enum mode { FILTERING, WHOLE, THROUGH, REFUSED };

/* Pages that may be the guest's clock page: its first bytes look like one. */
struct clock_pages {
	struct gclk_page *pages;	/* CLOCK_PAGES_MAX of them, or NULL */
	unsigned n;
	struct gclk_page_watch watch;
};

struct gclk_filter {
	struct gclk_far *far;		/* another process has the rest; or NULL */
	struct gclk_filter_options options;
	enum mode mode;
	struct gclk_stream *stream;
	struct gclk_image *image;	/* tail, state, bindings, changes */
	bool has_state;			/* the tail was read: a plan can be applied */
	bool applied;			/* the next push is behind the tail */
	unsigned silences;		/* told since the last byte */
	uint8_t *patched;		/* a copy of the tail; made when there is something to patch */
	struct clock_pages clock_pages;
	struct gclk_findings findings;
	uint64_t offset;		/* in the stream, of the next byte */
	struct gclk_error refused;
};

/* --- the guest's clock page --- */

static struct gclk_page *find_page(const struct clock_pages *c, const char *block,
				   uint64_t offset)
{
	for (unsigned i = 0; i < c->n; i++) {
		if (c->pages[i].offset == offset && !strcmp(c->pages[i].block, block)) {
			return &c->pages[i];
		}
	}
	return NULL;
}

static bool want_page(void *ctx, const char *block, uint64_t offset)
{
	(void)ctx;
	(void)block;
	(void)offset;
	return true;
}

/* What does not decode is the loader's to refuse: here the page is then not known. */
static int see_page(void *ctx, const struct gclk_ram_record *r, struct gclk_error *reterr)
{
	struct clock_pages *c = ctx;
	struct gclk_page *page = find_page(c, r->block, r->offset);

	(void)reterr;
	if (!page && c->n < CLOCK_PAGES_MAX && r->kind == GCLK_RAM_PAGE &&
	    gclk_page_looks_like_clock(r->bytes)) {
		page = &c->pages[c->n++];
		page->block = r->block;
		page->offset = r->offset;
		gclk_watch_add(&c->watch, r->offset);
	}
	if (page && gclk_page_apply(page, r, NULL) < 0) {
		page->known = false;
	}
	return 0;
}

static void use_clock_page(struct gclk_filter *f)
{
	const struct gclk_stream_block *block;
	const struct gclk_page *page;
	uint64_t offset;

	if (!f->clock_pages.pages ||
	    !gclk_image_page_clock_place(f->image, &block, &offset)) {
		return;
	}
	page = find_page(&f->clock_pages, block->name, offset & ~(uint64_t)(GCLK_PAGE_BYTES - 1));
	if (page && page->known) {
		gclk_image_keep_page_clock(f->image, page->bytes + offset % GCLK_PAGE_BYTES);
	}
}

/* --- the object --- */

GCLK_API struct gclk_filter *gclk_filter_free(struct gclk_filter *filter)
{
	if (filter) {
		gclk_far_free(filter->far);
		gclk_stream_free(filter->stream);
		gclk_image_close(filter->image);
		free(filter->clock_pages.pages);
		free(filter->patched);
		free(filter);
	}
	return NULL;
}

GCLK_API int gclk_filter_new(const struct gclk_filter_options *options, struct gclk_filter **ret,
			     struct gclk_error *reterr)
{
	struct gclk_filter *f = calloc(1, sizeof(*f));
	struct gclk_stream_options how = { 0 };
	int r = -GCLK_NOMEM;

	if (f && options && options->worker) {
		r = gclk_far_new(options, &f->far, reterr);
		if (r < 0) {
			gclk_filter_free(f);
			return r;
		}
		*ret = f;
		return 0;
	}
	if (!f || !(f->image = calloc(1, sizeof(*f->image)))) {
		goto fail;
	}
	if (options) {
		f->options = *options;
	}
	how.tail_bytes = f->options.tail_bytes;
	if (f->options.want_page_clock) {
		f->clock_pages.pages = calloc(CLOCK_PAGES_MAX, sizeof(*f->clock_pages.pages));
		if (!f->clock_pages.pages) {
			goto fail;
		}
		f->clock_pages.watch.clock_pages = true;
		how.ram = (struct gclk_ram_visitor){ &f->clock_pages.watch, want_page, see_page,
						     &f->clock_pages };
	}
	r = gclk_stream_new(&how, &f->stream, NULL);
	if (r == 0) {
		*ret = f;
		return 0;
	}
fail:
	gclk_filter_free(f);
	return gclk_fail(reterr, (enum gclk_status)-r, NULL, GCLK_NO_OFFSET, "out of memory");
}

GCLK_API void *gclk_filter_room(struct gclk_filter *f, size_t *ret_size)
{
	*ret_size = f->far ? GCLK_FAR_ROOM_BYTES : 0;
	return f->far ? gclk_far_room(f->far) : NULL;
}

uint64_t gclk_filter_tail_offset(const struct gclk_filter *f)
{
	return f->image->tail ? f->image->tail->offset : 0;
}

/* --- pushing --- */

static const uint8_t *held_bytes(const struct gclk_filter *f, size_t *ret_n)
{
	if (f->image->tail) {
		*ret_n = f->image->tail->size;
		return f->image->tail->bytes;
	}
	return gclk_stream_held(f->stream, ret_n);
}

/* The stream goes on without us; first of all what is held. */
static int let_go(struct gclk_filter *f)
{
	size_t n;

	held_bytes(f, &n);
	f->mode = n ? WHOLE : THROUGH;
	return n ? GCLK_FILTER_READY : GCLK_FILTER_OFF;
}

static int refuse(const struct gclk_filter *f, struct gclk_error *reterr)
{
	if (reterr) {
		*reterr = f->refused;
	}
	return -(int)f->refused.status;
}

static int unfilterable(struct gclk_filter *f, const struct gclk_error *why,
			struct gclk_error *reterr)
{
	if (f->options.unreadable == GCLK_FILTER_REFUSE) {
		f->mode = REFUSED;
		f->refused = *why;
		return refuse(f, reterr);
	}
	gclk_findings_add(&f->findings, "stream-not-filtered", "", "at byte %llu%s%s: %s",
			  (unsigned long long)(why->offset == GCLK_NO_OFFSET ?
					       f->offset : why->offset),
			  why->where[0] ? " of the stream, " : " of the stream", why->where,
			  why->message);
	return let_go(f);
}

/* The device state is there: take it, read it. */
static int read_tail(struct gclk_filter *f, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	int r = gclk_stream_take_tail(f->stream, &f->image->tail, &error);

	if (r == 0) {
		r = gclk_image_read_state(f->image, &error);
	}
	if (r < 0) {
		return unfilterable(f, &error, reterr);
	}
	use_clock_page(f);
	f->has_state = true;
	f->mode = WHOLE;
	return GCLK_FILTER_READY;
}

static int filter(struct gclk_filter *f, const void *bytes, size_t n,
		  struct gclk_stream_taken *ret, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	int r = gclk_stream_push(f->stream, bytes, n, ret, &error);

	if (r < 0) {
		*ret = (struct gclk_stream_taken){ 0 };
	}
	/* also where something else is wrong later on: that came behind this */
	if (gclk_stream_head(f->stream)->one_way && !f->options.one_way) {
		gclk_findings_add(&f->findings, "no-return-path", "",
				  "the stream begins without the command OPEN_RETURN_PATH");
		return let_go(f);
	}
	if (r < 0) {
		return unfilterable(f, &error, reterr);
	}
	return r == 0 ? read_tail(f, reterr) : GCLK_FILTER_MORE;
}

GCLK_API int gclk_filter_push(struct gclk_filter *f, const void *bytes, size_t n,
			      size_t *ret_pass, size_t *ret_held, struct gclk_error *reterr)
{
	struct gclk_stream_taken taken = { 0 };
	int r = GCLK_FILTER_OFF;

	if (f->far) {
		return gclk_far_push(f->far, bytes, n, false, ret_pass, ret_held, reterr);
	}
	if (f->mode == WHOLE && f->applied) {
		f->mode = THROUGH;
	}
	switch (f->mode) {
	case FILTERING:
		f->silences = 0;
		r = filter(f, bytes, n, &taken, reterr);
		break;
	case WHOLE:
		r = GCLK_FILTER_READY;
		break;
	case THROUGH:
		break;
	case REFUSED:
		r = refuse(f, reterr);
		break;
	}
	*ret_pass = r == GCLK_FILTER_OFF ? n : taken.passed;
	*ret_held = taken.held;
	f->offset += *ret_pass + *ret_held;
	return r;
}

GCLK_API int gclk_filter_push_most(struct gclk_filter *f, const void *bytes, size_t n,
				   size_t *ret_pass, size_t *ret_held,
				   struct gclk_error *reterr)
{
	return f->far ? gclk_far_push(f->far, bytes, n, true, ret_pass, ret_held, reterr) :
			gclk_filter_push(f, bytes, n, ret_pass, ret_held, reterr);
}

void gclk_filter_grant(const struct gclk_filter *f, struct gclk_grant *ret)
{
	*ret = (struct gclk_grant){ 0 };
	if (f->mode == FILTERING) {
		gclk_stream_grant(f->stream, ret);
	}
}

void gclk_filter_went(struct gclk_filter *f, uint64_t n, uint64_t rest)
{
	if (f->mode == FILTERING) {
		gclk_stream_went(f->stream, n, rest);
		f->offset += n;
	}
}

GCLK_API int gclk_filter_quiet(struct gclk_filter *f, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	size_t pass, held;

	if (f->far) {
		return gclk_far_quiet(f->far, reterr);
	}
	if (f->mode != FILTERING) {
		return gclk_filter_push(f, NULL, 0, &pass, &held, reterr);
	}
	/* only a state that looks whole ends so: all else is the middle of something */
	if (gclk_stream_phase(f->stream) != GCLK_STREAM_DEVICES ||
	    gclk_stream_end(f->stream, &error) != -GCLK_UNSUPPORTED) {
		return GCLK_FILTER_MORE;
	}
	/* machine types that send a configuration describe their state, unless told not to */
	if (gclk_stream_head(f->stream)->has_configuration && ++f->silences < SILENCES) {
		return GCLK_FILTER_MORE;
	}
	return unfilterable(f, &error, reterr);
}

GCLK_API int gclk_filter_end(struct gclk_filter *f, struct gclk_error *reterr)
{
	if (f->far) {
		return gclk_far_end(f->far, reterr);
	}
	if (f->mode == REFUSED) {
		return refuse(f, reterr);
	}
	return f->mode == FILTERING ? gclk_stream_end(f->stream, reterr) : 0;
}

/* --- looking --- */

GCLK_API const struct gclk_state *gclk_filter_state(const struct gclk_filter *f)
{
	if (f->far) {
		return gclk_far_state(f->far);
	}
	return f->has_state ? f->image->state : NULL;
}

GCLK_API const struct gclk_carrier *gclk_filter_carrier(const struct gclk_filter *f)
{
	const struct gclk_state *state = gclk_filter_state(f);

	return state ? gclk_qemu_carrier(state) : NULL;
}

GCLK_API const struct gclk_findings *gclk_filter_findings(const struct gclk_filter *f)
{
	return f->far ? gclk_far_findings(f->far) : &f->findings;
}

GCLK_API enum gclk_filter_phase gclk_filter_phase(const struct gclk_filter *f)
{
	static const enum gclk_filter_phase phases[] = {
		[GCLK_STREAM_HEAD] = GCLK_FILTER_BEFORE_RAM,
		[GCLK_STREAM_SETUP] = GCLK_FILTER_BEFORE_RAM,
		[GCLK_STREAM_ROUNDS] = GCLK_FILTER_RAM,
		[GCLK_STREAM_FINAL] = GCLK_FILTER_FINAL,
		[GCLK_STREAM_DEVICES] = GCLK_FILTER_TAIL,
		[GCLK_STREAM_DONE] = GCLK_FILTER_WHOLE,
		[GCLK_STREAM_FAILED] = GCLK_FILTER_THROUGH,
	};

	if (f->far) {
		return gclk_far_phase(f->far);
	}
	switch (f->mode) {
	case WHOLE:
		return GCLK_FILTER_WHOLE;
	case THROUGH:
		return GCLK_FILTER_THROUGH;
	case REFUSED:
		return GCLK_FILTER_REFUSED;
	case FILTERING:
		break;
	}
	return phases[gclk_stream_phase(f->stream)];
}

GCLK_API uint64_t gclk_filter_offset(const struct gclk_filter *f)
{
	return f->far ? gclk_far_offset(f->far) : f->offset;
}

static const struct gclk_stream_head *head(const struct gclk_filter *f)
{
	return f->image->tail ? &f->image->tail->head : gclk_stream_head(f->stream);
}

GCLK_API int gclk_filter_was_running(const struct gclk_filter *f)
{
	if (f->far) {
		return gclk_far_was_running(f->far);
	}
	if (!f->has_state || !GCLK_HAS(guest, &f->image->state->guest, run_state)) {
		return -1;
	}
	return f->image->state->guest.run_state == GCLK_RUN_RUNNING;
}

GCLK_API const char *gclk_filter_machine(const struct gclk_filter *f)
{
	if (f->far) {
		return gclk_far_machine(f->far);
	}
	return head(f)->machine;
}

GCLK_API int gclk_filter_uuid(const struct gclk_filter *f, uint8_t ret[16])
{
	if (f->far) {
		return gclk_far_uuid(f->far, ret);
	}
	if (!head(f)->has_uuid) {
		return 0;
	}
	memcpy(ret, head(f)->uuid, 16);
	return 1;
}

/* --- applying --- */

static int patch(struct gclk_filter *f, const struct gclk_plan *plan, struct gclk_error *reterr)
{
	const struct gclk_tail *tail = f->image->tail;
	const struct gclk_image_change *changes;
	unsigned n;
	int r = gclk_image_encode(f->image, plan, &changes, &n, reterr);

	if (r < 0) {
		return r;
	}
	if (!f->patched && !(f->patched = malloc(tail->size))) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	memcpy(f->patched, tail->bytes, tail->size);
	for (unsigned i = 0; i < n; i++) {
		const struct gclk_patch *p = &f->image->patches[i];

		memcpy(f->patched + (p->offset - tail->offset), p->new_bytes, p->n_new);
	}
	return 0;
}

GCLK_API int gclk_filter_apply(struct gclk_filter *f, const struct gclk_plan *plan,
			       const uint8_t **ret_bytes, size_t *ret_n,
			       struct gclk_error *reterr)
{
	const uint8_t *bytes;
	size_t n;
	int r;

	if (f->far) {
		return gclk_far_apply(f->far, plan, ret_bytes, ret_n, reterr);
	}
	if (f->mode == REFUSED) {
		return refuse(f, reterr);
	}
	f->image->n_changes = 0;
	if (f->mode == THROUGH) {
		*ret_bytes = (const uint8_t *)"";
		*ret_n = 0;
		return 0;
	}
	bytes = held_bytes(f, &n);
	if (plan && !f->has_state) {
		return gclk_fail(reterr, GCLK_STATE, NULL, f->offset,
				 "a plan for a stream whose state is not known");
	}
	if (plan) {
		r = patch(f, plan, reterr);
		if (r < 0) {
			return r;
		}
		bytes = f->patched;
	}
	f->mode = WHOLE;
	f->applied = true;
	*ret_bytes = bytes ? bytes : (const uint8_t *)"";
	*ret_n = n;
	return 0;
}

GCLK_API unsigned gclk_filter_changes(const struct gclk_filter *f,
				      const struct gclk_image_change **ret)
{
	if (f->far) {
		return gclk_far_changes(f->far, ret);
	}
	*ret = f->image->changes;
	return f->image->changes ? f->image->n_changes : 0;
}
