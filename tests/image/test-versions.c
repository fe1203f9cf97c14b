/* SPDX-License-Identifier: MIT */
/*
 * One guest as other releases of QEMU would have described it: a real stream of 7.2 whose
 * description, and where the release differs its bytes, are changed to that release's
 * form. Whichever wrote it, the same fields must be found.
 */
#include <stdlib.h>
#include <string.h>

#include "core/cursor.h"
#include "gclk-test.h"
#include "image/qemu/bindings.h"
#include "image/qemu/carrier.h"
#include "image/qemu/tail.h"
#include "stream-writer.h"

#include <guestclock/plan.h>

static int read_bytes(void *ctx, uint64_t offset, void *buf, size_t n, struct gclk_error *reterr)
{
	const struct bytes *b = ctx;

	(void)reterr;
	memcpy(buf, b->p + offset, n);
	return 0;
}

/* A stream, read down to its rows. */
struct reading {
	struct bytes b;
	struct gclk_tail *tail;
	struct gclk_state *state;
	struct gclk_bindings bindings;
};

static int read_again(struct reading *r)
{
	struct gclk_window w = { read_bytes, r->b.n, &r->b };
	struct gclk_tail_options o = { .never_walk = true };
	struct gclk_error error = { 0 };
	int s = gclk_tail_read(&w, w.size, &o, &r->tail, &error);

	if (s == 0) {
		r->state = gclk_state_new(gclk_bindings_n_vcpus(r->tail));
		s = gclk_bindings_read(r->tail, r->state, &r->bindings, &error);
	}
	if (s < 0) {
		printf("\n    %s: %s\n", error.where, error.message);
	}
	return s;
}

static void read_real(struct reading *r, const char *name)
{
	memset(r, 0, sizeof(*r));
	read_data(name, &r->b);
	CU_ASSERT_EQUAL_FATAL(read_again(r), 0);
}

static void forget(struct reading *r)
{
	gclk_bindings_free(&r->bindings);
	gclk_state_free(r->state);
	gclk_tail_free(r->tail);
	bytes_free(&r->b);
}

/* The text of the description, with a NUL. */
static char *description(const struct reading *r)
{
	size_t at = r->tail->sections_size + 6, n = r->tail->size - at;
	char *text = malloc(n + 1);

	memcpy(text, r->tail->bytes + at, n);
	text[n] = 0;
	return text;
}

/* @text with every @from as @to; frees @text. Aborts where there is none. */
static char *replace(char *text, const char *from, const char *to)
{
	struct bytes b = { 0 };
	const char *at = text, *next;

	if (!strstr(text, from)) {
		printf("\n    no %s\n", from);
		abort();
	}
	for (; (next = strstr(at, from)); at = next + strlen(from)) {
		put(&b, at, (size_t)(next - at));
		put_text(&b, to);
	}
	put_text(&b, at);
	put8(&b, 0);
	free(text);
	return (char *)b.p;
}

/* The sections of @from, described by @text; frees @text. */
static int read_described(struct reading *r, const struct reading *from, char *text)
{
	memset(r, 0, sizeof(*r));
	put(&r->b, from->b.p, (size_t)from->tail->offset);
	put(&r->b, from->tail->bytes, from->tail->sections_size + 2);
	put32(&r->b, strlen(text));
	put_text(&r->b, text);
	free(text);
	return read_again(r);
}

/* The same rows at the same places. */
static void check_same(const struct reading *a, const struct reading *b)
{
	GCLK_EQ(a->bindings.n, b->bindings.n);
	for (size_t i = 0; i < a->bindings.n && i < b->bindings.n; i++) {
		const struct gclk_located *x = &a->bindings.rows[i], *y = &b->bindings.rows[i];

		CU_ASSERT(x->binding == y->binding && x->index == y->index);
		GCLK_EQ(x->offset, y->offset);
	}
	GCLK_EQ(a->state->guest.run_state, b->state->guest.run_state);
	GCLK_EQ(a->state->guest.accelerator, b->state->guest.accelerator);
	GCLK_EQ(a->state->n_timers, b->state->n_timers);
	CU_ASSERT_STRING_EQUAL(a->state->guest.machine, b->state->guest.machine);
}

/* Up to 5.2: white space around everything. */
static char *as_5_2(char *text)
{
	text = replace(text, "\": ", "\" : ");
	text = replace(text, "{\"", "{ \"");
	return replace(text, "}", " }");
}

