/* SPDX-License-Identifier: MIT */
/*
 * A fleet: thousands of guests that move between hosts of mixed frequency, with and without
 * TSC scaling, whose wall clocks drift, are stepped, and here and there claim to be better
 * than they are. Time is simulated; every plan, refusal, bound and clock exchange is the
 * library's own. The program knows the true time, the library only what hosts can know.
 *
 *	fleet [--guests N] [--hosts N] [--moves N] [--seed N] [--svg FILE]
 *
 * A live move takes 10 ms to 3 s; the two hosts can ask each other for the time. A cold
 * one (save here, restore there) takes minutes to weeks, and nobody can ask the past: there
 * the hosts' own claims about their wall clocks are all there is.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/exchange.h>
#include <guestclock/kvm.h>
#include <guestclock/plan.h>

#define US INT64_C(1000)
#define MS INT64_C(1000000)
#define S INT64_C(1000000000)
#define HOUR (3600 * S)
#define EPOCH (INT64_C(1795000000) * S)
#define YEAR (INT64_C(365) * 24 * HOUR)
#define STOP_STAMP_NS 20000	/* how well an event stamp tells the instant of the stop */

/* --- random numbers: SplitMix64, so that a seed says it all --- */

static uint64_t seed;

static uint64_t random_u64(void)
{
	uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static int64_t between(int64_t low, int64_t high)
{
	return low + (int64_t)(random_u64() % (uint64_t)(high - low + 1));
}

/* As many between 1 and 10 as between 10 and 100: the exponent is even, in powers of two. */
static int64_t spread(int64_t low, int64_t high)
{
	int64_t top = low;
	int steps = 0;

	while (top <= high / 2) {
		top *= 2;
		steps++;
	}
	top = low << between(0, steps);
	return between(top, top > high / 2 ? high : 2 * top);
}

static bool chance(unsigned percent)
{
	return random_u64() % 100 < percent;
}

/* --- hosts --- */

enum clock_kind { DISCIPLINED, FREE, LIAR };

struct machine {
	struct gclk_host profile;	/* what it says of itself */
	enum clock_kind kind;
	int64_t offset_ns;		/* of the wall clock */
	int64_t rate_ppb;		/* of a clock that nobody disciplines */
	int64_t swing_ns, swing_period_ns;	/* of one that wanders about the truth */
	int64_t stepped_at_ns;		/* a liar is found out and set right */
};

static int64_t mul_div(int64_t a, int64_t b, int64_t c)
{
	__int128 p = (__int128)a * b;

	return (int64_t)(p / c - (p % c < 0));
}

/* Up and down between -swing and +swing, in straight lines. */
static int64_t wander(const struct machine *m, int64_t t)
{
	int64_t phase = t % m->swing_period_ns, half = m->swing_period_ns / 2;

	if (phase >= half) {
		phase = m->swing_period_ns - phase;
	}
	return mul_div(2 * m->swing_ns, phase, half) - m->swing_ns;
}

/* What its CLOCK_REALTIME reads at a true instant. */
static int64_t wall(const struct machine *m, int64_t t)
{
	if (m->kind == DISCIPLINED || (m->kind == LIAR && t >= m->stepped_at_ns)) {
		return EPOCH + t + wander(m, t);
	}
	return EPOCH + t + m->offset_ns + mul_div(t, m->rate_ppb, S);
}

static void make_clock(struct machine *m)
{
	int64_t maxerror = spread(200 * US, 50 * MS);
	unsigned lot = (unsigned)between(0, 99);

	m->kind = lot < 90 ? DISCIPLINED : lot < 97 ? FREE : LIAR;
	m->swing_ns = between(maxerror / 20, maxerror);
	m->swing_period_ns = 2 * between(500 * S, 20000 * S);
	m->offset_ns = m->kind == FREE ? between(-2 * HOUR, 2 * HOUR) : between(-5 * S, 5 * S);
	m->rate_ppb = between(-50000, 50000);
	m->stepped_at_ns = between(0, YEAR);
	if (m->kind != FREE) {
		m->profile.flags |= GCLK_HOST_SYNCHRONISED;
		GCLK_SET(host, &m->profile, ntp_maxerror_ns, (uint64_t)maxerror);
	}
}

static void make_machine(struct machine *m, unsigned n)
{
	static const uint64_t nominal_hz[] = { 2000000000, 2194843000, 2400000000,
					       2599998000, 2994375000, 3499912000 };
	uint64_t hz = nominal_hz[random_u64() % 6];

	memset(m, 0, sizeof(*m));
	hz += (uint64_t)between(-20000, 20000);		/* as calibrated: up to 10 ppm apart */
	GCLK_SET(host, &m->profile, flags,
		 GCLK_HOST_CONSTANT_TSC | GCLK_HOST_NONSTOP_TSC | GCLK_HOST_KVM);
	GCLK_SET(host, &m->profile, tsc_hz, hz);
	GCLK_SET(host, &m->profile, tsc_hz_ppb, (uint32_t)spread(50, 5000));
	GCLK_SET(host, &m->profile, tsc_tolerance_ppm, 250);
	GCLK_SET(host, &m->profile, tai_offset_s, 37);
	if (chance(60)) {
		m->profile.flags |= GCLK_HOST_TSC_SCALING;
		GCLK_SET(host, &m->profile, tsc_ratio_frac_bits, chance(50) ? 48 : 32);
		GCLK_SET(host, &m->profile, tsc_ratio_max, UINT64_MAX);
		GCLK_SET(host, &m->profile, cap_tsc_control, 1);
	}
	snprintf(m->profile.boot_id, sizeof(m->profile.boot_id),
		 "00000000-0000-4000-8000-%012u", n);
	m->profile.has |= GCLK_BIT(host, boot_id);
	make_clock(m);
}

/* --- guests --- */

struct guest {
	uint32_t on;			/* host */
	uint64_t hz;
	int64_t since_ns;		/* true time of the last resume */
	uint64_t tsc_ticks;
	uint64_t clock_ns;
	int64_t error_ns;		/* of all its moves together */
	uint64_t bound_ns;
};

static void make_guest(struct guest *g, const struct machine *machines, uint32_t n)
{
	g->on = (uint32_t)(random_u64() % n);
	g->hz = machines[g->on].profile.tsc_hz;
	g->since_ns = 0;
	g->tsc_ticks = (uint64_t)between(0, INT64_C(1) << 50);
	g->clock_ns = (uint64_t)between(S, 1000 * HOUR);
	g->error_ns = 0;
	g->bound_ns = 0;
}

static void fill_state(struct gclk_state *state, const struct guest *g)
{
	gclk_state_clear(state);
	GCLK_SET(guest, &state->guest, accelerator, GCLK_ACCEL_KVM);
	GCLK_SET(guest, &state->guest, run_state, GCLK_RUN_RUNNING);
	GCLK_SET(virtual_clock, &state->virtual_clock, clock_ns, (int64_t)g->clock_ns);
	GCLK_SET(kvmclock, &state->kvmclock, clock_ns, g->clock_ns);
	GCLK_SET(kvmclock, &state->kvmclock, reliable, 1);
	GCLK_SET(kvmclock, &state->kvmclock, read_after_stop_ns, 0);
	GCLK_SET(tsc, &state->tsc[0], vcpu, 0);
	GCLK_SET(tsc, &state->tsc[0], value_ticks, g->tsc_ticks);
	GCLK_SET(tsc, &state->tsc[0], frequency_hz, g->hz);
	GCLK_SET(vcpu, &state->vcpu[0], vcpu, 0);
}

/* It runs for a while before it is stopped again. */
static void let_run(struct guest *g, int64_t ns)
{
	g->tsc_ticks += (uint64_t)((unsigned __int128)g->hz * (uint64_t)ns / S);
	g->clock_ns += (uint64_t)ns;
	g->since_ns += ns;
}

/* --- how far two hosts' wall clocks are apart --- */

/* Questions and answers over a network with its own delays, other ones there than back. */
static int ask(const struct machine *here, const struct machine *there, int64_t stop,
	       int64_t run, struct gclk_disagreement *ret)
{
	int64_t wire = spread(20 * US, 5 * MS), jitter = spread(5 * US, 20 * MS);
	struct gclk_exchanges e;
	int64_t t = stop - 200 * MS;

	gclk_exchanges_init(&e, 1000000, 100);
	for (unsigned i = 0; i < 40 && t + 200 * MS < run; i++) {
		int64_t heard = t + wire + spread(1, jitter), said = heard + between(2000, 50000);
		int64_t got = said + wire + spread(1, jitter);
		const struct gclk_exchange x = { wall(here, t), wall(there, heard),
						 wall(there, said), wall(here, got) };
		struct gclk_error error;

		if (gclk_exchanges_add(&e, &x, &error) < 0) {
			return 0;
		}
		t = got + between(100 * US, MS);
	}
	gclk_exchanges_over(&e, wall(there, stop), wall(here, run), ret);
	return e.n != 0;
}

/* What the hosts claim. */
static int trust(const struct machine *from, const struct machine *to,
		 struct gclk_disagreement *ret)
{
	*ret = (struct gclk_disagreement){ 0, GCLK_UNBOUNDED };
	if (GCLK_HAS(host, &from->profile, ntp_maxerror_ns) &&
		   GCLK_HAS(host, &to->profile, ntp_maxerror_ns)) {
		ret->uncertainty_ns =
			from->profile.ntp_maxerror_ns + to->profile.ntp_maxerror_ns;
	}
	return 1;
}

/* --- what comes out --- */

#define BUCKETS 64			/* of |ns|: 0, 1, 2..3, 4..7, ... */
#define REASONS 8

struct series {
	const char *name;
	uint64_t n, n_refused;
	uint64_t n_broken, n_broken_honest;	/* errors beyond the bound; without a liar */
	uint64_t errors[BUCKETS], bounds[BUCKETS];
	uint64_t *all_errors, *all_bounds;
	struct { const char *id; uint64_t n; } reasons[REASONS];
};

static unsigned bucket(uint64_t n)
{
	return n ? 64u - (unsigned)__builtin_clzll(n) : 0;
}

static void refused(struct series *s, const struct gclk_plan *plan)
{
	const char *id = "";

	for (unsigned i = 0; i < plan->findings.n && !*id; i++) {
		if (plan->findings.items[i].info->refuses) {
			id = plan->findings.items[i].info->id;
		}
	}
	s->n_refused++;
	for (unsigned i = 0; i < REASONS; i++) {
		if (!s->reasons[i].id || !strcmp(s->reasons[i].id, id)) {
			s->reasons[i].id = id;
			s->reasons[i].n++;
			return;
		}
	}
}

static uint64_t size_of(int64_t error)
{
	return error < 0 ? -(uint64_t)error : (uint64_t)error;
}

static void took(struct series *s, int64_t error, uint64_t bound)
{
	uint64_t size = size_of(error);

	s->all_errors[s->n] = size;
	s->all_bounds[s->n++] = bound;
	s->errors[bucket(size) & 63]++;
	s->bounds[bucket(bound) & 63]++;
}

static uint64_t bound_of(const struct gclk_plan *plan, const char *clock)
{
	for (uint32_t i = 0; i < plan->n_bounds; i++) {
		if (!strcmp(plan->bounds[i].clock, clock)) {
			return plan->bounds[i].bound_ns;
		}
	}
	return GCLK_UNBOUNDED;
}

/* --- one move --- */

struct world {
	struct machine *machines;
	uint32_t n_machines;
	struct guest *guests;
	uint32_t n_guests;
	struct gclk_state *state;
	struct gclk_plan *plan;
	int live, exchange;
};

/* The library's answer against the truth; the guest goes on there unless it was refused. */
static void carry(struct world *w, struct guest *g, uint32_t to, int64_t stop, int64_t run,
		  const struct gclk_disagreement *d, struct series *s)
{
	const struct machine *a = &w->machines[g->on], *b = &w->machines[to];
	const struct gclk_when when = {
		.captured = { wall(a, stop), STOP_STAMP_NS },
		.load = { wall(b, run), 0 }, .run = { wall(b, run), 0 },
		.captured_tai_s = 37, .run_tai_s = 37,
	};
	int64_t gap = run - stop, error, clock_error;
	uint64_t tsc_bound, clock_bound;
	struct gclk_error failed;
	int r;

	fill_state(w->state, g);
	r = gclk_plan(w->state, &gclk_kvm_carrier, &b->profile, &when, d, &gclk_policy_default,
		      w->plan, &failed);
	if (r == -GCLK_REFUSED) {
		refused(s, w->plan);
		let_run(g, gap);
		return;
	}
	if (r < 0) {
		fprintf(stderr, "fleet: %s: %s\n", gclk_status_name(r), failed.message);
		exit(1);
	}
	error = mul_div((int64_t)(w->plan->state->tsc[0].value_ticks - g->tsc_ticks), S,
			(int64_t)g->hz) - gap;
	clock_error = (int64_t)(w->plan->state->kvmclock.clock_ns - g->clock_ns) - gap;
	tsc_bound = bound_of(w->plan, "tsc");
	clock_bound = bound_of(w->plan, "kvmclock");
	took(s, error, tsc_bound);
	if (size_of(error) > tsc_bound || size_of(clock_error) > clock_bound) {
		s->n_broken++;
		s->n_broken_honest += w->exchange || (a->kind != LIAR && b->kind != LIAR);
	}
	g->error_ns += clock_error;
	g->bound_ns = clock_bound > UINT64_MAX - g->bound_ns ? UINT64_MAX
							     : g->bound_ns + clock_bound;
	g->tsc_ticks = w->plan->state->tsc[0].value_ticks;
	g->clock_ns = w->plan->state->kvmclock.clock_ns;
	g->since_ns = run;
	g->on = to;
}

static void move(struct world *w, struct guest *g, struct series *s)
{
	uint32_t to = (uint32_t)(random_u64() % w->n_machines);
	int64_t gap = w->live ? spread(10 * MS, 3 * S) : spread(60 * S, 30 * 24 * HOUR);
	struct gclk_disagreement d;
	int64_t stop;

	if (to == g->on) {
		to = (to + 1) % w->n_machines;	/* on one host its own clock is the measure */
	}
	let_run(g, spread(60 * S, 10 * 24 * HOUR));
	stop = g->since_ns;
	if (w->exchange ? ask(&w->machines[to], &w->machines[g->on], stop, stop + gap, &d)
			: trust(&w->machines[g->on], &w->machines[to], &d)) {
		carry(w, g, to, stop, stop + gap, &d, s);
	}
}

static void run_series(struct world *w, unsigned moves, struct series *s)
{
	size_t max = (size_t)w->n_guests * moves;

	s->all_errors = calloc(max, sizeof(*s->all_errors));
	s->all_bounds = calloc(max, sizeof(*s->all_bounds));
	if (!s->all_errors || !s->all_bounds) {
		fprintf(stderr, "fleet: out of memory\n");
		exit(4);
	}
	for (uint32_t i = 0; i < w->n_guests; i++) {
		make_guest(&w->guests[i], w->machines, w->n_machines);
		for (unsigned k = 0; k < moves; k++) {
			move(w, &w->guests[i], s);
		}
	}
}

/* --- reports --- */

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_ns(uint64_t ns)
{
	if (ns == GCLK_UNBOUNDED) {
		printf(" %11s", "unbounded");
	} else if (ns < 10000000) {
		printf(" %6" PRIu64 ".%03u us", ns / 1000, (unsigned)(ns % 1000));
	} else {
		printf(" %7" PRIu64 ".%03u s", ns / S, (unsigned)(ns / 1000000 % 1000));
	}
}

static void print_row(const char *what, uint64_t *all, uint64_t n)
{
	qsort(all, n, sizeof(*all), by_size);
	printf("  %-9s", what);
	print_ns(all[n / 2]);
	print_ns(all[n - 1 - n / 20]);
	print_ns(all[n - 1 - n / 1000]);
	print_ns(all[n - 1]);
	printf("\n");
}

static void print_series(struct series *s)
{
	printf("%s: %" PRIu64 " moves, %" PRIu64 " refused, bound broken %" PRIu64 " times, %" PRIu64
	       " of them without a liar\n",
	       s->name, s->n, s->n_refused, s->n_broken, s->n_broken_honest);
	if (s->n) {
		printf("  %-9s %12s %12s %12s %12s\n", "", "median", "95 %", "99.9 %", "worst");
		print_row("|error|", s->all_errors, s->n);
		print_row("bound", s->all_bounds, s->n);
	}
	for (unsigned i = 0; i < REASONS && s->reasons[i].id; i++) {
		printf("  refused: %-32s %8" PRIu64 "\n", s->reasons[i].id, s->reasons[i].n);
	}
}

/* The share of moves with less than so many ns, over powers of two. */
static void draw_curve(FILE *to, const uint64_t *buckets, uint64_t n, const char *style)
{
	uint64_t sum = 0;

	fprintf(to, "<polyline fill=\"none\" %s points=\"", style);
	for (unsigned i = 0; i < 62; i++) {
		sum += buckets[i];
		fprintf(to, "%u,%u ", 60 + i * 12, (unsigned)(340 - 300 * sum / (n ? n : 1)));
	}
	fprintf(to, "\"/>\n");
}

static int draw(const char *path, const struct series *series, unsigned n)
{
	static const char *const colours[] = { "#1f6fb4", "#d1495b", "#3a8f4f" };
	static const struct { unsigned bit; const char *name; } marks[] = {
		{ 1, "1 ns" }, { 11, "1 us" }, { 21, "1 ms" }, { 31, "1 s" }, { 41, "18 min" }, { 51, "13 d" },
	};
	FILE *to = fopen(path, "w");

	if (!to) {
		perror(path);
		return 3;
	}
	fprintf(to, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"840\" height=\"430\" "
		    "font-family=\"sans-serif\" font-size=\"12\">\n"
		    "<rect width=\"840\" height=\"430\" fill=\"white\"/>\n"
		    "<text x=\"60\" y=\"24\" font-size=\"14\">share of moves whose clocks are off by "
		    "less (solid), and whose bound is less (dashed)</text>\n");
	for (unsigned i = 0; i <= 4; i++) {
		fprintf(to, "<path stroke=\"#ddd\" d=\"M60 %uH804\"/><text x=\"20\" y=\"%u\">%u %%"
			    "</text>\n", 340 - 75 * i, 344 - 75 * i, 25 * i);
	}
	for (unsigned i = 0; i < 6; i++) {
		fprintf(to, "<path stroke=\"#ddd\" d=\"M%u 40V340\"/><text x=\"%u\" y=\"358\">%s"
			    "</text>\n", 60 + marks[i].bit * 12, 48 + marks[i].bit * 12,
			marks[i].name);
	}
	for (unsigned i = 0; i < n; i++) {
		char style[128];

		snprintf(style, sizeof(style), "stroke=\"%s\" stroke-width=\"2\"", colours[i]);
		draw_curve(to, series[i].errors, series[i].n, style);
		snprintf(style, sizeof(style),
			 "stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"5 4\"", colours[i]);
		draw_curve(to, series[i].bounds, series[i].n, style);
		fprintf(to, "<text x=\"60\" y=\"%u\" fill=\"%s\">%s: %" PRIu64 " moves, %" PRIu64
			    " refused, bound broken %" PRIu64 " times</text>\n", 382 + 18 * i,
			colours[i], series[i].name, series[i].n, series[i].n_refused,
			series[i].n_broken);
	}
	fprintf(to, "</svg>\n");
	return fclose(to) ? 3 : 0;
}

static void print_sums(const struct world *w)
{
	uint64_t broken = 0, n = 0;

	for (uint32_t i = 0; i < w->n_guests; i++) {
		const struct guest *g = &w->guests[i];

		n++;
		broken += size_of(g->error_ns) > g->bound_ns;
	}
	printf("  all moves of a guest together beyond the sum of their bounds: %" PRIu64
	       " of %" PRIu64 " guests\n", broken, n);
}

static void world_free(struct world *w, struct series *series, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(series[i].all_errors);
		free(series[i].all_bounds);
	}
	free(w->machines);
	free(w->guests);
	gclk_state_free(w->state);
	gclk_plan_free(w->plan);
}

