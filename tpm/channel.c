/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/channel.h"
#include "base/scope.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { IN_SIZE = 8192, PASSED_MAX = 32 };

void
channel_open(struct channel *c, int fd)
{
    *c = (struct channel){.fd = fd, .passed = -1};
}

static void
wipe(uint8_t **buf, size_t len)
{
    if (*buf)
        explicit_bzero(*buf, len);
    free(steal(buf));
}

void
channel_close(struct channel *c)
{
    scope_close(&c->fd);
    scope_close(&c->passed);
    wipe(&c->in, c->in_size);
    wipe(&c->out, c->out_len);
    channel_open(c, -1);
}

bool
channel_is_idle(const struct channel *c)
{
    return c->fd >= 0 && !c->busy && !c->out;
}

struct pollfd
channel_poll(const struct channel *c)
{
    struct pollfd p = {.fd = c->busy && c->peer_gone ? -1 : c->fd};

    if (c->out)
        p.events = POLLOUT;
    else if (!c->busy)
        p.events = POLLIN;
    return p;
}

static void
flush(struct channel *c)
{
    while (c->out && c->out_done < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            channel_close(c);
            return;
        }
        c->out_done += (size_t)n;
    }
    wipe(&c->out, c->out_len);
    c->out_len = c->out_done = 0;
}

/* Mostly all goes at once, and then nothing need be kept. */
void
channel_send(struct channel *c, const uint8_t *buf, size_t len)
{
    ssize_t n;

    if (c->fd < 0 || len == 0)
        return;
    n = send(c->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n == (ssize_t)len)
        return;
    c->out_done = n < 0 ? 0 : (size_t)n;
    c->out = malloc(len);
    if (!c->out) {
        channel_close(c); /* better than a peer that waits for an answer */
        return;
    }
    memcpy(c->out, buf, len);
    c->out_len = len;
    flush(c);
}

bool
channel_reserve(struct channel *c, size_t size)
{
    uint8_t *grown;

    if (size <= c->in_size)
        return true;
    grown = malloc(size);
    if (!grown)
        return false;
    if (c->in_len)
        memcpy(grown, c->in, c->in_len);
    wipe(&c->in, c->in_size);
    c->in = grown;
    c->in_size = size;
    return true;
}

/* Keeps the first and closes the others: a peer must not fill our table of descriptors. */
static void
take_descriptors(struct channel *c, struct msghdr *msg)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (c->passed < 0)
                c->passed = fd;
            else
                close(fd);
        }
    }
}

/* Without asking for them, which costs, descriptors that come along are closed by the kernel. */
static ssize_t
receive(struct channel *c)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PASSED_MAX * sizeof(int))];
    } control;
    struct iovec iov = {c->in + c->in_len, c->in_size - c->in_len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    ssize_t n;

    if (c->no_passing)
        return recv(c->fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT);
    n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n > 0)
        take_descriptors(c, &msg);
    return n;
}

static void
fill(struct channel *c)
{
    ssize_t n;

    if (!channel_reserve(c, IN_SIZE)) {
        channel_close(c);
        return;
    }
    if (c->in_len == c->in_size)
        return;
    do
        n = receive(c);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->in_len += (size_t)n;
        if (c->skip)
            channel_consume(c, 0);
    } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
        channel_close(c);
    }
}

void
channel_turn(struct channel *c, short revents)
{
    if (c->fd < 0 || !revents)
        return;
    if (c->busy) {
        c->peer_gone |= (revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
        return;
    }
    if (c->out)
        flush(c);
    else
        fill(c);
}

void
channel_consume(struct channel *c, uint64_t n)
{
    size_t here;

    n += c->skip;
    here = n < c->in_len ? (size_t)n : c->in_len;
    c->skip = n - here;
    c->in_len -= here;
    if (c->in) {
        memmove(c->in, c->in + here, c->in_len);
        explicit_bzero(c->in + c->in_len, here);
    }
}
