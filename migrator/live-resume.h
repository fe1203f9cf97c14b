/* SPDX-License-Identifier: MIT */
/* libvirt as the one who resumes guests, for the destination end. */
#ifndef GCLK_MIGRATOR_LIVE_RESUME_H
#define GCLK_MIGRATOR_LIVE_RESUME_H

#include "migrator/peer/destination_end.h"

/*
 * The context is libvirt's URI, or NULL for its default. NULL where this was built without
 * libvirt: guests are resumed by whoever moves them.
 */
const struct destination_resume *live_resume(void);

/* Where margins are kept: /var/lib/guestclock, or the user's own state directory. */
const char *live_margins_path(char to[256]);

#endif
