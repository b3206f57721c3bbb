/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD: the URIs, and a store whose server dies at every request there is. */
#include "base/clock.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/dev_nbd.h"
#include "core/nbd_link.h"
#include "core/nbd_uri.h"
#include "core/store.h"
#include "tests/memdev.h"
#include "tests/nbdpeer.h"
#include "tests/testimage.h"
#include "tests/testseal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { SIZE = 512 * 1024, COMMITS = 3, FLUSH_FLAG = 4, FUA_FLAG = 8, READ_ONLY_FLAG = 2 };

static char last_report[1024];

static void
keep_report(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    snprintf(last_report, sizeof last_report, "%s", line);
}

/* ---- URIs -------------------------------------------------------------------------------------
 */

static void
uris_have_one_spelling(void **state)
{
    static const char *const same[][2] = {
        {"nbd://host", "nbd://host:10809/"},
        {"NBD://host:10809/", "nbd://host:10809/"},
        {"nbd://[::1]:7/a/b", "nbd://[::1]:7/a/b"},
        {"nbd://[fe80::1]", "nbd://[fe80::1]:10809/"},
        {"nbd://[fe80::1%25eth0]:7/", "nbd://[fe80::1%25eth0]:7/"},
        {"nbds://u@[fe80::1%25a%2fb]/?tls-psk-file=/p",
         "nbds://u@[fe80::1%25a%2Fb]:10809/?tls-psk-file=/p"},
        {"nbd://a%2fb/c%3Fd", "nbd://a%2Fb:10809/c%3Fd"},
        {"nbd://a%3A%5D", "nbd://[a:%5D]:10809/"},
        {"nbds://u%2Fv@h?tls-psk-file=/p", "nbds://u%2Fv@h:10809/?tls-psk-file=/p"},
        {"nbd+unix:///?socket=/run/s", "nbd+unix:///?socket=/run/s"},
        {"nbd+unix://?socket=%2Frun%2fs", "nbd+unix:///?socket=/run/s"},
        {"nbd+unix:///a%20b?socket=/s", "nbd+unix:///a%20b?socket=/s"},
        {"nbds://u@h:1/x?tls-psk-file=/p", "nbds://u@h:1/x?tls-psk-file=/p"},
        {"nbds://h/?tls-certificates=/c", "nbds://h:10809/?tls-certificates=/c"},
        {"nbds+unix://u@/?socket=/s;tls-psk-file=/p", "nbds+unix://u@/?socket=/s&tls-psk-file=/p"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        AUTO(nbd_uri_fini) struct nbd_uri u = {0}, again = {0};
        AUTO_FREE char *text = NULL, *same_text = NULL;

        assert_true(nbd_uri_is_one(same[i][0]));
        assert_int_equal(nbd_uri_parse(&u, same[i][0]), 0);
        text = nbd_uri_text(&u);
        assert_string_equal(text, same[i][1]);
        assert_int_equal(nbd_uri_parse(&again, text), 0);
        same_text = nbd_uri_text(&again);
        assert_string_equal(same_text, text);
    }
}

static bool
is_one_place(const char *uri, const char *other)
{
    AUTO(nbd_uri_fini) struct nbd_uri a = {0}, b = {0};
    AUTO_FREE char *here = NULL, *there = NULL;

    assert_int_equal(nbd_uri_parse(&a, uri), 0);
    assert_int_equal(nbd_uri_parse(&b, other), 0);
    here = nbd_uri_place(&a);
    there = nbd_uri_place(&b);
    assert_non_null(here);
    assert_non_null(there);
    return strcmp(here, there) == 0;
}

static void
places_have_one_spelling(void **state)
{
    static const char *const same[][2] = {
        {"nbd://host", "nbd://HOST:10809/"},
        {"nbd://localhost:07/a", "nbd://127.0.0.1:7/a"},
        {"nbd://[::1]:7/a", "nbds://u@LocalHost:7/%61?tls-psk-file=/p"},
        {"nbd://[fe80:0::1]", "nbds://[FE80::1]?tls-certificates=/c"},
        {"nbd+unix:///a?socket=/", "nbds+unix:///a?socket=/../tmp/..&tls-psk-file=/p"},
        {"nbd://[fe80::1%25lo]", "nbd://[FE80:0::1%251]"},
        {"nbd://[fe80::1%25none]", "nbd://[FE80:0::1%25none]"},
    };
    static const char *const distinct[][2] = {
        {"nbd://host/a", "nbd://host/b"},
        {"nbd://host/a", "nbd://host:10810/a"},
        {"nbd://host/a", "nbd://host2/a"},
        {"nbd://[fe80::1%25lo]", "nbd://[fe80::1]"},
        {"nbd://[fe80::1%25lo]", "nbd://[fe80::1%25none]"},
        {"nbd+unix:///a?socket=/", "nbd+unix:///b?socket=/"},
        {"nbd+unix:///a?socket=/", "nbd+unix:///a?socket=/tmp"},
        {"nbd+unix:///?socket=/nonexistent/a", "nbd+unix:///?socket=/nonexistent/b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        assert_true(is_one_place(same[i][0], same[i][1]));
    for (size_t i = 0; i < sizeof distinct / sizeof distinct[0]; i++)
        assert_false(is_one_place(distinct[i][0], distinct[i][1]));
}

static void
relative_paths_are_made_absolute(void **state)
{
    AUTO(nbd_uri_fini) struct nbd_uri u = {0};
    AUTO_FREE char *cwd = getcwd(NULL, 0), *want = NULL;

    (void)state;
    assert_int_equal(nbd_uri_parse(&u, "nbd+unix:///e?socket=s"), 0);
    assert_true(asprintf(&want, "%s/s", cwd) > 0);
    assert_string_equal(u.socket, want);
    assert_string_equal(u.export, "e");
}

static void
what_is_no_uri_is_a_path(void **state)
{
    static const char *const paths[] = {"a",      "/nbd/a",      "./nbd://x", "nbd:/x",
                                        "nb://x", "http://nbd/", "nbd 1://",  ""};

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_false(nbd_uri_is_one(paths[i]));
        assert_true(dev_is_path(paths[i]));
    }
}

static void
malformed_uris_are_wrong_use(void **state)
{
    static const char *const bad[] = {
        "nbd://",
        "nbd:///e",
        "nbd://h:/",
        "nbd://h:0",
        "nbd://h:65536",
        "nbd://h:1x",
        "nbd://[::1",
        "nbd://[::1]x",
        "nbd://[fe80::1%eth0]",
        "nbds://[fe80::1%25eth0]?tls-certificates=/c",
        "nbd://h/%",
        "nbd://h/%4",
        "nbd://h/%gg",
        "nbd://h/%00",
        "nbd://h/#f",
        "nbd://h/?socket=/s",
        "nbd://h/?tls-psk-file=/p",
        "nbd://h/?x=y",
        "nbd://u@h/",
        "nbdx://h/",
        "nbd+vsock://2/",
        "nbds://h/",
        "nbds://h/?tls-psk-file=/p&tls-certificates=/c",
        "nbd+unix:///",
        "nbd+unix:///?socket",
        "nbd+unix:///?socket=",
        "nbd+unix:///?socket=/a&socket=/b",
        "nbd+unix://h/?socket=/s",
        "nbds+unix:///?socket=/s",
        "nbds+unix:///?socket=/s&tls-certificates=/c",
        "nbd+unix:///?socket=/"
        "0123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct nbd_uri u;

        last_report[0] = '\0';
        assert_int_equal(nbd_uri_parse(&u, bad[i]), -EINVAL);
        assert_non_null(strstr(last_report, bad[i]));
        assert_null(u.export);
    }
}

/* ---- images -----------------------------------------------------------------------------------
 */

static uint8_t *blank_image; /* formatted, nothing in it */

static const struct dev_options patient = {.reconnect_s = 15}, hasty = {.reconnect_s = 0};

static int
make_image(void **state)
{
    static const struct slot_class classes[] = {{4, 4096}};
    const struct format_spec spec = {.classes = classes,
                                     .n_classes = 1,
                                     .image_size = SIZE,
                                     .uuid = {1},
                                     .root = {0700, 0, 0, {0}, {0}, {0}}};
    AUTO(sealer_freep) struct sealer *sealer = testseal_plain();
    struct dev *d;

    (void)state;
    report_set_sink(keep_report, NULL);
    blank_image = calloc(1, SIZE);
    d = memdev_new(blank_image, SIZE);
    assert_int_equal(store_format(d, &spec, sealer), 0);
    dev_close(d);
    return 0;
}

static int
free_image(void **state)
{
    (void)state;
    free(blank_image);
    return 0;
}

static struct nbdpeer *
new_peer(unsigned flags)
{
    struct nbdpeer *p = nbdpeer_new(SIZE, flags);

    nbdpeer_set_medium(p, blank_image);
    return p;
}

static int
open_store(struct store **s, struct dev *d)
{
    const struct store_options opt = {.unlock = testseal_unlock};
    int r = store_open(s, d, &opt);

    if (r < 0)
        dev_close(d);
    return r;
}

static int
open_over_nbd(struct store **s, struct nbdpeer *p, const struct dev_options *opt)
{
    struct dev *d;
    int r = dev_open(&d, nbdpeer_uri(p), 0, opt);

    return r < 0 ? r : open_store(s, d);
}

static int
put(struct store *s, int i)
{
    char name[8], text[64];

    snprintf(name, sizeof name, "%d", i % 2);
    snprintf(text, sizeof text, "content %d", i);
    return testimage_put(s, name, text, strlen(text), NULL);
}

/* How many of put()s the image shows: the last of each name, and none of which an earlier is gone.
 */
static int
count_puts(struct store *s)
{
    int last = -1;

    for (int name = 0; name < 2; name++) {
        char text[64] = {0};
        struct entry e;
        int i;

        snprintf(text, sizeof text, "%d", name);
        if (store_find(s, text, &e) < 0)
            continue;
        memset(text, 0, sizeof text);
        assert_int_equal(store_read(s, &e.current, text), 0);
        assert_int_equal(sscanf(text, "content %d", &i), 1);
        assert_int_equal(i % 2, name);
        if (i > last)
            last = i;
    }
    return last + 1;
}

/* What a power cut leaves on the server, opened. */
static int
shown_by(struct nbdpeer *p)
{
    AUTO_FREE uint8_t *medium = nbdpeer_medium(p);
    struct store *s;
    int n;

    assert_int_equal(open_store(&s, memdev_new(medium, SIZE)), 0);
    n = count_puts(s);
    store_close(s);
    return n;
}

/* ---- lost connections ---------------------------------------------------------------------------
 */

/* A life of a store over a server that does as @plan says: all of it must work. */
static void
live_with(const struct nbdpeer_plan *plan, unsigned flags, bool *reached)
{
    struct nbdpeer *p = new_peer(flags);
    struct store *s;

    nbdpeer_plan(p, plan);
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    for (int i = 0; i < COMMITS; i++) {
        assert_int_equal(put(s, i), 0);
        assert_int_equal(shown_by(p), i + 1); /* acknowledged, so durable */
        assert_int_equal(count_puts(s), i + 1);
    }
    assert_int_equal(store_settle(s), 0);
    store_close(s);
    *reached = nbdpeer_has_died(p);
    assert_int_equal(shown_by(p), COMMITS);
    nbdpeer_free(p);
}

static void
survives(enum nbdpeer_loss loss, bool after, unsigned flags)
{
    bool reached = true;
    unsigned long at = 1;

    for (; reached; at++)
        live_with(&(struct nbdpeer_plan){.at = at, .loss = loss, .after = after}, flags, &reached);
    assert_true(at > 15); /* reads, writes and flushes */
}

static void
a_server_may_die_before_any_request_and_lose_its_cache(void **state)
{
    (void)state;
    survives(LOSE_ALL, false, FLUSH_FLAG | FUA_FLAG);
}

static void
a_server_may_die_before_any_request_and_lose_some_of_its_cache(void **state)
{
    (void)state;
    survives(LOSE_SOME, false, FLUSH_FLAG);
}

static void
a_server_may_die_after_any_request_and_lose_its_cache(void **state)
{
    (void)state;
    survives(LOSE_ALL, true, FLUSH_FLAG);
}

static void
a_server_may_die_after_any_request_and_keep_its_cache(void **state)
{
    (void)state;
    survives(LOSE_NONE, true, FUA_FLAG);
}

static void
a_server_may_die_again_and_again(void **state)
{
    bool died;

    (void)state;
    live_with(&(struct nbdpeer_plan){.at = 18, .again = true}, FLUSH_FLAG, &died);
    assert_true(died);
}

/* ---- the end ------------------------------------------------------------------------------------
 */

/* One commit is made, then the server does as @plan says at the @n-th request of the next, which
 * fails; and so do all others, nothing being written any more. */
static void
fails_closed(struct nbdpeer_plan plan, unsigned long n, const struct dev_options *opt)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *medium = NULL;
    struct store_info info;
    struct store *s;
    unsigned long writes;

    assert_int_equal(open_over_nbd(&s, p, opt), 0);
    assert_int_equal(put(s, 0), 0);
    plan.at = n;
    nbdpeer_plan(p, &plan);
    assert_int_equal(put(s, 1), -EIO);
    writes = nbdpeer_writes(p);
    assert_int_equal(put(s, 1), -EROFS);
    assert_int_equal(store_settle(s), -EROFS);
    assert_int_equal(nbdpeer_writes(p), writes);
    store_get_info(s, &info);
    assert_int_not_equal(info.read_only, 0);
    if (!plan.away && !plan.back)
        assert_int_equal(count_puts(s), 1); /* what was acknowledged can be read */
    store_close(s);
    medium = nbdpeer_medium(p);
    if (plan.back)
        assert_memory_equal(medium, plan.back, SIZE);
    else
        assert_in_range(shown_by(p), 1, 2);
    nbdpeer_free(p);
}

static void
a_server_that_stays_away_makes_the_store_read_only(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 3; n++)
        fails_closed((struct nbdpeer_plan){.away = true}, n, &hasty);
}

