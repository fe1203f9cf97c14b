/* SPDX-License-Identifier: MIT */
/*
 * Bundles: a clock state, how it was captured and what was done with it, as bytes.
 *
 * Layout, integers little-endian:
 *
 *	offset size
 *	     0    8  magic: 89 47 43 4c 4b 0d 0a 1a ("GCLK" between bytes that a
 *	             transfer as text damages)
 *	     8    4  length of the body
 *	    12    4  CRC-32 of the body (IEEE 802.3: reflected, polynomial 0x04c11db7)
 *	    16       body: message guestclock.v1.Bundle of proto/
 *
 * Nothing follows the body. The length and the CRC are there because a protobuf
 * message that lost its end is often still a message.
 *
 * A reader of this release keeps what a later one added: fields that it does not
 * know stay in the bundle and are written again. A state that needs more than
 * that names it in its incompatible list (gclk_state_unknown_feature()).
 */
#ifndef GUESTCLOCK_BUNDLE_H
#define GUESTCLOCK_BUNDLE_H

#include <stddef.h>

#include <guestclock/plan.h>
#include <guestclock/state.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GCLK_BUNDLE_HEADER_BYTES 16
#define GCLK_BUNDLE_MAX_BYTES (UINT32_C(16) << 20)
#define GCLK_BUNDLE_FORMAT_VERSION 1

struct gclk_bundle;

