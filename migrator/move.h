/* SPDX-License-Identifier: MIT */
/*
 * What became of one guest's clocks on one move: the closing report of `migrate`,
 * `save` and `restore`, what the destination tells the source, and a line of the
 * audit log, which `log` reads and the metrics count. One JSON form for all of them.
 */
#ifndef GCLK_MIGRATOR_MOVE_H
#define GCLK_MIGRATOR_MOVE_H

#include <json-c/json_object.h>

#include <guestclock/plan.h>

enum move_verdict {
	MOVE_DONE,	/* carried out, and what can be read back agrees */
	MOVE_UNPROVEN,	/* carried out; nothing could be read back, or it disagrees (R7) */
	MOVE_LATE,	/* carried out, but resumed after its instant: all clocks are late by that */
	MOVE_UNTOUCHED, /* the guest went on with what the loader makes of it: see the findings */
	MOVE_REFUSED,	/* before anything was touched */
	MOVE_CANCELLED, /* the guest goes on where it was */
};
extern const char *const move_verdict_names[6];	/* "done", "unproven", ... */

#define MOVE_TEXT 256

/* One clock of the guest. */
struct move_clock {
	char clock[24];		/* "tsc", "kvmclock", ... as in plans */
	int64_t correction_ns;	/* what it was set forward by, against an untouched load */
	int64_t error_ns;	/* known: what it reads minus what the policy asks for */
	uint64_t bound_ns;	/* the rest is less than this; or GCLK_UNBOUNDED */
};

struct move {
	char verb[16];		 /* "migrate", "save", "restore", "hook", "proxy" */
	char domain[MOVE_TEXT];
	char uuid[40];
	char from[MOVE_TEXT];	 /* host names; "" where not known */
	char to[MOVE_TEXT];
	int64_t written_ns;	 /* CLOCK_REALTIME of the host that writes this */
	uint8_t verdict;	 /* enum move_verdict */
	char why[MOVE_TEXT];	 /* of a refusal, a cancellation or an untouched guest */

	struct gclk_instant stopped; /* on the source's wall clock */
	char stopped_basis[32];	     /* "event", "state", "stream", "metadata", ... */
	struct gclk_instant planned; /* T_run, on the destination's */
	struct gclk_instant ran;     /* when it ran in fact; .uncertainty_ns GCLK_UNBOUNDED: not seen */
	char ran_basis[32];	     /* "event", "monitor", "predicted", "" */

	int64_t gap_ns;		/* counted by the plan; 0 without one */
	int64_t blackout_ns;	/* stop to run, on one time line; 0: not known */
	int64_t hold_ns;	/* how long the guest was held back for its instant */
	struct gclk_disagreement disagreement;	/* destination minus source */
	char disagreement_basis[32];	/* "exchange", "same-boot", "given", "unmeasured", ... */
	uint64_t round_trip_ns;		/* least one of the exchange; 0: none */

	uint32_t n_clocks;
	struct move_clock clocks[GCLK_N_CLOCKS];
	uint32_t n_ledger;
	struct gclk_ledger_entry ledger[16];	/* .why NULL after reading */
	struct gclk_findings findings;		/* with ids of the table alone */
};

void move_init(struct move *move, const char *verb);

/*
 * Takes gap, planned instant, corrections, bounds, ledger and findings out of a plan
 * made from @before. error_ns is 0 until move_ran().
 */
void move_take_plan(struct move *move, const struct gclk_state *before,
		    const struct gclk_plan *plan);

/*
 * The guest ran at @at: sets .ran, and by the difference from the planned instant each
 * clock's error and the verdict: MOVE_LATE beyond @tolerance_ns.
 */
void move_ran(struct move *move, const struct gclk_instant *at, const char *basis,
	      int64_t tolerance_ns);

/* One object, without a line break; the reverse validates completely. */
struct json_object *move_to_json(const struct move *move);
int move_from_json(const char *text, size_t size, struct move *ret,
		   struct gclk_error *reterr);

/* The closing report for people. */
void move_print(const struct move *move);

/**
 * move_audit() - append one line to the audit log
 * @path:	NULL: AUDIT_PATH. Made with mode 0640 where it is missing
 *
 * One write() of one line, so that writers do not mix; on the disk when it returns.
 */
#define AUDIT_PATH "/var/log/guestclock/moves.jsonl"
int move_audit(const struct move *move, const char *path, struct gclk_error *reterr);

#endif
