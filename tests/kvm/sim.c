/* SPDX-License-Identifier: MIT */
#include "sim.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/pvclock.h"
#include "core/util.h"

static const uint32_t known[] = {
	0x11, 0x12, 0x3b, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05,
	0x4b564d06, 0xc0000103, 0xc0000104, 0x6e0, 0x10,
	/* Hyper-V's, last */
	0x40000106, 0x40000107, 0x40000108, 0x40000118, 0x40000021, 0x40000010, 0x400000b0,
	0x400000b1, 0x400000b2, 0x400000b3, 0x400000b4, 0x400000b5, 0x400000b6, 0x400000b7,
};
#define N_KNOWN GCLK_COUNT(known)
#define FIRST_HYPERV 14

static uint64_t roll(struct sim *sim, uint64_t n)
{
	sim->random += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t z = sim->random;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % n;
}

/*
 * Truth
 */

static uint64_t host_tsc(const struct sim *sim)
{
	uint64_t hz = (uint64_t)sim->kernel.khz * 1000;

	hz += (uint64_t)((int64_t)hz / 1000000 * sim->kernel.ppb / 1000);
	return sim->tsc0 + gclk_muldiv_floor_sat(sim->now_ns, hz, GCLK_NS_PER_S);
}

static uint64_t mono(const struct sim *sim)
{
	return (uint64_t)sim->mono0_ns + sim->now_ns;
}

static int64_t real(const struct sim *sim)
{
	return sim->real0_ns + (int64_t)(sim->now_ns + sim->slept_ns);
}

uint64_t sim_guest_tsc(const struct sim *sim, uint32_t vcpu)
{
	return sim->kernel.ignores_tsc ? host_tsc(sim) :
					 gclk_tsc_guest_at(&sim->vcpus[vcpu].tsc, host_tsc(sim));
}

/*
 * TSC
 */

static void begin_or_join(struct sim *sim, struct sim_vcpu *v, uint64_t offset, uint64_t value,
			  int matched)
{
	sim->last_ns = mono(sim);
	sim->last_tsc = value;
	sim->last_khz = v->khz;
	sim->last_offset = offset;
	v->tsc.offset = sim->kernel.ignores_tsc ? 0 : offset;
	if (!matched) {
		sim->generation++;
		sim->cur_offset = offset;
		sim->n_matched = 0;
	} else if (v->generation != sim->generation) {
		sim->n_matched++;
	}
	v->generation = sim->generation;
}

/* MSR 0x10 by the host; value 0 and creation always synchronise. */
static void synchronize(struct sim *sim, struct sim_vcpu *v, uint64_t value, int by_user)
{
	uint64_t offset = value - gclk_tsc_scale(host_tsc(sim), v->tsc.ratio, v->tsc.frac_bits);
	uint64_t expected = sim->last_tsc + gclk_muldiv_floor_sat(mono(sim) - sim->last_ns,
								  v->khz, 1000000);
	uint64_t second = (uint64_t)v->khz * 1000;
	int join = value == 0;

	if (value != 0 && (sim->user_set_tsc || sim->kernel.snaps_first)) {
		join = value < expected + second && value + second > expected;
	}
	sim->user_set_tsc |= (uint8_t)by_user;
	join = join && sim->last_khz == v->khz;
	begin_or_join(sim, v, join ? sim->cur_offset : offset, value, join);
}

static void set_offset(struct sim *sim, struct sim_vcpu *v, uint64_t offset)
{
	int matched = sim->last_khz == v->khz && sim->last_offset == offset;

	begin_or_join(sim, v, offset,
		      gclk_tsc_scale(host_tsc(sim), v->tsc.ratio, v->tsc.frac_bits) + offset,
		      matched);
}

