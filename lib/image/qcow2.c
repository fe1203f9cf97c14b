/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "image/qcow2.h"
#include "image/record.h"

#define MAGIC UINT32_C(0x514649fb)
#define HEADER_V2_BYTES 72
#define HEADER_V3_BYTES 104
#define MIN_CLUSTER_BITS 9
#define MAX_CLUSTER_BITS 21
#define MAX_REFCOUNT_ORDER 6
#define MAX_L1_ENTRIES (UINT32_C(4) << 20)
#define MAX_TABLE_BYTES (UINT64_C(16) << 20)

/* Incompatible features. */
#define DIRTY (UINT64_C(1) << 0)
#define CORRUPT (UINT64_C(1) << 1)
#define EXTERNAL_DATA (UINT64_C(1) << 2)
#define COMPRESSION_TYPE (UINT64_C(1) << 3)
#define EXTENDED_L2 (UINT64_C(1) << 4)
#define KNOWN_INCOMPATIBLE (DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2)
/* Autoclear features that writing to a vm state leaves true: bitmaps of the disk. */
#define KNOWN_AUTOCLEAR (UINT64_C(1) << 0)

/* Table entries. */
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ALL_ZERO UINT64_C(1)
#define SUBCLUSTERS 32

#define ROOM_BYTES 48
#define ROOM_GROWS UINT64_C(1)
#define ROOM_OF_ZEROS UINT64_C(2)
/* The bitmap of an extended entry whose subclusters all are marked as zeros. */
#define ALL_SUBCLUSTERS_ZERO UINT64_C(0xffffffff00000000)
static const char room_magic[8] = { 'G', 'C', 'L', 'K', 'R', 'O', 'O', 'M' };

struct gclk_qcow2 {
	struct gclk_io file;
	uint64_t file_bytes;
	uint32_t version;
	unsigned cluster_bits, l2_bits;		/* l2_bits: of the number of entries */
	uint64_t cluster_bytes;
	unsigned l2_entry_bytes;
	uint64_t disk_bytes;
	uint64_t l1_offset;			/* of the active layer */
	uint32_t n_l1;
	uint64_t refcount_offset;
	uint64_t n_refcount_blocks;
	unsigned refcount_order;
	uint64_t incompatible, autoclear;
	struct gclk_qcow2_snapshot *snapshots;
	size_t n_snapshots;

	const struct gclk_qcow2_snapshot *selected;
	uint64_t first_l1;			/* of the vm state, in either layer */
	uint64_t trailing;			/* bytes that stand in the room */
	bool has_room;
	uint64_t room_flags, room_file_bytes, room_bitmap;	/* as it says; 0 without one */

	uint8_t *l2;				/* the last L2 table that was read */
	uint64_t l2_offset;			/* 0: none */
};

/* What an L2 entry says about one cluster. */
struct cluster {
	uint64_t host;		/* 0: reads as zeros */
	bool compressed;
	uint32_t present;	/* subclusters that are data; all of them without extended L2 */
	uint64_t l2_offset;	/* of its table; 0: none */
	uint64_t entry_offset;	/* of its entry in the file */
	uint64_t entry, bitmap;	/* as they stand there; the bitmap only with extended L2 */
};

bool gclk_qcow2_probe(const void *bytes, size_t n)
{
	return n >= 4 && gclk_get_be32(bytes) == MAGIC;
}

static int read_file(const struct gclk_qcow2 *q, uint64_t offset, void *buf, size_t n,
		     struct gclk_error *reterr)
{
	return q->file.read(q->file.ctx, offset, buf, n, reterr);
}

static int write_file(struct gclk_qcow2 *q, uint64_t offset, const void *buf, size_t n,
		      struct gclk_error *reterr)
{
	int r = q->file.write(q->file.ctx, offset, buf, n, reterr);

	if (r == 0) {
		q->file_bytes = GCLK_MAX(q->file_bytes, offset + n);
	}
	return r;
}

static int sync_file(struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	return q->file.sync(q->file.ctx, reterr);
}

/* ---- header ---- */

static int unsupported(const char *where, uint64_t offset, const char *why,
		       struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_UNSUPPORTED, where, offset, "%s", why);
}

/* A table of @n bytes at @offset must begin at a cluster and lie within the file. */
static int check_table(const struct gclk_qcow2 *q, const char *what, uint64_t offset,
		       uint64_t n, struct gclk_error *reterr)
{
	if (offset % q->cluster_bytes || (n && offset < q->cluster_bytes) ||
	    offset > q->file_bytes || n > q->file_bytes - offset) {
		return gclk_fail(reterr, GCLK_MALFORMED, what, offset,
				 "%" PRIu64 " bytes at %" PRIu64 " are not within the file's %"
				 PRIu64, n, offset, q->file_bytes);
	}
	return 0;
}

static int check_features(const struct gclk_qcow2 *q, uint32_t crypt_method,
			  struct gclk_error *reterr)
{
	if (crypt_method) {
		return unsupported("qcow2 header", 32, "the image is encrypted", reterr);
	}
	if (q->incompatible & EXTERNAL_DATA) {
		return unsupported("qcow2 header", 72, "the image keeps its data in another file",
				   reterr);
	}
	if (q->incompatible & ~KNOWN_INCOMPATIBLE) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "qcow2 header", 72,
				 "incompatible features 0x%" PRIx64 " are not known",
				 q->incompatible & ~KNOWN_INCOMPATIBLE);
	}
	return 0;
}

static int check_geometry(struct gclk_qcow2 *q, uint32_t cluster_bits,
			  uint32_t refcount_clusters, struct gclk_error *reterr)
{
	if (cluster_bits < MIN_CLUSTER_BITS || cluster_bits > MAX_CLUSTER_BITS) {
		return gclk_fail(reterr, GCLK_RANGE, "qcow2 header", 20,
				 "clusters of 2^%" PRIu32 " bytes cannot be", cluster_bits);
	}
	if (q->refcount_order > MAX_REFCOUNT_ORDER) {
		return gclk_fail(reterr, GCLK_RANGE, "qcow2 header", 96,
				 "refcounts of 2^%u bits cannot be", q->refcount_order);
	}
	if (q->n_l1 > MAX_L1_ENTRIES) {
		return gclk_fail(reterr, GCLK_RANGE, "qcow2 header", 36,
				 "an L1 table of %" PRIu32 " entries cannot be", q->n_l1);
	}
	q->cluster_bits = cluster_bits;
	q->cluster_bytes = UINT64_C(1) << cluster_bits;
	q->l2_entry_bytes = q->incompatible & EXTENDED_L2 ? 16 : 8;
	q->l2_bits = cluster_bits - (q->incompatible & EXTENDED_L2 ? 4 : 3);
	q->n_refcount_blocks = ((uint64_t)refcount_clusters << cluster_bits) / 8;
	return 0;
}

