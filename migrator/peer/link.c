/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/link.h"

#define CHILD_WAIT_MS 2000

int64_t clock_mono_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
}

void link_none(struct link *link)
{
	*link = (struct link){ .in = -1, .out = -1, .ended = true, .shut = true };
}

void link_init(struct link *link, int in, int out, const char *name)
{
	*link = (struct link){ .in = in,
			       .out = out,
			       .read_needs = POLLIN,
			       .write_needs = POLLOUT,
			       .opened_ns = boot_clock_ns() };
	snprintf(link->name, sizeof(link->name), "%s", name);
	fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
	fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);
}

static int poll_until(int fd, short events, int64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = { fd, events, 0 };
		int64_t left = deadline_ns - clock_mono_ns();
		struct timespec t = { left / GCLK_NS_PER_S, left % GCLK_NS_PER_S };
		int n;

		if (left <= 0) {
			return 0;
		}
		n = ppoll(&p, 1, &t, NULL);
		if (n > 0) {
			return 1;
		}
		if (n < 0 && errno != EINTR) {
			return 1; /* the next read or write says what is wrong */
		}
	}
}

int link_wait(const struct link *link, bool to_write, int64_t deadline_ns)
{
	short needs = to_write ? link->write_needs : link->read_needs;

	return poll_until(needs == POLLOUT ? link->out : link->in, needs, deadline_ns);
}

/* ---- dialling ---- */

/* A connect that may take its time. Returns 0 or an errno. */
static int connect_until(int fd, const struct sockaddr *address, socklen_t n,
			 int64_t deadline_ns)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (connect(fd, address, n) == 0) {
		return 0;
	}
	if (errno == EAGAIN) { /* a UNIX socket whose queue is full */
		return EAGAIN;
	}
	if (errno != EINPROGRESS) {
		return errno;
	}
	if (!poll_until(fd, POLLOUT, deadline_ns)) {
		return ETIMEDOUT;
	}
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

static int fail_dial(struct gclk_error *reterr, int error, const char *where)
{
	errno = error;
	return gclk_fail(reterr, GCLK_SYS, where, GCLK_NO_OFFSET, "no connection: %s",
			 strerror(error));
}

int link_dial_unix(const char *path, int timeout_ms, struct link *ret,
		   struct gclk_error *reterr)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t deadline = clock_mono_ns() + timeout_ms * GCLK_NS_PER_MS;
	struct timespec pause = { 0, 5 * GCLK_NS_PER_MS };
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return fail_dial(reterr, ENAMETOOLONG, path);
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return fail_dial(reterr, errno, path);
	}
	do {
		error = connect_until(fd, (struct sockaddr *)&address, sizeof(address),
				      deadline);
	} while (error == EAGAIN && clock_mono_ns() < deadline &&
		 nanosleep(&pause, NULL) == 0);
	if (error) {
		close(fd);
		return fail_dial(reterr, error, path);
	}
	link_init(ret, fd, fd, path);
	return 0;
}

int link_dial_named(const char *path, int timeout_ms, struct link *ret,
		    struct gclk_error *reterr)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), r;
	char self[32];
	struct stat st;

	if (fd < 0) {
		return fail_dial(reterr, errno, path);
	}
	if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		close(fd);
		return gclk_fail(reterr, GCLK_REFUSED, path, GCLK_NO_OFFSET,
				 "what stands there is no socket");
	}
	/* the socket that was looked at, whatever has its name by now */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	r = link_dial_unix(self, timeout_ms, ret, reterr);
	close(fd);
	if (r == 0) {
		snprintf(ret->name, sizeof(ret->name), "%s", path);
	} else if (reterr) {
		gclk_text_copy(reterr->where, sizeof(reterr->where), path);
	}
	return r;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT". */
static int split_host(const char *text, char host[256], char port[32])
{
	size_t n;
	const char *rest;

	if (text[0] == '[') {
		text++;
		n = strcspn(text, "]");
		if (text[n] != ']') {
			return -1;
		}
		rest = text + n + 1;
	} else {
		n = strcspn(text, ":");
		rest = text + n;
	}
	if (n == 0 || n >= 256 || (*rest && *rest != ':') || strlen(rest) > 31 ||
	    (*rest && !rest[1])) {
		return -1;
	}
	snprintf(host, 256, "%.*s", (int)n, text);
	snprintf(port, 32, "%s", *rest ? rest + 1 : LINK_PORT);
	return 0;
}

