/* SPDX-License-Identifier: MIT */
/* guestclock undo: the captured bytes again. */
#include <stdio.h>
#include <string.h>

#include "migrator/conf.h"
#include "migrator/confine/confine.h"
#include "migrator/report-json.h"
#include "migrator/verbs.h"

/* A write may have failed half way: undo again goes on from there. */
static int say_failed(const char *path, const struct gclk_error *error)
{
	char command[1024] = "guestclock undo ";
	size_t n = strlen(command);

	if (error->status != GCLK_SYS && error->status != GCLK_UNPROVEN) {
		return fail(path, error, EFFECT_NONE, NULL);
	}
	shell_quote(command + n, sizeof(command) - n, path);
	return fail(path, error, EFFECT_CHANGED, command);
}

static int run(const struct options *o)
{
	struct progress progress = { 0 };
	struct gclk_image_options options = {
		.snapshot = o->snapshot,
		.writable = 1,
		.progress = progress_step,
		.progress_ctx = &progress,
	};
	struct gclk_error error;
	int undone = 0, r;

	if (!strcmp(o->files[0], "-")) {
		return usage_error("undo", "standard input cannot be changed");
	}
	if (confine_worker(o->conf, &options.worker, &error) < 0) {
		return fail(o->conf ? o->conf : CONF_PATH, &error, EFFECT_NONE, NULL);
	}
	r = gclk_image_undo(o->files[0], &options, &undone, &error);
	progress_end(&progress);
	if (r < 0) {
		return say_failed(o->files[0], &error);
	}
	if (given(o, OPTION(JSON))) {
		struct json_object *answer = json_answer("undo");

		json_put(answer, "file", json_text(o->files[0]));
		json_put(answer, "undone", json_object_new_boolean(undone));
		json_print(answer);
		return 0;
	}
	put_text(stdout, o->files[0]);
	puts(undone ? ": the original bytes are back"
		    : ": nothing to undo, it was not rewritten");
	return 0;
}

const struct verb verb_undo = {
	.name = "undo",
	.summary = "take a rewriting back: the image as it was captured, byte for byte",
	.synopsis = "FILE",
	.text = "Brings back the original bytes of an image that `guestclock rewrite` "
		"changed, from the record that it left in the image. An image that was "
		"not rewritten stays as it is.",
	.example = "guestclock undo web1.save",
	.options = OPTIONS_COMMON | OPTION(SNAPSHOT),
	.min_files = 1,
	.max_files = 1,
	.run = run,
};
