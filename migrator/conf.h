/* SPDX-License-Identifier: MIT */
/*
 * Policy: what the operator wants where the command line does not say. Each setting
 * remembers where its value comes from; a later layer replaces an earlier one:
 *
 *	built-in < /etc/guestclock/guestclock.conf < the domain's <clock> timers
 *	         < the domain's own <metadata> < an option
 *
 * The file:
 *
 *	[policy]
 *	gap = cap=60s			; count, freeze, wall, cap=DURATION
 *	ticks = rtc=catchup, pit=merge	; TIMER=delay|catchup|merge|discard
 *	tick_horizon = 60s		; the domain's tick policies hold up to it
 *	long_gap = 60s			; a longer counted gap is warned about
 *	replay_max = 100000		; ticks replayed per timer, at most
 *
 * and the sections [daemon] (migrator/daemon/conf.h), [hook] (migrator/hook/conf.h) and
 * [privilege] (migrator/confine/confine.h).
 */
#ifndef GCLK_MIGRATOR_CONF_H
#define GCLK_MIGRATOR_CONF_H

#include <guestclock/image.h>
#include <guestclock/plan.h>

#include "migrator/options.h"

#define CONF_PATH "/etc/guestclock/guestclock.conf"

enum setting_id {
	SETTING_GAP,
	SETTING_TICKS, /* one for each enum gclk_tick_timer */
	SETTING_TICK_HORIZON = SETTING_TICKS + GCLK_N_TICK_TIMERS,
	SETTING_LONG_GAP,
	SETTING_REPLAY_MAX,
	N_SETTINGS
};

struct settings {
	struct gclk_policy policy;
	char origin[N_SETTINGS]
		   [128]; /* "built-in", "/etc/...:3", "domain web1, <timer>" */
};

/* The built-in values. */
void settings_init(struct settings *settings);

/**
 * settings_read_file() - the INI file
 * @path:	NULL: CONF_PATH, which need not exist
 *
 * Errors: GCLK_SYS when a file that was asked for cannot be read; GCLK_MALFORMED
 * with the line. An unknown setting is a warning on standard error: the file also
 * serves later releases.
 */
int settings_read_file(struct settings *settings, const char *path,
		       struct gclk_error *reterr);

/* What a domain says. Errors: GCLK_MALFORMED in our own metadata. */
int settings_read_domain(struct settings *settings, const struct gclk_domain *domain,
			 struct gclk_error *reterr);

/* What the command line says; o->force is borrowed. */
void settings_read_options(struct settings *settings, const struct options *o);

/* "gap", "ticks.pit", ... */
void setting_name(enum setting_id id, char to[32]);
/* The value in the words of the file. */
void setting_value(const struct settings *settings, enum setting_id id, char to[64]);

#endif
