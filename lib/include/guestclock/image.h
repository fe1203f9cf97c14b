/* SPDX-License-Identifier: MIT */
/*
 * Clock state in foreign bytes: at rest in QEMU migration streams, libvirt save images
 * and qcow2 snapshots, and in a live stream as it flows. Part of libguestclock-image.
 *
 * An image is read once, from its end, without reading the guest's memory. What
 * it gives is the captured state, also where the image has been rewritten since:
 * the original bytes are kept in the image itself (R9), and every new plan starts
 * from them.
 */
#ifndef GUESTCLOCK_IMAGE_H
#define GUESTCLOCK_IMAGE_H

#include <guestclock/plan.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gclk_image;

enum gclk_image_format {
	GCLK_FORMAT_QEMU_STREAM,
	GCLK_FORMAT_LIBVIRT_SAVE,
	GCLK_FORMAT_QCOW2_SNAPSHOT,
};
extern const char *const *const gclk_image_format_names;	/* "qemu-stream", ... as in JSON */

/*
 * Foreign bytes can be read by somebody who has nothing to lose: another process, in which
 * gclk_image_work() runs at the other end of a socket. What it says is looked at before it
 * is believed, and it writes nothing: it asks, and what would change the host's own words
 * in the image (a domain's XML, a qcow2's header) is refused and ends it.
 */
struct gclk_worker_process {
	int socket;			/* connected, SOCK_STREAM, AF_UNIX */
	int pid;
};

struct gclk_worker {
	/* Errors: whatever forbids it; then nothing is read. */
	int (*start)(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr);
	/*
	 * Closes the socket, ends the process. @failed: it has gone by itself, and @reterr is
	 * to say why in one sentence ("... was killed by signal 31").
	 */
	void (*stop)(void *ctx, struct gclk_worker_process *process, int failed,
		     struct gclk_error *reterr);
	void *ctx;
	/*
	 * One that works on a stream, or on bytes that it was sent, answers within us or ms:
	 * after a silence of so long it is given up, for a guest or a connection waits. 0: 30 s
	 */
	uint32_t patience_ms;
};

/**
 * gclk_image_work() - read images for the program at the other end
 * @socket:	the other end of gclk_worker_process.socket
 * @failure:	not NULL: it cannot be done safely, for this reason; says so and returns
 *
 * One image; returns 0 when the other end is done with it. Both ends must be the same
 * release of this library. It opens nothing: files come through the socket, to be read.
 */
int gclk_image_work(int socket, const struct gclk_error *failure);

/*
 * What a program reads besides images, it can have read by the same workers: a function of
 * its own, which makes of @n bytes that may come from anyone others that are simple to
 * look at, malloc()ed (@ret NULL with 0 of them). Its errors come back as they are.
 */
typedef int gclk_worker_reader(uint32_t what, const void *bytes, size_t n, void **ret,
			       size_t *ret_n, struct gclk_error *reterr);

/* As gclk_image_work(), for what gclk_reading_ask() asks as well. */
int gclk_worker_run(int socket, const struct gclk_error *failure, gclk_worker_reader *read);

/* A worker that is asked to read, any number of times. Not for two threads at once. */
struct gclk_reading;
int gclk_reading_new(const struct gclk_worker *worker, struct gclk_reading **ret,
		     struct gclk_error *reterr);
/* Accepts NULL, returns NULL. */
struct gclk_reading *gclk_reading_free(struct gclk_reading *reading);

/**
 * gclk_reading_ask() - have bytes read
 * @what:	for the reader to know
 * @ret:	malloc()ed, or NULL: whatever a process says that may be in a stranger's
 *		hands, so to be looked at before it is believed
 *
 * Returns 0. Errors: the reader's; GCLK_PEER when the worker dies, is silent or answers
 * what is no answer, and then for every further question; GCLK_RANGE, GCLK_NOMEM.
 */
int gclk_reading_ask(struct gclk_reading *reading, uint32_t what, const void *bytes, size_t n,
		     void **ret, size_t *ret_n, struct gclk_error *reterr);

