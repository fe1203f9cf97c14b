/* SPDX-License-Identifier: MIT */
#include <json-c/json_tokener.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/json-state.h"
#include "random-state.h"

static const char *text_of(struct json_object *value)
{
	CU_ASSERT_FATAL(value != NULL);
	return json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY);
}

static struct json_object *parsed(const char *text)
{
	struct json_object *value = NULL;
	struct gclk_error err = { 0 };
	int r = json_parse(text, strlen(text), &value, &err);

	if (r < 0) {
		printf("\n    %s\n", err.message);
	}
	CU_ASSERT_FATAL(r == 0);
	return value;
}

GCLK_TEST(json_state, states_come_back_through_text)
{
	for (unsigned i = 0; i < 100 * gclk_test_scale(); i++) {
		struct gclk_state *before = gclk_state_new(1 + (uint32_t)gclk_random_below(8));
		struct gclk_state *after = NULL;
		struct gclk_error err = { 0 };
		struct json_object *value, *again;

		random_state(before, (unsigned)gclk_random_below(101));
		value = json_from_state(before);
		again = parsed(text_of(value));
		GCLK_EQ(state_from_json(again, &after, &err), 0);
		if (after) {
			CU_ASSERT(states_equal(before, after));
		} else {
			printf("\n    %s: %s\n", err.where, err.message);
		}
		json_object_put(value);
		json_object_put(again);
		gclk_state_free(before);
		gclk_state_free(after);
	}
}

GCLK_TEST(json_state, records_of_the_envelope_come_back)
{
	static const struct gclk_record *const records[] = {
		&gclk_host_record, &gclk_provenance_record, &gclk_rewrite_record,
	};
	static union {
		uint64_t align;
		char bytes[4096];
	} a, b;

	for (unsigned i = 0; i < 300 * gclk_test_scale(); i++) {
		const struct gclk_record *record = records[i % 3];
		struct json_object *value, *again;

		CU_ASSERT_FATAL(record->size <= sizeof(a));
		random_record(record, &a, (unsigned)gclk_random_below(101));
		value = json_from_record(record, &a);
		again = parsed(text_of(value));
		GCLK_EQ(record_from_json(again, record, &b, "", NULL), 0);
		CU_ASSERT(records_equal(record, &a, &b));
		json_object_put(value);
		json_object_put(again);
	}
}

/* What tools may rely on, letter by letter. */
GCLK_TEST(json_state, the_conventions_are_kept)
{
	static const char want[] =
		"{\"n_vcpus\":1,"
		"\"guest\":{\"accelerator\":\"tcg_icount\",\"ram_bytes\":\"18446744073709551615\"},"
		"\"tsc\":[{\"vcpu\":0,\"value_ticks\":\"12\",\"offset_ticks\":\"-1\"}],"
		"\"kvmclock\":{\"reliable\":true,\"flags\":6,\"flags_names\":[\"tsc_stable\","
		"\"realtime\"],\"realtime_ns\":\"1500000000\","
		"\"realtime_rfc3339\":\"1970-01-01T00:00:01.500000000Z\"},"
		"\"pit\":{\"speaker_data\":false,\"channels\":[{},{\"count\":65536},{}]},"
		"\"rtc\":{\"axis\":\"realtime\",\"base_at_ns\":\"-1\","
		"\"next_alarm_ns\":\"1\",\"next_alarm_rfc3339\":\"1970-01-01T00:00:00.000000001Z\"},"
		"\"hpet\":{\"config\":\"1\",\"config_names\":[\"enable\"],\"timers\":[{}]},"
		"\"lapic\":[{\"irr\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP8=\"}]}";
	struct gclk_state *s = gclk_state_new(1);
	struct json_object *value;
	const char *text;

	GCLK_SET(guest, &s->guest, accelerator, GCLK_ACCEL_TCG_ICOUNT);
	GCLK_SET(guest, &s->guest, ram_bytes, UINT64_MAX);
	GCLK_SET(tsc, &s->tsc[0], vcpu, 0);
	GCLK_SET(tsc, &s->tsc[0], value_ticks, 12);
	GCLK_SET(tsc, &s->tsc[0], offset_ticks, -1);
	GCLK_SET(kvmclock, &s->kvmclock, reliable, 1);
	GCLK_SET(kvmclock, &s->kvmclock, flags, 6);
	GCLK_SET(kvmclock, &s->kvmclock, realtime_ns, 1500000000);
	GCLK_SET(pit, &s->pit, speaker_data, 0);
	GCLK_SET(pit_channel, &s->pit.channels[1], count, 65536);
	GCLK_SET(rtc, &s->rtc, axis, GCLK_AXIS_REALTIME);
	GCLK_SET(rtc, &s->rtc, base_at_ns, -1);
	GCLK_SET(rtc, &s->rtc, next_alarm_ns, 1);
	GCLK_SET(hpet, &s->hpet, config, 1);
	GCLK_SET(hpet, &s->hpet, n_timers, 1);
	s->lapic[0].has = GCLK_BIT(lapic, irr);
	s->lapic[0].irr[0] = 1;
	s->lapic[0].irr[31] = 0xff;
	value = json_from_state(s);
	text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN |
							     JSON_C_TO_STRING_NOSLASHESCAPE);
	if (strcmp(text, want)) {
		printf("\n    %s\n", text);
	}
	CU_ASSERT(!strcmp(text, want));
	json_object_put(value);
	gclk_state_free(s);
}

