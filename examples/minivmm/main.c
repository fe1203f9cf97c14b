/* SPDX-License-Identifier: MIT */
/*
 * Options, and the event loop: signals, commands on standard input, the timer of our
 * devices, and the replay. The guest's serial port is standard output.
 */
#include <errno.h>
#include <inttypes.h>
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

#define RAM_MIB 16
#define RAM_MIB_MAX 1024
#define MEASURE_NS 200000000		/* of the host's TSC, at the start */
#define VERIFY_AFTER_NS 300000000
#define PIT_AHEAD_NS 1000000		/* the vCPUs stand for so long while its phase is set */
#define FORCE_MAX 16

static const char usage[] =
	"usage: minivmm [OPTION...] GUEST.elf [WORD=VALUE...]\n"
	"       minivmm [OPTION...] --from DIR\n"
	"\n"
	"Runs a guest that keeps the entry contract of tests/guest; its report goes to\n"
	"standard output.\n"
	"\n"
	"  --smp N            processors\n"
	"  --memory MIB       RAM, 16 unless told\n"
	"  --state DIR        where SIGUSR1 saves the machine before it ends the process\n"
	"  --from DIR         go on from there\n"
	"  --gap POLICY       what the clocks do about the time in between: count, freeze, wall\n"
	"  --ticks POLICY     and the timers about missed ticks: delay, catchup, merge, discard\n"
	"  --disagreement NS  this host's wall clock minus the source's, +- 0\n"
	"  --time-pit         put the kernel's PIT back into its phase, where that is known\n"
	"  --elsewhere        take the source for another host, whatever its boot id\n"
	"  --force ID         override a finding that refuses; may be repeated\n"
	"\n"
	"Commands on standard input, one a line: stop, go, save DIR (stops), replay, quit.\n";

struct options {
	unsigned n_vcpus;
	uint64_t ram_mib;
	const char *guest, *from, *state;
	const char *force[FORCE_MAX + 1];
	unsigned n_force;
	bool elsewhere, time_pit;
	struct gclk_policy policy;
	struct gclk_disagreement disagreement;
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

/* ---- options ---- */

__attribute__((noreturn)) static void explain(void)
{
	fputs(usage, stderr);
	exit(2);
}

static uint8_t look_up(const char *word, const char *const *names, uint8_t n)
{
	for (uint8_t i = 0; i < n; i++) {
		if (!strcmp(word, names[i])) {
			return i;
		}
	}
	explain();
}

static void set_option(struct options *options, const char *name, const char *value)
{
	if (!strcmp(name, "--smp")) {
		options->n_vcpus = (unsigned)strtoul(value, NULL, 10);
	} else if (!strcmp(name, "--memory")) {
		options->ram_mib = strtoull(value, NULL, 10);
	} else if (!strcmp(name, "--state")) {
		options->state = value;
	} else if (!strcmp(name, "--from")) {
		options->from = value;
	} else if (!strcmp(name, "--gap")) {
		options->policy.gap = look_up(value, gclk_gap_policy_names, GCLK_GAP_CAP);
	} else if (!strcmp(name, "--disagreement")) {
		options->disagreement = (struct gclk_disagreement){ strtoll(value, NULL, 10), 0 };
	} else if (!strcmp(name, "--force") && options->n_force < FORCE_MAX) {
		options->force[options->n_force++] = value;
	} else if (!strcmp(name, "--ticks")) {
		uint8_t policy = look_up(value, gclk_tick_policy_names, GCLK_TICKS_DISCARD + 1);

		for (unsigned i = 0; i < GCLK_N_TICK_TIMERS; i++) {
			options->policy.ticks[i] = (struct gclk_tick_choice){ policy, 1 };
		}
	} else {
		explain();
	}
}

/* Our PM timer is where no PCI device tells of it: the guest is told. */
static void make_command_line(struct options *options, int n, char **words)
{
	char *to = options->command_line;
	size_t room = sizeof(options->command_line), used;

	used = (size_t)snprintf(to, room, "pmport=%u smp=%u", PM_BASE + GCLK_PM_TIMER,
				options->n_vcpus);
	for (int i = 0; i < n; i++) {
		used += (size_t)snprintf(to + used, room - used, " %s", words[i]);
		if (used >= room) {
			die("the guest's command line is too long");
		}
	}
}

static void parse(int argc, char **argv, struct options *options)
{
	int i = 1;

	*options = (struct options){ .n_vcpus = 1, .ram_mib = RAM_MIB, .policy = gclk_policy_default,
				     .disagreement = { 0, GCLK_UNBOUNDED } };
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--elsewhere")) {
			options->elsewhere = true;
		} else if (!strcmp(argv[i], "--time-pit")) {
			options->time_pit = true;
		} else if (i + 1 < argc) {
			set_option(options, argv[i], argv[i + 1]);
			i++;
		} else {
			explain();
		}
	}
	options->policy.force = options->force;
	if ((i < argc) == (options->from != NULL) || options->n_vcpus < 1 ||
	    options->n_vcpus > VCPUS_MAX || options->ram_mib < 1 || options->ram_mib > RAM_MIB_MAX) {
		explain();
	}
	if (!options->from) {
		options->guest = argv[i];
		make_command_line(options, argc - i - 1, argv + i + 1);
	}
}

