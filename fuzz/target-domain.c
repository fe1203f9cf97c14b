/* SPDX-License-Identifier: MIT */
/* A libvirt domain's XML. */
#include <string.h>

#include "fuzz.h"
#include "image/domain-xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gclk_domain domain;
	struct gclk_error error = { 0 };
	int r = gclk_domain_parse((const char *)data, size, &domain, &error);

	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0]);
		return 0;
	}
	FUZZ_CHECK(domain.n_timers <= GCLK_DOMAIN_MAX_TIMERS &&
		   domain.n_metadata <= GCLK_DOMAIN_MAX_METADATA);
	FUZZ_CHECK(memchr(domain.name, 0, sizeof(domain.name)) &&
		   memchr(domain.uuid, 0, sizeof(domain.uuid)) &&
		   memchr(domain.machine, 0, sizeof(domain.machine)));
	gclk_domain_timer(&domain, "tsc");
	gclk_domain_metadata(&domain, "gap");
	return 0;
}
