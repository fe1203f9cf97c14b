/* SPDX-License-Identifier: MIT */
/*
 * The host profile, held against this machine read in another way, and against trees of
 * files that stand for other machines.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#define HAVE_TSC 1
#else
#define HAVE_TSC 0
#endif

#include "gclk-test.h"

#include "core/util.h"
#include "kvm/host.h"

#define HAS(h, member) GCLK_HAS(host, h, member)
#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

static char root[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tree_begin(void)
{
	snprintf(root, sizeof(root), "/tmp/gclk-host-XXXXXX");
	CU_ASSERT_FATAL(mkdtemp(root) != NULL);
}

static void tree_end(void)
{
	nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A file below the root, with its directories. */
static void put(const char *path, const char *text)
{
	char name[256], *slash;
	FILE *file;

	snprintf(name, sizeof(name), "%s%s", root, path);
	for (slash = strchr(name + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		CU_ASSERT(mkdir(name, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	file = fopen(name, "w");
	CU_ASSERT_FATAL(file != NULL);
	fputs(text, file);
	fclose(file);
}

/* The first line that @pipeline prints. */
static const char *said_by(const char *pipeline)
{
	static char line[512];
	FILE *p = popen(pipeline, "r");

	line[0] = '\0';
	if (p && fgets(line, sizeof(line), p)) {
		line[strcspn(line, "\n")] = '\0';
	}
	if (p) {
		pclose(p);
	}
	return line;
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	CU_ASSERT_FATAL(clock_gettime(clock, &t) == 0);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool is_missing(const struct gclk_host *host, const char *name)
{
	const char *missing;
	unsigned i;

	for (i = 0; (missing = gclk_host_missing(host, i)); i++) {
		if (strcmp(missing, name) == 0) {
			return true;
		}
	}
	return false;
}

GCLK_TEST(host, names_are_those_of_other_programs)
{
	struct gclk_host h;
	struct gclk_error err;

	CU_ASSERT_FATAL(gclk_host_read(&h, 0, &err) == 0);
	CU_ASSERT_STRING_EQUAL(h.kernel_release, said_by("uname -r"));
	CU_ASSERT_STRING_EQUAL(h.hostname, said_by("uname -n"));
	CU_ASSERT_STRING_EQUAL(h.boot_id, said_by("cat /proc/sys/kernel/random/boot_id 2>&-"));
	CU_ASSERT_STRING_EQUAL(h.clocksource, said_by("cat " CLOCKSOURCE " 2>&-"));
	CU_ASSERT_STRING_EQUAL(h.cpu_model, said_by("sed -n 's/^model name[\t ]*: //p' "
						    "/proc/cpuinfo 2>&- | head -n 1"));
	GCLK_EQ(HAS(&h, boot_id), h.boot_id[0] != '\0');
	GCLK_EQ(gclk_record_validate(&gclk_host_record, &h, "host", &err), 0);
}

GCLK_TEST(host, flags_are_those_of_cpuinfo)
{
	static const struct {
		const char *word;
		uint32_t flag;
	} words[] = {
		{ "constant_tsc", GCLK_HOST_CONSTANT_TSC },
		{ "nonstop_tsc", GCLK_HOST_NONSTOP_TSC },
		{ "tsc_known_freq", GCLK_HOST_TSC_KNOWN_FREQ },
		{ "hypervisor", GCLK_HOST_HYPERVISOR },
	};
	struct gclk_host h;
	char pipeline[128];
	unsigned i;

	CU_ASSERT_FATAL(gclk_host_read(&h, 0, NULL) == 0);
	for (i = 0; i < GCLK_COUNT(words); i++) {
		snprintf(pipeline, sizeof(pipeline),
			 "grep '^flags' /proc/cpuinfo 2>&- | head -n 1 | grep -cw %s",
			 words[i].word);
		GCLK_EQ((h.flags & words[i].flag) != 0, atoi(said_by(pipeline)));
	}
	GCLK_EQ((h.flags & GCLK_HOST_KVM) != 0 || access("/dev/kvm", R_OK | W_OK) < 0, true);
}

GCLK_TEST(host, kernel_parameters)
{
	const char *path = "/sys/module/kvm/parameters/tsc_tolerance_ppm";
	struct gclk_host h;

	CU_ASSERT_FATAL(gclk_host_read(&h, 0, NULL) == 0);
	if (access(path, R_OK) < 0) {
		CU_ASSERT(is_missing(&h, "tsc_tolerance_ppm"));
		gclk_test_skip("no kvm module parameters on this machine");
		return;
	}
	GCLK_EQ(h.tsc_tolerance_ppm,
		atoi(said_by("cat /sys/module/kvm/parameters/tsc_tolerance_ppm")));
	GCLK_EQ(h.min_timer_period_us,
		atoi(said_by("cat /sys/module/kvm/parameters/min_timer_period_us")));
}

GCLK_TEST(host, discipline_is_the_kernels)
{
	struct timex t = { .modes = 0 };
	struct gclk_host h;

	CU_ASSERT_FATAL(gclk_host_read(&h, 0, NULL) == 0);
	if (adjtimex(&t) < 0) {
		CU_ASSERT(is_missing(&h, "ntp_status"));
		gclk_test_skip("adjtimex is not allowed here");
		return;
	}
	GCLK_EQ(h.ntp_status, t.status);
	GCLK_EQ((h.flags & GCLK_HOST_SYNCHRONISED) != 0, !(t.status & STA_UNSYNC));
	CU_ASSERT(h.ntp_maxerror_ns <= (uint64_t)t.maxerror * 1000);	/* it grows */
	GCLK_EQ(h.tai_offset_s,
		(clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME) + 500000000) / 1000000000);
}

GCLK_TEST(host, sample_lies_between_readings)
{
	struct gclk_host h = { 0 };
	struct gclk_error err;
	int64_t mono[2], raw[2], real[2], boot[2];

	mono[0] = clock_ns(CLOCK_MONOTONIC);
	raw[0] = clock_ns(CLOCK_MONOTONIC_RAW);
	real[0] = clock_ns(CLOCK_REALTIME);
	boot[0] = clock_ns(CLOCK_BOOTTIME);
	CU_ASSERT_FATAL(gclk_host_sample(&h, &err) == 0);
	mono[1] = clock_ns(CLOCK_MONOTONIC);
	raw[1] = clock_ns(CLOCK_MONOTONIC_RAW);
	real[1] = clock_ns(CLOCK_REALTIME);
	boot[1] = clock_ns(CLOCK_BOOTTIME);
	CU_ASSERT(mono[0] <= h.monotonic_ns && h.monotonic_ns <= mono[1]);
	CU_ASSERT(raw[0] <= h.raw_ns && h.raw_ns <= raw[1]);
	CU_ASSERT(real[0] <= h.realtime_ns && h.realtime_ns <= real[1]);
	CU_ASSERT(boot[0] <= h.boottime_ns && h.boottime_ns <= boot[1]);
	CU_ASSERT(h.sample_width_ns > 0);
	CU_ASSERT(h.sample_width_ns <= (uint64_t)(mono[1] - mono[0]) + 1);
	CU_ASSERT(!HAS(&h, hostname));		/* it opens nothing */
}

/*
 * Boottime minus monotonic does not change while the machine is awake, so two samples show
 * what the width is worth: each of the two readings lies within its bracket.
 */
GCLK_TEST(host, width_covers_the_spread)
{
	struct gclk_host a = { 0 }, b = { 0 };
	unsigned i, failures = 0;
	int64_t apart;

	for (i = 0; i < 200; i++) {
		CU_ASSERT_FATAL(gclk_host_sample(&a, NULL) == 0);
		CU_ASSERT_FATAL(gclk_host_sample(&b, NULL) == 0);
		apart = (b.boottime_ns - b.monotonic_ns) - (a.boottime_ns - a.monotonic_ns);
		failures += (uint64_t)llabs(apart) > a.sample_width_ns + b.sample_width_ns;
	}
	GCLK_EQ(failures, 0);
}

#if HAVE_TSC
/* TSC and wall clock, read without the library: the closest of many, on one processor. */
static void read_pair(uint64_t *ticks, int64_t *real_ns, uint64_t *width_ticks)
{
	unsigned i;

	*width_ticks = UINT64_MAX;
	for (i = 0; i < 200; i++) {
		uint64_t before, after;
		int64_t now;

		before = __rdtsc();
		_mm_lfence();
		now = clock_ns(CLOCK_REALTIME);
		_mm_lfence();
		after = __rdtsc();
		if (after - before < *width_ticks) {
			*ticks = before;
			*width_ticks = after - before;
			*real_ns = now;
		}
	}
}

/* |claimed - measured here| within what both may be off by. */
static void check_rate(const struct gclk_host *h)
{
	uint64_t ticks[2] = { 0 }, width[2], slack_ticks;
	int64_t real[2] = { 0 };
	gclk_u128 want, have, apart;
	cpu_set_t all, one;

	CU_ASSERT_FATAL(sched_getaffinity(0, sizeof(all), &all) == 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	read_pair(&ticks[0], &real[0], &width[0]);
	usleep(300000);
	read_pair(&ticks[1], &real[1], &width[1]);
	sched_setaffinity(0, sizeof(all), &all);

	/* in units of 1e-9 tick */
	have = (gclk_u128)(ticks[1] - ticks[0]) * 1000000000;
	want = (gclk_u128)(uint64_t)(real[1] - real[0]) * h->tsc_hz /
	       (HAS(h, tsc_hz_den) ? h->tsc_hz_den : 1);
	apart = have > want ? have - want : want - have;
	slack_ticks = width[0] + width[1] + 2;
	CU_ASSERT(apart <= (gclk_u128)slack_ticks * 1000000000 +
			   want / 1000000000 * h->tsc_hz_ppb);
}
#endif

GCLK_TEST(host, frequency_is_within_its_ppb)
{
#if HAVE_TSC
	struct gclk_host h;

	CU_ASSERT_FATAL(gclk_host_read(&h, 100000000, NULL) == 0);
	CU_ASSERT_FATAL(HAS(&h, tsc_hz) && HAS(&h, tsc_hz_ppb) && HAS(&h, tsc_hz_basis));
	check_rate(&h);
#else
	gclk_test_skip("no TSC on this architecture");
#endif
}

/* Without any file: the same frequency, by measuring, and no better than that allows. */
GCLK_TEST(host, measured_frequency_is_within_its_ppb)
{
#if HAVE_TSC
	struct gclk_host h;

	tree_begin();
	CU_ASSERT(gclk_host_read_at(root, &h, 100000000, NULL) == 0);
	tree_end();
	GCLK_EQ(h.tsc_hz_basis, GCLK_TSC_MEASURED);
	check_rate(&h);
	/* two brackets of 20 ns or more in 0.1 s */
	CU_ASSERT(h.tsc_hz_ppb >= 400);
#else
	gclk_test_skip("no TSC on this architecture");
#endif
}

GCLK_TEST(host, empty_root_leaves_fields_absent)
{
	static const char *const absent[] = {
		"boot_id", "cpu_model", "clocksource", "tsc_khz_kernel", "tsc_tolerance_ppm",
		"min_timer_period_us", "cap_adjust_clock", "cap_apic_bus_cycles", "tsc_hz",
		"tsc_hz_ppb", "tsc_hz_den", "tsc_ratio_max",
	};
	struct gclk_host h;
	unsigned i;

	tree_begin();
	CU_ASSERT(gclk_host_read_at(root, &h, 0, NULL) == 0);
	tree_end();
	for (i = 0; i < GCLK_COUNT(absent); i++) {
		CU_ASSERT(is_missing(&h, absent[i]));
	}
	CU_ASSERT(HAS(&h, realtime_ns) && HAS(&h, sample_width_ns));
	CU_ASSERT(HAS(&h, kernel_release));	/* uname needs no file */
	GCLK_EQ(h.flags & (GCLK_HOST_KVM | GCLK_HOST_CONSTANT_TSC | GCLK_HOST_HYPERVISOR), 0);
	GCLK_EQ(h.tsc_hz, 0);
}

GCLK_TEST(host, other_machines_files)
{
	struct gclk_host h;

	tree_begin();
	put("/proc/cpuinfo",
	    "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\n"
	    "model name\t: AMD EPYC 7003  \nflags\t\t: fpu nonstop_tsc xconstant_tsc tsc\n"
	    "\nprocessor\t: 1\nmodel name\t: another\nflags\t\t: constant_tsc hypervisor\n");
	put("/proc/sys/kernel/random/boot_id", "01234567-89ab-cdef-0123-456789abcdef\n");
	put(CLOCKSOURCE, "hpet\n");
	put("/sys/module/kvm/parameters/tsc_tolerance_ppm", "0\n");
	put("/sys/module/kvm/parameters/min_timer_period_us", "4294967295\n");
	CU_ASSERT(gclk_host_read_at(root, &h, 0, NULL) == 0);
	tree_end();
	CU_ASSERT_STRING_EQUAL(h.cpu_model, "AMD EPYC 7003");
	CU_ASSERT_STRING_EQUAL(h.boot_id, "01234567-89ab-cdef-0123-456789abcdef");
	CU_ASSERT_STRING_EQUAL(h.clocksource, "hpet");
	GCLK_EQ(h.flags & ~GCLK_HOST_SYNCHRONISED, GCLK_HOST_NONSTOP_TSC);
	CU_ASSERT(HAS(&h, tsc_tolerance_ppm));
	GCLK_EQ(h.tsc_tolerance_ppm, 0);
	GCLK_EQ(h.min_timer_period_us, UINT32_MAX);
}

/* Whatever stands in the files, a field is either right or absent. */
GCLK_TEST(host, malformed_files_are_absent_fields)
{
	static const char *const bad[] = {
		"", "\n", "-1\n", "4294967296\n", "12 \n", "0x10\n", "99999999999999999999999\n",
		"Y\n", "1000001\n", "250\n250\n",
	};
	struct gclk_host h;
	unsigned i;

	tree_begin();
	put("/proc/cpuinfo", "flags\nmodel name\nmodel name\t:\nvendor_id:\n: \n");
	put("/proc/sys/kernel/random/boot_id", "0123\n");
	put(CLOCKSOURCE, "\n");
	for (i = 0; i < GCLK_COUNT(bad); i++) {
		put("/sys/module/kvm/parameters/tsc_tolerance_ppm", bad[i]);
		CU_ASSERT(gclk_host_read_at(root, &h, 0, NULL) == 0);
		if (strcmp(bad[i], "250\n250\n") == 0) {	/* a first line is a line */
			GCLK_EQ(h.tsc_tolerance_ppm, 250);
			continue;
		}
		CU_ASSERT(!HAS(&h, tsc_tolerance_ppm));
	}
	CU_ASSERT(!HAS(&h, boot_id) && !HAS(&h, clocksource) && !HAS(&h, cpu_model));
	tree_end();
}

/* A model name longer than its field is cut, and still a string. */
GCLK_TEST(host, long_names_are_cut)
{
	char text[400];
	struct gclk_host h;

	snprintf(text, sizeof(text), "model name\t: %0300d\n", 7);
	tree_begin();
	put("/proc/cpuinfo", text);
	put(CLOCKSOURCE, text + 13);
	CU_ASSERT(gclk_host_read_at(root, &h, 0, NULL) == 0);
	tree_end();
	GCLK_EQ(strlen(h.cpu_model), sizeof(h.cpu_model) - 1);
	GCLK_EQ(strlen(h.clocksource), sizeof(h.clocksource) - 1);
}

GCLK_TEST(host, kvm_tells_khz_and_caps)
{
	struct gclk_host h;

	CU_ASSERT_FATAL(gclk_host_read(&h, 0, NULL) == 0);
	if (!(h.flags & GCLK_HOST_KVM)) {
		CU_ASSERT(is_missing(&h, "tsc_khz_kernel"));
		gclk_test_skip("/dev/kvm is missing or may not be opened");
		return;
	}
	CU_ASSERT(HAS(&h, cap_adjust_clock) && HAS(&h, cap_vm_tsc_control));
	GCLK_EQ((h.flags & GCLK_HOST_TSC_SCALING) != 0, h.cap_tsc_control > 0);
	GCLK_EQ(HAS(&h, tsc_ratio_frac_bits), h.cap_tsc_control > 0);
	if (HAS(&h, tsc_khz_kernel) && HAS(&h, tsc_hz)) {
		/* a kHz of rounding and 600 ppm of discipline apart, at the most */
		CU_ASSERT(llabs((long long)(h.tsc_hz / (h.tsc_hz_den ? h.tsc_hz_den : 1)) -
				(long long)h.tsc_khz_kernel * 1000) <
			  (long long)h.tsc_khz_kernel);
	}
}

/* Every descriptor that a reading opened is closed again. */
GCLK_TEST(host, nothing_stays_open)
{
	struct gclk_host h;
	int before, after;

	before = dup(0);
	close(before);
	CU_ASSERT(gclk_host_read(&h, 0, NULL) == 0);
	after = dup(0);
	close(after);
	GCLK_EQ(after, before);
}

GCLK_TEST(host, missing_ends)
{
	struct gclk_host h = { 0 };
	unsigned n = 0;

	while (gclk_host_missing(&h, n)) {
		n++;
	}
	GCLK_EQ(n, gclk_host_n_fields);
	GCLK_SET(host, &h, cap_tsc_control, 0);		/* no scaling: no multiplier either */
	CU_ASSERT(!is_missing(&h, "tsc_ratio_max") && !is_missing(&h, "tsc_ratio_frac_bits"));
	CU_ASSERT(gclk_host_missing(&h, UINT32_MAX) == NULL);
}
