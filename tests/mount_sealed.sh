#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A sealed image in use: what opens it, what an outsider finds in it and around it, and that all that
# works on an unsealed mount works here.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need openssl python3 setpriv swtpm swtpm_ioctl tpm2_getrandom

unseal=$srcdir/tests/independent_unseal.py
find_keys=$srcdir/tests/find_keys.py
M=$TMP/mnt
IMG=$TMP/image
MARKER="plaintext-marker-$RANDOM-$RANDOM"
swtpm_pid=
front=

end_children() {
    [ -z "$swtpm_pid" ] || kill "$swtpm_pid" 2>/dev/null
    [ -z "$front" ] || kill "$front" 2>/dev/null
}
trap 'end_children; cleanup' EXIT

# ---- keys -----------------------------------------------------------------------------------------

umask 077
hex=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
echo "$hex" >"$TMP/hex"
printf "$(sed 's/../\\x&/g' <<<"$hex")" >"$TMP/binary"
head -c 16 /dev/urandom >"$TMP/other"
echo "correct horse battery $RANDOM" >"$TMP/passphrase"
KEY=key_file=$TMP/hex
BIN=key_file=$TMP/binary,key_format=binary
OTHER=key_file=$TMP/other,key_format=binary
PASS=key_file=$TMP/passphrase,key_format=passphrase
CHEAP=kdf_memory=1024,kdf_time=1

status_of() {
    sed -n "s/.*\"$1\": *\([^,]*\).*/\1/p" "$M/.vnvram/status"
}

gone() {
    ! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null
}

with_key() { # ARGUMENT...: mount with it
    "$VNVRAM" mount -o "$1" "${@:2}" "$IMG" "$M"
}

# Runs a command on a terminal of its own and types a line at each prompt.
cat >"$TMP/type.py" <<'PYTHON'
import os, pty, select, sys
lines, command = sys.argv[1].split("|"), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown = b""
while True:
    if not select.select([fd], [], [], 60)[0]:
        sys.exit("nothing more is asked, and it does not end")
    try:
        got = os.read(fd, 4096)
    except OSError:
        got = b""
    if not got:
        break
    shown += got
    while lines and shown.count(b": ") > shown.count(b"TYPED"):
        os.write(fd, lines.pop(0).encode() + b"\n")
        shown += b"TYPED"
