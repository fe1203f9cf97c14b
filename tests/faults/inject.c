/* SPDX-License-Identifier: MIT */
/*
 * Faults for a program that knows nothing of them: loaded with LD_PRELOAD, told by the
 * environment variable GCLK_FAULT what to do to the program's calls of libc. N counts
 * from 1.
 *
 *	count		nothing
 *	error:N:ERRNO	the Nth call that can fail does
 *	short:N		the Nth read or write moves half of what was asked, 1 byte at least
 *	again:N		the Nth read or write is interrupted (EINTR) before it moves anything
 *	space:N		the disk is full when N bytes have been written
 *	kill:N		the process is killed before its Nth call that changes something
 *	torn:N		the same, but if that is a write half of it is done
 *	alloc:N		the Nth allocation fails
 *
 * GCLK_FAULT_REPORT names a file that gets one line: the counted calls that can fail,
 * move bytes, change something, the bytes written, the allocations, and the call that the
 * fault came to ("-": it did not come to pass). Also when the process is killed.
 */
/* both names of each call are defined here, so neither may be made of the other */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC visibility push(default)	/* to be in the way of libc's */

enum mode { NONE, ERROR, SHORT, AGAIN, SPACE, KILL, TORN, ALLOC };

static enum mode mode;
static unsigned long at, n_fallible, n_moving, n_changing, n_bytes, n_allocs;
static int error_number;
static bool is_ready;
static char hit[32] = "-";

static void report(void)
{
	const char *path = getenv("GCLK_FAULT_REPORT");
	char text[160];
	int fd, n;

	if (!is_ready || !path) {
		return;
	}
	is_ready = false;
	n = snprintf(text, sizeof(text), "%lu %lu %lu %lu %lu %s\n", n_fallible, n_moving,
		     n_changing, n_bytes, n_allocs, hit);
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			  0600);
	if (fd >= 0) {
		(void)!syscall(SYS_write, fd, text, n);
		syscall(SYS_close, fd);
	}
}

__attribute__((constructor)) static void begin(void)
{
	static const char *const names[] = { "count", "error", "short", "again",
					     "space", "kill", "torn", "alloc" };
	const char *text = getenv("GCLK_FAULT"), *colon = text ? strchr(text, ':') : NULL;

	for (unsigned i = 0; text && i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strncmp(text, names[i], strlen(names[i]))) {
			mode = (enum mode)i;
		}
	}
	at = colon ? strtoul(colon + 1, NULL, 10) : 0;
	colon = colon ? strchr(colon + 1, ':') : NULL;
	error_number = colon ? atoi(colon + 1) : EIO;
	is_ready = text != NULL;
}

__attribute__((destructor)) static void end(void)
{
	report();
}

static void note(const char *name)
{
	snprintf(hit, sizeof(hit), "%s", name);
}

static void die(const char *name)
{
	note(name);
	report();
	kill(getpid(), SIGKILL);
}

/* Before a call that can fail: whether it shall. */
static bool fails(const char *name)
{
	if (!is_ready || ++n_fallible != at || mode != ERROR) {
		return false;
	}
	note(name);
	errno = error_number;
	return true;
}

/* Before a call that changes something. */
static bool changes(const char *name)
{
	if (is_ready && ++n_changing == at && mode == KILL) {
		die(name);
	}
	return fails(name);
}

/* Before a call that moves bytes: how many it may, or -1 with errno. */
static ssize_t moves(const char *name, size_t n)
{
	if (!is_ready || ++n_moving != at) {
		return (ssize_t)n;
	}
	if (mode == AGAIN) {
		note(name);
		errno = EINTR;
		return -1;
	}
	if (mode == SHORT && n > 1) {
		note(name);
		return (ssize_t)(n / 2);
	}
	return (ssize_t)n;
}

/* The same of a write. */
static ssize_t writes(const char *name, size_t n)
{
	ssize_t may = moves(name, n);

	if (may > 0 && is_ready && mode == SPACE) {
		unsigned long left = n_bytes < at ? at - n_bytes : 0;

		if (left < (unsigned long)may) {
			note(name);
			may = (ssize_t)left;
		}
		if (may == 0) {
			errno = ENOSPC;
			return -1;
		}
	}
	if (may > 0) {
		n_bytes += (unsigned long)may;
	}
	return may;
}

