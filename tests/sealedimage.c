/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sealedimage.h"
#include "base/scope.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct key_options
key_of(const char *hex)
{
    struct key_options opt = KEY_OPTIONS_INIT;

    assert_int_equal(key_options_set(&opt, "key", hex), 0);
    assert_int_equal(key_options_set(&opt, "key_format", "hex"), 0);
    return opt;
}

void
state_fini(struct state *st)
{
    for (size_t i = 0; i < st->n; i++)
        free(st->content[i]);
    st->n = 0;
}

int
state_read(struct store *s, struct state *st)
{
    AUTO_FREE struct entry *list = NULL;
    size_t n = 0;
    int r = store_list(s, &list, &n);

    *st = (struct state){0};
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (list[i].kind != ENTRY_FILE)
            continue;
        assert_true(st->n < MAX_FILES);
        st->entry[st->n] = list[i];
        st->content[st->n] = calloc(1, list[i].current.length + 1);
        assert_non_null(st->content[st->n]);
        r = store_read(s, &list[i].current, st->content[st->n++]);
    }
    return r;
}

static bool
same_attr(const struct file_attr *a, const struct file_attr *b)
{
    return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
           a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

bool
state_equal(const struct state *a, const struct state *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct entry *x = &a->entry[i], *y = &b->entry[i];

        if (strcmp(x->name, y->name) != 0 || !same_attr(&x->attr, &y->attr) ||
            x->current.length != y->current.length ||
            memcmp(a->content[i], b->content[i], x->current.length) != 0)
            return false;
    }
    return true;
}

void
format_sealed(struct dev *d, const struct format_spec *spec, struct key_options *key)
{
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    struct format_spec sp = *spec;

    sp.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
    assert_int_equal(keys_new_volume(key, sp.uuid, sp.keyslots, &sp.key_size, &sealer), 0);
    assert_int_equal(store_format(d, &sp, sealer), 0);
}

struct store *
open_sealed(struct dev *d, struct key_options *key)
{
    const struct store_options opt = {.unlock = keys_unlock, .unlock_arg = key};
    struct store *s = NULL;

    assert_int_equal(store_open(&s, d, &opt), 0);
    return s;
}

void
put_file(struct store *s, const char *name, size_t len, uint8_t seed)
{
    AUTO_FREE uint8_t *data = malloc(len + 1);
    struct change c = {.op = CHANGE_FILE,
                       .name = name,
                       .has_content = true,
                       .len = len,
                       .attr = {.mode = 0600, .mtime = {.tv_sec = seed}}};
    struct entry e;
    uint64_t generation;

    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(seed + i * 7 + i / 251);
    c.data = data;
    if (store_find(s, name, &e) == 0 && e.kind == ENTRY_FILE) {
        c.id = e.id;
        c.slot = e.slot;
        store_slot_hold(s, c.slot);
    } else {
        c.id = store_new_id(s);
        assert_int_equal(store_slot_take(s, len, name, &c.slot), 0);
    }
    assert_int_equal(store_commit(s, &c, 1, &generation), 0);
    store_slot_drop(s, c.slot);
}

void
unlink_file(struct store *s, const char *name)
{
    struct change c = {.op = CHANGE_UNLINK};
    struct entry e;

    assert_int_equal(store_find(s, name, &e), 0);
    c.id = e.id;
    assert_int_equal(store_commit(s, &c, 1, NULL), 0);
}
