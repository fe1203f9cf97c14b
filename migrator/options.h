/* SPDX-License-Identifier: MIT */
/*
 * The options of all verbs: one table, from which come parsing and help. A verb
 * names the ones that it takes.
 */
#ifndef GCLK_MIGRATOR_OPTIONS_H
#define GCLK_MIGRATOR_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <guestclock/plan.h>

enum option_id {
	OPTION_HELP,
	OPTION_JSON,
	OPTION_COLOR,
	OPTION_CONF,
	OPTION_OUTPUT,
	OPTION_IN_PLACE,
	OPTION_SYNC,
	OPTION_SNAPSHOT,
	OPTION_CHECK,
	OPTION_FORCE,
	OPTION_HOST,
	OPTION_CAPTURED_AT,
	OPTION_RESUME_AT,
	OPTION_LOAD_AT,
	OPTION_ELAPSED,
	OPTION_GAP,
	OPTION_TICKS,
	OPTION_DISAGREEMENT,
	OPTION_POLICY,
	OPTION_MEASURE,
	OPTION_REDACT,
	N_OPTIONS
};
#define OPTION(id) (UINT32_C(1) << OPTION_##id)

/* Those that every verb takes, and those of all verbs that make a plan. */
#define OPTIONS_COMMON (OPTION(HELP) | OPTION(JSON) | OPTION(COLOR))
#define OPTIONS_PLAN                                                                     \
	(OPTION(CONF) | OPTION(SNAPSHOT) | OPTION(FORCE) | OPTION(HOST) |                \
	 OPTION(CAPTURED_AT) | OPTION(RESUME_AT) | OPTION(LOAD_AT) | OPTION(ELAPSED) |   \
	 OPTION(GAP) | OPTION(TICKS) | OPTION(DISAGREEMENT))

#define FORCE_MAX 32
#define FILES_MAX 64

enum color { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

/* An instant as the operator says it: absolute, or relative to another one. */
struct moment {
	bool relative;
	struct gclk_instant at; /* .ns: since 1970, or the signed distance */
};

struct options {
	uint32_t given; /* OPTION() bits */
	enum color color;
	const char *conf;
	const char *output;
	const char *snapshot;
	const char *host;
	struct gclk_instant captured;
	struct moment resume; /* relative: to now */
	struct moment load;   /* relative: to the resume; <= 0 */
	int64_t elapsed_ns;
	int64_t measure_ns;
	uint8_t gap; /* enum gclk_gap_policy */
	int64_t cap_ns;
	uint8_t ticks[GCLK_N_TICK_TIMERS]; /* GCLK_TICKS_UNKNOWN: not said */
	struct gclk_disagreement disagreement;
	const char *force[FORCE_MAX + 1]; /* NULL-terminated */
	unsigned n_force;
	const char *files[FILES_MAX];
	int n_files;
	void *own;	    /* the verb's own struct */
	uint64_t own_given; /* OWN_OPTION() bits */
};

static inline bool given(const struct options *o, uint32_t options)
{
	return (o->given & options) != 0;
}

/* One option; the rows that all verbs share are in options.c. */
struct option_row {
	const char *name;
	char letter;	      /* 0: none */
	const char *argument; /* NULL: takes none */
	/* what to do with the value; for a verb's own rows it fills o->own */
	int (*set)(struct options *o, const char *text, struct gclk_error *reterr);
	const char *help; /* lines are indented by the help */
	bool repeats;	  /* may be given more than once */
};

/* A verb's own rows, at most 64: a bit in own_given by the place in the table. */
#define OWN_OPTION(i) (UINT64_C(1) << (i))

static inline bool own_given(const struct options *o, unsigned i)
{
	return (o->own_given & OWN_OPTION(i)) != 0;
}

struct verb {
	const char *name;
	const char *summary;  /* one line for the list */
	const char *synopsis; /* what follows the options: "FILE" */
	const char *text;     /* what it does, a paragraph or two */
	const char *example;
	uint32_t options;
	int min_files, max_files;
	int (*run)(const struct options *o); /* returns the exit code */
	const struct option_row *own_rows;   /* options of this verb alone, or NULL */
	unsigned n_own_rows;
	void *own; /* what they set: zeroed or with defaults, becomes o->own */
};

/**
 * options_parse() - the arguments after a verb
 * @argv:	argv[0] is the verb
 *
 * Returns 0, or GCLK_USAGE after having said what is wrong.
 */
int options_parse(const struct verb *verb, int argc, char **argv, struct options *ret);

/* The help of one verb. */
void options_help(const struct verb *verb, FILE *to);

/*
 * The parsers of single values, for the configuration and for tests. Errors:
 * GCLK_MALFORMED and GCLK_RANGE with a sentence.
 */

/**
 * parse_captured() - an instant, and how well it is known
 * @text:	"TIME", "TIME+-DURATION" or "TIME±DURATION"
 *
 * Without a given uncertainty TIME is right to one unit of its last digit.
 */
int parse_captured(const char *text, struct gclk_instant *ret, struct gclk_error *reterr);

/* "TIME", "now" or "+DURATION"; exact unless +-DURATION follows: it is a promise. */
int parse_resume(const char *text, struct moment *ret, struct gclk_error *reterr);

/* "TIME" or "-DURATION" (before the resume). */
int parse_load(const char *text, struct moment *ret, struct gclk_error *reterr);

/* A duration that is not negative. */
int parse_span(const char *text, int64_t *ret_ns, struct gclk_error *reterr);

/* "-1500+-200", "2ms±100us", "+-1ms": ns where no unit is said. */
int parse_disagreement(const char *text, struct gclk_disagreement *ret,
		       struct gclk_error *reterr);

/* "count", "freeze", "wall", "cap=DURATION". */
int parse_gap(const char *text, uint8_t *ret_gap, int64_t *ret_cap_ns,
	      struct gclk_error *reterr);

/* "TIMER=POLICY[,TIMER=POLICY...]"; sets only those that it names. */
int parse_ticks(const char *text, uint8_t ticks[GCLK_N_TICK_TIMERS],
		struct gclk_error *reterr);

#endif