static int read_header(struct gclk_qcow2 *q, uint32_t *ret_n_snapshots, uint64_t *ret_table,
		       struct gclk_error *reterr)
{
	uint8_t h[HEADER_V3_BYTES] = { 0 };
	int r;

	r = read_file(q, 0, h, HEADER_V2_BYTES, reterr);
	if (r < 0) {
		return r;
	}
	if (!gclk_qcow2_probe(h, sizeof(h))) {
		return gclk_fail(reterr, GCLK_MALFORMED, "qcow2 header", 0, "no qcow2 begins so");
	}
	q->version = gclk_get_be32(h + 4);
	if (q->version != 2 && q->version != 3) {
		return gclk_fail(reterr, GCLK_VERSION, "qcow2 header", 4,
				 "version %" PRIu32 " is not known, only 2 and 3", q->version);
	}
	if (q->version == 3) {
		r = read_file(q, 0, h, HEADER_V3_BYTES, reterr);
	}
	q->disk_bytes = gclk_get_be64(h + 24);
	q->n_l1 = gclk_get_be32(h + 36);
	q->l1_offset = gclk_get_be64(h + 40);
	q->refcount_offset = gclk_get_be64(h + 48);
	*ret_n_snapshots = gclk_get_be32(h + 60);
	*ret_table = gclk_get_be64(h + 64);
	q->incompatible = gclk_get_be64(h + 72);
	q->autoclear = gclk_get_be64(h + 88);
	q->refcount_order = q->version == 3 ? gclk_get_be32(h + 96) : 4;
	r = r < 0 ? r : check_features(q, gclk_get_be32(h + 32), reterr);
	r = r < 0 ? r : check_geometry(q, gclk_get_be32(h + 20), gclk_get_be32(h + 56), reterr);
	r = r < 0 ? r : check_table(q, "L1 table", q->l1_offset, (uint64_t)q->n_l1 * 8, reterr);
	return r < 0 ? r : check_table(q, "refcount table", q->refcount_offset,
				       q->n_refcount_blocks * 8, reterr);
}

/* ---- snapshot table ---- */

static int take_string(struct gclk_cursor *c, size_t n, char **ret)
{
	const uint8_t *bytes = gclk_cursor_take(c, n);

	if (!bytes) {
		return 0;	/* the cursor remembers */
	}
	*ret = strndup((const char *)bytes, n);
	return *ret ? 0 : -1;
}

/* Seconds of a 32-bit field and nanoseconds; the product is below 2^63. */
static uint64_t date_of(uint32_t seconds, uint32_t ns)
{
	return (uint64_t)seconds * (uint64_t)GCLK_NS_PER_S + ns;
}

static int read_entry(struct gclk_qcow2 *q, struct gclk_cursor *c, size_t start,
		      struct gclk_qcow2_snapshot *s)
{
	uint32_t extra, seconds, ns;
	struct gclk_cursor e;
	uint16_t n_id, n_name;

	s->l1_offset = gclk_cursor_be64(c);
	s->n_l1 = gclk_cursor_be32(c);
	n_id = gclk_cursor_be16(c);
	n_name = gclk_cursor_be16(c);
	seconds = gclk_cursor_be32(c);
	ns = gclk_cursor_be32(c);
	s->date_ns = date_of(seconds, ns);
	s->vm_clock_ns = gclk_cursor_be64(c);
	s->vm_state_bytes = gclk_cursor_be32(c);
	extra = gclk_cursor_be32(c);
	e = gclk_cursor_sub(c, extra);
	s->disk_bytes = q->disk_bytes;
	s->icount = UINT64_MAX;
	if (extra >= 8) {
		s->vm_state_bytes = gclk_cursor_be64(&e);
	}
	if (extra >= 16) {
		s->disk_bytes = gclk_cursor_be64(&e);
	}
	if (extra >= 24) {
		s->icount = gclk_cursor_be64(&e);
	}
	if (take_string(c, n_id, &s->id) < 0 || take_string(c, n_name, &s->name) < 0) {
		return -1;
	}
	gclk_cursor_skip(c, (8 - (c->at - start) % 8) % 8);
	return 0;
}

static int check_snapshot(const struct gclk_qcow2 *q, const struct gclk_qcow2_snapshot *s,
			  struct gclk_error *reterr)
{
	if (s->n_l1 > MAX_L1_ENTRIES) {
		return gclk_fail(reterr, GCLK_RANGE, "snapshot table", GCLK_NO_OFFSET,
				 "snapshot %.32s has an L1 table of %" PRIu32 " entries", s->id,
				 s->n_l1);
	}
	return check_table(q, "snapshot L1", s->l1_offset, (uint64_t)s->n_l1 * 8, reterr);
}

