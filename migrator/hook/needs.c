/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/ratio.h"
#include "core/util.h"
#include "migrator/hook/needs.h"

/* Where the kernel does not say: KVM's and libvirt's own figure. */
#define TOLERANCE_PPM 250

/* Rounded up: 250.1 ppm are more than 250. */
static uint64_t difference_ppm(uint64_t hz, const struct gclk_host *host)
{
	const struct gclk_rate has = {
		.num = host->tsc_hz,
		.den = GCLK_HAS(host, host, tsc_hz_den) ? host->tsc_hz_den : 1,
	};
	uint64_t ppb;

	if (gclk_rate_error_ppb_bound(gclk_rate_of_hz(hz), has, &ppb) < 0) {
		return UINT64_MAX;
	}
	return ppb / 1000 + (ppb % 1000 != 0);
}

void needs_of_domain(const struct gclk_domain *domain, const struct gclk_host *host,
		     struct gclk_findings *findings)
{
	const struct gclk_domain_timer *tsc = gclk_domain_timer(domain, "tsc");
	uint32_t tolerance = GCLK_HAS(host, host, tsc_tolerance_ppm) ? host->tsc_tolerance_ppm
								      : TOLERANCE_PPM;

	if (domain->invtsc == GCLK_DOMAIN_YES && (!tsc || !tsc->frequency_hz)) {
		gclk_findings_add(findings, "invtsc-without-frequency", "tsc",
				  "the domain has the CPU feature invtsc and no TSC frequency");
	}
	if (!tsc || !tsc->frequency_hz || !GCLK_HAS(host, host, tsc_hz) || !host->tsc_hz ||
	    (host->flags & GCLK_HOST_TSC_SCALING && domain->type == GCLK_DOMAIN_KVM)) {
		return;
	}
	if (difference_ppm(tsc->frequency_hz, host) > tolerance) {
		gclk_findings_add(findings, "tsc-rate-not-honoured", "tsc",
				  "the guest's TSC runs at %" PRIu64 " Hz, this host's at %" PRIu64
				  " Hz, %" PRIu64 " ppm apart, and it cannot scale it",
				  tsc->frequency_hz, host->tsc_hz,
				  difference_ppm(tsc->frequency_hz, host));
	}
}

const struct gclk_finding *needs_refusal(const struct gclk_findings *findings)
{
	static const char *const ids[] = { "tsc-rate-not-honoured", "tsc-frequency-refused",
					   "tsc-not-honoured", "incompatible-feature" };

	for (unsigned i = 0; i < findings->n; i++) {
		const struct gclk_finding *f = &findings->items[i];

		for (unsigned k = 0; !f->forced && k < GCLK_COUNT(ids); k++) {
			if (!strcmp(f->info->id, ids[k])) {
				return f;
			}
		}
	}
	return NULL;
}

/* The last one: what stands in <metadata> or in a text comes before it. */
static const char *last(const char *xml, size_t size, const char *text)
{
	size_t n = strlen(text);

	for (const char *at = xml + size; at - xml >= (ptrdiff_t)n; at--) {
		if (!memcmp(at - n, text, n)) {
			return at - n;
		}
	}
	return NULL;
}

#define QEMU_NS "http://libvirt.org/schemas/domain/qemu/1.0"

int needs_pin(const char *xml, size_t size, uint64_t hz, char **ret,
	      struct gclk_error *reterr)
{
	const char *inner = last(xml, size, "</qemu:commandline>");
	const char *outer = last(xml, size, "</domain>");
	const char *at = inner ? inner : outer;
	size_t room = size + 512;
	char *text;

	*ret = NULL;
	if (!at || (inner && outer && outer < inner)) {
		return 0;
	}
	text = malloc(room);
	if (!text) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	snprintf(text, room,
		 "%.*s%s<qemu:arg value='-global'/>"
		 "<qemu:arg value='x86_64-cpu.tsc-frequency=%" PRIu64 "'/>%s%.*s",
		 (int)(at - xml), xml,
		 inner ? "" : "<qemu:commandline xmlns:qemu='" QEMU_NS "'>", hz,
		 inner ? "" : "</qemu:commandline>\n", (int)(size - (size_t)(at - xml)), at);
	*ret = text;
	return 0;
}
