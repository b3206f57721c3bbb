/* SPDX-License-Identifier: BSD-3-Clause */
/* engine.h - libtpms: one TPM per process, with an nvram (nvram.h) behind its callbacks.
 *
 * libtpms' state is global and its callbacks carry no pointer, so this is the one place with an
 * object behind them.  One thread makes all calls, but for engine_cancel().
 *
 * A store that fails makes the TPM fail closed: the command that needed it and all that follow are
 * answered with TPM_RC_FAILURE (TPM 1.2: TPM_FAIL) by us, whatever libtpms thinks of it. */
#ifndef VNVRAM_TPM_ENGINE_H
#define VNVRAM_TPM_ENGINE_H

#include "tpm/nvram.h"
#include "tpm/process.h"

enum { ENGINE_MAX = 4096 }; /* bytes of a command or a response */

/* Powers the TPM on: loads its state or, where nvram_load() says that there may be none, makes a
 * new TPM.  @keep_volatile: resume from a stored volatile state; otherwise a power-on forgets it,
 * and removes it once the TPM runs.  @nvram stays the caller's, and is in use until engine_stop().
 */
int engine_start(enum tpm_version version, struct nvram *nvram, bool keep_volatile);
/* The next engine_start() resumes from this volatile state, rather than from a stored one.  The
 * caller's until then. */
void engine_give_volatile(const uint8_t *blob, size_t len);
/* Powers it off, which to the TPM is sudden; see engine_shutdown(). */
void engine_stop(void);

/* Processes one command.  @resp has room for ENGINE_MAX bytes.  Returns the response's length. */
size_t engine_process(const uint8_t *cmd, size_t len, uint8_t *resp);
/* From any thread, while engine_process() runs: asks it to end early. */
void engine_cancel(void);

/* A response of nothing but the code @rc; returns its length. */
size_t engine_refuse(uint32_t rc, uint8_t *resp);

/* What the firmware of a machine would send; like it, STATE becomes CLEAR when there is no state to
 * resume. A TPM that is started already is fine. */
int engine_startup(enum tpm_startup type);
/* Sends TPM2_Shutdown(CLEAR) if the TPM is started and nobody has sent one since the last command
 * that may have changed something: without it, the next start counts as a lockout attempt.
 * @try_state: rather STATE, which lets a machine resume, if the TPM takes it.  TPM 1.2: does
 * nothing. */
int engine_shutdown(bool try_state);

/* 0, or why the TPM has failed closed (reported when it did); -EIO: libtpms' own failure mode. */
int engine_failure(void);

/* ---- for the control channel; the results of type uint32_t are libtpms' own, 0 is success ---- */

/* Chooses the version, so that all that needs no TPM that is on works.  engine_start() does it too.
 */
int engine_prepare(enum tpm_version version);
/* Of the commands that follow. */
void engine_set_locality(int locality);
/* @wanted 0: asks only.  Returns what it is now.  Only while the TPM is off. */
uint32_t engine_buffer_size(uint32_t wanted, uint32_t *min, uint32_t *max);
/* JSON, to be freed; @flags are those of TPMLIB_GetInfo(). */
char *engine_info(uint32_t flags);

uint32_t engine_get_established(bool *bit);
uint32_t engine_reset_established(void);
uint32_t engine_hash_start(void);
uint32_t engine_hash_data(const uint8_t *data, size_t len);
uint32_t engine_hash_end(void);

/* What a TPM that runs has in memory, to be freed. */
int engine_get_volatile(uint8_t **blob, size_t *len);
/* Stores it, for engine_start() with keep_volatile.  The next command that may change something
 * removes it: a TPM that has gone on must never go back. */
int engine_store_volatile(void);
/* Removes it; @notice: with words, if there was one. */
int engine_forget_volatile(bool notice);
/* Gives libtpms the state to start with next, if it can read it; the caller stores it, too.  Only
 * while the TPM is off. */
int engine_set_permanent(const uint8_t *blob, size_t len);

#endif
