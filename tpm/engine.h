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
/* Powers it off, which to the TPM is sudden; see engine_shutdown(). */
void engine_stop(void);

/* Processes one command.  @resp has room for ENGINE_MAX bytes.  Returns the response's length. */
size_t engine_process(const uint8_t *cmd, size_t len, uint8_t *resp);
/* From any thread, while engine_process() runs: asks it to end early. */
void engine_cancel(void);

/* What the firmware of a machine would send; like it, STATE becomes CLEAR when there is no state to
 * resume. A TPM that is started already is fine. */
int engine_startup(enum tpm_startup type);
/* Sends TPM2_Shutdown(CLEAR) if the TPM is started and nobody has sent one since the last command
 * that may have changed something: without it, the next start counts as a lockout attempt. TPM 1.2:
 * does nothing. */
int engine_shutdown(void);

/* 0, or why the TPM has failed closed (reported when it did); -EIO: libtpms' own failure mode. */
int engine_failure(void);

#endif
