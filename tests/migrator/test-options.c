/* SPDX-License-Identifier: MIT */
/* The parsers of single options, and the table of them as a verb sees it. */
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "gclk-test.h"
#include "migrator/options.h"

#define S INT64_C(1000000000)

static struct gclk_error error;

GCLK_TEST(options, captured_at_is_right_to_its_last_digit)
{
	static const struct {
		const char *text;
		int64_t ns;
		uint64_t uncertainty_ns;
	} rows[] = {
		{ "1970-01-01T00:00:01Z", S, S },
		{ "1970-01-01T00:00:01.5Z", S * 3 / 2, S / 10 },
		{ "1970-01-01T00:00:01.250Z", S * 5 / 4, S / 1000 },
		{ "1970-01-01T01:00:01.000000001+01:00", S + 1, 1 },
		{ "@12.25", S * 49 / 4, S / 100 },
		{ "@12.25+-3ms", S * 49 / 4, 3000000 },
		{ "@12.25+/-3ms", S * 49 / 4, 3000000 },
		{ "@12.25\xc2\xb1"
		  "0s",
		  S * 49 / 4, 0 },
		{ "@12\xb1"
		  "20us",
		  12 * S, 20000 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct gclk_instant at = { 0 };

		GCLK_EQ(parse_captured(rows[i].text, &at, &error), 0);
		GCLK_EQ(at.ns, rows[i].ns);
		GCLK_EQ(at.uncertainty_ns, rows[i].uncertainty_ns);
	}
}

GCLK_TEST(options, a_bad_instant_changes_nothing)
{
	static const char *const bad[] = { "",
					   "yesterday",
					   "@",
					   "@1+-",
					   "@1+--3ms",
					   "@1+-x",
					   "2026-02-30T00:00:00Z",
					   "+5s" };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct gclk_instant at = { 7, 8 };

		CU_ASSERT(parse_captured(bad[i], &at, &error) < 0);
		GCLK_EQ(at.ns, 7);
		GCLK_EQ(at.uncertainty_ns, 8);
		CU_ASSERT(error.message[0] != 0);
	}
}

GCLK_TEST(options, resume_is_absolute_relative_or_now)
{
	struct moment m = { 0 };

	GCLK_EQ(parse_resume("now", &m, &error), 0);
	CU_ASSERT(m.relative);
	GCLK_EQ(m.at.ns, 0);
	GCLK_EQ(parse_resume("+5s", &m, &error), 0);
	CU_ASSERT(m.relative);
	GCLK_EQ(m.at.ns, 5 * S);
	GCLK_EQ(parse_resume("+250ms+-1ms", &m, &error), 0);
	GCLK_EQ(m.at.ns, S / 4);
	GCLK_EQ(m.at.uncertainty_ns, 1000000);
	GCLK_EQ(parse_resume("@100", &m, &error), 0);
	CU_ASSERT(!m.relative);
	GCLK_EQ(m.at.ns, 100 * S);
	GCLK_EQ(m.at.uncertainty_ns, 0); /* a promise, not a reading */
	CU_ASSERT(parse_resume("5s", &m, &error) < 0);
	CU_ASSERT(parse_resume("", &m, &error) < 0);
}

GCLK_TEST(options, load_is_absolute_or_before_the_resume)
{
	struct moment m = { 0 };

	GCLK_EQ(parse_load("-20ms", &m, &error), 0);
	CU_ASSERT(m.relative);
	GCLK_EQ(m.at.ns, -20000000);
	GCLK_EQ(parse_load("@3", &m, &error), 0);
	CU_ASSERT(!m.relative);
	CU_ASSERT(parse_load("+20ms", &m, &error) < 0);
}

GCLK_TEST(options, disagreement_has_units_and_an_uncertainty)
{
	static const struct {
		const char *text;
		int64_t ns;
		uint64_t uncertainty_ns;
	} rows[] = {
		{ "0+-0", 0, 0 },
		{ "-1500+-200", -1500, 200 },
		{ "+1500\xc2\xb1"
		  "200",
		  1500, 200 },
		{ "2ms+-100us", 2000000, 100000 },
		{ "-2.5s+-1ms", -2500000000, 1000000 },
		{ "+-1ms", 0, 1000000 },
	};
	struct gclk_disagreement d = { 1, 2 };

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		GCLK_EQ(parse_disagreement(rows[i].text, &d, &error), 0);
		GCLK_EQ(d.ns, rows[i].ns);
		GCLK_EQ(d.uncertainty_ns, rows[i].uncertainty_ns);
	}
	CU_ASSERT(parse_disagreement("5ms", &d, &error) < 0); /* how well is it known? */
	CU_ASSERT(parse_disagreement("1+--2", &d, &error) < 0);
	CU_ASSERT(parse_disagreement("x+-2", &d, &error) < 0);
	CU_ASSERT(parse_disagreement("1+-", &d, &error) < 0);
}

