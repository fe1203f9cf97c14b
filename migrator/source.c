/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include <guestclock/seal.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/source.h"
#include "migrator/text.h"

#define BUNDLE_MAX_BYTES ((size_t)16 << 20)
#define JSON_MAX_BYTES ((size_t)4 << 20)
#define PEEK_BYTES 64

/* The first bytes of a pipe, left in it. */
static ssize_t peek_pipe(int fd, unsigned char *to, size_t size)
{
	int pipes[2];
	ssize_t n;

	if (pipe2(pipes, O_CLOEXEC) < 0) {
		return -1;
	}
	do {
		n = tee(fd, pipes[1], size, 0);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		n = read(pipes[0], to, size);
	}
	close(pipes[0]);
	close(pipes[1]);
	return n;
}

static ssize_t peek_fd(int fd, unsigned char *to, size_t size)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0) {
		return -1;
	}
	if (S_ISFIFO(st.st_mode)) {
		return peek_pipe(fd, to, size);
	}
	if (S_ISSOCK(st.st_mode)) {
		return recv(fd, to, size, MSG_PEEK);
	}
	do {
		n = pread(fd, to, size, fd == STDIN_FILENO ? lseek(fd, 0, SEEK_CUR) : 0);
	} while (n < 0 && errno == EINTR);
	return n;
}

/*
 * Opened more than once it would lose what had been read, or wait for ever for somebody who
 * writes. What the shell has opened (/dev/fd) is another thing, and is seen twice.
 */
static bool is_named_pipe(const char *path)
{
	struct statfs fs;
	struct stat st;

	return stat(path, &st) == 0 && S_ISFIFO(st.st_mode) && statfs(path, &fs) == 0 &&
	       fs.f_type != PIPEFS_MAGIC;
}

int source_begin(const char *path, unsigned char *to, size_t size, size_t *ret_n,
		 struct gclk_error *reterr)
{
	int fd = STDIN_FILENO;
	ssize_t n;

	if (strcmp(path, "-")) {
		if (is_named_pipe(path)) {
			return gclk_fail(reterr, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
					 "a named pipe cannot be opened twice; as standard input, - "
					 "< PIPE, it can be read");
		}
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0) {
			return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
					 "the file cannot be opened");
		}
	}
	n = peek_fd(fd, to, size);
	if (fd != STDIN_FILENO) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	if (n < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the beginning cannot be read");
	}
	*ret_n = (size_t)n;
	return 0;
}

static int read_fd(int fd, size_t max, char **ret, size_t *ret_size,
		   struct gclk_error *reterr)
{
	size_t used = 0, room = 0;
	char *bytes = NULL;

	for (;;) {
		ssize_t n;

		if (room - used < 2) {
			char *more;

			room = room ? 2 * room : 16384;
			more = realloc(bytes, room);
			if (!more) {
				free(bytes);
				return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
						 "no memory for %zu bytes", room);
			}
			bytes = more;
		}
		n = read(fd, bytes + used, room - used - 1);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0 || used + (size_t)n > max) {
			free(bytes);
			return n < 0 ? gclk_fail(reterr, GCLK_SYS, NULL, used,
						 "reading failed")
				     : gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
						 "more than %zu bytes", max);
		}
		if (n == 0) {
			break;
		}
		used += (size_t)n;
	}
	bytes[used] = 0;
	*ret = bytes;
	*ret_size = used;
	return 0;
}

int read_whole(const char *path, size_t max, char **ret, size_t *ret_size,
	       struct gclk_error *reterr)
{
	int fd, r;

	if (!strcmp(path, "-")) {
		return read_fd(STDIN_FILENO, max, ret, ret_size, reterr);
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "the file cannot be opened");
	}
	r = read_fd(fd, max, ret, ret_size, reterr);
	close(fd);
	return r;
}

/* What to open: messages have its name. */
static const char *way_to(const struct source *s)
{
	return s->held[0] ? s->held : s->path;
}

static int open_bundle(struct source *s, bool is_json, const struct gclk_worker *worker,
		       struct gclk_error *reterr)
{
	struct foreign_bundle bundle;
	char *bytes;
	size_t size;
	int r = read_whole(way_to(s), is_json ? JSON_MAX_BYTES : BUNDLE_MAX_BYTES, &bytes,
			   &size, reterr);

	if (r < 0) {
		return r;
	}
	r = is_json ? foreign_bundle_json(worker, bytes, size, &bundle, reterr)
		    : foreign_bundle(worker, bytes, size, &bundle, reterr);
	free(bytes);
	if (r < 0) {
		return r;
	}
	/* a rewriting is done to an image: a bundle that was taken from one is not it */
	s->provenance = bundle.provenance;
	s->host = bundle.host;
	s->state = s->own_state = bundle.state;
	s->format = "bundle";
	return s->state ? 0 : gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,
					"the bundle has no clock state");
}

