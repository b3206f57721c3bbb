/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores of several hosts on one disk, each of which may pause before any operation on it for as
 * long as the others like: whatever was acknowledged is there, or damage is found.
 * tests/owner_model.py is the same as a model, with more of what a disk may do.
 *
 * Each host is a thread, and one of them runs at a time: until the plan of the run lets another
 * one, in front of an operation on the disk.  All plans of a few switches are tried, then longer
 * ones by chance (VNVRAM_TEST_SCALE multiplies these).
 *
 * Each commit writes a number above all others, in the file and as its time; the one that it goes
 * on from is remembered.  G1, G2 and G3 are those of doc/design.md. */
#include "base/report.h"
#include "base/scope.h"
#include "core/store.h"
#include "tests/faultdev.h"
#include "tests/testimage.h"
#include "tests/testseal.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HOSTS = 3, STEPS = 24, NUMBERS = 64, CONTENT = 5000, SENT_MAX = 4, FOR_GOOD = 1 << 30 };

/* ---- the world ---------------------------------------------------------------------------------
 */

/* A write on its way. */
struct sent {
    const void *buf;
    size_t n;
    uint64_t off;
};

struct host {
    struct dev dev; /* its port to the disk */
    struct sent sent[SENT_MAX];
    unsigned n_sent;
    unsigned id;
    struct owner_options who;
    const char *script;
    struct store *s;
    unsigned number; /* of the state that it shows */
    pthread_t thread;
    sem_t go;
    bool present, done;
    bool busy;     /* within an operation of the store */
    bool overtake; /* it takes the image from others */
    bool fences;   /* who else is there must not write any more when its claim is made */
    bool dead;     /* nothing that it does has any effect */
    bool dying;    /* nothing after the write that it is about to make */
    unsigned operations;
};

/* Runs @host for @operations. */
struct turn {
    unsigned host;
    unsigned operations;
    bool kills; /* and then never again, but for a write on its way */
};

enum fencing { NOT_FENCED, FENCED, FENCED_AND_TOLD };

static struct {
    struct dev *disk;
    struct host hosts[HOSTS];
    struct turn turns[STEPS];
    unsigned n_turns, turn, left;
    bool free; /* no plan: operations do not switch */
    bool cuts; /* look after each write, too */
    sem_t over;
    enum fencing fencing;
    unsigned parent[NUMBERS], numbers;
    unsigned told; /* the last number that was acknowledged or shown */
    bool strays;   /* somebody was overtaken while it was writing */
    char wrong[256];
    uint64_t random;
} world;

static uint64_t runs, looks, damaged, acknowledged, refused;

static uint64_t
draw(uint64_t below)
{
    world.random = world.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (world.random >> 33) % below;
}

static void __attribute__((format(printf, 1, 2))) wrong(const char *what, ...)
{
    va_list ap;

    if (world.wrong[0])
        return;
    va_start(ap, what);
    vsnprintf(world.wrong, sizeof world.wrong, what, ap);
    va_end(ap);
}

