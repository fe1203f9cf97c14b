/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "core/calendar.h"
#include "property.h"

#define DAY INT64_C(86400)

static const struct gclk_rtc_format bcd_24 = { false, true, true, 0 };
static const struct gclk_rtc_format bcd_12 = { false, false, true, 0 };
static const struct gclk_rtc_format binary_24 = { true, true, true, 0 };
static const struct gclk_rtc_format binary_12 = { true, false, true, 0 };

/* Every day from 1900 to 2200 is what the C library says it is, in both directions. */
GCLK_TEST(calendar, every_day_of_three_centuries)
{
	int64_t first = gclk_days_from_civil(1900, 1, 1),
		last = gclk_days_from_civil(2200, 12, 31);

	GCLK_EQ(first, -25567);
	GCLK_EQ(last, 84370);
	for (int64_t day = first; day <= last; day++) {
		time_t t = (time_t)(day * DAY + (day * 7919 % DAY + DAY) % DAY);
		struct gclk_civil civil = gclk_civil_from_days(day), full;
		struct tm tm;

		gmtime_r(&t, &tm);
		REQUIRE(civil.year == tm.tm_year + 1900 && civil.month == tm.tm_mon + 1 &&
			civil.day == tm.tm_mday, "day %" PRId64, day);
		REQUIRE(gclk_weekday_from_days(day) == (unsigned)tm.tm_wday,
			"day %" PRId64, day);
		REQUIRE(gclk_civil_is_valid(&civil), "day %" PRId64, day);
		REQUIRE(gclk_days_from_civil(civil.year, civil.month, civil.day) == day,
			"day %" PRId64, day);
		REQUIRE(gclk_civil_from_seconds(t, &full) == 0 &&
				full.year == civil.year && full.month == civil.month &&
				full.day == civil.day && full.hour == tm.tm_hour &&
				full.minute == tm.tm_min && full.second == tm.tm_sec,
			"second %lld", (long long)t);
		REQUIRE(gclk_seconds_from_civil(&full) == timegm(&tm) && timegm(&tm) == t,
			"second %lld", (long long)t);
		/* the day after the last of a month is the first of the next */
		REQUIRE((gclk_civil_from_days(day + 1).day == 1) ==
			(civil.day == gclk_days_in_month(civil.year, civil.month)),
			"day %" PRId64, day);
	}
}

GCLK_TEST(calendar, far_dates_round_trip)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		int64_t seconds = (int64_t)gclk_random() >> gclk_random_below(64);
		struct gclk_civil civil;

		if (gclk_civil_from_seconds(seconds, &civil) < 0) {
			/* 2^31 years have about 6.8 * 10^16 seconds */
			REQUIRE(llabs(seconds) > INT64_C(67768000000000000), "%" PRId64,
				seconds);
			continue;
		}
		REQUIRE(gclk_civil_is_valid(&civil) &&
				gclk_seconds_from_civil(&civil) == seconds,
			"%" PRId64, seconds);
	}
}

GCLK_TEST(calendar, ends_of_the_years)
{
	struct gclk_civil civil = { INT32_MAX, 12, 31, 23, 59, 59 }, back;
	int64_t seconds = gclk_seconds_from_civil(&civil);

	GCLK_EQ(gclk_civil_from_seconds(seconds, &back), 0);
	GCLK_EQ(back.year, INT32_MAX);
	GCLK_EQ(gclk_civil_from_seconds(seconds + 1, &back), -GCLK_RANGE);
	civil = (struct gclk_civil){ INT32_MIN, 1, 1, 0, 0, 0 };
	seconds = gclk_seconds_from_civil(&civil);
	GCLK_EQ(gclk_civil_from_seconds(seconds, &back), 0);
	GCLK_EQ(back.year, INT32_MIN);
	GCLK_EQ(gclk_civil_from_seconds(seconds - 1, &back), -GCLK_RANGE);
	GCLK_EQ(gclk_civil_from_seconds(INT64_MAX, &back), -GCLK_RANGE);
	GCLK_EQ(gclk_civil_from_seconds(INT64_MIN, &back), -GCLK_RANGE);
	GCLK_EQ(gclk_days_from_civil(0, 3, 1), -719468);
	GCLK_EQ(gclk_days_from_civil(1970, 1, 1), 0);
}

