/* SPDX-License-Identifier: MIT */
/* Rewriting under a reader's eyes: what it gets is one plan's bytes, and the last one's. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <guestclock/devices.h>

#include "gclk-test.h"
#include "migrator/hook/late.h"

#define CHUNK 2048

struct stage {
	char dir[32], path[64];
	struct options options;
	struct source source;
	struct situation situation;
	struct late late;
	/* the loader: waits, reads in pieces, closes */
	pthread_t thread;
	int fd;
	useconds_t wait_us, pause_us;
	size_t stop_at;
	char *bytes;
	size_t n;
};

/*
 * The program's own calls of these come here first: the reader, which is @jumps.fd, gets
 * to a place in the very moment in which a plan is made or written.
 */
static struct {
	int fd;				/* 0: nobody jumps */
	off_t to;
	unsigned at_plan, at_write;	/* with the so-manieth one from now on */
	struct gclk_when pending, written; /* what is to be written; by the last write that was made */
} jumps;

static void jump(unsigned *left)
{
	if (jumps.fd && *left && --*left == 0) {
		lseek(jumps.fd, jumps.to, SEEK_SET);
	}
}

/* By so much somebody has set the wall clock: with the so-manieth plan, or write. */
static struct {
	int64_t by_ns, ahead_ns;
	unsigned in_each;		/* stage of followed(), with this plan; 0: in none */
	unsigned at_plan, at_write;
} steps;

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret);
	int64_t ns;

	if (r == 0 && clock == CLOCK_REALTIME) {
		ns = (int64_t)ret->tv_sec * 1000000000 + ret->tv_nsec + steps.ahead_ns;
		*ret = (struct timespec){ ns / 1000000000, ns % 1000000000 };
	}
	return r;
}

static void step(unsigned *left)
{
	if (*left && --*left == 0) {
		steps.ahead_ns = steps.by_ns;
	}
}

int gclk_plan(const struct gclk_state *state, const struct gclk_carrier *carrier,
	      const struct gclk_host *host, const struct gclk_when *when,
	      const struct gclk_disagreement *disagreement, const struct gclk_policy *policy,
	      struct gclk_plan *plan, struct gclk_error *reterr)
{
	__typeof__(gclk_plan) *real;

	*(void **)&real = dlsym(RTLD_NEXT, "gclk_plan");
	jump(&jumps.at_plan);
	step(&steps.at_plan);
	return real(state, carrier, host, when, disagreement, policy, plan, reterr);
}

int gclk_image_late_write(struct gclk_image *image, const struct gclk_plan *plan,
			  struct gclk_error *reterr)
{
	__typeof__(gclk_image_late_write) *real;
	int r;

	*(void **)&real = dlsym(RTLD_NEXT, "gclk_image_late_write");
	jumps.pending = plan->when;
	r = real(image, plan, reterr);
	jumps.pending.run.ns = 0;
	return r;
}

/* The write itself, behind the last look. */
__attribute__((visibility("default"))) ssize_t pwrite64(int fd, const void *bytes, size_t n,
							off64_t at)
{
	if (jumps.pending.run.ns) {
		jumps.written = jumps.pending;
		jump(&jumps.at_write);
		step(&steps.at_write);
	}
	return syscall(SYS_pwrite64, fd, bytes, n, at);
}

static void *load(void *ctx)
{
	struct stage *s = ctx;
	ssize_t n = 1;

	usleep(s->wait_us);
	while (n > 0 && s->n < s->stop_at) {
		n = read(s->fd, s->bytes + s->n, CHUNK);
		s->n += n > 0 ? (size_t)n : 0;
		usleep(s->pause_us);
	}
	close(s->fd);
	return NULL;
}

static struct stage *set_up(bool follow)
{
	struct stage *s = calloc(1, sizeof(*s));
	char command[512];
	struct stat st;

