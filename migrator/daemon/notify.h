/* SPDX-License-Identifier: MIT */
/* What systemd wants of a service, without its library. */
#ifndef GCLK_MIGRATOR_DAEMON_NOTIFY_H
#define GCLK_MIGRATOR_DAEMON_NOTIFY_H

/* A datagram to $NOTIFY_SOCKET: "READY=1", ...; nothing where there is none. */
void notify_state(const char *state);

/* Sockets handed over, from descriptor 3 on: how many; they are closed on exec from now on. */
#define NOTIFY_FIRST_FD 3
int notify_listen_fds(void);

#endif
