/* SPDX-License-Identifier: MIT */
/*
 * A redacted state and host: every field that the host's identity is read from is random
 * and recognisable, and no form of it, as number or text, is in what is written.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <guestclock/bundle.h>

#include "core/util.h"
#include "gclk-test.h"
#include "random-state.h"

static size_t put_varint(uint8_t *to, uint64_t value)
{
	size_t n = 0;

	do {
		to[n++] = (uint8_t)(value | 0x80);
		value >>= 7;
	} while (value);
	to[n - 1] &= 0x7f;
	return n;
}

/* As a varint, as a zigzag one, as eight bytes and as decimal digits. */
static unsigned times_found(const uint8_t *bytes, size_t n, uint64_t value)
{
	uint64_t zigzag = value << 1 ^ (uint64_t)((int64_t)value >> 63);
	uint8_t form[32];
	unsigned found = 0;

	found += memmem(bytes, n, form, put_varint(form, value)) != NULL;
	found += memmem(bytes, n, form, put_varint(form, zigzag)) != NULL;
	memcpy(form, &value, sizeof(value));
	found += memmem(bytes, n, form, sizeof(value)) != NULL;
	found += memmem(bytes, n, form, (size_t)sprintf((char *)form, "%" PRIu64, value)) != NULL;
	return found;
}

struct secret {
	const char *what;
	uint64_t value;
};

#define SECRET(p, member) { #p "." #member, (uint64_t)(p).member }

/* Of the state, the fields that must go; the test names them once more, by hand. */
static unsigned collect(const struct gclk_state *st, struct secret *to)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < st->n_vcpus; i++) {
		const struct secret of_vcpu[] = {
			SECRET(st->tsc[i], host_ticks), SECRET(st->tsc[i], offset_ticks),
			SECRET(st->tsc[i], offset_read_back_ticks), SECRET(st->tsc[i], ratio),
			SECRET(st->tsc[i], measured_hz),
		};

		memcpy(to + n, of_vcpu, sizeof(of_vcpu));
		n += (unsigned)GCLK_COUNT(of_vcpu);
	}
	to[n++] = (struct secret)SECRET(st->kvmclock, host_ticks);
	to[n++] = (struct secret)SECRET(st->virtual_clock, host_monotonic_ns);
	return n;
}

/* Large numbers, so that none of them stands for anything else by chance. */
static void make_recognisable(struct gclk_state *st)
{
	for (uint32_t i = 0; i < st->n_vcpus; i++) {
		struct gclk_tsc *t = &st->tsc[i];

		GCLK_SET(tsc, t, frequency_hz, 2000000000);
		GCLK_SET(tsc, t, host_ticks, gclk_random() | UINT64_C(1) << 62);
		GCLK_SET(tsc, t, offset_ticks, (int64_t)(gclk_random() >> 1 | UINT64_C(1) << 60));
		GCLK_SET(tsc, t, offset_read_back_ticks, -t->offset_ticks);
		GCLK_SET(tsc, t, ratio, gclk_random() | UINT64_C(1) << 60);
		GCLK_SET(tsc, t, measured_hz, gclk_random() >> 8 | UINT64_C(1) << 50);
	}
	GCLK_SET(kvmclock, &st->kvmclock, host_ticks, gclk_random() | UINT64_C(1) << 61);
	GCLK_SET(virtual_clock, &st->virtual_clock, host_monotonic_ns,
		 (int64_t)(gclk_random() >> 2 | UINT64_C(1) << 60));
}

static size_t packed(const struct gclk_state *st, const struct gclk_host *host, uint8_t *buf,
		     size_t size)
{
	struct gclk_bundle *bundle = gclk_bundle_new();
	int64_t n;

	CU_ASSERT_FATAL(bundle != NULL);
	GCLK_EQ(gclk_bundle_set_state(bundle, st, NULL), 0);
	GCLK_EQ(gclk_bundle_set_host(bundle, host, NULL), 0);
	n = gclk_bundle_pack(bundle, buf, size, NULL);
	gclk_bundle_free(bundle);
	CU_ASSERT_FATAL(n > 0);
	return (size_t)n;
}

static unsigned host_texts_found(const struct gclk_host *host, const uint8_t *bytes, size_t n)
{
	const char *const texts[] = { host->hostname, host->kernel_release, host->boot_id,
				      host->cpu_model, host->clocksource };
	unsigned found = 0;

	for (unsigned i = 0; i < GCLK_COUNT(texts); i++) {
		found += texts[i][0] && memmem(bytes, n, texts[i], strlen(texts[i])) != NULL;
	}
	return found;
}

