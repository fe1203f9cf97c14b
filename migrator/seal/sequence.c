/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/output.h"
#include "migrator/seal/sequence.h"
#include "migrator/source.h"

#define LINES_MAX 4096
#define LINE_BYTES (64 + 1 + 32 + 1 + 20 + 1)
#define FILE_MAX ((size_t)LINES_MAX * LINE_BYTES)

struct line {
	struct sequence_key key;
	uint64_t sequence;
};

struct table {
	struct line *lines;	/* room for one more than LINES_MAX */
	size_t n;
};

/* ---- where ---- */

static int make_directories(char *path)
{
	for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
		*s = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST) {
			*s = '/';
			return -1;
		}
		*s = '/';
	}
	return 0;
}

const char *sequence_file(char *to, size_t size)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;

	if (state && state[0] == '/') {
		n = snprintf(to, size, "%s/guestclock/sequences", state);
	} else if (geteuid() == 0) {
		n = snprintf(to, size, "/var/lib/guestclock/sequences");
	} else if (home && home[0] == '/') {
		n = snprintf(to, size, "%s/.local/state/guestclock/sequences", home);
	} else {
		return NULL;
	}
	if (n < 0 || (size_t)n >= size) {
		return NULL;
	}
	make_directories(to);	/* if that fails so does what follows, and says so */
	return to;
}

/* ---- the table ---- */

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* @n bytes of hexadecimal digits; returns what follows, or NULL. */
static const char *take_hex(const char *s, uint8_t *to, size_t n)
{
	for (size_t i = 0; s && i < n; i++) {
		int high = digit(s[2 * i]), low = high < 0 ? -1 : digit(s[2 * i + 1]);

		if (low < 0) {
			return NULL;
		}
		to[i] = (uint8_t)(high << 4 | low);
	}
	return s ? s + 2 * n : NULL;
}

static const char *take_line(const char *s, struct line *to)
{
	char *end;

	s = take_hex(s, to->key.signer, sizeof(to->key.signer));
	s = s && *s == ' ' ? take_hex(s + 1, to->key.guest, sizeof(to->key.guest)) : NULL;
	if (!s || *s != ' ' || digit(s[1]) < 0 || digit(s[1]) > 9) {
		return NULL;
	}
	errno = 0;
	to->sequence = strtoull(s + 1, &end, 10);
	return errno || *end != '\n' ? NULL : end + 1;
}

static int parse(const char *text, size_t size, struct table *table, struct gclk_error *reterr)
{
	for (const char *s = text; s < text + size;) {
		s = table->n < LINES_MAX ? take_line(s, &table->lines[table->n]) : NULL;
		if (!s) {
			return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
					 "line %zu of the sequences is damaged; remove the file "
					 "to begin anew", table->n + 1);
		}
		table->n++;
	}
	return 0;
}

static int load(const char *path, struct table *table, struct gclk_error *reterr)
{
	char *text;
	size_t size;
	int r;

	table->n = 0;
	table->lines = calloc(LINES_MAX + 1, sizeof(*table->lines));
	if (!table->lines) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for the sequences");
	}
	if (access(path, F_OK) < 0 && errno == ENOENT) {
		return 0;
	}
	r = read_whole(path, FILE_MAX, &text, &size, reterr);
	if (r == 0) {
		r = parse(text, size, table, reterr);
		free(text);
	}
	return r;
}

static void drop(struct table *table)
{
	free(table->lines);
	table->lines = NULL;
}

static struct line *find(struct table *table, const struct sequence_key *key)
{
	for (size_t i = 0; i < table->n; i++) {
		if (!memcmp(&table->lines[i].key, key, sizeof(*key))) {
			return &table->lines[i];
		}
	}
	return NULL;
}

static int store(const char *path, const struct table *table, struct gclk_error *reterr)
{
	char *text = malloc(table->n * LINE_BYTES + 1), *s = text;
	int r;

	if (!text) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for the sequences");
	}
	for (size_t i = 0; i < table->n; i++) {
		const struct line *line = &table->lines[i];

		for (size_t j = 0; j < sizeof(line->key.signer); j++) {
			s += sprintf(s, "%02x", line->key.signer[j]);
		}
		*s++ = ' ';
		for (size_t j = 0; j < sizeof(line->key.guest); j++) {
			s += sprintf(s, "%02x", line->key.guest[j]);
		}
		s += sprintf(s, " %" PRIu64 "\n", line->sequence);
	}
	r = write_whole(path, text, (size_t)(s - text), reterr);
	free(text);
	return r;
}

