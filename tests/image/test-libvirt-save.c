/* SPDX-License-Identifier: MIT */
#include <byteswap.h>
#include <stdlib.h>
#include <string.h>

#include "gclk-test.h"
#include "image/libvirt-save.h"

#define XML "<domain type='kvm'><name>guest</name></domain>"
#define COOKIE "<cookie><slirpHelper/></cookie>"
#define PADDING 1024

struct save {
	uint8_t header[GCLK_LIBVIRT_HEADER_BYTES];
	char data[sizeof(XML) + sizeof(COOKIE) + PADDING];
};

static void set_word(struct save *s, size_t i, uint32_t v, bool swap)
{
	v = swap ? bswap_32(v) : v;
	memcpy(s->header + 16 + 4 * i, &v, 4);
}

static struct save new_save(bool swap)
{
	struct save s = { 0 };

	memcpy(s.header, "LibvirtQemudSave", 16);
	set_word(&s, 0, 2, swap);
	set_word(&s, 1, sizeof(s.data), swap);
	set_word(&s, 2, 1, swap);
	set_word(&s, 3, 3, swap);
	set_word(&s, 4, sizeof(XML), swap);
	memcpy(s.data, XML, sizeof(XML));
	memcpy(s.data + sizeof(XML), COOKIE, sizeof(COOKIE));
	return s;
}

GCLK_TEST(libvirt_save, either_byte_order_is_read)
{
	for (int swap = 0; swap < 2; swap++) {
		struct save s = new_save(swap);
		struct gclk_libvirt_save save;

		CU_ASSERT(gclk_libvirt_save_probe(s.header, 16));
		GCLK_EQ(gclk_libvirt_save_header(s.header, &save, NULL), 0);
		GCLK_EQ(save.swapped, swap);
		GCLK_EQ(save.version, 2);
		GCLK_EQ(save.data_len, sizeof(s.data));
		GCLK_EQ(save.was_running, 1);
		GCLK_EQ(save.format, GCLK_COMPRESSION_XZ);
		GCLK_EQ(save.cookie_offset, sizeof(XML));
		GCLK_EQ(gclk_libvirt_save_texts(&save, s.data, NULL), 0);
		CU_ASSERT_STRING_EQUAL(save.xml, XML);
		CU_ASSERT_STRING_EQUAL(save.cookie, COOKIE);
		GCLK_EQ(save.n_xml, strlen(XML));
		GCLK_EQ(save.n_cookie, strlen(COOKIE));
		gclk_libvirt_save_free(&save);
	}
}

GCLK_TEST(libvirt_save, no_cookie_is_fine)
{
	struct save s = new_save(false);
	struct gclk_libvirt_save save;

	set_word(&s, 0, 1, false);
	set_word(&s, 4, 0, false);
	GCLK_EQ(gclk_libvirt_save_header(s.header, &save, NULL), 0);
	GCLK_EQ(gclk_libvirt_save_texts(&save, s.data, NULL), 0);
	CU_ASSERT_STRING_EQUAL(save.xml, XML);
	CU_ASSERT_PTR_NULL(save.cookie);
	gclk_libvirt_save_free(&save);
}

GCLK_TEST(libvirt_save, what_cannot_be_is_refused_by_name)
{
	static const struct {
		size_t word;
		uint32_t value;
		int status;
		const char *says;
	} cases[] = {
		{ 0, 0, -GCLK_VERSION, "version 0" },
		{ 0, 3, -GCLK_VERSION, "byte order" },
		{ 0, 0x03000000, -GCLK_VERSION, "version 3" },
		{ 1, 0, -GCLK_RANGE, "0 bytes" },
		{ 1, UINT32_MAX, -GCLK_RANGE, "4294967295" },
		{ 3, 6, -GCLK_UNSUPPORTED, "mapped-ram" },
		{ 3, 7, -GCLK_UNSUPPORTED, "format 7" },
		{ 4, sizeof(((struct save *)0)->data), -GCLK_RANGE, "cookie" },
		{ 4, UINT32_MAX, -GCLK_RANGE, "cookie" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct save s = new_save(false);
		struct gclk_libvirt_save save;
		struct gclk_error e = { 0 };

		set_word(&s, cases[i].word, cases[i].value, false);
		GCLK_EQ(gclk_libvirt_save_header(s.header, &save, &e), cases[i].status);
		CU_ASSERT_PTR_NOT_NULL(strstr(e.message, cases[i].says));
	}
}

GCLK_TEST(libvirt_save, an_incomplete_image_is_refused)
{
	struct save s = new_save(false);
	struct gclk_libvirt_save save;
	struct gclk_error e;

	memcpy(s.header, "LibvirtQemudPart", 16);
	CU_ASSERT(gclk_libvirt_save_probe(s.header, 16));
	GCLK_EQ(gclk_libvirt_save_header(s.header, &save, &e), -GCLK_STATE);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "incomplete"));
	s.header[3] = 'x';
	CU_ASSERT_FALSE(gclk_libvirt_save_probe(s.header, 16));
	GCLK_EQ(gclk_libvirt_save_header(s.header, &save, &e), -GCLK_MALFORMED);
}

GCLK_TEST(libvirt_save, texts_must_end)
{
	struct save s = new_save(false);
	struct gclk_libvirt_save save;

	GCLK_EQ(gclk_libvirt_save_header(s.header, &save, NULL), 0);
	memset(s.data + strlen(XML), ' ', sizeof(s.data) - strlen(XML));
	GCLK_EQ(gclk_libvirt_save_texts(&save, s.data, NULL), -GCLK_MALFORMED);
	s.data[sizeof(XML) - 1] = 0;	/* the XML ends, the cookie does not */
	GCLK_EQ(gclk_libvirt_save_texts(&save, s.data, NULL), -GCLK_MALFORMED);
	CU_ASSERT_PTR_NULL(save.xml);
}

/* Whatever byte is wrong: an error, or numbers within their limits. */
GCLK_TEST(libvirt_save, any_flipped_byte_is_survived)
{
	for (size_t i = 0; i < GCLK_LIBVIRT_HEADER_BYTES; i++) {
		for (int bit = 0; bit < 8; bit++) {
			struct save s = new_save(bit & 1);
			struct gclk_libvirt_save save;
			char *data;

			s.header[i] ^= (uint8_t)(1 << bit);
			if (gclk_libvirt_save_header(s.header, &save, NULL) < 0) {
				continue;
			}
			CU_ASSERT(save.data_len <= GCLK_LIBVIRT_MAX_DATA);
			data = calloc(1, save.data_len);
			memcpy(data, s.data, save.data_len < sizeof(s.data) ? save.data_len :
							       sizeof(s.data));
			if (gclk_libvirt_save_texts(&save, data, NULL) == 0) {
				CU_ASSERT(save.n_xml < save.data_len);
			}
			gclk_libvirt_save_free(&save);
			free(data);
		}
	}
}