static void
a_server_that_does_not_answer_makes_the_store_read_only(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 3; n++)
        fails_closed((struct nbdpeer_plan){.stall = true}, n,
                     &(struct dev_options){.reconnect_s = 1});
}

static void
an_error_of_the_server_makes_the_store_read_only(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 3; n++)
        fails_closed((struct nbdpeer_plan){.error = EIO}, n, &patient);
    fails_closed((struct nbdpeer_plan){.error = ENOSPC}, 1, &patient);
}

static void
a_server_that_is_shutting_down_has_a_successor(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    struct store *s;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 2, .error = ESHUTDOWN});
    assert_int_equal(put(s, 0), 0);
    store_close(s);
    assert_int_equal(shown_by(p), 1);
    nbdpeer_free(p);
}

static void
another_export_than_before_is_not_written_to(void **state)
{
    (void)state;
    fails_closed((struct nbdpeer_plan){.read_only = true}, 1, &patient);
    fails_closed((struct nbdpeer_plan){.no_flush = true}, 1, &patient);
}

static void
an_older_image_is_not_written_to(void **state)
{
    (void)state;
    fails_closed((struct nbdpeer_plan){.back = blank_image}, 1, &patient);
}

/* The last commit is gone, and all contents are whole. */
static void
an_image_that_lacks_a_commit_is_not_written_to(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *before = NULL;
    struct store *s;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    assert_int_equal(put(s, 0), 0);
    before = nbdpeer_medium(p);
    assert_int_equal(store_commit(s, NULL, 0, NULL), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .back = before});
    assert_int_equal(put(s, 1), -EIO);
    store_close(s);
    assert_int_equal(shown_by(p), 1);
    nbdpeer_free(p);
}

