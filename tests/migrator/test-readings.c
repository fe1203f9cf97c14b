/* SPDX-License-Identifier: MIT */
/* What each clock reads, and when it interrupts next, as `inspect` says it. */
#include <string.h>

#include "gclk-test.h"
#include "migrator/readings.h"
#include "../plan/world.h"

static const struct reading *find(const struct readings *readings, const char *clock)
{
	for (unsigned i = 0; i < readings->n; i++) {
		if (!strcmp(readings->items[i].clock, clock)) {
			return &readings->items[i];
		}
	}
	return NULL;
}

static int64_t next_of(const struct gclk_state *state, const char *clock)
{
	static const struct gclk_instant captured = { .ns = T0 };
	struct readings readings;
	const struct reading *found;
	int64_t next = INT64_MIN;

	GCLK_EQ(readings_take(state, &captured, &readings), 0);
	found = find(&readings, clock);
	CU_ASSERT_PTR_NOT_NULL(found);
	if (found && found->armed) {
		next = found->next_ns;
	}
	readings_free(&readings);
	return next;
}

GCLK_TEST(readings, an_expiry_that_the_stop_came_before_is_overdue)
{
	struct world world;
	struct gclk_state *state;
	int64_t stop;

	world_make(&world, &world_axis);
	state = world.state;
	stop = state->virtual_clock.clock_ns;

	state->pit.channels[0].next_transition_ns = stop - 700;
	GCLK_EQ(next_of(state, "pit[0]"), -700);
	state->hpet.timers[0].expiry_ns = stop - 9277;
	GCLK_EQ(next_of(state, "hpet[0]"), -9277);
	state->lapic[0].expiry_ns = stop - 1;
	GCLK_EQ(next_of(state, "lapic[0]"), -1);
	world_end(&world);
}

GCLK_TEST(readings, an_expiry_to_come_is_the_saved_one)
{
	struct world world;
	struct gclk_state *state;
	int64_t stop;

	world_make(&world, &world_axis);
	state = world.state;
	stop = state->virtual_clock.clock_ns;

	GCLK_EQ(next_of(state, "hpet[0]"), state->hpet.timers[0].expiry_ns - stop);
	GCLK_EQ(next_of(state, "lapic[0]"), state->lapic[0].expiry_ns - stop);
	world_end(&world);
}
