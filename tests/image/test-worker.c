/* SPDX-License-Identifier: MIT */
/*
 * Images read by another process: the same answers as without one; and what a worker that
 * is in a stranger's hands can say is refused, with the file as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gclk-test.h"
#include "core/util.h"
#include "image/worker/asker.h"
#include "image/worker/far.h"
#include "image/worker/guard.h"

#define STREAM "pc-multifd.qs.xz"

/* ---- a worker of this test ---- */

/* What it does instead of working; NULL: it works. */
static void (*script)(int socket);

static int start(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	int ends[2];

	(void)ctx;
	(void)reterr;
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	fflush(stdout);
	ret->socket = ends[0];
	ret->pid = fork();
	if (ret->pid == 0) {
		close(ends[0]);
		if (script) {
			script(ends[1]);
		} else {
			gclk_image_work(ends[1], NULL);
		}
		_exit(0);
	}
	close(ends[1]);
	return 0;
}

static unsigned n_stopped;

static void stop(void *ctx, struct gclk_worker_process *process, int failed,
		 struct gclk_error *reterr)
{
	(void)ctx;
	close(process->socket);
	if (!failed) {
		kill(process->pid, SIGKILL);
	}
	waitpid(process->pid, NULL, 0);
	n_stopped++;
	if (failed) {
		*reterr = (struct gclk_error){ .status = GCLK_PEER, .message = "it has died" };
	}
}

static const struct gclk_worker worker = { start, stop, NULL };

/* ---- files ---- */

static char directory[64];

static void *unpacked(size_t *ret_n)
{
	char command[600];
	char *bytes = malloc((size_t)8 << 20);
	FILE *pipe;

	snprintf(command, sizeof(command), "xz -dc %s/streams/" STREAM, GCLK_TEST_DATA);
	pipe = popen(command, "r");
	*ret_n = fread(bytes, 1, (size_t)8 << 20, pipe);
	pclose(pipe);
	return bytes;
}

static void write_file(const char *path, const void *a, size_t n_a, const void *b, size_t n_b)
{
	FILE *file = fopen(path, "w");

	CU_ASSERT_FATAL(file != NULL);
	CU_ASSERT(fwrite(a, 1, n_a, file) == n_a && fwrite(b, 1, n_b, file) == n_b);
	fclose(file);
}

static char *read_all(const char *path, size_t *ret_n)
{
	char *bytes = malloc((size_t)16 << 20);
	FILE *file = fopen(path, "r");

	*ret_n = file ? fread(bytes, 1, (size_t)16 << 20, file) : 0;
	if (file) {
		fclose(file);
	}
	return bytes;
}

static bool same_files(const char *a, const char *b)
{
	size_t n_a, n_b;
	char *in_a = read_all(a, &n_a), *in_b = read_all(b, &n_b);
	bool same = n_a == n_b && n_a && !memcmp(in_a, in_b, n_a);

	free(in_a);
	free(in_b);
	return same;
}

