/* SPDX-License-Identifier: MIT */
/*
 * Images: container, stream, device tail and clock state, put together.
 */
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/domain-xml.h"
#include "image/image.h"
#include "image/qemu/carrier.h"
#include "image/worker/asker.h"

static const char *const format_names[] = { "qemu-stream", "libvirt-save", "qcow2-snapshot" };
GCLK_API const char *const *const gclk_image_format_names = format_names;

GCLK_API struct gclk_image *gclk_image_close(struct gclk_image *image)
{
	if (!image) {
		return NULL;
	}
	gclk_asker_free(image->asker);
	gclk_bindings_free(&image->bindings);
	gclk_tail_free(image->tail);
	gclk_state_free(image->state);
	gclk_container_free(image->container);
	free(image->changes);
	free(image->patches);
	free(image->bytes);
	free(image->span);
	free(image->names);
	free(image->path);
	free(image);
	return NULL;
}

static int open_container(struct gclk_image *image, const struct gclk_image_inside *inside,
			  const struct gclk_image_options *options, struct gclk_error *reterr)
{
	struct gclk_container_options how = {
		.writable = options->writable,
		.snapshot = options->snapshot,
		.spool_beside = options->spool_beside,
		.sync = options->sync,
		.progress = image->progress,
	};

	if (inside) {
		how.io = inside->io;
		how.writable = inside->io != NULL;
		return gclk_container_open_fd(inside->fd, inside->name, &how, &image->container,
					      reterr);
	}
	if (!strcmp(image->path, "-")) {
		return gclk_container_open_fd(STDIN_FILENO, "standard input", &how,
					      &image->container, reterr);
	}
	return gclk_container_open(image->path, &how, &image->container, reterr);
}

static int read_tail(struct gclk_image *image, enum gclk_view view, struct gclk_error *reterr)
{
	struct gclk_tail_options how = { .progress = image->progress.report,
					 .ctx = image->progress.ctx };
	const struct gclk_window *window;
	int r = gclk_container_window(image->container, view, &window, reterr);

	if (r < 0) {
		return r;
	}
	r = gclk_tail_read(window, window->size, &how, &image->tail, reterr);
	if (r == 0 && image->tail->walked) {
		gclk_container_set_end(image->container,
				       image->tail->offset + image->tail->size);
	}
	return r;
}

static int read_state(struct gclk_image *image, struct gclk_error *reterr)
{
	uint32_t n_vcpus = gclk_bindings_n_vcpus(image->tail);
	int r;

	if (n_vcpus < 1 || n_vcpus > GCLK_VCPUS_MAX) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "cpu", image->tail->offset,
				 "the device state has %u vCPUs; 1 to %u can be read", n_vcpus,
				 GCLK_VCPUS_MAX);
	}
	image->state = gclk_state_new(n_vcpus);
	if (!image->state) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	r = gclk_bindings_read(image->tail, image->state, &image->bindings, reterr);
	if (r == 0) {
		r = gclk_state_validate(image->state, reterr);
	}
	return r;
}

static void copy_text(char *to, size_t size, const char *from)
{
	size_t n = strnlen(from, size - 1);

	memcpy(to, from, n);
	to[n] = 0;
}

/* What the domain's XML knows better than the stream. */
static int read_domain(struct gclk_image *image, struct gclk_error *reterr)
{
	const struct gclk_libvirt_save *save = image->info->libvirt;
	struct gclk_state *state = image->state;
	const struct gclk_domain_timer *timer;
	int r;

	if (!save || !save->xml) {
		return 0;
	}
	r = gclk_domain_parse(save->xml, save->n_xml, &image->domain, reterr);
	if (r < 0) {
		return r;
	}
	image->has_domain = true;
	copy_text(state->guest.name, sizeof(state->guest.name), image->domain.name);
	copy_text(state->guest.uuid, sizeof(state->guest.uuid), image->domain.uuid);
	state->guest.has |= GCLK_BIT(guest, name) | GCLK_BIT(guest, uuid);
	timer = gclk_domain_timer(&image->domain, "rtc");
	if (timer && state->rtc.has) {
		if (!strcmp(timer->track, "guest")) {
			GCLK_SET(rtc, &state->rtc, axis, GCLK_AXIS_GUEST);
		} else if (!strcmp(timer->track, "wall")) {
			GCLK_SET(rtc, &state->rtc, axis, GCLK_AXIS_REALTIME);
		} else if (!strcmp(timer->track, "realtime")) {
			GCLK_SET(rtc, &state->rtc, axis, GCLK_AXIS_MONOTONIC);
		}
		if (timer->ticks == GCLK_DOMAIN_TICKS_CATCHUP) {
			GCLK_SET(rtc, &state->rtc, catches_up, 1);
		}
	}
	return 0;
}

