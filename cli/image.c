/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/image.h"
#include "base/finding.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "base/utf8.h"
#include "cli/where.h"
#include "core/check.h"
#include "core/dev_nbd.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

int
image_advise(const char *path, int r)
{
    static const struct {
        int finding;
        const char *next;
    } advice[] = {
        {-ENODATA, "if it held one before, restore a backup instead of formatting it"},
        {-EMEDIUMTYPE,
         "look whether the path is right; \"vnvram format --force\" overwrites what is there"},
        {-EUCLEAN,
         "\"vnvram check --repair\" mends what has a good copy; for the rest restore a backup, or "
         "save "
         "what is intact from a mount with -o degraded or with \"vnvram check --salvage\""},
        {-ENOKEY, "give its key with -o key_file=PATH, or -o key_format=passphrase to be asked"},
        {-EKEYREJECTED,
         "try another key, and look whether key_format= is right; nothing was changed"},
        {-EKEYREVOKED,
         "if it should be sealed, somebody replaced it: do not use it; else leave out the "
         "key"},
        {-EPROTONOSUPPORT, "use the version of vnvram that made it, or a newer one"},
        {-ERANGE,
         "restore it whole from a backup: a copy must have every byte; without one, \"vnvram "
         "check --salvage\" saves what is intact"},
        {-EBUSY, "unmount it where it is mounted (\"vnvram unmount\"), or wait for the command "
                 "that has it; if another host has it, and only if that one is certainly dead, or "
                 "can no longer write there: \"-o takeover\" (other commands: --takeover)"},
        {-EROFS, "\"vnvram mount -o ro\" shows what is in it; to change it, make its file system "
                 "writable"},
        {-ESTALE,
         "an older state was put in place of a newer one: find the newest; \"vnvram mount -o "
         "accept_rollback\" takes this one, and what its anchor knew is forgotten"},
        {-EBADMSG,
         "somebody changed it without its key: do not use it; restore a backup you trust"},
    };

    AUTO_FREE char *dir = r == -EBUSY ? where_of_image(path) : NULL;

    for (size_t i = 0; i < sizeof advice / sizeof advice[0]; i++) {
        if (advice[i].finding == r && dir)
            report(r, "%s: %s; what to do: \"vnvram unmount %s\", where it is mounted", path,
                   finding_name(r), dir);
        else if (advice[i].finding == r)
            report(r, "%s: %s; what to do: %s", path, finding_name(r), advice[i].next);
    }
    return finding_exit_code(r);
}

void
image_warn_exposed(const struct dev *d)
{
    if (dev_is_exposed(d))
        report_at(REPORT_WARNING, 0,
                  "%s: goes over the network in the clear, and the image is not sealed: whoever is "
                  "on the way can read and change it",
                  d->name);
}

/* ---- reports kept back --------------------------------------------------------------------------
 */

static struct held {
    struct held *next;
    enum report_level level;
    char line[];
} * first_held, **last_held = &first_held;

static void
hold(void *arg, enum report_level level, const char *line)
{
    size_t n = strlen(line) + 1;
    struct held *h = malloc(sizeof *h + n);

    (void)arg;
    if (!h)
        return;
    h->next = NULL;
    h->level = level;
    memcpy(h->line, line, n);
    *last_held = h;
    last_held = &h->next;
}

void
image_hold_reports(void)
{
    report_set_sink(hold, NULL);
}

static void
end_hold(bool show)
{
    report_set_sink(NULL, NULL);
    while (first_held) {
        AUTO_FREE struct held *h = first_held;

        first_held = h->next;
        if (show)
            report_at(h->level, 0, "%s", h->line);
    }
    last_held = &first_held;
}

void
image_drop_reports(void)
{
    end_hold(false);
}

void
image_show_reports(void)
{
    end_hold(true);
}

void
image_pause(void)
{
    const struct timespec ts = {.tv_nsec = LOOK_PAUSE_MS * 1000000L};

    nanosleep(&ts, NULL);
}

/* ---- a look -------------------------------------------------------------------------------------
 */

int
image_unlock_if_given(void *arg, const struct superblock *sb, struct sealer **out)
{
    const struct key_options *key = arg;

    if (!key->given && sb->seal_mode != SEAL_NONE)
        return -ENOKEY;
    return keys_unlock(arg, sb, out);
}

/* What a look is to do. */
struct look_order {
    struct options *o;
    image_visit *visit; /* NULL: nothing more */
    void *arg;
};

