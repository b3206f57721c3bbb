/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/names.h"
#include <stdio.h>
#include <string.h>

enum { ALG_RSA = 0x01, ALG_KEYEDHASH = 0x08, ALG_ECC = 0x23, OBJECT_SIGN = 1 << 18 };

static void
add_word(char *buf, size_t size, const char *word)
{
    size_t n = strlen(buf);

    snprintf(buf + n, size - n, "%s%s", n ? "|" : "", word);
}

static void
add_bits(char *buf, size_t size, uint32_t attributes, const char *const names[32])
{
    for (int bit = 0; bit < 32; bit++) {
        char number[16];

        if (!(attributes & UINT32_C(1) << bit))
            continue;
        snprintf(number, sizeof number, "bit%d", bit);
        add_word(buf, size, names[bit] ? names[bit] : number);
    }
}

const char *
nv_attributes_text(char buf[NV_ATTRIBUTES_TEXT], uint32_t attributes)
{
    static const char *const low[32] = {"ppwrite", "ownerwrite", "authwrite", "policywrite"};
    static const char *const types[16] = {
        [1] = "nt=counter", [2] = "nt=bits",    [4] = "nt=extend",
        [8] = "nt=pinfail", [9] = "nt=pinpass",
    };
    static const char *const high[32] = {
        [10] = "policydelete",  [11] = "writelocked", [12] = "writeall", [13] = "writedefine",
        [14] = "write_stclear", [15] = "globallock",  [16] = "ppread",   [17] = "ownerread",
        [18] = "authread",      [19] = "policyread",  [25] = "no_da",    [26] = "orderly",
        [27] = "clear_stclear", [28] = "readlocked",  [29] = "written",  [30] = "platformcreate",
        [31] = "read_stclear",
    };
    unsigned type = attributes >> 4 & 0xf;
    char number[16];

    *buf = '\0';
    add_bits(buf, NV_ATTRIBUTES_TEXT, attributes & 0xf, low);
    snprintf(number, sizeof number, "nt=0x%x", type);
    if (type)
        add_word(buf, NV_ATTRIBUTES_TEXT, types[type] ? types[type] : number);
    add_bits(buf, NV_ATTRIBUTES_TEXT, attributes & ~UINT32_C(0xff), high);
    return buf;
}

const char *
key_attributes_text(char buf[NV_ATTRIBUTES_TEXT], uint32_t attributes)
{
    static const char *const names[32] = {
        [1] = "fixedtpm",     [2] = "stclear",
        [4] = "fixedparent",  [5] = "sensitivedataorigin",
        [6] = "userwithauth", [7] = "adminwithpolicy",
        [10] = "noda",        [11] = "encryptedduplication",
        [16] = "restricted",  [17] = "decrypt",
        [18] = "sign",        [19] = "x509sign",
    };

    *buf = '\0';
    add_bits(buf, NV_ATTRIBUTES_TEXT, attributes, names);
    return buf;
}

static const char *
curve_name(uint16_t curve)
{
    switch (curve) {
    case 0x01:
        return "NIST P-192";
    case 0x02:
        return "NIST P-224";
    case 0x03:
        return "NIST P-256";
    case 0x04:
        return "NIST P-384";
    case 0x05:
        return "NIST P-521";
    case 0x10:
        return "BN P-256";
    case 0x11:
        return "BN P-638";
    case 0x20:
        return "SM2 P-256";
    default:
        return NULL;
    }
}

static const char *
cipher_name(uint16_t alg)
{
    switch (alg) {
    case 0x03:
        return "TDES";
    case 0x06:
        return "AES";
    case 0x13:
        return "SM4";
    case 0x26:
        return "Camellia";
    default:
        return NULL;
    }
}

const char *
key_text(char buf[KEY_TEXT], const struct permall_key *key)
{
    const char *name;

    switch (key->type) {
    case ALG_RSA:
        snprintf(buf, KEY_TEXT, "RSA %u", key->detail);
        break;
    case ALG_ECC:
        name = curve_name(key->detail);
        if (name)
            snprintf(buf, KEY_TEXT, "ECC %s", name);
        else
            snprintf(buf, KEY_TEXT, "ECC curve 0x%x", key->detail);
        break;
    case ALG_KEYEDHASH:
        snprintf(buf, KEY_TEXT, "%s", key->attributes & OBJECT_SIGN ? "HMAC key" : "sealed data");
        break;
    default:
        name = cipher_name(key->detail);
        snprintf(buf, KEY_TEXT, "%s %u", name ? name : "cipher", key->detail_bits);
    }
    return buf;
}

const char *
tpm_hash_name(uint16_t alg)
{
    switch (alg) {
    case 0x04:
        return "sha1";
    case 0x0b:
        return "sha256";
    case 0x0c:
        return "sha384";
    case 0x0d:
        return "sha512";
    case 0x12:
        return "sm3_256";
    case 0x27:
        return "sha3_256";
    case 0x28:
        return "sha3_384";
    case 0x29:
        return "sha3_512";
    default:
        return "?";
    }
}
