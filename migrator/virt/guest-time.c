/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include <libvirt/virterror.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/peer/link.h"
#include "migrator/virt/connect.h"
#include "migrator/virt/guest-time.h"
#include "migrator/wall.h"

#define AGENT_WAIT_NS (5 * GCLK_NS_PER_S)
#define TRIES 3
#define NEAR_NS GCLK_NS_PER_MS

static int set(virDomainPtr domain, int64_t ahead_ns)
{
	int64_t ns = wall_clock_ns() + ahead_ns;

	return virDomainSetTime(domain, ns / GCLK_NS_PER_S, (unsigned)(ns % GCLK_NS_PER_S), 0);
}

static bool is_not_connected_yet(void)
{
	virErrorPtr error = virGetLastError();

	return error && error->code == VIR_ERR_AGENT_UNRESPONSIVE;
}

static int set_when_connected(virDomainPtr domain)
{
	int64_t until_ns = clock_mono_ns() + AGENT_WAIT_NS;
	int r = set(domain, 0);

	while (r < 0 && is_not_connected_yet() && clock_mono_ns() < until_ns) {
		virResetLastError();
		nanosleep(&(struct timespec){ 0, 50 * GCLK_NS_PER_MS }, NULL);
		r = set(domain, 0);
	}
	return r;
}

/* Against the wall clock as it is in the end, should somebody set it meanwhile. */
static int measure(virDomainPtr domain, struct guest_time *ret)
{
	struct wall_line line;
	int64_t asked_ns, got_ns;
	long long seconds = 0;
	unsigned nanoseconds = 0;

	wall_line_begin(&line);
	asked_ns = wall_line_ns(&line);
	if (virDomainGetTime(domain, &seconds, &nanoseconds, 0) < 0) {
		return -1;
	}
	got_ns = wall_line_ns(&line);
	ret->off_ns = seconds * GCLK_NS_PER_S + nanoseconds -
		      (asked_ns + (got_ns - asked_ns) / 2) - wall_line_step_ns(&line);
	ret->bound_ns = (uint64_t)(GCLK_MAX(got_ns - asked_ns, 0) + 1) / 2;
	return 0;
}

/*
 * Each try shows how long the agent took before it set the clock, the first one often very
 * long. The next allows for the shortest of them: so it is seldom ahead, and the less behind.
 */
int guest_time_set(virDomainPtr domain, struct guest_time *ret, struct gclk_error *reterr)
{
	int64_t lead_ns = 0, took_ns = INT64_MAX;
	int r = set_when_connected(domain);

	for (unsigned tries = 1; r == 0; tries++) {
		r = measure(domain, ret);
		if (r < 0 || tries == TRIES ||
		    llabs(ret->off_ns) <= (long long)GCLK_MAX(ret->bound_ns, NEAR_NS)) {
			break;
		}
		took_ns = GCLK_MIN(took_ns, lead_ns - ret->off_ns);
		/* the second try is like the first, but that all are awake */
		lead_ns = tries == 1 ? 0 : GCLK_MAX(took_ns, 0);
		r = set(domain, lead_ns);
	}
	return r < 0 ? virt_fail(reterr, GCLK_SYS, "setting the guest's time through its agent") :
		       0;
}

void guest_time_say(virDomainPtr domain, const char *name)
{
	struct gclk_error error;
	struct guest_time t;

	if (!domain) {
		message("warning", name, "wall-clock-behind", EFFECT_READING, NULL,
			"the guest's time was not set: its libvirt is not in reach from here");
	} else if (guest_time_set(domain, &t, &error) < 0) {
		message("warning", name, "wall-clock-behind", EFFECT_READING, NULL, "%s",
			error.message);
	} else {
		message("note", name, NULL, EFFECT_READING, NULL,
			"the guest's time was set through its agent; it is %+" PRId64
			" us off, known to within %" PRIu64 " us",
			t.off_ns / 1000, t.bound_ns / 1000 + 1);
	}
}