struct gclk_image_options {
	const char *snapshot;		/* qcow2: name or id; NULL: the only one */
	uint8_t writable;		/* for gclk_image_patch() and gclk_image_undo(): locks the file */
	uint8_t want_page_clock;	/* find the guest's pvclock page if it is needed (one pass over RAM) */
	uint8_t as_it_stands;		/* of a rewritten image what a loader would load, not what was captured */
	/*
	 * A pipe can be read once: to write a copy of it, its bytes are first kept in an
	 * unnamed file beside this path. NULL: a pipe can only be looked at.
	 */
	const char *spool_beside;
	uint8_t sync;			/* gclk_image_write() waits until a new file is on the disk, too */
	uint8_t plain;			/* gclk_image_write() leaves out a libvirt image's compression */
	/* called now and then during a pass over the RAM; a non-zero result ends it with GCLK_STATE */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);	/* total 0: unknown */
	void *progress_ctx;
	const struct gclk_worker *worker;	/* reads it for us; NULL: nobody. Copied */
};

/**
 * gclk_image_open() - recognise an image by its content and read its clock state
 * @path:	a file, or "-" for standard input (a pipe is walked through)
 * @options:	or NULL for reading with defaults
 *
 * Ownership: @ret_image is the caller's, gclk_image_close().
 * Errors: GCLK_SYS, GCLK_TRUNCATED, GCLK_MALFORMED, GCLK_VERSION and GCLK_UNSUPPORTED
 * (postcopy, mapped-ram, ... by name) with the byte offset in the stream;
 * GCLK_STATE when it is in use; with a worker also GCLK_PEER when that one misbehaves.
 */
int gclk_image_open(const char *path, const struct gclk_image_options *options,
		    struct gclk_image **ret_image, struct gclk_error *reterr);
struct gclk_image *gclk_image_close(struct gclk_image *image);

enum gclk_image_format gclk_image_format(const struct gclk_image *image);
const char *gclk_image_compression(const struct gclk_image *image);	/* "none", "gzip", ... */
const struct gclk_state *gclk_image_state(const struct gclk_image *image);
/* Whether a restore resumes the guest by itself: 1, 0; -1: the format does not say. */
int gclk_image_was_running(const struct gclk_image *image);

/*
 * CRC-64 of the captured device state: the same as long as the image is that one, however
 * often it has been rewritten. Ties what is said about an image elsewhere to it.
 */
uint64_t gclk_image_digest(const struct gclk_image *image);

/* Who will load the image: stock QEMU, by accelerator and version. */
const struct gclk_carrier *gclk_image_carrier(const struct gclk_image *image);

/**
 * gclk_image_lint() - what is wrong with the guest as its container describes it
 *
 * Beside gclk_lint(), which looks at the state alone.
 */
void gclk_image_lint(const struct gclk_image *image, struct gclk_findings *findings);

/*
 * One piece of evidence about the instant of the stop; the image offers them
 * best first. basis is a kebab-case word: "metadata", "birth-time", "rtc-second", "mtime".
 */
struct gclk_evidence {
	const char *basis;
	struct gclk_instant at;
	const char *note;
};
unsigned gclk_image_evidence(const struct gclk_image *image, const struct gclk_evidence **ret);

/* What a domain's XML says about clocks. Plain values, no pointers. */
#define GCLK_DOMAIN_MAX_TIMERS 16
#define GCLK_DOMAIN_MAX_METADATA 32

enum gclk_domain_type { GCLK_DOMAIN_OTHER, GCLK_DOMAIN_KVM, GCLK_DOMAIN_QEMU };

/* In libvirt's words and with the values of enum gclk_tick_policy; NONE: the XML does not say. */
enum gclk_domain_ticks {
	GCLK_DOMAIN_TICKS_NONE,
	GCLK_DOMAIN_TICKS_DELAY,
	GCLK_DOMAIN_TICKS_CATCHUP,
	GCLK_DOMAIN_TICKS_MERGE,
	GCLK_DOMAIN_TICKS_DISCARD,
};

enum gclk_domain_switch { GCLK_DOMAIN_UNSET, GCLK_DOMAIN_NO, GCLK_DOMAIN_YES };

struct gclk_domain_timer {
	char name[16];			/* "rtc", "pit", "hpet", "kvmclock", "tsc", ... */
	enum gclk_domain_switch present;
	enum gclk_domain_ticks ticks;
	char track[16];			/* "guest", "wall", "realtime", ""; of the rtc */
	char mode[16];			/* of the tsc: "auto", "native", "" ... */
	uint64_t frequency_hz;		/* of the tsc; 0: not given */
};

