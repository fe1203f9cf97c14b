/* SPDX-License-Identifier: MIT */
/*
 * minivmm: a virtual machine monitor small enough to be read, with its clocks right.
 *
 *	main.c		options, the event loop, stop and go
 *	boot.c		the machine: RAM, vCPUs, the guest's ELF
 *	vcpu.c		a thread per vCPU, and what makes it leave the guest
 *	devices.c	RTC, HPET and PM timer of <guestclock/devices.h>, a serial port
 *	state.c		the machine to files and back: the clocks through the library
 *	replay.c	ticks that the guest missed, delivered while it runs
 *
 * Whoever wants to learn the library's use reads vm_save() and vm_restore() in state.c,
 * and replay_go_on().
 *
 * The interrupt controllers, the local APICs and the PIT are the kernel's. The guest is
 * any 32-bit ELF that keeps the entry contract of tests/guest/README.md.
 */
#ifndef MINIVMM_H
#define MINIVMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/kvm.h>

#include <guestclock/bundle.h>
#include <guestclock/devices.h>
#include <guestclock/kvm.h>

#define VCPUS_MAX 16
#define COMMAND_LINE_MAX 512
#define PM_BASE 0x600			/* status, enable, and the timer at +8 */
#define RTC_IRQ 8

/* What goes to and comes from KVM_SET_CPUID2 and its relatives. */
#define CPUID_MAX 128
union cpuid {
	struct kvm_cpuid2 head;
	uint8_t room[sizeof(struct kvm_cpuid2) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
};

struct vm;

struct vcpu {
	struct vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
};

struct vm {
	int kvm, fd;			/* /dev/kvm, and the VM */
	unsigned n_vcpus;
	struct vcpu vcpus[VCPUS_MAX];
	int vcpu_fds[VCPUS_MAX];
	uint8_t *ram;
	size_t ram_bytes;

	/*
	 * The library's view of this VM. The guest's own time, on which all devices of ours
	 * stand, is gclk_kvm_axis_now() of it: CLOCK_MONOTONIC plus an offset. It goes on
	 * while the guest is stopped, as the kernel's clocks do; gclk_kvm_restore() is the
	 * one place where it is moved.
	 */
	struct gclk_kvm clocks;
	struct gclk_kvm_stop stops[VCPUS_MAX];
	struct gclk_host host, source;	/* this one, and where the guest comes from */
	bool elsewhere;			/* not from this boot, even if it looks so */
	struct gclk_plan *plan;		/* after a restore: its replay is under way */
	pthread_mutex_t lock;		/* of all below: vCPUs and the event loop meet here */
	struct gclk_rtc rtc;
	struct gclk_hpet hpet;
	struct gclk_pm_timer pm;
	uint8_t serial_lcr;
	uint8_t levels[24];		/* of the interrupt lines that are ours */
	int timer_fd;			/* the next edge of any device of ours */

	bool paused;			/* by a command: the event loop's own word */

	pthread_cond_t changed;
	bool stopping;			/* vCPUs are to stand still */
	bool leaving;			/* ... and their threads to end */
	bool failed;			/* one of them could not go on */
	unsigned n_standing;
};

/* Says why, and ends the process. A VMM that cannot go on has nothing to save. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* ioctl(), for calls whose failure is the end. */
int must(int fd, unsigned long request, void *argument, const char *name);

/* boot.c */

/* A VM with RAM, interrupt controllers and a PIT; no vCPU yet. */
void vm_create(struct vm *vm, uint64_t ram_bytes);

/* Its vCPUs; they do not run, and what CPUID tells them is not settled yet. */
void vm_create_vcpus(struct vm *vm, unsigned n);

/* Settles CPUID as the kernel offers it, loads the guest, and points vCPU 0 at its entry. */
void vm_boot(struct vm *vm, const char *path, const char *command_line);

/* vcpu.c */

void vcpus_start(struct vm *vm);		/* their threads; they stand still */
void vcpus_go(struct vm *vm);
void vcpus_stop(struct vm *vm);			/* returns when all stand still */
void vcpus_end(struct vm *vm);

/* devices.c */

void devices_power_on(struct vm *vm);

/* After gclk_kvm_inject(); the lock is held. */
void devices_injected(struct vm *vm);

/* A register is read or written by the guest; absent ones read as all ones. */
void device_port(struct vm *vm, uint16_t port, void *data, unsigned size, bool write);
void device_memory(struct vm *vm, uint64_t address, void *data, unsigned size, bool write);

/* Handles what is due, and arms timer_fd for what is next; the lock is held. */
void devices_advance(struct vm *vm);

/* state.c; both end the process where they cannot do it */

/* All vCPUs stand still. The machine stays as it is, and may go on. */
void vm_save(struct vm *vm, const char *directory);

/* Makes the whole machine; its vCPUs do not run yet, and its clocks do. */
void vm_restore(struct vm *vm, const char *directory, const struct gclk_policy *policy,
		const struct gclk_disagreement *disagreement);

/* replay.c */

int64_t host_now(void);				/* CLOCK_MONOTONIC, ns */
int64_t replay_due(struct vm *vm);		/* on it; GCLK_REPLAY_NEVER: nothing to do */
void replay_go_on(struct vm *vm);		/* delivers what is due */
void report_plan(const struct gclk_plan *plan);
void report_replay(const struct gclk_replay *replay);

#endif
