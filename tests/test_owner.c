/* SPDX-License-Identifier: BSD-3-Clause */
/* One image, two hosts: owner records as bytes, taking, checking and releasing, and what a store
 * makes of them.  Each host has a port to one disk; no lock keeps them apart. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/store_impl.h"
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

enum { RECORDS_SIZE = OWNER_RECORD_COUNT * BLOCK_SIZE, BLOCKS_MAX = 256 };

/* ---- a port to the disk ------------------------------------------------------------------------
 */

struct port {
    struct dev dev;
    struct dev *disk;
    void (*before_sync)(struct port *p), (*after_sync)(struct port *p);
    int syncs_until;                 /* the hook: at which flush from now, 0 the next */
    void (*on_look)(struct port *p); /* before it reads a record */
    int looks_until;                 /* the same */
    unsigned long writes;
    int fail_records; /* reading this record fails; -1: none, 2: both at once only */
};

static int
port_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct port *p = (struct port *)d;
    void (*hook)(struct port *) = p->on_look;

    if (hook && off == OWNER_RECORDS && p->looks_until-- == 0) {
        p->on_look = NULL;
        hook(p);
    }
    for (int i = 0; i < OWNER_RECORD_COUNT; i++) {
        uint64_t at = OWNER_RECORDS + (uint64_t)i * BLOCK_SIZE;

        if (p->fail_records == i && off <= at && at < off + n)
            return -EIO;
    }
    return p->disk->ops->pread(p->disk, buf, n, off);
}

static int
port_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct port *p = (struct port *)d;

    p->writes++;
    return p->disk->ops->pwrite(p->disk, buf, n, off);
}

static int
port_sync(struct dev *d)
{
    struct port *p = (struct port *)d;
    bool now = (p->before_sync || p->after_sync) && p->syncs_until-- == 0;
    void (*before)(struct port *) = now ? p->before_sync : NULL;
    void (*after)(struct port *) = now ? p->after_sync : NULL;
    int r;

    if (now)
        p->before_sync = p->after_sync = NULL;
    if (before)
        before(p);
    r = p->disk->ops->sync(p->disk);
    if (after)
        after(p);
    return r;
}

static int
port_medium(struct dev *d, bool on)
{
    struct port *p = (struct port *)d;

    return p->disk->ops->medium(p->disk, on);
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

static void
port_close(struct dev *d)
{
    free(d->name);
    free(d);
}

static const struct dev_ops port_ops = {
    .pread = port_pread,
    .pwrite = port_pwrite,
    .sync = port_sync,
    .medium = port_medium,
    .close = port_close,
    .release = port_release,
    .take = port_take,
};

static struct dev *
port_new(struct dev *disk)
{
    struct port *p = calloc(1, sizeof *p);

    assert_non_null(p);
    *p = (struct port){
        .dev = {.ops = &port_ops, .size = disk->size, .shared = true, .name = strdup("disk")},
        .disk = disk,
        .fail_records = -1,
    };
    return &p->dev;
}

/* ---- what is reported --------------------------------------------------------------------------
 */

static char heard[8192];

static void
hear(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    strncat(heard, line, sizeof heard - strlen(heard) - 2);
    strcat(heard, "\n");
}

static bool
was_said(const char *what)
{
    return strstr(heard, what) != NULL;
}

static void
collect(void *arg, int r, const char *where, const char *text)
{
    (void)r, (void)where;
    strncat(arg, text, 4000 - strlen(arg));
}

/* ---- images and hosts --------------------------------------------------------------------------
 */

static const uint64_t volume_key = 0xfeed, user_key = 0xbeef;
static const struct slot_class some_slots[] = {{4, 4096}, {2, 16384}};
static const uint8_t uuid[UUID_SIZE] = {0xaa, 0xbb};
static const struct owner_options a = {.host_id = {1}, .boot_id = {11}, .host_name = "alpha"};
static const struct owner_options b = {.host_id = {2}, .boot_id = {22}, .host_name = "beta"};

static struct owner_options
forced(const struct owner_options *who)
{
    struct owner_options opt = *who;

    opt.takeover = true;
    return opt;
}

static struct format_spec
spec_for(bool sealed)
{
    struct format_spec spec = {.classes = some_slots, .n_classes = 2};

    memcpy(spec.uuid, uuid, UUID_SIZE);
    if (sealed)
        testimage_seal(&spec, volume_key, user_key);
    return spec;
}

static struct dev *
new_disk(bool sealed)
{
    const struct format_spec spec = spec_for(sealed);

    return testimage_new(&spec, volume_key, 128 * 1024); /* to grow into */
}

static int
open_as(struct store **s, struct dev *port, const struct owner_options *who, bool sealed)
{
    const struct store_options opt = {.unlock = testseal_unlock,
                                      .unlock_arg = sealed ? (void *)(uintptr_t)&user_key : NULL,
                                      .owner = who};

    heard[0] = '\0';
    return store_open(s, port, &opt);
}

static struct store *
must_open(struct dev *disk, const struct owner_options *who)
{
    struct store *s = NULL;

    assert_int_equal(open_as(&s, port_new(disk), who, false), 0);
    return s;
}

static void
must_fail(struct dev *disk, const struct owner_options *who, int r)
{
    AUTO(dev_closep) struct dev *port = port_new(disk);
    struct store *s = NULL;

    assert_int_equal(open_as(&s, port, who, false), r);
}

static int
put(struct store *s, const char *name, const char *text)
{
    return testimage_put(s, name, text, strlen(text), NULL);
}

static bool
holds(struct store *s, const char *name, const char *text)
{
    struct entry e;
    char buf[4096];

    return store_find(s, name, &e) == 0 && e.current.length == strlen(text) &&
           store_read(s, &e.current, buf) == 0 && memcmp(buf, text, strlen(text)) == 0;
}

static int
look(struct dev *disk, struct owner_record *rec)
{
    return owner_look(disk, uuid, rec);
}

static struct owner_record
record_of(struct dev *disk)
{
    struct owner_record rec;

    assert_int_equal(look(disk, &rec), 0);
    return rec;
}

static void
poke_record(struct dev *disk, unsigned i, const struct owner_record *rec)
{
    uint8_t block[BLOCK_SIZE] = {0};

    if (rec)
        owner_record_encode(rec, block);
    faultdev_poke(disk, block, sizeof block, OWNER_RECORDS + i * BLOCK_SIZE);
}

static void
damage_record(struct dev *disk, unsigned i)
{
    faultdev_spoil(disk, OWNER_RECORDS + i * BLOCK_SIZE + 100);
}

static struct directory
directory_of(struct dev *disk, unsigned i)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct superblock sb;
    struct directory dir;
    struct directory_claim claim;

    assert_int_equal(superblock_load(disk, 0, buf, &sb), 0);
    assert_int_equal(directory_load(disk, testseal_plain(), &sb, i, &dir, &claim), 0);
    return dir;
}

