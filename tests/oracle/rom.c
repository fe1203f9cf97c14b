/* SPDX-License-Identifier: MIT */
/*
 * The oracle's guest: executes a script of register accesses and waits, and logs each
 * access and each interrupt with the virtual instant at which it happened.
 *
 * It runs under -icount shift=0, where RDTSC counts virtual ns and an instruction takes
 * one. Script and log lie in RAM; the emulator puts the one there and reads the other.
 */
#include <stdint.h>

#define SCRIPT 0x100000u
#define LOG 0x1000000u
#define MAGIC 0x6b6c6367u

#define IOAPIC 0xfec00000u
#define HPET 0xfed00000u
#define LAPIC 0xfee00000u
#define PM 0x600
#define PVPANIC 0x505

enum { OP_END, OP_WRITE, OP_READ, OP_WAIT, OP_MARK, OP_CAPTURE };
enum { LOG_WRITE = 1, LOG_READ = 2, LOG_INTERRUPT = 3, LOG_MARK = 4, LOG_DEAF = 5 };
enum { SPACE_PORT = 0, SPACE_MEMORY = 1 };
enum { WAIT_HALTED = 0, WAIT_BUSY = 1, WAIT_DEAF = 2 };	/* .space of a wait */

#define VECTOR_PIC 0x20		/* 16 of them */
#define VECTOR_ALARM 0x31
#define VECTOR_IOAPIC 0x50	/* 24 of them */
#define VECTOR_LAPIC 0x70

struct op {
	uint8_t kind, size, space, unused;
	uint32_t addr;
	uint64_t value;		/* of a write; ns of a wait */
};

struct script {
	uint32_t magic;
	uint32_t irqs;		/* PIC inputs to let through */
	uint32_t pins;		/* IOAPIC inputs to let through */
	uint32_t level_pins;	/* those of them that are level-triggered */
	uint8_t hpet_alarm;	/* waits end by HPET timer 2, else by the LAPIC timer */
	uint8_t acks_rtc;	/* the handler reads register C */
	uint8_t acks_hpet;	/* the handler clears the HPET's status */
	uint8_t q35;
	uint8_t acks_pm;	/* the handler clears the PM timer's status */
	uint8_t unused[11];
	struct op ops[];
};

struct entry {
	uint8_t kind, size, space, unused;
	uint32_t addr;
	uint32_t value;
	uint32_t tsc_low, tsc_high;
};

struct log {
	uint32_t magic, count, unused[6];
	struct entry entries[];
};

typedef uint32_t access_fn(uint32_t addr, uint32_t value, uint64_t *tsc);
access_fn access_out8, access_out16, access_out32, access_in8, access_in16, access_in32,
	access_write32, access_read32;
extern const uint32_t stubs[256];
void rom_main(void);
void rom_interrupt(uint32_t vector, uint32_t tsc_low, uint32_t tsc_high);

static const struct script *const script = (const void *)SCRIPT;
static struct log *const log = (void *)LOG;
static volatile uint32_t *const lapic = (volatile uint32_t *)LAPIC;
static volatile uint32_t *const ioapic = (volatile uint32_t *)IOAPIC;
static volatile uint32_t *const hpet = (volatile uint32_t *)HPET;
static uint8_t rtc_index;
static struct { uint32_t low, high; } idt[256];

static void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint64_t rdtsc(void)
{
	uint64_t tsc;

	__asm__ volatile("rdtsc" : "=A"(tsc));
	return tsc;
}

static void note(uint8_t kind, uint8_t size, uint8_t space, uint32_t addr, uint32_t value,
		 uint64_t tsc)
{
	struct entry *e = &log->entries[log->count++];

	e->kind = kind;
	e->size = size;
	e->space = space;
	e->addr = addr;
	e->value = value;
	e->tsc_low = (uint32_t)tsc;
	e->tsc_high = (uint32_t)(tsc >> 32);
}

static access_fn *function(uint8_t kind, uint8_t size, uint8_t space)
{
	if (space == SPACE_MEMORY) {
		return kind == LOG_WRITE ? access_write32 : access_read32;
	}
	switch (size) {
	case 1:
		return kind == LOG_WRITE ? access_out8 : access_in8;
	case 2:
		return kind == LOG_WRITE ? access_out16 : access_in16;
	default:
		return kind == LOG_WRITE ? access_out32 : access_in32;
	}
}

