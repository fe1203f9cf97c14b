/* SPDX-License-Identifier: MIT */
/*
 * The same on the kernel of this machine, where it has one that lets us: VMs without a
 * guest, whose clocks KVM keeps all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/devices.h>

#include "gclk-test.h"

#include "core/time.h"
#include "core/util.h"
#include "devices/ticks.h"
#include "kvm/backend.h"

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

#define MEMORY_BYTES 65536
#define VCPUS 2

/* One VM with all its in-kernel devices. */
struct machine {
	int kvm, vm, fds[VCPUS];
	uint8_t *memory;
	struct gclk_kvm k;
};

static int access_memory(void *context, uint64_t gpa, void *bytes, uint32_t size, int write)
{
	struct machine *m = context;

	if (gpa > MEMORY_BYTES - size) {
		return -1;
	}
	if (write) {
		memcpy(m->memory + gpa, bytes, size);
	} else {
		memcpy(bytes, m->memory + gpa, size);
	}
	return 0;
}

static void close_machine(struct machine *m)
{
	for (unsigned i = 0; i < VCPUS; i++) {
		if (m->fds[i] > 0) {
			close(m->fds[i]);
		}
	}
	if (m->memory && m->memory != MAP_FAILED) {
		munmap(m->memory, MEMORY_BYTES);
	}
	if (m->vm > 0) {
		close(m->vm);
	}
	if (m->kvm > 0) {
		close(m->kvm);
	}
}

/* -1, with the reason as a skip, where this machine has no KVM for us. */
static int open_machine(struct machine *m)
{
	static char why[96];
	struct kvm_pit_config pit = { .flags = 0 };
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_BYTES };

	memset(m, 0, sizeof(*m));
	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	m->vm = m->kvm < 0 ? -1 : ioctl(m->kvm, KVM_CREATE_VM, 0);
	if (m->vm < 0) {
		snprintf(why, sizeof(why), "/dev/kvm: %s", strerror(errno));
		gclk_test_skip(why);
		close_machine(m);
		return -1;
	}
	m->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	region.userspace_addr = (uint64_t)(uintptr_t)m->memory;
	if (m->memory == MAP_FAILED || ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
	    ioctl(m->vm, KVM_CREATE_IRQCHIP, 0) < 0 ||
	    ioctl(m->vm, KVM_CREATE_PIT2, &pit) < 0 ||
	    ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
		snprintf(why, sizeof(why), "no VM with a PIT: %s", strerror(errno));
		gclk_test_skip(why);
		close_machine(m);
		return -1;
	}
	m->k = (struct gclk_kvm){ .vm = m->vm, .irqchip = 1, .pit = 1, .memory = access_memory,
				  .memory_context = m, .vcpus = m->fds, .n_vcpus = VCPUS };
	return 0;
}

/* What guests are given: deadline timers, TSC_ADJUST, the paravirtual clock. */
static int set_cpuid_but(const struct machine *m, int fd, uint32_t leaf7_ebx_without)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) +
					     100 * sizeof(struct kvm_cpuid_entry2));
	int r = -1;

	cpuid->nent = 100;
	if (ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
		for (unsigned i = 0; i < cpuid->nent; i++) {
			if (cpuid->entries[i].function == 1) {
				cpuid->entries[i].ecx |= 1u << 24;	/* a capability of its own */
			}
			if (cpuid->entries[i].function == 7) {
				cpuid->entries[i].ebx &= ~leaf7_ebx_without;
			}
		}
		r = ioctl(fd, KVM_SET_CPUID2, cpuid);
	}
	free(cpuid);
	return r;
}

static int set_cpuid(const struct machine *m, int fd)
{
	return set_cpuid_but(m, fd, 0);
}

static int set_cpuid_without_adjust(const struct machine *m, int fd)
{
	return set_cpuid_but(m, fd, 1u << 1);
}

static int make_vcpus(struct machine *m)
{
	struct kvm_lapic_state page;
	uint32_t spiv = 0x1ff, lvtt = 0x10000;

	for (unsigned i = 0; i < VCPUS; i++) {
		m->fds[i] = ioctl(m->vm, KVM_CREATE_VCPU, i);
		if (m->fds[i] < 0 || set_cpuid(m, m->fds[i]) < 0 ||
		    ioctl(m->fds[i], KVM_GET_LAPIC, &page) < 0) {
			return -1;
		}
		memcpy(page.regs + APIC_SPIV, &spiv, 4);
		memcpy(page.regs + APIC_LVTT, &lvtt, 4);
		if (ioctl(m->fds[i], KVM_SET_LAPIC, &page) < 0) {
			return -1;
		}
	}
	return 0;
}

static int copy_pages(const struct machine *from, const struct machine *to)
{
	struct kvm_lapic_state page;

	for (unsigned i = 0; i < VCPUS; i++) {
		if (ioctl(from->fds[i], KVM_GET_LAPIC, &page) < 0 ||
		    ioctl(to->fds[i], KVM_SET_LAPIC, &page) < 0) {
			return -1;
		}
	}
	memcpy(to->memory, from->memory, MEMORY_BYTES);
	return 0;
}

static int set_msr(int fd, uint32_t index, uint64_t value)
{
	struct gclk_kvm_one_msr msr = { .nmsrs = 1, .entry = { .index = index, .data = value } };

	return ioctl(fd, KVM_SET_MSRS, &msr) == 1 ? 0 : -1;
}

