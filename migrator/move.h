/* SPDX-License-Identifier: MIT */
/*
 * What became of one guest's clocks on one move: the closing report of `migrate`,
 * `save` and `restore`, what the destination tells the source, and a line of the
 * audit log, which `log` reads and the metrics count. One JSON form for all of them.
 */
#ifndef GCLK_MIGRATOR_MOVE_H
#define GCLK_MIGRATOR_MOVE_H

#include <json-c/json_object.h>
#include <stdbool.h>

#include <guestclock/plan.h>

enum move_verdict {
	MOVE_DONE,     /* carried out, and what can be read back agrees */
	MOVE_UNPROVEN, /* carried out; nothing could be read back, or it disagrees (R7) */
	MOVE_LATE, /* carried out, but resumed after its instant: all clocks are late by that */
	MOVE_UNTOUCHED, /* the guest went on with what the loader makes of it: see the findings */
	MOVE_REFUSED,	/* before anything was touched */
	MOVE_CANCELLED, /* the guest goes on where it was */
};
extern const char *const move_verdict_names[6]; /* "done", "unproven", ... */

/* Was a clock read back once the guest ran, and was it what had been planned (R7)? */
enum move_proof {
	MOVE_UNVERIFIED,
	MOVE_VERIFIED,
	MOVE_DIFFERS,
};
extern const char *const move_proof_names[3];

#define MOVE_TEXT 256

/* One clock of the guest. */
struct move_clock {
	char clock[24];	       /* "tsc", "kvmclock", ... as in plans */
	int64_t correction_ns; /* what it was set forward by, against an untouched load */
	int64_t error_ns;      /* known: what it reads minus what the policy asks for */
	uint64_t bound_ns;     /* the rest is less than this; or GCLK_UNBOUNDED */
	uint8_t start;	       /* enum gclk_carrier_start; not in the JSON */
	uint64_t start_ns;     /* of the bound: how far from its instant it may start; nor this */
	uint8_t proof;	       /* enum move_proof */
	char read_by[16];      /* "tsc-offset", "clock-page", "counter", "qom"; "": not read */
	int64_t read_ns;       /* what it read minus what was planned, .error_ns included */
	uint64_t read_width_ns; /* how well that was read */
	char unread[96];       /* why it is unverified; "" else */
};

#define MOVE_LEDGER_MAX 16

struct move {
	char verb[16]; /* "migrate", "save", "restore", "hook", "proxy" */
	char domain[MOVE_TEXT];
	char uuid[40];
	char from[MOVE_TEXT]; /* host names; "" where not known */
	char to[MOVE_TEXT];
	int64_t written_ns;  /* CLOCK_REALTIME of the host that writes this */
	uint8_t verdict;     /* enum move_verdict */
	char why[MOVE_TEXT]; /* of a refusal, a cancellation or an untouched guest */

	struct gclk_instant stopped; /* on the source's wall clock */
	char stopped_basis[32];	     /* "event", "state", "stream", "metadata", ... */
	struct gclk_instant planned; /* T_run, on the destination's */
	struct gclk_instant
		ran; /* when it ran in fact; .uncertainty_ns GCLK_UNBOUNDED: not seen */
	char ran_basis[32]; /* "event", "monitor", "predicted", "" */

	int64_t gap_ns;	     /* counted by the plan; 0 without one */
	int64_t blackout_ns; /* stop to run, on one time line; 0: not known */
	int64_t hold_ns;     /* how long the guest was held back for its instant */
	struct gclk_disagreement disagreement; /* destination minus source */
	char disagreement_basis
		[32];		/* "exchange", "same-boot", "given", "unmeasured", ... */
	uint64_t round_trip_ns; /* least one of the exchange; 0: none */

	uint32_t n_clocks;
	struct move_clock clocks[GCLK_N_CLOCKS];
	uint32_t n_ledger;
	struct gclk_ledger_entry ledger[MOVE_LEDGER_MAX]; /* .why NULL after reading */
	struct gclk_findings findings; /* with ids of the table alone */
};

