/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cursor.h"
#include "core/error.h"
#include "gclk-test.h"
#include "image/qcow2.h"
#include "image/raw.h"
#include "image/record.h"
#include "memory-io.h"

/* ---- a small image of our own ---- */

/*
 * Clusters of 512 bytes, L2 tables of 64 entries (32 KiB each), a disk of 32 KiB:
 *	0 header  1 refcount table  2 refcount block  3 active L1  4 snapshot L1
 *	5 snapshot table  6 L2 of the vm state  7 ... the vm state
 */
#define CLUSTER 512
#define STATE_AT 7

static void set_count(struct memory *m, uint64_t cluster, uint16_t count)
{
	gclk_put_be16(m->bytes + 2 * CLUSTER + 2 * cluster, count);
}

static struct memory new_image(uint64_t vm_state_bytes)
{
	uint64_t n = (vm_state_bytes + CLUSTER - 1) / CLUSTER;
	struct memory m = { 0 };
	uint8_t *h, *s;

	memory_set_size(&m, (STATE_AT + n) * CLUSTER);
	h = m.bytes;
	memcpy(h, "QFI\xfb\0\0\0\3", 8);
	gclk_put_be32(h + 20, 9);
	gclk_put_be64(h + 24, 32768);
	gclk_put_be32(h + 36, 2);
	gclk_put_be64(h + 40, 3 * CLUSTER);
	gclk_put_be64(h + 48, 1 * CLUSTER);
	gclk_put_be32(h + 56, 1);
	gclk_put_be32(h + 60, 1);
	gclk_put_be64(h + 64, 5 * CLUSTER);
	gclk_put_be32(h + 96, 4);
	gclk_put_be32(h + 100, 104);
	gclk_put_be64(m.bytes + CLUSTER, 2 * CLUSTER);
	gclk_put_be64(m.bytes + 4 * CLUSTER + 8, 6 * CLUSTER);
	s = m.bytes + 5 * CLUSTER;
	gclk_put_be64(s, 4 * CLUSTER);
	gclk_put_be32(s + 8, 2);
	gclk_put_be16(s + 12, 1);
	gclk_put_be16(s + 14, 4);
	gclk_put_be32(s + 16, 1700000000);
	gclk_put_be32(s + 20, 123456789);
	gclk_put_be64(s + 24, 987654321);
	gclk_put_be32(s + 36, 24);
	gclk_put_be64(s + 40, vm_state_bytes);
	gclk_put_be64(s + 48, 32768);
	gclk_put_be64(s + 56, UINT64_MAX);
	memcpy(s + 64, "1name", 5);
	for (uint64_t i = 0; i < n; i++) {
		gclk_put_be64(m.bytes + 6 * CLUSTER + 8 * i, (STATE_AT + i) * CLUSTER);
	}
	for (uint64_t i = 0; i < STATE_AT + n; i++) {
		set_count(&m, i, 1);
	}
	for (uint64_t i = 0; i < vm_state_bytes; i++) {
		m.bytes[STATE_AT * CLUSTER + i] = (uint8_t)gclk_random();
	}
	return m;
}

static struct gclk_qcow2 *open_memory(struct memory *m, struct gclk_error *e)
{
	struct gclk_io io = memory_io(m);
	struct gclk_qcow2 *q = NULL;

	if (gclk_qcow2_open(&io, &q, e) == 0 && gclk_qcow2_select(q, NULL, e) < 0) {
		q = gclk_qcow2_free(q);
	}
	return q;
}

