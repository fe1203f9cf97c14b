/* SPDX-License-Identifier: MIT */
#include <lzma.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/cursor.h"
#include "gclk-test.h"
#include "stream-writer.h"

static void reserve(struct bytes *b, size_t n)
{
	if (b->max - b->n >= n) {
		return;
	}
	b->max = (b->n + n) * 2;
	b->p = realloc(b->p, b->max);
	if (!b->p) {
		abort();
	}
}

void put(struct bytes *b, const void *p, size_t n)
{
	if (n) {
		reserve(b, n);
		memcpy(b->p + b->n, p, n);
		b->n += n;
	}
}

void put8(struct bytes *b, unsigned v)
{
	uint8_t byte = (uint8_t)v;

	put(b, &byte, 1);
}

void put16(struct bytes *b, unsigned v)
{
	put8(b, v >> 8);
	put8(b, v);
}

void put32(struct bytes *b, uint64_t v)
{
	put16(b, (unsigned)(v >> 16));
	put16(b, (unsigned)v);
}

void put64(struct bytes *b, uint64_t v)
{
	put32(b, v >> 32);
	put32(b, v);
}

void put_zero(struct bytes *b, size_t n)
{
	reserve(b, n);
	memset(b->p + b->n, 0, n);
	b->n += n;
}

void put_random(struct bytes *b, size_t n)
{
	while (n--) {
		put8(b, (unsigned)gclk_random());
	}
}

void put_text(struct bytes *b, const char *text)
{
	put(b, text, strlen(text));
}

void put_name(struct bytes *b, const char *name)
{
	put8(b, (unsigned)strlen(name));
	put_text(b, name);
}

void putf(struct bytes *b, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_text(b, text);
}

void bytes_free(struct bytes *b)
{
	free(b->p);
	*b = (struct bytes){ 0 };
}

void put_header(struct bytes *b, const char *machine)
{
	put32(b, 0x5145564d);
	put32(b, 3);
	if (machine) {
		put8(b, 7);
		put32(b, strlen(machine));
		put_text(b, machine);
	}
}

void put_command(struct bytes *b, unsigned number, const void *data, unsigned length)
{
	put8(b, 8);
	put16(b, number);
	put16(b, length);
	put(b, data, length);
}

void put_start(struct bytes *b, uint32_t id, const char *name, uint32_t instance,
	       uint32_t version)
{
	put8(b, 1);
	put32(b, id);
	put_name(b, name);
	put32(b, instance);
	put32(b, version);
}

void put_part(struct bytes *b, unsigned type, uint32_t id)
{
	put8(b, type);
	put32(b, id);
}

void put_footer(struct bytes *b, uint32_t id)
{
	put8(b, 0x7e);
	put32(b, id);
}

void put_page_word(struct bytes *b, const char *block, uint64_t offset, unsigned flag)
{
	put64(b, offset | flag | (block ? 0 : W_CONTINUE));
	if (block) {
		put_name(b, block);
	}
}

void put_eos(struct bytes *b)
{
	put64(b, W_EOS);
}

/* --- devices and their description --- */

