/* SPDX-License-Identifier: MIT */
/* guestclock hosts: which of these hosts can take which guests, and why not. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/hosts.h"
#include "migrator/json-state.h"
#include "migrator/message.h"
#include "migrator/migration.h"
#include "migrator/report-json.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

#define TIMEOUT_MS                                                                       \
	30000 /* a libvirt that has just started asks its QEMUs for many seconds */

static struct hosts_options own = { .timeout_ms = TIMEOUT_MS };

int hosts_set_via(struct hosts_options *to, const char *text, struct gclk_error *reterr)
{
	if (to->n_via == FILES_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "too many of them");
	}
	if (strlen(text) >= sizeof(((struct surveyed *)0)->via)) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "it is too long");
	}
	to->via[to->n_via++] = text;
	return 0;
}

int hosts_set_timeout(struct hosts_options *to, const char *text,
		      struct gclk_error *reterr)
{
	int64_t ns;
	int r = parse_span(text, &ns, reterr);

	if (r == 0 && (ns < GCLK_NS_PER_MS || ns > 3600 * GCLK_NS_PER_S)) {
		r = gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
			      "not within 1ms..1h");
	}
	to->timeout_ms = r == 0 ? (int)(ns / GCLK_NS_PER_MS) : to->timeout_ms;
	return r;
}

static int set_via(struct options *o, const char *text, struct gclk_error *reterr)
{
	return hosts_set_via(o->own, text, reterr);
}

static int set_timeout(struct options *o, const char *text, struct gclk_error *reterr)
{
	return hosts_set_timeout(o->own, text, reterr);
}

static const struct option_row rows[] = {
	{ "via", 0, "ADDRESS", set_via, HOSTS_VIA_HELP, true },
	{ "timeout", 0, "DURATION", set_timeout, HOSTS_TIMEOUT_HELP },
};

/* ---- asking ---- */

/* As for a migration there; a URI that does not tell has none. */
static void find_via(struct surveyed *host)
{
	struct gclk_error error;

	if (survey_is_here(host->uri) ||
	    migration_address(host->uri, NULL, host->via, &error) < 0) {
		host->via[0] = 0;
	}
}

int hosts_ask(const char *const uris[], unsigned n, const struct hosts_options *options,
	      const struct gclk_worker *by, struct surveyed *ret, struct gclk_error *reterr)
{
	for (unsigned i = 0; i < n; i++) {
		const char *via = i < options->n_via ? options->via[i] : "auto";

		if (strlen(uris[i]) >= sizeof(ret[i].uri)) {
			return gclk_fail(reterr, GCLK_RANGE, uris[i], GCLK_NO_OFFSET,
					 "the URI is too long");
		}
		memset(&ret[i], 0, sizeof(ret[i]));
		gclk_text_copy(ret[i].uri, sizeof(ret[i].uri), uris[i]);
		if (!strcmp(via, "auto")) {
			find_via(&ret[i]);
		} else if (strcmp(via, "none")) {
			gclk_text_copy(ret[i].via, sizeof(ret[i].via), via);
		}
	}
	return survey_hosts(ret, n, by, options->timeout_ms, reterr);
}

const char *hosts_name(const struct surveyed *host)
{
	return host->name[0] ? host->name : host->uri;
}

void hosts_say_failures(const struct surveyed *hosts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct surveyed *host = &hosts[i];

		if (host->state == SURVEY_SILENT) {
			message("warning", host->uri, gclk_status_name(GCLK_SYS),
				EFFECT_READING, NULL, "no answer in time");
		} else if (host->state == SURVEY_FAILED) {
			message("warning", host->uri,
				gclk_status_name(host->error.status), EFFECT_READING,
				NULL, "%s", host->error.message);
		} else if (host->via_error.status) {
			message("note", host->uri,
				gclk_status_name(host->via_error.status), EFFECT_READING,
				NULL, "no guestclock answers by %s: %s", host->via,
				host->via_error.message);
		}
	}
}

