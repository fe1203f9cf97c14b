/* SPDX-License-Identifier: MIT */
/*
 * Saving a running guest: by libvirt, with the instant of the stop and the host's clocks
 * put into the image's XML, where the restore finds them. It is suspended first, so that
 * its stop lies between the call and QEMU's stamp of it.
 */
#ifndef GCLK_MIGRATOR_VIRT_SAVE_H
#define GCLK_MIGRATOR_VIRT_SAVE_H

#include "migrator/move.h"
#include "migrator/options.h"
#include "migrator/virt/guard.h"

struct save_options {
	const char *uri;	/* NULL: libvirt's default */
	const char *domain;
	const char *path;	/* NULL: managed save */
	const char *image;	/* managed: where libvirt keeps it; NULL: its default */
	const char *xml_path;	/* NULL: the domain's own */
	const char *audit_path;	/* NULL: AUDIT_PATH */
	bool running, paused, bypass_cache;
};

/**
 * save_run() - in the worker of guard_run(): save, then describe
 * @guard:	told which guest must not stay suspended
 * @ret:	what became of it
 *
 * Returns the exit code, after having said what is wrong.
 */
int save_run(struct guard *guard, const struct save_options *options, const struct options *o,
	     struct move *ret);

#endif
