/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/keys.h"
#include "base/bytes.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include "crypt/kdf.h"
#include "crypt/keyslot.h"
#include "crypt/keysource.h"
#include "crypt/recovery.h"
#include "crypt/sealed.h"
#include <errno.h>
#include <gcrypt.h>
#include <string.h>
#include <time.h>

int
keys_read(struct key_options *opt, bool is_new)
{
    if (opt->key || !opt->given)
        return 0;
    opt->is_passphrase = opt->format == KEY_FORMAT_PASSPHRASE;
    return keysource_read(opt, is_new, &opt->key);
}

/* ---- from the user's key to the key that wraps ---- */

static int
recovery_kek(const struct keyslot *ks, const struct secret *recovery, struct secret **kek)
{
    static const char info[] = "vnvram recovery key";
    int r = secret_new(kek, ks->kek_size);

    if (r < 0)
        return r;
    return hkdf_sha256(recovery->bytes, recovery->len, ks->salt, KEYSLOT_SALT, info,
                       sizeof info - 1, (*kek)->bytes, ks->kek_size);
}

static int
passphrase_kek(const struct keyslot *ks, const struct secret *passphrase, struct secret **kek)
{
    AUTO_PROGRESS bool shown = progress_started("deriving the key from the passphrase", 0);
    int r = secret_new(kek, ks->kek_size);
    bool locked;

    if (r < 0)
        return r;
    locked = secret_lock_all((size_t)ks->cost.memory * 1024);
    r = kdf_argon2id(passphrase, ks->salt, KEYSLOT_SALT, &ks->cost, NULL, (*kek)->bytes,
                     ks->kek_size);
    secret_unlock_all(locked);
    return r;
}

/* -EKEYREJECTED when a key of this kind or size cannot be the slot's. */
static int
slot_kek(const struct keyslot *ks, const struct key_options *opt, const struct secret *recovery,
         struct secret **kek)
{
    if (ks->type == KEYSLOT_RAW && !opt->is_passphrase && opt->key->len == ks->kek_size)
        return secret_copy(kek, opt->key->bytes, opt->key->len);
    if (ks->type == KEYSLOT_PASSPHRASE && opt->is_passphrase)
        return passphrase_kek(ks, opt->key, kek);
    if (ks->type == KEYSLOT_RECOVERY && recovery)
        return recovery_kek(ks, recovery, kek);
    return -EKEYREJECTED;
}

/* ---- opening ---- */

static int
try_slot(const struct keyslot *ks, const struct key_options *opt, const struct secret *recovery,
         struct secret **volume_key)
{
    AUTO(secret_freep) struct secret *kek = NULL, *vk = NULL;
    int r;

    if ((r = slot_kek(ks, opt, recovery, &kek)) < 0 || (r = secret_new(&vk, VOLUME_KEY_SIZE)) < 0)
        return r;
    r = aes_unwrap(kek->bytes, kek->len, ks->wrapped, KEYSLOT_WRAPPED, vk->bytes);
    if (r == 0)
        *volume_key = steal(&vk);
    return r;
}

static void
remember(struct key_options *opt, struct secret *volume_key, const uint8_t slot[KEYSLOT_SIZE])
{
    secret_free(opt->volume_key);
    opt->volume_key = volume_key;
    memcpy(opt->opened_slot, slot, KEYSLOT_SIZE);
}

/* Tries the slots that cost nothing, or (@costly) those that take Argon2id.  The slot's number, or
 * -EKEYREJECTED. */
static int
try_slots(struct key_options *opt, const struct superblock *sb, const struct secret *recovery,
          bool costly)
{
    for (int i = 0; i < KEYSLOT_COUNT; i++) {
        struct secret *volume_key = NULL;
        struct keyslot ks;
        int r = keyslot_decode(&ks, sb->keyslots[i]);

        if (r < 0 && r != -ENODATA && costly)
            report_at(REPORT_WARNING, 0, "key slot %d is not tried: %s", i,
                      r == -EUCLEAN ? "it is damaged"
                                    : "it is of a newer kind, or asks for too much memory or time");
        if (r < 0 || (ks.type == KEYSLOT_PASSPHRASE) != costly)
            continue;
        r = try_slot(&ks, opt, recovery, &volume_key);
        if (r == 0) {
            remember(opt, volume_key, sb->keyslots[i]);
            return i;
        }
        if (r != -EKEYREJECTED)
            return r;
    }
    return -EKEYREJECTED;
}

