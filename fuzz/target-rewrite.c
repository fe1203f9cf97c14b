/* SPDX-License-Identifier: MIT */
/* Read, plan, patch, read again: what is read then is what was planned. */
#include <string.h>

#include <guestclock/bundle.h>
#include <guestclock/image.h>

#include "fuzz.h"

static struct gclk_filter *read_stream(const uint8_t *data, size_t size)
{
	struct gclk_filter_options options = { .one_way = 1 };
	struct gclk_filter *f = NULL;
	size_t pass, held;

	FUZZ_CHECK(gclk_filter_new(&options, &f, NULL) == 0);
	gclk_filter_push(f, data, size, &pass, &held, NULL);
	return f;
}

static struct gclk_plan *make_plan(struct gclk_filter *f, uint64_t choice)
{
	static const int64_t elapsed_ns[] = { 0, 1, 1000, 83000000, 5000000000, 3600000000000,
					      INT64_C(31536000000000000), INT64_C(1) << 61 };
	const struct gclk_state *state = gclk_filter_state(f);
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_policy policy = gclk_policy_default;
	struct gclk_when when = { .elapsed_given = 1,
				  .elapsed_ns = elapsed_ns[fuzz_next(&choice) % 8] };
	struct gclk_disagreement none = { 0 };
	struct gclk_host host = { 0 };
	struct gclk_error error = { 0 };
	int r;

	FUZZ_CHECK(plan);
	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	when.run.ns = when.load.ns = INT64_C(1800000000000000000);
	policy.gap = (uint8_t)(fuzz_next(&choice) % 4);
	policy.cap_ns = 1000000000;
	for (unsigned i = 0; i < sizeof(policy.ticks) / sizeof(policy.ticks[0]); i++) {
		policy.ticks[i].policy = (uint8_t)(fuzz_next(&choice) % 5);
	}
	r = gclk_plan(state, gclk_filter_carrier(f), &host, &when, &none, &policy, plan, &error);
	return r == 0 ? plan : gclk_plan_free(plan);
}

static uint8_t *packed(const struct gclk_state *state, int64_t *ret_n)
{
	struct gclk_error error = { 0 };
	uint8_t *bytes;

	*ret_n = gclk_state_pack(state, NULL, 0, &error);
	if (*ret_n < 0) {
		return NULL;
	}
	bytes = malloc((size_t)*ret_n);
	FUZZ_CHECK(bytes && gclk_state_pack(state, bytes, (size_t)*ret_n, &error) == *ret_n);
	return bytes;
}

/* What no stream says and the reader concludes from the rest, which a plan may change. */
static void forget_conclusions(struct gclk_state *state)
{
	GCLK_UNSET(rtc, &state->rtc, catches_up);
	GCLK_UNSET(rtc, &state->rtc, axis);
}

/* Read again, the state packs to the same bytes. */
static void check_read_back(const struct gclk_filter *f, const struct gclk_state *planned)
{
	const struct gclk_state *read = gclk_filter_state(f);
	uint8_t *bytes[2];
	int64_t n[2];

	FUZZ_CHECK(read && read->n_vcpus == planned->n_vcpus);
	for (int i = 0; i < 2; i++) {
		struct gclk_state *copy = gclk_state_new(planned->n_vcpus);
		uint8_t *all = packed(i ? read : planned, &n[i]);

		FUZZ_CHECK(copy && all && gclk_state_unpack(copy, all, (size_t)n[i], NULL) == 0);
		forget_conclusions(copy);
		bytes[i] = packed(copy, &n[i]);
		gclk_state_free(copy);
		free(all);
	}
	FUZZ_CHECK(n[0] == n[1] && n[0] > 0 && !memcmp(bytes[0], bytes[1], (size_t)n[0]));
	free(bytes[0]);
	free(bytes[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gclk_filter *f = read_stream(data, size), *g;
	const struct gclk_image_change *changes;
	struct gclk_error error = { 0 };
	struct gclk_plan *plan = NULL;
	const uint8_t *bytes;
	uint8_t *copy;
	size_t n;
	int r = -1;

	if (gclk_filter_state(f)) {
		plan = make_plan(f, fuzz_hash(data, size));
	}
	if (plan) {
		r = gclk_filter_apply(f, plan, &bytes, &n, &error);
		FUZZ_CHECK(r == 0 || (error.status == -r && error.message[0]));
	}
	if (r == 0) {
		size_t end = (size_t)gclk_filter_offset(f);

		FUZZ_CHECK(n <= end && end <= size);
		copy = malloc(end);
		FUZZ_CHECK(copy);
		memcpy(copy, data, end - n);
		memcpy(copy + end - n, bytes, n);
		g = read_stream(copy, end);
		check_read_back(g, gclk_filter_changes(f, &changes) ? plan->state :
				gclk_filter_state(f));
		gclk_filter_free(g);
		free(copy);
	}
	gclk_plan_free(plan);
	gclk_filter_free(f);
	return 0;
}
