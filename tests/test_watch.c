/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for the same descriptors again and again is as good as poll(2). */
#include "base/scope.h"
#include "tpm/watch.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
/* after the above */
#include <cmocka.h>

enum { SOON_MS = 10000, TIMES = 4 }; /* as often as it takes until a set is made, and more */

static struct watch w;
static int pair[2], other[2];

static int
set_up(void **state)
{
    (void)state;
    watch_init(&w);
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || socketpair(AF_UNIX, SOCK_STREAM, 0, other);
}

static int
tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        scope_close(&pair[i]);
        scope_close(&other[i]);
        pair[i] = other[i] = -1;
    }
    scope_close(&w.epoll);
    return 0;
}

/* What there is of @fd and, as another one, of none. */
static short
ask(uint64_t edition, int fd, short events, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = -1, .events = POLLIN}, {.fd = fd, .events = events}};
    int n = watch_poll(&w, edition, fds, 2, timeout_ms);

    assert_int_equal(n, fds[1].revents != 0);
    assert_int_equal(fds[0].revents, 0);
    return fds[1].revents;
}

static void
says_what_poll_says_each_time(void **state)
{
    char byte = 1;

    (void)state;
    for (int i = 0; i < TIMES; i++) {
        assert_int_equal(ask(0, pair[0], POLLIN, 0), 0);
        assert_int_equal(write(pair[1], &byte, 1), 1);
        assert_int_equal(ask(0, pair[0], POLLIN, SOON_MS), POLLIN);
        assert_int_equal(ask(0, pair[0], POLLIN, SOON_MS), POLLIN); /* it is still there */
        assert_int_equal(read(pair[0], &byte, 1), 1);
    }
    assert_true(w.epoll >= 0); /* so it was a set that said it */
    assert_int_equal(ask(0, pair[0], POLLIN | POLLOUT, SOON_MS), POLLOUT);
    scope_close(&pair[1]);
    pair[1] = -1;
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(0, pair[0], 0, SOON_MS), POLLHUP);
}

static void
a_new_file_under_an_old_number_is_heard(void **state)
{
    char byte = 1;

    (void)state;
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(0, pair[0], POLLIN, 0), 0);
    assert_int_equal(dup2(other[0], pair[0]), pair[0]);
    assert_int_equal(write(other[1], &byte, 1), 1);
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(1, pair[0], POLLIN, SOON_MS), POLLIN);
}

/* Who handed it over may have kept it. */
static void
what_was_closed_here_is_heard_no_more(void **state)
{
    AUTO_FD int kept = dup(pair[0]);
    char byte = 1;

    (void)state;
    assert_true(kept >= 0);
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(0, pair[0], POLLIN, 0), 0);
    scope_close(&pair[0]);
    pair[0] = -1;
    assert_int_equal(write(pair[1], &byte, 1), 1);
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(0, -1, POLLIN, 0), 0);
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(ask(1, other[0], POLLIN, 0), 0);
}

/* A file of mounts tells each change once, to whoever asks first, and that may be the kernel, while
 * a set is made. */
static void
what_is_told_once_is_not_missed(void **state)
{
    (void)state;
    ask(0, pair[0], POLLPRI, 0);
    assert_int_equal(ask(0, pair[0], POLLPRI, 0), POLLPRI);
    assert_int_equal(ask(0, pair[0], POLLPRI, 0), 0);
}

/* Not even if it was made in vain: a regular file cannot be in one.  Then it is poll(2) that is
 * asked, and nobody tries again. */
static void
what_is_told_once_is_not_missed_without_a_set(void **state)
{
    AUTO_FD int file = memfd_create("regular", MFD_CLOEXEC);
    struct pollfd fds[] = {{.fd = pair[0], .events = POLLPRI}, {.fd = file}};
    char byte = 1;

    (void)state;
    assert_true(file >= 0);
    assert_int_equal(watch_poll(&w, 0, fds, 2, 0), 0);
    assert_int_equal(watch_poll(&w, 0, fds, 2, 0), 1);
    assert_int_equal(fds[0].revents, POLLPRI);
    assert_int_equal(fds[1].revents, 0);
    assert_int_equal(w.epoll, -1);
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(watch_poll(&w, 0, fds, 2, 0), 0);
    fds[0].events = POLLIN;
    for (int i = 0; i < TIMES; i++) {
        assert_int_equal(watch_poll(&w, 0, fds, 2, 0), 0);
        assert_int_equal(write(pair[1], &byte, 1), 1);
        assert_int_equal(watch_poll(&w, 0, fds, 2, SOON_MS), 1);
        assert_int_equal(fds[0].revents, POLLIN);
        assert_int_equal(read(pair[0], &byte, 1), 1);
    }
    /* What is asked anew may have one again. */
    for (int i = 0; i < TIMES; i++)
        assert_int_equal(watch_poll(&w, 1, fds, 1, 0), 0);
    assert_true(w.epoll >= 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(says_what_poll_says_each_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_new_file_under_an_old_number_is_heard, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_closed_here_is_heard_no_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_told_once_is_not_missed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_told_once_is_not_missed_without_a_set, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
