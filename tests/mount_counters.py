# SPDX-License-Identifier: BSD-3-Clause
"""NV counters never go backwards and never repeat, whatever happens to the TPM: rounds of random
resets, power cycles, kill -9, and migrations between two images, by a client of its control channel.

    mount_counters.py PROGRAM DIRECTORY ROUNDS SEED

A seed reproduces the plan of a run."""
import hashlib
import os
import random
import signal
import struct
import sys
import time

from ctrlkit import PERMANENT, SAVESTATE, VOLATILE, Client
from faultkit import INDEX, OWNER, PASSWORD, Daemon, Problem, command, nv_undefine, wait_until

OWNERS, COUNTER, ORDERLY = 0x02020002, 0x10, 0x04000000
PLAIN, RAM, NEW = INDEX, INDEX + 1, INDEX + 2  # one in the NV memory, one kept in RAM, one made anew
PCR = 10
RC_INITIALIZE = 0x100


def startup(state=False):
    return struct.pack(">HIIH", 0x8001, 12, 0x144, state)


def suspend():
    return struct.pack(">HIIH", 0x8001, 12, 0x145, 1)


def define(index, attributes):
    public = struct.pack(">IHIHH", index, 11, OWNERS | COUNTER | attributes, 0, 8)
    return command(0x12A, [OWNER], struct.pack(">HH", 0, len(public)) + public)


def increment(index):
    return command(0x134, [OWNER, index], b"")


def nv_read(index):
    return command(0x14E, [OWNER, index], struct.pack(">HH", 8, 0))


def pcr_read():
    return struct.pack(">HIIIHBBBB", 0x8001, 20, 0x17E, 1, 11, 3, 0, 1 << PCR - 8, 0)


def pcr_extend(digest):
    return struct.pack(">HIII", 0x8002, 65, 0x182, PCR) + PASSWORD + struct.pack(">IH", 1, 11) + digest


