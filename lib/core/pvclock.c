/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/cursor.h"
#include "core/pvclock.h"

#define SHIFT_MAX 31
#define NS_PER_UNIT 100		/* of Hyper-V reference time */
#define VERSION_IS_ODD(version) ((version) & 1)

/*
 * The counter's frequency is halved or doubled until it lies between the target's and
 * twice the target's, and both within 32 bits; mul is then the fraction target / counter
 * in 0.32, with its top bit set. Halving the target has the effect of doubling the
 * counter, hence either raises the shift.
 */
int gclk_pvclock_scale_from_hz(uint64_t to_hz, uint64_t from_hz,
			       struct gclk_pvclock_scale *ret)
{
	uint64_t to = to_hz, from = from_hz;
	int shift = 0;

	if (to == 0 || from == 0) {
		return -GCLK_RANGE;
	}
	for (; from > 2 * (gclk_u128)to || from > UINT32_MAX; shift--) {
		from /= 2;
	}
	for (; from <= to || to > UINT32_MAX; shift++) {
		if (to > UINT32_MAX || from >> 31) {
			to /= 2;
		} else {
			from *= 2;
		}
	}
	if (shift < -SHIFT_MAX || shift > SHIFT_MAX) {
		return -GCLK_RANGE;
	}
	ret->mul = (uint32_t)((to << 32) / from);
	ret->shift = (int8_t)shift;
	return 0;
}

int gclk_pvclock_scale_to_rate(struct gclk_pvclock_scale scale, struct gclk_rate *ret)
{
	gclk_u128 num = (gclk_u128)GCLK_NS_PER_S << 32, den = scale.mul;

	if (scale.shift < -SHIFT_MAX || scale.shift > SHIFT_MAX) {
		return -GCLK_RANGE;
	}
	if (scale.shift < 0) {
		num <<= -scale.shift;
	} else {
		den <<= scale.shift;
	}
	return gclk_rate_make(num, den, ret);
}

uint64_t gclk_pvclock_scale_delta(struct gclk_pvclock_scale scale, uint64_t delta)
{
	delta = scale.shift < 0 ? delta >> -scale.shift : delta << scale.shift;
	return gclk_mulshift_wrap(delta, scale.mul, 32);
}

static int pvclock_check(const struct gclk_pvclock *pv, uint8_t padding,
			 struct gclk_error *reterr)
{
	if (VERSION_IS_ODD(pv->version)) {
		return gclk_fail(reterr, GCLK_STATE, "pvclock/version", 0,
				 "version %u is odd: the page was being written",
				 pv->version);
	}
	if (pv->scale.mul == 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, "pvclock/tsc_to_system_mul", 24,
				 "the multiplier is 0: the page was never filled in");
	}
	if (pv->scale.shift < -SHIFT_MAX || pv->scale.shift > SHIFT_MAX) {
		return gclk_fail(reterr, GCLK_MALFORMED, "pvclock/tsc_shift", 28,
				 "a shift of %d is outside -%d..%d", pv->scale.shift,
				 SHIFT_MAX, SHIFT_MAX);
	}
	if (padding) {
		return gclk_fail(reterr, GCLK_MALFORMED, "pvclock/pad", 4,
				 "bits are set in the padding: this is no pvclock page");
	}
	return 0;
}

int gclk_pvclock_parse(const uint8_t bytes[GCLK_PVCLOCK_BYTES], struct gclk_pvclock *ret,
		       struct gclk_error *reterr)
{
	struct gclk_pvclock pv = {
		.version = gclk_get_le32(bytes),
		.tsc_timestamp = gclk_get_le64(bytes + 8),
		.system_time_ns = gclk_get_le64(bytes + 16),
		.scale = { gclk_get_le32(bytes + 24), (int8_t)bytes[28] },
		.flags = bytes[29],
	};
	uint8_t padding =
		bytes[4] | bytes[5] | bytes[6] | bytes[7] | bytes[30] | bytes[31];
	int r = pvclock_check(&pv, padding, reterr);

	if (r < 0) {
		return r;
	}
	*ret = pv;
	return 0;
}

void gclk_pvclock_write(const struct gclk_pvclock *pv, uint8_t bytes[GCLK_PVCLOCK_BYTES])
{
	memset(bytes, 0, GCLK_PVCLOCK_BYTES);
	gclk_put_le32(bytes, pv->version);
	gclk_put_le64(bytes + 8, pv->tsc_timestamp);
	gclk_put_le64(bytes + 16, pv->system_time_ns);
	gclk_put_le32(bytes + 24, pv->scale.mul);
	bytes[28] = (uint8_t)pv->scale.shift;
	bytes[29] = pv->flags;
}

