/* SPDX-License-Identifier: MIT */
/*
 * The kernel's PIT.
 *
 * KVM_GET_PIT2 does not tell the phase of channel 0: its count_load_time is never set by
 * the kernel. KVM_SET_PIT2 starts all three channels anew and validates nothing. So load
 * times of channels 1 and 2 are captured, none is restored, and what would be garbage is
 * refused before anything is written. Whether ticks are queued (reinject) has no getter
 * and comes from the VMM.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/time.h"
#include "core/util.h"
#include "kvm/backend.h"

static void capture_channel(const struct gclk_kvm *k, const struct kvm_pit_channel_state *from,
			    struct gclk_pit_channel *to)
{
	GCLK_SET(pit_channel, to, count, from->count ? from->count : 65536);
	GCLK_SET(pit_channel, to, mode, from->mode);
	GCLK_SET(pit_channel, to, bcd, from->bcd != 0);
	GCLK_SET(pit_channel, to, gate, from->gate != 0);
	GCLK_SET(pit_channel, to, rw_mode, from->rw_mode);
	GCLK_SET(pit_channel, to, read_state, from->read_state);
	GCLK_SET(pit_channel, to, write_state, from->write_state);
	GCLK_SET(pit_channel, to, write_latch, from->write_latch);
	GCLK_SET(pit_channel, to, latched_count, from->latched_count);
	GCLK_SET(pit_channel, to, count_latched, from->count_latched);
	GCLK_SET(pit_channel, to, status, from->status);
	GCLK_SET(pit_channel, to, status_latched, from->status_latched != 0);
	if (from->count_load_time) {
		GCLK_SET(pit_channel, to, load_time_ns,
			 gclk_add_sat(from->count_load_time, k->axis_ns));
	}
}

int gclk_kvm_capture_pit(struct gclk_kvm *k, struct gclk_pit *pit, struct gclk_error *reterr)
{
	struct kvm_pit_state2 state = { .flags = 0 };

	if (gclk_sys_ioctl(k, k->vm, KVM_GET_PIT2, &state) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit", GCLK_NO_OFFSET, "KVM_GET_PIT2: %s",
				 strerror(errno));
	}
	GCLK_SET(pit, pit, dialect, GCLK_DIALECT_KVM);
	GCLK_SET(pit, pit, in_kernel, 1);
	GCLK_SET(pit, pit, reinject, !k->pit_discards);
	GCLK_SET(pit, pit, irq_disabled, (state.flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0);
	GCLK_SET(pit, pit, speaker_data, (state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0);
	for (unsigned i = 0; i < 3; i++) {
		capture_channel(k, &state.channels[i], &pit->channels[i]);
	}
	/* of channel 0 it says nothing */
	GCLK_UNSET(pit_channel, &pit->channels[0], load_time_ns);
	gclk_kvm_capture_pit_phase(k, pit);
	return 0;
}

int gclk_kvm_check_pit(const struct gclk_pit *pit, struct gclk_error *reterr)
{
	char name[32];

	for (unsigned i = 0; i < 3; i++) {
		const struct gclk_pit_channel *c = &pit->channels[i];
		const char *wrong = c->count < 1 || c->count > 65536 ? "count" :
				    c->mode > 5 && c->mode != 0xff   ? "mode" :
				    c->rw_mode > 3 || c->read_state > 4 || c->write_state > 4 ||
					    c->count_latched > 4     ? "rw_mode" :
								       NULL;

		if (wrong) {
			snprintf(name, sizeof(name), "pit.channels[%u].%s", i, wrong);
			return gclk_fail(reterr, GCLK_RANGE, name, GCLK_NO_OFFSET,
					 "the kernel would take it, and no PIT can be so");
		}
	}
	return 0;
}

static void restore_channel(const struct gclk_pit_channel *from,
			    struct kvm_pit_channel_state *to)
{
	to->count = from->count;
	to->mode = from->mode;
	to->bcd = from->bcd;
	to->gate = from->gate;
	to->rw_mode = from->rw_mode;
	to->read_state = from->read_state;
	to->write_state = from->write_state;
	to->write_latch = from->write_latch;
	to->latched_count = from->latched_count;
	to->count_latched = from->count_latched;
	to->status = from->status;
	to->status_latched = from->status_latched;
}

/* Load times are the kernel's own. */
static int check_read_back(const struct gclk_kvm *k, const struct kvm_pit_state2 *wrote,
			   struct gclk_error *reterr)
{
	struct kvm_pit_state2 read = { .flags = 0 };
	unsigned i;

	if (gclk_sys_ioctl(k, k->vm, KVM_GET_PIT2, &read) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit", GCLK_NO_OFFSET, "KVM_GET_PIT2: %s",
				 strerror(errno));
	}
	for (i = 0; i < 3; i++) {
		read.channels[i].count_load_time = wrote->channels[i].count_load_time;
	}
	if (memcmp(read.channels, wrote->channels, sizeof(read.channels)) ||
	    read.flags != wrote->flags) {
		return gclk_fail(reterr, GCLK_UNPROVEN, "pit", GCLK_NO_OFFSET,
				 "the PIT does not read what was written");
	}
	return 0;
}

int gclk_kvm_restore_pit(struct gclk_kvm *k, const struct gclk_pit *pit,
			 struct gclk_error *reterr)
{
	struct kvm_pit_state2 state;
	struct kvm_reinject_control control = { .pit_reinject = pit->reinject };
	int64_t now = 0, began;

	memset(&state, 0, sizeof(state));	/* with its padding: it is compared */
	gclk_sys_clock(k, CLOCK_MONOTONIC, &now);
	for (unsigned i = 0; i < 3; i++) {
		restore_channel(&pit->channels[i], &state.channels[i]);
		state.channels[i].count_load_time = now;
	}
	state.flags = (pit->irq_disabled ? KVM_PIT_FLAGS_HPET_LEGACY : 0) |
		      (pit->speaker_data ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0);
	if (GCLK_HAS(pit, pit, reinject) &&
	    gclk_sys_ioctl(k, k->vm, KVM_REINJECT_CONTROL, &control) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit.reinject", GCLK_NO_OFFSET,
				 "KVM_REINJECT_CONTROL: %s", strerror(errno));
	}
	k->pit_discards = GCLK_HAS(pit, pit, reinject) && !pit->reinject;
	began = gclk_kvm_axis_now(k);
	if (gclk_sys_ioctl(k, k->vm, KVM_SET_PIT2, &state) < 0) {
		return gclk_fail(reterr, GCLK_SYS, "pit", GCLK_NO_OFFSET, "KVM_SET_PIT2: %s",
				 strerror(errno));
	}
	gclk_kvm_note_pit(k, pit, began + (gclk_kvm_axis_now(k) - began) / 2);
	return check_read_back(k, &state, reterr);
}
