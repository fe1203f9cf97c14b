/* SPDX-License-Identifier: MIT */
/*
 * The confined process, from within and from without. As root only: nobody else has
 * anything to give up.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/confine/confine.h"
#include "migrator/foreign.h"
#include "migrator/source.h"

#define NOBODY 65534

/* ---- what is no longer possible ---- */

static void opens(void) { (void)!open("/", O_RDONLY); }
static void opens_a_device(void) { (void)!open("/dev/null", O_RDWR); }
static void connects(void) { (void)!socket(AF_UNIX, SOCK_STREAM, 0); }
static void connects_afar(void) { (void)!socket(AF_INET, SOCK_DGRAM, 0); }
static void forks(void) { (void)!fork(); }
static void executes(void) { (void)!execl("/bin/true", "true", (char *)NULL); }
static void signals(void) { (void)!kill(getppid(), 0); }
static void traces(void) { (void)!ptrace(PTRACE_TRACEME, 0, NULL, NULL); }
static void becomes_root(void) { (void)!setuid(0); }
static void leaves_namespaces(void) { (void)!unshare(CLONE_NEWUSER); }
static void unlinks(void) { (void)!unlink("/etc/passwd"); }
static void maps_code(void)
{
	(void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void makes_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)!mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

/* How a confined process ends that does this. */
static int end_of(void (*deed)(void))
{
	const struct confine_conf conf = { true, NOBODY, NOBODY };
	const char *without;
	int ends[2], status = 0;
	pid_t pid;

	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (confine_enter(ends[1], &conf, &without, NULL) < 0) {
			_exit(2);
		}
		deed();
		_exit(0);
	}
	close(ends[0]);
	close(ends[1]);
	waitpid(pid, &status, 0);
	return status;
}

static bool dies_of_it(void (*deed)(void))
{
	int status = end_of(deed);

	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static bool as_root(void)
{
	if (geteuid() != 0) {
		gclk_test_skip("only root has something to give up");
		return false;
	}
	return true;
}

static void nothing(void)
{
}

GCLK_TEST(confine, what_is_not_allowed_kills)
{
	if (!as_root()) {
		return;
	}
	GCLK_EQ(end_of(nothing), 0);
	CU_ASSERT(dies_of_it(opens));
	CU_ASSERT(dies_of_it(opens_a_device));
	CU_ASSERT(dies_of_it(connects));
	CU_ASSERT(dies_of_it(connects_afar));
	CU_ASSERT(dies_of_it(forks));
	CU_ASSERT(dies_of_it(executes));
	CU_ASSERT(dies_of_it(signals));
	CU_ASSERT(dies_of_it(traces));
	CU_ASSERT(dies_of_it(becomes_root));
	CU_ASSERT(dies_of_it(leaves_namespaces));
	CU_ASSERT(dies_of_it(unlinks));
	CU_ASSERT(dies_of_it(maps_code));
	CU_ASSERT(dies_of_it(makes_code));
}

static int image_fd;

/* The descriptor that an image comes by: it is written by no means. */
static void writes_the_image(void)
{
	_exit(write(image_fd, "x", 1) < 0 && pwrite(image_fd, "x", 1, 0) < 0 &&
	      ftruncate(image_fd, 0) < 0 ? 0 : 3);
}

GCLK_TEST(confine, an_image_cannot_be_written)
{
	char path[] = "/tmp/gclk-confine-XXXXXX";
	const struct confine_conf conf = { true, NOBODY, NOBODY };
	const char *without;
	int fd, status = 0;
	pid_t pid;

	if (!as_root()) {
		return;
	}
	fd = mkstemp(path);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, "image", 5) == 5);
	pid = fork();
	if (pid == 0) {
		/* where a socket would be: the one descriptor that stays */
		image_fd = open(path, O_RDONLY);
		if (image_fd < 0 || confine_enter(image_fd, &conf, &without, NULL) < 0) {
			_exit(2);
		}
		image_fd = CONFINE_SOCKET;
		writes_the_image();
	}
	waitpid(pid, &status, 0);
	GCLK_EQ(status, 0);
	GCLK_EQ(lseek(fd, 0, SEEK_END), 5);
	close(fd);
	unlink(path);
}

/* ---- what it is ---- */

static void status_line(pid_t pid, const char *name, char *to, size_t size)
{
	char path[64], line[256];
	FILE *file;

	*to = 0;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, name, strlen(name))) {
			snprintf(to, size, "%s", line + strlen(name));
			to[strcspn(to, "\n")] = 0;
		}
	}
	if (file) {
		fclose(file);
	}
}