static int set_timer(int fd, uint32_t lvtt, uint32_t initial)
{
	struct kvm_lapic_state page;
	uint32_t divide = 3;

	if (ioctl(fd, KVM_GET_LAPIC, &page) < 0) {
		return -1;
	}
	memcpy(page.regs + APIC_LVTT, &lvtt, 4);
	memcpy(page.regs + APIC_TDCR, &divide, 4);
	memcpy(page.regs + APIC_TMICT, &initial, 4);
	memcpy(page.regs + APIC_TMCCT, &initial, 4);
	return ioctl(fd, KVM_SET_LAPIC, &page);
}

struct world {
	struct machine a, b;
	struct gclk_host host;
	struct gclk_state *st;
	struct gclk_plan *plan;
	struct gclk_policy policy;
	struct gclk_disagreement disagreement;
	struct gclk_error error;
};

/* @khz: the guest's frequency; 0: the host's. -1 where it cannot be had, without a word. */
static int world_begin_khz(struct world *w, uint32_t khz)
{
	memset(w, 0, sizeof(*w));
	if (open_machine(&w->a) < 0) {
		return -1;
	}
	if (khz && (ioctl(w->a.vm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TSC_CONTROL) <= 0 ||
		    ioctl(w->a.vm, KVM_SET_TSC_KHZ, khz) < 0)) {
		close_machine(&w->a);
		return -1;
	}
	if (open_machine(&w->b) < 0) {
		close_machine(&w->a);
		return -1;
	}
	CU_ASSERT_FATAL(make_vcpus(&w->a) == 0);
	w->st = gclk_state_new(VCPUS);
	w->plan = gclk_plan_new(VCPUS);
	w->policy = gclk_policy_default;
	CU_ASSERT_FATAL(gclk_host_read(&w->host, 0, &w->error) == 0);
	return 0;
}

static int world_begin(struct world *w)
{
	return world_begin_khz(w, 0);
}

static void world_end(struct world *w)
{
	gclk_state_free(w->st);
	gclk_plan_free(w->plan);
	close_machine(&w->a);
	close_machine(&w->b);
}

static int plan_and_prepare(struct world *w)
{
	struct gclk_when when;
	int r;

	gclk_host_sample(&w->host, NULL);
	gclk_kvm_when(w->st, w->b.k.source, &w->host, &when);
	r = gclk_plan(w->st, &gclk_kvm_carrier, &w->host, &when, &w->disagreement, &w->policy,
		      w->plan, &w->error);
	r = r ? r : gclk_kvm_prepare(&w->b.k, w->plan, &w->error);
	if (r == 0) {
		CU_ASSERT_FATAL(make_vcpus(&w->b) == 0 && copy_pages(&w->a, &w->b) == 0);
	}
	return r;
}

static int restore(struct world *w)
{
	return gclk_kvm_restore(&w->b.k, w->st, &w->host, &w->disagreement, &w->policy, w->plan,
				&w->error);
}

static void say(const struct world *w, int r)
{
	printf("\n    %d: %s: %s\n", r, w->error.where, w->error.message);
	for (unsigned i = 0; i < w->plan->findings.n; i++) {
		printf("    %s: %s\n", w->plan->findings.items[i].info->id,
		       w->plan->findings.items[i].message);
	}
}

static int64_t now_real(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
}

/* Does this kernel honour a TSC that is written? Asked in a way of its own. */
static int honours_tsc(const struct machine *m)
{
	struct gclk_kvm_bracket a, b;

	if (set_msr(m->fds[0], 0x10, UINT64_C(1) << 50) < 0 ||
	    gclk_kvm_read_tsc(&m->k, 0, 1, &a, NULL) < 0 ||
	    set_msr(m->fds[0], 0x10, UINT64_C(1) << 51) < 0 ||
	    gclk_kvm_read_tsc(&m->k, 0, 1, &b, NULL) < 0) {
		return 0;
	}
	return b.value - a.value > UINT64_C(1) << 49;
}

/* How long the call takes that tells and sets a LAPIC timer. */
static int64_t duration_of_call(const struct machine *m)
{
	struct kvm_lapic_state page;
	int64_t before = gclk_kvm_axis_now(&m->k);

	CU_ASSERT(ioctl(m->fds[0], KVM_GET_LAPIC, &page) == 0);
	return gclk_kvm_axis_now(&m->k) - before;
}

/*
 * A vCPU enters the guest and leaves it: out 5, al in real mode. What the kernel does on the
 * way, to clock pages above all, is what we are after.
 */
static int enter_guest(const struct machine *m, unsigned i)
{
	static const uint8_t code[] = { 0xe6, 0x05, 0xeb, 0xfc };
	int size = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), r = -1;
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = { .rip = 0x3000, .rflags = 2 };
	struct kvm_run *run;
	struct kvm_sregs sregs;

	memcpy(m->memory + 0x3000, code, sizeof(code));
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[i], 0);
	if (run == MAP_FAILED) {
		return -1;
	}
	if (ioctl(m->fds[i], KVM_GET_SREGS, &sregs) == 0) {
		sregs.cs.base = 0;
		sregs.cs.selector = 0;
		if (ioctl(m->fds[i], KVM_SET_SREGS, &sregs) == 0 &&
		    ioctl(m->fds[i], KVM_SET_REGS, &regs) == 0 &&
		    ioctl(m->fds[i], KVM_SET_MP_STATE, &state) == 0 &&
		    ioctl(m->fds[i], KVM_RUN, 0) == 0 && run->exit_reason == KVM_EXIT_IO) {
			r = 0;
		}
	}
	munmap(run, (size_t)size);
	return r;
}

