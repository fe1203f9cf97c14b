/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/error.h"
#include "migrator/message.h"
#include "migrator/seal/seal.h"

#define SET(member)                                                                      \
	int seal_set_##member(struct options *o, const char *text,                       \
			      struct gclk_error *reterr)                                 \
	{                                                                                \
		if (!*text) {                                                            \
			return gclk_fail(reterr, GCLK_MALFORMED, NULL, GCLK_NO_OFFSET,   \
					 "a name is missing");                           \
		}                                                                        \
		((struct seal_options *)o->own)->member = text;                          \
		return 0;                                                                \
	}
SET(key)
SET(to)
SET(recipient)
SET(sequences)

const char *seal_sequences(const struct seal_options *own, char *to, size_t size)
{
	return own->sequences ? own->sequences : sequence_file(to, size);
}

int seal_read_key(const char *path, struct gclk_seal_key **ret)
{
	struct gclk_error error;

	return keyfile_read(path, ret, &error) < 0 ? fail(path, &error, EFFECT_NONE, NULL) : 0;
}

void seal_warn_sequences(const char *path, const struct gclk_error *error, const char *effect)
{
	message("warning", path, gclk_status_name(error->status), EFFECT_READING, NULL,
		"%s%s%s; %s", error->message, error->sys_errno ? ": " : "",
		error->sys_errno ? strerror(error->sys_errno) : "", effect);
}

void seal_warn_forgotten(const char *path)
{
	message("warning", path, NULL, EFFECT_READING, NULL,
		"the file is full: the sequence of a guest that was not met for long is "
		"forgotten, so that going back to an old state of it is not noticed");
}
