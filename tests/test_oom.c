/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory runs out at each allocation of the core in turn: a whole job (format, open, commit,
 * snapshot, check, salvage) either goes on or is refused with -ENOMEM, leaks nothing, and what it
 * has acknowledged is there. */
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/salvage.h"
#include "core/store.h"
#include "tests/memdev.h"
#include "tests/testseal.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the allocator: linked with --wrap, so that only the program's own calls count
 * ---------------
 */

static unsigned long calls, failing; /* the failing one; 0: none */
static bool counting;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
int __real_posix_memalign(void **p, size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
int __wrap_posix_memalign(void **p, size_t alignment, size_t n);

static bool
fails(void)
{
    return counting && ++calls == failing;
}

void *
__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

char *
__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

int
__wrap_posix_memalign(void **p, size_t alignment, size_t n)
{
    return fails() ? ENOMEM : __real_posix_memalign(p, alignment, n);
}

/* ---- the job -----------------------------------------------------------------------------------
 */

enum { CONTENT = 3000 };
static const uint64_t volume_key = 0xfeed, user_key = 0xbeef;
static const struct slot_class classes[] = {{5, 4096}, {2, 16384}};

struct job {
    const uint64_t *key; /* NULL: not sealed */
    unsigned long last;  /* calls of the last run */
    unsigned refusals;
    uint8_t shown; /* acknowledged last for "a"; 0: nothing */
    uint8_t tried; /* the last one that was not */
};

/* Only a lack of memory excuses. */
static bool
done(struct job *j, int r)
{
    if (r == 0)
        return true;
    assert_int_equal(r, -ENOMEM);
    j->refusals++;
    return false;
}

/* The double's own allocation may not fail, but in its place this may. */
static int
unlock(void *arg, const struct superblock *sb, struct sealer **out)
{
    bool was = counting;
    int r = fails() ? -ENOMEM : 0;

    counting = false;
    if (r == 0)
        r = testseal_unlock(arg, sb, out);
    counting = was;
    return r;
}

static int
open_image(struct job *j, struct dev *d, struct store **s)
{
    const struct store_options opt = {.unlock = unlock, .unlock_arg = (void *)(uintptr_t)j->key};

    return store_open(s, d, &opt);
}

static int
put_content(struct store *s, const char *name, uint8_t value)
{
    uint8_t data[CONTENT];
    struct change c = {
        .op = CHANGE_FILE, .name = name, .has_content = true, .data = data, .len = sizeof data};
    struct entry e;
    int r = store_find(s, name, &e);

    memset(data, value, sizeof data);
    if (r == 0) {
        c.id = e.id;
        c.slot = e.slot;
        store_slot_hold(s, c.slot);
    } else {
        c.id = store_new_id(s);
        r = store_slot_take(s, sizeof data, name, &c.slot);
        if (r < 0)
            return r;
    }
    r = store_commit(s, &c, 1, NULL);
    store_slot_drop(s, c.slot);
    return r;
}

static void
put_a(struct job *j, struct store *s, uint8_t value)
{
    j->tried = value;
    if (done(j, put_content(s, "a", value)))
        j->shown = value;
}

static void
rename_b_to_c(struct job *j, struct store *s)
{
    struct change c = {.op = CHANGE_RENAME, .name = "c"};
    struct entry e;

    if (store_find(s, "b", &e) != 0)
        return;
    c.id = e.id;
    done(j, store_commit(s, &c, 1, NULL));
}

static void
take_snapshot(struct job *j, struct store *s)
{
    struct snapshot *sn = NULL;

    if (done(j, store_snapshot(s, &sn)))
        snapshot_put(sn);
}

static void
count_finding(void *arg, int r, const char *where, const char *text)
{
    (void)where;
    (void)text;
    if (r < 0 && r != -ENOMEM)
        ++*(unsigned *)arg;
}

static int
ignore_content(void *arg, const struct salvaged *sv, const uint8_t *data)
{
    (void)arg;
    (void)sv;
    (void)data;
    return 0;
}

static void
look(struct job *j, struct dev *d)
{
    struct check_result res;
    unsigned found = 0, lost = 0, findings = 0;
    void *key = (void *)(uintptr_t)j->key;

    done(j, check_image(d, unlock, key, count_finding, &findings, &res));
    assert_int_equal(findings, 0);
    done(j, store_salvage(d, unlock, key, ignore_content, NULL, &found, &lost));
}

/* What was acknowledged is there, once there is memory again. */
static void
verify(struct job *j, struct dev *d)
{
    struct store *s = NULL;
    struct entry e;
    uint8_t data[CONTENT];

    assert_int_equal(open_image(j, d, &s), 0);
    if (store_find(s, "a", &e) != 0) {
        assert_int_equal(j->shown, 0);
    } else {
        assert_int_equal(e.current.length, CONTENT);
        assert_int_equal(store_read(s, &e.current, data), 0);
        assert_true(data[0] == j->shown || data[0] == j->tried);
    }
    store_close(s);
}

static void
change_and_look(struct job *j, struct store *s)
{
    put_a(j, s, 1);
    done(j, put_content(s, "b", 2));
    put_a(j, s, 3);
    rename_b_to_c(j, s);
    put_a(j, s, 4);
    take_snapshot(j, s);
    done(j, store_settle(s));
    store_close(s);
}

static void
work(struct job *j, const struct format_spec *spec, struct sealer *sealer, void *bytes,
     uint64_t size)
{
    struct dev *d = memdev_new(bytes, size), *again = memdev_new(bytes, size);
    struct store *s = NULL;
    bool formatted;

    counting = true;
    formatted = done(j, store_format(d, spec, sealer));
    if (formatted && done(j, open_image(j, d, &s)))
        change_and_look(j, s);
    else
        dev_close(d);
    if (formatted)
        look(j, again);
    counting = false;
    if (formatted)
        verify(j, again);
    else
        dev_close(again);
}

/* Fails the first, the second, ... allocation, until a job has fewer. */
static void
run_all(const uint64_t *key)
{
    unsigned long refused = 0, n = 0;

    for (bool reached = true; reached; n++) {
        AUTO(sealer_freep)
        struct sealer *sealer = key ? testseal_keyed(volume_key) : testseal_plain();
        struct format_spec spec = {.classes = classes, .n_classes = 2, .uuid = {1}};
        struct job j = {.key = key};
        struct superblock sb;
        AUTO_FREE void *bytes = NULL;

        if (key) {
            spec.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
            spec.key_size = 32;
            testseal_keyslots(volume_key, user_key, spec.keyslots);
        }
        assert_int_equal(store_layout(&sb, &spec, NULL), 0);
        calls = 0;
        failing = n; /* none in the first run, which must be without a refusal */
        bytes = calloc(1, sb.image_size);
        assert_non_null(bytes);
        work(&j, &spec, sealer, bytes, sb.image_size);
        assert_true(n > 0 || j.refusals == 0);
        reached = n == 0 || calls >= n;
        refused += j.refusals != 0;
    }
    assert_true(refused > 20);
    print_message("# %lu allocations failed, %lu runs refused something\n", n - 2, refused);
}

/* ---- keys --------------------------------------------------------------------------------------
 */

static const uint64_t new_user_key = 0xcafe, new_volume_key = 0xf00d;
static char said[2048]; /* all that was reported */

static void
silent(void *arg, enum report_level level, const char *line)
{
    size_t n = strlen(said);

    (void)arg;
    (void)level;
    snprintf(said + n, sizeof said - n, "%s\n", line);
}

/* A sealed image that holds @value as "a". */
static void *
sealed_image(uint64_t *size, uint8_t value)
{
    AUTO(sealer_freep) struct sealer *sealer = testseal_keyed(volume_key);
    struct format_spec spec = {.classes = classes,
                               .n_classes = 2,
                               .uuid = {1},
                               .seal_mode = SEAL_AES_CBC_HMAC_SHA256,
                               .key_size = 32};
    struct job j = {.key = &user_key};
    struct superblock sb;
    struct dev *d;
    struct store *s;
    void *bytes;

    testseal_keyslots(volume_key, user_key, spec.keyslots);
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    *size = sb.image_size;
    bytes = calloc(1, sb.image_size);
    assert_non_null(bytes);
    d = memdev_new(bytes, sb.image_size);
    assert_int_equal(store_format(d, &spec, sealer), 0);
    assert_int_equal(open_image(&j, d, &s), 0);
    assert_int_equal(put_content(s, "a", value), 0);
    assert_int_equal(put_content(s, "a", value + 1), 0);
    store_close(s);
    return bytes;
}

/* Changes the key slots, or all, to the new keys, while an allocation fails. */
static int
change_keys(void *bytes, uint64_t size, bool reseal)
{
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];
    struct sealer *sealer = reseal ? testseal_keyed(new_volume_key) : NULL;
    struct job j = {.key = &user_key};
    struct store *s;
    int r;

    assert_int_equal(open_image(&j, memdev_new(bytes, size), &s), 0);
    testseal_keyslots(reseal ? new_volume_key : volume_key, new_user_key, keyslots);
    said[0] = '\0';
    counting = true;
    r = reseal ? store_reseal(s, sealer, keyslots, 32) : store_set_keyslots(s, keyslots);
    counting = false;
    store_close(s);
    return r;
}

