/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/testimage.h"
#include "base/scope.h"
#include "tests/faultdev.h"
#include "tests/testseal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct sealer *
sealer_for(uint8_t seal_mode, uint64_t volume)
{
    return seal_mode == SEAL_NONE ? testseal_plain() : testseal_keyed(volume);
}

void
testimage_seal(struct format_spec *spec, uint64_t volume, uint64_t user)
{
    spec->seal_mode = SEAL_AES_CBC_HMAC_SHA256;
    spec->key_size = 32;
    testseal_keyslots(volume, user, spec->keyslots);
}

struct dev *
testimage_new(const struct format_spec *spec, uint64_t volume, uint64_t more)
{
    AUTO(sealer_freep) struct sealer *sealer = sealer_for(spec->seal_mode, volume);
    struct superblock sb;
    struct dev *d;

    assert_int_equal(store_layout(&sb, spec, NULL), 0);
    d = faultdev_new(sb.image_size + more);
    assert_int_equal(store_format(d, spec, sealer), 0);
    return d;
}

struct superblock
superblock_of(const struct dev *d)
{
    struct superblock sb;
    uint8_t buf[BLOCK_SIZE];

    faultdev_peek(d, buf, sizeof buf, SUPERBLOCK_A);
    assert_int_equal(superblock_decode(&sb, buf), 0);
    return sb;
}

unsigned
newest_directory(const struct dev *d)
{
    const struct superblock sb = superblock_of(d);
    uint64_t generation[2], len;
    uint8_t buf[BLOCK_SIZE];

    for (int i = 0; i < 2; i++) {
        faultdev_peek(d, buf, sizeof buf, sb.dir_off[i]);
        assert_int_equal(directory_peek(buf, sb.dir_capacity, &len, &generation[i]), 0);
    }
    return generation[1] > generation[0];
}

void
testimage_edit_directory(struct dev *d, unsigned index, uint64_t volume,
                         void (*edit)(struct directory *dir))
{
    const struct superblock sb = superblock_of(d);
    AUTO(sealer_freep) struct sealer *sealer = sealer_for(sb.seal_mode, volume);
    AUTO(directory_fini) struct directory dir = {0};
    static uint8_t buf[4 * BLOCK_SIZE];
    uint64_t len, generation;

    faultdev_peek(d, buf, sizeof buf, sb.dir_off[index]);
    assert_int_equal(directory_peek(buf, sizeof buf, &len, &generation), 0);
    assert_int_equal(directory_decode(&dir, buf, len, &sb), 0);
    edit(&dir);
    memset(buf, 0, sizeof buf);
    directory_encode(&dir, sb.uuid, buf);
    assert_int_equal(format_seal(sealer, SEAL_DIRECTORY, buf, directory_size(&dir)), 0);
    faultdev_poke(d, buf, directory_size(&dir), sb.dir_off[index]);
}

int
testimage_put(struct store *s, const char *name, const void *data, size_t len,
              const struct file_attr *attr)
{
    struct change c = {
        .op = CHANGE_FILE, .name = name, .has_content = true, .data = data, .len = len};
    struct entry e;
    int r;

    c.attr = attr ? *attr : (struct file_attr){.mode = 0600};
    if (store_find(s, name, &e) == 0 && e.kind == ENTRY_FILE) {
        c.id = e.id;
        c.slot = e.slot;
        return store_commit(s, &c, 1, NULL);
    }
    r = store_slot_take(s, len, name, &c.slot);
    if (r < 0)
        return r;
    c.id = store_new_id(s);
    r = store_commit(s, &c, 1, NULL);
    store_slot_drop(s, c.slot);
    return r;
}

int
testimage_unlink(struct store *s, const char *name)
{
    struct change c = {.op = CHANGE_UNLINK};
    struct entry e;

    assert_int_equal(store_find(s, name, &e), 0);
    c.id = e.id;
    return store_commit(s, &c, 1, NULL);
}
