/* SPDX-License-Identifier: MIT */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "pki.h"

/* Also outside a test. */
static void must(bool done)
{
	if (!done) {
		fputs("no certificate could be made\n", stderr);
		abort();
	}
}

static EVP_PKEY *authority_keys[2];
static X509 *authorities[2];

static X509 *certificate(const char *name, EVP_PKEY *key, X509 *by, EVP_PKEY *by_key, int days,
			 const char *extensions[][2])
{
	static long serial = 1;
	X509 *x = X509_new();
	X509V3_CTX ctx;

	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
	X509_gmtime_adj(X509_getm_notBefore(x), -7 * 86400L);
	X509_gmtime_adj(X509_getm_notAfter(x), days * 86400L);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(by ? by : x));
	X509_set_pubkey(x, key);
	X509V3_set_ctx(&ctx, by ? by : x, x, NULL, NULL, 0);
	for (unsigned i = 0; extensions[i][0]; i++) {
		X509_EXTENSION *e = X509V3_EXT_conf(NULL, &ctx, extensions[i][0], extensions[i][1]);

		must(e != NULL);
		X509_add_ext(x, e, -1);
		X509_EXTENSION_free(e);
	}
	must(X509_sign(x, by_key, EVP_sha256()) > 0);
	return x;
}

void pki_open(struct pki *pki)
{
	static const char *extensions[][2] = { { "basicConstraints", "critical,CA:TRUE" },
					       { "keyUsage", "keyCertSign,cRLSign" },
					       { NULL, NULL } };

	memset(pki, 0, sizeof(*pki));
	strcpy(pki->directory, "/tmp/gclk-pki-XXXXXX");
	must(mkdtemp(pki->directory) != NULL);
	for (unsigned i = 0; i < 2; i++) {
		authority_keys[i] = EVP_EC_gen("P-256");
		authorities[i] = certificate(i ? "b" : "a", authority_keys[i], NULL,
					     authority_keys[i], 2, extensions);
	}
}

static void put(const char *path, X509 *x, EVP_PKEY *key)
{
	FILE *file = fopen(path, "w");

	must(file != NULL);
	if (x) {
		PEM_write_X509(file, x);
	} else {
		PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	}
	fclose(file);
}

struct peer_tls pki_make(struct pki *pki, const char *authority, const char *host, int days)
{
	unsigned by = authority[0] == 'b';
	char names[80];
	const char *extensions[][2] = { { "subjectAltName", names },
					{ "extendedKeyUsage", "clientAuth,serverAuth" },
					{ NULL, NULL } };
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x;
	unsigned i = pki->n++;

	snprintf(names, sizeof(names), "DNS:%s", host);
	x = certificate(host, key, authorities[by], authority_keys[by], days, extensions);
	for (unsigned k = 0; k < 3; k++) {
		snprintf(pki->files[i][k], sizeof(pki->files[i][k]), "%s/%u-%u", pki->directory,
			 i, k);
	}
	put(pki->files[i][0], authorities[by], NULL);
	put(pki->files[i][1], x, NULL);
	put(pki->files[i][2], NULL, key);
	X509_free(x);
	EVP_PKEY_free(key);
	return (struct peer_tls){ .ca = pki->files[i][0], .certificate = pki->files[i][1],
				  .key = pki->files[i][2] };
}

void pki_close(struct pki *pki)
{
	for (unsigned i = 0; i < pki->n; i++) {
		for (unsigned k = 0; k < 3; k++) {
			unlink(pki->files[i][k]);
		}
	}
	rmdir(pki->directory);
	for (unsigned i = 0; i < 2; i++) {
		X509_free(authorities[i]);
		EVP_PKEY_free(authority_keys[i]);
	}
}
