/* SPDX-License-Identifier: MIT */
/*
 * The host: what it promises (/proc, /sys, CPUID), what its KVM can do (/dev/kvm), how
 * its wall clock is kept (adjtimex), and what its clocks say at one instant.
 *
 * Each source fills the fields that it knows and leaves the others absent: a container
 * without /proc, a user who may not open /dev/kvm and a sandbox without adjtimex all get
 * the rest. Only clocks that cannot be read are an error.
 */
#include "kvm/host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <x86intrin.h>
#define HAVE_TSC 1
#else
#define HAVE_TSC 0
#endif

#include <linux/kvm.h>

#include "core/tsc.h"
#include "core/util.h"

/* Newer than the headers that we build with at least (6.1). */
#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

#define N_BRACKETS 32
#define CPUINFO_BYTES 16384	/* one processor's paragraph is about 2 KiB */

#define HAS(host, member) GCLK_HAS(host, host, member)
#define SET(host, member, value) GCLK_SET(host, host, member, value)

/*
 * Files
 */

/* The file's text, NUL-terminated, cut at @size; -1 where it cannot be read. */
static int read_text(const char *root, const char *path, char *text, size_t size)
{
	char name[PATH_MAX];
	size_t length = 0;
	ssize_t n;
	int fd;

	if ((size_t)snprintf(name, sizeof(name), "%s%s", root, path) >= sizeof(name)) {
		return -1;
	}
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return -1;
	}
	while (length < size - 1) {
		n = read(fd, text + length, size - 1 - length);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			break;
		}
		length += (size_t)n;
	}
	close(fd);
	text[length] = '\0';
	return length > 0 ? 0 : -1;
}

/* The first line without its end, into a string field; absent when empty. */
static void set_string(struct gclk_host *host, unsigned field, char *member, size_t size,
		       const char *text, size_t length)
{
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t')) {
		length--;
	}
	if (length == 0) {
		return;
	}
	length = GCLK_MIN(length, size - 1);
	memcpy(member, text, length);
	member[length] = '\0';
	host->has |= UINT64_C(1) << field;
}

#define SET_STRING(host, member, text, length)                                    \
	set_string(host, gclk_host_f_##member, (host)->member, sizeof((host)->member), text, \
		   length)

/* A decimal number that fits 32 bits, alone on its line. */
static int read_u32(const char *root, const char *path, uint32_t *ret)
{
	char text[32], *end;
	unsigned long long value;

	if (read_text(root, path, text, sizeof(text)) < 0 || text[0] < '0' || text[0] > '9') {
		return -1;
	}
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || (*end != '\n' && *end != '\0') || value > UINT32_MAX) {
		return -1;
	}
	*ret = (uint32_t)value;
	return 0;
}

/*
 * /proc/cpuinfo: "name<tabs>: value" lines, one paragraph per processor; we take the first.
 * Returns the value and its length, or NULL.
 */
static const char *cpuinfo_value(const char *text, const char *name, size_t *ret_length)
{
	size_t name_length = strlen(name);
	const char *line = text, *end, *p;

	for (; *line != '\0' && *line != '\n'; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		p = line + name_length;
		if ((size_t)(end - line) <= name_length || memcmp(line, name, name_length)) {
			continue;
		}
		p += strspn(p, " \t");
		if (*p != ':') {
			continue;
		}
		p++;
		p += strspn(p, " \t");
		*ret_length = p < end ? (size_t)(end - p) : 0;
		return p;
	}
	return NULL;
}

static bool has_word(const char *list, size_t length, const char *word)
{
	size_t word_length = strlen(word), n;
	const char *end = list + length;

	while (list < end) {
		n = 0;
		while (list + n < end && list[n] != ' ') {
			n++;
		}
		if (n == word_length && memcmp(list, word, n) == 0) {
			return true;
		}
		list += n + 1;
	}
	return false;
}

