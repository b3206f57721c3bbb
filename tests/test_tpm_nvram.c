/* SPDX-License-Identifier: BSD-3-Clause */
/* A TPM's files when system calls fail, are interrupted, come back short, or are the last of a
 * process. The system calls that change something are defined here, in front of libc's. */
#include "base/report.h"
#include "base/scope.h"
#include "tpm/envelope.h"
#include "tpm/nvram.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
/* after the above */
#include <cmocka.h>

enum { SIZE = 3000, SMALLER = 2000, LARGER = 5000, NEVER = -1 };

#define PERMALL "tpm2-00.permall"
#define TEMP "TMP2-00.permall"

/* ---- the system calls ---- */
static struct {
    int calls;    /* so far */
    int fail_at;  /* this one fails */
    int error;    /* ... with this errno */
    bool dribble; /* writes take a byte less than they could, EINTR comes before each */
    bool interrupted;
    void (*after)(void); /* called after each call: what would be there if the process ended now? */
    char order[64]; /* the calls by their first letters; D: a flush of the directory, W: a durable
                       write */
} sys = {.fail_at = NEVER};

static bool
fails(char letter)
{
    size_t n = strlen(sys.order);

    if (n + 1 < sizeof sys.order)
        sys.order[n] = letter;
    if (sys.calls++ != sys.fail_at)
        return false;
    errno = sys.error;
    return true;
}

static int
done(int r)
{
    int saved = errno;

    if (sys.after)
        sys.after();
    errno = saved;
    return r;
}

ssize_t
pwrite(int fd, const void *buf, size_t n, off_t off)
{
    ssize_t r;

    if (sys.dribble && !sys.interrupted) {
        sys.interrupted = true;
        errno = EINTR;
        return -1;
    }
    sys.interrupted = false;
    if (fails(fcntl(fd, F_GETFL) & O_DSYNC ? 'W' : 'w'))
        return -1;
    r = syscall(SYS_pwrite64, fd, buf, sys.dribble && n > 1 ? n - 1 : n, off);
    done(0);
    return r;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    struct iovec parts[2] = {iov[0], iov[1]};
    ssize_t r;

    assert_int_equal(n, 2);
    assert_true(fcntl(fd, F_GETFL) & O_DSYNC);
    if (sys.dribble && !sys.interrupted) {
        sys.interrupted = true;
        errno = EINTR;
        return -1;
    }
    sys.interrupted = false;
    if (fails('W'))
        return -1;
    parts[1].iov_len -= sys.dribble;
    r = syscall(SYS_pwritev, fd, parts, 2, off, 0);
    done(0);
    return r;
}

static bool
is_directory(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int
fsync(int fd)
{
    return fails(is_directory(fd) ? 'D' : 's') ? -1 : done((int)syscall(SYS_fsync, fd));
}

int
ftruncate(int fd, off_t len)
{
    return fails('t') ? -1 : done((int)syscall(SYS_ftruncate, fd, len));
}

int
fchown(int fd, uid_t uid, gid_t gid)
{
    return fails('o') ? -1 : done((int)syscall(SYS_fchown, fd, uid, gid));
}

int
fchmod(int fd, mode_t mode)
{
    return fails('m') ? -1 : done((int)syscall(SYS_fchmod, fd, mode));
}

int
unlinkat(int dir, const char *name, int flags)
{
    return fails('u') ? -1 : done((int)syscall(SYS_unlinkat, dir, name, flags));
}

int
renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return fails('r') ? -1 : done((int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0));
}

/* ---- the fixture ---- */
static char dir_name[64];
static int dir = -1;
static uint8_t old_blob[SIZE], new_blob[LARGER];
static size_t new_len;
static int torn; /* states that are neither old nor new */

