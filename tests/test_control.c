/* SPDX-License-Identifier: BSD-3-Clause */
/* The control channel, byte by byte, on a TPM's process whose state is in an ordinary directory. */
#include "base/bytes.h"
#include "base/scope.h"
#include "tpm/link.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
/* after the above */
#include <cmocka.h>

enum { RC = 6, REPLY_MAX = 1 << 20 };

/* Valgrind makes keys slowly; but who breaks a rule on purpose wants to see it soon. */
static int
deadline_s(void)
{
    const char *text = getenv("VNVRAM_DEADLINE");

    return text ? atoi(text) : 240;
}

#define COMMAND(name, ...) static const uint8_t name[] = {__VA_ARGS__}
#define PASSWORD 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0 /* an empty one */
#define OWNER 0x40, 0, 0, 1
#define INDEX 0x01, 0x80, 0, 1

COMMAND(get_random, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8);
COMMAND(read_clock, 0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x81);
COMMAND(startup_clear, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0);
COMMAND(startup_state, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 1);
COMMAND(nv_define, 0x80, 2, 0, 0, 0, 45, 0, 0, 1, 0x2a, OWNER, PASSWORD, 0, 0, 0, 14, INDEX, 0, 11,
        0, 2, 0, 2, 0, 0, 0, 8);
COMMAND(nv_write, 0x80, 2, 0, 0, 0, 43, 0, 0, 1, 0x37, OWNER, INDEX, PASSWORD, 0, 8, 'r', 'e', 'm',
        'e', 'm', 'b', 'e', 'r', 0, 0);
COMMAND(nv_read, 0x80, 2, 0, 0, 0, 35, 0, 0, 1, 0x4e, OWNER, INDEX, PASSWORD, 0, 8, 0, 0);
COMMAND(create_primary, 0x80, 2, 0, 0, 0, 67, 0, 0, 1, 0x31, OWNER, PASSWORD, 0, 4, 0, 0, 0, 0, 0,
        26, 0, 1, 0, 11, 0, 3, 0, 0x72, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0);
COMMAND(pcr_read_17, 0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 11, 3, 0, 0, 2);
COMMAND(pcr_read_16, 0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 11, 3, 0, 0, 1);
/* PCR_Event: 16 is anybody's, 20 is that of localities 1 to 3 */
COMMAND(event_16, 0x80, 2, 0, 0, 0, 31, 0, 0, 1, 0x3c, 0, 0, 0, 16, PASSWORD, 0, 2, 'h', 'i');
COMMAND(event_20, 0x80, 2, 0, 0, 0, 31, 0, 0, 1, 0x3c, 0, 0, 0, 20, PASSWORD, 0, 2, 'h', 'i');
COMMAND(get_transient, 0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 8);
COMMAND(poison, 0x80, 1, 0, 0, 0, 10, 0x20, 0, 0, 1); /* a vendor's, taken from libtpms below */
COMMAND(startup_1_2, 0, 0xc1, 0, 0, 0, 12, 0, 0, 0, 0x99, 0, 1);

enum {
    RC_INITIALIZE = 0x100,
    RC_FAILURE = 0x101,
    RC_LOCALITY = 0x107,
    RC_SIZE = 0x142,
    RC_PCR_LOCALITY = 0x907,
    RC_CANCELED = 0x909
};

/* ---- libtpms, which can be made to fail -------------------------------------------------------
 */

static bool poisoned;

TPM_RESULT
TPMLIB_MainInit(void)
{
    TPM_RESULT (*real)(void);

    *(void **)&real = dlsym(RTLD_NEXT, "TPMLIB_MainInit");
    poisoned = false;
    return real();
}

TPM_RESULT
TPMLIB_Process(unsigned char **resp, uint32_t *resp_len, uint32_t *resp_size, unsigned char *cmd,
               uint32_t len)
{
    static const uint8_t failure[] = {0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1};
    TPM_RESULT (*real)(unsigned char **, uint32_t *, uint32_t *, unsigned char *, uint32_t);

    *(void **)&real = dlsym(RTLD_NEXT, "TPMLIB_Process");
    poisoned |= len == sizeof poison && memcmp(cmd, poison, sizeof poison) == 0;
    if (!poisoned)
        return real(resp, resp_len, resp_size, cmd, len);
    if (*resp_size < sizeof failure) {
        free(*resp);
        *resp = malloc(sizeof failure);
        *resp_size = sizeof failure;
    }
    memcpy(*resp, failure, sizeof failure);
    *resp_len = sizeof failure;
    return TPM_SUCCESS;
}

struct fixture {
    char dir[64];
    int fd; /* of dir */
    struct sockaddr_un address, server_address;
    int listener;
    int server; /* for commands alone; -1: none */
    struct tpm_link *link;
    int ctrl, data; /* the client's */
    uint8_t *reply;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum tpm_state state;
    bool answered;

    /* The daemon, as far as it moves the image: what was asked of it, and what it answers. */
    char moves[16];
    unsigned wait_ms;
    int move_r;
};

/* ---- the process -----------------------------------------------------------------------------
 */

