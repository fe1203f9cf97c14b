/* SPDX-License-Identifier: MIT */
/*
 * The clock state of one x86 guest: every clock and timer, at one instant.
 *
 * All of it is plain values: no pointers into foreign memory, copied by
 * assignment, compared field by field. Instants are ns on the guest's shared
 * axis (GUEST_NS), which counts from the guest's own start and is named by
 * virtual_clock.clock_ns at the capture; the real-time clock alone may stand on
 * another axis, which its .axis names (AXIS_NS).
 */
#ifndef GUESTCLOCK_STATE_H
#define GUESTCLOCK_STATE_H

#include <guestclock/record.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GCLK_VCPUS_MAX 4096
#define GCLK_TIMERS_MAX 256		/* other armed timers that a state can list */
#define GCLK_HPET_TIMERS_MAX 32
#define GCLK_INCOMPATIBLE_MAX 8

#define GCLK_I64_MIN ((uint64_t)INT64_MIN)
#define GCLK_I64_MAX ((uint64_t)INT64_MAX)
#define GCLK_TIMER_OFF (-1)		/* an expiry or transition that is not armed */

extern const struct gclk_name *const gclk_axis_names, *const gclk_dialect_names,
	*const gclk_run_state_names, *const gclk_accelerator_names,
	*const gclk_kvmclock_flag_names, *const gclk_pvclock_flag_names,
	*const gclk_pit_rw_names, *const gclk_pit_status_names, *const gclk_hpet_config_names,
	*const gclk_hpet_timer_config_names, *const gclk_lvtt_names,
	*const gclk_timer_kind_names, *const gclk_bool_names;

/* The clock that an instant is read from. */
enum gclk_axis {
	GCLK_AXIS_GUEST = 0,		/* virtual_clock: counts while the guest is loaded and running */
	GCLK_AXIS_REALTIME = 1,		/* the host's CLOCK_REALTIME */
	GCLK_AXIS_MONOTONIC = 2,	/* the host's CLOCK_MONOTONIC */
};

/* Whose device it is: where implementations differ, the guest goes on with its own. */
enum gclk_dialect {
	GCLK_DIALECT_DATASHEET = 0,
	GCLK_DIALECT_QEMU = 1,
	GCLK_DIALECT_KVM = 2,
};

enum gclk_run_state {
	GCLK_RUN_UNKNOWN = 0,
	GCLK_RUN_RUNNING = 1,		/* stopped by the capture itself */
	GCLK_RUN_PAUSED = 2,		/* stood already when the capture began */
	GCLK_RUN_SUSPENDED = 3,		/* ACPI S3 */
};

enum gclk_accelerator {
	GCLK_ACCEL_UNKNOWN = 0,
	GCLK_ACCEL_KVM = 1,		/* hardware: TSC and kvmclock by the kernel */
	GCLK_ACCEL_TCG = 2,		/* emulation: TSC from the emulator's tick counter */
	GCLK_ACCEL_TCG_ICOUNT = 3,	/* emulation: time from the count of instructions */
};

/* clang-format off */

/* The guest as a whole. */
#define GCLK_GUEST_FIELDS(F, E, M, B, S, R) \
	S(R, 64,  machine,                           "machine type, as the source names it") \
	S(R, 256, name,                              "the guest's name") \
	S(R, 37,  uuid,                              "the guest's UUID, in lower case") \
	E(R, u8,  accelerator, gclk_accelerator_names, "what runs the guest's instructions") \
	E(R, u8,  run_state, gclk_run_state_names,   "what the guest was doing when the capture began") \
	F(R, u64, ram_bytes, COUNT, 0, UINT64_MAX,   "size of guest memory, bytes") \
	F(R, u32, loader_version, NONE, 0, UINT32_MAX, "version of the machine type: major * 100 + minor")

