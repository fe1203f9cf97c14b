/* SPDX-License-Identifier: MIT */
/* Which sockets a source can have dialled at the destination, and which it dials itself. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "gclk-test.h"
#include "migrator/peer/destination_end.h"
#include "migrator/peer/port.h"
#include "migrator/peer/server.h"
#include "migrator/peer/source_end.h"
#include "migrator/situation.h"

enum { ALLOWED, ELSEWHERE, N_PLACES };

struct stage {
	char top[32];
	char places[N_PLACES][48];
	int listeners[N_PLACES];	/* of the socket "s" in each */
	struct destination_end *end;
	int64_t age_ns;			/* of connections that are made from now on */
	pthread_t threads[8];
	unsigned n_threads;
};

struct serving {
	struct destination_end *end;
	struct link link;
};

static void *serving(void *arg)
{
	struct serving *s = arg;

	destination_end_serve(s->end, &s->link, NULL);
	free(s);
	return NULL;
}

static int listen_in(const char *directory)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/s", directory);
	CU_ASSERT_FATAL(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
			listen(fd, 4) == 0);
	return fd;
}

static void stage_open(struct stage *s)
{
	static const char *const names[N_PLACES] = { "allowed", "elsewhere" };
	struct destination_options options;

	memset(s, 0, sizeof(*s));
	strcpy(s->top, "/tmp/gclk-destination-XXXXXX");
	CU_ASSERT_FATAL(mkdtemp(s->top) != NULL);
	for (unsigned i = 0; i < N_PLACES; i++) {
		snprintf(s->places[i], sizeof(s->places[i]), "%s/%s", s->top, names[i]);
		CU_ASSERT_FATAL(mkdir(s->places[i], 0700) == 0);
		s->listeners[i] = listen_in(s->places[i]);
	}
	destination_options_init(&options);
	gclk_text_copy(options.directories[0], sizeof(options.directories[0]),
		       s->places[ALLOWED]);
	options.dial_ms = 200;
	CU_ASSERT_FATAL(destination_end_new(&options, &s->end, NULL) == 0);
}

static void in_top(const struct stage *s, const char *name, char to[96])
{
	snprintf(to, 96, "%s/%s", s->top, name);
}

static void stage_close(struct stage *s)
{
	static const char *const rest[] = { "link", "allowed/s", "allowed/link", "allowed/file",
					    "elsewhere/s" };
	char path[96];

	for (unsigned i = 0; i < s->n_threads; i++) {
		pthread_join(s->threads[i], NULL);
	}
	destination_end_free(s->end);
	for (unsigned i = 0; i < GCLK_COUNT(rest); i++) {
		in_top(s, rest[i], path);
		unlink(path);
	}
	for (unsigned i = 0; i < N_PLACES; i++) {
		close(s->listeners[i]);
		rmdir(s->places[i]);
	}
	rmdir(s->top);
}

