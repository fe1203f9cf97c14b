/* SPDX-License-Identifier: MIT */
/* The record behind a rewritten image (R9): it is found, believed only if it fits, and taken back. */
#include <lzma.h>
#include <string.h>

#include "core/cursor.h"
#include "fuzz.h"
#include "image/record.h"

struct file { uint8_t *bytes; size_t n, max; };

static int read_at(void *ctx, uint64_t offset, void *buf, size_t n, struct gclk_error *reterr)
{
	const struct file *file = ctx;

	(void)reterr;
	FUZZ_CHECK(offset <= file->n && n <= file->n - offset);
	if (n) {
		memcpy(buf, file->bytes + offset, n);
	}
	return 0;
}

static void use(const struct gclk_window *w, const struct gclk_undo *undo)
{
	enum gclk_undo_state state;
	uint8_t byte;

	for (size_t i = 0; i < undo->n_patches; i++) {
		FUZZ_CHECK(undo->patches[i].offset + undo->patches[i].n_old >= undo->patches[i].offset);
	}
	if (gclk_undo_state(w, undo, &state, NULL) == 0) {
		for (uint64_t at = 0; at < w->size && at < 4096; at++) {
			gclk_undo_original(w, undo, at, &byte, 1, NULL);
		}
	}
}

/* The checksums of what claims to be a record at the end, or nothing behind them is met. */
static void mend(struct file *file)
{
	uint8_t *end = file->bytes + file->n, *header;
	uint64_t n = file->n < 80 ? 0 : gclk_get_be64(end - 24);

	if (n < 80 || n > file->n) {
		return;
	}
	header = end - n;
	gclk_put_be64(header + 48, lzma_crc64(header, 48, 0));
	gclk_put_be64(end - 16, lzma_crc64(header, n - 16, 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file file = { .n = size };
	struct gclk_window w = { .read = read_at, .size = size, .ctx = &file };
	struct gclk_undo undo;
	struct gclk_error error = { 0 };
	int r;

	file.bytes = malloc(size + 1);
	FUZZ_CHECK(file.bytes);
	if (size) {
		memcpy(file.bytes, data, size);
	}
	if (fuzz_hash(data, size) % 16) {
		mend(&file);
	}
	for (int known = 0; known < 2; known++) {
		r = gclk_undo_find(&w, known ? size / 2 : GCLK_UNDO_UNKNOWN_END, &undo, &error);
		FUZZ_CHECK(r >= 0 || (error.status == -r && error.message[0]));
		if (r == 0) {
			use(&w, &undo);
			gclk_undo_free(&undo);
		}
	}
	r = gclk_undo_unpack(file.bytes, size, 0, &undo, &error);
	if (r == 0) {
		use(&w, &undo);
		gclk_undo_free(&undo);
	}
	free(file.bytes);
	return 0;
}
