/* SPDX-License-Identifier: BSD-3-Clause */
/* The TPM's process through its link, on an ordinary directory. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/envelope.h"
#include "tpm/link.h"
#include "tpm/message.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
/* after the above */
#include <cmocka.h>

enum { RC = 6 };

/* Valgrind makes keys slowly; but who breaks a rule on purpose wants to see it soon. */
static int
deadline_s(void)
{
    const char *text = getenv("VNVRAM_DEADLINE");

    return text ? atoi(text) : 240;
}

#define PERMALL "tpm2-00.permall"
#define COMMAND(name, ...) static const uint8_t name[] = {__VA_ARGS__}
#define PASSWORD 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0 /* an empty one */
#define OWNER 0x40, 0, 0, 1
#define INDEX 0x01, 0x80, 0, 1

COMMAND(get_random, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8);
COMMAND(read_clock, 0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x81);
COMMAND(startup_clear, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0);
COMMAND(shutdown_clear, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0);
COMMAND(shutdown_state, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 1);
COMMAND(nv_define, 0x80, 2, 0, 0, 0, 45, 0, 0, 1, 0x2a, OWNER, PASSWORD, 0, 0, 0, 14, INDEX, 0, 11,
        0, 2, 0, 2, 0, 0, 0, 8);
COMMAND(nv_write, 0x80, 2, 0, 0, 0, 43, 0, 0, 1, 0x37, OWNER, INDEX, PASSWORD, 0, 8, 'r', 'e', 'm',
        'e', 'm', 'b', 'e', 'r', 0, 0);
COMMAND(nv_read, 0x80, 2, 0, 0, 0, 35, 0, 0, 1, 0x4e, OWNER, INDEX, PASSWORD, 0, 8, 0, 0);
COMMAND(nv_undefine, 0x80, 2, 0, 0, 0, 31, 0, 0, 1, 0x22, OWNER, INDEX, PASSWORD);
COMMAND(create_primary, 0x80, 2, 0, 0, 0, 67, 0, 0, 1, 0x31, OWNER, PASSWORD, 0, 4, 0, 0, 0, 0, 0,
        26, 0, 1, 0, 11, 0, 3, 0, 0x72, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0);
COMMAND(get_version_1_2, 0, 0xc1, 0, 0, 0, 18, 0, 0, 0, 0x65, 0, 0, 0, 6, 0, 0, 0, 0);

struct fixture {
    char dir[64];
    int fd; /* of dir */
    struct tpm_link *link;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum tpm_state state;
    int result; /* of the last event */
    bool answered;
    int answer;
    size_t len;
    uint8_t resp[CMDDEV_MAX];
};

static void
on_event(void *arg, enum tpm_state state, int r, const char *why)
{
    struct fixture *f = arg;

    (void)why;
    pthread_mutex_lock(&f->lock);
    f->state = state;
    f->result = r;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void
on_done(void *arg, int r, const uint8_t *resp, size_t len)
{
    struct fixture *f = arg;

    pthread_mutex_lock(&f->lock);
    f->answered = true;
    f->answer = r;
    f->len = len;
    if (len)
        memcpy(f->resp, resp, len);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static bool
has_answer(const struct fixture *f)
{
    return f->answered;
}

static bool
has_started(const struct fixture *f)
{
    return f->state != TPM_STATE_STARTING;
}

static bool
has_ended(const struct fixture *f)
{
    return f->state == TPM_STATE_STOPPED || f->state == TPM_STATE_GONE;
}

static bool
is_answered(struct fixture *f)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&f->lock);

    return f->answered;
}

static void
wait_for(struct fixture *f, bool (*condition)(const struct fixture *))
{
    struct timespec end;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += deadline_s();
    pthread_mutex_lock(&f->lock);
    while (!condition(f) && r == 0)
        r = pthread_cond_timedwait(&f->changed, &f->lock, &end);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(r, 0);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "%.40s/test_tpm.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {
        PERMALL, "tpm2-00.volatilestate", "tpm2-00.permall.bak", "tpm-00.permall", "other",
        ".lock"};
    struct fixture *f = *state;

    tpm_link_free(f->link);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(f->fd, names[i], 0);
    close(f->fd);
    assert_int_equal(rmdir(f->dir), 0); /* nothing else was left there */
    free(f);
    return 0;
}

