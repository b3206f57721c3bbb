/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/engine.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include <assert.h>
#include <errno.h>
#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_tis.h>
#include <string.h>

enum { HEADER_SIZE = 10, OFF_SIZE = 2, OFF_CODE = 6, STARTUP_SIZE = 12, OFF_TYPE = 10 };

enum {
    TAG_COMMAND_1_2 = 0x00c1,
    TAG_RESPONSE_1_2 = 0x00c4,
    TAG_NO_SESSIONS = 0x8001,
};

enum {
    CC_SELF_TEST = 0x143,
    CC_STARTUP = 0x144,
    CC_SHUTDOWN = 0x145,
    CC_NV_READ_PUBLIC = 0x169,
    CC_READ_PUBLIC = 0x173,
    CC_GET_CAPABILITY = 0x17a,
    CC_GET_RANDOM = 0x17b,
    CC_GET_TEST_RESULT = 0x17c,
    CC_PCR_READ = 0x17e,
    CC_READ_CLOCK = 0x181,
    ORD_STARTUP_1_2 = 0x99,
};

enum {
    RC_INITIALIZE = 0x100,
    RC_FAILURE = 0x101,
    RC_VALUE = 0x1c4,
    RC_INVALID_POSTINIT_1_2 = 0x26
};
enum { SU_CLEAR = 0, SU_STATE = 1, ST_CLEAR_1_2 = 1, ST_STATE_1_2 = 2 };

/* The one object behind libtpms' callbacks. */
static struct engine {
    enum tpm_version version;
    struct nvram *nvram;
    int locality;
    bool keep_volatile;
    bool has_volatile;  /* a volatile state is stored, and still that of this TPM */
    bool started;       /* TPM2_Startup has succeeded */
    bool need_shutdown; /* ... and since then, or since the last TPM2_Shutdown, something may have
                           changed */
    bool failure_mode;  /* libtpms' own */
    int load_failure;   /* why it could not be given a state; has been reported */
    unsigned char *resp;
    uint32_t resp_size; /* what libtpms has allocated there */
} engine;

/* For the next start. */
static struct given {
    const uint8_t *blob; /* NULL: none */
    size_t len;
} given_volatile;

static TPM_RESULT
on_init(void)
{
    return TPM_SUCCESS;
}

static int
copy_given(unsigned char **data, size_t *len)
{
    *data = malloc(given_volatile.len + 1);
    if (!*data)
        return report(-ENOMEM, "no memory for the TPM's state");
    memcpy(*data, given_volatile.blob, given_volatile.len);
    *len = given_volatile.len;
    return 0;
}

static TPM_RESULT
on_load(unsigned char **data, uint32_t *length, uint32_t number, const char *name)
{
    enum nvram_item item = nvram_item_by_name(name);
    size_t len;
    int r;

    (void)number;
    *data = NULL;
    *length = 0;
    if (item == NVRAM_ITEMS || !engine.nvram)
        return TPM_FAIL;
    if (item == NVRAM_VOLATILE && !engine.keep_volatile)
        return TPM_RETRY;
    r = item == NVRAM_VOLATILE && given_volatile.blob ? copy_given(data, &len)
                                                      : nvram_load(engine.nvram, item, data, &len);
    if (r == -ENOENT)
        return TPM_RETRY; /* makes libtpms manufacture: only ever for what may be absent */
    if (r < 0) {
        engine.load_failure = r;
        return TPM_FAIL;
    }
    *length = (uint32_t)len;
    if (item == NVRAM_VOLATILE) {
        engine.has_volatile = true;
        engine.started = engine.need_shutdown = engine.version == TPM_VERSION_2_0;
    }
    return TPM_SUCCESS;
}

static TPM_RESULT
on_store(const unsigned char *data, uint32_t length, uint32_t number, const char *name)
{
    enum nvram_item item = nvram_item_by_name(name);

    (void)number;
    if (item == NVRAM_ITEMS || !engine.nvram)
        return TPM_FAIL;
    return nvram_store(engine.nvram, item, data, length) < 0 ? TPM_FAIL : TPM_SUCCESS;
}

static TPM_RESULT
on_delete(uint32_t number, const char *name, TPM_BOOL must_exist)
{
    enum nvram_item item = nvram_item_by_name(name);

    (void)number;
    (void)must_exist;
    if (item == NVRAM_ITEMS || !engine.nvram)
        return TPM_FAIL;
    return nvram_delete(engine.nvram, item) < 0 ? TPM_FAIL : TPM_SUCCESS;
}

