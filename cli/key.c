/* SPDX-License-Identifier: BSD-3-Clause */
/* key.c - "vnvram key": who may open a sealed image. */
#include "base/bytes.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/anchor.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/owner.h"
#include "crypt/keyslot.h"
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool
slot_is_free(const uint8_t slot[KEYSLOT_SIZE])
{
    return bytes_are_zero(slot, KEYSLOT_SIZE);
}

static int
used_slots(uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE])
{
    int n = 0;

    for (int i = 0; i < KEYSLOT_COUNT; i++)
        n += !slot_is_free(slots[i]);
    return n;
}

/* ---- changing -----------------------------------------------------------------------------------
 */

/* An image opened to change its keys. */
struct keyring {
    struct anchor *anchor; /* NULL: none */
    struct store *store;
    struct dev *dev; /* until the store owns it */
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE];
    int own; /* the slot that the key given opens */
};

static void
keyring_close(struct keyring *k)
{
    store_close(k->store);
    anchor_close(k->anchor);
    dev_close(k->dev);
}

/* All keys are read, and asked for, before the image is held. */
static int
keyring_open(struct keyring *k, struct options *o, bool with_new)
{
    struct store_options opt = {
        .unlock = keys_unlock, .unlock_arg = &o->key, .owner = owner_from_options(o, o->args[1])};
    int r = keys_read(&o->key, false);

    if (r == 0 && with_new)
        r = keys_read(&o->new_key, true);
    if (r == 0)
        r = dev_open(&k->dev, o->args[1], 0, &o->dev);
    if (r == 0)
        r = anchor_from_options(&k->anchor, o, false);
    opt.anchor = k->anchor;
    if (r == 0)
        r = store_open(&k->store, k->dev, &opt);
    if (r < 0)
        return r;
    k->dev = NULL;
    if (store_superblock(k->store)->seal_mode == SEAL_NONE)
        return report(-EKEYREVOKED, "%s: is not sealed: it has no keys", o->args[1]);
    memcpy(k->slots, store_superblock(k->store)->keyslots, sizeof k->slots);
    k->own = keys_find_slot(&o->key, store_superblock(k->store));
    return k->own < 0 ? k->own : 0;
}

/* The only time that it is shown; stdio would keep a copy in its buffer. */
static int
print_recovery_key(const struct secret *text, const char *image, int slot)
{
    static const char before[] =
        "Recovery key, shown only now; write it down and keep it apart:\n\n    ",
                      after[] = "\n\nIt is given like a passphrase: -o key_format=passphrase\n";
    size_t len = strlen((const char *)text->bytes);

    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error like another */
    fflush(stdout);
    if (write(STDOUT_FILENO, before, sizeof before - 1) < 0 ||
        write(STDOUT_FILENO, text->bytes, len) != (ssize_t)len ||
        write(STDOUT_FILENO, after, sizeof after - 1) < 0)
        return report(-EIO,
                      "%s: the recovery key of key slot %d could not be shown, and is lost; what "
                      "to do: \"vnvram key remove --slot=%d\", and add another",
                      image, slot, slot);
    return 0;
}

static int
no_new_key(void)
{
    return report(-EINVAL, "no new key: give it with -n key_file=FILE, or with -n "
                           "key_format=passphrase to be asked for one");
}

static int
key_add(struct options *o)
{
    AUTO(keyring_close) struct keyring k = {0};
    AUTO(secret_freep) struct secret *text = NULL;
    int slot = 0, r;

    if (o->recovery && o->new_key.given)
        return report(-EINVAL, "--recovery makes a key by itself: leave out -n");
    if (!o->recovery && !o->new_key.given)
        return no_new_key();
    r = keyring_open(&k, o, !o->recovery);
    if (r < 0)
        return r;
    while (slot < KEYSLOT_COUNT && !slot_is_free(k.slots[slot]))
        slot++;
    if (slot == KEYSLOT_COUNT)
        return report(-ENOSPC, "%s: all %d key slots are in use: remove one first", o->args[1],
                      KEYSLOT_COUNT);
    r = o->recovery
            ? keys_wrap_recovery(&o->key, k.slots[slot], &text)
            : keys_wrap(&o->key, &o->new_key, store_superblock(k.store)->key_size, k.slots[slot]);
    if (r == 0)
        r = store_set_keyslots(k.store, k.slots);
    if (r < 0)
        return r;
    printf("key slot %d: added\n", slot);
    return text ? print_recovery_key(text, o->args[1], slot) : 0;
}

