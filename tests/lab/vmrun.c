/* SPDX-License-Identifier: MIT */
/*
 * Runs virtual machines where nothing but a kernel and a shell is: one static
 * program that starts a VMM, speaks QMP to it, feeds it a stream whose last
 * bytes it holds back, and stamps what happens with the host's clocks.
 *
 * It reads commands on standard input, one a line, and answers on standard
 * output, one a line; the first letter tells what it is. STAMP is four decimal
 * numbers: TSC ticks, then CLOCK_MONOTONIC_RAW, _REALTIME and _MONOTONIC in ns.
 *
 *	start ARG<tab>ARG...	start a program; its sockets are made before, in the
 *				directory that argv[1] of vmrun names: "serial"
 *				and "qmp"
 *	qmp JSON		send, wait for the answer
 *	instant NAME US [BASE]	name the instant so many us from now, or from another one,
 *				for "at" and, as $NAME (@SECONDS.NNNNNNNNN), for "shell"
 *	at NAME COMMAND		COMMAND at that instant
 *	event NAME [STATUS]	wait for an event since the last qmp command was sent
 *	feed FILE N		send the first N bytes of FILE to who listens at "stream"
 *				in that directory, hold the rest
 *	release			send the rest
 *	shell COMMAND		its output as O lines, then X and its status
 *	wait MS			listen for so long
 *	forget			the guest's lines so far
 *	lines N			wait until there are N of them, say them as S lines
 *	end			kill what was started
 *
 * Answers: "S STAMP LINE" a line of the guest, stamped when its mark ('@')
 * arrived; "E STAMP JSON" an event of QMP; "R STAMP STAMP JSON" the reply to a
 * command, when it was sent and when it came; "D STAMP STAMP" a command that took
 * from then to then; "L TEXT" the program's standard error; "? TEXT" a failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536
#define LINES_MAX 4096
#define ARGS_MAX 128
#define NAME_BYTES 64
#define EVENTS_BYTES 65536
#define PATIENCE_MS 60000

struct stamp {
	uint64_t tsc;
	int64_t raw_ns, realtime_ns, monotonic_ns;
};

/* Bytes that have come from somewhere and are not yet a whole line. */
struct pending {
	int fd;
	size_t n;
	struct stamp mark;	/* of the guest's mark, where the line began */
	bool in_line;
	char bytes[LINE_MAX_BYTES];
};

struct guest_line {
	struct stamp at;
	char *text;
};

enum listener { SERIAL, QMP, N_LISTENERS };
static const char *const listener_names[N_LISTENERS] = { "serial", "qmp" };

static const char *directory;
static int listeners[N_LISTENERS] = { -1, -1 };
static struct pending commands, serial, qmp, errors;
static pid_t child = -1;
static bool qmp_ready;		/* its greeting is answered */
static char *reply;		/* the last answer of QMP, until it is taken */
static struct stamp reply_at;
static int stream_fd = -1, file_fd = -1;
static struct guest_line lines[LINES_MAX];
static unsigned n_lines;
static char events[EVENTS_BYTES];	/* since the last command to QMP */
static size_t n_events;

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* The narrowest of a few brackets: the TSC is its middle. */
static struct stamp now(void)
{
	uint64_t narrowest = UINT64_MAX;
	struct stamp best = { 0 };

	for (int i = 0; i < 3; i++) {
		struct stamp s;
		uint64_t before = __builtin_ia32_rdtsc(), width;

		s.raw_ns = clock_ns(CLOCK_MONOTONIC_RAW);
		s.realtime_ns = clock_ns(CLOCK_REALTIME);
		s.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
		width = __builtin_ia32_rdtsc() - before;
		s.tsc = before + width / 2;
		if (width < narrowest) {
			narrowest = width;
			best = s;
		}
	}
	return best;
}

static void put_stamp(struct stamp s)
{
	printf(" %llu %lld %lld %lld", (unsigned long long)s.tsc, (long long)s.raw_ns,
	       (long long)s.realtime_ns, (long long)s.monotonic_ns);
}