static TPM_RESULT
on_locality(TPM_MODIFIER_INDICATOR *locality, uint32_t number)
{
    (void)number;
    *locality = (TPM_MODIFIER_INDICATOR)engine.locality;
    return TPM_SUCCESS;
}

static TPM_RESULT
on_physical_presence(TPM_BOOL *presence, uint32_t number)
{
    (void)number;
    *presence = 0;
    return TPM_SUCCESS;
}

int
engine_failure(void)
{
    int r = engine.nvram ? nvram_failure(engine.nvram) : 0;

    return r == 0 && engine.failure_mode ? -EIO : r;
}

int
engine_prepare(enum tpm_version version)
{
    struct libtpms_callbacks callbacks = {
        .sizeOfStruct = sizeof callbacks,
        .tpm_nvram_init = on_init,
        .tpm_nvram_loaddata = on_load,
        .tpm_nvram_storedata = on_store,
        .tpm_nvram_deletename = on_delete,
        .tpm_io_init = on_init,
        .tpm_io_getlocality = on_locality,
        .tpm_io_getphysicalpresence = on_physical_presence,
    };
    bool two = version == TPM_VERSION_2_0;
    TPM_RESULT rc;

    engine.version = version;
    rc = TPMLIB_ChooseTPMVersion(two ? TPMLIB_TPM_VERSION_2 : TPMLIB_TPM_VERSION_1_2);
    if (rc == TPM_SUCCESS)
        rc = TPMLIB_RegisterCallbacks(&callbacks);
    if (rc != TPM_SUCCESS)
        return report(-ENOTSUP, "libtpms cannot be a TPM %s (0x%x)", two ? "2.0" : "1.2", rc);
    return 0;
}

/* What is there is read once before libtpms runs: a finding has its own errno and words then, and
 * libtpms never sees, let alone replaces, what could not be read. */
static int
check_state(struct nvram *nvram)
{
    AUTO_FREE uint8_t *blob = NULL;
    size_t len;
    int r = nvram_load(nvram, NVRAM_PERMALL, &blob, &len);

    if (r == 0)
        explicit_bzero(blob, len);
    return r == -ENOENT ? 0 : r;
}

int
engine_forget_volatile(bool notice)
{
    int r = nvram_delete(engine.nvram, NVRAM_VOLATILE);

    engine.has_volatile = false;
    if (r > 0 && notice)
        report_at(REPORT_NOTICE, 0, "removed the stored volatile state: this is a power-on");
    return r < 0 ? r : 0;
}

int
engine_start(enum tpm_version version, struct nvram *nvram, bool keep_volatile)
{
    TPM_RESULT rc;
    int r = check_state(nvram);

    if (r < 0)
        return r;
    assert(!engine.nvram);
    engine = (struct engine){
        .nvram = nvram, .locality = engine.locality, .keep_volatile = keep_volatile};
    r = engine_prepare(version);
    if (r == 0) {
        rc = TPMLIB_MainInit();
        given_volatile = (struct given){0};
        r = nvram_failure(nvram);
        if (r == 0)
            r = engine.load_failure;
        if (r == 0 && rc != TPM_SUCCESS)
            r = report(-EUCLEAN, "the TPM does not accept its stored state (libtpms: 0x%x)", rc);
    }
    if (r == 0 && !keep_volatile)
        r = engine_forget_volatile(true);
    if (r < 0)
        engine_stop();
    return r;
}

void
engine_give_volatile(const uint8_t *blob, size_t len)
{
    given_volatile = (struct given){blob, len};
}

void
engine_stop(void)
{
    TPMLIB_Terminate();
    free(engine.resp);
    engine = (struct engine){.version = engine.version, .locality = engine.locality};
}

void
engine_cancel(void)
{
    TPMLIB_CancelCommand();
}

size_t
engine_refuse(uint32_t rc, uint8_t *resp)
{
    bool two = engine.version == TPM_VERSION_2_0;

    store_be16(resp, two ? TAG_NO_SESSIONS : TAG_RESPONSE_1_2);
    store_be32(resp + OFF_SIZE, HEADER_SIZE);
    store_be32(resp + OFF_CODE, rc);
    return HEADER_SIZE;
}

static size_t
failure_response(uint8_t *resp)
{
    return engine_refuse(engine.version == TPM_VERSION_2_0 ? RC_FAILURE : TPM_FAIL, resp);
}