sys.stdout.write(shown.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PYTHON
on_terminal() {
    python3 "$TMP/type.py" "$@"
}

# ---- what opens it --------------------------------------------------------------------------------

check "format with a key" new_image "$IMG" -o "$KEY"
mkdir "$M"
before=$(hash "$IMG")
check_exit 6 "without a key it does not mount" "$VNVRAM" mount "$IMG" "$M"
matches "and that is said" "$ERR" 'the image is sealed: give its key'
check_exit 7 "with a wrong key it does not mount" with_key "$OTHER"
matches "and that is said" "$ERR" 'wrong key'
check_exit 7 "a passphrase is no raw key" with_key "$PASS"
check_exit 9 "with another cipher it does not mount" with_key "$KEY,enc_mode=aes-gcm"
check_exit 2 "a key of the wrong length is malformed" with_key "key=0011"
check_exit 2 "two keys are a usage error" with_key "$KEY,key_fd=0"
is "none of these wrote to it" "$(hash "$IMG")" "$before"
new_image "$TMP/plain" >"$OUT"
check_exit 8 "a key for an unsealed image is refused" "$VNVRAM" mount -o "$KEY" "$TMP/plain" "$M"
matches "and that is said" "$ERR" 'the image is not sealed'

check "it mounts with its key" mounted "$IMG" "$M" -o "$KEY"
is "the status says sealed" "$(status_of sealed)" true
check "a file is written" cp /proc/self/cmdline "$M/small"
printf '%s' "$MARKER" >"$M/marked"
head -c 100000 /dev/zero | tr '\0' 'M' >"$M/large"
check "keys are listed while it is mounted" "$VNVRAM" key list "$IMG"
check "and tested" "$VNVRAM" key test -o "$KEY" "$IMG"
check_exit 7 "and a wrong one is told" "$VNVRAM" key test -o "$OTHER" "$IMG"
check_exit 11 "but not changed" "$VNVRAM" key add -o "$KEY" -n "$OTHER" "$IMG"

check "it settles" settled "$M"
was=$(status_of flushes)
dd if=/dev/zero of="$M/small" bs=4096 count=1 conv=notrunc,fsync 2>"$ERR"
check "it settles" settled "$M"
is "a commit is one flush, and so is what marks it clean" "$(status_of flushes)" $((was + 2))

daemon=$(status_of pid)
check "its keys lie in the pool for them only" python3 "$find_keys" "$daemon" "$IMG" "$hex"
matches "and there they are" "$OUT" '^inside [4-7] outside 0 locked$'
matches "it leaves no core" "/proc/$daemon/limits" '^Max core file size +0 +0 '
check "unmount" unmounted "$M"

check "the same key in bytes opens it" with_key "$BIN"
is "and the content is there" "$(cat "$M/marked")" "$MARKER"
unmounted "$M"
check "a key from a descriptor opens it" "$VNVRAM" mount -o key_fd=7,tpm=2.0 "$IMG" "$M" 7<"$TMP/hex"
for pid in $(status_of pid) $(status_of tpm_pid); do
    check "and is left open nowhere ($pid)" bash -c '! ls -l "/proc/$1/fd" | grep -qF "$2"' - "$pid" "$TMP/hex"
done
unmounted "$M"
check_exit 0 "0x before the digits is fine" "$VNVRAM" key test -o key_fd=7 "$IMG" 7< <(printf 0x%s "$hex")
mkdir "$TMP/credentials"
install -m 0440 "$TMP/hex" "$TMP/credentials/key"
check "a systemd credential opens it" env CREDENTIALS_DIRECTORY="$TMP/credentials" \
    "$VNVRAM" key test -o "key_file=$TMP/credentials/key" "$IMG"
is "without a warning" "$(cat "$ERR")" ""
install -m 0644 "$TMP/hex" "$TMP/readable"
check "a key that others can read opens it" "$VNVRAM" key test -o "key_file=$TMP/readable" "$IMG"
matches "with a warning" "$ERR" 'warning: key file .* is open to others'

# ---- an outsider's look ---------------------------------------------------------------------------

is "an independent reader unseals it" "$(python3 "$unseal" "$IMG" "$hex" marked)" "$MARKER"
is "a large file, too" "$(python3 "$unseal" "$IMG" "$hex" large | tr -d M | wc -c)" 0
check "the marker is not in the image" bash -c '! grep -qaF "$1" "$2"' - "$MARKER" "$IMG"
check "nor is the key" bash -c '! LC_ALL=C grep -qaF -f "$1" "$2"' - "$TMP/hex" "$IMG"
check "nor a run of the large file" bash -c '! grep -qaE "M{32}" "$1"' - "$IMG"
is "check without the key finds no fault" "$("$VNVRAM" check "$IMG" >"$OUT" 2>&1; echo $?)" 0
is "nor with it" "$("$VNVRAM" check -o "$KEY" "$IMG" >"$OUT" 2>&1; echo $?)" 0
matches "and then it authenticates" "$OUT" 'verified and authenticated, 0 problems'

# The key on the command line, in front, with the TPM process beside it.
mounts+=("$M")
"$VNVRAM" mount -o "foreground,key=$hex,tpm=2.0" "$IMG" "$M" >"$TMP/log" 2>&1 &
front=$!
check "a mount with key= works" wait_until 20 test -e "$M/tpm0"
tpm=$(status_of tpm_pid)
is "ps shows dashes" "$(tr '\0' ' ' <"/proc/$front/cmdline" | grep -o 'key=[^,]*')" "key=${hex//?/-}"
for pid in "$front" "$tpm"; do
    check "no key in the arguments or the environment of $pid" bash -c \
        '! grep -qaF "$1" "/proc/$2/cmdline" "/proc/$2/environ"' - "$hex" "$pid"
done
check "its keys lie in the pool for them only" python3 "$find_keys" "$front" "$IMG" "$hex"
check "the TPM process has none at all" python3 "$find_keys" "$tpm" "$IMG" "$hex"
matches "not even there" "$OUT" '^inside 0 outside 0$'
check "the status does not tell" bash -c '! grep -qF "$1" "$2"' - "$hex" "$M/.vnvram/status"

# ---- all that works elsewhere ---------------------------------------------------------------------

t() {
    timeout 60 "tpm2_$1" -T "device:$M/tpm0" "${@:2}"
}
check "a TPM is on it" t getrandom --hex 8
check "NV is defined" t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018
check "and written" bash -c "printf 'MARKERNV' | timeout 60 tpm2_nvwrite -T device:$M/tpm0 -C o -i - 0x1500018"
kill -9 "$front"
wait "$front" 2>/dev/null
front=
check "the TPM process ends with a killed daemon" wait_until 30 gone "$tpm"
check "nothing of the key is in the log" bash -c '! grep -qF "$1" "$2"' - "$hex" "$TMP/log"
check "after kill -9 it mounts again" with_key "$KEY,tpm=2.0"
is "with all that was acknowledged" "$(t nvread -C o -s 8 0x1500018)" MARKERNV
check "unmount" unmounted "$M"
check "NV's content is not in the image" bash -c '! grep -qaF MARKERNV "$1"' - "$IMG"

check "mount for swtpm" with_key "$KEY"
swtpm socket --tpm2 --tpmstate "dir=$M" --server "type=unixio,path=$TMP/sw" \
    --ctrl "type=unixio,path=$TMP/sw.ctrl" --flags startup-clear >"$TMP/swtpm.log" 2>&1 &
swtpm_pid=$!
check "swtpm runs on it" wait_until 20 swtpm_answers "$TMP/sw.ctrl"
is "and is the same TPM" "$(timeout 60 tpm2_nvread -T "swtpm:path=$TMP/sw" -C o -s 8 0x1500018)" MARKERNV
kill "$swtpm_pid"
wait "$swtpm_pid" 2>/dev/null
swtpm_pid=
check "unmount" unmounted "$M"
is "check finds no fault" "$("$VNVRAM" check -o "$KEY" "$IMG" >"$OUT" 2>&1; echo $?)" 0

# ---- changing keys --------------------------------------------------------------------------------

check "a second key is added" "$VNVRAM" key add -o "$KEY" -n "key_file=$TMP/passphrase,key_format=passphrase,$CHEAP" "$IMG"
check "and opens it" "$VNVRAM" key test -o "$PASS" "$IMG"
check_exit 2 "without a new key none is added" "$VNVRAM" key add -o "$KEY" "$IMG"
check_exit 2 "nor changed" "$VNVRAM" key change -o "$KEY" "$IMG"
check_exit 2 "a recovery key is not brought along" "$VNVRAM" key add -o "$KEY" -n "$PASS" --recovery "$IMG"
check_exit 2 "nothing takes an unknown word" "$VNVRAM" key add -o "$KEY" -n "ro" "$IMG"
check_exit 2 "nor an unknown action" "$VNVRAM" key frobnicate -o "$KEY" "$IMG"
check_exit 8 "an unsealed image has no keys" "$VNVRAM" key list "$TMP/plain"
check_exit 6 "a test without a key has nothing to test" "$VNVRAM" key test "$IMG"
check_exit 2 "a key with fewer bits is refused" "$VNVRAM" key add -o "$KEY" -n "$OTHER" "$IMG"
check "a recovery key is made" "$VNVRAM" key add -o "$PASS" --recovery "$IMG"
recovery=$(grep -oE '([0-9]{6}-){7}[0-9]{6}' "$OUT")
is "and shown" "${#recovery}" 55
check "and opens it" "$VNVRAM" key test -o "key=$recovery,key_format=passphrase" "$IMG"
is "an independent reader takes it" "$(python3 "$unseal" "$IMG" "$recovery" marked)" "$MARKER"
check_exit 7 "a mistyped one does not" "$VNVRAM" key test -o "key=${recovery/-/-1},key_format=passphrase" "$IMG"
wrong=$(((${recovery:0:1} + 1) % 10))${recovery:1}
check_exit 7 "nor one with a wrong digit" "$VNVRAM" key test -o "key=$wrong,key_format=passphrase" "$IMG"
matches "and the group is named" "$ERR" 'group 1 of it is mistyped'
cp "$IMG" "$TMP/before"
check "the first key is removed" "$VNVRAM" key remove -o "$KEY" "$IMG"
check_exit 7 "and opens it no more" "$VNVRAM" key test -o "$KEY" "$IMG"
check "a copy of the image has the others still" "$VNVRAM" key test -o "$PASS" "$IMG"
cp "$IMG" "$TMP/rolled"
for at in 0 16; do # both superblocks of before
    dd if="$TMP/before" of="$TMP/rolled" bs=4096 skip=$at seek=$at count=1 conv=notrunc 2>"$ERR"
done
check_exit 12 "old superblocks, put back, are refused" "$VNVRAM" info -o "$KEY" "$TMP/rolled"
check "its wrapped key is nowhere in the image" python3 - "$TMP/before" "$IMG" <<'PYTHON'
import sys
old, new = (open(p, "rb").read() for p in sys.argv[1:])
sys.exit(old[1280 + 48:1280 + 88] in new)
PYTHON
check "a passphrase is changed" "$VNVRAM" key change -o "$PASS" -n "$KEY" "$IMG"
check_exit 7 "and opens it no more" "$VNVRAM" key test -o "$PASS" "$IMG"
check_exit 2 "a reseal does not drop keys by itself" "$VNVRAM" key reseal -o "$KEY" "$IMG"
check "it does by force" "$VNVRAM" key reseal --force -o "$KEY" "$IMG"
check_exit 7 "then the recovery key opens it no more" "$VNVRAM" key test -o "key=$recovery,key_format=passphrase" "$IMG"
is "content is what it was" "$(python3 "$unseal" "$IMG" "$hex" marked)" "$MARKER"
check_exit 2 "the last key is not removed by itself" "$VNVRAM" key remove -o "$KEY" "$IMG"

# ---- the terminal ---------------------------------------------------------------------------------

check "format asks for a new passphrase twice" on_terminal 'open sesame|open sesame' \
    "$VNVRAM" format -o "key_format=passphrase,$CHEAP" "$TMP/asked"
check "which is not shown" bash -c '! grep -q sesame "$1"' - "$OUT"
check_exit 2 "two that differ are refused" on_terminal 'one|another' \
    "$VNVRAM" format -o "key_format=passphrase,$CHEAP" "$TMP/differ"
check "and nothing is made" test ! -e "$TMP/differ"
check "a passphrase costs what this machine can bear" "$VNVRAM" format -o "$PASS" "$TMP/costly"
"$VNVRAM" key list --json "$TMP/costly" >"$TMP/cost"
kib=$(sed -n 's/.*"argon2id_memory_kib": *\([0-9]*\).*/\1/p' "$TMP/cost")
check "64 to 256 MiB of memory" [ "$kib" -ge 65536 -a "$kib" -le 262144 ]
matches "at least three passes" "$TMP/cost" '"argon2id_passes": *([3-9]|[1-9][0-9]+)'
check "and opens it" "$VNVRAM" key test -o "$PASS" "$TMP/costly"
check "mount asks for it" on_terminal 'open sesame' "$VNVRAM" mount -o key_format=passphrase "$TMP/asked" "$M"
is "and mounts" "$(status_of sealed)" true
daemon=$(status_of pid)
check "the passphrase is not in the daemon's open memory" python3 - "$daemon" <<'PYTHON'
import re, sys
pid = sys.argv[1]
smaps = open(f"/proc/{pid}/smaps").read()
found = []
with open(f"/proc/{pid}/mem", "rb", 0) as mem:
    for m in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) r.*?^VmFlags:([^\n]*)", smaps, re.M | re.S):
        if " dd" in m[3] or " io" in m[3] or int(m[2], 16) - int(m[1], 16) >= 1 << 30:
            continue
        try:
            mem.seek(int(m[1], 16))
            if b"open sesame" in mem.read(int(m[2], 16) - int(m[1], 16)):
                found.append(m[1])
        except (OSError, ValueError):
            pass
