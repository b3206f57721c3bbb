/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/nbd_link.h"
#include "base/clock.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    GOODBYE_MS = 500,
    REQUEST_MAX = 1024 * 1024, /* every server takes as much */
    KEEPALIVE_IDLE_S = 10,
    KEEPALIVE_EVERY_S = 5,
    KEEPALIVE_COUNT = 3,
    VANISHED_MS = 1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_COUNT * KEEPALIVE_EVERY_S),
    ERROR_MAX = 256,
};

/* What we use of libnbd. */
#define CALLS(X)                                                                                   \
    X(nbd_create)                                                                                  \
    X(nbd_close)                                                                                   \
    X(nbd_get_error)                                                                               \
    X(nbd_get_errno)                                                                               \
    X(nbd_set_export_name)                                                                         \
    X(nbd_set_tls)                                                                                 \
    X(nbd_set_tls_username)                                                                        \
    X(nbd_set_tls_psk_file)                                                                        \
    X(nbd_set_tls_certificates)                                                                    \
    X(nbd_set_tls_verify_peer)                                                                     \
    X(nbd_aio_connect_socket)                                                                      \
    X(nbd_aio_connect_tcp)                                                                         \
    X(nbd_aio_get_fd)                                                                              \
    X(nbd_aio_is_connecting)                                                                       \
    X(nbd_aio_is_ready)                                                                            \
    X(nbd_aio_is_processing)                                                                       \
    X(nbd_aio_is_dead)                                                                             \
    X(nbd_aio_is_closed)                                                                           \
    X(nbd_aio_disconnect)                                                                          \
    X(nbd_aio_command_completed)                                                                   \
    X(nbd_aio_pread)                                                                               \
    X(nbd_aio_pwrite)                                                                              \
    X(nbd_aio_flush)                                                                               \
    X(nbd_poll)                                                                                    \
    X(nbd_get_size)                                                                                \
    X(nbd_get_block_size)                                                                          \
    X(nbd_is_read_only)                                                                            \
    X(nbd_can_flush)                                                                               \
    X(nbd_can_fua)

struct api {
#define DECLARE(name) __typeof__(&name) name;
    CALLS(DECLARE)
#undef DECLARE
};

struct nbd_link {
    const struct nbd_uri *uri;
    struct api api;
    void *library;
    struct addrinfo *hosts; /* TCP */
    struct nbd_handle *h;   /* NULL: not connected */
    char error[ERROR_MAX];
};

static int
left(int64_t deadline)
{
    int64_t ms = deadline - clock_ms();

    return ms <= 0 ? 0 : ms > INT32_MAX ? INT32_MAX : (int)ms;
}

/* ---- making -----------------------------------------------------------------------------------
 */

static int
load(struct nbd_link *l, const char *name)
{
    l->library = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!l->library)
        return report(-EOPNOTSUPP, "%s: NBD takes the library libnbd (package libnbd0): %s", name,
                      dlerror());
#define FIND(f)                                                                                    \
    *(void **)&l->api.f = dlsym(l->library, #f);                                                   \
    if (!l->api.f)                                                                                 \
        return report(-EOPNOTSUPP, "%s: libnbd is too old: %s", name, dlerror());
    CALLS(FIND)
#undef FIND
    return 0;
}

static int
look_up(struct nbd_link *l, const char *name)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int r = getaddrinfo(l->uri->host, l->uri->port, &hints, &l->hosts);

    return r == 0 ? 0 : report(-EIO, "%s: cannot find the host: %s", name, gai_strerror(r));
}

static void
free_link(struct nbd_link **l)
{
    nbd_link_free(*l);
}

int
nbd_link_new(struct nbd_link **out, const struct nbd_uri *uri, const char *name)
{
    AUTO(free_link) struct nbd_link *l = calloc(1, sizeof *l);
    int r;

    if (!l)
        return report(-ENOMEM, "%s: %s", name, errno_text(-ENOMEM));
    l->uri = uri;
    r = load(l, name);
    if (r == 0 && !uri->socket)
        r = look_up(l, name);
    if (r < 0)
        return r;
    if (uri->tls)
        signal(SIGPIPE, SIG_IGN); /* GnuTLS writes as it likes */
    *out = steal(&l);
    return 0;
}

void
nbd_link_hang_up(struct nbd_link *l)
{
    int64_t deadline = clock_ms() + GOODBYE_MS;

    if (nbd_link_is_up(l) && l->api.nbd_aio_disconnect(l->h, 0) == 0)
        while (!l->api.nbd_aio_is_closed(l->h) && !l->api.nbd_aio_is_dead(l->h) &&
               left(deadline) > 0 && l->api.nbd_poll(l->h, left(deadline)) > 0)
            ;
    nbd_link_drop(l);
}

