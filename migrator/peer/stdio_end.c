/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/port.h"
#include "migrator/peer/relay.h"
#include "migrator/peer/server.h"
#include "migrator/peer/stdio_end.h"

#define CONNECTIONS_MAX 64
#define DRAIN_NS (5 * GCLK_NS_PER_S)
#define MEET_MS 5000
#define LEFT_S 60

struct inner_end {
	struct destination_end *end;
	struct server *server;
	pthread_t thread;
	bool running;
	int wake;
	char directory[96]; /* made here; "": none */
};

/* Where only this user can make and find sockets. */
static void meeting_place(char to[64])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0) {
		snprintf(to, 64, "/run");
	} else if (runtime && runtime[0] == '/' && strlen(runtime) < 40) {
		snprintf(to, 64, "%s", runtime);
	} else {
		snprintf(to, 64, "/tmp");
	}
}

/* A directory of this user alone, or none. */
static int meeting_directory(char to[96], struct gclk_error *reterr)
{
	char place[64];
	struct stat st;

	meeting_place(place);
	snprintf(to, 96, "%s/guestclock-ends-%u", place, (unsigned)geteuid());
	if (mkdir(to, 0700) < 0 && errno != EEXIST) {
		return gclk_fail(reterr, GCLK_SYS, to, GCLK_NO_OFFSET, "no directory: %s",
				 strerror(errno));
	}
	if (lstat(to, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    st.st_mode & 077) {
		return gclk_fail(reterr, GCLK_STATE, to, GCLK_NO_OFFSET,
				 "it is not this user's own directory");
	}
	return 0;
}

static bool is_session(const char *name)
{
	return strlen(name) == 2 * WIRE_SESSION_BYTES &&
	       strspn(name, "0123456789abcdef") == 2 * WIRE_SESSION_BYTES;
}

/* Nobody listens there. One that is being made does not yet: it is younger. */
static bool is_left_behind(const char *path)
{
	struct timespec now;
	struct link other;
	struct gclk_error error;
	struct stat st;

	clock_gettime(CLOCK_REALTIME, &now);
	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
	    (now.tv_sec - st.st_mtim.tv_sec < LEFT_S && now.tv_sec >= st.st_mtim.tv_sec)) {
		return false;
	}
	if (link_dial_unix(path, 100, &other, &error) == 0) {
		link_close(&other);
		return false;
	}
	return error.sys_errno == ECONNREFUSED;
}

/* An end that was killed could not remove its socket. */
static void sweep_meetings(void)
{
	char directory[96], path[96 + 256];
	struct dirent *entry;
	DIR *dir;

	if (meeting_directory(directory, NULL) < 0 || !(dir = opendir(directory))) {
		return;
	}
	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (is_session(entry->d_name) && is_left_behind(path)) {
			unlink(path);
		}
	}
	closedir(dir);
}

static int meeting_socket(const uint8_t session[WIRE_SESSION_BYTES], char to[160],
			  struct gclk_error *reterr)
{
	char directory[96];
	int r = meeting_directory(directory, reterr);
	int n;

	if (r < 0) {
		return r;
	}
	n = snprintf(to, 160, "%s/", directory);
	for (unsigned i = 0; i < WIRE_SESSION_BYTES; i++) {
		n += snprintf(to + n, 160 - (size_t)n, "%02x", session[i]);
	}
	return 0;
}

/* ---- a server in a thread of its own ---- */

static void *inner_run(void *arg)
{
	struct inner_end *inner = arg;

	server_run(inner->server, inner->wake, NULL);
	return NULL;
}

static int inner_start(struct inner_end *inner, const struct destination_options *options,
		       const char *path, struct gclk_error *reterr)
{
	const struct server_access access = { 0 };
	int r = destination_end_new(options, &inner->end, reterr);

	inner->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r == 0) {
		r = server_new(inner->end, CONNECTIONS_MAX, &access, &inner->server,
			       reterr);
	}
	if (r == 0) {
		r = server_listen_unix(inner->server, path, 0600, (gid_t)-1, reterr);
	}
	if (r == 0 && (inner->wake < 0 ||
		       pthread_create(&inner->thread, NULL, inner_run, inner) != 0)) {
		r = gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "no thread");
	}
	inner->running = r == 0;
	return r;
}

