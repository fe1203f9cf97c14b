/* SPDX-License-Identifier: MIT */
/*
 * The system calls of a confined process; any other one kills it (SIGSYS). What is not
 * here matters most: nothing opens, connects, binds, forks, executes, traces, signals or
 * mounts. Memory cannot be made executable.
 */
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/confine/confine.h"
#include "migrator/confine/sanitized.h"

#ifdef __x86_64__

static const int allowed[] = {
	/* the file, by its descriptor; the copy, by its own */
	SYS_read, SYS_pread64, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx,
	SYS_write, SYS_pwrite64, SYS_ftruncate, SYS_copy_file_range, SYS_sync_file_range,
	SYS_fsync, SYS_fdatasync, SYS_close,
	/* the socket to the parent */
	SYS_sendmsg, SYS_recvmsg,
	/* memory; mmap and mprotect without PROT_EXEC, below */
	SYS_munmap, SYS_mremap, SYS_brk, SYS_madvise,
	/* locks of the C library, which nobody contends for */
	SYS_futex,
	/* qsort(), which asks how much memory there is */
	SYS_sysinfo,
	/* seeds of hash tables (json-c, libxml2) */
	SYS_getrandom,
	/* time, where the vDSO does not tell it */
	SYS_clock_gettime, SYS_gettimeofday,
	/* to end; to come back from a handler that a sanitizer or abort() has */
	SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction,
	SYS_restart_syscall, SYS_getpid, SYS_gettid,
#if SANITIZED
	/* a report of the sanitizers */
	SYS_sigaltstack, SYS_sched_yield, SYS_readlink, SYS_getrlimit, SYS_prctl,
#endif
};

/* Those whose third argument says PROT_EXEC or not. */
static const int without_exec[] = { SYS_mmap, SYS_mprotect };

#define LOAD(member) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define SKIP_UNLESS(value, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, n)

#define N_EXEC GCLK_COUNT(without_exec)
#define N_CODE (5 + 2 * GCLK_COUNT(allowed) + 5 * N_EXEC + 1)

static unsigned write_code(struct sock_filter *to)
{
	unsigned n = 0;

	/* another architecture counts its calls differently; x32 has the same one */
	to[n++] = (struct sock_filter)LOAD(arch);
	to[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	to[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
	to[n++] = (struct sock_filter)LOAD(nr);
	for (unsigned i = 0; i < GCLK_COUNT(allowed); i++) {
		to[n++] = (struct sock_filter)SKIP_UNLESS((unsigned)allowed[i], 1);
		to[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	}
	for (unsigned i = 0; i < N_EXEC; i++) {
		to[n++] = (struct sock_filter)SKIP_UNLESS((unsigned)without_exec[i], 4);
		to[n++] = (struct sock_filter)LOAD(args[2]);
		to[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
		to[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
		to[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
	}
	to[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
	return n;
}

int confine_syscalls(struct gclk_error *reterr)
{
	struct sock_filter code[N_CODE];
	struct sock_fprog program = { .filter = code };

	program.len = (unsigned short)write_code(code);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0) {
		return gclk_fail(reterr, GCLK_SYS, NULL, GCLK_NO_OFFSET,
				 "a filter of system calls: %m");
	}
	return 0;
}

#else

int confine_syscalls(struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
			 "a filter of system calls: there is no list for this processor");
}

#endif
