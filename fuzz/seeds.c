/* SPDX-License-Identifier: MIT */
/*
 * Seeds for the fuzzers, from the real files of tests/data and from streams as the tests
 * write them.
 *
 *	fuzz-seeds DIRECTORY		makes DIRECTORY/TARGET/NAME
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "../tests/harness/gclk-test.h"
#include "../tests/image/stream-writer.h"
#include "core/cursor.h"
#include "fuzz.h"
#include "image/qemu/stream.h"
#include "image/qemu/tail.h"
#include "image/record.h"
#include "image/worker/far.h"
#include "migrator/foreign.h"
#include "migrator/json-state.h"
#include "migrator/peer/wire.h"

static const char *root;

uint64_t gclk_random(void)
{
	static uint64_t state = 1;

	return fuzz_next(&state);
}

static void save(const char *target, const char *name, const void *p, size_t n)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, target);
	if (mkdir(path, 0777) && errno != EEXIST) {
		perror(path);
		exit(1);
	}
	snprintf(path, sizeof(path), "%s/%s/%s", root, target, name);
	file = fopen(path, "wb");
	if (!file || fwrite(p, 1, n, file) != n || fclose(file)) {
		perror(path);
		exit(1);
	}
}

static struct gclk_tail *read_tail(const struct bytes *b)
{
	struct gclk_stream *s = NULL;
	struct gclk_stream_taken taken;
	struct gclk_tail *tail = NULL;

	FUZZ_CHECK(gclk_stream_new(NULL, &s, NULL) == 0);
	FUZZ_CHECK(gclk_stream_push(s, b->p, b->n, &taken, NULL) == 0);
	FUZZ_CHECK(gclk_stream_take_tail(s, &tail, NULL) == 0);
	gclk_stream_free(s);
	return tail;
}

/* A stream without its rounds of RAM: where they begin, and the number of `ram`. */
static void put_without_ram(struct bytes *to, const struct bytes *b)
{
	struct gclk_tail *tail = read_tail(b);
	struct gclk_stream *s = NULL;
	struct gclk_stream_taken taken;
	const uint8_t *ram = memmem(b->p, 2048, "\3ram", 4);
	size_t at = 0;

	FUZZ_CHECK(ram && gclk_stream_new(NULL, &s, NULL) == 0);
	while (gclk_stream_phase(s) < GCLK_STREAM_ROUNDS) {
		FUZZ_CHECK(gclk_stream_push(s, b->p + at++, 1, &taken, NULL) > 0);
	}
	gclk_stream_free(s);
	/* without footers the end of the setup shows by the byte behind it */
	put(to, b->p, tail->head.has_footers ? at : at - 1);
	put_part(to, 3, gclk_get_be32(ram - 4));
	put_eos(to);
	if (tail->head.has_footers) {
		put_footer(to, gclk_get_be32(ram - 4));
	}
	put(to, tail->bytes, tail->size);
	gclk_tail_free(tail);
}

/* For target-vmdesc.c: the text's length, the text, the sections. */
static void save_vmdesc(const char *name, const struct bytes *b)
{
	struct gclk_tail *tail = read_tail(b);
	size_t text = tail->sections_size + 6;
	struct bytes v = { 0 };

	put32(&v, tail->size - text);
	put(&v, tail->bytes + text, tail->size - text);
	put(&v, tail->bytes, tail->sections_size);
	save("vmdesc", name, v.p, v.n);
	bytes_free(&v);
	gclk_tail_free(tail);
}

static const char xml[] =
	"<domain type='kvm' id='1'><name>guest</name>"
	"<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><vcpu current='1'>2</vcpu>"
	"<metadata><g:clock xmlns:g='https://guestclock.dev/ns/domain/1' gap='count' ticks='rtc=catchup'/>"
	"</metadata><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>"
	"<features><hyperv><stimer state='on'/><synic state='off'/></hyperv></features>"
	"<cpu mode='host-model'><feature policy='require' name='invtsc'/></cpu>"
	"<clock offset='variable' adjustment='3600' basis='utc'>"
	"<timer name='rtc' tickpolicy='catchup' track='guest'/><timer name='pit' tickpolicy='delay'/>"
	"<timer name='hpet' present='no'/><timer name='tsc' frequency='2400000000' mode='native'/>"
	"</clock></domain>";

static void save_libvirt(const char *name, const struct bytes *b)
{
	struct bytes s = { 0 };
	uint32_t words[] = { 2, sizeof(xml), 1, 0, 0 };

	put_text(&s, "LibvirtQemudSave");
	put(&s, words, sizeof(words));		/* in the writer's byte order */
	put_zero(&s, 56);
	put(&s, xml, sizeof(xml));
	put(&s, b->p, b->n);
	save("image", name, s.p, s.n);
	bytes_free(&s);
}