static struct tpm_options
version_2(void)
{
    /* valgrind, of which the process is a part, makes system calls of its own */
    return (struct tpm_options){.version = TPM_VERSION_2_0,
                                .startup = TPM_STARTUP_CLEAR,
                                .no_sandbox = getenv("VNVRAM_QUICK") != NULL};
}

static void
launch(struct fixture *f, const struct tpm_options *opt)
{
    pid_t pid;
    int fd;

    f->state = TPM_STATE_STARTING;
    assert_int_equal(tpm_process_fork(opt, &pid, &fd), 0);
    assert_int_equal(tpm_link_new(&f->link, fd, pid, on_event, f), 0);
}

static void
start_as(struct fixture *f, const struct tpm_options *opt, bool held)
{
    struct stat st;

    launch(f, opt);
    assert_int_equal(fstat(f->fd, &st), 0);
    assert_int_equal(tpm_link_start(f->link, &(struct tpm_start){.path = f->dir,
                                                                 .dev = st.st_dev,
                                                                 .uid = geteuid(),
                                                                 .gid = getegid(),
                                                                 .held = held}),
                     0);
    wait_for(f, has_started);
}

static void
start(struct fixture *f)
{
    struct tpm_options opt = version_2();

    start_as(f, &opt, false);
    assert_int_equal(f->state, TPM_STATE_RUNNING);
}

static void
end(struct fixture *f)
{
    tpm_link_free(f->link);
    f->link = NULL;
}

static void
stop(struct fixture *f)
{
    assert_int_equal(tpm_link_stop(f->link), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
    end(f);
}

static int
submit(struct fixture *f, const uint8_t *cmd, size_t len)
{
    f->answered = false;
    return cmddev_submit(tpm_link_cmddev(f->link), cmd, len, on_done, f);
}

/* The response code. */
static uint32_t
run(struct fixture *f, const uint8_t *cmd, size_t len)
{
    assert_int_equal(submit(f, cmd, len), 0);
    wait_for(f, has_answer);
    assert_int_equal(f->answer, 0);
    assert_in_range(f->len, 10, CMDDEV_MAX);
    return load_be32(f->resp + RC);
}
#define RUN(f, cmd) run(f, cmd, sizeof cmd)

static size_t
slurp(const struct fixture *f, const char *name, uint8_t **out)
{
    AUTO_FD int fd = openat(f->fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    *out = malloc((size_t)st.st_size + 1);
    assert_non_null(*out);
    assert_int_equal(pread(fd, *out, (size_t)st.st_size, 0), st.st_size);
    return (size_t)st.st_size;
}

static void
put(const struct fixture *f, const char *name, const uint8_t *buf, size_t len)
{
    AUTO_FD int fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, buf, len, 0), len);
}

static void
assert_file_is(const struct fixture *f, const char *name, const uint8_t *buf, size_t len)
{
    AUTO_FREE uint8_t *now = NULL;

    assert_int_equal(slurp(f, name, &now), len);
    assert_memory_equal(now, buf, len);
}

static bool
exists(const struct fixture *f, const char *name)
{
    return faccessat(f->fd, name, F_OK, 0) == 0;
}

/* TPM2_ReadClock's "safe": was the last end of this TPM an orderly one? */
static bool
clock_is_safe(struct fixture *f)
{
    assert_int_equal(RUN(f, read_clock), 0);
    assert_int_equal(f->len, 10 + 8 + 8 + 4 + 4 + 1);
    return f->resp[f->len - 1];
}

static void
a_new_tpm_keeps_what_it_is_told(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(RUN(f, get_random), 0);
    assert_int_equal(f->len, 10 + 2 + 8);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    stop(f);
    start(f);
    assert_int_equal(RUN(f, nv_read), 0);
    assert_memory_equal(f->resp + 16, "remember", 8);
}

