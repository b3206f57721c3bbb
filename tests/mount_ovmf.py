# SPDX-License-Identifier: BSD-3-Clause
"""A guest with UEFI: all of its memory, TPM and variables, in one image.  Secure Boot is on, what the
firmware measures is in the TPM, and a variable that was set survives kill -9 of QEMU and of vnvram.

    mount_ovmf.py PROGRAM DIRECTORY"""
import base64
import hashlib
import os
import struct
import sys

from guestkit import CACHE, CMDLINE, Problem, Rig, Tap, read_file, write_file

CODE, VARS = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
EFIVARS = "/sys/firmware/efi/efivars/"
GUID = "-6d8d1f0a-5a1c-4c6e-9d4e-0f5a3f1c7b21"
SHA256 = 11
NO_ACTION, DRIVER_CONFIG = 3, 0x80000001
SEEN = 3  # variables that are set before something is killed


# ---- the firmware's log of what it measured ----------------------------------------------------------
def events(log):
    """(PCR, type, SHA-256 digest, data), without the first, which says what the others are like."""
    at = 28 + struct.unpack_from("<I", log, 28)[0] + 4
    sizes = {}
    for i in range(struct.unpack_from("<I", log, 32 + 24)[0]):
        alg, size = struct.unpack_from("<HH", log, 32 + 28 + 4 * i)
        sizes[alg] = size
    while at < len(log):
        pcr, kind, count = struct.unpack_from("<III", log, at)
        at += 12
        digest = None
        for _ in range(count):
            alg = struct.unpack_from("<H", log, at)[0]
            if alg == SHA256:
                digest = log[at + 2:at + 2 + sizes[alg]]
            at += 2 + sizes[alg]
        size = struct.unpack_from("<I", log, at)[0]
        yield pcr, kind, digest, log[at + 4:at + 4 + size]
        at += 4 + size


def replayed(log):
    pcrs = [bytes(32)] * 24
    for pcr, kind, digest, _ in events(log):
        if kind != NO_ACTION:
            pcrs[pcr] = hashlib.sha256(pcrs[pcr] + digest).digest()
    return [p.hex() for p in pcrs]


def measured_variables(log):
    found = {}
    for pcr, kind, _, data in events(log):
        if pcr == 7 and kind == DRIVER_CONFIG:
            name, size = struct.unpack_from("<QQ", data, 16)
            text = data[32:32 + 2 * name].decode("utf-16-le")
            found[text] = data[32 + 2 * name:32 + 2 * name + size]
    return found


# ---- the guest ---------------------------------------------------------------------------------------
class Story:
    def __init__(self, rig, tap):
        self.rig, self.tap = rig, tap
        self.machine = rig.machine("vm", profile="vm")
        self.qemu, self.set, self.pcr7 = None, 0, None

    @property
    def vars(self):
        return os.path.join(self.machine.daemon.mnt, "OVMF_VARS.fd")

    def start(self, model, cache, *options):
        self.qemu = self.machine.bare_qemu(
            model, "-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
            "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + CODE,
            "-drive", "if=pflash,format=raw,unit=1,cache=%s,file=%s" % (cache, self.vars),
            "-kernel", os.path.join(CACHE, "vmlinuz"), "-initrd", self.rig.initrd, "-append", CMDLINE,
            *options)

    def boot(self, model):
        self.start(model, "writethrough")
        self.qemu.boot()

    def boot_after_kill(self, model):
        """A firmware that finds a variable half written copies all of its flash, twice, byte by byte:
        minutes, were each byte synced.  Nothing is set in this boot that has to survive."""
        self.start(model, "writeback")
        self.qemu.boot()

    def migrate(self, model):
        """To another mount of the image."""
        source, old = self.machine, self.qemu
        self.machine = self.rig.machine("target", shared=source)
        self.machine.mount("incoming")
        uri = "unix:" + os.path.join(self.machine.dir, "migration")
        self.start(model, "writethrough", "-incoming", uri)
        old.migrate(uri)
        self.qemu.qmp("cont")
        self.qemu.wait_for("query-status", "running")
        old.kill()
        self.tap.equal("migrated: the source is unmounted", source.daemon.unmount(), 0)
        self.has_variables("migrated")

    def variable(self, number):
        return self.qemu.ask("od -An -tx1 %sVnvram%d%s" % (EFIVARS, number, GUID))

    def is_measured(self, name):
        q = self.qemu
        self.tap.equal(name + ": Secure Boot is on", q.sh("od -An -tx1 %sSecureBoot-*" % EFIVARS),
                       " 06 00 00 00 01")
        q.sh("mount -t securityfs none /sys/kernel/security")
        log = base64.b64decode(q.sh("base64 /sys/kernel/security/tpm0/binary_bios_measurements"))
        pcrs = [q.tpm("pcr-read %d" % i) for i in range(8)]
        self.tap.equal(name + ": PCRs 0 to 7 are what the firmware's log says", pcrs, replayed(log)[:8])
        self.tap.check(name + ": each was measured into", not {p for p in pcrs if not p.strip("0")}, pcrs)
        self.tap.equal(name + ": it measured that Secure Boot is on",
                       measured_variables(log).get("SecureBoot"), b"\1")
        if self.pcr7:
            self.tap.equal(name + ": PCR 7 is what it was", pcrs[7], self.pcr7)
        self.pcr7 = pcrs[7]

    def set_variables(self):
        """The guest sets one after the other; returns when some are acknowledged."""
        self.qemu.start("i=%d; while printf '\\7\\0\\0\\0%%04d' $i >%sVnvram$i%s; do echo $i; "
                        "i=$((i+1)); done" % (self.set, EFIVARS, GUID))
        for _ in range(SEEN):
            if self.qemu.serial.line() != str(self.set):
                raise Problem("a variable cannot be set")
            self.set += 1

    def has_variables(self, name):
        """Each that was acknowledged; one more may have been set meanwhile."""
        acknowledged, self.set = self.set, 0
        while True:
            found = self.variable(self.set)
            if found[1] and self.set >= acknowledged:
                break
            text = " 07 00 00 00 " + (b"%04d" % self.set).hex(" ")
            self.tap.equal("%s: variable %d is there" % (name, self.set), found, (text, 0))
            self.set += 1

    def tell(self):
        self.machine.mount()
        write_file(self.vars, read_file(VARS))
        self.boot("tpm-crb")
        self.is_measured("first boot")
        self.set_variables()
        self.qemu.kill()
        self.tap.check("kill -9 of QEMU: the mount stays", self.machine.daemon.mounted())
        self.boot_after_kill("tpm-tis")
        self.is_measured("kill -9 of QEMU")
        self.has_variables("kill -9 of QEMU")
        self.migrate("tpm-tis")
        self.set_variables()
        self.machine.kill()
        self.qemu.kill()
        self.machine.mount()
        self.boot_after_kill("tpm-crb")
        self.is_measured("kill -9 of vnvram")
        self.has_variables("kill -9 of vnvram")
        self.qemu.start("poweroff -f")
        self.tap.check("power-off", self.qemu.ends())
        self.tap.check("the mount ends with it", self.machine.has_ended())
        self.tap.check("the image is clean", self.machine.is_clean(), self.machine.daemon.said)


def main():
    program, directory = sys.argv[1:]
    rig, tap, story = Rig(program, directory), Tap(), None
    try:
        story = Story(rig, tap)
        story.tell()
    except (Problem, OSError) as e:
        tap.check("no problem", False, "%s\n%s" % (e, story.qemu.said() if story and story.qemu else ""))
    finally:
        rig.clean_up()
    tap.finish()


main()
