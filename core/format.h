/* SPDX-License-Identifier: BSD-3-Clause */
/* format.h - the structures of an image (doc/format.md) as host structs, and their translation to
 * and from bytes.  Pure: no I/O, no state, no locks.
 *
 * Decoders take untrusted bytes and return 0, -ENODATA (no magic: not such a structure), -EUCLEAN
 * (magic, but the checksum or a field is wrong) or -EPROTONOSUPPORT (checksum right, version
 * newer). Outputs are written only on success.  None of them looks at the authentication tag: its
 * place is given, and the caller has the sealer. */
#ifndef VNVRAM_CORE_FORMAT_H
#define VNVRAM_CORE_FORMAT_H

#include "core/dev.h"
#include "core/sealer.h"
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    FORMAT_VERSION = 1,
    UUID_SIZE = 16,
    SUPERBLOCK_A = 0,
    SUPERBLOCK_B = 64 * 1024,
    FIRST_DIRECTORY = 128 * 1024,
    NEIGHBOUR_GAP = 64 * 1024, /* least distance between the two copies of anything */
    MAX_SEGMENTS = 32,
    KEYSLOT_COUNT = 8,
    KEYSLOT_SIZE = 128,
    MAX_SLOTS = 65536,
    NAME_MAX_LEN = 255,
    BANK_HEADER = BLOCK_SIZE,
};
#define MAX_CAPACITY UINT32_C(0x40000000) /* 1 GiB a slot */
#define SLOT_NONE UINT32_MAX

/* A run of slots of one capacity.  Slots are numbered through the segments in order. */
struct segment {
    uint32_t capacity; /* content bytes of a slot, a multiple of BLOCK_SIZE */
    uint32_t count;
    uint64_t bank_off[2]; /* where bank 0 and bank 1 of the first slot lie; stride BANK_HEADER +
                             capacity */
};

struct superblock {
    uint8_t uuid[UUID_SIZE];
    uint64_t sequence; /* +1 per change of the superblock, never 0 on disk */
    uint64_t compat, ro_compat, incompat;
    uint64_t image_size;
    uint64_t dir_off[2];
    uint32_t dir_capacity;
    uint32_t key_epoch; /* 0 when not sealed; +1 per reseal */
    uint8_t seal_mode;  /* enum seal_mode */
    uint8_t key_size;   /* 16, 24, 32; 0 when not sealed */
    uint16_t n_segments;
    int64_t created; /* seconds since 1970 */
    struct segment segments[MAX_SEGMENTS];
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE]; /* crypt's business; all zero is free */
};

/* Where a tag lies in its structure; CRC32 lies at CRC_OFFSET in each. */
enum { CRC_OFFSET = 8, SUPERBLOCK_TAG = 4064, DIRECTORY_TAG = 224, BANK_TAG = 96 };

/* @buf is BLOCK_SIZE bytes.  encode leaves the tag zero and does not set the CRC: seal it, then
 * format_set_crc(). */
void superblock_encode(const struct superblock *sb, uint8_t *buf);
int superblock_decode(struct superblock *sb, const uint8_t *buf);

/* What follows from the geometry.  Slot and bank are valid. */
uint32_t superblock_slot_count(const struct superblock *sb);
uint32_t superblock_slot_capacity(const struct superblock *sb, uint32_t slot);
uint64_t superblock_bank_offset(const struct superblock *sb, uint32_t slot, unsigned bank);

/* Content of a file, somewhere in a bank.  generation 0: empty, no bank holds it. */
struct content {
    uint64_t generation;
    uint64_t length;
    uint32_t slot;
    uint8_t bank;
    uint8_t digest[SEAL_TAG_SIZE]; /* the bank's tag */
};

struct file_attr {
    uint32_t mode; /* permission bits, setuid, setgid, sticky */
    uint32_t uid, gid;
    struct timespec atime, mtime, ctime;
};

/* Whether an image can hold them: a name of 1 to 255 bytes without NUL and '/' that is not "." or
 * ".."; permission bits only, nanoseconds below a second. */
bool entry_name_ok(const char *name, size_t len);
bool file_attr_ok(const struct file_attr *a);

enum entry_kind {
    ENTRY_FILE = 1,
    ENTRY_TOMBSTONE = 2, /* a deleted file whose content is still whole in .previous */
    ENTRY_RESERVED = 3,  /* no file, but .reserve_slot is kept for the name */
};

struct entry {
    char name[NAME_MAX_LEN + 1];
    enum entry_kind kind;
    uint64_t id;   /* a file's identity, never used twice in an image */
    uint32_t slot; /* FILE: the slot it holds (its content, if any, lies there); else SLOT_NONE */
    uint32_t reserved; /* bytes promised to the name (--reserve), 0 for none */
    /* The slot kept for that promise; SLOT_NONE when the file's own slot is large enough. */
    uint32_t reserve_slot;
    struct file_attr attr;
    struct content current;  /* FILE only */
    struct content previous; /* generation 0: none */
};

/* Under which taking of the image (core/owner.h) a directory was written; all zero: under none. */
enum { OWNER_NONCE_SIZE = 16 };
struct owner_mark {
    uint64_t epoch;
    uint64_t first; /* the generation of the first directory that this taking wrote */
    uint8_t nonce[OWNER_NONCE_SIZE];
    /* A former owner may still be writing: each commit is settled before it is acknowledged. */
    bool guarded;
};

