/* SPDX-License-Identifier: MIT */
#include "kvm/sys.h"

#include <sys/ioctl.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#endif

#include "core/util.h"
#include "kvm/abi.h"

static int real_ioctl(void *context, int fd, unsigned long request, unsigned long arg)
{
	(void)context;
	return ioctl(fd, request, arg);
}

static int real_clock(void *context, int clock, int64_t *ret_ns)
{
	struct timespec t;

	(void)context;
	if (clock_gettime(clock, &t) < 0) {
		return -1;
	}
	*ret_ns = (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
	return 0;
}

static uint64_t real_tsc(void *context)
{
	uint64_t ticks = 0;

	(void)context;
#if defined(__x86_64__) || defined(__i386__)
	_mm_lfence();		/* neither before nor after what stands around it */
	ticks = __rdtsc();
	_mm_lfence();
#endif
	return ticks;
}

const struct gclk_kvm_sys gclk_kvm_sys_real = {
	.ioctl = real_ioctl,
	.clock = real_clock,
	.tsc = real_tsc,
#ifdef KVM_SET_CLOCK_GUEST
	.set_clock_guest = KVM_SET_CLOCK_GUEST,
#endif
};