static int
key_remove(struct options *o)
{
    AUTO(keyring_close) struct keyring k = {0};
    int r = keyring_open(&k, o, false), slot;

    if (r < 0)
        return r;
    slot = o->slot >= 0 ? o->slot : k.own;
    if (slot_is_free(k.slots[slot]))
        return report(-EINVAL, "%s: key slot %d is free already", o->args[1], slot);
    if (used_slots(k.slots) == 1 && !o->force)
        return report(-EINVAL,
                      "%s: key slot %d is the last one: without it nobody can ever read the image; "
                      "--force removes it all the same",
                      o->args[1], slot);
    memset(k.slots[slot], 0, KEYSLOT_SIZE);
    r = store_set_keyslots(k.store, k.slots);
    if (r == 0)
        printf("key slot %d: removed\n", slot);
    return r;
}

static int
key_change(struct options *o)
{
    AUTO(keyring_close) struct keyring k = {0};
    int r = o->new_key.given ? keyring_open(&k, o, true) : no_new_key();

    if (r == 0)
        r = keys_wrap(&o->key, &o->new_key, store_superblock(k.store)->key_size, k.slots[k.own]);
    if (r == 0)
        r = store_set_keyslots(k.store, k.slots);
    if (r == 0)
        printf("key slot %d: changed\n", k.own);
    return r;
}

static int
key_reseal(struct options *o)
{
    AUTO(keyring_close) struct keyring k = {0};
    struct key_options *key = o->new_key.given ? &o->new_key : &o->key;
    const struct superblock *sb;
    struct sealer *sealer = NULL;
    uint8_t key_size = 0;
    int r = keyring_open(&k, o, o->new_key.given);

    if (r < 0)
        return r;
    if (used_slots(k.slots) > 1 && !o->force)
        return report(
            -EINVAL,
            "%s: the other %d keys cannot be kept, since a reseal needs each of them: --force "
            "drops them, and \"vnvram key add\" adds them again",
            o->args[1], used_slots(k.slots) - 1);
    sb = store_superblock(k.store);
    r = keys_renew_volume(key, sb->uuid, sb->key_epoch + 1, k.slots, &key_size, &sealer);
    if (r == 0)
        r = store_reseal(k.store, sealer, k.slots, key_size);
    if (r == 0)
        printf("resealed: one key, in key slot 0\n");
    return r;
}

/* ---- looking ------------------------------------------------------------------------------------
 */

struct copies {
    struct dev *dev;
    uint8_t *buf[2];
    struct superblock sb[2];
    int r[2], best; /* best: -1 for none */
};

static void
copies_fini(struct copies *c)
{
    dev_close(c->dev);
    free(c->buf[0]);
    free(c->buf[1]);
}

static int
read_copies(struct copies *c)
{
    struct dev *d = c->dev;

    for (int i = 0; i < 2; i++) {
        uint64_t at = i == 0 ? SUPERBLOCK_A : SUPERBLOCK_B;

        c->buf[i] = dev_alloc(BLOCK_SIZE);
        if (!c->buf[i])
            return -ENOMEM;
        c->r[i] = d->size < at + BLOCK_SIZE ? -ERANGE : dev_pread(d, c->buf[i], BLOCK_SIZE, at);
        if (c->r[i] == 0)
            c->r[i] = superblock_decode(&c->sb[i], c->buf[i]);
    }
    c->best = c->r[0] == 0 ? 0 : -1;
    if (c->r[1] == 0 && (c->best < 0 || c->sb[1].sequence > c->sb[0].sequence))
        c->best = 1;
    return 0;
}

/* Without a superblock to show, a look at the whole image tells what is wrong with it. */
static int
explain_none(struct options *o)
{
    struct look look;
    int r = image_look(&look, o->args[1], o);

    if (r < 0)
        return r;
    image_look_fini(&look);
    return report(-EUCLEAN, "%s: no superblock can be read", o->args[1]);
}

