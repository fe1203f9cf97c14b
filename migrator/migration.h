/* SPDX-License-Identifier: MIT */
/* The parts of `guestclock migrate`, and what they know of one move. */
#ifndef GCLK_MIGRATOR_MIGRATION_H
#define GCLK_MIGRATOR_MIGRATION_H

#include <stdatomic.h>

#include <guestclock/image.h>

#include "migrator/conf.h"
#include "migrator/message.h"
#include "migrator/options.h"
#include "migrator/peer/source_end.h"
#include "migrator/proof.h"
#include "migrator/virt/address.h"
#include "migrator/virt/events.h"
#include "migrator/virt/migrate.h"

#define MIGRATION_DISKS_MAX 32

/* The rows of the verb's own options that others ask for. */
enum {
	MIGRATE_DIRECT,
	MIGRATE_P2P,
	MIGRATE_PERSISTENT,
	MIGRATE_UNDEFINE_SOURCE,
	MIGRATE_SUSPEND,
	MIGRATE_COPY_ALL,
	MIGRATE_COPY_INC,
	MIGRATE_AUTO_CONVERGE,
	MIGRATE_PARALLEL,
	MIGRATE_ABORT_ON_ERROR,
	MIGRATE_UNSAFE,
	MIGRATE_SET_TIME,
	MIGRATE_POSTCOPY,
};

struct migrate_options {
	const char *connect, *via, *directory, *audit;
	struct virt_migrate_options virt; /* numbers alone */
	const char *disks[MIGRATION_DISKS_MAX + 1];
	unsigned n_disks;
	unsigned timeout_s;
	int64_t max_hold_ns, limit_ns;
	uint8_t unreadable, disagree, ask_monitor;
	struct peer_tls tls;
};

struct migration {
	const struct options *o;
	struct migrate_options *own;
	struct settings settings;
	const struct gclk_worker *worker; /* who reads what others wrote */
	virConnectPtr here, there;
	virDomainPtr domain;
	int state;		/* at the begin: VIR_DOMAIN_RUNNING or _PAUSED */
	struct gclk_domain xml;
	char uuid[VIR_UUID_STRING_BUFLEN];
	struct gclk_host host;
	char address[512];	/* of the destination end */
	struct address_pki pki;
	char path[108], disks_path[108];
	struct source_end *end;
	struct virt_events *events;
	struct virt_event pass;	/* VIRT_PASS, the last; .at_ns 0: none. Of the events' thread */
	struct waits *waits;	/* of the hypervisor's threads; NULL: not seen */
	struct virt_migrate *job;
	atomic_bool stopped;	/* the guest stands for the rest of the move */
	atomic_int iteration;
	bool suspended;		/* by us, see --timeout */
	bool broken_off;
	bool show;		/* a progress bar */
	bool visible;
};

/* Is it to run when it has arrived? */
bool migration_runs_there(const struct migration *m);
bool migration_copies_disks(const struct migration *m);

/**
 * migration_address() - where the destination end is, from --via or from DESTURI
 *
 * As address_of_uri() has it. Errors: GCLK_USAGE for a transport that says nothing of it.
 */
int migration_address(const char *desturi, const char *via, char to[512],
		      struct gclk_error *reterr);

/* What tells how late a stamp of STOP can be; 0: not known. */
struct stop_evidence {
	int64_t ran_ns;	 /* from source_end_ran() */
	int64_t pass_ns; /* QEMU's stamp of the last pass over the memory that it began before it */
	int64_t lag_ns;	 /* from waits_lag() */
};

/**
 * migration_stop() - when the guest stopped, by QEMU's stamp, its stream and its threads
 * @stamp_ns:	of the event STOP
 *
 * QEMU's thread that writes the stream stops the guest, and stamps that when all vCPUs
 * have come to rest: at once, or, where they wait for a processor, ms later. What it had
 * done or written before tells how much later at most, and so does how long its threads waited.
 * The guess stays near the stamp, where most stops are; the uncertainty covers the whole span.
 * Pure.
 */
struct gclk_instant migration_stop(int64_t stamp_ns, const struct stop_evidence *evidence);

/*
 * The sockets here, in a directory that the hypervisor's user may search: it connects to
 * them itself with --parallel and for disks; otherwise libvirt does. The directory is
 * made, for the group of that user, where it is missing.
 */
int migration_sockets(struct migration *m, struct gclk_error *reterr);

/* The group that the guest's QEMU has; (gid_t)-1 where that is not seen. */
gid_t migration_group(const struct migration *m);

/* The progress bar. */
bool migration_wants_progress(const struct migration *m);
void migration_show(struct migration *m);
void migration_show_end(struct migration *m);

/* Where the guest is found. */
enum migration_found {
	MIGRATION_UNKNOWN,
	MIGRATION_RUNNING,
	MIGRATION_RESUMED, /* by us, now */
	MIGRATION_PAUSED,
};
enum migration_found migration_at_home(const struct migration *m);
/* There; one that stands and should not is resumed. */
enum migration_found migration_rescue(const struct migration *m);

/* The guest's own wall clock, where the policy or an option wants it set. */
void migration_set_guest_time(const struct migration *m);

#endif
