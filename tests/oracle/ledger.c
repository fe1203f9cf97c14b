/* SPDX-License-Identifier: MIT */
/*
 * The ledger of a guest saved by QEMU, for a gap that ends at a given instant.
 *
 * Standard input:
 *
 *	s LEVEL PATH	the stream, and the level of IRQ0; answered by "at T", the instant on
 *			the guest's axis
 *	g T		the gap ends at T; answered by a line for each entry of the ledger,
 *			"row TIMER OWED MISSED REPLAYED MERGED DROPPED", then "end"
 *
 * The guest counts its instructions, one a ns, so that its instants are exact. Such a
 * stream does not say how many ns an instruction takes, and is refused for that; here
 * it is known. Also that its RTC stands on the guest's own axis.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>
#include <guestclock/image.h>
#include <guestclock/plan.h>

#include "core/util.h"
#include "image/qemu/carrier.h"

static void give_up(const char *what, const struct gclk_error *error)
{
	fprintf(stderr, "%s: %s: %s\n", what, error->where, error->message);
	exit(2);
}

/*
 * An expiry that is handled in its very ns comes again one tick later, and only then the
 * comparator moves on. Stopped in between the timer has its expiry behind it.
 */
static void end_pair(struct gclk_hpet *hpet, unsigned n)
{
	struct gclk_hpet_timer *timer = &hpet->timers[n];
	uint64_t tick = gclk_hpet_counter_at(hpet, timer->expiry_ns, NULL);
	bool narrow = (timer->config & 0x100) != 0;
	bool second = narrow ? (uint32_t)tick == (uint32_t)timer->comparator_ticks + 1
			     : tick == timer->comparator_ticks + 1;

	if (second && (timer->config & 8) && timer->period_ticks && timer->expiry_ns >= 0) {
		struct gclk_hpet later = *hpet;

		gclk_hpet_advance(&later, timer->expiry_ns, NULL);
		*timer = later.timers[n];
	}
}

static struct gclk_state *read_stream(const char *path, bool irq0)
{
	struct gclk_error error = { 0 };
	struct gclk_image *image;
	struct gclk_state *state;

	if (gclk_image_open(path, NULL, &image, &error) < 0) {
		give_up(path, &error);
	}
	state = gclk_state_new(gclk_image_state(image)->n_vcpus);
	if (!state || gclk_state_assign(state, gclk_image_state(image), &error) < 0) {
		give_up(path, &error);
	}
	gclk_image_close(image);
	GCLK_SET(virtual_clock, &state->virtual_clock, clock_ns,
		 state->virtual_clock.icount_bias_ns + state->virtual_clock.icount);
	GCLK_SET(rtc, &state->rtc, axis, GCLK_AXIS_GUEST);
	GCLK_SET(pit_channel, &state->pit.channels[0], irq_level, irq0);
	for (unsigned n = 0; n < state->hpet.n_timers; n++) {
		end_pair(&state->hpet, n);
	}
	state->n_incompatible = 0;
	return state;
}

static void print_ledger(const struct gclk_state *state, int64_t end)
{
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_when when = { .elapsed_given = 1 };
	struct gclk_disagreement disagreement = { 0 };
	struct gclk_policy policy = gclk_policy_default;
	struct gclk_host host = { 0 };
	struct gclk_error error = { 0 };

	if (!plan) {
		exit(2);
	}
	when.elapsed_ns = end - state->virtual_clock.clock_ns;
	when.run.ns = when.load.ns = when.elapsed_ns;
	if (gclk_plan(state, gclk_qemu_carrier(state), &host, &when, &disagreement, &policy,
		      plan, &error) < 0) {
		give_up("plan", &error);
	}
	for (uint32_t i = 0; i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *entry = &plan->ledger[i];

		printf("row %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
		       entry->timer, entry->owed_before, entry->missed, entry->replayed,
		       entry->merged, entry->dropped);
	}
	gclk_plan_free(plan);
}

int main(void)
{
	struct gclk_state *state = NULL;
	char line[4096];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == 's') {
			gclk_state_free(state);
			state = read_stream(line + 4, line[2] == '1');
			printf("at %" PRId64 "\n", state->virtual_clock.clock_ns);
		} else if (line[0] == 'g' && state) {
			print_ledger(state, strtoll(line + 2, NULL, 10));
			printf("end\n");
		}
		fflush(stdout);
	}
	gclk_state_free(state);
	return 0;
}
