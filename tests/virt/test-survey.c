/* SPDX-License-Identifier: MIT */
/* What libvirt's capabilities say of a host. */
#include <string.h>

#include "gclk-test.h"
#include "migrator/virt/survey.h"

GCLK_TEST(survey, uuid_and_kvm)
{
	struct surveyed seen = { 0 };

	survey_capabilities(
		"<capabilities>\n<host>\n<uuid>11111111-1111-4111-8111-111111111111"
		"</uuid><cpu/></host><guest><arch name='x86_64'><domain type='qemu'/>"
		"<domain type='kvm'/></arch></guest></capabilities>",
		&seen);
	CU_ASSERT_STRING_EQUAL(seen.uuid, "11111111-1111-4111-8111-111111111111");
	CU_ASSERT(seen.has_kvm);
	GCLK_EQ(seen.host.flags, GCLK_HOST_KVM);
}

GCLK_TEST(survey, what_is_not_there_is_not_known)
{
	static const char *const texts[] = {
		"",
		"<capabilities/>",
		"<host>",
		"<host><uuid>",
		"<host></host><uuid>x</uuid>",
		"<host><uuid>11111111-1111-4111-8111-11111111111111111</uuid></host>",
	};

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct surveyed seen = { 0 };

		survey_capabilities(texts[i], &seen);
		CU_ASSERT_STRING_EQUAL(seen.uuid, "");
		CU_ASSERT(!seen.has_kvm);
	}
}

GCLK_TEST(survey, a_uri_without_a_server_is_this_host)
{
	CU_ASSERT(survey_is_here("qemu:///system"));
	CU_ASSERT(survey_is_here("qemu+unix:///session?socket=/run/x"));
	CU_ASSERT(!survey_is_here("qemu+ssh://host2/system"));
	CU_ASSERT(!survey_is_here("qemu://host2"));
}
