#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Looks for secrets in a process's memory, byte for byte.

    find_keys.py PID IMAGE USER_KEY [TEXT...]

The secrets are the user's key, in bytes and as digits; the volume key of IMAGE and what is derived from it
(computed by independent_unseal.py's functions); and each TEXT.  Prints one line: "inside N outside M" with how
many were found in the pool for secrets (which no core dump takes along), and anywhere else, there with their
places; and "locked" when that pool cannot be swapped.  Exit 1 when there is any outside."""
import importlib.util
import os
import re
import sys


def reader():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "independent_unseal.py")
    spec = importlib.util.spec_from_file_location("independent_unseal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def secrets(image_path, user_key):
    r = reader()
    with open(image_path, "rb") as f:
        sb = r.superblock(f.read())
    volume = r.volume_key(sb, user_key)
    salt = sb[16:32] + sb[92:96]
    found = {"user key": bytes.fromhex(user_key), "user key's digits": user_key.encode(), "volume key": volume}
    for info, size in (("vnvram superblock hmac-sha256", 32), ("vnvram directory hmac-sha256", 32),
                       ("vnvram bank hmac-sha256", 32), (f"vnvram bank aes-{sb[97] * 8}-cbc", sb[97])):
        found[info] = r.hkdf(volume, salt, info.encode(), size)
    return found


def mappings(pid):
    """(start, end, name, flags) of what can be read; not a sanitizer's shadow of all memory."""
    current = None
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (r\S*) \S+ \S+ \S+\s*(.*)", line)
            if m:
                current = [int(m[1], 16), int(m[2], 16), m[4]]
            elif line.startswith("VmFlags:") and current:
                if " rd" in line and current[1] - current[0] < 1 << 30:
                    yield (*current, line.split()[1:])
                current = None


def main(pid, image, user_key, *texts):
    wanted = secrets(image, user_key)
    wanted.update({f"text {i}": t.encode() for i, t in enumerate(texts)})
    inside, outside, locked = set(), [], True
    with open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for start, end, name, flags in mappings(pid):
            try:
                mem.seek(start)
                data = mem.read(end - start)
            except (OSError, ValueError):
                continue
            for what, value in wanted.items():
                if value not in data:
                    continue
                if "dd" in flags:
                    inside.add(what)
                    locked = locked and "lo" in flags
                else:
                    outside.append(f"{what} in {name or 'anonymous memory'} at {start + data.index(value):x}")
    summary = f"inside {len(inside)} outside {len(outside)}" + (" locked" if inside and locked else "")
    print(summary, *outside, sep="; ")
    return 1 if outside else 0


sys.exit(main(*sys.argv[1:]))