static void json(struct devices *d, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void json(struct devices *d, const char *format, ...)
{
	char text[1024];
	va_list args;

	if (d->mute) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_text(&d->json, text);
}

/* A comma before every item but the first of a container. */
static void item(struct devices *d)
{
	if (!d->mute) {
		json(d, "%s",
		     d->comma[d->depth] ? d->dialect == DIALECT_4_2 ? " , " : ", " : "");
		d->comma[d->depth] = true;
	}
}

static const char *colon(const struct devices *d)
{
	return d->dialect == DIALECT_4_2 ? " : " : ": ";
}

static void begin(struct devices *d, const char *name, const char *bracket)
{
	item(d);
	if (name) {
		json(d, "\"%s\"%s", name, colon(d));
	}
	json(d, "%s%s", bracket, d->dialect == DIALECT_4_2 ? " " : "");
	d->comma[++d->depth] = false;
}

static void shut(struct devices *d, const char *bracket)
{
	json(d, "%s%s", d->dialect == DIALECT_4_2 ? " " : "", bracket);
	d->depth--;
}

static void text_member(struct devices *d, const char *name, const char *value)
{
	item(d);
	json(d, "\"%s\"%s\"%s\"", name, colon(d), value);
}

static void number_member(struct devices *d, const char *name, uint64_t value)
{
	item(d);
	json(d, "\"%s\"%s%llu", name, colon(d), (unsigned long long)value);
}

void devices_begin(struct devices *d, enum dialect dialect, bool footers)
{
	*d = (struct devices){ .dialect = dialect, .footers = footers, .id = 10 };
	if (dialect != DIALECT_NO_CONFIGURATION) {
		json(d, dialect == DIALECT_4_2 ? "{ " : "{");
	}
	d->depth = 1;
	if (dialect == DIALECT_8_2) {
		begin(d, "configuration", "{");
		text_member(d, "vmsd_name", "configuration");
		number_member(d, "version", 1);
		begin(d, "fields", "[");
		begin(d, NULL, "{");
		text_member(d, "name", "len");
		text_member(d, "type", "uint32");
		number_member(d, "size", 4);
		shut(d, "}");
		shut(d, "]");
		shut(d, "}");
	}
	number_member(d, "page_size", 4096);
	begin(d, "devices", "[");
}

void devices_end(struct devices *d, struct bytes *to)
{
	shut(d, "]");
	shut(d, "}");
	put(to, d->bytes.p, d->bytes.n);
	put8(to, 0);
	put8(to, 6);
	put32(to, d->json.n);
	put(to, d->json.p, d->json.n);
	bytes_free(&d->bytes);
	bytes_free(&d->json);
}

static void section_begin(struct devices *d, const char *name, uint32_t instance,
			  uint32_t version)
{
	put8(&d->bytes, 4);
	put32(&d->bytes, ++d->id);
	put_name(&d->bytes, name);
	put32(&d->bytes, instance);
	put32(&d->bytes, version);
}

static void section_end(struct devices *d)
{
	if (d->footers) {
		put_footer(&d->bytes, d->id);
	}
}

void device_begin(struct devices *d, const char *name, uint32_t instance,
		  const char *vmsd, uint32_t version)
{
	section_begin(d, name, instance, version);
	begin(d, NULL, "{");
	text_member(d, "name", name);
	number_member(d, "instance_id", instance);
	text_member(d, "vmsd_name", vmsd);
	number_member(d, "version", version);
	begin(d, "fields", "[");
}

void device_end(struct devices *d)
{
	shut(d, "]");
	shut(d, "}");
	section_end(d);
}

void device_opaque(struct devices *d, const char *name, uint32_t instance, const void *p,
		   size_t n)
{
	section_begin(d, name, instance, 1);
	put(&d->bytes, p, n);
	begin(d, NULL, "{");
	text_member(d, "name", name);
	number_member(d, "instance_id", instance);
	number_member(d, "size", n);
	begin(d, "fields", "[");
	begin(d, NULL, "{");
	text_member(d, "name", "data");
	number_member(d, "size", n);
	text_member(d, "type", "buffer");
	shut(d, "}");
	shut(d, "]");
	shut(d, "}");
	section_end(d);
}

void field_array(struct devices *d, const char *name, const char *type, size_t size,
		 size_t count, const void *p)
{
	put(&d->bytes, p, size * count);
	begin(d, NULL, "{");
	text_member(d, "name", name);
	if (count > 1) {
		number_member(d, "array_len", count);
	}
	text_member(d, "type", type);
	number_member(d, "size", size);
	shut(d, "}");
}

void field(struct devices *d, const char *name, const char *type, const void *p, size_t n)
{
	field_array(d, name, type, n, 1, p);
}

void field_be(struct devices *d, const char *name, const char *type, uint64_t v, size_t n)
{
	uint8_t p[8];

	gclk_put_be64(p, v);
	field(d, name, type, p + 8 - n, n);
}

void struct_begin(struct devices *d, const char *name, const char *vmsd, int array_len,
		  int index)
{
	begin(d, NULL, "{");
	text_member(d, "name", name);
	if (array_len > 1) {
		number_member(d, "array_len", (uint64_t)array_len);
	}
	if (index >= 0) {
		number_member(d, "index", (uint64_t)index);
	}
	text_member(d, "type", "struct");
	begin(d, "struct", "{");
	text_member(d, "vmsd_name", vmsd);
	number_member(d, "version", 1);
	begin(d, "fields", "[");
	d->start[d->depth] = d->bytes.n;
}

static void struct_described(struct devices *d)
{
	size_t size = d->bytes.n - d->start[d->depth];

	shut(d, "]");
	shut(d, "}");
	number_member(d, "size", size);
	shut(d, "}");
}

/*
 * The first element is described in full, so what closes it is written before the
 * second begins; from then on nothing is described until the end.
 */
void struct_element(struct devices *d)
{
	if (d->start[d->depth] != SIZE_MAX) {
		struct_described(d);
		d->depth += 3;
		d->start[d->depth] = SIZE_MAX;
		d->mute++;
	}
}

void struct_end(struct devices *d)
{
	if (d->start[d->depth] == SIZE_MAX) {
		d->mute--;
		d->depth -= 3;
	} else {
		struct_described(d);
	}
}

/* Closes the list of fields of the struct, subsection or device. */
void subsections_begin(struct devices *d)
{
	shut(d, "]");
	begin(d, "subsections", "[");
}

void subsection_begin(struct devices *d, const char *vmsd, uint32_t version)
{
	put8(&d->bytes, 5);
	put_name(&d->bytes, vmsd);
	put32(&d->bytes, version);
	begin(d, NULL, "{");
	text_member(d, "vmsd_name", vmsd);
	number_member(d, "version", version);
	begin(d, "fields", "[");
}

void subsection_end(struct devices *d)
{
	shut(d, "]");
	shut(d, "}");
}

/* --- a small guest --- */

static void put_pit(struct devices *d)
{
	device_begin(d, "i8254", 0, "i8254", 3);
	field_be(d, "channels[0].irq_disabled", "uint32", 0, 4);
	struct_begin(d, "channels", "pit channel", 3, -1);
	for (unsigned i = 0; i < 3; i++) {
		if (i) {
			struct_element(d);
		}
		field_be(d, "count", "int32", 1193 + i, 4);
		field_be(d, "mode", "uint8", 2, 1);
		field_be(d, "next_transition_time", "int64", 1000 + i, 8);
	}
	struct_end(d);
	field_be(d, "channels[0].next_transition_time", "int64", 77, 8);
	device_end(d);
}

static void put_cpu(struct devices *d, unsigned n)
{
	device_begin(d, "cpu", n, "cpu", 12);
	field_be(d, "env.tsc", "uint64", 1000000 + n, 8);
	field_array(d, "env.regs", "uint64", 8, 4, "0123456789abcdef0123456789abcdef");
	subsections_begin(d);
	subsection_begin(d, "cpu/tsc_khz", 1);
	field_be(d, "env.tsc_khz", "int64", 2400000, 8);
	subsection_end(d);
	subsection_begin(d, "cpu/nested", 2);
	field_be(d, "a", "bool", 1, 1);
	subsections_begin(d);
	subsection_begin(d, "cpu/nested/inner", 3);
	field_be(d, "b", "uint16", 0xbeef, 2);
	subsection_end(d);
	subsection_end(d);
	device_end(d);
}

static void put_hpet(struct devices *d)
{
	device_begin(d, "hpet", 0, "hpet", 2);
	field_be(d, d->dialect == DIALECT_8_2 ? "num_timers_save" : "num_timers",
		 "uint8", 3, 1);
	struct_begin(d, "timer", "hpet_timer", 3, -1);
	for (unsigned i = 0; i < 3; i++) {
		if (i) {
			struct_element(d);
		}
		field_be(d, "tn", "uint8", i, 1);
		field_be(d, "qemu_timer", "timer", i == 1 ? 5000 : UINT64_MAX, 8);
	}
	struct_end(d);
	device_end(d);
}

void put_small_devices(struct devices *d)
{
	device_begin(d, "timer", 0, "timer", 2);
	field_be(d, "cpu_ticks_offset", "int64", 111, 8);
	field_be(d, "unused", "unused_buffer", 0, 8);
	field_be(d, "cpu_clock_offset", "int64", 222, 8);
	device_end(d);
	device_opaque(d, "slirp", 0, "whatever it is", 14);
	put_cpu(d, 0);
	put_cpu(d, 1);
	put_pit(d);
	put_hpet(d);
	device_begin(d, "0000:00:01.3/piix4_pm", 0, "piix4_pm", 3);
	field_be(d, "ar.tmr.timer", "timer", 9000, 8);
	device_end(d);
}

static void put_zlib_page(struct bytes *b, const char *block, uint64_t offset,
			  uint8_t fill)
{
	uint8_t page[4096], packed[8192];
	uLongf n = sizeof(packed);

	memset(page, fill, sizeof(page));
	compress(packed, &n, page, sizeof(page));
	put_page_word(b, block, offset, W_ZLIB);
	put32(b, n);
	put(b, packed, n);
}

static void put_small_ram(struct bytes *b, bool footers)
{
	static const uint8_t xbzrle[] = { 1, 0, 4, 5, 2, 'x', 'y' };

	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", 0, W_ZERO);
	put8(b, 0);
	put_page_word(b, NULL, 4096, W_PAGE);
	for (unsigned i = 0; i < 4096; i++) {
		put8(b, i / 16);
	}
	put_zlib_page(b, "pc.bios", 0, 0x5a);
	put64(b, W_FLUSH);
	put_eos(b);
	if (footers) {
		put_footer(b, 3);
	}
	put_part(b, 2, 3);
	put_page_word(b, "pc.ram", 4096, W_XBZRLE);
	put(b, xbzrle, sizeof(xbzrle));
	put_eos(b);
	if (footers) {
		put_footer(b, 3);
	}
}

size_t put_small_stream(struct bytes *b, enum dialect dialect, bool footers)
{
	struct devices d;
	size_t tail;

	put_header(b, footers ? "pc-i440fx-7.2" : NULL);
	put_command(b, 1, NULL, 0);
	put_command(b, 2, "\0\0\0\1", 4);
	put_start(b, 3, "ram", 0, 4);
	put64(b, 0x24000 | W_MEM_SIZE);
	put_name(b, "pc.ram");
	put64(b, 0x20000);
	put_name(b, "pc.bios");
	put64(b, 0x4000);
	put_eos(b);
	if (footers) {
		put_footer(b, 3);
	}
	put_small_ram(b, footers);
	put_command(b, 11, NULL, 0);
	put_part(b, 3, 3);
	put_page_word(b, "pc.ram", 0x2000, W_ZERO);
	put8(b, 0);
	put_eos(b);
	if (footers) {
		put_footer(b, 3);
	}
	tail = b->n;
	devices_begin(&d, dialect, footers);
	put_small_devices(&d);
	devices_end(&d, b);
	return tail;
}

void read_data(const char *name, struct bytes *to)
{
	lzma_stream xz = LZMA_STREAM_INIT;
	struct bytes packed = { 0 };
	char path[512];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), GCLK_TEST_DATA "/streams/%s.qs.xz", name);
	file = fopen(path, "rb");
	if (!file || lzma_stream_decoder(&xz, UINT64_MAX, 0) != LZMA_OK) {
		perror(path);
		abort();
	}
	reserve(&packed, 1 << 20);
	packed.n = fread(packed.p, 1, packed.max, file);
	fclose(file);
	xz.next_in = packed.p;
	xz.avail_in = packed.n;
	do {
		reserve(to, 1 << 20);
		xz.next_out = to->p + to->n;
		xz.avail_out = n = to->max - to->n;
		if (lzma_code(&xz, LZMA_FINISH) > LZMA_STREAM_END) {
			abort();
		}
		to->n += n - xz.avail_out;
	} while (xz.avail_out == 0);
	lzma_end(&xz);
	bytes_free(&packed);
}
