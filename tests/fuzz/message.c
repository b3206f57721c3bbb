/* SPDX-License-Identifier: BSD-3-Clause */
/* What a hostile TPM process says to the daemon: messages, each a length (two bytes, little-endian)
 * and its bytes; after each, a command is submitted if none is outstanding. */
#include "tests/fuzz/fuzz.h"
#include "tpm/link.c" /* its reader runs as a thread elsewhere; here its steps are taken one by one */

static void
look_at_line(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    MUST(level >= REPORT_ERROR && level <= REPORT_DEBUG);
    for (; *line; line++)
        MUST((unsigned char)*line >= ' ' && *line != 0x7f);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(look_at_line, NULL);
    return 0;
}

static unsigned submitted, completed;

static void
count_done(void *arg, int r, const uint8_t *resp, size_t len)
{
    volatile uint8_t last;

    (void)arg;
    MUST(r <= 0 && len <= CMDDEV_MAX);
    if (len)
        last = resp[len - 1];
    (void)last;
    completed++;
}

static void
look_at_event(void *arg, enum tpm_state state, int r, const char *why)
{
    (void)arg;
    MUST(tpm_state_name(state) != NULL && r <= 0);
    if (why)
        MUST(strlen(why) < MESSAGE_TEXT);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tpm_link l = {.cmddev.ops = &link_ops,
                         .event = look_at_event,
                         .state = TPM_STATE_STARTING,
                         .lock = PTHREAD_MUTEX_INITIALIZER};
    struct message m;
    int pair[2], r = 0;

    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    l.fd = pair[0];
    submitted = completed = 0;
    while (r == 0 && size >= 2) {
        size_t len = data[0] | (size_t)data[1] << 8;
        uint8_t drop[16];

        data += 2;
        size -= 2;
        len = len < size ? len : size;
        if (cmddev_submit(&l.cmddev, data, len < 10 ? len : 10, count_done, NULL) == 0)
            submitted++;
        cmddev_cancel(&l.cmddev);
        while (recv(pair[1], drop, sizeof drop, MSG_DONTWAIT) > 0)
            ;
        if (len > 0)
            MUST(send(pair[1], data, len, 0) == (ssize_t)len);
        else
            shutdown(pair[1], SHUT_WR);
        r = message_receive(l.fd, &m);
        MUST(r <= 0);
        if (r == 0)
            r = handle(&l, &m);
        data += len;
        size -= len;
    }
    set_state(&l, TPM_STATE_GONE, -EIO, "the TPM's process has ended");
    MUST(submitted == completed); /* exactly once each */
    close(pair[0]);
    close(pair[1]);
    pthread_mutex_destroy(&l.lock);
    return 0;
}