static int parse_table(struct gclk_qcow2 *q, struct gclk_cursor *c, uint32_t n,
		       struct gclk_error *reterr)
{
	for (uint32_t i = 0; i < n; i++) {
		int r = 0;

		q->n_snapshots = i + 1;		/* so that a half-read one is freed */
		if (read_entry(q, c, c->at, &q->snapshots[i]) < 0) {
			return gclk_fail(reterr, GCLK_NOMEM, "snapshot table", GCLK_NO_OFFSET,
					 "no memory for snapshot %" PRIu32, i);
		}
		/* The last entry's padding may be where the file ends. */
		if (!(i + 1 == n && q->snapshots[i].name)) {
			r = gclk_cursor_finish(c, "snapshot table", reterr);
		}
		r = r < 0 ? r : check_snapshot(q, &q->snapshots[i], reterr);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int read_snapshots(struct gclk_qcow2 *q, uint32_t n, uint64_t table,
			  struct gclk_error *reterr)
{
	struct gclk_cursor c;
	uint8_t *bytes;
	uint64_t size;
	int r;

	if (n > GCLK_QCOW2_MAX_SNAPSHOTS) {
		return gclk_fail(reterr, GCLK_RANGE, "qcow2 header", 60,
				 "%" PRIu32 " snapshots cannot be", n);
	}
	if (!n) {
		return 0;
	}
	r = check_table(q, "snapshot table", table, 40 * (uint64_t)n, reterr);
	if (r < 0) {
		return r;
	}
	/* Its length is not recorded: read on, but not without end. */
	size = GCLK_MIN(q->file_bytes - table, GCLK_MIN(MAX_TABLE_BYTES, n * UINT64_C(4096)));
	bytes = malloc(size);
	q->snapshots = calloc(n, sizeof(*q->snapshots));
	if (!bytes || !q->snapshots) {
		r = gclk_fail(reterr, GCLK_NOMEM, "snapshot table", GCLK_NO_OFFSET,
			      "no memory for %" PRIu32 " snapshots", n);
	} else {
		r = read_file(q, table, bytes, size, reterr);
	}
	if (r == 0) {
		c = gclk_cursor_of(bytes, size, table);
		r = parse_table(q, &c, n, reterr);
	}
	free(bytes);
	return r;
}

int gclk_qcow2_open(const struct gclk_io *file, struct gclk_qcow2 **ret,
		    struct gclk_error *reterr)
{
	struct gclk_qcow2 *q = calloc(1, sizeof(*q));
	uint32_t n_snapshots = 0;
	uint64_t table = 0;
	int r;

	if (!q) {
		return gclk_fail(reterr, GCLK_NOMEM, "qcow2", GCLK_NO_OFFSET, "no memory");
	}
	q->file = *file;
	r = file->size(file->ctx, &q->file_bytes, reterr);
	r = r < 0 ? r : read_header(q, &n_snapshots, &table, reterr);
	r = r < 0 ? r : read_snapshots(q, n_snapshots, table, reterr);
	if (r == 0) {
		q->l2 = malloc(q->cluster_bytes);
		if (!q->l2) {
			r = gclk_fail(reterr, GCLK_NOMEM, "qcow2", GCLK_NO_OFFSET, "no memory");
		}
	}
	if (r < 0) {
		gclk_qcow2_free(q);
		return r;
	}
	*ret = q;
	return 0;
}

struct gclk_qcow2 *gclk_qcow2_free(struct gclk_qcow2 *q)
{
	if (q) {
		for (size_t i = 0; i < q->n_snapshots; i++) {
			free(q->snapshots[i].id);
			free(q->snapshots[i].name);
		}
		free(q->snapshots);
		free(q->l2);
		free(q);
	}
	return NULL;
}

const struct gclk_qcow2_snapshot *gclk_qcow2_snapshots(const struct gclk_qcow2 *q,
						       size_t *ret_n)
{
	*ret_n = q->n_snapshots;
	return q->snapshots;
}

const struct gclk_qcow2_snapshot *gclk_qcow2_selected(const struct gclk_qcow2 *q)
{
	return q->selected;
}

/* ---- clusters ---- */

/* An entry of an L1 table, of either layer: where its L2 table is; 0: none. */
static int read_l1(const struct gclk_qcow2 *q, uint64_t l1_offset, uint64_t n_l1,
		   uint64_t index, uint64_t *ret, struct gclk_error *reterr)
{
	uint8_t entry[8];
	int r;

	*ret = 0;
	if (index >= n_l1) {
		return 0;
	}
	r = read_file(q, l1_offset + 8 * index, entry, 8, reterr);
	if (r < 0) {
		return r;
	}
	*ret = gclk_get_be64(entry) & OFFSET_MASK;
	return *ret ? check_table(q, "L2 table", *ret, q->cluster_bytes, reterr) : 0;
}

static int load_l2(struct gclk_qcow2 *q, uint64_t offset, struct gclk_error *reterr)
{
	int r;

	if (q->l2_offset == offset) {
		return 0;
	}
	q->l2_offset = 0;
	r = read_file(q, offset, q->l2, q->cluster_bytes, reterr);
	if (r == 0) {
		q->l2_offset = offset;
	}
	return r;
}

static int parse_l2_entry(const struct gclk_qcow2 *q, uint64_t index, struct cluster *c,
			  struct gclk_error *reterr)
{
	const uint8_t *at = q->l2 + index * q->l2_entry_bytes;
	uint64_t entry = gclk_get_be64(at);

	c->entry_offset = c->l2_offset + index * q->l2_entry_bytes;
	c->entry = entry;
	c->present = UINT32_MAX;
	if (entry & COMPRESSED) {
		c->compressed = true;
		return 0;
	}
	if (q->incompatible & EXTENDED_L2) {
		c->bitmap = gclk_get_be64(at + 8);
		c->present = (uint32_t)c->bitmap & ~(uint32_t)(c->bitmap >> 32);
	} else if (q->version >= 3 && (entry & ALL_ZERO)) {
		c->present = 0;
	}
	c->host = entry & OFFSET_MASK;
	if (c->host % q->cluster_bytes || c->host >= q->file_bytes) {
		return gclk_fail(reterr, GCLK_MALFORMED, "L2 table", c->entry_offset,
				 "a cluster at %" PRIu64 " cannot be", c->host);
	}
	return 0;
}

/* Cluster @index of the vm state, as a layer with this L1 table sees it. */
static int find_cluster(struct gclk_qcow2 *q, uint64_t l1_offset, uint64_t n_l1,
			uint64_t index, struct cluster *ret, struct gclk_error *reterr)
{
	int r;

	*ret = (struct cluster){ 0 };
	r = read_l1(q, l1_offset, n_l1, q->first_l1 + (index >> q->l2_bits), &ret->l2_offset,
		    reterr);
	if (r < 0 || !ret->l2_offset) {
		return r;
	}
	r = load_l2(q, ret->l2_offset, reterr);
	return r < 0 ? r : parse_l2_entry(q, index & ((UINT64_C(1) << q->l2_bits) - 1), ret, reterr);
}

static int find_ours(struct gclk_qcow2 *q, uint64_t index, struct cluster *ret,
		     struct gclk_error *reterr)
{
	return find_cluster(q, q->selected->l1_offset, q->selected->n_l1, index, ret, reterr);
}

/* Reads bytes of one cluster that lie within one subcluster, or in none. */
static int read_within(const struct gclk_qcow2 *q, const struct cluster *c, uint64_t in,
		       uint8_t *to, size_t n, struct gclk_error *reterr)
{
	uint64_t sub = in / (q->cluster_bytes / SUBCLUSTERS);
	uint64_t there;

	if (!c->host || !(c->present >> (q->incompatible & EXTENDED_L2 ? sub : 0) & 1)) {
		memset(to, 0, n);
		return 0;
	}
	/* The file may end within its last cluster; the rest reads as zeros. */
	there = c->host + in < q->file_bytes ? q->file_bytes - (c->host + in) : 0;
	if (there < n) {
		memset(to + there, 0, n - there);
		n = there;
	}
	return n ? read_file(q, c->host + in, to, n, reterr) : 0;
}

/* How far from @in on a cluster is of one kind. */
static uint64_t piece_bytes(const struct gclk_qcow2 *q, uint64_t in)
{
	uint64_t unit = q->incompatible & EXTENDED_L2 ? q->cluster_bytes / SUBCLUSTERS :
							q->cluster_bytes;

	return unit - in % unit;
}

/* Bytes as they lie in the clusters: the room not shifted. */
static int read_physical(struct gclk_qcow2 *q, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr)
{
	uint8_t *to = buf;

	while (n) {
		uint64_t in = offset & (q->cluster_bytes - 1);
		size_t k = (size_t)GCLK_MIN((uint64_t)n, piece_bytes(q, in));
		struct cluster c;
		int r;

		r = find_ours(q, offset >> q->cluster_bits, &c, reterr);
		if (r == 0 && c.compressed) {
			r = unsupported("vm state", offset, "a cluster of the vm state is compressed",
					reterr);
		}
		r = r < 0 ? r : read_within(q, &c, in, to, k, reterr);
		if (r < 0) {
			return r;
		}
		to += k;
		offset += k;
		n -= k;
	}
	return 0;
}

/* ---- refcounts ---- */

struct refcount_place {
	uint64_t byte;		/* offset in the file; 0: no block, all counts are 0 */
	unsigned shift;		/* of counts below one byte */
};

static int find_refcount(const struct gclk_qcow2 *q, uint64_t host, struct refcount_place *ret,
			 struct gclk_error *reterr)
{
	unsigned per_block_bits = q->cluster_bits + 3 - q->refcount_order;
	uint64_t cluster = host >> q->cluster_bits;
	uint64_t index = cluster & ((UINT64_C(1) << per_block_bits) - 1);
	uint64_t block = cluster >> per_block_bits, offset;
	uint8_t entry[8];
	int r;

	*ret = (struct refcount_place){ 0 };
	if (block >= q->n_refcount_blocks) {
		return 0;
	}
	r = read_file(q, q->refcount_offset + 8 * block, entry, 8, reterr);
	offset = r < 0 ? 0 : gclk_get_be64(entry) & ~UINT64_C(0x1ff);
	if (r < 0 || !offset) {
		return r;
	}
	r = check_table(q, "refcount block", offset, q->cluster_bytes, reterr);
	ret->byte = offset + ((index << q->refcount_order) >> 3);
	ret->shift = (unsigned)((index << q->refcount_order) & 7);
	return r;
}

static size_t refcount_bytes(const struct gclk_qcow2 *q)
{
	return q->refcount_order < 3 ? 1 : (size_t)1 << (q->refcount_order - 3);
}

static uint64_t refcount_max(const struct gclk_qcow2 *q)
{
	return UINT64_MAX >> (64 - (1u << q->refcount_order));
}

static int get_refcount(const struct gclk_qcow2 *q, uint64_t host, uint64_t *ret,
			struct gclk_error *reterr)
{
	struct refcount_place place;
	uint8_t bytes[8];
	int r;

	*ret = 0;
	r = find_refcount(q, host, &place, reterr);
	if (r < 0 || !place.byte) {
		return r;
	}
	r = read_file(q, place.byte, bytes, refcount_bytes(q), reterr);
	if (r == 0) {
		*ret = gclk_get_be(bytes, refcount_bytes(q)) >> place.shift & refcount_max(q);
	}
	return r;
}

static int set_refcount(struct gclk_qcow2 *q, uint64_t host, uint64_t count,
			struct gclk_error *reterr)
{
	struct refcount_place place;
	uint8_t bytes[8];
	uint64_t all;
	int r;

	r = find_refcount(q, host, &place, reterr);
	if (r < 0) {
		return r;
	}
	r = read_file(q, place.byte, bytes, refcount_bytes(q), reterr);
	if (r < 0) {
		return r;
	}
	all = gclk_get_be(bytes, refcount_bytes(q));
	all = (all & ~(refcount_max(q) << place.shift)) | count << place.shift;
	gclk_put_be(bytes, refcount_bytes(q), all);
	return write_file(q, place.byte, bytes, refcount_bytes(q), reterr);
}

/* ---- what may be written ---- */

int gclk_qcow2_check_writable(const struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	if (q->incompatible & CORRUPT) {
		return unsupported("qcow2 header", 72, "the image is marked corrupt; repair it with "
				   "qemu-img check -r all", reterr);
	}
	if (q->incompatible & DIRTY) {
		return unsupported("qcow2 header", 72, "the image is marked dirty, its refcounts may "
				   "be wrong; repair it with qemu-img check -r leaks", reterr);
	}
	if (q->autoclear & ~KNOWN_AUTOCLEAR) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "qcow2 header", 88,
				 "writing would make features 0x%" PRIx64 " untrue",
				 q->autoclear & ~KNOWN_AUTOCLEAR);
	}
	return 0;
}

