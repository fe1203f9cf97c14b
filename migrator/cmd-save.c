/* SPDX-License-Identifier: MIT */
/* guestclock save: virsh save, and what restoring it right needs. */
#include <stdlib.h>
#include <string.h>

#include "core/util.h"
#include "migrator/message.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"
#include "migrator/virt/guard.h"
#include "migrator/virt/save.h"

static struct own {
	struct save_options save;
	bool managed;
} own;

#define SET_TEXT(member)                                                                 \
	static int set_##member(struct options *o, const char *text,                     \
				struct gclk_error *reterr)                               \
	{                                                                                \
		(void)reterr;                                                            \
		((struct own *)o->own)->save.member = text;                              \
		return 0;                                                                \
	}
SET_TEXT(uri)
SET_TEXT(image)
SET_TEXT(xml_path)
SET_TEXT(audit_path)

enum { CONNECT, RUNNING, PAUSED, BYPASS_CACHE, XML, MANAGED, IMAGE, AUDIT };

static const struct option_row rows[] = {
	[CONNECT] = { "connect", 'c', "URI", set_uri, "libvirt's URI; default as virsh has it" },
	[RUNNING] = { "running", 0, NULL, NULL, "a restore runs it, also if it is paused now" },
	[PAUSED] = { "paused", 0, NULL, NULL, "a restore leaves it suspended" },
	[BYPASS_CACHE] = { "bypass-cache", 0, NULL, NULL, "write past the page cache" },
	[XML] = { "xml", 0, "FILE", set_xml_path, "the domain's XML for the restore" },
	[MANAGED] = { "managed", 0, NULL, NULL,
		"where libvirt finds it at the next start (virsh managedsave)" },
	[IMAGE] = { "image", 0, "FILE", set_image,
		"where libvirt keeps the managed save, if not in its usual place" },
	[AUDIT] = { "audit", 0, "FILE", set_audit_path, "default " AUDIT_PATH },
};

static int answer(const struct options *o, const struct move *move, const char *to)
{
	char at[TEXT_BYTES], doubt[TEXT_BYTES];

	if (given(o, OPTION(JSON))) {
		json_print(move_to_json(move));
		return 0;
	}
	put_text(stdout, move->domain);
	printf(" is saved%s", to ? " to " : "");
	put_text(stdout, to ? to : "");
	if (move->stopped.uncertainty_ns == GCLK_UNBOUNDED) {
		printf("; when it stopped is not known: %s\n", move->why);
	} else {
		printf("; it stopped at %s %s\n",
		       text_instant(at, move->stopped.ns, move->stopped.uncertainty_ns),
		       text_uncertain(doubt, move->stopped.uncertainty_ns));
	}
	return 0;
}

static int work(struct guard *guard, void *ctx)
{
	const struct options *o = ctx;
	const struct save_options *save = &((const struct own *)o->own)->save;
	struct move *move = calloc(1, sizeof(*move));
	int r;

	if (!move) {
		return GCLK_NOMEM;
	}
	if (save->uri) {
		snprintf(guard->uri, sizeof(guard->uri), "%s", save->uri);
	}
	r = save_run(guard, save, o, move);
	if (r == 0) {
		r = answer(o, move, save->path);
	}
	free(move);
	return r;
}

static int run(const struct options *o)
{
	struct own *to = o->own;
	struct options copy = *o;

	to->managed = own_given(o, MANAGED);
	if (to->managed != (o->n_files == 1)) {
		return usage_error("save", "say where to: DOMAIN FILE, or --managed DOMAIN");
	}
	if (own_given(o, RUNNING) && own_given(o, PAUSED)) {
		return usage_error("save", "--running and --paused exclude each other");
	}
	if (to->managed && own_given(o, XML)) {
		return usage_error("save", "a managed save has the domain's own XML");
	}
	to->save.domain = o->files[0];
	to->save.path = to->managed ? NULL : o->files[1];
	to->save.running = own_given(o, RUNNING);
	to->save.paused = own_given(o, PAUSED);
	to->save.bypass_cache = own_given(o, BYPASS_CACHE);
	return guard_run(work, &copy, true);
}

const struct verb verb_save = {
	.name = "save",
	.summary = SUMMARY_SAVE,
	.synopsis = "DOMAIN FILE | --managed DOMAIN",
	.text = "Saves a running guest of libvirt's on this host as `virsh save` does, and "
		"puts the instant of its stop, and what its host's clocks were worth, into "
		"the XML of the image: `guestclock restore`, `guestclock rewrite` and the "
		"hook then know the gap to milliseconds. ^C cancels, and the guest runs on.",
	.example = "guestclock save web1 /var/tmp/web1.save",
	.options = OPTIONS_COMMON,
	.min_files = 1,
	.max_files = 2,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