/* ---- the table of hosts ---- */

static const char *tsc_text(const struct gclk_host *host, char to[TEXT_BYTES])
{
	if (!GCLK_HAS(host, host, tsc_hz)) {
		return "not known";
	}
	return text_hz(to, host->tsc_hz,
		       GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1);
}

static const char *wall_text(const struct surveyed *host, char to[TEXT_BYTES])
{
	char error[TEXT_BYTES];

	if (!host->has_profile) {
		return "not known";
	}
	if (!(host->host.flags & GCLK_HOST_SYNCHRONISED)) {
		return "not synchronised";
	}
	snprintf(to, TEXT_BYTES, "synchronised%s%.60s",
		 GCLK_HAS(host, &host->host, ntp_maxerror_ns) ? " " : "",
		 GCLK_HAS(host, &host->host, ntp_maxerror_ns)
			 ? text_uncertain(error, host->host.ntp_maxerror_ns)
			 : "");
	return to;
}

static const char *apart_text(const struct surveyed *host, char to[TEXT_BYTES])
{
	char ns[TEXT_BYTES], uncertain[TEXT_BYTES];

	if (host->is_here) {
		return "this host";
	}
	if (host->apart.uncertainty_ns == GCLK_UNBOUNDED) {
		return "not measured";
	}
	snprintf(to, TEXT_BYTES, "%.40s %.40s", text_approx(ns, host->apart.ns),
		 text_uncertain(uncertain, host->apart.uncertainty_ns));
	return to;
}

static int put_hosts(const struct surveyed *hosts, unsigned n)
{
	static const char *const headings[] = { "HOST",	  "TSC",	"SCALES",
						"KVM",	  "WALL CLOCK", "FROM HERE",
						"KERNEL", "LIBVIRT" };
	struct table table;

	table_begin(&table, 8, headings);
	for (unsigned i = 0; i < n; i++) {
		const struct surveyed *host = &hosts[i];
		char tsc[TEXT_BYTES], wall[TEXT_BYTES], apart[TEXT_BYTES], version[32];

		if (host->state != SURVEY_DONE) {
			table_row(&table, hosts_name(host), "no answer", "", "", "", "",
				  "", "");
			continue;
		}
		snprintf(version, sizeof(version), "%" PRIu32 ".%" PRIu32 ".%" PRIu32,
			 host->libvirt / 1000000, host->libvirt / 1000 % 1000,
			 host->libvirt % 1000);
		table_row(&table, hosts_name(host), tsc_text(&host->host, tsc),
			  host->host.flags & GCLK_HOST_TSC_SCALING ? "yes" : "no",
			  host->has_kvm ? "yes" : "no", wall_text(host, wall),
			  apart_text(host, apart),
			  host->host.kernel_release[0] ? host->host.kernel_release
						       : "not known",
			  version);
	}
	return table_end(&table, stdout);
}

struct json_object *hosts_json(const struct surveyed *host)
{
	static const char *const states[] = { "silent", "failed", "done" };
	struct json_object *map = json_new_map(), *apart = NULL;

	json_put(map, "uri", json_text(host->uri));
	json_put(map, "state", json_text(states[host->state]));
	json_put(map, "error",
		 json_text(host->state == SURVEY_FAILED ? host->error.message : NULL));
	json_put(map, "name", json_text(host->name));
	json_put(map, "uuid", json_text(host->uuid));
	json_put(map, "libvirt_version", json_object_new_int64(host->libvirt));
	json_put(map, "kvm", json_object_new_boolean(host->has_kvm));
	json_put(map, "via", json_text(host->via));
	json_put(map, "via_error",
		 json_text(host->via_error.status ? host->via_error.message : NULL));
	json_put(map, "has_profile", json_object_new_boolean(host->has_profile));
	json_put(map, "host", json_must(json_from_record(&gclk_host_record, &host->host)));
	if (host->apart.uncertainty_ns != GCLK_UNBOUNDED) {
		apart = json_new_map();
		json_put(apart, "ns", json_i64(host->apart.ns));
		json_put(apart, "uncertainty_ns", json_bound(host->apart.uncertainty_ns));
	}
	json_put(map, "wall_clock_minus_ours", apart);
	return map;
}

