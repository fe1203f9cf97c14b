/* SPDX-License-Identifier: MIT */
/*
 * Interrupts: every source comes through the IOAPIC or from the local APIC itself, is
 * stamped, counted, acknowledged at its device, and ended. With "pic=yes" those of PIT
 * and RTC come through the 8259s instead, as they do under firmware and old kernels.
 *
 * The PIT is unmasked on two IOAPIC pins, of which a machine wires one: 2 on PCs (the
 * ISA override), 0 with KVM's own default routing and no override.
 */
#include "guest.h"

#define IOAPIC		0xfec00000u
#define LINT_MASKED	(1u << 16)
#define TRAMPOLINE	0x8000u

extern const char entries[], ap_begin[], ap_end[];

struct tally tallies[N_SOURCES];
volatile uint64_t ap_tsc[MAX_CPUS];
volatile uint32_t ap_ticks[MAX_CPUS];
volatile uint32_t n_aps;

static bool use_8259;

static struct {
	uint16_t offset_low, selector, type, offset_high;
} idt[256] __attribute__((aligned(8)));

static struct {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed)) idt_pointer;

static void count(enum source source, uint64_t tsc)
{
	tallies[source].count++;
	tallies[source].last_tsc = tsc;
}

static uint32_t this_cpu(void)
{
	return (mmio_read(LAPIC + LAPIC_ID) >> 24) % MAX_CPUS;
}

static void die(uint32_t vector, const uint32_t *frame)
{
	line_begin("P");
	line_hex("vector", vector, 2);
	for (int i = 9; i < 12; i++) {
		line_hex("word", frame[i], 8);
	}
	line_end();
	for (;;) {
		__asm__ volatile("cli; hlt");
	}
}

static void lapic_timer(uint64_t tsc)
{
	uint32_t cpu = n_aps ? this_cpu() : 0;

	if (cpu) {
		ap_ticks[cpu]++;
	} else {
		count(SRC_LAPIC, tsc);
	}
	rearm_lapic();
}

static void end_8259(unsigned int irq)
{
	if (irq >= 8) {
		outb(0xa0, 0x20);
	}
	outb(0x20, 0x20);
}

void interrupt(uint32_t vector, const uint32_t *frame)
{
	uint64_t tsc = rdtsc();

	switch (vector) {
	case VEC_PIC:
		count(SRC_PIT, tsc);
		end_8259(0);
		return;
	case VEC_PIC + 8:
		ack_rtc(tsc);
		end_8259(8);
		return;
	case VEC_PIT:
		count(SRC_PIT, tsc);
		break;
	case VEC_RTC:
		ack_rtc(tsc);
		break;
	case VEC_HPET:
		if (ack_hpet()) {
			count(SRC_HPET, tsc);
		}
		break;
	case VEC_LAPIC:
		lapic_timer(tsc);
		break;
	case VEC_SAMPLE:
		ap_tsc[this_cpu()] = tsc;
		break;
	case VEC_SPURIOUS:
		return;				/* not in service: no EOI */
	default:
		die(vector, frame);
	}
	mmio_write(LAPIC + LAPIC_EOI, 0);
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
	mmio_write(IOAPIC, reg);
	mmio_write(IOAPIC + 0x10, value);
}

void route(unsigned int pin, uint8_t vector, bool level)
{
	ioapic_write(0x11 + 2 * pin, this_cpu() << 24);
	ioapic_write(0x10 + 2 * pin, vector | (level ? 1u << 15 : 0));
}

void route_isa(unsigned int irq, uint8_t vector)
{
	if (use_8259) {
		uint16_t port = irq < 8 ? 0x21 : 0xa1;

		outb(port, inb(port) & ~(1u << (irq & 7)));
		return;
	}
	if (irq == 0) {
		route(2, vector, false);
	}
	route(irq, vector, false);
}

/* ICW1..4: edges, cascade on IRQ 2, 8086 mode; then everything masked but the cascade. */
static void init_8259(void)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, VEC_PIC);
	outb(0xa1, VEC_PIC + 8);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, use_8259 ? 0xfb : 0xff);
	outb(0xa1, 0xff);
}

static void load_idt(void)
{
	__asm__ volatile("lidt %0" : : "m"(idt_pointer));
}

/* LINT0 is the wire of the 8259s: delivery mode ExtINT, or masked. */
static void enable_lapic(uint32_t lint0)
{
	mmio_write(LAPIC + LAPIC_SVR, 0x100 | VEC_SPURIOUS);
	mmio_write(LAPIC + LAPIC_LVT_LINT0, lint0);
}

void irq_init(void)
{
	for (unsigned int i = 0; i < 256; i++) {
		uintptr_t entry = (uintptr_t)entries + 16 * i;

		idt[i].offset_low = entry & 0xffff;
		idt[i].selector = 8;
		idt[i].type = 0x8e00;
		idt[i].offset_high = entry >> 16;
	}
	idt_pointer.limit = sizeof(idt) - 1;
	idt_pointer.base = (uintptr_t)idt;
	load_idt();
	use_8259 = option_is("pic", "yes");
	init_8259();
	enable_lapic(use_8259 ? 0x700 : LINT_MASKED);
}

void ap_main(void)
{
	load_idt();
	enable_lapic(LINT_MASKED);
	arm_lapic();
	__atomic_fetch_add(&n_aps, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		__asm__ volatile("sti; hlt");
	}
}

static void spin_ms(uint32_t tsc_khz, uint32_t ms)
{
	uint64_t start = rdtsc();

	while (rdtsc() - start < (uint64_t)tsc_khz * ms) {
		__asm__ volatile("pause");
	}
}

/* INIT, SIPI, SIPI to all others, then up to a second for as many as are wanted. */
void start_aps(uint32_t n_wanted, uint32_t tsc_khz)
{
	volatile char *low = (volatile char *)TRAMPOLINE;

	for (size_t i = 0; ap_begin + i < ap_end; i++) {
		low[i] = ap_begin[i];
	}
	mmio_write(LAPIC + LAPIC_ICR_LOW, 0xc4500);
	spin_ms(tsc_khz, 10);
	mmio_write(LAPIC + LAPIC_ICR_LOW, 0xc4600 | TRAMPOLINE >> 12);
	spin_ms(tsc_khz, 1);
	if (n_aps < n_wanted) {
		mmio_write(LAPIC + LAPIC_ICR_LOW, 0xc4600 | TRAMPOLINE >> 12);
	}
	for (int i = 0; i < 1000 && n_aps < n_wanted; i++) {
		spin_ms(tsc_khz, 1);
	}
}

/* Ask every other processor for its TSC and wait until each has answered. */
void sample_aps(void)
{
	uint64_t start = rdtsc();

	for (uint32_t i = 1; i <= n_aps; i++) {
		ap_tsc[i] = 0;
	}
	mmio_write(LAPIC + LAPIC_ICR_LOW, 0xc4000 | VEC_SAMPLE);
	for (uint32_t i = 1; i <= n_aps; i++) {
		while (!ap_tsc[i] && rdtsc() - start < 1u << 28) {
			__asm__ volatile("pause");
		}
	}
}
