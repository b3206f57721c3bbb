#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Reads a file out of a sealed image, written from doc/format.md alone: the openssl command does AES,
Python's standard library SHA-256, HMAC and CRC-32.  Nothing of vnvram's is used.

    independent_unseal.py IMAGE KEY NAME >CONTENT

KEY is hexadecimal digits, or a recovery key (eight groups of six digits)."""
import hashlib
import hmac
import struct
import subprocess
import sys
import zlib

BLOCK = 4096


class Refused(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Refused(what)


def u16(b, off):
    return struct.unpack_from("<H", b, off)[0]


def u32(b, off):
    return struct.unpack_from("<I", b, off)[0]


def u64(b, off):
    return struct.unpack_from("<Q", b, off)[0]


def openssl(cipher, key, data, iv=None):
    args = ["openssl", "enc", "-d", f"-aes-{len(key) * 8}-{cipher}", "-nopad", "-K", key.hex()]
    args += ["-iv", iv.hex()] if iv else []
    return subprocess.run(args, input=data, stdout=subprocess.PIPE, check=True).stdout


def hkdf(ikm, salt, info, length):
    prk = hmac.digest(salt, ikm, "sha256")
    out = t = b""
    while len(out) < length:
        t = hmac.digest(prk, t + info + bytes([len(out) // 32 + 1]), "sha256")
        out += t
    return out[:length]


def unwrap(kek, wrapped):
    """RFC 3394, section 2.2.2; None when the check value is wrong."""
    n = len(wrapped) // 8 - 1
    a, r = wrapped[:8], [wrapped[8 * i:8 * i + 8] for i in range(1, n + 1)]
    for j in reversed(range(6)):
        for i in reversed(range(n)):
            t = struct.unpack(">Q", a)[0] ^ (n * j + i + 1)
            block = openssl("ecb", kek, struct.pack(">Q", t) + r[i])
            a, r[i] = block[:8], block[8:]
    return b"".join(r) if a == b"\xa6" * 8 else None


def structure(b, magic):
    """Magic, CRC-32 and version, in the order of section 1."""
    need(b[:8] == magic, "no magic")
    need(u32(b, 8) == zlib.crc32(b[:8] + bytes(4) + b[12:]), "damaged")
    need(u16(b, 12) == 1, "version")


def authentic(b, tag_at, key):
    zeroed = b[:8] + bytes(4) + b[12:tag_at] + bytes(32) + b[tag_at + 32:]
    need(hmac.compare_digest(hmac.digest(key, zeroed, "sha256"), b[tag_at:tag_at + 32]), "forged")


def superblock(image):
    best = None
    for off in 0, 65536:
        b = image[off:off + BLOCK]
        try:
            structure(b, b"VNVRAMSB")
        except Refused:
            continue
        if best is None or u64(b, 32) > u64(best, 32):
            best = b
    need(best is not None, "no superblock")
    need(u64(best, 56) == 0 and best[96] == 1, "not sealed, or of a newer kind")
    return best


def recovery_key(text):
    digits = "".join(c for c in text if c.isdigit())
    if len(digits) != 48:
        return None
    groups = [int(digits[i:i + 6]) for i in range(0, 48, 6)]
    need(all(g % 11 == 0 and g // 11 < 65536 for g in groups), "mistyped")
    return b"".join(struct.pack(">H", g // 11) for g in groups)


def volume_key(sb, text):
    recovery = recovery_key(text) if "-" in text else None
    for i in range(8):
        slot = sb[1280 + 128 * i:1280 + 128 * (i + 1)]
        if slot[0] == 1 and recovery is None and slot[2] == len(text) // 2:
            kek = bytes.fromhex(text)
        elif slot[0] == 3 and recovery is not None:
            kek = hkdf(recovery, slot[16:48], b"vnvram recovery key", slot[2])
        else:
            continue
        key = unwrap(kek, slot[48:88])
        if key:
            return key
    raise Refused("wrong key")


def directory(image, sb, key):
    best = None
    for i in range(2):
        off = u64(sb, 72 + 8 * i)
        length = u32(image, off + 48)
        b = image[off:off + (length + BLOCK - 1) // BLOCK * BLOCK]
        structure(b, b"VNVRAMDR")
        authentic(b, 224, key)
        need(u64(b, 40) <= u64(sb, 32), "rolled back")
        if best is None or u64(b, 32) > u64(best, 32):
            best = b
    return best


def entry(d, name):
    off = 256
    for _ in range(u32(d, 52)):
        record, length, kind = u16(d, off), d[off + 2], d[off + 3]
        if kind == 1 and d[off + 184:off + 184 + length] == name:
            return d[off:off + record]
        off += record
    raise Refused("no such file")


def bank(image, sb, content):
    slot, which = u32(content, 0), content[4]
    first = 0
    for i in range(u16(sb, 98)):
        s = 256 + 32 * i
        capacity, count = u32(sb, s), u32(sb, s + 4)
        if slot < first + count:
            off = u64(sb, s + 8 + 8 * which) + (slot - first) * (BLOCK + capacity)
            padded = (u64(content, 8) + BLOCK - 1) // BLOCK * BLOCK
            return image[off:off + BLOCK + padded]
        first += count
    raise Refused("no such slot")


def main(path, key_text, name):
    with open(path, "rb") as f:
        image = f.read()
    sb = superblock(image)
    secret = volume_key(sb, key_text)
    salt = sb[16:32] + sb[92:96]

    def derived(info, length=32):
        return hkdf(secret, salt, info.encode(), length)

    authentic(sb, 4064, derived("vnvram superblock hmac-sha256"))
    d = directory(image, sb, derived("vnvram directory hmac-sha256"))
    content = entry(d, name.encode())[64:120]
    if content == bytes(56):
        return b""
    b = bank(image, sb, content)
    structure(b, b"VNVRAMBK")
    authentic(b, 96, derived("vnvram bank hmac-sha256"))
    need(b[96:128] == content[24:56], "not the content that the directory names")
    cipher_key = derived(f"vnvram bank aes-{sb[97] * 8}-cbc", sb[97])
    return openssl("cbc", cipher_key, b[BLOCK:], b[64:80])[:u64(content, 8)]


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(main(*sys.argv[1:]))
    except Refused as e:
        sys.exit(f"independent_unseal.py: {e}")
