/* SPDX-License-Identifier: MIT */
/*
 * The way of a live stream through both ends, against the same way without the filter.
 *
 *	bench-peer [MIB]
 *
 * A writer, the source end's relay, TLS over loopback, the destination end's relay without
 * the filter, with it and with it in a process of its own, a reader; turn by turn. The same
 * way through two socat, with the same cipher and certificates, in the same turns. Then over
 * a UNIX socket instead of TLS, and the cipher by itself. Medians, of the ratios too.
 */
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "../tests/peer/pki.h"
#include "common.h"
#include "core/util.h"
#include "migrator/peer/relay.h"
#include "stream.h"

#define PIECE (256u << 10)
#define FIRST 65536
#define TURNS 25
#define SOCAT_TURNS 5

static int push(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass, size_t *ret_held,
		struct gclk_error *reterr)
{
	return gclk_filter_push(ctx, bytes, n, ret_pass, ret_held, reterr);
}

static int push_most(void *ctx, const uint8_t *bytes, size_t n, size_t *ret_pass,
		     size_t *ret_held, struct gclk_error *reterr)
{
	return gclk_filter_push_most(ctx, bytes, n, ret_pass, ret_held, reterr);
}

struct runner {
	struct relay relay;
	struct link a, b;
	struct tls_identity *server, *client;	/* of a side that shakes hands first; or NULL */
	int fd;
	bool first;			/* the encrypted side is a */
	double cpu_s;
};

static void shake(struct runner *r)
{
	struct gclk_error error;
	struct tls *tls;

	if ((r->server || r->client) &&
	    tls_start(r->server ? r->server : r->client, r->fd, r->server ? NULL : "bench",
		      clock_mono_ns() + 5 * GCLK_NS_PER_S, &tls, &error) < 0) {
		fprintf(stderr, "%s\n", error.message);
		exit(1);
	}
	if (r->server) {
		r->a.tls = tls;
	} else if (r->client) {
		r->b.tls = tls;
	}
}

static void *run(void *arg)
{
	struct runner *r = arg;
	struct gclk_error error;

	shake(r);
	r->cpu_s = -now_s(CLOCK_THREAD_CPUTIME_ID);
	r->relay.a = &r->a;
	r->relay.b = &r->b;
	r->relay.wake = -1;
	if (relay_run(&r->relay, &error) < 0) {
		fprintf(stderr, "relay: %s\n", error.message);
		exit(1);
	}
	r->cpu_s += now_s(CLOCK_THREAD_CPUTIME_ID);
	link_close(&r->a);
	link_close(&r->b);
	return NULL;
}

struct reader {
	int fd;
	sem_t began;	/* something has come: all is connected */
	uint64_t total;
	pthread_t thread;
};

static void *drain(void *arg)
{
	struct reader *r = arg;
	char *buffer = malloc(PIECE);
	ssize_t n;

	while ((n = read(r->fd, buffer, PIECE)) > 0) {
		if (r->total == 0) {
			sem_post(&r->began);
		}
		r->total += (uint64_t)n;
	}
	free(buffer);
	shutdown(r->fd, SHUT_WR);
	return NULL;
}

static void feed(int fd, const struct bytes *stream, size_t from, size_t to)
{
	while (from < to) {
		ssize_t n = write(fd, stream->p + from, GCLK_MIN(PIECE, to - from));

		if (n <= 0) {
			fprintf(stderr, "the way has ended too early\n");
			exit(1);
		}
		from += (size_t)n;
	}
}

/* The stream into @in until all of it has come out; counted from when the first bytes have. */
static double pass(const struct bytes *stream, int in, struct reader *reader,
		   void (*begin)(void *ctx), void *ctx)
{
	struct timespec until;
	double s;

	sem_init(&reader->began, 0, 0);
	pthread_create(&reader->thread, NULL, drain, reader);
	feed(in, stream, 0, FIRST);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	if (sem_timedwait(&reader->began, &until) != 0) {
		fprintf(stderr, "nothing came\n");
		exit(1);
	}
	if (begin) {
		begin(ctx);
	}
	s = -now_s(CLOCK_MONOTONIC);
	feed(in, stream, FIRST, stream->n);
	shutdown(in, SHUT_WR);
	pthread_join(reader->thread, NULL);
	sem_destroy(&reader->began);
	if (reader->total != stream->n) {
		fprintf(stderr, "not all of it came\n");
		exit(1);
	}
	return s + now_s(CLOCK_MONOTONIC);
}

/* Two connected TCP sockets on this host. */
static void tcp_pair(int fds[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(listener, (struct sockaddr *)&address, n) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &n) < 0) {
		exit(1);
	}
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fds[0], (struct sockaddr *)&address, n) < 0) {
		exit(1);
	}
	fds[1] = accept(listener, NULL, NULL);
	close(listener);
}

struct figures { double s, cpu_s; };

enum way { OFF, ON, FAR, N_WAYS };

