/* SPDX-License-Identifier: MIT */
/*
 * Does this host's KVM keep what is written to a guest's TSC? There are kernels that take
 * the write and go on with the host's counter; only a virtual machine of one's own tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <guestclock/kvm.h>
#include <linux/kvm.h>

#include "core/error.h"
#include "core/util.h"

#define MSR_TSC 0x10
/* Far from what any host's counter reads, and more than it counts until it is read back. */
#define WRITTEN (UINT64_C(1) << 60)
#define NEAR (UINT64_C(1) << 50)

union one_msr {
	struct kvm_msrs list;
	unsigned char room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static int access_tsc(int vcpu, unsigned long request, uint64_t *value)
{
	union one_msr msr = { .room = { 0 } };

	msr.list.nmsrs = 1;
	msr.list.entries[0].index = MSR_TSC;
	msr.list.entries[0].data = *value;
	if (ioctl(vcpu, request, &msr) != 1) {
		return -1;
	}
	*value = msr.list.entries[0].data;
	return 0;
}

static int probe_vcpu(int vcpu)
{
	uint64_t value = WRITTEN;

	if (access_tsc(vcpu, KVM_SET_MSRS, &value) < 0 ||
	    access_tsc(vcpu, KVM_GET_MSRS, &value) < 0) {
		return -1;
	}
	return value - WRITTEN < NEAR;
}

GCLK_API int gclk_kvm_keeps_tsc(struct gclk_error *reterr)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1, vcpu = -1, r = -1;

	if (kvm >= 0 && (vm = ioctl(kvm, KVM_CREATE_VM, 0)) >= 0 &&
	    (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) >= 0) {
		r = probe_vcpu(vcpu);
	}
	if (r < 0) {
		r = gclk_fail(reterr, GCLK_SYS, "/dev/kvm", GCLK_NO_OFFSET,
			      "no virtual machine of one's own can be asked: %s",
			      strerror(errno));
	}
	if (vcpu >= 0) {
		close(vcpu);
	}
	if (vm >= 0) {
		close(vm);
	}
	if (kvm >= 0) {
		close(kvm);
	}
	return r;
}
