/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/nbdpeer.h"
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    HAS_FLAGS = 1,
    READ_ONLY = 2,
    FLUSH = 4,
    READ = 0,
    WRITE = 1,
    BYE = 2,
    SYNC = 3
};

struct nbdpeer {
    pthread_mutex_t lock;
    pthread_t thread;
    char path[64], uri[96];
    size_t size;
    unsigned flags;
    uint8_t *medium, *cache; /* the cache shows what clients see */
    struct nbdpeer_plan plan;
    unsigned long connections, seen, writes;
    uint64_t rng;
    bool died, ended;
    int listener, client;
};

static bool
take(int fd, void *buf, size_t n)
{
    return recv(fd, buf, n, MSG_WAITALL) == (ssize_t)n;
}

static bool
give(int fd, const void *buf, size_t n)
{
    return send(fd, buf, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static void
put16(uint8_t *at, unsigned v)
{
    memcpy(at, &(uint16_t){htobe16((uint16_t)v)}, 2);
}

static void
put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &(uint32_t){htobe32(v)}, 4);
}

static void
put64(uint8_t *at, uint64_t v)
{
    memcpy(at, &(uint64_t){htobe64(v)}, 8);
}

static uint32_t
get32(const uint8_t *at)
{
    uint32_t v;

    memcpy(&v, at, 4);
    return be32toh(v);
}

static uint64_t
get64(const uint8_t *at)
{
    uint64_t v;

    memcpy(&v, at, 8);
    return be64toh(v);
}

static bool
option_reply(int fd, uint32_t option, uint32_t kind, const void *data, uint32_t n)
{
    uint8_t head[20];

    put64(head, UINT64_C(0x3e889045565a9));
    put32(head + 8, option);
    put32(head + 12, kind);
    put32(head + 16, n);
    return give(fd, head, sizeof head) && (n == 0 || give(fd, data, n));
}

static bool
negotiate(struct nbdpeer *p, int fd)
{
    uint8_t hello[18] = "NBDMAGICIHAVEOPT", buf[4096], info[12] = {0};

    put16(hello + 16, 3);
    put64(info + 2, p->size);
    put16(info + 10, p->flags | HAS_FLAGS);
    if (!give(fd, hello, sizeof hello) || !take(fd, buf, 4))
        return false;
    while (take(fd, buf, 16)) {
        uint32_t option = get32(buf + 8), n = get32(buf + 12);

        if (n > sizeof buf || (n && !take(fd, buf, n)))
            return false;
        if (option == 7)
            return option_reply(fd, option, 3, info, sizeof info) &&
                   option_reply(fd, option, 1, NULL, 0);
        if (option == 2 || !option_reply(fd, option, 0x80000001, NULL, 0))
            return false;
    }
    return false;
}

/* As when the power fails. */
static void
lose_cache(struct nbdpeer *p)
{
    for (size_t at = 0; at < p->size; at += SECTOR) {
        bool kept = p->plan.loss == LOSE_NONE;

        if (p->plan.loss == LOSE_SOME) {
            p->rng ^= p->rng << 13;
            p->rng ^= p->rng >> 7;
            p->rng ^= p->rng << 17;
            kept = p->rng >> 32 & 1;
        }
        memcpy((kept ? p->medium : p->cache) + at, (kept ? p->cache : p->medium) + at, SECTOR);
    }
}

static void
die(struct nbdpeer *p)
{
    p->died = true;
    lose_cache(p);
    if (p->plan.back) {
        memcpy(p->medium, p->plan.back, p->size);
        memcpy(p->cache, p->plan.back, p->size);
    }
    if (p->plan.shrink)
        p->size -= SECTOR;
    p->flags |= p->plan.read_only ? READ_ONLY : 0;
    p->flags &= p->plan.no_flush ? ~(unsigned)FLUSH : ~0U;
    if (p->plan.away) {
        unlink(p->path);
        p->ended = true;
    }
    if (p->plan.then) {
        p->plan = *p->plan.then;
        p->seen = 0;
    }
}

static bool
is_due(struct nbdpeer *p)
{
    if (p->plan.at == 0)
        return false;
    return p->plan.again ? p->seen % p->plan.at == 0 : p->seen == p->plan.at;
}

static void
carry_out(struct nbdpeer *p, const uint8_t *request, const uint8_t *data)
{
    unsigned kind = request[7], fua = request[5];

    if (kind == WRITE)
        memcpy(p->cache + get64(request + 16), data, get32(request + 24));
    if (kind == SYNC || (kind == WRITE && fua & 1))
        memcpy(p->medium, p->cache, p->size);
}

/* Until the client hangs up, or for @ms. */
static void
wait_for_client(struct nbdpeer *p, int fd, int ms)
{
    struct pollfd gone = {.fd = fd, .events = POLLRDHUP};

    pthread_mutex_unlock(&p->lock);
    poll(&gone, 1, ms);
    pthread_mutex_lock(&p->lock);
}

