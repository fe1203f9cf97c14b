/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/report-text.h"

#define LABEL_WIDTH 12

void put_line(const char *label, const char *format, ...)
{
	char text[1024], clean[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("%s%-*s%s", style(STYLE_DIM), LABEL_WIDTH, label, style(STYLE_PLAIN));
	put_filled(stdout, LABEL_WIDTH, clean_text(clean, sizeof(clean), text));
}

static void put_title(const struct source *source)
{
	const struct gclk_guest *guest = &source->state->guest;
	const char *compression =
		source->image ? gclk_image_compression(source->image) : "none";
	const char *accelerator = gclk_accelerator_names[guest->accelerator].name;

	printf("%s", style(STYLE_BOLD));
	put_text(stdout, strcmp(source->path, "-") ? source->path : "standard input");
	printf("%s: %s", style(STYLE_PLAIN), source->format);
	if (strcmp(compression, "none")) {
		printf(" (%s)", compression);
	}
	if (guest->machine[0]) {
		printf(", ");
		put_text(stdout, guest->machine);
	}
	if (guest->accelerator) {
		printf(" under %s", accelerator);
	}
	printf(", %" PRIu32 " vCPU%s", source->state->n_vcpus,
	       source->state->n_vcpus == 1 ? "" : "s");
	if (GCLK_HAS(guest, guest, ram_bytes)) {
		printf(", %" PRIu64 " MiB", guest->ram_bytes >> 20);
	}
	putchar('\n');
}

/* "rtc catchup, pit discard": the tick policies that the domain's XML says. */
static void put_tick_policies(const struct gclk_domain *domain)
{
	char text[512];
	size_t n = 0;

	for (size_t i = 0; i < domain->n_timers && n < sizeof(text); i++) {
		const struct gclk_domain_timer *timer = &domain->timers[i];

		if (timer->ticks != GCLK_DOMAIN_TICKS_NONE) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %s",
					      n ? ", " : "", timer->name,
					      gclk_tick_policy_names[timer->ticks]);
		}
	}
	if (n) {
		put_line("ticks", "%s", text);
	}
}

static void put_guest(const struct source *source)
{
	const struct gclk_guest *guest = &source->state->guest;
	const struct gclk_domain *domain =
		source->image ? gclk_image_domain(source->image) : NULL;
	const char *name = domain ? domain->name : guest->name;
	const char *uuid = domain ? domain->uuid : guest->uuid;
	const char *state = GCLK_HAS(guest, guest, run_state)
				    ? gclk_run_state_names[guest->run_state].name
				    : NULL;

	if (!name[0] && !state) {
		return;
	}
	put_line("guest", "%s%s%s%s%s%s", name, uuid[0] ? ", " : "", uuid,
		 (name[0] || uuid[0]) && state ? ", " : "", state ? state : "",
		 state ? " when it was saved" : "");
	if (domain && domain->clock.offset[0]) {
		const struct gclk_domain_clock *clock = &domain->clock;

		put_line("rtc keeps", "%s%s%s", clock->offset,
			 clock->timezone[0] || clock->basis[0] ? ", " : "",
			 clock->timezone[0] ? clock->timezone : clock->basis);
	}
	if (domain) {
		put_tick_policies(domain);
	}
}

static void put_captured(const struct source *source, int64_t now_ns)
{
	const struct gclk_instant *at = &source->captured;
	char utc[TEXT_BYTES], local[TEXT_BYTES], uncertain[TEXT_BYTES], ago[TEXT_BYTES];

	if (at->uncertainty_ns == GCLK_UNBOUNDED) {
		put_line("captured", "%s%s%s; --captured-at says it to plan and rewrite",
			 at->ns ? "not after " : "nobody knows when",
			 at->ns ? text_instant(utc, at->ns, GCLK_NS_PER_S) : "",
			 at->ns ? ", more is not known" : "");
		return;
	}
	text_local(local, at->ns, now_ns);
	put_line("captured", "%s %s by %s, %s ago%s%s",
		 text_instant(utc, at->ns, at->uncertainty_ns),
		 text_uncertain(uncertain, at->uncertainty_ns), source->basis,
		 text_approx(ago, gclk_sub_sat(now_ns, at->ns)),
		 strstr(local, "(UTC)") ? "" : "; here ",
		 strstr(local, "(UTC)") ? "" : local);
	if (source->note) {
		put_line("", "%s", source->note);
	}
}