static const char *place(const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];

	if (!*directory) {
		strcpy(directory, "/tmp/gclk-worker-XXXXXX");
		CU_ASSERT_FATAL(mkdtemp(directory) != NULL);
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

static void clean_up(void)
{
	static const char *const names[] = { "stream", "before", "save", "copy", "plain" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		unlink(place(names[i]));
	}
	rmdir(directory);
	*directory = 0;
	script = NULL;
}

/* "stream", and the same behind a header of libvirt's, "save"; "before": what it was. */
static void make_files(void)
{
	static const char xml[] = "<domain type='qemu'><name>one</name><uuid>"
				  "00112233-4455-6677-8899-aabbccddeeff</uuid></domain>";
	uint8_t head[92 + 256] = "LibvirtQemudSave";
	const uint32_t words[] = { 2, 256, 1, 0, 0 };
	size_t n;
	void *stream = unpacked(&n);

	memcpy(head + 16, words, sizeof(words));
	memcpy(head + 92, xml, sizeof(xml));
	write_file(place("stream"), stream, n, "", 0);
	write_file(place("save"), head, sizeof(head), stream, n);
	write_file(place("before"), head, sizeof(head), stream, n);
	free(stream);
}

static struct gclk_image *open_one(const char *path, uint8_t writable,
				   const struct gclk_worker *by)
{
	const struct gclk_image_options options = { .writable = writable, .worker = by };
	struct gclk_image *image = NULL;
	struct gclk_error error;

	if (gclk_image_open(path, &options, &image, &error) < 0) {
		printf("\n    %s: %s\n", path, error.message);
	}
	return image;
}

static struct gclk_plan *plan_after(const struct gclk_image *image, int64_t elapsed_ns)
{
	const struct gclk_state *state = gclk_image_state(image);
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_when when = { .captured = { 0, GCLK_UNBOUNDED }, .elapsed_given = 1,
				  .elapsed_ns = elapsed_ns };
	struct gclk_disagreement none = { 0 };
	struct gclk_host host = { 0 };

	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	when.run.ns = when.load.ns = INT64_C(1800000000000000000);
	CU_ASSERT(gclk_plan(state, gclk_image_carrier(image), &host, &when, &none,
			    &gclk_policy_default, plan, NULL) == 0);
	return plan;
}

/* A second later; some timers have moved. */
static struct gclk_plan *plan_for(const struct gclk_image *image)
{
	return plan_after(image, 1000000000);
}

/* ---- the same as without ---- */

static void compare_states(const struct gclk_image *a, const struct gclk_image *b)
{
	const struct gclk_state *x = gclk_image_state(a), *y = gclk_image_state(b);

	GCLK_EQ(x->n_vcpus, y->n_vcpus);
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		uint32_t n_x, n_y;
		const char *p = gclk_state_part(x, part, &n_x), *q = gclk_state_part(y, part, &n_y);

		GCLK_EQ(n_x, n_y);
		for (uint32_t k = 0; n_x == n_y && k < n_x; k++) {
			for (unsigned f = 0; f < part->record->n_fields; f++) {
				const struct gclk_field *field = &part->record->fields[f];
				size_t at = (size_t)k * part->record->size + field->offset;

				CU_ASSERT(!memcmp(p + at, q + at, field->size));
			}
		}
	}
}

static void compare_fields(const struct gclk_image *a, const struct gclk_image *b)
{
	struct gclk_source_field x, y;
	unsigned n = 0;

	while (gclk_image_source_field(a, n, &x)) {
		CU_ASSERT_FATAL(gclk_image_source_field(b, n, &y) == 1);
		CU_ASSERT(!strcmp(x.section, y.section) && !strcmp(x.field, y.field) &&
			  x.offset == y.offset && x.size == y.size && x.value == y.value &&
			  x.instance == y.instance && x.is_signed == y.is_signed &&
			  !memcmp(x.bytes, y.bytes, x.size));
		n++;
	}
	CU_ASSERT(n > 20 && !gclk_image_source_field(b, n, &y));
}

GCLK_TEST(worker, says_what_a_reader_here_would)
{
	struct gclk_image *a, *b;

	make_files();
	a = open_one(place("save"), 0, NULL);
	b = open_one(place("save"), 0, &worker);
	CU_ASSERT_FATAL(a && b);
	compare_states(a, b);
	compare_fields(a, b);
	GCLK_EQ(gclk_image_digest(a), gclk_image_digest(b));
	GCLK_EQ(gclk_image_format(b), GCLK_FORMAT_LIBVIRT_SAVE);
	GCLK_EQ(gclk_image_was_running(b), 1);
	CU_ASSERT(!strcmp(gclk_image_compression(b), "none"));
	CU_ASSERT(!memcmp(gclk_image_domain(a), gclk_image_domain(b), sizeof(struct gclk_domain)));
	gclk_image_close(a);
	gclk_image_close(b);
	clean_up();
}

/* ---- a late writing that is let through, or not ---- */

struct gate {
	bool shut;
	unsigned asked, done;
};

static int may_write(void *ctx)
{
	struct gate *gate = ctx;

	gate->asked++;
	return gate->shut;
}

static void has_written(void *ctx)
{
	struct gate *gate = ctx;

	gate->done++;
}

static void write_by_a_gate(const struct gclk_worker *by)
{
	struct gclk_image *image = open_one(place("save"), 1, by);
	struct gate gate = { .shut = true };
	const struct gclk_late_gate asks = { may_write, has_written, &gate };
	struct gclk_image_span span;
	struct gclk_plan *plan;
	struct gclk_error error;
	char *now;
	size_t n;

	CU_ASSERT_FATAL(image != NULL);
	plan = plan_for(image);
	gclk_image_late_gate(image, &asks);
	GCLK_EQ(gclk_image_late_begin(image, plan, "payload", 7, &span, &error), 0);
	GCLK_EQ(gate.asked, 0);
	now = read_all(place("save"), &n);
	write_file(place("copy"), now, n, "", 0);
	free(now);
	gclk_plan_free(plan);
	plan = plan_after(image, 2000000000);
	GCLK_EQ(gclk_image_late_write(image, plan, &error), -GCLK_STATE);
	GCLK_EQ(gate.asked, 1);
	GCLK_EQ(gate.done, 0);
	CU_ASSERT(same_files(place("save"), place("copy")));
	gate.shut = false;
	GCLK_EQ(gclk_image_late_write(image, plan, &error), 0);
	GCLK_EQ(gate.asked, 2);
	GCLK_EQ(gate.done, 1);
	CU_ASSERT(!same_files(place("save"), place("copy")));
	gclk_plan_free(plan);
	gclk_image_close(image);
}

