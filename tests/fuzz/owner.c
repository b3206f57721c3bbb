/* SPDX-License-Identifier: BSD-3-Clause */
/* An image whose owner records are hostile, taken by one host, by force if it has to, and then by
 * another one.
 *
 * Byte 0: bits 0 and 1: the checksum of that record stays as it is, else it is made right; bit 2
 * fenced; bit 3 an image is made anew there.  Then the beginnings of the two records. */
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/store.h"
#include "tests/fuzz/fuzz.h"
#include "tests/memdev.h"
#include "tests/testseal.h"
#include <errno.h>
#include <string.h>

enum { RECORD_BYTES = 256, RECORDS_SIZE = OWNER_RECORD_COUNT * BLOCK_SIZE };

static const struct slot_class class = {1, 4096};
static const struct owner_options hosts[] = {
    {.host_id = {1}, .boot_id = {11}, .host_name = "alpha"},
    {.host_id = {2}, .boot_id = {22}, .host_name = "beta"},
};
static uint8_t *base, *work;
static uint64_t size_of_image;

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

static struct dev *
disk(uint8_t *bytes)
{
    struct dev *d = memdev_new(bytes, size_of_image);

    d->shared = true;
    return d;
}

static int
mount(struct store **s, uint8_t *bytes, const struct owner_options *who)
{
    const struct store_options opt = {.unlock = testseal_unlock, .owner = who};
    struct dev *d = disk(bytes);
    int r = store_open(s, d, &opt);

    if (r < 0)
        dev_close(d);
    return r;
}

static int
make_image(uint8_t *bytes, const struct owner_options *who)
{
    const struct format_spec spec = {
        .classes = &class, .n_classes = 1, .uuid = {1, 2, 3}, .owner = who};
    AUTO(sealer_freep) struct sealer *sealer = testseal_plain();
    AUTO(dev_closep) struct dev *d = disk(bytes);

    return store_format(d, &spec, sealer);
}

/* With directories that name a taking. */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct format_spec spec = {.classes = &class, .n_classes = 1};
    struct superblock sb;
    struct store *s;

    (void)argc, (void)argv;
    report_set_sink(silent, NULL);
    MUST(store_layout(&sb, &spec, NULL) == 0);
    size_of_image = sb.image_size;
    base = calloc(1, size_of_image);
    work = malloc(size_of_image);
    MUST(base && work);
    MUST(make_image(base, &hosts[0]) == 0 && mount(&s, base, &hosts[0]) == 0);
    MUST(store_commit(s, NULL, 0, NULL) == 0);
    store_close(s);
    return 0;
}

/* ---- the records -------------------------------------------------------------------------------
 */

static uint8_t *
record_at(unsigned i)
{
    return work + OWNER_RECORDS + (size_t)i * BLOCK_SIZE;
}

/* A record beyond the end of @data is blank. */
static void
place_records(const uint8_t *data, size_t size, uint8_t flags)
{
    memcpy(work, base, size_of_image);
    memset(record_at(0), 0, RECORDS_SIZE);
    for (unsigned i = 0; i < OWNER_RECORD_COUNT; i++) {
        size_t n = size < RECORD_BYTES ? size : RECORD_BYTES;

        memcpy(record_at(i), data, n);
        if (n > 0 && !(flags & 1 << i))
            format_set_crc(record_at(i), BLOCK_SIZE);
        data += n;
        size -= n;
    }
}

/* Nothing passes that we would not write. */
static bool
is_valid(unsigned i)
{
    AUTO_FREE uint8_t *again = dev_alloc(BLOCK_SIZE);
    char text[OWNER_TIME_TEXT];
    struct owner_record rec;
    int r = owner_record_decode(&rec, record_at(i));

    MUST(again);
    MUST(r == 0 || r == -ENODATA || r == -EUCLEAN || r == -EPROTONOSUPPORT);
    if (r < 0)
        return false;
    owner_record_encode(&rec, again);
    MUST(memcmp(again, record_at(i), BLOCK_SIZE) == 0);
    MUST(memchr(rec.host_name, 0, sizeof rec.host_name));
    MUST(strlen(owner_time_text(text, rec.time)) > 0);
    return true;
}

static void
count_sink(void *arg, int r, const char *where, const char *text)
{
    MUST(where && text && r <= 0);
    ++*(unsigned *)arg;
}

static void
look(void)
{
    AUTO(dev_closep) struct dev *d = disk(work);
    struct check_result res = {0};
    struct owner_record rec;
    unsigned said = 0;
    int r = owner_look(d, NULL, &rec);

    MUST(r == 0 || r == -ENODATA || r == -EUCLEAN);
    MUST(r != 0 || rec.epoch != 0);
    is_valid(0);
    is_valid(1);
    check_image(d, testseal_unlock, NULL, count_sink, &said, &res);
    MUST(res.problems <= said);
}

/* ---- taking ------------------------------------------------------------------------------------
 */

/* Who is refused has changed nothing. */
static int
mount_or_leave(struct store **s, const struct owner_options *who)
{
    AUTO_FREE uint8_t *before = malloc(size_of_image);
    int r;

    MUST(before);
    memcpy(before, work, size_of_image);
    r = mount(s, work, who);
    MUST(r == 0 || r == -EBUSY || r == -EUCLEAN || r == -EPROTONOSUPPORT);
    MUST(r == 0 || r == -EUCLEAN || memcmp(before, work, size_of_image) == 0);
    return r;
}

/* Whatever was there: who has the image can leave it to the next one. */
static void
use(struct store *s)
{
    struct store_info info, next;
    struct store *other;
    bool last; /* above it, counters are taken by force only */
    int r;

    store_get_info(s, &info);
    MUST(info.owned && is_valid(0) && is_valid(1));
    MUST(memcmp(info.owner.host_id, hosts[0].host_id, HOST_ID_SIZE) == 0);
    MUST(store_commit(s, NULL, 0, NULL) == 0);
    store_get_info(s, &info);
    store_close(s);
    last = info.owner.sequence >= INT64_MAX / 2 || info.owner.epoch >= INT64_MAX / 2;
    r = mount(&other, work, &hosts[1]);
    MUST(r == (last ? -EBUSY : 0));
    if (r < 0)
        return;
    store_get_info(other, &next);
    MUST(next.generation >= info.generation && next.owner.epoch > info.owner.epoch);
    MUST(next.guarded == info.guarded && !next.recovered);
    store_close(other);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct owner_options who = hosts[0];
    struct store *s;
    uint8_t flags;
    int r;

    if (size == 0)
        return 0;
    flags = data[0];
    place_records(data + 1, size - 1, flags);
    look();
    who.fenced = flags & 4;
    if (flags & 8) {
        who.takeover = true;
        MUST(make_image(work, &who) == 0);
        who = hosts[0];
    }
    r = mount_or_leave(&s, &who);
    MUST(r == 0 || !(flags & 8));
    if (r == -EBUSY) {
        who.takeover = true;
        r = mount_or_leave(&s, &who);
        MUST(r != -EBUSY);
    }
    if (r == 0)
        use(s);
    return 0;
}
