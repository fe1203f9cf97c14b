/* SPDX-License-Identifier: MIT */
/* What a guest needs of a host for its clocks, as far as the domain's XML says it. */
#ifndef GCLK_MIGRATOR_HOOK_NEEDS_H
#define GCLK_MIGRATOR_HOOK_NEEDS_H

#include <guestclock/image.h>

/**
 * needs_of_domain() - can the guest's clocks be right on this host?
 * @findings:	what speaks against it is added; those that refuse are a no
 */
void needs_of_domain(const struct gclk_domain *domain, const struct gclk_host *host,
		     struct gclk_findings *findings);

/* The first finding of a plan or of needs_of_domain() that says: not on this host. */
const struct gclk_finding *needs_refusal(const struct gclk_findings *findings);

/**
 * needs_pin() - domain XML with a TSC frequency, by QEMU's command line
 * @hz:		of the guest
 * @ret:	malloc()ed; NULL where the XML has a place for neither
 *
 * libvirt lets nothing but this through on the way in: <timer> is compared.
 */
int needs_pin(const char *xml, size_t size, uint64_t hz, char **ret,
	      struct gclk_error *reterr);

#endif