static int set_khz(struct sim *sim, struct sim_vcpu *v, uint32_t khz)
{
	uint64_t one = gclk_tsc_ratio_one(48), ratio;

	v->khz = khz;			/* GET says so, whatever comes of it */
	v->catches_up = 0;
	if (gclk_tsc_is_tolerated_khz(khz, sim->kernel.khz, 250)) {
		v->tsc.ratio = one;
		v->tsc.frac_bits = 48;
		return 0;
	}
	if (!sim->kernel.frac_bits) {
		v->catches_up = khz > sim->kernel.khz;
		return v->catches_up ? 0 : -1;
	}
	if (gclk_tsc_ratio_floor(sim->kernel.frac_bits, khz, sim->kernel.khz, &ratio) < 0) {
		return -1;
	}
	v->tsc.ratio = ratio;
	v->tsc.frac_bits = sim->kernel.frac_bits;
	return 0;
}

void sim_add_vcpu(struct sim *sim)
{
	struct sim_vcpu *v = &sim->vcpus[sim->n_vcpus];

	v->tsc.ratio = gclk_tsc_ratio_one(48);
	v->tsc.frac_bits = 48;
	if (set_khz(sim, v, sim->default_khz) < 0 || v->catches_up) {
		v->tsc.ratio = 0;	/* set for the VM on a kernel that cannot: left at 0 */
	}
	v->page[APIC_SPIV] = 0xff;
	v->page[APIC_SPIV + 1] = 1;
	v->page[APIC_LVTT + 2] = 1;
	sim->fds[sim->n_vcpus] = SIM_FD_VCPU + (int)sim->n_vcpus;
	sim->n_vcpus++;
	synchronize(sim, v, 0, 0);
}

/*
 * kvmclock
 */

static struct gclk_pvclock_scale scale_of(uint64_t khz)
{
	struct gclk_pvclock_scale scale = { 0 };

	gclk_pvclock_scale_from_hz(GCLK_NS_PER_S, khz * 1000, &scale);
	return scale;
}

uint64_t sim_kernel_clock(const struct sim *sim)
{
	if (!sim->master) {
		return mono(sim) + (uint64_t)sim->kvmclock_offset;
	}
	return sim->master_ns + (uint64_t)sim->kvmclock_offset +
	       gclk_pvclock_scale_delta(scale_of(sim->kernel.khz),
					host_tsc(sim) - sim->master_tsc);
}

/* The snapshot that all vCPUs share, where all of them were written alike. */
static void update_master(struct sim *sim)
{
	sim->master = !sim->kernel.no_master && sim->n_vcpus > 0 &&
		      sim->n_matched + 1 == sim->n_vcpus;
	sim->master_ns = mono(sim);
	sim->master_tsc = host_tsc(sim);
}

static int get_clock(struct sim *sim, struct kvm_clock_data *data)
{
	memset(data, 0, sizeof(*data));
	data->clock = sim_kernel_clock(sim);
	if (sim->master && sim->kernel.cap_clock >= 2) {
		data->flags = CLOCK_IS_STABLE;
	}
	if (sim->master && sim->kernel.cap_clock == 0xe) {
		data->flags = 0xe;
		data->realtime = (uint64_t)real(sim);
		data->host_tsc = host_tsc(sim);
	}
	return 0;
}

static int set_clock(struct sim *sim, const struct kvm_clock_data *data)
{
	uint64_t clock = data->clock;

	if (data->flags & ~(sim->kernel.cap_clock == 0xe ? 0xeu : 0u)) {
		errno = EINVAL;
		return -1;
	}
	update_master(sim);
	uint64_t reference = mono(sim);

	sim->now_ns += 27 + roll(sim, 25);		/* then it looks at the wall clock */
	if ((data->flags & CLOCK_HAS_REALTIME) && real(sim) > (int64_t)data->realtime) {
		clock += (uint64_t)(real(sim) - (int64_t)data->realtime);
	}
	sim->kvmclock_offset = (int64_t)(clock - reference);
	return 0;
}

/* The proposed ioctl: clock and TSC meet at one reading of the host's TSC. */
static int set_clock_guest(struct sim *sim, uint32_t vcpu, const uint8_t *bytes)
{
	struct gclk_pvclock page;

	update_master(sim);
	if (!sim->master || gclk_pvclock_parse(bytes, &page, NULL) < 0) {
		errno = EINVAL;
		return -1;
	}
	sim->kvmclock_offset = (int64_t)(gclk_pvclock_ns_wrap(&page, sim_guest_tsc(sim, vcpu)) -
					 sim->master_ns);
	return 0;
}

