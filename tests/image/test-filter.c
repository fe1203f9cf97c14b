/* SPDX-License-Identifier: MIT */
/* The live filter: what goes out is what came in, but for what a plan changes. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cursor.h"
#include "core/pvclock.h"
#include "core/util.h"
#include "gclk-test.h"
#include "image/image.h"
#include "stream-writer.h"

static const char *const reals[] = {
	"pc-2.3", "pc-compress", "pc-icount", "pc-multifd", "pc-shared-uuid", "pc-xbzrle",
	"q35-kvm-4",
};
#define XBZRLE 5
#define KVM 6

#ifdef GCLK_TEST_FAR
/* The same tests with a filter in another process; pieces of one byte take it too long. */
#define LEAST_BYTES 997

static int start_worker(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	int ends[2];

	(void)ctx;
	(void)reterr;
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	fflush(stdout);
	*ret = (struct gclk_worker_process){ ends[0], fork() };
	if (ret->pid == 0) {
		close(ends[0]);
		_exit(gclk_image_work(ends[1], NULL) < 0);
	}
	close(ends[1]);
	return 0;
}

static void stop_worker(void *ctx, struct gclk_worker_process *process, int failed,
			struct gclk_error *reterr)
{
	(void)ctx;
	close(process->socket);
	waitpid(process->pid, NULL, 0);
	if (failed) {
		*reterr = (struct gclk_error){ .message = "it has ended" };
	}
}

static int new_far_filter(const struct gclk_filter_options *options, struct gclk_filter **ret,
			  struct gclk_error *reterr)
{
	static const struct gclk_worker worker = { start_worker, stop_worker, NULL };
	struct gclk_filter_options far = { 0 };

	if (options) {
		far = *options;
	}
	far.worker = &worker;
	return gclk_filter_new(&far, ret, reterr);
}
#define gclk_filter_new new_far_filter
#else
#define LEAST_BYTES 1
#endif

enum cut { CUT_WHOLE, CUT_BYTES, CUT_RANDOM, N_CUTS };

static size_t piece(enum cut cut, size_t left)
{
	size_t n = cut == CUT_WHOLE ? left : cut == CUT_BYTES ? LEAST_BYTES :
		   (size_t)gclk_random_bits() % 70000;

	return GCLK_MIN(n, left);
}

/* The elapsed time of the plan; no plan where there is no state. */
#define NO_PLAN INT64_C(-1)

static struct gclk_plan *make_plan(const struct gclk_state *state, const struct gclk_carrier *carrier,
				   int64_t elapsed_ns)
{
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_host host = { 0 };
	struct gclk_disagreement none = { 0 };
	struct gclk_when when = { .elapsed_given = 1, .elapsed_ns = elapsed_ns };
	struct gclk_error error = { 0 };
	int r;

	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	when.run.ns = state->rtc.axis == GCLK_AXIS_REALTIME && state->rtc.next_periodic_ns > 0 ?
			      state->rtc.next_periodic_ns - 1 : INT64_C(1800000000000000000);
	when.run.ns += elapsed_ns;
	when.load = when.run;
	when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	r = gclk_plan(state, carrier, &host, &when, &none, &gclk_policy_default, plan, &error);
	if (r < 0) {
		printf("\n    plan: %s\n", error.message);
	}
	CU_ASSERT_EQUAL(r, 0);
	return plan;
}

/* What came of filtering a stream. */
struct outcome {
	int status;			/* of the last push */
	struct gclk_error error;
	size_t held_most;		/* bytes held at one time */
	unsigned n_changes;
	bool had_state;
	int was_running;
	struct gclk_findings findings;
	struct bytes out;
};

static void send_held(struct gclk_filter *f, int64_t elapsed_ns, struct outcome *o)
{
	const struct gclk_state *state = gclk_filter_state(f);
	const struct gclk_image_change *changes;
	struct gclk_plan *plan = NULL;
	const uint8_t *bytes = NULL;
	size_t n = 0;

	o->had_state = state != NULL;
	CU_ASSERT((gclk_filter_carrier(f) != NULL) == o->had_state);
	GCLK_EQ(gclk_filter_phase(f), GCLK_FILTER_WHOLE);
	if (state && elapsed_ns >= 0) {
		plan = make_plan(state, gclk_filter_carrier(f), elapsed_ns);
	}
	GCLK_EQ(gclk_filter_apply(f, plan, &bytes, &n, &o->error), 0);
	o->n_changes = gclk_filter_changes(f, &changes);
	put(&o->out, bytes, n);
	gclk_plan_free(plan);
}

/*
 * One push of at most @n bytes, as the loop in image.h has it; now and then by one who would
 * look whether more is there. Returns what it took.
 */
static size_t push_piece(struct gclk_filter *f, const uint8_t *p, size_t n, int64_t elapsed_ns,
			 struct outcome *o, size_t *held_now)
{
	bool most = gclk_random() & 1;
	size_t pass = 99, held = 99;
	uint8_t *copy = malloc(n ? n : 1);	/* reading beyond @n is caught */

