/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/offsets.h"

#define MACHINES "/sys/kernel/debug/kvm"
#define PIDS "/run/libvirt/qemu"
#define VCPUS_MAX 4096

/* The one number that a file holds. */
static bool read_number(const char *path, long long *ret)
{
	FILE *file = fopen(path, "re");
	bool ok = file && fscanf(file, "%lld", ret) == 1;

	if (file) {
		fclose(file);
	}
	return ok;
}

static bool number_in(const char *directory, const char *name, long long *ret)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/%s", directory, name) <
		       (int)sizeof(path) &&
	       read_number(path, ret);
}

pid_t offsets_pid_of(const char *root, const char *domain)
{
	char path[PATH_MAX];
	long long pid;

	if (!domain[0] || strchr(domain, '/') ||
	    snprintf(path, sizeof(path), "%s" PIDS "/%s.pid", root, domain) >=
		    (int)sizeof(path) ||
	    !read_number(path, &pid) || pid <= 0 || pid > INT_MAX) {
		return -1;
	}
	return (pid_t)pid;
}

/* "1234-17": the process, and the descriptor that the machine has in it. */
static bool find_machine(const char *root, pid_t pid, char *to, size_t size)
{
	char path[PATH_MAX], prefix[24];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s" MACHINES, root);
	snprintf(prefix, sizeof(prefix), "%ld-", (long)pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		if (!strncmp(entry->d_name, prefix, strlen(prefix))) {
			found = snprintf(to, size, "%s/%s", path, entry->d_name) <
				(int)size;
		}
	}
	if (dir) {
		closedir(dir);
	}
	return found;
}

static int take_vcpu(const char *machine, unsigned vcpu, struct offsets *to,
		     struct gclk_error *reterr)
{
	struct vcpu_offset *item = &to->items[to->n];
	char directory[PATH_MAX];
	long long n;

	if (snprintf(directory, sizeof(directory), "%s/vcpu%u", machine, vcpu) >=
		    (int)sizeof(directory) ||
	    !number_in(directory, "tsc-offset", &n)) {
		return gclk_fail(reterr, GCLK_MALFORMED, machine, GCLK_NO_OFFSET,
				 "vCPU %u has no tsc-offset that can be read", vcpu);
	}
	*item = (struct vcpu_offset){ .vcpu = vcpu, .offset_ticks = n };
	if (number_in(directory, "tsc-scaling-ratio", &n)) {
		item->ratio = (uint64_t)n;
	}
	if (number_in(directory, "tsc-scaling-ratio-frac-bits", &n)) {
		item->frac_bits = (uint32_t)n;
	}
	to->n++;
	return 0;
}

static int count_vcpus(const char *machine, unsigned *ret_max)
{
	DIR *dir = opendir(machine);
	struct dirent *entry;
	unsigned vcpu, n = 0;
	char rest;

	*ret_max = 0;
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "vcpu%u%c", &vcpu, &rest) == 1 &&
		    vcpu < VCPUS_MAX) {
			*ret_max = GCLK_MAX(*ret_max, vcpu + 1);
			n++;
		}
	}
	if (dir) {
		closedir(dir);
	}
	return (int)n;
}

static bool is_there(const char *machine, unsigned vcpu)
{
	char path[PATH_MAX];
	DIR *dir;

	snprintf(path, sizeof(path), "%.4000s/vcpu%u", machine, vcpu);
	dir = opendir(path);
	if (dir) {
		closedir(dir);
	}
	return dir != NULL;
}

int offsets_read(const char *root, pid_t pid, struct offsets *ret,
		 struct gclk_error *reterr)
{
	char machine[PATH_MAX];
	unsigned max;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	if (snprintf(machine, sizeof(machine), "%s" MACHINES, root) >=
		    (int)sizeof(machine) ||
	    access(machine, R_OK | X_OK) < 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, MACHINES, GCLK_NO_OFFSET,
				 "debugfs is not mounted, or not for this user");
	}
	if (pid <= 0 || !find_machine(root, pid, machine, sizeof(machine)) ||
	    count_vcpus(machine, &max) == 0) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, MACHINES, GCLK_NO_OFFSET,
				 "the kernel shows no machine of this guest");
	}
	ret->items = calloc(max, sizeof(*ret->items));
	if (!ret->items) {
		return gclk_fail(reterr, GCLK_NOMEM, MACHINES, GCLK_NO_OFFSET,
				 "no memory");
	}
	for (unsigned i = 0; r == 0 && i < max; i++) {
		if (is_there(machine, i)) {
			r = take_vcpu(machine, i, ret, reterr);
		}
	}
	if (r < 0) {
		offsets_free(ret);
	}
	return r;
}

void offsets_free(struct offsets *offsets)
{
	free(offsets->items);
	memset(offsets, 0, sizeof(*offsets));
}

void offsets_lint(const struct offsets *offsets, uint64_t tsc_hz,
		  struct gclk_findings *findings)
{
	int64_t low = INT64_MAX, high = INT64_MIN;
	char text[GCLK_DURATION_TEXT_BYTES];
	gclk_u128 ns;

	for (uint32_t i = 0; i < offsets->n; i++) {
		low = GCLK_MIN(low, offsets->items[i].offset_ticks);
		high = GCLK_MAX(high, offsets->items[i].offset_ticks);
	}
	if (offsets->n < 2 || low == high) {
		return;
	}
	if (!tsc_hz) {
		gclk_findings_add(findings, "tsc-skew", "tsc",
				  "by %" PRIu64 " ticks between the offsets of %" PRIu32
				  " vCPUs",
				  (uint64_t)high - (uint64_t)low, offsets->n);
		return;
	}
	ns = (gclk_u128)((uint64_t)high - (uint64_t)low) * (uint64_t)GCLK_NS_PER_S /
	     tsc_hz;
	gclk_findings_add(
		findings, "tsc-skew", "tsc",
		"by %s (%" PRIu64 " ticks) between the offsets of %" PRIu32 " vCPUs",
		gclk_duration_format((int64_t)GCLK_MIN(ns, (gclk_u128)INT64_MAX), text),
		(uint64_t)high - (uint64_t)low, offsets->n);
}
