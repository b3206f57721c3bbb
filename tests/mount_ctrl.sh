#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_ctrl.sh - the control channel of a mount's TPM, as swtpm_ioctl meets it, and its socket.
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need swtpm_ioctl tpm2_getrandom python3

M=$TMP/mnt
IMG=$TMP/image
S=$TMP/socket
client=

hang_up() {
    [ -z "$client" ] || kill "$client" 2>/dev/null
    client=
}
trap 'hang_up; cleanup' EXIT

ctl() {
    timeout 60 swtpm_ioctl --unix "$S" "$@"
}

t() {
    timeout 60 "tpm2_$1" -T "device:$M/tpm0" "${@:2}"
}

status_of() {
    sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$M/.vnvram/status"
}

mount_with() { # OPTIONS
    "$VNVRAM" mount -o "tpm=2.0,$1" "$IMG" "$M"
}

not_mounted() {
    ! grep -qF " $M " /proc/self/mountinfo
}

all_gone() { # the mount and its socket
    not_mounted && [ ! -e "$S" ]
}

device_is_free() { # it is a moment after a client has left
    (exec 5<>"$M/tpm0") 2>/dev/null
}

# What the answer to a command on the device file has as its response code.
rc_of_getrandom() {
    wait_until 30 device_is_free && exec 5<>"$M/tpm0" || return
    printf '\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x7b\x00\x08' >&5
    timeout 60 head -c 10 <&5 | od -An -tx1 -j6 | tr -d ' \n'
    exec 5>&-
}

dial() { # a client that stays until hang_up
    rm -f "$TMP/dialled"
    python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"\0\0\0\x0f")
s.recv(8)
open(sys.argv[2], "w").close()
time.sleep(300)' "$S" "$TMP/dialled" &
    client=$!
    wait_until 20 test -e "$TMP/dialled"
}

new_image "$IMG" >/dev/null
mkdir "$M"
mounts+=("$M")

# ---- usage -------------------------------------------------------------------------------------------
check_exit 2 "ctrl= without tpm= is a usage error" "$VNVRAM" mount -o "ctrl=$S" "$IMG" "$M"
check_exit 2 "terminate without ctrl= is a usage error" mount_with terminate
check_exit 2 "a ctrl_fd that is not there is a usage error" mount_with ctrl_fd=77
check_exit 2 "ctrl_fd=0 is a usage error" mount_with ctrl_fd=0
check_exit 2 "ctrl= and ctrl_fd= are a usage error" mount_with "ctrl=$S,ctrl_fd=3"
echo precious >"$S"
check_exit 1 "a file is not replaced" mount_with "ctrl=$S"
is "... at all" "$(cat "$S")" precious
rm "$S"
check_exit 1 "a directory that is not there is an error" mount_with "ctrl=$TMP/none/socket"
check "nothing is mounted after that" not_mounted

# ---- each operation ------------------------------------------------------------------------------------
check "mount with ctrl=" mount_with "ctrl=$S"
is "the socket's mode" "$(stat -c %a "$S")" 600
check_exit 11 "the socket is in use" "$VNVRAM" mount -o "tpm=2.0,ctrl=$S" "$IMG" "$M"
check "capabilities" ctl -c
matches "... all of them" "$OUT" '0x17fff'
check_exit 1 "the TPM is off: no tpmEstablished" ctl -e
check "buffer size" ctl -b 3000
matches "... is set" "$OUT" 'buffersize: 3000'
check "init" ctl -i
check "tpmEstablished" ctl -e
matches "... is not set" "$OUT" 'is 0'
check "hash" ctl -h abcdef
check "tpmEstablished" ctl -e
matches "... is set" "$OUT" 'is 1'
check "reset it" ctl -r 3
check "tpmEstablished" ctl -e
matches "... is not set" "$OUT" 'is 0'
check_exit 1 "... which locality 2 may not" ctl -r 2
check "locality" ctl -l 2
check "locality 0" ctl -l 0
check "configuration" ctl -g
matches "... of no key" "$OUT" '0x0'
check "info" ctl --info 1
matches "... is JSON" "$OUT" '"family":"2.0"'
check "cancel" ctl -C
check "TPM2_Startup through the device file" t startup -c
check "NV index" t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018
check "... written" eval "printf remember | t nvwrite -C o -i - 0x1500018"
check "save the permanent state" ctl --save permanent "$TMP/permanent"
check "save the volatile state" ctl --save volatile "$TMP/volatile"
ctl --save savestate "$TMP/savestate" >"$OUT" 2>&1 # says nothing
check "there is no savestate" test ! -s "$TMP/savestate"
check_exit 1 "no load while the TPM is on" ctl --load permanent "$TMP/permanent"
check "undefine the index" t nvundefine -C o 0x1500018
check "stop" ctl --stop
check "load the permanent state" ctl --load permanent "$TMP/permanent"
check "load the volatile state" ctl --load volatile "$TMP/volatile"
check "init" ctl -i
is "the TPM is what it was" "$(t nvread -C o -s 8 0x1500018)" remember

