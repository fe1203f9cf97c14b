/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include "migrator/urgent.h"

void urgent(bool yes)
{
	struct sched_param param = { .sched_priority = yes };

	prctl(PR_SET_TIMERSLACK, yes);
	pthread_setschedparam(pthread_self(), yes ? SCHED_RR : SCHED_OTHER, &param);
}
