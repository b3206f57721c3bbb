#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Reads a TPM's state as swtpm keeps it, written from what swtpm writes: the openssl command does AES, Python's
standard library the rest.  Nothing of vnvram's is used.

    independent_swtpm.py ITEM,... SOURCE WORDS [SOURCE WORDS]...

SOURCE is a state directory, a linear file or a single blob, an ITEM the name of a state file; WORDS are those of swtpm's
--key, or empty, and after a colon those of its --migration-key.  Succeeds when each ITEM is the same in every SOURCE."""
import hashlib
import hmac
import os
import struct
import subprocess
import sys

ITEMS = {"permall": 0, "volatilestate": 1, "savestate": 2}


def derive(words):
    if not words:
        return None
    word = dict(w.split("=", 1) for w in words.split(","))
    size = 32 if word.get("mode") == "aes-256-cbc" else 16
    with open(word.get("file") or word["pwdfile"], "rb") as f:
        text = f.read()
    if "file" in word:
        return text if word.get("format") == "binary" else bytes.fromhex(text.decode().split()[0].removeprefix("0x"))
    if word.get("kdf") == "sha512":
        return hashlib.sha512(text).digest()[:size]
    return hashlib.pbkdf2_hmac("sha512", text, b"swtpm", 1000, size)


def records(data):
    found = {}
    while data:
        tag, n = struct.unpack_from(">HI", data)
        assert tag not in found and len(data) >= 6 + n
        found[tag] = data[6:6 + n]
        data = data[6 + n:]
    return found


def decrypt(found, key, data, iv):
    assert sorted(found) == sorted([data, iv, 3])
    assert hmac.digest(key, found[data] + found[iv], "sha256") == found[3], "wrong key"
    plain = subprocess.run(
        ["openssl", "enc", "-d", f"-aes-{len(key) * 8}-cbc", "-nopad", "-K", key.hex(), "-iv", found[iv][:16].hex()],
        input=found[data], stdout=subprocess.PIPE, check=True).stdout
    assert plain[-plain[-1]:] == bytes([plain[-1]]) * plain[-1] and len(found[data]) % len(key) == 0
    return plain[:-plain[-1]]


def layer(data, flags, key, encrypted, flag_256, tags):
    found = records(data)
    if flags & encrypted:
        assert bool(flags & flag_256) == (len(key) == 32)
        return decrypt(found, key, *tags[1:])
    assert list(found) == [tags[0]]
    return found[tags[0]]


def raw_of(source, item):
    if os.path.isdir(source):
        source = os.path.join(source, item)
    with open(source, "rb") as f:
        data = f.read()
    if data[:8] != b"nilmptws":
        return data
    assert struct.unpack_from("<BBH", data, 8) == (1, 0, 192)
    off, n, room = struct.unpack_from("<III", data, 12 + 12 * ITEMS[item.split(".")[1]])
    assert off >= 192 and 0 < n <= room and off + room <= len(data)
    return data[off:off + n]


def blob_of(source, item, words):
    raw = raw_of(source, item)
    key, migration = (derive(w) for w in (words + ":").split(":")[:2])
    version, least, size, flags, total = struct.unpack_from(">BBHHI", raw)
    assert (version, least, size, total) == (2, 1, 10, len(raw))
    data = raw[10:]
    assert bool(flags & 1) == (key is not None)
    if flags & 4:
        assert bool(flags & 2) == (migration is not None)
        data = layer(data, flags, migration, 2, 0x10, (4, 5, 7))
    return layer(data, flags, key, 1, 8, (1, 2, 6))


def main():
    for item in sys.argv[1].split(","):
        blobs = {blob_of(source, item, words) for source, words in zip(sys.argv[2::2], sys.argv[3::2])}
        assert len(blobs) == 1 and all(blobs), item + " differs"


main()