static void
on_event(void *arg, enum tpm_state state, int r, const char *why)
{
    struct fixture *f = arg;

    (void)why, (void)r;
    pthread_mutex_lock(&f->lock);
    f->state = state;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void
on_done(void *arg, int r, const uint8_t *resp, size_t len)
{
    struct fixture *f = arg;

    (void)r, (void)resp, (void)len;
    pthread_mutex_lock(&f->lock);
    f->answered = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* On the link's thread; whoever asked waits for the answer. */
static int
on_move(void *arg, enum tpm_move move, unsigned wait_ms)
{
    struct fixture *f = arg;
    size_t n = strlen(f->moves);

    if (n + 1 == sizeof f->moves)
        return -EOVERFLOW;
    f->moves[n] = move == TPM_TAKE ? 't' : move == TPM_RELEASE ? 'r' : 'g';
    f->moves[n + 1] = '\0';
    f->wait_ms = wait_ms;
    return f->move_r;
}

static bool
has_started(const struct fixture *f)
{
    return f->state != TPM_STATE_STARTING;
}

static bool
has_ended(const struct fixture *f)
{
    return f->state == TPM_STATE_STOPPED || f->state == TPM_STATE_GONE;
}

static bool
is_running(const struct fixture *f)
{
    return f->state == TPM_STATE_RUNNING;
}

static bool
has_failed(const struct fixture *f)
{
    return f->state == TPM_STATE_FAILED;
}

static bool
has_answer(const struct fixture *f)
{
    return f->answered;
}

static void
wait_for(struct fixture *f, bool (*condition)(const struct fixture *))
{
    struct timespec end;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += deadline_s();
    pthread_mutex_lock(&f->lock);
    while (!condition(f) && r == 0)
        r = pthread_cond_timedwait(&f->changed, &f->lock, &end);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(r, 0);
}

static struct tpm_options
version_2(const struct fixture *f)
{
    /* valgrind, of which the process is a part, makes system calls of its own */
    return (struct tpm_options){.version = TPM_VERSION_2_0,
                                .control = f->listener,
                                .no_sandbox = getenv("VNVRAM_QUICK") != NULL};
}

static void
start_as(struct fixture *f, const struct tpm_options *opt)
{
    struct stat st;
    pid_t pid;
    int fd;

    f->state = TPM_STATE_STARTING;
    assert_int_equal(tpm_process_fork(opt, &pid, &fd), 0);
    assert_int_equal(tpm_link_new(&f->link, fd, pid, on_event, f), 0);
    if (opt->moves)
        tpm_link_on_move(f->link, on_move);
    assert_int_equal(fstat(f->fd, &st), 0);
    assert_int_equal(tpm_link_start(f->link, &(struct tpm_start){.path = f->dir,
                                                                 .dev = st.st_dev,
                                                                 .uid = geteuid(),
                                                                 .gid = getegid()}),
                     0);
    wait_for(f, has_started);
    assert_int_equal(f->state, TPM_STATE_RUNNING);
}

static void
start(struct fixture *f)
{
    struct tpm_options opt = version_2(f);

    start_as(f, &opt);
}

static void
hang_up(struct fixture *f)
{
    scope_close(&f->ctrl);
    scope_close(&f->data);
    f->ctrl = f->data = -1;
}

static void
end(struct fixture *f)
{
    hang_up(f);
    tpm_link_free(f->link);
    f->link = NULL;
}

static void
end_in_order(struct fixture *f)
{
    assert_int_equal(tpm_link_stop(f->link), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
    end(f);
}

static void
end_by_kill(struct fixture *f)
{
    kill(tpm_link_pid(f->link), SIGKILL);
    wait_for(f, has_ended);
    end(f);
}

/* True when the link takes a command, as the device file would. */
static bool
link_is_free(struct fixture *f)
{
    f->answered = false;
    if (cmddev_submit(tpm_link_cmddev(f->link), get_random, sizeof get_random, on_done, f) < 0)
        return false;
    wait_for(f, has_answer);
    return true;
}

static bool
link_is_taken(struct fixture *f)
{
    return cmddev_is_taken(tpm_link_cmddev(f->link));
}

static bool
until(struct fixture *f, bool (*condition)(struct fixture *f))
{
    const struct timespec moment = {.tv_nsec = 10000000};

    for (int i = 0; i < deadline_s() * 100; i++) {
        if (condition(f))
            return true;
        nanosleep(&moment, NULL);
    }
    return false;
}

/* ---- the client ------------------------------------------------------------------------------
 */

static int
new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    return fd;
}

static void
dial(struct fixture *f)
{
    f->ctrl = new_socket();
    assert_int_equal(connect(f->ctrl, (struct sockaddr *)&f->address, sizeof f->address), 0);
}

static void
put(int fd, const uint8_t *buf, size_t len)
{
    assert_int_equal(send(fd, buf, len, MSG_NOSIGNAL), len);
}

static int
dial_server(struct fixture *f)
{
    int fd = new_socket();

    assert_int_equal(connect(fd, (struct sockaddr *)&f->server_address, sizeof f->server_address),
                     0);
    return fd;
}

/* Exactly @len bytes; false: the other side has closed. */
static bool
get(int fd, uint8_t *buf, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (len > 0) {
        ssize_t n;

        assert_int_equal(poll(&p, 1, deadline_s() * 1000), 1);
        n = recv(fd, buf, len, 0);
        if (n <= 0)
            return false;
        buf += n;
        len -= (size_t)n;
    }
    return true;
}

static bool
is_closed(int fd)
{
    uint8_t byte;

    return !get(fd, &byte, 1);
}

static void
expect_at(struct fixture *f, int line, const uint8_t *req, size_t n, const uint8_t *want, size_t m)
{
    put(f->ctrl, req, n);
    if (!get(f->ctrl, f->reply, m) || memcmp(f->reply, want, m) != 0) {
        print_error("at line %d:", line);
        for (size_t i = 0; i < m; i++)
            print_error(" %02x", f->reply[i]);
        print_error("\n");
        fail();
    }
}

#define BYTES(...)                                                                                 \
    (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[])                                        \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define CODE(c, ...) BYTES(0, 0, 0, c, ##__VA_ARGS__)
#define RESULT(c) BYTES(0, 0, 0, c)
#define EXPECT(f, ...) expect_at(f, __LINE__, __VA_ARGS__)
#define WORD(n) 0, 0, 0, n
#define WRONG RESULT(0x0a)
#define BAD RESULT(3)
#define OK RESULT(0)

static void
send_with_fds(int fd, const uint8_t *buf, size_t len, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(64 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
    struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
    assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), len);
}

static void
set_data_fd(struct fixture *f)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    send_with_fds(f->ctrl, CODE(0x10), &fds[1], 1);
    close(fds[1]);
    f->data = fds[0];
    assert_true(get(f->ctrl, f->reply, 4));
    assert_int_equal(load_be32(f->reply), 0);
}

/* The response code of what comes on the data channel. */
static uint32_t
response(struct fixture *f)
{
    size_t len;

    assert_true(get(f->data, f->reply, 10));
    len = load_be32(f->reply + 2);
    assert_in_range(len, 10, 4096);
    assert_true(get(f->data, f->reply + 10, len - 10));
    return load_be32(f->reply + RC);
}

static uint32_t
run(struct fixture *f, const uint8_t *cmd, size_t len)
{
    put(f->data, cmd, len);
    return response(f);
}
#define RUN(f, cmd) run(f, cmd, sizeof cmd)

/* A client with a data channel, and a TPM that is on. */
static void
attach(struct fixture *f)
{
    dial(f);
    set_data_fd(f);
    EXPECT(f, CODE(2, WORD(0)), OK);
}

static void
attach_and_start(struct fixture *f)
{
    attach(f);
    assert_int_equal(RUN(f, startup_clear), 0);
}

static bool
clock_is_safe(struct fixture *f)
{
    assert_int_equal(RUN(f, read_clock), 0);
    return f->reply[10 + 8 + 8 + 4 + 4];
}

static void
read_pcr(struct fixture *f, const uint8_t *cmd, uint8_t pcr[32])
{
    assert_int_equal(run(f, cmd, sizeof pcr_read_16), 0);
    assert_int_equal(load_be32(f->reply + 2), 10 + 4 + 4 + 6 + 4 + 2 + 32);
    memcpy(pcr, f->reply + 10 + 4 + 4 + 6 + 4 + 2, 32);
}

/* The result; the blob is at f->reply + 16. */
static uint32_t
get_blob(struct fixture *f, uint8_t type, uint32_t off, size_t *len)
{
    uint8_t req[16] = {0, 0, 0, 0x0c, 0, 0, 0, 1, 0, 0, 0, type};

    store_be32(req + 12, off);
    put(f->ctrl, req, sizeof req);
    assert_true(get(f->ctrl, f->reply, 16));
    *len = load_be32(f->reply + 12);
    assert_int_equal(load_be32(f->reply + 4), 0);
    assert_int_equal(load_be32(f->reply + 8), *len);
    assert_in_range(*len, 0, REPLY_MAX - 16);
    assert_true(get(f->ctrl, f->reply + 16, *len));
    return load_be32(f->reply);
}

static uint8_t *
take_blob(struct fixture *f, uint8_t type, size_t *len)
{
    uint8_t *blob;

    assert_int_equal(get_blob(f, type, 0, len), 0);
    blob = malloc(*len);
    assert_non_null(blob);
    memcpy(blob, f->reply + 16, *len);
    return blob;
}

/* Head and body apart, as QEMU does. */
static uint32_t
set_blob_as(struct fixture *f, uint8_t flags, uint8_t type, const uint8_t *blob, size_t len)
{
    uint8_t req[16] = {0, 0, 0, 0x0d, 0, 0, 0, flags, 0, 0, 0, type};

    store_be32(req + 12, (uint32_t)len);
    put(f->ctrl, req, sizeof req);
    put(f->ctrl, blob, len);
    assert_true(get(f->ctrl, f->reply, 4));
    return load_be32(f->reply);
}

static uint32_t
set_blob(struct fixture *f, uint8_t type, const uint8_t *blob, size_t len)
{
    return set_blob_as(f, 0, type, blob, len);
}

static bool
exists(const struct fixture *f, const char *name)
{
    return faccessat(f->fd, name, F_OK, 0) == 0;
}

/* ---- fixture --------------------------------------------------------------------------------- */

static int
make_listener(struct fixture *f, struct sockaddr_un *address, const char *name)
{
    int fd = new_socket();

    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", f->dir, name);
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* A process with a server socket, and a TPM that is on. */
static void
start_server(struct fixture *f)
{
    struct tpm_options opt = version_2(f);

    f->server = make_listener(f, &f->server_address, "server");
    opt.server = f->server;
    opt.startup = TPM_STARTUP_CLEAR;
    start_as(f, &opt);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    f->reply = malloc(REPLY_MAX);
    assert_non_null(f->reply);
    snprintf(f->dir, sizeof f->dir, "%.40s/test_ctrl.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    f->ctrl = f->data = -1;
    f->listener = make_listener(f, &f->address, "socket");
    f->server = -1;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {"tpm2-00.permall",
                                        "tpm2-00.volatilestate",
                                        "tpm-00.permall",
                                        "tpm-00.volatilestate",
                                        "socket",
                                        "server",
                                        ".lock"};
    struct fixture *f = *state;

    end(f);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(f->fd, names[i], 0);
    close(f->listener);
    scope_close(&f->server);
    close(f->fd);
    assert_int_equal(rmdir(f->dir), 0); /* nothing else was left there */
    free(f->reply);
    free(f);
    return 0;
}

/* ---- each request, in each state -------------------------------------------------------------
 */

static void
requests_of_any_state(struct fixture *f)
{
    EXPECT(f, CODE(1), BYTES(WORD(0), 0, 1, 0x7f, 0xff));
    EXPECT(f, CODE(5, 4), OK);
    EXPECT(f, CODE(5, 5), RESULT(0x3d));
    EXPECT(f, CODE(5, 0, 0, 0, 0), OK);
    EXPECT(f, CODE(0x0f), BYTES(WORD(0), WORD(0)));
    EXPECT(f, CODE(0x10), BAD); /* without a descriptor */
    EXPECT(f, CODE(0x11, WORD(0)), BYTES(WORD(0), 0, 0, 16, 0, 0, 0, 0x0a, 0xf8, 0, 0, 16, 0));
    EXPECT(f, CODE(0x12, WORD(0), WORD(0), WORD(0), WORD(0)),
           BYTES(WORD(0), WORD(3), WORD(3), '{', '}', 0));
    EXPECT(f, CODE(0x12, WORD(0), WORD(0), WORD(2), WORD(0)), BYTES(WORD(0), WORD(3), WORD(1), 0));
    EXPECT(f, CODE(0x12, WORD(0), WORD(0), WORD(3), WORD(0)), BAD);
    EXPECT(f, CODE(0x13, WORD(1)), OK);
    EXPECT(f, CODE(0x14), WRONG);
    EXPECT(f, CODE(0), WRONG);
    EXPECT(f, BYTES(1, 0, 0, 1), WRONG);
}

static void
each_request_of_a_tpm_that_is_off(void **state)
{
    struct fixture *f = *state;

    start(f);
    dial(f);
    requests_of_any_state(f);
    EXPECT(f, CODE(4), WRONG);
    EXPECT(f, CODE(6), WRONG);
    EXPECT(f, CODE(7, WORD(2), 'h', 'i'), WRONG);
    EXPECT(f, CODE(8), WRONG);
    EXPECT(f, CODE(9), WRONG);
    EXPECT(f, CODE(0x0a), WRONG);
    EXPECT(f, CODE(0x0b, 3), WRONG);
    EXPECT(f, CODE(0x0c, WORD(1), WORD(1), WORD(0)), WRONG);
    EXPECT(f, CODE(0x0d, WORD(0), WORD(1), WORD(0)), BAD);
    EXPECT(f, CODE(0x0d, WORD(0), WORD(9), WORD(1), 'x'), BAD);
    EXPECT(f, CODE(0x0d, WORD(2), WORD(1), WORD(1), 'x'), BAD);
    EXPECT(f, CODE(0x0e), OK);
    EXPECT(f, CODE(0x11, WORD(10)),
           BYTES(WORD(0), 0, 0, 0x0a, 0xf8, 0, 0, 0x0a, 0xf8, 0, 0, 16, 0));
    EXPECT(f, CODE(0x11, 0, 1, 0, 0), BYTES(WORD(0), 0, 0, 16, 0, 0, 0, 0x0a, 0xf8, 0, 0, 16, 0));
    assert_false(exists(f, "tpm2-00.permall"));
}

static void
each_request_of_a_tpm_that_is_on(void **state)
{
    struct fixture *f = *state;

    start(f);
    dial(f);
    EXPECT(f, CODE(2, WORD(0)), OK);
    requests_of_any_state(f);
    EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0));
    EXPECT(f, CODE(6), OK);
    EXPECT(f, CODE(7, WORD(2), 'h', 'i'), OK);
    EXPECT(f, CODE(7, WORD(0)), OK);
    EXPECT(f, CODE(8), OK);
    EXPECT(f, CODE(4), BYTES(WORD(0), 1, 0, 0, 0));
    EXPECT(f, CODE(9), OK);
    EXPECT(f, CODE(0x0a), OK);
    EXPECT(f, CODE(0x0b, 0), RESULT(0x3d));
    EXPECT(f, CODE(0x0b, 5), RESULT(0x3d));
    EXPECT(f, CODE(0x0b, 3), OK);
    EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0));
    EXPECT(f, CODE(0x0c, WORD(1), WORD(3), WORD(0)), BYTES(0, 0, 8, 0, WORD(0), WORD(0), WORD(0)));
    EXPECT(f, CODE(0x0c, WORD(1), WORD(9), WORD(0)), BYTES(0, 0, 8, 0, WORD(0), WORD(0), WORD(0)));
    EXPECT(f, CODE(0x0d, WORD(0), WORD(1), WORD(1), 'x'), WRONG);
    EXPECT(f, CODE(0x11, WORD(10)), WRONG);
    EXPECT(f, CODE(2, WORD(1)), OK);
    EXPECT(f, CODE(0x0e), OK);
    EXPECT(f, CODE(4), WRONG);
}