static void inner_stop(struct inner_end *inner)
{
	uint64_t one = 1;

	if (inner->running && write(inner->wake, &one, sizeof(one)) > 0) {
		pthread_join(inner->thread, NULL);
	}
	if (inner->end) {
		destination_end_stop(inner->end, "this end is being closed");
	}
	if (inner->server && server_drain(inner->server, clock_mono_ns() + DRAIN_NS)) {
		server_free(inner->server);
		destination_end_free(inner->end);
	} else if (!inner->server) {
		destination_end_free(inner->end);
	}
	if (inner->wake >= 0) {
		close(inner->wake);
	}
}

int inner_end_open(const struct destination_options *options, struct inner_end **ret,
		   char ret_address[128], struct gclk_error *reterr)
{
	struct inner_end *inner = calloc(1, sizeof(*inner));
	char place[64], path[120];
	int r = 0;

	if (!inner) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	inner->wake = -1;
	meeting_place(place);
	snprintf(inner->directory, sizeof(inner->directory), "%s/guestclock-XXXXXX",
		 place);
	if (!mkdtemp(inner->directory)) {
		r = gclk_fail(reterr, GCLK_SYS, inner->directory, GCLK_NO_OFFSET,
			      "no directory: %s", strerror(errno));
		inner->directory[0] = 0;
	}
	snprintf(path, sizeof(path), "%s/end", inner->directory);
	if (r == 0) {
		r = inner_start(inner, options, path, reterr);
	}
	if (r < 0) {
		inner_end_close(inner);
		return r;
	}
	snprintf(ret_address, 128, "unix:%s", path);
	*ret = inner;
	return 0;
}

struct inner_end *inner_end_close(struct inner_end *inner)
{
	if (inner) {
		inner_stop(inner);
		if (inner->directory[0]) {
			rmdir(inner->directory);
		}
		free(inner);
	}
	return NULL;
}

/* ---- on standard input and output ---- */

static int run_control(const struct destination_options *options, struct port *port,
		       const struct wire_hello *hello, struct gclk_error *reterr)
{
	struct inner_end inner = { .wake = -1 };
	char path[160];
	int r = meeting_socket(hello->session, path, reterr);

	sweep_meetings();
	if (r == 0) {
		r = inner_start(&inner, options, path, reterr);
	}
	if (r < 0) {
		port_sorry(port, reterr);
	} else {
		r = destination_end_serve_hello(inner.end, port, hello, reterr);
	}
	inner_stop(&inner);
	return r;
}

static int run_channel(struct port *port, const struct wire_message *hello,
		       struct gclk_error *reterr)
{
	struct port other;
	struct link a, b;
	struct relay relay = { .a = &a, .b = &b, .wake = -1 };
	char path[160];
	int r = meeting_socket(hello->hello.session, path, reterr);

	if (r == 0) {
		r = link_dial_unix(path, MEET_MS, &b, reterr);
	}
	if (r < 0) {
		port_sorry(port, reterr);
		return r;
	}
	port_init(&other, &b);
	r = port_send(&other, hello, NULL, reterr);
	port_give(&other, &b);
	if (r == 0) {
		port_give(port, &a);
		r = relay_run(&relay, reterr);
		link_close(&a);
	}
	link_close(&b);
	return r;
}

int stdio_end_run(const struct destination_options *options, int in, int out,
		  struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	struct wire_message m;
	struct link link;
	struct port port;
	int r;

	link_init(&link, in, out, "standard input");
	port_init(&port, &link);
	port.reader.worker = options->worker;
	r = port_receive(&port, &m, clock_mono_ns() + options->hello_ms * GCLK_NS_PER_MS,
			 -1, &error);
	if (r == LINK_WAIT) {
		r = gclk_fail(&error, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			      "no hello came in time");
	} else if (r == 0) {
		r = m.type != WIRE_HELLO ? port_refusal(&m, &error)
		    : m.hello.role == WIRE_CONTROL
			    ? run_control(options, &port, &m.hello, &error)
			    : run_channel(&port, &m, &error);
		wire_clear(&m);
	}
	if (port.link.in >= 0) {
		port_close(&port);
	}
	if (r < 0 && reterr) {
		*reterr = error;
	}
	return r;
}
