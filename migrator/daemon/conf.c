/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/daemon/conf.h"

#define CONNECTIONS_LIMIT 65536

void daemon_conf_init(struct daemon_conf *conf)
{
	*conf = (struct daemon_conf){
		.socket = "/run/guestclock/guestclockd.sock",
		.socket_mode = 0660,
		.socket_group = (gid_t)-1,
		.directories = { "/run/guestclock" },
		.n_directories = 1,
		.own_resume = true,
		.max_sessions = 64,
		.max_connections = 512,
		.max_channels = 64,
		.tail_limit_mib = 24,
		.max_hold_ns = GCLK_NS_PER_S,
		.audit = "/var/log/guestclock/moves.jsonl",
		.margins = "/var/lib/guestclock/margins",
	};
}

static int bad(const char *name, const char *value, const char *what,
	       struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_MALFORMED, name, GCLK_NO_OFFSET, "\"%.60s\" %s",
			 value, what);
}

static int set_text(char to[DAEMON_TEXT], const char *name, const char *value,
		    struct gclk_error *reterr)
{
	if (strlen(value) >= DAEMON_TEXT) {
		return bad(name, value, "is too long", reterr);
	}
	snprintf(to, DAEMON_TEXT, "%s", strcmp(value, "none") ? value : "");
	return 0;
}

static int set_number(unsigned *to, const char *name, const char *value, unsigned max,
		      struct gclk_error *reterr)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || n == 0 || n > max) {
		return bad(name, value, "is no number within its limits", reterr);
	}
	*to = (unsigned)n;
	return 0;
}

static int set_switch(bool *to, const char *name, const char *value,
		      struct gclk_error *reterr)
{
	*to = !strcmp(value, "yes");
	return *to || !strcmp(value, "no")
		       ? 0
		       : bad(name, value, "is neither yes nor no", reterr);
}

static int set_mode(mode_t *to, const char *name, const char *value,
		    struct gclk_error *reterr)
{
	char *end;
	unsigned long n = strtoul(value, &end, 8);

	if (!*value || *end || n > 0777) {
		return bad(name, value, "is no mode such as 0660", reterr);
	}
	*to = (mode_t)n;
	return 0;
}

static int set_group(gid_t *to, const char *name, const char *value,
		     struct gclk_error *reterr)
{
	struct group *group = getgrnam(value);

	if (!group) {
		return bad(name, value, "is no group here", reterr);
	}
	*to = group->gr_gid;
	return 0;
}

/* One part after the other of a list; *@rest becomes NULL after the last. */
static const char *next_part(char **rest, const char *separator)
{
	char *part = strsep(rest, separator);
	size_t n;

	part += strspn(part, " \t");
	n = strlen(part);
	while (n && (part[n - 1] == ' ' || part[n - 1] == '\t')) {
		part[--n] = 0;
	}
	return part;
}

static int set_users(struct server_access *to, const char *name, char *list,
		     struct gclk_error *reterr)
{
	to->n_uids = 0;
	while (list) {
		const char *part = next_part(&list, ",");
		struct passwd *user = getpwnam(part);

		if (!user || to->n_uids == GCLK_COUNT(to->uids)) {
			return bad(name, part,
				   user ? "is one too many" : "is no user here", reterr);
		}
		to->uids[to->n_uids++] = user->pw_uid;
	}
	return 0;
}

static int set_list(char (*to)[DAEMON_TEXT], unsigned max, unsigned *n, const char *name,
		    char *list, const char *separator, struct gclk_error *reterr)
{
	int r = 0;

	*n = 0;
	while (list && r == 0) {
		const char *part = next_part(&list, separator);

		r = *n == max ? bad(name, part, "is one too many", reterr)
			      : set_text(to[*n], name, part, reterr);
		*n += r == 0;
	}
	return r;
}

/* Nothing is no name: it would let in whoever has none. */
static int set_tls_names(struct daemon_conf *conf, const char *name, char *list,
			 struct gclk_error *reterr)
{
	bool none = !strcmp(list, "none");
	int r = set_list(conf->tls_names, DAEMON_NAMES, &conf->n_tls_names, name, list, ";",
			 reterr);

	conf->n_tls_names = none ? 0 : conf->n_tls_names;
	for (unsigned i = 0; i < conf->n_tls_names && r == 0; i++) {
		if (!conf->tls_names[i][0]) {
			r = bad(name, "", "is no name", reterr);
		}
	}
	return r;
}

static int set_directories(struct daemon_conf *conf, const char *name, char *list,
			   struct gclk_error *reterr)
{
	int r = set_list(conf->directories, GCLK_COUNT(conf->directories),
			 &conf->n_directories, name, list, ",", reterr);

	for (unsigned i = 0; i < conf->n_directories && r == 0; i++) {
		if (conf->directories[i][0] != '/') {
			r = bad(name, conf->directories[i], "is no absolute path",
				reterr);
		}
	}
	return r;
}

