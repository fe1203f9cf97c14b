/* SPDX-License-Identifier: MIT */
/*
 * The model is one array of nodes, children linked by index, with names as
 * offsets into a private copy of the JSON text: a 100 KiB description becomes
 * about 1500 nodes of 40 bytes.
 *
 * How bytes follow from the description:
 *   (V1) payload = fields in order, each size x (array_len or 1), then subsections
 *   (V2) a subsection = 05, u8 length, name, be32 version, then as (V1)
 *   (V3) a struct's size is that of one element, its own subsections included
 *   (V4) section = 04, be32 id, u8 length, name, be32 instance, be32 version,
 *        payload, and with footers 7e, be32 id
 * Nothing is guessed: where (V1)..(V4) do not meet the bytes to the last one, the
 * description is refused.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/util.h"
#include "image/qemu/json.h"
#include "image/qemu/vmdesc.h"

#define EARLY_SECTION "virtio-mem-device-early"

enum { SUBSECTION_HEADER = 1 + 1 + 4, SECTION_HEADER = 1 + 4 + 1 + 4 + 4, FOOTER = 5 };

/*
 * Elements that a walk of all sections may meet: arrays of structs of nothing would go on
 * for ever.
 */
#define MAX_ELEMENTS (8u << 20)

/*
 * @name, @type: offsets in the text
 * @size:	of one element; of a subsection without its header
 * @first:	index of the first element: given, or counted over equal names
 * @offset:	from the start of what contains it (element, subsection, payload)
 * @next, @child: node numbers; 0 ends
 * @version:	of subsections
 * @elements:	in all that it stands for, itself included
 */
struct node {
	uint32_t name, type, size, count, first, offset, next, child, version, elements;
	bool is_subsection, is_array, has_subsections;
};

struct section {
	struct gclk_vmdesc_section pub;		/* first: callers hold its address */
	bool has_version;
};

struct gclk_vmdesc {
	char *text;
	struct node *nodes;		/* [0] is never used */
	uint32_t n_nodes, max_nodes;
	struct section *sections;
	uint32_t n_sections, max_sections;
	uint32_t elements;		/* of all sections */
};

/* Children in the making: fields first, subsections behind them. */
struct list { uint32_t head, last; };

struct parser {
	struct gclk_json json;
	struct gclk_vmdesc *d;
	bool no_memory;
};

static const char *text_at(const struct gclk_vmdesc *d, uint32_t offset)
{
	return d->text + offset;
}

static const struct node *node_at(const struct gclk_vmdesc *d, uint32_t n)
{
	return n ? &d->nodes[n] : NULL;
}

/* --- reading the JSON --- */

/* There are thousands of keys, and most are another one. */
static bool is(const char *key, const char *name)
{
	return *key == *name && !strcmp(key, name);
}

static void refuse(struct parser *p, const char *why)
{
	if (!p->json.why) {
		p->json.why = why;
	}
}

/* Room for one more in an array that doubles; NULL where memory ends. */
static void *grow(struct parser *p, void *array, uint32_t n, uint32_t *max, size_t size)
{
	uint32_t wanted = *max ? *max * 2 : 256;
	void *bigger;

	if (n < *max) {
		return array;
	}
	bigger = realloc(array, wanted * size);
	if (!bigger) {
		p->no_memory = true;
		refuse(p, "no memory");
		return NULL;
	}
	*max = wanted;
	return bigger;
}

/* A fresh node; 0 where memory or the limit ends. */
static uint32_t new_node(struct parser *p)
{
	struct gclk_vmdesc *d = p->d;
	void *nodes;

	if (d->n_nodes >= GCLK_VMDESC_MAX_NODES) {
		refuse(p, "too many fields");
		return 0;
	}
	nodes = grow(p, d->nodes, d->n_nodes, &d->max_nodes, sizeof(*d->nodes));
	if (!nodes) {
		return 0;
	}
	d->nodes = nodes;
	d->nodes[d->n_nodes] = (struct node){ .count = 1 };
	return d->n_nodes++;
}

static void append(struct gclk_vmdesc *d, struct list *list, uint32_t first,
		   uint32_t last)
{
	if (!first) {
		return;
	}
	if (list->last) {
		d->nodes[list->last].next = first;
	} else {
		list->head = first;
	}
	list->last = last;
}

