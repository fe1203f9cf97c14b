/* SPDX-License-Identifier: MIT */
/*
 * What goes to standard error, and how the command ends. Results go to standard
 * output; everything else comes through here, in one form, on one line:
 *
 *	guestclock: error: FILE: ID: sentence with numbers. Nothing was changed.
 *	Try: COMMAND
 *
 * Where that is the journal (JOURNAL_STREAM), its priority comes first: "<3>".
 */
#ifndef GCLK_MIGRATOR_MESSAGE_H
#define GCLK_MIGRATOR_MESSAGE_H

#include <stdbool.h>
#include <stdio.h>

#include <guestclock/error.h>

/* Did anything change before the failure? */
enum effect {
	EFFECT_NONE,	/* "Nothing was changed." */
	EFFECT_CHANGED, /* the message itself says what, and how to take it back */
	EFFECT_READING, /* of a warning or a note: not worth a sentence */
};

/*
 * Text from images and files may hold anything. Control characters and broken
 * UTF-8 come out as '?', so that no guest can write to a terminal.
 */
void put_text(FILE *to, const char *text);

/* The same into a buffer; cut with "..." where it does not fit. Returns @to. */
char *clean_text(char *to, size_t size, const char *text);

/*
 * One message. @severity is "error", "warning" or "note"; @file and @id may be NULL;
 * an error without @try points to the explanation of its @id. The sentence needs no
 * final full stop.
 */
void message(const char *severity, const char *file, const char *id, enum effect effect,
	     const char *try, const char *format, ...)
	__attribute__((format(printf, 6, 7)));

/* How many errors have been reported. */
unsigned errors_said(void);

/* Memory ended while an answer was made: what a verb does to files it has done before. */
void say_no_memory(void);

/**
 * fail() - report an error of the libraries
 * @file:	what was being worked on, or NULL
 * @try:	a command that leads further, or NULL
 *
 * Returns the exit code.
 */
int fail(const char *file, const struct gclk_error *error, enum effect effect,
	 const char *try);

/* Wrong use of the command itself; @verb may be NULL. Returns GCLK_USAGE. */
int usage_error(const char *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * An argument as a shell would have to be given it: quoted where it must be.
 * Returns @to; what does not fit is cut.
 */
char *shell_quote(char *to, size_t size, const char *argument);

/* A progress bar on standard error, for struct gclk_image_options: see message.c. */
struct progress {
	long long started_ns, shown_ns;
	bool visible;
};
int progress_step(void *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

#endif
