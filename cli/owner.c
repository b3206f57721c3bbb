/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/owner.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DIGEST_SIZE = 32, RELEASE_WAIT_MS = 1000 };

/* 16 bytes of a digest: a machine-id must not be told to others as it is (machine-id(5)). */
static void
hash_id(uint8_t id[HOST_ID_SIZE], const char *what, const char *text)
{
    uint8_t digest[DIGEST_SIZE];
    char buf[512];
    int n = snprintf(buf, sizeof buf, "vnvram %s %s", what, text);

    gcry_md_hash_buffer(GCRY_MD_SHA256, digest, buf,
                        (size_t)n < sizeof buf ? (size_t)n : sizeof buf - 1);
    memcpy(id, digest, HOST_ID_SIZE);
}

/* The first line; false when there is none. */
static bool
read_line(char *buf, size_t size, const char *path)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

    if (n <= 0)
        return false;
    buf[n] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return *buf != '\0';
}

const struct owner_options *
owner_from_options(struct options *o)
{
    struct owner_options *w = &o->owner;
    char line[256];

    w->wait_ms = RELEASE_WAIT_MS;
    if (read_line(line, sizeof line, "/proc/sys/kernel/random/boot_id"))
        hash_id(w->boot_id, "boot", line);
    if (o->host_id) {
        hash_id(w->host_id, "named host", o->host_id);
        snprintf(w->host_name, sizeof w->host_name, "%s", o->host_id);
        return w;
    }
    if (gethostname(w->host_name, sizeof w->host_name - 1) < 0)
        w->host_name[0] = '\0';
    /* An image in which this is being set up says "uninitialized". */
    if (read_line(line, sizeof line, "/etc/machine-id") && strcmp(line, "uninitialized") != 0)
        hash_id(w->host_id, "host", line);
    return w;
}

const char *
owner_text(char buf[OWNER_TEXT], int r, const struct owner_record *rec)
{
    char since[OWNER_TIME_TEXT];

    if (r == -ENODATA)
        snprintf(buf, OWNER_TEXT, "none ever");
    else if (r < 0)
        snprintf(buf, OWNER_TEXT, "not known: its records are damaged");
    else if (rec->state == OWNER_RELEASED)
        snprintf(buf, OWNER_TEXT, "none; host \"%s\" released it at %s, epoch %" PRIu64,
                 rec->host_name, owner_time_text(since, rec->time), rec->epoch);
    else
        snprintf(buf, OWNER_TEXT, "host \"%s\" since %s, epoch %" PRIu64, rec->host_name,
                 owner_time_text(since, rec->time), rec->epoch);
    return buf;
}
