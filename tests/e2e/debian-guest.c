/* SPDX-License-Identifier: MIT */
/*
 * What runs inside the Debian guest of debian.py, linked statically:
 *
 *	gc clocks TTY	every half second a line with what the clocks read
 *	gc dog MS WORK	a service with a watchdog: READY=1, then WATCHDOG=1 every MS, each time
 *			after WORK thousand turns of a loop
 *	gc churn MS	opens and closes a file every MS, so that RCU has work as on any server
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

static int64_t read_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void sleep_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR) {
	}
}

static void source_name(char *to, size_t size)
{
	int fd = open(SOURCE, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);

	if (fd >= 0) {
		close(fd);
	}
	to[n > 0 ? n : 0] = 0;
	to[strcspn(to, "\n")] = 0;
}

/*
 * One write a line, so that little else of the console's gets between. A login prompt hangs
 * the terminal up when it starts: then it is opened again.
 */
static void put_line(const char *tty, const char *line, size_t n)
{
	static int fd = -1;

	for (int tries = 0; tries < 2; tries++) {
		if (fd < 0) {
			fd = open(tty, O_WRONLY | O_NOCTTY);
		}
		if (fd < 0 || write(fd, line, n) == (ssize_t)n) {
			return;
		}
		close(fd);
		fd = -1;
	}
}

static _Noreturn void clocks(const char *tty)
{
	for (;;) {
		char source[32], line[200];
		int64_t mono, boot, real;
		uint64_t tsc;
		int n;

		source_name(source, sizeof(source));
		mono = read_ns(CLOCK_MONOTONIC);
		tsc = __builtin_ia32_rdtsc();
		boot = read_ns(CLOCK_BOOTTIME);
		real = read_ns(CLOCK_REALTIME);
		n = snprintf(line, sizeof(line), "@GC %lld %llu %lld %lld %s;\r\n",
			     (long long)mono, (unsigned long long)tsc, (long long)boot,
			     (long long)real, source);
		put_line(tty, line, (size_t)n);
		sleep_ms(500);
	}
}

static void notify(int fd, const char *what)
{
	if (send(fd, what, strlen(what), MSG_NOSIGNAL) < 0) {
		perror("notify");
	}
}

/*
 * Turns of a loop, not a time: a jump of the clocks may be charged to whoever runs.
 */
static void work_turns(long thousands)
{
	for (volatile long i = 0; i < 1000 * thousands; i++) {
	}
}

static int dog(long ms, long work)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	size_t n = path ? strlen(path) : 0;

	if (fd < 0 || !n || n >= sizeof(to.sun_path)) {
		return 1;
	}
	memcpy(to.sun_path, path, n);
	if (path[0] == '@') {
		to.sun_path[0] = 0;
	}
	if (connect(fd, (struct sockaddr *)&to,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n))) {
		return 1;
	}
	notify(fd, "READY=1");
	for (;;) {
		work_turns(work);
		notify(fd, "WATCHDOG=1");
		sleep_ms(ms);
	}
}

static _Noreturn void churn(long ms)
{
	for (;;) {
		int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

		if (fd >= 0) {
			close(fd);
		}
		sleep_ms(ms);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "clocks")) {
		clocks(argv[2]);
	}
	if (argc == 4 && !strcmp(argv[1], "dog")) {
		return dog(atol(argv[2]), atol(argv[3]));
	}
	if (argc == 3 && !strcmp(argv[1], "churn")) {
		churn(atol(argv[2]));
	}
	fprintf(stderr, "usage: gc clocks TTY | dog MS WORK | churn MS\n");
	return 2;
}
