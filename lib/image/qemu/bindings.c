/* SPDX-License-Identifier: MIT */
/*
 * The binding of QEMU's sections, versions 4.2 to 10.2.
 *
 * A row is found by its name in the stream's own description, then by its
 * aliases, then at its fixed offset, which has been the same in all these
 * releases as long as the section has the version named here. Names are not ABI
 * between releases; offsets are what loaders rely on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "core/error.h"
#include "core/util.h"
#include "image/qemu/bindings.h"
#include "image/qemu/icount.h"

#define HPET_TICK_NS UINT64_C(10)
#define HPET_ENABLE 1u
#define HPET_NARROW 0x108u	/* of a timer: periodic, 32 bits */

enum wire { WIRE_U8, WIRE_U16, WIRE_U32, WIRE_U64, WIRE_I32, WIRE_I64, WIRE_BYTES, WIRE_WORDS };

enum target {
	TO_VIRTUAL_CLOCK, TO_KVMCLOCK, TO_TSC, TO_VCPU, TO_LAPIC, TO_PIT, TO_PIT_CHANNEL, TO_RTC,
	TO_HPET, TO_HPET_TIMER, TO_PM_TIMER, TO_I6300ESB, TO_TIMER,
};

enum conversion { PLAIN, KHZ_TO_HZ, BIT_4 };

struct gclk_binding {
	const char *section;		/* the name's last part; rows of one section stand together */
	uint16_t version;		/* for which the offset holds */
	uint8_t target;
	uint8_t wire;
	uint8_t conversion;
	uint8_t optional;		/* may be missing in some releases */
	uint16_t size;			/* WIRE_BYTES and WIRE_WORDS: bytes */
	const char *sub;		/* subsection with its colon: "cpu/tsc_khz:", or NULL */
	const char *names;		/* alternatives separated by '|', %u stands for the index */
	int32_t offset;			/* in the payload or subsection; -1: by name only */
	uint16_t stride;		/* bytes from one index to the next */
	uint16_t field;			/* row of the record */
};