GCLK_TEST(qcow2, table_and_state_are_read)
{
	struct memory m = new_image(5000);
	const struct gclk_qcow2_snapshot *s;
	struct gclk_qcow2 *q = open_memory(&m, NULL);
	struct gclk_io io;
	uint8_t buf[5000];
	uint64_t size;
	size_t n;

	s = gclk_qcow2_snapshots(q, &n);
	GCLK_EQ(n, 1);
	CU_ASSERT_STRING_EQUAL(s->id, "1");
	CU_ASSERT_STRING_EQUAL(s->name, "name");
	GCLK_EQ(s->date_ns, 1700000000123456789);
	GCLK_EQ(s->vm_clock_ns, 987654321);
	GCLK_EQ(s->vm_state_bytes, 5000);
	CU_ASSERT(s->icount == UINT64_MAX);
	GCLK_EQ(gclk_qcow2_vm_state_offset(q), 32768);
	GCLK_EQ(gclk_qcow2_check_writable(q, NULL), 0);
	GCLK_EQ(gclk_qcow2_check_range(q, 0, 5000, NULL), 0);
	GCLK_EQ(gclk_qcow2_check_range(q, 1, 5000, NULL), -GCLK_RANGE);
	io = gclk_qcow2_vm_state(q);
	GCLK_EQ(io.size(io.ctx, &size, NULL), 0);
	GCLK_EQ(size, 5000);
	GCLK_EQ(io.read(io.ctx, 0, buf, 5000, NULL), 0);
	CU_ASSERT(!memcmp(buf, m.bytes + STATE_AT * CLUSTER, 5000));
	GCLK_EQ(io.read(io.ctx, 4999, buf, 2, NULL), -GCLK_TRUNCATED);
	gclk_qcow2_free(q);
	q = open_memory(&m, NULL);
	GCLK_EQ(gclk_qcow2_select(q, "name", NULL), 0);
	GCLK_EQ(gclk_qcow2_select(q, "1", NULL), 0);
	GCLK_EQ(gclk_qcow2_select(q, "2", NULL), -GCLK_STATE);
	gclk_qcow2_free(q);
	memory_free(&m);
}

static struct gclk_patch patch_at(struct memory *m, uint64_t offset, uint32_t n,
				  uint8_t *store)
{
	memcpy(store, m->bytes + STATE_AT * CLUSTER + offset, n);
	for (uint32_t i = 0; i < n; i++) {
		store[n + i] = (uint8_t)(store[i] + 1);
	}
	return (struct gclk_patch){ offset, n, n, store, store + n };
}

static int rewrite(struct memory *m, const struct gclk_patch *p, size_t n, size_t n_payload,
		   struct gclk_error *e)
{
	struct gclk_qcow2 *q = open_memory(m, e);
	uint8_t payload[4096] = "payload";
	struct gclk_io io;
	int r;

	if (!q) {
		return -1;
	}
	io = gclk_qcow2_vm_state(q);
	r = gclk_undo_apply(&io, gclk_qcow2_selected(q)->vm_state_bytes, p, n, payload, n_payload,
			    e);
	gclk_qcow2_free(q);
	return r;
}

static int take_back(struct memory *m, struct gclk_error *e)
{
	struct gclk_qcow2 *q = open_memory(m, e);
	struct gclk_io io;
	int r;

	if (!q) {
		return -1;
	}
	io = gclk_qcow2_vm_state(q);
	r = gclk_undo_revert(&io, gclk_qcow2_selected(q)->vm_state_bytes, e);
	gclk_qcow2_free(q);
	return r;
}

/* Every cluster that the vm state's L2 table points to must be counted once. */
static bool is_consistent(const struct memory *m)
{
	for (unsigned i = 0; i < 64; i++) {
		uint64_t host = gclk_get_be64(m->bytes + 6 * CLUSTER + 8 * i) & ~(UINT64_C(1) << 63);

		if (host & ~UINT64_C(1) && gclk_get_be16(m->bytes + 2 * CLUSTER + host / CLUSTER * 2) != 1) {
			return false;
		}
	}
	return true;
}

/* The room may lie in the last cluster, across its end, or wholly behind it. */
static const uint64_t sizes[] = { 5000, 5110, 5120, 5121, 4608 + 464, 4608 + 465, 200 };