/* What QEMU 7.2 does, from its start to its end. */
static void
a_machine_boots_resets_and_ends(void **state)
{
    struct fixture *f = *state;

    start(f);
    dial(f);
    set_data_fd(f);
    assert_int_equal(RUN(f, read_clock), RC_FAILURE);
    assert_int_equal(load_be16(f->reply), 0x8001);
    EXPECT(f, CODE(1), BYTES(WORD(0), 0, 1, 0x7f, 0xff));
    for (int boot = 0; boot < 2; boot++) {
        EXPECT(f, CODE(0x0e), OK);
        EXPECT(f, CODE(0x11, 0, 0, 15, 0xff),
               BYTES(WORD(0), 0, 0, 15, 0xff, 0, 0, 0x0a, 0xf8, 0, 0, 16, 0));
        EXPECT(f, CODE(2, WORD(0)), OK);
        EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0));
        EXPECT(f, CODE(5, 0, 0, 0, 0), OK);
        assert_int_equal(RUN(f, get_random), RC_INITIALIZE);
        assert_int_equal(RUN(f, startup_clear), 0);
        assert_true(boot == 0 || clock_is_safe(f)); /* it was shut down for the guest */
        assert_int_equal(RUN(f, event_16), 0);
    }
    EXPECT(f, CODE(3), OK);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
    assert_true(is_closed(f->data));
}

