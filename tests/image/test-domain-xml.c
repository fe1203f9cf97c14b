/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gclk-test.h"
#include "image/domain-xml.h"

static const char full[] =
	"<?xml version='1.0'?>\n"
	"<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
	"  <name>w\xc3\xbc" "st &amp; leer</name>\n"
	"  <uuid>6b29fc40-ca47-1067-b31d-00dd010662da</uuid>\n"
	"  <metadata>\n"
	"    <libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/1.0' gap='no'/>\n"
	"    <gc:guestclock xmlns:gc='https://guestclock.dev/ns/domain/1' gap='cap=60s'\n"
	"        ticks='rtc=catchup' hook='on' captured_at_ns='1712345678901234567'/>\n"
	"  </metadata>\n"
	"  <vcpu placement='static' current='2'>4</vcpu>\n"
	"  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\n"
	"  <features><acpi/><hyperv mode='custom'><synic state='on'/>\n"
	"    <stimer state='on'><direct state='on'/></stimer><frequencies state='off'/>\n"
	"  </hyperv></features>\n"
	"  <cpu mode='custom'><feature policy='require' name='invtsc'/></cpu>\n"
	"  <clock offset='variable' adjustment='-3600' basis='localtime'>\n"
	"    <timer name='rtc' tickpolicy='catchup' track='guest'>\n"
	"      <catchup threshold='123' slew='120' limit='10000'/></timer>\n"
	"    <timer name='pit' tickpolicy='delay'/>\n"
	"    <timer name='hpet' present='no'/>\n"
	"    <timer name='hypervclock' present='yes'/>\n"
	"    <timer name='tsc' frequency='2900000000' mode='native'/>\n"
	"  </clock>\n"
	"</domain>\n";

static int parse(const char *xml, struct gclk_domain *d, struct gclk_error *e)
{
	return gclk_domain_parse(xml, strlen(xml), d, e);
}

GCLK_TEST(domain_xml, everything_about_clocks_is_read)
{
	const struct gclk_domain_timer *t;
	struct gclk_domain d;

	GCLK_EQ(parse(full, &d, NULL), 0);
	CU_ASSERT_STRING_EQUAL(d.name, "w\xc3\xbc" "st & leer");
	CU_ASSERT_STRING_EQUAL(d.uuid, "6b29fc40-ca47-1067-b31d-00dd010662da");
	CU_ASSERT_STRING_EQUAL(d.machine, "pc-q35-7.2");
	GCLK_EQ(d.type, GCLK_DOMAIN_KVM);
	GCLK_EQ(d.n_vcpus, 2);
	GCLK_EQ(d.max_vcpus, 4);
	CU_ASSERT_STRING_EQUAL(d.clock.offset, "variable");
	CU_ASSERT_STRING_EQUAL(d.clock.basis, "localtime");
	CU_ASSERT(d.clock.has_adjustment && !d.clock.adjustment_reset && !d.clock.has_start);
	GCLK_EQ(d.clock.adjustment_s, -3600);
	GCLK_EQ(d.n_timers, 5);
	t = gclk_domain_timer(&d, "rtc");
	CU_ASSERT_STRING_EQUAL(t->track, "guest");
	GCLK_EQ(t->ticks, GCLK_DOMAIN_TICKS_CATCHUP);
	GCLK_EQ(t->present, GCLK_DOMAIN_UNSET);
	GCLK_EQ(gclk_domain_timer(&d, "pit")->ticks, GCLK_DOMAIN_TICKS_DELAY);
	GCLK_EQ(gclk_domain_timer(&d, "hpet")->present, GCLK_DOMAIN_NO);
	GCLK_EQ(gclk_domain_timer(&d, "hypervclock")->present, GCLK_DOMAIN_YES);
	GCLK_EQ(gclk_domain_timer(&d, "tsc")->frequency_hz, 2900000000);
	CU_ASSERT_STRING_EQUAL(gclk_domain_timer(&d, "tsc")->mode, "native");
	CU_ASSERT_PTR_NULL(gclk_domain_timer(&d, "kvmclock"));
	GCLK_EQ(d.hv_stimer, GCLK_DOMAIN_YES);
	GCLK_EQ(d.hv_synic, GCLK_DOMAIN_YES);
	GCLK_EQ(d.hv_frequencies, GCLK_DOMAIN_NO);
	GCLK_EQ(d.hv_reenlightenment, GCLK_DOMAIN_UNSET);
	GCLK_EQ(d.invtsc, GCLK_DOMAIN_YES);
	CU_ASSERT(d.has_metadata);
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, "gap"), "cap=60s");
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, "ticks"), "rtc=catchup");
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, "hook"), "on");
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, "captured_at_ns"), "1712345678901234567");
	CU_ASSERT_PTR_NULL(gclk_domain_metadata(&d, "absent"));
}

