/* SPDX-License-Identifier: MIT */
/*
 * guestclockd: the destination end of live moves as a service. Accepts on a UNIX socket and
 * over TLS; many sessions at once. SIGHUP reads the settings again; SIGTERM ends what can be
 * undone and finishes what cannot.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/daemon/conf.h"
#include "migrator/daemon/notify.h"
#include "migrator/live-resume.h"
#include "migrator/message.h"
#include "migrator/metrics.h"
#include "migrator/peer/reader.h"

#define FINISH_NS (40 * GCLK_NS_PER_S) /* for moves that have let their guest go */

struct daemon {
	const char *conf_path;
	struct daemon_conf conf;
	struct destination_end *end;
	struct server *server;
	struct metrics *metrics;
	int signals;
	int metrics_fd, metrics_quit; /* the second: an eventfd */
	pthread_t metrics_thread;
	bool has_metrics_thread;
};

static struct metrics *metrics; /* for the callbacks, which have no context */
static const char *metrics_file;

/* Lines with a priority, as the journal reads them from standard error. */
static void log_line(int priority, const char *text)
{
	char clean[700];

	fprintf(stderr, "<%d>%s\n", priority, clean_text(clean, sizeof(clean), text));
}

static void log_error(int priority, const char *what, const struct gclk_error *error)
{
	char text[600];

	snprintf(text, sizeof(text), "%s: %s%s%s", what, error->where,
		 error->where[0] ? ": " : "", error->message);
	log_line(priority, text);
}

/* ---- metrics ---- */

static void count_move(const struct move *move)
{
	struct gclk_error error;

	metrics_count(metrics, move);
	if (metrics_file && metrics_write(metrics, metrics_file, &error) < 0) {
		log_error(4, "metrics", &error);
	}
}

static void count_session(int step)
{
	metrics_session(metrics, step);
}

static void *run_metrics(void *arg)
{
	struct daemon *d = arg;
	struct pollfd p[2] = { { d->metrics_fd, POLLIN, 0 }, { d->metrics_quit, POLLIN, 0 } };

	while (poll(p, 2, -1) >= 0 || errno == EINTR) {
		int fd;

		if (p[1].revents) {
			break;
		}
		fd = p[0].revents ? accept4(d->metrics_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd >= 0) {
			metrics_serve(d->metrics, fd, 2000);
		}
	}
	return NULL;
}

/* A path, or an address of this host alone. */
static int open_metrics(struct daemon *d, struct gclk_error *reterr)
{
	const char *where = d->conf.metrics;
	int r;

	if (!where[0]) {
		return 0;
	}
	r = where[0] == '/' ? listen_unix(where, d->conf.socket_mode,
					  d->conf.socket_group, &d->metrics_fd, reterr)
			    : listen_loopback(where, &d->metrics_fd, reterr);
	if (r == 0) {
		d->metrics_quit = eventfd(0, EFD_CLOEXEC);
		d->has_metrics_thread =
			d->metrics_quit >= 0 &&
			pthread_create(&d->metrics_thread, NULL, run_metrics, d) == 0;
	}
	return r;
}

static void close_metrics(struct daemon *d)
{
	if (d->has_metrics_thread) {
		eventfd_write(d->metrics_quit, 1);
		pthread_join(d->metrics_thread, NULL);
	}
	if (d->metrics_quit >= 0) {
		close(d->metrics_quit);
	}
	if (d->metrics_fd >= 0) {
		close(d->metrics_fd);
		if (d->conf.metrics[0] == '/') {
			unlink(d->conf.metrics);
		}
	}
}

/* ---- settings ---- */

/* Who filters the streams; it is chosen at the start. */
static const struct gclk_worker *filterer;

static void make_options(const struct daemon_conf *conf, struct destination_options *ret)
{
	daemon_conf_options(conf, ret);
	ret->resume = strcmp(conf->libvirt, "none") ? live_resume() : NULL;
	ret->log = log_line;
	ret->worker = filterer;
	ret->ended = count_move;
	ret->session = count_session;
}

