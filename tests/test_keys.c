/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys: where they come from, what is said about wrong ones, key slots, and what opens them. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "config.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include "crypt/keyslot.h"
#include "crypt/keysource.h"
#include "crypt/recovery.h"
#include "crypt/sealed.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

#include <cmocka.h>

#define HEX_16 "00112233445566778899aabbccddeeff"
#define HEX_24 HEX_16 "0123456789abcdef"
#define HEX_32 HEX_16 HEX_16

/* ---- what was reported -------------------------------------------------------------------------
 */

static char said[8192];

static void
listen_to(void *arg, enum report_level level, const char *line)
{
    size_t n = strlen(said);

    (void)arg;
    snprintf(said + n, sizeof said - n, "%d:%s\n", level, line);
}

/* Whether @text was said since the last call of this. */
static bool
was_said(const char *text)
{
    bool found = strstr(said, text) != NULL;

    if (!found)
        print_message("# wanted \"%s\", said \"%s\"\n", text, said);
    said[0] = '\0';
    return found;
}

/* ---- helpers -----------------------------------------------------------------------------------
 */

static char dir[] = "/tmp/vnvram-keys-XXXXXX";

static struct secret *
secret_of(const void *p, size_t len)
{
    struct secret *s = NULL;

    assert_int_equal(secret_copy(&s, p, len), 0);
    return s;
}