GCLK_TEST(domain_xml, offsets_and_policies)
{
	static const char *const policies[] = { "delay", "catchup", "merge", "discard" };
	struct gclk_domain d;
	char xml[512];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(xml, sizeof(xml), "<domain type='qemu'><clock offset='utc'>"
			 "<timer name='pit' tickpolicy='%s'/></clock></domain>", policies[i]);
		GCLK_EQ(parse(xml, &d, NULL), 0);
		GCLK_EQ(d.timers[0].ticks, i + 1);
		CU_ASSERT_STRING_EQUAL(gclk_domain_ticks_name(d.timers[0].ticks), policies[i]);
		GCLK_EQ(d.type, GCLK_DOMAIN_QEMU);
		CU_ASSERT_FALSE(d.has_metadata);
	}
	GCLK_EQ(parse("<domain><clock offset='absolute' start='1700000000'/></domain>", &d, NULL), 0);
	CU_ASSERT(d.clock.has_start);
	GCLK_EQ(d.clock.start_s, 1700000000);
	GCLK_EQ(parse("<domain><clock offset='timezone' timezone='Europe/Paris'/></domain>", &d,
		      NULL), 0);
	CU_ASSERT_STRING_EQUAL(d.clock.timezone, "Europe/Paris");
	GCLK_EQ(parse("<domain><clock offset='utc' adjustment='reset'/></domain>", &d, NULL), 0);
	CU_ASSERT(d.clock.adjustment_reset && !d.clock.has_adjustment);
	GCLK_EQ(parse("<domstatus><pid/><domain type='kvm'><name>n</name></domain></domstatus>", &d,
		      NULL), 0);
	CU_ASSERT_STRING_EQUAL(d.name, "n");
}

GCLK_TEST(domain_xml, what_cannot_be_is_refused)
{
	static const struct {
		const char *xml;
		int status;
	} cases[] = {
		{ "", -GCLK_MALFORMED },
		{ "<domain>", -GCLK_MALFORMED },
		{ "<network/>", -GCLK_MALFORMED },
		{ "<domain><vcpu>-1</vcpu></domain>", -GCLK_MALFORMED },
		{ "<domain><vcpu>99999999999</vcpu></domain>", -GCLK_MALFORMED },
		{ "<domain><vcpu current='5'>4</vcpu></domain>", -GCLK_MALFORMED },
		{ "<domain><clock adjustment='soon'/></domain>", -GCLK_MALFORMED },
		{ "<domain><clock adjustment='9223372036854775808'/></domain>", -GCLK_MALFORMED },
		{ "<domain><clock><timer tickpolicy='delay'/></clock></domain>", -GCLK_MALFORMED },
		{ "<domain><clock><timer name='a' tickpolicy='none'/></clock></domain>",
		  -GCLK_MALFORMED },
		{ "<domain><clock><timer name='a' present='maybe'/></clock></domain>",
		  -GCLK_MALFORMED },
		{ "<domain><clock><timer name='tsc' frequency='-5'/></clock></domain>",
		  -GCLK_MALFORMED },
		{ "<domain><clock><timer name='aaaaaaaaaaaaaaaaaaaa'/></clock></domain>",
		  -GCLK_RANGE },
		{ "<domain><uuid>0123456789012345678901234567890123456789</uuid></domain>",
		  -GCLK_RANGE },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gclk_domain d;
		struct gclk_error e = { 0 };

		GCLK_EQ(parse(cases[i].xml, &d, &e), cases[i].status);
		CU_ASSERT(e.message[0] != 0);
	}
}

