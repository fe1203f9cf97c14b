/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "bundle/bundle.h"
#include "bundle/crc32.h"
#include "core/util.h"
#include "gclk-test.h"
#include "random-state.h"

#define HEADER GCLK_BUNDLE_HEADER_BYTES

static uint8_t *packed(const struct gclk_state *state, size_t *ret_n)
{
	struct gclk_error err = { 0 };
	int64_t need = gclk_state_pack(state, NULL, 0, &err), n;
	uint8_t *buf;

	if (need < 0) {
		printf("\n    %s: %s\n", err.where, err.message);
	}
	CU_ASSERT_FATAL(need > HEADER);
	buf = malloc((size_t)need);
	CU_ASSERT_FATAL(buf != NULL);
	n = gclk_state_pack(state, buf, (size_t)need, &err);
	GCLK_EQ(n, need);
	*ret_n = (size_t)need;
	return buf;
}

static void set_le32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++) {
		p[i] = (uint8_t)(v >> 8 * i);
	}
}

/* A header that fits whatever body follows it. */
static void seal(uint8_t *buf, size_t size)
{
	static const uint8_t magic[8] = { 0x89, 'G', 'C', 'L', 'K', '\r', '\n', 0x1a };

	memcpy(buf, magic, sizeof(magic));
	set_le32(buf + 8, (uint32_t)(size - HEADER));
	set_le32(buf + 12, gclk_crc32(buf + HEADER, size - HEADER));
}

/* The message inside a bundle, and back: what another release's tools would do. */
static Guestclock__V1__Bundle *raw_unpack(const uint8_t *buf, size_t size)
{
	Guestclock__V1__Bundle *raw =
		guestclock__v1__bundle__unpack(NULL, size - HEADER, buf + HEADER);

	CU_ASSERT_FATAL(raw != NULL);
	return raw;
}

static uint8_t *raw_pack(const Guestclock__V1__Bundle *raw, size_t *ret_size)
{
	size_t n = guestclock__v1__bundle__get_packed_size(raw);
	uint8_t *buf = malloc(HEADER + n);

	CU_ASSERT_FATAL(buf != NULL);
	guestclock__v1__bundle__pack(raw, buf + HEADER);
	seal(buf, HEADER + n);
	*ret_size = HEADER + n;
	return buf;
}

GCLK_TEST(bundle, crc32_is_that_of_ieee_802_3)
{
	GCLK_EQ(gclk_crc32("123456789", 9), 0xcbf43926);
	GCLK_EQ(gclk_crc32("", 0), 0);
}

GCLK_TEST(bundle, unpack_after_pack_is_identity)
{
	struct gclk_error err = { 0 };

	for (unsigned i = 0; i < 300 * gclk_test_scale(); i++) {
		uint32_t n = 1 + (uint32_t)gclk_random_below(12);
		struct gclk_state *before = gclk_state_new(n), *after = gclk_state_new(16);
		size_t size;
		uint8_t *buf;

		random_state(before, (unsigned)gclk_random_below(101));
		buf = packed(before, &size);
		random_state(after, 50);
		GCLK_EQ(gclk_state_unpack(after, buf, size, &err), 0);
		CU_ASSERT(states_equal(before, after));
		free(buf);
		gclk_state_free(before);
		gclk_state_free(after);
	}
}

/* The state in pieces gives the same bytes as the tree of the whole. */
GCLK_TEST(bundle, both_ways_to_pack_give_the_same_bytes)
{
	for (unsigned i = 0; i < 100 * gclk_test_scale(); i++) {
		struct gclk_state *state = gclk_state_new(5);
		struct gclk_bundle *bundle = gclk_bundle_new();
		size_t size;
		uint8_t *a, *b;

		random_state(state, (unsigned)gclk_random_below(101));
		a = packed(state, &size);
		b = malloc(size);
		GCLK_EQ(gclk_bundle_set_state(bundle, state, NULL), 0);
		GCLK_EQ(gclk_bundle_pack(bundle, NULL, 0, NULL), size);
		GCLK_EQ(gclk_bundle_pack(bundle, b, size, NULL), size);
		CU_ASSERT(!memcmp(a, b, size));
		free(a);
		free(b);
		gclk_bundle_free(bundle);
		gclk_state_free(state);
	}
}

