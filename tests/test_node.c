/* SPDX-License-Identifier: BSD-3-Clause */
/* Files and their commit points, on a store in memory and without a mount.  What the store has is
 * what a power cut would leave, so each case looks there, too. */
#include "base/report.h"
#include "core/store.h"
#include "crypt/keys.h"
#include "fs/node.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* After what it needs. */
#include <cmocka.h>

/* ---- a device in memory ---------------------------------------------------------------------- */

struct memory {
    struct dev dev;
    uint8_t *bytes;
    bool sync_fails;
    bool lost;            /* a read finds out that it takes no writes any more */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    unsigned syncs, reads;
    bool shut, shut_reads; /* they wait until it is not */
};

static int
memory_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct memory *m = (struct memory *)d;

    pthread_mutex_lock(&m->lock);
    m->reads++;
    pthread_cond_broadcast(&m->changed);
    while (m->shut_reads)
        pthread_cond_wait(&m->changed, &m->lock);
    pthread_mutex_unlock(&m->lock);
    if (m->lost)
        (d->fail)(d->witness_arg, -EIO, "it is another's");
    memcpy(buf, m->bytes + off, n);
    return 0;
}

static int
memory_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    memcpy(((struct memory *)d)->bytes + off, buf, n);
    return 0;
}

static int
memory_sync(struct dev *d)
{
    struct memory *m = (struct memory *)d;

    pthread_mutex_lock(&m->lock);
    m->syncs++;
    pthread_cond_broadcast(&m->changed);
    while (m->shut)
        pthread_cond_wait(&m->changed, &m->lock);
    pthread_mutex_unlock(&m->lock);
    return m->sync_fails ? -EIO : 0;
}

static int
memory_medium(struct dev *d, bool on)
{
    (void)d;
    (void)on;
    return 0;
}

static void
memory_release(struct dev *d)
{
    (void)d;
}

static int
memory_take(struct dev *d, unsigned wait_ms)
{
    (void)d;
    (void)wait_ms;
    return 0;
}

static const struct dev_ops memory_ops = {
    .pread = memory_pread,
    .pwrite = memory_pwrite,
    .sync = memory_sync,
    .medium = memory_medium,
    .close = memory_release,
    .release = memory_release,
    .take = memory_take,
};

/* ---- the ground of each case ----------------------------------------------------------------- */

enum { SMALL = 4096, LARGE = 16384 };

static struct memory memory;
static struct store *store;
static struct nodes *ns;
static time_t clock_seconds;
static unsigned commits;

static void
test_clock(struct timespec *now)
{
    *now = (struct timespec){.tv_sec = clock_seconds, .tv_nsec = 5};
}

static void
count_commit(void *arg)
{
    (void)arg;
    commits++;
}

static void
no_report(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void
open_nodes_of(bool read_only, bool incoming)
{
    struct key_options key = KEY_OPTIONS_INIT;
    const struct store_options opt = {
        .read_only = read_only, .incoming = incoming, .unlock = keys_unlock, .unlock_arg = &key};
    const struct nodes_options nodes = {
        .read_only = read_only, .committed = count_commit, .clock = test_clock};

    assert_int_equal(store_open(&store, &memory.dev, &opt), 0);
    assert_int_equal(nodes_new(&ns, store, &nodes), 0);
    commits = 0;
}

static void
open_nodes(bool read_only)
{
    open_nodes_of(read_only, false);
}

static void
close_nodes(void)
{
    nodes_free(ns);
    store_close(store);
}

/* What a mount after a kill would show. */
static void
reopen(void)
{
    close_nodes();
    open_nodes(false);
}

/* Two slots of each of two sizes, and a third small one. */
static int
set_up(void **state)
{
    static const struct slot_class classes[] = {{.count = 3, .capacity = SMALL},
                                                {.count = 2, .capacity = LARGE}};
    const struct format_spec spec = {
        .classes = classes, .n_classes = 2, .root = {.mode = 0755}, .uuid = "0123456789abcde"};
    struct superblock sb;

    (void)state;
    clock_seconds = 1000;
    memory = (struct memory){.dev = {.ops = &memory_ops, .sole = true, .name = (char *)"memory"}};
    pthread_mutex_init(&memory.lock, NULL);
    pthread_cond_init(&memory.changed, NULL);
    if (store_layout(&sb, &spec, NULL) < 0)
        return -1;
    memory.dev.size = sb.image_size;
    memory.bytes = calloc(1, sb.image_size);
    if (store_format(&memory.dev, &spec, sealer_plain()) < 0)
        return -1;
    open_nodes(false);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    close_nodes();
    free(memory.bytes);
    return 0;
}

/* ---- short words for long calls -------------------------------------------------------------- */

static const struct file_attr me = {.mode = 0644, .uid = 7, .gid = 8};

static struct handle *
create(const char *name, int flags)
{
    struct node_stat st;
    struct handle *h;

    assert_int_equal(node_create(ns, name, &me, flags | O_CREAT, true, &st, &h), 0);
    node_forget(ns, st.id, 1);
    return h;
}

static struct node_stat
look(const char *name)
{
    struct node_stat st;

    assert_int_equal(node_lookup(ns, name, &st), 0);
    node_forget(ns, st.id, 1);
    return st;
}

static struct handle *
open_file(const char *name, int flags)
{
    struct handle *h;

    assert_int_equal(node_open(ns, look(name).id, flags, true, &h), 0);
    return h;
}

static int
write_at(struct handle *h, const char *text, uint64_t off)
{
    return node_write(ns, h, text, strlen(text), off, false);
}

static void
put(struct handle *h, const char *text)
{
    assert_int_equal(write_at(h, text, 0), 0);
}

static void
release(struct handle *h)
{
    assert_int_equal(node_release(ns, h), 0);
}

/* close(2): a flush, then the release. */
static void
finish(struct handle *h)
{
    assert_int_equal(node_flush(ns, h), 0);
    release(h);
}

static void
make_file(const char *name, const char *text)
{
    struct handle *h = create(name, O_WRONLY);

    put(h, text);
    finish(h);
}

static void
assert_reads(struct handle *h, const char *text)
{
    struct view v;

    assert_int_equal(node_read(ns, h, 100000, 0, &v), 0);
    assert_int_equal(v.len, strlen(text));
    if (v.len)
        assert_memory_equal(v.data, text, v.len);
    node_put_view(&v);
}

/* What programs see of the name. */
static void
assert_shows(const char *name, const char *text)
{
    struct handle *h = open_file(name, O_RDONLY);

    assert_reads(h, text);
    release(h);
}

/* What a power cut would leave of it; NULL: nothing. */
static void
assert_stored(const char *name, const char *text)
{
    char buf[LARGE + 1] = "";
    struct entry e;
    bool found = store_find(store, name, &e) == 0 && e.kind == ENTRY_FILE;

    assert_int_equal(found, text != NULL);
    if (!text)
        return;
    assert_int_equal(store_read(store, &e.current, buf), 0);
    assert_int_equal(e.current.length, strlen(text));
    assert_memory_equal(buf, text, strlen(text));
}

static struct entry
stored_entry(const char *name)
{
    struct entry e;

    assert_int_equal(store_find(store, name, &e), 0);
    return e;
}

static unsigned
slots_used(void)
{
    struct store_info info;

    store_get_info(store, &info);
    return info.slots_used;
}

static struct node_stat
change(const char *name, struct handle *h, struct attr_change ch)
{
    struct node_stat st;

    assert_int_equal(node_change(ns, look(name).id, h, &ch, &st), 0);
    return st;
}

static bool
exists(const char *name)
{
    struct node_stat st;
    int r = node_lookup(ns, name, &st);

    if (r == 0)
        node_forget(ns, st.id, 1);
    return r == 0;
}

/* ---- content --------------------------------------------------------------------------------- */

static void
a_write_is_seen_by_every_handle_and_stored_by_none(void **state)
{
    struct handle *w, *r;

    (void)state;
    make_file("a", "old");
    w = open_file("a", O_WRONLY);
    r = open_file("a", O_RDONLY);
    put(w, "newer");
    assert_reads(r, "newer");
    assert_stored("a", "old");
    reopen();
    assert_shows("a", "old");
}

static void
flush_stores_what_the_handle_wrote_and_fsync_anything(void **state)
{
    struct handle *w, *r;

    (void)state;
    make_file("a", "old");
    w = open_file("a", O_WRONLY);
    r = open_file("a", O_RDONLY);
    put(w, "one");
    assert_int_equal(node_flush(ns, w), 0);
    assert_stored("a", "one");
    put(w, "two");
    assert_int_equal(node_fsync(ns, r, false), 0);
    assert_stored("a", "two");
    release(w);
    release(r);
}

static void
flush_of_a_handle_that_did_not_write_stores_nothing(void **state)
{
    struct handle *half, *reader, *writer;

    (void)state;
    make_file("a", "old");
    half = open_file("a", O_WRONLY);
    put(half, "half");
    reader = open_file("a", O_RDONLY);
    writer = open_file("a", O_RDWR);
    finish(reader);
    finish(writer);
    assert_stored("a", "old");
    finish(half);
    assert_stored("a", "half");
}

static void
a_handles_bytes_are_its_own_business_only_until_they_are_stored(void **state)
{
    struct handle *stored, *half;

    (void)state;
    make_file("a", "old");
    stored = open_file("a", O_RDWR);
    half = open_file("a", O_RDWR);
    put(stored, "one");
    assert_int_equal(node_write(ns, stored, "O", 1, 0, true), 0);
    assert_int_equal(node_flush(ns, stored), 0);
    put(half, "half");
    finish(stored);
    assert_stored("a", "One");
    finish(half);
    assert_stored("a", "half");
}

/* A name that the store has and the files do not know makes the commit of such a file fail, and
 * only that. */
static uint64_t
occupy(const char *name)
{
    struct change c = {.op = CHANGE_FILE, .id = store_new_id(store), .name = name};

    assert_int_equal(store_slot_take(store, 0, NULL, &c.slot), 0);
    assert_int_equal(store_commit(store, &c, 1, NULL), 0);
    store_slot_drop(store, c.slot);
    return c.id;
}

static void
give_up(uint64_t id)
{
    struct change c = {.op = CHANGE_UNLINK, .id = id};

    assert_int_equal(store_commit(store, &c, 1, NULL), 0);
}

static void
what_could_not_be_stored_is_kept_and_stored_later(void **state)
{
    struct handle *h = create("a", O_RDWR);
    uint64_t id = occupy("a");

    (void)state;
    put(h, "one");
    assert_int_equal(node_flush(ns, h), -EEXIST);
    give_up(id);
    assert_int_equal(node_flush(ns, h), 0);
    assert_stored("a", "one");
    release(h);
    h = create("b", O_RDWR);
    id = occupy("b");
    put(h, "two");
    assert_int_equal(node_release(ns, h), -EEXIST);
    h = open_file("b", O_RDONLY);
    assert_reads(h, "two");
    give_up(id);
    release(h); /* the next who closes it */
    assert_stored("b", "two");
}

static struct timespec
stored_mtime(const char *name)
{
    struct entry e;

    assert_int_equal(store_find(store, name, &e), 0);
    return e.attr.mtime;
}

/* Its times are new: fsync and close wait for those, fdatasync does not. */
static void
what_is_there_already_is_not_stored_again(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "what is there");
    h = open_file("a", O_RDWR);
    commits = 0;
    clock_seconds += 10;
    assert_int_equal(write_at(h, "is", 5), 0);
    assert_int_equal(node_write(ns, h, "what is there", 13, 0, true), 0);
    assert_int_equal(look("a").attr.mtime.tv_sec, clock_seconds);
    assert_int_equal(node_fsync(ns, h, true), 0);
    assert_int_equal(commits, 0);
    assert_int_not_equal(stored_mtime("a").tv_sec, clock_seconds);
    assert_int_equal(node_fsync(ns, h, false), 0);
    assert_int_equal(commits, 1);
    assert_int_equal(stored_mtime("a").tv_sec, clock_seconds);
    assert_int_equal(write_at(h, "is", 4), 0);
    assert_int_equal(node_fsync(ns, h, true), 0);
    assert_int_equal(commits, 2);
    assert_stored("a", "whatiss there");
    assert_int_equal(write_at(h, "there, too", 8), 0); /* goes past its end */
    assert_int_equal(node_flush(ns, h), 0);
    assert_int_equal(commits, 3);
    assert_stored("a", "whatiss there, too");
    finish(h);
}

