/* SPDX-License-Identifier: MIT */
/*
 * Saving a stopped machine to a directory, and making one from it.
 *
 *	clocks.gclk	every clock and timer, and what host they came from: a bundle, which
 *			`guestclock inspect` and `guestclock plan` read as well
 *	machine		the rest of the CPUs and interrupt controllers, as the kernel has it
 *	ram		guest memory
 *
 * The library owns the clocks. What a VMM has to know is the order, and to leave the MSRs
 * of gclk_kvm_msrs alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minivmm.h"

#define MSRS_MAX 512
#define BUNDLE_MAX (256 << 10)
#define IRQCHIPS 3			/* two 8259s and the IOAPIC */
#define XCR0_RESET 1

/* All that the kernel knows of a vCPU, less its clocks. */
struct saved_vcpu {
	uint8_t cpuid[sizeof(union cpuid)];	/* the guest keeps what it was told at its start */
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint32_t xsave[1024];		/* what KVM_GET_XSAVE writes */
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	uint32_t n_msrs;
	struct kvm_msr_entry msrs[MSRS_MAX];
};

struct saved_machine {
	uint32_t n_vcpus;
	uint32_t reserved;
	uint64_t ram_bytes;
	struct kvm_irqchip chips[IRQCHIPS];
	uint8_t levels[24];
	uint8_t serial_lcr;
};

/* What goes to KVM_GET_MSRS and KVM_SET_MSRS: a list of one. */
union one_msr {
	struct kvm_msrs list;
	uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

/* ---- files ---- */

static FILE *open_in(const char *directory, const char *name, const char *mode)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, mode);
	if (!file) {
		die("%s: %m", path);
	}
	return file;
}

static void put(FILE *file, const void *bytes, size_t n)
{
	if (fwrite(bytes, n, 1, file) != 1) {
		die("write: %m");
	}
}

static void get(FILE *file, void *bytes, size_t n)
{
	if (fread(bytes, n, 1, file) != 1) {
		die("a saved file ends too early");
	}
}

static void put_away(FILE *file)
{
	if (fflush(file) || fsync(fileno(file)) || fclose(file)) {
		die("write: %m");
	}
}

/* ---- vCPUs without their clocks ---- */

static bool is_clock_msr(uint32_t index)
{
	for (unsigned i = 0; i < gclk_n_kvm_msrs; i++) {
		if (gclk_kvm_msrs[i] == index) {
			return true;
		}
	}
	return false;
}

static bool access_msr(struct vcpu *vcpu, unsigned long request, struct kvm_msr_entry *entry)
{
	union one_msr msr = { .room = { 0 } };
	bool good;

	msr.list.nmsrs = 1;
	msr.list.entries[0] = *entry;
	good = ioctl(vcpu->fd, request, &msr) == 1;
	*entry = msr.list.entries[0];
	return good;
}

static bool get_msr(struct vcpu *vcpu, struct kvm_msr_entry *entry)
{
	return access_msr(vcpu, KVM_GET_MSRS, entry);
}

/* Those that this vCPU has: the kernel lists some that its processor does not. */
static void save_msrs(struct vm *vm, struct vcpu *vcpu, struct saved_vcpu *to)
{
	union {
		struct kvm_msr_list list;
		uint8_t room[sizeof(struct kvm_msr_list) + MSRS_MAX * sizeof(uint32_t)];
	} all = { .room = { 0 } };

	all.list.nmsrs = MSRS_MAX;
	must(vm->kvm, KVM_GET_MSR_INDEX_LIST, &all, "KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < all.list.nmsrs; i++) {
		struct kvm_msr_entry entry = { .index = all.list.indices[i] };

		if (!is_clock_msr(entry.index) && get_msr(vcpu, &entry)) {
			to->msrs[to->n_msrs++] = entry;
		}
	}
}

/* Some can be read and not written; that matters only where the value is another one. */
static void restore_msrs(struct vcpu *vcpu, const struct saved_vcpu *from)
{
	for (uint32_t i = 0; i < from->n_msrs && i < MSRS_MAX; i++) {
		struct kvm_msr_entry now = { .index = from->msrs[i].index }, then = from->msrs[i];

		if (get_msr(vcpu, &now) && now.data != then.data &&
		    !access_msr(vcpu, KVM_SET_MSRS, &then)) {
			fprintf(stderr, "minivmm: vCPU %u: MSR 0x%x stays 0x%llx, it was 0x%llx\n",
				vcpu->index, then.index, (unsigned long long)now.data,
				(unsigned long long)then.data);
		}
	}
}

