/* SPDX-License-Identifier: MIT */
/* The field tables of the records that belong to a bundle and to no guest. */
#include <guestclock/bundle.h>

#include "devices/rows.h"

/* clang-format off */
FIELDS(provenance, GCLK_PROVENANCE_FIELDS)
PLAIN(provenance)
FIELDS(rewrite, GCLK_REWRITE_FIELDS)
PLAIN(rewrite)
/* clang-format on */
