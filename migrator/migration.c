/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/time.h"
#include "core/util.h"
#include "migrator/migration.h"
#include "migrator/offsets.h"
#include "migrator/text.h"
#include "migrator/virt/address.h"
#include "migrator/virt/guest-time.h"

#define DIRECTORY "/run/guestclock"

bool migration_runs_there(const struct migration *m)
{
	return m->state == VIR_DOMAIN_RUNNING && !own_given(m->o, MIGRATE_SUSPEND);
}

bool migration_copies_disks(const struct migration *m)
{
	return own_given(m->o, MIGRATE_COPY_ALL) || own_given(m->o, MIGRATE_COPY_INC);
}

/* ---- where the other end is ---- */

int migration_address(const char *desturi, const char *via, char to[512],
		      struct gclk_error *reterr)
{
	if (!via) {
		return address_of_uri(desturi, to, reterr);
	}
	if (strlen(via) >= 512) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "the address is too long");
	}
	gclk_text_copy(to, 512, via);
	return 0;
}

/* ---- when it stopped ---- */

#define STOP_SPAN_MAX_NS (20 * GCLK_NS_PER_MS) /* a longer silence before a stop is QEMU's own */
#define STAMP_RESOLUTION_NS 20000

/* From an instant that is known until the stamp. */
static int64_t span_since(int64_t since_ns, int64_t stamp_ns)
{
	return since_ns > 0 && since_ns <= stamp_ns ? stamp_ns - since_ns : INT64_MAX;
}

struct gclk_instant migration_stop(int64_t stamp_ns, const struct stop_evidence *evidence)
{
	int64_t span = span_since(evidence->ran_ns, stamp_ns);
	int64_t usual = (int64_t)VIRT_STOP_UNCERTAINTY_NS, back;

	if (span > STOP_SPAN_MAX_NS) {
		span = INT64_MAX;
	}
	span = GCLK_MIN(span, span_since(evidence->pass_ns, stamp_ns));
	if (evidence->lag_ns > 0) {
		span = GCLK_MIN(span, evidence->lag_ns);
	}
	back = GCLK_MIN(VIRT_STOP_LAG_NS, span / 2);
	if (span == INT64_MAX) {
		return (struct gclk_instant){ stamp_ns - VIRT_STOP_LAG_NS,
					      VIRT_STOP_UNCERTAINTY_NS };
	}
	if (span - back > usual) {
		back = GCLK_MIN(span - usual, usual);
	}
	return (struct gclk_instant){ stamp_ns - back,
				      (uint64_t)(GCLK_MAX(back, span - back) +
						 STAMP_RESOLUTION_NS) };
}

/* ---- the sockets ---- */

gid_t migration_group(const struct migration *m)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%ld", (long)offsets_pid_of("", m->xml.name));
	return stat(path, &st) == 0 ? st.st_gid : (gid_t)-1;
}

int migration_sockets(struct migration *m, struct gclk_error *reterr)
{
	const char *directory = m->own->directory ? m->own->directory : DIRECTORY;
	gid_t group = migration_group(m);
	int n;

	if (mkdir(directory, 0770) == 0) {
		/*
		 * as the destination of another move QEMU makes its socket here, and takes none
		 * of root's away
		 */
		if (chown(directory, (uid_t)-1, group) < 0 || chmod(directory, 01770) < 0) {
			return gclk_fail(reterr, GCLK_SYS, directory, GCLK_NO_OFFSET,
					 "cannot be made QEMU's group's: %s", strerror(errno));
		}
	} else if (errno != EEXIST) {
		return gclk_fail(reterr, GCLK_SYS, directory, GCLK_NO_OFFSET,
				 "cannot make the directory of the sockets: %s", strerror(errno));
	}
	n = snprintf(m->disks_path, sizeof(m->disks_path), "%s/%s.nbd.sock", directory, m->uuid);
	snprintf(m->path, sizeof(m->path), "%s/%s.sock", directory, m->uuid);
	if (n < 0 || (size_t)n >= sizeof(m->disks_path)) {
		return gclk_fail(reterr, GCLK_RANGE, directory, GCLK_NO_OFFSET,
				 "too long for a socket's path, of at most 107 bytes");
	}
	return 0;
}

