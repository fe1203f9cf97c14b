/* SPDX-License-Identifier: MIT */
/*
 * guestclock-hook: what libvirt calls before a guest comes to this host.
 *
 *	guestclock-hook [--conf FILE] [--state DIRECTORY] [--audit FILE] [--host PROFILE]
 *			NAME OPERATION SUBOPERATION EXTRA	<domain XML
 *
 * It never calls libvirt, which would hang, and ends with 0 in everything but a
 * deliberate refusal, whose one sentence libvirt puts into its own error.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/hook/conf.h"
#include "migrator/hook/late.h"
#include "migrator/hook/needs.h"
#include "migrator/hook/running.h"
#include "migrator/move.h"
#include "migrator/report-plan.h"

#define XML_MAX_BYTES ((size_t)16 << 20)
/* Whatever happens, libvirt does not wait longer for it. */
#define LIMIT_S 5
/* The follower: how long a reader may rest, and a domain may take to run once loaded. */
#define IDLE_NS (120 * GCLK_NS_PER_S)
#define RUN_LIMIT_NS (5 * GCLK_NS_PER_S)
/* Writing in time before a reader does not wait behind others. */
#define FOLLOWER_NICE (-10)
/* How much later than planned the guest may run without the report calling it late. */
#define TOLERANCE_NS (100 * GCLK_NS_PER_MS)

struct hook {
	const char *conf_path, *state_dir, *audit_path;
	const char *name, *operation;
	char *xml;
	size_t xml_size;
	struct gclk_domain domain;
	struct hook_conf conf;
	struct move move;
	struct options options;	/* none are given; the parts of the command want them */
	struct source source;
	struct situation situation;
	struct late late;
	int image;		/* the file that libvirtd reads, from find_image() on */
	uint64_t file_bytes;
};

