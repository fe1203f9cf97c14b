/* SPDX-License-Identifier: MIT */
/* Which host can take which guest. */
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/takes.h"

static struct gclk_host a_host(uint64_t hz, bool scales)
{
	struct gclk_host host = { 0 };

	if (hz) {
		GCLK_SET(host, &host, tsc_hz, hz);
	}
	GCLK_SET(host, &host, flags, scales ? GCLK_HOST_TSC_SCALING : 0);
	return host;
}

struct answer {
	enum takes verdict;
	char id[48], message[360];
};

static struct answer ask(uint64_t from_hz, uint64_t to_hz, bool scales, bool emulated)
{
	struct gclk_host from = a_host(from_hz, false), to = a_host(to_hz, scales);
	struct takes_guest guest = takes_guest_of_host(&from);
	struct gclk_findings *findings = calloc(1, sizeof(*findings));
	struct gclk_error error = { 0 };
	struct answer answer = { 0 };

	guest.emulated = emulated;
	GCLK_EQ(takes(&guest, &to, &answer.verdict, findings, &error), 0);
	if (findings->n) {
		snprintf(answer.id, sizeof(answer.id), "%s", findings->items[0].info->id);
		snprintf(answer.message, sizeof(answer.message), "%s",
			 findings->items[0].message);
	}
	free(findings);
	return answer;
}

GCLK_TEST(takes, by_the_frequency)
{
	struct answer a = ask(2000000000, 2000000000, false, false);

	GCLK_EQ(a.verdict, TAKES_YES);
	CU_ASSERT_STRING_EQUAL(a.id, "");
	/* what kHz round away is no difference */
	GCLK_EQ(ask(2000000000, 2000000999, false, false).verdict, TAKES_YES);
	/* 100 ppm: taken for the same, and 8.6 s a day */
	a = ask(2000000000, 2000200000, false, false);
	GCLK_EQ(a.verdict, TAKES_DRIFTING);
	CU_ASSERT_STRING_EQUAL(a.id, "tsc-rate-tolerated");
	CU_ASSERT(strstr(a.message, "2000200000 Hz") && strstr(a.message, "8.64s a day"));
	GCLK_EQ(ask(2000000000, 2000500000, false, false).verdict, TAKES_DRIFTING);
	/* 251 ppm */
	a = ask(2000000000, 2000502000, false, false);
	GCLK_EQ(a.verdict, TAKES_NO);
	CU_ASSERT_STRING_EQUAL(a.id, "tsc-rate-not-honoured");
	a = ask(2000000000, 2000502000, true, false);
	GCLK_EQ(a.verdict, TAKES_SCALED);
	CU_ASSERT_STRING_EQUAL(a.id, "tsc-scaled");
	GCLK_EQ(ask(3000000000, 2000000000, false, false).verdict, TAKES_NO);
}

GCLK_TEST(takes, an_emulator_cannot_scale)
{
	GCLK_EQ(ask(2000000000, 2000000000, true, true).verdict, TAKES_YES);
	GCLK_EQ(ask(2000000000, 2000200000, true, true).verdict, TAKES_DRIFTING);
	GCLK_EQ(ask(2000000000, 2100000000, true, true).verdict, TAKES_NO);
}

GCLK_TEST(takes, what_nobody_knows_is_unknown)
{
	GCLK_EQ(ask(0, 2000000000, false, false).verdict, TAKES_UNKNOWN);
	GCLK_EQ(ask(2000000000, 0, false, false).verdict, TAKES_UNKNOWN);
	GCLK_EQ(ask(0, 0, false, false).verdict, TAKES_UNKNOWN);
}

static struct gclk_domain *domain_of(const char *clock)
{
	struct gclk_domain *domain = calloc(1, sizeof(*domain));
	struct gclk_error error = { 0 };
	char xml[1024];

	snprintf(
		xml, sizeof(xml),
		"<domain type='kvm'><name>web1</name>"
		"<uuid>8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a0</uuid>"
		"<os><type machine='pc-q35-7.2'>hvm</type></os><vcpu>1</vcpu>%s</domain>",
		clock);
	GCLK_EQ(gclk_domain_read(xml, strlen(xml), domain, &error), 0);
	CU_ASSERT_STRING_EQUAL(error.message, "");
	return domain;
}

GCLK_TEST(takes, a_domain_may_pin_its_frequency)
{
	struct gclk_host host = a_host(2000000000, false);
	struct gclk_domain *domain = domain_of(
		"<clock offset='utc'><timer name='tsc' frequency='2500000000'/></clock>");
	struct takes_guest guest = takes_guest_of_domain(domain, &host);
	enum takes verdict = TAKES_YES;

	GCLK_EQ(guest.tsc_hz, 2500000000);
	GCLK_EQ(guest.emulated, 0);
	GCLK_EQ(takes(&guest, &host, &verdict, NULL, NULL), 0);
	GCLK_EQ(verdict, TAKES_NO);
	free(domain);
	domain = domain_of("<clock offset='utc'/>");
	guest = takes_guest_of_domain(domain, &host);
	GCLK_EQ(guest.tsc_hz, 2000000000);
	free(domain);
}

GCLK_TEST(takes, what_the_xml_leaves_open)
{
	struct gclk_findings *findings = calloc(1, sizeof(*findings));
	struct gclk_domain *domain = domain_of(
		"<cpu mode='host-passthrough'><feature name='invtsc' "
		"policy='require'/></cpu>"
		"<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/></clock>");

	takes_lint(domain, findings);
	GCLK_EQ(findings->n, 2);
	CU_ASSERT_STRING_EQUAL(findings->items[0].info->id, "invtsc-without-frequency");
	CU_ASSERT_STRING_EQUAL(findings->items[1].info->id, "ticks-policy-unknown");
	CU_ASSERT_STRING_EQUAL(findings->items[1].clock, "pit");
	free(domain);
	memset(findings, 0, sizeof(*findings));
	domain = domain_of("<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/>"
			   "<timer name='pit' tickpolicy='delay'/>"
			   "<timer name='tsc' frequency='2000000000'/></clock>");
	takes_lint(domain, findings);
	GCLK_EQ(findings->n, 0);
	free(domain);
	free(findings);
}
