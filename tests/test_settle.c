/* SPDX-License-Identifier: BSD-3-Clause */
/* When the settling thread runs, and the JSON of the status file. */
#include "fs/json.h"
#include "fs/settle.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
/* After what it needs. */
#include <cmocka.h>

enum { AFTER_MS = 300 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ran = PTHREAD_COND_INITIALIZER;
static unsigned runs;
static struct settle *settle;
static int64_t last_run;

static int64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Pokes, too, as a commit of its own would. */
static void
run(void *arg)
{
    (void)arg;
    settle_poke(settle);
    pthread_mutex_lock(&lock);
    runs++;
    last_run = now_ms();
    pthread_cond_signal(&ran);
    pthread_mutex_unlock(&lock);
}

static void
wait_for_run(unsigned n)
{
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 60;
    pthread_mutex_lock(&lock);
    while (runs < n)
        assert_int_equal(pthread_cond_timedwait(&ran, &lock, &deadline), 0);
    pthread_mutex_unlock(&lock);
}

/* For longer than AFTER_MS in all.  Returns when the last poke was; -1: the machine took so long
 * between two that it may have run. */
static int64_t
poke_for_a_while(void)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int64_t last = now_ms();

    for (int i = 0; i < 40; i++) {
        int64_t before = last;

        last = now_ms();
        settle_poke(settle);
        nanosleep(&pause, NULL);
        if (now_ms() - before >= AFTER_MS / 2)
            return -1;
    }
    return last;
}

static void
it_runs_once_after_the_last_commit_and_not_before(void **state)
{
    const struct timespec pause = {.tv_nsec = 3 * AFTER_MS * 1000000};
    int64_t last_poke = -1;

    (void)state;
    for (int tries = 0; last_poke < 0 && tries < 20; tries++) {
        runs = 0;
        assert_int_equal(settle_new(&settle, AFTER_MS, run, NULL), 0);
        last_poke = poke_for_a_while();
        if (last_poke < 0)
            settle_free(settle);
    }
    assert_true(last_poke >= 0);
    wait_for_run(1);
    assert_true(last_run - last_poke >= AFTER_MS - 1);
    settle_poke(settle);
    wait_for_run(2);
    nanosleep(&pause, NULL); /* a third run would come now */
    settle_free(settle);
    assert_int_equal(runs, 2);
}

static void
it_ends_without_running(void **state)
{
    (void)state;
    runs = 0;
    assert_int_equal(settle_new(&settle, 60000, run, NULL), 0);
    settle_poke(settle);
    settle_free(settle);
    settle_free(NULL);
    assert_int_equal(runs, 0);
}

static void
assert_json(const char *text, const char *expected)
{
    char *got = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&got, &len);

    assert_non_null(out);
    json_put_string(out, text);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(got, expected);
    free(got);
}

static void
json_strings_are_escaped_and_always_utf8(void **state)
{
    (void)state;
    assert_json(NULL, "null");
    assert_json("", "\"\"");
    assert_json("a\"b\\c\n\x7f", "\"a\\\"b\\\\c\\u000a\\u007f\"");
    assert_json("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x94\x91",
                "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x94\x91\"");
    assert_json("\xff x\xc3", "\"\\ufffd x\\ufffd\"");
    assert_json("\xc0\xaf", "\"\\ufffd\\ufffd\"");                       /* overlong */
    assert_json("\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"");            /* a surrogate */
    assert_json("\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""); /* past the last one */
}

static void
json_members_have_a_comma_in_front(void **state)
{
    char *got = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&got, &len);

    (void)state;
    assert_non_null(out);
    json_member_string(out, "s", "x");
    json_member_number(out, "n", UINT64_MAX);
    json_member_bool(out, "b", true);
    json_member_time(out, "t", 951782400);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(got, ",\n  \"s\": \"x\",\n  \"n\": 18446744073709551615,\n  \"b\": true"
                             ",\n  \"t\": \"2000-02-29T00:00:00Z\"");
    free(got);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_runs_once_after_the_last_commit_and_not_before),
        cmocka_unit_test(it_ends_without_running),
        cmocka_unit_test(json_strings_are_escaped_and_always_utf8),
        cmocka_unit_test(json_members_have_a_comma_in_front),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
