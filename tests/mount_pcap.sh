#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_pcap.sh - what -o pcap records, as tshark decodes it.
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need tshark tpm2_getrandom prlimit

M=$TMP/mnt
IMG=$TMP/image
CAP=$TMP/captured

mount_with() { # OPTIONS
    "$VNVRAM" mount -o "$1" "$IMG" "$M"
}

t() {
    timeout 60 "tpm2_$1" -T "device:$M/tpm0" "${@:2}"
}

packets() { # [FILTER]
    timeout 60 tshark -r "$CAP" -Y "${1:-frame}" 2>/dev/null
}

new_image "$IMG" >/dev/null
mkdir "$M"
mounts+=("$M")

check_exit 2 "pcap= without tpm= is a usage error" mount_with "pcap=$CAP"
echo precious >"$CAP"
check_exit 1 "a file that holds something else is refused" mount_with "tpm=2.0,pcap=$CAP"
is "... and kept" "$(cat "$CAP")" precious
check_exit 1 "the image is no place for it" mount_with "tpm=2.0,pcap=$IMG"
check "... and is still an image" "$VNVRAM" check "$IMG"
rm "$CAP"
check_exit 1 "a directory that is not there is an error" mount_with "tpm=2.0,pcap=$TMP/none/file"

check "mount with pcap=" mount_with "tpm=2.0,pcap=$CAP"
is "its mode" "$(stat -c %a "$CAP")" 600
check "nvdefine" t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018
check "nvread of what is not there" eval "! t nvread -C o 0x1500019"
check "unmount" unmounted "$M"
packets >"$TMP/packets"
matches "tshark finds the request" "$TMP/packets" 'TPM Request.*TPM2_CC_NV_DefineSpace'
matches "... and responses" "$TMP/packets" 'TPM Response.*Success'
is "as many responses as requests" "$(grep -c Response "$TMP/packets")" "$(grep -c Request "$TMP/packets")"
is "nothing is malformed" "$(packets _ws.malformed)" ""
is "all is the TPM's" "$(packets '!tpm')" ""

check "mount again" mount_with "tpm=2.0,pcap=$CAP"
check "getrandom" t getrandom --hex 8
packets >"$TMP/packets"
is "the file has begun anew" "$(grep -c NV_DefineSpace "$TMP/packets")" 0
matches "... and can be read meanwhile" "$TMP/packets" GetRandom
size=$(stat -c %s "$CAP")
prlimit --pid "$(sed -n 's/.*"tpm_pid": *\([0-9]*\).*/\1/p' "$M/.vnvram/status")" --fsize=1:1
check "the TPM works on when the file takes no more" t getrandom --hex 8
is "... which it does not" "$(stat -c %s "$CAP")" "$size"
check "unmount" unmounted "$M"
finish
