#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_where.sh - an image and the directory it is mounted on, each given for the other, and mounts in places that nobody thinks of.
. "${srcdir:-.}/tests/lib.sh"
need_root
need_fuse
need timeout
cd "$TMP" || exit 99
mkdir bound

new_image a.img >/dev/null
check "a mount" mounted a.img dir
"$VNVRAM" status dir >expected
check "status of its image" "$VNVRAM" status a.img
is "... is that of the mount" "$(cat "$OUT")" "$(cat expected)"
check "doctor of its image" "$VNVRAM" doctor a.img
matches "... looks at the mount" "$OUT" "^ok +mount +$TMP/a\.img is mounted on $TMP/dir$"

for command in "info dir" "check dir" "grow --slots 1x4K dir" "key list dir" "export dir out" "mount dir bound" "format dir"; do
    # shellcheck disable=SC2086
    check_exit 1 "vnvram $command: not the mount point" "$VNVRAM" $command
    matches "... but the image, which is named" "$ERR" "^vnvram: dir: .*name the image, $TMP/a\.img$"
done

check_exit 11 "a second mount" "$VNVRAM" mount a.img bound
matches "... is told where the first one is" "$ERR" "a\.img: in use; .*\"vnvram unmount $TMP/dir\""

# ---- a bind mount ------------------------------------------------------------------------------------
mounts+=("$TMP/bound")
check "bind it" mount --bind dir bound
check_exit 11 "unmount the bind mount: the daemon goes on, and is not waited for" timeout 30 "$VNVRAM" unmount bound
matches "... for the other one, which is named" "$ERR" "bound: unmounted, but $TMP/dir is the same mount"
check "the other one works" "$VNVRAM" status dir

# ---- detached while in use ---------------------------------------------------------------------------
echo x >dir/file
check "info of its image" "$VNVRAM" info a.img
matches "... tells where it is mounted" "$OUT" "^  state       open, mounted on $TMP/dir$"
exec 9<dir/file
check "detach it" umount -l dir
check_exit 11 "unmount the image that is mounted nowhere" "$VNVRAM" unmount a.img
matches "... names who has it" "$ERR" 'process [0-9]+ \(vnvram\) has it.*what to do'
exec 9<&-
is_free() {
    "$VNVRAM" unmount a.img 2>&1 | grep -q 'not mounted by vnvram'
}
check "its last user has gone, and so has the daemon" wait_until 20 is_free
check_exit 1 "status of an image that is not mounted" "$VNVRAM" status a.img
matches "... says so" "$ERR" "a\.img: not mounted by vnvram$"
check_exit 1 "doctor of an image that is not mounted" "$VNVRAM" doctor a.img
matches "... asks for a directory" "$ERR" "a\.img: is mounted nowhere"
# ---- a directory that is not empty -------------------------------------------------------------------
mkdir full
echo x >full/written
check "mount on a directory that holds something" "$VNVRAM" mount a.img full
mounts+=("$TMP/full")
matches "... is warned of" "$ERR" "warning: $TMP/full: is not empty: .*such as written;"
check "unmount it" unmounted full
check "mount on one that is empty" "$VNVRAM" mount a.img dir
is "... says nothing" "$(cat "$ERR")" ""
check "unmount it" unmounted dir

# ---- a file system that is read-only -----------------------------------------------------------------
mkdir ro
cp a.img ro
mounts+=("$TMP/ro")
check "make one" sh -c 'mount --bind ro ro && mount -o remount,bind,ro ro'
check_exit 1 "an image there cannot be mounted" "$VNVRAM" mount ro/a.img dir
matches "... but with -o ro, which is said" "$ERR" 'ro/a\.img: .*what to do: "vnvram mount -o ro"'
check "mount it so" mounted ro/a.img dir -o ro
check "unmount it" unmounted dir
finish