static uint32_t read_size(struct parser *p)
{
	int64_t v = gclk_json_int(&p->json);

	if (v < 0 || v > UINT32_MAX) {
		refuse(p, "a size, count or version out of range");
		return 0;
	}
	return (uint32_t)v;
}

/* Instances and versions: int in the writer, the same 32 bits on the wire. */
static uint32_t read_word(struct parser *p)
{
	int64_t v = gclk_json_int(&p->json);

	if (v < INT32_MIN || v > UINT32_MAX) {
		refuse(p, "an instance or version out of range");
		return 0;
	}
	return (uint32_t)v;
}

/* Names end up in messages: none may hold what a terminal would obey. */
static uint32_t read_name(struct parser *p)
{
	size_t at = gclk_json_string(&p->json);

	if (p->json.has_control || strchr(text_at(p->d, (uint32_t)at), 0x7f)) {
		refuse(p, "a control character in a name");
	}
	return (uint32_t)at;
}

/* Bytes of a child on the wire, header of a subsection included. */
static uint64_t wire_size(const struct gclk_vmdesc *d, const struct node *n)
{
	uint64_t header =
		n->is_subsection ? SUBSECTION_HEADER + strlen(text_at(d, n->name)) : 0;

	return header + (uint64_t)n->size * n->count;
}

/* What the children of something add up to. */
struct sum {
	uint64_t bytes;
	uint32_t elements;
	bool has_subsections;
};

/* Gives children their offsets and adds them up (V1). */
static struct sum lay_out(struct parser *p, uint32_t head)
{
	struct gclk_vmdesc *d = p->d;
	struct sum sum = { 0 };

	for (uint32_t i = head; i && !p->json.why; i = d->nodes[i].next) {
		struct node *n = &d->nodes[i];

		n->offset = (uint32_t)sum.bytes;
		sum.bytes += wire_size(d, n);
		sum.elements += n->elements;
		sum.has_subsections |= n->is_subsection || n->has_subsections;
		if (sum.bytes > UINT32_MAX) {
			refuse(p, "fields beyond 4 GiB");
		}
		if (sum.elements > MAX_ELEMENTS) {
			refuse(p, "too many elements");
		}
	}
	return sum;
}

/* With the node's own count; both factors are small enough for the product. */
static void count_elements(struct parser *p, struct node *n, const struct sum *members)
{
	bool taken_apart = n->size > 1 || (n->size == 1 && n->child);
	uint64_t elements =
		(taken_apart ? n->count : 1) * (1 + (uint64_t)members->elements);

	if (elements > MAX_ELEMENTS) {
		refuse(p, "too many elements");
	}
	n->elements = (uint32_t)GCLK_MIN(elements, MAX_ELEMENTS);
	n->has_subsections = members->has_subsections;
}

static void read_fields(struct parser *p, struct list *fields);
static void read_subsections(struct parser *p, struct list *subsections);

/* The object of a struct: only its members matter. */
static uint32_t read_struct(struct parser *p)
{
	struct list fields = { 0, 0 }, subsections = { 0, 0 };
	const char *key;

	gclk_json_enter(&p->json, '{');
	while (gclk_json_member(&p->json, &key)) {
		if (is(key, "fields")) {
			read_fields(p, &fields);
		} else if (is(key, "subsections")) {
			read_subsections(p, &subsections);
		} else {
			gclk_json_skip(&p->json);
		}
	}
	append(p->d, &fields, subsections.head, subsections.last);
	return fields.head;
}

/* What one field object said, beyond what the node keeps. */
struct field_facts { bool has_name, has_size, has_struct, has_index; };

static void read_field_member(struct parser *p, const char *key, uint32_t i,
			      struct field_facts *facts)
{
	struct node *n = &p->d->nodes[i];

	if (is(key, "name")) {
		n->name = read_name(p);
		facts->has_name = true;
	} else if (is(key, "type")) {
		n->type = read_name(p);
	} else if (is(key, "size")) {
		n->size = read_size(p);
		facts->has_size = true;
	} else if (is(key, "array_len")) {
		n->count = read_size(p);
		n->is_array = true;
	} else if (is(key, "index")) {
		n->first = read_size(p);
		n->is_array = facts->has_index = true;
	} else if (is(key, "struct")) {
		uint32_t child = read_struct(p);	/* may move the nodes */

		p->d->nodes[i].child = child;
		facts->has_struct = true;
	} else {
		gclk_json_skip(&p->json);	/* bodies of opaque types among them */
	}
}