static void
hear(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

static bool
descends(unsigned number, unsigned from)
{
    while (number > from)
        number = world.parent[number];
    return number == from;
}

static void
tell(const struct host *h, unsigned number)
{
    if (!descends(number, world.told))
        wrong("G1: host %u shows or acknowledges %u after %u", h->id, number, world.told);
    world.told = number;
}

/* ---- what an opener would read -----------------------------------------------------------------
 */

static const struct slot_class some_slots[] = {{3, 8192}};

static void
fill(uint8_t *buf, unsigned number)
{
    for (unsigned i = 0; i < CONTENT; i++)
        buf[i] = (uint8_t)(number + i / 100);
}

/* The number that the store shows; 0: no file yet.  Also compares the content. */
static unsigned
number_of(struct store *s, bool read)
{
    uint8_t buf[CONTENT], want[CONTENT];
    struct entry e;
    unsigned number;

    if (store_find(s, "f", &e) < 0)
        return 0;
    number = (unsigned)e.attr.mtime.tv_sec;
    fill(want, number);
    if (read && (e.current.length != CONTENT || store_read(s, &e.current, buf) < 0 ||
                 memcmp(buf, want, CONTENT) != 0))
        wrong("G2: %u is mixed with something else", number);
    return number;
}

/* Takes over @disk. */
static void
look_at(struct dev *disk)
{
    const struct store_options opt = {.read_only = true, .unlock = testseal_unlock};
    struct store *s;
    int r = store_open(&s, disk, &opt);

    looks++;
    if (r == 0) {
        unsigned number = number_of(s, true);

        if (!descends(number, world.told))
            wrong("G2: %u is read, %u was acknowledged", number, world.told);
        store_close(s);
        return;
    }
    dev_close(disk);
    damaged++;
    if (r != -EUCLEAN)
        wrong("error %d instead of damage", r);
    else if (world.fencing != NOT_FENCED)
        wrong("G3: damage, although former owners are fenced off");
    else if (!world.strays)
        wrong("G2: damage, and nobody was overtaken while it was writing");
}

/* @last: of all that was not flushed one sector of the last write is left; else as chance will have
 * it.
 */
static void
look_after_a_power_cut(bool last)
{
    size_t n = faultdev_pending(world.disk);
    uint8_t masks[256] = {0};

    if (last && n > 0)
        masks[n - 1] = 1;
    for (size_t i = 0; !last && i < n; i++)
        masks[i] = draw(3) ? (draw(2) ? WHOLE : 0) : (uint8_t)draw(256);
    look_at(faultdev_cut(world.disk, masks));
}

/* ---- taking turns ------------------------------------------------------------------------------
 */

/* Lets whoever is next go on; false: all are done. */
static bool
next_turn(const struct host *from)
{
    struct host *to = NULL;

    look_at(faultdev_fork(world.disk));
    if (draw(4) == 0)
        look_after_a_power_cut(false);
    while (!to && world.turn < world.n_turns) {
        const struct turn *t = &world.turns[world.turn++];

        world.left = t->operations;
        if (world.hosts[t->host].present && !world.hosts[t->host].done && t->operations > 0)
            to = &world.hosts[t->host];
    }
    for (unsigned i = 0; !to && i < HOSTS; i++) {
        world.left = FOR_GOOD;
        if (world.hosts[i].present && !world.hosts[i].done)
            to = &world.hosts[i];
    }
    if (to && to != from)
        sem_post(&to->go);
    return to != NULL && to != from;
}

/* In front of each operation on the disk that matters. */
static void
may_pause(struct host *h)
{
    h->operations++;
    if (world.free || h->dead)
        return;
    if (world.left-- > 0)
        return;
    if (world.turn > 0 && world.turns[world.turn - 1].kills) {
        h->dying = true;
        h->busy = true;
    }
    if (next_turn(h)) {
        sem_wait(&h->go);
    }
    world.left--;
}

static void
kill_host(struct host *h)
{
    h->dead = true;
}

/* ---- a port ------------------------------------------------------------------------------------
 */

static int
port_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct host *h = (struct host *)d;

    if (off == OWNER_RECORDS || off >= FIRST_DIRECTORY)
        may_pause(h);
    if (h->dying)
        kill_host(h);
    return h->dead ? -EIO : world.disk->ops->pread(world.disk, buf, n, off);
}

/* A host that dies while it writes leaves some of the sectors. */
static int
write_torn(const void *buf, size_t n, uint64_t off)
{
    uint8_t block[BLOCK_SIZE];

    for (size_t i = 0; i < n; i += BLOCK_SIZE) {
        world.disk->ops->pread(world.disk, block, BLOCK_SIZE, off + i);
        for (int k = 0; k < SECTORS; k++)
            if (draw(2))
                memcpy(block + k * SECTOR_SIZE, (const uint8_t *)buf + i + k * SECTOR_SIZE,
                       SECTOR_SIZE);
        world.disk->ops->pwrite(world.disk, block, BLOCK_SIZE, off + i);
    }
    return -EIO;
}

static void
note_overtaking(const struct host *by)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        const struct host *h = &world.hosts[i];

        if (by->overtake && world.fencing == NOT_FENCED && h != by && h->present && h->busy &&
            !h->dead && !h->done)
            world.strays = true;
    }
}

/* Nothing of theirs lands any more, unlike when they die by themselves. */
static void
fence(const struct host *by)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        struct host *h = &world.hosts[i];

        if (h == by || !h->present)
            continue;
        kill_host(h);
        h->dying = false;
    }
}

static int
port_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct host *h = (struct host *)d;

    may_pause(h);
    if (h->dead)
        return -EIO;
    if (off == OWNER_RECORDS || off == OWNER_RECORDS + BLOCK_SIZE)
        note_overtaking(h);
    if (h->fences)
        fence(h);
    h->fences = false;
    if (h->dying) {
        kill_host(h);
        return draw(2) ? -EIO : write_torn(buf, n, off);
    }
    world.disk->ops->pwrite(world.disk, buf, n, off);
    if (world.cuts)
        look_after_a_power_cut(true);
    return 0;
}