uint64_t sim_guest_clock(const struct sim *sim, uint32_t vcpu)
{
	uint64_t at = *sim_msr((struct sim *)(uintptr_t)sim, vcpu, 0x4b564d01) & ~UINT64_C(1);
	struct gclk_pvclock page;

	if (gclk_pvclock_parse(sim->memory + at, &page, NULL) < 0) {
		return 0;
	}
	return gclk_pvclock_ns_wrap(&page, sim_guest_tsc(sim, vcpu));
}

static void write_page(struct sim *sim, uint32_t i)
{
	struct sim_vcpu *v = &sim->vcpus[i];
	uint64_t msr = *sim_msr(sim, i, 0x4b564d01);
	uint64_t tsc = sim->master ? sim->master_tsc : host_tsc(sim);
	struct gclk_pvclock page = { .flags = sim->master ? GCLK_PVCLOCK_TSC_STABLE : 0 };

	if (!(msr & 1)) {
		return;
	}
	v->page_version += 2;
	page.version = v->page_version;
	page.tsc_timestamp = sim->kernel.ignores_tsc ? tsc : gclk_tsc_guest_at(&v->tsc, tsc);
	page.system_time_ns = (sim->master ? sim->master_ns : mono(sim)) +
			      (uint64_t)sim->kvmclock_offset;
	page.scale = scale_of(gclk_tsc_scale(sim->kernel.khz, v->tsc.ratio, v->tsc.frac_bits));
	if (v->stopped_mark) {
		page.flags |= GCLK_PVCLOCK_GUEST_STOPPED;
		v->stopped_mark = 0;
	}
	gclk_pvclock_write(&page, sim->memory + (msr & ~UINT64_C(1)));
}

/*
 * LAPIC
 */

static uint32_t page_get(const struct sim_vcpu *v, unsigned offset)
{
	uint32_t value;

	memcpy(&value, v->page + offset, 4);
	return value;
}

static void page_set(struct sim_vcpu *v, unsigned offset, uint32_t value)
{
	memcpy(v->page + offset, &value, 4);
}

static uint64_t unit_ns(const struct sim *sim, const struct sim_vcpu *v)
{
	uint32_t tdcr = page_get(v, APIC_TDCR);
	unsigned shift = ((tdcr & 3) + (tdcr >> 1 & 4) + 1) & 7;

	return (uint64_t)sim->bus_ns << shift;
}

static void expire(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->n_vcpus; i++) {
		struct sim_vcpu *v = &sim->vcpus[i];
		struct sim_timer *t = &v->timer;

		if (t->armed && sim->now_ns >= t->target_ns) {
			t->pending = 1;
			t->armed = t->period_ns != 0;
			if (t->period_ns) {
				t->target_ns += ((sim->now_ns - t->target_ns) / t->period_ns + 1) *
						t->period_ns;
			}
		}
		if (v->deadline && sim_guest_tsc(sim, i) >= v->deadline) {
			t->pending = 1;
		}
	}
}

static void get_lapic(struct sim *sim, struct sim_vcpu *v, uint8_t *page)
{
	uint32_t left = 0;

	if (v->timer.armed) {
		left = (uint32_t)((v->timer.target_ns - sim->now_ns) / unit_ns(sim, v));
	}
	memcpy(page, v->page, sizeof(v->page));
	memcpy(page + APIC_TMCCT, &left, 4);
}

