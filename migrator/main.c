/* SPDX-License-Identifier: MIT */
/* The `guestclock` command: finds the verb, hands it its options, ends with its code. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/message.h"
#include "migrator/verbs.h"

static const struct verb *const verbs[] = {
	&verb_host,    &verb_inspect, &verb_diff,    &verb_plan,
	&verb_rewrite, &verb_undo,    &verb_extract, &verb_explain, &verb_log,
	&verb_hook,
};

/*
 * The verbs that need libvirt, or libcrypto, are other programs', so that this one stays
 * small: beside this one, as they are built, or where they are installed.
 */
#define LIVE "guestclock-live"
#define SEAL "guestclock-seal"

static const struct other_verb {
	const char *name, *program, *summary;
} other_verbs[] = {
	{ "keygen", SEAL, SUMMARY_KEYGEN },   { "seal", SEAL, SUMMARY_SEAL },
	{ "open", SEAL, SUMMARY_OPEN },	      { "save", LIVE, SUMMARY_SAVE },
	{ "restore", LIVE, SUMMARY_RESTORE }, { "migrate", LIVE, SUMMARY_MIGRATE },
	{ "proxy", LIVE, SUMMARY_PROXY },     { "check", LIVE, SUMMARY_CHECK },
	{ "hosts", LIVE, SUMMARY_HOSTS },
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
	for (unsigned i = 0; i < GCLK_COUNT(other_verbs); i++) {
		fprintf(to, "  %-10s%s\n", other_verbs[i].name, other_verbs[i].summary);
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
		for (unsigned i = 0; i < GCLK_COUNT(other_verbs); i++) {
			if (!strncmp(other_verbs[i].name, name, n)) {
				return other_verbs[i].name;
			}
		}
	}
	return NULL;
}

static bool beside_this(const char *program, char *to, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", to, size - 1);
	char *slash;

	if (n <= 0) {
		return false;
	}
	to[n] = 0;
	slash = strrchr(to, '/');
	if (!slash || (size_t)(slash - to) + strlen(program) + 2 > size) {
		return false;
	}
	strcpy(slash + 1, program);
	return access(to, X_OK) == 0;
}

/* The build has a directory for each program's parts; an installed one has not. */
static bool below_this(const char *program, char *to, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", strrchr(program, '-') + 1, program);
	return beside_this(path, to, size);
}

static int run_other(const struct other_verb *verb, char **argv)
{
	char path[PATH_MAX], installed[PATH_MAX];

	snprintf(installed, sizeof(installed), "%s/%s", GUESTCLOCK_LIBEXECDIR, verb->program);
	execv(beside_this(verb->program, path, sizeof(path)) ||
			      below_this(verb->program, path, sizeof(path))
		      ? path
		      : installed,
	      argv);
	message("error", installed, gclk_status_name(GCLK_UNSUPPORTED), EFFECT_NONE, NULL,
		"the program for `guestclock %s` cannot be started: %s", argv[1],
		strerror(errno));
	return GCLK_UNSUPPORTED;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	int r = confine_entry(argc, argv);

	if (r >= 0) {
		return r;
	}
	if (!name) {
		help(stderr);
		return GCLK_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		help(stdout);
		return verb_finish(0);
	}
	if (!strcmp(name, "--version")) {
		printf("guestclock %s\n", GUESTCLOCK_VERSION);
		return verb_finish(0);
	}
	for (unsigned i = 0; i < GCLK_COUNT(verbs); i++) {
		if (!strcmp(name, verbs[i]->name)) {
			return verb_main(verbs[i], argc - 1, argv + 1);
		}
	}
	for (unsigned i = 0; i < GCLK_COUNT(other_verbs); i++) {
		if (!strcmp(name, other_verbs[i].name)) {
			return run_other(&other_verbs[i], argv);
		}
	}
	if (name[0] != '-' && similar(name)) {
		return usage_error(NULL, "there is no verb \"%s\"; is it %s?", name,
				   similar(name));
	}
	return usage_error(NULL, "there is no verb \"%s\"", name);
}
