#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram import --swtpm and export --swtpm, with a real swtpm at both ends: both forms of its storage, both sizes, formats and
# derivations of its keys, plain and sealed images.  What swtpm wrote, what lies in the image and what was exported
# are the same to the byte, says an independent reader, and swtpm goes on with it.
. "${srcdir:-.}/tests/lib.sh"
need python3 openssl strace swtpm swtpm_setup swtpm_ioctl tpm2_nvread
independent=$(cd "$srcdir" && pwd)/tests/independent_swtpm.py
cd "$TMP" || exit 99
swtpm_pid=

end_swtpm() {
    [ -z "$swtpm_pid" ] || kill "$swtpm_pid" 2>/dev/null
    swtpm_pid=
}
trap 'end_swtpm; cleanup' EXIT

start_swtpm() { # DIRECTORY|FILE [OPTION...]
    local where="backend-uri=file://$TMP/$1"
    [ ! -d "$1" ] || where="dir=$TMP/$1"
    rm -f sw sw.ctrl
    swtpm socket --tpmstate "$where" --server type=unixio,path=sw --ctrl type=unixio,path=sw.ctrl \
        "${@:2}" >swtpm.log 2>&1 &
    swtpm_pid=$!
    wait_until 20 swtpm_answers sw.ctrl
}

stop_swtpm() {
    swtpm_ioctl --unix sw.ctrl -s >/dev/null
    wait "$swtpm_pid"
    swtpm_pid=
}

t() {
    timeout 60 "tpm2_$1" -Q -T "swtpm:path=$TMP/sw" "${@:2}"
}

same_blobs() { # ITEM,... SOURCE WORDS [SOURCE WORDS]...
    python3 "$independent" "$@"
}

# A TPM 2.0 with something of its own in it, stopped in the middle: permanent and volatile state.
make_state() { # PLACE VALUE OPTION...
    start_swtpm "$1" --tpm2 --flags not-need-init,startup-clear "${@:3}" &&
        t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018 &&
        printf %s "$2" | t nvwrite -C o -i - 0x1500018 &&
        t pcrextend "16:sha256=$(printf %s "$2" | sha256sum | cut -d' ' -f1)" &&
        t pcrread sha256:16 -o "$1.pcr" && swtpm_ioctl --unix sw.ctrl -v && stop_swtpm
}

# Resumed, not started: what was volatile is there, too.
goes_on() { # PLACE VALUE PCR OPTION...
    start_swtpm "$1" --tpm2 --flags not-need-init "${@:4}" &&
        [ "$(timeout 60 tpm2_nvread -T "swtpm:path=$TMP/sw" -C o -s 8 0x1500018)" = "$2" ] &&
        t pcrread sha256:16 -o pcr && cmp pcr "$3"
    local r=$?
    end_swtpm
    wait
    return $r
}

printf 0x00112233445566778899aabbccddeeff >hex128
printf '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n' >hex256
head -c 16 /dev/urandom >bin128
head -c 32 /dev/urandom >bin256
printf 'a passphrase that is longer than thirty-two bytes\n' >pass
printf 'another one, with no newline' >pass2
head -c 32 /dev/urandom >key
chmod 600 hex* bin* pass* key
key=(-o key_file=key,key_format=binary)

# ---- every kind of key, both forms ------------------------------------------------------------------
n=0
kinds=('' file=hex128 file=hex256,mode=aes-256-cbc file=bin128,format=binary,mode=aes-cbc \
    file=bin256,format=binary,mode=aes-256-cbc pwdfile=pass pwdfile=pass,mode=aes-256-cbc \
    pwdfile=pass,kdf=sha512,mode=aes-128-cbc pwdfile=pass2,kdf=sha512,mode=aes-256-cbc)
