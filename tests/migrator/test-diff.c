/* SPDX-License-Identifier: MIT */
/* Differences of states, and how far two hosts' wall clocks are apart. */
#include <string.h>

#include "gclk-test.h"
#include "migrator/diff.h"
#include "migrator/situation.h"

static const struct change *find(const struct changes *changes, const char *clock,
				 const char *field)
{
	for (unsigned i = 0; i < changes->n; i++) {
		if (!strcmp(changes->items[i].clock, clock) &&
		    !strcmp(changes->items[i].field->name, field)) {
			return &changes->items[i];
		}
	}
	return NULL;
}

static void expect_delta(const struct change *change, const char *expected)
{
	char delta[48];

	CU_ASSERT_FATAL(change != NULL);
	GCLK_EQ(change_delta(change, delta), 1);
	CU_ASSERT_STRING_EQUAL(delta, expected);
}

GCLK_TEST(diff, a_state_does_not_differ_from_itself)
{
	struct gclk_state *a = gclk_state_new(3);
	struct changes changes;

	GCLK_SET(tsc, &a->tsc[2], value_ticks, 5);
	GCLK_SET(pit_channel, &a->pit.channels[1], count, 18);
	GCLK_EQ(diff_states(a, a, &changes), 0);
	GCLK_EQ(changes.n, 0);
	changes_free(&changes);
	gclk_state_free(a);
}

GCLK_TEST(diff, every_kind_of_difference)
{
	struct gclk_state *a = gclk_state_new(2), *b = gclk_state_new(2);
	struct changes changes;
	char delta[48];

	GCLK_SET(tsc, &a->tsc[1], value_ticks, UINT64_MAX);
	GCLK_SET(tsc, &b->tsc[1], value_ticks, 9); /* wrapped */
	GCLK_SET(rtc, &a->rtc, base_at_ns, INT64_MIN);
	GCLK_SET(rtc, &b->rtc, base_at_ns, INT64_MAX); /* wider than 64 bits */
	GCLK_SET(hpet, &a->hpet, n_timers, 1);
	GCLK_SET(hpet, &b->hpet, n_timers, 2);
	GCLK_SET(hpet_timer, &b->hpet.timers[1], period_ticks, 77); /* only there */
	GCLK_SET(pit, &a->pit, in_kernel, 0);
	GCLK_SET(pit, &b->pit, in_kernel, 1);
	GCLK_SET(lapic, &a->lapic[0], initial_count, 100);
	GCLK_SET(lapic, &b->lapic[0], initial_count, 40);
	b->rtc.cmos[5] = 1;
	a->rtc.has |= GCLK_BIT(rtc, cmos);
	b->rtc.has |= GCLK_BIT(rtc, cmos);

	GCLK_EQ(diff_states(a, b, &changes), 0);
	expect_delta(find(&changes, "tsc[1]", "value_ticks"), "10");
	expect_delta(find(&changes, "rtc", "base_at_ns"), "18446744073709551615");
	expect_delta(find(&changes, "hpet", "n_timers"), "1");
	expect_delta(find(&changes, "lapic[0]", "initial_count"), "-60");
	CU_ASSERT_PTR_NOT_NULL(find(&changes, "hpet.timers[1]", "period_ticks"));
	CU_ASSERT_PTR_NOT_NULL(find(&changes, "rtc", "cmos"));
	GCLK_EQ(change_delta(find(&changes, "pit", "in_kernel"), delta), 0);
	GCLK_EQ(change_delta(find(&changes, "hpet.timers[1]", "period_ticks"), delta), 0);
	GCLK_EQ(changes.n, 7);
	changes_free(&changes);
	gclk_state_free(a);
	gclk_state_free(b);
}