/* Whoever made the bytes. */
GCLK_TEST(worker, a_late_writing_goes_by_a_gate)
{
	make_files();
	write_by_a_gate(NULL);
	clean_up();
	make_files();
	write_by_a_gate(&worker);
	clean_up();
}

static void change_and_undo(const struct gclk_worker *by)
{
	const struct gclk_image_options options = { .worker = by };
	struct gclk_image *image = open_one(place("save"), 1, by);
	const struct gclk_image_change *changes;
	struct gclk_plan *plan;
	size_t n_record;
	unsigned n = 0;
	int undone = 0;

	CU_ASSERT_FATAL(image != NULL);
	plan = plan_for(image);
	GCLK_EQ(gclk_image_encode(image, plan, &changes, &n, NULL), 0);
	CU_ASSERT(n > 0);
	GCLK_EQ(gclk_image_patch(image, plan, "payload", 7, NULL), 0);
	gclk_image_close(image);
	CU_ASSERT(!same_files(place("save"), place("before")));
	image = open_one(place("save"), 0, by);
	CU_ASSERT(gclk_image_record(image, &n_record) && n_record == 7);
	GCLK_EQ(gclk_image_write(image, plan, "payload", 7, place("copy"), NULL), 0);
	gclk_image_close(image);
	gclk_plan_free(plan);
	CU_ASSERT(same_files(place("save"), place("copy")));
	GCLK_EQ(gclk_image_undo(place("save"), &options, &undone, NULL), 0);
	GCLK_EQ(undone, 1);
	CU_ASSERT(same_files(place("save"), place("before")));
}

GCLK_TEST(worker, changes_an_image_as_well)
{
	make_files();
	change_and_undo(&worker);
	change_and_undo(NULL);
	clean_up();
}

/* ---- hostile ones ---- */

static struct gclk_frame true_answer;	/* of a worker that works, to the first question */

static void tell_ready(int socket)
{
	const struct gclk_say_ready ready = { .layout = gclk_frames_layout() };
	const struct gclk_piece piece = { &ready, sizeof(ready) };

	gclk_frame_send(socket, GCLK_SAY_READY, &piece, 1, -1, NULL);
}

static void await_question(int socket)
{
	struct gclk_frame frame;

	gclk_frame_receive(socket, true, &frame, NULL);
	gclk_frame_free(&frame);
}

/* Opens as it should; at the next question it says this. */
static struct {
	uint32_t type;
	uint64_t at;
	size_t n;
} wish;

static void opens_and_then_wishes(int socket)
{
	const uint8_t bytes[64] = { 0 };
	const struct gclk_piece answer = { true_answer.bytes, true_answer.size };
	const struct gclk_piece pieces[] = { { &wish.at, sizeof(wish.at) }, { bytes, wish.n } };

	tell_ready(socket);
	await_question(socket);
	gclk_frame_send(socket, GCLK_SAY_DONE, &answer, 1, -1, NULL);
	await_question(socket);
	gclk_frame_send(socket, wish.type, pieces, 2, -1, NULL);
	await_question(socket);
}

/* The answer to OPEN, as it goes over the wire. */
static void learn_true_answer(const char *path)
{
	struct gclk_ask_open how = { .writable = 1, .name = "one" };
	const struct gclk_piece piece = { &how, sizeof(how) };
	struct gclk_worker_process process;
	struct gclk_frame ready;
	int fd = open(path, O_RDONLY);

	script = NULL;
	start(NULL, &process, NULL);
	CU_ASSERT_FATAL(gclk_frame_receive(process.socket, false, &ready, NULL) == 0);
	gclk_frame_free(&ready);
	gclk_frame_send(process.socket, GCLK_ASK_OPEN, &piece, 1, fd, NULL);
	CU_ASSERT_FATAL(gclk_frame_receive(process.socket, false, &true_answer, NULL) == 0);
	CU_ASSERT_FATAL(true_answer.type == GCLK_SAY_DONE);
	stop(NULL, &process, 0, NULL);
	close(fd);
}