static void
quiet(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void
reset_calls(void)
{
    memset(&sys, 0, sizeof sys);
    sys.fail_at = NEVER;
}

static int
setup(void **state)
{
    (void)state;
    snprintf(dir_name, sizeof dir_name, "%.30s/test_nvram.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir_name));
    dir = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    memset(old_blob, 'o', sizeof old_blob);
    memset(new_blob, 'n', sizeof new_blob);
    torn = 0;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    reset_calls();
    unlinkat(dir, PERMALL, 0);
    unlinkat(dir, TEMP, 0);
    unlinkat(dir, ".lock", 0);
    close(dir);
    assert_int_equal(rmdir(dir_name), 0);
    return 0;
}

static struct nvram *
open_nvram(void)
{
    struct nvram_options opt = {.version = TPM_VERSION_2_0};
    struct nvram *n;

    assert_int_equal(nvram_open(&n, dir, &opt), 0);
    return n;
}

static bool
named_file_is(const uint8_t *blob, size_t len)
{
    AUTO_FD int fd = openat(dir, PERMALL, O_RDONLY | O_CLOEXEC);
    uint8_t buf[ENVELOPE_SIZE + LARGER + 1];
    uint8_t head[ENVELOPE_SIZE];
    ssize_t n = fd < 0 ? -1 : pread(fd, buf, sizeof buf, 0);

    envelope_encode(head, (uint32_t)len);
    return n == (ssize_t)(ENVELOPE_SIZE + len) && memcmp(buf, head, ENVELOPE_SIZE) == 0 &&
           memcmp(buf + ENVELOPE_SIZE, blob, len) == 0;
}

static bool
is_absent(const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
}

static void
look(void)
{
    if (!named_file_is(old_blob, SIZE) && !named_file_is(new_blob, new_len))
        torn++;
}

/* The old blob is stored; the new one, of @len bytes, goes over it. */
static int
overwrite(struct nvram *n, size_t len, int fail_at, int error)
{
    int r;

    reset_calls();
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
    new_len = len;
    sys.calls = 0;
    sys.fail_at = fail_at;
    sys.error = error;
    r = nvram_store(n, NVRAM_PERMALL, new_blob, len);
    sys.fail_at = NEVER;
    return r;
}

/* ---- the cases ---- */
static void
a_blob_is_old_or_new_after_each_system_call(void **state)
{
    static const size_t lens[] = {SIZE, LARGER, SMALLER};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct nvram *n = open_nvram();

        reset_calls();
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
        new_len = lens[i];
        sys.after = look;
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, new_len), 0);
        assert_int_equal(torn, 0);
        reset_calls();
        assert_true(named_file_is(new_blob, new_len));
        nvram_close(n);
    }
}

/* Each of its system calls fails once.  Whatever store says, the named file is old or new; if it
 * says that it is stored, it is the new one; if not, it never says so again. */
static void
a_store_survives_each_failing_call(void **state)
{
    static const size_t lens[] = {SIZE, LARGER, SMALLER};
    static const int errors[] = {EIO, ENOSPC, EPERM};

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        int last = 0;

        for (int at = 0; at <= last; at++) {
            struct nvram *n = open_nvram();
            int r = overwrite(n, lens[i % 3], at, errors[i / 3]);

            if (sys.calls > last)
                last = sys.calls;
            if (r == 0) {
                assert_true(named_file_is(new_blob, new_len));
                assert_int_equal(nvram_failure(n), 0);
            } else {
                assert_true(named_file_is(old_blob, SIZE) || named_file_is(new_blob, new_len));
                assert_int_equal(nvram_failure(n), r);
                assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, new_len), r);
            }
            assert_true(is_absent(TEMP));
            nvram_close(n);
        }
        assert_true(last >= (lens[i % 3] == SIZE ? 1 : 2)); /* a write, and mostly a flush */
    }
}

static void
a_failed_flush_is_never_a_success(void **state)
{
    struct nvram *n = open_nvram();

    (void)state;
    assert_int_equal(overwrite(n, LARGER, 1, EIO), -EIO); /* the write, then the flush */
    assert_int_equal(sys.calls, 2);
    assert_int_equal(nvram_failure(n), -EIO);
    nvram_close(n);
}

/* What must be durable before what; the temporary file gets its size, owner and mode first. */
static void
calls_come_in_the_order_that_makes_them_safe(void **state)
{
    static const struct {
        size_t len;
        const char *order;
    } cases[] = {{SIZE, "W"}, {LARGER, "ws"}, {SMALLER, "utomwsrD"}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct nvram *n = open_nvram();

        reset_calls();
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
        assert_string_equal(sys.order, i == 0 ? "wsD" : i == 1 ? "W" : "utomwsrD");
        reset_calls();
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, cases[i].len), 0);
        assert_string_equal(sys.order, cases[i].order);
        nvram_close(n);
    }
}

static void
a_smaller_blob_has_the_mode_and_owner_of_the_old_one(void **state)
{
    struct nvram *n = open_nvram();
    struct stat st;
    bool root = geteuid() == 0;

    (void)state;
    reset_calls();
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
    assert_int_equal(fchmodat(dir, PERMALL, 0640, 0), 0);
    if (root)
        assert_int_equal(fchownat(dir, PERMALL, 12345, 54321, 0), 0);
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, SMALLER), 0);
    assert_int_equal(fstatat(dir, PERMALL, &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    if (root) {
        assert_int_equal(st.st_uid, 12345);
        assert_int_equal(st.st_gid, 54321);
    }
    nvram_close(n);
}

static void
a_removal_that_fails_is_final(void **state)
{
    struct nvram *n = open_nvram();

    (void)state;
    reset_calls();
    assert_int_equal(nvram_delete(n, NVRAM_PERMALL), 0);
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
    sys.calls = sys.fail_at = 0;
    sys.error = EIO;
    assert_int_equal(nvram_delete(n, NVRAM_PERMALL), -EIO);
    sys.fail_at = NEVER;
    assert_int_equal(nvram_failure(n), -EIO);
    assert_int_equal(nvram_delete(n, NVRAM_PERMALL), -EIO);
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, SIZE), -EIO);
    assert_true(named_file_is(old_blob, SIZE));
    nvram_close(n);
}