uint64_t gclk_pvclock_ns_wrap(const struct gclk_pvclock *pv, uint64_t tsc)
{
	return pv->system_time_ns +
	       gclk_pvclock_scale_delta(pv->scale, tsc - pv->tsc_timestamp);
}

int gclk_pvclock_ns_at(const struct gclk_pvclock *pv, uint64_t tsc, uint64_t *ret_ns)
{
	uint64_t delta = tsc - pv->tsc_timestamp, ns;

	if (tsc < pv->tsc_timestamp ||
	    (pv->scale.shift > 0 && delta > UINT64_MAX >> pv->scale.shift)) {
		return -GCLK_RANGE;
	}
	ns = gclk_pvclock_scale_delta(pv->scale, delta);
	if (__builtin_add_overflow(ns, pv->system_time_ns, &ns)) {
		return -GCLK_RANGE;
	}
	*ret_ns = ns;
	return 0;
}

int gclk_pvclock_wall_parse(const uint8_t bytes[GCLK_PVCLOCK_WALL_BYTES],
			    struct gclk_pvclock_wall *ret, struct gclk_error *reterr)
{
	struct gclk_pvclock_wall wall = {
		.version = gclk_get_le32(bytes),
		.seconds = gclk_get_le32(bytes + 4),
		.ns = gclk_get_le32(bytes + 8),
	};

	if (VERSION_IS_ODD(wall.version)) {
		return gclk_fail(reterr, GCLK_STATE, "pvclock_wall/version", 0,
				 "version %u is odd: it was being written", wall.version);
	}
	if (wall.ns >= GCLK_NS_PER_S) {
		return gclk_fail(reterr, GCLK_MALFORMED, "pvclock_wall/nsec", 8,
				 "%u ns are a second or more", wall.ns);
	}
	*ret = wall;
	return 0;
}

gclk_real gclk_pvclock_wall_at_zero(const struct gclk_pvclock_wall *wall)
{
	return gclk_real_of_ns(wall->seconds * GCLK_NS_PER_S + wall->ns);
}

int gclk_hv_tsc_page_from_pvclock(const struct gclk_pvclock *pv,
				  struct gclk_hv_tsc_page *ret)
{
	gclk_u128 scale;

	if (!(pv->flags & GCLK_PVCLOCK_TSC_STABLE)) {
		return -GCLK_UNSUPPORTED;
	}
	if (pv->scale.shift < -SHIFT_MAX || pv->scale.shift > SHIFT_MAX) {
		return -GCLK_RANGE;
	}
	scale = ((gclk_u128)pv->scale.mul << (32 + pv->scale.shift)) / NS_PER_UNIT;
	if (scale > UINT64_MAX) {
		return -GCLK_RANGE;
	}
	*ret = (struct gclk_hv_tsc_page){
		.scale = (uint64_t)scale,
		.offset = (int64_t)(pv->system_time_ns / NS_PER_UNIT -
				    gclk_mulshift_wrap(pv->tsc_timestamp, (uint64_t)scale,
						       64)),
	};
	return 0;
}

void gclk_hv_tsc_page_parse(const uint8_t bytes[GCLK_HV_TSC_PAGE_BYTES],
			    struct gclk_hv_tsc_page *ret)
{
	*ret = (struct gclk_hv_tsc_page){
		.sequence = gclk_get_le32(bytes),
		.scale = gclk_get_le64(bytes + 8),
		.offset = (int64_t)gclk_get_le64(bytes + 16),
	};
}

void gclk_hv_tsc_page_write(const struct gclk_hv_tsc_page *page,
			    uint8_t bytes[GCLK_HV_TSC_PAGE_BYTES])
{
	memset(bytes, 0, GCLK_HV_TSC_PAGE_BYTES);
	gclk_put_le32(bytes, page->sequence);
	gclk_put_le64(bytes + 8, page->scale);
	gclk_put_le64(bytes + 16, (uint64_t)page->offset);
}

bool gclk_hv_tsc_page_is_valid(const struct gclk_hv_tsc_page *page)
{
	return page->sequence != 0 && page->sequence != UINT32_MAX;
}

uint64_t gclk_hv_tsc_page_time_at(const struct gclk_hv_tsc_page *page, uint64_t tsc)
{
	return gclk_mulshift_wrap(tsc, page->scale, 64) + (uint64_t)page->offset;
}
