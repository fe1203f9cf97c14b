/* SPDX-License-Identifier: MIT */
/*
 * Mutations that know what a stream is: random ones almost never leave the description's
 * length right, and what is behind it would never be met.
 */
#include <string.h>

#include "core/cursor.h"
#include "fuzz.h"

static const uint64_t interesting[] = {
	0, 1, 2, 3, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
	0x80000000, 0xffffffff, 0x100000000, UINT64_C(0x7fffffffffffffff),
	UINT64_C(0x8000000000000000), UINT64_MAX, 1000000000, UINT64_C(1700000000000000000),
};
#define N_INTERESTING (sizeof(interesting) / sizeof(interesting[0]))

/* Where the description's text begins: behind 00 06 and a length that reaches to the end. */
static size_t find_text(const uint8_t *p, size_t n)
{
	for (size_t i = n < 8 ? 0 : n - 7; i-- > 0;) {
		if (p[i] == 0 && p[i + 1] == 6 && gclk_get_be32(p + i + 2) == n - i - 6) {
			return i + 6;
		}
	}
	return 0;
}

/* A number at a place before @end, of 1, 2, 4 or 8 bytes. */
static void change_number(uint8_t *p, size_t end, uint64_t *random)
{
	size_t width = (size_t)1 << fuzz_next(random) % 4, at;
	uint64_t v = interesting[fuzz_next(random) % N_INTERESTING];

	if (end < width) {
		return;
	}
	/* mostly among the devices, which are at the end */
	at = fuzz_next(random) % 4 ? end - width - fuzz_next(random) % (end - width + 1) % 60000 :
	     fuzz_next(random) % (end - width + 1) % 600;
	for (size_t i = 0; i < width; i++) {
		p[at + i] = (uint8_t)(v >> 8 * (width - 1 - i));
	}
}

/* A number of the text becomes another. Returns the new size. */
static size_t change_digits(uint8_t *p, size_t text, size_t n, size_t max, uint64_t *random)
{
	char digits[24];
	size_t from = text + fuzz_next(random) % (n - text), to, width;

	while (from < n && (p[from] < '0' || p[from] > '9')) {
		from++;
	}
	for (to = from; to < n && p[to] >= '0' && p[to] <= '9';) {
		to++;
	}
	width = (size_t)snprintf(digits, sizeof(digits), "%llu",
				 (unsigned long long)interesting[fuzz_next(random) % N_INTERESTING]);
	if (from == to || n - (to - from) + width > max) {
		return n;
	}
	memmove(p + from + width, p + to, n - to);
	memcpy(p + from, digits, width);
	return n - (to - from) + width;
}

/* One piece of the stream stands twice, or not at all. */
static size_t move_piece(uint8_t *p, size_t end, size_t n, size_t max, uint64_t *random)
{
	size_t from = fuzz_next(random) % (end + 1), size = fuzz_next(random) % 64;

	size = size < end - from ? size : end - from;
	if (fuzz_next(random) & 1 && n + size <= max) {
		memmove(p + from + size, p + from, n - from);
		return n + size;
	}
	memmove(p + from, p + from + size, n - from - size);
	return n - size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint64_t random = seed;
	size_t text = find_text(data, size), n, before;

	if (!text || text == size) {
		return LLVMFuzzerMutate(data, size, max_size);
	}
	switch (fuzz_next(&random) % 8) {
	case 0:
		return LLVMFuzzerMutate(data, size, max_size);
	case 1:
	case 2:
		n = text + LLVMFuzzerMutate(data + text, size - text, max_size - text);
		break;
	case 3:
		n = change_digits(data, text, size, max_size, &random);
		break;
	case 4:
		before = text - 6;
		n = move_piece(data, before, size, max_size, &random);
		text = n > size ? text + (n - size) : text - (size - n);
		break;
	default:
		change_number(data, text - 6, &random);
		return size;
	}
	gclk_put_be32(data + text - 4, (uint32_t)(n - text));
	return n;
}
