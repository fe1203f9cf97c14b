/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the test guest share: access to the machine, the command line, the
 * serial port and the record of interrupts.
 *
 * Freestanding, 32 bits, no libgcc: there is no 64-bit division here.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PIT_HZ		1193182u
#define MAX_CPUS	16

/* ---- the machine ---- */

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t mmio_read(uintptr_t address)
{
	return *(volatile uint32_t *)address;
}

static inline void mmio_write(uintptr_t address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value),
			 "d"((uint32_t)(value >> 32)) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t regs[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
			 : "a"(leaf), "c"(0));
}

/* ---- command line (main.c) ---- */

/** option() - the text after "KEY=" on the command line; NULL when it is not there */
const char *option(const char *key);

/** option_number() - the decimal number after "KEY=", or @absent */
uint32_t option_number(const char *key, uint32_t absent);

/** option_is() - whether "KEY=WORD" is on the command line */
bool option_is(const char *key, const char *word);

/* ---- serial port, text (serial.c) ---- */

void serial_init(void);

/** serial_mark() - one byte, at once: the instant that the host stamps */
void serial_mark(void);

void serial_write(const char *text, size_t n_bytes);

/** line_begin() - start composing the one line of text */
void line_begin(const char *tag);
void line_hex(const char *key, uint64_t value, int n_digits);

/** line_at() - a value and when it was read, in TSC ticks after the report's first TSC */
void line_at(const char *key, uint64_t value, int n_digits, uint32_t after_ticks);

/** line_end() - append the check (FNV-1a of all before it) and send */
void line_end(void);

/* ---- interrupts (irq.c) ---- */

enum source { SRC_PIT, SRC_RTC, SRC_UPDATE, SRC_HPET, SRC_LAPIC, N_SOURCES };

/* What the handlers leave behind. Written with interrupts off, read likewise. */
struct tally {
	volatile uint32_t count;
	volatile uint64_t last_tsc;	/* read as the handler's first act */
};

extern struct tally tallies[N_SOURCES];
extern volatile uint64_t ap_tsc[MAX_CPUS];	/* by APIC id; set by the sampling interrupt */
extern volatile uint32_t ap_ticks[MAX_CPUS];	/* LAPIC timer interrupts of the others */
extern volatile uint32_t n_aps;

extern volatile uint64_t edge_time_bcd;	/* RTC as read at the last update edge */
extern volatile uint64_t edge_not_before;	/* TSC before which that edge was not; 0: not known */

/** irq_init() - IDT, local APIC; the 8259s masked, or with "pic=yes" in use */
void irq_init(void);

/** route_isa() - an ISA interrupt through the 8259s or the IOAPIC, as irq_init() chose */
void route_isa(unsigned int irq, uint8_t vector);

/** route() - let an IOAPIC pin raise a vector on this processor */
void route(unsigned int pin, uint8_t vector, bool level);

void start_aps(uint32_t n_wanted, uint32_t tsc_khz);
void sample_aps(void);
void interrupt(uint32_t vector, const uint32_t *frame);
void ap_main(void);

/* ---- timers (timers.c) ---- */

#define VEC_PIT		0x31
#define VEC_RTC		0x39
#define VEC_HPET	0x41
#define VEC_LAPIC	0x49
#define VEC_SAMPLE	0x51
#define VEC_PIC		0x60	/* IRQ 0; IRQ 8 is 8 further */
#define VEC_SPURIOUS	0xff

#define LAPIC		0xfee00000u
#define LAPIC_ID	0x020
#define LAPIC_EOI	0x0b0
#define LAPIC_SVR	0x0f0
#define LAPIC_ICR_LOW	0x300
#define LAPIC_ICR_HIGH	0x310
#define LAPIC_LVT_TIMER	0x320
#define LAPIC_LVT_LINT0	0x350
#define LAPIC_INITIAL	0x380
#define LAPIC_CURRENT	0x390
#define LAPIC_DIVIDE	0x3e0

extern uintptr_t hpet_base;	/* 0: none */
extern uint16_t pm_timer_port;	/* 0: none */

/** find_clocks() - look for HPET, PM timer and the pvclock page, and start them */
void find_clocks(void);

/** calibrate_tsc() - TSC ticks per millisecond, against channel 2 of the PIT */
uint32_t calibrate_tsc(void);

/** arm_timers() - start what the command line asks for; returns the highest rate, Hz */
uint32_t arm_timers(uint32_t tsc_khz);
void arm_lapic(void);

/* What each interrupt needs before the EOI. */
void ack_rtc(uint64_t tsc);
bool ack_hpet(void);
void rearm_lapic(void);
void watchdog_pet(void);

uint8_t rtc_read(uint8_t reg);
uint64_t rtc_time_bcd(void);
uint64_t hpet_counter(void);
uint16_t pit_latch(unsigned int channel);

/* ---- pvclock (pvclock.c) ---- */

struct pv_reading {
	uint64_t ns;
	uint64_t tsc;
	uint8_t flags;
};

void pvclock_init(void);
bool pvclock_present(void);
void pvclock_read(struct pv_reading *ret);

#endif