GCLK_TEST(options, gap_policies)
{
	uint8_t gap = 99;
	int64_t cap = 99;

	GCLK_EQ(parse_gap("count", &gap, &cap, &error), 0);
	GCLK_EQ(gap, GCLK_GAP_COUNT);
	GCLK_EQ(parse_gap("freeze", &gap, &cap, &error), 0);
	GCLK_EQ(gap, GCLK_GAP_FREEZE);
	GCLK_EQ(parse_gap("wall", &gap, &cap, &error), 0);
	GCLK_EQ(gap, GCLK_GAP_WALL);
	GCLK_EQ(cap, 99);
	GCLK_EQ(parse_gap("cap=60s", &gap, &cap, &error), 0);
	GCLK_EQ(gap, GCLK_GAP_CAP);
	GCLK_EQ(cap, 60 * S);
	GCLK_EQ(parse_gap("cap=0s", &gap, &cap, &error), 0);
	GCLK_EQ(cap, 0);
	CU_ASSERT(parse_gap("cap", &gap, &cap, &error) < 0); /* without its duration */
	CU_ASSERT(parse_gap("cap=-1s", &gap, &cap, &error) < 0);
	CU_ASSERT(parse_gap("counts", &gap, &cap, &error) < 0);
	CU_ASSERT(parse_gap("", &gap, &cap, &error) < 0);
}

GCLK_TEST(options, tick_policies)
{
	uint8_t ticks[GCLK_N_TICK_TIMERS] = { 0 };

	GCLK_EQ(parse_ticks("rtc=catchup", ticks, &error), 0);
	GCLK_EQ(ticks[GCLK_TICK_RTC], GCLK_TICKS_CATCHUP);
	GCLK_EQ(parse_ticks("pit=merge, pm_timer=discard,hpet=delay", ticks, &error), 0);
	GCLK_EQ(ticks[GCLK_TICK_PIT], GCLK_TICKS_MERGE);
	GCLK_EQ(ticks[GCLK_TICK_PM_TIMER], GCLK_TICKS_DISCARD);
	GCLK_EQ(ticks[GCLK_TICK_HPET], GCLK_TICKS_DELAY);
	GCLK_EQ(ticks[GCLK_TICK_RTC], GCLK_TICKS_CATCHUP);
	GCLK_EQ(ticks[GCLK_TICK_LAPIC], GCLK_TICKS_UNKNOWN);
	/* all or nothing */
	CU_ASSERT(parse_ticks("lapic=merge,pit=never", ticks, &error) < 0);
	GCLK_EQ(ticks[GCLK_TICK_LAPIC], GCLK_TICKS_UNKNOWN);
	CU_ASSERT(parse_ticks("tsc=merge", ticks, &error) < 0);
	CU_ASSERT(parse_ticks("pit", ticks, &error) < 0);
	CU_ASSERT(parse_ticks("pit=unknown", ticks, &error) < 0);
	CU_ASSERT(parse_ticks("", ticks, &error) < 0);
}

/* Text of random words never does more than be refused. */
GCLK_TEST(options, random_text_is_refused_or_parsed)
{
	static const char *const pieces[] = {
		"+",   "-",    "\xc2\xb1", "+-", "1",	"99999999999999999999",
		"ms",  "s",    "h",	   ".",	 "@",	"cap=",
		"pit", "=",    "merge",	   ",",	 "now", "2026-01-01T00:00:00Z",
		" ",   "\xff", ""
	};
	unsigned n_pieces = sizeof(pieces) / sizeof(pieces[0]);

	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		char text[256] = "";
		struct gclk_instant at;
		struct moment m;
		struct gclk_disagreement d;
		uint8_t ticks[GCLK_N_TICK_TIMERS] = { 0 }, gap;
		int64_t ns;

		for (uint64_t k = gclk_random_below(8); k > 0; k--) {
			strcat(text, pieces[gclk_random_below(n_pieces)]);
		}
		CU_ASSERT(parse_captured(text, &at, &error) <= 0);
		CU_ASSERT(parse_resume(text, &m, &error) <= 0);
		CU_ASSERT(parse_load(text, &m, &error) <= 0);
		CU_ASSERT(parse_gap(text, &gap, &ns, &error) <= 0);
		CU_ASSERT(parse_ticks(text, ticks, &error) <= 0);
		if (parse_disagreement(text, &d, &error) == 0) {
			CU_ASSERT(d.uncertainty_ns <= INT64_MAX);
		}
		if (parse_span(text, &ns, &error) == 0) {
			CU_ASSERT(ns >= 0);
		}
	}
}

static int nothing(const struct options *o)
{
	(void)o;
	return 0;
}

static const struct verb sample = {
	.name = "sample",
	.synopsis = "FILE",
	.text = "",
	.example = "",
	.options = OPTIONS_COMMON | OPTIONS_PLAN | OPTION(OUTPUT),
	.min_files = 1,
	.max_files = 1,
	.run = nothing,
};

