/* SPDX-License-Identifier: BSD-3-Clause */
/* Promise 2, exhaustively: whatever a crash leaves of an image, the next mount shows exactly a
 * state that was committed, no older than the last acknowledged one; and what it has shown stays.
 *
 * Sequences of commits run on a device double (faultdev.h).  Before each flush, every state that a
 * power cut, the death of the daemon or a failed flush could leave is opened with store_open() and
 * compared with the model below; from the states that are not torn inside a block, further commits
 * crash again.  `test_crash SEED` reproduces the random part of a run; with VNVRAM_QUICK in the
 * environment it takes seconds and promises less. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store.h"
#include "tests/faultdev.h"
#include "tests/testimage.h"
#include "tests/testseal.h"
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* ---- what is tried -----------------------------------------------------------------------------
 */

enum { NAMES = 3, CAPACITY = BLOCK_SIZE, FILLERS = 19, MAX_PATH = 8 };
/* Writes in one flush: at most so many, and up to here all subsets are tried. */
enum { MAX_PENDING = 64, ALL_SUBSETS = 7 };
static const char *const names[NAMES] = {"a", "b", "t"};

enum op_kind {
    OP_WRITE,        /* x: create or overwrite */
    OP_EMPTY,        /* x is written empty */
    OP_WRITE_BOTH,   /* x and y in one commit */
    OP_RENAME,       /* x takes y's name */
    OP_WRITE_RENAME, /* x's bytes and its rename in one commit */
    OP_EXCHANGE,     /* x and y */
    OP_UNLINK,       /* x */
    OP_MOVE,         /* x outgrows its slot */
    OP_MOVE_WRITE,   /* x moves, y is written, in one commit */
    OP_CHMOD,        /* x: attributes only */
    OP_ROOT,         /* the root's attributes */
    OP_SETTLE,
    OP_KEYSLOTS, /* other key slots; sealed images only */
    OP_RESEAL,   /* another volume key */
};

struct op {
    enum op_kind kind;
    int x, y;
    uint32_t stamp; /* new content: stamp for x, stamp + 1 for y */
};

enum { A, B, T };
enum { EMPTY = 0x10000 }; /* in a stamp: a content without bytes */
static const struct op all_ops[] = {
    {OP_WRITE, A, 0, 0},        {OP_WRITE, T, 0, 0},    {OP_EMPTY, A, 0, 0},
    {OP_RENAME, T, A, 0},       {OP_UNLINK, A, 0, 0},   {OP_MOVE, A, 0, 0},
    {OP_MOVE_WRITE, A, B, 0},   {OP_EXCHANGE, A, T, 0}, {OP_WRITE_BOTH, A, T, 0},
    {OP_WRITE_RENAME, T, A, 0}, {OP_RENAME, A, B, 0},   {OP_CHMOD, A, 0, 0},
    {OP_ROOT, 0, 0, 0},         {OP_SETTLE, 0, 0, 0},   {OP_KEYSLOTS, 0, 0, 0},
    {OP_RESEAL, 0, 0, 0},
};
enum { N_OPS = sizeof all_ops / sizeof all_ops[0] };

/* ---- one run -----------------------------------------------------------------------------------
 */

enum crash {
    CUT,
    TORN,
    RANDOM,
    KILLED,
    FLUSH_FAILED,
    RECOVERY,
    SECOND,
    ACKNOWLEDGED,
    SHOWN,
    CRASHES
};
static const char *const crash_names[CRASHES] = {
    "power cuts between blocks",
    "blocks torn in one way",
    "random sectors",
    "killed daemons",
    "failed flushes",
    "crashes while recovering",
    "second crashes",
    "cuts after acknowledgements",
    "cuts after a mount",
};

struct plan {
    int torn_levels;  /* how many crashes of a path also tear blocks */
    int random;       /* random sector subsets per flush */
    int second_depth; /* commits to try after a first crash; the last one crashes again */
    int second_path;  /* only behind paths of at most so many commits */
};

static struct {
    uint64_t seed, rng;
    const uint64_t *key; /* NULL: not sealed */
    unsigned long states[CRASHES];
    unsigned long recovered, kept_old, kept_new;
    struct plan plan;
    uint32_t slots;   /* for the model's files */
    uint32_t fillers; /* files besides those of the model */
    size_t fewest;    /* blocks that any commit wrote, of those that were crashed */
    int level;        /* crashes so far on this path */
    char path[2048];
} run;

/* ---- the model ---------------------------------------------------------------------------------
 */

struct file {
    uint32_t value;  /* what content it has; 0: there is no such file */
    uint32_t attr;   /* changes with each attribute change */
    uint32_t before; /* what the name held before, where a mount may still tell; 0: nothing */
};

struct view {
    struct file file[NAMES];
    uint32_t root;
    uint32_t keys; /* which key slots are in force */
};

/* Some contents are empty, some fill the slot, many are of one length: a commit that was lost and
 * then done again must not be told by the length alone. */
static uint32_t
value_length(uint32_t value)
{
    if (value & EMPTY)
        return 0;
    return value % 8 == 4 ? CAPACITY : 100 + value / 8 * 1300 % 3900;
}

static void
value_fill(uint32_t value, uint8_t *buf)
{
    uint32_t len = value_length(value);
    uint64_t word = value * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (uint32_t i = 0; i < len; i += 8, word += UINT64_C(0x0101010101010101)) {
        uint8_t bytes[8];

        store_le64(bytes, word);
        memcpy(buf + i, bytes, len - i < 8 ? len - i : 8);
    }
}

