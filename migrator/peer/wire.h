/* SPDX-License-Identifier: MIT */
/*
 * The messages of proto/guestclock/v1/peer.proto as plain values, and the frames around
 * them. Pure: bytes in, values out. A value that comes out of wire_unpack() has been
 * validated completely.
 *
 * A frame, integers little-endian:
 *
 *	offset size
 *	     0    2  "Gc"
 *	     2    1  type: enum wire_type
 *	     3    1  0
 *	     4    4  length of the body, at most wire_limit(type)
 *	     8       body: one message
 */
#ifndef GCLK_MIGRATOR_PEER_WIRE_H
#define GCLK_MIGRATOR_PEER_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include <guestclock/plan.h>

#define WIRE_VERSION_MIN 1
#define WIRE_VERSION_MAX 1
#define WIRE_HEADER_BYTES 8
#define WIRE_SESSION_BYTES 16
#define WIRE_MAX_BYTES (512u << 10)	/* the largest body of all */
#define WIRE_FORCE_MAX 32
#define WIRE_PATH_BYTES 108		/* of struct sockaddr_un */

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_WELCOME,
	WIRE_SORRY,
	WIRE_ASK,
	WIRE_ANSWER,
	WIRE_STOPPED,
	WIRE_WHERE,
	WIRE_THERE,
	WIRE_APART,
	WIRE_REPORT,
	WIRE_CANCEL,
	WIRE_N_TYPES
};

enum wire_role {
	WIRE_CONTROL = 1,
	WIRE_MAIN,
	WIRE_SIDE,
	WIRE_STORAGE,
};
extern const char *const wire_role_names[5];

/* PeerMove. */
struct wire_move {
	char verb[16];
	char domain[256];
	char uuid[40];			/* "": not known */
	char main_path[WIRE_PATH_BYTES];
	char storage_path[WIRE_PATH_BYTES]; /* "": none */
	struct gclk_host host;
	struct gclk_policy policy;	/* .force is not used: the ids are below */
	uint32_t n_force;
	char force[WIRE_FORCE_MAX][48];
	int64_t max_hold_ns;
	uint8_t own_resume;
	uint8_t tells_stop;
	uint8_t ask_monitor;
	int8_t running;			/* -1: not said */
	uint8_t unreadable;		/* enum peer_unreadable */
	uint8_t disagree;		/* enum peer_disagree */
	uint64_t disagree_limit_ns;
};

struct wire_hello {
	uint32_t version_min, version_max;
	uint8_t session[WIRE_SESSION_BYTES];
	uint8_t role;			/* enum wire_role */
	uint32_t index;
	struct wire_move move;		/* of WIRE_CONTROL */
};

struct wire_stopped {
	struct gclk_instant at;
	char basis[32];
	int64_t age_ns;
};

struct wire_message {
	uint8_t type;			/* enum wire_type */
	union {
		struct wire_hello hello;
		struct {
			uint32_t version;
			uint8_t has_host;
			struct gclk_host host;
		} welcome;
		struct {
			uint32_t status;	/* enum gclk_status, not 0 */
			char message[400];
		} sorry;
		struct {
			uint32_t number;
		} ask;
		struct {
			uint32_t number;
			int64_t heard_ns, answered_ns;
		} answer;
		struct wire_stopped stopped;
		struct {
			uint32_t number;
			uint64_t ran_offset, stopped_offset;
		} where;
		struct {
			uint32_t number;
			int64_t low_ns, high_ns, age_ns;
		} there;
		struct gclk_disagreement apart;
		struct {
			char *json;	/* malloc()ed by wire_unpack(), NUL behind it */
			size_t size;
		} report;
		struct {
			char why[256];
		} cancel;
	};
};

/* The longest body that a type may have; 0: there is no such type. */
size_t wire_limit(uint8_t type);

/**
 * wire_header() - look at the first 8 bytes of a frame
 *
 * Errors: GCLK_MALFORMED for anything that is no frame, GCLK_RANGE for a body beyond its
 * limit.
 */
int wire_header(const uint8_t header[WIRE_HEADER_BYTES], uint8_t *ret_type, size_t *ret_body,
		struct gclk_error *reterr);

/**
 * wire_pack() - one message as a frame
 * @ret:	malloc()ed
 *
 * Errors: GCLK_NOMEM; GCLK_RANGE for a value that the other end would refuse.
 */
int wire_pack(const struct wire_message *message, uint8_t **ret, size_t *ret_size,
	      struct gclk_error *reterr);

/**
 * wire_unpack() - a frame's body
 * @ret:	wire_clear() it after success
 *
 * Errors: GCLK_MALFORMED, GCLK_RANGE with the name of the field; GCLK_NOMEM.
 */
int wire_unpack(uint8_t type, const uint8_t *body, size_t size, struct wire_message *ret,
		struct gclk_error *reterr);

/**
 * wire_unpack_outer() - all of a frame's body but messages within it
 * @ret_nested:	it has such: a hello's move, a welcome's host, which are then not in @ret
 *
 * Read by hand (small.h): nothing of it needs another process. Errors: as wire_unpack().
 */
int wire_unpack_outer(uint8_t type, const uint8_t *body, size_t size,
		      struct wire_message *ret, bool *ret_nested, struct gclk_error *reterr);

/**
 * wire_settle() - a message with another one in it, as another process has put it together
 *
 * Returns whether wire_unpack() could have given it; then it is safe to use.
 */
bool wire_settle(struct wire_message *message);

void wire_clear(struct wire_message *message);

/* The highest version that both speak; 0: none. */
uint32_t wire_version(const struct wire_hello *hello);

#endif
