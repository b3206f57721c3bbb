/* SPDX-License-Identifier: BSD-3-Clause */
/* The filters of the daemon and of the TPM's process, as these enter them, tried from inside: each
 * case runs in a child of its own. */
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include "cli/daemon.h"
#include "config.h"
#include "tpm/confine.h"
#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
/* after the others */
#include <cmocka.h>

static char dir[] = "/tmp/test_sandbox.XXXXXX";
static int dir_fd = -1;

/* 0, or the line in a child's case that does not hold. */
#define HOLDS(condition)                                                                           \
    do                                                                                             \
        if (!(condition))                                                                          \
            return __LINE__;                                                                       \
    while (0)
#define FAILS(error, call) HOLDS(((errno = 0), (call) < 0) && errno == (error))

typedef int child_fn(void *arg);

/* What @fn returns in a child.  A line number does not fit in an exit code. */
static int
in_child(child_fn *fn, void *arg)
{
    int fds[2], line = -1, status;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        line = fn(arg);
        _exit(write(fds[1], &line, sizeof line) == (ssize_t)sizeof line ? 0 : 1);
    }
    assert_true(pid > 0);
    close(fds[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(fds[0], &line, sizeof line), sizeof line);
    close(fds[0]);
    return line;
}

/* ---- capabilities ---------------------------------------------------------------------------- */

static int
keep_lease(void *arg)
{
    uint64_t before = sandbox_capabilities(), lease = SANDBOX_CAP(CAP_LEASE);

    (void)arg;
    sandbox_bound_capabilities(lease);
    HOLDS(sandbox_keep_capabilities(lease) == 0);
    HOLDS(sandbox_capabilities() == (before & lease));
    HOLDS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    if (before & SANDBOX_CAP(CAP_SETPCAP)) {
        HOLDS(prctl(PR_CAPBSET_READ, CAP_LEASE, 0, 0, 0) == 1);
        HOLDS(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) == 0);
        HOLDS(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0);
        HOLDS(prctl(PR_CAPBSET_READ, CAP_AUDIT_READ, 0, 0, 0) == 0);
    }
    sandbox_keep_capabilities(UINT64_MAX); /* there is no way back */
    HOLDS(sandbox_capabilities() == (before & lease));
    return 0;
}

static void
only_the_capabilities_that_are_kept_stay(void **state)
{
    (void)state;
    assert_int_equal(in_child(keep_lease, NULL), 0);
}

/* ---- helpers --------------------------------------------------------------------------------- */

static bool
is_null(int fd)
{
    struct stat st, null;

    return fstat(fd, &st) == 0 && stat("/dev/null", &null) == 0 && st.st_rdev == null.st_rdev;
}

/* Without capget(2), which the filter refuses. */
static uint64_t
effective_capabilities(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    unsigned long long caps = ~0ULL;
    char line[128];

    while (f && fgets(line, sizeof line, f) && sscanf(line, "CapEff: %llx", &caps) != 1)
        ;
    if (f)
        fclose(f);
    return caps;
}

static int
look_around(bool confined, uint64_t before)
{
    struct sigaction old;
    char name[16], cwd[8];

    HOLDS(is_null(0) && is_null(1) && is_null(2));
    for (int fd = SANDBOX_HELPER_FD + 1; fd < 128; fd++)
        FAILS(EBADF, fcntl(fd, F_GETFD));
    HOLDS(fcntl(SANDBOX_HELPER_FD, F_GETFD) == FD_CLOEXEC);
    HOLDS(sigaction(SIGTERM, NULL, &old) == 0 && old.sa_handler == SIG_IGN);
    if (!confined) {
        HOLDS(sandbox_capabilities() == before);
        HOLDS(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "test-helper") == 0);
        HOLDS(prctl(PR_GET_DUMPABLE) == 0 && getsid(0) == getpid());
        HOLDS(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0);
        return 0;
    }
    HOLDS(effective_capabilities() == (before & SANDBOX_CAP(CAP_FOWNER))); /* may open: it asked */
#ifndef WITH_SANITIZERS
    FAILS(EPERM, mkdir(dir, 0700));
    FAILS(EPERM, fork());
    FAILS(EPERM, socket(AF_UNIX, SOCK_STREAM, 0));