static void read_uuid(struct gclk_image *image)
{
	const struct gclk_stream_head *head = &image->tail->head;
	struct gclk_guest *guest = &image->state->guest;
	static const char digits[] = "0123456789abcdef";
	char *to = guest->uuid;

	if (!head->has_uuid) {
		return;
	}
	for (unsigned i = 0; i < sizeof(head->uuid); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10) {
			*to++ = '-';
		}
		*to++ = digits[head->uuid[i] >> 4];
		*to++ = digits[head->uuid[i] & 15];
	}
	*to = 0;
	guest->has |= GCLK_BIT(guest, uuid);
}

static void read_ram_size(struct gclk_image *image)
{
	const struct gclk_stream_head *head = &image->tail->head;
	uint64_t largest = 0;

	for (size_t i = 0; i < head->n_blocks; i++) {
		largest = GCLK_MAX(largest, head->blocks[i].length);
	}
	if (largest) {
		GCLK_SET(guest, &image->state->guest, ram_bytes, largest);
	}
}

int gclk_image_read_state(struct gclk_image *image, struct gclk_error *reterr)
{
	int r = read_state(image, reterr);

	if (r == 0 && image->info) {
		r = read_domain(image, reterr);
	}
	if (r == 0) {
		read_uuid(image);
		read_ram_size(image);
	}
	return r;
}

static int read_image(struct gclk_image *image, const struct gclk_image_inside *inside,
		      const struct gclk_image_options *options, struct gclk_error *reterr)
{
	enum gclk_view view = options->as_it_stands ? GCLK_VIEW_CURRENT : GCLK_VIEW_ORIGINAL;
	int r = open_container(image, inside, options, reterr);

	if (r < 0) {
		return r;
	}
	image->info = gclk_container_info(image->container);
	if ((r = read_tail(image, view, reterr)) < 0 ||
	    (r = gclk_image_read_state(image, reterr)) < 0) {
		return r;
	}
	if (options->want_page_clock && (r = gclk_image_find_page_clock(image, reterr)) < 0) {
		return r;
	}
	gclk_image_find_evidence(image);
	return 0;
}

static int open_as(const char *path, const struct gclk_image_inside *inside,
		   const struct gclk_image_options *options, struct gclk_image **ret_image,
		   struct gclk_error *reterr)
{
	struct gclk_image *image = calloc(1, sizeof(*image));
	int r;

	if (!image || !(image->path = strdup(path))) {
		free(image);
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	image->progress.report = options->progress;
	image->progress.ctx = options->progress_ctx;
	image->plain = options->plain;
	r = options->worker ? gclk_asker_open(image, path, options, reterr) :
			      read_image(image, inside, options, reterr);
	if (r < 0) {
		gclk_image_close(image);
		return r;
	}
	*ret_image = image;
	return 0;
}

GCLK_API int gclk_image_open(const char *path, const struct gclk_image_options *options,
			     struct gclk_image **ret_image, struct gclk_error *reterr)
{
	static const struct gclk_image_options defaults;

