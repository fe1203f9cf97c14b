/* SPDX-License-Identifier: MIT */
/*
 * The kernel's LAPIC timers.
 *
 * KVM_GET_LAPIC gives the count that is left (TMCCT, rounded down to a unit), not the
 * expiry; KVM_SET_LAPIC starts the timer with it at once, forgets an expiry that was not
 * delivered yet, and makes an expired one-shot (TMICT != 0, TMCCT = 0) fire again.
 * Therefore
 *
 *   capture	turns the count into an instant on the axis: the middle of the unit that
 *		is left, from the middle of the call;
 *   restore	changes only the timer's registers in the page that the VMM has restored:
 *
 *		one-shot, running	TMCCT = what is left now, to the nearest unit
 *		one-shot, delivered	TMICT = 0 (else it would fire again)
 *		one-shot, undelivered	TMCCT = 1: fires in one unit
 *		periodic		TMCCT = what is left to the next point of its grid;
 *					an undelivered expiry is set in IRR
 *		deadline		nothing: the deadline MSR follows, when the page has
 *					the mode and the TSC is final
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/time.h"
#include "core/util.h"
#include "kvm/backend.h"

#define TRIES 3
#define LATE_NS 1000		/* a start so late is not worth another write */

static uint32_t get(const struct kvm_lapic_state *page, unsigned offset)
{
	uint32_t value;

	memcpy(&value, page->regs + offset, sizeof(value));
	return value;
}

static void set(struct kvm_lapic_state *page, unsigned offset, uint32_t value)
{
	memcpy(page->regs + offset, &value, sizeof(value));
}

static int fail(struct gclk_error *reterr, enum gclk_status status, uint32_t i,
		const char *field, const char *text)
{
	char name[40];

	snprintf(name, sizeof(name), "lapic[%" PRIu32 "]%s%s", i, *field ? "." : "", field);
	return gclk_fail(reterr, status, name, GCLK_NO_OFFSET, "%s", text);
}

static int get_page(const struct gclk_kvm *k, uint32_t i, struct kvm_lapic_state *page,
		    struct gclk_error *reterr)
{
	if (gclk_sys_ioctl(k, k->vcpus[i], KVM_GET_LAPIC, page) < 0) {
		return fail(reterr, GCLK_SYS, i, "", strerror(errno));
	}
	return 0;
}

/* The page and the instant on the axis at which its count was read. */
static int read_page(const struct gclk_kvm *k, uint32_t i, struct kvm_lapic_state *page,
		     int64_t *ret_axis, struct gclk_error *reterr)
{
	int64_t before = gclk_kvm_axis_now(k);
	int r = get_page(k, i, page, reterr);

	*ret_axis = before + (gclk_kvm_axis_now(k) - before) / 2;
	return r;
}

/* 256 bits at a stride of 16 bytes. */
static void get_vectors(const struct kvm_lapic_state *page, unsigned offset, uint8_t to[32])
{
	for (unsigned i = 0; i < 8; i++) {
		memcpy(to + 4 * i, page->regs + offset + 16 * i, 4);
	}
}

static int64_t unit_ns(const struct gclk_lapic *lapic)
{
	return (int64_t)gclk_lapic_divider(lapic->divide_config) *
	       (lapic->bus_ns ? lapic->bus_ns : 1);
}

static int is_counting(const struct gclk_lapic *lapic)
{
	return lapic->initial_count && !(lapic->lvt_timer & LVTT_DEADLINE);
}

static int is_periodic(const struct gclk_lapic *lapic)
{
	return (lapic->lvt_timer & LVTT_PERIODIC) != 0;
}

static int vector_is_set(const uint8_t vectors[32], unsigned vector)
{
	return vectors[vector / 8] >> vector % 8 & 1;
}