static int parse(struct options *o, const char *const words[])
{
	char storage[16][64];
	char *argv[17] = { NULL };
	static char kept[16][64];
	int argc = 0;

	for (; words[argc]; argc++) {
		snprintf(storage[argc], sizeof(storage[argc]), "%s", words[argc]);
		memcpy(kept[argc], storage[argc], sizeof(storage[argc]));
		argv[argc] = kept[argc];
	}
	return options_parse(&sample, argc, argv, o);
}

/* What goes to stderr is not what these cases are about. */
static int saved_stderr;

static void silence(bool on)
{
	fflush(stderr);
	if (on) {
		saved_stderr = dup(STDERR_FILENO);
		if (!freopen("/dev/null", "w", stderr)) {
			CU_FAIL("no /dev/null");
		}
	} else {
		dup2(saved_stderr, STDERR_FILENO);
		close(saved_stderr);
	}
}

GCLK_TEST(options, a_command_line)
{
	struct options o;

	GCLK_EQ(parse(&o,
		      (const char *const[]){ "sample", "--gap", "cap=1h", "--ticks",
					     "pit=merge", "in.img", "--ticks=rtc=catchup",
					     "-o", "out", "--force",
					     "tsc-frequency-unknown", "--json", NULL }),
		0);
	CU_ASSERT(given(&o, OPTION(JSON)) && given(&o, OPTION(GAP)) &&
		  !given(&o, OPTION(HOST)));
	GCLK_EQ(o.cap_ns, 3600 * S);
	GCLK_EQ(o.ticks[GCLK_TICK_PIT], GCLK_TICKS_MERGE);
	GCLK_EQ(o.ticks[GCLK_TICK_RTC], GCLK_TICKS_CATCHUP);
	CU_ASSERT_STRING_EQUAL(o.output, "out");
	CU_ASSERT_STRING_EQUAL(o.files[0], "in.img");
	CU_ASSERT_STRING_EQUAL(o.force[0], "tsc-frequency-unknown");
	CU_ASSERT(o.force[1] == NULL);
}

GCLK_TEST(options, wrong_command_lines_are_usage_errors)
{
	static const char *const bad[][8] = {
		{ "sample", NULL },
		{ "sample", "a", "b", NULL },
		{ "sample", "a", "--in-place", NULL }, /* not of this verb */
		{ "sample", "a", "--nonsense", NULL },
		{ "sample", "a", "-x", NULL },
		{ "sample", "a", "--json=1", NULL },
		{ "sample", "a", "-o", NULL },
		{ "sample", "a", "--output", "", NULL },
		{ "sample", "a", "--gap", "count", "--gap", "wall", NULL },
		{ "sample", "a", "--force", "no-such-finding", NULL },
		{ "sample", "a", "--force", "long-gap", NULL }, /* refuses nothing */
		{ "sample", "a", "--elapsed", "-1s", NULL },
		{ "sample", "a", "--color", "blue", NULL },
	};
	struct options o;

	silence(true);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		GCLK_EQ(parse(&o, bad[i]), GCLK_USAGE);
	}
	silence(false);
}

static struct own {
	unsigned n;
	const char *last;
} own;

static int set_own(struct options *o, const char *text, struct gclk_error *reterr)
{
	struct own *to = o->own;

	to->n++;
	to->last = text;
	return text[0] == '!' ? gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET, "no") : 0;
}

GCLK_TEST(options, a_verb_has_options_of_its_own)
{
	static const struct option_row rows[] = {
		{ "flag", 0, NULL, NULL, "is given or not" },
		{ "name", 'n', "TEXT", set_own, "a value" },
		{ "part", 0, "TEXT", set_own, "several", true },
	};
	static const struct verb verb = {
		.name = "own", .summary = "", .synopsis = "", .text = "", .example = "",
		.options = OPTIONS_COMMON, .max_files = 2, .own_rows = rows,
		.n_own_rows = 3, .own = &own,
	};
	static const char *const bad[][5] = {
		{ "own", "--name", "a", "--name=b", NULL }, { "own", "--name", NULL },
		{ "own", "--flag=1", NULL }, { "own", "--part", "!", NULL },
		{ "own", "-x", NULL },
	};
	char words[8][16] = { "own", "--part", "a", "-nb", "--part=c", "file", "--json" };
	char *argv[] = { words[0], words[1], words[2], words[3], words[4], words[5], words[6],
			 NULL };
	struct options o;

	GCLK_EQ(options_parse(&verb, 7, argv, &o), 0);
	CU_ASSERT(!own_given(&o, 0) && own_given(&o, 1) && own_given(&o, 2));
	CU_ASSERT(given(&o, OPTION(JSON)));
	GCLK_EQ(own.n, 3);
	CU_ASSERT_STRING_EQUAL(own.last, "c");
	GCLK_EQ(o.n_files, 1);
	silence(true);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int n = 0;

		for (; bad[i][n]; n++) {
			strcpy(words[n], bad[i][n]);
			argv[n] = words[n];
		}
		argv[n] = NULL;
		GCLK_EQ(options_parse(&verb, n, argv, &o), GCLK_USAGE);
	}
	silence(false);
}
