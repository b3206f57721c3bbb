#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Import and export beside mounts: one writer, one generation for a reader, and a TPM that goes on where swtpm stopped,
# and the other way.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3 swtpm swtpm_ioctl tpm2_nvread
cd "$TMP" || exit 99
M=$TMP/mnt
helper=

end_helper() {
    [ -z "$helper" ] || kill "$helper" 2>/dev/null
    helper=
}
trap 'end_helper; cleanup' EXIT

# ---- one writer, one generation ---------------------------------------------------------------------
new_image a.img
head -c 50000 /dev/urandom >left
head -c 50000 /dev/urandom >right
"$VNVRAM" import a.img left right || exit 99
mounted a.img "$M" || exit 99
check "what was imported is there" cmp left "$M/left"
is "its owner's, and nobody else's" "$(stat -c %a:%u "$M/left")" "600:$(id -u)"
check_exit 11 "no import beside a mount" "$VNVRAM" import --replace a.img left
matches "and it says whose" "$ERR" "\"vnvram unmount $M\""

# Both are always there, once each: who takes them from two generations has one twice.
cat >swap.py <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
d = os.open(sys.argv[1], os.O_RDONLY)
open("swapping", "w").close()
while os.path.exists("swapping"):
    if libc.renameat2(d, b"left", d, b"right", 2) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
