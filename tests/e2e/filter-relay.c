/* SPDX-License-Identifier: MIT */
/*
 * The smallest destination end: between two emulators on UNIX sockets, every channel's
 * stream through a filter of the library, the other direction as it is.
 *
 *	filter-relay LISTEN CONNECT
 *
 * stdout, a line each; N counts the channels from 0:
 *	open N
 *	ready N held=BYTES read_us=US ticks=TSC running=-1|0|1	then a line is read from stdin
 *	bound CLOCK NS|-
 *	sent N changed=N
 *	finding N ID MESSAGE
 *	closed N passed=BYTES
 * stdin: "STOP-NS RUN-NS" (a plan that counts the gap) or "pass". Ends by a signal.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/image.h>
#include <guestclock/kvm.h>

#define PIECE (256u << 10)
#define STAMP_NS 300000			/* what an event's stamp is good to */
#define RESUME_NS 1000000

struct channel {
	unsigned number;
	int source, destination;
	struct gclk_filter *filter;
	uint64_t passed;
};

static struct gclk_host host;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	flockfile(stdout);
	vprintf(format, args);
	putchar('\n');
	fflush(stdout);
	funlockfile(stdout);
	va_end(args);
}

/* What this thread has used: the test's host is shared. */
static int64_t used_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int send_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno != EINTR) {
			return -1;
		}
		p += sent > 0 ? sent : 0;
		n -= sent > 0 ? (size_t)sent : 0;
	}
	return 0;
}

static struct gclk_plan *make_plan(const struct channel *c, int64_t stop_ns, int64_t run_ns)
{
	const struct gclk_state *state = gclk_filter_state(c->filter);
	struct gclk_plan *plan = gclk_plan_new(state->n_vcpus);
	struct gclk_when when = { .captured = { stop_ns, STAMP_NS },
				  .load = { run_ns, RESUME_NS }, .run = { run_ns, RESUME_NS } };
	struct gclk_disagreement same_host = { 0, 0 };
	struct gclk_error error = { 0 };

	when.captured_tai_s = when.run_tai_s = host.tai_offset_s;
	if (!plan || gclk_plan(state, gclk_filter_carrier(c->filter), &host, &when, &same_host,
			       &gclk_policy_default, plan, &error) != 0) {
		say("error %u no plan: %s", c->number, error.message);
		return gclk_plan_free(plan);
	}
	for (unsigned i = 0; i < plan->n_bounds; i++) {
		const struct gclk_bound *b = &plan->bounds[i];

		if (b->bound_ns == GCLK_UNBOUNDED) {
			say("bound %s -", b->clock);
		} else {
			say("bound %s %" PRIu64, b->clock, b->bound_ns);
		}
	}
	return plan;
}

static struct gclk_plan *ask_plan(const struct channel *c)
{
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
	int64_t stop_ns, run_ns;
	char line[200] = "";

	pthread_mutex_lock(&one);
	if (!fgets(line, sizeof(line), stdin)) {
		line[0] = 0;
	}
	pthread_mutex_unlock(&one);
	return sscanf(line, "%" SCNd64 " %" SCNd64, &stop_ns, &run_ns) == 2 ?
		       make_plan(c, stop_ns, run_ns) : NULL;
}

/* What is held goes on, its last byte by itself. */
static int send_held(struct channel *c, size_t held, int64_t since_ns)
{
	const struct gclk_state *state = gclk_filter_state(c->filter);
	const struct gclk_image_change *changes;
	struct gclk_plan *plan = NULL;
	struct gclk_error error = { 0 };
	const uint8_t *bytes;
	size_t n;
	int r;

	if (state) {
		say("ready %u held=%zu read_us=%" PRId64 " ticks=%" PRIu64 " running=%d", c->number,
		    held, (used_ns() - since_ns) / 1000, state->tsc[0].value_ticks,
		    gclk_filter_was_running(c->filter));
		plan = ask_plan(c);
	}
	r = gclk_filter_apply(c->filter, plan, &bytes, &n, &error);
	gclk_plan_free(plan);
	if (r < 0) {
		say("error %u %s", c->number, error.message);
		return r;
	}
	c->passed += n;
	if (n && (send_all(c->destination, bytes, n - 1) < 0 ||
		  send_all(c->destination, bytes + n - 1, 1) < 0)) {
		return -1;
	}
	say("sent %u changed=%u", c->number, gclk_filter_changes(c->filter, &changes));
	return 0;
}

static int forward_piece(struct channel *c, const uint8_t *p, size_t n, size_t *held_now)
{
	int64_t begin = used_ns();
	int r = GCLK_FILTER_MORE;

	while (n && r >= 0) {
		struct gclk_error error = { 0 };
		size_t pass, held;

		r = gclk_filter_push(c->filter, p, n, &pass, &held, &error);
		if (r < 0) {
			say("error %u %s", c->number, error.message);
			break;
		}
		*held_now += held;
		c->passed += pass;
		if (send_all(c->destination, p, pass) < 0 ||
		    (r == GCLK_FILTER_READY && send_held(c, *held_now, begin) < 0)) {
			r = -1;
		}
		p += pass + held;
		n -= pass + held;
	}
	return r;
}

static void *forward(void *arg)
{
	struct channel *c = arg;
	uint8_t *buffer = malloc(PIECE);
	size_t held = 0;
	ssize_t n;

	while (buffer && (n = recv(c->source, buffer, PIECE, 0)) > 0) {
		if (forward_piece(c, buffer, (size_t)n, &held) < 0) {
			break;
		}
	}
	shutdown(c->destination, SHUT_WR);
	free(buffer);
	for (unsigned i = 0; i < gclk_filter_findings(c->filter)->n; i++) {
		const struct gclk_finding *f = &gclk_filter_findings(c->filter)->items[i];

		say("finding %u %s %s", c->number, f->info->id, f->message);
	}
	say("closed %u passed=%" PRIu64, c->number, c->passed);
	return NULL;
}

static void *backward(void *arg)
{
	struct channel *c = arg;
	uint8_t buffer[4096];
	ssize_t n;

	while ((n = recv(c->destination, buffer, sizeof(buffer), 0)) > 0) {
		if (send_all(c->source, buffer, (size_t)n) < 0) {
			break;
		}
	}
	shutdown(c->source, SHUT_WR);
	return NULL;
}

static int unix_socket(const char *path, int listens)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 ||
	    (listens ? bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 64) :
		       connect(fd, (struct sockaddr *)&address, sizeof(address)))) {
		perror(path);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	const struct gclk_filter_options options = { .want_page_clock = 1 };
	int listener;

	if (argc != 3 || gclk_host_read(&host, 0, NULL) < 0) {
		fprintf(stderr, "usage: filter-relay LISTEN CONNECT\n");
		return 2;
	}
	listener = unix_socket(argv[1], 1);
	say("listening");
	for (unsigned number = 0;; number++) {
		struct channel *c = calloc(1, sizeof(*c));
		pthread_t thread;

		c->number = number;
		c->source = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (c->source < 0 || gclk_filter_new(&options, &c->filter, NULL) < 0) {
			return 1;
		}
		c->destination = unix_socket(argv[2], 0);	/* in the order of their coming */
		say("open %u", number);
		pthread_create(&thread, NULL, forward, c);
		pthread_detach(thread);
		pthread_create(&thread, NULL, backward, c);
		pthread_detach(thread);
	}
}
