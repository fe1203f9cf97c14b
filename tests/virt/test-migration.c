/* SPDX-License-Identifier: MIT */
/* The parts of `guestclock migrate` that need no libvirt: addresses, the stop. */
#include <string.h>

#include "gclk-test.h"
#include "migrator/migration.h"

static struct gclk_error error;

GCLK_TEST(migration, the_other_end_from_the_uri)
{
	static const struct {
		const char *uri, *address;
	} rows[] = {
		{ "qemu+ssh://host2/system",
		  "exec:ssh -T -o BatchMode=yes host2 guestclock proxy --stdio" },
		{ "qemu+ssh://root@host2:2222/system?keyfile=/x",
		  "exec:ssh -T -o BatchMode=yes -p 2222 root@host2 guestclock proxy --stdio" },
		{ "qemu+ssh://root@host2", "exec:ssh -T -o BatchMode=yes root@host2 guestclock proxy --stdio" },
		{ "qemu+tls://host2.example.org/system", "tls:host2.example.org" },
		{ "qemu+tls://host2:16514/system", "tls:host2" },
		{ "qemu://admin@host2/system", "tls:host2" },
		{ "qemu:///system", "unix:/run/guestclock/guestclockd.sock" },
		{ "qemu+unix:///system?socket=/x/y", "unix:/run/guestclock/guestclockd.sock" },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char to[512] = "";

		GCLK_EQ(migration_address(rows[i].uri, NULL, to, &error), 0);
		CU_ASSERT_STRING_EQUAL(to, rows[i].address);
		GCLK_EQ(migration_address(rows[i].uri, "unix:/there", to, &error), 0);
		CU_ASSERT_STRING_EQUAL(to, "unix:/there");
	}
}

GCLK_TEST(migration, what_says_nothing_is_usage)
{
	static const char *const bad[] = {
		"",
		"host2",
		"qemu+libssh2://host2/system",
		"qemu+tcp://host2/system",
		"qemu+ssh:///system",
		"qemu+ssh://host2;reboot/system",
		"qemu+ssh://$(reboot)/system",
		"qemu+ssh://-oProxyCommand=reboot/system",
		"qemu+ssh://a b/system",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char to[512] = "untouched";

		GCLK_EQ(migration_address(bad[i], NULL, to, &error), -GCLK_USAGE);
		CU_ASSERT_STRING_EQUAL(to, "untouched");
	}
}

/* Wherever in the span it was, the answer covers it; and it is no wider than it must be. */
GCLK_TEST(migration, a_stop_lies_within_its_span)
{
	const int64_t stamp = INT64_C(1700000000000000000);
	const int64_t ms = 1000000;

	for (int64_t span = 0; span <= 20 * ms; span += ms / 7) {
		struct gclk_instant at = migration_stop(stamp, stamp - span);

		CU_ASSERT(at.ns <= stamp && at.ns >= stamp - span);
		CU_ASSERT(at.ns + (int64_t)at.uncertainty_ns >= stamp);
		CU_ASSERT(at.ns - (int64_t)at.uncertainty_ns <= stamp - span);
		CU_ASSERT(at.uncertainty_ns <= VIRT_STOP_UNCERTAINTY_NS + ms / 10 || span > 3 * ms);
		CU_ASSERT((int64_t)at.uncertainty_ns <= span + ms / 10);
	}
	/* nothing known, or nothing that could be: the usual */
	for (unsigned i = 0; i < 3; i++) {
		int64_t ran = i == 0 ? 0 : i == 1 ? stamp - 21 * ms : stamp + 1;
		struct gclk_instant at = migration_stop(stamp, ran);

		GCLK_EQ(at.ns, stamp - VIRT_STOP_LAG_NS);
		GCLK_EQ(at.uncertainty_ns, VIRT_STOP_UNCERTAINTY_NS);
	}
}
