/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/text.h"

static bool colored, utf8;

static bool wants_color(enum color color)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	if (color != COLOR_AUTO) {
		return color == COLOR_ALWAYS;
	}
	return isatty(STDOUT_FILENO) && !(no_color && *no_color) && term &&
	       strcmp(term, "dumb");
}

/* As setlocale() would see it, without the cost of loading a locale. */
static bool locale_is_utf8(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

	for (unsigned i = 0; i < GCLK_COUNT(names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value) {
			return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
		}
	}
	return false;
}

void text_setup(enum color color)
{
	colored = wants_color(color);
	utf8 = locale_is_utf8();
}

const char *style(enum style style)
{
	static const char *const sequences[] = {
		[STYLE_PLAIN] = "\033[0m",   [STYLE_BOLD] = "\033[1m",
		[STYLE_DIM] = "\033[2m",     [STYLE_RED] = "\033[1;31m",
		[STYLE_YELLOW] = "\033[33m", [STYLE_GREEN] = "\033[32m",
	};

	return colored ? sequences[style] : "";
}

enum style severity_style(unsigned severity)
{
	return severity == GCLK_ERROR	  ? STYLE_RED
	       : severity == GCLK_WARNING ? STYLE_YELLOW
					  : STYLE_DIM;
}

const char *plus_minus(void)
{
	return utf8 ? "\xc2\xb1" : "+-";
}

/* Digits in groups of three: at most 27 bytes. */
static void group(char *to, uint64_t n)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, n);
	char *p = to;

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0) {
			*p++ = ' ';
		}
		*p++ = digits[i];
	}
	*p = 0;
}

char *text_count(char to[TEXT_BYTES], uint64_t n)
{
	group(to, n);
	return to;
}

