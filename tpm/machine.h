/* SPDX-License-Identifier: BSD-3-Clause */
/* machine.h - the TPM as its control channel sees it: on or off, with a locality, its state to be
 * taken and given (wire.h has the requests).  For the thread that makes libtpms' calls. */
#ifndef VNVRAM_TPM_MACHINE_H
#define VNVRAM_TPM_MACHINE_H

#include "tpm/engine.h"

enum machine_place { MACHINE_HERE, MACHINE_INCOMING, MACHINE_RELEASED };

/* Of a machine that is to come: a state that was set and is not stored yet. */
struct given_blob {
    uint8_t *data; /* NULL: none */
    size_t len;
};

struct machine {
    enum tpm_version version;
    struct nvram *nvram;
    bool reject_locality_4;
    bool is_controlled; /* has a control channel */
    bool on;
    int locality;
    uint32_t blob_type; /* of what GET_STATEBLOB is in the middle of */
    uint8_t *blob;
    size_t blob_len;
    /* Where the files are: while another daemon has them the TPM may run, but changes nothing. */
    enum machine_place place;
    int (*move)(void *arg, enum tpm_move move, unsigned wait_ms); /* NULL: they stay here */
    void *move_arg;
    struct given_blob given[NVRAM_ITEMS];
    bool has_come; /* the files, and the machine has not been started on them yet */
};

/* @keep_volatile as in engine_start(). */
int machine_power_on(struct machine *m, bool keep_volatile);
/* In order, as far as the TPM does.  The first failure, reported. */
int machine_power_off(struct machine *m);

/* One TPM command, at @locality (-1: the one that is set).  @resp has room for ENGINE_MAX bytes. */
size_t machine_command(struct machine *m, int locality, const uint8_t *cmd, size_t len,
                       uint8_t *resp);
/* One request of the control channel.  The reply is in *@reply, to be freed; NULL: no memory. */
void machine_request(struct machine *m, uint32_t code, const uint8_t *body, size_t len,
                     uint8_t **reply, size_t *reply_len);

#endif