class Counters:
    def __init__(self, program, directory, rng):
        self.rng = rng
        self.daemons = []
        for name in "ab":
            path = os.path.join(directory, name)
            os.makedirs(path)
            self.daemons.append(Daemon(program, path))
            self.must(self.daemons[-1], self.daemons[-1].format())
        self.at = 0
        self.last, self.pending = {}, {}  # as acknowledged; what may have been added since
        self.pcr, self.stored = bytes(32), False
        self.client = None

    @property
    def d(self):
        return self.daemons[self.at]

    @staticmethod
    def must(d, code):
        if code:
            raise Problem("exit %d: %s" % (code, d.said))

    # -- power
    def mount(self):
        self.must(self.d, self.d.mount("tpm=2.0", "ctrl=" + self.socket()))
        self.d.let_go()
        return Client(self.socket())

    def socket(self):
        return os.path.join(self.d.dir, "ctrl")

    def pid(self, which):
        self.d.root = os.open(self.d.mnt, os.O_PATH)
        pid = self.d.status()[which]
        self.d.let_go()
        return pid

    def start(self, state=False):
        """After INIT.  A stored volatile state is resumed, else the TPM starts anew."""
        code, _ = self.client.tpm(startup(state))
        if code != (RC_INITIALIZE if self.stored else 0):
            raise Problem("TPM2_Startup: %#x; %s" % (code, "resumed" if self.stored else "anew"))
        if not state and not self.stored:
            self.pcr = bytes(32)
        self.stored = False

    def gone(self):
        if not wait_until(lambda: not self.d.pids() and not self.d.mounted(), 60):
            raise Problem("the mount does not end")

    # -- the TPM
    def ask(self, text):
        code, body = self.client.tpm(text)
        if code:
            raise Problem("%s: %#x" % (text[6:10].hex(), code))
        return body

    def read(self, index):
        return struct.unpack(">Q", self.ask(nv_read(index))[6:14])[0]

    def count(self, index):
        self.ask(increment(index))
        value, last = self.read(index), self.last.get(index, 0)
        if value <= last or index == PLAIN and last and value != last + 1:
            raise Problem("counter %#x: %d, then %d" % (index, last, value))
        self.last[index] = value

    def define_new(self):
        """What is defined again begins above all there was."""
        if NEW in self.last:
            self.ask(nv_undefine(NEW))
        self.ask(define(NEW, 0))
        self.count(NEW)

    def begin(self):
        self.client = self.mount()
        self.client.init()
        self.start()
        self.ask(define(PLAIN, 0))
        self.ask(define(RAM, ORDERLY))
        for index in PLAIN, RAM:
            self.count(index)
        self.define_new()

    def work(self):
        """Something to remember, or, now and then, nothing."""
        for _ in range(self.rng.randrange(5)):
            self.count(self.rng.choice([PLAIN, RAM, RAM, NEW]))
        if self.rng.random() < 0.2:
            self.define_new()
        if self.rng.random() < 0.7:
            digest = self.rng.randbytes(32)
            self.ask(pcr_extend(digest))
            self.pcr = hashlib.sha256(self.pcr + digest).digest()

    def verify(self):
        """What is there is what was acknowledged."""
        if self.ask(pcr_read())[-32:] != self.pcr:
            raise Problem("PCR %d is not what it was" % PCR)
        for index, last in self.last.items():
            value = self.read(index)
            if index == RAM and value < last or \
               index != RAM and not last <= value <= last + self.pending.get(index, 0):
                raise Problem("counter %#x: %d, then %d" % (index, last, value))
            self.last[index] = value
        self.pending = {}

    # -- what happens
    def reset(self):
        self.client.reset()
        self.start()

    def init_alone(self):
        self.client.init()
        self.start()

    def sleep_and_resume(self):
        """ACPI S3: the guest saves its state, and its firmware resumes."""
        self.ask(suspend())
        self.client.reset()
        self.start(state=True)

    def resume_unsaved(self):
        """The guest has saved nothing: the daemon has, as it does before the power goes."""
        self.client.reset()
        self.start(state=True)

    def store_volatile(self):
        """... and whatever comes next resumes from it."""
        self.client.store_volatile()
        self.stored = True
        self.rng.choice([self.reset, self.init_alone, self.leave, self.kill_daemon, self.kill_tpm,
                         self.shut_down, self.unmount])()

    def leave(self):
        self.client.close()
        self.client = Client(self.socket())
        self.client.init()
        self.start()

    def in_flight(self):
        """A command whose answer nobody will read."""
        if self.stored or self.rng.random() < 0.4:
            return
        index = self.rng.choice([PLAIN, RAM, NEW])
        self.client.send(increment(index))
        self.pending[index] = 1
        if self.rng.random() < 0.7:
            time.sleep(self.rng.random() * 0.002)

    def kill(self, which):
        pid = self.pid(which)
        self.in_flight()
        os.kill(pid, signal.SIGKILL)
        self.client.close()

    def again(self):
        self.client = self.mount()
        self.client.init()
        self.start()

    def kill_daemon(self):
        self.kill("pid")
        if not wait_until(lambda: not self.d.pids(), 60):
            raise Problem("processes stay")
        self.again()

    def kill_tpm(self):
        self.kill("tpm_pid")
        self.gone()
        self.again()

    def shut_down(self):
        self.client.shutdown()
        self.client.close()
        self.gone()
        self.again()

    def unmount(self):
        self.must(self.d, self.d.unmount())
        self.gone()
        self.client.close()
        self.again()

    def take_blobs(self):
        return [(kind, self.client.get_blob(kind)) for kind in (PERMANENT, VOLATILE, SAVESTATE)]

    @staticmethod
    def give_blobs(client, blobs):
        client.stop()
        for kind, blob in blobs:
            if blob is not None:
                client.set_blob(kind, blob)
        client.init(delete=True)

    def migrate(self):
        """To the other image, in which an older state may be."""
        blobs, source, old = self.take_blobs(), self.d, self.client
        self.at = 1 - self.at
        self.client = self.mount()
        self.give_blobs(self.client, blobs)
        old.shutdown()
        old.close()
        if not wait_until(lambda: not source.pids(), 60):
            raise Problem("the source does not end")
        self.stored = True
        self.start()

    def migrate_in_vain(self):
        """The target is killed when it has the state; the source goes on."""
        blobs, client = self.take_blobs(), self.client
        self.at = 1 - self.at
        target = self.mount()
        self.give_blobs(target, blobs)
        os.kill(self.pid("pid"), signal.SIGKILL)
        target.close()
        if not wait_until(lambda: not self.d.pids(), 60):
            raise Problem("processes stay")
        self.at = 1 - self.at
        self.client = client

    def run(self, rounds):
        happenings = [self.reset, self.init_alone, self.sleep_and_resume, self.resume_unsaved,
                      self.store_volatile, self.leave, self.kill_daemon, self.kill_daemon, self.kill_tpm,
                      self.shut_down, self.unmount, self.migrate, self.migrate, self.migrate_in_vain]
        done = {}
        self.begin()
        for number in range(rounds):
            what = self.rng.choice(happenings).__name__
            try:
                self.work()
                getattr(self, what)()
                self.verify()
                for index in PLAIN, RAM, NEW:
                    self.count(index)
            except (Problem, OSError) as e:
                raise Problem("round %d, %s: %s" % (number, what, e)) from e
            done[what] = done.get(what, 0) + 1
        for d in self.daemons:
            if d.pids():
                self.client.shutdown()
                self.gone()
            self.must(d, d.check())
        print(" ".join("%s %d" % pair for pair in sorted(done.items())))


def main():
    program, directory, rounds, seed = sys.argv[1:]
    counters = Counters(program, directory, random.Random(int(seed)))
    try:
        counters.run(int(rounds))
    except (Problem, OSError) as e:
        print(e)
        sys.exit(1)
    finally:
        for d in counters.daemons:
            d.clean_up()


main()
