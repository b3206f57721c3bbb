/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/kdf.h"
#include "base/clock.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>

enum {
    BENCH_MIN = 64 * 1024, /* KiB */
    BENCH_MAX = 256 * 1024,
    BENCH_PASSES = 3, /* RFC 9106's choice where memory is limited */
    BENCH_MS = 500,
};

bool
kdf_cost_ok(const struct kdf_cost *c)
{
    return c->lanes >= 1 && c->lanes <= KDF_LANES_MAX && c->passes >= 1 &&
           c->passes <= KDF_PASSES_MAX && c->memory >= KDF_MEMORY_MIN &&
           c->memory <= KDF_MEMORY_MAX && (uint64_t)c->memory * c->passes <= KDF_WORK_MAX;
}

/* The library cuts the work into a job per lane and leaves the threads to us. */
struct lane_job {
    gcry_kdf_job_fn_t fn;
    void *priv;
    pthread_t thread;
};

struct lanes {
    struct lane_job job[KDF_LANES_MAX];
    unsigned n;
};

static void *
run_lane(void *arg)
{
    struct lane_job *job = arg;

    job->fn(job->priv);
    return NULL;
}

static int
dispatch_lane(void *arg, gcry_kdf_job_fn_t fn, void *priv)
{
    struct lanes *lanes = arg;

    if (lanes->n < KDF_LANES_MAX) {
        struct lane_job *job = &lanes->job[lanes->n];

        *job = (struct lane_job){.fn = fn, .priv = priv};
        if (pthread_create(&job->thread, NULL, run_lane, job) == 0) {
            lanes->n++;
            return 0;
        }
    }
    fn(priv); /* no thread to be had: slower, not wrong */
    return 0;
}

static int
wait_for_lanes(void *arg)
{
    struct lanes *lanes = arg;

    while (lanes->n > 0)
        pthread_join(lanes->job[--lanes->n].thread, NULL);
    return 0;
}

static void
kdf_closep(gcry_kdf_hd_t *h)
{
    if (*h)
        gcry_kdf_close(*h);
}

int
kdf_argon2id(const struct secret *passphrase, const uint8_t *salt, size_t salt_len,
             const struct kdf_cost *cost, const struct kdf_extra *extra, uint8_t *out,
             size_t out_len)
{
    const unsigned long param[] = {out_len, cost->passes, cost->memory, cost->lanes};
    const struct kdf_extra none = {.secret = NULL};
    AUTO(kdf_closep) gcry_kdf_hd_t h = NULL;
    struct lanes lanes = {.n = 0};
    gcry_kdf_thread_ops_t threads = {&lanes, dispatch_lane, wait_for_lanes};
    gcry_error_t e;

    if (!extra)
        extra = &none;
    e = gcry_kdf_open(&h, GCRY_KDF_ARGON2, GCRY_KDF_ARGON2ID, param, 4, passphrase->bytes,
                      passphrase->len, salt, salt_len, extra->secret, extra->secret_len, extra->ad,
                      extra->ad_len);
    if (e == 0)
        e = gcry_kdf_compute(h, cost->lanes > 1 ? &threads : NULL);
    if (e == 0)
        e = gcry_kdf_final(h, out_len, out);
    if (gcry_err_code(e) == GPG_ERR_ENOMEM)
        return report(-ENOMEM, "Argon2id needs %u MiB of memory", cost->memory / 1024);
    if (e)
        return report(-EINVAL, "Argon2id: %s", gcry_strerror(e));
    return 0;
}

static uint32_t
online_lanes(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > KDF_LANES_MAX ? KDF_LANES_MAX : (uint32_t)n;
}

/* Most KiB that a passphrase may take here: a mount at boot must not meet the OOM killer. */
static uint32_t
memory_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t quarter = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4096 : 0;

    return quarter < BENCH_MIN ? BENCH_MIN : quarter > BENCH_MAX ? BENCH_MAX : (uint32_t)quarter;
}

struct kdf_cost
kdf_default_cost(void)
{
    return (struct kdf_cost){.memory = BENCH_MIN, .passes = BENCH_PASSES, .lanes = online_lanes()};
}

int
kdf_benchmark(struct kdf_cost *cost)
{
    static const uint8_t salt[16] = "benchmark";
    struct kdf_cost c = kdf_default_cost();
    AUTO(secret_freep) struct secret *passphrase = NULL, *key = NULL;
    AUTO_PROGRESS bool shown = progress_started("measuring what a passphrase may cost", 0);
    uint32_t limit = memory_limit();
    uint64_t memory;
    int64_t ms;
    int r;

    if ((r = secret_new(&passphrase, 16)) < 0 || (r = secret_new(&key, 32)) < 0)
        return r;
    ms = clock_ms();
    if ((r = kdf_argon2id(passphrase, salt, sizeof salt, &c, NULL, key->bytes, key->len)) < 0)
        return r;
    ms = clock_ms() - ms;
    if (ms < 1)
        ms = 1;
    /* More memory first, which costs an attacker most; then more passes. */
    memory = (uint64_t)BENCH_MIN * BENCH_MS / (uint64_t)ms;
    c.memory = memory < BENCH_MIN ? BENCH_MIN : memory > limit ? limit : (uint32_t)memory;
    c.passes = (uint32_t)(memory * BENCH_PASSES / c.memory);
    if (c.passes < BENCH_PASSES)
        c.passes = BENCH_PASSES;
    while (!kdf_cost_ok(&c))
        c.passes--;
    *cost = c;
    return 0;
}
