/* SPDX-License-Identifier: MIT */
/*
 * Threads: one that answers on the control connection, one that accepts the hypervisor's
 * connections and opens a channel for each, one per channel.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/peer/asker.h"
#include "migrator/peer/passage.h"
#include "migrator/peer/port.h"
#include "migrator/peer/relay.h"
#include "migrator/peer/server.h"
#include "migrator/situation.h"

#define CONNECT_MS 10000
#define CHANNELS_MAX 256
#define REPORTING_NS (10 * GCLK_NS_PER_MS) /* to look again whether it has been read */
#define SILENCE_NS (60 * GCLK_NS_PER_S) /* it asks every 50 ms, but for a resume's time */

struct source_end {
	char address[1024], listen_path[WIRE_PATH_BYTES], nbd_path[WIRE_PATH_BYTES];
	char tls_files[5][512];
	struct peer_tls tls;
	int connect_ms;
	const struct gclk_worker *worker;
	pid_t guest_pid;
	uint8_t session[WIRE_SESSION_BYTES];
	struct gclk_host peer;
	struct port port;
	int listener, nbd_listener;
	int cancel; /* eventfd: channels break off */
	int quit;   /* eventfd: all threads end */
	pthread_t control_thread, accept_thread;
	bool has_control_thread, has_accept_thread;
	atomic_uint_fast64_t bytes;
	int64_t opened_boot_ns;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct gclk_error broken; /* .status 0: not */
	struct gclk_disagreement apart;
	struct move *report;
	bool reporting; /* it has come and is being read: what breaks meanwhile is told by it */
	bool over; /* nothing more comes on the control connection */
	unsigned n_channels, n_main, n_storage;
	struct passage passage; /* of the main channel */
};

struct channel {
	struct source_end *end;
	struct link here, there;
	bool is_main;
};

void source_end_options_init(struct source_end_options *options)
{
	*options = (struct source_end_options){
		.verb = "migrate",
		.domain = "",
		.uuid = "",
		.group = (gid_t)-1,
		.policy = gclk_policy_default,
		.max_hold_ns = PEER_MAX_HOLD_NS,
		.tells_stop = 1,
		.running = -1,
	};
}

static void raise_event(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* a counter that is full is readable as well */
}

/* The first reason counts. Once the report has come nothing can break any more. */
static void break_off(struct source_end *end, const struct gclk_error *why)
{
	pthread_mutex_lock(&end->lock);
	if (!end->broken.status && !end->report && !end->reporting) {
		end->broken = *why;
		raise_event(end->cancel);
	}
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
}

/* ---- channels ---- */

static int note(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		size_t *ret_held, struct gclk_error *reterr)
{
	struct channel *c = ctx;
	struct source_end *end = c->end;
	int64_t now = wall_clock_ns();
	int ahead = 0;

	(void)bytes;
	(void)reterr;
	/* asked after the clock: at that instant no more can have been written */
	if (ioctl(c->here.in, FIONREAD, &ahead) < 0) {
		ahead = INT_MAX;
	}
	pthread_mutex_lock(&end->lock);
	passage_note(&end->passage, n, (uint64_t)ahead, now);
	pthread_mutex_unlock(&end->lock);
	*ret_pass = n;
	*ret_held = 0;
	return 1;
}

static void *channel_run(void *arg)
{
	static const struct relay_filter noting = { .push = note };
	struct channel *c = arg;
	struct source_end *end = c->end;
	struct relay relay = { .a = &c->here,
			       .b = &c->there,
			       .wake = end->cancel,
			       .ctx = c,
			       .filter = c->is_main ? &noting : NULL,
			       .bytes = &end->bytes };
	struct gclk_error error = { 0 };
	int r = relay_run(&relay, &error);

	if (r < 0) {
		/* the hypervisor is to see it first */
		link_close(&c->here);
		if (r != -GCLK_STATE) {
			break_off(end, &error);
		}
	}
	link_close(&c->there);
	link_close(&c->here);
	tls_thread_ends();
	pthread_mutex_lock(&end->lock);
	end->n_channels--;
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
	free(c);
	return NULL;
}

