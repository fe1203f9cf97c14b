/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"
#include "gclk-test.h"

#define F GCLK_PIT_HZ

/* A channel 0 that was loaded at 0. */
static struct gclk_pit loaded(enum gclk_dialect dialect, unsigned mode, uint16_t count)
{
	struct gclk_pit pit;

	gclk_pit_init(&pit, dialect, 0);
	if (dialect == GCLK_DIALECT_DATASHEET) {
		/* the count is loaded at the CLK after the write: write one CLK before 0 */
		gclk_pit_init(&pit, dialect, -1000000);
		gclk_pit_write(&pit, 0x43, (uint8_t)(0x30 | mode << 1), -900, NULL);
		gclk_pit_write(&pit, 0x40, count & 0xff, -500, NULL);
		gclk_pit_write(&pit, 0x40, count >> 8, -400, NULL);
		gclk_pit_advance(&pit, 0, NULL);
		return pit;
	}
	gclk_pit_write(&pit, 0x43, (uint8_t)(0x30 | mode << 1), 0, NULL);
	gclk_pit_write(&pit, 0x40, count & 0xff, 0, NULL);
	gclk_pit_write(&pit, 0x40, count >> 8, 0, NULL);
	return pit;
}

GCLK_TEST(pit, known_gaps)
{
	static const struct {
		uint32_t n;
		int64_t a, e;
		uint64_t missed;
		unsigned count;
		int64_t to_next;
	} v[] = {
		{ 65536, 10000000, 1000000000, 18, 40071, 33582622 },
		{ 11932, 5000000, 250000000, 25, 5971, 5003923 },
		{ 1193, 0, 1000000000, 1000, 1011, 847315 },
		{ 65536, 54000000, 1000000, 1, 65447, 54850803 },
		{ 2, 0, 1000000, 596, 1, 686 },
	};

	for (unsigned i = 0; i < GCLK_COUNT(v); i++) {
		struct gclk_pit pit = loaded(GCLK_DIALECT_DATASHEET, 2, (uint16_t)v[i].n);
		int64_t t = v[i].a + v[i].e;

		GCLK_EQ(gclk_pit_edges(&pit, v[i].a, t), v[i].missed);
		GCLK_EQ(gclk_pit_count_at(&pit, 0, t), v[i].count);
		GCLK_EQ(gclk_pit_next_edge(&pit, t) - t, v[i].to_next);
		gclk_pit_advance(&pit, t, NULL);
		GCLK_EQ(gclk_pit_next_edge(&pit, t) - t, v[i].to_next);
	}
}

GCLK_TEST(pit, known_readings)
{
	struct gclk_pit pit = loaded(GCLK_DIALECT_DATASHEET, 3, 1193);

	GCLK_EQ(gclk_pit_out_at(&pit, 0, 1000000000), 1);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 1000000000), 828);
	pit = loaded(GCLK_DIALECT_KVM, 3, 1193);
	pit.channels[2] = pit.channels[0];	/* channel 0 of the kernel has a period of its own */
	GCLK_EQ(gclk_pit_count_at(&pit, 2, 1000000000), 831);
	pit = loaded(GCLK_DIALECT_DATASHEET, 0, 1000);
	GCLK_EQ(gclk_pit_out_at(&pit, 0, 500000), 0);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 500000), 404);
	GCLK_EQ(gclk_pit_out_at(&pit, 0, 1000000), 1);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 1000000), 65343);
}

static void program(struct gclk_pit *pit, unsigned mode, unsigned count, int64_t t)
{
	gclk_pit_write(pit, 0x43, (uint8_t)(0x30 | mode << 1), t, NULL);
	gclk_pit_write(pit, 0x40, (uint8_t)count, t, NULL);
	gclk_pit_write(pit, 0x40, (uint8_t)(count >> 8), t, NULL);
}

/* What the kernel's own channel 0 did (test-kernel.c). */
GCLK_TEST(pit, kernel_counts_by_its_timer)
{
	struct gclk_pit pit;

	gclk_pit_init(&pit, GCLK_DIALECT_KVM, 1000);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 1000000), 0);	/* nothing runs yet */
	program(&pit, 5, 1000, 2000000);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 5000000), 1000);
	/* 100 clocks, 83809 ns: too fast for the kernel, once it has begun */
	program(&pit, 2, 100, 10000000);
	GCLK_EQ(gclk_pit_next_edge(&pit, 10000000), 10083809);
	GCLK_EQ(gclk_pit_next_edge(&pit, 10083809), 10283809);
	GCLK_EQ(gclk_pit_edges(&pit, 10000000, 11083809), 6);
	/* in mode 5 it stops, and the count goes on from the period's beginning */
	program(&pit, 5, 60000, 10300000);
	GCLK_EQ(gclk_pit_next_edge(&pit, 10300000), GCLK_TIMER_OFF);
	GCLK_EQ(gclk_pit_count_at(&pit, 0, 10283809 + 1000000), 60000 - 1193);
}

