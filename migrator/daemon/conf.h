/* SPDX-License-Identifier: MIT */
/*
 * What guestclockd is to do: the section [daemon] of guestclock.conf.
 *
 *	[daemon]
 *	socket = /run/guestclock/guestclockd.sock	; none: no UNIX socket
 *	socket_mode = 0660
 *	socket_group = libvirt
 *	users = nova, vdsm		; who may connect to it, besides root
 *	listen = :16519			; TLS; nothing by default
 *	tls_ca = /etc/pki/CA/cacert.pem
 *	tls_cert = /etc/pki/libvirt/servercert.pem
 *	tls_key = /etc/pki/libvirt/private/serverkey.pem
 *	tls_crl = /etc/pki/CA/cacrl.pem
 *	tls_names = CN=host1,O=Example; CN=host2,O=Example	; none: whom the authority signed
 *	directories = /run/guestclock	; where the hypervisor's sockets may be
 *	libvirt = qemu:///system	; none: guests are resumed by others, unseen
 *	own_resume = yes		; the source may ask that guests are resumed here
 *	max_sessions = 64
 *	max_connections = 512
 *	max_channels = 64		; of one session
 *	max_hold = 1s
 *	tail_limit = 24			; MiB of device state held, per session
 *	audit = /var/log/guestclock/moves.jsonl		; none: no log
 *	margins = /var/lib/guestclock/margins		; none: nothing is learned
 *	metrics = /run/guestclock/metrics.sock		; or 127.0.0.1:PORT; nothing by default
 *	metrics_file = ...		; for node_exporter; nothing by default
 */
#ifndef GCLK_MIGRATOR_DAEMON_CONF_H
#define GCLK_MIGRATOR_DAEMON_CONF_H

#include <sys/types.h>

#include "migrator/peer/destination_end.h"
#include "migrator/peer/server.h"

#define DAEMON_TEXT 256
#define DAEMON_NAMES 32

struct daemon_conf {
	char socket[DAEMON_TEXT];	/* "": none, as everywhere here */
	mode_t socket_mode;
	gid_t socket_group;
	struct server_access access;
	char listen[DAEMON_TEXT];
	char tls_ca[DAEMON_TEXT], tls_cert[DAEMON_TEXT], tls_key[DAEMON_TEXT],
		tls_crl[DAEMON_TEXT];
	char tls_names[DAEMON_NAMES][DAEMON_TEXT];
	unsigned n_tls_names;
	char directories[DESTINATION_DIRECTORIES][DAEMON_TEXT];
	unsigned n_directories;
	char libvirt[DAEMON_TEXT];	/* "none" */
	bool own_resume;
	unsigned max_sessions, max_connections, max_channels, tail_limit_mib;
	int64_t max_hold_ns;
	char audit[DAEMON_TEXT], margins[DAEMON_TEXT], metrics[DAEMON_TEXT],
		metrics_file[DAEMON_TEXT];
};

void daemon_conf_init(struct daemon_conf *conf);

/**
 * daemon_conf_read() - the file's section
 * @path:	NULL: CONF_PATH, which need not exist
 *
 * @conf is changed only where all of it is valid. Errors: GCLK_SYS, GCLK_MALFORMED with the
 * setting.
 */
int daemon_conf_read(const char *path, struct daemon_conf *conf, struct gclk_error *reterr);

/* What it means for the destination end; the URI is borrowed from @conf. */
void daemon_conf_options(const struct daemon_conf *conf, struct destination_options *ret);

#endif
