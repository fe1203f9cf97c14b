/* SPDX-License-Identifier: MIT */
#include <inttypes.h>

#include "golden.h"

static void print_field(FILE *out, const char *path, const struct gclk_field *field,
			const void *base)
{
	const unsigned char *at = (const unsigned char *)base + field->offset;

	fprintf(out, "%s.%s ", path, field->name);
	if (field->type == GCLK_TYPE_STRING) {
		for (; *at; at++) {
			fprintf(out, "%02x", *at);
		}
	} else if (field->type == GCLK_TYPE_BYTES) {
		for (unsigned i = 0; i < field->size; i++) {
			fprintf(out, "%02x", at[i]);
		}
	} else {
		fprintf(out, "%" PRIu64, gclk_record_get(base, field));
	}
	fputc('\n', out);
}

void print_record(FILE *out, const char *path, const struct gclk_record *record,
		  const void *base)
{
	char where[128];

	for (unsigned i = 0; i < record->n_fields; i++) {
		if (gclk_record_has(base, record, i)) {
			print_field(out, path, &record->fields[i], base);
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];

		for (unsigned j = 0; j < sub->max; j++) {
			snprintf(where, sizeof(where), "%s.%s[%u]", path, sub->name, j);
			print_record(out, where, sub->record,
				     (const char *)base + sub->offset +
					     (size_t)j * sub->record->size);
		}
	}
}

void print_state(FILE *out, const struct gclk_state *state)
{
	char path[64];

	fprintf(out, "n_vcpus %" PRIu32 "\nn_timers %" PRIu32 "\ntimers_left_out %" PRIu32 "\n",
		state->n_vcpus, state->n_timers, state->timers_left_out);
	for (uint32_t i = 0; i < state->n_incompatible; i++) {
		fprintf(out, "incompatible[%" PRIu32 "] %s\n", i, state->incompatible[i]);
	}
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		uint32_t count;
		const char *p = gclk_state_part(state, &gclk_parts[i], &count);
		uint32_t n = gclk_parts[i].is_array ? count : 1;

		for (uint32_t j = 0; j < n; j++, p += gclk_parts[i].record->size) {
			snprintf(path, sizeof(path), "%s[%" PRIu32 "]", gclk_parts[i].name, j);
			print_record(out, path, gclk_parts[i].record, p);
		}
	}
}
