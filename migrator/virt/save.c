/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/message.h"
#include "migrator/situation.h"
#include "migrator/virt/events.h"
#include "migrator/virt/paths.h"
#include "migrator/virt/save.h"

/*
 * QEMU stops its clocks, waits until its vCPUs have come to rest, and stamps STOP then:
 * 40 to 140 us later on an idle host, tens of milliseconds where the vCPUs' threads have
 * to wait for a processor. The stop lies between the call and the stamp, that is all.
 */
#define STAMP_NS 1000	/* microseconds, cut off */

struct saving {
	const struct save_options *options;
	const struct options *o;
	struct guard *guard;
	struct move *move;
	virConnectPtr connection;
	virDomainPtr domain;
	char uuid[VIR_UUID_STRING_BUFLEN];
	struct virt_events *events;
	struct gclk_host host;	/* shortly before the stop */
	bool was_running;
	char *xml;		/* from xml_path */
	char image[512];	/* the file */
	/* right before and after the call that suspended it, on the line of .host's wall clock */
	int64_t suspend_ns, suspended_ns;
	struct wall_line line;
	struct gclk_instant stopped;
	/* the call, in a thread of its own */
	pthread_t thread;
	atomic_bool done;
	int status;
	struct gclk_error error;
};

static unsigned flags_of(const struct saving *s)
{
	const struct save_options *options = s->options;
	bool running = options->running || (s->was_running && !options->paused);

	return (running ? VIR_DOMAIN_SAVE_RUNNING : 0) |
	       (options->paused ? VIR_DOMAIN_SAVE_PAUSED : 0) |
	       (options->bypass_cache ? VIR_DOMAIN_SAVE_BYPASS_CACHE : 0);
}

static void *call(void *ctx)
{
	struct saving *s = ctx;
	unsigned flags = flags_of(s);
	int r = s->options->path ? virDomainSaveFlags(s->domain, s->image, s->xml, flags)
				 : virDomainManagedSave(s->domain, flags);

	s->status = r < 0 ? virt_fail(&s->error, GCLK_SYS, "saving the domain") : 0;
	atomic_store(&s->done, true);
	return NULL;
}

static void show(struct saving *s, struct progress *progress)
{
	virDomainJobInfo info;

	if (virDomainGetJobInfo(s->domain, &info) == 0 && info.dataTotal) {
		progress_step(progress, info.dataProcessed, info.dataTotal);
	}
}

/* ^C came as SIGTERM, which is blocked: the guest goes on. */
static bool abort_wanted(void)
{
	sigset_t set;
	const struct timespec wait = { 0, 50 * GCLK_NS_PER_MS };

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	return sigtimedwait(&set, NULL, &wait) == SIGTERM;
}

static int wait_for_call(struct saving *s)
{
	struct progress progress = { 0 };

	if (pthread_create(&s->thread, NULL, call, s)) {
		return gclk_fail(&s->error, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "no thread can be started");
	}
	while (!atomic_load(&s->done)) {
		if (abort_wanted()) {
			virDomainAbortJob(s->domain);
		}
		show(s, &progress);
	}
	pthread_join(s->thread, NULL);
	progress_end(&progress);
	return s->status;
}

static int suspend(struct saving *s)
{
	if (!s->was_running) {
		return 0;
	}
	snprintf(s->guard->uuid, sizeof(s->guard->uuid), "%s", s->uuid);
	s->guard->suspended = 1;
	s->suspend_ns = wall_line_ns(&s->line);
	if (virDomainSuspend(s->domain) < 0) {
		s->guard->suspended = 0;
		return virt_fail(&s->error, GCLK_SYS, "stopping the domain");
	}
	s->suspended_ns = wall_line_ns(&s->line);
	return 0;
}

/* Between the call and @at_ns. */
static void stopped_by(struct saving *s, int64_t at_ns, const char *basis)
{
	int64_t width = at_ns - s->suspend_ns;

	s->stopped.ns = s->suspend_ns + width / 2;
	s->stopped.uncertainty_ns = (uint64_t)(width - width / 2);
	snprintf(s->move->stopped_basis, sizeof(s->move->stopped_basis), "%s", basis);
}

/*
 * QEMU's stamp of the stop that was asked for, else the return of the call, which waits
 * for it: where no stamp came, or the wall clock was set meanwhile. Nothing where the guest
 * stood already.
 */
