# SPDX-License-Identifier: BSD-3-Clause
"""faultkit - the program under tests/faultlib.c, TPM commands as bytes, and a model of what a mount
must show.  For mount_faults.py and crash-marathon."""
import ctypes
import errno
import glob
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

CLASSES = ["read", "write", "flush", "size", "open", "files", "alloc"]
SHORT = 0xFFFFFFFF
HEAD = 4096
DEADLINE = 60  # seconds for anything; on a busy machine


class Problem(Exception):
    """Something that the promises do not allow."""


class Control:
    """The mapping that all processes of a run share; see faultlib.c."""

    def __init__(self, path, log_size=0):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(fd, HEAD + log_size)
        self.path, self.size = path, HEAD + log_size
        self.map = mmap.mmap(fd, self.size)
        os.close(fd)

    def plan(self, name, nth, error):
        self.map[0:88] = bytes(88)
        if name:
            struct.pack_into("<IIQ", self.map, 0, CLASSES.index(name), error, nth)

    def heal(self):
        """The disk is well again; the counts stay."""
        struct.pack_into("<Q", self.map, 8, 0)

    def record(self, on=True):
        struct.pack_into("<Q", self.map, 88, int(on))

    @property
    def hits(self):
        return struct.unpack_from("<Q", self.map, 16)[0]

    def counts(self):
        return dict(zip(CLASSES, struct.unpack_from("<7Q", self.map, 24)))

    @property
    def log_used(self):
        return struct.unpack_from("<Q", self.map, 80)[0]

    def log(self):
        if self.log_used > self.size - HEAD:
            raise Problem("the log is full")
        return self.map[HEAD:HEAD + self.log_used]


def alarm(*_):
    raise Problem("hangs: no answer for %d s" % DEADLINE)


signal.signal(signal.SIGALRM, alarm)


class Deadline:
    def __enter__(self):
        signal.alarm(DEADLINE)

    def __exit__(self, *_):
        signal.alarm(0)


