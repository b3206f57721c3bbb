#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The line that tells how far a command is: what takes long has one, on a terminal or when it is asked for.
. "${srcdir:-.}/tests/lib.sh"
need python3
cd "$TMP" || exit 99
umask 077

echo "correct horse battery staple" >key
slow=key_file=key,key_format=passphrase
check "an image whose passphrase takes long is made" \
    "$VNVRAM" format -o $slow,kdf_memory=65536,kdf_time=60 --progress a.img
matches "which is told when it is asked for" "$ERR" '^vnvram: deriving the key from the passphrase, [0-9]+ s$'
check "grows" "$VNVRAM" grow -o $slow --slots 1x4K a.img
is "and says nothing where nobody asked" "$(cat "$ERR")" ""
check "grows" "$VNVRAM" grow -o $slow --slots 1x4K --progress a.img
matches "and says it when asked" "$ERR" '^vnvram: deriving the key'
# Where the disk is busy it is not quick; half a second is when it begins to tell.
for _ in {1..50}; do
    rm -f b.img
    start=${EPOCHREALTIME/./}
    "$VNVRAM" format --progress b.img >"$OUT" 2>said
    code=$?
    [ $((${EPOCHREALTIME/./} - start)) -ge 500000 ] || break
done
is "what is quick says nothing" "$code" 0
is "even when asked" "$(cat said)" ""
cat >terminal.py <<'PY'
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
while True:
    try:
        part = os.read(fd, 4096)
    except OSError:
        break
    if not part:
        break
    seen += part
os.waitpid(pid, 0)
open("seen", "wb").write(seen)
PY
check "on a terminal" python3 terminal.py "$VNVRAM" info -o $slow a.img
check "it is always told" grep -q $'\rvnvram: deriving the key from the passphrase' seen
check "and taken away" grep -q $'\r\033\\[K[^v]*a.img: vnvram image' seen
finish
