/* SPDX-License-Identifier: MIT */
/*
 * The proleptic Gregorian calendar, and how an MC146818 keeps it in registers.
 *
 * A day number counts days since 1970-01-01. Years are astronomical: 0 is 1 BC.
 */
#ifndef GCLK_CORE_CALENDAR_H
#define GCLK_CORE_CALENDAR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

struct gclk_civil {
	int32_t year;
	uint8_t month;		/* 1..12 */
	uint8_t day;		/* 1..31 */
	uint8_t hour;		/* 0..23 */
	uint8_t minute;		/* 0..59 */
	uint8_t second;		/* 0..59: no clock here knows leap seconds */
};

bool gclk_is_leap_year(int32_t year);

/* 28..31; 0 for a month outside 1..12. */
unsigned gclk_days_in_month(int32_t year, unsigned month);

/* Whether the date exists and the time is within a day; any year. */
bool gclk_civil_is_valid(const struct gclk_civil *civil);

/* The day number of a date; month 1..12, day 1..31 (it may run over the month's end). */
int64_t gclk_days_from_civil(int32_t year, unsigned month, unsigned day);

/* The date of a day number; hour, minute and second are 0. |days| <= 7 * 10^11. */
struct gclk_civil gclk_civil_from_days(int64_t days);

/* 0 is Sunday, 6 Saturday. An MC146818 counts them from 1. */
unsigned gclk_weekday_from_days(int64_t days);

/* Seconds since 1970-01-01T00:00:00 on the same clock, for a valid date; and back. */
int64_t gclk_seconds_from_civil(const struct gclk_civil *civil);

/* Errors: GCLK_RANGE where the year does not fit 32 bits. */
int gclk_civil_from_seconds(int64_t seconds, struct gclk_civil *ret);

/* Packed decimal. */
static inline bool gclk_bcd_is_valid(uint8_t bcd)
{
	return (bcd & 0x0f) <= 9 && bcd >> 4 <= 9;
}

static inline uint8_t gclk_bcd_to_binary(uint8_t bcd)
{
	return (uint8_t)((bcd >> 4) * 10 + (bcd & 0x0f));
}

/* @n 0..99. */
static inline uint8_t gclk_bcd_from_binary(uint8_t n)
{
	return (uint8_t)(n / 10 << 4 | n % 10);
}

/*
 * How the registers are to be read: register B's bits 2 and 1, and where the century is.
 * Without a century register the year is the one of the hundred from @window_year on
 * that ends in the register's two digits.
 */
struct gclk_rtc_format {
	bool binary;		/* B bit 2; otherwise BCD */
	bool hours_24;		/* B bit 1; otherwise 1..12 with bit 7 for PM */
	bool has_century;	/* CMOS 0x32 (or 0x37) is kept */
	int32_t window_year;	/* used without has_century: 1970 is usual */
};

#define GCLK_RTC_HOUR_PM 0x80

/* Registers 0, 2, 4, 6, 7, 8, 9 and the century byte, as they stand. */
struct gclk_rtc_registers {
	uint8_t second, minute, hour;
	uint8_t weekday;	/* 1..7, Sunday is 1 */
	uint8_t day, month, year, century;
};

/**
 * gclk_rtc_byte_decode() - one register other than hours, within limits
 * @raw:	the register
 * @format:	how to read it
 * @low:	least valid value
 * @high:	greatest valid value
 * @ret:	the value
 *
 * Errors: GCLK_MALFORMED for invalid BCD, GCLK_RANGE outside the limits
 */
int gclk_rtc_byte_decode(uint8_t raw, const struct gclk_rtc_format *format, uint8_t low,
			 uint8_t high, uint8_t *ret);

/* @value 0..99. */
uint8_t gclk_rtc_byte_encode(uint8_t value, const struct gclk_rtc_format *format);

/* Hours: 12 AM is hour 0, 12 PM hour 12. Errors: as above. */
int gclk_rtc_hour_decode(uint8_t raw, const struct gclk_rtc_format *format,
			 uint8_t *ret_hour);
uint8_t gclk_rtc_hour_encode(uint8_t hour, const struct gclk_rtc_format *format);

/* Whether an alarm byte matches anything: bits 7 and 6 both set. */
static inline bool gclk_rtc_alarm_is_any(uint8_t raw)
{
	return (raw & 0xc0) == 0xc0;
}

/**
 * gclk_rtc_decode() - what time the registers show
 * @regs:	the registers
 * @format:	how to read them
 * @ret:	the date and time, a valid one
 *
 * The weekday is not looked at: it is a free-running counter that software may have set
 * to anything.
 *
 * Errors: GCLK_MALFORMED for invalid BCD, GCLK_RANGE for a value or a date that does not
 *         exist; where names the register
 */
int gclk_rtc_decode(const struct gclk_rtc_registers *regs,
		    const struct gclk_rtc_format *format, struct gclk_civil *ret,
		    struct gclk_error *reterr);

/**
 * gclk_rtc_encode() - the registers for a time
 * @civil:	a valid date
 * @format:	how to write it; without has_century the century byte is 0
 * @ret:	all registers, with the weekday of the date
 *
 * Errors: GCLK_RANGE where the date is not valid, or the year outside 0..9999 or outside
 *         the window
 */
int gclk_rtc_encode(const struct gclk_civil *civil, const struct gclk_rtc_format *format,
		    struct gclk_rtc_registers *ret, struct gclk_error *reterr);

#endif
