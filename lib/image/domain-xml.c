/* SPDX-License-Identifier: MIT */
/*
 * Not read: counters of <cpu>, QEMU command lines in the qemu namespace.
 *
 * Unknown elements and attributes are skipped, since libvirt adds some with each
 * release; a value that a known attribute cannot have is an error, since a plan
 * made from a misread clock would be wrong in silence.
 */
#include <errno.h>
#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "image/domain-xml.h"

static bool is_element(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE && !node->ns &&
	       !strcmp((const char *)node->name, name);
}

static xmlNode *first_child(const xmlNode *parent, const char *name)
{
	xmlNode *node = parent ? parent->children : NULL;

	while (node && !is_element(node, name)) {
		node = node->next;
	}
	return node;
}

/* Wide enough for every text that is read; a longer one is an error. */
struct text {
	bool present;
	char value[256];
};

static int put_text(xmlChar *content, const char *where, struct text *ret,
		    struct gclk_error *reterr)
{
	size_t n;
	int r = 0;

	*ret = (struct text){ 0 };
	if (!content) {
		return 0;
	}
	n = strlen((const char *)content);
	if (n >= sizeof(ret->value)) {
		r = gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
			      "%zu bytes are more than the %zu that are read", n,
			      sizeof(ret->value) - 1);
	} else {
		memcpy(ret->value, content, n);
		ret->present = true;
	}
	xmlFree(content);
	return r;
}

static int attribute(const xmlNode *node, const char *name, struct text *ret,
		     struct gclk_error *reterr)
{
	xmlChar *content = NULL;

	if (node) {
		content = xmlGetNoNsProp(node, (const xmlChar *)name);
	}
	return put_text(content, name, ret, reterr);
}

static int content_of(const xmlNode *node, const char *name, struct text *ret,
		      struct gclk_error *reterr)
{
	return put_text(node ? xmlNodeGetContent(node) : NULL, name, ret, reterr);
}

/* Into a member of a given size. */
static int copy_text(const struct text *text, char *to, size_t size, const char *where,
		     struct gclk_error *reterr)
{
	if (strlen(text->value) >= size) {
		return gclk_fail(reterr, GCLK_RANGE, where, GCLK_NO_OFFSET,
				 "\"%.60s\" is longer than the %zu bytes that are read",
				 text->value, size - 1);
	}
	memcpy(to, text->value, strlen(text->value) + 1);
	return 0;
}

static int copy_attribute(const xmlNode *node, const char *name, char *to, size_t size,
			  struct gclk_error *reterr)
{
	struct text text;
	int r = attribute(node, name, &text, reterr);

	return r < 0 ? r : copy_text(&text, to, size, name, reterr);
}

static int bad_value(const struct text *text, const char *where, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_MALFORMED, where, GCLK_NO_OFFSET,
			 "\"%.60s\" is not a value of it", text->value);
}

static int parse_signed(const struct text *text, const char *where, int64_t *ret,
			struct gclk_error *reterr)
{
	char *end;

	errno = 0;
	*ret = strtoll(text->value, &end, 10);
	if (end == text->value || *end || errno) {
		return bad_value(text, where, reterr);
	}
	return 0;
}

static int parse_unsigned(const struct text *text, const char *where, uint64_t max,
			  uint64_t *ret, struct gclk_error *reterr)
{
	char *end;

	errno = 0;
	*ret = strtoull(text->value, &end, 10);
	/* strtoull takes a minus sign and wraps */
	if (end == text->value || *end || errno || strchr(text->value, '-') || *ret > max) {
		return bad_value(text, where, reterr);
	}
	return 0;
}

/* The place of a word in a list, whose end is NULL. */
static int parse_word(const struct text *text, const char *where, const char *const *words,
		      unsigned *ret, struct gclk_error *reterr)
{
	for (unsigned i = 0; words[i]; i++) {
		if (!strcmp(text->value, words[i])) {
			*ret = i;
			return 0;
		}
	}
	return bad_value(text, where, reterr);
}

static int parse_switch(const xmlNode *node, const char *name, const char *no, const char *yes,
			enum gclk_domain_switch *ret, struct gclk_error *reterr)
{
	const char *const words[] = { no, yes, NULL };
	struct text text;
	unsigned which = 0;
	int r = attribute(node, name, &text, reterr);

