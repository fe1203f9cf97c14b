/* SPDX-License-Identifier: MIT */
/*
 * What is read back of a guest's clocks: the kernel's debugfs as a tree of files, the monitor
 * as a function that answers from the same truth. The host's clocks are this machine's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <guestclock/devices.h>
#include <guestclock/kvm.h>

#include "../plan/world.h"
#include "core/calendar.h"
#include "core/error.h"
#include "core/pvclock.h"
#include "core/util.h"
#include "gclk-test.h"
#include "migrator/proof.h"
#include "migrator/situation.h"

#define PID 1234
#define PAGE 0x7ff000

/* A guest that runs, off by what is said here. */
struct running {
	char root[32];
	struct gclk_state *state;	/* as it was planned */
	const struct gclk_carrier *carrier;
	struct gclk_host host;
	struct gclk_when when;
	struct proof proof;
	struct move *move;
	int64_t axis_off_ns, rtc_off_ns, kvmclock_off_ns;
	int64_t offset[2];		/* of the TSCs */
	const char *garbage;		/* what the monitor says instead */
	unsigned asked;
};

static int64_t now_ns(void)
{
	return wall_clock_ns();
}

static void put_offset(const struct running *r, unsigned vcpu, int64_t offset)
{
	static const char *const parts[] = { "/sys", "/kernel", "/debug", "/kvm", "/1234-11" };
	char path[160];
	FILE *file;

	snprintf(path, sizeof(path), "%s", r->root);
	for (unsigned i = 0; i < GCLK_COUNT(parts); i++) {
		strcat(path, parts[i]);
		CU_ASSERT(mkdir(path, 0755) == 0 || errno == EEXIST);
	}
	snprintf(path + strlen(path), 20, "/vcpu%u", vcpu);
	CU_ASSERT(mkdir(path, 0755) == 0 || errno == EEXIST);
	strcat(path, "/tsc-offset");
	file = fopen(path, "w");
	CU_ASSERT_FATAL(file != NULL);
	fprintf(file, "%" PRId64 "\n", offset);
	fclose(file);
}

static uint64_t host_tsc(const struct gclk_host *h, int64_t real_ns)
{
	gclk_i128 ns = (gclk_i128)real_ns - h->realtime_ns;
	uint64_t den = GCLK_HAS(host, h, tsc_hz_den) ? h->tsc_hz_den : 1;

	return h->tsc_ticks + (uint64_t)(ns * (gclk_i128)h->tsc_hz / ((gclk_i128)S * den));
}

static void begin(struct running *r, const struct gclk_carrier *carrier)
{
	struct world world;
	int64_t now;

	memset(r, 0, sizeof(*r));
	strcpy(r->root, "/tmp/gclk-proof-XXXXXX");
	CU_ASSERT_FATAL(mkdtemp(r->root) != NULL);
	world_make(&world, carrier);
	r->state = world.state;
	world.state = NULL;
	world_end(&world);
	r->carrier = carrier;
	GCLK_EQ(gclk_host_read(&r->host, 20 * MS, NULL), 0);
	now = now_ns();
	r->when.load.ns = now - 700 * MS;
	r->when.run.ns = now - 300 * MS;
	GCLK_SET(rtc, &r->state->rtc, base_s, now / S - 5);
	GCLK_SET(rtc, &r->state->rtc, base_at_ns, now / S * S - 5 * S);
	for (unsigned i = 0; i < 2; i++) {
		r->offset[i] = (int64_t)(r->state->tsc[i].value_ticks -
					 host_tsc(&r->host, carrier == &world_kernel ?
								  r->when.load.ns :
								  r->when.run.ns));
		put_offset(r, i, r->offset[i]);
	}
	GCLK_SET(vcpu, &r->state->vcpu[0], system_time_msr, PAGE | 1);
	r->move = calloc(1, sizeof(*r->move));
	move_init(r->move, "restore");
	r->move->verdict = MOVE_DONE;
	for (unsigned i = 0; i < GCLK_N_CLOCKS; i++) {
		struct move_clock *c = &r->move->clocks[r->move->n_clocks++];

		strcpy(c->clock, gclk_clock_names[i]);
		c->bound_ns = 2 * MS;
	}
}