#define CLUSTER 512u

/* As tests/image/test-qcow2.c has it: one snapshot, whose state is a stream. */
static void save_qcow2(const char *name, const struct bytes *b)
{
	size_t n = (b->n + CLUSTER - 1) / CLUSTER;
	struct bytes q = { 0 };
	uint8_t *p;

	FUZZ_CHECK(n <= CLUSTER / 8);
	put_zero(&q, (7 + n) * CLUSTER);
	p = q.p;
	memcpy(p, "QFI\xfb\0\0\0\3", 8);
	gclk_put_be32(p + 20, 9);
	gclk_put_be64(p + 24, 32768);
	gclk_put_be32(p + 36, 2);
	gclk_put_be64(p + 40, 3 * CLUSTER);
	gclk_put_be64(p + 48, 1 * CLUSTER);
	gclk_put_be32(p + 56, 1);
	gclk_put_be32(p + 60, 1);
	gclk_put_be64(p + 64, 5 * CLUSTER);
	gclk_put_be32(p + 96, 4);
	gclk_put_be32(p + 100, 104);
	gclk_put_be64(p + CLUSTER, 2 * CLUSTER);
	gclk_put_be64(p + 4 * CLUSTER + 8, 6 * CLUSTER);
	p += 5 * CLUSTER;
	gclk_put_be64(p, 4 * CLUSTER);
	gclk_put_be32(p + 8, 2);
	gclk_put_be16(p + 12, 1);
	gclk_put_be16(p + 14, 4);
	gclk_put_be32(p + 16, 1700000000);
	gclk_put_be32(p + 36, 24);
	gclk_put_be64(p + 40, b->n);
	gclk_put_be64(p + 48, 32768);
	memset(p + 56, 0xff, 8);
	memcpy(p + 64, "1name", 5);
	for (size_t i = 0; i < 7 + n; i++) {
		gclk_put_be16(q.p + 2 * CLUSTER + 2 * i, 1);
	}
	for (size_t i = 0; i < n; i++) {
		gclk_put_be64(q.p + 6 * CLUSTER + 8 * i, (7 + i) * CLUSTER);
	}
	memcpy(q.p + 7 * CLUSTER, b->p, b->n);
	save("qcow2", name, q.p, q.n);
	bytes_free(&q);
}