static int receive_welcome(struct port *port, int64_t deadline_ns,
			   struct gclk_host *ret_host, struct gclk_error *reterr)
{
	struct wire_message m;
	int r = port_receive(port, &m, deadline_ns, -1, reterr);

	if (r == LINK_WAIT) {
		return gclk_fail(reterr, GCLK_PEER, port->link.name, GCLK_NO_OFFSET,
				 "the other end does not answer");
	}
	if (r < 0) {
		return r;
	}
	if (m.type != WIRE_WELCOME) {
		r = port_refusal(&m, reterr);
	} else if (ret_host && !m.welcome.has_host) {
		r = gclk_fail(reterr, GCLK_PEER, port->link.name, GCLK_NO_OFFSET,
			      "the other end does not say what host it is");
	} else if (ret_host) {
		*ret_host = m.welcome.host;
	}
	wire_clear(&m);
	return r;
}

static void hello_init(const struct source_end *end, struct wire_message *m, uint8_t role,
		       uint32_t index)
{
	memset(m, 0, sizeof(*m));
	m->type = WIRE_HELLO;
	m->hello.version_min = WIRE_VERSION_MIN;
	m->hello.version_max = WIRE_VERSION_MAX;
	memcpy(m->hello.session, end->session, sizeof(m->hello.session));
	m->hello.role = role;
	m->hello.index = index;
}

static int dial_channel(struct source_end *end, uint8_t role, uint32_t index,
			struct link *ret, struct gclk_error *reterr)
{
	struct wire_message m;
	struct port port;
	int64_t deadline = clock_mono_ns() + end->connect_ms * GCLK_NS_PER_MS;
	struct link link;
	int r = link_dial(end->address, &end->tls, end->connect_ms, &link, reterr);

	if (r < 0) {
		return r;
	}
	port_init(&port, &link);
	port.reader.worker = end->worker;
	hello_init(end, &m, role, index);
	r = port_send(&port, &m, NULL, reterr);
	if (r == 0) {
		r = receive_welcome(&port, deadline, NULL, reterr);
	}
	if (r < 0) {
		port_close(&port);
		return r;
	}
	port_give(&port, ret);
	return 0;
}

/* Returns an error when there can be no such channel. */
static int channel_enter(struct source_end *end, bool storage, uint8_t *ret_role,
			 uint32_t *ret_index, struct gclk_error *reterr)
{
	int r = 0;

	pthread_mutex_lock(&end->lock);
	if (end->broken.status) {
		r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "%s",
			      end->broken.message);
	} else if (end->n_channels >= CHANNELS_MAX) {
		r = gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
			      "more than %d connections", CHANNELS_MAX);
	} else {
		*ret_role = storage ? WIRE_STORAGE : end->n_main ? WIRE_SIDE : WIRE_MAIN;
		*ret_index = storage ? end->n_storage++ : end->n_main++;
		end->n_channels++;
	}
	pthread_mutex_unlock(&end->lock);
	return r;
}

static void channel_fail(struct source_end *end, const struct gclk_error *error)
{
	pthread_mutex_lock(&end->lock);
	end->n_channels--;
	pthread_mutex_unlock(&end->lock);
	break_off(end, error);
}

static void channel_open(struct source_end *end, int fd, bool storage)
{
	struct gclk_error error = { .status = GCLK_NOMEM,
				    .message = "no memory for a channel" };
	struct channel *c = calloc(1, sizeof(*c));
	pthread_attr_t attributes;
	pthread_t thread;
	uint32_t index = 0;
	uint8_t role = 0;

	if (!c || channel_enter(end, storage, &role, &index, &error) < 0) {
		free(c);
		close(fd);
		break_off(end, &error);
		return;
	}
	c->end = end;
	c->is_main = role == WIRE_MAIN;
	if (c->is_main) {
		pthread_mutex_lock(&end->lock);
		passage_init(&end->passage, wall_clock_ns());
		pthread_mutex_unlock(&end->lock);
	}
	link_init(&c->here, fd, fd, "the hypervisor");
	if (dial_channel(end, role, index, &c->there, &error) < 0) {
		link_close(&c->here);
		free(c);
		channel_fail(end, &error);
		return;
	}
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, channel_run, c) != 0) {
		link_close(&c->here);
		link_close(&c->there);
		free(c);
		gclk_fail(&error, GCLK_SYS, NULL, GCLK_NO_OFFSET,
			  "no thread for a channel");
		channel_fail(end, &error);
	}
	pthread_attr_destroy(&attributes);
}