static void make_host(struct gclk_host *host)
{
	random_record(&gclk_host_record, host, 100);
	snprintf(host->hostname, sizeof(host->hostname), "host-%016" PRIx64, gclk_random());
	snprintf(host->boot_id, sizeof(host->boot_id), "%016" PRIx64 "-boot", gclk_random());
	snprintf(host->cpu_model, sizeof(host->cpu_model), "cpu %016" PRIx64, gclk_random());
	snprintf(host->kernel_release, sizeof(host->kernel_release), "6.1-%" PRIx64, gclk_random());
	snprintf(host->clocksource, sizeof(host->clocksource), "cs-%016" PRIx64, gclk_random());
	GCLK_SET(host, host, tsc_ticks, gclk_random() | UINT64_C(1) << 62);
	GCLK_SET(host, host, raw_ns, (int64_t)(gclk_random() >> 2));
	GCLK_SET(host, host, boottime_ns, (int64_t)(gclk_random() >> 2));
	GCLK_SET(host, host, monotonic_ns, (int64_t)(gclk_random() >> 2));
}

GCLK_TEST(redact, nothing_of_the_host_is_left)
{
	static uint8_t buf[1 << 20];

	for (unsigned round = 0; round < 100 * gclk_test_scale(); round++) {
		struct gclk_state *st = gclk_state_new(1 + (uint32_t)gclk_random_below(4));
		struct secret secrets[64];
		struct gclk_host host, redacted;
		unsigned n_secrets;
		size_t n;

		CU_ASSERT_FATAL(st != NULL);
		random_state(st, 100);
		make_recognisable(st);
		make_host(&host);
		redacted = host;
		n_secrets = collect(st, secrets);
		n = packed(st, &host, buf, sizeof(buf));
		CU_ASSERT(host_texts_found(&host, buf, n) == 5);
		for (unsigned i = 0; i < n_secrets; i++) {	/* the search does find them */
			CU_ASSERT(times_found(buf, n, secrets[i].value) > 0);
		}
		CU_ASSERT(times_found(buf, n, host.tsc_ticks) > 0);

		gclk_state_redact(st);
		gclk_host_redact(&redacted);
		n = packed(st, &redacted, buf, sizeof(buf));
		for (unsigned i = 0; i < n_secrets; i++) {
			if (times_found(buf, n, secrets[i].value)) {
				printf("\n    %s is left\n", secrets[i].what);
				CU_FAIL();
			}
		}
		CU_ASSERT(host_texts_found(&host, buf, n) == 0);
		CU_ASSERT(times_found(buf, n, host.tsc_ticks) == 0);
		CU_ASSERT(times_found(buf, n, (uint64_t)host.raw_ns) == 0);
		CU_ASSERT(times_found(buf, n, (uint64_t)host.boottime_ns) == 0);
		CU_ASSERT(times_found(buf, n, (uint64_t)host.monotonic_ns) == 0);
		gclk_state_free(st);
	}
}

/* The guest's own clocks stay to the tick, and the frequency where nothing else tells it. */
GCLK_TEST(redact, the_guests_own_clocks_stay)
{
	struct gclk_state *st = gclk_state_new(2), *before = gclk_state_new(2);

	random_state(st, 100);
	make_recognisable(st);
	GCLK_UNSET(tsc, &st->tsc[1], frequency_hz);
	gclk_state_assign(before, st, NULL);
	gclk_state_redact(st);
	GCLK_EQ(st->tsc[0].value_ticks, before->tsc[0].value_ticks);
	GCLK_EQ(st->tsc[0].frequency_hz, before->tsc[0].frequency_hz);
	CU_ASSERT(!GCLK_HAS(tsc, &st->tsc[0], measured_hz));
	GCLK_EQ(st->tsc[1].measured_hz, before->tsc[1].measured_hz);
	GCLK_EQ(st->kvmclock.clock_ns, before->kvmclock.clock_ns);
	GCLK_EQ(st->virtual_clock.clock_ns, before->virtual_clock.clock_ns);
	CU_ASSERT(!memcmp(&st->pit, &before->pit, sizeof(st->pit)));
	CU_ASSERT(!memcmp(&st->rtc, &before->rtc, sizeof(st->rtc)));
	CU_ASSERT(!memcmp(&st->hpet, &before->hpet, sizeof(st->hpet)));
	CU_ASSERT(!memcmp(st->lapic, before->lapic, 2 * sizeof(*st->lapic)));
	GCLK_EQ(gclk_state_validate(st, NULL), 0);
	gclk_state_free(st);
	gclk_state_free(before);
}