static int enter_all(const struct machine *m)
{
	int r = 0;

	for (unsigned i = 0; i < VCPUS; i++) {
		r |= enter_guest(m, i);
	}
	return r;
}

static const char *const force[] = { "tsc-not-honoured", NULL };

GCLK_TEST(devkvm, capture_changes_nothing_and_is_whole)
{
	struct world w;
	struct gclk_state *again;
	int r;

	if (world_begin(&w) < 0) {
		return;
	}
	again = gclk_state_new(VCPUS);
	set_msr(w.a.fds[0], 0x4b564d01, 0x1001);
	r = gclk_kvm_capture(&w.a.k, &w.host, w.st, &w.error);
	if (r < 0) {
		say(&w, r);
	}
	CU_ASSERT(r == 0);
	CU_ASSERT(gclk_kvm_capture(&w.a.k, &w.host, again, &w.error) == 0);
	GCLK_EQ(w.st->vcpu[0].system_time_msr, 0x1001);
	CU_ASSERT(GCLK_HAS(tsc, &w.st->tsc[1], deadline_ticks));
	CU_ASSERT(GCLK_HAS(pit, &w.st->pit, reinject));
	CU_ASSERT(again->tsc[0].value_ticks > w.st->tsc[0].value_ticks);
	CU_ASSERT(again->kvmclock.clock_ns > w.st->kvmclock.clock_ns);
	/* one instant: TSC and wall clock have gone on alike between the two */
	int64_t ticks = (int64_t)(again->tsc[0].value_ticks - w.st->tsc[0].value_ticks);
	int64_t ns = (int64_t)(again->kvmclock.realtime_ns - w.st->kvmclock.realtime_ns);
	int64_t apart = ticks * 1000000 / (int64_t)w.host.tsc_khz_kernel - ns;

	CU_ASSERT(apart > -20000 && apart < 20000);
	gclk_state_free(again);
	world_end(&w);
}

/* Where TSC writes have no effect it is said, and nothing else is claimed. */
GCLK_TEST(devkvm, restore_is_right_or_says_that_it_is_not)
{
	struct world w;
	struct gclk_kvm_bracket b;
	int r;

	if (world_begin(&w) < 0) {
		return;
	}
	CU_ASSERT(gclk_kvm_capture(&w.a.k, &w.host, w.st, &w.error) == 0);
	/* a guest of another host: its TSC is not this host's */
	for (unsigned i = 0; i < VCPUS; i++) {
		w.st->tsc[i].value_ticks += 5000000000000ull;
	}
	CU_ASSERT(plan_and_prepare(&w) == 0);
	int honours = honours_tsc(&w.b);

	r = restore(&w);
	printf(honours ? " (TSC writes take effect here)" : " (TSC writes have no effect here)");
	if (!honours) {
		CU_ASSERT(r == -GCLK_UNPROVEN && !strcmp(w.error.where, "tsc"));
		world_end(&w);
		return;
	}
	if (r < 0) {
		say(&w, r);
	}
	CU_ASSERT(r == 0);
	CU_ASSERT(gclk_kvm_read_tsc(&w.b.k, 1, 5, &b, NULL) == 0);
	int64_t since = now_real() - (int64_t)w.st->kvmclock.realtime_ns;
	int64_t off = (int64_t)(b.value - w.st->tsc[1].value_ticks) * 1000 /
		      (int64_t)(w.host.tsc_khz_kernel / 1000) - since;

	CU_ASSERT(off < 100000 && off > -1000000);
	world_end(&w);
}

/* All but the TSC, by force where it must be: clock, MSRs, PIT, LAPIC. */
GCLK_TEST(devkvm, everything_else_arrives)
{
	struct world w;
	struct gclk_state *now = gclk_state_new(VCPUS);
	struct kvm_pit_state2 pit;
	int64_t since, off, call_ns;
	int r;

	if (world_begin(&w) < 0) {
		gclk_state_free(now);
		return;
	}
	w.policy.force = force;
	set_msr(w.a.fds[0], 0x4b564d01, 0x1001);
	set_msr(w.a.fds[1], 0x4b564d01, 0x1041);
	set_msr(w.a.fds[1], 0xc0000103, 77);
	set_msr(w.a.fds[1], 0x4b564d03, 0x2001);
	CU_ASSERT(set_timer(w.a.fds[0], 0x20033, 50000000) == 0);
	CU_ASSERT(ioctl(w.a.vm, KVM_GET_PIT2, &pit) == 0);
	pit.channels[0].mode = 2;
	pit.channels[0].count = 11932;
	pit.channels[2].mode = 3;
	pit.channels[2].count = 1000;
	CU_ASSERT(ioctl(w.a.vm, KVM_SET_PIT2, &pit) == 0);
	CU_ASSERT(gclk_kvm_capture(&w.a.k, &w.host, w.st, &w.error) == 0);
	usleep(30000);
	CU_ASSERT(plan_and_prepare(&w) == 0);
	r = restore(&w);
	if (r < 0) {
		say(&w, r);
	}
	CU_ASSERT(r == 0);
	CU_ASSERT(gclk_kvm_capture(&w.b.k, &w.host, now, &w.error) == 0);
	GCLK_EQ(now->vcpu[1].system_time_msr, 0x1041);
	GCLK_EQ(now->vcpu[1].steal_time_msr, 0x2001);
	GCLK_EQ(now->tsc[1].aux, 77);
	GCLK_EQ(now->pit.channels[0].count, 11932);
	GCLK_EQ(now->pit.channels[2].mode, 3);
	since = (int64_t)(now->kvmclock.realtime_ns - w.st->kvmclock.realtime_ns);
	off = (int64_t)(now->kvmclock.clock_ns - w.st->kvmclock.clock_ns) - since;
	if (off < -5000 || off > 5000) {
		printf("\n    kvmclock is %" PRId64 " ns off after %" PRId64 "\n", off, since);
		say(&w, 0);
	}
	CU_ASSERT(off >= -5000 && off <= 5000);
	/* the LAPIC's grid, on the axis that went on; as exact as a call is short */
	call_ns = duration_of_call(&w.b);
	off = (now->lapic[0].expiry_ns - w.st->lapic[0].expiry_ns) % 800000000;
	off = off > 400000000 ? off - 800000000 : off;
	if (off < -20000 - 3 * call_ns || off > 20000 + 3 * call_ns) {
		printf("\n    LAPIC is %" PRId64 " ns off its grid, a call takes %" PRId64 "\n", off,
		       call_ns);
	}
	CU_ASSERT(off >= -20000 - 3 * call_ns && off <= 20000 + 3 * call_ns);
	gclk_state_free(now);
	world_end(&w);
}

