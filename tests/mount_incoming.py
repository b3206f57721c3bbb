# SPDX-License-Identifier: BSD-3-Clause
"""Live migration with one shared image: two mounts, and a client on each one's control channel.

    mount_incoming.py PROGRAM DIRECTORY

Whatever the order, and whoever is killed when: one writes at a time, nothing that was acknowledged
is lost, and who lost the image gets errors."""
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys

from ctrlkit import PERMANENT, SAVESTATE, VOLATILE, Client
from faultkit import (Daemon, Problem, command, nv_define, nv_read, nv_value, nv_write, wait_until)
from guestkit import DEADLINE, Qemu, Tap

STARTUP = struct.pack(">HIIH", 0x8001, 12, 0x144, 0)
STARTUP_1_2 = struct.pack(">HIIH", 0xC1, 12, 0x99, 1)
PCR_EVENT = command(0x13C, [16], struct.pack(">H", 2) + b"hi")
PCR_READ = struct.pack(">HIIIHBBBB", 0x8001, 20, 0x17E, 1, 11, 3, 0, 0, 1)
BLOBS = (PERMANENT, VOLATILE, SAVESTATE)
SIZE = 4 << 20
OWNER_RECORDS, OWNER_RECORDS_END = 4096, 4096 + 2 * 4096
RETRIES = 20  # of 10 ms: none of these tests wants to wait for somebody


def digest(path):
    with open(path, "rb") as f:
        image = f.read()
    return hashlib.sha256(image[:OWNER_RECORDS] + image[OWNER_RECORDS_END:]).digest()


def refused(what):
    """The errno of an operation, or None."""
    try:
        what()
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


class Side:
    """A mount of the shared image, and the client of its TPM's control channel."""

    def __init__(self, program, directory, image, words):
        os.makedirs(directory)
        self.d = Daemon(program, directory)
        self.d.image = image
        self.words, self.ctrl, self.client = list(words), os.path.join(directory, "ctrl"), None
        self.qemus, self.files = [], ()

    def mount(self, *more):
        words = self.words + list(more)
        if any(w.startswith("tpm=") for w in words):
            words.append("ctrl=" + self.ctrl)
        code = self.d.mount(*words)
        if code:
            raise Problem("mount: exit %d: %s" % (code, self.d.said))
        return self

    def dial(self):
        self.client = Client(self.ctrl)
        return self.client

    @property
    def place(self):
        return self.d.status()["place"]

    def get(self, kinds=BLOBS):
        return {kind: self.client.get_blob(kind) for kind in kinds}

    def put(self, blobs):
        self.client.stop()
        for kind, blob in blobs.items():
            if blob:
                self.client.set_blob(kind, blob)

    def fails(self, request, *args):
        """The control channel says no."""
        try:
            request(*args)
        except Problem:
            return True
        return False

    def opened(self):
        """Whether the daemon, its TPM or a helper has the image, or its lock.  Only root may look."""
        if os.geteuid() != 0:
            return False
        wanted = {(st.st_dev, st.st_ino) for st in map(os.stat, self.files)}
        return any(wanted & self.files_of(pid) for pid in self.pids())

    @staticmethod
    def files_of(pid):
        found, folder = set(), "/proc/%d/fd" % pid
        try:
            for fd in os.listdir(folder):
                st = os.stat(os.path.join(folder, fd))
                found.add((st.st_dev, st.st_ino))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just gone
        return found

    def pids(self):
        return self.d.mount_pids()

    def kill(self, which="pid"):
        os.kill(self.d.status()[which], signal.SIGKILL)
        self.gone()

    def gone(self):
        if not wait_until(lambda: not self.pids(), 60):
            raise Problem("left behind: %s" % self.pids())
        if self.client:
            self.client.close()
            self.client = None
        self.d.clean_up_mount()

    def shutdown(self):
        self.client.shutdown()
        self.d.let_go()
        self.gone()

    def unmount(self):
        if self.client:
            self.client.close()
            self.client = None
        return self.d.unmount()