/* With interrupts off: nothing comes between the stamp and the access. */
static uint32_t logged(uint8_t kind, uint8_t size, uint8_t space, uint32_t addr, uint32_t value)
{
	uint64_t tsc;
	uint32_t result = function(kind, size, space)(addr, value, &tsc);

	if (kind == LOG_READ) {
		value = size == 1 ? result & 0xff : size == 2 ? result & 0xffff : result;
	}
	note(kind, size, space, addr, value, tsc);
	return value;
}

/* Stops the machine, with interrupts on: those that are due have come. It may go on. */
static void capture(void)
{
	__asm__ volatile("sti; nop; nop; out %0, %1; nop; cli"
			 : : "a"((uint8_t)1), "d"((uint16_t)PVPANIC));
}

static void acknowledge_pic(uint32_t vector)
{
	if (vector >= VECTOR_PIC + 8) {
		outb(0xa0, 0x20);
	}
	outb(0x20, 0x20);
}

static void acknowledge_rtc(void)
{
	logged(LOG_WRITE, 1, SPACE_PORT, 0x70, 12);
	logged(LOG_READ, 1, SPACE_PORT, 0x71, 0);
	logged(LOG_WRITE, 1, SPACE_PORT, 0x70, rtc_index);
}

void rom_interrupt(uint32_t vector, uint32_t tsc_low, uint32_t tsc_high)
{
	if (vector == VECTOR_ALARM || (script->hpet_alarm && vector >= VECTOR_IOAPIC &&
				       vector < VECTOR_IOAPIC + 24)) {
		lapic[0xb0 / 4] = 0;
		return;
	}
	note(LOG_INTERRUPT, 0, 0, vector, 0, (uint64_t)tsc_high << 32 | tsc_low);
	if (vector >= VECTOR_PIC && vector < VECTOR_PIC + 16) {
		if (vector == VECTOR_PIC + 8 && script->acks_rtc) {
			acknowledge_rtc();
		} else if (vector == VECTOR_PIC + 9 && script->acks_pm) {
			logged(LOG_WRITE, 2, SPACE_PORT, PM, 1);
		}
		acknowledge_pic(vector);
		return;
	}
	if (vector == VECTOR_IOAPIC + 8 && script->acks_rtc) {
		acknowledge_rtc();
	} else if (vector >= VECTOR_IOAPIC && vector != VECTOR_LAPIC && script->acks_hpet) {
		uint32_t isr = logged(LOG_READ, 4, SPACE_MEMORY, HPET + 0x20, 0);

		logged(LOG_WRITE, 4, SPACE_MEMORY, HPET + 0x20, isr);
	}
	lapic[0xb0 / 4] = 0;
}

/* ---- waiting ---- */

static void set_alarm(uint64_t ns)
{
	uint32_t count = ns > 4000000000u ? 4000000000u : (uint32_t)ns;
	uint64_t ticks;

	if (!script->hpet_alarm) {
		lapic[0x380 / 4] = count;
		return;
	}
	ticks = hpet[0xf0 / 4] | (uint64_t)hpet[0xf4 / 4] << 32;
	ticks += count / 10 + 1;
	hpet[0x14c / 4] = (uint32_t)(ticks >> 32);
	hpet[0x148 / 4] = (uint32_t)ticks;
}

/*
 * @n times 400 ns of virtual time and two more, each one translated block that follows
 * itself: nearly free. While the processor executes, the clock goes on by its
 * instructions alone. In HLT it jumps to the next timer's expiry whenever a timer is
 * set; a device that sets its timer anew before it raises its interrupt (RTC, HPET)
 * would raise it then.
 */
static void execute(uint32_t n)
{
	/* within one page, or the block would be looked up each time */
	__asm__ volatile(".balign 512\n1:\n.rept 400\nnop\n.endr\ndec %0\njnz 1b"
			 : "+r"(n) : : "cc");
}

/* Handlers take time too: not all at once. */
static uint32_t blocks_until(uint64_t until, uint64_t now)
{
	uint64_t left = until > now + 600 ? until - now - 600 : 0;

	return left > 1000000 ? 2400 : (uint32_t)left / 402;
}

static void run_up_to(uint64_t until)
{
	uint32_t n;

	while (n = blocks_until(until, rdtsc()), n) {
		__asm__ volatile("sti");
		execute(n);
		__asm__ volatile("cli");
	}
	while (rdtsc() < until) {
		__asm__ volatile("sti; nop; nop; cli");
	}
}

