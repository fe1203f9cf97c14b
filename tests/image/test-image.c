/* SPDX-License-Identifier: MIT */
/* The whole way: a real stream, its state, a plan, patches, the rewritten stream. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gclk-test.h"
#include "image/image.h"
#include "image/qemu/icount.h"

/* Streams of stock QEMU; tests/data/README.md says how each was made. */
static const char *const streams[] = {
	"pc-2.3.qs.xz", "pc-compress.qs.xz", "pc-icount.qs.xz", "pc-multifd.qs.xz",
	"pc-shared-uuid.qs.xz", "pc-xbzrle.qs.xz", "q35-kvm-4.qs.xz",
};
#define N_STREAMS (sizeof(streams) / sizeof(streams[0]))
#define ICOUNT 2

static struct gclk_image *open_or_fail(const char *path)
{
	struct gclk_image *image = NULL;
	struct gclk_error error;
	int r = gclk_image_open(path, NULL, &image, &error);

	if (r < 0) {
		printf("\n    %s: %s: %s\n", path, error.where, error.message);
	}
	CU_ASSERT_EQUAL(r, 0);
	return image;
}

static struct gclk_image *open_stream(unsigned i)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/streams/%s", GCLK_TEST_DATA, streams[i]);
	return open_or_fail(path);
}

struct moved {
	struct gclk_host host;
	struct gclk_when when;
	struct gclk_disagreement disagreement;
	struct gclk_policy policy;
	struct gclk_plan *plan;
};

static int move(struct moved *m, const struct gclk_image *image, uint8_t gap, int64_t elapsed_ns)
{
	const struct gclk_state *state = gclk_image_state(image);
	struct gclk_error error;
	int r;

	memset(m, 0, sizeof(*m));
	m->plan = gclk_plan_new(state->n_vcpus);
	GCLK_SET(host, &m->host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &m->host, flags, GCLK_HOST_TSC_SCALING);
	m->policy = gclk_policy_default;
	m->policy.gap = gap;
	/* an RTC on the host's clock goes on by itself: the instants must be its own */
	m->when.run.ns = state->rtc.axis == GCLK_AXIS_REALTIME && state->rtc.next_periodic_ns > 0 ?
				 state->rtc.next_periodic_ns - 1 : INT64_C(1800000000000000000);
	m->when.run.ns += elapsed_ns;
	m->when.load = m->when.run;
	m->when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	m->when.elapsed_given = 1;
	m->when.elapsed_ns = elapsed_ns;
	r = gclk_plan(state, gclk_image_carrier(image), &m->host, &m->when, &m->disagreement,
		      &m->policy, m->plan, &error);
	if (r < 0) {
		printf("\n    plan: %s\n", error.message);
	}
	return r;
}

GCLK_TEST(image, every_stream_is_read_and_encodes_to_itself)
{
	for (unsigned i = 0; i < N_STREAMS; i++) {
		struct gclk_image *image = open_stream(i);
		uint8_t bytes[256];

		if (!image) {
			continue;
		}
		CU_ASSERT(image->bindings.n > 80);
		for (size_t k = 0; k < image->bindings.n; k++) {
			const struct gclk_located *row = &image->bindings.rows[k];

			GCLK_EQ(gclk_located_encode(row, image->state, bytes, NULL), 0);
			if (memcmp(bytes, image->tail->bytes + row->offset, row->size)) {
				char name[160];

				gclk_located_name(row, name, sizeof(name));
				printf("\n    %s: %s of %s\n", streams[i], name, row->section->name);
				CU_FAIL("encodes to other bytes than it was read from");
			}
		}
		gclk_image_close(image);
	}
}