/* Another daemon has gone on with the very state that we had flushed. */
static void
a_newer_image_is_not_written_to(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *theirs = NULL;
    struct store *s, *other;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    assert_int_equal(put(s, 0), 0);
    theirs = nbdpeer_medium(p);
    assert_int_equal(open_store(&other, memdev_new(theirs, SIZE)), 0);
    assert_int_equal(put(other, 1), 0);
    store_close(other);
    for (unsigned long n = 1; n <= 3; n++) {
        if (n > 1) {
            nbdpeer_free(p);
            p = new_peer(FLUSH_FLAG);
            assert_int_equal(open_over_nbd(&s, p, &patient), 0);
            assert_int_equal(put(s, 0), 0);
        }
        nbdpeer_plan(p, &(struct nbdpeer_plan){.at = n, .back = theirs});
        assert_int_equal(put(s, 2), -EIO);
        store_close(s);
        assert_int_equal(shown_by(p), 2);
    }
    nbdpeer_free(p);
}

/* A read finds another export or image, before any write has failed.  That ends writing at once and
 * for good, and what is proven to be as it was can be read. */
static void
read_meets(struct nbdpeer_plan plan, const struct dev_options *opt, bool lacks_commit, bool shown,
           const char *why)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *before = NULL;
    struct store_info info;
    struct store *s;

    assert_int_equal(open_over_nbd(&s, p, opt), 0);
    assert_int_equal(put(s, 0), 0);
    before = nbdpeer_medium(p);
    if (lacks_commit)
        plan.back = before;
    assert_int_equal(store_commit(s, NULL, 0, NULL), 0);
    plan.at = 1;
    nbdpeer_plan(p, &plan);
    for (int i = 0; i < 3; i++) {
        char text[64] = {0};
        struct entry e;

        assert_int_equal(store_find(s, "0", &e), 0);
        if (shown)
            assert_int_equal(store_read(s, &e.current, text), 0);
        else
            assert_true(store_read(s, &e.current, text) < 0);
        assert_string_equal(text, shown ? "content 0" : "");
    }
    assert_int_equal(nbdpeer_connections(p), 1);
    store_get_info(s, &info);
    assert_int_not_equal(info.read_only, 0);
    assert_non_null(strstr(info.read_only_why, why));
    assert_int_equal(put(s, 1), -EROFS);
    store_close(s);
    assert_int_equal(nbdpeer_writes(p), 0);
    nbdpeer_free(p);
}

