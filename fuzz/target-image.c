/* SPDX-License-Identifier: MIT */
/* A file of any known format, recognised by its content; also for the target qcow2. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <guestclock/image.h>

#include "fuzz.h"

static void use(struct gclk_image *image)
{
	const struct gclk_evidence *evidence;
	struct gclk_findings findings = { 0 };
	struct gclk_source_field field;
	size_t n;

	for (unsigned i = 0; gclk_image_source_field(image, i, &field); i++) {
		FUZZ_CHECK(field.section && field.field && field.bytes);
	}
	gclk_image_lint(image, &findings);
	gclk_lint(gclk_image_state(image), NULL, NULL, &findings);
	gclk_image_evidence(image, &evidence);
	gclk_image_record(image, &n);
	gclk_image_domain(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	struct gclk_image_options options = { .want_page_clock = 1 };
	struct gclk_image *image = NULL;
	struct gclk_snapshot snapshots[4];
	struct gclk_error error = { 0 };
	int r;

	/* lzop is another program, made anew for each input: not ours to fuzz */
	if (fd < 0) {
		fd = memfd_create("input", 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size ||
	    (size > 4 && !memcmp(data, "\x89LZO", 4))) {
		return 0;
	}
	r = gclk_image_open(path, &options, &image, &error);
	if (r == 0) {
		use(image);
	} else {
		FUZZ_CHECK(error.status == -r && error.message[0] && !image);
	}
	gclk_image_close(image);
	gclk_image_list_snapshots(path, snapshots, 4, &error);
	return 0;
}
