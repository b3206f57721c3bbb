#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram check: what it says, its JSON, --repair, and its exit codes as fsck.vnvram.
. "${srcdir:-.}/tests/lib.sh"
need python3
cd "$TMP" || exit 99
ln -s "$VNVRAM" fsck.vnvram

"$VNVRAM" format a.img || exit 99
check "a new image is clean" "$VNVRAM" check a.img
matches "and some structures were verified" "$OUT" '^a\.img: [1-9][0-9]* structures verified, 0 problems$'
check "JSON says the same" sh -c '"$VNVRAM" check --json a.img >a.json'
check "it is valid" python3 -c '
import json
j = json.load(open("a.json"))
assert j["image"] == "a.img" and j["finding"] is None and j["problems"] == 0
assert j["structures"] >= 4 and j["notes"] == [] and j["authenticated"] is False'

printf 'scribble' | dd of=a.img bs=1 seek=100 conv=notrunc status=none
before=$(hash a.img)
check_exit 5 "one bad superblock copy is found" "$VNVRAM" check a.img
matches "and named" "$OUT" '^a\.img: superblock A: '
is "but left alone" "$(hash a.img)" "$before"
check_exit 5 "JSON tells it, too" "$VNVRAM" check --json a.img
cp "$OUT" a.json
check "as a note" python3 -c '
import json
j = json.load(open("a.json"))
assert j["finding"] == "damaged" and j["problems"] == 1
assert [n["where"] for n in j["notes"] if n["finding"]] == ["superblock A"], j'
check_exit 4 "fsck.vnvram says 4: left as it is" ./fsck.vnvram -a a.img
is "and it is" "$(hash a.img)" "$before"
check_exit 0 "--repair restores it" "$VNVRAM" check --repair a.img
check_exit 0 "then the image is clean" "$VNVRAM" check a.img

check_exit 0 "fsck.vnvram takes what fsck passes on" ./fsck.vnvram -a -T -C0 -V -n -p -y -f -v a.img
check_exit 16 "and says 16 to what it does not know" ./fsck.vnvram -q a.img
check_exit 16 "or to no image" ./fsck.vnvram
check_exit 8 "and 8 when there is nothing to check" ./fsck.vnvram missing.img
finish