GCLK_TEST(bundle, the_largest_state_fits)
{
	struct gclk_state *before = gclk_state_new(GCLK_VCPUS_MAX);
	struct gclk_state *after = gclk_state_new(GCLK_VCPUS_MAX);
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_error err = { 0 };
	size_t size;
	uint8_t *buf;

	random_state(before, 100);
	buf = packed(before, &size);
	CU_ASSERT(size < GCLK_BUNDLE_MAX_BYTES / 2);
	GCLK_EQ(gclk_state_unpack(after, buf, size, &err), 0);
	CU_ASSERT(states_equal(before, after));
	/* twice: a change needs room for the old tree and the new one */
	GCLK_EQ(gclk_bundle_set_state(bundle, before, &err), 0);
	GCLK_EQ(gclk_bundle_set_state(bundle, after, &err), 0);
	GCLK_EQ(gclk_bundle_pack(bundle, NULL, 0, &err), size);
	free(buf);
	gclk_bundle_free(bundle);
	gclk_state_free(before);
	gclk_state_free(after);
}

GCLK_TEST(bundle, too_small_a_buffer_or_state_is_refused)
{
	struct gclk_state *state = gclk_state_new(3), *small = gclk_state_new(2);
	struct gclk_error err = { 0 };
	size_t size;
	uint8_t *buf;

	random_state(state, 70);
	buf = packed(state, &size);
	for (size_t n = 1; n < size; n += 1 + n / 16) {
		uint8_t *shorter = malloc(n);

		GCLK_EQ(gclk_state_pack(state, shorter, n, &err), -GCLK_RANGE);
		free(shorter);
	}
	GCLK_EQ(gclk_state_unpack(small, buf, size, &err), -GCLK_RANGE);
	CU_ASSERT(!strcmp(err.where, "n_vcpus"));
	GCLK_EQ(count_fields(small), 0);
	free(buf);
	gclk_state_free(state);
	gclk_state_free(small);
}

GCLK_TEST(bundle, an_invalid_state_is_not_packed)
{
	struct gclk_state *state = gclk_state_new(1);
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_error err = { 0 };

	GCLK_SET(hpet, &state->hpet, period_fs, 0);
	GCLK_EQ(gclk_state_pack(state, NULL, 0, &err), -GCLK_RANGE);
	CU_ASSERT(!strcmp(err.where, "hpet.period_fs"));
	GCLK_EQ(gclk_bundle_set_state(bundle, state, &err), -GCLK_RANGE);
	GCLK_EQ(gclk_bundle_n_vcpus(bundle), 0);

	gclk_state_clear(state);
	strcpy(state->guest.name, "\xff");
	state->guest.has = GCLK_BIT(guest, name);
	GCLK_EQ(gclk_state_pack(state, NULL, 0, &err), -GCLK_RANGE);
	CU_ASSERT(!strcmp(err.where, "guest.name"));

	gclk_state_clear(state);
	state->n_incompatible = 1;
	strcpy(state->incompatible[0], "Not A Name");
	GCLK_EQ(gclk_state_pack(state, NULL, 0, &err), -GCLK_RANGE);
	gclk_bundle_free(bundle);
	gclk_state_free(state);
}

