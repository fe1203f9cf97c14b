/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
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
#include "migrator/hook/late.h"
#include "migrator/message.h"
#include "migrator/offsets.h"
#include "migrator/payload.h"
#include "migrator/proof.h"
#include "migrator/report-plan.h"
#include "migrator/virt/connect.h"
#include "migrator/virt/guest-time.h"
#include "migrator/virt/paths.h"
#include "migrator/virt/restore.h"
#include "migrator/virt/resume.h"
#include "migrator/virt/room.h"

/* From the call until QEMU begins to read, on a slow host. */
#define STARTUP_NS (2 * GCLK_NS_PER_S)
/* A reader that rests so long will not go on. */
#define IDLE_NS (120 * GCLK_NS_PER_S)
/* How well a chosen instant is kept; what is measured afterwards replaces it. */
#define KEPT_NS (UINT64_C(2) * 1000000)
/* A guest that runs within this of its instant is on time. */
#define TOLERANCE_NS (2 * GCLK_NS_PER_MS)
#define ARRIVAL_NS (30 * GCLK_NS_PER_S)
#define LOOK_NS (2 * GCLK_NS_PER_MS)

struct restoring {
	const struct restore_options *options;
	const struct options *o;
	struct guard *guard;
	struct move *move;
	char path[512];		/* what libvirt loads */
	char temporary[560];	/* a copy without compression; "": none */
	struct options plain;	/* the options of that copy */
	struct source source;
	int image;		/* its file, -1: none; libvirt must open that very one */
	struct situation situation;
	struct late late;
	bool run;		/* it is to run afterwards */
	bool patched;
	bool loaded_again;
	bool tsc_lost;		/* the host does not honour it, and that was forced */
	char *xml;
	virConnectPtr connection;
	virDomainPtr domain;	/* of a managed save, and once it is restored */
	struct resume *resume;
	struct gclk_error error;
	/* the call, in a thread of its own */
	pthread_t thread;
	atomic_bool done;
	int status;
	struct gclk_error call_error;
	int64_t ready_ns;
	struct proof proof;
};

static const char *name_of(const struct restoring *r)
{
	return r->options->path ? r->options->path : r->options->domain;
}

/* ---- before libvirt is asked for anything ---- */

static int find_path(struct restoring *r)
{
	const struct restore_options *options = r->options;
	int s = virt_connect(options->uri, false, &r->connection, &r->error);

	if (s == 0 && !options->path) {
		s = virt_domain(r->connection, options->domain, &r->domain, &r->error);
	}
	if (s == 0 && r->domain && virDomainHasManagedSaveImage(r->domain, 0) != 1) {
		s = gclk_fail(&r->error, GCLK_STATE, NULL, GCLK_NO_OFFSET,
			      "the domain has no managed save");
	}
	return s < 0 ? s : virt_image_path(r->connection, options->path, options->image,
					   r->domain ? virDomainGetName(r->domain) : "",
					   r->path, sizeof(r->path), &r->error);
}

static void close_source(struct restoring *r)
{
	source_close(&r->source);
	if (r->image >= 0) {
		close(r->image);
	}
	r->image = -1;
}

static int open_source_at(struct restoring *r, const char *path, const struct options *o,
			  enum source_use use)
{
	close_source(r);
	r->image = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (r->image < 0) {
		gclk_fail(&r->error, GCLK_SYS, NULL, GCLK_NO_OFFSET,
			  "the file cannot be opened");
		return fail(path, &r->error, EFFECT_NONE, NULL);
	}
	return source_open_fd(&r->source, r->image, path, o, use);
}

/* @room: that the copy may have. The image itself says how long it is unpacked. */
static int check_room(const struct restoring *r, uint64_t room)
{
	struct gclk_image_span span;

	gclk_image_late_span(r->source.image, &span);
	if (span.stream_end <= room) {
		return 0;
	}
	message("error", r->path, gclk_status_name(GCLK_SYS), EFFECT_NONE, NULL,
		"its memory is compressed and has %" PRIu64 " bytes unpacked; in its directory "
		"there is room for %" PRIu64, span.stream_end, room);
	return GCLK_SYS;
}