GCLK_TEST(image, what_the_streams_say)
{
	struct gclk_image *kvm = open_stream(6), *icount = open_stream(ICOUNT), *old = open_stream(0);

	CU_ASSERT_FATAL(kvm && icount && old);
	GCLK_EQ(kvm->state->n_vcpus, 4);
	GCLK_EQ(kvm->state->guest.accelerator, GCLK_ACCEL_KVM);
	CU_ASSERT(GCLK_HAS(kvmclock, &kvm->state->kvmclock, clock_ns));
	CU_ASSERT(GCLK_HAS(tsc, &kvm->state->tsc[3], frequency_hz));
	CU_ASSERT(kvm->state->pit.in_kernel && kvm->state->lapic[0].in_kernel);
	CU_ASSERT_STRING_EQUAL(gclk_image_carrier(kvm)->name, "qemu-kvm");
	GCLK_EQ(icount->state->guest.accelerator, GCLK_ACCEL_TCG_ICOUNT);
	CU_ASSERT_STRING_EQUAL(gclk_image_carrier(icount)->name, "qemu-tcg-icount");
	GCLK_EQ(old->state->guest.accelerator, GCLK_ACCEL_TCG);
	GCLK_EQ(old->state->rtc.axis, GCLK_AXIS_REALTIME);
	GCLK_EQ(old->state->tsc[0].value_ticks, old->state->virtual_clock.host_ticks +
			old->state->tsc[0].emulated_offset_ticks);
	gclk_image_close(kvm);
	gclk_image_close(icount);
	gclk_image_close(old);
}

/*
 * The axis is bias + (icount << 3): its PIT shows which shift. Where the shift cannot be
 * told there is no axis, and no plan.
 */
GCLK_TEST(image, counted_instructions_have_an_axis)
{
	struct gclk_image *image = open_stream(ICOUNT);
	struct gclk_virtual_clock *clock;
	struct gclk_state *state;
	int64_t ns = 0;

	CU_ASSERT_FATAL(image != NULL);
	clock = &image->state->virtual_clock;
	GCLK_EQ(clock->clock_ns, clock->icount_bias_ns + 8 * clock->icount);
	GCLK_EQ(image->state->tsc[0].value_ticks, clock->clock_ns);
	state = gclk_state_new(1);
	GCLK_EQ(gclk_state_assign(state, image->state, NULL), 0);
	GCLK_EQ(gclk_icount_axis(state, &ns), 1);
	GCLK_EQ(ns, clock->clock_ns);
	state->pit.channels[0].next_transition_ns = -1;
	GCLK_EQ(gclk_icount_axis(state, &ns), 0);	/* several fit */
	state->pit.channels[0].next_transition_ns = 1;
	GCLK_EQ(gclk_icount_axis(state, &ns), 0);	/* none does */
	gclk_state_free(state);
	gclk_image_close(image);
}

GCLK_TEST(image, counted_instructions_move_by_their_bias)
{
	struct gclk_image *image = open_stream(ICOUNT);
	const struct gclk_image_change *changes;
	unsigned n;
	struct moved m;

	CU_ASSERT_FATAL(image != NULL);
	GCLK_EQ(move(&m, image, GCLK_GAP_COUNT, 10000000000), 0);
	GCLK_EQ(gclk_image_encode(image, m.plan, &changes, &n, NULL), 0);
	for (unsigned i = 0, seen = 0; i < n; i++) {
		if (!strcmp(changes[i].field, "qemu_icount_bias") ||
		    !strcmp(changes[i].field, "cpu_clock_offset")) {
			GCLK_EQ(changes[i].after - changes[i].before, 10000000000);
			seen++;
		}
		CU_ASSERT(strcmp(changes[i].field, "cpu_ticks_offset") != 0);
		CU_ASSERT(i < n - 1 || seen == 2);
	}
	GCLK_EQ(m.plan->state->tsc[0].value_ticks - image->state->tsc[0].value_ticks, 10000000000);
	gclk_plan_free(m.plan);
	gclk_image_close(image);
}

GCLK_TEST(image, freeze_and_no_gap_change_no_byte)	/* R9 */
{
	for (unsigned i = 0; i < N_STREAMS; i++) {
		static const struct { uint8_t gap; int64_t elapsed_ns; } cases[] = {
			{ GCLK_GAP_FREEZE, INT64_C(7200000000000) }, { GCLK_GAP_COUNT, 0 },
			{ GCLK_GAP_CAP, 0 }, { GCLK_GAP_WALL, 0 },
		};
		struct gclk_image *image = open_stream(i);

		for (unsigned k = 0; image && k < 4; k++) {
			const struct gclk_image_change *changes;
			struct moved m;
			unsigned n = 99;

			GCLK_EQ(move(&m, image, cases[k].gap, cases[k].elapsed_ns), 0);
			GCLK_EQ(gclk_image_encode(image, m.plan, &changes, &n, NULL), 0);
			GCLK_EQ(n, 0);
			for (unsigned c = 0; c < n; c++) {
				printf("    %s: %s of %s\n", streams[i], changes[c].field,
				       changes[c].section);
			}
			gclk_plan_free(m.plan);
		}
		gclk_image_close(image);
	}
}

