/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/keysource.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/aes.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { TEXT_MOST = PASSPHRASE_MAX + 1 }; /* with a newline */

/* ---- from text to key ---- */

static size_t
without_newline(const struct secret *text)
{
    return text->len > 0 && text->bytes[text->len - 1] == '\n' ? text->len - 1 : text->len;
}

static int
hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int
keysource_parse_hex(struct secret **key, const struct secret *text, const char *what)
{
    AUTO(secret_freep) struct secret *k = NULL;
    size_t len = without_newline(text), at = 0;
    int r;

    if (len == 0)
        return report(-EINVAL, "%s is empty: 32, 48 or 64 hexadecimal digits are needed", what);
    if (len >= 2 && text->bytes[0] == '0' && (text->bytes[1] | 0x20) == 'x')
        at = 2;
    for (size_t i = at; i < len; i++) {
        if (hex_value(text->bytes[i]) < 0)
            return report(-EINVAL,
                          "%s: character %zu is not a hexadecimal digit (for a key in raw bytes, "
                          "say key_format=binary; for a passphrase, key_format=passphrase)",
                          what, i + 1);
    }
    len -= at;
    if (len % 2 || !aes_key_size_ok(len / 2))
        return report(-EINVAL, "%s has %zu hexadecimal digits; 32, 48 or 64 are needed", what, len);
    if ((r = secret_new(&k, len / 2)) < 0)
        return r;
    for (size_t i = 0; i < k->len; i++, at += 2)
        k->bytes[i] = (uint8_t)(hex_value(text->bytes[at]) << 4 | hex_value(text->bytes[at + 1]));
    *key = steal(&k);
    return 0;
}

int
keysource_parse_binary(struct secret **key, const struct secret *text, const char *what)
{
    if (text->len == 0)
        return report(-EINVAL, "%s is empty: 16, 24 or 32 bytes are needed", what);
    if (!aes_key_size_ok(text->len))
        return report(-EINVAL,
                      "%s has %zu bytes; a binary key has 16, 24 or 32, and a newline at its end "
                      "counts",
                      what, text->len);
    return secret_copy(key, text->bytes, text->len);
}

int
keysource_parse_passphrase(struct secret **key, const struct secret *text, const char *what)
{
    size_t len = without_newline(text);

    if (len == 0)
        return report(-EINVAL, "%s: the passphrase is empty", what);
    if (len > PASSPHRASE_MAX)
        return report(-EINVAL, "%s: the passphrase is longer than %d bytes", what, PASSPHRASE_MAX);
    for (size_t i = 0; i < len; i++) {
        if (text->bytes[i] == '\n' || text->bytes[i] == '\0')
            return report(-EINVAL,
                          "%s: a passphrase is one line of text, but byte %zu is a %s (for a key "
                          "in raw bytes, say key_format=binary)",
                          what, i + 1, text->bytes[i] ? "newline" : "zero");
    }
    return secret_copy(key, text->bytes, len);
}

static int
parse(struct secret **key, enum key_format format, const struct secret *text, const char *what)
{
    switch (format) {
    case KEY_FORMAT_BINARY:
        return keysource_parse_binary(key, text, what);
    case KEY_FORMAT_PASSPHRASE:
        return keysource_parse_passphrase(key, text, what);
    default:
        return keysource_parse_hex(key, text, what);
    }
}

/* ---- where it comes from ---- */

/* ESTALE, EBUSY and the like of a key file are not findings about an image. */
static int
report_errno(int err, const char *what, const char *doing)
{
    int r = finding_exit_code(-err) == EXIT_FAILED ? -err : -EIO;

    return report(r, "cannot %s %s: %s", doing, what, errno_text(err));
}

/* Reads to the end, straight into secure memory: stdio would leave copies. */
static int
read_all(int fd, const char *what, size_t most, struct secret **text)
{
    AUTO(secret_freep) struct secret *buf = NULL;
    size_t n = 0;
    int r = secret_new(&buf, most + 1); /* one to see that there is more */

    while (r == 0 && n <= most) {
        ssize_t got = read(fd, buf->bytes + n, most + 1 - n);

        if (got == 0)
            break;
        if (got < 0 && errno != EINTR)
            return report_errno(errno, what, "read");
        n += got > 0 ? (size_t)got : 0;
    }
    if (r < 0)
        return r;
    if (n > most)
        return report(-EINVAL, "%s is longer than any key: over %zu bytes", what, most);
    return secret_copy(text, buf->bytes, n);
}

/* systemd guards its credentials by the directory and an access list, which the group bits mirror.
 */
static bool
is_credential(const char *path)
{
    const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
    size_t n = dir ? strlen(dir) : 0;

    return n > 0 && strncmp(path, dir, n) == 0 && path[n] == '/';
}

int
keysource_read_file(const char *path, const char *what, size_t most, struct secret **text)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return report_errno(errno, what, "open");
    if (S_ISREG(st.st_mode) && (st.st_mode & 077) && !is_credential(path))
        report_at(REPORT_WARNING, 0, "%s is open to others (mode %04o): chmod 600 it", what,
                  (unsigned)st.st_mode & 07777);
    return read_all(fd, what, most, text);
}

/* The descriptor is closed once read, so that no child finds it; standard ones keep their places.
 */
int
keysource_read_fd(int fd, const char *what, size_t most, struct secret **text)
{
    int r = read_all(fd, what, most, text);

    if (fd > STDERR_FILENO)
        close(fd);
    return r;
}

static int
ask(bool is_new, const char *of, struct secret **key)
{
    AUTO(secret_freep) struct secret *first = NULL, *again = NULL;
    const char *what = "the terminal";
    char name[PATH_MAX], prompt[PATH_MAX + 32];
    int r;

    /* Whoever mounts several images is to know which one this is about. */
    report_escape(name, sizeof name, of ? of : "");
    snprintf(prompt, sizeof prompt, "%s%s%s: ", is_new ? "New passphrase" : "Passphrase",
             of ? " for " : "", name);
    r = terminal_ask(prompt, &first);
    if (r == 0 && is_new) {
        r = terminal_ask("The same again: ", &again);
        if (r == 0 && !secret_equal(first, again))
            r = report(-EINVAL, "the two passphrases differ");
    }
    return r < 0 ? r : keysource_parse_passphrase(key, first, what);
}

int
keysource_read(struct key_options *opt, bool is_new, struct secret **key)
{
    AUTO(secret_freep) struct secret *text = NULL;
    int sources = (opt->file != NULL) + (opt->fd >= 0) + (opt->text != NULL);
    char what[PATH_MAX + 16];
    int r;

    if (sources > 1)
        return report(-EINVAL, "give only one of key_file=, key_fd= and key=");
    if (sources == 0 && opt->format == KEY_FORMAT_PASSPHRASE)
        return ask(is_new, opt->of, key);
    if (sources == 0)
        return report(-ENOKEY, "no key: give key_file=, key_fd= or key=, or key_format=passphrase "
                               "to be asked for one");
    if (opt->text)
        return parse(key, opt->format, opt->text, "key=");
    if (opt->file) {
        snprintf(what, sizeof what, "key file %s", opt->file);
        r = keysource_read_file(opt->file, what, TEXT_MOST, &text);
    } else {
        snprintf(what, sizeof what, "key_fd=%d", opt->fd);
        r = keysource_read_fd(steal_fd(&opt->fd), what, TEXT_MOST, &text);
    }
    return r < 0 ? r : parse(key, opt->format, text, what);
}