/* A connection of the source's, and the hello on it. */
static void say_hello(struct stage *s, const struct wire_message *hello, struct port *ret)
{
	struct serving *there = malloc(sizeof(*there));
	struct link here;
	int fds[2];

	CU_ASSERT_FATAL(there && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	there->end = s->end;
	link_init(&there->link, fds[0], fds[0], "source");
	there->link.opened_ns -= s->age_ns;
	link_init(&here, fds[1], fds[1], "destination");
	port_init(ret, &here);
	CU_ASSERT_FATAL(pthread_create(&s->threads[s->n_threads++], NULL, serving, there) == 0);
	CU_ASSERT_FATAL(port_send(ret, hello, NULL, NULL) == 0);
}

/* Opens a session that names @path for storage; whether it was let in. */
static bool open_control(struct stage *s, const char *path, struct port *ret)
{
	struct wire_message m = { .type = WIRE_HELLO };
	int64_t deadline = clock_mono_ns() + 5 * GCLK_NS_PER_S;
	bool welcome;

	m.hello.version_min = m.hello.version_max = 1;
	m.hello.role = WIRE_CONTROL;
	m.hello.session[0] = 7;
	m.hello.move.running = -1;
	m.hello.move.policy = gclk_policy_default;
	gclk_text_copy(m.hello.move.main_path, sizeof(m.hello.move.main_path), path);
	gclk_text_copy(m.hello.move.storage_path, sizeof(m.hello.move.storage_path), path);
	CU_ASSERT_FATAL(read_this_host(&m.hello.move.host, NULL) == 0);
	say_hello(s, &m, ret);
	CU_ASSERT_FATAL(port_receive(ret, &m, deadline, -1, NULL) == 0);
	welcome = m.type == WIRE_WELCOME;
	wire_clear(&m);
	return welcome;
}

/* Then a channel for it: which of the listening sockets was dialled, or -1. */
static int dialled(struct stage *s)
{
	struct wire_message m = { .type = WIRE_HELLO };
	int64_t deadline = clock_mono_ns() + 5 * GCLK_NS_PER_S;
	struct port channel;
	int which = -1;

	m.hello.version_min = m.hello.version_max = 1;
	m.hello.role = WIRE_STORAGE;
	m.hello.session[0] = 7;
	say_hello(s, &m, &channel);
	CU_ASSERT_FATAL(port_receive(&channel, &m, deadline, -1, NULL) == 0);
	wire_clear(&m);
	for (int i = 0; i < N_PLACES; i++) {
		struct pollfd p = { s->listeners[i], POLLIN, 0 };

		which = poll(&p, 1, 0) > 0 ? i : which;
	}
	port_close(&channel);
	return which;
}

static int ask_for(struct stage *s, const char *path)
{
	struct port control;
	int which = open_control(s, path, &control) ? dialled(s) : -1;

	port_close(&control);
	return which;
}

GCLK_TEST(destination, a_socket_in_its_directory_is_dialled)
{
	struct stage s;
	char path[96];

	stage_open(&s);
	in_top(&s, "allowed/s", path);
	GCLK_EQ(ask_for(&s, path), ALLOWED);
	stage_close(&s);
}

GCLK_TEST(destination, one_elsewhere_is_not)
{
	struct stage s;
	char path[96];

	stage_open(&s);
	in_top(&s, "elsewhere/s", path);
	GCLK_EQ(ask_for(&s, path), -1);
	stage_close(&s);
}

/* Whoever may make sockets in the directory may make links there, too. */
GCLK_TEST(destination, nor_one_that_a_link_in_the_directory_leads_to)
{
	struct stage s;
	char path[96], to[96];

	stage_open(&s);
	in_top(&s, "allowed/link", path);
	in_top(&s, "elsewhere/s", to);
	CU_ASSERT_FATAL(symlink(to, path) == 0);
	GCLK_EQ(ask_for(&s, path), -1);
	stage_close(&s);
}

GCLK_TEST(destination, nor_what_is_no_socket)
{
	struct stage s;
	char path[96];
	FILE *file;

	stage_open(&s);
	in_top(&s, "allowed/file", path);
	file = fopen(path, "w");
	CU_ASSERT_FATAL(file != NULL);
	fclose(file);
	GCLK_EQ(ask_for(&s, path), -1);
	stage_close(&s);
}

/* It led into the directory when it was looked at. */
GCLK_TEST(destination, a_way_that_has_changed_since_is_not_gone_again)
{
	struct port control;
	struct stage s;
	char path[96], link[96];

	stage_open(&s);
	in_top(&s, "link", link);
	in_top(&s, "link/s", path);
	CU_ASSERT_FATAL(symlink(s.places[ALLOWED], link) == 0);
	CU_ASSERT_FATAL(open_control(&s, path, &control));
	CU_ASSERT_FATAL(unlink(link) == 0 && symlink(s.places[ELSEWHERE], link) == 0);
	GCLK_EQ(dialled(&s), ALLOWED);
	port_close(&control);
	stage_close(&s);
}

/* ---- whose socket it is ---- */

#define UUID "3f6a1c80-52d7-4d0c-9a55-0d9c6f1e7b21"

/* What libvirt would say. */
static struct {
	int answer;
	pid_t pid;	/* that was asked for */
	bool awaited;
	unsigned n;
} asked;

static int check(void *ctx, const char *uuid, pid_t pid, bool awaited, struct gclk_error *reterr)
{
	(void)ctx;
	CU_ASSERT_STRING_EQUAL(uuid, UUID);
	asked.pid = pid;
	asked.awaited = awaited;
	asked.n++;
	return asked.answer < 0 ? gclk_fail(reterr, (enum gclk_status)-asked.answer, NULL,
					    GCLK_NO_OFFSET, "it is another's") :
				  asked.answer;
}

static int open_resume(void *ctx, const char *uuid, void **ret, struct gclk_error *reterr)
{
	(void)uuid;
	(void)reterr;
	*ret = ctx;
	return 0;
}

static int never(void *resume, const struct wall_line *line, pid_t pid, int64_t run_ns,
		 int64_t give_up_ns, struct destination_ran *ret, struct gclk_error *reterr)
{
	(void)resume;
	(void)line;
	(void)pid;
	(void)run_ns;
	(void)give_up_ns;
	(void)ret;
	return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "never");
}