/* ---- the event loop ---- */

/* Blocked here, before any thread exists, and taken from a descriptor instead. */
static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* One command of standard input; false: the end. */
static bool obey(struct vm *vm, const char *command)
{
	if (!strcmp(command, "stop")) {
		vcpus_stop(vm);
		vm->paused = true;
	} else if (!strcmp(command, "go")) {
		vm->paused = false;
		vcpus_go(vm);
	} else if (!strncmp(command, "save ", 5)) {
		vcpus_stop(vm);
		vm->paused = true;
		vm_save(vm, command + 5);
		fprintf(stderr, "minivmm: saved\n");
	} else if (!strcmp(command, "replay") && vm->plan) {
		pthread_mutex_lock(&vm->lock);
		report_replay(&vm->plan->replay);
		pthread_mutex_unlock(&vm->lock);
	} else if (!strcmp(command, "quit")) {
		return false;
	} else {
		fprintf(stderr, "minivmm: no such command: %s\n", command);
	}
	return true;
}

static bool read_commands(struct vm *vm, struct pollfd *input)
{
	char text[4096], *rest = text, *command;
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

/* Every signal ends the process; SIGUSR1 saves before it does. */
static void take_signal(struct vm *vm, int signals, const char *state)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1) {
		vcpus_stop(vm);
		if (state) {
			vm_save(vm, state);
		}
	}
}

/* What shows only when the guest has run for a while: rates, marks in its clock pages. */
static void verify(struct vm *vm)
{
	struct gclk_error error = { 0 };
	int r;

	vcpus_stop(vm);
	r = gclk_kvm_verify(&vm->clocks, vm->plan, &error);
	vcpus_go(vm);
	if (r < 0) {
		fprintf(stderr, "minivmm: verify: %s: %s\n", error.where, error.message);
		report_plan(vm->plan);
	} else {
		fprintf(stderr, "minivmm: verified\n");
	}
}

/*
 * The kernel can only begin a new period of its PIT, so its phase comes back when that is done
 * at the right instant, within a period of the restore; the guest runs meanwhile.
 */
static int64_t pit_due(struct vm *vm, const struct options *options)
{
	int64_t due;

	if (!options->time_pit || !vm->plan ||
	    !gclk_kvm_pit_due(&vm->clocks, vm->plan, host_now(), &due)) {
		return GCLK_REPLAY_NEVER;
	}
	return due - PIT_AHEAD_NS;
}

