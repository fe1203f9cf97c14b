/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/message.h"

void settings_init(struct settings *settings)
{
	settings->policy = gclk_policy_default;
	for (unsigned i = 0; i < N_SETTINGS; i++) {
		snprintf(settings->origin[i], sizeof(settings->origin[i]), "built-in");
	}
}

static void say_origin(struct settings *settings, unsigned id, const char *origin)
{
	snprintf(settings->origin[id], sizeof(settings->origin[id]), "%s", origin);
}

static void set_ticks(struct settings *settings, const uint8_t ticks[], bool by_operator,
		      const char *origin)
{
	for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
		if (ticks[i] != GCLK_TICKS_UNKNOWN) {
			settings->policy.ticks[i].policy = ticks[i];
			settings->policy.ticks[i].by_operator = by_operator;
			say_origin(settings, SETTING_TICKS + i, origin);
		}
	}
}

static int parse_gap_setting(struct settings *s, const char *value, const char *origin,
			     struct gclk_error *reterr)
{
	int r = parse_gap(value, &s->policy.gap, &s->policy.cap_ns, reterr);

	if (r == 0) {
		say_origin(s, SETTING_GAP, origin);
	}
	return r;
}

static int parse_ticks_setting(struct settings *s, const char *value, const char *origin,
			       struct gclk_error *reterr)
{
	uint8_t ticks[GCLK_N_TICK_TIMERS] = { 0 };
	int r = parse_ticks(value, ticks, reterr);

	if (r == 0) {
		set_ticks(s, ticks, false, origin);
	}
	return r;
}

static int parse_horizon_setting(struct settings *s, const char *value,
				 const char *origin, struct gclk_error *reterr)
{
	int r = parse_span(value, &s->policy.horizon_ns, reterr);

	if (r == 0) {
		say_origin(s, SETTING_TICK_HORIZON, origin);
	}
	return r;
}

static int parse_long_gap_setting(struct settings *s, const char *value,
				  const char *origin, struct gclk_error *reterr)
{
	int r = parse_span(value, &s->policy.long_gap_ns, reterr);

	if (r == 0) {
		say_origin(s, SETTING_LONG_GAP, origin);
	}
	return r;
}

static int parse_replay_max_setting(struct settings *s, const char *value,
				    const char *origin, struct gclk_error *reterr)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || n > UINT32_MAX) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is no number of ticks", value);
	}
	s->policy.replay_max = (uint32_t)n;
	say_origin(s, SETTING_REPLAY_MAX, origin);
	return 0;
}

static const struct {
	const char *section, *name;
	int (*parse)(struct settings *s, const char *value, const char *origin,
		     struct gclk_error *reterr);
} file_rows[] = {
	{ "policy", "gap", parse_gap_setting },
	{ "policy", "ticks", parse_ticks_setting },
	{ "policy", "tick_horizon", parse_horizon_setting },
	{ "policy", "long_gap", parse_long_gap_setting },
	{ "policy", "replay_max", parse_replay_max_setting },
};

/* Sections of guestclockd, the hook and confine/, which read them themselves. */
static bool other_readers(const char *section)
{
	return !strcmp(section, "daemon") || !strcmp(section, "hook") ||
	       !strcmp(section, "privilege");
}

struct reading {
	struct settings *settings;
	FILE *file;
	const char *path;
	int line; /* of the line that libinih sees now */
	int status;
	struct gclk_error error;
};

/* Counts lines for libinih, which tells them to nobody but itself. */
static char *read_line(char *to, int size, void *stream)
{
	struct reading *reading = stream;

	reading->line++;
	return fgets(to, size, reading->file);
}

static int take_setting(void *user, const char *section, const char *name,
			const char *value)
{
	struct reading *reading = user;
	char origin[128];

	if (reading->status < 0) {
		return 0;
	}
	snprintf(origin, sizeof(origin), "%s:%d", reading->path, reading->line);
	for (unsigned i = 0; i < GCLK_COUNT(file_rows); i++) {
		if (strcmp(section, file_rows[i].section) ||
		    strcmp(name, file_rows[i].name)) {
			continue;
		}
		reading->status = file_rows[i].parse(reading->settings, value, origin,
						     &reading->error);
		if (reading->status < 0) {
			snprintf(reading->error.where, sizeof(reading->error.where),
				 "line %d, %s", reading->line, name);
		}
		return reading->status == 0;
	}
	if (other_readers(section)) {
		return 1;
	}
	message("warning", origin, NULL, EFFECT_READING, NULL,
		"there is no setting \"%s\" in a section \"%s\"; it is ignored", name,
		section);
	return 1;
}