static void
what_was_acknowledged_survives_a_kill(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    kill(tpm_link_pid(f->link), SIGKILL);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_GONE);
    end(f);
    start(f);
    assert_int_equal(RUN(f, nv_read), 0);
    assert_memory_equal(f->resp + 16, "remember", 8);
}

static void
its_file_is_swtpms(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *buf = NULL;
    const uint8_t *blob;
    size_t len, n;
    struct stat st;

    start(f);
    len = slurp(f, PERMALL, &buf);
    assert_int_equal(envelope_decode(buf, len, PERMALL, &blob, &n), 0);
    assert_int_equal(fstatat(f->fd, PERMALL, &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void
a_shrinking_state_replaces_the_file_whole(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;

    start(f);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    assert_int_equal(fchmodat(f->fd, PERMALL, 0640, 0), 0);
    assert_int_equal(fstatat(f->fd, PERMALL, &before, 0), 0);
    assert_int_equal(RUN(f, nv_undefine), 0);
    assert_int_equal(fstatat(f->fd, PERMALL, &after, 0), 0);
    assert_true(after.st_size < before.st_size);
    assert_int_not_equal(after.st_ino, before.st_ino);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_int_equal(RUN(f, nv_define), 0); /* and goes on in the new one */
    assert_int_equal(RUN(f, nv_write), 0);
    stop(f);
    start(f);
    assert_int_equal(RUN(f, nv_read), 0);
}

static void
stopping_is_an_orderly_shutdown(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(RUN(f, get_random), 0);
    stop(f);
    start(f);
    assert_true(clock_is_safe(f));
    kill(tpm_link_pid(f->link), SIGKILL);
    wait_for(f, has_ended);
    end(f);
    start(f);
    assert_false(clock_is_safe(f)); /* so the test can tell */
}

static void
a_clients_shutdown_is_not_repeated(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *before = NULL;
    size_t len;

    start(f);
    assert_int_equal(RUN(f, shutdown_clear), 0);
    assert_int_equal(RUN(f, get_random), 0);
    len = slurp(f, PERMALL, &before);
    stop(f);
    assert_file_is(f, PERMALL, before, len);
}

static void
a_shutdown_before_the_last_change_does_not_count(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(RUN(f, shutdown_clear), 0);
    assert_int_equal(RUN(f, nv_define), 0);
    stop(f);
    start(f);
    assert_true(clock_is_safe(f));
}

static void
startup_is_left_to_the_client_if_asked(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    opt.startup = TPM_STARTUP_NONE;
    start_as(f, &opt, false);
    assert_int_equal(f->state, TPM_STATE_RUNNING);
    assert_int_equal(RUN(f, get_random), 0x100);
    assert_int_equal(RUN(f, startup_clear), 0);
    assert_int_equal(RUN(f, get_random), 0);
    stop(f);
    start(f); /* startup=clear: a client's own is told so, as after a machine's firmware */
    assert_true(clock_is_safe(f));
    assert_int_equal(RUN(f, startup_clear), 0x100);
}

static void
a_suspended_tpm_is_resumed(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    opt.startup = TPM_STARTUP_STATE;
    start_as(f, &opt, false); /* nothing to resume: anew */
    assert_int_equal(f->state, TPM_STATE_RUNNING);
    assert_int_equal(RUN(f, read_clock), 0);
    assert_int_equal(load_be32(f->resp + 10 + 20), 0); /* restarts without a reset */
    assert_int_equal(RUN(f, shutdown_state), 0);
    stop(f);
    start_as(f, &opt, true);
    assert_int_equal(RUN(f, read_clock), 0);
    assert_int_equal(load_be32(f->resp + 10 + 20), 1);
    stop(f);
    start_as(f, &opt, true); /* this time it was not suspended */
    assert_true(clock_is_safe(f));
    assert_int_equal(load_be32(f->resp + 10 + 20), 0);
}

static void
assert_start_fails(struct fixture *f, bool held, int r)
{
    struct tpm_options opt = version_2();

    start_as(f, &opt, held);
    assert_int_equal(f->state, TPM_STATE_GONE);
    assert_int_equal(f->result, r);
    assert_int_equal(submit(f, get_random, sizeof get_random), -ENODEV);
    end(f);
}

static void
a_missing_state_is_an_error_where_there_was_one(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    assert_start_fails(f, true, -EUCLEAN);
    assert_false(exists(f, PERMALL));
    opt.manufacture = true;
    start_as(f, &opt, true);
    assert_int_equal(f->state, TPM_STATE_RUNNING);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    stop(f);
    start_as(f, &opt, true); /* never in place of one that is there */
    assert_int_equal(RUN(f, nv_read), 0);
}

static void
a_backup_beside_a_missing_state_is_an_error(void **state)
{
    struct fixture *f = *state;

    put(f, "tpm2-00.permall.bak", get_random, sizeof get_random);
    assert_start_fails(f, false, -EUCLEAN);
    assert_false(exists(f, PERMALL));
}

static void
a_damaged_state_is_refused_and_left_alone(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *good = NULL;
    struct tpm_options opt = version_2();
    size_t len;

    start(f);
    stop(f);
    len = slurp(f, PERMALL, &good);
    opt.manufacture = true; /* not even then */
    for (int i = 0; i < 6; i++) {
        AUTO_FREE uint8_t *bad = malloc(len + 1);
        size_t n = len;

        memcpy(bad, good, len);
        bad[len] = 0;
        switch (i) {
        case 0: /* empty */
            n = 0;
            break;
        case 1: /* cut */
            n = len / 2;
            break;
        case 2: /* longer */
            n = len + 1;
            break;
        case 3: /* all zero */
            memset(bad, 0, len);
            break;
        case 4: /* whole envelope, cut blob */
            n = len / 2;
            envelope_encode(bad, (uint32_t)(n - ENVELOPE_SIZE));
            break;
        case 5: /* whole envelope, another blob's magic */
            bad[ENVELOPE_SIZE + 2] ^= 1;
            break;
        }
        put(f, PERMALL, bad, n);
        start_as(f, &opt, i % 2);
        assert_int_equal(f->state, TPM_STATE_GONE);
        assert_int_equal(f->result, -EUCLEAN);
        end(f);
        assert_file_is(f, PERMALL, bad, n);
    }
    put(f, PERMALL, good, len);
    start(f);
}

static void
assert_failed_closed(struct fixture *f)
{
    assert_int_equal(f->state, TPM_STATE_FAILED);
    assert_int_equal(RUN(f, get_random), 0x101);
    assert_int_equal(RUN(f, nv_read), 0x101);
    assert_int_equal(tpm_link_stop(f->link), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_GONE);
}

static void
a_store_that_fails_is_never_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct rlimit nothing = {0, 0};
    AUTO_FREE uint8_t *before = NULL;
    size_t len;

    start(f);
    len = slurp(f, PERMALL, &before);
    assert_int_equal(prlimit(tpm_link_pid(f->link), RLIMIT_FSIZE, &nothing, NULL), 0);
    assert_int_equal(RUN(f, nv_define), 0x101);
    assert_failed_closed(f);
    end(f);
    assert_file_is(f, PERMALL, before, len);
    start(f); /* the next start is as if the command had never been */
    assert_int_not_equal(RUN(f, nv_read), 0);
}

static void
a_new_tpm_that_cannot_be_stored_does_not_start(void **state)
{
    struct fixture *f = *state;
    struct rlimit nothing = {0, 0};
    struct tpm_options opt = version_2();
    struct stat st;

    put(f, ".lock", NULL, 0);
    opt.startup = TPM_STARTUP_NONE; /* TPM2_Startup stores too, and would fail in its place */
    launch(f, &opt);
    assert_int_equal(prlimit(tpm_link_pid(f->link), RLIMIT_FSIZE, &nothing, NULL), 0);
    assert_int_equal(fstat(f->fd, &st), 0);
    assert_int_equal(tpm_link_start(f->link, &(struct tpm_start){.path = f->dir,
                                                                 .dev = st.st_dev,
                                                                 .uid = geteuid(),
                                                                 .gid = getegid()}),
                     0);
    wait_for(f, has_started);
    assert_int_equal(f->state, TPM_STATE_GONE);
    assert_int_equal(f->result, -EFBIG);
    /* nor does it leave an empty one, to be found damaged later */
    assert_false(exists(f, PERMALL));
}

static void
a_state_replaced_under_it_is_not_overwritten(void **state)
{
    struct fixture *f = *state;

    start(f);
    put(f, "other", get_random, sizeof get_random);
    assert_int_equal(renameat(f->fd, "other", f->fd, PERMALL), 0);
    assert_int_equal(RUN(f, nv_define), 0x101);
    assert_failed_closed(f);
    assert_file_is(f, PERMALL, get_random, sizeof get_random);
}

static void
a_state_removed_under_it_is_not_made_again(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(unlinkat(f->fd, PERMALL, 0), 0);
    assert_int_equal(RUN(f, nv_define), 0x101);
    assert_failed_closed(f);
    assert_false(exists(f, PERMALL));
}

static void
a_stored_volatile_state_is_forgotten_at_power_on(void **state)
{
    struct fixture *f = *state;

    put(f, "tpm2-00.volatilestate", get_random, sizeof get_random);
    start(f);
    assert_false(exists(f, "tpm2-00.volatilestate"));
}

static void
two_on_one_directory_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct fixture second = {
        .fd = f->fd, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

    memcpy(second.dir, f->dir, sizeof f->dir);
    start(f);
    assert_start_fails(&second, false, -EBUSY);
    assert_int_equal(RUN(f, get_random), 0);
}

static void
another_mount_at_the_path_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    launch(f, &opt);
    assert_int_equal(
        tpm_link_start(
            f->link,
            &(struct tpm_start){.path = f->dir, .dev = 1, .uid = geteuid(), .gid = getegid()}),
        0);
    wait_for(f, has_started);
    assert_int_equal(f->state, TPM_STATE_GONE);
    assert_int_equal(f->result, -ESTALE);
}

static void
one_command_at_a_time(void **state)
{
    struct fixture *f = *state;

    start(f);
    kill(tpm_link_pid(f->link), SIGSTOP);
    assert_int_equal(submit(f, get_random, sizeof get_random), 0);
    assert_int_equal(
        cmddev_submit(tpm_link_cmddev(f->link), get_random, sizeof get_random, on_done, f), -EBUSY);
    kill(tpm_link_pid(f->link), SIGCONT);
    wait_for(f, has_answer);
    assert_int_equal(f->answer, 0);
}

static void
a_killed_process_ends_the_command(void **state)
{
    struct fixture *f = *state;

    start(f);
    kill(tpm_link_pid(f->link), SIGSTOP);
    assert_int_equal(submit(f, get_random, sizeof get_random), 0);
    kill(tpm_link_pid(f->link), SIGKILL);
    wait_for(f, has_answer);
    assert_int_equal(f->answer, -ENODEV);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_GONE);
}

