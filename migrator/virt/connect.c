/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "migrator/virt/connect.h"

#define KEEPALIVE_S 5
#define KEEPALIVE_N 3

/* libvirt prints its errors by itself unless told not to: we say them in our own form. */
static void say_nothing(void *data, virErrorPtr error)
{
	(void)data;
	(void)error;
}

static void *run_loop(void *data)
{
	(void)data;
	while (virEventRunDefaultImpl() >= 0) {
	}
	return NULL;
}

/* A loop without timers or handles would not wake for the first one that joins. */
static void tick(int timer, void *data)
{
	(void)timer;
	(void)data;
}

static int loop_status;

static void start_loop(void)
{
	pthread_t thread;

	virSetErrorFunc(NULL, say_nothing);
	loop_status = virInitialize();
	if (loop_status == 0) {
		loop_status = virEventRegisterDefaultImpl();
	}
	if (loop_status == 0) {
		loop_status = virEventAddTimeout(5000, tick, NULL, NULL);
	}
	if (loop_status >= 0) {
		loop_status = pthread_create(&thread, NULL, run_loop, NULL) ? -1 : 0;
	}
	if (loop_status == 0) {
		pthread_detach(thread);
	}
}

const char *virt_last_error(char *to, size_t size)
{
	virErrorPtr error = virGetLastError();
	size_t n = 0;

	for (const char *s = error && error->message ? error->message : "";
	     *s && n + 1 < size; s++) {
		to[n++] = *s == '\n' || *s == '\r' ? ' ' : *s;
	}
	while (n > 0 && to[n - 1] == ' ') {
		n--;
	}
	to[n] = 0;
	return to;
}

int virt_fail(struct gclk_error *reterr, int status, const char *doing)
{
	char said[300];

	virt_last_error(said, sizeof(said));
	return gclk_fail(reterr, status, NULL, GCLK_NO_OFFSET, "%s: libvirt says: %s", doing,
			 said[0] ? said : "nothing more");
}

int virt_connect(const char *uri, bool read_only, virConnectPtr *ret,
		 struct gclk_error *reterr)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	virConnectPtr connection;
	char doing[160];

	pthread_once(&once, start_loop);
	if (loop_status) {
		return virt_fail(reterr, GCLK_SYS, "starting libvirt's event loop");
	}
	connection = read_only ? virConnectOpenReadOnly(uri) :
				 virConnectOpenAuth(uri, virConnectAuthPtrDefault, 0);
	if (!connection) {
		snprintf(doing, sizeof(doing), "connecting to %s",
			 uri ? uri : "libvirt's default URI");
		return virt_fail(reterr, GCLK_SYS, doing);
	}
	/* a driver that runs within this process has nobody to lose: 1 */
	if (virConnectSetKeepAlive(connection, KEEPALIVE_S, KEEPALIVE_N) < 0) {
		virResetLastError();
	}
	*ret = connection;
	return 0;
}

static virDomainPtr lookup(virConnectPtr connection, const char *text)
{
	virDomainPtr domain = NULL;
	unsigned id;
	char rest;

	if (sscanf(text, "%u%c", &id, &rest) == 1) {
		domain = virDomainLookupByID(connection, (int)id);
	}
	if (!domain && strlen(text) == VIR_UUID_STRING_BUFLEN - 1) {
		domain = virDomainLookupByUUIDString(connection, text);
	}
	return domain ? domain : virDomainLookupByName(connection, text);
}

int virt_domain(virConnectPtr connection, const char *text, virDomainPtr *ret,
		struct gclk_error *reterr)
{
	char doing[160];

	*ret = lookup(connection, text);
	if (!*ret) {
		snprintf(doing, sizeof(doing), "looking for domain %.100s", text);
		return virt_fail(reterr, GCLK_STATE, doing);
	}
	virResetLastError();
	return 0;
}