static uint32_t
count_files(const struct view *v)
{
    uint32_t n = 0;

    for (int i = 0; i < NAMES; i++)
        n += v->file[i].value != 0;
    return n;
}

static bool
op_is_legal(const struct op *op, const struct view *v)
{
    bool x = v->file[op->x].value != 0, y = v->file[op->y].value != 0;

    switch (op->kind) {
    case OP_WRITE:
    case OP_EMPTY:
    case OP_WRITE_BOTH:
    case OP_ROOT:
    case OP_SETTLE:
        return true;
    case OP_RENAME:
    case OP_WRITE_RENAME:
    case OP_UNLINK:
    case OP_CHMOD:
        return x;
    case OP_MOVE:
        return x && count_files(v) + 1 <= run.slots;
    case OP_MOVE_WRITE:
        return x && count_files(v) + 1 + !y <= run.slots;
    case OP_EXCHANGE:
        return x && y;
    case OP_KEYSLOTS:
    case OP_RESEAL:
        return run.key != NULL;
    }
    return false;
}

/* What a name held before, once it holds something else: an empty content counts as none. */
static uint32_t
model_before(const struct file *f)
{
    return f->value != 0 && value_length(f->value) ? f->value : f->before;
}

static void
model_put(struct file *f, uint32_t value)
{
    *f = (struct file){value, value, model_before(f)};
}

static void
model_rename(struct file *x, struct file *y)
{
    uint32_t before = model_before(y);

    *y = *x;
    if (before != 0)
        y->before = before;
    *x = (struct file){0};
}

static void
model_apply(struct view *v, const struct op *op)
{
    struct file *x = &v->file[op->x], *y = &v->file[op->y];

    switch (op->kind) {
    case OP_WRITE:
    case OP_MOVE:
        model_put(x, op->stamp);
        break;
    case OP_EMPTY:
        model_put(x, op->stamp | EMPTY);
        break;
    case OP_WRITE_BOTH:
    case OP_MOVE_WRITE:
        model_put(x, op->stamp);
        model_put(y, op->stamp + 1);
        break;
    case OP_WRITE_RENAME:
        model_put(x, op->stamp);
        model_rename(x, y);
        break;
    case OP_RENAME:
        model_rename(x, y);
        break;
    case OP_EXCHANGE: {
        const struct file was = *x;

        *x = *y;
        *y = was;
        break;
    }
    case OP_UNLINK:
        model_put(x, 0);
        break;
    case OP_CHMOD:
        x->attr = op->stamp;
        break;
    case OP_ROOT:
        v->root = op->stamp;
        break;
    case OP_KEYSLOTS:
    case OP_RESEAL:
        v->keys = op->stamp;
        break;
    case OP_SETTLE:
        break;
    }
}

/* Whether a mount that shows @got keeps the promises to @want: all files alike, and of previous
 * contents the right one or none. */
static bool
view_keeps(const struct view *got, const struct view *want)
{
    for (int i = 0; i < NAMES; i++) {
        const struct file *g = &got->file[i], *w = &want->file[i];

        if (g->value != w->value || g->attr != w->attr ||
            (g->before != 0 && g->before != w->before))
            return false;
    }
    return got->root == want->root && got->keys == want->keys;
}

/* ---- one run -----------------------------------------------------------------------------------
 */

static uint32_t
random_bits(void)
{
    run.rng = run.rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(run.rng >> 32);
}