#endif
    return 0;
}

/* The child's case comes by the socket that it is left with. */
static int
in_helper(bool confined)
{
    static const int calls[] = {SCMP_SYS(openat)};
    static const struct sandbox_helper helper = {.name = "test-helper",
                                                 .calls = calls,
                                                 .n_calls = sizeof calls / sizeof *calls,
                                                 .capabilities = SANDBOX_CAP(CAP_FOWNER)};
    uint64_t before = sandbox_capabilities();
    int fds[2], line = -1;
    pid_t pid;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    pid = fork();
    if (pid == 0) {
        fcntl(fds[1], F_DUPFD, 64);
        line = sandbox_be_helper(&helper, fds[1], confined);
        if (line == 0)
            line = look_around(confined, before);
        _exit(write(SANDBOX_HELPER_FD, &line, sizeof line) == (ssize_t)sizeof line ? 0 : 1);
    }
    assert_true(pid > 0);
    close(fds[1]);
    assert_int_equal(read(fds[0], &line, sizeof line), sizeof line);
    close(fds[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return line;
}

static void
a_helper_has_its_socket_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(in_helper(false), 0);
}

static void
a_confined_helper_can_do_one_thing(void **state)
{
    (void)state;
    assert_int_equal(in_helper(true), 0);
}

#ifndef WITH_SANITIZERS

/* ---- what both refuse ------------------------------------------------------------------------ */

static int
cannot_start_processes(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};

    FAILS(EPERM, execv("/bin/true", argv));
    FAILS(EPERM, syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0));
    FAILS(EPERM, fork());
    FAILS(EPERM, vfork());
    FAILS(ENOSYS, syscall(SYS_clone3, NULL, 0));
    FAILS(EPERM, syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0));
    FAILS(EPERM, syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    return 0;
}

