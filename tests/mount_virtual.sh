#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# .vnvram: reachable and never listed; status, image, previous; and the attributes of the files.
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need jq getfattr

image=$TMP/image
mnt=$TMP/mnt
status=$mnt/.vnvram/status

field() {
    jq -r "$1" "$status"
}

same_as() {
    cmp -s "$1" "$2"
}

check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
echo hello >"$mnt/a"
echo world >"$mnt/b"

# ---- never listed ----------------------------------------------------------------------------------
is "ls -A does not list it" "$(ls -A "$mnt")" a$'\n'b
is "find does not meet it" "$(cd "$mnt" && find . | sort)" .$'\n'./a$'\n'./b
is "tar does not meet it" "$(tar -C "$mnt" -c . | tar -t | sort)" ./$'\n'./a$'\n'./b
check "it can be entered" ls "$mnt/.vnvram/"
is "it holds what it holds" "$(ls -A "$mnt/.vnvram" | sort)" control$'\n'image$'\n'previous$'\n'status
is "the root's link count counts no hidden directory" "$([ "$(stat -c %h "$mnt")" -le 2 ] && echo yes)" yes

# ---- status ----------------------------------------------------------------------------------------
check "status is JSON" jq -e . "$status"
is "status has its keys" "$(jq -r '[.pid, .image, .uuid, .sealed, .generation, .clean, .read_only,
    .slots_total, .slots_used, .bytes_total, .bytes_used, .files, .last_commit, .recovered, .recoveries,
    .flushes] | map(type) | unique | join(" ")' "$status")" "boolean number string"
is "status: nothing that it must not lack" "$(jq -r '[has("tpm_pid", "tpm", "read_only_why")] | all' "$status")" true
is "status: no TPM" "$(field '.tpm')" null
is "status: the image" "$(field .image)" "$(realpath "$image")"
is "status: the UUID is check's and info's" "$(field .uuid)" "$("$VNVRAM" info --json "$image" | jq -r .uuid)"
is "status: unsealed, writable" "$(field '[.sealed, .read_only, .read_only_why] | map(tostring) | join(" ")')" \
    "false false null"
is "status: slots and files" "$(field '[.slots_total, .slots_used, .files, .bytes_used] | join(" ")')" "28 2 2 12"
is "status: bytes in total" "$(field .bytes_total)" $((4 * 262144 + 8 * 65536 + 16 * 4096))
matches "status: last commit in UTC" "$status" '"last_commit": *"20[0-9-]+T[0-9:]+Z"'
is "status: the pid holds the image" "$([ -d "/proc/$(field .pid)" ] && echo alive)" alive
before=$(field .generation)
echo more >"$mnt/c"
is "status: a commit counts" "$([ "$(field .generation)" -gt "$before" ] && echo more)" more
is "status: read-only for everybody" "$(stat -c %A "$status" | tr -d 'r-')" ""
if (echo x >"$status") 2>/dev/null; then
    fail "status cannot be written"
else
    pass "status cannot be written"
fi

# ---- image -----------------------------------------------------------------------------------------
is "the snapshot's size is the image's" "$(stat -c %s "$mnt/.vnvram/image")" "$(stat -c %s "$image")"
check "the snapshot is copied" cp "$mnt/.vnvram/image" "$TMP/copy"
check_exit 0 "the copy checks clean" "$VNVRAM" check "$TMP/copy"
check "the copy mounts" mounted "$TMP/copy" "$TMP/mnt2"
is "the copy holds the files" "$(cat "$TMP/mnt2/a" "$TMP/mnt2/b" "$TMP/mnt2/c")" hello$'\n'world$'\n'more
check "the copy takes a change" bash -c "echo x >'$TMP/mnt2/d'"
check "the copy unmounts" unmounted "$TMP/mnt2"

exec 3<"$mnt/.vnvram/image"
cat "$mnt/.vnvram/image" >"$TMP/first"
for i in 1 2 3 4 5; do
    echo "later $i" >"$mnt/a"
done
cat <&3 >"$TMP/held"
exec 3<&-
cat "$mnt/.vnvram/image" >"$TMP/second"
check "a snapshot is fixed while it is open" same_as "$TMP/first" "$TMP/held"
is "another open shows the later state" "$(same_as "$TMP/first" "$TMP/second" || echo differs)" differs
check_exit 0 "the held one checks clean" "$VNVRAM" check "$TMP/held"
check_exit 0 "the later one checks clean" "$VNVRAM" check "$TMP/second"
dd if="$mnt/.vnvram/image" of="$TMP/pieces" bs=777 status=none
check "read in odd pieces it is the same" same_as "$TMP/pieces" "$TMP/second"
# ---- previous --------------------------------------------------------------------------------------
echo one >"$mnt/p"
echo two >"$mnt/p"
is "previous lists and shows what was" "$(ls "$mnt/.vnvram/previous" | grep -x p) $(cat "$mnt/.vnvram/previous/p")" "p one"
is "its size is right" "$(stat -c %s "$mnt/.vnvram/previous/p")" 4
is "nothing previous of a name that never was" "$(cat "$mnt/.vnvram/previous/never" 2>&1 | grep -o 'No such file.*')" \
    "No such file or directory"

# ---- attributes ------------------------------------------------------------------------------------
getfattr -d "$mnt/p" >"$TMP/attributes" 2>&1
for name in slot bank generation capacity crc32 sealed; do
    matches "attribute user.vnvram.$name" "$TMP/attributes" "^user\.vnvram\.$name="
done
is "the capacity is the slot's" "$(getfattr --only-values -n user.vnvram.capacity "$mnt/p" 2>/dev/null)" 4096
bank=$(getfattr --only-values -n user.vnvram.bank "$mnt/p" 2>/dev/null)
echo three >"$mnt/p"
is "an overwrite changes the bank" "$(getfattr --only-values -n user.vnvram.bank "$mnt/p" 2>/dev/null)" $((1 - bank))
check_exit 1 "they cannot be set" setfattr -n user.vnvram.slot -v 1 "$mnt/p"
check_exit 1 "nor others" setfattr -n user.other -v 1 "$mnt/p"
check_exit 1 "nor removed" setfattr -x user.vnvram.slot "$mnt/p"

# ---- rm -r -----------------------------------------------------------------------------------------
(cd "$mnt" && rm -r -- * 2>"$TMP/rm")
is "rm -r removes all and complains of nothing" "$(ls -A "$mnt" | wc -l) $(cat "$TMP/rm")" "0 "
check "the status is there still" jq -e . "$status"
check "find -delete meets nothing" find "$mnt" -mindepth 1 -delete
check "unmounts" unmounted "$mnt"
check_exit 0 "the image checks clean" "$VNVRAM" check "$image"
finish
