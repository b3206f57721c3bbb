#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# -o anchor=FILE: an older image, a fork and another image are refused; crashes are not.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3
cd "$TMP" || exit 99

umask 077
mkdir mnt
new_image a.img && new_image other.img || exit 99
with=(-o anchor=anchor)

commit() {
    for value; do
        echo "$value" >mnt/f || return
    done
}

holder() {
    python3 -c 'import json; print(json.load(open("mnt/.vnvram/status"))["pid"])'
}

# refused NAME CODE REGEX [OPTION...]: neither mounts nor changes image or anchor
refused() {
    local before
    before=$(hash a.img)$(hash anchor)
    check_exit "$2" "$1 is refused" "$VNVRAM" mount "${with[@]}" "${@:4}" a.img mnt
    matches "and it says why" "$ERR" "$3"
    is "and nothing is written" "$(hash a.img)$(hash anchor)" "$before"
}

# ---- the first one ----------------------------------------------------------------------------------

check_exit 1 "a missing anchor is an error" "$VNVRAM" mount "${with[@]}" a.img mnt
matches "which says how the first one is made" "$ERR" 'anchor_create'
check "and makes none" test ! -e anchor
check_exit 2 "anchor_create alone is wrong usage" "$VNVRAM" mount -o anchor_create a.img mnt
check_exit 2 "so is accept_rollback" "$VNVRAM" mount -o accept_rollback a.img mnt
check_exit 2 "and an anchor made read-only" "$VNVRAM" mount "${with[@]}" -o anchor_create,ro a.img mnt

check "anchor_create makes one" mounted a.img mnt "${with[@]}" -o anchor_create
is "its owner alone may read it" "$(stat -c %a anchor)" 600
matches "status names it" mnt/.vnvram/status "\"anchor\": \"$TMP/anchor\""
check_exit 11 "it is for one mount at a time" "$VNVRAM" mount "${with[@]}" other.img mnt
matches "and says so" "$ERR" 'anchor: in use by process'
commit 1 2
check "info compares beside the mount" "$VNVRAM" info "${with[@]}" a.img
matches "and says so" "$OUT" 'anchor +generation [0-9]+ in anchor: '
check "info without it works, too" "$VNVRAM" info a.img
matches "and says what it cannot tell" "$OUT" 'anchor +none given: '
check "unmounts" unmounted mnt
refused "anchor_create with one that is there" 1 'leave out anchor_create' -o anchor_create
check "mounts again" mounted a.img mnt "${with[@]}"
is "everything is there" "$(cat mnt/f)" 2
cp a.img older.img
"$VNVRAM" snapshot mnt snapshot.img
commit 3 4
check "unmounts" unmounted mnt
cp a.img newest.img
cp anchor newest.anchor

# ---- rollback, fork, another image ------------------------------------------------------------------

cp older.img a.img
refused "an older image" 12 'rolled back: .* it is older'
refused "an older image, read-only," 12 'it is older' -o ro
check_exit 12 "info finds it, too" "$VNVRAM" info "${with[@]}" a.img
cp snapshot.img a.img
refused "an older snapshot" 12 'rolled back'
check "mounts without its anchor" mounted a.img mnt
commit a b c d e f
check "unmounts" unmounted mnt
refused "one that went on without its anchor" 12 'did not grow from there'
cp other.img a.img
refused "another image" 12 'another image'
cp older.img a.img
check "accept_rollback takes it" mounted a.img mnt "${with[@]}" -o accept_rollback
is "as it is" "$(cat mnt/f)" 2
check "unmounts" unmounted mnt
check_exit 0 "which is logged" sh -c 'cp newest.img a.img && cp newest.anchor anchor && cp older.img a.img &&
    "$VNVRAM" mount -o anchor=anchor,accept_rollback a.img mnt'
matches "as a warning" "$ERR" 'warning: .*a\.img: generation [0-9]+ is accepted, though the anchor anchor demands'
commit 5
check "unmounts" unmounted mnt
check "mounts as usual from then on" mounted a.img mnt "${with[@]}"
is "and goes on from there" "$(cat mnt/f)" 5
check "unmounts" unmounted mnt
cp newest.img a.img
refused "what was newest before" 12 'rolled back'
cp older.img a.img
check "accept it once more" mounted a.img mnt "${with[@]}" -o accept_rollback
commit 6 7
check "unmounts" unmounted mnt

