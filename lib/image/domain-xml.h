/* SPDX-License-Identifier: MIT */
/*
 * What a libvirt domain's XML says about clocks. A plain value: no pointers.
 */
#ifndef GCLK_IMAGE_DOMAIN_XML_H
#define GCLK_IMAGE_DOMAIN_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#define GCLK_DOMAIN_NAMESPACE "https://guestclock.dev/ns/domain/1"
#define GCLK_DOMAIN_MAX_XML (UINT32_C(16) << 20)
#define GCLK_DOMAIN_MAX_TIMERS 16
#define GCLK_DOMAIN_MAX_METADATA 32

enum gclk_domain_type { GCLK_DOMAIN_OTHER, GCLK_DOMAIN_KVM, GCLK_DOMAIN_QEMU };

/* In libvirt's words; NONE: the XML does not say. */
enum gclk_domain_ticks {
	GCLK_DOMAIN_TICKS_NONE,
	GCLK_DOMAIN_TICKS_DELAY,
	GCLK_DOMAIN_TICKS_CATCHUP,
	GCLK_DOMAIN_TICKS_MERGE,
	GCLK_DOMAIN_TICKS_DISCARD,
};

enum gclk_domain_switch { GCLK_DOMAIN_UNSET, GCLK_DOMAIN_NO, GCLK_DOMAIN_YES };

struct gclk_domain_timer {
	char name[16];			/* "rtc", "pit", "hpet", "kvmclock", "tsc", ... */
	enum gclk_domain_switch present;
	enum gclk_domain_ticks ticks;
	char track[16];			/* "guest", "wall", "realtime", ""; of the rtc */
	char mode[16];			/* of the tsc: "auto", "native", "" ... */
	uint64_t frequency_hz;		/* of the tsc; 0: not given */
};

struct gclk_domain_clock {
	char offset[16];		/* "utc", "localtime", "timezone", "variable", "absolute", "" */
	char timezone[64];		/* of "timezone" */
	char basis[16];			/* of "variable": "utc", "localtime", "" */
	bool adjustment_reset;		/* adjustment='reset' */
	bool has_adjustment;
	int64_t adjustment_s;
	bool has_start;
	int64_t start_s;		/* of "absolute", since 1970-01-01T00:00:00Z */
};

/* One attribute of our element in <metadata>: gap, ticks, hook, captured_at_ns ... */
struct gclk_domain_attribute {
	char name[40];
	char value[256];
};

struct gclk_domain {
	char name[256];
	char uuid[40];
	enum gclk_domain_type type;
	char machine[64];		/* "pc-i440fx-7.2" */
	uint32_t n_vcpus;		/* that the guest has now (attribute current) */
	uint32_t max_vcpus;
	struct gclk_domain_clock clock;
	struct gclk_domain_timer timers[GCLK_DOMAIN_MAX_TIMERS];
	size_t n_timers;
	enum gclk_domain_switch hv_stimer, hv_synic, hv_frequencies, hv_reenlightenment;
	enum gclk_domain_switch invtsc;	/* <cpu><feature name='invtsc'> */
	bool has_metadata;		/* our element is there */
	struct gclk_domain_attribute metadata[GCLK_DOMAIN_MAX_METADATA];
	size_t n_metadata;
};

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

/* NULL: not in the XML. */
const struct gclk_domain_timer *gclk_domain_timer(const struct gclk_domain *domain,
						  const char *name);
const char *gclk_domain_metadata(const struct gclk_domain *domain, const char *attribute);

/* "delay", ...; "none" */
const char *gclk_domain_ticks_name(enum gclk_domain_ticks ticks);

#endif