static void end(struct running *r)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", r->root);
	GCLK_EQ(system(command), 0);
	proof_free(&r->proof);
	gclk_state_free(r->state);
	free(r->move);
}

static int64_t axis(const struct running *r)
{
	return r->state->virtual_clock.clock_ns + now_ns() - r->when.run.ns + r->axis_off_ns;
}

/* As the monitor prints four words of memory a line. */
static void put_words(char *to, uint64_t address, const uint32_t *words, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (i % 4 == 0) {
			to += sprintf(to, "%s%016" PRIx64 ":", i ? "\r\n" : "", address + 4 * i);
		}
		to += sprintf(to, " 0x%08x", words[i]);
	}
	strcpy(to, "\r\n");
}

static void put_page(const struct running *r, char *to)
{
	struct gclk_pvclock page = { .version = 4, .flags = 1 };
	uint8_t bytes[GCLK_PVCLOCK_BYTES];
	uint32_t words[GCLK_PVCLOCK_BYTES / 4];

	page.tsc_timestamp = host_tsc(&r->host, r->when.run.ns + 10 * MS) +
			     (uint64_t)r->offset[0];
	page.system_time_ns = r->state->kvmclock.clock_ns + 10 * MS +
			      (uint64_t)r->kvmclock_off_ns;
	GCLK_EQ(gclk_pvclock_scale_from_hz(S, r->host.tsc_hz, &page.scale), 0);
	gclk_pvclock_write(&page, bytes);
	memcpy(words, bytes, sizeof(words));
	put_words(to, PAGE, words, GCLK_COUNT(words));
}

static void put_counter(const struct running *r, char *to)
{
	uint64_t ticks = (uint64_t)axis(r) / 10;
	uint32_t words[2] = { (uint32_t)ticks, (uint32_t)(ticks >> 32) };

	put_words(to, 0xfed000f0, words, 2);
}

static void put_rtc(const struct running *r, char *to)
{
	int64_t below, s = gclk_rtc_seconds_at(&r->state->rtc, now_ns() + r->rtc_off_ns, &below);
	struct gclk_civil day = gclk_civil_from_days(s / 86400);

	sprintf(to, "{\"return\":{\"tm_sec\":%d,\"tm_min\":%d,\"tm_hour\":%d,\"tm_mday\":%d,"
		"\"tm_mon\":%d,\"tm_year\":%d},\"id\":\"libvirt-9\"}", (int)(s % 60),
		(int)(s / 60 % 60), (int)(s / 3600 % 24), day.day, day.month - 1, day.year - 1900);
}

static int ask(void *ctx, const char *command, bool human, char **ret, struct gclk_error *reterr)
{
	struct running *r = ctx;
	char *to = *ret = calloc(1, 512);

	r->asked++;
	if (r->garbage) {
		strcpy(to, r->garbage);
		if (!strcmp(r->garbage, "fail")) {
			free(to);
			return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "nobody is there");
		}
	} else if (!human && strstr(command, "\"rtc-time\"")) {
		put_rtc(r, to);
	} else if (human && !strcmp(command, "xp /2wx 0xfed000f0")) {
		put_counter(r, to);
	} else if (human && !strcmp(command, "xp /8wx 0x7ff000")) {
		put_page(r, to);
	} else {
		CU_FAIL("an unknown question");
	}
	return 0;
}

static void look(struct running *r, bool may_ask)
{
	proof_take(&r->proof, r->state, r->carrier, &r->host, &r->when);
	proof_read(&r->proof, r->root, PID, may_ask ? ask : NULL, r, r->move);
}

static struct move_clock *clock_of(struct running *r, enum gclk_clock clock)
{
	return &r->move->clocks[clock];
}

