/* SPDX-License-Identifier: MIT */
/*
 * The paravirtual clock of KVM: a page that the hypervisor writes, evaluated with RDTSC.
 *
 *   ns = system_time + ((tsc - tsc_timestamp) << shift) * mul / 2^32
 *
 * An odd version means that an update is under way.
 */
#include "guest.h"

#define MSR_SYSTEM_TIME		0x4b564d01u
#define FEATURE_CLOCKSOURCE2	(1u << 3)

static struct {
	volatile uint32_t version;
	uint32_t pad0;
	volatile uint64_t tsc_timestamp;
	volatile uint64_t system_time;
	volatile uint32_t mul;
	volatile int8_t shift;
	volatile uint8_t flags;
	uint8_t pad[2];
} page __attribute__((aligned(4096)));	/* where others look for one, as for Linux's */

static bool present;

bool pvclock_present(void)
{
	return present;
}

void pvclock_init(void)
{
	uint32_t r[4];

	cpuid(0x40000000u, r);
	if (r[1] != 0x4b4d564bu || r[2] != 0x564b4d56u || r[3] != 0x4du) {
		return;				/* not "KVMKVMKVM" */
	}
	cpuid(0x40000001u, r);
	if (r[0] & FEATURE_CLOCKSOURCE2) {
		wrmsr(MSR_SYSTEM_TIME, (uintptr_t)&page | 1);
		present = true;
	}
}

/* (a * mul) >> 32 of a 64-bit a, from two 32 x 32 products. */
static uint64_t scale(uint64_t a, uint32_t mul)
{
	return (a >> 32) * mul + ((a & 0xffffffffu) * mul >> 32);
}

void pvclock_read(struct pv_reading *ret)
{
	uint32_t version;

	do {
		uint64_t delta;

		version = page.version;
		ret->tsc = rdtsc();
		delta = ret->tsc - page.tsc_timestamp;
		delta = page.shift >= 0 ? delta << page.shift : delta >> -page.shift;
		ret->ns = page.system_time + scale(delta, page.mul);
		ret->flags = page.flags;
	} while ((version & 1) || version != page.version);
	page.flags &= (uint8_t)~2u;		/* GUEST_STOPPED was seen */
}
