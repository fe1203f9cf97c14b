/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/kvm.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/relay.h"
#include "migrator/peer/session.h"
#include "migrator/situation.h"

#define MAIN_MISSING_NS (600 * GCLK_NS_PER_S) /* control without any channel */
#define IDLE_NS (30 * GCLK_NS_PER_S) /* the same, where others want its place */
#define APART_NS GCLK_NS_PER_S
#define DIAL_AGAIN_MS 20
#define CHANNELS_NS (10 * GCLK_NS_PER_S) /* to end by themselves, once all is done */

struct destination_end {
	pthread_mutex_t lock;
	struct destination_options options;
	struct session *sessions;
	unsigned n_sessions, n_released;
	bool stopping;
};

void destination_options_init(struct destination_options *options)
{
	*options = (struct destination_options){
		.directories = { "/run/guestclock" },
		.max_sessions = 64,
		.max_channels = 64,
		.max_hold_ns = GCLK_NS_PER_S,
		.dial_ms = 5000,
		.hello_ms = 10000,
		.may_own_resume = true,
	};
}

int destination_end_new(const struct destination_options *options,
			struct destination_end **ret, struct gclk_error *reterr)
{
	struct destination_end *end = calloc(1, sizeof(*end));

	if (!end) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	end->options = *options;
	pthread_mutex_init(&end->lock, NULL);
	*ret = end;
	return 0;
}

void destination_end_configure(struct destination_end *end,
			       const struct destination_options *options)
{
	pthread_mutex_lock(&end->lock);
	end->options = *options;
	pthread_mutex_unlock(&end->lock);
}

struct destination_end *destination_end_free(struct destination_end *end)
{
	if (end) {
		pthread_mutex_destroy(&end->lock);
		free(end);
	}
	return NULL;
}

void destination_end_log(struct destination_end *end, int priority,
			 const struct gclk_error *error)
{
	void (*log)(int priority, const char *text);
	char text[400];

	pthread_mutex_lock(&end->lock);
	log = end->options.log;
	pthread_mutex_unlock(&end->lock);
	snprintf(text, sizeof(text), "%s%s%s", error->where, error->where[0] ? ": " : "",
		 error->message);
	if (log) {
		log(priority, text);
	}
}

/* ---- sessions ---- */

void session_log(const struct session *session, int priority, const char *format, ...)
{
	char text[640];
	va_list args;
	int n;

	if (!session->options.log) {
		return;
	}
	n = snprintf(text, sizeof(text), "%.200s: ",
		     session->move.domain[0] ? session->move.domain
		     : session->move.uuid[0] ? session->move.uuid
					     : "a guest");
	va_start(args, format);
	vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
	va_end(args);
	session->options.log(priority, text);
}

enum session_state session_state(struct session *session)
{
	enum session_state state;

	pthread_mutex_lock(&session->lock);
	state = session->state;
	pthread_mutex_unlock(&session->lock);
	return state;
}

static void raise_event(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* a counter that is full is readable as well */
}

static void lower_event(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

void session_wake(struct session *session)
{
	raise_event(session->wake);
}

bool session_wait(struct session *session, int64_t deadline_ns)
{
	struct timespec t = { deadline_ns / GCLK_NS_PER_S, deadline_ns % GCLK_NS_PER_S };

	return pthread_cond_timedwait(&session->changed, &session->lock, &t) != ETIMEDOUT;
}

bool session_break(struct session *session, const struct gclk_error *why, bool refused)
{
	bool broke = false;

	pthread_mutex_lock(&session->lock);
	if (session->state == SESSION_OPEN || session->state == SESSION_PASSING) {
		session->state = SESSION_BROKEN;
		session->why = *why;
		session->refused = refused;
		broke = true;
		pthread_cond_broadcast(&session->changed);
	}
	pthread_mutex_unlock(&session->lock);
	if (broke) {
		raise_event(session->cancel);
		session_wake(session);
	}
	return broke;
}

int session_send(struct session *session, const struct wire_message *message,
		 struct gclk_error *reterr)
{
	bool may;
	int r;

	pthread_mutex_lock(&session->lock);
	may = !session->hung_up;
	session->n_senders += may;
	pthread_mutex_unlock(&session->lock);
	if (!may) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
				 "the control connection is closed");
	}
	r = port_send(session->port, message, NULL, reterr);
	pthread_mutex_lock(&session->lock);
	session->n_senders--;
	pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
	return r;
}