GCLK_TEST(qcow2, rewrite_and_undo_is_identity)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (size_t payload = 0; payload < 4000; payload += 1999) {
			struct memory m = new_image(sizes[i]), before = memory_copy(&m);
			uint8_t store[3][64];
			struct gclk_patch p[3] = {
				patch_at(&m, 3, 8, store[0]), patch_at(&m, 100, 32, store[1]),
				patch_at(&m, sizes[i] - 8, 8, store[2]),
			};

			for (unsigned k = 0; k < 3; k++) {	/* and again, and again */
				GCLK_EQ(rewrite(&m, p + k % 2, 2, payload + 10 * k, NULL), 0);
				CU_ASSERT(is_consistent(&m));
				CU_ASSERT(!memcmp(m.bytes + STATE_AT * CLUSTER + 100, p[1].new_bytes,
						  32));
			}
			GCLK_EQ(take_back(&m, NULL), 0);
			CU_ASSERT(memory_same(&m, &before));
			GCLK_EQ(take_back(&m, NULL), GCLK_UNDO_NONE);
			memory_free(&m);
			memory_free(&before);
		}
	}
}

struct crash {
	const struct memory *before;
	unsigned n;
	uint64_t state_bytes;
};

static void check_crash(struct memory *image, void *ctx)
{
	struct crash *c = ctx;
	struct gclk_error e = { 0 };
	const uint8_t *want = c->before->bytes + STATE_AT * CLUSTER;
	int r;

	c->n++;
	CU_ASSERT(image->n >= STATE_AT * CLUSTER + c->state_bytes);
	CU_ASSERT(is_consistent(image));
	r = take_back(image, &e);
	if (r < 0 || memcmp(image->bytes + STATE_AT * CLUSTER, want, c->state_bytes)) {
		printf("\n    crash state %u: %d %s\n", c->n, r, e.message);
	}
	CU_ASSERT(r >= 0);
	CU_ASSERT(!memcmp(image->bytes + STATE_AT * CLUSTER, want, c->state_bytes));
	CU_ASSERT(is_consistent(image));
}

GCLK_TEST(qcow2, crash_anywhere_can_be_undone)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct memory before = new_image(sizes[i]), once = memory_copy(&before), log;
		uint8_t store[2][64];
		struct gclk_patch p[2] = { patch_at(&before, 9, 16, store[0]),
					   patch_at(&before, 90, 32, store[1]) };
		struct crash c = { &before, 0, sizes[i] };

		GCLK_EQ(rewrite(&once, p, 1, 700, NULL), 0);
		memory_crash_everywhere(&before, &once, check_crash, &c);
		log = memory_copy(&once);
		GCLK_EQ(rewrite(&log, p + 1, 1, 900, NULL), 0);
		memory_crash_everywhere(&once, &log, check_crash, &c);
		memory_free(&log);
		log = memory_copy(&once);
		GCLK_EQ(take_back(&log, NULL), 0);
		memory_crash_everywhere(&once, &log, check_crash, &c);
		CU_ASSERT(c.n > 300);
		memory_free(&log);
		memory_free(&once);
		memory_free(&before);
	}
}

static int room_for(struct memory *m, uint64_t n, struct gclk_error *e)
{
	struct gclk_qcow2 *q = open_memory(m, e);
	int r = q ? gclk_qcow2_check_room(q, n, e) : -1;

	gclk_qcow2_free(q);
	return r;
}