void
nbd_link_free(struct nbd_link *l)
{
    if (!l)
        return;
    nbd_link_hang_up(l);
    if (l->hosts)
        freeaddrinfo(l->hosts);
    free(l); /* the library stays: GnuTLS and others have left things behind at exit */
}

void
nbd_link_drop(struct nbd_link *l)
{
    if (l->h)
        l->api.nbd_close(l->h);
    l->h = NULL;
}

bool
nbd_link_is_up(const struct nbd_link *l)
{
    return l->h && (l->api.nbd_aio_is_ready(l->h) || l->api.nbd_aio_is_processing(l->h));
}

const char *
nbd_link_error(const struct nbd_link *l)
{
    return l->error;
}

/* ---- sockets ----------------------------------------------------------------------------------
 */

/* A peer that has vanished is noticed also while we wait for its answer, or while it has not even
 * acknowledged our request.  And what the kernel has not sent when we give up, or are killed, it
 * must not send when the network is back: by then others may have written. */
static void
tune(int fd)
{
    static const struct linger none = {.l_onoff = 1, .l_linger = 0};
    static const int options[][3] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, VANISHED_MS},
    };

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        (void)setsockopt(fd, options[i][0], options[i][1], &options[i][2], sizeof(int));
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

/* A connected socket, or a negative errno. */
static int
open_socket(int family, const struct sockaddr *to, socklen_t len, int64_t deadline)
{
    AUTO_FD int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t size = sizeof(int);
    int error = 0;

    if (fd < 0)
        return -errno;
    if (connect(fd, to, len) < 0 && errno != EINPROGRESS)
        return -errno;
    if (poll(&p, 1, left(deadline)) <= 0)
        return -ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return -errno;
    if (error != 0)
        return -error;
    if (family != AF_UNIX)
        tune(fd);
    return steal_fd(&fd);
}

static int
connect_unix(struct nbd_link *l, int64_t deadline)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    snprintf(to.sun_path, sizeof to.sun_path, "%s", l->uri->socket); /* fits: nbd_uri_parse() */
    return open_socket(AF_UNIX, (struct sockaddr *)&to, sizeof to, deadline);
}

