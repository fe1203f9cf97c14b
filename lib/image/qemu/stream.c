/* SPDX-License-Identifier: MIT */
/*
 * Reading order: the table of units at step(), then the units from top to bottom,
 * then the tail, then gclk_stream_push().
 *
 * Not read: postcopy, mapped-ram, RDMA, COLO, TLS. Each is named when it shows.
 *
 * The grammar, all integers big-endian:
 *
 *	stream   = "QEVM" be32(3) [config] { command | section } 04... 00 06 vmdesc
 *	config   = 07 be32 name { 05 u8 name be32(version) contents }
 *	command  = 08 be16(number) be16(length) data
 *	section  = 01 be32(id) u8 name be32(instance) be32(version) payload [footer]
 *	         | 02 be32(id) payload [footer]  |  03 be32(id) payload [footer]
 *	         | 04 ... as 01, of a device, during setup ("early")
 *	footer   = 7e be32(id)
 *
 * Payloads have no length: the four kinds of iterable that exist on x86 are read
 * record by record, others are refused. The parser is a set of units; each says
 * how many bytes it wants to see, is shown them in one piece, and says how many of
 * them it used. Bytes that nobody needs to see are skipped by count.
 *
 * The tail begins at the first 04 after every iterable has ended. Device payloads
 * have no length either; only the vmdesc at the very end tells, and nothing but
 * its own fit tells where it begins. So every position that holds 00 06 be32 '{'
 * is a candidate; when its be32 bytes are there they are read as a description,
 * and it is the one if the sections that it describes end exactly at the 00.
 * Candidates are looked at in the order in which they complete, so that the
 * result does not depend on how the bytes were cut into pieces.
 */
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/util.h"
#include "image/qemu/stream.h"
#include "image/qemu/tail.h"

#define MAX_ITERABLES 256
#define MAX_BLOCKS 4096
#define MAX_CANDIDATES 64
#define MAX_BODY 8192			/* of a page record that somebody wants to see */
#define MAX_CAPABILITIES 64
#define MAX_DESCRIPTION_WORK (4ull * GCLK_VMDESC_MAX_BYTES)
#define RAM_PAGE UINT64_C(4096)
#define BLOCK_CHUNK (UINT64_C(1) << 20)	/* of the old disk migration */
#define EARLY_SECTION "virtio-mem-device-early"

enum element {
	ELEMENT_EOF, ELEMENT_START, ELEMENT_PART, ELEMENT_END, ELEMENT_FULL,
	ELEMENT_SUBSECTION, ELEMENT_VMDESC, ELEMENT_CONFIG, ELEMENT_COMMAND,
	ELEMENT_FOOTER = 0x7e,
};

#define VFIO_END UINT64_C(0xffffffffef100001)
#define VFIO_CONFIG UINT64_C(0xffffffffef100002)
#define VFIO_SETUP UINT64_C(0xffffffffef100003)
#define VFIO_DATA UINT64_C(0xffffffffef100004)
#define VFIO_INIT_DATA_SENT UINT64_C(0xffffffffef100005)

enum iterable_kind { KIND_RAM, KIND_DIRTY_BITMAP, KIND_BLOCK, KIND_VFIO };

struct iterable {
	uint32_t id;
	enum iterable_kind kind;
	bool ended;
	char name[256];
};

enum unit {
	UNIT_MAGIC, UNIT_VERSION,
	UNIT_ELEMENT,
	UNIT_CONFIG, UNIT_CONFIG_NAME, UNIT_CONFIG_NEXT, UNIT_CONFIG_SUBSECTION,
	UNIT_CONFIG_SUBSECTION_NAME, UNIT_PAGE_BITS, UNIT_UUID, UNIT_CAPABILITIES,
	UNIT_CAPABILITY, UNIT_CAPABILITY_NAME,
	UNIT_COMMAND, UNIT_ADVISE,
	UNIT_SECTION, UNIT_SECTION_NAME, UNIT_SECTION_ID, UNIT_FOOTER,
	UNIT_EARLY,
	UNIT_RAM, UNIT_RAM_BLOCK, UNIT_RAM_BLOCK_NAME, UNIT_RAM_XBZRLE, UNIT_RAM_ZLIB,
	UNIT_RAM_BODY,
	UNIT_LIST, UNIT_LIST_NAME, UNIT_LIST_WORD, UNIT_LIST_DECIDE, UNIT_LIST_PAGE_SIZE,
	UNIT_LIST_ADDRESS,
	UNIT_BITMAP, UNIT_BITMAP_NAME, UNIT_BITMAP_BITS, UNIT_BITMAP_SIZE,
	UNIT_BLOCK, UNIT_BLOCK_NAME,
	UNIT_VFIO, UNIT_VFIO_SIZE, UNIT_VFIO_SCAN,
	UNIT_TAIL, UNIT_DONE, UNIT_FAILED,
};

struct candidate { size_t at, end; };

struct gclk_stream {
	/* The unit that comes next, how many bytes it wants to see, and what part of
	 * them came with earlier pushes. */
	enum unit unit;
	size_t need;
	uint64_t skip;			/* bytes to go over before that */
	size_t n_scratch;
	uint8_t scratch[MAX_BODY];
	uint64_t offset;		/* in the stream, of the first byte not used */

	struct gclk_error error;	/* of UNIT_FAILED */
	const char *where;		/* what is being read, for messages */
	struct gclk_ram_visitor ram;

	struct gclk_stream_head head;
	size_t max_blocks;
	uint64_t advised_page_sizes;	/* of POSTCOPY_ADVISE, or 0 */
	bool footers_known;
	uint32_t n_capabilities;
	bool ram_set_up, any_ended;

	struct iterable *iterables;
	size_t n_iterables;
	struct iterable *current;	/* of the section being read, or NULL */
	enum element section_type;
	uint32_t section_id;
	char section_name[256];

	/* The section `ram`. */
	uint64_t list_left;		/* bytes of blocks not yet listed */
	uint64_t list_word;
	bool has_list;
	size_t block;			/* number of the current block + 1, or 0 */
	uint64_t page;			/* offset in it of the record being read */
	enum gclk_ram_kind kind;

	/* The section `dirty-bitmap`. */
	uint32_t bitmap_flags, bitmap_names;
	bool block_has_data;		/* the section `block`: 1 MiB follows the name */

	/* The tail. */
	uint8_t *tail;
	size_t n_tail, max_tail, tail_limit;
	uint64_t tail_offset;
	size_t scan;			/* no candidate begins before this */
	size_t n_candidates;
	struct candidate candidates[MAX_CANDIDATES];
	uint64_t description_work;
	struct gclk_error no_fit;	/* why the last candidate was not it */
	struct gclk_vmdesc *desc;
	size_t sections_size;
};

#define FAIL(s, status, ...) \
	gclk_fail(&(s)->error, status, (s)->where, (s)->offset, __VA_ARGS__)

static void go(struct gclk_stream *s, enum unit unit, size_t need)
{
	s->unit = unit;
	s->need = need;
}

static void next_element(struct gclk_stream *s)
{
	s->current = NULL;
	s->where = NULL;
	go(s, UNIT_ELEMENT, 1);
}

