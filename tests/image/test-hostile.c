/* SPDX-License-Identifier: MIT */
/*
 * A real image, damaged in every way that fits a loop: it is read with a clear
 * error or correctly, planned, encoded, and nothing else happens. --scale 10 and
 * above leave no offset out.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gclk-test.h"
#include "core/util.h"
#include "image/image.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

struct victim {
	int fd;
	char path[64];
	uint8_t *bytes;
	size_t size, tail, sections;	/* offsets: of the tail, of its end of sections */
};

/* With --scale 2 as many under a sanitizer, which takes five times as long, as without. */
static unsigned step(unsigned coarse)
{
#ifdef SANITIZED
	coarse *= gclk_test_scale() < 2 ? 3 : 1;
#endif
	return gclk_test_scale() >= 10 ? 1 : coarse;
}

static void load(struct victim *v, const char *name)
{
	char command[1024];
	FILE *pipe;
	struct gclk_image *image = NULL;
	struct gclk_error error = { 0 };

	memset(v, 0, sizeof(*v));
	snprintf(command, sizeof(command), "xz -dc '%s/streams/%s'", GCLK_TEST_DATA, name);
	pipe = popen(command, "r");
	CU_ASSERT_PTR_NOT_NULL_FATAL(pipe);
	v->bytes = malloc(64 << 20);
	v->size = fread(v->bytes, 1, 64 << 20, pipe);
	CU_ASSERT_EQUAL(pclose(pipe), 0);
	v->fd = memfd_create("victim", 0);
	CU_ASSERT_FATAL(v->fd >= 0);
	CU_ASSERT_EQUAL(pwrite(v->fd, v->bytes, v->size, 0), (ssize_t)v->size);
	snprintf(v->path, sizeof(v->path), "/proc/self/fd/%d", v->fd);
	GCLK_EQ(gclk_image_open(v->path, NULL, &image, &error), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(image);
	v->tail = image->tail->offset;
	v->sections = v->tail + image->tail->sections_size;
	gclk_image_close(image);
}

static void unload(struct victim *v)
{
	close(v->fd);
	free(v->bytes);
}

/* Everything that a reader would do with it. */
static void use(struct gclk_image *image)
{
	static const int64_t gaps[] = { 1000, INT64_C(3600000000000), INT64_C(1) << 61 };
	struct gclk_findings findings = { 0 };
	const struct gclk_state *state = gclk_image_state(image);
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_instant captured = { state->rtc.base_at_ns, 0 };
	struct gclk_host host = { 0 };

	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	gclk_lint(state, &host, &captured, &findings);
	for (unsigned i = 0; i < 3 && plan; i++) {
		struct gclk_when when = { .elapsed_given = 1, .elapsed_ns = gaps[i],
					  .captured = { 0, GCLK_UNBOUNDED } };
		struct gclk_policy policy = gclk_policy_default;
		struct gclk_disagreement none = { 0 };
		const struct gclk_image_change *changes;
		unsigned n;

		when.run.ns = when.load.ns = INT64_C(1800000000000000000);
		policy.gap = (uint8_t)gclk_random_below(4);
		policy.ticks[GCLK_TICK_RTC].policy = GCLK_TICKS_CATCHUP;
		policy.ticks[GCLK_TICK_PIT].policy = (uint8_t)gclk_random_below(5);
		policy.ticks[GCLK_TICK_HPET].policy = (uint8_t)gclk_random_below(5);
		if (gclk_plan(state, gclk_image_carrier(image), &host, &when, &none, &policy, plan,
			      NULL) == 0) {
			(void)gclk_image_encode(image, plan, &changes, &n, NULL);
		}
	}
	gclk_plan_free(plan);
}

static int try_it(const struct victim *v)
{
	struct gclk_error error = { 0 };
	struct gclk_image *image = NULL;
	int r = gclk_image_open(v->path, NULL, &image, &error);

	if (r == 0) {
		use(image);
	} else {
		CU_ASSERT(image == NULL);
		CU_ASSERT(error.status == -r && error.message[0] && r >= -GCLK_PEER);
	}
	gclk_image_close(image);
	return r;
}

static void check_memory(void)
{
#ifndef SANITIZED
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	/* the test itself holds one image in memory */
	CU_ASSERT(usage.ru_maxrss < (64 + 64) * 1024);
#endif
}

GCLK_TEST(hostile, truncated_at_every_offset_of_the_tail)
{
	struct victim v;
	unsigned accepted = 0;

	load(&v, "pc-icount.qs.xz");
	for (size_t n = v.size - 1 - gclk_random_below(step(61)); n > v.tail;
	     n -= GCLK_MIN(n - v.tail, step(61))) {
		CU_ASSERT_EQUAL(ftruncate(v.fd, (off_t)n), 0);
		accepted += try_it(&v) == 0;
	}
	GCLK_EQ(accepted, 0);	/* a part of a stream is never taken for the whole */
	check_memory();
	unload(&v);
}

static void flip_between(struct victim *v, size_t from, size_t to, unsigned by)
{
	/* others in each run */
	for (size_t at = from + gclk_random_below(by); at < to; at += by) {
		uint8_t damaged = gclk_random_below(2) ? (uint8_t)~v->bytes[at] :
			(uint8_t)(v->bytes[at] ^ 1u << gclk_random_below(8));

		CU_ASSERT_EQUAL(pwrite(v->fd, &damaged, 1, (off_t)at), 1);
		try_it(v);
		CU_ASSERT_EQUAL(pwrite(v->fd, &v->bytes[at], 1, (off_t)at), 1);
	}
	GCLK_EQ(try_it(v), 0);
	check_memory();
}

GCLK_TEST(hostile, every_byte_of_the_sections_flipped)
{
	struct victim v;

	load(&v, "pc-xbzrle.qs.xz");
	flip_between(&v, v.tail, v.sections, step(5));
	unload(&v);
	load(&v, "q35-kvm-4.qs.xz");
	flip_between(&v, v.tail, v.sections, step(101));
	unload(&v);
}

GCLK_TEST(hostile, every_byte_of_the_description_flipped)
{
	struct victim v;

	load(&v, "pc-shared-uuid.qs.xz");
	flip_between(&v, v.sections, v.size, step(67));
	unload(&v);
}

GCLK_TEST(hostile, the_head_flipped)
{
	struct victim v;

	load(&v, "pc-2.3.qs.xz");
	flip_between(&v, 0, GCLK_MIN(v.tail, 600), step(3));
	unload(&v);
}

GCLK_TEST(hostile, values_from_the_ends_of_their_types)
{
	static const uint8_t fills[] = { 0x00, 0x7f, 0x80, 0xff };
	struct victim v;

	load(&v, "pc-xbzrle.qs.xz");
	for (size_t at = v.tail; at + 8 <= v.sections; at += step(7)) {
		uint8_t bytes[8];

		memset(bytes, fills[gclk_random_below(4)] == 0x7f ? 0xff : 0x00, 8);
		bytes[0] = fills[gclk_random_below(4)];
		CU_ASSERT_EQUAL(pwrite(v.fd, bytes, 8, (off_t)at), 8);
		try_it(&v);
		CU_ASSERT_EQUAL(pwrite(v.fd, v.bytes + at, 8, (off_t)at), 8);
	}
	check_memory();
	unload(&v);
}