/* They reach the disk in any order, and others may go on in between.  Of a host that dies meanwhile
 * each is there, in part, or not. */
static int
port_wait(struct dev *d)
{
    struct host *h = (struct host *)d;
    int r = 0;

    while (h->n_sent > 0) {
        unsigned i = (unsigned)draw(h->n_sent);
        const struct sent w = h->sent[i];
        bool lived = !h->dead;
        int e;

        h->sent[i] = h->sent[--h->n_sent];
        e = port_pwrite(d, w.buf, w.n, w.off);
        if (lived && h->dead && h->dying)
            for (unsigned k = 0; k < h->n_sent; k++)
                if (draw(2))
                    write_torn(h->sent[k].buf, h->sent[k].n, h->sent[k].off);
        r = r < 0 ? r : e;
    }
    return r;
}

static int
port_submit(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct host *h = (struct host *)d;
    int r = h->n_sent == SENT_MAX ? port_wait(d) : 0;

    if (r == 0)
        h->sent[h->n_sent++] = (struct sent){buf, n, off};
    return r;
}

static int
port_sync(struct dev *d)
{
    struct host *h = (struct host *)d;

    may_pause(h);
    if (h->dying)
        kill_host(h);
    return h->dead ? -EIO : world.disk->ops->sync(world.disk);
}

static int
port_medium(struct dev *d, bool on)
{
    (void)d, (void)on;
    return 0;
}

static void
port_close(struct dev *d)
{
    (void)d;
}

static void
port_release(struct dev *d)
{
    (void)d;
}

static int
port_take(struct dev *d, unsigned wait_ms)
{
    (void)wait_ms;
    d->read_only = false;
    return 0;
}

static const struct dev_ops port_ops = {
    .pread = port_pread,
    .pwrite = port_pwrite,
    .sync = port_sync,
    .submit = port_submit,
    .wait = port_wait,
    .medium = port_medium,
    .close = port_close,
    .release = port_release,
    .take = port_take,
};

/* ---- what a host does --------------------------------------------------------------------------
 */

static void
do_open(struct host *h, bool takeover)
{
    struct store_options opt = {.unlock = testseal_unlock, .owner = &h->who};

    if (h->s)
        return;
    h->dead = h->dying = false; /* it was started anew */
    h->dev = (struct dev){
        .ops = &port_ops, .size = world.disk->size, .shared = true, .name = (char *)"disk"};
    h->who.takeover = h->overtake = takeover;
    h->who.fenced = takeover && world.fencing == FENCED_AND_TOLD;
    h->fences = takeover && world.fencing != NOT_FENCED;
    if (store_open(&h->s, &h->dev, &opt) < 0) {
        h->s = NULL;
        refused++;
        return;
    }
    h->number = number_of(h->s, false);
    tell(h, h->number);
}

static void
do_put(struct host *h)
{
    uint8_t buf[CONTENT];
    unsigned number = world.numbers + 1;
    struct change c = {.op = CHANGE_FILE,
                       .name = "f",
                       .has_content = true,
                       .data = buf,
                       .len = CONTENT,
                       .attr = {.mode = 0600, .mtime = {.tv_sec = number}}};
    struct entry e;

    if (!h->s || number >= NUMBERS || store_find(h->s, "f", &e) < 0)
        return;
    world.numbers++;
    c.id = e.id;
    c.slot = e.slot;
    fill(buf, number);
    world.parent[number] = h->number;
    if (store_commit(h->s, &c, 1, NULL) < 0)
        return;
    acknowledged++;
    h->number = number;
    tell(h, number);
}

static void
do_take_back(struct host *h)
{
    if (!h->s || store_where(h->s) == STORE_HERE || store_take(h->s, 0) < 0)
        return;
    if (number_of(h->s, false) != h->number)
        wrong("G1: host %u took another state back than it had let go", h->id);
    tell(h, h->number);
}

static void
do_one(struct host *h, char what)
{
    h->busy = true;
    switch (what) {
    case 'o':
    case 'O':
        do_open(h, what == 'O');
        break;
    case 'p':
        do_put(h);
        break;
    case 's':
        if (h->s)
            store_settle(h->s);
        break;
    case 'r':
        if (h->s)
            store_release(h->s, false);
        break;
    case 't':
        do_take_back(h);
        break;
    default:
        store_close(h->s);
        h->s = NULL;
    }
    h->busy = false;
}

