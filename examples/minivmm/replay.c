/* SPDX-License-Identifier: MIT */
/*
 * Ticks that the guest has missed, delivered while it runs, and what a person should know
 * of a plan.
 *
 * The engine in the plan says when something is due, gclk_kvm_inject() raises interrupts.
 * What they leave to a VMM is to wait, to say when the guest has read register C of the RTC
 * and which ticks of the present vanished in those of the past (devices.c), and to stop the
 * vCPUs for ticks that are edges.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "minivmm.h"

#define NS_PER_S INT64_C(1000000000)

int64_t host_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t replay_due(struct vm *vm)
{
	int64_t due = GCLK_REPLAY_NEVER;

	pthread_mutex_lock(&vm->lock);
	if (!gclk_replay_due(&vm->plan->replay, &due)) {
		due = GCLK_REPLAY_NEVER;
	}
	pthread_mutex_unlock(&vm->lock);
	return due;
}

/* With the lock, since the RTC and the HPET change; their lines may be up afterwards. */
static int inject(struct vm *vm, bool vcpus_stand)
{
	struct gclk_error error = { 0 };
	int r;

	pthread_mutex_lock(&vm->lock);
	r = gclk_kvm_inject(&vm->clocks, &vm->plan->replay, host_now(), vcpus_stand, &error);
	devices_injected(vm);
	if (vm->plan->replay.phase > GCLK_REPLAY_RUNNING) {
		report_replay(&vm->plan->replay);
	}
	pthread_mutex_unlock(&vm->lock);
	if (r < 0) {
		die("replay: %s: %s", error.where, error.message);
	}
	return r;
}

void replay_go_on(struct vm *vm)
{
	if (inject(vm, false) == GCLK_KVM_STAND) {
		vcpus_stop(vm);
		inject(vm, true);
		vcpus_go(vm);
	}
}

void report_replay(const struct gclk_replay *replay)
{
	fprintf(stderr, "minivmm: replay: %s\n", gclk_replay_phase_names[replay->phase]);
	for (uint32_t i = 0; i < replay->n_timers; i++) {
		const struct gclk_replay_timer *t = &replay->timers[i];

		fprintf(stderr, "minivmm: replay: %s %" PRIu32 ": owed %" PRIu32
			", delivered %" PRIu32 ", remaining %" PRIu32 ", dropped %" PRIu32
			", in vain %" PRIu64 "\n",
			gclk_tick_timer_names[t->timer], t->index, t->owed, t->delivered,
			t->remaining, t->dropped, t->coalesced);
	}
}

void report_plan(const struct gclk_plan *plan)
{
	fprintf(stderr, "minivmm: plan: gap %" PRId64 " ns, counted %" PRId64 " ns\n", plan->gap_ns,
		plan->counted_ns);
	for (uint32_t i = 0; i < plan->n_ledger; i++) {
		const struct gclk_ledger_entry *e = &plan->ledger[i];

		fprintf(stderr, "minivmm: ledger: %s: owed %" PRIu64 " + missed %" PRIu64
			" = replayed %" PRIu64 " + merged %" PRIu64 " + dropped %" PRIu64 " (%s)\n",
			e->timer, e->owed_before, e->missed, e->replayed, e->merged, e->dropped,
			gclk_tick_policy_names[e->policy]);
	}
	for (uint32_t i = 0; i < plan->n_bounds; i++) {
		fprintf(stderr, "minivmm: bound: %s: %" PRIu64 " ns\n", plan->bounds[i].clock,
			plan->bounds[i].bound_ns);
	}
	for (unsigned i = 0; i < plan->findings.n; i++) {
		const struct gclk_finding *f = &plan->findings.items[i];

		fprintf(stderr, "minivmm: %s: %s: %s: %s\n", gclk_severity_names[f->severity],
			f->info->id, *f->clock ? f->clock : "guest", f->message);
	}
}