/* A stream with a record behind it, as gclk_image_patch() leaves one. */
static void save_record(const char *name, const struct bytes *b)
{
	static const uint8_t before[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	struct gclk_patch patch = { .offset = 16, .n_old = 8, .n_new = 8, .new_bytes = before };
	struct bytes r = { 0 };
	uint8_t *bytes;
	size_t n;

	put(&r, b->p, 64);
	patch.old_bytes = b->p + 16;
	FUZZ_CHECK(gclk_undo_pack(&patch, 1, "payload", 7, r.n, r.n, &bytes, &n, NULL) == 0);
	memcpy(r.p + 16, before, 8);
	put(&r, bytes, n);
	save("record", name, r.p, r.n);
	free(bytes);
	bytes_free(&r);
}

static void save_stream(const char *name, const struct bytes *b, bool is_small)
{
	save("filter", name, b->p, b->n);
	save("rewrite", name, b->p, b->n);
	save("image", name, b->p, b->n);
	save_vmdesc(name, b);
	if (is_small) {
		save_libvirt(name, b);
		save_qcow2(name, b);
		save_record(name, b);
	}
}

static void save_small_streams(void)
{
	for (int i = 0; i < 2 * N_DIALECTS; i++) {
		struct bytes b = { 0 };
		char name[64];

		snprintf(name, sizeof(name), "small-%d-%s", i / 2, i & 1 ? "footers" : "bare");
		put_small_stream(&b, (enum dialect)(i / 2), i & 1);
		save_stream(name, &b, true);
		bytes_free(&b);
	}
}

static void save_real_streams(void)
{
	static const char *const names[] = { "pc-2.3", "pc-icount", "pc-shared-uuid", "pc-xbzrle",
					     "q35-kvm-4" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct bytes b = { 0 }, small = { 0 };

		read_data(names[i], &b);
		put_without_ram(&small, &b);
		save_stream(names[i], &small, false);
		bytes_free(&small);
		bytes_free(&b);
	}
}

static void save_file(const char *target, const char *name, const char *path)
{
	struct bytes b = { 0 };
	FILE *file = fopen(path, "rb");
	uint8_t piece[4096];
	size_t n;

	if (!file) {
		perror(path);
		exit(1);
	}
	while ((n = fread(piece, 1, sizeof(piece), file))) {
		put(&b, piece, n);
	}
	fclose(file);
	save(target, name, b.p, b.n);
	bytes_free(&b);
}

/* A frame of every type: empty, and with small numbers in its first fields. */
static void save_frames(void)
{
	static const uint8_t body[] = { 0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4 };

	for (unsigned type = 1; type <= 11; type++) {
		uint8_t frame[8 + sizeof(body)] = { 'G', 'c', (uint8_t)type };
		char name[16];

		snprintf(name, sizeof(name), "empty-%u", type);
		save("wire", name, frame, 8);
		frame[4] = sizeof(body);
		memcpy(frame + 8, body, sizeof(body));
		snprintf(name, sizeof(name), "numbers-%u", type);
		save("wire", name, frame, sizeof(frame));
	}
}

static void save_frame(const char *name, const struct wire_message *m)
{
	uint8_t *frame;
	size_t n;

	FUZZ_CHECK(wire_pack(m, &frame, &n, NULL) == 0);
	save("wire", name, frame, n);
	free(frame);
}

static void fill_hello(struct wire_message *m)
{
	struct wire_move *move = &m->hello.move;

	*m = (struct wire_message){ .type = WIRE_HELLO };
	m->hello.version_min = m->hello.version_max = 1;
	m->hello.role = WIRE_CONTROL;
	strcpy(move->verb, "migrate");
	strcpy(move->uuid, "01234567-89ab-cdef-0123-456789abcdef");
	strcpy(move->main_path, "/run/guestclock/web1.sock");
	strcpy(move->force[move->n_force++], "gap-negative");
	GCLK_SET(host, &move->host, tsc_hz, 2499997914);
	move->policy = gclk_policy_default;
	move->policy.ticks[GCLK_TICK_RTC].policy = GCLK_TICKS_CATCHUP;
}

/* Of those that bring most. */
static void save_whole_frames(void)
{
	struct wire_message m;

	fill_hello(&m);
	save_frame("hello", &m);
	m = (struct wire_message){ .type = WIRE_WELCOME };
	m.welcome.version = m.welcome.has_host = 1;
	GCLK_SET(host, &m.welcome.host, tsc_hz, 2499997914);
	save_frame("welcome", &m);
	m = (struct wire_message){ .type = WIRE_STOPPED, .stopped = { { -5, 7 }, "event", 9 } };
	save_frame("stopped", &m);
	m = (struct wire_message){ .type = WIRE_THERE, .there = { 1, -2, 3, 4 } };
	save_frame("there", &m);
}

/* The bundle of tests/data as JSON, and its host alone. */
static void save_json(void)
{
	struct bytes b = { 0 };
	FILE *file = fopen(GCLK_TEST_DATA "/bundle-v1.gclk", "rb");
	struct gclk_bundle *bundle = NULL;
	struct json_object *value = NULL;
	struct gclk_host host;
	const char *text;

	FUZZ_CHECK(file);
	put_zero(&b, 1 << 20);
	b.n = fread(b.p, 1, 1 << 20, file);
	fclose(file);
	FUZZ_CHECK(gclk_bundle_unpack(b.p, b.n, &bundle, NULL) == 0);
	FUZZ_CHECK(json_from_bundle(bundle, &value, NULL) == 0);
	text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
	save("json", "v1", text, strlen(text));
	json_object_put(value);
	FUZZ_CHECK(gclk_bundle_host(bundle, &host, NULL) == 0);
	value = json_from_record(&gclk_host_record, &host);
	text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
	save("host", "v1", text, strlen(text));
	json_object_put(value);
	gclk_bundle_free(bundle);
	bytes_free(&b);
}

static void add(struct bytes *b, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put8(b, ((const uint8_t *)p)[i]);
	}
}

static void add_state(struct bytes *b)
{
	struct gclk_state *state = gclk_state_new(2), scratch;
	struct gclk_piece pieces[GCLK_STATE_PIECES];

	FUZZ_CHECK(state);
	GCLK_SET(guest, &state->guest, loader_version, 702);
	GCLK_SET(tsc, &state->tsc[1], vcpu, 1);
	gclk_state_pieces(state, &scratch, pieces);
	for (unsigned i = 0; i < GCLK_STATE_PIECES; i++) {
		add(b, pieces[i].bytes, pieces[i].n);
	}
	gclk_state_free(state);
}