	snprintf(s->dir, sizeof(s->dir), "/tmp/gclk-late-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/image", s->dir);
	snprintf(command, sizeof(command), "xz -dc '%s/streams/pc-2.3.qs.xz' > '%s'",
		 GCLK_TEST_DATA, s->path);
	CU_ASSERT_FATAL(system(command) == 0);
	s->options.given = OPTION(CAPTURED_AT);
	s->options.captured = (struct gclk_instant){ wall_clock_ns() - INT64_C(60000000000),
						     1000000 };
	GCLK_EQ(source_open(&s->source, s->path, &s->options, SOURCE_HASTE), 0);
	GCLK_EQ(situation_find(&s->situation, &s->source, &s->options, 0), 0);
	CU_ASSERT_FATAL(stat(s->path, &st) == 0);
	s->bytes = calloc(4, (size_t)st.st_size);	/* a record will follow */
	s->stop_at = SIZE_MAX;
	s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
	s->late.source = &s->source;
	s->late.situation = &s->situation;
	learned_read("/nonexistent", &s->late.learned);
	s->late.has_reader = follow;
	s->late.reader = (struct reader){ .pid = getpid(), .fd = s->fd, .device = st.st_dev,
					  .inode = st.st_ino, .stride = 2 * CHUNK };
	snprintf(s->late.reader.held, sizeof(s->late.reader.held), "/proc/self/fd/%d", s->fd);
	return s;
}

/* The reader got, within the span, what stands there in the end. */
static bool reader_got_the_last(const struct stage *s)
{
	size_t begin = (size_t)s->late.span.begin, n = (size_t)s->late.span.end - begin;
	char *now = malloc(n);
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);
	bool same = pread(fd, now, n, (off_t)begin) == (ssize_t)n &&
		    !memcmp(now, s->bytes + begin, n);

	close(fd);
	free(now);
	return same;
}

static void take_down(struct stage *s)
{
	gclk_plan_free(s->late.plan);
	source_close(&s->source);
	unlink(s->path);
	rmdir(s->dir);
	free(s->bytes);
	free(s);
}

static void run(struct stage *s, int64_t limit_ns)
{
	struct gclk_error error;

	GCLK_EQ(late_begin(&s->late, &error), 0);
	pthread_create(&s->thread, NULL, load, s);
	late_follow(&s->late, limit_ns, NULL, NULL);
	pthread_join(s->thread, NULL);
}

/* The prediction is within its own bound of what was seen: a reader that keeps its pace. */
static bool as_predicted(const struct late *late)
{
	int64_t off = late_on_wall(late, late->closed_ns) - late->plan->when.load.ns;

	return late->outcome != LATE_RACED &&
	       (uint64_t)llabs(off) <= late->plan->when.load.uncertainty_ns;
}

/* On a busy machine a reader stands still in the last bytes, or is seldom looked at: then another. */
static struct stage *followed(void)
{
	for (unsigned i = 0; i < 10; i++) {
		struct stage *s;

		steps.ahead_ns = 0;
		s = set_up(true);
		steps.at_plan = steps.in_each;
		s->wait_us = 30000;
		s->pause_us = 1000;
		run(s, INT64_C(5000000000));
		if (as_predicted(&s->late) && s->late.n_writes > 10) {
			return s;
		}
		take_down(s);
	}
	return NULL;
}

GCLK_TEST(late, the_reader_gets_the_last_plan)
{
	struct stage *s = followed();
	struct gclk_error error;
	struct lesson lesson;
	int undone = 0;

	if (!s) {
		gclk_test_skip("the machine is too busy: no reader of ten kept its pace");
		return;
	}
	GCLK_EQ(s->late.outcome, LATE_FOLLOWED);
	CU_ASSERT(s->late.last_distance >= 2 * CHUNK);
	CU_ASSERT(s->late.tail_ns > s->late.began_ns && s->late.began_ns > 0 &&
		  s->late.closed_ns >= s->late.tail_ns);
	CU_ASSERT(s->late.open_ns >= s->late.last_write_ns && s->late.open_ns < s->late.closed_ns);
	CU_ASSERT(reader_got_the_last(s));
	CU_ASSERT(late_lesson(&s->late, s->late.closed_ns + 5, &lesson));
	CU_ASSERT(lesson.to_run_ns == lesson.to_load_ns + 5 && lesson.bytes_per_s > 100000);
	CU_ASSERT(!late_lesson(&s->late, 0, &lesson));
	GCLK_EQ(late_end(&s->late, &error), 0);
	CU_ASSERT(reader_got_the_last(s));
	source_close(&s->source);
	GCLK_EQ(gclk_image_undo(s->path, NULL, &undone, &error), 0);
	GCLK_EQ(undone, 1);
	take_down(s);
}