/* Rows of a section, of a subsection, of an array of structs; names as QEMU gives them. */
#define AT(section_, version_, offset_, wire_, names_, target_, record_, member_) \
	{ .section = section_, .version = version_, .target = target_, .wire = WIRE_##wire_, \
	  .names = names_, .offset = offset_, .field = gclk_##record_##_f_##member_ }
#define SUB(section_, version_, sub_, offset_, wire_, names_, target_, record_, member_) \
	{ .section = section_, .version = version_, .target = target_, .wire = WIRE_##wire_, \
	  .sub = sub_ ":", .names = names_, .offset = offset_, .optional = 1, \
	  .field = gclk_##record_##_f_##member_ }
#define NTH(section_, version_, offset_, stride_, wire_, names_, target_, record_, member_) \
	{ .section = section_, .version = version_, .target = target_, .wire = WIRE_##wire_, \
	  .names = names_, .offset = offset_, .stride = stride_, \
	  .field = gclk_##record_##_f_##member_ }

#define MSR(sub_, names_, member_) \
	SUB("cpu", 12, "cpu/" sub_, 0, U64, names_, TO_VCPU, vcpu, member_)
#define STIMER(n, config_, count_) \
	SUB("cpu", 12, "cpu/msr_hyperv_stimer", 8 * n, U64, \
	    "env.msr_hv_stimer_config[" #n "]", TO_VCPU, vcpu, config_), \
	SUB("cpu", 12, "cpu/msr_hyperv_stimer", 32 + 8 * n, U64, \
	    "env.msr_hv_stimer_count[" #n "]", TO_VCPU, vcpu, count_)
#define CHANNEL(rel, wire_, name, member_) \
	NTH("i8254", 3, 4 + rel, 32, wire_, "channels[%u]." name, TO_PIT_CHANNEL, pit_channel, member_)
#define COMPARATOR(rel, wire_, name, member_) \
	NTH("hpet", 2, 25 + rel, 42, wire_, "timer[%u]." name "|timers[%u]." name, TO_HPET_TIMER, \
	    hpet_timer, member_)
#define ICH9(offset_, wire_, name, member_) \
	AT("ICH9LPC", 1, offset_, wire_, "pm.acpi_regs." name, TO_PM_TIMER, pm_timer, member_)
#define PIIX4(offset_, wire_, name, member_) \
	AT("piix4_pm", 3, offset_, wire_, "ar." name, TO_PM_TIMER, pm_timer, member_)
#define WATCHDOG(offset_, wire_, name, member_) \
	AT("i6300esb_wdt", 10000, offset_, wire_, name, TO_I6300ESB, i6300esb, member_)

/* clang-format off */
static const struct gclk_binding table[] = {
	AT("timer", 2, 0,  I64, "cpu_ticks_offset", TO_VIRTUAL_CLOCK, virtual_clock, host_ticks),
#define CPU_CLOCK_ROW (&table[1])
	AT("timer", 2, 16, I64, "cpu_clock_offset", TO_VIRTUAL_CLOCK, virtual_clock, clock_ns),
	SUB("timer", 2, "timer/icount", 0, I64, "qemu_icount_bias|timers_state.qemu_icount_bias",
	    TO_VIRTUAL_CLOCK, virtual_clock, icount_bias_ns),
	SUB("timer", 2, "timer/icount", 8, I64, "qemu_icount|timers_state.qemu_icount",
	    TO_VIRTUAL_CLOCK, virtual_clock, icount),

	AT("kvmclock", 1, 0, U64, "clock", TO_KVMCLOCK, kvmclock, clock_ns),
	SUB("kvmclock", 1, "kvmclock/clock_is_reliable", 0, U8, "clock_is_reliable",
	    TO_KVMCLOCK, kvmclock, reliable),

	AT("cpu", 12, 896,  I64, "env.tsc_offset", TO_TSC, tsc, emulated_offset_ticks),
	AT("cpu", 12, 1153, U32, "env.mp_state", TO_VCPU, vcpu, mp_state),
	AT("cpu", 12, 1157, U64, "env.tsc", TO_TSC, tsc, value_ticks),
	AT("cpu", 12, 1521, U64, "env.tsc_aux", TO_TSC, tsc, aux),
	AT("cpu", 12, 1529, U64, "env.system_time_msr", TO_VCPU, vcpu, system_time_msr),
	AT("cpu", 12, 1537, U64, "env.wall_clock_msr", TO_VCPU, vcpu, wall_clock_msr),
	{ .section = "cpu", .version = 12, .target = TO_TSC, .wire = WIRE_I64,
	  .conversion = KHZ_TO_HZ, .optional = 1, .sub = "cpu/tsc_khz:", .names = "env.tsc_khz",
	  .offset = 0, .field = gclk_tsc_f_frequency_hz },
	SUB("cpu", 12, "cpu/msr_tsc_adjust", 0, I64, "env.tsc_adjust", TO_TSC, tsc, adjust_ticks),
	SUB("cpu", 12, "cpu/msr_tscdeadline", 0, U64, "env.tsc_deadline", TO_TSC, tsc, deadline_ticks),
	SUB("cpu", 12, "cpu/amd_tsc_scale_msr", 0, U64, "env.amd_tsc_scale_msr", TO_TSC, tsc, amd_ratio_msr),
	MSR("steal_time_msr", "env.steal_time_msr", steal_time_msr),
	MSR("async_pf_msr", "env.async_pf_en_msr", async_pf_en_msr),
	MSR("async_pf_int_msr", "env.async_pf_int_msr", async_pf_int_msr),
	MSR("async_pv_eoi_msr", "env.pv_eoi_en_msr", pv_eoi_msr),
	MSR("poll_control_msr", "env.poll_control_msr", poll_control_msr),
	MSR("msr_hyperv_time", "env.msr_hv_tsc", hv_reference_tsc_msr),
	MSR("msr_hyperv_runtime", "env.msr_hv_runtime", hv_vp_runtime_100ns),
	MSR("msr_hyperv_reenlightenment", "env.msr_hv_reenlightenment_control", hv_reenlightenment_msr),
	SUB("cpu", 12, "cpu/msr_hyperv_reenlightenment", 8, U64, "env.msr_hv_tsc_emulation_control",
	    TO_VCPU, vcpu, hv_tsc_emulation_control_msr),
	SUB("cpu", 12, "cpu/msr_hyperv_reenlightenment", 16, U64, "env.msr_hv_tsc_emulation_status",
	    TO_VCPU, vcpu, hv_tsc_emulation_status_msr),
	STIMER(0, stimer0_config, stimer0_count),
	STIMER(1, stimer1_config, stimer1_count),
	STIMER(2, stimer2_config, stimer2_count),
	STIMER(3, stimer3_config, stimer3_count),

	AT("apic", 3, 0,   U32, "apicbase", TO_LAPIC, lapic, apic_base),
	AT("apic", 3, 7,   U32, "spurious_vec", TO_LAPIC, lapic, spurious_vector),
	{ .section = "apic", .version = 3, .target = TO_LAPIC, .wire = WIRE_WORDS, .size = 32,
	  .names = "isr", .offset = 13, .field = gclk_lapic_f_isr },
	{ .section = "apic", .version = 3, .target = TO_LAPIC, .wire = WIRE_WORDS, .size = 32,
	  .names = "tmr", .offset = 45, .field = gclk_lapic_f_tmr },
	{ .section = "apic", .version = 3, .target = TO_LAPIC, .wire = WIRE_WORDS, .size = 32,
	  .names = "irr", .offset = 77, .field = gclk_lapic_f_irr },
	AT("apic", 3, 109, U32, "lvt[0]", TO_LAPIC, lapic, lvt_timer),
	AT("apic", 3, 145, U32, "divide_conf", TO_LAPIC, lapic, divide_config),
	AT("apic", 3, 149, I32, "count_shift", TO_LAPIC, lapic, divide_shift),
	AT("apic", 3, 153, U32, "initial_count", TO_LAPIC, lapic, initial_count),
	AT("apic", 3, 157, I64, "initial_count_load_time", TO_LAPIC, lapic, load_time_ns),
	AT("apic", 3, 165, I64, "next_time", TO_LAPIC, lapic, next_time_ns),
	AT("apic", 3, 173, I64, "timer_expiry", TO_LAPIC, lapic, expiry_ns),

	AT("i8254", 3, 0, U32, "=channels[0].irq_disabled", TO_PIT, pit, irq_disabled),
	CHANNEL(0,  I32, "count", count),
	CHANNEL(4,  U16, "latched_count", latched_count),
	CHANNEL(6,  U8,  "count_latched", count_latched),
	CHANNEL(7,  U8,  "status_latched", status_latched),
	CHANNEL(8,  U8,  "status", status),
	CHANNEL(9,  U8,  "read_state", read_state),
	CHANNEL(10, U8,  "write_state", write_state),
	CHANNEL(11, U8,  "write_latch", write_latch),
	CHANNEL(12, U8,  "rw_mode", rw_mode),
	CHANNEL(13, U8,  "mode", mode),
	CHANNEL(14, U8,  "bcd", bcd),
	CHANNEL(15, U8,  "gate", gate),
	CHANNEL(16, I64, "count_load_time", load_time_ns),
	CHANNEL(24, I64, "next_transition_time", next_transition_ns),
	/* channel 0's next transition once more; this copy is loaded last and wins */
	AT("i8254", 3, 100, I64, "=channels[0].next_transition_time", TO_PIT_CHANNEL, pit_channel,
	   next_transition_ns),

	AT("pcspk", 1, 0, U8, "data_on", TO_PIT, pit, speaker_data),
	/* kept as the bit of port 0x61 that it shows in: 0 or 0x10 */
	{ .section = "pcspk", .version = 1, .target = TO_PIT, .wire = WIRE_U8,
	  .conversion = BIT_4, .names = "dummy_refresh_clock", .offset = 1,
	  .field = gclk_pit_f_dummy_refresh_clock },

	{ .section = "mc146818rtc", .version = 3, .target = TO_RTC, .wire = WIRE_BYTES, .size = 128,
	  .names = "cmos_data", .offset = 0, .field = gclk_rtc_f_cmos },
	AT("mc146818rtc", 3, 128, U8,  "cmos_index", TO_RTC, rtc, cmos_index),
	AT("mc146818rtc", 3, 157, I64, "periodic_timer", TO_RTC, rtc, periodic_expiry_ns),
	AT("mc146818rtc", 3, 165, I64, "next_periodic_time", TO_RTC, rtc, next_periodic_ns),
	AT("mc146818rtc", 3, 197, U32, "irq_coalesced", TO_RTC, rtc, owed_ticks),
	AT("mc146818rtc", 3, 201, U32, "period", TO_RTC, rtc, period_clocks),
	AT("mc146818rtc", 3, 205, I64, "base_rtc", TO_RTC, rtc, base_s),
	AT("mc146818rtc", 3, 213, I64, "last_update", TO_RTC, rtc, base_at_ns),
	AT("mc146818rtc", 3, 221, I64, "offset", TO_RTC, rtc, offset_ns),
	AT("mc146818rtc", 3, 229, I64, "update_timer", TO_RTC, rtc, update_expiry_ns),
	AT("mc146818rtc", 3, 237, I64, "next_alarm_time", TO_RTC, rtc, next_alarm_ns),
	SUB("mc146818rtc", 3, "mc146818rtc/irq_reinject_on_ack_count", 0, U16,
	    "irq_reinject_on_ack_count", TO_RTC, rtc, reinject_on_ack),

	AT("hpet", 2, 0,  U64, "config", TO_HPET, hpet, config),
	AT("hpet", 2, 8,  U64, "isr|int_status", TO_HPET, hpet, isr),
	AT("hpet", 2, 16, U64, "hpet_counter|counter", TO_HPET, hpet, counter_ticks),
	AT("hpet", 2, 24, U8,  "num_timers|num_timers_save", TO_HPET, hpet, n_timers),
	SUB("hpet", 2, "hpet/rtc_irq_level", 0, U8, "rtc_irq_level", TO_HPET, hpet, rtc_irq_level),
	SUB("hpet", 2, "hpet/offset", 0, I64, "hpet_offset", TO_HPET, hpet, offset_ns),
	NTH("hpet", 2, 25, 42, U8, "timer[%u].tn|timers[%u].index", TO_HPET_TIMER, hpet_timer, index),
	COMPARATOR(1,  U64, "config", config),
	COMPARATOR(9,  U64, "cmp", comparator_ticks),
	COMPARATOR(17, U64, "fsb", fsb_route),
	COMPARATOR(25, U64, "period", period_ticks),
	COMPARATOR(33, U8,  "wrap_flag", wrap),
	COMPARATOR(34, I64, "qemu_timer", expiry_ns),

	PIIX4(276, U16, "pm1.evt.sts", status),
	PIIX4(278, U16, "pm1.evt.en", enable),
	PIIX4(332, I64, "tmr.timer", expiry_ns),
	PIIX4(340, I64, "tmr.overflow_time", overflow_ticks),
	ICH9(278, U16, "pm1.evt.sts", status),
	ICH9(280, U16, "pm1.evt.en", enable),
	ICH9(284, I64, "tmr.timer", expiry_ns),
	ICH9(292, I64, "tmr.overflow_time", overflow_ticks),

	WATCHDOG(276, I32, "reboot_enabled", reboot_enabled),
	WATCHDOG(280, I32, "clock_scale", clock_scale),
	WATCHDOG(284, I32, "int_type", interrupt_type),
	WATCHDOG(288, I32, "free_run", free_run),
	WATCHDOG(292, I32, "locked", locked),
	WATCHDOG(296, I32, "enabled", enabled),
	WATCHDOG(300, I64, "timer", expiry_ns),
	WATCHDOG(308, U32, "timer1_preload", preload1),
	WATCHDOG(312, U32, "timer2_preload", preload2),
	WATCHDOG(316, I32, "stage", stage),
};

/* Timers of other devices whose expiry resets or stops the guest: they move with the axis. */
static const struct { const char *section, *path, *twin; } watchdogs[] = {
	{ "ib700_wdt", "timer", NULL },
	{ "ICH9LPC", "pm.ich9_pm/tco:tco_regs.tco_timer", "pm.ich9_pm/tco:tco_regs.expire_time" },
};
static const struct gclk_binding timer_binding = {
	.section = "", .target = TO_TIMER, .wire = WIRE_I64, .names = "", .offset = -1,
	.field = gclk_timer_f_expiry_ns,
};
/* clang-format on */

static const uint8_t wire_sizes[] = { [WIRE_U8] = 1,  [WIRE_U16] = 2, [WIRE_U32] = 4, [WIRE_U64] = 8,
				      [WIRE_I32] = 4, [WIRE_I64] = 8 };

static unsigned wire_size(const struct gclk_binding *binding)
{
	return binding->size ? binding->size : wire_sizes[binding->wire];
}

static const struct gclk_record *target_table(uint8_t target)
{
	static const struct gclk_record *const records[] = {
		[TO_VIRTUAL_CLOCK] = &gclk_virtual_clock_record, [TO_KVMCLOCK] = &gclk_kvmclock_record,
		[TO_TSC] = &gclk_tsc_record, [TO_VCPU] = &gclk_vcpu_record,
		[TO_LAPIC] = &gclk_lapic_record, [TO_PIT] = &gclk_pit_record,
		[TO_PIT_CHANNEL] = &gclk_pit_channel_record, [TO_RTC] = &gclk_rtc_record,
		[TO_HPET] = &gclk_hpet_record, [TO_HPET_TIMER] = &gclk_hpet_timer_record,
		[TO_PM_TIMER] = &gclk_pm_timer_record, [TO_I6300ESB] = &gclk_i6300esb_record,
		[TO_TIMER] = &gclk_timer_record,
	};

	return records[target];
}

static void *target_record(const struct gclk_state *state, uint8_t target, unsigned index)
{
	struct gclk_state *s = (struct gclk_state *)(uintptr_t)state;

	switch ((enum target)target) {
	case TO_VIRTUAL_CLOCK: return &s->virtual_clock;
	case TO_KVMCLOCK: return &s->kvmclock;
	case TO_TSC: return &s->tsc[index];
	case TO_VCPU: return &s->vcpu[index];
	case TO_LAPIC: return &s->lapic[index];
	case TO_PIT: return &s->pit;
	case TO_PIT_CHANNEL: return &s->pit.channels[index];
	case TO_RTC: return &s->rtc;
	case TO_HPET: return &s->hpet;
	case TO_HPET_TIMER: return &s->hpet.timers[index];
	case TO_PM_TIMER: return &s->pm_timer;
	case TO_I6300ESB: return &s->i6300esb;
	case TO_TIMER: return &s->timers[index];
	}
	return NULL;
}

/* The alternative of @names that begins at *at, with the index in it; 0 at the end. */
static int next_name(const struct gclk_binding *binding, unsigned index, const char **at,
		     char *text, size_t size)
{
	const char *end, *name = *at, *sub = binding->sub ? binding->sub : "";
	const char *percent;
	size_t n;

	if (!name || !*name) {
		return 0;
	}
	end = strchrnul(name, '|');
	*at = *end ? end + 1 : NULL;
	percent = memmem(name, (size_t)(end - name), "%u", 2);
	if (percent) {
		snprintf(text, size, "%s%.*s%u%.*s", sub, (int)(percent - name), name, index,
			 (int)(end - percent - 2), percent + 2);
		return 1;
	}
	/* all others, without the price of printf() */
	n = GCLK_MIN(strlen(sub), size - 1);
	memcpy(text, sub, n);
	size = GCLK_MIN((size_t)(end - name), size - 1 - n);
	memcpy(text + n, name, size);
	text[n + size] = 0;
	return 1;
}

static bool found(const struct gclk_vmdesc_field *field, const struct gclk_binding *binding)
{
	return field->size * field->count == wire_size(binding);
}

/* By name, alias, fixed offset. Returns 1 when found, 0 when a missing row may be missing. */
static int locate(const struct gclk_tail *tail, const struct gclk_vmdesc_section *section,
		  const struct gclk_binding *binding, unsigned index, uint32_t *ret_offset,
		  struct gclk_error *reterr)
{
	const char *at = binding->names;
	struct gclk_vmdesc_field field;
	char path[160];

	if (binding->sub && !gclk_vmdesc_field(tail->desc, section, binding->sub, &field)) {
		return 0;
	}
	while (next_name(binding, index, &at, path, sizeof(path))) {
		if (gclk_vmdesc_field(tail->desc, section, path, &field) && found(&field, binding)) {
			*ret_offset = field.offset;
			return 1;
		}
	}
	if (binding->offset >= 0) {
		uint32_t start = section->payload, size = section->payload_size, at_offset;

		if (binding->sub) {
			gclk_vmdesc_field(tail->desc, section, binding->sub, &field);
			start = field.offset;
			size = field.size * field.count;
		}
		at_offset = (uint32_t)binding->offset + index * binding->stride;
		if ((binding->sub || section->version == binding->version) &&
		    at_offset + wire_size(binding) <= size) {
			*ret_offset = start + at_offset;
			return 1;
		}
	}
	if (binding->optional) {
		return 0;
	}
	return gclk_fail(reterr, GCLK_UNSUPPORTED, section->name, tail->offset + section->offset,
			 "section %s version %u has no field like %s", section->name,
			 section->version, path);
}

static uint64_t wire_get(const struct gclk_binding *binding, const uint8_t *bytes)
{
	switch ((enum wire)binding->wire) {
	case WIRE_U8: return bytes[0];
	case WIRE_U16: return gclk_get_be16(bytes);
	case WIRE_U32: return gclk_get_be32(bytes);
	case WIRE_U64:
	case WIRE_I64: return gclk_get_be64(bytes);
	case WIRE_I32: return (uint64_t)(int64_t)(int32_t)gclk_get_be32(bytes);
	case WIRE_BYTES:
	case WIRE_WORDS: break;
	}
	return 0;
}

static bool is_signed_field(const struct gclk_field *field)
{
	return field->type == GCLK_TYPE_i32 || field->type == GCLK_TYPE_i64;
}

static bool in_range(const struct gclk_field *field, uint64_t value)
{
	if (is_signed_field(field)) {
		return (int64_t)value >= (int64_t)field->min && (int64_t)value <= (int64_t)field->max;
	}
	return value >= field->min && value <= field->max;
}

/* QEMU keeps words in its own order; the state keeps the page's: little-endian words. */
static void turn_words(uint8_t *to, const uint8_t *from, unsigned size)
{
	for (unsigned i = 0; i < size; i += 4) {
		for (unsigned j = 0; j < 4; j++) {
			to[i + j] = from[i + 3 - j];
		}
	}
}

static int store(const struct gclk_tail *tail, const struct gclk_located *row,
		 struct gclk_state *state, struct gclk_error *reterr)
{
	const struct gclk_binding *binding = row->binding;
	const struct gclk_field *field = &target_table(binding->target)->fields[binding->field];
	const uint8_t *bytes = tail->bytes + row->offset;
	void *record = target_record(state, binding->target, row->index);
	uint64_t value;

	if (binding->wire == WIRE_BYTES || binding->wire == WIRE_WORDS) {
		uint8_t *to = (uint8_t *)record + field->offset;

		if (binding->wire == WIRE_WORDS) {
			turn_words(to, bytes, row->size);
		} else {
			memcpy(to, bytes, row->size);
		}
		*(uint64_t *)record |= UINT64_C(1) << binding->field;
		return 0;
	}
	value = wire_get(binding, bytes);
	if (binding->conversion == BIT_4 && !(value & ~UINT64_C(0x10))) {
		value >>= 4;
	}
	if (binding->conversion == KHZ_TO_HZ &&
	    __builtin_mul_overflow(value, UINT64_C(1000), &value)) {
		value = 0;	/* below the field's minimum: refused next */
	}
	if (!in_range(field, value)) {
		char name[160];

		gclk_located_name(row, name, sizeof(name));
		return gclk_fail(reterr, GCLK_RANGE, row->section->name, tail->offset + row->offset,
				 is_signed_field(field) ? "%s is %" PRId64 ", outside what %s allows" :
							  "%s is %" PRIu64 ", outside what %s allows",
				 name, value, field->name);
	}
	gclk_record_set(record, field, value);
	*(uint64_t *)record |= UINT64_C(1) << binding->field;
	return 0;
}

static struct gclk_located *append(struct gclk_bindings *bindings)
{
	if (bindings->n == bindings->max) {
		size_t max = bindings->max ? 2 * bindings->max : 256;
		void *rows = realloc(bindings->rows, max * sizeof(*bindings->rows));

		if (!rows) {
			return NULL;
		}
		bindings->rows = rows;
		bindings->max = max;
	}
	return &bindings->rows[bindings->n++];
}

static int bind(const struct gclk_tail *tail, const struct gclk_vmdesc_section *section,
		const struct gclk_binding *binding, unsigned index, struct gclk_state *state,
		struct gclk_bindings *bindings, struct gclk_error *reterr)
{
	struct gclk_located *row;
	uint32_t offset = 0;
	int r = locate(tail, section, binding, index, &offset, reterr);

	if (r <= 0) {
		return r;
	}
	row = append(bindings);
	if (!row) {
		return gclk_fail(reterr, GCLK_NOMEM, section->name, GCLK_NO_OFFSET, "out of memory");
	}
	*row = (struct gclk_located){ .binding = binding, .section = section, .offset = offset,
				      .size = (uint16_t)wire_size(binding), .index = (uint16_t)index };
	return store(tail, row, state, reterr);
}

/* How many records of its kind one section holds. */
static unsigned n_indices(const struct gclk_binding *binding, const struct gclk_state *state)
{
	if (!binding->stride) {
		return 1;
	}
	return binding->target == TO_PIT_CHANNEL ? GCLK_COUNT(state->pit.channels) :
						   state->hpet.n_timers;
}

static int bind_section(const struct gclk_tail *tail, const struct gclk_vmdesc_section *section,
			unsigned ordinal, struct gclk_state *state, struct gclk_bindings *bindings,
			struct gclk_error *reterr)
{
	for (size_t i = 0; i < GCLK_COUNT(table); i++) {
		const struct gclk_binding *binding = &table[i];
		unsigned first = binding->stride ? 0 : ordinal;
		int r;

		if (strcmp(binding->section, section->base)) {
			continue;
		}
		for (unsigned n = 0; n < n_indices(binding, state); n++) {
			if ((r = bind(tail, section, binding, first + n, state, bindings, reterr)) < 0) {
				return r;
			}
		}
	}
	return 0;
}

uint32_t gclk_bindings_n_vcpus(const struct gclk_tail *tail)
{
	const struct gclk_vmdesc_section *s = NULL;
	uint32_t n = 0;

	while ((s = gclk_vmdesc_find(tail->desc, "cpu", GCLK_VMDESC_ANY, s))) {
		n++;
	}
	return n;
}

/* Sections that stand once per vCPU, in stream order; all others are taken once. */
static bool is_per_vcpu(const char *base)
{
	return !strcmp(base, "cpu") || !strcmp(base, "apic");
}

static int bind_all(const struct gclk_tail *tail, struct gclk_state *state,
		    struct gclk_bindings *bindings, struct gclk_error *reterr)
{
	const char *last = "";

	for (size_t i = 0; i < GCLK_COUNT(table); i++) {
		const struct gclk_vmdesc_section *s = NULL;
		unsigned ordinal = 0;
		int r;

		if (!strcmp(table[i].section, last)) {
			continue;
		}
		last = table[i].section;
		while ((s = gclk_vmdesc_find(tail->desc, last, GCLK_VMDESC_ANY, s))) {
			if (ordinal >= (is_per_vcpu(last) ? state->n_vcpus : 1)) {
				break;
			}
			if ((r = bind_section(tail, s, ordinal++, state, bindings, reterr)) < 0) {
				return r;
			}
		}
	}
	return 0;
}

/* Timers of devices that are not in the table (R10). */
struct others {
	const struct gclk_tail *tail;
	struct gclk_state *state;
	struct gclk_bindings *bindings;
	struct gclk_error *reterr;
	uint32_t *offsets;	/* of the rows of the table, sorted: there may be millions of timers */
	size_t n_offsets;
};

static int by_offset(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int sort_offsets(struct others *o)
{
	size_t n = o->bindings->n;

	o->offsets = malloc((n + 1) * sizeof(*o->offsets));
	if (!o->offsets) {
		return gclk_fail(o->reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	for (size_t i = 0; i < n; i++) {
		o->offsets[i] = o->bindings->rows[i].offset;
	}
	qsort(o->offsets, n, sizeof(*o->offsets), by_offset);
	o->n_offsets = n;
	return 0;
}

/* By the table, or as the twin of a watchdog's timer: of these there are few. */
static bool is_bound(const struct others *o, uint32_t offset)
{
	if (bsearch(&offset, o->offsets, o->n_offsets, sizeof(offset), by_offset)) {
		return true;
	}
	for (size_t i = o->n_offsets; i < o->bindings->n; i++) {
		if (o->bindings->rows[i].offset == offset) {
			return true;
		}
	}
	return false;
}

static int locate_timer(struct others *o, const struct gclk_vmdesc_section *section,
			uint32_t offset, unsigned index)
{
	struct gclk_located *row = append(o->bindings);

	if (!row) {
		return gclk_fail(o->reterr, GCLK_NOMEM, section->name, GCLK_NO_OFFSET,
				 "out of memory");
	}
	*row = (struct gclk_located){ .binding = &timer_binding, .section = section,
				      .offset = offset, .size = 8, .index = (uint16_t)index };
	return 0;
}

static int locate_watchdog(struct others *o, const struct gclk_vmdesc_leaf *leaf,
			   struct gclk_timer *timer, unsigned index)
{
	for (size_t i = 0; i < GCLK_COUNT(watchdogs); i++) {
		struct gclk_vmdesc_field twin;
		int r;

		if (strcmp(watchdogs[i].section, leaf->section->base) ||
		    strcmp(watchdogs[i].path, leaf->path)) {
			continue;
		}
		GCLK_SET(timer, timer, kind, GCLK_TIMER_WATCHDOG);
		if ((r = locate_timer(o, leaf->section, leaf->offset, index)) < 0) {
			return r;
		}
		if (watchdogs[i].twin &&
		    gclk_vmdesc_field(o->tail->desc, leaf->section, watchdogs[i].twin, &twin) &&
		    twin.size == 8 &&
		    (int64_t)gclk_get_be64(o->tail->bytes + twin.offset) == timer->expiry_ns) {
			return locate_timer(o, leaf->section, twin.offset, index);
		}
	}
	return 0;
}

/* Before 1973 no host clock, and no virtual clock runs for three years. */
#define REALTIME_SINCE_NS INT64_C(100000000000000000)

static int visit_timer(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	struct others *o = ctx;
	struct gclk_state *state = o->state;
	struct gclk_timer *timer;
	int64_t expiry_ns;

	if (leaf->size != 8 || leaf->section->early) {
		return 0;
	}
	expiry_ns = (int64_t)gclk_get_be64(o->tail->bytes + leaf->offset);
	if (expiry_ns < 0 || is_bound(o, leaf->offset)) {
		return 0;
	}
	if (state->n_timers == GCLK_TIMERS_MAX) {
		state->timers_left_out++;
		return 0;
	}
	timer = &state->timers[state->n_timers];
	memset(timer, 0, sizeof(*timer));
	snprintf(timer->name, sizeof(timer->name), "%s#%u/%s", leaf->section->name,
		 leaf->section->instance, leaf->path);
	timer->has |= GCLK_BIT(timer, name);
	GCLK_SET(timer, timer, kind, GCLK_TIMER_OTHER);
	GCLK_SET(timer, timer, axis, expiry_ns >= REALTIME_SINCE_NS ? GCLK_AXIS_REALTIME :
								     GCLK_AXIS_GUEST);
	GCLK_SET(timer, timer, expiry_ns, expiry_ns);
	return locate_watchdog(o, leaf, timer, state->n_timers++);
}

/* What is KVM's, what is TCG's, and whose TSC runs with what. */
static void classify(const struct gclk_tail *tail, struct gclk_state *state)
{
	uint8_t accel = GCLK_ACCEL_TCG;

	if (state->virtual_clock.has & GCLK_BIT(virtual_clock, icount_bias_ns)) {
		accel = GCLK_ACCEL_TCG_ICOUNT;
	} else if (state->kvmclock.has || state->tsc[0].value_ticks) {
		accel = GCLK_ACCEL_KVM;
	}
	GCLK_SET(guest, &state->guest, accelerator, accel);
	if (tail->head.machine[0]) {
		snprintf(state->guest.machine, sizeof(state->guest.machine), "%.*s",
			 (int)sizeof(state->guest.machine) - 1, tail->head.machine);
		state->guest.has |= GCLK_BIT(guest, machine);
	}
}

/* What cpu_clock_offset is where instructions are counted: not the axis. */
static const struct gclk_binding cpu_clock =
	AT("timer", 2, 16, I64, "cpu_clock_offset", TO_VIRTUAL_CLOCK, virtual_clock, cpu_clock_ns);

/*
 * What an instruction takes, as a power of two in ns. With -icount shift=auto it changes and is
 * in the stream, since 5.2; a fixed one is not.
 */
static bool icount_shift(const struct gclk_tail *tail, unsigned *ret)
{
	const struct gclk_vmdesc_section *s =
		gclk_vmdesc_find(tail->desc, "timer", GCLK_VMDESC_ANY, NULL);
	struct gclk_vmdesc_field field;

	if (!s || !gclk_vmdesc_field(tail->desc, s,
				     "timer/icount:timer/icount/shift:icount_time_shift", &field) ||
	    field.size != 2) {
		return false;
	}
	*ret = gclk_get_be16(tail->bytes + field.offset);
	return *ret <= GCLK_ICOUNT_SHIFT_MAX;
}

static bool icount_axis(const struct gclk_tail *tail, const struct gclk_state *state,
			int64_t *ret_ns)
{
	unsigned shift;

	return icount_shift(tail, &shift) ? gclk_icount_at(&state->virtual_clock, shift, ret_ns) :
					    gclk_icount_axis(state, ret_ns);
}

/*
 * Where instructions are counted, the TSC is the axis in ns, and both are none of the
 * readings that an emulator without keeps there.
 */
static void count_instructions(const struct gclk_tail *tail, struct gclk_state *state,
			       struct gclk_bindings *bindings)
{
	struct gclk_virtual_clock *clock = &state->virtual_clock;
	int64_t axis_ns;

	if (state->guest.accelerator != GCLK_ACCEL_TCG_ICOUNT) {
		return;
	}
	for (size_t i = 0; i < bindings->n; i++) {
		if (bindings->rows[i].binding == CPU_CLOCK_ROW) {
			bindings->rows[i].binding = &cpu_clock;
			GCLK_SET(virtual_clock, clock, cpu_clock_ns, clock->clock_ns);
		}
	}
	GCLK_UNSET(virtual_clock, clock, clock_ns);
	if (icount_axis(tail, state, &axis_ns) && axis_ns >= 0) {
		GCLK_SET(virtual_clock, clock, clock_ns, axis_ns);
	}
}

static void finish_tsc(struct gclk_state *state)
{
	const struct gclk_virtual_clock *clock = &state->virtual_clock;
	uint8_t accel = state->guest.accelerator;
	int64_t ticks = accel == GCLK_ACCEL_TCG_ICOUNT ? clock->clock_ns : clock->host_ticks;

	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		struct gclk_tsc *tsc = &state->tsc[i];

		GCLK_SET(tsc, tsc, vcpu, i);
		GCLK_SET(vcpu, &state->vcpu[i], vcpu, i);
		if (accel == GCLK_ACCEL_KVM) {
			GCLK_UNSET(tsc, tsc, emulated_offset_ticks);
			continue;
		}
		/* -cpu tsc-frequency= is saved, but the emulator's ticks keep the host's rate */
		GCLK_UNSET(tsc, tsc, frequency_hz);
		GCLK_UNSET(tsc, tsc, value_ticks);
		if (accel == GCLK_ACCEL_TCG || GCLK_HAS(virtual_clock, clock, clock_ns)) {
			GCLK_SET(tsc, tsc, value_ticks,
				 (uint64_t)ticks + (uint64_t)tsc->emulated_offset_ticks);
		}
		if (accel == GCLK_ACCEL_TCG_ICOUNT) {
			GCLK_SET(tsc, tsc, frequency_hz, UINT64_C(1000000000));
		}
	}
}

static void finish_lapics(struct gclk_state *state)
{
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		struct gclk_lapic *lapic = &state->lapic[i];

		if (lapic->has) {
			GCLK_SET(lapic, lapic, vcpu, i);
			GCLK_SET(lapic, lapic, dialect, GCLK_DIALECT_QEMU);
			GCLK_SET(lapic, lapic, in_kernel,
				 state->guest.accelerator == GCLK_ACCEL_KVM);
		}
	}
}

/*
 * The stream does not say which clock drives the RTC; the size of its instants
 * does: since 1970 on the host's, since the guest's start on the shared axis.
 */
static void finish_rtc(struct gclk_state *state)
{
	struct gclk_rtc *rtc = &state->rtc;

	if (!rtc->has) {
		return;
	}
	GCLK_SET(rtc, rtc, dialect, GCLK_DIALECT_QEMU);
	if (rtc->base_at_ns >= REALTIME_SINCE_NS || rtc->base_at_ns < -REALTIME_SINCE_NS) {
		GCLK_SET(rtc, rtc, axis, GCLK_AXIS_REALTIME);
	} else if (rtc->base_at_ns <= state->virtual_clock.clock_ns) {
		GCLK_SET(rtc, rtc, axis, GCLK_AXIS_GUEST);
	} else {
		GCLK_SET(rtc, rtc, axis, GCLK_AXIS_MONOTONIC);
	}
	if (rtc->owed_ticks || rtc->reinject_on_ack) {
		GCLK_SET(rtc, rtc, catches_up, 1);
	}
}

/* Machine types up to 2.11 send no offset: there it follows from the counter and the axis. */
static void finish_hpet(struct gclk_state *state)
{
	struct gclk_hpet *hpet = &state->hpet;

	if (!hpet->has) {
		return;
	}
	GCLK_SET(hpet, hpet, dialect, GCLK_DIALECT_QEMU);
	GCLK_SET(hpet, hpet, period_fs, HPET_TICK_NS * 1000000);
	if ((hpet->config & HPET_ENABLE) && !GCLK_HAS(hpet, hpet, offset_ns) &&
	    GCLK_HAS(virtual_clock, &state->virtual_clock, clock_ns)) {
		GCLK_SET(hpet, hpet, counter_at_ns, state->virtual_clock.clock_ns);
	}
}

static void finish_devices(const struct gclk_tail *tail, struct gclk_state *state)
{
	if (state->pit.has) {
		GCLK_SET(pit, &state->pit, dialect, GCLK_DIALECT_QEMU);
		GCLK_SET(pit, &state->pit, in_kernel, state->guest.accelerator == GCLK_ACCEL_KVM);
	}
	finish_hpet(state);
	if (state->pm_timer.has) {
		GCLK_SET(pm_timer, &state->pm_timer, bits, 24);
	}
	if (state->kvmclock.has && !GCLK_HAS(kvmclock, &state->kvmclock, reliable)) {
		GCLK_SET(kvmclock, &state->kvmclock, reliable, 0);
	}
	(void)tail;
}

/* globalstate: a length and the name of the run state when the migration began. */
static void read_run_state(const struct gclk_tail *tail, struct gclk_state *state)
{
	const struct gclk_vmdesc_section *s =
		gclk_vmdesc_find(tail->desc, "globalstate", GCLK_VMDESC_ANY, NULL);
	static const struct { const char *name; uint8_t state; } known[] = {
		{ "running", GCLK_RUN_RUNNING }, { "paused", GCLK_RUN_PAUSED },
		{ "suspended", GCLK_RUN_SUSPENDED }, { "prelaunch", GCLK_RUN_PAUSED },
		{ "save-vm", GCLK_RUN_PAUSED },
	};

	for (size_t i = 0; s && s->payload_size >= 104 && i < GCLK_COUNT(known); i++) {
		if (!strncmp((const char *)tail->bytes + s->payload + 4, known[i].name, 100)) {
			GCLK_SET(guest, &state->guest, run_state, known[i].state);
		}
	}
}

int gclk_bindings_read(const struct gclk_tail *tail, struct gclk_state *state,
		       struct gclk_bindings *ret, struct gclk_error *reterr)
{
	struct others o = { tail, state, ret, reterr, NULL, 0 };
	int r;

	*ret = (struct gclk_bindings){ 0 };
	gclk_state_clear(state);
	state->hpet.n_timers = 0;
	if ((r = bind_all(tail, state, ret, reterr)) == 0 && (r = sort_offsets(&o)) == 0) {
		r = gclk_vmdesc_walk(tail->desc, "timer", visit_timer, &o);
	}
	free(o.offsets);
	if (r < 0) {
		gclk_bindings_free(ret);
		return r;
	}
	classify(tail, state);
	read_run_state(tail, state);
	count_instructions(tail, state, ret);
	finish_tsc(state);
	finish_lapics(state);
	finish_rtc(state);
	finish_devices(tail, state);
	return 0;
}

void gclk_bindings_free(struct gclk_bindings *bindings)
{
	free(bindings->rows);
	*bindings = (struct gclk_bindings){ 0 };
}

void gclk_located_name(const struct gclk_located *row, char *text, size_t size)
{
	const char *at = row->binding->names;
	char path[160] = "timer";
	const char *name = path;

	if (next_name(row->binding, row->index, &at, path, sizeof(path)) && row->binding->sub) {
		name += strlen(row->binding->sub);
	}
	snprintf(text, size, "%s", name + (*name == '='));
}

void gclk_located_section(const struct gclk_located *row, char *text, size_t size)
{
	if (row->binding->sub) {
		snprintf(text, size, "%.*s", (int)strlen(row->binding->sub) - 1, row->binding->sub);
	} else {
		snprintf(text, size, "%s", row->section->name);
	}
}

uint64_t gclk_located_value(const struct gclk_located *row, const uint8_t *bytes, int *ret_signed)
{
	*ret_signed = row->binding->wire == WIRE_I32 || row->binding->wire == WIRE_I64;
	return wire_get(row->binding, bytes);
}

static int wire_put(const struct gclk_located *row, uint64_t value, uint8_t *bytes)
{
	unsigned bits = 8 * row->size;
	bool is_signed = row->binding->wire == WIRE_I32;

	if (bits < 64 && (is_signed ? (int64_t)value != (int64_t)(int32_t)value : value >> bits)) {
		return -GCLK_RANGE;
	}
	for (unsigned i = 0; i < row->size; i++) {
		bytes[i] = (uint8_t)(value >> (bits - 8 * (i + 1)));
	}
	return 0;
}

/* Members that are computed from others, or about the capture rather than the guest. */
static bool is_derived(const struct gclk_state *state, const struct gclk_record *record,
		       unsigned field)
{
	return (record == &gclk_tsc_record && field == gclk_tsc_f_value_ticks &&
		state->guest.accelerator != GCLK_ACCEL_KVM) ||
	       (record == &gclk_virtual_clock_record && field == gclk_virtual_clock_f_clock_ns &&
		state->guest.accelerator == GCLK_ACCEL_TCG_ICOUNT) ||
	       (record == &gclk_kvmclock_record && field == gclk_kvmclock_f_read_after_stop_ns);
}

/*
 * The HPET's counter at the axis' place. It rides on the axis, but the field in the stream
 * matters: where no offset is sent, every loader takes the offset from it, and since
 * QEMU 9.1 a loader extends 32-bit comparators from it.
 */
static uint64_t hpet_counter(const struct gclk_state *state)
{
	const struct gclk_hpet *hpet = &state->hpet;
	uint64_t axis_ns = (uint64_t)state->virtual_clock.clock_ns;

	if (!(hpet->config & HPET_ENABLE) ||
	    !GCLK_HAS(virtual_clock, &state->virtual_clock, clock_ns)) {
		return hpet->counter_ticks;
	}
	if (GCLK_HAS(hpet, hpet, offset_ns)) {
		return (axis_ns + (uint64_t)hpet->offset_ns) / HPET_TICK_NS;
	}
	if (GCLK_HAS(hpet, hpet, counter_at_ns)) {
		return hpet->counter_ticks +
		       (uint64_t)(((int64_t)axis_ns - hpet->counter_at_ns) / (int64_t)HPET_TICK_NS);
	}
	return hpet->counter_ticks;
}

/*
 * A 32-bit comparator of a periodic timer that is due: the point of its grid behind the
 * counter. Loaders up to 8.2 reach that point by themselves when the timer expires; one
 * since 9.1 takes a comparator that the counter has passed for one of the next turn,
 * 43 s later, and the guest would have no tick until then. When it expires stays.
 */
static uint64_t hpet_comparator(const struct gclk_state *state, unsigned n)
{
	const struct gclk_hpet_timer *timer = &state->hpet.timers[n];
	uint32_t period = (uint32_t)timer->period_ticks;
	uint32_t behind = (uint32_t)(hpet_counter(state) - timer->comparator_ticks);

	if (!(state->hpet.config & HPET_ENABLE) || (timer->config & HPET_NARROW) != HPET_NARROW ||
	    timer->expiry_ns == GCLK_TIMER_OFF || !period || (period | behind) >> 31) {
		return timer->comparator_ticks;
	}
	return (uint32_t)(timer->comparator_ticks + (uint64_t)(behind / period + 1) * period);
}

/* What stands in the stream for a member, where it is not the member itself. */
static uint64_t wire_value(const struct gclk_state *state, const struct gclk_record *record,
			   unsigned field, unsigned index, uint64_t value)
{
	if (is_derived(state, record, field)) {
		return 0;	/* env.tsc of an emulated guest, whose TSC is the tick counter */
	}
	if (record == &gclk_hpet_record && field == gclk_hpet_f_counter_ticks) {
		return hpet_counter(state);
	}
	if (record == &gclk_hpet_timer_record && field == gclk_hpet_timer_f_comparator_ticks) {
		return hpet_comparator(state, index);
	}
	return value;
}

int gclk_located_encode(const struct gclk_located *row, const struct gclk_state *state,
			uint8_t *bytes, struct gclk_error *reterr)
{
	const struct gclk_binding *binding = row->binding;
	const struct gclk_field *field = &target_table(binding->target)->fields[binding->field];
	const void *record = target_record(state, binding->target, row->index);
	uint64_t value;

	if (binding->wire == WIRE_BYTES) {
		memcpy(bytes, (const uint8_t *)record + field->offset, row->size);
		return 0;
	}
	if (binding->wire == WIRE_WORDS) {
		turn_words(bytes, (const uint8_t *)record + field->offset, row->size);
		return 0;
	}
	value = wire_value(state, target_table(binding->target), binding->field, row->index,
			   gclk_record_get(record, field));
	if (binding->conversion == KHZ_TO_HZ) {
		if (value % 1000) {
			return gclk_fail(reterr, GCLK_LOSSY, field->name, GCLK_NO_OFFSET,
					 "%" PRIu64 " Hz is not a whole number of kHz", value);
		}
		value /= 1000;
	} else if (binding->conversion == BIT_4) {
		value <<= 4;
	}
	if (wire_put(row, value, bytes) < 0) {
		return gclk_fail(reterr, GCLK_RANGE, field->name, GCLK_NO_OFFSET,
				 "%" PRIu64 " does not fit %u bytes", value, row->size);
	}
	return 0;
}

/* What is covered by which rows; records and rows come in much the same order. */
struct covering {
	const struct gclk_bindings *bindings;
	const struct gclk_state *before;
	size_t near;	/* the row that was found last */
};

static bool is_row(const struct covering *c, size_t i, const void *base, unsigned field)
{
	const struct gclk_located *row = &c->bindings->rows[i];

	return row->binding->field == field &&
	       target_record(c->before, row->binding->target, row->index) == base;
}

/* From the last one outwards: with thousands of vCPUs all rows would be far too many. */
static bool has_row(struct covering *c, const void *base, unsigned field)
{
	size_t n = c->bindings->n;

	for (size_t away = 0; away < n; away++) {
		if (c->near + away < n && is_row(c, c->near + away, base, field)) {
			c->near += away;
			return true;
		}
		if (away <= c->near && is_row(c, c->near - away, base, field)) {
			c->near -= away;
			return true;
		}
	}
	return false;
}

static int cover_record(struct covering *c, const struct gclk_record *record,
			const uint8_t *a, const uint8_t *b, struct gclk_error *reterr)
{
	for (unsigned i = 0; i < record->n_fields; i++) {
		const struct gclk_field *field = &record->fields[i];

		if (memcmp(a + field->offset, b + field->offset, field->size) &&
		    !is_derived(c->before, record, i) && !has_row(c, a, i)) {
			return gclk_fail(reterr, GCLK_UNSUPPORTED, record->name, GCLK_NO_OFFSET,
					 "%s.%s changes, but the image has no place for it",
					 record->name, field->name);
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned n = 0; n < sub->max; n++) {
			size_t at = sub->offset + (size_t)n * sub->record->size;
			int r = cover_record(c, sub->record, a + at, b + at, reterr);

			if (r < 0) {
				return r;
			}
		}
	}
	return 0;
}

int gclk_bindings_cover(const struct gclk_bindings *bindings, const struct gclk_state *before,
			const struct gclk_state *after, struct gclk_error *reterr)
{
	struct covering c = { bindings, before, 0 };

	for (unsigned i = 0; i < gclk_n_parts; i++) {
		uint32_t n, m;
		const uint8_t *a = gclk_state_part(before, &gclk_parts[i], &n);
		const uint8_t *b = gclk_state_part(after, &gclk_parts[i], &m);

		for (uint32_t k = 0; k < n && k < m; k++) {
			size_t at = (size_t)k * gclk_parts[i].record->size;
			int r = cover_record(&c, gclk_parts[i].record, a + at, b + at, reterr);

			if (r < 0) {
				return r;
			}
		}
	}
	return 0;
}