static void run_deaf_up_to(uint64_t until)
{
	uint32_t n;

	while (n = blocks_until(until, rdtsc()), n) {
		execute(n);
	}
}

static void wait(uint64_t ns)
{
	uint64_t until = rdtsc() + ns, now;

	while (now = rdtsc(), now < until) {
		if (until - now < 2000) {
			__asm__ volatile("sti; nop; cli");
			continue;
		}
		set_alarm(until - now - 500);
		__asm__ volatile("sti; hlt; cli");
	}
}

/* ---- setting up what delivers interrupts ---- */

static void set_up_pic(uint16_t irqs)
{
	outb(0x20, 0x11);
	outb(0x21, VECTOR_PIC);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, VECTOR_PIC + 8);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, (uint8_t)~(irqs | 4));
	outb(0xa1, (uint8_t)~(irqs >> 8));
}

static void set_up_apics(void)
{
	lapic[0xf0 / 4] = 0x1ff;
	lapic[0x350 / 4] = 0x700;	/* LINT0: the PIC */
	for (uint32_t pin = 0; pin < 24; pin++) {
		uint32_t masked = script->pins >> pin & 1 ? 0 : 0x10000;
		uint32_t level = script->level_pins >> pin & 1 ? 0x8000 : 0;

		ioapic[0] = 0x11 + 2 * pin;
		ioapic[4] = 0;
		ioapic[0] = 0x10 + 2 * pin;
		ioapic[4] = masked | level | (VECTOR_IOAPIC + pin);
	}
}

static void set_up_alarm(void)
{
	if (!script->hpet_alarm) {
		lapic[0x320 / 4] = VECTOR_ALARM;
		lapic[0x3e0 / 4] = 0xb;
		return;
	}
	hpet[0x140 / 4] = 4 | 16 << 9;
	hpet[0x10 / 4] = 1;
}

/*
 * Channel 0 runs from power-on, 36 expiries a second also while hours are waited for:
 * where nobody listens it is put into mode 1, which fires no more.
 */
static void set_up_pit(void)
{
	if (!(script->irqs & 1)) {
		outb(0x43, 0x12);
	}
}

/* The PM block's I/O base is a PCI register: 0x600 on both chipsets. */
static void set_up_pm(void)
{
	uint32_t device = script->q35 ? 0x8000f800u : 0x80000b00u;

	outl(0xcf8, device | 0x40);
	outl(0xcfc, PM | 1);
	outl(0xcf8, device | (script->q35 ? 0x44 : 0x80));
	outl(0xcfc, script->q35 ? 0x80 : 1);
}

static void set_up_idt(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint32_t)idt };

	for (unsigned i = 0; i < 256; i++) {
		idt[i].low = 8 << 16 | (stubs[i] & 0xffff);
		idt[i].high = (stubs[i] & 0xffff0000) | 0x8e00;
	}
	__asm__ volatile("lidt %0" : : "m"(pointer));
}

void rom_main(void)
{
	const struct op *op = script->ops;

	log->magic = MAGIC;
	log->count = 0;
	rtc_index = 0;
	set_up_idt();
	set_up_pic((uint16_t)script->irqs);
	set_up_apics();
	set_up_alarm();
	set_up_pit();
	set_up_pm();
	for (; op->kind != OP_END; op++) {
		switch (op->kind) {
		case OP_WRITE:
			if (op->space == SPACE_PORT && op->addr == 0x70) {
				rtc_index = (uint8_t)op->value;
			}
			logged(LOG_WRITE, op->size, op->space, op->addr, (uint32_t)op->value);
			break;
		case OP_READ:
			logged(LOG_READ, op->size, op->space, op->addr, 0);
			break;
		case OP_WAIT:
			if (op->space == WAIT_DEAF) {
				run_deaf_up_to(rdtsc() + op->value);
				note(LOG_DEAF, 0, 0, 0, 0, rdtsc());
			} else if (op->space == WAIT_BUSY) {
				run_up_to(rdtsc() + op->value);
			} else {
				wait(op->value);
			}
			break;
		case OP_CAPTURE:
			note(LOG_MARK, 0, 0, 0, (uint32_t)op->value, rdtsc());
			capture();
			break;
		default:
			note(LOG_MARK, 0, 0, 0, (uint32_t)op->value, rdtsc());
			break;
		}
		/* let what is pending in */
		__asm__ volatile("sti; nop; nop; cli");
	}
	outb(PVPANIC, 1);	/* stop here */
}
