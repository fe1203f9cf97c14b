/* SPDX-License-Identifier: MIT */
/* States as runs of bytes, and what is made of bytes that somebody forged. */
#include <stdlib.h>
#include <string.h>

#include <guestclock/state.h>

#include "gclk-test.h"

static struct gclk_state *state_of(uint32_t n_vcpus)
{
	struct gclk_state *state = gclk_state_new(n_vcpus);

	CU_ASSERT_PTR_NOT_NULL_FATAL(state);
	state->guest.has |= GCLK_BIT(guest, name);
	strcpy(state->guest.name, "a guest");
	return state;
}

/* Of the bytes of @state, @change made to them first; NULL: refused. */
static struct gclk_state *there_and_back(const struct gclk_state *state,
					 void (*change)(struct gclk_state *head))
{
	size_t n = gclk_state_flat_bytes(state), used = 0;
	uint8_t *bytes = malloc(n);
	struct gclk_state *back = NULL, head;

	CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
	gclk_state_flatten(state, bytes);
	memcpy(&head, bytes, sizeof(head));
	if (change) {
		change(&head);
	}
	memcpy(bytes, &head, sizeof(head));
	if (gclk_state_unflatten(bytes, n, &used, &back, NULL) == 0) {
		GCLK_EQ(used, n);
	} else {
		back = NULL;
	}
	/* not one byte less is enough */
	for (size_t cut = 0; back && cut < n; cut += 1 + cut / 8) {
		struct gclk_state *none = NULL;

		CU_ASSERT(gclk_state_unflatten(bytes, cut, &used, &none, NULL) < 0);
		CU_ASSERT_PTR_NULL(none);
	}
	free(bytes);
	return back;
}

GCLK_TEST(flat, a_state_comes_back)
{
	struct gclk_state *state = state_of(3), *back = there_and_back(state, NULL);

	CU_ASSERT_PTR_NOT_NULL_FATAL(back);
	CU_ASSERT(back->tsc != state->tsc);
	CU_ASSERT_STRING_EQUAL(back->guest.name, "a guest");
	GCLK_EQ(back->n_vcpus, 3);
	GCLK_EQ(memcmp(back->tsc, state->tsc, 3 * sizeof(*state->tsc)), 0);
	gclk_state_free(back);
	gclk_state_free(state);
}

static void have_no_end(struct gclk_state *head)
{
	memset(head->guest.name, 'x', sizeof(head->guest.name));
}

static void have_many_vcpus(struct gclk_state *head)
{
	head->n_vcpus = GCLK_VCPUS_MAX + 1;
}

static void have_many_timers(struct gclk_state *head)
{
	head->n_timers = GCLK_TIMERS_MAX + 1;
}

GCLK_TEST(flat, forged_bytes_are_refused)
{
	struct gclk_state *state = state_of(1);

	CU_ASSERT_PTR_NULL(there_and_back(state, have_no_end));
	CU_ASSERT_PTR_NULL(there_and_back(state, have_many_vcpus));
	CU_ASSERT_PTR_NULL(there_and_back(state, have_many_timers));
	gclk_state_free(state);
}
