#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Reads a file out of a sealed DER stream, written from doc/format.md and doc/vnvram.asn1 alone.

    independent_der.py STREAM KEY NAME >CONTENT

KEY as for independent_unseal.py, which does the cryptography."""
import hmac
import struct
import sys
import zlib

from independent_unseal import Refused, hkdf, need, openssl, volume_key


def elements(b):
    """(tag, content, all of it) of each element in b."""
    at = 0
    while at < len(b):
        length, head = b[at + 1], 2
        if length & 0x80:
            head += length & 0x7F
            length = int.from_bytes(b[at + 2:at + head], "big")
        yield b[at], b[at + head:at + head + length], b[at:at + head + length]
        at += head + length


def contents(b):
    return [content for _, content, _ in elements(b)]


def number(b):
    return int.from_bytes(b, "big", signed=True)


def main(path, key_text, name):
    with open(path, "rb") as f:
        (stream,) = contents(f.read())
    (_, body, covered), (_, crc, _), (_, tag, _) = elements(stream)
    need(number(crc) == zlib.crc32(covered), "damaged")
    header, entries = contents(body)
    kind, version, _, _, _, _, *sealing = contents(header)
    need(kind == b"vnvram store" and number(version) == 1 and sealing, "not a sealed store, or a newer one")
    stream_id, key_size, slots = contents(sealing[0])
    slots = b"".join(contents(slots)).ljust(8 * 128, b"\0")
    secret = volume_key(bytes(1280) + slots, key_text)
    salt = stream_id + struct.pack("<I", 1)

    def derived(info, length=32):
        return hkdf(secret, salt, info.encode(), length)

    need(hmac.compare_digest(hmac.digest(derived("vnvram directory hmac-sha256"), covered, "sha256"), tag), "forged")
    for i, entry in enumerate(contents(entries)):
        its_name, _, length, _, crc, _, content = contents(entry)
        if its_name != name.encode():
            continue
        iv, mac, data = contents(content)
        need(number(crc) == zlib.crc32(data), "damaged entry")
        mine = struct.pack(">I", i) + its_name + b"\0" + struct.pack(">Q", number(length)) + iv + data
        need(hmac.compare_digest(hmac.digest(derived("vnvram bank hmac-sha256"), mine, "sha256"), mac), "forged entry")
        size = number(key_size)
        return openssl("cbc", derived(f"vnvram bank aes-{size * 8}-cbc", size), data, iv)[:number(length)]
    raise Refused("no such file")


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(main(*sys.argv[1:]))
    except Refused as e:
        sys.exit(f"independent_der.py: {e}")