def wait_until(condition, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class Daemon:
    """One image and its mount."""

    def __init__(self, program, directory, library=None, control=None, options=()):
        self.program, self.dir, self.options = program, directory, list(options)
        self.image = os.path.join(directory, "image")
        self.mnt = os.path.join(directory, "mnt")
        os.makedirs(self.mnt, exist_ok=True)
        self.env = dict(os.environ, LC_ALL="C")
        if library:
            asan = "%s:verify_asan_link_order=0:log_path=%s/asan" % (self.env.get("ASAN_OPTIONS", ""), directory)
            self.env.update(FAULT_CONTROL=control.path, FAULT_IMAGE=self.image, LD_PRELOAD=library,
                            ASAN_OPTIONS=asan)
        self.said = ""
        self.root = None  # what is mounted now, also when it has gone from the tree

    def run(self, *args):
        with open(os.path.join(self.dir, "said"), "w+") as said:
            p = subprocess.run([self.program, *args], env=self.env, stdin=subprocess.DEVNULL,
                               stdout=said, stderr=said, timeout=DEADLINE)
            said.seek(0)
            self.said = said.read()
        if "runtime error" in self.said:
            raise Problem(self.said)
        return p.returncode

    def check_sanitizers(self):
        """What processes of a build with sanitizers have left."""
        for path in glob.glob(os.path.join(self.dir, "asan*")):
            with open(path, encoding="utf-8", errors="replace") as f:
                raise Problem(f.read()[:3000])

    def option_args(self, extra=()):
        words = self.options + list(extra)
        return ["-o", ",".join(words)] if words else []

    def format(self, *args):
        return self.run("format", *self.option_args(), *args, self.image)

    def mount(self, *words):
        code = self.run("mount", *self.option_args(words), self.image, self.mnt)
        if code == 0:
            self.let_go()
            self.root = os.open(self.mnt, os.O_PATH | os.O_DIRECTORY)
        return code

    def let_go(self):
        if self.root is not None:
            os.close(self.root)
        self.root = None

    def unmount(self):
        self.let_go()
        return self.run("unmount", self.mnt)

    def check(self):
        return self.run("check", *self.option_args(), self.image)

    def mounted(self):
        with open("/proc/self/mountinfo") as f:
            return any(line.split()[4] == self.mnt for line in f)

    def status(self):
        with Deadline(), open(self.path(".vnvram/status")) as f:
            return json.load(f)

    def pids(self):
        """All processes that were given this image."""
        return self.processes(self.image)

    def mount_pids(self):
        """Those that serve this mount; another mount may have the image, too."""
        return self.processes(self.image, self.mnt)

    @staticmethod
    def processes(*words):
        wanted, found = {w.encode() for w in words}, []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    if not wanted <= set(f.read().split(b"\0")):
                        continue
                with open("/proc/%s/stat" % pid) as f:
                    if f.read().rpartition(")")[2].split()[0] not in "ZX":
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def nothing_left(self):
        if not wait_until(lambda: not self.pids()):
            raise Problem("left behind: processes %s" % self.pids())
        if self.mounted():
            raise Problem("left behind: a mount")
        self.check_sanitizers()

    def clean_up_mount(self):
        """What a daemon that has died left in the tree."""
        self.let_go()
        if self.mounted():
            detach(self.mnt)

    def clean_up(self):
        """By force, after a problem."""
        self.let_go()
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        detach(self.mnt)

    # Files, each operation ending in what acknowledges it.
    def path(self, name):
        """Never the bare directory beneath, when the mount has gone."""
        if self.root is None:
            raise OSError(errno.ENOTCONN, "not mounted")
        return "/proc/self/fd/%d/%s" % (self.root, name)

    def write(self, name, data, sync):
        with Deadline():
            fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(errno.EIO, "short write")
                if sync:
                    os.fsync(fd)
            except BaseException:
                try:
                    os.close(fd)
                except OSError:
                    pass
                raise
            os.close(fd)

    def patch(self, name, data, off):
        with Deadline():
            fd = os.open(self.path(name), os.O_WRONLY)
            try:
                os.pwrite(fd, data, off)
                os.fsync(fd)
            finally:
                os.close(fd)

    def rename(self, old, new):
        with Deadline():
            os.rename(self.path(old), self.path(new))

    def unlink(self, name):
        with Deadline():
            os.unlink(self.path(name))

    def read(self, name):
        with Deadline(), open(self.path(name), "rb") as f:
            return f.read()

    def files(self):
        """What there is, but for what the TPM keeps there."""
        with Deadline():
            names = os.listdir(self.path(""))
        return {n: self.read(n) for n in names if not is_tpms(n)}

    def tpm(self, command):
        with Deadline():
            fd = os.open(self.path("tpm0"), os.O_RDWR)
            try:
                os.write(fd, command)
                answer = os.read(fd, 4096)
            finally:
                os.close(fd)
        if len(answer) < 10:
            raise OSError(errno.EIO, "no answer")
        return struct.unpack(">I", answer[6:10])[0], answer[10:]


def is_tpms(name):
    return name.startswith(("tpm2-", "TMP2-", "tpm-", "TMP-", ".lock")) or name == "tpm0"


def detach(directory):
    if ctypes.CDLL(None, use_errno=True).umount2(directory.encode(), 2) != 0 and os.geteuid() != 0:
        subprocess.run(["fusermount3", "-uzq", directory], check=False)


# ---- TPM 2.0 commands ---------------------------------------------------------------------------
OWNER, INDEX = 0x40000001, 0x01500018
PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
NV_SIZE = 8


def command(code, handles, body):
    rest = b"".join(struct.pack(">I", h) for h in handles) + PASSWORD + body
    return struct.pack(">HII", 0x8002, 10 + len(rest), code) + rest


def nv_define(size=NV_SIZE, index=INDEX):
    public = struct.pack(">IHIHH", index, 0x000B, 0x00020002, 0, size)
    return command(0x12A, [OWNER], struct.pack(">HH", 0, len(public)) + public)


def nv_undefine(index=INDEX):
    return command(0x122, [OWNER, index], b"")


def nv_write(value, index=INDEX):
    return command(0x137, [OWNER, index], struct.pack(">H", len(value)) + value + struct.pack(">H", 0))


def nv_read(size=NV_SIZE, index=INDEX):
    return command(0x14E, [OWNER, index], struct.pack(">HH", size, 0))


def nv_value(answer):
    """From (code, body): the value, b"" before the first, None when the index is not there."""
    code, body = answer
    if code == 0x14A:
        return b""
    if code == 0:
        return body[6:6 + struct.unpack(">H", body[4:6])[0]]
    if code & 0xFF == 0x8B:  # a handle that is not there
        return None
    raise Problem("TPM2_NV_Read: %#x" % code)


# ---- what a mount must show ---------------------------------------------------------------------
class Model:
    """All states of the files that a mount may show now; one, when all was acknowledged."""

    def __init__(self):
        self.states = [{}]

    def begin(self, change):
        """@change: from a state to the one after it."""
        self.after = [change(dict(s)) for s in self.states]
        self.before = self.states
        self.states = self.before + self.after

    def acknowledge(self):
        self.states = self.after

    def refuse(self, also=()):
        """An error was answered: old or new, or what the states @also say."""
        self.states = self.before + self.after + list(also)

    def seen(self, files):
        if files not in self.states:
            raise Problem("shown: %s; allowed: %s" % (brief(files), [brief(s) for s in self.states]))
        self.states = [files]


def brief(files):
    return {n: (len(d), d[:6]) for n, d in sorted(files.items())}


def put(name, data):
    return lambda files: {**files, name: data}


def drop(name):
    return lambda files: {n: d for n, d in files.items() if n != name}


def moved(old, new):
    return lambda files: {**drop(old)(files), new: files[old]} if old in files else files


def patched(name, data, off):
    def change(files):
        if name not in files:
            return files
        old = files[name].ljust(off + len(data), b"\0")
        return {**files, name: old[:off] + data + old[off + len(data):]}
    return change


def fail(text):
    print(text)
    sys.exit(1)
