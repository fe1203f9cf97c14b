/* SPDX-License-Identifier: MIT */
/*
 * The description that QEMU appends to its device state (vmdesc), as a compact
 * model, and its exact agreement with the bytes that it describes.
 *
 * Offsets in this interface count from the first byte of the device tail, which
 * is the 04 of the first described section; add gclk_tail.offset for a position
 * in the stream. A model is usable for offsets once gclk_vmdesc_tile() succeeded.
 *
 * Names are not ABI between QEMU releases: look a field up by its name, then by
 * its aliases, then fall back to a fixed offset in the section's payload.
 */
#ifndef GCLK_IMAGE_QEMU_VMDESC_H
#define GCLK_IMAGE_QEMU_VMDESC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Limits on hostile input; a guest of 1024 vCPUs needs 9 MiB and 150000 nodes. */
#define GCLK_VMDESC_MAX_BYTES (12u << 20)
#define GCLK_VMDESC_MAX_NODES (192u << 10)
#define GCLK_VMDESC_MAX_DEPTH 96

struct gclk_vmdesc;

/*
 * One FULL section.
 * @name:	as on the wire: "apic", "0000:00:01.3/piix4_pm"
 * @base:	what follows the last '/' of @name
 * @vmsd_name:	"" where the description gives none (opaque old-style sections)
 * @offset:	of the 04 byte
 * @payload:	of the first payload byte, right after the header's version
 * @payload_size: bytes of payload, subsections included
 * @early:	sent during setup (virtio-mem): not in the tail, offsets are 0
 */
struct gclk_vmdesc_section {
	const char *name, *base, *vmsd_name;
	uint32_t instance;
	uint32_t version;
	uint32_t id;
	uint32_t offset, payload, payload_size;
	bool early;
	uint32_t root;		/* first node, for the functions below */
};

/*
 * One field, or an array of them.
 * @type:	QEMU's name of the type ("timer", "int64", "struct", ...): a name,
 *		not an encoding; integers are big-endian
 * @offset:	of the first element
 * @size:	wire bytes of one element
 * @count:	elements, >= 1
 */
struct gclk_vmdesc_field {
	const char *type;
	uint32_t offset, size, count;
};

/**
 * gclk_vmdesc_parse() - read the JSON text of a description
 * @json:	the text, not NUL-terminated; copied
 * @n:		its length in bytes
 * @ret:	the model; free with gclk_vmdesc_free()
 *
 * Known writers: QEMU 4.2 .. 10.2. The bodies of types without a "struct"
 * object (tmp, vstruct, qtailq, qlist, gtree) are opaque bytes of their size.
 *
 * Errors: MALFORMED with the offset in @json, UNSUPPORTED beyond the limits
 * above, NOMEM.
 */
int gclk_vmdesc_parse(const void *json, size_t n, struct gclk_vmdesc **ret,
		      struct gclk_error *reterr);

/* Accepts NULL, returns NULL. */
struct gclk_vmdesc *gclk_vmdesc_free(struct gclk_vmdesc *d);

/**
 * gclk_vmdesc_tail_size() - bytes of all sections that are not early
 * @footers:	whether every section ends in 7e and its id
 */
uint64_t gclk_vmdesc_tail_size(const struct gclk_vmdesc *d, bool footers);

/**
 * gclk_vmdesc_tile() - check the description against the bytes, to the last one
 * @bytes:	the sections: from the first 04 up to, not including, the EOF byte
 * @n:		their number
 * @footers:	whether every section ends in 7e and its id
 *
 * Every header, name, instance, version, struct size, subsection header and
 * footer must be where the description puts it, and the last section must end
 * at @n. Fills in the offsets, which mean nothing after a failure.
 *
 * Errors: MALFORMED, with the offset of the first disagreement in @bytes and the
 * section's name in @reterr->where.
 */
int gclk_vmdesc_tile(struct gclk_vmdesc *d, const uint8_t *bytes, size_t n, bool footers,
		     struct gclk_error *reterr);

/* Sections in stream order, early ones first. */
size_t gclk_vmdesc_n_sections(const struct gclk_vmdesc *d);
const struct gclk_vmdesc_section *gclk_vmdesc_section(const struct gclk_vmdesc *d,
						      size_t i);

/**
 * gclk_vmdesc_find() - the first section called @base with that instance, or NULL
 * @base:	"hpet", "piix4_pm": compared with the part after the last '/'
 * @instance:	APIC id, CPU index, ...; GCLK_VMDESC_ANY for any
 * @after:	continue behind this section; NULL to start
 */
#define GCLK_VMDESC_ANY UINT64_MAX
const struct gclk_vmdesc_section *
gclk_vmdesc_find(const struct gclk_vmdesc *d, const char *base, uint64_t instance,
		 const struct gclk_vmdesc_section *after);

/**
 * gclk_vmdesc_field() - look a field up by path
 * @path:	components as QEMU names them:
 *		  "cpu_clock_offset"
 *		  "env.tsc"			one name that has a dot in it
 *		  "channels"			a whole array, count says how long
 *		  "channels[1].count"		a member of an array of structs
 *		  "timer[2].qemu_timer"
 *		  "cpu/tsc_khz:env.tsc_khz"	a subsection, a colon, its field
 *		  "pm.ich9_pm/tco:tco_regs.tco_timer"	a subsection of a struct
 *		  "=channels[0].next_transition_time"	after '=' a name is meant
 *						that has brackets of its own: the
 *						scalar of that name, no member of
 *						an array
 *		A path that ends in the colon names the subsection itself: offset
 *		and size are those of its contents, without its header.
 * @ret:	where it is
 *
 * Where several readings fit, a member of a struct or of an array's element wins
 * over a field whose own name is the whole path.
 *
 * Returns true when found.
 */
bool gclk_vmdesc_field(const struct gclk_vmdesc *d, const struct gclk_vmdesc_section *s,
		       const char *path, struct gclk_vmdesc_field *ret);

/*
 * What gclk_vmdesc_walk() shows: one scalar or opaque element, arrays taken
 * apart. @path is in the syntax above and valid during the call only.
 */
struct gclk_vmdesc_leaf {
	const struct gclk_vmdesc_section *section;
	const char *path;
	const char *type;
	uint32_t offset, size;
};

/**
 * gclk_vmdesc_walk() - visit every element of every section in the tail
 * @type:	only elements of this type ("timer"), or NULL for all
 * @visit:	called in stream order; a result other than 0 ends the walk
 *
 * Arrays of single bytes are shown whole, as one leaf.
 *
 * Returns 0, or what @visit returned.
 */
int gclk_vmdesc_walk(const struct gclk_vmdesc *d, const char *type,
		     int (*visit)(void *ctx, const struct gclk_vmdesc_leaf *leaf),
		     void *ctx);

#endif