static void
stopping_cancels_a_long_command(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_int_equal(submit(f, create_primary, sizeof create_primary), 0);
    stop(f);
    assert_true(f->answered);
    start(f);
    assert_true(clock_is_safe(f));
}

static void
a_cancelled_command_says_so_and_the_next_one_works(void **state)
{
    struct fixture *f = *state;
    uint32_t rc = 0;

    start(f);
    assert_int_equal(submit(f, create_primary, sizeof create_primary), 0);
    for (int i = 0; i < 100 && !is_answered(f); i++) { /* one before its start would be lost */
        cmddev_cancel(tpm_link_cmddev(f->link));
        poll(NULL, 0, 20); /* so few that the socket holds them all, however late they are read */
    }
    wait_for(f, has_answer);
    rc = load_be32(f->resp + RC);
    assert_true(rc == 0x909 || rc == 0); /* cancelled; done where it was quicker */
    assert_int_equal(RUN(f, create_primary), 0);
}

static void
signals_that_end_a_session_do_not_end_it(void **state)
{
    struct fixture *f = *state;

    start(f);
    kill(tpm_link_pid(f->link), SIGTERM);
    kill(tpm_link_pid(f->link), SIGINT);
    kill(tpm_link_pid(f->link), SIGHUP);
    assert_int_equal(RUN(f, get_random), 0);
    stop(f);
}

