/* SPDX-License-Identifier: BSD-3-Clause */
/* Two daemons and one image: every order in which they can open it, commit, let it go, take it and
 * die, between two writes too, up to a number of steps; and power cuts.  The stores are the real
 * ones; the disk is a double that fails a test when somebody writes who is not its one writer, or
 * touches it having let it go. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store.h"
#include "tests/faultdev.h"
#include "tests/testimage.h"
#include "tests/testseal.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDES = 2, NOBODY = -1, VALUES_MAX = 32, STEPS_MAX = 8, FUSE_OFF = -1, MANY = 60 };

/* ---- the disk ----------------------------------------------------------------------------------
 */

struct world;

/* What a daemon has of the disk. */
struct port {
    struct dev dev;
    struct world *w;
    int me;
    bool open, looks; /* looks: for reading only, without the lock */
    bool dead;
    long fuse; /* writes until it dies; FUSE_OFF: it lives */
};

struct side {
    struct store *store; /* NULL: no daemon */
    struct port *port;   /* the store's */
    enum store_place place;
    uint64_t generation; /* when it was let go */
};

struct world {
    struct dev *disk;
    int owner;
    struct side sides[SIDES];
    /* What the image may show: what was acknowledged last, and what was not, but may be there. */
    uint32_t values[VALUES_MAX];
    size_t n_values;
    uint32_t next;
    uint64_t generation; /* of what is there, unless: */
    bool untold;         /* somebody died in the middle */
    unsigned handovers;  /* that succeeded, for the record */
};

static void
die(struct port *p)
{
    if (p->w->owner == p->me)
        p->w->owner = NOBODY;
    p->dead = true;
    p->open = false;
}

static int
port_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct port *p = (struct port *)d;

    if (p->dead)
        return -EIO;
    assert_true(p->open);
    return p->w->disk->ops->pread(p->w->disk, buf, n, off);
}

static int
port_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct port *p = (struct port *)d;

    if (p->dead)
        return -EIO;
    assert_true(p->open && !p->looks);
    assert_int_equal(p->w->owner, p->me); /* never two writers */
    for (size_t done = 0; done < n; done += BLOCK_SIZE) {
        if (p->fuse == 0) {
            die(p);
            return -EIO;
        }
        p->fuse -= p->fuse > 0;
        assert_int_equal(p->w->disk->ops->pwrite(p->w->disk, (const uint8_t *)buf + done,
                                                 BLOCK_SIZE, off + done),
                         0);
    }
    return 0;
}

static int
port_sync(struct dev *d)
{
    struct port *p = (struct port *)d;

    if (p->dead)
        return -EIO;
    assert_true(p->open);
    if (p->fuse == 0) {
        die(p);
        return -EIO;
    }
    return p->w->disk->ops->sync(p->w->disk);
}

static int
port_medium(struct dev *d, bool on)
{
    struct port *p = (struct port *)d;

    return p->dead ? -EIO : p->w->disk->ops->medium(p->w->disk, on);
}

static void
port_release(struct dev *d)
{
    struct port *p = (struct port *)d;

    if (p->w->owner == p->me)
        p->w->owner = NOBODY;
    p->open = false;
}

static int
port_take(struct dev *d, unsigned wait_ms)
{
    struct port *p = (struct port *)d;

    (void)wait_ms;
    if (p->w->owner != NOBODY)
        return -EBUSY;
    p->w->owner = p->me;
    p->open = true;
    p->looks = false;
    d->read_only = false;
    return 0;
}

static void
port_close(struct dev *d)
{
    port_release(d);
    free(d->name);
    free(d);
}

static const struct dev_ops port_ops = {
    .pread = port_pread,
    .pwrite = port_pwrite,
    .sync = port_sync,
    .medium = port_medium,
    .release = port_release,
    .take = port_take,
    .close = port_close,
};

static struct port *
port_new(struct world *w, int me, bool looks)
{
    struct port *p = calloc(1, sizeof *p);

    assert_non_null(p);
    *p = (struct port){
        .dev = {.ops = &port_ops,
                .size = w->disk->size,
                .read_only = looks,
                .sole = true,
                .name = strdup("disk")},
        .w = w,
        .me = me,
        .open = true,
        .looks = looks,
        .fuse = FUSE_OFF,
    };
    if (!looks)
        w->owner = me;
    return p;
}