static void
a_stop_leaves_a_state_to_resume(void **state)
{
    struct fixture *f = *state;
    uint8_t before[32], after[32];

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, event_16), 0);
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(RUN(f, get_random), RC_FAILURE);
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, startup_state), 0);
    read_pcr(f, pcr_read_16, before);
    end_in_order(f);
    start(f);
    attach(f);
    assert_int_equal(RUN(f, startup_clear), 0);
    assert_true(clock_is_safe(f));
    read_pcr(f, pcr_read_16, after);
    assert_true(bytes_are_zero(after, 32));
}

/* ---- framing --------------------------------------------------------------------------------- */

static void
requests_may_come_in_pieces_and_in_heaps(void **state)
{
    static const uint8_t two[] = {WORD(5), 1,    WORD(0x0f), WORD(5),    1,
                                  0,       0,    0,          WORD(0x0f), WORD(0x0b),
                                  3,       0xde, 0xad,       0x42,       WORD(0x0f)};
    static const uint8_t want[] = {WORD(0), WORD(0), WORD(0), WORD(0), WORD(0),
                                   WORD(0), WORD(0), WORD(0), WORD(0)};
    struct fixture *f = *state;

    start(f);
    dial(f);
    EXPECT(f, CODE(2, WORD(0)), OK);
    EXPECT(f, two, sizeof two, want, 36);
    EXPECT(f, CODE(1), BYTES(WORD(0), 0, 1, 0x7f, 0xff));
    for (size_t i = 0; i < 21; i++) /* the junk is only recognised in one piece */
        put(f->ctrl, two + i, 1);
    assert_true(get(f->ctrl, f->reply, 24));
    assert_memory_equal(f->reply, want, 24);
    put(f->ctrl, CODE(7, WORD(4), 'a'));
    put(f->ctrl, BYTES('b', 'c'));
    EXPECT(f, BYTES('d'), OK);
}

static void
a_command_may_come_in_pieces_and_in_heaps(void **state)
{
    struct fixture *f = *state;
    uint8_t both[sizeof get_random + sizeof read_clock];

    start(f);
    attach_and_start(f);
    for (size_t i = 0; i < sizeof get_random; i++)
        put(f->data, get_random + i, 1);
    assert_int_equal(response(f), 0);
    memcpy(both, get_random, sizeof get_random);
    memcpy(both + sizeof get_random, read_clock, sizeof read_clock);
    put(f->data, both, sizeof both);
    assert_int_equal(response(f), 0);
    assert_int_equal(response(f), 0);
    /* the TCG's form: 8, a locality, a length */
    put(f->data, BYTES(WORD(8), 0, WORD(12), 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8));
    assert_true(get(f->data, f->reply, 4 + 20 + 4));
    assert_int_equal(load_be32(f->reply), 20);
    assert_int_equal(load_be32(f->reply + 4 + RC), 0);
    assert_int_equal(load_be32(f->reply + 24), 0);
}

static void
nonsense_gets_an_error_and_no_more(void **state)
{
    struct fixture *f = *state;
    uint8_t big[8192] = {0x80, 1, 0, 0, 0x20, 0};

    start(f);
    attach_and_start(f);
    assert_int_equal(run(f, BYTES(0x80, 1, 0, 0, 0, 9)), RC_SIZE);
    assert_int_equal(run(f, big, sizeof big), RC_SIZE);
    assert_int_equal(RUN(f, get_random), 0);
    put(f->data, BYTES(WORD(8), 0, WORD(1), 0));
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_SIZE);
    assert_int_equal(run(f, BYTES(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), RC_SIZE);
    assert_true(is_closed(f->data));
    close(f->data);
    f->data = -1;
    EXPECT(f, CODE(0x0d, WORD(0), WORD(1), 0, 0x50, 0, 0), BAD); /* 5 MiB: refused at once */
    for (int i = 0; i < 5 << 7; i++)
        put(f->ctrl, big, sizeof big); /* and then not looked at */
    EXPECT(f, CODE(0x0f), BYTES(WORD(0), WORD(0)));
    put(f->ctrl, CODE(7, WORD(4), 'a')); /* goes in the middle of a request */
    hang_up(f);
    dial(f);
    EXPECT(f, CODE(0x0f), BYTES(WORD(0), WORD(0)));
    assert_int_equal(f->state, TPM_STATE_RUNNING);
}

/* Its own request waits for ever, others' do not. */
static void
who_never_reads_harms_nobody(void **state)
{
    static const uint8_t get_permanent[] = {WORD(0x0c), WORD(1), WORD(1), WORD(0)};
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    assert_int_equal(fcntl(f->ctrl, F_SETFL, O_NONBLOCK), 0);
    for (int i = 0; i < 100000; i++)
        if (send(f->ctrl, get_permanent, sizeof get_permanent, MSG_NOSIGNAL) < 0)
            break;
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(RUN(f, get_random), 0);
    assert_int_equal(tpm_link_stop(f->link), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

/* Without the set of what is waited for, which is there or not. */
static size_t
count_descriptors(struct fixture *f)
{
    char path[64], what[64];
    struct dirent *e;
    size_t n = 0;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)tpm_link_pid(f->link));
    d = opendir(path);
    if (!d) /* not dumpable, and we are not root */
        return 0;
    while ((e = readdir(d))) {
        ssize_t len = readlinkat(dirfd(d), e->d_name, what, sizeof what);

        n += len < 0 || !memmem(what, (size_t)len, "[eventpoll]", 11);
    }
    closedir(d);
    return n;
}

static void
no_descriptor_is_left_behind(void **state)
{
    struct fixture *f = *state;
    size_t before;
    int fds[40];

    for (size_t i = 0; i < 40; i++)
        fds[i] = f->listener;
    start(f);
    dial(f);
    set_data_fd(f);
    EXPECT(f, CODE(0x0f), BYTES(WORD(0), WORD(0)));
    before = count_descriptors(f);
    send_with_fds(f->ctrl, CODE(0x0f), fds, 40);
    assert_true(get(f->ctrl, f->reply, 8));
    send_with_fds(f->ctrl, CODE(0x10), fds, 2);
    assert_true(get(f->ctrl, f->reply, 4));
    assert_int_equal(load_be32(f->reply), 0x0a); /* there is one */
    send_with_fds(f->data, read_clock, sizeof read_clock, fds, 40);
    assert_int_equal(response(f), RC_FAILURE);
    EXPECT(f, CODE(0x0f), BYTES(WORD(0), WORD(0)));
    assert_int_equal(count_descriptors(f), before);
}

static void
only_a_socket_is_a_data_channel(void **state)
{
    struct fixture *f = *state;

    start(f);
    dial(f);
    send_with_fds(f->ctrl, CODE(0x10), &f->fd, 1);
    assert_true(get(f->ctrl, f->reply, 4));
    assert_int_equal(load_be32(f->reply), 3);
    set_data_fd(f);
}