struct gclk_domain_clock {
	char offset[16];		/* "utc", "localtime", "timezone", "variable", "absolute", "" */
	char timezone[64];		/* of "timezone" */
	char basis[16];			/* of "variable": "utc", "localtime", "" */
	uint8_t adjustment_reset;		/* adjustment='reset' */
	uint8_t has_adjustment;
	int64_t adjustment_s;
	uint8_t has_start;
	int64_t start_s;		/* of "absolute", since 1970-01-01T00:00:00Z */
};

/* One attribute of our element in <metadata>: gap, ticks, hook, captured_at_ns ... */
struct gclk_domain_attribute {
	char name[40];
	char value[256];
};

struct gclk_domain {
	char name[256];
	char uuid[40];
	enum gclk_domain_type type;
	char machine[64];		/* "pc-i440fx-7.2" */
	uint32_t n_vcpus;		/* that the guest has now (attribute current) */
	uint32_t max_vcpus;
	struct gclk_domain_clock clock;
	struct gclk_domain_timer timers[GCLK_DOMAIN_MAX_TIMERS];
	size_t n_timers;
	enum gclk_domain_switch hv_stimer, hv_synic, hv_frequencies, hv_reenlightenment;
	enum gclk_domain_switch invtsc;	/* <cpu><feature name='invtsc'> */
	uint8_t has_metadata;		/* our element is there */
	struct gclk_domain_attribute metadata[GCLK_DOMAIN_MAX_METADATA];
	size_t n_metadata;
};

/* NULL: not in the XML. */
const struct gclk_domain_timer *gclk_domain_timer(const struct gclk_domain *domain,
						  const char *name);
const char *gclk_domain_metadata(const struct gclk_domain *domain, const char *attribute);

/**
 * gclk_domain_read() - from the XML that libvirt gives or takes
 * @xml:	@size bytes: <domain>, or anything that holds one
 *
 * Reads no file and no network. Errors: GCLK_MALFORMED, GCLK_RANGE.
 */
int gclk_domain_read(const char *xml, size_t size, struct gclk_domain *ret,
		     struct gclk_error *reterr);
/* The same by a worker; NULL: here. Errors: also GCLK_PEER. */
int gclk_worker_domain_read(const struct gclk_worker *worker, const char *xml, size_t size,
			    struct gclk_domain *ret, struct gclk_error *reterr);

/*
 * Attributes of our element that `guestclock save` leaves in the XML of an image. They
 * count for that image alone: captured_digest is its gclk_image_digest(), in hex.
 */
#define GCLK_CAPTURED_AT "captured_at_ns"
#define GCLK_CAPTURED_UNCERTAINTY "captured_uncertainty_ns"
#define GCLK_CAPTURED_DIGEST "captured_digest"
#define GCLK_CAPTURED_BOOTTIME "captured_boottime_ns"	/* the same instant on CLOCK_BOOTTIME */
#define GCLK_CAPTURED_TAI "captured_tai_s"
#define GCLK_CAPTURED_BOOT_ID "captured_boot_id"
#define GCLK_CAPTURED_HOST "captured_host"
#define GCLK_CAPTURED_MAXERROR "captured_maxerror_ns"	/* of a disciplined wall clock */

/**
 * gclk_domain_write_metadata() - a domain's XML with attributes of our element set
 * @set:	@n_set of them; an empty value takes the attribute away
 * @ret:	malloc()ed, NUL-terminated
 *
 * The element is made where it is missing; everything else stays as it is. Errors:
 * GCLK_MALFORMED, GCLK_RANGE, GCLK_NOMEM.
 */
int gclk_domain_write_metadata(const char *xml, size_t size,
			       const struct gclk_domain_attribute *set, unsigned n_set,
			       char **ret, struct gclk_error *reterr);

/* From the XML in a libvirt save image; NULL in anything else. Borrowed until the close. */
const struct gclk_domain *gclk_image_domain(const struct gclk_image *image);

/* One field of the source format as it stands in the image, for people who compare. */
struct gclk_source_field {
	const char *section;		/* "mc146818rtc", "cpu/tsc_khz" */
	uint32_t instance;
	const char *field;		/* the source's own name: "base_rtc", "timer[2].cmp" */
	uint64_t offset;		/* in the stream */
	uint32_t size;			/* bytes */
	uint64_t value;			/* for sizes up to 8, sign-extended where signed */
	uint8_t is_signed;
	const uint8_t *bytes;		/* as they stand, big-endian */
};
/*
 * Index 0.. as long as it returns 1; 0 behind the last one. Negative: they could not be had,
 * -GCLK_NOMEM or, with a worker, its loss.
 */
