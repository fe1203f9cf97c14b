/* SPDX-License-Identifier: MIT */
/* Short texts into fixed room, where printf's generality costs more than the work itself. */
#ifndef GCLK_CORE_TEXT_H
#define GCLK_CORE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Copies what fits of @from, always with its NUL. @size > 0. */
void gclk_text_copy(char *to, size_t size, const char *from);

/**
 * gclk_text_vformat() - vsnprintf() for any format, and fast for those of findings
 *
 * %s, %d, %u, their l and ll forms and zero-padded widths are done here; a format with
 * anything else is handed to vsnprintf() whole. @size > 0.
 */
void gclk_text_vformat(char *to, size_t size, const char *format, va_list args)
	__attribute__((format(printf, 3, 0)));

/* Makes text of @size bytes: it ends, and does nothing to a terminal or a log. */
void gclk_text_tame(char *text, size_t size);

/* UTF-8 as RFC 3629 has it: shortest form, no surrogates, at most U+10FFFF. */
bool gclk_text_is_utf8(const char *text, size_t size);

#endif
