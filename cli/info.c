/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/explain.h"
#include "cli/image.h"
#include "cli/owner.h"
#include "cli/where.h"
#include "crypt/vault.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TIME_TEXT = 32, BAR = 20 };

/* NV memory of the TPM 2.0 whose permanent state an entry is; .size 0: it is none. */
struct nv_view {
    uint64_t size, left;
};

/* What a slot is for, now. */
struct slot_view {
    const struct entry *file;     /* whose it is */
    const struct entry *reserved; /* for whose growth it is kept */
    const struct entry *previous; /* whose content from before lies here */
    struct nv_view nv;            /* of .file */
};

static const char *
time_text(char buf[TIME_TEXT], int64_t seconds)
{
    const time_t t = (time_t)seconds;
    struct tm tm;

    if (!gmtime_r(&t, &tm) || strftime(buf, TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        strcpy(buf, "?");
    return buf;
}

static void
cipher_text(char buf[64], const struct store_info *info)
{
    if (info->seal_mode == SEAL_NONE)
        strcpy(buf, "no");
    else
        snprintf(buf, 64, "AES-%u-CBC, HMAC-SHA-256", info->key_size * 8U);
}

/* Fills in one view per entry, as far as contents can be read. */
struct nv_views {
    struct nv_view *views;
    size_t n;
};

static void
nv_views_fini(struct nv_views *v)
{
    free(v->views);
}

static bool
is_permanent_state(const struct entry *e)
{
    const char *dot = strrchr(e->name, '.');

    return e->kind == ENTRY_FILE && e->current.length > 0 && dot && strcmp(dot, ".permall") == 0;
}

static int
view_nv(struct store *s, const struct entry *e, struct nv_view *view)
{
    AUTO(vault_freep) struct vault *v = NULL;
    AUTO(explain_fini) struct explained x = {0};
    int r = vault_new(&v, e->current.length, false);

    if (r == 0)
        r = store_read(s, &e->current, v->bytes);
    if (r < 0)
        return r;
    r = explain(&x, v->bytes, v->len,
                e->name); /* whatever it may say: the image is none the worse */
    if (r == 0 && x.kind == KIND_TPM2_PERMANENT)
        *view = (struct nv_view){.size = x.permall.nv_size, .left = explain_nv_left(&x.permall)};
    return r == -ENOMEM ? r : 0;
}

static int
view_states(void *arg, struct store *s)
{
    AUTO_FREE struct entry *entries = NULL;
    struct nv_views *v = arg;
    int r = store_list(s, &entries, &v->n);

    if (r < 0)
        return r;
    free(v->views); /* of the look before */
    v->views = calloc(v->n + 1, sizeof *v->views);
    if (!v->views)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < v->n; i++) {
        if (is_permanent_state(&entries[i]))
            r = view_nv(s, &entries[i], &v->views[i]);
    }
    return r;
}

/* One view per slot; NULL when memory is short. */
static struct slot_view *
view_slots(const struct look *l, const struct nv_views *nv)
{
    struct slot_view *view = calloc(l->info.slots_total + 1, sizeof *view);

    for (size_t i = 0; view && i < l->n_entries; i++) {
        const struct entry *e = &l->entries[i];

        if (e->slot < l->info.slots_total)
            view[e->slot].file = e;
        if (e->slot < l->info.slots_total && i < nv->n)
            view[e->slot].nv = nv->views[i];
        if (e->reserve_slot < l->info.slots_total)
            view[e->reserve_slot].reserved = e;
        if (e->previous.generation && e->previous.slot < l->info.slots_total)
            view[e->previous.slot].previous = e;
    }
    return view;
}

/* ---- for people
 * ---------------------------------------------------------------------------------- */

static void
print_anchor(const struct look *l, const char *anchor)
{
    if (!anchor)
        printf("  anchor      none given: an older state of the image would not be noticed\n");
    else if (l->key_missing)
        printf("  anchor      not compared: that takes the key\n");
    else
        printf("  anchor      generation %" PRIu64 " in %s: no older state than was acknowledged\n",
               l->anchor.generation, anchor);
}

static void
print_state(const char *path, bool clean)
{
    AUTO_FREE char *dir = clean ? NULL : where_of_image(path);

    printf("  state       %s", clean ? "clean"
                               : dir ? "open, mounted on "
                                     : "open, or not closed cleanly");
    if (dir)
        print_escaped(dir);
    putchar('\n');
}

static void
print_head(const char *path, const struct look *l, const char *anchor)
{
    const struct store_info *info = &l->info;
    char uuid[37], when[TIME_TEXT], cipher[64], a[SIZE_TEXT], b[SIZE_TEXT], owner[OWNER_TEXT];

    uuid_text(uuid, info->uuid);
    cipher_text(cipher, info);
    print_escaped(path);
    printf(": vnvram image, version %d, %s\n", FORMAT_VERSION, size_text(a, info->image_size));
    printf("  uuid        %s\n", uuid);
    printf("  sealed      %s%s\n", cipher,
           l->key_missing ? " (no key given: nothing here is authenticated)" : "");
    print_state(path, info->clean);
    printf("  generation  %" PRIu64 ", committed %s\n", info->generation,
           time_text(when, info->committed));
    printf("  recoveries  %" PRIu64 " torn commits undone\n", info->recoveries);
    print_anchor(l, anchor);
    if (l->owner_r != -ENODATA)
        printf("  owner       %s\n", owner_text(owner, l->owner_r, &l->owner));
    printf("  has held    %s%s%s\n", info->held_tpm20 ? "a TPM 2.0" : "",
           info->held_tpm20 && info->held_tpm12 ? ", " : "",
           info->held_tpm12   ? "a TPM 1.2"
           : info->held_tpm20 ? ""
                              : "no TPM yet");
    printf("  files       %" PRIu32 ", %s\n", info->files, size_text(a, info->bytes_used));
    printf("  slots       %" PRIu32 " of %" PRIu32 " used, %s in all\n", info->slots_used,
           info->slots_total, size_text(b, info->bytes_total));
}

static void
print_bar(uint64_t used, uint64_t capacity)
{
    int n = (int)((used * BAR + capacity - 1) / capacity);

    putchar('[');
    for (int i = 0; i < BAR; i++)
        putchar(i < n ? '#' : '.');
    printf("] %3" PRIu64 "%%  ", used * 100 / capacity);
}

static void
print_before(const struct slot_view *v)
{
    const struct entry *e = v->previous;
    char text[SIZE_TEXT];

    printf("keeps %s ", size_text(text, e->previous.length));
    if (e == v->file) {
        printf("from before its last change");
    } else {
        printf("of ");
        print_escaped(e->name);
        printf(e->kind == ENTRY_TOMBSTONE ? ", deleted" : " from before its last change");
    }
}

static void
print_slot(const struct slot_view *v, uint32_t capacity)
{
    char text[SIZE_TEXT], left[SIZE_TEXT];

    if (v->file) {
        print_bar(v->file->current.length, capacity);
        print_escaped(v->file->name);
        printf(", %s, %s left", size_text(text, v->file->current.length),
               size_text(left, capacity - v->file->current.length));
        if (v->nv.size)
            printf("; NV space %" PRIu64 " of %" PRIu64 " B used, %" PRIu64 " B left",
                   v->nv.size - v->nv.left, v->nv.size, v->nv.left);
    } else if (v->reserved) {
        printf("%-*s", BAR + 8, "reserved");
        print_escaped(v->reserved->name);
        printf(", %s", size_text(text, v->reserved->reserved));
    } else {
        printf(v->previous ? "%-*s" : "%.*s", v->previous ? BAR + 8 : 4, "free");
    }
    if (v->previous) {
        printf(v->file || v->reserved ? "; " : "");
        print_before(v);
    }
    putchar('\n');
}

static bool
keeps_nothing(const struct slot_view *v)
{
    return !v->file && !v->reserved && !v->previous;
}

/* Free slots that follow each other and keep nothing are one line. */
static uint32_t
run_of_free(const struct look *l, const struct slot_view *view, uint32_t first)
{
    uint32_t i = first, capacity = superblock_slot_capacity(&l->sb, first);

    while (i < l->info.slots_total && keeps_nothing(&view[i]) &&
           superblock_slot_capacity(&l->sb, i) == capacity)
        i++;
    return i - first;
}

static void
print_map(const struct look *l, const struct slot_view *view)
{
    char range[32], text[SIZE_TEXT];

    printf("\n  %11s  %9s  %s\n", "slot", "capacity", "holds");
    for (uint32_t i = 0; i < l->info.slots_total;) {
        uint32_t capacity = superblock_slot_capacity(&l->sb, i), n = run_of_free(l, view, i);

        if (n > 1)
            snprintf(range, sizeof range, "%" PRIu32 "-%" PRIu32, i, i + n - 1);
        else
            snprintf(range, sizeof range, "%" PRIu32, i);
        printf("  %11s  %9s  ", range, size_text(text, capacity));
        print_slot(&view[i], capacity);
        i += n > 1 ? n : 1;
    }
}

/* ---- for programs
 * -------------------------------------------------------------------------------- */

static struct json_object *
json_nv(const struct nv_view *nv)
{
    struct json_object *o = json_object_new_object();

    json_add_number(o, "size", nv->size);
    json_add_number(o, "used", nv->size - nv->left);
    json_add_number(o, "left", nv->left);
    return o;
}

static struct json_object *
json_slot(const struct look *l, const struct slot_view *v, uint32_t i)
{
    struct json_object *o = json_object_new_object();

    json_add_number(o, "slot", i);
    json_add_number(o, "capacity", superblock_slot_capacity(&l->sb, i));
    json_add_text(o, "state", v->file ? "file" : v->reserved ? "reserved" : "free");
    if (v->file) {
        json_add_text(o, "name", v->file->name);
        json_add_number(o, "length", v->file->current.length);
        json_add_number(o, "headroom",
                        superblock_slot_capacity(&l->sb, i) - v->file->current.length);
        json_add_number(o, "generation", v->file->current.generation);
        json_add_number(o, "bank", v->file->current.bank);
        if (v->nv.size)
            json_object_object_add(o, "nv", json_nv(&v->nv));
    } else if (v->reserved) {
        json_add_text(o, "name", v->reserved->name);
        json_add_number(o, "reserved", v->reserved->reserved);
    }
    if (v->previous) {
        struct json_object *p = json_object_new_object();

        json_add_text(p, "name", v->previous->name);
        json_add_number(p, "length", v->previous->previous.length);
        json_add_number(p, "generation", v->previous->previous.generation);
        json_add_bool(p, "deleted", v->previous->kind == ENTRY_TOMBSTONE);
        json_object_object_add(o, "previous", p);
    }
    return o;
}

/* null: nobody has ever owned it. */
static struct json_object *
json_owner(const struct look *l)
{
    struct json_object *o = l->owner_r == -ENODATA ? NULL : json_object_new_object();
    char when[TIME_TEXT];

    if (!o)
        return NULL;
    json_add_text(o, "state",
                  l->owner_r < 0                     ? "damaged"
                  : l->owner.state == OWNER_RELEASED ? "released"
                                                     : "owned");
    if (l->owner_r < 0)
        return o;
    json_add_text(o, "host", l->owner.host_name);
    json_add_number(o, "epoch", l->owner.epoch);
    json_add_text(o, "since", time_text(when, l->owner.time));
    return o;
}

static void
print_json(const char *path, const struct look *l, const struct slot_view *view)
{
    const struct store_info *info = &l->info;
    struct json_object *o = json_object_new_object(), *slots = json_object_new_array();
    char uuid[37], when[TIME_TEXT];

    uuid_text(uuid, info->uuid);
    json_add_text(o, "image", path);
    json_add_number(o, "format_version", FORMAT_VERSION);
    json_add_text(o, "uuid", uuid);
    json_add_number(o, "size", info->image_size);
    json_add_bool(o, "sealed", info->seal_mode != SEAL_NONE);
    json_add_bool(o, "authenticated", info->seal_mode != SEAL_NONE && !l->key_missing);
    json_add_number(o, "key_bits", info->key_size * 8U);
    json_add_number(o, "generation", info->generation);
    json_add_bool(o, "clean", info->clean);
    json_add_text(o, "last_commit", time_text(when, info->committed));
    json_add_bool(o, "recovered", info->recovered);
    json_add_number(o, "recoveries", info->recoveries);
    json_add_bool(o, "held_tpm12", info->held_tpm12);
    json_add_bool(o, "held_tpm20", info->held_tpm20);
    json_object_object_add(o, "anchor_generation",
                           l->anchor.generation ? json_object_new_uint64(l->anchor.generation)
                                                : NULL);
    json_object_object_add(o, "owner", json_owner(l));
    json_add_number(o, "files", info->files);
    json_add_number(o, "slots_total", info->slots_total);
    json_add_number(o, "slots_used", info->slots_used);
    json_add_number(o, "bytes_total", info->bytes_total);
    json_add_number(o, "bytes_used", info->bytes_used);
    for (uint32_t i = 0; i < info->slots_total; i++)
        json_object_array_add(slots, json_slot(l, &view[i], i));
    json_object_object_add(o, "slots", slots);
    json_print(o);
}

int
cmd_info(struct options *o)
{
    AUTO(image_look_fini) struct look l = {0};
    AUTO(nv_views_fini) struct nv_views nv = {0};
    AUTO_FREE struct slot_view *view = NULL;
    const char *path = o->args[0];
    int r = image_look_into(&l, path, o, view_states, &nv);

    if (r < 0)
        return image_advise(path, r);
    view = view_slots(&l, &nv);
    if (!view)
        return finding_exit_code(report(-ENOMEM, "out of memory"));
    if (o->json) {
        print_json(path, &l, view);
    } else {
        print_head(path, &l, o->anchor);
        print_map(&l, view);
    }
    return EXIT_DONE;
}
