/* SPDX-License-Identifier: MIT */
/* What the hook reads: its settings, a guest's needs, earlier restores, who reads an image. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gclk-test.h"
#include "migrator/hook/conf.h"
#include "migrator/hook/learned.h"
#include "migrator/hook/needs.h"
#include "migrator/hook/reader.h"
#include "migrator/hook/running.h"

static char dir[] = "/tmp/gclk-hook-XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[2][128];
	static unsigned turn;
	char *to = path[turn++ % 2];

	if (strstr(dir, "XXXXXX")) {
		CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	}
	snprintf(to, 128, "%s/%s", dir, name);
	return to;
}

static const char *put(const char *name, const char *text)
{
	const char *path = in_dir(name);
	FILE *file = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(file);
	fputs(text, file);
	fclose(file);
	return path;
}

static void clean(const char *name)
{
	unlink(in_dir(name));
	rmdir(dir);
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
}

static struct gclk_domain domain_of(const char *middle)
{
	struct gclk_domain domain = { 0 };
	char xml[2048];

	snprintf(xml, sizeof(xml), "<domain type='kvm'><name>web1</name>%s</domain>", middle);
	GCLK_EQ(gclk_domain_read(xml, strlen(xml), &domain, NULL), 0);
	return domain;
}

#define OURS(attributes) "<metadata><g:clock xmlns:g='https://guestclock.dev/ns/domain/1' " \
	attributes "/></metadata>"

GCLK_TEST(hook, settings)
{
	struct gclk_domain said = domain_of(OURS("hook='off' pin_tsc='yes'"));
	struct gclk_domain silent = domain_of("");
	struct gclk_error error;
	struct hook_conf conf;
	const char *path = put("conf", "[policy]\ngap = count\n[hook]\nrestore = rewrite\n"
				       "check = report\n");

	GCLK_EQ(hook_conf_read(path, &silent, &conf, &error), 0);
	CU_ASSERT(conf.restore == HOOK_REWRITE && conf.check == HOOK_CHECK_REPORT &&
		  !conf.pin_tsc);
	GCLK_EQ(hook_conf_read(path, &said, &conf, &error), 0);
	CU_ASSERT(conf.restore == HOOK_OFF && conf.pin_tsc);
	path = put("conf", "[hook]\nrestore = perhaps\n");
	GCLK_EQ(hook_conf_read(path, &said, &conf, &error), -GCLK_MALFORMED);
	CU_ASSERT(conf.restore == HOOK_REPORT && conf.check == HOOK_CHECK_REFUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "report, rewrite or off"));
	GCLK_EQ(hook_conf_read(in_dir("none"), NULL, &conf, &error), -GCLK_SYS);
	said = domain_of(OURS("hook='no'"));
	path = put("conf", "");
	GCLK_EQ(hook_conf_read(path, &said, &conf, &error), -GCLK_MALFORMED);
	clean("conf");
}

static const struct gclk_finding *refusal(const char *xml, uint64_t host_hz, uint32_t flags)
{
	static struct gclk_findings findings;
	struct gclk_domain domain = domain_of(xml);
	struct gclk_host host = { 0 };

	memset(&findings, 0, sizeof(findings));
	GCLK_SET(host, &host, tsc_hz, host_hz);
	GCLK_SET(host, &host, flags, flags);
	needs_of_domain(&domain, &host, &findings);
	return needs_refusal(&findings);
}

GCLK_TEST(hook, what_a_guest_needs)
{
	static const char tsc[] =
		"<clock><timer name='tsc' frequency='2000000000'/></clock>";
	const struct gclk_finding *no;

	CU_ASSERT_PTR_NULL(refusal(tsc, 2000000000, 0));
	CU_ASSERT_PTR_NULL(refusal(tsc, 2000400000, 0));		/* 200 ppm */
	CU_ASSERT_PTR_NULL(refusal(tsc, 2000500000, 0));		/* 249.94 */
	CU_ASSERT_PTR_NOT_NULL(refusal(tsc, 2000500200, 0));		/* 250.04 */
	no = refusal(tsc, 2100000000, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(no);
	CU_ASSERT_STRING_EQUAL(no->info->id, "tsc-rate-not-honoured");
	CU_ASSERT_PTR_NOT_NULL(strstr(no->message, "47620 ppm"));
	CU_ASSERT_PTR_NULL(refusal(tsc, 2100000000, GCLK_HOST_TSC_SCALING));
	CU_ASSERT_PTR_NULL(refusal("", 2100000000, 0));
}

