/* SPDX-License-Identifier: BSD-3-Clause */
/* image.h - what the commands share: a look at an image beside whoever has it open, and the words
 * that tell a person what to do about a finding. */
#ifndef VNVRAM_CLI_IMAGE_H
#define VNVRAM_CLI_IMAGE_H

#include "cli/options.h"
#include "core/store.h"

/* Says what to do next about the finding @r of the image at @path, after whoever found it said what
 * it is.  Returns the exit code of @r. */
int image_advise(const char *path, int r);

/* Reports are kept back between begin and end: a look at an image that a daemon writes may catch a
 * commit in the middle, and then is taken again.  end() shows those of the last try, or drops them.
 */
void image_hold_reports(void);
void image_drop_reports(void);
void image_show_reports(void);

/* That an image that is not sealed goes over a network in the clear. */
void image_warn_exposed(const struct dev *d);

/* How often a look is taken, and how long after the one before. */
enum { LOOK_TRIES = 5, LOOK_PAUSE_MS = 60 };
void image_pause(void);

/* An open image, or what can be told of a sealed one without its key. */
struct look {
    struct store_info info;
    struct superblock sb;
    struct entry *entries;
    size_t n_entries;
    struct owner_record owner;  /* the one that counts, as .owner_r says: */
    int owner_r;                /* of owner_look() */
    struct anchor_point anchor; /* .generation 0: none was given, or nothing is authenticated */
    bool key_missing;           /* nothing was authenticated, no bank was read */
};

/* Opens the image @path read-only, with the key of @o, without its lock and without writing to it,
 * and compares it with the anchor of @o, if there is one.  Findings have been reported. */
int image_look(struct look *l, const char *path, struct options *o);
/* The same, and @visit may read from the open store before it is closed; without a key that is
 * needed there is none, and it is not called.  It may be called again, when a commit came in
 * between. */
typedef int image_visit(void *arg, struct store *s);
int image_look_into(struct look *l, const char *path, struct options *o, image_visit *visit,
                    void *arg);
void image_look_fini(struct look *l);

/* As keys_unlock(), but silent about a key that is missing. */
int image_unlock_if_given(void *key, const struct superblock *sb, struct sealer **out);

/* A random one, version 4. */
int image_new_uuid(uint8_t uuid[UUID_SIZE]);
/* Reads back from the medium an image that has been written to @fd, and checks every sum in it; for
 * reports it is @path. */
int image_verify_copy(int fd, const char *path);

/* "4.0 MiB", "512 B"; @buf is returned. */
enum { SIZE_TEXT = 32 };
const char *size_text(char buf[SIZE_TEXT], uint64_t n);
void uuid_text(char buf[37], const uint8_t uuid[UUID_SIZE]);

/* A string member; NULL becomes null, and what is no UTF-8 U+FFFD. */
struct json_object;
void json_add_text(struct json_object *o, const char *key, const char *value);
void json_add_number(struct json_object *o, const char *key, uint64_t value);
void json_add_bool(struct json_object *o, const char *key, bool value);
void json_print(struct json_object *o); /* and frees it */

/* Prints what others have named: a name may hold any byte but '/', and what is no text, or a
 * terminal's control characters, become \xNN. */
void print_escaped(const char *text);

#endif
