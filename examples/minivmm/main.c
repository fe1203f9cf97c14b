/* SPDX-License-Identifier: MIT */
/*
 * Options, and the event loop: signals, commands on standard input, and the timer of our
 * devices. The guest's serial port is standard output.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "minivmm.h"

#define RAM_BYTES ((size_t)16 << 20)

static const char usage[] =
	"usage: minivmm [--smp N] GUEST.elf [WORD=VALUE...]\n"
	"\n"
	"Runs a guest that keeps the entry contract of tests/guest; its report goes to\n"
	"standard output. Commands on standard input, one a line: stop, go, quit.\n";

struct options {
	unsigned n_vcpus;
	const char *guest;
	char command_line[COMMAND_LINE_MAX];
};

void die(const char *format, ...)
{
	va_list ap;

	fputs("minivmm: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(3);
}

int must(int fd, unsigned long request, void *argument, const char *name)
{
	int r = ioctl(fd, request, argument);

	if (r < 0) {
		die("%s: %m", name);
	}
	return r;
}

/* Our PM timer is where no PCI device tells of it: the guest is told. */
static void parse(int argc, char **argv, struct options *options)
{
	int i = 1;

	*options = (struct options){ .n_vcpus = 1 };
	for (; i < argc && argv[i][0] == '-'; i += 2) {
		if (strcmp(argv[i], "--smp") || i + 1 == argc) {
			fputs(usage, stderr);
			exit(2);
		}
		options->n_vcpus = (unsigned)strtoul(argv[i + 1], NULL, 10);
	}
	if (i == argc || options->n_vcpus < 1 || options->n_vcpus > VCPUS_MAX) {
		fputs(usage, stderr);
		exit(2);
	}
	options->guest = argv[i++];
	snprintf(options->command_line, sizeof(options->command_line), "pmport=%u smp=%u",
		 PM_BASE + GCLK_PM_TIMER, options->n_vcpus);
	for (; i < argc; i++) {
		size_t n = strlen(options->command_line);

		if (n + strlen(argv[i]) + 2 > sizeof(options->command_line)) {
			die("the guest's command line is too long");
		}
		snprintf(options->command_line + n, sizeof(options->command_line) - n, " %s",
			 argv[i]);
	}
}

/* Blocked here, before any thread exists, and taken from a descriptor instead. */
static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* One command of standard input; false: the end. */
static bool obey(struct vm *vm, const char *command)
{
	if (!strcmp(command, "stop")) {
		vcpus_stop(vm);
	} else if (!strcmp(command, "go")) {
		vcpus_go(vm);
	} else if (!strcmp(command, "quit")) {
		return false;
	} else {
		fprintf(stderr, "minivmm: no such command: %s\n", command);
	}
	return true;
}

static bool read_commands(struct vm *vm, struct pollfd *input)
{
	char text[256], *rest = text, *command;
	ssize_t n = read(input->fd, text, sizeof(text) - 1);
	bool on = true;

	if (n <= 0) {
		input->fd = -1;		/* nobody commands any more; the guest runs on */
		return true;
	}
	text[n] = 0;
	while (on && (command = strsep(&rest, "\n"))) {
		on = !*command || obey(vm, command);
	}
	return on;
}

static void loop(struct vm *vm, int signals)
{
	struct pollfd fds[] = { { signals, POLLIN, 0 },
				{ vm->timer_fd, POLLIN, 0 },
				{ STDIN_FILENO, POLLIN, 0 } };
	uint64_t expirations;
	bool on = true;

	while (on) {
		if (poll(fds, 3, -1) < 0 && errno != EINTR) {
			die("poll: %m");
		}
		if (fds[1].revents && read(vm->timer_fd, &expirations, sizeof(expirations)) > 0) {
			pthread_mutex_lock(&vm->lock);
			devices_advance(vm);
			pthread_mutex_unlock(&vm->lock);
		}
		on = !fds[0].revents && (!fds[2].revents || read_commands(vm, &fds[2]));
	}
}

int main(int argc, char **argv)
{
	static struct vm vm = { .lock = PTHREAD_MUTEX_INITIALIZER,
				.changed = PTHREAD_COND_INITIALIZER };
	struct options options;
	int signals;

	parse(argc, argv, &options);
	signals = open_signals();
	vm.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	vm.axis_ns = -guest_now(&vm);	/* the guest's time begins with 0 */
	vm_create(&vm, RAM_BYTES);
	vm_create_vcpus(&vm, options.n_vcpus);
	vm_boot(&vm, options.guest, options.command_line);
	devices_power_on(&vm);
	vcpus_start(&vm);
	vcpus_go(&vm);
	loop(&vm, signals);
	vcpus_end(&vm);
	return vm.failed ? 1 : 0;
}
