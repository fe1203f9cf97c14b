/* SPDX-License-Identifier: MIT */
/* How much a copy may take that somebody else has the size of. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/util.h"
#include "gclk-test.h"
#include "migrator/virt/room.h"

GCLK_TEST(room, a_part_of_a_file_system_is_left_to_others)
{
	const uint64_t gib = UINT64_C(1) << 30;

	GCLK_EQ(room_reserve(0), 0);
	GCLK_EQ(room_reserve(gib), gib / 20);
	GCLK_EQ(room_reserve(20 * gib), gib);
	GCLK_EQ(room_reserve(UINT64_MAX), gib);
}

GCLK_TEST(room, beside_a_file)
{
	struct gclk_error error;
	struct statvfs fs;
	uint64_t room = 0;

	CU_ASSERT_FATAL(statvfs("/tmp", &fs) == 0);
	GCLK_EQ(room_beside("/tmp/image", &room, &error), 0);
	CU_ASSERT(room < (uint64_t)fs.f_bfree * fs.f_frsize + (UINT64_C(1) << 30));
	CU_ASSERT(room <= (uint64_t)fs.f_blocks * fs.f_frsize -
				  room_reserve((uint64_t)fs.f_blocks * fs.f_frsize));
	GCLK_EQ(room_beside("/nonexistent/image", &room, &error), -GCLK_SYS);
	GCLK_EQ(room_beside("image", &room, &error), 0);
	GCLK_EQ(room_beside("/image", &room, &error), 0);
}

static int write_twice(int fd)
{
	static const char bytes[4096];

	if (pwrite(fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes)) {
		return 1;
	}
	return pwrite(fd, bytes, sizeof(bytes), 4096) < 0 && errno == EFBIG ? 0 : 2;
}

/* As a worker: with its own way of taking signals. */
static int status_of_child(int fd)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		signal(SIGXFSZ, SIG_DFL);
		_exit(write_twice(fd));
	}
	CU_ASSERT_FATAL(child > 0 && waitpid(child, &status, 0) == child);
	return status;
}

GCLK_TEST(room, no_more_than_that_is_written)
{
	char path[] = "/tmp/gclk-room-XXXXXX";
	struct rlimit before, after;
	int fd = mkstemp(path), status;

	CU_ASSERT_FATAL(fd >= 0 && getrlimit(RLIMIT_FSIZE, &after) == 0);
	GCLK_EQ(room_limit(4096, &before, NULL), 0);
	GCLK_EQ(before.rlim_cur, after.rlim_cur);
	GCLK_EQ(write_twice(fd), 0);
	status = status_of_child(fd);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	room_unlimit(&before);
	GCLK_EQ(write_twice(fd), 2); /* now it may */
	CU_ASSERT(getrlimit(RLIMIT_FSIZE, &after) == 0 && after.rlim_cur == before.rlim_cur);
	close(fd);
	unlink(path);
}