/* Sending has a deadline of its own: so has this. */
void session_hang_up(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	session->hung_up = true;
	while (session->n_senders) {
		pthread_cond_wait(&session->changed, &session->lock);
	}
	pthread_mutex_unlock(&session->lock);
}

static void session_free(struct session *s)
{
	if (s->resume) {
		s->options.resume->close(s->resume);
	}
	if (s->cancel >= 0) {
		close(s->cancel);
	}
	if (s->wake >= 0) {
		close(s->wake);
	}
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	proof_free(&s->proof);
	gclk_filter_free(s->filter);
	free(s);
}

static void session_put(struct destination_end *end, struct session *s)
{
	bool last;

	pthread_mutex_lock(&end->lock);
	last = --s->refs == 0;
	pthread_mutex_unlock(&end->lock);
	if (last) {
		session_free(s);
	}
}

static struct session *session_new(const struct destination_options *options,
				   const struct wire_hello *hello, struct port *port)
{
	struct session *s = calloc(1, sizeof(*s));
	pthread_condattr_t attributes;

	if (!s) {
		return NULL;
	}
	s->refs = 1;
	s->options = *options;
	s->move = hello->move;
	memcpy(s->id, hello->session, sizeof(s->id));
	for (unsigned i = 0; i < s->move.n_force; i++) {
		s->force[i] = s->move.force[i];
	}
	s->port = port;
	s->opened_ns = port->link.opened_ns;
	wall_line_begin(&s->line);
	s->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	if (s->cancel < 0 || s->wake < 0) {
		session_free(s);
		return NULL;
	}
	return s;
}

static struct session *find(struct destination_end *end,
			    const uint8_t id[WIRE_SESSION_BYTES])
{
	struct session *s = end->sessions;

	while (s && memcmp(s->id, id, WIRE_SESSION_BYTES)) {
		s = s->next;
	}
	return s;
}

/* Is that guest on its way already? The lock of @end is held. */
static bool is_moving(struct destination_end *end, const char *uuid)
{
	for (struct session *s = end->sessions; s && uuid[0]; s = s->next) {
		enum session_state state = session_state(s);

		if (!strcmp(s->move.uuid, uuid) &&
		    (state == SESSION_OPEN || state == SESSION_PASSING)) {
			return true;
		}
	}
	return false;
}

/*
 * Of those that have had no connection of their guest's for long the oldest gives way. Whether
 * there was one. The lock of @end is held.
 */
static bool give_way(struct destination_end *end)
{
	struct session *idle = NULL;
	struct gclk_error error;

	for (struct session *s = end->sessions; s; s = s->next) {
		pthread_mutex_lock(&s->lock);
		if (s->state == SESSION_OPEN && !s->has_main && !s->n_channels &&
		    boot_clock_ns() - s->opened_ns > IDLE_NS &&
		    (!idle || s->opened_ns < idle->opened_ns)) {
			idle = s;
		}
		pthread_mutex_unlock(&s->lock);
	}
	gclk_fail(&error, GCLK_PEER, NULL, GCLK_NO_OFFSET,
		  "nothing of it had begun, and it gave way to another move");
	return idle && session_break(idle, &error, false);
}

/* Into the list, if there is room; one that gave way leaves it soon. */
static int session_enter(struct destination_end *end, struct session *s,
			 struct gclk_error *reterr)
{
	int r = 0;

	pthread_mutex_lock(&end->lock);
	if (end->stopping) {
		r = gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
			      "this end is shutting down");
	} else if (is_moving(end, s->move.uuid)) {
		r = gclk_fail(reterr, GCLK_REFUSED, s->move.uuid, GCLK_NO_OFFSET,
			      "another session moves this guest here");
	} else if (end->n_sessions >= s->options.max_sessions &&
		   (end->n_sessions >= 2 * s->options.max_sessions || !give_way(end))) {
		r = gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
			      "%u moves are under way already, which is the limit",
			      end->n_sessions);
	} else if (find(end, s->id)) {
		r = gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			      "there is such a session already");
	} else {
		s->next = end->sessions;
		end->sessions = s;
		end->n_sessions++;
	}
	pthread_mutex_unlock(&end->lock);
	return r;
}