/* @before: what may be written by others than who makes the copy: to say what is wrong. */
static int write_plain(struct restoring *r, const struct rlimit *before)
{
	struct gclk_plan *plan = NULL;
	void *payload = NULL;
	size_t size = 0;
	int s = make_plan(&r->source, &r->situation, &plan);

	if (s == 0) {
		s = payload_make(&r->source, &r->situation, plan, &payload, &size, &r->error);
		s = s < 0 ? s : gclk_image_write(r->source.image, plan, payload, size,
						 r->temporary, &r->error);
		room_unlimit(before);
		s = s < 0 ? fail(r->temporary, &r->error, EFFECT_NONE, NULL) : 0;
	}
	progress_end(&r->source.progress);
	free(payload);
	gclk_plan_free(plan);
	return s;
}

/*
 * What is compressed cannot be written while it is read: then libvirt gets a copy that is
 * not, which is removed afterwards. A managed save has its place, and no copy. Who reads the
 * image for us also writes the copy, and not more of it than there is room for.
 */
static int make_plain(struct restoring *r)
{
	struct rlimit before;
	uint64_t room;
	int s;

	snprintf(r->temporary, sizeof(r->temporary), "%s.guestclock-%d", r->path,
		 (int)getpid());
	r->plain = *r->o;
	r->plain.output = r->temporary;
	if (room_beside(r->path, &room, &r->error) < 0) {
		return fail(r->path, &r->error, EFFECT_NONE, NULL);
	}
	s = check_room(r, room);
	if (s) {
		return s;
	}
	if (room_limit(room, &before, &r->error) < 0) {
		return fail(r->path, &r->error, EFFECT_NONE, NULL);
	}
	s = open_source_at(r, r->path, &r->plain, SOURCE_PLAIN);
	s = s ? s : write_plain(r, &before);
	room_unlimit(&before);
	return s ? s : open_source_at(r, r->temporary, r->o, SOURCE_CHANGE);
}

