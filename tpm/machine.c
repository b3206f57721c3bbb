/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/machine.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/envelope.h"
#include "tpm/wire.h"
#include <errno.h>
#include <string.h>

enum { RESULT = 4, INFO_HEAD = 12, INFO_MAX = 3072, STATE_HEAD = 16 };
enum { RC_LOCALITY = 0x107, BAD_LOCALITY_1_2 = 0x3d, RC_FAILURE = 0x101, FAIL_1_2 = 9 };
enum { BLOB_PERMANENT = 1, BLOB_VOLATILE, BLOB_SAVESTATE };

struct request {
    const uint8_t *body;
    size_t len;
    uint8_t *reply;
    size_t reply_len;
};

/* ---- replies --------------------------------------------------------------------------------- */

/* A reply of @len bytes that starts with @result; the others are zero for the caller to fill. */
static uint8_t *
reply(struct request *q, uint32_t result, size_t len)
{
    free(q->reply);
    q->reply = calloc(1, len);
    q->reply_len = q->reply ? len : 0;
    if (q->reply)
        store_be32(q->reply, result);
    return q->reply;
}

static void
reply_result(struct request *q, uint32_t result)
{
    reply(q, result, RESULT);
}

static uint32_t
result_of(int r)
{
    return r < 0 ? WIRE_IO_ERROR : WIRE_OK;
}

/* ---- power ----------------------------------------------------------------------------------- */

static void
drop_blob(struct machine *m)
{
    if (m->blob)
        explicit_bzero(m->blob, m->blob_len);
    free(steal(&m->blob));
    m->blob_type = 0;
    m->blob_len = 0;
}

int
machine_power_on(struct machine *m, bool keep_volatile)
{
    int r = engine_start(m->version, m->nvram, keep_volatile);

    m->on = r == 0;
    return r;
}

int
machine_power_off(struct machine *m)
{
    int r = 0;

    drop_blob(m);
    if (m->on) {
        r = engine_shutdown(m->is_controlled);
        engine_stop();
    }
    m->on = false;
    return r;
}

/* ---- TPM commands ------------------------------------------------------------------------------
 */

static bool
locality_is_good(const struct machine *m, int locality)
{
    return locality < WIRE_LOCALITIES && !(locality == 4 && m->reject_locality_4);
}

size_t
machine_command(struct machine *m, int locality, const uint8_t *cmd, size_t len, uint8_t *resp)
{
    size_t n;

    if (locality < 0)
        locality = m->locality;
    if (!locality_is_good(m, locality))
        return engine_refuse(m->version == TPM_VERSION_2_0 ? RC_LOCALITY : BAD_LOCALITY_1_2, resp);
    engine_set_locality(locality);
    n = engine_process(cmd, len, resp);
    engine_set_locality(m->locality);
    return n;
}

/* ---- requests --------------------------------------------------------------------------------
 */

static void
do_get_capability(struct machine *m, struct request *q)
{
    uint8_t *p = reply(q, WIRE_OK, 8);

    (void)m;
    if (p)
        store_be32(p + RESULT, WIRE_CAPABILITIES);
}

/* A TPM that runs is shut down in order first.  That it could not be is no reason not to start. */
static void
do_init(struct machine *m, struct request *q)
{
    bool delete_it = load_be32(q->body) & WIRE_DELETE_VOLATILE;
    int r;

    machine_power_off(m);
    r = machine_power_on(m, true);
    if (r == 0 && delete_it)
        r = engine_forget_volatile(false);
    if (r == 0)
        reply_result(q, WIRE_OK);
    else if (nvram_failure(m->nvram) || r == -EIO)
        reply_result(q, WIRE_IO_ERROR);
    else
        reply_result(q, m->version == TPM_VERSION_2_0 ? RC_FAILURE : FAIL_1_2);
}

static void
do_stop(struct machine *m, struct request *q)
{
    machine_power_off(m);
    reply_result(q, WIRE_OK);
}

static void
do_shutdown(struct machine *m, struct request *q)
{
    reply_result(q, result_of(machine_power_off(m)));
}

static void
do_get_established(struct machine *m, struct request *q)
{
    bool bit = false;
    uint32_t rc = engine_get_established(&bit);
    uint8_t *p = reply(q, rc, 8);

    (void)m;
    if (p)
        p[RESULT] = bit;
}