static void session_leave(struct destination_end *end, struct session *s)
{
	struct session **at = &end->sessions;

	pthread_mutex_lock(&end->lock);
	while (*at != s) {
		at = &(*at)->next;
	}
	*at = s->next;
	end->n_sessions--;
	pthread_mutex_unlock(&end->lock);
}

unsigned destination_end_sessions(struct destination_end *end, unsigned *ret_released)
{
	unsigned n;

	pthread_mutex_lock(&end->lock);
	n = end->n_sessions;
	*ret_released = end->n_released;
	pthread_mutex_unlock(&end->lock);
	return n;
}

void destination_end_stop(struct destination_end *end, const char *why)
{
	struct gclk_error error = { .status = GCLK_STATE, .offset = GCLK_NO_OFFSET };

	snprintf(error.message, sizeof(error.message), "%s", why);
	pthread_mutex_lock(&end->lock);
	end->stopping = true;
	for (struct session *s = end->sessions; s; s = s->next) {
		session_break(s, &error, false);
	}
	pthread_mutex_unlock(&end->lock);
}

/* ---- paths ---- */

/* Does it restrict which sockets are dialled? */
static bool has_directories(const struct destination_options *options)
{
	return options->directories[0][0];
}

/* Its last part in @directory: that is where it was found, wherever links lead later. */
static int move_path(char path[WIRE_PATH_BYTES], const char *directory,
		     struct gclk_error *reterr)
{
	char there[WIRE_PATH_BYTES];
	int n = snprintf(there, sizeof(there), "%s%s", directory, strrchr(path, '/'));

	if (n < 0 || (size_t)n >= sizeof(there)) {
		return gclk_fail(reterr, GCLK_RANGE, path, GCLK_NO_OFFSET,
				 "the path of a socket has at most 107 characters");
	}
	memcpy(path, there, (size_t)n + 1);
	return 0;
}

/* "UUID.sock", "UUID.nbd.sock": a guest's, and no other's to name. */
static bool is_of_another(const struct wire_move *move, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	size_t n = strspn(name, "0123456789abcdefABCDEF-");

	return n == 36 && name[n] == '.' && strncasecmp(name, move->uuid, n) != 0;
}

/* What this end itself listens on takes no guest. */
static bool is_ours(const struct destination_options *options, const char *path)
{
	struct stat st, own;

	for (unsigned i = 0; i < GCLK_COUNT(options->own_paths); i++) {
		if (options->own_paths[i][0] && stat(path, &st) == 0 &&
		    stat(options->own_paths[i], &own) == 0 && st.st_dev == own.st_dev &&
		    st.st_ino == own.st_ino) {
			return true;
		}
	}
	return false;
}

/*
 * May the other end have this socket dialled? It must lie in one of the directories
 * that are meant for them, wherever links lead.
 */
static int check_path(const struct session *s, char path[WIRE_PATH_BYTES],
		      struct gclk_error *reterr)
{
	const struct destination_options *options = &s->options;
	char parent[WIRE_PATH_BYTES], *real;
	bool inside = false;
	int r = 0;

	if (!has_directories(options)) {
		return 0;
	}
	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
	real = realpath(parent[0] ? parent : "/", NULL);
	for (unsigned i = 0;
	     real && i < DESTINATION_DIRECTORIES && options->directories[i][0]; i++) {
		char *allowed = realpath(options->directories[i], NULL);

		inside = inside || (allowed && !strcmp(real, allowed));
		free(allowed);
	}
	if (!inside) {
		r = gclk_fail(reterr, GCLK_REFUSED, path, GCLK_NO_OFFSET,
			      "no directory for sockets of guests that arrive here");
	} else if (is_of_another(&s->move, path) || is_ours(options, path)) {
		r = gclk_fail(reterr, GCLK_REFUSED, path, GCLK_NO_OFFSET,
			      "not the socket of this guest");
	} else {
		r = move_path(path, real, reterr);
	}
	free(real);
	return r;
}

/* Who may have a guest resumed names the one whose socket it is, and no other. */
static bool is_own_socket(const struct wire_move *move)
{
	char name[sizeof(move->uuid) + 8];

	snprintf(name, sizeof(name), "/%s.sock", move->uuid);
	return !strcmp(strrchr(move->main_path, '/'), name);
}