	memcpy(copy, p, n);
	o->status = (most ? gclk_filter_push_most : gclk_filter_push)(f, copy, n, &pass, &held,
								      &o->error);
	free(copy);
	if (o->status < 0) {
		return 0;
	}
	CU_ASSERT_FATAL(pass + held <= n);
	CU_ASSERT(o->status == GCLK_FILTER_READY || pass + held == n ||
		  (most && o->status == GCLK_FILTER_MORE && n - pass - held < 64));
	CU_ASSERT(!*held_now || !pass);		/* nothing overtakes what is held */
	CU_ASSERT(o->status != GCLK_FILTER_OFF || !held);
	put(&o->out, p, pass);
	*held_now += held;
	o->held_most = GCLK_MAX(o->held_most, *held_now);
	if (o->status == GCLK_FILTER_READY) {
		send_held(f, elapsed_ns, o);
		*held_now = 0;
	}
	return pass + held;
}

static struct outcome run(const struct bytes *in, enum cut cut, int64_t elapsed_ns,
			  const struct gclk_filter_options *options)
{
	struct outcome o = { .status = GCLK_FILTER_MORE };
	struct gclk_filter *f = NULL;
	size_t at = 0, held_now = 0;

	CU_ASSERT_FATAL(gclk_filter_new(options, &f, NULL) == 0);
	while (at < in->n && o.status >= 0) {
		at += push_piece(f, in->p + at, piece(cut, in->n - at), elapsed_ns, &o, &held_now);
		if (o.status >= 0) {
			/* values keep their size */
			CU_ASSERT_FATAL(gclk_filter_offset(f) == at && o.out.n + held_now == at);
		}
	}
	for (unsigned i = 0; i < 10 && o.status == GCLK_FILTER_MORE; i++) {
		o.status = gclk_filter_quiet(f, &o.error);
	}
	if (at == in->n && o.status == GCLK_FILTER_READY && held_now) {
		send_held(f, elapsed_ns, &o);
	}
	o.was_running = gclk_filter_was_running(f);
	o.findings = *gclk_filter_findings(f);
	gclk_filter_free(f);
	return o;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->n == b->n && (a->n == 0 || !memcmp(a->p, b->p, a->n));
}

static const struct gclk_filter_options one_way = { .one_way = 1 };

GCLK_TEST(filter, an_untouched_plan_gives_the_identical_bytes)
{
	for (unsigned i = 0; i < GCLK_COUNT(reals); i++) {
		struct bytes in = { 0 };

		read_data(reals[i], &in);
		for (int k = 0; k < 2 * N_CUTS; k++) {
			struct outcome o = run(&in, (enum cut)(k / 2), k & 1 ? 0 : NO_PLAN, &one_way);

			CU_ASSERT(o.had_state && same(&in, &o.out));
			GCLK_EQ(o.n_changes, 0);
			GCLK_EQ(o.findings.n, 0);
			CU_ASSERT(o.held_most > 10000 && o.held_most < 400000);
			GCLK_EQ(o.was_running, i == 0 ? -1 : 1);	/* old machines do not say */
			bytes_free(&o.out);
		}
		bytes_free(&in);
	}
}

