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
 * What a hypervisor has made and we have not read: its own buffer of a few hundred KiB, and
 * a UNIX socket's. A byte that we have not come near to by so much was not written yet.
 */
#define PASSAGE_AHEAD_BYTES (UINT64_C(2) << 20)

struct passage {
	int64_t began_ns;		/* wall clock, before the first byte */
	uint64_t offset;		/* bytes so far */
	uint64_t n;			/* marks so far; the last PASSAGE_MARKS are kept */
	struct {
		uint64_t offset;	/* behind what a read gave */
		int64_t at_ns;		/* after it */
	} marks[PASSAGE_MARKS];
};

void passage_init(struct passage *passage, int64_t now_ns);
void passage_note(struct passage *passage, uint64_t bytes, int64_t now_ns);

/**
 * passage_stop() - when did the guest stop?
 * @ran_offset:		this byte was written while it ran
 * @stopped_offset:	this one after it had stopped
 *
 * Between ret_low_ns and ret_high_ns, if both are right.
 */
void passage_stop(const struct passage *passage, uint64_t ran_offset, uint64_t stopped_offset,
		  int64_t now_ns, int64_t *ret_low_ns, int64_t *ret_high_ns);

#endif
