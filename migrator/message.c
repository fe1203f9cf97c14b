/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/text.h"
#include "core/util.h"
#include "migrator/message.h"

/* Length of the well-formed, printable UTF-8 character at @s; 0 if there is none. */
static unsigned printable(const unsigned char *s)
{
	unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (n == 1) {
		return s[0] >= 0x20 && s[0] != 0x7f;
	}
	for (unsigned i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) {	/* the end of the text is none, either */
			return 0;
		}
	}
	/* C1 controls, and the marks that turn the direction of writing */
	if ((s[0] == 0xc2 && s[1] < 0xa0) ||
	    (s[0] == 0xe2 && s[1] == 0x80 && s[2] >= 0x8e && s[2] <= 0xae) ||
	    (s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9)) {
		return 0;
	}
	return gclk_text_is_utf8((const char *)s, n) ? n : 0;
}

/* Makes room for "..." behind the first @used bytes of a buffer that is full. */
static void cut(char *to, size_t size, size_t used)
{
	while (used && used + 4 > size) {
		do {
			used--;
		} while (used && ((unsigned char)to[used] & 0xc0) == 0x80);
	}
	if (used + 4 <= size) {
		memcpy(to + used, "...", 3);
		used += 3;
	}
	to[used] = 0;
}

char *clean_text(char *to, size_t size, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t used = 0;

	while (*s) {
		unsigned n = printable(s), step = GCLK_MAX(n, 1u);

		if (used + step + 1 > size) {
			cut(to, size, used);
			return to;
		}
		if (n) {
			memcpy(to + used, s, n);
		} else {
			to[used] = '?';
		}
		used += step;
		s += step;
	}
	to[used] = 0;
	return to;
}

void put_text(FILE *to, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned n = printable(s);

		if (n == 0) {
			fputc('?', to);
			s++;
			continue;
		}
		fwrite(s, 1, n, to);
		s += n;
	}
}

static void end_sentence(const char *text)
{
	size_t n = strlen(text);

	if (n == 0 || !strchr(".!?", text[n - 1])) {
		fputc('.', stderr);
	}
}

void say_no_memory(void)
{
	message("error", NULL, gclk_status_name(GCLK_NOMEM), EFFECT_CHANGED,
		"guestclock inspect FILE",
		"no memory for the whole answer; what it tells of has been done, "
		"`guestclock undo` takes a rewriting back");
}

/* Standard error goes to the journal, which takes priorities: sd-daemon(3). */
static bool goes_to_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static const char *priority(const char *severity)
{
	if (!goes_to_journal()) {
		return "";
	}
	return !strcmp(severity, "error") ? "<3>" : !strcmp(severity, "warning") ? "<4>" : "<6>";
}

static atomic_uint n_errors;

unsigned errors_said(void)
{
	return atomic_load(&n_errors);
}

static void emit(const char *severity, const char *file, const char *id,
		 enum effect effect, const char *try, const char *sentence)
{
	atomic_fetch_add(&n_errors, !strcmp(severity, "error"));
	fflush(stdout);
	flockfile(stderr); /* a line of another thread's comes before it or after it */
	fprintf(stderr, "%sguestclock: %s: ", priority(severity), severity);
	if (file) {
		put_text(stderr, strcmp(file, "-") ? file : "standard input");
		fputs(": ", stderr);
	}
	if (id) {
		fprintf(stderr, "%s: ", id);
	}
	put_text(stderr, sentence);
	end_sentence(sentence);
	if (effect == EFFECT_NONE) {
		fputs(" Nothing was changed.", stderr);
	}
	if (try) {
		fputs(" Try: ", stderr);
		put_text(stderr, try);
	} else if (id && effect != EFFECT_READING) {
		fprintf(stderr, " Try: guestclock explain %s", id);
	}
	fputc('\n', stderr);
	funlockfile(stderr);
}

void message(const char *severity, const char *file, const char *id, enum effect effect,
	     const char *try, const char *format, ...)
{
	char sentence[768];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	emit(severity, file, id, effect, try, sentence);
}

