/* SPDX-License-Identifier: MIT */
/*
 * By when the virtual processors of a QEMU that was told to go on did run, looked for from
 * outside: Linux counts how often each thread was put on a processor. QEMU lets its clocks
 * go on first and then wakes the threads of the processors, so from then on the clocks ran.
 */
#ifndef GCLK_MIGRATOR_VIRT_VCPUS_H
#define GCLK_MIGRATOR_VIRT_VCPUS_H

#include <stdint.h>
#include <sys/types.h>

struct vcpus;

/**
 * vcpus_watch() - look at them from now on, in a thread of its own
 * @root:	what stands before /proc: "" but in tests
 * @pid:	QEMU's
 *
 * They stand when this is called. Returns NULL where nothing can be seen: no such process, no
 * threads with names of processors (libvirt has QEMU name them), a kernel that does not count;
 * and where one of them, or the main thread, is awake: ask again.
 */
struct vcpus *vcpus_watch(const char *root, pid_t pid);

/**
 * vcpus_ran() - one of them was seen to run: CLOCK_BOOTTIME in ns, after the fact; 0: not yet
 *
 * Ends the watch and frees it; accepts NULL.
 */
int64_t vcpus_ran(struct vcpus *vcpus);

#endif
