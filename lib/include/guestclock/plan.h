/* SPDX-License-Identifier: MIT */
/*
 * The plan: what each clock of a guest must say after a move, what becomes of
 * the ticks that fell in the gap, how far off each clock can be, and what a
 * person must know. Pure: the same arguments give the same answer anywhere.
 */
#ifndef GUESTCLOCK_PLAN_H
#define GUESTCLOCK_PLAN_H

#include <guestclock/state.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GCLK_UNBOUNDED UINT64_MAX	/* an uncertainty or a bound that nothing limits */

extern const struct gclk_name *const gclk_tsc_basis_names, *const gclk_host_flag_names;

/* clang-format off */
/* What a host can do, and one simultaneous reading of its clocks. */
#define GCLK_HOST_FIELDS(F, E, M, B, S, R) \
	S(R, 65,  hostname,                            "name of the host") \
	S(R, 128, kernel_release,                      "uname -r") \
	S(R, 37,  boot_id,                             "/proc/sys/kernel/random/boot_id") \
	S(R, 49,  cpu_model,                           "processor brand string") \
	S(R, 33,  clocksource,                         "current clocksource") \
	F(R, u64, tsc_hz, HZ, 1, UINT64_MAX,           "host TSC frequency, Hz (over tsc_hz_den)") \
	F(R, u64, tsc_hz_den, NONE, 1, UINT64_MAX,     "denominator of the frequency; absent: 1") \
	F(R, u32, tsc_hz_ppb, PPB, 0, UINT32_MAX,      "uncertainty of tsc_hz against true time") \
	E(R, u8,  tsc_hz_basis, gclk_tsc_basis_names,  "where tsc_hz comes from") \
	F(R, u32, tsc_khz_kernel, KHZ, 1, UINT32_MAX,  "the kernel's own tsc_khz (KVM_GET_TSC_KHZ)") \
	M(R, u32, flags, gclk_host_flag_names,         "what the processor and the kernel promise") \
	F(R, u8,  tsc_ratio_frac_bits, BITS, 0, 63,    "fraction bits of the TSC multiplier: 48 Intel, 32 AMD; absent: no scaling") \
	F(R, u64, tsc_ratio_max, NONE, 0, UINT64_MAX,  "largest multiplier") \
	F(R, u32, tsc_tolerance_ppm, PPM, 0, 1000000,  "difference below which the kernel does not scale") \
	F(R, u32, min_timer_period_us, NONE, 0, UINT32_MAX, "shortest period of a kernel timer, us") \
	F(R, i32, cap_adjust_clock, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_ADJUST_CLOCK (39)") \
	F(R, i32, cap_tsc_control, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_TSC_CONTROL (60)") \
	F(R, i32, cap_get_tsc_khz, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_GET_TSC_KHZ (61)") \
	F(R, i32, cap_tsc_deadline_timer, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_TSC_DEADLINE_TIMER (72)") \
	F(R, i32, cap_kvmclock_ctrl, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_KVMCLOCK_CTRL (76)") \
	F(R, i32, cap_vcpu_attributes, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_VCPU_ATTRIBUTES (127)") \
	F(R, i32, cap_vm_tsc_control, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_VM_TSC_CONTROL (214)") \
	F(R, i32, cap_apic_bus_cycles, NONE, (uint64_t)INT32_MIN, INT32_MAX, "KVM_CAP_X86_APIC_BUS_CYCLES_NS (237)") \
	F(R, u32, ntp_status, HEX, 0, UINT32_MAX,      "adjtimex status, STA_*") \
	F(R, i32, ntp_state, NONE, 0, 5,               "adjtimex result, TIME_*") \
	F(R, i64, ntp_freq_ppb, PPB, GCLK_I64_MIN, GCLK_I64_MAX, "rate correction of the wall clock") \
	F(R, u64, ntp_maxerror_ns, NS, 0, UINT64_MAX,  "largest error of the wall clock") \
	F(R, u64, ntp_esterror_ns, NS, 0, UINT64_MAX,  "estimated error of the wall clock") \
	F(R, i32, tai_offset_s, SECONDS, -1000, 1000,        "TAI minus UTC; 0: not known") \
	F(R, u64, tsc_ticks, TICKS, 0, UINT64_MAX,     "sample: host TSC") \
	F(R, i64, realtime_ns, REALTIME_NS, GCLK_I64_MIN, GCLK_I64_MAX, "sample: CLOCK_REALTIME") \
	F(R, i64, monotonic_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "sample: CLOCK_MONOTONIC") \
	F(R, i64, raw_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "sample: CLOCK_MONOTONIC_RAW") \
	F(R, i64, boottime_ns, NS, GCLK_I64_MIN, GCLK_I64_MAX, "sample: CLOCK_BOOTTIME") \
	F(R, u64, sample_width_ns, NS, 0, UINT64_MAX,  "width of the bracket around the sample")
/* clang-format on */

GCLK_INDEX(host, GCLK_HOST_FIELDS)
struct gclk_host { GCLK_MEMBERS(host, GCLK_HOST_FIELDS) };

enum gclk_tsc_basis {
	GCLK_TSC_UNKNOWN = 0,
	GCLK_TSC_GIVEN = 1,		/* by the caller */
	GCLK_TSC_CPUID = 2,		/* leaf 0x15 or 0x40000010 */
	GCLK_TSC_KERNEL = 3,		/* the kernel's tsc_khz, whole kHz */
	GCLK_TSC_MEASURED = 4,		/* against the kernel's clocks */
};

enum gclk_host_flags {
	GCLK_HOST_CONSTANT_TSC = 1,
	GCLK_HOST_NONSTOP_TSC = 2,
	GCLK_HOST_TSC_KNOWN_FREQ = 4,
	GCLK_HOST_TSC_SCALING = 8,	/* guests can have another frequency, in hardware */
	GCLK_HOST_KVM = 16,		/* /dev/kvm could be opened */
	GCLK_HOST_SYNCHRONISED = 32,	/* the wall clock is disciplined */
	GCLK_HOST_HYPERVISOR = 64,	/* the host is itself a guest */
};

/* The clocks and timers that plans speak of. */
enum gclk_clock {
	GCLK_CLOCK_TSC,
	GCLK_CLOCK_KVMCLOCK,
	GCLK_CLOCK_VIRTUAL,		/* the shared axis */
	GCLK_CLOCK_RTC,
	GCLK_CLOCK_HPET,
	GCLK_CLOCK_PM_TIMER,
	GCLK_CLOCK_PIT,
	GCLK_CLOCK_LAPIC,
	GCLK_N_CLOCKS,
	GCLK_CLOCK_NONE = GCLK_N_CLOCKS,
};
extern const char *const *const gclk_clock_names;	/* GCLK_N_CLOCKS */

/*
 * The carrier: what the one who will load the state honours, one const row per
 * clock. The types stand here; the rows stand with their format or backend.
 */
enum gclk_carrier_set {
	GCLK_SET_ABSENT,		/* the guest has no such clock there */
	GCLK_SET_OWN,			/* has its own value */
	GCLK_SET_AXIS,			/* rides on the shared axis */
	GCLK_SET_NEVER,			/* cannot be set */
};
enum gclk_carrier_start {
	GCLK_START_RUN,			/* counts from the resume */
	GCLK_START_LOAD,		/* counts from the end of the load */
	GCLK_START_ALWAYS,		/* its axis is a clock of the host: it never stands */
};
enum gclk_carrier_phase {
	GCLK_PHASE_KEPT,
	GCLK_PHASE_RESTARTS,		/* a full period begins at the start */
};
enum gclk_carrier_missed {
	GCLK_MISSED_NONE,		/* overdue expiries are forgotten */
	GCLK_MISSED_ONE,		/* they come as one */
	GCLK_MISSED_REPLAY,		/* the device replays what is owed to the guest */
	GCLK_MISSED_INJECT,		/* who loads the state does: struct gclk_replay */
};

struct gclk_carrier_row {
	uint8_t set, start, phase, missed;	/* the enums above */
	uint32_t start_uncertainty_ns;	/* how far from its instant it may start */
	uint32_t replay_horizon_s;	/* beyond it, phase and replay are lost on load; 0: none */
	const char *why;		/* what makes it so; for the documentation and findings */
};

struct gclk_carrier {
	const char *name;
	const char *reference;		/* where the facts come from */
	struct gclk_carrier_row rows[GCLK_N_CLOCKS];
	uint8_t rate_follows_host;	/* the guest's TSC always runs at the host's frequency */
	uint8_t loader_rescales;	/* the loader asks the host to scale the TSC by itself */
	uint8_t clock_from_page;	/* an unreliable paravirtual clock is recomputed at load */
};

/* An instant on a host's CLOCK_REALTIME, and how well it is known. */
struct gclk_instant {
	int64_t ns;			/* since 1970-01-01T00:00:00Z */
	uint64_t uncertainty_ns;	/* true value within +-; GCLK_UNBOUNDED if unknown */
};

/*
 * When. captured is on the source's wall clock, load and run on the
 * destination's. Where elapsed_ns is given it is the gap, exactly, and captured
 * serves only to tell how far the real-time clock has gone on by itself (with an
 * uncertainty of GCLK_UNBOUNDED: run - elapsed stands for it).
 */
struct gclk_when {
	struct gclk_instant captured;	/* the instant that the state describes: the stop */
	struct gclk_instant load;	/* T_load: the end of the load */
	struct gclk_instant run;	/* T_run: the guest runs again */
	int32_t captured_tai_s;		/* TAI - UTC on each side; 0: not known */
	int32_t run_tai_s;
	uint8_t elapsed_given;
	int64_t elapsed_ns;
};

/* Destination's wall clock minus source's at one true instant. */
struct gclk_disagreement {
	int64_t ns;
	uint64_t uncertainty_ns;	/* GCLK_UNBOUNDED: nobody measured */
};

enum gclk_gap_policy {
	GCLK_GAP_COUNT,			/* all clocks go on */
	GCLK_GAP_FREEZE,		/* all stand still: the state is left as it is */
	GCLK_GAP_WALL,			/* monotonic clocks stand still, wall clocks are right */
	GCLK_GAP_CAP,			/* count up to cap_ns, freeze the rest, wall clock too */
};
enum { GCLK_N_GAP_POLICIES = GCLK_GAP_CAP + 1 };
extern const char *const *const gclk_gap_policy_names;

enum gclk_tick_policy {
	GCLK_TICKS_UNKNOWN,
	GCLK_TICKS_DELAY,
	GCLK_TICKS_CATCHUP,
	GCLK_TICKS_MERGE,
	GCLK_TICKS_DISCARD,
};
enum { GCLK_N_TICK_POLICIES = GCLK_TICKS_DISCARD + 1 };
extern const char *const *const gclk_tick_policy_names;

/* The timers that a tick policy can be set for. */
enum gclk_tick_timer {
	GCLK_TICK_PIT, GCLK_TICK_RTC, GCLK_TICK_HPET, GCLK_TICK_LAPIC, GCLK_TICK_PM_TIMER,
	GCLK_N_TICK_TIMERS,
};
extern const char *const *const gclk_tick_timer_names;

struct gclk_tick_choice {
	uint8_t policy;			/* enum gclk_tick_policy */
	uint8_t by_operator;		/* said for this move: holds beyond the horizon too */
};

struct gclk_policy {
	uint8_t gap;			/* enum gclk_gap_policy */
	int64_t cap_ns;			/* for GCLK_GAP_CAP; >= 0 */
	struct gclk_tick_choice ticks[GCLK_N_TICK_TIMERS];
	int64_t horizon_ns;		/* ticks: the domain's policy holds up to it */
	int64_t long_gap_ns;		/* a longer counted gap is warned about */
	uint32_t replay_max;		/* ticks replayed per timer, at most */
	int64_t replay_horizon_ns;	/* a replay may take so long; 0: any time */
	const char *const *force;	/* ids of findings to override (R6), NULL-terminated; or NULL */
};
extern const struct gclk_policy gclk_policy_default;	/* count; 60 s; 60 s; 600 s */

enum gclk_severity {
	GCLK_NOTE,
	GCLK_WARNING,
	GCLK_ERROR,
};
enum { GCLK_N_SEVERITIES = GCLK_ERROR + 1 };
extern const char *const *const gclk_severity_names;

/* A kind of finding: one row of the table that documents them all. */
struct gclk_finding_info {
	const char *id;			/* kebab-case, never reused */
	uint8_t severity;
	uint8_t refuses;		/* a plan with it is refused unless it is forced (R6) */
	const char *title;		/* a few words */
	const char *explanation;	/* what it means, one paragraph */
	const char *advice;		/* what to do */
};
extern const struct gclk_finding_info *const gclk_finding_table;
extern const unsigned gclk_n_finding_infos;
const struct gclk_finding_info *gclk_finding_by_id(const char *id);

#define GCLK_FINDINGS_MAX 64

struct gclk_finding {
	const struct gclk_finding_info *info;
	uint8_t severity;		/* a forced error is a warning */
	uint8_t forced;
	char clock[24];			/* "tsc", "hpet[2]", "" for the guest as a whole */
	char message[360];		/* one sentence with numbers */
};

struct gclk_findings {
	unsigned n;
	unsigned left_out;		/* more than GCLK_FINDINGS_MAX */
	unsigned n_refusing;		/* that refuse and are not forced */
	struct gclk_finding items[GCLK_FINDINGS_MAX];
};

/**
 * gclk_findings_add() - append a finding
 * @id:		an id of gclk_finding_table; an unknown one is our own bug
 * @clock:	which clock, or ""
 * @format:	the sentence
 */
void gclk_findings_add(struct gclk_findings *findings, const char *id, const char *clock,
		       const char *format, ...) __attribute__((format(printf, 4, 5)));

struct gclk_ledger_entry {
	char timer[24];			/* "pit", "rtc", "hpet[0]", "lapic[3]", "pm_timer" */
	uint64_t period_ns;		/* floor; 0: one-shot */
	uint64_t owed_before;
	uint64_t missed;
	uint64_t replayed;		/* the guest receives these, late */
	uint64_t merged;		/* these vanish into a replayed one */
	uint64_t dropped;
	uint8_t policy;			/* enum gclk_tick_policy, as applied */
	const char *why;
};

struct gclk_bound {
	char clock[24];
	uint64_t bound_ns;		/* or GCLK_UNBOUNDED */
};

/* ---- Replay: owed ticks, paid out to the guest while it runs ---- */

#define GCLK_REPLAY_SPEED 8		/* catchup: so many owed ticks per period, at most */
#define GCLK_REPLAY_NEVER INT64_MAX	/* no limit; nothing but an acknowledgement helps */

enum gclk_replay_phase {
	GCLK_REPLAY_READY,		/* begins with the first gclk_replay_next() */
	GCLK_REPLAY_RUNNING,
	GCLK_REPLAY_STOPPED,		/* on request; what remains stays owed */
	GCLK_REPLAY_EXPIRED,		/* the horizon came first; what remained was dropped */
	GCLK_REPLAY_DONE,		/* caught up */
};
extern const char *const *const gclk_replay_phase_names;

/* What became of one attempt. */
enum gclk_replay_outcome {
	GCLK_REPLAY_DELIVERED,		/* the guest has it */
	GCLK_REPLAY_UNTIL_ACK,		/* the guest has it, and none follows before it acknowledges */
	GCLK_REPLAY_COALESCED,		/* it vanished in one still pending, or was masked: tried again */
};

/*
 * One timer's progress, to be read at any time:
 *
 *	owed = delivered + remaining + dropped
 */
struct gclk_replay_timer {
	uint8_t timer;			/* enum gclk_tick_timer */
	uint8_t policy;			/* enum gclk_tick_policy: as the ledger has it */
	uint8_t waits;			/* for the guest to acknowledge the last one */
	uint32_t index;			/* of the HPET's timer or of the vCPU; else 0 */
	uint64_t period_ns;		/* floor; 0: one-shot */
	uint64_t spacing_ns;		/* between two attempts, at least */
	int64_t next_ns;		/* no attempt before this */
	uint64_t rest_ns;		/* of a tick that a change of period left over */
	uint32_t owed;
	uint32_t delivered;
	uint32_t remaining;
	uint32_t dropped;
	uint64_t coalesced;		/* attempts in vain */
	uint64_t acknowledged;
};

/*
 * The engine. It reads no clock and injects nothing: the caller says what time it is on
 * any monotonic axis of its own, and what became of an attempt.
 *
 *	while (gclk_replay_due(replay, &due_ns)) {
 *		wait until due_ns, or the guest acknowledges: gclk_replay_acknowledge();
 *		while ((timer = gclk_replay_next(replay, now()))) {
 *			raise the interrupt of timer->timer, timer->index;
 *			gclk_replay_report(replay, timer, outcome, now());
 *		}
 *	}
 *
 * One timer's attempts are never closer together than its spacing, however late the caller
 * comes: `catchup` leaves an eighth of a period between two, `delay` a whole one, and these
 * come besides the ticks that the timer goes on making by itself.
 */
struct gclk_replay {
	uint8_t phase;			/* enum gclk_replay_phase */
	uint32_t n_timers, timers_max;
	uint32_t turn;			/* who is asked first */
	struct gclk_replay_timer *timers;
	int64_t horizon_ns;		/* how long it may take; GCLK_REPLAY_NEVER: no limit */
	int64_t ends_ns;		/* when that is over, once it has begun */
};

/**
 * gclk_replay_init() - an empty engine on the caller's own storage
 * @timers:	borrowed for as long as the engine is used
 *
 * A plan has one of its own already (plan->replay), filled by gclk_plan().
 */
void gclk_replay_init(struct gclk_replay *replay, struct gclk_replay_timer *timers,
		      uint32_t timers_max, int64_t horizon_ns);

/**
 * gclk_replay_add() - ticks owed by one timer; before the replay begins
 * @policy:	GCLK_TICKS_DELAY paces at the timer's own rate, every other one at
 *		GCLK_REPLAY_SPEED times of it
 *
 * Errors: GCLK_RANGE for a timer that cannot be named in a state, or no room;
 *	GCLK_STATE once it has begun.
 */
int gclk_replay_add(struct gclk_replay *replay, enum gclk_tick_timer timer, uint32_t index,
		    uint32_t owed, uint64_t period_ns, enum gclk_tick_policy policy,
		    struct gclk_error *reterr);

/**
 * gclk_replay_due() - when there is something to do next, as for an absolute timerfd
 * @ret_due_ns:	on the caller's axis; INT64_MIN: at once; GCLK_REPLAY_NEVER: nothing but
 *		an acknowledgement helps
 *
 * Returns 1 while ticks remain and the replay runs, else 0.
 */
int gclk_replay_due(const struct gclk_replay *replay, int64_t *ret_due_ns);

/**
 * gclk_replay_next() - a timer of which one tick is due now, or NULL
 *
 * The same one until its outcome is reported. The first call begins the replay; one at
 * the horizon ends it. The pointer is into the engine's storage.
 */
struct gclk_replay_timer *gclk_replay_next(struct gclk_replay *replay, int64_t now_ns);

void gclk_replay_report(struct gclk_replay *replay, struct gclk_replay_timer *timer,
			enum gclk_replay_outcome outcome, int64_t now_ns);

/* The guest has acknowledged an interrupt of a timer (EOI, register C), owed or not. */
void gclk_replay_acknowledge(struct gclk_replay *replay, enum gclk_tick_timer timer,
			     uint32_t index);

/**
 * gclk_replay_owe() - ticks that the guest was to get now and did not
 *
 * While owed ticks are pending, one that the timer makes by itself can vanish in them:
 * it becomes owed as well. Nothing happens unless the timer's ticks are being replayed
 * under `catchup` or `delay`.
 */
void gclk_replay_owe(struct gclk_replay *replay, enum gclk_tick_timer timer, uint32_t index,
		     uint32_t ticks);

/**
 * gclk_replay_retime() - the guest has given a timer another period
 * @period_ns:	0: it has switched it off, and nothing is owed any more
 *
 * What remains is the same time in ticks of the new length; less than one of them is
 * kept for the next change. owed follows, so that the sum stays right.
 */
void gclk_replay_retime(struct gclk_replay *replay, enum gclk_tick_timer timer, uint32_t index,
			uint64_t period_ns);

/* No further tick. What remains stays owed: gclk_replay_save() puts it into a state. */
void gclk_replay_stop(struct gclk_replay *replay);

/* The same, and what remains is dropped. */
void gclk_replay_drop(struct gclk_replay *replay);

/* Ticks that are still to be delivered, by all timers together. */
uint64_t gclk_replay_remaining(const struct gclk_replay *replay);

/**
 * gclk_replay_save() - what remains becomes owed_ticks of each timer's record
 * @state:	a capture made now, with the guest stopped
 *
 * A delivered tick is in the guest's interrupt controller, which travels with the guest,
 * and no longer owed. Records of timers that the engine does not know stay as they are.
 *
 * Errors: GCLK_RANGE for a state without a timer that owes ticks; nothing is changed then.
 */
int gclk_replay_save(const struct gclk_replay *replay, struct gclk_state *state,
		     struct gclk_error *reterr);

/* The answer. Ownership: the caller's, made once, reusable for any state of its size. */
struct gclk_plan {
	int64_t gap_ns;			/* the true time between the state's instant and T_run */
	uint64_t gap_uncertainty_ns;
	int64_t counted_ns;		/* how much of it the guest's clocks count */
	uint8_t policy;			/* enum gclk_gap_policy */
	struct gclk_when when;
	struct gclk_disagreement disagreement;
	struct gclk_state *state;	/* the new state */
	uint32_t n_ledger, ledger_max;
	struct gclk_ledger_entry *ledger;
	uint32_t n_bounds;
	struct gclk_bound bounds[GCLK_N_CLOCKS];
	struct gclk_findings findings;
	struct gclk_replay replay;	/* what a carrier with GCLK_MISSED_INJECT has to deliver */
};

struct gclk_plan *gclk_plan_new(uint32_t n_vcpus);
struct gclk_plan *gclk_plan_free(struct gclk_plan *plan);

/**
 * gclk_plan() - what becomes of a guest's clocks on a move
 * @state:		captured; validated here
 * @carrier:		who will load it
 * @host:		where it will run
 * @when:		the instants
 * @disagreement:	of the two hosts' wall clocks
 * @policy:		what the operator wants
 * @plan:		from gclk_plan_new() with at least the state's vCPUs
 *
 * Returns 0; -GCLK_REFUSED when a finding that refuses stands, in which case the
 * plan tells which, and must not be carried out (R6). Errors:
 * GCLK_RANGE for a state, an instant or a policy that is not valid.
 * Allocates nothing, reads no clock. Units: ns, Hz. Rounding: down, towards the
 * stop, by less than one tick of each clock; part of the bound.
 */
int gclk_plan(const struct gclk_state *state, const struct gclk_carrier *carrier,
	      const struct gclk_host *host, const struct gclk_when *when,
	      const struct gclk_disagreement *disagreement, const struct gclk_policy *policy,
	      struct gclk_plan *plan, struct gclk_error *reterr);

/**
 * gclk_lint() - what is wrong with a captured state, without any plan
 * @state:	captured
 * @host:	the host that looks at it, or NULL
 * @captured:	when it was taken, or NULL
 */
void gclk_lint(const struct gclk_state *state, const struct gclk_host *host,
	       const struct gclk_instant *captured, struct gclk_findings *findings);

#ifdef __cplusplus
}
#endif
#endif