static int choose_paths(struct session *s, struct gclk_error *reterr)
{
	const struct destination_options *o = &s->options;
	int r = 0;

	if (s->move.own_resume && !is_own_socket(&s->move)) {
		return gclk_fail(reterr, GCLK_REFUSED, s->move.main_path, GCLK_NO_OFFSET,
				 "not the socket of the guest that is to be resumed");
	}

	if (o->main_path[0]) {
		gclk_text_copy(s->move.main_path, sizeof(s->move.main_path),
			       o->main_path);
	} else {
		r = check_path(s, s->move.main_path, reterr);
	}
	if (r == 0 && o->storage_path[0]) {
		gclk_text_copy(s->move.storage_path, sizeof(s->move.storage_path),
			       o->storage_path);
	} else if (r == 0 && s->move.storage_path[0]) {
		r = check_path(s, s->move.storage_path, reterr);
	}
	return r;
}

/* ---- the control connection ---- */

static int open_resume(struct session *s, struct gclk_error *reterr)
{
	const struct destination_resume *ops = s->options.resume;
	int r;

	if (s->move.own_resume && (!ops || !s->options.may_own_resume)) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
				 "this end cannot resume guests");
	}
	if (!ops || !s->move.uuid[0]) {
		return s->move.own_resume
			       ? gclk_fail(
					 reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
					 "a guest without a UUID cannot be resumed here")
			       : 0;
	}
	r = ops->open(s->options.resume_ctx, s->move.uuid, &s->resume, reterr);
	if (r < 0 && !s->move.own_resume) { /* then its resume is not seen */
		session_log(s, 4, "when it resumes will not be known: %s",
			    reterr ? reterr->message : "");
		s->resume = NULL;
		return 0;
	}
	return r;
}

static int welcome(struct port *port, const struct wire_hello *hello,
		   const struct gclk_host *host, struct gclk_error *reterr)
{
	struct wire_message m = { .type = WIRE_WELCOME };

	m.welcome.version = wire_version(hello);
	m.welcome.has_host = host != NULL;
	if (host) {
		m.welcome.host = *host;
	}
	return port_send(port, &m, NULL, reterr);
}

void session_report_init(const struct session *s, struct move *ret)
{
	move_init(ret, s->move.verb[0] ? s->move.verb : "proxy");
	gclk_text_copy(ret->domain, sizeof(ret->domain), s->move.domain);
	gclk_text_copy(ret->uuid, sizeof(ret->uuid), s->move.uuid);
	gclk_text_copy(ret->from, sizeof(ret->from), s->move.host.hostname);
	gclk_text_copy(ret->to, sizeof(ret->to), s->host.hostname);
}

static int session_begin(struct session *s, struct gclk_error *reterr)
{
	int r = choose_paths(s, reterr);

	if (r == 0) {
		r = read_this_host(&s->host, reterr);
	}
	if (r == 0) {
		r = open_resume(s, reterr);
	}
	if (r < 0) {
		return r;
	}
	session_report_init(s, &s->report);
	asker_init(&s->asker, asker_drift_ppb(&s->host, &s->move.host));
	return 0;
}

/*
 * The first byte of the last round comes soon after the stop; how long the guest ran on after
 * the last byte of the round before is anybody's guess.
 */
static struct gclk_instant stop_between(int64_t low_ns, int64_t high_ns)
{
	uint64_t width = (uint64_t)high_ns - (uint64_t)low_ns;
	uint64_t soon = GCLK_MIN(width / 2, (uint64_t)GCLK_NS_PER_MS);

	return (struct gclk_instant){ high_ns - (int64_t)soon, width - soon };
}

static int take_message(struct session *s, const struct wire_message *m,
			struct gclk_error *reterr)
{
	int r = 0;

