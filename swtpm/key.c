/* SPDX-License-Identifier: BSD-3-Clause */
#include "swtpm/key.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/keysource.h"
#include <errno.h>
#include <gcrypt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* swtpm reads any length; so much is neither a key nor a passphrase. */
enum { FILE_MOST = 8 * 1024, SHA512_SIZE = 64, ROUNDS = 1000 };
enum { AES128_SIZE = 16, AES256_SIZE = 32 };

/* ---- the words ----------------------------------------------------------------------------------
 */

struct word {
    struct swtpm_key_options *opt;
    const char *option, *name, *value;
};

static int
bad_value(const struct word *w, int r, const char *expected)
{
    return report(r, "%s: %s=%s: %s is needed", w->option, w->name, w->value, expected);
}

static int
one_source(const struct word *w)
{
    if (w->opt->given)
        return report(-EINVAL, "%s: give only one of file=, fd=, pwdfile= and pwdfd=", w->option);
    w->opt->given = true;
    w->opt->is_passphrase = strncmp(w->name, "pwd", 3) == 0;
    return 0;
}

static int
set_file(const struct word *w)
{
    int r = one_source(w);

    if (r < 0)
        return r;
    w->opt->file = strdup(w->value);
    return w->opt->file ? 0 : report(-ENOMEM, "out of memory");
}

static int
set_fd(const struct word *w)
{
    char *end;
    unsigned long n;
    int r = one_source(w);

    if (r < 0)
        return r;
    errno = 0;
    n = strtoul(w->value, &end, 10);
    if (*w->value < '0' || *w->value > '9' || *end || errno || n > INT_MAX)
        return bad_value(w, -EINVAL, "a descriptor");
    w->opt->fd = (int)n;
    return 0;
}

static int
set_mode(const struct word *w)
{
    if (strcmp(w->value, "aes-cbc") == 0 || strcmp(w->value, "aes-128-cbc") == 0)
        w->opt->size = AES128_SIZE;
    else if (strcmp(w->value, "aes-256-cbc") == 0)
        w->opt->size = AES256_SIZE;
    else
        return bad_value(w, -EPROTONOSUPPORT, "aes-cbc, aes-128-cbc or aes-256-cbc");
    return 0;
}

static int
set_format(const struct word *w)
{
    w->opt->format_given = true;
    w->opt->is_binary = strcmp(w->value, "binary") == 0;
    return w->opt->is_binary || strcmp(w->value, "hex") == 0
               ? 0
               : bad_value(w, -EINVAL, "hex or binary");
}

static int
set_kdf(const struct word *w)
{
    if (strcmp(w->value, "pbkdf2") == 0)
        w->opt->kdf = SWTPM_KDF_PBKDF2;
    else if (strcmp(w->value, "sha512") == 0)
        w->opt->kdf = SWTPM_KDF_SHA512;
    else
        return bad_value(w, -EPROTONOSUPPORT, "pbkdf2 or sha512");
    return 0;
}

static int
set_remove(const struct word *w)
{
    if (strcmp(w->value, "false") == 0 || strcmp(w->value, "no") == 0 || strcmp(w->value, "0") == 0)
        return 0;
    return report(-EINVAL, "%s: remove=: keys are not removed here; do it when all is well",
                  w->option);
}

static int
set_word(const struct word *w)
{
    static const struct {
        const char *name;
        int (*set)(const struct word *w);
    } words[] = {
        {"file", set_file}, {"fd", set_fd},         {"pwdfile", set_file}, {"pwdfd", set_fd},
        {"mode", set_mode}, {"format", set_format}, {"kdf", set_kdf},      {"remove", set_remove},
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(w->name, words[i].name) == 0)
            return w->value && *w->value
                       ? words[i].set(w)
                       : report(-EINVAL, "%s: %s= needs a value", w->option, w->name);
    }
    return report(-EINVAL, "%s: unknown word %s: the words are those of swtpm's --key", w->option,
                  w->name);
}

static int
check_words(const struct swtpm_key_options *opt, const char *option)
{
    if (!opt->given)
        return report(-EINVAL, "%s: one of file=, fd=, pwdfile= and pwdfd= is needed", option);
    if (opt->is_passphrase && opt->format_given)
        return report(-EINVAL, "%s: format= is of use with file= and fd= only", option);
    if (!opt->is_passphrase && opt->kdf != SWTPM_KDF_UNSET)
        return report(-EINVAL, "%s: kdf= is of use with pwdfile= and pwdfd= only", option);
    return 0;
}