/*
 * A cluster (or L2 table) at @host that the snapshot uses at @index: has anybody
 * else but the active layer a share in it?
 */
static int check_alone(struct gclk_qcow2 *q, uint64_t host, bool active_shares,
		       uint64_t offset, struct gclk_error *reterr)
{
	uint64_t count;
	int r;

	r = get_refcount(q, host, &count, reterr);
	if (r < 0) {
		return r;
	}
	if (count != (active_shares ? 2 : 1)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "vm state", offset,
				 "the cluster at %" PRIu64 " of the file has %" PRIu64 " users: "
				 "another snapshot shares it", host, count);
	}
	return 0;
}

static int check_cluster(struct gclk_qcow2 *q, uint64_t index, uint64_t from, uint64_t to,
			 struct gclk_error *reterr)
{
	uint64_t offset = index << q->cluster_bits;
	struct cluster active, c;
	int r;

	r = find_cluster(q, q->l1_offset, q->n_l1, index, &active, reterr);
	r = r < 0 ? r : find_ours(q, index, &c, reterr);
	if (r < 0) {
		return r;
	}
	if (c.compressed || !c.host) {
		return unsupported("vm state", offset, c.compressed ?
				   "a cluster of the vm state is compressed" :
				   "a cluster of the vm state is not allocated", reterr);
	}
	while (from < to) {
		uint64_t sub = from / (q->cluster_bytes / SUBCLUSTERS);

		if (!(c.present >> (q->incompatible & EXTENDED_L2 ? sub : 0) & 1)) {
			return unsupported("vm state", offset + from,
					   "a part of the vm state is marked as zeros", reterr);
		}
		from += piece_bytes(q, from);
	}
	return check_alone(q, c.host, active.host == c.host, offset, reterr);
}

int gclk_qcow2_check_range(struct gclk_qcow2 *q, uint64_t offset, uint64_t n,
			   struct gclk_error *reterr)
{
	if (offset > q->selected->vm_state_bytes || n > q->selected->vm_state_bytes - offset) {
		return gclk_fail(reterr, GCLK_RANGE, "vm state", offset,
				 "%" PRIu64 " bytes reach past its end", n);
	}
	while (n) {
		uint64_t in = offset & (q->cluster_bytes - 1);
		uint64_t k = GCLK_MIN(n, q->cluster_bytes - in);
		int r = check_cluster(q, offset >> q->cluster_bits, in, in + k, reterr);

		if (r < 0) {
			return r;
		}
		offset += k;
		n -= k;
	}
	return 0;
}

/* The cluster in which the vm state ends, and so the room begins. */
static uint64_t last_cluster(const struct gclk_qcow2 *q)
{
	return (q->selected->vm_state_bytes - 1) >> q->cluster_bits;
}

