/* SPDX-License-Identifier: MIT */
/*
 * What a worker answers, once it is in a stranger's hands: errors, or values that are safe
 * to use. The first byte says to which question; the rest is the frame.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "fuzz.h"
#include "image/worker/far.h"
#include "image/worker/guard.h"

static void text(const char *p, size_t size)
{
	FUZZ_CHECK(memchr(p, 0, size));
	for (; *p; p++) {
		FUZZ_CHECK((unsigned char)*p >= ' ' && *p != 0x7f);
	}
}

static void take_state(struct gclk_rest *rest)
{
	struct gclk_state *state = NULL;

	if (gclk_take_state(rest, &state, NULL) == 0) {
		FUZZ_CHECK(gclk_state_validate(state, NULL) == 0);
		text(state->guest.machine, sizeof(state->guest.machine));
		text(state->guest.name, sizeof(state->guest.name));
		text(state->guest.uuid, sizeof(state->guest.uuid));
		for (uint32_t i = 0; i < state->n_timers; i++) {
			text(state->timers[i].name, sizeof(state->timers[i].name));
		}
	}
	gclk_state_free(state);
}

static void take_facts(struct gclk_rest *rest)
{
	struct gclk_guard guard = { .writable = true, .floor = 4096, .size = 1 << 30 };
	struct gclk_facts *facts = malloc(sizeof(*facts));
	struct gclk_error said;
	int result;

	if (gclk_take_done(rest, &result, &said, NULL) == 0) {
		text(said.message, sizeof(said.message));
		if (gclk_take_facts(rest, facts, NULL) == 0) {
			if (facts->has_domain) {
				text(facts->domain.name, sizeof(facts->domain.name));
				FUZZ_CHECK(facts->domain.n_timers <= GCLK_DOMAIN_MAX_TIMERS);
			}
			if (gclk_guard_narrow(&guard, facts, NULL) == 0) {
				FUZZ_CHECK(!gclk_guard_allows_write(&guard, 4095, 1));
				FUZZ_CHECK(!gclk_guard_allows_size(&guard, 4095));
			}
			take_state(rest);
		}
	}
	free(facts);
}

static void take_lists(struct gclk_rest *rest)
{
	struct gclk_said_change *changes = NULL;
	struct gclk_said_field *fields = NULL;
	struct gclk_snapshot snapshots[4];
	struct gclk_rest again = *rest;
	unsigned n;

	if (gclk_take_changes(&again, &changes, &n, NULL) == 0 && n) {
		text(changes[n - 1].field, sizeof(changes[n - 1].field));
	}
	again = *rest;
	if (gclk_take_fields(&again, &fields, &n, NULL) == 0 && n) {
		FUZZ_CHECK(fields[n - 1].size <= sizeof(fields[n - 1].bytes));
	}
	if (gclk_take_snapshots(rest, snapshots, 4, &n, NULL) == 0 && n) {
		text(snapshots[0].name, sizeof(snapshots[0].name));
	}
	free(changes);
	free(fields);
}

/* Patches change what is held, and nothing beside it. */
static void take_patches(struct gclk_rest *rest)
{
	enum { HELD = 300 };
	uint8_t *held = calloc(1, HELD);
	struct gclk_far_patch *patches = NULL;
	unsigned n;

	if (gclk_take_far_patches(rest, held, HELD, &patches, &n, NULL) == 0) {
		free(patches);
	}
	free(held);
}

static void take_far(struct gclk_rest *rest)
{
	struct gclk_far_facts facts;
	struct gclk_far_answer answer;

	if (gclk_rest_take(rest, &answer, sizeof(answer)) &&
	    gclk_far_answer_holds(&answer, 1000)) {
		struct gclk_grant grant = { answer.rest, answer.below, &answer.watch };

		FUZZ_CHECK(answer.passed + answer.held <= 1000);
		FUZZ_CHECK(gclk_grant_use(&grant, rest->at, rest->n) <= rest->n);
	}
	if (gclk_take_far_facts(rest, &facts, NULL) == 0) {
		text(facts.machine, sizeof(facts.machine));
		take_state(rest);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const takers[])(struct gclk_rest *rest) = {
		take_facts, take_state, take_lists, take_patches, take_far,
	};
	struct gclk_rest rest = { data + 1, size - 1 };

	if (size) {
		takers[data[0] % (sizeof(takers) / sizeof(takers[0]))](&rest);
	}
	return 0;
}