static size_t path_push(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static size_t
path_push(const char *fmt, ...)
{
    size_t was = strlen(run.path);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(run.path + was, sizeof run.path - was, fmt, ap);
    va_end(ap);
    return was;
}

static void
path_pop(size_t was)
{
    run.path[was] = '\0';
}

static void
path_push_op(const struct op *op)
{
    static const char *const verbs[] = {
        [OP_WRITE] = "write",
        [OP_EMPTY] = "empty",
        [OP_WRITE_BOTH] = "write",
        [OP_RENAME] = "rename",
        [OP_WRITE_RENAME] = "write+rename",
        [OP_EXCHANGE] = "exchange",
        [OP_UNLINK] = "unlink",
        [OP_MOVE] = "move",
        [OP_MOVE_WRITE] = "move+write",
        [OP_CHMOD] = "chmod",
        [OP_ROOT] = "root",
        [OP_SETTLE] = "settle",
        [OP_KEYSLOTS] = "keyslots",
        [OP_RESEAL] = "reseal",
    };
    bool two = op->kind == OP_WRITE_BOTH || op->kind == OP_RENAME || op->kind == OP_WRITE_RENAME ||
               op->kind == OP_EXCHANGE || op->kind == OP_MOVE_WRITE;

    path_push("; %s %s%s%s", verbs[op->kind], op->kind >= OP_ROOT ? "" : names[op->x],
              two ? " " : "", two ? names[op->y] : "");
}

static void
path_push_view(const char *what, const struct view *v)
{
    path_push("\n  %s:", what);
    for (int i = 0; i < NAMES; i++)
        path_push(" %s=%" PRIu32 "/%" PRIu32 " before %" PRIu32, names[i], v->file[i].value,
                  v->file[i].attr, v->file[i].before);
    path_push(" root=%" PRIu32 " keys=%" PRIu32, v->root, v->keys);
}

/* ---- the store, driven by operations ------------------------------------------------------------
 */

static struct file_attr
attr_of(uint32_t attr, uint32_t value)
{
    return (struct file_attr){.mode = 0600, .uid = attr, .gid = value};
}

/* Reads a content into one number; 0 when it has been reused. */
static uint32_t
read_value(struct store *s, const struct content *c, uint32_t expected, bool previous)
{
    static uint8_t buf[CAPACITY], want[CAPACITY];
    int r;

    if (c->length > CAPACITY)
        fail_msg("content of %" PRIu64 " bytes after%s", c->length, run.path);
    r = store_read(s, c, buf);
    if ((r == -ESTALE || r == -EUCLEAN) && previous)
        return 0; /* written over since, or by a commit that was cut short */
    if (r < 0)
        fail_msg("a content does not read: %d, after%s", r, run.path);
    value_fill(expected, want);
    if (c->length != value_length(expected) || memcmp(buf, want, c->length) != 0)
        fail_msg("a %s content is not %" PRIu32 ", after%s", previous ? "previous" : "current",
                 expected, run.path);
    return expected;
}

static void
read_file(struct store *s, int i, const struct view *hint, struct file *f)
{
    struct entry e;

    *f = (struct file){0};
    if (store_find(s, names[i], &e) == -ENOENT)
        return;
    if (e.kind == ENTRY_FILE) {
        f->value = e.attr.gid; /* the content must be what the attributes say */
        f->attr = e.attr.uid;
        if (e.current.generation)
            read_value(s, &e.current, f->value, false);
        else if (value_length(f->value))
            fail_msg("%s lost its content, after%s", names[i], run.path);
    }
    if (e.previous.generation && hint)
        f->before = read_value(s, &e.previous, hint->file[i].before, true);
}

/* @hint tells which previous contents are right ones. */
static void
read_view(struct store *s, const struct view *hint, struct view *v)
{
    struct file_attr root;
    struct store_info info;

    for (int i = 0; i < NAMES; i++)
        read_file(s, i, hint, &v->file[i]);
    store_get_root(s, &root);
    v->root = root.uid;
    v->keys = load_le32(store_superblock(s)->keyslots[1]);
    store_get_info(s, &info);
    if (info.files != count_files(v) + run.fillers || info.slots_used != info.files)
        fail_msg("%" PRIu32 " files in %" PRIu32 " slots, after%s", info.files, info.slots_used,
                 run.path);
}

struct builder {
    struct store *s;
    struct change changes[3];
    size_t n;
    uint8_t data[2][CAPACITY];
    uint32_t held[2];
    int n_held, n_data;
};

static uint32_t
take_slot(struct builder *b, uint32_t size)
{
    uint32_t slot;
    int r = store_slot_take(b->s, size, NULL, &slot);

    if (r < 0)
        fail_msg("no slot: %d, after%s", r, run.path);
    b->held[b->n_held++] = slot;
    return slot;
}

static uint64_t
build_write(struct builder *b, int i, uint32_t value, bool move)
{
    struct change *c = &b->changes[b->n++];
    uint8_t *data = b->data[b->n_data++];
    struct entry e;
    bool exists = store_find(b->s, names[i], &e) == 0 && e.kind == ENTRY_FILE;

    value_fill(value, data);
    *c = (struct change){.op = CHANGE_FILE,
                         .name = names[i],
                         .has_content = true,
                         .data = data,
                         .len = value_length(value),
                         .attr = attr_of(value, value)};
    c->id = exists ? e.id : store_new_id(b->s);
    c->slot = exists && !move ? e.slot : take_slot(b, value_length(value));
    return c->id;
}

static struct entry
must_find(struct builder *b, int i)
{
    struct entry e;

    if (store_find(b->s, names[i], &e) < 0 || e.kind != ENTRY_FILE)
        fail_msg("%s is not there, after%s", names[i], run.path);
    return e;
}

static void
build(struct builder *b, const struct op *op)
{
    struct change *c;
    struct entry e;
    uint64_t id;

    switch (op->kind) {
    case OP_WRITE:
    case OP_MOVE:
        build_write(b, op->x, op->stamp, op->kind == OP_MOVE);
        break;
    case OP_EMPTY:
        build_write(b, op->x, op->stamp | EMPTY, false);
        break;
    case OP_WRITE_BOTH:
    case OP_MOVE_WRITE:
        build_write(b, op->x, op->stamp, op->kind == OP_MOVE_WRITE);
        build_write(b, op->y, op->stamp + 1, false);
        break;
    case OP_RENAME:
    case OP_WRITE_RENAME:
        id = op->kind == OP_RENAME ? must_find(b, op->x).id
                                   : build_write(b, op->x, op->stamp, false);
        b->changes[b->n++] = (struct change){.op = CHANGE_RENAME, .id = id, .name = names[op->y]};
        break;
    case OP_EXCHANGE:
        c = &b->changes[b->n++];
        *c = (struct change){.op = CHANGE_EXCHANGE};
        c->id = must_find(b, op->x).id;
        c->other = must_find(b, op->y).id;
        break;
    case OP_UNLINK:
        b->changes[b->n++] = (struct change){.op = CHANGE_UNLINK, .id = must_find(b, op->x).id};
        break;
    case OP_CHMOD:
        e = must_find(b, op->x);
        b->changes[b->n++] = (struct change){
            .op = CHANGE_FILE, .id = e.id, .slot = e.slot, .attr = attr_of(op->stamp, e.attr.gid)};
        break;
    case OP_ROOT:
        b->changes[b->n++] = (struct change){.op = CHANGE_ROOT, .attr = attr_of(op->stamp, 0)};
        break;
    case OP_SETTLE:
    case OP_KEYSLOTS:
    case OP_RESEAL:
        break; /* no changes */
    }
}

/* Key slots that tell @stamp; the user's key stays, and so does the volume key unless @volume is
 * given. */
static void
make_keyslots(struct store *s, uint64_t volume, uint32_t stamp,
              uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE])
{
    testseal_keyslots(volume ? volume : load_le64(store_superblock(s)->keyslots[0]), *run.key,
                      keyslots);
    store_le32(keyslots[1], stamp);
}

