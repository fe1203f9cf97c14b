/* SPDX-License-Identifier: MIT */
/*
 * qcow2, as far as the state of a virtual machine inside it needs: the snapshot
 * table, a snapshot's own L1, its clusters from the vm state on.
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
	uint64_t disk_bytes;		/* 0: not recorded (old v2 images) */
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
struct gclk_qcow2 *gclk_qcow2_free(struct gclk_qcow2 *q);

/* Borrowed until the free; @ret_n of them. */
const struct gclk_qcow2_snapshot *gclk_qcow2_snapshots(const struct gclk_qcow2 *q,
						       size_t *ret_n);

/**
 * gclk_qcow2_select() - choose the snapshot whose vm state is meant
 * @which:	an id or a name (an id wins); NULL: the only one with a vm state
 *
 * Reads the snapshot's L1. Errors: STATE when it is not there, has no vm state, or
 * the choice is not clear; the message lists what there is.
 */
int gclk_qcow2_select(struct gclk_qcow2 *q, const char *which, struct gclk_error *reterr);
const struct gclk_qcow2_snapshot *gclk_qcow2_selected(const struct gclk_qcow2 *q);

/* Guest offset at which the vm state begins. */
uint64_t gclk_qcow2_vm_state_offset(const struct gclk_qcow2 *q);

/**
 * gclk_qcow2_check_writable() - may the selected vm state be changed in place?
 *
 * Errors: UNSUPPORTED or STATE, naming what forbids it: clusters that are shared
 * with another snapshot, compressed ones, refcounts that are not to be trusted
 * (dirty or corrupt bit).
 */
int gclk_qcow2_check_writable(struct gclk_qcow2 *q, struct gclk_error *reterr);

/**
 * gclk_qcow2_vm_state() - the vm state as bytes
 *
 * Offset 0 is the stream's first byte. The size is all that the clusters hold from
 * there on, which is more than vm_state_bytes: the rest of the last cluster, and
 * clusters that a resize has added. Growing allocates clusters, which belong to the
 * snapshot as its own ones do; QEMU and qemu-img know nothing else about them.
 * Shrinking zeroes, and frees such clusters. Writing needs check_writable() first.
 */
struct gclk_io gclk_qcow2_vm_state(struct gclk_qcow2 *q);

#endif
