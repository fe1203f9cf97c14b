/* SPDX-License-Identifier: MIT */
/*
 * Every device in states that a file may hold and no guest ever reached, asked at instants
 * at both ends of the axis: whatever validation lets through must be answered.
 */
#include <string.h>

#include <guestclock/devices.h>

#include "core/util.h"
#include "gclk-test.h"

#define STATES 3000

static const int64_t instants[] = {
	INT64_MIN,
	INT64_MIN + 1,
	-INT64_C(9223372036000000001),
	-1,
	0,
	1,
	1000000000,
	INT64_C(1800000000000000000),
	INT64_MAX - 1,
	INT64_MAX,
};

static int64_t any_instant(void)
{
	if (gclk_random() % 2) {
		return instants[gclk_random() % GCLK_COUNT(instants)];
	}
	return (int64_t)gclk_random() >> gclk_random() % 64;
}

static uint64_t any_value(const struct gclk_field *f)
{
	uint64_t span = f->max - f->min, v = gclk_random() >> gclk_random() % 64;
	const struct gclk_name *name = f->names;
	unsigned n = 0;

	if (f->unit == GCLK_UNIT_ENUM && name) {
		while (name[n].name) {
			n++;
		}
		return name[gclk_random() % n].value;
	}
	switch (gclk_random() % 4) {
	case 0:
		return f->min;
	case 1:
		return f->max;
	default:
		return span == UINT64_MAX ? v : f->min + v % (span + 1);
	}
}