static void
a_read_that_meets_another_image_ends_writing(void **state)
{
    static const char image[] = "the image is not what it was when the connection was lost";

    (void)state;
    read_meets((struct nbdpeer_plan){0}, &patient, true, true, image);
    read_meets((struct nbdpeer_plan){.back = blank_image}, &patient, false, false, image);
}

static void
a_read_that_meets_another_export_ends_writing(void **state)
{
    static const char export[] = "the export is not what it was when the connection was lost";

    (void)state;
    read_meets((struct nbdpeer_plan){.read_only = true}, &patient, false, true, export);
    read_meets((struct nbdpeer_plan){.no_flush = true}, &patient, false, true, export);
    read_meets((struct nbdpeer_plan){.shrink = true}, &patient, false, true, export);
}

static void
a_read_that_finds_the_image_unreadable_ends_writing(void **state)
{
    static const struct nbdpeer_plan unreadable = {.at = 3, .error = EIO};

    (void)state;
    read_meets((struct nbdpeer_plan){.then = &unreadable}, &hasty, false, true, "cannot be read");
}

/* It has the time of a lost connection until that. */
static void
a_server_that_comes_back_without_its_disk_is_waited_for(void **state)
{
    static const struct nbdpeer_plan unreadable = {.at = 3, .error = EIO};
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    char text[64] = {0};
    struct store *s;
    struct entry e;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    assert_int_equal(put(s, 0), 0);
    assert_int_equal(store_find(s, "0", &e), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .then = &unreadable});
    assert_int_equal(store_read(s, &e.current, text), 0);
    assert_string_equal(text, "content 0");
    assert_int_equal(nbdpeer_connections(p), 2);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 2, .then = &unreadable});
    assert_int_equal(put(s, 1), 0);
    assert_int_equal(shown_by(p), 2);
    store_close(s);
    nbdpeer_free(p);
}