/* ---- the records as bytes ----------------------------------------------------------------------
 */

static const struct owner_record example = {
    .uuid = {0x11, 0x22},
    .sequence = 0x0102030405060708,
    .epoch = 7,
    .state = OWNER_OWNED,
    .guarded = true,
    .floor = 6,
    .host_id = {1, 2, 3},
    .boot_id = {4, 5, 6},
    .nonce = {7, 8, 9},
    .time = -5,
    .host_name = "host-1.example",
};

static void
a_record_survives_the_round_trip(void **state)
{
    uint8_t block[BLOCK_SIZE];
    struct owner_record back;

    (void)state;
    memset(block, 0xee, sizeof block);
    owner_record_encode(&example, block);
    assert_memory_equal(block, "VNVRAMOW", 8);
    assert_int_equal(load_le16(block + 12), 1);
    assert_int_equal(block[14], 1);
    assert_memory_equal(block + 16, example.uuid, UUID_SIZE);
    assert_true(load_le64(block + 32) == example.sequence && load_le64(block + 40) == 7);
    assert_int_equal(block[15], 1);
    assert_int_equal((int64_t)load_le64(block + 48), -5);
    assert_int_equal(load_le64(block + 56), 6);
    assert_memory_equal(block + 64, example.host_id, 16);
    assert_memory_equal(block + 80, example.boot_id, 16);
    assert_memory_equal(block + 96, example.nonce, 16);
    assert_string_equal((char *)block + 128, "host-1.example");
    assert_true(bytes_are_zero(block + 192, BLOCK_SIZE - 192));
    assert_int_equal(owner_record_decode(&back, block), 0);
    assert_memory_equal(&back, &example, sizeof back);
}