/* Latched counts and interrupt stamps that stock QEMU 7.2 gave. */
GCLK_TEST(pit, known_qemu)
{
	struct gclk_pit pit = loaded(GCLK_DIALECT_QEMU, 2, 0x04a9);
	struct gclk_line line;

	GCLK_EQ(gclk_pit_transition_after(&pit, 0), 1000685);
	gclk_pit_advance(&pit, 1000684, &line);
	GCLK_EQ(line.level, 0);
	gclk_pit_advance(&pit, 1000685, &line);
	GCLK_EQ(line.rises, 1);
	GCLK_EQ(line.level, 1);
	GCLK_EQ(gclk_pit_transition_after(&pit, 1000685), 1999694);
	gclk_pit_advance(&pit, 1999694, &line);
	GCLK_EQ(line.level, 0);
	GCLK_EQ(gclk_pit_transition_after(&pit, 1999694), 2000533);
	GCLK_EQ(gclk_pit_next_edge(&pit, 1999694), 2000533);
}

static const unsigned odd_counts[] = { 1, 2, 3, 4, 5, 41, 1193, 14551, 65535, 0 };

static uint16_t random_count(void)
{
	return gclk_random_below(3) ? (uint16_t)gclk_random_bits()
				    : (uint16_t)odd_counts[gclk_random_below(10)];
}

/* QEMU: one jump and the same way visit by visit agree in everything. */
GCLK_TEST(pit, jumping_equals_visiting)
{
	for (unsigned i = 0; i < 3000 * gclk_test_scale(); i++) {
		unsigned mode = (unsigned)gclk_random_below(6);
		uint16_t count = random_count();
		struct gclk_pit pit = loaded(GCLK_DIALECT_QEMU, mode, count), jump;
		int64_t period = ((int64_t)(count ? count : 65536) * 1000000000 + F - 1) / F;
		int64_t t0 = (int64_t)gclk_random_below((uint64_t)period * 8), t1;
		uint64_t rises = 0;
		int64_t last = GCLK_TIMER_OFF;
		struct gclk_line line;

		if (gclk_random_below(2)) {	/* around the instants where a tick is exact */
			t0 += 500000000 - period * 4;
			t0 = t0 < 0 ? 0 : t0;
		}
		gclk_pit_advance(&pit, t0, NULL);
		if (gclk_random_below(4) == 0) {	/* a mode of which the timer knows nothing yet */
			gclk_pit_write(&pit, 0x43, (uint8_t)(0x30 | gclk_random_below(8) << 1), t0,
				       NULL);
		}
		t1 = t0 + (int64_t)gclk_random_below((uint64_t)period * 40);
		jump = pit;
		GCLK_EQ(gclk_pit_edges(&pit, t0, t1), (gclk_pit_advance(&jump, t1, &line), line.rises));
		while (pit.channels[0].next_transition_ns != GCLK_TIMER_OFF &&
		       pit.channels[0].next_transition_ns <= t1) {
			struct gclk_line one;

			gclk_pit_advance(&pit, pit.channels[0].next_transition_ns, &one);
			rises += one.rises;
			last = one.rises ? one.last_rise_ns : last;
			CU_ASSERT(one.rises <= 1);
		}
		GCLK_EQ(line.rises, rises);
		GCLK_EQ(line.last_rise_ns, last);
		GCLK_EQ(jump.channels[0].next_transition_ns, pit.channels[0].next_transition_ns);
		GCLK_EQ(jump.channels[0].irq_level, pit.channels[0].irq_level);
		if (line.rises != rises ||
		    jump.channels[0].next_transition_ns != pit.channels[0].next_transition_ns) {
			printf("mode %u count %u t0 %lld t1 %lld\n", mode, count, (long long)t0,
			       (long long)t1);
			return;
		}
	}
}

