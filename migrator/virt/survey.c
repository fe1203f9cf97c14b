/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libvirt/libvirt.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/peer/source_end.h"
#include "migrator/situation.h"
#include "migrator/virt/address.h"
#include "migrator/virt/connect.h"
#include "migrator/virt/domain.h"
#include "migrator/virt/survey.h"

#define APART_MS 1000 /* for the clock exchange to say something */

/*
 * One host's job. The thread and who waits for it both hold it: a thread that libvirt or
 * ssh keeps waiting must not write into a caller's record that is gone.
 */
struct job {
	struct surveyed seen;
	struct round *round;
	pthread_t thread;
	bool started, finished;
};

struct round {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned left; /* threads that still work */
	unsigned refs;
	const struct gclk_worker *by;
	struct job *jobs;
};

/* ---- capabilities ---- */

/* <host><uuid>...</uuid>: libvirt writes it in this one way; else it is not known. */
void survey_capabilities(const char *xml, struct surveyed *ret)
{
	const char *host = strstr(xml, "<host>"),
		   *end = host ? strstr(host, "</host>") : NULL;
	const char *uuid = host ? strstr(host, "<uuid>") : NULL;
	size_t n = end && uuid && uuid < end ? strcspn(uuid + 6, "<") : sizeof(ret->uuid);

	if (n < sizeof(ret->uuid)) {
		memcpy(ret->uuid, uuid + 6, n);
		ret->uuid[n] = 0;
	}
	ret->has_kvm = strstr(xml, "<domain type='kvm'") != NULL;
	GCLK_SET(host, &ret->host, flags, ret->has_kvm ? GCLK_HOST_KVM : 0);
}

/* ---- one host ---- */

static int ask_libvirt(struct surveyed *seen, struct gclk_error *reterr)
{
	virConnectPtr connection;
	unsigned long version = 0;
	char *text;
	int r = virt_connect(seen->uri, true, &connection, reterr);

	if (r < 0) {
		return r;
	}
	text = virConnectGetHostname(connection);
	gclk_text_copy(seen->name, sizeof(seen->name), text ? text : "");
	free(text);
	if (virConnectGetLibVersion(connection, &version) == 0) {
		seen->libvirt = (uint32_t)version;
	}
	text = virConnectGetCapabilities(connection);
	if (text) {
		survey_capabilities(text, seen);
		virt_counter_into(connection, &seen->host);
	} else {
		r = virt_fail(reterr, GCLK_SYS, "asking for the host's capabilities");
	}
	free(text);
	virConnectClose(connection);
	return r;
}

/* Its own profile knows more than libvirt does; the kernel's kHz are the same. */
static void take_profile(struct surveyed *seen, const struct gclk_host *profile)
{
	seen->host = *profile;
	seen->has_profile = true;
}

static int dial(struct surveyed *seen, const struct gclk_worker *by,
		struct gclk_error *reterr)
{
	struct source_end_options options;
	struct address_pki pki;
	struct source_end *end;
	int r;

	source_end_options_init(&options);
	options.verb = "hosts";
	options.there_path = "/run/guestclock/hosts.sock";
	options.address = seen->via;
	options.worker = by;
	r = address_pki(seen->uri, &pki, &options.tls, reterr);
	if (r == 0) {
		r = source_end_open(&options, &end, reterr);
	}
	if (r < 0) {
		return r;
	}
	take_profile(seen, source_end_peer(end));
	for (int ms = 0; ms < APART_MS && seen->apart.uncertainty_ns == GCLK_UNBOUNDED;
	     ms += 10) {
		nanosleep(&(struct timespec){ 0, 10 * GCLK_NS_PER_MS }, NULL);
		source_end_disagreement(end, &seen->apart);
	}
	source_end_close(end);
	return 0;
}

bool survey_is_here(const char *uri)
{
	return strstr(uri, ":///") != NULL;
}

/* A URI without a host is this one's, unless another address is given for it. */
static void ask_guestclock(struct surveyed *seen, const struct gclk_worker *by)
{
	struct gclk_host here;

	if (seen->via[0]) {
		if (dial(seen, by, &seen->via_error) == 0) {
			seen->via_error.status = 0;
		}
	} else if (survey_is_here(seen->uri) &&
		   read_this_host(&here, &seen->via_error) == 0) {
		seen->is_here = true;
		seen->apart = (struct gclk_disagreement){ 0 };
		take_profile(seen, &here);
	}
}

