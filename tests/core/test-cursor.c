/* SPDX-License-Identifier: MIT */
#include "core/cursor.h"
#include "property.h"

static const uint8_t bytes[16] = {
	0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
	0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88,
};

GCLK_TEST(cursor, byte_orders)
{
	uint8_t back[8];

	GCLK_EQ(gclk_get_be16(bytes + 8), 0xf1e2);
	GCLK_EQ(gclk_get_be32(bytes + 8), 0xf1e2d3c4);
	GCLK_EQ(gclk_get_be64(bytes + 8), 0xf1e2d3c4b5a69788);
	GCLK_EQ(gclk_get_le16(bytes + 8), 0xe2f1);
	GCLK_EQ(gclk_get_le32(bytes + 8), 0xc4d3e2f1);
	GCLK_EQ(gclk_get_le64(bytes + 8), 0x8897a6b5c4d3e2f1);
	gclk_put_be64(back, 0xf1e2d3c4b5a69788);
	CU_ASSERT(!memcmp(back, bytes + 8, 8));
	gclk_put_le64(back, 0x8897a6b5c4d3e2f1);
	CU_ASSERT(!memcmp(back, bytes + 8, 8));
	gclk_put_be32(back, 0xf1e2d3c4);
	gclk_put_be16(back + 4, 0xb5a6);
	gclk_put_le16(back + 6, 0x8897);
	CU_ASSERT(!memcmp(back, bytes + 8, 8));
	gclk_put_le32(back, 0xc4d3e2f1);
	CU_ASSERT(!memcmp(back, bytes + 8, 4));
}

GCLK_TEST(cursor, widths_of_a_table)
{
	static const size_t widths[] = { 1, 2, 4, 8 };

	for (size_t i = 0; i < GCLK_COUNT(widths); i++) {
		uint8_t back[8] = { 0 };

		GCLK_EQ(gclk_get_be(bytes + 8, widths[i]),
			0xf1e2d3c4b5a69788 >> (64 - 8 * widths[i]));
		gclk_put_be(back, widths[i], gclk_get_be(bytes + 8, widths[i]));
		CU_ASSERT(!memcmp(back, bytes + 8, widths[i]));
		for (size_t k = widths[i]; k < 8; k++) {
			GCLK_EQ(back[k], 0);
		}
	}
	GCLK_EQ(gclk_get_be(bytes, 3), 0);
}

GCLK_TEST(cursor, reads_in_order)
{
	struct gclk_cursor c = gclk_cursor_of(bytes, sizeof(bytes), 1000);
	uint8_t two[2];

	GCLK_EQ(gclk_cursor_u8(&c), 1);
	GCLK_EQ(gclk_cursor_be16(&c), 0x0203);
	GCLK_EQ(gclk_cursor_le16(&c), 0x0504);
	gclk_cursor_skip(&c, 1);
	gclk_cursor_copy(&c, two, 2);
	CU_ASSERT(two[0] == 7 && two[1] == 8);
	GCLK_EQ(gclk_cursor_position(&c), 1008);
	GCLK_EQ(gclk_cursor_left(&c), 8);
	GCLK_EQ(gclk_cursor_finish_all(&c, "x", NULL), -GCLK_MALFORMED);
	GCLK_EQ(gclk_cursor_be32(&c), 0xf1e2d3c4);
	GCLK_EQ(gclk_cursor_le32(&c), 0x8897a6b5);
	CU_ASSERT(gclk_cursor_ok(&c));
	GCLK_EQ(gclk_cursor_finish(&c, "x", NULL), 0);
	GCLK_EQ(gclk_cursor_finish_all(&c, "x", NULL), 0);
	CU_ASSERT(gclk_cursor_take(&c, 0) == bytes + 16);
}

