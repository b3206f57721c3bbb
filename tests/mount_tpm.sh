#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_tpm.sh - the embedded TPM in a mount, as tpm2-tools and swtpm meet it.
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need tpm2_getrandom swtpm swtpm_ioctl swtpm_setup

M=$TMP/mnt
IMG=$TMP/image
INDEX=0x1500018
HANDLE=0x81000123
swtpm_pid=

end_swtpm() {
    [ -z "$swtpm_pid" ] || kill "$swtpm_pid" 2>/dev/null
    swtpm_pid=
}
trap 'end_swtpm; cleanup' EXIT

# One tpm2-tools command on the mount's device, on the running swtpm.
t() {
    timeout 60 "tpm2_$1" -T "device:$M/tpm0" "${@:2}"
}

st() {
    timeout 60 "tpm2_$1" -T "swtpm:path=$TMP/sw" "${@:2}"
}

# A member of the mount's status.
status_of() {
    sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$M/.vnvram/status"
}

new_mount() { # [OPTION...]: a fresh image with a TPM
    rm -f "$IMG"
    new_image "$IMG" >"$OUT" 2>"$ERR" && mounted "$IMG" "$M" -o tpm=2.0 "$@" >>"$OUT" 2>>"$ERR" ||
        fail "cannot mount a new image" "$(cat "$OUT" "$ERR")"
}

again() { # [OPTION...]: the same image
    "$VNVRAM" mount "$@" "$IMG" "$M"
}

again_with_tpm() {
    again -o tpm=2.0 "$@"
}

gone() { # PID...: have they ended? (one that nobody has reaped yet has)
    local pid
    for pid; do
        ! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" 2>/dev/null || return 1
    done
}

still_there() { # PID...: what are they waiting for?
    local pid task
    for pid in "$@" $(pgrep -f "device:$M/tpm0"); do
        [ -d "/proc/$pid" ] || continue
        echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
        for task in "/proc/$pid/task/"*; do
            echo "  $(cat "$task/comm"), $(sed -n 's/^State:[[:space:]]*//p' "$task/status"), $(cat "$task/wchan")"
        done
        ls -l "/proc/$pid/fd" 2>/dev/null
    done
}

not_mounted() {
    ! grep -qF " $M " /proc/self/mountinfo
}

clock_is_safe() {
    t readclock | grep -q 'safe: yes'
}

nv_define() {
    t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' $INDEX
}

nv_write() { # VALUE of 8 characters
    printf %s "$1" | t nvwrite -C o -i - $INDEX
}

nv_value() {
    t nvread -C o -s 8 $INDEX
}

getrandom() {
    t getrandom --hex 8
}

# ---- the tools --------------------------------------------------------------------------------
new_mount
check "tpm0 is listed and a regular file" test -f "$M/tpm0"
check "getrandom" getrandom
check "getrandom again" getrandom
check "startup is as after a firmware's" t startup -c
check "pcrread" t pcrread sha256:0,1
check "pcrextend" t pcrextend 16:sha256=0000000000000000000000000000000000000000000000000000000000000001
check "nvdefine" nv_define
check "nvwrite" nv_write original
is "nvread" "$(nv_value)" original
check "createprimary" t createprimary -C o -G ecc -c "$TMP/primary"
check "evictcontrol" t evictcontrol -C o -c "$TMP/primary" $HANDLE
check "readpublic" t readpublic -c $HANDLE -o "$TMP/public"

# ---- unmount and mount, kill -9 and mount -------------------------------------------------------
check "unmount" unmounted "$M"
check "mount again" again_with_tpm
is "what was written is there" "$(nv_value)" original
check "the persistent key is there" t readpublic -c $HANDLE -o "$TMP/public2"
check "... and the same" cmp "$TMP/public" "$TMP/public2"
check "the unmount was an orderly shutdown" clock_is_safe