/* Under the lock.  False: the connection ends. */
static bool
serve(struct nbdpeer *p, int fd, const uint8_t *request, const uint8_t *data)
{
    unsigned kind = request[7];
    uint64_t off = get64(request + 16);
    uint32_t n = get32(request + 24), error = 0;
    uint8_t reply[16];
    bool due, dies;

    p->seen++;
    p->writes += kind == WRITE;
    due = is_due(p);
    dies = due && !p->plan.error && !p->plan.stall && !p->plan.slow_ms;
    if (due && p->plan.error)
        error = p->plan.error;
    else if (!due || p->plan.after)
        carry_out(p, request, data);
    if (dies) {
        die(p);
        return false;
    }
    if (due && (p->plan.stall || p->plan.slow_ms)) {
        bool stall = p->plan.stall;

        wait_for_client(p, fd, stall ? -1 : (int)p->plan.slow_ms);
        if (!p->plan.after)
            carry_out(p, request, data);
        if (stall)
            return false;
    }
    put32(reply, 0x67446698);
    put32(reply + 4, error);
    memcpy(reply + 8, request + 8, 8);
    return give(fd, reply, sizeof reply) && (kind != READ || error || give(fd, p->cache + off, n));
}

static bool
is_futile(struct nbdpeer *p)
{
    bool futile;

    pthread_mutex_lock(&p->lock);
    futile = p->died && p->plan.futile > 0;
    p->plan.futile -= futile;
    pthread_mutex_unlock(&p->lock);
    return futile;
}

static void
talk(struct nbdpeer *p, int fd)
{
    uint8_t request[28];
    bool go_on = negotiate(p, fd) && !is_futile(p);

    while (go_on && take(fd, request, sizeof request) && request[7] != BYE) {
        uint32_t n = get32(request + 24);
        uint8_t *data = request[7] == WRITE ? malloc(n) : NULL;

        go_on = !data || take(fd, data, n);
        pthread_mutex_lock(&p->lock);
        go_on = go_on && serve(p, fd, request, data);
        pthread_mutex_unlock(&p->lock);
        free(data);
    }
}

static void *
run(void *arg)
{
    struct nbdpeer *p = arg;
    bool ended = false;

    while (!ended) {
        int fd = accept(p->listener, NULL, NULL);

        if (fd < 0)
            break;
        pthread_mutex_lock(&p->lock);
        p->connections++;
        pthread_mutex_unlock(&p->lock);
        talk(p, fd);
        close(fd);
        pthread_mutex_lock(&p->lock);
        ended = p->ended;
        pthread_mutex_unlock(&p->lock);
    }
    close(p->listener);
    return NULL;
}

struct nbdpeer *
nbdpeer_new(size_t size, unsigned flags)
{
    struct nbdpeer *p = calloc(1, sizeof *p);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (!p)
        abort();
    pthread_mutex_init(&p->lock, NULL);
    snprintf(p->path, sizeof p->path, "/tmp/vnvram-nbdpeer.%d", (int)getpid());
    snprintf(p->uri, sizeof p->uri, "nbd+unix:///?socket=%s", p->path);
    strcpy(a.sun_path, p->path);
    p->size = size;
    p->flags = flags;
    p->rng = 88172645463325252U;
    p->medium = calloc(1, size);
    p->cache = calloc(1, size);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(p->path);
    if (!p->medium || !p->cache || bind(p->listener, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(p->listener, 4) < 0 || pthread_create(&p->thread, NULL, run, p) != 0)
        abort();
    return p;
}

void
nbdpeer_free(struct nbdpeer *p)
{
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    unlink(p->path);
    free(p->medium);
    free(p->cache);
    free(p);
}

const char *
nbdpeer_uri(const struct nbdpeer *p)
{
    return p->uri;
}

void
nbdpeer_plan(struct nbdpeer *p, const struct nbdpeer_plan *plan)
{
    pthread_mutex_lock(&p->lock);
    p->plan = *plan;
    p->connections = p->seen = p->writes = 0;
    p->died = false;
    pthread_mutex_unlock(&p->lock);
}

bool
nbdpeer_has_died(struct nbdpeer *p)
{
    bool died;

    pthread_mutex_lock(&p->lock);
    died = p->died;
    pthread_mutex_unlock(&p->lock);
    return died;
}

unsigned long
nbdpeer_connections(struct nbdpeer *p)
{
    unsigned long n;

    pthread_mutex_lock(&p->lock);
    n = p->connections;
    pthread_mutex_unlock(&p->lock);
    return n;
}

unsigned long
nbdpeer_seen(struct nbdpeer *p)
{
    unsigned long n;

    pthread_mutex_lock(&p->lock);
    n = p->seen;
    pthread_mutex_unlock(&p->lock);
    return n;
}

unsigned long
nbdpeer_writes(struct nbdpeer *p)
{
    unsigned long n;

    pthread_mutex_lock(&p->lock);
    n = p->writes;
    pthread_mutex_unlock(&p->lock);
    return n;
}

uint8_t *
nbdpeer_medium(struct nbdpeer *p)
{
    uint8_t *copy = malloc(p->size);

    if (!copy)
        abort();
    pthread_mutex_lock(&p->lock);
    memcpy(copy, p->medium, p->size);
    pthread_mutex_unlock(&p->lock);
    return copy;
}

void
nbdpeer_set_medium(struct nbdpeer *p, const uint8_t *bytes)
{
    pthread_mutex_lock(&p->lock);
    memcpy(p->medium, bytes, p->size);
    memcpy(p->cache, bytes, p->size);
    pthread_mutex_unlock(&p->lock);
}
