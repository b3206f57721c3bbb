/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/confine.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { LINK_FD = 3 };

static int
silence_standard_fds(void)
{
    AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return -errno;
    for (int fd = 0; fd < LINK_FD; fd++)
        if (dup2(null, fd) < 0)
            return -errno;
    if (null < LINK_FD)
        null = -1; /* it is one of them */
    return 0;
}

/* Each may be where another is to go: so first away with all of them. */
static int
keep(int fd, int *const others[], size_t n)
{
    int next = LINK_FD + 1;

    for (size_t i = 0; i < n; i++) {
        if (*others[i])
            *others[i] = fcntl(*others[i], F_DUPFD_CLOEXEC, LINK_FD + 1 + (int)n);
        if (*others[i] < 0)
            return -errno;
    }
    if (fd != LINK_FD && dup3(fd, LINK_FD, O_CLOEXEC) < 0)
        return -errno;
    for (size_t i = 0; i < n; i++) {
        if (!*others[i])
            continue;
        if (dup3(*others[i], next, O_CLOEXEC) < 0)
            return -errno;
        *others[i] = next++;
    }
    return close_range((unsigned)next, ~0U, 0) < 0 ? -errno : 0;
}

int
confine_inheritance(int fd, int *const others[], size_t n)
{
    int r;

    sandbox_leave_session("vnvram-tpm");
    umask(077);
    if (chdir("/") < 0)
        return -errno;
    r = keep(fd, others, n);
    if (r < 0)
        return r;
    r = silence_standard_fds();
    return r < 0 ? r : LINK_FD;
}

/* Only for root: an unprivileged mount's owner is who we are already. */
static int
become(uid_t uid, gid_t gid, uid_t owner, gid_t owner_gid)
{
    /* A user namespace may forbid it, but then its root has no groups that would matter here. */
    if (setgroups(0, NULL) < 0 && !(errno == EPERM && uid == 0))
        return -errno;
    if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return -errno;
    if (uid == 0) {
        setfsgid(owner_gid);
        setfsuid(owner);
        if (setfsgid((gid_t)-1) != (int)owner_gid || setfsuid((uid_t)-1) != (int)owner)
            return -EPERM; /* they return what was there before, whether or not they worked */
    }
    return 0;
}

int
confine_rights(uid_t uid, gid_t gid, uid_t owner, gid_t owner_gid)
{
    int r = 0;

    sandbox_bound_capabilities(0);
    if (geteuid() == 0)
        r = become(uid, gid, owner, owner_gid);
    if (r == 0)
        r = sandbox_keep_capabilities(0);
    if (r == 0 && (geteuid() != uid || getegid() != gid))
        r = -EPERM;
    if (r < 0)
        return report(r, "the TPM process cannot become user %u, group %u: %s", uid, gid,
                      errno_text(r));
    prctl(PR_SET_DUMPABLE, 0); /* changing the user has switched it on again */
    return 0;
}

/* libcrypto reads its configuration when it is first used, which is too late inside.  It is there
 * if libtpms was built with it. */
extern int OPENSSL_init_crypto(uint64_t what, const void *settings) __attribute__((weak));

enum { OPENSSL_LOAD_CONFIG = 0x40 };

int
confine_calls(int dir, bool control)
{
    static const int calls[] = {
        SCMP_SYS(openat),
        SCMP_SYS(unlinkat),
        SCMP_SYS(renameat),
        SCMP_SYS(renameat2),
        SCMP_SYS(fchown),
        SCMP_SYS(fchown32),
        SCMP_SYS(fchmod),
        SCMP_SYS(ftruncate),
        SCMP_SYS(ftruncate64),
        SCMP_SYS(timerfd_settime),
        SCMP_SYS(timerfd_settime64),
        SCMP_SYS(epoll_create1),
        SCMP_SYS(epoll_ctl),
        SCMP_SYS(epoll_wait),
        SCMP_SYS(epoll_pwait),
        SCMP_SYS(accept4), /* last: for the control channel only */
    };
    const struct sandbox_options opt = {
        .calls = calls,
        .n_calls = sizeof calls / sizeof *calls - (control ? 0 : 1),
        .paths = SANDBOX_BENEATH,
        .dir = dir,
    };

    if (OPENSSL_init_crypto)
        OPENSSL_init_crypto(OPENSSL_LOAD_CONFIG, NULL);
    return sandbox_enter(&opt);
}