/*
 * The sockets are the group's of all hypervisors here: the first who connects would be taken
 * for the guest, with whatever he sends. libvirt's daemon connects for it, or the guest's own.
 */
static bool may_connect(const struct source_end *end, int fd)
{
	struct ucred user = { .uid = (uid_t)-1 };
	socklen_t n = sizeof(user);

	return end->guest_pid <= 0 ||
	       (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &n) == 0 &&
		(user.uid == 0 || user.uid == geteuid() || user.pid == end->guest_pid));
}

static void *accept_run(void *arg)
{
	struct source_end *end = arg;
	struct pollfd p[3] = { { end->listener, POLLIN, 0 },
			       { end->nbd_listener, POLLIN, 0 },
			       { end->quit, POLLIN, 0 } };

	for (;;) {
		if (poll(p, 3, -1) < 0 && errno != EINTR) {
			return NULL;
		}
		if (p[2].revents) {
			return NULL;
		}
		for (unsigned i = 0; i < 2; i++) {
			int fd = p[i].revents & POLLIN
					 ? accept4(p[i].fd, NULL, NULL, SOCK_CLOEXEC)
					 : -1;

			if (fd >= 0 && may_connect(end, fd)) {
				channel_open(end, fd, i == 1);
			} else if (fd >= 0) {
				close(fd);
			}
		}
	}
}

/* ---- control ---- */

static int answer_where(struct source_end *end, const struct wire_message *where,
			struct gclk_error *reterr)
{
	struct wire_message m = { .type = WIRE_THERE };

	m.there.number = where->where.number;
	m.there.age_ns = boot_clock_ns() - end->opened_boot_ns;
	pthread_mutex_lock(&end->lock);
	passage_stop(&end->passage, where->where.ran_offset, where->where.stopped_offset,
		     wall_clock_ns(), &m.there.low_ns, &m.there.high_ns);
	pthread_mutex_unlock(&end->lock);
	return port_send(&end->port, &m, NULL, reterr);
}

static int take_report(struct source_end *end, const struct wire_message *m,
		       struct gclk_error *reterr)
{
	struct move *move = malloc(sizeof(*move));
	int r;

	pthread_mutex_lock(&end->lock);
	end->reporting = true;
	pthread_mutex_unlock(&end->lock);
	r = move ? peer_read_report(&end->port.reader, m->report.json, m->report.size,
				    move, reterr)
		 : gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	pthread_mutex_lock(&end->lock);
	end->reporting = false;
	if (r < 0) {
		pthread_cond_broadcast(&end->changed);
		pthread_mutex_unlock(&end->lock);
		free(move);
		return r;
	}
	if (end->report) {
		free(move);
	} else {
		end->report = move;
	}
	/* reported and broken off: the hypervisor must not wait for more */
	if (move->verdict == MOVE_REFUSED || move->verdict == MOVE_CANCELLED) {
		if (!end->broken.status) {
			gclk_fail(&end->broken,
				  move->verdict == MOVE_REFUSED ? GCLK_REFUSED
								: GCLK_PEER,
				  NULL, GCLK_NO_OFFSET, "%s", move->why);
		}
		raise_event(end->cancel);
	}
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
	return 0;
}

static int take_message(struct source_end *end, const struct wire_message *m,
			struct gclk_error *reterr)
{
	switch (m->type) {
	case WIRE_ASK:
		return asker_answer(&end->port, m, reterr);
	case WIRE_WHERE:
		return answer_where(end, m, reterr);
	case WIRE_APART:
		pthread_mutex_lock(&end->lock);
		end->apart = m->apart;
		pthread_mutex_unlock(&end->lock);
		return 0;
	case WIRE_REPORT:
		return take_report(end, m, reterr);
	default:
		return port_refusal(m, reterr);
	}
}

