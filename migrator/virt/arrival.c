/* SPDX-License-Identifier: MIT */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "migrator/offsets.h"
#include "migrator/virt/arrival.h"
#include "migrator/virt/connect.h"

/* Where libvirt notes it: of the host's, or of the user's own. */
static pid_t noted_process(virDomainPtr domain)
{
	const char *name = virDomainGetName(domain), *run = getenv("XDG_RUNTIME_DIR");
	char *uri = virConnectGetURI(virDomainGetConnect(domain));
	bool session = uri && strstr(uri, "/session");
	char path[PATH_MAX];
	long pid = 0;
	FILE *file;

	free(uri);
	if (!session) {
		return offsets_pid_of("", name);
	}
	if (!run || strchr(name, '/') ||
	    snprintf(path, sizeof(path), "%s/libvirt/qemu/run/%s.pid", run, name) >=
		    (int)sizeof(path) ||
	    !(file = fopen(path, "re"))) {
		return 0;
	}
	if (fscanf(file, "%ld", &pid) != 1) {
		pid = 0;
	}
	fclose(file);
	return (pid_t)pid;
}

static int check_process(virDomainPtr domain, pid_t pid, struct gclk_error *reterr)
{
	pid_t noted;

	if (pid < 0) {
		return 0;
	}
	noted = noted_process(domain);
	/* 0: in a namespace of its own, where its number is another */
	if (noted <= 0 || pid == 0) {
		return 1;
	}
	return noted == pid ? 0
			    : gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
					"process %ld listens there, and the guest's is %ld",
					(long)pid, (long)noted);
}

/* One that an operator has suspended is none that arrives. */
static int check_awaited(virDomainPtr domain, struct gclk_error *reterr)
{
	int state = -1, reason = -1;

	if (virDomainGetState(domain, &state, &reason, 0) < 0) {
		return virt_fail(reterr, GCLK_SYS, "asking for the guest's state");
	}
	return state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_MIGRATION
		       ? 0
		       : gclk_fail(reterr, GCLK_REFUSED, NULL, GCLK_NO_OFFSET,
				   "libvirt awaits no such guest here (state %d, reason %d)",
				   state, reason);
}

static int check_domain(virDomainPtr domain, pid_t pid, bool awaited,
			struct gclk_error *reterr)
{
	int r = awaited ? check_awaited(domain, reterr) : 0;

	return r < 0 ? r : check_process(domain, pid, reterr);
}

int arrival_check(const char *uri, const char *uuid, pid_t pid, bool awaited,
		  struct gclk_error *reterr)
{
	virConnectPtr connection = NULL;
	virDomainPtr domain;
	int r = virt_connect(uri, true, &connection, reterr);

	if (r < 0) {
		return awaited ? r : 1;
	}
	domain = virDomainLookupByUUIDString(connection, uuid);
	if (domain) {
		r = check_domain(domain, pid, awaited, reterr);
		virDomainFree(domain);
	} else {
		r = awaited ? gclk_fail(reterr, GCLK_REFUSED, uuid, GCLK_NO_OFFSET,
					"libvirt knows no such guest here")
			    : 1;
	}
	virResetLastError();
	virConnectClose(connection);
	return r;
}
