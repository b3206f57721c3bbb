/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram clone: an image for another machine (a new identity), or for the same one elsewhere. */
#include "base/finding.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/openimage.h"
#include "cli/target.h"
#include "cli/tpmname.h"
#include "crypt/vault.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 1024 * 1024, CLONE_TRIES = 4 * LOOK_TRIES };

/* One generation of the source. */
struct original {
    struct superblock sb;
    struct file_attr root;
    struct snapshot *snapshot; /* the same identity: all of it */
    struct entry *entries;     /* a new one: its entries, and the contents of those that go along */
    struct vault **contents;
    size_t n;
};

static void
original_fini(struct original *from)
{
    snapshot_put(from->snapshot);
    for (size_t i = 0; from->contents && i < from->n; i++)
        vault_free(from->contents[i]);
    free(from->contents);
    free(from->entries);
    *from = (struct original){0};
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* What runs in a TPM, and the lock of who runs it, are of one machine. */
static bool
goes_along(const struct entry *e)
{
    return e->kind == ENTRY_FILE && !name_is_tpm_state(e->name) &&
           strcmp(e->name, TPM_LOCK_NAME) != 0;
}

static int
read_contents(struct original *from, struct store *s)
{
    int r = store_list(s, &from->entries, &from->n);

    if (r < 0)
        return r;
    from->contents = calloc(from->n + 1, sizeof(struct vault *));
    if (!from->contents)
        return report(-ENOMEM, "out of memory");
    for (size_t i = 0; r == 0 && i < from->n; i++) {
        const struct content *c = &from->entries[i].current;

        if (!goes_along(&from->entries[i]))
            continue;
        r = vault_new(&from->contents[i], c->length, false);
        if (r == 0 && c->length > 0)
            r = store_read(s, c, from->contents[i]->bytes);
    }
    return r;
}

/* 1: taken, but of a state that was about to be replaced. */
static int
read_once(struct original *from, struct options *o, const char *path)
{
    AUTO(image_close) struct open_image image = {0};
    struct store_info info;
    int r = image_open_to_read(&image, o, path);

    if (r < 0)
        return r;
    from->sb = *store_superblock(image.store);
    store_get_root(image.store, &from->root);
    store_get_info(image.store, &info);
    r = o->same_identity ? store_snapshot(image.store, &from->snapshot)
                         : read_contents(from, image.store);
    return r == 0 && info.recovered ? 1 : r;
}

/* A daemon may write the image meanwhile, and a look fall into a commit. */
static int
read_original(struct original *from, struct options *o, const char *path)
{
    int r = keys_read(&o->key, false);

    for (int try = 1; r >= 0; try++) {
        image_hold_reports();
        r = read_once(from, o, path);
        if ((r != 1 && r != -EUCLEAN && r != -EBADMSG && r != -ESTALE) || try == CLONE_TRIES)
            break;
        image_drop_reports();
        original_fini(from);
        image_pause();
        r = 0;
    }
    image_show_reports();
    return r < 0 ? r : 0;
}

/* ---- the same identity --------------------------------------------------------------------------
 */

static int
write_same(const struct original *from, const struct target *t)
{
    AUTO_FREE uint8_t *buf = malloc(CHUNK);
    uint64_t size = snapshot_size(from->snapshot);
    AUTO_PROGRESS bool shown = progress_started("copying", size);
    int r = buf ? target_reserve(t, size) : report(-ENOMEM, "out of memory");

    for (uint64_t off = 0; r == 0 && off < size; off += CHUNK) {
        size_t n = size - off < CHUNK ? (size_t)(size - off) : (size_t)CHUNK;

        r = snapshot_pread(from->snapshot, buf, n, off);
        if (r == 0)
            r = target_write(t, buf, n);
        progress_add(n);
    }
    return r;
}

/* ---- a new identity -----------------------------------------------------------------------------
 */

/* The original's slots, in its order, so that each file finds its own. */
static int
format_new(struct dev *d, const struct original *from, struct key_options *key,
           uint8_t uuid[UUID_SIZE])
{
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    struct slot_class classes[MAX_SEGMENTS];
    struct format_spec spec = {
        .classes = classes, .n_classes = from->sb.n_segments, .root = from->root};
    struct superblock sb;
    uint64_t need = 0;
    int r = image_new_uuid(spec.uuid);

    for (unsigned i = 0; i < from->sb.n_segments; i++)
        classes[i] = (struct slot_class){from->sb.segments[i].count, from->sb.segments[i].capacity};
    if (r == 0)
        r = store_layout(&sb, &spec, &need);
    if (r < 0)
        return r;
    memcpy(uuid, spec.uuid, UUID_SIZE);
    spec.image_size = need > from->sb.image_size ? need : from->sb.image_size;
    r = dev_file_resize(d, spec.image_size);
    if (r == 0 && key) {
        spec.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
        r = keys_new_volume(key, spec.uuid, spec.keyslots, &spec.key_size, &sealer);
    }
    return r < 0 ? r : store_format(d, &spec, key ? sealer : sealer_plain());
}

/* Files first: a promise that a file's own slot keeps takes no other. */
static size_t
plan_changes(const struct original *from, struct store *s, struct change *changes)
{
    size_t n = 0;

    for (size_t i = 0; i < from->n; i++) {
        const struct entry *e = &from->entries[i];

        if (!goes_along(e))
            continue;
        changes[n++] = (struct change){.op = CHANGE_FILE,
                                       .id = store_new_id(s),
                                       .name = e->name,
                                       .slot = e->slot,
                                       .has_content = true,
                                       .data = from->contents[i]->bytes,
                                       .len = from->contents[i]->len,
                                       .attr = e->attr};
        store_slot_hold(s, e->slot);
    }
    for (size_t i = 0; i < from->n; i++) {
        const struct entry *e = &from->entries[i];

        if (e->reserved != 0)
            changes[n++] =
                (struct change){.op = CHANGE_RESERVE, .name = e->name, .len = e->reserved};
    }
    return n;
}

/* The device is the store's from here on, if it opens. */
static int
fill(struct dev **d, const struct original *from, struct key_options *key)
{
    AUTO(store_closep) struct store *s = NULL;
    AUTO_FREE struct change *changes = calloc(2 * from->n + 1, sizeof *changes);
    struct key_options none = KEY_OPTIONS_INIT;
    const struct store_options opt = {.unlock = keys_unlock, .unlock_arg = key ? key : &none};
    int r = changes ? store_open(&s, *d, &opt) : report(-ENOMEM, "out of memory");
    size_t n;

    if (r < 0)
        return r;
    *d = NULL;
    n = plan_changes(from, s, changes);
    r = n > 0 ? store_commit(s, changes, n, NULL) : 0;
    return r < 0 ? r : store_settle(s);
}

static int
write_new(const struct original *from, const struct target *t, struct key_options *key,
          uint8_t uuid[UUID_SIZE])
{
    AUTO_PROGRESS bool shown = progress_started("writing the new image", 0);
    AUTO(dev_closep) struct dev *d = NULL;
    char proc[32];
    int r;

    snprintf(proc, sizeof proc, "/proc/self/fd/%d", t->fd);
    r = dev_file_open(&d, proc, 0);
    if (r == 0)
        r = format_new(d, from, key, uuid);
    return r < 0 ? r : fill(&d, from, key);
}

/* ---- words --------------------------------------------------------------------------------------
 */

static void
tell_new(const struct original *from, const struct target *t, const uint8_t uuid[UUID_SIZE])
{
    char text[37], size[SIZE_TEXT];
    bool had_tpm = false;

    uuid_text(text, uuid);
    printf("%s: a new identity, UUID %s\n", t->path, text);
    for (size_t i = 0; i < from->n; i++) {
        const struct entry *e = &from->entries[i];

        if (e->kind != ENTRY_FILE)
            continue;
        had_tpm |= name_is_tpm_state(e->name);
        printf(goes_along(e) ? "  kept     " : "  dropped  ");
        print_escaped(e->name);
        printf(", %s\n", size_text(size, e->current.length));
    }
    if (had_tpm)
        report_at(REPORT_WARNING, 0,
                  "%s: the TPM is not in it: the first mount with tpm= makes a new one. What is "
                  "sealed to the old one (disk keys, measured boot) does not open with it",
                  t->path);
}

static void
tell_same(const struct original *from, const struct target *t, const char *source)
{
    char text[37];

    uuid_text(text, from->sb.uuid);
    printf("%s: the same identity, UUID %s\n", t->path, text);
    report_at(REPORT_WARNING, 0,
              "%s: this is the machine of %s, not another one: the same TPM with the same keys and "
              "counters, the same UUID%s. Never run both: use one, and destroy the other",
              t->path, source, from->sb.seal_mode == SEAL_NONE ? "" : ", opened by the same keys");
}

/* ------------------------------------------------------------------------------------------------
 */

static int
clone_image(struct options *o, const char *source, const char *path)
{
    AUTO(original_fini) struct original from = {0};
    AUTO(target_fini) struct target t = TARGET_INIT;
    struct key_options *key = NULL;
    uint8_t uuid[UUID_SIZE];
    int r = read_original(&from, o, path);

    if (r < 0)
        return r;
    if (o->new_key.given)
        key = &o->new_key;
    else if (from.sb.seal_mode != SEAL_NONE)
        key = &o->key;
    r = target_open(&t, o->args[1]);
    if (r == 0)
        r = o->same_identity ? write_same(&from, &t) : write_new(&from, &t, key, uuid);
    if (r == 0)
        r = target_flush(&t);
    if (r == 0)
        r = image_verify_copy(t.fd, t.path);
    if (r == 0)
        r = target_publish(&t, 1);
    if (r < 0)
        return r;
    if (o->same_identity)
        tell_same(&from, &t, source);
    else
        tell_new(&from, &t, uuid);
    return 0;
}

int
cmd_clone(struct options *o)
{
    AUTO_FREE char *path = NULL;
    const char *source = o->args[0];
    struct stat st;
    int r = 0;

    if (o->same_identity == o->new_identity)
        r = report(-EINVAL, "clone: say whether it is another machine (--new-identity) or the same "
                            "one (--same-identity)");
    else if (o->same_identity && o->new_key.given)
        r = report(-EINVAL, "clone: the same identity has the same keys: leave out -n");
    o->new_key.of = o->args[1];
    if (r == 0 && o->new_key.given)
        r = keys_read(&o->new_key, true); /* asks, maybe: before the image is read */
    if (r < 0)
        return finding_exit_code(r);
    if (stat(source, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (asprintf(&path, "%s/.vnvram/image", source) < 0)
            return finding_exit_code(report(-ENOMEM, "out of memory"));
        if (stat(path, &st) < 0)
            return finding_exit_code(report(-ENOENT, "%s: no image is mounted there", source));
    }
    return image_advise(source, clone_image(o, source, path ? path : source));
}