static bool
opens_with(const void *bytes, uint64_t size, const uint64_t *key, uint8_t value)
{
    AUTO_FREE void *copy = malloc(size);
    struct job j = {.key = key, .shown = value, .tried = value};
    struct check_result res;
    struct store *s;
    struct dev *d;
    unsigned findings = 0;

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    d = memdev_new(copy, size);
    if (open_image(&j, d, &s) < 0) {
        dev_close(d);
        return false;
    }
    store_close(s);
    verify(&j, memdev_new(copy, size));
    d = memdev_new(copy, size);
    assert_int_equal(check_image(d, unlock, (void *)(uintptr_t)key, count_finding, &findings, &res),
                     0);
    dev_close(d);
    return true;
}

/* One key or the other counts, never none, and what is said about it is true. */
static void
no_lack_of_memory_leaves_it_open_which_keys_count(void **state)
{
    (void)state;
    for (int reseal = 0; reseal < 2; reseal++) {
        unsigned unchanged = 0, changed = 0;
        bool reached = true;

        for (failing = 1; reached; failing++) {
            uint64_t size;
            AUTO_FREE void *bytes = sealed_image(&size, 7);
            bool old, new;
            int r;

            calls = 0;
            r = change_keys(bytes, size, reseal);
            reached = calls >= failing;
            assert_true(r == 0 || r == -ENOMEM);
            old = opens_with(bytes, size, &user_key, 8);
            new = opens_with(bytes, size, &new_user_key, 8);
            assert_int_not_equal(old, new);
            assert_true(r < 0 || new);
            assert_true(reseal || r == 0 || old);
            if (r < 0)
                assert_non_null(strstr(said, old ? "the keys are as they were" : "resealed, but"));
            unchanged += old;
            changed += new;
        }
        assert_true(unchanged >= 1);
        assert_true(changed >= 2); /* without a failure, and with one that came too late */
    }
}