static void
a_blank_block_is_no_record_and_every_flipped_bit_is_damage(void **state)
{
    uint8_t block[BLOCK_SIZE] = {0};
    struct owner_record back;

    (void)state;
    assert_int_equal(owner_record_decode(&back, block), -ENODATA);
    owner_record_encode(&example, block);
    for (size_t i = 0; i < 8 * 512; i++) {
        block[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
        block[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 512; i < sizeof block; i++) {
        block[i] ^= 1;
        assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
        block[i] ^= 1;
    }
}

static void
with_byte(size_t at, uint8_t value, int r)
{
    uint8_t block[BLOCK_SIZE];
    struct owner_record back;

    owner_record_encode(&example, block);
    block[at] = value;
    format_set_crc(block, sizeof block);
    assert_int_equal(owner_record_decode(&back, block), r);
}

static void
fields_out_of_range_are_damage_and_newer_versions_unsupported(void **state)
{
    struct owner_record none = example;
    uint8_t block[BLOCK_SIZE];
    struct owner_record back;

    (void)state;
    with_byte(12, 2, -EPROTONOSUPPORT);
    with_byte(12, 0, -EUCLEAN);
    with_byte(14, 0, -EUCLEAN);
    with_byte(14, 2, 0);
    with_byte(14, 3, 0);
    with_byte(14, 4, -EUCLEAN);
    with_byte(15, 0, 0);
    with_byte(15, 2, -EUCLEAN);
    with_byte(56, 7, 0);
    with_byte(56, 8, -EUCLEAN);
    with_byte(63, 1, -EUCLEAN);
    with_byte(112, 1, -EUCLEAN);
    with_byte(127, 1, -EUCLEAN);
    with_byte(128, '\n', -EUCLEAN);
    with_byte(128, 0x7f, -EUCLEAN);
    with_byte(191, 'x', -EUCLEAN);
    with_byte(192, 1, -EUCLEAN);
    with_byte(4095, 1, -EUCLEAN);
    none.sequence = 0;
    owner_record_encode(&none, block);
    assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
    none.sequence = INT64_MAX;
    owner_record_encode(&none, block);
    assert_int_equal(owner_record_decode(&back, block), 0);
    none.sequence++;
    owner_record_encode(&none, block);
    assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
    none = example;
    none.epoch = 0;
    owner_record_encode(&none, block);
    assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
    none.epoch = (uint64_t)INT64_MAX + 1;
    owner_record_encode(&none, block);
    assert_int_equal(owner_record_decode(&back, block), -EUCLEAN);
}

/* Whoever can write to the medium can demand a takeover, but no more than one. */
static void
the_highest_numbers_of_all_lose_nothing(void **state)
{
    static const uint64_t most[] = {INT64_MAX / 2 - 10, (uint64_t)INT64_MAX / 2 + 1, INT64_MAX,
                                    UINT64_MAX};
    const struct owner_options a_forced = forced(&a);

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        struct store *s = must_open(disk, &a);
        struct owner_record rec;

        assert_int_equal(put(s, "f", "one"), 0);
        store_close(s);
        rec = record_of(disk);
        if (i % 2)
            rec.epoch = most[i / 2];
        else
            rec.sequence = most[i / 2];
        poke_record(disk, 0, &rec);
        poke_record(disk, 1, NULL);
        if (i >= 2)
            must_fail(disk, &a, -EBUSY);
        s = must_open(disk, i >= 2 ? &a_forced : &a);
        assert_int_equal(put(s, "f", "two"), 0);
        store_close(s);
        assert_int_equal(look(disk, &rec), 0);
        s = must_open(disk, &a);
        assert_true(holds(s, "f", "two"));
        store_close(s);
    }
}

static void
a_name_is_printable_whatever_the_host_is_called(void **state)
{
    struct owner_record rec = example;
    uint8_t block[BLOCK_SIZE];
    struct owner_record back;

    (void)state;
    strcpy(rec.host_name, "a\033[2Jb\xff");
    owner_record_encode(&rec, block);
    assert_int_equal(owner_record_decode(&back, block), 0);
    assert_string_equal(back.host_name, "a?[2Jb?");
    memset(rec.host_name, 'x', HOST_NAME_SIZE);
    owner_record_encode(&rec, block);
    assert_int_equal(owner_record_decode(&back, block), 0);
    assert_int_equal(strlen(back.host_name), HOST_NAME_SIZE);
}

/* ---- taking and releasing ----------------------------------------------------------------------
 */

static void
who_opens_owns_and_who_closes_releases(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);
    struct owner_record rec = record_of(disk);
    struct store_info info;

    (void)state;
    assert_true(rec.epoch == 1 && rec.sequence == 2 && rec.state == OWNER_OWNED);
    assert_memory_equal(rec.host_id, a.host_id, 16);
    assert_memory_equal(rec.boot_id, a.boot_id, 16);
    assert_memory_equal(rec.uuid, uuid, UUID_SIZE);
    assert_string_equal(rec.host_name, "alpha");
    assert_false(bytes_are_zero(rec.nonce, sizeof rec.nonce));
    store_get_info(s, &info);
    assert_true(info.owned && !info.guarded);
    assert_memory_equal(&info.owner, &rec, sizeof rec);
    store_close(s);
    rec = record_of(disk);
    assert_true(rec.epoch == 1 && rec.sequence == 3 && rec.state == OWNER_RELEASED);
    s = must_open(disk, &b);
    assert_string_equal(heard, "");
    rec = record_of(disk);
    assert_true(rec.epoch == 2 && rec.sequence == 5 && rec.state == OWNER_OWNED);
    store_close(s);
}

static void
an_image_that_nobody_changed_is_as_it_was_but_for_the_records(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(dev_closep) struct dev *before = faultdev_fork(disk);
    AUTO_FREE uint8_t *x = malloc(disk->size), *y = malloc(disk->size);

    (void)state;
    store_close(must_open(disk, &a));
    faultdev_peek(before, x, disk->size, 0);
    faultdev_peek(disk, y, disk->size, 0);
    memset(y + OWNER_RECORDS, 0, RECORDS_SIZE);
    assert_memory_equal(x, y, disk->size);
}

static void
another_host_is_refused_and_writes_nothing(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(dev_closep) struct dev *port = port_new(disk);
    AUTO(store_closep) struct store *s = must_open(disk, &a), *other = NULL;

    (void)state;
    assert_int_equal(open_as(&other, port, &b, false), -EBUSY);
    assert_true(was_said("in use by host \"alpha\" (owner of epoch 1 since 20"));
    assert_true(was_said("-o takeover"));
    assert_int_equal(((struct port *)port)->writes, 0);
    assert_int_equal(put(s, "f", "one"), 0);
}

static void
letting_go_is_waited_for(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(store_closep) struct store *s = must_open(disk, &a);
    struct owner_options patient = b;
    struct timespec from, to;

    (void)state;
    patient.wait_ms = 120;
    clock_gettime(CLOCK_MONOTONIC, &from);
    must_fail(disk, &patient, -EBUSY);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 120);
    assert_int_equal(put(s, "f", "one"), 0);
}

