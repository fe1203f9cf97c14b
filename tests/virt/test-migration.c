/* SPDX-License-Identifier: MIT */
/* The parts of `guestclock migrate` that need no libvirt: addresses, the stop. */
#include <stdlib.h>
#include <string.h>

#include "gclk-test.h"
#include "migrator/migration.h"

#define SSH "exec:ssh -T -o BatchMode=yes"

static struct gclk_error error;

GCLK_TEST(migration, the_other_end_from_the_uri)
{
	static const struct {
		const char *uri, *address;
	} rows[] = {
		{ "qemu+ssh://host2/system",
		  SSH " host2 guestclock proxy --stdio --libvirt qemu:///system" },
		{ "qemu+ssh://root@host2:2222/session?x=y",
		  SSH " -p 2222 root@host2 guestclock proxy --stdio --libvirt qemu:///session" },
		{ "qemu+ssh://root@host2", SSH " root@host2 guestclock proxy --stdio" },
		{ "qemu+ssh://root@[fe80::1]:22/", SSH " -p 22 root@fe80::1 guestclock proxy --stdio" },
		/* as libvirt gives them to ssh */
		{ "qemu+ssh://h/system?no_verify=1&keyfile=/my%20key&command=/opt/ssh",
		  "exec:/opt/ssh -T -o BatchMode=yes -i '/my key' -o StrictHostKeyChecking=no h "
		  "guestclock proxy --stdio --libvirt qemu:///system" },
		{ "qemu+ssh://h/system?keyfile=a%27%3bb&no_verify=0;known_hosts=/x",
		  SSH " -i 'a'\\'';b' h guestclock proxy --stdio --libvirt qemu:///system" },
		{ "qemu+libssh2://h/system?known_hosts=/k%20h&known_hosts_verify=auto&command=x",
		  SSH " -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=\"/k h\"' h "
		      "guestclock proxy --stdio --libvirt qemu:///system" },
		{ "qemu+libssh://h/system?known_hosts_verify=ignore",
		  SSH " -o StrictHostKeyChecking=no h guestclock proxy --stdio --libvirt "
		      "qemu:///system" },
		{ "qemu+ssh://h/system?keyfile=&no_verify=1",
		  SSH " -o StrictHostKeyChecking=no h guestclock proxy --stdio --libvirt "
		      "qemu:///system" },
		/* through two shells */
		{ "qemu+ssh://h/system?socket=/run/x#z",
		  SSH " h guestclock proxy --stdio --libvirt "
		      "''\\''qemu+unix:///system?socket=/run/x'\\'''" },
		{ "qemu+tls://host2.example.org/system", "tls:host2.example.org" },
		{ "qemu+tls://host2:16514/system", "tls:host2" },
		{ "qemu://admin@host2/system", "tls:host2" },
		{ "qemu:///system", "unix:/run/guestclock/guestclockd.sock" },
		{ "qemu://[fe80::1]:16514/system", "tls:[fe80::1]" },
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
		"qemu+tcp://host2/system",
		"qemu+ssh:///system",
		"qemu+ssh://host2;reboot/system",
		"qemu+ssh://$(reboot)/system",
		"qemu+ssh://-oProxyCommand=reboot/system",
		"qemu+ssh://a b/system",
		"qemu+ssh://h/system?keyfile=a b",
		"qemu+ssh://-x@host2/system",
		"qemu+ssh://user@/system",
		"qemu+ssh://host2:x/system",
		"qemu+ssh://[fe80::1/system",
		"qemu+ssh://[host2]/system",
		"qemu+ssh://host2/$(reboot)",
		"$(reboot)+ssh://host2/system",
		"qemu+ssh://host2/system?keyfile=%0areboot",
		"qemu+ssh://host2/system?keyfile=%4",
		"qemu+ssh://host2/system?socket=%00",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char to[512] = "untouched";

		GCLK_EQ(migration_address(bad[i], NULL, to, &error), -GCLK_USAGE);
		CU_ASSERT_STRING_EQUAL(to, "untouched");
	}
}

GCLK_TEST(migration, keys_and_certificates_where_libvirt_has_them)
{
	struct peer_tls files = { .key = "/my/key" };
	struct address_pki space;
	char text[900] = "qemu+ssh://h/system?keyfile=", to[ADDRESS_BYTES];

	GCLK_EQ(address_pki("qemu+tls://h/system?no_verify=0&pkipath=/p%20q", &space, &files,
			    &error), 0);
	CU_ASSERT_STRING_EQUAL(files.ca, "/p q/cacert.pem");
	CU_ASSERT_STRING_EQUAL(files.certificate, "/p q/clientcert.pem");
	CU_ASSERT_STRING_EQUAL(files.key, "/my/key");
	CU_ASSERT_PTR_NULL(files.crl);
	files = (struct peer_tls){ 0 };
	GCLK_EQ(setenv("HOME", "/nonexistent", 1), 0);
	GCLK_EQ(address_pki("qemu+tls://h/system", &space, &files, &error), 0);
	GCLK_EQ(address_pki("an alias", &space, &files, &error), 0);
	CU_ASSERT_PTR_NULL(files.ca);
	/* what does not fit is not cut off */
	memset(text + strlen(text), 'k', 255);
	GCLK_EQ(address_of_uri(text, to, &error), 0);
	strcat(text, "k");
	GCLK_EQ(address_of_uri(text, to, &error), -GCLK_USAGE);
	strcpy(text, "qemu+ssh://h/system?keyfile=");
	memset(text + strlen(text), '\'', 200);
	text[strlen("qemu+ssh://h/system?keyfile=") + 200] = 0;
	GCLK_EQ(address_of_uri(text, to, &error), -GCLK_RANGE);
}

