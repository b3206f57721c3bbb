/* SPDX-License-Identifier: BSD-3-Clause */
/* sealedimage.h - what the tests of sealing share: keys, files in a store, and what a user sees of
 * it. */
#ifndef VNVRAM_TESTS_SEALEDIMAGE_H
#define VNVRAM_TESTS_SEALEDIMAGE_H

#include "core/store.h"
#include "crypt/keys.h"

enum { MAX_FILES = 8 };

/* What a user sees: names, attributes, contents. */
struct state {
    size_t n;
    struct entry entry[MAX_FILES];
    uint8_t *content[MAX_FILES];
};

int state_read(struct store *s, struct state *st); /* 0 or the finding */
bool state_equal(const struct state *a, const struct state *b);
void state_fini(struct state *st);

struct key_options key_of(const char *hex);

/* A new sealed image on @d; *@key opens it. */
void format_sealed(struct dev *d, const struct format_spec *spec, struct key_options *key);
struct store *open_sealed(struct dev *d, struct key_options *key); /* for writing; must open */

/* Writes @len bytes made from @seed as the file @name. */
void put_file(struct store *s, const char *name, size_t len, uint8_t seed);
void unlink_file(struct store *s, const char *name);

#endif
