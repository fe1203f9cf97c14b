/* SPDX-License-Identifier: MIT */
/* Whether this is a build with AddressSanitizer, which needs address space and reports. */
#ifndef GCLK_MIGRATOR_SANITIZED_H
#define GCLK_MIGRATOR_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