static void
it_ends_before_it_was_started(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    launch(f, &opt);
    assert_int_equal(tpm_link_stop(f->link), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

static void
it_ends_with_the_daemon(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();
    int status = -1;
    pid_t pid;
    int fd;

    (void)f;
    assert_int_equal(tpm_process_fork(&opt, &pid, &fd), 0);
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
}

static void
it_holds_nothing_of_the_daemons(void **state)
{
    struct fixture *f = *state;
    AUTO_FD int secret = open(f->dir, O_RDONLY | O_DIRECTORY); /* as careless as can be */
    char path[64], target[128];
    int found = 0;

    start(f);
    for (int fd = 0; fd < 256; fd++) {
        ssize_t n;

        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)tpm_link_pid(f->link), fd);
        n = readlink(path, target, sizeof target - 1);
        if (n < 0)
            continue;
        target[n] = '\0';
        found += strcmp(target, f->dir) == 0;
        if (fd < 3)
            assert_string_equal(target, "/dev/null");
    }
    if (geteuid() == 0) /* it is not dumpable, so others cannot look */
        assert_int_equal(found, 1);
    assert_true(secret >= 0);
}

static void
tpm_1_2_works_too(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2();

    opt.version = TPM_VERSION_1_2;
    for (int i = 0; i < 2; i++) {
        start_as(f, &opt, i == 1);
        assert_int_equal(f->state, TPM_STATE_RUNNING);
        assert_int_equal(RUN(f, get_version_1_2), 0);
        assert_int_equal(load_be16(f->resp), 0xc4);
        stop(f);
        assert_true(exists(f, "tpm-00.permall"));
        assert_false(exists(f, PERMALL));
    }
}

