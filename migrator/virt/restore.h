/* SPDX-License-Identifier: MIT */
/*
 * Restoring a saved guest so that its clocks are right: loaded suspended, its clocks
 * written while its memory is read, resumed at the instant that they were written for.
 */
#ifndef GCLK_MIGRATOR_VIRT_RESTORE_H
#define GCLK_MIGRATOR_VIRT_RESTORE_H

#include "migrator/move.h"
#include "migrator/options.h"
#include "migrator/virt/guard.h"

struct restore_options {
	const char *uri;	/* NULL: libvirt's default */
	const char *path;	/* the image; NULL: managed save */
	const char *domain;	/* of a managed save */
	const char *image;	/* managed: where libvirt keeps it; NULL: its default */
	const char *xml_path;	/* NULL: the image's own */
	const char *audit_path;	/* NULL: AUDIT_PATH */
	const char *state_dir;	/* what earlier restores taught; NULL: LEARNED_DIR */
	bool running, paused, bypass_cache, set_guest_time;
	int64_t max_hold_ns;
	uint8_t ask_monitor;	/* afterwards, for what shows nowhere else */
};

/**
 * restore_run() - in the worker of guard_run()
 * @guard:	told which guest must not stay suspended
 * @ret:	what became of it
 *
 * Returns the exit code, after having said what is wrong.
 */
int restore_run(struct guard *guard, const struct restore_options *options,
		const struct options *o, struct move *ret);

#endif