static void expect_refused(uint32_t type, uint64_t at, size_t n)
{
	struct gclk_image *image;
	struct gclk_plan *plan;
	struct gclk_error error = { 0 };

	wish.type = type;
	wish.at = at;
	wish.n = n;
	script = opens_and_then_wishes;
	image = open_one(place("save"), 1, &worker);
	CU_ASSERT_FATAL(image != NULL);
	plan = plan_for(image);
	n_stopped = 0;
	GCLK_EQ(gclk_image_patch(image, plan, NULL, 0, &error), -GCLK_PEER);
	GCLK_EQ(n_stopped, 1);
	GCLK_EQ(gclk_image_patch(image, plan, NULL, 0, &error), -GCLK_STATE);
	CU_ASSERT(same_files(place("save"), place("before")));
	gclk_plan_free(plan);
	gclk_image_close(image);
}

GCLK_TEST(worker, that_asks_for_more_than_it_may_is_ended)
{
	struct gclk_facts *facts;
	struct stat st;
	uint64_t end;

	make_files();
	learn_true_answer(place("save"));
	CU_ASSERT_FATAL(stat(place("save"), &st) == 0);
	end = (uint64_t)st.st_size;
	facts = (struct gclk_facts *)(void *)(true_answer.bytes + 8 + sizeof(struct gclk_error));
	CU_ASSERT_FATAL(facts->tail_begin > 348);
	expect_refused(GCLK_SAY_WRITE, 0, 16);				/* the magic */
	expect_refused(GCLK_SAY_WRITE, 92, 10);				/* the XML */
	expect_refused(GCLK_SAY_WRITE, 340, 16);			/* its end */
	expect_refused(GCLK_SAY_WRITE, 348, 8);				/* memory */
	expect_refused(GCLK_SAY_WRITE, facts->tail_begin - 1, 2);
	expect_refused(GCLK_SAY_WRITE, end + GCLK_GUARD_GROWTH_MAX, 1);
	expect_refused(GCLK_SAY_WRITE, UINT64_MAX, 2);
	expect_refused(GCLK_SAY_WRITE, UINT64_MAX - 1, 64);
	expect_refused(GCLK_SAY_RESIZE, 0, 0);
	expect_refused(GCLK_SAY_RESIZE, facts->tail_begin - 1, 0);
	expect_refused(GCLK_SAY_RESIZE, end + GCLK_GUARD_GROWTH_MAX + 1, 0);
	expect_refused(GCLK_SAY_RESIZE, end, 1);
	expect_refused(GCLK_SAY_READY, 0, 0);
	expect_refused(GCLK_ASK_OPEN, 0, 0);
	expect_refused(0, 0, 0);
	expect_refused(GCLK_SAY_PROGRESS, 0, 0);
	expect_refused(GCLK_SAY_DONE, 0, 0);
	gclk_frame_free(&true_answer);
	clean_up();
}

/* The state's place is the worker's to say, but neither the header nor all of the memory. */
GCLK_TEST(worker, cannot_say_that_the_header_is_state)
{
	struct gclk_guard guard = { .writable = true, .floor = 348, .size = 1 << 20 };
	struct gclk_facts facts = { .kind = GCLK_CONTAINER_LIBVIRT, .in_place = 1,
				    .tail_begin = 347, .tail_end = 1 << 20 };

	GCLK_EQ(gclk_guard_narrow(&guard, &facts, NULL), -GCLK_PEER);
	facts.tail_begin = 348;
	GCLK_EQ(gclk_guard_narrow(&guard, &facts, NULL), 0);
	facts.tail_end++;
	GCLK_EQ(gclk_guard_narrow(&guard, &facts, NULL), -GCLK_PEER);
	guard.size = GCLK_GUARD_TAIL_MAX + 1000;
	facts.tail_end = facts.tail_begin + GCLK_GUARD_TAIL_MAX + 1;
	GCLK_EQ(gclk_guard_narrow(&guard, &facts, NULL), -GCLK_PEER);
}

static void falls_over(int socket)
{
	tell_ready(socket);
	await_question(socket);
	abort();
}

static void says_too_much(int socket)
{
	const uint32_t head[2] = { GCLK_SAY_DONE, GCLK_FRAME_MAX + 1 };

	tell_ready(socket);
	await_question(socket);
	(void)!write(socket, head, sizeof(head));
}

