// SPDX-License-Identifier: BSD-3-Clause
/* benchclient.c - one side of a comparison of scripts/bench.
 *
 *   benchclient SECONDS raw FILE BYTES            pwrite, in place, and fdatasync
 *   benchclient SECONDS look FILE                 open, read, close
 *   benchclient SECONDS seal FILE BYTES           AES-256-CBC and HMAC-SHA-256 by libgcrypt, then
 * raw benchclient SECONDS tpm TARGET COMMAND        nvwrite, nvread, getrandom or pcrextend
 *   benchclient 0 tpm TARGET fill                 defines NV indices and writes them until all is
 * full
 *
 * TARGET is a device file, or ctrl:PATH, a control channel from which it gets a data channel.  It
 * does the thing over and over for so many seconds (0: once) and prints a line of JSON: how often,
 * how many a second, and the median of each one's microseconds. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"

enum {
    OWNER = 0x40000001,
    PASSWORD = 0x40000009,
    INDEX = 0x01500100,      // 16 bytes
    FILL_FIRST = 0x01500200, // as many as there is room for
    FILL_SIZE = 2048,
    NV_CHUNK = 1024, // what one NV_Write may carry
    NV_FULL = 0x14B, // TPM_RC_NV_SPACE
};

struct job {
    int (*once)(struct job *job, uint32_t i);
    int fd, ctrl;
    const char *path, *command;
    size_t size;
    uint8_t *bytes;
    gcry_cipher_hd_t cipher;
    gcry_mac_hd_t mac;
};

static _Noreturn void
die(const char *what)
{
    fprintf(stderr, "benchclient: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// ---- files
// ----------------------------------------------------------------------------------------

static int
raw_once(struct job *job, uint32_t i)
{
    store_be32(job->bytes, i);
    if (pwrite(job->fd, job->bytes, job->size, 0) != (ssize_t)job->size)
        return -1;
    return fdatasync(job->fd);
}

static void
raw_open(struct job *job)
{
    job->bytes = calloc(1, job->size);
    job->fd = open(job->path, O_RDWR | O_CREAT, 0600);
    if (!job->bytes || job->fd < 0)
        die(job->path);
    // Not the first one, which allocates.
    if (raw_once(job, 0) < 0 || fsync(job->fd) < 0)
        die(job->path);
    job->once = raw_once;
}

static int
look_once(struct job *job, uint32_t i)
{
    int fd = open(job->path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, job->bytes, job->size);

    (void)i;
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)job->size ? 0 : -1;
}

static void
look_open(struct job *job)
{
    struct stat st;

    if (stat(job->path, &st) < 0)
        die(job->path);
    job->size = (size_t)st.st_size;
    job->bytes = malloc(job->size);
    if (!job->bytes)
        die("malloc");
    job->once = look_once;
}

static int
seal_once(struct job *job, uint32_t i)
{
    static const uint8_t iv[16];
    uint8_t tag[32];
    size_t n = sizeof tag;

    if (gcry_cipher_setiv(job->cipher, iv, sizeof iv) || gcry_mac_reset(job->mac) ||
        gcry_cipher_encrypt(job->cipher, job->bytes, job->size, NULL, 0) ||
        gcry_mac_write(job->mac, job->bytes, job->size) || gcry_mac_read(job->mac, tag, &n))
        return -1;
    return raw_once(job, i);
}

static void
seal_open(struct job *job)
{
    static const uint8_t key[32];

    job->size = (job->size + 15) / 16 * 16;
    raw_open(job);
    gcry_check_version(NULL);
    if (gcry_cipher_open(&job->cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CBC, 0) ||
        gcry_cipher_setkey(job->cipher, key, sizeof key) ||
        gcry_mac_open(&job->mac, GCRY_MAC_HMAC_SHA256, 0, NULL) ||
        gcry_mac_setkey(job->mac, key, sizeof key))
        die("libgcrypt");
    job->once = seal_once;
}

// ---- the TPM
// --------------------------------------------------------------------------------------

struct message {
    uint8_t bytes[4096];
    size_t n;
};

static void
put16(struct message *m, uint16_t v)
{
    store_be16(m->bytes + m->n, v);
    m->n += 2;
}

static void
put32(struct message *m, uint32_t v)
{
    store_be32(m->bytes + m->n, v);
    m->n += 4;
}

static void
put_filled(struct message *m, uint32_t fill, size_t n)
{
    for (size_t i = 0; i < n; i++)
        m->bytes[m->n++] = (uint8_t)(fill >> 8 * (i % 4));
}

/* TPM 2.0 Part 1, 18: header, handles, one password session with no password; parameters follow. */
static struct message
command_of(uint32_t code, uint32_t first, uint32_t second)
{
    struct message m = {.n = 0};

    put16(&m, first ? 0x8002 : 0x8001);
    put32(&m, 0);
    put32(&m, code);
    if (first)
        put32(&m, first);
    if (second)
        put32(&m, second);
    if (first) {
        put32(&m, 9);
        put32(&m, PASSWORD);
        put_filled(&m, 0, 5);
    }
    return m;
}