/* Commands after which a TPM that was shut down is still shut down. */
static bool
changes_nothing(uint32_t code)
{
    switch (code) {
    case CC_SELF_TEST:
    case CC_NV_READ_PUBLIC:
    case CC_READ_PUBLIC:
    case CC_GET_CAPABILITY:
    case CC_GET_RANDOM:
    case CC_GET_TEST_RESULT:
    case CC_PCR_READ:
    case CC_READ_CLOCK:
        return true;
    default:
        return false;
    }
}

/* Follows what TPM2_Shutdown depends on, by what the TPM answered. */
static void
track(const uint8_t *cmd, size_t len, const uint8_t *resp, size_t resp_len)
{
    uint32_t code, rc;

    if (engine.version != TPM_VERSION_2_0 || len < HEADER_SIZE || resp_len < HEADER_SIZE)
        return;
    code = load_be32(cmd + OFF_CODE);
    rc = load_be32(resp + OFF_CODE);
    if (rc == RC_FAILURE && !engine.failure_mode) {
        engine.failure_mode = true;
        report(-EIO, "the TPM is in failure mode, since command 0x%x", code);
    }
    if (code == CC_STARTUP && rc == 0)
        engine.started = true;
    if (code == CC_SHUTDOWN && rc == 0)
        engine.need_shutdown = false;
    else if (!changes_nothing(code))
        engine.need_shutdown = true; /* one that failed may have counted an attempt */
}

/* Removed before the command runs: who dies in between has a TPM that lost its machine's state, not
 * one that is taken back.  Of the TPM 1.2 nothing is known to change nothing. */
static bool
outdates_volatile(const uint8_t *cmd, size_t len)
{
    return engine.has_volatile && (engine.version != TPM_VERSION_2_0 || len < HEADER_SIZE ||
                                   !changes_nothing(load_be32(cmd + OFF_CODE)));
}

static size_t
process(const uint8_t *cmd, size_t len, uint8_t *resp)
{
    uint8_t copy[ENGINE_MAX]; /* libtpms takes no const */
    uint32_t n = 0;
    TPM_RESULT rc;

    if (!engine.nvram || len > sizeof copy || nvram_failure(engine.nvram))
        return failure_response(resp);
    memcpy(copy, cmd, len);
    rc = TPMLIB_Process(&engine.resp, &n, &engine.resp_size, copy, (uint32_t)len);
    explicit_bzero(copy, len);
    /* libtpms may call it a success though a store failed; nobody must take it for one */
    if (rc != TPM_SUCCESS || nvram_failure(engine.nvram) || n < HEADER_SIZE || n > ENGINE_MAX)
        return failure_response(resp);
    memcpy(resp, engine.resp, n);
    track(cmd, len, resp, n);
    return n;
}

size_t
engine_process(const uint8_t *cmd, size_t len, uint8_t *resp)
{
    if (outdates_volatile(cmd, len) && engine_forget_volatile(false) < 0)
        return failure_response(resp);
    return process(cmd, len, resp);
}

/* Sends a command that has one u16 and nothing else.  Returns the response code. */
static uint32_t
send_short(uint16_t tag, uint32_t code, uint16_t arg)
{
    uint8_t cmd[STARTUP_SIZE], resp[ENGINE_MAX];

    store_be16(cmd, tag);
    store_be32(cmd + OFF_SIZE, sizeof cmd);
    store_be32(cmd + OFF_CODE, code);
    store_be16(cmd + OFF_TYPE, arg);
    process(cmd, sizeof cmd, resp);
    return load_be32(resp + OFF_CODE);
}

static uint32_t
send_startup(bool state)
{
    if (engine.version == TPM_VERSION_2_0)
        return send_short(TAG_NO_SESSIONS, CC_STARTUP, state ? SU_STATE : SU_CLEAR);
    return send_short(TAG_COMMAND_1_2, ORD_STARTUP_1_2, state ? ST_STATE_1_2 : ST_CLEAR_1_2);
}