static void
do_reset_established(struct machine *m, struct request *q)
{
    if (!locality_is_good(m, q->body[0])) {
        reply_result(q, WIRE_BAD_LOCALITY);
        return;
    }
    engine_set_locality(q->body[0]);
    reply_result(q, engine_reset_established());
    engine_set_locality(m->locality);
}

static void
do_set_locality(struct machine *m, struct request *q)
{
    if (!locality_is_good(m, q->body[0])) {
        reply_result(q, WIRE_BAD_LOCALITY);
        return;
    }
    m->locality = q->body[0];
    engine_set_locality(m->locality);
    reply_result(q, WIRE_OK);
}

static void
do_hash_start(struct machine *m, struct request *q)
{
    (void)m;
    reply_result(q, engine_hash_start());
}

static void
do_hash_data(struct machine *m, struct request *q)
{
    (void)m;
    reply_result(q, engine_hash_data(q->body + 4, q->len - 4));
}

static void
do_hash_end(struct machine *m, struct request *q)
{
    (void)m;
    reply_result(q, engine_hash_end());
}

static void
do_store_volatile(struct machine *m, struct request *q)
{
    (void)m;
    reply_result(q, result_of(engine_store_volatile()));
}

static void
do_get_config(struct machine *m, struct request *q)
{
    (void)m;
    reply(q, WIRE_OK, 8); /* no keys of swtpm's kind */
}

static void
do_set_buffersize(struct machine *m, struct request *q)
{
    uint32_t wanted = load_be32(q->body), now, min, max;
    uint8_t *p;

    if (wanted && m->on) {
        reply_result(q, WIRE_WRONG_STATE);
        return;
    }
    now = engine_buffer_size(wanted, &min, &max);
    p = reply(q, WIRE_OK, 16);
    if (!p)
        return;
    store_be32(p + 4, now);
    store_be32(p + 8, min);
    store_be32(p + 12, max);
}

/* With its NUL, as swtpm's. */
static void
do_get_info(struct machine *m, struct request *q)
{
    AUTO_FREE char *json = engine_info(load_be32(q->body + 4));
    uint32_t off = load_be32(q->body + 8);
    size_t total = json ? strlen(json) + 1 : 0, n;
    uint8_t *p;

    (void)m;
    if (!json || off >= total) {
        reply_result(q, json ? WIRE_BAD_BODY : WIRE_IO_ERROR);
        return;
    }
    n = total - off < INFO_MAX ? total - off : INFO_MAX;
    p = reply(q, WIRE_OK, INFO_HEAD + n);
    if (!p)
        return;
    store_be32(p + 4, (uint32_t)total);
    store_be32(p + 8, (uint32_t)n);
    memcpy(p + INFO_HEAD, json + off, n);
}

/* It is held from the start on, so there is nothing to wait for. */
static void
do_lock_storage(struct machine *m, struct request *q)
{
    reply_result(q, result_of(nvram_lock(m->nvram)));
}

/* ---- state blobs -------------------------------------------------------------------------------
 */

static enum nvram_item
item_of(uint32_t type)
{
    switch (type) {
    case BLOB_PERMANENT:
        return NVRAM_PERMALL;
    case BLOB_VOLATILE:
        return NVRAM_VOLATILE;
    case BLOB_SAVESTATE:
        return NVRAM_SAVESTATE;
    default:
        return NVRAM_ITEMS;
    }
}

/* -ENOENT, unreported: there is none. */
static int
fetch_blob(struct machine *m, uint32_t type)
{
    AUTO_FREE uint8_t *plain = NULL;
    size_t len = 0;
    int r;

    drop_blob(m);
    if (item_of(type) == NVRAM_ITEMS)
        return -ENOENT;
    if (type == BLOB_VOLATILE)
        r = engine_get_volatile(&plain, &len);
    else
        r = nvram_load(m->nvram, item_of(type), &plain, &len);
    if (r < 0)
        return r;
    m->blob = malloc(ENVELOPE_MIGRATION_SIZE + len);
    if (m->blob) {
        envelope_encode_migration(m->blob, (uint32_t)len);
        memcpy(m->blob + ENVELOPE_MIGRATION_SIZE, plain, len);
        m->blob_len = ENVELOPE_MIGRATION_SIZE + len;
        m->blob_type = type;
    }
    explicit_bzero(plain, len);
    return m->blob ? 0 : report(-ENOMEM, "no memory for a state blob");
}

