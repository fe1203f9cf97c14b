/* SPDX-License-Identifier: MIT */
/*
 * Bundles, profiles and reports read by another process: the same as here; and whatever
 * that process may say instead is refused, or is what could have been read.
 */
#include <stdlib.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"
#include "forked-worker.h"
#include "gclk-test.h"
#include "migrator/foreign.h"
#include "migrator/json-state.h"
#include "migrator/json-text.h"

static struct forked forked = { .read = foreign_read };
static const struct gclk_worker worker = FORKED_WORKER(&forked);

static char *read_bundle_file(size_t *ret_n)
{
	char *bytes = malloc((size_t)1 << 20);
	FILE *file = fopen(GCLK_TEST_DATA "/bundle-v1.gclk", "rb");

	CU_ASSERT_FATAL(file != NULL);
	*ret_n = fread(bytes, 1, (size_t)1 << 20, file);
	fclose(file);
	return bytes;
}

static char *json_of_bundle(const void *bytes, size_t n)
{
	struct gclk_bundle *bundle;
	struct json_object *tree;
	char *text;

	CU_ASSERT_FATAL(gclk_bundle_unpack(bytes, n, &bundle, NULL) == 0);
	CU_ASSERT_FATAL(json_from_bundle(bundle, &tree, NULL) == 0);
	text = json_to_text(tree, NULL);
	json_object_put(tree);
	gclk_bundle_free(bundle);
	return text;
}

static void compare(const struct foreign_bundle *a, const struct foreign_bundle *b)
{
	size_t n = gclk_state_flat_bytes(a->state);
	void *p = malloc(n), *q = malloc(n);

	GCLK_EQ(gclk_state_flat_bytes(b->state), n);
	gclk_state_flatten(a->state, p);
	gclk_state_flatten(b->state, q);
	CU_ASSERT(!memcmp(p, q, n));
	CU_ASSERT(!memcmp(&a->provenance, &b->provenance, sizeof(a->provenance)));
	CU_ASSERT(!memcmp(&a->host, &b->host, sizeof(a->host)));
	CU_ASSERT(!memcmp(&a->rewrite, &b->rewrite, sizeof(a->rewrite)));
	free(p);
	free(q);
}

GCLK_TEST(foreign, a_bundle_is_read_alike_by_both)
{
	struct foreign_bundle here, there, json;
	size_t n;
	char *bytes = read_bundle_file(&n), *text = json_of_bundle(bytes, n);

	forked.started = forked.stopped = 0;
	CU_ASSERT_FATAL(foreign_bundle(NULL, bytes, n, &here, NULL) == 0);
	CU_ASSERT_FATAL(foreign_bundle(&worker, bytes, n, &there, NULL) == 0);
	CU_ASSERT_FATAL(foreign_bundle_json(&worker, text, strlen(text), &json, NULL) == 0);
	CU_ASSERT(here.host.has && here.provenance.has);
	compare(&here, &there);
	compare(&here, &json);
	GCLK_EQ(foreign_check_bundle(&worker, bytes, n, NULL), 0);
	GCLK_EQ(forked.started, 3);
	GCLK_EQ(forked.stopped, 3);
	foreign_bundle_clear(&here);
	foreign_bundle_clear(&there);
	foreign_bundle_clear(&json);
	free(bytes);
	free(text);
}

GCLK_TEST(foreign, errors_come_back_as_they_are)
{
	struct gclk_error here = { 0 }, there = { 0 };
	struct foreign_bundle bundle;
	struct gclk_host host;
	struct move move;
	size_t n;
	char *bytes = read_bundle_file(&n);

	bytes[40] ^= 1;
	GCLK_EQ(foreign_bundle(NULL, bytes, n, &bundle, &here), -GCLK_MALFORMED);
	GCLK_EQ(foreign_bundle(&worker, bytes, n, &bundle, &there), -GCLK_MALFORMED);
	CU_ASSERT_STRING_EQUAL(here.message, there.message);
	CU_ASSERT_STRING_EQUAL(here.where, there.where);
	GCLK_EQ(here.offset, there.offset);
	GCLK_EQ(foreign_check_bundle(&worker, bytes, n, NULL), -GCLK_MALFORMED);
	GCLK_EQ(foreign_host_json(&worker, "{\"tsc_hz\": \"x\"}", 15, &host, &there),
		-GCLK_MALFORMED);
	CU_ASSERT(*there.message);
	GCLK_EQ(foreign_move(&worker, "{}", 2, &move, NULL), foreign_move(NULL, "{}", 2, &move, NULL));
	free(bytes);
}

