/* SPDX-License-Identifier: MIT */
/* guestclock check: a running guest, read-only: is it right, and where can it go. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/hosts.h"
#include "migrator/json-state.h"
#include "migrator/message.h"
#include "migrator/offsets.h"
#include "migrator/report-json.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/text.h"
#include "migrator/verbs.h"
#include "migrator/virt/look.h"

#define APART_NS (100 * GCLK_NS_PER_MS) /* further than this is worth a word */

static struct own {
	struct hosts_options hosts;
	const char *connect;
} own = { .hosts = { .timeout_ms = 30000 } };

static int set_connect(struct options *o, const char *text, struct gclk_error *reterr)
{
	(void)reterr;
	((struct own *)o->own)->connect = text;
	return 0;
}

static int set_via(struct options *o, const char *text, struct gclk_error *reterr)
{
	return hosts_set_via(&((struct own *)o->own)->hosts, text, reterr);
}

static int set_timeout(struct options *o, const char *text, struct gclk_error *reterr)
{
	return hosts_set_timeout(&((struct own *)o->own)->hosts, text, reterr);
}

static const struct option_row rows[] = {
	{ "connect", 'c', "URI", set_connect,
	  "libvirt of the guest's host; default: its own default" },
	{ "via", 0, "ADDRESS", set_via, HOSTS_VIA_HELP, true },
	{ "timeout", 0, "DURATION", set_timeout, HOSTS_TIMEOUT_HELP },
};

struct destination {
	enum takes verdict;
	struct gclk_findings findings;
};

/* Everything that was found out. */
struct checked {
	const struct gclk_worker *worker; /* who reads what others wrote */
	struct looked looked;
	bool has_host;
	struct gclk_host host; /* the one that it runs on, where that is this one */
	struct offsets offsets;
	char offsets_error[192];
	struct gclk_findings findings;
	struct takes_guest guest;
	unsigned n_hosts;
	struct surveyed *hosts; /* where it might go */
	struct destination *destinations;
};

/* ---- finding out ---- */

static bool runs(const struct checked *c)
{
	return !strcmp(c->looked.state, "running") || !strcmp(c->looked.state, "paused");
}

static void read_offsets(struct checked *c)
{
	struct gclk_error error = { 0 };
	pid_t pid;

	if (!c->looked.is_local || !runs(c) || c->looked.domain.type != GCLK_DOMAIN_KVM) {
		return;
	}
	pid = offsets_pid_of("", c->looked.domain.name);
	if (offsets_read("", pid, &c->offsets, &error) < 0) {
		snprintf(c->offsets_error, sizeof(c->offsets_error), "%.190s",
			 error.message);
		return;
	}
	offsets_lint(&c->offsets, c->guest.tsc_hz, &c->findings);
}

/* The wall clock that the guest shows its users, against that of its host. */
static void lint_agent(struct checked *c)
{
	const struct gclk_disagreement *apart = &c->looked.agent;
	uint64_t size = apart->ns < 0 ? 0 - (uint64_t)apart->ns : (uint64_t)apart->ns;
	char text[TEXT_BYTES], uncertain[TEXT_BYTES];

	if (c->looked.has_agent && size > apart->uncertainty_ns + APART_NS) {
		gclk_findings_add(
			&c->findings, "guest-wall-clock-apart", "",
			"the guest's wall clock is %s +-%s %s of its host's",
			text_approx(text, (int64_t)GCLK_MIN(size, (uint64_t)INT64_MAX)),
			text_approx(uncertain, (int64_t)GCLK_MIN(apart->uncertainty_ns,
								 (uint64_t)INT64_MAX)),
			apart->ns < 0 ? "behind" : "ahead");
	}
}

/* Can it go on where it is? A frequency that is pinned need not be this host's. */
static int lint_rate(struct checked *c, struct gclk_error *reterr)
{
	enum takes verdict;

	return c->has_host ? takes(&c->guest, &c->host, &verdict, &c->findings, reterr)
			   : 0;
}