/* Facts that the simulated kernel is built on, asked of this one. */
GCLK_TEST(devkvm, the_simulated_kernel_is_like_this_one)
{
	struct machine m;
	struct kvm_lapic_state page;
	struct kvm_clock_data clock = { .flags = 0x10 };
	struct kvm_device_attr attr = { .group = 0, .attr = 77 };
	uint32_t value;

	if (open_machine(&m) < 0) {
		return;
	}
	CU_ASSERT_FATAL(make_vcpus(&m) == 0);
	/* an unknown vCPU attribute, a flag that does not exist, a mark without a page */
	CU_ASSERT(ioctl(m.fds[0], KVM_HAS_DEVICE_ATTR, &attr) < 0 && errno == ENXIO);
	CU_ASSERT(ioctl(m.vm, KVM_SET_CLOCK, &clock) < 0 && errno == EINVAL);
	CU_ASSERT(ioctl(m.fds[0], KVM_KVMCLOCK_CTRL, 0) < 0 && errno == EINVAL);
	/* TMCCT beyond TMICT starts at TMICT; the count goes down by units */
	CU_ASSERT(set_timer(m.fds[0], 0x33, 100000000) == 0);
	CU_ASSERT(ioctl(m.fds[0], KVM_GET_LAPIC, &page) == 0);
	memcpy(&value, page.regs + APIC_TMCCT, 4);
	CU_ASSERT(value > 99000000 && value <= 100000000);
	/* a deadline is taken and forgotten outside its mode, kept within */
	CU_ASSERT(set_msr(m.fds[0], 0x6e0, UINT64_C(1) << 60) == 0);
	struct gclk_tsc tsc = { 0 };
	struct gclk_vcpu vcpu = { 0 };

	CU_ASSERT(gclk_kvm_read_msrs(&m.k, 0, &tsc, &vcpu, NULL) == 0);
	GCLK_EQ(tsc.deadline_ticks, 0);
	CU_ASSERT(set_timer(m.fds[0], 0x40033, 0) == 0);
	CU_ASSERT(set_msr(m.fds[0], 0x6e0, UINT64_C(1) << 60) == 0);
	CU_ASSERT(gclk_kvm_read_msrs(&m.k, 0, &tsc, &vcpu, NULL) == 0);
	GCLK_EQ(tsc.deadline_ticks, UINT64_C(1) << 60);
	close_machine(&m);
}

/*
 * What a guest would read, from the kernel's own pair of clock and TSC: the two stand to each
 * other as they did, and both to the wall clock.
 */
GCLK_TEST(devkvm, clock_and_tsc_agree_over_moves)
{
	int64_t worst_apart = 0, worst_off = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < 20; i++) {
		struct kvm_clock_data clock;
		struct gclk_kvm_bracket b;
		uint64_t offset, guest, bound = 0;
		int64_t apart, off;
		struct world w;
		int r;

		if (world_begin(&w) < 0) {
			return;
		}
		CU_ASSERT(gclk_kvm_capture(&w.a.k, &w.host, w.st, &w.error) == 0);
		for (unsigned v = 0; v < VCPUS; v++) {
			w.st->tsc[v].value_ticks += UINT64_C(700000000000);
		}
		usleep((useconds_t)gclk_random_below(20000));
		CU_ASSERT(plan_and_prepare(&w) == 0);
		if ((r = restore(&w)) < 0) {
			CU_ASSERT(r == -GCLK_UNPROVEN && !strcmp(w.error.where, "tsc"));
			world_end(&w);
			gclk_test_skip("this kernel does not honour TSC writes");
			return;
		}
		CU_ASSERT(gclk_kvm_get_clock(&w.b.k, &clock, &b, NULL) == 0);
		CU_ASSERT(gclk_kvm_get_offset(&w.b.k, 1, &offset, NULL) == 0);
		if (!gclk_kvm_clock_is_paired(&clock)) {
			world_end(&w);
			gclk_test_skip("this kernel's master clock is off");
			return;
		}
		guest = clock.host_tsc + offset - w.st->tsc[1].value_ticks;
		off = (int64_t)(clock.clock - w.st->kvmclock.clock_ns);
		apart = off - (int64_t)gclk_muldiv_floor_sat(guest, 1000000,
							     w.host.tsc_khz_kernel);
		off -= (int64_t)(clock.realtime - w.st->kvmclock.realtime_ns);
		for (unsigned j = 0; j < w.plan->n_bounds; j++) {
			if (!strcmp(w.plan->bounds[j].clock, "kvmclock")) {
				bound = w.plan->bounds[j].bound_ns;
			}
		}
		CU_ASSERT(off <= (int64_t)bound && -off <= (int64_t)bound);
		apart = apart < 0 ? -apart : apart;
		off = off < 0 ? -off : off;
		worst_apart = GCLK_MAX(worst_apart, apart);
		worst_off = GCLK_MAX(worst_off, off);
		n++;
		CU_ASSERT(!(clock.flags & CLOCK_IS_STABLE) || apart <= 2);
		world_end(&w);
	}
	printf(" (%u moves: %" PRId64 " ns apart, %" PRId64 " ns off at most)", n, worst_apart,
	       worst_off);
}