/* Sends it and waits for the response: its code, or -1. */
static int64_t
transmit(struct job *job, struct message *m)
{
    uint8_t response[4096];
    size_t have = 0;

    store_be32(m->bytes + 2, (uint32_t)m->n);
    if (write(job->fd, m->bytes, m->n) != (ssize_t)m->n)
        return -1;
    do {
        ssize_t n = read(job->fd, response + have, sizeof response - have);

        if (n <= 0)
            return -1;
        have += (size_t)n;
    } while (have < 10 || have < load_be32(response + 2));
    return load_be32(response + 6);
}

static int64_t
nv_define(struct job *job, uint32_t index, uint16_t size)
{
    struct message m = command_of(0x12A, OWNER, 0);

    put16(&m, 0); // no authorization value
    put16(&m, 14);
    put32(&m, index);
    put16(&m, 0x000B);
    put32(&m, 0x00020002); // OWNERWRITE, OWNERREAD
    put16(&m, 0);
    put16(&m, size);
    return transmit(job, &m);
}

static int64_t
nv_write(struct job *job, uint32_t index, uint32_t value, uint16_t size, uint16_t off)
{
    struct message m = command_of(0x137, OWNER, index);

    put16(&m, size);
    put_filled(&m, value, size);
    put16(&m, off);
    return transmit(job, &m);
}

static int
nvwrite_once(struct job *job, uint32_t i)
{
    return nv_write(job, INDEX, i + 1, 16, 0) ? -1 : 0;
}

static int
nvread_once(struct job *job, uint32_t i)
{
    struct message m = command_of(0x14E, OWNER, INDEX);

    (void)i;
    put16(&m, 16);
    put16(&m, 0);
    return transmit(job, &m) ? -1 : 0;
}

static int
getrandom_once(struct job *job, uint32_t i)
{
    struct message m = command_of(0x17B, 0, 0);

    (void)i;
    put16(&m, 16);
    return transmit(job, &m) ? -1 : 0;
}

static int
pcrextend_once(struct job *job, uint32_t i)
{
    struct message m = command_of(0x182, 16, 0);

    put32(&m, 1);
    put16(&m, 0x000B);
    put_filled(&m, i, 32);
    return transmit(job, &m) ? -1 : 0;
}

static int
fill_once(struct job *job, uint32_t i)
{
    int64_t r;

    (void)i;
    for (uint32_t index = FILL_FIRST; !(r = nv_define(job, index, FILL_SIZE)); index++)
        for (uint16_t off = 0; off < FILL_SIZE; off = (uint16_t)(off + NV_CHUNK))
            if (nv_write(job, index, ~index, NV_CHUNK, off))
                return -1;
    return r == NV_FULL ? 0 : -1;
}

