/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/virt/address.h"

#define DAEMON_SOCKET "/run/guestclock/guestclockd.sock"

static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			    "0123456789._-:@/+,=%";
static const char user_letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789._-";
static const char v6_letters[] = "0123456789abcdefABCDEF:.";

/* ---- words of a command line ---- */

struct line {
	char *p;
	size_t n, size;
	bool full;
};

static void put_n(struct line *to, const char *text, size_t n)
{
	if (n >= to->size - to->n) {
		to->full = true;
		return;
	}
	memcpy(to->p + to->n, text, n);
	to->n += n;
	to->p[to->n] = 0;
}

static void put(struct line *to, const char *text)
{
	put_n(to, text, strlen(text));
}

/* As one word for a shell. */
static void put_word(struct line *to, const char *text)
{
	if (*text && strspn(text, plain) == strlen(text)) {
		put(to, text);
		return;
	}
	put(to, "'");
	for (; *text; text++) {
		if (*text == '\'') {
			put(to, "'\\''");
		} else {
			put_n(to, text, 1);
		}
	}
	put(to, "'");
}

/* ---- the parts of a URI ---- */

struct uri {
	const char *driver, *transport, *authority, *path, *query;
	size_t n_driver, n_transport, n_authority, n_path, n_query;
};

static int split(const char *text, struct uri *ret)
{
	const char *slashes = strstr(text, "://");
	const char *plus;

	if (!slashes) {
		return -1;
	}
	*ret = (struct uri){ .driver = text, .n_driver = (size_t)(slashes - text) };
	plus = memchr(text, '+', ret->n_driver);
	if (plus) {
		ret->transport = plus + 1;
		ret->n_transport = (size_t)(slashes - plus - 1);
		ret->n_driver = (size_t)(plus - text);
	}
	ret->authority = slashes + 3;
	ret->n_authority = strcspn(ret->authority, "/?#");
	ret->path = ret->authority + ret->n_authority;
	ret->n_path = strcspn(ret->path, "?#");
	ret->query = ret->path + ret->n_path;
	ret->query += *ret->query == '?';
	ret->n_query = strcspn(ret->query, "#");
	return 0;
}

static bool goes_by(const struct uri *uri, const char *transport)
{
	return uri->n_transport == strlen(transport) && uri->n_transport > 0 &&
	       !strncmp(uri->transport, transport, uri->n_transport);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' :
	       c >= 'a' && c <= 'f' ? c - 'a' + 10 :
	       c >= 'A' && c <= 'F' ? c - 'A' + 10 :
				      -1;
}

/* "%41" is "A". Returns the length; -1 for what is no text of at most @size - 1 bytes. */
static int decode(const char *from, size_t n, char *to, size_t size)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		int c = (unsigned char)from[i];

		if (c == '%') {
			if (n - i < 3 || hex(from[i + 1]) < 0 || hex(from[i + 2]) < 0) {
				return -1;
			}
			c = hex(from[i + 1]) << 4 | hex(from[i + 2]);
			i += 2;
		}
		if (c < ' ' || c == 0x7f || out + 1 >= size) {
			return -1;
		}
		to[out++] = (char)c;
	}
	to[out] = 0;
	return (int)out;
}

/* The URI's parameter: "" where there is none. */
static int parameter(const struct uri *uri, const char *name, char to[ADDRESS_FILE_BYTES],
		     struct gclk_error *reterr)
{
	size_t n_name = strlen(name);
	const char *p = uri->query, *end = p + uri->n_query;

	to[0] = 0;
	while (p < end) {
		size_t n = GCLK_MIN(strcspn(p, "&;"), (size_t)(end - p));

		if (n > n_name && p[n_name] == '=' && !strncmp(p, name, n_name)) {
			if (decode(p + n_name + 1, n - n_name - 1, to, ADDRESS_FILE_BYTES) < 0) {
				return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
						 "the URI's parameter %s is no text of at "
						 "most %d bytes", name, ADDRESS_FILE_BYTES - 1);
			}
			return 0;
		}
		p += n + 1;
	}
	return 0;
}

/* ---- ssh ---- */

static int fail_host(const struct uri *uri, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
			 "\"%.*s\" is no host that ssh could be asked for; say --via "
			 "exec:COMMAND",
			 (int)GCLK_MIN(uri->n_authority, (size_t)80), uri->authority);
}

