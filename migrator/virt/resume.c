/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libvirt/libvirt-qemu.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/offsets.h"
#include "migrator/urgent.h"
#include "migrator/virt/events.h"
#include "migrator/virt/resume.h"
#include "migrator/virt/vcpus.h"

#define LOOK_NS (20 * GCLK_NS_PER_MS)	 /* between looks, should an event be lost */
#define STAMP_WAIT_NS (2 * GCLK_NS_PER_S) /* for the event of a resume that is done */
#define FREE_WAIT_NS (50 * GCLK_NS_PER_MS)
#define SPIN_NS (100 * INT64_C(1000))
#define STAMP_SLACK_NS (2 * INT64_C(1000)) /* microseconds, cut off */
#define WATCH_NS (2 * GCLK_NS_PER_MS) /* to begin the watch over the processors */
#define WATCH_NAP_NS (200 * INT64_C(1000))

/*
 * From the call to QEMU's stamp: what libvirt needs for it. Of the last calls in this process;
 * before the first an idle host's, or so many times what the quickest of libvirt's answers
 * takes, which tells how fast the host is.
 */
#define CALL_USUAL_NS (400 * INT64_C(1000))
#define CALL_ANSWERS 4
#define ANSWERS 5
#define CALL_MAX_TIMES 2 /* more is waiting for a processor, which may not be */
#define CALL_SLACK_NS GCLK_NS_PER_MS /* by which most calls differ from the usual one */
#define CALLS 5
static struct {
	pthread_mutex_t lock;
	int64_t took_ns[CALLS];
	unsigned n;
} calls = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct resume {
	char uuid[VIR_UUID_STRING_BUFLEN];
	virConnectPtr connection;
	virDomainPtr domain; /* once it is there */
	struct virt_events *events;
	bool arrived;	     /* it stands, its migration is over */
	bool loaded;	     /* the same, as the caller says */
	bool gone;
	struct wall_line line; /* every instant here is by it */
	int64_t ready_ns;    /* when it could have run */
	bool stamped;	     /* QEMU's RESUME came */
	int64_t stamp_ns;    /* its stamp; 0: none that can be told on the line */
	bool runs;	     /* libvirt says so */
	bool lost;	     /* libvirt itself */
	int64_t call_ns;     /* what a call to resume needs here, without experience */
};

static int64_t mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * GCLK_NS_PER_S + ts.tv_nsec;
}

static int64_t now_on(const struct resume *r)
{
	return wall_line_ns(&r->line);
}

/* The quickest of a few: the others had to wait for a processor. */
static int64_t call_to_expect_ns(virConnectPtr connection)
{
	int64_t least_ns = INT64_MAX, began_ns;
	unsigned long version;

	for (unsigned i = 0; i < ANSWERS; i++) {
		began_ns = mono_ns();
		if (virConnectGetLibVersion(connection, &version) == 0) {
			least_ns = GCLK_MIN(least_ns, mono_ns() - began_ns);
		}
	}
	return least_ns > GCLK_NS_PER_S ? CALL_USUAL_NS
					: GCLK_MAX(CALL_ANSWERS * least_ns, CALL_USUAL_NS);
}

int resume_open(const char *uri, const char *uuid, struct resume **ret,
		struct gclk_error *reterr)
{
	struct resume *resume = calloc(1, sizeof(*resume));
	int r;

	if (!resume) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	snprintf(resume->uuid, sizeof(resume->uuid), "%s", uuid);
	r = virt_connect(uri, false, &resume->connection, reterr);
	if (r == 0) {
		r = virt_events_open(resume->connection, uuid, NULL, NULL, &resume->events,
				     reterr);
	}
	if (r < 0) {
		resume_close(resume);
		return r;
	}
	resume->call_ns = call_to_expect_ns(resume->connection);
	*ret = resume;
	return 0;
}

struct resume *resume_close(struct resume *resume)
{
	if (resume) {
		virt_events_close(resume->events);
		if (resume->domain) {
			virDomainFree(resume->domain);
		}
		if (resume->connection) {
			virConnectClose(resume->connection);
		}
		free(resume);
	}
	return NULL;
}

