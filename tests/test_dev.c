/* SPDX-License-Identifier: BSD-3-Clause */
/* The file device, on real files; the loop device cases need root and a free loop device. */
#include "base/report.h"
#include "core/dev.h"
#include "core/holder.h"
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* After what it needs. */
#include <cmocka.h>
#include <linux/loop.h>
#include <linux/magic.h>

enum { SIZE = 16 * BLOCK_SIZE };

static char dir[] = "/tmp/vnvram-dev.XXXXXX";
static char image[64], other[64];
static char last_report[1024];
static unsigned n_reports;

static void
keep_report(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    n_reports++;
    snprintf(last_report, sizeof last_report, "%s", line);
}

static void
make_image(off_t size)
{
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static int
set_up(void **state)
{
    (void)state;
    make_image(SIZE);
    unlink(other);
    n_reports = 0;
    last_report[0] = '\0';
    return 0;
}

static struct dev *
opened(const char *path, unsigned flags)
{
    struct dev *d = NULL;

    assert_int_equal(dev_file_open(&d, path, flags), 0);
    assert_non_null(d);
    return d;
}

static int
open_fails(const char *path, unsigned flags)
{
    struct dev *d = NULL;
    int r;

    n_reports = 0;
    r = dev_file_open(&d, path, flags | DEV_NO_WAIT);
    assert_null(d);
    assert_int_equal(n_reports, 1);
    return r;
}

static int64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- transfers ------------------------------------------------------------------------------ */

/* How many pages of @path the cache holds. */
static size_t
cached(const char *path)
{
    uint8_t there[SIZE / BLOCK_SIZE];
    size_t n = 0;
    int fd = open(path, O_RDONLY);
    void *map = mmap(NULL, SIZE, PROT_NONE, MAP_SHARED, fd, 0); /* else valgrind reads it */

    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, SIZE, there), 0);
    for (size_t i = 0; i < sizeof there; i++)
        n += there[i] & 1;
    munmap(map, SIZE);
    close(fd);
    return n;
}

static void
what_is_read_and_all_when_idle_leaves_the_cache(void **state)
{
    uint8_t *buf = dev_alloc(SIZE);
    struct dev *d = opened(image, 0);
    struct statfs fs;
    size_t kept; /* a file system in memory keeps all */

    (void)state;
    assert_int_equal(statfs(image, &fs), 0);
    kept = fs.f_type == TMPFS_MAGIC ? SIZE / BLOCK_SIZE : 0;
    assert_int_equal(dev_pwrite(d, buf, SIZE, 0), 0);
    assert_int_equal(cached(image), SIZE / BLOCK_SIZE);
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(dev_pread(d, buf, SIZE, 0), 0);
    assert_int_equal(cached(image), kept);
    assert_int_equal(dev_pwrite(d, buf, SIZE, 0), 0);
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(cached(image), SIZE / BLOCK_SIZE);
    dev_idle(d);
    assert_int_equal(cached(image), kept);
    dev_close(d);
    free(buf);
}

static void
what_is_written_is_read_back_from_cache_and_medium(void **state)
{
    uint8_t *in = dev_alloc(2 * BLOCK_SIZE), *out = dev_alloc(2 * BLOCK_SIZE);
    struct dev *d = opened(image, 0);

    (void)state;
    assert_int_equal(d->size, SIZE);
    memset(in, 0xa5, 2 * BLOCK_SIZE);
    assert_int_equal(dev_pwrite(d, in, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE), 0);
    assert_int_equal(dev_pread(d, out, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE), 0);
    assert_memory_equal(in, out, 2 * BLOCK_SIZE);
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(dev_medium(d, true), 0);
    memset(out, 0, 2 * BLOCK_SIZE);
    assert_int_equal(dev_pread(d, out, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE), 0);
    assert_memory_equal(in, out, 2 * BLOCK_SIZE);
    assert_int_equal(dev_pwrite(d, in, BLOCK_SIZE, SIZE - BLOCK_SIZE), 0);
    assert_int_equal(dev_medium(d, false), 0);
    assert_int_equal(dev_pread(d, out, BLOCK_SIZE, SIZE - BLOCK_SIZE), 0);
    assert_memory_equal(in, out, BLOCK_SIZE);
    dev_close(d);
    free(in);
    free(out);
}