GCLK_TEST(bundle, text_that_is_not_utf8_is_refused)
{
	static const struct {
		const char *text;
		bool good;
	} cases[] = {
		{ "plain", true },	      { "\xc2\x80", true },	   { "\xdf\xbf", true },
		{ "\xe0\xa0\x80", true },     { "\xed\x9f\xbf", true },	   { "\xef\xbf\xbf", true },
		{ "\xf0\x90\x80\x80", true }, { "\xf4\x8f\xbf\xbf", true }, { "\x80", false },
		{ "\xc0\x80", false },	      { "\xc1\xbf", false },	   { "\xc3", false },
		{ "\xe0\x9f\xbf", false },    { "\xed\xa0\x80", false },   { "\xe2\x82", false },
		{ "\xf0\x8f\xbf\xbf", false }, { "\xf4\x90\x80\x80", false }, { "\xf5\x80\x80\x80", false },
		{ "\xff", false },	      { "a\xe2\x28\xa1", false },
	};
	struct gclk_state *state = gclk_state_new(1);

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		gclk_state_clear(state);
		strcpy(state->guest.name, cases[i].text);
		state->guest.has = GCLK_BIT(guest, name);
		CU_ASSERT((gclk_state_pack(state, NULL, 0, NULL) > 0) == cases[i].good);
	}
	gclk_state_free(state);
}

/* ---- the other parts ---- */

GCLK_TEST(bundle, records_of_the_envelope_come_back)
{
	for (unsigned i = 0; i < 200 * gclk_test_scale(); i++) {
		struct gclk_bundle *a = gclk_bundle_new(), *b = NULL;
		struct gclk_provenance p, p2;
		struct gclk_host h, h2;
		struct gclk_rewrite w, w2;
		uint8_t buf[8192];
		int64_t n;

		random_record(&gclk_provenance_record, &p, 60);
		random_record(&gclk_host_record, &h, 60);
		random_record(&gclk_rewrite_record, &w, 60);
		GCLK_EQ(gclk_bundle_provenance(a, &p2, NULL), GCLK_BUNDLE_ABSENT);
		GCLK_EQ(gclk_bundle_host(a, &h2, NULL), GCLK_BUNDLE_ABSENT);
		GCLK_EQ(gclk_bundle_rewrite(a, &w2, NULL), GCLK_BUNDLE_ABSENT);
		GCLK_EQ(gclk_bundle_set_provenance(a, &p, NULL), 0);
		GCLK_EQ(gclk_bundle_set_host(a, &h, NULL), 0);
		GCLK_EQ(gclk_bundle_set_rewrite(a, &w, NULL), 0);
		n = gclk_bundle_pack(a, buf, sizeof(buf), NULL);
		CU_ASSERT_FATAL(n > 0);
		GCLK_EQ(gclk_bundle_unpack(buf, (size_t)n, &b, NULL), 0);
		CU_ASSERT_FATAL(b != NULL);
		GCLK_EQ(gclk_bundle_provenance(b, &p2, NULL), 0);
		GCLK_EQ(gclk_bundle_host(b, &h2, NULL), 0);
		GCLK_EQ(gclk_bundle_rewrite(b, &w2, NULL), 0);
		CU_ASSERT(records_equal(&gclk_provenance_record, &p, &p2));
		CU_ASSERT(records_equal(&gclk_host_record, &h, &h2));
		CU_ASSERT(records_equal(&gclk_rewrite_record, &w, &w2));
		GCLK_EQ(gclk_bundle_set_host(b, NULL, NULL), 0);
		GCLK_EQ(gclk_bundle_host(b, &h2, NULL), GCLK_BUNDLE_ABSENT);
		GCLK_EQ(gclk_bundle_n_vcpus(b), 0);
		gclk_bundle_free(a);
		gclk_bundle_free(b);
	}
}

static void fill_plan(struct gclk_plan *plan, struct gclk_ledger_entry *entries)
{
	*plan = (struct gclk_plan){
		.gap_ns = -5, .gap_uncertainty_ns = GCLK_UNBOUNDED, .counted_ns = 7,
		.policy = GCLK_GAP_CAP, .n_ledger = 2, .ledger_max = 2, .ledger = entries,
		.when = { .captured = { 100, 3 }, .load = { 200, GCLK_UNBOUNDED },
			  .run = { 300, 0 }, .run_tai_s = 37 },
		.disagreement = { -9, GCLK_UNBOUNDED },
		.n_bounds = 2,
		.bounds = { { "tsc", 12 }, { "rtc", GCLK_UNBOUNDED } },
	};
	entries[0] = (struct gclk_ledger_entry){ "pit", 999847, 1, 5, 2, 3, 1,
						 GCLK_TICKS_MERGE, "why" };
	entries[1] = (struct gclk_ledger_entry){ .timer = "rtc" };
	plan->findings.n = 1;
	plan->findings.left_out = 4;
	plan->findings.items[0] = (struct gclk_finding){
		.info = &gclk_finding_table[0], .severity = GCLK_WARNING, .forced = 1,
		.clock = "hpet[2]", .message = "a sentence",
	};
}