char *text_signed(char to[TEXT_BYTES], int64_t n)
{
	to[0] = n < 0 ? '-' : '+';
	group(to + 1, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
	return to;
}

char *text_span(char to[TEXT_BYTES], int64_t ns)
{
	return gclk_duration_format(ns, to);
}

/* @n/@unit with three digits: "3.21", "32.1", "321". */
static void three_digits(char *to, size_t size, uint64_t n, uint64_t unit)
{
	uint64_t whole = n / unit, rest = n % unit;

	if (unit == 1 || whole >= 100) {
		snprintf(to, size, "%" PRIu64, whole);
	} else if (whole >= 10) {
		snprintf(to, size, "%" PRIu64 ".%" PRIu64, whole, rest / (unit / 10));
	} else {
		snprintf(to, size, "%" PRIu64 ".%02" PRIu64, whole, rest / (unit / 100));
	}
}

#define S_NS ((uint64_t)GCLK_NS_PER_S)

/* What text_approx() shows of so much: whole hours of days, ..., or three digits. */
static uint64_t shown_step(uint64_t ns)
{
	uint64_t step = 1, s = ns / S_NS;

	if (s >= 120) {
		return S_NS * (s >= 86400 ? 3600 : s >= 3600 ? 60 : 1);
	}
	while (ns / step >= 1000) {
		step *= 10;
	}
	return step;
}

static char *approx(char to[TEXT_BYTES], const char *sign, uint64_t ns)
{
	static const struct {
		uint64_t ns;
		const char *name;
	} units[] = { { S_NS, "s" }, { 1000000, "ms" }, { 1000, "us" }, { 1, "ns" } };
	uint64_t s = ns / S_NS;
	char number[32];
	unsigned i = 0;

	if (s >= 86400) {
		snprintf(to, TEXT_BYTES, "%s%" PRIu64 " d %" PRIu64 " h", sign, s / 86400,
			 s % 86400 / 3600);
	} else if (s >= 3600) {
		snprintf(to, TEXT_BYTES, "%s%" PRIu64 " h %" PRIu64 " min", sign, s / 3600,
			 s % 3600 / 60);
	} else if (s >= 120) {
		snprintf(to, TEXT_BYTES, "%s%" PRIu64 " min %" PRIu64 " s", sign, s / 60, s % 60);
	} else {
		while (i < 3 && ns < units[i].ns) {
			i++;
		}
		three_digits(number, sizeof(number), ns, units[i].ns);
		snprintf(to, TEXT_BYTES, "%s%s %s", sign, number, units[i].name);
	}
	return to;
}

char *text_approx(char to[TEXT_BYTES], int64_t ns)
{
	uint64_t n = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	uint64_t step = shown_step(n);

	return approx(to, ns < 0 ? "-" : "", (n + step / 2) / step * step);
}

char *text_hz(char to[TEXT_BYTES], uint64_t hz, uint64_t den)
{
	static const char *const names[] = { "Hz", "kHz", "MHz", "GHz" };
	gclk_u128 unit = den ? den : 1;
	unsigned i = 0;
	char digits[16];
	uint64_t rest;

	while (i < 3 && hz >= unit * 1000) {
		unit *= 1000;
		i++;
	}
	rest = (uint64_t)((gclk_u128)(hz % unit) * 1000000000 / unit);
	snprintf(digits, sizeof(digits), "%09" PRIu64, rest);
	for (int d = 8; d >= 0 && digits[d] == '0'; d--) {
		digits[d] = 0;
	}
	snprintf(to, TEXT_BYTES, "%" PRIu64 "%s%s %s", (uint64_t)(hz / unit),
		 digits[0] ? "." : "", digits, names[i]);
	return to;
}

/* Decimals of a second that an uncertainty leaves worth reading: 0, 3, 6 or 9. */
static unsigned decimals_worth(uint64_t uncertainty_ns)
{
	return uncertainty_ns >= GCLK_NS_PER_S ? 0
	       : uncertainty_ns >= 1000000     ? 3
	       : uncertainty_ns >= 1000	       ? 6
					       : 9;
}

char *text_instant(char to[TEXT_BYTES], int64_t ns, uint64_t uncertainty_ns)
{
	char text[GCLK_REAL_TEXT_BYTES];
	unsigned decimals = decimals_worth(uncertainty_ns);
	size_t point;

	gclk_real_format(gclk_real_of_ns(ns), text);
	point = strcspn(text, ".");
	text[10] = ' ';
	snprintf(to, TEXT_BYTES, "%.*s UTC", (int)(point + (decimals ? decimals + 1 : 0)),
		 text);
	return to;
}

char *text_local(char to[TEXT_BYTES], int64_t ns, int64_t now_ns)
{
	int64_t below = ns % GCLK_NS_PER_S;
	time_t t = (time_t)(ns / GCLK_NS_PER_S - (below < 0));
	time_t now = (time_t)(now_ns / GCLK_NS_PER_S);
	struct tm tm = { 0 }, today = { 0 };
	char clock[32], zone[16];
	bool other_day;

	below += below < 0 ? GCLK_NS_PER_S : 0;
	localtime_r(&t, &tm);
	localtime_r(&now, &today);
	other_day = tm.tm_yday != today.tm_yday || tm.tm_year != today.tm_year;
	strftime(clock, sizeof(clock), other_day ? "%Y-%m-%d %H:%M:%S" : "%H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%Z", &tm);
	snprintf(to, TEXT_BYTES, "%s.%03d (%s)", clock, (int)(below / 1000000), zone);
	return to;
}

char *text_uncertain(char to[TEXT_BYTES], uint64_t ns)
{
	uint64_t n = GCLK_MIN(ns, (uint64_t)INT64_MAX), step = shown_step(n);

	if (ns == GCLK_UNBOUNDED) {
		snprintf(to, TEXT_BYTES, "%sunbounded", plus_minus());
		return to;
	}
	return approx(to, plus_minus(), (n + step - 1) / step * step);
}

/* One cell per character: bytes that continue one, and escape sequences, take none. */
unsigned text_width(const char *text)
{
	unsigned n = 0;

	for (; *text; text++) {
		if (*text == '\033') {
			text += strcspn(text, "m");
			if (!*text) {
				break;
			}
			continue;
		}
		n += (*(const unsigned char *)text & 0xc0) != 0x80;
	}
	return n;
}

unsigned text_columns(void)
{
	struct winsize size;

	if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
	    size.ws_col >= 40) {
		return size.ws_col;
	}
	return 80;
}

