/* SPDX-License-Identifier: MIT */
/*
 * What the hook is to do; the domain's <metadata> goes before the file:
 *
 *	[hook]
 *	restore = report	; report, rewrite, off; <metadata>: hook='rewrite'
 *	check = refuse		; refuse what cannot be right here, report, off
 *	pin_tsc = no		; yes: add -global ...tsc-frequency; <metadata>: pin_tsc='yes'
 */
#ifndef GCLK_MIGRATOR_HOOK_CONF_H
#define GCLK_MIGRATOR_HOOK_CONF_H

#include <stdbool.h>

#include <guestclock/image.h>

enum hook_restore { HOOK_REPORT, HOOK_REWRITE, HOOK_OFF };
enum hook_check { HOOK_CHECK_REFUSE, HOOK_CHECK_REPORT, HOOK_CHECK_OFF };

struct hook_conf {
	enum hook_restore restore;
	enum hook_check check;
	bool pin_tsc;
};

/**
 * hook_conf_read() - the section [hook]
 * @path:	NULL: CONF_PATH, which need not exist
 * @domain:	or NULL
 *
 * Errors: GCLK_MALFORMED with the setting, GCLK_SYS; @ret has the built-in values then.
 */
int hook_conf_read(const char *path, const struct gclk_domain *domain, struct hook_conf *ret,
		   struct gclk_error *reterr);

#endif
