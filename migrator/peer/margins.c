/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/margins.h"

#define DELAY_MAX_NS (60 * GCLK_NS_PER_S)
/* Nobody's guest is to stand longer for what others' moves, or who sent them, have taught. */
#define CHOICE_MAX_NS (2 * GCLK_NS_PER_S)
#define FILE_MAX_BYTES 65536
#define PATH_BYTES 512

void margins_add(struct margins *margins, int64_t delay_ns)
{
	if (delay_ns < 0 || delay_ns > DELAY_MAX_NS) {
		return;
	}
	if (margins->n == MARGINS_MAX) {
		margins->n--;
		memmove(margins->delays_ns, margins->delays_ns + 1,
			margins->n * sizeof(margins->delays_ns[0]));
	}
	margins->delays_ns[margins->n++] = delay_ns;
}

static int compare(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct margin margins_choose(const struct margins *margins, int64_t usual_ns,
			     int64_t max_hold_ns)
{
	int64_t sorted[MARGINS_MAX + 1];
	struct margin m = { usual_ns, usual_ns, usual_ns, margins->n };
	uint32_t n = margins->n;

	if (n == 0) {
		return m;
	}
	memcpy(sorted, margins->delays_ns, n * sizeof(sorted[0]));
	if (n < MARGINS_FEW) {
		sorted[n++] = usual_ns;
	}
	qsort(sorted, n, sizeof(sorted[0]), compare);
	m.low_ns = sorted[n / 20];
	m.high_ns = sorted[n - 1 - n / 20];
	m.ns = m.high_ns - m.low_ns > max_hold_ns ? m.low_ns + max_hold_ns : m.high_ns;
	m.ns = GCLK_MIN(m.ns, CHOICE_MAX_NS);
	return m;
}

#define QUICK_PART 5	/* the quick ones take a fifth of the usual time */
#define BUSY_PER_PROCESSOR 2
#define BUSY_MAX 4
#define SLOW_MAX 4

int64_t margins_guess(int64_t usual_ns, uint64_t load_milli, uint64_t processors,
		      uint64_t slow_milli, int64_t max_hold_ns)
{
	uint64_t calm = 1000 * BUSY_PER_PROCESSOR * GCLK_MAX(processors, (uint64_t)1);
	uint64_t busy_milli = GCLK_MIN(load_milli, calm * BUSY_MAX) * 1000 / calm;
	uint64_t slow = GCLK_MIN(GCLK_MAX(slow_milli, UINT64_C(1000)), UINT64_C(1000) * SLOW_MAX);
	int64_t busy_ns;

	/* usual where two work at it at a time */
	usual_ns = usual_ns / 1000 * (int64_t)slow * (processors == 1 ? 2 : 1);
	busy_ns = usual_ns / 1000 * (int64_t)busy_milli;

	return GCLK_MAX(GCLK_MIN(busy_ns, busy_ns / QUICK_PART + max_hold_ns), usual_ns);
}

uint64_t margins_load_milli(void)
{
	unsigned whole, hundredths;
	FILE *file = fopen("/proc/loadavg", "re");
	uint64_t milli = 0;

	if (file) {
		if (fscanf(file, "%5u.%2u", &whole, &hundredths) == 2) {
			milli = (uint64_t)whole * 1000 + hundredths * 10;
		}
		fclose(file);
	}
	return milli;
}

/* ---- the file ---- */

/* The whole of it, NUL-terminated; NULL: there is none. */
static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(FILE_MAX_BYTES) : NULL;
	size_t n;

	if (text) {
		n = fread(text, 1, FILE_MAX_BYTES - 1, file);
		text[n] = 0;
	}
	if (file) {
		fclose(file);
	}
	return text;
}

/* Does this line begin with the word? Returns what follows it. */
static const char *after_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	return !strncmp(line, word, n) && (line[n] == ' ' || line[n] == '\n' || !line[n])
		       ? line + n
		       : NULL;
}

static void take_line(struct margins *to, const char *numbers)
{
	char *end;

	for (;;) {
		long long ns = strtoll(numbers, &end, 10);

		if (end == numbers || memchr(numbers, '\n', (size_t)(end - numbers))) {
			return;
		}
		margins_add(to, ns);
		numbers = end;
	}
}

void margins_read(const char *path, const char *kind, struct margins *ret)
{
	char *text = read_file(path);
	const char *line = text;

	ret->n = 0;
	while (line) {
		const char *numbers = after_word(line, kind);
		const char *next = strchr(line, '\n');

		if (numbers) {
			take_line(ret, numbers);
		}
		line = next ? next + 1 : NULL;
	}
	free(text);
}

static void put_others(FILE *to, const char *text, const char *kind)
{
	for (const char *line = text; line && *line;) {
		size_t n = strcspn(line, "\n");

		if (!after_word(line, kind)) {
			fprintf(to, "%.*s\n", (int)n, line);
		}
		line += n + (line[n] == '\n');
	}
}

static int replace(const char *path, const char *kind, const struct margins *margins)
{
	char temporary[PATH_BYTES + 8], *others;
	FILE *to;
	int failed;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	to = fopen(temporary, "we");
	if (!to) {
		return -1;
	}
	others = read_file(path);
	put_others(to, others, kind);
	free(others);
	fputs(kind, to);
	for (uint32_t i = 0; i < margins->n; i++) {
		fprintf(to, " %" PRId64, margins->delays_ns[i]);
	}
	fputc('\n', to);
	failed = fflush(to) | ferror(to) | fsync(fileno(to));
	failed |= fclose(to);
	if (!failed && rename(temporary, path) == 0) {
		return 0;
	}
	unlink(temporary);
	return -1;
}

int margins_learn(const char *path, const char *kind, int64_t delay_ns,
		  struct gclk_error *reterr)
{
	struct margins margins;
	char lock[PATH_BYTES + 8];
	int fd, r;

	if (strlen(path) >= PATH_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "the path is too long");
	}
	snprintf(lock, sizeof(lock), "%s.lock", path);
	fd = open(lock, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		r = gclk_fail(reterr, GCLK_SYS, lock, GCLK_NO_OFFSET, "%s",
			      strerror(errno));
		if (fd >= 0) {
			close(fd);
		}
		return r;
	}
	margins_read(path, kind, &margins);
	margins_add(&margins, delay_ns);
	r = replace(path, kind, &margins) == 0
		    ? 0
		    : gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "%s",
				strerror(errno));
	close(fd);
	return r;
}