static void save_vcpu(struct vm *vm, struct vcpu *vcpu, struct saved_vcpu *to)
{
	union cpuid cpuid = { .room = { 0 } };

	memset(to, 0, sizeof(*to));
	cpuid.head.nent = CPUID_MAX;
	must(vcpu->fd, KVM_GET_CPUID2, &cpuid, "KVM_GET_CPUID2");
	memcpy(to->cpuid, &cpuid, sizeof(cpuid));
	must(vcpu->fd, KVM_GET_REGS, &to->regs, "KVM_GET_REGS");
	must(vcpu->fd, KVM_GET_SREGS, &to->sregs, "KVM_GET_SREGS");
	must(vcpu->fd, KVM_GET_XSAVE, to->xsave, "KVM_GET_XSAVE");
	must(vcpu->fd, KVM_GET_XCRS, &to->xcrs, "KVM_GET_XCRS");
	must(vcpu->fd, KVM_GET_DEBUGREGS, &to->debug, "KVM_GET_DEBUGREGS");
	must(vcpu->fd, KVM_GET_VCPU_EVENTS, &to->events, "KVM_GET_VCPU_EVENTS");
	must(vcpu->fd, KVM_GET_MP_STATE, &to->mp, "KVM_GET_MP_STATE");
	must(vcpu->fd, KVM_GET_LAPIC, &to->lapic, "KVM_GET_LAPIC");
	save_msrs(vm, vcpu, to);
}

/* CPUID decides what can be set at all, SREGS what kind of page the LAPIC has. */
static void restore_vcpu(struct vcpu *vcpu, struct saved_vcpu *from)
{
	must(vcpu->fd, KVM_SET_CPUID2, from->cpuid, "KVM_SET_CPUID2");
	must(vcpu->fd, KVM_SET_SREGS, &from->sregs, "KVM_SET_SREGS");
	must(vcpu->fd, KVM_SET_REGS, &from->regs, "KVM_SET_REGS");
	must(vcpu->fd, KVM_SET_XSAVE, from->xsave, "KVM_SET_XSAVE");
	if (from->xcrs.nr_xcrs && from->xcrs.xcrs[0].value != XCR0_RESET) {
		/* a guest that has never set it needs no processor that has it */
		must(vcpu->fd, KVM_SET_XCRS, &from->xcrs, "KVM_SET_XCRS");
	}
	must(vcpu->fd, KVM_SET_DEBUGREGS, &from->debug, "KVM_SET_DEBUGREGS");
	must(vcpu->fd, KVM_SET_LAPIC, &from->lapic, "KVM_SET_LAPIC");
	restore_msrs(vcpu, from);
	must(vcpu->fd, KVM_SET_VCPU_EVENTS, &from->events, "KVM_SET_VCPU_EVENTS");
	must(vcpu->fd, KVM_SET_MP_STATE, &from->mp, "KVM_SET_MP_STATE");
}

/* ---- the clocks ---- */

static void must_be_right(int r, const struct gclk_error *error, const char *what)
{
	if (r < 0) {
		die("%s: %s: %s: %s", what, gclk_status_name(r), error->where, error->message);
	}
}

/* When it was: the kernel's own reading of the wall clock, at the capture's instant. */
static void set_provenance(const struct vm *vm, const struct gclk_state *state,
			   struct gclk_provenance *ret)
{
	struct gclk_when when;

	gclk_kvm_when(state, NULL, &vm->host, &when);
	*ret = (struct gclk_provenance){ .has = 0 };
	if (when.captured.uncertainty_ns != GCLK_UNBOUNDED) {
		GCLK_SET(provenance, ret, realtime_ns, when.captured.ns);
		GCLK_SET(provenance, ret, uncertainty_ns, when.captured.uncertainty_ns);
		snprintf(ret->basis, sizeof(ret->basis), "capture");
		ret->has |= GCLK_BIT(provenance, basis);
	}
	snprintf(ret->source_format, sizeof(ret->source_format), "kvm");
	ret->has |= GCLK_BIT(provenance, source_format);
}

/*
 * Everything that decides what the guest reads from a clock, or when a timer interrupts it,
 * at one instant. Ticks that a replay has not yet delivered are among it.
 */
static void save_clocks(struct vm *vm, const char *directory)
{
	static uint8_t bytes[BUNDLE_MAX];
	struct gclk_bundle *bundle = gclk_bundle_new();
	struct gclk_state *state = gclk_state_new(vm->n_vcpus);
	struct gclk_provenance provenance;
	struct gclk_error error = { 0 };
	FILE *file = open_in(directory, "clocks.gclk", "wbe");
	int64_t n;
	int r;

	if (!bundle || !state) {
		die("not enough memory");
	}
	r = gclk_kvm_capture(&vm->clocks, &vm->host, state, &error);
	must_be_right(r, &error, "capture");
	if (vm->plan) {
		r = gclk_replay_save(&vm->plan->replay, state, &error);
		must_be_right(r, &error, "owed ticks");
	}
	set_provenance(vm, state, &provenance);
	r = gclk_bundle_set_state(bundle, state, &error);
	r = r ? r : gclk_bundle_set_provenance(bundle, &provenance, &error);
	r = r ? r : gclk_bundle_set_host(bundle, &vm->host, &error);
	n = r ? r : gclk_bundle_pack(bundle, bytes, sizeof(bytes), &error);
	must_be_right(n < 0 ? (int)n : 0, &error, "bundle");
	put(file, bytes, (size_t)n);
	put_away(file);
	gclk_state_free(state);
	gclk_bundle_free(bundle);
}

