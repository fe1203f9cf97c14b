/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cursor.h"
#include "gclk-test.h"
#include "image/qemu/vmdesc.h"
#include "stream-writer.h"

/* Sections with their description: bytes before the 00, text after 06 be32. */
struct sample { struct bytes all; size_t sections; const uint8_t *json; size_t n_json; };

static struct sample finish(struct devices *d)
{
	struct sample s = { .sections = d->bytes.n };

	devices_end(d, &s.all);
	s.json = s.all.p + s.sections + 6;
	s.n_json = s.all.n - s.sections - 6;
	return s;
}

static struct sample small(enum dialect dialect, bool footers)
{
	struct devices d;

	devices_begin(&d, dialect, footers);
	put_small_devices(&d);
	return finish(&d);
}

static struct gclk_vmdesc *parse(const void *json, size_t n)
{
	struct gclk_error err = { 0 };
	struct gclk_vmdesc *d = NULL;

	if (gclk_vmdesc_parse(json, n, &d, &err)) {
		printf("\n    %s at %lld\n", err.message, (long long)err.offset);
	}
	return d;
}

static bool refused(const char *json, int status)
{
	struct gclk_error err = { 0 };
	struct gclk_vmdesc *d = NULL;
	int r = gclk_vmdesc_parse(json, strlen(json), &d, &err);

	gclk_vmdesc_free(d);
	return r == -status && err.status == status && err.message[0];
}

/* The number at @path, or a value that no test uses. */
static uint64_t value(const struct gclk_vmdesc *d, const struct sample *s,
		      const char *section, uint64_t instance, const char *path)
{
	const struct gclk_vmdesc_section *sec =
		gclk_vmdesc_find(d, section, instance, NULL);
	struct gclk_vmdesc_field f;

	if (!sec || !gclk_vmdesc_field(d, sec, path, &f) ||
	    f.offset + f.size > s->sections) {
		return 0xdeadbeefdeadbeef;
	}
	return gclk_get_be(s->all.p + f.offset, f.size);
}

static void check_small(enum dialect dialect, bool footers)
{
	struct sample s = small(dialect, footers);
	struct gclk_vmdesc *d = parse(s.json, s.n_json);

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tail_size(d, footers), s.sections);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, footers, NULL), 0);
	GCLK_EQ(gclk_vmdesc_n_sections(d), 7);
	GCLK_EQ(value(d, &s, "timer", 0, "cpu_clock_offset"), 222);
	GCLK_EQ(value(d, &s, "cpu", 1, "env.tsc"), 1000001);
	GCLK_EQ(value(d, &s, "cpu", 0, "cpu/tsc_khz:env.tsc_khz"), 2400000);
	GCLK_EQ(value(d, &s, "cpu", 1, "cpu/nested:a"), 1);
	GCLK_EQ(value(d, &s, "cpu", 1, "cpu/nested:cpu/nested/inner:b"), 0xbeef);
	GCLK_EQ(value(d, &s, "i8254", 0, "channels[2].count"), 1195);
	GCLK_EQ(value(d, &s, "i8254", 0, "channels[0].next_transition_time"), 1000);
	GCLK_EQ(value(d, &s, "i8254", 0, "=channels[0].next_transition_time"), 77);
	GCLK_EQ(value(d, &s, "i8254", 0, "channels[0].irq_disabled"), 0);
	GCLK_EQ(value(d, &s, "hpet", 0, "timer[1].qemu_timer"), 5000);
	GCLK_EQ(value(d, &s, "piix4_pm", 0, "ar.tmr.timer"), 9000);
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

GCLK_TEST(vmdesc, every_dialect_tiles_and_finds_fields)
{
	for (int dialect = 0; dialect < N_DIALECTS; dialect++) {
		check_small((enum dialect)dialect, true);
		check_small((enum dialect)dialect, false);
	}
}