/* ---- clients --------------------------------------------------------------------------------- */

static void
one_client_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct pollfd p;
    uint8_t reply[8];
    int first;

    start(f);
    assert_true(link_is_free(f)); /* which powers it on */
    dial(f);
    EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0));
    assert_true(until(f, link_is_taken)); /* told over a socket of its own */
    assert_false(link_is_free(f));
    first = f->ctrl;
    dial(f);
    put(f->ctrl, CODE(0x0f));
    p = (struct pollfd){.fd = f->ctrl, .events = POLLIN};
    put(first, CODE(0x0f));
    assert_true(get(first, reply, 8));
    assert_int_equal(poll(&p, 1, 0), 0);
    close(first);
    assert_true(get(f->ctrl, reply, 8));
    hang_up(f);
    assert_true(until(f, link_is_free));
}

static void
the_data_channel_goes_with_its_client(void **state)
{
    struct fixture *f = *state;
    struct pollfd p;

    start(f);
    attach_and_start(f);
    scope_close(&f->ctrl);
    f->ctrl = -1;
    p = (struct pollfd){.fd = f->data, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
    assert_true(is_closed(f->data));
}

static void
it_ends_with_its_client_if_asked(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);

    opt.terminate = true;
    start_as(f, &opt);
    dial(f); /* a look whether somebody is there is no client */
    hang_up(f);
    attach_and_start(f);
    hang_up(f);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

/* As a QEMU that quits, or is killed, in the middle of a command. */
static void
quit_without_a_word(struct fixture *f)
{
    attach_and_start(f);
    put(f->data, create_primary, sizeof create_primary);
    hang_up(f);
}

static void
a_client_that_quits_in_the_middle_of_a_command_leaves_the_tpm_to_the_next(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (int i = 0; i < 3; i++)
        quit_without_a_word(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, get_random), 0);
    EXPECT(f, CODE(3), OK);
    wait_for(f, has_ended);
}

static void
it_ends_with_a_client_in_the_middle_of_a_command_if_asked(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);

    opt.terminate = true;
    start_as(f, &opt);
    quit_without_a_word(f);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

static void
it_serves_a_connected_socket(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    opt.control = fds[1];
    start_as(f, &opt);
    close(fds[1]);
    f->ctrl = fds[0];
    set_data_fd(f);
    EXPECT(f, CODE(2, WORD(0)), OK);
    hang_up(f);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

static void
it_starts_up_by_itself_if_asked(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);

    opt.startup = TPM_STARTUP_CLEAR;
    start_as(f, &opt);
    dial(f);
    set_data_fd(f);
    assert_int_equal(RUN(f, get_random), 0);
}

/* ---- the server socket -------------------------------------------------------------------------
 */

static void
commands_may_come_without_a_control_client(void **state)
{
    struct fixture *f = *state;

    start_server(f);
    assert_true(link_is_free(f));
    for (int i = 0; i < 3; i++) {
        f->data = dial_server(f);
        for (size_t k = 0; k < sizeof get_random; k++)
            put(f->data, get_random + k, 1);
        assert_int_equal(response(f), 0);
        assert_true(until(f, link_is_taken));
        assert_int_equal(RUN(f, read_clock), 0);
        hang_up(f);
    }
    assert_true(until(f, link_is_free));
}

static void
nonsense_on_the_server_socket_harms_nobody(void **state)
{
    static const uint8_t big[8192] = {0x80, 1, 0, 0, 0x20, 0};
    struct fixture *f = *state;

    start_server(f);
    f->data = dial_server(f);
    assert_int_equal(run(f, BYTES(0x80, 1, 0, 0, 0, 9)), RC_SIZE);
    assert_int_equal(run(f, big, sizeof big), RC_SIZE);
    put(f->data, BYTES(WORD(8), 0, WORD(1), 0));
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_SIZE);
    put(f->data, BYTES(WORD(8), 5, WORD(12), 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8));
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_LOCALITY);
    send_with_fds(f->data, get_random, sizeof get_random, &f->fd, 1);
    assert_int_equal(response(f), 0);
    assert_int_equal(run(f, BYTES(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), RC_SIZE);
    assert_true(is_closed(f->data));
    hang_up(f);
    f->data = dial_server(f);
    put(f->data, get_random, 5); /* goes in the middle of a command */
    hang_up(f);
    f->data = dial_server(f);
    assert_int_equal(RUN(f, get_random), 0);
}

static void
clients_of_the_server_socket_wait_for_each_other(void **state)
{
    struct fixture *f = *state;
    struct pollfd p = {.events = POLLIN};
    int first;

    start_server(f);
    first = f->data = dial_server(f);
    assert_int_equal(RUN(f, get_random), 0);
    p.fd = f->data = dial_server(f);
    put(f->data, get_random, sizeof get_random);
    f->data = first;
    assert_int_equal(RUN(f, get_random), 0);
    assert_int_equal(poll(&p, 1, 0), 0);
    close(first);
    f->data = p.fd;
    assert_int_equal(response(f), 0);
}

static bool
server_answers(struct fixture *f)
{
    AUTO_FD int fd = dial_server(f);

    send(fd, get_random, sizeof get_random, MSG_NOSIGNAL);
    return get(fd, f->reply, 10);
}

/* A machine that has the TPM may have it for days. */
static void
a_channel_that_was_handed_over_turns_others_away(void **state)
{
    struct fixture *f = *state;
    int other;

    start_server(f);
    attach(f);
    other = dial_server(f);
    assert_true(is_closed(other));
    close(other);
    assert_int_equal(RUN(f, get_random), RC_INITIALIZE);
    hang_up(f);
    assert_true(until(f, server_answers));
}

static void
a_client_of_the_server_socket_keeps_the_data_channel(void **state)
{
    struct fixture *f = *state;

    start_server(f);
    f->data = dial_server(f);
    assert_int_equal(RUN(f, get_random), 0);
    dial(f);
    send_with_fds(f->ctrl, CODE(0x10), &f->listener, 1);
    assert_true(get(f->ctrl, f->reply, 4));
    assert_int_equal(load_be32(f->reply), 0x0a);
    EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0)); /* and all else works beside it */
    EXPECT(f, CODE(5, 3), OK);
    assert_int_equal(RUN(f, event_20), 0);
    scope_close(&f->ctrl); /* its end is not that of the other */
    f->ctrl = -1;
    assert_int_equal(RUN(f, get_random), 0);
}

/* A key may be found before the client has gone; three do not fit the TPM, so once is enough. */
static void
a_client_that_goes_takes_its_command_along(void **state)
{
    struct fixture *f = *state;

    start_server(f);
    for (int i = 0; i < 3; i++) {
        f->data = dial_server(f);
        put(f->data, create_primary, sizeof create_primary);
        hang_up(f);
        f->data = dial_server(f);
        assert_int_equal(RUN(f, get_transient), 0);
        if (f->reply[18] == i) /* there are no more keys than before */
            return;
        hang_up(f);
    }
    fail();
}

/* ---- localities, measurements, cancelling ------------------------------------------------------
 */

