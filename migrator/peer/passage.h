/* SPDX-License-Identifier: MIT */
/*
 * When which bytes of a stream passed: what tells when a guest stopped, where nobody saw
 * it. Pure; the caller reads the clock.
 */
#ifndef GCLK_MIGRATOR_PEER_PASSAGE_H
#define GCLK_MIGRATOR_PEER_PASSAGE_H

#include <stdint.h>

#define PASSAGE_MARKS 8192

/*
 * What a hypervisor has made and not yet written: 64 pages of the guest's memory and a
 * buffer of 32 KiB in QEMU. A byte that lies further behind what it had written at an instant
 * had not been made by then.
 */
#define PASSAGE_AHEAD_BYTES (UINT64_C(320) << 10)

struct passage {
	int64_t began_ns;		/* wall clock, before the first byte */
	uint64_t offset;		/* bytes so far */
	uint64_t n;			/* marks so far; the last PASSAGE_MARKS are kept */
	struct {
		uint64_t offset;	/* behind what a read gave */
		uint64_t written;	/* at least so much had been written, soon after */
		int64_t at_ns;		/* after it */
	} marks[PASSAGE_MARKS];
};

void passage_init(struct passage *passage, int64_t now_ns);

/*
 * A read has given @bytes, and then it was @now_ns; after that, @ahead bytes more lay in
 * the socket's buffer.
 */
void passage_note(struct passage *passage, uint64_t bytes, uint64_t ahead, int64_t now_ns);

/**
 * passage_stop() - when did the guest stop?
 * @ran_offset:		this byte was written while it ran
 * @stopped_offset:	this one after it had stopped
 *
 * Between ret_low_ns and ret_high_ns, if both are right.
 */
void passage_stop(const struct passage *passage, uint64_t ran_offset, uint64_t stopped_offset,
		  int64_t now_ns, int64_t *ret_low_ns, int64_t *ret_high_ns);

/**
 * passage_ran() - until when did the guest surely run?
 * @stopped_ns:	when whoever stops it was done with that
 *
 * Where it is the writer of the stream itself that stops the guest, everything that was
 * written before @stopped_ns was written before the stop. Returns an instant after which
 * some of it was written; 0: nothing was.
 */
int64_t passage_ran(const struct passage *passage, int64_t stopped_ns);

#endif
