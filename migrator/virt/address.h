/* SPDX-License-Identifier: MIT */
/* From the URI of another host's libvirt to the guestclock there. */
#ifndef GCLK_MIGRATOR_VIRT_ADDRESS_H
#define GCLK_MIGRATOR_VIRT_ADDRESS_H

#include <guestclock/error.h>

#include "migrator/peer/source_end.h"

#define ADDRESS_BYTES 512
#define ADDRESS_FILE_BYTES 256

/**
 * address_of_uri() - where the destination end is
 *
 *	DRIVER+ssh://[USER@]HOST[:PORT]/PATH	exec:ssh ... HOST guestclock proxy --stdio ...
 *	DRIVER+tls://HOST/PATH, DRIVER://HOST/PATH	tls:HOST
 *	DRIVER:///PATH, DRIVER+unix:///PATH	the daemon of this host
 *
 * libssh and libssh2 are ssh, too. Of the URI's parameters those that libvirt gives to ssh
 * go there: command, keyfile, no_verify, known_hosts, known_hosts_verify; and socket, the
 * libvirt there. Errors: GCLK_USAGE for a transport that says nothing of it, and for what
 * cannot stand in a command line.
 */
int address_of_uri(const char *uri, char to[ADDRESS_BYTES], struct gclk_error *reterr);

struct address_pki {
	char ca[ADDRESS_FILE_BYTES], crl[ADDRESS_FILE_BYTES], certificate[ADDRESS_FILE_BYTES],
		key[ADDRESS_FILE_BYTES];
};

/**
 * address_pki() - which certificates libvirt takes for that URI
 * @space:	for the names of the files, as long as @files is used
 * @files:	what is NULL in it is filled in, but for what is where it always is
 *
 * Its parameter pkipath; else, for a user who is not root, $HOME/.pki/libvirt as far as
 * it is there.
 */
int address_pki(const char *uri, struct address_pki *space, struct peer_tls *files,
		struct gclk_error *reterr);

#endif