static void *control_run(void *arg)
{
	struct source_end *end = arg;
	struct gclk_error error = { 0 };
	struct pollfd quit = { end->quit, POLLIN, 0 };
	struct wire_message m;
	int64_t heard_ns = clock_mono_ns();
	int r;

	do {
		r = port_receive(&end->port, &m, heard_ns + SILENCE_NS, end->quit,
				 &error);
		if (r == LINK_WAIT) {
			r = clock_mono_ns() < heard_ns + SILENCE_NS
				    ? LINK_WAIT
				    : gclk_fail(&error, GCLK_PEER, end->port.link.name,
						GCLK_NO_OFFSET,
						"the other end has said nothing for %d s",
						(int)(SILENCE_NS / GCLK_NS_PER_S));
			continue;
		}
		heard_ns = clock_mono_ns();
		if (r == 0) {
			r = take_message(end, &m, &error);
			wire_clear(&m);
		}
	} while ((r == 0 || r == LINK_WAIT) && poll(&quit, 1, 0) == 0);
	if (r < 0 && r != LINK_WAIT) {
		break_off(end, &error);
	}
	pthread_mutex_lock(&end->lock);
	end->over = true;
	pthread_cond_broadcast(&end->changed);
	pthread_mutex_unlock(&end->lock);
	return NULL;
}

/* ---- opening ---- */

static void copy_tls(struct source_end *end, const struct peer_tls *from)
{
	const char *const texts[5] = { from->ca, from->certificate, from->key, from->crl,
				       from->name };

	for (unsigned i = 0; i < 5; i++) {
		gclk_text_copy(end->tls_files[i], sizeof(end->tls_files[i]),
			       texts[i] ? texts[i] : "");
	}
	end->tls = (struct peer_tls){ end->tls_files[0], end->tls_files[1],
				      end->tls_files[2], end->tls_files[3],
				      end->tls_files[4] };
}

static void move_say(struct wire_move *move, const struct source_end_options *o)
{
	const char *there = o->there_path ? o->there_path : o->listen_path;
	const char *storage = o->there_nbd_path ? o->there_nbd_path : o->nbd_path;

	gclk_text_copy(move->verb, sizeof(move->verb), o->verb ? o->verb : "migrate");
	gclk_text_copy(move->domain, sizeof(move->domain), o->domain ? o->domain : "");
	gclk_text_copy(move->uuid, sizeof(move->uuid), o->uuid ? o->uuid : "");
	gclk_text_copy(move->main_path, sizeof(move->main_path), there);
	gclk_text_copy(move->storage_path, sizeof(move->storage_path),
		       storage ? storage : "");
	move->policy = o->policy;
	for (const char *const *id = o->policy.force;
	     id && *id && move->n_force < WIRE_FORCE_MAX; id++) {
		gclk_text_copy(move->force[move->n_force++], sizeof(move->force[0]), *id);
	}
	move->policy.force = NULL;
	move->max_hold_ns = o->max_hold_ns;
	move->own_resume = o->own_resume;
	move->tells_stop = o->tells_stop;
	move->ask_monitor = o->ask_monitor;
	move->running = o->running;
	move->unreadable = o->unreadable;
	move->disagree = o->disagree;
	move->disagree_limit_ns = o->disagree_limit_ns;
}

static int open_control(struct source_end *end, const struct source_end_options *o,
			struct gclk_error *reterr)
{
	struct wire_message m;
	int64_t deadline = clock_mono_ns() + end->connect_ms * GCLK_NS_PER_MS;
	struct link link;
	int r;

	hello_init(end, &m, WIRE_CONTROL, 0);
	move_say(&m.hello.move, o);
	r = read_this_host(&m.hello.move.host, reterr);
	if (r == 0) {
		r = link_dial(end->address, &end->tls, end->connect_ms, &link, reterr);
	}
	if (r < 0) {
		return r;
	}
	port_init(&end->port, &link);
	end->port.reader = (struct peer_reader){ .worker = end->worker, .keeps = true };
	end->opened_boot_ns = link.opened_ns;
	r = port_send(&end->port, &m, NULL, reterr);
	return r < 0 ? r : receive_welcome(&end->port, deadline, &end->peer, reterr);
}