static void set_lapic(struct sim *sim, struct sim_vcpu *v, const uint8_t *page)
{
	uint32_t count, initial, lvtt;
	uint64_t unit;

	memcpy(v->page, page, sizeof(v->page));
	memset(&v->timer, 0, sizeof(v->timer));
	unit = unit_ns(sim, v);
	lvtt = page_get(v, APIC_LVTT);
	initial = page_get(v, APIC_TMICT);
	count = page_get(v, APIC_TMCCT);
	if ((lvtt & LVTT_DEADLINE) || !initial) {
		return;
	}
	count = count > initial ? initial : count;
	v->timer.period_ns = lvtt & LVTT_PERIODIC ? initial * unit : 0;
	count = (lvtt & LVTT_PERIODIC) && !count ? initial : count;
	v->timer.armed = 1;
	v->timer.target_ns = sim->now_ns + count * unit;
}

static void deliver(struct sim_vcpu *v)
{
	uint32_t lvtt = page_get(v, APIC_LVTT), vector = lvtt & LVTT_VECTOR;
	unsigned word = APIC_IRR + 16 * (vector / 32);

	if (v->timer.pending && !(lvtt & LVTT_MASKED)) {
		page_set(v, word, page_get(v, word) | 1u << vector % 32);
		v->deadline = 0;
	}
	v->timer.pending = 0;
	if (page_get(v, word) >> vector % 32 & 1) {
		page_set(v, word, page_get(v, word) & ~(1u << vector % 32));
		v->delivered++;
	}
}

void sim_run(struct sim *sim)
{
	expire(sim);
	update_master(sim);
	for (uint32_t i = 0; i < sim->n_vcpus; i++) {
		deliver(&sim->vcpus[i]);
		write_page(sim, i);
	}
}

void sim_pass(struct sim *sim, uint64_t ns)
{
	sim->now_ns += ns;
	expire(sim);
}

/*
 * MSRs
 */

uint64_t *sim_msr(struct sim *sim, uint32_t vcpu, uint32_t index)
{
	uint32_t n = sim->kernel.hyperv ? N_KNOWN : FIRST_HYPERV;

	for (uint32_t i = 0; i < n; i++) {
		if (known[i] == index) {
			return &sim->vcpus[vcpu].msr[i];
		}
	}
	return NULL;
}

static int get_msrs(struct sim *sim, uint32_t i, struct kvm_msrs *msrs)
{
	struct kvm_msr_entry *e = msrs->entries;
	uint32_t n;

	for (n = 0; n < msrs->nmsrs; n++) {
		uint64_t *msr = sim_msr(sim, i, e[n].index);

		if (!msr) {
			break;
		}
		e[n].data = e[n].index == 0x10	? sim_guest_tsc(sim, i) :
			    e[n].index == 0x6e0 ? sim->vcpus[i].deadline : *msr;
		if (e[n].index == 0x12 || e[n].index == 0x11) {
			e[n].data = *sim_msr(sim, i, e[n].index == 0x12 ? 0x4b564d01 : 0x4b564d00);
		}
	}
	return (int)n;
}

static void write_wall_clock(struct sim *sim, uint64_t at)
{
	uint64_t zero = (uint64_t)real(sim) - sim_kernel_clock(sim);
	uint32_t record[3] = { 2, (uint32_t)(zero / 1000000000), (uint32_t)(zero % 1000000000) };

	memcpy(sim->memory + at, record, sizeof(record));
}

static void set_msr(struct sim *sim, uint32_t i, uint32_t index, uint64_t value, uint64_t *msr)
{
	struct sim_vcpu *v = &sim->vcpus[i];

	if (index == sim->ignore_msr) {
		return;
	}
	switch (index) {
	case 0x10:
		synchronize(sim, v, value, 1);
		break;
	case 0x6e0:
		v->deadline = page_get(v, APIC_LVTT) & LVTT_DEADLINE ? value : 0;
		break;
	case 0x12:
		*sim_msr(sim, i, 0x4b564d01) = value;
		break;
	case 0x4b564d00:
		*msr = value;
		write_wall_clock(sim, value);
		break;
	default:
		*msr = value;
	}
}

static int set_msrs(struct sim *sim, uint32_t i, const struct kvm_msrs *msrs)
{
	const struct kvm_msr_entry *e = msrs->entries;
	uint32_t n;

	for (n = 0; n < msrs->nmsrs; n++) {
		uint64_t *msr = sim_msr(sim, i, e[n].index);

		if (!msr || e[n].index == sim->refuse_msr) {
			break;
		}
		set_msr(sim, i, e[n].index, e[n].data, msr);
	}
	return (int)n;
}

