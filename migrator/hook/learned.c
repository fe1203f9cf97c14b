/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/hook/learned.h"

/*
 * Where nothing is known: measured with libvirt 9.0 and QEMU 7.2 on two busy processors,
 * 2..9 ms to the end of the load and 4..60 ms to the resume.
 */
#define LOAD_NS (5 * GCLK_NS_PER_MS)
#define RUN_NS (30 * GCLK_NS_PER_MS)
#define SPREAD_NS (300 * GCLK_NS_PER_MS)
#define BYTES_PER_S UINT64_C(500000000)

/* What one more restore may lie outside of all that were seen. */
#define SPREAD_MIN_NS (20 * GCLK_NS_PER_MS)
#define LESSON_MAX_NS (60 * GCLK_NS_PER_S)

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The median, and the largest distance from it, doubled while there are few. */
static int64_t middle(int64_t *values, unsigned n, uint64_t *ret_spread)
{
	int64_t m;
	uint64_t spread;

	qsort(values, n, sizeof(*values), by_size);
	m = values[n / 2];
	spread = (uint64_t)GCLK_MAX(m - values[0], values[n - 1] - m);
	if (n < 8) {
		spread = GCLK_MAX(2 * spread, (uint64_t)SPREAD_NS / n);
	}
	*ret_spread = spread + SPREAD_MIN_NS;
	return m;
}

void learned_conclude(struct learned *l)
{
	int64_t load[LEARNED_MAX], run[LEARNED_MAX], rate[LEARNED_MAX];
	unsigned n_rates = 0;
	uint64_t ignored;

	l->to_load_ns = LOAD_NS;
	l->to_run_ns = RUN_NS;
	l->to_load_spread_ns = l->to_run_spread_ns = SPREAD_NS;
	l->bytes_per_s = BYTES_PER_S;
	for (unsigned i = 0; i < l->n; i++) {
		load[i] = l->lessons[i].to_load_ns;
		run[i] = l->lessons[i].to_run_ns;
		if (l->lessons[i].bytes_per_s) {
			rate[n_rates++] = (int64_t)GCLK_MIN(l->lessons[i].bytes_per_s,
							    (uint64_t)INT64_MAX);
		}
	}
	if (l->n) {
		l->to_load_ns = middle(load, l->n, &l->to_load_spread_ns);
		l->to_run_ns = middle(run, l->n, &l->to_run_spread_ns);
	}
	if (n_rates) {
		l->bytes_per_s = (uint64_t)middle(rate, n_rates, &ignored);
	}
}

static bool parse_lesson(const char *line, struct lesson *ret)
{
	return sscanf(line, "restore %" SCNd64 " %" SCNd64 " %" SCNu64, &ret->to_load_ns,
		      &ret->to_run_ns, &ret->bytes_per_s) == 3 &&
	       ret->to_load_ns >= 0 && ret->to_run_ns >= ret->to_load_ns &&
	       ret->to_run_ns <= LESSON_MAX_NS;
}

static void append(struct learned *l, const struct lesson *lesson)
{
	if (l->n == LEARNED_MAX) {
		memmove(l->lessons, l->lessons + 1, (LEARNED_MAX - 1) * sizeof(*l->lessons));
		l->n--;
	}
	l->lessons[l->n++] = *lesson;
}

void learned_read(const char *path, struct learned *ret)
{
	struct lesson lesson;
	char line[128];
	FILE *file;

	memset(ret, 0, sizeof(*ret));
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		if (parse_lesson(line, &lesson)) {
			append(ret, &lesson);
		}
	}
	if (file) {
		fclose(file);
	}
	learned_conclude(ret);
}

static int write_all(const struct learned *l, FILE *file)
{
	for (unsigned i = 0; i < l->n; i++) {
		fprintf(file, "restore %" PRId64 " %" PRId64 " %" PRIu64 "\n",
			l->lessons[i].to_load_ns, l->lessons[i].to_run_ns,
			l->lessons[i].bytes_per_s);
	}
	return fflush(file) == 0 && !ferror(file) ? 0 : -1;
}

int learned_add(const char *path, const struct lesson *lesson, struct gclk_error *reterr)
{
	char temporary[600];
	struct learned l;
	FILE *file = NULL;
	int fd, r, saved;

	if (lesson->to_load_ns < 0 || lesson->to_run_ns < lesson->to_load_ns ||
	    lesson->to_run_ns > LESSON_MAX_NS) {
		return 0;	/* nothing to learn from */
	}
	learned_read(path, &l);
	append(&l, lesson);
	snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	r = file ? write_all(&l, file) : -1;
	if (file) {
		r |= fclose(file);
	} else if (fd >= 0) {
		close(fd);
	}
	if (r || rename(temporary, path) < 0) {
		saved = errno;
		unlink(temporary);
		errno = saved;
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "cannot be written: %s",
				 strerror(saved));
	}
	return 0;
}
