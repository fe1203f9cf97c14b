/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "migrator/virt/paths.h"

/* Where it keeps managed saves: fixed when it was built, or the user's. */
static int managed_path(virConnectPtr connection, const char *domain, char *ret, size_t size)
{
	char *uri = virConnectGetURI(connection);
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	bool session = uri && strstr(uri, "/session");
	int n;

	free(uri);
	if (!session) {
		n = snprintf(ret, size, "/var/lib/libvirt/qemu/save/%s.save", domain);
	} else if (config && *config) {
		n = snprintf(ret, size, "%s/libvirt/qemu/save/%s.save", config, domain);
	} else {
		n = snprintf(ret, size, "%s/.config/libvirt/qemu/save/%s.save",
			     home ? home : "", domain);
	}
	return n;
}

int virt_image_path(virConnectPtr connection, const char *path, const char *image,
		    const char *domain, char *ret, size_t size, struct gclk_error *reterr)
{
	const char *given = path ? path : image;
	char here[256] = "";
	int n;

	if (!given) {
		n = managed_path(connection, domain, ret, size);
	} else if (given[0] == '/') {
		n = snprintf(ret, size, "%s", given);
	} else {
		if (!getcwd(here, sizeof(here))) {
			return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
					 "the working directory has no name");
		}
		n = snprintf(ret, size, "%s/%s", here, given);
	}
	if (n < 0 || (size_t)n >= size) {
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "the image's path is too long");
	}
	return 0;
}
