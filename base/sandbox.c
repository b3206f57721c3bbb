/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/sandbox.h"
#include "base/report.h"
#include "base/scope.h"
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef HAVE_LINUX_LANDLOCK_H
#include <linux/landlock.h>
#endif

/* ---- capabilities ---------------------------------------------------------------------------- */

enum { CAPABILITY_BITS = 64, WORD_BITS = 32 };

static uint64_t
join(uint32_t low, uint32_t high)
{
    return (uint64_t)high << WORD_BITS | low;
}

static int
get_capabilities(struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3])
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};

    return syscall(SYS_capget, &head, data) < 0 ? -errno : 0;
}

uint64_t
sandbox_capabilities(void)
{
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    return get_capabilities(data) < 0 ? 0 : join(data[0].effective, data[1].effective);
}

void
sandbox_bound_capabilities(uint64_t keep)
{
    for (int cap = 0; cap < CAPABILITY_BITS; cap++) {
        if (!(keep & SANDBOX_CAP(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return; /* not ours to drop, or past the last one */
    }
}

int
sandbox_keep_capabilities(uint64_t keep)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    int r = get_capabilities(data);

    if (r < 0)
        return r;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    keep &= join(data[0].permitted, data[1].permitted);
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        uint32_t word = (uint32_t)(keep >> i * WORD_BITS);

        data[i] = (struct __user_cap_data_struct){.effective = word, .permitted = word};
    }
    if (syscall(SYS_capset, &head, data) < 0)
        return -errno;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* ---- Landlock -------------------------------------------------------------------------------- */

#ifdef HAVE_LINUX_LANDLOCK_H

/* Headers are often older than the kernel, so the later parts are spelt out here. */
struct ruleset {
    uint64_t fs, net, scoped;
};

struct port_rule {
    uint64_t access, port;
};

enum {
    FS_TRUNCATE = 1 << 14,
    NET_CONNECT = 2,
    NET_ALL = 3, /* bind and connect, TCP */
    NET_RULE = 2,
    SCOPED_ALL = 3, /* abstract sockets and signals, to outside */
    PORT_DNS = 53,
    VERSION_NET = 4,
    VERSION_SCOPED = 6,
};

int
sandbox_landlock_version(void)
{
    long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    return r < 0 ? 0 : (int)r;
}

/* All rights to files that a version knows. */
static uint64_t
all_fs_rights(int version)
{
    static const unsigned bits[] = {0, 13, 14, 15, 15, 16};
    size_t last = sizeof bits / sizeof *bits - 1;

    return (UINT64_C(1) << bits[(size_t)version < last ? (size_t)version : last]) - 1;
}

/* What is not there needs no rule. */
static int
allow_reading(int set, const char *path)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE};
    AUTO_FD int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;

    rule.parent_fd = fd;
    return fd >= 0 && syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
               ? -errno
               : 0;
}

static int
allow_port(int set, uint16_t port)
{
    struct port_rule rule = {.access = NET_CONNECT, .port = port};

    return syscall(SYS_landlock_add_rule, set, NET_RULE, &rule, 0) < 0 ? -errno : 0;
}

/* Names are looked up in /etc, and where systemd-resolved has its part of that. */
static int
allow_reconnecting(int set, int version, const struct sandbox_connect *c)
{
    int r = allow_reading(set, c->file);

    if (r == 0)
        r = allow_reading(set, c->directory);
    if (r == 0 && c->resolve)
        r = allow_reading(set, "/etc");
    if (r == 0 && c->resolve)
        r = allow_reading(set, "/run/systemd/resolve");
    if (r == 0 && version >= VERSION_NET && c->port)
        r = allow_port(set, c->port);
    if (r == 0 && version >= VERSION_NET && c->resolve)
        r = allow_port(set, PORT_DNS);
    return r;
}

static int
restrict_paths(const struct sandbox_options *opt)
{
    int version = sandbox_landlock_version();
    struct ruleset set = {
        .fs = all_fs_rights(version),
        .net = version >= VERSION_NET ? NET_ALL : 0,
        .scoped = version >= VERSION_SCOPED && !opt->child && !opt->may_log ? SCOPED_ALL : 0,
    };
    size_t size = version >= VERSION_SCOPED ? sizeof set : version >= VERSION_NET ? 16 : 8;
    struct landlock_path_beneath_attr beneath = {
        .parent_fd = opt->dir,
        .allowed_access =
            set.fs & (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                      LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | FS_TRUNCATE),
    };
    AUTO_FD int fd = -1;
    int r;

    if (version == 0 || opt->paths == SANDBOX_ANY_PATH)
        return 0;
    fd = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);
    if (fd < 0)
        return -errno;
    r = allow_reconnecting(fd, version, &opt->connect);
    if (r < 0)
        return r;
    if (opt->paths == SANDBOX_BENEATH &&
        syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
        return -errno;
    return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
}

