/* SPDX-License-Identifier: MIT */
/* What in a state tells on which host it was captured: one row per field. */
#include <string.h>

#include <guestclock/bundle.h>

#include "core/text.h"
#include "core/util.h"

#define ROW(record, member) { &gclk_##record##_record, gclk_##record##_f_##member }

static const struct {
	const struct gclk_record *record;
	unsigned field;
} rows[] = {
	/* the host's TSC, or what gives it together with the guest's own */
	ROW(tsc, host_ticks), ROW(tsc, offset_ticks), ROW(tsc, offset_read_back_ticks),
	ROW(kvmclock, host_ticks),
	/* the host's TSC frequency, from the guest's */
	ROW(tsc, ratio), ROW(tsc, ratio_frac_bits),
	/* when the host booted */
	ROW(virtual_clock, host_monotonic_ns),
};

static void leave_out(void *base, const struct gclk_record *record, unsigned field)
{
	const struct gclk_field *f = &record->fields[field];

	*(uint64_t *)base &= ~(UINT64_C(1) << f->index);
	memset((uint8_t *)base + f->offset, 0, f->size);
}

static void redact_record(void *base, const struct gclk_record *record)
{
	for (unsigned i = 0; i < GCLK_COUNT(rows); i++) {
		if (rows[i].record == record) {
			leave_out(base, record, rows[i].field);
		}
	}
}

/*
 * A frequency measured to parts per billion is that of one crystal. Where nothing else
 * tells the guest's frequency, it stays: without it the guest cannot be restored.
 */
static void redact_rate(struct gclk_tsc *tsc)
{
	if (GCLK_HAS(tsc, tsc, frequency_hz)) {
		GCLK_UNSET(tsc, tsc, measured_hz);
		GCLK_UNSET(tsc, tsc, measured_ppb);
	}
}

GCLK_API void gclk_state_redact(struct gclk_state *state)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		uint32_t n;
		uint8_t *base = gclk_state_part(state, part, &n);

		for (uint32_t j = 0; j < n; j++) {
			redact_record(base + (size_t)j * part->record->size, part->record);
		}
	}
	for (uint32_t i = 0; i < state->n_vcpus; i++) {
		redact_rate(&state->tsc[i]);
	}
}

GCLK_API void gclk_host_redact(struct gclk_host *host)
{
	memset(host, 0, sizeof(*host));
	host->has = GCLK_BIT(host, hostname);
	gclk_text_copy(host->hostname, sizeof(host->hostname), "(redacted)");
}
