/* SPDX-License-Identifier: MIT */
/*
 * guestclock-seal: the verbs that need libcrypto, which takes longer to load than
 * `guestclock inspect` to answer. People call it through `guestclock VERB`.
 */
#include <string.h>

#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/message.h"
#include "migrator/seal/seal.h"

static const struct verb *const verbs[] = { &verb_keygen, &verb_seal, &verb_open };

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	int r = confine_entry(argc, argv);

	if (r >= 0) {
		return r;
	}
	/* who reads what strangers wrote has no part in this process's keys */
	confine_start_anew();
	for (unsigned i = 0; i < GCLK_COUNT(verbs); i++) {
		if (!strcmp(name, verbs[i]->name)) {
			return verb_main(verbs[i], argc - 1, argv + 1);
		}
	}
	return usage_error(NULL, "guestclock-seal has no verb \"%s\"", name);
}
