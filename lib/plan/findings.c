/* SPDX-License-Identifier: MIT */
/*
 * The one table of findings: documentation, JSON and `explain` are made from it.
 * An id is never reused. A row that refuses stops a plan (R6) unless it is forced;
 * an error that does not refuse has been chosen by the operator, who must know.
 */
#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include <guestclock/plan.h>

#include "core/text.h"
#include "core/util.h"
#include "plan/findings.h"
#include "plan/move.h"

#define ROW(N, id_, severity_, refuses_, title_, explanation_, advice_)           \
	[GCLK_F_##N] = { .id = id_, .severity = severity_, .refuses = refuses_, .title = title_, \
	  .explanation = explanation_, .advice = advice_ },

/* clang-format off */
static const struct gclk_finding_info table[] = {
	/* the gap */
	ROW(CAPTURE_INSTANT_UNKNOWN, "capture-instant-unknown", GCLK_ERROR, 1, "nobody knows when the guest stopped",
	    "The gap is the time from the stop of the guest to its resume. The image does not say when it was made, and nothing about it tells.",
	    "Give --captured-at TIME, or --elapsed DURATION.")
	ROW(CAPTURE_INSTANT_UNCERTAIN, "capture-instant-uncertain", GCLK_WARNING, 0, "the instant of the stop is known coarsely",
	    "All clocks that count the gap inherit the uncertainty of the instant at which the guest stopped.",
	    "Give --captured-at TIME from the log of whatever stopped the guest; a stop event's stamp is good to a fraction of a millisecond.")
	ROW(GAP_NEGATIVE, "gap-negative", GCLK_WARNING, 0, "the resume lies before the stop",
	    "By the clocks given, the guest resumes before it stopped. No guest clock may run backwards (R1), so all of them go on from the stop as if no time had passed.",
	    "Compare the two hosts' wall clocks; give --disagreement, or correct --captured-at or --resume-at.")
	ROW(LONG_GAP, "long-gap", GCLK_WARNING, 0, "a long gap is counted",
	    "The guest will find that much time gone at once. Whatever waits for a deadline on a clock that counts finds it overdue: service watchdogs, leases, cluster tokens and time-outs expire; where no paravirtual clock can tell the guest that it was stopped, its stall and lockup detectors may speak; a clocksource that wraps within the gap (PM timer 4.69 s, 32-bit HPET 42.9 s, the scaled 64-bit product of a TSC clocksource about 1100 s) loses whole turns until the next tick.",
	    "Use --gap cap=DURATION or --gap wall if the guest's programs cannot bear it.")
	ROW(STALL_REPORTS, "stall-reports", GCLK_WARNING, 0, "the guest's kernel may report stalls or lockups",
	    "More than 20 s pass at once for a guest that no paravirtual clock can tell that it was stopped. Its kernel may report a soft lockup, and where it was in the middle of a grace period an RCU stall, with traces, on its console. Measured on a stock guest with a gap of 60 s: harmless, unless it is told to panic on either. A service whose watchdog is shorter than the gap may be killed and restarted if it does not ping at once.",
	    "Nothing, or a smaller --gap cap=DURATION.")
	ROW(CLOCKSOURCE_WRAPS, "clocksource-wraps", GCLK_WARNING, 0, "a guest that keeps time by a short counter loses whole turns",
	    "A guest that keeps time by the PM timer (24 bits, a turn of 4.687 s) or by the low half of the HPET (42.95 s) sees a gap only modulo that turn; a rest of more than half a turn it takes for a step backwards and its clocks stand still until the counter has caught up. The state does not tell which counter the guest keeps time by; one that uses the TSC or a paravirtual clock is not affected.",
	    "Look at current_clocksource in the guest; with acpi_pm or hpet use --gap wall and set its clock, or restart it with a TSC that it trusts.")
	ROW(WALL_CLOCK_BEHIND, "wall-clock-behind", GCLK_ERROR, 0, "a running guest's wall clock stays behind",
	    "With the policy `wall` monotonic clocks stand still over the gap while the real-time clock goes on. A running guest keeps its wall clock by its monotonic one and does not read the real-time clock again.",
	    "Set the guest's time after the resume: through its agent, by its own time synchronisation, or by `hwclock --hctosys`.")
	ROW(CLOCKS_BEHIND, "clocks-behind", GCLK_WARNING, 0, "the guest stays behind the time of day",
	    "The policy does not count all of the gap, so the guest's wall clock, which follows its monotonic one, stays behind by what is not counted: certificates, leases and time stamps are judged by an old time until it is set.",
	    "Set the guest's time after the resume: through its agent, or by its own time synchronisation.")
	ROW(WALL_CLOCKS_UNMEASURED, "wall-clocks-unmeasured", GCLK_ERROR, 1, "nobody compared the two hosts' wall clocks",
	    "The gap is taken between readings of two wall clocks whose disagreement is not known: it is wrong by as much as they disagree, the guest's clocks would jump by that, and no bound holds.",
	    "Measure it and give --disagreement NS+-NS, or --elapsed DURATION.")
	ROW(SEALED_STATE_OLDER, "sealed-state-older", GCLK_WARNING, 0, "a later state of the guest has been seen",
	    "Each sealed state of a guest has a larger sequence than the one before. This one's is smaller than one that was sealed or opened on this host: an old state, put in a new one's place or restored on purpose. A guest that is restored from it reads times that it has read before.",
	    "Ask who gave it to you, if you did not mean to go back.")
	ROW(LEAP_SECOND_NEAR, "leap-second-near", GCLK_WARNING, 0, "a leap second may fall into the gap",
	    "A wall clock announces or has just made a leap second; around it wall clocks differ by up to one second.",
	    "Wait until it is over, or give --elapsed.")
	ROW(RESUME_IS_THE_LOAD, "resume-is-the-load", GCLK_NOTE, 0, "load and resume are taken as one instant",
	    "This carrier starts the time-stamp counter at the end of the load and the other clocks at the resume. Each ns between the two parts them.",
	    "Resume as soon as the state is loaded, or say when each is with --load-at and --resume-at.")
	ROW(RESUME_AFTER_LOAD, "resume-after-load", GCLK_WARNING, 0, "the counter runs between load and resume",
	    "The time-stamp counter runs from the end of the load. By more than what the policy lets it count, it cannot be set back (R1).",
	    "Resume as soon as the state is loaded.")

	/* frequencies */
	ROW(TSC_FREQUENCY_UNKNOWN, "tsc-frequency-unknown", GCLK_ERROR, 1, "nobody knows the guest's TSC frequency",
	    "To count a gap the frequency of the counter must be known. The state does not carry it and the host profile has none.",
	    "Give a host profile with the frequency: guestclock host -o FILE on the source, then --host FILE.")
	ROW(TSC_FREQUENCY_ASSUMED, "tsc-frequency-assumed", GCLK_NOTE, 0, "the guest's TSC frequency is taken from the host profile",
	    "The state does not say at which frequency the guest's TSC ran. It is taken to be that of the host in the profile, which is right if the guest ran on a host of the same frequency.",
	    "If it was saved elsewhere, give that host's profile with --host.")
	ROW(TSC_FREQUENCY_BOUND_UNKNOWN, "tsc-frequency-bound-unknown", GCLK_NOTE, 0, "the host's TSC frequency has no stated uncertainty",
	    "Without it no bound can be given for the counter over the gap.",
	    "Make a profile with a measured frequency: guestclock host -o FILE.")
	ROW(TSC_RATE_TOLERATED, "tsc-rate-tolerated", GCLK_WARNING, 0, "the guest's TSC will run at another rate, in silence",
	    "The difference is within the kernel's tolerance (250 ppm unless changed), so the kernel accepts the frequency and does not scale: the guest runs at the host's rate for as long as it stays there.",
	    "Move it to a host with the same frequency, or lower the kernel's tsc_tolerance_ppm on hosts that can scale.")
	ROW(TSC_RATE_NOT_HONOURED, "tsc-rate-not-honoured", GCLK_ERROR, 1, "this host cannot run the guest's TSC at its frequency",
	    "The host has another TSC frequency and no hardware scaling. The guest's TSC would run at the host's rate.",
	    "Choose a host with the same frequency or with TSC scaling.")
	ROW(TSC_RATE_FOLLOWS_HOST, "tsc-rate-follows-host", GCLK_WARNING, 0, "the guest's TSC will run at this host's rate",
	    "An emulator hands its host's counter through. A guest that has calibrated its TSC on a host of another frequency misreads time from now on.",
	    "Move it to a host with the same frequency, or restart the guest.")
	ROW(TSC_SCALED, "tsc-scaled", GCLK_NOTE, 0, "the host scales the guest's TSC",
	    "The frequencies differ; the processor multiplies its counter for the guest.",
	    "Nothing needs to be done.")
	ROW(HOST_FREQUENCY_UNKNOWN, "host-frequency-unknown", GCLK_WARNING, 0, "the destination's TSC frequency is not known",
	    "Whether the guest's TSC keeps its rate there cannot be said.",
	    "Make the profile as a user who may run virtual machines there.")

	/* paravirtual clock */
	ROW(KVMCLOCK_PAUSE_UNKNOWN, "kvmclock-pause-unknown", GCLK_WARNING, 0, "how long the guest's clock ran after the stop is not known",
	    "The paravirtual clock was read again when the state was saved, later than the stop, and counted on in between. By this unknown time it and the TSC are apart.",
	    "The guest's own clock page tells: give the image where its memory can be read.")
	ROW(KVMCLOCK_PAUSE_REMOVED, "kvmclock-pause-removed", GCLK_NOTE, 0, "the time between stop and save has been taken out",
	    "The paravirtual clock was read later than the stop; the guest's own clock page gave the reading at the stop.",
	    "Nothing needs to be done.")
	ROW(KVMCLOCK_LAGS, "kvmclock-lags", GCLK_WARNING, 0, "the paravirtual clock starts from the load",
	    "The loader does not trust the saved value and takes the guest's own page at the loaded TSC, but lets it count only from the resume: it lags by the time between the two.",
	    "Resume as soon as the state is loaded.")

	/* ticks */
	ROW(TICKS_MERGED, "ticks-merged", GCLK_NOTE, 0, "missed ticks come as one",
	    "This carrier cannot replay the missed expiries of this timer: overdue ones reach the guest as a single interrupt.",
	    "Nothing, unless the guest counts these ticks to tell time: then set its clock after the resume.")
	ROW(TICKS_POLICY_UNKNOWN, "ticks-policy-unknown", GCLK_NOTE, 0, "no tick policy is known for this timer",
	    "Neither the domain nor the operator says what becomes of missed ticks, so they are merged into one.",
	    "Give --ticks TIMER=POLICY (delay, catchup, merge, discard).")
	ROW(TICKS_BEYOND_HORIZON, "ticks-beyond-horizon", GCLK_NOTE, 0, "the gap is longer than ticks are replayed for",
	    "The domain's policy holds for gaps up to a horizon; beyond it missed ticks are merged into one.",
	    "Give --ticks TIMER=POLICY if they must be replayed.")
	ROW(TICKS_CAPPED, "ticks-capped", GCLK_WARNING, 0, "not all missed ticks will be replayed",
	    "More ticks are owed than may be replayed; the rest is dropped.",
	    "Set the guest's clock after the resume.")
	ROW(REPLAY_NEEDS_DEVICE, "replay-needs-device", GCLK_NOTE, 0, "the device must be set to replay",
	    "Owed ticks are handed to the device, which replays them only if it is configured to (catchup). The state does not show whether it is.",
	    "Start the guest with the same tick policy that it had.")
	ROW(REPLAY_AND_COUNT, "replay-and-count", GCLK_WARNING, 0, "ticks are replayed to a guest that does not need them",
	    "The gap is counted on the clock that this guest tells time from; replayed ticks add nothing and may be counted twice (R3).",
	    "Use --ticks TIMER=merge.")
	ROW(PIT_PHASE_RESTARTS, "pit-phase-restarts", GCLK_NOTE, 0, "the interval timer starts a new period",
	    "This carrier restarts the PIT at the resume: its phase is lost, by less than one period.",
	    "Nothing needs to be done.")
	ROW(LAPIC_PHASE_RESTARTS, "lapic-phase-restarts", GCLK_NOTE, 0, "a LAPIC timer starts its count anew",
	    "The running count of this LAPIC timer is not part of the state, so the timer starts a full count: the next interrupt is late by up to one count.",
	    "Nothing needs to be done; deadline mode is not affected.")
	ROW(RTC_PHASE_RESTARTS, "rtc-phase-restarts", GCLK_NOTE, 0, "the RTC's periodic interrupt starts a new period",
	    "This carrier starts the periodic interrupt anew when it loads it: its phase is lost, by less than one period.",
	    "Nothing needs to be done.")

	/* the real-time clock */
	ROW(RTC_RUNS_ON, "rtc-runs-on", GCLK_NOTE, 0, "the real-time clock goes on by itself",
	    "The guest's real-time clock shows its host's wall clock, and `freeze` leaves the state untouched: it will have counted the gap.",
	    "--gap cap=0s holds the real-time clock as well.")
	ROW(RTC_MOVED_WITH_DISAGREEMENT, "rtc-moved-with-disagreement", GCLK_NOTE, 0, "the real-time clock is moved by the hosts' disagreement",
	    "The two hosts' wall clocks differ; the guest's real-time clock goes on as if they did not.",
	    "Nothing needs to be done; the guest's own stored adjustment may want updating.")

	/* other timers */
	ROW(WATCHDOG_MOVED, "watchdog-moved", GCLK_NOTE, 0, "a watchdog keeps its remaining time",
	    "The guest could not serve its watchdog during the gap, so the watchdog moves with the clock: the gap does not bite.",
	    "Nothing needs to be done.")
	ROW(TIMERS_FIRE_EARLY, "timers-fire-early", GCLK_WARNING, 0, "device timers will fire at the resume",
	    "Moving the shared clock moves every armed timer of every device. Those that stand within the gap are overdue at the resume and fire at once.",
	    "Nothing, for network and USB timers; look at the list if the device is unusual.")
	ROW(TIMERS_LEFT_OUT, "timers-left-out", GCLK_NOTE, 0, "more armed timers than a state can list",
	    "The state lists a limited number of timers of devices that it does not model.",
	    "Nothing needs to be done.")

	/* what cannot be honoured */
	ROW(INCOMPATIBLE_FEATURE, "incompatible-feature", GCLK_ERROR, 1, "the state needs a feature that is not known here",
	    "The state names a feature that a program must know before it rewrites or restores it.",
	    "Use a newer release.")
	ROW(NO_SHARED_AXIS, "no-shared-axis", GCLK_ERROR, 1, "the state has no clock to count the gap on",
	    "The carrier moves the guest's timers through the shared clock, which this state does not have.",
	    "Capture the state again, completely.")

	/* inspection */
	ROW(DEADLINE_LOST, "deadline-lost", GCLK_WARNING, 0, "a LAPIC timer in deadline mode has no deadline",
	    "The timer is in TSC-deadline mode, not masked, and the deadline reads 0 while no timer interrupt is waiting. Known from restores that lost it: the vCPU then waits for ever unless another interrupt comes.",
	    "If the guest hangs, send it an interrupt (a key, a network packet), or restore an older state.")
	ROW(DEADLINE_OVERDUE, "deadline-overdue", GCLK_NOTE, 0, "a deadline has passed already",
	    "The TSC is beyond the deadline: the interrupt comes at the resume.",
	    "Nothing needs to be done.")
	ROW(TSC_SKEW, "tsc-skew", GCLK_WARNING, 0, "the vCPUs' TSCs are far apart",
	    "The counters of the vCPUs are read one after the other, so a small difference is normal; this one is larger than reading explains.",
	    "If the guest sees time jump between its processors, let it use another clocksource.")
	ROW(KVMCLOCK_TSC_APART, "kvmclock-tsc-apart", GCLK_WARNING, 0, "paravirtual clock and TSC disagree",
	    "The saved clock is not what the guest's own clock page gives at the saved TSC: the clock was read later than the TSC.",
	    "guestclock rewrite takes the difference out.")
	ROW(RTC_WALL_APART, "rtc-wall-apart", GCLK_WARNING, 0, "the real-time clock is not the wall clock",
	    "At the capture the guest's real-time clock differed from the host's wall clock by more than a time zone explains, or by seconds.",
	    "Intended for a guest with its own time; otherwise set it from within.")
	ROW(TICK_STORM, "tick-storm", GCLK_WARNING, 0, "many overdue expiries wait in the state",
	    "A timer's next expiry lies far behind its clock. The loader works them off one by one when the guest starts, and they reach it as one interrupt.",
	    "guestclock rewrite moves the expiry to the grid.")
	ROW(INVTSC_WITHOUT_FREQUENCY, "invtsc-without-frequency", GCLK_WARNING, 0, "an invariant TSC without a frequency",
	    "The guest was promised a TSC that never changes its rate, but the state does not carry the rate: the guest cannot be moved safely.",
	    "Give the domain a TSC timer with a frequency before its next start.")
	ROW(CLOCK_UNRELIABLE, "clock-unreliable", GCLK_NOTE, 0, "the saved paravirtual clock is not marked reliable",
	    "The loader will recompute it from the guest's own page.",
	    "Nothing needs to be done.")
	ROW(PAGE_AHEAD_OF_TSC, "page-ahead-of-tsc", GCLK_ERROR, 0, "the guest's clock page is ahead of its TSC",
	    "The timestamp in the paravirtual clock page is beyond the saved TSC; loaders have been seen to abort on it.",
	    "Do not lower the TSC; capture the guest again.")

	/* restored through descriptors */
	ROW(TSC_NOT_HONOURED, "tsc-not-honoured", GCLK_ERROR, 1, "the TSC was written and does not read so",
	    "Some kernels take a value for the time-stamp counter and ignore it: guests whose counter is protected from the host, and hosts that are guests themselves. The counter that the guest reads is not the one that the plan wants.",
	    "Restore the guest on another host. --force=tsc-not-honoured goes on with the host's counter.")
	ROW(TSC_FREQUENCY_REFUSED, "tsc-frequency-refused", GCLK_ERROR, 1, "the kernel refuses the TSC's frequency",
	    "The kernel neither scales to the guest's frequency nor catches up with it: it is lower than the host's.",
	    "Choose a host with the same frequency or with TSC scaling.")
	ROW(TSC_CATCHES_UP, "tsc-catches-up", GCLK_WARNING, 0, "the TSC only catches up",
	    "The host is slower than the guest's counter and does not scale. Between exits the counter runs at the host's rate, at each exit the kernel adds what is missing: a guest that keeps time by the counter sees it jump.",
	    "Choose a host with the same frequency or with TSC scaling.")
	ROW(TSC_RATE_WRONG, "tsc-rate-wrong", GCLK_ERROR, 0, "a TSC has left its line",
	    "Since the restore this vCPU's counter has counted otherwise than the plan says, by more than the measurement can be wrong.",
	    "Do not go on with this guest here: restore it on another host.")
	ROW(MASTER_CLOCK_LOST, "master-clock-lost", GCLK_WARNING, 0, "the paravirtual clock is not one for all vCPUs",
	    "The kernel keeps one snapshot for all vCPUs only where the host's clocksource is the TSC and all vCPUs' counters were written alike. Without it each vCPU has its own, and guests keep a common maximum, which is slower.",
	    "Nothing, if the guest's vCPUs had different counters before, or the host's clocksource is not the TSC.")
	ROW(CLOCKS_APART, "clocks-apart", GCLK_WARNING, 0, "the paravirtual clock and the TSC were restored apart",
	    "What the clock reads at a value of the counter is not what it read before, by more than rounding.",
	    "Nothing, below a microsecond; a guest that compares the two may report a step.")
	ROW(KVMCLOCK_RATE_ROUNDED, "kvmclock-rate-rounded", GCLK_NOTE, 0, "the paravirtual clock runs a little fast against the TSC",
	    "Where the processor scales the TSC, released kernels compute the guest's clock page from the scaled frequency in whole kHz, rounded down. From the restore on the clock gains on the TSC by the rounding, less than 1 kHz of the frequency.",
	    "Nothing: nobody outside the kernel can change it. A guest that compares the two may report the drift.")
	ROW(CLOCK_PAGE_STALE, "clock-page-stale", GCLK_ERROR, 0, "the guest's clock page was not written anew",
	    "The guest has run since the restore, and the page that its clock is computed from is still that of before.",
	    "See that the page's MSR was restored, and that this vCPU has run.")
	ROW(GUEST_NOT_TOLD, "guest-not-told", GCLK_WARNING, 0, "the guest could not be told that it was stopped",
	    "The mark in the clock page by which watchdogs forgive a pause could not be set.",
	    "Expect a soft lockup or stall report after a long gap.")
	ROW(RESTORE_INCOMPLETE, "restore-incomplete", GCLK_ERROR, 0, "the restore failed on its way",
	    "A call failed or did not take after others had. The message lists what had been changed by then, with how many of each; everything else is as it was.",
	    "Do not run this virtual machine; make a new one and restore again.")

	/* live streams */
	ROW(STREAM_NOT_FILTERED, "stream-not-filtered", GCLK_WARNING, 0, "the migration passed untouched",
	    "Something in the stream cannot be filtered, and the filter was told to let such streams pass. The guest arrives as it would without guestclock: its clocks have lost what they lose by the loader's own rules.",
	    "Migrate without what the message names, or set the filter to refuse such streams.")
	ROW(NO_RETURN_PATH, "no-return-path", GCLK_WARNING, 0, "the source does not wait for its destination",
	    "Without a return path the source takes bytes that were accepted for completion and gives its guest up. Holding them would endanger the guest, so the stream passes untouched.",
	    "Turn the migration capability return-path on, at both ends.")
	ROW(HOSTS_APART, "hosts-apart", GCLK_WARNING, 0, "the two hosts' wall clocks disagree",
	    "The ends of the move measured how far the hosts' clocks are apart, and it is more than the limit that was set. The guest is carried by the measured relation, so its clocks are right; but one of the hosts does not know what time it is.",
	    "See to the synchronisation of both hosts; or set the policy to refuse such moves.")
	ROW(GUEST_WALL_CLOCK_APART, "guest-wall-clock-apart", GCLK_WARNING, 0, "the guest's wall clock is not its host's",
	    "By its agent the guest's wall clock differs from that of the host that it runs on by more than asking explains: it was left behind by a pause or a move, or nobody keeps it right.",
	    "Let a time service in the guest keep it, or set it once: virsh domtime DOMAIN --now.")
	ROW(CLOCK_NOT_AS_PLANNED, "clock-not-as-planned", GCLK_ERROR, 0, "a clock was read back and is not what was written",
	    "Once the guest ran, the clock was read from outside the guest: its TSC in the kernel's debugfs, its clock page, its RTC or HPET through the hypervisor. It differs from the plan by more than the plan's bound and the reading's width together: the write was ignored, or somebody else has set the clock meanwhile.",
	    "Do not trust this guest's time here. Restore it on another host, or set its clocks from within.")
	ROW(WALL_CLOCK_SET, "wall-clock-set", GCLK_WARNING, 0, "somebody set this host's wall clock meanwhile",
	    "The gap is a difference of two readings of wall clocks that were compared, and afterwards this host's was set: by its administrator, or by a time service that steps. The gap is counted by the clock as it was, so monotonic clocks are right. A real-time clock that an emulator drives by the host's wall clock goes with it, by what was set after the last writing.",
	    "Nothing, if the clock was right before. If it was wrong then, and the hosts were compared by it, rewrite or restore again.")
};
/* clang-format on */
GCLK_API const struct gclk_finding_info *const gclk_finding_table = table;
GCLK_API const unsigned gclk_n_finding_infos = GCLK_COUNT(table);
static_assert(GCLK_COUNT(table) == GCLK_F_COUNT, "one row per number");