	if (r < 0 || !text.present) {
		return r;
	}
	r = parse_word(&text, name, words, &which, reterr);
	if (r == 0) {
		*ret = which ? GCLK_DOMAIN_YES : GCLK_DOMAIN_NO;
	}
	return r;
}

static const char *const ticks_words[] = { "none", "delay", "catchup", "merge", "discard", NULL };

const char *gclk_domain_ticks_name(enum gclk_domain_ticks ticks)
{
	return (unsigned)ticks < GCLK_COUNT(ticks_words) - 1 ? ticks_words[ticks] : ticks_words[0];
}

static int parse_ticks(const xmlNode *node, enum gclk_domain_ticks *ret,
		       struct gclk_error *reterr)
{
	struct text text;
	unsigned which = 0;
	int r = attribute(node, "tickpolicy", &text, reterr);

	if (r < 0 || !text.present) {
		return r;
	}
	/* "none" is our word for silence, not one of libvirt's. */
	r = parse_word(&text, "tickpolicy", ticks_words + 1, &which, reterr);
	if (r == 0) {
		*ret = (enum gclk_domain_ticks)(which + 1);
	}
	return r;
}

static int parse_timer(const xmlNode *node, struct gclk_domain_timer *timer,
		       struct gclk_error *reterr)
{
	struct text frequency;
	int r;

	r = copy_attribute(node, "name", timer->name, sizeof(timer->name), reterr);
	r = r < 0 ? r : parse_switch(node, "present", "no", "yes", &timer->present, reterr);
	r = r < 0 ? r : parse_ticks(node, &timer->ticks, reterr);
	r = r < 0 ? r : copy_attribute(node, "track", timer->track, sizeof(timer->track), reterr);
	r = r < 0 ? r : copy_attribute(node, "mode", timer->mode, sizeof(timer->mode), reterr);
	r = r < 0 ? r : attribute(node, "frequency", &frequency, reterr);
	if (r == 0 && frequency.present) {
		r = parse_unsigned(&frequency, "frequency", UINT64_MAX, &timer->frequency_hz,
				   reterr);
	}
	if (r == 0 && !timer->name[0]) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "timer", GCLK_NO_OFFSET,
			      "a <timer> has no name");
	}
	return r;
}

static int parse_timers(const xmlNode *clock, struct gclk_domain *d, struct gclk_error *reterr)
{
	for (const xmlNode *node = clock ? clock->children : NULL; node; node = node->next) {
		int r;

		if (!is_element(node, "timer")) {
			continue;
		}
		if (d->n_timers == GCLK_DOMAIN_MAX_TIMERS) {
			return gclk_fail(reterr, GCLK_RANGE, "clock", GCLK_NO_OFFSET,
					 "more than %d timers", GCLK_DOMAIN_MAX_TIMERS);
		}
		r = parse_timer(node, &d->timers[d->n_timers], reterr);
		if (r < 0) {
			return r;
		}
		d->n_timers++;
	}
	return 0;
}

static int parse_adjustment(const xmlNode *node, struct gclk_domain_clock *clock,
			    struct gclk_error *reterr)
{
	struct text text;
	int r = attribute(node, "adjustment", &text, reterr);

	if (r < 0 || !text.present) {
		return r;
	}
	if (!strcmp(text.value, "reset")) {
		clock->adjustment_reset = true;
		return 0;
	}
	r = parse_signed(&text, "adjustment", &clock->adjustment_s, reterr);
	clock->has_adjustment = r == 0;
	return r;
}

static int parse_start(const xmlNode *node, struct gclk_domain_clock *clock,
		       struct gclk_error *reterr)
{
	struct text text;
	int r = attribute(node, "start", &text, reterr);

	if (r < 0 || !text.present) {
		return r;
	}
	r = parse_signed(&text, "start", &clock->start_s, reterr);
	clock->has_start = r == 0;
	return r;
}

static int parse_clock(const xmlNode *node, struct gclk_domain *d, struct gclk_error *reterr)
{
	struct gclk_domain_clock *clock = &d->clock;
	int r;

	r = copy_attribute(node, "offset", clock->offset, sizeof(clock->offset), reterr);
	r = r < 0 ? r : copy_attribute(node, "timezone", clock->timezone,
				       sizeof(clock->timezone), reterr);
	r = r < 0 ? r : copy_attribute(node, "basis", clock->basis, sizeof(clock->basis), reterr);
	r = r < 0 ? r : parse_adjustment(node, clock, reterr);
	r = r < 0 ? r : parse_start(node, clock, reterr);
	return r < 0 ? r : parse_timers(node, d, reterr);
}