GCLK_API int gclk_kvm_stopped(struct gclk_kvm *k, uint32_t vcpu, struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	int r;

	if (vcpu >= k->n_vcpus) {
		return fail(reterr, GCLK_RANGE, vcpu, "", "there is no such vCPU");
	}
	if (!k->stops || !k->irqchip) {
		return 0;
	}
	k->stops[vcpu].known = 0;
	if ((r = read_page(k, vcpu, &page, &k->stops[vcpu].at_ns, reterr)) < 0) {
		return r;
	}
	k->stops[vcpu].tmcct = get(&page, APIC_TMCCT);
	k->stops[vcpu].known = 1;
	return 0;
}

/* Whether an expiry happened that the guest has not received. */
static int is_pending(const struct gclk_kvm *k, uint32_t i, const struct gclk_lapic *lapic,
		      int64_t axis)
{
	const struct gclk_kvm_stop *stop = k->stops && k->stops[i].known ? &k->stops[i] : NULL;
	unsigned vector = lapic->lvt_timer & LVTT_VECTOR;

	if (!is_counting(lapic) || (lapic->lvt_timer & LVTT_MASKED)) {
		return 0;
	}
	if (is_periodic(lapic)) {
		int64_t last = gclk_sub_sat(lapic->expiry_ns,
					    (int64_t)lapic->initial_count * unit_ns(lapic));

		return stop && last > stop->at_ns && last <= axis;
	}
	if (lapic->current_count) {
		return 0;
	}
	if (stop) {
		return stop->tmcct != 0;
	}
	return !vector_is_set(lapic->irr, vector) && !vector_is_set(lapic->isr, vector);
}

int gclk_kvm_capture_lapic(struct gclk_kvm *k, uint32_t i, struct gclk_lapic *lapic,
			   struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	int64_t axis, expiry = GCLK_TIMER_OFF;
	int r = read_page(k, i, &page, &axis, reterr);

	if (r < 0) {
		return r;
	}
	GCLK_SET(lapic, lapic, vcpu, i);
	GCLK_SET(lapic, lapic, dialect, GCLK_DIALECT_KVM);
	GCLK_SET(lapic, lapic, in_kernel, 1);
	GCLK_SET(lapic, lapic, spurious_vector, get(&page, APIC_SPIV));
	GCLK_SET(lapic, lapic, lvt_timer, get(&page, APIC_LVTT));
	GCLK_SET(lapic, lapic, initial_count, get(&page, APIC_TMICT));
	GCLK_SET(lapic, lapic, current_count, get(&page, APIC_TMCCT));
	GCLK_SET(lapic, lapic, divide_config, get(&page, APIC_TDCR) & 0xf);
	GCLK_SET(lapic, lapic, bus_ns, k->apic_bus_ns ? k->apic_bus_ns : 1);
	GCLK_SET(lapic, lapic, captured_at_ns, axis);
	get_vectors(&page, APIC_ISR, lapic->isr);
	get_vectors(&page, APIC_TMR, lapic->tmr);
	get_vectors(&page, APIC_IRR, lapic->irr);
	lapic->has |= GCLK_BIT(lapic, isr) | GCLK_BIT(lapic, tmr) | GCLK_BIT(lapic, irr);
	if (is_counting(lapic) && (lapic->current_count || is_periodic(lapic))) {
		expiry = axis + (int64_t)lapic->current_count * unit_ns(lapic) + unit_ns(lapic) / 2;
	}
	GCLK_SET(lapic, lapic, expiry_ns, expiry);
	GCLK_SET(lapic, lapic, pending, (uint8_t)is_pending(k, i, lapic, axis));
	return 0;
}

int gclk_kvm_check_lapic_page(const struct gclk_kvm *k, uint32_t i,
			      const struct gclk_lapic *lapic, struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	int r = get_page(k, i, &page, reterr);

	if (r < 0) {
		return r;
	}
	if (GCLK_HAS(lapic, lapic, spurious_vector) &&
	    get(&page, APIC_SPIV) != lapic->spurious_vector) {
		return fail(reterr, GCLK_STATE, i, "spurious_vector",
			    "the LAPIC's page must be restored first, and was not");
	}
	return 0;
}