static void check_plan(const Guestclock__V1__Plan *m)
{
	CU_ASSERT_FATAL(m != NULL && m->n_ledger == 2 && m->n_bounds == 2 && m->n_findings == 1);
	GCLK_EQ(m->gap_ns, -5);
	CU_ASSERT(!m->has_gap_uncertainty_ns && m->has_counted_ns);
	GCLK_EQ(m->policy, GUESTCLOCK__V1__GAP_POLICY__GAP_POLICY_CAP);
	GCLK_EQ(m->captured->uncertainty_ns, 3);
	GCLK_EQ(m->load->realtime_ns, 200);
	CU_ASSERT(!m->load->has_uncertainty_ns && m->run->has_uncertainty_ns);
	CU_ASSERT(!m->has_captured_tai_s && m->has_run_tai_s && !m->has_elapsed_ns);
	GCLK_EQ(m->disagreement->ns, -9);
	CU_ASSERT(!strcmp(m->ledger[0]->timer, "pit") && !strcmp(m->ledger[0]->why, "why"));
	GCLK_EQ(m->ledger[0]->period_ns, 999847);
	GCLK_EQ(m->ledger[0]->owed_before + m->ledger[0]->missed,
		m->ledger[0]->replayed + m->ledger[0]->merged + m->ledger[0]->dropped);
	GCLK_EQ(m->ledger[0]->policy, GUESTCLOCK__V1__TICK_POLICY__TICK_POLICY_MERGE);
	GCLK_EQ(m->bounds[0]->bound_ns, 12);
	CU_ASSERT(!m->bounds[1]->has_bound_ns);
	CU_ASSERT(!strcmp(m->findings[0]->id, gclk_finding_table[0].id));
	CU_ASSERT(!strcmp(m->findings[0]->clock, "hpet[2]") && m->findings[0]->forced);
	GCLK_EQ(m->findings_left_out, 4);
	CU_ASSERT(!strcmp(m->carrier, "a carrier"));
}

GCLK_TEST(bundle, a_plan_is_kept)
{
	const struct gclk_carrier carrier = { .name = "a carrier" };
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_ledger_entry entries[2];
	static struct gclk_plan plan;
	Guestclock__V1__Bundle *raw;
	uint8_t buf[4096];
	int64_t n;

	fill_plan(&plan, entries);
	GCLK_EQ(gclk_bundle_set_plan(bundle, &plan, &carrier, NULL), 0);
	GCLK_EQ(gclk_bundle_set_plan(bundle, &plan, &carrier, NULL), 0);
	n = gclk_bundle_pack(bundle, buf, sizeof(buf), NULL);
	CU_ASSERT_FATAL(n > 0);
	raw = raw_unpack(buf, (size_t)n);
	check_plan(raw->plan);
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	GCLK_EQ(gclk_bundle_set_plan(bundle, NULL, NULL, NULL), 0);
	CU_ASSERT(gclk_bundle_pack(bundle, NULL, 0, NULL) < n);
	gclk_bundle_free(bundle);
}

/* ---- later releases ---- */

/* A field that no schema has: number 9999, four bytes. */
static void add_unknown(ProtobufCMessage *message)
{
	ProtobufCMessageUnknownField *field = malloc(sizeof(*field));
	uint8_t *data = malloc(5);

	CU_ASSERT_FATAL(field && data && message->n_unknown_fields == 0);
	memcpy(data, "\x04news", 5);
	*field = (ProtobufCMessageUnknownField){
		.tag = 9999, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .len = 5,
		.data = data,
	};
	message->unknown_fields = field;
	message->n_unknown_fields = 1;
}

