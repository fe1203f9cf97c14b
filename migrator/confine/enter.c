/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/confine/sanitized.h"

/* More than any image needs: xz and zstd with their longest windows. */
#define MEMORY_BYTES (UINT64_C(6) << 30)

static int cannot(const char *what, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "%s: %m", what);
}

/* The socket, and nothing that somebody forgot to close. */
static int keep_one(int socket, struct gclk_error *reterr)
{
	int null;

	/* first of all it: where its place is free /dev/null would get that */
	if (socket != CONFINE_SOCKET && dup2(socket, CONFINE_SOCKET) < 0) {
		return cannot("descriptors", reterr);
	}
	null = open("/dev/null", O_RDWR);
	if (null < 0) {
		return cannot("descriptors", reterr);
	}
	/* a sanitizer's report is worth more than a closed descriptor */
	for (int fd = 0; fd <= (SANITIZED ? 1 : 2); fd++) {
		if (dup2(null, fd) < 0) {
			return cannot("descriptors", reterr);
		}
	}
	if (syscall(SYS_close_range, CONFINE_SOCKET + 1, ~0U, 0) < 0) {
		for (int fd = CONFINE_SOCKET + 1; fd < 4096; fd++) {
			close(fd);
		}
	}
	return 0;
}

/* At the first limit SIGXCPU, which says why; a second later what nobody can ignore. */
static int limit_cpu(uint32_t cpu_s, struct gclk_error *reterr)
{
	struct rlimit now, to;

	if (!cpu_s) {
		return 0;
	}
	if (getrlimit(RLIMIT_CPU, &now) < 0) {
		return cannot("limits", reterr);
	}
	to.rlim_max = GCLK_MIN((uint64_t)now.rlim_max, (uint64_t)cpu_s + 1);
	to.rlim_cur = GCLK_MIN((uint64_t)to.rlim_max, (uint64_t)cpu_s);
	return setrlimit(RLIMIT_CPU, &to) < 0 ? cannot("limits", reterr) : 0;
}

static int limit(struct gclk_error *reterr)
{
	static const struct {
		int what;
		uint64_t most;
	} limits[] = {
		{ RLIMIT_CORE, 0 },		/* a core would hold a guest's memory */
		{ RLIMIT_NPROC, 0 },
		{ RLIMIT_MEMLOCK, 0 },
		{ RLIMIT_MSGQUEUE, 0 },
		{ RLIMIT_NOFILE, 16 },
		{ RLIMIT_AS, SANITIZED ? RLIM_INFINITY : MEMORY_BYTES },
	};

	for (unsigned i = 0; i < GCLK_COUNT(limits); i++) {
		struct rlimit now, to;

		if (getrlimit(limits[i].what, &now) < 0) {
			return cannot("limits", reterr);
		}
		to.rlim_cur = to.rlim_max = GCLK_MIN((uint64_t)now.rlim_max, limits[i].most);
		if (setrlimit(limits[i].what, &to) < 0) {
			return cannot("limits", reterr);
		}
	}
	return 0;
}

/* What the list of system calls forbids already, once more; not every host allows it. */
static const char *leave_namespaces(void)
{
	static const struct {
		int flag;
		const char *name;
	} spaces[] = {
		{ CLONE_NEWNET, "network" }, { CLONE_NEWIPC, "ipc" }, { CLONE_NEWNS, "mount" },
	};
	static char without[64];

	without[0] = 0;
	for (unsigned i = 0; i < GCLK_COUNT(spaces); i++) {
		if (unshare(spaces[i].flag) < 0) {
			size_t n = strlen(without);

			snprintf(without + n, sizeof(without) - n, "%s%s", n ? " " : "",
				 spaces[i].name);
		}
	}
	return without;
}

const char *confine_without(void)
{
	static char without[64];
	ssize_t n = 0;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0) {
			const char *found = leave_namespaces();

			_exit(write(ends[1], found, strlen(found)) < 0);
		}
		close(ends[1]);
		n = read(ends[0], without, sizeof(without) - 1);
		close(ends[0]);
		if (pid > 0) {
			waitpid(pid, NULL, 0);
		}
	}
	without[GCLK_MAX(n, 0)] = 0;
	return without;
}

/* A directory without a name: nothing is in it, and nothing can be put there any more. */
static int leave_root(struct gclk_error *reterr)
{
	static const char *const places[] = { "/run", "/tmp", "/dev/shm", "/var/tmp" };
	char path[64];
	bool made = false;
	int fd;

	for (unsigned i = 0; !made && i < GCLK_COUNT(places); i++) {
		snprintf(path, sizeof(path), "%s/guestclock-XXXXXX", places[i]);
		made = mkdtemp(path) != NULL;
	}
	if (!made) {
		return cannot("an empty directory", reterr);
	}
	fd = open(path, O_PATH | O_DIRECTORY);
	if (rmdir(path) < 0 || fd < 0 || fchdir(fd) < 0 || chroot(".") < 0) {
		return cannot("an empty root directory", reterr);
	}
	close(fd);
	return 0;
}

static int leave_user(const struct confine_conf *conf, struct gclk_error *reterr)
{
	uid_t u[3];
	gid_t g[3];

	if (setgroups(0, NULL) < 0 || setresgid(conf->gid, conf->gid, conf->gid) < 0 ||
	    setresuid(conf->uid, conf->uid, conf->uid) < 0) {
		return cannot("another user", reterr);
	}
	if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0 ||
	    u[0] != conf->uid || u[1] != conf->uid || u[2] != conf->uid || g[0] != conf->gid ||
	    g[1] != conf->gid || g[2] != conf->gid || setuid(0) == 0) {
		errno = EPERM;
		return cannot("another user, for good", reterr);
	}
	return 0;
}

int confine_enter(int socket, const struct confine_conf *conf, const char **ret_without,
		  struct gclk_error *reterr)
{
	int r = keep_one(socket, reterr);

	/* of its own: what a terminal sends to its foreground is its parent's to answer */
	setsid();
	umask(0777);
	r = r < 0 ? r : limit(reterr);
	r = r < 0 ? r : limit_cpu(conf->cpu_s, reterr);
	if (r == 0) {
		*ret_without = leave_namespaces();
	}
	r = r < 0 ? r : leave_root(reterr);
	r = r < 0 ? r : leave_user(conf, reterr);
	if (r == 0 && (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
		       prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)) {
		r = cannot("privileges", reterr);
	}
	return r < 0 ? r : confine_syscalls(reterr);
}