static int
perform_key_op(struct store *s, const struct op *op)
{
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];

    if (op->kind == OP_KEYSLOTS) {
        make_keyslots(s, 0, op->stamp, keyslots);
        return store_set_keyslots(s, keyslots);
    }
    make_keyslots(s, 1000 + op->stamp, op->stamp, keyslots);
    return store_reseal(s, testseal_keyed(1000 + op->stamp), keyslots, 32);
}

/* Runs one operation as one commit. */
static int
perform(struct store *s, const struct op *op)
{
    static struct builder b; /* its buffers are large, and one is enough */
    int r;

    b.s = s;
    b.n = 0;
    b.n_held = b.n_data = 0;
    if (op->kind == OP_SETTLE)
        return store_settle(s);
    if (op->kind == OP_KEYSLOTS || op->kind == OP_RESEAL)
        return perform_key_op(s, op);
    build(&b, op);
    r = store_commit(s, b.changes, b.n, NULL);
    for (int i = 0; i < b.n_held; i++)
        store_slot_drop(s, b.held[i]);
    return r;
}

static int
open_image(struct dev *d, bool read_only, struct store **s)
{
    const struct store_options opt = {.read_only = read_only,
                                      .unlock = testseal_unlock,
                                      .unlock_arg = (void *)(uintptr_t)run.key};

    return store_open(s, d, &opt);
}

static struct store *
must_open(struct dev *d, bool read_only)
{
    struct store *s = NULL;
    int r = open_image(d, read_only, &s);

    if (r < 0)
        fail_msg("nothing mounts: %d (seed %" PRIu64 "), after%s", r, run.seed, run.path);
    return s;
}

/* ---- judging a state ----------------------------------------------------------------------------
 */

/* What a mount may show: the state before the commit in flight, or the one after it. */
struct allowed {
    const struct view *old, *now;
};

static void explore(const struct dev *base, const struct view *start, uint32_t stamp, int depth);

/* The view of @s, which must be one of the two. */
static const struct view *
judge_view(struct store *s, const struct allowed *allowed)
{
    struct view got, plain;

    read_view(s, NULL, &plain);
    for (int i = 0; i < 2; i++) {
        const struct view *want = i ? allowed->old : allowed->now;
        struct view bare = *want;

        for (int k = 0; k < NAMES; k++)
            bare.file[k].before = 0;
        if (!view_keeps(&plain, &bare))
            continue;
        read_view(s, want, &got);
        if (view_keeps(&got, want))
            return want;
    }
    path_push_view("got", &plain);
    path_push_view("old", allowed->old);
    path_push_view("new", allowed->now);
    fail_msg("a state that nobody committed (seed %" PRIu64 "), after%s", run.seed, run.path);
    return NULL;
}

/* Takes @d, opens it, and tells which state it shows. */
static const struct view *
judge_mount(struct dev *d, const struct allowed *allowed, bool read_only)
{
    AUTO(store_closep) struct store *s = must_open(d, read_only);

    return judge_view(s, allowed);
}

/* Reading only: the same promise, and not one write. */
static void
judge_reading(const struct dev *d, const struct allowed *allowed)
{
    struct dev *copy = faultdev_fork(d);
    AUTO(store_closep) struct store *s = must_open(copy, true);

    judge_view(s, allowed);
    if (faultdev_count(copy, FAULT_WRITE) != 0)
        fail_msg("a reader wrote, after%s", run.path);
}

typedef void crash_fn(void *arg, enum crash how, struct dev *left); /* takes @left */

static void
each_kill(const struct dev *d, crash_fn *fn, void *arg)
{
    for (size_t n = 0; n <= faultdev_pending(d); n++)
        fn(arg, KILLED, faultdev_kill(d, n));
}

static void
try_subset(const struct dev *d, const uint8_t *masks, crash_fn *fn, void *arg)
{
    fn(arg, CUT, faultdev_cut(d, masks));
    fn(arg, FLUSH_FAILED, faultdev_flush_failed(d, masks));
}

/* Too many writes for all subsets: every prefix, every single one missing or present, random ones.
 */
static void
some_subsets(const struct dev *d, size_t n, crash_fn *fn, void *arg)
{
    uint8_t masks[MAX_PENDING];

    for (size_t k = 0; k <= n; k++) {
        for (int how = 0; how < 3; how++) {
            for (size_t i = 0; i < n; i++)
                masks[i] = (how == 0 ? i < k : how == 1 ? i == k : i != k) ? WHOLE : 0;
            try_subset(d, masks, fn, arg);
        }
    }
    for (int k = 0; k < 32; k++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = random_bits() & 1 ? WHOLE : 0;
        try_subset(d, masks, fn, arg);
    }
}