# ---- the TPM's own writes go past the kernel's cache -------------------------------------------------
# cat fills that cache, and a reader that stays has the file open meanwhile.
state_hash() {
    sha256sum <"$M/tpm2-00.permall"
}
exec 7<"$M/tpm2-00.permall"
before=$(state_hash)
check "nvwrite of the same length" nv_write cachedxx
after=$(state_hash)
check "readers see the state that the TPM wrote" test "$before" != "$after"
is "... and who had it open, too" "$(sha256sum <&7)" "$after"
exec 7<&-
is "... and it is the one in the image" "$("$VNVRAM" export "$IMG" tpm2-00.permall - | sha256sum)" "$after"
check "it settles" settled "$M"
flushes=$(status_of flushes)
check "nvwrite again" nv_write cachedyy
check "it settles" settled "$M"
is "a store of the same length is one flush, and so is what marks it clean" "$(($(status_of flushes) - flushes))" 2
check "nvwrite of what was there" nv_write original
dd if="$M/tpm2-00.permall" of="$TMP/head" bs=10 count=1 status=none
check "another's synchronous write need not be whole" dd if="$TMP/head" of="$M/tpm2-00.permall" bs=10 count=1 oflag=dsync conv=notrunc
check "nvwrite before a kill" nv_write straight
pids="$(status_of pid) $(status_of tpm_pid)"
kill -9 "$(status_of pid)"
check "both processes end when the daemon is killed" wait_until 30 gone $pids
check "mount after the kill" again_with_tpm
is "what was acknowledged is there" "$(nv_value)" straight
pids="$(status_of pid) $(status_of tpm_pid)"
kill -9 "$(status_of tpm_pid)"
check "both processes end when the TPM is killed" wait_until 30 gone $pids
check "mount after that" again_with_tpm
is "what was acknowledged is there still" "$(nv_value)" straight

# Kills while stores are under way: each value is written after the one before was acknowledged.
kill_during_stores() { # pid|tpm_pid ROUND
    local pids next=0 i
    pids="$(status_of pid) $(status_of tpm_pid)"
    : >"$TMP/acknowledged"
    (
        for ((i = 10000000; ; i++)); do
            nv_write $i || exit
            echo $i >>"$TMP/acknowledged"
        done
    ) >/dev/null 2>&1 &
    wait_until 30 test -s "$TMP/acknowledged" || return 1
    sleep "0.0$2"
    kill -9 "$(status_of "$1")"
    wait_until 30 gone $pids || return 1
    wait $!
    again_with_tpm || return 1
    next=$(tail -n 1 "$TMP/acknowledged")
    i=$(nv_value)
    echo "acknowledged $next, found $i"
    [ "$i" = "$next" ] || [ "$i" = $((next + 1)) ]
}
for round in 1 2 3 4 5 6 7 8 9; do
    check "daemon killed during stores ($round)" kill_during_stores pid $round
    check "TPM killed during stores ($round)" kill_during_stores tpm_pid $round
done

# ---- every orderly end ---------------------------------------------------------------------------
# A new TPM, since one that ever ended without it calls its clock unsafe for long.
unmounted "$M"
new_mount
nv_define >"$OUT" 2>&1
nv_write original >"$OUT" 2>&1
t createprimary -C o -G ecc -c "$TMP/primary" >"$OUT" 2>&1
t evictcontrol -C o -c "$TMP/primary" $HANDLE >"$OUT" 2>&1
t readpublic -c $HANDLE -o "$TMP/public" >"$OUT" 2>&1
ends_in_order() { # COMMAND...
    local pids
    pids="$(status_of pid) $(status_of tpm_pid)"
    getrandom && "$@" && wait_until 30 not_mounted && wait_until 30 gone $pids && again_with_tpm &&
        clock_is_safe
}
sigterm() {
    kill "$(status_of pid)"
}
sigint() {
    kill -INT "$(status_of pid)"
}
check "orderly: vnvram unmount" ends_in_order unmounted "$M"
check "orderly: SIGTERM" ends_in_order sigterm
check "orderly: SIGINT" ends_in_order sigint
if [ "$(id -u)" -eq 0 ]; then
    check "orderly: umount" ends_in_order umount "$M"
    check "orderly: umount -l" ends_in_order umount -l "$M"
    check "orderly: fusermount3 -u" ends_in_order fusermount3 -u "$M"
fi
check "orderly: fusermount3 -uz" ends_in_order fusermount3 -uz "$M"

# ---- clients as they should not be -----------------------------------------------------------------
COMMAND='\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x7b\x00\x08'
check "a client that goes between write and read" eval "printf '$COMMAND' >$M/tpm0"
check "... leaves the device free" getrandom
check "a reader is at the end at once" test "$(timeout 60 cat "$M/tpm0" | wc -c)" = 0
check "... and the device is free" getrandom

exec 5<>"$M/tpm0"
printf "$COMMAND" >&5
if { exec 6<>"$M/tpm0"; } 2>/dev/null; then
    fail "a second client is told that the device is busy"
    exec 6>&-
else
    pass "a second client is told that the device is busy"