/* A control channel's SET_DATAFD, with one end of a socket pair, and INIT. */
static void
data_channel(struct job *job, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    uint8_t request[8] = {0, 0, 0, 0x10}, answer[4];
    struct iovec iov = {request, 4};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    uint64_t until = now_ns() + 10000000000;
    int pair[2];

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    job->ctrl = socket(AF_UNIX, SOCK_STREAM, 0);
    if (job->ctrl < 0)
        die("socket");
    while (connect(job->ctrl, (struct sockaddr *)&address, sizeof address) < 0)
        if (errno != ECONNREFUSED || now_ns() > until) /* bound, but not listening yet */
            die(path);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        die("socketpair");
    memcpy(CMSG_DATA(&control.header), &pair[1], sizeof(int));
    if (sendmsg(job->ctrl, &message, 0) != 4 || read(job->ctrl, answer, 4) != 4 ||
        load_be32(answer))
        die("SET_DATAFD");
    close(pair[1]);
    store_be32(request, 2);
    if (write(job->ctrl, request, 8) != 8 || read(job->ctrl, answer, 4) != 4 || load_be32(answer))
        die("INIT");
    job->fd = pair[0];
}

static void
tpm_open(struct job *job)
{
    static const struct {
        const char *name;
        int (*once)(struct job *job, uint32_t i);
    } commands[] = {{"nvwrite", nvwrite_once},
                    {"nvread", nvread_once},
                    {"getrandom", getrandom_once},
                    {"pcrextend", pcrextend_once},
                    {"fill", fill_once}};
    struct message startup = command_of(0x144, 0, 0);

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (!strcmp(commands[i].name, job->command))
            job->once = commands[i].once;
    if (!strncmp(job->path, "ctrl:", 5))
        data_channel(job, job->path + 5);
    else
        job->fd = open(job->path, O_RDWR);
    if (job->fd < 0)
        die(job->path);
    put16(&startup, 0);
    if (transmit(job, &startup) < 0) // started already is fine
        die("Startup");
    if (job->once == nvwrite_once || job->once == nvread_once) {
        nv_define(job, INDEX, 16); // there already is fine
        if (nvwrite_once(job, UINT32_MAX - 1) < 0)
            die("NV_Write");
    }
}

// ---- the measurement
// ------------------------------------------------------------------------------

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void
measure(struct job *job, double seconds)
{
    size_t room = 1 << 22;
    uint32_t *took = malloc(room * sizeof *took), n = 0;
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), before = start, after;

    if (!took)
        die("malloc");
    do {
        if (job->once(job, n) < 0)
            die(job->path);
        after = now_ns();
        took[n++] = (uint32_t)((after - before) / 10); // 10 ns
        before = after;
    } while (after < end && n < room);
    qsort(took, n, sizeof *took, by_value);
    printf("{\"n\": %u, \"per_second\": %.1f, \"p10_us\": %.2f, \"median_us\": %.2f, \"p99_us\": "
           "%.2f}\n",
           n, n / ((double)(after - start) / 1e9), took[n / 10] / 100.0, took[n / 2] / 100.0,
           took[n - 1 - n / 100] / 100.0);
    free(took);
}

int
main(int argc, char **argv)
{
    struct job job = {.fd = -1, .ctrl = -1};

    if (argc < 4) {
        fprintf(stderr, "usage: benchclient SECONDS raw|look|seal|tpm ...; see its source\n");
        return 2;
    }
    job.path = argv[3];
    job.command = argc > 4 ? argv[4] : "";
    job.size = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;
    if (!strcmp(argv[2], "raw") && job.size >= 4)
        raw_open(&job);
    else if (!strcmp(argv[2], "look"))
        look_open(&job);
    else if (!strcmp(argv[2], "seal") && job.size >= 4)
        seal_open(&job);
    else if (!strcmp(argv[2], "tpm"))
        tpm_open(&job);
    if (!job.once) {
        fprintf(stderr, "benchclient: what?\n");
        return 2;
    }
    measure(&job, strtod(argv[1], NULL));
    return 0;
}