static void
a_former_owner_acknowledges_nothing(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a), *other;
    const struct owner_options b_forced = forced(&b);
    struct store_info info;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    other = must_open(disk, &b_forced);
    assert_true(was_said("taken over from host \"alpha\" (owner of epoch 1 since"));
    assert_true(was_said("\"-o fenced\" ends that"));
    assert_true(holds(other, "f", "one"));
    heard[0] = '\0';
    assert_int_equal(put(s, "f", "two"), -EIO);
    assert_true(was_said("another host has taken the image over"));
    assert_int_equal(put(s, "f", "three"), -EROFS);
    assert_int_equal(store_settle(s), -EROFS);
    store_get_info(s, &info);
    assert_int_equal(info.read_only, -EBUSY);
    assert_true(!info.owned && strstr(info.read_only_why, "another host"));
    assert_true(holds(s, "f", "one"));
    store_close(s);
    assert_int_equal(record_of(disk).epoch, 2);
    assert_int_equal(record_of(disk).state, OWNER_OWNED);
    assert_int_equal(put(other, "f", "four"), 0);
    store_close(other);
    other = must_open(disk, &a);
    assert_true(holds(other, "f", "four"));
    store_close(other);
}

static void
damaged_records_are_taken_by_force_only(void **state)
{
    const struct owner_options a_forced = forced(&a);

    (void)state;
    for (unsigned which = 1; which < 4; which++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        struct owner_record rec;
        struct store *s;

        store_close(must_open(disk, &a)); /* epoch 1, sequences 3 and 2 */
        for (unsigned i = 0; i < 2; i++)
            if (which & 1u << i)
                damage_record(disk, i);
        assert_int_equal(look(disk, &rec), -EUCLEAN);
        must_fail(disk, &a, -EBUSY);
        assert_true(was_said("its owner records are damaged"));
        s = must_open(disk, &a_forced);
        assert_true(was_said("taken over though its owner records are damaged"));
        rec = record_of(disk); /* both are good again, */
        /* and above whatever the damaged one may have said */
        assert_int_equal(rec.sequence, 2 + (which == 1 ? 4 : which == 2 ? 5 : 2));
        assert_int_equal(rec.epoch, which == 3 ? 2 : 3);
        assert_true(s->mark.guarded && rec.guarded && rec.floor == rec.epoch);
        store_close(s);
        store_close(must_open(disk, &b));
    }
}

/* Two hosts wrote their second records at the same time, and it is not known which one went on. */
static void
an_image_that_several_took_at_once_is_nobody_s(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct owner_record other = example;
    const struct owner_options a_forced = forced(&a);
    struct store *s;

    (void)state;
    memcpy(other.uuid, uuid, UUID_SIZE);
    other.sequence = 1;
    store_close(must_open(disk, &a));
    poke_record(disk, 1, &other);
    must_fail(disk, &a, -EBUSY);
    assert_true(
        was_said("several hosts took it at the same time (\"alpha\", epoch 1, wrote last)"));
    s = must_open(disk, &a_forced);
    assert_true(s->mark.guarded);
    store_close(s);
    s = must_open(disk, &b);
    assert_true(s->mark.guarded); /* until somebody says that all are fenced */
    store_close(s);
}

/* The takeover was cut short after its first record. */
static void
a_takeover_that_was_cut_short_is_still_one(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct owner_record claim;
    struct store *s;

    (void)state;
    store_close(must_open(disk, &b));
    claim = record_of(disk);
    claim.sequence++;
    claim.epoch++;
    claim.state = OWNER_CLAIMED;
    claim.guarded = true;
    poke_record(disk, 1, &claim);
    s = must_open(disk, &b);
    assert_true(s->mark.guarded && s->marked);
    store_close(s);
}

/* After a takeover a directory of a former owner counts for nothing, also where no other one can be
 * read: what lay beside it may have been newer. */
static void
a_former_owner_s_directory_is_not_taken_though_it_is_the_only_one(void **state)
{
    const struct owner_options b_forced = forced(&b);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        AUTO_FREE uint8_t *old = dev_alloc(BLOCK_SIZE);
        struct store *s = must_open(disk, &a);
        const uint64_t at = s->sb.dir_off[i];
        struct check_result res;
        char found[4096];

        assert_int_equal(put(s, "f", "one"), 0);
        assert_int_equal(dev_pread(disk, old, BLOCK_SIZE, at), 0);
        store_close(must_open(disk, &b_forced));
        faultdev_poke(disk, old, BLOCK_SIZE, at);
        faultdev_spoil(disk, s->sb.dir_off[1 - i] + 100);
        store_close(s);
        must_fail(disk, &b, -EUCLEAN);
        assert_true(was_said("a former owner (epoch 1) has written a directory"));
        found[0] = '\0';
        assert_int_equal(check_image(disk, testseal_unlock, NULL, collect, found, &res), -EUCLEAN);
        assert_non_null(strstr(found, "written by a former owner (epoch 1)"));
        assert_null(strstr(found, "a mount shows"));
    }
}

/* Also where nobody was overtaken, as far as the records tell. */
static void
a_directory_of_another_taking_beside_a_newer_one_is_damage(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO_FREE uint8_t *old = dev_alloc(BLOCK_SIZE);
    struct store *s = must_open(disk, &a);
    const uint64_t places[] = {s->sb.dir_off[0], s->sb.dir_off[1]};
    unsigned newest;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    store_close(s);
    s = must_open(disk, &b);
    assert_int_equal(dev_pread(disk, old, BLOCK_SIZE, places[1 - s->dir.index]), 0);
    newest = s->dir.index;
    assert_int_equal(put(s, "f", "two"), 0); /* after two directories without it */
    assert_int_equal(put(s, "f", "three"), 0);
    assert_int_equal(s->dir.index, newest);
    store_close(s);
    faultdev_poke(disk, old, BLOCK_SIZE, places[1 - newest]);
    must_fail(disk, &b, -EUCLEAN);
    assert_true(was_said("a former owner (epoch 1) has written a directory"));
}

