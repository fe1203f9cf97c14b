/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "migrator/message.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

static int run(const struct verb *verb, int argc, char **argv)
{
	struct options options;
	int r = options_parse(verb, argc, argv, &options);

	if (r) {
		return r;
	}
	text_setup(options.color);
	if (given(&options, OPTION(HELP))) {
		options_help(verb, stdout);
		return 0;
	}
	return verb->run(&options);
}

/* An answer that did not reach its reader is no answer. */
int verb_finish(int status)
{
	int failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout) == 0 && !failed) {
		return status;
	}
	message("error", NULL, gclk_status_name(GCLK_SYS), EFFECT_CHANGED, NULL,
		"the answer could not be written: %s; what it tells of has been done",
		strerror(errno ? errno : EIO));
	return status ? status : GCLK_SYS;
}

int verb_main(const struct verb *verb, int argc, char **argv)
{
	int status = run(verb, argc, argv);

	if (status == GCLK_NOMEM && errors_said() == 0) {
		say_no_memory();
	}
	return verb_finish(status);
}
