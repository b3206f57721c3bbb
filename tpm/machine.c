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
enum { MOVE_WAIT_MS = 3000, RETRY_MS = 10 };

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

/* ---- where the files are -----------------------------------------------------------------------
 */

static void
forget_given(struct machine *m)
{
    for (int i = 0; i < NVRAM_ITEMS; i++) {
        if (m->given[i].data)
            explicit_bzero(m->given[i].data, m->given[i].len);
        free(steal(&m->given[i].data));
        m->given[i].len = 0;
    }
}

/* As if they had not come. */
static void
give_up(struct machine *m)
{
    nvram_detach(m->nvram);
    if (m->move(m->move_arg, TPM_GIVE_UP, 0) == 0)
        m->place = MACHINE_INCOMING;
    m->has_come = m->place == MACHINE_HERE;
}

static int
take_files(struct machine *m, unsigned wait_ms)
{
    int r;

    if (m->place == MACHINE_HERE)
        return 0;
    r = m->move(m->move_arg, TPM_TAKE, wait_ms);
    if (r < 0 || m->place == MACHINE_RELEASED) {
        m->place = r < 0 ? m->place : MACHINE_HERE;
        return r;
    }
    m->place = MACHINE_HERE;
    m->has_come = true;
    r = nvram_attach(m->nvram);
    if (r == 0)
        r = nvram_lock(m->nvram);
    if (r < 0)
        give_up(m);
    return r;
}

/* Before anything that may store.  What was let go is taken back when a client goes on with it; who
 * waits for a machine does nothing before that comes. */
static int
need_files(struct machine *m)
{
    if (m->place == MACHINE_INCOMING)
        return report(-EROFS, "it waits for the state of a machine that is to come");
    return take_files(m, MOVE_WAIT_MS);
}

int
machine_power_on(struct machine *m, bool keep_volatile)
{
    int r = need_files(m);

    if (r == 0)
        r = nvram_lock(m->nvram); /* it is held already, unless give_up() failed half-way */
    if (r == 0)
        r = engine_start(m->version, m->nvram, keep_volatile);
    m->on = r == 0;
    m->has_come &= !m->on;
    return r;
}

int
machine_power_off(struct machine *m)
{
    int r = 0;

    drop_blob(m);
    if (m->on && m->place == MACHINE_HERE)
        r = engine_shutdown(m->is_controlled);
    if (m->on)
        engine_stop();
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

    if (m->on && need_files(m) < 0)
        return engine_refuse(m->version == TPM_VERSION_2_0 ? RC_FAILURE : FAIL_1_2, resp);
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
    bool cancels = m->version == TPM_VERSION_2_0; /* libtpms' other one does not */
    uint8_t *p = reply(q, WIRE_OK, 8);

    if (p)
        store_be32(p + RESULT, WIRE_CAPABILITIES & ~(cancels ? 0U : WIRE_CAPABILITY_CANCEL));
}

/* What was given must be what is there; or nothing is there, on an image of the target's own.
 * Another state may be a newer one, and is not written over. */
static int
settle_given(struct machine *m, enum nvram_item item)
{
    const struct given_blob *g = &m->given[item];
    AUTO_FREE uint8_t *blob = NULL;
    size_t len = 0;
    int r = g->data ? nvram_has(m->nvram, item) : 1;

    if (r == 0 && item == NVRAM_PERMALL)
        r = engine_set_permanent(g->data, g->len);
    if (r == 0)
        return nvram_store(m->nvram, item, g->data, g->len);
    if (r < 0 || !g->data)
        return r < 0 ? r : 0;
    r = nvram_load(m->nvram, item, &blob, &len);
    if (r == 0 && (len != g->len || memcmp(blob, g->data, len) != 0))
        r = report(-ESTALE, "the state that was set is not the one that the image holds");
    if (blob)
        explicit_bzero(blob, len);
    return r;
}

/* Until INIT: a client may have LOCK_STORAGE bring the files before that. */
static bool
is_coming(const struct machine *m)
{
    bool given = m->has_come;

    for (int i = 0; i < NVRAM_ITEMS; i++)
        given |= m->given[i].data != NULL;
    return given || m->place == MACHINE_INCOMING;
}

/* The machine has come: its files are taken, and nothing is written to them before the TPM runs, so
 * that the source can take them back if it does not. */