/* Names are shown to people and compared; QEMU makes them of printable ASCII. */
static int copy_name(struct gclk_stream *s, char *to, const uint8_t *name, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (name[i] < 0x20 || name[i] > 0x7e) {
			return FAIL(s, GCLK_MALFORMED, "a name with byte 0x%02x in it",
				    name[i]);
		}
	}
	memcpy(to, name, n);
	to[n] = 0;
	return 0;
}

static const char *base_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* --- header and configuration --- */

static int read_magic(struct gclk_stream *s, const uint8_t *p)
{
	uint32_t magic = gclk_get_be32(p);

	s->where = "header";
	if (magic == 0x11223344) {
		return FAIL(s, GCLK_UNSUPPORTED, "this is a side channel of a multifd "
			    "migration; the clocks are in its main channel");
	}
	if (p[0] == 0x16 && p[1] == 0x03) {
		return FAIL(s, GCLK_UNSUPPORTED,
			    "the stream is encrypted by QEMU's own TLS");
	}
	if (magic != 0x5145564d) {
		return FAIL(s, GCLK_MALFORMED,
			    "not a QEMU migration stream: it begins with "
			    "0x%08x, not with QEVM",
			    magic);
	}
	go(s, UNIT_VERSION, 5);
	return 4;
}

/* Looks one byte ahead: only here a configuration may begin. */
static int read_version(struct gclk_stream *s, const uint8_t *p)
{
	uint32_t version = gclk_get_be32(p);

	if (version != 3) {
		return FAIL(s, GCLK_VERSION, "a stream of version %u; 3 can be read",
			    version);
	}
	next_element(s);
	if (p[4] == ELEMENT_CONFIG) {
		s->where = "configuration";
		go(s, UNIT_CONFIG, 5);
	}
	return 4;
}

static int read_config(struct gclk_stream *s, const uint8_t *p)
{
	uint32_t n = gclk_get_be32(p + 1);

	if (n == 0 || n >= sizeof(s->head.machine)) {
		return FAIL(s, GCLK_MALFORMED, "a machine name of %u bytes", n);
	}
	s->head.has_configuration = true;
	go(s, UNIT_CONFIG_NAME, n);
	return 5;
}

static int read_config_name(struct gclk_stream *s, const uint8_t *p)
{
	int r = copy_name(s, s->head.machine, p, s->need);

	if (r < 0) {
		return r;
	}
	r = (int)s->need;
	go(s, UNIT_CONFIG_NEXT, 1);
	return r;
}

static int read_config_next(struct gclk_stream *s, const uint8_t *p)
{
	if (p[0] == ELEMENT_SUBSECTION) {
		go(s, UNIT_CONFIG_SUBSECTION, 2);
	} else {
		next_element(s);
	}
	return 0;
}

static int read_config_subsection(struct gclk_stream *s, const uint8_t *p)
{
	go(s, UNIT_CONFIG_SUBSECTION_NAME, p[1] + 4u);
	return 2;
}

static int read_config_subsection_name(struct gclk_stream *s, const uint8_t *p)
{
	size_t n = s->need - 4;
	int r = copy_name(s, s->section_name, p, n);

	if (r < 0) {
		return r;
	}
	if (gclk_get_be32(p + n) != 1) {
		return FAIL(s, GCLK_VERSION,
			    "subsection '%s' in version %u; 1 can be read",
			    s->section_name, gclk_get_be32(p + n));
	}
	if (!strcmp(s->section_name, "configuration/target-page-bits")) {
		go(s, UNIT_PAGE_BITS, 4);
	} else if (!strcmp(s->section_name, "configuration/uuid")) {
		go(s, UNIT_UUID, 16);
	} else if (!strcmp(s->section_name, "configuration/capabilities")) {
		go(s, UNIT_CAPABILITIES, 4);
	} else {
		return FAIL(s, GCLK_UNSUPPORTED, "subsection '%s' is not known",
			    s->section_name);
	}
	return (int)(n + 4);
}

static int read_page_bits(struct gclk_stream *s, const uint8_t *p)
{
	if (gclk_get_be32(p) != 12) {
		return FAIL(s, GCLK_UNSUPPORTED,
			    "guest pages of 2^%u bytes; x86 has 2^12", gclk_get_be32(p));
	}
	go(s, UNIT_CONFIG_NEXT, 1);
	return 4;
}

static int read_uuid(struct gclk_stream *s, const uint8_t *p)
{
	memcpy(s->head.uuid, p, sizeof(s->head.uuid));
	s->head.has_uuid = true;
	go(s, UNIT_CONFIG_NEXT, 1);
	return 16;
}

static void next_capability(struct gclk_stream *s)
{
	if (s->n_capabilities) {
		s->n_capabilities--;
		go(s, UNIT_CAPABILITY, 1);
	} else {
		go(s, UNIT_CONFIG_NEXT, 1);
	}
}

static int read_capabilities(struct gclk_stream *s, const uint8_t *p)
{
	s->n_capabilities = gclk_get_be32(p);
	if (s->n_capabilities > MAX_CAPABILITIES) {
		return FAIL(s, GCLK_MALFORMED, "%u capabilities", s->n_capabilities);
	}
	next_capability(s);
	return 4;
}

static int read_capability(struct gclk_stream *s, const uint8_t *p)
{
	if (p[0] == 0) {
		return FAIL(s, GCLK_MALFORMED, "a capability without a name");
	}
	go(s, UNIT_CAPABILITY_NAME, p[0]);
	return 1;
}

static int read_capability_name(struct gclk_stream *s, const uint8_t *p)
{
	int n = (int)s->need;
	int r = copy_name(s, s->section_name, p, s->need);

	if (r < 0) {
		return r;
	}
	if (!strcmp(s->section_name, "mapped-ram")) {
		return FAIL(s, GCLK_UNSUPPORTED,
			    "the stream was written with the capability "
			    "mapped-ram");
	}
	if (strcmp(s->section_name, "x-ignore-shared")) {
		return FAIL(s, GCLK_UNSUPPORTED, "the capability '%s' is not known",
			    s->section_name);
	}
	s->head.ignore_shared = true;
	next_capability(s);
	return n;
}

/* --- commands --- */

static const struct command {
	const char *name;
	int length;			/* of the data; -1: any */
	const char *refused;		/* why */
} commands[] = {
	[1] = { "OPEN_RETURN_PATH", 0, NULL },
	[2] = { "PING", 4, NULL },
	[3] = { "POSTCOPY_ADVISE", -1, NULL },
	[4] = { "POSTCOPY_LISTEN", -1, "a postcopy migration" },
	[5] = { "POSTCOPY_RUN", -1, "a postcopy migration" },
	[6] = { "POSTCOPY_RAM_DISCARD", -1, "a postcopy migration" },
	[7] = { "PACKAGED", -1, "a postcopy migration" },
	[8] = { "ENABLE_COLO", -1, "COLO replication" },
	[9] = { "POSTCOPY_RESUME", -1, "a postcopy migration" },
	[10] = { "RECV_BITMAP", -1, "a postcopy migration" },
	[11] = { "SWITCHOVER_START", 0, NULL },
};