/* 8.2: the configuration comes first. */
static char *as_8_2(char *text)
{
	return replace(text, "{\"page_size\"",
		       "{\"configuration\": {\"vmsd_name\": \"configuration\", \"version\": 1, "
		       "\"fields\": [{\"name\": \"len\", \"type\": \"uint32\", \"size\": 4}, "
		       "{\"name\": \"name\", \"type\": \"buffer\", \"size\": 13}]}, \"page_size\"");
}

/* 10.0: another name in the HPET; the run state's 100 bytes are divided. */
static char *as_10_0(char *text)
{
	text = replace(as_8_2(text), "\"num_timers\"", "\"num_timers_save\"");
	return replace(text, "{\"name\": \"runstate\", \"type\": \"buffer\", \"size\": 100}",
		       "{\"name\": \"runstate\", \"type\": \"buffer\", \"size\": 32}, "
		       "{\"name\": \"has_vm_was_suspended\", \"type\": \"uint8\", \"size\": 1}, "
		       "{\"name\": \"vm_was_suspended\", \"type\": \"uint8\", \"size\": 1}, "
		       "{\"name\": \"unused\", \"type\": \"buffer\", \"size\": 66}");
}

/* 10.0 and later built with Rust: the HPET's own names, its timers one by one. */
static char *as_rust(char *text)
{
	static const char begin[] = "{\"name\": \"timer\", \"array_len\": 3, ";
	static const char end[] = "\"size\": 42}";
	const char *first = strstr(text, begin), *last = first ? strstr(first, end) : NULL;
	struct bytes b = { 0 };
	size_t n;

	if (!last) {
		abort();
	}
	n = (size_t)(last - first) + strlen(end);
	put(&b, text, (size_t)(first - text));
	for (unsigned i = 0; i < 3; i++) {
		putf(&b, "%s{\"name\": \"timers\", \"index\": %u, ", i ? ", " : "", i);
		put(&b, first + strlen(begin), n - strlen(begin));
	}
	put_text(&b, first + n);
	put8(&b, 0);
	free(text);
	text = replace((char *)b.p, "{\"name\": \"tn\"", "{\"name\": \"index\"");
	text = replace(text, "\"hpet_counter\"", "\"counter\"");
	text = replace(text, "{\"name\": \"isr\", \"type\": \"uint64\"",
		       "{\"name\": \"int_status\", \"type\": \"uint64\"");
	return as_10_0(text);
}

/* No release: names that nobody knows, so that the offsets must do. */
static char *as_unknown(char *text)
{
	static const char *const names[] = {
		"cpu_clock_offset", "env.tsc", "env.tsc_aux", "timer_expiry",
		"last_update", "base_rtc", "num_timers", "cmp", "qemu_timer", "hpet_counter",
		"initial_count_load_time", "count_load_time", "cmos_data", "dummy_refresh_clock",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char from[64], to[64];

		snprintf(from, sizeof(from), "\"%s\"", names[i]);
		snprintf(to, sizeof(to), "\"renamed_%zu\"", i);
		text = replace(text, from, to);
	}
	return text;
}

static const struct { const char *name; char *(*rewrite)(char *text); } releases[] = {
	{ "5.2", as_5_2 }, { "8.2", as_8_2 }, { "10.0", as_10_0 }, { "10.2 with Rust", as_rust },
	{ "unknown names", as_unknown },
};

GCLK_TEST(versions, every_description_leads_to_the_same_fields)
{
	static const char *const names[] = { "pc-xbzrle", "q35-kvm-4", "pc-icount" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct reading real;

		read_real(&real, names[i]);
		for (size_t k = 0; k < sizeof(releases) / sizeof(*releases); k++) {
			struct reading r;
			int s = read_described(&r, &real, releases[k].rewrite(description(&real)));

			if (s < 0) {
				printf("\n    %s as %s\n", names[i], releases[k].name);
			}
			CU_ASSERT_EQUAL_FATAL(s, 0);
			check_same(&real, &r);
			forget(&r);
		}
		forget(&real);
	}
}

static char *as_7_2(char *text)
{
	return text;
}

/* The offsets hold for version 2 of the HPET; under another number the names must do. */
GCLK_TEST(versions, the_names_of_the_hpet_lead_there_without_offsets)
{
	static char *(*const forms[])(char *) = { as_7_2, as_10_0, as_rust };
	struct reading real;
	uint8_t *version;

	read_real(&real, "q35-kvm-4");
	version = real.tail->bytes + gclk_vmdesc_find(real.tail->desc, "hpet", 0, NULL)->payload - 1;
	GCLK_EQ(*version, 2);
	*version = 3;
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		struct reading r;
		char *text = replace(forms[i](description(&real)),
				     "\"vmsd_name\": \"hpet\", \"version\": 2",
				     "\"vmsd_name\": \"hpet\", \"version\": 3");

		CU_ASSERT_EQUAL_FATAL(read_described(&r, &real, text), 0);
		check_same(&real, &r);
		forget(&r);
	}
	forget(&real);
}