static bool has_unknown(const ProtobufCMessage *message)
{
	return message->n_unknown_fields == 1 && message->unknown_fields[0].tag == 9999 &&
	       message->unknown_fields[0].len == 5 &&
	       !memcmp(message->unknown_fields[0].data, "\x04news", 5);
}

/* What a later release would write: more in every message, and a part of its own. */
static uint8_t *from_the_future(const struct gclk_state *state, size_t *ret_size)
{
	size_t size;
	uint8_t *buf = packed(state, &size), *later;
	Guestclock__V1__Bundle *raw = raw_unpack(buf, size);

	add_unknown(&raw->base);
	add_unknown(&raw->state->base);
	add_unknown(&raw->state->tsc[1]->base);
	add_unknown(&raw->state->pit->base);
	add_unknown(&raw->state->pit->channels[2]->base);
	add_unknown(&raw->state->rtc->base);
	raw->state->kvm_vm = malloc(sizeof(*raw->state->kvm_vm));
	guestclock__v1__kvm_vm__init(raw->state->kvm_vm);
	raw->state->kvm_vm->has_tsc_khz = 1;
	raw->state->kvm_vm->tsc_khz = 2100000;
	later = raw_pack(raw, ret_size);
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	free(buf);
	return later;
}

GCLK_TEST(bundle, what_is_not_understood_is_written_again)
{
	struct gclk_state *state = gclk_state_new(3), *other = gclk_state_new(3);
	struct gclk_provenance provenance = { 0 };
	Guestclock__V1__Bundle *raw;
	struct gclk_bundle *bundle;
	size_t size;
	uint8_t *buf;
	int64_t n;

	random_state(state, 100);
	random_state(other, 100);
	other->rtc = (struct gclk_rtc){ 0 };	/* the device goes, what it had more stays */
	other->hpet = (struct gclk_hpet){ 0 };
	buf = from_the_future(state, &size);
	GCLK_EQ(gclk_bundle_unpack(buf, size, &bundle, NULL), 0);
	GCLK_EQ(gclk_bundle_set_state(bundle, other, NULL), 0);
	GCLK_EQ(gclk_bundle_set_provenance(bundle, &provenance, NULL), 0);
	n = gclk_bundle_pack(bundle, NULL, 0, NULL);
	CU_ASSERT_FATAL(n > 0);
	buf = realloc(buf, (size_t)n);
	GCLK_EQ(gclk_bundle_pack(bundle, buf, (size_t)n, NULL), n);
	raw = raw_unpack(buf, (size_t)n);
	CU_ASSERT(has_unknown(&raw->base) && has_unknown(&raw->state->base));
	CU_ASSERT(has_unknown(&raw->state->tsc[1]->base));
	CU_ASSERT(!has_unknown(&raw->state->tsc[0]->base));
	CU_ASSERT(has_unknown(&raw->state->pit->base));
	CU_ASSERT(has_unknown(&raw->state->pit->channels[2]->base));
	CU_ASSERT(raw->state->rtc && has_unknown(&raw->state->rtc->base));
	CU_ASSERT(raw->state->hpet == NULL);
	CU_ASSERT(raw->state->kvm_vm && raw->state->kvm_vm->tsc_khz == 2100000);
	GCLK_EQ(gclk_state_unpack(state, buf, (size_t)n, NULL), 0);
	CU_ASSERT(states_equal(state, other));
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	gclk_bundle_free(bundle);
	gclk_state_free(state);
	gclk_state_free(other);
	free(buf);
}

GCLK_TEST(bundle, nothing_at_all_is_too_short)
{
	struct gclk_bundle *bundle = NULL;

	GCLK_EQ(gclk_bundle_unpack(NULL, 0, &bundle, NULL), -GCLK_TRUNCATED);
	CU_ASSERT_PTR_NULL(bundle);
}

