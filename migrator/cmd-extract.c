/* SPDX-License-Identifier: MIT */
/* guestclock extract: the clock state alone, as a bundle or as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "migrator/json-state.h"
#include "migrator/json-text.h"
#include "migrator/output.h"
#include "migrator/payload.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

static bool wants_json(const struct options *o)
{
	size_t n = strlen(o->output);

	return (n > 5 && !strcmp(o->output + n - 5, ".json")) ||
	       (!strcmp(o->output, "-") && given(o, OPTION(JSON)));
}

static int write_json(const char *path, const struct gclk_bundle *bundle,
		      struct gclk_error *reterr)
{
	struct json_object *tree;
	int r = json_from_bundle(bundle, &tree, reterr);
	char *text;
	size_t size;

	if (r < 0) {
		return r;
	}
	text = json_to_text(tree, &size);
	r = text ? write_whole(path, text, size, reterr)
		 : gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
			     "no memory for the JSON");
	free(text);
	json_object_put(tree);
	return r;
}

static int write_bundle(const char *path, const struct gclk_bundle *bundle,
			struct gclk_error *reterr)
{
	void *bytes;
	size_t size;
	int r = bundle_bytes(bundle, &bytes, &size, reterr);

	if (r == 0) {
		r = write_whole(path, bytes, size, reterr);
		free(bytes);
	}
	return r;
}

static void answer(const struct options *o)
{
	if (!strcmp(o->output, "-")) {
		return;
	}
	if (given(o, OPTION(JSON))) {
		struct json_object *tree = json_answer("extract");

		json_put(tree, "output", json_text(o->output));
		json_print(tree);
		return;
	}
	put_text(stdout, o->output);
	printf(": the clock state of ");
	put_text(stdout, strcmp(o->files[0], "-") ? o->files[0] : "standard input");
	puts(wants_json(o) ? " in JSON" : " as a bundle");
}

static int extract(const struct options *o, struct source *source)
{
	struct gclk_bundle *bundle;
	struct gclk_error error;
	int r = given(o, OPTION(REDACT)) ? source_redact(source, &error) : 0;

	if (r == 0) {
		r = bundle_of(source, &bundle, &error);
	}
	if (r < 0) {
		return fail(source->path, &error, EFFECT_NONE, NULL);
	}
	r = wants_json(o) ? write_json(o->output, bundle, &error)
			  : write_bundle(o->output, bundle, &error);
	gclk_bundle_free(bundle);
	if (r < 0) {
		return fail(o->output, &error, EFFECT_NONE, NULL);
	}
	answer(o);
	return 0;
}

static int run(const struct options *o)
{
	struct source source;
	int r;

	if (!given(o, OPTION(OUTPUT))) {
		return usage_error("extract", "say where to: -o BUNDLE");
	}
	if (!strcmp(o->output, "-") && !wants_json(o) && isatty(STDOUT_FILENO)) {
		return usage_error("extract",
				   "a bundle is not for a terminal; add --json");
	}
	r = source_open(&source, o->files[0], o, SOURCE_STATE);
	if (r == 0) {
		r = extract(o, &source);
	}
	source_close(&source);
	return r;
}

const struct verb verb_extract = {
	.name = "extract",
	.summary = "the clock state alone, as a bundle or as JSON",
	.synopsis = "FILE -o BUNDLE",
	.text = "Takes the clock state out of FILE, with when it was captured and how "
		"that is known, and writes it as a bundle. An OUT that ends in .json "
		"gets JSON instead, which every verb reads like a bundle. \"-\" is "
		"standard output.",
	.example = "guestclock extract web1.save -o web1.json",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT) | OPTION(OUTPUT) | OPTION(REDACT),
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