int gclk_image_source_field(const struct gclk_image *image, unsigned index,
			    struct gclk_source_field *ret);

/*
 * The record of earlier rewriting (R9). payload is what the last writer gave to
 * gclk_image_patch() or gclk_image_write(); NULL when the image is original.
 */
const void *gclk_image_record(const struct gclk_image *image, size_t *ret_size);

/* What a plan changes, as bytes; for reports. Sorted by offset. */
struct gclk_image_change {
	uint64_t offset;		/* in the stream */
	uint32_t size;
	const char *section, *field;
	uint32_t instance;
	uint64_t before, after;
};

/**
 * gclk_image_encode() - the changes that carry a plan out in this image
 * @plan:	made from gclk_image_state() and gclk_image_carrier()
 *
 * Only what the plan changed; nothing when all its deltas are zero. Valid until
 * the next call or close. Errors: GCLK_UNSUPPORTED for a change that this format
 * cannot express, GCLK_RANGE for a value that does not fit its field.
 */
int gclk_image_encode(struct gclk_image *image, const struct gclk_plan *plan,
		      const struct gclk_image_change **ret_changes, unsigned *ret_n,
		      struct gclk_error *reterr);

/**
 * gclk_image_patch() - carry a plan out in place
 * @payload:	opaque bytes kept with the undo record, for instance a bundle
 *
 * The undo record is on disk before the first patched byte. Needs a raw stream
 * (bare or in a libvirt image) or a qcow2 snapshot, opened writable. Reads back
 * what it wrote (R7). Errors: GCLK_UNSUPPORTED for compressed images.
 */
int gclk_image_patch(struct gclk_image *image, const struct gclk_plan *plan, const void *payload,
		     size_t payload_size, struct gclk_error *reterr);

/* Offsets in the file. A loader reads it forwards and stops at stream_end. */
struct gclk_image_span {
	uint64_t begin, end;		/* all that a late rewriting may write */
	uint64_t stream_end;
};

/* Where that lies, before anything is written. */
void gclk_image_late_span(struct gclk_image *image, struct gclk_image_span *ret);

/**
 * gclk_image_late_begin() - carry a plan out in place, with better ones to follow
 * @ret_span:	stop writing before the reader comes to .begin
 *
 * For an image that is being loaded: the later the plan is made, the better it knows
 * when the guest will run. As gclk_image_patch(), but the undo record is left open, so
 * that gclk_image_late_write() needs no other. gclk_image_patch() with the last plan,
 * when the reader is through, closes the record; without it the image can be undone and
 * rewritten as any other. A bare stream or a libvirt image, raw: else GCLK_UNSUPPORTED.
 */
int gclk_image_late_begin(struct gclk_image *image, const struct gclk_plan *plan,
			  const void *payload, size_t payload_size,
			  struct gclk_image_span *ret_span, struct gclk_error *reterr);

/* Around the one write of each gclk_image_late_write(); what is NULL is not called. */
struct gclk_late_gate {
	/*
	 * When the bytes are ready, right before. Not 0: it is not made, and
	 * gclk_image_late_write() fails with GCLK_STATE.
	 */
	int (*may)(void *ctx);
	void (*done)(void *ctx);	/* right after it, whether it failed or not */
	void *ctx;
};

/* From now on, copied. With a worker, who takes its time to make the bytes, there is no other way
 * to look at the reader last. */
void gclk_image_late_gate(struct gclk_image *image, const struct gclk_late_gate *gate);

/**
 * gclk_image_late_write() - another plan, from the original bytes
 *
 * One write of the whole span, which is not waited for: well below a millisecond. What a
 * reader gets who has come to the span meanwhile is for the caller to find out.
 */
int gclk_image_late_write(struct gclk_image *image, const struct gclk_plan *plan,
			  struct gclk_error *reterr);

/**
 * gclk_image_write() - a rewritten copy
 * @out_path:	replaced in one step when complete; never the input itself
 *
 * Keeps compression, owner and mode. One pass. A file that is replaced gives way to one
 * that is on the disk; a new one may still be in the page cache, as after cp, unless
 * the image was opened with .sync.
 */
int gclk_image_write(struct gclk_image *image, const struct gclk_plan *plan, const void *payload,
		     size_t payload_size, const char *out_path, struct gclk_error *reterr);

/**
 * gclk_image_undo() - the original bytes again, in place
 * @ret_undone:	0 when there was nothing to undo
 */
int gclk_image_undo(const char *path, const struct gclk_image_options *options, int *ret_undone,
		    struct gclk_error *reterr);