# ---- the device file beside it -------------------------------------------------------------------------
check "a client" dial
check_exit 1 "the device file is busy" eval '(exec 5<>"$M/tpm0")'
matches "... and says so" "$ERR" 'busy'
check "the rest of the mount is not" cat "$M/tpm2-00.permall"
hang_up
check "the device file is free again" wait_until 20 t getrandom --hex 8

# ---- resuming, ending ----------------------------------------------------------------------------------
check "store the volatile state" ctl -v
check "it is a file" test -s "$M/tpm2-00.volatilestate"
kill -9 "$(status_of pid)"
check "a killed daemon's socket goes" wait_until 20 test ! -e "$S"
umount -l "$M" 2>/dev/null || fusermount3 -uz "$M" # the dead mount
check "mount" wait_until 20 mount_with "ctrl=$S"
check "init" ctl -i
is "the TPM goes on" "$(rc_of_getrandom)" 00000000
check "shutdown" ctl -s
check "... ends the mount" wait_until 20 all_gone
check "mount" wait_until 20 mount_with "ctrl=$S"
check "init" ctl -i
is "the next TPM starts anew" "$(rc_of_getrandom)" 00000100
check "TPM2_Startup" t startup -c
check "clock" t readclock
matches "... is safe" "$OUT" 'safe: yes'
check "unmount" unmounted "$M"
check "... takes the socket along" wait_until 20 test ! -e "$S"

# ---- the socket ----------------------------------------------------------------------------------------
python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$S"
check "a socket that nobody has is replaced" mount_with "ctrl=$S,ctrl_mode=660"
is "... with the mode asked for" "$(stat -c %a "$S")" 660
rm "$S"
python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$S"
check "unmount" unmounted "$M"
check "another socket in its place stays" test -S "$S"
if [ "$(id -u)" -eq 0 ]; then
    check "mount with an owner" mount_with "ctrl=$S,ctrl_uid=12345,ctrl_gid=54321"
    is "... whose the socket is" "$(stat -c %u:%g "$S")" 12345:54321
    check "unmount" unmounted "$M"
fi
check "a path relative to where we are" eval '(cd "$TMP" && mount_with ctrl=socket)'
check "... works" ctl -c
check "unmount" unmounted "$M"

# ---- terminate, ctrl_fd, startup -----------------------------------------------------------------------
check "mount with terminate" wait_until 20 mount_with "ctrl=$S,terminate"
check "a client" dial
hang_up
check "... ends the mount when it leaves" wait_until 20 all_gone
check "mount with ctrl_fd" wait_until 20 python3 -c '
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(4)
os.set_inheritable(s.fileno(), True)
try:
    sys.exit(os.spawnvp(os.P_WAIT, sys.argv[2], [sys.argv[2], "mount", "-o",
        "tpm=2.0,ctrl_fd=%d" % s.fileno(), *sys.argv[3:]]))
finally:
    if not os.path.ismount(sys.argv[4]):
        os.unlink(sys.argv[1])
' "$S" "$VNVRAM" "$IMG" "$M"
check "... serves" ctl -i
check "unmount" unmounted "$M"
check "the socket is not ours to remove" test -S "$S"
# ---- a socket for commands ------------------------------------------------------------------------------
D=$TMP/server

s() { # tpm2-tools by swtpm's sockets
    timeout 60 "tpm2_$1" -T "swtpm:path=$D" "${@:2}"
}

