/* SPDX-License-Identifier: MIT */
/*
 * Connections to libvirt, and libvirt's errors as ours. The event loop runs in a thread of
 * its own from the first connection on.
 */
#ifndef GCLK_MIGRATOR_VIRT_CONNECT_H
#define GCLK_MIGRATOR_VIRT_CONNECT_H

#include <stdbool.h>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <guestclock/error.h>

/**
 * virt_connect() - a connection that notices when the other side goes
 * @uri:	NULL: $LIBVIRT_DEFAULT_URI, or what libvirt takes for the default
 *
 * Errors: GCLK_SYS. virConnectClose() it.
 */
int virt_connect(const char *uri, bool read_only, virConnectPtr *ret,
		 struct gclk_error *reterr);

/* @text is a UUID, a name or, on the host itself, an id, as virsh takes it. */
int virt_domain(virConnectPtr connection, const char *text, virDomainPtr *ret,
		struct gclk_error *reterr);

/**
 * virt_fail() - what libvirt said last in this thread
 * @status:	enum gclk_status
 * @doing:	"looking for domain web1"
 *
 * Returns -@status.
 */
int virt_fail(struct gclk_error *reterr, int status, const char *doing);

/* Its text alone, without line breaks; "" where it said nothing. */
const char *virt_last_error(char *to, size_t size);

#endif