static void take_reason(struct restoring *r, const struct gclk_plan *plan)
{
	for (unsigned i = 0; i < plan->findings.n; i++) {
		const struct gclk_finding *f = &plan->findings.items[i];

		if (f->info->refuses && !f->forced) {
			clean_text(r->move->why, sizeof(r->move->why), f->message);
			return;
		}
	}
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

/*
 * A host that takes what is written to a guest's TSC and goes on with its own: nothing
 * that a restore writes there would come true (R7).
 */
static int check_tsc(struct restoring *r, struct gclk_plan *plan)
{
	static const char id[] = "tsc-not-honoured";

	if (r->source.state->guest.accelerator != GCLK_ACCEL_KVM ||
	    gclk_kvm_keeps_tsc(NULL) != 0) {
		return 0;
	}
	gclk_findings_add(&plan->findings, id, "tsc",
			  "this host's KVM takes what is written to a guest's TSC, and the "
			  "guest reads the host's counter all the same");
	r->tsc_lost = is_forced(r->o, id);
	return r->tsc_lost ? 0 : GCLK_REFUSED;
}

static int preflight(struct restoring *r)
{
	struct gclk_plan *plan = NULL;
	int s = situation_find(&r->situation, &r->source, r->o, STARTUP_NS);

	s = s ? s : make_plan(&r->source, &r->situation, &plan);
	s = s ? s : check_tsc(r, plan);
	if (plan) {
		move_take_plan(r->move, r->source.state, gclk_image_carrier(r->source.image),
			       &r->situation.host, plan);
	}
	if (s == GCLK_REFUSED) {
		say_refused(&r->source, plan);
		r->move->verdict = MOVE_REFUSED;
		r->move->findings = plan->findings;
		take_reason(r, plan);
	}
	gclk_plan_free(plan);
	return s;
}

static void take_source(struct restoring *r)
{
	const struct gclk_domain *domain = gclk_image_domain(r->source.image);
	struct move *move = r->move;
	int was_running = gclk_image_was_running(r->source.image);

	clean_text(move->domain, sizeof(move->domain), domain->name);
	clean_text(move->uuid, sizeof(move->uuid), domain->uuid);
	snprintf(r->guard->uuid, sizeof(r->guard->uuid), "%s", move->uuid);
	move->stopped = r->source.captured;
	snprintf(move->stopped_basis, sizeof(move->stopped_basis), "%s", r->source.basis);
	clean_text(move->from, sizeof(move->from), r->source.host.hostname);
	r->run = r->options->running || (!r->options->paused && was_running != 0);
}

static void take_situation(struct restoring *r)
{
	struct move *move = r->move;

	move->disagreement = r->situation.disagreement;
	snprintf(move->disagreement_basis, sizeof(move->disagreement_basis), "%s",
		 r->situation.disagreement_basis);
	clean_text(move->to, sizeof(move->to), r->situation.host.hostname);
}

static int open_source(struct restoring *r)
{
	int s = open_source_at(r, r->path, r->o, SOURCE_LOOK);
	const char *compression;

	if (s) {
		return s;
	}
	if (!r->source.image || !gclk_image_domain(r->source.image)) {
		message("error", r->path, gclk_status_name(GCLK_UNSUPPORTED), EFFECT_NONE,
			NULL, "it is no save image of libvirt's");
		return GCLK_UNSUPPORTED;
	}
	take_source(r);
	compression = gclk_image_compression(r->source.image);
	if (!strcmp(compression, "none")) {
		s = open_source_at(r, r->path, r->o, SOURCE_CHANGE);
		return s ? s : preflight(r);
	}
	s = preflight(r);
	if (s == 0 && !r->options->path) {
		message("error", r->path, gclk_status_name(GCLK_UNSUPPORTED), EFFECT_NONE,
			"virsh save with save_image_format = \"raw\"",
			"a managed save that is compressed (%s) can only be rewritten as a whole",
			compression);
		return GCLK_UNSUPPORTED;
	}
	return s ? s : make_plain(r);
}

/* ---- the load ---- */

static void *call(void *ctx)
{
	struct restoring *r = ctx;
	bool bypass = r->options->bypass_cache;
	int s;

	if (r->options->path) {
		s = virDomainRestoreFlags(r->connection,
					  r->temporary[0] ? r->temporary : r->path, r->xml,
					  VIR_DOMAIN_SAVE_PAUSED |
					  (bypass ? VIR_DOMAIN_SAVE_BYPASS_CACHE : 0));
	} else {
		s = virDomainCreateWithFlags(r->domain, VIR_DOMAIN_START_PAUSED |
					     (bypass ? VIR_DOMAIN_START_BYPASS_CACHE : 0));
	}
	r->ready_ns = wall_line_ns(&r->situation.line);
	r->status = s < 0 ? virt_fail(&r->call_error, GCLK_SYS, "restoring the domain") : 0;
	atomic_store(&r->done, true);
	return NULL;
}

static bool is_done(void *ctx)
{
	return atomic_load(&((struct restoring *)ctx)->done);
}

static void rest(void)
{
	const struct timespec t = { 0, LOOK_NS };

	nanosleep(&t, NULL);
}

/* Whoever has the image open, as soon as somebody has. */
static void find_reader(struct restoring *r)
{
	struct stat st;

	/* not what has its name by now: that would be another reader's position */
	if (fstat(r->image, &st) < 0) {
		return;
	}
	while (!r->late.has_reader && !is_done(r)) {
		r->late.has_reader = reader_of_file(st.st_dev, st.st_ino, &r->late.reader);
		if (!r->late.has_reader) {
			rest();
		}
	}
}

static void lessons_path(const struct restoring *r, char *to, size_t size)
{
	const char *dir = r->options->state_dir ? r->options->state_dir : LEARNED_DIR;

	mkdir(dir, 0755);
	snprintf(to, size, "%s/restores-held", dir);
}

static int begin_late(struct restoring *r)
{
	struct late *late = &r->late;
	char path[512];
	int s;

	lessons_path(r, path, sizeof(path));
	learned_read(path, &late->learned);
	late->source = &r->source;
	late->situation = &r->situation;
	late->startup_ns = STARTUP_NS;
	late->hold_ns = GCLK_MIN((int64_t)late->learned.to_run_spread_ns,
				 r->options->max_hold_ns);
	late->hold_uncertainty_ns = KEPT_NS;
	s = late_begin(late, &r->error);
	r->patched = s == 0;
	return s;
}

static int load(struct restoring *r)
{
	r->guard->suspended = r->run;
	if (pthread_create(&r->thread, NULL, call, r)) {
		return gclk_fail(&r->error, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "no thread can be started");
	}
	find_reader(r);
	late_follow(&r->late, IDLE_NS, is_done, r);
	pthread_join(r->thread, NULL);
	if (r->status < 0) {
		r->error = r->call_error;
		r->guard->suspended = 0;
	} else {
		late_was_loaded(&r->late);
	}
	return r->status;
}

/* The guest stands, and has not run yet: what it may hold are bytes of two plans. */
static bool may_load_again(const struct restoring *r)
{
	/* of a managed save libvirt has removed the image */
	return r->late.outcome == LATE_RACED && r->options->path && !r->loaded_again;
}

/* Unless somebody else has resumed it meanwhile. */
static bool put_down(struct restoring *r)
{
	virDomainPtr domain = virDomainLookupByUUIDString(r->connection, r->move->uuid);
	int state = VIR_DOMAIN_NOSTATE, reason;
	bool down = domain && virDomainGetState(domain, &state, &reason, 0) == 0 &&
		    state == VIR_DOMAIN_PAUSED && virDomainDestroy(domain) == 0;

	if (domain) {
		virDomainFree(domain);
	}
	virResetLastError();
	return down;
}

/*
 * Once more from the same image, which is right. Should this process be killed meanwhile, the
 * guard resumes what stands, or finds nothing: then the guest is in its image, as before. Where
 * it cannot be begun the guest stays as it was loaded.
 */
static int load_again(struct restoring *r)
{
	struct resume *resume = NULL;
	int s = resume_open(r->options->uri, r->move->uuid, &resume, &r->error);

	if (s < 0 || !put_down(r)) {
		resume_close(resume);
		return 0;
	}
	message("note", name_of(r), NULL, EFFECT_READING, NULL,
		"the reader came to the clocks while they were written, in %.2f ms: the guest, "
		"which had not run yet, is loaded once more", (double)r->late.took_ns / 1e6);
	resume_close(r->resume);
	r->resume = resume;
	r->loaded_again = true;
	atomic_store(&r->done, false);
	s = late_again(&r->late, &r->error);
	return s < 0 ? s : load(r);
}

/* ---- afterwards ---- */

/*
 * The last plan once more, for the same bytes, with what is known now about the instants
 * that it had to predict.
 */
static void settle(struct restoring *r, const struct gclk_instant *ran)
{
	struct late *late = &r->late;
	struct gclk_when *when = &r->situation.when;
	struct gclk_error error;

	if (ran->uncertainty_ns != GCLK_UNBOUNDED) {
		when->run.uncertainty_ns = 0;
	}
	if (late->tail_ns) {
		int64_t last_ns = late->closed_ns ? late->closed_ns : r->ready_ns;
		int64_t first = when->load.ns - late->tail_before_ns;
		int64_t last = last_ns - when->load.ns;

		when->load.uncertainty_ns = (uint64_t)GCLK_MAX(GCLK_MAX(first, last), 0);
	}
	if (late_plan_again(late, &error) == 0) {
		move_take_plan(r->move, r->source.state,
			       gclk_image_carrier(r->source.image), &r->situation.host,
			       late->plan);
	}
}

static int ask(void *ctx, const char *command, bool human, char **ret,
	       struct gclk_error *reterr)
{
	return resume_ask(ctx, command, human, ret, reterr);
}

/* What the guest's clocks are now (R7). */
static void verify(struct restoring *r)
{
	pid_t pid = offsets_pid_of("", r->move->domain);

	proof_take(&r->proof, r->late.plan->state, gclk_image_carrier(r->source.image),
		   &r->situation.host, &r->late.plan->when);
	proof_read(&r->proof, "", pid, r->options->ask_monitor ? ask : NULL, r->resume, r->move);
}

static void learn(struct restoring *r)
{
	struct gclk_error error;
	struct lesson lesson;
	char path[512];

	lessons_path(r, path, sizeof(path));
	if (!r->late.closed_ns) {
		r->late.closed_ns = r->ready_ns;	/* the call came back first */
	}
	if (late_lesson(&r->late, r->ready_ns, &lesson) &&
	    learned_add(path, &lesson, &error) < 0) {
		message("warning", path, NULL, EFFECT_READING, NULL, "%s", error.message);
	}
}

/* The report tells its instants by the wall clock for which the image was written. */
static void take_ran(struct restoring *r, struct resumed *resumed)
{
	resumed->at.ns = late_on_wall(&r->late, resumed->at.ns);
	if (resumed->until_ns) {
		resumed->until_ns = late_on_wall(&r->late, resumed->until_ns);
	}
	move_ran(r->move, &resumed->at, resumed->until_ns, resumed->basis, TOLERANCE_NS);
	move_wall_set(r->move, &r->source.state->rtc, late_set_since(&r->late));
}

static int run_it(struct restoring *r)
{
	const struct wall_line *line = &r->situation.line;
	int64_t run_ns = r->situation.when.run.ns;
	struct resumed resumed;
	int s;

	resume_has_arrived(r->resume, r->ready_ns);
	s = resume_at(r->resume, line, 0, run_ns, wall_line_ns(line) + ARRIVAL_NS, &resumed,
		      &r->error);
	if (s < 0) {
		return s;
	}
	r->guard->suspended = 0;
	r->move->verdict = MOVE_DONE;
	settle(r, &resumed.at);
	r->move->hold_ns = GCLK_MAX(run_ns - r->ready_ns, 0);
	take_ran(r, &resumed);
	verify(r);
	if (r->late.outcome == LATE_RACED) {
		r->move->verdict = MOVE_UNPROVEN;
		snprintf(r->move->why, sizeof(r->move->why),
			 "the reader came to the clocks while they were written, in %.2f ms",
			 (double)r->late.took_ns / 1e6);
	}
	if (r->tsc_lost) {
		r->move->verdict = MOVE_UNPROVEN;
		snprintf(r->move->why, sizeof(r->move->why),
			 "tsc-not-honoured: the guest's TSC is the host's");
	}
	return 0;
}

static void leave_paused(struct restoring *r)
{
	const struct gclk_instant unseen = { 0, GCLK_UNBOUNDED };

	r->move->verdict = MOVE_UNPROVEN;
	settle(r, &unseen);
	snprintf(r->move->why, sizeof(r->move->why),
		 "it is left suspended: what passes until its resume, its clocks lose");
}

static void set_guest_time(struct restoring *r)
{
	virDomainPtr domain = virDomainLookupByUUIDString(r->connection, r->move->uuid);

	guest_time_say(domain, name_of(r));
	if (domain) {
		virDomainFree(domain);
	}
}

static bool wants_guest_time(const struct restoring *r)
{
	return r->options->set_guest_time ||
	       r->situation.settings.policy.gap == GCLK_GAP_WALL;
}

/* The image as it was: libvirt has not taken it. */
static int take_back(struct restoring *r)
{
	struct gclk_image_options options = { 0 };
	struct gclk_error error;
	int undone;

	close_source(r);
	if (r->patched && !r->temporary[0] &&
	    (confine_worker(r->o->conf, &options.worker, &error) < 0 ||
	     gclk_image_undo(r->path, &options, &undone, &error) < 0)) {
		message("warning", r->path, NULL, EFFECT_READING, "guestclock undo",
			"the image is left rewritten: %s", error.message);
	}
	return fail(name_of(r), &r->error, EFFECT_NONE, NULL);
}

static void close_record(struct restoring *r)
{
	struct gclk_error error;
	struct stat st;

	if (r->temporary[0] || (stat(r->path, &st) < 0 && errno == ENOENT)) {
		return;		/* nobody restores from it again */
	}
	if (late_end(&r->late, &error) < 0) {
		message("warning", r->path, NULL, EFFECT_READING, "guestclock undo",
			"its undo record stays open: %s", error.message);
	}
}

static int prepare(struct restoring *r)
{
	size_t size;
	int s = find_path(r);

	if (s == 0 && r->options->xml_path) {
		s = read_whole(r->options->xml_path, (size_t)16 << 20, &r->xml, &size,
			       &r->error);
	}
	if (s < 0) {
		return fail(name_of(r), &r->error, EFFECT_NONE, NULL);
	}
	s = open_source(r);
	if (s) {
		return s;
	}
	take_situation(r);
	s = resume_open(r->options->uri, r->move->uuid, &r->resume, &r->error);
	s = s < 0 ? s : begin_late(r);
	return s < 0 ? fail(name_of(r), &r->error, EFFECT_NONE, NULL) : 0;
}

static int restore(struct restoring *r)
{
	int s = prepare(r);

	if (s) {
		return s;
	}
	s = load(r);
	if (s == 0 && may_load_again(r)) {
		s = load_again(r);
	}
	if (s < 0) {
		r->move->verdict = MOVE_CANCELLED;
		clean_text(r->move->why, sizeof(r->move->why), r->error.message);
		return take_back(r);
	}
	learn(r);
	if (!r->run) {
		leave_paused(r);
	} else if (run_it(r) < 0) {
		r->move->verdict = MOVE_UNPROVEN;
		clean_text(r->move->why, sizeof(r->move->why), r->error.message);
		s = fail(name_of(r), &r->error, EFFECT_CHANGED, "virsh resume");
	}
	if (s == 0 && r->run && r->move->verdict == MOVE_UNPROVEN) {
		message("warning", name_of(r), NULL, EFFECT_READING, NULL,
			"the guest runs, but its clocks are not proven right: %s",
			r->move->why[0] ? r->move->why : "nobody saw it begin to run");
		s = GCLK_UNPROVEN;
	}
	if ((s == 0 || s == GCLK_UNPROVEN) && r->run && wants_guest_time(r)) {
		set_guest_time(r);
	}
	close_record(r);
	return s;
}

static void audit(struct restoring *r)
{
	const char *path = r->options->audit_path;
	struct gclk_error error;

	r->move->written_ns = wall_clock_ns();
	if (move_audit(r->move, path, &error) < 0) {
		message("warning", path ? path : AUDIT_PATH, NULL, EFFECT_READING, NULL,
			"the audit log: %s", error.message);
	}
}

int restore_run(struct guard *guard, const struct restore_options *options,
		const struct options *o, struct move *ret)
{
	struct restoring *r = calloc(1, sizeof(*r));
	int s;

	if (!r) {
		return GCLK_NOMEM;
	}
	r->options = options;
	r->o = o;
	r->guard = guard;
	r->move = ret;
	r->image = -1;
	move_init(ret, "restore");
	ret->verdict = MOVE_CANCELLED;
	s = restore(r);
	if (ret->domain[0]) {
		audit(r);
	}
	resume_close(r->resume);
	proof_free(&r->proof);
	gclk_plan_free(r->late.plan);
	close_source(r);
	if (r->temporary[0]) {
		unlink(r->temporary);
	}
	if (r->domain) {
		virDomainFree(r->domain);
	}
	if (r->connection) {
		virConnectClose(r->connection);
	}
	free(r->xml);
	free(r);
	return s;
}
