/* SPDX-License-Identifier: MIT */
/* A wall clock that somebody sets, and what was begun before goes on by. */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/move.h"
#include "migrator/situation.h"

#define NS_PER_S INT64_C(1000000000)
/* Two readings one after the other, between which a busy machine may do something else. */
#define NEAR_NS 100000

/* Every reading of this program, and of its libraries, comes here first. */
static int64_t set_by_ns;

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret);
	int64_t ns;

	if (r == 0 && clock == CLOCK_REALTIME) {
		ns = (int64_t)ret->tv_sec * NS_PER_S + ret->tv_nsec + set_by_ns;
		*ret = (struct timespec){ ns / NS_PER_S, ns % NS_PER_S };
	}
	return r;
}

static const int64_t steps[] = { NS_PER_S, -NS_PER_S, 3600 * NS_PER_S, -3600 * NS_PER_S, 50000000,
				 -50000000, 200000, -200000 };

GCLK_TEST(wall, a_line_goes_on_as_the_clock_was)
{
	struct wall_line line;

	wall_line_begin(&line);
	GCLK_EQ(wall_line_step_ns(&line), 0);
	CU_ASSERT(llabs(wall_line_ns(&line) - wall_clock_ns()) < 50 * NEAR_NS);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		int64_t before = wall_clock_ns();

		set_by_ns = steps[i];
		CU_ASSERT(llabs(wall_line_step_ns(&line) - steps[i]) < NEAR_NS);
		CU_ASSERT(wall_line_ns(&line) >= before &&
			  wall_line_ns(&line) - before < NS_PER_S);
		set_by_ns = 0;
	}
	GCLK_EQ(wall_line_step_ns(&line), 0);
}

/* A stamp that another process made a moment ago; the clock is set before or after that. */
GCLK_TEST(wall, a_stamp_is_told_on_the_line)
{
	struct wall_line line;
	int64_t at, came, boot, told = 0;

	wall_line_begin(&line);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		set_by_ns = steps[i];			/* before */
		came = wall_clock_ns();
		boot = boot_clock_ns();
		at = came - 3000000;
		CU_ASSERT(wall_line_stamp(&line, at, came, boot, &told));
		CU_ASSERT(llabs(told + steps[i] - at) < 50 * NEAR_NS);
		set_by_ns = 0;
	}
	/* between the stamp and its arrival: far ahead, or far behind */
	came = wall_clock_ns();
	boot = boot_clock_ns();
	CU_ASSERT(!wall_line_stamp(&line, came + NS_PER_S, came, boot, &told));
	CU_ASSERT(!wall_line_stamp(&line, came - 3600 * NS_PER_S, came, boot, &told));
}

static struct gclk_host sampled(const char *boot_id)
{
	struct gclk_host host = { 0 };

	host.has |= GCLK_BIT(host, boot_id);
	strcpy(host.boot_id, boot_id);
	GCLK_EQ(gclk_host_sample(&host, NULL), 0);
	return host;
}

/* Saved and restored in one boot, and somebody set the clock in between. */
GCLK_TEST(wall, one_host_disagrees_with_itself)
{
	struct gclk_host then = sampled("a"), now, other;
	struct gclk_disagreement d;

	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		set_by_ns = steps[i];
		now = sampled("a");
		CU_ASSERT_STRING_EQUAL(disagreement_find(&then, &now, &now, &d), "same-boot");
		CU_ASSERT(llabs(d.ns - steps[i]) < NEAR_NS && d.uncertainty_ns < NEAR_NS &&
			  d.uncertainty_ns > 0);
		/* of a leap second the plan knows by itself */
		GCLK_SET(host, &then, tai_offset_s, 37);
		GCLK_SET(host, &now, tai_offset_s, 38);
		disagreement_find(&then, &now, &now, &d);
		CU_ASSERT(llabs(d.ns - steps[i] - NS_PER_S) < NEAR_NS);
		then.tai_offset_s = 0;
		other = sampled("b");
		CU_ASSERT_STRING_EQUAL(disagreement_find(&then, &other, &now, &d),
				       "unmeasured");
		set_by_ns = 0;
	}
	now = sampled("a");
	disagreement_find(&then, &now, &now, &d);
	CU_ASSERT(d.ns == 0 && d.uncertainty_ns == 0);
}

static struct move *moved(struct gclk_state *state, uint8_t axis)
{
	struct move *move = calloc(1, sizeof(*move));

	move_init(move, "restore");
	GCLK_SET(rtc, &state->rtc, axis, axis);
	move->n_clocks = 2;
	strcpy(move->clocks[0].clock, "tsc");
	strcpy(move->clocks[1].clock, "rtc");
	move->clocks[0].error_ns = move->clocks[1].error_ns = 5;
	return move;
}

/* Only a real-time clock that goes by the wall clock goes with it. */
GCLK_TEST(wall, what_was_set_after_the_writing_is_told)
{
	struct gclk_state *state = gclk_state_new(1);
	struct move *move = moved(state, GCLK_AXIS_REALTIME);

	move_wall_set(move, &state->rtc, 0);
	CU_ASSERT(move->findings.n == 0 && move->clocks[1].error_ns == 5);
	move_wall_set(move, &state->rtc, -NS_PER_S);
	GCLK_EQ(move->findings.n, 1);
	CU_ASSERT_STRING_EQUAL(move->findings.items[0].info->id, "wall-clock-set");
	CU_ASSERT_STRING_EQUAL(move->findings.items[0].clock, "rtc");
	GCLK_EQ(move->clocks[0].error_ns, 5);
	GCLK_EQ(move->clocks[1].error_ns, 5 - NS_PER_S);
	free(move);
	move = moved(state, GCLK_AXIS_GUEST);
	move_wall_set(move, &state->rtc, NS_PER_S);
	CU_ASSERT(move->findings.n == 1 && move->clocks[1].error_ns == 5);
	free(move);
	gclk_state_free(state);
}
