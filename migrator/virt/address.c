/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxml/uri.h>

#include "core/error.h"
#include "core/text.h"
#include "core/util.h"
#include "migrator/message.h"
#include "migrator/virt/address.h"

#define DAEMON_SOCKET "/run/guestclock/guestclockd.sock"
#define QUOTED_BYTES (8 * ADDRESS_FILE_BYTES)

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
static const char name_letters[] = LETTERS "0123456789._-";
static const char v6_letters[] = "0123456789abcdefABCDEF:.";
static const char path_letters[] = LETTERS "0123456789._-:@/+,=%";

/* ---- the parts of a URI ---- */

enum { COMMAND, KEYFILE, NO_VERIFY, KNOWN_HOSTS, KNOWN_HOSTS_VERIFY, SOCKET, PKIPATH, N_GIVEN };

static const char *const parameters[N_GIVEN] = {
	"command", "keyfile", "no_verify", "known_hosts", "known_hosts_verify", "socket", "pkipath",
};

struct uri {
	xmlURIPtr x;
	int n_driver;		/* of its scheme, which is DRIVER or DRIVER+TRANSPORT */
	const char *transport;	/* "": none */
	char given[N_GIVEN][ADDRESS_FILE_BYTES];	/* parameters; "": not there */
};

/* @n bytes, of which "%41" is "A". Returns 0, or -1 for what is no text of that size. */
static int decode(const char *from, size_t n, char to[ADDRESS_FILE_BYTES])
{
	char *text = memmem(from, n, "%00", 3) ? NULL : xmlURIUnescapeString(from, (int)n, NULL);
	bool fits = text && strlen(text) < ADDRESS_FILE_BYTES;

	for (const char *s = text; fits && *s; s++) {
		fits = (unsigned char)*s >= ' ' && *s != 0x7f;
	}
	if (fits) {
		strcpy(to, text);
	}
	xmlFree(text);
	return fits ? 0 : -1;
}

/* One of the query, "NAME=VALUE"; others than ours are somebody else's. */
static int take_parameter(struct uri *uri, const char *p, size_t n, struct gclk_error *reterr)
{
	for (unsigned i = 0; i < N_GIVEN; i++) {
		size_t k = strlen(parameters[i]) + 1;

		/* of no bytes the library would take all that follow */
		if (n > k && p[k - 1] == '=' && !strncmp(p, parameters[i], k - 1) &&
		    !uri->given[i][0] && decode(p + k, n - k, uri->given[i]) < 0) {
			return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
					 "the URI's parameter %s is no text of at most %d bytes",
					 parameters[i], ADDRESS_FILE_BYTES - 1);
		}
	}
	return 0;
}

static int parse(const char *text, struct uri *ret, struct gclk_error *reterr)
{
	const char *p;
	size_t n;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	ret->x = xmlParseURI(text);
	if (!ret->x || !ret->x->scheme) {
		return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET, "\"%.80s\" is no URI",
				 text);
	}
	ret->n_driver = (int)strcspn(ret->x->scheme, "+");
	ret->transport = ret->x->scheme + ret->n_driver + (ret->x->scheme[ret->n_driver] == '+');
	for (p = ret->x->query_raw; r == 0 && p && *p; p += n + (p[n] != 0)) {
		n = strcspn(p, "&;");
		r = take_parameter(ret, p, n, reterr);
	}
	return r;
}

static bool goes_by(const struct uri *uri, const char *transport)
{
	return !strcmp(uri->transport, transport);
}

/* ---- ssh ---- */

static bool is_made_of(const char *text, size_t n, const char *good)
{
	return n > 0 && text[0] != '-' && strspn(text, good) >= n;
}

static void put_word(FILE *to, const char *text)
{
	char quoted[QUOTED_BYTES];

	fputs(shell_quote(quoted, sizeof(quoted), text), to);
}

/* User, host and port as ssh's arguments; an IPv6 address without its brackets. */
static int put_host(FILE *to, const struct uri *uri, struct gclk_error *reterr)
{
	const char *user = uri->x->user, *host = uri->x->server ? uri->x->server : "";
	size_t n = strlen(host);
	bool v6 = host[0] == '[' && host[n - 1] == ']';

	n -= v6 ? 2 : 0;
	if ((user && !is_made_of(user, strlen(user), name_letters)) ||
	    !is_made_of(host + v6, n, v6 ? v6_letters : name_letters)) {
		return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
				 "\"%.80s\" is no host that ssh could be asked for; say --via "
				 "exec:COMMAND", host);
	}
	if (uri->x->port > 0) {
		fprintf(to, " -p %d", uri->x->port);
	}
	fprintf(to, " %s%s%.*s", user ? user : "", user ? "@" : "", (int)n, host + v6);
	return 0;
}

