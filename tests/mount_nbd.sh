#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Images behind NBD servers: qemu-nbd and qemu-storage-daemon on qcow2, nbdkit with its filters, and one of our
# own (nbdserver.py), which loses its cache when it is killed.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need python3 qemu-nbd qemu-img qemu-storage-daemon nbdkit psktool certtool setpriv
server=$(cd "$srcdir" && pwd)/tests/nbdserver.py
cd "$TMP" || exit 99
umask 077
head -c 32 /dev/urandom >key
key=key_file=$TMP/key,key_format=binary
mkdir mnt mnt2
pids=()
stop_all() {
    [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
    cleanup
}
trap stop_all EXIT

# Each starts a server at the socket $1.
uri() {
    echo "nbd+unix:///?socket=$TMP/$1"
}

ours() { # SOCKET FILE [ARGUMENT...]
    rm -f "$1"
    python3 "$server" --socket "$TMP/$1" --file "$2" "${@:3}" &
    last=$!
    disown
    pids+=("$last")
    wait_until 20 test -S "$1"
}

qemu() { # SOCKET FILE [ARGUMENT...]
    rm -f "$1"
    qemu-nbd --fork -t -f qcow2 --cache=none --aio=threads -k "$TMP/$1" --pid-file="$TMP/$1.pid" "${@:3}" "$2" 2>/dev/null ||
        qemu-nbd --fork -t -f qcow2 -k "$TMP/$1" --pid-file="$TMP/$1.pid" "${@:3}" "$2" || return
    last=$(cat "$1.pid")
    pids+=("$last")
}

# PIDFILE ARGUMENT...: nbdkit goes to the background before it writes its PID.
background_nbdkit() {
    rm -f "$1"
    nbdkit -P "$TMP/$1" "${@:2}" && wait_until 20 test -s "$1" || return
    last=$(cat "$1")
    pids+=("$last")
}

kit() { # SOCKET [ARGUMENT...]
    rm -f "$1"
    background_nbdkit "$1.pid" -U "$TMP/$1" "${@:2}"
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

# The server last started: ended, and its socket gone.
end() {
    kill "${1:--TERM}" "$last" && wait_until 20 gone "$last" || fail "a server ends when it is told to"
    rm -f "${2-}"
}

# put FILE TEXT: durably, or it says so
put() {
    printf '%s\n' "$2" | dd of="$1" conv=fsync status=none
}

status() {
    python3 -c 'import json, sys; print(json.load(open("mnt/.vnvram/status"))[sys.argv[1]])' "$1"
}

# ---- names ----------------------------------------------------------------------------------------

for bad in nbd:// nbd:///x nbd+unix:///x 'nbd+unix:///?socket=' 'nbd+unix://host/?socket=s' 'nbd://h:0/' 'nbd://h:99999/' \
    'nbd://h:x/' 'nbd://h/%zz' 'nbd://h/%00' 'nbd://h/?socket=s' 'nbd://h/?sockets=s' nbds://h/ 'nbds://h/?tls-psk-file=' \
    'nbds+unix:///?socket=s&tls-certificates=d' 'nbd://u@h/' nbd+vsock://2/ 'nbd://[::1/' 'nbd://h/#x'; do
    check_exit 2 "$bad is wrong use" "$VNVRAM" info "$bad"
done
check_exit 1 "a server that is not there is a failure" "$VNVRAM" info "$(uri none)"
matches "and the message says so" "$ERR" 'cannot connect: No such file'
is "no file is made of a URI" "$(ls)" "$(printf 'key\nmnt\nmnt2')"

# ---- qcow2: snapshots of the image with the disks' own means ----------------------------------------

qemu-img create -q -f qcow2 disk.qcow2 8M
check "qemu-nbd serves a qcow2 image" qemu q.sock disk.qcow2
check "format" "$VNVRAM" format -o "$key" "$(uri q.sock)"
check_exit 1 "but not twice" "$VNVRAM" format -o "$key" "$(uri q.sock)"
check "mounts by a relative path, with a TPM" mounted 'nbd+unix:///?socket=q.sock' mnt -o "$key,tpm=2.0,anchor=$TMP/anchor,anchor_create"
is "the source is the URI" "$(findmnt -no SOURCE mnt)" "$(uri q.sock)"
is "so says the status" "$(status image)" "$(uri q.sock)"
echo one >mnt/f
printf '\x80\x01\x00\x00\x00\x0c\x01\x7b\x00\x08' >random
check "the TPM answers" sh -c 'exec 3<>mnt/tpm0; cat random >&3; head -c 10 <&3 >answer'
pid=$(status pid)
check_exit 11 "a second mount is refused" "$VNVRAM" mount -o "$key" "$(uri q.sock)" mnt2
matches "and told by whom" "$ERR" "in use by process $pid \\(vnvram"
check_exit 11 "however it is spelt" "$VNVRAM" key destroy -f -o "$key" "NBD+unix://?socket=$TMP/q%2Esock"
check "unmounts by the URI" unmounted "$(uri q.sock)"
check "the server ends" end
check "an internal snapshot is taken" qemu-img snapshot -c one disk.qcow2
cp anchor anchor.one
qemu q.sock disk.qcow2
check "mounts again" mounted "$(uri q.sock)" mnt -o "$key,tpm=2.0,anchor=$TMP/anchor"
echo two >mnt/f
check "unmounts" unmounted mnt
end
check "the snapshot is put back" qemu-img snapshot -a one disk.qcow2
qemu q.sock disk.qcow2
check "it is whole" "$VNVRAM" check -o "$key" "$(uri q.sock)"
check_exit 12 "the anchor knows that it is older" "$VNVRAM" mount -o "$key,anchor=$TMP/anchor" "$(uri q.sock)" mnt
check "its own anchor takes it" mounted "$(uri q.sock)" mnt -o "$key,tpm=2.0,anchor=$TMP/anchor.one"
is "with what was in it" "$(cat mnt/f)" one
check "unmounts" unmounted mnt
end

cat >qmp.py <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw")
f.readline()
for c, a in (("qmp_capabilities", {}), ("blockdev-snapshot-internal-sync", {"device": "q", "name": sys.argv[2]})):
    f.write(json.dumps({"execute": c, "arguments": a}) + "\n")
    f.flush()
    while "event" in (answer := json.loads(f.readline())):
        pass
    assert "return" in answer, answer
PY
qemu-img create -q -f qcow2 live.qcow2 8M
qemu-storage-daemon --blockdev driver=file,node-name=f,filename=live.qcow2 --blockdev driver=qcow2,node-name=q,file=f \
    --nbd-server addr.type=unix,addr.path="$TMP/l.sock" --export nbd,id=e,node-name=q,writable=on,name=vm \
    --chardev socket,id=c,path="$TMP/l.qmp",server=on,wait=off --monitor chardev=c --daemonize --pidfile "$TMP/l.pid" ||
    fail "qemu-storage-daemon starts"
last=$(cat l.pid)
pids+=("$last")
live="nbd+unix:///vm?socket=$TMP/l.sock"
check "an export of qemu-storage-daemon" new_image "$live"
check "mounts" mounted "$live" mnt
(
    i=0
    while [ ! -e stop ]; do
        i=$((i + 1))
        printf '%d\n' $i >mnt/a.new && mv mnt/a.new mnt/a && printf '%d\n' $i >mnt/b || break
        echo $i >acked.new && mv acked.new acked
    done
) &
writer=$!
has_gone_on() { # from what was acknowledged, not from what can be read already
    [ "$(cat acked 2>/dev/null || echo 0)" -gt "$1" ]
}
before=0
for n in 1 2 3 4 5; do
    wait_until 60 has_gone_on "$before" || fail "the writer goes on"
    before=$(cat acked)
    check "a snapshot of a busy mount" python3 qmp.py "$TMP/l.qmp" "s$n"
    echo "$before" >"floor.$n"
done
touch stop
wait $writer
check "unmounts" unmounted mnt
end
for n in 5 3 1; do
    qemu-img snapshot -a "s$n" live.qcow2
    qemu l2.sock live.qcow2
    check "snapshot $n mounts" mounted "$(uri l2.sock)" mnt
    a=$(cat mnt/a)
    b=$(cat mnt/b)
    check "and is of one generation, no older than what was acknowledged ($a, $b)" \
        test "$b" -ge "$(cat "floor.$n")" -a "$a" -ge "$b" -a "$a" -le $((b + 1))
    check "unmounts" unmounted mnt
    check "it is whole" "$VNVRAM" check "$(uri l2.sock)"
    end
done

# ---- what a server offers ---------------------------------------------------------------------------

truncate -s 6M disk
ours o.sock disk --flags none --through 0
check_exit 1 "a server that cannot flush is refused for writing" "$VNVRAM" format "$(uri o.sock)"
matches "and the message says why, and what to do" "$ERR" 'cannot flush.*-o unsafe_cache'
check "which does it" "$VNVRAM" format -o unsafe_cache "$(uri o.sock)"
matches "with a warning" "$ERR" 'may be lost'
check "who only looks does not mind" "$VNVRAM" info "$(uri o.sock)"
end -KILL o.sock
ours o.sock disk --flags flush
check_exit 3 "indeed it was lost" "$VNVRAM" info "$(uri o.sock)"
end -KILL o.sock
truncate -s 0 disk
truncate -s 6M disk
for flags in flush fua flush,fua; do
    ours o.sock disk --flags $flags --through 0
    check "$flags: format" "$VNVRAM" format --force "$(uri o.sock)"
    check "$flags: mounts" mounted "$(uri o.sock)" mnt
    echo durable >mnt/f
    end -KILL o.sock
    cp disk copy
    check "$flags: what was acknowledged has survived the server" "$VNVRAM" export copy f out
    is "$flags: as it was" "$(cat out 2>/dev/null || cat f 2>/dev/null)" durable
    rm -f out f
    ours o.sock disk --flags $flags
    check "$flags: unmounts, connecting again" unmounted mnt
    end -KILL o.sock
done
ours o.sock disk --flags flush,ro
check_exit 1 "a read-only export is refused for writing" "$VNVRAM" mount "$(uri o.sock)" mnt
matches "and the message says what to do" "$ERR" 'mount it with -o ro'
check "with ro it mounts" mounted "$(uri o.sock)" mnt -o ro
is "and shows" "$(cat mnt/f)" durable
end -KILL o.sock
ours o.sock disk --flags flush,ro
check "unmounts" unmounted mnt
check "salvage" "$VNVRAM" check --salvage saved "$(uri o.sock)"
end -KILL o.sock
truncate -s 1M small
ours o.sock small
check_exit 10 "an export that is too small is told" "$VNVRAM" format "$(uri o.sock)"
end -KILL o.sock
mkfs.ext4 -q -O ^has_journal small >/dev/null 2>&1
ours o.sock small
check_exit 4 "a file system on one is not formatted" "$VNVRAM" format "$(uri o.sock)"
matches "and called by its name" "$ERR" 'file system \(ext[0-9]'
end -KILL o.sock

# ---- lost connections -------------------------------------------------------------------------------

ours o.sock disk
check "mounts" mounted "$(uri o.sock)" mnt -o tpm=2.0
kill -USR1 "$last"
check "a connection that was cut is made anew" put mnt/g a
kill -KILL "$last"
rm -f o.sock
(echo waited >mnt/g; echo $? >code) &
writer=$!
sleep 0.5
check "a commit waits for the server" test ! -e code
for n in 1 2 3 -1 -2; do
    ours o.sock disk --flags "flush,die-at=$n" --seed "$last"
    wait_until 20 gone "$last"
done
rm -f o.sock
check "and waits on, whenever it dies" test ! -e code
ours o.sock disk
check "until it is there" wait_until 20 test -e code
wait $writer
is "then it is done" "$(cat code)" 0
check "the TPM goes on" sh -c 'exec 3<>mnt/tpm0; cat random >&3; head -c 10 <&3 >answer'
is "nothing was lost" "$(cat mnt/g)" waited
is "the mount is well" "$(status read_only)" False
end -KILL o.sock
ours o.sock disk
check "unmounts" unmounted mnt
check "all is whole" "$VNVRAM" check "$(uri o.sock)"
end -KILL o.sock

ours o.sock disk
check "mounts, to wait a second" mounted "$(uri o.sock)" mnt -o reconnect=1
cat mnt/g >/dev/null
end -KILL o.sock
start=$SECONDS
check_exit 1 "then a write fails" put mnt/late x
check "soon" test $((SECONDS - start)) -lt 15
ours o.sock disk
check_exit 1 "and so does every other" put mnt/later x
is "though the server is back" "$(status read_only)" True
matches "the reason is told" mnt/.vnvram/status 'a (write|flush) failed|cannot be read'
is "what was there can be read" "$(cat mnt/g)" waited
check "unmounts" unmounted mnt
check "and is whole" "$VNVRAM" check "$(uri o.sock)"
end -KILL o.sock

ours o.sock disk --flags flush,stall-at=13
check "a server that hangs" mounted "$(uri o.sock)" mnt -o reconnect=1
start=$SECONDS
for i in 1 2 3; do put mnt/hang $i 2>/dev/null || break; done
check "makes the mount read-only, not wait for ever" test "$(status read_only)" = True
check "soon" test $((SECONDS - start)) -lt 20
unmounted mnt
end -KILL o.sock
ours o.sock disk
check "the next one mounts" mounted "$(uri o.sock)" mnt
check "unmounts" unmounted mnt
check "and is whole" "$VNVRAM" check "$(uri o.sock)"
end -KILL o.sock

ours o.sock disk --flags flush,error-at=8
check "a server that fails" mounted "$(uri o.sock)" mnt
for i in 1 2 3; do put mnt/hang $i 2>/dev/null || break; done
check "makes the mount read-only" test "$(status read_only)" = True
unmounted mnt
end -KILL o.sock

# Another state, or another image, when it comes back.
cp disk older
ours o.sock disk
check "mounts" mounted "$(uri o.sock)" mnt
echo newer >mnt/g
end -KILL o.sock
cp older disk
before=$(hash disk)
ours o.sock disk
check_exit 1 "an image that was put back meanwhile is not written to" put mnt/g x
matches "and the reason is told" mnt/.vnvram/status 'not what it was when the connection was lost'
unmounted mnt
end -KILL o.sock
is "indeed nothing was written" "$(hash disk)" "$before"
ours o.sock disk
check "mounts" mounted "$(uri o.sock)" mnt
end -KILL o.sock
truncate -s 8M disk
ours o.sock disk
check_exit 1 "nor is an export of another size" put mnt/g x
unmounted mnt
end -KILL o.sock
truncate -s 6M disk

# ---- nbdkit, and its filters ------------------------------------------------------------------------

rm -f disk
truncate -s 6M disk
check "nbdkit" kit k.sock --filter=error --filter=delay --filter=readahead file disk error=EIO error-rate=1 \
    error-file="$TMP/fail" delay-write=20ms
check "format over it" "$VNVRAM" format -o "$key" "$(uri k.sock)"
check "mounts" mounted "$(uri k.sock)" mnt -o "$key,tpm=2.0"
echo well >mnt/f
check "check beside it, with filters" "$VNVRAM" check -o "$key" "$(uri k.sock)"
touch fail
check_exit 1 "errors of the server fail the commit" put mnt/f ill
rm fail
check_exit 1 "for good" put mnt/other x
is "and the mount says so" "$(status read_only)" True
unmounted mnt
check "what was acknowledged is there" mounted "$(uri k.sock)" mnt -o "ro,$key"
check "old or new" grep -qE 'well|ill' mnt/f
check "unmounts" unmounted mnt
end
check "nbdkit, slow beyond patience" kit k.sock --filter=delay file disk delay-write=30
check "mounts" mounted "$(uri k.sock)" mnt -o "$key,reconnect=1,owner_record=off"
start=$SECONDS
check_exit 1 "a write gives up" put mnt/slow x
check "in time" test $((SECONDS - start)) -lt 20
unmounted mnt
end -KILL
rm -f disk
truncate -s 6M disk

# ---- TCP and TLS ------------------------------------------------------------------------------------

# Not of those that the kernel gives to clients: it must still be free when the server comes back.
port=$(python3 -c '
import random, socket
while True:
    try:
        s = socket.socket()
        s.bind(("127.0.0.1", random.randrange(20000, 32768)))
        break
    except OSError:
        pass
print(s.getsockname()[1])')
tcp() { # [ARGUMENT...]
    background_nbdkit tcp.pid -i 127.0.0.1 -p "$port" "$@" file disk
}
psktool -u vm -p "$TMP/psk" >/dev/null
mkdir ca
certtool --generate-privkey --outfile ca/ca-key.pem 2>/dev/null
cat >ca.info <<'INFO'
cn = "test"
ca
cert_signing_key
INFO
cat >server.info <<'INFO'
cn = "localhost"
dns_name = "localhost"
tls_www_server
encryption_key
signing_key
INFO
certtool --generate-self-signed --load-privkey ca/ca-key.pem --template ca.info --outfile ca/ca-cert.pem 2>/dev/null
mkdir pki wrong
certtool --generate-privkey --outfile pki/server-key.pem 2>/dev/null
certtool --generate-certificate --load-ca-certificate ca/ca-cert.pem --load-ca-privkey ca/ca-key.pem \
    --load-privkey pki/server-key.pem --template server.info --outfile pki/server-cert.pem 2>/dev/null
cp ca/ca-cert.pem pki/
certtool --generate-privkey --outfile wrong/k 2>/dev/null
certtool --generate-self-signed --load-privkey wrong/k --template ca.info --outfile wrong/ca-cert.pem 2>/dev/null

tcp
check "TCP: format" "$VNVRAM" format "nbd://127.0.0.1:$port"
is "without a warning on this host" "$(cat "$ERR")" ""
check "TCP: mounts by name" mounted "nbd://localhost:$port/" mnt
echo tcp >mnt/f
check_exit 11 "TCP: a second mount is refused, by whatever name" "$VNVRAM" mount "nbd://127.0.0.1:$port" mnt2
chmod 711 "$TMP"
theirs=$(program_for_all)
nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR "$theirs" reserve "$@"
}
check_exit 11 "TCP: nor is another user's writer let in" nobody "nbd://127.0.0.1:$port" kept 100
matches "whatever keeps no lock" "$ERR" 'in use by host'
end -KILL
tcp
check "TCP: connects again" put mnt/f again
check "TCP: unmounts" unmounted "nbd://localhost:$port"
check "TCP: then another user may have it" nobody "nbd://127.0.0.1:$port" kept 100
is "TCP: and was it" "$("$VNVRAM" info "nbd://127.0.0.1:$port" | grep -o ', user 65534" released')" ', user 65534" released'
end
check "a warning where others can listen" sh -c '
    ip=$(hostname -I 2>/dev/null | cut -d" " -f1)
    [ -n "$ip" ] || { echo "# this host has no address"; exit 0; }
    nbdkit -i "$ip" -p '"$port"' -P tcp2.pid file disk || exit 1
    until [ -s tcp2.pid ]; do sleep 0.1; done
    "$0" mount -o ro "nbd://$ip:'"$port"'/" mnt 2>warning && "$0" unmount mnt
    kill "$(cat tcp2.pid)"
    grep -q "in the clear" warning' "$VNVRAM"

# Each interface that is up has a link-local address, unless IPv6 is off.
link=$(python3 -c '
import ipaddress
for line in open("/proc/net/if_inet6"):
    address, number, _, scope, flags, name = line.split()
    if scope == "20" and not int(flags, 16) & 0x48: # neither tentative nor a duplicate
        print(ipaddress.ip_address(int(address, 16)), int(number, 16), name)
        break' 2>/dev/null)
if [ -n "$link" ]; then
    read -r address number zone <<<"$link"
    background_nbdkit tcp3.pid -i "$address%$zone" -p "$port" file disk
    check "an IPv6 address with a zone: mounts" mounted "nbd://[$address%25$zone]:$port/" mnt
    check_exit 11 "of two names" "$VNVRAM" mount "nbd://[$address%25$number]:$port" mnt2
    check "an IPv6 address with a zone: unmounts" unmounted mnt
    end
fi

psk="nbds://vm@localhost:$port/?tls-psk-file=$TMP/psk"
tcp --tls=require --tls-psk="$TMP/psk"
check "a shared key: mounts" mounted "$psk" mnt
echo psk >mnt/f
end -KILL
tcp --tls=require --tls-psk="$TMP/psk"
check "a shared key: connects again" put mnt/f again
check "a shared key: unmounts" unmounted mnt
check_exit 1 "without TLS the server does not talk" "$VNVRAM" info "nbd://localhost:$port/"
psktool -u vm -p "$TMP/psk2" >/dev/null
check_exit 1 "nor with another key" "$VNVRAM" info "nbds://vm@localhost:$port/?tls-psk-file=$TMP/psk2"
end
certificates="nbds://localhost:$port/?tls-certificates=$TMP/ca"
tcp --tls=require --tls-certificates="$TMP/pki"
check "certificates: mounts" mounted "$certificates" mnt
echo certificates >mnt/f
end -KILL
tcp --tls=require --tls-certificates="$TMP/pki"
check "certificates: connects again" put mnt/f again
is "certificates: and reads" "$(cat mnt/f)" again
check "certificates: unmounts" unmounted mnt
check_exit 1 "another CA's server is not believed" "$VNVRAM" info "nbds://localhost:$port/?tls-certificates=$TMP/wrong"
check_exit 1 "nor one by another name" "$VNVRAM" info "nbds://127.0.0.1:$port/?tls-certificates=$TMP/ca"
end
check "a server without TLS" tcp
check_exit 1 "is refused where TLS is asked for" "$VNVRAM" info "$psk"
end
finish