static int
look_through_store(struct look *l, struct dev **d, const struct look_order *order)
{
    AUTO(anchor_closep) struct anchor *a = NULL;
    struct options *o = order->o;
    struct store_options opt = {
        .read_only = true, .unlock = image_unlock_if_given, .unlock_arg = &o->key};
    struct store *s;
    int r = o->anchor ? anchor_file_open(&a, o->anchor, true, false) : 0;

    opt.anchor = a;
    if (r == 0)
        r = store_open(&s, *d, &opt);
    if (r < 0)
        return r;
    *d = NULL; /* is the store's */
    if (a)
        l->anchor = *anchor_get(a);
    store_get_info(s, &l->info);
    l->sb = *store_superblock(s);
    r = store_list(s, &l->entries, &l->n_entries);
    if (r == 0 && order->visit)
        r = order->visit(order->arg, s);
    store_close(s);
    return r;
}

/* The superblock with the highest sequence among those that decode. */
static int
read_superblock(struct superblock *sb, struct dev *d)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    AUTO_FREE struct superblock *copy = malloc(sizeof *copy);
    int found = -EUCLEAN;

    if (!buf || !copy)
        return -ENOMEM;
    for (int i = 0; i < 2; i++) {
        if (dev_pread(d, buf, BLOCK_SIZE, i ? SUPERBLOCK_B : SUPERBLOCK_A) < 0 ||
            superblock_decode(copy, buf) < 0)
            continue;
        if (found < 0 || copy->sequence > sb->sequence)
            *sb = *copy;
        found = 0;
    }
    return found;
}

static int
read_directory(struct directory *dir, struct dev *d, const struct superblock *sb, int i)
{
    AUTO_FREE uint8_t *buf = dev_alloc(sb->dir_capacity);
    uint64_t len, generation;
    int r;

    if (!buf)
        return -ENOMEM;
    r = dev_pread(d, buf, BLOCK_SIZE, sb->dir_off[i]);
    if (r < 0)
        return r;
    r = directory_peek(buf, sb->dir_capacity, &len, &generation);
    if (r < 0)
        return r;
    r = dev_pread(d, buf, len, sb->dir_off[i]);
    return r < 0 ? r : directory_decode(dir, buf, len, sb);
}

static void
count_slots(struct look *l)
{
    struct store_info *info = &l->info;

    info->slots_total = superblock_slot_count(&l->sb);
    for (uint32_t i = 0; i < info->slots_total; i++)
        info->bytes_total += superblock_slot_capacity(&l->sb, i);
    for (size_t i = 0; i < l->n_entries; i++) {
        const struct entry *e = &l->entries[i];

        info->files += e->kind == ENTRY_FILE;
        info->tombstones += e->kind == ENTRY_TOMBSTONE;
        info->slots_used += (e->slot != SLOT_NONE) + (e->reserve_slot != SLOT_NONE);
        info->bytes_used += e->kind == ENTRY_FILE ? e->current.length : 0;
    }
}

/* What stands in the clear: geometry, names, lengths.  It may be forged. */
static int
look_without_key(struct look *l, struct dev *d)
{
    struct directory newest = {0};
    struct store_info *info = &l->info;
    int r = read_superblock(&l->sb, d), why = 0;

    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++) {
        struct directory dir;

        r = read_directory(&dir, d, &l->sb, i);
        if (r == -ERANGE)
            why = r;
        if (r < 0)
            continue;
        if (dir.generation > newest.generation) {
            directory_fini(&newest);
            newest = dir;
        } else {
            directory_fini(&dir);
        }
    }
    if (newest.generation == 0 && why < 0)
        return why; /* truncated, as has been reported */
    if (newest.generation == 0)
        return report(-EUCLEAN, "%s: no directory can be read", d->name);
    memcpy(info->uuid, l->sb.uuid, UUID_SIZE);
    info->generation = newest.generation;
    info->superblock_sequence = l->sb.sequence;
    info->image_size = l->sb.image_size;
    info->seal_mode = l->sb.seal_mode;
    info->key_size = l->sb.key_size;
    info->key_epoch = l->sb.key_epoch;
    info->clean = newest.clean;
    info->held_tpm12 = newest.held_tpm12;
    info->held_tpm20 = newest.held_tpm20;
    info->recoveries = newest.recoveries;
    info->committed = newest.committed;
    l->entries = steal(&newest.entries);
    l->n_entries = newest.n_entries;
    directory_fini(&newest);
    count_slots(l);
    l->key_missing = true;
    return 0;
}