static void
a_locality_is_that_of_the_commands(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, event_20), RC_PCR_LOCALITY);
    EXPECT(f, CODE(5, 3), OK);
    assert_int_equal(RUN(f, event_20), 0);
    EXPECT(f, CODE(5, 5), RESULT(0x3d));
    assert_int_equal(RUN(f, event_20), 0);
    EXPECT(f, CODE(0x0b, 4), OK); /* for this request only */
    assert_int_equal(RUN(f, event_20), 0);
    put(f->data, BYTES(WORD(8), 0, WORD(31)));
    put(f->data, event_20, sizeof event_20);
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_PCR_LOCALITY);
    put(f->data, BYTES(WORD(8), 5, WORD(31)));
    put(f->data, event_20, sizeof event_20);
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_LOCALITY);
    assert_int_equal(RUN(f, event_20), 0);
    EXPECT(f, CODE(5, 0), OK);
    assert_int_equal(RUN(f, event_20), RC_PCR_LOCALITY);
}

static void
locality_4_is_refused_if_asked(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);

    opt.reject_locality_4 = true;
    start_as(f, &opt);
    attach_and_start(f);
    EXPECT(f, CODE(5, 4), RESULT(0x3d));
    EXPECT(f, CODE(5, 3), OK);
    EXPECT(f, CODE(0x0b, 4), RESULT(0x3d));
    put(f->data, BYTES(WORD(8), 4, WORD(12), 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8));
    assert_true(get(f->data, f->reply, 4 + 10 + 4));
    assert_int_equal(load_be32(f->reply + 4 + RC), RC_LOCALITY);
}

/* SHA-256 of 32 zeros and the SHA-256 of "abcdef" */
static const uint8_t measured[32] = {
    0x74, 0x9f, 0xad, 0x69, 0x13, 0x92, 0x5a, 0xb5, 0x0f, 0xf8, 0x81, 0xd3, 0xa2, 0x2c, 0x21, 0x4d,
    0x2f, 0x93, 0x8f, 0x95, 0x62, 0xa2, 0x9d, 0xa9, 0xfc, 0x9e, 0x29, 0x2d, 0x06, 0x8f, 0x32, 0x0b};

static void
a_dynamic_launch_is_measured(void **state)
{
    struct fixture *f = *state;
    uint8_t pcr[32];

    start(f);
    attach_and_start(f);
    EXPECT(f, CODE(6), OK);
    EXPECT(f, CODE(7, WORD(2), 'a', 'b'), OK);
    EXPECT(f, CODE(7, WORD(4), 'c', 'd', 'e', 'f'), OK);
    EXPECT(f, CODE(8), OK);
    read_pcr(f, pcr_read_17, pcr);
    assert_memory_equal(pcr, measured, 32);
    EXPECT(f, CODE(4), BYTES(WORD(0), 1, 0, 0, 0));
}

/* A key may be found before the request arrives; three do not fit the TPM, so once is enough. */
static void
cancel_interrupts_the_making_of_a_key(void **state)
{
    struct fixture *f = *state;
    uint32_t rc = 0;

    start(f);
    attach_and_start(f);
    for (int i = 0; i < 3 && rc == 0; i++) {
        put(f->data, create_primary, sizeof create_primary);
        EXPECT(f, CODE(9), OK);
        rc = response(f);
    }
    assert_int_equal(rc, RC_CANCELED);
    assert_int_equal(RUN(f, get_random), 0); /* and nothing after it */
}

static bool
can_be_read(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* As swtpm does: the command ends first, and is answered first; who is in a hurry sends CANCEL. */
static void
requests_wait_for_the_command_that_runs(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    put(f->data, create_primary, sizeof create_primary);
    EXPECT(f, CODE(0x0e), OK);
    assert_true(can_be_read(f->data));
    assert_int_equal(response(f), 0);
    assert_int_equal(RUN(f, get_random), RC_FAILURE); /* it is off */
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, startup_clear), 0);
    put(f->data, create_primary, sizeof create_primary);
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_true(can_be_read(f->data));
    assert_int_equal(response(f), 0);
    assert_int_equal(RUN(f, get_random), RC_INITIALIZE); /* it has been reset */
    assert_int_equal(RUN(f, startup_clear), 0);
    assert_true(clock_is_safe(f));
    put(f->data, create_primary, sizeof create_primary);
    put(f->ctrl, CODE(9));
    put(f->ctrl, CODE(0x0e));
    assert_true(get(f->ctrl, f->reply, 8));
    assert_true(can_be_read(f->data));
    response(f); /* cancelled, or a lucky key */
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, startup_clear), 0);
    put(f->data, create_primary, sizeof create_primary);
    EXPECT(f, CODE(3), OK);
    assert_true(can_be_read(f->data));
    assert_int_equal(response(f), 0);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

/* ---- state ----------------------------------------------------------------------------------- */

static void
a_stored_volatile_state_resumes_after_a_kill(void **state)
{
    struct fixture *f = *state;
    uint8_t before[32], after[32];

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, event_16), 0);
    read_pcr(f, pcr_read_16, before);
    EXPECT(f, CODE(0x0a), OK);
    end_by_kill(f);
    start(f);
    assert_true(exists(f, "tpm2-00.volatilestate"));
    attach(f);
    read_pcr(f, pcr_read_16, after);
    assert_memory_equal(after, before, 32);
    assert_true(exists(f, "tpm2-00.volatilestate")); /* it is still this TPM's */
    assert_int_equal(RUN(f, event_16), 0);
    assert_false(exists(f, "tpm2-00.volatilestate"));
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, get_random), RC_INITIALIZE); /* never back to what it was */
}

static void
a_measurement_outdates_the_stored_volatile_state(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    EXPECT(f, CODE(0x0a), OK);
    assert_true(exists(f, "tpm2-00.volatilestate"));
    EXPECT(f, CODE(6), OK);
    assert_false(exists(f, "tpm2-00.volatilestate"));
    EXPECT(f, CODE(8), OK);
}

static void
init_removes_the_volatile_state_if_asked(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    EXPECT(f, CODE(0x0a), OK);
    EXPECT(f, CODE(0x0e), OK);
    EXPECT(f, CODE(2, WORD(1)), OK);
    assert_false(exists(f, "tpm2-00.volatilestate"));
    assert_int_equal(RUN(f, get_random), 0);
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, get_random), RC_INITIALIZE);
}

static void
a_blob_can_be_taken_from_any_offset(void **state)
{
    static const uint8_t head[] = {2, 1, 0, 10, 0, 4};
    struct fixture *f = *state;
    size_t len;

    start(f);
    attach_and_start(f);
    for (uint8_t type = 1; type <= 2; type++) {
        size_t whole, rest;
        AUTO_FREE uint8_t *blob = take_blob(f, type, &whole);

        assert_memory_equal(blob, head, sizeof head);
        assert_int_equal(load_be32(blob + 6), whole);
        assert_int_equal(load_be16(blob + 10), 4);
        assert_int_equal(load_be32(blob + 12), whole - 16);
        assert_int_equal(load_be16(blob + 16), 1);
        assert_int_equal(load_be32(blob + 18), whole - 22);
        for (uint32_t off = 1; off < whole; off += 997) {
            assert_int_equal(get_blob(f, type, off, &rest), 0);
            assert_int_equal(rest, whole - off);
            assert_memory_equal(f->reply + 16, blob + off, rest);
        }
        assert_int_equal(get_blob(f, type, (uint32_t)whole, &rest), 0);
        assert_int_equal(rest, 0);
        assert_int_equal(get_blob(f, type, UINT32_MAX, &rest), 0);
        assert_int_equal(rest, 0);
    }
    assert_int_equal(get_blob(f, 3, 0, &len), 0x800);
}