/* Puts any value into one field of @one_in; arrays keep their length. */
static void disturb(const struct gclk_record *record, unsigned char *at, unsigned one_in)
{
	for (unsigned i = 0; i < record->n_fields; i++) {
		const struct gclk_field *f = &record->fields[i];
		uint64_t v = any_value(f);

		if (gclk_random() % one_in) {
			continue;
		}
		memcpy(at, &(uint64_t){ *(uint64_t *)at | UINT64_C(1) << i },
		       sizeof(uint64_t));
		for (unsigned k = 0; k < f->size; k++) {
			bool number =
				f->type != GCLK_TYPE_BYTES && f->type != GCLK_TYPE_STRING;

			at[f->offset + k] =
				(unsigned char)(number ? v >> 8 * k : gclk_random());
		}
		if (f->type == GCLK_TYPE_STRING) {
			at[f->offset] = 0;
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *s = &record->subs[i];
		unsigned n = s->max;

		if (s->count_offset >= 0) {
			n = at[s->count_offset];
		}
		for (unsigned k = 0; k < n; k++) {
			disturb(s->record, at + s->offset + k * s->record->size, one_in);
		}
	}
}

/* Disturbs until it is valid; false when a hundred tries were in vain. */
#define VALID(record, p)                                                                 \
	({                                                                               \
		bool ok_ = false;                                                        \
		__typeof__(*(p)) begin_ = *(p);                                          \
		for (int try_ = 0; try_ < 100 && !ok_; try_++) {                         \
			*(p) = begin_;                                                   \
			disturb(&gclk_##record##_record, (unsigned char *)(p),           \
				2 + try_ % 16);                                          \
			ok_ = gclk_##record##_validate((p), NULL) == 0;                  \
		}                                                                        \
		ok_;                                                                     \
	})

GCLK_TEST(extremes, pit)
{
	unsigned valid = 0;

	for (unsigned i = 0; i < STATES * gclk_test_scale(); i++) {
		struct gclk_pit pit;
		struct gclk_line line = { 0 };
		struct gclk_cadence cadence;
		int64_t t = any_instant(), u = any_instant();

		gclk_pit_init(&pit, gclk_random() % GCLK_N_DIALECTS, 0);
		for (unsigned k = 0; k < 8; k++) {
			gclk_pit_write(&pit, (uint16_t)(0x40 + gclk_random() % 4),
				       (uint8_t)gclk_random(), 0, &line);
		}
		if (!VALID(pit, &pit)) {
			continue;
		}
		valid++;
		gclk_pit_next_edge(&pit, t);
		gclk_pit_last_edge(&pit, t);
		gclk_pit_edges(&pit, t < u ? t : u, t < u ? u : t);
		GCLK_EQ(gclk_pit_edges(&pit, t, t), 0);
		gclk_pit_cadence(&pit, &cadence);
		gclk_pit_transition_after(&pit, t);
		gclk_pit_transition_raising(&pit, t);
		for (unsigned n = 0; n < 3; n++) {
			gclk_pit_count_at(&pit, n, t);
			gclk_pit_out_at(&pit, n, t);
		}
		gclk_pit_read(&pit, (uint16_t)(0x40 + gclk_random() % 4), t, &line);
		gclk_pit_write(&pit, (uint16_t)(0x40 + gclk_random() % 4),
			       (uint8_t)gclk_random(), t, &line);
		gclk_pit_advance(&pit, u, &line);
	}
	CU_ASSERT(valid > STATES / 2);
}

GCLK_TEST(extremes, rtc)
{
	unsigned valid = 0;

	for (unsigned i = 0; i < STATES * gclk_test_scale(); i++) {
		struct gclk_rtc rtc;
		struct gclk_line line = { 0 };
		struct gclk_cadence cadence;
		int64_t t = any_instant(), u = any_instant(), ns;

		gclk_rtc_init(&rtc, gclk_random() % GCLK_N_DIALECTS, 1700000000, 0);
		if (!VALID(rtc, &rtc)) {
			continue;
		}
		valid++;
		gclk_rtc_seconds_at(&rtc, t, &ns);
		CU_ASSERT(ns > -1000000000 && ns < 1000000000);
		gclk_rtc_next_edge(&rtc, t);
		gclk_rtc_update_next(&rtc, t);
		gclk_rtc_alarm_next(&rtc, t);
		gclk_rtc_periodic_next(&rtc, t);
		gclk_rtc_periodic_last(&rtc, t);
		gclk_rtc_periodic_edges(&rtc, t < u ? t : u, t < u ? u : t);
		gclk_rtc_updates(&rtc, t < u ? t : u, t < u ? u : t);
		gclk_rtc_alarms(&rtc, t < u ? t : u, t < u ? u : t);
		gclk_rtc_edges(&rtc, t < u ? t : u, t < u ? u : t);
		gclk_rtc_cadence(&rtc, &cadence);
		gclk_rtc_peek(&rtc, 0x71, t);
		gclk_rtc_read(&rtc, 0x71, t, &line);
		gclk_rtc_write(&rtc, (uint16_t)(0x70 + gclk_random() % 2),
			       (uint8_t)gclk_random(), t, &line);
		gclk_rtc_write(&rtc, 0x71, (uint8_t)gclk_random(), t, &line);
		gclk_rtc_sync_cmos(&rtc, t);
		gclk_rtc_advance(&rtc, u, &line);
	}
	CU_ASSERT(valid > STATES / 2);
}

GCLK_TEST(extremes, hpet)
{
	unsigned valid = 0;

	for (unsigned i = 0; i < STATES / 4 * gclk_test_scale(); i++) {
		struct gclk_hpet hpet;
		struct gclk_hpet_lines lines;
		struct gclk_cadence cadence;
		int64_t t = any_instant(), u = any_instant();

		gclk_hpet_init(&hpet, gclk_random() % GCLK_N_DIALECTS,
			       gclk_random_below(33), 10000000, 0xffffff, 0);
		if (!VALID(hpet, &hpet)) {
			continue;
		}
		valid++;
		gclk_hpet_counter_at(&hpet, t, NULL);
		for (unsigned n = 0; n < hpet.n_timers; n++) {
			gclk_hpet_timer_next(&hpet, n, t);
			gclk_hpet_timer_last(&hpet, n, t);
			gclk_hpet_timer_edges(&hpet, n, t < u ? t : u, t < u ? u : t);
			gclk_hpet_timer_cadence(&hpet, n, &cadence);
			gclk_hpet_timer_interrupts(&hpet, n);
			gclk_hpet_timer_route(&hpet, n);
		}
		gclk_hpet_read(&hpet, (uint32_t)(gclk_random() % 256 * 4), 4, t, &lines);
		gclk_hpet_write(&hpet, (uint32_t)(gclk_random() % 256 * 4), 4,
				gclk_random(), t, &lines);
		gclk_hpet_write(&hpet, (uint32_t)(gclk_random() % 128 * 8), 8,
				gclk_random(), t, &lines);
		gclk_hpet_advance(&hpet, u, &lines);
		gclk_hpet_convert(&hpet, GCLK_DIALECT_DATASHEET,
				  1 + (uint32_t)(gclk_random() % GCLK_HPET_MAX_PERIOD_FS),
				  t, NULL, NULL);
	}
	CU_ASSERT(valid > STATES / 8);
}

GCLK_TEST(extremes, lapic)
{
	static const uint32_t offsets[] = { 0x320, 0x380, 0x390, 0x3e0 };
	unsigned valid = 0;

	for (unsigned i = 0; i < STATES * gclk_test_scale(); i++) {
		struct gclk_lapic lapic;
		struct gclk_line line = { 0 };
		struct gclk_cadence cadence;
		int64_t t = any_instant(), u = any_instant();

		gclk_lapic_init(&lapic, gclk_random() % GCLK_N_DIALECTS, 1, 0);
		if (!VALID(lapic, &lapic)) {
			continue;
		}
		valid++;
		gclk_lapic_next(&lapic, t);
		gclk_lapic_last(&lapic, t);
		gclk_lapic_edges(&lapic, t < u ? t : u, t < u ? u : t);
		gclk_lapic_count_at(&lapic, t);
		gclk_lapic_cadence(&lapic, &cadence);
		gclk_lapic_read(&lapic, offsets[gclk_random() % 4], t, &line);
		gclk_lapic_write(&lapic, offsets[gclk_random() % 4],
				 (uint32_t)gclk_random(), t, &line);
		gclk_lapic_advance(&lapic, u, &line);
	}
	CU_ASSERT(valid > STATES / 2);
}

GCLK_TEST(extremes, pm_timer_and_watchdog)
{
	for (unsigned i = 0; i < STATES * gclk_test_scale(); i++) {
		struct gclk_pm_timer pm;
		struct gclk_i6300esb wdt;
		struct gclk_line line = { 0 };
		enum gclk_watchdog_event event;
		int64_t t = any_instant(), u = any_instant();

		gclk_pm_timer_init(&pm, gclk_random() % 2 ? 24 : 32, 0);
		memset(&wdt, 0, sizeof(wdt));
		if (VALID(pm_timer, &pm)) {
			gclk_pm_timer_at(&pm, t);
			gclk_pm_timer_overflow_next(&pm, t);
			gclk_pm_timer_next_edge(&pm, t);
			gclk_pm_timer_overflows(&pm, t < u ? t : u, t < u ? u : t);
			gclk_pm_timer_edges(&pm, t < u ? t : u, t < u ? u : t);
			gclk_pm_timer_write(&pm, gclk_random() % 16,
					    (uint32_t)gclk_random(), t, &line);
			gclk_pm_timer_advance(&pm, u, &line);
		}
		if (VALID(i6300esb, &wdt)) {
			gclk_i6300esb_next(&wdt, t, &event);
			gclk_i6300esb_worst(&wdt, t < u ? t : u, t < u ? u : t);
		}
	}
}