int fail(const char *file, const struct gclk_error *error, enum effect effect,
	 const char *try)
{
	char at[64] = "", sentence[768];
	const char *reason = error->sys_errno ? strerror(error->sys_errno) : NULL;
	const char *where = file && !strcmp(error->where, file) ? "" : error->where;

	if (error->offset != GCLK_ERROR_NO_OFFSET) {
		snprintf(at, sizeof(at), "%sat byte %" PRIu64, where[0] ? " " : "",
			 error->offset);
	}
	/* the reason may be in the message already */
	if (reason && strstr(error->message, reason)) {
		reason = NULL;
	}
	snprintf(sentence, sizeof(sentence), "%s%s%s%s%s%s", where, at,
		 where[0] || at[0] ? ": " : "", error->message, reason ? ": " : "",
		 reason ? reason : "");
	emit("error", file, gclk_status_name(error->status), effect, try, sentence);
	return error->status;
}

int usage_error(const char *verb, const char *format, ...)
{
	char sentence[768], try[64];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	snprintf(try, sizeof(try), "guestclock %s%s--help", verb ? verb : "",
		 verb ? " " : "");
	emit("error", NULL, gclk_status_name(GCLK_USAGE), EFFECT_NONE, try, sentence);
	return GCLK_USAGE;
}

static bool is_plain(const char *argument)
{
	for (const char *s = argument; *s; s++) {
		if (!isalnum((unsigned char)*s) && !strchr("._-/+=:,@%", *s)) {
			return false;
		}
	}
	return *argument != 0;
}

char *shell_quote(char *to, size_t size, const char *argument)
{
	size_t used = 0;

	if (is_plain(argument)) {
		snprintf(to, size, "%s", argument);
		return to;
	}
	to[used++] = '\'';
	for (const char *s = argument; *s && used + 7 < size; s++) {
		if (*s == '\'') {
			memcpy(to + used, "'\\''", 4);
			used += 4;
		} else {
			to[used++] = *s;
		}
	}
	to[used++] = '\'';
	to[used] = 0;
	return to;
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
}

#define PROGRESS_AFTER_NS GCLK_NS_PER_S
#define PROGRESS_EVERY_NS (100 * GCLK_NS_PER_MS)
#define PROGRESS_WIDTH 40

static void draw(const struct progress *p, uint64_t done, uint64_t total)
{
	char bar[PROGRESS_WIDTH + 1];
	long long ms = (p->shown_ns - p->started_ns) / GCLK_NS_PER_MS;
	uint64_t mib = done >> 20, rate = mib * 1000 / (uint64_t)(ms > 0 ? ms : 1);

	if (!total) {
		fprintf(stderr, "\r%" PRIu64 " MiB, %" PRIu64 " MiB/s   ", mib, rate);
		return;
	}
	for (unsigned i = 0; i < PROGRESS_WIDTH; i++) {
		bar[i] = i < (unsigned)((gclk_u128)done * PROGRESS_WIDTH / total) ? '#'
										  : '.';
	}
	bar[PROGRESS_WIDTH] = 0;
	fprintf(stderr,
		"\r[%s] %3u %%  %" PRIu64 " of %" PRIu64 " MiB, %" PRIu64 " MiB/s   ",
		bar, (unsigned)((gclk_u128)done * 100 / total), mib, total >> 20, rate);
}

/* Shown on a terminal only, and only once the pass has taken longer than a second. */
int progress_step(void *progress, uint64_t done, uint64_t total)
{
	struct progress *p = progress;
	long long now = now_ns();

	if (p->started_ns == 0) {
		p->started_ns = now;
	}
	if (now - p->started_ns < PROGRESS_AFTER_NS ||
	    now - p->shown_ns < PROGRESS_EVERY_NS) {
		return 0;
	}
	if (!p->visible && !isatty(STDERR_FILENO)) {
		return 0;
	}
	p->visible = true;
	p->shown_ns = now;
	draw(p, done, total);
	return 0;
}

void progress_end(struct progress *p)
{
	if (p->visible) {
		fputs("\r\033[K", stderr);
	}
	memset(p, 0, sizeof(*p));
}