	pthread_mutex_lock(&s->lock);
	switch (m->type) {
	case WIRE_ANSWER:
		r = asker_take(&s->asker, s->port, m, reterr);
		break;
	case WIRE_STOPPED:
		/* the last one: it may have stood before. What has been planned with stays */
		if (!s->stop_taken) {
			s->stopped = m->stopped;
			s->stopped_boot_ns = boot_clock_ns();
			s->has_stopped = true;
		}
		break;
	case WIRE_THERE:
		if (!s->has_stopped && !s->has_there) {
			s->has_there = true;
			s->stopped.at = stop_between(m->there.low_ns, m->there.high_ns);
			s->stopped.age_ns = m->there.age_ns;
			s->stopped_boot_ns = boot_clock_ns();
			gclk_text_copy(s->stopped.basis, sizeof(s->stopped.basis),
				       "stream");
		}
		break;
	default:
		r = port_refusal(m, reterr);
		break;
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* What the source's people see of the exchange. */
static int tell_apart(struct session *s, int64_t *at_ns, struct gclk_error *reterr)
{
	struct wire_message m = { .type = WIRE_APART };
	int64_t now = clock_mono_ns();

	if (now < *at_ns || s->asker.burst) {
		return 0;
	}
	*at_ns = now + APART_NS;
	gclk_exchanges_at(&s->asker.exchanges, wall_clock_ns(), &m.apart);
	m.apart.ns = gclk_sub_sat(0, m.apart.ns);
	return port_send(s->port, &m, NULL, reterr);
}

static void give_up_missing(struct session *s)
{
	struct gclk_error error;

	gclk_fail(&error, GCLK_PEER, NULL, GCLK_NO_OFFSET, "no migration began within %d s",
		  (int)(MAIN_MISSING_NS / GCLK_NS_PER_S));
	session_break(s, &error, false); /* channels of disks may be there already */
}

/* Is there still something to wait for on the control connection? */
static bool goes_on(struct session *s)
{
	bool on, missing;

	pthread_mutex_lock(&s->lock);
	on = s->state == SESSION_OPEN || (s->state == SESSION_PASSING && !s->main_over);
	if (on && s->want_burst) {
		s->want_burst = false;
		asker_burst(&s->asker);
	}
	missing = on && !s->has_main && boot_clock_ns() - s->opened_ns > MAIN_MISSING_NS;
	pthread_mutex_unlock(&s->lock);
	if (missing) {
		give_up_missing(s);
	}
	return on && !missing;
}

static int converse(struct session *s, struct gclk_error *reterr)
{
	struct wire_message m;
	int64_t apart_ns = 0;
	int r;

	while (goes_on(s)) {
		int64_t deadline = GCLK_MIN(asker_next_ns(&s->asker),
					    clock_mono_ns() + GCLK_NS_PER_S);

		if ((r = asker_ask(&s->asker, s->port, reterr)) < 0 ||
		    (r = tell_apart(s, &apart_ns, reterr)) < 0) {
			return r;
		}
		deadline = GCLK_MIN(asker_next_ns(&s->asker),
				    clock_mono_ns() + GCLK_NS_PER_S);
		r = port_receive(s->port, &m, deadline, s->wake, reterr);
		lower_event(s->wake);
		if (r == LINK_WAIT) {
			continue;
		}
		if (r == 0) {
			r = take_message(s, &m, reterr);
			wire_clear(&m);
		}
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static void count_released(struct destination_end *end, int by)
{
	pthread_mutex_lock(&end->lock);
	end->n_released += (unsigned)by;
	pthread_mutex_unlock(&end->lock);
}

/* Channels that have nothing more to do end by themselves; the rest are ended. */
static void end_channels(struct session *s)
{
	int64_t deadline = clock_mono_ns() + CHANNELS_NS;

	pthread_mutex_lock(&s->lock);
	while (s->n_channels && session_wait(s, deadline)) {
	}
	pthread_mutex_unlock(&s->lock);
	raise_event(s->cancel);
}

static int serve_control(struct destination_end *end, struct session *s,
			 const struct wire_hello *hello, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	int r = welcome(s->port, hello, &s->host, reterr);

	if (r < 0) {
		return r;
	}
	session_log(s, 6, "arrives from %s", s->move.host.hostname);
	r = converse(s, &error);
	if (r < 0) {
		session_break(s, &error, false);
	}
	if (session_state(s) == SESSION_BROKEN) {
		session_give_up(s);
		if (reterr) {
			*reterr = s->why;
		}
		return -s->why.status;
	}
	count_released(end, 1);
	session_conclude(s);
	count_released(end, -1);
	end_channels(s);
	return 0;
}

static int serve_session(struct destination_end *end, struct port *port,
			 const struct wire_hello *hello, struct gclk_error *reterr)
{
	struct destination_options options;
	struct session *s;
	int r;

	pthread_mutex_lock(&end->lock);
	options = end->options;
	pthread_mutex_unlock(&end->lock);
	s = session_new(&options, hello, port);
	if (!s) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory or no descriptors for a session");
	}
	r = session_begin(s, reterr);
	if (r == 0) {
		r = session_enter(end, s, reterr);
	}
	if (r < 0) {
		session_put(end, s);
		return r;
	}
	if (options.session) {
		options.session(1);
	}
	r = serve_control(end, s, hello, reterr);
	session_hang_up(s);
	session_leave(end, s);
	if (options.session) {
		options.session(-1);
	}
	session_put(end, s);
	return r;
}

/* ---- channels ---- */

static int channel_enter(struct destination_end *end, const struct wire_hello *hello,
			 struct session **ret, struct gclk_error *reterr)
{
	struct session *s;
	int r = 0;

	pthread_mutex_lock(&end->lock);
	s = find(end, hello->session);
	if (s) {
		s->refs++;
	}
	pthread_mutex_unlock(&end->lock);
	if (!s) {
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "there is no such session");
	}
	pthread_mutex_lock(&s->lock);
	if (s->state == SESSION_BROKEN) {
		r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "%s",
			      s->why.message);
	} else if (s->n_channels >= s->options.max_channels) {
		r = gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
			      "%u connections are open already, which is the limit",
			      s->n_channels);
	} else if (hello->role == WIRE_MAIN && s->has_main) {
		r = gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			      "a second main channel");
	} else if (hello->role == WIRE_STORAGE && !s->move.storage_path[0]) {
		r = gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			      "no path was named for storage");
	} else {
		s->n_channels++;
		s->has_main = s->has_main || hello->role == WIRE_MAIN;
	}
	pthread_mutex_unlock(&s->lock);
	if (r < 0) {
		session_put(end, s);
		return r;
	}
	*ret = s;
	return 0;
}