/* Neither expanded nor fetched: a document type ends the reading. */
GCLK_TEST(domain_xml, entities_and_external_parts_are_refused)
{
	static const char *const bombs[] = {
		"<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>"
		"<!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'><!ENTITY d '&c;&c;&c;&c;&c;&c;&c;&c;'>"
		"<!ENTITY e '&d;&d;&d;&d;&d;&d;&d;&d;'>]><domain><name>&e;</name></domain>",
		("<!DOCTYPE d [<!ENTITY f SYSTEM 'file:///etc/hostname'>]>"
		 "<domain><name>&f;</name></domain>"),
		"<!DOCTYPE domain SYSTEM 'http://127.0.0.1/domain.dtd'><domain/>",
		"<domain><name>&undeclared;</name></domain>",
	};

	for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
		struct gclk_domain d;
		struct gclk_error e = { 0 };

		GCLK_EQ(parse(bombs[i], &d, &e), -GCLK_MALFORMED);
		if (i < 3) {
			CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "document type"));
		}
	}
}

GCLK_TEST(domain_xml, deep_nesting_is_survived)
{
	size_t n = 100000;
	char *xml = malloc(n * 3 + 32);
	struct gclk_domain d;

	strcpy(xml, "<domain>");
	for (size_t i = 0; i < n; i++) {
		memcpy(xml + 8 + 3 * i, "<a>", 3);
	}
	xml[8 + 3 * n] = 0;
	GCLK_EQ(parse(xml, &d, NULL), -GCLK_MALFORMED);
	free(xml);
}

GCLK_TEST(domain_xml, too_many_are_refused)
{
	char *xml = calloc(1, 8192), *at = xml;
	struct gclk_domain d;

	at += sprintf(at, "<domain><clock>");
	for (int i = 0; i <= GCLK_DOMAIN_MAX_TIMERS; i++) {
		at += sprintf(at, "<timer name='t%d'/>", i);
	}
	sprintf(at, "</clock></domain>");
	GCLK_EQ(parse(xml, &d, NULL), -GCLK_RANGE);
	at = xml + sprintf(xml, "<domain><metadata><g:x xmlns:g='%s'", GCLK_DOMAIN_NAMESPACE);
	for (int i = 0; i <= GCLK_DOMAIN_MAX_METADATA; i++) {
		at += sprintf(at, " a%d='1'", i);
	}
	sprintf(at, "/></metadata></domain>");
	GCLK_EQ(parse(xml, &d, NULL), -GCLK_RANGE);
	free(xml);
}

GCLK_TEST(domain_xml, any_damage_is_survived)
{
	for (unsigned i = 0; i < 4000 * gclk_test_scale(); i++) {
		char xml[sizeof(full)];
		struct gclk_domain d;
		size_t n = sizeof(full) - 1;

		memcpy(xml, full, sizeof(full));
		if (i < sizeof(full)) {
			n = i;
		} else {
			xml[gclk_random_below(n)] = (char)gclk_random();
			xml[gclk_random_below(n)] = "<>'&/ "[gclk_random_below(6)];
		}
		if (gclk_domain_parse(xml, n, &d, NULL) == 0) {
			CU_ASSERT(d.n_timers <= GCLK_DOMAIN_MAX_TIMERS);
		}
	}
}

