/* SPDX-License-Identifier: MIT */
/*
 * What the KVM backend costs beyond the ioctls that it makes: capture and restore against
 * the same calls, issued bare, in turn; on this machine's /dev/kvm. Each line: what, vCPUs,
 * median of both in us, ratio, limit. Allocations between the last run and the first are
 * counted and must be none. Exit status 1 if a limit is passed, 77 without /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <guestclock/guestclock.h>

#include "kvm/abi.h"
#include "kvm/sys.h"

#define VCPUS_MAX 64
#define CALLS_MAX 2000
#define ARGUMENT_MAX 1088		/* a LAPIC's page is the largest */
#define LIMIT_PERMILLE 1100
#define LIMIT_ADDED_NS 50000		/* for one vCPU */

/* The allocator, counted. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);
static unsigned long n_allocations;

void *malloc(size_t size)
{
	n_allocations++;
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	n_allocations++;
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	n_allocations++;
	return __libc_realloc(p, size);
}

void free(void *p)
{
	__libc_free(p);
}

/* The calls of one run, as they were made. */
static struct call {
	int fd;
	unsigned long request, value;
	uint8_t bytes[ARGUMENT_MAX];
	uint64_t attribute;
} calls[CALLS_MAX];
static unsigned n_calls, n_made;
static int recording;

static int takes_number(unsigned long request)
{
	return request == KVM_CHECK_EXTENSION || request == KVM_GET_TSC_KHZ ||
	       request == KVM_SET_TSC_KHZ || request == KVM_KVMCLOCK_CTRL;
}

static size_t size_of(unsigned long request, const void *arg)
{
	if (request == KVM_GET_MSRS || request == KVM_SET_MSRS) {
		return sizeof(struct kvm_msrs) + ((const struct kvm_msrs *)arg)->nmsrs *
							 sizeof(struct kvm_msr_entry);
	}
	if (request == KVM_REINJECT_CONTROL) {
		return sizeof(struct kvm_reinject_control);	/* its number does not tell */
	}
	return request >> 16 & 0x3fff;
}

static void record(int fd, unsigned long request, unsigned long arg)
{
	struct call *call = &calls[n_calls++];
	const void *p = (const void *)(uintptr_t)arg;

	call->fd = fd;
	call->request = request;
	call->value = arg;
	if (takes_number(request)) {
		return;
	}
	memcpy(call->bytes, p, size_of(request, p));
	call->value = (unsigned long)(uintptr_t)call->bytes;
	if (request == KVM_GET_DEVICE_ATTR || request == KVM_SET_DEVICE_ATTR) {
		struct kvm_device_attr attr;

		memcpy(&attr, call->bytes, sizeof(attr));
		memcpy(&call->attribute, (const void *)(uintptr_t)attr.addr, 8);
		attr.addr = (uint64_t)(uintptr_t)&call->attribute;
		memcpy(call->bytes, &attr, sizeof(attr));
	}
}

static int counted_ioctl(void *context, int fd, unsigned long request, unsigned long arg)
{
	(void)context;
	n_made++;
	if (recording && n_calls < CALLS_MAX) {
		record(fd, request, arg);
	}
	return ioctl(fd, request, arg);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t bare(void)
{
	int64_t began = now_ns();

	for (unsigned i = 0; i < n_calls; i++) {
		ioctl(calls[i].fd, calls[i].request, calls[i].value);
	}
	return now_ns() - began;
}

static int by_size(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int64_t median(int64_t *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_size);
	return values[n / 2];
}

struct machine {
	int kvm, fds[VCPUS_MAX];
	struct gclk_kvm k;
	struct gclk_kvm_sys sys;
	struct gclk_host host;
	struct gclk_state *st;
	struct gclk_plan *plan;
	struct gclk_policy policy;
	struct gclk_disagreement disagreement;
	struct gclk_error error;
};

static int make(struct machine *m, uint32_t n)
{
	struct kvm_pit_config pit = { .flags = 0 };
	int vm = ioctl(m->kvm, KVM_CREATE_VM, 0);

	if (vm < 0 || ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
	    ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_PIT2, &pit) < 0) {
		return -1;
	}
	for (uint32_t i = 0; i < n; i++) {
		m->fds[i] = ioctl(vm, KVM_CREATE_VCPU, i);
		if (m->fds[i] < 0) {
			return -1;
		}
	}
	m->sys = gclk_kvm_sys_real;
	m->sys.ioctl = counted_ioctl;
	m->k = (struct gclk_kvm){ .vm = vm, .vcpus = m->fds, .n_vcpus = n, .irqchip = 1, .pit = 1,
				  .sys = &m->sys };
	m->st = gclk_state_new(n);
	m->plan = gclk_plan_new(n);
	return 0;
}