/* All dialects: edges add up, the next edge is the first, and the last one the last. */
GCLK_TEST(pit, edges_add_up)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		unsigned mode = (unsigned)gclk_random_below(6);
		struct gclk_pit pit = loaded((enum gclk_dialect)gclk_random_below(3), mode,
					     random_count());
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t c = b + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(50));
		int64_t next;

		GCLK_EQ(gclk_pit_edges(&pit, a, b) + gclk_pit_edges(&pit, b, c),
			gclk_pit_edges(&pit, a, c));
		next = gclk_pit_next_edge(&pit, b);
		if (next == GCLK_TIMER_OFF) {
			GCLK_EQ(gclk_pit_edges(&pit, b, b + (INT64_C(1) << 60)), 0);
			continue;
		}
		GCLK_EQ(gclk_pit_edges(&pit, b, next - 1), 0);
		GCLK_EQ(gclk_pit_edges(&pit, b, next), 1);
		GCLK_EQ(gclk_pit_last_edge(&pit, next), next);
		if (gclk_pit_edges(&pit, 0, b)) {
			int64_t last = gclk_pit_last_edge(&pit, b);

			GCLK_EQ(gclk_pit_edges(&pit, last, b), 0);
			GCLK_EQ(gclk_pit_edges(&pit, last - 1, b), 1);
		}
	}
}

/* Restored with the raising transition, a device delivers one interrupt. */
GCLK_TEST(pit, raising_transition_gives_one)
{
	for (unsigned i = 0; i < 20000 * gclk_test_scale(); i++) {
		struct gclk_pit pit = loaded(GCLK_DIALECT_QEMU,
					     (unsigned)gclk_random_below(6), random_count());
		int64_t a = (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(40));
		int64_t b = a + (int64_t)gclk_random_below(UINT64_C(1) << gclk_random_below(40));
		int64_t at;
		struct gclk_line line;

		gclk_pit_advance(&pit, a, NULL);
		at = gclk_pit_transition_raising(&pit, b);
		if (at == GCLK_TIMER_OFF) {
			GCLK_EQ(gclk_pit_edges(&pit, a, b), 0);
			continue;
		}
		CU_ASSERT(at <= b);
		pit.channels[0].next_transition_ns = at;
		gclk_pit_advance(&pit, b, &line);
		GCLK_EQ(line.rises, pit.channels[0].mode == 1 ? 0 : 1);
	}
}

/* An 8254 counter, one CLK pulse at a time, in the data sheet's words. */
struct counter {
	unsigned mode, n;	/* count as written, 1..65536 */
	unsigned element;	/* what is read */
	bool out, first_half;
	uint64_t rises;
};

static void set_out(struct counter *c, bool out)
{
	c->rises += out && !c->out;
	c->out = out;
}

static void load(struct counter *c)
{
	c->element = c->mode == 3 ? c->n & ~1u : c->n;
	c->first_half = true;
}

static void clock_square(struct counter *c)
{
	c->element -= 2;
	/* odd counts stay one CLK longer at 0 in the high half */
	if (c->element == 0 && !(c->n % 2 && c->first_half)) {
		c->element = c->n & ~1u;
		c->first_half = !c->first_half;
		set_out(c, c->first_half);
	} else if (c->element == (unsigned)-2) {
		c->element = c->n & ~1u;
		c->first_half = false;
		set_out(c, false);
	}
}

static void pulse(struct counter *c)
{
	switch (c->mode) {
	case 0:
		c->element = (c->element - 1) & 0xffff;
		if (c->element == 0) {
			set_out(c, true);
		}
		break;
	case 2:
		c->element--;
		set_out(c, c->element != 1);
		if (c->element == 0) {
			c->element = c->n;
			set_out(c, true);
		}
		break;
	case 3:
		clock_square(c);
		break;
	default:
		set_out(c, true);
		c->element = (c->element - 1) & 0xffff;
		if (c->element == 0 && !c->rises) {
			set_out(c, false);
		}
		break;
	}
}

GCLK_TEST(pit, closed_form_equals_clock_by_clock)
{
	static const unsigned modes[] = { 0, 2, 3, 4 };

	for (unsigned i = 0; i < 400 * gclk_test_scale(); i++) {
		unsigned n = 2 + (unsigned)gclk_random_below(UINT64_C(1) << gclk_random_below(11));
		struct counter c = { .mode = modes[i % 4], .n = n };
		struct gclk_pit pit = loaded(GCLK_DIALECT_DATASHEET, c.mode, (uint16_t)n);

		load(&c);
		c.out = c.mode != 0;
		for (unsigned k = 0; k < 3 * n + 3; k++) {
			int64_t t = ((int64_t)k * 1000000000 + F - 1) / F;

			/* only the low 16 bits of what an odd mode 3 counts are defined */
			if (!(c.mode == 3 && n % 2)) {
				GCLK_EQ(gclk_pit_count_at(&pit, 0, t), c.element & 0xffff);
			}
			GCLK_EQ(gclk_pit_out_at(&pit, 0, t), c.out);
			GCLK_EQ(gclk_pit_edges(&pit, 0, t), c.rises);
			pulse(&c);
		}
	}
}