GCLK_TEST(late, a_reader_that_goes_away)
{
	struct stage *s = set_up(true);

	s->stop_at = 4 * CHUNK;
	s->pause_us = 1000;
	run(s, INT64_C(5000000000));
	GCLK_EQ(s->late.outcome, LATE_LOST);
	GCLK_EQ(s->late.tail_ns, 0);
	late_was_loaded(&s->late);
	GCLK_EQ(s->late.outcome, LATE_FOLLOWED);
	take_down(s);
}

GCLK_TEST(late, a_reader_that_rests)
{
	struct stage *s = set_up(true);

	s->wait_us = 200000;
	run(s, 30000000);	/* given up before it begins */
	CU_ASSERT(s->late.outcome == LATE_FOLLOWED && s->late.tail_ns == 0 &&
		  s->late.closed_ns == 0);
	CU_ASSERT(reader_got_the_last(s));
	take_down(s);
}

GCLK_TEST(late, nobody_to_follow)
{
	struct stage *s = set_up(false);

	run(s, INT64_C(5000000000));
	GCLK_EQ(s->late.outcome, LATE_AT_ONCE);
	GCLK_EQ(s->late.n_writes, 1);
	CU_ASSERT(s->late.plan->when.run.uncertainty_ns >= 500000000);
	CU_ASSERT(reader_got_the_last(s));
	take_down(s);
}