sys.exit(f"found at {found}" if found else 0)
PYTHON
unmounted "$M"
check_exit 7 "a wrong one is refused" on_terminal 'open barley' \
    "$VNVRAM" key test -o key_format=passphrase "$TMP/asked"
check_exit 6 "without a terminal it is said that there is none" setsid -w \
    "$VNVRAM" key test -o key_format=passphrase "$TMP/asked"
matches "with what to do" "$ERR" 'there is no terminal to ask for the passphrase'

# ---- without locked memory ------------------------------------------------------------------------

# A sanitizer needs more memory than the limits here leave.
if ! grep -q __asan_init "$VNVRAM"; then
    chmod 755 "$TMP"
    chmod 644 "$TMP/asked"
    program=$(program_for_all)
    check_exit 1 "where memory cannot be locked, no key is taken" setpriv --reuid=65534 --regid=65534 --clear-groups \
        prlimit --memlock=0:0 "$program" key test -o "key=$hex" "$TMP/asked"
    matches "and the remedy is said" "$ERR" 'cannot lock 256 KiB of memory for keys.*raise the limit'
    check "the rest works" setpriv --reuid=65534 --regid=65534 --clear-groups prlimit --memlock=0:0 "$program" key list "$TMP/asked"
fi

# ---- the end --------------------------------------------------------------------------------------

check_exit 2 "destroy wants a key or force" "$VNVRAM" key destroy "$IMG"
check_exit 7 "a wrong key does not destroy" "$VNVRAM" key destroy -o "$OTHER" "$IMG"
check "the right one does" "$VNVRAM" key destroy -o "$KEY" "$IMG"
check_exit 7 "after that nothing opens it" with_key "$KEY"
matches "and that is said" "$ERR" 'its keys were destroyed'
check "all key slots are zero" python3 - "$IMG" <<'PYTHON'
import sys
image = open(sys.argv[1], "rb").read()
sys.exit(any(image[1280:2304]) or any(image[65536 + 1280:65536 + 2304]))
PYTHON
finish