static void is_another_release(int socket)
{
	const struct gclk_say_ready ready = { .layout = gclk_frames_layout() + 1 };
	const struct gclk_piece piece = { &ready, sizeof(ready) };

	gclk_frame_send(socket, GCLK_SAY_READY, &piece, 1, -1, NULL);
	await_question(socket);
}

static void is_not_confined(int socket)
{
	const struct gclk_error why = { .status = GCLK_SYS, .message = "no such thing here" };

	gclk_image_work(socket, &why);
}

static void expect_no_image(void (*how)(int socket), int status)
{
	const struct gclk_image_options options = { .worker = &worker };
	struct gclk_image *image = NULL;
	struct gclk_error error;

	script = how;
	GCLK_EQ(gclk_image_open(place("stream"), &options, &image, &error), -status);
	CU_ASSERT(!image && *error.message);
}

GCLK_TEST(worker, that_cannot_be_used_is_an_error)
{
	make_files();
	expect_no_image(falls_over, GCLK_PEER);
	expect_no_image(says_too_much, GCLK_PEER);
	expect_no_image(is_another_release, GCLK_PEER);
	expect_no_image(is_not_confined, GCLK_UNSUPPORTED);
	clean_up();
}

/* Filters a live stream, and says this of whatever it is shown. */
static struct gclk_far_answer verdict;

static void filters_as_told(int socket)
{
	struct gclk_far_ask ask;

	tell_ready(socket);
	await_question(socket);
	while (gclk_far_receive(socket, &ask, sizeof(ask)) &&
	       gclk_far_send(socket, &verdict, sizeof(verdict))) {
	}
}

static int push_once(struct gclk_filter *f, size_t n, size_t *ret_pass)
{
	static const uint8_t bytes[100];
	size_t held;

	return gclk_filter_push(f, bytes, n, ret_pass, &held, NULL);
}

static struct gclk_filter *told_filter(const struct gclk_far_answer *answer)
{
	const struct gclk_filter_options options = { .worker = &worker };
	struct gclk_filter *f = NULL;

	script = filters_as_told;
	verdict = *answer;
	n_stopped = 0;
	CU_ASSERT_FATAL(gclk_filter_new(&options, &f, NULL) == 0);
	return f;
}

GCLK_TEST(worker, that_filters_lets_nothing_go_that_cannot_be)
{
	enum { MORE = GCLK_FILTER_MORE, RAM = GCLK_FILTER_RAM, TAIL = GCLK_FILTER_TAIL };
	static const struct gclk_far_answer impossible[] = {
		{ MORE, RAM, .passed = 101 },
		{ MORE, RAM, .passed = 60, .held = 50 },
		{ MORE, RAM, .passed = UINT64_MAX, .held = 101 },
		{ MORE, RAM, .passed = 99 },
		{ 0, RAM, .passed = 100 },
		{ 4, RAM, .passed = 100 },
		{ MORE, 77, .passed = 100 },
		{ GCLK_FILTER_OFF, TAIL, .passed = 50, .held = 50 },
		/* what is held goes first: nothing is granted behind it */
		{ MORE, TAIL, .passed = 50, .held = 50, .rest = 1 },
		{ MORE, TAIL, .passed = 50, .held = 50, .below = 4096 },
		{ MORE, RAM, .passed = 100, .below = 4096, .watch.n = GCLK_WATCH_MAX + 1 },
	};
	static const struct gclk_far_answer possible = { MORE, RAM, .passed = 100, .rest = 70 };
	struct gclk_filter *f;
	size_t pass;

	for (unsigned i = 0; i < GCLK_COUNT(impossible); i++) {
		f = told_filter(&impossible[i]);
		GCLK_EQ(push_once(f, 100, &pass), -GCLK_PEER);
		GCLK_EQ(pass, 0);
		GCLK_EQ(n_stopped, 1);
		GCLK_EQ(push_once(f, 100, &pass), -GCLK_PEER);
		gclk_filter_free(f);
	}
	f = told_filter(&possible);
	GCLK_EQ(push_once(f, 100, &pass), GCLK_FILTER_MORE);
	GCLK_EQ(pass, 100);
	GCLK_EQ(push_once(f, 70, &pass), GCLK_FILTER_MORE);	/* it is not asked */
	GCLK_EQ(pass, 70);
	GCLK_EQ(push_once(f, 99, &pass), -GCLK_PEER);		/* it is, and says 100 */
	gclk_filter_free(f);
}