#else

int
sandbox_landlock_version(void)
{
    return 0;
}

static int
restrict_paths(const struct sandbox_options *opt)
{
    (void)opt;
    return 0;
}

#endif

/* ---- seccomp --------------------------------------------------------------------------------- */

/* libc's, libgcrypt's, OpenSSL's and libfuse's for memory, threads, time and randomness, and ours
 * for what is open.  Names that an architecture lacks are ignored. */
static const int common_calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(pwritev),
    SCMP_SYS(lseek),
    SCMP_SYS(_llseek),
    SCMP_SYS(close),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(fstat),
    SCMP_SYS(fstat64),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstatat64),
    SCMP_SYS(statx),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(ppoll_time64),
    SCMP_SYS(send), /* send(2) and recv(2) are calls of their own on 32-bit ARM, say */
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recv),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(shutdown),
    /* memory; without PROT_EXEC: below */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    /* threads, signals */
    SCMP_SYS(futex),
    SCMP_SYS(futex_time64),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(get_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* time, randomness, who we are */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_gettime64),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_getres_time64),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_nanosleep_time64),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(times),
    SCMP_SYS(getrusage),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(getppid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getuid32),
    SCMP_SYS(geteuid32),
    SCMP_SYS(getgid32),
    SCMP_SYS(getegid32),
};

/* No F_SETOWN, F_SETSIG: they send signals to others. */
static const int fcntl_commands[] = {
    F_GETFD, F_SETFD,     F_GETFL,    F_SETFL,    F_DUPFD_CLOEXEC,
    F_SETLK, F_OFD_SETLK, F_SETLEASE, F_GETLEASE,
};

static const int prctl_options[] = {PR_SET_NAME, PR_SET_PDEATHSIG, PR_SET_VMA};

/* The flags of clone(2). */
#ifdef __s390__
enum { CLONE_FLAGS = 1 };
#else
enum { CLONE_FLAGS = 0 };
#endif

static int
allow_all(scmp_filter_ctx f, const int *calls, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
    return r;
}

/* Allows @call where argument @arg is @value. */
static int
allow_if(scmp_filter_ctx f, int call, unsigned arg, uint64_t value)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 1, SCMP_CMP(arg, SCMP_CMP_EQ, value, 0));
}

static int
allow_each(scmp_filter_ctx f, int call, unsigned arg, const int *values, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = allow_if(f, call, arg, (uint64_t)values[i]);
    return r;
}

/* Threads yes, processes no.  clone3() has its flags where no filter sees them; glibc takes ENOSYS
 * for "use clone()". */
static int
allow_threads(scmp_filter_ctx f)
{
    const uint64_t flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
    int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_CMP(CLONE_FLAGS, SCMP_CMP_MASKED_EQ, flags, flags));

    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return r < 0 ? r : allow_if(f, SCMP_SYS(tgkill), 0, (uint64_t)getpid());
}

static int
allow_data_memory(scmp_filter_ctx f)
{
    static const int calls[] = {SCMP_SYS(mmap), SCMP_SYS(mmap2), SCMP_SYS(mprotect)};
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof calls / sizeof *calls; i++)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 1,
                             SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return r;
}

static int
allow_child(scmp_filter_ctx f, pid_t child)
{
    static const int waits[] = {SCMP_SYS(wait4), SCMP_SYS(waitid)};
    int r = allow_if(f, SCMP_SYS(kill), 0, (uint64_t)child);

    if (r == 0)
        r = allow_if(f, SCMP_SYS(pidfd_open), 0, (uint64_t)child);
    return r < 0 ? r : allow_all(f, waits, sizeof waits / sizeof *waits);
}

/* Sockets of @family and @type, whatever flags are with it. */
static int
allow_sockets(scmp_filter_ctx f, int family, int type)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                            SCMP_CMP(0, SCMP_CMP_EQ, (uint64_t)family, 0),
                            SCMP_CMP(1, SCMP_CMP_MASKED_EQ,
                                     (uint32_t) ~(SOCK_CLOEXEC | SOCK_NONBLOCK), (uint64_t)type));
}

/* syslog(3) connects again when its daemon was restarted. */
static int
allow_log(scmp_filter_ctx f)
{
    static const int calls[] = {SCMP_SYS(connect), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt)};
    int r = allow_sockets(f, AF_UNIX, SOCK_DGRAM);

    return r < 0 ? r : allow_all(f, calls, sizeof calls / sizeof *calls);
}

/* Reads of files: which, is Landlock's to say. */
static int
allow_opening_to_read(scmp_filter_ctx f)
{
    static const int calls[] = {SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2)};
    int r = seccomp_rule_add(
        f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
        SCMP_CMP(2, SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE, O_RDONLY));

    return r < 0 ? r : allow_all(f, calls, sizeof calls / sizeof *calls);
}

