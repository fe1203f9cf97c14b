/* SPDX-License-Identifier: MIT */
/* Is it the guest's own hypervisor that waits behind a socket, and waits for that guest? */
#ifndef GCLK_MIGRATOR_VIRT_ARRIVAL_H
#define GCLK_MIGRATOR_VIRT_ARRIVAL_H

#include <stdbool.h>
#include <sys/types.h>

#include <guestclock/error.h>

/**
 * arrival_check() - before anything is sent to the socket of a guest
 * @uri:	of libvirt; NULL: its default
 * @uuid:	of the guest
 * @pid:	who listens on the socket, as the kernel says; -1: whoever does
 * @awaited:	libvirt must be waiting for that guest, here and now
 *
 * libvirt notes the process of each guest where only root writes. Returns 0, or 1 where it is
 * not known whose process it is: no libvirt, no such guest, no note. Errors: GCLK_REFUSED for
 * another process, and with @awaited for a guest that does not arrive; with @awaited also
 * GCLK_SYS.
 */
int arrival_check(const char *uri, const char *uuid, pid_t pid, bool awaited,
		  struct gclk_error *reterr);

#endif