struct directory {
    uint64_t generation; /* +1 per commit, never 0 on disk */
    uint64_t superblock_sequence;
    uint32_t key_epoch;
    uint8_t index; /* which of the two directories */
    bool clean, resealing, held_tpm12, held_tpm20;
    uint64_t next_id;
    uint64_t recoveries; /* torn commits that mounts have found and undone */
    int64_t committed;   /* seconds since 1970 */
    struct owner_mark owner;
    struct file_attr root;
    uint8_t digest[SEAL_TAG_SIZE]; /* its tag, as it was read or has been written */
    uint32_t n_entries;
    struct entry *entries; /* owned; directory_fini() */
};

/* Bytes that the directory takes, a multiple of BLOCK_SIZE. */
uint64_t directory_size(const struct directory *dir);
/* @buf is directory_size() bytes and zeroed. */
void directory_encode(const struct directory *dir, const uint8_t uuid[UUID_SIZE], uint8_t *buf);
/* Reads the length from a directory's first block: 0, or as decoders do.  *@len is a multiple of
 * BLOCK_SIZE and at most @capacity.  Nothing has been verified yet. */
int directory_peek(const uint8_t *block, uint32_t capacity, uint64_t *len, uint64_t *generation);
/* What a directory block with a right checksum claims, before its tag is verified. */
struct directory_claim {
    uint8_t digest[SEAL_TAG_SIZE];
    uint64_t generation;
    uint32_t key_epoch;
};
void directory_claim(const uint8_t *block, struct directory_claim *claim);
/* Also checks every entry against the geometry of @sb: slots and banks exist, lengths fit, no name
 * and no slot twice. */
int directory_decode(struct directory *dir, const uint8_t *buf, uint64_t len,
                     const struct superblock *sb);
/* Whether @buf, which @dir was encoded into, would decode; @was are the bytes of an older directory
 * that did, with the same @sb.  What is alike in both is not looked at again.  -EAGAIN: they
 * differ in names or kinds: decode it.  Checksums are taken for right. */
int directory_recheck(const struct directory *dir, const uint8_t *buf, uint64_t len,
                      const uint8_t *was, const struct superblock *sb);
void directory_fini(struct directory *dir);
int directory_copy(struct directory *to, const struct directory *from); /* -ENOMEM */

struct bank_header {
    uint8_t uuid[UUID_SIZE];
    uint64_t generation, length;
    uint32_t slot, key_epoch;
    uint8_t bank, seal_mode;
    uint8_t iv[SEAL_IV_SIZE];
};

/* Content bytes of @length as they lie on disk: zero-padded to whole blocks. */
uint64_t bank_padded(uint64_t length);
void bank_encode(const struct bank_header *h,
                 uint8_t *buf); /* BANK_HEADER bytes; tag zero, CRC unset */
/* @buf is the header and @padded content bytes; the CRC covers both. */
int bank_decode(struct bank_header *h, const uint8_t *buf, uint64_t padded);

/* Which host may write the image; the records lie one behind the other, a block each. */
enum { OWNER_RECORDS = 4096, OWNER_RECORD_COUNT = 2, HOST_ID_SIZE = 16, HOST_NAME_SIZE = 64 };

enum owner_state {
    OWNER_OWNED = 1,
    OWNER_RELEASED = 2,
    OWNER_CLAIMED = 3, /* by the first of a taking's two records */
};

struct owner_record {
    uint8_t uuid[UUID_SIZE];
    uint64_t sequence; /* +1 with each record; the higher one counts; never 0 on disk */
    uint64_t epoch;    /* +1 with each taking; never 0 on disk */
    enum owner_state state;
    /* A former owner may still be writing, since one has been overtaken that is not known to be
     * fenced; from now on, in all records. */
    bool guarded;
    uint64_t floor; /* directories of takings before this epoch are former owners'; 0: none are */
    uint8_t host_id[HOST_ID_SIZE];
    uint8_t boot_id[HOST_ID_SIZE];
    uint8_t nonce[OWNER_NONCE_SIZE];    /* of this one taking */
    int64_t time;                       /* of this record, seconds since 1970 */
    char host_name[HOST_NAME_SIZE + 1]; /* printable ASCII; for people */
};

/* @block is BLOCK_SIZE bytes.  What cannot stand in a name becomes '?'. */
void owner_record_encode(const struct owner_record *rec, uint8_t *block);
/* -ENODATA: every byte is zero.  Anything else that is no record is -EUCLEAN. */
int owner_record_decode(struct owner_record *rec, const uint8_t *block);

/* Length and generation that a bank's header block claims, unverified: 0, -ENODATA without the
 * magic. */
int bank_peek(const uint8_t *block, uint64_t *length, uint64_t *generation);
/* Whether @block starts with the magic of any structure of ours. */
bool format_has_magic(const uint8_t *block);

/* CRC over @len bytes with its own field as zero, stored in place; and whether it is right. */
void format_set_crc(uint8_t *buf, size_t len);
bool format_crc_ok(const uint8_t *buf, size_t len);
/* The structure's tag, computed with tag and CRC fields as zero. */
int format_seal(struct sealer *s, enum seal_purpose purpose, uint8_t *buf,
                size_t len); /* tag, then CRC */
/* With @s NULL (check without a key) everything counts as authentic. */
int format_verify(struct sealer *s, enum seal_purpose purpose, const uint8_t *buf, size_t len);

#endif