static void
the_times_of_what_was_there_come_with_the_close(void **state)
{
    struct handle *h, *reader;

    (void)state;
    make_file("a", "there");
    h = open_file("a", O_RDWR);
    reader = open_file("a", O_RDONLY);
    clock_seconds += 10;
    put(h, "there");
    commits = 0;
    finish(reader);
    assert_int_equal(commits, 0);
    finish(h);
    assert_int_equal(commits, 1);
    assert_int_equal(stored_mtime("a").tv_sec, clock_seconds);
}

static void
times_that_are_set_are_stored_though_they_are_there(void **state)
{
    struct attr_change ch = {.set = SET_MTIME};
    struct handle *h;

    (void)state;
    make_file("a", "there");
    h = open_file("a", O_RDWR);
    clock_seconds += 10;
    put(h, "there");
    ch.mtime = look("a").attr.mtime;
    change("a", h, ch);
    assert_int_equal(stored_mtime("a").tv_sec, clock_seconds);
    finish(h);
}

static void
times_are_data_to_o_sync_but_not_to_o_dsync(void **state)
{
    static const int flags[] = {O_DSYNC, O_SYNC};

    (void)state;
    make_file("a", "there");
    for (unsigned i = 0; i < 2; i++) {
        struct handle *h = open_file("a", O_RDWR | flags[i]);

        commits = 0;
        put(h, "there");
        assert_int_equal(node_sync_write(ns, h), 0);
        assert_int_equal(commits, i);
        finish(h);
    }
}

/* Somebody else's content may be there by now; the commit finds out. */
static void
what_others_may_have_written_over_is_stored_again(void **state)
{
    struct handle *h;

    (void)state;
    memory.dev.sole = false;
    make_file("a", "there");
    h = open_file("a", O_RDWR);
    put(h, "there");
    commits = 0;
    assert_int_equal(node_fsync(ns, h, true), 0);
    assert_int_equal(commits, 1);
    finish(h);
}

/* What another handle has written is there, but not in the store. */
static void
what_is_only_in_memory_is_no_less_written(void **state)
{
    struct handle *one, *two;

    (void)state;
    make_file("a", "old");
    one = open_file("a", O_RDWR);
    two = open_file("a", O_RDWR);
    put(one, "new");
    put(two, "new");
    assert_int_equal(node_flush(ns, two), 0);
    assert_stored("a", "new");
    finish(one);
    finish(two);
}

static void
flush_without_news_does_not_commit(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_RDWR);
    commits = 0;
    assert_int_equal(node_flush(ns, h), 0);
    assert_int_equal(node_fsync(ns, h, false), 0);
    put(h, "new");
    assert_int_equal(node_flush(ns, h), 0);
    assert_int_equal(node_flush(ns, h), 0);
    finish(h);
    assert_int_equal(commits, 1);
}

static void
a_shells_redirection_never_stores_an_empty_file(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_WRONLY | O_TRUNC); /* the shell opens, */
    assert_int_equal(node_flush(ns, h), 0); /* duplicates and closes, */
    assert_shows("a", "");
    assert_stored("a", "old");
    put(h, "new");
    assert_int_equal(node_flush(ns, h), 0); /* cat writes and ends, */
    assert_stored("a", "new");
    finish(h); /* and the shell ends */
    assert_stored("a", "new");
}

static void
truncation_alone_is_stored_at_release(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_WRONLY | O_TRUNC);
    assert_int_equal(node_flush(ns, h), 0);
    assert_stored("a", "old");
    release(h);
    assert_stored("a", "");
}

static void
a_reader_that_goes_does_not_store_a_truncation(void **state)
{
    struct handle *h, *r;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_WRONLY | O_TRUNC);
    r = open_file("a", O_RDONLY);
    finish(r);
    assert_stored("a", "old");
    finish(h);
    assert_stored("a", "");
}

static void
truncation_does_not_store_what_another_handle_has_half_written(void **state)
{
    struct handle *half, *t;

    (void)state;
    make_file("a", "old");
    half = open_file("a", O_WRONLY);
    t = open_file("a", O_WRONLY | O_TRUNC);
    put(half, "half");
    finish(t);
    assert_stored("a", "old");
    finish(half);
    assert_stored("a", "half");
}

static void
a_new_file_is_stored_at_release_and_not_before(void **state)
{
    struct handle *h;

    (void)state;
    h = create("a", O_WRONLY);
    assert_true(exists("a"));
    assert_stored("a", NULL);
    assert_int_equal(node_flush(ns, h), 0);
    assert_stored("a", NULL);
    release(h);
    assert_stored("a", "");
}

static void
a_new_file_is_stored_with_its_first_bytes(void **state)
{
    struct handle *h = create("a", O_WRONLY);

    (void)state;
    change("a", NULL, (struct attr_change){.set = SET_MODE, .mode = 0600});
    assert_stored("a", NULL);
    put(h, "text");
    finish(h);
    assert_stored("a", "text");
    assert_int_equal(stored_entry("a").attr.mode, 0600);
}

static void
a_new_file_that_is_dropped_leaves_nothing(void **state)
{
    struct handle *h = create("a", O_WRONLY);

    (void)state;
    put(h, "text");
    assert_int_equal(slots_used(), 1);
    reopen();
    assert_false(exists("a"));
    assert_int_equal(slots_used(), 0);
}

static void
mknod_stores_at_once(void **state)
{
    struct node_stat st;

    (void)state;
    assert_int_equal(node_mknod(ns, "a", &me, &st), 0);
    assert_stored("a", "");
    assert_int_equal(node_mknod(ns, "a", &me, &st), -EEXIST);
}