GCLK_TEST(calendar, leap_years_and_validity)
{
	struct gclk_civil civil = { 2024, 2, 29, 23, 59, 59 };

	CU_ASSERT(gclk_is_leap_year(2000) && gclk_is_leap_year(2024) &&
		  gclk_is_leap_year(0));
	CU_ASSERT(!gclk_is_leap_year(1900) && !gclk_is_leap_year(2100) &&
		  !gclk_is_leap_year(2023));
	CU_ASSERT(gclk_is_leap_year(-4) && !gclk_is_leap_year(-100));
	GCLK_EQ(gclk_days_in_month(2023, 2), 28);
	GCLK_EQ(gclk_days_in_month(2024, 13), 0);
	GCLK_EQ(gclk_days_in_month(2024, 0), 0);
	CU_ASSERT(gclk_civil_is_valid(&civil));
	civil.year = 2023;
	CU_ASSERT(!gclk_civil_is_valid(&civil));
	civil = (struct gclk_civil){ 2024, 12, 31, 24, 0, 0 };
	CU_ASSERT(!gclk_civil_is_valid(&civil));
	civil = (struct gclk_civil){ 2024, 12, 31, 0, 60, 0 };
	CU_ASSERT(!gclk_civil_is_valid(&civil));
	civil = (struct gclk_civil){ 2024, 12, 31, 0, 0, 60 };
	CU_ASSERT(!gclk_civil_is_valid(&civil));
	civil = (struct gclk_civil){ 2024, 12, 0, 0, 0, 0 };
	CU_ASSERT(!gclk_civil_is_valid(&civil));
	civil = (struct gclk_civil){ 2024, 0, 1, 0, 0, 0 };
	CU_ASSERT(!gclk_civil_is_valid(&civil));
}

GCLK_TEST(calendar, bcd_of_every_byte)
{
	unsigned n_valid = 0;

	for (unsigned raw = 0; raw < 256; raw++) {
		uint8_t value = 77;
		int r = gclk_rtc_byte_decode((uint8_t)raw, &bcd_24, 0, 99, &value);
		char digits[3];

		snprintf(digits, sizeof(digits), "%02x", raw);
		if (digits[0] > '9' || digits[1] > '9') {
			GCLK_EQ(r, -GCLK_MALFORMED);
			GCLK_EQ(value, 77);
			continue;
		}
		n_valid++;
		GCLK_EQ(r, 0);
		GCLK_EQ(value, atoi(digits));
		GCLK_EQ(gclk_bcd_from_binary(value), raw);
		GCLK_EQ(gclk_rtc_byte_encode(value, &bcd_24), raw);
	}
	GCLK_EQ(n_valid, 100);
}

/* All 256 hour bytes in all four formats: what decodes is 24 hours, once each. */
GCLK_TEST(calendar, hours_of_every_byte)
{
	const struct gclk_rtc_format *formats[] = { &bcd_24, &bcd_12, &binary_24,
						    &binary_12 };

	for (size_t i = 0; i < GCLK_COUNT(formats); i++) {
		unsigned n_valid = 0;
		uint32_t seen = 0;

		for (unsigned raw = 0; raw < 256; raw++) {
			uint8_t hour;

			if (gclk_rtc_hour_decode((uint8_t)raw, formats[i], &hour) < 0) {
				continue;
			}
			n_valid++;
			seen |= UINT32_C(1) << hour;
			GCLK_EQ(gclk_rtc_hour_encode(hour, formats[i]), raw);
		}
		GCLK_EQ(n_valid, 24);
		GCLK_EQ(seen, 0xffffff);
	}
	GCLK_EQ(gclk_rtc_hour_encode(0, &bcd_12), 0x12);	/* 12 AM */
	GCLK_EQ(gclk_rtc_hour_encode(12, &bcd_12), 0x92);	/* 12 PM */
	GCLK_EQ(gclk_rtc_hour_encode(23, &binary_12), 0x8b);
	GCLK_EQ(gclk_rtc_hour_encode(23, &bcd_24), 0x23);
	CU_ASSERT(gclk_rtc_alarm_is_any(0xc0) && gclk_rtc_alarm_is_any(0xff));
	CU_ASSERT(!gclk_rtc_alarm_is_any(0x92) && !gclk_rtc_alarm_is_any(0x59));
}