/* ---- what may be there -------------------------------------------------------------------------
 */

static bool
is_allowed(const struct world *w, uint32_t value)
{
    for (size_t i = 0; i < w->n_values; i++)
        if (w->values[i] == value)
            return true;
    return false;
}

/* From now on nothing else. */
static void
settle_on(struct world *w, uint32_t value)
{
    assert_true(is_allowed(w, value));
    w->values[0] = value;
    w->n_values = 1;
}

static uint64_t
generation_of(struct store *s)
{
    struct store_info info;

    store_get_info(s, &info);
    return info.generation;
}

static uint32_t
value_of(struct store *s)
{
    uint8_t buf[4] = {0};
    struct entry e;

    assert_int_equal(store_find(s, "n", &e), 0);
    assert_int_equal(e.current.length, sizeof buf);
    assert_int_equal(store_read(s, &e.current, buf), 0);
    return load_le32(buf);
}

static int
commit_value(struct store *s, uint32_t value)
{
    uint8_t buf[4];

    store_le32(buf, value);
    return testimage_put(s, "n", buf, sizeof buf, NULL);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static void
bury(struct side *x)
{
    if (!x->store)
        return;
    die(x->port);
    store_close(x->store);
    *x = (struct side){0};
}

static int
open_side(struct world *w, struct side *x, bool incoming)
{
    const struct store_options opt = {.incoming = incoming, .unlock = testseal_unlock};
    struct port *p = port_new(w, (int)(x - w->sides), incoming);
    int r = store_open(&x->store, &p->dev, &opt);

    if (r < 0) {
        port_close(&p->dev);
        return r;
    }
    x->port = p;
    x->place = incoming ? STORE_INCOMING : STORE_HERE;
    return 0;
}

static void
check_place(struct side *x, enum store_place place)
{
    x->place = place;
    assert_int_equal(store_where(x->store), place);
    assert_int_equal(x->port->open, place == STORE_HERE);
}

/* Each returns false when there is nothing to do: the order is another one's, too. */
typedef bool step_fn(struct world *w, struct side *x, long fuse);

static bool
do_open(struct world *w, struct side *x, long fuse)
{
    (void)fuse;
    if (x->store || w->owner != NOBODY)
        return false;
    assert_int_equal(open_side(w, x, false), 0);
    settle_on(w, value_of(x->store));
    w->generation = generation_of(x->store);
    w->untold = false;
    return true;
}

static bool
do_wait(struct world *w, struct side *x, long fuse)
{
    (void)fuse;
    if (x->store)
        return false;
    assert_int_equal(open_side(w, x, true), 0);
    check_place(x, STORE_INCOMING);
    return true;
}

static bool
do_commit(struct world *w, struct side *x, long fuse)
{
    uint32_t value = w->next;
    int r;

    if (!x->store || (x->place != STORE_HERE && fuse != FUSE_OFF))
        return false;
    x->port->fuse = fuse;
    r = commit_value(x->store, value);
    if (x->place != STORE_HERE) {
        assert_int_equal(r, -EROFS);
        return false;
    }
    w->next++;
    if (r == 0) {
        w->generation = generation_of(x->store);
        w->values[w->n_values++] = value;
        settle_on(w, value);
        x->port->fuse = FUSE_OFF;
        return fuse == FUSE_OFF; /* with a fuse too long it is the same as without */
    }
    assert_true(x->port->dead);
    w->values[w->n_values++] = value;
    w->untold = true;
    bury(x);
    return true;
}

static bool
do_release(struct world *w, struct side *x, long fuse)
{
    uint32_t value;

    if (!x->store || x->place != STORE_HERE)
        return false;
    value = value_of(x->store);
    x->port->fuse = fuse;
    if (store_release(x->store, false) < 0) {
        assert_true(x->port->dead);
        w->untold = true; /* whether the clean mark is there */
        bury(x);
        return true;
    }
    if (fuse != FUSE_OFF)
        return false;
    check_place(x, STORE_RELEASED);
    assert_int_equal(value_of(x->store), value);
    x->generation = w->generation = generation_of(x->store);
    return true;
}

static bool
do_take(struct world *w, struct side *x, long fuse)
{
    bool released = x->place == STORE_RELEASED, same = x->generation == w->generation;
    uint32_t shown;
    int r;

    if (!x->store || x->place == STORE_HERE)
        return false;
    shown = value_of(x->store);
    x->port->fuse = fuse;
    r = store_take(x->store, 0);
    if (x->port->dead) {
        assert_true(r < 0);
        w->untold = true; /* whether it has recovered something */
        bury(x);
        return true;
    }
    if (fuse != FUSE_OFF)
        return false;
    if (w->owner == !(x - w->sides)) {
        assert_int_equal(r, -EBUSY);
    } else if (r < 0) {
        assert_int_equal(r, -ESTALE);
        assert_true(released && (w->untold || !same));
    } else {
        assert_true(!released || ((w->untold || same) && value_of(x->store) == shown));
        settle_on(w, value_of(x->store));
        w->generation = generation_of(x->store);
        w->untold = false;
        w->handovers++;
    }
    check_place(x, r == 0 ? STORE_HERE : x->place);
    return true;
}

static bool
do_give_up(struct world *w, struct side *x, long fuse)
{
    (void)fuse;
    if (!x->store || x->place != STORE_HERE || x->port->fuse != FUSE_OFF)
        return false;
    assert_int_equal(store_release(x->store, true), 0);
    check_place(x, STORE_INCOMING);
    w->generation = generation_of(x->store);
    return true;
}

static bool
do_die(struct world *w, struct side *x, long fuse)
{
    (void)fuse, (void)w;
    if (!x->store)
        return false;
    bury(x);
    return true;
}

/* Both daemons are gone, and of what was not flushed none (@fuse 0) or all is there. */
static bool
do_cut(struct world *w, struct side *x, long fuse)
{
    size_t n = faultdev_pending(w->disk);
    AUTO_FREE uint8_t *masks = malloc(n + 1);
    struct dev *left;

    if (x != w->sides || (fuse == 1 && n == 0))
        return false;
    for (int i = 0; i < SIDES; i++)
        bury(&w->sides[i]);
    memset(masks, WHOLE, n + 1);
    left = faultdev_cut(w->disk, fuse == 0 ? NULL : masks);
    dev_close(w->disk);
    w->disk = left;
    w->untold = true;
    return true;
}

static const struct step {
    step_fn *run;
    long fuse;
} steps[] = {
    {do_open, FUSE_OFF}, {do_wait, FUSE_OFF},    {do_commit, FUSE_OFF}, {do_commit, 0},
    {do_commit, 1},      {do_commit, 2},         {do_commit, 3},        {do_release, FUSE_OFF},
    {do_release, 0},     {do_release, 1},        {do_take, FUSE_OFF},   {do_take, 0},
    {do_take, 1},        {do_give_up, FUSE_OFF}, {do_die, FUSE_OFF},    {do_cut, 0},
    {do_cut, 1},
};

enum { N_STEPS = sizeof steps / sizeof *steps };

/* ---- orders ------------------------------------------------------------------------------------
 */

static struct dev *blank; /* the image at the beginning, with value 0 */

/* One that has it, and one that waits for it. */
static void
begin(struct world *w)
{
    *w = (struct world){.disk = faultdev_fork(blank), .owner = NOBODY, .n_values = 1, .next = 1};
    assert_int_equal(open_side(w, &w->sides[0], false), 0);
    assert_int_equal(open_side(w, &w->sides[1], true), 0);
    w->generation = generation_of(w->sides[0].store);
}

static struct dev *
new_disk(uint32_t slots)
{
    const struct slot_class class = {slots, 4096};
    const struct format_spec spec = {.classes = &class, .n_classes = 1, .uuid = {1}};
    struct world w = {.owner = NOBODY, .disk = testimage_new(&spec, 0, 0)};

    assert_int_equal(open_side(&w, &w.sides[0], false), 0);
    assert_int_equal(commit_value(w.sides[0].store, 0), 0);
    bury(&w.sides[0]);
    return w.disk;
}

/* In the end there is an image, and it shows what it may. */
static void
end(struct world *w)
{
    for (int i = 0; i < SIDES; i++)
        bury(&w->sides[i]);
    assert_int_equal(open_side(w, &w->sides[0], false), 0);
    settle_on(w, value_of(w->sides[0].store));
    bury(&w->sides[0]);
    dev_close(w->disk);
}

/* False: one of the steps was none. */
static bool
run_order(const unsigned *order, size_t n, unsigned *handovers)
{
    struct world w;
    bool all = true;

    begin(&w);
    for (size_t i = 0; all && i < n; i++) {
        const struct step *s = &steps[order[i] / SIDES];

        all = s->run(&w, &w.sides[order[i] % SIDES], s->fuse);
    }
    *handovers += w.handovers;
    end(&w);
    return all;
}

/* All orders of @depth steps that begin with the @n first of @order. */
static unsigned
run_all(unsigned *order, size_t n, size_t depth, unsigned *handovers)
{
    unsigned count = 0;

    if (n > 0 && !run_order(order, n, handovers))
        return 0;
    if (n == depth)
        return 1;
    for (order[n] = 0; order[n] < N_STEPS * SIDES; order[n]++)
        count += run_all(order, n + 1, depth, handovers);
    return count;
}

static void
never_two_writers_and_nothing_lost(void **state)
{
    size_t depth = getenv("VNVRAM_QUICK") ? 3 : getenv("VNVRAM_TEST_SCALE") ? 5 : 4;
    unsigned order[STEPS_MAX], handovers = 0, count = run_all(order, 0, depth, &handovers);

    (void)state;
    print_message("%u orders of %zu steps, %u hand-overs\n", count, depth, handovers);
    assert_true(count > 100 && handovers > 100);
}

/* ---- single cases ------------------------------------------------------------------------------
 */

static void
what_was_let_go_comes_back_if_unchanged(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(commit_value(w.sides[0].store, 1), 0);
    w.values[w.n_values++] = 1;
    assert_int_equal(store_release(w.sides[0].store, false), 0);
    assert_int_equal(store_release(w.sides[0].store, false), 0); /* it is let go already */
    assert_int_equal(commit_value(w.sides[0].store, 2), -EROFS);
    assert_int_equal(store_settle(w.sides[0].store), -EROFS);
    assert_int_equal(store_take(w.sides[1].store, 0), 0);
    assert_int_equal(value_of(w.sides[1].store), 1);
    assert_int_equal(store_take(w.sides[0].store, 0), -EBUSY);
    assert_int_equal(store_release(w.sides[1].store, true), 0);
    assert_int_equal(store_take(w.sides[0].store, 0), 0);
    assert_int_equal(store_take(w.sides[0].store, 0), 0); /* it is here already */
    assert_int_equal(commit_value(w.sides[0].store, 3), 0);
    w.values[w.n_values++] = 3;
    end(&w);
}

static void
what_was_let_go_and_changed_does_not_come_back(void **state)
{
    struct store_info info;
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(store_release(w.sides[0].store, false), 0);
    assert_int_equal(store_take(w.sides[1].store, 0), 0);
    assert_int_equal(commit_value(w.sides[1].store, 1), 0);
    w.values[0] = 1;
    assert_int_equal(store_release(w.sides[1].store, false), 0);
    assert_int_equal(store_take(w.sides[0].store, 0), -ESTALE);
    assert_int_equal(store_take(w.sides[0].store, 0), -ESTALE);
    assert_int_equal(value_of(w.sides[0].store), 0); /* its own */
    store_get_info(w.sides[0].store, &info);
    assert_int_equal(info.place, STORE_RELEASED);
    assert_int_equal(info.read_only, -EROFS);
    assert_int_equal(store_take(w.sides[1].store, 0), 0);
    end(&w);
}

static void
contents_before_and_images_are_there_meanwhile(void **state)
{
    struct snapshot *sn;
    struct world w;
    struct entry e;
    uint8_t buf[4];

    (void)state;
    begin(&w);
    assert_int_equal(commit_value(w.sides[0].store, 7), 0);
    w.values[0] = 7;
    assert_int_equal(store_release(w.sides[0].store, false), 0);
    assert_int_equal(store_find(w.sides[0].store, "n", &e), 0);
    assert_true(store_is_whole(w.sides[0].store, &e.previous));
    assert_int_equal(store_read(w.sides[0].store, &e.previous, buf), 0);
    assert_int_equal(load_le32(buf), 0);
    assert_int_equal(store_snapshot(w.sides[0].store, &sn), 0);
    assert_int_equal(snapshot_generation(sn), generation_of(w.sides[0].store));
    snapshot_put(sn);
    end(&w);
}

/* What was shown while it waited is too old for what is there then, and the other way round. */
static void
who_waits_takes_no_older_image(void **state)
{
    struct dev *old;
    struct world w;

    (void)state;
    begin(&w);
    old = faultdev_fork(w.disk);
    assert_int_equal(commit_value(w.sides[0].store, 1), 0);
    bury(&w.sides[1]);
    assert_int_equal(open_side(&w, &w.sides[1], true), 0);
    bury(&w.sides[0]);
    dev_close(w.disk);
    w.disk = old;
    assert_int_equal(store_take(w.sides[1].store, 0), -ESTALE);
    assert_int_equal(store_where(w.sides[1].store), STORE_INCOMING);
    assert_int_equal(w.owner, NOBODY);
    end(&w);
}

/* Creates or changes the file in the middle block of a directory of three, in one commit. */
static void
set_mode(struct store *s, uint32_t mode)
{
    struct change changes[MANY];
    char names[MANY][4];
    struct entry e;
    size_t n = 0;

    for (unsigned i = 0; i < MANY; i++) {
        bool there;

        snprintf(names[i], sizeof names[i], "f%02u", i);
        there = store_find(s, names[i], &e) == 0;
        if (there && i != MANY / 2)
            continue;
        changes[n] = (struct change){.op = CHANGE_FILE, .name = names[i], .attr = {.mode = mode}};
        changes[n].id = there ? e.id : store_new_id(s);
        changes[n].slot = e.slot;
        if (!there)
            assert_int_equal(store_slot_take(s, 0, NULL, &changes[n].slot), 0);
        n++;
    }
    assert_int_equal(store_commit(s, changes, n, NULL), 0);
}

/* What the one who comes back has once written to a directory's place lies there no more, though
 * he would write the same again. */
static void
who_comes_back_does_not_know_what_lies_there(void **state)
{
    struct dev *small = blank;
    uint32_t modes[] = {0600, 0600, 0600, 0640, 0640, 0640, 0600};
    struct store *a, *b;
    struct entry e;
    struct world w;

    (void)state;
    blank = new_disk(4 + MANY);
    begin(&w);
    dev_close(blank);
    blank = small;
    a = w.sides[0].store;
    b = w.sides[1].store;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        bool mine = i < 3 || i > 5;

        if (i == 3 || i == 6) {
            assert_int_equal(store_release(mine ? b : a, true), 0);
            assert_int_equal(store_take(mine ? a : b, 0), 0);
        }
        set_mode(mine ? a : b, modes[i]);
    }
    w.generation = generation_of(a);
    bury(&w.sides[0]);
    assert_int_equal(open_side(&w, &w.sides[0], false), 0);
    assert_int_equal(generation_of(w.sides[0].store), w.generation);
    assert_int_equal(store_find(w.sides[0].store, "f30", &e), 0);
    assert_int_equal(e.attr.mode, 0600);
    end(&w);
}