static void take_lifecycle(struct resume *r, const struct virt_event *event)
{
	switch (event->event) {
	case VIR_DOMAIN_EVENT_STARTED:
		/* what came before was of an earlier stay on this host */
		r->arrived = r->runs = r->gone = r->stamped = false;
		r->stamp_ns = 0;
		break;
	case VIR_DOMAIN_EVENT_SUSPENDED:
		/* the other details are of a guest that has run here */
		if (event->detail == VIR_DOMAIN_EVENT_SUSPENDED_PAUSED && !r->arrived) {
			r->arrived = true;
			r->ready_ns = event->boot_ns + r->line.ahead_ns;
		}
		break;
	case VIR_DOMAIN_EVENT_RESUMED:
		r->runs = true;
		break;
	case VIR_DOMAIN_EVENT_STOPPED:
	case VIR_DOMAIN_EVENT_CRASHED:
		r->gone = true;
		break;
	default:
		break;
	}
}

static void take(struct resume *r, const struct virt_event *event)
{
	switch (event->kind) {
	case VIRT_LIFECYCLE:
		take_lifecycle(r, event);
		break;
	case VIRT_RESUME:
		r->stamped = true;
		if (!wall_line_stamp(&r->line, event->at_ns, event->came_ns, event->boot_ns,
				     &r->stamp_ns)) {
			r->stamp_ns = 0;
		}
		break;
	case VIRT_GONE:
		r->lost = true;
		break;
	default:
		break;
	}
}

/* What libvirt has it for, should an event have been lost or come before we listened. */
static void look(struct resume *r)
{
	int state, reason;

	if (!r->domain) {
		r->domain = virDomainLookupByUUIDString(r->connection, r->uuid);
	}
	if (!r->domain || virDomainGetState(r->domain, &state, &reason, 0) < 0) {
		virResetLastError();
		return;
	}
	if (state == VIR_DOMAIN_RUNNING) {
		r->runs = true;
	}
	if (state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_USER && !r->arrived) {
		r->arrived = true;
		r->ready_ns = now_on(r);
	}
}

static void take_all(struct resume *r)
{
	struct virt_event event;

	while (virt_events_next(r->events, 0, &event)) {
		take(r, &event);
	}
}

/* Handles events until @done says so or @until_ns (on the line). */
static bool wait_for(struct resume *r, bool (*done)(const struct resume *r),
		     int64_t until_ns)
{
	struct virt_event event;
	int64_t left;

	for (;;) {
		take_all(r);
		if (done(r)) {
			return true;
		}
		left = until_ns - now_on(r);
		if (left <= 0) {
			return false;
		}
		if (virt_events_next(r->events,
				     mono_ns() + GCLK_MIN(left, LOOK_NS),
				     &event)) {
			take(r, &event);
		} else {
			look(r);
		}
	}
}

static bool has_arrived(const struct resume *r)
{
	return r->arrived || r->loaded || r->runs || r->stamped || r->gone || r->lost;
}

static bool has_run(const struct resume *r)
{
	return r->stamped || r->gone || r->lost;
}

static bool has_run_or_says_so(const struct resume *r)
{
	return has_run(r) || r->runs;
}

/*
 * At the destination libvirt does not show a migration's job, but says that there is one: it is
 * not supported to look there.
 */
static bool has_job(struct resume *r)
{
	virDomainJobInfo info;
	int code;

	if (virDomainGetJobInfo(r->domain, &info) == 0) {
		return info.type != VIR_DOMAIN_JOB_NONE && info.type != VIR_DOMAIN_JOB_COMPLETED;
	}
	code = virGetLastErrorCode();
	virResetLastError();
	return code == VIR_ERR_OPERATION_UNSUPPORTED || code == VIR_ERR_OPERATION_INVALID;
}

/* While the migration's job goes on libvirt would let the resume wait for its end. */
static void wait_for_job(struct resume *r)
{
	int64_t until_ns = mono_ns() + FREE_WAIT_NS;

	while (has_job(r) && mono_ns() < until_ns) {
		nanosleep(&(struct timespec){ 0, 200000 }, NULL);
	}
}

/*
 * Sleeps for the most of it: a timer may be late by some tens of microseconds. Whoever sets
 * the wall clock meanwhile does not move T_run: what was written holds for that moment.
 */
static void sleep_until(const struct resume *r, int64_t at_ns)
{
	int64_t left = at_ns - now_on(r);

	if (left > SPIN_NS) {
		int64_t to_ns = at_ns - SPIN_NS - r->line.ahead_ns;
		struct timespec ts = { to_ns / GCLK_NS_PER_S, to_ns % GCLK_NS_PER_S };

		clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &ts, NULL);
	}
	while (now_on(r) < at_ns) {
	}
}

