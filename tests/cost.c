/* SPDX-License-Identifier: BSD-3-Clause */
/* cost.c - what scripts/cost counts the instructions of: cost SCENARIO ROUNDS.
 *
 * Everything is in memory, so that only our own code and the libraries are there to be counted. */
#include "base/scope.h"
#include "core/store.h"
#include "crypt/keys.h"
#include "fs/node.h"
#include "tests/memdev.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { PERMALL = 1370, LARGE = 145000 };

struct bench {
    void *image;
    struct key_options key;
    struct store *store;
    struct nodes *nodes;
    struct handle *handle;
    size_t len;
};

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "cost: line %d: %s\n", __LINE__, #condition);                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void
open_store(struct bench *b, uint64_t size)
{
    const struct store_options opt = {.unlock = keys_unlock, .unlock_arg = &b->key};

    MUST(store_open(&b->store, memdev_new(b->image, size), &opt) == 0);
}

/* An image with @files small files, of which "f" is open and has @len bytes. */
static void
set_up(struct bench *b, bool sealed, unsigned files, size_t len)
{
    const struct slot_class classes[] = {{.count = 4 + files, .capacity = 4096},
                                         {.count = 4, .capacity = 256 << 10}};
    struct format_spec spec = {
        .classes = classes, .n_classes = 2, .root = {.mode = 0755}, .uuid = "0123456789abcde"};
    const struct nodes_options opt = {0};
    const struct file_attr who = {.mode = 0600};
    AUTO(sealer_freep) struct sealer *sealer = sealed ? NULL : sealer_plain();
    struct superblock sb;
    struct dev *d;
    struct node_stat st;

    *b = (struct bench){.key = KEY_OPTIONS_INIT, .len = len};
    MUST(crypt_init() == 0 && store_layout(&sb, &spec, NULL) == 0);
    b->image = calloc(1, sb.image_size);
    if (sealed) {
        spec.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
        MUST(key_options_set(&b->key, "key_format", "hex") == 0);
        MUST(key_options_set(&b->key, "key",
                             "000102030405060708090a0b0c0d0e0f"
                             "101112131415161718191a1b1c1d1e1f") == 0);
        MUST(keys_new_volume(&b->key, spec.uuid, spec.keyslots, &spec.key_size, &sealer) == 0);
    }
    d = memdev_new(b->image, sb.image_size);
    MUST(store_format(d, &spec, sealer) == 0);
    dev_close(d);
    open_store(b, sb.image_size);
    MUST(nodes_new(&b->nodes, b->store, &opt) == 0);
    for (unsigned i = 0; i < files; i++) {
        char name[16];

        snprintf(name, sizeof name, "file%u", i);
        MUST(node_mknod(b->nodes, name, &who, &st) == 0);
    }
    MUST(nodes_sync(b->nodes) == 0);
    MUST(node_create(b->nodes, "f", &who, O_RDWR | O_CREAT, true, &st, &b->handle) == 0);
}

static void
tear_down(struct bench *b)
{
    MUST(node_release(b->nodes, b->handle) == 0);
    nodes_free(b->nodes);
    store_close(b->store);
    key_options_fini(&b->key);
    free(b->image);
}

static void
commits(bool sealed, unsigned files, size_t len, unsigned rounds)
{
    AUTO_FREE uint8_t *data = calloc(1, len);
    struct bench b;

    set_up(&b, sealed, files, len);
    for (unsigned i = 0; i < rounds; i++) {
        data[i % len]++;
        MUST(node_write(b.nodes, b.handle, data, len, 0, false) == 0);
        MUST(node_fsync(b.nodes, b.handle, false) == 0);
    }
    tear_down(&b);
}

static void
commit(unsigned rounds)
{
    commits(false, 0, PERMALL, rounds);
}

static void
commit_sealed(unsigned rounds)
{
    commits(true, 0, PERMALL, rounds);
}

static void
commit_large(unsigned rounds)
{
    commits(false, 0, LARGE, rounds);
}

static void
commit_large_sealed(unsigned rounds)
{
    commits(true, 0, LARGE, rounds);
}

static void
commit_of_400(unsigned rounds)
{
    commits(false, 400, PERMALL, rounds);
}

static void
renames(unsigned rounds)
{
    const struct file_attr who = {.mode = 0600};
    static const uint8_t data[PERMALL];
    struct node_stat st;
    struct handle *h;
    struct bench b;

    set_up(&b, false, 0, PERMALL);
    for (unsigned i = 0; i < rounds; i++) {
        MUST(node_create(b.nodes, "t", &who, O_WRONLY | O_CREAT, true, &st, &h) == 0);
        MUST(node_write(b.nodes, h, data, sizeof data, 0, false) == 0);
        MUST(node_flush(b.nodes, h) == 0 && node_release(b.nodes, h) == 0);
        MUST(node_rename(b.nodes, "t", "g", 0) == 0);
        node_forget(b.nodes, st.id, 1);
    }
    tear_down(&b);
}

static void
reads(unsigned rounds)
{
    static const uint8_t data[16384];
    struct handle *h;
    struct node_stat st;
    struct view v;
    struct bench b;

    set_up(&b, false, 0, PERMALL);
    MUST(node_write(b.nodes, b.handle, data, sizeof data, 0, false) == 0);
    MUST(node_fsync(b.nodes, b.handle, false) == 0);
    for (unsigned i = 0; i < rounds; i++) {
        MUST(node_lookup(b.nodes, "f", &st) == 0);
        MUST(node_open(b.nodes, st.id, O_RDONLY, true, &h) == 0);
        MUST(node_read(b.nodes, h, sizeof data, 0, &v) == 0 && v.len == sizeof data);
        node_put_view(&v);
        MUST(node_release(b.nodes, h) == 0);
        node_forget(b.nodes, st.id, 1);
    }
    tear_down(&b);
}

static void
opens(bool sealed, unsigned rounds)
{
    struct bench b;
    uint64_t size;

    set_up(&b, sealed, 20, PERMALL);
    size = store_superblock(b.store)->image_size;
    for (unsigned i = 0; i < rounds; i++) {
        struct store *keep = b.store;

        open_store(&b, size);
        store_close(b.store);
        b.store = keep;
    }
    tear_down(&b);
}

static void
open_plain(unsigned rounds)
{
    opens(false, rounds);
}

static void
open_sealed(unsigned rounds)
{
    opens(true, rounds);
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(unsigned rounds);
    } scenarios[] = {
        {"commit", commit},
        {"commit-sealed", commit_sealed},
        {"commit-large", commit_large},
        {"commit-large-sealed", commit_large_sealed},
        {"commit-of-400", commit_of_400},
        {"rename", renames},
        {"read", reads},
        {"open", open_plain},
        {"open-sealed", open_sealed},
    };

    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (argc == 2 && strcmp(argv[1], "list") == 0)
            puts(scenarios[i].name);
        if (argc == 3 && strcmp(argv[1], scenarios[i].name) == 0) {
            scenarios[i].run((unsigned)strtoul(argv[2], NULL, 10));
            return 0;
        }
    }
    return argc == 2 ? 0 : 2;
}