/* (V3), and the index of elements that are listed one after the other. */
static void finish_field(struct parser *p, uint32_t i, const struct field_facts *facts,
			 uint32_t before)
{
	struct gclk_vmdesc *d = p->d;
	struct node *n = &d->nodes[i];
	const struct node *b = node_at(d, before);
	struct sum sum = { 0 };

	if (!facts->has_name || !facts->has_size) {
		refuse(p, "a field without a name or size");
		return;
	}
	if (facts->has_struct) {
		sum = lay_out(p, n->child);
		if (sum.bytes != n->size) {
			refuse(p, "a struct whose members do not add up to its size");
		}
	}
	count_elements(p, n, &sum);
	if (b && !facts->has_index && !strcmp(text_at(d, b->name), text_at(d, n->name))) {
		uint64_t first = (uint64_t)b->first + b->count;

		n->first = first > UINT32_MAX ? UINT32_MAX : (uint32_t)first;
		n->is_array = true;
	}
}

static void read_fields(struct parser *p, struct list *fields)
{
	const char *key;

	gclk_json_enter(&p->json, '[');
	while (gclk_json_element(&p->json)) {
		struct field_facts facts = { 0 };
		uint32_t i = new_node(p);

		gclk_json_enter(&p->json, '{');
		while (gclk_json_member(&p->json, &key)) {
			read_field_member(p, key, i, &facts);
		}
		if (p->json.why) {
			return;
		}
		finish_field(p, i, &facts, fields->last);
		append(p->d, fields, i, i);
	}
}

static void read_subsection(struct parser *p, uint32_t i)
{
	struct list fields = { 0, 0 }, subsections = { 0, 0 };
	uint32_t name = 0, version = 0;
	struct node *n;
	struct sum sum;
	const char *key;

	gclk_json_enter(&p->json, '{');
	while (gclk_json_member(&p->json, &key)) {
		if (is(key, "vmsd_name")) {
			name = read_name(p);
		} else if (is(key, "version")) {
			version = read_word(p);
		} else if (is(key, "fields")) {
			read_fields(p, &fields);
		} else if (is(key, "subsections")) {
			read_subsections(p, &subsections);
		} else {
			gclk_json_skip(&p->json);
		}
	}
	if (!name) {
		refuse(p, "a subsection without a name");
		return;
	}
	append(p->d, &fields, subsections.head, subsections.last);
	sum = lay_out(p, fields.head);
	if (p->json.why) {
		return;
	}
	n = &p->d->nodes[i];	/* they may have moved */
	n->name = name;
	n->version = version;
	n->child = fields.head;
	n->size = (uint32_t)sum.bytes;
	n->is_subsection = true;
	count_elements(p, n, &sum);
}

static void read_subsections(struct parser *p, struct list *subsections)
{
	gclk_json_enter(&p->json, '[');
	while (gclk_json_element(&p->json)) {
		uint32_t i = new_node(p);

		read_subsection(p, i);
		if (p->json.why) {
			return;
		}
		append(p->d, subsections, i, i);
	}
}

static struct section *new_section(struct parser *p)
{
	struct gclk_vmdesc *d = p->d;
	void *sections = grow(p, d->sections, d->n_sections, &d->max_sections,
			      sizeof(*d->sections));

	if (!sections) {
		return NULL;
	}
	d->sections = sections;
	d->sections[d->n_sections] = (struct section){ .pub.vmsd_name = "" };
	return &d->sections[d->n_sections++];
}

static const char *base_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* The text of section @s is complete: name it, and lay its payload out. */
static void finish_section(struct parser *p, struct section *s, uint32_t name,
			   struct list *fields, const struct list *subsections,
			   int64_t size)
{
	struct sum sum;

	if (!name) {
		refuse(p, "a device without a name");
		return;
	}
	append(p->d, fields, subsections->head, subsections->last);
	sum = lay_out(p, fields->head);
	p->d->elements += sum.elements;		/* neither is more than twice the limit */
	if (p->d->elements > MAX_ELEMENTS) {
		refuse(p, "too many elements");
	}
	if (size >= 0 && fields->head && sum.bytes != (uint64_t)size) {
		refuse(p, "a device whose fields do not add up to its size");
	}
	s->pub.name = text_at(p->d, name);
	s->pub.base = base_of(s->pub.name);
	s->pub.root = fields->head;
	s->pub.payload_size =
		(uint32_t)(fields->head || size < 0 ? sum.bytes : (uint64_t)size);
	s->pub.early = !strcmp(s->pub.base, EARLY_SECTION);
}

