/* SPDX-License-Identifier: MIT */
/*
 * One entry more in a book that the programs keep, for test_full.py: which says
 * where, on a disk that is full. Ends with the status, and says the message.
 *
 *	books audit|learned|margins|sequence FILE
 *	books digest IMAGE		what an image's metadata must name, to count
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/image.h>

#include "migrator/hook/learned.h"
#include "migrator/move.h"
#include "migrator/peer/margins.h"
#include "migrator/seal/sequence.h"

static int audit(const char *path, struct gclk_error *reterr)
{
	static struct move move;

	move_init(&move, "restore");
	strcpy(move.domain, "web1");
	/* more than a page, so that a disk can be full amid it */
	move.n_ledger = MOVE_LEDGER_MAX;
	for (unsigned i = 0; i < MOVE_LEDGER_MAX; i++) {
		snprintf(move.ledger[i].timer, sizeof(move.ledger[i].timer), "lapic[%u]", i);
		move.ledger[i].period_ns = 1000000;
	}
	return move_audit(&move, path, reterr);
}

static int sequence(const char *path, struct gclk_error *reterr)
{
	const struct sequence_key key = { .signer = { 1 }, .guest = { 2 } };
	uint64_t taken;

	return sequence_take(path, &key, 1, &taken, reterr);
}

static int digest(const char *path, struct gclk_error *reterr)
{
	struct gclk_image *image = NULL;
	int r = gclk_image_open(path, NULL, &image, reterr);

	if (r == 0) {
		printf("%016" PRIx64 "\n", gclk_image_digest(image));
	}
	gclk_image_close(image);
	return r;
}

static int write_in(const char *book, const char *path, struct gclk_error *reterr)
{
	const struct lesson lesson = { 1000000, 2000000, 3000000 };

	if (!strcmp(book, "audit")) {
		return audit(path, reterr);
	}
	if (!strcmp(book, "learned")) {
		return learned_add(path, &lesson, reterr);
	}
	if (!strcmp(book, "margins")) {
		return margins_learn(path, "load", 1000000, reterr);
	}
	if (!strcmp(book, "sequence")) {
		return sequence(path, reterr);
	}
	return strcmp(book, "digest") ? -GCLK_USAGE : digest(path, reterr);
}

int main(int argc, char **argv)
{
	struct gclk_error error = { 0 };
	int r = argc == 3 ? write_in(argv[1], argv[2], &error) : -GCLK_USAGE;

	if (r < 0) {
		fprintf(stderr, "%s: %s: %s\n", error.where, error.message, strerror(error.sys_errno));
	}
	return -r;
}