/* Of a running TPM to one that was another until then. */
static void
a_tpm_goes_to_another_host(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *permanent = NULL, *running = NULL;
    uint8_t before[32], after[32];
    size_t permanent_len, running_len;

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    assert_int_equal(RUN(f, event_16), 0);
    read_pcr(f, pcr_read_16, before);
    permanent = take_blob(f, 1, &permanent_len);
    running = take_blob(f, 2, &running_len);
    end_in_order(f);
    assert_int_equal(unlinkat(f->fd, "tpm2-00.permall", 0), 0);
    start(f);
    dial(f);
    set_data_fd(f);
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(2, WORD(1)), OK);
    assert_false(exists(f, "tpm2-00.volatilestate"));
    read_pcr(f, pcr_read_16, after);
    assert_memory_equal(after, before, 32);
    assert_int_equal(RUN(f, nv_read), 0);
    assert_memory_equal(f->reply + 16, "remember", 8);
}

static void
expect_moves(struct fixture *f, const char *moves)
{
    assert_string_equal(f->moves, moves);
    f->moves[0] = '\0';
}

static void
start_moving(struct fixture *f, bool incoming)
{
    struct tpm_options opt = version_2(f);

    opt.moves = true;
    opt.incoming = incoming;
    opt.startup = TPM_STARTUP_NONE;
    start_as(f, &opt);
}

static void
the_last_blob_lets_the_image_go(void **state)
{
    struct fixture *f = *state;
    size_t len;

    start_moving(f, false);
    attach_and_start(f);
    for (uint8_t type = 1; type <= 2; type++)
        assert_int_equal(get_blob(f, type, 0, &len), 0);
    expect_moves(f, "");
    f->move_r = -EIO;
    assert_int_equal(get_blob(f, 3, 0, &len), 0x1f); /* it stays here then */
    expect_moves(f, "r");
    assert_int_equal(RUN(f, event_16), 0);
    expect_moves(f, "");
    f->move_r = 0;
    assert_int_equal(get_blob(f, 3, 0, &len), 0x800);
    assert_int_equal(get_blob(f, 3, 0, &len), 0x800);
    expect_moves(f, "r");
    assert_int_equal(RUN(f, event_16), 0); /* takes it back */
    assert_int_equal(RUN(f, event_16), 0);
    expect_moves(f, "t");
}

/* Nothing is stored, not even by shutting down, while it is elsewhere. */
static void
a_tpm_whose_image_has_gone_fails_until_it_comes_back(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;
    size_t len;

    start_moving(f, false);
    attach_and_start(f);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(get_blob(f, 3, 0, &len), 0x800);
    expect_moves(f, "r");
    assert_int_equal(fstatat(f->fd, "tpm2-00.permall", &before, 0), 0);
    f->move_r = -EBUSY;
    assert_int_equal(RUN(f, nv_write), RC_FAILURE);
    EXPECT(f, CODE(0x0a), RESULT(0x1f)); /* STORE_VOLATILE */
    EXPECT(f, CODE(0x06), RESULT(0x1f)); /* HASH_START */
    EXPECT(f, CODE(0x13, WORD(7)), RESULT(0x1f));
    assert_int_equal(f->wait_ms, 70);
    expect_moves(f, "tttt");
    EXPECT(f, CODE(4), BYTES(WORD(0), 0, 0, 0, 0)); /* what asks only goes on */
    expect_moves(f, "");
    EXPECT(f, CODE(0x13, 0xff, 0xff, 0xff, 0xff), RESULT(0x1f));
    assert_int_equal(f->wait_ms, TPM_MOVE_MAX_MS);
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f));
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(fstatat(f->fd, "tpm2-00.permall", &after, 0), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
    f->move_r = 0;
    f->moves[0] = '\0';
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    EXPECT(f, CODE(2, WORD(0)), OK);
    expect_moves(f, "t");
    assert_int_equal(RUN(f, startup_clear), 0);
    assert_int_equal(RUN(f, nv_write), 0);
}

static void
who_waits_for_a_machine_does_nothing_before_it_comes(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *permanent = NULL, *running = NULL;
    size_t permanent_len, running_len;

    start(f);
    attach_and_start(f);
    permanent = take_blob(f, 1, &permanent_len);
    running = take_blob(f, 2, &running_len);
    end_in_order(f); /* the state there is another one since: it was shut down */
    start_moving(f, true);
    dial(f);
    set_data_fd(f);
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f));
    assert_int_equal(RUN(f, read_clock), RC_FAILURE);
    assert_int_equal(set_blob(f, 1, permanent, 10), 3);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f));
    expect_moves(f, ""); /* a volatile state alone is no machine */
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    EXPECT(f, CODE(2, WORD(1)), RESULT(0x1f));
    expect_moves(f, "tg"); /* it is not the state that is there */
    assert_int_equal(unlinkat(f->fd, "tpm2-00.permall", 0), 0);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    f->move_r = -EBUSY;
    EXPECT(f, CODE(2, WORD(1)), RESULT(0x1f));
    expect_moves(f, "t");
    f->move_r = 0;
    EXPECT(f, CODE(2, WORD(1)), OK);
    expect_moves(f, "t");
    assert_true(exists(f, "tpm2-00.permall"));
    assert_false(exists(f, "tpm2-00.volatilestate"));
    assert_int_equal(RUN(f, startup_clear), RC_INITIALIZE); /* it goes on */
}

/* The files come before INIT then, and what was set still has to be what they hold. */
static void
lock_storage_between_a_state_and_init_changes_nothing(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *permanent = NULL, *running = NULL;
    size_t permanent_len, running_len;

    start(f);
    attach_and_start(f);
    permanent = take_blob(f, 1, &permanent_len);
    running = take_blob(f, 2, &running_len);
    end_in_order(f); /* the state there is another one since: it was shut down */
    start_moving(f, true);
    dial(f);
    set_data_fd(f);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f));
    expect_moves(f, "tg");
    assert_false(exists(f, "tpm2-00.volatilestate"));
    assert_int_equal(unlinkat(f->fd, "tpm2-00.permall", 0), 0);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    EXPECT(f, CODE(2, WORD(0)), OK);
    expect_moves(f, "t");
    assert_true(exists(f, "tpm2-00.permall"));
    assert_int_equal(RUN(f, startup_clear), RC_INITIALIZE); /* it goes on */
}

/* Nor does it let a state be written over the one that is there. */
static void
lock_storage_before_a_state_changes_nothing_either(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *permanent = NULL, *running = NULL;
    size_t permanent_len, running_len;
    struct stat before, after;

    start(f);
    attach_and_start(f);
    permanent = take_blob(f, 1, &permanent_len);
    running = take_blob(f, 2, &running_len);
    end_in_order(f); /* the state there is another one since: it was shut down */
    assert_int_equal(fstatat(f->fd, "tpm2-00.permall", &before, 0), 0);
    start_moving(f, true);
    dial(f);
    set_data_fd(f);
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    expect_moves(f, "t");
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f));
    expect_moves(f, "g"); /* it is not the state that is there */
    assert_int_equal(fstatat(f->fd, "tpm2-00.permall", &after, 0), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
    assert_false(exists(f, "tpm2-00.volatilestate"));
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    EXPECT(f, CODE(2, WORD(0)), OK); /* what is there will do: a tool has taken it */
    expect_moves(f, "t");
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0); /* it is ours by now */
    EXPECT(f, CODE(2, WORD(0)), OK);
    expect_moves(f, "");
}

