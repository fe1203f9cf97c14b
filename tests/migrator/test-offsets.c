/* SPDX-License-Identifier: MIT */
/* The kernel's debugfs of a running guest, as a tree of files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/offsets.h"

static void remove_tree(const char *root)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", root);
	GCLK_EQ(system(command), 0);
}

static void put(const char *root, const char *path, const char *text)
{
	char name[256];
	FILE *file;

	snprintf(name, sizeof(name), "%s/%s", root, path);
	for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/'));
	     slash++) {
		*slash = 0;
		CU_ASSERT(mkdir(name, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	file = fopen(name, "w");
	CU_ASSERT_FATAL(file != NULL);
	fputs(text, file);
	fclose(file);
}

#define KVM "sys/kernel/debug/kvm/"

GCLK_TEST(offsets, a_machine_with_three_vcpus)
{
	char root[] = "/tmp/gclk-offsets-XXXXXX";
	struct gclk_findings *findings = calloc(1, sizeof(*findings));
	struct offsets offsets;
	struct gclk_error error = { 0 };

	CU_ASSERT_FATAL(mkdtemp(root) != NULL);
	put(root, "run/libvirt/qemu/web1.pid", "1234");
	put(root, KVM "12345-9/vcpu0/tsc-offset", "7\n"); /* another process */
	put(root, KVM "1234-17/vcpu0/tsc-offset", "-5000000000\n");
	put(root, KVM "1234-17/vcpu1/tsc-offset", "-5000000000\n");
	put(root, KVM "1234-17/vcpu3/tsc-offset", "-5000000000\n"); /* 2 was taken out */
	put(root, KVM "1234-17/vcpu0/tsc-scaling-ratio", "4294967296\n");
	put(root, KVM "1234-17/vcpu0/tsc-scaling-ratio-frac-bits", "32\n");
	put(root, KVM "1234-17/mmu_cache", "0\n");
	GCLK_EQ(offsets_pid_of(root, "web1"), 1234);
	GCLK_EQ(offsets_pid_of(root, "web2"), -1);
	GCLK_EQ(offsets_pid_of(root, "../qemu/web1"), -1);
	GCLK_EQ(offsets_read(root, 1234, &offsets, &error), 0);
	GCLK_EQ(offsets.n, 3);
	GCLK_EQ(offsets.items[0].offset_ticks, -5000000000);
	GCLK_EQ(offsets.items[0].ratio, 4294967296);
	GCLK_EQ(offsets.items[0].frac_bits, 32);
	GCLK_EQ(offsets.items[1].ratio, 0);
	GCLK_EQ(offsets.items[2].vcpu, 3);
	offsets_lint(&offsets, 2000000000, findings);
	GCLK_EQ(findings->n, 0);
	offsets.items[1].offset_ticks += 2000;
	offsets_lint(&offsets, 2000000000, findings);
	GCLK_EQ(findings->n, 1);
	CU_ASSERT_STRING_EQUAL(findings->items[0].info->id, "tsc-skew");
	CU_ASSERT(strstr(findings->items[0].message, "2000 ticks") != NULL);
	offsets_free(&offsets);

	/* none, damaged, not there */
	GCLK_EQ(offsets_read(root, 99, &offsets, &error), -GCLK_UNSUPPORTED);
	put(root, KVM "1234-17/vcpu1/tsc-offset", "many\n");
	GCLK_EQ(offsets_read(root, 1234, &offsets, &error), -GCLK_MALFORMED);
	GCLK_EQ(offsets.n, 0);
	GCLK_EQ(offsets_read("/nonexistent", 1234, &offsets, &error), -GCLK_UNSUPPORTED);
	remove_tree(root);
	free(findings);
}