GCLK_TEST(qcow2, what_forbids_writing_is_named)
{
	struct memory m = new_image(5000);
	struct gclk_error e = { 0 };
	struct gclk_qcow2 *q;

	set_count(&m, STATE_AT + 2, 2);
	q = open_memory(&m, NULL);
	GCLK_EQ(gclk_qcow2_check_range(q, 0, 1024, &e), 0);
	GCLK_EQ(gclk_qcow2_check_range(q, 1023, 2, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "another snapshot"));
	/* unless it is the active layer that has the other share */
	gclk_put_be64(m.bytes + 3 * CLUSTER + 8, 6 * CLUSTER);
	GCLK_EQ(gclk_qcow2_check_range(q, 1024, 2, &e), 0);
	GCLK_EQ(gclk_qcow2_check_range(q, 0, 2, &e), -GCLK_UNSUPPORTED);
	gclk_qcow2_free(q);
	memory_free(&m);

	m = new_image(5000);
	m.bytes[79] = 1;
	q = open_memory(&m, NULL);
	GCLK_EQ(gclk_qcow2_check_writable(q, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "dirty"));
	gclk_qcow2_free(q);
	m.bytes[79] = 2;
	q = open_memory(&m, NULL);
	GCLK_EQ(gclk_qcow2_check_writable(q, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "corrupt"));
	gclk_qcow2_free(q);
	m.bytes[79] = 4;
	CU_ASSERT_PTR_NULL(open_memory(&m, &e));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "another file"));
	m.bytes[79] = 0;
	m.bytes[78] = 1;
	CU_ASSERT_PTR_NULL(open_memory(&m, &e));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "0x100"));
	m.bytes[78] = 0;
	m.bytes[35] = 2;
	CU_ASSERT_PTR_NULL(open_memory(&m, &e));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "encrypted"));
	m.bytes[35] = 0;
	/* the rest of an older vm state follows: room only in the last cluster */
	gclk_put_be64(m.bytes + 6 * CLUSTER + 8 * 10, STATE_AT * CLUSTER);
	GCLK_EQ(room_for(&m, 72, &e), 0);
	GCLK_EQ(room_for(&m, 73, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "no room"));
	/* a compressed cluster */
	gclk_put_be64(m.bytes + 6 * CLUSTER, UINT64_C(1) << 62 | 7 * CLUSTER);
	q = open_memory(&m, NULL);
	GCLK_EQ(gclk_qcow2_check_range(q, 0, 1, &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "compressed"));
	gclk_qcow2_free(q);
	memory_free(&m);
}

/* The vm state of 2^63 bytes, tables past the end, loops: refused or read, never followed. */
static void try_everything(struct memory *m)
{
	uint8_t *buf = malloc(70000);
	struct gclk_qcow2 *q = open_memory(m, NULL);
	struct gclk_patch p;
	struct gclk_io io;
	uint64_t size;

	if (q) {
		io = gclk_qcow2_vm_state(q);
		(void)io.size(io.ctx, &size, NULL);
		CU_ASSERT(size <= INT64_MAX);
		for (uint64_t at = 0; at < size && at < 4; at++) {
			(void)io.read(io.ctx, at, buf, (size_t)(size - at < 7000 ? size - at : 7000),
				      NULL);
			(void)io.read(io.ctx, size - 1 - at, buf, (size_t)at + 1, NULL);
		}
		(void)gclk_qcow2_check_writable(q, NULL);
		(void)gclk_qcow2_check_room(q, 2000, NULL);
		if (size >= 8 && io.read(io.ctx, 0, buf, 8, NULL) == 0 &&
		    gclk_qcow2_check_range(q, 0, 8, NULL) == 0) {
			memset(buf + 8, 1, 8);
			p = (struct gclk_patch){ 0, 8, 8, buf, buf + 8 };
			(void)gclk_undo_apply(&io, gclk_qcow2_selected(q)->vm_state_bytes, &p, 1,
					      NULL, 0, NULL);
		}
		gclk_qcow2_free(q);
	}
	free(buf);
}

GCLK_TEST(qcow2, hostile_tables_are_survived)
{
	struct memory good = new_image(5000);

	for (size_t i = 0; i < STATE_AT * CLUSTER; i++) {
		struct memory m = memory_copy(&good);

		if (i > 104 && i < CLUSTER) {
			i = CLUSTER;
		}
		m.bytes[i] ^= (uint8_t)(1 << (i % 8));
		try_everything(&m);
		m.bytes[i] = 0xff;
		if (m.n < 100000) {
			try_everything(&m);
		}
		memory_free(&m);
	}
	for (size_t n = 0; n < good.n; n += 1 + n / 40) {
		struct memory m = memory_copy(&good);

		memory_set_size(&m, n);
		try_everything(&m);
		memory_free(&m);
	}
	for (unsigned i = 0; i < 2000 * gclk_test_scale(); i++) {
		struct memory m = memory_copy(&good);
		static const uint64_t values[] = { UINT64_C(1) << 63, INT64_MAX, UINT64_MAX, 0, 512,
						   6 * 512, UINT64_C(1) << 55, 3584 };

		for (unsigned k = 0; k < 2; k++) {
			size_t at = gclk_random_below(STATE_AT * CLUSTER / 8) * 8;

			gclk_put_be64(m.bytes + at, values[gclk_random_below(8)]);
		}
		try_everything(&m);
		memory_free(&m);
	}
	memory_free(&good);
}