static int set(struct daemon_conf *c, const char *name, char *value,
	       struct gclk_error *reterr)
{
	const struct {
		const char *name;
		char *text;
	} texts[] = {
		{ "socket", c->socket },   { "listen", c->listen },
		{ "tls_ca", c->tls_ca },   { "tls_cert", c->tls_cert },
		{ "tls_key", c->tls_key }, { "tls_crl", c->tls_crl },
		{ "audit", c->audit },	   { "margins", c->margins },
		{ "metrics", c->metrics }, { "metrics_file", c->metrics_file },
	};
	const struct {
		const char *name;
		unsigned *number, max;
	} numbers[] = {
		{ "max_sessions", &c->max_sessions, CONNECTIONS_LIMIT },
		{ "max_connections", &c->max_connections, CONNECTIONS_LIMIT },
		{ "max_channels", &c->max_channels, 1024 },
		{ "tail_limit", &c->tail_limit_mib, 1024 },
	};

	for (unsigned i = 0; i < GCLK_COUNT(texts); i++) {
		if (!strcmp(name, texts[i].name)) {
			return set_text(texts[i].text, name, value, reterr);
		}
	}
	for (unsigned i = 0; i < GCLK_COUNT(numbers); i++) {
		if (!strcmp(name, numbers[i].name)) {
			return set_number(numbers[i].number, name, value, numbers[i].max,
					  reterr);
		}
	}
	if (!strcmp(name, "libvirt")) { /* here "none" is not the same as nothing */
		return strlen(value) < DAEMON_TEXT
			       ? (gclk_text_copy(c->libvirt, DAEMON_TEXT, value), 0)
			       : bad(name, value, "is too long", reterr);
	}
	if (!strcmp(name, "socket_mode")) {
		return set_mode(&c->socket_mode, name, value, reterr);
	}
	if (!strcmp(name, "socket_group")) {
		return set_group(&c->socket_group, name, value, reterr);
	}
	if (!strcmp(name, "users")) {
		return set_users(&c->access, name, value, reterr);
	}
	if (!strcmp(name, "tls_names")) {
		return set_tls_names(c, name, value, reterr);
	}
	if (!strcmp(name, "directories")) {
		return set_directories(c, name, value, reterr);
	}
	if (!strcmp(name, "own_resume")) {
		return set_switch(&c->own_resume, name, value, reterr);
	}
	if (!strcmp(name, "max_hold")) {
		return parse_span(value, &c->max_hold_ns, reterr);
	}
	return bad(name, value, "belongs to no setting of [daemon]", reterr);
}

struct reading {
	struct daemon_conf *conf;
	struct gclk_error *error;
	int status;
};

static int take(void *user, const char *section, const char *name, const char *value)
{
	struct reading *reading = user;
	char *copy;

	if (reading->status < 0 || strcmp(section, "daemon")) {
		return 1;
	}
	copy = strdup(value);
	reading->status = copy ? set(reading->conf, name, copy, reading->error)
			       : gclk_fail(reading->error, GCLK_NOMEM, NULL,
					   GCLK_NO_OFFSET, "no memory");
	free(copy);
	return 1;
}

int daemon_conf_read(const char *path, struct daemon_conf *conf,
		     struct gclk_error *reterr)
{
	struct daemon_conf read;
	struct gclk_error error = { 0 };
	struct reading reading = { &read, &error, 0 };
	int r;

	daemon_conf_init(&read);
	r = ini_parse(path ? path : CONF_PATH, take, &reading);
	if (r < 0 && path) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
				 "cannot be read: %s", strerror(errno));
	}
	if (reading.status < 0) {
		if (reterr) {
			*reterr = error;
		}
		return reading.status;
	}
	if (r > 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, path ? path : CONF_PATH,
				 GCLK_NO_OFFSET,
				 "line %d is neither [section] nor name = value", r);
	}
	*conf = read;
	return 0;
}

void daemon_conf_options(const struct daemon_conf *conf, struct destination_options *ret)
{
	destination_options_init(ret);
	memset(ret->directories, 0, sizeof(ret->directories));
	memcpy(ret->directories, conf->directories,
	       conf->n_directories * sizeof(conf->directories[0]));
	gclk_text_copy(ret->own_paths[0], sizeof(ret->own_paths[0]), conf->socket);
	gclk_text_copy(ret->own_paths[1], sizeof(ret->own_paths[1]),
		       conf->metrics[0] == '/' ? conf->metrics : "");
	ret->may_own_resume = conf->own_resume;
	gclk_text_copy(ret->audit_path, sizeof(ret->audit_path), conf->audit);
	gclk_text_copy(ret->margins_path, sizeof(ret->margins_path), conf->margins);
	ret->max_sessions = conf->max_sessions;
	ret->max_channels = conf->max_channels;
	ret->tail_bytes = (size_t)conf->tail_limit_mib << 20;
	ret->max_hold_ns = conf->max_hold_ns;
	ret->resume_ctx = (void *)(uintptr_t)(conf->libvirt[0] ? conf->libvirt : NULL);
}
