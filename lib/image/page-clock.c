/* SPDX-License-Identifier: MIT */
/*
 * The guest's paravirtual clock at the stop. Its page in guest memory, evaluated
 * at the saved TSC, gives what the guest read last; the clock in the stream was
 * read later, and the difference is the pause between stop and save.
 */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/pvclock.h"
#include "core/util.h"
#include "image/image.h"
#include "image/qemu/page.h"

#define FOUR_GIB (UINT64_C(1) << 32)
#define ENABLED 1u

/* Guest memory below 4 GiB, as QEMU's machines lay it out. */
static uint64_t low_memory(const char *machine, uint64_t ram)
{
	if (strstr(machine, "q35")) {
		return ram >= UINT64_C(0xb0000000) ? UINT64_C(0x80000000) : ram;
	}
	return ram >= UINT64_C(0xe0000000) ? UINT64_C(0xc0000000) : ram;
}

/* Main memory is one block, the largest; what is above 4 GiB follows what is below. */
static const struct gclk_stream_block *main_memory(const struct gclk_stream_head *head)
{
	const struct gclk_stream_block *largest = NULL;

	for (size_t i = 0; i < head->n_blocks; i++) {
		if (!largest || head->blocks[i].length > largest->length) {
			largest = &head->blocks[i];
		}
	}
	return largest;
}

static int block_offset(const struct gclk_stream_head *head,
			const struct gclk_stream_block *block, uint64_t address,
			uint64_t *ret_offset)
{
	uint64_t low = low_memory(head->machine, block->length);

	if (address < low) {
		*ret_offset = address;
	} else if (address >= FOUR_GIB) {
		*ret_offset = address - FOUR_GIB + low;
	} else {
		return -1;
	}
	return *ret_offset < block->length ? 0 : -1;
}

static bool is_needed(const struct gclk_state *state)
{
	return GCLK_HAS(kvmclock, &state->kvmclock, clock_ns) &&
	       (state->guest.run_state != GCLK_RUN_PAUSED || !state->kvmclock.reliable) &&
	       (state->vcpu[0].system_time_msr & ENABLED);
}

bool gclk_image_page_clock_place(const struct gclk_image *image,
				 const struct gclk_stream_block **ret_block, uint64_t *ret_offset)
{
	const struct gclk_state *state = image->state;
	const struct gclk_stream_head *head = &image->tail->head;
	uint64_t address = state->vcpu[0].system_time_msr & ~(uint64_t)ENABLED;

	*ret_block = main_memory(head);
	return is_needed(state) && *ret_block &&
	       block_offset(head, *ret_block, address, ret_offset) == 0 &&
	       *ret_offset % GCLK_PAGE_BYTES <= GCLK_PAGE_BYTES - GCLK_PVCLOCK_BYTES;
}

void gclk_image_keep_page_clock(struct gclk_image *image,
				const uint8_t bytes[GCLK_PVCLOCK_BYTES])
{
	struct gclk_state *state = image->state;
	struct gclk_vcpu *vcpu = &state->vcpu[0];
	struct gclk_pvclock page;
	uint64_t at_stop;

	if (gclk_pvclock_parse(bytes, &page, NULL) < 0) {
		return;
	}
	GCLK_SET(vcpu, vcpu, pvclock_tsc_ticks, page.tsc_timestamp);
	GCLK_SET(vcpu, vcpu, pvclock_system_ns, page.system_time_ns);
	GCLK_SET(vcpu, vcpu, pvclock_mul, page.scale.mul);
	GCLK_SET(vcpu, vcpu, pvclock_shift, page.scale.shift);
	GCLK_SET(vcpu, vcpu, pvclock_flags, page.flags);
	if (gclk_pvclock_ns_at(&page, state->tsc[0].value_ticks, &at_stop) < 0) {
		return;
	}
	GCLK_SET(kvmclock, &state->kvmclock, read_after_stop_ns,
		 state->kvmclock.clock_ns > at_stop ? state->kvmclock.clock_ns - at_stop : 0);
}

int gclk_image_find_page_clock(struct gclk_image *image, struct gclk_error *reterr)
{
	struct gclk_tail_options how = { .progress = image->progress.report,
					 .ctx = image->progress.ctx };
	const struct gclk_stream_block *block;
	const struct gclk_window *window;
	struct gclk_page *page;
	uint64_t offset;
	int r;

	if (!gclk_image_page_clock_place(image, &block, &offset)) {
		return 0;
	}
	page = calloc(1, sizeof(*page));
	if (!page) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	page->block = block->name;
	page->offset = offset / GCLK_PAGE_BYTES * GCLK_PAGE_BYTES;
	r = gclk_container_window(image->container, GCLK_VIEW_ORIGINAL, &window, reterr);
	if (r == 0) {
		struct gclk_pages pages = { page, 1 };
		struct gclk_ram_visitor visitor = gclk_pages_visitor(&pages);

		r = gclk_tail_walk_ram(window, &visitor, &how, reterr);
	}
	if (r == 0 && page->known) {
		gclk_image_keep_page_clock(image, page->bytes + offset % GCLK_PAGE_BYTES);
	}
	free(page);
	return r;
}