static const struct {
	const char *word;
	uint32_t flag;
} cpu_flags[] = {
	{ "constant_tsc", GCLK_HOST_CONSTANT_TSC },
	{ "nonstop_tsc", GCLK_HOST_NONSTOP_TSC },
	{ "tsc_known_freq", GCLK_HOST_TSC_KNOWN_FREQ },
	{ "hypervisor", GCLK_HOST_HYPERVISOR },
};

/* The vendor decides the multiplier's format, where there is one. */
static unsigned read_cpuinfo(const char *root, struct gclk_host *host)
{
	char text[CPUINFO_BYTES];
	const char *value;
	unsigned frac_bits = 0;
	size_t length, i;

	if (read_text(root, "/proc/cpuinfo", text, sizeof(text)) < 0) {
		return 0;
	}
	SET(host, flags, host->flags);
	value = cpuinfo_value(text, "flags", &length);
	for (i = 0; value && i < GCLK_COUNT(cpu_flags); i++) {
		if (has_word(value, length, cpu_flags[i].word)) {
			host->flags |= cpu_flags[i].flag;
		}
	}
	value = cpuinfo_value(text, "model name", &length);
	if (value) {
		SET_STRING(host, cpu_model, value, length);
	}
	value = cpuinfo_value(text, "vendor_id", &length);
	if (value && length == 12 && memcmp(value, "GenuineIntel", 12) == 0) {
		frac_bits = GCLK_TSC_FRAC_INTEL;
	} else if (value && length == 12 && (memcmp(value, "AuthenticAMD", 12) == 0 ||
					     memcmp(value, "HygonGenuine", 12) == 0)) {
		frac_bits = GCLK_TSC_FRAC_AMD;
	}
	return frac_bits;
}

static void read_names(const char *root, struct gclk_host *host)
{
	struct utsname names;
	char text[128];

	if (uname(&names) == 0) {
		SET_STRING(host, hostname, names.nodename, strlen(names.nodename));
		SET_STRING(host, kernel_release, names.release, strlen(names.release));
	}
	if (read_text(root, "/proc/sys/kernel/random/boot_id", text, sizeof(text)) == 0 &&
	    strcspn(text, "\n") == sizeof(host->boot_id) - 1) {
		SET_STRING(host, boot_id, text, strcspn(text, "\n"));
	}
	if (read_text(root, "/sys/devices/system/clocksource/clocksource0/current_clocksource",
		      text, sizeof(text)) == 0) {
		SET_STRING(host, clocksource, text, strcspn(text, "\n"));
	}
}

static void read_kvm_parameters(const char *root, struct gclk_host *host)
{
	uint32_t value;

	if (read_u32(root, "/sys/module/kvm/parameters/tsc_tolerance_ppm", &value) == 0 &&
	    value <= 1000000) {
		SET(host, tsc_tolerance_ppm, value);
	}
	if (read_u32(root, "/sys/module/kvm/parameters/min_timer_period_us", &value) == 0) {
		SET(host, min_timer_period_us, value);
	}
}

/*
 * /dev/kvm
 */

static const struct {
	int cap;
	uint8_t field;		/* gclk_host_f_* */
	uint16_t offset;	/* of the int32_t */
} kvm_caps[] = {
#define CAP(cap, member) { cap, gclk_host_f_##member, offsetof(struct gclk_host, member) }
	CAP(KVM_CAP_ADJUST_CLOCK, cap_adjust_clock),
	CAP(KVM_CAP_TSC_CONTROL, cap_tsc_control),
	CAP(KVM_CAP_GET_TSC_KHZ, cap_get_tsc_khz),
	CAP(KVM_CAP_TSC_DEADLINE_TIMER, cap_tsc_deadline_timer),
	CAP(KVM_CAP_KVMCLOCK_CTRL, cap_kvmclock_ctrl),
	CAP(KVM_CAP_VCPU_ATTRIBUTES, cap_vcpu_attributes),
	CAP(KVM_CAP_VM_TSC_CONTROL, cap_vm_tsc_control),
	CAP(KVM_CAP_X86_APIC_BUS_CYCLES_NS, cap_apic_bus_cycles),
#undef CAP
};