GCLK_TEST(cursor, remembers_the_first_failure)
{
	struct gclk_cursor c = gclk_cursor_of(bytes, sizeof(bytes), 1000);
	struct gclk_error err = { 0 };
	uint8_t four[4] = { 9, 9, 9, 9 };

	gclk_cursor_skip(&c, 10);
	GCLK_EQ(gclk_cursor_be64(&c), 0);
	CU_ASSERT(!gclk_cursor_ok(&c));
	GCLK_EQ(gclk_cursor_left(&c), 0);
	GCLK_EQ(gclk_cursor_u8(&c), 0);		/* it would have been there */
	CU_ASSERT_PTR_NULL(gclk_cursor_take(&c, 0));
	gclk_cursor_copy(&c, four, 4);
	CU_ASSERT(!four[0] && !four[1] && !four[2] && !four[3]);
	gclk_cursor_fail(&c, -GCLK_MALFORMED);	/* too late */
	GCLK_EQ(gclk_cursor_finish(&c, "header", &err), -GCLK_TRUNCATED);
	GCLK_EQ(err.status, GCLK_TRUNCATED);
	GCLK_EQ(err.offset, 1010);
	CU_ASSERT_STRING_EQUAL(err.where, "header");
	CU_ASSERT_PTR_NOT_NULL(
		strstr(err.message, "8 bytes are needed at offset 1010, 6 are"));
	GCLK_EQ(gclk_cursor_finish_all(&c, "header", &err), -GCLK_TRUNCATED);
}

GCLK_TEST(cursor, takes_the_caller_s_verdict)
{
	struct gclk_cursor c = gclk_cursor_of(bytes, sizeof(bytes), 0);
	struct gclk_error err = { 0 };

	gclk_cursor_skip(&c, 4);
	gclk_cursor_fail(&c, -GCLK_VERSION);
	GCLK_EQ(gclk_cursor_be32(&c), 0);
	GCLK_EQ(gclk_cursor_finish(&c, "header", &err), -GCLK_VERSION);
	GCLK_EQ(err.offset, 4);
}

GCLK_TEST(cursor, sub_cursor)
{
	struct gclk_cursor c = gclk_cursor_of(bytes, sizeof(bytes), 1000), sub;
	struct gclk_error err;

	gclk_cursor_skip(&c, 2);
	sub = gclk_cursor_sub(&c, 6);
	GCLK_EQ(gclk_cursor_position(&c), 1008);
	GCLK_EQ(gclk_cursor_position(&sub), 1002);
	GCLK_EQ(gclk_cursor_be32(&sub), 0x03040506);
	GCLK_EQ(gclk_cursor_be32(&sub), 0); /* 2 left in it, though more in the whole */
	GCLK_EQ(gclk_cursor_finish(&sub, "part", &err), -GCLK_TRUNCATED);
	GCLK_EQ(err.offset, 1006);
	CU_ASSERT(gclk_cursor_ok(&c));
	sub = gclk_cursor_sub(&c, UINT64_MAX);
	CU_ASSERT(!gclk_cursor_ok(&c) && !gclk_cursor_ok(&sub));
	GCLK_EQ(gclk_cursor_u8(&sub), 0);
	GCLK_EQ(gclk_cursor_finish(&sub, "part", &err), -GCLK_TRUNCATED);
	GCLK_EQ(err.offset, 1008);
}

GCLK_TEST(cursor, empty_input)
{
	struct gclk_cursor c = gclk_cursor_of(NULL, 0, 0), sub;

	CU_ASSERT_PTR_NOT_NULL(gclk_cursor_take(&c, 0));
	sub = gclk_cursor_sub(&c, 0);
	GCLK_EQ(gclk_cursor_finish_all(&sub, "x", NULL), 0);
	GCLK_EQ(gclk_cursor_finish_all(&c, "x", NULL), 0);
	GCLK_EQ(gclk_cursor_u8(&c), 0);
	GCLK_EQ(gclk_cursor_finish(&c, "x", NULL), -GCLK_TRUNCATED);
}

/*
 * Random reads of a heap block of the exact size (so that a sanitizer sees any byte too
 * far) against a plain index.
 */
GCLK_TEST(cursor, never_leaves_its_bytes)
{
	for (uint64_t i = 0; i < N_RANDOM / 10; i++) {
		size_t size = gclk_random_below(64), at = 0;
		uint8_t *block = malloc(size + !size);
		struct gclk_cursor c = gclk_cursor_of(block, size, i);
		bool failed = false;

		for (size_t k = 0; k < size; k++) {
			block[k] = (uint8_t)gclk_random();
		}
		for (int k = 0; k < 20; k++) {
			uint64_t n = gclk_random_below(8) ? gclk_random_below(12)
							  : gclk_random();
			const uint8_t *p = gclk_cursor_take(&c, n);
			uint64_t sum = 0;

			failed = failed || n > size - at;
			if (p) {
				for (size_t b = 0; b < n; b++) {
					sum += p[b] - block[at + b];
				}
				at += n;
			}
			if ((p == NULL) != failed || sum || c.at != at) {
				CU_FAIL("a cursor and an index disagree");
				free(block);
				return;
			}
		}
		free(block);
	}
}
