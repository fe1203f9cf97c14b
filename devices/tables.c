/* SPDX-License-Identifier: MIT */
/*
 * The field tables of every record, the names of values and bits, and the parts
 * of a state: all generated from the rows of <guestclock/state.h>, so that a row
 * there is the only place where a field is described.
 */
#include <assert.h>

#include <guestclock/state.h>

#include "core/util.h"
#include "devices/rows.h"

/* clang-format off */

NAMES(gclk_bool_names) = {
	{ 0, "no" }, { 1, "yes" }, { 0, NULL },
};

NAMES(gclk_axis_names) = {
	{ GCLK_AXIS_GUEST, "guest" },
	{ GCLK_AXIS_REALTIME, "realtime" },
	{ GCLK_AXIS_MONOTONIC, "monotonic" },
	{ 0, NULL },
};

NAMES(gclk_dialect_names) = {
	{ GCLK_DIALECT_DATASHEET, "datasheet" },
	{ GCLK_DIALECT_QEMU, "qemu" },
	{ GCLK_DIALECT_KVM, "kvm" },
	{ 0, NULL },
};

NAMES(gclk_run_state_names) = {
	{ GCLK_RUN_UNKNOWN, "unknown" },
	{ GCLK_RUN_RUNNING, "running" },
	{ GCLK_RUN_PAUSED, "paused" },
	{ GCLK_RUN_SUSPENDED, "suspended" },
	{ 0, NULL },
};

NAMES(gclk_accelerator_names) = {
	{ GCLK_ACCEL_UNKNOWN, "unknown" },
	{ GCLK_ACCEL_KVM, "kvm" },
	{ GCLK_ACCEL_TCG, "tcg" },
	{ GCLK_ACCEL_TCG_ICOUNT, "tcg_icount" },
	{ 0, NULL },
};

/* KVM_CLOCK_*; the kernel refuses the others */
NAMES(gclk_kvmclock_flag_names) = {
	{ 0x2, "tsc_stable" },
	{ 0x4, "realtime" },
	{ 0x8, "host_tsc" },
	{ 0, NULL },
};

/* The page is the guest's memory: whatever stands there is a reading. */
NAMES(gclk_pvclock_flag_names) = {
	{ 0x01, "tsc_stable" },
	{ 0x02, "guest_stopped" },
	{ 0xfc, "reserved" },
	{ 0, NULL },
};

/* Access modes, and the two steps of a word */
NAMES(gclk_pit_rw_names) = {
	{ 0, "none" },
	{ 1, "low" },
	{ 2, "high" },
	{ 3, "word" },
	{ 4, "word_high" },
	{ 0, NULL },
};

NAMES(gclk_pit_status_names) = {
	{ 0x01, "bcd" },
	{ 0x0e, "mode" },
	{ 0x30, "access" },
	{ 0x40, "null_count" },
	{ 0x80, "out" },
	{ 0, NULL },
};

NAMES(gclk_hpet_config_names) = {
	{ 0x1, "enable" },
	{ 0x2, "legacy" },
	{ 0, NULL },
};

NAMES(gclk_hpet_timer_config_names) = {
	{ 0x0002, "level" },
	{ 0x0004, "interrupt_enable" },
	{ 0x0008, "periodic" },
	{ 0x0010, "periodic_capable" },
	{ 0x0020, "size_64_capable" },
	{ 0x0040, "value_set" },
	{ 0x0100, "force_32" },
	{ 0x3e00, "route" },
	{ 0x4000, "fsb_enable" },
	{ 0x8000, "fsb_capable" },
	{ UINT64_C(0xffffffff00000000), "route_capable" },
	{ 0, NULL },
};

/* Devices exist that keep the reserved bits as the guest wrote them. */
NAMES(gclk_lvtt_names) = {
	{ 0x000000ff, "vector" },
	{ 0x00001000, "delivery_status" },
	{ 0x00010000, "masked" },
	{ 0x00020000, "periodic" },
	{ 0x00040000, "tsc_deadline" },
	{ 0xfff8ef00, "reserved" },
	{ 0, NULL },
};

NAMES(gclk_timer_kind_names) = {
	{ GCLK_TIMER_OTHER, "other" },
	{ GCLK_TIMER_WATCHDOG, "watchdog" },
	{ 0, NULL },
};

#define UNIT_gclk_axis_names		GCLK_UNIT_ENUM
#define UNIT_gclk_dialect_names		GCLK_UNIT_ENUM
#define UNIT_gclk_run_state_names	GCLK_UNIT_ENUM
#define UNIT_gclk_accelerator_names	GCLK_UNIT_ENUM
#define UNIT_gclk_pit_rw_names		GCLK_UNIT_ENUM
#define UNIT_gclk_timer_kind_names	GCLK_UNIT_ENUM

GCLK_RECORDS(FIELDS)

PLAIN(guest) PLAIN(tsc) PLAIN(kvmclock) PLAIN(vcpu) PLAIN(virtual_clock)
PLAIN(pit_channel) PLAIN(rtc) PLAIN(hpet_timer) PLAIN(lapic) PLAIN(pm_timer)
PLAIN(i6300esb) PLAIN(timer)

static const struct gclk_subrecord pit_subs[] = {
	{ "channels", &gclk_pit_channel_record, offsetof(struct gclk_pit, channels), 3, -1 },
};
GCLK_API const struct gclk_record gclk_pit_record = {
	RECORD(pit), .subs = pit_subs, .n_subs = GCLK_COUNT(pit_subs),
};

static const struct gclk_subrecord hpet_subs[] = {
	{ "timers", &gclk_hpet_timer_record, offsetof(struct gclk_hpet, timers),
	  GCLK_HPET_TIMERS_MAX, offsetof(struct gclk_hpet, n_timers) },
};
GCLK_API const struct gclk_record gclk_hpet_record = {
	RECORD(hpet), .subs = hpet_subs, .n_subs = GCLK_COUNT(hpet_subs),
};

static_assert(sizeof(struct gclk_state) <= UINT16_MAX, "offsets have 16 bits");

#define PART(part, R, array) \
	{ #part, &gclk_##R##_record, offsetof(struct gclk_state, part), array }

static const struct gclk_part parts[] = {
	PART(guest, guest, 0),
	PART(tsc, tsc, 1),
	PART(kvmclock, kvmclock, 0),
	PART(vcpu, vcpu, 1),
	PART(virtual_clock, virtual_clock, 0),
	PART(pit, pit, 0),
	PART(rtc, rtc, 0),
	PART(hpet, hpet, 0),
	PART(lapic, lapic, 1),
	PART(pm_timer, pm_timer, 0),
	PART(i6300esb, i6300esb, 0),
	PART(timers, timer, 1),
};
/* clang-format on */

GCLK_API const struct gclk_part *const gclk_parts = parts;
GCLK_API const unsigned gclk_n_parts = GCLK_COUNT(parts);
