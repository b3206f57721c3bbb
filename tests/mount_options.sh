#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Mount options that change what files look like: ro, uid=, gid=, umask=, allow_other.
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_root
need_fuse
need setpriv jq

cases=$(dirname "$VNVRAM")/tests/posix_cases
image=$TMP/image
mnt=$TMP/mnt

steps() {
    local answers
    answers=$(printf '%s\n' "$2" | "$cases" "$mnt" steps)
    is "$1" "$answers" ok
}

as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
steps "a file with attributes" "chmod . 0755; put a hello; chmod a 0666; chown a 1001 1002; put b x; utimens a 5:5 6:6"
check_exit 1 "without allow_other another user does not enter" as_nobody cat "$mnt/a"
matches "and is told so" "$ERR" "Permission denied"
check "unmounts" unmounted "$mnt"

# ---- noatime ---------------------------------------------------------------------------------------
check "mounts with noatime" mounted "$image" "$mnt" -o noatime
steps "noatime: reading and listing leave atime alone" \
    "utimens a 5:5 omit; utimens . 5:5 omit; has a hello; count 2; is a atime 5:5; is . atime 5:5"
check "unmounts the mount with noatime" unmounted "$mnt"

# ---- ro --------------------------------------------------------------------------------------------
before=$(hash "$image")
check "mounts read-only" mounted "$image" "$mnt" -o ro
is "findmnt says so" "$(findmnt -no OPTIONS "$mnt" | grep -ow ro)" ro
steps "ro: the file is there" "has a hello; is a mode 0666; is a uid 1001; is a mtime 6:6"
steps "ro: no writing" "open 1 a wronly =EROFS; open 1 a rdwr =EROFS; open 1 a rdonly,trunc =EROFS"
steps "ro: no creating" "open 1 c wronly,creat 0644 =EROFS; mknod c reg 0644 =EROFS; access c 0 =ENOENT"
steps "ro: O_CREAT of what is there reads" "open 1 a rdonly,creat 0644; read 1 hello"
steps "ro: no names" "rename a c =EROFS; unlink a =EROFS; rename a b exchange =EROFS"
steps "ro: no attributes" "chmod a 0600 =EROFS; chown a 7 8 =EROFS; utimens a 1 2 =EROFS; truncate a 1 =EROFS"
steps "ro: access(2)" "access a 4; access a 2 =EROFS"
steps "ro: reading, fsync and locks" "open 1 a rdonly; read 1 hello; fsync 1; statvfs ."
is "ro: the status says it" "$(jq -r '.read_only, (.read_only_why | type)' "$mnt/.vnvram/status" | xargs)" "true string"
check "unmounts the read-only mount" unmounted "$mnt"
is "ro: the image is as it was" "$(hash "$image")" "$before"

# ---- uid, gid, umask -------------------------------------------------------------------------------
check "mounts with uid, gid and umask" mounted "$image" "$mnt" -o allow_other,uid=65534,gid=nogroup,umask=027
steps "all files are that user's, with bits taken away" "is a uid 65534; is a gid 65534; is a mode 0640; is b uid 65534"
steps "the directory, too" "is . uid 65534; is . mode 0750"
check "who may read" as_nobody cat "$mnt/a"
check "and write" as_nobody sh -c "echo new >'$mnt/c'"
check "unmounts that" unmounted "$mnt"
check "mounts for all users" mounted "$image" "$mnt" -o allow_other
steps "what is stored is as it was" "is a uid 1001; is a gid 1002; is a mode 0666; is . uid 0; is . mode 0755"
check "another user reads" as_nobody cat "$mnt/a"
check "another user writes" as_nobody sh -c "echo x >>'$mnt/a'"
check_exit 1 "as the modes allow" as_nobody rm -f "$mnt/a"
check "unmounts at the end" unmounted "$mnt"
check_exit 0 "the image checks clean" "$VNVRAM" check "$image"
finish