static int dial_tcp(const char *host, const char *port, int64_t deadline_ns, int *ret,
		    struct gclk_error *reterr)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *all, *one;
	int error = getaddrinfo(host, port, &hints, &all);
	int fd = -1, on = 1;

	if (error) {
		errno = error == EAI_SYSTEM ? errno : 0;
		return gclk_fail(reterr, GCLK_SYS, host, GCLK_NO_OFFSET, "%s",
				 gai_strerror(error));
	}
	error = EHOSTUNREACH;
	for (one = all; one && error; one = one->ai_next) {
		fd = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			    0);
		error = fd < 0 ? errno
			       : connect_until(fd, one->ai_addr, one->ai_addrlen,
					       deadline_ns);
		if (error && fd >= 0) {
			close(fd);
		}
	}
	freeaddrinfo(all);
	if (error) {
		return fail_dial(reterr, error, host);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	*ret = fd;
	return 0;
}

static int dial_tls(const char *text, const struct peer_tls *files, int64_t deadline_ns,
		    struct link *ret, struct gclk_error *reterr)
{
	struct tls_identity *identity;
	struct tls *tls = NULL;
	char host[256], port[32];
	int fd = -1, r;

	if (split_host(text, host, port) < 0) {
		return gclk_fail(reterr, GCLK_USAGE, text, GCLK_NO_OFFSET,
				 "no HOST[:PORT] in an address");
	}
	r = tls_identity_new(files, false, &identity, reterr);
	if (r < 0) {
		return r;
	}
	r = dial_tcp(host, port, deadline_ns, &fd, reterr);
	if (r == 0) {
		r = tls_start(identity, fd,
			      files->name && *files->name ? files->name : host,
			      deadline_ns, &tls, reterr);
	}
	tls_identity_free(identity);
	if (r < 0) {
		if (fd >= 0) {
			close(fd);
		}
		return r;
	}
	link_init(ret, fd, fd, text);
	ret->tls = tls;
	return 0;
}

/*
 * A child of ours, whose standard input and output are one socket. ^C at the terminal is
 * for us alone: it must not cut the connection of a move that is nearly done.
 */
static int dial_exec(const char *command, struct link *ret, struct gclk_error *reterr)
{
	char *argv[] = { (char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
			 (char *)(uintptr_t)command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t mask, defaults;
	pid_t child;
	int fds[2], error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		return fail_dial(reterr, errno, command);
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGQUIT);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGTERM);
	sigaddset(&defaults, SIGHUP);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes,
				 POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &mask);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 0);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	error = posix_spawn(&child, "/bin/sh", &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	close(fds[1]);
	if (error) {
		close(fds[0]);
		return fail_dial(reterr, error, command);
	}
	link_init(ret, fds[0], fds[0], command);
	ret->child = child;
	return 0;
}

int link_check_address(const char *address, struct gclk_error *reterr)
{
	char host[256], port[32];

	if ((!strncmp(address, "unix:", 5) && address[5]) ||
	    (!strncmp(address, "exec:", 5) && address[5]) ||
	    (!strncmp(address, "tls:", 4) && split_host(address + 4, host, port) == 0)) {
		return 0;
	}
	return gclk_fail(reterr, GCLK_USAGE, address, GCLK_NO_OFFSET,
			 "an address is unix:PATH, tls:HOST[:PORT] or exec:COMMAND");
}

/*
 * Who listens gets the guest's memory. The other ways prove who that is; of a socket in a
 * directory where others may make some, too, the name proves nothing.
 */
static int check_listener(struct link *link, struct gclk_error *reterr)
{
	struct ucred user = { .uid = (uid_t)-1 };
	socklen_t n = sizeof(user);

	if (getsockopt(link->in, SOL_SOCKET, SO_PEERCRED, &user, &n) == 0 &&
	    (user.uid == 0 || user.uid == geteuid())) {
		return 0;
	}
	gclk_fail(reterr, GCLK_REFUSED, link->name, GCLK_NO_OFFSET,
		  "user %u listens there, who is neither root nor you", user.uid);
	link_close(link);
	return -GCLK_REFUSED;
}