/* The snapshots with a saved machine in a qcow2 file. */
struct gclk_snapshot {
	char id[32];
	char name[256];
	int64_t date_ns;		/* since 1970 */
	uint64_t state_bytes;
	uint64_t vm_clock_ns;
};
/* Up to @max into @ret; returns how many there are, or a negative status. */
int gclk_image_list_snapshots(const char *path, struct gclk_snapshot *ret, unsigned max,
			      struct gclk_error *reterr);
/* The same by a worker. */
int gclk_worker_list_snapshots(const struct gclk_worker *worker, const char *path,
			       struct gclk_snapshot *ret, unsigned max,
			       struct gclk_error *reterr);

/*
 * A live migration's stream, filtered as it flows. Pieces of any size are pushed; the
 * guest's memory goes on from the caller's own buffer, and only the device state at the
 * end is held until it is whole, together with its description. Nothing waits for the end
 * of the input, which does not come while the source waits for its destination. The loop:
 *
 *	r = gclk_filter_push(f, p, n, &pass, &held, &err);
 *	if (r < 0)
 *		return close_both_ends();
 *	send(p, pass);
 *	p += pass + held, n -= pass + held;
 *	if (r == GCLK_FILTER_READY) {
 *		plan = gclk_filter_state(f) ? make_plan() : NULL;
 *		gclk_filter_apply(f, plan, &bytes, &n_bytes, &err);
 *		send(bytes, n_bytes - 1), wait_for_the_load_instant(), send(the last one);
 *	}
 *	... and again while n > 0
 */
struct gclk_filter;

/* What becomes of a stream that cannot be filtered. */
enum gclk_filter_choice {
	GCLK_FILTER_PASS,		/* it goes on untouched, with a finding */
	GCLK_FILTER_REFUSE,		/* an error, with the offset of the byte that showed it */
};

struct gclk_filter_options {
	size_t tail_bytes;		/* limit on the device state held; 0: 24 MiB */
	uint8_t unreadable;		/* enum gclk_filter_choice */
	/*
	 * Filter a stream without a return path, too. Right for a file or where the source
	 * is told otherwise. A live source without one takes bytes that were accepted for
	 * completion and forgets its guest, so that holding them endangers it: such a stream
	 * passes untouched, with a finding, whatever @unreadable says.
	 */
	uint8_t one_way;
	/*
	 * Under KVM the guest's own clock page tells what it read last. Where that page is
	 * shows only after the memory has passed; pages that look like one are remembered.
	 */
	uint8_t want_page_clock;
	const struct gclk_worker *worker;	/* filters it for us; NULL: nobody. Copied */
};

/* Positive results of gclk_filter_push(). */
enum {
	GCLK_FILTER_MORE = 1,		/* everything consumed, the stream goes on */
	GCLK_FILTER_READY = 2,		/* held bytes are to be sent on: gclk_filter_apply() */
	GCLK_FILTER_OFF = 3,		/* nothing (more) to filter: everything passes */
};

enum gclk_filter_phase {
	GCLK_FILTER_BEFORE_RAM,
	GCLK_FILTER_RAM,		/* rounds; the guest may run */
	GCLK_FILTER_FINAL,		/* the last round: the guest is stopped */
	GCLK_FILTER_TAIL,		/* device state is being held */
	GCLK_FILTER_WHOLE,		/* held until gclk_filter_apply() */
	GCLK_FILTER_THROUGH,		/* passing whatever comes */
	GCLK_FILTER_REFUSED,
};

/**
 * gclk_filter_new() - at the first byte of a stream
 * @options:	copied; NULL for the defaults
 *
 * Errors: GCLK_NOMEM; with a worker those of its start. One that dies or misbehaves later
 * makes every call fail with GCLK_PEER.
 */
int gclk_filter_new(const struct gclk_filter_options *options, struct gclk_filter **ret,
		    struct gclk_error *reterr);

/* Accepts NULL, returns NULL. */
struct gclk_filter *gclk_filter_free(struct gclk_filter *filter);

/**
 * gclk_filter_room() - where the next bytes are best read into
 * @ret_size:	how many it has room for
 *
 * Bytes that are pushed from there a worker sees without a copy. NULL without one: any
 * place is as good. What is there stays the caller's; a worker cannot write it. 256 KiB.
 */
void *gclk_filter_room(struct gclk_filter *filter, size_t *ret_size);