static void note(int priority, const struct hook *hook, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* To the system's log: what a hook says on success, libvirt does not pass on. */
static void note(int priority, const struct hook *hook, const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	syslog(priority, "%s: %s: %s", hook->operation, hook->name, text);
}

static void audit(struct hook *hook)
{
	struct gclk_error error;

	hook->move.written_ns = wall_clock_ns();
	if (move_audit(&hook->move, hook->audit_path, &error) < 0) {
		note(LOG_WARNING, hook, "the audit log: %s", error.message);
	}
}

/* Nothing is done, for this reason; the guest goes on as libvirt makes it. */
static int leave(struct hook *hook, const char *why)
{
	hook->move.verdict = MOVE_UNTOUCHED;
	clean_text(hook->move.why, sizeof(hook->move.why), why);
	note(LOG_NOTICE, hook, "untouched: %s", why);
	audit(hook);
	return 0;
}

static int refuse(struct hook *hook, const struct gclk_finding *finding)
{
	fprintf(stderr,
		"guestclock: %s cannot %s on this host: %s: %s (%s). Nothing was changed. "
		"Try: guestclock explain %s; `check = report` in [hook] lets it pass\n",
		hook->name, hook->operation, finding->clock, finding->message,
		finding->info->id, finding->info->id);
	hook->move.verdict = MOVE_REFUSED;
	clean_text(hook->move.why, sizeof(hook->move.why), finding->message);
	note(LOG_ERR, hook, "refused: %s: %s", finding->info->id, hook->move.why);
	audit(hook);
	return GCLK_REFUSED;
}

/* ---- migrate begin ---- */

static void pin(struct hook *hook)
{
	const char *text = gclk_domain_metadata(&hook->domain, "tsc_hz");
	const struct gclk_domain_timer *tsc = gclk_domain_timer(&hook->domain, "tsc");
	uint64_t hz = text ? strtoull(text, NULL, 10) : 0;
	struct gclk_error error;
	char *xml = NULL;

	if (tsc && tsc->frequency_hz) {
		return;		/* pinned already, as it should be */
	}
	if (!hz) {
		note(LOG_WARNING, hook,
		     "the TSC's frequency is not pinned: <metadata> does not say tsc_hz");
		return;
	}
	if (needs_pin(hook->xml, hook->xml_size, hz, &xml, &error) == 0 && xml) {
		fputs(xml, stdout);
		note(LOG_NOTICE, hook, "the TSC is pinned at %llu Hz", (unsigned long long)hz);
	}
	free(xml);
}

/* What the domain's XML says against this host: 0, or the refusal. */
static int check_domain(struct hook *hook)
{
	struct gclk_findings findings = { 0 };
	const struct gclk_finding *no;

	if (hook->conf.check == HOOK_CHECK_OFF) {
		return 0;
	}
	needs_of_domain(&hook->domain, &hook->situation.host, &findings);
	hook->move.findings = findings;
	no = needs_refusal(&findings);
	if (no && hook->conf.check == HOOK_CHECK_REFUSE) {
		return refuse(hook, no);
	}
	if (no) {
		note(LOG_WARNING, hook, "%s: %s", no->info->id, no->message);
	}
	return 0;
}

static int migrate_begin(struct hook *hook)
{
	int r;

	if (situation_find_hosts(&hook->situation, &hook->options) != 0) {
		return leave(hook, "this host's clocks cannot be read");
	}
	r = check_domain(hook);
	if (r == 0 && hook->conf.pin_tsc) {
		pin(hook);
	}
	return r;
}

/* ---- restore begin ---- */

/* Whether it is this domain's. */
static bool open_image(struct hook *hook, bool *ret_busy)
{
	enum source_use use =
		hook->conf.restore == HOOK_REWRITE ? SOURCE_HASTE : SOURCE_LOOK;
	const struct reader *reader = &hook->late.reader;
	const struct gclk_domain *domain;
	int r;

	hook->image = reader_open(reader);
	if (hook->image < 0) {
		return false;
	}
	r = source_open_fd(&hook->source, hook->image, reader->path, &hook->options, use);
	*ret_busy |= r == GCLK_STATE;
	domain = r == 0 && hook->source.image ? gclk_image_domain(hook->source.image) : NULL;
	return domain && !strcmp(domain->uuid, hook->domain.uuid);
}

/*
 * Of the images that libvirtd has open the one of this domain. @ret_busy: somebody else
 * holds one for writing: `guestclock restore`, which sees to it itself.
 */
static bool find_image(struct hook *hook, bool *ret_busy)
{
	static struct reader found[READERS_MAX];
	unsigned n = readers_find(getppid(), found);

	for (unsigned i = 0; i < n; i++) {
		hook->late.reader = found[i];
		if (open_image(hook, ret_busy)) {
			hook->late.has_reader = true;
			return true;
		}
		source_close(&hook->source);
		if (hook->image >= 0) {
			close(hook->image);
		}
	}
	return false;
}

static void take_source(struct hook *hook)
{
	hook->move.stopped = hook->source.captured;
	snprintf(hook->move.stopped_basis, sizeof(hook->move.stopped_basis), "%s",
		 hook->source.basis);
	snprintf(hook->move.disagreement_basis, sizeof(hook->move.disagreement_basis), "%s",
		 hook->situation.disagreement_basis);
	hook->move.disagreement = hook->situation.disagreement;
}

static void take_plan(struct hook *hook, const struct gclk_plan *plan)
{
	move_take_plan(&hook->move, hook->source.state,
		       gclk_image_carrier(hook->source.image), &hook->situation.host, plan);
}

/* What is known of the way of a load whose reader has not begun. */
static int64_t load_margin_ns(const struct hook *hook)
{
	const struct learned *l = &hook->late.learned;

	return GCLK_NS_PER_S / 2 + l->to_run_ns +
	       (int64_t)((unsigned __int128)hook->file_bytes * (uint64_t)GCLK_NS_PER_S /
			 l->bytes_per_s);
}

static int report(struct hook *hook)
{
	struct gclk_plan *plan = NULL;
	const struct gclk_finding *no;
	int r = make_plan(&hook->source, &hook->situation, &plan);

	if (r == 0 || r == GCLK_REFUSED) {
		take_plan(hook, plan);
		no = needs_refusal(&plan->findings);
		if (no && hook->conf.check == HOOK_CHECK_REFUSE) {
			r = refuse(hook, no);
			gclk_plan_free(plan);
			return r;
		}
	}
	gclk_plan_free(plan);
	return leave(hook, r ? "no plan can be made for it"
			     : "restore = report: the image is loaded as it stands");
}

/*
 * The last plan once more, for the same bytes, now that it is known when the guest was
 * loaded and ran: its doubt about these instants has gone.
 */
static void settle_plan(struct hook *hook, const struct gclk_instant *ran)
{
	struct late *late = &hook->late;
	struct gclk_when *when = &hook->situation.when;
	struct gclk_error error;

	if (ran->uncertainty_ns != GCLK_UNBOUNDED) {
		when->run.uncertainty_ns = 0;
	}
	if (late->tail_ns && late->closed_ns) {
		int64_t first = when->load.ns - late->tail_before_ns;
		int64_t last = late->closed_ns - when->load.ns;

		when->load.uncertainty_ns = (uint64_t)GCLK_MAX(GCLK_MAX(first, last), 0);
	}
	if (late_plan_again(late, &error) == 0) {
		take_plan(hook, late->plan);
	}
}

static void learn(struct hook *hook, int64_t run_ns)
{
	struct gclk_error error;
	struct lesson lesson;
	char path[512];

	mkdir(hook->state_dir, 0755);
	snprintf(path, sizeof(path), "%s/restores", hook->state_dir);
	if (late_lesson(&hook->late, run_ns, &lesson) &&
	    learned_add(path, &lesson, &error) < 0) {
		note(LOG_WARNING, hook, "%s: %s", path, error.message);
	}
}

/*
 * In a process of its own that libvirt does not wait for: follows the reader, then says
 * how it ended.
 */
static void follow(struct hook *hook)
{
	struct late *late = &hook->late;
	struct gclk_instant ran = { 0, GCLK_UNBOUNDED };
	struct gclk_error error;
	struct stat st;
	int64_t seen_ns = 0, run_ns;

	setpriority(PRIO_PROCESS, 0, FOLLOWER_NICE);
	late_follow(late, IDLE_NS, NULL, NULL);
	if (late->closed_ns &&
	    running_wait(NULL, hook->name, &hook->situation.line, RUN_LIMIT_NS, &seen_ns)) {
		/* it runs when the image is closed, which may have been long before that was seen */
		int64_t from = GCLK_MIN(late->open_ns, seen_ns);

		late_was_loaded(late);
		ran.ns = from + (seen_ns - from) / 2;
		ran.uncertainty_ns = (uint64_t)(seen_ns - from) / 2 + (uint64_t)GCLK_NS_PER_MS;
	}
	settle_plan(hook, &ran);
	hook->move.verdict = MOVE_DONE;
	run_ns = ran.uncertainty_ns == GCLK_UNBOUNDED ? 0 : ran.ns;
	ran.ns = late_on_wall(late, ran.ns);
	move_ran(&hook->move, &ran, 0, "status", TOLERANCE_NS);
	move_wall_set(&hook->move, &hook->source.state->rtc, late_set_since(late));
	if (late->outcome == LATE_RACED) {
		hook->move.verdict = MOVE_UNPROVEN;
	}
	snprintf(hook->move.why, sizeof(hook->move.why),
		 "%s: %u writes, the last %llu bytes before the reader, %llu MB/s",
		 late_outcome_names[late->outcome], late->n_writes,
		 (unsigned long long)late->last_distance,
		 (unsigned long long)(late->bytes_per_s / 1000000));
	note(LOG_NOTICE, hook, "%s", hook->move.why);
	audit(hook);
	learn(hook, run_ns);
	/* an image that libvirt has removed needs no record any more */
	if ((stat(late->reader.path, &st) < 0 || st.st_ino == late->reader.inode) &&
	    late_end(late, &error) < 0) {
		note(LOG_WARNING, hook, "the undo record stays open: %s", error.message);
	}
}

/* libvirt waits until its pipes are closed, so none of them may be kept. */
static void detach(void)
{
	int fd = open("/dev/null", O_RDWR);

	setsid();
	for (int i = 0; fd >= 0 && i <= 2; i++) {
		dup2(fd, i);
	}
	if (fd > 2) {
		close(fd);
	}
}

static int rewrite(struct hook *hook)
{
	const struct gclk_finding *no;
	struct gclk_error error;
	int r;

	hook->late.source = &hook->source;
	hook->late.situation = &hook->situation;
	alarm(0);	/* half a patch is worse than a late one */
	r = late_begin(&hook->late, &error);
	if (r == 0 || r == -GCLK_REFUSED) {
		take_plan(hook, hook->late.plan);
	}
	if (r == -GCLK_REFUSED) {
		no = needs_refusal(&hook->late.plan->findings);
		return no && hook->conf.check == HOOK_CHECK_REFUSE
			       ? refuse(hook, no)
			       : leave(hook, "no plan can be carried out for it");
	}
	if (r < 0) {
		return leave(hook, error.message);
	}
	if (fork() == 0) {
		detach();
		follow(hook);
		source_close(&hook->source);
	}
	/* the image is the follower's from here on, and who reads it for us with it */
	fflush(NULL);
	_exit(0);
}

static int restore_begin(struct hook *hook)
{
	char path[512];
	bool busy = false;
	struct stat st;
	int r;

	if (situation_find_hosts(&hook->situation, &hook->options) != 0) {
		return leave(hook, "this host's clocks cannot be read");
	}
	r = check_domain(hook);
	if (r || hook->conf.restore == HOOK_OFF) {
		return r;
	}
	if (!find_image(hook, &busy)) {
		if (busy) {
			note(LOG_INFO, hook, "somebody else is rewriting the image");
			return 0;
		}
		return leave(hook, "libvirtd holds no image open that could be read");
	}
	if (fstat(hook->image, &st) == 0) {
		hook->file_bytes = (uint64_t)st.st_size;
	}
	snprintf(path, sizeof(path), "%s/restores", hook->state_dir);
	learned_read(path, &hook->late.learned);
	if (situation_find(&hook->situation, &hook->source, &hook->options,
			   load_margin_ns(hook)) != 0) {
		return leave(hook, "the settings or this host's clocks cannot be read");
	}
	take_source(hook);
	if (hook->conf.restore == HOOK_REPORT) {
		return report(hook);
	}
	if (hook->source.state->guest.accelerator == GCLK_ACCEL_KVM &&
	    gclk_kvm_keeps_tsc(NULL) == 0) {
		return leave(hook, "this host's KVM does not keep what is written to a guest's "
				   "TSC (tsc-not-honoured)");
	}
	return rewrite(hook);
}

/* ---- the program ---- */

static int usage(void)
{
	fputs("usage: guestclock-hook [--conf FILE] [--state DIRECTORY] [--audit FILE] "
	      "[--host PROFILE] NAME OPERATION SUBOPERATION EXTRA\n"
	      "libvirt calls it, with the domain's XML on standard input; "
	      "`guestclock hook` installs and explains it\n", stderr);
	return 0;
}

static int parse_arguments(struct hook *hook, int argc, char **argv)
{
	static const struct option options[] = {
		{ "conf", required_argument, NULL, 'c' },
		{ "state", required_argument, NULL, 's' },
		{ "audit", required_argument, NULL, 'a' },
		{ "host", required_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case 'c': hook->conf_path = optarg; break;
		case 's': hook->state_dir = optarg; break;
		case 'a': hook->audit_path = optarg; break;
		case 'h':
			hook->options.host = optarg;
			hook->options.given |= OPTION(HOST);
			break;
		default: return -1;
		}
	}
	if (argc - optind < 3) {
		return -1;
	}
	hook->name = argv[optind];
	hook->operation = argv[optind + 1];
	return strcmp(argv[optind + 2], "begin") ||
	       (strcmp(hook->operation, "restore") && strcmp(hook->operation, "migrate"));
}

static int begin(struct hook *hook)
{
	const struct gclk_worker *worker;
	struct gclk_error error;

	if (confine_worker(hook->conf_path, &worker, &error) < 0) {
		return leave(hook, error.message);
	}
	if (read_whole("-", XML_MAX_BYTES, &hook->xml, &hook->xml_size, &error) < 0 ||
	    gclk_worker_domain_read(worker, hook->xml, hook->xml_size, &hook->domain, &error) < 0) {
		note(LOG_WARNING, hook, "its XML: %s", error.message);
		return leave(hook, "its XML cannot be read");
	}
	snprintf(hook->move.uuid, sizeof(hook->move.uuid), "%s", hook->domain.uuid);
	if (hook_conf_read(hook->conf_path, &hook->domain, &hook->conf, &error) < 0) {
		return leave(hook, error.message);
	}
	if (hook->conf_path) {
		hook->options.conf = hook->conf_path;
	}
	return !strcmp(hook->operation, "restore") ? restore_begin(hook)
						   : migrate_begin(hook);
}

static void too_late(int sig)
{
	(void)sig;
	_exit(0);
}

int main(int argc, char **argv)
{
	static struct hook hook = { .state_dir = LEARNED_DIR };
	int r = confine_entry(argc, argv);

	if (r >= 0) {
		return r;
	}
	r = parse_arguments(&hook, argc, argv);
	if (r) {
		return r < 0 ? usage() : 0;
	}
	confine_set_nice(FOLLOWER_NICE);
	signal(SIGALRM, too_late);
	signal(SIGPIPE, SIG_IGN);
	alarm(LIMIT_S);
	openlog("guestclock-hook", LOG_PID, LOG_DAEMON);
	move_init(&hook.move, "hook");
	snprintf(hook.move.domain, sizeof(hook.move.domain), "%s", hook.name);
	r = begin(&hook);
	gclk_plan_free(hook.late.plan);
	source_close(&hook.source);
	free(hook.xml);
	return r;
}