static int never_watch(void *resume, const struct wall_line *line, int64_t give_up_ns,
		       struct destination_ran *ret, struct gclk_error *reterr)
{
	return never(resume, line, 0, 0, give_up_ns, ret, reterr);
}

static uint64_t not_slow(void *resume)
{
	(void)resume;
	return 0;
}

static void close_resume(void *resume)
{
	(void)resume;
}

/* The status that a channel of @role gets which asks for the guest's socket. */
static uint32_t ask_for_guest(const char *verb, uint8_t role, const char *own_path)
{
	static const struct destination_resume ops = { .check = check, .open = open_resume,
						       .slow_milli = not_slow,
						       .at = never, .watch = never_watch,
						       .close = close_resume };
	struct wire_message m = { .type = WIRE_HELLO };
	int64_t deadline = clock_mono_ns() + 5 * GCLK_NS_PER_S;
	struct destination_options options;
	struct port control, channel;
	struct stage s;
	uint32_t status;
	char path[96];

	stage_open(&s);
	destination_end_free(s.end);
	destination_options_init(&options);
	gclk_text_copy(options.directories[0], sizeof(options.directories[0]),
		       s.places[ALLOWED]);
	options.resume = &ops;
	in_top(&s, "allowed/s", path);
	if (own_path) {
		gclk_text_copy(options.main_path, sizeof(options.main_path), path);
	}
	CU_ASSERT_FATAL(destination_end_new(&options, &s.end, NULL) == 0);
	in_top(&s, "allowed/" UUID ".sock", m.hello.move.main_path);
	CU_ASSERT_FATAL(rename(path, m.hello.move.main_path) == 0);
	if (own_path) {
		CU_ASSERT_FATAL(link(m.hello.move.main_path, path) == 0);
	}
	m.hello.version_min = m.hello.version_max = 1;
	m.hello.role = WIRE_CONTROL;
	m.hello.move.running = -1;
	m.hello.move.policy = gclk_policy_default;
	m.hello.move.own_resume = !strcmp(verb, "resume");
	strcpy(m.hello.move.verb, m.hello.move.own_resume ? "" : verb);
	strcpy(m.hello.move.uuid, UUID);
	CU_ASSERT_FATAL(read_this_host(&m.hello.move.host, NULL) == 0);
	say_hello(&s, &m, &control);
	CU_ASSERT_FATAL(port_receive(&control, &m, deadline, -1, NULL) == 0);
	GCLK_EQ(m.type, WIRE_WELCOME);
	wire_clear(&m);
	m = (struct wire_message){ .type = WIRE_HELLO };
	m.hello.version_min = m.hello.version_max = 1;
	m.hello.role = role;
	say_hello(&s, &m, &channel);
	CU_ASSERT_FATAL(port_receive(&channel, &m, deadline, -1, NULL) == 0);
	status = m.type == WIRE_WELCOME ? 0 : m.sorry.status;
	wire_clear(&m);
	port_close(&channel);
	port_close(&control);
	in_top(&s, "allowed/" UUID ".sock", path);
	unlink(path);
	stage_close(&s);
	return status;
}

