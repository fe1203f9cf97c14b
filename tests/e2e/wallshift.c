/* SPDX-License-Identifier: MIT */
/*
 * A host whose wall clock is wrong: preloaded into every process of it, this moves
 * CLOCK_REALTIME (and what goes with it) by the number of ns in a file, for all of them
 * alike. Monotonic clocks stay.
 *
 * The file is named by GCLK_WALLSHIFT, or is /run/wallshift: libvirtd hands LD_PRELOAD
 * on to QEMU, and nothing else of its environment. It holds one native int64 and stays
 * mapped, so writing to it is a step of that host's wall clock.
 *
 * Of a deadline many calls do not say by which clock: one after 2001 is a wall clock's.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)
#define WALL_CLOCK_S 1000000000	/* September 2001; no monotonic clock gets there */
#define EXPORTED __attribute__((visibility("default")))

static const volatile int64_t *shift_ns;	/* NULL: not shifted */

__attribute__((constructor)) static void map_shift(void)
{
	const char *path = getenv("GCLK_WALLSHIFT");
	int fd = open(path ? path : "/run/wallshift", O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return;
	}
	void *p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED) {
		shift_ns = p;
	}
	close(fd);
}

static int64_t shift(void)
{
	return shift_ns ? *shift_ns : 0;
}

static struct timespec moved(struct timespec t, int64_t by_ns)
{
	int64_t ns = t.tv_nsec + by_ns % NS_PER_S;

	t.tv_sec += by_ns / NS_PER_S + (ns >= NS_PER_S) - (ns < 0);
	t.tv_nsec = ns + (ns < 0 ? NS_PER_S : ns >= NS_PER_S ? -NS_PER_S : 0);
	return t;
}

/* A deadline in this host's time, in the time that the kernel keeps. */
static const struct timespec *kernels(const struct timespec *t, struct timespec *space)
{
	if (!t || t->tv_sec < WALL_CLOCK_S) {
		return t;
	}
	*space = moved(*t, -shift());
	return space;
}

static int is_wall(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ||
	       clock == CLOCK_TAI || clock == CLOCK_REALTIME_ALARM;
}

/* The function that this one stands before. */
#define NEXT(name, found)                                                                \
	static __typeof__(&name) next;                                                   \
	if (!next) {                                                                     \
		next = (__typeof__(&name))(found);                                       \
	}

/* ---- reading ---- */

EXPORTED int clock_gettime(clockid_t clock, struct timespec *ret)
{
	static __typeof__(&clock_gettime) next;
	static __thread int looking;

	if (!next && !looking) {
		looking = 1;	/* dlsym() may ask for the time itself */
		next = (__typeof__(&clock_gettime))dlsym(RTLD_NEXT, "clock_gettime");
		looking = 0;
	}
	int r = next ? next(clock, ret) : (int)syscall(SYS_clock_gettime, clock, ret);

	if (r == 0 && is_wall(clock)) {
		*ret = moved(*ret, shift());
	}
	return r;
}

EXPORTED int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
	struct timespec t;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &t) < 0) {
		return -1;
	}
	*ret = (struct timeval){ .tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000 };
	return 0;
}

EXPORTED time_t time(time_t *ret)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	if (ret) {
		*ret = t.tv_sec;
	}
	return t.tv_sec;
}

EXPORTED int timespec_get(struct timespec *ret, int base)
{
	return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, ret) == 0 ? base : 0;
}

/* The field `time` is read alone: nobody here sets the clock. */
static int shifted_timex(int r, struct timex *t)
{
	if (r >= 0) {
		int unit = t->status & STA_NANO ? 1 : 1000;
		struct timespec now = { .tv_sec = t->time.tv_sec,
					.tv_nsec = t->time.tv_usec * unit };

		now = moved(now, shift());
		t->time = (struct timeval){ .tv_sec = now.tv_sec,
					    .tv_usec = now.tv_nsec / unit };
	}
	return r;
}

EXPORTED int adjtimex(struct timex *t)
{
	return shifted_timex((int)syscall(SYS_adjtimex, t), t);
}

EXPORTED int ntp_adjtime(struct timex *t)
{
	return adjtimex(t);
}

EXPORTED int clock_adjtime(clockid_t clock, struct timex *t)
{
	int r = (int)syscall(SYS_clock_adjtime, clock, t);

	return is_wall(clock) ? shifted_timex(r, t) : r;
}

/* ---- waiting ---- */

EXPORTED int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t,
			     struct timespec *rest)
{
	struct timespec space;

	NEXT(clock_nanosleep, dlsym(RTLD_NEXT, "clock_nanosleep"))
	return next(clock, flags,
		    flags & TIMER_ABSTIME && is_wall(clock) ? kernels(t, &space) : t, rest);
}

EXPORTED int pthread_cond_timedwait(pthread_cond_t *restrict cond,
				    pthread_mutex_t *restrict mutex,
				    const struct timespec *restrict t)
{
	struct timespec space;

	/* dlsym() would find the one that was there before NPTL */
	NEXT(pthread_cond_timedwait,
	     dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2"))
	return next(cond, mutex, kernels(t, &space));
}

EXPORTED int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex,
				     const struct timespec *restrict t)
{
	struct timespec space;

	NEXT(pthread_mutex_timedlock, dlsym(RTLD_NEXT, "pthread_mutex_timedlock"))
	return next(mutex, kernels(t, &space));
}

EXPORTED int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict t)
{
	struct timespec space;

	NEXT(sem_timedwait, dlsym(RTLD_NEXT, "sem_timedwait"))
	return next(sem, kernels(t, &space));
}

EXPORTED int timerfd_settime(int fd, int flags, const struct itimerspec *value,
			     struct itimerspec *old)
{
	struct itimerspec mine = *value;
	struct timespec space;

	NEXT(timerfd_settime, dlsym(RTLD_NEXT, "timerfd_settime"))
	if (flags & TFD_TIMER_ABSTIME) {
		mine.it_value = *kernels(&value->it_value, &space);
	}
	return next(fd, flags, &mine, old);
}