static int lost_or_gone(const struct resume *r, const char *when, struct gclk_error *reterr)
{
	if (r->lost) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the connection to libvirt broke %s", when);
	}
	return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET, "domain %s %s %s", r->uuid,
			 r->gone ? "vanished" : "did not arrive", when);
}

/* Of the wall clock; 0: there was none. When it came back, and the processors were seen to run. */
struct call {
	int64_t before_ns, after_ns, ran_ns;
};

/* The call comes back when the clocks run, but libvirt has more to do in it: 0.3 to 10 ms. */
static int64_t ran_by(const struct resume *r, const struct call *call)
{
	return call->ran_ns >= r->stamp_ns ? GCLK_MIN(call->ran_ns, call->after_ns)
					   : call->after_ns;
}

static void fill(const struct resume *r, const struct call *call, struct resumed *ret)
{
	*ret = (struct resumed){ .ready_ns = r->ready_ns };
	if (r->stamp_ns) {
		ret->at.ns = r->stamp_ns;
		ret->at.uncertainty_ns = VIRT_RESUME_UNCERTAINTY_NS;
		strcpy(ret->basis, "event");
	} else if (call->after_ns) {
		/* somewhere within the call */
		ret->at.ns = call->before_ns + (call->after_ns - call->before_ns) / 2;
		ret->at.uncertainty_ns = (uint64_t)(call->after_ns - call->before_ns) / 2 +
					 VIRT_RESUME_UNCERTAINTY_NS;
		strcpy(ret->basis, "call");
	} else {
		ret->at.ns = now_on(r);
		ret->at.uncertainty_ns = GCLK_UNBOUNDED;
	}
}

static void learn_call(const struct resume *r, const struct call *call)
{
	int64_t took_ns = r->stamp_ns - call->before_ns;

	if (r->stamp_ns && call->before_ns && took_ns > 0) {
		pthread_mutex_lock(&calls.lock);
		calls.took_ns[calls.n++ % CALLS] = took_ns;
		pthread_mutex_unlock(&calls.lock);
	}
}

/* The median: one call that had to wait for a processor says nothing of the next. */
static int64_t usual_call_ns(const struct resume *r)
{
	int64_t sorted[CALLS];
	unsigned n, k;

	pthread_mutex_lock(&calls.lock);
	n = GCLK_MIN(calls.n, (unsigned)CALLS);
	for (unsigned i = 0; i < n; i++) {
		for (k = i; k > 0 && sorted[k - 1] > calls.took_ns[i]; k--) {
			sorted[k] = sorted[k - 1];
		}
		sorted[k] = calls.took_ns[i];
	}
	pthread_mutex_unlock(&calls.lock);
	return n < 2 ? r->call_ns
		     : GCLK_MIN(sorted[(n - 1) / 2],
				GCLK_MAX(CALL_MAX_TIMES * r->call_ns, GCLK_NS_PER_MS));
}

/* 1: resumed by this call, which QEMU answers when the clocks run; 0: by somebody else's. */
static int resume_now(struct resume *r, struct vcpus *vcpus, struct call *call,
		      struct gclk_error *reterr)
{
	char doing[96];
	int64_t ran_ns;
	int done;

	call->before_ns = now_on(r);
	done = virDomainResume(r->domain);
	call->after_ns = now_on(r);
	ran_ns = vcpus_ran(vcpus);
	call->ran_ns = ran_ns ? ran_ns + r->line.ahead_ns : 0;
	if (done == 0) {
		return 1;
	}
	snprintf(doing, sizeof(doing), "resuming domain %s", r->uuid);
	done = virt_fail(reterr, GCLK_STATE, doing);
	virResetLastError();
	look(r);
	/* somebody else was faster */
	return r->runs ? 0 : done;
}

uint64_t resume_slow_milli(const struct resume *resume)
{
	return (uint64_t)(resume->call_ns * 1000 / CALL_USUAL_NS);
}

void resume_has_arrived(struct resume *resume, int64_t at_ns)
{
	resume->loaded = true;
	resume->ready_ns = at_ns;
}

/* A stamp beside the call that it answers is of a clock that was set meanwhile. */
static void drop_false_stamp(struct resume *resume, const struct call *call)
{
	if (resume->stamp_ns &&
	    (resume->stamp_ns < call->before_ns - STAMP_SLACK_NS ||
	     resume->stamp_ns > call->after_ns + STAMP_SLACK_NS)) {
		resume->stamp_ns = 0;
	}
}