/* ---- the matrix ---- */

struct pair {
	unsigned from, to;
	enum takes verdict;
	struct gclk_findings *findings;
};

struct matrix {
	const struct surveyed *hosts;
	unsigned n, n_pairs;
	struct pair *pairs;
};

static int judge(struct pair *pair, const struct surveyed *hosts,
		 struct gclk_error *reterr)
{
	const struct surveyed *from = &hosts[pair->from], *to = &hosts[pair->to];
	struct takes_guest guest = takes_guest_of_host(&from->host);

	guest.emulated = !from->has_kvm;
	pair->findings = calloc(1, sizeof(*pair->findings));
	if (!pair->findings) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	return takes(&guest, &to->host, &pair->verdict, pair->findings, reterr);
}

static int fill_matrix(struct matrix *m, struct gclk_error *reterr)
{
	int r = 0;

	m->pairs = calloc((size_t)m->n * m->n, sizeof(*m->pairs));
	if (!m->pairs) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	for (unsigned i = 0; r == 0 && i < m->n * m->n; i++) {
		struct pair *pair = &m->pairs[m->n_pairs];

		pair->from = i / m->n;
		pair->to = i % m->n;
		if (pair->from != pair->to && m->hosts[pair->from].state == SURVEY_DONE &&
		    m->hosts[pair->to].state == SURVEY_DONE) {
			r = judge(pair, m->hosts, reterr);
			m->n_pairs++;
		}
	}
	return r;
}

static void free_matrix(struct matrix *m)
{
	for (unsigned i = 0; i < m->n_pairs; i++) {
		free(m->pairs[i].findings);
	}
	free(m->pairs);
}

static const struct pair *find_pair(const struct matrix *m, unsigned from, unsigned to)
{
	for (unsigned i = 0; i < m->n_pairs; i++) {
		if (m->pairs[i].from == from && m->pairs[i].to == to) {
			return &m->pairs[i];
		}
	}
	return NULL;
}

static const char *cell(const struct matrix *m, unsigned from, unsigned to)
{
	const struct pair *pair = find_pair(m, from, to);

	return from == to ? "-" : pair ? takes_names[pair->verdict] : "?";
}

/* Seven columns of destinations at a time. */
static int put_block(const struct matrix *m, unsigned first)
{
	const char *headings[TABLE_COLUMNS] = { "FROM \\ TO" };
	unsigned n = GCLK_MIN(m->n - first, (unsigned)TABLE_COLUMNS - 1);
	struct table table;

	for (unsigned i = 0; i < n; i++) {
		headings[i + 1] = hosts_name(&m->hosts[first + i]);
	}
	table_begin(&table, n + 1, headings);
	for (unsigned row = 0; row < m->n; row++) {
		const char *c[TABLE_COLUMNS] = { hosts_name(&m->hosts[row]) };

		for (unsigned i = 0; i < n; i++) {
			c[i + 1] = cell(m, row, first + i);
		}
		table_row(&table, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]);
	}
	putchar('\n');
	return table_end(&table, stdout);
}

/* Of each pair that is not a plain yes: why. The same reason the other way is another one. */
static void put_reasons(const struct matrix *m)
{
	bool any = false;

	for (unsigned i = 0; i < m->n_pairs; i++) {
		const struct pair *pair = &m->pairs[i];

		for (unsigned k = 0; k < pair->findings->n; k++) {
			const struct gclk_finding *f = &pair->findings->items[k];
			char text[1200];

			if (!any) {
				putchar('\n');
				any = true;
			}
			snprintf(text, sizeof(text), "%s -> %s: %s: %s (%s)",
				 hosts_name(&m->hosts[pair->from]),
				 hosts_name(&m->hosts[pair->to]),
				 takes_names[pair->verdict], f->message, f->info->id);
			put_filled(stdout, 2, text);
		}
	}
}

