/* SPDX-License-Identifier: MIT */
/*
 * Who reads a saved guest's image, and how far it has come. libvirtd opens the image and
 * hands QEMU the same open file, so that the position of libvirtd's descriptor is that of
 * QEMU's reading; with --bypass-cache a helper of libvirtd's reads ahead into a pipe.
 */
#ifndef GCLK_MIGRATOR_HOOK_READER_H
#define GCLK_MIGRATOR_HOOK_READER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct reader {
	pid_t pid;	/* who holds the file open */
	int fd;		/* by which descriptor */
	char held[64];	/* that descriptor as a path, below /proc */
	char path[512]; /* a name of the same file, or the one below /proc */
	uint64_t device, inode;
	uint64_t start;	 /* position when it was found */
	uint32_t stride; /* it may read so far beyond its position before that moves */
};

#define READERS_MAX 32

/**
 * readers_find() - save images that a process, or a child of it, holds open
 * @parent:	libvirtd
 * @ret:	up to READERS_MAX
 *
 * Returns how many there are.
 */
unsigned readers_find(pid_t parent, struct reader ret[READERS_MAX]);

/**
 * reader_of_file() - who of libvirt's daemons and helpers has a file open
 * @device:	as stat() has it
 *
 * For whoever asked libvirt to load it and knows no process. False: nobody has, yet.
 */
bool reader_of_file(uint64_t device, uint64_t inode, struct reader *ret);

/**
 * reader_open() - the file itself, to be read, whatever has its name by now
 *
 * Returns a descriptor; -1: the reader does not hold it any more, or it may not be opened.
 */
int reader_open(const struct reader *reader);

/* The position. False: the descriptor is closed, or another file's by now. */
bool reader_position(const struct reader *reader, uint64_t *ret);

#endif