/* The hypervisor's process, for the watch over its processors. */
static pid_t process_of(const struct resume *resume, pid_t pid)
{
	return pid > 0 ? pid : offsets_pid_of("", virDomainGetName(resume->domain));
}

/* Once, and again while there is time: they may still be busy with the load. */
static struct vcpus *watch_vcpus(const struct resume *resume, pid_t pid, int64_t until_ns)
{
	struct vcpus *vcpus = vcpus_watch("", pid);

	while (!vcpus && now_on(resume) < until_ns - WATCH_NS / 2) {
		nanosleep(&(struct timespec){ 0, WATCH_NAP_NS }, NULL);
		vcpus = vcpus_watch("", pid);
	}
	return vcpus;
}

static int wait_and_resume(struct resume *resume, pid_t pid, int64_t t_run_ns,
			   int64_t give_up_ns, struct resumed *ret, struct gclk_error *reterr)
{
	struct call call = { 0 };
	struct vcpus *vcpus;
	int r = 0;

	if (!wait_for(resume, has_arrived, give_up_ns) || resume->gone || resume->lost) {
		return lost_or_gone(resume, "after its state had been sent", reterr);
	}
	if (!resume->domain) {
		look(resume);
	}
	if (!resume->runs && !resume->stamped) {
		if (!resume->domain) {
			return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
					 "domain %s cannot be found to be resumed", resume->uuid);
		}
		wait_for_job(resume);
		resume->ready_ns = now_on(resume) + usual_call_ns(resume) + CALL_SLACK_NS;
		sleep_until(resume, t_run_ns - usual_call_ns(resume) - WATCH_NS);
		vcpus = watch_vcpus(resume, process_of(resume, pid),
				    t_run_ns - usual_call_ns(resume));
		sleep_until(resume, t_run_ns - usual_call_ns(resume));
		r = resume_now(resume, vcpus, &call, reterr);
		if (r < 0) {
			return r;
		}
	}
	if (virt_events_have_qemu(resume->events)) {
		wait_for(resume, has_run, now_on(resume) + STAMP_WAIT_NS);
	}
	if (r > 0) {
		drop_false_stamp(resume, &call);
	}
	learn_call(resume, &call);
	fill(resume, &call, ret);
	ret->until_ns = r > 0 && resume->stamp_ns ? ran_by(resume, &call) : 0;
	return 0;
}

int resume_at(struct resume *resume, const struct wall_line *line, pid_t pid, int64_t t_run_ns,
	      int64_t give_up_ns, struct resumed *ret, struct gclk_error *reterr)
{
	int r;

	resume->line = *line;
	urgent(true);
	r = wait_and_resume(resume, pid, t_run_ns, give_up_ns, ret, reterr);
	urgent(false);
	return r;
}

int resume_watch(struct resume *resume, const struct wall_line *line, int64_t give_up_ns,
		 struct resumed *ret, struct gclk_error *reterr)
{
	struct call seen = { 0 };
	bool ran;

	resume->line = *line;
	seen.before_ns = now_on(resume);
	ran = wait_for(resume, has_run_or_says_so, give_up_ns);
	if (!ran || resume->gone || resume->lost) {
		return lost_or_gone(resume, "before it was seen to run", reterr);
	}
	if (!resume->stamp_ns) {
		seen.after_ns = now_on(resume);
		if (virt_events_have_qemu(resume->events)) {
			wait_for(resume, has_run, seen.after_ns + STAMP_WAIT_NS / 20);
		}
	}
	fill(resume, &seen, ret);
	return 0;
}

int resume_ask(struct resume *resume, const char *command, bool human, char **ret,
	       struct gclk_error *reterr)
{
	int r;

	if (!resume->domain) {
		look(resume);
	}
	if (!resume->domain) {
		return gclk_fail(reterr, GCLK_STATE, NULL, GCLK_NO_OFFSET,
				 "the domain is not there to be asked");
	}
	*ret = NULL;
	r = virDomainQemuMonitorCommand(resume->domain, command, ret,
					human ? VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP : 0);
	if (r < 0) {
		r = virt_fail(reterr, GCLK_SYS, "asking QEMU's monitor");
		virResetLastError();
	}
	return r;
}
