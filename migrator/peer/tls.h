/* SPDX-License-Identifier: MIT */
/*
 * TLS 1.3 with certificates on both sides; all of OpenSSL is behind this. Without files
 * given it takes the PKI that libvirt has:
 *
 *	/etc/pki/CA/cacert.pem				who signs
 *	/etc/pki/CA/cacrl.pem				what is revoked, where it exists
 *	/etc/pki/libvirt/clientcert.pem			this host as client
 *	/etc/pki/libvirt/private/clientkey.pem
 *	/etc/pki/libvirt/servercert.pem			this host as server
 *	/etc/pki/libvirt/private/serverkey.pem
 */
#ifndef GCLK_MIGRATOR_PEER_TLS_H
#define GCLK_MIGRATOR_PEER_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

struct peer_tls;
struct tls_identity;
struct tls;

/**
 * tls_identity_new() - read and check certificate, key and authority
 * @server:	which of the default files
 *
 * Errors: GCLK_SYS for a file that cannot be read, GCLK_MALFORMED for what does not fit
 * together.
 */
int tls_identity_new(const struct peer_tls *files, bool server, struct tls_identity **ret,
		     struct gclk_error *reterr);
struct tls_identity *tls_identity_free(struct tls_identity *identity);

/**
 * tls_start() - the handshake
 * @fd:		a non-blocking connected socket; stays the caller's
 * @host:	client: the name or address that the certificate must be for; server: NULL
 * @deadline_ns: CLOCK_MONOTONIC
 *
 * The identity may be freed while connections made with it live. Errors: GCLK_PEER with
 * the reason in words ("certificate has expired").
 */
int tls_start(struct tls_identity *identity, int fd, const char *host, int64_t deadline_ns,
	      struct tls **ret, struct gclk_error *reterr);

/* As link_read(), link_write(), link_shut(); @ret_needs: POLLIN or POLLOUT on LINK_WAIT. */
long tls_read(struct tls *tls, void *to, size_t n, short *ret_needs, struct gclk_error *reterr);
long tls_write(struct tls *tls, const void *from, size_t n, short *ret_needs,
	       struct gclk_error *reterr);
int tls_shut(struct tls *tls);
bool tls_pending(const struct tls *tls);
bool tls_is_healthy(struct tls *tls);

/* The distinguished name of the other end, RFC 2253; "": none, or one that does not fit. */
void tls_peer_name(const struct tls *tls, char *to, size_t size);

/* "TLS_AES_256_GCM_SHA384" */
const char *tls_cipher(const struct tls *tls);

struct tls *tls_free(struct tls *tls);

/* Of what OpenSSL keeps for a thread: before one that nobody joins says that it ends. */
void tls_thread_ends(void);

#endif
