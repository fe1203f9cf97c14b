/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/wall.h"

#define TRIES 8
/* Two readings of a pair differ by less, and nobody sets a clock by so little. */
#define STEP_LEAST_NS 2000
/* Stamps are cut to microseconds; their messages take milliseconds, seldom a second. */
#define STAMP_EARLY_NS 2000
#define STAMP_OLD_NS (10 * GCLK_NS_PER_S)

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
}

int64_t wall_clock_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

int64_t boot_clock_ns(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}

/* The narrowest of several readings. */
void wall_line_begin(struct wall_line *line)
{
	for (unsigned i = 0; i < TRIES; i++) {
		int64_t before = boot_clock_ns(), real = wall_clock_ns();
		int64_t after = boot_clock_ns();
		uint64_t width = (uint64_t)(after - before) / 2 + 1;

		if (i == 0 || width < line->width_ns) {
			line->ahead_ns = gclk_sub_sat(real, before + (after - before) / 2);
			line->width_ns = width;
		}
	}
}

bool wall_line_of(struct wall_line *line, const struct gclk_host *host)
{
	if (!GCLK_HAS(host, host, realtime_ns) || !GCLK_HAS(host, host, boottime_ns)) {
		return false;
	}
	line->ahead_ns = gclk_sub_sat(host->realtime_ns, host->boottime_ns);
	line->width_ns = GCLK_HAS(host, host, sample_width_ns) ? host->sample_width_ns : 0;
	return true;
}

int64_t wall_line_ns(const struct wall_line *line)
{
	return gclk_add_sat(boot_clock_ns(), line->ahead_ns);
}

int64_t wall_line_apart_ns(const struct wall_line *from, const struct wall_line *to)
{
	int64_t apart = gclk_sub_sat(to->ahead_ns, from->ahead_ns);
	int64_t least = (int64_t)GCLK_MIN(from->width_ns, (uint64_t)GCLK_NS_PER_S) +
			(int64_t)GCLK_MIN(to->width_ns, (uint64_t)GCLK_NS_PER_S) + STEP_LEAST_NS;

	return apart > least || apart < -least ? apart : 0;
}

int64_t wall_line_step_ns(const struct wall_line *line)
{
	struct wall_line now;

	wall_line_begin(&now);
	return wall_line_apart_ns(line, &now);
}

bool wall_line_stamp(const struct wall_line *line, int64_t at_ns, int64_t came_ns,
		     int64_t boot_ns, int64_t *ret_ns)
{
	int64_t age = gclk_sub_sat(came_ns, at_ns);

	*ret_ns = gclk_sub_sat(gclk_add_sat(boot_ns, line->ahead_ns), age);
	return age >= -STAMP_EARLY_NS && age <= STAMP_OLD_NS;
}