static int read_command(struct gclk_stream *s, const uint8_t *p)
{
	unsigned number = gclk_get_be16(p + 1), length = gclk_get_be16(p + 3);
	const struct command *c =
		number < GCLK_COUNT(commands) ? &commands[number] : NULL;

	s->where = "command";
	if (!c || !c->name) {
		return FAIL(s, GCLK_UNSUPPORTED, "command %u is not known", number);
	}
	if (c->refused) {
		return FAIL(s, GCLK_UNSUPPORTED, "%s (command %s)", c->refused, c->name);
	}
	if (number == 3 ? length != 0 && length != 16 : (int)length != c->length) {
		return FAIL(s, GCLK_MALFORMED, "%u bytes of data for command %s", length,
			    c->name);
	}
	next_element(s);
	s->head.return_path |= number == 1;
	s->head.postcopy_advised |= number == 3;
	if (length == 16) {
		go(s, UNIT_ADVISE, 16);
	} else {
		s->skip = length;
	}
	return 5;
}

static int read_advise(struct gclk_stream *s, const uint8_t *p)
{
	s->advised_page_sizes = gclk_get_be64(p);
	next_element(s);
	return 16;
}

/* --- sections and their frames --- */

static struct iterable *find_iterable(struct gclk_stream *s, uint32_t id)
{
	for (size_t i = 0; i < s->n_iterables; i++) {
		if (s->iterables[i].id == id) {
			return &s->iterables[i];
		}
	}
	return NULL;
}

static bool iterables_ended(const struct gclk_stream *s)
{
	for (size_t i = 0; i < s->n_iterables; i++) {
		if (!s->iterables[i].ended) {
			return false;
		}
	}
	return s->n_iterables > 0;
}

static int read_element(struct gclk_stream *s, const uint8_t *p)
{
	switch (p[0]) {
	case ELEMENT_FULL:
		if (iterables_ended(s)) {
			s->tail_offset = s->offset;
			go(s, UNIT_TAIL, 0);
			return 0;
		}
		go(s, UNIT_SECTION, 6);
		return 0;
	case ELEMENT_START:
		go(s, UNIT_SECTION, 6);
		return 0;
	case ELEMENT_PART:
	case ELEMENT_END:
		go(s, UNIT_SECTION_ID, 5);
		return 0;
	case ELEMENT_COMMAND:
		go(s, UNIT_COMMAND, 5);
		return 0;
	case ELEMENT_EOF:
		return FAIL(s, GCLK_UNSUPPORTED,
			    "the state ends here, without any device");
	default:
		return FAIL(s, GCLK_MALFORMED,
			    "a stream element of type 0x%02x, which cannot "
			    "stand here",
			    p[0]);
	}
}

static int read_section(struct gclk_stream *s, const uint8_t *p)
{
	s->section_type = (enum element)p[0];
	s->section_id = gclk_get_be32(p + 1);
	if (p[5] == 0) {
		return FAIL(s, GCLK_MALFORMED, "a section without a name");
	}
	go(s, UNIT_SECTION_NAME, p[5] + 8u);
	return 6;
}

static int begin_payload(struct gclk_stream *s)
{
	switch (s->current->kind) {
	case KIND_RAM:
		go(s, UNIT_RAM, 8);
		break;
	case KIND_DIRTY_BITMAP:
		go(s, UNIT_BITMAP, 1);
		break;
	case KIND_BLOCK:
		go(s, UNIT_BLOCK, 8);
		break;
	case KIND_VFIO:
		go(s, UNIT_VFIO, 8);
		break;
	}
	s->where = s->current->name;
	return 0;
}

/* A device section in the middle of the setup: its length must be known here. */
static int begin_early(struct gclk_stream *s, uint32_t version)
{
	if (!strcmp(base_of(s->section_name), EARLY_SECTION)) {
		if (version != 1) {
			return FAIL(s, GCLK_VERSION, "version %u; 1 can be read",
				    version);
		}
		go(s, UNIT_EARLY, 36);
		return 0;
	}
	if (!s->n_iterables && !s->head.has_configuration) {
		return FAIL(s, GCLK_UNSUPPORTED,
			    "device state alone, as xen-save-devices-state "
			    "writes it: no configuration, no RAM, no description");
	}
	return FAIL(s, GCLK_UNSUPPORTED, "the device '%s' comes before the RAM has ended",
		    s->section_name);
}

static const struct kind {
	const char *name;
	bool is_base;			/* a PCI path stands before the name */
	uint32_t version;
	enum iterable_kind kind;
} kinds[] = {
	{ "ram", false, 4, KIND_RAM },
	{ "dirty-bitmap", false, 1, KIND_DIRTY_BITMAP },
	{ "block", false, 1, KIND_BLOCK },
	{ "vfio", true, 1, KIND_VFIO },
};

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < GCLK_COUNT(kinds); i++) {
		if (!strcmp(kinds[i].is_base ? base_of(name) : name, kinds[i].name)) {
			return &kinds[i];
		}
	}
	return NULL;
}

static int begin_iterable(struct gclk_stream *s, uint32_t version)
{
	const struct kind *kind = find_kind(s->section_name);
	struct iterable *it;

	if (!kind) {
		return FAIL(s, GCLK_UNSUPPORTED,
			    "the iterable section '%s' is not known, and "
			    "so is its length",
			    s->section_name);
	}
	if (version != kind->version) {
		return FAIL(s, GCLK_VERSION, "section '%s' in version %u; %u can be read",
			    s->section_name, version, kind->version);
	}
	if (find_iterable(s, s->section_id)) {
		return FAIL(s, GCLK_MALFORMED, "section number %u begins twice",
			    s->section_id);
	}
	if (s->n_iterables == MAX_ITERABLES) {
		return FAIL(s, GCLK_UNSUPPORTED, "more than %u iterable sections",
			    MAX_ITERABLES);
	}
	it = realloc(s->iterables, (s->n_iterables + 1) * sizeof(*it));
	if (!it) {
		return FAIL(s, GCLK_NOMEM, "no memory");
	}
	s->iterables = it;
	s->head.one_way |= !s->n_iterables && !s->head.return_path;
	s->current = &it[s->n_iterables++];
	*s->current = (struct iterable){ .id = s->section_id, .kind = kind->kind };
	memcpy(s->current->name, s->section_name, sizeof(s->section_name));
	return begin_payload(s);
}

static int read_section_name(struct gclk_stream *s, const uint8_t *p)
{
	size_t n = s->need - 8;
	uint32_t version = gclk_get_be32(p + n + 4);
	int r = copy_name(s, s->section_name, p, n);

	if (r < 0) {
		return r;
	}
	s->where = s->section_name;
	r = s->section_type == ELEMENT_FULL ? begin_early(s, version) :
	    begin_iterable(s, version);
	return r < 0 ? r : (int)(n + 8);
}

static int read_section_id(struct gclk_stream *s, const uint8_t *p)
{
	struct iterable *it = find_iterable(s, gclk_get_be32(p + 1));

	if (!it || it->ended) {
		return FAIL(s, GCLK_MALFORMED, "a part of section number %u, which %s",
			    gclk_get_be32(p + 1), it ? "has ended" : "never began");
	}
	s->section_type = (enum element)p[0];
	s->section_id = it->id;
	s->current = it;
	s->any_ended |= p[0] == ELEMENT_END;
	begin_payload(s);
	return 5;
}

static void section_ended(struct gclk_stream *s)
{
	if (s->current) {
		s->current->ended = s->section_type == ELEMENT_END;
		s->ram_set_up |= s->current->kind == KIND_RAM;
	}
	next_element(s);
}

