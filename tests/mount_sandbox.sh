#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The sandbox around the processes of a mount, and that nothing they do is missed in it.  What exactly it
# refuses: test_sandbox.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need fusermount3 jq runuser tpm2_getrandom tpm2_createprimary tpm2_selftest tpm2_nvdefine

img=$TMP/img
dir=$TMP/dir
tpm0=device:$dir/tpm0
key=$TMP/key
new_image "$img" >/dev/null || exit 99
printf '%064x' 7 >"$key"
chmod 600 "$key"

filtered=2
# Sanitizers do at exit what no sandbox allows: such a build has no filters.
! grep -q '^#define WITH_SANITIZERS 1' "$(dirname "$VNVRAM")/config.h" || filtered=0

status() {
    jq -r ".$2" "$1/.vnvram/status"
}

# field PID NAME: of /proc/PID/status
field() {
    sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | cut -f1
}

helper() { # NAME: its PID
    local child
    for child in $(cat /proc/"$daemon"/task/*/children); do
        [ "$(cat /proc/"$child"/comm)" != "$1" ] || echo "$child"
    done
}

has_helper() { # NAME
    [ -n "$(helper "$1")" ]
}

# The processes of the mount on $dir: $daemon, $tpm (if there is one) and $unmounter.  A helper takes its name, closes
# what is not its own and gives its rights away, in this order, when it gets to run, and nobody waits for that.
find_processes() {
    daemon=$(status "$dir" pid)
    tpm=$(status "$dir" tpm_pid)
    wait_until 30 has_helper vnvram-unmount
    unmounter=$(helper vnvram-unmount)
}

# rights PID: what it can do, in one line
rights() {
    echo "seccomp $(field "$1" Seccomp) nnp $(field "$1" NoNewPrivs) caps $(field "$1" CapEff)" \
        "$(field "$1" CapPrm) $(field "$1" CapInh) $(field "$1" CapAmb) umask $(field "$1" Umask)"
}

# end_with NAME PID RIGHTS
end_with() {
    wait_until 30 has_rights "$2" "$3"
    is "$1" "$(rights "$2")" "$3"
}

has_rights() {
    [ "$(rights "$1")" = "$2" ]
}

none=0000000000000000
lease=0000000010000000      # CAP_LEASE
lease_kill=0000000010000020 # and CAP_KILL
unmount=0000000000200004    # CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH

is_confined() {
    local thread
    is "$1: the daemon's rights" "$(rights "$daemon")" \
        "seccomp $filtered nnp 1 caps $2 $2 $none $none umask 0077"
    is "$1: each of its threads has the same" "$(for thread in /proc/"$daemon"/task/*; do
        rights "$(basename "$thread")"
    done | sort -u | wc -l)" 1
    [ "$tpm" = null ] || is "$1: the TPM's rights" "$(rights "$tpm")" \
        "seccomp $filtered nnp 1 caps $none $none $none $none umask 0077"
}

is_not_mounted() {
    ! grep -q " $dir .* - fuse\.vnvram " /proc/self/mountinfo
}

is_gone() {
    ! grep -qs '^State:.[^ZX]' "/proc/$1/status"
}

# A TPM that computes, tests itself and stores.
tpm_works() {
    check "$1: a key pair is made" tpm2_createprimary -Q -T "$tpm0" -G rsa -c "$TMP/primary"
    check "$1: and one on a curve" tpm2_createprimary -Q -T "$tpm0" -G ecc -c "$TMP/primary"
    check "$1: the full self-test passes" tpm2_selftest -T "$tpm0" --fulltest
    check "$1: it stores" tpm2_nvdefine -Q -T "$tpm0" -s 8 "$2"
}

# ---- root's ---------------------------------------------------------------------------------------

check "a mount with a TPM" mounted "$img" "$dir" -o tpm=2.0
find_processes
is_confined "root" "$lease"
end_with "the unmounter's rights" "$unmounter" \
    "seccomp $filtered nnp 1 caps $unmount $unmount $none $none umask 0077"
is "nothing is left to be gained by exec" \
    "$(field "$daemon" CapBnd) $(field "$tpm" CapBnd) $(field "$unmounter" CapBnd)" "$lease $none $unmount"
is "the status tells" "$(status "$dir" sandbox)" true
tpm_works "inside" 0x1500001
check "files work" cp /bin/true "$dir/file"
check "a snapshot works" "$VNVRAM" snapshot "$dir" "$TMP/snapshot"
kill -KILL "$daemon"
check "after kill -9 the TPM's process ends" wait_until 30 is_gone "$tpm"
check "and so does the unmounter" wait_until 30 is_gone "$unmounter"

n=1
for way in "umount" "fusermount3 -u" "umount -l" "kill -TERM" "$VNVRAM unmount"; do
    n=$((n + 1))
    check "a mount before $way" mounted "$img" "$dir" -o tpm=2.0
    find_processes
    check "the TPM stores before $way" tpm2_nvdefine -Q -T "$tpm0" -s 8 "0x150000$n"
    where=$dir
    [ "$way" != "kill -TERM" ] || where=$daemon
    check "$way" $way "$where"
    check "$way: off the tree" wait_until 30 is_not_mounted
    check "$way: the daemon has ended" wait_until 30 is_gone "$daemon"
    check "$way: the TPM's process has ended" wait_until 30 is_gone "$tpm"
done
check "all that was stored" mounted "$img" "$dir" -o tpm=2.0
is "is there" "$(tpm2_getcap -T "$tpm0" handles-nv-index | grep -c 0x150000)" "$n"
unmounted "$dir"
check_exit 0 "the image is in order" "$VNVRAM" check "$img"

# ---- an aborted connection: the end without unmounting, for which nothing can be opened any more --

mounted "$img" "$dir"
find_processes
exec 8<"$dir/file"
umount -f "$dir" 2>/dev/null # says EBUSY, and aborts
check "after an abort the daemon ends" wait_until 30 is_gone "$daemon"
check "and leaves the dead mount there" grep -q " $dir .* - fuse\.vnvram " /proc/self/mountinfo
exec 8<&-
check "which the next one replaces" mounted "$img" "$dir"
exec 8<"$dir/file"
daemon=$(status "$dir" pid)
check "SIGTERM" kill "$daemon"
check "takes it off the tree" wait_until 30 is_not_mounted
check "and the second one" kill "$daemon"
check "ends it though a file is open" wait_until 30 is_gone "$daemon"
exec 8<&-
check_exit 0 "the image is in order" "$VNVRAM" check "$img"

# ---- more kinds of mounts -------------------------------------------------------------------------

new_image "$TMP/old" >/dev/null
check "a TPM 1.2" mounted "$TMP/old" "$dir" -o tpm=1.2
find_processes
is_confined "TPM 1.2" "$lease"
# TPM_GetCapability of the version, and TPM_ContinueSelfTest
printf '\x00\xc1\x00\x00\x00\x0a\x00\x00\x00\x53' >"$TMP/selftest"
exec 8<>"$dir/tpm0"
cat "$TMP/selftest" >&8
is "it tests itself" "$(head -c 10 <&8 | xxd -p)" 00c40000000a00000000
exec 8<&-
unmounted "$dir"

new_image "$TMP/sealed" -o "key_file=$key" >/dev/null
check "a sealed image" mounted "$TMP/sealed" "$dir" -o "tpm=2.0,key_file=$key,anchor=$TMP/anchor,anchor_create"
find_processes
is_confined "sealed" "$lease"
tpm_works "sealed, with an anchor" 0x1500001
check "and unmounts" unmounted "$dir"
check "its anchor has followed" mounted "$TMP/sealed" "$dir" -o "key_file=$key,anchor=$TMP/anchor"
unmounted "$dir"

new_image "$TMP/shared" >/dev/null
check "a mount that is another user's" mounted "$TMP/shared" "$dir" -o tpm=2.0,allow_other,uid=nobody
find_processes
is_confined "another user's" "$lease_kill"
is "its TPM is that user" "$(field "$tpm" Uid)" "$(id -u nobody)"
tpm_works "as another user" 0x1500001
unmounted "$dir"
cp "$img" "$TMP/theirs"
chown nobody "$TMP/theirs"
check "root mounts another user's image" mounted "$TMP/theirs" "$dir"
find_processes
is_confined "another user's image" "$lease"
check "a copy waits for its commits" cp "$TMP/theirs" "$TMP/copy"
check "which go on" cp /bin/true "$dir/again"
unmounted "$dir"

# ---- sockets, and an image that may go elsewhere: a helper for each ---------------------------------

remove=000000000000000a # CAP_DAC_OVERRIDE, CAP_FOWNER
reopen=0000000000000006 # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

holds() { # PID: what it has open
    readlink /proc/"$1"/fd/* | sed 's/:.*//' | sort | uniq -c | tr -s ' \n' ' '
}

check "a mount with sockets" mounted "$img" "$dir" -o "tpm=2.0,server=$TMP/server"
find_processes
is_confined "with sockets" "$lease"
wait_until 30 has_helper vnvram-socket
wait_until 30 has_helper vnvram-image
socket=$(helper vnvram-socket)
image=$(helper vnvram-image)
end_with "who removes the sockets can do no more" "$socket" \
    "seccomp $filtered nnp 1 caps $remove $remove $none $none umask 0077"
end_with "who reopens the image can do no more" "$image" \
    "seccomp $filtered nnp 1 caps $reopen $reopen $none $none umask 0077"
is "nor gain it by exec" "$(field "$socket" CapBnd) $(field "$image" CapBnd)" "$remove $reopen"
is "the one has nothing open but the way to the daemon" "$(holds "$socket")" " 3 /dev/null 1 socket "
is "nor has the other" "$(holds "$image")" " 3 /dev/null 1 socket "
check "TPM commands come in by a socket" tpm2_getrandom -T "swtpm:path=$TMP/server" --hex 8
kill -KILL "$daemon"
check "they end with the daemon: the one" wait_until 30 is_gone "$socket"
check "and the other" wait_until 30 is_gone "$image"
check "the sockets have gone" test ! -e "$TMP/server" -a ! -e "$TMP/server.ctrl"
check "another mount" mounted "$img" "$dir"
unmounted "$dir"

# ---- an unprivileged user's -----------------------------------------------------------------------

as_nobody() {
    runuser -u nobody -- "$@"
}

mkdir "$TMP/nobody"
chown nobody "$TMP/nobody"
dir=$TMP/nobody/dir
program=$(program_for_all)
as_nobody "$program" format "$TMP/nobody/img" >/dev/null
as_nobody mkdir "$dir"
check "an unprivileged user mounts" as_nobody "$program" mount -o tpm=2.0 "$TMP/nobody/img" "$dir"
mounts+=("$dir")
daemon=$(as_nobody jq .pid "$dir/.vnvram/status")
tpm=$(as_nobody jq .tpm_pid "$dir/.vnvram/status")
is_confined "unprivileged" "$none"
check "SIGTERM still reaches fusermount3" kill "$daemon"
check "off the tree" wait_until 30 is_not_mounted
check "the daemon has ended" wait_until 30 is_gone "$daemon"
dir=$TMP/dir

# ---- without --------------------------------------------------------------------------------------

check_exit 2 "sandbox is on or off" "$VNVRAM" mount -o sandbox=maybe "$img" "$dir"
check "a mount without" mounted "$img" "$dir" -o tpm=2.0,sandbox=off
find_processes
is "its daemon has no filter and its own rights" "$(rights "$daemon")" \
    "seccomp 0 nnp 0 caps $(field $$ CapEff) $(field $$ CapPrm) $(field $$ CapInh) $(field $$ CapAmb) umask 0077"
is "its TPM has no filter, and no more rights than ever" "$(rights "$tpm")" \
    "seccomp 0 nnp 1 caps $none $none $none $none umask 0077"
is "its unmounter has no filter" "$(field "$unmounter" Seccomp)" 0
is "the status tells" "$(status "$dir" sandbox)" false
unmounted "$dir"
finish
