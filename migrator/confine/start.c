/* SPDX-License-Identifier: MIT */
/* Starting and ending a confined process. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"

#define NAME "guestclock-confined"
/* One that has closed its socket and lives on is not waited for longer. */
#define LINGER_MS 200

static struct confine_conf settings;
static int niceness;
static bool has_entry;		/* main() calls confine_entry() */
static bool starts_anew;
static bool keeps_spare;
static gclk_worker_reader *reader = foreign_read;

/* In the child; does not return. */
static void become_worker(int socket, const struct confine_conf *conf)
{
	struct gclk_error error = { 0 }, said = { 0 };	/* all of it is sent */
	const char *without = "";
	int r;

	if (niceness) {
		setpriority(PRIO_PROCESS, 0, niceness);
	}
	for (int s = 1; s < 32; s++) {
		signal(s, SIG_DFL);
	}
	r = confine_enter(socket, conf, &without, &error);
	if (r < 0) {
		gclk_fail(&said, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
			  "it is not read as root, and the process that would read it cannot be "
			  "confined (%.100s); `confine = no` in [privilege] lets root read it",
			  error.message);
	}
	_exit(gclk_worker_run(CONFINE_SOCKET, r < 0 ? &said : NULL, reader) < 0);
}

/* A fork of a process with threads has their locks and not the threads. */
static bool has_threads(void)
{
	struct stat st;

	return stat("/proc/self/task", &st) < 0 || st.st_nlink > 3;
}

/* argv: NAME SOCKET UID GID NICE CPU */
int confine_entry(int argc, char **argv)
{
	struct confine_conf conf = { .confine = true };

	has_entry = true;
	if (argc != 6 || strcmp(argv[0], NAME)) {
		return -1;
	}
	conf.uid = (uid_t)strtoul(argv[2], NULL, 10);
	conf.gid = (gid_t)strtoul(argv[3], NULL, 10);
	niceness = atoi(argv[4]);
	conf.cpu_s = (uint32_t)strtoul(argv[5], NULL, 10);
	if (!conf.uid || !conf.gid) {
		return 1;
	}
	become_worker(atoi(argv[1]), &conf);
	return 1;
}

void confine_start_anew(void)
{
	starts_anew = true;
}

void confine_set_reader(gclk_worker_reader *with)
{
	reader = with;
}

static void start_anew(int socket, const struct confine_conf *conf)
{
	char text[5][16], *argv[] = { (char[]){ NAME }, text[0], text[1], text[2], text[3], text[4],
				      NULL };
	char *environment[] = { NULL };

	/* nothing but the socket goes over */
	if (dup2(socket, CONFINE_SOCKET) < 0 || fcntl(CONFINE_SOCKET, F_SETFD, 0) < 0) {
		_exit(1);
	}
	snprintf(text[0], sizeof(text[0]), "%d", CONFINE_SOCKET);
	snprintf(text[1], sizeof(text[1]), "%u", (unsigned)conf->uid);
	snprintf(text[2], sizeof(text[2]), "%u", (unsigned)conf->gid);
	snprintf(text[3], sizeof(text[3]), "%d", niceness);
	snprintf(text[4], sizeof(text[4]), "%u", (unsigned)conf->cpu_s);
	execve("/proc/self/exe", argv, environment);
	_exit(1);
}

static int start_one(struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	bool anew = has_entry && (starts_anew || has_threads());
	struct confine_conf conf = settings;
	int ends[2];
	pid_t pid;

	conf.cpu_s = keeps_spare ? 0 : conf.cpu_s;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "socketpair: %m");
	}
	pid = fork();
	if (pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET, "fork: %m");
	}
	if (pid == 0) {
		close(ends[0]);
		if (anew) {
			start_anew(ends[1], &conf);
		}
		become_worker(ends[1], &conf);
	}
	close(ends[1]);
	*ret = (struct gclk_worker_process){ ends[0], pid };
	return 0;
}

/* One that waits for its question: a live stream does not wait until it is confined. */
static struct gclk_worker_process spare = { .socket = -1 };
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;

static void refill(void)
{
	pthread_mutex_lock(&spare_lock);
	if (keeps_spare && spare.socket < 0 && start_one(&spare, NULL) < 0) {
		spare.socket = -1;
	}
	pthread_mutex_unlock(&spare_lock);
}

void confine_keep_spare(void)
{
	keeps_spare = true;
	refill();
}

static int start(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	(void)ctx;
	pthread_mutex_lock(&spare_lock);
	*ret = spare;
	spare.socket = -1;
	pthread_mutex_unlock(&spare_lock);
	return ret->socket >= 0 ? 0 : start_one(ret, reterr);
}

/* Whether it has ended within a moment; by itself, that is. */
static bool ended(pid_t pid, int *ret_status)
{
	const struct timespec rest = { 0, 1000000 };

	for (int i = 0; i < LINGER_MS; i++) {
		pid_t r = waitpid(pid, ret_status, WNOHANG);

		if (r == pid) {
			return true;
		}
		if (r < 0 && errno != EINTR) {
			return false;	/* another process's child, and on its way */
		}
		nanosleep(&rest, NULL);
	}
	return false;
}

static void stop(void *ctx, struct gclk_worker_process *process, int failed,
		 struct gclk_error *reterr)
{
	int status = 0;
	bool known;

	(void)ctx;
	close(process->socket);
	known = failed && ended(process->pid, &status);
	/* that of a process which we were forked from ends by itself: its number may be another's */
	if (!known && waitpid(process->pid, &status, WNOHANG) == 0) {
		kill(process->pid, SIGKILL);
		while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
		}
	}
	refill();
	if (!failed) {
		return;
	}
	if (known && WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
		gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			  "the confined process that reads it has used up %u s of the processor, and "
			  "was ended: what it read is hostile, or so large that `cpu` in [privilege] "
			  "has to be more", (unsigned)settings.cpu_s);
	} else if (known && WIFSIGNALED(status)) {
		gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			  "the confined process that reads it was killed by signal %d (%s): what it "
			  "read may be hostile", WTERMSIG(status), strsignal(WTERMSIG(status)));
	} else {
		gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			  "the confined process that reads it has ended unasked");
	}
}

void confine_set_nice(int nice)
{
	niceness = nice;
}

int confine_worker(const char *conf_path, const struct gclk_worker **ret,
		   struct gclk_error *reterr)
{
	static const struct gclk_worker worker = { start, stop, NULL };
	const char *wish = secure_getenv("GUESTCLOCK_CONFINE");
	int r;

	*ret = NULL;
	if (geteuid() != 0 || (wish && !strcmp(wish, "no"))) {
		return 0;
	}
	r = confine_conf_read(conf_path, &settings, reterr);
	*ret = r == 0 && settings.confine ? &worker : NULL;
	return r;
}
