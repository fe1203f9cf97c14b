/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/util.h"
#include "migrator/hook/reader.h"

#define MAGIC "LibvirtQemudSave"

/* QEMU fills a buffer of 32 KiB; libvirt's helper one of 1 MiB. */
#define QEMU_STRIDE (UINT32_C(64) << 10)
#define HELPER_STRIDE (UINT32_C(2) << 20)

/* Looked at before it is opened for more than its name: opening a device may do something. */
static int open_held(const char *held, struct stat *ret)
{
	char self[32];
	int name = open(held, O_PATH | O_CLOEXEC), fd = -1;

	if (name >= 0 && fstat(name, ret) == 0 && S_ISREG(ret->st_mode)) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", name);
		fd = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	}
	if (name >= 0) {
		close(name);
	}
	return fd;
}

static bool is_image(const char *held, struct stat *st)
{
	int fd = open_held(held, st);
	char magic[sizeof(MAGIC) - 1];
	bool is = false;

	if (fd >= 0) {
		is = pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
		     !memcmp(magic, MAGIC, sizeof(magic));
		close(fd);
	}
	return is;
}

int reader_open(const struct reader *reader)
{
	struct stat st;
	int fd = open_held(reader->held, &st);

	/* the number may be another file's by now */
	if (fd >= 0 && (st.st_dev != reader->device || st.st_ino != reader->inode)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The name that the file was opened by, unless another file has it now. */
static void name_of(struct reader *reader)
{
	struct stat st;
	ssize_t n = readlink(reader->held, reader->path, sizeof(reader->path) - 1);

	if (n > 0) {
		reader->path[n] = 0;
		if (stat(reader->path, &st) == 0 && st.st_dev == reader->device &&
		    st.st_ino == reader->inode) {
			return;
		}
	}
	snprintf(reader->path, sizeof(reader->path), "%s", reader->held);
}

/* The images among a process's descriptors. */
static unsigned of_process(pid_t pid, uint32_t stride, struct reader *ret, unsigned n)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && n < READERS_MAX && (entry = readdir(dir))) {
		struct reader *r = &ret[n];
		struct stat st;

		if (entry->d_name[0] == '.') {
			continue;
		}
		memset(r, 0, sizeof(*r));
		r->pid = pid;
		r->fd = atoi(entry->d_name);
		r->stride = stride;
		snprintf(r->held, sizeof(r->held), "/proc/%d/fd/%d", (int)pid, r->fd);
		if (!is_image(r->held, &st)) {
			continue;
		}
		r->device = st.st_dev;
		r->inode = st.st_ino;
		name_of(r);
		n += reader_position(r, &r->start);
	}
	if (dir) {
		closedir(dir);
	}
	return n;
}

static pid_t parent_of(pid_t pid)
{
	char path[64], text[512], *end;
	int ppid = 0;
	size_t n;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file) {
		return 0;
	}
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = 0;
	end = strrchr(text, ')');	/* the name may hold anything */
	if (!end || sscanf(end + 1, " %*c %d", &ppid) != 1) {
		return 0;
	}
	return (pid_t)ppid;
}

/* A process of root's, or of this user's: others may hold open what they like. */
static bool is_trusted(pid_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return stat(path, &st) == 0 && (st.st_uid == 0 || st.st_uid == geteuid());
}

unsigned readers_find(pid_t parent, struct reader ret[READERS_MAX])
{
	unsigned n = of_process(parent, QEMU_STRIDE, ret, 0);
	struct dirent *entry;
	DIR *dir = opendir("/proc");

	while (dir && (entry = readdir(dir))) {
		pid_t pid = (pid_t)atoi(entry->d_name);

		if (pid > 0 && pid != getpid() && parent_of(pid) == parent &&
		    is_trusted(pid)) {
			n = of_process(pid, HELPER_STRIDE, ret, n);
		}
	}
	if (dir) {
		closedir(dir);
	}
	return n;
}

/* Names are cut to 15 characters. */
static const struct {
	const char *name;
	uint32_t stride;
} loaders[] = {
	/* a helper that reads ahead goes before the daemon that started it */
	{ "libvirt_iohelpe", HELPER_STRIDE },
	{ "virtqemud", QEMU_STRIDE },
	{ "libvirtd", QEMU_STRIDE },
};

/* The place in the list, or -1. Anybody may call itself so. */
static int loader_kind(pid_t pid)
{
	char path[64], name[32] = "";
	FILE *file;

	if (!is_trusted(pid)) {
		return -1;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (!file || !fgets(name, sizeof(name), file)) {
		name[0] = 0;
	}
	if (file) {
		fclose(file);
	}
	name[strcspn(name, "\n")] = 0;
	for (unsigned i = 0; i < GCLK_COUNT(loaders); i++) {
		if (!strcmp(name, loaders[i].name)) {
			return (int)i;
		}
	}
	return -1;
}

bool reader_of_file(uint64_t device, uint64_t inode, struct reader *ret)
{
	static struct reader found[READERS_MAX];
	int best = GCLK_COUNT(loaders);
	struct dirent *entry;
	DIR *dir = opendir("/proc");

	while (dir && (entry = readdir(dir))) {
		pid_t pid = (pid_t)atoi(entry->d_name);
		int kind = pid > 0 ? loader_kind(pid) : -1;
		unsigned n = kind >= 0 && kind < best ?
			     of_process(pid, loaders[kind].stride, found, 0) : 0;

		for (unsigned i = 0; i < n; i++) {
			if (found[i].device == device && found[i].inode == inode) {
				*ret = found[i];
				best = kind;
			}
		}
	}
	if (dir) {
		closedir(dir);
	}
	return best < (int)GCLK_COUNT(loaders);
}

bool reader_position(const struct reader *reader, uint64_t *ret)
{
	unsigned long long pos;
	struct stat st;
	char path[64];
	FILE *file;
	bool known;

	if (stat(reader->held, &st) < 0 || st.st_dev != reader->device ||
	    st.st_ino != reader->inode) {
		return false;
	}
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)reader->pid, reader->fd);
	file = fopen(path, "re");
	if (!file) {
		return false;
	}
	known = fscanf(file, "pos: %llu", &pos) == 1;
	fclose(file);
	*ret = known ? pos : 0;
	return known;
}