static void
a_commit_carries_no_other_files_bytes(void **state)
{
    struct handle *a, *b, *c;

    (void)state;
    make_file("a", "old a");
    make_file("b", "old b");
    a = open_file("a", O_WRONLY);
    b = open_file("b", O_WRONLY);
    c = create("c", O_WRONLY);
    put(a, "half a");
    put(c, "half c");
    put(b, "new b");
    finish(b);
    assert_stored("a", "old a");
    assert_stored("b", "new b");
    assert_stored("c", NULL);
    release(a);
    release(c);
}

static void
pages_of_a_mapping_are_stored_at_flush_or_release_of_a_writer(void **state)
{
    struct handle *r, *w;

    (void)state;
    make_file("a", "old");
    r = open_file("a", O_RDONLY);
    w = open_file("a", O_RDWR);
    assert_int_equal(node_write(ns, w, "new", 3, 0, true), 0);
    finish(r);
    assert_stored("a", "old");
    assert_int_equal(node_flush(ns, w), 0);
    assert_stored("a", "new");
    assert_int_equal(node_write(ns, w, "NEW", 3, 0, true), 0);
    release(w);
    assert_stored("a", "NEW");
}

static void
a_view_stays_as_it_was_read(void **state)
{
    struct handle *h;
    struct view v;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_RDWR);
    assert_int_equal(node_read(ns, h, 10, 0, &v), 0);
    put(h, "NEW");
    assert_int_equal(v.len, 3);
    assert_memory_equal(v.data, "old", 3);
    node_put_view(&v);
    assert_reads(h, "NEW");
    assert_int_equal(node_read(ns, h, 10, 3, &v), 0);
    assert_int_equal(v.len, 0);
    assert_int_equal(node_read(ns, h, 1, 1, &v), 0);
    assert_int_equal(v.len, 1);
    assert_int_equal(*v.data, 'E');
    node_put_view(&v);
    release(h);
}

static void
bytes_between_and_after_a_shrink_are_zero(void **state)
{
    struct handle *h = create("a", O_RDWR);
    struct view v;

    (void)state;
    put(h, "abcdef");
    change("a", h, (struct attr_change){.set = SET_SIZE, .size = 2});
    assert_int_equal(write_at(h, "z", 4), 0);
    assert_int_equal(node_read(ns, h, 10, 0, &v), 0);
    assert_int_equal(v.len, 5);
    assert_memory_equal(v.data, "ab\0\0z", 5);
    node_put_view(&v);
    release(h);
}

/* ---- room ------------------------------------------------------------------------------------ */

static void
fill(struct handle *h, size_t size, char c)
{
    char buf[LARGE];

    memset(buf, c, size);
    assert_int_equal(node_write(ns, h, buf, size, 0, false), 0);
}

static void
growth_moves_to_a_larger_slot_and_one_commit_stores_it(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_RDWR);
    commits = 0;
    fill(h, SMALL, 'x');
    assert_int_equal(look("a").capacity, SMALL);
    assert_int_equal(write_at(h, "y", SMALL), 0);
    assert_int_equal(look("a").capacity, LARGE);
    assert_int_equal(slots_used(), 2);
    assert_stored("a", "old");
    finish(h);
    assert_int_equal(commits, 1);
    assert_int_equal(slots_used(), 1);
    assert_int_equal(stored_entry("a").current.length, SMALL + 1);
}

static void
a_move_that_nobody_stored_is_undone(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_RDWR);
    fill(h, LARGE, 'x');
    reopen();
    assert_shows("a", "old");
    assert_int_equal(look("a").capacity, SMALL);
    assert_int_equal(slots_used(), 1);
}

static void
room_runs_out_at_the_write_and_never_at_close(void **state)
{
    struct handle *a, *b, *c;

    (void)state;
    a = create("a", O_RDWR);
    b = create("b", O_RDWR);
    c = create("c", O_RDWR);
    fill(a, LARGE, 'a');
    fill(b, LARGE, 'b');
    put(c, "c");
    assert_int_equal(write_at(c, "x", SMALL), -ENOSPC);
    assert_reads(c, "c");
    assert_int_equal(write_at(c, "x", LARGE), -EFBIG);
    assert_int_equal(write_at(a, "x", UINT64_MAX), -EFBIG);
    finish(a);
    finish(b);
    finish(c);
    assert_stored("c", "c");
}

static void
a_full_image_takes_overwrites_but_no_new_file(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    struct node_stat st;
    struct handle *h;

    (void)state;
    for (int i = 0; i < 5; i++)
        make_file(names[i], "old");
    assert_int_equal(node_create(ns, "f", &me, O_CREAT | O_WRONLY, true, &st, &h), -ENOSPC);
    assert_false(exists("f"));
    for (int i = 0; i < 5; i++) {
        h = open_file(names[i], O_WRONLY | O_TRUNC);
        put(h, "newer");
        finish(h);
        assert_stored(names[i], "newer");
    }
}

static void
an_unlinked_open_file_keeps_slot_and_content_until_its_last_close(void **state)
{
    struct handle *h, *other;

    (void)state;
    make_file("a", "text");
    h = open_file("a", O_RDWR);
    other = open_file("a", O_RDONLY);
    assert_int_equal(node_unlink(ns, "a"), 0);
    assert_false(exists("a"));
    assert_stored("a", NULL);
    assert_int_equal(slots_used(), 1);
    assert_reads(h, "text");
    put(h, "TEXT and more");
    assert_reads(other, "TEXT and more");
    commits = 0;
    finish(h);
    assert_int_equal(node_fsync(ns, other, false), 0);
    assert_int_equal(commits, 0);
    assert_int_equal(slots_used(), 1);
    finish(other);
    assert_int_equal(slots_used(), 0);
}

/* Who waits for a slot does so here, in place of libc's: the release of this handle comes
 * meanwhile, and without one the time is over at once.  The clock of a busy machine has no part in
 * it. */
static struct handle *closing;

int
pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    struct handle *h = closing;

    (void)cond, (void)until;
    closing = NULL;
    if (!h)
        return ETIMEDOUT;
    pthread_mutex_unlock(mutex);
    release(h);
    pthread_mutex_lock(mutex);
    return 0;
}

static void
a_slot_that_a_closed_file_is_about_to_give_back_is_waited_for(void **state)
{
    struct handle *held, *closed, *h;
    struct node_stat st;

    (void)state;
    held = create("a", O_RDWR);
    closed = create("b", O_RDWR);
    fill(held, LARGE, 'a');
    fill(closed, LARGE, 'b');
    assert_int_equal(node_unlink(ns, "a"), 0);
    assert_int_equal(node_unlink(ns, "b"), 0);
    h = create("c", O_RDWR);
    assert_int_equal(write_at(h, "c", SMALL),
                     -ENOSPC); /* both are in use, and nobody waits for that */
    assert_int_equal(node_flush(ns, closed), 0);
    closing = closed;
    assert_int_equal(write_at(h, "c", SMALL), 0);
    assert_null(closing);
    assert_int_equal(node_flush(ns, held), 0); /* a duplicate was closed; so this is in vain */
    assert_int_equal(node_create(ns, "d", &me, O_CREAT | O_WRONLY, true, &st, &closed), 0);
    assert_int_equal(write_at(closed, "d", SMALL), -ENOSPC);
    release(closed);
    release(h);
    release(held);
    assert_int_equal(slots_used(), 2);
}

static void
rounds_of_create_rename_unlink_leak_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        struct handle *h = create("tmp", O_WRONLY | O_TRUNC);

        fill(h, i % 3 ? SMALL : LARGE, 'x');
        finish(h);
        assert_int_equal(node_rename(ns, "tmp", "a", 0), 0);
        if (i % 5 == 0)
            assert_int_equal(node_unlink(ns, "a"), 0);
    }
    assert_int_equal(node_unlink(ns, "a"), 0);
    assert_int_equal(slots_used(), 0);
}