/* Of any image: what else may be wrong with it is told by others. */
static int
look_for_owner(struct dev *d, struct owner_record *rec)
{
    if (d->size < FIRST_DIRECTORY)
        return -ENODATA;
    return owner_look(d, NULL, rec);
}

static int
look_once(struct look *l, const char *path, const struct look_order *order)
{
    AUTO(dev_closep) struct dev *d = NULL;
    int r = dev_open(&d, path, DEV_READ_ONLY | DEV_NO_LOCK, &order->o->dev);

    *l = (struct look){0};
    if (r < 0)
        return r;
    l->owner_r = look_for_owner(d, &l->owner);
    r = look_through_store(l, &d, order);
    return r == -ENOKEY && d ? look_without_key(l, d) : r;
}

int
image_look_into(struct look *l, const char *path, struct options *o, image_visit *visit, void *arg)
{
    const struct look_order order = {.o = o, .visit = visit, .arg = arg};
    int r =
        o->key.given ? keys_read(&o->key, false) : 0; /* asks, maybe: before the image is open */

    if (r < 0)
        return r;
    for (int try = 1;; try++) {
        bool again;

        image_hold_reports();
        r = look_once(l, path, &order);
        again = r == -EUCLEAN || r == -EBADMSG || (r == -ESTALE && o->anchor) ||
                (r == 0 && l->info.recovered);
        if (!again || try == LOOK_TRIES)
            break;
        image_drop_reports();
        image_look_fini(l);
        image_pause();
    }
    image_show_reports();
    return r;
}

int
image_look(struct look *l, const char *path, struct options *o)
{
    return image_look_into(l, path, o, NULL, NULL);
}

void
image_look_fini(struct look *l)
{
    free(l->entries);
}

/* ---- copies -------------------------------------------------------------------------------------
 */

int
image_new_uuid(uint8_t uuid[UUID_SIZE])
{
    if (getrandom(uuid, UUID_SIZE, 0) != UUID_SIZE)
        return report(-EIO, "no random numbers: %s", errno_text(errno));
    uuid[6] = (uuid[6] & 0x0f) | 0x40;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    return 0;
}

static void
report_finding(void *path, int r, const char *where, const char *text)
{
    if (r < 0)
        report(r, "%s: %s: %s", (const char *)path, where, text);
}

int
image_verify_copy(int fd, const char *path)
{
    AUTO_PROGRESS bool shown = progress_started("verifying the copy", 0);
    AUTO(dev_closep) struct dev *d = NULL;
    struct check_result res;
    char proc[32];
    int r;

    snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    r = dev_file_open(&d, proc, DEV_READ_ONLY | DEV_NO_LOCK);
    if (r == 0)
        r = check_image(d, NULL, NULL, report_finding, (void *)(uintptr_t)path, &res);
    return r < 0 ? report(r, "%s: the copy does not verify, and is dropped", path) : 0;
}

/* ---- text ---------------------------------------------------------------------------------------
 */

const char *
size_text(char buf[SIZE_TEXT], uint64_t n)
{
    static const char *const units[] = {"KiB", "MiB", "GiB"};
    double v = (double)n / 1024;
    int u = 0;

    if (n < 1024) {
        snprintf(buf, SIZE_TEXT, "%" PRIu64 " B", n);
        return buf;
    }
    while (v >= 1024 && u < 2) {
        v /= 1024;
        u++;
    }
    snprintf(buf, SIZE_TEXT, v == (double)(uint64_t)v ? "%.0f %s" : "%.1f %s", v, units[u]);
    return buf;
}

void
uuid_text(char buf[37], const uint8_t uuid[UUID_SIZE])
{
    char *p = buf;

    for (int i = 0; i < UUID_SIZE; i++)
        p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

void
json_add_text(struct json_object *o, const char *key, const char *value)
{
    AUTO_FREE char *clean = value ? utf8_clean(value) : NULL;

    json_object_object_add(o, key, clean ? json_object_new_string(clean) : NULL);
}

void
json_add_number(struct json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_uint64(value));
}

void
json_add_bool(struct json_object *o, const char *key, bool value)
{
    json_object_object_add(o, key, json_object_new_boolean(value));
}

void
json_print(struct json_object *o)
{
    puts(json_object_to_json_string_ext(o,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

void
print_escaped(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = utf8_length(p);

        if (n == 0 || *p < 0x20 || *p == 0x7f || *p == '\\' || (*p == 0xc2 && p[1] < 0xa0)) {
            printf("\\x%02x", *p++);
            continue;
        }
        printf("%.*s", (int)n, p);
        p += n;
    }
}
