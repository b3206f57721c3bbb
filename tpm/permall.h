/* SPDX-License-Identifier: BSD-3-Clause */
/* permall.h - what libtpms' blobs say: the permanent state of a TPM 2.0 (its NV memory: indices,
 * keys, counters), and of the other blobs which they are.  Read only; nothing is ever written back.
 *
 * The layout is libtpms' own, from 0.6 on, up to permanent state version 4: big-endian integers;
 * sections that begin with version, magic and the least version that a reader must know; blocks
 * with their size in front, which an older reader passes over.  A blob is untrusted: what a guest's
 * TPM holds is the guest's.  Pure: no I/O, no locks. */
#ifndef VNVRAM_TPM_PERMALL_H
#define VNVRAM_TPM_PERMALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* TPMA_NV of the TPM 2.0 library specification, part 2. */
enum {
    NV_WRITELOCKED = 1U << 11,
    NV_ORDERLY = 1U << 26,
    NV_READLOCKED = 1U << 28,
    NV_WRITTEN = 1U << 29,
};

struct permall_index {
    uint32_t handle;
    uint32_t attributes; /* TPMA_NV, those of the orderly RAM where the index lives there */
    uint16_t name_alg;
    uint16_t size;       /* what it was defined with */
    const uint8_t *data; /* .data_len bytes within the blob: NULL when it is not written */
    uint32_t data_len;
    uint32_t space; /* NV memory that it takes */
};

struct permall_key {
    uint32_t handle;
    uint32_t attributes; /* TPMA_OBJECT */
    uint16_t type;       /* TPM_ALG_RSA, ... */
    uint16_t name_alg;
    uint16_t detail;      /* RSA: bits; ECC: the curve; SYMCIPHER: the cipher */
    uint16_t detail_bits; /* SYMCIPHER */
    bool public_only;
    uint32_t space;
};

struct permall {
    uint16_t version, min_version;
    const char *profile; /* libtpms' JSON, within the blob, ends in a zero; NULL: there is none */
    uint16_t data_version;
    uint64_t total_resets;
    uint32_t resets; /* since the last clear */
    uint32_t failed_tries, max_tries, recovery_time, lockout_recovery;
    uint32_t firmware[2];
    uint64_t clock; /* milliseconds */
    bool disable_clear, resumable;
    uint64_t nv_size, nv_used; /* of the memory for indices and keys, with its end marker */
    uint32_t ram_size, ram_used;
    struct permall_index *indices; /* in the order of the blob */
    size_t n_indices;
    struct permall_key *keys;
    size_t n_keys;
};

/* Reads @len bytes of a TPM 2.0's permanent state, without swtpm's envelope.  Reports, calling it
 * @name, and returns -EUCLEAN (damaged: not such a blob, cut off, a size or a mark that is wrong),
 * -EPROTONOSUPPORT (too new, or a kind of key that is not known) or -ENOMEM.  *@p points into @blob
 * and is written only on success; permall_fini() it. */
int permall_parse(struct permall *p, const uint8_t *blob, size_t len, const char *name);
void permall_fini(struct permall *p);

enum blob_kind {
    BLOB_UNKNOWN,
    BLOB_TPM2_PERMANENT,
    BLOB_TPM2_VOLATILE,
    BLOB_TPM12, /* which of its three states, only the file's name tells */
};

/* What @blob, without envelope, seems to be, by its first bytes; for the kinds of TPM 2.0 also
 * their versions. */
enum blob_kind blob_probe(const uint8_t *blob, size_t len, uint16_t *version,
                          uint16_t *min_version);

#endif