static struct gclk_instant stop_at(int64_t stamp, int64_t ran, int64_t pass, int64_t lag)
{
	const struct stop_evidence evidence = { .ran_ns = ran, .pass_ns = pass, .lag_ns = lag };

	return migration_stop(stamp, &evidence);
}

/* Wherever in the span it was, the answer covers it; and it is no wider than it must be. */
GCLK_TEST(migration, a_stop_lies_within_its_span)
{
	const int64_t stamp = INT64_C(1700000000000000000);
	const int64_t ms = 1000000;

	for (int64_t span = 0; span <= 20 * ms; span += ms / 7) {
		struct gclk_instant at = stop_at(stamp, stamp - span, 0, 0);

		CU_ASSERT(at.ns <= stamp && at.ns >= stamp - span);
		CU_ASSERT(at.ns + (int64_t)at.uncertainty_ns >= stamp);
		CU_ASSERT(at.ns - (int64_t)at.uncertainty_ns <= stamp - span);
		CU_ASSERT((int64_t)at.uncertainty_ns <= VIRT_STOP_UNCERTAINTY_NS + ms / 10 || span > 3 * ms);
		CU_ASSERT((int64_t)at.uncertainty_ns <= span + ms / 10);
	}
	/* nothing known, or nothing that could be: the usual */
	for (unsigned i = 0; i < 3; i++) {
		int64_t ran = i == 0 ? 0 : i == 1 ? stamp - 21 * ms : stamp + 1;
		struct gclk_instant at = stop_at(stamp, ran, 0, 0);

		GCLK_EQ(at.ns, stamp - VIRT_STOP_LAG_NS);
		GCLK_EQ(at.uncertainty_ns, VIRT_STOP_UNCERTAINTY_NS);
	}
}

/* It is no guess, so no span is too long for it; and a stamp from after the stop tells nothing. */
GCLK_TEST(migration, a_stop_is_after_the_pass_that_came_before_it)
{
	const int64_t stamp = INT64_C(1700000000000000000);
	const int64_t ms = 1000000;

	for (int64_t span = ms / 3; span <= 400 * ms; span += ms / 3) {
		struct gclk_instant at = stop_at(stamp, stamp - 500 * ms, stamp - span, 900 * ms);

		CU_ASSERT(at.ns - (int64_t)at.uncertainty_ns <= stamp - span);
		CU_ASSERT(at.ns + (int64_t)at.uncertainty_ns >= stamp);
		CU_ASSERT((int64_t)at.uncertainty_ns <= span + ms / 10);
	}
	/* the later of two witnesses counts */
	GCLK_EQ(stop_at(stamp, stamp - 7 * ms, stamp - 9 * ms, 0).uncertainty_ns,
		stop_at(stamp, 0, stamp - 7 * ms, 0).uncertainty_ns);
	GCLK_EQ(stop_at(stamp, 0, stamp + 1, 0).uncertainty_ns, VIRT_STOP_UNCERTAINTY_NS);
}

/* The threads' waiting tells how late the stamp can be where the stream does not. */
GCLK_TEST(migration, a_stop_is_no_further_off_than_its_threads_waited)
{
	const int64_t stamp = INT64_C(1700000000000000000);
	const int64_t ms = 1000000;

	for (unsigned i = 0; i < 3; i++) {
		int64_t ran = i == 0 ? 0 : i == 1 ? stamp - 90 * ms : stamp - 9 * ms;
		struct gclk_instant at = stop_at(stamp, ran, 0, 40 * ms);
		int64_t span = i == 2 ? 9 * ms : 40 * ms;

		CU_ASSERT(at.ns + (int64_t)at.uncertainty_ns >= stamp);
		CU_ASSERT(at.ns - (int64_t)at.uncertainty_ns <= stamp - span);
		CU_ASSERT((int64_t)at.uncertainty_ns <= span);
		at = stop_at(stamp, ran, 0, 2 * ms);
		CU_ASSERT(at.ns - (int64_t)at.uncertainty_ns <= stamp - 2 * ms);
		CU_ASSERT((int64_t)at.uncertainty_ns <= 2 * ms);
	}
}