int link_dial(const char *address, const struct peer_tls *tls, int timeout_ms,
	      struct link *ret, struct gclk_error *reterr)
{
	int r = link_check_address(address, reterr);

	if (r < 0) {
		return r;
	}
	if (address[0] == 'u') {
		r = link_dial_unix(address + 5, timeout_ms, ret, reterr);
		return r < 0 ? r : check_listener(ret, reterr);
	}
	if (address[0] == 'e') {
		return dial_exec(address + 5, ret, reterr);
	}
	return dial_tls(address + 4, tls, clock_mono_ns() + timeout_ms * GCLK_NS_PER_MS,
			ret, reterr);
}

/* ---- bytes ---- */

static int fail_broken(const struct link *link, int error, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_PEER, link->name, GCLK_NO_OFFSET,
			 "the connection broke: %s", strerror(error));
}

long link_read(struct link *link, void *to, size_t n, struct gclk_error *reterr)
{
	ssize_t got;

	if (link->ended) {
		return 0;
	}
	link->read_needs = POLLIN;
	if (link->tls) {
		long r = tls_read(link->tls, to, n, &link->read_needs, reterr);

		link->ended = r == 0;
		return r;
	}
	do {
		got = read(link->in, to, n);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return errno == EAGAIN ? LINK_WAIT : fail_broken(link, errno, reterr);
	}
	link->ended = got == 0;
	return got;
}

long link_write(struct link *link, const void *from, size_t n, struct gclk_error *reterr)
{
	ssize_t gone;

	if (link->shut) {
		return fail_broken(link, EPIPE, reterr);
	}
	link->write_needs = POLLOUT;
	if (link->tls) {
		return tls_write(link->tls, from, n, &link->write_needs, reterr);
	}
	do {
		gone = link->in == link->out ? send(link->out, from, n, MSG_NOSIGNAL)
					     : write(link->out, from, n);
	} while (gone < 0 && errno == EINTR);
	if (gone < 0) {
		return errno == EAGAIN ? LINK_WAIT : fail_broken(link, errno, reterr);
	}
	return gone;
}

int link_shut(struct link *link)
{
	if (link->shut) {
		return 0;
	}
	if (link->tls) {
		int r = tls_shut(link->tls);

		link->shut = r == 0;
		link->write_needs = POLLOUT;
		return r;
	}
	link->shut = true;
	if (link->in == link->out) {
		shutdown(link->out, SHUT_WR);
	} else {
		close(link->out);
		link->out = -1;
	}
	return 0;
}

bool link_pending(const struct link *link)
{
	return link->tls && !link->ended && tls_pending(link->tls);
}

bool link_is_healthy(struct link *link)
{
	struct pollfd p[2] = { { link->in, POLLIN, 0 }, { link->out, 0, 0 } };
	char byte;

	if (link->in < 0 || link->out < 0 || link->ended || link->shut) {
		return false;
	}
	poll(p, 2, 0);
	if (p[1].revents & (POLLERR | POLLHUP | POLLNVAL) ||
	    p[0].revents & (POLLERR | POLLNVAL)) {
		return false;
	}
	if (link->tls) {
		return tls_is_healthy(link->tls);
	}
	if (link->in != link->out) { /* a pipe: with bytes in it, it is not at its end */
		return !(p[0].revents & POLLHUP) || (p[0].revents & POLLIN);
	}
	return !(p[0].revents & POLLIN) ||
	       recv(link->in, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

static void end_child(pid_t child)
{
	struct timespec pause = { 0, 10 * GCLK_NS_PER_MS };

	for (int i = 0; i < CHILD_WAIT_MS / 10; i++) {
		if (waitpid(child, NULL, WNOHANG) != 0) {
			return;
		}
		nanosleep(&pause, NULL);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

void link_close(struct link *link)
{
	tls_free(link->tls);
	if (link->in >= 0) {
		close(link->in);
	}
	if (link->out >= 0 && link->out != link->in) {
		close(link->out);
	}
	if (link->child > 0) {
		end_child(link->child);
	}
	link_none(link);
}