static int
come(struct machine *m)
{
    int r = m->place != MACHINE_INCOMING || m->given[NVRAM_PERMALL].data
                ? take_files(m, MOVE_WAIT_MS)
                : report(-EROFS, "it waits for the state of a machine, and none was set");

    if (r < 0)
        return r;
    r = settle_given(m, NVRAM_PERMALL);
    if (r == 0)
        r = settle_given(m, NVRAM_SAVESTATE);
    if (r == 0)
        engine_give_volatile(m->given[NVRAM_VOLATILE].data, m->given[NVRAM_VOLATILE].len);
    if (r == 0)
        r = machine_power_on(m, true);
    if (r < 0)
        give_up(m);
    forget_given(m);
    return r;
}

/* A TPM that runs is shut down in order first.  That it could not be is no reason not to start. */
static void
do_init(struct machine *m, struct request *q)
{
    bool delete_it = load_be32(q->body) & WIRE_DELETE_VOLATILE;
    int r;

    machine_power_off(m);
    r = is_coming(m) ? come(m) : machine_power_on(m, true);
    if (r == 0 && delete_it)
        r = engine_forget_volatile(false);
    if (r == 0)
        reply_result(q, WIRE_OK);
    else if (nvram_failure(m->nvram) || r == -EIO || m->place != MACHINE_HERE)
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

/* Unless it was let go, or is yet to come, it is held from the start on. */
static void
do_lock_storage(struct machine *m, struct request *q)
{
    uint32_t retries = load_be32(q->body);
    unsigned most = TPM_MOVE_MAX_MS / RETRY_MS;
    int r = take_files(m, (retries < most ? retries : most) * RETRY_MS);

    reply_result(q, result_of(r < 0 ? r : nvram_lock(m->nvram)));
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

/* Who has all blobs has the machine, and may go on with it elsewhere on the same image: whatever
 * the TPM may still want to store, it is not done here any more. */
static void
let_go(struct machine *m, uint32_t type, struct request *q)
{
    int r;

    if (type != BLOB_SAVESTATE || m->place != MACHINE_HERE || !m->move)
        return;
    r = m->move(m->move_arg, TPM_RELEASE, 0);
    if (r < 0)
        reply(q, WIRE_IO_ERROR, STATE_HEAD);
    else
        m->place = MACHINE_RELEASED;
}

/* Later parts are of the blob of which the first part was taken. */
static void
get_stateblob(struct machine *m, struct request *q)
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

static void
do_get_stateblob(struct machine *m, struct request *q)
{
    get_stateblob(m, q);
    if (q->reply && load_be32(q->reply) != WIRE_IO_ERROR)
        let_go(m, load_be32(q->body + 4), q);
}

/* Until INIT, when the files can be had. */
static uint32_t
keep_given(struct machine *m, enum nvram_item item, const uint8_t *blob, size_t len)
{
    struct given_blob *g = &m->given[item];
    uint8_t *copy = len ? malloc(len) : NULL;

    if (!copy)
        return len ? WIRE_IO_ERROR : WIRE_BAD_BODY;
    memcpy(copy, blob, len);
    if (g->data)
        explicit_bzero(g->data, g->len);
    free(g->data);
    *g = (struct given_blob){copy, len};
    return WIRE_OK;
}

/* A permanent state must be one that libtpms takes before it may replace the one that is there; of
 * the others only the TPM's start can tell. */
static uint32_t
set_blob(struct machine *m, enum nvram_item item, const uint8_t *buf, size_t len)
{
    const uint8_t *blob;
    size_t blob_len;
    int r = envelope_decode_migration(buf, len, "the state to be set", &blob, &blob_len);

    if (r == 0 && is_coming(m))
        return keep_given(m, item, blob, blob_len);
    if (r == 0 && need_files(m) < 0)
        return WIRE_IO_ERROR;
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

enum when {
    ANY,
    RUNNING,
    CHANGES, /* running, and it may store: its files must be here */
    STOPPED
};

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
    [WIRE_HASH_START] = {do_hash_start, CHANGES},
    [WIRE_HASH_DATA] = {do_hash_data, CHANGES},
    [WIRE_HASH_END] = {do_hash_end, CHANGES},
    [WIRE_STORE_VOLATILE] = {do_store_volatile, CHANGES},
    [WIRE_RESET_ESTABLISHED] = {do_reset_established, CHANGES},
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
    return rows[code].when == ANY || (rows[code].when != STOPPED) == m->on;
}

void
machine_request(struct machine *m, uint32_t code, const uint8_t *body, size_t len, uint8_t **out,
                size_t *out_len)
{
    struct request q = {.body = body, .len = len};

    if (!may_run(m, code))
        reply_result(&q, WIRE_WRONG_STATE);
    else if (rows[code].when == CHANGES && need_files(m) < 0)
        reply_result(&q, WIRE_IO_ERROR);
    else
        rows[code].run(m, &q);
    *out = q.reply;
    *out_len = q.reply_len;
}