/* Once, however many superblocks were tried. */
static int
say_rejected(struct key_options *opt, const struct superblock *sb, unsigned bad_group)
{
    if (opt->rejected)
        return -EKEYREJECTED;
    opt->rejected = true;
    if (bytes_are_zero(sb->keyslots[0], sizeof sb->keyslots))
        return report(-EKEYREJECTED,
                      "the image has no key slots any more: its keys were destroyed, and "
                      "nothing opens it");
    if (bad_group)
        return report(-EKEYREJECTED,
                      "wrong key: if this is a recovery key, group %u of it is mistyped",
                      bad_group);
    return report(-EKEYREJECTED, "wrong key: it opens none of the image's key slots");
}

int
keys_find_slot(struct key_options *opt, const struct superblock *sb)
{
    AUTO(secret_freep) struct secret *recovery = NULL;
    unsigned group = 0;
    int r = keys_read(opt, false);

    if (r < 0)
        return r;
    for (int i = 0; opt->volume_key && i < KEYSLOT_COUNT; i++) {
        if (memcmp(opt->opened_slot, sb->keyslots[i], KEYSLOT_SIZE) == 0)
            return i; /* the other superblock, or the same again */
    }
    if (opt->is_passphrase) {
        r = recovery_parse(&recovery, opt->key, &group);
        if (r < 0 && r != -ENOENT && r != -EINVAL)
            return r;
    }
    r = try_slots(opt, sb, recovery, false);
    if (r == -EKEYREJECTED)
        r = try_slots(opt, sb, recovery, true);
    return r == -EKEYREJECTED ? say_rejected(opt, sb, group) : r;
}

int
keys_unlock(void *arg, const struct superblock *sb, struct sealer **out)
{
    struct key_options *opt = arg;
    bool given = opt && opt->given;
    int r;

    if (sb->seal_mode == SEAL_NONE) {
        if (given)
            return report(-EKEYREVOKED, "a key was given, but the image is not sealed");
        *out = sealer_plain();
        return 0;
    }
    if (sb->seal_mode != SEAL_AES_CBC_HMAC_SHA256 || !aes_key_size_ok(sb->key_size))
        return report(-EPROTONOSUPPORT,
                      "the image is sealed in a way that is not supported "
                      "(mode %u, key of %u bytes)",
                      sb->seal_mode, sb->key_size);
    if (!given)
        return report(-ENOKEY, "the image is sealed: give its key (-o key_file=FILE, or "
                               "-o key_format=passphrase to be asked for it)");
    r = keys_find_slot(opt, sb);
    if (r < 0)
        return r;
    return sealer_sealed_new(out, opt->volume_key, sb->uuid, sb->key_epoch, sb->key_size);
}

/* ---- making ---- */

static int
choose_cost(const struct key_options *opt, struct kdf_cost *cost)
{
    int r;

    if (!opt->kdf_memory && !opt->kdf_time)
        return kdf_benchmark(cost);
    *cost = kdf_default_cost();
    if (opt->kdf_memory)
        cost->memory = opt->kdf_memory;
    if (opt->kdf_time)
        cost->passes = opt->kdf_time;
    r = kdf_cost_ok(cost) ? 0 : -EINVAL;
    return r < 0 ? report(r, "kdf_memory= times kdf_time= is more than an unlock may take") : 0;
}

static int
wrap(struct keyslot *ks, const struct secret *kek, const struct secret *volume_key,
     uint8_t slot[KEYSLOT_SIZE])
{
    int r = aes_wrap(kek->bytes, kek->len, volume_key->bytes, volume_key->len, ks->wrapped);

    if (r < 0)
        return report(r, "cannot wrap the volume key: %s", errno_text(r));
    ks->created = time(NULL);
    keyslot_encode(ks, slot);
    return 0;
}

/* Bytes of the key that @opt has read, or that it asks for with a passphrase. */
static int
choose_key_size(const struct key_options *opt, uint8_t *size)
{
    if (opt->is_passphrase)
        *size = (uint8_t)(opt->key_size ? opt->key_size : 32);
    else
        *size = (uint8_t)opt->key->len;
    if (opt->key_size && *size != opt->key_size)
        return report(-EINVAL, "the key has %u bits, but key_size=%u was asked for", *size * 8U,
                      opt->key_size * 8);
    return 0;
}