/* ---- slow servers -------------------------------------------------------------------------------
 */

static void
a_server_that_is_slow_is_waited_for(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    struct store *s;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    for (int i = 0; i < 3; i++) {
        nbdpeer_plan(p, &(struct nbdpeer_plan){.at = (unsigned long)i + 1, .slow_ms = 300});
        assert_int_equal(put(s, i), 0);
        assert_int_equal(nbdpeer_connections(p), 0);
        assert_int_equal(shown_by(p), i + 1);
    }
    store_close(s);
    nbdpeer_free(p);
}

/* A request that is given up may be done much later.  So no other connection is used for the same,
 * nor for anything that writes. */
static void
a_server_that_is_slow_is_not_left_for_another(void **state)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);

    (void)state;
    for (unsigned long at = 1; at <= 2; at++) {
        struct nbdpeer *p = new_peer(FLUSH_FLAG);
        struct dev *d = NULL;
        unsigned long writes;

        assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &hasty), 0);
        nbdpeer_plan(p, &(struct nbdpeer_plan){.at = at, .stall = true});
        assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), at == 1 ? -EIO : 0);
        assert_int_equal(dev_sync(d), -EIO);
        writes = nbdpeer_writes(p);
        assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, 0), 0);
        assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), -EIO);
        assert_int_equal(dev_sync(d), -EIO);
        assert_int_equal(nbdpeer_writes(p), writes);
        dev_close(d);
        nbdpeer_free(p);
    }
}