/* A socket of that name says nothing of who made it: another guest may have. */
GCLK_TEST(destination, the_socket_of_another_process_is_not_taken_for_the_guests)
{
	memset(&asked, 0, sizeof(asked));
	asked.answer = -GCLK_REFUSED;
	GCLK_EQ(ask_for_guest("resume", WIRE_MAIN, NULL), GCLK_REFUSED);
	GCLK_EQ(asked.n, 1);
	GCLK_EQ(asked.pid, getpid()); /* who listens here */
	CU_ASSERT(asked.awaited);
	GCLK_EQ(ask_for_guest("resume", WIRE_SIDE, NULL), GCLK_REFUSED);
	GCLK_EQ(ask_for_guest("migrate", WIRE_MAIN, NULL), GCLK_REFUSED);
	asked.answer = 0;
	GCLK_EQ(ask_for_guest("resume", WIRE_MAIN, NULL), 0);
	asked.answer = 1; /* nobody knows whose it is */
	GCLK_EQ(ask_for_guest("resume", WIRE_MAIN, NULL), 0);
}

/* Other orchestrators may have put something of theirs there. */
GCLK_TEST(destination, it_is_where_somebody_else_manages_the_guest)
{
	memset(&asked, 0, sizeof(asked));
	asked.answer = -GCLK_REFUSED;
	GCLK_EQ(ask_for_guest("proxy", WIRE_MAIN, NULL), 0);
	GCLK_EQ(asked.pid, getpid());
	CU_ASSERT(!asked.awaited);
}

GCLK_TEST(destination, nor_where_this_end_was_told_the_path)
{
	memset(&asked, 0, sizeof(asked));
	GCLK_EQ(ask_for_guest("resume", WIRE_MAIN, "s"), 0);
	GCLK_EQ(asked.pid, -1);
	CU_ASSERT(asked.awaited); /* but that it arrives is asked */
}

/* ---- whose guest ---- */

#define OTHER "11111111-1111-4111-8111-111111111111"

/* A session for a guest; the status that it gets, 0: welcome. Its connection stays open. */
static uint32_t begin(struct stage *s, uint8_t id, const char *uuid, const char *name,
		      struct port *ret)
{
	struct wire_message m = { .type = WIRE_HELLO };
	int64_t deadline = clock_mono_ns() + 5 * GCLK_NS_PER_S;
	uint32_t status;

	m.hello.version_min = m.hello.version_max = 1;
	m.hello.role = WIRE_CONTROL;
	m.hello.session[0] = id;
	m.hello.move.running = -1;
	m.hello.move.policy = gclk_policy_default;
	strcpy(m.hello.move.uuid, uuid);
	snprintf(m.hello.move.main_path, sizeof(m.hello.move.main_path), "%s/%s",
		 s->places[ALLOWED], name);
	CU_ASSERT_FATAL(read_this_host(&m.hello.move.host, NULL) == 0);
	say_hello(s, &m, ret);
	CU_ASSERT_FATAL(port_receive(ret, &m, deadline, -1, NULL) == 0);
	status = m.type == WIRE_WELCOME ? 0 : m.sorry.status;
	wire_clear(&m);
	return status;
}

static uint32_t begin_and_end(struct stage *s, const char *uuid, const char *name)
{
	struct port port;
	uint32_t status = begin(s, 1, uuid, name, &port);

	port_close(&port);
	return status;
}

/* Its disks, too, could be had by whoever names their socket. */
GCLK_TEST(destination, a_guest_has_its_own_sockets_alone)
{
	struct stage s;

	stage_open(&s);
	GCLK_EQ(begin_and_end(&s, UUID, UUID ".sock"), 0);
	GCLK_EQ(begin_and_end(&s, OTHER, UUID ".sock"), GCLK_REFUSED);
	GCLK_EQ(begin_and_end(&s, "", UUID ".nbd.sock"), GCLK_REFUSED);
	GCLK_EQ(begin_and_end(&s, "", "s"), 0);
	stage_close(&s);
}

GCLK_TEST(destination, and_comes_once_at_a_time)
{
	struct port first, second;
	struct stage s;

	stage_open(&s);
	GCLK_EQ(begin(&s, 1, UUID, UUID ".sock", &first), 0);
	GCLK_EQ(begin(&s, 2, UUID, UUID ".sock", &second), GCLK_REFUSED);
	port_close(&second);
	GCLK_EQ(begin(&s, 3, OTHER, OTHER ".sock", &second), 0);
	port_close(&second);
	port_close(&first);
	stage_close(&s);
}

