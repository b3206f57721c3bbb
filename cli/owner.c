/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/owner.h"
#include "base/bytes.h"
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

static void
identify_host(struct owner_options *w, const char *given)
{
    char line[256];

    if (given) {
        hash_id(w->host_id, "named host", given);
        snprintf(w->host_name, sizeof w->host_name, "%s", given);
        return;
    }
    if (gethostname(w->host_name, sizeof w->host_name - 1) < 0)
        w->host_name[0] = '\0';
    /* An image in which this is being set up says "uninitialized". */
    if (read_line(line, sizeof line, "/etc/machine-id") && strcmp(line, "uninitialized") != 0)
        hash_id(w->host_id, "host", line);
}

/* Where no lock tells that nobody of this host but us has an image, it is not ours to take. */
static void
identify_user(struct owner_options *w, unsigned uid)
{
    char text[2 * HOST_ID_SIZE + 16], host[HOST_NAME_SIZE - 20];
    int n = snprintf(text, sizeof text, "%u of ", uid);

    if (bytes_are_zero(w->host_id, HOST_ID_SIZE))
        return;
    for (int i = 0; i < HOST_ID_SIZE; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%02x", w->host_id[i]);
    hash_id(w->host_id, "user", text);
    snprintf(host, sizeof host, "%.*s", (int)sizeof host - 1, w->host_name);
    snprintf(w->host_name, sizeof w->host_name, "%s, user %u", host, uid);
}

const struct owner_options *
owner_from_options(struct options *o, const char *image)
{
    struct owner_options *w = &o->owner;
    char line[256];

    w->wait_ms = RELEASE_WAIT_MS;
    if (read_line(line, sizeof line, "/proc/sys/kernel/random/boot_id"))
        hash_id(w->boot_id, "boot", line);
    identify_host(w, o->host_id);
    if (!dev_is_path(image) && geteuid() != 0) /* core/dev_nbd.h: the lock is root's, or a user's */
        identify_user(w, geteuid());
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
