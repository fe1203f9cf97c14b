/* SPDX-License-Identifier: MIT */
/*
 * COM1 and the line of text.
 *
 * Every line goes out in two parts: one mark byte at the instant at which the clocks are
 * read, and the text once it has been composed. The host stamps the mark's arrival; the
 * text may take its time (a port write can cost 20 us on a nested host).
 */
#include "guest.h"

#define COM1		0x3f8
#define LSR_THRE	0x20
#define FIFO_BYTES	16

static char line[1024];
static size_t line_len;

static void wait_empty(void)
{
	while (!(inb(COM1 + 5) & LSR_THRE)) {
		__asm__ volatile("pause");
	}
}

void serial_init(void)
{
	outb(COM1 + 1, 0);		/* no interrupts */
	outb(COM1 + 3, 0x80);		/* divisor latch */
	outb(COM1 + 0, 1);		/* 115200 */
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x03);		/* 8n1 */
	outb(COM1 + 2, 0x07);		/* FIFOs on and empty */
	outb(COM1 + 4, 0x03);		/* DTR, RTS */
}

void serial_mark(void)
{
	outb(COM1, '@');
}

void serial_write(const char *text, size_t n_bytes)
{
	while (n_bytes) {
		size_t n = n_bytes < FIFO_BYTES ? n_bytes : FIFO_BYTES;

		wait_empty();
		n_bytes -= n;
		__asm__ volatile("rep outsb" : "+S"(text), "+c"(n) : "d"(COM1) : "memory");
	}
	wait_empty();
}

static void put(char c)
{
	if (line_len < sizeof(line)) {
		line[line_len++] = c;
	}
}

static void put_text(const char *text)
{
	while (*text) {
		put(*text++);
	}
}

static void put_hex(uint64_t value, int n_digits)
{
	while (n_digits--) {
		put("0123456789abcdef"[value >> 4 * n_digits & 15]);
	}
}

void line_begin(const char *tag)
{
	line_len = 0;
	put_text(tag);
}

void line_hex(const char *key, uint64_t value, int n_digits)
{
	put(' ');
	put_text(key);
	put('=');
	put_hex(value, n_digits);
}

void line_at(const char *key, uint64_t value, int n_digits, uint32_t after_ticks)
{
	line_hex(key, value, n_digits);
	put('/');
	put_hex(after_ticks, 8);
}

void line_end(void)
{
	uint32_t check = 0x811c9dc5u;	/* FNV-1a, 32 bits */

	for (size_t i = 0; i < line_len; i++) {
		check = (check ^ (uint8_t)line[i]) * 0x01000193u;
	}
	line_hex("ck", check, 8);
	put('\n');
	serial_write(line, line_len);
}