/* It is there at once, each time, and lost again with the next request of that kind. */
static void
a_server_that_is_lost_again_and_again_is_given_up(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d = NULL;
    int64_t start = clock_ms();

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &hasty), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .again = true});
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, 0), -EIO);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 2, .again = true});
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_sync(d), -EIO);
    assert_in_range(clock_ms() - start, 2000, 60000);
    dev_close(d);
    nbdpeer_free(p);
}

/* The same, when it is a read that connects again and so writes what was not flushed. */
static void
nor_by_a_read(void **state)
{
    static const struct nbdpeer_plan slow = {.at = 1, .stall = true};
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d = NULL;
    unsigned long writes;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &hasty), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 2, .then = &slow});
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, 0), -EIO);
    writes = nbdpeer_writes(p);
    assert_int_equal(writes, 2);
    assert_int_equal(dev_pread(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), -EIO);
    assert_int_equal(dev_sync(d), -EIO);
    assert_int_equal(nbdpeer_writes(p), writes);
    dev_close(d);
    nbdpeer_free(p);
}

/* A read comes between a write that is sent and the flush, and finds nobody any more. */
static void
what_a_read_has_given_up_is_not_flushed(void **state)
{
    static const unsigned durable_by[] = {FLUSH_FLAG, FUA_FLAG};
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE), *there = dev_alloc(BLOCK_SIZE);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct nbdpeer *p = new_peer(durable_by[i]);
        struct dev *d = NULL;

        assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &hasty), 0);
        nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .away = true});
        assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 0), 0);
        assert_int_equal(dev_pread(d, there, BLOCK_SIZE, 0), -EIO);
        assert_int_equal(dev_sync(d), -EIO);
        dev_close(d);
        nbdpeer_free(p);
    }
}

/* The next connection ends when part of a large write has been sent again, and the one after it
 * takes all. */
static void
a_server_may_die_while_what_it_lost_is_sent_again(void **state)
{
    enum { LARGE = 3 * 1024 * 1024 };
    struct nbdpeer *p = nbdpeer_new(LARGE, FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(LARGE), *medium = NULL;
    struct dev *d = NULL;

    (void)state;
    memset(buf, 0x5a, LARGE);
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &patient), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 2, .futile = 2});
    assert_int_equal(dev_pwrite(d, buf, LARGE, 0), 0);
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(nbdpeer_connections(p), 3);
    medium = nbdpeer_medium(p);
    assert_memory_equal(medium, buf, LARGE);
    dev_close(d);
    nbdpeer_free(p);
}

/* Nor is another one asked to do what a slow server may still do when a read has given that up. */
static void
what_a_read_has_given_up_with_a_slow_server_is_not_sent_to_another(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE), *there = dev_alloc(BLOCK_SIZE);
    struct dev *d = NULL;
    unsigned long writes;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &hasty), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .stall = true});
    assert_int_equal(dev_submit(d, buf, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_pread(d, there, BLOCK_SIZE, 0), -EIO);
    writes = nbdpeer_writes(p);
    assert_int_equal(dev_sync(d), -EIO);
    assert_int_equal(dev_pread(d, there, BLOCK_SIZE, 0), 0);
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), -EIO);
    assert_int_equal(nbdpeer_writes(p), writes);
    dev_close(d);
    nbdpeer_free(p);
}