[ -z "${VNVRAM_QUICK:-}" ] || kinds=('' "${kinds[6]}")
for words in "${kinds[@]}"; do
    swtpm_key=() our_key=()
    [ -z "$words" ] || swtpm_key=(--key "${words/=/=$TMP/}") our_key=(--swtpm-key "$words")
    for form in dir linear; do
        other=linear
        [ $form = dir ] || other=dir
        what="$form, ${words:-no key}"
        n=$((n + 1))
        value=$(printf 'value%03d' $n)
        rm -rf in in.pcr same other plain.img sealed.img
        [ $form = linear ] || mkdir in
        check "swtpm makes a state ($what)" make_state in "$value" "${swtpm_key[@]}"
        new_image plain.img && new_image sealed.img "${key[@]}"
        check "it is imported" "$VNVRAM" import --swtpm "${our_key[@]}" plain.img in
        is "with a warning where it is no longer encrypted" "$(grep -c 'plain.img: is not sealed' "$ERR")" \
            "$([ "$words" ] && echo 1 || echo 0)"
        check "and into a sealed image" "$VNVRAM" import --swtpm "${our_key[@]}" "${key[@]}" sealed.img in
        is "without one" "$(cat "$ERR")" ""
        mkdir -p clear
        rm -f clear/*
        "$VNVRAM" export plain.img clear
        check "it is exported" "$VNVRAM" export --swtpm $form "${our_key[@]}" plain.img same
        check "and to the other form" "$VNVRAM" export --swtpm $other "${our_key[@]}" "${key[@]}" sealed.img other
        check "each has the same states" same_blobs tpm2-00.permall,tpm2-00.volatilestate \
            in "$words" clear "" same "$words" other "$words"
        is "in the clear it is where it was asked for" "$(grep -laF "$value" plain.img sealed.img same/* same other/* other \
            2>/dev/null | grep -o '^[a-z]*' | sort -u | tr '\n' ' ')" "$([ "$words" ] && echo 'plain ' || echo 'other plain same ')"
        is "nothing else was written" "$(ls -A same | wc -w) $(ls -A other | wc -w)" \
            "$([ $form = dir ] && echo 2 1 || echo 1 2)"
        if [ -z "$words" ] && [ $form = linear ]; then
            check "without a key the file is the same to the byte" cmp in same
        fi
        check "swtpm goes on with it" goes_on same "$value" in.pcr "${swtpm_key[@]}"
        check "and with the other form" goes_on other "$value" in.pcr "${swtpm_key[@]}"
    done
done

# ---- a TPM 1.2 --------------------------------------------------------------------------------------
tpm12_command() { # HEX: the answer's code
    python3 - "$1" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("sw")
s.sendall(bytes.fromhex(sys.argv[1]))
print(s.recv(4096)[6:10].hex())
PY
}
mkdir in12
start_swtpm in12 --flags not-need-init,startup-clear --key "file=$TMP/hex128"
swtpm_ioctl --unix sw.ctrl -v
is "TPM_SaveState" "$(tpm12_command 00c10000000a00000098)" 00000000
stop_swtpm
is "leaves three states" "$(ls in12 | wc -w)" 3
states=tpm-00.permall,tpm-00.volatilestate,tpm-00.savestate
new_image both.img
check "they are imported" "$VNVRAM" import --swtpm --swtpm-key file=hex128 both.img in12
check "exported" "$VNVRAM" export --swtpm dir --swtpm-key pwdfile=pass both.img "dir://$TMP/out12"
check "and to a linear file" "$VNVRAM" export --swtpm linear --swtpm-key file=hex128 both.img "file://$TMP/linear12"
check "all the same" same_blobs $states in12 file=hex128 out12 pwdfile=pass linear12 file=hex128
rm plain.img && new_image plain.img
check "from a linear file, whose TPM it finds out" "$VNVRAM" import --swtpm --swtpm-key file=hex128 plain.img linear12
check "out again" "$VNVRAM" export --swtpm dir plain.img again12
check "the same" same_blobs $states in12 file=hex128 again12 ""
check "swtpm takes them" start_swtpm linear12 --flags not-need-init --key "file=$TMP/hex128"
is "and goes on: TPM_ContinueSelfTest" "$(tpm12_command 00c10000000a00000053)" 00000000
stop_swtpm
# both TPMs in one image
check "a TPM 2.0 beside it" "$VNVRAM" import --swtpm "${our_key[@]}" both.img in
check_exit 2 "a linear file takes one" "$VNVRAM" export --swtpm linear both.img one
check "chosen" "$VNVRAM" export --swtpm linear --tpm 1.2 both.img one
check "it is that" same_blobs $states in12 file=hex128 one ""
check "a directory takes both" "$VNVRAM" export --swtpm dir both.img two
is "which makes five files" "$(ls two | wc -w)" 5
rm -f plain.img && new_image plain.img
check "and gives one" "$VNVRAM" import --swtpm --tpm 2.0 plain.img two
check_exit 1 "of a TPM 1.2 there is none, then" "$VNVRAM" export --swtpm dir --tpm 1.2 plain.img three
check_exit 1 "no directory is left behind" test -e three
check_exit 2 "a name is none of the whole" "$VNVRAM" export --swtpm dir plain.img tpm2-00.permall three
check_exit 2 "a migration key is none of a directory's" "$VNVRAM" export --swtpm dir --swtpm-migration-key file=hex128 plain.img three
check_exit 2 "a form that is none" "$VNVRAM" export --swtpm tape plain.img three
check_exit 1 "an existing state is not replaced" "$VNVRAM" export --swtpm dir plain.img two
check "and is the same" same_blobs tpm2-00.permall two "" in "$words"

# ---- what is wrong with a source --------------------------------------------------------------------
rm -rf in in.pcr plain.img
mkdir in
make_state in bad-one. --key "file=$TMP/hex256,mode=aes-256-cbc" || fail "swtpm makes a state"
new_image plain.img
generation() {
    "$VNVRAM" info --json plain.img | python3 -c 'import json, sys; print(json.load(sys.stdin)["generation"])'
}
before=$(generation)
import() {
    "$VNVRAM" import --swtpm "$@"
}
words_256=file=hex256,mode=aes-256-cbc
right=(--swtpm-key "$words_256")
check_exit 6 "no key" import plain.img in
matches "says how to give it" "$ERR" 'in/tpm2-00\.permall: is encrypted.*--swtpm-key'
check_exit 7 "a wrong key" import --swtpm-key file=bin256,format=binary,mode=aes-256-cbc plain.img in
check_exit 7 "a key of another size" import --swtpm-key file=hex128 plain.img in
matches "says which" "$ERR" 'key of 256 bits'
check_exit 2 "a key that is none" import --swtpm-key file=pass plain.img in
check_exit 2 "words that are none" import --swtpm-key file=hex256,mood=good plain.img in
check_exit 9 "a cipher that is none" import --swtpm-key file=hex256,mode=aes-xts plain.img in
check_exit 2 "a key file must stay" import --swtpm-key file=hex256,mode=aes-256-cbc,remove=true plain.img in
check "it does" test -e hex256
check_exit 2 "a key, but no swtpm" "$VNVRAM" import "${right[@]}" plain.img in
check_exit 2 "a version, but no swtpm" "$VNVRAM" import --tpm 2.0 plain.img in
broken() { # CODE NAME COMMAND, with the files of a copy
    rm -rf broken
    cp -r in broken
    (cd broken && eval "$3") || fail "cannot break it: $3"
    check_exit "$1" "$2" import "${right[@]}" plain.img broken
}
broken 10 "a truncated state" 'truncate -s -1 tpm2-00.permall'
broken 10 "an empty one" ': >tpm2-00.permall'
broken 5 "one that goes on" 'echo >>tpm2-00.permall'
broken 9 "unknown flags" 'printf "\x20" | dd of=tpm2-00.permall bs=1 seek=4 conv=notrunc status=none'
broken 4 "something else" 'head -c 2000 /dev/zero >tpm2-00.permall'
broken 7 "changed bytes" 'printf "\x20\x20\x20" | dd of=tpm2-00.permall bs=1 seek=100 conv=notrunc status=none'
broken 10 "a truncated volatile state" 'truncate -s 500 tpm2-00.volatilestate'
broken 1 "no permanent state" 'rm tpm2-00.permall'
matches "says so" "$ERR" 'tpm2-00.permall is missing'
broken 1 "only the backup of one" 'mv tpm2-00.permall tpm2-00.permall.bak'
matches "says what to do" "$ERR" 'start swtpm once'
broken 4 "a link" 'mv tpm2-00.permall x && mkdir tpm2-00.permall'
check_exit 1 "an empty directory" import plain.img "$(mkdir -p none && echo none)"
check_exit 1 "a directory that is not there" import plain.img nowhere
is "nothing was written in all that" "$(generation)" "$before"

swtpm_setup --tpm2 --tpmstate "file://$TMP/linear" --not-overwrite >/dev/null 2>&1
check_exit 8 "a key, and a state in the clear" import "${right[@]}" plain.img linear
check_exit 2 "a TPM 2.0 for a 1.2" import --tpm 1.2 plain.img linear
for case in '10:100:truncated in its header' '10:1000:truncated in an item'; do
    IFS=: read -r code size name <<<"$case"
    head -c "$size" linear >cut
    check_exit "$code" "a linear file, $name" import plain.img cut
done
damaged() { # CODE NAME OFFSET BYTES
    cp linear cut
    printf "$4" | dd of=cut bs=1 seek="$3" conv=notrunc status=none
    check_exit "$1" "a linear file, $2" import plain.img cut
}
damaged 9 "of a newer version" 8 '\x02'
damaged 5 "with a damaged header" 10 '\x00\x01'
damaged 5 "with an item in the header" 12 '\x10'
damaged 10 "with an item past its end" 12 '\x00\x00\xff\x7f'
damaged 5 "with an item longer than its section" 16 '\xff\xff\xff\xff'
damaged 9 "of several TPMs" 48 '\x01'
damaged 4 "with a wrong magic" 0 'x'
cp linear cut
truncate -s 10M cut
printf '\x01\x00\x00\x05\x01\x00\x00\x05' | dd of=cut bs=1 seek=16 conv=notrunc status=none # 83886081 bytes
check_exit 10 "a linear file, with a huge item" import plain.img cut
truncate -s 100M cut
check_exit 4 "a linear file, with an item that is no state" import plain.img cut
check_exit 4 "a large file that is something else" import --name tpm2-00.permall plain.img "$VNVRAM"
: >cut
truncate -s 192 cut
check_exit 3 "a blank linear file" import plain.img cut
is "nothing was written in all that, either" "$(generation)" "$before"

# ---- no other file ----------------------------------------------------------------------------------
# Whatever is opened to be written, or made.
opened() {
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 strace -f -qq -o trace -e trace=open,openat,creat,memfd_create,rename,renameat,renameat2,link,linkat,symlinkat "$@" || return
    grep -vE 'O_RDONLY|ENOENT|exited' trace | sed 's/[^"]*"\([^"]*\)".*/\1/' | sort -u | tr '\n' ' '
}
rm -rf sealed.img
new_image sealed.img "${key[@]}"
is "import writes to nothing but the image" "$(opened "$VNVRAM" import --swtpm "${right[@]}" "${key[@]}" sealed.img in)" \
    "sealed.img "
