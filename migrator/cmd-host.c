/* SPDX-License-Identifier: MIT */
/* guestclock host: what this host's clocks can do, and what is set for it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/json-state.h"
#include "migrator/json-text.h"
#include "migrator/output.h"
#include "migrator/report-json.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/verbs.h"

#define MEASURE_NS (200 * GCLK_NS_PER_MS)

static const char *basis_name(const struct gclk_host *host)
{
	for (const struct gclk_name *n = gclk_tsc_basis_names; n->name; n++) {
		if (n->value == host->tsc_hz_basis) {
			return n->name;
		}
	}
	return "unknown";
}

static void put_tsc(const struct gclk_host *host)
{
	char hz[TEXT_BYTES], flags[160];
	uint64_t den = GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1;

	if (GCLK_HAS(host, host, tsc_hz)) {
		put_line("TSC", "%s %s%" PRIu32 ".%03" PRIu32 " ppm (%s)",
			 text_hz(hz, host->tsc_hz, den), plus_minus(),
			 host->tsc_hz_ppb / 1000, host->tsc_hz_ppb % 1000,
			 basis_name(host));
	} else {
		put_line("TSC", "frequency not known");
	}
	snprintf(flags, sizeof(flags), "%s rate, %s in sleep; clocksource %s",
		 host->flags & GCLK_HOST_CONSTANT_TSC ? "constant" : "changing",
		 host->flags & GCLK_HOST_NONSTOP_TSC ? "goes on" : "stops",
		 host->clocksource[0] ? host->clocksource : "not known");
	put_line("", "%s", flags);
	if (GCLK_HAS(host, host, tsc_ratio_frac_bits)) {
		put_line("", "can be scaled for guests, with %u fraction bits",
			 host->tsc_ratio_frac_bits);
	} else if (host->flags & GCLK_HOST_TSC_SCALING) {
		put_line("", "can be scaled for guests");
	} else {
		put_line("", "cannot be scaled: guests run at this rate");
	}
}

static void put_wall_clock(const struct gclk_host *host)
{
	char at[TEXT_BYTES], error[TEXT_BYTES];

	put_line("wall clock", "%s, %s",
		 text_instant(at, host->realtime_ns,
			      GCLK_HAS(host, host, sample_width_ns)
				      ? host->sample_width_ns
				      : 0),
		 host->flags & GCLK_HOST_SYNCHRONISED ? "synchronised"
						      : "not synchronised");
	if (GCLK_HAS(host, host, ntp_maxerror_ns)) {
		put_line("", "largest error %s by its own account",
			 text_approx(error, (int64_t)GCLK_MIN(host->ntp_maxerror_ns,
							      (uint64_t)INT64_MAX)));
	}
	if (host->tai_offset_s) {
		put_line("", "TAI is %" PRId32 " s ahead of UTC", host->tai_offset_s);
	}
}

static void put_missing(const struct gclk_host *host)
{
	char list[768] = "";
	size_t n = 0;
	const char *name;

	for (unsigned i = 0; (name = gclk_host_missing(host, i)) && n < sizeof(list);
	     i++) {
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
				      name);
	}
	if (n) {
		put_line("not known", "%s", list);
	}
}

static void put_host(const struct gclk_host *host)
{
	put_line("host", "%s, Linux %s%s", host->hostname, host->kernel_release,
		 host->flags & GCLK_HOST_HYPERVISOR ? ", itself a guest" : "");
	put_line("processor", "%s", host->cpu_model);
	put_tsc(host);
	put_line("KVM", "%s",
		 host->flags & GCLK_HOST_KVM ? "can be used" : "cannot be opened");
	put_wall_clock(host);
	put_missing(host);
}

static struct json_object *host_answer(const struct gclk_host *host)
{
	struct json_object *answer = json_answer("host"), *missing = json_new_list();
	const char *name;

	for (unsigned i = 0; (name = gclk_host_missing(host, i)); i++) {
		json_append(missing, json_text(name));
	}
	json_put(answer, "host", json_must(json_from_record(&gclk_host_record, host)));
	json_put(answer, "missing", missing);
	return answer;
}

static int write_profile(const char *path, struct json_object *answer)
{
	struct gclk_error error;
	size_t size;
	char *text = json_to_text(answer, &size);
	int r = text ? write_whole(path, text, size, &error)
		     : gclk_fail(&error, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for JSON");

	free(text);
	return r < 0 ? fail(path, &error, EFFECT_NONE, NULL) : 0;
}

static int run_profile(const struct options *o)
{
	int64_t measure_ns = given(o, OPTION(MEASURE)) ? o->measure_ns : MEASURE_NS;
	struct gclk_host host;
	struct gclk_error error;
	int r = 0;

	if (o->n_files) {
		return usage_error("host", "\"%s\" is too much; FILE goes with --policy",
				   o->files[0]);
	}
	if (gclk_host_read(&host, (uint64_t)measure_ns, &error) < 0) {
		return fail(NULL, &error, EFFECT_NONE, NULL);
	}
	if (given(o, OPTION(OUTPUT))) {
		struct json_object *answer = host_answer(&host);

		r = write_profile(o->output, answer);
		json_object_put(answer);
	} else if (given(o, OPTION(JSON))) {
		json_print(host_answer(&host));
	} else {
		put_host(&host);
	}
	return r;
}

static void policy_json(const struct settings *settings)
{
	struct json_object *answer = json_answer("host"), *list = json_new_list();

	for (unsigned i = 0; i < N_SETTINGS; i++) {
		struct json_object *map = json_new_map();
		char name[32], value[64];

		setting_name(i, name);
		setting_value(settings, i, value);
		json_put(map, "setting", json_text(name));
		json_put(map, "value", json_text(value));
		json_put(map, "origin", json_text(settings->origin[i]));
		json_append(list, map);
	}
	json_put(answer, "policy", list);
	json_print(answer);
}

static int policy_text(const struct settings *settings)
{
	static const char *const headings[] = { "SETTING", "VALUE", "FROM" };
	struct table table;

	table_begin(&table, 3, headings);
	for (unsigned i = 0; i < N_SETTINGS; i++) {
		char name[32], value[64];

		setting_name(i, name);
		setting_value(settings, i, value);
		table_row(&table, name, value, settings->origin[i]);
	}
	return table_end(&table, stdout);
}

/* The settings that hold for an image, or in general. */
static int run_policy(const struct options *o)
{
	struct settings settings;
	struct source source = { 0 };
	int r = o->n_files ? source_open(&source, o->files[0], o, SOURCE_LOOK) : 0;

	if (r == 0) {
		r = find_settings(&settings, &source, o);
	}
	if (r == 0 && given(o, OPTION(JSON))) {
		policy_json(&settings);
	} else if (r == 0) {
		r = policy_text(&settings);
	}
	source_close(&source);
	return r;
}

static int run(const struct options *o)
{
	return given(o, OPTION(POLICY)) ? run_policy(o) : run_profile(o);
}

const struct verb verb_host = {
	.name = "host",
	.summary = "what this host's clocks can do; the policies that are set",
	.synopsis = "[FILE]",
	.text = "Shows this host's clock profile: its TSC and how well its frequency is "
		"known, whether guests can have another one, how its wall clock is "
		"kept. With -o the profile is written for --host on another machine. "
		"With --policy each setting is shown with where it comes from, for the "
		"guest in the save image FILE if one is named.",
	.example = "guestclock host -o thishost.json",
	.options = OPTIONS_COMMON | OPTION(OUTPUT) | OPTION(MEASURE) | OPTION(POLICY) |
		   OPTION(CONF) | OPTION(SNAPSHOT),
	.max_files = 1,
	.run = run,
};