/* What the URI says of keys, as ssh's options. */
static void put_keys(FILE *to, const struct uri *uri)
{
	const char *no_verify = uri->given[NO_VERIFY], *verify = uri->given[KNOWN_HOSTS_VERIFY];
	char option[ADDRESS_FILE_BYTES + 32];

	if (uri->given[KEYFILE][0]) {
		fputs(" -i ", to);
		put_word(to, uri->given[KEYFILE]);
	}
	if ((*no_verify && strcmp(no_verify, "0") != 0) ||
	    (!goes_by(uri, "ssh") && !strcmp(verify, "ignore"))) {
		fputs(" -o StrictHostKeyChecking=no", to);
	} else if (!goes_by(uri, "ssh") && !strcmp(verify, "auto")) {
		fputs(" -o StrictHostKeyChecking=accept-new", to);
	}
	if (!goes_by(uri, "ssh") && uri->given[KNOWN_HOSTS][0]) {
		fputs(" -o ", to);
		snprintf(option, sizeof(option), "UserKnownHostsFile=\"%s\"",
			 uri->given[KNOWN_HOSTS]);
		put_word(to, option);
	}
}

/* The guestclock there resumes guests of the libvirt that the URI means. */
static int put_libvirt(FILE *to, const struct uri *uri, struct gclk_error *reterr)
{
	const char *path = uri->x->path ? uri->x->path : "", *socket = uri->given[SOCKET];
	char name[2 * ADDRESS_FILE_BYTES], word[QUOTED_BYTES];

	if (strlen(path) < 2) {
		return 0;
	}
	if (!is_made_of(path, strlen(path), path_letters) ||
	    strlen(path) > ADDRESS_FILE_BYTES / 2) {
		return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
				 "the URI names no libvirt that could be asked for there");
	}
	snprintf(name, sizeof(name), "%.*s%s://%s%s%s", GCLK_MIN(uri->n_driver, 16),
		 uri->x->scheme, *socket ? "+unix" : "", path, *socket ? "?socket=" : "", socket);
	/* through the shell there, and before that through the one here */
	fputs(" --libvirt ", to);
	put_word(to, shell_quote(word, sizeof(word), name));
	return 0;
}

static int put_command(FILE *to, const struct uri *uri, struct gclk_error *reterr)
{
	const char *command = uri->given[COMMAND];
	int r;

	fputs("exec:", to);
	put_word(to, *command && goes_by(uri, "ssh") ? command : "ssh");
	fputs(" -T -o BatchMode=yes", to);
	put_keys(to, uri);
	r = put_host(to, uri, reterr);
	fputs(" guestclock proxy --stdio", to);
	return r < 0 ? r : put_libvirt(to, uri, reterr);
}

static int ssh_command(const struct uri *uri, char ret[ADDRESS_BYTES], struct gclk_error *reterr)
{
	char *text = NULL;
	size_t n = 0;
	FILE *to = open_memstream(&text, &n);
	int r = to ? put_command(to, uri, reterr) : 0;

	if (!to || fclose(to) != 0) {
		r = gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "no memory");
	} else if (r == 0 && n >= ADDRESS_BYTES) {
		r = gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
			      "the command for ssh has more than %d bytes", ADDRESS_BYTES - 1);
	} else if (r == 0) {
		gclk_text_copy(ret, ADDRESS_BYTES, text);
	}
	free(text);
	return r;
}

/* ---- where ---- */

static int address_of(const struct uri *uri, char to[ADDRESS_BYTES], struct gclk_error *reterr)
{
	const char *host = uri->x->server;

	if (goes_by(uri, "ssh") || goes_by(uri, "libssh") || goes_by(uri, "libssh2")) {
		return ssh_command(uri, to, reterr);
	}
	if (!host && (goes_by(uri, "") || goes_by(uri, "unix"))) {
		gclk_text_copy(to, ADDRESS_BYTES, "unix:" DAEMON_SOCKET);
		return 0;
	}
	if (host && (goes_by(uri, "") || goes_by(uri, "tls"))) {
		/* the host alone: libvirt's port is not the daemon's, its user says nothing here */
		snprintf(to, ADDRESS_BYTES, "tls:%.400s", host);
		return 0;
	}
	return gclk_fail(reterr, GCLK_USAGE, NULL, GCLK_NO_OFFSET,
			 "the URI does not say how to reach guestclock there; say --via "
			 "ssh's exec:COMMAND, tls:HOST or unix:PATH");
}

int address_of_uri(const char *text, char to[ADDRESS_BYTES], struct gclk_error *reterr)
{
	struct uri uri;
	int r = parse(text, &uri, reterr);

	r = r < 0 ? r : address_of(&uri, to, reterr);
	xmlFreeURI(uri.x);
	return r;
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
	const char *home = getenv("HOME");
	struct uri uri;
	char *directory = uri.given[PKIPATH];
	int r = parse(text, &uri, reterr);
	bool always = *directory;

	r = uri.x && uri.x->scheme ? r : 0; /* with --via it may be anything that libvirt takes */
	xmlFreeURI(uri.x);
	if (r == 0 && !always && geteuid() != 0 && home && strlen(home) < 200) {
		snprintf(directory, ADDRESS_FILE_BYTES, "%s/.pki/libvirt", home);
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
