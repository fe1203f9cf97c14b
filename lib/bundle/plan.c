/* SPDX-License-Identifier: MIT */
/* Plans are kept for people and for audits: written here, read by nobody who acts on them. */
#include <assert.h>
#include <string.h>

#include "bundle/bind.h"
#include "bundle/bundle.h"
#include "bundle/memory.h"

static_assert((int)GCLK_GAP_CAP == GUESTCLOCK__V1__GAP_POLICY__GAP_POLICY_CAP, "same numbers");
static_assert((int)GCLK_TICKS_DISCARD == GUESTCLOCK__V1__TICK_POLICY__TICK_POLICY_DISCARD,
	      "same numbers");
static_assert((int)GCLK_ERROR == GUESTCLOCK__V1__SEVERITY__SEVERITY_ERROR, "same numbers");

/* A present value. */
#define PUT(message, field, value)                                                \
	((message)->has_##field = 1, (message)->field = (value))

/* Memory that remembers whether it was ever short, so that it is asked once. */
struct builder {
	ProtobufCAllocator *mem;
	bool failed;
};

static void *new_message(struct builder *b, const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *message = gclk_message_new(descriptor, b->mem);

	b->failed = b->failed || !message;
	return message;
}

static char *new_text(struct builder *b, const char *text)
{
	size_t n = text ? strlen(text) + 1 : 1;
	char *copy = gclk_mem_alloc(b->mem, n);

	if (copy) {
		memcpy(copy, text ? text : "", n);
	}
	b->failed = b->failed || !copy;
	return copy;
}

/* Makes a list of @n empty messages; NULL when memory is short or @n is 0. */
static ProtobufCMessage **new_list(struct builder *b, Guestclock__V1__Plan *message,
				   const char *name, size_t n)
{
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
		message->base.descriptor, name);
	size_t made;

	if (!gclk_message_resize(&message->base, field, n, b->mem)) {
		b->failed = true;
		return NULL;
	}
	return gclk_message_list(&message->base, field, &made);
}

static Guestclock__V1__Instant *new_instant(struct builder *b, const struct gclk_instant *at)
{
	Guestclock__V1__Instant *m = new_message(b, &guestclock__v1__instant__descriptor);

	if (m) {
		PUT(m, realtime_ns, at->ns);
		if (at->uncertainty_ns != GCLK_UNBOUNDED) {
			PUT(m, uncertainty_ns, at->uncertainty_ns);
		}
	}
	return m;
}

static void put_when(struct builder *b, Guestclock__V1__Plan *m, const struct gclk_when *when)
{
	if (when->elapsed_given) {
		PUT(m, elapsed_ns, when->elapsed_ns);
	} else {
		m->captured = new_instant(b, &when->captured);
	}
	m->load = new_instant(b, &when->load);
	m->run = new_instant(b, &when->run);
	if (when->captured_tai_s != 0) {
		PUT(m, captured_tai_s, when->captured_tai_s);
	}
	if (when->run_tai_s != 0) {
		PUT(m, run_tai_s, when->run_tai_s);
	}
}

static void put_disagreement(struct builder *b, Guestclock__V1__Plan *m,
			     const struct gclk_disagreement *disagreement)
{
	Guestclock__V1__Disagreement *d =
		new_message(b, &guestclock__v1__disagreement__descriptor);

	m->disagreement = d;
	if (d) {
		PUT(d, ns, disagreement->ns);
		if (disagreement->uncertainty_ns != GCLK_UNBOUNDED) {
			PUT(d, uncertainty_ns, disagreement->uncertainty_ns);
		}
	}
}

static void put_entry(struct builder *b, Guestclock__V1__LedgerEntry *m,
		      const struct gclk_ledger_entry *entry)
{
	m->timer = new_text(b, entry->timer);
	PUT(m, period_ns, entry->period_ns);
	PUT(m, owed_before, entry->owed_before);
	PUT(m, missed, entry->missed);
	PUT(m, replayed, entry->replayed);
	PUT(m, merged, entry->merged);
	PUT(m, dropped, entry->dropped);
	PUT(m, policy, (Guestclock__V1__TickPolicy)entry->policy);
	m->why = entry->why ? new_text(b, entry->why) : NULL;
}

static void put_ledger(struct builder *b, Guestclock__V1__Plan *m, const struct gclk_plan *plan)
{
	ProtobufCMessage **list = new_list(b, m, "ledger", plan->n_ledger);

	for (uint32_t i = 0; list && i < plan->n_ledger; i++) {
		put_entry(b, (Guestclock__V1__LedgerEntry *)list[i], &plan->ledger[i]);
	}
}

static void put_bounds(struct builder *b, Guestclock__V1__Plan *m, const struct gclk_plan *plan)
{
	ProtobufCMessage **list = new_list(b, m, "bounds", plan->n_bounds);

	for (uint32_t i = 0; list && i < plan->n_bounds; i++) {
		Guestclock__V1__Bound *bound = (Guestclock__V1__Bound *)list[i];

		bound->clock = new_text(b, plan->bounds[i].clock);
		if (plan->bounds[i].bound_ns != GCLK_UNBOUNDED) {
			PUT(bound, bound_ns, plan->bounds[i].bound_ns);
		}
	}
}

static void put_finding(struct builder *b, Guestclock__V1__Finding *m,
			const struct gclk_finding *finding)
{
	m->id = new_text(b, finding->info ? finding->info->id : "");
	PUT(m, severity, (Guestclock__V1__Severity)finding->severity);
	PUT(m, forced, finding->forced != 0);
	m->clock = new_text(b, finding->clock);
	m->message = new_text(b, finding->message);
}

static void put_findings(struct builder *b, Guestclock__V1__Plan *m,
			 const struct gclk_findings *findings)
{
	ProtobufCMessage **list = new_list(b, m, "findings", findings->n);

	for (unsigned i = 0; list && i < findings->n; i++) {
		put_finding(b, (Guestclock__V1__Finding *)list[i], &findings->items[i]);
	}
	if (findings->left_out > 0) {
		PUT(m, findings_left_out, findings->left_out);
	}
}

Guestclock__V1__Plan *gclk_message_from_plan(const struct gclk_plan *plan,
					     const struct gclk_carrier *carrier,
					     ProtobufCAllocator *mem)
{
	struct builder b = { .mem = mem };
	Guestclock__V1__Plan *m = new_message(&b, &guestclock__v1__plan__descriptor);

	if (!m) {
		return NULL;
	}
	PUT(m, gap_ns, plan->gap_ns);
	if (plan->gap_uncertainty_ns != GCLK_UNBOUNDED) {
		PUT(m, gap_uncertainty_ns, plan->gap_uncertainty_ns);
	}
	PUT(m, counted_ns, plan->counted_ns);
	PUT(m, policy, (Guestclock__V1__GapPolicy)plan->policy);
	m->carrier = carrier ? new_text(&b, carrier->name) : NULL;
	put_when(&b, m, &plan->when);
	put_disagreement(&b, m, &plan->disagreement);
	put_ledger(&b, m, plan);
	put_bounds(&b, m, plan);
	put_findings(&b, m, &plan->findings);
	if (b.failed) {
		protobuf_c_message_free_unpacked(&m->base, mem);
		return NULL;
	}
	return m;
}
