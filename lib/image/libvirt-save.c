/* SPDX-License-Identifier: MIT */
#include <byteswap.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "image/libvirt-save.h"

#define MAGIC_BYTES 16
#define MAX_VERSION 2
#define FORMAT_SPARSE 6

static const char whole[] = "LibvirtQemudSave";
static const char part[] = "LibvirtQemudPart";

bool gclk_libvirt_save_probe(const void *bytes, size_t n)
{
	return n >= MAGIC_BYTES &&
	       (!memcmp(bytes, whole, MAGIC_BYTES) || !memcmp(bytes, part, MAGIC_BYTES));
}

/* In this machine's order; the caller swaps if the writer's was the other one. */
static uint32_t word(const uint8_t *header, size_t at)
{
	uint32_t v;

	memcpy(&v, header + at, sizeof(v));
	return v;
}

static void read_words(const uint8_t *header, struct gclk_libvirt_save *save)
{
	uint32_t *const words[5] = { &save->version, &save->data_len, &save->was_running,
				     &save->format, &save->cookie_offset };

	/* A version is small; one that is not small is small in the other order. */
	save->swapped = word(header, MAGIC_BYTES) > MAX_VERSION;
	for (size_t i = 0; i < 5; i++) {
		uint32_t v = word(header, MAGIC_BYTES + 4 * i);

		*words[i] = save->swapped ? bswap_32(v) : v;
	}
}

static int check_format(uint32_t format, struct gclk_error *reterr)
{
	if (format == FORMAT_SPARSE) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "libvirt header", 28,
				 "the image is in format 6, sparse (QEMU's mapped-ram), whose pages "
				 "have fixed places; save it as raw");
	}
	if (format > GCLK_COMPRESSION_ZSTD) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "libvirt header", 28,
				 "format %" PRIu32 " is not known, only 0 to %d", format,
				 GCLK_COMPRESSION_ZSTD);
	}
	return 0;
}

int gclk_libvirt_save_header(const void *bytes, struct gclk_libvirt_save *ret,
			     struct gclk_error *reterr)
{
	struct gclk_libvirt_save save = { 0 };

	if (!memcmp(bytes, part, MAGIC_BYTES)) {
		return gclk_fail(reterr, GCLK_STATE, "libvirt header", 0,
				 "the image is incomplete: its save is running or has failed, and "
				 "libvirt will not restore it");
	}
	if (memcmp(bytes, whole, MAGIC_BYTES)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "libvirt header", 0,
				 "no libvirt save image begins so");
	}
	read_words(bytes, &save);
	if (save.version < 1 || save.version > MAX_VERSION) {
		return gclk_fail(reterr, GCLK_VERSION, "libvirt header", 16,
				 "version %" PRIu32 " is not known in either byte order",
				 save.version);
	}
	if (save.data_len < 1 || save.data_len > GCLK_LIBVIRT_MAX_DATA) {
		return gclk_fail(reterr, GCLK_RANGE, "libvirt header", 20,
				 "%" PRIu32 " bytes of XML cannot be; at most %" PRIu32
				 " are read", save.data_len, GCLK_LIBVIRT_MAX_DATA);
	}
	if (save.cookie_offset >= save.data_len) {
		return gclk_fail(reterr, GCLK_RANGE, "libvirt header", 32,
				 "the cookie at %" PRIu32 " lies behind the %" PRIu32 " bytes that "
				 "hold it", save.cookie_offset, save.data_len);
	}
	*ret = save;
	return check_format(save.format, reterr);
}

/* A terminated text of @data [from, to) as a string of its own. */
static int take_text(const char *data, size_t from, size_t to, const char *what, char **ret,
		     size_t *ret_n, struct gclk_error *reterr)
{
	size_t n = strnlen(data + from, to - from);
	char *text;

	if (n == to - from) {
		return gclk_fail(reterr, GCLK_MALFORMED, what, GCLK_LIBVIRT_HEADER_BYTES + from,
				 "the %s does not end before byte %zu", what,
				 GCLK_LIBVIRT_HEADER_BYTES + to);
	}
	text = strndup(data + from, n);
	if (!text) {
		return gclk_fail(reterr, GCLK_NOMEM, what, GCLK_NO_OFFSET,
				 "no memory for %zu bytes", n);
	}
	*ret = text;
	*ret_n = n;
	return 0;
}

int gclk_libvirt_save_texts(struct gclk_libvirt_save *save, const void *data,
			    struct gclk_error *reterr)
{
	char *xml = NULL, *cookie = NULL;
	size_t n_xml = 0, n_cookie = 0;
	int r;

	/* Old writers give no cookie: then the XML has all the room. */
	r = take_text(data, 0, save->cookie_offset ? save->cookie_offset : save->data_len,
		      "domain XML", &xml, &n_xml, reterr);
	if (r < 0) {
		return r;
	}
	if (save->cookie_offset) {
		r = take_text(data, save->cookie_offset, save->data_len, "cookie", &cookie,
			      &n_cookie, reterr);
	}
	if (r < 0) {
		free(xml);
		return r;
	}
	save->xml = xml;
	save->n_xml = n_xml;
	save->cookie = cookie;
	save->n_cookie = n_cookie;
	return 0;
}

void gclk_libvirt_save_free(struct gclk_libvirt_save *save)
{
	free(save->xml);
	free(save->cookie);
	*save = (struct gclk_libvirt_save){ 0 };
}