static int parse_vcpus(const xmlNode *domain, struct gclk_domain *d, struct gclk_error *reterr)
{
	const xmlNode *node = first_child(domain, "vcpu");
	struct text all, current;
	uint64_t n;
	int r;

	r = content_of(node, "vcpu", &all, reterr);
	r = r < 0 ? r : attribute(node, "current", &current, reterr);
	if (r < 0 || !all.present) {
		return r;
	}
	r = parse_unsigned(&all, "vcpu", UINT32_MAX, &n, reterr);
	if (r < 0) {
		return r;
	}
	d->max_vcpus = d->n_vcpus = (uint32_t)n;
	if (current.present) {
		r = parse_unsigned(&current, "vcpu current", n, &n, reterr);
		d->n_vcpus = (uint32_t)n;
	}
	return r;
}

static int parse_hyperv(const xmlNode *domain, struct gclk_domain *d, struct gclk_error *reterr)
{
	const xmlNode *hyperv = first_child(first_child(domain, "features"), "hyperv");
	const struct {
		const char *name;
		enum gclk_domain_switch *to;
	} rows[] = {
		{ "stimer", &d->hv_stimer },
		{ "synic", &d->hv_synic },
		{ "frequencies", &d->hv_frequencies },
		{ "reenlightenment", &d->hv_reenlightenment },
	};

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		int r = parse_switch(first_child(hyperv, rows[i].name), "state", "off", "on",
				     rows[i].to, reterr);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* <cpu><feature policy='require' name='invtsc'/>; forbid and disable say no. */
static int parse_cpu(const xmlNode *domain, struct gclk_domain *d, struct gclk_error *reterr)
{
	const xmlNode *cpu = first_child(domain, "cpu");

	for (const xmlNode *node = cpu ? cpu->children : NULL; node; node = node->next) {
		struct text name, policy;
		int r;

		if (!is_element(node, "feature")) {
			continue;
		}
		r = attribute(node, "name", &name, reterr);
		r = r < 0 ? r : attribute(node, "policy", &policy, reterr);
		if (r < 0) {
			return r;
		}
		if (!strcmp(name.value, "invtsc")) {
			bool no = !strcmp(policy.value, "disable") ||
				  !strcmp(policy.value, "forbid");

			d->invtsc = no ? GCLK_DOMAIN_NO : GCLK_DOMAIN_YES;
		}
	}
	return 0;
}

static int parse_metadata_attribute(const xmlAttr *attr, struct gclk_domain *d,
				    struct gclk_error *reterr)
{
	struct gclk_domain_attribute *to = &d->metadata[d->n_metadata];
	struct text text = { 0 };
	int r;

	if (d->n_metadata == GCLK_DOMAIN_MAX_METADATA) {
		return gclk_fail(reterr, GCLK_RANGE, "metadata", GCLK_NO_OFFSET,
				 "more than %d attributes", GCLK_DOMAIN_MAX_METADATA);
	}
	if (strlen((const char *)attr->name) >= sizeof(to->name)) {
		return gclk_fail(reterr, GCLK_RANGE, "metadata", GCLK_NO_OFFSET,
				 "attribute \"%.40s...\" has too long a name",
				 (const char *)attr->name);
	}
	r = put_text(xmlNodeGetContent((const xmlNode *)attr), "metadata", &text, reterr);
	if (r < 0) {
		return r;
	}
	memcpy(to->name, attr->name, strlen((const char *)attr->name) + 1);
	memcpy(to->value, text.value, sizeof(to->value));
	d->n_metadata++;
	return 0;
}

/* The one element of our namespace, whatever its name and prefix. */
static int parse_metadata(const xmlNode *domain, struct gclk_domain *d,
			  struct gclk_error *reterr)
{
	const xmlNode *metadata = first_child(domain, "metadata");
	const xmlNode *node = metadata ? metadata->children : NULL;

	while (node && (node->type != XML_ELEMENT_NODE || !node->ns ||
			strcmp((const char *)node->ns->href, GCLK_DOMAIN_NAMESPACE))) {
		node = node->next;
	}
	if (!node) {
		return 0;
	}
	d->has_metadata = true;
	for (const xmlAttr *attr = node->properties; attr; attr = attr->next) {
		int r = parse_metadata_attribute(attr, d, reterr);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int parse_identity(const xmlNode *domain, struct gclk_domain *d,
			  struct gclk_error *reterr)
{
	const xmlNode *type = first_child(first_child(domain, "os"), "type");
	struct text text;
	int r;

	r = attribute(domain, "type", &text, reterr);
	if (r < 0) {
		return r;
	}
	d->type = !strcmp(text.value, "kvm") ? GCLK_DOMAIN_KVM :
		  !strcmp(text.value, "qemu") ? GCLK_DOMAIN_QEMU : GCLK_DOMAIN_OTHER;
	r = content_of(first_child(domain, "name"), "name", &text, reterr);
	r = r < 0 ? r : copy_text(&text, d->name, sizeof(d->name), "name", reterr);
	r = r < 0 ? r : content_of(first_child(domain, "uuid"), "uuid", &text, reterr);
	r = r < 0 ? r : copy_text(&text, d->uuid, sizeof(d->uuid), "uuid", reterr);
	return r < 0 ? r : copy_attribute(type, "machine", d->machine, sizeof(d->machine), reterr);
}

static int parse_domain(const xmlNode *domain, struct gclk_domain *d, struct gclk_error *reterr)
{
	int r;

	r = parse_identity(domain, d, reterr);
	r = r < 0 ? r : parse_vcpus(domain, d, reterr);
	r = r < 0 ? r : parse_clock(first_child(domain, "clock"), d, reterr);
	r = r < 0 ? r : parse_hyperv(domain, d, reterr);
	r = r < 0 ? r : parse_cpu(domain, d, reterr);
	return r < 0 ? r : parse_metadata(domain, d, reterr);
}

/* In document order; the parser bounds the depth to 256. */
static const xmlNode *find_domain(const xmlNode *node)
{
	for (; node; node = node->next) {
		const xmlNode *found;

		if (is_element(node, "domain")) {
			return node;
		}
		found = node->type == XML_ELEMENT_NODE ? find_domain(node->children) : NULL;
		if (found) {
			return found;
		}
	}
	return NULL;
}

/*
 * libxml2 prints what memory it lacks, and may then go on to call the text malformed: while
 * it works for us, its errors come here. It keeps the function for each thread.
 */
struct listener {
	xmlStructuredErrorFunc old;
	void *old_ctx;
	bool no_memory;
};

#if LIBXML_VERSION >= 21200
static void hear(void *ctx, const xmlError *e)
#else
static void hear(void *ctx, xmlError *e)
#endif
{
	if (e && e->code == XML_ERR_NO_MEMORY) {
		((struct listener *)ctx)->no_memory = true;
	}
}

static void listen_to(struct listener *listener)
{
	listener->old = xmlStructuredError;
	listener->old_ctx = xmlStructuredErrorContext;
	listener->no_memory = false;
	xmlSetStructuredErrorFunc(listener, hear);
}

/* Nor does it keep a text of ours as the last error of this thread. */
static void listen_no_more(const struct listener *listener)
{
	xmlResetLastError();
	xmlSetStructuredErrorFunc(listener->old_ctx, listener->old);
}

static int parse_failed(xmlParserCtxt *parser, struct gclk_error *reterr)
{
	const xmlError *e = xmlCtxtGetLastError(parser);
	const char *message = e && e->message ? e->message : "not well-formed";

	if (e && e->code == XML_ERR_NO_MEMORY) {
		return gclk_fail(reterr, GCLK_NOMEM, "domain XML", GCLK_NO_OFFSET,
				 "no memory to parse it");
	}
	return gclk_fail(reterr, GCLK_MALFORMED, "domain XML", GCLK_NO_OFFSET, "line %d: %.*s",
			 e ? e->line : 0, (int)strcspn(message, "\n"), message);
}

/*
 * Called where a document type begins, before any entity can be declared or used:
 * stopping there is what makes an entity bomb harmless. The mark says why it stopped.
 */
static void stop_at_document_type(void *ctx, const xmlChar *name, const xmlChar *external,
				  const xmlChar *system)
{
	(void)name;
	(void)external;
	(void)system;
	((xmlParserCtxt *)ctx)->_private = ctx;
	xmlStopParser(ctx);
}

static int parse_tree(xmlParserCtxt *parser, const char *xml, size_t n, struct gclk_domain *d,
		      struct gclk_error *reterr)
{
	const xmlNode *domain;
	xmlDoc *doc;
	int r;

	parser->sax->internalSubset = stop_at_document_type;
	doc = xmlCtxtReadMemory(parser, xml, (int)n, NULL, NULL,
				XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
				XML_PARSE_NOCDATA | XML_PARSE_IGNORE_ENC);
	if (!doc && !parser->_private) {
		return parse_failed(parser, reterr);
	}
	domain = doc ? find_domain(doc->children) : NULL;
	if (parser->_private) {
		r = gclk_fail(reterr, GCLK_MALFORMED, "domain XML", GCLK_NO_OFFSET,
			      "it declares a document type, as libvirt never does");
	} else if (domain) {
		r = parse_domain(domain, d, reterr);
	} else {
		r = gclk_fail(reterr, GCLK_MALFORMED, "domain XML", GCLK_NO_OFFSET,
			      "there is no <domain> in it");
	}
	xmlFreeDoc(doc);
	return r;
}

/*
 * libxml2 holds each attribute of an element against those before it: 50,000 of them took it
 * 15 s. No "<" can stand within an element's tag, so an "=" for each stands between two.
 */
#define MAX_ATTRIBUTE_PAIRS UINT64_C(50000000)

/* Other encodings, in which these bytes mean something else, have a NUL or begin otherwise. */
static bool is_in_utf8(const char *xml, size_t n)
{
	size_t i = n >= 3 && !memcmp(xml, "\xef\xbb\xbf", 3) ? 3 : 0;

	while (i < n && (xml[i] == ' ' || xml[i] == '\t' || xml[i] == '\r' || xml[i] == '\n')) {
		i++;
	}
	return (i == n || xml[i] == '<') && !memchr(xml, 0, n);
}

static bool has_swarm(const char *xml, size_t n)
{
	uint64_t pairs = 0, attributes = 0;

	for (size_t i = 0; i < n; i++) {
		attributes = xml[i] == '<' ? 0 : attributes;
		if (xml[i] == '=') {
			pairs += attributes++;
		}
	}
	return pairs > MAX_ATTRIBUTE_PAIRS;
}

int gclk_domain_parse(const char *xml, size_t n, struct gclk_domain *ret,
		      struct gclk_error *reterr)
{
	struct gclk_domain *d;
	struct listener listener;
	xmlParserCtxt *parser;
	int r;

	if (n > GCLK_DOMAIN_MAX_XML) {
		return gclk_fail(reterr, GCLK_RANGE, "domain XML", GCLK_NO_OFFSET,
				 "%zu bytes are more than the %" PRIu32 " that are read", n,
				 GCLK_DOMAIN_MAX_XML);
	}
	if (n && !is_in_utf8(xml, n)) {
		return gclk_fail(reterr, GCLK_MALFORMED, "domain XML", GCLK_NO_OFFSET,
				 "it is no XML in UTF-8");
	}
	if (has_swarm(xml, n)) {
		return gclk_fail(reterr, GCLK_RANGE, "domain XML", GCLK_NO_OFFSET,
				 "an element has too many attributes");
	}
	listen_to(&listener);
	parser = xmlNewParserCtxt();
	d = calloc(1, sizeof(*d));
	if (!parser || !d) {
		r = gclk_fail(reterr, GCLK_NOMEM, "domain XML", GCLK_NO_OFFSET,
			      "no memory to parse it");
	} else {
		r = parse_tree(parser, xml, n, d, reterr);
	}
	listen_no_more(&listener);
	if (listener.no_memory) {	/* what came of it may lack a part */
		r = gclk_fail(reterr, GCLK_NOMEM, "domain XML", GCLK_NO_OFFSET,
			      "no memory to parse it");
	}
	if (r == 0) {
		*ret = *d;
	}
	free(d);
	xmlFreeParserCtxt(parser);
	return r;
}

/* Our element of a domain, made where it is missing. */
static xmlNode *own_element(xmlNode *domain)
{
	xmlNode *metadata = first_child(domain, "metadata"), *node;
	xmlNs *ns;

	if (!metadata) {
		metadata = xmlNewChild(domain, NULL, (const xmlChar *)"metadata", NULL);
	}
	for (node = metadata ? metadata->children : NULL; node; node = node->next) {
		if (node->type == XML_ELEMENT_NODE && node->ns &&
		    !strcmp((const char *)node->ns->href, GCLK_DOMAIN_NAMESPACE)) {
			return node;
		}
	}
	node = metadata ? xmlNewChild(metadata, NULL, (const xmlChar *)"clocks", NULL) : NULL;
	ns = node ? xmlNewNs(node, (const xmlChar *)GCLK_DOMAIN_NAMESPACE,
			     (const xmlChar *)"guestclock") : NULL;
	if (!ns) {
		return NULL;
	}
	xmlSetNs(node, ns);
	return node;
}

static int set_attributes(xmlNode *node, const struct gclk_domain_attribute *set,
			  unsigned n_set)
{
	for (unsigned i = 0; node && i < n_set; i++) {
		const xmlChar *name = (const xmlChar *)set[i].name;

		if (!set[i].value[0]) {
			xmlUnsetProp(node, name);
		} else if (!xmlSetProp(node, name, (const xmlChar *)set[i].value)) {
			return -1;
		}
	}
	return node ? 0 : -1;
}

static int write_tree(xmlDoc *doc, const struct gclk_domain_attribute *set, unsigned n_set,
		      char **ret, struct gclk_error *reterr)
{
	const xmlNode *domain = find_domain(doc->children);
	xmlChar *text = NULL;
	int n = 0;

	if (!domain) {
		return gclk_fail(reterr, GCLK_MALFORMED, "domain XML", GCLK_NO_OFFSET,
				 "there is no <domain> in it");
	}
	if (set_attributes(own_element((xmlNode *)(uintptr_t)domain), set, n_set) == 0) {
		xmlDocDumpMemory(doc, &text, &n);
	}
	*ret = text ? strndup((const char *)text, (size_t)n) : NULL;
	xmlFree(text);
	return *ret ? 0 : gclk_fail(reterr, GCLK_NOMEM, "domain XML", GCLK_NO_OFFSET,
				    "no memory to write it");
}

GCLK_API int gclk_domain_write_metadata(const char *xml, size_t size,
					const struct gclk_domain_attribute *set, unsigned n_set,
					char **ret, struct gclk_error *reterr)
{
	struct gclk_domain *domain = calloc(1, sizeof(*domain));
	struct listener listener;
	xmlDoc *doc = NULL;
	int r;

	if (!domain) {
		return gclk_fail(reterr, GCLK_NOMEM, "domain XML", GCLK_NO_OFFSET, "no memory");
	}
	r = gclk_domain_parse(xml, size, domain, reterr);	/* says what is wrong with it */
	free(domain);
	if (r < 0) {
		return r;
	}
	listen_to(&listener);
	doc = xmlReadMemory(xml, (int)size, NULL, NULL,
			    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
			    XML_PARSE_IGNORE_ENC);
	r = doc ? write_tree(doc, set, n_set, ret, reterr) : -GCLK_NOMEM;
	listen_no_more(&listener);
	xmlFreeDoc(doc);
	if (r == 0 && listener.no_memory) {
		free(*ret);
		*ret = NULL;
	}
	return !doc || listener.no_memory ? gclk_fail(reterr, GCLK_NOMEM, "domain XML",
						      GCLK_NO_OFFSET, "no memory to write it")
					  : r;
}

GCLK_API int gclk_domain_read(const char *xml, size_t size, struct gclk_domain *ret,
			      struct gclk_error *reterr)
{
	return gclk_domain_parse(xml, size, ret, reterr);
}

GCLK_API const struct gclk_domain_timer *gclk_domain_timer(const struct gclk_domain *domain,
						  const char *name)
{
	for (size_t i = 0; i < domain->n_timers; i++) {
		if (!strcmp(domain->timers[i].name, name)) {
			return &domain->timers[i];
		}
	}
	return NULL;
}

GCLK_API const char *gclk_domain_metadata(const struct gclk_domain *domain, const char *name)
{
	for (size_t i = 0; i < domain->n_metadata; i++) {
		if (!strcmp(domain->metadata[i].name, name)) {
			return domain->metadata[i].value;
		}
	}
	return NULL;
}