GCLK_TEST(destination, what_the_daemon_listens_on_is_no_guests)
{
	struct destination_options options;
	struct stage s;

	stage_open(&s);
	destination_options_init(&options);
	gclk_text_copy(options.directories[0], sizeof(options.directories[0]),
		       s.places[ALLOWED]);
	in_top(&s, "allowed/s", options.own_paths[1]);
	destination_end_configure(s.end, &options);
	GCLK_EQ(begin_and_end(&s, "", "s"), GCLK_REFUSED);
	GCLK_EQ(begin_and_end(&s, "", "t"), 0);
	stage_close(&s);
}

/* Whoever may connect could take all places and never send anything. */
GCLK_TEST(destination, a_session_of_which_nothing_comes_gives_way)
{
	struct destination_options options;
	struct port idle, young, next;
	struct stage s;

	stage_open(&s);
	destination_options_init(&options);
	gclk_text_copy(options.directories[0], sizeof(options.directories[0]),
		       s.places[ALLOWED]);
	options.max_sessions = 1;
	destination_end_configure(s.end, &options);
	s.age_ns = 31 * GCLK_NS_PER_S;
	GCLK_EQ(begin(&s, 1, "", "s", &idle), 0);
	s.age_ns = 0;
	GCLK_EQ(begin(&s, 2, "", "s", &young), 0);
	GCLK_EQ(begin(&s, 3, "", "s", &next), GCLK_REFUSED); /* that one is in time */
	port_close(&next);
	port_close(&young);
	port_close(&idle);
	stage_close(&s);
}

/* ---- whom the source dials ---- */

#define STRANGER 65534

/* A process of that user, which listens until it is killed. */
static pid_t listen_as(uid_t uid, const char *directory)
{
	char ready = 0;
	int fds[2];
	pid_t child;

	CU_ASSERT_FATAL(pipe(fds) == 0);
	child = fork();
	if (child == 0) {
		if (setresuid(uid, uid, uid) == 0) {
			listen_in(directory);
			(void)!write(fds[1], &ready, 1);
		}
		pause();
		_exit(0);
	}
	CU_ASSERT_FATAL(child > 0 && read(fds[0], &ready, 1) == 1);
	close(fds[0]);
	close(fds[1]);
	return child;
}