/* First byte behind the last cluster of the vm state. */
static uint64_t slack_end(const struct gclk_qcow2 *q)
{
	return (last_cluster(q) + 1) << q->cluster_bits;
}

static bool all_in_slack(const struct gclk_qcow2 *q, uint64_t end)
{
	return end <= slack_end(q);
}

/* May a cluster be put here? What its entry was must be known again later. */
static bool is_vacant(const struct gclk_qcow2 *q, const struct cluster *c, uint64_t flags)
{
	bool zeros = flags & ROOM_OF_ZEROS;

	if (q->incompatible & EXTENDED_L2) {
		return !c->entry && c->bitmap == (zeros ? ALL_SUBCLUSTERS_ZERO : 0);
	}
	return c->entry == (zeros ? ALL_ZERO : 0);
}

/* The flags of a room whose first cluster behind the vm state's last is @next. */
static uint64_t flags_for(const struct gclk_qcow2 *q, const struct cluster *next)
{
	if (!next->l2_offset) {
		return 0;
	}
	return is_vacant(q, next, 0) ? ROOM_GROWS :
	       is_vacant(q, next, ROOM_OF_ZEROS) ? ROOM_GROWS | ROOM_OF_ZEROS : 0;
}

/* How often the L2 table of cluster @index is used: by the active layer as well? */
static int count_users(const struct gclk_qcow2 *q, uint64_t index, const struct cluster *c,
		       uint64_t *ret, struct gclk_error *reterr)
{
	uint64_t active_l2 = 0;
	int r = read_l1(q, q->l1_offset, q->n_l1, q->first_l1 + (index >> q->l2_bits),
			&active_l2, reterr);

	*ret = active_l2 == c->l2_offset ? 2 : 1;
	return r;
}

/*
 * The vm state's cluster @index, to be allocated if it is not: its L2 table must be
 * there, and be changed for nobody else.
 */
static int check_growth(struct gclk_qcow2 *q, uint64_t index, struct cluster *ret_c,
			uint64_t *ret_users, struct gclk_error *reterr)
{
	uint64_t offset = index << q->cluster_bits;
	int r;

	r = find_ours(q, index, ret_c, reterr);
	if (r < 0) {
		return r;
	}
	if (!ret_c->l2_offset) {
		return unsupported("vm state", offset, "there is no room behind the vm state: it "
				   "fills its last L2 table", reterr);
	}
	r = count_users(q, index, ret_c, ret_users, reterr);
	r = r < 0 ? r : check_alone(q, ret_c->l2_offset, *ret_users == 2, offset, reterr);
	if (r == 0 && *ret_users > refcount_max(q)) {
		r = unsupported("vm state", offset, "refcounts of 1 bit leave no room behind the "
				"vm state", reterr);
	}
	return r;
}

/* Only where a refcount has its place already: blocks are not added. */
static int is_free(const struct gclk_qcow2 *q, uint64_t host, bool *ret,
		   struct gclk_error *reterr)
{
	struct refcount_place place;
	uint64_t count = 0;
	int r;

	r = find_refcount(q, host, &place, reterr);
	if (r == 0 && place.byte) {
		r = get_refcount(q, host, &count, reterr);
	}
	*ret = r == 0 && place.byte && !count;
	return r;
}

/* A free cluster at or behind @from: behind the file's last, else the first in it. */
static int find_free(const struct gclk_qcow2 *q, uint64_t from, uint64_t *ret,
		     struct gclk_error *reterr)
{
	uint64_t end = (q->file_bytes + q->cluster_bytes - 1) & ~(q->cluster_bytes - 1);
	bool found;
	int r;

	*ret = GCLK_MAX(end, from);
	r = is_free(q, *ret, &found, reterr);
	if (r == 0 && !found) {
		*ret = from < end ? GCLK_MAX(from, q->cluster_bytes) : q->cluster_bytes;
	}
	while (r == 0 && !found && *ret < end) {
		r = is_free(q, *ret, &found, reterr);
		*ret += found ? 0 : q->cluster_bytes;
	}
	if (r == 0 && !found) {
		r = unsupported("refcount table", GCLK_NO_OFFSET, "there is no room behind the vm "
				"state: the refcount blocks are full; delete a snapshot that is not "
				"needed", reterr);
	}
	return r;
}

int gclk_qcow2_check_room(struct gclk_qcow2 *q, uint64_t n, struct gclk_error *reterr)
{
	uint64_t end = q->selected->vm_state_bytes + ROOM_BYTES + n, free_from = 0, users;
	uint64_t flags = q->room_flags, in;
	struct cluster c;
	int r;

	in = (q->selected->vm_state_bytes - 1) & (q->cluster_bytes - 1);
	r = check_cluster(q, last_cluster(q), in, in + 1, reterr);
	if (r == 0 && (q->incompatible & EXTENDED_L2)) {	/* its bitmap will change */
		r = check_growth(q, last_cluster(q), &c, &users, reterr);
	}
	for (uint64_t i = last_cluster(q) + 1; r == 0 && i << q->cluster_bits < end; i++) {
		r = check_growth(q, i, &c, &users, reterr);
		if (r == 0 && !q->has_room && i == last_cluster(q) + 1) {
			flags = flags_for(q, &c);
		}
		if (r == 0 && (!(flags & ROOM_GROWS) ||
			       (!is_vacant(q, &c, flags) && !(q->has_room && c.host)))) {
			r = unsupported("vm state", i << q->cluster_bits, "there is no room behind "
					"the vm state: the rest of an older one follows; take the "
					"snapshot again", reterr);
		}
		if (r == 0 && !c.host) {
			r = find_free(q, free_from, &free_from, reterr);
			free_from += q->cluster_bytes;
		}
	}
	return r;
}

/* ---- the room ---- */

static uint64_t snapshot_key(const struct gclk_qcow2_snapshot *s)
{
	uint8_t numbers[24];
	uint64_t crc;

	gclk_put_be64(numbers, s->date_ns);
	gclk_put_be64(numbers + 8, s->vm_clock_ns);
	gclk_put_be64(numbers + 16, s->vm_state_bytes);
	crc = lzma_crc64((const uint8_t *)s->id, strlen(s->id), 0);
	return lzma_crc64(numbers, sizeof(numbers), crc);
}

/* Clusters behind the last one that are mapped and can be the room's. */
static int mapped_end(struct gclk_qcow2 *q, uint64_t *ret, struct gclk_error *reterr)
{
	uint64_t index = last_cluster(q) + 1;
	uint64_t limit = index + ((3 * GCLK_UNDO_MAX_BYTES) >> q->cluster_bits) + 2;
	struct cluster c = { .host = 1 };
	int r = 0;

	while ((q->room_flags & ROOM_GROWS) && index < limit) {
		r = find_ours(q, index, &c, reterr);
		if (r < 0 || !c.host || c.compressed) {
			break;
		}
		index++;
	}
	*ret = index << q->cluster_bits;
	return r;
}

