#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# info and check beside a mount that is written all the time: no lock, no false alarm, what is committed.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3
cd "$TMP" || exit 99

key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
echo $key >key
chmod 600 key
new_image plain.img || exit 99
new_image sealed.img -o key_file=key || exit 99

# Overwrites one file and renames another over a third, until the directory has a file "stop".
busy() {
    local i=0
    until [ -e stop ]; do
        i=$((i + 1))
        head -c $((i % 3000)) /dev/zero >"$1/a"
        echo "$i" >"$1/b" && mv "$1/b" "$1/c"
    done
}

generation() { # FILE: what info has told
    sed -n 's/^ *"generation":\([0-9]*\),$/\1/p' "$1" | head -n 1
}

has_gone_on() {
    "$VNVRAM" info --json "${options[@]}" $image >info.json && [ "$(generation info.json)" -gt "$first" ]
}

for image in plain.img sealed.img; do
    options=()
    [ $image = plain.img ] || options=(-o key_file=key)
    mounted $image dir "${options[@]}" || exit 99
    check_exit 11 "$image is in use: format says so" "$VNVRAM" format --force $image
    matches "and by whom" "$ERR" "$image: in use by process [0-9]+"
    rm -f stop
    busy dir &
    busy=$!
    wait_until 30 test -e dir/c || fail "the writer writes"
    bad=0
    for _ in $(seq 40); do
        "$VNVRAM" info --json "${options[@]}" $image >info.json 2>info.err || bad=$((bad + 1))
        "$VNVRAM" check "${options[@]}" $image >check.out 2>check.err || bad=$((bad + 1))
    done
    is "80 looks at $image found nothing wrong" "$bad $(cat info.err check.err)" "0 "
    first=$(generation info.json)
    check "while it went on from generation $first" wait_until 60 has_gone_on
    touch stop
    wait $busy
    "$VNVRAM" info --json "${options[@]}" $image >info.json
    check "info tells the files that are there, and their lengths" python3 -c '
import json, os
j = json.load(open("info.json"))
files = {s["name"]: s["length"] for s in j["slots"] if s["state"] == "file"}
assert files == {n: os.stat("dir/" + n).st_size for n in os.listdir("dir")}, files
assert j["files"] == len(files) and j["bytes_used"] == sum(files.values())'
    is "status tells the same slots as info" \
        "$(python3 -c 'import json; print(json.load(open("dir/.vnvram/status"))["slots_used"])')" \
        "$(python3 -c 'import json; print(json.load(open("info.json"))["slots_used"])')"
    check "unmount" unmounted dir
done

check "without the key, info tells what stands in the clear" "$VNVRAM" info sealed.img
matches "and says so" "$OUT" 'sealed +AES-256-CBC, HMAC-SHA-256 \(no key given: nothing here is authenticated\)'
matches "names are in the clear" "$OUT" '  c, '
check "its JSON tells it, too" sh -c '"$VNVRAM" info --json sealed.img | grep -q "\"authenticated\":false"'
check "with the key it is true" \
    sh -c '"$VNVRAM" info --json -o key_file=key sealed.img | grep -q "\"authenticated\":true"'
check "check finds no damage without the key" "$VNVRAM" check sealed.img
matches "and does not claim to have authenticated it" "$OUT" '[0-9] structures verified, 0 problems'
check "with the key it does" "$VNVRAM" check -o key_file=key sealed.img
matches "and says so" "$OUT" '[0-9] structures verified and authenticated, 0 problems'
echo ${key/0011/1100} >wrong
chmod 600 wrong
check_exit 7 "a wrong key is told" "$VNVRAM" info -o key_file=wrong sealed.img
check_exit 7 "by check, too" "$VNVRAM" check -o key_file=wrong sealed.img
check_exit 8 "so is a key for an image that is not sealed" "$VNVRAM" info -o key_file=key plain.img
check_exit 8 "by check, too" "$VNVRAM" check -o key_file=key plain.img
matches "which says what to do" "$ERR" 'plain\.img: .*what to do: '

# Names that are no text must neither harm the terminal nor the JSON.
mounted plain.img dir || exit 99
: >dir/$'evil\e[31m\xff"\\name'
check "unmount" unmounted dir
check "info shows a name with control characters" "$VNVRAM" info plain.img
matches "escaped" "$OUT" 'evil\\x1b\[31m\\xff"\\x5cname'
check "and keeps its JSON valid" sh -c '"$VNVRAM" info --json plain.img | python3 -c "import json, sys; json.loads(sys.stdin.buffer.read().decode())"'
finish
