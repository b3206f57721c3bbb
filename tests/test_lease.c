/* SPDX-License-Identifier: BSD-3-Clause */
/* Commits and copies of one file, on real leases.  Where the file system has none, most is skipped.
 */
#include "base/scope.h"
#include "core/lease.h"
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { AT_ONCE_MS = LEASE_HOLD_MS / 3 }; /* nobody was waited for, on a busy machine either */

static char path[] = "/tmp/vnvram-lease.XXXXXX";
static int fd;
static struct lease *lease;

static int64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int
set_up(void **state)
{
    (void)state;
    strcpy(strrchr(path, '.'), ".XXXXXX");
    fd = mkstemp(path);
    if (fd < 0 || write(fd, "0123456789", 10) != 10)
        return -1;
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return -1;
    fcntl(fd, F_SETLEASE, F_UNLCK);
    lease = lease_new(fd);
    return lease ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    lease_free(lease);
    close(fd);
    return unlink(path);
}

/* Another process that opens the file, says so, and closes it after @ms. */
struct copier {
    pid_t pid;
    int said; /* readable once it is open */
};

static struct copier
start_copier(long ms)
{
    struct copier c;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    c.pid = fork();
    if (c.pid == 0) {
        int copy;

        close(fd); /* or it would count as ours */
        copy = open(path, O_RDONLY);
        if (copy < 0 || write(fds[1], "o", 1) != 1)
            _exit(1);
        pause_ms(ms);
        _exit(0);
    }
    assert_true(c.pid > 0);
    close(fds[1]);
    c.said = fds[0];
    return c;
}

static bool
is_open(const struct copier *c, int wait_ms)
{
    struct pollfd p = {.fd = c->said, .events = POLLIN};

    return poll(&p, 1, wait_ms) == 1 && (p.revents & POLLIN);
}

static void
end_copier(struct copier *c)
{
    int status;

    close(c->said);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    assert_int_equal(status, 0);
}

/* One commit; how long it waited. */
static int64_t
commit_ms(void)
{
    int64_t start = now_ms(), waited;

    lease_begin(lease);
    waited = now_ms() - start;
    lease_end(lease);
    return waited;
}

static void
an_open_waits_for_the_end_of_a_commit(void **state)
{
    struct copier c;

    (void)state;
    assert_false(lease_begin(lease));
    c = start_copier(0);
    assert_false(is_open(&c, 300));
    lease_end(lease);
    assert_true(is_open(&c, 5000));
    end_copier(&c);
}

static void
between_commits_no_open_waits(void **state)
{
    struct copier c;

    (void)state;
    commit_ms();
    c = start_copier(0);
    assert_true(is_open(&c, 5000));
    end_copier(&c);
}

static void
a_commit_waits_for_a_copy_to_end(void **state)
{
    struct copier c = start_copier(500);
    int64_t waited;

    (void)state;
    assert_true(is_open(&c, 5000));
    waited = commit_ms();
    assert_in_range(waited, 100, LEASE_HOLD_MS);
    end_copier(&c);
    assert_true(commit_ms() < AT_ONCE_MS);
}

/* It waits in open() while the next commit begins. */
static void
a_waiting_open_is_not_passed_over(void **state)
{
    struct copier c;
    int64_t start;

    (void)state;
    lease_begin(lease);
    c = start_copier(500);
    assert_false(is_open(&c, 300));
    lease_end(lease);
    start = now_ms();
    lease_begin(lease);
    assert_true(is_open(&c, 0)); /* it came first */
    assert_true(now_ms() - start >= 100);
    lease_end(lease);
    end_copier(&c);
}

static void
who_keeps_the_file_open_is_waited_for_once(void **state)
{
    int copy = open(path, O_RDONLY);
    int64_t waited;

    (void)state;
    waited = commit_ms();
    assert_in_range(waited, LEASE_HOLD_MS - 100, 2 * LEASE_HOLD_MS - 100);
    pause_ms(300); /* what may be waited has grown back */
    assert_true(commit_ms() < AT_ONCE_MS);
    assert_true(commit_ms() < AT_ONCE_MS);
    close(copy);
    assert_true(commit_ms() < AT_ONCE_MS); /* which finds that he has gone */
    copy = open(path, O_RDONLY);
    pause_ms(300);
    assert_true(commit_ms() >= LEASE_HOLD_MS / 2);
    close(copy);
}

/* Copies one after the other, each just under the limit: the wait of all is limited, too. */
static void
many_copies_do_not_add_up(void **state)
{
    int64_t start = now_ms(), waited = 0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct copier c = start_copier(1000);

        assert_true(is_open(&c, 5000));
        waited += commit_ms();
        end_copier(&c);
        if (now_ms() - start > 10000)
            fail_msg("too slow a machine to tell");
    }
    assert_true(waited < 2900);
}

