#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram show: what it says of the states of real TPMs, beside what the TPMs say of themselves.
. "${srcdir:-.}/tests/lib.sh"
need python3 swtpm swtpm_setup swtpm_ioctl tpm2_nvreadpublic openssl
cd "$TMP" || exit 99
swtpm_pid=

end_swtpm() {
    [ -z "$swtpm_pid" ] || kill "$swtpm_pid" 2>/dev/null
    swtpm_pid=
}
trap 'end_swtpm; cleanup' EXIT

start_swtpm() { # DIRECTORY [OPTION...]
    rm -f sw sw.ctrl
    swtpm socket --tpm2 --tpmstate "dir=$1" --server type=unixio,path=sw --ctrl type=unixio,path=sw.ctrl \
        --flags startup-clear "${@:2}" >swtpm.log 2>&1 &
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

# What the running TPM says, and what show says of the state it left, must be the same.
the_same() { # SHOWN.JSON PUBLIC HANDLES
    python3 - "$@" <<'PY'
import json, re, sys
shown = json.load(open(sys.argv[1]))
assert shown["kind"] == "tpm2-permanent" and shown["readable"] is True
public, handle = {}, None
for line in open(sys.argv[2]):
    m = re.match(r"(0x[0-9A-Fa-f]+):", line)
    if m:
        handle, where = int(m[1], 16), None
        public[handle] = {}
        continue
    m = re.match(r"\s+([a-z ]+):\s*(\S*)", line)
    if m and m[1] in ("hash algorithm", "attributes"):
        where = m[1]
    elif m and m[1] == "friendly" and where == "hash algorithm":
        public[handle]["hash"] = m[2]
    elif m and m[1] == "value" and where == "attributes":
        public[handle]["attributes"] = int(m[2], 16)
    elif m and m[1] == "size":
        public[handle]["size"] = int(m[2])
assert public
got = {int(i["handle"], 16): {"hash": i["hash"], "attributes": i["attributes_value"], "size": i["size"]}
       for i in shown["nv_indices"]}
assert got == public, (got, public)
handles = sorted(int(h, 16) for h in re.findall(r"0x[0-9A-Fa-f]+", open(sys.argv[3]).read()))
assert handles == sorted(int(k["handle"], 16) for k in shown["persistent_keys"]), handles
assert shown["nv"]["used"] + shown["nv"]["left"] == shown["nv"]["size"]
PY
}

# ---- a TPM 2.0 as it is set up for a machine, with certificates -------------------------------------
own_ca
mkdir a
check "a TPM with certificates" swtpm_setup --tpm2 --tpm-state a --create-ek-cert --create-platform-cert \
    --lock-nvram
check "show" "$VNVRAM" show a tpm2-00.permall
cp "$OUT" a.txt
matches "its kind" a.txt '^tpm2-00\.permall: permanent state of a TPM 2\.0, [0-9.]+ KiB$'
matches "the envelope" a.txt "^  envelope +swtpm's, version 2, for readers from 1 on: plain$"
matches "the version of the state" a.txt '^  version +[0-9]+, for readers from [0-9]+ on$'
matches "NV space" a.txt '^  NV space +[0-9]+ of [0-9]+ bytes used, [0-9]+ left$'
matches "an index that is written and locked" a.txt '^  0x01c00002 .* ppwrite\|writelocked\|.*\|written\|'
matches "the EK certificate, whose it is" a.txt '^    TPM +TPMManufacturer=id:[0-9]+, TPMModel=swtpm'
matches "the platform certificate" a.txt '^    platform certificate, '
matches "the endorsement key" a.txt '^  0x81010001  RSA 2048, sha256: fixedtpm\|.*\|restricted\|decrypt$'
"$VNVRAM" show --json a tpm2-00.permall >a.json
start_swtpm a
t nvread -C o -o ek.der 0x1c00002
t getcap handles-persistent >/dev/null
timeout 60 tpm2_nvreadpublic -T "swtpm:path=$TMP/sw" >a.public
timeout 60 tpm2_getcap -T "swtpm:path=$TMP/sw" handles-persistent >a.handles
stop_swtpm
check "the TPM says the same of its indices and keys" the_same a.json a.public a.handles
check "openssl says the same of the certificate" python3 -c '
import json, subprocess
shown = [i for i in json.load(open("a.json"))["nv_indices"] if i["handle"] == "0x01c00002"][0]["certificate"]
out = subprocess.run(["openssl", "x509", "-inform", "DER", "-in", "ek.der", "-noout", "-serial", "-issuer",
                      "-subject", "-nameopt", "RFC2253"], check=True, text=True, capture_output=True).stdout
said = dict(line.split("=", 1) for line in out.splitlines())
assert int(said["serial"], 16) == int(shown["serial"], 16), said
assert said["issuer"].strip() == shown["issuer"], said
assert said["subject"].strip() == shown["subject"], said
assert shown["role"] == "EK certificate" and shown["length"] == len(open("ek.der", "rb").read())'

# ---- every kind of index and key, by hand -----------------------------------------------------------
mkdir b
start_swtpm b
t nvdefine -C o -s 12 -a 'ownerread|ownerwrite|writedefine|writeall' 0x1500001
printf 'do not lose.' | t nvwrite -C o 0x1500001 -i -
t nvwritelock -C o 0x1500001
t nvdefine -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' 0x1500002
t nvincrement -C o 0x1500002
t nvdefine -C o -s 8 -a 'ownerread|ownerwrite|orderly|no_da' 0x1500003
printf 12345678 | t nvwrite -C o 0x1500003 -i -
t nvdefine -C o -s 2048 -a 'authread|authwrite|policywrite|read_stclear' -p hunter2 0x1500004
t nvdefine -C o -g sha384 -a 'ownerread|ownerwrite|nt=extend' 0x1500005
t nvdefine -C o -s 8 -a 'ownerread|ownerwrite|nt=bits' 0x1500006
t createprimary -C o -G rsa -c primary.ctx
t evictcontrol -C o -c primary.ctx 0x81000001
t flushcontext -t
for kind in ecc384:ecdsa-sha384 rsa2048 hmac aes128cfb ecc256:ecdh; do
    t create -C 0x81000001 -G "$kind" -u key.pub -r key.priv && t flushcontext -t
    t load -C 0x81000001 -u key.pub -r key.priv -c key.ctx && t evictcontrol -C o -c key.ctx
    t flushcontext -t
done
printf secret | t create -C 0x81000001 -i - -u key.pub -r key.priv
t flushcontext -t
t load -C 0x81000001 -u key.pub -r key.priv -c key.ctx && t evictcontrol -C o -c key.ctx
t flushcontext -t
timeout 60 tpm2_nvreadpublic -T "swtpm:path=$TMP/sw" >b.public
timeout 60 tpm2_getcap -T "swtpm:path=$TMP/sw" handles-persistent >b.handles
is "seven keys" "$(grep -c 0x b.handles)" 7
swtpm_ioctl --unix sw.ctrl -v >/dev/null
t shutdown
stop_swtpm
"$VNVRAM" show --json b tpm2-00.permall >b.json
check "the TPM says the same of every kind" the_same b.json b.public b.handles
check "what is written, locked, and of which kind" python3 -c '
import json
j = json.load(open("b.json"))
i = {x["handle"]: x for x in j["nv_indices"]}
assert i["0x01500001"]["written"] and i["0x01500001"]["write_locked"]
assert i["0x01500003"]["written"] and not i["0x01500003"]["write_locked"]
assert not i["0x01500004"]["written"]
assert "nt=counter" in i["0x01500002"]["attributes"] and "nt=bits" in i["0x01500006"]["attributes"]
assert i["0x01500005"]["hash"] == "sha384"
kinds = sorted(k["type"] for k in j["persistent_keys"])
assert kinds == ["AES 128", "ECC NIST P-256", "ECC NIST P-384", "HMAC key", "RSA 2048", "RSA 2048",
                 "sealed data"], kinds
assert j["resumable"] is True and j["orderly_ram"]["used"] == 24
assert j["failed_tries"] == 0 and j["max_tries"] > 0'
check "no secret is shown" bash -c '! grep -aqE "hunter2|do not lose|secret" b.json'
check "the volatile state" "$VNVRAM" show b tpm2-00.volatilestate
matches "its kind and version" "$OUT" '^  version +[0-9]+, for readers from [0-9]+ on$'

# ---- what cannot be read ----------------------------------------------------------------------------
mkdir c d e
head -c 16 /dev/urandom >key
start_swtpm c --key file=key,mode=aes-cbc,format=binary,remove=false
stop_swtpm
check "state that swtpm encrypted" "$VNVRAM" show --json c tpm2-00.permall
cp "$OUT" c.json
check "is told from others" python3 -c '
import json
j = json.load(open("c.json"))
assert j["kind"] == "tpm-encrypted" and j["envelope"]["encrypted"] is True and j["readable"] is True
assert 2 in [r["tag"] for r in j["envelope"]["records"]]'
check "a TPM 1.2" swtpm_setup --tpm-state d
check "its state" "$VNVRAM" show d tpm-00.permall
matches "is told from others" "$OUT" '^tpm-00\.permall: state of a TPM 1\.2, '
head -c 3000 a/tpm2-00.permall >e/short
cp a/tpm2-00.permall e/spoiled
spoil e/spoiled $(($(stat -c %s e/spoiled) - 1))
printf 'some text' >e/text
: >e/empty
ln -s text e/link
check "a cut-off state is of no known kind" "$VNVRAM" show e short
check_exit 5 "a damaged one is damaged" "$VNVRAM" show e spoiled
matches "and says where" "$ERR" '^vnvram: spoiled: byte [0-9]+, '
matches "and what it is nevertheless" "$OUT" '^spoiled: permanent state of a TPM 2\.0, damaged, '
check "text is of no known kind" "$VNVRAM" show e text
matches "with its checksum" "$OUT" '^  CRC-32 +[0-9a-f]{8}$'
check "an empty file" "$VNVRAM" show e empty
matches "is empty" "$OUT" '^empty: empty, 0 B$'
check_exit 1 "no such file" "$VNVRAM" show e nothing
check_exit 1 "a link is not followed" "$VNVRAM" show e link
check_exit 2 "nor a path" "$VNVRAM" show . e/text
if [ -e /usr/share/OVMF/OVMF_VARS_4M.ms.fd ]; then
    check "UEFI variables" "$VNVRAM" show /usr/share/OVMF OVMF_VARS_4M.ms.fd
    matches "are counted" "$OUT" '^  variables +[1-9][0-9]*, and [0-9]+ deleted ones'
fi

# ---- in an image ------------------------------------------------------------------------------------
"$VNVRAM" format x.img >/dev/null || exit 99
check_exit 1 "no such file in an image" "$VNVRAM" show x.img tpm2-00.permall
matches "which it says" "$ERR" 'holds no file "tpm2-00\.permall"$'
check_exit 8 "a key for an image that is not sealed" "$VNVRAM" show -o key=00112233445566778899aabbccddeeff x.img x
"$VNVRAM" import x.img a/tpm2-00.permall || exit 99
"$VNVRAM" show --json a tpm2-00.permall >last.json
check "a state in an image" "$VNVRAM" show --json x.img tpm2-00.permall
cp "$OUT" image.json
check "is told as in the directory" python3 -c '
import json
a, b = json.load(open("last.json")), json.load(open("image.json"))
assert {k: b[k] for k in a} == a and b["headroom"] == b["capacity"] - b["length"]'
finish
