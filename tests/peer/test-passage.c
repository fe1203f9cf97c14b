/* SPDX-License-Identifier: MIT */
/* When which bytes passed. */
#include <stdlib.h>

#include "gclk-test.h"
#include "migrator/peer/passage.h"

static struct passage *passage;

static void begin(void)
{
	passage = passage ? passage : malloc(sizeof(*passage));
	if (!passage) {
		abort();
	}
	passage_init(passage, 1000);
}

GCLK_TEST(passage, silence_before_a_stop)
{
	begin();
	GCLK_EQ(passage_ran(passage, 5000), 0);
	passage_note(passage, 10, 0, 2000);
	/* the first bytes may have been written at any time since it began */
	GCLK_EQ(passage_ran(passage, 1999), 0);
	GCLK_EQ(passage_ran(passage, 2000), 1000);
	passage_note(passage, 10, 0, 3000);
	passage_note(passage, 10, 0, 9000);
	/* the last that came before: it was not there at 2000 */
	GCLK_EQ(passage_ran(passage, 5000), 2000);
	GCLK_EQ(passage_ran(passage, 9000), 3000);
}

GCLK_TEST(passage, what_lay_in_the_socket_was_written_before)
{
	begin();
	passage_note(passage, 10, 20, 2000);
	passage_note(passage, 10, 10, 3000);
	passage_note(passage, 10, 0, 4000);
	/* all of it lay there at 2000 already: soon after it, it had been written */
	GCLK_EQ(passage_ran(passage, 5000), 1000);
	passage_note(passage, 1, 0, 4500);
	GCLK_EQ(passage_ran(passage, 5000), 4000);
}

GCLK_TEST(passage, more_marks_than_are_kept)
{
	begin();
	for (int64_t i = 1; i <= 3 * PASSAGE_MARKS; i++) {
		passage_note(passage, 1, 0, 1000 + i);
	}
	GCLK_EQ(passage_ran(passage, 1000 + 3 * PASSAGE_MARKS), 1000 + 3 * PASSAGE_MARKS - 1);
	/* what is no longer known */
	GCLK_EQ(passage_ran(passage, 1500), 0);
	free(passage);
	passage = NULL;
}