/* The captured state, and the profile of the host that it comes from. */
static struct gclk_state *load_clocks(struct vm *vm, const char *directory)
{
	static uint8_t bytes[BUNDLE_MAX];
	FILE *file = open_in(directory, "clocks.gclk", "rbe");
	struct gclk_error error = { 0 };
	struct gclk_bundle *bundle = NULL;
	struct gclk_state *state;
	size_t n = fread(bytes, 1, sizeof(bytes), file);
	int r = gclk_bundle_unpack(bytes, n, &bundle, &error);

	fclose(file);
	must_be_right(r, &error, "clocks.gclk");
	state = gclk_state_new(gclk_bundle_n_vcpus(bundle));
	if (!state) {
		die("clocks.gclk: no vCPU, or not enough memory");
	}
	must_be_right(gclk_bundle_state(bundle, state, &error), &error, "clocks.gclk");
	if (gclk_bundle_host(bundle, &vm->source, &error) == 0 && !vm->elsewhere) {
		vm->clocks.source = &vm->source;	/* the same boot is recognised by it */
	}
	gclk_bundle_free(bundle);
	return state;
}

/* ---- the machine ---- */

void vm_save(struct vm *vm, const char *directory)
{
	struct saved_machine machine = { .n_vcpus = vm->n_vcpus, .ram_bytes = vm->ram_bytes,
					 .serial_lcr = vm->serial_lcr };
	struct saved_vcpu *saved = malloc(sizeof(*saved));
	FILE *file;

	if (!saved) {
		die("not enough memory");
	}
	if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
		die("%s: %m", directory);
	}
	save_clocks(vm, directory);	/* first: the clocks do not wait for the disk */
	memcpy(machine.levels, vm->levels, sizeof(machine.levels));
	for (uint32_t i = 0; i < IRQCHIPS; i++) {
		machine.chips[i].chip_id = i;
		must(vm->fd, KVM_GET_IRQCHIP, &machine.chips[i], "KVM_GET_IRQCHIP");
	}
	file = open_in(directory, "machine", "wbe");
	put(file, &machine, sizeof(machine));
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		save_vcpu(vm, &vm->vcpus[i], saved);
		put(file, saved, sizeof(*saved));
	}
	put_away(file);
	file = open_in(directory, "ram", "wbe");
	put(file, vm->ram, vm->ram_bytes);
	put_away(file);
	free(saved);
}

/*
 * The first plan refuses what cannot be done here before anything exists, a gap between two
 * wall clocks that nobody compared among it; restore() makes the final one, for its own
 * instant.
 */
static void make_plan(struct vm *vm, const struct gclk_state *state,
		      const struct gclk_policy *policy,
		      const struct gclk_disagreement *disagreement)
{
	struct gclk_error error = { 0 };
	struct gclk_when when;
	int r = gclk_host_sample(&vm->host, &error);

	must_be_right(r, &error, "host");
	vm->plan = gclk_plan_new(state->n_vcpus);
	if (!vm->plan) {
		die("not enough memory");
	}
	gclk_kvm_when(state, vm->clocks.source, &vm->host, &when);
	r = gclk_plan(state, &gclk_kvm_carrier, &vm->host, &when, disagreement, policy, vm->plan,
		      &error);
	if (r < 0) {
		report_plan(vm->plan);
	}
	must_be_right(r, &error, "plan");
}

void vm_restore(struct vm *vm, const char *directory, const struct gclk_policy *policy,
		const struct gclk_disagreement *disagreement)
{
	struct gclk_state *state = load_clocks(vm, directory);
	struct saved_vcpu *saved = malloc(sizeof(*saved));
	FILE *file = open_in(directory, "machine", "rbe");
	struct gclk_error error = { 0 };
	struct saved_machine machine;
	int r;

	get(file, &machine, sizeof(machine));
	if (!saved || machine.n_vcpus != state->n_vcpus || machine.n_vcpus > VCPUS_MAX) {
		die("the machine has %u vCPUs, its clocks are of %u", machine.n_vcpus,
		    state->n_vcpus);
	}
	vm_create(vm, machine.ram_bytes);
	make_plan(vm, state, policy, disagreement);
	must_be_right(gclk_kvm_prepare(&vm->clocks, vm->plan, &error), &error, "prepare");
	vm_create_vcpus(vm, machine.n_vcpus);
	for (uint32_t i = 0; i < IRQCHIPS; i++) {
		must(vm->fd, KVM_SET_IRQCHIP, &machine.chips[i], "KVM_SET_IRQCHIP");
	}
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		get(file, saved, sizeof(*saved));
		restore_vcpu(&vm->vcpus[i], saved);
	}
	fclose(file);
	file = open_in(directory, "ram", "rbe");
	get(file, vm->ram, vm->ram_bytes);
	fclose(file);
	memcpy(vm->levels, machine.levels, sizeof(vm->levels));
	vm->serial_lcr = machine.serial_lcr;

	/* last, right before the run: from here on all clocks of the guest go */
	r = gclk_kvm_restore(&vm->clocks, state, &vm->host, disagreement, policy, vm->plan, &error);
	report_plan(vm->plan);
	must_be_right(r, &error, "restore");
	gclk_state_free(state);
	free(saved);
}