/* Where in the room its last byte is that is not 0, as a length. */
static int measure_room(struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	uint64_t start = q->selected->vm_state_bytes + ROOM_BYTES, end;
	uint8_t bytes[4096];
	int r;

	q->trailing = 0;
	r = mapped_end(q, &end, reterr);
	while (r == 0 && end > start && !q->trailing) {
		size_t n = (size_t)GCLK_MIN(end - start, sizeof(bytes));

		r = read_physical(q, end - n, bytes, n, reterr);
		for (size_t i = n; r == 0 && i > 0 && !q->trailing; i--) {
			if (bytes[i - 1]) {
				q->trailing = end - n + i - start;
			}
		}
		end -= n;
	}
	return r;
}

static int find_room(struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	uint64_t at = q->selected->vm_state_bytes;
	uint8_t room[ROOM_BYTES];
	int r;

	q->has_room = false;
	q->trailing = q->room_flags = q->room_file_bytes = q->room_bitmap = 0;
	if (slack_end(q) - at < ROOM_BYTES) {
		struct cluster c;

		r = find_ours(q, last_cluster(q) + 1, &c, reterr);
		if (r < 0 || !c.host || c.compressed) {
			return r;
		}
	}
	r = read_physical(q, at, room, sizeof(room), reterr);
	if (r < 0 || memcmp(room, room_magic, 8) ||
	    gclk_get_be64(room + 8) != snapshot_key(q->selected) ||
	    gclk_get_be64(room + 40) != lzma_crc64(room, 40, 0)) {
		return r;
	}
	q->has_room = true;
	q->room_flags = gclk_get_be64(room + 16);
	q->room_file_bytes = gclk_get_be64(room + 24);
	q->room_bitmap = gclk_get_be64(room + 32);
	return measure_room(q, reterr);
}

/* ---- selecting ---- */

static const struct gclk_qcow2_snapshot *by_id_or_name(const struct gclk_qcow2 *q,
							const char *which)
{
	for (size_t i = 0; i < q->n_snapshots; i++) {
		if (!strcmp(q->snapshots[i].id, which)) {
			return &q->snapshots[i];
		}
	}
	for (size_t i = 0; i < q->n_snapshots; i++) {
		if (!strcmp(q->snapshots[i].name, which)) {
			return &q->snapshots[i];
		}
	}
	return NULL;
}

static int choose(const struct gclk_qcow2 *q, const char *which,
		  const struct gclk_qcow2_snapshot **ret, struct gclk_error *reterr)
{
	const struct gclk_qcow2_snapshot *found = NULL;
	size_t n = 0;

	for (size_t i = 0; i < q->n_snapshots; i++) {
		if (q->snapshots[i].vm_state_bytes) {
			found = &q->snapshots[i];
			n++;
		}
	}
	if (which) {
		found = by_id_or_name(q, which);
		if (!found) {
			return gclk_fail(reterr, GCLK_STATE, "snapshot table", GCLK_NO_OFFSET,
					 "there is no snapshot \"%.64s\" among %zu", which,
					 q->n_snapshots);
		}
	} else if (n != 1) {
		return gclk_fail(reterr, GCLK_STATE, "snapshot table", GCLK_NO_OFFSET,
				 "%zu of %zu snapshots hold the state of a machine%s", n,
				 q->n_snapshots, n ? "; say which" : "");
	}
	if (!found->vm_state_bytes) {
		return gclk_fail(reterr, GCLK_STATE, "snapshot table", GCLK_NO_OFFSET,
				 "snapshot \"%.64s\" holds a disk and no state of a machine; with "
				 "several disks only one holds it", found->name);
	}
	*ret = found;
	return 0;
}

static int check_extent(const struct gclk_qcow2 *q, const struct gclk_qcow2_snapshot *s,
			uint64_t first_l1, struct gclk_error *reterr)
{
	unsigned per_l1_bits = q->cluster_bits + q->l2_bits;
	uint64_t tables = ((s->vm_state_bytes - 1) >> per_l1_bits) + 1;

	if (s->vm_state_bytes > INT64_MAX || first_l1 > s->n_l1 || tables > s->n_l1 - first_l1) {
		return gclk_fail(reterr, GCLK_MALFORMED, "snapshot table", GCLK_NO_OFFSET,
				 "a vm state of %" PRIu64 " bytes does not fit into an L1 table of "
				 "%" PRIu32 " entries", s->vm_state_bytes, s->n_l1);
	}
	return 0;
}

int gclk_qcow2_select(struct gclk_qcow2 *q, const char *which, struct gclk_error *reterr)
{
	unsigned per_l1_bits = q->cluster_bits + q->l2_bits;
	const struct gclk_qcow2_snapshot *s = NULL;
	uint64_t first;
	int r;

	r = choose(q, which, &s, reterr);
	if (r < 0) {
		return r;
	}
	first = (s->disk_bytes >> per_l1_bits) +
		!!(s->disk_bytes & ((UINT64_C(1) << per_l1_bits) - 1));
	r = check_extent(q, s, first, reterr);
	if (r < 0) {
		return r;
	}
	q->selected = s;
	q->first_l1 = first;
	q->l2_offset = 0;
	r = find_room(q, reterr);
	if (r < 0) {
		q->selected = NULL;
	}
	return r;
}

uint64_t gclk_qcow2_vm_state_offset(const struct gclk_qcow2 *q)
{
	return q->first_l1 << (q->cluster_bits + q->l2_bits);
}

/* ---- writing ---- */

static int write_zeros(struct gclk_qcow2 *q, uint64_t host, uint64_t n,
		       struct gclk_error *reterr)
{
	uint8_t *zeros = calloc(1, n);
	int r;

	if (!zeros) {
		return gclk_fail(reterr, GCLK_NOMEM, "vm state", GCLK_NO_OFFSET, "no memory");
	}
	r = write_file(q, host, zeros, n, reterr);
	free(zeros);
	return r;
}

static int set_l2_entry(struct gclk_qcow2 *q, const struct cluster *c, uint64_t entry,
			uint64_t bitmap, struct gclk_error *reterr)
{
	uint8_t bytes[16];

	gclk_put_be64(bytes, entry);
	gclk_put_be64(bytes + 8, bitmap);
	q->l2_offset = 0;
	return write_file(q, c->entry_offset, bytes, q->l2_entry_bytes, reterr);
}

/*
 * Counted before it is used, and on the disk in that order: whatever happens, no
 * cluster is in use that is not counted.
 */
static int allocate(struct gclk_qcow2 *q, uint64_t index, uint64_t flags,
		    struct gclk_error *reterr)
{
	uint64_t users = 0, host = 0;
	struct cluster c;
	int r;

