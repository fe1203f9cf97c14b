/* SPDX-License-Identifier: MIT */
/*
 * What libvirt and its QEMU say about one domain, with the instants. QEMU's own events
 * (STOP, RESUME, MIGRATION_PASS) carry its stamps, in microseconds of its host's wall clock.
 */
#ifndef GCLK_MIGRATOR_VIRT_EVENTS_H
#define GCLK_MIGRATOR_VIRT_EVENTS_H

#include "migrator/virt/connect.h"

/*
 * How QEMU's stamps lie to its clocks. It stamps STOP when the clocks have been stopped and the
 * vCPUs have come to rest, RESUME right before the clocks go on: both together 38 to 139 us
 * on an idle host; where threads wait for a processor it is more.
 */
#define VIRT_STOP_LAG_NS INT64_C(75000)
#define VIRT_STOP_UNCERTAINTY_NS INT64_C(1500000)
/* of the stamp alone: how far behind it the clocks start belongs to the carrier */
#define VIRT_RESUME_UNCERTAINTY_NS INT64_C(100000)

enum virt_event_kind {
	VIRT_STOP,	/* QEMU: the vCPUs stand */
	VIRT_RESUME,	/* QEMU: they run */
	VIRT_PASS,	/* QEMU: its migration's thread begins a pass over the guest's memory */
	VIRT_LIFECYCLE, /* libvirt: .event, .detail */
	VIRT_ITERATION, /* .detail: libvirt has heard of the so-manieth pass */
	VIRT_GONE,	/* the connection to libvirt is broken */
};

struct virt_event {
	enum virt_event_kind kind;
	int event, detail;	/* virDomainEventType and its detail */
	int64_t at_ns;		/* wall clock: QEMU's stamp, else when it came */
	int64_t came_ns;	/* wall clock when it came here */
	int64_t boot_ns;	/* CLOCK_BOOTTIME at the same moment */
};

struct virt_events;

/**
 * virt_events_open() - from now on
 * @uuid:	of the domain, which need not be there yet
 * @heard:	called in the event loop's thread, or NULL; must not block
 *
 * The connection is borrowed. Where QEMU's events cannot be had (another driver, a
 * read-only connection) there are libvirt's alone: virt_events_have_qemu().
 */
int virt_events_open(virConnectPtr connection, const char *uuid,
		     void (*heard)(void *ctx, const struct virt_event *event), void *ctx,
		     struct virt_events **ret, struct gclk_error *reterr);

bool virt_events_have_qemu(const struct virt_events *events);

/**
 * virt_events_next() - the next event, oldest first
 * @deadline_ns: CLOCK_MONOTONIC
 *
 * Returns 1, or 0 at the deadline.
 */
int virt_events_next(struct virt_events *events, int64_t deadline_ns, struct virt_event *ret);

/* @heard is not called any more after it. Accepts NULL, returns NULL. */
struct virt_events *virt_events_close(struct virt_events *events);

#endif