/* protobuf-c reads it spelt long, and writes it so that nobody reads it again. */
GCLK_TEST(bundle, a_field_of_number_0_is_refused)
{
	static const struct { uint8_t body[8]; size_t n; int expected; } cases[] = {
		{ { 0x08, 1, 0xf8, 0x3f, 5 }, 5, 0 },			/* 1023: only not known */
		{ { 0x08, 1, 0x80, 0, 5 }, 5, -GCLK_MALFORMED },
		{ { 0x08, 1, 0x12, 3, 0x80, 0, 5 }, 7, -GCLK_MALFORMED },	/* in the state */
		{ { 0x08, 1, 0x00, 5 }, 4, -GCLK_MALFORMED },
	};

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		uint8_t buf[HEADER + 8];
		struct gclk_bundle *bundle = NULL;

		memcpy(buf + HEADER, cases[i].body, cases[i].n);
		seal(buf, HEADER + cases[i].n);
		GCLK_EQ(gclk_bundle_unpack(buf, HEADER + cases[i].n, &bundle, NULL),
			cases[i].expected);
		gclk_bundle_free(bundle);
	}
}

GCLK_TEST(bundle, an_unknown_feature_can_be_read_and_is_named)
{
	struct gclk_state *state = gclk_state_new(1);
	size_t size;
	uint8_t *buf;

	CU_ASSERT(gclk_state_unknown_feature(state) == NULL);
	GCLK_SET(kvmclock, &state->kvmclock, clock_ns, 5);
	strcpy(state->incompatible[0], "time-travel");
	state->n_incompatible = 1;
	buf = packed(state, &size);
	gclk_state_clear(state);
	GCLK_EQ(gclk_state_unpack(state, buf, size, NULL), 0);
	GCLK_EQ(state->kvmclock.clock_ns, 5);
	CU_ASSERT(gclk_state_unknown_feature(state) &&
		  !strcmp(gclk_state_unknown_feature(state), "time-travel"));
	free(buf);
	gclk_state_free(state);
}

/* Names that cannot be kept must not be lost either. */
GCLK_TEST(bundle, features_that_cannot_be_kept_are_refused)
{
	struct gclk_state *state = gclk_state_new(1);
	char name[] = "a-feature-with-a-name-longer-than-thirty-one";
	char *names[GCLK_INCOMPATIBLE_MAX + 1];
	size_t size;
	uint8_t *buf = packed(state, &size);
	Guestclock__V1__Bundle *raw = raw_unpack(buf, size);

	for (unsigned i = 0; i < GCLK_COUNT(names); i++) {
		names[i] = name;
	}
	raw->state->incompatible = names;
	for (unsigned turn = 0; turn < 3; turn++) {
		free(buf);
		raw->state->n_incompatible = turn == 0 ? 1 : GCLK_COUNT(names);
		buf = raw_pack(raw, &size);
		GCLK_EQ(gclk_state_unpack(state, buf, size, NULL), -GCLK_VERSION);
		name[turn == 0 ? 8 : 0] = 0;
	}
	raw->state->n_incompatible = 1;
	free(buf);
	buf = raw_pack(raw, &size);
	GCLK_EQ(gclk_state_unpack(state, buf, size, NULL), -GCLK_MALFORMED);
	raw->state->n_incompatible = 0;
	raw->state->incompatible = NULL;
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	free(buf);
	gclk_state_free(state);
}

GCLK_TEST(bundle, another_format_version_is_refused)
{
	struct gclk_state *state = gclk_state_new(1);
	struct gclk_bundle *bundle;
	size_t size;
	uint8_t *buf = packed(state, &size);
	Guestclock__V1__Bundle *raw = raw_unpack(buf, size);

	free(buf);
	raw->format_version = 2;
	buf = raw_pack(raw, &size);
	GCLK_EQ(gclk_bundle_unpack(buf, size, &bundle, NULL), -GCLK_VERSION);
	free(buf);
	raw->has_format_version = 0;
	buf = raw_pack(raw, &size);
	GCLK_EQ(gclk_bundle_unpack(buf, size, &bundle, NULL), -GCLK_MALFORMED);
	free(buf);
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	gclk_state_free(state);
}

