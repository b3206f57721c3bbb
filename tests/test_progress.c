/* SPDX-License-Identifier: BSD-3-Clause */
/* The line about what takes long: when it is shown, what it says, and that it leaves nothing
 * behind.
 */
#include "base/clock.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { DEADLINE_MS = 30000, SHOWN_AFTER_MS = 500, LONGER_THAN_SHOWN_MS = 800 };

/* Standard error while a test looks at it. */
struct stage {
    int seen, saved;
    char text[4096];
    size_t len;
};

static void
stage_begin(struct stage *s, int seen, int err)
{
    *s = (struct stage){.seen = seen, .saved = dup(STDERR_FILENO)};
    assert_true(s->saved >= 0 && dup2(err, STDERR_FILENO) == STDERR_FILENO);
    close(err);
    progress_show(true);
}

static void
on_pipe(struct stage *s)
{
    int fd[2];

    assert_int_equal(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0);
    stage_begin(s, fd[0], fd[1]);
}

static void
on_terminal(struct stage *s)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    int slave;

    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    stage_begin(s, master, slave);
}

static void
stage_end(struct stage *s)
{
    progress_show(false);
    dup2(s->saved, STDERR_FILENO);
    close(s->saved);
    close(s->seen);
}

static void
take(struct stage *s)
{
    ssize_t n = read(s->seen, s->text + s->len, sizeof s->text - 1 - s->len);

    if (n > 0)
        s->len += (size_t)n;
    s->text[s->len] = '\0';
}

static void
forget(struct stage *s)
{
    s->len = 0;
    s->text[0] = '\0';
}

/* Waits until what was written contains @what. */
static void
comes(struct stage *s, const char *what)
{
    for (int waited = 0; !strstr(s->text, what); waited += 50) {
        struct pollfd p = {.fd = s->seen, .events = POLLIN};

        if (waited >= DEADLINE_MS)
            fail_msg("\"%s\" did not come, but \"%s\"", what, s->text);
        poll(&p, 1, 50);
        take(s);
    }
}

static void
wait_ms(long ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

static void
what_takes_long_says_how_far_it_is(void **state)
{
    AUTO(stage_end) struct stage s;

    (void)state;
    on_pipe(&s);
    progress_begin("testing", 200);
    progress_add(60);
    progress_add(40);
    comes(&s, "vnvram: testing: 50%, ");
    comes(&s, " s\n");
    progress_add(1000);
    comes(&s, "vnvram: testing: 100%, ");
    progress_end();
    assert_null(strchr(s.text, '\r'));
    assert_null(strchr(s.text, '\033'));
}

static void
nobody_can_tell_how_far_without_a_total(void **state)
{
    AUTO(stage_end) struct stage s;

    (void)state;
    on_pipe(&s);
    progress_begin("testing", 0);
    progress_add(10);
    comes(&s, "vnvram: testing, ");
    progress_end();
    assert_null(strchr(s.text, '%'));
}

static void
what_is_quick_says_nothing(void **state)
{
    AUTO(stage_end) struct stage s;
    int judged = 0;

    (void)state;
    on_pipe(&s);
    for (int i = 0; i < 100; i++) {
        int64_t start = clock_ms();

        progress_begin("testing", 1);
        progress_end();
        take(&s);
        if (clock_ms() - start >= SHOWN_AFTER_MS) {
            forget(&s); /* the machine was busy, and this was not quick */
            continue;
        }
        judged++;
        assert_int_equal(s.len, 0);
    }
    assert_int_not_equal(judged, 0);
}

static void
nothing_is_said_where_nobody_asked(void **state)
{
    AUTO(stage_end) struct stage s;

    (void)state;
    on_pipe(&s);
    progress_show(false);
    progress_begin("testing", 1);
    wait_ms(LONGER_THAN_SHOWN_MS);
    progress_add(1);
    progress_end();
    take(&s);
    assert_int_equal(s.len, 0);
}

static void
what_begins_within_is_part_of_it(void **state)
{
    AUTO(stage_end) struct stage s;

    (void)state;
    on_pipe(&s);
    {
        AUTO_PROGRESS bool outer = progress_started("outer", 10);

        progress_add(1);
        {
            AUTO_PROGRESS bool inner = progress_started("inner", 10);

            progress_add(5); /* of another thing */
            comes(&s, "vnvram: outer: 10%, ");
        }
        progress_add(1);
        comes(&s, "vnvram: outer: 20%, ");
    }
    assert_null(strstr(s.text, "inner"));
    forget(&s);
    progress_begin("later", 0);
    comes(&s, "vnvram: later, ");
    progress_end();
    progress_end(); /* one too many does no harm */
}

static void
on_a_terminal_it_gives_way(void **state)
{
    AUTO(stage_end) struct stage s;

    (void)state;
    on_terminal(&s);
    progress_begin("testing", 4);
    progress_add(1);
    comes(&s, "\rvnvram: testing: 25%, ");
    assert_null(strchr(s.text, '\n'));
    report(0, "a report");
    comes(&s, "\r\033[Kvnvram: a report\r\n");
    forget(&s);
    comes(&s, "\rvnvram: testing: 25%, "); /* and comes back */
    progress_end();
    comes(&s, "\r\033[K");
    assert_string_equal(s.text + s.len - 4, "\r\033[K");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_takes_long_says_how_far_it_is),
        cmocka_unit_test(nobody_can_tell_how_far_without_a_total),
        cmocka_unit_test(what_is_quick_says_nothing),
        cmocka_unit_test(nothing_is_said_where_nobody_asked),
        cmocka_unit_test(what_begins_within_is_part_of_it),
        cmocka_unit_test(on_a_terminal_it_gives_way),
    };

    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