/* A payload ended. Whether there are footers shows once, behind the first one. */
static void end_payload(struct gclk_stream *s)
{
	if (!s->footers_known) {
		go(s, UNIT_FOOTER, 1);
	} else if (s->head.has_footers) {
		go(s, UNIT_FOOTER, 5);
	} else {
		section_ended(s);
	}
}

static int read_footer(struct gclk_stream *s, const uint8_t *p)
{
	if (!s->footers_known) {
		s->footers_known = true;
		s->head.has_footers = p[0] == ELEMENT_FOOTER;
		end_payload(s);
		return 0;
	}
	if (p[0] != ELEMENT_FOOTER || gclk_get_be32(p + 1) != s->section_id) {
		return FAIL(s, GCLK_MALFORMED, "section number %u should end here, found "
			    "%02x %08x", s->section_id, p[0], gclk_get_be32(p + 1));
	}
	section_ended(s);
	return 5;
}

/*
 * virtio-mem-device-early: u64 address, region size, block size, u32 node, u64 plugged
 * size, then one bit per block in be64 words.
 */
static int read_early(struct gclk_stream *s, const uint8_t *p)
{
	uint64_t region = gclk_get_be64(p + 8), block = gclk_get_be64(p + 16);

	if (block == 0 || region / block > UINT64_C(1) << 40) {
		return FAIL(s, GCLK_MALFORMED,
			    "a region of 0x%llx bytes in blocks of 0x%llx",
			    (unsigned long long)region, (unsigned long long)block);
	}
	s->skip = (region / block + 63) / 64 * 8;
	end_payload(s);
	return 36;
}

/* --- ram --- */

static int page_record(struct gclk_stream *s, size_t n)
{
	const struct gclk_ram_visitor *v = &s->ram;

	if (v->want && v->want(v->ctx, s->head.blocks[s->block - 1].name, s->page)) {
		go(s, UNIT_RAM_BODY, n);
	} else {
		s->skip = n;
		go(s, UNIT_RAM, 8);
	}
	return 0;
}

static int read_ram_body(struct gclk_stream *s, const uint8_t *p)
{
	struct gclk_ram_record record = {
		.kind = s->kind,
		.block = s->head.blocks[s->block - 1].name,
		.offset = s->page,
		.bytes = p,
		.n = s->need,
	};
	int n = (int)s->need;
	int r = s->ram.record(s->ram.ctx, &record, &s->error);

	if (r < 0) {
		if (!s->error.status) {
			FAIL(s, (enum gclk_status)-r, "a page could not be used");
		}
		s->error.offset = s->offset;
		return r;
	}
	go(s, UNIT_RAM, 8);
	return n;
}

/* The block of a record is known: check the place, go on to its bytes. */
static int begin_page(struct gclk_stream *s)
{
	const struct gclk_stream_block *block = &s->head.blocks[s->block - 1];

	if (s->page >= block->length) {
		return FAIL(s, GCLK_MALFORMED,
			    "a page at 0x%llx of block '%s', which has "
			    "0x%llx bytes",
			    (unsigned long long)s->page, block->name,
			    (unsigned long long)block->length);
	}
	switch (s->kind) {
	case GCLK_RAM_ZERO:
		return page_record(s, 1);
	case GCLK_RAM_PAGE:
		return page_record(s, RAM_PAGE);
	case GCLK_RAM_XBZRLE:
		go(s, UNIT_RAM_XBZRLE, 3);
		return 0;
	case GCLK_RAM_ZLIB:
		go(s, UNIT_RAM_ZLIB, 4);
		return 0;
	}
	return 0;
}

static int read_ram_xbzrle(struct gclk_stream *s, const uint8_t *p)
{
	unsigned n = gclk_get_be16(p + 1);

	if (p[0] != 1 || n > RAM_PAGE) {
		return FAIL(s, p[0] != 1 ? GCLK_VERSION : GCLK_MALFORMED,
			    "an xbzrle record of encoding %u with %u bytes", p[0], n);
	}
	page_record(s, n);
	return 3;
}

static int read_ram_zlib(struct gclk_stream *s, const uint8_t *p)
{
	uint32_t n = gclk_get_be32(p);

	if (n == 0 || n > MAX_BODY) {
		return FAIL(s, GCLK_MALFORMED, "a compressed page of %u bytes", n);
	}
	page_record(s, n);
	return 4;
}

static int read_ram_block(struct gclk_stream *s, const uint8_t *p)
{
	if (p[0] == 0) {
		return FAIL(s, GCLK_MALFORMED, "a RAM block without a name");
	}
	go(s, UNIT_RAM_BLOCK_NAME, p[0]);
	return 1;
}

static int read_ram_block_name(struct gclk_stream *s, const uint8_t *p)
{
	int n = (int)s->need;
	int r;

	for (size_t i = 0; i < s->head.n_blocks; i++) {
		const char *name = s->head.blocks[i].name;

		if (strlen(name) == s->need && !memcmp(name, p, s->need)) {
			s->block = i + 1;
			r = begin_page(s);
			return r < 0 ? r : n;
		}
	}
	r = copy_name(s, s->section_name, p, s->need);
	return r < 0 ? r : FAIL(s, GCLK_MALFORMED, "a page of block '%s', which was not "
				"announced", s->section_name);
}

static int begin_list(struct gclk_stream *s, uint64_t total)
{
	if (s->section_type != ELEMENT_START || s->has_list) {
		return FAIL(s, GCLK_MALFORMED,
			    "the list of RAM blocks outside the setup");
	}
	s->has_list = true;
	s->list_left = total;
	if (total) {
		go(s, UNIT_LIST, 1);
	}
	return 8;
}

static int begin_page_record(struct gclk_stream *s, uint64_t word,
			     enum gclk_ram_kind kind)
{
	int r;

	s->kind = kind;
	s->page = word & ~(RAM_PAGE - 1);
	if (!(word & RAM_CONTINUE)) {
		go(s, UNIT_RAM_BLOCK, 1);
		return 8;
	}
	if (!s->block) {
		return FAIL(s, GCLK_MALFORMED,
			    "a page of the same block as before, but none "
			    "was before");
	}
	r = begin_page(s);
	return r < 0 ? r : 8;
}

static int read_ram(struct gclk_stream *s, const uint8_t *p)
{
	uint64_t word = gclk_get_be64(p);
	unsigned flags = (unsigned)(word & (RAM_PAGE - 1));

	if (flags & RAM_HOOK) {
		return FAIL(s, GCLK_UNSUPPORTED, "an RDMA migration (record flag HOOK)");
	}
	switch (flags & ~(unsigned)RAM_CONTINUE) {
	case RAM_ZERO:
		return begin_page_record(s, word, GCLK_RAM_ZERO);
	case RAM_PAGE_WHOLE:
		return begin_page_record(s, word, GCLK_RAM_PAGE);
	case RAM_XBZRLE:
		return begin_page_record(s, word, GCLK_RAM_XBZRLE);
	case RAM_ZLIB:
		return begin_page_record(s, word, GCLK_RAM_ZLIB);
	case RAM_MEM_SIZE:
		return begin_list(s, word & ~(RAM_PAGE - 1));
	case RAM_MULTIFD_FLUSH:
		return 8;
	case RAM_EOS:
		end_payload(s);
		return 8;
	default:
		return FAIL(s, GCLK_UNSUPPORTED, "a RAM record with flags 0x%03x", flags);
	}
}