/* Where one device's object begins and ends in the list of them. */
struct piece { const char *text; size_t n; const struct gclk_vmdesc_section *section; };

static size_t split(const struct reading *r, const char *text, struct piece *pieces, size_t max)
{
	const char *p = strstr(text, "\"devices\": [") + strlen("\"devices\": [");
	size_t n = 0;

	for (unsigned depth = 0; n < max; p++) {
		if (*p == '{' && depth++ == 0) {
			pieces[n] = (struct piece){ p, 0, gclk_vmdesc_section(r->tail->desc, n) };
		} else if (*p == '}' && --depth == 0) {
			pieces[n].n = (size_t)(p + 1 - pieces[n].text);
			n++;
		} else if (*p == ']' && depth == 0) {
			break;
		}
	}
	return n;
}

static size_t section_end(const struct reading *r, size_t i)
{
	const struct gclk_vmdesc_section *next = gclk_vmdesc_section(r->tail->desc, i + 1);

	return next ? next->offset : r->tail->sections_size;
}

/* The sections of one base name, or all others, in the order that they have. */
static void put_sections(const struct reading *r, const struct piece *pieces, size_t n,
			 const char *base, bool others, struct bytes *sections, struct bytes *json)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(pieces[i].section->base, base) == others) {
			continue;
		}
		put(sections, r->tail->bytes + pieces[i].section->offset,
		    section_end(r, i) - pieces[i].section->offset);
		put_text(json, json->p[json->n - 1] == '[' ? "" : ", ");
		put(json, pieces[i].text, pieces[i].n);
	}
}

/* 10.2 puts all local APICs before the CPUs. */
GCLK_TEST(versions, local_apics_before_the_cpus)
{
	struct reading real, r = { 0 };
	struct bytes sections = { 0 }, json = { 0 };
	struct piece pieces[128];
	char *text;
	size_t n;

	read_real(&real, "q35-kvm-4");
	text = description(&real);
	n = split(&real, text, pieces, 128);
	GCLK_EQ(n, gclk_vmdesc_n_sections(real.tail->desc));
	put_text(&json, "{\"page_size\": 4096, \"devices\": [");
	put_sections(&real, pieces, n, "apic", false, &sections, &json);
	put_sections(&real, pieces, n, "apic", true, &sections, &json);
	put_text(&json, "]}");
	put(&r.b, real.b.p, (size_t)real.tail->offset);
	put(&r.b, sections.p, sections.n);
	put8(&r.b, 0);
	put8(&r.b, 6);
	put32(&r.b, json.n);
	put(&r.b, json.p, json.n);
	CU_ASSERT_EQUAL_FATAL(read_again(&r), 0);
	CU_ASSERT_STRING_EQUAL(gclk_vmdesc_section(r.tail->desc, 3)->base, "apic");
	GCLK_EQ(r.bindings.n, real.bindings.n);
	for (unsigned i = 0; i < 4; i++) {
		CU_ASSERT(!memcmp(&r.state->lapic[i], &real.state->lapic[i],
				  sizeof(*r.state->lapic)));
		CU_ASSERT(!memcmp(&r.state->tsc[i], &real.state->tsc[i], sizeof(*r.state->tsc)));
	}
	free(text);
	bytes_free(&sections);
	bytes_free(&json);
	forget(&r);
	forget(&real);
}