/**
 * gclk_filter_push() - the next bytes of the stream
 * @ret_pass:	so many go on now, from the caller's buffer
 * @ret_held:	so many behind them are kept
 *
 * MORE: that is all of them. READY: what is held goes on next, before the rest of the
 * buffer, which is not consumed; it is the whole device state, or with
 * gclk_filter_state() NULL what was held of a stream that turned out unfilterable. OFF:
 * all of them pass, and nothing is held. Until what READY announced is applied, pushes
 * consume nothing.
 *
 * What cannot be filtered shows at a byte: postcopy, RDMA, COLO, QEMU's own TLS, a side
 * channel of multifd, an iterable or a device layout that is not known, device state
 * beyond the limit, something that is no stream at all, or too little memory.
 *
 * Errors: with GCLK_FILTER_REFUSE those of gclk_image_open(), with the offset; later
 * pushes fail alike, and what is held is not given out any more.
 */
int gclk_filter_push(struct gclk_filter *filter, const void *bytes, size_t n, size_t *ret_pass,
		     size_t *ret_held, struct gclk_error *reterr);

/**
 * gclk_filter_push_most() - the same, for who can look whether more is there already
 *
 * With MORE it may leave up to 63 bytes at the end unconsumed, which tell too little by
 * themselves. They are pushed again, before what follows, or with gclk_filter_push() where
 * nothing follows at once. A worker is asked less often then.
 */
int gclk_filter_push_most(struct gclk_filter *filter, const void *bytes, size_t n,
			  size_t *ret_pass, size_t *ret_held, struct gclk_error *reterr);

/**
 * gclk_filter_quiet() - nothing has come for as long as the caller would wait
 *
 * Old machine types do not describe their device state, and then wait: nothing but the
 * silence tells that it is whole. To be called in the phase TAIL, say, every 100 ms
 * without a byte; it takes ten of them where a description should come. MORE: the state is
 * not whole, or that is not sure yet; else as gclk_filter_push() with no bytes.
 */
int gclk_filter_quiet(struct gclk_filter *filter, struct gclk_error *reterr);

/**
 * gclk_filter_end() - the input has ended; was that the end of the stream?
 *
 * Returns 0 where it was whole, or nothing is known of it. Errors: GCLK_TRUNCATED, naming
 * what was being read: what is held then must not be sent on.
 */
int gclk_filter_end(struct gclk_filter *filter, struct gclk_error *reterr);

/* The captured state, its carrier: NULL unless the device state is whole and known. */
const struct gclk_state *gclk_filter_state(const struct gclk_filter *filter);
const struct gclk_carrier *gclk_filter_carrier(const struct gclk_filter *filter);

/* Why the stream is not filtered, if it is not. */
const struct gclk_findings *gclk_filter_findings(const struct gclk_filter *filter);

enum gclk_filter_phase gclk_filter_phase(const struct gclk_filter *filter);
uint64_t gclk_filter_offset(const struct gclk_filter *filter);	/* bytes consumed */

/* Did the guest run when the migration began? 1, 0; -1 while that is not known. */
int gclk_filter_was_running(const struct gclk_filter *filter);

/* Machine type, "" while or where it is not known; UUID: 1 where the stream has it. */
const char *gclk_filter_machine(const struct gclk_filter *filter);
int gclk_filter_uuid(const struct gclk_filter *filter, uint8_t ret[16]);

/**
 * gclk_filter_apply() - what is held, patched for sending
 * @plan:	made from gclk_filter_state() and gclk_filter_carrier(); NULL: untouched
 * @ret_bytes:	borrowed until the next call of this function or gclk_filter_free()
 *
 * The loader finishes when it has the last byte: that is the gate. Each call starts from
 * the captured bytes, so a later plan replaces an earlier one, until the next push: from
 * then on everything passes. Without a plan also a way to give up at any time: gives what
 * is held, perhaps nothing.
 *
 * Errors: those of gclk_image_encode(); the bytes are still held and can be had without a
 * plan. GCLK_STATE for a plan where there is no state.
 */
int gclk_filter_apply(struct gclk_filter *filter, const struct gclk_plan *plan,
		      const uint8_t **ret_bytes, size_t *ret_n, struct gclk_error *reterr);

/* What the last gclk_filter_apply() changed; as gclk_image_encode() gives it. */
unsigned gclk_filter_changes(const struct gclk_filter *filter,
			     const struct gclk_image_change **ret);

#ifdef __cplusplus
}
#endif
#endif
