# SPDX-License-Identifier: BSD-3-Clause
"""guestkit - a Linux guest in QEMU that does what a test says, and the vnvram whose TPM it has.

The guest is Debian's cloud kernel (scripts/install-deps fetches it), busybox, tests/guest/init and
tests/guest/tpmclient.c.  It reads commands from its second serial port, so a test asks it and waits
for the answer; nothing here sleeps a time that is hoped to be enough."""
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

from faultkit import Daemon, Problem, wait_until

CACHE = os.environ.get("VNVRAM_TEST_CACHE", "/var/cache/vnvram-tests")
DEADLINE = 240  # seconds for a boot or a migration: the machine may be a busy one
BUSYBOX = "/bin/busybox"
INITRD_AT = 0x8000000
CMDLINE = ("console=ttyS0 quiet panic=-1 nokaslr mitigations=off cryptomgr.notests "
           "random.trust_cpu=on")
APPLETS = ["base64", "insmod", "mount", "od", "poweroff", "reboot", "sh", "stty"]


# ---- TAP ------------------------------------------------------------------------------------------
class Tap:
    """Test results, as tests/lib.sh says them."""

    def __init__(self):
        self.run = self.failed = 0

    def check(self, name, good, why=""):
        self.run += 1
        self.failed += not good
        print("%sok %d - %s" % ("" if good else "not ", self.run, name))
        for line in str(why).splitlines() if not good else ():
            print("# " + line)
        sys.stdout.flush()

    def equal(self, name, got, wanted):
        self.check(name, got == wanted, "got    %r\nwanted %r" % (got, wanted))

    def finish(self):
        print("1..%d" % self.run)
        sys.exit(self.failed > 0)


# ---- the guest's files ------------------------------------------------------------------------------
def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def write_file(path, data):
    with open(path, "wb") as f:
        f.write(data)


def cpio(entries):
    """An initramfs of (name, mode, content or device number); the same bytes each time."""
    out = b""
    for number, (name, mode, content) in enumerate(list(entries) + [("TRAILER!!!", 0, b"")]):
        device, data = (content, b"") if isinstance(content, tuple) else ((0, 0), content)
        path = name.encode() + b"\0"
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % n for n in fields) + path
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out


def initramfs(source, client):
    program, link = stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777
    for name in ("bin", "dev", "proc", "sys"):
        yield name, stat.S_IFDIR | 0o755, b""
    yield "dev/console", stat.S_IFCHR | 0o600, (5, 1)
    yield "bin/busybox", program, read_file(BUSYBOX)
    for name in APPLETS:
        yield "bin/" + name, link, b"busybox"
    yield "bin/tpmclient", program, read_file(client)
    yield "efivarfs.ko", stat.S_IFREG | 0o644, read_file(os.path.join(CACHE, "efivarfs.ko"))
    yield "init", program, read_file(os.path.join(source, "init"))


def unpacked(kernel):
    """The ELF file within a bzImage of Debian's, lz4 and its size.  QEMU starts that one, too, and a
    reboot is ten seconds faster: under TCG, a kernel that unpacks itself over one that ran before is
    slow."""
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (kernel[0x1f1] + 1) * 512 + offset
    return subprocess.run(["lz4", "-dc"], input=kernel[start:start + length - 4], check=True,
                          stdout=subprocess.PIPE).stdout


class Rig:
    """The programs and files of a test."""

    def __init__(self, program, directory):
        here = os.path.dirname(os.path.realpath(__file__))
        built = os.path.dirname(os.path.realpath(program))
        self.program, self.dir, self.machines = program, directory, []
        self.kernel = os.path.join(directory, "vmlinux")
        self.initrd = os.path.join(directory, "initrd")
        client = os.path.join(built, "tests", "guest", "tpmclient")
        write_file(self.kernel, unpacked(read_file(os.path.join(CACHE, "vmlinuz"))))
        write_file(self.initrd, cpio(initramfs(os.path.join(here, "guest"), client)))

    def machine(self, name, **more):
        self.machines.append(Machine(self, name, **more))
        return self.machines[-1]

    def clean_up(self):
        for m in self.machines:
            for q in m.qemus:
                q.kill()
            m.daemon.clean_up()


# ---- vnvram -----------------------------------------------------------------------------------------
class Machine:
    """An image, its mount, and the QEMU that uses its TPM.  Another machine's image, if @shared."""

    def __init__(self, rig, name, profile="tpm", shared=None):
        self.rig, self.name = rig, name
        self.dir = os.path.join(rig.dir, name)
        os.makedirs(self.dir)
        self.ctrl = os.path.join(self.dir, "ctrl")
        self.daemon = Daemon(rig.program, self.dir)
        self.qemus = []
        if shared:
            self.daemon.image = shared.daemon.image
        else:
            self.must(self.daemon.format("--profile", profile), "format")

    def must(self, code, what):
        if code:
            raise Problem("%s: %s: exit %d: %s" % (self.name, what, code, self.daemon.said))

    def mount(self, *words):
        self.must(self.daemon.mount("tpm=2.0", "ctrl=" + self.ctrl, *words), "mount")
        self.daemon.let_go()  # or the mount stays for us

    def status(self):
        with open(os.path.join(self.daemon.mnt, ".vnvram", "status"), encoding="utf-8") as f:
            return json.load(f)

    def qemu(self, model, *options):
        """With Linux; paused, until boot() or an incoming migration."""
        kernel, initrd = self.rig.kernel, self.rig.initrd
        # not by -initrd: QEMU 7.2 puts it over the ACPI tables, which the TPM's log makes large
        return self.bare_qemu(model, "-kernel", kernel, "-append",
                              "%s initrdmem=%#x,%d" % (CMDLINE, INITRD_AT, os.path.getsize(initrd)),
                              "-device",
                              "loader,file=%s,addr=%#x,force-raw=on" % (initrd, INITRD_AT), *options)

    def bare_qemu(self, model, *options):
        self.qemus.append(Qemu(self, model, options))
        return self.qemus[-1]

    def has_ended(self):
        """The mount went by itself, and so did all who served it."""
        return wait_until(lambda: not self.daemon.mounted() and not self.daemon.mount_pids(), DEADLINE)

    def is_clean(self):
        return self.daemon.check() == 0

    def kill(self, which="pid"):
        pid = self.status()[which]
        os.kill(pid, signal.SIGKILL)
        if not wait_until(lambda: not self.daemon.mount_pids(), DEADLINE):
            raise Problem("%s: kill -9 leaves processes: %s" % (self.name, self.daemon.mount_pids()))