/* Set, changed, taken away; the rest stays, the order of timers too. */
GCLK_TEST(domain_xml, metadata_is_written)
{
	static const char xml[] =
		"<domain type='kvm'>\n  <name>a&amp;b</name>\n  <metadata>\n"
		"    <o:x xmlns:o='urn:other' k='1'/>\n  </metadata>\n"
		"  <clock><timer name='tsc'/><timer name='pit'/></clock>\n</domain>\n";
	struct gclk_domain_attribute set[2] = { { GCLK_CAPTURED_AT, "12" }, { "gap", "count" } };
	struct gclk_domain d = { 0 };
	char *once = NULL, *twice = NULL;

	GCLK_EQ(gclk_domain_write_metadata(xml, strlen(xml), set, 2, &once, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(once);
	CU_ASSERT_PTR_NOT_NULL(strstr(once, "urn:other"));
	GCLK_EQ(gclk_domain_read(once, strlen(once), &d, NULL), 0);
	CU_ASSERT_STRING_EQUAL(d.name, "a&b");
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, GCLK_CAPTURED_AT), "12");
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, "gap"), "count");
	CU_ASSERT_STRING_EQUAL(d.timers[1].name, "pit");
	strcpy(set[0].value, "13");
	set[1].value[0] = 0;
	GCLK_EQ(gclk_domain_write_metadata(once, strlen(once), set, 2, &twice, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(twice);
	GCLK_EQ(gclk_domain_read(twice, strlen(twice), &d, NULL), 0);
	GCLK_EQ(d.n_metadata, 1);
	CU_ASSERT_STRING_EQUAL(gclk_domain_metadata(&d, GCLK_CAPTURED_AT), "13");
	free(once);
	free(twice);
	GCLK_EQ(gclk_domain_write_metadata("<a/>", 4, set, 2, &once, NULL), -GCLK_MALFORMED);
	GCLK_EQ(gclk_domain_write_metadata("<!DOCTYPE a><domain/>", 21, set, 2, &once, NULL),
		-GCLK_MALFORMED);
}

/* One element with @n attributes, or a text with as many signs. */
static int parse_many(unsigned n, bool in_text, struct gclk_error *e)
{
	size_t size = 0, room = 64 + (size_t)n * 16;
	char *xml = malloc(room);
	struct gclk_domain d;
	int r;

	size += (size_t)snprintf(xml + size, room - size, "<domain%s", in_text ? ">" : "");
	for (unsigned i = 0; i < n; i++) {
		size += (size_t)snprintf(xml + size, room - size, " a%u=''", i);
	}
	size += (size_t)snprintf(xml + size, room - size, "%s</domain>", in_text ? "" : ">");
	r = gclk_domain_parse(xml, size, &d, e);
	free(xml);
	return r;
}

GCLK_TEST(domain_xml, a_swarm_of_attributes_is_refused)
{
	struct gclk_error e = { 0 };

	GCLK_EQ(parse_many(1000, false, &e), 0);
	GCLK_EQ(parse_many(9000, true, &e), 0);
	GCLK_EQ(parse_many(100000, false, &e), -GCLK_RANGE);
	CU_ASSERT(e.status == GCLK_RANGE && strstr(e.message, "attributes"));
}

/* What is counted and what is parsed must be the same text. */
GCLK_TEST(domain_xml, only_utf8_is_read)
{
	static const char ebcdic[] = "\x4c\x6f\xa7\x94\x93", wide[] = "<\0d\0/\0>\0";
	static const char said[] = "<?xml version='1.0' encoding='UTF-7'?>"
				   "<domain><name>+AGE-</name></domain>";
	struct gclk_domain d;

	GCLK_EQ(gclk_domain_parse(ebcdic, sizeof(ebcdic) - 1, &d, NULL), -GCLK_MALFORMED);
	GCLK_EQ(gclk_domain_parse(wide, sizeof(wide), &d, NULL), -GCLK_MALFORMED);
	GCLK_EQ(gclk_domain_parse(said, sizeof(said) - 1, &d, NULL), 0);
	CU_ASSERT_STRING_EQUAL(d.name, "+AGE-");
	GCLK_EQ(gclk_domain_parse("\xef\xbb\xbf\n<domain/>", 13, &d, NULL), 0);
}