/* What a rewriting was for: its instant, its gap. */
static void put_rewritten(const struct source *source, int64_t now_ns)
{
	const struct gclk_rewrite *r = &source->rewrite;
	char at[TEXT_BYTES], gap[TEXT_BYTES], counted[TEXT_BYTES], run[TEXT_BYTES];

	if (!source_is_rewritten(source)) {
		return;
	}
	if (!GCLK_HAS(rewrite, r, run_realtime_ns)) {
		put_line("rewritten",
			 "yes, but not for when; `guestclock undo` takes it back");
		return;
	}
	put_line("rewritten",
		 "%s for a resume at %s: a gap of %s, policy %s, %s of it counted; "
		 "`guestclock undo` takes it back",
		 text_instant(at, r->at_realtime_ns, GCLK_NS_PER_S),
		 text_local(run, r->run_realtime_ns, now_ns), text_approx(gap, r->gap_ns),
		 r->gap_policy, text_approx(counted, r->counted_ns));
}

void put_head(const struct source *source, int64_t now_ns)
{
	put_title(source);
	put_guest(source);
	put_captured(source, now_ns);
	put_rewritten(source, now_ns);
}

/* "in 3.21 ms, every 10 ms"; what keeps it from the guest stands behind it. */
static void say_next(const struct reading *r, char *to, size_t size)
{
	char next[TEXT_BYTES], period[TEXT_BYTES];
	size_t n = 0;

	to[0] = 0;
	if (r->armed) {
		n = (size_t)snprintf(
			to, size, "%s%s%s", r->next_ns < 0 ? "overdue by " : "in ",
			text_approx(next, r->next_ns < 0 ? gclk_sub_sat(0, r->next_ns)
							 : r->next_ns),
			"");
	}
	if (r->period_ns && n < size) {
		n += (size_t)snprintf(
			to + n, size - n, "%severy %s", n ? ", " : "",
			text_approx(period, (int64_t)GCLK_MIN(r->period_ns,
							      (uint64_t)INT64_MAX)));
	}
	if (r->note[0] && n < size) {
		snprintf(to + n, size - n, "%s%s", n ? "; " : "", r->note);
	}
}

int put_readings(const struct readings *readings)
{
	static const char *const headings[] = { "CLOCK", ">READS", ">RATE",
						"INTERRUPTS" };
	struct table table;

	table_begin(&table, 4, headings);
	for (unsigned i = 0; i < readings->n; i++) {
		const struct reading *r = &readings->items[i];
		char next[256];

		say_next(r, next, sizeof(next));
		table_row(&table, r->clock, r->reads, r->rate, next);
	}
	putchar('\n');
	return table_end(&table, stdout);
}

/*
 * The timeline: decades from left to right, each CELLS wide. Within a decade the
 * place follows the logarithm, by the bounds 10 * 10^(i/6).
 */
#define CELLS 6
#define DECADES_MAX 9
#define LINES_MAX 8
#define FIRST_NS 100 /* sooner is drawn here */

static unsigned decade_of(int64_t ns, int64_t *ret_start)
{
	unsigned decade = 0;
	int64_t start = FIRST_NS;

	while (ns / 10 >= start && decade < DECADES_MAX + 2) {
		start *= 10;
		decade++;
	}
	*ret_start = start;
	return decade;
}

static unsigned place_of(int64_t ns)
{
	static const uint8_t bounds[CELLS] = { 10, 15, 22, 32, 46, 68 };
	int64_t start;
	unsigned decade, cell = 0;

	if (ns <= FIRST_NS) {
		return 0;
	}
	decade = decade_of(ns, &start);
	for (unsigned i = 1; i < CELLS; i++) {
		cell += (gclk_i128)ns * 10 >= (gclk_i128)start * bounds[i];
	}
	return decade * CELLS + cell;
}

static int by_next(const void *a, const void *b)
{
	const struct reading *const *x = a, *const *y = b;

	return gclk_compare((*x)->next_ns, (*y)->next_ns);
}