/* The stream with timer/icount/shift behind what timer/icount holds; read. */
static int read_with_shift(struct reading *r, const struct reading *from, unsigned version,
			   unsigned shift)
{
	static const char behind[] = "{\"name\": \"icount_warp_timer\", \"type\": \"timer\", "
				     "\"size\": 8}]}";
	static const char name[] = "timer/icount/shift";
	const struct gclk_vmdesc_section *s = gclk_vmdesc_find(from->tail->desc, "timer", 0, NULL);
	size_t end = s->payload + s->payload_size;
	struct bytes json = { 0 };
	char *text;

	putf(&json, "%s, {\"vmsd_name\": \"%s\", \"version\": %u, \"fields\": [{\"name\": "
	     "\"icount_time_shift\", \"type\": \"int16\", \"size\": 2}", behind, name, version);
	put_text(&json, version == 1 ? "]}" : ", {\"name\": \"last_delta\", \"type\": \"int64\", "
		 "\"size\": 8}]}");
	put8(&json, 0);
	text = replace(description(from), behind, (char *)json.p);
	memset(r, 0, sizeof(*r));
	put(&r->b, from->b.p, (size_t)from->tail->offset);
	put(&r->b, from->tail->bytes, end);
	put8(&r->b, 5);
	put_name(&r->b, name);
	put32(&r->b, version);
	put16(&r->b, shift);
	put_zero(&r->b, version == 1 ? 0 : 8);
	put(&r->b, from->tail->bytes + end, from->tail->sections_size + 2 - end);
	put32(&r->b, strlen(text));
	put_text(&r->b, text);
	free(text);
	bytes_free(&json);
	return read_again(r);
}

/* With shift=auto it is in the stream, in two versions; it need not be guessed then. */
GCLK_TEST(versions, a_shift_that_is_sent_gives_the_axis)
{
	struct reading real;

	read_real(&real, "pc-icount");
	for (unsigned version = 1; version <= 2; version++) {
		for (unsigned shift = 0; shift <= 11; shift++) {
			const struct gclk_virtual_clock *clock;
			struct reading r;

			CU_ASSERT_EQUAL_FATAL(read_with_shift(&r, &real, version, shift), 0);
			clock = &r.state->virtual_clock;
			GCLK_EQ(clock->clock_ns, shift == 11 ? real.state->virtual_clock.clock_ns :
				clock->icount_bias_ns + (clock->icount << shift));
			GCLK_EQ(r.bindings.n, real.bindings.n);
			forget(&r);
		}
	}
	forget(&real);
}

/* --- an HPET that moves, and what the releases make of it when they load it --- */

#define S INT64_C(1000000000)
#define PERIOD 1000000u			/* 10 ms */

/* 10.x: a 32-bit comparator becomes the next counter with these low bits. */
static uint64_t extended(uint64_t counter, uint32_t comparator)
{
	uint64_t v = (counter & ~UINT64_C(0xffffffff)) | comparator;

	return v < counter ? v + (UINT64_C(1) << 32) : v;
}

/* Ticks from @now to the interrupt after the one that is due; up to 8.2, and 10.x. */
static uint64_t next_8_2(uint64_t now, uint32_t comparator)
{
	while ((int32_t)(comparator - (uint32_t)now) < 0) {
		comparator += PERIOD;
	}
	return (uint32_t)(comparator - (uint32_t)now);
}

static uint64_t next_10(uint64_t now, uint64_t counter, uint32_t comparator)
{
	uint64_t v = extended(counter, comparator);

	while (v < now) {
		v += PERIOD;
	}
	return v - now;
}

static void set_row(struct reading *r, const char *section, const char *field, uint64_t v)
{
	for (size_t i = 0; i < r->bindings.n; i++) {
		const struct gclk_located *row = &r->bindings.rows[i];
		char name[160];

		gclk_located_name(row, name, sizeof(name));
		if (strcmp(row->section->base, section) || strcmp(name, field)) {
			continue;
		}
		for (unsigned k = 0; k < row->size; k++) {
			r->b.p[r->tail->offset + row->offset + k] =
				(uint8_t)(v >> 8 * (row->size - 1 - k));
		}
		return;
	}
	CU_FAIL("no such row");
}

static uint64_t encoded(const struct reading *r, const char *field, const struct gclk_state *state)
{
	for (size_t i = 0; i < r->bindings.n; i++) {
		const struct gclk_located *row = &r->bindings.rows[i];
		uint8_t bytes[256];
		char name[160];

		gclk_located_name(row, name, sizeof(name));
		if (!strcmp(row->section->base, "hpet") && !strcmp(name, field)) {
			GCLK_EQ(gclk_located_encode(row, state, bytes, NULL), 0);
			return gclk_get_be64(bytes);
		}
	}
	CU_FAIL("no such row");
	return 0;
}