/* --- ram: the list of blocks --- */

static int read_list(struct gclk_stream *s, const uint8_t *p)
{
	if (p[0] == 0) {
		return FAIL(s, GCLK_MALFORMED, "a RAM block without a name");
	}
	go(s, UNIT_LIST_NAME, p[0] + 8u);
	return 1;
}

static struct gclk_stream_block *new_block(struct gclk_stream *s)
{
	struct gclk_stream_block *blocks = s->head.blocks;

	if (s->head.n_blocks == s->max_blocks) {
		size_t max = s->max_blocks ? s->max_blocks * 2 : 16;

		blocks = realloc(blocks, max * sizeof(*blocks));
		if (!blocks) {
			return NULL;
		}
		s->max_blocks = max;
	}
	s->head.blocks = blocks;
	blocks += s->head.n_blocks++;
	*blocks = (struct gclk_stream_block){ .guest_address = UINT64_MAX };
	return blocks;
}

static void next_block(struct gclk_stream *s)
{
	if (s->list_left) {
		go(s, UNIT_LIST, 1);
	} else {
		go(s, UNIT_RAM, 8);
	}
}

/*
 * What follows a block's length? Its page size, where postcopy was advised with other
 * pages than 4 KiB, but only for a block of such pages; then its guest address,
 * with x-ignore-shared. Nothing says which, but they can be told apart: a name
 * begins with a length, 1..255; a record after the list is below 4096 and not 0;
 * page sizes and addresses are multiples of 4096 below 2^56.
 */
static int read_list_name(struct gclk_stream *s, const uint8_t *p)
{
	bool maybe_page_size = s->advised_page_sizes && s->advised_page_sizes != RAM_PAGE;
	size_t n = s->need - 8;
	uint64_t length = gclk_get_be64(p + n);
	struct gclk_stream_block *block;
	int r;

	if (s->head.n_blocks == MAX_BLOCKS) {
		return FAIL(s, GCLK_UNSUPPORTED, "more than %u RAM blocks", MAX_BLOCKS);
	}
	block = new_block(s);
	if (!block) {
		return FAIL(s, GCLK_NOMEM, "no memory");
	}
	r = copy_name(s, block->name, p, n);
	if (r < 0) {
		return r;
	}
	if (length > s->list_left) {
		return FAIL(s, GCLK_MALFORMED,
			    "RAM block '%s' of 0x%llx bytes, only 0x%llx "
			    "are left of the total",
			    block->name, (unsigned long long)length,
			    (unsigned long long)s->list_left);
	}
	block->length = length;
	s->list_left -= length;
	if (s->head.ignore_shared) {
		go(s, UNIT_LIST_WORD, 8);
	} else if (maybe_page_size) {
		go(s, UNIT_LIST_DECIDE, s->list_left ? 1 : 8);
	} else {
		next_block(s);
	}
	return (int)(n + 8);
}

/* With x-ignore-shared: an address, or a page size that an address follows. */
static int read_list_word(struct gclk_stream *s, const uint8_t *p)
{
	bool maybe_page_size = s->advised_page_sizes && s->advised_page_sizes != RAM_PAGE;

	s->list_word = gclk_get_be64(p);
	if (maybe_page_size && s->list_word) {
		go(s, UNIT_LIST_DECIDE, s->list_left ? 1 : 8);
	} else {
		s->head.blocks[s->head.n_blocks - 1].guest_address = s->list_word;
		next_block(s);
	}
	return 8;
}

/* Looks at what comes and uses nothing. */
static int read_list_decide(struct gclk_stream *s, const uint8_t *p)
{
	bool number = s->list_left ? p[0] == 0 :
		      gclk_get_be64(p) == 0 || gclk_get_be64(p) >= RAM_PAGE;
	struct gclk_stream_block *block = &s->head.blocks[s->head.n_blocks - 1];

	if (s->head.ignore_shared && number) {
		go(s, UNIT_LIST_ADDRESS, 8);
	} else if (number) {
		go(s, UNIT_LIST_PAGE_SIZE, 8);
	} else {
		if (s->head.ignore_shared) {
			block->guest_address = s->list_word;
		}
		next_block(s);
	}
	return 0;
}

static int set_page_size(struct gclk_stream *s, uint64_t size)
{
	if (size == 0 || size & (size - 1) || !(size & s->advised_page_sizes)) {
		return FAIL(s, GCLK_MALFORMED,
			    "a page size of 0x%llx, which was not advised",
			    (unsigned long long)size);
	}
	s->head.blocks[s->head.n_blocks - 1].page_size = size;
	next_block(s);
	return 8;
}

static int read_list_page_size(struct gclk_stream *s, const uint8_t *p)
{
	return set_page_size(s, gclk_get_be64(p));
}

static int read_list_address(struct gclk_stream *s, const uint8_t *p)
{
	s->head.blocks[s->head.n_blocks - 1].guest_address = gclk_get_be64(p);
	return set_page_size(s, s->list_word);
}

/* --- dirty-bitmap --- */

enum bitmap_flag {
	BITMAP_EOS = 0x01, BITMAP_ZEROES = 0x02, BITMAP_NAME = 0x04, BITMAP_NODE = 0x08,
	BITMAP_START = 0x10, BITMAP_COMPLETE = 0x20, BITMAP_BITS = 0x40,
};

/* After the flags come the names that they announce, then what the chunk is about. */
static int bitmap_next(struct gclk_stream *s)
{
	if (s->bitmap_names) {
		s->bitmap_names--;
		go(s, UNIT_BITMAP_NAME, 1);
		return 0;
	}
	go(s, UNIT_BITMAP, 1);
	switch (s->bitmap_flags &
		~(unsigned)(BITMAP_NAME | BITMAP_NODE | BITMAP_ZEROES)) {
	case BITMAP_EOS:
		end_payload(s);
		return 0;
	case BITMAP_START:
		s->skip += 4 + 1;	/* behind the last name */
		return 0;
	case BITMAP_COMPLETE:
		return 0;
	case BITMAP_BITS:
		go(s, UNIT_BITMAP_BITS, 12);
		return 0;
	default:
		return FAIL(s, GCLK_UNSUPPORTED, "a chunk with flags 0x%x",
			    s->bitmap_flags);
	}
}

/* One byte; with bit 7 set two of them, and four where the second has it too. */
static int read_bitmap(struct gclk_stream *s, const uint8_t *p)
{
	size_t n = !(p[0] & 0x80) ? 1 : s->need < 2 ? 2 : !(p[1] & 0x80) ? 2 : 4;
	uint32_t flags = p[0];
	int r;

	if (n > s->need) {
		go(s, UNIT_BITMAP, n);
		return 0;
	}
	if (n == 2) {
		flags = gclk_get_be16(p) & 0x7fff;
	} else if (n == 4) {
		flags = gclk_get_be32(p) & 0x7f7fffff;
	}
	s->bitmap_flags = flags;
	s->bitmap_names = !!(flags & BITMAP_NAME) + !!(flags & BITMAP_NODE);
	r = bitmap_next(s);
	return r < 0 ? r : (int)n;
}

static int read_bitmap_name(struct gclk_stream *s, const uint8_t *p)
{
	int r;

	s->skip = p[0];
	r = bitmap_next(s);
	return r < 0 ? r : 1;
}

