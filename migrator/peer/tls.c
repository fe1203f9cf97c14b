/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/link.h"
#include "migrator/peer/tls.h"

#define READ_BUFFER_BYTES (64 << 10) /* several records per system call */

struct tls_identity {
	SSL_CTX *context;
	bool server;
};

struct tls {
	SSL *ssl;
};

static const char *file_or(const char *given, const char *usual)
{
	return given && *given ? given : usual;
}

/* The most telling of OpenSSL's errors; the queue is empty afterwards. */
static const char *reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return text ? text : "no reason given";
}

static int fail_file(struct gclk_error *reterr, const char *what, const char *path)
{
	if (access(path, R_OK) != 0) {
		int r = gclk_fail(reterr, GCLK_SYS, path, GCLK_NO_OFFSET,
				  "the TLS %s cannot be read", what);

		ERR_clear_error();
		return r;
	}
	return gclk_fail(reterr, GCLK_MALFORMED, path, GCLK_NO_OFFSET,
			 "the TLS %s is not usable: %s", what, reason());
}

static int load_crl(SSL_CTX *context, const char *path, bool asked,
		    struct gclk_error *reterr)
{
	X509_LOOKUP *lookup;

	if (!asked && access(path, F_OK) != 0) {
		return 0;
	}
	lookup = X509_STORE_add_lookup(SSL_CTX_get_cert_store(context),
				       X509_LOOKUP_file());
	if (!lookup || X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) <= 0) {
		return fail_file(reterr, "revocation list", path);
	}
	X509_STORE_set_flags(SSL_CTX_get_cert_store(context), X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int load(SSL_CTX *context, const struct peer_tls *files, bool server,
		struct gclk_error *reterr)
{
	const char *ca = file_or(files->ca, "/etc/pki/CA/cacert.pem");
	const char *certificate =
		file_or(files->certificate, server ? "/etc/pki/libvirt/servercert.pem"
						   : "/etc/pki/libvirt/clientcert.pem");
	const char *key =
		file_or(files->key, server ? "/etc/pki/libvirt/private/serverkey.pem"
					   : "/etc/pki/libvirt/private/clientkey.pem");

	if (SSL_CTX_load_verify_file(context, ca) != 1) {
		return fail_file(reterr, "authority", ca);
	}
	if (server) {
		SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(ca));
	}
	if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1) {
		return fail_file(reterr, "certificate", certificate);
	}
	if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(context) != 1) {
		return fail_file(reterr, "key", key);
	}
	return load_crl(context, file_or(files->crl, "/etc/pki/CA/cacrl.pem"),
			files->crl && *files->crl, reterr);
}

int tls_identity_new(const struct peer_tls *files, bool server, struct tls_identity **ret,
		     struct gclk_error *reterr)
{
	struct tls_identity *identity = calloc(1, sizeof(*identity));
	SSL_CTX *context =
		SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	int r;

	if (!identity || !context) {
		free(identity);
		SSL_CTX_free(context);
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for TLS");
	}
	identity->context = context;
	identity->server = server;
	ERR_clear_error();
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
			   NULL);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_AUTO_RETRY);
	/* what is never resumed needs no tickets; a stream that ends without a word is broken */
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_BYTES);
	r = load(context, files, server, reterr);
	if (r < 0) {
		tls_identity_free(identity);
		return r;
	}
	*ret = identity;
	return 0;
}

struct tls_identity *tls_identity_free(struct tls_identity *identity)
{
	if (identity) {
		SSL_CTX_free(identity->context);
		free(identity);
	}
	return NULL;
}

/* The certificate must be for this name, or for this address. */
static bool expect_host(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1) {
		return true;
	}
	ERR_clear_error();
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	/* OpenSSL copies the name, but its macro has no const */
	return SSL_set1_host(ssl, host) == 1 &&
	       SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t)host) == 1;
}

static int wait_for(int fd, int error, int64_t deadline_ns)
{
	struct pollfd p = { fd, error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN, 0 };
	int64_t left = deadline_ns - clock_mono_ns();

	return left > 0 && poll(&p, 1, (int)(left / GCLK_NS_PER_MS + 1)) > 0;
}

static int fail_handshake(SSL *ssl, int error, struct gclk_error *reterr)
{
	long verified = SSL_get_verify_result(ssl);

	if (verified != X509_V_OK) {
		ERR_clear_error();
		return gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
				 "the other end's certificate is not accepted: %s",
				 X509_verify_cert_error_string(verified));
	}
	if (error == SSL_ERROR_SYSCALL && !ERR_peek_error()) {
		return gclk_fail(
			reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
			"the other end closed the connection during the handshake");
	}
	return gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET, "no handshake: %s",
			 reason());
}

