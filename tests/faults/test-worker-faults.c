/* SPDX-License-Identifier: MIT */
/*
 * Faults between a program and the worker that reads for it. Each call by which the one
 * talks to the other fails, is short, is interrupted, or is the last that the worker lives
 * to see; each allocation of either fails. Each time: an error with a sentence or the same
 * answer as without; the file as it was, as it shall be, or one that `undo` makes the old;
 * no process, descriptor or block of memory more than before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "forked-worker.h"
#include "gclk-test.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_IS_TAKEN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define HEAP_IS_TAKEN 1
#endif

/* ---- the faults ---- */

enum fault { NONE, FAILS, IS_SHORT, IS_INTERRUPTED, DIES_BEFORE, DIES_AFTER, HAS_NO_MEMORY };
enum side { ASKER, WORKER };
static const char *const fault_names[] = { "none", "fails", "is short", "is interrupted",
					   "the worker dies before", "the worker dies after",
					   "no memory" };

static struct {
	enum fault fault;
	enum side side;
	unsigned long at;		/* 1: the first one */
} wanted;

/* Seen by both processes. */
static struct counts {
	unsigned long calls[2], allocs[2];
	bool has_come;
} *counts;

static bool is_counting;
static enum side side;
static struct forked forked;

/* Whether this call is the one. */
static bool comes(unsigned long *n, bool is_alloc)
{
	if (!is_counting) {
		return false;
	}
	++*n;
	if (wanted.side != side || *n != wanted.at || wanted.fault == NONE ||
	    (wanted.fault == HAS_NO_MEMORY) != is_alloc) {
		return false;
	}
	counts->has_come = true;
	return true;
}

static void kill_worker(void)
{
	kill(side == WORKER ? getpid() : forked.last, SIGKILL);
}

static ssize_t talk(long number, int fd, struct msghdr *message, int flags)
{
	enum fault fault = flags & (MSG_PEEK | MSG_DONTWAIT) ||
			   !comes(&counts->calls[side], false) ? NONE : wanted.fault;
	struct msghdr less = *message;
	struct iovec first;
	ssize_t n;

	switch (fault) {
	case FAILS:
		errno = EIO;
		return -1;
	case IS_INTERRUPTED:
		errno = EINTR;
		return -1;
	case IS_SHORT:
		for (size_t i = 0; i < message->msg_iovlen && !message->msg_iov[i].iov_len; i++) {
			less.msg_iov++;
		}
		first = (struct iovec){ less.msg_iov->iov_base,
					GCLK_MIN(less.msg_iov->iov_len, (size_t)1) };
		less.msg_iov = &first;
		less.msg_iovlen = 1;
		n = syscall(number, fd, &less, flags);
		message->msg_controllen = less.msg_controllen;
		message->msg_flags = less.msg_flags;
		return n;
	case DIES_BEFORE:
		kill_worker();
		return syscall(number, fd, message, flags);
	case DIES_AFTER:
		n = syscall(number, fd, message, flags);
		kill_worker();
		return n;
	default:
		return syscall(number, fd, message, flags);
	}
}

#pragma GCC visibility push(default)	/* in the way of libc's */

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct msghdr copy = *message;

	return talk(SYS_sendmsg, fd, &copy, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return talk(SYS_recvmsg, fd, message, flags);
}

#ifndef HEAP_IS_TAKEN
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static long n_live;

static bool refuse(void)
{
	if (!comes(&counts->allocs[side], true)) {
		return false;
	}
	errno = ENOMEM;
	return true;
}

static void *given(void *p)
{
	n_live += is_counting && p;
	return p;
}

void *malloc(size_t size)
{
	return refuse() ? NULL : given(__libc_malloc(size));
}

__attribute__((noinline)) void *calloc(size_t n, size_t size)
{
	return refuse() ? NULL : given(__libc_calloc(n, size));
}

void *realloc(void *p, size_t size)
{
	void *more = refuse() ? NULL : __libc_realloc(p, size);

	n_live += is_counting && more && !p;
	return more;
}

