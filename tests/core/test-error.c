/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "core/error.h"
#include "property.h"

GCLK_TEST(error, fail_fills_and_returns)
{
	struct gclk_error err = { 0 };
	char longest[600];

	errno = ENOENT;
	GCLK_EQ(gclk_fail(&err, GCLK_SYS, "a/b", 17, "no %s of %d", "file", 3),
		-GCLK_SYS);
	GCLK_EQ(err.status, GCLK_SYS);
	GCLK_EQ(err.sys_errno, ENOENT);
	GCLK_EQ(err.offset, 17);
	GCLK_EQ(errno, ENOENT);
	CU_ASSERT_STRING_EQUAL(err.where, "a/b");
	CU_ASSERT_STRING_EQUAL(err.message, "no file of 3");
	GCLK_EQ(gclk_fail(&err, GCLK_RANGE, NULL, GCLK_NO_OFFSET, "x"), -GCLK_RANGE);
	GCLK_EQ(err.sys_errno, 0);
	CU_ASSERT_STRING_EQUAL(err.where, "");
	GCLK_EQ(gclk_fail(NULL, GCLK_PEER, "a", 0, "x"), -GCLK_PEER);
	memset(longest, 'y', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	GCLK_EQ(gclk_fail(&err, GCLK_STATE, longest, 0, "%s", longest), -GCLK_STATE);
	GCLK_EQ(strlen(err.where), sizeof(err.where) - 1);
	GCLK_EQ(strlen(err.message), sizeof(err.message) - 1);
}

GCLK_TEST(error, every_status_has_its_own_name)
{
	for (int i = GCLK_OK; i <= GCLK_UNPROVEN; i++) {
		const char *name = gclk_status_name(i);

		CU_ASSERT(strcmp(name, "unknown") && name[0]);
		CU_ASSERT(name == gclk_status_name(-i));
		for (int k = GCLK_OK; k < i; k++) {
			CU_ASSERT(strcmp(name, gclk_status_name(k)));
		}
	}
	CU_ASSERT_STRING_EQUAL(gclk_status_name(GCLK_UNPROVEN + 1), "unknown");
	CU_ASSERT_STRING_EQUAL(gclk_status_name(INT32_MIN), "unknown");
}