rm -rf out
mkdir out
is "export to nothing but what has no name yet" \
    "$(opened "$VNVRAM" export --swtpm linear "${right[@]}" "${key[@]}" sealed.img out/linear | sed 's,/proc/self/fd/[0-9]*,FD,')" \
    ". FD "
rm -rf out

# ---- what is there already --------------------------------------------------------------------------
holds() { # the files of plain.img
    "$VNVRAM" info --json plain.img | python3 -c '
import json, sys
print(*sorted(s["name"] for s in json.load(sys.stdin)["slots"] if s["state"] == "file"))'
}
check "a state" import "${right[@]}" plain.img in
check_exit 1 "is not replaced" import plain.img linear
matches "without being asked to" "$ERR" '--replace'
is "so both are there" "$(holds)" "tpm2-00.permall tpm2-00.volatilestate"
check "but with --replace" import --replace plain.img "file://$TMP/linear"
is "and what does not fit the new one is gone" "$(holds)" "tpm2-00.permall"
"$VNVRAM" info plain.img >"$OUT"
matches "it has room to grow" "$OUT" '256 KiB .*tpm2-00.permall'
check "sound" "$VNVRAM" check plain.img
rm -f plain.img
new_image plain.img
"$VNVRAM" import plain.img hex128 && printf stale | "$VNVRAM" import --name tpm2-00.volatilestate plain.img -
check_exit 1 "a volatile state of another TPM alone is in the way, too" import plain.img linear
check "and goes" import --replace plain.img linear
is "but not other files" "$(holds)" "hex128 tpm2-00.permall"