static void
fallocate_grows_reserves_and_zeroes(void **state)
{
    struct handle *h = create("a", O_RDWR);
    struct view v;

    (void)state;
    put(h, "abcdef");
    assert_int_equal(node_fallocate(ns, h, 0, 0, 8), 0);
    assert_int_equal(look("a").size, 8);
    assert_int_equal(node_fallocate(ns, h, FALLOC_FL_KEEP_SIZE, 0, SMALL + 1), 0);
    assert_int_equal(look("a").size, 8);
    assert_int_equal(look("a").capacity, LARGE);
    assert_int_equal(node_fallocate(ns, h, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2), 0);
    assert_int_equal(
        node_fallocate(ns, h, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5, UINT64_MAX / 2), 0);
    assert_int_equal(node_read(ns, h, 10, 0, &v), 0);
    assert_int_equal(v.len, 8);
    assert_memory_equal(v.data, "a\0\0de\0\0\0", 8);
    node_put_view(&v);
    assert_int_equal(node_fallocate(ns, h, FALLOC_FL_ZERO_RANGE, 0, 10), 0);
    assert_int_equal(look("a").size, 10);
    assert_int_equal(node_fallocate(ns, h, 0, 1, LARGE), -EFBIG);
    assert_int_equal(node_fallocate(ns, h, FALLOC_FL_COLLAPSE_RANGE, 0, 1), -EOPNOTSUPP);
    finish(h);
    assert_int_equal(stored_entry("a").current.length, 10);
    reopen();
    assert_int_equal(look("a").capacity, LARGE);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void
rename_is_one_commit_that_carries_the_renamed_files_bytes(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = create("tmp", O_WRONLY);
    put(h, "new");
    commits = 0;
    assert_int_equal(node_rename(ns, "tmp", "a", 0), 0);
    assert_int_equal(commits, 1);
    assert_stored("a", "new");
    assert_stored("tmp", NULL);
    assert_int_equal(slots_used(), 1);
    finish(h);
    assert_int_equal(commits, 1);
    reopen();
    assert_shows("a", "new");
}

static void
a_draft_is_gone_with_its_last_handle(void **state)
{
    char name[NAME_MAX_LEN + 1];
    struct node_stat st;
    struct handle *h, *other;

    (void)state;
    commits = 0;
    h = create(DRAFT_PREFIX "1", O_RDWR);
    put(h, "half of it");
    assert_int_equal(node_fsync(ns, h, false), 0);
    assert_int_equal(node_flush(ns, h), 0);
    assert_int_equal(nodes_sync(ns), 0);
    assert_stored(DRAFT_PREFIX "1", NULL);
    assert_false(nodes_next(ns, 0, &st, name));
    assert_int_equal(node_lookup(ns, DRAFT_PREFIX "1", &st), 0);
    assert_int_equal(node_open(ns, st.id, O_RDONLY, true, &other), 0);
    release(h);
    assert_int_equal(node_lookup(ns, DRAFT_PREFIX "1", &st), 0);
    finish(other);
    assert_int_equal(node_lookup(ns, DRAFT_PREFIX "1", &st), -ENOENT);
    assert_int_equal(slots_used(), 0);
    reopen();
    assert_false(nodes_next(ns, 0, &st, name));
}

static void
a_slot_that_a_closed_draft_is_about_to_give_back_is_waited_for(void **state)
{
    struct handle *draft, *h;

    (void)state;
    h = create("a", O_RDWR);
    fill(h, LARGE, 'a');
    finish(h);
    draft = create(DRAFT_PREFIX "1", O_RDWR);
    fill(draft, LARGE, 'b');
    h = create("c", O_RDWR);
    assert_int_equal(write_at(h, "c", SMALL), -ENOSPC);
    assert_int_equal(node_flush(ns, draft), 0);
    closing = draft;
    assert_int_equal(write_at(h, "c", SMALL), 0);
    assert_null(closing);
    finish(h);
    assert_int_equal(slots_used(), 2);
}

static void
a_draft_becomes_a_file_by_a_rename(void **state)
{
    struct attr_change ch = {.set = SET_MODE | SET_SIZE, .mode = 0640, .size = 3};
    struct node_stat st;
    struct handle *h;

    (void)state;
    make_file("a", "old");
    commits = 0;
    h = create(DRAFT_PREFIX "1", O_RDWR);
    put(h, "newer");
    assert_int_equal(node_lookup(ns, DRAFT_PREFIX "1", &st), 0);
    assert_int_equal(node_change(ns, st.id, NULL, &ch, &st), 0);
    assert_int_equal(commits, 0);
    assert_int_equal(node_rename(ns, DRAFT_PREFIX "1", "a", 0), 0);
    assert_int_equal(commits, 1);
    assert_stored("a", "new");
    finish(h);
    assert_shows("a", "new");
    assert_int_equal(look("a").attr.mode, 0640);
    reopen();
    assert_shows("a", "new");
}

static void
rename_leaves_the_displaced_file_to_who_has_it_open(void **state)
{
    struct handle *old;

    (void)state;
    make_file("a", "old");
    make_file("b", "new");
    old = open_file("a", O_RDONLY);
    assert_int_equal(node_rename(ns, "b", "a", 0), 0);
    assert_reads(old, "old");
    assert_shows("a", "new");
    assert_int_equal(slots_used(), 2);
    finish(old);
    assert_int_equal(slots_used(), 1);
}

static void
rename_does_not_carry_the_displaced_files_bytes(void **state)
{
    struct handle *a;

    (void)state;
    make_file("a", "old a");
    make_file("b", "old b");
    a = open_file("a", O_WRONLY);
    put(a, "half a");
    assert_int_equal(node_rename(ns, "b", "a", 0), 0);
    assert_stored("a", "old b");
    finish(a);
    assert_stored("a", "old b");
}

static void
exchange_swaps_two_files_in_one_commit(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "text a");
    h = create("b", O_WRONLY);
    put(h, "text b");
    commits = 0;
    assert_int_equal(node_rename(ns, "a", "b", RENAME_EXCHANGE), 0);
    assert_int_equal(commits, 1);
    finish(h);
    assert_stored("a", "text b");
    assert_stored("b", "text a");
    assert_shows("a", "text b");
    assert_shows("b", "text a");
    assert_int_equal(node_rename(ns, "a", "c", RENAME_EXCHANGE), -ENOENT);
    assert_int_equal(commits, 1);
}

static void
rename_refuses_what_it_cannot_do(void **state)
{
    char name[NAME_MAX_LEN + 2];

    (void)state;
    make_file("a", "a");
    make_file("b", "b");
    assert_int_equal(node_rename(ns, "a", "b", RENAME_NOREPLACE), -EEXIST);
    assert_int_equal(node_rename(ns, "a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
    assert_int_equal(node_rename(ns, "a", "b", RENAME_WHITEOUT), -EINVAL);
    assert_int_equal(node_rename(ns, "c", "b", 0), -ENOENT);
    assert_int_equal(node_rename(ns, "a", "a", 0), 0);
    memset(name, 'n', sizeof name);
    name[NAME_MAX_LEN + 1] = 0;
    assert_int_equal(node_rename(ns, "a", name, 0), -ENAMETOOLONG);
    name[NAME_MAX_LEN] = 0;
    assert_int_equal(node_rename(ns, "a", name, RENAME_NOREPLACE), 0);
    assert_stored(name, "a");
}

static void
unlink_of_a_file_that_was_never_stored_needs_no_commit(void **state)
{
    struct handle *h = create("a", O_WRONLY);

    (void)state;
    put(h, "text");
    commits = 0;
    assert_int_equal(node_unlink(ns, "a"), 0);
    finish(h);
    assert_int_equal(commits, 0);
    assert_int_equal(slots_used(), 0);
    assert_int_equal(node_unlink(ns, "a"), -ENOENT);
}

static void
an_unlinked_file_lives_and_opens_until_it_is_forgotten(void **state)
{
    struct node_stat st;
    struct handle *h;
    uint64_t id;

    (void)state;
    make_file("a", "text");
    assert_int_equal(node_lookup(ns, "a", &st), 0);
    id = st.id;
    assert_int_equal(node_unlink(ns, "a"), 0);
    assert_int_equal(slots_used(), 0);
    assert_int_equal(node_stat(ns, id, &st), 0);
    assert_false(st.linked);
    assert_int_equal(node_open(ns, id, O_RDWR, true, &h), 0);
    assert_int_equal(slots_used(), 1);
    assert_reads(h, "text");
    put(h, "mine");
    assert_reads(h, "mine");
    finish(h);
    assert_int_equal(slots_used(), 0);
    assert_stored("a", NULL);
    assert_int_equal(node_open(ns, id, O_RDWR, true, &h), -ESTALE); /* what it was is nowhere now */
    node_forget(ns, id, 1);
    assert_int_equal(node_stat(ns, id, &st), -ESTALE);
}

static void
who_looked_a_file_up_gets_it_though_another_has_its_name_now(void **state)
{
    struct node_stat st;
    struct handle *h;

    (void)state;
    make_file("a", "old");
    assert_int_equal(node_lookup(ns, "a", &st), 0);
    make_file("b", "new");
    assert_int_equal(node_rename(ns, "b", "a", 0), 0);
    assert_int_equal(node_open(ns, st.id, O_RDONLY, true, &h), 0);
    assert_reads(h, "old");
    assert_int_equal(slots_used(), 1);
    release(h);
    assert_int_equal(node_open(ns, st.id, O_WRONLY, true, &h), 0);
    assert_int_equal(slots_used(), 2);
    release(h);
    assert_int_equal(
        node_change(ns, st.id, NULL, &(struct attr_change){.set = SET_MODE, .mode = 0600}, &st), 0);
    for (int i = 0; i < 2 * (3 + 2); i++) { /* all other banks: the old content is overwritten */
        make_file("c", "x");
        make_file("d", "y");
        assert_int_equal(node_unlink(ns, "c"), 0);
        assert_int_equal(node_unlink(ns, "d"), 0);
    }
    assert_int_equal(node_open(ns, st.id, O_RDONLY, true, &h), -ESTALE);
    node_forget(ns, st.id, 1);
    assert_shows("a", "new");
}

static void
the_directorys_fsync_stores_names_but_no_half_written_bytes(void **state)
{
    struct handle *a, *b;

    (void)state;
    a = create("a", O_WRONLY);
    b = create("b", O_WRONLY);
    put(b, "half");
    assert_int_equal(nodes_sync(ns), 0);
    assert_stored("a", "");
    assert_stored("b", "");
    commits = 0;
    assert_int_equal(nodes_sync(ns), 0);
    finish(a);
    assert_int_equal(commits, 0);
    finish(b);
    assert_stored("b", "half");
}

static void
a_listing_shows_what_stays_exactly_once(void **state)
{
    char name[NAME_MAX_LEN + 1], seen[16] = "";
    struct node_stat st = {0};

    (void)state;
    make_file("a", "a");
    make_file("b", "b");
    make_file("c", "c");
    while (nodes_next(ns, st.id, &st, name)) {
        strcat(seen, name);
        if (*name == 'a')
            assert_int_equal(node_unlink(ns, "a"), 0);
        if (*name == 'b')
            assert_int_equal(node_rename(ns, "b", "d", 0), 0);
    }
    assert_string_equal(seen, "abc");
    assert_false(nodes_next(ns, UINT64_MAX, &st, name));
}

static void
create_opens_what_is_there_unless_it_must_not(void **state)
{
    struct node_stat st;
    struct handle *h;

    (void)state;
    make_file("a", "text");
    assert_int_equal(node_create(ns, "a", &me, O_RDWR | O_CREAT | O_EXCL, true, &st, &h), -EEXIST);
    assert_int_equal(node_create(ns, "a", &me, O_RDWR | O_CREAT, true, &st, &h), 0);
    assert_reads(h, "text");
    release(h);
    node_forget(ns, st.id, 1);
    assert_stored("a", "text");
}

/* ---- attributes ------------------------------------------------------------------------------ */

static void
attributes_are_stored_at_once_without_half_written_bytes(void **state)
{
    struct handle *h;
    struct entry e;

    (void)state;
    make_file("a", "old");
    clock_seconds = 2000;
    h = open_file("a", O_WRONLY);
    put(h, "half");
    clock_seconds = 3000;
    change("a", h,
           (struct attr_change){
               .set = SET_MODE | SET_UID | SET_GID, .mode = 04711, .uid = 1, .gid = 2});
    assert_stored("a", "old");
    e = stored_entry("a");
    assert_int_equal(e.attr.mode, 04711);
    assert_int_equal(e.attr.uid, 1);
    assert_int_equal(e.attr.gid, 2);
    assert_int_equal(e.attr.ctime.tv_sec, 3000);
    assert_int_equal(e.attr.mtime.tv_sec, 1000);
    assert_int_equal(look("a").attr.mtime.tv_sec, 2000);
    finish(h);
    e = stored_entry("a");
    assert_int_equal(e.attr.mode, 04711);
    assert_int_equal(e.attr.mtime.tv_sec, 2000);
}

static void
attributes_of_a_file_that_is_moving_are_stored_where_it_was(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_RDWR);
    fill(h, LARGE, 'x');
    change("a", NULL, (struct attr_change){.set = SET_MODE, .mode = 0600});
    assert_stored("a", "old");
    assert_int_equal(stored_entry("a").attr.mode, 0600);
    finish(h);
    assert_int_equal(stored_entry("a").current.length, LARGE);
    assert_int_equal(slots_used(), 1);
}

static void
a_change_of_nothing_updates_ctime_and_commits_nothing(void **state)
{
    (void)state;
    make_file("a", "text");
    commits = 0;
    clock_seconds = 2000;
    change("a", NULL, (struct attr_change){.set = SET_MODE, .mode = 0644});
    assert_int_equal(look("a").attr.ctime.tv_sec, 2000);
    assert_int_equal(commits, 0);
    assert_int_equal(nodes_settle(ns), 0);
    assert_int_equal(stored_entry("a").attr.ctime.tv_sec, 2000);
}

static void
truncate_by_name_is_stored_at_once_and_by_handle_at_flush(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "abcdef");
    h = open_file("a", O_RDWR);
    change("a", h, (struct attr_change){.set = SET_SIZE, .size = 4});
    assert_shows("a", "abcd");
    assert_stored("a", "abcdef");
    assert_int_equal(node_flush(ns, h), 0);
    assert_stored("a", "abcd");
    release(h);
    change("a", NULL, (struct attr_change){.set = SET_SIZE, .size = 1});
    assert_stored("a", "a");
}

