/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "base/scope.h"
#include "crypt/keysource.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>

/* Signals that end or stop a program wait until the echo is back on: blocked, seen through a
 * signalfd, and delivered when the mask is restored. */
struct terminal {
    int fd, signal_fd;
    sigset_t old_mask;
    struct termios old;
    bool masked, silent;
};

static void
terminal_close(struct terminal *t)
{
    if (t->silent)
        tcsetattr(t->fd, TCSAFLUSH, &t->old);
    if (t->signal_fd >= 0)
        close(t->signal_fd);
    if (t->fd >= 0)
        close(t->fd);
    if (t->masked)
        pthread_sigmask(SIG_SETMASK, &t->old_mask, NULL);
}

static int
terminal_open(struct terminal *t)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGALRM, SIGPIPE};
    struct termios quiet;
    sigset_t mask;

    t->fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (t->fd < 0)
        return report(-ENOKEY, "there is no terminal to ask for the passphrase: give key_file= or "
                               "key_fd=");
    sigemptyset(&mask);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaddset(&mask, signals[i]);
    t->masked = pthread_sigmask(SIG_BLOCK, &mask, &t->old_mask) == 0;
    t->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
    if (t->signal_fd < 0 || tcgetattr(t->fd, &t->old) < 0)
        return report(-errno, "cannot ask on the terminal: %s", errno_text(errno));
    quiet = t->old;
    quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK);
    quiet.c_lflag |= ECHONL | ICANON | ISIG;
    t->silent = true;
    if (tcsetattr(t->fd, TCSAFLUSH, &quiet) < 0)
        return report(-errno, "cannot silence the terminal: %s", errno_text(errno));
    return 0;
}

/* One line without its newline.  -EINTR when a signal waits; what was typed so far is lost. */
static int
read_line(struct terminal *t, struct secret *line, size_t *len)
{
    struct pollfd p[2] = {{.fd = t->fd, .events = POLLIN}, {.fd = t->signal_fd, .events = POLLIN}};
    size_t n = 0;

    for (;;) {
        uint8_t c;
        ssize_t got;

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (p[1].revents)
            return -EINTR;
        if (!p[0].revents)
            continue;
        got = read(t->fd, &c, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0 || c == '\n')
            break;
        if (n < line->len) /* what is too long is refused by its parser */
            line->bytes[n++] = c;
        explicit_bzero(&c, 1);
    }
    *len = n;
    return 0;
}

static int
ask_once(const char *prompt, struct secret *line, size_t *len)
{
    AUTO(terminal_close) struct terminal t = {.fd = -1, .signal_fd = -1};
    int r = terminal_open(&t);

    if (r < 0)
        return r;
    if (write(t.fd, prompt, strlen(prompt)) < 0)
        return report(-errno, "cannot write to the terminal: %s", errno_text(errno));
    r = read_line(&t, line, len);
    if (r < 0 && r != -EINTR)
        report(r, "cannot read from the terminal: %s", errno_text(r));
    return r;
}

int
terminal_ask(const char *prompt, struct secret **answer)
{
    AUTO(secret_freep) struct secret *line = NULL;
    size_t len = 0;
    int r = secret_new(&line, PASSPHRASE_MAX + 1);

    /* A signal that neither ended us nor is ours to judge (a stop, then a continue): ask again. */
    while (r == 0 && (r = ask_once(prompt, line, &len)) == -EINTR)
        r = 0;
    return r < 0 ? r : secret_copy(answer, line->bytes, len);
}