static void
each_subset(const struct dev *d, crash_fn *fn, void *arg)
{
    size_t n = faultdev_pending(d);
    uint8_t masks[MAX_PENDING] = {0};

    assert_true(n <= MAX_PENDING);
    if (n > ALL_SUBSETS) {
        some_subsets(d, n, fn, arg);
        return;
    }
    for (unsigned m = 0; m < 1u << n; m++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = m >> i & 1 ? WHOLE : 0;
        try_subset(d, masks, fn, arg);
    }
}

/* Of one write some sectors, the others whole or not at all. */
static void
each_tear(const struct dev *d, crash_fn *fn, void *arg)
{
    size_t n = faultdev_pending(d);
    uint8_t tears[3 * SECTORS], masks[MAX_PENDING] = {0};
    int n_tears = 0;

    for (int k = 1; k < SECTORS; k++) {
        tears[n_tears++] = (uint8_t)((1u << k) - 1); /* a prefix */
        tears[n_tears++] = (uint8_t)(1u << k);       /* one present; the first is a prefix */
        tears[n_tears++] =
            (uint8_t)(WHOLE & ~(1u << (k - 1))); /* one missing; the last is a prefix */
    }
    if (n > ALL_SUBSETS)
        return;
    for (size_t torn = 0; torn < n; torn++) {
        for (unsigned m = 0; m < 1u << n; m++) {
            if (m >> torn & 1)
                continue;
            for (size_t i = 0; i < n; i++)
                masks[i] = m >> i & 1 ? WHOLE : 0;
            for (int k = 0; k < n_tears; k++) {
                masks[torn] = tears[k];
                fn(arg, TORN, faultdev_cut(d, masks));
            }
        }
    }
}

static void
each_random(const struct dev *d, crash_fn *fn, void *arg)
{
    size_t n = faultdev_pending(d);
    uint8_t masks[MAX_PENDING] = {0};

    for (int k = 0; n && k < run.plan.random; k++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = (uint8_t)random_bits();
        fn(arg, RANDOM, k % 4 ? faultdev_cut(d, masks) : faultdev_flush_failed(d, masks));
    }
}

/* What stays on the device of a mount that has shown @shown, after a power cut. */
static void
judge_after_mount(void *arg, enum crash how, struct dev *left)
{
    const struct allowed *allowed = arg;

    if (how == FLUSH_FAILED) {
        dev_close(left);
        return;
    }
    run.states[SHOWN]++;
    judge_mount(left, allowed, false);
}

static void
judge_in_recovery(void *arg, enum crash how, struct dev *left)
{
    (void)how;
    run.states[RECOVERY]++;
    judge_mount(left, arg, false);
}

static void
on_recovery_flush(void *arg, const struct dev *d)
{
    size_t was;

    if (faultdev_count(d, FAULT_WRITE) == 0)
        return; /* the flush at the mount: what it may leave has been seen */
    was = path_push(", crash in recovery");
    each_subset(d, judge_in_recovery, arg);
    each_kill(d, judge_in_recovery, arg);
    path_pop(was);
}

/* Mounts what a crash has left; then cuts the power at once; then goes on from there. */
struct situation {
    struct allowed allowed;
    uint32_t stamp;
    int depth; /* commits to try after the crash */
};

static void
judge_crash(void *arg, enum crash how, struct dev *left)
{
    const struct situation *at = arg;
    bool deeper = at->depth > 0 && (how == CUT || how == KILLED || how == FLUSH_FAILED);
    AUTO(dev_closep) struct dev *copy = deeper ? faultdev_fork(left) : NULL;
    size_t was = path_push(", %s", crash_names[how]);
    unsigned long n =
        run.states[run.level ? SECOND : how]++; /* some looks are for every nth only */
    AUTO(store_closep) struct store *s = NULL;
    struct store_info info;
    struct allowed shown;

    if (n % 16 == 0)
        judge_reading(left, &at->allowed);
    if (n % (run.level ? 8 : how == TORN || how == RANDOM ? 16 : 1) == 0)
        faultdev_watch(left, on_recovery_flush, (void *)(uintptr_t)&at->allowed);
    s = must_open(left, false);
    faultdev_watch(left, NULL, NULL);
    store_get_info(s, &info);
    run.recovered += info.recovered;
    shown.old = shown.now = judge_view(s, &at->allowed);
    run.kept_new += shown.now == at->allowed.now;
    run.kept_old += shown.now != at->allowed.now;
    if (faultdev_pending(left) || (how != TORN && how != RANDOM) || n % 4 == 0) {
        path_push(", cut after the mount");
        each_subset(left, judge_after_mount, &shown);
        path_pop(was);
    }
    if (deeper) {
        path_push(", %s", crash_names[how]);
        run.level++;
        explore(copy, shown.now, at->stamp, at->depth);
        run.level--;
        path_pop(was);
    }
}

static void
on_commit_flush(void *arg, const struct dev *d)
{
    if (faultdev_pending(d) < run.fewest)
        run.fewest = faultdev_pending(d);
    each_subset(d, judge_crash, arg);
    each_kill(d, judge_crash, arg);
    if (run.level < run.plan.torn_levels)
        each_tear(d, judge_crash, arg);
    each_random(d, judge_crash, arg);
}

/* ---- exploring ----------------------------------------------------------------------------------
 */

struct walk {
    const struct dev *base;
    const struct view *start;
    struct op path[MAX_PATH];
    int n;
};

static void
must_perform(struct store *s, const struct op *op)
{
    int r = perform(s, op);

    if (r < 0)
        fail_msg("a commit failed: %d, after%s", r, run.path);
}

