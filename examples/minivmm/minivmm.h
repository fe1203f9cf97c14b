/* SPDX-License-Identifier: MIT */
/*
 * minivmm: a virtual machine monitor small enough to be read, with its clocks right.
 *
 *	main.c		options, the event loop, stop and go
 *	boot.c		the machine: RAM, vCPUs, the guest's ELF
 *	vcpu.c		a thread per vCPU, and what makes it leave the guest
 *	devices.c	RTC, HPET and PM timer of <guestclock/devices.h>, a serial port
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

#include <guestclock/devices.h>

#define VCPUS_MAX 16
#define COMMAND_LINE_MAX 512
#define PM_BASE 0x600			/* status, enable, and the timer at +8 */

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
	uint8_t *ram;
	size_t ram_bytes;

	/*
	 * The guest's own time, in ns: CLOCK_MONOTONIC plus axis_ns while it runs. All
	 * devices of ours stand on it. While the guest is stopped it goes on, unless
	 * somebody moves axis_ns: that is a decision, and it is made in one place.
	 */
	int64_t axis_ns;

	pthread_mutex_t lock;		/* of all below: vCPUs and the event loop meet here */
	struct gclk_rtc rtc;
	struct gclk_hpet hpet;
	struct gclk_pm_timer pm;
	uint8_t serial_lcr;
	uint8_t levels[24];		/* of the interrupt lines that are ours */
	int timer_fd;			/* the next edge of any device of ours */

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
void vm_create(struct vm *vm, size_t ram_bytes);

/* Its vCPUs, with the CPUID that the kernel offers; they do not run. */
void vm_create_vcpus(struct vm *vm, unsigned n);

/* Loads the guest, and points vCPU 0 at its entry. */
void vm_boot(struct vm *vm, const char *path, const char *command_line);

/* vcpu.c */

void vcpus_start(struct vm *vm);		/* their threads; they stand still */
void vcpus_go(struct vm *vm);
void vcpus_stop(struct vm *vm);			/* returns when all stand still */
void vcpus_end(struct vm *vm);

/* devices.c */

int64_t guest_now(const struct vm *vm);
void devices_power_on(struct vm *vm);

/* A register is read or written by the guest; absent ones read as all ones. */
void device_port(struct vm *vm, uint16_t port, void *data, unsigned size, bool write);
void device_memory(struct vm *vm, uint64_t address, void *data, unsigned size, bool write);

/* Handles what is due, and arms timer_fd for what is next; the lock is held. */
void devices_advance(struct vm *vm);

#endif
