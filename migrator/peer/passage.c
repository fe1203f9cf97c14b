/* SPDX-License-Identifier: MIT */
#include "core/util.h"
#include "migrator/peer/passage.h"

void passage_init(struct passage *passage, int64_t now_ns)
{
	passage->began_ns = now_ns;
	passage->offset = 0;
	passage->n = 0;
}

void passage_note(struct passage *passage, uint64_t bytes, int64_t now_ns)
{
	uint64_t at = passage->n++ % PASSAGE_MARKS;

	passage->offset += bytes;
	passage->marks[at].offset = passage->offset;
	passage->marks[at].at_ns = now_ns;
}

/* The first mark that lies behind @offset, as a number; passage->n: none does. */
static uint64_t first_behind(const struct passage *p, uint64_t first, uint64_t offset)
{
	uint64_t low = first, high = p->n;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (p->marks[middle % PASSAGE_MARKS].offset > offset) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	return low;
}

void passage_stop(const struct passage *p, uint64_t ran_offset, uint64_t stopped_offset,
		  int64_t now_ns, int64_t *ret_low_ns, int64_t *ret_high_ns)
{
	uint64_t first = p->n > PASSAGE_MARKS ? p->n - PASSAGE_MARKS : 0;
	uint64_t near = ran_offset > PASSAGE_AHEAD_BYTES ? ran_offset - PASSAGE_AHEAD_BYTES : 0;
	uint64_t low = first_behind(p, first, near);
	uint64_t high = first_behind(p, first, stopped_offset);

	/* at the mark before, the byte lay too far ahead to have been written */
	*ret_low_ns = low > first ? p->marks[(low - 1) % PASSAGE_MARKS].at_ns : p->began_ns;
	*ret_high_ns = high < p->n ? p->marks[high % PASSAGE_MARKS].at_ns : now_ns;
	*ret_high_ns = GCLK_MAX(*ret_high_ns, *ret_low_ns);
}
