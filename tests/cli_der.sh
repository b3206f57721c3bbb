#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram export --der and import --der: there and back, plain and sealed, as other programs read it, and what is
# done to a stream on the way.
. "${srcdir:-.}/tests/lib.sh"
need python3 openssl asn1Decoding
MODULE=$(cd "$srcdir/doc" && pwd)/vnvram.asn1
HERE=$(cd "$srcdir/tests" && pwd)
cd "$TMP" || exit 99
KEY=key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
OTHER=key=ffffffffffffffffffffffffffffffff

# Names, capacities, attributes, contents of a stream, which must not be sealed: nothing of the image it came from.
files_of() { # STREAM
    python3 - "$1" <<'PY'
import sys, hashlib
def walk(b):
    o = 0
    while o < len(b):
        tag, n, h = b[o], b[o + 1], 2
        if n & 0x80:
            k = n & 0x7F
            n, h = int.from_bytes(b[o + 2:o + 2 + k], "big"), 2 + k
        yield tag, b[o + h:o + h + n]
        o += h + n
(_, stream), = walk(open(sys.argv[1], "rb").read())
(_, body), (_, crc), (_, tag) = walk(stream)
(_, head), (_, entries) = walk(body)
assert tag == hashlib.sha256(stream[:len(stream) - 34 - 2 - len(crc)]).digest(), "the digest is not the body's"
print([v.hex() for _, v in walk(head)][5])
for _, entry in walk(entries):
    name, capacity, length, generation, crc, attr, content = [v for _, v in walk(entry)]
    assert int.from_bytes(length, "big") == len(content)
    print(name, length.hex(), crc.hex(), attr.hex(), hashlib.sha256(content).hexdigest())
PY
}

# Has the generation of an image changed?
generation() {
    "$VNVRAM" info --json "$@" | python3 -c 'import json, sys; print(json.load(sys.stdin)["generation"])'
}

mkdir files
printf 'some text' >files/text
: >files/empty
head -c 5000 /dev/urandom >files/random
head -c 4096 /dev/zero >files/zero
printf x >files/$'no\xfftext'
printf hidden >.lock
new_image a.img >/dev/null || exit 99
"$VNVRAM" import a.img files && "$VNVRAM" import a.img .lock || exit 99

# ---- plain ------------------------------------------------------------------------------------------
check "export --der" "$VNVRAM" export --der a.img a.der
is "the file is its owner's" "$(stat -c %a a.der)" 600
check "openssl walks it" openssl asn1parse -inform DER -in a.der
matches "and meets the names" "$OUT" 'UTF8STRING +:text$'
matches "the hidden one, too" "$OUT" 'UTF8STRING +:\.lock$'
matches "and what it is" "$OUT" 'UTF8STRING +:vnvram store$'
check "libtasn1 reads it by the module" asn1Decoding "$MODULE" a.der VNVRAM.Stream
matches "and finds an entry" "$OUT" 'name:text +type:UTF8_STR +value:random$'
files_of a.der >a.files
is "six files" "$(wc -l <a.files)" 7
check "to the standard output" bash -c '"$0" export --der a.img - >stdout.der' "$VNVRAM"
check "it is the same" cmp a.der stdout.der
check_exit 1 "what is there is not replaced" "$VNVRAM" export --der a.img a.der
check "and stays as it was" cmp a.der stdout.der