GCLK_TEST(vmdesc, renamed_field_is_there_under_its_new_name_only)
{
	struct sample s = small(DIALECT_8_2, true);
	struct gclk_vmdesc *d = parse(s.json, s.n_json);

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL), 0);
	GCLK_EQ(value(d, &s, "hpet", 0, "num_timers_save"), 3);
	GCLK_EQ(value(d, &s, "hpet", 0, "num_timers"), 0xdeadbeefdeadbeef);
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

GCLK_TEST(vmdesc, paths_that_lead_nowhere)
{
	static const char *const none[] = {
		"",
		"=",
		"channels[3].count",
		"channels[4294967296].count",
		"channels[-1].count",
		"channels[ 1].count",
		"channels[1]count",
		"channels[1",
		"channels.count",
		"channels[1].",
		"channels[1].counter",
		"counts",
		"i8254/x:count",
		":",
		".",
		"=channels[2].next_transition_time",
		"=channels[1].count]",
	};
	struct sample s = small(DIALECT_7_2, true);
	struct gclk_vmdesc *d = parse(s.json, s.n_json);
	struct gclk_vmdesc_field f;

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL), 0);
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++) {
		const struct gclk_vmdesc_section *sec =
			gclk_vmdesc_find(d, "i8254", 0, NULL);
		bool found = gclk_vmdesc_field(d, sec, none[i], &f);

		if (found) {
			printf("\n    found: %s\n", none[i]);
		}
		CU_ASSERT(!found);
	}
	CU_ASSERT_PTR_NULL(gclk_vmdesc_find(d, "i8254", 1, NULL));
	CU_ASSERT_PTR_NULL(gclk_vmdesc_find(d, "0000:00:01.3/piix4_pm", 0, NULL));
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

GCLK_TEST(vmdesc, sections_are_found_by_base_name_one_after_the_other)
{
	struct devices w;
	struct sample s;
	struct gclk_vmdesc *d;
	const struct gclk_vmdesc_section *a, *b;

	devices_begin(&w, DIALECT_7_2, true);
	device_begin(&w, "0000:00:03.0/wdt", 0, "wdt", 1);
	field_be(&w, "x", "uint8", 1, 1);
	device_end(&w);
	device_begin(&w, "0000:00:02.0:00.0/wdt", 0, "wdt", 1);
	field_be(&w, "x", "uint8", 2, 1);
	device_end(&w);
	s = finish(&w);
	d = parse(s.json, s.n_json);
	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL), 0);
	a = gclk_vmdesc_find(d, "wdt", 0, NULL);
	b = gclk_vmdesc_find(d, "wdt", GCLK_VMDESC_ANY, a);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b);
	CU_ASSERT_STRING_EQUAL(a->name, "0000:00:03.0/wdt");
	CU_ASSERT_STRING_EQUAL(b->name, "0000:00:02.0:00.0/wdt");
	CU_ASSERT_PTR_NULL(gclk_vmdesc_find(d, "wdt", 0, b));
	GCLK_EQ(s.all.p[b->payload], 2);
	GCLK_EQ(b->payload_size, 1);
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

static int count_timers(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	static const char *const paths[] = {
		"timer[0].qemu_timer", "timer[1].qemu_timer", "timer[2].qemu_timer",
		"ar.tmr.timer",
	};
	int *n = ctx;

	CU_ASSERT_FATAL(*n < 4);
	CU_ASSERT_STRING_EQUAL(leaf->path, paths[*n]);
	CU_ASSERT_STRING_EQUAL(leaf->section->base, *n < 3 ? "hpet" : "piix4_pm");
	GCLK_EQ(leaf->size, 8);
	return ++*n == 5;
}

GCLK_TEST(vmdesc, walk_lists_the_timers_of_all_devices)
{
	struct sample s = small(DIALECT_7_2, true);
	struct gclk_vmdesc *d = parse(s.json, s.n_json);
	int n = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL), 0);
	GCLK_EQ(gclk_vmdesc_walk(d, "timer", count_timers, &n), 0);
	GCLK_EQ(n, 4);
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