static int read_bitmap_bits(struct gclk_stream *s, const uint8_t *p)
{
	(void)p;
	if (s->bitmap_flags & BITMAP_ZEROES) {
		go(s, UNIT_BITMAP, 1);
	} else {
		go(s, UNIT_BITMAP_SIZE, 8);
	}
	return 12;
}

static int read_bitmap_size(struct gclk_stream *s, const uint8_t *p)
{
	s->skip = gclk_get_be64(p);
	go(s, UNIT_BITMAP, 1);
	return 8;
}

/* --- block --- */

static int read_block(struct gclk_stream *s, const uint8_t *p)
{
	unsigned flags = (unsigned)(gclk_get_be64(p) & 0x1ff);

	switch (flags) {
	case 0x1:
	case 0x1 | 0x8:
		s->block_has_data = !(flags & 0x8);
		go(s, UNIT_BLOCK_NAME, 1);
		return 8;
	case 0x2:
		end_payload(s);
		return 8;
	case 0x4:
		return 8;
	default:
		return FAIL(s, GCLK_UNSUPPORTED, "a disk record with flags 0x%03x",
			    flags);
	}
}

static int read_block_name(struct gclk_stream *s, const uint8_t *p)
{
	s->skip = p[0] + (s->block_has_data ? BLOCK_CHUNK : 0);
	go(s, UNIT_BLOCK, 8);
	return 1;
}

/* --- vfio --- */

static int read_vfio(struct gclk_stream *s, const uint8_t *p)
{
	uint64_t word = gclk_get_be64(p);

	switch (word) {
	case VFIO_SETUP:
		return 8;
	case VFIO_DATA:
		go(s, UNIT_VFIO_SIZE, 8);
		return 8;
	case VFIO_END:
	case VFIO_INIT_DATA_SENT:	/* stands in the place of an END */
		end_payload(s);
		return 8;
	case VFIO_CONFIG:
		if (!s->footers_known || !s->head.has_footers) {
			return FAIL(s, GCLK_UNSUPPORTED,
				    "a vfio configuration in a stream "
				    "without footers: its end cannot be found");
		}
		go(s, UNIT_VFIO_SCAN, 13);
		return 8;
	default:
		return FAIL(s, GCLK_MALFORMED, "0x%016llx is no vfio tag",
			    (unsigned long long)word);
	}
}

static int read_vfio_size(struct gclk_stream *s, const uint8_t *p)
{
	s->skip = gclk_get_be64(p);
	go(s, UNIT_VFIO, 8);
	return 8;
}

/* A configuration has no length: it goes up to an END tag that a footer follows. */
static int read_vfio_scan(struct gclk_stream *s, const uint8_t *p)
{
	if (gclk_get_be64(p) != VFIO_END || p[8] != ELEMENT_FOOTER ||
	    gclk_get_be32(p + 9) != s->section_id) {
		return 1;
	}
	end_payload(s);
	return 8;
}

/* --- the units --- */

static const struct {
	int (*read)(struct gclk_stream *s, const uint8_t *p);
	const char *what;
} units[] = {
	[UNIT_MAGIC] = { read_magic, "the header" },
	[UNIT_VERSION] = { read_version, "the header" },
	[UNIT_ELEMENT] = { read_element, "the next section" },
	[UNIT_CONFIG] = { read_config, "the configuration" },
	[UNIT_CONFIG_NAME] = { read_config_name, "the machine name" },
	[UNIT_CONFIG_NEXT] = { read_config_next, "the configuration" },
	[UNIT_CONFIG_SUBSECTION] = { read_config_subsection, "the configuration" },
	[UNIT_CONFIG_SUBSECTION_NAME] = { read_config_subsection_name,
					  "the configuration" },
	[UNIT_PAGE_BITS] = { read_page_bits, "the configuration" },
	[UNIT_UUID] = { read_uuid, "the UUID" },
	[UNIT_CAPABILITIES] = { read_capabilities, "the capabilities" },
	[UNIT_CAPABILITY] = { read_capability, "the capabilities" },
	[UNIT_CAPABILITY_NAME] = { read_capability_name, "the capabilities" },
	[UNIT_COMMAND] = { read_command, "a command" },
	[UNIT_ADVISE] = { read_advise, "a command" },
	[UNIT_SECTION] = { read_section, "a section's header" },
	[UNIT_SECTION_NAME] = { read_section_name, "a section's header" },
	[UNIT_SECTION_ID] = { read_section_id, "a section's header" },
	[UNIT_FOOTER] = { read_footer, "a section's footer" },
	[UNIT_EARLY] = { read_early, "an early device section" },
	[UNIT_RAM] = { read_ram, "RAM" },
	[UNIT_RAM_BLOCK] = { read_ram_block, "RAM" },
	[UNIT_RAM_BLOCK_NAME] = { read_ram_block_name, "RAM" },
	[UNIT_RAM_XBZRLE] = { read_ram_xbzrle, "RAM" },
	[UNIT_RAM_ZLIB] = { read_ram_zlib, "RAM" },
	[UNIT_RAM_BODY] = { read_ram_body, "RAM" },
	[UNIT_LIST] = { read_list, "the list of RAM blocks" },
	[UNIT_LIST_NAME] = { read_list_name, "the list of RAM blocks" },
	[UNIT_LIST_WORD] = { read_list_word, "the list of RAM blocks" },
	[UNIT_LIST_DECIDE] = { read_list_decide, "the list of RAM blocks" },
	[UNIT_LIST_PAGE_SIZE] = { read_list_page_size, "the list of RAM blocks" },
	[UNIT_LIST_ADDRESS] = { read_list_address, "the list of RAM blocks" },
	[UNIT_BITMAP] = { read_bitmap, "a dirty bitmap" },
	[UNIT_BITMAP_NAME] = { read_bitmap_name, "a dirty bitmap" },
	[UNIT_BITMAP_BITS] = { read_bitmap_bits, "a dirty bitmap" },
	[UNIT_BITMAP_SIZE] = { read_bitmap_size, "a dirty bitmap" },
	[UNIT_BLOCK] = { read_block, "disk contents" },
	[UNIT_BLOCK_NAME] = { read_block_name, "disk contents" },
	[UNIT_VFIO] = { read_vfio, "vfio state" },
	[UNIT_VFIO_SIZE] = { read_vfio_size, "vfio state" },
	[UNIT_VFIO_SCAN] = { read_vfio_scan, "vfio state" },
	[UNIT_TAIL] = { NULL, "device state" },
	[UNIT_DONE] = { NULL, "nothing" },
	[UNIT_FAILED] = { NULL, "nothing" },
};

/* What is left of the bytes of a push. */
struct input { const uint8_t *p; size_t n; };

/* The bytes that the next unit wants to see, in one piece; NULL until they are there. */
static const uint8_t *gather(struct gclk_stream *s, struct input *in)
{
	size_t n;

	if (!s->n_scratch && in->n >= s->need) {
		return in->p;
	}
	if (s->n_scratch < s->need) {
		n = GCLK_MIN(s->need - s->n_scratch, in->n);
		if (n) {
			memcpy(s->scratch + s->n_scratch, in->p, n);
			s->n_scratch += n;
			in->p += n;
			in->n -= n;
		}
	}
	return s->n_scratch >= s->need ? s->scratch : NULL;
}