/* clang-format off */
/* When and how a state was captured. */
#define GCLK_PROVENANCE_FIELDS(F, E, M, B, S, R) \
	F(R, i64, realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "the instant that the state describes") \
	F(R, u64, uncertainty_ns, NS, 0, UINT64_MAX,   "the true instant lies within +-; absent: unbounded") \
	S(R, 32,  basis,                               "the evidence for realtime_ns") \
	F(R, i32, tai_offset_s, SECONDS, -1000, 1000,  "TAI minus UTC on the source; absent: not known") \
	S(R, 32,  source_format,                       "format that the state was read from") \
	S(R, 128, source_detail,                       "what wrote it, or its name within the source") \
	S(R, 32,  tool_version,                        "version of this tool") \
	F(R, i64, written_realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the state was put into the bundle")

/* A rewriting of an image, kept in the image itself. */
#define GCLK_REWRITE_FIELDS(F, E, M, B, S, R) \
	F(R, i64, at_realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when it was done") \
	F(R, i64, load_realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "the end of the load that it counts on") \
	F(R, i64, run_realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "the resume that it counts on") \
	F(R, i64, gap_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "true time between the capture and the resume") \
	F(R, i64, counted_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "how much of it the guest's clocks count") \
	S(R, 16,  gap_policy,                          "count, freeze, wall or cap") \
	S(R, 64,  carrier,                             "by which carrier") \
	S(R, 32,  tool_version,                        "version of the tool that did it") \
	F(R, u32, times, COUNT, 1, UINT32_MAX,         "how often the image has been rewritten, this time included")
/* clang-format on */

GCLK_INDEX(provenance, GCLK_PROVENANCE_FIELDS)
GCLK_INDEX(rewrite, GCLK_REWRITE_FIELDS)
struct gclk_provenance { GCLK_MEMBERS(provenance, GCLK_PROVENANCE_FIELDS) };
struct gclk_rewrite { GCLK_MEMBERS(rewrite, GCLK_REWRITE_FIELDS) };

/**
 * gclk_state_pack() - a clock state as a bundle of its own
 * @state:	valid (gclk_state_validate())
 * @buf:	where to, or NULL with @size 0
 * @size:	bytes at @buf; 0 asks for the length only
 *
 * Returns the length of the bundle, at most GCLK_BUNDLE_MAX_BYTES. Allocates
 * nothing. Errors: GCLK_RANGE when @size is too small or a field of the state
 * cannot be written; @buf then has no defined content.
 */
int64_t gclk_state_pack(const struct gclk_state *state, void *buf, size_t size,
			struct gclk_error *reterr);

/**
 * gclk_state_unpack() - the clock state of a bundle
 * @state:	with room for the vCPUs of the bundle; its n_vcpus becomes theirs
 *
 * Validates before it returns 0; on failure @state is empty. Errors: as
 * gclk_bundle_unpack() and gclk_bundle_state().
 */
int gclk_state_unpack(struct gclk_state *state, const void *buf, size_t size,
		      struct gclk_error *reterr);

/**
 * gclk_state_unknown_feature() - what forbids to rewrite or restore a state
 *
 * Returns the first name of its incompatible list that this release does not
 * know, or NULL. A state with such a name may be inspected and nothing else.
 */
const char *gclk_state_unknown_feature(const struct gclk_state *state);

/* Does a file that begins with these bytes claim to be a bundle? 8 bytes are enough. */
int gclk_bytes_are_bundle(const void *buf, size_t size);

/* NULL when memory is short. Ownership: the caller's, gclk_bundle_free(). */
struct gclk_bundle *gclk_bundle_new(void);

/* Accepts NULL. Returns NULL. */
struct gclk_bundle *gclk_bundle_free(struct gclk_bundle *bundle);

/**
 * gclk_bundle_unpack() - read a bundle
 * @buf:	all of it
 * @ret_bundle:	on success; the caller's
 *
 * Memory is bounded whatever the bytes say. Errors: GCLK_MALFORMED (magic, CRC,
 * contradictions), GCLK_TRUNCATED, GCLK_VERSION, GCLK_RANGE (too large),
 * GCLK_NOMEM. Fields are looked at only by the functions below.
 */
int gclk_bundle_unpack(const void *buf, size_t size, struct gclk_bundle **ret_bundle,
		       struct gclk_error *reterr);

/* Returns the length, like gclk_state_pack(), and what was read but not understood is in it. */
int64_t gclk_bundle_pack(const struct gclk_bundle *bundle, void *buf, size_t size,
			 struct gclk_error *reterr);

/* How many vCPUs the state has; 0: the bundle has no state. */
uint32_t gclk_bundle_n_vcpus(const struct gclk_bundle *bundle);

/**
 * gclk_bundle_state() - the clock state
 * @state:	with room for gclk_bundle_n_vcpus(); n_vcpus becomes theirs
 *
 * Returns 0, or GCLK_BUNDLE_ABSENT when there is none. The state has been
 * validated; after an error it is empty. Errors: GCLK_RANGE.
 */
int gclk_bundle_state(const struct gclk_bundle *bundle, struct gclk_state *state,
		      struct gclk_error *reterr);

#define GCLK_BUNDLE_ABSENT 1	/* a condition, not an error: the bundle has no such part */

/* Each returns 0, GCLK_BUNDLE_ABSENT, or -GCLK_RANGE for a field that is out of range. */
int gclk_bundle_provenance(const struct gclk_bundle *bundle,
			   struct gclk_provenance *ret_provenance, struct gclk_error *reterr);
int gclk_bundle_host(const struct gclk_bundle *bundle, struct gclk_host *ret_host,
		     struct gclk_error *reterr);
int gclk_bundle_rewrite(const struct gclk_bundle *bundle, struct gclk_rewrite *ret_rewrite,
			struct gclk_error *reterr);

/*
 * Each replaces one part; NULL removes it. What the part had beyond the fields
 * of its record stays. On failure the bundle is as before. Errors: GCLK_RANGE
 * for a value that is out of range, GCLK_NOMEM.
 */
int gclk_bundle_set_state(struct gclk_bundle *bundle, const struct gclk_state *state,
			  struct gclk_error *reterr);
int gclk_bundle_set_provenance(struct gclk_bundle *bundle,
			       const struct gclk_provenance *provenance,
			       struct gclk_error *reterr);
int gclk_bundle_set_host(struct gclk_bundle *bundle, const struct gclk_host *host,
			 struct gclk_error *reterr);
int gclk_bundle_set_rewrite(struct gclk_bundle *bundle, const struct gclk_rewrite *rewrite,
			    struct gclk_error *reterr);

/**
 * gclk_bundle_set_plan() - keep a plan: its instants, ledger, bounds and findings
 * @plan:	carried out, or NULL
 * @carrier:	by which it was made, or NULL
 *
 * The plan's new state is not kept: a plan follows from the captured state, and
 * rewriting starts from that (R9).
 */
int gclk_bundle_set_plan(struct gclk_bundle *bundle, const struct gclk_plan *plan,
			 const struct gclk_carrier *carrier, struct gclk_error *reterr);

/**
 * gclk_state_redact() - leave out what tells the host: readings of its TSC and of its
 * time since boot, and the frequency that its crystal has where the guest's is known
 * without it
 *
 * What is left is what the guest can read itself. What only the same host could use goes:
 * a restore there is as one on any other host.
 */
void gclk_state_redact(struct gclk_state *state);

/* Leaves of a host that it was another one: its name becomes "(redacted)". */
void gclk_host_redact(struct gclk_host *host);

#ifdef __cplusplus
}
#endif
#endif
