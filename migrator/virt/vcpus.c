/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "core/util.h"
#include "migrator/virt/vcpus.h"
#include "migrator/virt/waits.h"
#include "migrator/wall.h"

#define WATCHED 4	/* all of them are woken at once */
#define NAP_NS 100000
#define NAP_LOOKS 20	/* or so many times what a look takes: QEMU may need this processor */

struct vcpus {
	pthread_t thread;
	_Atomic int over;
	int64_t ran_ns;
	unsigned n;
	int fd[WATCHED];
	uint64_t runs[WATCHED];
	int state[WATCHED + 1];	/* theirs, and the main thread's; -1 */
};

static void close_one(int fd)
{
	if (fd >= 0) {
		close(fd);
	}
}

static int open_of(int tasks, const char *id, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "%.20s/%s", id, name);
	return openat(tasks, path, O_RDONLY | O_CLOEXEC);
}

/* libvirt has QEMU name its threads: "CPU 0/KVM", "CPU 0/TCG", "ALL CPUs/TCG". */
static bool is_vcpu(int tasks, const char *id)
{
	char name[32] = "";
	int fd = open_of(tasks, id, "comm");

	if (fd >= 0) {
		ssize_t n = read(fd, name, sizeof(name) - 1);

		name[n > 0 ? n : 0] = 0;
		close(fd);
	}
	return !strncmp(name, "CPU ", 4) || !strncmp(name, "ALL CPUs/", 9);
}

static void add(struct vcpus *v, int tasks, const char *id)
{
	int fd = open_of(tasks, id, "schedstat"), state = open_of(tasks, id, "stat");

	if (fd < 0 || state < 0) {
		close_one(fd);
		close_one(state);
		return;
	}
	v->fd[v->n] = fd;
	v->state[v->n++] = state;
}

static void find(struct vcpus *v, const char *root, pid_t pid)
{
	char path[PATH_MAX], id[24];
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof(path), "%s/proc/%ld/task", root, (long)pid);
	tasks = opendir(path);
	while (tasks && v->n < WATCHED && (entry = readdir(tasks))) {
		if (entry->d_name[0] != '.' && is_vcpu(dirfd(tasks), entry->d_name)) {
			add(v, dirfd(tasks), entry->d_name);
		}
	}
	if (tasks) {
		snprintf(id, sizeof(id), "%ld", (long)pid);
		v->state[v->n] = open_of(dirfd(tasks), id, "stat");
		closedir(tasks);
	}
}

/* "TID (NAME) S ...": it sleeps, and nobody has woken it. */
static bool sleeps(int fd)
{
	char text[128];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	const char *end;

	text[n > 0 ? n : 0] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' && end[2] == 'S';
}

static bool all_sleep(const struct vcpus *v)
{
	for (unsigned i = 0; i <= v->n; i++) {
		if (!sleeps(v->state[i])) {
			return false;
		}
	}
	return true;
}

/*
 * The load has woken them, too, and on a busy host that lasts: while the main thread and they
 * sleep, none of them is on its way.
 */
static bool begin(struct vcpus *v)
{
	struct thread_counts counts;

	if (!v->n || !all_sleep(v)) {
		return false;
	}
	for (unsigned i = 0; i < v->n; i++) {
		if (!thread_counts_read(v->fd[i], &counts)) {
			return false;
		}
		v->runs[i] = counts.runs;
	}
	return all_sleep(v);
}

static bool one_ran(const struct vcpus *v)
{
	struct thread_counts counts;

	for (unsigned i = 0; i < v->n; i++) {
		if (thread_counts_read(v->fd[i], &counts) && counts.runs != v->runs[i]) {
			return true;
		}
	}
	return false;
}

static void *watch(void *arg)
{
	struct vcpus *v = arg;
	int64_t nap_ns = NAP_NS, began_ns;

	prctl(PR_SET_TIMERSLACK, 1);
	while (!v->over) {
		began_ns = boot_clock_ns();
		if (one_ran(v)) {
			v->ran_ns = boot_clock_ns();
			break;
		}
		nap_ns = GCLK_MAX(nap_ns, NAP_LOOKS * (boot_clock_ns() - began_ns));
		nap_ns = GCLK_MIN(nap_ns, GCLK_NS_PER_MS);
		nanosleep(&(struct timespec){ 0, nap_ns }, NULL);
	}
	return NULL;
}

static void let_go(struct vcpus *v)
{
	for (unsigned i = 0; i < v->n; i++) {
		close_one(v->fd[i]);
		close_one(v->state[i]);
	}
	close_one(v->state[v->n]);
	free(v);
}

struct vcpus *vcpus_watch(const char *root, pid_t pid)
{
	struct vcpus *v = pid > 0 ? calloc(1, sizeof(*v)) : NULL;

	if (!v) {
		return NULL;
	}
	v->state[0] = -1;
	find(v, root, pid);
	if (!begin(v) || pthread_create(&v->thread, NULL, watch, v)) {
		let_go(v);
		return NULL;
	}
	return v;
}

int64_t vcpus_ran(struct vcpus *v)
{
	int64_t ran_ns = 0;

	if (v) {
		v->over = 1;
		pthread_join(v->thread, NULL);
		ran_ns = v->ran_ns;
		let_go(v);
	}
	return ran_ns;
}
