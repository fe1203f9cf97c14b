/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <ini.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/conf.h"
#include "migrator/hook/conf.h"

static const char *const restore_words[] = { "report", "rewrite", "off" };
static const char *const check_words[] = { "refuse", "report", "off" };
static const char *const switch_words[] = { "no", "yes" };

/* The place of a word in a list, or an error that names the choices. */
static int choose(const char *name, const char *value, const char *const *words, int n_words,
		  struct gclk_error *reterr)
{
	for (int i = 0; i < n_words; i++) {
		if (!strcmp(value, words[i])) {
			return i;
		}
	}
	return gclk_fail(reterr, GCLK_MALFORMED, name, GCLK_NO_OFFSET,
			 "\"%.40s\" is no value of it: %s, %s%s%s", value, words[0], words[1],
			 n_words > 2 ? " or " : "", n_words > 2 ? words[2] : "");
}

static int set(struct hook_conf *conf, const char *name, const char *value,
	       struct gclk_error *reterr)
{
	int r = 0;

	if (!strcmp(name, "restore")) {
		r = choose(name, value, restore_words, GCLK_COUNT(restore_words), reterr);
		conf->restore = r < 0 ? conf->restore : (enum hook_restore)r;
	} else if (!strcmp(name, "check")) {
		r = choose(name, value, check_words, GCLK_COUNT(check_words), reterr);
		conf->check = r < 0 ? conf->check : (enum hook_check)r;
	} else if (!strcmp(name, "pin_tsc")) {
		r = choose(name, value, switch_words, GCLK_COUNT(switch_words), reterr);
		conf->pin_tsc = r < 0 ? conf->pin_tsc : r == 1;
	}
	return r < 0 ? r : 0;
}

struct reading {
	struct hook_conf *conf;
	struct gclk_error *error;
	int status;
};

static int take(void *user, const char *section, const char *name, const char *value)
{
	struct reading *reading = user;

	if (reading->status == 0 && !strcmp(section, "hook")) {
		reading->status = set(reading->conf, name, value, reading->error);
	}
	return 1;
}

static int read_file(const char *path, struct hook_conf *conf, struct gclk_error *reterr)
{
	struct reading reading = { .conf = conf, .error = reterr };
	int r = ini_parse(path ? path : CONF_PATH, take, &reading);

	if (r == -1 && !path) {
		return 0;
	}
	if (r == -1) {
		return gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET, "cannot be read");
	}
	if (reading.status == 0 && r > 0) {
		return gclk_fail(reterr, GCLK_MALFORMED, path ? path : CONF_PATH,
				 GCLK_NO_OFFSET,
				 "line %d is neither [section] nor name = value", r);
	}
	return reading.status;
}

static int read_domain(const struct gclk_domain *domain, struct hook_conf *conf,
		       struct gclk_error *reterr)
{
	const char *restore = gclk_domain_metadata(domain, "hook");
	const char *pin = gclk_domain_metadata(domain, "pin_tsc");
	int r = restore ? set(conf, "restore", restore, reterr) : 0;

	return r < 0 || !pin ? r : set(conf, "pin_tsc", pin, reterr);
}

int hook_conf_read(const char *path, const struct gclk_domain *domain, struct hook_conf *ret,
		   struct gclk_error *reterr)
{
	struct hook_conf conf = { HOOK_REPORT, HOOK_CHECK_REFUSE, false };
	int r;

	*ret = conf;
	r = read_file(path, &conf, reterr);
	if (r == 0 && domain) {
		r = read_domain(domain, &conf, reterr);
	}
	if (r == 0) {
		*ret = conf;
	}
	return r;
}
