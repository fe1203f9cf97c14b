/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrator/virt/domain.h"

int virt_domain_read(virDomainPtr domain, const struct gclk_worker *by,
		     struct gclk_domain *ret, struct gclk_error *reterr)
{
	char *xml = virDomainGetXMLDesc(domain, 0);
	int r;

	if (!xml) {
		return virt_fail(reterr, GCLK_SYS, "reading the domain's XML");
	}
	r = gclk_worker_domain_read(by, xml, strlen(xml), ret, reterr);
	free(xml);
	return r;
}

/* The value of an attribute in the element that begins at @element; cut at 31 bytes. */
static const char *attribute(const char *element, const char *name, char to[32])
{
	const char *end = strchr(element, '>');
	size_t n = strlen(name), k = 0;

	to[0] = 0;
	for (const char *s = element; end && s + n + 2 < end; s++) {
		if (s[0] == ' ' && !strncmp(s + 1, name, n) && s[n + 1] == '=' &&
		    (s[n + 2] == '\'' || s[n + 2] == '"')) {
			for (const char *v = s + n + 3; *v && *v != s[n + 2] && k < 31; v++) {
				to[k++] = *v;
			}
			to[k] = 0;
			return to;
		}
	}
	return to;
}

void virt_counter_into(virConnectPtr connection, struct gclk_host *host)
{
	char *xml = connection ? virConnectGetCapabilities(connection) : NULL;
	const char *counter = xml ? strstr(xml, "<counter name='tsc'") : NULL;
	char text[32];
	unsigned long long hz;

	if (counter) {
		hz = strtoull(attribute(counter, "frequency", text), NULL, 10);
		if (hz && !GCLK_HAS(host, host, tsc_hz)) {
			GCLK_SET(host, host, tsc_hz, hz);
			GCLK_SET(host, host, tsc_hz_ppb, (uint32_t)(1000000000000ULL / hz + 1));
		}
		if (!strcmp(attribute(counter, "scaling", text), "yes")) {
			host->flags |= GCLK_HOST_TSC_SCALING;
		}
	}
	free(xml);
	virResetLastError();
}