# ---- what swtpm has encrypted stays so without --swtpm ----------------------------------------------
rm -f plain.img
new_image plain.img
rm -f in/.lock # import leaves it alone, but what is checked here is the rest
check "a state is copied as it is" "$VNVRAM" import plain.img in
check "to the byte" cmp <("$VNVRAM" export plain.img tpm2-00.permall -) in/tpm2-00.permall
check_exit 6 "to convert it takes its key" "$VNVRAM" export --swtpm linear plain.img converted
check_exit 7 "the right one" "$VNVRAM" export --swtpm linear --swtpm-key pwdfile=pass,mode=aes-256-cbc plain.img converted
check "with it" "$VNVRAM" export --swtpm linear "${right[@]}" plain.img converted
check "it is the same" same_blobs tpm2-00.permall,tpm2-00.volatilestate converted "$words_256" in "$words_256"
rm -f plain.img converted
new_image plain.img

# ---- memory that cannot be locked -------------------------------------------------------------------
if [ "$(id -u)" -eq 0 ]; then
    mkdir -m 777 nobodys
    new_image nobodys/a.img
    cp linear nobodys/linear
    chown -R 65534:65534 nobodys
    as_nobody() {
        (cd nobodys && prlimit --memlock=0:0 setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
            "$VNVRAM" "$@")
    }
    check_exit 1 "a TPM's state is taken into locked memory only" as_nobody import --swtpm a.img linear
    matches "and it says what to do" "$ERR" 'cannot lock.*ulimit -l'
    check "another file into any" as_nobody import --name linear a.img linear
    "$VNVRAM" import --swtpm nobodys/a.img linear
    check_exit 1 "nor does a state come out" as_nobody export --swtpm dir a.img out
    check_exit 1 "not even a directory for it" test -e nobodys/out