void move_init(struct move *move, const char *verb);

/**
 * move_take_plan() - what a plan says: gap, instants, corrections, bounds, ledger, findings
 * @before:	the state that it was made from
 * @carrier:	and who loads it, on which @host
 *
 * A correction is against what the clock would have read at the resume if nothing had
 * been patched. error_ns is 0 until move_ran(). Of more timers than the ledger here has
 * rows, those of one device are put together ("lapic").
 */
void move_take_plan(struct move *move, const struct gclk_state *before,
		    const struct gclk_carrier *carrier, const struct gclk_host *host,
		    const struct gclk_plan *plan);

/**
 * move_ran() - the guest ran at @at
 * @until_ns:	by then its clocks did run, on the same wall clock; 0: nobody knows
 * @basis:	who saw it; copied
 *
 * Clocks that start with the resume are late by its distance from the planned instant:
 * that is their known error, and @at's uncertainty joins their bound. Where it is known by
 * when they ran, the span from @at to that takes the place of what the carrier says of their
 * start: mostly it is less, and on a busy host it can be more. The verdict, if the
 * move was carried out, becomes MOVE_LATE beyond @tolerance_ns, and MOVE_UNPROVEN where
 * @at is GCLK_UNBOUNDED. Call it once.
 */
void move_ran(struct move *move, const struct gclk_instant *at, int64_t until_ns,
	      const char *basis, int64_t tolerance_ns);

/**
 * move_wall_set() - the wall clock was set by @by_ns after the last writing
 * @rtc:	of the guest, as captured
 *
 * A real-time clock that goes by it has gained that; nothing else has. After move_ran().
 */
void move_wall_set(struct move *move, const struct gclk_rtc *rtc, int64_t by_ns);

/*
 * {"schema": "guestclock.v1", "verb": ..., "domain", "uuid", "from", "to", "written",
 *  "verdict", "why", "stopped", "planned", "ran", "gap_ns", "blackout_ns", "hold_ns",
 *  "disagreement", "round_trip_ns", "clocks", "ledger", "findings"}; what is not known
 * is null. Of a clock: {"clock", "correction_ns", "error_ns", "bound_ns", "proof":
 * "unverified|verified|differs", "read_by", "read_ns", "read_width_ns", "unread"}.
 */
struct json_object *move_to_json(const struct move *move);

/* The same as one line of text, malloc()ed; NULL where memory was short. */
char *move_to_text(const struct move *move, size_t *ret_size);

/**
 * move_from_json() - the reverse, for text from anywhere
 *
 * Members and findings that a later release may have added are left out. @ret is set
 * only when all of it is valid. Errors: those of json_parse(); GCLK_VERSION for another
 * schema; GCLK_MALFORMED, GCLK_RANGE.
 */
int move_from_json(const char *text, size_t size, struct move *ret,
		   struct gclk_error *reterr);

/**
 * move_settle() - one whose bytes another process has put together
 * @move:	with findings.n at most GCLK_FINDINGS_MAX, and .info of each from the table
 *
 * Texts end and are clean, and what move_from_json() would not have given is refused.
 * Returns whether @move can be used.
 */
bool move_settle(struct move *move);

/* The closing report for people: on standard output. Returns 0 or GCLK_NOMEM. */
int move_print(const struct move *move);

/**
 * move_audit() - append one line to the audit log
 * @path:	NULL: AUDIT_PATH. Made with mode 0640 where it is missing
 *
 * One line, whatever a writer before it left behind and others write at the same time;
 * on the disk when it returns. Its directory is made, if that alone is missing.
 */
#define AUDIT_PATH "/var/log/guestclock/moves.jsonl"
int move_audit(const struct move *move, const char *path, struct gclk_error *reterr);

#endif