/*
 * What other versions and other devices write, by hand: opaque types with repeated keys,
 * tmp with its fields beside, null pointers in an array of pointers (10.x), an early
 * device, a field and a subsection in a struct, escapes, unknown keys of any shape.
 */
GCLK_TEST(vmdesc, opaque_and_odd_fields)
{
	static const char json[] =
		"{\"x\": [1, -2.5e+3, true, null, {\"y\": []}], \"devices\": ["
		"{\"name\": \"p/virtio-mem-device-early\", \"instance_id\": 0, "
		"\"fields\": ["
		"{\"name\": \"size\", \"size\": 44, \"type\": \"buffer\"}]},"
		"{\"name\": \"\\u0064ev\", \"instance_id\": -1, \"vmsd_name\": \"v\", "
		"\"version\": 2, \"fields\": ["
		"{\"name\": \"q\", \"type\": \"qtailq\", \"vmsd_name\": \"e\", "
		"\"version\": 1,"
		" \"fields\": [{\"name\": \"n\", \"size\": 1, \"type\": \"uint8\"}],"
		" \"vmsd_name\": \"e\", \"version\": 1, \"fields\": [], \"size\": 5},"
		"{\"name\": \"t\", \"type\": \"tmp\", \"vmsd_name\": \"t\", \"version\": "
		"1,"
		" \"fields\": [{\"name\": \"n\", \"size\": 4, \"type\": \"uint32\"}], "
		"\"size\": 4},"
		"{\"name\": \"ptr\", \"array_len\": 2, \"type\": \"nullptr\", \"size\": "
		"1},"
		"{\"name\": \"ptr\", \"type\": \"struct\", \"struct\": {\"vmsd_name\": "
		"\"s\","
		" \"version\": 1, \"fields\": [{\"name\": \"v\", \"type\": \"uint16\", "
		"\"size\": 2}],"
		" \"subsections\": [{\"vmsd_name\": \"s/u\", \"version\": 9, \"fields\":"
		" [{\"name\": \"w\", \"type\": \"uint8\", \"size\": 1}]}]}, \"size\": "
		"12},"
		"{\"name\": \"ptr\", \"type\": \"nullptr\", \"size\": 1},"
		"{\"name\": \"unused[0]\", \"type\": \"unused_buffer\", \"size\": 0},"
		"{\"name\": \"i\", \"index\": 0, \"type\": \"uint8\", \"size\": 1},"
		"{\"name\": \"i\", \"index\": 7, \"type\": \"uint8\", \"size\": 1}"
		"]}]}";
	static const uint8_t bytes[] =
		"\x04\0\0\0\x09\x03" "dev\xff\xff\xff\xff\0\0\0\x02"
		"QQQQQ" "TTTT" "00" "VV" "\x05\x03s/u\0\0\0\x09" "W" "0" "ab"
		"\x7e\0\0\0\x09";
	struct gclk_vmdesc *d = parse(json, strlen(json));
	struct gclk_vmdesc_field f = { 0 };
	const struct gclk_vmdesc_section *s;

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tail_size(d, true), sizeof(bytes) - 1);
	GCLK_EQ(gclk_vmdesc_tile(d, bytes, sizeof(bytes) - 1, true, NULL), 0);
	GCLK_EQ(gclk_vmdesc_n_sections(d), 2);
	CU_ASSERT(gclk_vmdesc_section(d, 0)->early);
	CU_ASSERT_PTR_NULL(gclk_vmdesc_find(d, "virtio-mem-device-early", 0, NULL));
	s = gclk_vmdesc_find(d, "dev", UINT32_MAX, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	GCLK_EQ(s->id, 9);
	CU_ASSERT(gclk_vmdesc_field(d, s, "q", &f) && f.size == 5);
	CU_ASSERT(!gclk_vmdesc_field(d, s, "t.n", &f));
	CU_ASSERT(gclk_vmdesc_field(d, s, "ptr[1]", &f) && !strcmp(f.type, "nullptr"));
	CU_ASSERT(gclk_vmdesc_field(d, s, "ptr[2].v", &f) && bytes[f.offset] == 'V');
	CU_ASSERT(gclk_vmdesc_field(d, s, "ptr[2].s/u:w", &f) && bytes[f.offset] == 'W');
	CU_ASSERT(gclk_vmdesc_field(d, s, "ptr[2].s/u:", &f) && bytes[f.offset] == 'W' &&
		  f.size == 1);
	CU_ASSERT(gclk_vmdesc_field(d, s, "ptr[3]", &f) && bytes[f.offset] == '0');
	CU_ASSERT(gclk_vmdesc_field(d, s, "i[7]", &f) && bytes[f.offset] == 'b');
	CU_ASSERT(!gclk_vmdesc_field(d, s, "i[1]", &f));
	gclk_vmdesc_free(d);
}