/* Whether this write is to be torn: the caller does half of it, then die()s. */
static bool is_torn(void)
{
	return is_ready && mode == TORN && n_changing == at;
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, #name))

/* ---- calls that move bytes ---- */

#define READ(name, parameters, arguments_before, arguments_after)                        \
	ssize_t name parameters;                                                         \
	ssize_t name parameters                                                          \
	{                                                                                \
		static ssize_t (*real) parameters;                                       \
		ssize_t may;                                                             \
		real = real ? real : REAL(name, ssize_t (*) parameters);                 \
		if (fails(#name)) {                                                      \
			return -1;                                                       \
		}                                                                        \
		may = moves(#name, n);                                                   \
		return may < 0 ? -1 : real(arguments_before, (size_t)may arguments_after); \
	}

#define COMMA ,
READ(read, (int fd, void *buf, size_t n), fd COMMA buf, )
READ(pread, (int fd, void *buf, size_t n, off_t offset), fd COMMA buf, COMMA offset)
READ(pread64, (int fd, void *buf, size_t n, off64_t offset), fd COMMA buf, COMMA offset)
READ(tee, (int from, int to, size_t n, unsigned flags), from COMMA to, COMMA flags)

#define WRITE(name, parameters, arguments_before, arguments_after)                       \
	ssize_t name parameters;                                                         \
	ssize_t name parameters                                                          \
	{                                                                                \
		static ssize_t (*real) parameters;                                       \
		ssize_t may;                                                             \
		real = real ? real : REAL(name, ssize_t (*) parameters);                 \
		if (changes(#name)) {                                                    \
			return -1;                                                       \
		}                                                                        \
		if (is_torn()) {                                                         \
			(void)!real(arguments_before, n / 2 arguments_after);            \
			die(#name);                                                      \
		}                                                                        \
		may = writes(#name, n);                                                  \
		return may < 0 ? -1 : real(arguments_before, (size_t)may arguments_after); \
	}

WRITE(write, (int fd, const void *buf, size_t n), fd COMMA buf, )
WRITE(pwrite, (int fd, const void *buf, size_t n, off_t offset), fd COMMA buf, COMMA offset)
WRITE(pwrite64, (int fd, const void *buf, size_t n, off64_t offset), fd COMMA buf, COMMA offset)
WRITE(copy_file_range, (int from, off64_t *at_from, int to, off64_t *at_to, size_t n,
			unsigned flags), from COMMA at_from COMMA to COMMA at_to, COMMA flags)

/* ---- calls that change something ---- */

#define CHANGE(name, parameters, arguments)                                              \
	int name parameters;                                                             \
	int name parameters                                                              \
	{                                                                                \
		static int (*real) parameters;                                           \
		real = real ? real : REAL(name, int (*) parameters);                     \
		if (changes(#name)) {                                                    \
			return -1;                                                       \
		}                                                                        \
		if (is_torn()) {                                                         \
			die(#name);                                                      \
		}                                                                        \
		return real arguments;                                                   \
	}

CHANGE(fsync, (int fd), (fd))
CHANGE(fdatasync, (int fd), (fd))
CHANGE(ftruncate, (int fd, off_t n), (fd, n))
CHANGE(ftruncate64, (int fd, off64_t n), (fd, n))
CHANGE(rename, (const char *from, const char *to), (from, to))
CHANGE(renameat2, (int a, const char *from, int b, const char *to, unsigned flags),
       (a, from, b, to, flags))
CHANGE(linkat, (int a, const char *from, int b, const char *to, int flags),
       (a, from, b, to, flags))
CHANGE(unlink, (const char *path), (path))
CHANGE(mkdir, (const char *path, mode_t m), (path, m))
CHANGE(mkostemp, (char *template, int flags), (template, flags))
CHANGE(mkostemp64, (char *template, int flags), (template, flags))
CHANGE(fchmod, (int fd, mode_t m), (fd, m))
CHANGE(fchown, (int fd, uid_t user, gid_t group), (fd, user, group))

/* ---- calls that can fail ---- */

#define OTHER(name, parameters, arguments)                                               \
	int name parameters;                                                             \
	int name parameters                                                              \
	{                                                                                \
		static int (*real) parameters;                                           \
		real = real ? real : REAL(name, int (*) parameters);                     \
		return fails(#name) ? -1 : real arguments;                               \
	}

OTHER(fstat, (int fd, struct stat *st), (fd, st))
OTHER(fstat64, (int fd, struct stat64 *st), (fd, st))
OTHER(stat, (const char *path, struct stat *st), (path, st))
OTHER(stat64, (const char *path, struct stat64 *st), (path, st))
OTHER(flock, (int fd, int how), (fd, how))
OTHER(pipe2, (int fds[2], int flags), (fds, flags))

/* A failing close() has closed. */
int close(int fd)
{
	static int (*real)(int fd);
	int r;

	real = real ? real : REAL(close, int (*)(int));
	r = real(fd);
	return fails("close") ? -1 : r;
}

#define SEEK(name, type)                                                                 \
	type name(int fd, type offset, int whence)                                       \
	{                                                                                \
		static type (*real)(int fd, type offset, int whence);                    \
		real = real ? real : REAL(name, type (*)(int, type, int));               \
		return fails(#name) ? -1 : real(fd, offset, whence);                     \
	}

SEEK(lseek, off_t)
SEEK(lseek64, off64_t)

/* Making a file is a change, opening one can fail. */
#define OPEN(name)                                                                       \
	int name(const char *path, int flags, ...)                                       \
	{                                                                                \
		static int (*real)(const char *path, int flags, ...);                    \
		mode_t m = 0;                                                            \
		va_list arguments;                                                       \
		va_start(arguments, flags);                                              \
		if (flags & (O_CREAT | __O_TMPFILE)) {                                   \
			m = va_arg(arguments, mode_t);                                   \
		}                                                                        \
		va_end(arguments);                                                       \
		real = real ? real : REAL(name, int (*)(const char *, int, ...));        \
		if (flags & O_CREAT ? changes(#name) : fails(#name)) {                   \
			return -1;                                                       \
		}                                                                        \
		if (flags & O_CREAT && is_torn()) {                                      \
			die(#name);                                                      \
		}                                                                        \
		return real(path, flags, m);                                             \
	}

OPEN(open)
OPEN(open64)

#define FCNTL(name)                                                                      \
	int name(int fd, int command, ...)                                               \
	{                                                                                \
		static int (*real)(int fd, int command, ...);                            \
		va_list arguments;                                                       \
		void *argument;                                                          \
		va_start(arguments, command);                                            \
		argument = va_arg(arguments, void *);                                    \
		va_end(arguments);                                                       \
		real = real ? real : REAL(name, int (*)(int, int, ...));                 \
		return fails(#name) ? -1 : real(fd, command, argument);                  \
	}

FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- allocations: libc's own, found without dlsym(), which allocates ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static bool is_short_of_memory(void)
{
	if (!is_ready || ++n_allocs != at || mode != ALLOC) {
		return false;
	}
	note("malloc");
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return is_short_of_memory() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return is_short_of_memory() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return is_short_of_memory() ? NULL : __libc_realloc(p, size);
}
