#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_incoming.sh - live migration with one shared image (mount_incoming.py).
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need python3 qemu-system-x86_64

python3 "$srcdir/tests/mount_incoming.py" "$VNVRAM" "$TMP"
