/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/anchor.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum {
    OFF_MAGIC = 0,
    OFF_CRC = 8,
    OFF_VERSION = 12,
    OFF_UUID = 16,
    OFF_GENERATION = 32,
    OFF_SEQUENCE = 40,
    OFF_DIGEST = 48,
    OFF_END = 80,
    ANCHOR_VERSION = 1,
};
static_assert((int)OFF_CRC == (int)CRC_OFFSET, "the checksum lies where format_set_crc() puts it");
static const uint8_t magic[8] = "VNVRAMAN";

struct anchor {
    struct dev *dev;
    struct anchor_point point;
    uint64_t sequence; /* of the record that .point is from; 0: none */
    unsigned next;     /* the record to write next: not the one that counts */
    uint8_t *buf;      /* ANCHOR_SIZE */
};

/* ---- bytes -------------------------------------------------------------------------------------
 */

static void
encode(const struct anchor *a, uint8_t *buf)
{
    memset(buf, 0, BLOCK_SIZE);
    memcpy(buf + OFF_MAGIC, magic, sizeof magic);
    store_le32(buf + OFF_VERSION, ANCHOR_VERSION);
    memcpy(buf + OFF_UUID, a->point.uuid, UUID_SIZE);
    store_le64(buf + OFF_GENERATION, a->point.generation);
    store_le64(buf + OFF_SEQUENCE, a->sequence);
    memcpy(buf + OFF_DIGEST, a->point.digest, SEAL_TAG_SIZE);
    format_set_crc(buf, BLOCK_SIZE);
}

/* 0, -EUCLEAN, or -EPROTONOSUPPORT; what the record says becomes @a's if it is newer. */
static int
decode(struct anchor *a, unsigned i)
{
    const uint8_t *buf = a->buf + i * BLOCK_SIZE;
    uint64_t generation = load_le64(buf + OFF_GENERATION), sequence = load_le64(buf + OFF_SEQUENCE);

    if (memcmp(buf + OFF_MAGIC, magic, sizeof magic) != 0 || !format_crc_ok(buf, BLOCK_SIZE))
        return -EUCLEAN;
    if (load_le32(buf + OFF_VERSION) != ANCHOR_VERSION)
        return -EPROTONOSUPPORT;
    if (generation == 0 || sequence == 0 || !bytes_are_zero(buf + OFF_END, BLOCK_SIZE - OFF_END))
        return -EUCLEAN;
    if (sequence <= a->sequence)
        return 0;
    a->sequence = sequence;
    a->point.generation = generation;
    memcpy(a->point.uuid, buf + OFF_UUID, UUID_SIZE);
    memcpy(a->point.digest, buf + OFF_DIGEST, SEAL_TAG_SIZE);
    a->next = 1 - i;
    return 0;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* What a killed daemon left in the cache must be on the medium before it is believed. */
static int
read_records(struct anchor *a)
{
    int r = a->dev->read_only ? 0 : dev_sync(a->dev);

    if (r == 0)
        r = dev_medium(a->dev, true);
    if (r == 0)
        r = dev_pread(a->dev, a->buf, ANCHOR_SIZE, 0);
    return r == 0 ? dev_medium(a->dev, false) : r;
}

/* A new anchor is blank from end to end: what it is written over might be something else. */
static int
check_new(struct anchor *a)
{
    int r = store_probe(a->dev);

    if (a->sequence != 0)
        return report(-EEXIST, "%s: is an anchor already: leave out anchor_create", a->dev->name);
    if (r == -ENODATA)
        return 0;
    return r == -EIO || r == -ENOMEM
               ? r
               : report(-EEXIST, "%s: holds other data: no anchor is made of it", a->dev->name);
}

static int
load(struct anchor *a, bool create)
{
    const char *name = a->dev->name;
    int r[2];

    r[0] = read_records(a);
    if (r[0] < 0)
        return r[0];
    for (unsigned i = 0; i < 2; i++) {
        r[i] = decode(a, i);
        if (r[i] == -EPROTONOSUPPORT)
            return report(r[i], "%s: an anchor made by a newer version", name);
    }
    if (create)
        return check_new(a);
    if (bytes_are_zero(a->buf, ANCHOR_SIZE))
        return report(-EUCLEAN, "%s: a blank anchor: it never held a state", name);
    if (a->sequence == 0)
        return report(-EUCLEAN, "%s: damaged: no anchor is readable in it", name);
    return 0;
}

static void
free_anchor(struct anchor **a)
{
    if (!*a)
        return;
    free((*a)->buf);
    free(*a);
}

int
anchor_open(struct anchor **out, struct dev *d, bool create)
{
    AUTO(free_anchor) struct anchor *a = calloc(1, sizeof *a);
    int r;

    if (!a)
        return report(-ENOMEM, "%s: %s", d->name, errno_text(-ENOMEM));
    a->buf = dev_alloc(ANCHOR_SIZE);
    if (!a->buf)
        return report(-ENOMEM, "%s: %s", d->name, errno_text(-ENOMEM));
    if (d->size < ANCHOR_SIZE)
        return report(-EUCLEAN, "%s: damaged: too short for an anchor", d->name);
    a->dev = d;
    r = load(a, create);
    if (r < 0)
        return r;
    *out = steal(&a);
    return 0;
}

/* The name of a new file is durable only when its directory is. */
static int
sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    AUTO_FD int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd < 0 || fsync(fd) < 0)
        return report(-EIO, "%s: cannot flush its directory: %s", path, errno_text(-errno));
    return 0;
}