/* ---- the progress bar ---- */

bool migration_wants_progress(const struct migration *m)
{
	return !given(m->o, OPTION(JSON)) && isatty(STDERR_FILENO);
}

#define BAR 20

void migration_show(struct migration *m)
{
	struct virt_progress p;
	char bar[BAR + 1], rate[32] = "", throttle[32] = "";
	unsigned done;

	if (!virt_migrate_progress(m->job, &p) || !p.total) {
		return;
	}
	done = (unsigned)(GCLK_MIN(p.total - GCLK_MIN(p.remaining, p.total), p.total) * BAR /
			  p.total);
	memset(bar, '.', BAR);
	memset(bar, '#', done);
	bar[BAR] = 0;
	if (p.bytes_per_s) {
		snprintf(rate, sizeof(rate), ", %llu MiB/s",
			 (unsigned long long)(p.bytes_per_s >> 20));
	}
	if (p.throttle) {
		snprintf(throttle, sizeof(throttle), ", slowed by %u %%", p.throttle);
	}
	m->visible = true;
	fprintf(stderr, "\r\033[K[%s] pass %u, %llu of %llu MiB remain%s%s", bar, p.iteration,
		(unsigned long long)(p.remaining >> 20), (unsigned long long)(p.total >> 20),
		rate, throttle);
}

void migration_show_end(struct migration *m)
{
	if (m->visible) {
		fputs("\r\033[K", stderr);
	}
	m->visible = false;
}

/* ---- where it is ---- */

enum migration_found migration_at_home(const struct migration *m)
{
	int state, reason;

	if (virDomainGetState(m->domain, &state, &reason, 0) < 0) {
		virResetLastError();
		return MIGRATION_UNKNOWN;
	}
	return state == VIR_DOMAIN_RUNNING ? MIGRATION_RUNNING :
	       state == VIR_DOMAIN_PAUSED  ? MIGRATION_PAUSED :
					     MIGRATION_UNKNOWN;
}

static enum migration_found look_there(const struct migration *m, virDomainPtr domain)
{
	int state, reason;

	if (virDomainGetState(domain, &state, &reason, 0) < 0) {
		return MIGRATION_UNKNOWN;
	}
	if (state == VIR_DOMAIN_RUNNING) {
		return MIGRATION_RUNNING;
	}
	if (state != VIR_DOMAIN_PAUSED) {
		return MIGRATION_UNKNOWN;
	}
	if (!migration_runs_there(m)) {
		return MIGRATION_PAUSED;
	}
	return virDomainResume(domain) == 0 ? MIGRATION_RESUMED : MIGRATION_UNKNOWN;
}

enum migration_found migration_rescue(const struct migration *m)
{
	enum migration_found found = MIGRATION_UNKNOWN;
	virDomainPtr domain;

	if (m->there) {
		domain = virDomainLookupByUUIDString(m->there, m->uuid);
		if (domain) {
			found = look_there(m, domain);
			virDomainFree(domain);
		}
		virResetLastError();
	}
	return found;
}

void migration_set_guest_time(const struct migration *m)
{
	virDomainPtr domain = NULL;

	if (!migration_runs_there(m) || (!own_given(m->o, MIGRATE_SET_TIME) &&
					 m->settings.policy.gap != GCLK_GAP_WALL)) {
		return;
	}
	if (m->there) {
		domain = virDomainLookupByUUIDString(m->there, m->uuid);
		virResetLastError();
	}
	guest_time_say(domain, m->xml.name);
	if (domain) {
		virDomainFree(domain);
	}
}
