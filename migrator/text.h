/* SPDX-License-Identifier: MIT */
/* Text for people: numbers with their units, aligned columns, colour on a terminal. */
#ifndef GCLK_MIGRATOR_TEXT_H
#define GCLK_MIGRATOR_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <guestclock/plan.h>

#include "migrator/options.h"

/* Decides about colour and characters for this run; call once, after the options. */
void text_setup(enum color color);

/* Escape sequences; empty strings where there is no colour. */
enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_RED, STYLE_YELLOW, STYLE_GREEN };
const char *style(enum style style);
enum style severity_style(unsigned severity);

/* The sign of an uncertainty: "±" where the locale is UTF-8, else "+-". */
const char *plus_minus(void);

#define TEXT_BYTES 96

/*
 * Each writes into @to and returns it.
 *
 *	text_count	"4 512 345 678"
 *	text_signed	the same with a sign, always
 *	text_span	exact: "2h13min7.000000001s"
 *	text_approx	three digits, rounded: "3.21 ms", "2 h 13 min"; negative too
 *	text_hz		exact: "2.000000123 GHz", "1.193182 MHz", "18.2 Hz"; of @hz / @den
 *	text_instant	RFC 3339 in UTC, as many decimals as @uncertainty_ns makes worth
 *	text_local	"14:26:48.125 (CET)", the local time of day; with the date if
 *			it is not that of @now_ns
 *	text_uncertain	"±1.2 ms", "±unbounded"; rounded up: it is a bound
 */
char *text_count(char to[TEXT_BYTES], uint64_t n);
char *text_signed(char to[TEXT_BYTES], int64_t n);
char *text_span(char to[TEXT_BYTES], int64_t ns);
char *text_approx(char to[TEXT_BYTES], int64_t ns);
char *text_hz(char to[TEXT_BYTES], uint64_t hz, uint64_t den);
char *text_instant(char to[TEXT_BYTES], int64_t ns, uint64_t uncertainty_ns);
char *text_local(char to[TEXT_BYTES], int64_t ns, int64_t now_ns);
char *text_uncertain(char to[TEXT_BYTES], uint64_t ns);

/* Cells on a terminal that a text takes. */
unsigned text_width(const char *text);
/* The terminal's width, 80 where there is none. */
unsigned text_columns(void);

/*
 * A table: columns as wide as their widest cell, two blanks between them, the last
 * column without padding. Cells are copied. A column whose heading begins with '>'
 * is flush right.
 */
#define TABLE_COLUMNS 8
struct table {
	unsigned n_columns, n_rows, max_rows;
	bool no_memory;
	char **cells;
};
void table_begin(struct table *table, unsigned n_columns, const char *const headings[]);
/* @n_columns texts follow; NULL is an empty cell. */
void table_row(struct table *table, ...);
/* Prints and frees. A table without rows prints nothing. Returns 0 or GCLK_NOMEM. */
int table_end(struct table *table, FILE *to);

/* Words filled into lines of the terminal's width, all but the first indented. */
void put_filled(FILE *to, unsigned indent, const char *text);

#endif
