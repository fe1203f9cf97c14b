/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <guestclock/state.h>

#include "devices/state.h"
#include "gclk-test.h"

GCLK_TEST(state, sizes_are_bounded)
{
	CU_ASSERT_PTR_NULL(gclk_state_new(0));
	CU_ASSERT_PTR_NULL(gclk_state_new(GCLK_VCPUS_MAX + 1));
	CU_ASSERT_PTR_NULL(gclk_state_free(NULL));
}

/* The last byte of every array may be written, and is separate from the others. */
GCLK_TEST(state, arrays_are_whole)
{
	struct gclk_state *s = gclk_state_new(GCLK_VCPUS_MAX);
	uint32_t last = GCLK_VCPUS_MAX - 1;

	GCLK_EQ(gclk_state_capacity(s), GCLK_VCPUS_MAX);
	memset(&s->tsc[last], 1, sizeof(s->tsc[last]));
	memset(&s->vcpu[last], 2, sizeof(s->vcpu[last]));
	memset(&s->lapic[last], 3, sizeof(s->lapic[last]));
	memset(&s->timers[GCLK_TIMERS_MAX - 1], 4, sizeof(s->timers[0]));
	s->n_timers = GCLK_TIMERS_MAX;
	GCLK_EQ(s->vcpu[0].has, 0);
	GCLK_EQ(s->lapic[0].has, 0);
	GCLK_EQ(s->timers[0].has, 0);
	gclk_state_clear(s);
	GCLK_EQ(s->tsc[last].has, 0);
	GCLK_EQ(s->timers[GCLK_TIMERS_MAX - 1].has, 0);
	GCLK_EQ(s->n_vcpus, GCLK_VCPUS_MAX);
	gclk_state_free(s);
}

/* A list that becomes shorter leaves nothing behind for one that grows again. */
GCLK_TEST(state, timers_beyond_those_in_use_are_zero)
{
	struct gclk_state *s = gclk_state_new(1), *few = gclk_state_new(1);

	few->n_vcpus = s->n_vcpus = 1;
	s->n_timers = 7;
	memset(s->timers, 0xff, 7 * sizeof(*s->timers));
	few->n_timers = 2;
	few->timers[1].has = 1;
	GCLK_EQ(gclk_state_assign(s, few, NULL), 0);
	GCLK_EQ(s->timers[1].has, 1);
	for (unsigned i = 2; i < 7; i++) {
		GCLK_EQ(s->timers[i].has, 0);
		GCLK_EQ(s->timers[i].name[0], 0);
	}
	gclk_state_clear(s);
	GCLK_EQ(s->timers[1].has, 0);
	gclk_state_free(s);
	gclk_state_free(few);
}

GCLK_TEST(state, assign_copies_and_keeps_the_room)
{
	struct gclk_state *small = gclk_state_new(2), *big = gclk_state_new(5);
	struct gclk_error error = { 0 };

	GCLK_SET(tsc, &small->tsc[1], value_ticks, 77);
	GCLK_SET(pm_timer, &small->pm_timer, bits, 24);
	GCLK_SET(lapic, &big->lapic[3], initial_count, 5);
	GCLK_EQ(gclk_state_assign(big, small, &error), 0);
	GCLK_EQ(big->n_vcpus, 2);
	GCLK_EQ(gclk_state_capacity(big), 5);
	GCLK_EQ(big->tsc[1].value_ticks, 77);
	GCLK_EQ(big->pm_timer.bits, 24);
	GCLK_EQ(big->lapic[3].has, 0);
	CU_ASSERT(big->tsc != small->tsc);
	big->n_vcpus = 5;
	GCLK_EQ(gclk_state_assign(small, big, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "n_vcpus");
	GCLK_EQ(gclk_state_assign(big, big, &error), 0);
	gclk_state_free(small);
	gclk_state_free(big);
}

GCLK_TEST(state, parts_cover_every_record_once)
{
	struct gclk_state *s = gclk_state_new(3);
	uint32_t count;

	GCLK_EQ(gclk_n_parts, 12);
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		char *p = gclk_state_part(s, part, &count);
		uint64_t one = 1;

		GCLK_EQ(count, !part->is_array			    ? 0
			       : part->record == &gclk_timer_record ? 0
								    : 3);
		memcpy(p, &one, sizeof(one));
		gclk_state_part(s, part, &count);
		if (!part->is_array) {
			GCLK_EQ(count, 1);
		}
		for (unsigned j = 0; j < i; j++) {
			CU_ASSERT_STRING_NOT_EQUAL(part->name, gclk_parts[j].name);
			CU_ASSERT(part->offset != gclk_parts[j].offset);
		}
	}
	gclk_state_free(s);
}

GCLK_TEST(state, invalid_states_are_refused_by_name)
{
	struct gclk_state *s = gclk_state_new(2);
	struct gclk_error error = { 0 };

	GCLK_EQ(gclk_state_validate(s, &error), 0);
	s->n_vcpus = 3;
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "n_vcpus");
	s->n_vcpus = 2;
	s->n_timers = GCLK_TIMERS_MAX + 1;
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "n_timers");
	s->n_timers = 0;
	s->n_incompatible = 1;
	memset(s->incompatible[0], 'x', sizeof(s->incompatible[0]));
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "incompatible");
	s->n_incompatible = GCLK_INCOMPATIBLE_MAX + 1;
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "n_incompatible");
	s->n_incompatible = 0;
	GCLK_SET(tsc, &s->tsc[0], vcpu, 1);
	GCLK_SET(tsc, &s->tsc[1], vcpu, 1);
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "tsc[1].vcpu");
	s->tsc[0].vcpu = 0;
	GCLK_SET(pm_timer, &s->pm_timer, bits, 23);
	GCLK_EQ(gclk_state_validate(s, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "pm_timer.bits");
	s->pm_timer.bits = 32;
	GCLK_EQ(gclk_state_validate(s, &error), 0);
	gclk_state_free(s);
}
