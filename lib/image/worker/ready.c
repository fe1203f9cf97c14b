/* SPDX-License-Identifier: MIT */
/*
 * A guest stands still while its device state is read. What the process that reads it is
 * going to touch is there before that: each page that is not costs it microseconds, and there
 * would be a hundred of them.
 */
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/worker/far.h"

/* Linux 5.14; older headers lack them, and older kernels refuse: then each page costs its fault. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* Of malloc(): a device state of a quarter of that, with its copies, description and fields. */
#define HEAP_BYTES (4u << 20)

/* No program or library that reads a state has more in one part; tables of Unicode do. */
#define PART_BYTES (4u << 20)

static int populate(struct dl_phdr_info *object, size_t size, void *ctx)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)ctx;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t begin = (object->dlpi_addr + part->p_vaddr) & ~(page - 1);
		uintptr_t end = object->dlpi_addr + part->p_vaddr + part->p_memsz;

		if (part->p_type == PT_LOAD && part->p_memsz <= PART_BYTES) {
			madvise((void *)begin, (end - begin + page - 1) & ~(page - 1),
				part->p_flags & PF_W ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
		}
	}
	return 0;
}

void gclk_far_get_ready(void)
{
	uint8_t *heap;

	/* what is freed stays with the process, and large pieces come from there too */
	mallopt(M_TRIM_THRESHOLD, INT32_MAX);
	mallopt(M_MMAP_THRESHOLD, 2 * HEAP_BYTES);
	heap = malloc(HEAP_BYTES);
	if (heap) {
		memset(heap, 1, HEAP_BYTES);
		__asm__ volatile("" : : "r"(heap) : "memory");	/* or the compiler leaves all three out */
		free(heap);
	}
	dl_iterate_phdr(populate, NULL);
}
