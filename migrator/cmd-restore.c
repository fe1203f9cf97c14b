/* SPDX-License-Identifier: MIT */
/* guestclock restore: virsh restore, with the clocks right. */
#include <stdlib.h>
#include <string.h>

#include "core/time.h"
#include "core/util.h"
#include "migrator/hook/learned.h"
#include "migrator/message.h"
#include "migrator/proof.h"
#include "migrator/report-json.h"
#include "migrator/verbs.h"
#include "migrator/virt/restore.h"

static struct own {
	struct restore_options restore;
} own = { { .max_hold_ns = GCLK_NS_PER_S / 2 } };

#define SET_TEXT(member)                                                                 \
	static int set_##member(struct options *o, const char *text,                     \
				struct gclk_error *reterr)                               \
	{                                                                                \
		(void)reterr;                                                            \
		((struct own *)o->own)->restore.member = text;                           \
		return 0;                                                                \
	}
SET_TEXT(uri)
SET_TEXT(image)
SET_TEXT(xml_path)
SET_TEXT(audit_path)
SET_TEXT(state_dir)

static int set_max_hold(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_span(text, &((struct own *)o->own)->restore.max_hold_ns, reterr);
}

static int set_verify(struct options *o, const char *text, struct gclk_error *reterr)
{
	return parse_verify(text, &((struct own *)o->own)->restore.ask_monitor, reterr);
}

enum { CONNECT, RUNNING, PAUSED, BYPASS_CACHE, XML, MANAGED, IMAGE, MAX_HOLD, SET_TIME, AUDIT,
       STATE, VERIFY };

static const struct option_row rows[] = {
	[CONNECT] = { "connect", 'c', "URI", set_uri, "libvirt's URI; default as virsh has it" },
	[RUNNING] = { "running", 0, NULL, NULL, "run it, also if it was saved paused" },
	[PAUSED] = { "paused", 0, NULL, NULL, "leave it suspended" },
	[BYPASS_CACHE] = { "bypass-cache", 0, NULL, NULL, "read past the page cache" },
	[XML] = { "xml", 0, "FILE", set_xml_path, "the domain's XML instead of the image's" },
	[MANAGED] = { "managed", 0, NULL, NULL,
		"start the domain from its managed save (virsh start)" },
	[IMAGE] = { "image", 0, "FILE", set_image,
		"where libvirt keeps the managed save, if not in its usual place" },
	[MAX_HOLD] = { "max-hold", 0, "DURATION", set_max_hold,
		"hold the loaded guest no longer than this for its instant;\n"
		"default 500ms" },
	[SET_TIME] = { "set-guest-time", 0, NULL, NULL,
		"set the guest's own wall clock through its agent, as\n"
		"--gap wall does by itself" },
	[AUDIT] = { "audit", 0, "FILE", set_audit_path, "default " AUDIT_PATH },
	[STATE] = { "state", 0, "DIRECTORY", set_state_dir,
		"what earlier restores taught; default " LEARNED_DIR },
	[VERIFY] = { "verify", 0, "CHOICE", set_verify, VERIFY_HELP },
};

static int answer(const struct options *o, const struct move *move)
{
	if (given(o, OPTION(JSON))) {
		json_print(move_to_json(move));
		return 0;
	}
	return move_print(move);
}

static int work(struct guard *guard, void *ctx)
{
	const struct options *o = ctx;
	const struct restore_options *restore = &((const struct own *)o->own)->restore;
	struct move *move = calloc(1, sizeof(*move));
	int r, told;

	if (!move) {
		return GCLK_NOMEM;
	}
	if (restore->uri) {
		snprintf(guard->uri, sizeof(guard->uri), "%s", restore->uri);
	}
	r = restore_run(guard, restore, o, move);
	if (move->domain[0] && (r == 0 || r == GCLK_UNPROVEN || given(o, OPTION(JSON)))) {
		told = answer(o, move);
		r = r ? r : told;
	}
	free(move);
	return r;
}

static int run(const struct options *o)
{
	struct restore_options *to = &((struct own *)o->own)->restore;
	struct options copy = *o;
	bool managed = own_given(o, MANAGED);

	if (own_given(o, RUNNING) && own_given(o, PAUSED)) {
		return usage_error("restore", "--running and --paused exclude each other");
	}
	if (managed && own_given(o, XML)) {
		return usage_error("restore", "a managed save has the domain's own XML");
	}
	to->path = managed ? NULL : o->files[0];
	to->domain = managed ? o->files[0] : NULL;
	to->running = own_given(o, RUNNING);
	to->paused = own_given(o, PAUSED);
	to->bypass_cache = own_given(o, BYPASS_CACHE);
	to->set_guest_time = own_given(o, SET_TIME);
	return guard_run(work, &copy, false);
}

const struct verb verb_restore = {
	.name = "restore",
	.summary = SUMMARY_RESTORE,
	.synopsis = "FILE | --managed DOMAIN",
	.text = "Restores a guest of libvirt's on this host from a save image, made by "
		"`guestclock save`, by `virsh save` or as the memory of an external "
		"snapshot. It is loaded suspended, its clocks are written while its memory "
		"is read, and it is resumed at the instant that they were written for. The "
		"image keeps its original bytes, so it can be restored again. Nothing that "
		"ends this command leaves the guest suspended.",
	.example = "guestclock restore /var/tmp/web1.save",
	.options = OPTIONS_COMMON | OPTION(CONF) | OPTION(FORCE) | OPTION(CAPTURED_AT) |
		   OPTION(GAP) | OPTION(TICKS) | OPTION(DISAGREEMENT),
	.min_files = 1,
	.max_files = 1,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