static void *
live(void *arg)
{
    struct host *h = arg;

    sem_wait(&h->go);
    for (const char *what = h->script; *what; what++)
        do_one(h, *what);
    do_one(h, 'c');
    h->done = true;
    if (!next_turn(h))
        sem_post(&world.over);
    return NULL;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

/* Before the plan begins host 0 does @before; then each does its @scripts. */
struct scene {
    const char *name, *before, *scripts[HOSTS];
    enum fencing fencing;
    bool cuts;
};

static struct dev *blank_disk; /* with one file, of number 0 */

static void
make_disk(void)
{
    const struct format_spec spec = {.classes = some_slots, .n_classes = 1};
    const struct store_options opt = {.unlock = testseal_unlock};
    uint8_t buf[CONTENT];
    struct change c = {.op = CHANGE_FILE,
                       .name = "f",
                       .has_content = true,
                       .data = buf,
                       .len = CONTENT,
                       .attr = {.mode = 0600}};
    char name[256] = "";
    struct dev *d = testimage_new(&spec, 0, 0);
    struct store *s;

    assert_int_equal(store_open(&s, d, &opt), 0);
    fill(buf, 0);
    for (int i = 0; i < 2; i++) {
        memset(name, 'x', 250); /* so that the entry of the other one is in another sector than */
        c.name = i == 0 ? name : "f"; /* the directory's header */
        assert_int_equal(store_slot_take(s, CONTENT, c.name, &c.slot), 0);
        c.id = store_new_id(s);
        assert_int_equal(store_commit(s, &c, 1, NULL), 0);
    }
    assert_int_equal(store_settle(s), 0);
    blank_disk = faultdev_fork(d);
    store_close(s);
}

static void
begin(const struct scene *sc)
{
    uint64_t seed = world.random;

    memset(&world, 0, sizeof world);
    world.random = seed;
    world.fencing = sc->fencing;
    world.disk = faultdev_fork(blank_disk);
    sem_init(&world.over, 0, 0);
    for (unsigned i = 0; i < HOSTS; i++) {
        struct host *h = &world.hosts[i];

        h->id = i;
        h->script = sc->scripts[i];
        h->present = h->script != NULL;
        h->who = (struct owner_options){.host_id = {(uint8_t)(i + 1)},
                                        .boot_id = {(uint8_t)(i + 1)},
                                        .host_name = {(char)('a' + i)}};
        sem_init(&h->go, 0, 0);
    }
    world.free = true;
    for (const char *what = sc->before; *what; what++)
        do_one(&world.hosts[0], *what);
    world.free = false;
    world.cuts = sc->cuts;
}

static void
explain(const struct scene *sc)
{
    print_message("%s, fencing %d: %s\n", sc->name, (int)world.fencing, world.wrong);
    for (unsigned i = 0; i < world.n_turns; i++)
        print_message("  host %u: %u operations%s\n", world.turns[i].host,
                      world.turns[i].operations, world.turns[i].kills ? ", then it dies" : "");
}

/* One run of @turns; tells how many operations each host made, if @operations. */
static void
run(const struct scene *sc, const struct turn *turns, unsigned n, unsigned *operations)
{
    begin(sc);
    memcpy(world.turns, turns, n * sizeof *turns);
    world.n_turns = n;
    for (unsigned i = 0; i < HOSTS; i++) {
        world.hosts[i].operations = 0;
        if (world.hosts[i].present)
            assert_int_equal(pthread_create(&world.hosts[i].thread, NULL, live, &world.hosts[i]),
                             0);
    }
    if (next_turn(NULL))
        sem_wait(&world.over);
    for (unsigned i = 0; i < HOSTS; i++) {
        if (world.hosts[i].present)
            pthread_join(world.hosts[i].thread, NULL);
        if (operations)
            operations[i] = world.hosts[i].operations;
        sem_destroy(&world.hosts[i].go);
    }
    look_at(faultdev_fork(world.disk));
    look_after_a_power_cut(false);
    dev_close(world.disk);
    sem_destroy(&world.over);
    runs++;
    if (world.wrong[0]) {
        explain(sc);
        fail();
    }
}

/* Whether this many runs are enough for now. */
static unsigned
scale(void)
{
    const char *s = getenv("VNVRAM_TEST_SCALE");

    return s && atoi(s) > 1 ? (unsigned)atoi(s) : 1;
}

static bool
is_quick(void)
{
    return getenv("VNVRAM_QUICK") != NULL;
}

/* Plans in which host 0 runs, host 1 runs, host 0 runs again, host 1 ends, host 0 ends: all of
 * them, or each third. */
static void
try_all(const struct scene *sc)
{
    unsigned most[HOSTS], other[HOSTS], stride = is_quick() ? 7 : scale() > 1 ? 1 : 3;
    const struct turn first[] = {{.host = 0, .operations = FOR_GOOD}};
    const struct turn second[] = {{.host = 1, .operations = FOR_GOOD}};

    run(sc, second, 1, most);
    run(sc, first, 1, other);
    most[0] = other[0];
    for (unsigned i = 0; i <= most[0]; i++)
        for (unsigned j = 1; j <= most[1]; j++)
            for (unsigned k = (i + j) % stride; i + k <= most[0]; k += stride) {
                const struct turn turns[] = {{0, i, false},
                                             {1, j, false},
                                             {0, k, false},
                                             {1, FOR_GOOD, false},
                                             {0, FOR_GOOD, false}};

                run(sc, turns, 5, NULL);
            }
}

static void
say_how_many(void)
{
    print_message("%" PRIu64 " histories, %" PRIu64 " states looked at, %" PRIu64
                  " of them damaged; %" PRIu64 " commits acknowledged, %" PRIu64
                  " takings refused\n",
                  runs, looks, damaged, acknowledged, refused);
}

static void
a_host_is_overtaken_at_any_moment(void **state)
{
    (void)state;
    for (int f = NOT_FENCED; f <= FENCED_AND_TOLD; f++) {
        const struct scene sc = {"takeover", "op", {"pc", "Opc"}, (enum fencing)f, false};

        try_all(&sc);
    }
    say_how_many();
}

/* A former owner may have written, and not flushed, what a taker reads, and then writes over what
 * was before. */
static void
what_was_read_outlives_a_power_cut(void **state)
{
    const struct scene sc = {"power cut", "op", {"pc", "Opc"}, NOT_FENCED, true};

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 1; j < 16; j++)
            for (unsigned k = 0; k < 5; k++) {
                const struct turn turns[] = {
                    {0, i, false}, {1, j, false}, {0, k, false}, {1, FOR_GOOD, false}};

                run(&sc, turns, 4, NULL);
            }
    say_how_many();
}

