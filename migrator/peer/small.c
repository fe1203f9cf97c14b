/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "migrator/peer/small.h"

enum { VARINT = 0, EIGHT = 1, COUNTED = 2, FOUR = 5 };

struct rest {
	const uint8_t *at;
	size_t n;
};

/* At most 10 bytes of 7 bits, the lowest first; of the last one a single bit is left. */
static bool varint(struct rest *rest, uint64_t *ret)
{
	*ret = 0;
	for (unsigned shift = 0; shift < 70 && rest->n; shift += 7) {
		uint8_t byte = *rest->at++;

		rest->n--;
		if (shift == 63 && byte > 1) {
			return false;
		}
		*ret |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			return true;
		}
	}
	return false;
}

static bool take(struct rest *rest, uint64_t n, const uint8_t **ret)
{
	if (n > rest->n) {
		return false;
	}
	*ret = rest->at;
	rest->at += n;
	rest->n -= (size_t)n;
	return true;
}

/* What a field carries, of whatever kind it is. */
static bool carried(struct rest *rest, unsigned form, struct small_value *ret)
{
	*ret = (struct small_value){ .has = true };
	switch (form) {
	case VARINT:
		return varint(rest, &ret->n);
	case EIGHT:
		return take(rest, 8, &ret->bytes);
	case FOUR:
		return take(rest, 4, &ret->bytes);
	case COUNTED:
		if (!varint(rest, &ret->n) || !take(rest, ret->n, &ret->bytes)) {
			return false;
		}
		ret->size = (size_t)ret->n;
		return true;
	default:
		return false;
	}
}

/* Of the form that its kind has, and within its width. */
static bool settle(struct small_value *value, unsigned form, uint8_t kind)
{
	switch (kind) {
	case SMALL_U32:
		return form == VARINT && value->n <= UINT32_MAX;
	case SMALL_U64:
		return form == VARINT;
	case SMALL_S64:
		value->n = value->n >> 1 ^ (0 - (value->n & 1));
		return form == VARINT;
	default:
		return form == COUNTED;
	}
}

bool small_read(const uint8_t *body, size_t n, const uint8_t kinds[SMALL_FIELDS],
		struct small_value ret[SMALL_FIELDS])
{
	struct rest rest = { body, n };

	memset(ret, 0, SMALL_FIELDS * sizeof(*ret));
	while (rest.n) {
		struct small_value value;
		uint64_t tag, field;

		if (!varint(&rest, &tag) || tag > UINT32_MAX || tag >> 3 == 0 ||
		    !carried(&rest, tag & 7, &value)) {
			return false;
		}
		field = (tag >> 3) - 1;
		if (field < SMALL_FIELDS && kinds[field] != SMALL_NONE) {
			if (!settle(&value, tag & 7, kinds[field])) {
				return false;
			}
			ret[field] = value;
		}
	}
	return true;
}
