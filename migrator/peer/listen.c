/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/error.h"
#include "migrator/peer/link.h"
#include "migrator/peer/server.h"

/* What somebody left behind goes; what somebody listens on stays. */
static int make_room(const char *path, struct gclk_error *reterr)
{
	struct link other;
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		return 0; /* bind() tells */
	}
	if (link_dial_unix(path, 100, &other, NULL) == 0) {
		link_close(&other);
		return gclk_fail(reterr, GCLK_STATE, path, GCLK_NO_OFFSET,
				 "the socket is in use");
	}
	unlink(path);
	return 0;
}

/*
 * Where others may make files, a link may have that name by now: what is opened must be the
 * socket that was made, and it is changed by its descriptor.
 */
int listen_own(const char *path, mode_t mode, gid_t group, struct gclk_error *reterr)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), r = 0;
	char self[32];
	struct stat st;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fd >= 0 && fstat(fd, &st) == 0 &&
	    (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())) {
		r = gclk_fail(reterr, GCLK_REFUSED, path, GCLK_NO_OFFSET,
			      "somebody has put something else in the place of the socket");
	} else if (fd < 0 || chmod(self, mode) < 0 ||
		   (group != (gid_t)-1 &&
		    fchownat(fd, "", (uid_t)-1, group, AT_EMPTY_PATH) < 0)) {
		r = gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "no socket: %s",
			      strerror(errno));
	}
	if (fd >= 0) {
		close(fd);
	}
	return r;
}

int listen_unix(const char *path, mode_t mode, gid_t group, int *ret,
		struct gclk_error *reterr)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "the path of a socket has at most 107 characters");
	}
	r = make_room(path, reterr);
	if (r < 0) {
		return r;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* nobody gets in before its mode is right: there is no listen() yet */
	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		r = listen_own(path, mode, group, reterr);
		if (r == 0 && listen(fd, 64) == 0) {
			*ret = fd;
			return 0;
		}
	}
	r = r < 0 ? r : gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "no socket: %s",
				  strerror(errno));
	if (fd >= 0) {
		close(fd);
	}
	return r;
}

int listen_loopback(const char *address, int *ret, struct gclk_error *reterr)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	const char *colon = strrchr(address, ':');
	int port = colon ? atoi(colon + 1) : 0;
	bool is_v6 = !strncmp(address, "[::1]:", 6);
	int on = 1, fd, r;

	if (port <= 0 || port > 65535 || (!is_v6 && strncmp(address, "127.0.0.1:", 10))) {
		return gclk_fail(reterr, GCLK_MALFORMED, address, GCLK_NO_OFFSET,
				 "no port of 127.0.0.1 or [::1]");
	}
	v4.sin_port = v6.sin6_port = htons((uint16_t)port);
	fd = socket(is_v6 ? AF_INET6 : AF_INET,
		    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	}
	if (fd >= 0 &&
	    bind(fd, is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4,
		 is_v6 ? sizeof(v6) : sizeof(v4)) == 0 &&
	    listen(fd, 16) == 0) {
		*ret = fd;
		return 0;
	}
	r = gclk_fail(reterr, GCLK_SYS, address, GCLK_NO_OFFSET, "no socket: %s",
		      strerror(errno));
	if (fd >= 0) {
		close(fd);
	}
	return r;
}