GCLK_TEST(vmdesc, contradictions_are_refused)
{
	static const char *const bad[] = {
		"{}",
		"[]",
		"{\"devices\": {}}",
		"{\"devices\": [1]}",
		"{\"devices\": [{}]}",
		"x",
		"{\"devices\": [] ",
		"{\"devices\": []} x",
		"{\"devices\": [],}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"name\": \"b\"}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"size\": 1}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"size\": 2, \"fields\": "
		"[{\"name\": \"b\", \"size\": 1}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"name\": \"b\", "
		"\"size\": -1}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"name\": \"b\", "
		"\"size\": 1.5}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": "
		"[{\"name\": \"b\", \"size\": 9223372036854775808}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"name\": \"b\", "
		"\"size\": "
		"4294967295},{\"name\": \"c\", \"size\": 1}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"fields\": [{\"name\": \"b\", "
		"\"size\": 3, "
		"\"struct\": {\"fields\": [{\"name\": \"c\", \"size\": 4}]}}]}]}",
		"{\"devices\": [{\"name\": \"a\", \"subsections\": [{\"version\": 1}]}]}",
		"{\"devices\": [{\"name\": \"a\\q\"}]}",
		"{\"devices\": [{\"name\": \"a\\u00\"}]}",
		"{\"devices\": [{\"name\": \"a\\u0000\"}]}",
		"{\"devices\": [{\"name\": \"a\n\"}]}",
		"{\"devices\": [{\"name\": \"a\\u001b[2J\"}]}",
		"{\"devices\": [{\"name\": \"\\n\"}]}",
		"{\"devices\": [{\"name\" \"a\"}]}",
		"{\"devices\": [{\"name\": \"a\"} {}]}",
		"{\"devices\": [{\"name\": \"",
		"{\"devices\": [{\"name\": \"\\",
		"\"devices\": []",
		"",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		bool ok = refused(bad[i], GCLK_MALFORMED);

		if (!ok) {
			printf("\n    not refused: %s\n", bad[i]);
		}
		CU_ASSERT(ok);
	}
}