static void time_pit(struct vm *vm)
{
	struct gclk_kvm_pit_timed timed;
	struct gclk_error error = { 0 };
	int r;

	vcpus_stop(vm);
	pthread_mutex_lock(&vm->lock);
	r = gclk_kvm_time_pit(&vm->clocks, vm->plan, &timed, &error);
	pthread_mutex_unlock(&vm->lock);
	vcpus_go(vm);
	if (r == 0) {
		fprintf(stderr, "minivmm: pit: %" PRId64 " ns off its phase, to +-%" PRIu64 " ns%s\n",
			timed.off_ns, timed.width_ns,
			timed.reprogrammed ? ": the guest's own" : "");
	} else if (r != -GCLK_STATE) {		/* else it was missed, and is due again */
		die("pit: %s: %s", error.where, error.message);
	}
}

static struct timespec until(int64_t due)
{
	int64_t now = host_now(), left = due > now ? due - now : 0;

	return (struct timespec){ left / 1000000000, left % 1000000000 };
}

static void loop(struct vm *vm, int signals, const struct options *options)
{
	struct pollfd fds[] = { { signals, POLLIN, 0 },
				{ vm->timer_fd, POLLIN, 0 },
				{ STDIN_FILENO, POLLIN, 0 } };
	int64_t verify_at = vm->plan ? host_now() + VERIFY_AFTER_NS : GCLK_REPLAY_NEVER;
	uint64_t expirations;
	bool on = true;

	while (on) {
		int64_t replay_at = vm->plan ? replay_due(vm) : GCLK_REPLAY_NEVER;
		int64_t pit_at = pit_due(vm, options);
		int64_t due = replay_at < verify_at ? replay_at : verify_at;
		struct timespec left;

		due = vm->paused ? GCLK_REPLAY_NEVER : due < pit_at ? due : pit_at;
		left = until(due);
		if (ppoll(fds, 3, due == GCLK_REPLAY_NEVER ? NULL : &left, NULL) < 0 &&
		    errno != EINTR) {
			die("poll: %m");
		}
		if (host_now() >= verify_at && !vm->paused) {
			verify_at = GCLK_REPLAY_NEVER;
			verify(vm);
		}
		if (host_now() >= pit_at && !vm->paused) {
			time_pit(vm);
		}
		if (host_now() >= replay_at && !vm->paused) {
			replay_go_on(vm);
		}
		if (fds[1].revents && read(vm->timer_fd, &expirations, sizeof(expirations)) > 0) {
			pthread_mutex_lock(&vm->lock);
			devices_advance(vm);
			pthread_mutex_unlock(&vm->lock);
		}
		on = !fds[2].revents || read_commands(vm, &fds[2]);
		if (fds[0].revents) {
			take_signal(vm, signals, options->state);
			on = false;
		}
	}
}

int main(int argc, char **argv)
{
	static struct vm vm = { .lock = PTHREAD_MUTEX_INITIALIZER,
				.changed = PTHREAD_COND_INITIALIZER };
	struct gclk_error error = { 0 };
	struct options options;
	int signals;

	parse(argc, argv, &options);
	signals = open_signals();
	vm.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (gclk_host_read(&vm.host, MEASURE_NS, &error) < 0) {
		die("host: %s", error.message);
	}
	if (options.from) {
		vm.elsewhere = options.elsewhere;
		vm_restore(&vm, options.from, &options.policy, &options.disagreement);
	} else {
		vm.clocks.axis_ns = -host_now();	/* the guest's time begins with 0 */
		vm_create(&vm, options.ram_mib << 20);
		vm_create_vcpus(&vm, options.n_vcpus);
		vm_boot(&vm, options.guest, options.command_line);
		devices_power_on(&vm);
	}
	vcpus_start(&vm);
	pthread_mutex_lock(&vm.lock);
	devices_advance(&vm);		/* what fell in the gap, as the plan has it */
	pthread_mutex_unlock(&vm.lock);
	vcpus_go(&vm);
	loop(&vm, signals, &options);
	vcpus_end(&vm);
	vm.plan = gclk_plan_free(vm.plan);
	return vm.failed ? 1 : 0;
}