/*
 * The calls
 */

static int capability(const struct sim *sim, unsigned long number)
{
	switch (number) {
	case KVM_CAP_ADJUST_CLOCK:
		return sim->kernel.cap_clock;
	case KVM_CAP_TSC_CONTROL:
		return sim->kernel.frac_bits != 0;
	case KVM_CAP_VM_TSC_CONTROL:
		return sim->kernel.vm_khz && sim->kernel.frac_bits;
	case KVM_CAP_X86_APIC_BUS_CYCLES_NS:
		return sim->kernel.bus_cap;
	default:
		return 0;
	}
}

static int attribute(struct sim *sim, struct sim_vcpu *v, unsigned long request,
		     const struct kvm_device_attr *attr)
{
	int has = attr->group == 0 &&
		  ((attr->attr == KVM_VCPU_TSC_OFFSET && sim->kernel.offset_attr) ||
		   (attr->attr == KVM_VCPU_TSC_SCALE && sim->kernel.scale_attr &&
		    sim->kernel.frac_bits));
	uint64_t *at = (uint64_t *)(uintptr_t)attr->addr;

	if (!has) {
		errno = ENXIO;
		return -1;
	}
	if (request == KVM_HAS_DEVICE_ATTR) {
		return 0;
	}
	if (request == KVM_SET_DEVICE_ATTR) {
		if (attr->attr != KVM_VCPU_TSC_OFFSET) {
			errno = EINVAL;
			return -1;
		}
		set_offset(sim, v, *at);
		return 0;
	}
	at[0] = attr->attr == KVM_VCPU_TSC_OFFSET ? v->tsc.offset : v->tsc.ratio;
	if (attr->attr == KVM_VCPU_TSC_SCALE) {
		at[1] = v->tsc.frac_bits;
	}
	return 0;
}