GCLK_TEST(foreign, a_profile_is_read_alike_by_both)
{
	static const char text[] = "{\"hostname\": \"a\", \"tsc_hz\": \"2499997914\"}";
	struct gclk_host here, there;

	CU_ASSERT_FATAL(foreign_host_json(NULL, text, strlen(text), &here, NULL) == 0);
	CU_ASSERT_FATAL(foreign_host_json(&worker, text, strlen(text), &there, NULL) == 0);
	CU_ASSERT(!memcmp(&here, &there, sizeof(here)));
	GCLK_EQ(there.tsc_hz, 2499997914);
}

/* ---- what a stranger's worker may say ---- */

/* Some bytes, some words of 0 or all ones, sometimes its end cut off. */
static size_t disturb(uint8_t *bytes, size_t n)
{
	for (uint64_t k = gclk_random_below(8); k > 0; k--) {
		size_t at = (size_t)gclk_random_below(n);

		if (gclk_random_below(4) == 0) {
			memset(bytes + at, gclk_random_below(2) ? 0xff : 0,
			       GCLK_MIN((size_t)8, n - at));
		} else {
			bytes[at] = (uint8_t)gclk_random();
		}
	}
	return gclk_random_below(8) ? n : (size_t)gclk_random_below(n);
}

GCLK_TEST(foreign, a_bundle_that_is_said_is_valid_or_refused)
{
	unsigned taken = 0, refused = 0;
	void *said = NULL;
	size_t n, n_said;
	char *bytes = read_bundle_file(&n);
	uint8_t *copy;

	CU_ASSERT_FATAL(foreign_read(FOREIGN_BUNDLE, bytes, n, &said, &n_said, NULL) == 0);
	copy = malloc(n_said);
	for (unsigned i = 0; i < 3000 * gclk_test_scale(); i++) {
		struct foreign_bundle bundle;
		struct gclk_error error = { 0 };
		int r;

		memcpy(copy, said, n_said);
		r = foreign_take_bundle(copy, disturb(copy, n_said), &bundle, &error);
		if (r < 0) {
			GCLK_EQ(r, -GCLK_PEER);
			CU_ASSERT(*error.message);
			refused++;
			continue;
		}
		taken++;
		CU_ASSERT(!bundle.state || gclk_state_validate(bundle.state, NULL) == 0);
		CU_ASSERT(gclk_record_is_valid(&gclk_host_record, &bundle.host));
		CU_ASSERT(gclk_record_is_valid(&gclk_provenance_record, &bundle.provenance));
		CU_ASSERT(gclk_record_is_valid(&gclk_rewrite_record, &bundle.rewrite));
		CU_ASSERT(memchr(bundle.host.hostname, 0, sizeof(bundle.host.hostname)) != NULL);
		foreign_bundle_clear(&bundle);
	}
	CU_ASSERT(taken > 0 && refused > 0);
	free(copy);
	free(said);
	free(bytes);
}

static char *text_of(const struct move *move)
{
	size_t n;

	return move_to_text(move, &n);
}

/* A report of all that there can be. */
static char *report_text(void)
{
	struct move *move = malloc(sizeof(*move));
	char *text;

	move_init(move, "migrate");
	strcpy(move->domain, "one");
	strcpy(move->uuid, "8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a0");
	move->verdict = MOVE_LATE;
	for (move->n_clocks = 0; move->n_clocks < GCLK_N_CLOCKS; move->n_clocks++) {
		struct move_clock *clock = &move->clocks[move->n_clocks];

		memset(clock, 0, sizeof(*clock));
		strcpy(clock->clock, gclk_clock_names[move->n_clocks]);
		clock->proof = MOVE_VERIFIED;
		strcpy(clock->read_by, "qom");
	}
	move->n_ledger = 1;
	memset(&move->ledger[0], 0, sizeof(move->ledger[0]));
	strcpy(move->ledger[0].timer, "hpet[2]");
	gclk_findings_add(&move->findings, gclk_finding_table[0].id, "tsc", "a sentence");
	gclk_findings_add(&move->findings, gclk_finding_table[3].id, "", "and another one");
	text = text_of(move);
	free(move);
	return text;
}