static void
reads_go_on_when_somebody_answers_again(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    struct store *s;

    (void)state;
    assert_int_equal(open_over_nbd(&s, p, &patient), 0);
    assert_int_equal(put(s, 0), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1});
    assert_int_equal(count_puts(s), 1);
    assert_true(nbdpeer_has_died(p));
    store_close(s);
    nbdpeer_free(p);
}

/* Formatting and growing write far more than they should take memory for. */
static void
what_is_kept_of_many_writes_is_bounded(void **state)
{
    enum { MEBIBYTE = 1024 * 1024, WRITES = 20, KEPT = 8 };
    struct nbdpeer *p = nbdpeer_new(WRITES * MEBIBYTE, FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(MEBIBYTE), *medium = NULL;
    struct dev *d = NULL;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &patient), 0);
    nbdpeer_plan(p, &(struct nbdpeer_plan){0});
    for (int i = 0; i < WRITES; i++) {
        memset(buf, i + 1, MEBIBYTE);
        assert_int_equal(dev_pwrite(d, buf, MEBIBYTE, (uint64_t)i * MEBIBYTE), 0);
    }
    assert_int_equal(nbdpeer_writes(p), WRITES);
    assert_int_equal(nbdpeer_seen(p) - nbdpeer_writes(p), WRITES / KEPT); /* the flushes */
    nbdpeer_plan(p, &(struct nbdpeer_plan){.at = 1, .loss = LOSE_ALL});
    assert_int_equal(dev_sync(d), 0);
    assert_int_equal(nbdpeer_writes(p), WRITES % KEPT);
    medium = nbdpeer_medium(p);
    for (size_t i = 0; i < (size_t)WRITES * MEBIBYTE; i++)
        if (medium[i] != i / MEBIBYTE + 1)
            fail_msg("byte %zu is lost", i);
    dev_close(d);
    nbdpeer_free(p);
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static void
writers_need_a_server_that_can_flush(void **state)
{
    struct nbdpeer *p = new_peer(0);
    struct dev *d = NULL;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), DEV_NO_WAIT, &patient), -EOPNOTSUPP);
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), DEV_READ_ONLY | DEV_NO_LOCK, &patient), 0);
    dev_close(d);
    assert_int_equal(
        dev_open(&d, nbdpeer_uri(p), DEV_NO_WAIT, &(struct dev_options){.unsafe_cache = true}), 0);
    assert_int_equal(dev_sync(d), 0);
    dev_close(d);
    nbdpeer_free(p);
}

static void
read_only_exports_are_for_readers(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG | READ_ONLY_FLAG);
    struct dev *d = NULL;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), DEV_NO_WAIT, &patient), -EROFS);
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), DEV_READ_ONLY, &patient), 0);
    assert_int_equal(d->size, SIZE);
    dev_close(d);
    nbdpeer_free(p);
}

static void
released_and_taken_again(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct dev *d = NULL, *other = NULL;

    (void)state;
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &patient), 0);
    dev_release(d);
    assert_int_equal(dev_open(&other, nbdpeer_uri(p), DEV_NO_WAIT, &patient), 0);
    assert_int_equal(dev_take(d, 0), -EBUSY);
    dev_close(other);
    assert_int_equal(dev_take(d, 1000), 0);
    assert_int_equal(dev_pwrite(d, buf, BLOCK_SIZE, 0), 0);
    dev_close(d);
    nbdpeer_free(p);
}

static void
one_export_by_two_names_has_one_writer(void **state)
{
    struct nbdpeer *p = new_peer(FLUSH_FLAG);
    AUTO_FREE char *name = NULL, *uri = NULL;
    struct dev *d = NULL, *other = NULL;
    const char *path = strchr(nbdpeer_uri(p), '=') + 1;

    (void)state;
    assert_true(asprintf(&name, "%s.link", path) > 0);
    assert_true(asprintf(&uri, "nbd+unix:///?socket=%s", name) > 0);
    unlink(name);
    assert_int_equal(symlink(path, name), 0);
    assert_int_equal(dev_open(&d, nbdpeer_uri(p), 0, &patient), 0);
    assert_int_equal(dev_open(&other, uri, DEV_NO_WAIT, &patient), -EBUSY);
    dev_close(d);
    assert_int_equal(dev_open(&other, uri, DEV_NO_WAIT, &patient), 0);
    dev_close(other);
    unlink(name);
    nbdpeer_free(p);
}

