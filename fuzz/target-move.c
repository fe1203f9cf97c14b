/* SPDX-License-Identifier: MIT */
/* The report of a move, as another host sends it or a log has it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "migrator/move.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct move *move = malloc(sizeof(*move)), *again = malloc(sizeof(*again));
	struct gclk_error error = { 0 };
	struct json_object *json;
	const char *text;
	int r = move_from_json((const char *)data, size, move, &error);

	if (r < 0) {
		FUZZ_CHECK(error.status == -r && error.message[0]);
	} else {
		json = move_to_json(move);
		text = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN);
		FUZZ_CHECK(move_from_json(text, strlen(text), again, &error) == 0);
		FUZZ_CHECK(move->verdict == again->verdict && move->n_clocks == again->n_clocks &&
			   move->n_ledger == again->n_ledger &&
			   move->findings.n == again->findings.n &&
			   !strcmp(move->domain, again->domain));
		json_object_put(json);
	}
	free(move);
	free(again);
	return 0;
}