# ---- QEMU -------------------------------------------------------------------------------------------
class Stream:
    """Lines on a socket, with a deadline."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.rest = b""

    def write(self, text):
        self.socket.sendall(text.encode())

    def read(self, seconds):
        """More of it.  False: that was all."""
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            raise Problem("no answer in time; so far: %r" % self.rest)
        try:
            more = self.socket.recv(65536)
        except ConnectionResetError:
            more = b""
        self.rest += more
        return bool(more)

    def line(self):
        end = time.monotonic() + DEADLINE
        while b"\n" not in self.rest:
            if not self.read(end - time.monotonic()):
                raise Problem("QEMU has gone")
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")


    def follow(self, other):
        """It begins with what @other, which has ended, still said: a line may be half here and half
        there."""
        while other.read(DEADLINE):
            pass
        self.rest = other.rest + self.rest


class Qemu:
    def __init__(self, machine, model, options):
        self.machine, self.name = machine, "%s/%d" % (machine.name, len(machine.qemus))
        base = os.path.join(machine.dir, "qemu%d" % len(machine.qemus))
        self.console, self.log = base + ".console", base + ".log"
        paths = {n: base + "." + n for n in ("qmp", "serial")}
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=single", "-m", "256", "-nodefaults",
                   "-display", "none", "-S",
                   "-qmp", "unix:%s,server=on,wait=off" % paths["qmp"],
                   "-chardev", "socket,id=s,path=%s,server=on,wait=off" % paths["serial"],
                   "-serial", "file:" + self.console, "-serial", "chardev:s",
                   "-chardev", "socket,id=c,path=" + machine.ctrl,
                   "-tpmdev", "emulator,id=t,chardev=c", "-device", model + ",tpmdev=t"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command + list(options), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        self.qmp_stream, self.serial = (self.connect(paths[n]) for n in ("qmp", "serial"))
        self.qmp_stream.line()
        self.qmp("qmp_capabilities")

    def connect(self, path):
        found = []

        def try_it():
            if self.process.poll() is not None:
                raise Problem("QEMU does not start: " + self.said())
            try:
                found.append(Stream(path))
            except OSError:
                return False
            return True

        if not wait_until(try_it, DEADLINE):
            raise Problem("QEMU does not listen: " + self.said())
        return found[0]

    def said(self):
        out = b""
        for path in (self.log, self.console):
            if os.path.exists(path):
                out += read_file(path)[-3000:]
        return out.decode(errors="replace")

    # -- QMP
    def qmp(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.qmp_stream.write(json.dumps(request))
        answer = {}
        while "return" not in answer and "error" not in answer:
            answer = json.loads(self.qmp_stream.line())
        if "error" in answer:
            raise Problem("%s: %s" % (command, answer["error"]))
        return answer["return"]

    def wait_for(self, query, *wanted):
        """The status that came, one of those wanted."""
        end = time.monotonic() + DEADLINE
        while True:
            status = self.qmp(query).get("status", "none")
            if status in wanted:
                return status
            if time.monotonic() > end or status in ("failed", "completed", "internal-error"):
                raise Problem("%s: %s, not %s: %s" % (query, status, wanted, self.said()))
            time.sleep(0.02)

    def migrate(self, uri, *wanted):
        self.qmp("migrate", uri=uri)
        return self.wait_for("query-migrate", *(wanted or ("completed",)))

    # -- its life
    def boot(self):
        self.qmp("cont")
        self.wait_ready()

    def wait_ready(self):
        while not self.serial.line().endswith("= ready"):
            pass  # what a firmware has to say on all serial ports

    def ends(self):
        """It ends by itself, and well."""
        try:
            return self.process.wait(DEADLINE) == 0
        except subprocess.TimeoutExpired:
            return False

    def quit(self):
        self.qmp("quit")
        return self.ends()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # -- what the guest does
    def start(self, command):
        self.serial.write(command + "\n")

    def answer(self):
        """What it prints, and how it ends."""
        lines = []
        while True:
            line = self.serial.line()
            if line.startswith("= "):
                return "\n".join(lines), int(line[2:])
            lines.append(line)

    def numbers_left(self):
        """What it printed before it was killed: whole lines, each a number."""
        found = []
        try:
            while True:
                found.append(int(self.serial.line()))
        except (Problem, ValueError):
            return found

    def ask(self, command):
        self.start(command)
        return self.answer()

    def sh(self, command):
        text, status = self.ask(command)
        if status:
            raise Problem("in the guest: %s: exit %d: %s" % (command, status, text))
        return text

    def tpm(self, command):
        return self.sh("tpmclient " + command)

    def reboot(self):
        self.start("reboot -f")
        self.wait_ready()
