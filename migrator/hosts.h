/* SPDX-License-Identifier: MIT */
/* What `hosts` and `check` share: asking hosts, and showing who can take whom. */
#ifndef GCLK_MIGRATOR_HOSTS_H
#define GCLK_MIGRATOR_HOSTS_H

#include <json-c/json_object.h>

#include <guestclock/image.h>

#include "migrator/options.h"
#include "migrator/takes.h"
#include "migrator/virt/survey.h"

struct hosts_options {
	const char *via[FILES_MAX]; /* for the hosts in their order */
	unsigned n_via;
	int timeout_ms;
};

#define HOSTS_VIA_HELP                                                                   \
	"where the guestclock of the first URI's host answers, then of\n"                \
	"the second's, ...: unix:PATH, tls:HOST[:PORT],\n"                               \
	"exec:COMMAND, none; default auto: by ssh or TLS as its URI"
#define HOSTS_TIMEOUT_HELP "for all of them together; default 30s"

int hosts_set_via(struct hosts_options *to, const char *text, struct gclk_error *reterr);
int hosts_set_timeout(struct hosts_options *to, const char *text,
		      struct gclk_error *reterr);

/* Asks them all at once, @by reads what they say; @ret has room for @n. */
int hosts_ask(const char *const uris[], unsigned n, const struct hosts_options *options,
	      const struct gclk_worker *by, struct surveyed *ret, struct gclk_error *reterr);

const char *hosts_name(const struct surveyed *host);

/* Those that did not answer, as warnings. */
void hosts_say_failures(const struct surveyed *hosts, unsigned n);

struct json_object *hosts_json(const struct surveyed *host);

#endif