fi
check "a file is read while a client does not read" cmp -n 1 "$M/tpm2-00.permall" "$M/tpm2-00.permall"
exec 5>&-
check "... and the device is free after it" getrandom

has_open() { # PID FILE
    find "/proc/$1/fd" -lname "$2" 2>/dev/null | grep -q .
}
bash -c "exec 5<>'$M/tpm0'; printf '$COMMAND' >&5; exec sleep 60" &
check "a client has the device" wait_until 30 has_open $! "$M/tpm0"
kill -9 $!
wait $! 2>/dev/null
check "... and frees it when it is killed" getrandom
tpm2_createprimary -T "device:$M/tpm0" -C o -G rsa2048 -c "$TMP/killed" >/dev/null 2>&1 &
wait_until 1 has_open $! "$M/tpm0"
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
check "a client killed in a command frees the device" wait_until 30 getrandom

end_during_command() { # COMMAND...
    local pids client i
    pids="$(status_of pid) $(status_of tpm_pid)"
    (
        for ((i = 0; i < 50; i++)); do
            t createprimary -C o -G rsa2048 -c "$TMP/busy" || exit
            t flushcontext -t || exit
        done
    ) >/dev/null 2>&1 &
    client=$!
    wait_until 120 test -e "$TMP/busy" || return 1 # primes are a matter of luck
    rm -f "$TMP/busy"
    "$@"
    wait_until 120 not_mounted || return 1
    wait_until 120 gone $pids $client || {
        still_there $pids $client
        return 1
    }
    again_with_tpm && clock_is_safe
}
check "SIGTERM during a command" end_during_command sigterm
unmount_at_last() { # busy as long as a client has the device open; so until it has not
    wait_until 120 unmounted "$M"
}
check "unmount during a command" end_during_command unmount_at_last
if [ "$(id -u)" -eq 0 ]; then
    check "umount -l during a command" end_during_command umount -l "$M"
fi

# ---- stores that fail, states that are missing ------------------------------------------------------
cp "$M/tpm2-00.permall" "$TMP/permall"
rm "$M/tpm2-00.permall"
if nv_write unstored >"$OUT" 2>&1; then
    fail "a command is not acknowledged without its store"
else
    matches "a command is not acknowledged without its store" "$OUT" 'tpm:error|0x101|failure'
fi
check "unmount of the failed TPM" unmounted "$M"
check_exit 5 "a missing state is an error where there was one" again -o tpm=2.0
check "... which leaves nothing mounted" not_mounted
check "tpm_manufacture insists on a new TPM" again -o tpm=2.0,tpm_manufacture
check "... which works" getrandom
check "... and is a new one" eval "! nv_value"
check "unmount" unmounted "$M"
check "mount without a TPM" again
check "tpm0 is not there then" test ! -e "$M/tpm0"
check "put the old state back" cp "$TMP/permall" "$M/tpm2-00.permall"
: >"$TMP/empty"
check "unmount" unmounted "$M"
check "mount: it is that TPM" again_with_tpm
check "... with its key" t readpublic -c $HANDLE -o "$TMP/public3"
check "... the same" cmp "$TMP/public" "$TMP/public3"
check "unmount" unmounted "$M"
again
cp "$TMP/empty" "$M/tpm2-00.permall"
unmounted "$M"
check_exit 5 "an empty state is damage" again -o tpm=2.0,tpm_manufacture

# ---- swtpm on the same directory --------------------------------------------------------------------
start_swtpm() { # STATE
    rm -f "$TMP/sw" "$TMP/sw.ctrl"
    swtpm socket --tpm2 --tpmstate "$1" --server "type=unixio,path=$TMP/sw" \
        --ctrl "type=unixio,path=$TMP/sw.ctrl" --flags startup-clear >"$TMP/swtpm.log" 2>&1 &
    swtpm_pid=$!
    wait_until 20 swtpm_answers "$TMP/sw.ctrl"
}

rm -f "$IMG"
new_image "$IMG" >/dev/null
again
own_ca
check "swtpm_setup with EK certificates" swtpm_setup --tpm2 --tpm-state "$M" --create-ek-cert \
    --create-platform-cert
