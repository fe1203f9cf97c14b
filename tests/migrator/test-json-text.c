/* SPDX-License-Identifier: MIT */
/* What is printed is read again as the same tree, whatever stands in it. */
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "gclk-test.h"
#include "migrator/json-text.h"

static struct json_object *random_text(void)
{
	char text[24];
	size_t n = gclk_random_below(sizeof(text));

	for (size_t i = 0; i < n; i++) {	/* all of ASCII, escapes and NUL too */
		text[i] = (char)gclk_random_below(128);
	}
	return json_object_new_string_len(text, (int)n);
}

static struct json_object *random_tree(unsigned depth)
{
	struct json_object *tree;
	char name[16];

	switch (gclk_random_below(depth ? 8 : 6)) {
	case 0:
		return NULL;
	case 1:
		return json_object_new_boolean((int)gclk_random_below(2));
	case 2:
		return json_object_new_int64((int64_t)gclk_random_bits());
	case 3:
		return json_object_new_uint64(gclk_random());
	case 4:
	case 5:
		return random_text();
	case 6:
		tree = json_object_new_object();
		for (uint64_t i = gclk_random_below(6); i > 0; i--) {
			snprintf(name, sizeof(name), "%c\"\\%u", (char)gclk_random_below(32) + 1,
				 (unsigned)i);
			json_object_object_add(tree, name, random_tree(depth - 1));
		}
		return tree;
	default:
		tree = json_object_new_array();
		for (uint64_t i = gclk_random_below(6); i > 0; i--) {
			json_object_array_add(tree, random_tree(depth - 1));
		}
		return tree;
	}
}

GCLK_TEST(json_text, reads_back_as_the_same_tree)
{
	for (unsigned i = 0; i < 5000 * gclk_test_scale(); i++) {
		struct json_object *tree = random_tree(5), *again;
		enum json_tokener_error error = json_tokener_success;
		size_t n;
		char *text = json_to_text(tree, &n);

		CU_ASSERT_FATAL(text != NULL);
		GCLK_EQ(strlen(text), n);
		again = json_tokener_parse_verbose(text, &error);
		GCLK_EQ(error, json_tokener_success);
		CU_ASSERT(json_object_equal(tree, again));
		free(text);
		json_object_put(tree);
		json_object_put(again);
	}
}

GCLK_TEST(json_text, looks_like_this)
{
	struct json_object *tree = json_tokener_parse(
		"{\"a\":[1,-2,{}],\"b\":{\"c\":null,\"d\":[]},\"e\":\"x/\\\"\\n\",\"f\":true}");
	char *text = json_to_text(tree, NULL);

	CU_ASSERT_STRING_EQUAL(text, "{\n  \"a\": [\n    1,\n    -2,\n    {}\n  ],\n"
				     "  \"b\": {\n    \"c\": null,\n    \"d\": []\n  },\n"
				     "  \"e\": \"x/\\\"\\u000a\",\n  \"f\": true\n}");
	free(text);
	json_object_put(tree);
}