static void check(struct running *r, enum gclk_clock clock, enum move_proof proof, int64_t off_ns)
{
	const struct move_clock *c = clock_of(r, clock);

	GCLK_EQ(c->proof, proof);
	if (proof != MOVE_UNVERIFIED) {
		CU_ASSERT(c->read_by[0] != 0 && c->unread[0] == 0);
		/* what this machine's scheduler does between two looks is in the width */
		CU_ASSERT(llabs(c->read_ns - off_ns) <= (int64_t)c->read_width_ns + MS / 10);
	} else {
		CU_ASSERT(c->unread[0] != 0);
	}
}

static const struct gclk_finding *finding(const struct running *r, const char *clock)
{
	for (unsigned i = 0; i < r->move->findings.n; i++) {
		const struct gclk_finding *f = &r->move->findings.items[i];

		if (!strcmp(f->info->id, "clock-not-as-planned") && !strcmp(f->clock, clock)) {
			return f;
		}
	}
	return NULL;
}

GCLK_TEST(proof, as_planned)
{
	struct running r;

	begin(&r, &world_kernel);
	look(&r, true);
	check(&r, GCLK_CLOCK_TSC, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_KVMCLOCK, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_HPET, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_VIRTUAL, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_RTC, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_PM_TIMER, MOVE_UNVERIFIED, 0);
	check(&r, GCLK_CLOCK_LAPIC, MOVE_UNVERIFIED, 0);
	GCLK_EQ(r.move->verdict, MOVE_DONE);
	GCLK_EQ(r.move->findings.n, 0);
	end(&r);
}

/* Beyond the bound: a finding each, by its size; within: none. */
GCLK_TEST(proof, not_as_planned)
{
	struct running r;

	begin(&r, &world_kernel);
	put_offset(&r, 1, r.offset[1] - (int64_t)(r.host.tsc_hz / 100)); /* the second vCPU: 10 ms */
	r.kvmclock_off_ns = 5 * MS;
	r.axis_off_ns = -S;
	r.rtc_off_ns = S;
	clock_of(&r, GCLK_CLOCK_VIRTUAL)->bound_ns = 2 * S;
	/* no hz in the state's favour: ticks of 2 GHz there, of this machine here */
	r.state->tsc[1].frequency_hz = r.host.tsc_hz;
	look(&r, true);
	check(&r, GCLK_CLOCK_TSC, MOVE_DIFFERS, -10 * MS);
	check(&r, GCLK_CLOCK_KVMCLOCK, MOVE_DIFFERS, 5 * MS);
	check(&r, GCLK_CLOCK_HPET, MOVE_DIFFERS, -S);
	check(&r, GCLK_CLOCK_VIRTUAL, MOVE_VERIFIED, -S);
	check(&r, GCLK_CLOCK_RTC, MOVE_DIFFERS, S);
	GCLK_EQ(r.move->verdict, MOVE_UNPROVEN);
	CU_ASSERT(strstr(r.move->why, "clock-not-as-planned") != NULL);
	CU_ASSERT(finding(&r, "tsc") && finding(&r, "kvmclock") && finding(&r, "rtc"));
	CU_ASSERT(!finding(&r, "virtual"));
	end(&r);
}

/* A lateness that the report states already is no surprise; another one is. */
GCLK_TEST(proof, known_errors_are_known)
{
	struct running r;

	for (unsigned known = 0; known < 2; known++) {
		begin(&r, &world_kernel);
		r.move->verdict = MOVE_LATE;
		r.axis_off_ns = -50 * MS;
		clock_of(&r, GCLK_CLOCK_HPET)->error_ns = known ? -50 * MS : 0;
		look(&r, true);
		check(&r, GCLK_CLOCK_HPET, known ? MOVE_VERIFIED : MOVE_DIFFERS, -50 * MS);
		end(&r);
	}
}