check "swtpm on the directory" start_swtpm "dir=$M"
check "EK of swtpm" st readpublic -c 0x81010001 -o "$TMP/ek"
check "certificate of swtpm" st nvread -C o -o "$TMP/cert" 0x1c00002
check "nvdefine in swtpm" st nvdefine -C o -s 8 -a 'ownerread|ownerwrite' $INDEX
check "nvwrite in swtpm" eval "printf by-swtpm | st nvwrite -C o -i - $INDEX"
st shutdown -c
end_swtpm
wait
check "unmount" unmounted "$M"
check "mount with tpm=2.0" again_with_tpm
check "EK of the mount's TPM" t readpublic -c 0x81010001 -o "$TMP/ek2"
check "... the same" cmp "$TMP/ek" "$TMP/ek2"
check "certificate" t nvread -C o -o "$TMP/cert2" 0x1c00002
check "... the same" cmp "$TMP/cert" "$TMP/cert2"
is "swtpm's NV value" "$(nv_value)" by-swtpm
check "nvwrite" nv_write by-mount
check_exit 1 "no swtpm beside the mount's TPM" timeout 60 swtpm socket --tpm2 --tpmstate "dir=$M" \
    --server "type=unixio,path=$TMP/sw2" --flags startup-clear
check "unmount" unmounted "$M"
again
check "back in swtpm" start_swtpm "dir=$M"
check "EK" st readpublic -c 0x81010001 -o "$TMP/ek3"
check "... the same" cmp "$TMP/ek" "$TMP/ek3"
is "the mount's NV value" "$(st nvread -C o -s 8 $INDEX)" by-mount
st shutdown -c
end_swtpm
wait

if swtpm socket --tpm2 --print-capabilities | grep -q tpmstate-dir-backend-uri ||
    swtpm socket --help | grep -q backend-uri; then
    check "swtpm with a single file" start_swtpm "backend-uri=file://$M/linear"
    check "... works" st nvdefine -C o -s 8 -a 'ownerread|ownerwrite' $INDEX
    check "... writes" eval "printf in-afile | st nvwrite -C o -i - $INDEX"
    st shutdown -c
    end_swtpm
    wait
    unmounted "$M"
    again
    check "swtpm with a single file, mounted again" start_swtpm "backend-uri=file://$M/linear"
    is "... reads" "$(st nvread -C o -s 8 $INDEX)" in-afile
    end_swtpm
    wait
fi
check "unmount" unmounted "$M"

# ---- a state directory made elsewhere ------------------------------------------------------------------
mkdir "$TMP/elsewhere"
swtpm_setup --tpm2 --tpm-state "$TMP/elsewhere" --create-ek-cert >/dev/null 2>&1
start_swtpm "dir=$TMP/elsewhere"
st readpublic -c 0x81010001 -o "$TMP/ek4" >/dev/null
st shutdown -c
end_swtpm
wait
rm -f "$IMG"
new_image "$IMG" >/dev/null
again
check "copy a state directory in" cp -a "$TMP/elsewhere/." "$M/"
[ "$(id -u)" -ne 0 ] || chown 12345:12345 "$M"/tpm2-00.permall
check "unmount" unmounted "$M"
check "mount with tpm=2.0" again_with_tpm
check "EK" t readpublic -c 0x81010001 -o "$TMP/ek5"
check "... the same" cmp "$TMP/ek4" "$TMP/ek5"
check "nvdefine" nv_define
[ "$(id -u)" -ne 0 ] ||
    is "the file keeps its owner" "$(stat -c %u:%g:%a "$M/tpm2-00.permall")" 12345:12345:640
check "nvundefine" t nvundefine -C o $INDEX
[ "$(id -u)" -ne 0 ] ||
    is "... when it shrinks, too" "$(stat -c %u:%g:%a "$M/tpm2-00.permall")" 12345:12345:640
check "unmount" unmounted "$M"

# ---- images that are full or do not take a write ----------------------------------------------------
rm -f "$IMG"
new_image "$IMG" --slots 3x4K >/dev/null
again_with_tpm 2>/dev/null
cp "$M/tpm2-00.permall" "$M/filler"
fill_nv() { # until the TPM's state does not fit its 4 KiB slot any more
    local i
    for i in 10 11 12 13 14 15 16 17 18 19; do
        t nvdefine -C o -s 512 0x15000$i && head -c 512 /dev/urandom | t nvwrite -C o -i - 0x15000$i ||
            return
    done
}
check_exit 1 "a state that outgrows the image fails" fill_nv
matches "... as a failure of the TPM" "$ERR" '0x101|TPM failure'
matches "... which is its state" "$M/.vnvram/status" '"state": "failed"'
check "unmount" unmounted "$M"
check "mount: the last state that fitted is whole" again_with_tpm
check "... and works" getrandom
check "... with what it had" t nvread -C o -s 512 0x1500010
check "unmount" unmounted "$M"
check "the image is clean" "$VNVRAM" check "$IMG"