/* ---- hostile bytes ---- */

static int read_bytes(const uint8_t *buf, size_t size, struct gclk_state *state,
		      struct gclk_error *reterr)
{
	uint8_t *copy = malloc(size > 0 ? size : 1);	/* its end is where ASan looks */
	int r;

	if (size > 0) {
		memcpy(copy, buf, size);
	}
	r = gclk_state_unpack(state, copy, size, reterr);
	free(copy);
	return r;
}

GCLK_TEST(bundle, every_truncation_is_told)
{
	struct gclk_state *state = gclk_state_new(2);
	size_t size;
	uint8_t *buf;

	random_state(state, 60);
	buf = packed(state, &size);
	for (size_t n = 0; n < size; n++) {
		struct gclk_error err = { 0 };

		GCLK_EQ(read_bytes(buf, n, state, &err), -GCLK_TRUNCATED);
		GCLK_EQ(err.offset, n);
		GCLK_EQ(count_fields(state), 0);
	}
	buf = realloc(buf, size + 1);
	buf[size] = 0;
	GCLK_EQ(read_bytes(buf, size + 1, state, NULL), -GCLK_MALFORMED);
	CU_ASSERT(gclk_bytes_are_bundle(buf, 8) && !gclk_bytes_are_bundle(buf, 7));
	free(buf);
	gclk_state_free(state);
}

