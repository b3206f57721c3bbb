#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram info: for people and for programs.
. "${srcdir:-.}/tests/lib.sh"
need python3
cd "$TMP" || exit 99

"$VNVRAM" format --slots 2x64K,3x4K --reserve vars:10000 a.img || exit 99
before=$(hash a.img)
check "info of a new image" "$VNVRAM" info a.img
matches "tells its size" "$OUT" '^a\.img: vnvram image, version 1, '
matches "that it is not sealed" "$OUT" '^ +sealed +no$'
matches "that it is clean" "$OUT" '^ +state +clean$'
matches "and maps the slots: the reserved one" "$OUT" '^ +[01] +64 KiB +reserved +vars, 9\.8 KiB$'
matches "and the free ones, in one line" "$OUT" '^ +2-4 +4 KiB +free$'

"$VNVRAM" info --json a.img >a.json
check "its JSON is valid, and tells the same" python3 -c '
import json, os, uuid
j = json.load(open("a.json"))
assert j["image"] == "a.img" and j["format_version"] == 1
assert j["size"] == os.stat("a.img").st_size
assert uuid.UUID(j["uuid"]).version == 4
assert j["sealed"] is False and j["clean"] is True and j["generation"] >= 1
assert j["slots_total"] == 5 and j["slots_used"] == 1 and len(j["slots"]) == 5
assert j["bytes_total"] == 2 * 65536 + 3 * 4096 and j["bytes_used"] == 0 and j["files"] == 0
assert [s["capacity"] for s in j["slots"]] == [65536] * 2 + [4096] * 3
kept = [s for s in j["slots"] if s["state"] == "reserved"]
assert len(kept) == 1 and kept[0]["name"] == "vars" and kept[0]["reserved"] == 10000
assert sum(s["state"] == "free" for s in j["slots"]) == 4'
is "nothing was written" "$(hash a.img)" "$before"
chmod 400 a.img
check "a read-only file will do" "$VNVRAM" info a.img

"$VNVRAM" format b.img || exit 99
check "two images differ in their identity" \
    test "$("$VNVRAM" info a.img | grep uuid)" != "$("$VNVRAM" info b.img | grep uuid)"
finish