static void find_stop(struct saving *s)
{
	struct virt_event event;
	struct timespec now;
	int64_t at_ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	while (s->was_running &&
	       virt_events_next(s->events, (int64_t)now.tv_sec * GCLK_NS_PER_S + now.tv_nsec +
				GCLK_NS_PER_S / 5, &event)) {
		if (event.kind == VIRT_STOP &&
		    wall_line_stamp(&s->line, event.at_ns, event.came_ns, event.boot_ns, &at_ns) &&
		    at_ns + STAMP_NS >= s->suspend_ns && at_ns <= s->suspended_ns) {
			stopped_by(s, at_ns + STAMP_NS, "event");
			return;
		}
	}
	if (s->was_running) {
		stopped_by(s, s->suspended_ns, "call");
	}
}

static void put(struct gclk_domain_attribute *set, unsigned *n, const char *name,
		const char *format, ...) __attribute__((format(printf, 4, 5)));

static void put(struct gclk_domain_attribute *set, unsigned *n, const char *name,
		const char *format, ...)
{
	va_list args;

	snprintf(set[*n].name, sizeof(set[*n].name), "%s", name);
	va_start(args, format);
	vsnprintf(set[*n].value, sizeof(set[*n].value), format, args);
	va_end(args);
	(*n)++;
}

#define ATTRIBUTES 9

/* What is known; the rest of what an older image may have said is taken away. */
static unsigned provenance(const struct saving *s, const struct gclk_image *image,
			   struct gclk_domain_attribute set[ATTRIBUTES])
{
	const struct gclk_host *host = &s->host;
	bool disciplined = host->flags & GCLK_HOST_SYNCHRONISED &&
			   GCLK_HAS(host, host, ntp_maxerror_ns);
	unsigned n = 0;

	put(set, &n, GCLK_CAPTURED_AT, "%" PRId64, s->stopped.ns);
	put(set, &n, GCLK_CAPTURED_UNCERTAINTY, "%" PRIu64, s->stopped.uncertainty_ns);
	put(set, &n, GCLK_CAPTURED_BOOTTIME, "%" PRId64, s->stopped.ns - s->line.ahead_ns);
	put(set, &n, GCLK_CAPTURED_DIGEST, "%016" PRIx64, gclk_image_digest(image));
	put(set, &n, GCLK_CAPTURED_BOOT_ID, "%s", host->boot_id);
	put(set, &n, GCLK_CAPTURED_HOST, "%s", host->hostname);
	put(set, &n, GCLK_CAPTURED_TAI, "%.*d", host->tai_offset_s ? 1 : 0,
	    host->tai_offset_s);
	if (disciplined) {
		put(set, &n, GCLK_CAPTURED_MAXERROR, "%" PRIu64, host->ntp_maxerror_ns);
	} else {
		put(set, &n, GCLK_CAPTURED_MAXERROR, "%s", "");
	}
	return n;
}