/* Limits: depth, nodes, length, and arrays of arrays that would never end. */
GCLK_TEST(vmdesc, bombs_are_refused)
{
	struct bytes b = { 0 };
	struct gclk_vmdesc *d = NULL;
	struct gclk_error err;
	clock_t start = clock();

	for (int i = 0; i < 1000000; i++) {
		put_text(&b, i % 2 ? "[" : "{\"a\":");
	}
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_MALFORMED);
	b.n = 0;
	put_text(&b,
		 "{\"devices\":[{\"name\":\"a\",\"fields\":[{\"name\":\"\",\"size\":0}");
	for (int i = 0; i < 500000; i++) {
		put_text(&b, ",{\"name\":\"\",\"size\":0}");
	}
	put_text(&b, "]}]}");
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_MALFORMED);
	b.n = 0;
	put_text(&b,
		 "{\"devices\":[{\"name\":\"a\",\"fields\":[{\"name\":\"s\",\"size\":1,"
		 "\"array_len\":4000000,\"struct\":{\"fields\":[{\"name\":\"x\",\"size\":"
		 "1}");
	for (int i = 0; i < 1000; i++) {
		put_text(&b, ",{\"name\":\"y\",\"size\":0}");
	}
	put_text(&b, "]}}]}]}");
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_MALFORMED);
	b.n = 0;
	put_text(&b, "{\"devices\":[{\"name\":\"a\",\"fields\":[{\"name\":\"s\",\"size\":"
		     "4294967295,"
		     "\"array_len\":4294967295}]}]}");
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_MALFORMED);
	b.n = 0;
	put_text(&b, "{\"devices\":[{\"name\":\"a\"}");
	for (int i = 0; i < 40; i++) {	/* each below the limit, not all of them */
		put_text(&b, ",{\"name\":\"b\",\"fields\":[{\"name\":\"s\",\"size\":1,"
			     "\"array_len\":2000,\"struct\":{\"fields\":[{\"name\":\"x\","
			     "\"size\":1}");
		for (int k = 0; k < 120; k++) {
			put_text(&b, ",{\"name\":\"y\",\"size\":0}");
		}
		put_text(&b, "]}}]}");
	}
	put_text(&b, "]}");
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_MALFORMED);
	b.n = 0;
	put_zero(&b, GCLK_VMDESC_MAX_BYTES + 1);
	GCLK_EQ(gclk_vmdesc_parse(b.p, b.n, &d, &err), -GCLK_UNSUPPORTED);
	CU_ASSERT_PTR_NULL(d);
	CU_ASSERT(clock() - start < 20 * CLOCKS_PER_SEC);
	bytes_free(&b);
}

GCLK_TEST(vmdesc, truncated_text_is_refused_at_every_length)
{
	struct sample s = small(DIALECT_7_2, true);

	for (size_t n = 0; n < s.n_json; n++) {
		struct gclk_vmdesc *d = NULL;
		struct gclk_error err = { 0 };

		GCLK_EQ(gclk_vmdesc_parse(s.json, n, &d, &err), -GCLK_MALFORMED);
		CU_ASSERT(err.offset <= n);
	}
	bytes_free(&s.all);
}

static int nothing(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	const struct sample *s = ctx;

	CU_ASSERT_FATAL(leaf->offset <= s->sections &&
			leaf->size <= s->sections - leaf->offset);
	return 0;
}

/* Whatever the text became, what still tiles stays inside the bytes. */
GCLK_TEST(vmdesc, flipped_text_never_leaves_the_bytes)
{
	struct sample s = small(DIALECT_7_2, true);
	struct bytes text = { 0 };
	unsigned tiled = 0, parsed = 0;

	put(&text, s.json, s.n_json);
	for (size_t at = 0; at < text.n * 8; at++) {
		struct gclk_vmdesc *d = NULL;

		text.p[at / 8] ^= (uint8_t)(1u << at % 8);
		if (!gclk_vmdesc_parse(text.p, text.n, &d, NULL)) {
			parsed++;
			if (!gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL)) {
				tiled++;
				GCLK_EQ(gclk_vmdesc_walk(d, NULL, nothing, &s), 0);
			}
			gclk_vmdesc_free(d);
		}
		text.p[at / 8] ^= (uint8_t)(1u << at % 8);
	}
	CU_ASSERT(parsed > tiled && tiled > 0);
	bytes_free(&text);
	bytes_free(&s.all);
}