/* A guest that runs, is moved and runs again: what its own clock page says, vCPU by vCPU. */
static void run_move_run(struct world *w)
{
	struct gclk_vcpu page[VCPUS];
	int64_t off;
	int r;

	for (unsigned i = 0; i < VCPUS; i++) {
		CU_ASSERT(set_msr(w->a.fds[i], 0x4b564d01, 0x1001 + 64 * i) == 0);
	}
	CU_ASSERT_FATAL(enter_all(&w->a) == 0);
	usleep(3000);
	CU_ASSERT(gclk_kvm_capture(&w->a.k, &w->host, w->st, &w->error) == 0);
	for (unsigned i = 0; i < VCPUS; i++) {
		w->st->tsc[i].value_ticks += UINT64_C(700000000000);
		w->st->vcpu[i].pvclock_tsc_ticks += UINT64_C(700000000000);
	}
	CU_ASSERT(plan_and_prepare(w) == 0);
	if ((r = restore(w)) < 0) {
		if (r != -GCLK_UNPROVEN || strcmp(w->error.where, "tsc")) {
			say(w, r);
			CU_FAIL("restore");
		}
		gclk_test_skip("this kernel does not honour TSC writes");
		return;
	}
	CU_ASSERT_FATAL(enter_all(&w->b) == 0);
	CU_ASSERT(w->b.memory[0x1000 + 29] & 2);		/* GUEST_STOPPED */
	usleep(60000);
	if ((r = gclk_kvm_verify(&w->b.k, w->plan, &w->error)) < 0) {
		say(w, r);
	}
	CU_ASSERT(r == 0);
	memset(page, 0, sizeof(page));
	for (unsigned i = 0; i < VCPUS; i++) {
		GCLK_SET(vcpu, &page[i], system_time_msr, 0x1001 + 64 * i);
		gclk_kvm_capture_pages(&w->b.k, &page[i]);
		/* since the capture, on the guest's TSC and on its page: alike */
		off = (int64_t)(page[i].pvclock_system_ns - w->st->kvmclock.clock_ns) -
		      (int64_t)gclk_muldiv_floor_sat(page[i].pvclock_tsc_ticks -
						     w->st->tsc[i].value_ticks, GCLK_NS_PER_S,
						     w->st->tsc[0].frequency_hz);
		if (off < -2 || off > 2) {
			printf("\n    vCPU %u: page %" PRId64 " ns from its TSC\n", i, off);
		}
		CU_ASSERT(off >= -2 && off <= 2);
	}
}

GCLK_TEST(devkvm, guest_runs_on)
{
	struct world w;

	if (world_begin(&w) == 0) {
		run_move_run(&w);
		world_end(&w);
	}
}

/* vCPUs whose TSCs are not in step keep their distance, to the tick. */
GCLK_TEST(devkvm, spread_of_tscs_is_kept)
{
	uint64_t a[VCPUS], b[VCPUS];
	struct world w;
	int r;

	if (world_begin(&w) < 0) {
		return;
	}
	CU_ASSERT(gclk_kvm_probe(&w.a.k, &w.error) == 0);
	CU_ASSERT(gclk_kvm_get_offset(&w.a.k, 0, &a[0], NULL) == 0);
	CU_ASSERT(gclk_kvm_set_offset(&w.a.k, 1, a[0] - 987654321, NULL) == 0);
	CU_ASSERT(gclk_kvm_get_offset(&w.a.k, 1, &a[1], NULL) == 0);
	CU_ASSERT(gclk_kvm_capture(&w.a.k, &w.host, w.st, &w.error) == 0);
	CU_ASSERT(plan_and_prepare(&w) == 0);
	r = restore(&w);
	if (r == 0) {
		CU_ASSERT(a[0] - a[1] == 987654321);
		CU_ASSERT(gclk_kvm_get_offset(&w.b.k, 0, &b[0], NULL) == 0);
		CU_ASSERT(gclk_kvm_get_offset(&w.b.k, 1, &b[1], NULL) == 0);
		GCLK_EQ(b[0] - b[1], a[0] - a[1]);
		GCLK_EQ(w.st->tsc[0].value_ticks - w.st->tsc[1].value_ticks, a[0] - a[1]);
	} else {
		CU_ASSERT(r == -GCLK_UNPROVEN && !strcmp(w.error.where, "tsc"));
		gclk_test_skip("this kernel does not honour TSC writes");
	}
	world_end(&w);
}

