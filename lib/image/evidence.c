/* SPDX-License-Identifier: MIT */
/*
 * When did the guest stop? What the image itself tells, best first:
 *
 *	metadata	`guestclock save` heard the stop and left its instant in the image's XML
 *	snapshot-date	QEMU stamps a snapshot as it stops the guest
 *	birth-time	the file was created for a guest that stood already: just
 *			after the stop
 *	live-window	a live migration into a file stops the guest between the birth of
 *			the file and its last device state
 *	rtc-second	the device state was taken in this second of the host's clock,
 *			after all RAM was written: an upper limit only
 *
 * Not every birth is that of this image. A copy was born after the second in which
 * the RTC was saved, or after its own last change; a file that was written over
 * kept the birth of what it held before. And a domain that somebody had paused
 * before it was saved stood already, nobody knows since when.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/calendar.h"
#include "core/time.h"
#include "core/util.h"
#include "image/image.h"

/*
 * How long before its mark the stop lies, and how far from there it may be, so that
 * every one measured fits, on two processors with up to fifteen wishing to run:
 *
 *	mark minus stop, ms	median	95 %	least	most
 *	libvirt, file born	0.4	6.8	-2	7
 *	 its /run on a disk	1.7	11	0	35, and 690 on a busy disk
 *	exec:cat, file born	2	5	-3	6
 *	 on a busy machine	9	166	-3	355
 *	snapshot, its date	-0.2	0	-31	6
 */
struct lag {
	int64_t ns;
	uint64_t uncertainty_ns;
};

static const struct lag libvirt_lag = { 20 * GCLK_NS_PER_MS, 180 * GCLK_NS_PER_MS },
			stream_lag = { 35 * GCLK_NS_PER_MS, 330 * GCLK_NS_PER_MS },
			snapshot_lag = { 20 * GCLK_NS_PER_MS, 120 * GCLK_NS_PER_MS };

/* File systems stamp by a clock that ticks 100 to 1000 times a second. */
#define FILE_CLOCK_NS (10 * GCLK_NS_PER_MS)

/* The slowest writer of RAM that is believed, and how long it may take to begin and end. */
#define RAM_BYTES_PER_S 10000000
#define WRITE_MARGIN_NS (3 * GCLK_NS_PER_S)

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
	seconds = gclk_sub_sat(gclk_seconds_from_civil(&civil), rtc->base_s);
	if (seconds < -INT32_MAX || seconds > INT32_MAX * INT64_C(4)) {
		return -1;
	}
	*ret_ns = gclk_sub_sat(gclk_add_sat(seconds * GCLK_NS_PER_S, rtc->base_at_ns),
			       rtc->offset_ns);
	return 0;
}

/* Whether the file was born for this image. @end_ns: when writing it had ended. */
static bool is_own_birth(const struct gclk_image *image, bool has_second, int64_t end_ns)
{
	const struct gclk_file_facts *file = &image->info->file;
	const struct gclk_state *state = image->state;
	uint64_t seconds = state->guest.ram_bytes / RAM_BYTES_PER_S;
	int64_t over_ns = gclk_sub_sat(gclk_sub_sat(end_ns, file->birth_ns), WRITE_MARGIN_NS);

	if (file->birth_ns > end_ns + FILE_CLOCK_NS) {
		return false;		/* a copy */
	}
	if (has_second && file->birth_ns < state->rtc.base_at_ns - FILE_CLOCK_NS) {
		return false;		/* older than the guest's RTC */
	}
	return over_ns <= 0 || (uint64_t)(over_ns / GCLK_NS_PER_S) <= seconds;
}

/* libvirt says whether it was it that stopped the guest; QEMU's own streams do not. */
static void add_birth(struct gclk_image *image)
{
	const struct gclk_libvirt_save *save = image->info->libvirt;
	const struct lag *lag = save ? &libvirt_lag : &stream_lag;
	int64_t birth_ns = image->info->file.birth_ns;

	if (save && !save->was_running) {
		add(image, "birth-time", birth_ns, GCLK_UNBOUNDED,
		    "the domain had been paused before it was saved: an upper limit");
	} else {
		add(image, "birth-time", birth_ns - lag->ns, lag->uncertainty_ns,
		    "the file was created just after the stop");
	}
}

static void from_birth(struct gclk_image *image, bool has_second, int64_t second_ns)
{
	const struct gclk_file_facts *file = &image->info->file;
	int64_t end_ns = file->mtime_ns;

	if (!file->regular || !file->has_birth) {
		return;
	}
	if (has_second) {
		end_ns = GCLK_MIN(end_ns, second_ns + GCLK_NS_PER_S);
	}
	if (!is_own_birth(image, has_second, end_ns)) {
		return;
	}
	if (image->state->guest.run_state == GCLK_RUN_PAUSED) {
		add_birth(image);
	} else {
		/* both ends as late as the file system's clock may have made them early */
		int64_t half = (end_ns - file->birth_ns) / 2 + FILE_CLOCK_NS;

		add(image, "live-window", file->birth_ns + half, (uint64_t)half,
		    "the guest stopped while the file was written");
	}
}

/* A number that an attribute holds, all of it. */
static bool number(const struct gclk_image *image, const char *attribute, int base,
		   unsigned long long *ret)
{
	const char *text = gclk_domain_metadata(&image->domain, attribute);
	char *end;

	if (!text || !*text || *text == '-') {
		return false;
	}
	errno = 0;
	*ret = strtoull(text, &end, base);
	return !*end && errno == 0;
}

/*
 * A domain keeps its metadata when it is restored, and is saved again with what was said
 * about the older image: the digest tells.
 */
static void from_metadata(struct gclk_image *image)
{
	unsigned long long at, uncertainty, digest;

	if (image->has_domain && number(image, GCLK_CAPTURED_AT, 10, &at) && at <= INT64_MAX &&
	    number(image, GCLK_CAPTURED_UNCERTAINTY, 10, &uncertainty) &&
	    number(image, GCLK_CAPTURED_DIGEST, 16, &digest) &&
	    digest == gclk_image_digest(image)) {
		add(image, "metadata", (int64_t)at, uncertainty, "stamped at the stop, by the save");
	}
}

void gclk_image_find_evidence(struct gclk_image *image)
{
	const struct gclk_qcow2_snapshot *snapshot = image->info->snapshot;
	int64_t second_ns = 0;
	bool has_second = rtc_second(image->state, &second_ns) == 0;

	from_metadata(image);
	if (snapshot && snapshot->date_ns) {
		add(image, "snapshot-date", (int64_t)snapshot->date_ns - snapshot_lag.ns,
		    snapshot_lag.uncertainty_ns, "the snapshot was stamped as the guest stopped");
	} else if (!snapshot) {
		from_birth(image, has_second, second_ns);
	}
	if (has_second) {
		add(image, "rtc-second", second_ns + GCLK_NS_PER_S / 2, GCLK_UNBOUNDED,
		    "the RTC was saved in this second, after the RAM: an upper limit");
	}
}
