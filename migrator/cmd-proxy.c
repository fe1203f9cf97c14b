/* SPDX-License-Identifier: MIT */
/*
 * `guestclock proxy`: an end of the stream for migrations that somebody else starts.
 *
 *	--stdio				the destination end, as ssh starts it
 *	--listen PATH --to ADDRESS	the source end, to another host's destination end
 *	--listen PATH --connect PATH	both in one: a filter in a path
 */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/live-resume.h"
#include "migrator/message.h"
#include "migrator/peer/source_end.h"
#include "migrator/peer/stdio_end.h"
#include "migrator/report-json.h"
#include "migrator/tls-options.h"
#include "migrator/verbs.h"

#define FINISH_MS 10000 /* for the hypervisor's last words */

enum { ROW_STDIO, ROW_LISTEN, ROW_TO, ROW_CONNECT };

static struct proxy {
	const char *listen, *nbd_listen, *to, *connect, *nbd_connect, *there, *nbd_there;
	const char *uuid, *domain, *audit, *margins, *libvirt;
	const char *directories[DESTINATION_DIRECTORIES];
	unsigned n_directories;
	struct peer_tls tls;
	gid_t group;
	int64_t max_hold_ns;
	uint8_t unreadable, disagree;
	int64_t limit_ns;
	const struct gclk_worker *worker; /* who filters, and reads what the other end says */
} proxy = { .group = (gid_t)-1, .max_hold_ns = PEER_MAX_HOLD_NS };

#define TEXT_OPTION(name)                                                                \
	static int set_##name(struct options *o, const char *text,                       \
			      struct gclk_error *reterr)                                 \
	{                                                                                \
		(void)reterr;                                                            \
		((struct proxy *)o->own)->name = text;                                   \
		return 0;                                                                \
	}
TEXT_OPTION(listen)
TEXT_OPTION(nbd_listen)
TEXT_OPTION(connect)
TEXT_OPTION(nbd_connect)
TEXT_OPTION(there)
TEXT_OPTION(nbd_there)
TEXT_OPTION(uuid)
TEXT_OPTION(domain)
TEXT_OPTION(audit)
TEXT_OPTION(margins)
TEXT_OPTION(libvirt)

static int set_to(struct options *o, const char *text, struct gclk_error *reterr)
{
	((struct proxy *)o->own)->to = text;
	return link_check_address(text, reterr);
}

static int set_directory(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct proxy *p = o->own;

	if (p->n_directories == DESTINATION_DIRECTORIES) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET, "too many");
	}
	p->directories[p->n_directories++] = text;
	return 0;
}

static int set_group(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct group *group = getgrnam(text);

	if (!group) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "there is no group \"%s\"", text);
	}
	((struct proxy *)o->own)->group = group->gr_gid;
	return 0;
}

static int set_max_hold(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_span(text, &((struct proxy *)o->own)->max_hold_ns, reterr);
}

static int set_unreadable(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct proxy *p = o->own;

	p->unreadable = !strcmp(text, "refuse") ? PEER_REFUSE : PEER_PASS;
	return p->unreadable == PEER_REFUSE || !strcmp(text, "pass")
		       ? 0
		       : gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				   "pass or refuse");
}

static int set_limit(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct proxy *p = o->own;

	p->disagree = PEER_REFUSE_APART;
	return parse_span(text, &p->limit_ns, reterr);
}

TLS_SETTERS(struct proxy, tls)