fi

# ---- a running swtpm --------------------------------------------------------------------------------
start_swtpm in --tpm2 --flags not-need-init "--key" "file=$TMP/hex256,mode=aes-256-cbc"
check_exit 11 "a state that swtpm uses is refused" import --replace "${right[@]}" plain.img in
end_swtpm
wait
check "and taken when it has stopped" import --replace "${right[@]}" plain.img in

# ---- migration blobs --------------------------------------------------------------------------------
for words in '' pwdfile=pass,mode=aes-256-cbc file=hex128; do
    options=() ours=()
    [ -z "$words" ] || options=(--migration-key "${words/=/=$TMP/}") ours=(--swtpm-migration-key "$words")
    what=${words:-no key}
    rm -rf run saved
    mkdir run saved
    start_swtpm run --tpm2 --flags not-need-init,startup-clear "${options[@]}"
    t nvdefine -C o -s 8 -a 'ownerread|ownerwrite' 0x1500018
    printf migrated | t nvwrite -C o -i - 0x1500018
    swtpm_ioctl --unix sw.ctrl --save permanent saved/tpm2-00.permall
    swtpm_ioctl --unix sw.ctrl --save volatile saved/volatile
    stop_swtpm
    rm -f plain.img
    new_image plain.img
    check "a permanent blob ($what)" import "${ours[@]}" plain.img saved/tpm2-00.permall
    check_exit 2 "a blob without a name" import "${ours[@]}" plain.img saved/volatile
    check "with a name" import "${ours[@]}" --name tpm2-00.volatilestate plain.img saved/volatile
    mkdir -p out
    rm -f out/*
    check "come out" "$VNVRAM" export --swtpm migration "${ours[@]}" plain.img out
    check_exit 1 "and replace nothing" "$VNVRAM" export --swtpm migration "${ours[@]}" plain.img out
    rm -f plain.img
    new_image plain.img
    check "the standard input" import "${ours[@]}" --name tpm2-00.permall plain.img - <saved/tpm2-00.permall
    check "a stored state as well" import --replace plain.img run/tpm2-00.permall
    check "one by one" "$VNVRAM" export --swtpm migration "${ours[@]}" plain.img tpm2-00.permall permanent
    check "with the same content" same_blobs tpm2-00.permall run "" out ":$words" permanent ":$words"
    rm permanent
    # swtpm takes what it would have written itself.
    rm -rf run
    mkdir run
    start_swtpm run --tpm2 --flags not-need-init "${options[@]}"
    swtpm_ioctl --unix sw.ctrl --stop
    check "swtpm loads it" swtpm_ioctl --unix sw.ctrl --load permanent out/tpm2-00.permall
    check "and the volatile one" swtpm_ioctl --unix sw.ctrl --load volatile out/tpm2-00.volatilestate
    check "goes on" swtpm_ioctl --unix sw.ctrl -i
    is "and has what was in it" "$(timeout 60 tpm2_nvread -T "swtpm:path=$TMP/sw" -C o -s 8 0x1500018)" migrated
    stop_swtpm
done
finish
