/* SPDX-License-Identifier: MIT */
/* guestclock hook: puts libvirt's hook where libvirt looks for it, and explains it. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/hook/conf.h"
#include "migrator/message.h"
#include "migrator/report-json.h"
#include "migrator/text.h"
#include "migrator/verbs.h"

#define PROGRAM "guestclock-hook"
#define NAME "50-guestclock"

static struct own {
	const char *dir;
} own = { GUESTCLOCK_HOOKSDIR };

static int set_dir(struct options *o, const char *text, struct gclk_error *reterr)
{
	(void)reterr;
	((struct own *)o->own)->dir = text;
	return 0;
}

enum { INSTALL, UNINSTALL, DIRECTORY };

static const struct option_row rows[] = {
	[INSTALL] = { "install", 0, NULL, NULL, "make libvirt call it" },
	[UNINSTALL] = { "uninstall", 0, NULL, NULL, "take it away again" },
	[DIRECTORY] = { "dir", 0, "DIRECTORY", set_dir,
		"libvirt's hooks; default " GUESTCLOCK_HOOKSDIR },
};

struct place {
	char dir[400];		/* .../qemu.d */
	char path[440];		/* .../qemu.d/50-guestclock */
	char program[PATH_MAX]; /* the hook itself; "": not found */
	bool there;		/* something has that name */
	bool ours;		/* a link to the hook */
	bool others;		/* libvirt has another qemu hook, so it looks for all of them */
};

