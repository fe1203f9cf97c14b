/* SPDX-License-Identifier: MIT */
/*
 * Injection into controllers of our own making: they answer as the kernel's do, which say of
 * every edge that a LAPIC took it, also of one that vanished there.
 */
#include <errno.h>
#include <string.h>

#include <guestclock/devices.h>

#include "gclk-test.h"
#include "kvm/abi.h"
#include "kvm/sys.h"

#define FD_VM 10
#define FD_VCPU 20
#define VCPUS 2
#define NS_PER_S INT64_C(1000000000)

struct chips {
	uint8_t pages[VCPUS][1024];
	uint8_t lines[24];
	uint8_t vectors[24];		/* of the IOAPIC's pins, all to vCPU 0; 0: masked */
	uint8_t pic_irr, pic_imr;
	unsigned n_pulses, n_messages;
	uint32_t ids[VCPUS];
	uint8_t x2apic;			/* the vCPUs are in that mode */
	unsigned calls, fail_at;
};

struct setup {
	struct chips chips;
	struct gclk_kvm_sys sys;
	struct gclk_kvm k;
	struct gclk_rtc rtc;
	struct gclk_hpet hpet;
	struct gclk_replay_timer timers[4];
	struct gclk_replay replay;
	struct gclk_error error;
	int64_t now;
	int fds[VCPUS];
};

static uint32_t *reg(struct chips *chips, unsigned vcpu, unsigned offset)
{
	return (uint32_t *)(void *)&chips->pages[vcpu][offset];
}

static void request(struct chips *chips, unsigned vcpu, unsigned vector)
{
	*reg(chips, vcpu, APIC_IRR + 16 * (vector / 32)) |= 1u << vector % 32;
}

/* The guest takes everything that is pending. */
static void take(struct chips *chips)
{
	for (unsigned i = 0; i < 8 * VCPUS; i++) {
		*reg(chips, i / 8, APIC_IRR + 16 * (i % 8)) = 0;
	}
	chips->pic_irr = 0;
}

static int drive(struct chips *chips, struct kvm_irq_level *line)
{
	int rises = line->level && !chips->lines[line->irq];

	chips->lines[line->irq] = (uint8_t)line->level;
	chips->n_pulses += rises;
	if (rises && line->irq < 8) {
		chips->pic_irr |= (uint8_t)(1u << line->irq);
	}
	if (rises && chips->vectors[line->irq]) {
		request(chips, 0, chips->vectors[line->irq]);
	}
	line->status = chips->vectors[line->irq] ? 1 : -1;
	return 0;
}

static int send(struct chips *chips, uint32_t id, unsigned vector)
{
	int n = 0;

	for (unsigned i = 0; i < VCPUS; i++) {
		if (chips->ids[i] == id) {
			request(chips, i, vector);
			n++;
		}
	}
	return n;
}

static int fake_ioctl(void *context, int fd, unsigned long number, unsigned long arg)
{
	struct chips *chips = context;
	void *p = (void *)arg;
	struct kvm_irqchip *chip = p;
	struct kvm_msi *message = p;
	struct gclk_kvm_one_msr *msr = p;

	if (++chips->calls == chips->fail_at) {
		errno = EIO;
		return -1;
	}
	switch (number) {
	case KVM_GET_LAPIC:
		memcpy(p, chips->pages[fd - FD_VCPU], sizeof(chips->pages[0]));
		return 0;
	case KVM_GET_IRQCHIP:
		chip->chip.pic.irr = chip->chip_id ? 0 : chips->pic_irr;
		chip->chip.pic.imr = chips->pic_imr;
		return 0;
	case KVM_IRQ_LINE_STATUS:
		return drive(chips, p);
	case KVM_SIGNAL_MSI:
		chips->n_messages++;
		return send(chips, (message->address_lo >> 12 & 0xff) |
				   (message->address_hi & ~UINT32_C(0xff)), message->data);
	case KVM_GET_MSRS:
		msr->entry.data = 0xfee00800 | (chips->x2apic ? 0x400 : 0);
		return msr->entry.index == 0x1b;
	default:
		errno = ENOTTY;
		return -1;
	}
}