static void drop(struct round *round)
{
	unsigned refs;

	pthread_mutex_lock(&round->lock);
	refs = --round->refs;
	pthread_mutex_unlock(&round->lock);
	if (!refs) {
		pthread_cond_destroy(&round->changed);
		pthread_mutex_destroy(&round->lock);
		free(round->jobs);
		free(round);
	}
}

static void *work(void *arg)
{
	struct job *job = arg;
	struct round *round = job->round;
	struct surveyed seen;
	int r;

	pthread_mutex_lock(&round->lock);
	seen = job->seen;
	pthread_mutex_unlock(&round->lock);
	r = ask_libvirt(&seen, &seen.error);
	seen.state = r < 0 ? SURVEY_FAILED : SURVEY_DONE;
	if (r == 0) {
		seen.error.status = 0;
		ask_guestclock(&seen, round->by);
	}
	pthread_mutex_lock(&round->lock);
	job->seen = seen;
	job->finished = true;
	round->left--;
	pthread_cond_broadcast(&round->changed);
	pthread_mutex_unlock(&round->lock);
	drop(round);
	return NULL;
}

/* ---- all of them ---- */

static struct round *round_new(const struct surveyed *hosts, unsigned n,
			       const struct gclk_worker *by)
{
	struct round *round = calloc(1, sizeof(*round));
	pthread_condattr_t attributes;

	if (!round || !(round->jobs = calloc(n, sizeof(*round->jobs)))) {
		free(round);
		return NULL;
	}
	pthread_mutex_init(&round->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&round->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	round->refs = 1;
	round->by = by;
	for (unsigned i = 0; i < n; i++) {
		struct surveyed *seen = &round->jobs[i].seen;

		round->jobs[i].round = round;
		memset(seen, 0, sizeof(*seen));
		gclk_text_copy(seen->uri, sizeof(seen->uri), hosts[i].uri);
		gclk_text_copy(seen->via, sizeof(seen->via), hosts[i].via);
		seen->apart.uncertainty_ns = GCLK_UNBOUNDED;
	}
	return round;
}

static void start(struct round *round, struct job *job)
{
	int failed;

	pthread_mutex_lock(&round->lock);
	round->left++;
	round->refs++;
	pthread_mutex_unlock(&round->lock);
	failed = pthread_create(&job->thread, NULL, work, job);
	if (!failed) {
		job->started = true;
		return;
	}
	pthread_mutex_lock(&round->lock);
	round->left--;
	round->refs--;
	job->seen.state = SURVEY_FAILED;
	errno = failed;
	gclk_fail(&job->seen.error, GCLK_SYS, NULL, GCLK_NO_OFFSET,
		  "no thread to ask it");
	pthread_mutex_unlock(&round->lock);
}

/* Those that have their answer end now; those that still wait must not be waited for. */
static void leave(struct job *job, bool finished)
{
	if (job->started && finished) {
		pthread_join(job->thread, NULL);
	} else if (job->started) {
		pthread_detach(job->thread);
	}
}

int survey_hosts(struct surveyed *hosts, unsigned n, const struct gclk_worker *by,
		 int timeout_ms, struct gclk_error *reterr)
{
	struct round *round = round_new(hosts, n, by);
	struct timespec end;

	if (!round) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += timeout_ms / 1000 +
		      (end.tv_nsec + timeout_ms % 1000 * 1000000L) / 1000000000L;
	end.tv_nsec = (end.tv_nsec + timeout_ms % 1000 * 1000000L) % 1000000000L;
	for (unsigned i = 0; i < n; i++) {
		start(round, &round->jobs[i]);
	}
	pthread_mutex_lock(&round->lock);
	while (round->left &&
	       pthread_cond_timedwait(&round->changed, &round->lock, &end) != ETIMEDOUT) {
	}
	for (unsigned i = 0; i < n; i++) {
		hosts[i] = round->jobs[i].seen;
	}
	pthread_mutex_unlock(&round->lock);
	for (unsigned i = 0; i < n; i++) {
		bool finished;

		pthread_mutex_lock(&round->lock);
		finished = round->jobs[i].finished;
		pthread_mutex_unlock(&round->lock);
		leave(&round->jobs[i], finished);
	}
	drop(round);
	return 0;
}