static void read_caps(int vm, struct gclk_host *host)
{
	size_t i;
	int32_t value;

	for (i = 0; i < GCLK_COUNT(kvm_caps); i++) {
		value = ioctl(vm, KVM_CHECK_EXTENSION, kvm_caps[i].cap);
		if (value >= 0) {
			memcpy((char *)host + kvm_caps[i].offset, &value, sizeof(value));
			host->has |= UINT64_C(1) << kvm_caps[i].field;
		}
	}
}

/*
 * The host's own kHz. A VM answers since 5.18; before, a vCPU to which nobody gave a
 * frequency.
 */
static void read_khz(int vm, struct gclk_host *host)
{
	int khz = ioctl(vm, KVM_GET_TSC_KHZ, 0);
	int vcpu;

	if (khz <= 0) {
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
		khz = vcpu < 0 ? -1 : ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
		if (vcpu >= 0) {
			close(vcpu);
		}
	}
	if (khz > 0) {
		SET(host, tsc_khz_kernel, (uint32_t)khz);
	}
}

static void read_kvm(const char *root, unsigned frac_bits, struct gclk_host *host)
{
	char name[PATH_MAX];
	int kvm, vm = -1;

	if ((size_t)snprintf(name, sizeof(name), "%s/dev/kvm", root) >= sizeof(name)) {
		return;
	}
	kvm = open(name, O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		return;
	}
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION) {
		SET(host, flags, host->flags | GCLK_HOST_KVM);
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
		read_caps(vm >= 0 ? vm : kvm, host);
	}
	if (vm >= 0) {
		read_khz(vm, host);
		close(vm);
	}
	close(kvm);
	if (HAS(host, cap_tsc_control) && host->cap_tsc_control > 0) {
		host->flags |= GCLK_HOST_TSC_SCALING;
		if (frac_bits != 0) {
			SET(host, tsc_ratio_frac_bits, (uint8_t)frac_bits);
			SET(host, tsc_ratio_max, gclk_tsc_ratio_max(frac_bits));
		}
	}
}

/*
 * The wall clock's discipline
 */

/* TAI minus UTC, s, as the kernel's clocks show it. */
static int tai_by_clocks(int32_t *ret)
{
	struct timespec tai, utc;

	if (clock_gettime(CLOCK_TAI, &tai) < 0 || clock_gettime(CLOCK_REALTIME, &utc) < 0) {
		return -1;
	}
	/* read one after the other: within the rounding to whole seconds */
	*ret = (int32_t)(tai.tv_sec - utc.tv_sec);
	if (utc.tv_nsec - tai.tv_nsec > 500000000) {
		*ret -= 1;
	} else if (tai.tv_nsec - utc.tv_nsec > 500000000) {
		*ret += 1;
	}
	return 0;
}

static void read_discipline(struct gclk_host *host, struct gclk_tsc_evidence *evidence)
{
	struct timex t = { .modes = 0 };
	int state = adjtimex(&t);
	int32_t tai_s;

	if (tai_by_clocks(&tai_s) == 0 && tai_s >= -1000 && tai_s <= 1000) {
		SET(host, tai_offset_s, tai_s);
	}
	if (state < 0) {
		return;
	}
	evidence->correction = gclk_ntp_correction(t.tick, sysconf(_SC_CLK_TCK), t.freq);
	evidence->correction_known = 1;
	evidence->synchronised = state != TIME_ERROR && !(t.status & STA_UNSYNC);
	SET(host, ntp_state, state);
	SET(host, ntp_status, (uint32_t)t.status);
	/* 2^-16 ppm to ppb, rounded to the nearest */
	SET(host, ntp_freq_ppb, (evidence->correction * 1000 + 32768) >> 16);
	SET(host, ntp_maxerror_ns, (uint64_t)GCLK_MAX(t.maxerror, 0) * 1000);
	SET(host, ntp_esterror_ns, (uint64_t)GCLK_MAX(t.esterror, 0) * 1000);
	if (evidence->synchronised) {
		SET(host, flags, host->flags | GCLK_HOST_SYNCHRONISED);
	}
}