static unsigned n_entries(pid_t pid, const char *what)
{
	char command[128], text[32] = "";
	FILE *pipe;

	snprintf(command, sizeof(command), "ls -A /proc/%d/%s/ | wc -l", (int)pid, what);
	pipe = popen(command, "r");
	(void)!fgets(text, sizeof(text), pipe);
	pclose(pipe);
	return (unsigned)atoi(text);
}

GCLK_TEST(confine, a_worker_has_nothing)
{
	const struct gclk_worker *worker = NULL;
	struct gclk_worker_process process;
	char text[256], ready[1024];

	if (!as_root()) {
		return;
	}
	unsetenv("GUESTCLOCK_CONFINE");
	GCLK_EQ(confine_worker(NULL, &worker, NULL), 0);
	CU_ASSERT_FATAL(worker && worker->start(worker->ctx, &process, NULL) == 0);
	CU_ASSERT(recv(process.socket, ready, sizeof(ready), 0) > 0);	/* it is confined now */
	status_line(process.pid, "Uid:", text, sizeof(text));
	CU_ASSERT(*text && strtoul(text, NULL, 10) != 0);
	status_line(process.pid, "Groups:", text, sizeof(text));
	CU_ASSERT(!strcmp(text + strspn(text, "\t "), ""));
	status_line(process.pid, "CapEff:", text, sizeof(text));
	CU_ASSERT(*text && strtoull(text, NULL, 16) == 0);
	status_line(process.pid, "CapPrm:", text, sizeof(text));
	CU_ASSERT(*text && strtoull(text, NULL, 16) == 0);
	status_line(process.pid, "NoNewPrivs:", text, sizeof(text));
	GCLK_EQ(atoi(text), 1);
	status_line(process.pid, "Seccomp:", text, sizeof(text));
	GCLK_EQ(atoi(text), 2);
	GCLK_EQ(n_entries(process.pid, "root"), 0);
	GCLK_EQ(n_entries(process.pid, "fd"), 4);
	/* what a library prints must not get into the protocol */
	for (unsigned fd = 0; fd < 2; fd++) {
		char link[64];
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/%d/fd/%u", (int)process.pid, fd);
		n = readlink(link, text, sizeof(text) - 1);
		text[n > 0 ? n : 0] = 0;
		CU_ASSERT_STRING_EQUAL(text, "/dev/null");
	}
	worker->stop(worker->ctx, &process, 0, NULL);
	CU_ASSERT(kill(process.pid, 0) < 0 && errno == ESRCH);
}

/* ---- who is asked ---- */

static const char *conf_file(const char *text)
{
	static char path[] = "/tmp/gclk-confine-conf";
	FILE *file = fopen(path, "w");

	CU_ASSERT_FATAL(file != NULL);
	fputs(text, file);
	fclose(file);
	return path;
}

static int read_conf(const char *text, struct confine_conf *ret)
{
	struct gclk_error error;

	return confine_conf_read(conf_file(text), ret, &error);
}

GCLK_TEST(confine, settings)
{
	struct confine_conf conf;

	GCLK_EQ(read_conf("", &conf), 0);
	CU_ASSERT(conf.confine && conf.uid && conf.gid);
	GCLK_EQ(read_conf("[privilege]\nconfine = no\n", &conf), 0);
	CU_ASSERT(!conf.confine);
	GCLK_EQ(read_conf("[privilege]\nconfine = yes\nuser = nobody\n", &conf), 0);
	CU_ASSERT(conf.confine);
	GCLK_EQ(conf.uid, NOBODY);
	GCLK_EQ(read_conf("[privilege]\nconfine = perhaps\n", &conf), -GCLK_MALFORMED);
	GCLK_EQ(read_conf("[privilege]\nuser = root\n", &conf), -GCLK_USAGE);
	GCLK_EQ(read_conf("[privilege]\nuser = no such user\n", &conf), -GCLK_USAGE);
	GCLK_EQ(conf.cpu_s, CONFINE_CPU_S);
	GCLK_EQ(read_conf("[privilege]\ncpu = 90m\n", &conf), 0);
	GCLK_EQ(conf.cpu_s, 5400);
	GCLK_EQ(read_conf("[privilege]\ncpu = 10ms\n", &conf), -GCLK_RANGE);
	GCLK_EQ(read_conf("[privilege]\ncpu = soon\n", &conf), -GCLK_MALFORMED);
	GCLK_EQ(read_conf("[policy]\nconfine = no\n", &conf), 0);
	CU_ASSERT(conf.confine);
	unlink("/tmp/gclk-confine-conf");
}

GCLK_TEST(confine, the_environment_says_no)
{
	const struct gclk_worker *worker = NULL;

	setenv("GUESTCLOCK_CONFINE", "no", 1);
	GCLK_EQ(confine_worker(NULL, &worker, NULL), 0);
	CU_ASSERT(!worker);
	unsetenv("GUESTCLOCK_CONFINE");
	GCLK_EQ(confine_worker(NULL, &worker, NULL), 0);
	CU_ASSERT(!worker == (geteuid() != 0));
}