/* A key file; the path is good until the next call. */
static char *
file_with(const void *content, size_t len, mode_t mode)
{
    static char path[64];
    FILE *f;

    snprintf(path, sizeof path, "%s/key", dir);
    unlink(path);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

/* Options as "word=value", until NULL. */
static struct key_options
options(const char *first, ...)
{
    struct key_options opt = KEY_OPTIONS_INIT;
    va_list ap;

    va_start(ap, first);
    for (const char *o = first; o; o = va_arg(ap, const char *)) {
        AUTO_FREE char *copy = strdup(o);
        char *value = strchr(copy, '=');

        *value++ = '\0';
        assert_int_equal(key_options_set(&opt, copy, value), 0);
    }
    va_end(ap);
    return opt;
}

/* ---- formats of keys ---------------------------------------------------------------------------
 */

struct format_case {
    enum key_format format;
    const char *text;
    size_t len; /* 0: strlen */
    size_t key_len;
    const char *complaint; /* or NULL */
};

static const struct format_case formats[] = {
    {KEY_FORMAT_HEX, HEX_16, 0, 16, NULL},
    {KEY_FORMAT_HEX, HEX_24, 0, 24, NULL},
    {KEY_FORMAT_HEX, HEX_32, 0, 32, NULL},
    {KEY_FORMAT_UNSET, HEX_32, 0, 32, NULL},
    {KEY_FORMAT_HEX, "0x" HEX_16, 0, 16, NULL},
    {KEY_FORMAT_HEX, "0X" HEX_16 "\n", 0, 16, NULL},
    {KEY_FORMAT_HEX, "00112233445566778899AABBCCDDEEFF", 0, 16, NULL},
    {KEY_FORMAT_HEX, HEX_16 "\n", 0, 16, NULL},
    {KEY_FORMAT_HEX, HEX_16 "\n\n", 0, 0, "character 33 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, HEX_16 "\r\n", 0, 0, "character 33 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, HEX_16 " ", 0, 0, "character 33 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, " " HEX_16, 0, 0, "character 1 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, HEX_16 "junk", 0, 0, "character 33 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, "0x", 0, 0, "has 0 hexadecimal digits"},
    {KEY_FORMAT_HEX, "0x0x" HEX_16, 0, 0, "character 4 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, "0011", 0, 0, "has 4 hexadecimal digits; 32, 48 or 64 are needed"},
    {KEY_FORMAT_HEX, HEX_16 "0", 0, 0, "has 33 hexadecimal digits"},
    {KEY_FORMAT_HEX, HEX_32 "00", 0, 0, "has 66 hexadecimal digits"},
    {KEY_FORMAT_HEX, HEX_16 "\0", 33, 0, "character 33 is not a hexadecimal digit"},
    {KEY_FORMAT_HEX, "", 0, 0, "is empty"},
    {KEY_FORMAT_HEX, "\n", 0, 0, "is empty"},
    {KEY_FORMAT_BINARY, "0123456789abcdef", 0, 16, NULL},
    {KEY_FORMAT_BINARY, "0123456789abcde\n", 0, 16, NULL},
    {KEY_FORMAT_BINARY, "0123456789abcdef01234567", 0, 24, NULL},
    {KEY_FORMAT_BINARY, HEX_16, 0, 32, NULL},
    {KEY_FORMAT_BINARY, "0123456789abcdef\n", 0, 0, "has 17 bytes; a binary key has 16, 24 or 32"},
    {KEY_FORMAT_BINARY, HEX_16 "\n", 0, 0, "has 33 bytes"},
    {KEY_FORMAT_BINARY, "short", 0, 0, "has 5 bytes"},
    {KEY_FORMAT_BINARY, "", 0, 0, "is empty"},
    {KEY_FORMAT_PASSPHRASE, "correct horse", 0, 13, NULL},
    {KEY_FORMAT_PASSPHRASE, "correct horse\n", 0, 13, NULL},
    {KEY_FORMAT_PASSPHRASE, " x ", 0, 3, NULL},
    {KEY_FORMAT_PASSPHRASE, "x\r\n", 0, 2, NULL},
    {KEY_FORMAT_PASSPHRASE, "", 0, 0, "the passphrase is empty"},
    {KEY_FORMAT_PASSPHRASE, "\n", 0, 0, "the passphrase is empty"},
    {KEY_FORMAT_PASSPHRASE, "two\nlines", 0, 0, "byte 4 is a newline"},
    {KEY_FORMAT_PASSPHRASE, "x\n\n", 0, 0, "byte 2 is a newline"},
    {KEY_FORMAT_PASSPHRASE, "a\0b", 3, 0, "byte 2 is a zero"},
};

static void
a_key_file_is_taken_or_refused_with_the_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const struct format_case *c = &formats[i];
        AUTO(secret_freep) struct secret *key = NULL;
        struct key_options opt = {.fd = -1, .format = c->format, .given = true};
        int r;

        said[0] = '\0';
        opt.file = file_with(c->text, c->len ? c->len : strlen(c->text), 0600);
        r = keysource_read(&opt, false, &key);
        if (!c->complaint) {
            assert_int_equal(r, 0);
            assert_int_equal(key->len, c->key_len);
            assert_string_equal(said, "");
            continue;
        }
        assert_int_equal(r, -EINVAL);
        assert_null(key);
        /* the key itself, or what stands around the mistake, is not shown */
        assert_null(strstr(said, "112233"));
        assert_null(strstr(said, "junk"));
        assert_non_null(strstr(said, dir));
        assert_true(was_said(c->complaint));
    }
}

static void
hex_digits_give_their_bytes(void **state)
{
    AUTO(secret_freep) struct secret *text = secret_of("0x" HEX_24 "\n", 51), *key = NULL;
    static const uint8_t expected[24] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                         0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
                                         0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

    (void)state;
    assert_int_equal(keysource_parse_hex(&key, text, "test"), 0);
    assert_int_equal(key->len, sizeof expected);
    assert_memory_equal(key->bytes, expected, sizeof expected);
}

static void
the_longest_passphrase_is_taken_and_one_byte_more_is_not(void **state)
{
    char text[PASSPHRASE_MAX + 64];

    (void)state;
    memset(text, 'x', sizeof text);
    for (size_t len = PASSPHRASE_MAX - 1; len < sizeof text; len++) {
        AUTO(secret_freep) struct secret *key = NULL;
        struct key_options opt = {.fd = -1, .format = KEY_FORMAT_PASSPHRASE, .given = true};
        int r;

        opt.file = file_with(text, len, 0600);
        r = keysource_read(&opt, false, &key);
        assert_int_equal(r, len <= PASSPHRASE_MAX ? 0 : -EINVAL);
        if (r < 0)
            assert_true(was_said("longer than"));
    }
}

/* ---- sources of keys ---------------------------------------------------------------------------
 */

static void
a_file_that_is_not_there_is_reported_with_its_name(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL;
    char path[64], *const directory = dir;
    struct key_options opt = {.fd = -1, .given = true, .file = path};

    (void)state;
    snprintf(path, sizeof path, "%s/no-such-file", dir);
    assert_int_equal(keysource_read(&opt, false, &key), -ENOENT);
    assert_true(was_said("no-such-file"));
    opt.file = directory;
    assert_int_equal(keysource_read(&opt, false, &key), -EISDIR);
    assert_true(was_said("cannot read"));
}

static void
a_file_open_to_others_is_warned_about(void **state)
{
    static const mode_t open_modes[] = {0640, 0604, 0620, 0602, 0644, 0444};

    (void)state;
    for (size_t i = 0; i < sizeof open_modes / sizeof open_modes[0]; i++) {
        AUTO(secret_freep) struct secret *key = NULL;
        struct key_options opt = {.fd = -1, .given = true};

        opt.file = file_with(HEX_16, 32, open_modes[i]);
        assert_int_equal(keysource_read(&opt, false, &key), 0);
        assert_true(was_said("4:key file"));
    }
    for (mode_t mode = 0400; mode <= 0700; mode += 0100) {
        AUTO(secret_freep) struct secret *key = NULL;
        struct key_options opt = {.fd = -1, .given = true};

        opt.file = file_with(HEX_16, 32, mode);
        assert_int_equal(keysource_read(&opt, false, &key), 0);
        assert_string_equal(said, "");
    }
}

static void
a_systemd_credential_is_not_warned_about(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL, *again = NULL;
    struct key_options opt = {.fd = -1, .given = true};

    (void)state;
    opt.file = file_with(HEX_16, 32, 0440);
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    assert_int_equal(keysource_read(&opt, false, &key), 0);
    assert_string_equal(said, "");
    setenv("CREDENTIALS_DIRECTORY", "/tmp/vnvram-keys", 1); /* not a directory above it */
    assert_int_equal(keysource_read(&opt, false, &again), 0);
    assert_true(was_said("is open to others"));
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void
a_descriptor_is_read_to_its_end_and_closed(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL;
    struct key_options opt = {.given = true};
    int p[2], fd;

    (void)state;
    assert_int_equal(pipe(p), 0);
    opt.fd = fd = p[0];
    assert_int_equal(write(p[1], HEX_16, 20), 20);
    assert_int_equal(write(p[1], &HEX_16[20], 12), 12);
    close(p[1]);
    assert_int_equal(keysource_read(&opt, false, &key), 0);
    assert_int_equal(key->len, 16);
    assert_int_equal(opt.fd, -1);
    assert_int_equal(fcntl(fd, F_GETFD), -1);

    secret_free(steal(&key));
    opt.fd = fd;
    assert_int_equal(keysource_read(&opt, false, &key), -EBADF);
    assert_true(was_said("cannot read key_fd="));
}

static void
two_sources_or_none_are_refused(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL;
    AUTO(key_options_fini) struct key_options two = options("key_file=/x", "key_fd=3", NULL);
    AUTO(key_options_fini) struct key_options three = options("key_file=/x", "key=" HEX_16, NULL);
    AUTO(key_options_fini) struct key_options none = options("key_format=hex", NULL);
    AUTO(key_options_fini) struct key_options mode = options("enc_mode=aes-cbc", NULL);

    (void)state;
    assert_int_equal(keysource_read(&two, false, &key), -EINVAL);
    assert_true(was_said("give only one of"));
    assert_int_equal(keysource_read(&three, false, &key), -EINVAL);
    assert_true(was_said("give only one of"));
    assert_int_equal(keysource_read(&none, false, &key), -ENOKEY);
    assert_true(was_said("no key: give key_file="));
    assert_int_equal(keysource_read(&mode, false, &key), -ENOKEY);
    assert_true(was_said("no key: give key_file="));
    two.fd = -1; /* it was never ours to close */
}

static void
wrong_words_are_refused_without_showing_a_key(void **state)
{
    static const struct {
        const char *word, *value;
        int r;
        const char *complaint;
    } v[] = {
        {"key_file", "", -EINVAL, "key_file= needs a value"},
        {"key_file", NULL, -EINVAL, "key_file= needs a value"},
        {"key", "", -EINVAL, "key= needs a value"},
        {"key_fd", "x", -EINVAL, "key_fd=x: a number"},
        {"key_fd", "-1", -EINVAL, "key_fd=-1: a number"},
        {"key_fd", "3x", -EINVAL, "key_fd=3x: a number"},
        {"key_fd", "99999999999999999999", -EINVAL, "a number"},
        {"key_format", "base64", -EINVAL, "hex, binary or passphrase is needed"},
        {"key_format", "HEX", -EINVAL, "hex, binary or passphrase is needed"},
        {"enc_mode", "aes-gcm", -EPROTONOSUPPORT, "the only cipher is aes-cbc"},
        {"enc_mode", "AES-CBC", -EPROTONOSUPPORT, "the only cipher is aes-cbc"},
        {"key_size", "160", -EINVAL, "128, 192 or 256 bits"},
        {"kdf_memory", "16", -EINVAL, "at least 32 KiB"},
        {"kdf_memory", "1048577", -EINVAL, "a number up to 1048576"},
        {"kdf_time", "0", -EINVAL, "at least one pass"},
        {"kdf_time", "1025", -EINVAL, "a number up to 1024"},
        {"ro", NULL, -ENOENT, ""},
        {"keys", "x", -ENOENT, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        AUTO(key_options_fini) struct key_options opt = KEY_OPTIONS_INIT;

        assert_int_equal(key_options_set(&opt, v[i].word, v[i].value), v[i].r);
        assert_true(was_said(v[i].complaint));
    }
}

static void
size_and_cost_alone_do_not_mean_a_sealed_image(void **state)
{
    AUTO(key_options_fini)
    struct key_options cost = options("key_size=128", "kdf_memory=64", "kdf_time=2", NULL);
    AUTO(key_options_fini) struct key_options format = options("key_format=hex", NULL);

    (void)state;
    assert_false(cost.given);
    assert_int_equal(cost.key_size, 16);
    assert_int_equal(cost.kdf_memory, 64);
    assert_int_equal(cost.kdf_time, 2);
    assert_true(format.given);
}

static void
a_key_in_argv_turns_into_dashes(void **state)
{
    static const struct {
        const char *before, *after;
    } v[] = {
        {"key=secret", "key=------"},
        {"ro,key=secret,tpm=2.0", "ro,key=------,tpm=2.0"},
        {"-okey=secret", "-okey=------"},
        {"-fokey=secret", "-fokey=------"},
        {"-nokey=secret,key=more", "-nokey=------,key=----"},
        {"-onosuid,key=secret,monkey=banana", "-onosuid,key=------,monkey=banana"},
        {"-nkey=secret,key_format=hex", "-nkey=------,key_format=hex"},
        {"key=one,x,key=three", "key=---,x,key=-----"},
        {"key=", "key="},
        {"key_file=secret", "key_file=secret"},
        {"monkey=banana", "monkey=banana"},
        {"-o", "-o"},
        {"--size=1M", "--size=1M"},
        {"image.img", "image.img"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        char name[] = "vnvram", arg[64];
        char *argv[] = {name, arg, NULL};

        snprintf(arg, sizeof arg, "%s", v[i].before);
        assert_int_equal(keys_hide_argv(2, argv), 0);
        assert_string_equal(arg, v[i].after);
        assert_string_equal(argv[1], v[i].before);
    }
}

/* ---- the terminal ------------------------------------------------------------------------------
 */

/* Asks on a terminal of its own; the result is the child's exit code. */
static pid_t
ask_on_a_terminal(int *master, bool is_new, const char *of)
{
    pid_t pid = forkpty(master, NULL, NULL, NULL);

    if (pid == 0) {
        struct key_options opt = {
            .fd = -1, .format = KEY_FORMAT_PASSPHRASE, .of = of, .given = true};
        struct secret *key = NULL;
        int r;

        signal(SIGHUP, SIG_DFL); /* nohup ignores this one, a shell's background job the others */
        signal(SIGINT, SIG_DFL);
        signal(SIGQUIT, SIG_DFL);
        r = keysource_read(&opt, is_new, &key);
        if (r < 0)
            printf("%s", said);
        fflush(stdout);
        _exit(r == 0 && key->len == 7 && memcmp(key->bytes, "hunter2", 7) == 0 ? 0 : -r ? -r : 99);
    }
    assert_true(pid > 0);
    return pid;
}

/* What the terminal shows until it shows @text. */
static void
wait_for(int master, char *shown, size_t size, const char *text)
{
    size_t n = strlen(shown);

    while (!strstr(shown, text)) {
        struct pollfd p = {.fd = master, .events = POLLIN};
        ssize_t got;

        assert_int_equal(poll(&p, 1, 20000), 1);
        got = read(master, shown + n, size - 1 - n);
        assert_true(got > 0);
        shown[n += (size_t)got] = '\0';
    }
}

static void
type_line(int master, const char *line)
{
    assert_int_equal(write(master, line, strlen(line)), strlen(line));
}

static bool
echoes(int master)
{
    struct termios t;

    assert_int_equal(tcgetattr(master, &t), 0);
    return t.c_lflag & ECHO;
}

static void
a_passphrase_is_asked_for_without_echo(void **state)
{
    char shown[1024] = "";
    int master, status;
    pid_t pid = ask_on_a_terminal(&master, false, NULL);

    (void)state;
    wait_for(master, shown, sizeof shown, "Passphrase: ");
    assert_false(echoes(master));
    type_line(master, "hunter2\n");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(echoes(master));
    assert_null(strstr(shown, "hunter2"));
    close(master);
}

/* And what is in a name is shown, not done. */
static void
a_question_says_what_it_is_about(void **state)
{
    for (int is_new = 0; is_new < 2; is_new++) {
        char shown[1024] = "";
        int master, status;
        pid_t pid = ask_on_a_terminal(&master, is_new, "vm\033.img");

        (void)state;
        wait_for(master, shown, sizeof shown,
                 is_new ? "New passphrase for vm\\x1b.img: " : "Passphrase for vm\\x1b.img: ");
        type_line(master, "hunter2\n");
        if (is_new) {
            wait_for(master, shown, sizeof shown, "The same again: ");
            type_line(master, "hunter2\n");
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        close(master);
    }
}

static void
a_new_passphrase_is_asked_for_twice(void **state)
{
    for (int same = 0; same < 2; same++) {
        char shown[1024] = "";
        int master, status;
        pid_t pid = ask_on_a_terminal(&master, true, NULL);

        (void)state;
        wait_for(master, shown, sizeof shown, "New passphrase: ");
        type_line(master, "hunter2\n");
        wait_for(master, shown, sizeof shown, "The same again: ");
        type_line(master, same ? "hunter2\n" : "hunter3\n");
        if (!same)
            wait_for(master, shown, sizeof shown, "the two passphrases differ");
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), same ? 0 : EINVAL);
        close(master);
    }
}

static void
a_signal_while_asking_leaves_the_terminal_as_it_was(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        char shown[1024] = "";
        int master, status;
        pid_t pid = ask_on_a_terminal(&master, false, NULL);

        wait_for(master, shown, sizeof shown, "Passphrase: ");
        assert_false(echoes(master));
        type_line(master, "hun");
        kill(pid, signals[i]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), signals[i]);
        assert_true(echoes(master));
        close(master);
    }
}

/* From here on open(2) fails with @err. */
static bool
forbid_open(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static void
an_error_of_a_key_file_is_no_finding_about_the_image(void **state)
{
    static const int errors[] = {ESTALE, EBUSY, EUCLEAN, EBADMSG};

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        pid_t pid = fork();
        int status;

        if (pid == 0) {
            struct key_options opt = {.fd = -1, .file = (char[]){"key"}, .given = true};
            struct secret *key = NULL;

            if (!forbid_open(errors[i]))
                _exit(2);
            _exit(keysource_read(&opt, false, &key) == -EIO && was_said("cannot open key file key")
                      ? 0
                      : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

static void
without_a_terminal_a_passphrase_cannot_be_asked_for(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        struct key_options opt = {.fd = -1, .format = KEY_FORMAT_PASSPHRASE, .given = true};
        struct secret *key = NULL;

        setsid();
        _exit(keysource_read(&opt, false, &key) == -ENOKEY && was_said("there is no terminal") ? 0
                                                                                               : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

#ifndef WITH_SANITIZERS /* their mlock() does nothing and says yes */
static void
secrets_are_refused_where_memory_cannot_be_locked(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        struct secret *s = NULL;

        /* The limit binds only those without CAP_IPC_LOCK. */
        if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || (getuid() == 0 && setuid(65534) < 0))
            _exit(2);
        _exit(secret_new(&s, 32) == -EPERM && was_said("cannot lock 256 KiB") ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Bytes of address space in use. */
static unsigned long
mapped_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    if (f && fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (unsigned long)sysconf(_SC_PAGESIZE);
}

/* A limit that all of the process fits in, but not Argon2id's memory with it. */
static void
a_passphrase_opens_where_not_all_memory_can_be_locked(void **state)
{
    pid_t pid;
    int status;

    (void)state;
    if (getenv("VNVRAM_QUICK"))
        return; /* a tool's own memory would count, and may be more than any limit here */
    pid = fork();
    if (pid == 0) {
        AUTO(key_options_fini)
        struct key_options opt =
            options("key=hunter2", "key_format=passphrase", "kdf_memory=65536", "kdf_time=1", NULL);
        AUTO(sealer_freep) struct sealer *sealer = NULL;
        uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE], key_size;
        unsigned long mapped = mapped_bytes();
        const struct rlimit some = {mapped + 1024 * 1024, mapped + 1024 * 1024};

        if (!mapped || setrlimit(RLIMIT_MEMLOCK, &some) < 0 || (getuid() == 0 && setuid(65534) < 0))
            _exit(errno == EPERM ? 77 : 2); /* the hard limit is lower than that */
        _exit(keys_new_volume(&opt, (const uint8_t[UUID_SIZE]){1}, slots, &key_size, &sealer) == 0
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}
#endif

static void
a_full_pool_is_an_error_and_not_a_crash(void **state)
{
    AUTO(secret_freep) struct secret *most = NULL, *more = NULL;

    (void)state;
    assert_int_equal(secret_new(&most, 200 * 1024), 0);
    assert_int_equal(secret_new(&more, 200 * 1024), -ENOMEM);
    assert_true(was_said("no secure memory is left"));
}

/* ---- key slots ---------------------------------------------------------------------------------
 */

static struct keyslot
some_slot(enum keyslot_type type)
{
    struct keyslot ks = {.type = type, .kek_size = 32, .created = 1700000000};

    if (type == KEYSLOT_PASSPHRASE)
        ks.cost = (struct kdf_cost){.memory = 65536, .passes = 3, .lanes = 4};
    if (type != KEYSLOT_RAW)
        memset(ks.salt, 0x5a, sizeof ks.salt);
    memset(ks.wrapped, 0xa5, sizeof ks.wrapped);
    return ks;
}

static void
a_key_slot_has_the_bytes_of_its_format(void **state)
{
    struct keyslot ks = some_slot(KEYSLOT_PASSPHRASE), back = {0};
    uint8_t expected[KEYSLOT_SIZE] = {2, 1, 32, 4, 0, 0, 1, 0, 3}, buf[KEYSLOT_SIZE];

    (void)state;
    memset(expected + 16, 0x5a, 32);
    memset(expected + 48, 0xa5, 40);
    store_le64(expected + 88, 1700000000);
    keyslot_encode(&ks, buf);
    assert_memory_equal(buf, expected, sizeof buf);
    assert_int_equal(keyslot_decode(&back, buf), 0);
    assert_int_equal(back.cost.memory, 65536);
    assert_int_equal(back.cost.passes, 3);
    assert_int_equal(back.cost.lanes, 4);
    assert_int_equal(back.created, 1700000000);
    assert_memory_equal(back.salt, ks.salt, sizeof ks.salt);
    assert_memory_equal(back.wrapped, ks.wrapped, sizeof ks.wrapped);
}

static void
a_key_slot_is_refused_for_what_it_must_not_hold(void **state)
{
    static const struct {
        enum keyslot_type type;
        size_t at;
        uint8_t value;
        int r;
    } v[] = {
        {KEYSLOT_RAW, 0, 0, -EUCLEAN},
        {KEYSLOT_RAW, 0, 4, -EPROTONOSUPPORT},
        {KEYSLOT_RAW, 1, 2, -EPROTONOSUPPORT},
        {KEYSLOT_RAW, 1, 0, -EPROTONOSUPPORT},
        {KEYSLOT_RAW, 2, 0, -EUCLEAN},
        {KEYSLOT_RAW, 2, 33, -EUCLEAN},
        {KEYSLOT_RAW, 3, 1, -EUCLEAN},
        {KEYSLOT_RAW, 4, 1, -EUCLEAN},
        {KEYSLOT_RAW, 8, 1, -EUCLEAN},
        {KEYSLOT_RAW, 12, 1, -EUCLEAN},
        {KEYSLOT_RAW, 15, 1, -EUCLEAN},
        {KEYSLOT_RAW, 16, 1, -EUCLEAN},
        {KEYSLOT_RAW, 96, 1, -EUCLEAN},
        {KEYSLOT_RAW, 127, 1, -EUCLEAN},
        {KEYSLOT_RECOVERY, 4, 1, -EUCLEAN},
        {KEYSLOT_PASSPHRASE, 3, 0, -EPROTONOSUPPORT},
        {KEYSLOT_PASSPHRASE, 3, 255, -EPROTONOSUPPORT},
        {KEYSLOT_PASSPHRASE, 7, 255, -EPROTONOSUPPORT}, /* terabytes of memory */
        {KEYSLOT_PASSPHRASE, 11, 255, -EPROTONOSUPPORT},
    };
    uint8_t buf[KEYSLOT_SIZE] = {0};
    struct keyslot back;

    (void)state;
    assert_int_equal(keyslot_decode(&back, buf), -ENODATA);
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct keyslot ks = some_slot(v[i].type);

        keyslot_encode(&ks, buf);
        assert_int_equal(keyslot_decode(&back, buf), 0);
        buf[v[i].at] = v[i].value;
        assert_int_equal(keyslot_decode(&back, buf), v[i].r);
    }
}

/* ---- recovery keys -----------------------------------------------------------------------------
 */

static void
a_recovery_key_is_eight_groups_that_show_every_slip(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL, *text = NULL;
    size_t len = RECOVERY_TEXT - 1;
    unsigned group;

    (void)state;
    assert_int_equal(secret_random(&key, RECOVERY_SIZE), 0);
    assert_int_equal(secret_new(&text, RECOVERY_TEXT), 0);
    recovery_format(key, text);
    assert_int_equal(strlen((char *)text->bytes), len);
    text->len = len; /* as it is typed, without the NUL */
    for (size_t i = 0; i < len; i++) {
        uint8_t right = text->bytes[i];

        for (uint8_t c = '0'; c <= '9'; c++) {
            AUTO(secret_freep) struct secret *back = NULL;

            if (i % 7 == 6 && c != '0')
                continue;
            text->bytes[i] = i % 7 == 6 ? ' ' : c;
            group = 0;
            if (c == right || i % 7 == 6) {
                assert_int_equal(recovery_parse(&back, text, &group), 0);
                assert_true(secret_equal(back, key));
            } else {
                assert_int_equal(recovery_parse(&back, text, &group), -EINVAL);
                assert_int_equal(group, i / 7 + 1);
            }
        }
        text->bytes[i] = right;
        if (i % 7 < 5 && text->bytes[i + 1] != right) { /* two digits in the wrong order */
            AUTO(secret_freep) struct secret *back = NULL;

            text->bytes[i] = text->bytes[i + 1];
            text->bytes[i + 1] = right;
            assert_int_equal(recovery_parse(&back, text, &group), -EINVAL);
            text->bytes[i + 1] = text->bytes[i];
            text->bytes[i] = right;
        }
    }
}

static void
other_texts_are_not_recovery_keys(void **state)
{
    static const char *const texts[] = {"", "hunter2",
                                        "000000-000000-000000-000000-000000-000000-000000",
                                        "000000-000000-000000-000000-000000-000000-000000-0000000",
                                        "000000-000000-000000-000000-000000-000000-000000-00000x"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        AUTO(secret_freep) struct secret *text = secret_of(texts[i], strlen(texts[i])), *key = NULL;
        unsigned group = 0;

        assert_int_equal(recovery_parse(&key, text, &group), -ENOENT);
    }
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* The superblock of an image made with @opt. */
static struct superblock
image_for(struct key_options *opt)
{
    struct superblock sb = {.uuid = "uuid of an image", .seal_mode = 1, .key_epoch = 1};
    struct sealer *sealer = NULL;

    assert_int_equal(keys_new_volume(opt, sb.uuid, sb.keyslots, &sb.key_size, &sealer), 0);
    sealer->ops->free(sealer);
    return sb;
}

static int
unlock(struct key_options *opt, const struct superblock *sb)
{
    struct sealer *sealer = NULL;
    int r = keys_unlock(opt, sb, &sealer);

    if (r == 0)
        sealer->ops->free(sealer);
    return r;
}

static void
an_image_opens_with_its_key_and_no_other(void **state)
{
    static const char *const keys[][3] = {
        {"key=" HEX_16, "key_format=hex", NULL},
        {"key=" HEX_24, "key_format=hex", NULL},
        {"key=" HEX_32, "key_format=hex", NULL},
        {"key=0123456789abcdef", "key_format=binary", NULL},
        {"key=ff112233445566778899aabbccddeeff", "key_format=hex", NULL},
        {"key=hunter2", "key_format=passphrase", NULL},
        {"key=hunter3", "key_format=passphrase", NULL},
        {"key=" HEX_16, "key_format=passphrase", NULL},
    };
    enum { N = sizeof keys / sizeof keys[0] };

    (void)state;
    for (size_t i = 0; i < N; i++) {
        AUTO(key_options_fini)
        struct key_options maker =
            options(keys[i][0], keys[i][1], "kdf_memory=32", "kdf_time=1", NULL);
        struct superblock sb = image_for(&maker);

        assert_int_equal(sb.key_size, i == 0 || i == 3 || i == 4 ? 16 : i == 1 ? 24 : 32);
        for (size_t j = 0; j < N; j++) {
            AUTO(key_options_fini) struct key_options user = options(keys[j][0], keys[j][1], NULL);

            assert_int_equal(unlock(&user, &sb), i == j ? 0 : -EKEYREJECTED);
            if (i != j)
                assert_true(was_said("wrong key"));
            assert_string_equal(said, "");
        }
    }
}

static void
each_mismatch_of_key_and_image_has_its_finding(void **state)
{
    AUTO(key_options_fini) struct key_options none = KEY_OPTIONS_INIT;
    AUTO(key_options_fini) struct key_options given = options("key=" HEX_16, NULL);
    struct superblock sealed = image_for(&given), plain = {.seal_mode = SEAL_NONE};
    struct sealer *s = NULL;

    (void)state;
    assert_int_equal(unlock(&none, &sealed), -ENOKEY);
    assert_true(was_said("the image is sealed: give its key"));
    assert_int_equal(unlock(&given, &plain), -EKEYREVOKED);
    assert_true(was_said("the image is not sealed"));
    assert_int_equal(keys_unlock(&none, &plain, &s), 0);
    assert_ptr_equal(s, sealer_plain());
    sealed.seal_mode = 2;
    assert_int_equal(unlock(&given, &sealed), -EPROTONOSUPPORT);
    assert_true(was_said("not supported"));
    sealed.seal_mode = 1;
    sealed.key_size = 20;
    assert_int_equal(unlock(&given, &sealed), -EPROTONOSUPPORT);
    assert_true(was_said("not supported"));
}

static void
a_key_is_read_once_for_both_superblocks(void **state)
{
    AUTO(key_options_fini) struct key_options maker = options("key=" HEX_16, NULL);
    AUTO(key_options_fini) struct key_options user = KEY_OPTIONS_INIT;
    struct superblock a = image_for(&maker), b = a;
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    user.fd = p[0];
    user.given = true;
    assert_int_equal(write(p[1], HEX_16, 32), 32);
    close(p[1]);
    memset(a.keyslots, 0, sizeof a.keyslots); /* say, A was destroyed and B not yet */
    assert_int_equal(unlock(&user, &a), -EKEYREJECTED);
    assert_int_equal(unlock(&user, &b), 0);
    assert_int_equal(unlock(&user, &b), 0);
    assert_true(was_said("its keys were destroyed"));
    /* the volume key that is at hand does not open what it should not */
    assert_int_equal(unlock(&user, &a), -EKEYREJECTED);
    said[0] = '\0';
}

static void
damaged_and_hostile_slots_are_passed_over_with_a_word(void **state)
{
    AUTO(key_options_fini)
    struct key_options user =
        options("key=hunter2", "key_format=passphrase", "kdf_memory=32", "kdf_time=1", NULL);
    struct superblock sb = image_for(&user);
    struct keyslot hostile = some_slot(KEYSLOT_PASSPHRASE);

    (void)state;
    key_options_fini(&user);
    user = options("key=hunter2", "key_format=passphrase", NULL);
    memcpy(sb.keyslots[7], sb.keyslots[0], KEYSLOT_SIZE);
    hostile.cost.memory = UINT32_MAX;
    keyslot_encode(&hostile, sb.keyslots[0]);
    memset(sb.keyslots[1], 0xff, KEYSLOT_SIZE);
    memcpy(sb.keyslots[2], sb.keyslots[7], KEYSLOT_SIZE);
    sb.keyslots[2][127] = 1;
    assert_int_equal(keys_find_slot(&user, &sb), 7);
    assert_non_null(strstr(said, "4:key slot 0 is not tried: it is of a newer kind, or asks for"));
    assert_non_null(strstr(said, "4:key slot 1 is not tried"));
    assert_true(was_said("4:key slot 2 is not tried: it is damaged"));
}

static void
a_second_key_and_a_recovery_key_open_the_same_volume(void **state)
{
    AUTO(key_options_fini) struct key_options first = options("key=" HEX_16, NULL);
    AUTO(key_options_fini)
    struct key_options second =
        options("key=hunter2", "key_format=passphrase", "kdf_memory=32", "kdf_time=1", NULL);
    AUTO(key_options_fini) struct key_options recovery = options("key_format=passphrase", NULL);
    AUTO(secret_freep) struct secret *text = NULL;
    struct superblock sb = image_for(&first);

    (void)state;
    assert_int_equal(keys_wrap(&first, &second, sb.key_size, sb.keyslots[3]), 0);
    assert_int_equal(keys_wrap_recovery(&first, sb.keyslots[5], &text), 0);
    assert_int_equal(keys_find_slot(&second, &sb), 3);
    assert_true(secret_equal(second.volume_key, first.volume_key));

    recovery.text = secret_of(text->bytes, strlen((char *)text->bytes));
    assert_int_equal(keys_find_slot(&recovery, &sb), 5);
    assert_true(secret_equal(recovery.volume_key, first.volume_key));

    key_options_fini(&recovery);
    recovery = options("key_format=passphrase", NULL);
    text->bytes[8] = text->bytes[8] == '9' ? '0' : (uint8_t)(text->bytes[8] + 1);
    recovery.text = secret_of(text->bytes, strlen((char *)text->bytes));
    assert_int_equal(keys_find_slot(&recovery, &sb), -EKEYREJECTED);
    assert_true(was_said("group 2 of it is mistyped"));
}

/* ---- the example of doc/format.md --------------------------------------------------------------
 */

/* The value of @name; good until the next call. */
static const char *
example(const char *name)
{
    static char line[512];
    const char *srcdir = getenv("srcdir");
    size_t n = strlen(name);
    char path[4096], *found = NULL;
    FILE *f;

    snprintf(path, sizeof path, "%s/doc/format.md", srcdir ? srcdir : ".");
    f = fopen(path, "r");
    if (!f)
        fail_msg("cannot open %s", path);
    while (!found && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, n) == 0 && line[n] == ':')
            found = line + n + 2;
    }
    fclose(f);
    if (!found)
        fail_msg("%s has no \"%s\"", path, name);
    found[strcspn(found, "\n")] = '\0';
    return found;
}

static void
example_bytes(const char *name, uint8_t *out, size_t len)
{
    const char *text = example(name);

    assert_int_equal(strlen(text), 2 * len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(sscanf(text + 2 * i, "%2hhx", &out[i]), 1);
}

static void
the_slots_of_the_example_give_its_volume_key(void **state)
{
    static const struct {
        enum keyslot_type type;
        const char *key, *wrapped, *format;
    } v[] = {
        {KEYSLOT_RAW, "raw key", "wrapped under the raw key", "hex"},
        {KEYSLOT_PASSPHRASE, "passphrase", "wrapped under the passphrase", "passphrase"},
        {KEYSLOT_RECOVERY, "recovery key", "wrapped under the recovery key", "passphrase"},
    };
    struct superblock sb = {.seal_mode = 1, .key_size = 32, .key_epoch = 1};
    uint8_t volume_key[VOLUME_KEY_SIZE];

    (void)state;
    example_bytes("volume key", volume_key, sizeof volume_key);
    for (int i = 0; i < 3; i++) {
        struct keyslot ks = {.type = v[i].type, .kek_size = 32};

        if (ks.type == KEYSLOT_PASSPHRASE)
            ks.cost = (struct kdf_cost){.memory = 64, .passes = 2, .lanes = 2};
        if (ks.type != KEYSLOT_RAW)
            example_bytes("salt", ks.salt, sizeof ks.salt);
        example_bytes(v[i].wrapped, ks.wrapped, sizeof ks.wrapped);
        keyslot_encode(&ks, sb.keyslots[i]);
    }
    for (int i = 0; i < 3; i++) {
        AUTO(key_options_fini) struct key_options opt = KEY_OPTIONS_INIT;

        assert_int_equal(key_options_set(&opt, "key_format", v[i].format), 0);
        assert_int_equal(key_options_set(&opt, "key", example(v[i].key)), 0);
        assert_int_equal(keys_find_slot(&opt, &sb), i);
        assert_memory_equal(opt.volume_key->bytes, volume_key, sizeof volume_key);
    }
}

/* The sealer's own keys are not to be seen; what it makes with them is. */
static void
the_sealer_of_the_example_uses_its_keys(void **state)
{
    static const char *const tags[] = {"vnvram superblock hmac-sha256",
                                       "vnvram directory hmac-sha256", "vnvram bank hmac-sha256"};
    uint8_t uuid[UUID_SIZE], epoch[4], volume_key[VOLUME_KEY_SIZE], key[32];
    AUTO(secret_freep) struct secret *vk = NULL;

    (void)state;
    example_bytes("UUID", uuid, sizeof uuid);
    example_bytes("key epoch", epoch, sizeof epoch);
    example_bytes("volume key", volume_key, sizeof volume_key);
    vk = secret_of(volume_key, sizeof volume_key);
    for (size_t size = 16; size <= 32; size += 8) {
        struct sealer *s = NULL;
        uint8_t iv[16] = "some IV", a[32] = "two blocks", b[32] = "two blocks", tag[2][32];
        struct iovec iov = {a, sizeof a};
        char name[32];

        assert_int_equal(sealer_sealed_new(&s, vk, uuid, load_le32(epoch), size), 0);
        snprintf(name, sizeof name, "vnvram bank aes-%zu-cbc", 8 * size);
        example_bytes(name, key, size);
        assert_int_equal(s->ops->encrypt(s, iv, a, sizeof a, a, sizeof a), 0);
        assert_int_equal(aes_cbc_encrypt(key, size, iv, b, sizeof b), 0);
        assert_memory_equal(a, b, sizeof a);
        for (int p = SEAL_SUPERBLOCK; p <= SEAL_BANK; p++) {
            example_bytes(tags[p], key, sizeof key);
            assert_int_equal(s->ops->tag(s, (enum seal_purpose)p, &iov, 1, tag[0]), 0);
            assert_int_equal(hmac_sha256(key, sizeof key, &iov, 1, tag[1]), 0);
            assert_memory_equal(tag[0], tag[1], sizeof tag[0]);
        }
        s->ops->free(s);
    }
}

static void
a_recovery_key_given_as_a_new_key_stays_one(void **state)
{
    AUTO(key_options_fini) struct key_options first = options("key=" HEX_16, NULL);
    AUTO(key_options_fini) struct key_options dashes = options("key_format=passphrase", NULL);
    AUTO(key_options_fini) struct key_options spaces = options("key_format=passphrase", NULL);
    AUTO(secret_freep) struct secret *key = NULL, *text = NULL;
    struct superblock sb = image_for(&first);
    struct keyslot ks;

    (void)state;
    assert_int_equal(secret_random(&key, RECOVERY_SIZE), 0);
    assert_int_equal(secret_new(&text, RECOVERY_TEXT), 0);
    recovery_format(key, text);
    dashes.text = secret_of(text->bytes, RECOVERY_TEXT - 1);
    assert_int_equal(keys_wrap(&first, &dashes, sb.key_size, sb.keyslots[2]), 0);
    assert_int_equal(keyslot_decode(&ks, sb.keyslots[2]), 0);
    assert_int_equal(ks.type, KEYSLOT_RECOVERY);
    for (int i = 6; i < RECOVERY_TEXT - 1; i += 7)
        text->bytes[i] = ' ';
    spaces.text = secret_of(text->bytes, RECOVERY_TEXT - 1);
    assert_int_equal(keys_find_slot(&spaces, &sb), 2);
}

static void
a_new_key_may_be_longer_than_the_cipher_s_but_not_shorter(void **state)
{
    AUTO(key_options_fini) struct key_options k16 = options("key=" HEX_16, NULL);
    AUTO(key_options_fini) struct key_options k24 = options("key=" HEX_24, NULL);
    AUTO(key_options_fini) struct key_options k32 = options("key=" HEX_32, NULL);
    AUTO(key_options_fini)
    struct key_options mismatch = options("key=" HEX_32, "key_size=128", NULL);
    struct superblock sb = image_for(&k24);

    (void)state;
    assert_int_equal(keys_wrap(&k24, &k16, sb.key_size, sb.keyslots[1]), -EINVAL);
    assert_true(was_said("sealed with AES-192: the new key must not have fewer bits"));
    assert_true(bytes_are_zero(sb.keyslots[1], KEYSLOT_SIZE));
    assert_int_equal(keys_wrap(&k24, &k32, sb.key_size, sb.keyslots[1]), 0);
    assert_int_equal(keys_find_slot(&k32, &sb), 1);
    assert_int_equal(keys_wrap(&k24, &mismatch, sb.key_size, sb.keyslots[2]), -EINVAL);
    assert_true(was_said("the key has 256 bits, but key_size=128 was asked for"));
}

static void
a_reseal_makes_another_volume_key(void **state)
{
    AUTO(key_options_fini) struct key_options opt = options("key=" HEX_16, NULL);
    AUTO(secret_freep) struct secret *old = NULL;
    struct superblock sb = image_for(&opt);
    struct sealer *sealer = NULL;

    (void)state;
    old = secret_of(opt.volume_key->bytes, opt.volume_key->len);
    assert_int_equal(keys_renew_volume(&opt, sb.uuid, 2, sb.keyslots, &sb.key_size, &sealer), 0);
    sealer->ops->free(sealer);
    assert_false(secret_equal(old, opt.volume_key));
}

/* ------------------------------------------------------------------------------------------------
 */

static int
set_up(void **state)
{
    (void)state;
    report_set_sink(listen_to, NULL);
    return mkdtemp(dir) ? 0 : -1;
}

static int
tear_down(void **state)
{
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "%s/key", dir);
    unlink(path);
    return rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_file_is_taken_or_refused_with_the_reason),
        cmocka_unit_test(hex_digits_give_their_bytes),
        cmocka_unit_test(the_longest_passphrase_is_taken_and_one_byte_more_is_not),
        cmocka_unit_test(a_file_that_is_not_there_is_reported_with_its_name),
        cmocka_unit_test(a_file_open_to_others_is_warned_about),
        cmocka_unit_test(a_systemd_credential_is_not_warned_about),
        cmocka_unit_test(a_descriptor_is_read_to_its_end_and_closed),
        cmocka_unit_test(two_sources_or_none_are_refused),
        cmocka_unit_test(wrong_words_are_refused_without_showing_a_key),
        cmocka_unit_test(size_and_cost_alone_do_not_mean_a_sealed_image),
        cmocka_unit_test(a_key_in_argv_turns_into_dashes),
        cmocka_unit_test(a_passphrase_is_asked_for_without_echo),
        cmocka_unit_test(a_question_says_what_it_is_about),
        cmocka_unit_test(a_new_passphrase_is_asked_for_twice),
        cmocka_unit_test(a_signal_while_asking_leaves_the_terminal_as_it_was),
        cmocka_unit_test(an_error_of_a_key_file_is_no_finding_about_the_image),
        cmocka_unit_test(without_a_terminal_a_passphrase_cannot_be_asked_for),
#ifndef WITH_SANITIZERS
        cmocka_unit_test(secrets_are_refused_where_memory_cannot_be_locked),
        cmocka_unit_test(a_passphrase_opens_where_not_all_memory_can_be_locked),
#endif
        cmocka_unit_test(a_full_pool_is_an_error_and_not_a_crash),
        cmocka_unit_test(a_key_slot_has_the_bytes_of_its_format),
        cmocka_unit_test(a_key_slot_is_refused_for_what_it_must_not_hold),
        cmocka_unit_test(a_recovery_key_is_eight_groups_that_show_every_slip),
        cmocka_unit_test(other_texts_are_not_recovery_keys),
        cmocka_unit_test(an_image_opens_with_its_key_and_no_other),
        cmocka_unit_test(each_mismatch_of_key_and_image_has_its_finding),
        cmocka_unit_test(a_key_is_read_once_for_both_superblocks),
        cmocka_unit_test(damaged_and_hostile_slots_are_passed_over_with_a_word),
        cmocka_unit_test(a_second_key_and_a_recovery_key_open_the_same_volume),
        cmocka_unit_test(the_slots_of_the_example_give_its_volume_key),
        cmocka_unit_test(the_sealer_of_the_example_uses_its_keys),
        cmocka_unit_test(a_recovery_key_given_as_a_new_key_stays_one),
        cmocka_unit_test(a_new_key_may_be_longer_than_the_cipher_s_but_not_shorter),
        cmocka_unit_test(a_reseal_makes_another_volume_key),
    };

    if (crypt_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