/* Which of several snapshots is meant, the operator must say. */
static int list_snapshots(const struct source *s, const struct gclk_worker *worker)
{
	static const char *const headings[] = { ">ID", "NAME", "TAKEN", ">GUEST CLOCK" };
	struct gclk_snapshot *all = calloc(64, sizeof(*all));
	int n = !all	? 0
		: worker ? gclk_worker_list_snapshots(worker, way_to(s), all, 64, NULL)
			 : gclk_image_list_snapshots(way_to(s), all, 64, NULL);
	struct table table;

	if (n <= 1) {
		free(all);
		return 0;
	}
	message("error", s->path, gclk_status_name(GCLK_USAGE), EFFECT_NONE, NULL,
		"%d snapshots hold a saved machine; say which with --snapshot NAME", n);
	table_begin(&table, 4, headings);
	for (int i = 0; i < GCLK_MIN(n, 64); i++) {
		char name[256], id[32], taken[TEXT_BYTES], clock[TEXT_BYTES];

		table_row(&table, clean_text(id, sizeof(id), all[i].id),
			  clean_text(name, sizeof(name), all[i].name),
			  text_instant(taken, all[i].date_ns, 1000000),
			  text_approx(clock, (int64_t)GCLK_MIN(all[i].vm_clock_ns,
							       (uint64_t)INT64_MAX)));
	}
	table_end(&table, stderr);
	free(all);
	return GCLK_USAGE;
}

/* The record that a rewriting left: one that cannot be read is no reason to stop. */
static void take_record(struct source *s, const struct gclk_worker *worker)
{
	struct foreign_bundle bundle;
	struct gclk_error error;
	size_t size = 0;
	const void *record = gclk_image_record(s->image, &size);

	if (!record) {
		return;
	}
	if (foreign_bundle(worker, record, size, &bundle, &error) == 0) {
		s->provenance = bundle.provenance;
		s->host = bundle.host;
		s->rewrite = bundle.rewrite;
		foreign_bundle_clear(&bundle);
	} else {
		message("warning", s->path, gclk_status_name(error.status),
			EFFECT_READING, NULL,
			"the image has been rewritten, but how cannot be read: %s",
			error.message);
	}
	if (!s->rewrite.has) {
		GCLK_SET(rewrite, &s->rewrite, times, 1);
	}
}

static int open_image(struct source *s, const struct options *o, enum source_use use,
		      const struct gclk_worker *worker, struct gclk_error *reterr)
{
	const struct gclk_image_options options = {
		.snapshot = o->snapshot,
		.writable = use == SOURCE_CHANGE || use == SOURCE_HASTE,
		.want_page_clock = use != SOURCE_LOOK && use != SOURCE_HASTE,
		.as_it_stands = use == SOURCE_LOOK,
		.sync = given(o, OPTION(SYNC)),
		.spool_beside = use == SOURCE_COPY ? o->output : NULL,
		.plain = use == SOURCE_PLAIN,
		.progress = progress_step,
		.progress_ctx = &s->progress,
		.worker = worker,
	};
	int r = gclk_image_open(way_to(s), &options, &s->image, reterr);

	progress_end(&s->progress);
	if (r < 0) {
		return r;
	}
	s->format = gclk_image_format_names[gclk_image_format(s->image)];
	s->state = gclk_image_state(s->image);
	take_record(s, worker);
	return 0;
}

/* One attribute of what `guestclock save` said about this image; "" where it did not. */
static const char *said(const struct source *s, const char *attribute)
{
	const struct gclk_domain *domain = gclk_image_domain(s->image);
	const char *text = domain ? gclk_domain_metadata(domain, attribute) : NULL;

	return text ? text : "";
}

/* The evidence holds, so what stands beside it does: the host, and its leap seconds. */
static void take_metadata(struct source *s)
{
	const char *maxerror = said(s, GCLK_CAPTURED_MAXERROR);
	const char *boottime = said(s, GCLK_CAPTURED_BOOTTIME);
	int tai_s = atoi(said(s, GCLK_CAPTURED_TAI));

	if (tai_s > 0 && tai_s <= 1000) {
		GCLK_SET(provenance, &s->provenance, tai_offset_s, tai_s);
	}
	if (s->host.has) {
		return;
	}
	clean_text(s->host.boot_id, sizeof(s->host.boot_id), said(s, GCLK_CAPTURED_BOOT_ID));
	clean_text(s->host.hostname, sizeof(s->host.hostname), said(s, GCLK_CAPTURED_HOST));
	s->host.has |= GCLK_BIT(host, boot_id) | GCLK_BIT(host, hostname);
	if (*boottime) {
		/* how its wall clock stood then: whoever sets it moves it against this */
		GCLK_SET(host, &s->host, realtime_ns, s->captured.ns);
		GCLK_SET(host, &s->host, boottime_ns, strtoll(boottime, NULL, 10));
	}
	if (tai_s > 0 && tai_s <= 1000) {
		GCLK_SET(host, &s->host, tai_offset_s, tai_s);
	}
	if (*maxerror) {
		GCLK_SET(host, &s->host, ntp_maxerror_ns, strtoull(maxerror, NULL, 10));
		GCLK_SET(host, &s->host, flags, GCLK_HOST_SYNCHRONISED);
	}
}