class Pair:
    """A source that runs, and a target that waits."""

    number = 0

    def __init__(self, program, directory, words=("tpm=2.0",), sealed=False, anchor=False, mount=True,
                 storage=None):
        Pair.number += 1
        self.dir = os.path.join(directory, "pair%d" % Pair.number)
        self.program, self.targets = program, 0
        os.makedirs(self.dir)
        self.file = os.path.join(self.dir, "image")
        self.storage = storage(self.file) if storage else None
        self.image = self.storage.name if storage else self.file
        self.words, form = list(words), []
        if sealed:
            key = os.path.join(self.dir, "key")
            with open(key, "w", encoding="ascii") as f:
                f.write("00" * 32)
            os.chmod(key, stat.S_IRUSR)
            form = ["-o", "key_file=" + key]
            self.words.append("key_file=" + key)
        if anchor:
            self.words.append("anchor=" + os.path.join(self.dir, "anchor"))
        self.sides = []
        self.source = self.side("source")
        if self.source.d.run("format", *form, self.image):
            raise Problem(self.source.d.said)
        if mount:
            self.source.mount(*(["anchor_create"] if anchor else []))
        self.target = None

    def side(self, name):
        self.sides.append(Side(self.program, os.path.join(self.dir, name), self.image, self.words))
        self.sides[-1].files = {self.file, self.image} if os.path.exists(self.image) else {self.file}
        return self.sides[-1]

    def run(self):
        """A TPM that has been used."""
        c = self.source.dial()
        c.init()
        assert c.tpm(STARTUP)[0] == 0
        assert c.tpm(nv_define())[0] == 0
        assert c.tpm(nv_write(b"original"))[0] == 0
        assert c.tpm(PCR_EVENT)[0] == 0
        return self

    def wait(self):
        self.targets += 1
        self.target = self.side("target%d" % self.targets).mount("incoming")
        self.target.dial()
        return self.target

    def hand_over(self):
        self.target.put(self.source.get())
        self.target.client.init(True)

    def verdict(self):
        """What check, and info with the anchor, say of the image once nobody uses it."""
        words = [w for w in self.words if not w.startswith("tpm=")]
        check = ["-o" + w for w in words if not w.startswith("anchor=")]
        code = self.source.d.run("check", *check, self.image)
        return code or self.source.d.run("info", *["-o" + w for w in words], self.image)

    def clean_up(self):
        for s in self.sides:
            for q in s.qemus:
                q.kill()
            s.d.clean_up()
        if self.storage:
            self.storage.clean_up()


class Loop:
    """The image as a loop device."""

    SET_FD, CLR_FD, CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82

    def __init__(self, path):
        with open(path, "wb") as f:
            f.truncate(SIZE)
        back, control = (os.open(p, os.O_RDWR) for p in (path, "/dev/loop-control"))
        for _ in range(50):
            self.name = "/dev/loop%d" % fcntl.ioctl(control, self.CTL_GET_FREE)
            try:
                self.ioctl(self.SET_FD, back)
                break
            except OSError:
                continue  # somebody else was faster
        else:
            raise Problem("no loop device")
        os.close(back)
        os.close(control)

    def ioctl(self, code, argument=0):
        fd = os.open(self.name, os.O_RDWR)
        try:
            fcntl.ioctl(fd, code, argument)
        finally:
            os.close(fd)

    def clean_up(self):
        self.ioctl(self.CLR_FD)


class Nbd:
    """The image behind an NBD server."""

    def __init__(self, path):
        with open(path, "wb") as f:
            f.truncate(SIZE)
        socket = path + ".nbd"
        self.name = "nbd+unix:///?socket=" + socket
        self.server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-t", "-e", "4", "-k", socket, path])
        if not wait_until(lambda: os.path.exists(socket), DEADLINE):
            raise Problem("qemu-nbd does not start")

    def clean_up(self):
        self.server.terminate()
        self.server.wait()


class Host:
    """A QEMU with the TPM of a mount, and no guest but its firmware.  With "terminate" they end
    together: a QEMU that quits while the firmware waits for the TPM does not say so."""

    def __init__(self, side, *options):
        self.side, self.name, self.dir, self.ctrl, self.qemus = side, "vm", side.d.dir, side.ctrl, side.qemus
        self.side.mount("pcap=" + self.pcap, *options)
        self.qemu = None

    @property
    def pcap(self):
        return os.path.join(self.dir, "pcap")

    def start(self, *options):
        self.qemu = Qemu(self, "tpm-tis", options)
        self.qemus.append(self.qemu)
        return self.qemu

    def boots(self):
        """How often the firmware has ended what it does with the TPM (TPM2_HierarchyChangeAuth)."""
        with open(self.pcap, "rb") as f:
            return f.read().count(bytes.fromhex("80020000003100000129"))

    def has_booted(self, times):
        return wait_until(lambda: self.boots() >= times, DEADLINE)

    def ends(self):
        """QEMU's end is the mount's."""
        self.side.d.let_go()
        return self.qemu.quit() and wait_until(lambda: not self.side.pids(), DEADLINE)


