/* SPDX-License-Identifier: MIT */
/* The field table of a host, from its rows in <guestclock/plan.h>. */
#include <guestclock/plan.h>

#include "devices/rows.h"

NAMES(gclk_tsc_basis_names) = {
	{ GCLK_TSC_UNKNOWN, "unknown" },
	{ GCLK_TSC_GIVEN, "given" },
	{ GCLK_TSC_CPUID, "cpuid" },
	{ GCLK_TSC_KERNEL, "kernel" },
	{ GCLK_TSC_MEASURED, "measured" },
	{ 0, NULL },
};

NAMES(gclk_host_flag_names) = {
	{ GCLK_HOST_CONSTANT_TSC, "constant_tsc" },
	{ GCLK_HOST_NONSTOP_TSC, "nonstop_tsc" },
	{ GCLK_HOST_TSC_KNOWN_FREQ, "tsc_known_freq" },
	{ GCLK_HOST_TSC_SCALING, "tsc_scaling" },
	{ GCLK_HOST_KVM, "kvm" },
	{ GCLK_HOST_SYNCHRONISED, "synchronised" },
	{ GCLK_HOST_HYPERVISOR, "hypervisor" },
	{ 0, NULL },
};

/* clang-format off */
#define UNIT_gclk_tsc_basis_names	GCLK_UNIT_ENUM

FIELDS(host, GCLK_HOST_FIELDS)
PLAIN(host)
/* clang-format on */