static bool
swtpm_is_kept_out(const struct fixture *f)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    AUTO_FD int fd = openat(f->fd, ".lock", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETLK, &whole), 0);
    return whole.l_type != F_UNLCK;
}

static void
a_tpm_that_could_not_be_given_up_runs_under_the_lock(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *permanent = NULL;
    size_t len;

    start(f);
    attach_and_start(f);
    permanent = take_blob(f, 1, &len);
    end_in_order(f);
    start_moving(f, true);
    dial(f);
    set_data_fd(f);
    assert_int_equal(set_blob(f, 1, permanent, len), 0);
    EXPECT(f, CODE(0x13, WORD(0)), OK);
    assert_true(swtpm_is_kept_out(f));
    f->move_r = -EIO;
    EXPECT(f, CODE(2, WORD(0)), BYTES(0, 0, 1, 1)); /* another state, and it stays here */
    expect_moves(f, "tg");
    EXPECT(f, CODE(2, WORD(0)), OK);
    expect_moves(f, "");
    assert_true(swtpm_is_kept_out(f));
}

static void
a_state_that_makes_no_sense_replaces_nothing(void **state)
{
    struct fixture *f = *state;
    AUTO_FREE uint8_t *blob = NULL;
    size_t len;

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, nv_define), 0);
    assert_int_equal(RUN(f, nv_write), 0);
    blob = take_blob(f, 1, &len);
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(set_blob_as(f, 2, 1, blob, len), 3); /* it is said to be encrypted */
    memset(blob + 22, 0x5a, len - 22);                    /* all but the envelope */
    assert_int_equal(set_blob(f, 1, blob, len), 3);
    assert_int_equal(set_blob(f, 1, blob, len - 1), 3);
    assert_int_equal(set_blob(f, 2, blob, 10), 3);
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, startup_clear), 0);
    assert_int_equal(RUN(f, nv_read), 0);
    assert_memory_equal(f->reply + 16, "remember", 8);
}

static void
a_store_that_fails_fails_the_channel(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    assert_int_equal(unlinkat(f->fd, "tpm2-00.permall", 0), 0);
    assert_int_equal(RUN(f, nv_define), RC_FAILURE);
    EXPECT(f, CODE(0x0a), RESULT(0x1f));
    EXPECT(f, CODE(2, WORD(0)), RESULT(0x1f)); /* no new TPM in its place */
    assert_int_equal(RUN(f, get_random), RC_FAILURE);
    assert_false(exists(f, "tpm2-00.permall"));
    wait_for(f, has_failed);
}

static void
a_failure_mode_ends_with_the_power(void **state)
{
    struct fixture *f = *state;

    start(f);
    attach_and_start(f);
    assert_int_equal(RUN(f, poison), RC_FAILURE);
    wait_for(f, has_failed);
    assert_int_equal(RUN(f, get_random), RC_FAILURE);
    EXPECT(f, CODE(2, WORD(0)), OK);
    assert_int_equal(RUN(f, startup_clear), 0);
    wait_for(f, is_running);
    assert_int_equal(RUN(f, poison), RC_FAILURE);
    wait_for(f, has_failed);
    EXPECT(f, CODE(0x0e), OK);
    EXPECT(f, CODE(2, WORD(0)), OK);
    wait_for(f, is_running);
}

static void
a_tpm_1_2_is_served_too(void **state)
{
    struct fixture *f = *state;
    struct tpm_options opt = version_2(f);
    AUTO_FREE uint8_t *permanent = NULL, *running = NULL;
    size_t permanent_len, running_len, len;

    opt.version = TPM_VERSION_1_2;
    start_as(f, &opt);
    dial(f);
    set_data_fd(f);
    assert_int_equal(RUN(f, startup_1_2), 9);
    assert_int_equal(load_be16(f->reply), 0xc4);
    EXPECT(f, CODE(1), BYTES(WORD(0), 0, 1, 0x7f, 0xdf)); /* it cannot be cancelled */
    EXPECT(f, CODE(9), WRONG);
    EXPECT(f, CODE(2, WORD(0)), OK);
    EXPECT(f, CODE(9), RESULT(9));
    assert_int_equal(RUN(f, startup_1_2), 0);
    permanent = take_blob(f, 1, &permanent_len);
    running = take_blob(f, 2, &running_len);
    assert_int_equal(get_blob(f, 3, 0, &len), 0x800);
    EXPECT(f, CODE(0x0a), OK);
    EXPECT(f, CODE(0x0e), OK);
    assert_int_equal(set_blob(f, 1, permanent, permanent_len), 0);
    assert_int_equal(set_blob(f, 2, running, running_len), 0);
    EXPECT(f, CODE(2, WORD(1)), OK);
    assert_int_equal(RUN(f, startup_1_2), 0x26); /* it goes on, and was started */
    EXPECT(f, CODE(3), OK);
    wait_for(f, has_ended);
    assert_int_equal(f->state, TPM_STATE_STOPPED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(each_request_of_a_tpm_that_is_off),
        T(each_request_of_a_tpm_that_is_on),
        T(a_machine_boots_resets_and_ends),
        T(a_stop_leaves_a_state_to_resume),
        T(requests_may_come_in_pieces_and_in_heaps),
        T(a_command_may_come_in_pieces_and_in_heaps),
        T(nonsense_gets_an_error_and_no_more),
        T(who_never_reads_harms_nobody),
        T(no_descriptor_is_left_behind),
        T(only_a_socket_is_a_data_channel),
        T(one_client_at_a_time),
        T(the_data_channel_goes_with_its_client),
        T(it_ends_with_its_client_if_asked),
        T(a_client_that_quits_in_the_middle_of_a_command_leaves_the_tpm_to_the_next),
        T(it_ends_with_a_client_in_the_middle_of_a_command_if_asked),
        T(it_serves_a_connected_socket),
        T(it_starts_up_by_itself_if_asked),
        T(commands_may_come_without_a_control_client),
        T(nonsense_on_the_server_socket_harms_nobody),
        T(clients_of_the_server_socket_wait_for_each_other),
        T(a_channel_that_was_handed_over_turns_others_away),
        T(a_client_of_the_server_socket_keeps_the_data_channel),
        T(a_client_that_goes_takes_its_command_along),
        T(a_locality_is_that_of_the_commands),
        T(locality_4_is_refused_if_asked),
        T(a_dynamic_launch_is_measured),
        T(cancel_interrupts_the_making_of_a_key),
        T(requests_wait_for_the_command_that_runs),
        T(a_stored_volatile_state_resumes_after_a_kill),
        T(a_measurement_outdates_the_stored_volatile_state),
        T(init_removes_the_volatile_state_if_asked),
        T(a_blob_can_be_taken_from_any_offset),
        T(a_tpm_goes_to_another_host),
        T(the_last_blob_lets_the_image_go),
        T(a_tpm_whose_image_has_gone_fails_until_it_comes_back),
        T(who_waits_for_a_machine_does_nothing_before_it_comes),
        T(lock_storage_between_a_state_and_init_changes_nothing),
        T(lock_storage_before_a_state_changes_nothing_either),
        T(a_tpm_that_could_not_be_given_up_runs_under_the_lock),
        T(a_state_that_makes_no_sense_replaces_nothing),
        T(a_store_that_fails_fails_the_channel),
        T(a_failure_mode_ends_with_the_power),
        T(a_tpm_1_2_is_served_too),
    };

    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
