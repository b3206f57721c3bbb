/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram show: what a stored blob is, read from an image or from a directory. */
#include "base/crc32.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/explain.h"
#include "cli/image.h"
#include "cli/parcel.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* The file that is looked at. */
struct subject {
    const char *name;
    struct vault *content;
    bool missing; /* the image is whole, and has no such file */
    bool stored;  /* the three below are known */
    uint64_t generation, slot, capacity;
};

static void
subject_fini(struct subject *s)
{
    vault_free(s->content);
}

/* ---- from an image -----------------------------------------------------------------------------
 */

static int
read_entry(void *arg, struct store *store)
{
    struct subject *s = arg;
    struct entry e;
    int r = store_find(store, s->name, &e);

    s->missing = r == -ENOENT || (r == 0 && e.kind != ENTRY_FILE);
    if (s->missing)
        return -ENOENT;
    if (r < 0)
        return r;
    vault_freep(&s->content); /* of the look before */
    s->content = NULL;
    r = vault_new(&s->content, e.current.length, false);
    if (r < 0)
        return r;
    s->stored = true;
    s->generation = e.current.generation;
    s->slot = e.slot;
    s->capacity = store_slot_capacity(store, e.slot);
    return s->content->len ? store_read(store, &e.current, s->content->bytes) : 0;
}

static int
read_from_image(struct subject *s, const char *image, struct options *o)
{
    AUTO(image_look_fini) struct look l = {0};
    int r = image_look_into(&l, image, o, read_entry, s);

    if (r == 0 && l.key_missing)
        r = report(-ENOKEY, "%s: it is sealed, and no key was given", image);
    if (r == -ENOENT && s->missing)
        return report(r, "%s: holds no file \"%s\"", image, s->name);
    if (r < 0)
        image_advise(image, r);
    return r;
}

/* ---- from a directory --------------------------------------------------------------------------
 */

static uint64_t
read_number(int fd, const char *attribute)
{
    char text[32] = "";

    if (fgetxattr(fd, attribute, text, sizeof text - 1) < 0)
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static int
read_from_directory(struct subject *s, const char *dir)
{
    AUTO_FD int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_FD int fd = -1;
    struct stat st;
    int r;

    if (at < 0)
        return report(-errno, "%s: cannot open: %s", dir, errno_text(-errno));
    if (strchr(s->name, '/'))
        return report(-EINVAL, "\"%s\" is no file's name", s->name);
    fd = openat(at, s->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return report(-errno, "%s/%s: cannot open: %s", dir, s->name, errno_text(-errno));
    if (!S_ISREG(st.st_mode))
        return report(-EINVAL, "%s/%s: is not a regular file", dir, s->name);
    r = parcel_read(fd, s->name, &s->content);
    if (r < 0)
        return r;
    s->generation = read_number(fd, "user.vnvram.generation");
    s->slot = read_number(fd, "user.vnvram.slot");
    s->capacity = read_number(fd, "user.vnvram.capacity");
    s->stored = s->generation != UINT64_MAX && s->slot != UINT64_MAX && s->capacity != UINT64_MAX;
    return 0;
}

/* A file that is written just now may be longer already than what was known of it. */
static uint64_t
headroom(const struct subject *s)
{
    return s->capacity > s->content->len ? s->capacity - s->content->len : 0;
}

/* ---- showing -----------------------------------------------------------------------------------
 */

static void
show_text(const struct subject *s, const struct explained *x, int r)
{
    char text[SIZE_TEXT], left[SIZE_TEXT];

    print_escaped(s->name);
    printf(": %s%s, %s\n", explain_kind_text(x),
           r == 0          ? ""
           : r == -EUCLEAN ? ", damaged"
                           : ", which cannot be read",
           size_text(text, s->content->len));
    if (s->stored)
        printf("  slot         %" PRIu64 ", of %s, of which %s are left; generation %" PRIu64 "\n",
               s->slot, size_text(text, s->capacity), size_text(left, headroom(s)), s->generation);
    printf("  CRC-32       %08" PRIx32 "\n", crc32_of(s->content->bytes, s->content->len));
    explain_print(x);
}

static void
show_json(const struct subject *s, const struct explained *x, int r)
{
    struct json_object *o = json_object_new_object();
    char crc[16];

    snprintf(crc, sizeof crc, "%08" PRIx32, crc32_of(s->content->bytes, s->content->len));
    json_add_text(o, "name", s->name);
    json_add_number(o, "length", s->content->len);
    json_add_text(o, "crc32", crc);
    if (s->stored) {
        json_add_number(o, "slot", s->slot);
        json_add_number(o, "capacity", s->capacity);
        json_add_number(o, "headroom", headroom(s));
        json_add_number(o, "generation", s->generation);
    }
    json_add_bool(o, "readable", r == 0);
    explain_json(x, o);
    json_print(o);
}

int
cmd_show(struct options *o)
{
    AUTO(subject_fini) struct subject s = {.name = o->args[1]};
    AUTO(explain_fini) struct explained x = {0};
    struct stat st;
    int r;

    if (stat(o->args[0], &st) == 0 && S_ISDIR(st.st_mode))
        r = read_from_directory(&s, o->args[0]);
    else
        r = read_from_image(&s, o->args[0], o);
    if (r < 0)
        return finding_exit_code(r);
    r = explain(&x, s.content->bytes, s.content->len, s.name);
    if (r == -ENOMEM)
        return finding_exit_code(r);
    if (o->json)
        show_json(&s, &x, r);
    else
        show_text(&s, &x, r);
    return finding_exit_code(r);
}