/*
 * Of the signer who has most lines the first: one who seals for ever more guests pushes none
 * of a signer's out who has fewer. @of has one to come.
 */
static struct line *one_too_many(struct table *table, const struct sequence_key *of)
{
	const size_t size = sizeof(of->signer);
	struct line *worst = table->lines;
	size_t most = 0;

	for (size_t i = 0; i < table->n; i++) {
		const uint8_t *signer = table->lines[i].key.signer;
		size_t n = !memcmp(signer, of->signer, size);

		/* who was counted at an earlier line is so here with fewer */
		for (size_t j = i; j < table->n; j++) {
			n += !memcmp(table->lines[j].key.signer, signer, size);
		}
		if (n > most) {
			most = n;
			worst = &table->lines[i];
		}
	}
	return worst;
}

/* Puts @key last with its sequence. Whether another line had to go for it. */
static bool put_last(struct table *table, const struct sequence_key *key, uint64_t sequence)
{
	struct line *old = find(table, key), *end;
	bool forgets = !old && table->n == LINES_MAX;

	if (forgets) {
		old = one_too_many(table, key);
	}
	if (old) {
		end = table->lines + table->n;
		memmove(old, old + 1, (size_t)(end - (old + 1)) * sizeof(*old));
		table->n--;
	}
	table->lines[table->n++] = (struct line){ *key, sequence };
	return forgets;
}

/* ---- under the lock ---- */

static int lock(const char *path, int *ret_fd, struct gclk_error *reterr)
{
	char beside[PATH_MAX];
	int fd, n = snprintf(beside, sizeof(beside), "%s.lock", path);

	if (n < 0 || (size_t)n >= sizeof(beside)) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "the name of the sequences is too long");
	}
	fd = open(beside, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	while (fd >= 0 && flock(fd, LOCK_EX) < 0) {
		if (errno != EINTR) {
			int saved = errno;

			close(fd);
			errno = saved;
			fd = -1;
		}
	}
	if (fd < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the sequences cannot be locked");
	}
	*ret_fd = fd;
	return 0;
}

int sequence_largest(const char *path, const struct sequence_key *key, uint64_t *ret,
		     struct gclk_error *reterr)
{
	struct table table;
	int r = load(path, &table, reterr);

	if (r == 0) {
		const struct line *line = find(&table, key);

		*ret = line ? line->sequence : 0;
	}
	drop(&table);
	return r;
}

/* One step under the lock: @sequence as it is, or the next one from @floor on. */
static int step(const char *path, const struct sequence_key *key, int is_next, uint64_t floor,
		uint64_t *ret, struct gclk_error *reterr)
{
	struct table table;
	int r = load(path, &table, reterr);
	const struct line *line = r == 0 ? find(&table, key) : NULL;
	uint64_t last = line ? line->sequence : 0;
	bool forgets;

	if (r == 0 && is_next && last == UINT64_MAX) {
		r = gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
			      "the guest's sequence is at its end");
	}
	if (r == 0) {
		*ret = is_next ? GCLK_MAX(floor, last + 1) : GCLK_MAX(floor, last);
		forgets = put_last(&table, key, *ret);
		r = store(path, &table, reterr);
		r = r == 0 && forgets ? SEQUENCE_FORGOT : r;
	}
	drop(&table);
	return r;
}

static int locked_step(const char *path, const struct sequence_key *key, int is_next,
		       uint64_t floor, uint64_t *ret, struct gclk_error *reterr)
{
	int fd;
	int r = lock(path, &fd, reterr);

	if (r == 0) {
		r = step(path, key, is_next, floor, ret, reterr);
		close(fd);
	}
	return r;
}

int sequence_note(const char *path, const struct sequence_key *key, uint64_t sequence,
		  struct gclk_error *reterr)
{
	uint64_t kept;

	return locked_step(path, key, 0, sequence, &kept, reterr);
}

int sequence_take(const char *path, const struct sequence_key *key, uint64_t floor,
		  uint64_t *ret, struct gclk_error *reterr)
{
	return locked_step(path, key, 1, floor, ret, reterr);
}