/* Enabled, no offset sent (machine types up to 2.11): timer 0 periodic, 32 bits, due in 4 ms. */
static uint64_t read_enabled(struct reading *r)
{
	struct bytes b = { 0 };
	uint64_t counter = (UINT64_C(7) << 32) + 123456789;
	struct reading plain;

	read_real(&plain, "pc-xbzrle");
	set_row(&plain, "hpet", "config", 1);
	set_row(&plain, "hpet", "hpet_counter", counter);
	set_row(&plain, "hpet", "timer[0].config", 0x3c | 0x100);
	set_row(&plain, "hpet", "timer[0].period", PERIOD);
	set_row(&plain, "hpet", "timer[0].cmp", (uint32_t)(counter + 400000));
	set_row(&plain, "hpet", "timer[0].qemu_timer",
		(uint64_t)plain.state->virtual_clock.clock_ns + 4000000);
	put(&b, plain.b.p, plain.b.n);
	forget(&plain);
	memset(r, 0, sizeof(*r));
	r->b = b;
	CU_ASSERT_EQUAL_FATAL(read_again(r), 0);
	return counter;
}

static struct gclk_plan *move(const struct reading *r, int64_t elapsed_ns, uint8_t ticks)
{
	struct gclk_plan *plan = gclk_plan_new(r->state->n_vcpus);
	struct gclk_disagreement disagreement = { 0 };
	struct gclk_policy policy = gclk_policy_default;
	struct gclk_host host = { 0 };
	struct gclk_when when = { 0 };
	struct gclk_error error;

	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	policy.gap = GCLK_GAP_COUNT;
	policy.ticks[GCLK_TICK_HPET].policy = ticks;
	policy.ticks[GCLK_TICK_HPET].by_operator = 1;
	when.run.ns = INT64_C(1800000000) * S;
	when.load = when.run;
	when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	when.elapsed_given = 1;
	when.elapsed_ns = elapsed_ns;
	if (gclk_plan(r->state, gclk_qemu_carrier(r->state), &host, &when, &disagreement, &policy,
		      plan, &error) < 0) {
		printf("\n    plan: %s\n", error.message);
		CU_FAIL_FATAL("no plan");
	}
	return plan;
}

static void check_moved(struct reading *r, uint64_t counter, int64_t elapsed_ns, uint8_t ticks)
{
	struct gclk_plan *plan = move(r, elapsed_ns, ticks);
	const struct gclk_state *to = plan->state;
	uint64_t now = counter + (uint64_t)elapsed_ns / 10;
	uint64_t left = PERIOD - (now - counter - 400000) % PERIOD;
	uint64_t sent = encoded(r, "hpet_counter", to);
	uint32_t comparator = (uint32_t)encoded(r, "timer[0].cmp", to);
	uint64_t due_ns = encoded(r, "timer[0].qemu_timer", to);

	GCLK_EQ(sent, now);
	GCLK_EQ(encoded(r, "timer[0].cmp", r->state), (uint32_t)(counter + 400000));
	GCLK_EQ(encoded(r, "hpet_counter", r->state), counter);
	CU_ASSERT((due_ns <= (uint64_t)to->virtual_clock.clock_ns) == (ticks == GCLK_TICKS_MERGE));
	GCLK_EQ(next_8_2(now, comparator), left);
	GCLK_EQ(next_10(now, sent, comparator), left);
	gclk_plan_free(plan);
}

GCLK_TEST(versions, a_moved_hpet_ticks_on_under_every_loader)
{
	static const int64_t gaps[] = { 5 * S + 1000000, 60 * S, 3600 * S + 7000000 };
	struct reading r;
	uint64_t counter = read_enabled(&r);

	for (size_t i = 0; i < sizeof(gaps) / sizeof(*gaps); i++) {
		check_moved(&r, counter, gaps[i], GCLK_TICKS_MERGE);
		check_moved(&r, counter, gaps[i], GCLK_TICKS_DISCARD);
	}
	/* a newer machine type sends the offset: the same counter */
	GCLK_SET(hpet, &r.state->hpet, offset_ns,
		 (int64_t)(counter * 10) - r.state->virtual_clock.clock_ns);
	for (size_t i = 0; i < sizeof(gaps) / sizeof(*gaps); i++) {
		check_moved(&r, counter, gaps[i], GCLK_TICKS_MERGE);
		check_moved(&r, counter, gaps[i], GCLK_TICKS_DISCARD);
	}
	forget(&r);
}

/* A counter that stands does not move, whatever the axis does. */
GCLK_TEST(versions, a_halted_hpet_stays)
{
	struct reading r;
	struct gclk_plan *plan;

	read_real(&r, "pc-xbzrle");
	plan = move(&r, 3600 * S, GCLK_TICKS_MERGE);
	GCLK_EQ(encoded(&r, "hpet_counter", plan->state), 0);
	CU_ASSERT(!GCLK_HAS(hpet, &r.state->hpet, counter_at_ns));
	gclk_plan_free(plan);
	forget(&r);
}