static void
truncate_past_the_largest_slot_changes_nothing(void **state)
{
    struct attr_change ch = {.set = SET_SIZE, .size = LARGE + 1};
    struct node_stat st;

    (void)state;
    make_file("a", "abc");
    assert_int_equal(node_change(ns, look("a").id, NULL, &ch, &st), -EFBIG);
    assert_shows("a", "abc");
}

static void
times_before_1970_and_after_2106_stay_with_their_nanoseconds(void **state)
{
    struct node_stat st;

    (void)state;
    make_file("a", "text");
    change("a", NULL,
           (struct attr_change){.set = SET_ATIME | SET_MTIME,
                                .atime = {.tv_sec = -5, .tv_nsec = 999999999},
                                .mtime = {.tv_sec = INT64_C(1) << 33, .tv_nsec = 1}});
    reopen();
    st = look("a");
    assert_int_equal(st.attr.atime.tv_sec, -5);
    assert_int_equal(st.attr.atime.tv_nsec, 999999999);
    assert_int_equal(st.attr.mtime.tv_sec, INT64_C(1) << 33);
    assert_int_equal(st.attr.mtime.tv_nsec, 1);
}

static void
reading_updates_atime_as_relatime_has_it(void **state)
{
    (void)state;
    make_file("a", "text");
    clock_seconds = 2000;
    assert_shows("a", "text");
    assert_int_equal(look("a").attr.atime.tv_sec, 2000);
    clock_seconds = 3000;
    assert_shows("a", "text");
    assert_int_equal(look("a").attr.atime.tv_sec, 2000);
    clock_seconds = 2000 + 24 * 60 * 60;
    assert_shows("a", "text");
    assert_int_equal(look("a").attr.atime.tv_sec, clock_seconds);
}

static void
writing_and_renaming_update_times_of_file_and_directory(void **state)
{
    struct file_attr root;
    struct node_stat st;
    struct handle *h;

    (void)state;
    make_file("a", "text");
    make_file("x", "text");
    clock_seconds = 2000;
    h = open_file("a", O_WRONLY);
    put(h, "x");
    finish(h);
    assert_int_equal(stored_entry("a").attr.mtime.tv_sec, 2000);
    assert_int_equal(stored_entry("a").attr.ctime.tv_sec, 2000);
    nodes_get_root(ns, &root);
    assert_int_equal(root.mtime.tv_sec, 1000);
    clock_seconds = 3000;
    assert_int_equal(node_rename(ns, "a", "b", 0), 0);
    assert_int_equal(stored_entry("b").attr.mtime.tv_sec, 2000);
    assert_int_equal(stored_entry("b").attr.ctime.tv_sec, 3000);
    assert_int_equal(look("b").attr.ctime.tv_sec, 3000);
    clock_seconds = 4000;
    assert_int_equal(node_rename(ns, "b", "x", RENAME_EXCHANGE), 0);
    assert_int_equal(look("b").attr.ctime.tv_sec, 4000);
    assert_int_equal(look("x").attr.ctime.tv_sec, 4000);
    h = open_file("b", O_RDONLY);
    st = look("b");
    clock_seconds = 5000;
    assert_int_equal(node_unlink(ns, "b"), 0);
    assert_int_equal(node_stat(ns, st.id, &st), 0);
    assert_int_equal(st.attr.ctime.tv_sec, 5000);
    release(h);
    reopen();
    assert_int_equal(look("x").attr.ctime.tv_sec, 4000);
    nodes_get_root(ns, &root);
    assert_int_equal(root.mtime.tv_sec, 5000);
    assert_int_equal(root.ctime.tv_sec, 5000);
}

static void
the_roots_attributes_are_stored_at_once(void **state)
{
    struct attr_change ch = {.set = SET_MODE | SET_GID, .mode = 02770, .gid = 99};
    struct file_attr root;

    (void)state;
    assert_int_equal(nodes_change_root(ns, &ch, &root), 0);
    reopen();
    nodes_get_root(ns, &root);
    assert_int_equal(root.mode, 02770);
    assert_int_equal(root.gid, 99);
    make_file("a", "text");
    assert_int_equal(look("a").attr.gid, 99); /* a set-gid directory gives its group */
    assert_int_equal(look("a").attr.uid, 7);
}

static void
truncation_at_open_drops_setuid_for_others_than_root(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "text");
    change("a", NULL, (struct attr_change){.set = SET_MODE, .mode = 06777});
    h = open_file("a", O_WRONLY | O_TRUNC);
    assert_int_equal(look("a").attr.mode, 06777);
    release(h);
    assert_int_equal(node_open(ns, look("a").id, O_WRONLY | O_TRUNC, false, &h), 0);
    assert_int_equal(look("a").attr.mode, 0777);
    release(h);
    assert_int_equal(stored_entry("a").attr.mode, 0777);
}

/* ---- settling, failing ----------------------------------------------------------------------- */

static void
settling_marks_the_image_clean_and_stores_no_bytes(void **state)
{
    struct store_info info;
    struct handle *h;

    (void)state;
    make_file("a", "old");
    h = open_file("a", O_WRONLY);
    put(h, "half");
    assert_int_equal(nodes_settle(ns), 0);
    store_get_info(store, &info);
    assert_true(info.clean);
    assert_stored("a", "old");
    release(h);
}

