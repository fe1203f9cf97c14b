/* SPDX-License-Identifier: MIT */
/*
 * guestclock migrate: libvirt moves the guest, its state goes through our two ends.
 *
 * The source end is opened in this process. It listens where libvirt is told to connect,
 * and the destination end patches the clocks and resumes the guest, so that nothing waits
 * for this process once the state has gone. Everything is looked at before libvirt is
 * asked for anything: a refusal changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/migration.h"
#include "migrator/offsets.h"
#include "migrator/peer/link.h"
#include "migrator/report-json.h"
#include "migrator/report-text.h"
#include "migrator/situation.h"
#include "migrator/takes.h"
#include "migrator/tls-options.h"
#include "migrator/verbs.h"
#include "migrator/virt/domain.h"
#include "migrator/virt/waits.h"
#include "migrator/wall.h"

#define APART_WAIT_NS (2 * GCLK_NS_PER_S)
#define STEP_NS 200000 /* less is the two readings' own */
#define REPORT_WAIT_MS 5000 /* libvirt has ended; the destination measures its resume */

/* The first ^C asks libvirt to break off; QEMU then goes on at the source. */
static atomic_int interrupted;

static void on_signal(int number)
{
	atomic_store(&interrupted, number);
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* ---- before anything moves ---- */

static int find_domain(struct migration *m)
{
	const struct options *o = m->o;
	struct gclk_error error;
	int reason;

	if (confine_worker(o->conf, &m->worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (virt_connect(m->own->connect, false, &m->here, &error) < 0 ||
	    virt_domain(m->here, o->files[0], &m->domain, &error) < 0 ||
	    virDomainGetUUIDString(m->domain, m->uuid) < 0 ||
	    virt_domain_read(m->domain, m->worker, &m->xml, &error) < 0) {
		return fail(o->files[0], &error, EFFECT_NONE, NULL);
	}
	if (virDomainGetState(m->domain, &m->state, &reason, 0) < 0 ||
	    (m->state != VIR_DOMAIN_RUNNING && m->state != VIR_DOMAIN_PAUSED)) {
		message("error", o->files[0], gclk_status_name(GCLK_STATE), EFFECT_NONE, NULL,
			"the guest does not run");
		return GCLK_STATE;
	}
	return 0;
}

static int find_policies(struct migration *m)
{
	struct gclk_error error;

	settings_init(&m->settings);
	if (settings_read_file(&m->settings, m->o->conf, &error) < 0) {
		return fail(m->o->conf ? m->o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (settings_read_domain(&m->settings, &m->xml, &error) < 0) {
		return fail(m->o->files[0], &error, EFFECT_NONE, NULL);
	}
	settings_read_options(&m->settings, m->o);
	return 0;
}

/*
 * The other libvirt: for --direct it is needed; else it can tell more than the other end
 * does, if this process may reach it.
 */
static int find_there(struct migration *m)
{
	struct gclk_error error;

	if (virt_connect(m->o->files[1], false, &m->there, &error) == 0) {
		return 0;
	}
	if (own_given(m->o, MIGRATE_DIRECT)) {
		return fail(m->o->files[1], &error, EFFECT_NONE, NULL);
	}
	m->there = NULL;
	return 0;
}

static int interrupted_early(const struct migration *m)
{
	message("error", m->xml.name, gclk_status_name(GCLK_STATE), EFFECT_NONE, NULL,
		"a signal came before anything moved");
	return GCLK_STATE;
}

static int open_end(struct migration *m)
{
	struct migrate_options *own = m->own;
	struct source_end_options s;
	struct gclk_error error;

	source_end_options_init(&s);
	s.listen_path = m->path;
	s.nbd_path = migration_copies_disks(m) ? m->disks_path : NULL;
	s.address = m->address;
	s.worker = m->worker;
	s.tls = own->tls;
	s.domain = m->xml.name;
	s.uuid = m->uuid;
	s.policy = m->settings.policy;
	s.max_hold_ns = own->max_hold_ns;
	s.unreadable = own->unreadable;
	s.disagree = own->disagree;
	s.disagree_limit_ns = (uint64_t)own->limit_ns;
	s.own_resume = migration_runs_there(m);
	s.tells_stop = migration_runs_there(m);
	s.ask_monitor = own->ask_monitor;
	/* else the stream tells, should somebody suspend it on the way */
	s.running = !migration_runs_there(m) ? 0 : own->timeout_s ? 1 : -1;
	s.group = migration_group(m);
	s.guest_pid = offsets_pid_of("", m->xml.name);
	if (source_end_open(&s, &m->end, &error) < 0) {
		return atomic_load(&interrupted) ? interrupted_early(m) :
						   fail(m->address, &error, EFFECT_NONE, NULL);
	}
	return 0;
}

static bool is_forced(const struct options *o, const char *id)
{
	for (unsigned i = 0; i < o->n_force; i++) {
		if (!strcmp(o->force[i], id)) {
			return true;
		}
	}
	return false;
}

static int refuse(const struct migration *m, const struct gclk_findings *findings)
{
	for (unsigned i = 0; i < findings->n; i++) {
		const struct gclk_finding *f = &findings->items[i];

		if (f->info->refuses && !is_forced(m->o, f->info->id)) {
			message("error", m->xml.name, f->info->id, EFFECT_NONE, NULL, "%s",
				f->message);
			return GCLK_REFUSED;
		}
		if (f->info->severity != GCLK_NOTE) {
			message("warning", m->xml.name, f->info->id, EFFECT_READING, NULL,
				"%s", f->message);
		}
	}
	return 0;
}

/* What the XML and the two hosts say. Without KVM the guest has its host's TSC. */
static int check_hosts(struct migration *m)
{
	struct gclk_findings findings = { 0 };
	struct gclk_host peer = *source_end_peer(m->end);
	struct takes_guest guest;
	struct gclk_error error;
	enum takes answer;

	/* libvirt takes seconds for its first answer, and it counts for KVM alone */
	if (m->xml.type == GCLK_DOMAIN_KVM) {
		virt_counter_into(m->here, &m->host);
		virt_counter_into(m->there, &peer);
	}
	takes_lint(&m->xml, &findings);
	guest = takes_guest_of_domain(&m->xml, &m->host);
	if (takes(&guest, &peer, &answer, &findings, &error) < 0) {
		return fail(peer.hostname, &error, EFFECT_NONE, NULL);
	}
	return refuse(m, &findings);
}

/*
 * How far the wall clocks are apart, where there is a limit: the two ends ask each other
 * from the first moment on, and will refuse by a better answer yet.
 */
static int check_clocks(const struct migration *m)
{
	struct gclk_disagreement apart = { .uncertainty_ns = GCLK_UNBOUNDED };
	int64_t until_ns = clock_mono_ns() + APART_WAIT_NS;
	uint64_t far;

	if (m->own->disagree != PEER_REFUSE_APART) {
		return 0;
	}
	while (apart.uncertainty_ns == GCLK_UNBOUNDED && clock_mono_ns() < until_ns) {
		nanosleep(&(struct timespec){ 0, 10 * GCLK_NS_PER_MS }, NULL);
		source_end_disagreement(m->end, &apart);
	}
	far = apart.ns < 0 ? 0 - (uint64_t)apart.ns : (uint64_t)apart.ns;
	if (apart.uncertainty_ns == GCLK_UNBOUNDED || far <= (uint64_t)m->own->limit_ns) {
		return 0;
	}
	message("error", m->xml.name, "refused", EFFECT_NONE, NULL,
		"the wall clocks of the two hosts are %" PRIu64 " ns apart, and at most %" PRId64
		" ns are allowed", far, m->own->limit_ns);
	return GCLK_REFUSED;
}

static int prepare(struct migration *m)
{
	struct gclk_error error;
	int r = find_domain(m);

	if (r == 0) {
		r = find_policies(m);
	}
	if (r == 0) {
		r = find_there(m);
	}
	if (r == 0 && (read_this_host(&m->host, &error) < 0 ||
		       migration_address(m->o->files[1], m->own->via, m->address, &error) < 0 ||
		       address_pki(m->o->files[1], &m->pki, &m->own->tls, &error) < 0 ||
		       migration_sockets(m, &error) < 0)) {
		r = fail(m->o->files[1], &error, EFFECT_NONE, NULL);
	}
	if (r == 0) {
		r = open_end(m);
	}
	if (r == 0) {
		r = check_hosts(m);
	}
	return r ? r : check_clocks(m);
}

/* ---- the move ---- */

/*
 * The stream's silence tells nothing of another thread's stop, nor where most of it
 * flows elsewhere.
 */
static int64_t ran_until(struct migration *m, int64_t stamp_ns)
{
	if (m->suspended || own_given(m->o, MIGRATE_PARALLEL) ||
	    m->own->virt.parallel_connections) {
		return 0;
	}
	return source_end_ran(m->end, stamp_ns);
}

/*
 * When the last pass over the memory began: the same thread stops the guest after it. Not where
 * somebody else may have stopped it, nor where the wall clock was set between the two stamps.
 */
static int64_t passed_at(const struct migration *m, const struct virt_event *stop)
{
	const struct virt_event *pass = &m->pass;
	int64_t stepped_ns = (stop->came_ns - stop->boot_ns) - (pass->came_ns - pass->boot_ns);

	return m->suspended || !pass->at_ns || llabs(stepped_ns) > STEP_NS ? 0 : pass->at_ns;
}

/* By how much the stamp of the stop can be late; 0: not known. */
static int64_t stop_lag(struct migration *m, const struct virt_event *event)
{
	return m->waits ? waits_lag(m->waits, wall_clock_ns() - event->at_ns,
				    VIRT_STOP_UNCERTAINTY_NS)
			: 0;
}

/* In the thread of libvirt's events: the sooner the other end knows, the shorter it waits. */
static void heard(void *ctx, const struct virt_event *event)
{
	struct migration *m = ctx;
	struct stop_evidence evidence;
	struct gclk_instant stop;

	if (event->kind == VIRT_STOP) {
		atomic_store(&m->stopped, true);
		evidence = (struct stop_evidence){ ran_until(m, event->at_ns), passed_at(m, event),
						   stop_lag(m, event) };
		stop = migration_stop(event->at_ns, &evidence);
		source_end_stopped(m->end, &stop, "event");
	} else if (event->kind == VIRT_RESUME) {
		atomic_store(&m->stopped, false);
	} else if (event->kind == VIRT_PASS) {
		m->pass = *event;
	} else if (event->kind == VIRT_ITERATION) {
		atomic_store(&m->iteration, event->detail);
	}
}

static void break_off(struct migration *m, const char *why)
{
	if (!m->broken_off) {
		m->broken_off = true;
		fprintf(stderr, "%sguestclock: note: %s: breaking the migration off\n",
			m->visible ? "\r\033[K" : "", why);
		virt_migrate_abort(m->job);
		source_end_cancel(m->end, why);
	}
}

/* As virsh's --timeout: a guest that stands dirties no memory. */
static void suspend_if_due(struct migration *m, int64_t since_ns)
{
	if (m->own->timeout_s && !m->suspended &&
	    clock_mono_ns() - since_ns > m->own->timeout_s * GCLK_NS_PER_S) {
		m->suspended = true;
		if (virDomainSuspend(m->domain) < 0) {
			virResetLastError();
		}
	}
}

static void watch(struct migration *m)
{
	int64_t since_ns = clock_mono_ns(), shown_ns = 0;

	while (!virt_migrate_wait(m->job, 50)) {
		int64_t now_ns = clock_mono_ns();

		if (atomic_load(&interrupted)) {
			break_off(m, "a signal came");
		}
		suspend_if_due(m, since_ns);
		/* a question to QEMU while the guest stands would make it stand longer */
		if (m->show && !atomic_load(&m->stopped) &&
		    now_ns - shown_ns > 250 * GCLK_NS_PER_MS) {
			shown_ns = now_ns;
			migration_show(m);
		}
	}
	migration_show_end(m);
}

static int start(struct migration *m, struct gclk_error *reterr)
{
	struct migrate_options *own = m->own;
	struct virt_migrate_options v = own->virt;
	int r;

	v.desturi = m->o->files[1];
	v.path = m->path;
	v.disks_path = migration_copies_disks(m) ? m->disks_path : NULL;
	v.disks = own->n_disks ? own->disks : NULL;
	v.copy_incremental = own_given(m->o, MIGRATE_COPY_INC);
	v.there = own_given(m->o, MIGRATE_DIRECT) ? m->there : NULL;
	v.persistent = own_given(m->o, MIGRATE_PERSISTENT);
	v.undefine_source = own_given(m->o, MIGRATE_UNDEFINE_SOURCE);
	v.auto_converge = own_given(m->o, MIGRATE_AUTO_CONVERGE);
	v.parallel = own_given(m->o, MIGRATE_PARALLEL) || v.parallel_connections;
	v.abort_on_error = own_given(m->o, MIGRATE_ABORT_ON_ERROR);
	v.unsafe = own_given(m->o, MIGRATE_UNSAFE);
	v.paused = true; /* the destination end resumes it, or nobody is to */
	m->waits = waits_watch("", offsets_pid_of("", m->xml.name));
	r = virt_events_open(m->here, m->uuid, heard, m, &m->events, reterr);
	return r < 0 ? r : virt_migrate_start(m->domain, &v, &m->job, reterr);
}

/* ---- afterwards ---- */

static int exit_code(const struct migration *m, const struct move *move)
{
	switch (move->verdict) {
	case MOVE_DONE:
	case MOVE_LATE:
		return 0;
	case MOVE_REFUSED:
		return GCLK_REFUSED;
	case MOVE_CANCELLED:
		return GCLK_PEER;
	case MOVE_UNTOUCHED:
		/* a guest that stands has no clocks to prove */
		return migration_runs_there(m) ? GCLK_UNPROVEN : 0;
	default:
		return GCLK_UNPROVEN;
	}
}

static int put_report(struct migration *m, const struct move *move)
{
	struct gclk_error error;

	if (move_audit(move, m->own->audit, &error) < 0) {
		message("warning", error.where, "sys", EFFECT_READING, NULL, "%s",
			error.message);
	}
	if (given(m->o, OPTION(JSON))) {
		json_print(move_to_json(move));
	} else if (move_print(move) != 0) {
		return GCLK_NOMEM;
	}
	return exit_code(m, move);
}

/*
 * libvirt has the guest there, and the destination end, which was to resume it, says
 * nothing: then this process does, if it can.
 */
static int without_report(struct migration *m, const struct gclk_error *why)
{
	enum migration_found found = migration_rescue(m);

	message("error", m->xml.name, gclk_status_name(GCLK_UNPROVEN), EFFECT_CHANGED,
		found == MIGRATION_UNKNOWN ? "virsh domstate" : NULL,
		"the guest has moved, and what became of its clocks is not known (%s); %s",
		why->message,
		found == MIGRATION_RUNNING ? "it runs there" :
		found == MIGRATION_RESUMED ? "it stood there and was resumed now, late" :
		found == MIGRATION_PAUSED  ? "it is suspended there, as it was" :
						 "look whether it runs there");
	return GCLK_UNPROVEN;
}

static int moved(struct migration *m)
{
	struct gclk_error error;
	struct move move;

	if (source_end_report(m->end, REPORT_WAIT_MS, &move, &error) < 0) {
		return without_report(m, &error);
	}
	if (move.verdict == MOVE_CANCELLED && migration_rescue(m) == MIGRATION_RESUMED) {
		message("warning", m->xml.name, "state", EFFECT_READING, NULL,
			"the destination end could not resume the guest; it was resumed now");
		move.verdict = MOVE_UNPROVEN;
	}
	if (move.verdict != MOVE_CANCELLED && move.verdict != MOVE_REFUSED) {
		migration_set_guest_time(m);
	}
	return put_report(m, &move);
}

/* Which of the two ends saw it first: libvirt only knows that the stream broke. */
static int not_moved(struct migration *m, const struct gclk_error *error)
{
	enum migration_found found = migration_at_home(m);
	struct gclk_error broken;
	struct move move;
	int code = GCLK_SYS;
	bool told = source_end_report(m->end, 300, &move, &broken) == 0 && move.why[0];

	if (told && (move.verdict == MOVE_REFUSED || move.verdict == MOVE_CANCELLED)) {
		code = move.verdict == MOVE_REFUSED ? GCLK_REFUSED : GCLK_PEER;
	} else if (source_end_broken(m->end, &broken) < 0) {
		code = broken.status == GCLK_REFUSED ? GCLK_REFUSED : GCLK_PEER;
		gclk_text_copy(move.why, sizeof(move.why), broken.message);
		told = true;
	}
	if (atomic_load(&interrupted)) {
		code = GCLK_STATE;
		told = false;
	}
	message("error", m->xml.name, gclk_status_name(code),
		found == MIGRATION_RUNNING || found == MIGRATION_PAUSED ?
			EFFECT_NONE : EFFECT_CHANGED,
		NULL, "%s%s%s; the guest %s", told ? move.why : error->message,
		told ? ": " : "", told ? error->message : "",
		found == MIGRATION_RUNNING ? "goes on at the source" :
		found == MIGRATION_PAUSED  ? "stands at the source, as before" :
						 "is not where it was: look with virsh list");
	return code;
}

static int carry_out(struct migration *m)
{
	struct gclk_error error;
	int r = start(m, &error);

	if (r < 0) {
		return fail(m->xml.name, &error, EFFECT_NONE, NULL);
	}
	watch(m);
	r = virt_migrate_finish(m->job, &error);
	m->job = NULL;
	return r == 0 ? moved(m) : not_moved(m, &error);
}

static void close_all(struct migration *m)
{
	m->events = virt_events_close(m->events);
	m->waits = waits_end(m->waits);
	m->end = source_end_close(m->end);
	if (m->domain) {
		virDomainFree(m->domain);
	}
	if (m->there) {
		virConnectClose(m->there);
	}
	if (m->here) {
		virConnectClose(m->here);
	}
}

static int run(const struct options *o)
{
	struct migration *m;
	int r;

	if (own_given(o, MIGRATE_POSTCOPY)) {
		message("error", o->files[0], gclk_status_name(GCLK_REFUSED), EFFECT_NONE, NULL,
			"with --postcopy the device state goes in one piece before the memory, "
			"where its clocks cannot be made right, and a failure loses the guest; "
			"--auto-converge or --timeout end a migration, too");
		return GCLK_REFUSED;
	}
	if (own_given(o, MIGRATE_P2P) && own_given(o, MIGRATE_DIRECT)) {
		return usage_error("migrate", "--p2p or --direct, not both");
	}
	m = calloc(1, sizeof(*m));
	if (!m) {
		return GCLK_NOMEM;
	}
	m->o = o;
	m->own = o->own;
	m->show = migration_wants_progress(m);
	catch_signals();
	r = prepare(m);
	if (r == 0 && atomic_load(&interrupted)) {
		r = interrupted_early(m);
	}
	if (r == 0) {
		r = carry_out(m);
	}
	close_all(m);
	free(m);
	return r;
}

/* ---- options ---- */

static struct migrate_options migrate = { .max_hold_ns = PEER_MAX_HOLD_NS };

#define SET_TEXT(name, member)                                                           \
	static int set_##name(struct options *o, const char *text,                       \
			      struct gclk_error *reterr)                                 \
	{                                                                                \
		(void)reterr;                                                            \
		((struct migrate_options *)o->own)->member = text;                       \
		return 0;                                                                \
	}
SET_TEXT(connect, connect)
SET_TEXT(directory, directory)
SET_TEXT(audit, audit)
TLS_SETTERS(struct migrate_options, tls)

static int set_via(struct options *o, const char *text, struct gclk_error *reterr)
{
	((struct migrate_options *)o->own)->via = text;
	return link_check_address(text, reterr);
}

static int parse_number(const char *text, unsigned max, unsigned *ret,
			struct gclk_error *reterr)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || n == 0 || n > max) {
		return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is not a number from 1 to %u", text, max);
	}
	*ret = (unsigned)n;
	return 0;
}

#define SET_NUMBER(name, member, max)                                                    \
	static int set_##name(struct options *o, const char *text,                       \
			      struct gclk_error *reterr)                                 \
	{                                                                                \
		return parse_number(text, max,                                           \
				    &((struct migrate_options *)o->own)->member, reterr); \
	}
SET_NUMBER(bandwidth, virt.bandwidth_mib, 1u << 30)
SET_NUMBER(max_downtime, virt.max_downtime_ms, 2000000)
SET_NUMBER(timeout, timeout_s, 1u << 30)
SET_NUMBER(connections, virt.parallel_connections, 255)

static int set_max_hold(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_span(text, &((struct migrate_options *)o->own)->max_hold_ns, reterr);
}

static int set_disk(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct migrate_options *m = o->own;

	if (m->n_disks == MIGRATION_DISKS_MAX) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "more than %d disks", MIGRATION_DISKS_MAX);
	}
	m->disks[m->n_disks++] = text;
	return 0;
}

