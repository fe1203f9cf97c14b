/* SPDX-License-Identifier: MIT */
#ifndef GCLK_BUNDLE_CRC32_H
#define GCLK_BUNDLE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 of IEEE 802.3, as in gzip and PNG: "123456789" gives 0xcbf43926. */
uint32_t gclk_crc32(const void *bytes, size_t n);

#endif
