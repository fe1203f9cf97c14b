/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "stream.h"

#define RAM (UINT64_C(1) << 30)
#define PART (48u << 20)
#define WORKER "bench-worker"

static void begin_part(struct bytes *b, uint64_t page)
{
	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", page * 4096 % RAM, W_ZERO);
	put8(b, 0);
}

void make_stream(struct bytes *b, unsigned flag, size_t n)
{
	size_t part;

	put_header(b, "pc-i440fx-7.2");
	put_command(b, 1, NULL, 0);
	put_start(b, 3, "ram", 0, 4);
	put64(b, RAM | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, RAM);
	put_eos(b);
	put_footer(b, 3);
	part = b->n;
	begin_part(b, 0);
	for (uint64_t page = 1; b->n < n; page++) {
		if (b->n - part >= PART) {
			put_eos(b);
			put_footer(b, 3);
			part = b->n;
			begin_part(b, page++);
		}
		put64(b, (page * 4096) % RAM | flag | W_CONTINUE);
		if (flag == W_PAGE) {
			put_random(b, 4096);
		} else {
			put8(b, 0);
		}
	}
	/* a process that is forked here does not pay for it */
	madvise((void *)(((uintptr_t)b->p + 4095) & ~(uintptr_t)4095), b->n & ~(size_t)4095,
		MADV_DONTFORK);
}

static int start(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	int ends[2];

	(void)ctx;
	(void)reterr;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
		abort();
	}
	fflush(stdout);
	*ret = (struct gclk_worker_process){ ends[0], fork() };
	if (ret->pid == 0) {
		dup2(ends[1], STDIN_FILENO);
		execv("/proc/self/exe", (char *[]){ (char[]){ WORKER }, NULL });
		_exit(1);
	}
	close(ends[1]);
	return 0;
}

void bench_entry(char **argv)
{
	if (!strcmp(argv[0], WORKER)) {
		_exit(gclk_image_work(STDIN_FILENO, NULL) < 0);
	}
}

static void stop(void *ctx, struct gclk_worker_process *process, int failed,
		 struct gclk_error *reterr)
{
	(void)ctx;
	(void)reterr;
	close(process->socket);
	waitpid(process->pid, NULL, 0);
	if (failed) {
		abort();
	}
}

const struct gclk_worker bench_worker = { start, stop, NULL };

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

double all_cpu_s(void)
{
	struct rusage children;

	getrusage(RUSAGE_CHILDREN, &children);
	return now_s(CLOCK_PROCESS_CPUTIME_ID) + seconds(children.ru_utime) +
	       seconds(children.ru_stime);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}