	r = check_growth(q, index, &c, &users, reterr);
	if (r < 0 || c.host) {
		return r;
	}
	if (!is_vacant(q, &c, flags)) {
		return unsupported("vm state", index << q->cluster_bits,
				   "there is no room behind the vm state", reterr);
	}
	r = find_free(q, 0, &host, reterr);
	r = r < 0 ? r : write_zeros(q, host, q->cluster_bytes, reterr);
	r = r < 0 ? r : set_refcount(q, host, users, reterr);
	r = r < 0 ? r : sync_file(q, reterr);
	return r < 0 ? r : set_l2_entry(q, &c, host | (users == 1 ? COPIED : 0), UINT32_MAX, reterr);
}

/*
 * Not used before it is not counted, on the disk in that order. A later snapshot may
 * have inherited it, behind the end of its own state; then it keeps its share.
 */
static int release(struct gclk_qcow2 *q, uint64_t index, struct gclk_error *reterr)
{
	bool zeros = q->room_flags & ROOM_OF_ZEROS, extended = q->incompatible & EXTENDED_L2;
	uint64_t users = 0, count = 0;
	struct cluster c;
	int r;

	r = find_ours(q, index, &c, reterr);
	if (r < 0 || !c.host) {
		return r;
	}
	r = count_users(q, index, &c, &users, reterr);
	r = r < 0 ? r : get_refcount(q, c.host, &count, reterr);
	if (r == 0 && count < users) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "refcount table", c.host,
			      "the cluster at %" PRIu64 " is used more often than it is counted",
			      c.host);
	}
	r = r < 0 ? r : set_l2_entry(q, &c, zeros && !extended ? ALL_ZERO : 0,
				     zeros ? ALL_SUBCLUSTERS_ZERO : 0, reterr);
	r = r < 0 ? r : sync_file(q, reterr);
	r = r < 0 ? r : set_refcount(q, c.host, count - users, reterr);
	/* It was appended to the file; the last one may go. */
	if (r == 0 && count == users && c.host + q->cluster_bytes == q->file_bytes) {
		r = q->file.resize(q->file.ctx, c.host, reterr);
		q->file_bytes = r < 0 ? q->file_bytes : c.host;
	}
	return r;
}

static int write_physical(struct gclk_qcow2 *q, uint64_t offset, const void *buf, size_t n,
			  struct gclk_error *reterr)
{
	const uint8_t *from = buf;

	while (n) {
		uint64_t in = offset & (q->cluster_bytes - 1);
		size_t k = (size_t)GCLK_MIN((uint64_t)n, q->cluster_bytes - in);
		struct cluster c;
		int r;

		r = find_ours(q, offset >> q->cluster_bits, &c, reterr);
		if (r == 0 && (!c.host || c.compressed)) {
			r = unsupported("vm state", offset, "a cluster of the vm state is not "
					"allocated", reterr);
		}
		r = r < 0 ? r : write_file(q, c.host + in, from, k, reterr);
		if (r < 0) {
			return r;
		}
		from += k;
		offset += k;
		n -= k;
	}
	return 0;
}

/* Clusters up to physical offset @end. */
static int grow_to(struct gclk_qcow2 *q, uint64_t end, uint64_t flags,
		   struct gclk_error *reterr)
{
	int r = 0;

	for (uint64_t i = last_cluster(q) + 1; r == 0 && i << q->cluster_bits < end; i++) {
		r = allocate(q, i, flags, reterr);
	}
	return r;
}

/* With extended L2 all of the last cluster must count as data, or as it did before. */
static int set_last_bitmap(struct gclk_qcow2 *q, uint64_t bitmap, struct gclk_error *reterr)
{
	struct cluster last;
	int r;

	if (!(q->incompatible & EXTENDED_L2)) {
		return 0;
	}
	r = find_ours(q, last_cluster(q), &last, reterr);
	r = r < 0 ? r : set_l2_entry(q, &last, last.entry, bitmap, reterr);
	return r < 0 ? r : sync_file(q, reterr);
}

/* The subclusters that begin behind the vm state become data. */
static uint64_t bitmap_with_slack(const struct gclk_qcow2 *q, uint64_t bitmap)
{
	uint64_t unit = q->cluster_bytes / SUBCLUSTERS;
	uint64_t slack = slack_end(q) - q->selected->vm_state_bytes;
	unsigned first = SUBCLUSTERS - (unsigned)(slack / unit);
	uint64_t behind = first < SUBCLUSTERS ? UINT32_MAX & UINT32_MAX << first : 0;

	return (bitmap | behind) & ~(behind << SUBCLUSTERS);
}

/*
 * Subclusters that are no data read as zeros, whatever is there: it must be zeros
 * before they become data.
 */
static int clear_slack(struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	uint64_t slack = slack_end(q) - q->selected->vm_state_bytes;
	struct cluster last;
	int r;

	r = find_ours(q, last_cluster(q), &last, reterr);
	if (r == 0 && slack) {
		r = write_zeros(q, last.host + (q->cluster_bytes - slack), slack, reterr);
	}
	r = r < 0 ? r : sync_file(q, reterr);
	return r < 0 ? r : set_last_bitmap(q, bitmap_with_slack(q, last.bitmap), reterr);
}

static int sign_room(struct gclk_qcow2 *q, uint64_t flags, uint64_t file_bytes,
		     uint64_t bitmap, struct gclk_error *reterr)
{
	uint8_t room[ROOM_BYTES];
	int r;

	memcpy(room, room_magic, 8);
	gclk_put_be64(room + 8, snapshot_key(q->selected));
	gclk_put_be64(room + 16, flags);
	gclk_put_be64(room + 24, file_bytes);
	gclk_put_be64(room + 32, bitmap);
	gclk_put_be64(room + 40, lzma_crc64(room, 40, 0));
	r = write_physical(q, q->selected->vm_state_bytes, room, sizeof(room), reterr);
	return r < 0 ? r : sync_file(q, reterr);
}

/* Zeroes what the last cluster holds beyond the vm state, and signs it. */
static int make_room(struct gclk_qcow2 *q, struct gclk_error *reterr)
{
	uint64_t file_bytes = q->file_bytes, flags = 0, bitmap = 0;
	struct cluster c;
	int r;

	r = find_ours(q, last_cluster(q) + 1, &c, reterr);
	if (r == 0) {
		flags = flags_for(q, &c);
		r = find_ours(q, last_cluster(q), &c, reterr);
	}
	if (r == 0) {
		bitmap = c.bitmap;
		r = clear_slack(q, reterr);
	}
	r = r < 0 ? r : grow_to(q, q->selected->vm_state_bytes + ROOM_BYTES, flags, reterr);
	r = r < 0 ? r : sync_file(q, reterr);
	r = r < 0 ? r : sign_room(q, flags, file_bytes, bitmap, reterr);
	if (r == 0) {
		q->has_room = true;
		q->room_flags = flags;
		q->room_file_bytes = file_bytes;
		q->room_bitmap = bitmap;
		q->trailing = 0;
	}
	return r;
}