static void channel_leave(struct destination_end *end, struct session *s, uint8_t role,
			  const struct gclk_error *error)
{
	pthread_mutex_lock(&s->lock);
	s->n_channels--;
	if (role == WIRE_MAIN) {
		s->main_over = true;
		s->main_error = *error;
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	session_wake(s);
	session_put(end, s);
}

/* Has the other end chosen the path, and not who runs this one? */
static bool is_named(const struct session *s, uint8_t role)
{
	const struct destination_options *o = &s->options;

	return !(role == WIRE_STORAGE ? o->storage_path : o->main_path)[0];
}

/*
 * The hypervisor may be a little later than the source. What the source has named must be
 * there itself; a path of ours may lead on.
 */
static int dial_hypervisor(struct session *s, uint8_t role, struct link *ret,
			   struct gclk_error *reterr)
{
	const struct destination_options *o = &s->options;
	bool disk = role == WIRE_STORAGE;
	bool named = is_named(s, role) && has_directories(o);
	const char *path = disk ? s->move.storage_path : s->move.main_path;
	int64_t deadline = clock_mono_ns() + o->dial_ms * GCLK_NS_PER_MS;
	struct pollfd p = { s->cancel, POLLIN, 0 };
	struct gclk_error error;
	int r;

	do {
		r = (named ? link_dial_named : link_dial_unix)(path, o->dial_ms, ret,
							       &error);
	} while (r < 0 &&
		 (error.sys_errno == ENOENT || error.sys_errno == ECONNREFUSED) &&
		 clock_mono_ns() < deadline && poll(&p, 1, DIAL_AGAIN_MS) == 0);
	if (r < 0 && reterr) {
		*reterr = error;
	}
	return r;
}

/* Who listens at the other end of the socket. */
static pid_t process_of(const struct link *link)
{
	struct ucred user = { 0 };
	socklen_t n = sizeof(user);

	return getsockopt(link->in, SOL_SOCKET, SO_PEERCRED, &user, &n) < 0 ? 0 : user.pid;
}

/* Of `migrate`, which knows whom it moves; others may have put something of theirs between. */
static bool is_strict(const struct session *s)
{
	return s->move.own_resume || !strcmp(s->move.verb, "migrate");
}

/*
 * Whoever may make sockets in the directory, another guest's hypervisor, too, may make one of
 * this name. It would get the guest's memory, or have a guest resumed that did not come this
 * way. Who runs this end may have chosen a path where somebody else listens on purpose.
 */
static int check_listener(struct session *s, uint8_t role, const struct link *link,
			  struct gclk_error *reterr)
{
	const struct destination_resume *ops = s->options.resume;
	pid_t pid = process_of(link);
	struct gclk_error error = { 0 };
	bool known;
	int r = 1;

	pthread_mutex_lock(&s->lock);
	known = s->is_guests && s->pid == pid;
	pthread_mutex_unlock(&s->lock);
	if (!known && ops && s->move.uuid[0]) {
		r = ops->check(s->options.resume_ctx, s->move.uuid,
			       is_named(s, role) ? pid : -1, is_strict(s), &error);
	}
	if (r < 0 && is_strict(s)) {
		*reterr = error;
		return r;
	}
	if (r < 0) {
		session_log(s, 4, "%s: %s", link->name, error.message);
	}
	if (role == WIRE_MAIN) {
		pthread_mutex_lock(&s->lock);
		s->pid = r < 0 ? 0 : pid; /* these are read when it is over, too */
		s->is_guests = r == 0;
		s->began = true;
		pthread_mutex_unlock(&s->lock);
	}
	return 0;
}

static int run_channel(struct session *s, const struct wire_hello *hello,
		       struct port *port, struct gclk_error *reterr)
{
	struct link a, b;
	struct relay relay = { .a = &a, .b = &b, .wake = s->cancel };
	int r = dial_hypervisor(s, hello->role, &b, reterr);

	if (r < 0) {
		return r;
	}
	r = check_listener(s, hello->role, &b, reterr);
	r = r < 0 ? r : welcome(port, hello, NULL, reterr);
	if (r == 0) {
		port_give(port, &a);
		r = hello->role == WIRE_MAIN ? main_channel_run(s, &a, &b, reterr)
					     : relay_run(&relay, reterr);
		if (r < 0) {
			/* both neighbours see it before anybody waits for the report of it */
			link_close(&b);
		}
		link_close(&a);
	}
	link_close(&b);
	return r;
}

static int serve_channel(struct destination_end *end, struct port *port,
			 const struct wire_hello *hello, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	struct session *s = NULL;
	int r = channel_enter(end, hello, &s, reterr);

	if (r < 0) {
		return r;
	}
	r = run_channel(s, hello, port, &error);
	if (r < 0) {
		session_break(s, &error, r == -GCLK_REFUSED || r == -GCLK_UNSUPPORTED);
		if (reterr) {
			*reterr = error;
		}
	}
	channel_leave(end, s, hello->role, &error);
	return r;
}

/* ---- connections ---- */

int destination_end_serve_hello(struct destination_end *end, struct port *port,
				const struct wire_hello *hello, struct gclk_error *reterr)
{
	struct gclk_error error = { 0 };
	int r;

	if (!wire_version(hello)) {
		r = gclk_fail(&error, GCLK_VERSION, NULL, GCLK_NO_OFFSET,
			      "the other end speaks versions %u to %u of the protocol, "
			      "this one "
			      "%u to %u",
			      hello->version_min, hello->version_max, WIRE_VERSION_MIN,
			      WIRE_VERSION_MAX);
	} else if (hello->role == WIRE_CONTROL) {
		r = serve_session(end, port, hello, &error);
	} else {
		r = serve_channel(end, port, hello, &error);
	}
	if (r < 0 && port->link.in >= 0) {
		port_sorry(port, &error);
	}
	if (r < 0 && reterr) {
		*reterr = error;
	}
	return r;
}

int destination_end_serve(struct destination_end *end, struct link *link,
			  struct gclk_error *reterr)
{
	struct wire_message m;
	struct port port;
	int64_t deadline;
	int r;

	port_init(&port, link);
	pthread_mutex_lock(&end->lock);
	deadline = clock_mono_ns() + end->options.hello_ms * GCLK_NS_PER_MS;
	port.reader.worker = end->options.worker;
	pthread_mutex_unlock(&end->lock);
	r = port_receive(&port, &m, deadline, -1, reterr);
	if (r == LINK_WAIT) {
		r = gclk_fail(reterr, GCLK_PEER, port.link.name, GCLK_NO_OFFSET,
			      "no hello came in time");
	} else if (r == 0 && m.type != WIRE_HELLO) {
		r = port_refusal(&m, reterr);
		wire_clear(&m);
	} else if (r == 0) {
		r = destination_end_serve_hello(end, &port, &m.hello, reterr);
		wire_clear(&m);
	}
	if (port.link.in >= 0) {
		port_close(&port);
	}
	return r;
}