# ---- an anchor that is none --------------------------------------------------------------------------

cp anchor good.anchor
spoil anchor 20
check "one damaged record is no matter" mounted a.img mnt "${with[@]}"
check "unmounts" unmounted mnt
cp good.anchor anchor
spoil anchor 20
spoil anchor 4116
refused "an anchor of which nothing is whole" 5 'no anchor is readable'
refused "even where the rollback is accepted, it" 5 'no anchor is readable' -o accept_rollback
: >anchor
refused "an empty one" 5 'too short'
truncate -s 8192 anchor
refused "a blank one" 5 'blank'
cp good.anchor anchor

# ---- kill -9 in the middle of commits -----------------------------------------------------------------

cat >writer.py <<'PY'
import os
n = 0
try:
    while True:
        n += 1
        with open("mnt/.n", "w") as f:
            f.write(str(n))
        os.rename("mnt/.n", "mnt/n")
        done = n
        with open("done", "w") as f:
            f.write(str(done))
except OSError:
    pass
PY
check "mounts" mounted a.img mnt "${with[@]}"
python3 writer.py &
writer=$!
wait_until 30 test -s done
bad=0
for i in {1..20}; do
    "$VNVRAM" info "${with[@]}" a.img >info.out 2>info.err || bad=$((bad + 1))
done
kill "$writer"
wait "$writer" 2>/dev/null
is "20 looks beside a writer agree with the anchor" "$bad$(cat info.err)" 0
check "unmounts" unmounted mnt

bad=0
lost=0
for ((i = 0; i < 15; i++)); do
    mounted a.img mnt "${with[@]}" 2>err || { bad=$((bad + 1)) && cat err >&2; break; }
    rm -f done
    pid=$(holder)
    python3 writer.py 2>/dev/null &
    wait_until 30 test -s done
    python3 -c "import random, time; time.sleep(random.random() / 10)"
    kill -9 "$pid"
    wait $!
    acked=$(cat done)
    "$VNVRAM" mount "${with[@]}" a.img mnt 2>err || { bad=$((bad + 1)) && cat err >&2; break; }
    [ "$(cat mnt/n)" -ge "$acked" ] || lost=$((lost + 1))
    unmounted mnt
done
is "no kill is taken for a rollback" "$bad" 0
is "and no acknowledged commit is lost" "$lost" 0
cp newest.img a.img
refused "the old image, after all that," 12 'rolled back'

# ---- tools that write ----------------------------------------------------------------------------------

head -c 32 /dev/urandom >key
head -c 32 /dev/urandom >key2
key=key_file=key,key_format=binary
rm -f a.img anchor
new_image a.img -o "$key" || exit 99
check "a sealed image with an anchor" mounted a.img mnt "${with[@]}" -o "anchor_create,$key"
commit 1 2
check "unmounts" unmounted mnt
check "key add moves the anchor" \
    "$VNVRAM" key add -o "$key,anchor=anchor" -n key_file=key2,key_format=binary a.img
check "so does key reseal" "$VNVRAM" key reseal --force -o "$key,anchor=anchor" a.img
check "mounts" mounted a.img mnt "${with[@]}" -o "$key"
commit 3
check "unmounts" unmounted mnt
printf 'scribble' | dd of=a.img bs=1 seek=100 conv=notrunc status=none
check "check --repair moves it, too" "$VNVRAM" check --repair -o "$key,anchor=anchor" a.img
check "mounts" mounted a.img mnt "${with[@]}" -o "$key"
is "everything is there" "$(cat mnt/f)" 3
check "unmounts" unmounted mnt
check "key reseal without the anchor" "$VNVRAM" key reseal --force -o "$key" a.img
refused "an image resealed without its anchor" 12 'rolled back' -o "$key"
check_exit 2 "a plain check takes no anchor" "$VNVRAM" check "${with[@]}" a.img
finish
