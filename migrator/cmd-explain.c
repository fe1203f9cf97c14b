/* SPDX-License-Identifier: MIT */
/* guestclock explain: what a finding or an exit code means. */
#include <stdio.h>
#include <string.h>

#include "core/util.h"
#include "migrator/message.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

static const struct {
	int status;
	const char *meaning;
	const char *advice;
} statuses[] = {
	{ GCLK_OK, "Done.", "" },
	{ GCLK_REFUSED,
	  "Refused: a finding stands against it, and nothing was changed. With --check "
	  "also: something was found.",
	  "Read the findings; --force ID overrides one of them." },
	{ GCLK_USAGE, "The command was not used as it can be.",
	  "guestclock VERB --help" },
	{ GCLK_SYS, "The system refused a call; the message has its reason.",
	  "Look at the reason: a missing file, a missing right, a full disk." },
	{ GCLK_NOMEM, "There was not enough memory.", "" },
	{ GCLK_TRUNCATED, "The bytes end before their format does.",
	  "The file was cut off, or is still being written." },
	{ GCLK_MALFORMED, "The bytes contradict their format.",
	  "The file is damaged, or is something else than it claims to be." },
	{ GCLK_VERSION, "A version that this release does not know.",
	  "Use a newer release." },
	{ GCLK_UNSUPPORTED,
	  "Well-formed, but it cannot be handled; the message says why.", "" },
	{ GCLK_RANGE, "A value is outside what its field allows.", "" },
	{ GCLK_LOSSY, "It would have rounded something that the guest can see.", "" },
	{ GCLK_STATE, "The object is busy, or the step does not fit its state.",
	  "Is a virtual machine using the image? Then stop it first." },
	{ GCLK_PEER, "The other end misbehaved.", "" },
	{ GCLK_UNPROVEN, "Changed, but reading back did not prove that it took.",
	  "The message names the command that takes it back." },
};

static void put_finding_info(const struct gclk_finding_info *info)
{
	printf("%s%s%s (%s%s)\n  ", style(STYLE_BOLD), info->id, style(STYLE_PLAIN),
	       gclk_severity_names[info->severity], info->refuses ? ", refuses" : "");
	put_filled(stdout, 2, info->title);
	printf("\n  ");
	put_filled(stdout, 2, info->explanation);
	printf("\n  ");
	put_filled(stdout, 2, info->advice);
	if (info->refuses) {
		printf("  --force %s overrides it.\n", info->id);
	}
}

static void put_status(unsigned i)
{
	printf("%s%s%s (exit code %d)\n  ", style(STYLE_BOLD),
	       gclk_status_name(statuses[i].status), style(STYLE_PLAIN),
	       statuses[i].status);
	put_filled(stdout, 2, statuses[i].meaning);
	if (statuses[i].advice[0]) {
		printf("  ");
		put_filled(stdout, 2, statuses[i].advice);
	}
}

static int list_all(void)
{
	static const char *const finding_headings[] = { "FINDING", "SEVERITY", "MEANS" };
	static const char *const status_headings[] = { ">EXIT", "NAME", "MEANS" };
	struct table table;
	char number[16];
	int r;

	table_begin(&table, 3, finding_headings);
	for (unsigned i = 0; i < gclk_n_finding_infos; i++) {
		const struct gclk_finding_info *info = &gclk_finding_table[i];

		table_row(&table, info->id,
			  info->refuses ? "refuses" : gclk_severity_names[info->severity],
			  info->title);
	}
	r = table_end(&table, stdout);
	putchar('\n');
	table_begin(&table, 3, status_headings);
	for (unsigned i = 0; i < GCLK_COUNT(statuses); i++) {
		snprintf(number, sizeof(number), "%d", statuses[i].status);
		table_row(&table, number, gclk_status_name(statuses[i].status),
			  statuses[i].meaning);
	}
	return r ? r : table_end(&table, stdout);
}

static struct json_object *finding_json(const struct gclk_finding_info *info)
{
	struct json_object *map = json_new_map();

	json_put(map, "id", json_text(info->id));
	json_put(map, "severity", json_text(gclk_severity_names[info->severity]));
	json_put(map, "refuses", json_object_new_boolean(info->refuses));
	json_put(map, "title", json_text(info->title));
	json_put(map, "explanation", json_text(info->explanation));
	json_put(map, "advice", json_text(info->advice));
	return map;
}

static struct json_object *status_json(unsigned i)
{
	struct json_object *map = json_new_map();

	json_put(map, "exit_code", json_object_new_int(statuses[i].status));
	json_put(map, "id", json_text(gclk_status_name(statuses[i].status)));
	json_put(map, "meaning", json_text(statuses[i].meaning));
	return map;
}

/* @id NULL: all of them. */
static void print_json(const char *id)
{
	struct json_object *answer = json_answer("explain");
	struct json_object *findings = json_new_list(), *codes = json_new_list();

	for (unsigned i = 0; i < gclk_n_finding_infos; i++) {
		if (!id || !strcmp(id, gclk_finding_table[i].id)) {
			json_append(findings, finding_json(&gclk_finding_table[i]));
		}
	}
	for (unsigned i = 0; i < GCLK_COUNT(statuses); i++) {
		if (!id || !strcmp(id, gclk_status_name(statuses[i].status))) {
			json_append(codes, status_json(i));
		}
	}
	json_put(answer, "findings", findings);
	json_put(answer, "exit_codes", codes);
	json_print(answer);
}

static int find_status(const char *id)
{
	char number[16];

	for (unsigned i = 0; i < GCLK_COUNT(statuses); i++) {
		snprintf(number, sizeof(number), "%d", statuses[i].status);
		if (!strcmp(id, gclk_status_name(statuses[i].status)) ||
		    !strcmp(id, number)) {
			return (int)i;
		}
	}
	return -1;
}

static int run(const struct options *o)
{
	const char *id = o->n_files ? o->files[0] : NULL;
	const struct gclk_finding_info *info = id ? gclk_finding_by_id(id) : NULL;
	int status = id ? find_status(id) : -1;

	if (id && !info && status < 0) {
		return usage_error("explain",
				   "\"%s\" is neither a finding nor an exit code", id);
	}
	if (given(o, OPTION(JSON))) {
		print_json(status >= 0 ? gclk_status_name(statuses[status].status) : id);
		return 0;
	}
	if (!id) {
		return list_all();
	}
	if (info) {
		put_finding_info(info);
	} else {
		put_status((unsigned)status);
	}
	return 0;
}

const struct verb verb_explain = {
	.name = "explain",
	.summary = "what a finding or an exit code means",
	.synopsis = "[ID]",
	.text = "Says what the finding ID means and what to do about it; ID may also be "
		"the name or the number of an exit code. Without ID, all of them are "
		"listed.",
	.example = "guestclock explain long-gap",
	.options = OPTIONS_COMMON,
	.max_files = 1,
	.run = run,
};
