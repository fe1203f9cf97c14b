/* SPDX-License-Identifier: MIT */
/*
 * What was written to a guest's clocks, compared with what can be read of them from outside
 * once it runs (R7): the kernel's debugfs shows the TSCs of its machines; the hypervisor's
 * monitor, for those who let it be asked, the RTC, the HPET's counter and the guest's own
 * clock page. What nobody shows is reported as unverified, and why.
 *
 *	proof_take(&proof, plan->state, carrier, &host, &plan->when);	with the plan
 *	... the guest runs ...
 *	proof_read(&proof, "", pid, ask, ctx, &move);
 *	proof_free(&proof);
 */
#ifndef GCLK_MIGRATOR_PROOF_H
#define GCLK_MIGRATOR_PROOF_H

#include <stdbool.h>
#include <sys/types.h>

#include "migrator/move.h"

struct proof_tsc {
	uint32_t vcpu;
	uint64_t ticks; /* at the load */
	uint64_t hz, hz_den;
};

/* What a plan has put where. Nothing of the plan is needed any more. */
struct proof {
	bool taken;
	uint8_t accelerator;
	struct gclk_host host; /* who loads it, with a sample of its clocks */
	int64_t load_ns, run_ns;
	uint32_t n_tsc;
	struct proof_tsc *tsc; /* NULL: none */
	uint8_t starts[GCLK_N_CLOCKS]; /* enum gclk_carrier_start */
	uint64_t page;	       /* where the first vCPU's clock page is; 0: nowhere */
	uint64_t kvmclock_ns;  /* at the resume */
	int64_t axis_ns;       /* the shared axis at the resume */
	struct gclk_rtc rtc;
	bool has_hpet;	       /* and its counter runs */
	uint32_t hpet_period_fs;
	int64_t hpet_offset_ns; /* to the shared axis */
};

/* Replaces what @proof held; begin with one that is all zeros. */
void proof_take(struct proof *proof, const struct gclk_state *state,
		const struct gclk_carrier *carrier, const struct gclk_host *host,
		const struct gclk_when *when);

/**
 * proof_ask - a question to the hypervisor's monitor
 * @human:	in the language for people ("xp /1wx 0"), else in QMP's
 * @ret:	the answer, malloc()ed: QMP's object, or the text
 */
typedef int (*proof_ask)(void *ctx, const char *command, bool human, char **ret,
			 struct gclk_error *reterr);

/**
 * proof_read() - read what can be read; each clock of @move gets its proof
 * @root:	"" for the real files, a directory in tests
 * @pid:	whose machine it is; <= 0: not known
 * @ask:	NULL: the monitor must not be asked
 *
 * A clock that differs by more than its bound and the reading's width is a finding
 * (`clock-not-as-planned`), and makes the verdict MOVE_UNPROVEN. Reading the RTC's edge
 * takes up to a second. A move that was not carried out is left as it is.
 */
void proof_read(const struct proof *proof, const char *root, pid_t pid, proof_ask ask,
		void *ctx, struct move *move);

void proof_free(struct proof *proof);

/* The option --verify: "outside" or "monitor"; whether the monitor may be asked. */
int parse_verify(const char *text, uint8_t *ret, struct gclk_error *reterr);
#define VERIFY_HELP                                                                      \
	"what is compared with the plan once the guest runs: what shows\n"               \
	"from outside (default), or what QEMU's monitor shows, too; asking\n"            \
	"it marks the domain as tainted: outside, monitor"

#endif