static void
a_record_of_another_image_or_a_newer_version_is_not_passed_over(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    const struct owner_options a_forced = forced(&a);
    struct owner_record other = example;
    uint8_t block[BLOCK_SIZE];

    (void)state;
    memcpy(other.host_id, a.host_id, HOST_ID_SIZE);
    poke_record(disk, 0, &other);
    must_fail(disk, &a, -EBUSY);
    assert_true(was_said("its owner records are damaged"));
    owner_record_encode(&example, block);
    block[12] = 2;
    format_set_crc(block, sizeof block);
    faultdev_poke(disk, block, sizeof block, OWNER_RECORDS);
    must_fail(disk, &a_forced, -EPROTONOSUPPORT);
    poke_record(disk, 0, NULL);
    store_close(must_open(disk, &a));
}

static void
directories_say_whose_they_are_before_anything_changes(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);
    const struct owner_record rec = record_of(disk);

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0); /* generations 1 and 2 were there, 3 is left out */
    for (unsigned i = 0; i < 2; i++) {
        AUTO(directory_fini) struct directory dir = directory_of(disk, i);

        assert_true(dir.owner.epoch == 1 && dir.owner.first == 4 && !dir.owner.guarded);
        assert_memory_equal(dir.owner.nonce, rec.nonce, OWNER_NONCE_SIZE);
        assert_true(dir.generation == 5 || dir.generation == 6);
    }
    assert_int_equal(s->flushes, 3);
    assert_int_equal(put(s, "f", "two"), 0);
    assert_int_equal(s->flushes, 4);
    store_close(s);
}

/* ---- between a write and its flush -------------------------------------------------------------
 */

static struct store *taker;

static void
take_over_now(struct port *p)
{
    const struct owner_options b_forced = forced(&b);

    taker = must_open(p->disk, &b_forced);
}

/* A commit that ran out of memory halfway has asked, but has not come to a flush. */
static void
each_commit_asks_before_it_writes(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO_FREE uint8_t *block = dev_alloc(BLOCK_SIZE);
    const struct owner_options b_forced = forced(&b);
    struct store *s = must_open(disk, &a);
    struct port *p = (struct port *)s->dev;
    unsigned long writes;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    assert_int_equal(dev_pwrite(s->dev, block, BLOCK_SIZE, disk->size - BLOCK_SIZE), 0);
    store_close(must_open(disk, &b_forced));
    writes = p->writes;
    assert_int_equal(put(s, "f", "two"), -EIO);
    assert_int_equal(p->writes, writes);
    store_close(s);
}

static void
take_now(struct port *p)
{
    taker = must_open(p->disk, &b);
}

/* Whoever waits for the image may be there before we know that we have let it go. */
static void
an_image_that_is_taken_at_once_was_released(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);
    struct port *p = (struct port *)s->dev;

    (void)state;
    p->after_sync = take_now;
    assert_int_equal(store_release(s, false), 0);
    assert_int_equal(put(taker, "f", "one"), 0);
    store_close(steal(&taker));
    assert_int_equal(store_take(s, 0), -ESTALE);
    store_close(s);
}

static void
an_image_that_cannot_be_released_is_not_written_either(void **state)
{
    const struct owner_options b_forced = forced(&b);
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);

    (void)state;
    taker = must_open(disk, &b_forced);
    assert_int_equal(store_release(s, false), -EBUSY);
    assert_int_equal(put(s, "f", "one"), -EROFS);
    store_close(s);
    assert_int_equal(put(taker, "f", "two"), 0);
    store_close(steal(&taker));
}

static void
a_commit_is_not_acknowledged_when_it_was_taken_over_meanwhile(void **state)
{
    (void)state;
    for (int after = 0; after < 2; after++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        struct store *s = must_open(disk, &a);
        struct port *p = (struct port *)s->dev;

        assert_int_equal(put(s, "f", "one"), 0);
        *(after ? &p->after_sync : &p->before_sync) = take_over_now;
        assert_int_equal(put(s, "f", "two"), -EIO);
        assert_non_null(taker);
        assert_true(holds(taker, "f", "one") || holds(taker, "f", "two"));
        assert_true(holds(s, "f", "one"));
        assert_int_equal(put(taker, "f", "three"), 0);
        store_close(s);
        store_close(steal(&taker));
        s = must_open(disk, &b);
        assert_true(holds(s, "f", "three"));
        store_close(s);
    }
}

/* ---- every other branch ------------------------------------------------------------------------
 */

static void
claim_now(struct port *p)
{
    struct owner_record rec = example;

    memcpy(rec.uuid, uuid, UUID_SIZE);
    rec.sequence = 1;
    rec.epoch = 1;
    poke_record(p->disk, 1, &rec);
}