/* Channel 2 of the data sheet's: the gate stops and starts it. */
GCLK_TEST(pit, gate)
{
	struct gclk_pit pit;
	int64_t clk = 838096;	/* 1000 clocks and a bit */

	gclk_pit_init(&pit, GCLK_DIALECT_DATASHEET, 0);
	gclk_pit_write(&pit, 0x61, 1, 0, NULL);
	gclk_pit_write(&pit, 0x43, 0xb0, 0, NULL);	/* mode 0 */
	gclk_pit_write(&pit, 0x42, 0x10, 0, NULL);
	gclk_pit_write(&pit, 0x42, 0x27, 0, NULL);	/* 10000 */
	GCLK_EQ(gclk_pit_count_at(&pit, 2, clk + 839), 9000);
	gclk_pit_write(&pit, 0x61, 0, clk + 839, NULL);
	GCLK_EQ(gclk_pit_count_at(&pit, 2, 100 * clk), 9000);
	gclk_pit_write(&pit, 0x61, 1, 100 * clk, NULL);
	GCLK_EQ(gclk_pit_count_at(&pit, 2, 101 * clk), 8000);
	GCLK_EQ(gclk_pit_peek(&pit, 0x61, 101 * clk) & 0x21, 0x01);
	GCLK_EQ(gclk_pit_peek(&pit, 0x61, 110 * clk) & 0x21, 0x21);
	/* a one-shot waits for its trigger, and is low from there until it has counted */
	gclk_pit_write(&pit, 0x61, 0, 200 * clk, NULL);
	gclk_pit_write(&pit, 0x43, 0xb2, 200 * clk, NULL);
	gclk_pit_write(&pit, 0x42, 0x10, 200 * clk, NULL);
	gclk_pit_write(&pit, 0x42, 0x27, 200 * clk, NULL);
	GCLK_EQ(gclk_pit_peek(&pit, 0x61, 300 * clk) & 0x20, 0x20);
	gclk_pit_write(&pit, 0x61, 1, 300 * clk, NULL);
	GCLK_EQ(gclk_pit_peek(&pit, 0x61, 305 * clk) & 0x20, 0);
	GCLK_EQ(gclk_pit_peek(&pit, 0x61, 311 * clk) & 0x20, 0x20);
}

GCLK_TEST(pit, latches_bcd_and_null_count)
{
	struct gclk_pit pit;

	gclk_pit_init(&pit, GCLK_DIALECT_DATASHEET, 0);
	gclk_pit_write(&pit, 0x43, 0x35, 0, NULL);	/* channel 0, word, mode 2, BCD */
	gclk_pit_write(&pit, 0x40, 0x00, 0, NULL);
	gclk_pit_write(&pit, 0x40, 0x10, 0, NULL);	/* 1000 */
	gclk_pit_write(&pit, 0x43, 0xe2, 0, NULL);	/* status of channel 0 */
	GCLK_EQ(gclk_pit_read(&pit, 0x40, 0, NULL), 0x80 | 0x40 | 0x35);
	gclk_pit_write(&pit, 0x43, 0xe2, 1000, NULL);
	GCLK_EQ(gclk_pit_read(&pit, 0x40, 1000, NULL), 0x80 | 0x35);
	/* loaded at the first CLK, ten clocks on it reads 0990 */
	gclk_pit_write(&pit, 0x43, 0x00, 839 + 8400, NULL);
	gclk_pit_write(&pit, 0x43, 0x00, 50000, NULL);	/* already latched */
	GCLK_EQ(gclk_pit_read(&pit, 0x40, 60000, NULL), 0x90);
	GCLK_EQ(gclk_pit_read(&pit, 0x40, 60000, NULL), 0x09);
	GCLK_EQ(gclk_pit_edges(&pit, 0, 839 + 838096), 1);
}

GCLK_TEST(pit, invalid_states_are_refused_by_name)
{
	struct gclk_pit pit;
	struct gclk_error error = { 0 };

	gclk_pit_init(&pit, GCLK_DIALECT_QEMU, 0);
	GCLK_EQ(gclk_pit_validate(&pit, &error), 0);
	pit.channels[1].mode = 9;
	GCLK_EQ(gclk_pit_validate(&pit, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "pit.channels.mode");
	pit.channels[1].mode = 255;
	pit.channels[2].count = 0;
	GCLK_EQ(gclk_pit_validate(&pit, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "pit.channels[2].count");
	pit.channels[2].count = 65536;
	pit.channels[0].count_latched = 4;
	GCLK_EQ(gclk_pit_validate(&pit, &error), -GCLK_RANGE);
	CU_ASSERT_STRING_EQUAL(error.where, "pit.channels.count_latched");
}