static void say(char kind, struct stamp at, const char *text)
{
	putchar(kind);
	put_stamp(at);
	printf(" %s\n", text);
	fflush(stdout);
}

static void done(struct stamp began)
{
	putchar('D');
	put_stamp(began);
	put_stamp(now());
	putchar('\n');
	fflush(stdout);
}

__attribute__((format(printf, 1, 2)))
static void complain(const char *format, ...)
{
	va_list ap;

	fputs("? ", stdout);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t done_n = write(fd, bytes, n);

		if (done_n < 0 && errno == EINTR) {
			continue;
		}
		if (done_n <= 0) {
			complain("write: %s", strerror(errno));
			return;
		}
		bytes += done_n;
		n -= (size_t)done_n;
	}
}

static void close_fd(int *fd)
{
	if (*fd >= 0) {
		close(*fd);
	}
	*fd = -1;
}

/* ---- what comes in ---- */

static void take_guest_line(struct pending *from)
{
	if (n_lines < LINES_MAX) {
		lines[n_lines].at = from->mark;
		lines[n_lines].text = strdup(from->bytes);
		n_lines++;
	}
}

static void take_qmp_line(struct stamp at, const char *text)
{
	if (strstr(text, "\"event\":")) {
		say('E', at, text);
		n_events += (size_t)snprintf(events + n_events, sizeof(events) - n_events,
					     "%s\n", text);
		n_events = n_events < sizeof(events) ? n_events : sizeof(events) - 1;
	} else if (strstr(text, "\"QMP\":")) {
		static const char hello[] = "{\"execute\": \"qmp_capabilities\"}\n";

		write_all(qmp.fd, hello, sizeof(hello) - 1);
	} else if (!qmp_ready) {
		qmp_ready = true;
	} else {
		free(reply);
		reply = strdup(text);
		reply_at = at;
	}
}

/* The guest's line begins at its mark; what is before the first one is firmware. */
static void take_serial_byte(struct stamp at, char byte)
{
	if (byte == '@') {
		serial.mark = at;
		serial.in_line = true;
		serial.n = 0;
	} else if (byte == '\n' && serial.in_line) {
		serial.bytes[serial.n] = 0;
		serial.in_line = false;
		take_guest_line(&serial);
	} else if (serial.in_line && serial.n < sizeof(serial.bytes) - 1) {
		serial.bytes[serial.n++] = byte;
	}
}

/* Returns true when a line of other kinds is whole; it is without its end then. */
static bool take_byte(struct pending *to, char byte)
{
	if (byte == '\r') {
		return false;
	}
	if (byte == '\n') {
		to->bytes[to->n] = 0;
		to->n = 0;
		return true;
	}
	if (to->n < sizeof(to->bytes) - 1) {
		to->bytes[to->n++] = byte;
	}
	return false;
}

static void take(struct pending *from)
{
	char chunk[4096];
	struct stamp at = now();
	ssize_t n = read(from->fd, chunk, sizeof(chunk));

	if (n <= 0) {
		close_fd(&from->fd);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (from == &serial) {
			take_serial_byte(at, chunk[i]);
		} else if (take_byte(from, chunk[i])) {
			if (from == &qmp) {
				take_qmp_line(at, from->bytes);
			} else {
				printf("L %s\n", from->bytes);
				fflush(stdout);
			}
		}
	}
}

/* One turn over everything that can speak by itself, for at most @ms. */
static void listen_for(int ms)
{
	struct pending *const sources[] = { &serial, &qmp, &errors };
	struct pollfd fds[3];

	for (int i = 0; i < 3; i++) {
		fds[i] = (struct pollfd){ .fd = sources[i]->fd, .events = POLLIN };
	}
	if (poll(fds, 3, ms) <= 0) {
		return;
	}
	for (int i = 0; i < 3; i++) {
		if (fds[i].revents) {
			take(sources[i]);
		}
	}
}