/* Files a and b are there, and @h is open for writing. */
static void
assert_all_is_refused(struct handle *h)
{
    struct attr_change ch = {.set = SET_MODE, .mode = 0600};
    struct handle *other;
    struct node_stat st;

    assert_int_equal(write_at(h, "x", 0), -EROFS);
    assert_int_equal(node_rename(ns, "a", "b", 0), -EROFS);
    assert_int_equal(node_unlink(ns, "a"), -EROFS);
    assert_int_equal(node_change(ns, look("a").id, NULL, &ch, &st), -EROFS);
    assert_int_equal(node_create(ns, "c", &me, O_CREAT | O_WRONLY, true, &st, &other), -EROFS);
    assert_int_equal(node_mknod(ns, "c", &me, &st), -EROFS);
    assert_int_equal(node_open(ns, look("b").id, O_WRONLY, true, &other), -EROFS);
}

static void
after_a_failed_flush_everything_is_read_only_and_reads_go_on(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "old");
    make_file("b", "text b");
    h = open_file("a", O_RDWR);
    put(h, "new");
    memory.sync_fails = true;
    assert_int_equal(node_flush(ns, h), -EIO);
    memory.sync_fails = false;
    assert_int_equal(node_fsync(ns, h, false), -EROFS);
    assert_all_is_refused(h);
    assert_shows("b", "text b");
    assert_reads(h, "new");
    assert_int_equal(node_release(ns, h), -EROFS);
    assert_shows("b", "text b");
}

/* Nobody's commit has failed: the image could not be settled, or a read has found out that it is
 * another's. */
static void
all_is_refused_whoever_has_found_out(void **state)
{
    struct handle *h;

    (void)state;
    for (int i = 0; i < 2; i++) {
        make_file("a", "old");
        make_file("b", "text b");
        h = open_file("a", O_RDWR);
        memory.sync_fails = i == 0;
        if (i == 1)
            store_set_read_only(store, -EBUSY, "it is another's");
        assert_int_equal(nodes_settle(ns), i == 0 ? -EIO : -EROFS);
        memory.sync_fails = false;
        assert_all_is_refused(h);
        assert_reads(h, "old");
        release(h);
        close_nodes();
        open_nodes(false);
    }
}

static void
a_failed_rename_leaves_both_names(void **state)
{
    (void)state;
    make_file("a", "text a");
    make_file("b", "text b");
    memory.sync_fails = true;
    assert_int_equal(node_rename(ns, "a", "b", 0), -EIO);
    assert_shows("a", "text a");
    assert_shows("b", "text b");
    assert_int_equal(node_unlink(ns, "a"), -EROFS);
    assert_shows("a", "text a");
}

static void
a_read_only_mount_changes_nothing(void **state)
{
    struct attr_change ch = {.set = SET_MODE, .mode = 0600};
    struct file_attr root;
    struct node_stat st;
    struct handle *h;

    (void)state;
    make_file("a", "text");
    close_nodes();
    open_nodes(true);
    assert_shows("a", "text");
    assert_int_equal(node_open(ns, look("a").id, O_RDWR, true, &h), -EROFS);
    assert_int_equal(node_open(ns, look("a").id, O_RDONLY | O_TRUNC, true, &h), -EROFS);
    assert_int_equal(node_unlink(ns, "a"), -EROFS);
    assert_int_equal(node_mknod(ns, "b", &me, &st), -EROFS);
    assert_int_equal(nodes_change_root(ns, &ch, &root), -EROFS);
    assert_int_equal(nodes_sync(ns), 0);
    assert_int_equal(nodes_settle(ns), 0);
    assert_int_equal(commits, 0);
}

static void
damaged_content_is_an_error_and_never_blank(void **state)
{
    struct superblock sb;
    struct content c;
    struct handle *h;
    struct view v;

    (void)state;
    make_file("a", "text");
    sb = *store_superblock(store);
    c = stored_entry("a").current;
    memory.bytes[superblock_bank_offset(&sb, c.slot, c.bank) + BANK_HEADER] ^= 1;
    h = open_file("a", O_RDWR);
    assert_int_equal(node_read(ns, h, 10, 0, &v), -EIO);
    assert_int_equal(write_at(h, "x", 0), -EIO);
    finish(h);
    assert_int_equal(look("a").size, 4);
}

/* A takeover, which a read may find out as well as a commit. */
static void
what_was_there_is_refused_if_reading_it_finds_out_that_writing_has_ended(void **state)
{
    struct handle *h;

    (void)state;
    make_file("a", "there");
    h = open_file("a", O_RDWR);
    commits = 0;
    memory.lost = true;
    assert_int_equal(write_at(h, "there", 0), -EROFS);
    memory.lost = false;
    assert_int_equal(look("a").attr.mtime.tv_sec, 1000);
    assert_reads(h, "there");
    finish(h);
    assert_int_equal(commits, 0);
}

/* ---- hand-over ------------------------------------------------------------------------------- */

/* Files a and b, with "there" in each, come from another daemon. */
static void
come(void)
{
    make_file("a", "there");
    make_file("b", "there");
    assert_int_equal(nodes_settle(ns), 0);
    close_nodes();
    open_nodes_of(false, true);
    assert_int_equal(nodes_take(ns, 0), 0);
    clock_seconds += 10;
}

/* All times that can wait: of changes of nothing, of the directory, and of bytes that were there,
 * which the close of @h would commit. */
static void
let_times_wait(struct handle *h)
{
    const struct attr_change same = {.set = SET_MODE, .mode = 0755};
    struct file_attr root;

    change("b", NULL, (struct attr_change){.set = SET_MODE, .mode = 0644});
    assert_int_equal(nodes_change_root(ns, &same, &root), 0);
    put(h, "there");
    assert_int_equal(look("a").attr.mtime.tv_sec, clock_seconds);
    assert_int_equal(look("b").attr.ctime.tv_sec, clock_seconds);
    assert_int_equal(root.ctime.tv_sec, clock_seconds);
}

enum way { WAY_BACK, WAY_ON, WAY_SETTLE, WAYS };

static int
go(enum way way)
{
    return way == WAY_SETTLE ? nodes_settle(ns) : nodes_release(ns, way == WAY_BACK);
}

/* Else whoever had it could not take it back. */
static void
what_came_and_was_not_written_to_goes_as_it_came(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        uint8_t *before = malloc(memory.dev.size);
        struct file_attr root;
        struct handle *h;
        time_t came;

        come();
        came = look("a").attr.mtime.tv_sec;
        memcpy(before, memory.bytes, memory.dev.size);
        h = open_file("a", O_RDWR);
        let_times_wait(h);
        assert_int_equal(go(way), 0);
        assert_memory_equal(memory.bytes, before, memory.dev.size);
        free(before);
        assert_int_equal(commits, 0);
        if (way != WAY_SETTLE) {
            assert_int_equal(node_flush(ns, h), -EROFS); /* they have not been stored */
            assert_int_equal(nodes_take(ns, 0), 0);
        }
        /* Gone with what the image was, or still to come. */
        nodes_get_root(ns, &root);
        assert_true((root.ctime.tv_sec == clock_seconds) == (way != WAY_BACK));
        assert_int_equal(look("a").attr.mtime.tv_sec, way == WAY_BACK ? came : clock_seconds);
        assert_int_equal(look("b").attr.ctime.tv_sec, way == WAY_BACK ? came : clock_seconds);
        finish(h);
        assert_int_equal(commits, way != WAY_BACK);
        assert_int_equal(stored_mtime("a").tv_sec, way == WAY_BACK ? came : clock_seconds);
        reopen();
    }
}

/* Nobody is told that bytes are durable which went with what the image was. */
static void
what_went_with_the_image_is_told_once(void **state)
{
    struct handle *one, *two, *reader, *fresh, *whole;

    (void)state;
    come();
    one = open_file("a", O_RDWR);
    two = open_file("a", O_RDWR);
    reader = open_file("a", O_RDONLY);
    whole = open_file("b", O_RDWR | O_DSYNC);
    fresh = create("c", O_RDWR);
    put(one, "half");
    put(two, "both");
    put(whole, "THERE");
    put(fresh, "fresh");
    assert_int_equal(nodes_release(ns, true), 0);
    assert_int_equal(nodes_take(ns, 0), 0);
    assert_reads(reader, "there");
    assert_int_equal(node_flush(ns, reader), 0);
    assert_int_equal(node_fsync(ns, reader, false), 0);
    assert_int_equal(node_flush(ns, one), -EIO);
    assert_int_equal(node_flush(ns, one), 0);
    assert_int_equal(node_fsync(ns, two, true), -EIO);
    assert_int_equal(node_fsync(ns, two, true), 0);
    assert_int_equal(node_fsync(ns, fresh, false), -EIO);
    assert_int_equal(node_overwrite(ns, whole, "again", 5, 0),
                     0); /* it needs nothing of what is lost */
    assert_int_equal(commits, 1);
    put(one, "whole");
    assert_int_equal(node_fsync(ns, one, false), 0);
    assert_int_equal(commits, 2);
    finish(one);
    finish(two);
    finish(reader);
    finish(fresh);
    finish(whole);
    reopen();
}