static unsigned choose(const struct readings *readings, const struct reading *chosen[])
{
	unsigned n = 0;

	for (unsigned i = 0; i < readings->n; i++) {
		if (readings->items[i].armed && !readings->items[i].silent) {
			chosen[n++] = &readings->items[i];
		}
	}
	qsort(chosen, n, sizeof(*chosen), by_next);
	return n;
}

static void put_scale(unsigned name_width, unsigned first, unsigned last)
{
	static const char *const labels[] = { "100ns", "1us",  "10us",	"100us",
					      "1ms",   "10ms", "100ms", "1s",
					      "10s",   "100s", "1000s", "3h" };

	printf("%s%-*s", style(STYLE_DIM), (int)name_width, "NEXT");
	for (unsigned d = first; d <= last && d < GCLK_COUNT(labels); d++) {
		printf("%-*s", d < last ? CELLS : 0, labels[d]);
	}
	printf("%s\n", style(STYLE_PLAIN));
}

static void put_bar(const struct reading *r, unsigned name_width, unsigned first,
		    unsigned last)
{
	unsigned from = first * CELLS, to = last * CELLS, at = place_of(r->next_ns);

	printf("%-*s", (int)name_width, r->clock);
	at = GCLK_MIN(GCLK_MAX(at, from), to);
	for (unsigned i = from; i <= to; i++) {
		if (i == at) {
			printf("%s%c%s", style(STYLE_GREEN), r->next_ns < 0 ? '<' : 'o',
			       style(STYLE_PLAIN));
		} else {
			putchar(i % CELLS == 0 ? '|' : i < at ? '-' : '.');
		}
	}
	putchar('\n');
}

void put_timeline(const struct readings *readings)
{
	const struct reading **chosen = calloc(readings->n + 1, sizeof(*chosen));
	unsigned n = chosen ? choose(readings, chosen) : 0,
		 shown = GCLK_MIN(n, LINES_MAX);
	unsigned first, last, name_width = 0;

	if (shown) {
		first = place_of(chosen[0]->next_ns) / CELLS;
		last = place_of(chosen[shown - 1]->next_ns) / CELLS + 1;
		last = GCLK_MIN(last, first + DECADES_MAX);
		for (unsigned i = 0; i < shown; i++) {
			name_width = GCLK_MAX(name_width,
					      (unsigned)strlen(chosen[i]->clock) + 2);
		}
		putchar('\n');
		put_scale(name_width, first, last);
		for (unsigned i = 0; i < shown; i++) {
			put_bar(chosen[i], name_width, first, last);
		}
		if (n > shown) {
			printf("%s(%u more)%s\n", style(STYLE_DIM), n - shown,
			       style(STYLE_PLAIN));
		}
	}
	free(chosen);
}

static void put_finding(const struct gclk_finding *f)
{
	char text[640];

	snprintf(text, sizeof(text), "%s%s%s%s: %s", f->info->id, f->clock[0] ? " " : "",
		 f->clock, f->forced ? " (forced)" : "", f->message);
	printf("%s%-9s%s", style(severity_style(f->severity)),
	       gclk_severity_names[f->severity], style(STYLE_PLAIN));
	put_filled(stdout, 9, text);
	if (f->severity != GCLK_NOTE && f->info->advice[0]) {
		printf("%9s%s", "", style(STYLE_DIM));
		put_filled(stdout, 9, f->info->advice);
		printf("%s", style(STYLE_PLAIN));
	}
}

void put_findings(const struct gclk_findings *findings)
{
	if (findings->n) {
		putchar('\n');
	}
	for (int severity = GCLK_ERROR; severity >= GCLK_NOTE; severity--) {
		for (unsigned i = 0; i < findings->n; i++) {
			if (findings->items[i].severity == severity) {
				put_finding(&findings->items[i]);
			}
		}
	}
	if (findings->left_out) {
		printf("         (%u more findings)\n", findings->left_out);
	}
}

bool found_something(const struct gclk_findings *findings)
{
	for (unsigned i = 0; i < findings->n; i++) {
		if (findings->items[i].severity != GCLK_NOTE) {
			return true;
		}
	}
	return findings->left_out != 0;
}