new_image b.img --slots 3x8K,6x4K >/dev/null
check "import --der" "$VNVRAM" import --der b.img a.der
check "the image is sound" "$VNVRAM" check b.img
"$VNVRAM" export --der b.img b.der
files_of b.der >b.files
check "the same names, attributes, contents, root" cmp a.files b.files
for file in files/*; do
    "$VNVRAM" export b.img "${file#files/}" out && cmp -s out "$file" || fail "content of $file"
    rm -f out
done
before=$(generation b.img)
check_exit 1 "a second time, names are there" "$VNVRAM" import --der b.img a.der
matches "which it says" "$ERR" 'holds a file .* already: nothing was written'
is "and nothing is written" "$(generation b.img)" "$before"
check "--replace replaces them" "$VNVRAM" import --der --replace b.img a.der
new_image c.img >/dev/null
check "from the standard input" bash -c '"$0" import --der c.img - <a.der' "$VNVRAM"
"$VNVRAM" export --der c.img c.der
files_of c.der >c.files
check "the same again" cmp a.files c.files
new_image empty.img >/dev/null
check "a store without files" "$VNVRAM" export --der empty.img empty.der
new_image d.img >/dev/null
check "and back" "$VNVRAM" import --der d.img empty.der
new_image small.img --slots 2x4K >/dev/null
before=$(hash small.img)
check_exit 1 "too little room" "$VNVRAM" import --der small.img a.der
is "nothing is written" "$(hash small.img)" "$before"

# ---- sealed -----------------------------------------------------------------------------------------
new_image s.img -o "$KEY" >/dev/null
check_exit 8 "a plain stream is not for a sealed image" "$VNVRAM" import --der -o "$KEY" s.img a.der
check "unless --plain says so" "$VNVRAM" import --der --plain -o "$KEY" s.img a.der
check "export of a sealed image" "$VNVRAM" export --der -o "$KEY" s.img s.der
check "is sealed: no content shows" bash -c '! grep -aqE "some text|hidden" s.der'
check "openssl walks it" openssl asn1parse -inform DER -in s.der
check "libtasn1 reads it by the module" asn1Decoding "$MODULE" s.der VNVRAM.Stream
matches "and finds IV and MAC" "$OUT" 'name:mac +type:OCT_STR +value:[0-9a-f]{64}$'
check "another program, made from the format's page alone, opens it" python3 -B "$HERE/independent_der.py" s.der "${KEY#key=}" random
cp "$OUT" opened
check "and finds the content" cmp opened files/random
check_exit 1 "but not with another key" python3 -B "$HERE/independent_der.py" s.der "${OTHER#key=}" random
check "export again" "$VNVRAM" export --der -o "$KEY" s.img s2.der
check "two streams of one image share no ciphertext" bash -c '! cmp -s s.der s2.der'
check_exit 6 "export without the key" "$VNVRAM" export --der s.img no.der
check_exit 7 "with a wrong one" "$VNVRAM" export --der -o "$OTHER" s.img no.der
check "nothing was left" test ! -e no.der
check "--plain export" "$VNVRAM" export --der --plain -o "$KEY" s.img sp.der
files_of sp.der >s.files
check "holds the same" cmp a.files s.files

new_image t.img -o "$KEY" >/dev/null
check "import under the same key" "$VNVRAM" import --der -o "$KEY" t.img s.der
"$VNVRAM" export --der --plain -o "$KEY" t.img tp.der
files_of tp.der >t.files
check "the same names, attributes, contents" cmp a.files t.files
new_image p.img >/dev/null
before=$(hash p.img)
check_exit 6 "a sealed stream without its key" "$VNVRAM" import --der p.img s.der
check_exit 7 "with a wrong one" "$VNVRAM" import --der -n "$OTHER" p.img s.der
is "nothing is written" "$(hash p.img)" "$before"
check "with its own key, into a plain image" "$VNVRAM" import --der -n "$KEY" p.img s.der
"$VNVRAM" export --der p.img p.der
files_of p.der >p.files
check "the same" cmp a.files p.files
check "a stream under another key than the image's" "$VNVRAM" export --der -o "$KEY" -n "$OTHER" s.img o.der
new_image u.img -o "$KEY" >/dev/null
check_exit 7 "which the image's does not open" "$VNVRAM" import --der -o "$KEY" u.img o.der
check "but its own does" "$VNVRAM" import --der -o "$KEY" -n "$OTHER" u.img o.der
check "a sealed stream of a plain image" "$VNVRAM" export --der -n "$OTHER" a.img ao.der
check "shows no content" bash -c '! grep -aqE "some text|hidden" ao.der'
check_exit 8 "a key for a plain stream" "$VNVRAM" import --der -n "$OTHER" --replace p.img a.der
printf 'a long passphrase' >pass
chmod 600 pass
check "under a passphrase" "$VNVRAM" export --der -n key_file=pass,key_format=passphrase a.img pass.der
new_image v.img >/dev/null
check "and back" "$VNVRAM" import --der -n key_file=pass,key_format=passphrase v.img pass.der

# ---- hostile ----------------------------------------------------------------------------------------
# FINDING NAME: Python that changes b, the stream, where fix(b) makes checksum and digest right again.
before=$(hash empty.img)
hostile() {
    python3 - "$1" >changed.der <<PY || exit 99
import sys, hashlib, zlib
def length(n):
    if n < 128:
        return bytes([n])
    k = (n.bit_length() + 7) // 8
    return bytes([0x80 | k]) + n.to_bytes(k, "big")
def tlv(tag, v):
    return bytes([tag]) + length(len(v)) + v
def cut(b):
    n, h = b[1], 2
    if n & 0x80:
        h += n & 0x7F
        n = int.from_bytes(b[2:h], "big")
    return b[:h + n], b[h:h + n], b[h + n:]
def number(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))
def body(b):
    return cut(cut(b)[1])[0]
def fix(body):
    return tlv(0x30, body + number(zlib.crc32(body)) + tlv(4, hashlib.sha256(body).digest()))
def entries(b):
    e, out = cut(cut(cut(body(b))[1])[2])[1], []
    while e:
        whole, _, e = cut(e)
        out.append(whole)
    return out
def rebuilt(b, list):
    return fix(tlv(0x30, cut(cut(body(b))[1])[0] + tlv(0x30, b"".join(list))))
b = open(sys.argv[1], "rb").read()
$4
sys.stdout.buffer.write(b)
PY
    check_exit "$2" "hostile: $3" "$VNVRAM" import --der empty.img changed.der
    [ "$2" -eq 0 ] || grep -q . "$ERR" || fail "hostile: $3: says why"
}
hostile a.der 0 "what is only written again is taken" 'b = rebuilt(b, entries(b))'
"$VNVRAM" format -f empty.img >/dev/null
before=$(hash empty.img)
hostile a.der 10 "cut off" 'b = b[:-1]'
hostile a.der 10 "cut off early" 'b = b[:100]'
hostile a.der 4 "nothing" 'b = b""'
hostile a.der 4 "text" 'b = b"some text that is no DER"'
hostile a.der 5 "goes on" 'b += b"\0"'
hostile a.der 5 "a bit of a content" 'b = b.replace(b"some text", b"some tezt")'
hostile a.der 5 "the same with the sums of the whole right" 'b = fix(body(b).replace(b"some text", b"some tezt"))'
hostile a.der 5 "a name with a slash" 'b = fix(body(b).replace(b"\x0c\x04text", b"\x0c\x04te/t"))'
hostile a.der 5 "a name that is .."  '
e = entries(b)
e[0] = tlv(0x30, tlv(0x0c, b"..") + cut(cut(e[0])[1])[2])
b = rebuilt(b, e)'
hostile a.der 5 "a name with a zero" 'b = fix(body(b).replace(b"\x0c\x04text", b"\x0c\x04te\0t"))'
hostile a.der 5 "a name that is too long" '
e = entries(b)
e[-1] = tlv(0x30, tlv(0x0c, b"z" * 256) + cut(cut(e[-1])[1])[2])
b = rebuilt(b, e)'
hostile a.der 0 "a name that is just not too long" '
e = entries(b)
e[-1] = tlv(0x30, tlv(0x0c, b"z" * 255) + cut(cut(e[-1])[1])[2])
b = rebuilt(b, [e[-1]])'
"$VNVRAM" format -f empty.img >/dev/null
before=$(hash empty.img)
hostile a.der 5 "a name twice" 'e = entries(b); b = rebuilt(b, e[:1] + e)'
hostile a.der 5 "names out of order" 'e = entries(b); b = rebuilt(b, e[::-1])'
hostile a.der 5 "a reserved name" 'b = fix(body(b).replace(b"\x0c\x04text", b"\x0c\x04tpm0"))'
hostile a.der 5 "a length in BER" 'w, v, r = cut(b); b = b"\x30\x84" + len(v).to_bytes(4, "big") + v'
hostile a.der 5 "a length in BER further in" '
e = entries(b)
e[0] = b"\x30\x83" + len(cut(e[0])[1]).to_bytes(3, "big") + cut(e[0])[1]
b = rebuilt(b, e)'
hostile a.der 5 "no length, as in BER" 'w, v, r = cut(b); b = b"\x30\x80" + v + b"\0\0"'
hostile a.der 5 "a length beyond all" 'b = fix(body(b).replace(b"\x0c\x04text", b"\x0c\x84\xff\xff\xff\xff"))'
hostile a.der 5 "a number that is not the shortest" '
e = [tlv(0x30, cut(x)[1].replace(b"\x02\x01\x09", b"\x02\x02\0\x09")) for x in entries(b)]
assert e != entries(b)
b = rebuilt(b, e)'
hostile a.der 9 "a newer version" 'b = fix(body(b).replace(b"vnvram store\x02\x01\x01", b"vnvram store\x02\x01\x02"))'
hostile a.der 4 "another kind" 'b = fix(body(b).replace(b"vnvram store", b"vnvram stole"))'
is "nothing of all that was written" "$(hash empty.img)" "$before"
before=$(hash u.img)
python3 -c '
import sys
b = bytearray(open("s.der", "rb").read())
b[len(b) // 2] ^= 1
open("changed.der", "wb").write(b)'
check_exit 5 "sealed: a bit" "$VNVRAM" import --der -o "$KEY" --replace u.img changed.der
python3 - <<'PY'
import zlib
b = open("s.der", "rb").read()
def cut(b):
    n, h = b[1], 2
    if n & 0x80:
        h += n & 0x7F
        n = int.from_bytes(b[2:h], "big")
    return b[:h + n], b[h:h + n], b[h + n:]
def tlv(tag, v):
    n = len(v)
    k = (n.bit_length() + 7) // 8
    return bytes([tag]) + (bytes([n]) if n < 128 else bytes([0x80 | k]) + n.to_bytes(k, "big")) + v
body, _, rest = cut(cut(b)[1])
mac = cut(rest)[2]
body = body.replace(b"\x0c\x04text", b"\x0c\x04tfxt")
c = zlib.crc32(body)
open("changed.der", "wb").write(tlv(0x30, body + tlv(2, c.to_bytes(c.bit_length() // 8 + 1, "big")) + mac))
PY
check_exit 13 "sealed: another name, with a right checksum" "$VNVRAM" import --der -o "$KEY" --replace u.img changed.der
is "nothing of that was written" "$(hash u.img)" "$before"

# ---- wrong use --------------------------------------------------------------------------------------
check_exit 2 "--der is for all files" "$VNVRAM" export --der a.img text out
check_exit 2 "--plain without --der" "$VNVRAM" export --plain a.img text out
check_exit 2 "-n without --der" "$VNVRAM" export -n "$OTHER" a.img text out
check_exit 2 "--plain and a key" "$VNVRAM" export --der --plain -n "$OTHER" a.img out
check_exit 2 "--der and --name" "$VNVRAM" import --der --name x a.img a.der
check_exit 1 "no such stream" "$VNVRAM" import --der a.img nothing.der
check "nothing was left behind" test ! -e out
finish