PY
python3 swap.py "$M" &
helper=$!
wait_until 20 test -e swapping
mkdir out
bad=
for i in $(seq 30); do
    rm -f out/*
    "$VNVRAM" export a.img left right out 2>>err || bad+=" $i:exit"
    cmp -s out/left out/right && bad+=" $i:twice"
done
is "export takes one generation of what changes" "$bad" ""
rm swapping
check "which went on all the time" wait "$helper"
helper=
echo uncommitted >"$M/new"
check "a new file is there for export" "$VNVRAM" export a.img new -
is "with its content" "$(cat "$OUT")" uncommitted
check "unmount" unmounted "$M"
check "sound" "$VNVRAM" check a.img

# ---- into another mount, whose files all have names -------------------------------------------------
new_image other.img
mounted other.img "$M" || exit 99
check "export into a mount" "$VNVRAM" export a.img left right "$M"
check "has every byte" cmp <("$VNVRAM" export a.img right -) "$M/right"
is "and leaves nothing behind" "$(ls -A "$M" | tr '\n' ' ')" "left right "
check_exit 1 "what is there is not replaced" "$VNVRAM" export a.img right new "$M"
is "nor is half of it left" "$(ls -A "$M" | tr '\n' ' ')" "left right "
check "unmount" unmounted "$M"

# ---- under an anchor --------------------------------------------------------------------------------
new_image b.img
"$VNVRAM" mount -o anchor=b.anchor,anchor_create b.img "$M" && unmounted "$M" || exit 99
cp b.img old.img
check "import moves the anchor on" "$VNVRAM" import -o anchor=b.anchor b.img left
check "export compares with it" "$VNVRAM" export -o anchor=b.anchor b.img left again
check_exit 12 "an older image is refused" "$VNVRAM" import -o anchor=b.anchor old.img left
check_exit 12 "export refuses it, too" "$VNVRAM" export -o anchor=b.anchor old.img "$TMP/out"
check "a mount follows" mounted b.img "$M" -o anchor=b.anchor
check "unmount" unmounted "$M"

# ---- a TPM moves from swtpm and back ----------------------------------------------------------------
start_swtpm() { # DIRECTORY [OPTION...]
    rm -f sw sw.ctrl
    swtpm socket --tpm2 --tpmstate "dir=$TMP/$1" --server type=unixio,path=sw --ctrl type=unixio,path=sw.ctrl \
        "${@:2}" >swtpm.log 2>&1 &
    helper=$!
    wait_until 20 swtpm_answers sw.ctrl
}

stop_swtpm() {
    swtpm_ioctl --unix sw.ctrl -s >/dev/null
    wait "$helper"
    helper=
}

t() { # TCTI COMMAND...
    timeout 60 "tpm2_$2" -T "$1" "${@:3}"
}

value() { # TCTI
    t "$1" nvread -C o -s 8 0x1500018
}

sw=swtpm:path=$TMP/sw dev=device:$M/tpm0
printf 'correct horse battery staple' >pass
head -c 32 /dev/urandom >key
printf 00112233445566778899aabbccddeeff >hex
chmod 600 pass key hex
words=pwdfile=pass,mode=aes-256-cbc
for how in 'powered off' suspended; do
    rm -rf state c.img back
    mkdir state
    start_swtpm state --flags not-need-init,startup-clear --key "${words/=/=$TMP/}"
    t "$sw" nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018
    printf by-swtpm | t "$sw" nvwrite -C o -i - 0x1500018
    if [ "$how" = suspended ]; then
        swtpm_ioctl --unix sw.ctrl -v
    else
        t "$sw" shutdown -c
    fi
    stop_swtpm
    new_image c.img -o key_file=key,key_format=binary
    check "a TPM is imported ($how)" "$VNVRAM" import --swtpm --swtpm-key "$words" \
        -o key_file=key,key_format=binary c.img state
    check "the mount starts it" mounted c.img "$M" -o tpm=2.0,key_file=key,key_format=binary
    is "with what swtpm had stored" "$(value "$dev")" by-swtpm
    printf by-mount | t "$dev" nvwrite -C o -i - 0x1500018
    check_exit 11 "no import beside it" "$VNVRAM" import --replace --swtpm --swtpm-key "$words" \
        -o key_file=key,key_format=binary c.img state
    check "export beside it" "$VNVRAM" export -o key_file=key,key_format=binary --swtpm dir c.img live
    rm -r live
    check "unmount" unmounted "$M"
    check "it is exported" "$VNVRAM" export --swtpm dir --swtpm-key "$words" \
        -o key_file=key,key_format=binary c.img back
    start_swtpm back --flags not-need-init,startup-clear --key "${words/=/=$TMP/}"
    is "swtpm goes on with what the mount's TPM had stored" "$(value "$sw")" by-mount
    stop_swtpm
done

# ---- what swtpm has encrypted, copied as it is ------------------------------------------------------
new_image e.img
check "a state under swtpm's key can be kept so" "$VNVRAM" import e.img back
check_exit 9 "the mount's TPM cannot use it" mounted e.img "$M" -o tpm=2.0
matches "and says what can" "$ERR" 'encrypted by swtpm.*import --swtpm --swtpm-key'
check "swtpm with its key can" mounted e.img "$M"
start_swtpm mnt --flags not-need-init,startup-clear --key "${words/=/=$TMP/}"
is "on the mount" "$(value "$sw")" by-mount
stop_swtpm
check "unmount" unmounted "$M"
check_exit 1 "to convert it in its place, one says so" "$VNVRAM" import --swtpm --swtpm-key "$words" e.img back
check "and then" "$VNVRAM" import --replace --swtpm --swtpm-key "$words" e.img back
check "the mount's TPM can use it" mounted e.img "$M" -o tpm=2.0
is "with what is in it" "$(value "$dev")" by-mount
check "unmount" unmounted "$M"

# ---- a TPM 1.2 --------------------------------------------------------------------------------------
command12() { # FILE HEX: the answer's code
    python3 - "$@" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.write(fd, bytes.fromhex(sys.argv[2]))
print(os.read(fd, 4096)[6:10].hex())
PY
}
mkdir state12
swtpm socket --tpmstate "dir=$TMP/state12" --server type=unixio,path=sw12 --ctrl type=unixio,path=sw12.ctrl \
    --flags not-need-init,startup-clear --key "file=$TMP/hex" >swtpm.log 2>&1 &
helper=$!
wait_until 20 swtpm_answers sw12.ctrl
swtpm_ioctl --unix sw12.ctrl -s
wait "$helper"
helper=
new_image f.img
check "the state of a TPM 1.2" "$VNVRAM" import --swtpm --swtpm-key file=hex f.img state12
check_exit 2 "is none of a TPM 2.0" "$VNVRAM" import --swtpm --swtpm-key file=hex --name tpm2-00.permall f.img \
    state12/tpm-00.permall
check "the mount starts it" mounted f.img "$M" -o tpm=1.2
is "and it answers: TPM_ContinueSelfTest" "$(command12 "$M/tpm0" 00c10000000a00000053)" 00000000
check "unmount" unmounted "$M"

# ---- a block device ---------------------------------------------------------------------------------
rm -f linear
if "$VNVRAM" export --swtpm linear --swtpm-key "$words" -o key_file=key,key_format=binary c.img linear &&
    truncate -s 1M linear && device=$(loop_on linear); then
    new_image d.img
    check "a linear file on a block device" "$VNVRAM" import --swtpm --swtpm-key "$words" d.img "$device"
    check "gives the same" cmp <("$VNVRAM" export d.img tpm2-00.permall -) \
        <("$VNVRAM" export -o key_file=key,key_format=binary c.img tpm2-00.permall -)
    loop_off "$device"
fi
finish
