/* SPDX-License-Identifier: MIT */
/*
 * What a rewriting leaves in the image beside the original bytes: a bundle that says
 * when the state was captured, how that is known, and what was done.
 */
#ifndef GCLK_MIGRATOR_PAYLOAD_H
#define GCLK_MIGRATOR_PAYLOAD_H

#include "migrator/situation.h"

/* How the instant of the capture is known, for a bundle. */
void provenance_of(const struct source *source, const struct gclk_instant *captured,
		   const char *basis, int32_t tai_offset_s, int64_t now_ns,
		   struct gclk_provenance *ret);

/**
 * payload_make() - the bundle for a plan that is about to be carried out
 * @ret:	malloc()ed
 */
int payload_make(const struct source *source, const struct situation *situation,
		 const struct gclk_plan *plan, void **ret, size_t *ret_size,
		 struct gclk_error *reterr);

/* The clock state and what is known about it, as `extract` gives it. */
int bundle_of(const struct source *source, struct gclk_bundle **ret,
	      struct gclk_error *reterr);

/* Packs a bundle into malloc()ed bytes. */
int bundle_bytes(const struct gclk_bundle *bundle, void **ret, size_t *ret_size,
		 struct gclk_error *reterr);

#endif
