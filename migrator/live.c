/* SPDX-License-Identifier: MIT */
/*
 * guestclock-live: the verbs that need libvirt or talk to another host. People call it
 * through `guestclock VERB`.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/message.h"
#include "migrator/peer/reader.h"
#include "migrator/verbs.h"

/* One line for each verb; those that need libvirt stand between #if and #endif. */
static const struct verb *const verbs[] = {
	&verb_proxy,
#if GUESTCLOCK_LIBVIRT
	&verb_save,
	&verb_restore,
	&verb_migrate,
	&verb_check,
	&verb_hosts,
#endif
	NULL
};

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	int r;

	confine_set_reader(peer_read);
	r = confine_entry(argc, argv);
	if (r >= 0) {
		return r;
	}
	signal(SIGPIPE, SIG_IGN); /* a neighbour that goes is an error, not an end */
	for (unsigned i = 0; verbs[i]; i++) {
		if (!strcmp(name, verbs[i]->name)) {
			return verb_main(verbs[i], argc - 1, argv + 1);
		}
	}
	if (!GUESTCLOCK_LIBVIRT) {
		message("error", NULL, gclk_status_name(GCLK_UNSUPPORTED), EFFECT_NONE, NULL,
			"\"%s\" needs libvirt, and this guestclock was built without it "
			"(meson setup -Dlibvirt=enabled, package libvirt-dev)", name);
		return GCLK_UNSUPPORTED;
	}
	return usage_error(NULL, "there is no live verb \"%s\"", name);
}