/* What is left of the count at @axis, to the nearest unit, 1..TMICT. */
static uint32_t count_left(const struct gclk_lapic *lapic, int64_t expiry, int64_t axis)
{
	int64_t unit = unit_ns(lapic), left = gclk_sub_sat(expiry, axis);
	uint64_t count = left <= 0 ? 1 : ((uint64_t)left + (uint64_t)unit / 2) / (uint64_t)unit;

	return (uint32_t)GCLK_MAX(GCLK_MIN(count, lapic->initial_count), 1);
}

static void set_undelivered(struct kvm_lapic_state *page, unsigned vector)
{
	unsigned word = 16 * (vector / 32);
	uint32_t bit = 1u << vector % 32;

	set(page, APIC_IRR + word, get(page, APIC_IRR + word) | bit);
	set(page, APIC_TMR + word, get(page, APIC_TMR + word) & ~bit);	/* edge */
}

static void set_periodic(struct kvm_lapic_state *page, const struct gclk_lapic *lapic,
			 int64_t axis)
{
	int64_t next = gclk_lapic_next(lapic, axis);
	int overdue = lapic->expiry_ns != GCLK_TIMER_OFF && lapic->expiry_ns <= axis;

	if ((overdue || lapic->pending) && !(lapic->lvt_timer & LVTT_MASKED)) {
		set_undelivered(page, lapic->lvt_timer & LVTT_VECTOR);
	}
	set(page, APIC_TMCCT, next == GCLK_TIMER_OFF ? lapic->initial_count :
						       count_left(lapic, next, axis));
}

static void set_one_shot(struct kvm_lapic_state *page, const struct gclk_lapic *lapic,
			 int64_t axis)
{
	if (lapic->expiry_ns == GCLK_TIMER_OFF && !lapic->pending) {
		set(page, APIC_TMICT, 0);
		set(page, APIC_TMCCT, 0);
		return;
	}
	set(page, APIC_TMCCT, lapic->pending ? 1 : count_left(lapic, lapic->expiry_ns, axis));
}

static void set_timer(struct kvm_lapic_state *page, const struct gclk_lapic *lapic,
		      int64_t axis)
{
	set(page, APIC_LVTT, lapic->lvt_timer);
	set(page, APIC_TDCR, lapic->divide_config);
	set(page, APIC_TMICT, lapic->initial_count);
	set(page, APIC_TMCCT, 0);
	if (!is_counting(lapic)) {
		return;
	}
	if (is_periodic(lapic)) {
		set_periodic(page, lapic, axis);
	} else {
		set_one_shot(page, lapic, axis);
	}
}

/* Everything but the count is as it was written. */
static int check_registers(const struct kvm_lapic_state *page,
			   const struct kvm_lapic_state *wrote, uint32_t i,
			   struct gclk_error *reterr)
{
	static const uint16_t same[] = { APIC_LVTT, APIC_TMICT, APIC_TDCR };
	static const char *const names[] = { "lvt_timer", "initial_count", "divide_config" };

	for (unsigned n = 0; n < GCLK_COUNT(same); n++) {
		if (get(page, same[n]) != get(wrote, same[n])) {
			return fail(reterr, GCLK_UNPROVEN, i, names[n],
				    "the LAPIC does not read what was written");
		}
	}
	for (unsigned at = 0; at < 128; at += 16) {
		if ((get(wrote, APIC_IRR + at) & ~get(page, APIC_IRR + at)) ||
		    get(page, APIC_ISR + at) != get(wrote, APIC_ISR + at)) {
			return fail(reterr, GCLK_UNPROVEN, i, "irr",
				    "an interrupt that waits was lost");
		}
	}
	return 0;
}

/* One write of the timer, and what came of it. */
struct attempt {
	struct kvm_lapic_state wrote;
	int64_t before, lead;		/* on the axis; the timer starts at before + lead */
	int64_t late;			/* how much later it did; 0 within what can be told */
};