static int read_state_text(const char *text, struct gclk_error *reterr)
{
	struct json_object *value = parsed(text);
	struct gclk_state *state = NULL;
	int r = state_from_json(value, &state, reterr);

	json_object_put(value);
	gclk_state_free(state);
	return r;
}

GCLK_TEST(json_state, what_is_wrong_is_named)
{
	static const struct {
		const char *text;
		int status;
		const char *where;
	} cases[] = {
		{ "{}", 0, "" },
		{ "{\"hpet\": null, \"n_vcpus\": null}", 0, "" },
		{ "{\"kvmclock\": {\"clock_ns\": 5}}", 0, "" },
		{ "{\"kvmclock\": {\"clock_ns\": \"0\"}, \"pit\": {\"channels\": [{}]}}", 0, "" },
		{ "{\"guest\": {\"accelerator\": 1}, \"tsc\": [{\"offset_ticks\": -5}]}", 0, "" },
		{ "{\"tsc\": [{}, {}, {}]}", 0, "" },
		{ "{\"kvmclock\": {\"flags_names\": 0, \"realtime_rfc3339\": []}}", 0, "" },
		{ "{\"tcs\": []}", GCLK_UNSUPPORTED, "tcs" },
		{ "{\"hpet\": {\"irs\": 1}}", GCLK_UNSUPPORTED, "hpet.irs" },
		{ "{\"hpet\": {\"irs_names\": 1}}", GCLK_UNSUPPORTED, "hpet.irs_names" },
		{ "{\"hpet\": {\"n_timers\": 1}}", GCLK_UNSUPPORTED, "hpet.n_timers" },
		{ "{\"hpet\": 1}", GCLK_MALFORMED, "hpet" },
		{ "{\"hpet\": {\"isr\": 1.0}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": true}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": -1}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": \"-1\"}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": \"\"}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": \" 1\"}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": \"0x1\"}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"isr\": \"18446744073709551616\"}}", GCLK_MALFORMED, "hpet.isr" },
		{ "{\"hpet\": {\"offset_ns\": \"9223372036854775808\"}}", GCLK_MALFORMED,
		  "hpet.offset_ns" },
		{ "{\"pm_timer\": {\"offset_ns\": \"-9223372036854775808\"}}", 0, "" },
		{ "{\"hpet\": {\"offset_ns\": \"-9223372036854775809\"}}", GCLK_MALFORMED,
		  "hpet.offset_ns" },
		{ "{\"hpet\": {\"period_fs\": 4294967296}}", GCLK_RANGE, "hpet.period_fs" },
		{ "{\"hpet\": {\"period_fs\": 0}}", GCLK_RANGE, "hpet.period_fs" },
		{ "{\"hpet\": {\"timers\": [{}, {\"index\": 99}]}}", GCLK_RANGE,
		  "hpet.timers[1].index" },
		{ "{\"pit\": {\"channels\": [{}, {}, {}, {}]}}", GCLK_RANGE, "pit.channels" },
		{ "{\"rtc\": {\"axis\": \"moon\"}}", GCLK_MALFORMED, "rtc.axis" },
		{ "{\"rtc\": {\"catches_up\": \"yes\"}}", GCLK_MALFORMED, "rtc.catches_up" },
		{ "{\"rtc\": {\"cmos\": \"AAAA\"}}", GCLK_MALFORMED, "rtc.cmos" },
		{ "{\"guest\": {\"uuid\": \"0123456789012345678901234567890123456\"}}", GCLK_RANGE,
		  "guest.uuid" },
		{ "{\"guest\": {\"name\": \"a\\u0000b\"}}", GCLK_MALFORMED, "guest.name" },
		{ "{\"n_vcpus\": 0}", GCLK_RANGE, "n_vcpus" },
		{ "{\"n_vcpus\": 4097}", GCLK_RANGE, "n_vcpus" },
		{ "{\"n_vcpus\": 4294967296}", GCLK_RANGE, "n_vcpus" },
		{ "{\"n_vcpus\": 1, \"tsc\": [{}, {}]}", GCLK_RANGE, "tsc" },
		{ "{\"tsc\": [{\"vcpu\": 1}, {\"vcpu\": 1}]}", GCLK_RANGE, "tsc[1].vcpu" },
		{ "{\"incompatible\": [1]}", GCLK_MALFORMED, "incompatible" },
		{ "{\"incompatible\": [\"ok\", \"01234567890123456789012345678901\"]}",
		  GCLK_MALFORMED, "incompatible" },
	};

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		struct gclk_error err = { 0 };
		int r = read_state_text(cases[i].text, &err);

		if (r != -cases[i].status || strcmp(err.where, cases[i].where)) {
			printf("\n    %s: %d at \"%s\": %s\n", cases[i].text, r, err.where,
			       err.message);
			CU_FAIL("another answer");
		}
	}
}