/* What a worker would answer; target-reply.c has the first byte. */
static void save_replies(void)
{
	static const uint8_t zeros[sizeof(struct gclk_far_patch)];
	struct gclk_facts *facts = calloc(1, sizeof(*facts));
	struct gclk_far_facts far = { .has_state = 1, .n_findings = 1 };
	struct gclk_error none = { 0 };
	struct bytes b = { 0 };

	FUZZ_CHECK(facts);
	facts->kind = GCLK_CONTAINER_LIBVIRT;
	facts->in_place = facts->has_domain = 1;
	facts->tail_begin = facts->span.begin = 8192;
	facts->tail_end = facts->span.end = facts->span.stream_end = 65536;
	put8(&b, 0);
	add(&b, zeros, 8);
	add(&b, &none, sizeof(none));
	add(&b, facts, sizeof(*facts));
	add_state(&b);
	save("reply", "facts", b.p, b.n);
	b.n = 0;
	put8(&b, 1);
	add_state(&b);
	save("reply", "state", b.p, b.n);
	b.n = 0;
	put8(&b, 2);
	add(&b, zeros, sizeof(struct gclk_said_change));
	save("reply", "changes", b.p, b.n);
	b.p[0] = 3;
	add(&b, zeros, sizeof(struct gclk_far_patch) - sizeof(struct gclk_said_change));
	save("reply", "patches", b.p, b.n);
	b.n = 0;
	put8(&b, 4);
	add(&b, zeros, sizeof(struct gclk_far_answer));
	snprintf(far.findings[0].id, sizeof(far.findings[0].id), "no-return-path");
	add(&b, &far, sizeof(far));
	add_state(&b);
	save("reply", "far", b.p, b.n);
	bytes_free(&b);
	free(facts);
}

/* One answer of the reader's behind the byte that target-said.c wants. */
static void save_said(const char *name, uint8_t kind, const void *said, size_t n)
{
	uint8_t *bytes = malloc(n + 1);

	FUZZ_CHECK(bytes);
	bytes[0] = kind;
	memcpy(bytes + 1, said, n);
	save("said", name, bytes, n + 1);
	free(bytes);
}

static void read_and_save(const char *name, uint8_t kind, uint32_t what, const void *from,
			  size_t n)
{
	void *said = NULL;
	size_t n_said = 0;

	FUZZ_CHECK(foreign_read(what, from, n, &said, &n_said, NULL) == 0);
	save_said(name, kind, said, n_said);
	free(said);
}

static void save_sayings(void)
{
	static const char host[] = "{\"tsc_hz\": \"2499997914\"}";
	struct move *move = malloc(sizeof(*move));
	struct bytes b = { 0 };
	FILE *file = fopen(GCLK_TEST_DATA "/bundle-v1.gclk", "rb");
	struct wire_message m;
	size_t n;
	char *text;

	FUZZ_CHECK(file && move);
	put_zero(&b, 1 << 20);
	b.n = fread(b.p, 1, 1 << 20, file);
	fclose(file);
	read_and_save("bundle", 0, FOREIGN_BUNDLE, b.p, b.n);
	bytes_free(&b);
	read_and_save("host", 1, FOREIGN_HOST_JSON, host, strlen(host));
	move_init(move, "migrate");
	strcpy(move->clocks[move->n_clocks++].clock, gclk_clock_names[0]);
	strcpy(move->ledger[move->n_ledger++].timer, "pit");
	gclk_findings_add(&move->findings, gclk_finding_table[0].id, "tsc", "a sentence");
	text = move_to_text(move, &n);
	FUZZ_CHECK(text);
	read_and_save("move", 2, FOREIGN_MOVE_JSON, text, n);
	free(text);
	free(move);
	fill_hello(&m);
	save_said("hello", 3, &m.hello.move, sizeof(m.hello.move));
	save_said("welcome", 4, &m.hello.move.host, sizeof(m.hello.move.host));
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: fuzz-seeds DIRECTORY\n");
		return 2;
	}
	root = argv[1];
	if (mkdir(root, 0777) && errno != EEXIST) {
		perror(root);
		return 1;
	}
	save_small_streams();
	save_real_streams();
	save_file("image", "xz", GCLK_TEST_DATA "/streams/pc-icount.qs.xz");
	save_file("bundle", "v1", GCLK_TEST_DATA "/bundle-v1.gclk");
	save_file("sealed", "signed", GCLK_TEST_DATA "/signed-v1.gseal");
	save_file("sealed", "encrypted", GCLK_TEST_DATA "/encrypted-v1.gseal");
	save_file("sealed", "key", GCLK_TEST_DATA "/seal-signer.pem");
	save_json();
	save("domain", "full", xml, sizeof(xml) - 1);
	save_frames();
	save_whole_frames();
	save_sayings();
	save_replies();
	return 0;
}
