/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/virt/migrate.h"

struct virt_migrate {
	virDomainPtr domain;
	struct virt_migrate_options options;
	virTypedParameterPtr params;
	int n_params, max_params;
	unsigned flags;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool over;
	int status;
	struct gclk_error error;
};

static unsigned flags_of(const struct virt_migrate_options *o)
{
	unsigned flags = VIR_MIGRATE_LIVE;

	flags |= o->there ? 0 : VIR_MIGRATE_PEER2PEER;
	flags |= o->paused ? VIR_MIGRATE_PAUSED : 0;
	flags |= o->persistent ? VIR_MIGRATE_PERSIST_DEST : 0;
	flags |= o->undefine_source ? VIR_MIGRATE_UNDEFINE_SOURCE : 0;
	flags |= o->auto_converge ? VIR_MIGRATE_AUTO_CONVERGE : 0;
	flags |= o->parallel ? VIR_MIGRATE_PARALLEL : 0;
	flags |= o->abort_on_error ? VIR_MIGRATE_ABORT_ON_ERROR : 0;
	flags |= o->unsafe ? VIR_MIGRATE_UNSAFE : 0;
	if (o->disks_path) {
		flags |= o->copy_incremental ? VIR_MIGRATE_NON_SHARED_INC :
					       VIR_MIGRATE_NON_SHARED_DISK;
	}
	return flags;
}

static int add_socket(struct virt_migrate *m, const char *name, const char *path)
{
	char uri[160];

	snprintf(uri, sizeof(uri), "unix://%s", path);
	return virTypedParamsAddString(&m->params, &m->n_params, &m->max_params, name, uri);
}

static int make_params(struct virt_migrate *m)
{
	const struct virt_migrate_options *o = &m->options;
	int r = add_socket(m, VIR_MIGRATE_PARAM_URI, o->path);

	if (r == 0 && o->disks_path) {
		r = add_socket(m, VIR_MIGRATE_PARAM_DISKS_URI, o->disks_path);
	}
	for (const char *const *disk = o->disks; r == 0 && disk && *disk; disk++) {
		r = virTypedParamsAddString(&m->params, &m->n_params, &m->max_params,
					    VIR_MIGRATE_PARAM_MIGRATE_DISKS, *disk);
	}
	if (r == 0 && o->bandwidth_mib) {
		r = virTypedParamsAddULLong(&m->params, &m->n_params, &m->max_params,
					    VIR_MIGRATE_PARAM_BANDWIDTH, o->bandwidth_mib);
	}
	if (r == 0 && o->parallel_connections) {
		r = virTypedParamsAddInt(&m->params, &m->n_params, &m->max_params,
					 VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
					 (int)o->parallel_connections);
	}
	return r;
}

static int carry_out(struct virt_migrate *m, struct gclk_error *reterr)
{
	const struct virt_migrate_options *o = &m->options;
	virDomainPtr arrived;

	if (!o->there) {
		return virDomainMigrateToURI3(m->domain, o->desturi, m->params,
					      (unsigned)m->n_params, m->flags) == 0 ?
			       0 :
			       virt_fail(reterr, GCLK_SYS, "migrating");
	}
	arrived = virDomainMigrate3(m->domain, o->there, m->params, (unsigned)m->n_params,
				    m->flags);
	if (!arrived) {
		return virt_fail(reterr, GCLK_SYS, "migrating");
	}
	virDomainFree(arrived);
	return 0;
}

static void *run(void *arg)
{
	struct virt_migrate *m = arg;
	struct gclk_error error;
	int r = carry_out(m, &error);

	pthread_mutex_lock(&m->lock);
	m->over = true;
	m->status = r;
	if (r < 0) {
		m->error = error;
	}
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static void free_migrate(struct virt_migrate *m)
{
	virTypedParamsFree(m->params, m->n_params);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static int prepare(struct virt_migrate *m, struct gclk_error *reterr)
{
	if (make_params(m) < 0) {
		return virt_fail(reterr, GCLK_SYS, "what to migrate");
	}
	if (m->options.max_downtime_ms &&
	    virDomainMigrateSetMaxDowntime(m->domain, m->options.max_downtime_ms, 0) < 0) {
		return virt_fail(reterr, GCLK_SYS, "setting the largest downtime");
	}
	if (pthread_create(&m->thread, NULL, run, m)) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "no thread");
	}
	return 0;
}

int virt_migrate_start(virDomainPtr domain, const struct virt_migrate_options *options,
		       struct virt_migrate **ret, struct gclk_error *reterr)
{
	struct virt_migrate *m = calloc(1, sizeof(*m));
	pthread_condattr_t attr;
	int r;

	if (!m) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	}
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&m->lock, NULL);
	m->domain = domain;
	m->options = *options;
	m->flags = flags_of(options);
	r = prepare(m, reterr);
	if (r < 0) {
		free_migrate(m);
		return r;
	}
	*ret = m;
	return 0;
}

bool virt_migrate_wait(struct virt_migrate *m, int timeout_ms)
{
	struct timespec until;
	int64_t ns;
	bool over;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	ns = until.tv_sec * GCLK_NS_PER_S + until.tv_nsec + timeout_ms * GCLK_NS_PER_MS;
	until = (struct timespec){ ns / GCLK_NS_PER_S, ns % GCLK_NS_PER_S };
	pthread_mutex_lock(&m->lock);
	while (!m->over && r == 0) {
		r = pthread_cond_timedwait(&m->changed, &m->lock, &until);
	}
	over = m->over;
	pthread_mutex_unlock(&m->lock);
	return over;
}

static uint64_t stat(virTypedParameterPtr params, int n, const char *name)
{
	unsigned long long value = 0;
	int small = 0;

	if (virTypedParamsGetULLong(params, n, name, &value) == 1) {
		return value;
	}
	virResetLastError();
	if (virTypedParamsGetInt(params, n, name, &small) == 1 && small > 0) {
		return (uint64_t)small;
	}
	virResetLastError();
	return 0;
}

bool virt_migrate_progress(struct virt_migrate *m, struct virt_progress *ret)
{
	virTypedParameterPtr p = NULL;
	int n = 0, type = 0;

	if (virDomainGetJobStats(m->domain, &type, &p, &n, 0) < 0) {
		virResetLastError();
		return false;
	}
	*ret = (struct virt_progress){
		.done = stat(p, n, VIR_DOMAIN_JOB_DATA_PROCESSED),
		.remaining = stat(p, n, VIR_DOMAIN_JOB_DATA_REMAINING),
		.total = stat(p, n, VIR_DOMAIN_JOB_DATA_TOTAL),
		.bytes_per_s = stat(p, n, VIR_DOMAIN_JOB_MEMORY_BPS) +
			       stat(p, n, VIR_DOMAIN_JOB_DISK_BPS),
		.dirty_per_s = stat(p, n, VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE) *
			       stat(p, n, VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE),
		.iteration = (unsigned)stat(p, n, VIR_DOMAIN_JOB_MEMORY_ITERATION),
		.throttle = (unsigned)stat(p, n, VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
	};
	virTypedParamsFree(p, n);
	return type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED;
}

void virt_migrate_abort(struct virt_migrate *m)
{
	if (virDomainAbortJob(m->domain) < 0) {
		virResetLastError();
	}
}

int virt_migrate_finish(struct virt_migrate *m, struct gclk_error *reterr)
{
	int r;

	pthread_join(m->thread, NULL);
	r = m->status;
	if (r < 0 && reterr) {
		*reterr = m->error;
	}
	free_migrate(m);
	return r;
}