int
anchor_file_open(struct anchor **out, const char *path, bool read_only, bool create)
{
    AUTO(dev_closep) struct dev *d = NULL;
    struct stat st;
    int r;

    if (!create && stat(path, &st) < 0 && errno == ENOENT)
        return report(
            -ENOENT,
            "%s: the anchor is missing, and without it an older image cannot be told from "
            "the last one; -o anchor_create makes the first one",
            path);
    r = dev_file_open(&d, path, read_only ? DEV_READ_ONLY | DEV_NO_LOCK : create ? DEV_CREATE : 0);
    if (r == 0 && create && d->size == 0)
        r = dev_file_resize(d, ANCHOR_SIZE);
    if (r == 0 && create)
        r = sync_parent(path);
    if (r == 0)
        r = anchor_open(out, d, create);
    if (r == 0)
        steal(&d);
    return r;
}

void
anchor_release(struct anchor *a)
{
    dev_release(a->dev);
}

int
anchor_take(struct anchor *a, unsigned wait_ms)
{
    int r = dev_take(a->dev, wait_ms);

    return r < 0 ? r : load(a, false);
}

struct dev *
anchor_dev(struct anchor *a)
{
    return a->dev;
}

void
anchor_close(struct anchor *a)
{
    if (!a)
        return;
    dev_close(a->dev);
    free_anchor(&a);
}

void
anchor_closep(struct anchor **a)
{
    anchor_close(*a);
}

/* ---- use ---------------------------------------------------------------------------------------
 */

const struct anchor_point *
anchor_get(const struct anchor *a)
{
    return &a->point;
}

const char *
anchor_name(const struct anchor *a)
{
    return a->dev->name;
}

int
anchor_move(struct anchor *a, const struct anchor_point *to)
{
    int r;

    a->point = *to;
    a->sequence++;
    encode(a, a->buf);
    r = dev_pwrite(a->dev, a->buf, BLOCK_SIZE, (uint64_t)a->next * BLOCK_SIZE);
    if (r == 0)
        r = dev_sync(a->dev);
    a->next = 1 - a->next;
    return r;
}

bool
anchor_is_at(const struct anchor *a, const struct anchor_point *p)
{
    return p->generation == a->point.generation &&
           memcmp(p->digest, a->point.digest, SEAL_TAG_SIZE) == 0 &&
           memcmp(p->uuid, a->point.uuid, UUID_SIZE) == 0;
}

/* What is wrong, in words for a report; *@r is the finding. */
static const char *
find_fault(const struct anchor *a, const struct anchor_point *shown,
           const struct anchor_point *other, int *r)
{
    *r = 0;
    if (a->point.generation == 0 || anchor_is_at(a, shown))
        return NULL;
    if (anchor_is_at(a, other) && other->generation < shown->generation)
        return NULL; /* one commit ahead, which was not acknowledged */
    *r = -ESTALE;
    if (memcmp(a->point.uuid, shown->uuid, UUID_SIZE) != 0)
        return "it is another image";
    if (shown->generation > a->point.generation)
        return "it did not grow from there: it was changed without its anchor";
    if (shown->generation == a->point.generation)
        return "it is another state of that number: it was changed without its anchor";
    if (!anchor_is_at(a, other))
        return "it is older";
    *r = -EUCLEAN;
    return "the directory is there, but not all that it refers to";
}

int
anchor_judge(const struct anchor *a, const char *name, const struct anchor_point *shown,
             const struct anchor_point *other, bool accept)
{
    int r;
    const char *fault = find_fault(a, shown, other, &r);

    if (!fault)
        return 0;
    if (accept)
        return report_at(REPORT_WARNING, 0,
                         "%s: generation %" PRIu64
                         " is accepted, though the anchor %s demands %" PRIu64 ": %s",
                         name, shown->generation, a->dev->name, a->point.generation, fault);
    return report(r,
                  "%s: %s: it shows generation %" PRIu64 ", the anchor %s demands %" PRIu64 ": %s",
                  name, r == -ESTALE ? "rolled back" : "damaged", shown->generation, a->dev->name,
                  a->point.generation, fault);
}
