/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/time.h"
#include "migrator/hook/running.h"
#include "migrator/situation.h"

/* <domstatus state='running' ...> stands at the beginning, behind a comment. */
static bool says_running(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *status;

	if (fd >= 0) {
		close(fd);
	}
	if (n <= 0) {
		return false;
	}
	text[n] = 0;
	status = strstr(text, "<domstatus ");
	return status && !strncmp(status + 11, "state='running'", 15);
}

bool running_wait(const char *directory, const char *domain, int64_t limit_ns,
		  int64_t *ret_seen_ns)
{
	const struct timespec nap = { 0, GCLK_NS_PER_MS };
	struct stat st, last = { 0 };
	char path[512];
	int64_t end_ns = wall_clock_ns() + limit_ns, now_ns;

	snprintf(path, sizeof(path), "%s/%s.xml", directory ? directory : STATUS_DIR, domain);
	while ((now_ns = wall_clock_ns()) < end_ns) {
		/* it is replaced, never changed */
		if (stat(path, &st) == 0 && st.st_ino != last.st_ino) {
			last = st;
			if (says_running(path)) {
				*ret_seen_ns = now_ns;
				return true;
			}
		}
		nanosleep(&nap, NULL);
	}
	return false;
}