void free(void *p)
{
	n_live -= is_counting && p;
	__libc_free(p);
}
#else
static const long n_live;
#endif
#pragma GCC visibility pop

/* ---- the worker ---- */

/* The bytes back, with one before them: enough to tell that it has read. */
static int echo(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
		struct gclk_error *reterr)
{
	char *answer = malloc(n + 1);

	if (!answer) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	answer[0] = (char)what;
	memcpy(answer + 1, bytes, n);
	*ret = answer;
	*ret_n = n + 1;
	return 0;
}

static void work(int socket)
{
	side = WORKER;
	gclk_worker_run(socket, NULL, echo);
}

static struct forked forked = { .script = work };
static const struct gclk_worker worker = FORKED_WORKER(&forked);

/* ---- files ---- */

struct bytes {
	uint8_t *p;
	size_t n;
};

static char directory[64];
static struct bytes before, after, undoable;	/* what "save" was, becomes, and was made of */
static struct gclk_plan *plan, *flow_plan;	/* of the image; of its stream alone */

static const char *place(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

static void write_file(const char *name, const struct bytes *from)
{
	int fd = open(place(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CU_ASSERT_FATAL(fd >= 0 && write(fd, from->p, from->n) == (ssize_t)from->n);
	close(fd);
}

static struct bytes read_file(const char *name)
{
	struct bytes to = { malloc((size_t)16 << 20), 0 };
	int fd = open(place(name), O_RDONLY);

	ssize_t n = fd < 0 ? 0 : read(fd, to.p, (size_t)16 << 20);

	to.n = n > 0 ? (size_t)n : 0;
	if (fd >= 0) {
		close(fd);
	}
	return to;
}

static bool file_is(const char *name, const struct bytes *what)
{
	struct bytes is = read_file(name);
	bool same = is.n == what->n && !memcmp(is.p, what->p, is.n);

	free(is.p);
	return same;
}

static unsigned n_files(void)
{
	DIR *dir = opendir(directory);
	unsigned n = 0;

	while (dir && readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n - 2;
}

static unsigned n_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n;
}

/* A save image around the smallest stream that there is. */
static struct bytes make_save(void)
{
	static const char xml[] = "<domain type='qemu'><name>one</name><uuid>"
				  "00112233-4455-6677-8899-aabbccddeeff</uuid></domain>";
	const uint32_t words[] = { 2, 256, 1, 0, 0 };
	struct bytes to = { calloc(1, (size_t)8 << 20), 92 + 256 };
	FILE *pipe = popen("xz -dc " GCLK_TEST_DATA "/streams/pc-multifd.qs.xz", "r");

	CU_ASSERT_FATAL(to.p && pipe);
	memcpy(to.p, "LibvirtQemudSave", 16);
	memcpy(to.p + 16, words, sizeof(words));
	memcpy(to.p + 92, xml, sizeof(xml));
	to.n += fread(to.p + to.n, 1, ((size_t)8 << 20) - to.n, pipe);
	pclose(pipe);
	return to;
}

static struct gclk_plan *plan_for(const struct gclk_state *state,
				  const struct gclk_carrier *carrier)
{
	struct gclk_plan *made = gclk_plan_new(state->n_vcpus);
	struct gclk_when when = { .captured = { 0, GCLK_UNBOUNDED }, .elapsed_given = 1,
				  .elapsed_ns = 1000000000 };
	struct gclk_disagreement none = { 0 };
	struct gclk_host host = { 0 };

	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	when.run.ns = when.load.ns = INT64_C(1800000000000000000);
	CU_ASSERT_FATAL(gclk_plan(state, carrier, &host, &when, &none, &gclk_policy_default,
				  made, NULL) == 0);
	return made;
}

/* ---- what is done: 0, or what went wrong ---- */

static int open_save(uint8_t writable, const struct gclk_worker *by, struct gclk_image **ret,
		     struct gclk_error *reterr)
{
	const struct gclk_image_options options = { .writable = writable, .worker = by };

	return gclk_image_open(place("save"), &options, ret, reterr);
}

static int look(struct gclk_error *reterr)
{
	const struct gclk_image_change *changes;
	struct gclk_source_field field;
	struct gclk_image *image = NULL;
	unsigned n;
	int r = open_save(0, &worker, &image, reterr);

	if (r == 0) {
		r = gclk_image_source_field(image, 0, &field);
		CU_ASSERT(r != 0);
		if (r < 0) {
			gclk_fail(reterr, (enum gclk_status)-r, NULL, GCLK_NO_OFFSET, "no fields");
		}
		r = r < 0 ? r : gclk_image_encode(image, plan, &changes, &n, reterr);
		CU_ASSERT(r < 0 || n > 0);
	}
	gclk_image_close(image);
	return r;
}

static int patch(struct gclk_error *reterr)
{
	struct gclk_image *image = NULL;
	int r = open_save(1, &worker, &image, reterr);

	r = r < 0 ? r : gclk_image_patch(image, plan, "payload", 7, reterr);
	gclk_image_close(image);
	return r;
}

static bool has_begun;		/* a late writing did: its first part stays */

static int write_late(struct gclk_error *reterr)
{
	struct gclk_image *image = NULL;
	struct gclk_image_span span;
	int r = open_save(1, &worker, &image, reterr);

	r = r < 0 ? r : gclk_image_late_begin(image, plan, "payload", 7, &span, reterr);
	has_begun = r == 0;
	r = r < 0 ? r : gclk_image_late_write(image, plan, reterr);
	r = r < 0 ? r : gclk_image_patch(image, plan, "payload", 7, reterr);
	gclk_image_close(image);
	return r;
}

static int copy(struct gclk_error *reterr)
{
	struct gclk_image *image = NULL;
	int r = open_save(0, &worker, &image, reterr);

	r = r < 0 ? r : gclk_image_write(image, plan, "payload", 7, place("copy"), reterr);
	gclk_image_close(image);
	return r;
}

static int undo(struct gclk_error *reterr)
{
	const struct gclk_image_options options = { .worker = &worker };
	int undone = 0, r = gclk_image_undo(place("save"), &options, &undone, reterr);

	CU_ASSERT(r < 0 || undone == 1);
	return r;
}

static int read_xml(struct gclk_error *reterr)
{
	static const char xml[] = "<domain type='kvm'><name>one</name></domain>";
	static struct gclk_domain domain;
	int r = gclk_worker_domain_read(&worker, xml, strlen(xml), &domain, reterr);

	CU_ASSERT(r < 0 || !strcmp(domain.name, "one"));
	return r;
}

static int read_bytes(struct gclk_error *reterr)
{
	struct gclk_reading *reading = NULL;
	int r = gclk_reading_new(&worker, &reading, reterr);

	for (uint32_t i = 0; r == 0 && i < 3; i++) {
		void *answer = NULL;
		size_t n = 0;

		r = gclk_reading_ask(reading, i, "some bytes", 10, &answer, &n, reterr);
		CU_ASSERT(r < 0 || (n == 11 && *(char *)answer == (char)i &&
				    !memcmp((char *)answer + 1, "some bytes", 10)));
		free(answer);
	}
	gclk_reading_free(reading);
	return r;
}

/* What comes out of the filter is the input or the patched input, however it was cut. */
static int push_all(struct gclk_filter *filter, struct bytes *out, struct gclk_error *reterr)
{
	const uint8_t *from = before.p + 92 + 256, *patched;
	size_t n = before.n - 92 - 256, pass, held, n_patched;
	int r = 0;

	while (n && r >= 0 && r != GCLK_FILTER_OFF) {
		r = gclk_filter_push(filter, from, GCLK_MIN(n, (size_t)100000), &pass, &held,
				     reterr);
		if (r < 0) {
			return r;
		}
		memcpy(out->p + out->n, from, pass);
		out->n += pass;
		from += pass + held;
		n -= pass + held;
		if (r == GCLK_FILTER_READY) {
			if (!flow_plan && gclk_filter_state(filter)) {
				flow_plan = plan_for(gclk_filter_state(filter),
						     gclk_filter_carrier(filter));
			}
			r = gclk_filter_apply(filter, gclk_filter_state(filter) ? flow_plan : NULL,
					      &patched, &n_patched, reterr);
			if (r < 0) {
				return r;
			}
			memcpy(out->p + out->n, patched, n_patched);
			out->n += n_patched;
		}
	}
	memcpy(out->p + out->n, from, n);
	out->n += n;
	return 0;
}

static struct bytes filtered, flowed;

static int filter_stream(struct gclk_error *reterr)
{
	const struct gclk_filter_options options = { .worker = &worker, .one_way = 1 };
	struct gclk_filter *filter = NULL;
	int r = gclk_filter_new(&options, &filter, reterr);

	flowed.n = 0;
	r = r < 0 ? r : push_all(filter, &flowed, reterr);
	gclk_filter_free(filter);
	return r;
}

/* ---- what must hold afterwards ---- */

static void as_it_was(int r)
{
	(void)r;
	CU_ASSERT(file_is("save", &before));
	GCLK_EQ(n_files(), 1);
}

/* Who says nothing of a change has made none. */
static void changed_or_undone(int r)
{
	int undone;

	GCLK_EQ(n_files(), 1);
	if (r == 0) {
		CU_ASSERT(file_is("save", &after));
	} else if (r != -GCLK_UNPROVEN && !has_begun) {
		CU_ASSERT(file_is("save", &before));
	}
	CU_ASSERT(gclk_image_undo(place("save"), NULL, &undone, NULL) == 0);
	CU_ASSERT(file_is("save", &before));
}

static void undone_or_undoable(int r)
{
	int undone;

	GCLK_EQ(n_files(), 1);
	CU_ASSERT(r < 0 || file_is("save", &before));
	CU_ASSERT(r >= 0 || r == -GCLK_UNPROVEN || file_is("save", &undoable));
	CU_ASSERT(gclk_image_undo(place("save"), NULL, &undone, NULL) == 0);
	CU_ASSERT(file_is("save", &before));
}

static void copied_or_not(int r)
{
	CU_ASSERT(file_is("save", &before));
	GCLK_EQ(n_files(), r == 0 ? 2 : 1);
	CU_ASSERT(r < 0 || file_is("copy", &after));
	unlink(place("copy"));
}

/* As planned, or, where it could not be read, as it came: nothing between. */
static void flowed_right(int r)
{
	const uint8_t *from = before.p + 92 + 256;
	size_t n = before.n - 92 - 256;

	CU_ASSERT(r < 0 || (flowed.n == filtered.n && !memcmp(flowed.p, filtered.p, flowed.n)) ||
		  (wanted.fault == HAS_NO_MEMORY && wanted.side == WORKER && flowed.n == n &&
		   !memcmp(flowed.p, from, n)));
}

static const struct deed {
	const char *name;
	int (*run)(struct gclk_error *reterr);
	void (*check)(int r);
	const struct bytes *file;	/* "save", at the begin */
} deeds[] = {
	{ "look", look, as_it_was, &before },
	{ "patch", patch, changed_or_undone, &before },
	{ "late", write_late, changed_or_undone, &before },
	{ "copy", copy, copied_or_not, &before },
	{ "undo", undo, undone_or_undoable, &undoable },
	{ "xml", read_xml, as_it_was, &before },
	{ "bytes", read_bytes, as_it_was, &before },
	{ "filter", filter_stream, flowed_right, &before },
};

/* ---- one fault ---- */

static void try_one(const struct deed *deed, enum side where, enum fault fault, unsigned long at)
{
	struct gclk_error error = { 0 };
	unsigned n_failures = CU_get_number_of_failures(), n_open = n_descriptors();
	long live;
	int r;

	write_file("save", deed->file);
	memset(counts, 0, sizeof(*counts));
	has_begun = false;
	wanted.fault = fault;
	wanted.side = where;
	wanted.at = at;
	forked.started = forked.stopped = 0;
	live = n_live;
	is_counting = true;
	r = deed->run(&error);
	is_counting = false;
	CU_ASSERT(r == 0 || (error.status == -r && error.message[0]));
	/* what was not done at once is done at another time */
	CU_ASSERT((fault != IS_SHORT && fault != IS_INTERRUPTED && fault != NONE) || r == 0);
	CU_ASSERT(fault != HAS_NO_MEMORY || r == 0 || r == -GCLK_NOMEM || r == -GCLK_PEER ||
		  r == -GCLK_UNPROVEN);
	GCLK_EQ(n_live, live);
	GCLK_EQ(n_descriptors(), n_open);
	GCLK_EQ(forked.started, forked.stopped);
	CU_ASSERT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	deed->check(r);
	if (CU_get_number_of_failures() > n_failures) {
		printf("\n    %s: %s: %s %lu: %d %s\n", deed->name,
		       where == ASKER ? "asker" : "worker", fault_names[fault], at, r,
		       error.message);
	}
}

/* The forks of a process with a sanitizer are slow. */
#ifdef HEAP_IS_TAKEN
#define SAMPLE 4
#else
#define SAMPLE 8
#endif

/* All of them with --scale 100; else a sample over the whole of each. */
static unsigned try_all(const struct deed *deed, enum side where, enum fault fault,
			unsigned long n)
{
	unsigned long most = (fault == HAS_NO_MEMORY ? 12 : SAMPLE) *
			     (unsigned long)gclk_test_scale();
	unsigned long step = n > most ? n / most : 1;
	unsigned tried = 0;

	for (unsigned long at = 1 + gclk_random_below(step); at <= n; at += step) {
		try_one(deed, where, fault, at);
		tried++;
	}
	return tried;
}

static void make_files(void)
{
	struct gclk_image *image = NULL;
	struct gclk_filter *filter = NULL;
	const struct gclk_filter_options options = { .one_way = 1 };

	strcpy(directory, "/tmp/gclk-faults-XXXXXX");
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	CU_ASSERT_FATAL(mkdtemp(directory) != NULL && counts != MAP_FAILED);
	before = make_save();
	write_file("save", &before);
	CU_ASSERT_FATAL(open_save(1, NULL, &image, NULL) == 0);
	plan = plan_for(gclk_image_state(image), gclk_image_carrier(image));
	CU_ASSERT_FATAL(gclk_image_patch(image, plan, "payload", 7, NULL) == 0);
	gclk_image_close(image);
	after = read_file("save");
	undoable = read_file("save");
	filtered.p = malloc(before.n);
	flowed.p = malloc(2 * before.n);
	CU_ASSERT_FATAL(gclk_filter_new(&options, &filter, NULL) == 0);
	CU_ASSERT_FATAL(push_all(filter, &filtered, NULL) == 0);
	gclk_filter_free(filter);
}

static void clean_up(void)
{
	unlink(place("save"));
	rmdir(directory);
	munmap(counts, sizeof(*counts));
	gclk_plan_free(plan);
	gclk_plan_free(flow_plan);
	free(before.p);
	free(after.p);
	free(undoable.p);
	free(filtered.p);
	free(flowed.p);
}

GCLK_TEST(worker_faults, nothing_is_lost_by_any_of_them)
{
	unsigned n = 0;

	make_files();
	for (unsigned i = 0; i < GCLK_COUNT(deeds); i++) {
		struct counts all;

		try_one(&deeds[i], ASKER, NONE, 0);
		try_one(&deeds[i], ASKER, NONE, 0);	/* the first of all has more to do */
		all = *counts;
		CU_ASSERT_FATAL(all.calls[ASKER] > 3 && all.calls[WORKER] > 3);
		for (enum side where = ASKER; where <= WORKER; where++) {
			for (enum fault fault = FAILS; fault <= DIES_AFTER; fault++) {
				n += try_all(&deeds[i], where, fault, all.calls[where]);
			}
			n += try_all(&deeds[i], where, HAS_NO_MEMORY, all.allocs[where]);
		}
		printf("\n    %s: %lu and %lu calls, %lu and %lu allocations", deeds[i].name,
		       all.calls[ASKER], all.calls[WORKER], all.allocs[ASKER],
		       all.allocs[WORKER]);
	}
	printf("\n    %u faults\n", n);
	clean_up();
}