/* What libc's resolver does. */
static int
allow_resolving(scmp_filter_ctx f)
{
    static const int calls[] = {SCMP_SYS(bind), SCMP_SYS(sendmmsg), SCMP_SYS(getpeername)};
    int r = allow_sockets(f, AF_INET, SOCK_DGRAM);

    if (r == 0)
        r = allow_sockets(f, AF_INET6, SOCK_DGRAM);
    if (r == 0)
        r = allow_sockets(f, AF_NETLINK, SOCK_RAW);
    if (r == 0)
        r = allow_if(f, SCMP_SYS(ioctl), 1, FIONREAD);
    return r < 0 ? r : allow_all(f, calls, sizeof calls / sizeof *calls);
}

static int
allow_connecting(scmp_filter_ctx f, const struct sandbox_connect *c)
{
    static const int calls[] = {SCMP_SYS(connect), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
                                SCMP_SYS(getsockname)};
    int r = c->local || c->port ? allow_all(f, calls, sizeof calls / sizeof *calls) : 0;

    if (r == 0 && c->local)
        r = allow_sockets(f, AF_UNIX, SOCK_STREAM);
    if (r == 0 && c->port)
        r = allow_sockets(f, AF_INET, SOCK_STREAM);
    if (r == 0 && c->port)
        r = allow_sockets(f, AF_INET6, SOCK_STREAM);
    if (r == 0 && (c->file || c->directory || c->resolve))
        r = allow_opening_to_read(f);
    return r == 0 && c->resolve ? allow_resolving(f) : r;
}

static int
add_rules(scmp_filter_ctx f, const struct sandbox_options *opt)
{
    int r = allow_all(f, common_calls, sizeof common_calls / sizeof *common_calls);

    if (r == 0)
        r = allow_each(f, SCMP_SYS(fcntl), 1, fcntl_commands,
                       sizeof fcntl_commands / sizeof *fcntl_commands);
    if (r == 0)
        r = allow_each(f, SCMP_SYS(fcntl64), 1, fcntl_commands,
                       sizeof fcntl_commands / sizeof *fcntl_commands);
    if (r == 0)
        r = allow_each(f, SCMP_SYS(prctl), 0, prctl_options,
                       sizeof prctl_options / sizeof *prctl_options);
    if (r == 0)
        r = allow_data_memory(f);
    if (r == 0)
        r = allow_threads(f);
    if (r == 0 && opt->child)
        r = allow_child(f, opt->child);
    if (r == 0 && opt->may_log)
        r = allow_log(f);
    if (r == 0)
        r = allow_connecting(f, &opt->connect);
    return r < 0 ? r : allow_all(f, opt->calls, opt->n_calls);
}

/* The refused call fails, and does not kill: a call that a later libc tries and can do without must
 * not take a machine's TPM away. */
static int
restrict_calls(const struct sandbox_options *opt)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r;

    if (!f)
        return -ENOMEM;
    r = add_rules(f, opt);
    if (r == 0)
        r = seccomp_load(f);
    seccomp_release(f);
    return r;
}

int
sandbox_enter(const struct sandbox_options *opt)
{
    int r;

#ifdef WITH_SANITIZERS
    return 0;
#endif
    r = restrict_paths(opt);
    if (r < 0)
        return report(r, "cannot enter the sandbox (Landlock): %s; -o sandbox=off does without",
                      errno_text(r));
    r = restrict_calls(opt);
    if (r < 0)
        return report(r, "cannot enter the sandbox (seccomp): %s; -o sandbox=off does without",
                      errno_text(r));
    return 0;
}

/* ---- helpers --------------------------------------------------------------------------------- */

static void
keep_only(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; null >= 0 && i < SANDBOX_HELPER_FD; i++)
        dup2(null, i);
    dup2(fd, SANDBOX_HELPER_FD);
    close_range(SANDBOX_HELPER_FD + 1, ~0U, 0);
    fcntl(SANDBOX_HELPER_FD, F_SETFD, FD_CLOEXEC);
}

static int
confine_helper(const struct sandbox_helper *h)
{
    const struct sandbox_options opt = {
        .calls = h->calls, .n_calls = h->n_calls, .paths = SANDBOX_ANY_PATH};
    int r;

    sandbox_bound_capabilities(h->capabilities);
    r = sandbox_keep_capabilities(h->capabilities);
    return r < 0 ? r : sandbox_enter(&opt);
}

void
sandbox_leave_session(const char *name)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGXFSZ};
    const struct rlimit no_core = {0, 0};
    sigset_t none;

    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid(); /* no stop from the terminal either */
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &no_core);
}

int
sandbox_be_helper(const struct sandbox_helper *h, int fd, bool confined)
{
    sandbox_leave_session(h->name);
    keep_only(fd);
    if (chdir("/") < 0)
        return -errno;
    return confined ? confine_helper(h) : 0;
}
