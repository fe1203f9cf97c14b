/* SPDX-License-Identifier: MIT */
/* Authorities and certificates for tests, as files in a directory of their own. */
#ifndef GCLK_TESTS_PKI_H
#define GCLK_TESTS_PKI_H

#include "migrator/peer/source_end.h"

struct pki {
	char directory[32];
	char files[8][3][64];	/* per name: authority, certificate, key */
	unsigned n;
};

void pki_open(struct pki *pki);
void pki_close(struct pki *pki);

/**
 * pki_make() - a certificate
 * @authority:	"a" or "b": whose
 * @host:	DNS name in it
 * @days:	until it expires; negative: it has
 */
struct peer_tls pki_make(struct pki *pki, const char *authority, const char *host, int days);

#endif