GCLK_TEST(json_state, base64_is_strict_about_its_length)
{
	struct gclk_error err;
	struct gclk_state *state = NULL;
	struct json_object *value;
	/* 32 bytes are 43 digits; the last of them has two bits that must be 0 */
	static const struct {
		const char *irr;
		bool good;
	} cases[] = {
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", true },
		{ "-_-_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=", false },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", false },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", false },
		{ "AAAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAA=", false },
	};

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		char text[128];

		snprintf(text, sizeof(text), "{\"lapic\": [{\"irr\": \"%s\"}]}", cases[i].irr);
		value = parsed(text);
		GCLK_EQ(state_from_json(value, &state, &err),
			cases[i].good ? 0 : -GCLK_MALFORMED);
		json_object_put(value);
		state = gclk_state_free(state);
	}
}

/* ---- texts ---- */

GCLK_TEST(json_state, text_that_is_no_json_object_is_refused)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ "{}", 0 },
		{ " \n{ }\r\n\t ", 0 },
		{ "\xef\xbb\xbf{}", 0 },
		{ "{\"a\": \"\\\\\", \"b\": \"\\\"{[\"}", 0 },
		{ "", GCLK_TRUNCATED },
		{ "{", GCLK_TRUNCATED },
		{ "{\"a", GCLK_TRUNCATED },
		{ "{} {}", GCLK_MALFORMED },
		{ "{}x", GCLK_MALFORMED },
		{ "[]", GCLK_MALFORMED },
		{ "null ", GCLK_MALFORMED },
		{ "{'\"': [{}, {}]}", GCLK_MALFORMED },
		{ "{'a': 1}", GCLK_MALFORMED },
		{ "{\"a\": 01}", GCLK_MALFORMED },
		{ "{\"a\": /* \" */ 1}", GCLK_MALFORMED },
		{ "{\"a\": \"\xff\"}", GCLK_MALFORMED },
		{ "{\"\xc2\xb5s\": \"\xe2\x82\xac \xf0\x9f\x98\x80\"}", 0 },
		{ "{\"a\": \"\xc0\xaf\"}", GCLK_MALFORMED },
		{ "{\"a\": \"\\\xc2\xb5\"}", GCLK_MALFORMED },
		{ "{\"a\": \"\\\\\xc2\xb5\\n\"}", 0 },
		{ "{\"a\": \"\\", GCLK_TRUNCATED },
		{ "\xc2\xb5", GCLK_MALFORMED },
		{ "{\"a\": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}", GCLK_MALFORMED },
	};

	for (unsigned i = 0; i < GCLK_COUNT(cases); i++) {
		struct json_object *value = NULL;
		struct gclk_error err = { 0 };
		int r = json_parse(cases[i].text, strlen(cases[i].text), &value, &err);

		if (r != -cases[i].status) {
			printf("\n    %s: %d: %s\n", cases[i].text, r, err.message);
			CU_FAIL("another answer");
		}
		json_object_put(value);
	}
}