/* Beside this program as it is built, or where it is installed. */
static void find_program(char program[PATH_MAX])
{
	static const char *const below[] = { "hook/" PROGRAM, PROGRAM };
	char self[PATH_MAX - 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	program[0] = 0;
	if (n > 0) {
		self[n] = 0;
		slash = strrchr(self, '/');
		for (unsigned i = 0; slash && i < GCLK_COUNT(below); i++) {
			snprintf(program, PATH_MAX, "%.*s/%s", (int)(slash - self), self,
				 below[i]);
			if (access(program, X_OK) == 0) {
				return;
			}
		}
	}
	snprintf(program, PATH_MAX, "%s/%s", GUESTCLOCK_LIBEXECDIR, PROGRAM);
	if (access(program, X_OK) < 0) {
		program[0] = 0;
	}
}

static bool is_ours(const char *path)
{
	char to[PATH_MAX];
	ssize_t n = readlink(path, to, sizeof(to) - 1);
	const char *name;

	if (n <= 0) {
		return false;
	}
	to[n] = 0;
	name = strrchr(to, '/');
	return !strcmp(name ? name + 1 : to, PROGRAM);
}

/* Any other executable one: then libvirt looks at the directory each time. */
static bool has_others(const struct place *p, const char *hooks)
{
	char path[800];
	struct dirent *entry;
	bool found;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/qemu", hooks);
	found = access(path, X_OK) == 0;
	dir = opendir(p->dir);
	while (dir && !found && (entry = readdir(dir))) {
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", p->dir, entry->d_name);
		found = strcmp(entry->d_name, NAME) && stat(path, &st) == 0 &&
			S_ISREG(st.st_mode) && st.st_mode & 0111;
	}
	if (dir) {
		closedir(dir);
	}
	return found;
}

static void look(struct place *p, const char *hooks)
{
	struct stat st;

	memset(p, 0, sizeof(*p));
	snprintf(p->dir, sizeof(p->dir), "%s/qemu.d", hooks);
	snprintf(p->path, sizeof(p->path), "%s/" NAME, p->dir);
	p->there = lstat(p->path, &st) == 0;
	p->ours = p->there && is_ours(p->path);
	p->others = has_others(p, hooks);
	find_program(p->program);
}

static int system_failed(const char *path, const char *what)
{
	struct gclk_error error;

	gclk_fail(&error, GCLK_SYS, NULL, GCLK_NO_OFFSET, "%s: %s", what, strerror(errno));
	return fail(path, &error, EFFECT_NONE, NULL);
}

static int not_ours(const struct place *p)
{
	struct gclk_error error;

	gclk_fail(&error, GCLK_STATE, NULL, GCLK_NO_OFFSET,
		  "something that is not a link to " PROGRAM " has that name");
	return fail(p->path, &error, EFFECT_NONE, NULL);
}

/* A link under another name takes the place of an older one in one step. */
static int install(const struct place *p)
{
	char temporary[480];

	if (!p->program[0]) {
		errno = ENOENT;
		return system_failed(GUESTCLOCK_LIBEXECDIR, PROGRAM " is not there");
	}
	if (p->there && !p->ours) {
		return not_ours(p);
	}
	if (mkdir(p->dir, 0755) < 0 && errno != EEXIST) {
		return system_failed(p->dir, "cannot be made");
	}
	snprintf(temporary, sizeof(temporary), "%s.%d", p->path, (int)getpid());
	if (symlink(p->program, temporary) < 0 || rename(temporary, p->path) < 0) {
		int saved = errno;

		unlink(temporary);
		errno = saved;
		return system_failed(p->path, "cannot be made");
	}
	return 0;
}

static int uninstall(const struct place *p)
{
	if (p->there && !p->ours) {
		return not_ours(p);
	}
	return p->there && unlink(p->path) < 0 ? system_failed(p->path, "cannot be removed") : 0;
}

static const char *restore_text(const struct hook_conf *conf)
{
	switch (conf->restore) {
	case HOOK_REPORT:
		return "report: the audit log says what a restore would have needed";
	case HOOK_REWRITE:
		return "rewrite: plain virsh restore, and the start of a managed save, come "
		       "up with the clocks right";
	case HOOK_OFF:
		break;
	}
	return "off: images are not looked at";
}

static const char *check_text(const struct hook_conf *conf)
{
	switch (conf->check) {
	case HOOK_CHECK_REFUSE:
		return "refuse: a guest whose clocks cannot be right here does not come here";
	case HOOK_CHECK_REPORT:
		return "report: such a guest comes, and the system's log says why it should not";
	case HOOK_CHECK_OFF:
		break;
	}
	return "off";
}

static void put_reload(const struct place *before, bool installed)
{
	if (installed && !before->ours && !before->others) {
		puts("libvirt looks for hooks when it starts: make it look again, which no "
		     "guest notices:\n"
		     "  systemctl reload libvirtd      (or virtqemud; or send it SIGHUP)");
	}
}

static int answer_text(const struct place *p, const struct place *before,
		       const struct hook_conf *conf)
{
	printf("%s%s%s: %s\n", style(STYLE_BOLD), p->path, style(STYLE_PLAIN),
	       p->ours ? "installed" : p->there ? "somebody else's" : "not installed");
	printf("restore  %s\n", restore_text(conf));
	printf("check    %s\n", check_text(conf));
	printf("pin_tsc  %s\n",
	       conf->pin_tsc ? "yes: a guest that comes is given its TSC frequency by QEMU's "
			       "command line, which taints it"
			     : "no");
	put_reload(before, p->ours);
	return 0;
}

static int answer_json(const struct place *p, const struct place *before,
		       const struct hook_conf *conf)
{
	static const char *const restore[] = { "report", "rewrite", "off" };
	static const char *const check[] = { "refuse", "report", "off" };
	struct json_object *answer = json_answer("hook");

	json_put(answer, "path", json_text(p->path));
	json_put(answer, "installed", json_object_new_boolean(p->ours));
	json_put(answer, "reload_needed",
		 json_object_new_boolean(p->ours && !before->ours && !before->others));
	json_put(answer, "restore", json_text(restore[conf->restore]));
	json_put(answer, "check", json_text(check[conf->check]));
	json_put(answer, "pin_tsc", json_object_new_boolean(conf->pin_tsc));
	json_print(answer);
	return 0;
}

static int run(const struct options *o)
{
	const struct own *to = o->own;
	struct place before, now;
	struct hook_conf conf;
	struct gclk_error error;
	int r = 0;

	if (own_given(o, INSTALL) && own_given(o, UNINSTALL)) {
		return usage_error("hook", "--install and --uninstall exclude each other");
	}
	look(&before, to->dir);
	if (own_given(o, INSTALL)) {
		r = install(&before);
	} else if (own_given(o, UNINSTALL)) {
		r = uninstall(&before);
	}
	if (r) {
		return r;
	}
	if (hook_conf_read(o->conf, NULL, &conf, &error) < 0) {
		message("warning", o->conf ? o->conf : CONF_PATH, NULL, EFFECT_READING, NULL,
			"%s; the hook keeps its built-in settings", error.message);
	}
	look(&now, to->dir);
	return given(o, OPTION(JSON)) ? answer_json(&now, &before, &conf)
				      : answer_text(&now, &before, &conf);
}

const struct verb verb_hook = {
	.name = "hook",
	.summary = "libvirt's hook: plain virsh restore with the clocks right; install, "
		   "explain it",
	.synopsis = "",
	.text = "libvirt calls guestclock-hook before a guest comes to this host by a "
		"restore, by the start of a managed save or by a migration. It refuses a "
		"guest whose clocks cannot be right here, and with `restore = rewrite` in "
		"the section [hook] of guestclock.conf it writes the clocks into the image "
		"that is being loaded. Without an option this says whether it is installed "
		"and what it does.",
	.example = "guestclock hook --install && systemctl reload libvirtd",
	.options = OPTIONS_COMMON | OPTION(CONF),
	.min_files = 0,
	.max_files = 0,
	.run = run,
	.own_rows = rows,
	.n_own_rows = GCLK_COUNT(rows),
	.own = &own,
};