/* A recovery key that is given as the new key stays one: it may be typed with or without dashes. */
static int
wrap_for(const struct key_options *opt, uint8_t kek_size, const struct secret *volume_key,
         uint8_t slot[KEYSLOT_SIZE])
{
    AUTO(secret_freep) struct secret *kek = NULL, *recovery = NULL;
    struct keyslot ks = {.type = KEYSLOT_RAW, .kek_size = kek_size};
    unsigned group;
    int r = opt->is_passphrase ? recovery_parse(&recovery, opt->key, &group) : -ENOENT;

    if (r < 0 && r != -ENOENT && r != -EINVAL)
        return r;
    if (opt->is_passphrase) {
        ks.type = recovery ? KEYSLOT_RECOVERY : KEYSLOT_PASSPHRASE;
        gcry_randomize(ks.salt, KEYSLOT_SALT, GCRY_STRONG_RANDOM);
    }
    if (ks.type == KEYSLOT_PASSPHRASE && (r = choose_cost(opt, &ks.cost)) < 0)
        return r;
    r = slot_kek(&ks, opt, recovery, &kek);
    return r < 0 ? r : wrap(&ks, kek, volume_key, slot);
}

int
keys_renew_volume(struct key_options *opt, const uint8_t uuid[UUID_SIZE], uint32_t key_epoch,
                  uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size,
                  struct sealer **out)
{
    AUTO(secret_freep) struct secret *volume_key = NULL;
    struct sealer *sealer = NULL;
    uint8_t size;
    int r;

    if ((r = keys_read(opt, true)) < 0)
        return r;
    if (!opt->key)
        return report(-ENOKEY,
                      "sealing needs a key: give key_file=, key_fd= or key_format=passphrase");
    if ((r = choose_key_size(opt, &size)) < 0 ||
        (r = secret_random(&volume_key, VOLUME_KEY_SIZE)) < 0)
        return r;
    memset(keyslots, 0, (size_t)KEYSLOT_COUNT * KEYSLOT_SIZE);
    if ((r = wrap_for(opt, size, volume_key, keyslots[0])) < 0 ||
        (r = sealer_sealed_new(&sealer, volume_key, uuid, key_epoch, size)) < 0)
        return r;
    remember(opt, steal(&volume_key), keyslots[0]);
    *key_size = size;
    *out = sealer;
    return 0;
}

int
keys_new_volume(struct key_options *opt, const uint8_t uuid[UUID_SIZE],
                uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size,
                struct sealer **out)
{
    return keys_renew_volume(opt, uuid, 1, keyslots, key_size, out);
}

int
keys_wrap(const struct key_options *opt, struct key_options *added, uint8_t key_size,
          uint8_t slot[KEYSLOT_SIZE])
{
    uint8_t size;
    int r = keys_read(added, true);

    if (r < 0)
        return r;
    if (!added->key)
        return report(-ENOKEY, "no new key: give it with -n key_file=FILE, or with "
                               "-n key_format=passphrase to be asked for one");
    if ((r = choose_key_size(added, &size)) < 0)
        return r;
    if (size < key_size)
        return report(-EINVAL,
                      "the image is sealed with AES-%u: the new key must not have fewer bits",
                      key_size * 8U);
    return wrap_for(added, size, opt->volume_key, slot);
}

int
keys_wrap_recovery(const struct key_options *opt, uint8_t slot[KEYSLOT_SIZE], struct secret **text)
{
    AUTO(secret_freep) struct secret *recovery = NULL, *kek = NULL, *shown = NULL;
    struct keyslot ks = {.type = KEYSLOT_RECOVERY, .kek_size = 32};
    int r;

    if ((r = secret_random(&recovery, RECOVERY_SIZE)) < 0 ||
        (r = secret_new(&shown, RECOVERY_TEXT)) < 0)
        return r;
    gcry_randomize(ks.salt, KEYSLOT_SALT, GCRY_STRONG_RANDOM);
    if ((r = recovery_kek(&ks, recovery, &kek)) < 0 ||
        (r = wrap(&ks, kek, opt->volume_key, slot)) < 0)
        return r;
    recovery_format(recovery, shown);
    *text = steal(&shown);
    return 0;
}
