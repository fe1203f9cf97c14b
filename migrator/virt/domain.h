/* SPDX-License-Identifier: MIT */
/* What libvirt's XML tells about clocks: of a domain, of a host. */
#ifndef GCLK_MIGRATOR_VIRT_DOMAIN_H
#define GCLK_MIGRATOR_VIRT_DOMAIN_H

#include <guestclock/image.h>
#include <guestclock/plan.h>

#include "migrator/virt/connect.h"

/**
 * virt_domain_read() - a domain's XML, as it is now
 * @by:		who reads it; NULL: here
 *
 * Errors: GCLK_SYS, those of gclk_worker_domain_read().
 */
int virt_domain_read(virDomainPtr domain, const struct gclk_worker *by,
		     struct gclk_domain *ret, struct gclk_error *reterr);

/**
 * virt_counter_into() - the TSC of a host as its libvirt has it
 *
 * <counter name='tsc' frequency scaling> of the capabilities, which libvirt asks KVM for, in
 * whole kHz: fills what @host does not know. NULL, or a libvirt that does not say: nothing.
 */
void virt_counter_into(virConnectPtr connection, struct gclk_host *host);

#endif