/* What gclk_image_write() makes of the same plan, without the record behind the stream. */
static struct bytes written(const struct bytes *in, int64_t elapsed_ns)
{
	char dir[] = "/tmp/gclk-test-XXXXXX", from[64], to[64];
	struct gclk_error error = { 0 };
	struct gclk_image *image = NULL;
	struct gclk_plan *plan;
	struct bytes out = { 0 };
	FILE *file;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(from, sizeof(from), "%s/from", dir);
	snprintf(to, sizeof(to), "%s/to", dir);
	file = fopen(from, "wb");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT_EQUAL(fwrite(in->p, 1, in->n, file), in->n);
	fclose(file);
	GCLK_EQ(gclk_image_open(from, NULL, &image, &error), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(image);
	plan = make_plan(gclk_image_state(image), gclk_image_carrier(image), elapsed_ns);
	GCLK_EQ(gclk_image_write(image, plan, NULL, 0, to, &error), 0);
	gclk_plan_free(plan);
	gclk_image_close(image);
	put_zero(&out, in->n);
	file = fopen(to, "rb");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT_EQUAL(fread(out.p, 1, in->n, file), in->n);
	fclose(file);
	unlink(from);
	unlink(to);
	rmdir(dir);
	return out;
}

GCLK_TEST(filter, the_bytes_of_a_rewritten_image)
{
	for (unsigned i = 0; i < GCLK_COUNT(reals); i++) {
		int64_t elapsed_ns = 1 + (int64_t)gclk_random_below(INT64_C(1000000000000));
		struct bytes in = { 0 }, expected;

		read_data(reals[i], &in);
		expected = written(&in, elapsed_ns);
		CU_ASSERT(!same(&in, &expected));
		for (int cut = 0; cut < N_CUTS; cut++) {
			struct outcome o = run(&in, (enum cut)cut, elapsed_ns, &one_way);

			CU_ASSERT(same(&expected, &o.out));
			CU_ASSERT(o.n_changes > 0);
			bytes_free(&o.out);
		}
		bytes_free(&expected);
		bytes_free(&in);
	}
}

/* Up to the tail; the guest's memory is not waited for. */
static struct gclk_filter *before_last_byte(const struct bytes *in,
					    const struct gclk_filter_options *options)
{
	struct gclk_filter *f = NULL;
	size_t pass, held;

	CU_ASSERT_FATAL(gclk_filter_new(options, &f, NULL) == 0);
	GCLK_EQ(gclk_filter_push(f, in->p, in->n - 1, &pass, &held, NULL), GCLK_FILTER_MORE);
	GCLK_EQ(gclk_filter_phase(f), GCLK_FILTER_TAIL);
	CU_ASSERT(held > 0);
	return f;
}

GCLK_TEST(filter, each_plan_starts_from_the_captured_bytes)
{
	struct bytes in = { 0 }, one, two;
	struct gclk_filter *f;
	struct gclk_plan *plan;
	const uint8_t *bytes = NULL;
	size_t pass = 0, held = 0, n = 0;

	read_data("pc-xbzrle", &in);
	one = written(&in, 1000000000);
	two = written(&in, 2000000000);
	f = before_last_byte(&in, NULL);
	CU_ASSERT_PTR_NULL(gclk_filter_state(f));
	GCLK_EQ(gclk_filter_push(f, in.p + in.n - 1, 1, &pass, &held, NULL), GCLK_FILTER_READY);
	CU_ASSERT_PTR_NOT_NULL_FATAL(gclk_filter_state(f));
	/* nothing is consumed before it is applied */
	GCLK_EQ(gclk_filter_push(f, "x", 1, &pass, &held, NULL), GCLK_FILTER_READY);
	GCLK_EQ(pass + held, 0);
	for (int i = 0; i < 4; i++) {
		const struct bytes *expected = i % 2 ? &two : &one;

		plan = make_plan(gclk_filter_state(f), gclk_filter_carrier(f),
				 i % 2 ? 2000000000 : 1000000000);
		GCLK_EQ(gclk_filter_apply(f, plan, &bytes, &n, NULL), 0);
		CU_ASSERT(!memcmp(bytes, expected->p + in.n - n, n));
		gclk_plan_free(plan);
	}
	GCLK_EQ(gclk_filter_apply(f, NULL, &bytes, &n, NULL), 0);
	CU_ASSERT(!memcmp(bytes, in.p + in.n - n, n));
	GCLK_EQ(gclk_filter_push(f, "more", 4, &pass, &held, NULL), GCLK_FILTER_OFF);
	GCLK_EQ(pass, 4);
	GCLK_EQ(gclk_filter_phase(f), GCLK_FILTER_THROUGH);
	GCLK_EQ(gclk_filter_apply(f, NULL, &bytes, &n, NULL), 0);
	GCLK_EQ(n, 0);
	gclk_filter_free(f);
	bytes_free(&one);
	bytes_free(&two);
	bytes_free(&in);
}

GCLK_TEST(filter, phases_and_what_is_known_on_the_way)
{
	struct bytes in = { 0 };
	struct gclk_filter *f = NULL;
	enum gclk_filter_phase phase = GCLK_FILTER_BEFORE_RAM, last = phase;
	unsigned seen = 0, wrong = 0;
	uint8_t uuid[16];
	size_t pass, held;

	read_data("pc-shared-uuid", &in);
	CU_ASSERT_FATAL(gclk_filter_new(&one_way, &f, NULL) == 0);
	CU_ASSERT_STRING_EQUAL(gclk_filter_machine(f), "");
	GCLK_EQ(gclk_filter_uuid(f, uuid), 0);
	for (size_t at = 0; at < in.n; at++) {
		wrong += gclk_filter_was_running(f) != -1;
		wrong += gclk_filter_end(f, NULL) >= 0;
		gclk_filter_push(f, in.p + at, 1, &pass, &held, NULL);
		phase = gclk_filter_phase(f);
		wrong += phase != last && phase != last + 1;
		wrong += (phase < GCLK_FILTER_TAIL) != (pass == 1);
		seen |= 1u << phase;
		last = phase;
	}
	GCLK_EQ(wrong, 0);
	GCLK_EQ(seen, 0x1f);
	GCLK_EQ(gclk_filter_end(f, NULL), 0);
	GCLK_EQ(gclk_filter_was_running(f), 1);
	CU_ASSERT_STRING_EQUAL(gclk_filter_machine(f), "pc-i440fx-7.2");
	GCLK_EQ(gclk_filter_uuid(f, uuid), 1);
	gclk_filter_free(f);
	bytes_free(&in);
}

/* Memory goes on with the push that brought it, also in the middle of a page. */
GCLK_TEST(filter, memory_is_never_kept)
{
	struct bytes in = { 0 };
	struct gclk_filter *f = NULL;
	size_t at = 0, pass, held, n, wrong = 0;

	read_data("pc-xbzrle", &in);
	CU_ASSERT_FATAL(gclk_filter_new(NULL, &f, NULL) == 0);
	while (gclk_filter_phase(f) < GCLK_FILTER_TAIL) {
		n = GCLK_MIN(1 + (size_t)gclk_random_below(3), in.n - at);
		wrong += gclk_filter_push(f, in.p + at, n, &pass, &held, NULL) != GCLK_FILTER_MORE;
		wrong += pass != n && gclk_filter_phase(f) != GCLK_FILTER_TAIL;
		wrong += pass + held != n;
		at += n;
	}
	GCLK_EQ(wrong, 0);
	gclk_filter_free(f);
	bytes_free(&in);
}

static void expect_finding(const struct outcome *o, const char *id, const char *word)
{
	GCLK_EQ(o->findings.n, 1);
	CU_ASSERT_FATAL(o->findings.n == 1);
	CU_ASSERT_STRING_EQUAL(o->findings.items[0].info->id, id);
	if (!strstr(o->findings.items[0].message, word)) {
		printf("\n    '%s' is not in: %s\n", word, o->findings.items[0].message);
		CU_FAIL("another message");
	}
}

GCLK_TEST(filter, without_a_return_path_it_passes_untouched)
{
	for (unsigned i = 0; i < GCLK_COUNT(reals); i++) {
		struct bytes in = { 0 };

		if (i == XBZRLE) {
			continue;
		}
		read_data(reals[i], &in);
		for (int k = 0; k < 2 * N_CUTS; k++) {
			struct gclk_filter_options options = { .unreadable = (uint8_t)(k & 1) };
			struct outcome o = run(&in, (enum cut)(k / 2), 1000000000, &options);

			CU_ASSERT(same(&in, &o.out) && !o.had_state);
			CU_ASSERT(k / 2 != CUT_BYTES || o.held_most == 0);
			expect_finding(&o, "no-return-path", "OPEN_RETURN_PATH");
			bytes_free(&o.out);
		}
		bytes_free(&in);
	}
}

/* Also where something else is wrong with it further on: however it was cut. */
GCLK_TEST(filter, without_a_return_path_nothing_later_refuses)
{
	struct gclk_filter_options options = { .unreadable = GCLK_FILTER_REFUSE };

	for (int cut = 0; cut < N_CUTS; cut++) {
		struct bytes in = { 0 };
		struct outcome o;

		put_header(&in, "pc-i440fx-7.2");
		put_start(&in, 3, "ram", 0, 4);
		put64(&in, 0x20000 | W_MEM_SIZE);
		put_name(&in, "pc.ram");
		put64(&in, 0x20000);
		put_eos(&in);
		put_footer(&in, 3);
		put_command(&in, 1, NULL, 0);	/* too late */
		put_part(&in, 2, 99);
		put_random(&in, 1000);
		o = run(&in, (enum cut)cut, 1000000000, &options);
		CU_ASSERT(same(&in, &o.out));
		expect_finding(&o, "no-return-path", "OPEN_RETURN_PATH");
		bytes_free(&o.out);
		bytes_free(&in);
	}
}

GCLK_TEST(filter, whether_the_guest_ran)
{
	static const struct { const char name[8]; int expected; } states[] = {
		{ "running", 1 }, { "paused\0", 0 }, { "prelaun", -1 }, { "\0\0\0\0\0\0", -1 },
	};
	struct bytes in = { 0 };
	uint8_t *at;

	read_data("pc-xbzrle", &in);
	at = memmem(in.p, in.n, "\x0bglobalstate", 12);
	CU_ASSERT_PTR_NOT_NULL_FATAL(at);
	at = memmem(at, 200, "running", 8);
	CU_ASSERT_PTR_NOT_NULL_FATAL(at);
	for (unsigned i = 0; i < GCLK_COUNT(states); i++) {
		struct outcome o;

		memcpy(at, states[i].name, 7);
		o = run(&in, CUT_RANDOM, NO_PLAN, NULL);
		CU_ASSERT(o.had_state && same(&in, &o.out));
		GCLK_EQ(o.was_running, states[i].expected);
		bytes_free(&o.out);
	}
	bytes_free(&in);
}

/* --- what cannot be filtered --- */

/* Up to the rounds of RAM, one of which is there. */
static void put_begun(struct bytes *b)
{
	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	put_start(b, 3, "ram", 0, 4);
	put64(b, 0x20000 | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, 0x20000);
	put_eos(b);
	put_footer(b, 3);
	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", 4096, W_PAGE);
	put_random(b, 4096);
	put_eos(b);
	put_footer(b, 3);
}

static void put_end(struct bytes *b)
{
	put_part(b, 3, 3);
	put_eos(b);
	put_footer(b, 3);
}

static size_t side_channel(struct bytes *b)
{
	put32(b, 0x11223344);
	put_random(b, 300);
	return 0;
}

static size_t qemus_tls(struct bytes *b)
{
	put(b, "\x16\x03\x01\x02", 4);
	put_random(b, 300);
	return 0;
}

static size_t no_stream(struct bytes *b)
{
	put_text(b, "GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n");
	return 0;
}

static size_t colo(struct bytes *b)
{
	size_t at;

	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	at = b->n;
	put_command(b, 8, NULL, 0);
	put_random(b, 100);
	return at;
}

static size_t postcopy(struct bytes *b)
{
	size_t at;

	put_begun(b);
	at = b->n;
	put_command(b, 7, "\0\0\x10\0", 4);
	put_random(b, 0x1000);		/* the package, and pages without end */
	return at;
}

static size_t rdma(struct bytes *b)
{
	size_t at;

	put_begun(b);
	put_part(b, 2, 3);
	at = b->n;
	put64(b, W_HOOK | W_CONTINUE);
	put_random(b, 100);
	return at;
}

static size_t unknown_iterable(struct bytes *b)
{
	size_t at;

	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	at = b->n;
	put_start(b, 3, "spapr/htab", 0, 1);
	put_random(b, 100);
	return at + 6;			/* its header is well formed, its name is the reason */
}

/* Device state that never ends, in a stream that is right so far. */
static size_t too_long(struct bytes *b)
{
	put_begun(b);
	put_end(b);
	put8(b, 4);
	put32(b, 7);
	put_name(b, "endless");
	put32(b, 0);
	put32(b, 1);
	put_zero(b, 300000);
	return SIZE_MAX;
}

static size_t unknown_layout(struct bytes *b)
{
	struct devices d;

	put_begun(b);
	put_end(b);
	devices_begin(&d, DIALECT_7_2, true);
	device_begin(&d, "timer", 0, "timer", 2);
	field_be(&d, "of_another_world", "int64", 111, 8);
	device_end(&d);
	device_begin(&d, "cpu", 0, "cpu", 12);
	field_be(&d, "env.tsc", "uint64", 1000000, 8);
	device_end(&d);
	devices_end(&d, b);
	return SIZE_MAX;
}

static size_t no_vcpu(struct bytes *b)
{
	struct devices d;

	put_begun(b);
	put_end(b);
	devices_begin(&d, DIALECT_7_2, true);
	device_opaque(&d, "slirp", 0, "whatever it is", 14);
	devices_end(&d, b);
	return SIZE_MAX;
}

static size_t contradiction(struct bytes *b)
{
	size_t at;

	put_begun(b);
	at = b->n;
	put_part(b, 2, 99);
	put_random(b, 100);
	return at;
}

/* Machine types up to 2.2 send none; then nothing more comes. */
static size_t no_description(struct bytes *b)
{
	put_begun(b);
	put_end(b);
	put8(b, 4);
	put32(b, 7);
	put_name(b, "device");
	put32(b, 0);
	put32(b, 1);
	put_random(b, 300);
	put_footer(b, 7);
	put8(b, 0);
	return SIZE_MAX;
}

static const struct {
	const char *name;
	size_t (*make)(struct bytes *b);	/* returns the offset that is told */
	int status;
	const char *word;
	bool holds;				/* before it shows */
} unfilterables[] = {
	{ "side channel", side_channel, GCLK_UNSUPPORTED, "multifd", false },
	{ "TLS", qemus_tls, GCLK_UNSUPPORTED, "TLS", false },
	{ "no stream", no_stream, GCLK_MALFORMED, "not a QEMU migration stream", false },
	{ "COLO", colo, GCLK_UNSUPPORTED, "COLO", false },
	{ "postcopy", postcopy, GCLK_UNSUPPORTED, "PACKAGED", false },
	{ "RDMA", rdma, GCLK_UNSUPPORTED, "RDMA", false },
	{ "iterable", unknown_iterable, GCLK_UNSUPPORTED, "spapr/htab", false },
	{ "contradiction", contradiction, GCLK_MALFORMED, "never began", false },
	{ "too long", too_long, GCLK_UNSUPPORTED, "more than 200000 bytes", true },
	{ "layout", unknown_layout, GCLK_UNSUPPORTED, "", true },
	{ "no vCPU", no_vcpu, GCLK_UNSUPPORTED, "0 vCPUs", true },
	{ "no description", no_description, GCLK_UNSUPPORTED, "no device description", true },
};

GCLK_TEST(filter, unfilterable_streams_pass_untouched_when_told_so)
{
	for (unsigned i = 0; i < GCLK_COUNT(unfilterables); i++) {
		for (int cut = 0; cut < N_CUTS; cut++) {
			struct gclk_filter_options options = { .tail_bytes = 200000 };
			struct bytes in = { 0 };
			struct outcome o;

			unfilterables[i].make(&in);
			o = run(&in, (enum cut)cut, 1000000000, &options);
			if (!same(&in, &o.out)) {
				printf("\n    %s: %zu of %zu bytes\n", unfilterables[i].name,
				       o.out.n, in.n);
			}
			CU_ASSERT(same(&in, &o.out));
			CU_ASSERT(!o.had_state);
			expect_finding(&o, "stream-not-filtered", unfilterables[i].word);
			if (cut == CUT_BYTES) {
				CU_ASSERT((o.held_most > 0) == unfilterables[i].holds);
			}
			CU_ASSERT(o.held_most <= options.tail_bytes);
			bytes_free(&o.out);
			bytes_free(&in);
		}
	}
}

GCLK_TEST(filter, or_they_are_refused_at_the_byte_that_shows_it)
{
	for (unsigned i = 0; i < GCLK_COUNT(unfilterables); i++) {
		struct gclk_filter_options options = { .tail_bytes = 200000,
						       .unreadable = GCLK_FILTER_REFUSE };
		struct gclk_filter *f = NULL;
		struct gclk_error error = { 0 };
		struct bytes in = { 0 };
		size_t at, offset = unfilterables[i].make(&in), pass, held;
		const uint8_t *bytes;
		int r = GCLK_FILTER_MORE;

		CU_ASSERT_FATAL(gclk_filter_new(&options, &f, NULL) == 0);
		for (at = 0; at < in.n && r >= 0; at++) {
			r = gclk_filter_push(f, in.p + at, 1, &pass, &held, &error);
		}
		for (unsigned k = 0; k < 10 && r >= 0; k++) {
			r = gclk_filter_quiet(f, &error);
		}
		GCLK_EQ(r, -unfilterables[i].status);
		CU_ASSERT_PTR_NOT_NULL(strstr(error.message, unfilterables[i].word));
		if (offset != SIZE_MAX) {
			GCLK_EQ(error.offset, offset);
			CU_ASSERT(at <= offset + 32);	/* as soon as it is there */
		}
		/* and it stays so; nothing that was held comes out */
		GCLK_EQ(gclk_filter_push(f, "x", 1, &pass, &held, NULL), r);
		GCLK_EQ(pass + held, 0);
		GCLK_EQ(gclk_filter_apply(f, NULL, &bytes, &pass, NULL), r);
		GCLK_EQ(gclk_filter_end(f, NULL), r);
		GCLK_EQ(gclk_filter_phase(f), GCLK_FILTER_REFUSED);
		gclk_filter_free(f);
		bytes_free(&in);
	}
}

GCLK_TEST(filter, the_caller_may_give_up_in_the_middle)
{
	struct bytes in = { 0 }, out = { 0 };
	struct gclk_filter *f = NULL;
	const uint8_t *bytes;
	size_t pass = 0, held = 0, n;

	read_data("pc-xbzrle", &in);
	f = before_last_byte(&in, NULL);
	GCLK_EQ(gclk_filter_apply(f, NULL, &bytes, &n, NULL), 0);
	CU_ASSERT(n > 10000);
	put(&out, in.p, in.n - 1 - n);
	put(&out, bytes, n);
	GCLK_EQ(gclk_filter_push(f, in.p + in.n - 1, 1, &pass, &held, NULL), GCLK_FILTER_OFF);
	put(&out, in.p + in.n - 1, pass);
	CU_ASSERT(same(&in, &out));
	gclk_filter_free(f);

	/* before there is anything to hold */
	CU_ASSERT_FATAL(gclk_filter_new(NULL, &f, NULL) == 0);
	GCLK_EQ(gclk_filter_push(f, in.p, 1000, &pass, &held, NULL), GCLK_FILTER_MORE);
	GCLK_EQ(gclk_filter_apply(f, NULL, &bytes, &n, NULL), 0);
	GCLK_EQ(n, 0);
	GCLK_EQ(gclk_filter_push(f, in.p + 1000, in.n - 1000, &pass, &held, NULL), GCLK_FILTER_OFF);
	GCLK_EQ(pass, in.n - 1000);
	gclk_filter_free(f);
	bytes_free(&out);
	bytes_free(&in);
}

/* A network may pause between the state and its description; only long silence counts. */
GCLK_TEST(filter, a_short_silence_is_none)
{
	struct bytes in = { 0 };
	struct gclk_filter *f = NULL;
	size_t pass, held;

	no_description(&in);
	CU_ASSERT_FATAL(gclk_filter_new(NULL, &f, NULL) == 0);
	GCLK_EQ(gclk_filter_push(f, in.p, in.n, &pass, &held, NULL), GCLK_FILTER_MORE);
	for (unsigned i = 0; i < 9; i++) {
		GCLK_EQ(gclk_filter_quiet(f, NULL), GCLK_FILTER_MORE);
	}
	GCLK_EQ(gclk_filter_push(f, "\6", 1, &pass, &held, NULL), GCLK_FILTER_MORE);
	for (unsigned i = 0; i < 30; i++) {
		GCLK_EQ(gclk_filter_quiet(f, NULL), GCLK_FILTER_MORE);	/* more must come */
	}
	gclk_filter_free(f);
	bytes_free(&in);
}

/* A source that cancels closes: what is held is then not the whole. */
GCLK_TEST(filter, an_end_in_the_middle_is_told)
{
	struct bytes in = { 0 };
	struct gclk_filter *f;
	struct gclk_error error = { 0 };

	read_data("pc-xbzrle", &in);
	f = before_last_byte(&in, NULL);
	GCLK_EQ(gclk_filter_quiet(f, NULL), GCLK_FILTER_MORE);
	GCLK_EQ(gclk_filter_end(f, &error), -GCLK_TRUNCATED);
	CU_ASSERT(error.message[0] != 0);
	gclk_filter_free(f);
	bytes_free(&in);
}

/* --- the guest's clock page --- */

/* In a file, for gclk_image_open(). */
struct file { char dir[32], path[64]; };

static struct gclk_image *open_as_file(const struct bytes *in, struct file *to, bool page_clock)
{
	struct gclk_image_options options = { .want_page_clock = page_clock };
	struct gclk_image *image = NULL;
	FILE *file;

