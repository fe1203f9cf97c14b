/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/virt/waits.h"
#include "migrator/wall.h"

#define THREADS 512
#define LOOKS 64
#define NAP_NS (10 * GCLK_NS_PER_MS)

struct one {
	long tid;
	int fd;
	bool seen;
	uint64_t waited_ns;
};

struct waits {
	pthread_t thread;
	pthread_mutex_t lock;
	_Atomic int over;
	char path[PATH_MAX];
	unsigned n;
	struct one threads[THREADS];
	uint64_t gone_ns;	/* of threads that have ended */
	bool blind;		/* to one of them: then nothing is known */
	unsigned n_looks;	/* ever */
	struct waits_look looks[LOOKS];
};

bool thread_counts_read(int fd, struct thread_counts *ret)
{
	char text[96];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0) {
		return false;
	}
	text[n] = 0;
	return sscanf(text, "%*u %" SCNu64 " %" SCNu64, &ret->waited_ns, &ret->runs) == 2;
}

static struct one *find(struct waits *w, long tid)
{
	for (unsigned i = 0; i < w->n; i++) {
		if (w->threads[i].tid == tid) {
			return &w->threads[i];
		}
	}
	return NULL;
}

static bool has_ended(int error)
{
	return error == ENOENT || error == ESRCH;
}

static void add(struct waits *w, int tasks, const char *id)
{
	char path[64];
	int fd;

	if (w->n == THREADS) {
		w->blind = true;
		return;
	}
	snprintf(path, sizeof(path), "%.20s/schedstat", id);
	fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		w->threads[w->n++] = (struct one){ .tid = strtol(id, NULL, 10), .fd = fd,
						   .seen = true };
	} else {
		w->blind = w->blind || !has_ended(errno);
	}
}

static void list(struct waits *w)
{
	DIR *tasks = opendir(w->path);
	struct dirent *entry;
	struct one *one;

	w->blind = w->blind || (!tasks && !has_ended(errno));
	for (unsigned i = 0; i < w->n; i++) {
		w->threads[i].seen = false;
	}
	while (tasks && (entry = readdir(tasks))) {
		one = find(w, strtol(entry->d_name, NULL, 10));
		if (one) {
			one->seen = true;
		} else if (entry->d_name[0] != '.') {
			add(w, dirfd(tasks), entry->d_name);
		}
	}
	if (tasks) {
		closedir(tasks);
	}
}

/* What a thread that has ended had waited is not taken away again. */
static uint64_t add_up(struct waits *w)
{
	struct thread_counts counts;
	uint64_t sum = 0;

	for (unsigned i = 0; i < w->n;) {
		struct one *one = &w->threads[i];

		if (one->seen && thread_counts_read(one->fd, &counts)) {
			one->waited_ns = counts.waited_ns;
			sum += counts.waited_ns;
			i++;
		} else {
			w->gone_ns += one->waited_ns;
			close(one->fd);
			*one = w->threads[--w->n];
		}
	}
	return sum + w->gone_ns;
}

/* The instant is from after the counters were read: what they hold is from before it. */
static void look(struct waits *w)
{
	struct waits_look *to = &w->looks[w->n_looks % LOOKS];

	list(w);
	to->waited_ns = add_up(w);
	to->at_ns = boot_clock_ns();
	w->n_looks++;
}

static void *watch(void *arg)
{
	struct waits *w = arg;

	while (!w->over) {
		pthread_mutex_lock(&w->lock);
		look(w);
		pthread_mutex_unlock(&w->lock);
		nanosleep(&(struct timespec){ 0, NAP_NS }, NULL);
	}
	return NULL;
}

static struct waits *let_go(struct waits *w)
{
	for (unsigned i = 0; i < w->n; i++) {
		close(w->threads[i].fd);
	}
	pthread_mutex_destroy(&w->lock);
	free(w);
	return NULL;
}

struct waits *waits_watch(const char *root, pid_t pid)
{
	struct waits *w = pid > 0 ? calloc(1, sizeof(*w)) : NULL;

	if (!w) {
		return NULL;
	}
	pthread_mutex_init(&w->lock, NULL);
	snprintf(w->path, sizeof(w->path), "%s/proc/%ld/task", root, (long)pid);
	look(w);
	if (!w->n || pthread_create(&w->thread, NULL, watch, w)) {
		return let_go(w);
	}
	return w;
}

struct waits *waits_end(struct waits *w)
{
	if (w) {
		w->over = 1;
		pthread_join(w->thread, NULL);
		let_go(w);
	}
	return NULL;
}

int64_t waits_lag_of(const struct waits_look *looks, unsigned n, int64_t stamp_ns,
		     int64_t usual_ns)
{
	const struct waits_look *last = n ? &looks[n - 1] : NULL;
	int64_t lag_ns;

	/* from the longest time on: what is explained by less than was watched is found */
	for (unsigned i = 0; i < n; i++) {
		uint64_t waited = last->waited_ns - looks[i].waited_ns;
		int64_t until_next = stamp_ns - looks[i].at_ns;

		lag_ns = gclk_add_sat(usual_ns, (int64_t)GCLK_MIN(waited, (uint64_t)INT64_MAX));
		if (i == 0 && lag_ns >= until_next) {
			return 0;
		}
		if (i + 1 == n || lag_ns > stamp_ns - looks[i + 1].at_ns) {
			return lag_ns;
		}
	}
	return 0;
}

int64_t waits_lag(struct waits *w, int64_t age_ns, int64_t usual_ns)
{
	int64_t stamp_ns = boot_clock_ns() - GCLK_MAX(age_ns, 0);
	struct waits_look looks[LOOKS];
	unsigned first, n;
	int64_t lag_ns;

	pthread_mutex_lock(&w->lock);
	look(w);
	n = GCLK_MIN(w->n_looks, (unsigned)LOOKS);
	first = w->n_looks - n;
	for (unsigned i = 0; i < n; i++) {
		looks[i] = w->looks[(first + i) % LOOKS];
	}
	lag_ns = w->blind ? 0 : waits_lag_of(looks, n, stamp_ns, usual_ns);
	pthread_mutex_unlock(&w->lock);
	return lag_ns;
}