static void read_device(struct parser *p)
{
	struct list fields = { 0, 0 }, subsections = { 0, 0 };
	struct section *s = new_section(p);
	uint32_t name = 0;
	int64_t size = -1;
	const char *key;

	gclk_json_enter(&p->json, '{');
	while (gclk_json_member(&p->json, &key)) {
		if (is(key, "name")) {
			name = read_name(p);
		} else if (is(key, "instance_id")) {
			s->pub.instance = read_word(p);
		} else if (is(key, "vmsd_name")) {
			s->pub.vmsd_name = text_at(p->d, read_name(p));
		} else if (is(key, "version")) {
			s->pub.version = read_word(p);
			s->has_version = true;
		} else if (is(key, "size")) {
			size = read_size(p);
		} else if (is(key, "fields")) {
			read_fields(p, &fields);
		} else if (is(key, "subsections")) {
			read_subsections(p, &subsections);
		} else {
			gclk_json_skip(&p->json);
		}
	}
	if (!p->json.why) {
		finish_section(p, s, name, &fields, &subsections, size);
	}
}

/*
 * Since 8.2 the opening brace is written with the configuration, so that it is
 * missing where no configuration is sent: "page_size": 4096, "devices": [...]}
 */
static void read_description(struct parser *p)
{
	bool has_devices = false;
	const char *key;

	if (gclk_json_peek(&p->json) == '"') {
		p->json.depth++;
		p->json.fresh = true;
	} else {
		gclk_json_enter(&p->json, '{');
	}
	while (gclk_json_member(&p->json, &key)) {
		if (strcmp(key, "devices") || has_devices) {
			gclk_json_skip(&p->json);
			continue;
		}
		has_devices = true;
		gclk_json_enter(&p->json, '[');
		while (gclk_json_element(&p->json)) {
			read_device(p);
		}
	}
	gclk_json_finish(&p->json);
	if (!has_devices) {
		refuse(p, "no list of devices");
	}
}

static struct gclk_vmdesc *new_vmdesc(const void *json, size_t n)
{
	struct gclk_vmdesc *d = calloc(1, sizeof(*d));

	if (!d) {
		return NULL;
	}
	d->n_nodes = 1;
	d->max_nodes = 256;
	d->nodes = calloc(d->max_nodes, sizeof(*d->nodes));
	d->text = malloc(n + 1);
	if (!d->nodes || !d->text) {
		return gclk_vmdesc_free(d);
	}
	memcpy(d->text, json, n);
	d->text[n] = 0;
	return d;
}

int gclk_vmdesc_parse(const void *json, size_t n, struct gclk_vmdesc **ret,
		      struct gclk_error *reterr)
{
	struct parser p = { .json = { .size = n, .max_depth = GCLK_VMDESC_MAX_DEPTH } };

	if (n == 0 || n > GCLK_VMDESC_MAX_BYTES) {
		return gclk_fail(reterr, n ? GCLK_UNSUPPORTED : GCLK_MALFORMED, "vmdesc",
				 0, "a description of %zu bytes; 1 to %u can be read", n,
				 GCLK_VMDESC_MAX_BYTES);
	}
	p.d = new_vmdesc(json, n);
	if (!p.d) {
		return gclk_fail(reterr, GCLK_NOMEM, "vmdesc", GCLK_NO_OFFSET,
				 "no memory");
	}
	p.json.text = p.d->text;
	read_description(&p);
	if (p.json.why) {
		gclk_vmdesc_free(p.d);
		return gclk_fail(reterr, p.no_memory ? GCLK_NOMEM : GCLK_MALFORMED,
				 "vmdesc", p.json.at,
				 "the device description cannot be read: %s", p.json.why);
	}
	*ret = p.d;
	return 0;
}

struct gclk_vmdesc *gclk_vmdesc_free(struct gclk_vmdesc *d)
{
	if (d) {
		free(d->text);
		free(d->nodes);
		free(d->sections);
		free(d);
	}
	return NULL;
}

/* --- against the bytes --- */