static int ask_hosts(struct checked *c, const char *const uris[], unsigned n,
		     struct gclk_error *reterr)
{
	int r;

	c->n_hosts = n;
	c->hosts = calloc(n, sizeof(*c->hosts));
	c->destinations = calloc(n, sizeof(*c->destinations));
	if (!c->hosts || !c->destinations) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	r = hosts_ask(uris, n, &own.hosts, c->worker, c->hosts, reterr);
	for (unsigned i = 0; r == 0 && i < n; i++) {
		c->destinations[i].verdict = TAKES_UNKNOWN;
		if (c->hosts[i].state == SURVEY_DONE) {
			r = takes(&c->guest, &c->hosts[i].host,
				  &c->destinations[i].verdict,
				  &c->destinations[i].findings, reterr);
		}
	}
	return r;
}

static int find_out(struct checked *c, const struct options *o, struct gclk_error *reterr)
{
	int r = confine_worker(o->conf, &c->worker, reterr);

	r = r < 0 ? r : look_at(own.connect, o->files[0], c->worker, &c->looked, reterr);

	if (r < 0) {
		return r;
	}
	if (c->looked.is_local) {
		r = read_this_host(&c->host, reterr);
		c->has_host = r == 0;
	}
	c->guest = takes_guest_of_domain(&c->looked.domain, &c->host);
	takes_lint(&c->looked.domain, &c->findings);
	lint_agent(c);
	r = r < 0 ? r : lint_rate(c, reterr);
	if (r == 0) {
		read_offsets(c);
	}
	if (r == 0 && o->n_files > 1) {
		r = ask_hosts(c, o->files + 1, (unsigned)o->n_files - 1, reterr);
	}
	return r;
}

static void free_checked(struct checked *c)
{
	offsets_free(&c->offsets);
	free(c->hosts);
	free(c->destinations);
	free(c);
}

/* ---- for people ---- */

static void put_timers(const struct gclk_domain *domain)
{
	char text[512] = "";
	size_t n = 0;

	for (size_t i = 0; i < domain->n_timers && n < sizeof(text); i++) {
		const struct gclk_domain_timer *timer = &domain->timers[i];
		char hz[TEXT_BYTES];

		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s%s%s%s%s",
				      i ? ", " : "", timer->name,
				      timer->present == GCLK_DOMAIN_NO ? " absent" : "",
				      timer->ticks != GCLK_DOMAIN_TICKS_NONE ? " " : "",
				      timer->ticks != GCLK_DOMAIN_TICKS_NONE
					      ? gclk_tick_policy_names[timer->ticks]
					      : "",
				      timer->frequency_hz ? " at " : "");
		if (timer->frequency_hz && n < sizeof(text)) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s",
					      text_hz(hz, timer->frequency_hz, 1));
		}
	}
	put_line("timers", "%s", text[0] ? text : "none are named");
}

static bool agree(const struct offsets *offsets)
{
	for (uint32_t i = 1; i < offsets->n; i++) {
		if (offsets->items[i].offset_ticks != offsets->items[0].offset_ticks) {
			return false;
		}
	}
	return true;
}

static void put_offsets(const struct checked *c)
{
	const struct vcpu_offset *first = c->offsets.items;
	char ticks[TEXT_BYTES];

	if (c->offsets_error[0]) {
		put_line("offsets", "not known: %s", c->offsets_error);
	} else if (c->offsets.n) {
		put_line("offsets", "vCPU %" PRIu32 "'s TSC is its host's %s ticks%s",
			 first->vcpu, text_signed(ticks, first->offset_ticks),
			 c->offsets.n > 1 && agree(&c->offsets) ? "; so are the others'"
								: "");
	}
}

static void put_agent(const struct looked *looked)
{
	char ns[TEXT_BYTES], uncertain[TEXT_BYTES];

	if (looked->has_agent) {
		put_line("its time", "%s %s from its host's, by its agent",
			 text_approx(ns, looked->agent.ns),
			 text_uncertain(uncertain, looked->agent.uncertainty_ns));
	} else if (looked->agent_error[0]) {
		put_line("its time", "not known: %s", looked->agent_error);
	}
}

