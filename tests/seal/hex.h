/* SPDX-License-Identifier: MIT */
#ifndef GCLK_TEST_HEX_H
#define GCLK_TEST_HEX_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Bytes of a text of hexadecimal digits; returns how many. */
static inline size_t unhex(const char *text, uint8_t *to)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned byte = 0;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1) {
			return 0;
		}
		to[i] = (uint8_t)byte;
	}
	return n;
}

#endif
