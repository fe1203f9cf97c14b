/* SPDX-License-Identifier: MIT */
#include "core/util.h"
#include "migrator/peer/passage.h"

void passage_init(struct passage *passage, int64_t now_ns)
{
	passage->began_ns = now_ns;
	passage->offset = 0;
	passage->n = 0;
}

void passage_note(struct passage *passage, uint64_t bytes, uint64_t ahead, int64_t now_ns)
{
	uint64_t at = passage->n++ % PASSAGE_MARKS;

	passage->offset += bytes;
	passage->marks[at].offset = passage->offset;
	passage->marks[at].written = passage->offset + ahead;
	passage->marks[at].at_ns = now_ns;
}

/* The first mark from @first on that lies behind @offset; passage->n: none does. */
static uint64_t first_behind(const struct passage *p, uint64_t first, uint64_t offset)
{
	while (first < p->n && p->marks[first % PASSAGE_MARKS].offset <= offset) {
		first++;
	}
	return first;
}

/* The last mark from @first on at which @offset had surely not been written; or @none. */
static uint64_t last_before(const struct passage *p, uint64_t first, uint64_t offset,
			    uint64_t none)
{
	for (uint64_t i = p->n; i > first; i--) {
		if (p->marks[(i - 1) % PASSAGE_MARKS].written < offset) {
			return i - 1;
		}
	}
	return none;
}

void passage_stop(const struct passage *p, uint64_t ran_offset, uint64_t stopped_offset,
		  int64_t now_ns, int64_t *ret_low_ns, int64_t *ret_high_ns)
{
	uint64_t first = p->n > PASSAGE_MARKS ? p->n - PASSAGE_MARKS : 0;
	uint64_t made =
		ran_offset > PASSAGE_AHEAD_BYTES ? ran_offset - PASSAGE_AHEAD_BYTES : 0;
	uint64_t low = last_before(p, first, made, p->n);
	uint64_t high = first_behind(p, first, stopped_offset);

	*ret_low_ns = low < p->n ? p->marks[low % PASSAGE_MARKS].at_ns : p->began_ns;
	*ret_high_ns = high < p->n ? p->marks[high % PASSAGE_MARKS].at_ns : now_ns;
	*ret_high_ns = GCLK_MAX(*ret_high_ns, *ret_low_ns);
}

int64_t passage_ran(const struct passage *p, int64_t stopped_ns)
{
	uint64_t first = p->n > PASSAGE_MARKS ? p->n - PASSAGE_MARKS : 0, last = p->n,
		 low;

	while (last > first && p->marks[(last - 1) % PASSAGE_MARKS].at_ns > stopped_ns) {
		last--;
	}
	if (last == first) {
		return 0;
	}
	low = last_before(p, first, p->marks[(last - 1) % PASSAGE_MARKS].offset, p->n);
	return low < p->n ? p->marks[low % PASSAGE_MARKS].at_ns : p->began_ns;
}
