#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_guest.sh - a real guest, Linux in QEMU, with a mount's TPM (mount_guest.py).
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need_guest

python3 "$srcdir/tests/mount_guest.py" "$VNVRAM" "$TMP" tpm-tis tpm-crb
