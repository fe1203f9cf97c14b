/* SPDX-License-Identifier: MIT */
/* Policies: the layers, in their order, and where each value came from. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/conf.h"

static struct gclk_error error;

static int read_text(struct settings *s, const char *text)
{
	char path[] = "/tmp/gclk-conf-XXXXXX";
	int fd = mkstemp(path);
	int r;

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	settings_init(s);
	r = settings_read_file(s, path, &error);
	unlink(path);
	return r;
}

GCLK_TEST(conf, a_file)
{
	struct settings s;

	GCLK_EQ(read_text(&s, "; the site's policy\n[policy]\ngap = cap=90s ; a comment\n"
			      "ticks = rtc=catchup, pit=merge\n\nlong_gap = 5min\n"
			      "tick_horizon=10s\nreplay_max = 42\n"),
		0);
	GCLK_EQ(s.policy.gap, GCLK_GAP_CAP);
	GCLK_EQ(s.policy.cap_ns, INT64_C(90000000000));
	GCLK_EQ(s.policy.ticks[GCLK_TICK_RTC].policy, GCLK_TICKS_CATCHUP);
	GCLK_EQ(s.policy.ticks[GCLK_TICK_RTC].by_operator, 0);
	GCLK_EQ(s.policy.ticks[GCLK_TICK_HPET].policy, GCLK_TICKS_UNKNOWN);
	GCLK_EQ(s.policy.long_gap_ns, INT64_C(300000000000));
	GCLK_EQ(s.policy.horizon_ns, INT64_C(10000000000));
	GCLK_EQ(s.policy.replay_max, 42);
	CU_ASSERT(strstr(s.origin[SETTING_GAP], ":3") != NULL);
	CU_ASSERT(strstr(s.origin[SETTING_REPLAY_MAX], ":8") != NULL);
	CU_ASSERT_STRING_EQUAL(s.origin[SETTING_TICKS + GCLK_TICK_HPET], "built-in");
}

GCLK_TEST(conf, a_wrong_file_names_its_line)
{
	static const struct {
		const char *text, *where;
	} rows[] = {
		{ "[policy]\ngap = sometimes\n", "line 2" },
		{ "[policy]\n\nticks = pit\n", "line 3" },
		{ "[policy]\nreplay_max = -1\n", "line 2" },
		{ "[policy]\nreplay_max = 5000000000\n", "line 2" },
		{ "[policy]\nlong_gap = soon\n", "line 2" },
		{ "[policy\ngap = count\n", "line 1" },
	};
	struct settings s;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		GCLK_EQ(read_text(&s, rows[i].text), -GCLK_MALFORMED);
		CU_ASSERT(strstr(error.where, rows[i].where) ||
			  strstr(error.message, rows[i].where));
	}
}

GCLK_TEST(conf, only_the_usual_file_may_be_missing)
{
	struct settings s;

	settings_init(&s);
	GCLK_EQ(settings_read_file(&s, "/nonexistent/guestclock.conf", &error),
		-GCLK_SYS);
}

GCLK_TEST(conf, later_layers_win)
{
	static struct gclk_domain domain;
	struct settings s;
	struct options o = { .given = OPTION(TICKS) };

	memset(&domain, 0, sizeof(domain));
	strcpy(domain.name, "web1");
	domain.n_timers = 2;
	strcpy(domain.timers[0].name, "pit");
	domain.timers[0].ticks = GCLK_DOMAIN_TICKS_DELAY;
	strcpy(domain.timers[1].name, "rtc");
	domain.timers[1].ticks = GCLK_DOMAIN_TICKS_CATCHUP;
	domain.has_metadata = 1;
	domain.n_metadata = 2;
	strcpy(domain.metadata[0].name, "gap");
	strcpy(domain.metadata[0].value, "wall");
	strcpy(domain.metadata[1].name, "ticks");
	strcpy(domain.metadata[1].value, "rtc=discard");
	o.ticks[GCLK_TICK_LAPIC] = GCLK_TICKS_MERGE;

	GCLK_EQ(read_text(&s, "[policy]\ngap=freeze\nticks=pit=merge,hpet=discard\n"), 0);
	GCLK_EQ(settings_read_domain(&s, &domain, &error), 0);
	settings_read_options(&s, &o);
	GCLK_EQ(s.policy.gap, GCLK_GAP_WALL); /* metadata over file */
	GCLK_EQ(s.policy.ticks[GCLK_TICK_PIT].policy,
		GCLK_TICKS_DELAY); /* XML over file */
	GCLK_EQ(s.policy.ticks[GCLK_TICK_RTC].policy,
		GCLK_TICKS_DISCARD); /* metadata over XML */
	GCLK_EQ(s.policy.ticks[GCLK_TICK_HPET].policy, GCLK_TICKS_DISCARD); /* file */
	GCLK_EQ(s.policy.ticks[GCLK_TICK_LAPIC].policy, GCLK_TICKS_MERGE);  /* option */
	GCLK_EQ(s.policy.ticks[GCLK_TICK_LAPIC].by_operator, 1);
	GCLK_EQ(s.policy.ticks[GCLK_TICK_RTC].by_operator, 0);
	CU_ASSERT_STRING_EQUAL(s.origin[SETTING_GAP], "domain web1, <metadata>");
	CU_ASSERT_STRING_EQUAL(s.origin[SETTING_TICKS + GCLK_TICK_PIT],
			       "domain web1, <clock>");
	CU_ASSERT_STRING_EQUAL(s.origin[SETTING_TICKS + GCLK_TICK_LAPIC], "--ticks");

	strcpy(domain.metadata[0].value, "maybe");
	CU_ASSERT(settings_read_domain(&s, &domain, &error) < 0);
}

/* What is shown is what the file takes. */
GCLK_TEST(conf, shown_values_can_be_written)
{
	struct settings s, again;
	char name[32], value[64];

	GCLK_EQ(read_text(&s, "[policy]\ngap=cap=1h30min\nlong_gap=90s\nreplay_max=7\n"),
		0);
	settings_init(&again);
	setting_value(&s, SETTING_GAP, value);
	GCLK_EQ(parse_gap(value, &again.policy.gap, &again.policy.cap_ns, &error), 0);
	GCLK_EQ(again.policy.cap_ns, s.policy.cap_ns);
	setting_value(&s, SETTING_LONG_GAP, value);
	GCLK_EQ(parse_span(value, &again.policy.long_gap_ns, &error), 0);
	GCLK_EQ(again.policy.long_gap_ns, s.policy.long_gap_ns);
	setting_name(SETTING_TICKS + GCLK_TICK_PM_TIMER, name);
	CU_ASSERT_STRING_EQUAL(name, "ticks.pm_timer");
}