static const struct gclk_image_change *change(const struct gclk_image_change *changes, unsigned n,
					      const char *section, const char *field)
{
	for (unsigned i = 0; i < n; i++) {
		if (!strcmp(changes[i].section, section) && !strcmp(changes[i].field, field)) {
			return &changes[i];
		}
	}
	return NULL;
}

GCLK_TEST(image, only_what_moves_is_written)
{
	struct gclk_image *image = open_stream(0);
	const struct gclk_image_change *changes, *c;
	struct moved m;
	unsigned n = 0;

	CU_ASSERT_FATAL(image != NULL);
	GCLK_EQ(move(&m, image, GCLK_GAP_COUNT, INT64_C(5000000000)), 0);
	GCLK_EQ(gclk_image_encode(image, m.plan, &changes, &n, NULL), 0);
	c = change(changes, n, "timer", "cpu_clock_offset");
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	GCLK_EQ(c->after - c->before, INT64_C(5000000000));
	c = change(changes, n, "timer", "cpu_ticks_offset");
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	GCLK_EQ(c->after - c->before, INT64_C(10000000000));
	CU_ASSERT_PTR_NULL(change(changes, n, "mc146818rtc", "base_rtc"));
	CU_ASSERT_PTR_NULL(change(changes, n, "mc146818rtc", "last_update"));
	CU_ASSERT_PTR_NULL(change(changes, n, "cpu", "env.tsc"));
	for (unsigned i = 1; i < n; i++) {
		CU_ASSERT(changes[i - 1].offset + changes[i - 1].size <= changes[i].offset);
	}
	gclk_plan_free(m.plan);
	gclk_image_close(image);
}

static char *file_bytes(const char *path, size_t *ret_n)
{
	FILE *file = fopen(path, "rb");
	char *bytes = NULL;

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fseek(file, 0, SEEK_END);
	*ret_n = (size_t)ftell(file);
	rewind(file);
	bytes = malloc(*ret_n + 1);
	CU_ASSERT_EQUAL(fread(bytes, 1, *ret_n, file), *ret_n);
	fclose(file);
	return bytes;
}

static int same_files(const char *a, const char *b)
{
	size_t n, m;
	char *x = file_bytes(a, &n), *y = file_bytes(b, &m);
	int same = n == m && !memcmp(x, y, n);

	free(x);
	free(y);
	return same;
}

/* A raw stream in a file of its own, from a compressed one. */
static void unpack(unsigned i, const char *path)
{
	char command[1200];

	snprintf(command, sizeof(command), "xz -dc '%s/streams/%s' > '%s'",
		 GCLK_TEST_DATA, streams[i], path);
	CU_ASSERT_EQUAL(system(command), 0);
}

GCLK_TEST(image, rewriting_starts_from_the_captured_state)	/* R9 */
{
	char dir[] = "/tmp/gclk-test-XXXXXX", raw[64], copy[64], kept[64];
	struct gclk_image_options writable = { .writable = 1 };
	struct gclk_error error = { 0 };
	int undone = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(raw, sizeof(raw), "%s/raw", dir);
	snprintf(copy, sizeof(copy), "%s/copy", dir);
	snprintf(kept, sizeof(kept), "%s/kept", dir);
	unpack(0, raw);
	unpack(0, kept);

	for (int64_t s = 1; s <= 3; s++) {
		struct gclk_image *image = NULL;
		struct moved m;
		size_t n_payload;
		int64_t before;

		GCLK_EQ(gclk_image_open(raw, &writable, &image, &error), 0);
		CU_ASSERT_FATAL(image != NULL);
		before = image->state->virtual_clock.clock_ns;
		GCLK_EQ(move(&m, image, GCLK_GAP_COUNT, s * 1000000000), 0);
		GCLK_EQ(gclk_image_patch(image, m.plan, "payload", 7, &error), 0);
		gclk_image_close(image);
		gclk_plan_free(m.plan);

		image = open_or_fail(raw);
		CU_ASSERT_FATAL(image != NULL);
		GCLK_EQ(image->state->virtual_clock.clock_ns, before);	/* as captured */
		CU_ASSERT_PTR_NOT_NULL(gclk_image_record(image, &n_payload));
		GCLK_EQ(n_payload, 7);
		/* a copy made now says the same */
		GCLK_EQ(move(&m, image, GCLK_GAP_COUNT, s * 1000000000), 0);
		GCLK_EQ(gclk_image_write(image, m.plan, "payload", 7, copy, &error), 0);
		CU_ASSERT(same_files(raw, copy));
		gclk_image_close(image);
		gclk_plan_free(m.plan);
	}
	GCLK_EQ(gclk_image_undo(raw, NULL, &undone, &error), 0);
	GCLK_EQ(undone, 1);
	CU_ASSERT(same_files(raw, kept));
	GCLK_EQ(gclk_image_undo(raw, NULL, &undone, &error), 0);
	GCLK_EQ(undone, 0);
	unlink(raw);
	unlink(copy);
	unlink(kept);
	rmdir(dir);
}

