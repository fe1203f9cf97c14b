/* SPDX-License-Identifier: MIT */
/* The `guestclock` command: finds the verb, hands it its options, ends with its code. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/util.h"
#include "migrator/message.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

static const struct verb *const verbs[] = {
	&verb_host,    &verb_inspect, &verb_diff,    &verb_plan,
	&verb_rewrite, &verb_undo,    &verb_extract, &verb_explain,
};

static void help(FILE *to)
{
	fputs("Usage: guestclock VERB [OPTION...] [FILE...]\n"
	      "\n"
	      "Makes the clocks of saved virtual machines right: reads the clocks in "
	      "migration\n"
	      "streams, libvirt save images and qcow2 snapshots, says what they would do "
	      "on\n"
	      "restoring, and rewrites them so that the guest finds the time that it "
	      "is.\n"
	      "\n"
	      "Verbs:\n",
	      to);
	for (unsigned i = 0; i < GCLK_COUNT(verbs); i++) {
		fprintf(to, "  %-10s%s\n", verbs[i]->name, verbs[i]->summary);
	}
	fputs("\n"
	      "`guestclock VERB --help` tells more about each; `guestclock explain` "
	      "lists what can\n"
	      "be found, and the exit codes. Every verb takes --json.\n",
	      to);
}

/* The nearest verb by its first letters, for a hint. */
static const char *similar(const char *name)
{
	for (size_t n = strlen(name); n > 0; n--) {
		for (unsigned i = 0; i < GCLK_COUNT(verbs); i++) {
			if (!strncmp(verbs[i]->name, name, n)) {
				return verbs[i]->name;
			}
		}
	}
	return NULL;
}

static int run(const struct verb *verb, int argc, char **argv)
{
	struct options options;
	int r = options_parse(verb, argc, argv, &options);

	if (r) {
		return r;
	}
	text_setup(options.color);
	if (given(&options, OPTION(HELP))) {
		options_help(verb, stdout);
		return 0;
	}
	return verb->run(&options);
}

/* An answer that did not reach its reader is no answer. */
static int finish(int status)
{
	int failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout) == 0 && !failed) {
		return status;
	}
	message("error", NULL, gclk_status_name(GCLK_SYS), EFFECT_NONE, NULL,
		"the answer could not be written: %s", strerror(errno ? errno : EIO));
	return status ? status : GCLK_SYS;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name) {
		help(stderr);
		return GCLK_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		help(stdout);
		return finish(0);
	}
	if (!strcmp(name, "--version")) {
		printf("guestclock %s\n", GUESTCLOCK_VERSION);
		return finish(0);
	}
	for (unsigned i = 0; i < GCLK_COUNT(verbs); i++) {
		if (!strcmp(name, verbs[i]->name)) {
			return finish(run(verbs[i], argc - 1, argv + 1));
		}
	}
	if (name[0] != '-' && similar(name)) {
		return usage_error(NULL, "there is no verb \"%s\"; is it %s?", name,
				   similar(name));
	}
	return usage_error(NULL, "there is no verb \"%s\"", name);
}