static void
the_medium_is_read_where_there_is_no_direct_io(void **state)
{
    static const char path[] = "/dev/shm/vnvram-test-dev.img";
    uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d;

    (void)state;
    if (access("/dev/shm", W_OK) < 0)
        skip();
    unlink(path);
    d = opened(path, DEV_CREATE);
    assert_int_equal(dev_file_resize(d, SIZE), 0);
    memset(buf, 0x5a, BLOCK_SIZE);
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_medium(d, true), 0);
    memset(buf, 0, BLOCK_SIZE);
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(buf[BLOCK_SIZE - 1], 0x5a);
    assert_int_equal(dev_medium(d, false), 0);
    dev_close(d);
    unlink(path);
    free(buf);
}

static void
past_the_end_is_truncated(void **state)
{
    uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d = opened(image, 0);

    (void)state;
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, SIZE), -ERANGE);
    assert_int_equal(n_reports, 1);
    assert_non_null(strstr(last_report, "truncated"));
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, UINT64_MAX - BLOCK_SIZE + 1), -ERANGE);
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, SIZE), -ERANGE);
    assert_int_equal(truncate(image, SIZE / 2), 0); /* behind its back */
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, SIZE - BLOCK_SIZE), -ERANGE);
    dev_close(d);
    free(buf);
}

static void
a_tail_that_is_no_block_is_ignored(void **state)
{
    uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d;

    (void)state;
    make_image(SIZE + 100);
    d = opened(image, 0);
    assert_int_equal(d->size, SIZE + 100);
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, SIZE - BLOCK_SIZE), 0);
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, SIZE), -ERANGE);
    dev_close(d);
    free(buf);
}

/* A device whose every operation fails with what a kernel says of bad sectors and broken hosts. */
static int fails_with;

static int
failing_read(struct dev *d, void *buf, size_t n, uint64_t off)
{
    (void)d, (void)buf, (void)n, (void)off;
    return fails_with;
}

static int
failing_write(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    (void)d, (void)buf, (void)n, (void)off;
    return fails_with;
}

static int
failing_sync(struct dev *d)
{
    (void)d;
    return fails_with;
}

static int
failing_medium(struct dev *d, bool on)
{
    (void)d, (void)on;
    return fails_with;
}

static void
an_io_error_is_never_a_finding(void **state)
{
    static const struct dev_ops ops = {.pread = failing_read,
                                       .pwrite = failing_write,
                                       .sync = failing_sync,
                                       .medium = failing_medium};
    static const int errors[] = {ENODATA, EUCLEAN, EBADMSG, ESTALE, ENOKEY, EBUSY, ENOSPC, EIO};
    struct dev d = {.ops = &ops, .size = SIZE, .name = (char[]){"failing"}};
    uint8_t *buf = dev_alloc(BLOCK_SIZE);

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        fails_with = -errors[i];
        n_reports = 0;
        assert_int_equal(dev_pread(&d, buf, BLOCK_SIZE, 0), -EIO);
        assert_int_equal(dev_pwrite(&d, buf, BLOCK_SIZE, 0), -EIO);
        assert_int_equal(dev_sync(&d), -EIO);
        assert_int_equal(dev_medium(&d, true), -EIO);
        assert_int_equal(n_reports, 4);
    }
    free(buf);
}

/* ---- opening -------------------------------------------------------------------------------- */

static void
only_files_and_block_devices_are_opened(void **state)
{
    (void)state;
    assert_int_equal(open_fails(dir, 0), -EISDIR);
    assert_int_equal(open_fails("/dev/null", 0), -ENOTBLK);
    assert_int_equal(mkfifo(other, 0600), 0);
    assert_int_equal(open_fails(other, DEV_READ_ONLY), -ENOTBLK);
    assert_non_null(strstr(last_report, other));
    unlink(other);
    assert_int_equal(open_fails(other, 0), -ENOENT);
}