static bool is_made_of(const char *text, size_t n, const char *good)
{
	return n > 0 && text[0] != '-' && strspn(text, good) >= n;
}

/* "user@host:port", "[V6]:port" to ssh's arguments. */
static int put_host(struct line *to, const struct uri *uri, struct gclk_error *reterr)
{
	const char *text = uri->authority, *end = text + uri->n_authority;
	const char *at = memchr(text, '@', uri->n_authority);
	const char *host = at ? at + 1 : text, *port;
	size_t n_user = at ? (size_t)(at - text) : 0, n_host;
	bool is_v6 = host < end && *host == '[';

	host += is_v6;
	n_host = GCLK_MIN(strcspn(host, is_v6 ? "]" : ":"), (size_t)(end - host));
	port = host + n_host + is_v6;
	if ((at && !is_made_of(text, n_user, user_letters)) ||
	    !is_made_of(host, n_host, is_v6 ? v6_letters : user_letters) || port > end ||
	    (port < end && (*port != ':' || !is_made_of(port + 1, (size_t)(end - port - 1),
							"0123456789")))) {
		return fail_host(uri, reterr);
	}
	if (port < end) {
		put(to, " -p ");
		put_n(to, port + 1, (size_t)(end - port - 1));
	}
	put(to, " ");
	put_n(to, text, (size_t)(host - is_v6 - text));
	put_n(to, host, n_host);
	return 0;
}

/* What the URI says of keys: to ssh's options. */
static int put_keys(struct line *to, const struct uri *uri, struct gclk_error *reterr)
{
	bool is_ssh = goes_by(uri, "ssh");
	char text[ADDRESS_FILE_BYTES], option[ADDRESS_FILE_BYTES + 32];
	int r = parameter(uri, "keyfile", text, reterr);

	if (r == 0 && *text) {
		put(to, " -i ");
		put_word(to, text);
	}
	if (r == 0) {
		r = parameter(uri, "no_verify", text, reterr);
	}
	if (r == 0 && *text && strcmp(text, "0") != 0) {
		put(to, " -o StrictHostKeyChecking=no");
	} else if (r == 0 && !is_ssh) {
		r = parameter(uri, "known_hosts_verify", text, reterr);
		put(to, r < 0 || !*text || !strcmp(text, "normal") ? "" :
			!strcmp(text, "auto") ? " -o StrictHostKeyChecking=accept-new" :
			!strcmp(text, "ignore") ? " -o StrictHostKeyChecking=no" : "");
	}
	if (r == 0 && !is_ssh) {
		r = parameter(uri, "known_hosts", text, reterr);
	}
	if (r == 0 && !is_ssh && *text) {
		put(to, " -o ");
		snprintf(option, sizeof(option), "UserKnownHostsFile=\"%s\"", text);
		put_word(to, option);
	}
	return r;
}

/* The guestclock there resumes guests of the libvirt that the URI means. */
static int put_libvirt(struct line *to, const struct uri *uri, struct gclk_error *reterr)
{
	char socket[ADDRESS_FILE_BYTES], name[2 * ADDRESS_FILE_BYTES], word[ADDRESS_BYTES] = "";
	struct line there = { .p = word, .size = sizeof(word) };
	int r = parameter(uri, "socket", socket, reterr);

	if (r < 0 || uri->n_path < 2) {
		return r;
	}
	if (!is_made_of(uri->driver, uri->n_driver, user_letters) ||
	    !is_made_of(uri->path, uri->n_path, plain) || uri->n_path > ADDRESS_FILE_BYTES / 2) {
		return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
				 "the URI names no libvirt that could be asked for there");
	}
	snprintf(name, sizeof(name), "%.*s%s://%.*s%s%s", (int)GCLK_MIN(uri->n_driver, 16),
		 uri->driver, *socket ? "+unix" : "", (int)uri->n_path, uri->path,
		 *socket ? "?socket=" : "", socket);
	/* through the shell there, and before that through the one here */
	put_word(&there, name);
	put(to, " --libvirt ");
	put_word(to, word);
	to->full |= there.full;
	return 0;
}