/* ---- a touch -----------------------------------------------------------------------------------
 */

static enum dev_news news; /* what the next commit is told */

static enum dev_news
tell_news(struct dev *d)
{
    enum dev_news told = news;

    (void)d;
    news = DEV_NO_NEWS;
    return told;
}

static void
end_commit(struct dev *d)
{
    (void)d;
}

static struct dev *
touched_device(void *bytes, uint64_t size)
{
    static struct dev_ops ops;
    struct dev *d = memdev_new(bytes, size);

    ops = *d->ops;
    ops.begin = tell_news;
    ops.end = end_commit;
    d->ops = &ops;
    return d;
}

/* What a commit, or a settle, of a touched image returns, while an allocation fails. */
static int
change_touched(struct store *s, enum dev_news told, bool settle)
{
    int r;

    news = told;
    calls = 0;
    counting = true;
    r = settle ? store_settle(s) : put_content(s, "a", 9);
    counting = false;
    return r;
}

static bool
try_touched(enum dev_news told, bool settle, bool by_another)
{
    uint64_t size;
    AUTO_FREE void *bytes = sealed_image(&size, 7), *others = sealed_image(&size, 20);
    struct job j = {.key = &user_key, .shown = 9, .tried = 9};
    struct store_info info;
    struct store *s;
    int r;

    assert_int_equal(open_image(&j, touched_device(bytes, size), &s), 0);
    assert_int_equal(put_content(s, "b", 1), 0); /* so that there is something to settle */
    if (by_another)
        memcpy(bytes, others, size);
    r = change_touched(s, told, settle);
    assert_true(r == -ENOMEM || r == (by_another ? -EROFS : 0));
    store_get_info(s, &info);
    assert_int_equal(info.read_only, r == -EROFS ? -EUCLEAN : 0);
    assert_int_equal(put_content(s, "a", 9), by_another ? -EROFS : 0);
    store_close(s);
    if (by_another)
        assert_memory_equal(bytes, others, size);
    else
        verify(&j, memdev_new(bytes, size));
    return calls >= failing;
}

