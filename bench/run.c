/* SPDX-License-Identifier: MIT */
/*
 * Runs a command many times, quietly, and says what it took.
 *
 *	bench-run TIMES COMMAND [ARGUMENT...]
 *
 * Prints "MEDIAN-NS MAX-RSS-KIB" of all runs but the first, which is for warmth. A process
 * of its own, since a command's peak memory counts what its parent had at the fork.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMES_MAX 1000

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* ns, or -1 where the command failed. */
static int64_t run(char **command, long *max_kib)
{
	int64_t begin = now_ns();
	struct rusage used;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int quiet = open("/dev/null", O_WRONLY);

		dup2(quiet, STDOUT_FILENO);
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &used) != pid || status != 0) {
		return -1;
	}
	*max_kib = used.ru_maxrss > *max_kib ? used.ru_maxrss : *max_kib;
	return now_ns() - begin;
}

int main(int argc, char **argv)
{
	int64_t took[TIMES_MAX];
	long max_kib = 0;
	int i, n = argc > 2 ? atoi(argv[1]) : 0;

	if (n < 1 || n > TIMES_MAX) {
		fprintf(stderr, "usage: bench-run TIMES COMMAND [ARGUMENT...]\n");
		return 2;
	}
	for (i = -1; i < n; i++) {
		int64_t ns = run(argv + 2, &max_kib);

		if (ns < 0) {
			fprintf(stderr, "bench-run: error: %s failed\n", argv[2]);
			return 1;
		}
		took[i < 0 ? 0 : i] = ns;
	}
	qsort(took, (size_t)n, sizeof(took[0]), compare);
	printf("%" PRId64 " %ld\n", took[n / 2], max_kib);
	return 0;
}