GCLK_TEST(diff, different_numbers_of_vcpus)
{
	struct gclk_state *a = gclk_state_new(1), *b = gclk_state_new(2);
	struct changes changes;

	GCLK_SET(tsc, &b->tsc[1], value_ticks, 5);
	GCLK_EQ(diff_states(a, b, &changes), 0);
	GCLK_EQ(changes.n, 1);
	CU_ASSERT_STRING_EQUAL(changes.items[0].clock, "tsc[1]");
	CU_ASSERT(!change_has(&changes.items[0], changes.items[0].a));
	CU_ASSERT(change_has(&changes.items[0], changes.items[0].b));
	changes_free(&changes);
	gclk_state_free(a);
	gclk_state_free(b);
}

GCLK_TEST(diff, values_as_text)
{
	struct gclk_state *a = gclk_state_new(1), *b = gclk_state_new(1);
	struct changes changes;
	char text[128];

	GCLK_SET(lapic, &b->lapic[0], lvt_timer, 0x200ec);
	GCLK_SET(guest, &b->guest, accelerator, GCLK_ACCEL_TCG);
	GCLK_SET(pit, &b->pit, in_kernel, 1);
	GCLK_SET(rtc, &b->rtc, offset_ns, -1500);
	GCLK_EQ(diff_states(a, b, &changes), 0);
	GCLK_EQ(changes.n, 4);
	for (unsigned i = 0; i < changes.n; i++) {
		const struct change *c = &changes.items[i];

		value_text(c->field, c->b, text, sizeof(text));
		if (!strcmp(c->field->name, "lvt_timer")) {
			CU_ASSERT_STRING_EQUAL(text, "0x200ec vector=0xec periodic");
		} else if (!strcmp(c->field->name, "accelerator")) {
			CU_ASSERT_STRING_EQUAL(text, "tcg");
		} else if (!strcmp(c->field->name, "in_kernel")) {
			CU_ASSERT_STRING_EQUAL(text, "yes");
		} else {
			CU_ASSERT_STRING_EQUAL(text, "-1 500");
		}
	}
	changes_free(&changes);
	gclk_state_free(a);
	gclk_state_free(b);
}

static struct gclk_host host(const char *boot_id, int synchronised, uint64_t maxerror_ns)
{
	struct gclk_host h = { 0 };

	h.has |= GCLK_BIT(host, boot_id);
	strcpy(h.boot_id, boot_id);
	GCLK_SET(host, &h, flags, synchronised ? GCLK_HOST_SYNCHRONISED : 0);
	if (maxerror_ns) {
		GCLK_SET(host, &h, ntp_maxerror_ns, maxerror_ns);
	}
	return h;
}

GCLK_TEST(situation, wall_clocks_agree_only_where_that_is_known)
{
	struct gclk_host here = host("here", 1, 1000), there = host("there", 1, 500);
	struct gclk_host adrift = host("adrift", 0, 500), unknown = { 0 };
	struct gclk_disagreement d = { 9, 9 };

	CU_ASSERT_STRING_EQUAL(disagreement_find(&here, &here, &here, &d), "same-boot");
	GCLK_EQ(d.ns, 0);
	GCLK_EQ(d.uncertainty_ns, 0);
	CU_ASSERT_STRING_EQUAL(disagreement_find(&unknown, &here, &here, &d),
			       "assumed-same-host");
	GCLK_EQ(d.uncertainty_ns, 0);
	CU_ASSERT_STRING_EQUAL(disagreement_find(&there, &here, &here, &d),
			       "synchronised");
	GCLK_EQ(d.uncertainty_ns, 1500);
	CU_ASSERT_STRING_EQUAL(disagreement_find(&unknown, &there, &here, &d),
			       "synchronised");
	GCLK_EQ(d.uncertainty_ns, 1500);
	CU_ASSERT_STRING_EQUAL(disagreement_find(&adrift, &here, &here, &d),
			       "unmeasured");
	GCLK_EQ(d.uncertainty_ns, GCLK_UNBOUNDED);
	CU_ASSERT_STRING_EQUAL(disagreement_find(&unknown, &adrift, &here, &d),
			       "unmeasured");
	GCLK_EQ(d.uncertainty_ns, GCLK_UNBOUNDED);
}
