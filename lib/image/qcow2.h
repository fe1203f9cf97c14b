/* SPDX-License-Identifier: MIT */
/*
 * qcow2, as far as the state of a virtual machine inside it needs: the snapshot
 * table, a snapshot's own L1, its clusters from the vm state on.
 *
 * The vm state of a snapshot lies behind its disk: at the first guest offset that
 * begins an L2 table of its own. Nothing says where it ends but the snapshot table;
 * what the last cluster holds beyond is dead. There, and in clusters allocated
 * behind it, room for a record is made:
 *
 *	vm_state_bytes
 *	 | 0  8  magic "GCLKROOM"
 *	 | 8  8  the snapshot, as CRC-64 of id, date, vm clock and vm state size: what a
 *	 |       later snapshot has inherited by copy on write is not its own
 *	 |16  8  bit 0: the clusters that follow were free when the room was made, and are
 *	 |       ours; without it they are another snapshot's, and there is no more room;
 *	 |       bit 1: their entries were marked as zeros, and will be again
 *	 |24  8  bytes of the file when the room was made
 *	 |32  8  subcluster bitmap of the last cluster then; 0 without extended L2
 *	 |40  8  CRC-64 of bytes 0..39
 *	 |48     the bytes that stand "behind the stream"
 *
 * All big-endian. The clusters are the snapshot's as its others are: QEMU and
 * qemu-img count, copy and free them with it.
 */
#ifndef GCLK_IMAGE_QCOW2_H
#define GCLK_IMAGE_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <guestclock/error.h>

#include "image/io.h"

#define GCLK_QCOW2_MAX_SNAPSHOTS 65536

struct gclk_qcow2_snapshot {
	char *id;			/* unique in the file: "1" */
	char *name;
	uint64_t date_ns;		/* when it was taken, realtime ns */
	uint64_t vm_clock_ns;		/* the guest's virtual clock then */
	uint64_t vm_state_bytes;	/* 0: of the disk alone */
	uint64_t disk_bytes;		/* of the disk then */
	uint64_t icount;		/* UINT64_MAX: none */
	uint64_t l1_offset;
	uint32_t n_l1;
};

struct gclk_qcow2;

bool gclk_qcow2_probe(const void *bytes, size_t n);

/**
 * gclk_qcow2_open() - header and snapshot table
 * @file:	copied; its ctx must outlive the result
 *
 * Errors: UNSUPPORTED with the reason for encryption, an external data file, and
 * features that this release does not know; MALFORMED; VERSION.
 */
int gclk_qcow2_open(const struct gclk_io *file, struct gclk_qcow2 **ret,
		    struct gclk_error *reterr);
/* NULL is fine; returns NULL. */
struct gclk_qcow2 *gclk_qcow2_free(struct gclk_qcow2 *q);

/* Borrowed until the free; *@ret_n of them. */
const struct gclk_qcow2_snapshot *gclk_qcow2_snapshots(const struct gclk_qcow2 *q,
						       size_t *ret_n);

/**
 * gclk_qcow2_select() - choose the snapshot whose vm state is meant
 * @which:	an id or a name (an id wins); NULL: the only one with a vm state
 *
 * Errors: STATE when it is not there, has no vm state, or the choice is not clear.
 */
int gclk_qcow2_select(struct gclk_qcow2 *q, const char *which, struct gclk_error *reterr);
const struct gclk_qcow2_snapshot *gclk_qcow2_selected(const struct gclk_qcow2 *q);

/* Guest offset at which the selected vm state begins. */
uint64_t gclk_qcow2_vm_state_offset(const struct gclk_qcow2 *q);

/**
 * gclk_qcow2_check_writable() - may the file be changed in place at all?
 *
 * Errors: UNSUPPORTED or STATE: refcounts that are not to be trusted (dirty or
 * corrupt bit), features whose bits would have to be cleared.
 */
int gclk_qcow2_check_writable(const struct gclk_qcow2 *q, struct gclk_error *reterr);

/**
 * gclk_qcow2_check_range() - may these bytes of the selected vm state be changed?
 *
 * Every cluster must be a plain one with no other user. The active layer does not
 * count: after a loadvm it still points to the state that was loaded, and nobody
 * reads it.
 *
 * Errors: UNSUPPORTED, naming what forbids it.
 */
int gclk_qcow2_check_range(struct gclk_qcow2 *q, uint64_t offset, uint64_t n,
			   struct gclk_error *reterr);

/**
 * gclk_qcow2_check_room() - is there, or can there be made, room behind the vm state?
 * @n:	bytes
 *
 * Errors: UNSUPPORTED, with the reason.
 */
int gclk_qcow2_check_room(struct gclk_qcow2 *q, uint64_t n, struct gclk_error *reterr);

/**
 * gclk_qcow2_vm_state() - the selected vm state as bytes
 *
 * Offset 0 is the stream's first byte; what stands in the room is behind the last.
 * Writing there makes it, resizing to vm_state_bytes gives it back, and leaves the
 * rest of the last cluster zero. Write only what check_range() and check_room()
 * have allowed. A process that dies while a cluster is allocated may leave it
 * allocated and unused, as QEMU itself may.
 */
struct gclk_io gclk_qcow2_vm_state(struct gclk_qcow2 *q);

#endif