static void
a_disk_that_cannot_be_handed_over_is_kept(void **state)
{
    const struct store_options opt = {.unlock = testseal_unlock};
    struct store *s;

    (void)state;
    assert_int_equal(store_open(&s, faultdev_fork(blank), &opt), 0);
    assert_int_equal(store_release(s, false), -EOPNOTSUPP);
    assert_int_equal(store_where(s), STORE_HERE);
    assert_int_equal(commit_value(s, 1), 0);
    store_close(s);
}

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

static int
make_blank(void **state)
{
    (void)state;
    report_set_sink(silent, NULL);
    blank = new_disk(2);
    return 0;
}

static int
drop_blank(void **state)
{
    (void)state;
    dev_close(blank);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_let_go_comes_back_if_unchanged),
        cmocka_unit_test(what_was_let_go_and_changed_does_not_come_back),
        cmocka_unit_test(contents_before_and_images_are_there_meanwhile),
        cmocka_unit_test(who_waits_takes_no_older_image),
        cmocka_unit_test(who_comes_back_does_not_know_what_lies_there),
        cmocka_unit_test(a_disk_that_cannot_be_handed_over_is_kept),
        cmocka_unit_test(never_two_writers_and_nothing_lost),
    };

    return cmocka_run_group_tests(tests, make_blank, drop_blank);
}