GCLK_TEST(bundle, every_flipped_bit_is_told)
{
	struct gclk_state *state = gclk_state_new(1);
	size_t size;
	uint8_t *buf;

	random_state(state, 20);
	state->n_timers = 0;
	buf = packed(state, &size);
	for (size_t i = 0; i < 8 * size; i++) {
		buf[i / 8] ^= (uint8_t)(1u << i % 8);
		CU_ASSERT(read_bytes(buf, size, state, NULL) < 0);
		buf[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	GCLK_EQ(read_bytes(buf, size, state, NULL), 0);
	free(buf);
	gclk_state_free(state);
}

/* One to four edits: a byte changed, removed, or doubled. Returns the new size. */
static size_t damage(uint8_t *body, size_t size, size_t room)
{
	for (uint64_t i = 1 + gclk_random_below(4); i > 0 && size > 1; i--) {
		size_t at = gclk_random_below(size);

		switch (gclk_random_below(4)) {
		case 0:
			memmove(body + at, body + at + 1, size - at - 1);
			size--;
			break;
		case 1:
			if (size < room) {
				memmove(body + at + 1, body + at, size - at);
				size++;
			}
			break;
		case 2:
			body[at] ^= (uint8_t)(1u << gclk_random_below(8));
			break;
		default:
			body[at] = (uint8_t)gclk_random();
		}
	}
	return size;
}

/* With a checksum that fits, the damage reaches the decoder: an error, or a valid state. */
GCLK_TEST(bundle, damage_with_a_matching_checksum_does_no_harm)
{
	struct gclk_state *state = gclk_state_new(8), *again = gclk_state_new(8);
	unsigned n_read = 0, n = 20000 * gclk_test_scale();

	for (unsigned i = 0, turns = 0; i < n; i++, turns++) {
		static uint8_t original[1 << 16], buf[(1 << 16) + 16];
		static size_t size;
		size_t length;

		if (turns % 500 == 0) {
			gclk_state_free(state);
			state = gclk_state_new(8);
			random_state(state, 40);
			state->n_timers %= 8;
			size = (size_t)gclk_state_pack(state, original, sizeof(original), NULL);
		}
		memcpy(buf, original, size);
		length = HEADER + damage(buf + HEADER, size - HEADER, sizeof(buf) - HEADER);
		seal(buf, length);
		if (read_bytes(buf, length, state, NULL) == 0) {
			uint8_t *out = packed(state, &length);

			n_read++;
			GCLK_EQ(gclk_state_unpack(again, out, length, NULL), 0);
			CU_ASSERT(states_equal(state, again));
			free(out);
		}
	}
	CU_ASSERT(n_read > n / 100 && n_read < n);
	gclk_state_free(state);
	gclk_state_free(again);
}

/* Two bytes on the wire, hundreds in memory: field @key, empty, again and again. */
static int read_flood(uint8_t key, size_t n, struct gclk_error *reterr)
{
	size_t inner = 2 * n, size = HEADER + 2 + 5 + inner, at = HEADER;
	uint8_t *buf = malloc(size);
	struct gclk_bundle *bundle;
	int r;

	buf[at++] = 0x08;	/* format_version = 1 */
	buf[at++] = 0x01;
	buf[at++] = 0x12;	/* state, its length in four bytes */
	for (unsigned i = 0; i < 4; i++) {
		buf[at++] = (uint8_t)((inner >> 7 * i & 0x7f) | (i < 3 ? 0x80 : 0));
	}
	for (size_t i = 0; i < n; i++) {
		buf[at++] = key;
		buf[at++] = 0;
	}
	seal(buf, size);
	r = gclk_bundle_unpack(buf, size, &bundle, reterr);
	if (r == 0) {
		gclk_bundle_free(bundle);
	}
	free(buf);
	return r;
}

GCLK_TEST(bundle, memory_is_bounded)
{
	static const uint8_t keys[] = { 0x3a, 0x62, 0x7a, 0x0a };
	struct gclk_error err = { 0 };

	GCLK_EQ(read_flood(0x3a, 1000, &err), 0);
	for (unsigned i = 0; i < 4; i++) {
		GCLK_EQ(read_flood(keys[i], 8 * 1024 * 1024 - 16, &err), -GCLK_RANGE);
	}
	GCLK_EQ(read_flood(0x3a, 8 * 1024 * 1024, &err), -GCLK_RANGE);
	GCLK_EQ(err.offset, 8);
}

GCLK_TEST(bundle, counts_beyond_the_limits_are_refused)
{
	struct gclk_state *state = gclk_state_new(1);
	size_t size;
	uint8_t *buf = packed(state, &size);
	Guestclock__V1__Bundle *raw = raw_unpack(buf, size);
	Guestclock__V1__Timer timer = GUESTCLOCK__V1__TIMER__INIT, *timers[GCLK_TIMERS_MAX + 1];
	struct gclk_error err = { 0 };

	for (unsigned i = 0; i < GCLK_COUNT(timers); i++) {
		timers[i] = &timer;
	}
	free(buf);
	raw->state->timers = timers;
	raw->state->n_timers = GCLK_COUNT(timers);
	buf = raw_pack(raw, &size);
	GCLK_EQ(gclk_state_unpack(state, buf, size, &err), -GCLK_RANGE);
	CU_ASSERT(!strcmp(err.where, "timers"));
	raw->state->timers = NULL;
	raw->state->n_timers = 0;
	raw->state->n_vcpus = UINT32_MAX;
	free(buf);
	buf = raw_pack(raw, &size);
	GCLK_EQ(gclk_state_unpack(state, buf, size, &err), -GCLK_RANGE);
	CU_ASSERT(!strcmp(err.where, "n_vcpus"));
	guestclock__v1__bundle__free_unpacked(raw, NULL);
	free(buf);
	gclk_state_free(state);
}

GCLK_TEST(bundle, a_bundle_without_a_state_is_told)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_state *state = gclk_state_new(1);
	uint8_t buf[64];
	int64_t n = gclk_bundle_pack(bundle, buf, sizeof(buf), NULL);

	GCLK_EQ(gclk_bundle_state(bundle, state, NULL), GCLK_BUNDLE_ABSENT);
	GCLK_EQ(gclk_state_unpack(state, buf, (size_t)n, NULL), -GCLK_MALFORMED);
	CU_ASSERT(gclk_bundle_free(NULL) == NULL);
	gclk_bundle_free(bundle);
	gclk_state_free(state);
}