static void consume(struct gclk_stream *s, struct input *in, size_t n)
{
	if (s->n_scratch) {
		s->n_scratch -= n;
		memmove(s->scratch, s->scratch + n, s->n_scratch);
	} else {
		in->p += n;
		in->n -= n;
	}
	s->offset += n;
}

/* --- the tail --- */

static int tail_reserve(struct gclk_stream *s, size_t n)
{
	size_t max = s->max_tail ? s->max_tail : 64 << 10;
	uint8_t *tail;

	while (max < n) {
		max *= 2;
	}
	max = GCLK_MIN(max, s->tail_limit);
	if (max <= s->max_tail) {
		return 0;
	}
	tail = realloc(s->tail, max);
	if (!tail) {
		return FAIL(s, GCLK_NOMEM, "no memory for %zu bytes of device state",
			    max);
	}
	s->tail = tail;
	s->max_tail = max;
	return 0;
}

/* Bytes of a candidate before its text: 00 06 be32. */
enum { BEFORE_TEXT = 6 };

/* Whether a description may begin at @at, as far as the bytes around can tell. */
static bool is_candidate(const struct gclk_stream *s, size_t at)
{
	const uint8_t *p = s->tail + at;
	uint32_t length = gclk_get_be32(p + 2);

	return p[0] == ELEMENT_EOF && p[1] == ELEMENT_VMDESC &&
	       (p[BEFORE_TEXT] == '{' || p[BEFORE_TEXT] == '"') &&
	       length >= 2 && length <= GCLK_VMDESC_MAX_BYTES &&
	       (!s->head.has_footers || (at >= 5 && p[-5] == ELEMENT_FOOTER));
}

/* The next candidate's position from s->scan on; SIZE_MAX when there is none yet. */
static size_t next_candidate(struct gclk_stream *s)
{
	while (s->n_tail >= BEFORE_TEXT + 1 && s->scan <= s->n_tail - BEFORE_TEXT - 1) {
		size_t n = s->n_tail - BEFORE_TEXT - s->scan;	/* positions of the 00 */
		const uint8_t *p = memchr(s->tail + s->scan + 1, ELEMENT_VMDESC, n);

		if (!p) {
			s->scan += n;
			break;
		}
		s->scan = (size_t)(p - s->tail) - 1;
		if (is_candidate(s, s->scan)) {
			return s->scan;
		}
		s->scan++;
	}
	return SIZE_MAX;
}

static size_t first_to_end(const struct gclk_stream *s)
{
	size_t best = 0;

	for (size_t i = 1; i < s->n_candidates; i++) {
		if (s->candidates[i].end < s->candidates[best].end) {
			best = i;
		}
	}
	return best;
}

/* Whether @d begins with the section that the tail begins with. */
static bool is_about_this(const struct gclk_stream *s, const struct gclk_vmdesc *d)
{
	for (size_t i = 0; i < gclk_vmdesc_n_sections(d); i++) {
		const struct gclk_vmdesc_section *section = gclk_vmdesc_section(d, i);

		if (!section->early) {
			size_t n = strlen(section->name);

			return s->n_tail > 6 + n && s->tail[5] == n &&
			       !memcmp(s->tail + 6, section->name, n);
		}
	}
	return false;
}

/* Positions in errors count from the text or the tail; users see the stream's. */
static void shift_offset(struct gclk_error *error, uint64_t by)
{
	if (error->offset != GCLK_NO_OFFSET) {
		error->offset += by;
	}
}

static int too_many(struct gclk_stream *s, size_t at)
{
	return gclk_fail(&s->error, GCLK_UNSUPPORTED, "vmdesc", s->tail_offset + at,
			 "too many things that look like a device description");
}

/*
 * The bytes of a candidate are there. 1: it is the description; 0: it is something
 * that looks alike; negative: it is the description, and it is wrong.
 */
static int check_candidate(struct gclk_stream *s, const struct candidate *c)
{
	const uint8_t *text = s->tail + c->at + BEFORE_TEXT;
	size_t n = c->end - c->at - BEFORE_TEXT;
	struct gclk_vmdesc *d;
	bool ours;
	int r;

	s->description_work += n;
	if (s->description_work > MAX_DESCRIPTION_WORK) {
		return too_many(s, c->at);
	}
	r = gclk_vmdesc_parse(text, n, &d, &s->no_fit);
	if (r < 0) {
		shift_offset(&s->no_fit, s->tail_offset + c->at + BEFORE_TEXT);
		s->error = s->no_fit;
		return r == -GCLK_NOMEM ? r : 0;
	}
	r = gclk_vmdesc_tile(d, s->tail, c->at, s->head.has_footers, &s->no_fit);
	if (r == 0) {
		s->desc = d;
		s->sections_size = c->at;
		return 1;
	}
	shift_offset(&s->no_fit, s->tail_offset);
	ours = is_about_this(s, d);
	gclk_vmdesc_free(d);
	s->error = s->no_fit;
	return ours ? r : 0;
}

/* Looks at what the tail holds, event by event. 1: complete; 0: not yet. */
static int tail_scan(struct gclk_stream *s)
{
	for (;;) {
		size_t at = next_candidate(s);
		size_t i = first_to_end(s);
		struct candidate c;
		int r;

		if (s->n_candidates && s->candidates[i].end <= s->n_tail &&
		    (at == SIZE_MAX || s->candidates[i].end <= at + BEFORE_TEXT + 1)) {
			c = s->candidates[i];
			s->candidates[i] = s->candidates[--s->n_candidates];
			r = check_candidate(s, &c);
			if (r > 0) {
				s->n_tail = c.end;
			}
			if (r) {
				return r;
			}
			continue;
		}
		if (at == SIZE_MAX) {
			return 0;
		}
		if (s->n_candidates == MAX_CANDIDATES) {
			return too_many(s, at);
		}
		c.at = at;
		c.end = at + BEFORE_TEXT + gclk_get_be32(s->tail + at + 2);
		s->candidates[s->n_candidates++] = c;
		s->scan++;
	}
}

/* Holds the rest of a push. */
static int tail_push(struct gclk_stream *s, struct input *in)
{
	size_t before = s->n_tail;
	size_t n = GCLK_MIN(in->n, s->tail_limit - before);
	int r = tail_reserve(s, before + n);

	if (r < 0) {
		return r;
	}
	if (n) {
		memcpy(s->tail + before, in->p, n);
	}
	s->n_tail += n;
	r = tail_scan(s);
	s->offset = s->tail_offset + s->n_tail;
	if (r < 0) {
		s->n_tail = before;
		return r;
	}
	if (r == 0 && n < in->n) {
		s->n_tail = before;
		return gclk_fail(&s->error, GCLK_UNSUPPORTED, "vmdesc",
				 s->tail_offset + s->tail_limit,
				 "more than %zu bytes of device "
				 "state without a description that fits them",
				 s->tail_limit);
	}
	n = s->n_tail - before;
	in->p += n;
	in->n -= n;
	if (r > 0) {
		go(s, UNIT_DONE, 0);
	}
	return 0;
}

/* --- pushing --- */

/* What a migration mostly consists of, without the ceremony; the units have all the rest. */
static void go_over_pages(struct gclk_stream *s, struct input *in)
{
	struct gclk_grant grant;

	gclk_stream_grant(s, &grant);
	consume(s, in, gclk_grant_use(&grant, in->p, in->n));
	s->skip = grant.rest;
}

