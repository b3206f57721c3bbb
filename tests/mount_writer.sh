#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# One writer: whoever else would write to the image of a mount is refused, by whatever name, and told by whom.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need python3
cd "$TMP" || exit 99

umask 077
head -c 32 /dev/urandom >key
head -c 32 /dev/urandom >key2
key=key_file=$TMP/key,key_format=binary
new_image a.img -o "$key" || exit 99
ln a.img hard.img
ln -s a.img soft.img
mkdir mnt mnt2 there

# Each waits 3 s for the lock, so all wait together.
names=()
start() { # NAME COMMAND...
    local i=${#names[@]}
    names+=("$1")
    ("${@:2}" >"out.$i" 2>"err.$i"; echo $? >"code.$i") &
}

# None may have got through.
all_refused() {
    local i
    wait
    for i in "${!names[@]}"; do
        is "${names[$i]}: refused" "$(cat "code.$i")" 11
        matches "${names[$i]}: tells by whom" "err.$i" "in use by process $pid \\(vnvram"
    done
    names=()
    rm -f out.* err.* code.*
}

holder() {
    python3 -c 'import json; print(json.load(open("mnt/.vnvram/status"))["pid"])'
}

# Others may see the directory and, for this test only, write to the image: the lock alone stops them.
as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

check "mounts" mounted a.img mnt -o "$key"
echo one >mnt/f
pid=$(holder)
check "settles" settled mnt
before=$(hash a.img)
chmod 666 a.img
cp a.img elsewhere.img
cp "$VNVRAM" program && chmod 755 program . && chmod 644 key

start "a mount by the same path" "$VNVRAM" mount -o "$key" a.img mnt2
start "a mount read-only" "$VNVRAM" mount -o "ro,$key" a.img mnt2
start "a mount by a relative path" "$VNVRAM" mount -o "$key" ./there/../a.img mnt2
start "a mount by a hard link" "$VNVRAM" mount -o "$key" hard.img mnt2
start "a mount by a symlink" "$VNVRAM" mount -o "$key" soft.img mnt2
start "a mount from another mount namespace" unshare -m "$VNVRAM" mount -o "$key" a.img mnt2
start "a mount through a bind mount" \
    unshare -m sh -c 'mount --bind . there && exec "$@"' sh "$VNVRAM" mount -o "$key" there/a.img mnt2
start "a mount by another user" as_nobody ./program mount -o "key_file=$TMP/key,key_format=binary" a.img mnt2
start "format --force" "$VNVRAM" format --force a.img
start "check --repair" "$VNVRAM" check --repair -o "$key" a.img
start "key add" "$VNVRAM" key add -o "$key" -n key_file="$TMP/key2",key_format=binary a.img
start "key reseal" "$VNVRAM" key reseal -o "$key" -n key_file="$TMP/key2",key_format=binary a.img
for command in grow import; do
    if "$VNVRAM" help | grep -q "^  $command "; then
        case $command in
        grow) start grow "$VNVRAM" grow -o "$key" --slots 1x64K a.img ;;
        import) start import "$VNVRAM" import -o "$key" a.img elsewhere.img ;;
        esac
    fi
done
loop=$(loop_on a.img) || fail "a loop device is attached"
second=$(loop_on a.img) || fail "another loop device is attached"
start "a mount by a loop device" "$VNVRAM" mount -o "$key" "$loop" mnt2
start "format of a loop device" "$VNVRAM" format --force "$second"
all_refused
is "nothing was written" "$(hash a.img)" "$before"
check "and nothing else is mounted" sh -c '! mountpoint -q mnt2'
echo two >mnt/f
is "the mount still works" "$(cat mnt/f)" two

# Readers are not refused, and see what is committed.
check "info beside it" "$VNVRAM" info -o "$key" a.img
check "check beside it" "$VNVRAM" check -o "$key" a.img
check "key list beside it" "$VNVRAM" key list a.img
check "key test beside it" "$VNVRAM" key test -o "$key" a.img
check "salvage beside it" "$VNVRAM" check --salvage saved -o "$key" a.img
is "which finds the current content" "$(cat saved/f.g*.slot* | sort | tail -n 1)" two
check "unmounts" unmounted mnt

# Mounted by a loop device, the file beneath it is taken, too.
check "a loop device mounts" mounted "$loop" mnt -o "$key"
pid=$(holder)
start "the file beneath it" "$VNVRAM" mount -o "$key" a.img mnt2
start "another loop device on that file" "$VNVRAM" mount -o "$key" "$second" mnt2
start "the same loop device" "$VNVRAM" mount -o "$key" "$loop" mnt2
all_refused
check "unmounts" unmounted mnt
loop_off "$second"
loop_off "$loop"
check "what is left is whole" "$VNVRAM" check -o "$key" a.img
finish
