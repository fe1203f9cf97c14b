/* SPDX-License-Identifier: MIT */
/* Where images are: libvirt's daemon has a working directory of its own, and secrets. */
#ifndef GCLK_MIGRATOR_VIRT_PATHS_H
#define GCLK_MIGRATOR_VIRT_PATHS_H

#include "migrator/virt/connect.h"

/**
 * virt_image_path() - the absolute path of an image
 * @path:	as given; NULL: that of a managed save
 * @image:	of a managed save where somebody says it, else libvirt's own place
 *
 * Errors: GCLK_RANGE, GCLK_SYS.
 */
int virt_image_path(virConnectPtr connection, const char *path, const char *image,
		    const char *domain, char *ret, size_t size, struct gclk_error *reterr);

#endif
