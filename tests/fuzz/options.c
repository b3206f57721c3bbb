/* SPDX-License-Identifier: BSD-3-Clause */
/* Command lines: a byte that picks the command, then arguments, divided by newlines. */
#include "cli/options.h"
#include "base/report.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <getopt.h>
#include <string.h>

enum { ARGS_MAX = 40 };
static FILE *nowhere; /* for help and lists */

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(silent, NULL);
    opterr = 0;
    nowhere = fopen("/dev/null", "w");
    MUST(nowhere);
    MUST(crypt_init() == 0);
    return 0;
}

static void
look(const struct options *o)
{
    MUST(o->n_classes <= MAX_SEGMENTS && o->n_args >= 0 && o->n_args < ARGS_MAX);
    for (int i = 0; i < o->n_args; i++)
        MUST(o->args[i] != NULL);
    for (size_t i = 0; i < o->n_reservations; i++)
        MUST(o->reservations[i].name != NULL);
    MUST(o->key.key_size == 0 || o->key.key_size == 16 || o->key.key_size == 24 ||
         o->key.key_size == 32);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum option_where commands[] = {
        FOR_FORMAT,   FOR_MOUNT, FOR_UNMOUNT, FOR_INFO,   FOR_CHECK,        FOR_SIZE,       FOR_KEY,
        FOR_SNAPSHOT, FOR_GROW,  FOR_EXPORT,  FOR_IMPORT, FOR_MOUNT_HELPER, FOR_FSCK_HELPER};
    char *line, *rest, command[] = "command", *argv[ARGS_MAX + 1] = {command};
    FILE *was = stdout;
    struct options o;
    int argc = 1, r;

    if (size == 0 || memchr(data + 1, 0, size - 1))
        return 0;
    line = rest = strndup((const char *)data + 1, size - 1);
    MUST(line);
    for (char *word; argc < ARGS_MAX && (word = strsep(&rest, "\n")) != NULL;)
        argv[argc++] = word;
    stdout = nowhere;
    r = options_parse(&o, commands[data[0] % (sizeof commands / sizeof commands[0])], "", argc,
                      argv);
    stdout = was;
    MUST(r == 0 || r == -EINVAL || r == -ENOMEM || r == -EPROTONOSUPPORT || r == OPTIONS_ANSWERED);
    if (r == 0)
        look(&o);
    o.key.fd = o.new_key.fd = -1; /* descriptors of ours, not given by anybody */
    options_fini(&o);
    free(line);
    return 0;
}
