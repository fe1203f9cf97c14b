/* SPDX-License-Identifier: MIT */
#include "core/cursor.h"
#include "core/pvclock.h"
#include "property.h"

static const struct {
	uint64_t hz;
	int shift;
	uint32_t mul;
	uint64_t ns;	/* for 10^12 cycles */
} scale_rows[] = {
	{ 1000000000, 1, 0x80000000, 1000000000000 },
	{ 1500000000, 0, 0xaaaaaaaa, 666666666511 },
	{ 2000000000, 0, 0x80000000, 500000000000 },
	{ 2100000000, -1, 0xf3cf3cf3, 476190476096 },
	{ 2593906000, -1, 0xc562be75, 385518981725 },
	{ 3000000000, -1, 0xaaaaaaaa, 333333333255 },
	{ 4200000000, -2, 0xf3cf3cf3, 238095238048 },
	{ 5000000000, -2, 0xcccccccc, 199999999953 },
};

GCLK_TEST(pvclock, scale_vectors)
{
	struct gclk_pvclock_scale scale = { 0, 0 };
	uint64_t bound = 7;
	struct gclk_rate rate;

	for (size_t i = 0; i < GCLK_COUNT(scale_rows); i++) {
		GCLK_EQ(gclk_pvclock_scale_from_hz(1000000000, scale_rows[i].hz, &scale),
			0);
		GCLK_EQ(scale.shift, scale_rows[i].shift);
		GCLK_EQ(scale.mul, scale_rows[i].mul);
		GCLK_EQ(gclk_pvclock_scale_delta(scale, 1000000000000), scale_rows[i].ns);
		GCLK_EQ(gclk_pvclock_scale_to_rate(scale, &rate), 0);
		GCLK_EQ(gclk_rate_error_ppb_bound(rate, gclk_rate_of_hz(scale_rows[i].hz),
						  &bound),
			0);
		CU_ASSERT(bound <= 1);
	}
	/* the other direction: ns to cycles */
	GCLK_EQ(gclk_pvclock_scale_from_hz(2000000000, 1000000000, &scale), 0);
	CU_ASSERT(scale.shift == 2 && scale.mul == 0x80000000);
	GCLK_EQ(gclk_pvclock_scale_from_hz(3000000000, 1000000000, &scale), 0);
	CU_ASSERT(scale.shift == 2 && scale.mul == 0xc0000000);
}

GCLK_TEST(pvclock, scale_refusals)
{
	struct gclk_pvclock_scale scale = { 7, 7 };
	struct gclk_rate rate = { 7, 7 };

	GCLK_EQ(gclk_pvclock_scale_from_hz(0, 1, &scale), -GCLK_RANGE);
	GCLK_EQ(gclk_pvclock_scale_from_hz(1, 0, &scale), -GCLK_RANGE);
	GCLK_EQ(gclk_pvclock_scale_from_hz(1, UINT64_MAX, &scale), -GCLK_RANGE);
	GCLK_EQ(gclk_pvclock_scale_from_hz(UINT64_MAX, 1, &scale), -GCLK_RANGE);
	CU_ASSERT(scale.mul == 7 && scale.shift == 7);
	scale = (struct gclk_pvclock_scale){ 0, 0 };
	GCLK_EQ(gclk_pvclock_scale_to_rate(scale, &rate), -GCLK_RANGE);
	scale = (struct gclk_pvclock_scale){ 1, 32 };
	GCLK_EQ(gclk_pvclock_scale_to_rate(scale, &rate), -GCLK_RANGE);
	scale = (struct gclk_pvclock_scale){ 0x80000001,
					     -31 }; /* 2^62 GHz and not a whole number */
	GCLK_EQ(gclk_pvclock_scale_to_rate(scale, &rate), -GCLK_RANGE);
	CU_ASSERT(rate.num == 7 && rate.den == 7);
	scale = (struct gclk_pvclock_scale){ 0x80000000, 0 };
	GCLK_EQ(gclk_pvclock_scale_to_rate(scale, &rate), 0);
	CU_ASSERT(rate.num == 2000000000 && rate.den == 1);
}