both_sockets_gone() {
    [ ! -e "$D" ] && [ ! -e "$D.ctrl" ]
}

check_exit 2 "server= without tpm= is a usage error" "$VNVRAM" mount -o "server=$D" "$IMG" "$M"
check_exit 2 "terminate with server= alone is a usage error" mount_with "server=$D,terminate"
check_exit 11 "two sockets of one name are an error" mount_with "server=$S,ctrl=$S"
check "... and leave none" test ! -e "$S"
check "mount with server=" wait_until 20 mount_with "server=$D,ctrl_mode=660"
is "the sockets' modes" "$(stat -c %a "$D" "$D.ctrl" | tr '\n' ' ')" "660 660 "
check "tpm2-tools: random" s getrandom --hex 8
matches "... of 8 bytes" "$OUT" '^[0-9a-f]{16}$'
check "tpm2-tools: a primary key" s createprimary -Q -C o -c "$TMP/primary"
check "tpm2-tools: a key beneath it" s create -Q -C "$TMP/primary" -u "$TMP/pub" -r "$TMP/priv"
s flushcontext -t >/dev/null # there is room for three
check "tpm2-tools: the key loaded" s load -Q -C "$TMP/primary" -u "$TMP/pub" -r "$TMP/priv" -c "$TMP/key"
s flushcontext -t >/dev/null
echo signed >"$TMP/message"
check "tpm2-tools: a signature" s sign -Q -c "$TMP/key" -g sha256 -o "$TMP/signature" "$TMP/message"
check "... that is good" s verifysignature -Q -c "$TMP/key" -g sha256 -m "$TMP/message" -s "$TMP/signature"
check "tpm2-tools: an NV index" s nvdefine -Q -C o -s 6 -a 'ownerread|ownerwrite' 0x1500019
check "... written" eval "printf served | s nvwrite -Q -C o -i - 0x1500019"
check "the device file beside it" wait_until 20 t nvread -C o -s 6 0x1500019
is "... has the same TPM" "$(cat "$OUT")" served
check "a client that stays" python3 - "$D" "$M/tpm0" <<'PY'
import errno, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
command = bytes.fromhex("80010000000c0000017b0008")
for junk in b"\x80\x01\0\0\0\x02", b"\x80\x01\0\0\x20\0" + bytes(8186):
    s.sendall(junk)
    assert s.recv(10, socket.MSG_WAITALL).hex() == "80010000000a00000142"
s.sendall(command[:7])
s.sendall(command[7:])
assert s.recv(20, socket.MSG_WAITALL)[6:10] == bytes(4)
try:
    os.open(sys.argv[2], os.O_RDWR)
    sys.exit("the device file is not busy")
except OSError as e:
    assert e.errno == errno.EBUSY, e
s.sendall(b"\xff" * 6)
assert s.recv(10, socket.MSG_WAITALL)[6:] == bytes.fromhex("00000142")
assert s.recv(1) == b""  # such a peer is lost
PY
check "... harms nobody" s getrandom --hex 8
check "the control channel is beside it" timeout 60 swtpm_ioctl --unix "$D.ctrl" -C
S_WAS=$S S=$D.ctrl
check "a client of the control channel" dial
check_exit 1 "the device file is busy" eval '(exec 5<>"$M/tpm0")'
hang_up
S=$S_WAS
check "the device file is free again" wait_until 20 t getrandom --hex 8
kill -9 "$(status_of pid)"
check "a killed daemon's sockets go" wait_until 20 both_sockets_gone
umount -l "$M" 2>/dev/null || fusermount3 -uz "$M"
check "mount with server= and ctrl=" wait_until 20 mount_with "server=$D,ctrl=$S"
check "... which powers the TPM on" ctl -i
check "... beside which no other is made" test ! -e "$D.ctrl"
check "unmount" unmounted "$M"
check "... takes the sockets along" wait_until 20 eval 'both_sockets_gone && [ ! -e "$S" ]'

check "mount with startup=clear" wait_until 20 mount_with "ctrl=$S,startup=clear"
is "the TPM is started" "$(rc_of_getrandom)" 00000000
check "... and on" ctl -e
check "unmount" unmounted "$M"
check "the image is clean" "$VNVRAM" check "$IMG"
finish