static char *repeated(const char *before, const char *unit, size_t n, const char *after,
		      size_t *ret_size)
{
	size_t each = strlen(unit), size = strlen(before) + n * each + strlen(after);
	char *text = malloc(size + 1), *to = text;

	CU_ASSERT_FATAL(text != NULL);
	to = stpcpy(to, before);
	for (size_t i = 0; i < n; i++) {
		memcpy(to, unit, each);
		to += each;
	}
	strcpy(to, after);
	*ret_size = size;
	return text;
}

/* The largest texts that the command reads, of the kinds that take the most memory. */
GCLK_TEST(json_state, bombs_are_refused_unread)
{
	static const char *const units[] = { "{},", "[],", "0,", "1.5,", "[0],", "{\"\":0}," };

	for (unsigned i = 0; i < GCLK_COUNT(units); i++) {
		struct json_object *value;
		size_t size;
		char *text = repeated("{\"a\":[", units[i], (4u << 20) / strlen(units[i]), "0]}",
				      &size);

		GCLK_EQ(json_parse(text, size, &value, NULL), -GCLK_RANGE);
		free(text);
	}
}

GCLK_TEST(json_state, large_guests_are_read)
{
	struct gclk_state *state = gclk_state_new(GCLK_VCPUS_MAX);
	struct json_object *value, *again = NULL;
	const char *text;

	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		GCLK_SET(tsc, &state->tsc[i], vcpu, i);
		GCLK_SET(tsc, &state->tsc[i], value_ticks, UINT64_MAX - i);
		GCLK_SET(tsc, &state->tsc[i], frequency_hz, 2000000000);
		GCLK_SET(vcpu, &state->vcpu[i], vcpu, i);
		GCLK_SET(vcpu, &state->vcpu[i], system_time_msr, i);
		GCLK_SET(lapic, &state->lapic[i], vcpu, i);
		GCLK_SET(lapic, &state->lapic[i], initial_count, i);
	}
	value = json_from_state(state);
	text = text_of(value);
	GCLK_EQ(json_parse(text, strlen(text), &again, NULL), 0);
	json_object_put(value);
	json_object_put(again);
	gclk_state_free(state);
}

/* ---- bundles ---- */

static struct gclk_bundle *random_bundle(void)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_state *state = gclk_state_new(3);
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;

	random_state(state, 60);
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		state->incompatible[i][10] = 0;
	}
	random_record(&gclk_provenance_record, &provenance, 60);
	random_record(&gclk_host_record, &host, 60);
	random_record(&gclk_rewrite_record, &rewrite, 60);
	GCLK_EQ(gclk_bundle_set_state(bundle, state, NULL), 0);
	GCLK_EQ(gclk_bundle_set_provenance(bundle, &provenance, NULL), 0);
	GCLK_EQ(gclk_bundle_set_host(bundle, &host, NULL), 0);
	GCLK_EQ(gclk_bundle_set_rewrite(bundle, &rewrite, NULL), 0);
	gclk_state_free(state);
	return bundle;
}

GCLK_TEST(json_state, a_bundle_in_json_is_the_same_bundle)
{
	for (unsigned i = 0; i < 30 * gclk_test_scale(); i++) {
		static uint8_t a[1 << 17], b[1 << 17];
		struct gclk_bundle *before = random_bundle(), *after = NULL;
		struct json_object *value = NULL;
		struct gclk_error err = { 0 };
		const char *text;
		int64_t n;

		GCLK_EQ(json_from_bundle(before, &value, &err), 0);
		text = text_of(value);
		GCLK_EQ(bundle_from_json(text, strlen(text), &after, &err), 0);
		CU_ASSERT_FATAL(after != NULL);
		n = gclk_bundle_pack(before, a, sizeof(a), NULL);
		CU_ASSERT(n > 0);
		GCLK_EQ(gclk_bundle_pack(after, b, sizeof(b), NULL), n);
		CU_ASSERT(!memcmp(a, b, (size_t)n));
		json_object_put(value);
		gclk_bundle_free(before);
		gclk_bundle_free(after);
	}
}

