/* SPDX-License-Identifier: MIT */
/*
 * Injection: ticks that a replay owes, as interrupts.
 *
 *	PIT	a pulse on GSI 0
 *	HPET	edge-triggered: a pulse. Level-triggered: status bit and line, unless they are
 *		up; the guest takes them down.
 *	RTC	the periodic flag and the line, unless they are up. The guest's read of
 *		register C takes them down: the VMM says so by gclk_replay_acknowledge().
 *	LAPIC	a message
 *
 * Of an edge the kernel says at best that a LAPIC took it, and nothing of whether it vanished
 * there in one still pending: KVM_IRQ_LINE_STATUS is above 0 for both. What tells is the
 * requests pending in all controllers, before and after; to be read, the vCPUs have to stand.
 *
 * The user's interrupt source is ORed with the kernel PIT's: it is up during a pulse only.
 */
#include <errno.h>
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"
#include "kvm/backend.h"

#define GSI_PIT 0
#define GSI_RTC 8
#define HPET_CFG_LEGACY 2
#define HPET_TN_LEVEL 2
#define RTC_B 0x0b
#define RTC_B_PIE 0x40
#define RTC_C 0x0c
#define RTC_C_PF 0x40
#define RTC_C_IRQF 0x80
#define APIC_ID 0x20
#define APIC_BASE 0x1b
#define APIC_BASE_X2APIC UINT64_C(0x400)
#define MSI_ADDRESS 0xfee00000u

static int set_line(const struct gclk_kvm *k, unsigned gsi, uint32_t level, int32_t *ret_status,
		    struct gclk_error *reterr)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	if (gclk_sys_ioctl(k, k->vm, KVM_IRQ_LINE_STATUS, &line) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "replay", GCLK_NO_OFFSET,
				 "KVM_IRQ_LINE_STATUS of GSI %u: %s", gsi, strerror(errno));
	}
	*ret_status = line.status;
	return 0;
}

static uint32_t lapic_register(const struct kvm_lapic_state *page, unsigned offset)
{
	uint32_t value;

	memcpy(&value, page->regs + offset, sizeof(value));
	return value;
}

static int get_page(const struct gclk_kvm *k, uint32_t i, struct kvm_lapic_state *page,
		    struct gclk_error *reterr)
{
	if (gclk_sys_ioctl(k, k->vcpus[i], KVM_GET_LAPIC, page) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "replay.lapic", GCLK_NO_OFFSET,
				 "KVM_GET_LAPIC of vCPU %u: %s", i, strerror(errno));
	}
	return 0;
}

/* Requests that are pending in a LAPIC, or in an 8259 that does not mask them. */
static int count_pending(const struct gclk_kvm *k, unsigned *ret, struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	int r = 0;

	*ret = 0;
	for (uint32_t i = 0; r == 0 && i < k->n_vcpus; i++) {
		r = get_page(k, i, &page, reterr);
		for (unsigned word = 0; r == 0 && word < 8; word++) {
			*ret += (unsigned)__builtin_popcount(lapic_register(&page, APIC_IRR +
									    16 * word));
		}
	}
	for (uint32_t n = KVM_IRQCHIP_PIC_MASTER; r == 0 && n <= KVM_IRQCHIP_PIC_SLAVE; n++) {
		struct kvm_irqchip chip = { .chip_id = n };

		if (gclk_sys_ioctl(k, k->vm, KVM_GET_IRQCHIP, &chip) < 0) {
			return gclk_fail(reterr, GCLK_SYS, "replay", GCLK_NO_OFFSET,
					 "KVM_GET_IRQCHIP: %s", strerror(errno));
		}
		*ret += (unsigned)__builtin_popcount(chip.chip.pic.irr & ~chip.chip.pic.imr & 0xff);
	}
	return r;
}

static int pulse(const struct gclk_kvm *k, unsigned gsi, enum gclk_replay_outcome *ret,
		 struct gclk_error *reterr)
{
	unsigned before, after;
	int32_t status;
	int r;

	if ((r = count_pending(k, &before, reterr)) < 0 ||
	    (r = set_line(k, gsi, 1, &status, reterr)) < 0 ||
	    (r = set_line(k, gsi, 0, &status, reterr)) < 0 ||
	    (r = count_pending(k, &after, reterr)) < 0) {
		return r;
	}
	*ret = after > before ? GCLK_REPLAY_DELIVERED : GCLK_REPLAY_COALESCED;
	return 0;
}

int gclk_kvm_pulse_pit(const struct gclk_kvm *k, uint8_t *ret_delivered,
		       struct gclk_error *reterr)
{
	enum gclk_replay_outcome outcome = GCLK_REPLAY_COALESCED;
	int r = pulse(k, GSI_PIT, &outcome, reterr);

	*ret_delivered = outcome == GCLK_REPLAY_DELIVERED;
	return r;
}

/* The HPET has taken IRQ 0 and IRQ 8 from PIT and RTC. */
static int is_legacy(const struct gclk_kvm *k)
{
	return k->hpet && (k->hpet->config & HPET_CFG_LEGACY);
}

static int inject_hpet(const struct gclk_kvm *k, uint32_t n, enum gclk_replay_outcome *ret,
		       struct gclk_error *reterr)
{
	struct gclk_hpet_timer *timer = &k->hpet->timers[n];
	int gsi = gclk_hpet_timer_route(k->hpet, n), r;
	int32_t status;