/* Own provenance first, then what the image offers, best first. */
static void weigh_evidence(struct source *s)
{
	const struct gclk_evidence *evidence = NULL;
	const struct gclk_provenance *p = &s->provenance;

	s->captured = (struct gclk_instant){ 0, GCLK_UNBOUNDED };
	s->basis = "none";
	if (GCLK_HAS(provenance, p, realtime_ns)) {
		s->captured.ns = p->realtime_ns;
		if (GCLK_HAS(provenance, p, uncertainty_ns)) {
			s->captured.uncertainty_ns = p->uncertainty_ns;
		}
		s->basis = GCLK_HAS(provenance, p, basis) ? p->basis : "provenance";
	} else if (s->image && gclk_image_evidence(s->image, &evidence) > 0) {
		s->captured = evidence[0].at;
		s->basis = evidence[0].basis;
		s->note = evidence[0].note;
		if (!strcmp(s->basis, "metadata")) {
			take_metadata(s);
		}
	}
}

static bool looks_like_json(const unsigned char *bytes, size_t n)
{
	size_t i = 0;

	if (n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3)) {
		i = 3;
	}
	while (i < n && strchr(" \t\r\n", bytes[i]) && bytes[i]) {
		i++;
	}
	return i < n && bytes[i] == '{';
}

/* .path, and .held if that is to be opened, are set. */
static int open_it(struct source *s, const struct options *o, enum source_use use)
{
	const struct gclk_worker *worker;
	const char *path = s->path;
	unsigned char first[PEEK_BYTES];
	struct gclk_error error;
	size_t n = 0;
	int r;

	r = source_begin(way_to(s), first, sizeof(first), &n, &error);
	if (r == 0 && n == 0) {
		r = gclk_fail(&error, GCLK_TRUNCATED, NULL, 0, "it is empty");
	}
	if (r < 0) {
		return fail(path, &error, EFFECT_NONE, NULL);
	}
	if (gclk_bytes_are_sealed(first, n)) {
		gclk_fail(&error, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
			  "it is sealed; only what is in it can be worked on");
		return fail(path, &error, EFFECT_NONE, "guestclock open --help");
	}
	if (confine_worker(o->conf, &worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	if (gclk_bytes_are_bundle(first, n) || looks_like_json(first, n)) {
		r = open_bundle(s, looks_like_json(first, n), worker, &error);
	} else {
		if (n >= 4 && !memcmp(first, "QFI\xfb", 4) &&
		    !given(o, OPTION(SNAPSHOT)) && (r = list_snapshots(s, worker)) != 0) {
			return r;
		}
		r = open_image(s, o, use, worker, &error);
	}
	if (r < 0) {
		return fail(path, &error, EFFECT_NONE, NULL);
	}
	weigh_evidence(s);
	s->stands_at = s->captured;
	if (use == SOURCE_LOOK && GCLK_HAS(rewrite, &s->rewrite, run_realtime_ns)) {
		s->stands_at = (struct gclk_instant){ s->rewrite.run_realtime_ns, 0 };
	}
	return 0;
}

int source_open(struct source *s, const char *path, const struct options *o,
		enum source_use use)
{
	memset(s, 0, sizeof(*s));
	s->path = path;
	return open_it(s, o, use);
}

int source_open_fd(struct source *s, int fd, const char *name, const struct options *o,
		   enum source_use use)
{
	memset(s, 0, sizeof(*s));
	s->path = name;
	snprintf(s->held, sizeof(s->held), "/proc/self/fd/%d", fd);
	return open_it(s, o, use);
}

int source_redact(struct source *s, struct gclk_error *reterr)
{
	int r = 0;

	if (!s->own_state) {
		s->own_state = gclk_state_new(s->state->n_vcpus);
		if (!s->own_state) {
			return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
					 "no memory for a state of %" PRIu32 " vCPUs",
					 s->state->n_vcpus);
		}
		r = gclk_state_assign(s->own_state, s->state, reterr);
		s->state = s->own_state;
	}
	gclk_state_redact(s->own_state);
	gclk_host_redact(&s->host);
	return r;
}

void source_close(struct source *s)
{
	s->image = gclk_image_close(s->image);
	s->own_state = gclk_state_free(s->own_state);
	s->state = NULL;
}