static void take_tick(const struct machine *m)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };

	CU_ASSERT(ioctl(m->vm, KVM_GET_IRQCHIP, &chip) == 0);
	chip.chip.pic.irr &= 0xfe;
	CU_ASSERT(ioctl(m->vm, KVM_SET_IRQCHIP, &chip) == 0);
}

/*
 * When the kernel's PIT next ticks, by the 8259 whose request it raises: no guest runs, so
 * it stays up once it is. The instant at which it has been seen: late at most, never early.
 */
static int64_t see_tick(const struct machine *m, useconds_t between_us, uint64_t *ret_width)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	int64_t before = 0, after = 0, give_up = gclk_kvm_axis_now(&m->k) + GCLK_NS_PER_S;

	do {
		if (between_us) {
			usleep(between_us);
		}
		before = after;
		if (ioctl(m->vm, KVM_GET_IRQCHIP, &chip) < 0) {
			return 0;
		}
		after = gclk_kvm_axis_now(&m->k);
	} while (!(chip.chip.pic.irr & 1) && after < give_up);
	*ret_width = (uint64_t)(after - before);
	take_tick(m);
	return after < give_up ? after : 0;
}

#define PIT_COUNT 11932		/* 100 Hz */
#define PIT_PERIOD_NS INT64_C(10000159)
#define TICKS 16
#define TOGETHER_NS 100000

/* From a grid to a tick, to the nearer side. */
static int64_t off_grid(int64_t grid, int64_t tick)
{
	int64_t off = gclk_floor_mod(tick - grid, PIT_PERIOD_NS);

	return off > PIT_PERIOD_NS / 2 ? off - PIT_PERIOD_NS : off;
}

/*
 * A tick of the grid that the PIT keeps. On a busy machine the kernel's thread that raises
 * it, and we who look, come late by milliseconds: those that were in time lie together.
 */
static int64_t see_grid(const struct machine *m, uint64_t *ret_width)
{
	int64_t ticks[TICKS], best = 0;
	unsigned most = 0;

	take_tick(m);
	see_tick(m, 200, ret_width);
	for (unsigned i = 0; i < TICKS; i++) {
		usleep(PIT_PERIOD_NS / 1000 - 700);
		ticks[i] = see_tick(m, 0, ret_width);
	}
	for (unsigned i = 0; i < TICKS; i++) {
		unsigned n = 0;

		for (unsigned j = 0; j < TICKS; j++) {
			int64_t off = off_grid(ticks[i], ticks[j]);

			n += off >= 0 && off < TOGETHER_NS;	/* it is their first */
		}
		if (n > most) {
			most = n;
			best = ticks[i];
		}
	}
	return best;
}

static int start_pit(struct machine *m)
{
	struct kvm_reinject_control control = { .pit_reinject = 0 };
	struct kvm_pit_state2 pit;
	uint64_t width;

	if (ioctl(m->vm, KVM_GET_PIT2, &pit) < 0 ||
	    ioctl(m->vm, KVM_REINJECT_CONTROL, &control) < 0) {
		return -1;
	}
	m->k.pit_discards = 1;		/* else the second tick waits for the first one's end */
	pit.channels[0].count = PIT_COUNT;
	pit.channels[0].mode = 2;
	pit.channels[0].gate = 1;
	pit.channels[0].rw_mode = 3;
	if (ioctl(m->vm, KVM_SET_PIT2, &pit) < 0) {
		return -1;
	}
	m->k.pit_edge_ns = see_grid(m, &width);
	m->k.pit_edge_known = m->k.pit_edge_ns != 0;
	m->k.pit_edge_count = PIT_COUNT;
	m->k.pit_edge_mode = 2;
	return m->k.pit_edge_known ? 0 : -1;
}