/* Nothing is asked without leave, and nothing is claimed. */
GCLK_TEST(proof, unverified_says_why)
{
	struct running r;

	begin(&r, &world_kernel);
	look(&r, false);
	GCLK_EQ(r.asked, 0);
	check(&r, GCLK_CLOCK_TSC, MOVE_VERIFIED, 0);
	check(&r, GCLK_CLOCK_RTC, MOVE_UNVERIFIED, 0);
	CU_ASSERT(strstr(clock_of(&r, GCLK_CLOCK_RTC)->unread, "monitor") != NULL);
	GCLK_EQ(r.move->verdict, MOVE_DONE);
	end(&r);

	begin(&r, &world_axis);
	look(&r, false);
	check(&r, GCLK_CLOCK_TSC, MOVE_UNVERIFIED, 0);
	CU_ASSERT(strstr(clock_of(&r, GCLK_CLOCK_TSC)->unread, "emulated") != NULL);
	end(&r);

	/* another's machine, one vCPU too few, no bound */
	begin(&r, &world_kernel);
	proof_take(&r.proof, r.state, r.carrier, &r.host, &r.when);
	proof_read(&r.proof, r.root, PID + 1, NULL, NULL, r.move);
	check(&r, GCLK_CLOCK_TSC, MOVE_UNVERIFIED, 0);
	end(&r);
	begin(&r, &world_kernel);
	clock_of(&r, GCLK_CLOCK_TSC)->bound_ns = GCLK_UNBOUNDED;
	look(&r, false);
	GCLK_EQ(clock_of(&r, GCLK_CLOCK_TSC)->proof, MOVE_UNVERIFIED);
	CU_ASSERT(clock_of(&r, GCLK_CLOCK_TSC)->unread[0] != 0);
	end(&r);

	/* what was not carried out has nothing to prove */
	begin(&r, &world_kernel);
	r.move->verdict = MOVE_CANCELLED;
	look(&r, true);
	GCLK_EQ(r.asked, 0);
	CU_ASSERT(clock_of(&r, GCLK_CLOCK_TSC)->unread[0] == 0);
	end(&r);
}

/* The wall clock was set between the plan and now: every instant of the plan is void. */
GCLK_TEST(proof, a_wall_clock_that_was_set)
{
	struct running r;

	begin(&r, &world_kernel);
	r.host.realtime_ns += 3 * S;
	look(&r, true);
	GCLK_EQ(r.asked, 0);
	check(&r, GCLK_CLOCK_TSC, MOVE_UNVERIFIED, 0);
	CU_ASSERT(strstr(clock_of(&r, GCLK_CLOCK_TSC)->unread, "was set") != NULL);
	GCLK_EQ(r.move->verdict, MOVE_DONE);
	end(&r);
}

GCLK_TEST(proof, a_monitor_that_talks_nonsense)
{
	static const char *const said[] = {
		"fail", "", ":", "fed000f0: 0x1", "fed000f0: 0x123456789 0x1", "{}", "{\"return\":1}",
		"{\"return\":{\"tm_sec\":61,\"tm_min\":0,\"tm_hour\":0,\"tm_mday\":1,\"tm_mon\":0,"
		"\"tm_year\":126}}",
		"{\"return\":{\"tm_sec\":1,\"tm_min\":0,\"tm_hour\":0,\"tm_mday\":1,\"tm_mon\":0,"
		"\"tm_year\":99999999999}}",
		"0: 0x1 0x0 0x0 0x0\r\n10: 0x0 0x0 0x0 0x0\r\n",	/* being written */
		"0: 0x2 0x0 0x0 0x0\r\n10: 0x0 0x0 0x0 0x0\r\n",	/* never filled in */
	};
	struct running r;

	for (unsigned i = 0; i < GCLK_COUNT(said); i++) {
		begin(&r, &world_kernel);
		r.garbage = said[i];
		/* words are words: a counter of nothing differs, and says so */
		look(&r, true);
		check(&r, GCLK_CLOCK_KVMCLOCK, MOVE_UNVERIFIED, 0);
		check(&r, GCLK_CLOCK_RTC, MOVE_UNVERIFIED, 0);
		end(&r);
	}
}
