/* SPDX-License-Identifier: MIT */
/*
 * A thread per vCPU. It runs the guest until the kernel needs us, or until it is told to
 * stand still.
 *
 * A signal alone would be lost between the look at .stopping and the ioctl;
 * immediate_exit makes the next KVM_RUN return at once, after it has completed the access
 * that the guest had under way. Only then are a vCPU's registers fit to be saved.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "minivmm.h"

#define SIG_KICK SIGUSR2

static void kicked(int signal)
{
	(void)signal;			/* the ioctl returns: that is all that is wanted */
}

/* Port accesses come in rows: `rep outsb` is one exit. */
static void do_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		device_port(vcpu->vm, run->io.port, data, run->io.size,
			    run->io.direction == KVM_EXIT_IO_OUT);
	}
}

static bool handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		do_io(vcpu);
		return true;
	case KVM_EXIT_MMIO:
		device_memory(vcpu->vm, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			      run->mmio.is_write);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_INTERNAL_ERROR:
		fprintf(stderr, "minivmm: vCPU %u: KVM gave up, suberror %u\n", vcpu->index,
			run->internal.suberror);
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		fprintf(stderr, "minivmm: vCPU %u: the entry failed, reason 0x%llx\n", vcpu->index,
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		return false;
	case KVM_EXIT_SHUTDOWN:
		fprintf(stderr, "minivmm: vCPU %u: triple fault\n", vcpu->index);
		return false;
	default:
		fprintf(stderr, "minivmm: vCPU %u: exit %u is not handled\n", vcpu->index,
			run->exit_reason);
		return false;
	}
}

/* Stands still for as long as it is told; false when the thread is to end. */
static bool stand_still(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	bool on;

	pthread_mutex_lock(&vm->lock);
	if (vm->stopping) {
		/* an expiry that the kernel has not delivered yet is told from one that it has */
		gclk_kvm_stopped(&vm->clocks, vcpu->index, NULL);
		vm->n_standing++;
		pthread_cond_broadcast(&vm->changed);
		while (vm->stopping && !vm->leaving) {
			pthread_cond_wait(&vm->changed, &vm->lock);
		}
		vm->n_standing--;
	}
	vcpu->run->immediate_exit = 0;
	on = !vm->leaving;
	pthread_mutex_unlock(&vm->lock);
	return on;
}

static void *run_vcpu(void *argument)
{
	struct vcpu *vcpu = argument;
	bool on = stand_still(vcpu);

	while (on) {
		if (ioctl(vcpu->fd, KVM_RUN, NULL) == 0) {
			on = handle_exit(vcpu);
		} else if (errno == EINTR || errno == EAGAIN) {
			on = stand_still(vcpu);
		} else {
			fprintf(stderr, "minivmm: vCPU %u: KVM_RUN: %m\n", vcpu->index);
			on = false;
		}
	}
	pthread_mutex_lock(&vcpu->vm->lock);
	if (!vcpu->vm->leaving) {
		vcpu->vm->failed = true;
		kill(getpid(), SIGTERM);	/* wakes the event loop, which looks at .failed */
	}
	vcpu->vm->n_standing++;			/* for ever */
	pthread_cond_broadcast(&vcpu->vm->changed);
	pthread_mutex_unlock(&vcpu->vm->lock);
	return NULL;
}

/* Makes every vCPU come out of the guest, and look. The lock is held. */
static void kick(struct vm *vm)
{
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		vm->vcpus[i].run->immediate_exit = 1;
		pthread_kill(vm->vcpus[i].thread, SIG_KICK);
	}
}

void vcpus_start(struct vm *vm)
{
	struct sigaction action = { .sa_handler = kicked };

	sigaction(SIG_KICK, &action, NULL);
	vm->stopping = true;
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		if (pthread_create(&vm->vcpus[i].thread, NULL, run_vcpu, &vm->vcpus[i])) {
			die("a thread for vCPU %u: %m", i);
		}
	}
	vcpus_stop(vm);
}

void vcpus_go(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->stopping = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

void vcpus_stop(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->stopping = true;
	kick(vm);
	while (vm->n_standing < vm->n_vcpus) {
		pthread_cond_wait(&vm->changed, &vm->lock);
	}
	pthread_mutex_unlock(&vm->lock);
}

void vcpus_end(struct vm *vm)
{
	vcpus_stop(vm);
	pthread_mutex_lock(&vm->lock);
	vm->leaving = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		pthread_join(vm->vcpus[i].thread, NULL);
	}
}