def nv(client):
    return nv_value(client.tpm(nv_read()))


class Tests:
    def __init__(self, program, directory):
        self.program, self.dir, self.tap, self.pairs = program, directory, Tap(), []

    def pair(self, *args, **more):
        self.pairs.append(Pair(self.program, self.dir, *args, **more))
        return self.pairs[-1]

    def check(self, name, good, why=""):
        self.tap.check(name, good, why)

    def equal(self, name, got, wanted):
        self.tap.equal(name, got, wanted)

    def refuses(self, name, side):
        """No change of any kind."""
        p = side.d.path

        def patch():
            fd = os.open(p("note"), os.O_RDWR)
            try:
                os.pwrite(fd, b"x", 0)
            finally:
                os.close(fd)
        for what, change in (("write", patch), ("create", lambda: side.d.write("new", b"x", True)),
                             ("unlink", lambda: os.unlink(p("note"))),
                             ("rename", lambda: os.rename(p("note"), p("other"))),
                             ("chmod", lambda: os.chmod(p("note"), 0o640)),
                             ("truncate", lambda: os.truncate(p("note"), 1))):
            self.equal("%s: %s is refused" % (name, what), refused(change), "EROFS")

    # ---- chapters
    def usage(self):
        d = self.pair().source.d
        for words in ("incoming,tpm=2.0", "incoming,ro", "incoming,degraded", "incoming,anchor=x,anchor_create",
                      "incoming,tpm=2.0,ctrl=%s/c,startup=clear" % self.dir):
            self.equal("-o %s is a usage error" % words.replace(self.dir, ""),
                       d.run("mount", "-o", words, d.image, os.path.join(self.dir)), 2)

    def success(self, name, **more):
        p = self.pair(**more).run()
        s = p.source
        s.d.write("note", b"before", True)
        if not wait_until(lambda: s.d.status()["clean"], DEADLINE):  # which writes, too
            raise Problem("the source does not settle")
        before = digest(p.file)
        t = p.wait()
        self.equal(name + ": the target waits", t.place, "incoming")
        self.equal(name + ": reading it changes nothing", digest(p.file), before)
        self.check(name + ": it has nothing open", not t.opened())
        self.equal(name + ": it shows the files", t.d.read("note"), b"before")
        self.refuses(name + ": incoming", t)
        self.equal(name + ": they are well", [x.d.status()["health"] for x in (s, t)], ["ok"] * 2)
        s.d.write("note", b"after", True)
        self.check(name + ": no INIT without a state", t.fails(t.client.init))
        self.equal(name + ": no TPM command", t.client.tpm(PCR_READ)[0], 0x101)
        early = s.get((PERMANENT, VOLATILE))
        t.put(early)
        self.check(name + ": no INIT before the source lets go", t.fails(t.client.init, True))
        self.equal(name + ": ... it still waits", t.place, "incoming")
        self.equal(name + ": ... and the source goes on", s.client.tpm(nv_write(b"handover"))[0], 0)
        pcr = s.client.tpm(PCR_READ)
        blobs = s.get()
        self.equal(name + ": the source lets go", s.place, "released")
        self.check(name + ": nothing is open any more", not s.opened())
        self.refuses(name + ": released", s)
        self.equal(name + ": it still shows its files", s.d.read("note"), b"after")
        left = digest(p.file)
        t.put(blobs)
        t.client.init(True)
        self.equal(name + ": the target has it", t.place, "here")
        self.equal(name + ": INIT writes nothing but whose it is", digest(p.file), left)
        self.equal(name + ": files are those of the hand-over", t.d.read("note"), b"after")
        self.equal(name + ": so is what the TPM stores", nv(t.client), b"handover")
        self.equal(name + ": the machine was not reset", t.client.tpm(PCR_READ), pcr)
        self.check(name + ": the source gets nothing back while the target has it",
                   s.fails(s.client.lock_storage, RETRIES))
        self.equal(name + ": the target's TPM stores", t.client.tpm(nv_write(b"is here!"))[0], 0)
        t.d.write("note", b"target", True)
        self.equal(name + ": the source shows what it let go", s.d.read("note"), b"after")
        self.equal(name + ": as an image, too", self.note_of(p, s), b"after")
        self.equal(name + ": the target's image", self.note_of(p, t), b"target")
        self.equal(name + ": the source's TPM fails", s.client.tpm(nv_write(b"too late"))[0], 0x101)
        self.refuses(name + ": when it has gone", s)
        t.shutdown()
        self.check(name + ": the source gets nothing back after that",
                   s.fails(s.client.lock_storage, RETRIES))
        self.equal(name + ": ... and its TPM fails", s.client.tpm(PCR_EVENT)[0], 0x101)
        s.shutdown()
        self.equal(name + ": the image is clean", p.verdict(), 0)
        last = p.side("last").mount()
        last.dial().init()
        last.client.tpm(STARTUP)
        self.equal(name + ": it has what the target stored", (nv(last.client), last.d.read("note")),
                   (b"is here!", b"target"))
        last.shutdown()

    def note_of(self, p, side):
        """What .vnvram/image of a mount holds."""
        copy = p.side("copy%d" % len(p.sides))
        copy.d.image = os.path.join(copy.d.dir, "image")
        with open(copy.d.image, "wb") as f:
            f.write(side.d.read(".vnvram/image"))
        copy.words = [w for w in copy.words if not w.startswith(("tpm=", "anchor="))]
        copy.mount("ro")
        note = copy.d.read("note")
        copy.unmount()
        return note

    def tpm_1_2(self):
        p = self.pair(("tpm=1.2",))
        p.source.dial().init()
        assert p.source.client.tpm(STARTUP_1_2)[0] == 0
        p.wait()
        p.hand_over()
        self.equal("TPM 1.2: it is handed over", (p.source.place, p.target.place), ("released", "here"))
        self.equal("TPM 1.2: it was not reset", p.target.client.tpm(STARTUP_1_2)[0], 0x26)
        p.target.shutdown()
        p.source.shutdown()
        self.equal("TPM 1.2: the image is clean", p.verdict(), 0)

    def taken_back(self, name, how, **more):
        """The migration fails; the source's machine goes on, and migrates after all."""
        p = self.pair(**more).run()
        s = p.source
        p.wait()
        half = os.open(s.d.path("half"), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(half, b"not synced yet")
        p.target.put(s.get())
        self.equal(name + ": what nobody synced waits", refused(lambda: os.fsync(half)), "EROFS")
        p.target.kill()
        how(s.client)
        self.equal(name + ": the source has it back", s.place, "here")
        self.equal(name + ": its TPM goes on", s.client.tpm(nv_write(b"came bak"))[0], 0)
        os.fsync(half)
        os.close(half)
        self.equal(name + ": files, too", s.d.read("half"), b"not synced yet")
        t = p.wait()
        p.hand_over()
        self.equal(name + ": the next migration succeeds", (t.place, nv(t.client), t.d.read("half")),
                   ("here", b"came bak", b"not synced yet"))
        t.shutdown()
        s.shutdown()
        self.equal(name + ": the image is clean", p.verdict(), 0)

    def bad_state(self, name, spoil):
        """INIT fails on the target; it has written nothing, and the source takes it back."""
        p = self.pair().run()
        t, blobs = p.wait(), p.source.get()
        before = digest(p.file)
        t.put(spoil(p, dict(blobs)))
        self.check(name + ": INIT fails", t.fails(t.client.init, True))
        self.equal(name + ": the target gives it up", t.place, "incoming")
        self.equal(name + ": nothing was written", digest(p.file), before)
        self.check(name + ": nor kept open", not t.opened())
        p.source.client.lock_storage(RETRIES)
        self.equal(name + ": the source goes on", p.source.client.tpm(nv_write(b"goes on!"))[0], 0)
        p.hand_over()
        self.equal(name + ": the same target takes the next", nv(t.client), b"goes on!")
        t.shutdown()
        p.source.shutdown()

    def other_tpm(self, p, blobs):
        other = self.pair().run()
        blobs[PERMANENT] = other.source.client.get_blob(PERMANENT)
        other.source.shutdown()
        return blobs

    @staticmethod
    def cut_volatile(_, blobs):
        blob = blobs[VOLATILE]  # 22 bytes in front of it
        blobs[VOLATILE] = blob[:200] + bytes(b ^ 0x55 for b in blob[200:300]) + blob[300:]
        return blobs

    @staticmethod
    def let_times_wait(side):
        """A change of nothing, whose ctime waits for a commit."""
        path = side.d.path("note")
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))

    def goes_as_it_came(self):
        """Who took the image and wrote nothing leaves it to its source, though times wait."""
        p = self.pair().run()
        p.source.d.write("note", b"note", True)
        t, blobs = p.wait(), p.source.get()
        before = digest(p.file)
        t.client.lock_storage(RETRIES)
        self.let_times_wait(t)
        t.put(self.other_tpm(p, blobs))
        self.check("times wait: INIT fails", t.fails(t.client.init, True))
        self.equal("times wait: the target gives it up", t.place, "incoming")
        self.equal("times wait: nothing was written", digest(p.file), before)
        p.source.client.lock_storage(RETRIES)
        self.equal("times wait: the source goes on", p.source.client.tpm(nv_write(b"goes on!"))[0], 0)
        p.hand_over()
        self.equal("times wait: the same target takes the next", nv(t.client), b"goes on!")
        t.shutdown()
        p.source.shutdown()
        p = self.pair(())
        p.source.d.write("note", b"note", True)
        p.source.unmount()
        a, b = (p.side(name).mount("incoming") for name in ("a", "b"))
        self.say(a, b"take")
        for how, end in (("released", lambda: self.say(b, b"release")), ("unmounted", b.unmount)):
            self.say(a, b"release")
            self.say(b, b"take")
            self.let_times_wait(b)
            end()
            self.equal("times wait: %s, it is taken back" % how,
                       (refused(lambda: self.say(a, b"take")), a.place), (None, "here"))
        a.unmount()

    def own_image(self):
        """A target that shares nothing: its blank image takes what comes."""
        p = self.pair().run()
        t = p.side("target")
        t.d.image = os.path.join(t.d.dir, "image")
        t.d.run("format", t.d.image)
        t.mount("incoming").dial()
        p.target = t
        p.hand_over()
        self.equal("an image of its own: the TPM is there", nv(t.client), b"original")
        t.shutdown()
        self.equal("an image of its own: it is stored",
                   t.d.run("check", t.d.image), 0)
        p.source.client.lock_storage(RETRIES)
        self.equal("an image of its own: the source would still go on", nv(p.source.client), b"original")
        p.source.shutdown()

    def two_targets(self):
        p = self.pair().run()
        first, blobs = p.wait(), None
        second = p.wait()
        blobs = p.source.get()
        for t in (first, second):
            t.put(blobs)
        first.client.init(True)
        self.check("of two targets the second is refused", second.fails(second.client.init, True))
        self.equal("... and waits", (first.place, second.place), ("here", "incoming"))
        first.client.tpm(nv_write(b"by first"))
        first.kill()
        self.check("its state is not that of the image any more", second.fails(second.client.init, True))
        self.check("nor is the source's", p.source.fails(p.source.client.lock_storage, RETRIES))
        second.shutdown()
        p.source.shutdown()
        last = p.side("last").mount()
        last.dial().init()
        last.client.tpm(STARTUP)
        self.equal("nothing that was acknowledged is lost", nv(last.client), b"by first")
        last.shutdown()

    def unmounting(self):
        """A mount is ended, and not the other one of its image."""
        p = self.pair().run()
        for target, source in (("incoming", "here"), ("here", "released")):
            t = p.wait()
            if target == "here":
                p.hand_over()
            t.client.close()
            held = os.open(t.d.path("tpm2-00.permall"), os.O_RDONLY)
            t.d.let_go()
            self.equal("unmount --force of a mount that is %s" % target, t.d.run("unmount", "--force", t.d.mnt), 0)
            os.close(held)
            self.check("... ends it", wait_until(lambda: not t.pids()), t.pids())
            self.equal("... and not the source, which is %s" % source, p.source.place, source)
        p.source.unmount()
        self.check("... which ends, too", wait_until(lambda: not p.source.pids()), p.source.pids())

    def by_hand(self):
        p = self.pair(())
        s = p.source
        s.d.write("note", b"one", True)
        control = lambda side, word: refused(lambda: self.say(side, word))
        self.equal("by hand: a mount that cannot", control(s, b"release"), "ENOTSUP")
        a = p.side("a").mount("incoming")
        self.equal("by hand: in use", control(a, b"take"), "EBUSY")
        self.equal("by hand: what is not known", control(a, b"give"), "EINVAL")
        self.equal("by hand: unmounting lets go", s.unmount(), 0)
        self.equal("by hand: take", (control(a, b"take\n"), a.place), (None, "here"))
        a.d.write("note", b"two", True)
        b = p.side("b").mount("incoming")
        self.equal("by hand: release", (control(a, b"release\n"), a.place), (None, "released"))
        self.equal("by hand: and back", (control(a, b"take"), a.place), (None, "here"))
        held = os.open(b.d.path("note"), os.O_RDWR)
        shared = mmap.mmap(held, 3, access=mmap.ACCESS_READ)
        self.equal("by hand: what is mapped", (shared[:], os.pread(held, 99, 0)), (b"two", b"two"))
        a.d.write("note", b"tri", True)
        a.d.write("more", b"more", True)
        self.equal("by hand: one writes to what is to come", refused(lambda: os.write(held, b"x")), "EROFS")
        control(a, b"release")
        self.equal("by hand: the other takes it", (control(b, b"take"), b.place), (None, "here"))
        self.equal("by hand: what is mapped is as it is now", shared[:], b"tri")
        shared.close()
        self.equal("by hand: ... and what is open", os.pread(held, 99, 0), b"tri")
        self.equal("by hand: ... and all files", (b.d.read("note"), b.d.read("more"), sorted(os.listdir(b.d.mnt))),
                   (b"tri", b"more", ["more", "note"]))
        os.pwrite(held, b"TRI", 0)
        os.close(held)
        self.equal("by hand: who let go is late", control(a, b"take"), "EBUSY")
        self.equal("by hand: unmount", b.unmount(), 0)
        self.equal("by hand: ... and stale", control(a, b"take"), "ESTALE")
        self.equal("by hand: it ends well", (a.unmount(), p.verdict()), (0, 0))
        last = p.side("last").mount("ro")
        self.equal("by hand: all is there", last.d.read("note"), b"TRI")
        last.unmount()

    @staticmethod
    def say(side, word):
        fd = os.open(side.d.path(".vnvram/control"), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, word)
        finally:
            os.close(fd)

    def by_name(self):
        """The name of an image may lead elsewhere by the time that it is taken."""
        p = self.pair(())
        p.source.d.write("note", b"one", True)
        p.image = os.path.join(p.dir, "name")
        os.symlink(p.file, p.image)
        t = p.side("target").mount("incoming")
        p.source.unmount()
        os.unlink(p.image)
        os.rename(p.file, p.file + ".moved")
        os.symlink(p.file + ".moved", p.image)
        self.equal("by name: it is found", (refused(lambda: self.say(t, b"take")), t.place), (None, "here"))
        self.equal("by name: it is the one", t.d.read("note"), b"one")
        t.unmount()

    def late(self):
        """A helper that answers too late locks nothing, and the next answer is to the next request."""
        p = self.pair(())
        t = p.side("target").mount("incoming")
        p.source.unmount()
        helper, = self.helpers(t)
        os.kill(helper, signal.SIGSTOP)
        self.equal("late: no answer", refused(lambda: self.say(t, b"take")), "EIO")
        os.kill(helper, signal.SIGCONT)
        p.source.mount()
        p.source.d.write("note", b"two", True)
        self.equal("late: in use", refused(lambda: self.say(t, b"take")), "EBUSY")
        p.source.unmount()
        self.equal("late: and taken", (refused(lambda: self.say(t, b"take")), t.place), (None, "here"))
        self.equal("late: as it is now", t.d.read("note"), b"two")
        t.unmount()

    # ---- kill -9 of either side, after each step
    STEPS = ("target", "permanent", "volatile", "savestate", "set", "init", "command", "store", "file")

    def go_to(self, p, last):
        """All steps up to @last.  What must be in the image then."""
        s, wanted, blobs = p.source, b"original", {}
        for step in self.STEPS[:self.STEPS.index(last) + 1]:
            if step == "target":
                p.wait()
            elif step in ("permanent", "volatile", "savestate"):
                kind = BLOBS[("permanent", "volatile", "savestate").index(step)]
                blobs.update(s.get((kind,)))
            elif step == "set":
                p.target.put(blobs)
            elif step == "init":
                p.target.client.init(True)
            elif step == "command":
                assert p.target.client.tpm(PCR_EVENT)[0] == 0
            elif step == "store":
                assert p.target.client.tpm(nv_write(b"targeted"))[0] == 0
                wanted = b"targeted"
            else:
                p.target.d.write("note", b"target", True)
        return wanted

    def killed(self, step, side, which="pid"):
        name = "kill -9 of the %s's %s after %s" % (side, which, step)
        p = self.pair().run()
        wanted = self.go_to(p, step)
        victim = getattr(p, side)
        survivor = p.target if side == "source" else p.source
        victim.kill(which)
        at = self.STEPS.index(step)
        taken, stored = (at >= self.STEPS.index(x) for x in ("init", "store"))
        if side == "target":
            got = not survivor.fails(survivor.client.lock_storage, RETRIES)
            self.equal(name + ": the source", got, not stored)
            code = survivor.client.tpm(nv_write(b"survived"))[0]
            self.equal(name + ": its TPM", code, 0 if got else 0x101)
            wanted = b"survived" if got else wanted
        elif taken:
            self.equal(name + ": the target goes on", survivor.client.tpm(nv_write(b"survived"))[0], 0)
            wanted = b"survived"
        elif step in ("savestate", "set"):
            if step == "set":
                survivor.client.init(True)
                self.equal(name + ": the target takes it", (survivor.place, nv(survivor.client)),
                           ("here", b"original"))
            else:
                self.check(name + ": the target has no state", survivor.fails(survivor.client.init))
        else:
            self.equal(name + ": the target waits", survivor.place, "incoming")
        survivor.shutdown()
        last = p.side("last").mount()
        last.dial().init()
        last.client.tpm(STARTUP)
        self.equal(name + ": nothing acknowledged is lost", nv(last.client), wanted)
        last.shutdown()
        self.equal(name + ": the image is sound", p.verdict(), 0)

    @staticmethod
    def helpers(side):
        """The process that opens the image; it takes its name when it gets to run."""
        found = []

        def look():
            for pid in side.pids():
                with open("/proc/%d/comm" % pid, encoding="ascii") as f:
                    if f.read().strip() == "vnvram-image":
                        found.append(pid)
            return found
        if not wait_until(look, DEADLINE):
            raise Problem("no process opens the image")
        return found

    def helper(self):
        """The process that opens the image is killed: it cannot be taken, and nothing else happens."""
        p = self.pair().run()
        t, blobs = p.wait(), p.source.get()
        for pid in self.helpers(t):
            os.kill(pid, signal.SIGKILL)
        t.put(blobs)
        self.check("without its helper the target cannot take it", t.fails(t.client.init, True))
        p.source.client.lock_storage(RETRIES)
        self.equal("... and the source goes on", p.source.client.tpm(nv_write(b"goes on!"))[0], 0)
        t.shutdown()
        p.source.shutdown()

    # ---- QEMU, whose firmware is guest enough
    def machines(self):
        p = self.pair(mount=False)
        source = Host(p.source, "terminate")
        source.start().qmp("cont")
        self.check("QEMU: the firmware uses the TPM", source.has_booted(1))
        return p, source, self.waiting(p)

    def waiting(self, p):
        p.targets += 1
        target = Host(p.side("qemu%d" % p.targets), "incoming", "terminate")
        target.start("-incoming", "unix:" + os.path.join(target.dir, "migration"))
        return target

    @staticmethod
    def migrate(source, target, *wanted):
        return source.qemu.migrate("unix:" + os.path.join(target.dir, "migration"), *wanted)

    @staticmethod
    def use_return_path(*hosts):
        """So that the source hears of the target's troubles."""
        for h in hosts:
            h.qemu.qmp("migrate-set-capabilities",
                       capabilities=[{"capability": "return-path", "state": True}])

    def arrives(self, name, p, source, target):
        self.equal(name + ": it migrates", self.migrate(source, target), "completed")
        target.qemu.wait_for("query-status", "paused", "prelaunch", "running")
        self.equal(name + ": the image moves", (source.side.place, target.side.place),
                   ("released", "here"))
        target.qemu.qmp("cont")
        target.qemu.qmp("system_reset")
        self.check(name + ": the TPM goes on there", target.has_booted(1))
        self.equal(name + ": without the source", source.side.place, "released")
        self.check(name + ": both end well", source.ends() and target.ends())
        self.equal(name + ": the image is clean", p.verdict(), 0)

    def goes_on(self, name, source, boots):
        self.check(name + ": the source takes it back",
                   wait_until(lambda: source.side.place == "here", DEADLINE), source.side.place)
        source.qemu.wait_for("query-status", "running")
        source.qemu.qmp("system_reset")
        self.check(name + ": its TPM goes on", source.has_booted(boots))

    def qemu_success(self):
        self.arrives("QEMU", *self.machines())

    def qemu_failure(self):
        p, source, target = self.machines()
        self.use_return_path(source, target)
        target.side.kill()
        self.equal("QEMU: without a TPM the migration fails", self.migrate(source, target, "failed"), "failed")
        self.goes_on("QEMU, failed", source, 2)
        target.qemu.kill()
        other = self.pair().run().source
        other.shutdown()
        side = p.side("stray")
        side.d.image = other.d.image
        stray = Host(side, "incoming")
        stray.start("-incoming", "unix:" + os.path.join(stray.dir, "migration"))
        self.use_return_path(stray)
        self.equal("QEMU: to another image it fails", self.migrate(source, stray, "failed"), "failed")
        self.equal("QEMU: which waits on", stray.side.place, "incoming")
        self.goes_on("QEMU, refused", source, 3)
        stray.qemu.kill()
        self.arrives("QEMU, at last", p, source, self.waiting(p))

    @staticmethod
    def drive(host):
        return ("-drive", "if=none,id=v,format=raw,cache=writethrough,file=" +
                os.path.join(host.side.d.mnt, "vars"),
                "-device", "virtio-blk-pci,drive=v")

    def qemu_files(self):
        """A file of the image that QEMU has open for writing goes with it, as OVMF's variables do."""
        p = self.pair(mount=False)
        source = Host(p.source, "terminate")
        source.side.d.write("vars", bytes(1 << 16), True)
        source.start(*self.drive(source)).qmp("cont")
        source.has_booted(1)
        p.targets += 1
        target = Host(p.side("qemu%d" % p.targets), "incoming", "terminate")
        target.start("-incoming", "unix:" + os.path.join(target.dir, "migration"), *self.drive(target))
        self.equal("QEMU: with a file it migrates", self.migrate(source, target), "completed")
        target.qemu.wait_for("query-status", "paused", "prelaunch", "running")
        target.qemu.qmp("cont")
        target.qemu.qmp("human-monitor-command", **{"command-line": 'qemu-io v "write -P 7 0 4096"'})
        self.equal("QEMU: it writes to the file there", target.side.d.read("vars")[:4097], b"\7" * 4096 + b"\0")
        self.equal("QEMU: the source's is what it was", source.side.d.read("vars"), bytes(1 << 16))
        self.check("QEMU: with files both end well", source.ends() and target.ends())
        self.equal("QEMU: with files the image is clean", p.verdict(), 0)

    def qemu_continued(self):
        """A snapshot: what goes out goes nowhere, and the source goes on."""
        p = self.pair(mount=False)
        source = Host(p.source, "terminate")
        source.start().qmp("cont")
        source.has_booted(1)
        source.qemu.qmp("stop")
        self.equal("QEMU: a snapshot", source.qemu.migrate("exec:cat >/dev/null"), "completed")
        self.equal("QEMU: ... lets go", source.side.place, "released")
        source.qemu.qmp("cont")
        self.goes_on("QEMU, continued", source, 2)
        self.check("QEMU, continued: it ends well", source.ends())
        self.equal("QEMU, continued: the image is clean", p.verdict(), 0)

    @staticmethod
    def has_nbd():
        """Libnbd is loaded when it is needed, and may not be there."""
        try:
            ctypes.CDLL("libnbd.so.0")
        except OSError:
            return False
        return True

    def run(self):
        self.usage()
        self.success("plain")
        self.success("sealed", sealed=True)
        self.success("anchored", anchor=True)
        if os.geteuid() == 0 and os.path.exists("/dev/loop-control"):
            self.success("loop device", storage=Loop)
            self.taken_back("loop device", lambda c: c.lock_storage(RETRIES), storage=Loop)
        if self.has_nbd() and shutil.which("qemu-nbd"):
            self.success("NBD", storage=Nbd)
            self.taken_back("NBD", lambda c: c.lock_storage(RETRIES), storage=Nbd)
        self.tpm_1_2()
        self.taken_back("LOCK_STORAGE", lambda c: c.lock_storage(RETRIES))
        self.taken_back("anchored, TPM command", lambda c: c.tpm(PCR_EVENT), anchor=True)
        self.taken_back("sealed, INIT", lambda c: (c.init(), c.tpm(STARTUP)), sealed=True)
        self.bad_state("another TPM's state", self.other_tpm)
        self.bad_state("a volatile state that is none", self.cut_volatile)
        self.goes_as_it_came()
        self.own_image()
        self.two_targets()
        self.unmounting()
        self.by_hand()
        self.by_name()
        self.late()
        self.helper()
        for step in self.STEPS:
            for side in ("source", "target"):
                self.killed(step, side)
        self.killed("set", "source", "tpm_pid")
        self.killed("command", "target", "tpm_pid")
        self.qemu_success()
        self.qemu_failure()
        self.qemu_files()
        self.qemu_continued()


def main():
    tests = Tests(*sys.argv[1:3])
    try:
        tests.run()
    except (Problem, OSError, AssertionError) as e:
        tests.check("no problem", False, "%s: %s" % (type(e).__name__, e))
        raise
    finally:
        for p in tests.pairs:
            p.clean_up()
        tests.tap.finish()


if __name__ == "__main__":
    main()