/* A filter in the way, or none. */
static struct gclk_filter *put_filter(struct relay *relay, enum way way)
{
	static const struct relay_filter table = { .push = push, .push_most = push_most };
	struct gclk_filter_options options = { .want_page_clock = 1,
					       .worker = way == FAR ? &bench_worker : NULL };
	struct gclk_filter *filter;

	if (way == OFF) {
		return NULL;
	}
	if (gclk_filter_new(&options, &filter, NULL) < 0) {
		exit(1);
	}
	relay->room = gclk_filter_room(filter, &relay->room_bytes);
	relay->filter = &table;
	relay->ctx = filter;
	return filter;
}

static struct figures turn(const struct bytes *stream, struct tls_identity *client,
			   struct tls_identity *server, enum way way)
{
	struct runner source = { .client = client }, destination = { .server = server };
	struct gclk_filter *filter = put_filter(&destination.relay, way);
	int in[2], between[2], out[2];
	struct reader reader = { 0 };
	pthread_t s, d;
	struct figures f;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, out) < 0) {
		exit(1);
	}
	if (client) {
		tcp_pair(between);
	} else if (socketpair(AF_UNIX, SOCK_STREAM, 0, between) < 0) {
		exit(1);
	}
	link_init(&source.a, in[1], in[1], "writer");
	link_init(&source.b, between[0], between[0], "destination");
	link_init(&destination.a, between[1], between[1], "source");
	link_init(&destination.b, out[0], out[0], "reader");
	source.fd = between[0];
	destination.fd = between[1];
	pthread_create(&s, NULL, run, &source);
	pthread_create(&d, NULL, run, &destination);
	reader.fd = out[1];
	f.s = pass(stream, in[0], &reader, NULL, NULL);
	pthread_join(s, NULL);
	pthread_join(d, NULL);
	close(in[0]);
	close(out[1]);
	f.cpu_s = source.cpu_s + destination.cpu_s;
	if (filter && gclk_filter_findings(filter)->n) {
		fprintf(stderr, "it was not filtered\n");
		exit(1);
	}
	f.cpu_s -= all_cpu_s() - now_s(CLOCK_PROCESS_CPUTIME_ID);
	gclk_filter_free(filter);
	f.cpu_s += all_cpu_s() - now_s(CLOCK_PROCESS_CPUTIME_ID);	/* of its process */
	return f;
}

/* ---- socat ---- */

struct socats {
	pid_t pids[2];
	double before_s;	/* of what came before the stream */
};

static double cpu_of(pid_t pid)
{
	clockid_t clock;

	return clock_getcpuclockid(pid, &clock) == 0 ? now_s(clock) : 0;
}

static void begin_socats(void *ctx)
{
	struct socats *s = ctx;

	s->before_s = cpu_of(s->pids[0]) + cpu_of(s->pids[1]);
}

static double end_socats(const struct socats *s)
{
	double cpu = -s->before_s;

	for (unsigned i = 0; i < 2; i++) {
		struct rusage used;
		int status;

		if (wait4(s->pids[i], &status, 0, &used) != s->pids[i] || status != 0) {
			fprintf(stderr, "socat failed\n");
			exit(1);
		}
		cpu += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
		       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	}
	return cpu;
}

/* Between @fd as its standard input and output and that TLS address. 0: there is none. */
static pid_t spawn_socat(int fd, const char *block, const char *address)
{
	const char *argv[] = { "socat", "-b", block, "STDIO", address, NULL };
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, 0);
	posix_spawn_file_actions_adddup2(&actions, fd, 1);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	r = posix_spawnp(&pid, "socat", &actions, NULL, (char **)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return r == 0 ? pid : 0;
}

static unsigned free_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *)&address, n) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &n) < 0) {
		exit(1);
	}
	close(fd);
	return ntohs(address.sin_port);
}

/* {0} where there is no socat. */
static struct figures socat_turn(const struct bytes *stream, const struct peer_tls *files,
				 const char *block)
{
	struct reader reader = { 0 };
	struct figures f = { 0 };
	struct socats socats = { 0 };
	char listen[600], dial[600], common[400];
	unsigned port = free_port();
	int in[2], out[2];

	snprintf(common, sizeof(common), "cert=%s,key=%s,cafile=%s,verify=1,"
		 "openssl-min-proto-version=TLS1.3,nodelay", files->certificate, files->key,
		 files->ca);
	snprintf(listen, sizeof(listen), "OPENSSL-LISTEN:%u,bind=127.0.0.1,reuseaddr,%s", port,
		 common);
	snprintf(dial, sizeof(dial), "OPENSSL:127.0.0.1:%u,commonname=bench,retry=100,"
		 "interval=0.02,%s", port, common);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, out) < 0) {
		exit(1);
	}
	socats.pids[0] = spawn_socat(out[0], block, listen);
	socats.pids[1] = socats.pids[0] ? spawn_socat(in[1], block, dial) : 0;
	close(in[1]);
	close(out[0]);
	if (socats.pids[1]) {
		reader.fd = out[1];
		f.s = pass(stream, in[0], &reader, begin_socats, &socats);
		f.cpu_s = end_socats(&socats);
	}
	close(in[0]);
	close(out[1]);
	return f;
}

