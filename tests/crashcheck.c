/* SPDX-License-Identifier: BSD-3-Clause */
/* Builds what power cuts would have left of an image that was written under faultlib.c, and says
 * what the store shows of each.
 *
 *   crashcheck BASE LOG SEED N [KEYFILE] [INDEX FILE]
 *
 * BASE is the image before the first record of LOG.  At each write, and for N random choices
 * between each two flushes, one line:
 *
 *   INDEX POSITION CLASS RESULT CRC PERMALL
 *
 * POSITION is the end of the last record that the cut image can hold some of.  Of the writes since
 * the last flush it holds all (class "prefix"), some blocks ("subset") or some sectors ("torn").
 * RESULT is the errno of opening it for writing, of reading all files, or of a check afterwards;
 * CRC is that of all files but the TPM's, and PERMALL that of the TPM 2.0's state ("-": none). With
 * INDEX and FILE, that image is written there instead. */
#include "base/bytes.h"
#include "base/crc32.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/store.h"
#include "crypt/keys.h"
#include "tests/memdev.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, WRITES_MAX = 4096, RECORD_HEAD = 24, RECORD_WRITE = 1, RECORD_FLUSH = 2 };

struct bytes {
    uint8_t *at;
    size_t len;
};

struct write {
    size_t end; /* of its record, in the log */
    uint64_t off;
    const uint8_t *data;
    size_t len;
};

static struct run {
    struct bytes base, cut; /* as of the last flush, and what is built from it */
    struct write pending[WRITES_MAX];
    size_t n_pending;
    uint64_t rng;
    unsigned long index, wanted;
    const char *dump; /* NULL: check all */
    struct key_options key;
} run;

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

