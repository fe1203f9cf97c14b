/* SPDX-License-Identifier: MIT */
/* The few macros that every file shares. */
#ifndef GCLK_CORE_UTIL_H
#define GCLK_CORE_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define GCLK_API __attribute__((visibility("default")))
#define GCLK_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define GCLK_MIN(a, b) ((a) < (b) ? (a) : (b))
#define GCLK_MAX(a, b) ((a) > (b) ? (a) : (b))

#define GCLK_NS_PER_S INT64_C(1000000000)
#define GCLK_NS_PER_MS INT64_C(1000000)

__extension__ typedef unsigned __int128 gclk_u128;
__extension__ typedef __int128 gclk_i128;

#endif
