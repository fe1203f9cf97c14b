/* SPDX-License-Identifier: MIT */
/*
 * When does a domain run, to somebody who must not ask libvirt? libvirtd keeps a status
 * file of each domain, and replaces it as soon as it has resumed one.
 */
#ifndef GCLK_MIGRATOR_HOOK_RUNNING_H
#define GCLK_MIGRATOR_HOOK_RUNNING_H

#include <stdbool.h>
#include <stdint.h>

#include "migrator/wall.h"

#define STATUS_DIR "/run/libvirt/qemu"

/**
 * running_wait() - until the status file says that the domain runs
 * @directory:	NULL: STATUS_DIR
 * @limit_ns:	no longer than this
 * @ret_seen_ns: at which it was seen to, on @line
 *
 * False: not within that time.
 */
bool running_wait(const char *directory, const char *domain, const struct wall_line *line,
		  int64_t limit_ns, int64_t *ret_seen_ns);

#endif
