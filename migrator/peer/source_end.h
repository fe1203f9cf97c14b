/* SPDX-License-Identifier: MIT */
/*
 * The source end of a live move. It stands where the hypervisor expects the other host
 * (UNIX sockets), and carries every connection made there to the destination end, which
 * patches the main one. Threads of its own do that:
 *
 *	source_end_open(&options, &end, &err);
 *	start the migration to unix:<listen_path>
 *	on the event STOP: source_end_stopped(end, &stop, "event");
 *	when the migration is over: source_end_report(end, 3000, &move, &err);
 *	source_end_close(end);
 *
 * The first connection to listen_path is the main one. Until the destination end has let
 * the last byte go, anything that breaks closes all connections: the hypervisor then gives
 * up the migration, and the guest goes on here.
 */
#ifndef GCLK_MIGRATOR_PEER_SOURCE_END_H
#define GCLK_MIGRATOR_PEER_SOURCE_END_H

#include <stdbool.h>
#include <sys/types.h>

#include <guestclock/image.h>
#include <guestclock/plan.h>

#include "migrator/move.h"

struct source_end;

/* What the destination end does with a main channel that it cannot filter. */
enum peer_unreadable { PEER_PASS, PEER_REFUSE };

/* What it does where the two hosts' wall clocks disagree by more than the limit. */
enum peer_disagree { PEER_CORRECT, PEER_WARN, PEER_REFUSE_APART };

/* Files of the TLS identity; NULL or empty: libvirt's PKI layout. */
struct peer_tls {
	const char *ca;		 /* /etc/pki/CA/cacert.pem */
	const char *certificate; /* /etc/pki/libvirt/clientcert.pem, servercert.pem */
	const char *key;	 /* /etc/pki/libvirt/private/clientkey.pem, serverkey.pem */
	const char *crl;	 /* /etc/pki/CA/cacrl.pem, where it exists */
	const char *name;	 /* the other end's name, where it is not the address's host */
};

#define PEER_MAX_HOLD_NS INT64_C(20000000)

struct source_end_options {
	const char *verb;	 /* "migrate", "proxy": for the report */
	const char *listen_path; /* the socket for main and multifd connections; NULL: only
				  * to hear who the other end is */
	const char *nbd_path;	 /* for NBD, or NULL */
	const char *there_path;	 /* the hypervisor's sockets on the other host; */
	const char *there_nbd_path; /* NULL: the same as here */
	gid_t group;		 /* (gid_t)-1: as it is made */
	pid_t guest_pid;	 /* of the hypervisor: besides root and this user only it may
				  * connect; 0: whomever the mode lets */
	const char *address;	 /* "unix:PATH", "tls:HOST[:PORT]", "exec:COMMAND" */
	struct peer_tls tls;
	const char *domain;	 /* may be "" */
	const char *uuid;	 /* "" where it is not known */
	struct gclk_policy policy; /* .force is copied */
	int64_t max_hold_ns;	 /* how long the guest may be held back for its instant */
	uint8_t own_resume;	 /* the destination end resumes the guest, which arrives paused */
	uint8_t tells_stop;	 /* source_end_stopped() will be called: worth waiting for */
	uint8_t ask_monitor;	 /* the destination may ask the hypervisor's monitor afterwards */
	int8_t running;		 /* 1; 0: it is suspended and stays so; -1: the stream tells */
	uint8_t unreadable;	 /* enum peer_unreadable */
	uint8_t disagree;	 /* enum peer_disagree */
	uint64_t disagree_limit_ns;
	int connect_timeout_ms;	 /* 0: 10 s */
	const struct gclk_worker *worker; /* who reads what the other end says; NULL: nobody else */
};

void source_end_options_init(struct source_end_options *options);

/**
 * source_end_open() - dial, hello, both profiles exchanged, the sockets are there
 * @options:	copied
 *
 * Errors: GCLK_SYS for what cannot be opened or reached; GCLK_PEER for what the other
 * end says or does not say; GCLK_REFUSED where it refuses, GCLK_VERSION.
 */
int source_end_open(const struct source_end_options *options, struct source_end **ret,
		    struct gclk_error *reterr);

/* The other host. Valid until the close. */
const struct gclk_host *source_end_peer(const struct source_end *end);

/* How far the wall clocks are apart as of now (there minus here); unbounded: not known yet. */
void source_end_disagreement(struct source_end *end, struct gclk_disagreement *ret);

/**
 * source_end_stopped() - the guest has stopped
 * @stop:	on this host's CLOCK_REALTIME
 * @basis:	"event", ...; shorter than 32 bytes
 *
 * From any thread; the sooner, the shorter the blackout.
 */
void source_end_stopped(struct source_end *end, const struct gclk_instant *stop,
			const char *basis);

/**
 * source_end_ran() - until when did the guest surely run, by what has passed
 * @stopped_ns:	the stamp of its stop, made when it stood; this host's CLOCK_REALTIME
 *
 * For a stop that the migration itself has brought about: its stream was silent from then
 * on. Returns an instant before the stop, or 0 where nothing tells.
 */
int64_t source_end_ran(struct source_end *end, int64_t stopped_ns);

/* Bytes that went to the other end on all channels so far. */
uint64_t source_end_bytes(struct source_end *end);

/**
 * source_end_broken() - did something go wrong that ends the move?
 * @reterr:	what and why, in one sentence
 *
 * Returns 0 or a negative status. For a caller that waits for the migration.
 */
int source_end_broken(struct source_end *end, struct gclk_error *reterr);

/**
 * source_end_report() - the destination's closing report
 * @timeout_ms:	how long to wait; 0: only look
 *
 * Returns 0; -GCLK_PEER where the connection broke before it came (the guest may be on
 * either side then); -GCLK_STATE where it has not come in time.
 */
int source_end_report(struct source_end *end, int timeout_ms, struct move *ret,
		      struct gclk_error *reterr);

/*
 * Until the hypervisor's connections have ended by themselves: its last word may still be
 * under way to it when the report has come. Returns whether they have.
 */
bool source_end_finish(struct source_end *end, int timeout_ms);

/*
 * Gives up: all connections are closed, and the hypervisor sees a broken stream. Has no
 * effect once the last byte has gone. From any thread.
 */
void source_end_cancel(struct source_end *end, const char *why);

/* Ends all threads, removes the sockets. Accepts NULL. Returns NULL. */
struct source_end *source_end_close(struct source_end *end);

#endif
