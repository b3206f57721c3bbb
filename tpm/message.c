/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/message.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

static_assert(sizeof(struct message_start) <= MESSAGE_BODY, "the longest body must fit");

int
message_send(int fd, enum message_type type, const void *body, size_t len, int flags)
{
    uint32_t head = type;
    struct iovec iov[] = {{.iov_base = &head, .iov_len = sizeof head},
                          {.iov_base = (void *)(uintptr_t)body, .iov_len = len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n;

    assert(len <= MESSAGE_BODY);
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int
message_receive(int fd, struct message *m)
{
    struct iovec iov[] = {{.iov_base = &m->type, .iov_len = sizeof m->type},
                          {.iov_base = m->body, .iov_len = sizeof m->body}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n;

    /* A peer that ends with messages unread resets the connection, and we are told so, once, before
     * we are given its last words. */
    do
        n = recvmsg(fd, &msg, 0);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;
    if (n == 0)
        return -ENOTCONN;
    if ((size_t)n < sizeof m->type || msg.msg_flags & MSG_TRUNC)
        return -EBADMSG;
    m->len = (size_t)n - sizeof m->type;
    return 0;
}
