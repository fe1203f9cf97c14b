/* SPDX-License-Identifier: MIT */
/* Keeping account of an interrupt line while a device advances. */
#ifndef GCLK_DEVICES_LINE_H
#define GCLK_DEVICES_LINE_H

#include <guestclock/devices.h>

static inline void gclk_line_begin(struct gclk_line *line, uint8_t level)
{
	line->rises = 0;
	line->last_rise_ns = GCLK_TIMER_OFF;
	line->level = level;
}

static inline void gclk_line_rise(struct gclk_line *line, uint64_t count, int64_t last)
{
	if (count) {
		line->rises += count;
		line->last_rise_ns = last;
	}
}

static inline void gclk_line_set(struct gclk_line *line, uint8_t level, int64_t t)
{
	if (level && !line->level) {
		gclk_line_rise(line, 1, t);
	}
	line->level = level;
}

static inline void gclk_line_give(const struct gclk_line *line, struct gclk_line *ret)
{
	if (ret) {
		*ret = *line;
	}
}

#endif