/* One that stops because its mount has gone may never read that it shall stop. */
static void
the_last_words_of_a_process_are_heard_though_it_did_not_listen(void **unused)
{
    const struct message_state last = {.state = TPM_STATE_STOPPED};
    struct message m;
    int fds[2];

    (void)unused;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(message_send(fds[1], MESSAGE_STATE, &last, sizeof last, 0), 0);
    assert_int_equal(message_send(fds[0], MESSAGE_STOP, NULL, 0, 0), 0);
    close(fds[1]);
    assert_int_equal(message_receive(fds[0], &m), 0);
    assert_int_equal(m.type, MESSAGE_STATE);
    assert_int_equal(message_receive(fds[0], &m), -ENOTCONN);
    close(fds[0]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_new_tpm_keeps_what_it_is_told),
        T(what_was_acknowledged_survives_a_kill),
        T(its_file_is_swtpms),
        T(a_shrinking_state_replaces_the_file_whole),
        T(stopping_is_an_orderly_shutdown),
        T(a_clients_shutdown_is_not_repeated),
        T(a_shutdown_before_the_last_change_does_not_count),
        T(startup_is_left_to_the_client_if_asked),
        T(a_suspended_tpm_is_resumed),
        T(a_missing_state_is_an_error_where_there_was_one),
        T(a_backup_beside_a_missing_state_is_an_error),
        T(a_damaged_state_is_refused_and_left_alone),
        T(a_store_that_fails_is_never_acknowledged),
        T(a_new_tpm_that_cannot_be_stored_does_not_start),
        T(a_state_replaced_under_it_is_not_overwritten),
        T(a_state_removed_under_it_is_not_made_again),
        T(a_stored_volatile_state_is_forgotten_at_power_on),
        T(two_on_one_directory_is_an_error),
        T(another_mount_at_the_path_is_an_error),
        T(one_command_at_a_time),
        T(a_killed_process_ends_the_command),
        T(stopping_cancels_a_long_command),
        T(a_cancelled_command_says_so_and_the_next_one_works),
        T(signals_that_end_a_session_do_not_end_it),
        T(it_ends_before_it_was_started),
        T(it_ends_with_the_daemon),
        T(it_holds_nothing_of_the_daemons),
        T(tpm_1_2_works_too),
        cmocka_unit_test(the_last_words_of_a_process_are_heard_though_it_did_not_listen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
