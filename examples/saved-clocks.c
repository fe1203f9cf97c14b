/* SPDX-License-Identifier: MIT */
/*
 * What would an hour do to a saved guest? Reads any image that the library knows, plans
 * a resume 3600 s after the stop on this host, and says what each clock would be set
 * forward by and how far off it could be. Nothing is written.
 *
 *	saved-clocks IMAGE
 */
#include <inttypes.h>
#include <stdio.h>

#include <guestclock/image.h>
#include <guestclock/kvm.h>

static int fail(const char *what, const struct gclk_error *error)
{
	fprintf(stderr, "saved-clocks: %s: %s: %s\n", what, gclk_status_name(error->status),
		error->message);
	return error->status;
}

static void report(const struct gclk_plan *plan)
{
	printf("%" PRId64 " s counted\n", plan->counted_ns / 1000000000);
	for (uint32_t i = 0; i < plan->n_bounds; i++) {
		const struct gclk_bound *bound = &plan->bounds[i];

		if (bound->bound_ns == GCLK_UNBOUNDED) {
			printf("%-10s unbounded\n", bound->clock);
		} else {
			printf("%-10s within %" PRIu64 " ns\n", bound->clock, bound->bound_ns);
		}
	}
	for (unsigned i = 0; i < plan->findings.n; i++) {
		printf("%s: %s\n", plan->findings.items[i].info->id,
		       plan->findings.items[i].message);
	}
}

static int look(const char *path, const struct gclk_image *image)
{
	const struct gclk_state *state = gclk_image_state(image);
	const struct gclk_when when = { .elapsed_given = 1,
					.elapsed_ns = INT64_C(3600000000000),
					.captured.uncertainty_ns = GCLK_UNBOUNDED };
	const struct gclk_disagreement none = { 0 };	/* it stays on this host */
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_host host;
	struct gclk_error error = { .status = GCLK_NOMEM, .message = "out of memory" };
	/* a tenth of a second for a TSC whose frequency the kernel does not tell */
	int r = plan ? gclk_host_read(&host, 100000000, &error) : -GCLK_NOMEM;

	if (r == 0) {
		r = gclk_plan(state, gclk_image_carrier(image), &host, &when, &none,
			      &gclk_policy_default, plan, &error);
	}
	if (r == 0 || r == -GCLK_REFUSED) {
		report(plan);
	} else {
		fail(path, &error);
	}
	gclk_plan_free(plan);
	return -r;
}

int main(int argc, char **argv)
{
	struct gclk_image *image;
	struct gclk_error error;
	int status;

	if (argc != 2) {
		fprintf(stderr, "usage: saved-clocks IMAGE\n");
		return GCLK_USAGE;
	}
	if (gclk_image_open(argv[1], NULL, &image, &error) < 0) {
		return fail(argv[1], &error);
	}
	status = look(argv[1], image);
	gclk_image_close(image);
	return status;
}
