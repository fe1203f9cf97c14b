/* SPDX-License-Identifier: MIT */
/*
 * JSON as text. json-c's own printer leaves out what it finds no memory for, and says
 * nothing: the text is then another one.
 */
#ifndef GCLK_MIGRATOR_JSON_TEXT_H
#define GCLK_MIGRATOR_JSON_TEXT_H

#include <json-c/json_object.h>
#include <stddef.h>

/**
 * json_to_text() - two spaces for each level, one member a line
 * @ret_size:	without the NUL at the end; may be NULL
 *
 * Returns malloc()ed text, or NULL where memory was short. Strings are valid UTF-8
 * (json_text()); numbers are integers.
 */
char *json_to_text(struct json_object *tree, size_t *ret_size);

#endif