/* Whatever an answer holds: an error, or values that are safe to use. */
static void take_answer(const uint8_t *bytes, size_t n, unsigned *n_taken)
{
	struct gclk_rest rest = { bytes, n };
	struct gclk_facts *facts = malloc(sizeof(*facts));
	struct gclk_state *state = NULL;
	struct gclk_error said;
	int result;

	if (gclk_take_done(&rest, &result, &said, NULL) == 0 &&
	    gclk_take_facts(&rest, facts, NULL) == 0) {
		CU_ASSERT(facts->n_evidence <= GCLK_EVIDENCE_MAX);
		CU_ASSERT(!facts->has_domain || memchr(facts->domain.name, 0, 256));
		if (gclk_take_state(&rest, &state, NULL) == 0) {
			CU_ASSERT(gclk_state_validate(state, NULL) == 0);
			++*n_taken;
		}
	}
	gclk_state_free(state);
	free(facts);
}

GCLK_TEST(worker, answers_of_any_kind_are_survived)
{
	unsigned n_taken = 0, rounds = 2000 * gclk_test_scale();
	uint8_t *bytes;

	make_files();
	learn_true_answer(place("save"));
	bytes = malloc(true_answer.size);
	for (unsigned i = 0; i < rounds; i++) {
		size_t n = true_answer.size;

		memcpy(bytes, true_answer.bytes, n);
		for (uint64_t k = gclk_random_below(6); k > 0; k--) {
			bytes[gclk_random_below(n)] = (uint8_t)gclk_random();
		}
		n = i % 4 ? n : (size_t)gclk_random_below(n);
		take_answer(bytes, n, &n_taken);
	}
	CU_ASSERT(n_taken > 0 && n_taken < rounds);
	free(bytes);
	gclk_frame_free(&true_answer);
	clean_up();
}

/* What is said to be absent is 0, and never what the worker left there. */
GCLK_TEST(worker, absent_members_are_nothing)
{
	struct gclk_state *state = gclk_state_new(1), scratch, *taken = NULL;
	struct gclk_piece pieces[GCLK_STATE_PIECES];
	uint8_t bytes[65536];
	struct gclk_rest rest = { bytes, 0 };

	GCLK_SET(guest, &state->guest, loader_version, 700);
	memset(state->guest.name, 'x', sizeof(state->guest.name));
	memset(state->guest.uuid, '\x1b', sizeof(state->guest.uuid));
	state->rtc.axis = 77;
	state->guest.accelerator = 200;
	gclk_state_pieces(state, &scratch, pieces);
	for (unsigned i = 0; i < GCLK_STATE_PIECES; i++) {
		memcpy(bytes + rest.n, pieces[i].bytes, pieces[i].n);
		rest.n += pieces[i].n;
	}
	CU_ASSERT_FATAL(gclk_take_state(&rest, &taken, NULL) == 0);
	CU_ASSERT(!taken->guest.name[0] && !taken->guest.uuid[0]);
	GCLK_EQ(taken->rtc.axis, 0);
	GCLK_EQ(taken->guest.accelerator, 0);
	GCLK_EQ(taken->guest.loader_version, 700);
	CU_ASSERT(!scratch.tsc && !scratch.vcpu && !scratch.lapic && !scratch.timers);
	gclk_state_free(taken);
	gclk_state_free(state);
}

/* A copy whose head was forged gets no name. */
GCLK_TEST(worker, a_forged_copy_is_not_committed)
{
	struct gclk_guard guard;
	int in, out;

	make_files();
	in = open(place("save"), O_RDONLY);
	out = open(place("copy"), O_RDWR | O_CREAT, 0600);
	CU_ASSERT_FATAL(in >= 0 && out >= 0 && gclk_guard_begin(in, true, &guard, NULL) == 0);
	GCLK_EQ(guard.floor, 348);
	for (uint64_t at = 0; at < 348; at += 1) {
		uint8_t byte;

		(void)!(pread(in, &byte, 1, (off_t)at) == 1 && pwrite(out, &byte, 1, (off_t)at));
	}
	GCLK_EQ(gclk_guard_check_copy(&guard, in, out, false, NULL), 0);
	GCLK_EQ(gclk_guard_check_copy(&guard, in, out, true, NULL), 0);
	CU_ASSERT(pwrite(out, "#", 1, 120) == 1);
	GCLK_EQ(gclk_guard_check_copy(&guard, in, out, false, NULL), -GCLK_PEER);
	close(in);
	close(out);
	clean_up();
}
