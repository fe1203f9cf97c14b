/* SPDX-License-Identifier: MIT */
/*
 * The options that name a struct peer_tls's files, for each verb that goes to another host.
 *
 * A verb writes TLS_SETTERS(its type, its member) before its rows and TLS_ROWS among them.
 */
#ifndef GCLK_MIGRATOR_TLS_OPTIONS_H
#define GCLK_MIGRATOR_TLS_OPTIONS_H

#include "migrator/options.h"

#define TLS_SETTER(type, member, name)                                                   \
	static int set_tls_##name(struct options *o, const char *text,                   \
				  struct gclk_error *reterr)                             \
	{                                                                                \
		(void)reterr;                                                            \
		((type *)o->own)->member.name = text;                                    \
		return 0;                                                                \
	}

#define TLS_SETTERS(type, member)                                                        \
	TLS_SETTER(type, member, ca)                                                     \
	TLS_SETTER(type, member, certificate)                                            \
	TLS_SETTER(type, member, key)                                                    \
	TLS_SETTER(type, member, crl)                                                    \
	TLS_SETTER(type, member, name)

/* clang-format off */
#define TLS_ROWS                                                                         \
	{ "tls-ca", 0, "FILE", set_tls_ca, "default /etc/pki/CA/cacert.pem" },           \
	{ "tls-cert", 0, "FILE", set_tls_certificate,                                    \
		"default /etc/pki/libvirt/clientcert.pem" },                             \
	{ "tls-key", 0, "FILE", set_tls_key,                                             \
		"default /etc/pki/libvirt/private/clientkey.pem" },                      \
	{ "tls-crl", 0, "FILE", set_tls_crl,                                             \
		"default /etc/pki/CA/cacrl.pem, if there" },                             \
	{ "tls-name", 0, "NAME", set_tls_name,                                           \
		"in the other end's certificate; default: HOST" }
/* clang-format on */

#endif /* GCLK_MIGRATOR_TLS_OPTIONS_H */
