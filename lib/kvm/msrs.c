/* SPDX-License-Identifier: MIT */
/*
 * The MSRs that make a guest's time: one table, in the order in which they are written.
 *
 * KVM_GET_MSRS and KVM_SET_MSRS stop at the first MSR that they do not take and return
 * how many they did: for reading, that one is remembered as absent and the rest is asked
 * again; for writing, it is an error with the MSR's name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/util.h"
#include "kvm/backend.h"

enum part {
	PART_TSC,
	PART_VCPU,
};

enum flags {
	HYPERV = 1,		/* only asked for where the guest has Hyper-V's leaves */
	OF_VM = 2,		/* one for the whole VM: written through vCPU 0 */
	COUNTS = 4,		/* changes by itself: not compared */
	NOT_ZERO = 8,		/* two numbers for one thing: the one in use is not 0 */
};

struct row {
	const char *name;	/* path of the field */
	uint32_t index;
	uint8_t part, field, phase, flags;
};

/* clang-format off */
#define TSC_ROW(index_, member, phase_, flags_) \
	{ "tsc." #member, index_, PART_TSC, gclk_tsc_f_##member, GCLK_KVM_MSRS_##phase_, flags_ },
#define VCPU_ROW(index_, member, phase_, flags_) \
	{ "vcpu." #member, index_, PART_VCPU, gclk_vcpu_f_##member, GCLK_KVM_MSRS_##phase_, flags_ },

/*
 * Hyper-V's re-enlightenment stands before the reference TSC, interrupt numbers before what
 * enables them, the count of a synthetic timer before its configuration, which starts it.
 */
#define MSRS(TSC, VCPU) \
	TSC(0x3b, adjust_ticks, BEFORE_CLOCK, 0) \
	TSC(0xc0000103, aux, BEFORE_CLOCK, 0) \
	TSC(0xc0000104, amd_ratio_msr, BEFORE_CLOCK, 0) \
	VCPU(0x40000106, hv_reenlightenment_msr, BEFORE_CLOCK, HYPERV | OF_VM) \
	VCPU(0x40000107, hv_tsc_emulation_control_msr, BEFORE_CLOCK, HYPERV | OF_VM) \
	VCPU(0x40000108, hv_tsc_emulation_status_msr, BEFORE_CLOCK, HYPERV | OF_VM) \
	VCPU(0x40000118, hv_tsc_invariant_msr, BEFORE_CLOCK, HYPERV | OF_VM) \
	VCPU(0x40000021, hv_reference_tsc_msr, BEFORE_CLOCK, HYPERV | OF_VM) \
	VCPU(0x40000010, hv_vp_runtime_100ns, BEFORE_CLOCK, HYPERV | COUNTS) \
	VCPU(0x12, system_time_old_msr, BEFORE_CLOCK, NOT_ZERO) \
	VCPU(0x4b564d01, system_time_msr, BEFORE_CLOCK, NOT_ZERO) \
	VCPU(0x4b564d03, steal_time_msr, BEFORE_CLOCK, 0) \
	VCPU(0x4b564d06, async_pf_int_msr, BEFORE_CLOCK, 0) \
	VCPU(0x4b564d02, async_pf_en_msr, BEFORE_CLOCK, 0) \
	VCPU(0x4b564d04, pv_eoi_msr, BEFORE_CLOCK, 0) \
	VCPU(0x4b564d05, poll_control_msr, BEFORE_CLOCK, 0) \
	VCPU(0x11, wall_clock_old_msr, AFTER_CLOCK, OF_VM | NOT_ZERO) \
	VCPU(0x4b564d00, wall_clock_msr, AFTER_CLOCK, OF_VM | NOT_ZERO) \
	TSC(0x6e0, deadline_ticks, TIMERS, 0) \
	VCPU(0x400000b1, stimer0_count, TIMERS, HYPERV) \
	VCPU(0x400000b0, stimer0_config, TIMERS, HYPERV | COUNTS) \
	VCPU(0x400000b3, stimer1_count, TIMERS, HYPERV) \
	VCPU(0x400000b2, stimer1_config, TIMERS, HYPERV | COUNTS) \
	VCPU(0x400000b5, stimer2_count, TIMERS, HYPERV) \
	VCPU(0x400000b4, stimer2_config, TIMERS, HYPERV | COUNTS) \
	VCPU(0x400000b7, stimer3_count, TIMERS, HYPERV) \
	VCPU(0x400000b6, stimer3_config, TIMERS, HYPERV | COUNTS)

#define INDEX_OF(index_, member, phase_, flags_) index_,

static const struct row rows[] = { MSRS(TSC_ROW, VCPU_ROW) };
static const uint32_t indices[] = { MSR_TSC, MSRS(INDEX_OF, INDEX_OF) };
/* clang-format on */
GCLK_API const uint32_t *const gclk_kvm_msrs = indices;
GCLK_API const unsigned gclk_n_kvm_msrs = GCLK_COUNT(indices);

#define N_ROWS GCLK_COUNT(rows)

_Static_assert(N_ROWS <= 64, "a bit of own.msrs_absent for each");

static const uint64_t ioctls[] = {
	KVM_CHECK_EXTENSION, KVM_ENABLE_CAP,
	KVM_GET_TSC_KHZ, KVM_SET_TSC_KHZ,
	KVM_GET_CLOCK, KVM_SET_CLOCK,
	KVM_HAS_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR,
	KVM_GET_MSRS, KVM_SET_MSRS,
	KVM_GET_LAPIC, KVM_SET_LAPIC,
	KVM_GET_PIT2, KVM_SET_PIT2, KVM_REINJECT_CONTROL,
	KVM_KVMCLOCK_CTRL,
	KVM_GET_IRQCHIP, KVM_IRQ_LINE_STATUS, KVM_SIGNAL_MSI,
#ifdef KVM_SET_CLOCK_GUEST
	KVM_SET_CLOCK_GUEST,
#endif
};
GCLK_API const uint64_t *const gclk_kvm_ioctls = ioctls;
GCLK_API const unsigned gclk_n_kvm_ioctls = GCLK_COUNT(ioctls);

/* The rows of one call, and the entries for them. */
struct list {
	struct {				/* as struct kvm_msrs */
		uint32_t nmsrs, pad;
		struct kvm_msr_entry entries[N_ROWS];
	} msrs;
	const struct row *rows[N_ROWS];
};

static void add(struct list *list, const struct row *row, uint64_t value)
{
	struct kvm_msr_entry *entry = &list->msrs.entries[list->msrs.nmsrs];

	entry->index = row->index;
	entry->reserved = 0;
	entry->data = value;
	list->rows[list->msrs.nmsrs++] = row;
}

static uint64_t bit_of(const struct row *row)
{
	return UINT64_C(1) << (row - rows);
}

static int applies(const struct gclk_kvm *k, const struct row *row, uint32_t i)
{
	return !(k->own.msrs_absent & bit_of(row)) && (!(row->flags & HYPERV) || k->hyperv) &&
	       (i == 0 || !(row->flags & OF_VM));
}

static const struct gclk_field *field_of(const struct row *row)
{
	return row->part == PART_TSC ? &gclk_tsc_record.fields[row->field] :
				       &gclk_vcpu_record.fields[row->field];
}

/* Whether the state has it, and its value. */
static int wanted(const struct gclk_state *st, const struct row *row, uint32_t i,
		  uint64_t *ret_value)
{
	const void *base = row->part == PART_TSC ? (const void *)&st->tsc[i] :
						   (const void *)&st->vcpu[i];
	const struct gclk_record *record = row->part == PART_TSC ? &gclk_tsc_record :
								   &gclk_vcpu_record;

	if (!gclk_record_has(base, record, row->field)) {
		return 0;
	}
	*ret_value = gclk_record_get(base, field_of(row));
	return *ret_value || !(row->flags & NOT_ZERO);
}

static int failed_call(struct gclk_error *reterr, const char *call, uint32_t i)
{
	return gclk_fail(reterr, GCLK_SYS, "vcpu", GCLK_NO_OFFSET, "%s on vCPU %" PRIu32 ": %s",
			 call, i, strerror(errno));
}

/* Asks until the kernel answers for every row of the list; drops what it does not know. */
static int read_list(struct gclk_kvm *k, uint32_t i, struct list *list,
		     struct gclk_error *reterr)
{
	for (;;) {
		int n = gclk_sys_ioctl(k, k->vcpus[i], KVM_GET_MSRS, &list->msrs);
		uint32_t left = list->msrs.nmsrs;

		if (n < 0) {
			return failed_call(reterr, "KVM_GET_MSRS", i);
		}
		if ((uint32_t)n >= left) {
			return 0;
		}
		k->own.msrs_absent |= bit_of(list->rows[n]);
		left -= (uint32_t)n + 1;
		memmove(&list->msrs.entries[n], &list->msrs.entries[n + 1],
			left * sizeof(list->msrs.entries[0]));
		memmove(&list->rows[n], &list->rows[n + 1], left * sizeof(list->rows[0]));
		list->msrs.nmsrs--;
	}
}

int gclk_kvm_read_msrs(struct gclk_kvm *k, uint32_t i, struct gclk_tsc *tsc,
		       struct gclk_vcpu *vcpu, struct gclk_error *reterr)
{
	struct list list = { .msrs.nmsrs = 0 };
	int r;

	for (unsigned n = 0; n < N_ROWS; n++) {
		if (applies(k, &rows[n], i)) {
			add(&list, &rows[n], 0);
		}
	}
	if ((r = read_list(k, i, &list, reterr)) < 0) {
		return r;
	}
	for (uint32_t n = 0; n < list.msrs.nmsrs; n++) {
		const struct row *row = list.rows[n];

		gclk_record_set(row->part == PART_TSC ? (void *)tsc : (void *)vcpu, field_of(row),
				list.msrs.entries[n].data);
	}
	/* both numbers read the one value: it is restored once */
	if (GCLK_HAS(vcpu, vcpu, system_time_msr)) {
		GCLK_UNSET(vcpu, vcpu, system_time_old_msr);
	}
	if (GCLK_HAS(vcpu, vcpu, wall_clock_msr)) {
		GCLK_UNSET(vcpu, vcpu, wall_clock_old_msr);
	}
	return 0;
}

const char *gclk_kvm_unknown_msr(const struct gclk_kvm *k, const struct gclk_state *st)
{
	uint64_t value;

	for (unsigned n = 0; n < N_ROWS; n++) {
		for (uint32_t i = 0; i < st->n_vcpus; i++) {
			if (wanted(st, &rows[n], i, &value) && value &&
			    ((k->own.msrs_absent & bit_of(&rows[n])) ||
			     ((rows[n].flags & HYPERV) && !k->hyperv))) {
				return rows[n].name;
			}
		}
	}
	return NULL;
}

static void list_phase(const struct gclk_kvm *k, uint32_t i, const struct gclk_state *st,
		       enum gclk_kvm_msr_phase phase, struct list *list)
{
	uint64_t value;

	list->msrs.nmsrs = 0;
	list->msrs.pad = 0;
	for (unsigned n = 0; n < N_ROWS; n++) {
		if (rows[n].phase == phase && applies(k, &rows[n], i) &&
		    wanted(st, &rows[n], i, &value)) {
			add(list, &rows[n], value);
		}
	}
}

int gclk_kvm_write_msrs(const struct gclk_kvm *k, uint32_t i, const struct gclk_state *st,
			enum gclk_kvm_msr_phase phase, struct gclk_error *reterr)
{
	struct list list;
	int n;

	list_phase(k, i, st, phase, &list);
	if (list.msrs.nmsrs == 0) {
		return 0;
	}
	n = gclk_sys_ioctl(k, k->vcpus[i], KVM_SET_MSRS, &list.msrs);
	if (n < 0) {
		return failed_call(reterr, "KVM_SET_MSRS", i);
	}
	if ((uint32_t)n < list.msrs.nmsrs) {
		return gclk_fail(reterr, GCLK_UNSUPPORTED, list.rows[n]->name, GCLK_NO_OFFSET,
				 "the kernel refuses 0x%llx in MSR 0x%" PRIx32 " of vCPU %" PRIu32,
				 (unsigned long long)list.msrs.entries[n].data,
				 list.rows[n]->index, i);
	}
	return 0;
}

/* A deadline that has passed reads 0 once its interrupt is on its way. */
static int has_fired(const struct row *row, uint64_t value, uint64_t read, uint64_t tsc_now)
{
	return row->index == 0x6e0 && read == 0 && value <= tsc_now;
}

int gclk_kvm_check_msrs(struct gclk_kvm *k, uint32_t i, const struct gclk_state *st,
			enum gclk_kvm_msr_phase phase, uint64_t tsc_now,
			struct gclk_error *reterr)
{
	struct list list;
	int r;

	list_phase(k, i, st, phase, &list);
	if (list.msrs.nmsrs == 0) {
		return 0;
	}
	if ((r = read_list(k, i, &list, reterr)) < 0) {
		return r;
	}
	for (uint32_t n = 0; n < list.msrs.nmsrs; n++) {
		const struct row *row = list.rows[n];
		uint64_t value = 0, read = list.msrs.entries[n].data;

		wanted(st, row, i, &value);
		if (read != value && !(row->flags & COUNTS) &&
		    !has_fired(row, value, read, tsc_now)) {
			return gclk_fail(reterr, GCLK_UNPROVEN, row->name, GCLK_NO_OFFSET,
					 "MSR 0x%" PRIx32 " of vCPU %" PRIu32
					 " was written 0x%llx and reads 0x%llx", row->index, i,
					 (unsigned long long)value, (unsigned long long)read);
		}
	}
	return 0;
}
