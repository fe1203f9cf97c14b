/* SPDX-License-Identifier: MIT */
/*
 * What a libvirt domain's XML says about clocks. A plain value: no pointers.
 */
#ifndef GCLK_IMAGE_DOMAIN_XML_H
#define GCLK_IMAGE_DOMAIN_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/image.h>

#define GCLK_DOMAIN_NAMESPACE "https://guestclock.dev/ns/domain/1"
#define GCLK_DOMAIN_MAX_XML (UINT32_C(16) << 20)
/**
 * gclk_domain_parse() - read a domain's XML
 * @xml:	@n bytes; need not be terminated. <domain>, or anything that holds one
 *		(<domstatus>, <domainsnapshot>): the first <domain> counts
 *
 * Reads no file and no network; a document type declaration is refused, hence no
 * entity but XML's own five exists. Elements that it does not know are skipped.
 *
 * Errors: MALFORMED, RANGE (a value longer or larger than its member), NOMEM.
 */
int gclk_domain_parse(const char *xml, size_t n, struct gclk_domain *ret,
		      struct gclk_error *reterr);

/* "delay", ...; "none" */
const char *gclk_domain_ticks_name(enum gclk_domain_ticks ticks);

#endif