int main(int argc, char **argv)
{
	struct world w = { .n_machines = 1000, .n_guests = 10000 };
	struct series series[3] = { { .name = "live, clocks exchanged" },
				    { .name = "live, hosts believed" },
				    { .name = "cold, hosts believed" } };
	const char *svg = NULL;
	unsigned moves = 10;
	uint64_t first_seed = 1;
	int broken;

	for (int i = 1; i + 1 < argc; i += 2) {
		uint64_t n = strtoull(argv[i + 1], NULL, 0);

		if (!strcmp(argv[i], "--guests")) {
			w.n_guests = (uint32_t)n;
		} else if (!strcmp(argv[i], "--hosts")) {
			w.n_machines = (uint32_t)n;
		} else if (!strcmp(argv[i], "--moves")) {
			moves = (unsigned)n;
		} else if (!strcmp(argv[i], "--seed")) {
			first_seed = n;
		} else if (!strcmp(argv[i], "--svg")) {
			svg = argv[i + 1];
		}
	}
	seed = first_seed;
	w.machines = calloc(w.n_machines, sizeof(*w.machines));
	w.guests = calloc(w.n_guests, sizeof(*w.guests));
	w.state = gclk_state_new(1);
	w.plan = gclk_plan_new(1);
	if (!w.machines || !w.guests || !w.state || !w.plan || w.n_machines < 2) {
		fprintf(stderr, "fleet: out of memory, or fewer than two hosts\n");
		return 4;
	}
	for (uint32_t i = 0; i < w.n_machines; i++) {
		make_machine(&w.machines[i], i);
	}
	printf("seed: %" PRIu64 "; %" PRIu32 " guests, %" PRIu32 " hosts, %u moves each\n",
	       first_seed, w.n_guests, w.n_machines, moves);
	for (unsigned i = 0; i < 3; i++) {
		w.live = i < 2;
		w.exchange = i == 0;
		run_series(&w, moves, &series[i]);
		print_series(&series[i]);
		print_sums(&w);
	}
	if (svg && draw(svg, series, 3)) {
		return 3;
	}
	/* where hosts have asked each other, the bound is true whatever they claim; else if they do not lie */
	broken = series[0].n_broken_honest || series[1].n_broken_honest ||
		 series[2].n_broken_honest || !series[0].n || !series[2].n;
	world_free(&w, series, 3);
	return broken;
}
