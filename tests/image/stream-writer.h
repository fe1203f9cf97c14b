/* SPDX-License-Identifier: MIT */
/*
 * Writes migration streams for tests: the bytes of every element of the format,
 * and device sections together with the description of them.
 */
#ifndef STREAM_WRITER_H
#define STREAM_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow; aborts when memory ends, as a test may. */
struct bytes { uint8_t *p; size_t n, max; };

void put(struct bytes *b, const void *p, size_t n);
void put8(struct bytes *b, unsigned v);
void put16(struct bytes *b, unsigned v);
void put32(struct bytes *b, uint64_t v);
void put64(struct bytes *b, uint64_t v);
void put_zero(struct bytes *b, size_t n);
void put_random(struct bytes *b, size_t n);
void put_text(struct bytes *b, const char *text);		/* no length, no NUL */
void put_name(struct bytes *b, const char *name);		/* u8 length before it */
void putf(struct bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_free(struct bytes *b);

/* Elements. @machine may be NULL: no configuration. */
void put_header(struct bytes *b, const char *machine);
void put_command(struct bytes *b, unsigned number, const void *data, unsigned length);
void put_start(struct bytes *b, uint32_t id, const char *name, uint32_t instance,
	       uint32_t version);
void put_part(struct bytes *b, unsigned type, uint32_t id);	/* type 2 or 3 */
void put_footer(struct bytes *b, uint32_t id);

/* RAM records; @block NULL: the same as before. */
enum { W_ZERO = 2, W_MEM_SIZE = 4, W_PAGE = 8, W_EOS = 16, W_CONTINUE = 32, W_XBZRLE = 64,
       W_HOOK = 128, W_ZLIB = 256, W_FLUSH = 512 };
void put_page_word(struct bytes *b, const char *block, uint64_t offset, unsigned flag);
void put_eos(struct bytes *b);

/* How a writer of descriptions differs from another. */
enum dialect {
	DIALECT_4_2,			/* white space between everything */
	DIALECT_7_2,
	DIALECT_8_2,			/* begins with the configuration */
	DIALECT_NO_CONFIGURATION,	/* 8.2 and later without one: no opening brace */
	N_DIALECTS,
};

/*
 * Device sections in @bytes, their description in @json. A field is described and
 * written by one call; the elements of an array of structs after the first are
 * written with describing switched off (@mute).
 */
struct devices {
	struct bytes bytes, json;
	enum dialect dialect;
	bool footers;
	unsigned mute, depth;
	uint32_t id;
	bool comma[64];
	size_t start[64];
};

void devices_begin(struct devices *d, enum dialect dialect, bool footers);
/* Adds EOF, the vmdesc element, and moves all of it behind @to; frees @d. */
void devices_end(struct devices *d, struct bytes *to);

void device_begin(struct devices *d, const char *name, uint32_t instance,
		  const char *vmsd, uint32_t version);
void device_end(struct devices *d);
/* Old-style section without a vmsd: one opaque buffer. */
void device_opaque(struct devices *d, const char *name, uint32_t instance, const void *p,
		   size_t n);

void field(struct devices *d, const char *name, const char *type, const void *p,
	   size_t n);
void field_be(struct devices *d, const char *name, const char *type, uint64_t v,
	      size_t n);
void field_array(struct devices *d, const char *name, const char *type, size_t size,
		 size_t count, const void *p);
void struct_begin(struct devices *d, const char *name, const char *vmsd, int array_len,
		  int index);
/* Before the second and later elements of an array_len struct. */
void struct_element(struct devices *d);
void struct_end(struct devices *d);
void subsections_begin(struct devices *d);
void subsection_begin(struct devices *d, const char *vmsd, uint32_t version);
void subsection_end(struct devices *d);

/*
 * A small guest: header, ram with pages, some devices. Returns the offset of the
 * tail. Every record kind is in it.
 */
size_t put_small_stream(struct bytes *b, enum dialect dialect, bool footers);
/* The devices of it alone. */
void put_small_devices(struct devices *d);

/* A stream of tests/data/streams, unpacked; aborts when it is not there. */
void read_data(const char *name, struct bytes *to);

#endif
