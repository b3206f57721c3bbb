#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram import and export: files into an unmounted image and out of it, all or none.
. "${srcdir:-.}/tests/lib.sh"
need strace

img=$TMP/a.img
mkdir "$TMP/in" "$TMP/out"
new_image "$img" || exit 99
head -c 3000 /dev/urandom >"$TMP/in/vpd.bin"
head -c 100000 /dev/urandom >"$TMP/in/eeprom"
: >"$TMP/in/empty"
generation() {
    "$VNVRAM" info --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["generation"])'
}
same() { # NAME: what is in the image is what is in the directory
    "$VNVRAM" export "${@:2}" "$img" "$1" - | cmp - "$TMP/in/$1"
}

# In.
before=$(generation "$img")
check "a directory is imported" "$VNVRAM" import "$img" "$TMP/in"
is "in one commit, and one that marks it clean" "$(generation "$img")" $((before + 2))
for name in vpd.bin eeprom empty; do
    check "$name has every byte" same $name
done
check "the image is sound" "$VNVRAM" check "$img"
"$VNVRAM" info "$img" >"$OUT"
matches "and clean" "$OUT" 'state +clean'
check_exit 1 "a name that is there is refused" "$VNVRAM" import "$img" "$TMP/in/vpd.bin"
matches "with what to do" "$ERR" 'vpd\.bin already.*--replace'
head -c 5000 /dev/urandom >"$TMP/in/vpd.bin"
head -c 10 /dev/urandom >"$TMP/in/another"
before=$(generation "$img")
check_exit 1 "of several, all or none" "$VNVRAM" import "$img" "$TMP/in/another" "$TMP/in/vpd.bin"
check_exit 1 "the other was not written" "$VNVRAM" export "$img" another -
is "nothing was" "$(generation "$img")" "$before"
check "--replace replaces" "$VNVRAM" import --replace "$img" "$TMP/in/vpd.bin" "$TMP/in/another"
check "the longer one has every byte" same vpd.bin
check "so has the new one" same another
check "a file under another name" "$VNVRAM" import --name other "$img" "$TMP/in/another"
is "has it" "$("$VNVRAM" export "$img" other - | hash /dev/stdin)" "$(hash "$TMP/in/another")"
from_stdin() {
    head -c 7000 "$TMP/in/eeprom" | "$VNVRAM" import "$@" "$img" -
}
check "the standard input" from_stdin --name piped
is "is imported" "$("$VNVRAM" export "$img" piped - | hash /dev/stdin)" "$(head -c 7000 "$TMP/in/eeprom" | hash /dev/stdin)"
check_exit 2 "it needs a name" from_stdin
check_exit 2 "a name is for one file" "$VNVRAM" import --name x "$img" "$TMP/in/vpd.bin" "$TMP/in/empty"
check_exit 2 "and not for a directory" "$VNVRAM" import --name x "$img" "$TMP/in"
for name in tpm0 .vnvram . .. a/b; do
    check_exit 2 "$name is no name" "$VNVRAM" import --name "$name" "$img" "$TMP/in/vpd.bin"
done
check_exit 1 "nor is one of 256 bytes" "$VNVRAM" import --name "$(printf 'a%.0s' {1..256})" "$img" "$TMP/in/vpd.bin"
mkdir "$TMP/odd" "$TMP/odd/sub" "$TMP/none"
check_exit 2 "a directory within is refused" "$VNVRAM" import "$img" "$TMP/odd"
rmdir "$TMP/odd/sub"
ln -s ../in/vpd.bin "$TMP/odd/link"
check_exit 2 "so is a link" "$VNVRAM" import "$img" "$TMP/odd"
check_exit 1 "an empty directory" "$VNVRAM" import "$img" "$TMP/none"
check_exit 1 "a file that is not there" "$VNVRAM" import "$img" "$TMP/none/x"
mkdir "$TMP/twice"
cp "$TMP/in/another" "$TMP/twice/another"
check_exit 1 "two files of one name" "$VNVRAM" import --replace "$img" "$TMP/in/another" "$TMP/twice"

# Slots.
head -c 300000 /dev/zero >"$TMP/large"
check_exit 1 "more than the largest slot" "$VNVRAM" import "$img" "$TMP/large"
matches "says what the slot holds" "$ERR" '300000 bytes.*largest slot holds 262144'
mkdir "$TMP/many"
for i in 1 2 3 4; do
    head -c 200000 /dev/zero >"$TMP/many/$i"
done
before=$(generation "$img")
check_exit 1 "more files than slots" "$VNVRAM" import "$img" "$TMP/many"
matches "says so" "$ERR" 'no slot of at least 200000 bytes is free'
is "and nothing was written" "$(generation "$img")" "$before"
new_image "$TMP/reserved.img" --slots 1x256K,2x4K --reserve kept:200K
check_exit 1 "what is reserved is kept" "$VNVRAM" import "$TMP/reserved.img" "$TMP/many/1"
check "for its name" "$VNVRAM" import --name kept "$TMP/reserved.img" "$TMP/many/1"