/* A mapping outlives its descriptor: no flush comes before the release. */
static void
what_a_mapping_writes_after_others_went_is_stored(void **state)
{
    struct handle *h;

    (void)state;
    come();
    h = open_file("a", O_RDWR);
    assert_int_equal(node_write(ns, h, "early", 5, 0, true), 0);
    assert_int_equal(nodes_release(ns, true), 0);
    assert_int_equal(nodes_take(ns, 0), 0);
    assert_int_equal(node_write(ns, h, "LATER", 5, 0, true), 0);
    release(h);
    assert_stored("a", "LATER");
    reopen();
}

static void
wait_for_fsync(struct handle *h)
{
    assert_int_equal(node_fsync(ns, h, false), 0);
}

static void
wait_for_flush(struct handle *h)
{
    assert_int_equal(node_flush(ns, h), 0);
}

static void
wait_for_chmod(struct handle *h)
{
    change("a", h, (struct attr_change){.set = SET_MODE, .mode = look("a").attr.mode ^ S_IXUSR});
}

static void
wait_for_utimens(struct handle *h)
{
    change("a", h, (struct attr_change){.set = SET_MTIME, .mtime = look("a").attr.mtime});
}

/* Whose times somebody has waited for is stored, and then all others go along. */
static void
what_came_and_was_written_to_goes_with_its_times(void **state)
{
    static void (*const promises[])(struct handle *) = {wait_for_fsync, wait_for_flush,
                                                        wait_for_chmod, wait_for_utimens};

    (void)state;
    for (unsigned i = 0; i < sizeof promises / sizeof *promises; i++) {
        for (enum way way = 0; way < WAYS; way++) {
            struct handle *h;

            come();
            h = open_file("a", O_RDWR);
            let_times_wait(h);
            promises[i](h);
            assert_int_equal(commits, 1);
            assert_int_equal(stored_mtime("a").tv_sec, clock_seconds);
            assert_int_equal(go(way), 0);
            assert_int_equal(commits, 2);
            assert_int_equal(stored_mtime("a").tv_sec, clock_seconds);
            assert_int_equal(stored_entry("b").attr.ctime.tv_sec, clock_seconds);
            /* What another daemon makes of it does not come here any more. */
            assert_int_equal(store_where(store), way == WAY_SETTLE ? STORE_HERE : STORE_RELEASED);
            reopen();
        }
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *
flush_main(void *arg)
{
    return (void *)(intptr_t)node_flush(ns, arg);
}

/* Starts a flush and waits until it hangs in the device; end_flush() lets it go on. */
static pthread_t
begin_flush(struct handle *h)
{
    pthread_t thread;
    unsigned before;

    pthread_mutex_lock(&memory.lock);
    memory.shut = true;
    before = memory.syncs;
    assert_int_equal(pthread_create(&thread, NULL, flush_main, h), 0);
    while (memory.syncs == before)
        pthread_cond_wait(&memory.changed, &memory.lock);
    pthread_mutex_unlock(&memory.lock);
    return thread;
}

static void
end_flush(pthread_t thread)
{
    void *r;

    pthread_mutex_lock(&memory.lock);
    memory.shut = false;
    pthread_cond_broadcast(&memory.changed);
    pthread_mutex_unlock(&memory.lock);
    assert_int_equal(pthread_join(thread, &r), 0);
    assert_int_equal((intptr_t)r, 0);
}

static void
reading_and_writing_go_on_during_a_commit(void **state)
{
    struct handle *a, *b;
    pthread_t flusher;

    (void)state;
    make_file("b", "text b");
    b = open_file("b", O_RDWR);
    assert_reads(b, "text b");
    a = create("a", O_RDWR);
    put(a, "first");
    flusher = begin_flush(a);
    assert_reads(a, "first");
    assert_reads(b, "text b");
    put(b, "TEXT");
    put(a, "SECOND");
    end_flush(flusher);
    assert_stored("a", "first"); /* a commit carries what there was when it began */
    assert_reads(a, "SECOND");
    finish(a);
    assert_stored("a", "SECOND");
    finish(b);
}

/* That a commit of the same bytes is on its way is no reason to call them stored. */
static void
what_a_failed_commit_carried_is_not_there(void **state)
{
    struct handle *one, *two;
    pthread_t flusher;
    void *r;

    (void)state;
    make_file("a", "old");
    one = open_file("a", O_RDWR);
    two = open_file("a", O_RDWR);
    put(one, "new");
    flusher = begin_flush(one);
    put(two, "new");
    pthread_mutex_lock(&memory.lock);
    memory.sync_fails = true;
    memory.shut = false;
    pthread_cond_broadcast(&memory.changed);
    pthread_mutex_unlock(&memory.lock);
    assert_int_equal(pthread_join(flusher, &r), 0);
    assert_int_equal((intptr_t)r, -EIO);
    assert_int_equal(node_flush(ns, two), -EROFS);
    memory.sync_fails = false;
    node_release(ns, one);
    node_release(ns, two);
}

static void *
grow_main(void *arg)
{
    return (void *)(intptr_t)write_at(arg, "y", SMALL);
}

static void
a_file_may_outgrow_its_slot_during_its_commit(void **state)
{
    struct handle *h;
    pthread_t flusher, grower;
    void *r;

    (void)state;
    h = create("a", O_RDWR);
    put(h, "small");
    flusher = begin_flush(h);
    assert_int_equal(pthread_create(&grower, NULL, grow_main, h), 0); /* waits for the store */
    end_flush(flusher);
    assert_int_equal(pthread_join(grower, &r), 0);
    assert_int_equal((intptr_t)r, 0);
    assert_stored("a", "small");
    assert_int_equal(look("a").capacity, LARGE);
    finish(h);
    assert_int_equal(stored_entry("a").current.length, SMALL + 1);
    assert_int_equal(slots_used(), 1);
}

static void
an_unlinked_file_may_be_read_while_its_name_goes(void **state)
{
    struct handle *a, *b;
    pthread_t flusher;

    (void)state;
    make_file("a", "text");
    b = create("b", O_RDWR);
    put(b, "b");
    a = open_file("a", O_RDONLY);
    flusher = begin_flush(b);
    finish(a); /* dropped from memory, while a commit is in flight */
    assert_true(exists("a"));
    end_flush(flusher);
    a = open_file("a", O_RDONLY);
    assert_int_equal(node_unlink(ns, "a"), 0);
    assert_reads(a, "text"); /* loaded only now, from a slot that the store has given up */
    finish(a);
    finish(b);
    assert_int_equal(slots_used(), 1);
}

static void *
read_main(void *arg)
{
    assert_reads(arg, "new");
    return NULL;
}

static void
content_that_is_replaced_while_it_is_loaded_stays_replaced(void **state)
{
    struct handle *r, *w;
    pthread_t reader;
    unsigned before;

    (void)state;
    make_file("a", "old");
    r = open_file("a", O_RDONLY);
    pthread_mutex_lock(&memory.lock);
    memory.shut_reads = true;
    before = memory.reads;
    assert_int_equal(pthread_create(&reader, NULL, read_main, r), 0);
    while (memory.reads == before)
        pthread_cond_wait(&memory.changed, &memory.lock);
    pthread_mutex_unlock(&memory.lock);
    w = open_file("a", O_WRONLY | O_TRUNC);
    put(w, "new");
    pthread_mutex_lock(&memory.lock);
    memory.shut_reads = false;
    pthread_cond_broadcast(&memory.changed);
    pthread_mutex_unlock(&memory.lock);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_reads(r, "new");
    finish(w);
    assert_stored("a", "new");
    finish(r);
}

struct second {
    struct handle *h;
    bool done;
};

static void *
second_flush_main(void *arg)
{
    struct second *s = arg;
    int r = node_flush(ns, s->h);

    __atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
    return (void *)(intptr_t)r;
}

static void
a_flush_waits_for_the_commit_that_carries_its_bytes(void **state)
{
    struct timespec moment = {.tv_nsec = 20000000};
    struct second s = {0};
    struct handle *a;
    pthread_t first, second;
    void *r;

    (void)state;
    a = create("a", O_RDWR);
    s.h = open_file("a", O_RDWR);
    put(a, "one ");
    assert_int_equal(write_at(s.h, "two", 4), 0);
    commits = 0;
    first = begin_flush(a);
    assert_int_equal(pthread_create(&second, NULL, second_flush_main, &s), 0);
    nanosleep(&moment, NULL); /* what must not happen would have happened by now */
    assert_false(__atomic_load_n(&s.done, __ATOMIC_ACQUIRE));
    end_flush(first);
    assert_int_equal(pthread_join(second, &r), 0);
    assert_int_equal((intptr_t)r, 0);
    assert_int_equal(commits, 1);
    assert_stored("a", "one two");
    release(a);
    release(s.h);
}

enum { THREADS = 4, ROUNDS = 300 };

/* Each thread replaces its own file and reads the common one, which must never be mixed. */
static void *
busy_main(void *arg)
{
    unsigned me_too = (unsigned)(intptr_t)arg;
    char tmp[8], own[8];

    snprintf(tmp, sizeof tmp, "t%u", me_too);
    snprintf(own, sizeof own, "f%u", me_too % 2);
    for (int i = 0; i < ROUNDS; i++) {
        struct node_stat st;
        struct handle *h;
        struct view v;

        if (node_create(ns, tmp, &me, O_CREAT | O_WRONLY, true, &st, &h) < 0)
            continue; /* no slot is free at the moment */
        node_write(ns, h, i % 2 ? "aaaa" : "bbbb", 4, 0, false);
        node_flush(ns, h);
        node_release(ns, h);
        node_forget(ns, st.id, 1);
        node_rename(ns, tmp, own, 0);
        if (node_lookup(ns, "f0", &st) < 0)
            continue;
        if (node_open(ns, st.id, O_RDONLY, true, &h) == 0) {
            if (node_read(ns, h, 4, 0, &v) < 0 || v.len != 4 || v.data[0] != v.data[3])
                return (void *)1;
            node_put_view(&v);
            node_release(ns, h);
        }
        node_forget(ns, st.id, 1);
    }
    return NULL;
}

static void
many_threads_lose_and_mix_nothing(void **state)
{
    pthread_t threads[THREADS];
    void *r;

    (void)state;
    for (intptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy_main, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &r), 0);
        assert_null(r);
    }
    assert_int_equal(slots_used(), 2);
}

