/* SPDX-License-Identifier: MIT */
#include <ini.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/options.h"

#define NOBODY 65534
#define DEFAULT_USER "guestclock"

struct reading {
	bool confine;
	char user[64];
	uint32_t cpu_s;
	struct gclk_error *error;
	int status;
};

/* Whole seconds, at least one. */
static int take_cpu(struct reading *reading, const char *value)
{
	int64_t ns = 0;
	int r = parse_span(value, &ns, reading->error);

	if (r == 0 && (ns < GCLK_NS_PER_S || ns / GCLK_NS_PER_S > UINT32_MAX - 1)) {
		r = gclk_fail(reading->error, GCLK_RANGE, "cpu", GCLK_NO_OFFSET,
			      "not within 1s and 136 years");
	}
	reading->cpu_s = (uint32_t)(ns / GCLK_NS_PER_S);
	return r;
}

static int take(void *ctx, const char *section, const char *name, const char *value)
{
	struct reading *reading = ctx;

	if (reading->status || strcmp(section, "privilege")) {
		return 1;
	}
	if (!strcmp(name, "user")) {
		snprintf(reading->user, sizeof(reading->user), "%s", value);
	} else if (!strcmp(name, "cpu")) {
		reading->status = take_cpu(reading, value);
	} else if (!strcmp(name, "confine")) {
		reading->confine = strcmp(value, "no") != 0;
		if (reading->confine && strcmp(value, "yes")) {
			reading->status = gclk_fail(reading->error, GCLK_MALFORMED, name,
						    GCLK_NO_OFFSET,
						    "\"%.40s\" is no value of it: yes or no", value);
		}
	}
	return 1;
}

/*
 * From the file itself: what else may answer for a name (a directory service, a
 * cache) is slower than all the rest, and has no business here.
 */
static bool find_user(const char *name, struct confine_conf *ret)
{
	FILE *file = fopen("/etc/passwd", "re");
	const struct passwd *entry;
	bool found = false;

	while (file && !found && (entry = fgetpwent(file))) {
		found = !strcmp(entry->pw_name, name);
		if (found) {
			ret->uid = entry->pw_uid;
			ret->gid = entry->pw_gid;
		}
	}
	if (file) {
		fclose(file);
	}
	return found;
}

int confine_conf_read(const char *path, struct confine_conf *ret, struct gclk_error *reterr)
{
	struct reading reading = { .confine = true, .cpu_s = CONFINE_CPU_S, .error = reterr };
	int r = ini_parse(path ? path : CONF_PATH, take, &reading);

	*ret = (struct confine_conf){ true, NOBODY, NOBODY, CONFINE_CPU_S };
	if (r == -1 && path) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "cannot be read");
	}
	if (reading.status < 0) {
		return reading.status;
	}
	ret->confine = reading.confine;
	ret->cpu_s = reading.cpu_s;
	if (!find_user(*reading.user ? reading.user : DEFAULT_USER, ret) && *reading.user) {
		return gclk_fail(reterr, GCLK_USAGE, "user", GCLK_NO_OFFSET,
				 "there is no user \"%s\" in /etc/passwd", reading.user);
	}
	if (!ret->uid || !ret->gid) {
		return gclk_fail(reterr, GCLK_USAGE, "user", GCLK_NO_OFFSET,
				 "a user or group of number 0 is not less than root");
	}
	return 0;
}