/* Flips in the sections: a changed frame is refused, a changed value is not. */
GCLK_TEST(vmdesc, flipped_frames_are_refused_and_values_are_not)
{
	struct sample s = small(DIALECT_7_2, true);
	struct gclk_vmdesc *d = parse(s.json, s.n_json);
	uint8_t *value_byte = calloc(1, s.sections);
	size_t n_values = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, true, NULL), 0);
	for (size_t i = 0; i < gclk_vmdesc_n_sections(d); i++) {
		const struct gclk_vmdesc_section *sec = gclk_vmdesc_section(d, i);

		memset(value_byte + sec->payload, 1, sec->payload_size);
		if (!strcmp(sec->base, "slirp")) { /* no version in its description */
			memset(value_byte + sec->payload - 4, 1, 4);
		}
		for (size_t k = sec->payload; k < sec->payload + sec->payload_size; k++) {
			static const char *const names[] = {
				"cpu/tsc_khz", "cpu/nested", "cpu/nested/inner" };

			for (int j = 0; j < 3; j++) {	/* subsection headers are frame */
				size_t n = strlen(names[j]);

				if (s.all.p[k] == 5 && s.all.p[k + 1] == n &&
				    !memcmp(s.all.p + k + 2, names[j], n)) {
					memset(value_byte + k, 0, n + 6);
				}
			}
		}
		memset(value_byte + sec->offset + 1, 0, 4);
	}
	for (size_t at = 0; at < s.sections; at++) {
		struct gclk_error err = { 0 };
		int r;

		s.all.p[at] ^= 0x10;
		r = gclk_vmdesc_tile(d, s.all.p, s.sections, true, &err);
		s.all.p[at] ^= 0x10;
		n_values += value_byte[at];
		if ((r == 0) != value_byte[at]) {
			printf("\n    flip at %zu: %d (%s)\n", at, r, err.message);
		}
		CU_ASSERT((r == 0) == value_byte[at]);
		CU_ASSERT(r == 0 || err.offset <= s.sections);
	}
	CU_ASSERT(n_values > 100);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections - 1, true, NULL),
		-GCLK_MALFORMED);
	GCLK_EQ(gclk_vmdesc_tile(d, s.all.p, s.sections, false, NULL), -GCLK_MALFORMED);
	free(value_byte);
	gclk_vmdesc_free(d);
	bytes_free(&s.all);
}

/* --- random trees: what the writer wrote where is what the path finds --- */

/* snprintf() into a path that is long enough. */
__attribute__((format(printf, 3, 4)))
static void print(char *to, size_t n, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	CU_ASSERT_FATAL(vsnprintf(to, n, format, args) < (int)n);
	va_end(args);
}

struct note { char path[512]; uint32_t offset, size; };

struct notes { struct note *p; size_t n; };

static void note(struct notes *notes, const char *path, size_t offset, size_t size)
{
	struct note *n;

	notes->p = realloc(notes->p, (notes->n + 1) * sizeof(*n));
	n = &notes->p[notes->n++];
	print(n->path, sizeof(n->path), "%s", path);
	n->offset = (uint32_t)offset;
	n->size = (uint32_t)size;
}

static void random_fields(struct devices *d, struct notes *notes, const char *prefix,
			  unsigned depth, uint64_t shape);

/* The same shape for every element: drawn from @shape, not from the generator. */
static uint64_t draw(uint64_t *shape, uint64_t n)
{
	*shape = *shape * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (*shape >> 33) % n;
}

static void random_scalar(struct devices *d, struct notes *notes, const char *path,
			  const char *name, uint64_t *shape)
{
	size_t size = 1 + draw(shape, 9), count = draw(shape, 4) ? 1 : 2 + draw(shape, 4);
	uint8_t p[64];
	char element[300];

	for (size_t i = 0; i < sizeof(p); i++) {
		p[i] = (uint8_t)gclk_random();
	}
	for (size_t i = 0; i < count; i++) {
		print(element, sizeof(element), count > 1 ? "%s[%zu]" : "%s", path, i);
		note(notes, element, d->bytes.n + i * size, size);
	}
	field_array(d, name, draw(shape, 3) ? "uint" : "timer", size, count, p);
}

