/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "migrator/message.h"
#include "migrator/virt/connect.h"
#include "migrator/virt/guard.h"

static volatile sig_atomic_t worker;

static void on_signal(int sig)
{
	(void)sig;
	if (worker > 0) {
		kill((pid_t)worker, SIGTERM);
	}
}

static void take_signals(bool interrupt)
{
	struct sigaction action = { .sa_handler = interrupt ? on_signal : SIG_IGN };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static int system_error(const char *what)
{
	message("error", NULL, gclk_status_name(GCLK_SYS), EFFECT_NONE, NULL, "%s: %s", what,
		strerror(errno));
	return GCLK_SYS;
}

static int do_work(int (*work)(struct guard *guard, void *ctx), struct guard *guard, void *ctx)
{
	int status;

	setsid();
	status = work(guard, ctx);
	if (fflush(stdout) != 0 && status == 0) {
		status = GCLK_SYS;
	}
	return status;
}

/* How long a load may go on that nobody waits for any more, and be absent before it. */
#define RESCUE_S 600
#define ABSENT_S 15

static bool is_running(virDomainPtr domain)
{
	int state = 0, reason;

	return virDomainGetState(domain, &state, &reason, 0) == 0 &&
	       state == VIR_DOMAIN_RUNNING;
}

/* Of a clock that nobody sets. */
static time_t seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* libvirt goes on with what the worker had asked it for: until that has ended, and then. */
static bool resume_soon(const struct guard *guard, virConnectPtr connection)
{
	const struct timespec nap = { 0, 100000000 };
	time_t begin = seconds(), seen = begin;

	while (seconds() < begin + RESCUE_S && seconds() < seen + ABSENT_S) {
		virDomainPtr domain = virDomainLookupByUUIDString(connection, guard->uuid);

		if (domain && virDomainIsActive(domain) == 1) {
			seen = seconds();
			virDomainResume(domain);
			if (is_running(domain)) {
				virDomainFree(domain);
				return true;
			}
		}
		if (domain) {
			virDomainFree(domain);
		}
		nanosleep(&nap, NULL);
	}
	return false;
}

/* The worker was killed: what it had suspended must not stay so. */
static int rescue(const struct guard *guard, int sig)
{
	virConnectPtr connection = NULL;
	struct gclk_error error;
	bool runs = false;

	if (guard->suspended &&
	    virt_connect(guard->uri[0] ? guard->uri : NULL, false, &connection, &error) == 0) {
		runs = resume_soon(guard, connection);
		virConnectClose(connection);
	}
	message("error", NULL, gclk_status_name(GCLK_SYS), EFFECT_CHANGED, NULL,
		"the process that did the work was ended by signal %d%s", sig,
		runs ? "; the guest has been resumed, late by an unknown time" : "");
	return GCLK_SYS;
}

int guard_run(int (*work)(struct guard *guard, void *ctx), void *ctx, bool interrupt)
{
	struct guard *guard = mmap(NULL, sizeof(*guard), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0, r;
	pid_t pid;

	if (guard == MAP_FAILED) {
		return system_error("no memory to share");
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		return system_error("no process can be started");
	}
	if (pid == 0) {
		_exit(do_work(work, guard, ctx));
	}
	worker = pid;
	take_signals(interrupt);
	do {
		r = waitpid(pid, &status, 0);
	} while (r < 0 && errno == EINTR);
	worker = 0;
	status = WIFEXITED(status) ? WEXITSTATUS(status) : rescue(guard, WTERMSIG(status));
	munmap(guard, sizeof(*guard));
	return status;
}