/* ---- QEMU's own ---- */

static char directory[] = "/tmp/gclk-qcow2-XXXXXX";

__attribute__((format(printf, 1, 2)))
static int run(const char *format, ...)
{
	char command[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static void clean_up(void)
{
	(void)!run("rm -rf %s", directory);
}

static bool have_qemu(void)
{
	static int have = -1;

	if (have < 0) {
		have = run("qemu-img --version >/dev/null 2>&1 && "
			   "qemu-system-x86_64 --version >/dev/null 2>&1") == 0;
		if (have && !mkdtemp(directory)) {
			have = 0;
		}
		if (have) {
			atexit(clean_up);
		}
	}
	if (!have) {
		gclk_test_skip("QEMU is not installed");
	}
	return have;
}

/* Commands of the monitor, separated by "\\n", while the machine is stopped or not. */
static int qemu(const char *options, const char *commands)
{
	return run("cd %s && printf '%s\\nquit\\n' | timeout 60 qemu-system-x86_64 -accel tcg -m 16 "
		   "-nodefaults -display none -drive file=x.qcow2,if=ide %s -monitor stdio "
		   ">log 2>&1 && ! grep -qi error log", directory, commands, options);
}

static int img(const char *command)
{
	return run("cd %s && qemu-img %s >/dev/null 2>&1", directory, command);
}

struct opened {
	int fd;
	struct gclk_qcow2 *q;
	struct gclk_io io;
	uint64_t size;
};

static struct opened open_file(const char *which)
{
	struct opened o = { .fd = -1 };
	char path[256];
	struct gclk_error e = { 0 };
	struct gclk_io file;

	snprintf(path, sizeof(path), "%s/x.qcow2", directory);
	o.fd = open(path, O_RDWR);
	file = gclk_io_file(o.fd);
	GCLK_EQ(gclk_qcow2_open(&file, &o.q, &e), 0);
	GCLK_EQ(o.q ? gclk_qcow2_select(o.q, which, &e) : -1, 0);
	if (e.message[0]) {
		printf("\n    %s\n", e.message);
	}
	o.io = gclk_qcow2_vm_state(o.q);
	o.size = gclk_qcow2_selected(o.q)->vm_state_bytes;
	return o;
}

static void close_file(struct opened *o)
{
	gclk_qcow2_free(o->q);
	close(o->fd);
}

/* A patch of eight bytes within the vmdesc, which QEMU does not read. */
static int patch_file(const char *which, size_t n_payload, uint8_t mark, struct gclk_error *e)
{
	struct opened o = open_file(which);
	uint8_t bytes[16], *payload = calloc(1, n_payload + 1);
	struct gclk_patch p = { o.size - 30, 8, 8, bytes, bytes + 8 };
	struct gclk_window w = { .read = o.io.read, .ctx = o.io.ctx };
	struct gclk_undo undo;
	int r;

	GCLK_EQ(o.io.size(o.io.ctx, &w.size, NULL), 0);
	r = gclk_undo_find(&w, o.size, &undo, e);
	if (r >= 0) {
		r = gclk_undo_original(&w, &undo, p.offset, bytes, 8, e);
		gclk_undo_free(&undo);
	}
	memset(bytes + 8, mark, 8);
	r = r < 0 ? r : gclk_qcow2_check_writable(o.q, e);
	r = r < 0 ? r : gclk_qcow2_check_range(o.q, p.offset, 8, e);
	r = r < 0 ? r : gclk_qcow2_check_room(o.q, 2 * (n_payload + 200), e);
	r = r < 0 ? r : gclk_undo_apply(&o.io, o.size, &p, 1, payload, n_payload, e);
	close_file(&o);
	free(payload);
	return r;
}

static int unpatch_file(const char *which)
{
	struct opened o = open_file(which);
	int r = gclk_undo_revert(&o.io, o.size, NULL);

	close_file(&o);
	return r;
}

/* The stream begins with its header and ends with the vmdesc that fills it to the byte. */
static void check_stream(const char *which)
{
	struct opened o = open_file(which);
	uint8_t *stream = malloc(o.size);
	bool ends = false;

	GCLK_EQ(o.io.read(o.io.ctx, 0, stream, o.size, NULL), 0);
	CU_ASSERT(!memcmp(stream, "QEVM\0\0\0\3", 8));
	for (uint64_t at = o.size - 8; at > 8 && !ends; at--) {
		ends = !stream[at - 2] && stream[at - 1] == 6 &&
		       gclk_get_be32(stream + at) == o.size - at - 4 && stream[at + 4] == '{';
	}
	CU_ASSERT(ends);
	free(stream);
	close_file(&o);
}

static const char *const formats[] = {
	"", "-o cluster_size=4k", "-o cluster_size=2M", "-o compat=0.10",
	"-o extended_l2=on,cluster_size=128k", "-o refcount_bits=64", "-o refcount_bits=2",
	"-o lazy_refcounts=on", "-b base.qcow2 -F qcow2", "-o preallocation=metadata",
};

GCLK_TEST(qcow2, images_of_qemu_are_read_rewritten_and_restored)
{
	if (!have_qemu()) {
		return;
	}
	GCLK_EQ(img("create -q -f qcow2 base.qcow2 16M"), 0);
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		char command[256];

		snprintf(command, sizeof(command), "create -q -f qcow2 %s x.qcow2 %s", formats[i],
			 i % 2 ? "17M" : "");
		if (!strstr(command, "17M") && !strstr(command, "base")) {
			strcat(command, "16M");
		}
		GCLK_EQ(img(command), 0);
		GCLK_EQ(qemu("", "savevm one"), 0);
		check_stream("one");
		for (size_t payload = 0; payload <= 100000; payload += 50000) {
			GCLK_EQ(run("cp --sparse=never %s/x.qcow2 %s/before.qcow2", directory,
				    directory), 0);
			GCLK_EQ(patch_file("one", payload, 'a', NULL), 0);
			GCLK_EQ(patch_file("one", payload / 2, 'b', NULL), 0);
			GCLK_EQ(img("check x.qcow2"), 0);
			GCLK_EQ(run("cp %s/x.qcow2 %s/rewritten.qcow2", directory, directory), 0);
			GCLK_EQ(qemu("-loadvm one", "info status"), 0);
			GCLK_EQ(img("check x.qcow2"), 0);
			/* the record is still there, and one can go on from it */
			GCLK_EQ(patch_file("one", payload, 'c', NULL), 0);
			GCLK_EQ(unpatch_file("one"), 0);
			GCLK_EQ(unpatch_file("one"), GCLK_UNDO_NONE);
			check_stream("one");
			GCLK_EQ(img("check x.qcow2"), 0);
			GCLK_EQ(qemu("-loadvm one", "info status"), 0);
			/* without a run in between undo restores the file to the byte */
			GCLK_EQ(run("mv %s/rewritten.qcow2 %s/x.qcow2", directory, directory), 0);
			GCLK_EQ(unpatch_file("one"), 0);
			GCLK_EQ(run("cmp %s/x.qcow2 %s/before.qcow2", directory, directory), 0);
		}
	}
}

/* A later snapshot inherits by copy on write what is not its own: it has no record. */
GCLK_TEST(qcow2, snapshots_do_not_get_each_others_records)
{
	if (!have_qemu()) {
		return;
	}
	GCLK_EQ(img("create -q -f qcow2 x.qcow2 16M"), 0);
	GCLK_EQ(qemu("", "savevm one"), 0);
	GCLK_EQ(patch_file("one", 70000, 'a', NULL), 0);
	GCLK_EQ(qemu("-loadvm one", "savevm two\\nsavevm three"), 0);
	GCLK_EQ(img("check x.qcow2"), 0);
	check_stream("two");
	check_stream("three");
	GCLK_EQ(unpatch_file("two"), GCLK_UNDO_NONE);
	GCLK_EQ(unpatch_file("three"), GCLK_UNDO_NONE);
	GCLK_EQ(patch_file("three", 100, 'd', NULL), 0);
	GCLK_EQ(unpatch_file("one"), 0);
	check_stream("one");
	GCLK_EQ(unpatch_file("three"), 0);
	GCLK_EQ(img("check x.qcow2"), 0);
	/* and deleting one frees its room with it */
	GCLK_EQ(patch_file("one", 70000, 'a', NULL), 0);
	GCLK_EQ(img("snapshot -d one x.qcow2"), 0);
	GCLK_EQ(img("check x.qcow2"), 0);
}

GCLK_TEST(qcow2, clusters_of_another_snapshot_are_refused)
{
	struct gclk_error e = { 0 };

	if (!have_qemu()) {
		return;
	}
	GCLK_EQ(img("create -q -f qcow2 x.qcow2 16M"), 0);
	GCLK_EQ(qemu("", "savevm one"), 0);
	GCLK_EQ(qemu("-loadvm one", "info status"), 0);
	GCLK_EQ(patch_file("one", 0, 'a', NULL), 0);	/* shared with the active layer only */
	GCLK_EQ(img("snapshot -c two x.qcow2"), 0);	/* which is a snapshot now */
	GCLK_EQ(patch_file("one", 0, 'b', &e), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "another snapshot"));
	GCLK_EQ(img("check x.qcow2"), 0);
}

