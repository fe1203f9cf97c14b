/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/text.h"
#include "migrator/live-resume.h"

#if GUESTCLOCK_LIBVIRT
#include "migrator/virt/arrival.h"
#include "migrator/virt/resume.h"

static int check_libvirt(void *ctx, const char *uuid, pid_t pid, bool awaited,
			 struct gclk_error *reterr)
{
	return arrival_check(ctx, uuid, pid, awaited, reterr);
}

static int open_libvirt(void *ctx, const char *uuid, void **ret,
			struct gclk_error *reterr)
{
	struct resume *resume = NULL;
	int r = resume_open(ctx, uuid, &resume, reterr);

	*ret = resume;
	return r;
}

static void take(struct destination_ran *to, const struct resumed *from)
{
	to->at = from->at;
	to->until_ns = from->until_ns;
	to->ready_ns = from->ready_ns;
	gclk_text_copy(to->basis, sizeof(to->basis), from->basis);
}

static uint64_t slow_libvirt(void *resume)
{
	return resume_slow_milli(resume);
}

static int at_libvirt(void *resume, const struct wall_line *line, pid_t pid, int64_t t_run_ns,
		      int64_t give_up_ns, struct destination_ran *ret, struct gclk_error *reterr)
{
	struct resumed resumed = { 0 };
	int r = resume_at(resume, line, pid, t_run_ns, give_up_ns, &resumed, reterr);

	take(ret, &resumed);
	return r;
}

static int watch_libvirt(void *resume, const struct wall_line *line, int64_t give_up_ns,
			 struct destination_ran *ret, struct gclk_error *reterr)
{
	struct resumed resumed = { 0 };
	int r = resume_watch(resume, line, give_up_ns, &resumed, reterr);

	take(ret, &resumed);
	return r;
}

static int ask_libvirt(void *resume, const char *command, bool human, char **ret,
		       struct gclk_error *reterr)
{
	return resume_ask(resume, command, human, ret, reterr);
}

static void close_libvirt(void *resume)
{
	resume_close(resume);
}

const struct destination_resume *live_resume(void)
{
	static const struct destination_resume table = { check_libvirt, open_libvirt,
							 slow_libvirt, at_libvirt,
							 watch_libvirt, ask_libvirt,
							 close_libvirt };

	return &table;
}
#else
const struct destination_resume *live_resume(void)
{
	return NULL;
}
#endif

const char *live_margins_path(char to[256])
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (geteuid() == 0) {
		mkdir("/var/lib/guestclock", 0755);
		return "/var/lib/guestclock/margins";
	}
	if (state && state[0] == '/') {
		snprintf(to, 256, "%s/guestclock", state);
	} else if (home && home[0] == '/') {
		snprintf(to, 256, "%s/.local/state/guestclock", home);
	} else {
		return NULL;
	}
	if (strlen(to) > 200) {
		return NULL;
	}
	mkdir(to, 0700);
	strcat(to, "/margins");
	return to;
}