static void
create_makes_a_private_file_and_resize_allocates_it(void **state)
{
    struct dev *d = opened(other, DEV_CREATE);
    struct stat st;

    (void)state;
    assert_int_equal(d->size, 0);
    assert_int_equal(dev_file_resize(d, SIZE), 0);
    assert_int_equal(d->size, SIZE);
    assert_int_equal(stat(other, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, SIZE);
    assert_true(st.st_blocks * 512 >= SIZE);
    assert_int_equal(dev_file_resize(d, SIZE / 2), 0); /* never shrinks */
    assert_int_equal(stat(other, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    dev_close(d);
}

/* ---- the lock ------------------------------------------------------------------------------- */

/* A child that holds @path for @ms (0: until killed); returns once it does. */
static pid_t
holder_of(const char *path, int ms)
{
    int fds[2];
    pid_t pid;
    char c;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct dev *d;

        if (dev_file_open(&d, path, 0) < 0 || write(fds[1], "x", 1) != 1)
            _exit(1);
        if (ms == 0)
            pause();
        usleep((useconds_t)ms * 1000);
        _exit(0);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &c, 1), 1);
    close(fds[0]);
    return pid;
}

static void
end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void
assert_in_use_by(const char *path, pid_t pid)
{
    char word[32];

    snprintf(word, sizeof word, "process %d ", (int)pid);
    assert_int_equal(open_fails(path, 0), -EBUSY);
    assert_non_null(strstr(last_report, word));
}

static void
a_second_writer_is_told_who_holds_it_by_any_name(void **state)
{
    pid_t pid = holder_of(image, 0);

    (void)state;
    assert_in_use_by(image, pid);
    assert_int_equal(link(image, other), 0);
    assert_in_use_by(other, pid);
    unlink(other);
    assert_int_equal(symlink(image, other), 0);
    assert_in_use_by(other, pid);
    assert_int_equal(open_fails(image, DEV_READ_ONLY), -EBUSY);
    dev_close(opened(image, DEV_READ_ONLY | DEV_NO_LOCK));
    end(pid);
    dev_close(opened(image, 0));
}

static void
a_writer_waits_for_one_that_is_about_to_end(void **state)
{
    pid_t pid = holder_of(image, 300);

    (void)state;
    dev_close(opened(image, 0));
    assert_int_equal(n_reports, 0);
    end(pid);
}

static void
a_writer_does_not_wait_for_ever(void **state)
{
    pid_t pid = holder_of(image, 0);
    int64_t start = now_ms();
    struct dev *d = NULL;

    (void)state;
    assert_int_equal(dev_file_open(&d, image, 0), -EBUSY);
    assert_in_range(now_ms() - start, 2900, 60000);
    end(pid);
}

static void
readers_share_and_keep_writers_out(void **state)
{
    struct dev *a = opened(image, DEV_READ_ONLY), *b = opened(image, DEV_READ_ONLY);

    (void)state;
    assert_int_equal(open_fails(image, 0), -EBUSY);
    dev_close(a);
    dev_close(b);
    dev_close(opened(image, 0));
}

static void
the_lock_is_not_lost_when_another_descriptor_is_closed(void **state)
{
    struct dev *d = opened(image, 0);

    (void)state;
    close(open(image, O_RDONLY)); /* what would drop a POSIX lock */
    assert_int_equal(open_fails(image, 0), -EBUSY);
    dev_close(d);
}

static void
we_are_no_holder_to_ourselves(void **state)
{
    struct dev *d = opened(image, 0);
    struct holder h;
    struct stat st;

    (void)state;
    assert_int_equal(stat(image, &st), 0);
    assert_false(holder_find(&h, &st));
    dev_close(d);
}

/* Who may not look at another's descriptors still sees its lease. */
static void
a_lease_tells_its_holder_to_everybody(void **state)
{
    int fd, status;
    struct stat st;
    pid_t pid;

    (void)state;
    if (geteuid() != 0)
        skip();
    fd = open(image, O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        skip();
    pid = fork();
    if (pid == 0) {
        struct holder h;

        close(fd);
        if (setgid(12345) < 0 || setuid(12345) < 0)
            _exit(1);
        _exit(holder_find(&h, &st) && h.pid == getppid() ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fd);
}

/* One try: somebody else may take the free device first. */
static bool
try_loop(char path[32], int *fd)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n, backing;
    struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
    bool ok;

    n = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        close(control);
    if (n < 0)
        return false;
    snprintf(path, 32, "/dev/loop%d", n);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    backing = open(image, O_RDWR | O_CLOEXEC);
    config.fd = (unsigned)backing;
    ok = *fd >= 0 && ioctl(*fd, LOOP_CONFIGURE, &config) == 0;
    close(backing);
    if (!ok && *fd >= 0)
        close(*fd);
    return ok;
}

/* A loop device over the image: *@fd keeps it, @path names it; false when there is none to be had.
 */
static bool
attach_loop(char path[32], int *fd)
{
    for (int i = 0; i < 20; i++)
        if (try_loop(path, fd))
            return true;
    return false;
}

/* ---- several writes at once ------------------------------------------------------------------ */

/* What becomes of the write at .off: its result. */
static struct {
    long result;
    long long off;
    unsigned seen, contexts;
    int fd; /* where what a short write left out is taken back */
} fate;

/* These come before libaio's own. */
int
io_setup(int most, io_context_t *ctx)
{
    fate.contexts++;
    return syscall(SYS_io_setup, most, ctx) < 0 ? -errno : 0;
}

int
io_getevents(io_context_t ctx, long least, long most, struct io_event *events,
             struct timespec *timeout)
{
    int n = (int)syscall(SYS_io_getevents, ctx, least, most, events, timeout);

    for (int i = 0; i < n; i++) {
        fate.seen++;
        if (!fate.result || events[i].obj->u.c.offset != fate.off)
            continue;
        events[i].res = (unsigned long)fate.result;
        for (unsigned long at = events[i].res; fate.result > 0 && at < events[i].obj->u.c.nbytes;
             at++)
            assert_int_equal(pwrite(fate.fd, "", 1, fate.off + (off_t)at), 1);
    }
    return n < 0 ? -errno : n;
}

static void
a_block_device_takes_several_writes_at_once(void **state)
{
    char loop[32];
    struct dev *d;
    uint8_t *buf = dev_alloc(SIZE), *back = dev_alloc(SIZE);
    int fd = -1;

    (void)state;
    if (!attach_loop(loop, &fd))
        skip();
    for (size_t i = 0; i < SIZE; i++)
        buf[i] = (uint8_t)(i / BLOCK_SIZE + 1);
    d = opened(loop, 0);
    fate.result = 0;
    fate.seen = 0;
    for (size_t off = 0; off < SIZE; off += BLOCK_SIZE) /* more than it can have on their way */
        assert_int_equal(dev_submit(d, buf + off, BLOCK_SIZE, off), 0);
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(fate.seen, SIZE / BLOCK_SIZE);
    assert_int_equal(dev_pread(d, back, SIZE, 0), 0);
    assert_memory_equal(buf, back, SIZE);

    fate.result = BLOCK_SIZE; /* the rest is written then */
    fate.fd = open(image, O_WRONLY);
    fate.off = 2 * BLOCK_SIZE;
    memset(buf, 0x77, SIZE);
    assert_int_equal(dev_submit(d, buf, 2 * BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_submit(d, buf, 3 * BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
    assert_int_equal(dev_wait(d), 0);
    assert_int_equal(dev_pread(d, back, 5 * BLOCK_SIZE, 0), 0);
    assert_memory_equal(buf, back, 5 * BLOCK_SIZE);

    fate.result = -EINTR; /* it is written then */
    memset(buf, 0x78, SIZE);
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
    assert_int_equal(dev_wait(d), 0);

    close(fate.fd);
    fate.result = -ENOSPC;
    n_reports = 0;
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, BLOCK_SIZE), 0);
    assert_int_equal(dev_sync(d), -EIO);
    assert_int_equal(n_reports, 1);
    assert_non_null(strstr(last_report, "cannot write"));
    assert_int_equal(dev_wait(d), 0); /* none is on its way any more */
    fate.result = 0;
    dev_close(d);
    close(fd);
    free(buf);
    free(back);
}

static void
a_file_is_written_at_once(void **state)
{
    struct dev *d = opened(image, 0);
    uint8_t *buf = dev_alloc(BLOCK_SIZE), *back = dev_alloc(BLOCK_SIZE);

    (void)state;
    fate.seen = fate.contexts = 0;
    memset(buf, 0x42, BLOCK_SIZE);
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_pread(d, back, BLOCK_SIZE, 0), 0);
    assert_memory_equal(buf, back, BLOCK_SIZE);
    assert_int_equal(dev_wait(d), 0);
    assert_int_equal(fate.seen, 0);
    assert_int_equal(fate.contexts, 0); /* there are not many on a host */
    dev_close(d);
    free(buf);
    free(back);
}

static void
a_loop_device_and_its_file_are_one_image(void **state)
{
    char loop[32];
    struct dev *d;
    pid_t pid;
    int fd = -1;

    (void)state;
    if (!attach_loop(loop, &fd))
        skip();
    d = opened(loop, 0);
    assert_int_equal(d->size, SIZE);
    assert_int_equal(dev_medium(d, true), 0);
    assert_int_equal(dev_file_resize(d, SIZE), 0);
    assert_int_equal(dev_file_resize(d, SIZE + 1), -ERANGE);
    dev_close(d);
    pid = holder_of(loop, 0);
    assert_in_use_by(image, pid);
    assert_int_equal(open_fails(loop, 0), -EBUSY);
    end(pid);
    pid = holder_of(image, 0);
    assert_in_use_by(loop, pid);
    end(pid);
    dev_close(opened(loop, 0));
    close(fd);
}

static void
nothing_is_held_after_a_failed_open(void **state)
{
    pid_t pid = holder_of(image, 0);
    int before = dup(0), after;

    (void)state;
    close(before);
    open_fails(image, 0);
    after = dup(0);
    close(after);
    assert_int_equal(before, after);
    end(pid);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_read_and_all_when_idle_leaves_the_cache, set_up),
        cmocka_unit_test_setup(what_is_written_is_read_back_from_cache_and_medium, set_up),
        cmocka_unit_test_setup(the_medium_is_read_where_there_is_no_direct_io, set_up),
        cmocka_unit_test_setup(past_the_end_is_truncated, set_up),
        cmocka_unit_test_setup(a_tail_that_is_no_block_is_ignored, set_up),
        cmocka_unit_test_setup(an_io_error_is_never_a_finding, set_up),
        cmocka_unit_test_setup(only_files_and_block_devices_are_opened, set_up),
        cmocka_unit_test_setup(create_makes_a_private_file_and_resize_allocates_it, set_up),
        cmocka_unit_test_setup(a_second_writer_is_told_who_holds_it_by_any_name, set_up),
        cmocka_unit_test_setup(a_writer_waits_for_one_that_is_about_to_end, set_up),
        cmocka_unit_test_setup(a_writer_does_not_wait_for_ever, set_up),
        cmocka_unit_test_setup(readers_share_and_keep_writers_out, set_up),
        cmocka_unit_test_setup(the_lock_is_not_lost_when_another_descriptor_is_closed, set_up),
        cmocka_unit_test_setup(we_are_no_holder_to_ourselves, set_up),
        cmocka_unit_test_setup(a_lease_tells_its_holder_to_everybody, set_up),
        cmocka_unit_test_setup(a_loop_device_and_its_file_are_one_image, set_up),
        cmocka_unit_test_setup(a_block_device_takes_several_writes_at_once, set_up),
        cmocka_unit_test_setup(a_file_is_written_at_once, set_up),
        cmocka_unit_test_setup(nothing_is_held_after_a_failed_open, set_up),
    };
    int failed;

    if (!mkdtemp(dir))
        return 99;
    snprintf(image, sizeof image, "%s/image", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    report_set_sink(keep_report, NULL);
    failed = cmocka_run_group_tests_name("dev", tests, NULL, NULL);
    unlink(image);
    unlink(other);
    rmdir(dir);
    return failed;
}