/* Runs the path on a fork of its base and crashes its last commit in every way. */
static void
crash_last(const struct walk *w)
{
    struct dev *d = faultdev_fork(w->base);
    struct view before = *w->start, after;
    const struct op *last = &w->path[w->n - 1];
    bool second = run.level == 0 && w->n <= run.plan.second_path;
    struct situation at = {{&before, &after}, last->stamp + 2, second ? run.plan.second_depth : 0};
    struct allowed acknowledged = {&after, &after};
    AUTO(store_closep) struct store *s = must_open(d, false);

    /* Then it knows what lies in both places, and writes only what differs. */
    for (int i = 0; i < 2 && run.fillers; i++)
        assert_int_equal(store_commit(s, NULL, 0, NULL), 0);
    for (int i = 0; i < w->n - 1; i++) {
        must_perform(s, &w->path[i]);
        model_apply(&before, &w->path[i]);
    }
    after = before;
    model_apply(&after, last);
    faultdev_watch(d, on_commit_flush, &at);
    must_perform(s, last);
    faultdev_watch(d, NULL, NULL);
    path_push(", acknowledged");
    judge_view(s, &acknowledged);
    run.states[ACKNOWLEDGED]++;
    judge_mount(faultdev_cut(d, NULL), &acknowledged, false);
}

static void
walk_on(struct walk *w, const struct view *v, uint32_t stamp, int depth)
{
    for (int i = 0; i < N_OPS; i++) {
        struct op *op = &w->path[w->n];
        struct view next = *v;
        size_t was = strlen(run.path);

        if (!op_is_legal(&all_ops[i], v))
            continue;
        *op = all_ops[i];
        op->stamp = stamp;
        model_apply(&next, op);
        path_push_op(op);
        w->n++;
        crash_last(w);
        path_pop(was);
        path_push_op(op);
        if (depth > 1)
            walk_on(w, &next, stamp + 2, depth - 1);
        w->n--;
        path_pop(was);
    }
}

static void
explore(const struct dev *base, const struct view *start, uint32_t stamp, int depth)
{
    struct walk w = {.base = base, .start = start};

    walk_on(&w, start, stamp, depth);
}

/* ---- images -------------------------------------------------------------------------------------
 */

static struct dev *
new_image(uint32_t slots)
{
    const struct slot_class class = {slots, CAPACITY};
    struct format_spec spec = {.classes = &class, .n_classes = 1, .uuid = {1, 2, 3}};
    struct dev *d;

    if (run.key)
        testimage_seal(&spec, 1000, *run.key);
    run.slots = slots;
    d = testimage_new(&spec, 1000, 0);
    assert_int_equal(faultdev_pending(d), 0);
    return d;
}

/* With empty files of long names, so that a directory takes three blocks: the header's, one
 * that never changes, and that of the model's files. */
static struct dev *
with_fillers(struct dev *d)
{
    struct change changes[FILLERS];
    char filler_names[FILLERS][NAME_MAX_LEN + 1];
    AUTO(store_closep) struct store *s = must_open(d, false);

    for (int i = 0; i < FILLERS; i++) {
        struct change *c = &changes[i];

        memset(filler_names[i], 'f', NAME_MAX_LEN);
        filler_names[i][0] = (char)('0' + i);
        filler_names[i][NAME_MAX_LEN] = '\0';
        *c = (struct change){.op = CHANGE_FILE, .name = filler_names[i], .attr = {.mode = 0600}};
        c->id = store_new_id(s);
        assert_int_equal(store_slot_take(s, 0, NULL, &c->slot), 0);
    }
    assert_int_equal(store_commit(s, changes, FILLERS, NULL), 0);
    for (int i = 0; i < FILLERS; i++)
        store_slot_drop(s, changes[i].slot);
    run.fillers = FILLERS;
    run.slots -= FILLERS;
    return faultdev_fork(d);
}

/* ---- the runs -----------------------------------------------------------------------------------
 */

static void
begin(const uint64_t *key)
{
    run.key = key;
    run.fillers = 0;
    run.level = 0;
    run.path[0] = '\0';
}

static const struct view nothing;
static bool quick; /* shorter histories: for scripts/mutants */
static const uint64_t test_key = 0x1234567;

static void
every_crash_of_short_histories_tearing_blocks(void **state)
{
    (void)state;
    /* With three slots for three files none is ever spare: banks and slots are used again at once.
     */
    for (uint32_t slots = 3; slots <= 4; slots++) {
        AUTO(dev_closep) struct dev *d = NULL;

        begin(NULL);
        d = new_image(slots);
        run.plan = (struct plan){.torn_levels = !quick, .random = quick ? 2 : 180};
        explore(d, &nothing, 1, quick || slots > 3 ? 2 : 3);
    }
}

static void
two_crashes_with_commits_before_and_between(void **state)
{
    AUTO(dev_closep) struct dev *d = NULL;

    (void)state;
    begin(NULL);
    d = new_image(4);
    run.plan = (struct plan){.second_depth = 1, .second_path = 2};
    explore(d, &nothing, 1, quick ? 1 : 2);
}

static void
every_crash_of_a_sealed_image(void **state)
{
    AUTO(dev_closep) struct dev *d = NULL;

    (void)state;
    begin(&test_key);
    d = new_image(4);
    run.plan = (struct plan){
        .torn_levels = !quick, .random = 10, .second_depth = 1, .second_path = !quick};
    explore(d, &nothing, 1, 2);
}