/* More runs than there are processors for. */
static int is_busy(void)
{
	FILE *file = fopen("/proc/loadavg", "re");
	unsigned load = 0;
	int n = file ? fscanf(file, "%u", &load) : 0;

	if (file) {
		fclose(file);
	}
	return n == 1 && load >= (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

/* How far a PIT that was moved ticks from its grid; -1: it could not be tried. */
static int64_t move_a_pit(struct world *w, struct gclk_kvm_pit_timed *ret, uint64_t *ret_width)
{
	int64_t now, due, off;

	CU_ASSERT_FATAL(start_pit(&w->a) == 0);
	CU_ASSERT(gclk_kvm_capture(&w->a.k, &w->host, w->st, &w->error) == 0);
	usleep((useconds_t)gclk_random_below(30000));
	CU_ASSERT_FATAL(plan_and_prepare(w) == 0 && restore(w) == 0);
	now = gclk_kvm_axis_now(&w->b.k) - w->b.k.axis_ns;
	CU_ASSERT_FATAL(gclk_kvm_pit_due(&w->b.k, w->plan, now, &due));
	if (due - now > GCLK_NS_PER_MS) {
		usleep((useconds_t)((due - now - GCLK_NS_PER_MS) / 1000));
	}
	if (gclk_kvm_time_pit(&w->b.k, w->plan, ret, &w->error) < 0) {
		return -1;	/* busy elsewhere until that one had passed */
	}
	CU_ASSERT(!ret->reprogrammed);
	off = off_grid(w->a.k.pit_edge_ns, see_grid(&w->b, ret_width));
	return off < 0 ? -off : off;
}

/*
 * On a busy machine that notices ticks late, by milliseconds all of them, the best of several
 * moves does; one on which none is noticed in time tells nothing.
 */
GCLK_TEST(devkvm, pit_is_put_back_into_phase)
{
	int64_t worst = 0, best = INT64_MAX;
	unsigned n = 0;

	for (unsigned i = 0; i < 16 && (i < 4 || best >= TOGETHER_NS); i++) {
		struct gclk_kvm_pit_timed timed = { 0 };
		uint64_t width = 0;
		struct world w;
		int64_t off;

		if (world_begin(&w) < 0) {
			return;
		}
		w.policy.force = force;
		off = move_a_pit(&w, &timed, &width);
		if (off >= 0) {
			worst = GCLK_MAX(worst, off);
			best = GCLK_MIN(best, off);
			n++;
		}
		world_end(&w);
	}
	if (best >= TOGETHER_NS && is_busy()) {
		gclk_test_skip("this machine is too busy to notice ticks when they come");
		return;
	}
	CU_ASSERT(n > 0 && best < TOGETHER_NS);
	printf(" (%u moves: ticks within %" PRId64 "..%" PRId64 " ns of the grid)", n, best, worst);
}

/* Frequencies that the kernel has to scale to, below the host's and above. */
GCLK_TEST(scaling, guest_runs_on_at_its_own_rate)
{
	static const uint32_t wanted[] = { 2208000, 3499912, 1500000, 2345678 };
	unsigned n = 0;

	for (unsigned i = 0; i < GCLK_COUNT(wanted); i++) {
		struct world w;

		if (world_begin_khz(&w, wanted[i]) < 0) {
			continue;
		}
		run_move_run(&w);
		GCLK_EQ(w.st->tsc[0].frequency_hz, (uint64_t)wanted[i] * 1000);
		n += w.st->tsc[0].ratio != UINT64_C(1) << 48;
		world_end(&w);
	}
	if (n == 0) {
		gclk_test_skip("this kernel does not scale TSCs");
	}
}

/*
 * What kernels take without effect (docs/kvm-backend.md): that this one does, and that the
 * library notices.
 */

static int has_finding(const struct gclk_plan *plan, const char *id)
{
	for (unsigned i = 0; i < plan->findings.n; i++) {
		if (!strcmp(plan->findings.items[i].info->id, id)) {
			return 1;
		}
	}
	return 0;
}

static const char *const any_rate[] = { "tsc-not-honoured", "tsc-rate-not-honoured", NULL };

static int begin_captured(struct world *w)
{
	if (world_begin(w) < 0) {
		return -1;
	}
	w->policy.force = any_rate;
	CU_ASSERT_FATAL(gclk_kvm_capture(&w->a.k, &w->host, w->st, &w->error) == 0);
	return 0;
}

static void want_khz(struct world *w, uint32_t khz)
{
	for (unsigned i = 0; i < VCPUS; i++) {
		w->st->tsc[i].frequency_hz = (uint64_t)khz * 1000;
		GCLK_UNSET(tsc, &w->st->tsc[i], measured_hz);
	}
}

static int move_on(struct world *w)
{
	int r = plan_and_prepare(w);

	return r ? r : restore(w);
}

/* Guest ticks in a thousand host ticks, over 20 ms. */
static uint64_t permille_of_host(const struct machine *m)
{
	struct gclk_kvm_bracket a, b;

	CU_ASSERT(gclk_kvm_read_tsc(&m->k, 0, 5, &a, NULL) == 0);
	usleep(20000);
	CU_ASSERT(gclk_kvm_read_tsc(&m->k, 0, 5, &b, NULL) == 0);
	return ((b.value - a.value) * 1000 + (b.before - a.before) / 2) / (b.before - a.before);
}

GCLK_TEST(devkvm, frequency_that_is_only_tolerated)
{
	struct world w;

	if (begin_captured(&w) == 0) {
		want_khz(&w, w.host.tsc_khz_kernel + w.host.tsc_khz_kernel / 20000);
		GCLK_EQ(move_on(&w), 0);
		CU_ASSERT(has_finding(w.plan, "tsc-rate-tolerated"));
		GCLK_EQ(permille_of_host(&w.b), 1000);
		world_end(&w);
	}
}

/* EINVAL, and GET_TSC_KHZ then tells what was refused. */
GCLK_TEST(devkvm, frequency_below_the_host)
{
	struct world w;
	uint32_t khz;

	if (begin_captured(&w) < 0) {
		return;
	}
	khz = w.host.tsc_khz_kernel;
	want_khz(&w, khz / 2);
	if (ioctl(w.a.vm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0) {
		CU_ASSERT(ioctl(w.a.fds[0], KVM_SET_TSC_KHZ, khz / 2) < 0);
		GCLK_EQ((uint32_t)ioctl(w.a.fds[0], KVM_GET_TSC_KHZ, 0), khz / 2);
		GCLK_EQ(move_on(&w), -GCLK_UNPROVEN);
		CU_ASSERT(has_finding(w.plan, "tsc-frequency-refused"));
		GCLK_EQ((uint32_t)ioctl(w.b.fds[0], KVM_GET_TSC_KHZ, 0), khz);
	}
	world_end(&w);
}

/* Catch-up only; and the call for the VM, after which all TSCs stand at 0, is not made. */
GCLK_TEST(devkvm, frequency_above_the_host)
{
	struct world w;

	if (begin_captured(&w) < 0) {
		return;
	}
	want_khz(&w, w.host.tsc_khz_kernel * 3 / 2);
	if (ioctl(w.a.vm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0) {
		w.policy.force = NULL;
		GCLK_EQ(plan_and_prepare(&w), -GCLK_REFUSED);
		CU_ASSERT(has_finding(w.plan, "tsc-rate-not-honoured"));
		w.policy.force = any_rate;
		GCLK_EQ(move_on(&w), 0);
		CU_ASSERT(has_finding(w.plan, "tsc-catches-up"));
		CU_ASSERT(permille_of_host(&w.b) > 990);
	}
	world_end(&w);
}

/* Leaf 7 without TSC_ADJUST: the MSR takes what is written, and on most kernels reads 0. */
GCLK_TEST(devkvm, adjust_without_its_cpuid)
{
	struct gclk_kvm_one_msr adjust = { .nmsrs = 1, .entry.index = 0x3b };
	struct world w;
	int r;

	if (begin_captured(&w) < 0) {
		return;
	}
	CU_ASSERT(plan_and_prepare(&w) == 0);
	CU_ASSERT(set_cpuid_without_adjust(&w.b, w.b.fds[0]) == 0);
	GCLK_SET(tsc, &w.st->tsc[0], adjust_ticks, -54321);
	r = restore(&w);
	if (r == 0) {		/* a kernel that keeps it all the same */
		CU_ASSERT(ioctl(w.b.fds[0], KVM_GET_MSRS, &adjust) == 1);
		GCLK_EQ(adjust.entry.data, (uint64_t)-54321);
	} else {
		CU_ASSERT(strstr(w.error.where, "adjust") != NULL);
	}
	world_end(&w);
}

GCLK_TEST(devkvm, deadline_of_a_timer_in_another_mode)
{
	struct world w;

	if (begin_captured(&w) < 0) {
		return;
	}
	GCLK_SET(tsc, &w.st->tsc[0], deadline_ticks, w.st->tsc[0].value_ticks + (UINT64_C(1) << 50));
	GCLK_EQ(move_on(&w), -GCLK_UNPROVEN);
	CU_ASSERT(strstr(w.error.where, "deadline") != NULL);
	world_end(&w);
}

/* The kernel takes any PIT; the library does not write one that cannot be. */
GCLK_TEST(devkvm, pit_that_no_pit_can_be)
{
	struct kvm_pit_state2 pit;
	struct world w;

	if (begin_captured(&w) < 0) {
		return;
	}
	CU_ASSERT(ioctl(w.a.vm, KVM_GET_PIT2, &pit) == 0);
	pit.channels[1].rw_mode = 77;
	CU_ASSERT(ioctl(w.a.vm, KVM_SET_PIT2, &pit) == 0);
	GCLK_SET(pit_channel, &w.st->pit.channels[1], rw_mode, 77);
	CU_ASSERT(move_on(&w) < 0);
	CU_ASSERT(strstr(w.error.where, "pit.channels[1]") != NULL);
	world_end(&w);
}

/* SET_CLOCK adds nothing where the wall clock given lies ahead: no clock goes back for it. */
GCLK_TEST(devkvm, destination_whose_wall_clock_is_behind)
{
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b;
	struct world w;

	if (begin_captured(&w) < 0) {
		return;
	}
	w.disagreement.ns = 10 * GCLK_NS_PER_S;
	GCLK_EQ(move_on(&w), 0);
	CU_ASSERT(has_finding(w.plan, "gap-negative"));
	CU_ASSERT(gclk_kvm_get_clock(&w.b.k, &clock, &b, NULL) == 0);
	CU_ASSERT(clock.clock >= w.st->kvmclock.clock_ns &&
		  clock.clock < w.st->kvmclock.clock_ns + GCLK_NS_PER_S);
	world_end(&w);
}

/* GET_CLOCK's flags are 0 on a new VM, and what they are to be after the restore. */
GCLK_TEST(devkvm, flags_of_the_clock_come_with_its_first_value)
{
	struct kvm_clock_data clock;
	struct gclk_kvm_bracket b;
	struct world w;

	if (begin_captured(&w) < 0) {
		return;
	}
	CU_ASSERT(plan_and_prepare(&w) == 0);
	CU_ASSERT(gclk_kvm_get_clock(&w.b.k, &clock, &b, NULL) == 0);
	CU_ASSERT(!(clock.flags & CLOCK_IS_STABLE));
	GCLK_EQ(restore(&w), 0);
	CU_ASSERT(w.plan->state->kvmclock.flags == 0xe || has_finding(w.plan, "master-clock-lost"));
	world_end(&w);
}

/* CHECK_EXTENSION of the bus period tells nothing; what a timer counts does. */
GCLK_TEST(devkvm, bus_period_is_what_a_timer_counts)
{
	struct world w;
	int r;

	if (begin_captured(&w) < 0) {
		return;
	}
	GCLK_SET(virtual_clock, &w.st->virtual_clock, apic_bus_ns, 10);
	r = plan_and_prepare(&w);
	if (ioctl(w.a.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_APIC_BUS_CYCLES_NS) > 0) {
		GCLK_EQ(r, 0);
		GCLK_EQ(w.b.k.apic_bus_ns, 10);
		GCLK_EQ(restore(&w), 0);
	} else {
		GCLK_EQ(r, -GCLK_UNSUPPORTED);
	}
	world_end(&w);
}