/* A commit of its own, and nothing else for a while: past the tick that file times are counted in,
 * and past what is a row. */
static void
commit_alone(void)
{
    pause_ms(20);
    lease_begin(lease);
    assert_int_equal(pwrite(fd, "own", 3, 0), 3);
    lease_end(lease);
    pause_ms(20);
}

static void
a_change_by_somebody_else_is_told(void **state)
{
    int other;

    (void)state;
    commit_alone();
    assert_int_equal(lease_begin(lease), DEV_NO_NEWS);
    lease_end(lease);
    assert_int_equal(chmod(path, 0640), 0);
    pause_ms(20);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
    commit_alone();
    other = open(path, O_WRONLY);
    assert_int_equal(pwrite(other, "not own", 7, 0), 7);
    close(other);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
    pause_ms(20);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
}

/* The two commits must be closer than a row's gap, which a busy machine may take a few tries for.
 */
static void
after_a_row_of_commits_it_is_unknown(void **state)
{
    enum dev_news news = DEV_NO_NEWS;

    (void)state;
    for (int i = 0; i < 100 && news != DEV_UNKNOWN; i++) {
        commit_alone();
        lease_begin(lease);
        lease_end(lease);
        assert_int_not_equal(lease_begin(lease), DEV_TOUCHED);
        lease_end(lease);
        pause_ms(20);
        news = lease_begin(lease);
        lease_end(lease);
    }
    assert_int_equal(news, DEV_UNKNOWN);
    pause_ms(20);
    assert_int_equal(lease_begin(lease), DEV_NO_NEWS); /* known again */
    lease_end(lease);
}

/* Who has had the file open meanwhile ends the row. */
static void
a_row_ends_with_somebody_elses_open(void **state)
{
    struct copier c;

    (void)state;
    commit_alone();
    lease_begin(lease);
    c = start_copier(100); /* waits in open(), then has it open */
    assert_false(is_open(&c, 100));
    lease_end(lease);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
    end_copier(&c);
}

/* He wakes up when the lease is given back, and is faster than the next commit. */
static void
a_quick_write_that_waited_is_told(void **state)
{
    pid_t pid;
    int status;

    (void)state;
    commit_alone();
    lease_begin(lease);
    lease_end(lease);
    lease_begin(lease); /* in a row, most likely */
    pid = fork();
    if (pid == 0) {
        int other = open(path, O_WRONLY);

        _exit(other >= 0 && pwrite(other, "not own", 7, 0) == 7 ? 0 : 1);
    }
    for (int i = 0; i < 5000 && fcntl(fd, F_GETLEASE) == F_WRLCK; i++)
        pause_ms(1);
    assert_int_not_equal(fcntl(fd, F_GETLEASE), F_WRLCK);
    assert_int_equal(pwrite(fd, "own", 3, 0), 3);
    lease_end(lease);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
}

static void
without_leases_nothing_waits_and_nothing_is_told(void **state)
{
    int null = open("/dev/null", O_RDWR);
    struct lease *l = lease_new(null);
    int64_t start = now_ms();
    int fifo;

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_false(lease_begin(l));
        lease_end(l);
    }
    assert_true(now_ms() - start < 1000);
    lease_free(l);
    close(null);
    assert_int_equal(mkfifo(path, 0600), 0);
    fifo = open(path, O_RDWR);
    l = lease_new(fifo);
    pause_ms(20); /* past the tick that file times are counted in */
    assert_int_equal(fchmod(fifo, 0640), 0);
    assert_false(lease_begin(l)); /* a change, but who commits can do nothing about it here */
    lease_end(l);
    lease_free(l);
    close(fifo);
    unlink(path);
}

static void
a_break_kills_nobody(void **state)
{
    struct sigaction sa;

    (void)state;
    assert_int_equal(sigaction(SIGIO, NULL, &sa), 0);
    assert_true(sa.sa_handler == SIG_IGN);
}

int
main(void)
{
#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_FILE(an_open_waits_for_the_end_of_a_commit),
        WITH_FILE(between_commits_no_open_waits),
        WITH_FILE(a_commit_waits_for_a_copy_to_end),
        WITH_FILE(a_waiting_open_is_not_passed_over),
        WITH_FILE(who_keeps_the_file_open_is_waited_for_once),
        WITH_FILE(many_copies_do_not_add_up),
        WITH_FILE(a_change_by_somebody_else_is_told),
        WITH_FILE(after_a_row_of_commits_it_is_unknown),
        WITH_FILE(a_row_ends_with_somebody_elses_open),
        WITH_FILE(a_quick_write_that_waited_is_told),
        WITH_FILE(a_break_kills_nobody),
        cmocka_unit_test(without_leases_nothing_waits_and_nothing_is_told),
    };

    signal(SIGIO, SIG_DFL);
    return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