static void
every_crash_with_a_directory_that_is_rewritten_in_part(void **state)
{
    AUTO(dev_closep) struct dev *d = NULL;

    (void)state;
    begin(NULL);
    d = with_fillers(new_image(4 + FILLERS));
    run.plan = (struct plan){.torn_levels = 1, .random = 30};
    run.fewest = MAX_PENDING;
    explore(d, &nothing, 1, quick ? 1 : 2);
    assert_int_equal(run.fewest, 1);
}

/* ---- failures under a living daemon -------------------------------------------------------------
 */

/* The @nth write or flush of a commit fails: the store must turn read-only for good, go on showing
 * what was committed, and leave a device as after a crash. */
static bool
fail_commit(const struct dev *base, const struct op *op, enum fault_op what, unsigned long nth,
            const uint8_t *masks)
{
    struct dev *d = faultdev_fork(base);
    AUTO(store_closep) struct store *s = must_open(d, false);
    const struct op first = {OP_WRITE_BOTH, A, T, 1}, later = {OP_WRITE, B, 0, 90};
    struct view before = nothing, after;
    struct allowed either = {&before, &after}, still = {&before, &before};
    struct store_info info;
    unsigned long writes;

    must_perform(s, &first);
    model_apply(&before, &first);
    after = before;
    model_apply(&after, op);
    faultdev_fail(d, what, nth, -EIO, masks);
    if (perform(s, op) == 0)
        return false; /* there are not so many of them */
    store_get_info(s, &info);
    assert_int_equal(info.read_only, -EIO);
    assert_non_null(info.read_only_why);
    judge_view(s, &still);
    writes = faultdev_count(d, FAULT_WRITE);
    assert_int_equal(perform(s, &later), -EROFS);
    assert_int_equal(store_settle(s), -EROFS);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    judge_view(s, &still);
    judge_mount(faultdev_cut(d, NULL), &either, false);
    judge_mount(faultdev_kill(d, faultdev_pending(d)), &either, false);
    return true;
}

static void
a_failed_write_or_flush_never_becomes_two(void **state)
{
    AUTO(dev_closep) struct dev *d = NULL;

    (void)state;
    begin(NULL);
    d = new_image(4);
    for (int i = 0; i < N_OPS; i++) {
        struct op op = all_ops[i];
        unsigned long nth = 0;

        if (op.kind == OP_KEYSLOTS || op.kind == OP_RESEAL)
            continue;
        op.stamp = 50;
        path_push_op(&op);
        for (uint8_t blocks = 0; blocks < 3; blocks++) {
            for (nth = 0; fail_commit(d, &op, FAULT_WRITE, nth, &blocks); nth++)
                continue;
            assert_true(nth >= 1);
        }
        for (int k = 0; k < 64; k++) {
            uint8_t masks[64];

            for (int j = 0; j < 64; j++)
                masks[j] = k < 32 ? (k >> j % 5 & 1 ? WHOLE : 0) : (uint8_t)random_bits();
            assert_true(fail_commit(d, &op, FAULT_SYNC, 0, masks));
        }
        run.path[0] = '\0';
    }
}

/* ---- damage -------------------------------------------------------------------------------------
 */

enum damage { FLIP, ZERO_SECTOR, ZERO_BLOCK, DAMAGES };

static void
damage_block(struct dev *d, uint64_t off, enum damage how, unsigned sector)
{
    static const uint8_t zeros[BLOCK_SIZE];
    uint64_t at = off + sector * SECTOR_SIZE + 17 * sector;
    uint8_t byte;

    switch (how) {
    case FLIP:
        faultdev_peek(d, &byte, 1, at);
        byte ^= 0x10;
        faultdev_poke(d, &byte, 1, at);
        break;
    case ZERO_SECTOR:
        faultdev_poke(d, zeros, SECTOR_SIZE, off + sector * SECTOR_SIZE);
        break;
    case ZERO_BLOCK:
        faultdev_poke(d, zeros, BLOCK_SIZE, off);
        break;
    case DAMAGES:
        break;
    }
}

static struct {
    unsigned long cases, right, older, refused;
} damaged;

/* What a damaged image still gives, file by file, when only reading: right bytes or an error. */
static void
judge_degraded(struct dev *d, const struct allowed *allowed)
{
    const struct store_options opt = {.read_only = true,
                                      .degraded = true,
                                      .unlock = testseal_unlock,
                                      .unlock_arg = (void *)(uintptr_t)run.key};
    AUTO(store_closep) struct store *s = NULL;
    static uint8_t buf[CAPACITY], want[CAPACITY];

    if (store_open(&s, d, &opt) < 0) {
        dev_close(d);
        return;
    }
    for (int i = 0; i < NAMES; i++) {
        struct entry e;

        if (store_find(s, names[i], &e) < 0 || e.kind != ENTRY_FILE)
            continue;
        if (e.attr.gid != allowed->now->file[i].value && e.attr.gid != allowed->old->file[i].value)
            fail_msg("degraded: %s is %" PRIu32 ", after%s", names[i], e.attr.gid, run.path);
        value_fill(e.attr.gid, want);
        if (e.current.generation && store_read(s, &e.current, buf) == 0)
            assert_memory_equal(buf, want, value_length(e.attr.gid));
    }
    assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
}

