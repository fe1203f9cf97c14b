/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libvirt/libvirt.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/situation.h"
#include "migrator/virt/connect.h"
#include "migrator/virt/look.h"
#include "migrator/virt/survey.h"

static const char *state_name(int state)
{
	static const char *const names[] = {
		[VIR_DOMAIN_NOSTATE] = "no state",
		[VIR_DOMAIN_RUNNING] = "running",
		[VIR_DOMAIN_BLOCKED] = "idle",
		[VIR_DOMAIN_PAUSED] = "paused",
		[VIR_DOMAIN_SHUTDOWN] = "in shutdown",
		[VIR_DOMAIN_SHUTOFF] = "shut off",
		[VIR_DOMAIN_CRASHED] = "crashed",
		[VIR_DOMAIN_PMSUSPENDED] = "asleep",
	};

	return state >= 0 && (size_t)state < GCLK_COUNT(names) && names[state]
		       ? names[state]
		       : "no state";
}

/* Somewhere between the question and the answer the guest read its clock. */
static void ask_agent(virDomainPtr domain, struct looked *ret)
{
	long long seconds;
	unsigned nseconds;
	struct wall_line line;
	int64_t before, after, middle;

	wall_line_begin(&line);
	before = wall_line_ns(&line);
	if (virDomainGetTime(domain, &seconds, &nseconds, 0) < 0) {
		virt_last_error(ret->agent_error, sizeof(ret->agent_error));
		return;
	}
	after = wall_line_ns(&line);
	middle = before + (after - before) / 2 + wall_line_step_ns(&line);
	ret->has_agent = true;
	ret->agent.ns = gclk_sub_sat(seconds * GCLK_NS_PER_S + nseconds, middle);
	ret->agent.uncertainty_ns =
		after > before ? (uint64_t)(after - before) / 2 + 1 : 1;
}

static int look(virConnectPtr connection, const char *text, const struct gclk_worker *by,
		struct looked *ret, struct gclk_error *reterr)
{
	virDomainPtr domain;
	char *xml, *name;
	int state = 0, reason, r = virt_domain(connection, text, &domain, reterr);

	if (r < 0) {
		return r;
	}
	xml = virDomainGetXMLDesc(domain, 0);
	if (!xml || virDomainGetState(domain, &state, &reason, 0) < 0) {
		r = virt_fail(reterr, GCLK_SYS, "looking at the domain");
	} else {
		r = gclk_worker_domain_read(by, xml, strlen(xml), &ret->domain, reterr);
	}
	ret->state = state_name(state);
	if (r == 0 && state == VIR_DOMAIN_RUNNING) {
		ask_agent(domain, ret);
	}
	name = virConnectGetHostname(connection);
	gclk_text_copy(ret->host, sizeof(ret->host), name ? name : "");
	free(name);
	free(xml);
	virDomainFree(domain);
	return r;
}

int look_at(const char *uri, const char *text, const struct gclk_worker *by,
	    struct looked *ret, struct gclk_error *reterr)
{
	virConnectPtr connection;
	char *own;
	int r;

	memset(ret, 0, sizeof(*ret));
	/* the agent answers those alone who might change something: nothing is */
	r = virt_connect(uri, false, &connection, reterr);
	if (r < 0 && virt_connect(uri, true, &connection, NULL) < 0) {
		return r;
	}
	own = virConnectGetURI(connection);
	ret->is_local = own && survey_is_here(own);
	free(own);
	r = look(connection, text, by, ret, reterr);
	virConnectClose(connection);
	return r;
}