static void put_guest(const struct checked *c)
{
	const struct gclk_domain *domain = &c->looked.domain;
	char hz[TEXT_BYTES];

	printf("%s", style(STYLE_BOLD));
	put_text(stdout, domain->name);
	printf("%s: %s on ", style(STYLE_PLAIN), c->looked.state);
	put_text(stdout, c->looked.host[0] ? c->looked.host : "its host");
	putchar('\n');
	put_line("guest", "%s, %" PRIu32 " %s, %s%s%s", domain->uuid, domain->n_vcpus,
		 domain->n_vcpus == 1 ? "vCPU" : "vCPUs",
		 domain->type == GCLK_DOMAIN_KVM ? "KVM" : "emulated",
		 domain->machine[0] ? ", " : "", domain->machine);
	put_line("rtc keeps", "%s%s%s",
		 domain->clock.offset[0] ? domain->clock.offset : "utc",
		 domain->clock.timezone[0] || domain->clock.basis[0] ? ", " : "",
		 domain->clock.timezone[0] ? domain->clock.timezone
					   : domain->clock.basis);
	put_timers(domain);
	put_line("TSC", "%s%s",
		 c->guest.tsc_hz ? text_hz(hz, c->guest.tsc_hz,
					   c->guest.tsc_hz_den ? c->guest.tsc_hz_den : 1)
				 : "not known",
		 !c->guest.tsc_hz ? ""
		 : gclk_domain_timer(domain, "tsc") &&
				 gclk_domain_timer(domain, "tsc")->frequency_hz
			 ? ", pinned"
			 : ", its host's");
	put_offsets(c);
	put_agent(&c->looked);
}

static int put_destinations(const struct checked *c)
{
	static const char *const headings[] = { "HOST", "TAKES IT", "BECAUSE" };
	struct table table;

	table_begin(&table, 3, headings);
	for (unsigned i = 0; i < c->n_hosts; i++) {
		const struct destination *d = &c->destinations[i];

		table_row(&table, hosts_name(&c->hosts[i]),
			  c->hosts[i].state == SURVEY_DONE ? takes_names[d->verdict]
							   : "no answer",
			  d->findings.n ? d->findings.items[0].message : "");
	}
	if (c->n_hosts) {
		putchar('\n');
	}
	return table_end(&table, stdout);
}

static int answer_text(const struct checked *c)
{
	put_guest(c);
	put_findings(&c->findings);
	return put_destinations(c);
}

/* ---- for programs ---- */

static struct json_object *domain_json(const struct looked *looked)
{
	const struct gclk_domain *domain = &looked->domain;
	struct json_object *map = json_new_map(), *timers = json_new_list();

	json_put(map, "name", json_text(domain->name));
	json_put(map, "uuid", json_text(domain->uuid));
	json_put(map, "state", json_text(looked->state));
	json_put(map, "machine", json_text(domain->machine));
	json_put(map, "kvm", json_object_new_boolean(domain->type == GCLK_DOMAIN_KVM));
	json_put(map, "n_vcpus", json_object_new_int64(domain->n_vcpus));
	json_put(map, "clock_offset", json_text(domain->clock.offset));
	json_put(map, "clock_timezone", json_text(domain->clock.timezone));
	for (size_t i = 0; i < domain->n_timers; i++) {
		const struct gclk_domain_timer *timer = &domain->timers[i];
		struct json_object *row = json_new_map();

		json_put(row, "name", json_text(timer->name));
		json_put(row, "tickpolicy",
			 timer->ticks == GCLK_DOMAIN_TICKS_NONE
				 ? NULL
				 : json_text(gclk_tick_policy_names[timer->ticks]));
		json_put(row, "frequency_hz",
			 timer->frequency_hz ? json_u64(timer->frequency_hz) : NULL);
		json_append(timers, row);
	}
	json_put(map, "timers", timers);
	return map;
}

