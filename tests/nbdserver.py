#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""nbdserver - an NBD server with a cache that it may lose, for the tests.

    tests/nbdserver.py --socket PATH --file FILE [--log LOG] [--through P] [--seed N] [--flags WORD,...]

What is written goes to a cache in memory; a flush (or FUA) brings it to FILE.  Of each write the server puts
some sectors of 512 bytes into FILE at once, each with probability P: so kill -9 leaves what a power cut leaves of
a disk with a cache, at any moment, torn where it comes in the middle.  Each write and each flush is appended to LOG
before it is answered, in the form of tests/faultlib.c.

--flags: flush, fua (default: flush,fua), ro; die-at=N kills the server instead of the Nth request's answer, before
it is done (die-at=-N: after); stall-at=N never answers it; error-at=N answers EIO to it.  Only writes and flushes
count, those with die-in-reads=N: reads.  With --orders it takes lines from its standard input, and answers each
with one: "start P N" (--through and --seed) and "stop", which is kill -9; so whoever has files of the mount open, which
a process that it starts would have to close first, can start it again.  SIGUSR1 makes it end its connections and take new ones.

Many clients at a time, one thread each."""
import argparse
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

SECTOR = 512
OPTION, REPLY = 0x49484156454F5054, 0x3E889045565A9
ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001
GO, ABORT, EXPORT_NAME = 7, 2, 1
READ, WRITE, GOODBYE, FLUSH = range(4)
HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, FUA = 1, 2, 4, 8, 1
EIO, EINVAL, EPERM = 5, 22, 1
RECORD_WRITE, RECORD_FLUSH = 1, 2


class Gone(Exception):
    pass


class Disk:
    def __init__(self, args):
        self.lock = threading.Lock()
        self.fd = os.open(args.file, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size
        self.cache = {}  # sector: bytes
        self.through, self.rng = args.through, random.Random(args.seed)
        self.log = os.open(args.log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) if args.log else None
        self.trim()

    def trim(self):
        """A record that a kill has cut short was never answered."""
        at, end = 0, os.fstat(self.log).st_size if self.log is not None else 0
        while at + 24 <= end:
            size = (24 + struct.unpack_from("<8xQ", os.pread(self.log, 24, at))[0] + 7) & ~7
            if at + size > end:
                break
            at += size
        if at < end:
            os.ftruncate(self.log, at)

    def record(self, kind, data=b"", off=0):
        if self.log is not None:
            raw = struct.pack("<IIQQ", kind, 0, len(data), off) + data
            os.write(self.log, raw + bytes(-len(raw) % 8))

    def read(self, off, n):
        first, last = off // SECTOR, (off + n + SECTOR - 1) // SECTOR
        raw = bytearray(os.pread(self.fd, (last - first) * SECTOR, first * SECTOR).ljust((last - first) * SECTOR, b"\0"))
        for s in range(first, last):
            if s in self.cache:
                raw[(s - first) * SECTOR:(s - first + 1) * SECTOR] = self.cache[s]
        return bytes(raw[off - first * SECTOR:off - first * SECTOR + n])

    def write(self, off, data):
        head, tail = off % SECTOR, -(off + len(data)) % SECTOR
        whole = self.read(off - head, head) + data + self.read(off + len(data), tail)
        self.record(RECORD_WRITE, data, off)
        for i in range(0, len(whole), SECTOR):
            sector, part = (off - head + i) // SECTOR, whole[i:i + SECTOR]
            self.cache[sector] = part
            if self.rng.random() < self.through:
                os.pwrite(self.fd, part, sector * SECTOR)

    def flush(self):
        for sector, part in self.cache.items():
            os.pwrite(self.fd, part, sector * SECTOR)
        self.record(RECORD_FLUSH)
        self.cache = {}


class Faults:
    def __init__(self, words):
        self.words, self.n, self.reads = dict(w.partition("=")[::2] for w in words if w), 0, 0

    def number(self, name):
        return int(self.words.get(name, 0))

    def before(self, kind):
        """None, or how this request ends."""
        if kind == READ:
            self.reads += 1
            return "die" if self.reads == self.number("die-in-reads") else None
        self.n += 1
        for name in ("die", "stall", "error"):
            if self.n == self.number(name + "-at"):
                return name
        return None

    def after(self):
        return -self.n == self.number("die-at")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def take(conn, n):
    data = b""
    while len(data) < n:
        part = conn.recv(n - len(data))
        if not part:
            raise Gone
        data += part
    return data


class Client(threading.Thread):
    def __init__(self, conn, disk, faults, flags):
        super().__init__(daemon=True)
        self.conn, self.disk, self.faults, self.flags = conn, disk, faults, flags

    def run(self):
        try:
            self.negotiate()
            while True:
                self.serve()
        except (Gone, OSError):
            self.conn.close()

    def option_reply(self, option, kind, data=b""):
        self.conn.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)

    def negotiate(self):
        self.conn.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION, 3))
        take(self.conn, 4)
        export = struct.pack(">QH", self.disk.size, self.flags)
        while True:
            _, option, n = struct.unpack(">QII", take(self.conn, 16))
            take(self.conn, n)
            if option == EXPORT_NAME:
                self.conn.sendall(export)
                return
            if option == GO:
                self.option_reply(option, INFO, struct.pack(">H", 0) + export)
                self.option_reply(option, ACK)
                return
            if option == ABORT:
                raise Gone
            self.option_reply(option, UNSUPPORTED)

    def serve(self):
        magic, flags, kind, handle, off, n = struct.unpack(">IHHQQI", take(self.conn, 28))
        data = take(self.conn, n) if kind == WRITE else b""
        if magic != 0x25609513 or kind == GOODBYE:
            raise Gone
        with self.disk.lock:
            end = self.faults.before(kind)
            if end == "die":
                die()
            error, answer = (EIO, b"") if end == "error" else self.do(kind, flags, off, n, data) if end is None else (0, b"")
            if kind != READ and self.faults.after():
                die()
        if end == "stall":
            time.sleep(3600)
        self.conn.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + answer)

    def do(self, kind, flags, off, n, data):
        if kind in (READ, WRITE) and off + n > self.disk.size:
            return EINVAL, b""
        if kind == READ:
            return 0, self.disk.read(off, n)
        if kind not in (WRITE, FLUSH):
            return EINVAL, b""
        if self.flags & READ_ONLY:
            return EPERM, b""
        if kind == WRITE:
            self.disk.write(off, data)
        if kind == FLUSH or flags & FUA:
            self.disk.flush()
        return 0, b""


def take_orders(args):
    pid = 0
    for line in sys.stdin:
        word, *values = line.split()
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pid = 0
        if word == "start":
            args.through, args.seed = float(values[0]), int(values[1])
            ready, done = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(ready)
                serve(args, done)
            os.close(done)
            os.read(ready, 1)
            os.close(ready)
        print("ok", flush=True)
    if pid:
        os.kill(pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--log")
    parser.add_argument("--through", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flags", default="flush,fua")
    parser.add_argument("--orders", action="store_true")
    args = parser.parse_args()
    if args.orders:
        take_orders(args)
    else:
        serve(args)


def serve(args, done=None):
    words = args.flags.split(",")
    flags = HAS_FLAGS | ("flush" in words) * SEND_FLUSH | ("fua" in words) * SEND_FUA | ("ro" in words) * READ_ONLY
    disk, faults, clients = Disk(args), Faults(words), []

    def hang_up(*_):
        for c in clients:
            try:
                c.conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        clients.clear()

    signal.signal(signal.SIGUSR1, hang_up)
    listener = socket.socket(socket.AF_UNIX)
    temporary = args.socket + ".new"  # whoever sees the socket can connect to it
    for path in (temporary, args.socket):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    listener.bind(temporary)
    listener.listen(16)
    os.rename(temporary, args.socket)
    if done is not None:
        os.close(done)
    while True:
        conn, _ = listener.accept()
        clients.append(Client(conn, disk, faults, flags))
        clients[-1].start()


if __name__ == "__main__":
    sys.exit(main())
