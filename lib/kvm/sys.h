/* SPDX-License-Identifier: MIT */
/*
 * The system calls of the backend, all of them: what is not in this table is not used.
 * A test puts a simulated kernel in its place, or one that fails at the Nth call.
 */
#ifndef GCLK_KVM_SYS_H
#define GCLK_KVM_SYS_H

#include <stdint.h>

#include <guestclock/kvm.h>

struct gclk_kvm_sys {
	void *context;
	/* Returns what ioctl(2) returns; errno is set with -1. */
	int (*ioctl)(void *context, int fd, unsigned long request, unsigned long arg);
	/* CLOCK_MONOTONIC, _RAW, _REALTIME in ns; -1 where the clock cannot be read. */
	int (*clock)(void *context, int clock, int64_t *ret_ns);
	uint64_t (*tsc)(void *context);
	/*
	 * Number of the proposed KVM_SET_CLOCK_GUEST, as the headers have it; 0 where they
	 * do not: its number changed between proposals.
	 */
	unsigned long set_clock_guest;
};

extern const struct gclk_kvm_sys gclk_kvm_sys_real;

static inline const struct gclk_kvm_sys *gclk_kvm_sys_of(const struct gclk_kvm *k)
{
	return k->sys ? k->sys : &gclk_kvm_sys_real;
}

static inline int gclk_sys_ioctl(const struct gclk_kvm *k, int fd, unsigned long request,
				 const void *arg)
{
	const struct gclk_kvm_sys *sys = gclk_kvm_sys_of(k);

	return sys->ioctl(sys->context, fd, request, (unsigned long)(uintptr_t)arg);
}

/* Ioctls whose argument is a number. */
static inline int gclk_sys_ioctl_value(const struct gclk_kvm *k, int fd, unsigned long request,
				       unsigned long value)
{
	const struct gclk_kvm_sys *sys = gclk_kvm_sys_of(k);

	return sys->ioctl(sys->context, fd, request, value);
}

static inline int gclk_sys_clock(const struct gclk_kvm *k, int clock, int64_t *ret_ns)
{
	const struct gclk_kvm_sys *sys = gclk_kvm_sys_of(k);

	return sys->clock(sys->context, clock, ret_ns);
}

static inline uint64_t gclk_sys_tsc(const struct gclk_kvm *k)
{
	const struct gclk_kvm_sys *sys = gclk_kvm_sys_of(k);

	return sys->tsc(sys->context);
}

#endif