static const char *const severity_names[GCLK_N_SEVERITIES] = { "note", "warning", "error" };
GCLK_API const char *const *const gclk_severity_names = severity_names;

GCLK_API const struct gclk_finding_info *gclk_finding_by_id(const char *id)
{
	for (unsigned i = 0; i < gclk_n_finding_infos; i++) {
		if (!strcmp(table[i].id, id)) {
			return &table[i];
		}
	}
	return NULL;
}

__attribute__((format(printf, 4, 0)))
static void add(struct gclk_findings *findings, const struct gclk_finding_info *info,
		const char *clock, const char *format, va_list args)
{
	struct gclk_finding *finding;

	if (findings->n == GCLK_FINDINGS_MAX) {
		findings->left_out++;
		findings->n_refusing += info->refuses;
		return;
	}
	finding = &findings->items[findings->n++];
	finding->info = info;
	finding->severity = info->severity;
	finding->forced = 0;
	findings->n_refusing += info->refuses;
	gclk_text_copy(finding->clock, sizeof(finding->clock), clock);
	gclk_text_vformat(finding->message, sizeof(finding->message), format, args);
}

GCLK_API void gclk_findings_add(struct gclk_findings *findings, const char *id, const char *clock,
				const char *format, ...)
{
	const struct gclk_finding_info *info = gclk_finding_by_id(id);
	va_list args;

	assert(info);		/* an id that the table lacks is a bug of ours */
	if (!info) {
		findings->left_out++;
		return;
	}
	va_start(args, format);
	add(findings, info, clock, format, args);
	va_end(args);
}

void gclk_findings_put(struct gclk_findings *findings, enum gclk_finding_number number,
		       const char *clock, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add(findings, &table[number], clock, format, args);
	va_end(args);
}

/* A refusing finding whose id the operator named becomes a warning. */
void gclk_findings_force(struct gclk_findings *findings, const char *const *force)
{
	for (; force && *force; force++) {
		for (unsigned i = 0; i < findings->n; i++) {
			struct gclk_finding *finding = &findings->items[i];

			if (!finding->forced && !strcmp(finding->info->id, *force)) {
				finding->forced = 1;
				finding->severity = GCLK_MIN(finding->severity, GCLK_WARNING);
				findings->n_refusing -= finding->info->refuses;
			}
		}
	}
}