/* What has not been sent by then must not be sent: the peer sees a reset, and no end of file. */
static void
giving_up_resets_the_connection(void **state)
{
    AUTO_FD int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    AUTO(nbd_uri_fini) struct nbd_uri u = {0};
    struct nbd_link *l = NULL;
    struct nbd_export e;
    char text[64];

    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    snprintf(text, sizeof text, "nbd://127.0.0.1:%d/", ntohs(a.sin_port));
    assert_int_equal(nbd_uri_parse(&u, text), 0);
    assert_int_equal(nbd_link_new(&l, &u, text), 0);
    assert_int_equal(nbd_link_connect(l, &e, clock_ms() + 200), -ENOTCONN);
    assert_string_equal(nbd_link_error(l), "no answer");
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(recv(fd, text, sizeof text, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    nbd_link_free(l);
}

static void
nobody_there_is_told(void **state)
{
    struct dev *d = NULL;

    (void)state;
    assert_int_equal(dev_open(&d, "nbd+unix:///?socket=/nonexistent/s", 0, &patient), -EIO);
    assert_non_null(strstr(last_report, "cannot connect"));
    assert_int_equal(dev_open(&d, "nbd://", 0, &patient), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        /* Those that wait for something come last, so that one that fails is soon seen. */
        cmocka_unit_test(uris_have_one_spelling),
        cmocka_unit_test(places_have_one_spelling),
        cmocka_unit_test(relative_paths_are_made_absolute),
        cmocka_unit_test(what_is_no_uri_is_a_path),
        cmocka_unit_test(malformed_uris_are_wrong_use),
        cmocka_unit_test(nobody_there_is_told),
        cmocka_unit_test(writers_need_a_server_that_can_flush),
        cmocka_unit_test(read_only_exports_are_for_readers),
        cmocka_unit_test(released_and_taken_again),
        cmocka_unit_test(one_export_by_two_names_has_one_writer),
        cmocka_unit_test(giving_up_resets_the_connection),
        cmocka_unit_test(reads_go_on_when_somebody_answers_again),
        cmocka_unit_test(an_error_of_the_server_makes_the_store_read_only),
        cmocka_unit_test(a_server_that_is_shutting_down_has_a_successor),
        cmocka_unit_test(another_export_than_before_is_not_written_to),
        cmocka_unit_test(an_older_image_is_not_written_to),
        cmocka_unit_test(an_image_that_lacks_a_commit_is_not_written_to),
        cmocka_unit_test(a_newer_image_is_not_written_to),
        cmocka_unit_test(a_read_that_meets_another_image_ends_writing),
        cmocka_unit_test(a_read_that_meets_another_export_ends_writing),
        cmocka_unit_test(a_read_that_finds_the_image_unreadable_ends_writing),
        cmocka_unit_test(a_server_that_comes_back_without_its_disk_is_waited_for),
        cmocka_unit_test(what_is_kept_of_many_writes_is_bounded),
        cmocka_unit_test(a_server_that_is_slow_is_waited_for),
        cmocka_unit_test(a_server_that_is_slow_is_not_left_for_another),
        cmocka_unit_test(nor_by_a_read),
        cmocka_unit_test(what_a_read_has_given_up_is_not_flushed),
        cmocka_unit_test(what_a_read_has_given_up_with_a_slow_server_is_not_sent_to_another),
        cmocka_unit_test(a_server_may_die_while_what_it_lost_is_sent_again),
        cmocka_unit_test(a_server_that_is_lost_again_and_again_is_given_up),
        cmocka_unit_test(a_server_may_die_before_any_request_and_lose_its_cache),
        cmocka_unit_test(a_server_may_die_before_any_request_and_lose_some_of_its_cache),
        cmocka_unit_test(a_server_may_die_after_any_request_and_lose_its_cache),
        cmocka_unit_test(a_server_may_die_after_any_request_and_keep_its_cache),
        cmocka_unit_test(a_server_may_die_again_and_again),
        cmocka_unit_test(a_server_that_stays_away_makes_the_store_read_only),
        cmocka_unit_test(a_server_that_does_not_answer_makes_the_store_read_only),
    };

    return cmocka_run_group_tests(tests, make_image, free_image);
}