	if (gsi < 0 || !gclk_hpet_timer_interrupts(k->hpet, n)) {
		return 0;
	}
	if (!(timer->config & HPET_TN_LEVEL)) {
		return pulse(k, (unsigned)gsi, ret, reterr);
	}
	if (timer->irq_level) {
		return 0;
	}
	if ((r = set_line(k, (unsigned)gsi, 1, &status, reterr)) < 0) {
		return r;
	}
	k->hpet->isr |= UINT64_C(1) << n;
	GCLK_SET(hpet_timer, timer, irq_level, 1);
	*ret = GCLK_REPLAY_DELIVERED;
	return 0;
}

static int inject_rtc(const struct gclk_kvm *k, enum gclk_replay_outcome *ret,
		      struct gclk_error *reterr)
{
	struct gclk_rtc *rtc = k->rtc;
	int32_t status;
	int r;

	if (rtc->irq_level || is_legacy(k) || !(rtc->cmos[RTC_B] & RTC_B_PIE)) {
		return 0;
	}
	if ((r = set_line(k, GSI_RTC, 1, &status, reterr)) < 0) {
		return r;
	}
	rtc->cmos[RTC_C] |= RTC_C_PF | RTC_C_IRQF;
	GCLK_SET(rtc, rtc, irq_level, 1);
	*ret = GCLK_REPLAY_UNTIL_ACK;
	return 0;
}

/*
 * Its id, as its page has it: the high byte, or all of it where the guest has switched to
 * x2APIC and the VMM asked for ids of 32 bits. There is no getter for what it asked.
 */
static int id_of(const struct gclk_kvm *k, uint32_t i, const struct kvm_lapic_state *page,
		 uint32_t *ret, struct gclk_error *reterr)
{
	struct gclk_kvm_one_msr base = { .nmsrs = 1, .entry.index = APIC_BASE };

	*ret = lapic_register(page, APIC_ID);
	if (k->x2apic_ids && gclk_sys_ioctl(k, k->vcpus[i], KVM_GET_MSRS, &base) != 1) {
		return gclk_fail(reterr, GCLK_SYS, "replay.lapic", GCLK_NO_OFFSET,
				 "KVM_GET_MSRS 0x1b of vCPU %u: %s", i, strerror(errno));
	}
	if (!k->x2apic_ids || !(base.entry.data & APIC_BASE_X2APIC)) {
		*ret >>= 24;
	}
	return 0;
}

static int inject_lapic(const struct gclk_kvm *k, uint32_t i, enum gclk_replay_outcome *ret,
			struct gclk_error *reterr)
{
	struct kvm_lapic_state page;
	struct kvm_msi message = { .address_lo = MSI_ADDRESS };
	uint32_t lvt, id;
	int n = get_page(k, i, &page, reterr);

	if (n < 0) {
		return n;
	}
	lvt = lapic_register(&page, APIC_LVTT);
	message.data = lvt & LVTT_VECTOR;
	if ((lvt & LVTT_MASKED) ||
	    (lapic_register(&page, APIC_IRR + 16 * (message.data / 32)) >>
	     message.data % 32 & 1)) {
		return 0;
	}
	if ((n = id_of(k, i, &page, &id, reterr)) < 0) {
		return n;
	}
	message.address_lo |= (id & 0xff) << 12;
	message.address_hi = id & ~UINT32_C(0xff);
	n = gclk_sys_ioctl(k, k->vm, KVM_SIGNAL_MSI, &message);
	if (n < 0) {
		return gclk_fail(reterr, GCLK_SYS, "replay.lapic", GCLK_NO_OFFSET,
				 "KVM_SIGNAL_MSI to vCPU %u: %s", i, strerror(errno));
	}
	*ret = n > 0 ? GCLK_REPLAY_DELIVERED : GCLK_REPLAY_COALESCED;
	return 0;
}

static int inject(const struct gclk_kvm *k, const struct gclk_replay_timer *timer,
		  enum gclk_replay_outcome *ret, struct gclk_error *reterr)
{
	*ret = GCLK_REPLAY_COALESCED;
	switch ((enum gclk_tick_timer)timer->timer) {
	case GCLK_TICK_PIT:
		return is_legacy(k) ? 0 : pulse(k, GSI_PIT, ret, reterr);
	case GCLK_TICK_HPET:
		return k->hpet ? inject_hpet(k, timer->index, ret, reterr) : 0;
	case GCLK_TICK_RTC:
		return k->rtc ? inject_rtc(k, ret, reterr) : 0;
	case GCLK_TICK_LAPIC:
		return timer->index < k->n_vcpus ? inject_lapic(k, timer->index, ret, reterr) : 0;
	case GCLK_TICK_PM_TIMER:
	case GCLK_N_TICK_TIMERS:
		break;
	}
	return 0;
}

/* Whether the outcome can be known only while the vCPUs stand. */
static int is_edge(const struct gclk_kvm *k, const struct gclk_replay_timer *timer)
{
	return timer->timer == GCLK_TICK_PIT || timer->timer == GCLK_TICK_LAPIC ||
	       (timer->timer == GCLK_TICK_HPET && k->hpet &&
		!(k->hpet->timers[timer->index].config & HPET_TN_LEVEL));
}

GCLK_API int gclk_kvm_inject(struct gclk_kvm *k, struct gclk_replay *replay, int64_t now_ns,
			     int vcpus_stand, struct gclk_error *reterr)
{
	struct gclk_replay_timer *timer;
	enum gclk_replay_outcome outcome;
	int r;

	if (!k->irqchip) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, "irqchip", GCLK_NO_OFFSET,
				 "the interrupt controllers are the VMM's own, and so is this");
	}
	while ((timer = gclk_replay_next(replay, now_ns))) {
		if (is_edge(k, timer) && !vcpus_stand) {
			return GCLK_KVM_STAND;
		}
		if ((r = inject(k, timer, &outcome, reterr)) < 0) {
			return r;
		}
		gclk_replay_report(replay, timer, outcome, now_ns);
	}
	return 0;
}