static int start(struct source_end *end, const struct source_end_options *o,
		 struct gclk_error *reterr)
{
	int r = open_control(end, o, reterr);

	if (r == 0 && end->listen_path[0]) {
		r = listen_unix(end->listen_path, 0660, o->group, &end->listener, reterr);
	}
	if (r == 0 && end->nbd_path[0]) {
		r = listen_unix(end->nbd_path, 0660, o->group, &end->nbd_listener,
				reterr);
	}
	if (r < 0) {
		return r;
	}
	end->has_control_thread =
		pthread_create(&end->control_thread, NULL, control_run, end) == 0;
	end->has_accept_thread =
		pthread_create(&end->accept_thread, NULL, accept_run, end) == 0;
	if (!end->has_control_thread || !end->has_accept_thread) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "no threads");
	}
	return 0;
}

static struct source_end *end_new(const struct source_end_options *o)
{
	struct source_end *end = calloc(1, sizeof(*end));
	pthread_condattr_t attributes;
	struct link none;

	if (!end) {
		return NULL;
	}
	link_none(&none);
	port_init(&end->port, &none);
	gclk_text_copy(end->address, sizeof(end->address), o->address);
	gclk_text_copy(end->listen_path, sizeof(end->listen_path),
		       o->listen_path ? o->listen_path : "");
	gclk_text_copy(end->nbd_path, sizeof(end->nbd_path),
		       o->nbd_path ? o->nbd_path : "");
	copy_tls(end, &o->tls);
	end->connect_ms = o->connect_timeout_ms > 0 ? o->connect_timeout_ms : CONNECT_MS;
	end->worker = o->worker;
	end->guest_pid = o->guest_pid;
	end->listener = end->nbd_listener = -1;
	end->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	end->quit = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	end->apart.uncertainty_ns = GCLK_UNBOUNDED;
	pthread_mutex_init(&end->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&end->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return end;
}

int source_end_open(const struct source_end_options *options, struct source_end **ret,
		    struct gclk_error *reterr)
{
	struct source_end *end;
	int r;

	if (strlen(options->address) >= sizeof(end->address) ||
	    (options->listen_path && strlen(options->listen_path) >= WIRE_PATH_BYTES) ||
	    (options->nbd_path && strlen(options->nbd_path) >= WIRE_PATH_BYTES)) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "an address or a path is too long");
	}
	end = end_new(options);
	if (!end) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	if (end->cancel < 0 || end->quit < 0 ||
	    getrandom(end->session, sizeof(end->session), 0) !=
		    (ssize_t)sizeof(end->session)) {
		r = gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "%s",
			      strerror(errno));
	} else {
		r = start(end, options, reterr);
	}
	if (r < 0) {
		source_end_close(end);
		return r;
	}
	*ret = end;
	return 0;
}

/* ---- for the caller ---- */

const struct gclk_host *source_end_peer(const struct source_end *end)
{
	return &end->peer;
}

void source_end_disagreement(struct source_end *end, struct gclk_disagreement *ret)
{
	pthread_mutex_lock(&end->lock);
	*ret = end->apart;
	pthread_mutex_unlock(&end->lock);
}

void source_end_stopped(struct source_end *end, const struct gclk_instant *stop,
			const char *basis)
{
	struct wire_message m = { .type = WIRE_STOPPED };
	struct gclk_error error;

	if (port_wall_was_set(&end->port)) {
		source_end_cancel(end, "when the guest stopped cannot be told, the source's wall "
				       "clock was set a moment before");
		return;
	}
	m.stopped.at = *stop;
	gclk_text_copy(m.stopped.basis, sizeof(m.stopped.basis), basis);
	m.stopped.age_ns = boot_clock_ns() - end->opened_boot_ns;
	if (port_send(&end->port, &m, NULL, &error) < 0) {
		break_off(end, &error);
	}
}

