/* SPDX-License-Identifier: BSD-3-Clause */
/* Libblkid reads descriptors, and a device may be none (NBD).  It looks near the two ends; so it
 * gets a sparse file in memory as large as the device, with those filled in. */
#include "cli/foreign.h"
#include "base/report.h"
#include "base/scope.h"
#include <blkid/blkid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum {
    END = 2 * 1024 * 1024, /* how much of each end */
    WIPES_MAX = 64,        /* signatures, on one device */
};

static void
free_probe(blkid_probe *pr)
{
    if (*pr)
        blkid_free_probe(*pr);
}

static int
copy_range(struct dev *d, int fd, uint64_t off, uint64_t len)
{
    AUTO_FREE uint8_t *buf = dev_alloc(len);
    int r = buf ? dev_pread(d, buf, len, off) : -ENOMEM;

    if (r == 0 && pwrite(fd, buf, len, (off_t)off) != (ssize_t)len)
        r = report(-EIO, "%s: cannot copy for a look: %s", d->name, errno_text(-errno));
    return r;
}

/* The ends of @d in a file, or a negative errno (reported). */
static int
copy_ends(struct dev *d)
{
    uint64_t whole = d->size / BLOCK_SIZE * BLOCK_SIZE, end = whole < END ? whole : END;
    AUTO_FD int fd = memfd_create("vnvram-look", MFD_CLOEXEC);
    int r;

    if (fd < 0 || ftruncate(fd, (off_t)d->size) < 0)
        return report(-EIO, "%s: cannot make a file in memory: %s", d->name, errno_text(-errno));
    r = copy_range(d, fd, 0, end);
    if (r == 0 && whole > end)
        r = copy_range(d, fd, whole - end, end);
    return r < 0 ? r : steal_fd(&fd);
}

/* A probe of @fd for everything that it knows; NULL (reported) when there can be none. */
static blkid_probe
new_probe(const struct dev *d, int fd)
{
    AUTO(free_probe) blkid_probe pr = blkid_new_probe();

    if (!pr || blkid_probe_set_device(pr, fd, 0, 0) != 0) {
        report(-EIO, "%s: cannot be looked at for foreign signatures", d->name);
        return NULL;
    }
    blkid_probe_enable_superblocks(pr, 1);
    blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
                                              BLKID_SUBLKS_LABEL | BLKID_SUBLKS_MAGIC |
                                              BLKID_SUBLKS_BADCSUM);
    blkid_probe_enable_partitions(pr, 1);
    blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
    return steal(&pr);
}

/* ---- its name ---------------------------------------------------------------------------------
 */

static const char *
value_of(blkid_probe pr, const char *name)
{
    const char *value;

    return blkid_probe_lookup_value(pr, name, &value, NULL) == 0 ? value : NULL;
}

static const char *
kind_of(const char *usage)
{
    if (usage && strcmp(usage, "raid") == 0)
        return "a member of a RAID or volume group";
    if (usage && strcmp(usage, "crypto") == 0)
        return "an encrypted volume";
    return usage && strcmp(usage, "filesystem") == 0 ? "a file system" : "data";
}

char *
foreign_name(struct dev *d)
{
    AUTO_FD int fd = copy_ends(d);
    AUTO(free_probe) blkid_probe pr = fd >= 0 ? new_probe(d, fd) : NULL;
    const char *type, *table, *label;
    char *text = NULL;
    int n = 0;

    if (!pr || blkid_do_probe(pr) != 0)
        return NULL;
    type = value_of(pr, "TYPE");
    label = value_of(pr, "LABEL");
    table = value_of(pr, "PTTYPE");
    if (type && label)
        n = asprintf(&text, "%s (%s, labelled '%s')", kind_of(value_of(pr, "USAGE")), type, label);
    else if (type)
        n = asprintf(&text, "%s (%s)", kind_of(value_of(pr, "USAGE")), type);
    else if (table)
        n = asprintf(&text, "a partition table (%s)", table);
    return n < 0 ? NULL : text;
}

/* ---- taking it away ---------------------------------------------------------------------------
 */

/* Where the signature lies that the probe has found: false when it says nothing of that. */
static bool
find_magic(blkid_probe pr, uint64_t *off, size_t *len)
{
    static const char *const names[][2] = {{"SBMAGIC_OFFSET", "SBMAGIC"},
                                           {"PTMAGIC_OFFSET", "PTMAGIC"}};

    for (size_t i = 0; i < 2; i++) {
        const char *text = value_of(pr, names[i][0]), *magic;

        if (text && blkid_probe_lookup_value(pr, names[i][1], &magic, len) == 0) {
            *off = strtoull(text, NULL, 10);
            return true;
        }
    }
    return false;
}

/* Zeroes @len bytes; blocks are written whole. */
static int
zero_bytes(struct dev *d, uint64_t off, size_t len)
{
    uint64_t from = off / BLOCK_SIZE * BLOCK_SIZE;
    size_t n = (size_t)((off + len - from + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE);
    AUTO_FREE uint8_t *buf = dev_alloc(n);
    int r = buf ? dev_pread(d, buf, n, from) : -ENOMEM;

    if (r < 0)
        return r;
    memset(buf + (off - from), 0, len);
    return dev_pwrite(d, buf, n, from);
}

int
foreign_wipe(struct dev *d)
{
    for (int i = 0; i < WIPES_MAX; i++) {
        AUTO_FD int fd = copy_ends(d);
        AUTO(free_probe) blkid_probe pr = fd >= 0 ? new_probe(d, fd) : NULL;
        uint64_t off;
        size_t len;
        int r;

        if (!pr)
            return fd < 0 ? fd : -EIO;
        if (blkid_do_probe(pr) != 0 || !find_magic(pr, &off, &len))
            return 0;
        r = zero_bytes(d, off, len);
        if (r < 0)
            return r;
    }
    return 0;
}
