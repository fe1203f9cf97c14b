/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <libvirt/libvirt-qemu.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/virt/events.h"
#include "migrator/wall.h"

#define QUEUE_MAX 256 /* a power of two */

/*
 * libvirt may call back while a registration is being taken away in another thread, and
 * says by its free function when it never will again: each registration holds a reference.
 */
struct virt_events {
	pthread_mutex_t lock;
	pthread_cond_t more;
	unsigned refs;
	char uuid[VIR_UUID_STRING_BUFLEN];
	void (*heard)(void *ctx, const struct virt_event *event);
	void *ctx;
	struct virt_event queue[QUEUE_MAX];
	unsigned first, n;
	virConnectPtr connection;
	int lifecycle, iteration, monitor; /* registrations; -1: none */
};

static void unref(void *data)
{
	struct virt_events *events = data;
	unsigned left;

	pthread_mutex_lock(&events->lock);
	left = --events->refs;
	pthread_mutex_unlock(&events->lock);
	if (left == 0) {
		pthread_cond_destroy(&events->more);
		pthread_mutex_destroy(&events->lock);
		free(events);
	}
}

/* The oldest makes room: what nobody asked for in time is not worth more than what comes. */
static void put(struct virt_events *events, struct virt_event *event)
{
	event->boot_ns = boot_clock_ns();
	event->came_ns = wall_clock_ns();
	if (!event->at_ns) {
		event->at_ns = event->came_ns;
	}
	pthread_mutex_lock(&events->lock);
	if (events->n == QUEUE_MAX) {
		events->first++;
		events->n--;
	}
	events->queue[(events->first + events->n++) % QUEUE_MAX] = *event;
	if (events->heard) {
		events->heard(events->ctx, event);
	}
	pthread_cond_broadcast(&events->more);
	pthread_mutex_unlock(&events->lock);
}

static bool is_ours(const struct virt_events *events, virDomainPtr domain)
{
	char uuid[VIR_UUID_STRING_BUFLEN];

	return virDomainGetUUIDString(domain, uuid) == 0 && !strcasecmp(uuid, events->uuid);
}

static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int what, int detail,
			void *data)
{
	struct virt_event event = { VIRT_LIFECYCLE, .event = what, .detail = detail };

	(void)connection;
	if (is_ours(data, domain)) {
		put(data, &event);
	}
	return 0;
}

static void on_iteration(virConnectPtr connection, virDomainPtr domain, int iteration,
			 void *data)
{
	struct virt_event event = { VIRT_ITERATION, .detail = iteration };

	(void)connection;
	if (is_ours(data, domain)) {
		put(data, &event);
	}
}

static const struct {
	const char *name;
	enum virt_event_kind kind;
} of_qemu[] = {
	{ "STOP", VIRT_STOP },
	{ "RESUME", VIRT_RESUME },
	{ "MIGRATION_PASS", VIRT_PASS },
};

static void on_monitor(virConnectPtr connection, virDomainPtr domain, const char *name,
		       long long seconds, unsigned int micros, const char *details, void *data)
{
	struct virt_event event = { .at_ns = seconds * GCLK_NS_PER_S +
					     micros * INT64_C(1000) };

	(void)connection;
	(void)details;
	if (!is_ours(data, domain)) {
		return;
	}
	for (unsigned i = 0; i < GCLK_COUNT(of_qemu); i++) {
		if (!strcmp(name, of_qemu[i].name)) {
			event.kind = of_qemu[i].kind;
			put(data, &event);
		}
	}
}

static void on_close(virConnectPtr connection, int reason, void *data)
{
	struct virt_event event = { VIRT_GONE, .detail = reason };

	(void)connection;
	put(data, &event);
}

static void register_all(struct virt_events *e)
{
	e->refs += 3;
	e->lifecycle = virConnectDomainEventRegisterAny(
		e->connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
		VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), e, unref);
	e->iteration = virConnectDomainEventRegisterAny(
		e->connection, NULL, VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
		VIR_DOMAIN_EVENT_CALLBACK(on_iteration), e, unref);
	e->monitor = virConnectDomainQemuMonitorEventRegister(
		e->connection, NULL, "^(STOP|RESUME|MIGRATION_PASS)$", on_monitor, e, unref,
		VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX);
	/* a failed registration never calls unref() */
	e->refs -= (e->lifecycle < 0) + (e->iteration < 0) + (e->monitor < 0);
	if (virConnectRegisterCloseCallback(e->connection, on_close, e, unref) == 0) {
		e->refs++;
	}
}

int virt_events_open(virConnectPtr connection, const char *uuid,
		     void (*heard)(void *ctx, const struct virt_event *event), void *ctx,
		     struct virt_events **ret, struct gclk_error *reterr)
{
	struct virt_events *events = calloc(1, sizeof(*events));
	pthread_condattr_t attr;

	if (!events) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&events->more, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&events->lock, NULL);
	snprintf(events->uuid, sizeof(events->uuid), "%s", uuid);
	events->heard = heard;
	events->ctx = ctx;
	events->connection = connection;
	events->refs = 1;
	register_all(events);
	if (events->lifecycle < 0) {
		int r = virt_fail(reterr, GCLK_SYS, "listening for the domain's events");

		virt_events_close(events);
		return r;
	}
	virResetLastError();
	*ret = events;
	return 0;
}

bool virt_events_have_qemu(const struct virt_events *events)
{
	return events->monitor >= 0;
}

int virt_events_next(struct virt_events *events, int64_t deadline_ns, struct virt_event *ret)
{
	struct timespec until = { deadline_ns / GCLK_NS_PER_S, deadline_ns % GCLK_NS_PER_S };
	int r = 0;

	pthread_mutex_lock(&events->lock);
	while (events->n == 0 && r == 0) {
		r = pthread_cond_timedwait(&events->more, &events->lock, &until);
	}
	r = events->n > 0;
	if (r) {
		*ret = events->queue[events->first++ % QUEUE_MAX];
		events->n--;
	}
	pthread_mutex_unlock(&events->lock);
	return r;
}

struct virt_events *virt_events_close(struct virt_events *events)
{
	if (!events) {
		return NULL;
	}
	pthread_mutex_lock(&events->lock);
	events->heard = NULL;
	pthread_mutex_unlock(&events->lock);
	if (events->monitor >= 0) {
		virConnectDomainQemuMonitorEventDeregister(events->connection,
							   events->monitor);
	}
	if (events->iteration >= 0) {
		virConnectDomainEventDeregisterAny(events->connection, events->iteration);
	}
	if (events->lifecycle >= 0) {
		virConnectDomainEventDeregisterAny(events->connection, events->lifecycle);
	}
	virConnectUnregisterCloseCallback(events->connection, on_close);
	virResetLastError();
	unref(events);
	return NULL;
}