/* clang-format off */
static const struct option_row rows[] = {
	[ROW_STDIO] = { "stdio", 0, NULL, NULL,
		"be the destination end on standard input and output" },
	[ROW_LISTEN] = { "listen", 0, "PATH", set_listen,
		"where the source's hypervisor connects (a UNIX socket)" },
	[ROW_TO] = { "to", 0, "ADDRESS", set_to,
		"the destination end: unix:PATH, tls:HOST[:PORT],\n"
		"exec:COMMAND" },
	[ROW_CONNECT] = { "connect", 0, "PATH", set_connect,
		"where the destination's hypervisor listens, instead of\n"
		"what the source end asks for" },
	{ "there", 0, "PATH", set_there,
		"with --to: that socket on the other host; default: the\n"
		"same path as here" },
	{ "nbd-listen", 0, "PATH", set_nbd_listen, "the same for disks: here" },
	{ "nbd-there", 0, "PATH", set_nbd_there, "... on the other host" },
	{ "nbd-connect", 0, "PATH", set_nbd_connect, "... instead of what is asked for" },
	{ "uuid", 0, "UUID", set_uuid,
		"of the guest: then libvirt tells when it runs" },
	{ "domain", 0, "NAME", set_domain, "its name, for reports" },
	{ "group", 0, "GROUP", set_group, "of the sockets, mode 0660" },
	{ "directory", 0, "DIR", set_directory,
		"where the destination's sockets may be; default\n"
		"/run/guestclock; once for each", true },
	{ "max-hold", 0, "DURATION", set_max_hold,
		"how long the guest may be held back for its instant;\n"
		"default 20ms" },
	{ "unreadable", 0, "CHOICE", set_unreadable,
		"a stream that cannot be filtered: pass (default), refuse" },
	{ "max-disagreement", 0, "DURATION", set_limit,
		"refuse where the hosts' clocks are further apart" },
	{ "audit", 0, "FILE", set_audit, "append the report to this log" },
	{ "margins", 0, "FILE", set_margins, "what earlier moves taught" },
	{ "libvirt", 0, "URI", set_libvirt, "of the destination's libvirt" },
	TLS_ROWS,
};
/* clang-format on */

static void log_line(int priority, const char *text)
{
	message(priority <= 3	? "error"
		: priority <= 4 ? "warning"
				: "note",
		NULL, NULL, EFFECT_READING, NULL, "%s", text);
}

static void copy(char *to, size_t size, const char *from)
{
	gclk_text_copy(to, size, from ? from : "");
}

static void destination_say(struct destination_options *d, const struct proxy *p,
			    char margins[256])
{
	destination_options_init(d);
	for (unsigned i = 0; i < p->n_directories; i++) {
		copy(d->directories[i], DESTINATION_PATH, p->directories[i]);
	}
	copy(d->main_path, sizeof(d->main_path), p->connect);
	copy(d->storage_path, sizeof(d->storage_path), p->nbd_connect);
	copy(d->audit_path, sizeof(d->audit_path), p->audit);
	copy(d->margins_path, sizeof(d->margins_path),
	     p->margins ? p->margins : live_margins_path(margins));
	d->resume = live_resume();
	d->resume_ctx = (void *)(uintptr_t)p->libvirt;
	d->log = log_line;
	d->worker = p->worker;
}

/* What goes to standard output must not get into the stream. */
static int run_stdio(const struct proxy *p)
{
	struct destination_options d;
	struct gclk_error error;
	char margins[256];
	int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (in < 0 || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0) {
		message("error", NULL, gclk_status_name(GCLK_SYS), EFFECT_NONE, NULL,
			"standard input and output are not there");
		return GCLK_SYS;
	}
	/* a terminal that goes away does not undo a resume that is due */
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	destination_say(&d, p, margins);
	if (stdio_end_run(&d, in, out, &error) < 0) {
		return fail(NULL, &error, EFFECT_NONE, NULL);
	}
	return 0;
}

static int signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Until the destination has reported, or something broke. */
static int await(struct source_end *end, int signal_fd, struct move *ret,
		 struct gclk_error *reterr)
{
	struct pollfd p = { signal_fd, POLLIN, 0 };
	int r;

	for (;;) {
		r = source_end_report(end, 100, ret, reterr);
		if (r != -GCLK_STATE) {
			return r;
		}
		if (poll(&p, 1, 0) > 0) {
			source_end_cancel(end, "a signal has ended the source end");
			r = source_end_report(end, 2000, ret, reterr);
			return r == 0 ? 0
				      : gclk_fail(reterr, GCLK_STATE, NULL,
						  GCLK_NO_OFFSET, "ended by a signal");
		}
	}
}

static int put_move(const struct options *o, const struct move *move)
{
	if (given(o, OPTION(JSON))) {
		json_print(move_to_json(move));
	} else if (move_print(move) != 0) {
		return GCLK_NOMEM;
	}
	switch (move->verdict) {
	case MOVE_REFUSED:
		return GCLK_REFUSED;
	case MOVE_CANCELLED:
		return GCLK_PEER;
	default:
		return 0;
	}
}