GCLK_TEST(foreign, a_report_is_read_alike_by_both)
{
	struct move *here = malloc(sizeof(*here)), *there = malloc(sizeof(*there));
	char *text = report_text(), *a, *b;

	CU_ASSERT_FATAL(foreign_move(NULL, text, strlen(text), here, NULL) == 0);
	CU_ASSERT_FATAL(foreign_move(&worker, text, strlen(text), there, NULL) == 0);
	a = text_of(here);
	b = text_of(there);
	CU_ASSERT_STRING_EQUAL(a, b);
	GCLK_EQ(there->findings.n, 2);
	CU_ASSERT(there->findings.items[1].info == &gclk_finding_table[3]);
	free(a);
	free(b);
	free(here);
	free(there);
	free(text);
}

/* What is taken is as if it had been read: it can be written and read again. */
static void check_again(const struct move *move)
{
	struct move *again = malloc(sizeof(*again));
	struct gclk_error error = { 0 };
	char *text = text_of(move);

	CU_ASSERT_FATAL(text != NULL);
	GCLK_EQ(move_from_json(text, strlen(text), again, &error), 0);
	CU_ASSERT_STRING_EQUAL(error.message, "");
	free(text);
	free(again);
}

GCLK_TEST(foreign, a_report_that_is_said_is_valid_or_refused)
{
	unsigned taken = 0, refused = 0;
	struct move *move = malloc(sizeof(*move));
	char *text = report_text();
	void *said = NULL;
	uint8_t *copy;
	size_t n;

	CU_ASSERT_FATAL(foreign_read(FOREIGN_MOVE_JSON, text, strlen(text), &said, &n, NULL) == 0);
	copy = malloc(n);
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		size_t length;

		memcpy(copy, said, n);
		length = disturb(copy, n);
		/* most of it is room for findings: where something stands, too */
		copy[gclk_random_below(4096)] = (uint8_t)gclk_random();
		if (foreign_take_move(copy, length, move, NULL) == 0) {
			check_again(move);
			taken++;
		} else {
			refused++;
		}
	}
	CU_ASSERT(taken > 0 && refused > 0);
	free(copy);
	free(said);
	free(text);
	free(move);
}

/* ---- workers that are none ---- */

static void says_nothing(int socket)
{
	char byte;

	/* until it is killed */
	while (recv(socket, &byte, 1, 0) > 0) {
	}
	pause();
}

static void dies(int socket)
{
	(void)socket;
	_exit(1);
}

GCLK_TEST(foreign, a_silent_worker_is_given_up)
{
	struct forked silent = { .script = says_nothing };
	const struct gclk_worker by = { forked_start, forked_stop, &silent, 60 };
	struct gclk_error error = { 0 };
	struct gclk_host host;

	GCLK_EQ(foreign_host_json(&by, "{}", 2, &host, &error), -GCLK_PEER);
	CU_ASSERT(strstr(error.message, "silent for 0.060 s") != NULL);
	GCLK_EQ(silent.started, 1);
	GCLK_EQ(silent.stopped, 1);
}

GCLK_TEST(foreign, a_dead_worker_is_an_error)
{
	struct forked dead = { .script = dies };
	const struct gclk_worker by = FORKED_WORKER(&dead);
	struct gclk_error error = { 0 };
	struct gclk_host host;

	GCLK_EQ(foreign_host_json(&by, "{}", 2, &host, &error), -GCLK_PEER);
	CU_ASSERT_STRING_EQUAL(error.message, "it has died");
	GCLK_EQ(dead.stopped, 1);
}

/* Each question of many is another one's answer, with one process. */
GCLK_TEST(foreign, one_worker_answers_many_questions)
{
	struct gclk_reading *reading;
	struct move *move = malloc(sizeof(*move));
	char *text = report_text();

	forked.started = 0;
	CU_ASSERT_FATAL(gclk_reading_new(&worker, &reading, NULL) == 0);
	for (unsigned i = 0; i < 100; i++) {
		GCLK_EQ(foreign_move_by(reading, text, strlen(text), move, NULL), 0);
		GCLK_EQ(foreign_move_by(reading, "{", 1, move, NULL), -GCLK_TRUNCATED);
	}
	GCLK_EQ(forked.started, 1);
	gclk_reading_free(reading);
	free(text);
	free(move);
}