static void
a_durable_write_that_fails_is_not_tried_again(void **state)
{
    struct nvram *n = open_nvram();

    (void)state;
    assert_int_equal(overwrite(n, SIZE, 0, EIO), -EIO);
    assert_int_equal(sys.calls, 1);
    assert_int_equal(nvram_failure(n), -EIO);
    nvram_close(n);
}

/* The file system cannot take it whole: in two steps then, of which the second makes it durable. */
static void
a_durable_write_that_is_refused_goes_in_two_steps(void **state)
{
    struct nvram *n = open_nvram();

    (void)state;
    assert_int_equal(overwrite(n, SIZE, 0, EOPNOTSUPP), 0);
    assert_int_equal(sys.calls, 3);
    assert_true(named_file_is(new_blob, SIZE));
    assert_int_equal(overwrite(n, SIZE, NEVER, 0), 0);
    nvram_close(n);
}

static void
a_first_store_that_fails_leaves_nothing(void **state)
{
    (void)state;
    for (int at = 0; at < 3; at++) { /* the write, the two flushes */
        struct nvram *n = open_nvram();

        reset_calls();
        sys.fail_at = at;
        sys.error = ENOSPC;
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), -ENOSPC);
        reset_calls();
        assert_true(is_absent(PERMALL));
        assert_int_equal(nvram_failure(n), -ENOSPC);
        nvram_close(n);
    }
}

static void
interrupted_and_short_writes_are_finished(void **state)
{
    static const size_t lens[] = {SIZE, LARGER, SMALLER};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct nvram *n = open_nvram();

        reset_calls();
        sys.dribble = true;
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
        assert_true(named_file_is(old_blob, SIZE));
        assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, lens[i]), 0);
        assert_true(named_file_is(new_blob, lens[i]));
        nvram_close(n);
    }
}

static void
a_blob_shrinks_without_room_for_a_second_one(void **state)
{
    struct nvram *n = open_nvram();
    struct stat before, after;

    (void)state;
    assert_int_equal(overwrite(n, SIZE, NEVER, 0), 0);
    assert_int_equal(fstatat(dir, PERMALL, &before, 0), 0);
    assert_int_equal(overwrite(n, SMALLER, 1, ENOSPC),
                     0); /* after the unlink: the temporary's size */
    assert_true(named_file_is(new_blob, SMALLER));
    assert_int_equal(fstatat(dir, PERMALL, &after, 0), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    assert_true(is_absent(TEMP));
    nvram_close(n);
}

static void
a_stale_temporary_file_is_no_hindrance(void **state)
{
    struct nvram *n = open_nvram();
    AUTO_FD int fd = openat(dir, TEMP, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct stat before, after;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, old_blob, SIZE), 0);
    assert_int_equal(fstatat(dir, PERMALL, &before, 0), 0);
    assert_int_equal(nvram_store(n, NVRAM_PERMALL, new_blob, SMALLER), 0);
    assert_true(named_file_is(new_blob, SMALLER));
    assert_int_equal(fstatat(dir, PERMALL, &after, 0), 0);
    assert_int_not_equal(after.st_ino, before.st_ino);
    nvram_close(n);
}

static void
what_was_stored_is_loaded(void **state)
{
    struct nvram *n = open_nvram();
    AUTO_FREE uint8_t *blob = NULL;
    size_t len;

    (void)state;
    assert_int_equal(nvram_load(n, NVRAM_PERMALL, &blob, &len), -ENOENT);
    assert_int_equal(overwrite(n, LARGER, NEVER, 0), 0);
    nvram_close(n);
    n = open_nvram();
    assert_int_equal(nvram_load(n, NVRAM_PERMALL, &blob, &len), 0);
    assert_int_equal(len, LARGER);
    assert_memory_equal(blob, new_blob, LARGER);
    nvram_close(n);
}

static void
what_is_no_regular_file_is_refused(void **state)
{
    struct nvram_options opt = {.version = TPM_VERSION_2_0};
    struct nvram *n;

    (void)state;
    assert_int_equal(symlinkat("/etc/passwd", dir, PERMALL), 0);
    assert_true(nvram_open(&n, dir, &opt) < 0);
    unlinkat(dir, PERMALL, 0);
    assert_int_equal(mkfifoat(dir, PERMALL, 0600), 0);
    assert_int_equal(nvram_open(&n, dir, &opt), -EUCLEAN);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_blob_is_old_or_new_after_each_system_call),
        T(a_store_survives_each_failing_call),
        T(a_failed_flush_is_never_a_success),
        T(a_durable_write_that_fails_is_not_tried_again),
        T(a_durable_write_that_is_refused_goes_in_two_steps),
        T(calls_come_in_the_order_that_makes_them_safe),
        T(a_smaller_blob_has_the_mode_and_owner_of_the_old_one),
        T(a_removal_that_fails_is_final),
        T(a_first_store_that_fails_leaves_nothing),
        T(interrupted_and_short_writes_are_finished),
        T(a_blob_shrinks_without_room_for_a_second_one),
        T(a_stale_temporary_file_is_no_hindrance),
        T(what_was_stored_is_loaded),
        T(what_is_no_regular_file_is_refused),
    };

    report_set_sink(quiet, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