/* mul has its top bit set; up to 2 GHz nothing but mul is rounded, so it is slow only. */
GCLK_TEST(pvclock, scale_is_within_1_ppb)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		uint64_t hz = 500000000 + gclk_random_below(5500000000), bound = 7;
		struct gclk_pvclock_scale scale;
		struct gclk_rate rate;

		REQUIRE(gclk_pvclock_scale_from_hz(1000000000, hz, &scale) == 0 &&
			scale.mul >> 31 == 1 && scale.shift >= -3 && scale.shift <= 1,
			"%" PRIu64 " Hz", hz);
		REQUIRE(gclk_pvclock_scale_to_rate(scale, &rate) == 0 &&
				gclk_rate_error_ppb_bound(rate, gclk_rate_of_hz(hz),
							  &bound) == 0 &&
				bound <= 1,
			"%" PRIu64 " Hz: %" PRIu64 " ppb", hz, bound);
		REQUIRE(hz > 2000000000 ||
				gclk_rate_compare(rate, gclk_rate_of_hz(hz)) >= 0,
			"%" PRIu64 " Hz", hz);
	}
}

/* Any two: to / from = mul * 2^(shift - 32) within 2^-29 + 2 / to of itself. */
GCLK_TEST(pvclock, scale_of_any_two_frequencies)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		uint64_t to = gclk_random_bits(), from = gclk_random_bits();
		struct gclk_pvclock_scale scale;
		struct wide truth, got, error;

		if (gclk_pvclock_scale_from_hz(to, from, &scale) < 0) {
			REQUIRE(to == 0 || from == 0 || to / from >> 29 ||
					from / to >> 29,
				"%" PRIu64 " from %" PRIu64, to, from);
			continue;
		}
		truth = wide_shift(wide_of(to), 64);
		got = wide_shift(wide_of_product(from, scale.mul),
				 (unsigned)(32 + scale.shift));
		error = wide_compare(truth, got) < 0 ? wide_subtract(got, truth) :
						       wide_subtract(truth, got);
		error = wide_multiply(wide_shift(error, 29), to);
		truth = wide_add(wide_multiply(truth, to), wide_shift(truth, 30));
		REQUIRE(wide_compare(error, truth) < 0,
			"%" PRIu64 " from %" PRIu64 ": %x, %d", to, from, scale.mul,
			scale.shift);
	}
}

static struct gclk_pvclock random_page(void)
{
	struct gclk_pvclock pv = {
		.version = (uint32_t)gclk_random() & ~1u,
		.tsc_timestamp = gclk_random_bits(),
		.system_time_ns = gclk_random_bits() >> 1,
		.flags = GCLK_PVCLOCK_TSC_STABLE,
	};

	gclk_pvclock_scale_from_hz(1000000000, 500000000 + gclk_random_below(5500000000),
				   &pv.scale);
	return pv;
}

/* The 96-bit product against schoolbook, with every bit of the page in use. */
GCLK_TEST(pvclock, reading_is_exact)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_pvclock pv = random_page();
		uint64_t delta = gclk_random_bits(), tsc = pv.tsc_timestamp + delta,
			 ns = 0;
		uint64_t shifted = pv.scale.shift < 0 ? delta >> -pv.scale.shift :
							delta << pv.scale.shift;
		struct wide product = wide_of_product(shifted, pv.scale.mul);
		uint64_t expected = (uint64_t)product.digit[2] << 32 | product.digit[1];

		REQUIRE(gclk_pvclock_ns_wrap(&pv, tsc) == pv.system_time_ns + expected,
			"%" PRIu64 " cycles", delta);
		if (gclk_pvclock_ns_at(&pv, tsc, &ns) == 0) {
			REQUIRE(ns == gclk_pvclock_ns_wrap(&pv, tsc) &&
					ns >= pv.system_time_ns,
				"%" PRIu64, ns);
		} else {
			REQUIRE(tsc < delta || (pv.scale.shift > 0 && shifted < delta) ||
					pv.system_time_ns + expected < expected,
				"%" PRIu64, delta);
		}
	}
}