GCLK_TEST(calendar, registers_known_values)
{
	/* Saturday, 2026-11-21 14:26:48 */
	struct gclk_civil civil = { 2026, 11, 21, 14, 26, 48 }, back;
	struct gclk_rtc_registers regs;
	struct gclk_rtc_format window = { false, true, false, 1970 };

	GCLK_EQ(gclk_rtc_encode(&civil, &bcd_12, &regs, NULL), 0);
	CU_ASSERT(regs.second == 0x48 && regs.minute == 0x26 && regs.hour == 0x82);
	CU_ASSERT(regs.weekday == 7 && regs.day == 0x21 && regs.month == 0x11);
	CU_ASSERT(regs.year == 0x26 && regs.century == 0x20);
	GCLK_EQ(gclk_rtc_encode(&civil, &binary_24, &regs, NULL), 0);
	CU_ASSERT(regs.second == 48 && regs.hour == 14 && regs.year == 26 &&
		  regs.century == 20);
	GCLK_EQ(gclk_rtc_encode(&civil, &window, &regs, NULL), 0);
	GCLK_EQ(regs.century, 0);
	GCLK_EQ(gclk_rtc_decode(&regs, &window, &back, NULL), 0);
	GCLK_EQ(back.year, 2026);
	regs.year = 0x70;
	GCLK_EQ(gclk_rtc_decode(&regs, &window, &back, NULL), 0);
	GCLK_EQ(back.year, 1970);
	regs.year = 0x69;
	GCLK_EQ(gclk_rtc_decode(&regs, &window, &back, NULL), 0);
	GCLK_EQ(back.year, 2069);
	civil.year = 2070;
	GCLK_EQ(gclk_rtc_encode(&civil, &window, &regs, NULL), -GCLK_RANGE);
	civil.year = 1969;
	GCLK_EQ(gclk_rtc_encode(&civil, &window, &regs, NULL), -GCLK_RANGE);
	civil.year = 10000;
	GCLK_EQ(gclk_rtc_encode(&civil, &bcd_24, &regs, NULL), -GCLK_RANGE);
	civil.year = -1;
	GCLK_EQ(gclk_rtc_encode(&civil, &bcd_24, &regs, NULL), -GCLK_RANGE);
	civil = (struct gclk_civil){ 2023, 2, 29, 0, 0, 0 };
	GCLK_EQ(gclk_rtc_encode(&civil, &bcd_24, &regs, NULL), -GCLK_RANGE);
}

GCLK_TEST(calendar, registers_round_trip)
{
	for (uint64_t i = 0; i < N_RANDOM; i++) {
		struct gclk_rtc_format format = { gclk_random() & 1, gclk_random() & 1,
						  gclk_random() & 1,
						  1900 + (int)(i % 300) };
		int32_t year = format.has_century ? (int32_t)gclk_random_below(10000) :
						    format.window_year +
						    (int32_t)gclk_random_below(100);
		int64_t day = gclk_days_from_civil(year, 1, 1) +
			      (int64_t)gclk_random_below(365);
		int64_t seconds = day * DAY + (int64_t)gclk_random_below(86400);
		struct gclk_rtc_registers regs;
		struct gclk_civil civil, back;

		REQUIRE(gclk_civil_from_seconds(seconds, &civil) == 0 &&
				civil.year == year,
			"%" PRId64, seconds);
		REQUIRE(gclk_rtc_encode(&civil, &format, &regs, NULL) == 0, "%d", year);
		REQUIRE(gclk_rtc_decode(&regs, &format, &back, NULL) == 0 &&
			gclk_seconds_from_civil(&back) == seconds, "%" PRId64, seconds);
		REQUIRE(regs.weekday == gclk_weekday_from_days(day) + 1, "%" PRId64, day);
	}
}

GCLK_TEST(calendar, register_refusals)
{
	static const struct {
		struct gclk_rtc_registers regs;
		int status;
		const char *where;
	} rows[] = {
		{ { 0x6a, 0, 0, 1, 1, 1, 0, 0x20 }, GCLK_MALFORMED, "rtc/second" },
		{ { 0x60, 0, 0, 1, 1, 1, 0, 0x20 }, GCLK_RANGE, "rtc/second" },
		{ { 0, 0xa0, 0, 1, 1, 1, 0, 0x20 }, GCLK_MALFORMED, "rtc/minute" },
		{ { 0, 0, 0x24, 1, 1, 1, 0, 0x20 }, GCLK_RANGE, "rtc/hour" },
		{ { 0, 0, 0, 1, 0, 1, 0, 0x20 }, GCLK_RANGE, "rtc/day" },
		{ { 0, 0, 0, 1, 1, 0x13, 0, 0x20 }, GCLK_RANGE, "rtc/month" },
		{ { 0, 0, 0, 1, 1, 1, 0x9a, 0x20 }, GCLK_MALFORMED, "rtc/year" },
		{ { 0, 0, 0, 1, 1, 1, 0, 0xff }, GCLK_MALFORMED, "rtc/century" },
		{ { 0, 0, 0, 1, 0x30, 2, 0x24, 0x20 }, GCLK_RANGE, "rtc/day" },
		{ { 0, 0, 0, 1, 0x29, 2, 0x23, 0x20 }, GCLK_RANGE, "rtc/day" },
	};

	for (size_t i = 0; i < GCLK_COUNT(rows); i++) {
		struct gclk_civil civil = { .year = 77 };
		struct gclk_error err = { 0 };

		GCLK_EQ(gclk_rtc_decode(&rows[i].regs, &bcd_24, &civil, &err),
			-rows[i].status);
		CU_ASSERT_STRING_EQUAL(err.where, rows[i].where);
		CU_ASSERT(err.message[0] != '\0');
		GCLK_EQ(civil.year, 77);
	}
}
