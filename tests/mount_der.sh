#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# export --der beside a mount with a TPM at work, import --der into a new image, and the TPM goes on there.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need python3 getfattr tpm2_nvread
cd "$TMP" || exit 99
A=$TMP/a B=$TMP/b
KEY=key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

t() { # MOUNT COMMAND...
    timeout 60 "tpm2_$2" -Q -T "device:$1/tpm0" "${@:3}"
}

# What a user sees of each file but the TPM's: names, modes, owners, times, contents, slots' sizes.
seen() { # MOUNT
    python3 - "$1" <<'PY'
import hashlib, os, sys
os.chdir(sys.argv[1])
s = os.stat(".")
print(".", oct(s.st_mode), s.st_uid, s.st_gid)
for name in sorted(os.listdir(b".")):
    if name.startswith((b"tpm", b".lock")):
        continue
    s = os.stat(name)
    x = {a: os.getxattr(name, "user.vnvram." + a).decode() for a in ("capacity", "length", "crc32")}
    print(name, oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns, s.st_ctime_ns, x,
          hashlib.sha256(open(name, "rb").read()).hexdigest())
PY
}

new_image a.img -o "$KEY" >/dev/null || exit 99
mounted a.img "$A" -o "tpm=2.0,$KEY" || exit 99
printf text >"$A/text"
head -c 70000 /dev/urandom >"$A/OVMF_VARS.fd"
: >"$A/empty"
printf x >"$A/"$'no\xfftext'
printf long >"$A/$(printf 'n%.0s' {1..255})"
chmod 4751 "$A/text"
chown 12345:54321 "$A/empty"
touch -d '1969-12-31 23:59:59.25 UTC' "$A/text"
touch -d '2400-01-01 00:00:00.123456789 UTC' "$A/empty"
chmod 750 "$A"
t "$A" nvdefine -s 12 -a 'authread|authwrite' 1
printf 'do not lose.' | t "$A" nvwrite 1 -i -
t "$A" createprimary -C o -G ecc -c primary.ctx
t "$A" evictcontrol -C o -c primary.ctx 0x81000001
t "$A" readpublic -c 0x81000001 -o a.pub

check "export beside the mount" "$VNVRAM" export --der -o "$KEY" a.img a.der
seen "$A" >a.seen
is "all files are seen" "$(wc -l <a.seen)" 6
check "the mount goes on" t "$A" getrandom 8
check "unmount" unmounted "$A"

new_image b.img -o "$KEY" >/dev/null || exit 99
check "import into a new image" "$VNVRAM" import --der -o "$KEY" b.img a.der
check "it is sound" "$VNVRAM" check -o "$KEY" b.img
check "it has held a TPM" bash -c '"$0" info --json -o "$1" b.img | grep -q "\"held_tpm20\":true"' "$VNVRAM" "$KEY"
check "mount it" mounted b.img "$B" -o "tpm=2.0,$KEY"
seen "$B" >b.seen
check "the same files, with all that is theirs" diff a.seen b.seen
t "$B" readpublic -c 0x81000001 -o b.pub
check "the same key in the TPM" cmp a.pub b.pub
t "$B" nvread -s 12 -o index 1
is "the same NV index" "$(cat index)" "do not lose."
printf 'still works.' | t "$B" nvwrite 1 -i -
t "$B" nvread -s 12 -o index 1
is "and it goes on" "$(cat index)" "still works."
check "the content before, shown" "$VNVRAM" show "$B/.vnvram/previous" tpm2-00.permall
matches "is a TPM's state, too" "$OUT" '^tpm2-00\.permall: permanent state of a TPM 2\.0'
check_exit 11 "import into a mounted image" "$VNVRAM" import --der --replace -o "$KEY" b.img a.der
check "unmount" unmounted "$B"
finish