static void
of_two_that_take_it_at_once_one_at_most_goes_on(void **state)
{
    (void)state;
    for (int sync = 1; sync < 3; sync++) { /* after the flush at opening: of each record */
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        AUTO(dev_closep) struct dev *port = port_new(disk);
        struct port *p = (struct port *)port;
        struct store *s = NULL;

        p->after_sync = claim_now;
        p->syncs_until = sync;
        assert_int_equal(open_as(&s, port, &a, false), -EBUSY);
        assert_true(was_said("another host is taking it at the same time"));
        assert_int_equal(p->writes, sync);
    }
}

static void
a_host_without_an_id_owns_nothing(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    const struct owner_options nobody = {.host_name = "x"};
    struct owner_record rec;

    (void)state;
    must_fail(disk, &nobody, -EINVAL);
    assert_int_equal(look(disk, &rec), -ENODATA);
}

static void
records_are_kept_where_they_should_be(void **state)
{
    static const struct {
        enum owner_use use;
        bool shared, kept;
    } cases[] = {{OWNER_IF_SHARED, true, true}, {OWNER_IF_SHARED, false, false},
                 {OWNER_ALWAYS, true, true},    {OWNER_ALWAYS, false, true},
                 {OWNER_NEVER, true, false},    {OWNER_NEVER, false, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        struct dev *port = port_new(disk);
        struct owner_options opt = a;
        struct owner_record rec;
        struct store *s = NULL;

        opt.use = cases[i].use;
        port->shared = cases[i].shared;
        assert_int_equal(open_as(&s, port, &opt, false), 0);
        assert_int_equal(look(disk, &rec), cases[i].kept ? 0 : -ENODATA);
        assert_int_equal(put(s, "f", "one"), 0);
        for (unsigned k = 0; k < 2; k++) {
            AUTO(directory_fini) struct directory dir = directory_of(disk, k);

            assert_int_equal(dir.owner.epoch, cases[i].kept ? 1 : 0);
        }
        store_close(s);
    }
}

static void
readers_look_at_no_records(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(store_closep) struct store *s = must_open(disk, &a), *reader = NULL;
    struct dev *port = port_new(disk);
    const struct store_options opt = {.read_only = true, .unlock = testseal_unlock, .owner = &b};
    struct store_info info;

    (void)state;
    assert_int_equal(store_open(&reader, port, &opt), 0);
    store_get_info(reader, &info);
    assert_true(!info.owned && info.owner.epoch == 0);
    assert_int_equal(((struct port *)port)->writes, 0);
    assert_int_equal(put(s, "f", "one"), 0);
}

static void
records_that_cannot_be_read_end_writing(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        AUTO(dev_closep) struct dev *disk = new_disk(false);
        AUTO(dev_closep) struct dev *port = port_new(disk);
        struct store *s = must_open(disk, &a), *other = NULL;
        struct store_info info;

        assert_int_equal(put(s, "f", "one"), 0);
        ((struct port *)s->dev)->fail_records = which;
        assert_int_equal(put(s, "f", "two"), -EIO);
        assert_int_equal(put(s, "f", "three"), -EROFS);
        store_get_info(s, &info);
        assert_true(info.read_only == -EIO && strstr(info.read_only_why, "cannot be read"));
        store_close(s);
        assert_int_equal(record_of(disk).state, OWNER_OWNED); /* not released */
        ((struct port *)port)->fail_records = which;
        assert_int_equal(open_as(&other, port, &a, false), -EBUSY);
        assert_int_equal(((struct port *)port)->writes, 0);
    }
}

static void
who_has_met_a_failure_releases_nothing(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    faultdev_fail(disk, FAULT_SYNC, 0, -EIO, NULL);
    assert_int_equal(put(s, "f", "two"), -EIO);
    store_close(s);
    assert_int_equal(record_of(disk).state, OWNER_OWNED);
}

/* Each way to change an image, when it has been taken over before, or before its nth flush. */
enum way { SETTLE, KEYSLOTS, RESEAL, GROW, RELEASE, WAYS };

static int
go(struct store *s, enum way way)
{
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];

    testseal_keyslots(volume_key + 1, user_key, keyslots);
    switch (way) {
    case SETTLE:
        return store_settle(s);
    case KEYSLOTS:
        testseal_keyslots(volume_key, user_key, keyslots);
        return store_set_keyslots(s, keyslots);
    case RESEAL:
        return store_reseal(s, testseal_keyed(volume_key + 1), keyslots, 32);
    case GROW:
        return store_grow(s, &(struct slot_class){1, 4096}, 1);
    default:
        return store_release(s, false);
    }
}

/* As somebody else would: the sealed image itself need not be read. */
static void
steal_record(struct port *p)
{
    struct owner_record rec = example;

    memcpy(rec.uuid, uuid, UUID_SIZE);
    poke_record(p->disk, 0, &rec);
    taker = (struct store *)p; /* it has happened */
}