/* Written again and again, closed: as if it had been written once. Not closed: undone. */
GCLK_TEST(image, a_late_rewriting)
{
	char dir[] = "/tmp/gclk-test-XXXXXX", late[64], once[64], kept[64];
	struct gclk_image_options writable = { .writable = 1 };
	struct gclk_error error = { 0 };
	struct gclk_image *image = NULL;
	struct gclk_image_span span;
	struct moved m;
	int undone = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(late, sizeof(late), "%s/late", dir);
	snprintf(once, sizeof(once), "%s/once", dir);
	snprintf(kept, sizeof(kept), "%s/kept", dir);
	unpack(0, late);
	unpack(0, once);
	unpack(0, kept);
	GCLK_EQ(gclk_image_open(late, &writable, &image, &error), 0);
	CU_ASSERT_FATAL(image != NULL);
	for (int64_t s = 1; s <= 4; s++) {
		GCLK_EQ(move(&m, image, GCLK_GAP_COUNT, s * 1000000000), 0);
		if (s == 1) {
			GCLK_EQ(gclk_image_late_write(image, m.plan, &error), -GCLK_STATE);
			GCLK_EQ(gclk_image_late_begin(image, m.plan, "payload", 7, &span, &error),
				0);
			CU_ASSERT(span.begin >= image->tail->offset && span.begin < span.end &&
				  span.end <= span.stream_end);
		}
		GCLK_EQ(gclk_image_late_write(image, m.plan, &error), 0);
		if (s < 4) {
			gclk_plan_free(m.plan);
		}
	}
	GCLK_EQ(gclk_image_patch(image, m.plan, "payload", 7, &error), 0);
	gclk_image_close(image);
	image = NULL;
	GCLK_EQ(gclk_image_open(once, &writable, &image, &error), 0);
	CU_ASSERT_FATAL(image != NULL);
	GCLK_EQ(gclk_image_patch(image, m.plan, "payload", 7, &error), 0);
	CU_ASSERT(same_files(late, once));
	GCLK_EQ(gclk_image_late_begin(image, m.plan, "payload", 7, &span, &error), 0);
	GCLK_EQ(gclk_image_late_write(image, m.plan, &error), 0);
	gclk_image_close(image);
	gclk_plan_free(m.plan);
	GCLK_EQ(gclk_image_undo(once, NULL, &undone, &error), 0);
	GCLK_EQ(undone, 1);
	CU_ASSERT(same_files(once, kept));
	unlink(late);
	unlink(once);
	unlink(kept);
	rmdir(dir);
}

GCLK_TEST(image, not_images)
{
	struct gclk_image *image = NULL;
	struct gclk_error error = { 0 };

	GCLK_EQ(gclk_image_open("/nonexistent/file", NULL, &image, &error), -GCLK_SYS);
	GCLK_EQ(gclk_image_open("/dev/null", NULL, &image, &error) < 0, 1);
	GCLK_EQ(gclk_image_open("/", NULL, &image, &error) < 0, 1);
	CU_ASSERT_PTR_NULL(image);
	CU_ASSERT(error.message[0] != 0);
}