/*
 * A file often ends within a cluster (with the snapshot table); allocating behind
 * it filled that one up. What we filled up with are zeros, which may go.
 */
static int trim_file(struct gclk_qcow2 *q, uint64_t to, struct gclk_error *reterr)
{
	uint8_t bytes[4096];
	int r = 0;

	if (to >= q->file_bytes || q->file_bytes - to >= q->cluster_bytes) {
		return 0;
	}
	for (uint64_t at = to; at < q->file_bytes;) {
		size_t n = (size_t)GCLK_MIN(q->file_bytes - at, sizeof(bytes));

		r = read_file(q, at, bytes, n, reterr);
		for (size_t i = 0; i < n; i++) {
			if (r < 0 || bytes[i]) {
				return r;
			}
		}
		at += n;
	}
	r = q->file.resize(q->file.ctx, to, reterr);
	q->file_bytes = r < 0 ? q->file_bytes : to;
	return r;
}

static int vm_state_size(void *ctx, uint64_t *ret_size, struct gclk_error *reterr)
{
	const struct gclk_qcow2 *q = ctx;

	(void)reterr;
	*ret_size = q->selected->vm_state_bytes + q->trailing;
	return 0;
}

static int vm_state_read(void *ctx, uint64_t offset, void *buf, size_t n,
			 struct gclk_error *reterr)
{
	struct gclk_qcow2 *q = ctx;
	uint64_t end = q->selected->vm_state_bytes, size = end + q->trailing;
	uint8_t *to = buf;
	size_t before;
	int r = 0;

	if (offset > size || n > size - offset) {
		return gclk_fail(reterr, GCLK_TRUNCATED, "vm state", offset,
				 "%zu bytes wanted, it ends at %" PRIu64, n, size);
	}
	before = offset < end ? (size_t)GCLK_MIN((uint64_t)n, end - offset) : 0;
	if (before) {
		r = read_physical(q, offset, to, before, reterr);
	}
	if (r == 0 && n > before) {
		r = read_physical(q, offset + before + ROOM_BYTES, to + before, n - before, reterr);
	}
	return r;
}

static int write_room(struct gclk_qcow2 *q, uint64_t offset, const void *buf, size_t n,
		      struct gclk_error *reterr)
{
	uint64_t at = offset + ROOM_BYTES;
	int r = 0;

	if (!q->has_room) {
		r = make_room(q, reterr);
	}
	if (r == 0 && !all_in_slack(q, at + n)) {
		r = q->room_flags & ROOM_GROWS ? grow_to(q, at + n, q->room_flags, reterr) :
		    unsupported("vm state", offset, "there is no room behind the vm state", reterr);
	}
	r = r < 0 ? r : write_physical(q, at, buf, n, reterr);
	if (r == 0) {
		q->trailing = GCLK_MAX(q->trailing, offset + n - q->selected->vm_state_bytes);
	}
	return r;
}

static int vm_state_write(void *ctx, uint64_t offset, const void *buf, size_t n,
			  struct gclk_error *reterr)
{
	struct gclk_qcow2 *q = ctx;
	uint64_t end = q->selected->vm_state_bytes;

	if (offset >= end) {
		return n ? write_room(q, offset, buf, n, reterr) : 0;
	}
	if (n > end - offset) {
		return gclk_fail(reterr, GCLK_RANGE, "vm state", offset,
				 "%zu bytes reach past its end", n);
	}
	return write_physical(q, offset, buf, n, reterr);
}

static int vm_state_sync(void *ctx, struct gclk_error *reterr)
{
	return sync_file(ctx, reterr);
}

/*
 * Zeroes physical bytes [from, to) from the end on. The last piece is on the disk
 * first, so that a record there loses its footer before anything else: the one byte at
 * its end, for a write of more can stop half way; then the rest of it, before what lies
 * further in front may go.
 */
static int wipe(struct gclk_qcow2 *q, uint64_t from, uint64_t to, struct gclk_error *reterr)
{
	static const uint8_t zeros[512];
	unsigned pieces = 0;
	int r = 0;

	while (r == 0 && to > from) {
		size_t n = (size_t)GCLK_MIN(to - from, pieces ? sizeof(zeros) : 1);

		r = write_physical(q, to - n, zeros, n, reterr);
		if (r == 0 && pieces++ < 2) {
			r = sync_file(q, reterr);
		}
		to -= n;
	}
	return r;
}

/* The room's clusters that begin at physical offset @end or behind it. */
static int release_behind(struct gclk_qcow2 *q, uint64_t end, struct gclk_error *reterr)
{
	uint64_t mapped = 0;
	int r = mapped_end(q, &mapped, reterr);

	for (uint64_t i = mapped >> q->cluster_bits; r == 0 && i-- > last_cluster(q) + 1;) {
		if (i << q->cluster_bits >= end) {
			r = release(q, i, reterr);
		}
	}
	return r;
}

static int vm_state_resize(void *ctx, uint64_t size, struct gclk_error *reterr)
{
	struct gclk_qcow2 *q = ctx;
	uint64_t end = q->selected->vm_state_bytes;
	int r;

	if (size < end || size > end + q->trailing) {
		return gclk_fail(reterr, GCLK_RANGE, "vm state", size,
				 "it cannot be made %" PRIu64 " bytes long", size);
	}
	if (!q->has_room) {
		return 0;
	}
	r = wipe(q, size + ROOM_BYTES, end + ROOM_BYTES + q->trailing, reterr);
	r = r < 0 ? r : sync_file(q, reterr);
	r = r < 0 ? r : release_behind(q, size + ROOM_BYTES, reterr);
	if (r == 0 && size == end) {
		r = wipe(q, end, end + ROOM_BYTES, reterr);
		r = r < 0 ? r : sync_file(q, reterr);
		r = r < 0 ? r : release_behind(q, end, reterr);
	}
	if (r == 0 && size == end) {
		r = set_last_bitmap(q, q->room_bitmap, reterr);
		r = r < 0 ? r : trim_file(q, q->room_file_bytes, reterr);
		q->has_room = false;
		q->room_flags = q->room_file_bytes = q->room_bitmap = 0;
	}
	q->trailing = r < 0 ? q->trailing : size - end;
	return r;
}

struct gclk_io gclk_qcow2_vm_state(struct gclk_qcow2 *q)
{
	return (struct gclk_io){
		.ctx = q,
		.read = vm_state_read,
		.write = vm_state_write,
		.sync = vm_state_sync,
		.resize = vm_state_resize,
		.size = vm_state_size,
	};
}
