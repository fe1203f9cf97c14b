/* SPDX-License-Identifier: MIT */
/* Threads of this process stand in for a QEMU's, and the kernel counts how often they ran. */
#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/virt/vcpus.h"
#include "migrator/wall.h"

struct processor {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool run, over;
	const char *name;
};

static void *processor(void *arg)
{
	struct processor *p = arg;

	prctl(PR_SET_NAME, p->name);
	pthread_mutex_lock(&p->lock);
	while (!p->over) {
		p->run = false;
		pthread_cond_wait(&p->wake, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
}

static void begin(struct processor *p, const char *name)
{
	*p = (struct processor){ .lock = PTHREAD_MUTEX_INITIALIZER,
				 .wake = PTHREAD_COND_INITIALIZER, .run = true, .name = name };
	CU_ASSERT_EQUAL_FATAL(pthread_create(&p->thread, NULL, processor, p), 0);
	for (bool stands = false; !stands;) {
		nap();
		pthread_mutex_lock(&p->lock);
		stands = !p->run;
		pthread_mutex_unlock(&p->lock);
	}
	nap();	/* asleep, too */
}

static void wake(struct processor *p, bool over)
{
	pthread_mutex_lock(&p->lock);
	p->run = true;
	p->over = over;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

static void end(struct processor *p)
{
	wake(p, true);
	pthread_join(p->thread, NULL);
}

static void *begin_watch(void *root)
{
	nanosleep(&(struct timespec){ 0, 1000000 }, NULL);	/* until it waits */
	return vcpus_watch(root, getpid());
}

/* The main thread must sleep: here it waits for the one that begins the watch. */
static struct vcpus *watch(const char *root)
{
	struct vcpus *vcpus = NULL;
	pthread_t thread;

	for (unsigned i = 0; i < 20 && !vcpus; i++) {
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, begin_watch,
						     (void *)(uintptr_t)root), 0);
		pthread_join(thread, (void **)&vcpus);
	}
	return vcpus;
}

/* Seen to run within the time since @before_ns, once it was woken. */
static void is_seen(struct processor *p, const char *name)
{
	struct vcpus *vcpus;
	int64_t before_ns, ran_ns;

	begin(p, name);
	vcpus = watch("");
	CU_ASSERT_PTR_NOT_NULL_FATAL(vcpus);
	nap();
	before_ns = boot_clock_ns();
	wake(p, false);
	for (unsigned i = 0; i < 10; i++) {	/* on a busy machine */
		nap();
	}
	ran_ns = vcpus_ran(vcpus);
	CU_ASSERT(ran_ns >= before_ns);
	CU_ASSERT(ran_ns <= boot_clock_ns());
	end(p);
}

GCLK_TEST(vcpus, one_that_runs_is_seen)
{
	struct processor p;

	is_seen(&p, "CPU 0/KVM");
	is_seen(&p, "CPU 3/TCG");
	is_seen(&p, "ALL CPUs/TCG");
}

GCLK_TEST(vcpus, one_that_stands_is_not)
{
	struct processor p;
	struct vcpus *vcpus;

	begin(&p, "CPU 0/TCG");
	vcpus = watch("");
	CU_ASSERT_PTR_NOT_NULL_FATAL(vcpus);
	nap();
	CU_ASSERT_EQUAL(vcpus_ran(vcpus), 0);
	/* while the main thread is awake, as it is here, more may be */
	CU_ASSERT_PTR_NULL(vcpus_watch("", getpid()));
	end(&p);
}

GCLK_TEST(vcpus, other_threads_are_none)
{
	struct processor p;

	begin(&p, "worker");
	CU_ASSERT_PTR_NULL(watch(""));
	CU_ASSERT_PTR_NULL(watch("/nowhere"));
	CU_ASSERT_PTR_NULL(vcpus_watch("", 0));
	CU_ASSERT_PTR_NULL(vcpus_watch("", -1));
	CU_ASSERT_EQUAL(vcpus_ran(NULL), 0);
	end(&p);
}