/*
 * Samples
 */

static uint64_t read_tsc(void)
{
#if HAVE_TSC
	uint64_t ticks;

	_mm_lfence();		/* not before the clock above was read */
	ticks = __rdtsc();
	_mm_lfence();		/* nor after the one below */
	return ticks;
#else
	return 0;
#endif
}

static int read_clock(clockid_t clock, int64_t *ret_ns)
{
	struct timespec t;

	if (clock_gettime(clock, &t) < 0) {
		return -1;
	}
	*ret_ns = (int64_t)t.tv_sec * GCLK_NS_PER_S + t.tv_nsec;
	return 0;
}

struct bracket {
	int64_t before_ns, after_ns;	/* CLOCK_MONOTONIC */
	int64_t raw_ns, realtime_ns, boottime_ns;
	uint64_t ticks;
};

/* The TSC stands between the two clocks that it is compared with most. */
static int read_bracket(struct bracket *b)
{
	int failed = read_clock(CLOCK_MONOTONIC, &b->before_ns);

	failed |= read_clock(CLOCK_MONOTONIC_RAW, &b->raw_ns);
	b->ticks = read_tsc();
	failed |= read_clock(CLOCK_REALTIME, &b->realtime_ns);
	failed |= read_clock(CLOCK_BOOTTIME, &b->boottime_ns);
	failed |= read_clock(CLOCK_MONOTONIC, &b->after_ns);
	return failed;
}

static int64_t bracket_width(const struct bracket *b)
{
	return b->after_ns - b->before_ns;
}

GCLK_API int gclk_host_sample(struct gclk_host *host, struct gclk_error *reterr)
{
	struct bracket best = { 0 }, b = { 0 };
	int64_t width;
	unsigned i;

	for (i = 0; i < N_BRACKETS; i++) {
		if (read_bracket(&b) < 0) {
			return gclk_fail(reterr, GCLK_SYS, "host sample", GCLK_NO_OFFSET,
					 "the clocks of this host cannot be read");
		}
		if (i == 0 || bracket_width(&b) < bracket_width(&best)) {
			best = b;
		}
	}
	width = bracket_width(&best);
	if (HAVE_TSC) {
		SET(host, tsc_ticks, best.ticks);
	}
	SET(host, realtime_ns, best.realtime_ns);
	SET(host, monotonic_ns, best.before_ns + width / 2);
	SET(host, raw_ns, best.raw_ns);
	SET(host, boottime_ns, best.boottime_ns);
	/* each clock was read within; one of resolution 1 ns may be off by that too */
	SET(host, sample_width_ns, (uint64_t)width + 1);
	return 0;
}

/*
 * The TSC's frequency
 */

static struct gclk_rate cpuid_rate(const struct gclk_host *host)
{
	struct gclk_rate rate = { 0, 1 };
#if HAVE_TSC
	uint32_t a = 0, b = 0, c = 0, d = 0, leaf15[4] = { 0 }, base_mhz = 0;

	if (__get_cpuid_count(0x15, 0, &leaf15[0], &leaf15[1], &leaf15[2], &leaf15[3])) {
		if (__get_cpuid_count(0x16, 0, &a, &b, &c, &d)) {
			base_mhz = a & 0xffff;
		}
		rate = gclk_tsc_rate_from_cpuid(leaf15, base_mhz);
	}
	/* a hypervisor's timing leaf; meaningful only where the leaf of its range says so */
	if (rate.num == 0 && (host->flags & GCLK_HOST_HYPERVISOR)) {
		__cpuid(0x40000000, a, b, c, d);
		if (a >= 0x40000010 && a < 0x40010000) {
			__cpuid(0x40000010, a, b, c, d);
			rate = gclk_rate_of_khz(a);
		}
	}
#else
	(void)host;
#endif
	return rate;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec left = {
		.tv_sec = (time_t)(ns / GCLK_NS_PER_S),
		.tv_nsec = (long)(ns % GCLK_NS_PER_S),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
	}
}

