/* SPDX-License-Identifier: MIT */
/*
 * libvirt's own part of a live migration: started, watched, broken off. It runs in a
 * thread, since libvirt's call lasts as long as the migration.
 */
#ifndef GCLK_MIGRATOR_VIRT_MIGRATE_H
#define GCLK_MIGRATOR_VIRT_MIGRATE_H

#include "migrator/virt/connect.h"

struct virt_migrate_options {
	const char *desturi;	/* as the source's libvirt reaches the other one */
	const char *path;	/* of the socket for the state, the same on both hosts */
	const char *disks_path; /* for disks; NULL: none are copied */
	virConnectPtr there;	/* direct: this process holds both connections; else NULL */
	const char *const *disks; /* which ones, NULL-terminated; NULL: all */
	bool copy_incremental;	/* of disks, over the same base image */
	bool persistent, undefine_source;
	bool auto_converge;
	bool parallel;
	unsigned parallel_connections; /* 0: libvirt's default */
	bool abort_on_error;	/* of disk I/O */
	bool unsafe;
	bool paused;		/* libvirt does not resume it there */
	unsigned bandwidth_mib; /* per second; 0: as it is set */
	unsigned max_downtime_ms; /* 0: as it is set */
};

struct virt_migrate;

/* The domain and all texts are borrowed until the finish. */
int virt_migrate_start(virDomainPtr domain, const struct virt_migrate_options *options,
		       struct virt_migrate **ret, struct gclk_error *reterr);

/* Waits for the end, so long at most. */
bool virt_migrate_wait(struct virt_migrate *migrate, int timeout_ms);

/* How far it is. */
struct virt_progress {
	uint64_t done, remaining, total; /* bytes, of memory and disks */
	uint64_t bytes_per_s;
	uint64_t dirty_per_s;
	unsigned iteration;
	unsigned throttle; /* %, of auto-converge */
};

/* Asks QEMU: not while the guest stands. False where nothing is known. */
bool virt_migrate_progress(struct virt_migrate *migrate, struct virt_progress *ret);

/* From any thread. Has no effect when it is too late for it. */
void virt_migrate_abort(struct virt_migrate *migrate);

/**
 * virt_migrate_finish() - waits for the end, frees
 *
 * Returns 0 when libvirt has the guest there. Errors: GCLK_SYS with libvirt's sentence.
 */
int virt_migrate_finish(struct virt_migrate *migrate, struct gclk_error *reterr);

#endif
