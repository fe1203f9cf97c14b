/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/time.h"
#include "migrator/hook/running.h"

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

bool running_wait(const char *directory, const char *domain, const struct wall_line *line,
		  int64_t limit_ns, int64_t *ret_seen_ns)
{
	const struct timespec nap = { 0, GCLK_NS_PER_MS };
	struct stat st, last = { 0 };
	char path[512];
	int64_t end_ns = wall_line_ns(line) + limit_ns;

	snprintf(path, sizeof(path), "%s/%s.xml", directory ? directory : STATUS_DIR, domain);
	while (wall_line_ns(line) < end_ns) {
		/* it is replaced, never changed */
		if (stat(path, &st) == 0 && st.st_ino != last.st_ino) {
			last = st;
			if (says_running(path)) {
				*ret_seen_ns = wall_line_ns(line);	/* by now it does */
				return true;
			}
		}
		nanosleep(&nap, NULL);
	}
	return false;
}