/* @flags as for dev_open().  Superblocks change only under the image's lock, never while it is
 * mounted: a mere look needs none. */
static int
copies_open(struct copies *c, struct options *o, unsigned flags)
{
    int r = dev_open(&c->dev, o->args[1], flags, &o->dev);

    if (r == 0)
        r = read_copies(c);
    if (r < 0)
        return r;
    if (c->best < 0)
        return explain_none(o);
    if (c->sb[c->best].seal_mode == SEAL_NONE)
        return report(-EKEYREVOKED, "%s: is not sealed: it has no keys", o->args[1]);
    return 0;
}

/* Opens the superblock with the key given, if one is. */
static int
authenticate(const struct copies *c, struct options *o, int *slot)
{
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    const struct superblock *sb = &c->sb[c->best];
    int r = keys_unlock(&o->key, sb, &sealer);

    if (r == 0)
        r = format_verify(sealer, SEAL_SUPERBLOCK, c->buf[c->best], BLOCK_SIZE);
    if (r == -EBADMSG)
        report(r, "%s: forged: the superblock was changed by somebody without the key", o->args[1]);
    if (r == 0)
        *slot = keys_find_slot(&o->key, sb);
    return r < 0 ? r : 0;
}

static int
key_test(struct options *o)
{
    AUTO(copies_fini) struct copies c = {.best = -1};
    int slot = -1, r = keys_read(&o->key, false);

    if (r == 0)
        r = copies_open(&c, o, DEV_READ_ONLY | DEV_NO_LOCK);
    if (r == 0)
        r = authenticate(&c, o, &slot);
    if (r == 0)
        printf("key slot %d: opens\n", slot);
    return r;
}

static const char *
date_text(char buf[32], int64_t seconds)
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (!gmtime_r(&t, &tm) || !strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(buf, 32, "unknown");
    return buf;
}

static void
print_slot(int i, const struct keyslot *ks, int r, bool opens)
{
    char date[32], kdf[96] = "", memory[SIZE_TEXT];

    if (r < 0) {
        printf("%d: %s\n", i,
               r == -ENODATA   ? "free"
               : r == -EUCLEAN ? "damaged"
                               : "of a newer kind");
        return;
    }
    if (ks->type == KEYSLOT_PASSPHRASE)
        snprintf(kdf, sizeof kdf, ", Argon2id (%s, %u pass%s, %u lane%s)",
                 size_text(memory, ks->cost.memory * UINT64_C(1024)), ks->cost.passes,
                 ks->cost.passes == 1 ? "" : "es", ks->cost.lanes, ks->cost.lanes == 1 ? "" : "s");
    printf("%d: %s, %u bits%s, added %s%s\n", i, keyslot_type_name(ks->type), ks->kek_size * 8U,
           kdf, date_text(date, ks->created), opens ? ", opened by the key given" : "");
}

static struct json_object *
slot_json(int i, const struct keyslot *ks, int r)
{
    struct json_object *o = json_object_new_object();
    char date[32];

    json_object_object_add(o, "slot", json_object_new_int(i));
    if (r < 0) {
        json_object_object_add(o, "type",
                               json_object_new_string(r == -EUCLEAN ? "damaged" : "unknown"));
        return o;
    }
    json_object_object_add(o, "type", json_object_new_string(keyslot_type_name(ks->type)));
    json_object_object_add(o, "bits", json_object_new_int(ks->kek_size * 8));
    json_object_object_add(o, "added", json_object_new_string(date_text(date, ks->created)));
    if (ks->type == KEYSLOT_PASSPHRASE) {
        json_object_object_add(o, "argon2id_memory_kib", json_object_new_int64(ks->cost.memory));
        json_object_object_add(o, "argon2id_passes", json_object_new_int64(ks->cost.passes));
        json_object_object_add(o, "argon2id_lanes", json_object_new_int64(ks->cost.lanes));
    }
    return o;
}