/* Of each turn, for each way; and of socat's with each size of its blocks. */
struct results {
	struct figures ways[N_WAYS][TURNS], socat[2][SOCAT_TURNS];
};

static void print(const char *name, const struct figures *f, unsigned n, double gib)
{
	double s[TURNS], cpu_s[TURNS];

	for (unsigned i = 0; i < n; i++) {
		s[i] = f[i].s;
		cpu_s[i] = f[i].cpu_s;
	}
	printf("  %-28s %6.3f GiB/s, %6.3f CPU s per GiB\n", name, gib / median(s, n),
	       median(cpu_s, n) / gib);
}

static void against(const char *name, const struct figures *ours, const struct figures *theirs,
		    unsigned n)
{
	double speed[TURNS], cpu[TURNS];

	for (unsigned i = 0; i < n; i++) {
		speed[i] = theirs[i].s / ours[i].s;
		cpu[i] = ours[i].cpu_s / theirs[i].cpu_s;
	}
	printf("  %-28s %6.3f of the speed, %6.3f of the CPU\n", name, median(speed, n),
	       median(cpu, n));
}

/* @files: NULL for a UNIX socket. */
static void compare(const char *name, const struct bytes *stream, struct tls_identity *client,
		    struct tls_identity *server, const struct peer_tls *files)
{
	static const char *const blocks[] = { "8192", "262144" };
	static const char *const names[] = { "filter off", "filter on", "filter in a process" };
	double gib = (double)stream->n / (1 << 30);
	static struct results r;
	char label[40];

	for (unsigned i = 0; i < TURNS; i++) {
		for (unsigned j = 0; j < N_WAYS; j++) {
			unsigned way = i % 2 ? N_WAYS - 1 - j : j;	/* no one always after another */

			r.ways[way][i] = turn(stream, client, server, (enum way)way);
		}
		for (unsigned j = 0; files && i < SOCAT_TURNS && j < GCLK_COUNT(blocks); j++) {
			r.socat[j][i] = socat_turn(stream, files, blocks[j]);
		}
	}
	printf("%s\n", name);
	for (unsigned j = 0; j < N_WAYS; j++) {
		print(names[j], r.ways[j], TURNS, gib);
	}
	against("filter on / off", r.ways[ON], r.ways[OFF], TURNS);
	against("filter in a process / off", r.ways[FAR], r.ways[OFF], TURNS);
	for (unsigned j = 0; files && j < GCLK_COUNT(blocks); j++) {
		if (r.socat[j][0].s == 0) {
			printf("  socat: skipped: it is not installed\n");
			break;
		}
		snprintf(label, sizeof(label), "socat -b %s", blocks[j]);
		print(label, r.socat[j], SOCAT_TURNS, gib);
		snprintf(label, sizeof(label), "... in a process / %s", blocks[j]);
		against(label, r.ways[FAR], r.socat[j], SOCAT_TURNS);
	}
}

/* One thread encrypting records of 16 KiB, as TLS does. */
static void cipher_alone(void)
{
	static uint8_t in[16384], out[16384 + 16];
	const uint8_t key[32] = { 1 }, iv[12] = { 2 };
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	double begin = now_s(CLOCK_MONOTONIC), s;
	uint64_t n = 0;
	int size;

	do {
		EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv);
		EVP_EncryptUpdate(ctx, out, &size, in, sizeof(in));
		EVP_EncryptFinal_ex(ctx, out, &size);
		n += sizeof(in);
		s = now_s(CLOCK_MONOTONIC) - begin;
	} while (s < 0.5);
	printf("AES-256-GCM alone, one thread: %.3f GiB/s\n", (double)n / s / (1 << 30));
	EVP_CIPHER_CTX_free(ctx);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
	struct tls_identity *client, *server;
	struct bytes stream = { 0 };
	struct peer_tls files;
	struct pki pki;

	bench_entry(argv);
	signal(SIGPIPE, SIG_IGN);
	make_stream(&stream, W_PAGE, mib << 20);
	pki_open(&pki);
	files = pki_make(&pki, "a", "bench", 1);
	if (tls_identity_new(&files, false, &client, NULL) < 0 ||
	    tls_identity_new(&files, true, &server, NULL) < 0) {
		return 1;
	}
	printf("%zu MiB, %d turns, medians\n", mib, TURNS);
	compare("TLS", &stream, client, server, &files);
	compare("UNIX", &stream, NULL, NULL, NULL);
	cipher_alone();
	tls_identity_free(client);
	tls_identity_free(server);
	pki_close(&pki);
	free(stream.p);
	return 0;
}
