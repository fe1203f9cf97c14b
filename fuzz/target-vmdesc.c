/* SPDX-License-Identifier: MIT */
/* QEMU's description of its device state: a length, the JSON, the sections that it fits. */
#include <string.h>

#include "fuzz.h"
#include "image/qemu/vmdesc.h"

static int visit(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	size_t size = *(size_t *)ctx;

	FUZZ_CHECK(leaf->path && (size_t)leaf->offset + leaf->size <= size);
	return 0;
}

static void use(const struct gclk_vmdesc *d, size_t size)
{
	struct gclk_vmdesc_field field;

	gclk_vmdesc_walk(d, NULL, visit, &size);
	gclk_vmdesc_walk(d, "timer", visit, &size);
	for (size_t i = 0; i < gclk_vmdesc_n_sections(d); i++) {
		const struct gclk_vmdesc_section *s = gclk_vmdesc_section(d, i);

		if (gclk_vmdesc_field(d, s, "timer[2].cmp", &field) ||
		    gclk_vmdesc_field(d, s, "channels[1].count", &field) ||
		    gclk_vmdesc_field(d, s, "cpu/tsc_khz:env.tsc_khz", &field)) {
			FUZZ_CHECK((size_t)field.offset + (size_t)field.size * field.count <= size);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_vmdesc *d = NULL;
	struct gclk_error error = { 0 };
	size_t n, n_json;
	int r;

	if (size < 4) {
		return 0;
	}
	n_json = (size_t)data[0] << 24 | (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];
	n = size - 4;
	n_json = n_json < n ? n_json : n;
	r = gclk_vmdesc_parse(data + 4, n_json, &d, &error);
	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0] && !d);
		return 0;
	}
	for (int footers = 0; footers < 2; footers++) {
		gclk_vmdesc_tail_size(d, footers);
		if (gclk_vmdesc_tile(d, data + 4 + n_json, n - n_json, footers, &error) == 0) {
			use(d, n - n_json);
		}
	}
	gclk_vmdesc_free(d);
	return 0;
}