static void source_say(struct source_end_options *s, const struct proxy *p,
		       const struct settings *settings, const char *address)
{
	source_end_options_init(s);
	s->verb = "proxy";
	s->tells_stop = 0;
	s->address = address;
	s->worker = p->worker;
	s->listen_path = p->listen;
	s->nbd_path = p->nbd_listen;
	s->there_path = p->there ? p->there : p->connect;
	s->there_nbd_path = p->nbd_there ? p->nbd_there : p->nbd_connect;
	s->group = p->group;
	s->tls = p->tls;
	s->domain = p->domain ? p->domain : "";
	s->uuid = p->uuid ? p->uuid : "";
	s->policy = settings->policy;
	s->max_hold_ns = p->max_hold_ns;
	s->unreadable = p->unreadable;
	s->disagree = p->disagree;
	s->disagree_limit_ns = (uint64_t)p->limit_ns;
}

static int run_source(const struct options *o, const struct proxy *p, const char *address)
{
	struct source_end_options s;
	struct settings settings;
	struct source_end *end;
	struct gclk_error error;
	struct move move;
	int fd, r;

	settings_init(&settings);
	if (settings_read_file(&settings, o->conf, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	settings_read_options(&settings, o);
	source_say(&s, p, &settings, address);
	fd = signals();
	if (source_end_open(&s, &end, &error) < 0) {
		return fail(p->listen, &error, EFFECT_NONE, NULL);
	}
	fprintf(stderr, "guestclock: ready: unix:%s\n", p->listen);
	r = await(end, fd, &move, &error);
	if (r == 0) {
		source_end_finish(end, FINISH_MS);
	}
	source_end_close(end);
	close(fd);
	return r < 0 ? fail(p->listen, &error, EFFECT_NONE, NULL) : put_move(o, &move);
}

static int run_both(const struct options *o, struct proxy *p)
{
	struct destination_options d;
	struct inner_end *inner;
	struct gclk_error error;
	char margins[256], address[128];
	int r;

	destination_say(&d, p, margins);
	if (inner_end_open(&d, &inner, address, &error) < 0) {
		return fail(NULL, &error, EFFECT_NONE, NULL);
	}
	r = run_source(o, p, address);
	inner_end_close(inner);
	return r;
}

static int run(const struct options *o)
{
	struct proxy *p = o->own;
	struct gclk_error error;

	/* the guest stands still while its last bytes wait for it */
	confine_set_nice(CONFINE_NICE_LIVE);
	if (confine_worker(o->conf, &p->worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (p->worker && !p->to) {
		confine_keep_spare();
	}
	if (own_given(o, ROW_STDIO)) {
		return p->listen || p->to
			       ? usage_error(
					 "proxy",
					 "--stdio is the destination's end: it neither "
					 "listens nor dials another one")
			       : run_stdio(p);
	}
	if (!p->listen || !p->to == !p->connect) {
		return usage_error("proxy",
				   "--stdio, or --listen with --to or with --connect");
	}
	return p->to ? run_source(o, p, p->to) : run_both(o, p);
}

const struct verb verb_proxy = {
	.name = "proxy",
	.summary = SUMMARY_PROXY,
	.synopsis = "",
	.text = "Stands in the path of a live migration that somebody else starts "
		"(virsh, a "
		"manager, plain QMP) and makes the guest's clocks right as its stream "
		"passes. "
		"The hypervisor of the source connects to --listen, and what it sends "
		"goes to the "
		"destination end, which connects to the hypervisor there: over a UNIX "
		"socket, "
		"TLS, or the standard input and output of a command such as ssh. The two "
		"ends "
		"measure how far the hosts' clocks are apart. With --connect instead of "
		"--to there "
		"is one end only, for hypervisors that reach each other in another way: "
		"the clocks "
		"are then this host's. One move; the report comes at its end. Anything "
		"that breaks "
		"before the last byte leaves the guest where it was.",
	.example = "guestclock proxy --listen /run/guestclock/web1.sock "
		   "--to 'exec:ssh host2 guestclock proxy --stdio'",
	.options = OPTIONS_COMMON | OPTION(CONF) | OPTION(GAP) | OPTION(TICKS) |
		   OPTION(FORCE),
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &proxy,
};
