/* SPDX-License-Identifier: MIT */
/*
 * Days are counted in years that begin on 1 March: the leap day is then the last day of
 * its year, and the first day of month m (0 is March) is day (153 m + 2) / 5 of it,
 * because the lengths 31 30 31 30 31 repeat every five months, 153 days. 400 years, an
 * era, have 146097 days always.
 */
#include "core/calendar.h"

#include <stddef.h>

#define DAYS_PER_ERA 146097
#define EPOCH_FROM_ERA_0 719468		/* 0000-03-01 to 1970-01-01 */
#define SECONDS_PER_DAY 86400
#define MARCH 3

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static int64_t floor_mod(int64_t a, int64_t b)
{
	int64_t rest = a % b;

	return rest < 0 ? rest + b : rest;
}

bool gclk_is_leap_year(int32_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

unsigned gclk_days_in_month(int32_t year, unsigned month)
{
	static const uint8_t days[13] = {
		0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31,
	};

	if (month > 12) {
		return 0;
	}
	return days[month] + (month == 2 && gclk_is_leap_year(year));
}

bool gclk_civil_is_valid(const struct gclk_civil *civil)
{
	return civil->day >= 1 &&
	       civil->day <= gclk_days_in_month(civil->year, civil->month) &&
	       civil->hour < 24 && civil->minute < 60 && civil->second < 60;
}

int64_t gclk_days_from_civil(int32_t year, unsigned month, unsigned day)
{
	int64_t march_year = (int64_t)year - (month < MARCH);
	int64_t era = floor_div(march_year, 400), year_of_era = march_year - era * 400;
	unsigned day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
	int64_t leap_days = year_of_era / 4 - year_of_era / 100;

	return era * DAYS_PER_ERA + year_of_era * 365 + leap_days + day_of_year -
	       EPOCH_FROM_ERA_0;
}

/*
 * The year of an era: taking out the leap days before a day (one in 1460 days, but not
 * one in 36524, and again one on the last day of all) leaves a plain count of 365.
 */
struct gclk_civil gclk_civil_from_days(int64_t days)
{
	int64_t shifted = days + EPOCH_FROM_ERA_0, era = floor_div(shifted, DAYS_PER_ERA);
	unsigned day_of_era = (unsigned)(shifted - era * DAYS_PER_ERA);
	unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
				day_of_era / (DAYS_PER_ERA - 1)) / 365;
	unsigned day_of_year = day_of_era -
			       (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	unsigned march_month = (5 * day_of_year + 2) / 153;
	unsigned month = (march_month + 2) % 12 + 1;

	return (struct gclk_civil){
		.year = (int32_t)(era * 400 + year_of_era + (month < MARCH)),
		.month = (uint8_t)month,
		.day = (uint8_t)(day_of_year - (153 * march_month + 2) / 5 + 1),
	};
}

unsigned gclk_weekday_from_days(int64_t days)
{
	return (unsigned)floor_mod(days + 4, 7);	/* 1970-01-01 was a Thursday */
}

int64_t gclk_seconds_from_civil(const struct gclk_civil *civil)
{
	int64_t days = gclk_days_from_civil(civil->year, civil->month, civil->day);

	return days * SECONDS_PER_DAY + civil->hour * 3600 + civil->minute * 60 +
	       civil->second;
}

int gclk_civil_from_seconds(int64_t seconds, struct gclk_civil *ret)
{
	int64_t days = floor_div(seconds, SECONDS_PER_DAY);
	unsigned second = (unsigned)floor_mod(seconds, SECONDS_PER_DAY);

	if (days < gclk_days_from_civil(INT32_MIN, 1, 1) ||
	    days > gclk_days_from_civil(INT32_MAX, 12, 31)) {
		return -GCLK_RANGE;
	}
	*ret = gclk_civil_from_days(days);
	ret->hour = (uint8_t)(second / 3600);
	ret->minute = (uint8_t)(second / 60 % 60);
	ret->second = (uint8_t)(second % 60);
	return 0;
}

int gclk_rtc_byte_decode(uint8_t raw, const struct gclk_rtc_format *format, uint8_t low,
			 uint8_t high, uint8_t *ret)
{
	uint8_t value = format->binary ? raw : gclk_bcd_to_binary(raw);

	if (!format->binary && !gclk_bcd_is_valid(raw)) {
		return -GCLK_MALFORMED;
	}
	if (value < low || value > high) {
		return -GCLK_RANGE;
	}
	*ret = value;
	return 0;
}

uint8_t gclk_rtc_byte_encode(uint8_t value, const struct gclk_rtc_format *format)
{
	return format->binary ? value : gclk_bcd_from_binary(value);
}

int gclk_rtc_hour_decode(uint8_t raw, const struct gclk_rtc_format *format,
			 uint8_t *ret_hour)
{
	uint8_t hour;
	int r;

	if (format->hours_24) {
		return gclk_rtc_byte_decode(raw, format, 0, 23, ret_hour);
	}
	r = gclk_rtc_byte_decode(raw & (uint8_t)~GCLK_RTC_HOUR_PM, format, 1, 12, &hour);
	if (r < 0) {
		return r;
	}
	*ret_hour = hour % 12 + (raw & GCLK_RTC_HOUR_PM ? 12 : 0);
	return 0;
}

uint8_t gclk_rtc_hour_encode(uint8_t hour, const struct gclk_rtc_format *format)
{
	uint8_t half = hour % 12;

	if (format->hours_24) {
		return gclk_rtc_byte_encode(hour, format);
	}
	return gclk_rtc_byte_encode(half ? half : 12, format) |
	       (hour >= 12 ? GCLK_RTC_HOUR_PM : 0);
}

/* The year that ends in @two_digits, of the hundred that begins with @window. */
static int32_t year_in_window(int32_t window, uint8_t two_digits)
{
	return (int32_t)(window + floor_mod((int64_t)two_digits - window, 100));
}

static uint8_t last_two_digits(int32_t year)
{
	return (uint8_t)floor_mod(year, 100);
}

/* Whether decoding what encoding writes gives the year again. */
static bool year_fits(int32_t year, const struct gclk_rtc_format *format)
{
	if (format->has_century) {
		return year >= 0 && year <= 9999;
	}
	return year_in_window(format->window_year, last_two_digits(year)) == year;
}

static int decode_date(const struct gclk_rtc_registers *regs,
		       const struct gclk_rtc_format *format, struct gclk_civil *civil,
		       const char **ret_where)
{
	uint8_t year, century;
	int r;

	*ret_where = "rtc/day";
	r = gclk_rtc_byte_decode(regs->day, format, 1, 31, &civil->day);
	if (r < 0) {
		return r;
	}
	*ret_where = "rtc/month";
	r = gclk_rtc_byte_decode(regs->month, format, 1, 12, &civil->month);
	if (r < 0) {
		return r;
	}
	*ret_where = "rtc/year";
	r = gclk_rtc_byte_decode(regs->year, format, 0, 99, &year);
	if (r < 0) {
		return r;
	}
	if (!format->has_century) {
		civil->year = year_in_window(format->window_year, year);
		return 0;
	}
	*ret_where = "rtc/century";
	r = gclk_rtc_byte_decode(regs->century, format, 0, 99, &century);
	civil->year = r < 0 ? 0 : century * 100 + year;
	return r;
}

static int decode_time(const struct gclk_rtc_registers *regs,
		       const struct gclk_rtc_format *format, struct gclk_civil *civil,
		       const char **ret_where)
{
	int r;

	*ret_where = "rtc/second";
	r = gclk_rtc_byte_decode(regs->second, format, 0, 59, &civil->second);
	if (r < 0) {
		return r;
	}
	*ret_where = "rtc/minute";
	r = gclk_rtc_byte_decode(regs->minute, format, 0, 59, &civil->minute);
	if (r < 0) {
		return r;
	}
	*ret_where = "rtc/hour";
	return gclk_rtc_hour_decode(regs->hour, format, &civil->hour);
}

int gclk_rtc_decode(const struct gclk_rtc_registers *regs,
		    const struct gclk_rtc_format *format, struct gclk_civil *ret,
		    struct gclk_error *reterr)
{
	struct gclk_civil civil = { 0 };
	const char *where;
	int r = decode_time(regs, format, &civil, &where);

	if (r == 0) {
		r = decode_date(regs, format, &civil, &where);
	}
	if (r < 0) {
		return gclk_fail(reterr, (enum gclk_status)-r, where, GCLK_NO_OFFSET,
				 r == -GCLK_MALFORMED ? "the register is not BCD" :
							"the register is out of range");
	}
	if (!gclk_civil_is_valid(&civil)) {
		return gclk_fail(reterr, GCLK_RANGE, "rtc/day", GCLK_NO_OFFSET,
				 "month %u of %d has no day %u", civil.month, civil.year,
				 civil.day);
	}
	*ret = civil;
	return 0;
}

int gclk_rtc_encode(const struct gclk_civil *civil, const struct gclk_rtc_format *format,
		    struct gclk_rtc_registers *ret, struct gclk_error *reterr)
{
	int64_t days;

	if (!gclk_civil_is_valid(civil)) {
		return gclk_fail(reterr, GCLK_RANGE, "rtc", GCLK_NO_OFFSET,
				 "the date or the time does not exist");
	}
	if (!year_fits(civil->year, format)) {
		return gclk_fail(reterr, GCLK_RANGE, "rtc/year", GCLK_NO_OFFSET,
				 "the registers cannot hold the year %d", civil->year);
	}
	days = gclk_days_from_civil(civil->year, civil->month, civil->day);
	*ret = (struct gclk_rtc_registers){
		.second = gclk_rtc_byte_encode(civil->second, format),
		.minute = gclk_rtc_byte_encode(civil->minute, format),
		.hour = gclk_rtc_hour_encode(civil->hour, format),
		.weekday = (uint8_t)(gclk_weekday_from_days(days) + 1),
		.day = gclk_rtc_byte_encode(civil->day, format),
		.month = gclk_rtc_byte_encode(civil->month, format),
		.year = gclk_rtc_byte_encode(last_two_digits(civil->year), format),
	};
	if (format->has_century) {
		ret->century = gclk_rtc_byte_encode((uint8_t)(civil->year / 100), format);
	}
	return 0;
}