GCLK_TEST(hook, a_pinned_frequency)
{
	static const char plain[] = "<domain><name>a</name></domain>\n";
	static const char has[] = "<domain xmlns:qemu='x'><qemu:commandline>"
				  "<qemu:arg value='-s'/></qemu:commandline></domain>";
	char *xml = NULL;

	GCLK_EQ(needs_pin(plain, strlen(plain), 2000000001, &xml, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(xml);
	CU_ASSERT_STRING_EQUAL(xml, "<domain><name>a</name><qemu:commandline "
		"xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
		"<qemu:arg value='-global'/><qemu:arg "
		"value='x86_64-cpu.tsc-frequency=2000000001'/></qemu:commandline>\n</domain>\n");
	free(xml);
	GCLK_EQ(needs_pin(has, strlen(has), 5, &xml, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(xml);
	CU_ASSERT_STRING_EQUAL(xml, "<domain xmlns:qemu='x'><qemu:commandline>"
		"<qemu:arg value='-s'/><qemu:arg value='-global'/><qemu:arg "
		"value='x86_64-cpu.tsc-frequency=5'/></qemu:commandline></domain>");
	free(xml);
	GCLK_EQ(needs_pin("<a/>", 4, 5, &xml, NULL), 0);
	CU_ASSERT_PTR_NULL(xml);
}

GCLK_TEST(hook, restores_teach)
{
	const char *path = put("restores", "restore 1000000 20000000 0\nrubbish\n"
					   "restore 5 -1 0\n");
	struct learned l;
	struct lesson lesson = { 3000000, 40000000, 250000000 };

	learned_read(path, &l);
	GCLK_EQ(l.n, 1);
	GCLK_EQ(l.to_run_ns, 20000000);
	CU_ASSERT(l.to_run_spread_ns >= 300000000);	/* one is not much to go by */
	for (unsigned i = 0; i < 40; i++) {
		lesson.to_run_ns = 40000000 + i;
		GCLK_EQ(learned_add(in_dir("restores"), &lesson, NULL), 0);
	}
	learned_read(in_dir("restores"), &l);
	GCLK_EQ(l.n, LEARNED_MAX);
	GCLK_EQ(l.to_run_ns, 40000024);		/* the median of the last 32 */
	GCLK_EQ(l.to_load_ns, 3000000);
	GCLK_EQ(l.bytes_per_s, 250000000);
	CU_ASSERT(l.to_run_spread_ns < 30000000 && l.to_run_spread_ns > 0);
	lesson.to_run_ns = 1;				/* before the load had ended */
	GCLK_EQ(learned_add(in_dir("restores"), &lesson, NULL), 0);
	learned_read(in_dir("restores"), &l);
	GCLK_EQ(l.to_run_ns, 40000024);
	clean("restores");
	learned_read(in_dir("none"), &l);
	CU_ASSERT(l.n == 0 && l.to_run_ns > 0 && l.to_run_spread_ns >= 100000000);
	clean("none");
}

GCLK_TEST(hook, who_reads_an_image)
{
	const char *path = put("image", "LibvirtQemudSave and more");
	static struct reader found[READERS_MAX];
	char name[128];
	uint64_t at = 0;
	int fd = open(path, O_RDONLY), other;
	unsigned n, ours = READERS_MAX;

	snprintf(name, sizeof(name), "%s", path);
	lseek(fd, 7, SEEK_SET);
	n = readers_find(getpid(), found);
	for (unsigned i = 0; i < n; i++) {
		if (found[i].fd == fd) {
			ours = i;
		}
	}
	CU_ASSERT_FATAL(ours < READERS_MAX);
	CU_ASSERT_STRING_EQUAL(found[ours].path, name);
	GCLK_EQ(found[ours].start, 7);
	lseek(fd, 12, SEEK_SET);
	CU_ASSERT(reader_position(&found[ours], &at) && at == 12);
	/* a name that another file has by now is not used */
	rename(name, in_dir("moved"));
	put("image", "another");
	n = readers_find(getpid(), found);
	for (unsigned i = 0; i < n; i++) {
		if (found[i].fd == fd) {
			CU_ASSERT_STRING_EQUAL(found[i].path, in_dir("moved"));
			ours = i;
		}
	}
	close(fd);
	CU_ASSERT(!reader_position(&found[ours], &at));
	other = open(name, O_RDONLY);		/* the number again, of another file */
	GCLK_EQ(other, fd);
	CU_ASSERT(!reader_position(&found[ours], &at));
	close(other);
	unlink(in_dir("moved"));
	clean("image");
}

/* Between the look at what libvirtd reads and the opening somebody may put another there. */
GCLK_TEST(hook, the_file_that_is_read_is_opened_whatever_has_its_name)
{
	const char *path = put("image", "LibvirtQemudSave one");
	static struct reader found[READERS_MAX];
	char text[32] = "", name[128];
	struct reader ours = { 0 };
	int fd = open(path, O_RDONLY), other;

	snprintf(name, sizeof(name), "%s", path);
	for (unsigned i = readers_find(getpid(), found); i-- > 0;) {
		ours = found[i].fd == fd ? found[i] : ours;
	}
	CU_ASSERT_FATAL(!strcmp(ours.path, name));
	unlink(name);
	put("image", "LibvirtQemudSave two");
	other = reader_open(&ours);
	CU_ASSERT_FATAL(other >= 0);
	GCLK_EQ(pread(other, text, sizeof(text) - 1, 0), 20);
	CU_ASSERT_STRING_EQUAL(text, "LibvirtQemudSave one");
	close(other);
	/* nor what has the number by now, which is the other file */
	other = open(name, O_RDONLY);
	CU_ASSERT_FATAL(dup2(other, fd) == fd);
	GCLK_EQ(reader_open(&ours), -1);
	close(other);
	close(fd);
	GCLK_EQ(reader_open(&ours), -1);
	clean("image");
}

GCLK_TEST(hook, the_status_file_says_when)
{
	struct wall_line line;
	int64_t seen_ns = 0;

	wall_line_begin(&line);
	put("web1.xml", "<!--\nfoo\n-->\n<domstatus state='paused' reason='migration'>");
	CU_ASSERT(!running_wait(dir, "web1", &line, 20000000, &seen_ns));
	put("new", "<!-- -->\n<domstatus state='running' reason='restored' pid='1'>");
	rename(in_dir("new"), in_dir("web1.xml"));
	CU_ASSERT(running_wait(dir, "web1", &line, 20000000, &seen_ns));
	CU_ASSERT(seen_ns > 0);
	CU_ASSERT(!running_wait(dir, "web2", &line, 5000000, &seen_ns));
	clean("web1.xml");
}