static int put_matrix(const struct matrix *m)
{
	int r = put_hosts(m->hosts, m->n);

	for (unsigned first = 0; r == 0 && m->n > 1 && first < m->n;
	     first += TABLE_COLUMNS - 1) {
		r = put_block(m, first);
	}
	put_reasons(m);
	return r;
}

static int matrix_json(const struct matrix *m)
{
	struct json_object *answer = json_answer("hosts"), *hosts = json_new_list(),
			   *pairs = json_new_list();

	for (unsigned i = 0; i < m->n; i++) {
		json_append(hosts, hosts_json(&m->hosts[i]));
	}
	for (unsigned i = 0; i < m->n_pairs; i++) {
		struct json_object *map = json_new_map();

		json_put(map, "from", json_text(m->hosts[m->pairs[i].from].uri));
		json_put(map, "to", json_text(m->hosts[m->pairs[i].to].uri));
		json_put(map, "takes", json_text(takes_names[m->pairs[i].verdict]));
		json_put(map, "findings", json_findings(m->pairs[i].findings));
		json_append(pairs, map);
	}
	json_put(answer, "hosts", hosts);
	json_put(answer, "matrix", pairs);
	json_print(answer);
	return 0;
}

/* ---- the verb ---- */

/* With --check: every host answered, and each can take what runs on any other. */
static bool all_is_well(const struct matrix *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (m->hosts[i].state != SURVEY_DONE) {
			return false;
		}
	}
	for (unsigned i = 0; i < m->n_pairs; i++) {
		if (m->pairs[i].verdict > TAKES_SCALED) {
			return false;
		}
	}
	return true;
}

static bool any_answered(const struct surveyed *hosts, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (hosts[i].state == SURVEY_DONE) {
			return true;
		}
	}
	return false;
}

static int answer(struct matrix *m, const struct options *o)
{
	int r;

	hosts_say_failures(m->hosts, m->n);
	r = given(o, OPTION(JSON)) ? matrix_json(m) : put_matrix(m);
	if (r == 0 && !any_answered(m->hosts, m->n)) {
		r = GCLK_SYS;
	}
	return r ? r : given(o, OPTION(CHECK)) && !all_is_well(m) ? GCLK_REFUSED : 0;
}

static int run(const struct options *o)
{
	unsigned n = (unsigned)o->n_files;
	struct surveyed *hosts = calloc(n, sizeof(*hosts));
	struct matrix m = { .hosts = hosts, .n = n };
	const struct gclk_worker *worker;
	struct gclk_error error;
	int r = hosts ? confine_worker(o->conf, &worker, &error)
		      : gclk_fail(&error, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");

	if (r == 0) {
		r = hosts_ask(o->files, n, o->own, worker, hosts, &error);
	}
	if (r == 0) {
		r = fill_matrix(&m, &error);
	}
	r = r < 0 ? fail(NULL, &error, EFFECT_NONE, NULL) : answer(&m, o);
	free_matrix(&m);
	free(hosts);
	return r;
}

const struct verb verb_hosts = {
	.name = "hosts",
	.summary = SUMMARY_HOSTS,
	.synopsis = "URI...",
	.text = "Asks the libvirt of each URI, all at once, what its host can do: the "
		"frequency of "
		"its TSC, whether it can scale it for guests, and, where a guestclock "
		"answers "
		"there, how its wall clock is kept and how far it is from this host's. "
		"Then, for "
		"each pair, whether a guest that runs on the one with its own frequency "
		"can go "
		"to the other, and why not: yes, scaled (in hardware), drifting (taken "
		"for the "
		"same, though it is not), unknown, no.",
	.example = "guestclock hosts qemu:///system qemu+ssh://host2/system",
	.options = OPTIONS_COMMON | OPTION(CHECK),
	.min_files = 1,
	.max_files = FILES_MAX,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
