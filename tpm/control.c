/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/control.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/wire.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { HEADER = 10, OFF_SIZE = 2, OFF_CODE = 6 };
enum { PREFIX_CODE = 8, PREFIX = 9, OFF_LOCALITY = 4, OFF_LENGTH = 5 };
enum { JUNK_MAX = 64 << 10 };
enum { TAG_NO_SESSIONS = 0x8001, TAG_RESPONSE_1_2 = 0xc4, RC_SIZE = 0x142, BAD_SIZE_1_2 = 0x19 };

static bool
listens(int fd)
{
    int yes = 0;
    socklen_t len = sizeof yes;

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

void
control_open(struct control *c, int fd, int server)
{
    bool listener = listens(fd);

    c->server = server;
    c->listener = listener ? fd : -1;
    channel_open(&c->client, listener ? -1 : fd);
    channel_open(&c->data, -1);
}

void
control_close(struct control *c)
{
    scope_close(&c->listener);
    scope_close(&c->server);
    c->listener = c->server = -1;
    channel_close(&c->client);
    channel_close(&c->data);
}

void
control_poll(const struct control *c, struct pollfd p[CONTROL_FDS])
{
    bool has_data = c->data.fd >= 0 || c->data.busy;
    bool free = c->client.fd < 0 && !c->client.busy && !(has_data && !c->is_served);

    p[0] = (struct pollfd){.fd = free ? c->listener : -1, .events = POLLIN};
    p[1] = channel_poll(&c->client);
    p[2] = channel_poll(&c->data);
    p[3] = (struct pollfd){.fd = has_data && c->is_served ? -1 : c->server, .events = POLLIN};
}

/* ---- requests -------------------------------------------------------------------------------- */

static void
send_result(struct control *c, uint32_t result)
{
    uint8_t reply[WIRE_HEAD];

    store_be32(reply, result);
    channel_send(&c->client, reply, sizeof reply);
}

static bool
is_socket(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Nobody passes descriptors there. */
static void
open_data(struct control *c, int fd, bool is_served)
{
    channel_open(&c->data, fd);
    c->data.no_passing = true;
    c->is_served = is_served;
    c->edition++;
}

static void
set_data_fd(struct control *c)
{
    if (c->data.fd >= 0 || c->data.busy) {
        send_result(c, WIRE_WRONG_STATE);
    } else if (c->client.passed < 0 || !is_socket(c->client.passed)) {
        send_result(c, WIRE_BAD_BODY);
    } else {
        open_data(c, steal_fd(&c->client.passed), false);
        send_result(c, WIRE_OK);
    }
}

/* Here and not in the queue: it is about what the TPM is doing right now. */
static void
cancel(struct control *c)
{
    queue_cancel(c->queue, JOB_DATA);
    queue_cancel(c->queue, JOB_LINK);
    if (!queue_is_on(c->queue))
        send_result(c, WIRE_WRONG_STATE);
    else
        send_result(c, c->is_12 ? WIRE_FAIL : WIRE_OK); /* a TPM 1.2 cannot be cancelled */
}

static void
run_request(struct control *c, size_t size)
{
    struct channel *ch = &c->client;
    struct job j = {.source = JOB_CONTROL,
                    .code = load_be32(ch->in),
                    .locality = -1,
                    .body = ch->in + WIRE_HEAD,
                    .len = size - WIRE_HEAD};

    c->has_spoken = true;
    c->may_be_pad = j.code == WIRE_SET_LOCALITY || j.code == WIRE_RESET_ESTABLISHED;
    if (j.code == WIRE_SET_DATAFD) {
        set_data_fd(c);
    } else if (j.code == WIRE_CANCEL) {
        cancel(c);
    } else if (queue_put(c->queue, &j)) {
        ch->busy = true;
        c->shut_down |= j.code == WIRE_SHUTDOWN;
    } else {
        send_result(c, WIRE_IO_ERROR);
    }
}

/* False: more bytes are needed, or there is something to do first. */
static bool
parse_request(struct control *c)
{
    struct channel *ch = &c->client;
    uint64_t size;

    if (!channel_is_idle(ch) || c->shut_down)
        return false;
    if (c->may_be_pad) {
        int pad = wire_padding(ch->in, ch->in_len);

        if (pad < 0)
            return false;
        c->may_be_pad = false;
        channel_consume(ch, (uint64_t)pad);
    }
    size = wire_size(ch->in, ch->in_len);
    if (size == 0)
        return false;
    if (size > WIRE_BODY_MAX) {
        channel_consume(ch, size);
        send_result(c, WIRE_BAD_BODY);
        return true;
    }
    if (ch->in_len < size) {
        if (!channel_reserve(ch, (size_t)size))
            channel_close(ch);
        return false;
    }
    run_request(c, (size_t)size);
    channel_consume(ch, size);
    return true;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* In the form in which the command came. */
static void
send_response(struct control *c, const uint8_t *resp, size_t len)
{
    uint8_t framed[4 + CONTROL_BUFFER + 4];

    if (!c->prefixed) {
        channel_send(&c->data, resp, len);
        return;
    }
    store_be32(framed, (uint32_t)len);
    memcpy(framed + 4, resp, len);
    store_be32(framed + 4 + len, 0);
    channel_send(&c->data, framed, 4 + len + 4);
    explicit_bzero(framed, sizeof framed);
}

/* Drops @size bytes.  The command that follows is found only if that is sane; else the peer and we
 * would wait for each other. */
static void
refuse_command(struct control *c, uint64_t size)
{
    uint8_t resp[HEADER];

    store_be16(resp, c->is_12 ? TAG_RESPONSE_1_2 : TAG_NO_SESSIONS);
    store_be32(resp + OFF_SIZE, sizeof resp);
    store_be32(resp + OFF_CODE, c->is_12 ? BAD_SIZE_1_2 : RC_SIZE);
    channel_consume(&c->data, size);
    send_response(c, resp, sizeof resp);
    if (size > JUNK_MAX)
        channel_close(&c->data);
}

static bool
parse_command(struct control *c)
{
    struct channel *ch = &c->data;
    struct job j = {.source = JOB_DATA, .locality = -1};
    size_t prefix;
    uint64_t size;

    if (!channel_is_idle(ch) || ch->in_len < 4)
        return false;
    c->prefixed = load_be32(ch->in) == PREFIX_CODE;
    prefix = c->prefixed ? PREFIX : 0;
    if (ch->in_len < (c->prefixed ? (size_t)PREFIX : (size_t)OFF_CODE))
        return false;
    size = load_be32(ch->in + (c->prefixed ? OFF_LENGTH : OFF_SIZE));
    if (size < HEADER || size > CONTROL_BUFFER) {
        refuse_command(c, size < HEADER ? ch->in_len : prefix + size);
        return true;
    }
    if (ch->in_len < prefix + size)
        return false;
    if (c->prefixed)
        j.locality = ch->in[OFF_LOCALITY];
    j.body = ch->in + prefix;
    j.len = size;
    ch->busy = queue_put(c->queue, &j);
    c->is_cancelled = false;
    channel_consume(ch, prefix + size);
    if (!ch->busy)
        channel_close(ch);
    return true;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void
accept_client(struct control *c)
{
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return; /* it has gone again */
    channel_open(&c->client, fd);
    c->edition++;
    c->may_be_pad = c->has_spoken = false;
}

static void
accept_commands(struct control *c)
{
    AUTO_FD int fd = accept4(c->server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 || c->data.fd >= 0 || c->data.busy)
        return;
    open_data(c, steal_fd(&fd), true);
}

/* The job's answer goes to who asked for it, or, when that one has gone, nowhere. */
static void
take_answer(struct control *c, enum job_source source, struct channel *ch)
{
    AUTO_FREE uint8_t *answer = NULL;
    size_t len;

    if (!queue_fetch(c->queue, source, &answer, &len))
        return;
    ch->busy = false;
    if (!answer)
        channel_close(ch);
    else if (source == JOB_DATA)
        send_response(c, answer, len);
    else
        channel_send(ch, answer, len);
    if (answer)
        explicit_bzero(answer, len);
}

/* A descriptor that came with no request that wants one. */
static void
drop_passed(struct channel *ch)
{
    if (ch->in_len > 0 || ch->busy)
        return;
    scope_close(&ch->passed);
    ch->passed = -1;
}

/* Nobody waits for the answer to the data channel's command any more. */
static void
cancel_for_nobody(struct control *c)
{
    bool gone = c->is_served ? c->data.peer_gone : c->client.fd < 0;

    if (!gone || !c->data.busy || c->is_cancelled)
        return;
    queue_cancel(c->queue, JOB_DATA);
    c->is_cancelled = true;
}

/* A data channel that was handed over goes with the client that did it. */
static void
see_off(struct control *c)
{
    bool attached = c->client.fd >= 0;
    bool left = c->was_attached && !attached, taken;

    c->was_attached = attached;
    cancel_for_nobody(c);
    if (!attached && !c->is_served && c->data.fd >= 0 && !c->data.busy)
        channel_close(&c->data);
    taken = attached || c->data.fd >= 0;
    if (taken != c->was_taken)
        c->ops->attached(c->arg, taken);
    c->was_taken = taken;
    if (c->shut_down ? !c->client.busy && !c->client.out
                     : !attached && (c->listener < 0 || (left && c->terminate && c->has_spoken)))
        c->ops->end(c->arg);
}

/* Commands before requests: a CANCEL is about the command that was sent before it. */
void
control_turn(struct control *c, const struct pollfd p[CONTROL_FDS])
{
    take_answer(c, JOB_CONTROL, &c->client);
    take_answer(c, JOB_DATA, &c->data);
    channel_turn(&c->data, p[2].fd == c->data.fd ? p[2].revents : 0);
    while (parse_command(c))
        ;
    channel_turn(&c->client, p[1].fd == c->client.fd ? p[1].revents : 0);
    if (p[0].revents & POLLIN && c->client.fd < 0)
        accept_client(c);
    if (p[3].revents & POLLIN)
        accept_commands(c);
    while (parse_request(c))
        ;
    drop_passed(&c->client);
    see_off(c);
}
