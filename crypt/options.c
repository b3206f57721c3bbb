/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "base/scope.h"
#include "crypt/kdf.h"
#include "crypt/keys.h"
#include <errno.h>
#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number of at most @max, and nothing else. */
static int
set_number(const char *word, const char *value, unsigned long max, unsigned long *out)
{
    unsigned long v;
    char *end;

    errno = 0;
    v = strtoul(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || errno || v > max)
        return report(-EINVAL, "%s=%s: a number up to %lu is needed", word, value, max);
    *out = v;
    return 0;
}

static int
set_file(struct key_options *opt, const char *word, const char *value)
{
    char *copy = strdup(value);

    (void)word;
    if (!copy)
        return report(-ENOMEM, "out of memory");
    free(opt->file);
    opt->file = copy;
    return 0;
}

static int
set_fd(struct key_options *opt, const char *word, const char *value)
{
    unsigned long v = 0;
    int r = set_number(word, value, 1024 * 1024, &v);

    if (r == 0)
        opt->fd = (int)v;
    return r;
}

static int
set_text(struct key_options *opt, const char *word, const char *value)
{
    (void)word;
    secret_free(opt->text);
    opt->text = NULL;
    return secret_copy(&opt->text, value, strlen(value));
}

static int
set_format(struct key_options *opt, const char *word, const char *value)
{
    static const char *const names[] = {
        [KEY_FORMAT_HEX] = "hex",
        [KEY_FORMAT_BINARY] = "binary",
        [KEY_FORMAT_PASSPHRASE] = "passphrase",
    };

    for (size_t i = KEY_FORMAT_HEX; i <= KEY_FORMAT_PASSPHRASE; i++) {
        if (strcmp(value, names[i]) == 0) {
            opt->format = (enum key_format)i;
            return 0;
        }
    }
    return report(-EINVAL, "%s=%s: hex, binary or passphrase is needed", word, value);
}

static int
set_mode(struct key_options *opt, const char *word, const char *value)
{
    (void)opt;
    if (strcmp(value, "aes-cbc") == 0)
        return 0;
    return report(-EPROTONOSUPPORT, "%s=%s: the only cipher is aes-cbc", word, value);
}

static int
set_key_size(struct key_options *opt, const char *word, const char *value)
{
    if (strcmp(value, "128") && strcmp(value, "192") && strcmp(value, "256"))
        return report(-EINVAL, "%s=%s: 128, 192 or 256 bits are needed", word, value);
    opt->key_size = (unsigned)atoi(value) / 8;
    return 0;
}

static int
set_kdf_memory(struct key_options *opt, const char *word, const char *value)
{
    unsigned long v = 0;
    int r = set_number(word, value, KDF_MEMORY_MAX, &v);

    if (r == 0 && v < KDF_MEMORY_MIN)
        r = report(-EINVAL, "%s=%s: at least %d KiB are needed", word, value, KDF_MEMORY_MIN);
    if (r == 0)
        opt->kdf_memory = (uint32_t)v;
    return r;
}

static int
set_kdf_time(struct key_options *opt, const char *word, const char *value)
{
    unsigned long v = 0;
    int r = set_number(word, value, KDF_PASSES_MAX, &v);

    if (r == 0 && v < 1)
        r = report(-EINVAL, "%s=%s: at least one pass is needed", word, value);
    if (r == 0)
        opt->kdf_time = (uint32_t)v;
    return r;
}

static const struct {
    const char *word;
    bool means_sealed;
    int (*set)(struct key_options *opt, const char *word, const char *value);
} words[] = {
    {"key_file", true, set_file},
    {"key_fd", true, set_fd},
    {"key", true, set_text},
    {"key_format", true, set_format},
    {"enc_mode", true, set_mode},
    {"key_size", false, set_key_size},
    {"kdf_memory", false, set_kdf_memory},
    {"kdf_time", false, set_kdf_time},
};

int
key_options_set(struct key_options *opt, const char *word, const char *value)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i].word) != 0)
            continue;
        if (!value || !*value)
            return report(-EINVAL, "%s= needs a value", word);
        opt->given |= words[i].means_sealed;
        return words[i].set(opt, word, value);
    }
    return -ENOENT;
}

void
key_options_fini(struct key_options *opt)
{
    free(opt->file);
    if (opt->fd >= 0)
        close(opt->fd);
    secret_free(opt->text);
    secret_free(opt->key);
    secret_free(opt->volume_key);
    *opt = (struct key_options)KEY_OPTIONS_INIT;
}

/* The value after the next "key=" that starts an option, from the option at @p on; NULL when there
 * is none. */
static char *
find_key_value(char *p)
{
    for (; p; p = strchr(p, ',')) {
        if (*p == ',')
            p++;
        if (strncmp(p, "key=", 4) == 0)
            return p + 4;
    }
    return NULL;
}

/* Where options begin in an argument: behind the letter in "-owords", which may follow others as in
 * "-nowords", else at its start. */
static char *
first_option(char *arg)
{
    char *letter = arg[0] == '-' && arg[1] != '-' ? strpbrk(arg, "on") : NULL;
    const char *end = arg + strcspn(arg, "=,");

    for (char *l = letter; l && l < end; l = strpbrk(l + 1, "on")) {
        if (strncmp(l + 1, "key=", 4) == 0)
            return l + 1;
    }
    return letter ? letter + 1 : arg;
}

int
keys_hide_argv(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        AUTO(secret_freep) struct secret *copy = NULL;
        char *value = find_key_value(first_option(argv[i])), *next;
        int r;

        if (!value)
            continue;
        if ((r = secret_copy(&copy, argv[i], strlen(argv[i]) + 1)) < 0)
            return r;
        for (; value; value = next) {
            size_t n = strcspn(value, ",");

            next = find_key_value(value + n);
            memset(value, '-', n);
        }
        argv[i] = (char *)steal(&copy)->bytes; /* until exit: options point into it */
    }
    return 0;
}