/* Turns until is(@what) or a minute has gone; false and a complaint then. */
static bool until(bool (*is)(const char *what), const char *what)
{
	int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + PATIENCE_MS * INT64_C(1000000);

	while (!is(what)) {
		if (qmp.fd < 0 || clock_ns(CLOCK_MONOTONIC) > end_ns) {
			complain("waited in vain for %s", what);
			return false;
		}
		listen_for(100);
	}
	return true;
}

static bool is_greeted(const char *what)
{
	(void)what;
	return qmp_ready;
}

static bool is_answered(const char *what)
{
	(void)what;
	return reply != NULL;
}

/* "NAME" or "NAME STATUS", both as JSON has them: quoted. */
static bool has_happened(const char *what)
{
	char name[NAME_BYTES] = "", status[NAME_BYTES] = "", text[2 * NAME_BYTES];
	const char *at, *end;

	sscanf(what, "%48s %48s", name, status);
	for (const char *line = events; (end = strchr(line, '\n')); line = end + 1) {
		snprintf(text, sizeof(text), "\"event\": \"%s\"", name);
		at = strstr(line, text);
		if (!at || at > end) {
			continue;
		}
		snprintf(text, sizeof(text), "\"status\": \"%s\"", status);
		at = strstr(line, text);
		if (!*status || (at && at < end)) {
			return true;
		}
	}
	return false;
}

static bool has_lines(const char *what)
{
	return n_lines >= strtoul(what, NULL, 10);
}

/* ---- commands ---- */

static int make_socket(const char *name, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s", directory, name);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int make_listener(const char *name)
{
	struct sockaddr_un address;
	int fd = make_socket(name, &address);

	unlink(address.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 1) < 0) {
		complain("%s: %s", address.sun_path, strerror(errno));
		close_fd(&fd);
	}
	return fd;
}

static int connect_to(const char *name)
{
	struct sockaddr_un address;
	int fd = make_socket(name, &address);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close_fd(&fd);
	}
	return fd;
}

static int accept_within(int listener, int ms)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	if (poll(&p, 1, ms) <= 0) {
		return -1;
	}
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static void run_child(char *arguments, int error_fd)
{
	char *args[ARGS_MAX + 1];
	unsigned n = 0;
	int null_fd = open("/dev/null", O_RDWR);

	for (char *arg = strtok(arguments, "\t"); arg; arg = strtok(NULL, "\t")) {
		args[n++] = arg;
		n = n < ARGS_MAX ? n : ARGS_MAX;
	}
	args[n] = NULL;
	dup2(null_fd, 0);
	dup2(error_fd, 1);
	dup2(error_fd, 2);
	if (n) {
		execvp(args[0], args);
	}
	fprintf(stderr, "%s: %s\n", n ? args[0] : "nothing to start", strerror(errno));
	_exit(127);
}

static void end_child(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = -1;
	close_fd(&serial.fd);
	close_fd(&qmp.fd);
	while (errors.fd >= 0) {
		take(&errors);
	}
	close_fd(&stream_fd);
	close_fd(&file_fd);
	serial.in_line = false;
	serial.n = qmp.n = 0;
	qmp_ready = false;
}

/* The child may end before it connects: then its error output ends too. */
static int accept_from_child(int listener)
{
	for (int waited = 0; waited < PATIENCE_MS && errors.fd >= 0; waited += 100) {
		int fd = accept_within(listener, 100);

		if (fd >= 0) {
			return fd;
		}
		listen_for(0);
	}
	return -1;
}