GCLK_TEST(pvclock, reading_is_monotone)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_pvclock pv = random_page();
		uint64_t a = gclk_random_bits(), b = a + gclk_random_below(1000), na, nb;

		if (gclk_pvclock_ns_at(&pv, a, &na) == 0 &&
		    gclk_pvclock_ns_at(&pv, b, &nb) == 0) {
			REQUIRE(na <= nb, "%" PRIu64 " and %" PRIu64, a, b);
		}
	}
}

GCLK_TEST(pvclock, reading_refuses_the_past)
{
	struct gclk_pvclock pv = { 2, 1000, 5000, { 0x80000000, 1 }, 0 };
	uint64_t ns = 7;

	GCLK_EQ(gclk_pvclock_ns_at(&pv, 999, &ns), -GCLK_RANGE);
	GCLK_EQ(ns, 7);
	GCLK_EQ(gclk_pvclock_ns_at(&pv, 1000, &ns), 0);
	GCLK_EQ(ns, 5000);
	GCLK_EQ(gclk_pvclock_ns_at(&pv, 1123, &ns), 0);
	GCLK_EQ(ns, 5123);
	GCLK_EQ(gclk_pvclock_ns_at(&pv, 1000 + (UINT64_C(1) << 63), &ns), -GCLK_RANGE);
	pv.system_time_ns = UINT64_MAX - 10;
	GCLK_EQ(gclk_pvclock_ns_at(&pv, 1011, &ns), -GCLK_RANGE);
	GCLK_EQ(ns, 5123);
}

static const uint8_t page_bytes[GCLK_PVCLOCK_BYTES] = {
	0x06, 0,    0,	  0,	0,    0,    0,	  0,	0x88, 0x77, 0x66,
	0x55, 0x44, 0x33, 0x22, 0x11, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03,
	0x02, 0x01, 0xf3, 0x3c, 0xcf, 0xf3, 0xff, 0x01, 0,    0,
};

GCLK_TEST(pvclock, page_layout)
{
	struct gclk_pvclock pv;
	uint8_t back[GCLK_PVCLOCK_BYTES];

	GCLK_EQ(gclk_pvclock_parse(page_bytes, &pv, NULL), 0);
	GCLK_EQ(pv.version, 6);
	GCLK_EQ(pv.tsc_timestamp, 0x1122334455667788);
	GCLK_EQ(pv.system_time_ns, 0x0102030405060708);
	GCLK_EQ(pv.scale.mul, 0xf3cf3cf3);
	GCLK_EQ(pv.scale.shift, -1);
	GCLK_EQ(pv.flags, GCLK_PVCLOCK_TSC_STABLE);
	gclk_pvclock_write(&pv, back);
	CU_ASSERT(!memcmp(back, page_bytes, sizeof(back)));
}

GCLK_TEST(pvclock, page_refusals)
{
	static const struct {
		unsigned at;
		uint8_t value;
		int status;
		unsigned offset;
	} rows[] = {
		{ 0, 0x07, GCLK_STATE, 0 },		/* odd: being written */
		{ 28, 32, GCLK_MALFORMED, 28 },
		{ 28, 0x80, GCLK_MALFORMED, 28 },
		{ 5, 1, GCLK_MALFORMED, 4 },
		{ 31, 1, GCLK_MALFORMED, 4 },
	};
	uint8_t bytes[GCLK_PVCLOCK_BYTES];
	struct gclk_pvclock pv = { .version = 77 };
	struct gclk_error err;

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		memcpy(bytes, page_bytes, sizeof(bytes));
		bytes[rows[i].at] = rows[i].value;
		GCLK_EQ(gclk_pvclock_parse(bytes, &pv, &err), -rows[i].status);
		GCLK_EQ(err.status, rows[i].status);
		GCLK_EQ(err.offset, rows[i].offset);
	}
	memcpy(bytes, page_bytes, sizeof(bytes));
	memset(bytes + 24, 0, 4);
	GCLK_EQ(gclk_pvclock_parse(bytes, &pv, &err), -GCLK_MALFORMED);
	GCLK_EQ(err.offset, 24);
	GCLK_EQ(pv.version, 77);
}