static char *image_xml(struct saving *s)
{
	return s->options->path ? virDomainSaveImageGetXMLDesc(s->connection, s->image,
							       VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
				: virDomainManagedSaveGetXMLDesc(s->domain,
								 VIR_DOMAIN_SAVE_IMAGE_XML_SECURE);
}

static int define_xml(struct saving *s, const char *xml)
{
	int r = s->options->path ? virDomainSaveImageDefineXML(s->connection, s->image, xml, 0)
				 : virDomainManagedSaveDefineXML(s->domain, xml, 0);

	return r < 0 ? virt_fail(&s->error, GCLK_SYS, "describing the image") : 0;
}

static int describe_in(struct saving *s, const struct gclk_image *image)
{
	struct gclk_domain_attribute set[ATTRIBUTES];
	unsigned n = provenance(s, image, set);
	char *xml = image_xml(s), *described = NULL;
	int r;

	if (!xml) {
		return virt_fail(&s->error, GCLK_SYS, "reading the image's XML");
	}
	r = gclk_domain_write_metadata(xml, strlen(xml), set, n, &described, &s->error);
	if (r == 0) {
		r = define_xml(s, described);
	}
	free(described);
	free(xml);
	return r;
}

static int describe(struct saving *s)
{
	struct gclk_image_options options = { 0 };
	struct gclk_image *image = NULL;
	int r = confine_worker(s->o->conf, &options.worker, &s->error);

	r = r < 0 ? r : gclk_image_open(s->image, &options, &image, &s->error);
	if (r == 0) {
		r = describe_in(s, image);
	}
	gclk_image_close(image);
	return r;
}

/* What is written to a terminal or to /dev/null is no guest any more. */
static int check_place(struct saving *s)
{
	struct stat st;

	if (stat(s->image, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) {
		return 0;
	}
	return gclk_fail(&s->error, GCLK_UNSUPPORTED, s->image, GCLK_NO_OFFSET,
			 "it is no file from which a guest could be restored");
}

static int prepare(struct saving *s)
{
	int state = 0, reason, r;

	r = virt_connect(s->options->uri, false, &s->connection, &s->error);
	r = r < 0 ? r : virt_domain(s->connection, s->options->domain, &s->domain, &s->error);
	if (r < 0) {
		return r;
	}
	if (virDomainGetUUIDString(s->domain, s->uuid) < 0 ||
	    virDomainGetState(s->domain, &state, &reason, 0) < 0) {
		return virt_fail(&s->error, GCLK_SYS, "looking at the domain");
	}
	s->was_running = state == VIR_DOMAIN_RUNNING;
	snprintf(s->move->uuid, sizeof(s->move->uuid), "%s", s->uuid);
	snprintf(s->move->domain, sizeof(s->move->domain), "%s", virDomainGetName(s->domain));
	if (s->options->xml_path) {
		size_t size;

		r = read_whole(s->options->xml_path, (size_t)16 << 20, &s->xml, &size,
			       &s->error);
	}
	r = r < 0 ? r : virt_image_path(s->connection, s->options->path, s->options->image,
					virDomainGetName(s->domain), s->image,
					sizeof(s->image), &s->error);
	r = r < 0 ? r : check_place(s);
	r = r < 0 ? r : virt_events_open(s->connection, s->uuid, NULL, NULL, &s->events,
					 &s->error);
	r = r < 0 ? r : read_this_host(&s->host, &s->error);
	if (r == 0 && !wall_line_of(&s->line, &s->host)) {
		wall_line_begin(&s->line);
	}
	return r;
}

static void record(struct saving *s)
{
	struct gclk_error error;

	s->move->stopped = s->stopped;
	snprintf(s->move->from, sizeof(s->move->from), "%s", s->host.hostname);
	s->move->written_ns = wall_clock_ns();
	if (move_audit(s->move, s->options->audit_path, &error) < 0) {
		message("warning", s->options->audit_path ? s->options->audit_path : AUDIT_PATH,
			NULL, EFFECT_READING, NULL, "the audit log: %s", error.message);
	}
}

/* libvirt has given up: the guest goes on where it ran. */
static int say_failed(struct saving *s)
{
	int state = 0, reason;
	bool runs;

	if (s->was_running) {
		virDomainResume(s->domain);
		s->guard->suspended = 0;
	}
	runs = virDomainGetState(s->domain, &state, &reason, 0) == 0 &&
	       state == VIR_DOMAIN_RUNNING;

	s->move->verdict = MOVE_CANCELLED;
	clean_text(s->move->why, sizeof(s->move->why), s->error.message);
	record(s);
	message("error", s->options->domain, gclk_status_name(GCLK_SYS), EFFECT_CHANGED, NULL,
		"%s; the guest %s", s->error.message,
		runs ? "runs on" : s->was_running ? "does not run: try virsh resume"
						  : "stays suspended, as it was");
	return GCLK_SYS;
}

static int save(struct saving *s)
{
	int r = prepare(s);

	r = r < 0 ? r : suspend(s);
	if (r < 0) {
		return fail(s->options->domain, &s->error, EFFECT_NONE, NULL);
	}
	if (wait_for_call(s) < 0) {
		return say_failed(s);
	}
	s->guard->suspended = 0;
	find_stop(s);
	s->move->verdict = MOVE_DONE;
	if (s->stopped.uncertainty_ns == GCLK_UNBOUNDED) {
		s->move->verdict = MOVE_UNPROVEN;
		snprintf(s->move->why, sizeof(s->move->why), "it had been paused before");
	} else if (describe(s) < 0) {
		s->move->verdict = MOVE_UNPROVEN;
		clean_text(s->move->why, sizeof(s->move->why), s->error.message);
		message("warning", s->image, NULL, EFFECT_READING,
			"guestclock restore --captured-at",
			"the guest is saved, but the instant of its stop could not be put into "
			"the image: %s", s->error.message);
	}
	record(s);
	return 0;
}

int save_run(struct guard *guard, const struct save_options *options, const struct options *o,
	     struct move *ret)
{
	struct saving *s = calloc(1, sizeof(*s));
	sigset_t set;
	int r;

	if (!s) {
		return GCLK_NOMEM;
	}
	/* in every thread, of which libvirt's event loop will be the first */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	s->options = options;
	s->o = o;
	s->guard = guard;
	s->stopped.uncertainty_ns = GCLK_UNBOUNDED;
	s->move = ret;
	move_init(ret, "save");
	r = save(s);
	virt_events_close(s->events);
	if (s->domain) {
		virDomainFree(s->domain);
	}
	if (s->connection) {
		virConnectClose(s->connection);
	}
	free(s->xml);
	free(s);
	return r;
}