/* What was read ahead is not written any more: it would have no effect, or a torn one. */
GCLK_TEST(late, a_reader_that_was_there_first)
{
	struct stage *s = set_up(true);
	struct gclk_image_span span;
	struct gclk_error error;
	struct stat before, after;

	gclk_image_late_span(s->source.image, &span);
	s->late.reader.start = span.begin - CHUNK;
	stat(s->path, &before);
	GCLK_EQ(late_begin(&s->late, &error), -GCLK_STATE);
	stat(s->path, &after);
	CU_ASSERT(before.st_size == after.st_size && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	close(s->fd);
	take_down(s);
}

static char *whole_file(const char *path, size_t *ret_n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *bytes;

	CU_ASSERT_FATAL(fd >= 0 && fstat(fd, &st) == 0);
	*ret_n = (size_t)st.st_size;
	bytes = malloc(*ret_n + 1);
	CU_ASSERT_FATAL(bytes && read(fd, bytes, *ret_n) == (ssize_t)*ret_n);
	close(fd);
	return bytes;
}

/* A follower of its own, as the hook's is, killed after so long; how it ended. */
static int killed_after(struct stage *s, useconds_t us)
{
	struct gclk_error error;
	int status = 0;
	pid_t pid = fork();

	CU_ASSERT_FATAL(pid >= 0);
	if (pid == 0) {
		s->late.reader.pid = getpid();
		run(s, INT64_C(5000000000));
		_exit(late_end(&s->late, &error) == 0 ? 0 : 1);
	}
	usleep(us);
	kill(pid, SIGKILL);
	CU_ASSERT(waitpid(pid, &status, 0) == pid);
	close(s->fd);
	return status;
}

/* Whatever it was doing: the image is the old one, or one that undo makes the old one. */
GCLK_TEST(late, killed_at_any_moment)
{
	unsigned n_killed = 0, n_undone = 0;

	for (unsigned i = 0; i < 30 * gclk_test_scale(); i++) {
		struct stage *s = set_up(true);
		size_t n_before, n_after;
		char *before = whole_file(s->path, &n_before), *after;
		struct gclk_error error;
		int undone = 0, status;

		s->wait_us = 5000;
		s->pause_us = 300;
		status = killed_after(s, (useconds_t)gclk_random_below(60000));
		n_killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		CU_ASSERT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
		source_close(&s->source);
		GCLK_EQ(gclk_image_undo(s->path, NULL, &undone, &error), 0);
		n_undone += undone != 0;
		after = whole_file(s->path, &n_after);
		CU_ASSERT(n_after == n_before && !memcmp(after, before, n_before));
		free(before);
		free(after);
		take_down(s);
	}
	printf("(%u killed, %u undone) ", n_killed, n_undone);
	CU_ASSERT(n_killed > 0 && n_undone > 0);
}

static bool has_jumped(void *ctx)
{
	(void)ctx;
	return !jumps.at_plan && !jumps.at_write;
}

/* A reader without a thread, which stands there from the so-manieth plan or write on. */
static struct stage *jumped(off_t behind_begin, unsigned at_plan, unsigned at_write)
{
	struct stage *s = set_up(true);
	struct gclk_error error;

	GCLK_EQ(late_begin(&s->late, &error), 0);
	jumps.fd = s->fd;
	jumps.to = (off_t)s->late.span.begin + behind_begin;
	jumps.at_plan = at_plan;
	jumps.at_write = at_write;
	late_follow(&s->late, INT64_C(20000000000), has_jumped, NULL);
	jumps.fd = 0;
	close(s->fd);
	return s;
}

/* Nobody knows whose bytes it got: that is said, also once the guest was loaded after all. */
GCLK_TEST(late, a_reader_that_comes_during_a_write)
{
	struct stage *s = jumped(1, 0, 3);

	GCLK_EQ(s->late.outcome, LATE_RACED);
	GCLK_EQ(s->late.n_writes, 4);		/* and none after it */
	late_was_loaded(&s->late);
	GCLK_EQ(s->late.outcome, LATE_RACED);
	take_down(s);
}

/* A plan that came too late to be written does not count: what stands in the image does. */
GCLK_TEST(late, a_plan_that_is_not_written)
{
	struct stage *s = jumped(-1, 4, 0);

	GCLK_EQ(s->late.n_writes, 4);
	GCLK_EQ(s->late.plan->when.run.ns, jumps.written.run.ns);
	GCLK_EQ(s->late.plan->when.load.ns, jumps.written.load.ns);
	GCLK_EQ(s->situation.when.run.ns, jumps.written.run.ns);
	CU_ASSERT(s->late.outcome != LATE_RACED);
	take_down(s);
}

/* What the guest's real-time clock shows at an instant of the wall clock, ns. */
static int64_t rtc_shows(const struct gclk_state *state, int64_t wall_ns)
{
	int64_t below = 0, s = gclk_rtc_seconds_at(&state->rtc, wall_ns, &below);

	return s * 1000000000 + below;
}

/*
 * Somebody sets the wall clock amid the load: what is written for is still the moment at which
 * the reader will be through, no clock counts the step, and the one that goes by the
 * wall clock is set against it.
 */
static void check_set_amid(int64_t by_ns)
{
	const struct gclk_when *when;
	struct stage *s;
	int64_t gap;

	steps.by_ns = by_ns;
	steps.in_each = 8;
	s = followed();
	steps.in_each = 0;
	if (!s) {
		steps.ahead_ns = 0;
		gclk_test_skip("the machine is too busy: no reader of ten kept its pace");
		return;
	}
	when = &s->late.plan->when;
	GCLK_EQ(s->late.outcome, LATE_FOLLOWED);
	CU_ASSERT(reader_got_the_last(s));
	CU_ASSERT(llabs(s->late.stepped_ns - by_ns) < 100000);
	GCLK_EQ(late_set_since(&s->late), 0);
	/* by the wall clock that was set, and counted by the one that was not */
	GCLK_EQ(when->run.ns, s->situation.when.run.ns + s->late.stepped_ns);
	gap = s->situation.when.run.ns - when->captured.ns;
	GCLK_EQ(s->late.plan->gap_ns, gap);
	CU_ASSERT_FATAL(s->source.state->rtc.axis == GCLK_AXIS_REALTIME);
	CU_ASSERT(llabs(rtc_shows(s->late.plan->state, when->run.ns) -
			rtc_shows(s->source.state, when->captured.ns) - gap) < 2000);
	/* set once more, it is told */
	steps.ahead_ns -= 7000000;
	CU_ASSERT(llabs(late_set_since(&s->late) + 7000000) < 100000);
	steps.ahead_ns = 0;
	take_down(s);
}

GCLK_TEST(late, the_wall_clock_is_set_amid_a_load)
{
	check_set_amid(1000000000);
	check_set_amid(-1000000000);
	check_set_amid(INT64_C(3600000000000));
	check_set_amid(INT64_C(-3600000000000));
	check_set_amid(3000000);
}

/* With a plan that is not written any more: the one that was holds, by the clock of its time. */
GCLK_TEST(late, the_wall_clock_is_set_and_nothing_written)
{
	struct stage *s;

	steps.by_ns = 1000000000;
	steps.at_plan = 4;
	s = jumped(-1, 4, 0);
	GCLK_EQ(s->late.stepped_ns, 0);
	GCLK_EQ(s->late.plan->when.run.ns, jumps.written.run.ns);
	CU_ASSERT(llabs(late_set_since(&s->late) - 1000000000) < 100000);
	steps.ahead_ns = 0;
	take_down(s);
}