static int set_unreadable(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct migrate_options *m = o->own;

	m->unreadable = !strcmp(text, "refuse") ? PEER_REFUSE : PEER_PASS;
	return m->unreadable == PEER_REFUSE || !strcmp(text, "pass") ?
		       0 :
		       gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
				 "\"%s\" is not pass or refuse", text);
}

static int set_verify(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_verify(text, &((struct migrate_options *)o->own)->ask_monitor, reterr);
}

static int set_limit(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct migrate_options *m = o->own;

	m->disagree = PEER_REFUSE_APART;
	return parse_span(text, &m->limit_ns, reterr);
}

/* clang-format off */
static const struct option_row rows[] = {
	[MIGRATE_DIRECT] = { "direct", 0, NULL, NULL,
		"this command talks to both libvirts; if it dies at the end of\n"
		"the transfer, the guest may stay suspended" },
	[MIGRATE_P2P] = { "p2p", 0, NULL, NULL,
		"the source's libvirt talks to the other one (default)" },
	[MIGRATE_PERSISTENT] = { "persistent", 0, NULL, NULL,
		"define the domain there" },
	[MIGRATE_UNDEFINE_SOURCE] = { "undefine-source", 0, NULL, NULL,
		"and no longer here" },
	[MIGRATE_SUSPEND] = { "suspend", 0, NULL, NULL,
		"do not resume the guest there" },
	[MIGRATE_COPY_ALL] = { "copy-storage-all", 0, NULL, NULL,
		"disks that are not shared: all of them" },
	[MIGRATE_COPY_INC] = { "copy-storage-inc", 0, NULL, NULL,
		"... what is above a base image that both have" },
	[MIGRATE_AUTO_CONVERGE] = { "auto-converge", 0, NULL, NULL,
		"slow the guest down if it dirties memory too fast" },
	[MIGRATE_PARALLEL] = { "parallel", 0, NULL, NULL,
		"memory through several connections" },
	[MIGRATE_ABORT_ON_ERROR] = { "abort-on-error", 0, NULL, NULL,
		"break off on a disk's error" },
	[MIGRATE_UNSAFE] = { "unsafe", 0, NULL, NULL,
		"also where libvirt fears for the disks" },
	[MIGRATE_SET_TIME] = { "set-guest-time", 0, NULL, NULL,
		"set the guest's own wall clock through its agent, as\n"
		"--gap wall does by itself" },
	[MIGRATE_POSTCOPY] = { "postcopy", 0, NULL, NULL,
		"is refused: it cannot be made right" },
	{ "parallel-connections", 0, "N", set_connections, "how many" },
	{ "migrate-disk", 0, "TARGET", set_disk,
		"this disk (vda) alone; once for each", true },
	{ "bandwidth", 0, "MIB/S", set_bandwidth, "at most" },
	{ "max-downtime", 0, "MS", set_max_downtime,
		"QEMU stops the guest when the rest takes no longer" },
	{ "timeout", 0, "SECONDS", set_timeout,
		"then suspend the guest, so that the rest gets through; it is\n"
		"resumed there" },
	{ "max-hold", 0, "DURATION", set_max_hold,
		"how long the guest may be held back for its instant;\n"
		"default 20ms" },
	{ "unreadable", 0, "CHOICE", set_unreadable,
		"a stream that cannot be filtered: pass (default), refuse" },
	{ "verify", 0, "CHOICE", set_verify, VERIFY_HELP },
	{ "max-disagreement", 0, "DURATION", set_limit,
		"refuse where the hosts' clocks are further apart" },
	{ "connect", 'c', "URI", set_connect,
		"of the libvirt here; default $LIBVIRT_DEFAULT_URI, or\n"
		"libvirt's own" },
	{ "via", 0, "ADDRESS", set_via,
		"the guestclock there: unix:PATH, tls:HOST[:PORT],\n"
		"exec:COMMAND; default from DESTURI" },
	{ "directory", 0, "DIR", set_directory,
		"of the sockets, on both hosts; default /run/guestclock" },
	{ "audit", 0, "FILE", set_audit,
		"the log for `guestclock log`; default " AUDIT_PATH },
	TLS_ROWS,
};
/* clang-format on */

const struct verb verb_migrate = {
	.name = "migrate",
	.summary = SUMMARY_MIGRATE,
	.synopsis = "DOMAIN DESTURI",
	.text = "Migrates a running libvirt guest live, as `virsh migrate --live` does, but its "
		"state goes through guestclock on both hosts: the clocks count the time for "
		"which the guest stood, as the policies say, and the other host's guestclock "
		"resumes it at the instant for which they were set. DESTURI is the other libvirt "
		"as the one here reaches it. guestclock must be there, too: by ssh for qemu+ssh "
		"URIs, as the daemon guestclockd for others. Whether the hosts' clocks suit each "
		"other is looked at before anything moves. ^C breaks off, and the guest goes on "
		"here. At the end a report says what each clock lost or gained, and how well that "
		"is known.",
	.example = "guestclock migrate --persistent --undefine-source web1 "
		   "qemu+ssh://host2/system",
	.options = OPTIONS_COMMON | OPTION(CONF) | OPTION(GAP) | OPTION(TICKS) | OPTION(FORCE),
	.min_files = 2,
	.max_files = 2,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &migrate,
};