int64_t source_end_ran(struct source_end *end, int64_t stopped_ns)
{
	int64_t ran;

	pthread_mutex_lock(&end->lock);
	ran = passage_ran(&end->passage, stopped_ns);
	pthread_mutex_unlock(&end->lock);
	return ran;
}

uint64_t source_end_bytes(struct source_end *end)
{
	return atomic_load_explicit(&end->bytes, memory_order_relaxed);
}

int source_end_broken(struct source_end *end, struct gclk_error *reterr)
{
	int r;

	pthread_mutex_lock(&end->lock);
	r = -end->broken.status;
	if (r < 0 && reterr) {
		*reterr = end->broken;
	}
	pthread_mutex_unlock(&end->lock);
	return r;
}

static bool wait_changed(struct source_end *end, int64_t deadline_ns)
{
	struct timespec t = { deadline_ns / GCLK_NS_PER_S, deadline_ns % GCLK_NS_PER_S };

	return pthread_cond_timedwait(&end->changed, &end->lock, &t) != ETIMEDOUT;
}

int source_end_report(struct source_end *end, int timeout_ms, struct move *ret,
		      struct gclk_error *reterr)
{
	int64_t deadline = clock_mono_ns() + timeout_ms * GCLK_NS_PER_MS;
	int r = 0;

	pthread_mutex_lock(&end->lock);
	while (!end->report && !end->over) {
		if (!wait_changed(end, deadline)) {
			if (!end->reporting) {
				break;
			}
			deadline = clock_mono_ns() + REPORTING_NS;
		}
	}
	if (end->report) {
		*ret = *end->report;
	} else if (end->broken.status) {
		r = -GCLK_PEER;
		if (reterr) {
			*reterr = end->broken;
			reterr->status = GCLK_PEER;
		}
	} else {
		r = gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
			      "the destination has not reported yet");
	}
	pthread_mutex_unlock(&end->lock);
	return r;
}

bool source_end_finish(struct source_end *end, int timeout_ms)
{
	int64_t deadline = clock_mono_ns() + timeout_ms * GCLK_NS_PER_MS;
	bool over;

	pthread_mutex_lock(&end->lock);
	while (end->n_channels && wait_changed(end, deadline)) {
	}
	over = end->n_channels == 0;
	pthread_mutex_unlock(&end->lock);
	return over;
}

void source_end_cancel(struct source_end *end, const char *why)
{
	struct wire_message m = { .type = WIRE_CANCEL };
	struct gclk_error error = { .status = GCLK_STATE, .offset = GCLK_NO_OFFSET };
	bool over;

	gclk_text_copy(m.cancel.why, sizeof(m.cancel.why), why);
	snprintf(error.message, sizeof(error.message), "cancelled: %.200s", why);
	pthread_mutex_lock(&end->lock);
	over = end->report || end->over;
	pthread_mutex_unlock(&end->lock);
	if (!over) {
		port_send(&end->port, &m, NULL, NULL);
		break_off(end, &error);
	}
}

static void stop_listening(int *fd, const char *path)
{
	if (*fd >= 0) {
		close(*fd);
		unlink(path);
	}
	*fd = -1;
}

struct source_end *source_end_close(struct source_end *end)
{
	if (!end) {
		return NULL;
	}
	raise_event(end->quit);
	raise_event(end->cancel);
	if (end->has_accept_thread) {
		pthread_join(end->accept_thread, NULL);
	}
	if (end->has_control_thread) {
		pthread_join(end->control_thread, NULL);
	}
	pthread_mutex_lock(&end->lock);
	while (end->n_channels) {
		pthread_cond_wait(&end->changed, &end->lock);
	}
	pthread_mutex_unlock(&end->lock);
	stop_listening(&end->listener, end->listen_path);
	stop_listening(&end->nbd_listener, end->nbd_path);
	port_close(&end->port);
	if (end->cancel >= 0) {
		close(end->cancel);
	}
	if (end->quit >= 0) {
		close(end->quit);
	}
	pthread_cond_destroy(&end->changed);
	pthread_mutex_destroy(&end->lock);
	free(end->report);
	free(end);
	return NULL;
}