new_mount
check "a value" nv_define
check "... is there" nv_write original
prlimit --pid "$(status_of pid)" --fsize=0:0
check_exit 1 "no acknowledgement when the image takes no write" nv_write unstored
matches "... and the TPM has failed" "$M/.vnvram/status" '"state": "failed"'
matches "... and the mount is read-only" "$M/.vnvram/status" '"read_only": true'
pids="$(status_of pid) $(status_of tpm_pid)"
sigterm
check "it ends all the same" wait_until 30 gone $pids
check "mount again" again_with_tpm
is "what was acknowledged is there" "$(nv_value)" original
check "unmount" unmounted "$M"

# ---- owners ------------------------------------------------------------------------------------------
if [ "$(id -u)" -eq 0 ]; then
    again
    check "the mount is given to another user" chown -R 12345:12345 "$M"
    check "unmount" unmounted "$M"
    for option in '' ,allow_other ,uid=2345,gid=2345 ,uid=2345,gid=2345,allow_other; do
        check "mount (tpm=2.0$option)" again -o "tpm=2.0$option"
        check "... nvwrite" nv_write original
        check "... nvundefine" t nvundefine -C o $INDEX
        check "... nvdefine" nv_define
        matches "... without capabilities" "/proc/$(status_of tpm_pid)/status" '^CapPrm:.*0000$'
        check "unmount" unmounted "$M"
    done
fi

as_nobody() {
    timeout 60 setpriv --reuid nobody --regid nogroup --clear-groups "$@"
}
if [ "$(id -u)" -eq 0 ] && as_nobody test -x "$VNVRAM" -a -w /dev/fuse; then
    U=$TMP/nobody
    mkdir -p "$U/mnt"
    chown -R nobody "$U"
    nobody_mounts() {
        as_nobody "$VNVRAM" mount -o tpm=2.0 "$U/image" "$U/mnt"
    }
    nobody_clock_is_safe() {
        as_nobody tpm2_readclock -T "device:$U/mnt/tpm0" | grep -q 'safe: yes'
    }
    nobody_ends() { # COMMAND...
        local pids
        pids=$(as_nobody cat "$U/mnt/.vnvram/status" |
            sed -n 's/.*"\(tpm_\)\{0,1\}pid": *\([0-9]*\).*/\2/p') || return 1
        as_nobody "$@" && wait_until 30 gone $pids && nobody_mounts && nobody_clock_is_safe
    }
    check "a user's image" as_nobody "$VNVRAM" format "$U/image"
    mounts+=("$U/mnt")
    check "... is mounted with a TPM" nobody_mounts
    check "... which works" as_nobody tpm2_getrandom -T "device:$U/mnt/tpm0" --hex 8
    check_exit 1 "fusermount3 -u says that it is busy" as_nobody fusermount3 -u "$U/mnt"
    check "orderly for a user: vnvram unmount" nobody_ends "$VNVRAM" unmount "$U/mnt"
    check "orderly for a user: fusermount3 -uz" nobody_ends fusermount3 -uz "$U/mnt"
    check "unmount" as_nobody "$VNVRAM" unmount "$U/mnt"
fi

# ---- TPM 1.2, startup=none ---------------------------------------------------------------------------
rm -f "$IMG"
new_image "$IMG" >/dev/null
check "mount with tpm=1.2" again -o tpm=1.2
exec 5<>"$M/tpm0"
printf '\x00\xc1\x00\x00\x00\x12\x00\x00\x00\x65\x00\x00\x00\x06\x00\x00\x00\x00' >&5
is "TPM 1.2 answers" "$(timeout 60 head -c 10 <&5 | od -An -tx1 | tr -d ' \n')" 00c40000001200000000
exec 5>&-
check "its state is there" test -s "$M/tpm-00.permall"
check "unmount" unmounted "$M"
check "mount with tpm=2.0 and startup=none" again -o tpm=2.0,startup=none
exec 5<>"$M/tpm0"
printf "$COMMAND" >&5
is "it waits for TPM2_Startup" "$(timeout 60 head -c 10 <&5 | od -An -tx1 | tr -d ' \n')" \
    80010000000a00000100
exec 5>&-
check "startup" t startup -c
check "getrandom" getrandom
check "unmount" unmounted "$M"
check "the image is clean after all" "$VNVRAM" check "$IMG"
finish