static void
two_hosts_take_what_is_free_at_once(void **state)
{
    const struct scene sc = {"at once", "", {"opc", "opc"}, NOT_FENCED, false};

    (void)state;
    try_all(&sc);
    say_how_many();
}

static void
an_image_goes_to_another_host_and_is_taken_back(void **state)
{
    const struct scene sc = {"hand-over", "op", {"rtp", "op"}, NOT_FENCED, false};

    (void)state;
    try_all(&sc);
    say_how_many();
}

static const char *
any_script(char *to, bool first)
{
    static const char *const steps[] = {"p", "p", "p", "s", "c", "o", "O", "rt", "cop"};
    char *p = to + sprintf(to, "%s", first ? "" : draw(2) ? "O" : "o");

    for (unsigned n = 2 + (unsigned)draw(5); n > 0; n--)
        p += sprintf(p, "%s", steps[draw(sizeof steps / sizeof steps[0])]);
    return to;
}

static void
hosts_do_what_they_like(void **state)
{
    unsigned n = (is_quick() ? 1000 : 3000) * scale();
    const char *seed = getenv("TWO_HOSTS_SEED");

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        char scripts[HOSTS][64];
        struct turn turns[STEPS];
        struct scene sc = {.name = "by chance", .before = "op"};
        unsigned n_turns;

        world.random = (seed ? strtoull(seed, NULL, 0) : 1) * 1000003 + i;
        draw(2);
        n_turns = 2 + (unsigned)draw(STEPS - 2);
        for (unsigned h = 0; h < 2 + draw(2); h++)
            sc.scripts[h] = any_script(scripts[h], h == 0);
        sc.fencing = (enum fencing)draw(3);
        for (unsigned t = 0; t < n_turns; t++)
            turns[t] = (struct turn){(unsigned)draw(HOSTS), 1 + (unsigned)draw(draw(2) ? 8 : 60),
                                     draw(12) == 0};
        run(&sc, turns, n_turns, NULL);
    }
    say_how_many();
}

#define T(name) cmocka_unit_test(name)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_host_is_overtaken_at_any_moment),
        T(what_was_read_outlives_a_power_cut),
        T(two_hosts_take_what_is_free_at_once),
        T(an_image_goes_to_another_host_and_is_taken_back),
        T(hosts_do_what_they_like),
    };
    int r;

    cmocka_set_message_output(CM_OUTPUT_TAP);
    report_set_sink(hear, NULL);
    make_disk();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    dev_close(blank_disk);
    return r;
}
