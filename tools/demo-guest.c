/* SPDX-License-Identifier: MIT */
/*
 * /init of the demonstration's guest: twenty times a second, what four clocks of this Linux
 * say. Each line is preceded by a '@' that leaves the moment the clocks have been read.
 *
 *	@C TSC-ticks HPET-ticks CLOCK_MONOTONIC-ns RTC-seconds ns-since-the-RTC's-last-edge
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define WAKE_NS 5000000
#define WAKES_PER_LINE 10
#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

struct rtc {
	uint64_t seconds;
	uint64_t edge_ns;		/* CLOCK_MONOTONIC at the last change seen */
};

static volatile uint64_t *hpet;		/* registers, or NULL */

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static unsigned rtc_register(unsigned index)
{
	outb((unsigned char)index, 0x70);
	return inb(0x71);
}

static unsigned rtc_number(unsigned index)
{
	unsigned value = rtc_register(index);

	return rtc_register(11) & 4 ? value : (value >> 4) * 10 + (value & 15);
}

/* The time of day by the RTC; the previous one while it is being updated. */
static void look_at_rtc(struct rtc *rtc)
{
	struct tm tm = { 0 };
	uint64_t seconds;

	if (rtc_register(10) & 0x80) {
		return;
	}
	tm.tm_sec = (int)rtc_number(0);
	tm.tm_min = (int)rtc_number(2);
	tm.tm_hour = (int)rtc_number(4);
	tm.tm_mday = (int)rtc_number(7);
	tm.tm_mon = (int)rtc_number(8) - 1;
	tm.tm_year = (int)rtc_number(9) + 100;
	seconds = (uint64_t)timegm(&tm);
	if (rtc_number(0) != (unsigned)tm.tm_sec) {
		return;			/* it moved on meanwhile */
	}
	if (seconds != rtc->seconds) {
		rtc->seconds = seconds;
		rtc->edge_ns = monotonic_ns();
	}
}

static void map_hpet(void)
{
	int fd = open("/dev/hpet", O_RDONLY);
	void *registers;

	if (fd < 0) {
		return;
	}
	registers = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	hpet = registers == MAP_FAILED ? NULL : registers;
}

static void say_who(int out)
{
	char text[256], source[64] = "unknown";
	struct utsname names;
	int fd = open(CLOCKSOURCE, O_RDONLY), n = 0;

	if (fd >= 0) {
		n = (int)read(fd, source, sizeof(source) - 1);
		close(fd);
	}
	source[n > 0 ? n : 0] = '\0';
	source[strcspn(source, "\n")] = '\0';
	uname(&names);
	n = snprintf(text, sizeof(text), "\n@L %s %s\n", names.release, source);
	(void)!write(out, text, (size_t)n);
}

static void say_clocks(int out, const struct rtc *rtc)
{
	char text[256];
	uint64_t counter = hpet ? hpet[0xf0 / 8] : 0;
	uint64_t now = monotonic_ns();
	uint64_t ticks = __rdtsc();
	int n;

	(void)!write(out, "@", 1);
	n = snprintf(text, sizeof(text), "C %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
		     " %" PRIu64 "\n", ticks, counter, now, rtc->seconds, now - rtc->edge_ns);
	(void)!write(out, text, (size_t)n);
}

static int open_serial(void)
{
	int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	struct termios t;

	if (fd >= 0 && tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

int main(void)
{
	struct timespec wake = { .tv_nsec = WAKE_NS };
	struct rtc rtc = { 0 };
	unsigned n = 0;
	int out;

	mount("none", "/dev", "devtmpfs", 0, NULL);
	mkdir("/sys", 0755);
	mount("none", "/sys", "sysfs", 0, NULL);
	out = open_serial();
	if (out < 0 || ioperm(0x70, 2, 1) < 0) {
		reboot(RB_POWER_OFF);
		return 1;
	}
	map_hpet();
	say_who(out);
	for (;;) {
		nanosleep(&wake, NULL);
		look_at_rtc(&rtc);
		if (++n % WAKES_PER_LINE == 0) {
			say_clocks(out, &rtc);
		}
	}
}