/* One step: over bytes, or through a unit. 1: made progress; 0: more bytes needed. */
static int step(struct gclk_stream *s, struct input *in)
{
	const uint8_t *p;
	size_t n;
	int r;

	if (s->skip) {
		n = (size_t)GCLK_MIN(s->skip, (uint64_t)in->n);
		s->skip -= n;
		consume(s, in, n);
		return s->skip == 0;
	}
	if (s->unit == UNIT_RAM && !s->n_scratch) {
		go_over_pages(s, in);
	}
	p = gather(s, in);
	if (!p) {
		return 0;
	}
	r = units[s->unit].read(s, p);
	if (r >= 0) {
		consume(s, in, (size_t)r);
	}
	return r < 0 ? r : 1;
}

static int fail(struct gclk_stream *s, struct gclk_error *reterr)
{
	if (s->unit != UNIT_FAILED) {
		go(s, UNIT_FAILED, 0);
	}
	if (reterr) {
		*reterr = s->error;
	}
	return -s->error.status;
}

int gclk_stream_push(struct gclk_stream *s, const void *bytes, size_t n,
		     struct gclk_stream_taken *ret, struct gclk_error *reterr)
{
	struct input in = { bytes, n };
	size_t before = s->n_tail;
	int r = 1;

	if (s->unit == UNIT_FAILED) {
		return fail(s, reterr);
	}
	while (r > 0 && s->unit != UNIT_TAIL && s->unit != UNIT_DONE) {
		r = step(s, &in);
	}
	if (r >= 0 && s->unit == UNIT_TAIL) {
		r = tail_push(s, &in);
	}
	if (r < 0) {
		return fail(s, reterr);
	}
	ret->held = s->n_tail - before;
	ret->passed = n - in.n - ret->held;
	return s->unit == UNIT_DONE ? 0 : GCLK_STREAM_MORE;
}

void gclk_stream_grant(const struct gclk_stream *s, struct gclk_grant *ret)
{
	*ret = (struct gclk_grant){ 0 };
	if (s->n_scratch || s->unit == UNIT_FAILED) {
		return;
	}
	ret->rest = s->skip;
	if (s->unit == UNIT_RAM && s->block && (!s->ram.want || s->ram.watch)) {
		ret->below = s->head.blocks[s->block - 1].length;
		ret->watch = s->ram.want ? s->ram.watch : NULL;
	}
}

void gclk_stream_went(struct gclk_stream *s, uint64_t n, uint64_t rest)
{
	s->offset += n;
	s->skip = rest;
}

/* Whether the last byte held may be the EOF of the state. */
static bool tail_looks_whole(const struct gclk_stream *s)
{
	const uint8_t *end = s->tail + s->n_tail;

	return s->n_tail > 6 && end[-1] == ELEMENT_EOF &&
	       (!s->head.has_footers || end[-6] == ELEMENT_FOOTER);
}

int gclk_stream_end(struct gclk_stream *s, struct gclk_error *reterr)
{
	if (s->unit == UNIT_DONE) {
		return 0;
	}
	if (s->unit == UNIT_FAILED) {
		return fail(s, reterr);
	}
	if (s->unit != UNIT_TAIL) {
		return gclk_fail(reterr, GCLK_TRUNCATED, s->where, gclk_stream_offset(s),
				 "the stream ends in the middle of %s",
				 units[s->unit].what);
	}
	if (s->n_candidates) {
		return gclk_fail(
			reterr, GCLK_TRUNCATED, "vmdesc", gclk_stream_offset(s),
			"the stream ends in the middle of the device description");
	}
	if (s->no_fit.status) {
		if (reterr) {
			*reterr = s->no_fit;
		}
		return -s->no_fit.status;
	}
	if (tail_looks_whole(s)) {
		return gclk_fail(
			reterr, GCLK_UNSUPPORTED, "vmdesc", gclk_stream_offset(s),
			"no device description follows the device state: the machine "
			"type does not send one, or it was suppressed");
	}
	return gclk_fail(
		reterr, GCLK_TRUNCATED, "vmdesc", gclk_stream_offset(s),
		"the stream ends in the middle of the device state, which begins at "
		"%llu",
		(unsigned long long)s->tail_offset);
}

/* --- the object --- */

int gclk_stream_new(const struct gclk_stream_options *options, struct gclk_stream **ret,
		    struct gclk_error *reterr)
{
	struct gclk_stream *s = calloc(1, sizeof(*s));

	if (!s) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	s->tail_limit = GCLK_STREAM_TAIL_BYTES;
	if (options) {
		s->ram = options->ram;
		if (options->tail_bytes) {
			s->tail_limit = GCLK_MIN(options->tail_bytes, (size_t)INT32_MAX);
		}
	}
	go(s, UNIT_MAGIC, 4);
	*ret = s;
	return 0;
}

struct gclk_stream *gclk_stream_free(struct gclk_stream *s)
{
	if (s) {
		free(s->head.blocks);
		free(s->iterables);
		free(s->tail);
		gclk_vmdesc_free(s->desc);
		free(s);
	}
	return NULL;
}

enum gclk_stream_phase gclk_stream_phase(const struct gclk_stream *s)
{
	switch (s->unit) {
	case UNIT_FAILED:
		return GCLK_STREAM_FAILED;
	case UNIT_DONE:
		return GCLK_STREAM_DONE;
	case UNIT_TAIL:
		return GCLK_STREAM_DEVICES;
	default:
		return s->any_ended ? GCLK_STREAM_FINAL :
		       s->ram_set_up ? GCLK_STREAM_ROUNDS :
		       s->n_iterables ? GCLK_STREAM_SETUP : GCLK_STREAM_HEAD;
	}
}

uint64_t gclk_stream_offset(const struct gclk_stream *s)
{
	return s->offset + s->n_scratch;
}

const struct gclk_stream_head *gclk_stream_head(const struct gclk_stream *s)
{
	return &s->head;
}

const uint8_t *gclk_stream_held(const struct gclk_stream *s, size_t *ret_n)
{
	*ret_n = s->n_tail;
	return s->tail;
}

void gclk_stream_take_head(struct gclk_stream *s, struct gclk_stream_head *ret)
{
	*ret = s->head;
	s->max_blocks = 0;
	s->head.blocks = NULL;
	s->head.n_blocks = 0;
	s->block = 0;
}

int gclk_stream_take_tail(struct gclk_stream *s, struct gclk_tail **ret,
			  struct gclk_error *reterr)
{
	struct gclk_tail *tail;

	if (s->unit != UNIT_DONE || !s->desc) {
		return gclk_fail(reterr, GCLK_STATE, NULL, gclk_stream_offset(s),
				 "the device state is not complete, or was taken before");
	}
	tail = calloc(1, sizeof(*tail));
	if (!tail) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	tail->bytes = s->tail;
	tail->size = s->n_tail;
	tail->offset = s->tail_offset;
	tail->sections_size = s->sections_size;
	tail->desc = s->desc;
	tail->walked = true;
	gclk_stream_take_head(s, &tail->head);
	s->tail = NULL;
	s->n_tail = 0;
	s->desc = NULL;
	*ret = tail;
	return 0;
}
