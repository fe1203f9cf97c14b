/* SPDX-License-Identifier: MIT */
/*
 * What a plan costs: gclk_plan() in a loop on the state of a real image, with a plan
 * object made once.
 *
 *	bench-plan IMAGE [ROUNDS]
 *
 * Prints "VCPUS NS-PER-PLAN", from the fastest of ten runs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <guestclock/image.h>
#include <guestclock/kvm.h>
#include <guestclock/plan.h>

#define RUNS 10

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int fail(const struct gclk_error *err)
{
	fprintf(stderr, "bench-plan: error: %s: %s\n", err->where, err->message);
	return 1;
}

/* One run; ns for all rounds, or a negative status. */
static int64_t run(const struct gclk_image *image, const struct gclk_host *host,
		   struct gclk_plan *plan, unsigned rounds, struct gclk_error *err)
{
	const struct gclk_disagreement same_host = { 0 };
	struct gclk_when when = { 0 };
	int64_t begin;
	unsigned i;
	int r;

	when.captured.ns = host->realtime_ns;
	begin = now_ns();
	for (i = 0; i < rounds; i++) {
		/* another gap each time: one hour and more */
		when.run.ns = when.captured.ns + INT64_C(3600000000000) + i;
		when.load.ns = when.run.ns - 2000000;
		r = gclk_plan(gclk_image_state(image), gclk_image_carrier(image), host, &when,
			      &same_host, &gclk_policy_default, plan, err);
		if (r < 0 && r != -GCLK_REFUSED) {
			return r;
		}
	}
	return now_ns() - begin;
}

static int measure(const struct gclk_image *image, unsigned rounds, struct gclk_error *err)
{
	uint32_t n_vcpus = gclk_image_state(image)->n_vcpus;
	struct gclk_plan *plan = gclk_plan_new(n_vcpus);
	struct gclk_host host;
	int64_t best = INT64_MAX, took = -GCLK_NOMEM;
	unsigned i;

	if (plan && gclk_host_read(&host, 0, err) == 0) {
		took = 0;
	}
	for (i = 0; i < RUNS && took >= 0; i++) {
		took = run(image, &host, plan, rounds, err);
		best = took < best ? took : best;
	}
	gclk_plan_free(plan);
	if (took < 0) {
		return fail(err);
	}
	printf("%" PRIu32 " %" PRId64 "\n", n_vcpus, best / rounds);
	return 0;
}

int main(int argc, char **argv)
{
	struct gclk_error err = { 0 };
	struct gclk_image *image;
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 10000;
	int r;

	if (argc < 2 || rounds == 0) {
		fprintf(stderr, "usage: bench-plan IMAGE [ROUNDS]\n");
		return 2;
	}
	if (gclk_image_open(argv[1], NULL, &image, &err) < 0) {
		return fail(&err);
	}
	r = measure(image, rounds, &err);
	gclk_image_close(image);
	return r;
}