static uint64_t section_size(const struct section *s, bool footers)
{
	return SECTION_HEADER + strlen(s->pub.name) + s->pub.payload_size +
	       (footers ? FOOTER : 0);
}

uint64_t gclk_vmdesc_tail_size(const struct gclk_vmdesc *d, bool footers)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < d->n_sections; i++) {
		sum += d->sections[i].pub.early ? 0
						: section_size(&d->sections[i], footers);
	}
	return sum;
}

struct tiling {
	const struct gclk_vmdesc *d;
	const uint8_t *bytes;
	const struct section *section;
	struct gclk_error *reterr;
};

static int disagree(const struct tiling *t, uint64_t offset, const char *what)
{
	return gclk_fail(t->reterr, GCLK_MALFORMED, t->section->pub.name, offset,
			 "the device description puts %s here, the stream does not",
			 what);
}

/* Header at @at: marker, length, name; returns the bytes up to the version, or fails. */
static bool header_matches(const uint8_t *at, uint8_t marker, const char *name)
{
	size_t n = strlen(name);

	return n <= 255 && at[0] == marker && at[1] == n && !memcmp(at + 2, name, n);
}

static int tile_children(const struct tiling *t, uint32_t child, uint32_t base);

static int tile_subsection(const struct tiling *t, const struct node *n, uint32_t at)
{
	const char *name = text_at(t->d, n->name);
	uint32_t header = (uint32_t)(SUBSECTION_HEADER + strlen(name));

	if (!header_matches(t->bytes + at, 0x05, name) ||
	    gclk_get_be32(t->bytes + at + header - 4) != n->version) {
		return disagree(t, at, "a subsection");
	}
	return tile_children(t, n->child, at + header);
}

/* All inside the payload: the caller has checked that it fits into the bytes. */
static int tile_children(const struct tiling *t, uint32_t child, uint32_t base)
{
	const struct node *n;
	int r = 0;

	for (n = node_at(t->d, child); n && r == 0; n = node_at(t->d, n->next)) {
		uint32_t at = base + n->offset;

		if (n->is_subsection) {
			r = tile_subsection(t, n, at);
			continue;
		}
		for (uint32_t i = 0; n->has_subsections && i < n->count && r == 0; i++) {
			r = tile_children(t, n->child, at + i * n->size);
		}
	}
	return r;
}

/* (V4) for the section at @at; the bytes are known to hold it. */
static int tile_section(const struct tiling *t, struct section *s, uint32_t at,
			bool footers)
{
	const uint8_t *p = t->bytes + at;
	uint32_t n = (uint32_t)strlen(s->pub.name);
	uint32_t end;

	if (p[0] != 0x04 || p[5] != n || n > 255 || memcmp(p + 6, s->pub.name, n)) {
		return disagree(t, at, "a section of this name");
	}
	if (gclk_get_be32(p + 6 + n) != s->pub.instance) {
		return disagree(t, at + 6 + n, "another instance");
	}
	if (s->has_version && gclk_get_be32(p + 10 + n) != s->pub.version) {
		return disagree(t, at + 10 + n, "another version");
	}
	s->pub.id = gclk_get_be32(p + 1);
	s->pub.version = gclk_get_be32(p + 10 + n);
	s->pub.offset = at;
	s->pub.payload = at + SECTION_HEADER + n;
	end = s->pub.payload + s->pub.payload_size;
	if (footers &&
	    (t->bytes[end] != 0x7e || gclk_get_be32(t->bytes + end + 1) != s->pub.id)) {
		return disagree(t, end, "the end of this section");
	}
	return tile_children(t, s->pub.root, s->pub.payload);
}

int gclk_vmdesc_tile(struct gclk_vmdesc *d, const uint8_t *bytes, size_t n, bool footers,
		     struct gclk_error *reterr)
{
	struct tiling t = { .d = d, .bytes = bytes, .reterr = reterr };
	size_t at = 0;

	for (uint32_t i = 0; i < d->n_sections; i++) {
		struct section *s = &d->sections[i];
		uint64_t size = section_size(s, footers);
		int r;

		if (s->pub.early) {
			continue;
		}
		t.section = s;
		if (size > n - at) {
			return gclk_fail(reterr, GCLK_MALFORMED, s->pub.name, at,
					 "the device description gives this section %llu "
					 "bytes, %zu are left", (unsigned long long)size,
					 n - at);
		}
		r = tile_section(&t, s, (uint32_t)at, footers);
		if (r < 0) {
			return r;
		}
		at += (size_t)size;
	}
	if (at != n) {
		return gclk_fail(reterr, GCLK_MALFORMED, "vmdesc", at,
				 "%zu bytes behind the last section that the device "
				 "description knows", n - at);
	}
	return 0;
}