int tls_start(struct tls_identity *identity, int fd, const char *host,
	      int64_t deadline_ns, struct tls **ret, struct gclk_error *reterr)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int error = SSL_ERROR_NONE, r;

	ERR_clear_error();
	if (!tls || !(tls->ssl = SSL_new(identity->context)) ||
	    SSL_set_fd(tls->ssl, fd) != 1 || (host && !expect_host(tls->ssl, host))) {
		tls_free(tls);
		return gclk_fail(reterr, GCLK_NOMEM, "TLS", GCLK_NO_OFFSET, "%s",
				 reason());
	}
	for (;;) {
		r = identity->server ? SSL_accept(tls->ssl) : SSL_connect(tls->ssl);
		if (r == 1) {
			break;
		}
		error = SSL_get_error(tls->ssl, r);
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
			r = fail_handshake(tls->ssl, error, reterr);
			tls_free(tls);
			return r;
		}
		if (!wait_for(fd, error, deadline_ns)) {
			tls_free(tls);
			return gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
					 "the handshake was not finished in time");
		}
	}
	*ret = tls;
	return 0;
}

/* Of a call that returned @r <= 0. */
static long result(struct tls *tls, int r, short *ret_needs, struct gclk_error *reterr)
{
	int error = SSL_get_error(tls->ssl, r);
	int saved = errno;

	switch (error) {
	case SSL_ERROR_WANT_READ:
		*ret_needs = POLLIN;
		return LINK_WAIT;
	case SSL_ERROR_WANT_WRITE:
		*ret_needs = POLLOUT;
		return LINK_WAIT;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
				 "the connection broke: %s",
				 saved ? strerror(saved) : "closed by the other end");
	default:
		return gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
				 "the connection broke: %s", reason());
	}
}

long tls_read(struct tls *tls, void *to, size_t n, short *ret_needs,
	      struct gclk_error *reterr)
{
	size_t got = 0;
	int r;

	ERR_clear_error();
	errno = 0;
	r = SSL_read_ex(tls->ssl, to, n, &got);
	return r == 1 ? (long)got : result(tls, r, ret_needs, reterr);
}

long tls_write(struct tls *tls, const void *from, size_t n, short *ret_needs,
	       struct gclk_error *reterr)
{
	size_t gone = 0;
	long r;

	ERR_clear_error();
	errno = 0;
	if (SSL_write_ex(tls->ssl, from, n, &gone) == 1) {
		return (long)gone;
	}
	r = result(tls, 0, ret_needs, reterr);
	return r == 0 ? gclk_fail(reterr, GCLK_PEER, "TLS", GCLK_NO_OFFSET,
				  "the connection is closed")
		      : r;
}

int tls_shut(struct tls *tls)
{
	int r;

	ERR_clear_error();
	r = SSL_shutdown(tls->ssl);
	if (r >= 0) {
		return 0;
	}
	r = SSL_get_error(tls->ssl, r);
	ERR_clear_error();
	return r == SSL_ERROR_WANT_READ || r == SSL_ERROR_WANT_WRITE ? LINK_WAIT
								     : -GCLK_PEER;
}

bool tls_pending(const struct tls *tls)
{
	return SSL_has_pending(tls->ssl) == 1;
}

bool tls_is_healthy(struct tls *tls)
{
	uint8_t byte;
	size_t n;
	int r, error;

	ERR_clear_error();
	r = SSL_peek_ex(tls->ssl, &byte, 1, &n);
	if (r == 1) {
		return true;
	}
	error = SSL_get_error(tls->ssl, r);
	ERR_clear_error();
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

void tls_peer_name(const struct tls *tls, char *to, size_t size)
{
	X509 *certificate = SSL_get1_peer_certificate(tls->ssl);
	BIO *bio = BIO_new(BIO_s_mem());
	long n = 0;
	char *text = NULL;

	to[0] = 0;
	if (certificate && bio &&
	    X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0,
			       XN_FLAG_RFC2253) >= 0) {
		n = BIO_get_mem_data(bio, &text);
		/* a part of a name may be another one */
		if (n > 0 && (size_t)n < size) {
			snprintf(to, size, "%.*s", (int)n, text);
		}
	}
	BIO_free(bio);
	X509_free(certificate);
}

const char *tls_cipher(const struct tls *tls)
{
	return SSL_get_cipher_name(tls->ssl);
}

struct tls *tls_free(struct tls *tls)
{
	if (tls) {
		SSL_free(tls->ssl);
		free(tls);
	}
	return NULL;
}

void tls_thread_ends(void)
{
	OPENSSL_thread_stop();
}