# Out.
mkdir "$TMP/new"
check "all files to a directory" "$VNVRAM" export "$img" "$TMP/new"
for name in vpd.bin eeprom empty another; do
    check "$name is the same" cmp "$TMP/in/$name" "$TMP/new/$name"
done
is "they are their owner's" "$(stat -c %a "$TMP"/new/* | sort -u)" 600
is "nothing else is there" "$(ls -A "$TMP/new" | tr '\n' ' ')" "another eeprom empty other piped vpd.bin "
rm "$TMP/new/another" "$TMP/new/eeprom"
check_exit 1 "of several, all or none" "$VNVRAM" export "$img" another eeprom vpd.bin "$TMP/new"
is "none is left" "$(ls -A "$TMP/new" | tr '\n' ' ')" "empty other piped vpd.bin "
check "two by name" "$VNVRAM" export "$img" another eeprom "$TMP/new/"
check "one under another name" "$VNVRAM" export "$img" another "$TMP/out/x"
check "is the same" cmp "$TMP/in/another" "$TMP/out/x"
check_exit 1 "an existing file is refused" "$VNVRAM" export "$img" vpd.bin "$TMP/out/x"
check "and unchanged" cmp "$TMP/in/another" "$TMP/out/x"
check_exit 1 "a file that is not in the image" "$VNVRAM" export "$img" nothing "$TMP/out/y"
check_exit 2 "two files to one" "$VNVRAM" export "$img" vpd.bin another "$TMP/out/y"
check_exit 2 "all files to one" "$VNVRAM" export "$img" "$TMP/out/y"
limited() {
    (ulimit -f 16 && trap '' XFSZ && "$VNVRAM" export "$img" another eeprom "$TMP/out")
}
check_exit 1 "no room" limited
is "leaves nothing" "$(ls -A "$TMP/out")" x

# A cut at every write: all or none.
new_image "$TMP/base.img"
"$VNVRAM" import --name vpd.bin "$TMP/base.img" "$TMP/in/another" || fail "import"
old="$(hash "$TMP/in/another") none "
new="$(hash "$TMP/in/vpd.bin") $(hash "$TMP/in/eeprom") "
contents() {
    local name
    for name in vpd.bin eeprom; do
        "$VNVRAM" export "$1" $name - >"$TMP/content" 2>/dev/null && hash "$TMP/content" || echo none
    done | tr '\n' ' '
}
is "a state to start from" "$(contents "$TMP/base.img")" "$old"
is "without a cut it becomes another" "$(cp "$TMP/base.img" "$TMP/cut.img" &&
    "$VNVRAM" import --replace "$TMP/cut.img" "$TMP/in/vpd.bin" "$TMP/in/eeprom" && contents "$TMP/cut.img")" "$new"
cut_import() { # COUNT: killed at that write
    cp "$TMP/base.img" "$TMP/cut.img" &&
        (export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 # which cannot be traced
        strace -qq -o "$TMP/trace" -e trace=pwrite64 -e inject=pwrite64:signal=KILL:when="$1" \
            "$VNVRAM" import --replace "$TMP/cut.img" "$TMP/in/vpd.bin" "$TMP/in/eeprom"; exit $?) 2>/dev/null
}
cuts=0 olds=0 odd=
until cut_import $((cuts + 1)); do
    cuts=$((cuts + 1))
    case "$(contents "$TMP/cut.img")" in
    "$old") olds=$((olds + 1)) ;;
    "$new") ;;
    *) odd+=" $cuts" ;;
    esac
    [ "$cuts" -lt 50 ] || break
done
is "killed at any write, it is the one or the other" "$odd" ""
check "and both were seen, in $cuts cuts" test "$olds" -ge 3 -a "$olds" -lt "$cuts" -a "$cuts" -lt 50

# Sealed.
head -c 32 /dev/urandom >"$TMP/key"
chmod 600 "$TMP/key"
key=(-o "key_file=$TMP/key,key_format=binary")
plain=$img
img=$TMP/sealed.img
new_image "$img" "${key[@]}"
check_exit 6 "a sealed image wants its key" "$VNVRAM" import "$img" "$TMP/in"
check "and takes files with it" "$VNVRAM" import "${key[@]}" "$img" "$TMP/in"
check "which come out with it" same eeprom "${key[@]}"
check_exit 6 "and not without" "$VNVRAM" export "$img" vpd.bin "$TMP/out/z"
head -c 32 /dev/urandom >"$TMP/wrong"
chmod 600 "$TMP/wrong"
check_exit 7 "nor with another" "$VNVRAM" export -o "key_file=$TMP/wrong,key_format=binary" "$img" vpd.bin "$TMP/out/z"
check_exit 7 "nor in" "$VNVRAM" import --replace -o "key_file=$TMP/wrong,key_format=binary" "$img" "$TMP/in"
check_exit 8 "a key for a plain image" "$VNVRAM" export "${key[@]}" "$plain" vpd.bin "$TMP/out/z"
is "nothing is left of all that" "$(ls -A "$TMP/out")" x
finish
