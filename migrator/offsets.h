/* SPDX-License-Identifier: MIT */
/*
 * What the kernel shows of a running guest's TSCs, without asking its hypervisor: debugfs
 * has a directory for each machine, by its process, and in it one for each vCPU.
 */
#ifndef GCLK_MIGRATOR_OFFSETS_H
#define GCLK_MIGRATOR_OFFSETS_H

#include <stdbool.h>
#include <sys/types.h>

#include <guestclock/error.h>
#include <guestclock/plan.h>

struct vcpu_offset {
	uint32_t vcpu;
	int64_t offset_ticks; /* guest's TSC minus the host's, scaled */
	uint64_t ratio;	      /* of 2^frac_bits; 0: not scaled, or not shown */
	uint32_t frac_bits;
};

struct offsets {
	uint32_t n;
	struct vcpu_offset *items; /* by vCPU */
};

/**
 * offsets_read() - of the process @pid
 * @root:	"" for the real files, a directory in tests
 *
 * Errors: GCLK_UNSUPPORTED: the kernel shows none (no debugfs, no right to read it, not a
 * machine of the kernel's); GCLK_NOMEM; GCLK_MALFORMED. offsets_free() it.
 */
int offsets_read(const char *root, pid_t pid, struct offsets *ret,
		 struct gclk_error *reterr);
void offsets_free(struct offsets *offsets);

/* Of the domain's process; -1 where libvirt keeps none, or it cannot be read. */
pid_t offsets_pid_of(const char *root, const char *domain);

/* A guest's vCPUs should agree to the tick: adds `tsc-skew` where they do not. */
void offsets_lint(const struct offsets *offsets, uint64_t tsc_hz,
		  struct gclk_findings *findings);

#endif
