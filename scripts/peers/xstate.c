// Lets Debian's user-mode-linux 6.1 run on processors whose register state is larger than it knows.
//
// A UML kernel keeps its processes' extended registers in a buffer of 2696 bytes (up to AVX-512) and
// writes them back with PTRACE_SETREGSET. The host takes only a buffer of the full size, which AMX
// makes 11008 bytes: every write fails with EFAULT, and the guest dies before its first process runs.
// This library, loaded with LD_PRELOAD, puts what UML wrote in front of the state that it does not
// know, and tries again. Nothing changes on machines where the first attempt succeeds.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

// Static, because UML calls from small stacks of its own; one thread of it does all the tracing.
static char full[65536] __attribute__((aligned(64)));
static long (*next)(long, long, void *, void *);

static long set_full_state(long pid, void *type, struct iovec *part)
{
	struct iovec all = { full, sizeof(full) };

	if (next(PTRACE_GETREGSET, pid, type, &all) != 0 || part->iov_len >= all.iov_len)
		return -1;
	memcpy(full, part->iov_base, part->iov_len);
	return next(PTRACE_SETREGSET, pid, type, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list args;
	va_start(args, request);
	long pid = va_arg(args, int);
	void *addr = va_arg(args, void *), *data = va_arg(args, void *);
	va_end(args);

	if (!next)
		next = dlsym(RTLD_NEXT, "ptrace");
	long result = next(request, pid, addr, data);
	if (result != 0 && errno == EFAULT && request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE)
		return set_full_state(pid, addr, data);
	return result;
}
