/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/virt/room.h"

#define RESERVE_MAX_BYTES (UINT64_C(1) << 30)

uint64_t room_reserve(uint64_t all_bytes)
{
	return GCLK_MIN(all_bytes / 20, RESERVE_MAX_BYTES);
}

int room_beside(const char *path, uint64_t *ret, struct gclk_error *reterr)
{
	const char *slash = strrchr(path, '/');
	uint64_t all, free, reserve;
	struct statvfs fs;
	char directory[512];
	int n = !slash ? snprintf(directory, sizeof(directory), ".")
		       : snprintf(directory, sizeof(directory), "%.*s/",
				  (int)GCLK_MIN(slash - path, 1000), path);

	if (n < 0 || (size_t)n >= sizeof(directory)) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "the name of its directory is too long");
	}
	if (statvfs(directory, &fs) < 0) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
				 "how much room is beside it is not known: %s",
				 strerror(errno));
	}
	all = (uint64_t)fs.f_blocks * fs.f_frsize;
	free = (uint64_t)fs.f_bavail * fs.f_frsize;
	reserve = room_reserve(all);
	*ret = free > reserve ? free - reserve : 0;
	return 0;
}

int room_limit(uint64_t bytes, struct rlimit *ret_before, struct gclk_error *reterr)
{
	struct rlimit to;

	if (getrlimit(RLIMIT_FSIZE, ret_before) == 0) {
		to = *ret_before;
		to.rlim_cur = GCLK_MIN((rlim_t)bytes, to.rlim_cur);
		signal(SIGXFSZ, SIG_IGN); /* an error says more */
		if (setrlimit(RLIMIT_FSIZE, &to) == 0) {
			return 0;
		}
	}
	return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
			 "the size of files cannot be limited: %s", strerror(errno));
}

void room_unlimit(const struct rlimit *before)
{
	setrlimit(RLIMIT_FSIZE, before);
	signal(SIGXFSZ, SIG_DFL);
}