/* Later parts are of the blob of which the first part was taken. */
static void
do_get_stateblob(struct machine *m, struct request *q)
{
    uint32_t type = load_be32(q->body + 4), off = load_be32(q->body + 8);
    size_t left;
    uint8_t *p;
    int r = 0;

    if (off == 0 || type != m->blob_type)
        r = fetch_blob(m, type);
    if (r < 0) {
        reply(q, r == -ENOENT ? WIRE_NO_BLOB : WIRE_IO_ERROR, STATE_HEAD);
        return;
    }
    left = off < m->blob_len ? m->blob_len - off : 0;
    p = reply(q, WIRE_OK, STATE_HEAD + left);
    if (!p)
        return;
    store_be32(p + 8, (uint32_t)left);
    store_be32(p + 12, (uint32_t)left);
    if (left)
        memcpy(p + STATE_HEAD, m->blob + off, left);
}

/* A permanent state must be one that libtpms takes before it may replace the one that is there; of
 * the others only the TPM's start can tell. */
static uint32_t
set_blob(struct machine *m, enum nvram_item item, const uint8_t *buf, size_t len)
{
    const uint8_t *blob;
    size_t blob_len;
    int r = envelope_decode_migration(buf, len, "the state to be set", &blob, &blob_len);

    if (r == 0 && item == NVRAM_PERMALL)
        r = engine_set_permanent(blob, blob_len);
    if (r < 0)
        return WIRE_BAD_BODY;
    return result_of(nvram_store(m->nvram, item, blob, blob_len));
}

static void
do_set_stateblob(struct machine *m, struct request *q)
{
    uint32_t flags = load_be32(q->body);
    enum nvram_item item = item_of(load_be32(q->body + 4));

    if (item == NVRAM_ITEMS || flags & WIRE_STATE_ENCRYPTED)
        reply_result(q, WIRE_BAD_BODY);
    else
        reply_result(q, set_blob(m, item, q->body + 12, q->len - 12));
}

/* ---- the table ---------------------------------------------------------------------------------
 */

enum when { ANY, RUNNING, STOPPED };

struct request_row {
    void (*run)(struct machine *m, struct request *q);
    enum when when;
};

/* CANCEL and SET_DATAFD never come here: they are the listener's own. */
static const struct request_row rows[] = {
    [WIRE_GET_CAPABILITY] = {do_get_capability, ANY},
    [WIRE_INIT] = {do_init, ANY},
    [WIRE_SHUTDOWN] = {do_shutdown, ANY},
    [WIRE_GET_ESTABLISHED] = {do_get_established, RUNNING},
    [WIRE_SET_LOCALITY] = {do_set_locality, ANY},
    [WIRE_HASH_START] = {do_hash_start, RUNNING},
    [WIRE_HASH_DATA] = {do_hash_data, RUNNING},
    [WIRE_HASH_END] = {do_hash_end, RUNNING},
    [WIRE_STORE_VOLATILE] = {do_store_volatile, RUNNING},
    [WIRE_RESET_ESTABLISHED] = {do_reset_established, RUNNING},
    [WIRE_GET_STATEBLOB] = {do_get_stateblob, RUNNING},
    [WIRE_SET_STATEBLOB] = {do_set_stateblob, STOPPED},
    [WIRE_STOP] = {do_stop, ANY},
    [WIRE_GET_CONFIG] = {do_get_config, ANY},
    [WIRE_SET_BUFFERSIZE] = {do_set_buffersize, ANY},
    [WIRE_GET_INFO] = {do_get_info, ANY},
    [WIRE_LOCK_STORAGE] = {do_lock_storage, ANY},
};

static bool
may_run(const struct machine *m, uint32_t code)
{
    if (code >= sizeof rows / sizeof *rows || !rows[code].run)
        return false;
    return rows[code].when == ANY || (rows[code].when == RUNNING) == m->on;
}

void
machine_request(struct machine *m, uint32_t code, const uint8_t *body, size_t len, uint8_t **out,
                size_t *out_len)
{
    struct request q = {.body = body, .len = len};

    if (may_run(m, code))
        rows[code].run(m, &q);
    else
        reply_result(&q, WIRE_WRONG_STATE);
    *out = q.reply;
    *out_len = q.reply_len;
}