static void do_start(char *arguments)
{
	int error_pipe[2];

	end_child();
	for (int i = 0; i < N_LISTENERS; i++) {
		close_fd(&listeners[i]);
		listeners[i] = make_listener(listener_names[i]);
	}
	if (pipe2(error_pipe, O_CLOEXEC) < 0) {
		complain("pipe: %s", strerror(errno));
		return;
	}
	child = fork();
	if (child == 0) {
		run_child(arguments, error_pipe[1]);
	}
	close(error_pipe[1]);
	errors.fd = error_pipe[0];
	serial.fd = accept_from_child(listeners[SERIAL]);
	qmp.fd = serial.fd < 0 ? -1 : accept_from_child(listeners[QMP]);
	if (qmp.fd < 0 || !until(is_greeted, "QMP")) {
		complain("what was started does not speak QMP");
	}
}

static void do_qmp(const char *json)
{
	struct stamp began;

	free(reply);
	reply = NULL;
	if (qmp.fd < 0) {
		complain("nothing that speaks QMP is running");
		return;
	}
	n_events = 0;
	events[0] = 0;
	began = now();
	write_all(qmp.fd, json, strlen(json));
	write_all(qmp.fd, "\n", 1);
	if (!until(is_answered, json)) {
		return;
	}
	putchar('R');
	put_stamp(began);
	put_stamp(reply_at);
	printf(" %s\n", reply);
}

static void copy(size_t n)
{
	static char buffer[65536];

	while (n) {
		size_t want = n < sizeof(buffer) ? n : sizeof(buffer);
		ssize_t got = read(file_fd, buffer, want);

		if (got <= 0) {
			return;
		}
		write_all(stream_fd, buffer, (size_t)got);
		n -= (size_t)got;
	}
}

static void do_feed(const char *arguments)
{
	char path[256];
	unsigned long long n_bytes;

	if (sscanf(arguments, "%255s %llu", path, &n_bytes) != 2) {
		complain("feed FILE N");
		return;
	}
	close_fd(&file_fd);
	close_fd(&stream_fd);
	file_fd = open(path, O_RDONLY | O_CLOEXEC);
	stream_fd = file_fd < 0 ? -1 : connect_to("stream");
	if (stream_fd < 0) {
		complain("%s: %s", path, strerror(errno));
		return;
	}
	copy((size_t)n_bytes);
}

static void do_release(void)
{
	copy(SIZE_MAX);
	close_fd(&stream_fd);
	close_fd(&file_fd);
}

static void do_shell(const char *command)
{
	FILE *output = popen(command, "r");
	char text[LINE_MAX_BYTES];
	int status;

	if (!output) {
		complain("%s: %s", command, strerror(errno));
		return;
	}
	while (fgets(text, sizeof(text), output)) {
		text[strcspn(text, "\n")] = 0;
		printf("O %s\n", text);
	}
	status = pclose(output);
	printf("X %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128);
	fflush(stdout);
}

static void forget_lines(void)
{
	for (unsigned i = 0; i < n_lines; i++) {
		free(lines[i].text);
	}
	n_lines = 0;
}

static void do_lines(const char *n_wanted)
{
	until(has_lines, n_wanted);
	for (unsigned i = 0; i < n_lines; i++) {
		say('S', lines[i].at, lines[i].text);
	}
	forget_lines();
}

static void do_wait(const char *ms)
{
	int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + strtoll(ms, NULL, 10) * 1000000;
	int64_t left_ns;

	while ((left_ns = end_ns - clock_ns(CLOCK_MONOTONIC)) > 0) {
		listen_for((int)(left_ns / 1000000) + 1);
	}
}

/* The instant of a name, CLOCK_REALTIME in ns; -1 and a complaint where it has none. */
static int64_t instant_ns(const char *name)
{
	const char *text = getenv(name);
	char *fraction = NULL;
	int64_t seconds;

	if (!text || *text != '@') {
		complain("%s is no instant", name);
		return -1;
	}
	seconds = strtoll(text + 1, &fraction, 10);
	return seconds * 1000000000 + strtoll(fraction + 1, NULL, 10);
}

static void do_instant(const char *arguments)
{
	char name[NAME_BYTES], base[NAME_BYTES], text[NAME_BYTES];
	long long us;
	int64_t ns;
	int n = sscanf(arguments, "%63s %lld %63s", name, &us, base);

	if (n < 2) {
		complain("instant NAME US [BASE]");
		return;
	}
	ns = (n == 3 ? instant_ns(base) : clock_ns(CLOCK_REALTIME)) + us * 1000;
	snprintf(text, sizeof(text), "@%lld.%09lld", (long long)(ns / 1000000000),
		 (long long)(ns % 1000000000));
	setenv(name, text, 1);
	printf("I %s %lld\n", name, (long long)ns);
}

/* Listens until 20 ms before, so that stamps stay right, and sleeps for the rest. */
static void wait_until(int64_t at_ns)
{
	struct timespec ts = { at_ns / 1000000000, at_ns % 1000000000 };
	int64_t left_ns;

	while ((left_ns = at_ns - clock_ns(CLOCK_REALTIME)) > 20000000) {
		listen_for((int)(left_ns / 1000000) - 19);
	}
	while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL) == EINTR) {
	}
}