static int
cannot_make_sockets(void)
{
    int pair[2];

    FAILS(EPERM, socket(AF_INET, SOCK_STREAM, 0));
    FAILS(EPERM, socket(AF_INET6, SOCK_DGRAM, 0));
    FAILS(EPERM, socket(AF_NETLINK, SOCK_RAW, 0));
    FAILS(EPERM, socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(EPERM, socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    FAILS(EPERM, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    FAILS(EPERM, bind(0, NULL, 0));
    FAILS(EPERM, listen(0, 1));
    FAILS(EPERM, accept(0, NULL, NULL));
    return 0;
}

/* What an attacker would try next. */
static int
cannot_call_what_is_not_needed(void)
{
    static const long calls[] = {
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_bpf,
        SYS_keyctl,
        SYS_io_uring_setup,
        SYS_userfaultfd,
        SYS_perf_event_open,
        SYS_mount,
        SYS_umount2,
        SYS_unshare,
        SYS_setns,
        SYS_pivot_root,
        SYS_open_by_handle_at,
        SYS_memfd_create,
        SYS_init_module,
        SYS_setresuid,
        SYS_setfsuid,
        SYS_capset,
        SYS_ioctl,
        SYS_chroot,
        SYS_linkat,
        SYS_symlinkat,
        SYS_mknodat,
        SYS_mkdirat,
        SYS_execve,
        SYS_personality,
        SYS_seccomp,
        SYS_truncate,
        SYS_fchmodat,
        SYS_fchownat,
        SYS_setxattr,
        SYS_prlimit64,
        SYS_reboot,
        SYS_tkill,
        SYS_pidfd_send_signal,
        SYS_openat2,
        SYS_open_tree,
        SYS_move_mount,
        SYS_fsopen,
    };

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (syscall(calls[i], -1L, -1L, -1L, -1L, -1L, -1L) >= 0 || errno != EPERM)
            return (int)(100000 + calls[i]);
    return 0;
}

static int
cannot_signal_or_trace(void)
{
    FAILS(EPERM, kill(getppid(), 0));
    FAILS(EPERM, kill(-1, 0));
    FAILS(EPERM, syscall(SYS_tgkill, getppid(), getppid(), 0));
    FAILS(EPERM, syscall(SYS_pidfd_open, getppid(), 0));
    FAILS(EPERM, fcntl(STDIN_FILENO, F_SETOWN, getppid()));
    FAILS(EPERM, fcntl(STDIN_FILENO, F_SETSIG, SIGKILL));
    FAILS(EPERM, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    FAILS(EPERM, prctl(PR_SET_SECCOMP, 1, 0, 0, 0));
    return 0;
}

static int
cannot_run_data(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    HOLDS(page != MAP_FAILED);
    FAILS(EPERM, mprotect(page, 4096, PROT_READ | PROT_EXEC));
    HOLDS(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
          MAP_FAILED);
    HOLDS(errno == EPERM);
    return 0;
}

static int
is_shut(void)
{
    int line = cannot_start_processes();

    if (line == 0)
        line = cannot_make_sockets();
    if (line == 0)
        line = cannot_call_what_is_not_needed();
    if (line == 0)
        line = cannot_signal_or_trace();
    return line ? line : cannot_run_data();
}

/* ---- what both can do ------------------------------------------------------------------------ */

static void *
allocate(void *arg)
{
    char *p = malloc(1 << 20);

    (void)arg;
    if (p)
        memset(p, 1, 1 << 20);
    free(p);
    return p ? arg : NULL;
}

static int
can_compute(void)
{
    char *big = calloc(1, 64 << 20);
    uint8_t random[64], digest[32];
    struct timespec now;
    pthread_t thread;
    void *done = NULL;

    HOLDS(big && big[1 << 20] == 0);
    big = realloc(big, 100 << 20);
    HOLDS(big);
    free(big);
    HOLDS(pthread_create(&thread, NULL, allocate, random) == 0);
    HOLDS(pthread_join(thread, &done) == 0 && done == random);
    HOLDS(clock_gettime(CLOCK_REALTIME, &now) == 0);
    HOLDS(nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL) == 0);
    gcry_randomize(random, sizeof random, GCRY_VERY_STRONG_RANDOM);
    gcry_md_hash_buffer(GCRY_MD_SHA256, digest, random, sizeof random);
    return 0;
}

/* Makes a key pair: the longest way through libgcrypt. */
static int
can_make_keys(void)
{
    gcry_sexp_t what = NULL, key = NULL;

    HOLDS(gcry_sexp_build(&what, NULL, "(genkey (rsa (nbits 4:1024)))") == 0);
    HOLDS(gcry_pk_genkey(&key, what) == 0);
    gcry_sexp_release(key);
    gcry_sexp_release(what);
    return 0;
}

static int
can_use_what_is_open(int fd)
{
    struct stat st;
    char buf[4];

    HOLDS(pwrite(fd, "abcd", 4, 0) == 4 && pread(fd, buf, 4, 0) == 4);
    HOLDS(memcmp(buf, "abcd", 4) == 0);
    HOLDS(fsync(fd) == 0 && fdatasync(fd) == 0 && fstat(fd, &st) == 0);
    HOLDS(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL)) == 0);
    return 0;
}

/* ---- the daemon ------------------------------------------------------------------------------ */

struct daemon_case {
    pid_t child;
    int file;
};

static int
daemon_inside(void *arg)
{
    struct daemon_case *c = arg;
    struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/nobody"};
    int s, line;

    HOLDS(daemon_confine(c->child, false, false, &(struct sandbox_connect){0}) == 0);
    FAILS(EPERM, open("/dev/null", O_RDONLY));
    FAILS(EPERM, openat(dir_fd, "file", O_RDONLY));
#ifdef SYS_open /* newer architectures have openat() only */
    FAILS(EPERM, syscall(SYS_open, "/dev/null", O_RDONLY));
#endif
    FAILS(EPERM, creat("/tmp/none", 0600));
    FAILS(EPERM, unlinkat(dir_fd, "file", 0));
    FAILS(EPERM, renameat(dir_fd, "file", dir_fd, "other"));
    line = is_shut();
    if (line == 0)
        line = can_compute();
    if (line == 0)
        line = can_make_keys();
    if (line == 0)
        line = can_use_what_is_open(c->file);
    if (line)
        return line;

    s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    HOLDS(s >= 0);
    FAILS(ENOENT, connect(s, (struct sockaddr *)&nobody, sizeof nobody));
    HOLDS(fcntl(c->file, F_SETLEASE, F_WRLCK) == 0 && fcntl(c->file, F_SETLEASE, F_UNLCK) == 0);
    HOLDS(kill(c->child, 0) == 0);
    return 0;
}

static void
the_daemon_uses_what_is_open_and_nothing_else(void **state)
{
    struct daemon_case c = {.file = openat(dir_fd, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0600)};

    (void)state;
    assert_true(c.file >= 0);
    c.child = fork();
    if (c.child == 0) {
        pause();
        _exit(0);
    }
    assert_int_equal(in_child(daemon_inside, &c), 0);
    kill(c.child, SIGKILL);
    waitpid(c.child, NULL, 0);
    close(c.file);
}

/* ---- a way back to one server ------------------------------------------------------------------
 */

static int
may_reach_a_local_server(void *arg)
{
    const struct sandbox_connect local = {.local = true};
    struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/nobody"};
    int s;

    (void)arg;
    HOLDS(daemon_confine(0, false, false, &local) == 0);
    s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    HOLDS(s >= 0);
    FAILS(ENOENT, connect(s, (struct sockaddr *)&nobody, sizeof nobody));
    FAILS(EPERM, socket(AF_INET, SOCK_STREAM, 0));
    FAILS(EPERM, socket(AF_UNIX, SOCK_SEQPACKET, 0));
    FAILS(EPERM, bind(s, (struct sockaddr *)&nobody, sizeof nobody));
    FAILS(EPERM, openat(AT_FDCWD, "/dev/null", O_RDONLY));
    HOLDS((sandbox_capabilities() & ~(SANDBOX_CAP(CAP_LEASE) | SANDBOX_CAP(CAP_DAC_OVERRIDE))) ==
          0);
    return 0;
}

static int
may_reach_a_port(void *arg)
{
    const struct sandbox_connect far = {.port = 10809};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(10810), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int s;

    (void)arg;
    HOLDS(daemon_confine(0, false, false, &far) == 0);
    s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    HOLDS(s >= 0);
    HOLDS(connect(s, (struct sockaddr *)&to, sizeof to) < 0); /* nobody is there, in any case */
    if (sandbox_landlock_version() >= 4)
        HOLDS(errno == EACCES);
    FAILS(EPERM, bind(s, (struct sockaddr *)&to, sizeof to));
    FAILS(EPERM, socket(AF_INET, SOCK_DGRAM, 0));
    FAILS(EPERM, socket(AF_INET, SOCK_RAW, 0));
    FAILS(EPERM, socket(AF_NETLINK, SOCK_RAW, 0));
    FAILS(EPERM, socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(EPERM, openat(AT_FDCWD, "/dev/null", O_RDONLY));
    HOLDS((sandbox_capabilities() & ~SANDBOX_CAP(CAP_LEASE)) == 0);
    return 0;
}

static int
may_read_what_tls_takes(void *arg)
{
    char path[64];
    const struct sandbox_connect far = {.port = 10809, .directory = path};

    (void)arg;
    snprintf(path, sizeof path, "/proc/self/fd/%d", dir_fd);
    HOLDS(daemon_confine(0, false, false, &far) == 0);
    HOLDS(openat(dir_fd, "file", O_RDONLY) >= 0);
    FAILS(EPERM, openat(dir_fd, "file", O_RDWR));
    FAILS(EPERM, openat(dir_fd, "new", O_RDONLY | O_CREAT, 0600));
    FAILS(EPERM, openat(dir_fd, "file", O_RDONLY | O_TRUNC));
    if (sandbox_landlock_version() > 0)
        FAILS(EACCES, openat(AT_FDCWD, "/etc/passwd", O_RDONLY));
    FAILS(EPERM, socket(AF_INET, SOCK_DGRAM, 0));
    return 0;
}

static void
the_daemon_can_go_back_to_its_server_and_nowhere_else(void **state)
{
    (void)state;
    assert_int_equal(in_child(may_reach_a_local_server, NULL), 0);
    assert_int_equal(in_child(may_reach_a_port, NULL), 0);
    assert_int_equal(in_child(may_read_what_tls_takes, NULL), 0);
}

/* ---- the TPM's process ----------------------------------------------------------------------- */

static int
tpm_files(void)
{
    int fd = openat(dir_fd, "new", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    HOLDS(fd >= 0);
    HOLDS(can_use_what_is_open(fd) == 0);
    HOLDS(ftruncate(fd, 2) == 0 && fchmod(fd, 0640) == 0 && fchown(fd, getuid(), getgid()) == 0);
    HOLDS(renameat(dir_fd, "new", dir_fd, "renamed") == 0);
    HOLDS(fsync(dir_fd) == 0);
    HOLDS(unlinkat(dir_fd, "renamed", 0) == 0);
    fd = openat(dir_fd, "file", O_RDWR | O_TRUNC | O_CLOEXEC);
    HOLDS(fd >= 0);
    return 0;
}

static int
tpm_inside(void *arg)
{
    int version = sandbox_landlock_version(), line;

    (void)arg;
    HOLDS(confine_calls(dir_fd, false) == 0);
    line = tpm_files();
    if (line == 0)
        line = is_shut();
    if (line == 0)
        line = can_compute();
    if (line)
        return line;
    FAILS(EPERM, socket(AF_UNIX, SOCK_DGRAM, 0));
    FAILS(EPERM, connect(0, NULL, 0));
    FAILS(EPERM, accept4(dir_fd, NULL, NULL, 0));
    if (version == 0)
        return 0;
    FAILS(EACCES, openat(AT_FDCWD, "/dev/null", O_RDONLY));
    FAILS(EACCES, openat(AT_FDCWD, "/etc/passwd", O_RDONLY));
    FAILS(EACCES, openat(AT_FDCWD, "/proc/self/maps", O_RDONLY));
    FAILS(EACCES, openat(dir_fd, "..", O_RDONLY | O_DIRECTORY));
    FAILS(EACCES, openat(dir_fd, "../test_sandbox.none", O_RDWR | O_CREAT, 0600));
    FAILS(EACCES, openat(dir_fd, "link", O_RDONLY));
    FAILS(EACCES, renameat(dir_fd, "file", AT_FDCWD, "/tmp/test_sandbox.none"));
    FAILS(EACCES, unlinkat(AT_FDCWD, "/tmp", AT_REMOVEDIR));
    return 0;
}

static int
controlled_tpm_inside(void *arg)
{
    (void)arg;
    HOLDS(confine_calls(dir_fd, true) == 0);
    FAILS(ENOTSOCK, accept4(dir_fd, NULL, NULL, 0));
    FAILS(EPERM, socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(EPERM, connect(0, NULL, 0));
    FAILS(EPERM, listen(dir_fd, 1));
    return is_shut();
}

static void
the_tpm_uses_files_of_its_directory_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(symlinkat("/etc/passwd", dir_fd, "link"), 0);
    assert_int_equal(in_child(tpm_inside, NULL), 0);
    assert_int_equal(in_child(controlled_tpm_inside, NULL), 0);
}

#endif

static int
setup(void **state)
{
    int fd;

    (void)state;
    gcry_check_version(NULL);
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    if (!mkdtemp(dir))
        return -1;
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = openat(dir_fd, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    return dir_fd < 0 || fd < 0 ? -1 : 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {"file", "image", "link", "new", "renamed"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(dir_fd, names[i], 0);
    close(dir_fd);
    return rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_capabilities_that_are_kept_stay),
        cmocka_unit_test(a_helper_has_its_socket_and_nothing_else),
        cmocka_unit_test(a_confined_helper_can_do_one_thing),
#ifndef WITH_SANITIZERS
        cmocka_unit_test(the_daemon_uses_what_is_open_and_nothing_else),
        cmocka_unit_test(the_daemon_can_go_back_to_its_server_and_nowhere_else),
        cmocka_unit_test(the_tpm_uses_files_of_its_directory_and_nothing_else),
#endif
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