static uint64_t
next_random(void)
{
    run.rng ^= run.rng << 13;
    run.rng ^= run.rng >> 7;
    run.rng ^= run.rng << 17;
    return run.rng * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static struct bytes
read_file(const char *path)
{
    struct bytes b = {0};
    FILE *in = fopen(path, "rb");
    long len;

    if (!in || fseek(in, 0, SEEK_END) < 0 || (len = ftell(in)) < 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    rewind(in);
    b.len = (size_t)len;
    b.at = malloc(b.len + 1);
    if (!b.at || fread(b.at, 1, b.len, in) != b.len)
        exit(2);
    fclose(in);
    return b;
}

/* ---- what is shown ------------------------------------------------------------------------------
 */

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static bool
is_tpms(const char *name)
{
    return strncmp(name, "tpm", 3) == 0 || strncmp(name, "TMP", 3) == 0 ||
           strcmp(name, ".lock") == 0;
}

/* Appends name, length and content. */
static int
add_file(struct store *s, const struct entry *e, FILE *out)
{
    AUTO_FREE uint8_t *data = malloc(e->current.length + 1);
    uint8_t len[8];
    int r = data ? store_read(s, &e->current, data) : -ENOMEM;

    store_le64(len, e->current.length);
    fwrite(e->name, 1, strlen(e->name) + 1, out);
    fwrite(len, 1, sizeof len, out);
    if (r == 0)
        fwrite(data, 1, e->current.length, out);
    return r;
}

static int
sum_up(struct store *s, uint32_t *crc, char permall[16])
{
    AUTO_FREE struct entry *list = NULL;
    AUTO_FREE char *all = NULL, *state = NULL;
    size_t n = 0, all_len = 0, state_len = 0;
    FILE *files = open_memstream(&all, &all_len), *tpm = open_memstream(&state, &state_len);
    int r = store_list(s, &list, &n);

    qsort(list, n, sizeof *list, by_name);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (list[i].kind != ENTRY_FILE)
            continue;
        if (strcmp(list[i].name, "tpm2-00.permall") == 0)
            r = add_file(s, &list[i], tpm);
        else if (!is_tpms(list[i].name))
            r = add_file(s, &list[i], files);
    }
    fclose(files);
    fclose(tpm);
    *crc = crc32_of(all, all_len);
    snprintf(permall, 16, "-");
    if (state_len)
        snprintf(permall, 16, "%08" PRIx32, crc32_of(state, state_len));
    return r;
}

static void
ignore_finding(void *arg, int r, const char *where, const char *text)
{
    (void)arg, (void)r, (void)where, (void)text;
}

static void
show(size_t position, const char *class)
{
    const struct store_options opt = {.unlock = keys_unlock, .unlock_arg = &run.key};
    struct dev *d = memdev_new(run.cut.at, run.cut.len);
    struct check_result res = {0};
    struct store *s = NULL;
    char permall[16] = "-";
    uint32_t crc = 0;
    int r = store_open(&s, d, &opt);

    if (r < 0)
        dev_close(d);
    if (r == 0) {
        r = sum_up(s, &crc, permall);
        store_close(s);
    }
    if (r == 0) {
        d = memdev_new(run.cut.at, run.cut.len);
        r = check_image(d, keys_unlock, &run.key, ignore_finding, NULL, &res);
        dev_close(d);
    }
    printf("%lu %zu %s %d %08" PRIx32 " %s\n", run.index, position, class, r, crc, permall);
}

/* ---- cuts ---------------------------------------------------------------------------------------
 */

static void
finish_cut(size_t position, const char *class)
{
    FILE *out;

    if (!run.dump) {
        show(position, class);
    } else if (run.index == run.wanted) {
        out = fopen(run.dump, "wb");
        if (!out || fwrite(run.cut.at, 1, run.cut.len, out) != run.cut.len || fclose(out) != 0)
            exit(2);
        exit(0);
    }
    run.index++;
}

/* Of the first @n pending writes the units of @unit bytes of which one in @of is lost; 0: all are
 * there. */
static void
cut(size_t n, size_t unit, unsigned of, const char *class)
{
    memcpy(run.cut.at, run.base.at, run.base.len);
    for (size_t i = 0; i < n; i++) {
        const struct write *w = &run.pending[i];

        for (size_t at = 0; at < w->len; at += unit)
            if (of == 0 || next_random() % of != 0)
                memcpy(run.cut.at + w->off + at, w->data + at,
                       w->len - at < unit ? w->len - at : unit);
    }
    finish_cut(n ? run.pending[n - 1].end : 0, class);
}

static void
cut_at_random(void)
{
    size_t n = 1 + next_random() % run.n_pending;
    unsigned of = next_random() % 2   ? 2
                  : next_random() % 2 ? 12
                                      : 1 + (unsigned)(next_random() % 3);
    bool torn = next_random() % 2;

    cut(n, torn ? SECTOR : BLOCK_SIZE, of, torn ? "torn" : "subset");
}

static void
flushed(unsigned long cuts)
{
    for (unsigned long i = 0; run.n_pending && i < cuts; i++)
        cut_at_random();
    for (size_t i = 0; i < run.n_pending; i++)
        memcpy(run.base.at + run.pending[i].off, run.pending[i].data, run.pending[i].len);
    run.n_pending = 0;
}

static void
replay(const struct bytes *log, unsigned long cuts)
{
    for (size_t at = 0; at + RECORD_HEAD <= log->len;) {
        uint32_t kind = load_le32(log->at + at);
        uint64_t len = load_le64(log->at + at + 8), off = load_le64(log->at + at + 16);
        size_t end;

        if (kind == 0) /* whoever wrote it was killed while the record was made */
            break;
        if (len > log->len - at - RECORD_HEAD ||
            (kind == RECORD_WRITE && off > run.base.len - len)) {
            fprintf(stderr, "record at %zu: makes no sense\n", at);
            exit(2);
        }
        end = at + ((RECORD_HEAD + len + 7) & ~(size_t)7);
        if (kind == RECORD_FLUSH) {
            flushed(cuts);
        } else if (run.n_pending < WRITES_MAX) {
            run.pending[run.n_pending++] =
                (struct write){end, off, log->at + at + RECORD_HEAD, len};
            cut(run.n_pending, BLOCK_SIZE, 0, "prefix");
        }
        at = end;
    }
    flushed(cuts);
}

int
main(int argc, char **argv)
{
    struct bytes log;

    if (argc < 5 || crypt_init() < 0)
        return 2;
    report_set_sink(silent, NULL);
    run.key = (struct key_options)KEY_OPTIONS_INIT;
    if (argc % 2 == 0 && (key_options_set(&run.key, "key_file", argv[5]) < 0 ||
                          key_options_set(&run.key, "key_format", "hex") < 0))
        return 2;
    if (argc >= 7) {
        run.wanted = strtoul(argv[argc - 2], NULL, 10);
        run.dump = argv[argc - 1];
    }
    run.base = read_file(argv[1]);
    log = read_file(argv[2]);
    run.rng = strtoull(argv[3], NULL, 10) | 1;
    run.cut = (struct bytes){malloc(run.base.len), run.base.len};
    if (!run.cut.at)
        return 2;
    replay(&log, strtoul(argv[4], NULL, 10));
    key_options_fini(&run.key);
    free(run.base.at);
    free(run.cut.at);
    free(log.at);
    return 0;
}
