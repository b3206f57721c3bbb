#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram show and info on images that a mount has filled, plain and sealed, mounted and not.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3 tpm2_nvdefine
M=$TMP/m
cd "$TMP" || exit 99
KEY=key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

t() {
    timeout 60 "tpm2_$1" -Q -T "device:$M/tpm0" "${@:2}"
}

# The JSON of two shows of one file must agree in what is not about how it was found.
agree() {
    python3 - "$1" "$2" <<'PY'
import json, sys
a, b = (json.load(open(p)) for p in sys.argv[1:])
assert a == b, (a, b)
assert a["kind"] == "tpm2-permanent" and a["headroom"] == a["capacity"] - a["length"] > 0
assert [i["handle"] for i in a["nv_indices"]] == ["0x01000001"] and a["nv_indices"][0]["written"]
PY
}

for seal in "" "$KEY"; do
    what=${seal:+sealed}
    what=${what:-plain}
    rm -f x.img
    new_image x.img ${seal:+-o "$seal"} >/dev/null || exit 99
    mounted x.img "$M" -o "tpm=2.0${seal:+,$seal}" || exit 99
    t nvdefine -s 12 -a 'authread|authwrite' 1
    printf 'do not lose.' | t nvwrite 1 -i -
    check "$what: show on the mount" "$VNVRAM" show --json "$M" tpm2-00.permall
    cp "$OUT" mount.json
    check "$what: show on the image beside it" "$VNVRAM" show --json ${seal:+-o "$seal"} x.img tpm2-00.permall
    cp "$OUT" image.json
    check "$what: they agree" agree mount.json image.json
    check "$what: unmount" unmounted "$M"
    check "$what: show on the image" "$VNVRAM" show ${seal:+-o "$seal"} x.img tpm2-00.permall
    matches "$what: its place" "$OUT" '^  slot +[0-9]+, of 256 KiB, of which [0-9.]+ KiB are left; generation [0-9]+$'
    matches "$what: the index" "$OUT" '^  0x01000001 +12 +sha256 +authwrite\|authread\|written$'
    check "$what: info" "$VNVRAM" info --json ${seal:+-o "$seal"} x.img
    cp "$OUT" info.json
    check "$what: tells head-room and NV space" python3 -c '
import json
slots = [s for s in json.load(open("info.json"))["slots"] if s.get("name") == "tpm2-00.permall"]
shown = json.load(open("image.json"))
assert len(slots) == 1 and slots[0]["nv"] == shown["nv"], slots
assert slots[0]["headroom"] == slots[0]["capacity"] - slots[0]["length"]'
    check "$what: info for people" "$VNVRAM" info ${seal:+-o "$seal"} x.img
    matches "$what: tells them too" "$OUT" \
        'tpm2-00\.permall, [0-9.]+ KiB, [0-9.]+ KiB left; NV space [0-9]+ of [0-9]+ B used, [0-9]+ B left'
done
check_exit 6 "a sealed image without its key" "$VNVRAM" show x.img tpm2-00.permall
check_exit 7 "with a wrong one" "$VNVRAM" show -o "${KEY%f}0" x.img tpm2-00.permall
check "info without it" "$VNVRAM" info x.img
matches "knows head-room" "$OUT" 'tpm2-00\.permall, [0-9.]+ KiB, [0-9.]+ KiB left'
check "but not NV space" bash -c '! grep -q "NV space" "$0"' "$OUT"
finish