/* --- looking up --- */

size_t gclk_vmdesc_n_sections(const struct gclk_vmdesc *d)
{
	return d->n_sections;
}

const struct gclk_vmdesc_section *gclk_vmdesc_section(const struct gclk_vmdesc *d,
						      size_t i)
{
	return i < d->n_sections ? &d->sections[i].pub : NULL;
}

const struct gclk_vmdesc_section *
gclk_vmdesc_find(const struct gclk_vmdesc *d, const char *base, uint64_t instance,
		 const struct gclk_vmdesc_section *after)
{
	const struct section *s = d->sections;
	const struct section *end = s + d->n_sections;

	if (after) {
		s = (const struct section *)(const void *)after + 1;
	}
	for (; s < end; s++) {
		if (!s->pub.early && !strcmp(s->pub.base, base) &&
		    (instance == GCLK_VMDESC_ANY || instance == s->pub.instance)) {
			return &s->pub;
		}
	}
	return NULL;
}

struct lookup {
	const struct gclk_vmdesc *d;
	struct gclk_vmdesc_field *ret;
};

static bool find_in(const struct lookup *l, uint32_t child, uint32_t base,
		    const char *path);

static bool found(const struct lookup *l, const char *type, uint32_t offset,
		  uint32_t size, uint32_t count)
{
	*l->ret = (struct gclk_vmdesc_field){ type, offset, size, count };
	return true;
}

static const char *type_of(const struct gclk_vmdesc *d, const struct node *n)
{
	return n->type ? text_at(d, n->type) : "";
}

/* @rest: what follows the name of a subsection. */
static bool find_in_subsection(const struct lookup *l, const struct node *n, uint32_t at,
			       const char *rest)
{
	at += (uint32_t)(SUBSECTION_HEADER + strlen(text_at(l->d, n->name)));
	if (rest[0] != ':') {
		return false;
	}
	if (!rest[1]) {
		return found(l, "subsection", at, n->size, 1);
	}
	return find_in(l, n->child, at, rest + 1);
}

/* @rest: "[k]" or "[k].member" behind the name of field @n, or ".member". */
static bool find_in_element(const struct lookup *l, const struct node *n, uint32_t at,
			    const char *rest)
{
	uint32_t k = n->first;

	if (*rest == '[') {
		char *end;
		unsigned long v = rest[1] >= '0' && rest[1] <= '9' ?
				  strtoul(rest + 1, &end, 10) : ULONG_MAX;

		if (v == ULONG_MAX || *end != ']' || v < n->first ||
		    v - n->first >= n->count) {
			return false;
		}
		k = (uint32_t)v;
		rest = end + 1;
	} else if (n->count != 1 || n->is_array) {
		return false;
	}
	at += (k - n->first) * n->size;
	if (!*rest) {
		return found(l, type_of(l->d, n), at, n->size, 1);
	}
	return *rest == '.' && n->child && find_in(l, n->child, at, rest + 1);
}

/* Length of the longest name with brackets of its own that @path begins with. */
static size_t bracketed_name(const struct lookup *l, uint32_t child, const char *path)
{
	size_t best = 0;

	for (const struct node *n = node_at(l->d, child); n; n = node_at(l->d, n->next)) {
		const char *name = text_at(l->d, n->name);
		size_t len = strlen(name);

		if (len > best && strchr(name, '[') && !strncmp(path, name, len) &&
		    (!path[len] || strchr(".[:", path[len]))) {
			best = len;
		}
	}
	return best;
}

