/* SPDX-License-Identifier: BSD-3-Clause */
/* The queue of the TPM's process, in one thread. */
#include "base/scope.h"
#include "tpm/engine.h"
#include "tpm/queue.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the above */
#include <cmocka.h>

static int told; /* the TPM, to end its command early */

/* In libtpms' place. */
void
engine_cancel(void)
{
    told++;
}

static int
set_up(void **state)
{
    struct queue *q = calloc(1, sizeof *q);

    *state = q;
    told = 0;
    if (!q)
        return -1;
    queue_init(q);
    return 0;
}

static int
tear_down(void **state)
{
    struct queue *q = *state;

    for (int i = 0; i < JOB_SOURCES; i++)
        job_fini(&q->jobs[i]);
    free(q);
    return 0;
}

static bool
put(struct queue *q, enum job_source source, const char *body)
{
    char copy[16];
    struct job j = {.source = source, .locality = -1, .body = (uint8_t *)copy, .len = strlen(body)};
    bool r;

    memcpy(copy, body, j.len);
    r = queue_put(q, &j);
    memset(copy, '?', sizeof copy); /* the queue has its own */
    return r;
}

static void
assert_takes(struct queue *q, enum job_source source, const char *body)
{
    struct job j = {0};

    assert_true(queue_take(q, &j));
    assert_int_equal(j.source, source);
    assert_int_equal(j.len, strlen(body));
    assert_memory_equal(j.body, body, j.len);
    job_fini(&j);
}

static void
jobs_come_out_in_the_order_in_which_they_went_in(void **state)
{
    struct queue *q = *state;

    assert_true(put(q, JOB_DATA, "first"));
    assert_true(put(q, JOB_LINK, "second"));
    assert_true(put(q, JOB_CONTROL, "third"));
    assert_takes(q, JOB_DATA, "first");
    queue_done(q, true);
    assert_true(put(q, JOB_DATA, "fourth"));
    assert_takes(q, JOB_LINK, "second");
    queue_done(q, true);
    assert_takes(q, JOB_CONTROL, "third");
    queue_done(q, true);
    assert_takes(q, JOB_DATA, "fourth");
    queue_done(q, true);
    assert_false(queue_take(q, &(struct job){0}));
}

static void
one_job_of_each_source_may_wait(void **state)
{
    struct queue *q = *state;

    assert_true(put(q, JOB_DATA, "one"));
    assert_false(put(q, JOB_DATA, "two"));
    assert_true(put(q, JOB_LINK, "three"));
    assert_takes(q, JOB_DATA, "one");
}

static void
a_stop_goes_before_all_jobs(void **state)
{
    struct queue *q = *state;
    struct job j;

    assert_true(put(q, JOB_DATA, "never"));
    assert_false(queue_is_stopping(q));
    queue_stop(q);
    assert_true(queue_is_stopping(q));
    assert_false(queue_take(q, &j));
}

static void
a_stop_ends_the_command_that_runs(void **state)
{
    struct queue *q = *state;

    assert_true(put(q, JOB_DATA, "long"));
    assert_takes(q, JOB_DATA, "long");
    queue_stop(q);
    assert_true(queue_cancel_again(q));
    assert_int_equal(told, 1);
    queue_done(q, true);
    assert_true(queue_cancel_again(q)); /* it still ends */
    assert_int_equal(told, 1);          /* but there is nothing to tell */
}

/* Whether the TPM is told to end its command, and is to be told again. */
static bool
cancels(struct queue *q)
{
    int before = told;
    bool again = queue_cancel_again(q);

    assert_true(again || told == before);
    return again;
}

static void
a_cancel_is_for_the_command_that_runs(void **state)
{
    struct queue *q = *state;

    queue_cancel(q, JOB_DATA);
    assert_false(cancels(q)); /* there is none */
    assert_true(put(q, JOB_DATA, "long"));
    assert_takes(q, JOB_DATA, "long");
    queue_cancel(q, JOB_LINK);
    assert_false(cancels(q)); /* it is another's */
    assert_int_equal(told, 0);
    queue_cancel(q, JOB_DATA);
    assert_int_equal(told, 1);
    assert_true(cancels(q));
    queue_done(q, true);
    assert_false(cancels(q));
}

static void
a_cancel_is_for_the_command_that_waits(void **state)
{
    struct queue *q = *state;

    assert_true(put(q, JOB_CONTROL, "request"));
    assert_takes(q, JOB_CONTROL, "request");
    queue_cancel(q, JOB_CONTROL);
    assert_false(cancels(q)); /* a request is not cancelled */
    assert_int_equal(told, 0);
    assert_true(put(q, JOB_LINK, "long"));
    queue_cancel(q, JOB_LINK);
    queue_done(q, true); /* the request has ended, the command is to come */
    assert_true(cancels(q));
    assert_takes(q, JOB_LINK, "long");
    assert_true(cancels(q));
    queue_done(q, true);
    assert_false(cancels(q));
}

static void
the_queue_knows_whether_the_tpm_is_on(void **state)
{
    struct queue *q = *state;

    assert_false(queue_is_on(q));
    queue_done(q, true);
    assert_true(queue_is_on(q));
    queue_done(q, false);
    assert_false(queue_is_on(q));
}

static void
an_answer_is_fetched_once_by_its_source(void **state)
{
    struct queue *q = *state;
    uint8_t *answer = malloc(2), *got;
    size_t len;

    assert_non_null(answer);
    queue_answer(q, JOB_DATA, answer, 2);
    assert_false(queue_fetch(q, JOB_CONTROL, &got, &len));
    assert_true(queue_fetch(q, JOB_DATA, &got, &len));
    assert_ptr_equal(got, answer);
    assert_int_equal(len, 2);
    free(got);
    assert_false(queue_fetch(q, JOB_DATA, &got, &len));
    queue_answer(q, JOB_CONTROL, NULL, 0);
    assert_true(queue_fetch(q, JOB_CONTROL, &got, &len));
    assert_null(got);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(jobs_come_out_in_the_order_in_which_they_went_in),
        T(one_job_of_each_source_may_wait),
        T(a_stop_goes_before_all_jobs),
        T(a_stop_ends_the_command_that_runs),
        T(a_cancel_is_for_the_command_that_runs),
        T(a_cancel_is_for_the_command_that_waits),
        T(the_queue_knows_whether_the_tpm_is_on),
        T(an_answer_is_fetched_once_by_its_source),
    };

    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