/* One vCPU's time-stamp counter. */
#define GCLK_TSC_FIELDS(F, E, M, B, S, R) \
	F(R, u32, vcpu, NONE, 0, GCLK_VCPUS_MAX - 1,   "vCPU index") \
	F(R, u64, value_ticks, TICKS, 0, UINT64_MAX,   "what RDTSC reads at the capture") \
	F(R, u64, frequency_hz, HZ, 1, UINT64_MAX,     "guest frequency, Hz (over frequency_den)") \
	F(R, u64, frequency_den, NONE, 1, UINT64_MAX,  "denominator of the frequency; absent: 1") \
	F(R, u64, measured_hz, HZ, 1, UINT64_MAX,      "frequency measured while the guest ran") \
	F(R, u32, measured_ppb, PPB, 0, UINT32_MAX,    "uncertainty of measured_hz") \
	F(R, i64, offset_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "guest TSC minus scaled host TSC, modulo 2^64") \
	F(R, i64, offset_read_back_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "the same, as read back after writing") \
	F(R, u64, ratio, NONE, 1, UINT64_MAX,          "scaling multiplier, fixed point with ratio_frac_bits") \
	F(R, u8,  ratio_frac_bits, BITS, 0, 63,        "fraction bits of ratio: 48 Intel, 32 AMD") \
	F(R, u64, host_ticks, TICKS, 0, UINT64_MAX,    "host TSC at the instant of value_ticks") \
	F(R, i64, emulated_offset_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "what an emulator adds to its tick counter for RDTSC") \
	F(R, i64, adjust_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "IA32_TSC_ADJUST (0x3b)") \
	F(R, u64, aux, HEX, 0, UINT64_MAX,             "IA32_TSC_AUX (0xc0000103)") \
	F(R, u64, deadline_ticks, TICKS, 0, UINT64_MAX, "IA32_TSC_DEADLINE (0x6e0), guest TSC; 0: not armed") \
	F(R, u64, amd_ratio_msr, HEX, 0, UINT64_MAX,   "guest's own MSR_AMD64_TSC_RATIO (0xc0000104)") \
	F(R, i64, last_run_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the vCPU last ran")

/* The paravirtual clock of the guest. */
#define GCLK_KVMCLOCK_FIELDS(F, E, M, B, S, R) \
	F(R, u64, clock_ns, NS, 0, UINT64_MAX,         "kvmclock as captured") \
	F(R, u64, read_after_stop_ns, NS, 0, UINT64_MAX, "how long after the stop clock_ns was read: it went on counting") \
	E(R, u8,  reliable, gclk_bool_names,           "clock_ns may be restored as it stands; else it is recomputed from the guest's page") \
	M(R, u32, flags, gclk_kvmclock_flag_names,               "KVM_GET_CLOCK flags") \
	F(R, u64, realtime_ns, REALTIME_NS, 0, UINT64_MAX, "host CLOCK_REALTIME at clock_ns") \
	F(R, u64, host_ticks, TICKS, 0, UINT64_MAX,    "host TSC at clock_ns")

/* One vCPU's clock MSRs and its copy of the paravirtual clock page. */
#define GCLK_VCPU_FIELDS(F, E, M, B, S, R) \
	F(R, u32, vcpu, NONE, 0, GCLK_VCPUS_MAX - 1,   "vCPU index") \
	F(R, u32, mp_state, NONE, 0, UINT32_MAX,       "KVM_MP_STATE_*") \
	F(R, u64, system_time_msr, ADDRESS, 0, UINT64_MAX, "MSR_KVM_SYSTEM_TIME_NEW (0x4b564d01): page address | 1") \
	F(R, u64, wall_clock_msr, ADDRESS, 0, UINT64_MAX,  "MSR_KVM_WALL_CLOCK_NEW (0x4b564d00)") \
	F(R, u64, system_time_old_msr, ADDRESS, 0, UINT64_MAX, "MSR_KVM_SYSTEM_TIME (0x12)") \
	F(R, u64, wall_clock_old_msr, ADDRESS, 0, UINT64_MAX,  "MSR_KVM_WALL_CLOCK (0x11)") \
	F(R, u64, steal_time_msr, ADDRESS, 0, UINT64_MAX,  "MSR_KVM_STEAL_TIME (0x4b564d03)") \
	F(R, u64, steal_ns, NS, 0, UINT64_MAX,         "steal time counted so far") \
	F(R, u64, async_pf_en_msr, HEX, 0, UINT64_MAX, "MSR_KVM_ASYNC_PF_EN (0x4b564d02)") \
	F(R, u64, async_pf_int_msr, HEX, 0, UINT64_MAX, "MSR_KVM_ASYNC_PF_INT (0x4b564d06)") \
	F(R, u64, pv_eoi_msr, HEX, 0, UINT64_MAX,      "MSR_KVM_PV_EOI_EN (0x4b564d04)") \
	F(R, u64, poll_control_msr, HEX, 0, UINT64_MAX, "MSR_KVM_POLL_CONTROL (0x4b564d05)") \
	F(R, u64, hv_reference_tsc_msr, ADDRESS, 0, UINT64_MAX, "HV_X64_MSR_REFERENCE_TSC (0x40000021)") \
	F(R, u64, hv_vp_runtime_100ns, COUNT, 0, UINT64_MAX, "HV_X64_MSR_VP_RUNTIME (0x40000010), 100 ns") \
	F(R, u64, hv_reenlightenment_msr, HEX, 0, UINT64_MAX, "HV_X64_MSR_REENLIGHTENMENT_CONTROL (0x40000106)") \
	F(R, u64, hv_tsc_emulation_control_msr, HEX, 0, UINT64_MAX, "HV_X64_MSR_TSC_EMULATION_CONTROL (0x40000107)") \
	F(R, u64, hv_tsc_emulation_status_msr, HEX, 0, UINT64_MAX, "HV_X64_MSR_TSC_EMULATION_STATUS (0x40000108)") \
	F(R, u64, hv_tsc_invariant_msr, HEX, 0, UINT64_MAX, "HV_X64_MSR_TSC_INVARIANT_CONTROL (0x40000118)") \
	F(R, u64, stimer0_config, HEX, 0, UINT64_MAX,  "HV_X64_MSR_STIMER0_CONFIG") \
	F(R, u64, stimer0_count, COUNT, 0, UINT64_MAX, "HV_X64_MSR_STIMER0_COUNT, 100 ns of reference time") \
	F(R, u64, stimer1_config, HEX, 0, UINT64_MAX,  "HV_X64_MSR_STIMER1_CONFIG") \
	F(R, u64, stimer1_count, COUNT, 0, UINT64_MAX, "HV_X64_MSR_STIMER1_COUNT") \
	F(R, u64, stimer2_config, HEX, 0, UINT64_MAX,  "HV_X64_MSR_STIMER2_CONFIG") \
	F(R, u64, stimer2_count, COUNT, 0, UINT64_MAX, "HV_X64_MSR_STIMER2_COUNT") \
	F(R, u64, stimer3_config, HEX, 0, UINT64_MAX,  "HV_X64_MSR_STIMER3_CONFIG") \
	F(R, u64, stimer3_count, COUNT, 0, UINT64_MAX, "HV_X64_MSR_STIMER3_COUNT") \
	F(R, u64, pvclock_tsc_ticks, TICKS, 0, UINT64_MAX, "pvclock page: tsc_timestamp") \
	F(R, u64, pvclock_system_ns, NS, 0, UINT64_MAX,    "pvclock page: system_time") \
	F(R, u32, pvclock_mul, HEX, 0, UINT32_MAX,     "pvclock page: tsc_to_system_mul") \
	F(R, i32, pvclock_shift, NONE, (uint64_t)-31, 31, "pvclock page: tsc_shift") \
	M(R, u8,  pvclock_flags, gclk_pvclock_flag_names, "pvclock page: flags")

/* The shared axis: an emulator's virtual clock, and the tick counter beside it. */
#define GCLK_VIRTUAL_CLOCK_FIELDS(F, E, M, B, S, R) \
	F(R, i64, clock_ns, GUEST_NS, 0, GCLK_I64_MAX, "the shared axis at the capture") \
	F(R, i64, host_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "the emulator's tick counter at the capture") \
	F(R, i64, icount_bias_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "what is added to the counted instructions' time") \
	F(R, i64, icount, COUNT, 0, GCLK_I64_MAX,      "instructions counted") \
	F(R, u32, apic_bus_ns, NS, 1, 1000000,         "period of the APIC bus clock; absent: 1") \
	F(R, i64, cpu_clock_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "the emulator's clock beside the axis, where it counts instructions") \
	F(R, i64, host_monotonic_ns, NS, 0, GCLK_I64_MAX, "the host's CLOCK_MONOTONIC at the capture")

/* One channel of the i8254 (Intel 8254 data sheet). */
#define GCLK_PIT_CHANNEL_FIELDS(F, E, M, B, S, R) \
	F(R, u32, count, TICKS, 1, 65536,              "reload value; 0 as written stands as 65536") \
	F(R, u8,  mode, NONE, 0, 255,                  "operating mode 0..5; 255: never programmed") \
	E(R, u8,  bcd, gclk_bool_names,                "counts in BCD") \
	E(R, u8,  gate, gclk_bool_names,               "level of the gate input") \
	F(R, i64, load_time_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the count was last loaded") \
	F(R, i64, next_transition_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the output next changes; -1: not armed") \
	E(R, u8,  rw_mode, gclk_pit_rw_names,          "access mode of the control word") \
	E(R, u8,  read_state, gclk_pit_rw_names,       "which byte is read next") \
	E(R, u8,  write_state, gclk_pit_rw_names,      "which byte is written next") \
	F(R, u8,  write_latch, HEX, 0, 255,            "low byte of a count half written") \
	F(R, u16, latched_count, TICKS, 0, 65535,      "count held by a counter latch command") \
	F(R, u8,  count_latched, NONE, 0, 4,           "0, or the access mode still to be read") \
	M(R, u8,  status, gclk_pit_status_names,       "status byte held by a read-back command") \
	E(R, u8,  status_latched, gclk_bool_names,     "a status byte is held") \
	E(R, u8,  null_count, gclk_bool_names,         "the last count written has not been loaded") \
	E(R, u8,  irq_level, gclk_bool_names,          "level of OUT") \
	F(R, u32, pending_count, TICKS, 0, 65536,      "count written but not loaded yet; 0: none") \
	F(R, i64, pending_at_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when pending_count is loaded; -1: at the next trigger") \
	F(R, i64, held_ticks, TICKS, -1, GCLK_I64_MAX, "clocks counted when the gate stopped the channel; -1: it counts") \
	E(R, u8,  triggered, gclk_bool_names,          "a mode that waits for the gate has been started") \
	F(R, u32, owed_ticks, COUNT, 0, UINT32_MAX,    "expiries not yet delivered")

/* The i8254. */
#define GCLK_PIT_FIELDS(F, E, M, B, S, R) \
	E(R, u8,  dialect, gclk_dialect_names,         "whose device it is") \
	E(R, u8,  irq_disabled, gclk_bool_names,       "channel 0 is silenced by the HPET's legacy mode") \
	E(R, u8,  speaker_data, gclk_bool_names,       "port 0x61 bit 1") \
	E(R, u8,  dummy_refresh_clock, gclk_bool_names, "port 0x61 refresh toggle") \
	E(R, u8,  in_kernel, gclk_bool_names,          "the kernel's device: its phase restarts when it is set") \
	E(R, u8,  reinject, gclk_bool_names,           "the kernel queues ticks and delivers one per acknowledge")

/* The MC146818 real-time clock. */
#define GCLK_RTC_FIELDS(F, E, M, B, S, R) \
	E(R, u8,  dialect, gclk_dialect_names,         "whose device it is") \
	E(R, u8,  axis, gclk_axis_names,               "the clock that drives it") \
	B(R, 128, cmos,                                "the registers and the RAM behind them") \
	F(R, u8,  cmos_index, HEX, 0, 255,             "the index register; bit 7 masks the NMI") \
	F(R, i64, base_s, SECONDS, GCLK_I64_MIN, GCLK_I64_MAX, "seconds since 1970 shown at base_at_ns") \
	F(R, i64, base_at_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when base_s was the time shown") \
	F(R, i64, offset_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "added to the time shown") \
	F(R, i64, periodic_expiry_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the periodic timer fires; -1: not armed") \
	F(R, i64, next_periodic_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "the next periodic interrupt's own instant") \
	F(R, u32, period_clocks, TICKS, 0, 32768,      "periodic interval, 1/32768 s; 0: off") \
	F(R, i64, update_expiry_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the update and alarm timer fires; -1: not armed") \
	F(R, i64, next_alarm_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the alarm next matches") \
	F(R, u32, owed_ticks, COUNT, 0, UINT32_MAX,    "periodic ticks owed to the guest") \
	F(R, u16, reinject_on_ack, COUNT, 0, 65535,    "ticks reinjected in a row on acknowledge") \
	F(R, i64, coalesced_expiry_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the next owed tick is replayed; -1: not armed") \
	E(R, u8,  irq_pending, gclk_bool_names,        "raised and not yet taken by a processor; absent: nobody says when it is taken") \
	E(R, u8,  catches_up, gclk_bool_names,         "the device replays owed ticks by itself") \
	E(R, u8,  irq_level, gclk_bool_names,          "level of the interrupt line")

/* One comparator of the HPET (IA-PC HPET 1.0a). */
#define GCLK_HPET_TIMER_FIELDS(F, E, M, B, S, R) \
	F(R, u8,  index, NONE, 0, GCLK_HPET_TIMERS_MAX - 1, "number of the timer") \
	M(R, u64, config, gclk_hpet_timer_config_names, "configuration and capability register") \
	F(R, u64, comparator_ticks, TICKS, 0, UINT64_MAX, "comparator register") \
	F(R, u64, period_ticks, TICKS, 0, UINT64_MAX,  "what is added to the comparator in periodic mode") \
	F(R, u64, fsb_route, HEX, 0, UINT64_MAX,       "FSB interrupt route register") \
	E(R, u8,  wrap, gclk_bool_names,               "a 32-bit timer waits for the counter to wrap first") \
	F(R, i64, expiry_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when it next fires; -1: not armed") \
	E(R, u8,  irq_level, gclk_bool_names,          "level of its line") \
	F(R, u32, owed_ticks, COUNT, 0, UINT32_MAX,    "expiries not yet delivered")

/* The HPET. */
#define GCLK_HPET_FIELDS(F, E, M, B, S, R) \
	E(R, u8,  dialect, gclk_dialect_names,         "whose device it is") \
	M(R, u64, config, gclk_hpet_config_names,      "general configuration register") \
	F(R, u64, isr, HEX, 0, UINT64_MAX,             "general interrupt status register") \
	F(R, u64, counter_ticks, TICKS, 0, UINT64_MAX, "main counter at the capture") \
	F(R, u32, counter_frac_fs, FS, 0, 99999999,    "part of a tick beyond counter_ticks") \
	F(R, i64, counter_at_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when counter_ticks was the reading; absent: at the capture") \
	F(R, u32, capability, HEX, 0, UINT32_MAX,      "low half of the capability register: vendor, features, revision") \
	E(R, u8,  exact, gclk_bool_names,              "expiries are handled in their very ns (counted instructions)") \
	F(R, u32, period_fs, FS, 1, 100000000,         "period of the main counter") \
	F(R, i64, offset_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "counter in ns minus the shared axis, while enabled") \
	F(R, u8,  n_timers, COUNT, 1, GCLK_HPET_TIMERS_MAX, "timers that the device has") \
	F(R, u8,  rtc_irq_level, NONE, 0, 255,         "the RTC's line, kept while legacy mode hides it") \
	F(R, u8,  pit_irq_level, NONE, 0, 255,         "the PIT's line, kept while legacy mode hides it")

/* One local APIC's timer (SDM 10.5.4). */
#define GCLK_LAPIC_FIELDS(F, E, M, B, S, R) \
	F(R, u32, vcpu, NONE, 0, GCLK_VCPUS_MAX - 1,   "vCPU index") \
	E(R, u8,  dialect, gclk_dialect_names,         "whose device it is") \
	E(R, u8,  in_kernel, gclk_bool_names,          "the kernel's device") \
	F(R, u64, apic_base, ADDRESS, 0, UINT64_MAX,   "IA32_APIC_BASE") \
	F(R, u32, spurious_vector, HEX, 0, UINT32_MAX, "spurious interrupt vector register") \
	M(R, u32, lvt_timer, gclk_lvtt_names,          "LVT timer register: vector, mask, mode") \
	F(R, u32, initial_count, TICKS, 0, UINT32_MAX, "TMICT") \
	F(R, u32, current_count, TICKS, 0, UINT32_MAX, "TMCCT as captured") \
	F(R, u32, divide_config, HEX, 0, 15,           "TDCR") \
	F(R, u8,  divide_shift, BITS, 0, 7,            "log2 of the divider") \
	F(R, u32, bus_ns, NS, 1, 1000000,              "period of the bus clock that is divided; absent: 1") \
	F(R, i64, load_time_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the count was last loaded") \
	F(R, i64, next_time_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "the next expiry's own instant") \
	F(R, i64, expiry_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the timer is armed for; -1: not armed") \
	F(R, i64, captured_at_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when current_count was read") \
	E(R, u8,  pending, gclk_bool_names,            "expired, the interrupt not yet delivered") \
	B(R, 32,  isr,                                 "in-service register, little-endian words") \
	B(R, 32,  tmr,                                 "trigger mode register") \
	B(R, 32,  irr,                                 "interrupt request register") \
	F(R, u32, owed_ticks, COUNT, 0, UINT32_MAX,    "expiries not yet delivered")

/* The ACPI power management timer: 3.579545 MHz, a view of the shared axis. */
#define GCLK_PM_TIMER_FIELDS(F, E, M, B, S, R) \
	F(R, u8,  bits, BITS, 24, 32,                  "width of the counter") \
	F(R, i64, offset_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "added to the shared axis; absent: 0") \
	F(R, i64, expiry_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the overflow interrupt fires; -1: not armed") \
	F(R, i64, overflow_ticks, TICKS, GCLK_I64_MIN, GCLK_I64_MAX, "the counter's next overflow") \
	F(R, u16, status, HEX, 0, 65535,               "PM1 status register; bit 0: TMR_STS") \
	F(R, u16, enable, HEX, 0, 65535,               "PM1 enable register; bit 0: TMR_EN") \
	E(R, u8,  irq_level, gclk_bool_names,          "level of the system control interrupt")

/* The i6300ESB watchdog. */
#define GCLK_I6300ESB_FIELDS(F, E, M, B, S, R) \
	E(R, u8,  enabled, gclk_bool_names,            "the watchdog counts") \
	F(R, u8,  stage, NONE, 1, 2,                   "stage that runs: 1 interrupt, 2 reset") \
	F(R, u32, preload1, TICKS, 0, 0xfffff,         "first stage") \
	F(R, u32, preload2, TICKS, 0, 0xfffff,         "second stage") \
	F(R, u32, clock_scale, NONE, 0, 1,             "0: 1 kHz, 1: 1 MHz") \
	E(R, u8,  reboot_enabled, gclk_bool_names,     "the second stage resets the guest") \
	E(R, u8,  free_run, gclk_bool_names,           "the first stage reloads itself") \
	E(R, u8,  locked, gclk_bool_names,             "the guest cannot stop it") \
	F(R, u32, interrupt_type, NONE, 0, 31,         "what the first stage raises") \
	F(R, i64, expiry_ns, GUEST_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when the stage ends; -1: not armed")

enum gclk_timer_kind {
	GCLK_TIMER_OTHER = 0,
	GCLK_TIMER_WATCHDOG = 1,	/* an expiry resets or stops the guest */
};

/* An armed timer of a device that the state does not model (R10). */
#define GCLK_TIMER_FIELDS(F, E, M, B, S, R) \
	S(R, 96,  name,                                "device, instance and field: \"0000:00:03.0/e1000e#0/mit_timer\"") \
	E(R, u8,  kind, gclk_timer_kind_names,         "what its expiry does") \
	E(R, u8,  axis, gclk_axis_names,               "the clock it stands on") \
	F(R, i64, expiry_ns, AXIS_NS, GCLK_I64_MIN, GCLK_I64_MAX, "when it fires")
/* clang-format on */

#define GCLK_RECORDS(X)                                                           \
	X(guest, GCLK_GUEST_FIELDS)                                               \
	X(tsc, GCLK_TSC_FIELDS)                                                   \
	X(kvmclock, GCLK_KVMCLOCK_FIELDS)                                         \
	X(vcpu, GCLK_VCPU_FIELDS)                                                 \
	X(virtual_clock, GCLK_VIRTUAL_CLOCK_FIELDS)                               \
	X(pit_channel, GCLK_PIT_CHANNEL_FIELDS)                                   \
	X(pit, GCLK_PIT_FIELDS)                                                   \
	X(rtc, GCLK_RTC_FIELDS)                                                   \
	X(hpet_timer, GCLK_HPET_TIMER_FIELDS)                                     \
	X(hpet, GCLK_HPET_FIELDS)                                                 \
	X(lapic, GCLK_LAPIC_FIELDS)                                               \
	X(pm_timer, GCLK_PM_TIMER_FIELDS)                                         \
	X(i6300esb, GCLK_I6300ESB_FIELDS)                                         \
	X(timer, GCLK_TIMER_FIELDS)

#define GCLK_INDEX_OF(R, LIST) GCLK_INDEX(R, LIST)
GCLK_RECORDS(GCLK_INDEX_OF)
#undef GCLK_INDEX_OF

struct gclk_guest { GCLK_MEMBERS(guest, GCLK_GUEST_FIELDS) };
struct gclk_tsc { GCLK_MEMBERS(tsc, GCLK_TSC_FIELDS) };
struct gclk_kvmclock { GCLK_MEMBERS(kvmclock, GCLK_KVMCLOCK_FIELDS) };
struct gclk_vcpu { GCLK_MEMBERS(vcpu, GCLK_VCPU_FIELDS) };
struct gclk_virtual_clock { GCLK_MEMBERS(virtual_clock, GCLK_VIRTUAL_CLOCK_FIELDS) };
struct gclk_pit_channel { GCLK_MEMBERS(pit_channel, GCLK_PIT_CHANNEL_FIELDS) };
struct gclk_pit {
	GCLK_MEMBERS(pit, GCLK_PIT_FIELDS)
	struct gclk_pit_channel channels[3];
};
struct gclk_rtc { GCLK_MEMBERS(rtc, GCLK_RTC_FIELDS) };
struct gclk_hpet_timer { GCLK_MEMBERS(hpet_timer, GCLK_HPET_TIMER_FIELDS) };
struct gclk_hpet {
	GCLK_MEMBERS(hpet, GCLK_HPET_FIELDS)
	struct gclk_hpet_timer timers[GCLK_HPET_TIMERS_MAX];	/* n_timers of them */
};
struct gclk_lapic { GCLK_MEMBERS(lapic, GCLK_LAPIC_FIELDS) };
struct gclk_pm_timer { GCLK_MEMBERS(pm_timer, GCLK_PM_TIMER_FIELDS) };
struct gclk_i6300esb { GCLK_MEMBERS(i6300esb, GCLK_I6300ESB_FIELDS) };
struct gclk_timer { GCLK_MEMBERS(timer, GCLK_TIMER_FIELDS) };

/*
 * The state. A device whose record has no bit set is not there. The arrays lie
 * in the same allocation as the state: tsc, vcpu and lapic have n_vcpus
 * elements, timers n_timers (at most GCLK_TIMERS_MAX).
 */
struct gclk_state {
	uint32_t n_vcpus;
	uint32_t n_timers;
	uint32_t timers_left_out;	/* armed, but beyond GCLK_TIMERS_MAX */
	struct gclk_guest guest;
	struct gclk_kvmclock kvmclock;
	struct gclk_virtual_clock virtual_clock;
	struct gclk_pit pit;
	struct gclk_rtc rtc;
	struct gclk_hpet hpet;
	struct gclk_pm_timer pm_timer;
	struct gclk_i6300esb i6300esb;
	struct gclk_tsc *tsc;
	struct gclk_vcpu *vcpu;
	struct gclk_lapic *lapic;
	struct gclk_timer *timers;
	/* names of features that a reader must know before it rewrites or restores */
	char incompatible[GCLK_INCOMPATIBLE_MAX][32];
	uint32_t n_incompatible;
};

/**
 * gclk_state_new() - an empty state
 * @n_vcpus:	1..GCLK_VCPUS_MAX
 *
 * One allocation, reusable through gclk_state_clear(). Returns NULL when memory
 * is short or @n_vcpus out of range. Ownership: the caller's, gclk_state_free().
 */
struct gclk_state *gclk_state_new(uint32_t n_vcpus);

/* Accepts NULL. Returns NULL, so that p = gclk_state_free(p) leaves nothing behind. */
struct gclk_state *gclk_state_free(struct gclk_state *state);

/* Empties every record; n_vcpus stays. */
void gclk_state_clear(struct gclk_state *state);

/**
 * gclk_state_assign() - copy one state's content into another
 * @to:		with at least as many vCPUs as @from
 *
 * Errors: GCLK_RANGE when @to has fewer vCPUs. No allocation.
 */
int gclk_state_assign(struct gclk_state *to, const struct gclk_state *from,
		      struct gclk_error *reterr);

/*
 * A state as one run of bytes, for another process of the same program on the same host:
 * struct gclk_state without its pointers, then its arrays. No format: what is kept, or
 * goes anywhere else, is a bundle.
 */
size_t gclk_state_flat_bytes(const struct gclk_state *state);
void gclk_state_flatten(const struct gclk_state *state, void *to);

/**
 * gclk_state_unflatten() - out of bytes that may come from anyone
 * @ret_used:	of the @n bytes
 * @ret:	the caller's, gclk_state_free(): valid, and with nothing where its presence
 *		bits say that nothing is
 *
 * Errors: GCLK_MALFORMED, GCLK_RANGE, GCLK_NOMEM.
 */
int gclk_state_unflatten(const void *bytes, size_t n, size_t *ret_used,
			 struct gclk_state **ret, struct gclk_error *reterr);

/*
 * The parts of a state, for code that treats them all alike (schema, inspect,
 * diff, JSON): one row per record of struct gclk_state, in the order of the
 * schema.
 */
struct gclk_part {
	const char *name;		/* as in the schema and in JSON */
	const struct gclk_record *record;
	uint16_t offset;		/* of the record, or of the pointer to an array of them */
	int is_array;			/* tsc, vcpu, lapic, timers */
};
extern const struct gclk_part *const gclk_parts;
extern const unsigned gclk_n_parts;

/**
 * gclk_state_part() - where a part's records lie, and how many there are
 * @ret_count:	0 or 1 for a single record (0: absent), else the array's length
 *
 * The pointer is into @state; valid until it is freed.
 */
void *gclk_state_part(const struct gclk_state *state, const struct gclk_part *part,
		      uint32_t *ret_count);

/**
 * gclk_state_validate() - every field of every part within its range, and parts
 * consistent with each other where a mistake would be dangerous
 * Errors: GCLK_RANGE with the path of the field: "hpet.timers[2].config".
 */
int gclk_state_validate(const struct gclk_state *state, struct gclk_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