static void add_row(struct table *table, const char *const cells[])
{
	size_t at = (size_t)table->n_rows * table->n_columns;

	if (table->n_rows == table->max_rows) {
		unsigned max = table->max_rows ? 2 * table->max_rows : 16;
		char **more =
			realloc(table->cells, sizeof(*more) * max * table->n_columns);

		if (!more) {
			table->no_memory = true;
			return;
		}
		table->cells = more;
		table->max_rows = max;
	}
	for (unsigned i = 0; i < table->n_columns; i++) {
		table->cells[at + i] = strdup(cells[i] ? cells[i] : "");
		table->no_memory |= !table->cells[at + i];
	}
	table->n_rows++;
}

void table_begin(struct table *table, unsigned n_columns, const char *const headings[])
{
	memset(table, 0, sizeof(*table));
	table->n_columns = n_columns;
	add_row(table, headings);
}

void table_row(struct table *table, ...)
{
	const char *cells[TABLE_COLUMNS];
	va_list args;

	va_start(args, table);
	for (unsigned i = 0; i < table->n_columns; i++) {
		cells[i] = va_arg(args, const char *);
	}
	va_end(args);
	add_row(table, cells);
}

/* The cell without the mark of its heading. */
static const char *cell(const struct table *table, unsigned row, unsigned column)
{
	const char *text = table->cells[(size_t)row * table->n_columns + column];

	return row == 0 && text[0] == '>' ? text + 1 : text;
}

static bool flush_right(const struct table *table, unsigned column)
{
	return table->cells[column][0] == '>';
}

static void put_row(const struct table *table, unsigned row, const unsigned widths[],
		    FILE *to)
{
	unsigned last = table->n_columns;
	unsigned pending = 0;

	while (last > 0 && !*cell(table, row, last - 1)) {
		last--;
	}
	for (unsigned i = 0; i < last; i++) {
		const char *text = cell(table, row, i);
		unsigned padding = widths[i] - text_width(text);
		unsigned before = pending + (flush_right(table, i) ? padding : 0);

		fprintf(to, "%*s%s%s%s", (int)before, "", row ? "" : style(STYLE_DIM),
			text, row ? "" : style(STYLE_PLAIN));
		pending = 2 + (flush_right(table, i) ? 0 : padding);
	}
	fputc('\n', to);
}

int table_end(struct table *table, FILE *to)
{
	unsigned widths[TABLE_COLUMNS] = { 0 };
	bool no_memory = table->no_memory;

	for (unsigned row = 0; !no_memory && row < table->n_rows; row++) {
		for (unsigned i = 0; i < table->n_columns; i++) {
			widths[i] = GCLK_MAX(widths[i], text_width(cell(table, row, i)));
		}
	}
	for (unsigned row = 0; !no_memory && table->n_rows > 1 && row < table->n_rows;
	     row++) {
		put_row(table, row, widths, to);
	}
	for (size_t i = 0; i < (size_t)table->n_rows * table->n_columns; i++) {
		free(table->cells[i]);
	}
	free(table->cells);
	memset(table, 0, sizeof(*table));
	return no_memory ? GCLK_NOMEM : 0;
}

void put_filled(FILE *to, unsigned indent, const char *text)
{
	unsigned column = indent, columns = GCLK_MIN(text_columns(), 100u);
	char word[256];

	while (*text) {
		size_t n = strcspn(text, " ");
		unsigned width;

		snprintf(word, sizeof(word), "%.*s", (int)n, text);
		width = text_width(word);
		if (column > indent && column + 1 + width > columns) {
			fprintf(to, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', to);
			column++;
		}
		put_text(to, word);
		column += width;
		text += n;
		text += strspn(text, " ");
	}
	fputc('\n', to);
}