static int vm_call(struct sim *sim, unsigned long request, unsigned long arg)
{
	void *p = (void *)(uintptr_t)arg;

	switch (request) {
	case KVM_CHECK_EXTENSION:
		return capability(sim, arg);
	case KVM_GET_TSC_KHZ:
		return (int)sim->default_khz;
	case KVM_SET_TSC_KHZ:
		sim->default_khz = arg ? (uint32_t)arg : sim->kernel.khz;
		return 0;
	case KVM_ENABLE_CAP: {
		const struct kvm_enable_cap *cap = p;

		if (sim->n_vcpus || !sim->kernel.bus_cap) {
			errno = EINVAL;
			return -1;
		}
		sim->bus_ns = (uint32_t)cap->args[0];
		return 0;
	}
	case KVM_GET_CLOCK:
		return get_clock(sim, p);
	case KVM_SET_CLOCK:
		return set_clock(sim, p);
	case KVM_GET_PIT2:
		memcpy(p, &sim->pit, sizeof(sim->pit));
		return 0;
	case KVM_SET_PIT2:
		memcpy(&sim->pit, p, sizeof(sim->pit));
		sim->pit.channels[1].count_load_time = (int64_t)mono(sim);
		sim->pit.channels[2].count_load_time = (int64_t)mono(sim);
		sim->pit_began_ns = sim->now_ns;
		return 0;
	case KVM_GET_IRQCHIP: {
		struct kvm_irqchip *chip = p;

		chip->chip.pic.irr = chip->chip_id ? 0 : sim->pic_irr;
		chip->chip.pic.imr = 0;
		return 0;
	}
	case KVM_IRQ_LINE_STATUS: {
		const struct kvm_irq_level *line = p;

		if (line->irq == 0 && line->level) {
			sim->pit_pulses++;
			sim->pic_irr |= 1;
		}
		return 0;
	}
	case KVM_REINJECT_CONTROL:
		sim->reinject = ((const struct kvm_reinject_control *)p)->pit_reinject;
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

static int vcpu_call(struct sim *sim, uint32_t i, unsigned long request, unsigned long arg)
{
	struct sim_vcpu *v = &sim->vcpus[i];
	void *p = (void *)(uintptr_t)arg;

	if (sim->kernel.set_clock_guest && request == SIM_SET_CLOCK_GUEST) {
		return set_clock_guest(sim, i, p);
	}
	switch (request) {
	case KVM_GET_TSC_KHZ:
		return (int)v->khz;
	case KVM_SET_TSC_KHZ:
		if (set_khz(sim, v, arg ? (uint32_t)arg : sim->kernel.khz) == 0) {
			return 0;
		}
		break;
	case KVM_HAS_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR:
		return attribute(sim, v, request, p);
	case KVM_GET_MSRS:
		return get_msrs(sim, i, p);
	case KVM_SET_MSRS:
		return set_msrs(sim, i, p);
	case KVM_GET_LAPIC:
		get_lapic(sim, v, p);
		return 0;
	case KVM_SET_LAPIC:
		set_lapic(sim, v, p);
		return 0;
	case KVM_KVMCLOCK_CTRL:
		if (*sim_msr(sim, i, 0x4b564d01) & 1) {
			v->stopped_mark = 1;
			return 0;
		}
		break;
	default:
		break;
	}
	errno = EINVAL;
	return -1;
}

static int is_write(unsigned long request)
{
	switch (request) {
	case KVM_SET_TSC_KHZ:
	case KVM_SET_CLOCK:
	case KVM_SET_PIT2:
	case KVM_SET_MSRS:
	case KVM_SET_LAPIC:
	case KVM_SET_DEVICE_ATTR:
	case KVM_ENABLE_CAP:
	case KVM_REINJECT_CONTROL:
	case SIM_SET_CLOCK_GUEST:
		return 1;
	default:
		return 0;
	}
}

/* Everything that asks comes by here: somebody may set the wall clock at any moment. */
static void maybe_step(struct sim *sim)
{
	if (++sim->readings == sim->step_at) {
		sim->real0_ns += sim->step_ns;
	}
}

static int sim_ioctl(void *context, int fd, unsigned long request, unsigned long arg)
{
	struct sim *sim = context;
	int r;

	maybe_step(sim);
	if (++sim->calls == sim->fail_at) {
		errno = EIO;
		return -1;
	}
	sim_pass(sim, sim->call_ns / 2 + roll(sim, 40));
	sim->writes += (unsigned)is_write(request);
	if (request == sim->ignore) {
		/* what SET_MSRS returns is how many it took */
		r = request == KVM_SET_MSRS ?
			    (int)((const struct kvm_msrs *)(uintptr_t)arg)->nmsrs : 0;
	} else if (fd == SIM_FD_VM) {
		r = vm_call(sim, request, arg);
	} else {
		r = vcpu_call(sim, (uint32_t)(fd - SIM_FD_VCPU), request, arg);
	}
	sim_pass(sim, sim->call_ns / 2 + roll(sim, 40));
	return r;
}

static int sim_clock(void *context, int clock, int64_t *ret_ns)
{
	struct sim *sim = context;

	maybe_step(sim);
	sim_pass(sim, 18);
	*ret_ns = clock == CLOCK_REALTIME ? real(sim) : (int64_t)mono(sim);
	*ret_ns += clock == CLOCK_BOOTTIME ? (int64_t)sim->slept_ns : 0;
	return 0;
}

static uint64_t sim_tsc(void *context)
{
	struct sim *sim = context;

	maybe_step(sim);
	sim_pass(sim, 8);
	return host_tsc(sim);
}

static int sim_memory(void *context, uint64_t gpa, void *bytes, uint32_t size, int write)
{
	struct sim *sim = context;

	if (gpa > SIM_MEMORY - size) {
		return -1;
	}
	if (write) {
		memcpy(sim->memory + gpa, bytes, size);
	} else {
		memcpy(bytes, sim->memory + gpa, size);
	}
	return 0;
}

void sim_init(struct sim *sim, const struct sim_kernel *kernel, int64_t real_ns, uint64_t tsc0,
	      uint64_t seed)
{
	memset(sim, 0, sizeof(*sim));
	sim->kernel = *kernel;
	sim->tsc0 = tsc0;
	sim->real0_ns = real_ns;
	sim->mono0_ns = 5 * GCLK_NS_PER_S;
	sim->default_khz = kernel->khz;
	sim->bus_ns = 1;
	sim->reinject = 1;
	sim->call_ns = 700;
	sim->random = seed;
	sim->kvmclock_offset = -sim->mono0_ns;
	for (unsigned i = 0; i < 3; i++) {
		sim->pit.channels[i].mode = 0xff;
		sim->pit.channels[i].count = 65536;
		sim->pit.channels[i].gate = i < 2;
	}
	sim->sys = (struct gclk_kvm_sys){
		.context = sim, .ioctl = sim_ioctl, .clock = sim_clock, .tsc = sim_tsc,
		.set_clock_guest = kernel->set_clock_guest ? SIM_SET_CLOCK_GUEST : 0,
	};
}

void sim_kvm(struct sim *sim, struct gclk_kvm *k)
{
	memset(k, 0, sizeof(*k));
	k->vm = SIM_FD_VM;
	k->vcpus = sim->fds;
	k->n_vcpus = sim->n_vcpus;
	k->irqchip = 1;
	k->pit = 1;
	k->hyperv = sim->kernel.hyperv;
	k->memory = sim_memory;
	k->memory_context = sim;
	k->sys = &sim->sys;
}

void sim_host(struct sim *sim, struct gclk_host *host)
{
	memset(host, 0, sizeof(*host));
	GCLK_SET(host, host, tsc_hz, (uint64_t)sim->kernel.khz * 1000 +
		 (uint64_t)((int64_t)sim->kernel.khz / 1000 * sim->kernel.ppb / 1000));
	GCLK_SET(host, host, tsc_hz_ppb, 0);
	GCLK_SET(host, host, tsc_khz_kernel, sim->kernel.khz);
	GCLK_SET(host, host, tsc_tolerance_ppm, 250);
	GCLK_SET(host, host, flags, sim->kernel.frac_bits ? GCLK_HOST_TSC_SCALING : 0);
	if (sim->kernel.frac_bits) {
		GCLK_SET(host, host, tsc_ratio_frac_bits, sim->kernel.frac_bits);
	}
	GCLK_SET(host, host, realtime_ns, real(sim));
	GCLK_SET(host, host, monotonic_ns, (int64_t)mono(sim));
	GCLK_SET(host, host, boottime_ns, (int64_t)(mono(sim) + sim->slept_ns));
	GCLK_SET(host, host, tsc_ticks, host_tsc(sim));
	GCLK_SET(host, host, sample_width_ns, 40);
}

static void mix(uint64_t *hash, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < size; i++) {
		*hash = (*hash ^ p[i]) * UINT64_C(0x100000001b3);
	}
}

uint64_t sim_fingerprint(const struct sim *sim)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (uint32_t i = 0; i < sim->n_vcpus; i++) {
		const struct sim_vcpu *v = &sim->vcpus[i];

		mix(&hash, &v->khz, sizeof(v->khz));
		mix(&hash, &v->tsc.ratio, sizeof(v->tsc.ratio));
		mix(&hash, &v->tsc.offset, sizeof(v->tsc.offset));
		mix(&hash, v->msr, sizeof(v->msr));
		mix(&hash, v->page, sizeof(v->page));
		mix(&hash, &v->deadline, sizeof(v->deadline));
	}
	mix(&hash, &sim->kvmclock_offset, sizeof(sim->kvmclock_offset));
	mix(&hash, &sim->pit, sizeof(sim->pit));
	mix(&hash, &sim->reinject, sizeof(sim->reinject));
	mix(&hash, &sim->default_khz, sizeof(sim->default_khz));
	mix(&hash, &sim->bus_ns, sizeof(sim->bus_ns));
	mix(&hash, sim->memory, sizeof(sim->memory));
	return hash;
}