static int make_identity(const struct daemon_conf *conf, struct tls_identity **ret,
			 struct gclk_error *reterr)
{
	const struct peer_tls files = { .ca = conf->tls_ca,
					.certificate = conf->tls_cert,
					.key = conf->tls_key,
					.crl = conf->tls_crl };

	return tls_identity_new(&files, true, ret, reterr);
}

static void apply_names(struct daemon *d)
{
	char *names[DAEMON_NAMES];

	for (unsigned i = 0; i < d->conf.n_tls_names; i++) {
		names[i] = d->conf.tls_names[i];
	}
	server_names(d->server, names, d->conf.n_tls_names);
}

/*
 * Sockets and libvirt's URI, which sessions under way have borrowed, stay as they are;
 * everything else counts from now on.
 */
static void reload(struct daemon *d)
{
	struct destination_options options;
	struct daemon_conf conf;
	struct tls_identity *identity = NULL;
	struct gclk_error error;
	int r = daemon_conf_read(d->conf_path, &conf, &error);

	if (r == 0 && server_has_tls(d->server)) {
		r = make_identity(&conf, &identity, &error);
	}
	if (r < 0) {
		log_error(3, "the settings stay as they were", &error);
		return;
	}
	memcpy(conf.libvirt, d->conf.libvirt, sizeof(conf.libvirt));
	memcpy(conf.socket, d->conf.socket, sizeof(conf.socket));
	memcpy(conf.metrics, d->conf.metrics, sizeof(conf.metrics));
	memcpy(conf.metrics_file, d->conf.metrics_file, sizeof(conf.metrics_file));
	d->conf = conf;
	make_options(&d->conf, &options);
	destination_end_configure(d->end, &options);
	server_limit(d->server, conf.max_connections, &conf.access);
	if (identity) {
		server_identity(d->server, identity);
	}
	apply_names(d);
	log_line(6, "the settings have been read again");
}

/* ---- life ---- */

/* What systemd has opened, else what the settings say. */
static int open_sockets(struct daemon *d, struct gclk_error *reterr)
{
	struct tls_identity *identity = NULL;
	int given = notify_listen_fds(), r = 0;

	for (int fd = NOTIFY_FIRST_FD; fd < NOTIFY_FIRST_FD + given && r == 0; fd++) {
		int family = 0;
		socklen_t n = sizeof(family);

		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n);
		if (family != AF_UNIX && !identity) {
			r = make_identity(&d->conf, &identity, reterr);
		}
		if (r == 0) {
			r = server_adopt(d->server, fd,
					 family == AF_UNIX ? NULL : identity, reterr);
		}
	}
	if (r < 0 || given) {
		return r;
	}
	if (d->conf.socket[0]) {
		r = server_listen_unix(d->server, d->conf.socket, d->conf.socket_mode,
				       d->conf.socket_group, reterr);
	}
	if (r == 0 && d->conf.listen[0]) {
		r = make_identity(&d->conf, &identity, reterr);
		r = r < 0 ? r
			  : server_listen_tls(d->server, d->conf.listen, identity,
					      reterr);
	}
	return r;
}

/* Once, for who wonders why they are listed there: the rest holds. */
static void say_shared(void)
{
	const char *without = confine_without();
	char text[160];

	if (*without) {
		snprintf(text, sizeof(text),
			 "confined processes keep the host's namespaces (%s), which may not be "
			 "left here; all else they give up", without);
		log_line(6, text);
	}
}