	strcpy(to->dir, "/tmp/gclk-test-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(to->dir));
	snprintf(to->path, sizeof(to->path), "%s/image", to->dir);
	file = fopen(to->path, "wb");
	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	CU_ASSERT_EQUAL(fwrite(in->p, 1, in->n, file), in->n);
	fclose(file);
	GCLK_EQ(gclk_image_open(to->path, &options, &image, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(image);
	return image;
}

static void close_file(struct gclk_image *image, const struct file *file)
{
	gclk_image_close(image);
	unlink(file->path);
	rmdir(file->dir);
}

/* The last record of the whole page at @offset. */
static size_t find_page(const struct bytes *b, uint64_t offset)
{
	size_t at = 0;
	uint8_t word[8];

	gclk_put_be64(word, offset | W_PAGE | W_CONTINUE);
	for (const uint8_t *p = b->p; (p = memmem(p, b->n - (size_t)(p - b->p), word, 8)); p++) {
		at = (size_t)(p - b->p) + 8;
	}
	CU_ASSERT_FATAL(at > 0);
	return at;
}

#define TSC_AGE_NS 1000000

/*
 * A real stream of a guest that is given a clock page at 0x20000: that page and the
 * vCPU's register are changed. The page is @delay_ns behind the clock in the stream.
 */
static void put_clock_page(struct bytes *in, uint64_t delay_ns)
{
	struct gclk_pvclock page = { .version = 2, .scale = { 0x80000000, 0 }, .flags = 1 };
	struct gclk_source_field field;
	const struct gclk_state *state;
	struct gclk_image *image;
	struct file file;
	unsigned changed = 0;

	image = open_as_file(in, &file, false);
	state = gclk_image_state(image);
	page.tsc_timestamp = state->tsc[0].value_ticks - 2 * TSC_AGE_NS;
	page.system_time_ns = state->kvmclock.clock_ns - delay_ns - TSC_AGE_NS;
	gclk_pvclock_write(&page, in->p + find_page(in, 0x20000));
	for (unsigned i = 0; gclk_image_source_field(image, i, &field); i++) {
		if (!strcmp(field.field, "env.system_time_msr") && field.instance == 0) {
			gclk_put_be64(in->p + field.offset, 0x20001);
			changed++;
		}
		if (!strcmp(field.field, "clock_is_reliable")) {
			in->p[field.offset] = 0;
		}
	}
	GCLK_EQ(changed, 1);
	close_file(image, &file);
}

GCLK_TEST(filter, the_guests_clock_page_is_found_as_it_passes)
{
	struct bytes in = { 0 };
	struct gclk_image *image;
	struct file file;

	read_data("q35-kvm-4", &in);
	put_clock_page(&in, 12345678);
	image = open_as_file(&in, &file, true);
	GCLK_EQ(gclk_image_state(image)->kvmclock.read_after_stop_ns, 12345678);
	for (int k = 0; k < 2 * N_CUTS; k++) {
		struct gclk_filter_options options = { .one_way = 1, .want_page_clock = k & 1 };
		struct gclk_filter *f = NULL;
		const struct gclk_state *state;
		size_t at = 0, pass, held;
		int r = GCLK_FILTER_MORE;

		CU_ASSERT_FATAL(gclk_filter_new(&options, &f, NULL) == 0);
		while (r == GCLK_FILTER_MORE && at < in.n) {
			size_t n = piece((enum cut)(k / 2), in.n - at);

			r = gclk_filter_push(f, in.p + at, n, &pass, &held, NULL);
			at += pass + held;
		}
		GCLK_EQ(r, GCLK_FILTER_READY);
		state = gclk_filter_state(f);
		CU_ASSERT_PTR_NOT_NULL_FATAL(state);
		if (k & 1) {
			GCLK_EQ(state->kvmclock.read_after_stop_ns, 12345678);
			GCLK_EQ(state->vcpu[0].pvclock_tsc_ticks,
				state->tsc[0].value_ticks - 2 * TSC_AGE_NS);
		}
		GCLK_EQ(GCLK_HAS(kvmclock, &state->kvmclock, read_after_stop_ns) != 0, k & 1);
		gclk_filter_free(f);
	}
	close_file(image, &file);
	bytes_free(&in);
}

/* --- hostile input --- */

/* Whatever is damaged: told to pass, it passes all of it, and unchanged without a plan. */
GCLK_TEST(filter, damaged_streams_pass_byte_for_byte)
{
	struct bytes in = { 0 };
	struct gclk_filter_options options = { .one_way = 1, .want_page_clock = 1 };
	unsigned n = 300 * gclk_test_scale(), unread = 0;

	read_data("pc-shared-uuid", &in);
	for (unsigned i = 0; i < n; i++) {
		/* the head, the device state and the description, in turn */
		size_t part = i % 3 == 0 ? GCLK_MIN(in.n, 700) : in.n;
		size_t at = i % 3 == 0 ? gclk_random_below(part) :
			    in.n - 1 - gclk_random_below(GCLK_MIN(in.n, i % 3 == 1 ? 60000 : 30000));
		uint8_t was = in.p[at];
		struct outcome o;

		in.p[at] = (uint8_t)(gclk_random_below(3) ? was ^ 1u << gclk_random_below(8) :
				     gclk_random_below(256));
		o = run(&in, i & 1 ? CUT_WHOLE : CUT_RANDOM, NO_PLAN, &options);
		unread += !o.had_state;
		CU_ASSERT(same(&in, &o.out) || o.status == GCLK_FILTER_MORE);
		/* an announced length that was damaged leaves a state that is not whole: held */
		CU_ASSERT(o.out.n <= in.n && !memcmp(o.out.p, in.p, o.out.n));
		bytes_free(&o.out);
		in.p[at] = was;
	}
	CU_ASSERT(unread > 0);
	bytes_free(&in);
}

/* With a plan there is an answer or an error, and never another length. */
GCLK_TEST(filter, damaged_values_are_planned_or_refused)
{
	struct bytes in = { 0 };
	struct gclk_filter_options options = { .unreadable = GCLK_FILTER_REFUSE };
	unsigned n = 200 * gclk_test_scale();

	read_data("pc-xbzrle", &in);
	for (unsigned i = 0; i < n; i++) {
		size_t at = in.n - 1 - gclk_random_below(70000), pass, held, n_out;
		uint8_t was = in.p[at];
		struct gclk_filter *f = NULL;
		struct gclk_error error = { 0 };
		const uint8_t *out;
		int r;

		in.p[at] = (uint8_t)gclk_random();
		CU_ASSERT_FATAL(gclk_filter_new(&options, &f, NULL) == 0);
		r = gclk_filter_push(f, in.p, in.n, &pass, &held, &error);
		if (r == GCLK_FILTER_READY) {
			struct gclk_plan *plan = gclk_plan_new(gclk_filter_state(f)->n_vcpus);
			struct gclk_host host = { 0 };
			struct gclk_when when = { .elapsed_given = 1, .elapsed_ns = 5000000000 };
			struct gclk_disagreement none = { 0 };

			when.run.ns = when.load.ns = INT64_C(1800000000000000000);
			if (gclk_plan(gclk_filter_state(f), gclk_filter_carrier(f), &host, &when, &none,
				      &gclk_policy_default, plan, NULL) == 0 &&
			    gclk_filter_apply(f, plan, &out, &n_out, &error) == 0) {
				GCLK_EQ(n_out, held);
			}
			gclk_plan_free(plan);
		} else if (r < 0) {
			CU_ASSERT(error.status == -r && error.message[0]);
		}
		gclk_filter_free(f);
		in.p[at] = was;
	}
	bytes_free(&in);
}

/* The least that a section `cpu` must have; every row of it is found. */
static void put_bare_cpu(struct devices *d, unsigned n)
{
	device_begin(d, "cpu", n, "cpu", 12);
	field_be(d, "env.tsc_offset", "uint64", 0, 8);
	field_be(d, "env.mp_state", "uint32", 0, 4);
	field_be(d, "env.tsc", "uint64", 0, 8);
	field_be(d, "env.tsc_aux", "uint64", 0, 8);
	field_be(d, "env.system_time_msr", "uint64", 0, 8);
	field_be(d, "env.wall_clock_msr", "uint64", 0, 8);
	device_end(d);
}

/* A stream with a page of memory, up to its vCPUs. */
static void begin_many(struct bytes *in, struct devices *d, unsigned vcpus)
{
	put_header(in, NULL);
	put_command(in, 1, NULL, 0);
	put_start(in, 2, "ram", 0, 4);
	put64(in, 4096 | W_MEM_SIZE);
	put_name(in, "pc.ram");
	put64(in, 4096);
	put_eos(in);
	put_part(in, 3, 2);
	put_eos(in);
	devices_begin(d, DIALECT_NO_CONFIGURATION, false);
	for (unsigned i = 0; i < vcpus; i++) {
		put_bare_cpu(d, i);
	}
}

/* Small to send, and long to read for whoever looks at every row for each timer. */
GCLK_TEST(filter, many_timers_of_many_vcpus_take_no_product_of_them)
{
	enum { VCPUS = GCLK_VCPUS_MAX, TIMERS = 1000000 };
	uint8_t *zeros = calloc(TIMERS, 8);
	struct gclk_filter *f = NULL;
	struct bytes in = { 0 };
	struct devices d;
	size_t pass, held;
	clock_t start;

	begin_many(&in, &d, VCPUS);
	device_begin(&d, "many", 0, "many", 1);
	field_array(&d, "t", "timer", 8, TIMERS, zeros);
	device_end(&d);
	devices_end(&d, &in);
	CU_ASSERT_FATAL(gclk_filter_new(NULL, &f, NULL) == 0);
	start = clock();
	GCLK_EQ(gclk_filter_push(f, in.p, in.n, &pass, &held, NULL), GCLK_FILTER_READY);
	CU_ASSERT(clock() - start < 20 * CLOCKS_PER_SEC);
	CU_ASSERT_PTR_NOT_NULL_FATAL(gclk_filter_state(f));
	GCLK_EQ(gclk_filter_state(f)->n_vcpus, VCPUS);
	GCLK_EQ(gclk_filter_state(f)->n_timers, GCLK_TIMERS_MAX);
	GCLK_EQ(gclk_filter_state(f)->timers_left_out, TIMERS - GCLK_TIMERS_MAX);
	gclk_filter_free(f);
	bytes_free(&in);
	free(zeros);
}

/* The guest stands still meanwhile: for each change all rows were gone through. */
GCLK_TEST(filter, changes_of_many_vcpus_take_no_product_of_them)
{
	enum { VCPUS = GCLK_VCPUS_MAX };
	const struct gclk_image_change *changes;
	struct gclk_filter *f = NULL;
	struct bytes in = { 0 };
	struct gclk_plan *plan;
	struct devices d;
	const uint8_t *out;
	size_t n;
	clock_t start, reading;

	begin_many(&in, &d, VCPUS);
	devices_end(&d, &in);
	CU_ASSERT_FATAL(gclk_filter_new(NULL, &f, NULL) == 0);
	start = clock();
	GCLK_EQ(gclk_filter_push(f, in.p, in.n, &n, &n, NULL), GCLK_FILTER_READY);
	reading = clock() - start;
	CU_ASSERT_PTR_NOT_NULL_FATAL(gclk_filter_state(f));
	plan = gclk_plan_new(VCPUS);
	CU_ASSERT_FATAL(plan && gclk_state_assign(plan->state, gclk_filter_state(f), NULL) == 0);
	for (unsigned i = 0; i < VCPUS; i++) {
		plan->state->tsc[i].aux += 1;
	}
	start = clock();
	GCLK_EQ(gclk_filter_apply(f, plan, &out, &n, NULL), 0);
	start = clock() - start;
	CU_ASSERT(start < 4 * reading);	/* which goes through all of them once; it takes half of that */
	GCLK_EQ(gclk_filter_changes(f, &changes), VCPUS);
	gclk_plan_free(plan);
	gclk_filter_free(f);
	bytes_free(&in);
}
