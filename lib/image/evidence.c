/* SPDX-License-Identifier: MIT */
/*
 * When did the guest stop? What the image itself tells, best first:
 *
 *	snapshot-date	QEMU stamps a snapshot right after it has stopped the guest
 *	birth-time	the file was created for a guest that stood already: just
 *			after the stop
 *	live-window	a live migration into a file stops the guest between the birth of
 *			the file and its last device state
 *	rtc-second	the device state was taken in this second of the host's clock,
 *			after all RAM was written: an upper limit only
 *
 * A copy of an image has a birth time of its own; it shows by lying after the
 * second at which the RTC was saved.
 */
#include <string.h>

#include "core/calendar.h"
#include "core/util.h"
#include "image/image.h"

/* How long before its mark the stop may lie, and how far the marking may lag. */
#define STOP_TO_MARK_NS (20 * GCLK_NS_PER_MS)
#define MARK_UNCERTAINTY_NS (120 * GCLK_NS_PER_MS)

static void add(struct gclk_image *image, const char *basis, int64_t ns, uint64_t uncertainty_ns,
		const char *note)
{
	if (image->n_evidence < GCLK_EVIDENCE_MAX) {
		image->evidence[image->n_evidence++] = (struct gclk_evidence){
			.basis = basis, .at = { ns, uncertainty_ns }, .note = note };
	}
}

/*
 * The second of the host's clock in which an RTC on that clock was saved: its
 * registers are refreshed then. Returns 0 and the second's start in realtime ns.
 */
static int rtc_second(const struct gclk_state *state, int64_t *ret_ns)
{
	const struct gclk_rtc *rtc = &state->rtc;
	const uint8_t *cmos = rtc->cmos;
	struct gclk_rtc_format format = { .binary = cmos[11] & 4, .hours_24 = cmos[11] & 2,
					  .has_century = true, .window_year = 1970 };
	struct gclk_rtc_registers regs = { cmos[0], cmos[2], cmos[4], cmos[6],
					   cmos[7], cmos[8], cmos[9], cmos[0x32] };
	struct gclk_civil civil;
	int64_t seconds;

	if (!GCLK_HAS(rtc, rtc, base_s) || rtc->axis != GCLK_AXIS_REALTIME || cmos[11] & 0x80 ||
	    gclk_rtc_decode(&regs, &format, &civil, NULL) < 0) {
		return -1;
	}
	seconds = gclk_seconds_from_civil(&civil) - rtc->base_s;
	if (seconds < -INT32_MAX || seconds > INT32_MAX * INT64_C(4)) {
		return -1;
	}
	*ret_ns = seconds * GCLK_NS_PER_S + rtc->base_at_ns - rtc->offset_ns;
	return 0;
}

static void from_birth(struct gclk_image *image, bool has_second, int64_t second_ns)
{
	const struct gclk_file_facts *file = &image->info->file;
	bool stood = image->state->guest.run_state == GCLK_RUN_PAUSED;
	int64_t end_ns = file->mtime_ns;

	if (!file->regular || !file->has_birth) {
		return;
	}
	if (has_second) {
		if (file->birth_ns > second_ns + 2 * GCLK_NS_PER_S) {
			return;		/* a copy */
		}
		end_ns = GCLK_MIN(end_ns, second_ns + GCLK_NS_PER_S);
	}
	if (stood) {
		add(image, "birth-time", file->birth_ns - STOP_TO_MARK_NS, MARK_UNCERTAINTY_NS,
		    "the file was created just after the stop");
	} else if (end_ns >= file->birth_ns) {
		int64_t half = (end_ns - file->birth_ns) / 2 + 1;

		add(image, "live-window", file->birth_ns + half, (uint64_t)half,
		    "the guest stopped while the file was written");
	}
}

void gclk_image_find_evidence(struct gclk_image *image)
{
	const struct gclk_qcow2_snapshot *snapshot = image->info->snapshot;
	int64_t second_ns = 0;
	bool has_second = rtc_second(image->state, &second_ns) == 0;

	if (snapshot && snapshot->date_ns) {
		add(image, "snapshot-date", (int64_t)snapshot->date_ns - STOP_TO_MARK_NS,
		    MARK_UNCERTAINTY_NS, "the snapshot was stamped just after the stop");
	} else if (!snapshot) {
		from_birth(image, has_second, second_ns);
	}
	if (has_second) {
		add(image, "rtc-second", second_ns + GCLK_NS_PER_S / 2, GCLK_UNBOUNDED,
		    "the RTC was saved in this second, after the RAM: an upper limit");
	}
}