static void
print_slots(const struct options *o, const struct superblock *sb, int opened)
{
    struct json_object *root = NULL, *list = NULL;

    if (o->json) {
        root = json_object_new_object();
        list = json_object_new_array();
        json_add_text(root, "image", o->args[1]);
        json_object_object_add(root, "cipher_bits", json_object_new_int(sb->key_size * 8));
        json_object_object_add(root, "key_epoch", json_object_new_int64(sb->key_epoch));
        json_object_object_add(root, "opened", opened >= 0 ? json_object_new_int(opened) : NULL);
        json_object_object_add(root, "slots", list);
    }
    for (int i = 0; i < KEYSLOT_COUNT; i++) {
        struct keyslot ks = {0};
        int r = keyslot_decode(&ks, sb->keyslots[i]);

        if (!o->json)
            print_slot(i, &ks, r, i == opened);
        else if (r != -ENODATA)
            json_object_array_add(list, slot_json(i, &ks, r));
    }
    if (o->json)
        json_print(root);
}

static int
key_list(struct options *o)
{
    AUTO(copies_fini) struct copies c = {.best = -1};
    int opened = -1, r = keys_read(&o->key, false);

    if (r == 0)
        r = copies_open(&c, o, DEV_READ_ONLY | DEV_NO_LOCK);
    if (r == 0 && o->key.given)
        r = authenticate(&c, o, &opened);
    if (r == 0)
        print_slots(o, &c.sb[c.best], opened);
    return r;
}

/* ---- destroying ---------------------------------------------------------------------------------
 */

/* Without a key nothing can be authenticated anew: the tag is left zero, since nobody is left who
 * could verify it. */
static int
overwrite_keyslots(struct dev *d, struct superblock *sb)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    int r;

    if (!buf)
        return -ENOMEM;
    memset(sb->keyslots, 0, sizeof sb->keyslots);
    superblock_encode(sb, buf);
    format_set_crc(buf, BLOCK_SIZE);
    for (int i = 0; i < 2; i++) {
        r = dev_pwrite(d, buf, BLOCK_SIZE, i == 0 ? SUPERBLOCK_A : SUPERBLOCK_B);
        if (r == 0)
            r = dev_sync(d);
        if (r < 0)
            return r;
    }
    return 0;
}

static int
key_destroy(struct options *o)
{
    AUTO(copies_fini) struct copies c = {.best = -1};
    int slot, r;

    if (!o->key.given && !o->force)
        return report(-EINVAL,
                      "%s: destroying the keys makes the image unreadable for good: give one of "
                      "them, or --force",
                      o->args[1]);
    r = keys_read(&o->key, false);
    if (r == 0)
        r = copies_open(&c, o, 0);
    if (r == 0 && o->key.given)
        r = authenticate(&c, o, &slot);
    if (r == 0) /* of a host that has it mounted it would be gone, too */
        r = owner_may_take(owner_from_options(o, o->args[1]), c.dev);
    if (r == 0)
        r = overwrite_keyslots(c.dev, &c.sb[c.best]);
    if (r == 0)
        printf("all key slots: destroyed\n");
    return r;
}

int
cmd_key(struct options *o)
{
    static const struct {
        const char *name;
        int (*run)(struct options *o);
        bool takes_new;
    } actions[] = {
        {"add", key_add, true},          {"remove", key_remove, false},
        {"change", key_change, true},    {"reseal", key_reseal, true},
        {"list", key_list, false},       {"test", key_test, false},
        {"destroy", key_destroy, false},
    };

    o->key.of = o->new_key.of = o->args[1];
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        int r;

        if (strcmp(o->args[0], actions[i].name) != 0)
            continue;
        if (o->new_key.given && !actions[i].takes_new)
            r = report(-EINVAL, "key %s takes no new key (-n)", o->args[0]);
        else if (o->json && actions[i].run != key_list)
            r = report(-EINVAL, "key %s has no answer in JSON: --json is for key list", o->args[0]);
        else
            r = actions[i].run(o);
        if (r == -EINVAL)
            return EXIT_USAGE;
        if (r == -EKEYREVOKED && !o->key.given)
            return finding_exit_code(r); /* there is no key to leave out */
        return image_advise(o->args[1], r);
    }
    report(-EINVAL,
           "key: there is no action \"%s\": add, remove, change, reseal, list, test or destroy",
           o->args[0]);
    return EXIT_USAGE;
}
