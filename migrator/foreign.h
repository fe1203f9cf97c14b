/* SPDX-License-Identifier: MIT */
/*
 * Bundles, JSON, host profiles and reports of moves, as others wrote them. Where there is
 * a worker (migrator/confine) it reads them, and says what they hold as plain values of a
 * fixed size, which are looked at here: texts end, numbers that choose are in their list,
 * counts within their array, instants and spans have the sign that they must have. Where
 * there is none they are read here.
 */
#ifndef GCLK_MIGRATOR_FOREIGN_H
#define GCLK_MIGRATOR_FOREIGN_H

#include <guestclock/bundle.h>
#include <guestclock/image.h>

#include "migrator/move.h"

/* What a worker is asked to read. */
enum foreign_what {
	FOREIGN_BUNDLE = 1,
	FOREIGN_BUNDLE_JSON,
	FOREIGN_HOST_JSON,
	FOREIGN_MOVE_JSON,
	FOREIGN_WHOLE_BUNDLE,
	FOREIGN_FRAME = 256,	/* and the type of the frame: migrator/peer */
};

/* What a bundle says; a part that it does not have is empty. */
struct foreign_bundle {
	struct gclk_state *state;	/* NULL: none */
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;
};

/**
 * foreign_bundle() - a bundle
 * @by:		who reads it; NULL: here
 * @ret:	foreign_bundle_clear() it after success
 *
 * Errors: those of gclk_bundle_unpack() and of its parts; GCLK_PEER.
 */
int foreign_bundle(const struct gclk_worker *by, const void *bytes, size_t n,
		   struct foreign_bundle *ret, struct gclk_error *reterr);

/* The same in JSON. Errors: those of bundle_from_json(); GCLK_PEER. */
int foreign_bundle_json(const struct gclk_worker *by, const char *text, size_t n,
			struct foreign_bundle *ret, struct gclk_error *reterr);
void foreign_bundle_clear(struct foreign_bundle *bundle);

/* Whether it is a bundle at all, of whatever release. Errors: those of gclk_bundle_unpack(). */
int foreign_check_bundle(const struct gclk_worker *by, const void *bytes, size_t n,
			 struct gclk_error *reterr);

/* A host profile. Errors: those of host_from_json(); GCLK_PEER. */
int foreign_host_json(const struct gclk_worker *by, const char *text, size_t n,
		      struct gclk_host *ret, struct gclk_error *reterr);

/* The report of a move. Errors: those of move_from_json(); GCLK_PEER. */
int foreign_move(const struct gclk_worker *by, const char *text, size_t n, struct move *ret,
		 struct gclk_error *reterr);

/* The same for many: @reading may be NULL. */
int foreign_move_by(struct gclk_reading *reading, const char *text, size_t n,
		    struct move *ret, struct gclk_error *reterr);

/* ---- in the worker ---- */

/* A gclk_worker_reader for all of them but frames. */
int foreign_read(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
		 struct gclk_error *reterr);

/* ---- what is believed; for peers and tests ---- */

/* One question to a worker of its own. Errors: as gclk_reading_new(), gclk_reading_ask(). */
int foreign_ask(const struct gclk_worker *by, uint32_t what, const void *bytes, size_t n,
		void **ret, size_t *ret_n, struct gclk_error *reterr);

/* Errors: GCLK_PEER for what cannot be. */
int foreign_take_bundle(const void *said, size_t n, struct foreign_bundle *ret,
			struct gclk_error *reterr);
int foreign_take_host(const void *said, size_t n, struct gclk_host *ret,
		      struct gclk_error *reterr);
int foreign_take_move(const void *said, size_t n, struct move *ret, struct gclk_error *reterr);
int foreign_refuse(const char *what, struct gclk_error *reterr);

#endif