/* The first host that answers, of those that its name meant. */
static int
connect_tcp(struct nbd_link *l, int64_t deadline)
{
    int fd = -EHOSTUNREACH;

    for (const struct addrinfo *a = l->hosts; a && fd < 0; a = a->ai_next)
        fd = open_socket(a->ai_family, a->ai_addr, a->ai_addrlen, deadline);
    return fd;
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static int
keep_error(struct nbd_link *l, const char *what)
{
    snprintf(l->error, sizeof l->error, "%s", what ? what : "unknown error");
    return -ENOTCONN;
}

static bool
configure(struct nbd_link *l)
{
    const struct nbd_uri *u = l->uri;
    const struct api *a = &l->api;

    if (a->nbd_set_export_name(l->h, u->export) < 0)
        return false;
    if (!u->tls)
        return true;
    return a->nbd_set_tls(l->h, LIBNBD_TLS_REQUIRE) == 0 &&
           (!u->user || a->nbd_set_tls_username(l->h, u->user) == 0) &&
           (!u->psk_file || a->nbd_set_tls_psk_file(l->h, u->psk_file) == 0) &&
           (!u->certificates || (a->nbd_set_tls_certificates(l->h, u->certificates) == 0 &&
                                 a->nbd_set_tls_verify_peer(l->h, true) == 0));
}

/* Only by its own way does libnbd know the name that a certificate must be for. */
static int
start(struct nbd_link *l, int64_t deadline)
{
    int fd;

    if (l->uri->certificates)
        return l->api.nbd_aio_connect_tcp(l->h, l->uri->host, l->uri->port) == 0
                   ? 0
                   : keep_error(l, l->api.nbd_get_error());
    fd = l->uri->socket ? connect_unix(l, deadline) : connect_tcp(l, deadline);
    if (fd < 0)
        return keep_error(l, errno_text(fd));
    if (l->api.nbd_aio_connect_socket(l->h, fd) == 0)
        return 0; /* it is libnbd's now */
    close(fd);
    return keep_error(l, l->api.nbd_get_error());
}

static int
handshake(struct nbd_link *l, int64_t deadline)
{
    for (int ms = 1; l->api.nbd_aio_is_connecting(l->h);) {
        if (ms == 0)
            return keep_error(l, "no answer");
        ms = left(deadline);
        if (l->api.nbd_poll(l->h, ms) < 0)
            return keep_error(l, l->api.nbd_get_error());
    }
    if (!nbd_link_is_up(l))
        return keep_error(l, l->api.nbd_get_error());
    if (l->uri->certificates)
        tune(l->api.nbd_aio_get_fd(l->h)); /* the socket is libnbd's own */
    return 0;
}

static int
ask(struct nbd_link *l, struct nbd_export *e)
{
    int64_t size = l->api.nbd_get_size(l->h), most, block;

    if (size < 0)
        return keep_error(l, l->api.nbd_get_error());
    most = l->api.nbd_get_block_size(l->h, LIBNBD_SIZE_MAXIMUM);
    block = l->api.nbd_get_block_size(l->h, LIBNBD_SIZE_MINIMUM);
    *e = (struct nbd_export){
        .size = (uint64_t)size,
        .read_only = l->api.nbd_is_read_only(l->h) > 0,
        .flush = l->api.nbd_can_flush(l->h) > 0,
        .fua = l->api.nbd_can_fua(l->h) > 0,
        .block = block > 0 ? (uint32_t)block : 1,
        .most = most > 0 && most < REQUEST_MAX ? (uint32_t)most : (uint32_t)REQUEST_MAX,
    };
    return 0;
}

int
nbd_link_connect(struct nbd_link *l, struct nbd_export *e, int64_t deadline)
{
    int r;

    nbd_link_drop(l);
    l->h = l->api.nbd_create();
    if (!l->h)
        return -ENOMEM;
    r = configure(l) ? start(l, deadline) : keep_error(l, l->api.nbd_get_error());
    if (r == 0)
        r = handshake(l, deadline);
    if (r == 0)
        r = ask(l, e);
    if (r < 0)
        nbd_link_drop(l);
    return r;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

/* A server that is about to end says so; whatever it has not done, another may. */
static int
failure(struct nbd_link *l)
{
    int e = l->api.nbd_get_errno();
    bool lost = !nbd_link_is_up(l) || e == ESHUTDOWN || e == ENOTCONN;

    keep_error(l, l->api.nbd_get_error());
    if (lost)
        nbd_link_drop(l);
    return lost ? -ENOTCONN : e > 0 ? -e : -EIO;
}

/* Until the server has answered. */
int
nbd_link_finish(struct nbd_link *l, uint64_t cookie, int64_t deadline)
{
    int done;

    if (!nbd_link_is_up(l))
        return -ENOTCONN;
    for (int ms = 1; (done = l->api.nbd_aio_command_completed(l->h, cookie)) == 0;) {
        if (ms == 0) {
            keep_error(l, "no answer");
            nbd_link_drop(l);
            return -ETIMEDOUT;
        }
        ms = left(deadline);
        if (l->api.nbd_poll(l->h, ms) < 0 && !nbd_link_is_up(l))
            return failure(l);
    }
    return done > 0 ? 0 : failure(l);
}

static int
sent(struct nbd_link *l, int64_t cookie, int64_t deadline)
{
    return cookie < 0 ? failure(l) : nbd_link_finish(l, (uint64_t)cookie, deadline);
}

int
nbd_link_read(struct nbd_link *l, void *buf, size_t n, uint64_t off, int64_t deadline)
{
    if (!nbd_link_is_up(l))
        return -ENOTCONN;
    return sent(l, l->api.nbd_aio_pread(l->h, buf, n, off, NBD_NULL_COMPLETION, 0), deadline);
}

int
nbd_link_send_write(struct nbd_link *l, const void *buf, size_t n, uint64_t off, bool fua,
                    uint64_t *cookie)
{
    uint32_t flags = fua ? LIBNBD_CMD_FLAG_FUA : 0;
    int64_t got;

    if (!nbd_link_is_up(l))
        return -ENOTCONN;
    got = l->api.nbd_aio_pwrite(l->h, buf, n, off, NBD_NULL_COMPLETION, flags);
    *cookie = (uint64_t)got;
    return got < 0 ? failure(l) : 0;
}

int
nbd_link_flush(struct nbd_link *l, int64_t deadline)
{
    if (!nbd_link_is_up(l))
        return -ENOTCONN;
    return sent(l, l->api.nbd_aio_flush(l->h, NBD_NULL_COMPLETION, 0), deadline);
}

/* ---- what it is -------------------------------------------------------------------------------
 */

static bool
is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

void
nbd_link_sandbox(const struct nbd_link *l, struct sandbox_connect *c)
{
    const struct nbd_uri *u = l->uri;

    *c = (struct sandbox_connect){
        .local = u->socket != NULL,
        .port = u->socket ? 0 : (uint16_t)atoi(u->port),
        .resolve = u->certificates && !is_numeric(u->host),
        .file = u->psk_file,
        .directory = u->certificates,
    };
}

static bool
is_loopback(const struct addrinfo *a)
{
    if (a->ai_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_addr.s_addr) >>
                   24 ==
               127;
    return a->ai_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(
               &((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr);
}

bool
nbd_link_is_exposed(const struct nbd_link *l)
{
    if (l->uri->tls || l->uri->socket)
        return false;
    for (const struct addrinfo *a = l->hosts; a; a = a->ai_next)
        if (!is_loopback(a))
            return true;
    return false;
}