/* A guest whose PIT is on vector 0x31 and whose LAPIC timers are on 0x49. */
static void make(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	s->sys = (struct gclk_kvm_sys){ .context = &s->chips, .ioctl = fake_ioctl };
	s->chips.vectors[0] = 0x31;
	s->chips.pic_imr = 0xff;
	for (unsigned i = 0; i < VCPUS; i++) {
		s->fds[i] = FD_VCPU + (int)i;
		*reg(&s->chips, i, APIC_LVTT) = LVTT_PERIODIC | 0x49;
		*reg(&s->chips, i, 0x20) = i << 24;
		s->chips.ids[i] = i;
	}
	s->k = (struct gclk_kvm){ .vm = FD_VM, .vcpus = s->fds, .n_vcpus = VCPUS, .irqchip = 1,
				  .pit = 1, .rtc = &s->rtc, .hpet = &s->hpet, .sys = &s->sys };
	gclk_rtc_init(&s->rtc, GCLK_DIALECT_DATASHEET, 0, 0);
	gclk_rtc_write(&s->rtc, 0x70, 0x0b, 0, NULL);
	gclk_rtc_write(&s->rtc, 0x71, 0x42, 0, NULL);
	gclk_hpet_init(&s->hpet, GCLK_DIALECT_DATASHEET, 3, 10000000, 0x00ff0000, 0);
	gclk_hpet_write(&s->hpet, 0x010, 4, 1, 0, NULL);
	gclk_replay_init(&s->replay, s->timers, 4, GCLK_REPLAY_NEVER);
}

static void owe(struct setup *s, enum gclk_tick_timer timer, uint32_t index, uint32_t ticks)
{
	GCLK_EQ(gclk_replay_add(&s->replay, timer, index, ticks, 10000000, GCLK_TICKS_CATCHUP,
				NULL), 0);
}

/* A second later than the last time, so that everything is due. */
static int inject(struct setup *s, int stand)
{
	s->now += NS_PER_S;
	return gclk_kvm_inject(&s->k, &s->replay, s->now, stand, &s->error);
}

GCLK_TEST(inject, an_edge_wants_the_vcpus_to_stand)
{
	struct setup s;

	make(&s);
	owe(&s, GCLK_TICK_PIT, 0, 3);
	GCLK_EQ(inject(&s, 0), GCLK_KVM_STAND);
	GCLK_EQ(s.chips.calls, 0);
	GCLK_EQ(s.timers[0].remaining, 3);
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].remaining, 2);
	GCLK_EQ(s.chips.lines[0], 0);			/* down again: the PIT's own is ORed */
}

GCLK_TEST(inject, an_edge_that_vanishes_is_still_owed)
{
	struct setup s;

	make(&s);
	owe(&s, GCLK_TICK_PIT, 0, 3);
	for (unsigned i = 0; i < 3; i++) {
		GCLK_EQ(inject(&s, 1), 0);
		GCLK_EQ(s.timers[0].delivered, i + 1);
		GCLK_EQ(inject(&s, 1), 0);		/* the guest has not taken it */
		GCLK_EQ(s.timers[0].delivered, i + 1);
		take(&s.chips);
	}
	GCLK_EQ(s.timers[0].coalesced, 2);		/* the last one was not tried for */
	GCLK_EQ(s.replay.phase, GCLK_REPLAY_DONE);
}

GCLK_TEST(inject, masked_and_through_the_8259)
{
	struct setup s;

	make(&s);
	s.chips.vectors[0] = 0;
	owe(&s, GCLK_TICK_PIT, 0, 2);
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 0);
	take(&s.chips);
	s.chips.pic_imr = 0xfe;
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 1);
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 1);
}

GCLK_TEST(inject, hpet_by_level_and_by_edge)
{
	struct setup s;

	make(&s);
	gclk_hpet_write(&s.hpet, 0x100, 4, 17 << 9 | 0x0e, 0, NULL);	/* level, pin 17 */
	gclk_hpet_write(&s.hpet, 0x140, 4, 18 << 9 | 0x0c, 0, NULL);	/* edge, pin 18 */
	s.chips.vectors[17] = 0x41;
	s.chips.vectors[18] = 0x42;
	owe(&s, GCLK_TICK_HPET, 0, 2);
	GCLK_EQ(inject(&s, 0), 0);		/* no need to stand */
	GCLK_EQ(s.hpet.isr, 1);
	GCLK_EQ(s.hpet.timers[0].irq_level, 1);
	GCLK_EQ(s.chips.lines[17], 1);
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 1);	/* its line is up */
	gclk_hpet_write(&s.hpet, 0x020, 4, 1, 0, NULL);
	s.chips.lines[17] = 0;
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 2);

	make(&s);
	gclk_hpet_write(&s.hpet, 0x140, 4, 18 << 9 | 0x0c, 0, NULL);
	s.chips.vectors[18] = 0x42;
	owe(&s, GCLK_TICK_HPET, 2, 1);
	GCLK_EQ(inject(&s, 0), GCLK_KVM_STAND);
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 1);
	GCLK_EQ(s.chips.lines[18], 0);
	GCLK_EQ(s.hpet.isr, 0);
}

