/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of every public function that makes one fails, in turn: alone, and with
 * all that follow it. Each time the answer is GCLK_NOMEM (or all is well, where the memory
 * was only wished for), what was given is as before, and nothing is lost: as many blocks
 * are in use as before the call. Other libraries' allocations count, too.
 */
#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include <guestclock/bundle.h>
#include <guestclock/image.h>
#include <guestclock/seal.h>

#include "core/util.h"
#include "gclk-test.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_IS_TAKEN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define HEAP_IS_TAKEN 1
#endif

#ifdef HEAP_IS_TAKEN
GCLK_TEST(alloc, every_allocation_fails_in_turn)
{
	gclk_test_skip("a sanitizer or another C library has the heap");
}
#else

/* ---- the heap ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

static unsigned long n_allocs, fail_at;
static bool is_counting, and_all_after;
static long n_live;

static bool refuse(void)
{
	if (!is_counting) {
		return false;
	}
	n_allocs++;
	if (fail_at && (n_allocs == fail_at || (and_all_after && n_allocs > fail_at))) {
		errno = ENOMEM;
		return true;
	}
	return false;
}

static void *given(void *p)
{
	n_live += p != NULL;
	return p;
}

#pragma GCC visibility push(default)	/* for libc and all other libraries, too */

void *malloc(size_t size)
{
	return refuse() ? NULL : given(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
	return refuse() ? NULL : given(__libc_calloc(n, size));
}

void *realloc(void *p, size_t size)
{
	void *q;

	if (refuse()) {
		return NULL;
	}
	q = __libc_realloc(p, size);
	n_live += !p && q;
	return q;
}

void *aligned_alloc(size_t align, size_t size)
{
	return refuse() ? NULL : given(__libc_memalign(align, size));
}

void free(void *p)
{
	n_live -= p != NULL;
	__libc_free(p);
}

#pragma GCC visibility pop

/* ---- what the calls work on ---- */

static char dir[] = "/tmp/gclk-alloc-XXXXXX";
static char stream_path[64], save_path[64], out_path[64];
static uint8_t *stream, *bundle_bytes, *sealed_bytes;
static size_t n_stream, n_bundle, n_sealed;
static char pem[GCLK_SEAL_PEM_BYTES];
static struct gclk_seal_key *key;
static struct gclk_state *state;
static const char xml[] =
	"<domain type='kvm'><name>web1</name><uuid>8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a7</uuid>"
	"<os><type machine='pc-q35-7.2'>hvm</type></os><clock offset='utc'>"
	"<timer name='rtc' tickpolicy='catchup'/></clock></domain>";

static void write_file(const char *path, const void *bytes, size_t n)
{
	FILE *file = fopen(path, "wb");

	CU_ASSERT_FATAL(file != NULL && fwrite(bytes, 1, n, file) == n);
	fclose(file);
}

static void read_stream(void)
{
	lzma_stream strm = LZMA_STREAM_INIT;
	static uint8_t packed[1 << 20];
	FILE *file = fopen(GCLK_TEST_DATA "/streams/q35-kvm-4.qs.xz", "rb");

	CU_ASSERT_FATAL(file != NULL);
	strm.next_in = packed;
	strm.avail_in = fread(packed, 1, sizeof(packed), file);
	fclose(file);
	stream = malloc(4 << 20);
	strm.next_out = stream;
	strm.avail_out = 4 << 20;
	CU_ASSERT_FATAL(lzma_stream_decoder(&strm, UINT64_MAX, 0) == LZMA_OK);
	CU_ASSERT_FATAL(lzma_code(&strm, LZMA_FINISH) == LZMA_STREAM_END);
	n_stream = strm.total_out;
	lzma_end(&strm);
}

/* A libvirt save image: header, XML with room behind it, stream. */
static void write_save(void)
{
	uint8_t *all = calloc(1, 92 + 2048 + n_stream);
	const uint32_t words[] = { 2, 2048, 1, 0, 0 };

	CU_ASSERT_FATAL(all != NULL);
	if (!all) {
		return;		/* which gcc 14 does not see in CUnit's */
	}
	memcpy(all, "LibvirtQemudSave", 16);
	memcpy(all + 16, words, sizeof(words));
	memcpy(all + 92, xml, sizeof(xml));
	memcpy(all + 92 + 2048, stream, n_stream);
	write_file(save_path, all, 92 + 2048 + n_stream);
	free(all);
}

static void prepare(void)
{
	struct gclk_image *image = NULL;
	uint8_t guest[GCLK_SEAL_GUEST_BYTES] = { 0 };

	if (stream) {
		return;
	}
	CU_ASSERT_FATAL(mkdtemp(dir) != NULL);
	snprintf(stream_path, sizeof(stream_path), "%s/stream", dir);
	snprintf(save_path, sizeof(save_path), "%s/save", dir);
	snprintf(out_path, sizeof(out_path), "%s/out", dir);
	read_stream();
	write_file(stream_path, stream, n_stream);
	write_save();
	CU_ASSERT_FATAL(gclk_image_open(stream_path, NULL, &image, NULL) == 0);
	state = gclk_state_new(gclk_image_state(image)->n_vcpus);
	gclk_state_assign(state, gclk_image_state(image), NULL);
	gclk_image_close(image);
	n_bundle = (size_t)gclk_state_pack(state, NULL, 0, NULL);
	bundle_bytes = malloc(n_bundle);
	gclk_state_pack(state, bundle_bytes, n_bundle, NULL);
	CU_ASSERT_FATAL(gclk_seal_key_new(&key, NULL) == 0);
	gclk_seal_key_text(key, 1, pem, sizeof(pem), NULL);
	n_sealed = gclk_seal_bytes(n_bundle, 1);
	sealed_bytes = malloc(n_sealed);
	gclk_seal(key, key, guest, 1, bundle_bytes, n_bundle, sealed_bytes, n_sealed, NULL);
}

__attribute__((destructor)) static void clean_up(void)
{
	unlink(stream_path);
	unlink(save_path);
	unlink(out_path);
	if (stream) {
		rmdir(dir);
	}
	gclk_seal_key_free(key);
	gclk_state_free(state);
	free(stream);
	free(bundle_bytes);
	free(sealed_bytes);
}

static int make_plan(const struct gclk_state *st, const struct gclk_carrier *carrier,
		     struct gclk_plan **ret, struct gclk_error *reterr)
{
	struct gclk_plan *plan = gclk_plan_new(st->n_vcpus);
	struct gclk_disagreement disagreement = { 0 };
	struct gclk_policy policy = gclk_policy_default;
	struct gclk_when when = { .elapsed_given = 1, .elapsed_ns = INT64_C(3600000000000) };
	struct gclk_host host = { 0 };
	int r;

	*ret = plan;
	if (!plan) {
		return -GCLK_NOMEM;
	}
	GCLK_SET(host, &host, tsc_hz, UINT64_C(2000000000));
	GCLK_SET(host, &host, flags, GCLK_HOST_TSC_SCALING);
	when.run.ns = when.load.ns = INT64_C(1800000000000000000);
	when.captured.uncertainty_ns = GCLK_UNBOUNDED;
	r = gclk_plan(st, carrier, &host, &when, &disagreement, &policy, plan, reterr);
	return r;
}

static bool file_is(const char *path, const uint8_t *bytes, size_t n)
{
	static uint8_t now[4 << 20];
	FILE *file = fopen(path, "rb");
	size_t got = file ? fread(now, 1, sizeof(now), file) : 0;

	if (file) {
		fclose(file);
	}
	return got == n && !memcmp(now, bytes, n);
}

/* ---- the calls: each does its work, gives back what it got, and returns the result ---- */

static int call_state_new(struct gclk_error *e)
{
	struct gclk_state *st = gclk_state_new(4);
	struct gclk_plan *plan = gclk_plan_new(4);
	struct gclk_bundle *bundle = gclk_bundle_new();
	int r = st && plan && bundle ? 0 : -GCLK_NOMEM;

	if (r < 0) {
		e->status = GCLK_NOMEM;		/* NULL is all that these say */
	}
	gclk_state_free(st);
	gclk_plan_free(plan);
	gclk_bundle_free(bundle);
	return r;
}

static int call_bundle_unpack(struct gclk_error *e)
{
	struct gclk_bundle *bundle = NULL;
	int r = gclk_bundle_unpack(bundle_bytes, n_bundle, &bundle, e);

	CU_ASSERT(r == 0 || bundle == NULL);
	gclk_bundle_free(bundle);
	return r;
}

static int call_state_unpack(struct gclk_error *e)
{
	static struct gclk_state *st;

	if (!st) {
		st = gclk_state_new(4);		/* in the first, unharmed run */
	}
	return gclk_state_unpack(st, bundle_bytes, n_bundle, e);
}

/* Of a bundle that exists: after a failure it is as before. */
static int changed_bundle(int (*change)(struct gclk_bundle *, struct gclk_error *),
			  struct gclk_error *e)
{
	static uint8_t before[1 << 16], after[1 << 16];
	unsigned long saved = fail_at;
	struct gclk_bundle *bundle = NULL;
	int64_t n, m;
	int r;

	is_counting = false;
	CU_ASSERT_FATAL(gclk_bundle_unpack(bundle_bytes, n_bundle, &bundle, NULL) == 0);
	n = gclk_bundle_pack(bundle, before, sizeof(before), NULL);
	is_counting = true;
	fail_at = saved;
	r = change(bundle, e);
	if (r < 0) {
		m = gclk_bundle_pack(bundle, after, sizeof(after), NULL);
		CU_ASSERT(m == n && !memcmp(before, after, (size_t)n));
	}
	gclk_bundle_free(bundle);
	return r;
}

static int change_state(struct gclk_bundle *bundle, struct gclk_error *e)
{
	return gclk_bundle_set_state(bundle, state, e);
}

static int change_records(struct gclk_bundle *bundle, struct gclk_error *e)
{
	struct gclk_provenance provenance = { 0 };

	GCLK_SET(provenance, &provenance, realtime_ns, 1);
	return gclk_bundle_set_provenance(bundle, &provenance, e);
}

static int change_host(struct gclk_bundle *bundle, struct gclk_error *e)
{
	struct gclk_host host = { 0 };

	gclk_host_redact(&host);
	return gclk_bundle_set_host(bundle, &host, e);
}

static int change_rewrite(struct gclk_bundle *bundle, struct gclk_error *e)
{
	struct gclk_rewrite rewrite = { 0 };

	GCLK_SET(rewrite, &rewrite, times, 1);
	return gclk_bundle_set_rewrite(bundle, &rewrite, e);
}

static int change_plan(struct gclk_bundle *bundle, struct gclk_error *e)
{
	static struct gclk_plan *plan;

	if (!plan) {
		struct gclk_image *image = NULL;
		bool saved = is_counting;

		is_counting = false;
		CU_ASSERT_FATAL(gclk_image_open(stream_path, NULL, &image, NULL) == 0);
		make_plan(gclk_image_state(image), gclk_image_carrier(image), &plan, NULL);
		gclk_image_close(image);
		is_counting = saved;
	}
	return gclk_bundle_set_plan(bundle, plan, NULL, e);
}

static int call_set_state(struct gclk_error *e) { return changed_bundle(change_state, e); }
static int call_set_provenance(struct gclk_error *e) { return changed_bundle(change_records, e); }
static int call_set_host(struct gclk_error *e) { return changed_bundle(change_host, e); }
static int call_set_rewrite(struct gclk_error *e) { return changed_bundle(change_rewrite, e); }
static int call_set_plan(struct gclk_error *e) { return changed_bundle(change_plan, e); }

static int open_and_close(const char *path, const struct gclk_image_options *options,
			  struct gclk_error *e)
{
	struct gclk_image *image = NULL;
	int r = gclk_image_open(path, options, &image, e);

	CU_ASSERT(r == 0 || image == NULL);
	gclk_image_close(image);
	return r;
}

static int call_open_stream(struct gclk_error *e)
{
	return open_and_close(stream_path, NULL, e);
}

static int call_open_save(struct gclk_error *e)
{
	return open_and_close(save_path, NULL, e);
}

static int call_open_compressed(struct gclk_error *e)
{
	return open_and_close(GCLK_TEST_DATA "/streams/pc-icount.qs.xz", NULL, e);
}

static int call_open_page_clock(struct gclk_error *e)
{
	const struct gclk_image_options options = { .want_page_clock = 1 };

	return open_and_close(stream_path, &options, e);
}

static int call_list_snapshots(struct gclk_error *e)
{
	struct gclk_snapshot all[4];
	int r = gclk_image_list_snapshots(stream_path, all, 4, e);

	return r == -GCLK_NOMEM ? r : 0;	/* it is no qcow2 file */
}

enum how { ENCODE, PATCH, LATE, COPY };

static int carry_out(struct gclk_image *image, enum how how, struct gclk_error *e)
{
	const struct gclk_image_change *changes;
	struct gclk_image_span span;
	struct gclk_plan *plan;
	unsigned n;
	int r = make_plan(gclk_image_state(image), gclk_image_carrier(image), &plan, e);

	if (r == -GCLK_NOMEM) {
		e->status = GCLK_NOMEM;
	} else if (r >= 0 && how == ENCODE) {
		r = gclk_image_encode(image, plan, &changes, &n, e);
	} else if (r >= 0 && how == PATCH) {
		r = gclk_image_patch(image, plan, "payload", 7, e);
	} else if (r >= 0 && how == COPY) {
		r = gclk_image_write(image, plan, "payload", 7, out_path, e);
	} else if (r >= 0) {
		r = gclk_image_late_begin(image, plan, "payload", 7, &span, e);
		r = r < 0 ? r : gclk_image_late_write(image, plan, e);
	}
	gclk_plan_free(plan);
	return r;
}

static int rewrite(const char *path, enum how how, struct gclk_error *e)
{
	const struct gclk_image_options options = { .writable = how == PATCH || how == LATE };
	struct gclk_image *image = NULL;
	int r = gclk_image_open(path, &options, &image, e);

	if (r == 0) {
		r = carry_out(image, how, e);
	}
	gclk_image_close(image);
	return r;
}

/* Afterwards the image is taken back: it must be what it was. */
static int rewrite_in_place(const char *path, enum how how, struct gclk_error *e)
{
	unsigned long saved = fail_at;
	int r = rewrite(path, how, e), undone = 0;

	is_counting = false;
	CU_ASSERT(gclk_image_undo(path, NULL, &undone, NULL) == 0);
	if (path == stream_path) {
		CU_ASSERT(file_is(path, stream, n_stream));
	}
	is_counting = true;
	fail_at = saved;
	return r;
}

static int call_encode(struct gclk_error *e) { return rewrite(stream_path, ENCODE, e); }
static int call_patch(struct gclk_error *e) { return rewrite_in_place(stream_path, PATCH, e); }
static int call_patch_save(struct gclk_error *e) { return rewrite_in_place(save_path, PATCH, e); }
static int call_late(struct gclk_error *e) { return rewrite_in_place(stream_path, LATE, e); }

static int call_write(struct gclk_error *e)
{
	int r = rewrite(stream_path, COPY, e);

	CU_ASSERT(r == 0 || r == -GCLK_UNPROVEN || access(out_path, F_OK) < 0);
	unlink(out_path);
	return r;
}

static int call_undo(struct gclk_error *e)
{
	unsigned long saved = fail_at;
	int undone, r;

	is_counting = false;
	CU_ASSERT(rewrite(stream_path, PATCH, e) >= 0);
	is_counting = true;
	fail_at = saved;
	r = gclk_image_undo(stream_path, NULL, &undone, e);
	is_counting = false;
	CU_ASSERT(gclk_image_undo(stream_path, NULL, &undone, NULL) == 0);
	CU_ASSERT(file_is(stream_path, stream, n_stream));
	is_counting = true;
	return r;
}

static int call_unflatten(struct gclk_error *e)
{
	static struct gclk_state flat;
	struct gclk_state *taken = NULL;
	static uint8_t bytes[1 << 16];
	size_t used = 0;
	int r;

	/* of one vCPU, of which nothing is known */
	memset(&flat, 0, sizeof(flat));
	flat.n_vcpus = 1;
	memcpy(bytes, &flat, sizeof(flat));
	r = gclk_state_unflatten(bytes, sizeof(bytes), &used, &taken, e);
	CU_ASSERT(r < 0 || used > sizeof(flat));
	gclk_state_free(taken);
	return r;
}

static int call_domain_read(struct gclk_error *e)
{
	static struct gclk_domain domain;

	return gclk_domain_read(xml, sizeof(xml) - 1, &domain, e);
}

static int call_domain_write(struct gclk_error *e)
{
	const struct gclk_domain_attribute set[] = { { "gap", "count" }, { "ticks", "" } };
	char *text = NULL;
	int r = gclk_domain_write_metadata(xml, sizeof(xml) - 1, set, 2, &text, e);

	CU_ASSERT(r == 0 ? text && strstr(text, "gap=\"count\"") : text == NULL);
	free(text);
	return r;
}

static int filter_all(struct gclk_filter *f, struct gclk_error *e)
{
	const uint8_t *p = stream, *bytes;
	size_t left = n_stream, pass, held, n;

	for (;;) {
		size_t piece = GCLK_MIN(left, (size_t)60000);
		int r = gclk_filter_push(f, p, piece, &pass, &held, e);

		if (r < 0) {
			return r;
		}
		p += pass + held;
		left -= pass + held;
		if (r == GCLK_FILTER_READY) {
			return gclk_filter_apply(f, NULL, &bytes, &n, e);
		}
		if (left == 0) {
			return 0;
		}
	}
}

static int call_filter(struct gclk_error *e)
{
	const struct gclk_filter_options options = { .unreadable = GCLK_FILTER_REFUSE,
						     .one_way = 1 };
	struct gclk_filter *f = NULL;
	int r = gclk_filter_new(&options, &f, e);

	if (r == 0) {
		r = filter_all(f, e);
	}
	gclk_filter_free(f);
	return r;
}

static int call_key_new(struct gclk_error *e)
{
	struct gclk_seal_key *made = NULL;
	int r = gclk_seal_key_new(&made, e);

	CU_ASSERT(r == 0 || made == NULL);
	gclk_seal_key_free(made);
	return r;
}

static int call_key_parse(struct gclk_error *e)
{
	struct gclk_seal_key *made = NULL;
	int r = gclk_seal_key_parse(pem, strlen(pem), &made, e);

	CU_ASSERT(r == 0 || made == NULL);
	gclk_seal_key_free(made);
	return r;
}

static int call_key_text(struct gclk_error *e)
{
	char text[GCLK_SEAL_PEM_BYTES];

	return (int)GCLK_MIN(gclk_seal_key_text(key, 1, text, sizeof(text), e), INT64_C(0));
}

static int call_seal(struct gclk_error *e)
{
	static uint8_t to[1 << 16];
	uint8_t guest[GCLK_SEAL_GUEST_BYTES];
	int r = gclk_seal_guest(key, "guest", guest, e);

	return r < 0 ? r : (int)GCLK_MIN(gclk_seal(key, key, guest, 1, bundle_bytes, n_bundle, to,
						   sizeof(to), e), INT64_C(0));
}

static int call_unseal(struct gclk_error *e)
{
	static uint8_t to[1 << 16];
	int r;

	memset(to, 0, n_bundle);
	r = gclk_unseal(key, key, 0, sealed_bytes, n_sealed, to, sizeof(to), NULL, e);
	for (size_t i = 0; r < 0 && i < n_bundle; i++) {
		CU_ASSERT(to[i] == 0);
	}
	return r;
}

static const struct call {
	const char *name;
	int (*run)(struct gclk_error *e);
	bool is_crypto;		/* libcrypto may not say that it is memory which it lacks */
} calls[] = {
	{ "gclk_state_new, gclk_plan_new, gclk_bundle_new", call_state_new, 0 },
	{ "gclk_bundle_unpack", call_bundle_unpack, 0 },
	{ "gclk_state_unpack", call_state_unpack, 0 },
	{ "gclk_state_unflatten", call_unflatten, 0 },
	{ "gclk_bundle_set_state", call_set_state, 0 },
	{ "gclk_bundle_set_provenance", call_set_provenance, 0 },
	{ "gclk_bundle_set_host", call_set_host, 0 },
	{ "gclk_bundle_set_rewrite", call_set_rewrite, 0 },
	{ "gclk_bundle_set_plan", call_set_plan, 0 },
	{ "gclk_image_open, stream", call_open_stream, 0 },
	{ "gclk_image_open, libvirt", call_open_save, 0 },
	{ "gclk_image_open, xz", call_open_compressed, 0 },
	{ "gclk_image_open, page clock", call_open_page_clock, 0 },
	{ "gclk_image_list_snapshots", call_list_snapshots, 0 },
	{ "gclk_plan, gclk_image_encode", call_encode, 0 },
	{ "gclk_image_patch", call_patch, 0 },
	{ "gclk_image_patch, libvirt", call_patch_save, 0 },
	{ "gclk_image_late_begin, _write", call_late, 0 },
	{ "gclk_image_write", call_write, 0 },
	{ "gclk_image_undo", call_undo, 0 },
	{ "gclk_domain_read", call_domain_read, 0 },
	{ "gclk_domain_write_metadata", call_domain_write, 0 },
	{ "gclk_filter_*", call_filter, 0 },
	{ "gclk_seal_key_new", call_key_new, 1 },
	{ "gclk_seal_key_parse", call_key_parse, 1 },
	{ "gclk_seal_key_text", call_key_text, 1 },
	{ "gclk_seal_guest, gclk_seal", call_seal, 1 },
	{ "gclk_unseal", call_unseal, 1 },
};

static int run(const struct call *call, unsigned long at, bool all, struct gclk_error *e)
{
	int r;

	memset(e, 0, sizeof(*e));
	n_allocs = 0;
	fail_at = at;
	and_all_after = all;
	is_counting = true;
	r = call->run(e);
	is_counting = false;
	if (call->is_crypto) {
		OPENSSL_thread_stop();	/* which keeps its errors until it needs the room */
	}
	return r;
}

static bool is_expected(const struct call *call, int r, const struct gclk_error *e)
{
	return r >= 0 || (r == -GCLK_NOMEM && e->status == GCLK_NOMEM) ||
	       (r == -GCLK_SYS && e->sys_errno == ENOMEM) || r == -GCLK_UNPROVEN ||
	       (call->is_crypto && r == -GCLK_UNSUPPORTED);
}

static unsigned long each_allocation(const struct call *call, unsigned long *ret_refused)
{
	struct gclk_error e;
	unsigned long n;
	long live;

	for (unsigned i = 0; i < 3; i++) {	/* what others keep for ever they have then */
		CU_ASSERT(run(call, 0, false, &e) >= 0);
	}
	live = n_live;
	CU_ASSERT(run(call, 0, false, &e) >= 0);
	n = n_allocs;
	GCLK_EQ(n_live, live);
	for (unsigned long at = 1; at <= 2 * n; at++) {
		int r = run(call, (at + 1) / 2, at & 1, &e);

		*ret_refused += r < 0;
		if (!is_expected(call, r, &e) || n_live != live) {
			printf("\n    %s: allocation %lu of %lu%s: %d, %s: %s; %ld blocks lost\n",
			       call->name, (at + 1) / 2, n, at & 1 ? " and all after it" : "", r,
			       e.where, e.message, n_live - live);
			CU_FAIL();
			live = n_live;
		}
	}
	CU_ASSERT(run(call, 0, false, &e) >= 0);	/* and nothing has been spoilt */
	return n;
}

GCLK_TEST(alloc, every_allocation_fails_in_turn)
{
	unsigned long all = 0, refused = 0;

	prepare();
	for (unsigned i = 0; i < GCLK_COUNT(calls); i++) {
		unsigned long n, before = refused;

		n = each_allocation(&calls[i], &refused);
		CU_ASSERT(n > 0 || calls[i].is_crypto);
		printf("\n    %-50s %5lu allocations, %5lu of %5lu runs refused", calls[i].name, n,
		       refused - before, 2 * n);
		all += n;
	}
	printf("\n    %lu allocations, each alone and with all after it\n", all);
}
#endif