GCLK_TEST(json_state, an_answer_of_inspect_is_a_bundle_too)
{
	static const char good[] =
		"{\"schema\": \"guestclock.v1\", \"verb\": \"inspect\", \"captured\": "
		"{\"realtime_ns\": \"77\", \"rfc3339\": \"x\", \"uncertainty_ns\": null, "
		"\"basis\": \"birth-time\"}, \"rewrite\": null, \"findings\": [], "
		"\"state\": {\"kvmclock\": {\"clock_ns\": \"5\"}}}";
	static const struct {
		const char *text;
		int status;
	} bad[] = {
		{ "{\"state\": {}}", GCLK_MALFORMED },
		{ "{\"schema\": \"guestclock.v2\", \"state\": {}}", GCLK_VERSION },
		{ "{\"schema\": \"guestclock.v1\"}", GCLK_MALFORMED },
		{ "{\"schema\": \"guestclock.v1\", \"verb\": \"plan\", \"state\": {}}",
		  GCLK_UNSUPPORTED },
	};
	struct gclk_bundle *bundle = NULL;
	struct gclk_provenance p;

	GCLK_EQ(bundle_from_json(good, strlen(good), &bundle, NULL), 0);
	CU_ASSERT_FATAL(bundle != NULL);
	GCLK_EQ(gclk_bundle_provenance(bundle, &p, NULL), 0);
	GCLK_EQ(p.has, GCLK_BIT(provenance, realtime_ns) | GCLK_BIT(provenance, basis));
	GCLK_EQ(p.realtime_ns, 77);
	CU_ASSERT(!strcmp(p.basis, "birth-time"));
	GCLK_EQ(gclk_bundle_n_vcpus(bundle), 1);
	gclk_bundle_free(bundle);
	for (unsigned i = 0; i < GCLK_COUNT(bad); i++) {
		GCLK_EQ(bundle_from_json(bad[i].text, strlen(bad[i].text), &bundle, NULL),
			-bad[i].status);
	}
}

GCLK_TEST(json_state, a_host_profile_stands_alone_or_in_an_answer)
{
	static const char *const good[] = {
		"{\"tsc_hz\": \"2000000000\", \"flags\": 3, \"flags_names\": []}",
		"{\"schema\": \"guestclock.v1\", \"verb\": \"host\", \"findings\": [], "
		"\"host\": {\"tsc_hz\": 2000000000, \"flags\": \"3\"}}",
	};
	static const char *const bad[] = {
		"{\"host\": {\"tsc_hz\": 1}}",
		"{\"tsc_hz\": 0}",
		"{\"tsc_mhz\": 1}",
	};
	struct gclk_host host;

	for (unsigned i = 0; i < GCLK_COUNT(good); i++) {
		memset(&host, 0, sizeof(host));
		GCLK_EQ(host_from_json(good[i], strlen(good[i]), &host, NULL), 0);
		GCLK_EQ(host.tsc_hz, 2000000000);
		GCLK_EQ(host.flags, 3);
		GCLK_EQ(host.has, GCLK_BIT(host, tsc_hz) | GCLK_BIT(host, flags));
	}
	for (unsigned i = 0; i < GCLK_COUNT(bad); i++) {
		CU_ASSERT(host_from_json(bad[i], strlen(bad[i]), &host, NULL) < 0);
	}
}

/* ---- hostile text ---- */

GCLK_TEST(json_state, damaged_text_does_no_harm)
{
	struct gclk_bundle *bundle = random_bundle(), *read = NULL;
	struct json_object *value = NULL;
	const char *text;
	size_t size;

	GCLK_EQ(json_from_bundle(bundle, &value, NULL), 0);
	text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
	size = strlen(text);
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		char *damaged = malloc(size);
		size_t n = gclk_random_below(4) == 0 ? gclk_random_below(size) : size;
		struct gclk_error err = { 0 };

		memcpy(damaged, text, size);
		for (uint64_t edits = gclk_random_below(3); edits > 0 && n > 0; edits--) {
			damaged[gclk_random_below(n)] = (char)gclk_random();
		}
		if (bundle_from_json(damaged, n, &read, &err) == 0) {
			CU_ASSERT(gclk_bundle_n_vcpus(read) > 0);
			read = gclk_bundle_free(read);
		} else {
			CU_ASSERT(err.status > 0 && err.message[0]);
		}
		free(damaged);
	}
	json_object_put(value);
	gclk_bundle_free(bundle);
}