/* The count goes on from what was written: not from more, and not faster than time. */
static int check_count(const struct gclk_lapic *lapic, const struct attempt *a, uint32_t count,
		       int64_t after, uint32_t i, struct gclk_error *reterr)
{
	int64_t wrote = get(&a->wrote, APIC_TMCCT);
	int64_t least = wrote - (after - a->before) / unit_ns(lapic) - 2;

	if (get(&a->wrote, APIC_TMICT) && least > 0 && (count > wrote || count < least)) {
		return fail(reterr, GCLK_UNPROVEN, i, "current_count",
			    "the timer does not count from what was written");
	}
	return 0;
}

/* How much later than planned a counting timer will expire. */
static int64_t lateness(const struct gclk_lapic *lapic, uint32_t count, int64_t axis,
			int64_t width)
{
	int64_t unit = unit_ns(lapic), period = (int64_t)lapic->initial_count * unit, late;

	late = (int64_t)count * unit + unit / 2 -
	       gclk_sub_sat(is_periodic(lapic) ? gclk_lapic_next(lapic, axis) : lapic->expiry_ns,
			    axis);
	if (is_periodic(lapic)) {
		late = late > period / 2 ? late - period : late < -period / 2 ? late + period : late;
	}
	return late > width + unit || -late > width + unit ? late : 0;
}

static int check_page(const struct gclk_kvm *k, uint32_t i, const struct gclk_lapic *lapic,
		      struct attempt *a, struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	int64_t before = gclk_kvm_axis_now(k), after;
	uint32_t count;
	int r = get_page(k, i, &page, reterr);

	after = gclk_kvm_axis_now(k);
	if (r < 0 || (r = check_registers(&page, &a->wrote, i, reterr)) < 0) {
		return r;
	}
	count = get(&page, APIC_TMCCT);
	if ((r = check_count(lapic, a, count, after, i, reterr)) < 0) {
		return r;
	}
	a->late = count && get(&a->wrote, APIC_TMCCT) > 1 ?
			  lateness(lapic, count, before + (after - before) / 2,
				   GCLK_MAX((after - before) / 2, LATE_NS)) : 0;
	return 0;
}

/*
 * The kernel starts the timer some way into its call: about as far as it read the page in
 * the call before. One that was interrupted, or ran for the first time, shows in the
 * count that is read back, and is done again.
 */
static int restore_lapic(const struct gclk_kvm *k, uint32_t i, const struct gclk_lapic *lapic,
			 struct gclk_error *reterr)
{
	struct attempt a = { .before = gclk_kvm_axis_now(k) };
	struct kvm_lapic_state page;
	int r = get_page(k, i, &page, reterr);

	a.lead = (gclk_kvm_axis_now(k) - a.before) / 2;
	for (unsigned n = 0; r == 0 && n < TRIES; n++) {
		a.wrote = page;
		a.before = gclk_kvm_axis_now(k);
		set_timer(&a.wrote, lapic, gclk_add_sat(a.before, a.lead));
		if (gclk_sys_ioctl(k, k->vcpus[i], KVM_SET_LAPIC, &a.wrote) < 0) {
			return fail(reterr, GCLK_SYS, i, "", strerror(errno));
		}
		r = check_page(k, i, lapic, &a, reterr);
		if (a.late == 0) {
			break;
		}
		a.lead = GCLK_MAX(a.lead + a.late, 0);
	}
	return r;
}

/* A state that says neither when the timer expires nor what was left of it: a full count. */
int gclk_kvm_restore_lapic(struct gclk_kvm *k, uint32_t i, const struct gclk_lapic *lapic,
			   struct gclk_error *reterr)
{
	struct gclk_lapic timer = *lapic;

	if (!GCLK_HAS(lapic, lapic, expiry_ns) && is_counting(lapic)) {
		int64_t expiry = GCLK_HAS(lapic, lapic, current_count) &&
						 GCLK_HAS(lapic, lapic, captured_at_ns) ?
					 gclk_lapic_next(lapic, lapic->captured_at_ns) :
					 gclk_kvm_axis_now(k) +
						 (int64_t)lapic->initial_count * unit_ns(lapic);

		GCLK_SET(lapic, &timer, expiry_ns, expiry);
	}
	return restore_lapic(k, i, &timer, reterr);
}