static void
whatever_changes_an_image_asks_whose_it_is(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        unsigned flushes = 0;

        for (int nth = -1;; nth++, flushes++) { /* -1: before anything is written */
            AUTO(dev_closep) struct dev *disk = new_disk(true);
            AUTO(store_closep) struct store *s = NULL;
            struct port *p;
            int r;

            assert_int_equal(open_as(&s, port_new(disk), &a, true), 0);
            p = (struct port *)s->dev;
            assert_int_equal(put(s, "f", "one"), 0);
            taker = NULL;
            if (nth < 0) {
                steal_record(p);
            } else {
                p->before_sync = steal_record;
                p->syncs_until = nth;
            }
            p->writes = 0;
            r = go(s, way);
            if (!taker) {
                assert_int_equal(r, 0);
                break;
            }
            if (way == RELEASE && r == 0)
                continue; /* the record was there before the claim: its own flush */
            assert_true(r < 0);
            assert_true(nth >= 0 || p->writes == 0);
            assert_int_equal(put(s, "f", "two"), -EROFS);
        }
        assert_true(flushes >= 2);
    }
    taker = NULL;
}

static void
an_image_that_is_let_go_is_anybody_s(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a), *other;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    assert_int_equal(store_release(s, false), 0);
    assert_int_equal(record_of(disk).state, OWNER_RELEASED);
    other = must_open(disk, &b); /* it changes nothing, */
    assert_int_equal(store_take(s, 0), -EBUSY);
    store_close(other);
    assert_int_equal(store_take(s, 0), 0); /* so it comes back */
    assert_int_equal(record_of(disk).state, OWNER_OWNED);
    assert_int_equal(put(s, "f", "two"), 0);
    assert_int_equal(store_release(s, false), 0);
    other = must_open(disk, &b);
    assert_true(holds(other, "f", "two"));
    assert_int_equal(put(other, "f", "three"), 0);
    store_close(other);
    assert_int_equal(store_take(s, 0), -ESTALE);
    assert_int_equal(record_of(disk).state, OWNER_RELEASED); /* and is left as it was */
    store_close(s);
    store_close(must_open(disk, &b));
}

static void
let_go_now(struct port *p)
{
    (void)p;
    store_close(steal(&taker));
}

/* As long as it would be for a daemon of the same host. */
static void
who_takes_an_image_waits_for_other_hosts_as_long_as_it_was_told(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);
    struct port *p = (struct port *)s->dev;

    (void)state;
    assert_int_equal(store_release(s, false), 0);
    taker = must_open(disk, &b);
    p->on_look = let_go_now;
    p->looks_until = 2;
    assert_int_equal(store_take(s, 10000), 0);
    assert_null(taker);
    assert_int_equal(put(s, "f", "one"), 0);
    store_close(s);
}

static void
a_snapshot_has_no_owner(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(dev_closep) struct dev *copy = faultdev_new(disk->size);
    AUTO(store_closep) struct store *s = NULL;
    const struct owner_options a_forced = forced(&a);
    struct snapshot *sn;
    struct owner_record rec;
    AUTO_FREE uint8_t *bytes = NULL;

    (void)state;
    damage_record(disk, 0);
    s = must_open(disk, &a_forced); /* guarded */
    assert_int_equal(put(s, "f", "one"), 0);
    assert_int_equal(store_snapshot(s, &sn), 0);
    bytes = malloc(snapshot_size(sn));
    assert_int_equal(snapshot_pread(sn, bytes, snapshot_size(sn), 0), 0);
    faultdev_poke(copy, bytes, snapshot_size(sn), 0);
    snapshot_put(sn);
    assert_int_equal(look(copy, &rec), -ENODATA);
    for (unsigned i = 0; i < 2; i++) {
        AUTO(directory_fini) struct directory dir = directory_of(copy, i);

        assert_true(dir.owner.epoch == 0 && dir.owner.first == 0 && !dir.owner.guarded);
    }
}

static int
format_as(struct dev *disk, const struct owner_options *who)
{
    AUTO(dev_closep) struct dev *port = port_new(disk);
    struct format_spec spec = spec_for(false);

    heard[0] = '\0';
    spec.uuid[5] = 5;
    spec.owner = who;
    return store_format(port, &spec, testseal_plain());
}

static void
formatting_takes_the_image_that_was_there(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct store *s = must_open(disk, &a);
    const struct owner_options b_forced = forced(&b);
    uint8_t block[BLOCK_SIZE];
    struct owner_record rec;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    assert_int_equal(format_as(disk, &b), -EBUSY);
    assert_int_equal(put(s, "f", "two"), 0);
    assert_int_equal(format_as(disk, &b_forced), 0);
    assert_int_equal(owner_look(disk, NULL, &rec), 0);
    assert_true(rec.epoch == 2 && rec.state == OWNER_RELEASED && rec.uuid[5] == 5);
    assert_int_equal(put(s, "f", "three"), -EIO);
    store_close(s);
    /* what has been on a device before is no record, and nothing that anybody owns */
    damage_record(disk, 0);
    damage_record(disk, 1);
    assert_int_equal(format_as(disk, &b), 0);
    assert_int_equal(owner_look(disk, NULL, &rec), 0);
    assert_false(rec.guarded);
    /* an owner of a version to come is one, too, and a takeover is one of it */
    owner_record_encode(&rec, block);
    block[12] = 2;
    format_set_crc(block, BLOCK_SIZE);
    faultdev_poke(disk, block, BLOCK_SIZE, OWNER_RECORDS);
    assert_int_equal(format_as(disk, &b), -EPROTONOSUPPORT);
    assert_int_equal(format_as(disk, &b_forced), 0);
    assert_int_equal(owner_look(disk, NULL, &rec), 0);
    /* and where no owner is kept none is left */
    assert_int_equal(format_as(disk, NULL), 0);
    assert_int_equal(owner_look(disk, NULL, &rec), -ENODATA);
}