int
swtpm_key_options_set(struct swtpm_key_options *opt, const char *option, const char *words)
{
    AUTO_FREE char *copy = strdup(words);
    char *rest = copy, *part;
    int r = 0;

    if (!copy)
        return report(-ENOMEM, "out of memory");
    swtpm_key_options_fini(opt);
    while (r == 0 && (part = strsep(&rest, ",")) != NULL) {
        char *value = strchr(part, '=');

        if (value)
            *value++ = '\0';
        r = set_word(&(struct word){opt, option, part, value});
    }
    return r < 0 ? r : check_words(opt, option);
}

void
swtpm_key_options_fini(struct swtpm_key_options *opt)
{
    free(opt->file);
    if (opt->fd > STDERR_FILENO)
        close(opt->fd);
    *opt = (struct swtpm_key_options)SWTPM_KEY_OPTIONS_INIT;
}

/* ---- the bytes ----------------------------------------------------------------------------------
 */

int
swtpm_key_derive(const struct secret *passphrase, enum swtpm_kdf kdf, size_t size,
                 struct secret **key)
{
    static const char salt[] = {'s', 'w', 't', 'p', 'm'};
    AUTO(secret_freep) struct secret *out = NULL;
    int r = secret_new(&out, SHA512_SIZE);

    if (r < 0)
        return r;
    if (kdf == SWTPM_KDF_SHA512)
        gcry_md_hash_buffer(GCRY_MD_SHA512, out->bytes, passphrase->bytes, passphrase->len);
    else if (gcry_kdf_derive(passphrase->bytes, passphrase->len, GCRY_KDF_PBKDF2, GCRY_MD_SHA512,
                             salt, sizeof salt, ROUNDS, size, out->bytes))
        return report(-EIO, "the passphrase cannot be turned into a key");
    return secret_copy(key, out->bytes, size);
}

/* Whatever follows the first white space is no part of the key: swtpm reads it so. */
int
swtpm_key_parse_hex(const struct secret *text, const char *what, struct secret **key)
{
    AUTO(secret_freep) struct secret *digits = NULL;
    size_t n = 0;
    int r;

    while (n < text->len && !strchr(" \t\r\n\v\f", text->bytes[n]))
        n++;
    r = secret_copy(&digits, text->bytes, n);
    return r < 0 ? r : keysource_parse_hex(key, digits, what);
}

static int
parse_key(const struct swtpm_key_options *opt, const struct secret *text, const char *what,
          struct secret **key)
{
    size_t want = opt->size ? opt->size : AES128_SIZE;
    AUTO(secret_freep) struct secret *k = NULL;
    int r;

    if (text->len == 0)
        return report(-EINVAL, "%s is empty", what);
    if (opt->is_passphrase)
        return swtpm_key_derive(text, opt->kdf, want, key);
    r = opt->is_binary ? secret_copy(&k, text->bytes, text->len)
                       : swtpm_key_parse_hex(text, what, &k);
    if (r < 0)
        return r;
    if (k->len != AES128_SIZE && k->len != AES256_SIZE)
        return report(-EINVAL,
                      "%s has %zu bytes; swtpm's keys have %d or %d, and a newline at the end of a "
                      "binary one counts",
                      what, k->len, AES128_SIZE, AES256_SIZE);
    if (k->len != want)
        return report(-EINVAL, "%s has %zu bytes, which is a key for mode=aes-%zu-cbc", what,
                      k->len, k->len * 8);
    *key = steal(&k);
    return 0;
}

int
swtpm_key_read(struct swtpm_key_options *opt, struct secret **key)
{
    AUTO(secret_freep) struct secret *text = NULL;
    char what[PATH_MAX + 32];
    int r;

    *key = NULL;
    if (!opt->given)
        return 0;
    if (opt->file) {
        snprintf(what, sizeof what, "swtpm's key file %s", opt->file);
        r = keysource_read_file(opt->file, what, FILE_MOST, &text);
    } else {
        snprintf(what, sizeof what, "swtpm's key on descriptor %d", opt->fd);
        r = keysource_read_fd(steal_fd(&opt->fd), what, FILE_MOST, &text);
    }
    return r < 0 ? r : parse_key(opt, text, what, key);
}