GCLK_TEST(inject, rtc_until_register_c_is_read)
{
	struct setup s;
	struct gclk_line line;

	make(&s);
	s.chips.vectors[8] = 0x39;
	owe(&s, GCLK_TICK_RTC, 0, 2);
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.chips.lines[8], 1);
	GCLK_EQ(s.timers[0].delivered, 1);
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 1);	/* not acknowledged */
	gclk_rtc_write(&s.rtc, 0x70, 0x0c, 0, NULL);
	GCLK_EQ(gclk_rtc_read(&s.rtc, 0x71, 0, &line), 0xc0);
	GCLK_EQ(line.level, 0);
	s.chips.lines[8] = 0;
	gclk_replay_acknowledge(&s.replay, GCLK_TICK_RTC, 0);
	s.rtc.cmos[0x0b] &= 0xbf;		/* switched off: nothing may come */
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 1);
	s.rtc.cmos[0x0b] |= 0x40;
	s.hpet.config |= 2;			/* the HPET has its line */
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 1);
	s.hpet.config &= ~UINT64_C(2);
	GCLK_EQ(inject(&s, 0), 0);
	GCLK_EQ(s.timers[0].delivered, 2);
}

GCLK_TEST(inject, lapic_by_message)
{
	struct setup s;

	make(&s);
	owe(&s, GCLK_TICK_LAPIC, 1, 3);
	GCLK_EQ(inject(&s, 0), GCLK_KVM_STAND);
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(*reg(&s.chips, 1, APIC_IRR + 16 * 2), 1u << 9);	/* vector 0x49 */
	GCLK_EQ(*reg(&s.chips, 0, APIC_IRR + 16 * 2), 0);
	GCLK_EQ(inject(&s, 1), 0);		/* still requested: no message is sent */
	GCLK_EQ(s.chips.n_messages, 1);
	GCLK_EQ(s.timers[0].delivered, 1);
	take(&s.chips);
	*reg(&s.chips, 1, APIC_LVTT) |= LVTT_MASKED;
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.chips.n_messages, 1);
	*reg(&s.chips, 1, APIC_LVTT) &= ~LVTT_MASKED;
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 2);
}

/* Ids beyond 255: all 32 bits of the page's register, where the VMM asked for that. */
GCLK_TEST(inject, lapic_with_an_id_of_32_bits)
{
	struct setup s;

	make(&s);
	s.k.x2apic_ids = 1;
	owe(&s, GCLK_TICK_LAPIC, 1, 3);
	GCLK_EQ(inject(&s, 1), 0);		/* not yet in x2APIC mode: the high byte */
	GCLK_EQ(s.timers[0].delivered, 1);
	take(&s.chips);
	s.chips.x2apic = 1;
	s.chips.ids[1] = 0x12345;
	*reg(&s.chips, 1, 0x20) = 0x12345;
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 2);
	GCLK_EQ(*reg(&s.chips, 1, APIC_IRR + 16 * 2), 1u << 9);
	take(&s.chips);
	s.k.x2apic_ids = 0;			/* the kernel then tells the high byte, in any mode */
	s.chips.ids[1] = 7;
	*reg(&s.chips, 1, 0x20) = 7u << 24;
	GCLK_EQ(inject(&s, 1), 0);
	GCLK_EQ(s.timers[0].delivered, 3);
}

/* A call that fails, whichever it is, leaves the tick owed. */
GCLK_TEST(inject, failures)
{
	unsigned failed = 0;

	for (unsigned fail_at = 1; fail_at < 20; fail_at++) {
		struct setup s;
		int r;

		make(&s);
		owe(&s, GCLK_TICK_PIT, 0, 1);
		owe(&s, GCLK_TICK_LAPIC, 0, 1);
		s.chips.fail_at = fail_at;
		r = inject(&s, 1);
		if (r < 0) {
			failed++;
			GCLK_EQ(r, -GCLK_SYS);
			GCLK_EQ(gclk_replay_remaining(&s.replay), s.timers[0].delivered ? 1 : 2);
		} else {
			GCLK_EQ(gclk_replay_remaining(&s.replay), 0);
		}
	}
	CU_ASSERT(failed >= 10);
}

GCLK_TEST(inject, controllers_of_the_vmm)
{
	struct setup s;

	make(&s);
	s.k.irqchip = 0;
	owe(&s, GCLK_TICK_PIT, 0, 1);
	GCLK_EQ(inject(&s, 1), -GCLK_UNSUPPORTED);
	GCLK_EQ(s.chips.calls, 0);
}