static void give_back(struct machine *m)
{
	for (uint32_t i = 0; i < m->k.n_vcpus; i++) {
		close(m->fds[i]);
	}
	close(m->k.vm);
	gclk_state_free(m->st);
	gclk_plan_free(m->plan);
}

static int capture(struct machine *m)
{
	return gclk_kvm_capture(&m->k, &m->host, m->st, &m->error);
}

static int restore(struct machine *m)
{
	return gclk_kvm_restore(&m->k, m->st, &m->host, &m->disagreement, &m->policy, m->plan,
				&m->error);
}

static int prepare(struct machine *m)
{
	struct gclk_when when;
	int r = gclk_host_sample(&m->host, &m->error);

	gclk_kvm_when(m->st, NULL, &m->host, &when);
	r = r ? r : gclk_plan(m->st, &gclk_kvm_carrier, &m->host, &when, &m->disagreement,
			      &m->policy, m->plan, &m->error);
	return r ? r : gclk_kvm_prepare(&m->k, m->plan, &m->error);
}

/*
 * With the library and bare, in turn; whether a limit was passed. A run that needed another
 * number of calls than the one that was recorded, since the kernel's clock was not hit at
 * once, has nothing to be compared with.
 */
static int compare(struct machine *m, const char *what, int (*run)(struct machine *),
		   int (*before)(struct machine *), unsigned times)
{
	int64_t with[101], without[101], a, b, began;
	unsigned n = 0;
	int passed;

	n_allocations = 0;
	for (unsigned i = 0; i < times; i++) {
		if (before && before(m) < 0) {
			break;
		}
		recording = i == 0;
		n_calls = recording ? 0 : n_calls;
		n_made = 0;
		began = now_ns();
		if (run(m) < 0) {
			break;
		}
		with[n] = now_ns() - began;
		recording = 0;
		without[n] = bare();
		n += n_made == n_calls;
		if (i + 1 == times) {
			a = median(with, n);
			b = median(without, n);
			passed = a * 1000 > b * LIMIT_PERMILLE &&
				 (m->k.n_vcpus > 1 || a - b > LIMIT_ADDED_NS);
			printf("%-8s %3u vCPUs: %9.1f us, %4u ioctls bare %9.1f us, ratio %.3f "
			       "(limit 1.100 or, for one, 50 us), %lu allocations\n", what,
			       m->k.n_vcpus, (double)a / 1000, n_calls, (double)b / 1000,
			       (double)a / (double)b, n_allocations);
			return passed || n_allocations;
		}
	}
	printf("%s: %s: %s\n", what, m->error.where, m->error.message);
	return 1;
}

int main(void)
{
	static const char *const force[] = { "tsc-not-honoured", NULL };
	static const uint32_t sizes[] = { 1, VCPUS_MAX };
	struct machine m = { .kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC),
			     .policy = gclk_policy_default };
	int failed = 0;

	if (m.kvm < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	m.policy.force = force;
	if (gclk_host_read(&m.host, 0, &m.error) < 0) {
		return 1;
	}
	for (unsigned i = 0; i < 2; i++) {
		if (make(&m, sizes[i]) < 0 || capture(&m) < 0) {
			printf("failed: %s, %s\n", strerror(errno), m.error.message);
			return 1;
		}
		failed |= compare(&m, "capture", capture, NULL, i ? 21 : 101);
		failed |= compare(&m, "restore", restore, prepare, i ? 21 : 101);
		give_back(&m);
	}
	return failed;
}
