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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/vnvram-lease.XXXXXX";
static int fd;
static struct lease *lease;

/* ---- time ------------------------------------------------------------------------------------
 * It passes in pause_ms() and while a commit waits, and stands still else, however busy the machine
 * is: these two are in place of libc's. */

static int64_t now_ns = 1000000000;
static void (*as_time_passes)(void); /* called after each step of a wait */

int
clock_gettime(clockid_t id, struct timespec *t)
{
    if (id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, id, t);
    *t = (struct timespec){.tv_sec = now_ns / 1000000000, .tv_nsec = now_ns % 1000000000};
    return 0;
}

int
nanosleep(const struct timespec *t, struct timespec *left)
{
    (void)left;
    now_ns += t->tv_sec * 1000000000 + t->tv_nsec;
    if (as_time_passes)
        as_time_passes();
    return 0;
}

static int64_t
now_ms(void)
{
    return now_ns / 1000000;
}

static void
pause_ms(int ms)
{
    poll(NULL, 0, ms);
    now_ns += ms * INT64_C(1000000);
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

/* A copy: it has the file open until @copy_ends. */
static int copy;
static int64_t copy_ends;

static void
end_copy_in_time(void)
{
    if (now_ms() < copy_ends)
        return;
    close(copy);
    as_time_passes = NULL;
}

static void
start_copy(int64_t ms)
{
    copy = open(path, O_RDONLY);
    assert_true(copy >= 0);
    copy_ends = now_ms() + ms;
    as_time_passes = end_copy_in_time;
}

static void
end_copy(void)
{
    while (as_time_passes)
        pause_ms(1), end_copy_in_time();
}

/* Another process that opens the file, says so, and closes it when it is told to. */
static struct copier {
    pid_t pid;
    int said; /* readable once it is open, and at its end when the process has gone */
    int go;
    int64_t ends;
} copier;

static bool
is_open(int wait_ms)
{
    struct pollfd p = {.fd = copier.said, .events = POLLIN};

    return poll(&p, 1, wait_ms) == 1 && (p.revents & POLLIN);
}

static void
end_copier_in_time(void)
{
    int status;

    is_open(-1);
    if (now_ms() < copier.ends)
        return;
    close(copier.go);
    assert_int_equal(waitpid(copier.pid, &status, 0), copier.pid);
    assert_int_equal(status, 0);
    as_time_passes = NULL;
}

/* Its @ms begin now, but no time passes in a wait before it has the file open. */
static void
start_copier(int64_t ms)
{
    int said[2], go[2];

    assert_int_equal(pipe(said), 0);
    assert_int_equal(pipe(go), 0);
    copier.pid = fork();
    if (copier.pid == 0) {
        char byte;

        close(fd); /* or it would count as ours */
        close(go[1]);
        if (open(path, O_RDONLY) < 0 || write(said[1], "o", 1) != 1)
            _exit(1);
        _exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
    }
    assert_true(copier.pid > 0);
    close(said[1]);
    close(go[0]);
    copier.said = said[0];
    copier.go = go[1];
    copier.ends = now_ms() + ms;
    as_time_passes = end_copier_in_time;
}

static void
end_copier(void)
{
    copier.ends = 0;
    if (as_time_passes)
        end_copier_in_time();
    close(copier.said);
}

/* Until an open waits for our lease to end. */
static void
wait_for_opener(void)
{
    for (int i = 0; i < 60000 && fcntl(fd, F_GETLEASE) == F_WRLCK; i++)
        poll(NULL, 0, 1);
    assert_int_not_equal(fcntl(fd, F_GETLEASE), F_WRLCK);
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
    (void)state;
    assert_false(lease_begin(lease));
    start_copier(0);
    wait_for_opener();
    assert_false(is_open(100));
    lease_end(lease);
    assert_true(is_open(60000));
    end_copier();
}

static void
between_commits_no_open_waits(void **state)
{
    (void)state;
    commit_ms();
    start_copier(0);
    assert_true(is_open(60000));
    end_copier();
}

static void
a_commit_waits_for_a_copy_to_end(void **state)
{
    (void)state;
    start_copier(500);
    assert_true(is_open(60000));
    assert_in_range(commit_ms(), 500, 501);
    end_copier();
    assert_int_equal(commit_ms(), 0);
}

/* It waits in open() while the next commit begins. */
static void
a_waiting_open_is_not_passed_over(void **state)
{
    int64_t start;

    (void)state;
    lease_begin(lease);
    start_copier(500);
    wait_for_opener();
    assert_false(is_open(0));
    lease_end(lease);
    start = now_ms();
    lease_begin(lease);
    assert_true(is_open(0)); /* it came first */
    assert_in_range(now_ms() - start, 500, 501);
    lease_end(lease);
    end_copier();
}

static void
who_keeps_the_file_open_is_waited_for_once(void **state)
{
    (void)state;
    copy = open(path, O_RDONLY);
    assert_in_range(commit_ms(), LEASE_HOLD_MS, LEASE_HOLD_MS + 1);
    pause_ms(300); /* what may be waited has grown back */
    assert_int_equal(commit_ms(), 0);
    assert_int_equal(commit_ms(), 0);
    close(copy);
    assert_int_equal(commit_ms(), 0); /* which finds that he has gone */
    copy = open(path, O_RDONLY);
    pause_ms(300);
    assert_in_range(commit_ms(), LEASE_HOLD_MS, LEASE_HOLD_MS + 1);
    close(copy);
}

/* Copies one after the other, each just under the limit: the wait of all is limited, too. */
static void
many_copies_do_not_add_up(void **state)
{
    int64_t waited = 0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        start_copy(1000);
        waited += commit_ms();
        end_copy();
    }
    assert_in_range(waited, LEASE_HOLD_MS, 2900);
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

static void
after_a_row_of_commits_it_is_unknown(void **state)
{
    (void)state;
    commit_alone();
    lease_begin(lease);
    lease_end(lease);
    assert_int_equal(lease_begin(lease), DEV_NO_NEWS); /* no time has passed */
    lease_end(lease);
    pause_ms(20);
    assert_int_equal(lease_begin(lease), DEV_UNKNOWN);
    lease_end(lease);
    pause_ms(20);
    assert_int_equal(lease_begin(lease), DEV_NO_NEWS); /* known again */
    lease_end(lease);
}

/* Who has had the file open meanwhile ends the row. */
static void
a_row_ends_with_somebody_elses_open(void **state)
{
    (void)state;
    commit_alone();
    lease_begin(lease);
    start_copier(100); /* waits in open(), then has it open */
    wait_for_opener();
    assert_false(is_open(0));
    lease_end(lease);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(lease_begin(lease), DEV_TOUCHED);
    lease_end(lease);
    end_copier();
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
    lease_begin(lease); /* in a row */
    pid = fork();
    if (pid == 0) {
        int other = open(path, O_WRONLY);

        _exit(other >= 0 && pwrite(other, "not own", 7, 0) == 7 ? 0 : 1);
    }
    wait_for_opener();
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
    assert_int_equal(now_ms(), start);
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