/* ---- past the kernel's cache ------------------------------------------------------------------
 */

static void
a_handle_is_direct_only_if_nobody_else_has_the_file_open(void **state)
{
    struct handle *first, *second;

    (void)state;
    make_file("a", "content");
    first = open_file("a", O_RDWR);
    assert_false(node_caching(ns, first, false).direct);
    second = open_file("a", O_RDWR | O_DSYNC);
    assert_false(node_caching(ns, second, true).direct);
    assert_false(node_is_synchronous(ns, second));
    assert_true(node_caching(ns, second, true).keep);
    release(first);
    release(second);

    first = open_file("a", O_RDWR | O_DSYNC);
    assert_true(node_caching(ns, first, true).direct);
    assert_true(node_overwrites(ns, first));
    second = open_file("a", O_RDWR | O_DSYNC);
    assert_true(node_caching(ns, second, false).direct);
    assert_false(node_overwrites(ns, second));
    assert_true(node_is_synchronous(ns, second));
    release(first);
    release(second);

    /* what the kernel had cached before is not true any more */
    first = open_file("a", O_RDONLY);
    assert_false(node_caching(ns, first, false).direct);
    assert_false(node_caching(ns, first, false).keep);
    release(first);
}

static void
an_overwrite_is_whole_and_stored(void **state)
{
    struct handle *h;
    unsigned before;

    (void)state;
    make_file("a", "content");
    h = open_file("a", O_RDWR | O_DSYNC);
    assert_true(node_caching(ns, h, true).direct);
    before = commits;
    assert_int_equal(node_overwrite(ns, h, "another", 7, 0), 0);
    assert_int_equal(commits, before + 1);
    assert_stored("a", "another");
    assert_reads(h, "another");

    /* what may be a part of something is not taken at all */
    assert_int_equal(node_overwrite(ns, h, "ano", 3, 0), -EOPNOTSUPP);
    assert_int_equal(node_overwrite(ns, h, "content+", 8, 0), -EOPNOTSUPP);
    assert_int_equal(node_overwrite(ns, h, "content", 7, 1), -EOPNOTSUPP);
    assert_int_equal(node_overwrite(ns, h, "", 0, 0), -EOPNOTSUPP);
    assert_reads(h, "another");
    assert_int_equal(commits, before + 1);
    finish(h);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static const struct CMUnitTest tests[] = {
    CASE(a_write_is_seen_by_every_handle_and_stored_by_none),
    CASE(flush_stores_what_the_handle_wrote_and_fsync_anything),
    CASE(flush_of_a_handle_that_did_not_write_stores_nothing),
    CASE(a_handles_bytes_are_its_own_business_only_until_they_are_stored),
    CASE(what_could_not_be_stored_is_kept_and_stored_later),
    CASE(what_is_there_already_is_not_stored_again),
    CASE(the_times_of_what_was_there_come_with_the_close),
    CASE(times_that_are_set_are_stored_though_they_are_there),
    CASE(times_are_data_to_o_sync_but_not_to_o_dsync),
    CASE(what_others_may_have_written_over_is_stored_again),
    CASE(what_a_failed_commit_carried_is_not_there),
    CASE(what_is_only_in_memory_is_no_less_written),
    CASE(flush_without_news_does_not_commit),
    CASE(a_shells_redirection_never_stores_an_empty_file),
    CASE(truncation_alone_is_stored_at_release),
    CASE(a_reader_that_goes_does_not_store_a_truncation),
    CASE(truncation_does_not_store_what_another_handle_has_half_written),
    CASE(a_new_file_is_stored_at_release_and_not_before),
    CASE(a_new_file_is_stored_with_its_first_bytes),
    CASE(a_new_file_that_is_dropped_leaves_nothing),
    CASE(mknod_stores_at_once),
    CASE(a_commit_carries_no_other_files_bytes),
    CASE(pages_of_a_mapping_are_stored_at_flush_or_release_of_a_writer),
    CASE(a_view_stays_as_it_was_read),
    CASE(bytes_between_and_after_a_shrink_are_zero),
    CASE(growth_moves_to_a_larger_slot_and_one_commit_stores_it),
    CASE(a_move_that_nobody_stored_is_undone),
    CASE(room_runs_out_at_the_write_and_never_at_close),
    CASE(a_full_image_takes_overwrites_but_no_new_file),
    CASE(an_unlinked_open_file_keeps_slot_and_content_until_its_last_close),
    CASE(a_slot_that_a_closed_file_is_about_to_give_back_is_waited_for),
    CASE(rounds_of_create_rename_unlink_leak_nothing),
    CASE(fallocate_grows_reserves_and_zeroes),
    CASE(rename_is_one_commit_that_carries_the_renamed_files_bytes),
    CASE(a_draft_is_gone_with_its_last_handle),
    CASE(a_slot_that_a_closed_draft_is_about_to_give_back_is_waited_for),
    CASE(a_draft_becomes_a_file_by_a_rename),
    CASE(rename_leaves_the_displaced_file_to_who_has_it_open),
    CASE(rename_does_not_carry_the_displaced_files_bytes),
    CASE(exchange_swaps_two_files_in_one_commit),
    CASE(rename_refuses_what_it_cannot_do),
    CASE(unlink_of_a_file_that_was_never_stored_needs_no_commit),
    CASE(an_unlinked_file_lives_and_opens_until_it_is_forgotten),
    CASE(who_looked_a_file_up_gets_it_though_another_has_its_name_now),
    CASE(the_directorys_fsync_stores_names_but_no_half_written_bytes),
    CASE(a_listing_shows_what_stays_exactly_once),
    CASE(create_opens_what_is_there_unless_it_must_not),
    CASE(attributes_are_stored_at_once_without_half_written_bytes),
    CASE(attributes_of_a_file_that_is_moving_are_stored_where_it_was),
    CASE(a_change_of_nothing_updates_ctime_and_commits_nothing),
    CASE(truncate_by_name_is_stored_at_once_and_by_handle_at_flush),
    CASE(truncate_past_the_largest_slot_changes_nothing),
    CASE(times_before_1970_and_after_2106_stay_with_their_nanoseconds),
    CASE(reading_updates_atime_as_relatime_has_it),
    CASE(writing_and_renaming_update_times_of_file_and_directory),
    CASE(the_roots_attributes_are_stored_at_once),
    CASE(truncation_at_open_drops_setuid_for_others_than_root),
    CASE(settling_marks_the_image_clean_and_stores_no_bytes),
    CASE(after_a_failed_flush_everything_is_read_only_and_reads_go_on),
    CASE(all_is_refused_whoever_has_found_out),
    CASE(a_failed_rename_leaves_both_names),
    CASE(a_read_only_mount_changes_nothing),
    CASE(damaged_content_is_an_error_and_never_blank),
    CASE(what_was_there_is_refused_if_reading_it_finds_out_that_writing_has_ended),
    CASE(what_came_and_was_not_written_to_goes_as_it_came),
    CASE(what_went_with_the_image_is_told_once),
    CASE(what_a_mapping_writes_after_others_went_is_stored),
    CASE(what_came_and_was_written_to_goes_with_its_times),
    CASE(reading_and_writing_go_on_during_a_commit),
    CASE(a_file_may_outgrow_its_slot_during_its_commit),
    CASE(an_unlinked_file_may_be_read_while_its_name_goes),
    CASE(content_that_is_replaced_while_it_is_loaded_stays_replaced),
    CASE(a_flush_waits_for_the_commit_that_carries_its_bytes),
    CASE(many_threads_lose_and_mix_nothing),
    CASE(a_handle_is_direct_only_if_nobody_else_has_the_file_open),
    CASE(an_overwrite_is_whole_and_stored),
};

int
main(void)
{
    alarm(120); /* a deadlock is a failure */
    report_set_sink(no_report, NULL);
    if (crypt_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