GCLK_TEST(pvclock, wall_clock)
{
	uint8_t bytes[GCLK_PVCLOCK_WALL_BYTES];
	struct gclk_pvclock_wall wall;
	struct gclk_error err;

	gclk_put_le32(bytes, 2);
	gclk_put_le32(bytes + 4, 0xffffffff);
	gclk_put_le32(bytes + 8, 999999999);
	GCLK_EQ(gclk_pvclock_wall_parse(bytes, &wall, &err), 0);
	GCLK_EQ(gclk_pvclock_wall_at_zero(&wall).ns, INT64_C(4294967295999999999));
	gclk_put_le32(bytes + 8, 1000000000);
	GCLK_EQ(gclk_pvclock_wall_parse(bytes, &wall, &err), -GCLK_MALFORMED);
	GCLK_EQ(err.offset, 8);
	gclk_put_le32(bytes, 3);
	GCLK_EQ(gclk_pvclock_wall_parse(bytes, &wall, &err), -GCLK_STATE);
	GCLK_EQ(wall.version, 2);
}

GCLK_TEST(pvclock, hyperv_scale_vectors)
{
	struct gclk_pvclock pv = { 2, 0, 0, { 0x80000000, 0 }, GCLK_PVCLOCK_TSC_STABLE };
	struct gclk_hv_tsc_page page = { .sequence = 7 };

	GCLK_EQ(gclk_hv_tsc_page_from_pvclock(&pv, &page), 0);
	GCLK_EQ(page.scale, 0x147ae147ae147ae);
	GCLK_EQ(page.sequence, 0);
	pv.scale = (struct gclk_pvclock_scale){ 0xf3cf3cf3, -1 };
	GCLK_EQ(gclk_hv_tsc_page_from_pvclock(&pv, &page), 0);
	GCLK_EQ(page.scale, 0x1381381370a3d70);
	page.sequence = 7;
	pv.flags = 0;
	GCLK_EQ(gclk_hv_tsc_page_from_pvclock(&pv, &page), -GCLK_UNSUPPORTED);
	pv.flags = GCLK_PVCLOCK_TSC_STABLE;
	pv.scale = (struct gclk_pvclock_scale){ 0xffffffff, 7 };
	GCLK_EQ(gclk_hv_tsc_page_from_pvclock(&pv, &page), -GCLK_RANGE);
	pv.scale.shift = 32;
	GCLK_EQ(gclk_hv_tsc_page_from_pvclock(&pv, &page), -GCLK_RANGE);
	GCLK_EQ(page.sequence, 7);
	CU_ASSERT(gclk_hv_tsc_page_is_valid(&page));
	page.sequence = 0;
	CU_ASSERT(!gclk_hv_tsc_page_is_valid(&page));
	page.sequence = 0xffffffff;
	CU_ASSERT(!gclk_hv_tsc_page_is_valid(&page));
}

/* The page and kvmclock / 100 part by no more than their roundings, 3 units of 100 ns. */
GCLK_TEST(pvclock, hyperv_agrees_with_kvmclock)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_pvclock pv = random_page();
		uint8_t bytes[GCLK_HV_TSC_PAGE_BYTES];
		struct gclk_hv_tsc_page page, back;
		uint64_t tsc, ns = 0;
		int64_t difference;

		pv.tsc_timestamp >>= 4;
		tsc = pv.tsc_timestamp + (gclk_random_bits() >> 4);
		if (gclk_pvclock_ns_at(&pv, tsc, &ns) < 0) {
			continue;
		}
		REQUIRE(gclk_hv_tsc_page_from_pvclock(&pv, &page) == 0, "%d",
			pv.scale.shift);
		difference = (int64_t)(gclk_hv_tsc_page_time_at(&page, tsc) - ns / 100);
		REQUIRE(difference >= -3 && difference <= 3, "%" PRId64 " at %" PRIu64,
			difference, tsc);
		page.sequence = (uint32_t)i;
		gclk_hv_tsc_page_write(&page, bytes);
		gclk_hv_tsc_page_parse(bytes, &back);
		REQUIRE(back.sequence == page.sequence && back.scale == page.scale &&
			back.offset == page.offset, "%" PRIu64, i);
	}
}