int
engine_startup(enum tpm_startup type)
{
    bool two = engine.version == TPM_VERSION_2_0;
    uint32_t rc;
    int r;

    if (type == TPM_STARTUP_NONE)
        return 0;
    rc = send_startup(type == TPM_STARTUP_STATE);
    if (type == TPM_STARTUP_STATE && two && rc == RC_VALUE) {
        report_at(REPORT_NOTICE, 0, "it was not shut down to be resumed: started anew");
        rc = send_startup(false);
    }
    if (two && rc == RC_INITIALIZE) /* resumed from a volatile state */
        engine.started = engine.need_shutdown = true;
    if (rc == 0 || rc == (two ? RC_INITIALIZE : RC_INVALID_POSTINIT_1_2))
        return 0;
    r = nvram_failure(engine.nvram);
    return r < 0 ? r : report(-EIO, "the TPM does not start: it answers 0x%x", rc);
}

/* It stays on, so a stored volatile state stays too. */
int
engine_shutdown(bool try_state)
{
    uint32_t rc = RC_VALUE;

    if (!engine.started || !engine.need_shutdown)
        return 0;
    if (engine_failure() < 0)
        return engine_failure();
    if (try_state)
        rc = send_short(TAG_NO_SESSIONS, CC_SHUTDOWN, SU_STATE);
    if (rc != 0 && rc != RC_INITIALIZE && !engine_failure())
        rc = send_short(TAG_NO_SESSIONS, CC_SHUTDOWN, SU_CLEAR);
    if (rc == 0 || rc == RC_INITIALIZE) /* resumed a TPM that was not started */
        return 0;
    if (nvram_failure(engine.nvram))
        return nvram_failure(engine.nvram);
    return report(-EIO, "the TPM does not shut down in order: it answers 0x%x", rc);
}

/* ---- for the control channel -------------------------------------------------------------------
 */

void
engine_set_locality(int locality)
{
    engine.locality = locality;
}

uint32_t
engine_buffer_size(uint32_t wanted, uint32_t *min, uint32_t *max)
{
    uint32_t now = TPMLIB_SetBufferSize(0, min, max);

    if (wanted == 0)
        return now;
    return TPMLIB_SetBufferSize(wanted < ENGINE_MAX ? wanted : ENGINE_MAX, min, max);
}

char *
engine_info(uint32_t flags)
{
    return TPMLIB_GetInfo(flags & (TPMLIB_INFO_TPMSPECIFICATION | TPMLIB_INFO_TPMATTRIBUTES |
                                   TPMLIB_INFO_TPMFEATURES));
}

uint32_t
engine_get_established(bool *bit)
{
    TPM_BOOL is = 0;
    TPM_RESULT rc = TPM_IO_TpmEstablished_Get(&is);

    *bit = is != 0;
    return rc;
}

uint32_t
engine_reset_established(void)
{
    return TPM_IO_TpmEstablished_Reset();
}

/* What is measured changes the TPM; its stored volatile state is not that any more. */
uint32_t
engine_hash_start(void)
{
    if (engine.has_volatile && engine_forget_volatile(false) < 0)
        return TPM_FAIL;
    engine.need_shutdown = true;
    return TPM_IO_Hash_Start();
}

uint32_t
engine_hash_data(const uint8_t *data, size_t len)
{
    return TPM_IO_Hash_Data(data, (uint32_t)len);
}

uint32_t
engine_hash_end(void)
{
    return TPM_IO_Hash_End();
}

int
engine_get_volatile(uint8_t **blob, size_t *len)
{
    uint32_t n = 0;
    TPM_RESULT rc;

    if (engine_failure() < 0)
        return engine_failure();
    *blob = NULL;
    rc = TPMLIB_VolatileAll_Store(blob, &n);
    if (rc != TPM_SUCCESS)
        return report(-EIO, "the TPM does not give its volatile state (libtpms: 0x%x)", rc);
    *len = n;
    return 0;
}

int
engine_store_volatile(void)
{
    AUTO_FREE uint8_t *blob = NULL;
    size_t len = 0;
    int r = engine_get_volatile(&blob, &len);

    if (r < 0)
        return r;
    r = nvram_store(engine.nvram, NVRAM_VOLATILE, blob, len);
    engine.has_volatile = r == 0;
    explicit_bzero(blob, len);
    return r;
}

int
engine_set_permanent(const uint8_t *blob, size_t len)
{
    TPM_RESULT rc = TPMLIB_SetState(TPMLIB_STATE_PERMANENT, blob, (uint32_t)len);

    /* Setting it to nothing after that would mean: there is none, make a new TPM */
    if (rc != TPM_SUCCESS)
        return report(-EUCLEAN, "libtpms does not take it for a TPM's state (0x%x)", rc);
    return 0;
}