/* A worker that is killed is an error with the signal's number, and the image stays. */
static const struct gclk_worker *real;

static int start_and_kill(void *ctx, struct gclk_worker_process *ret, struct gclk_error *reterr)
{
	int r = real->start(ctx, ret, reterr);

	if (r == 0) {
		kill(ret->pid, SIGSYS);
	}
	return r;
}

static void stop_it(void *ctx, struct gclk_worker_process *process, int failed,
		    struct gclk_error *reterr)
{
	real->stop(ctx, process, failed, reterr);
}

GCLK_TEST(confine, a_death_is_reported)
{
	const struct gclk_worker doomed = { start_and_kill, stop_it, NULL };
	const struct gclk_image_options options = { .worker = &doomed, .writable = 1 };
	struct gclk_image *image = NULL;
	struct gclk_error error;
	char path[] = "/tmp/gclk-confine-XXXXXX";
	int fd;

	if (!as_root()) {
		return;
	}
	fd = mkstemp(path);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, "QEVM", 4) == 4);
	GCLK_EQ(confine_worker(NULL, &real, NULL), 0);
	GCLK_EQ(gclk_image_open(path, &options, &image, &error), -GCLK_PEER);
	CU_ASSERT(!image && strstr(error.message, "signal 31"));
	GCLK_EQ(lseek(fd, 0, SEEK_END), 4);
	close(fd);
	unlink(path);
}

/* ---- one that does not end ---- */

static int loops(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
		 struct gclk_error *reterr)
{
	volatile uint64_t count = 0;

	(void)bytes;
	(void)n;
	(void)ret;
	(void)ret_n;
	(void)reterr;
	if (what) {
		signal(SIGXCPU, SIG_IGN);
	}
	for (;;) {
		count++;
	}
	return 0;
}

static void expect_end_of_loop(uint32_t stubborn, const char *message)
{
	const struct gclk_worker *by = NULL;
	struct gclk_worker worker;
	struct gclk_error error = { 0 };
	void *said = NULL;
	size_t n = 0;

	GCLK_EQ(confine_worker(conf_file("[privilege]\ncpu = 1s\n"), &by, &error), 0);
	CU_ASSERT_FATAL(by != NULL);
	worker = *by;
	worker.patience_ms = 300000;	/* a second of the processor may be long in coming */
	GCLK_EQ(foreign_ask(&worker, stubborn, "x", 1, &said, &n, &error), -GCLK_PEER);
	CU_ASSERT(strstr(error.message, message) != NULL);
	if (!strstr(error.message, message)) {
		printf("\n    %s\n", error.message);
	}
}

GCLK_TEST(confine, one_that_loops_is_ended)
{
	const struct gclk_worker *worker;

	if (!as_root()) {
		return;
	}
	confine_set_reader(loops);
	expect_end_of_loop(0, "has used up 1 s of the processor, and was ended");
	expect_end_of_loop(1, "was killed by signal 9");
	confine_set_reader(foreign_read);
	confine_worker(NULL, &worker, NULL);
	unlink("/tmp/gclk-confine-conf");
}

/* What it is asked by way of a program's own reader, confined as it is. */
GCLK_TEST(confine, a_profile_is_read_there)
{
	static const char text[] = "{\"tsc_hz\": \"2499997914\"}";
	const struct gclk_worker *worker = NULL;
	struct gclk_host host = { 0 };
	struct gclk_error error = { 0 };

	if (!as_root()) {
		return;
	}
	GCLK_EQ(confine_worker(NULL, &worker, NULL), 0);
	GCLK_EQ(foreign_host_json(worker, text, strlen(text), &host, &error), 0);
	CU_ASSERT_STRING_EQUAL(error.message, "");
	GCLK_EQ(host.tsc_hz, 2499997914);
}

/* As below RestrictNamespaces=. What tries it out leaves nothing itself. */
GCLK_TEST(confine, which_namespaces_cannot_be_left_is_known)
{
	struct stat before, after;
	int status = 0;
	pid_t pid;

	if (!as_root()) {
		return;
	}
	CU_ASSERT_FATAL(stat("/proc/self/ns/net", &before) == 0);
	confine_without();
	CU_ASSERT(stat("/proc/self/ns/net", &after) == 0 && before.st_ino == after.st_ino);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		_exit(setresuid(NOBODY, NOBODY, NOBODY) < 0 ||
		      strcmp(confine_without(), "network ipc mount") != 0);
	}
	CU_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
}