static int open_daemon(struct daemon *d, struct gclk_error *reterr)
{
	struct destination_options options;
	int r;

	metrics = d->metrics = metrics_new();
	metrics_file = d->conf.metrics_file[0] ? d->conf.metrics_file : NULL;
	if (!d->metrics) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	/* a guest stands still while its last bytes wait for it */
	confine_set_nice(CONFINE_NICE_LIVE);
	if ((r = confine_worker(d->conf_path, &filterer, reterr)) < 0) {
		return r;
	}
	if (filterer) {
		say_shared();
		confine_keep_spare();
	}
	make_options(&d->conf, &options);
	if ((r = destination_end_new(&options, &d->end, reterr)) < 0 ||
	    (r = server_new(d->end, d->conf.max_connections, &d->conf.access, &d->server,
			    reterr)) < 0 ||
	    (r = open_sockets(d, reterr)) < 0) {
		return r;
	}
	apply_names(d);
	return open_metrics(d, reterr);
}

/* Returns when it is to end. */
static int run_daemon(struct daemon *d, struct gclk_error *reterr)
{
	struct signalfd_siginfo signal;

	for (;;) {
		int r = server_run(d->server, d->signals, reterr);

		if (r < 0 ||
		    read(d->signals, &signal, sizeof(signal)) != sizeof(signal)) {
			return r;
		}
		if (signal.ssi_signo != SIGHUP) {
			return 0;
		}
		notify_state("RELOADING=1");
		reload(d);
		notify_state("READY=1");
	}
}

/* Moves that can be undone are; those that have let their guest go are finished. */
static void end_daemon(struct daemon *d)
{
	notify_state("STOPPING=1");
	if (d->end) {
		destination_end_stop(d->end, "guestclockd is shutting down");
	}
	if (d->server && !server_drain(d->server, clock_mono_ns() + FINISH_NS)) {
		log_line(4, "a connection did not end in time");
		_exit(0);
	}
	server_free(d->server);
	destination_end_free(d->end);
	close_metrics(d);
	metrics_free(d->metrics);
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int serve(struct daemon *d)
{
	struct gclk_error error = { 0 };
	int r = daemon_conf_read(d->conf_path, &d->conf, &error);

	d->signals = open_signals();
	d->metrics_fd = d->metrics_quit = -1;
	if (r == 0) {
		r = open_daemon(d, &error);
	}
	if (r == 0) {
		notify_state("READY=1\nSTATUS=Waiting for guests");
		log_line(6, "ready");
		r = run_daemon(d, &error);
	}
	if (r < 0) {
		log_error(3, "guestclockd", &error);
	}
	end_daemon(d);
	return -r;
}

static void help(FILE *to)
{
	fputs("Usage: guestclockd [--conf FILE] [--check]\n"
	      "\n"
	      "The destination end of live moves, as a service: guests that `guestclock "
	      "migrate`\n"
	      "or `guestclock proxy` sends here arrive with their clocks right.\n"
	      "\n"
	      "  --conf FILE   settings; default " CONF_PATH ", section [daemon]\n"
	      "  --check       read the settings, say what is wrong with them, and end\n"
	      "  --version, --help\n"
	      "\n"
	      "SIGHUP reads the settings again, SIGTERM ends it.\n",
	      to);
}

static int check_conf(const char *path)
{
	struct daemon_conf conf;
	struct gclk_error error;

	if (daemon_conf_read(path, &conf, &error) < 0) {
		return fail(path ? path : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	puts("the settings of [daemon] are in order");
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "conf", required_argument, NULL, 'c' },
					       { "check", no_argument, NULL, 'k' },
					       { "help", no_argument, NULL, 'h' },
					       { "version", no_argument, NULL, 'v' },
					       { 0 } };
	static struct daemon d;
	bool check = false;
	int option;

	confine_set_reader(peer_read);
	option = confine_entry(argc, argv);
	if (option >= 0) {
		return option;
	}
	while ((option = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (option) {
		case 'c':
			d.conf_path = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'h':
			help(stdout);
			return 0;
		case 'v':
			puts("guestclockd " GUESTCLOCK_VERSION);
			return 0;
		default:
			return GCLK_USAGE;
		}
	}
	if (optind < argc) {
		help(stderr);
		return GCLK_USAGE;
	}
	return check ? check_conf(d.conf_path) : serve(&d);
}