/* The word that a command begins with; its arguments, or NULL if it is another word. */
static char *after_word(char *text, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(text, word, n) || (text[n] && text[n] != ' ')) {
		return NULL;
	}
	return text + n + (text[n] == ' ');
}

static void carry_out(char *command);

static void do_at(char *arguments)
{
	char *command = arguments + strcspn(arguments, " ");

	if (*command) {
		*command++ = 0;
	}
	wait_until(instant_ns(arguments));
	carry_out(command);
}

static void carry_out(char *command)
{
	struct stamp began = now();
	char *arguments;

	if ((arguments = after_word(command, "at"))) {
		do_at(arguments);	/* which ends in a command of its own */
		return;
	}
	if ((arguments = after_word(command, "start"))) {
		do_start(arguments);
	} else if ((arguments = after_word(command, "qmp"))) {
		do_qmp(arguments);
	} else if ((arguments = after_word(command, "event"))) {
		until(has_happened, arguments);
	} else if ((arguments = after_word(command, "instant"))) {
		do_instant(arguments);
	} else if ((arguments = after_word(command, "feed"))) {
		do_feed(arguments);
	} else if (after_word(command, "release")) {
		do_release();
	} else if ((arguments = after_word(command, "shell"))) {
		do_shell(arguments);
	} else if ((arguments = after_word(command, "wait"))) {
		do_wait(arguments);
	} else if (after_word(command, "forget")) {
		forget_lines();
	} else if ((arguments = after_word(command, "lines"))) {
		do_lines(arguments);
	} else if (after_word(command, "end")) {
		end_child();
	} else {
		complain("there is no command %s", command);
	}
	done(began);
}

/* Returns false at the end of the commands. */
static bool take_commands(void)
{
	char chunk[4096];
	ssize_t n = read(commands.fd, chunk, sizeof(chunk));

	if (n <= 0) {
		return n < 0 && errno == EINTR;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (!take_byte(&commands, chunk[i])) {
			continue;
		}
		if (!strcmp(commands.bytes, "quit")) {
			return false;
		}
		carry_out(commands.bytes);
	}
	return true;
}

static bool turn(void)
{
	struct pollfd fds[4] = {
		{ .fd = commands.fd, .events = POLLIN },
		{ .fd = serial.fd, .events = POLLIN },
		{ .fd = qmp.fd, .events = POLLIN },
		{ .fd = errors.fd, .events = POLLIN },
	};

	if (poll(fds, 4, -1) < 0) {
		return errno == EINTR;
	}
	if (fds[0].revents) {
		return take_commands();
	}
	listen_for(0);
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fputs("usage: vmrun DIRECTORY\n", stderr);
		return 2;
	}
	directory = argv[1];
	serial.fd = qmp.fd = errors.fd = -1;
	mkdir(directory, 0700);
	signal(SIGPIPE, SIG_IGN);
	puts("V vmrun");
	fflush(stdout);
	while (turn()) {
	}
	end_child();
	puts("Q");
	fflush(stdout);
	return 0;
}