	return open_as(path, NULL, options ? options : &defaults, ret_image, reterr);
}

int gclk_image_open_inside(const struct gclk_image_inside *inside,
			   const struct gclk_image_options *options, struct gclk_image **ret,
			   struct gclk_error *reterr)
{
	return open_as(inside->name, inside, options, ret, reterr);
}

GCLK_API enum gclk_image_format gclk_image_format(const struct gclk_image *image)
{
	if (image->asker) {
		return gclk_asker_format(image->asker);
	}
	switch (image->info->kind) {
	case GCLK_CONTAINER_LIBVIRT:
		return GCLK_FORMAT_LIBVIRT_SAVE;
	case GCLK_CONTAINER_QCOW2:
		return GCLK_FORMAT_QCOW2_SNAPSHOT;
	case GCLK_CONTAINER_STREAM:
		break;
	}
	return GCLK_FORMAT_QEMU_STREAM;
}

GCLK_API const char *gclk_image_compression(const struct gclk_image *image)
{
	const char *name = image->asker ? gclk_asker_compression(image->asker) :
				  gclk_compression_name(image->info->compression);

	return name ? name : "unknown";
}

GCLK_API const struct gclk_state *gclk_image_state(const struct gclk_image *image)
{
	return image->state;
}

GCLK_API int gclk_image_was_running(const struct gclk_image *image)
{
	const struct gclk_libvirt_save *save;

	if (image->asker) {
		return gclk_asker_was_running(image->asker);
	}
	save = image->info->libvirt;
	return save ? save->was_running != 0 : -1;
}

GCLK_API uint64_t gclk_image_digest(const struct gclk_image *image)
{
	if (image->asker) {
		return gclk_asker_digest(image->asker);
	}
	return lzma_crc64(image->tail->bytes, image->tail->size, 0);
}

GCLK_API const struct gclk_carrier *gclk_image_carrier(const struct gclk_image *image)
{
	return gclk_qemu_carrier(image->state);
}

GCLK_API unsigned gclk_image_evidence(const struct gclk_image *image,
				      const struct gclk_evidence **ret)
{
	*ret = image->evidence;
	return image->n_evidence;
}

GCLK_API const struct gclk_domain *gclk_image_domain(const struct gclk_image *image)
{
	return image->has_domain ? &image->domain : NULL;
}

GCLK_API void gclk_image_lint(const struct gclk_image *image, struct gclk_findings *findings)
{
	const struct gclk_domain_timer *tsc;

	if (!image->has_domain || image->domain.invtsc != GCLK_DOMAIN_YES) {
		return;
	}
	tsc = gclk_domain_timer(&image->domain, "tsc");
	if (!tsc || !tsc->frequency_hz) {
		gclk_findings_add(findings, "invtsc-without-frequency", "tsc",
				  "the domain has the CPU feature invtsc and no TSC frequency");
	}
}

GCLK_API int gclk_image_source_field(const struct gclk_image *image, unsigned index,
				     struct gclk_source_field *ret)
{
	struct gclk_image *i = (struct gclk_image *)(uintptr_t)image;
	const struct gclk_located *row;
	int is_signed;

	if (i->asker) {
		return gclk_asker_field(i->asker, index, ret);
	}
	if (index >= image->bindings.n) {
		return 0;
	}
	row = &image->bindings.rows[index];
	gclk_located_section(row, i->source_names[0], sizeof(i->source_names[0]));
	gclk_located_name(row, i->source_names[1], sizeof(i->source_names[1]));
	*ret = (struct gclk_source_field){
		.section = image->source_names[0],
		.instance = row->section->instance,
		.field = image->source_names[1],
		.offset = image->tail->offset + row->offset,
		.size = row->size,
		.value = gclk_located_value(row, image->tail->bytes + row->offset, &is_signed),
		.bytes = image->tail->bytes + row->offset,
	};
	ret->is_signed = (uint8_t)is_signed;
	return 1;
}

GCLK_API const void *gclk_image_record(const struct gclk_image *image, size_t *ret_size)
{
	const struct gclk_undo *undo;

	*ret_size = 0;
	if (image->asker) {
		return gclk_asker_record(image->asker, ret_size);
	}
	if (gclk_container_undo(image->container, &undo, NULL, NULL) != 0) {
		return NULL;
	}
	*ret_size = undo->n_payload;
	return undo->payload;
}

/* Of an opened container, which it frees. */
static int list_snapshots(struct gclk_container *container, struct gclk_snapshot *ret,
			  unsigned max)
{
	const struct gclk_container_info *info = gclk_container_info(container);
	unsigned n = 0;

	for (size_t i = 0; i < info->n_snapshots; i++) {
		const struct gclk_qcow2_snapshot *snapshot = &info->snapshots[i];

		if (!snapshot->vm_state_bytes) {
			continue;
		}
		if (n < max) {
			copy_text(ret[n].id, sizeof(ret[n].id), snapshot->id);
			copy_text(ret[n].name, sizeof(ret[n].name), snapshot->name);
			ret[n].date_ns = (int64_t)snapshot->date_ns;
			ret[n].state_bytes = snapshot->vm_state_bytes;
			ret[n].vm_clock_ns = snapshot->vm_clock_ns;
		}
		n++;
	}
	gclk_container_free(container);
	return (int)GCLK_MIN(n, (unsigned)INT32_MAX);
}

static const struct gclk_container_options listing = { .defer_snapshot = true };

int gclk_snapshots_of(int fd, const char *name, struct gclk_snapshot *ret, unsigned max,
		      struct gclk_error *reterr)
{
	struct gclk_container *container;
	int r = gclk_container_open_fd(fd, name, &listing, &container, reterr);

	return r < 0 ? r : list_snapshots(container, ret, max);
}

GCLK_API int gclk_image_list_snapshots(const char *path, struct gclk_snapshot *ret, unsigned max,
				       struct gclk_error *reterr)
{
	struct gclk_container *container;
	int r = gclk_container_open(path, &listing, &container, reterr);

	return r < 0 ? r : list_snapshots(container, ret, max);
}