static struct json_object *offsets_json(const struct offsets *offsets)
{
	struct json_object *list = json_new_list();

	for (uint32_t i = 0; i < offsets->n; i++) {
		const struct vcpu_offset *item = &offsets->items[i];
		struct json_object *map = json_new_map();

		json_put(map, "vcpu", json_object_new_int64(item->vcpu));
		json_put(map, "tsc_offset_ticks", json_i64(item->offset_ticks));
		json_put(map, "tsc_ratio", item->ratio ? json_u64(item->ratio) : NULL);
		json_put(map, "tsc_ratio_frac_bits",
			 item->ratio ? json_object_new_int64(item->frac_bits) : NULL);
		json_append(list, map);
	}
	return list;
}

static struct json_object *agent_json(const struct looked *looked)
{
	struct json_object *map;

	if (!looked->has_agent) {
		return NULL;
	}
	map = json_new_map();
	json_put(map, "ns", json_i64(looked->agent.ns));
	json_put(map, "uncertainty_ns", json_bound(looked->agent.uncertainty_ns));
	return map;
}

static int answer_json(const struct checked *c)
{
	struct json_object *answer = json_answer("check"), *hosts = json_new_list();

	json_put(answer, "domain", domain_json(&c->looked));
	json_put(answer, "tsc_hz", c->guest.tsc_hz ? json_u64(c->guest.tsc_hz) : NULL);
	json_put(answer, "runs_on", json_text(c->looked.host));
	json_put(answer, "host",
		 c->has_host ? json_must(json_from_record(&gclk_host_record, &c->host)) : NULL);
	json_put(answer, "vcpus", offsets_json(&c->offsets));
	json_put(answer, "agent_clock_minus_hosts", agent_json(&c->looked));
	json_put(answer, "findings", json_findings(&c->findings));
	for (unsigned i = 0; i < c->n_hosts; i++) {
		struct json_object *map = hosts_json(&c->hosts[i]);

		json_put(map, "takes",
			 json_text(takes_names[c->destinations[i].verdict]));
		json_put(map, "findings", json_findings(&c->destinations[i].findings));
		json_append(hosts, map);
	}
	json_put(answer, "hosts", hosts);
	json_print(answer);
	return 0;
}

/* ---- the verb ---- */

/* With --check: nothing was found, and each of the hosts can take it. */
static bool all_is_well(const struct checked *c)
{
	for (unsigned i = 0; i < c->n_hosts; i++) {
		if (c->hosts[i].state != SURVEY_DONE ||
		    c->destinations[i].verdict > TAKES_SCALED) {
			return false;
		}
	}
	return !found_something(&c->findings);
}

static int run(const struct options *o)
{
	struct checked *c = calloc(1, sizeof(*c));
	struct gclk_error error;
	int r = c ? find_out(c, o, &error)
		  : gclk_fail(&error, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");

	if (r < 0) {
		r = fail(o->files[0], &error, EFFECT_NONE, NULL);
	} else {
		hosts_say_failures(c->hosts, c->n_hosts);
		r = given(o, OPTION(JSON)) ? answer_json(c) : answer_text(c);
		r = r ? r : given(o, OPTION(CHECK)) && !all_is_well(c) ? GCLK_REFUSED : 0;
	}
	if (c) {
		free_checked(c);
	}
	return r;
}

const struct verb verb_check = {
	.name = "check",
	.summary = SUMMARY_CHECK,
	.synopsis = "DOMAIN [URI...]",
	.text = "Looks at a guest of libvirt's and changes nothing: what its XML says "
		"about clocks "
		"and leaves open, the frequency of its TSC, the offsets that the kernel "
		"shows of "
		"its vCPUs (to root, under KVM), and how far its wall clock is from its "
		"host's if "
		"its agent answers. Then which of the hosts URI... can take it, and why "
		"not.",
	.example = "guestclock check web1 qemu+ssh://host2/system",
	.options = OPTIONS_COMMON | OPTION(CHECK),
	.min_files = 1,
	.max_files = FILES_MAX,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