static int dial_that_of(uid_t uid, struct gclk_error *reterr)
{
	char directory[] = "/tmp/gclk-listener-XXXXXX", address[64];
	struct link link;
	pid_t child;
	int r;

	CU_ASSERT_FATAL(mkdtemp(directory) != NULL && chmod(directory, 0777) == 0);
	child = listen_as(uid, directory);
	snprintf(address, sizeof(address), "unix:%s/s", directory);
	r = link_dial(address, NULL, 1000, &link, reterr);
	if (r == 0) {
		link_close(&link);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	unlink(address + strlen("unix:"));
	rmdir(directory);
	return r;
}

/* It would be sent the guest's memory. */
GCLK_TEST(destination, a_stranger_who_listens_is_not_taken_for_it)
{
	struct gclk_error error = { 0 };

	GCLK_EQ(dial_that_of(geteuid(), &error), 0);
	if (geteuid() == 0) { /* only root can be somebody else */
		GCLK_EQ(dial_that_of(STRANGER, &error), -GCLK_REFUSED);
		CU_ASSERT(strstr(error.message, "65534") != NULL);
	}
}

/* ---- who may be the guest ---- */

struct both_ends {
	struct stage stage;
	struct server *server;
	struct source_end *source;
	pthread_t thread;
	int wake;
	char here[96], there[96], daemon[96], address[110];
};

static void *run_server(void *arg)
{
	struct both_ends *b = arg;

	GCLK_EQ(server_run(b->server, b->wake, NULL), 0);
	return NULL;
}

static void both_open(struct both_ends *b, pid_t guest_pid)
{
	const struct server_access access = { .anyone = true };
	struct source_end_options options;

	stage_open(&b->stage);
	in_top(&b->stage, "here", b->here);
	in_top(&b->stage, "allowed/s", b->there);
	in_top(&b->stage, "daemon", b->daemon);
	snprintf(b->address, sizeof(b->address), "unix:%s", b->daemon);
	source_end_options_init(&options);
	options.verb = "proxy";
	options.address = b->address;
	options.listen_path = b->here;
	options.there_path = b->there;
	options.guest_pid = guest_pid;
	b->wake = eventfd(0, 0);
	CU_ASSERT_FATAL(server_new(b->stage.end, 8, &access, &b->server, NULL) == 0 &&
			server_listen_unix(b->server, b->daemon, 0600, (gid_t)-1, NULL) == 0 &&
			pthread_create(&b->thread, NULL, run_server, b) == 0 &&
			source_end_open(&options, &b->source, NULL) == 0);
	CU_ASSERT_FATAL(chmod(b->stage.top, 0755) == 0 && chmod(b->here, 0666) == 0);
}

static void both_close(struct both_ends *b)
{
	source_end_close(b->source);
	eventfd_write(b->wake, 1);
	pthread_join(b->thread, NULL);
	GCLK_EQ(server_drain(b->server, clock_mono_ns() + 10 * GCLK_NS_PER_S), 1);
	server_free(b->server);
	close(b->wake);
	stage_close(&b->stage);
}

/* A process of that user: connects to the path that it is told, until it is hung up on. */
static pid_t stranger(uid_t uid, int told)
{
	pid_t child = fork();

	if (child == 0) {
		struct sockaddr_un at = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		char byte;

		_exit(read(told, at.sun_path, 96) != 96 || setresuid(uid, uid, uid) < 0 ||
		      connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
		      read(fd, &byte, 1) != 0);
	}
	CU_ASSERT_FATAL(child > 0);
	return child;
}

/* Whether somebody who is not root gets a connection to the other end. */
static bool gets_through(bool is_guest)
{
	struct pollfd p = { .events = POLLIN };
	struct both_ends b = { 0 };
	int tell[2], status = -1;
	pid_t child;
	bool through;

	CU_ASSERT_FATAL(pipe(tell) == 0);
	child = stranger(STRANGER, tell[0]);
	both_open(&b, is_guest ? child : getpid());
	CU_ASSERT_FATAL(write(tell[1], b.here, sizeof(b.here)) == sizeof(b.here));
	p.fd = b.stage.listeners[ALLOWED];
	through = poll(&p, 1, is_guest ? 5000 : 300) == 1;
	GCLK_EQ(source_end_broken(b.source, NULL), 0);
	if (through) {
		close(accept(p.fd, NULL, NULL)); /* it is hung up on at last */
	}
	GCLK_EQ(waitpid(child, &status, 0), child);
	GCLK_EQ(status, 0);
	close(tell[0]);
	close(tell[1]);
	both_close(&b);
	return through;
}

/* The first who connects is taken for the guest, and others may reach that socket. */
GCLK_TEST(destination, another_process_is_not_taken_for_the_guest)
{
	if (geteuid() != 0) {
		return; /* only root can be somebody else */
	}
	CU_ASSERT(gets_through(true));
	CU_ASSERT(!gets_through(false));
}

/* ---- sockets of one's own ---- */

GCLK_TEST(destination, a_link_in_the_place_of_a_socket_leads_nowhere)
{
	char path[96], file[96];
	struct gclk_error error;
	struct stat before, after;
	struct stage s;

	stage_open(&s);
	in_top(&s, "allowed/s", path);
	GCLK_EQ(listen_own(path, 0640, getegid(), &error), 0);
	CU_ASSERT(stat(path, &after) == 0 && (after.st_mode & 07777) == 0640);
	in_top(&s, "allowed/file", file);
	close(creat(file, 0600));
	CU_ASSERT_FATAL(stat(file, &before) == 0 && unlink(path) == 0 &&
			symlink(file, path) == 0);
	GCLK_EQ(listen_own(path, 0660, getegid(), &error), -GCLK_REFUSED);
	CU_ASSERT(stat(file, &after) == 0 && after.st_mode == before.st_mode);
	GCLK_EQ(listen_own(file, 0660, getegid(), &error), -GCLK_REFUSED);
	CU_ASSERT(stat(file, &after) == 0 && after.st_mode == before.st_mode);
	CU_ASSERT_FATAL(unlink(path) == 0);
	GCLK_EQ(listen_own(path, 0660, getegid(), &error), -GCLK_SYS);
	stage_close(&s);
}