static void
no_lack_of_memory_hides_whose_a_touched_image_is(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool reached = true;

        for (failing = 1; reached; failing++)
            reached = try_touched(i & 1 ? DEV_TOUCHED : DEV_UNKNOWN, i & 2, i & 4);
        assert_true(failing > 4);
    }
}

/* ---- growth ------------------------------------------------------------------------------------
 */

/* Grows the image by @n slots, so many that its directories move, while an allocation fails. */
static int
grow(void *bytes, uint64_t size, uint32_t n)
{
    const struct slot_class more = {n, 4096};
    struct job j = {.key = &user_key};
    struct store *s;
    int r;

    assert_int_equal(open_image(&j, memdev_new(bytes, size), &s), 0);
    said[0] = '\0';
    counting = true;
    r = store_grow(s, &more, 1);
    counting = false;
    store_close(s);
    return r;
}

static uint32_t
slots_of(void *bytes, uint64_t size)
{
    struct job j = {.key = &user_key};
    struct store_info info;
    struct store *s;

    assert_int_equal(open_image(&j, memdev_new(bytes, size), &s), 0);
    store_get_info(s, &info);
    store_close(s);
    return info.slots_total;
}

/* It is as it was, or has grown, and says the one or the other. */
static void
no_lack_of_memory_leaves_an_image_half_grown(void **state)
{
    enum { MORE = 60, ROOM = 2 * 1024 * 1024 };
    unsigned unchanged = 0, changed = 0;
    bool reached = true;

    (void)state;
    for (failing = 1; reached; failing++) {
        uint64_t size;
        AUTO_FREE uint8_t *bytes = sealed_image(&size, 7);
        uint32_t before = slots_of(bytes, size), after;
        int r;

        bytes = realloc(bytes, size + ROOM);
        assert_non_null(bytes);
        memset(bytes + size, 0x55, ROOM);
        size += ROOM;
        calls = 0;
        r = grow(bytes, size, MORE);
        reached = calls >= failing;
        after = slots_of(bytes, size);
        assert_true(r == 0 || r == -ENOMEM);
        assert_int_equal(after, before + (r == 0 ? MORE : 0));
        if (r < 0)
            assert_non_null(strstr(said, "it has not grown"));
        assert_memory_equal(bytes + SUPERBLOCK_A, bytes + SUPERBLOCK_B, BLOCK_SIZE);
        assert_true(opens_with(bytes, size, &user_key, 8));
        unchanged += r < 0;
        changed += r == 0;
    }
    assert_true(unchanged >= 1);
    assert_true(changed >= 2); /* without a failure, and with one that came too late */
}

static void
every_allocation_of_an_unsealed_image_may_fail(void **state)
{
    (void)state;
    run_all(NULL);
}

static void
every_allocation_of_a_sealed_image_may_fail(void **state)
{
    (void)state;
    run_all(&user_key);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_an_unsealed_image_may_fail),
        cmocka_unit_test(every_allocation_of_a_sealed_image_may_fail),
        cmocka_unit_test(no_lack_of_memory_leaves_it_open_which_keys_count),
        cmocka_unit_test(no_lack_of_memory_hides_whose_a_touched_image_is),
        cmocka_unit_test(no_lack_of_memory_leaves_an_image_half_grown),
    };

    report_set_sink(silent, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