static void
judge_damage(const struct dev *image, uint64_t off, enum damage how, unsigned sector,
             const struct allowed *allowed)
{
    struct dev *d = faultdev_fork(image);
    size_t was = path_push(", damage %d at %" PRIu64 " + %u", how, off, sector);
    struct store *s = NULL;
    int r;

    damage_block(d, off, how, sector);
    damaged.cases++;
    r = open_image(d, false, &s);
    if (r == 0) {
        if (judge_view(s, allowed) == allowed->now)
            damaged.right++;
        else
            damaged.older++;
        store_close(s);
    } else {
        if (r != -EUCLEAN)
            fail_msg("damage is %d, after%s", r, run.path);
        if (faultdev_count(d, FAULT_WRITE))
            fail_msg("a damaged image was written to, after%s", run.path);
        damaged.refused++;
        judge_degraded(d, allowed);
    }
    path_pop(was);
}

static void
damage_everything(const struct dev *image, const struct allowed *allowed)
{
    uint8_t block[BLOCK_SIZE];

    for (uint64_t off = 0; off < image->size; off += BLOCK_SIZE) {
        faultdev_peek(image, block, sizeof block, off);
        if (bytes_are_zero(block, sizeof block))
            continue;
        for (unsigned sector = 0; sector < SECTORS; sector++) {
            judge_damage(image, off, FLIP, sector, allowed);
            judge_damage(image, off, ZERO_SECTOR, sector, allowed);
        }
        judge_damage(image, off, ZERO_BLOCK, 0, allowed);
    }
}

/* Damages the image that @n operations leave; a clean one must never come back older. */
static void
damage_after(const struct dev *base, const struct op *ops, int n, bool clean)
{
    struct dev *d = faultdev_fork(base), *image;
    struct store *s = must_open(d, false);
    struct view old = nothing, now = nothing;
    const struct allowed either = {&old, &now}, only = {&now, &now};

    for (int i = 0; i < n; i++) {
        must_perform(s, &ops[i]);
        old = now;
        model_apply(&now, &ops[i]);
    }
    if (clean)
        assert_int_equal(store_settle(s), 0);
    image = faultdev_fork(d);
    store_close(s);
    damage_everything(image, clean ? &only : &either);
    dev_close(image);
}

static void
damage_histories(bool clean)
{
    AUTO(dev_closep) struct dev *d = NULL;
    struct view one = nothing;

    begin(NULL);
    d = new_image(4);
    memset(&damaged, 0, sizeof damaged);
    model_apply(&one, &(struct op){OP_WRITE_BOTH, A, T, 1});
    for (int i = 0; i < N_OPS; i++) {
        for (int k = 0; k < N_OPS; k++) {
            struct op ops[3] = {{OP_WRITE_BOTH, A, T, 1}, all_ops[i], all_ops[k]};
            struct view two = one;

            ops[1].stamp = 3;
            ops[2].stamp = 5;
            model_apply(&two, &ops[1]);
            if (!op_is_legal(&ops[1], &one) || !op_is_legal(&ops[2], &two) ||
                (!clean && ops[2].kind == OP_SETTLE) || (quick && (i + k) % 4))
                continue;
            for (int j = 0; j < 3; j++)
                path_push_op(&ops[j]);
            damage_after(d, ops, 3, clean);
            run.path[0] = '\0';
        }
    }
    print_message(
        "# %s image, one block damaged: %lu cases, %lu right, %lu one commit older, %lu refused\n",
        clean ? "clean" : "live", damaged.cases, damaged.right, damaged.older, damaged.refused);
}

static void
damage_to_a_clean_image_never_makes_it_older(void **state)
{
    (void)state;
    damage_histories(true);
    assert_int_equal(damaged.older, 0);
    assert_true(damaged.right > 0 && damaged.refused > 0);
}

static void
damage_to_a_live_image_costs_at_most_the_last_commit(void **state)
{
    (void)state;
    damage_histories(false);
    assert_true(damaged.right > 0 && damaged.refused > 0);
}

/* ---- the count ----------------------------------------------------------------------------------
 */

static void
enough_states_of_every_kind_were_seen(void **state)
{
    unsigned long all = 0;

    (void)state;
    for (int i = 0; i < CRASHES; i++) {
        print_message("# %9lu %s\n", run.states[i], crash_names[i]);
        all += run.states[i];
        assert_true(run.states[i] > 0);
    }
    print_message("# %9lu states in all (seed %" PRIu64
                  "): %lu showed the new state, %lu the old one, "
                  "%lu of these by recovery\n",
                  all, run.seed, run.kept_new, run.kept_old, run.recovered);
    assert_true(quick || all >= 1000000);
    assert_true(quick || run.states[RANDOM] >= 100000);
    assert_true(run.recovered > 0 && run.kept_old > 0 && run.kept_new > 0);
}

static void
swallow(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_crash_of_short_histories_tearing_blocks),
        cmocka_unit_test(two_crashes_with_commits_before_and_between),
        cmocka_unit_test(every_crash_of_a_sealed_image),
        cmocka_unit_test(every_crash_with_a_directory_that_is_rewritten_in_part),
        cmocka_unit_test(a_failed_write_or_flush_never_becomes_two),
        cmocka_unit_test(damage_to_a_clean_image_never_makes_it_older),
        cmocka_unit_test(damage_to_a_live_image_costs_at_most_the_last_commit),
        cmocka_unit_test(enough_states_of_every_kind_were_seen),
    };

    quick = getenv("VNVRAM_QUICK") != NULL;
    run.seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    run.rng = run.seed;
    report_set_sink(swallow, NULL);
    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
