# SPDX-License-Identifier: BSD-3-Clause
"""Linux guests whose TPM is a mount's: its memory through reboots, power-offs, migrations and
kill -9.

    mount_guest.py PROGRAM DIRECTORY MODEL...

MODEL is QEMU's device: tpm-tis, tpm-crb."""
import hashlib
import os
import signal
import sys

from guestkit import DEADLINE, Problem, Rig, Tap, wait_until

NV, COUNTER = "0x1500016", "0x1500017"
ZERO = "00" * 32
RUN = 5  # increments that are seen before something is killed


def extended(pcr, digest):
    return hashlib.sha256(bytes.fromhex(pcr) + bytes.fromhex(digest)).hexdigest()


class Story:
    """One guest, and what its TPM must show."""

    def __init__(self, rig, tap, model):
        self.rig, self.tap, self.model = rig, tap, model
        self.nv, self.counter, self.lost, self.starts, self.measured = "", 0, 0, [], ""
        self.machine = rig.machine(model)
        self.qemu = None
        self.pcr = ZERO

    def check(self, name, good, why=""):
        self.tap.check("%s: %s" % (self.model, name), good, why)

    def equal(self, name, got, wanted):
        self.tap.equal("%s: %s" % (self.model, name), got, wanted)

    # -- steps of more than one chapter
    def boot(self, machine=None):
        if machine:
            machine.mount()
            self.machine = machine
        self.qemu = self.machine.qemu(self.model)
        self.qemu.boot()

    def count(self, name):
        self.counter += 1
        self.equal(name + ": the counter goes on", self.qemu.tpm("nv-increment " + COUNTER),
                   str(self.counter))

    def clock(self):
        """Resets, and restarts since the last one: either counts with each start."""
        return [int(n) for n in self.qemu.tpm("clock").split()[1:3]]

    def extend(self):
        digest = os.urandom(32).hex()
        self.qemu.tpm("pcr-extend 16 " + digest)
        self.pcr = extended(self.pcr, digest)

    def kept(self, name):
        """The NV memory is what it was."""
        self.equal(name + ": what was written is there", self.qemu.tpm("nv-read %s 32" % NV), self.nv)
        self.count(name)

    def started_anew(self, name):
        """... in a machine that was off or reset."""
        self.equal(name + ": PCR 16 is zero", self.qemu.tpm("pcr-read 16"), ZERO)
        self.equal(name + ": PCR 0 is what the firmware measures", self.qemu.tpm("pcr-read 0"),
                   self.measured)
        starts = self.clock()
        self.check(name + ": it is another start", starts > self.starts,
                   "%s, then %s" % (self.starts, starts))
        self.starts = starts
        self.pcr = ZERO
        self.kept(name)

    def goes_on(self, name):
        """... in one that was not."""
        self.equal(name + ": PCR 16 is what it was", self.qemu.tpm("pcr-read 16"), self.pcr)
        self.equal(name + ": it was not started again", self.clock(), self.starts)
        self.equal(name + ": nor was Linux", self.qemu.sh("echo $mark"), "made")
        self.extend()
        self.equal(name + ": PCR 16 is extended", self.qemu.tpm("pcr-read 16"), self.pcr)
        self.kept(name)

    def ends(self, name, machine):
        self.check(name + ": the mount ends with it", machine.has_ended())
        self.check(name + ": the image is clean", machine.is_clean(), machine.daemon.said)

    # -- chapters
    def first(self):
        self.boot(self.machine)
        q = self.qemu
        self.measured = q.tpm("pcr-read 0")
        self.check("the firmware has measured", self.measured not in (ZERO, "ff" * 32), self.measured)
        self.starts = self.clock()
        self.equal("PCR 16 is zero", q.tpm("pcr-read 16"), ZERO)
        self.extend()
        self.equal("PCR 16 is extended", q.tpm("pcr-read 16"), self.pcr)
        one, other = (q.tpm("random 16") for _ in range(2))
        self.check("random numbers", len(one) == len(other) == 32 and one != other, one + other)
        self.nv = os.urandom(32).hex()
        self.equal("what was never defined is not there", q.ask("tpmclient nv-read %s 32" % NV),
                   ("0x28b", 1))
        q.tpm("nv-define %s 32" % NV)
        q.tpm("nv-write %s %s" % (NV, self.nv))
        q.tpm("nv-counter " + COUNTER)
        self.counter = int(q.tpm("nv-increment " + COUNTER))
        q.sh("mark=made")
        self.goes_on("first boot")

    def reboot(self):
        self.qemu.reboot()
        self.started_anew("reboot")

    def power_off(self):
        self.qemu.start("poweroff -f")
        self.check("power-off", self.qemu.ends())
        self.ends("power-off", self.machine)
        self.boot(self.machine)
        self.started_anew("power-on")

    def suspend(self):
        """To a file, and back on the same image; the machine does not notice."""
        q, state = self.qemu, os.path.join(self.rig.dir, "state")
        q.sh("mark=made")
        self.extend()
        q.qmp("stop")
        q.migrate("exec:cat >" + state)
        self.check("suspended", q.quit())
        self.ends("suspended", self.machine)
        self.machine.mount("terminate")
        self.qemu = self.machine.qemu(self.model, "-incoming", "exec:cat " + state)
        self.qemu.wait_for("query-status", "paused", "prelaunch")
        self.qemu.qmp("cont")
        self.goes_on("resumed")

    def target(self, name, shared=None):
        machine = self.rig.machine("%s-%s" % (self.model, name), shared=shared)
        # a QEMU that has sent the TPM a command before it stopped may quit without a word
        machine.mount("terminate", *(["incoming"] if shared else []))
        uri = "unix:" + os.path.join(machine.dir, "migration")
        return machine, machine.qemu(self.model, "-incoming", uri), uri

    def see(self, line):
        """An increment that the guest tells of: the one after the last, or after one whose answer was lost
        (tests/guest/tpmclient.c says how)."""
        if line == "unanswered" and self.model == "tpm-crb" and not self.lost:
            self.lost = 1
            return
        if line not in [str(self.counter + 1 + n) for n in range(self.lost + 1)]:
            raise Problem("the counter: %d, then %s" % (self.counter, line))
        self.counter, self.lost = int(line), 0

    def begin_work(self):
        """Has the guest increment all the time."""
        goal, started = self.counter + RUN, False
        self.qemu.start("tpmclient nv-run %s & run=$!" % COUNTER)
        while self.counter < goal or not started:
            line = self.qemu.serial.line()
            if line == "= 0":
                started = True
            else:
                self.see(line)

    def end_work(self, name):
        goal = self.counter + RUN
        while self.counter < goal:
            self.see(self.qemu.serial.line())
        text, status = self.qemu.ask("{ kill $run; wait $run; } 2>/dev/null")
        for line in text.splitlines():
            self.see(line)
        self.equal(name + ": the guest worked on", status, 128 + signal.SIGTERM)
        self.counted(name)

    def counted(self, name):
        """No less than was acknowledged; one more may have been made."""
        count = int(self.qemu.tpm("nv-count " + COUNTER))
        self.check(name + ": the counter has each acknowledged increment",
                   self.counter <= count <= self.counter + 1 + self.lost, "%d, then %d" % (self.counter, count))
        self.counter, self.lost = count, 0

    def migrate(self, name, shared):
        """Live: the guest increments all the time."""
        source, name = self.machine, "migrated to " + name
        self.machine, target, uri = self.target("target%d" % len(self.rig.machines), source if shared else None)
        self.begin_work()
        self.qemu.migrate(uri)
        target.qmp("cont")
        target.wait_for("query-status", "running")
        self.check(name + ": the source ends", self.qemu.quit())
        self.check(name + ": and its mount with it", source.has_ended())
        if not shared:
            self.check(name + ": its image is clean", source.is_clean(), source.daemon.said)
        target.serial.follow(self.qemu.serial)
        self.qemu = target
        self.end_work(name)
        self.goes_on(name)

    def migrate_in_vain(self, name, shared):
        """The target's TPM dies: it cannot take the state, and the source goes on."""
        machine, target, uri = self.target("dead%d" % len(self.rig.machines), self.machine if shared else None)
        name = "not migrated to " + name
        for q in self.qemu, target:
            q.qmp("migrate-set-capabilities", capabilities=[{"capability": "return-path", "state": True}])
        machine.kill()
        self.begin_work()
        self.equal(name + ": it fails", self.qemu.migrate(uri, "failed"), "failed")
        self.check(name + ": the target has gone", wait_until(lambda: target.process.poll() is not None, DEADLINE))
        self.qemu.wait_for("query-status", "running")
        self.end_work(name)
        self.goes_on(name)

    def run_counter(self):
        """Has the guest increment; returns when some are acknowledged."""
        self.qemu.start("tpmclient nv-run " + COUNTER)
        for _ in range(RUN):
            self.counter = int(self.qemu.serial.line())

    def after_kill(self, name):
        self.counted(name)
        self.started_anew(name)

    def kill_vnvram(self, which):
        """Under a guest that writes.  It gets an error, and not a hang."""
        name = "kill -9 of the " + which
        self.run_counter()
        self.machine.kill({"daemon": "pid", "TPM": "tpm_pid"}[which])
        text, status = self.qemu.answer()
        seen = [int(line) for line in text.splitlines()[:-1]]
        self.check(name + ": the guest gets an error", status != 0, text)
        self.equal(name + ": its increments were in order", seen,
                   list(range(self.counter + 1, self.counter + 1 + len(seen))))
        self.counter += len(seen)
        self.check(name + ": the guest lives", self.qemu.ask("echo alive") == ("alive", 0))
        self.qemu.kill()
        self.boot(self.machine)
        self.after_kill(name)

    def kill_qemu(self):
        """The mount goes on, for the next one."""
        name = "kill -9 of QEMU"
        self.run_counter()
        self.qemu.kill()
        self.counter = max([self.counter] + self.qemu.numbers_left())
        self.check(name + ": the mount stays", self.machine.daemon.mounted())
        self.boot()
        self.after_kill(name)
        self.qemu.start("poweroff -f")
        self.check("the last power-off", self.qemu.ends())
        self.ends("the last power-off", self.machine)

    def tell(self):
        self.first()
        self.reboot()
        self.power_off()
        self.suspend()
        for name, shared in ("another image", False), ("the same image", True):
            self.migrate_in_vain(name, shared)
            self.migrate(name, shared)
        self.kill_vnvram("daemon")
        self.kill_vnvram("TPM")
        self.kill_qemu()


def main():
    program, directory, *models = sys.argv[1:]
    rig, tap, story = Rig(program, directory), Tap(), None
    try:
        for model in models:
            story = Story(rig, tap, model)
            story.tell()
    except (Problem, OSError) as e:
        said = story.qemu.said() if story and story.qemu else ""
        tap.check("no problem", False, "%s\n%s" % (e, said))
    finally:
        rig.clean_up()
    tap.finish()


main()
