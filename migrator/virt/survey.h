/* SPDX-License-Identifier: MIT */
/*
 * What many hosts can do, asked at the same time: libvirt's capabilities, and, where a
 * guestclock answers there, its host's profile and how far the two wall clocks are apart.
 */
#ifndef GCLK_MIGRATOR_VIRT_SURVEY_H
#define GCLK_MIGRATOR_VIRT_SURVEY_H

#include <stdbool.h>

#include <guestclock/image.h>
#include <guestclock/plan.h>

enum survey_state {
	SURVEY_SILENT, /* no answer within the time limit */
	SURVEY_FAILED, /* .error */
	SURVEY_DONE,
};

struct surveyed {
	char uri[256];
	char via[512]; /* address of a guestclock there; "": none is asked */
	uint8_t state; /* enum survey_state */
	struct gclk_error error;
	char name[128]; /* of the host, as libvirt has it */
	char uuid[40];
	uint32_t libvirt; /* 9000000: 9.0.0 */
	bool has_kvm;
	struct gclk_host host;	     /* what libvirt says of it, or its own profile */
	bool has_profile;	     /* the latter */
	bool is_here;		     /* this very host */
	struct gclk_error via_error; /* .status 0: none */
	struct gclk_disagreement
		apart; /* its wall clock minus this host's; or unbounded */
};

/* Does the URI name no server: is it this very host's? */
bool survey_is_here(const char *uri);

/**
 * survey_hosts() - ask them all
 * @hosts:	.uri and .via are given, the rest is filled
 * @by:		who reads what a guestclock there says; NULL: here
 *
 * Returns when each has answered or the time is over. Errors: GCLK_NOMEM, GCLK_SYS.
 */
int survey_hosts(struct surveyed *hosts, unsigned n, const struct gclk_worker *by,
		 int timeout_ms, struct gclk_error *reterr);

/* The capabilities' part of it: for tests. */
void survey_capabilities(const char *xml, struct surveyed *ret);

#endif
