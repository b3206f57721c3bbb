#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_qemu.sh - QEMU with a mount's TPM; its firmware is guest enough.
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need qemu-system-x86_64 python3

qemu_pids=()

end_qemu() {
    local pid
    for pid in "${qemu_pids[@]}"; do
        kill -9 "$pid" 2>/dev/null
    done
}
trap 'end_qemu; cleanup' EXIT

vm() { # NAME: a new image, mounted, its socket NAME.ctrl, its traffic NAME.pcap
    new_image "$TMP/$1.img" -f && mounted "$TMP/$1.img" "$TMP/$1" \
        -o "tpm=2.0,ctrl=$TMP/$1.ctrl,pcap=$TMP/$1.pcap"
}

qemu() { # NAME MODEL [OPTION...]
    qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none -chardev "socket,id=c,path=$TMP/$1.ctrl" \
        -tpmdev emulator,id=t,chardev=c -device "$2,tpmdev=t" \
        -qmp "unix:$TMP/$1.qmp,server=on,wait=off" "${@:3}" 2>"$TMP/$1.log" >&2 &
    qemu_pids+=($!)
    wait_until 30 test -S "$TMP/$1.qmp"
}

qmp() { # NAME COMMAND [ARGUMENTS]: prints what is returned
    timeout 60 python3 -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw")
f.readline()
for command, arguments in (("qmp_capabilities", "{}"), sys.argv[2:]):
    f.write(json.dumps({"execute": command, "arguments": json.loads(arguments)}))
    f.flush()
    answer = {}
    while "return" not in answer and "error" not in answer:
        line = f.readline()
        if not line:
            sys.exit(0 if command == "quit" else 1)
        answer = json.loads(line)
print(json.dumps(answer))
sys.exit("error" in answer)' "$TMP/$1.qmp" "$2" "${3:-{\}}"
}

# How often the firmware has started the TPM; has ended what it does with it (TPM2_HierarchyChangeAuth).
count() { # NAME HEX
    python3 -c 'import sys; print(open(sys.argv[1], "rb").read().count(bytes.fromhex(sys.argv[2])))' \
        "$TMP/$1.pcap" "$2"
}
startups() {
    count "$1" 80010000000c00000144
}
boots() {
    count "$1" 80020000003100000129
}
failures() {
    count "$1" 80010000000a00000101
}
has_booted() { # NAME TIMES
    [ "$(boots "$1")" -eq "$2" ]
}

has_status() { # NAME QUERY STATUS
    qmp "$1" "$2" | grep -q "\"status\": \"$3\""
}

all_gone() { # NAME
    ! grep -qF " $TMP/$1 " /proc/self/mountinfo && [ ! -e "$TMP/$1.ctrl" ]
}

for model in tpm-tis tpm-crb; do
    check "a TPM" vm source
    check "QEMU with $model" qemu source "$model"
    check "its firmware uses the TPM" wait_until 60 has_booted source 1
    check "reset" qmp source system_reset
    check "... and once more" wait_until 60 has_booted source 2
    is "each time it is started once" "$(startups source)" 2
    is "only QEMU's question before that was refused" "$(failures source)" 1
    check "stop" qmp source stop
    check "migrate to a file" qmp source migrate "{\"uri\": \"exec:cat >$TMP/state\"}"
    check "... it is done" wait_until 60 has_status source query-migrate completed
    check "quit" qmp source quit
    check "... ends the mount" wait_until 30 all_gone source
    check "its image is clean" "$VNVRAM" check "$TMP/source.img"

    check "another TPM" vm target
    check "QEMU that waits" qemu target "$model" -incoming "exec:cat $TMP/state"
    check "... takes the machine" wait_until 60 has_status target query-status paused
    check "no volatile state is left behind" test ! -e "$TMP/target/tpm2-00.volatilestate"
    check "it runs" qmp target cont
    check "reset" qmp target system_reset
    check "its firmware uses the TPM" wait_until 60 has_booted target 1
    is "which was not started before" "$(startups target)" 1
    check "quit" qmp target quit
    check "... ends the mount" wait_until 30 all_gone target
    check "its image is clean" "$VNVRAM" check "$TMP/target.img"
    rm -f "$TMP"/*.qmp "$TMP/state"
done
finish