int settings_read_file(struct settings *settings, const char *path,
		       struct gclk_error *reterr)
{
	struct reading reading = { .settings = settings,
				   .path = path ? path : CONF_PATH };
	int bad_line;

	reading.file = fopen(reading.path, "re");
	if (!reading.file) {
		if (!path && (errno == ENOENT || errno == ENOTDIR || errno == EACCES)) {
			return 0;
		}
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the settings cannot be read");
	}
	bad_line = ini_parse_stream(read_line, &reading, take_setting, &reading);
	fclose(reading.file);
	if (reading.status < 0) {
		if (reterr) {
			*reterr = reading.error;
		}
		return reading.status;
	}
	if (bad_line) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "line %d is neither [section] nor name = value",
				 bad_line);
	}
	return 0;
}

static_assert((int)GCLK_DOMAIN_TICKS_DISCARD == (int)GCLK_TICKS_DISCARD,
	      "one set of values");

/* The timers of <clock>, by libvirt's names. */
static void read_xml_timers(struct settings *settings, const struct gclk_domain *domain,
			    const char *origin)
{
	for (size_t i = 0; i < domain->n_timers && i < GCLK_COUNT(domain->timers); i++) {
		const struct gclk_domain_timer *timer = &domain->timers[i];
		uint8_t ticks[GCLK_N_TICK_TIMERS] = { 0 };

		for (unsigned t = 0; t < GCLK_N_TICK_TIMERS; t++) {
			if (!strcmp(timer->name, gclk_tick_timer_names[t])) {
				ticks[t] = (uint8_t)timer->ticks;
			}
		}
		set_ticks(settings, ticks, false, origin);
	}
}

int settings_read_domain(struct settings *settings, const struct gclk_domain *domain,
			 struct gclk_error *reterr)
{
	const char *gap = gclk_domain_metadata(domain, "gap");
	const char *ticks = gclk_domain_metadata(domain, "ticks");
	char name[64], origin[128];
	int r = 0;

	clean_text(name, sizeof(name), domain->name);
	snprintf(origin, sizeof(origin), "domain %s, <clock>", name);
	read_xml_timers(settings, domain, origin);
	snprintf(origin, sizeof(origin), "domain %s, <metadata>", name);
	if (gap) {
		r = parse_gap_setting(settings, gap, origin, reterr);
	}
	if (r == 0 && ticks) {
		r = parse_ticks_setting(settings, ticks, origin, reterr);
	}
	if (r < 0 && reterr) {
		snprintf(reterr->where, sizeof(reterr->where), "%s",
			 "the domain's <metadata>");
	}
	return r;
}

void settings_read_options(struct settings *settings, const struct options *o)
{
	if (given(o, OPTION(GAP))) {
		settings->policy.gap = o->gap;
		settings->policy.cap_ns = o->cap_ns;
		say_origin(settings, SETTING_GAP, "--gap");
	}
	if (given(o, OPTION(TICKS))) {
		set_ticks(settings, o->ticks, true, "--ticks");
	}
	settings->policy.force = o->force;
}

void setting_name(enum setting_id id, char to[32])
{
	static const char *const names[N_SETTINGS] = {
		[SETTING_GAP] = "gap",
		[SETTING_TICK_HORIZON] = "tick_horizon",
		[SETTING_LONG_GAP] = "long_gap",
		[SETTING_REPLAY_MAX] = "replay_max",
	};

	if (names[id]) {
		snprintf(to, 32, "%s", names[id]);
	} else {
		snprintf(to, 32, "ticks.%s", gclk_tick_timer_names[id - SETTING_TICKS]);
	}
}

void setting_value(const struct settings *settings, enum setting_id id, char to[64])
{
	const struct gclk_policy *p = &settings->policy;
	char span[GCLK_DURATION_TEXT_BYTES];

	switch (id) {
	case SETTING_GAP:
		if (p->gap == GCLK_GAP_CAP) {
			snprintf(to, 64, "cap=%s", gclk_duration_format(p->cap_ns, span));
		} else {
			snprintf(to, 64, "%s", gclk_gap_policy_names[p->gap]);
		}
		return;
	case SETTING_TICK_HORIZON:
		gclk_duration_format(p->horizon_ns, to);
		return;
	case SETTING_LONG_GAP:
		gclk_duration_format(p->long_gap_ns, to);
		return;
	case SETTING_REPLAY_MAX:
		snprintf(to, 64, "%" PRIu32, p->replay_max);
		return;
	default:
		if (p->ticks[id - SETTING_TICKS].policy == GCLK_TICKS_UNKNOWN) {
			snprintf(to, 64, "(not set)");
		} else {
			snprintf(to, 64, "%s",
				 gclk_tick_policy_names[p->ticks[id - SETTING_TICKS]
								.policy]);
		}
		return;
	}
}