/* Two samples @measure_ns apart; the second one stays in @host. */
static int measure(struct gclk_host *host, uint64_t measure_ns,
		   struct gclk_tsc_evidence *evidence, struct gclk_error *reterr)
{
	struct gclk_host first = { 0 };
	uint64_t ticks, width;
	int r;

	r = gclk_host_sample(&first, reterr);
	if (r < 0) {
		return r;
	}
	sleep_ns(measure_ns);
	r = gclk_host_sample(host, reterr);
	if (r < 0 || !HAVE_TSC) {
		return r;
	}
	ticks = host->tsc_ticks - first.tsc_ticks;
	width = first.sample_width_ns + host->sample_width_ns;
	evidence->raw = gclk_tsc_measured(ticks, host->raw_ns - first.raw_ns, width);
	evidence->real = gclk_tsc_measured(ticks, host->realtime_ns - first.realtime_ns, width);
	return 0;
}

static void set_rate(struct gclk_host *host, struct gclk_tsc_evidence *evidence)
{
	struct gclk_tsc_guess guess;

	evidence->kernel_khz = host->tsc_khz_kernel;
	evidence->clocksource_is_tsc = strcmp(host->clocksource, "tsc") == 0;
	evidence->known_freq = (host->flags & GCLK_HOST_TSC_KNOWN_FREQ) != 0;
	evidence->cpuid = cpuid_rate(host);
	guess = gclk_tsc_choose(evidence);
	if (guess.basis == GCLK_TSC_UNKNOWN) {
		return;
	}
	SET(host, tsc_hz, guess.rate.num);
	if (guess.rate.den != 1) {
		SET(host, tsc_hz_den, guess.rate.den);
	}
	SET(host, tsc_hz_ppb, (uint32_t)GCLK_MIN(guess.ppb, UINT32_MAX));
	SET(host, tsc_hz_basis, guess.basis);
}

int gclk_host_read_at(const char *root, struct gclk_host *ret_host, uint64_t measure_ns,
		      struct gclk_error *reterr)
{
	struct gclk_host host = { 0 };
	struct gclk_tsc_evidence evidence = { 0 };
	unsigned frac_bits;
	int r;

	frac_bits = read_cpuinfo(root, &host);
	read_names(root, &host);
	read_kvm_parameters(root, &host);
	read_kvm(root, frac_bits, &host);
	read_discipline(&host, &evidence);
	r = measure_ns > 0 ? measure(&host, measure_ns, &evidence, reterr) :
			     gclk_host_sample(&host, reterr);
	if (r < 0) {
		return r;
	}
	set_rate(&host, &evidence);
	*ret_host = host;
	return 0;
}

GCLK_API int gclk_host_read(struct gclk_host *ret_host, uint64_t measure_ns,
			    struct gclk_error *reterr)
{
	return gclk_host_read_at("", ret_host, measure_ns, reterr);
}

/* Absent fields that say something by being absent. */
static bool is_meant(const struct gclk_host *host, unsigned field)
{
	switch (field) {
	case gclk_host_f_tsc_hz_den:
		return HAS(host, tsc_hz);
	case gclk_host_f_tsc_ratio_frac_bits:
	case gclk_host_f_tsc_ratio_max:
		return HAS(host, cap_tsc_control) && host->cap_tsc_control == 0;
	default:
		return false;
	}
}

GCLK_API const char *gclk_host_missing(const struct gclk_host *host, unsigned index)
{
	unsigned field;

	for (field = 0; field < gclk_host_n_fields; field++) {
		if (gclk_record_has(host, &gclk_host_record, field) || is_meant(host, field)) {
			continue;
		}
		if (index-- == 0) {
			return gclk_host_record.fields[field].name;
		}
	}
	return NULL;
}