/* ---- what a former owner writes late -----------------------------------------------------------
 */

static void
a_former_owner_s_late_directory_is_damage(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    const struct store_options degraded = {
        .read_only = true, .degraded = true, .unlock = testseal_unlock};
    AUTO_FREE uint8_t *late = malloc(BLOCK_SIZE);
    struct store *s = must_open(disk, &a);
    struct check_result res;
    char found[4096] = "";
    uint64_t at;

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    at = s->sb.dir_off[s->dir.index]; /* what it will have written there late */
    faultdev_peek(disk, late, BLOCK_SIZE, at);
    store_close(s);
    s = must_open(disk, &b);
    assert_int_equal(put(s, "f", "two"), 0);
    assert_int_equal(put(s, "f", "three"), 0);
    store_close(s);
    faultdev_poke(disk, late, BLOCK_SIZE, at);
    must_fail(disk, &b, -EUCLEAN);
    assert_true(was_said("a former owner (epoch 1) has written a directory after another host took "
                         "it over (epoch 2)"));
    assert_int_equal(record_of(disk).state, OWNER_RELEASED);
    assert_int_equal(check_image(disk, testseal_unlock, NULL, collect, found, &res), -EUCLEAN);
    assert_non_null(strstr(found, "written by a former owner"));
    assert_int_equal(store_open(&s, port_new(disk), &degraded), 0);
    assert_true(holds(s, "f", "three") || holds(s, "f", "two"));
    store_close(s);
}

static void
after_a_takeover_each_commit_is_settled_until_all_are_fenced(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    struct owner_options opt = forced(&b);
    struct store *s = must_open(disk, &a), *other = must_open(disk, &opt);

    (void)state;
    assert_true(other->mark.guarded);
    assert_int_equal(put(other, "f", "one"), 0);
    assert_true(other->dir.clean && other->dir.owner.guarded);
    store_close(s);
    store_close(other);
    s = must_open(disk, &a); /* it stays, through all takings, */
    assert_true(s->mark.guarded);
    assert_int_equal(put(s, "f", "two"), 0);
    assert_true(s->dir.clean);
    store_close(s);
    opt = b;
    opt.fenced = true;
    s = must_open(disk, &opt); /* until somebody knows better */
    assert_false(s->mark.guarded);
    assert_int_equal(put(s, "f", "three"), 0);
    assert_true(!s->dir.clean && !s->dir.owner.guarded);
    store_close(s);
    s = must_open(disk, &a);
    assert_false(s->mark.guarded);
    store_close(s);
}

static void
a_device_that_was_found_again_must_be_ours(void **state)
{
    AUTO(dev_closep) struct dev *disk = new_disk(false);
    AUTO(store_closep) struct store *s = must_open(disk, &a);

    (void)state;
    assert_int_equal(put(s, "f", "one"), 0);
    assert_int_equal(store_witness(s, s->dev), 0);
    steal_record((struct port *)s->dev);
    assert_int_equal(store_witness(s, s->dev), -EBUSY);
    taker = NULL;
}

#define T(name) cmocka_unit_test(name)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_record_survives_the_round_trip),
        T(a_blank_block_is_no_record_and_every_flipped_bit_is_damage),
        T(fields_out_of_range_are_damage_and_newer_versions_unsupported),
        T(the_highest_numbers_of_all_lose_nothing),
        T(a_name_is_printable_whatever_the_host_is_called),
        T(who_opens_owns_and_who_closes_releases),
        T(an_image_that_nobody_changed_is_as_it_was_but_for_the_records),
        T(another_host_is_refused_and_writes_nothing),
        T(letting_go_is_waited_for),
        T(a_former_owner_acknowledges_nothing),
        T(damaged_records_are_taken_by_force_only),
        T(an_image_that_several_took_at_once_is_nobody_s),
        T(a_takeover_that_was_cut_short_is_still_one),
        T(a_former_owner_s_directory_is_not_taken_though_it_is_the_only_one),
        T(a_directory_of_another_taking_beside_a_newer_one_is_damage),
        T(a_record_of_another_image_or_a_newer_version_is_not_passed_over),
        T(directories_say_whose_they_are_before_anything_changes),
        T(an_image_that_is_taken_at_once_was_released),
        T(an_image_that_cannot_be_released_is_not_written_either),
        T(each_commit_asks_before_it_writes),
        T(a_commit_is_not_acknowledged_when_it_was_taken_over_meanwhile),
        T(of_two_that_take_it_at_once_one_at_most_goes_on),
        T(a_host_without_an_id_owns_nothing),
        T(records_are_kept_where_they_should_be),
        T(readers_look_at_no_records),
        T(records_that_cannot_be_read_end_writing),
        T(who_has_met_a_failure_releases_nothing),
        T(whatever_changes_an_image_asks_whose_it_is),
        T(an_image_that_is_let_go_is_anybody_s),
        T(who_takes_an_image_waits_for_other_hosts_as_long_as_it_was_told),
        T(a_snapshot_has_no_owner),
        T(formatting_takes_the_image_that_was_there),
        T(a_former_owner_s_late_directory_is_damage),
        T(after_a_takeover_each_commit_is_settled_until_all_are_fenced),
        T(a_device_that_was_found_again_must_be_ours),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    report_set_sink(hear, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