static void random_struct(struct devices *d, struct notes *notes, const char *path,
			  const char *name, unsigned depth, uint64_t *shape)
{
	int count = draw(shape, 2) ? 1 : 2 + (int)draw(shape, 3);
	uint64_t inner = draw(shape, 1u << 30);
	char element[420];

	if (draw(shape, 3) == 0) {	/* listed one by one, each its own shape */
		for (int i = 0; i < count; i++) {
			struct_begin(d, name, "some", 1, i);
			print(element, sizeof(element), "%s[%d].", path, i);
			random_fields(d, notes, element, depth, inner + (unsigned)i);
			struct_end(d);
		}
		return;
	}
	struct_begin(d, name, "some", count, -1);
	for (int i = 0; i < count; i++) {
		if (i) {
			struct_element(d);
		}
		print(element, sizeof(element), count > 1 ? "%s[%d]." : "%s.", path,
			 i);
		random_fields(d, notes, element, depth, inner);
	}
	struct_end(d);
}

static void random_fields(struct devices *d, struct notes *notes, const char *prefix,
			  unsigned depth, uint64_t shape)
{
	unsigned n = 1 + (unsigned)draw(&shape, 4);
	char path[400], name[16];

	for (unsigned i = 0; i < n; i++) {
		print(name, sizeof(name), draw(&shape, 3) ? "f%u" : "env.f%u", i);
		print(path, sizeof(path), "%s%s", prefix, name);
		if (depth && draw(&shape, 3) == 0) {
			random_struct(d, notes, path, name, depth - 1, &shape);
		} else {
			random_scalar(d, notes, path, name, &shape);
		}
	}
	if (depth && draw(&shape, 3) == 0) {
		subsections_begin(d);
		for (unsigned i = 0; i <= draw(&shape, 2); i++) {
			print(name, sizeof(name), "dev/s%u", i);
			print(path, sizeof(path), "%s%s:", prefix, name);
			subsection_begin(d, name, i);
			random_fields(d, notes, path, depth - 1, draw(&shape, 1u << 30));
			subsection_end(d);
		}
	}
}

struct seen { const struct notes *notes; size_t n; };

static int compare(void *ctx, const struct gclk_vmdesc_leaf *leaf)
{
	struct seen *seen = ctx;
	const struct note *n = &seen->notes->p[seen->n];

	CU_ASSERT_FATAL(seen->n < seen->notes->n);
	GCLK_EQ(leaf->offset, n->offset);
	if (leaf->size > 1 && n->size == 1) {
		seen->n += leaf->size;	/* an array of bytes is one leaf */
		return 0;
	}
	CU_ASSERT_STRING_EQUAL(leaf->path, n->path);
	GCLK_EQ(leaf->size, n->size);
	seen->n++;
	return 0;
}

GCLK_TEST(vmdesc, random_trees)
{
	for (unsigned round = 0; round < 300 * gclk_test_scale(); round++) {
		struct notes notes = { 0 };
		struct devices w;
		struct sample s;
		struct gclk_vmdesc *d;
		struct gclk_error err = { 0 };
		struct seen seen = { &notes, 0 };
		bool footers = gclk_random_below(2);

		devices_begin(&w, (enum dialect)gclk_random_below(N_DIALECTS), footers);
		device_begin(&w, "dev", 0, "dev", 1);
		random_fields(&w, &notes, "", 3, gclk_random());
		device_end(&w);
		s = finish(&w);
		d = parse(s.json, s.n_json);
		CU_ASSERT_PTR_NOT_NULL_FATAL(d);
		if (gclk_vmdesc_tile(d, s.all.p, s.sections, footers, &err)) {
			printf("\n    %s at %llu\n", err.message,
			       (unsigned long long)err.offset);
			CU_ASSERT_FATAL(0);
		}
		for (size_t i = 0; i < notes.n; i++) {
			struct gclk_vmdesc_field f = { 0 };

			CU_ASSERT(gclk_vmdesc_field(d, gclk_vmdesc_section(d, 0),
						    notes.p[i].path, &f));
			GCLK_EQ(f.offset, notes.p[i].offset);
			GCLK_EQ(f.size, notes.p[i].size);
		}
		GCLK_EQ(gclk_vmdesc_walk(d, NULL, compare, &seen), 0);
		GCLK_EQ(seen.n, notes.n);
		gclk_vmdesc_free(d);
		bytes_free(&s.all);
		free(notes.p);
	}
}