static bool find_in(const struct lookup *l, uint32_t child, uint32_t base,
		    const char *path)
{
	const struct node *whole = NULL;
	size_t only = 0;

	if (*path == '=') {
		only = bracketed_name(l, child, ++path);
		if (!only) {
			return false;
		}
	}
	for (const struct node *n = node_at(l->d, child); n; n = node_at(l->d, n->next)) {
		const char *name = text_at(l->d, n->name);
		uint32_t at = base + n->offset;
		size_t len;

		if (*name && *name != *path) {
			continue;	/* as most do */
		}
		len = strlen(name);
		if ((only && len != only) || strncmp(path, name, len)) {
			continue;
		}
		if (n->is_subsection) {
			if (find_in_subsection(l, n, at, path + len)) {
				return true;
			}
		} else if (!path[len]) {
			whole = whole ? whole : n;
		} else if (find_in_element(l, n, at, path + len)) {
			return true;
		}
	}
	return whole && found(l, type_of(l->d, whole), base + whole->offset, whole->size,
			      whole->count);
}

bool gclk_vmdesc_field(const struct gclk_vmdesc *d, const struct gclk_vmdesc_section *s,
		       const char *path, struct gclk_vmdesc_field *ret)
{
	struct lookup l = { d, ret };

	return !s->early && find_in(&l, s->root, s->payload, path);
}

/* --- walking --- */

struct walk {
	const struct gclk_vmdesc *d;
	const char *type;
	int (*visit)(void *ctx, const struct gclk_vmdesc_leaf *leaf);
	void *ctx;
	struct gclk_vmdesc_leaf leaf;
	char path[512];
};

/* Appends to the path; a path too long for its buffer is cut, offsets are right. */
static size_t extend(struct walk *w, size_t length, const char *text)
{
	size_t n = GCLK_MIN(strlen(text), sizeof(w->path) - 1 - length);

	memcpy(w->path + length, text, n);
	w->path[length + n] = 0;
	return length + n;
}

/* Whether it is a leaf of another type than is wanted. */
static bool passed_over(const struct walk *w, const struct node *n)
{
	return !n->is_subsection && !n->child && w->type && strcmp(w->type, type_of(w->d, n));
}

static int walk_children(struct walk *w, uint32_t child, uint32_t base, size_t length);

static int show(struct walk *w, const struct node *n, uint32_t at, uint32_t size)
{
	w->leaf.path = w->path;
	w->leaf.type = type_of(w->d, n);
	w->leaf.offset = at;
	w->leaf.size = size;
	return w->visit(w->ctx, &w->leaf);
}

static int walk_elements(struct walk *w, const struct node *n, uint32_t at, size_t length)
{
	bool whole = n->size <= 1 && !n->child && n->count > 1;
	uint32_t count = n->size == 0 || whole ? 1 : n->count;
	char index[16];
	int r = 0;

	for (uint32_t i = 0; i < count && r == 0; i++) {
		size_t end = length;

		w->path[length] = 0;
		if (n->is_array && !whole) {
			snprintf(index, sizeof(index), "[%u]", n->first + i);
			end = extend(w, length, index);
		}
		if (n->child) {
			end = extend(w, end, ".");
			r = walk_children(w, n->child, at + i * n->size, end);
		} else {
			r = show(w, n, at + i * n->size,
				 whole ? n->size * n->count : n->size);
		}
	}
	return r;
}

static int walk_children(struct walk *w, uint32_t child, uint32_t base, size_t length)
{
	int r = 0;

	for (const struct node *n = node_at(w->d, child); n && r == 0;
	     n = node_at(w->d, n->next)) {
		const char *name = text_at(w->d, n->name);
		uint32_t at = base + n->offset;
		size_t end;

		if (passed_over(w, n)) {
			continue;
		}
		if (n->is_subsection) {
			end = extend(w, extend(w, length, name), ":");
			at += (uint32_t)(SUBSECTION_HEADER + strlen(name));
			r = walk_children(w, n->child, at, end);
		} else {
			end = extend(w, extend(w, length, strchr(name, '[') ? "=" : ""), name);
			r = walk_elements(w, n, at, end);
		}
	}
	return r;
}

int gclk_vmdesc_walk(const struct gclk_vmdesc *d, const char *type,
		     int (*visit)(void *ctx, const struct gclk_vmdesc_leaf *leaf),
		     void *ctx)
{
	struct walk w = { .d = d, .type = type, .visit = visit, .ctx = ctx };
	int r = 0;

	for (uint32_t i = 0; i < d->n_sections && r == 0; i++) {
		const struct gclk_vmdesc_section *s = &d->sections[i].pub;

		if (!s->early) {
			w.leaf.section = s;
			r = walk_children(&w, s->root, s->payload, 0);
		}
	}
	return r;
}
