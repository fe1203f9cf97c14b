/* SPDX-License-Identifier: MIT */
/*
 * Preloaded: the first write that is made again, of as many bytes in the same place, takes
 * three seconds. For who writes beside a reader, that one comes meanwhile.
 */
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define LEAST_BYTES 512
#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at);

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	static size_t last_n;
	static off64_t last_at;
	static int done;

	if (!done && n >= LEAST_BYTES && n == last_n && at == last_at) {
		done = 1;
		nanosleep(&(struct timespec){ 3, 0 }, NULL);
	}
	if (n >= LEAST_BYTES) {
		last_n = n;
		last_at = at;
	}
	return syscall(SYS_pwrite64, fd, bytes, n, at);
}