static int ssh_command(const struct uri *uri, char ret[ADDRESS_BYTES], struct gclk_error *reterr)
{
	char command[ADDRESS_FILE_BYTES], text[ADDRESS_BYTES] = "";
	struct line to = { .p = text, .size = sizeof(text) };
	int r = parameter(uri, "command", command, reterr);

	if (r < 0) {
		return r;
	}
	put(&to, "exec:");
	put_word(&to, *command && goes_by(uri, "ssh") ? command : "ssh");
	put(&to, " -T -o BatchMode=yes");
	r = put_keys(&to, uri, reterr);
	if (r == 0) {
		r = put_host(&to, uri, reterr);
	}
	put(&to, " guestclock proxy --stdio");
	if (r == 0) {
		r = put_libvirt(&to, uri, reterr);
	}
	if (r == 0 && to.full) {
		r = gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
			      "the command for ssh has more than %d bytes", ADDRESS_BYTES - 1);
	}
	if (r == 0) {
		gclk_text_copy(ret, ADDRESS_BYTES, text);
	}
	return r;
}

/* ---- the others ---- */

/* The host alone: libvirt's own port is not the daemon's, and its user says nothing here. */
static void tls_address(const struct uri *uri, char to[ADDRESS_BYTES])
{
	const char *at = memchr(uri->authority, '@', uri->n_authority);
	const char *host = at ? at + 1 : uri->authority;
	size_t n = (size_t)(uri->authority + uri->n_authority - host);

	n = *host == '[' ? GCLK_MIN(strcspn(host, "]") + 1, n) : GCLK_MIN(strcspn(host, ":"), n);
	snprintf(to, ADDRESS_BYTES, "tls:%.*s", (int)GCLK_MIN(n, (size_t)400), host);
}

int address_of_uri(const char *text, char to[ADDRESS_BYTES], struct gclk_error *reterr)
{
	struct uri uri;

	if (split(text, &uri) == 0) {
		if (goes_by(&uri, "ssh") || goes_by(&uri, "libssh") || goes_by(&uri, "libssh2")) {
			return ssh_command(&uri, to, reterr);
		}
		if (uri.n_authority == 0 && (!uri.transport || goes_by(&uri, "unix"))) {
			gclk_text_copy(to, ADDRESS_BYTES, "unix:" DAEMON_SOCKET);
			return 0;
		}
		if (uri.n_authority > 0 && (!uri.transport || goes_by(&uri, "tls"))) {
			tls_address(&uri, to);
			return 0;
		}
	}
	return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
			 "the URI does not say how to reach guestclock there; say --via "
			 "ssh's exec:COMMAND, tls:HOST or unix:PATH");
}

/* ---- certificates ---- */

/* @name in that directory, if @always or if it is there. */
static int file_in(const char *directory, const char *name, bool always,
		   char to[ADDRESS_FILE_BYTES], const char **ret, struct gclk_error *reterr)
{
	int n = snprintf(to, ADDRESS_FILE_BYTES, "%s/%s", directory, name);

	if (n < 0 || n >= ADDRESS_FILE_BYTES) {
		return gclk_fail(reterr, GCLK_RANGE, directory, GCLK_NO_OFFSET,
				 "too long for the directory of certificates");
	}
	if (!*ret && (always || access(to, F_OK) == 0)) {
		*ret = to;
	}
	return 0;
}

int address_pki(const char *text, struct address_pki *space, struct peer_tls *files,
		struct gclk_error *reterr)
{
	char directory[ADDRESS_FILE_BYTES] = "";
	const char *home = getenv("HOME");
	struct uri uri;
	bool always;
	int r = split(text, &uri) == 0 ? parameter(&uri, "pkipath", directory, reterr) : 0;

	always = *directory;
	if (r == 0 && !always && geteuid() != 0 && home && strlen(home) < 200) {
		snprintf(directory, sizeof(directory), "%s/.pki/libvirt", home);
	}
	if (r < 0 || !*directory) {
		return r;
	}
	r = file_in(directory, "cacert.pem", always, space->ca, &files->ca, reterr);
	if (r == 0) {
		r = file_in(directory, "cacrl.pem", false, space->crl, &files->crl, reterr);
	}
	if (r == 0) {
		r = file_in(directory, "clientcert.pem", always, space->certificate,
			    &files->certificate, reterr);
	}
	return r < 0 ? r : file_in(directory, "clientkey.pem", always, space->key, &files->key,
				   reterr);
}