GCLK_TEST(qcow2, a_running_machine_and_we_exclude_each_other)
{
	struct gclk_error e = { 0 };
	char path[256];
	FILE *monitor;
	int fd, r;

	if (!have_qemu()) {
		return;
	}
	snprintf(path, sizeof(path), "%s/x.qcow2", directory);
	GCLK_EQ(img("create -q -f qcow2 x.qcow2 16M"), 0);
	fd = open(path, O_RDWR);
	GCLK_EQ(gclk_file_lock(fd, "x", NULL), 0);
	CU_ASSERT(qemu("", "info status") != 0);
	CU_ASSERT(img("info x.qcow2") != 0);
	close(fd);
	GCLK_EQ(qemu("", "info status"), 0);
	snprintf(path, sizeof(path), "exec timeout 60 qemu-system-x86_64 -accel tcg -m 16 -S "
		 "-nodefaults -display none -drive file=%s/x.qcow2,if=ide -monitor stdio "
		 ">%s/log 2>&1", directory, directory);
	monitor = popen(path, "w");
	snprintf(path, sizeof(path), "%s/x.qcow2", directory);
	fd = open(path, O_RDWR);
	r = 0;
	for (unsigned i = 0; i < 200 && r == 0; i++) {	/* until it has opened it */
		int other = open(path, O_RDWR);

		usleep(50000);
		r = gclk_file_lock(other, "x", &e);
		close(other);
	}
	GCLK_EQ(r, -GCLK_STATE);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.message, "domain is on"));
	fputs("quit\n", monitor);
	pclose(monitor);
	GCLK_EQ(gclk_file_lock(fd, "x", NULL), 0);
	close(fd);
}

GCLK_TEST(qcow2, two_of_us_exclude_each_other)
{
	char path[] = "/tmp/gclk-lock-XXXXXX";
	int a = mkstemp(path), b = open(path, O_RDWR);

	GCLK_EQ(gclk_file_lock(a, "x", NULL), 0);
	GCLK_EQ(gclk_file_lock(b, "x", NULL), -GCLK_STATE);
	GCLK_EQ(gclk_file_lock(a, "x", NULL), 0);
	close(a);
	GCLK_EQ(gclk_file_lock(b, "x", NULL), 0);
	close(b);
	unlink(path);
}
