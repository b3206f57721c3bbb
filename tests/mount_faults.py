# SPDX-License-Identifier: BSD-3-Clause
"""The main job, over and over, with one system call or allocation failing in each run.

    mount_faults.py PROGRAM FAULTLIB [--all] [--jobs N] [--seconds S] [--seed N]
                    [--only CLASS:N:ERROR:plain|sealed]

Each run ends in success or in a clean refusal, and an untouched mount shows what was acknowledged.
Without --all, a sample that takes S seconds."""
import argparse
import concurrent.futures
import errno
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from faultkit import *  # noqa: E402,F403

FAULTS = {
    "read": ["EIO", "EINTR", "SHORT"],
    "write": ["EIO", "ENOSPC", "EINTR", "SHORT"],
    "flush": ["EIO", "ENOSPC", "EINTR"],
    "size": ["EIO", "ENOSPC"],
    "open": ["EIO", "EMFILE"],
    "files": ["EIO", "ENOSPC", "EINTR", "SHORT"],
    "alloc": ["ENOMEM"],
}
KINDS = ["plain", "sealed"]
HARMLESS = {"EINTR", "SHORT"}  # for transfers, which go on


def twice(look):
    """The fault may lie in looking itself, and there is only one."""
    try:
        return look()
    except OSError:
        return look()


class Run:
    """The main job once, with whatever the control says."""

    def __init__(self, daemon, may_end):
        self.d, self.model, self.may_end = daemon, Model(), may_end
        self.nv = {None}  # values that the TPM may show
        self.formatted = self.had_tpm = False
        self.errors = []  # what was refused, in order
        self.copy = None  # a snapshot

    def step(self, name, change, do, also=None):
        """A file operation; refused is fine, and then old or new is there."""
        self.model.begin(change)
        try:
            do()
            self.model.acknowledge()
        except OSError as e:
            self.errors.append((name, e.errno))
            self.model.refuse([also(dict(s)) for s in self.model.before] if also else ())

    def write(self, name, data, sync):
        # What is truncated and then not written is empty, as everywhere.
        self.step("write " + name, put(name, data), lambda: self.d.write(name, data, sync), put(name, b""))

    def tpm(self, what, new, command):
        try:
            code, _ = self.d.tpm(command)
            if code == 0:
                self.nv = {new}
            else:
                self.errors.append((what, hex(code)))
        except OSError as e:
            code = None
            self.errors.append((what, e.errno))
        if code != 0:
            self.nv.add(new)

    def work(self):
        d = self.d
        self.write("a", b"a" * 1000, False)
        self.write("b", b"b" * 5000, True)
        self.write("a", b"A" * 2000, True)
        self.step("rename", moved("b", "c"), lambda: d.rename("b", "c"))
        self.write("t", b"t" * 70000, False)
        self.step("rename over", moved("t", "a"), lambda: d.rename("t", "a"))
        self.step("unlink", drop("c"), lambda: d.unlink("c"))

    def work_tpm(self):
        self.tpm("define", b"", nv_define())
        self.tpm("nv write", b"original", nv_write(b"original"))
        self.write("d", b"d" * 10, True)
        self.tpm("nv write", b"straight", nv_write(b"straight"))

    def snapshot(self):
        """Whole under its name, or not there."""
        path = os.path.join(self.d.dir, "copy")
        code = self.start(lambda: self.d.run("snapshot", self.d.mnt, path))
        if code == 0:
            self.copy = path
            return
        self.errors.append(("snapshot", code))
        left = [n for n in os.listdir(self.d.dir) if "copy" in n]
        if left:
            raise Problem("a failed snapshot leaves %s: %s" % (left, self.d.said))

    def check_sticky(self, expected):
        """After a failed write or flush the mount is read-only, says so, and reads."""
        try:
            status = twice(self.d.status)
        except OSError as e:
            # One that has no memory for requests ends, in order; one that died would still be mounted.
            if not self.may_end or e.errno != errno.ENOTCONN or not wait_until(lambda: not self.d.mounted()):
                raise
            self.errors.append(("status", e.errno))
            return
        if expected and not status["read_only"]:
            raise Problem("still writable after a failed write or flush")
        if not status["read_only"]:
            return
        twice(self.d.files)
        try:
            self.d.write("late", b"late", True)
        except OSError as e:
            if e.errno in (errno.EROFS, errno.EIO):
                return
            raise Problem("a read-only mount answers %s" % e) from e
        raise Problem("a read-only mount takes a write")

    def start(self, command):
        """libgcrypt ends the process when memory is short while it starts; nothing is open by then."""
        code = command()
        return 1 if code == -signal.SIGABRT and "libgcrypt" in self.d.said else code

    def live(self, sticky):
        """Format, mount, work, unmount.  @sticky() tells whether the fault makes a mount read-only."""
        d = self.d
        code = self.start(d.format)
        if code not in (0, 1):
            raise Problem("format: exit %d: %s" % (code, d.said))
        if code != 0:
            self.errors.append(("format", code))
            return
        self.formatted = True
        already = sticky()
        code = self.start(lambda: d.mount("tpm=2.0"))
        if code == 0:
            self.had_tpm = True
            self.work()
            self.work_tpm()
            self.snapshot()
            self.check_sticky(sticky() and not already)
            if d.unmount() != 0:
                self.errors.append(("unmount", d.said))
        else:
            self.errors.append(("mount", code))
            if code != 1:
                raise Problem("mount: exit %d: %s" % (code, d.said))

    def end(self):
        """However it ended; by then the disk is well again."""
        d = self.d
        if d.mounted():
            d.unmount()
        d.let_go()
        d.nothing_left()
        if not self.formatted:
            if os.path.exists(d.image) and d.format("--force") != 0:
                raise Problem("format --force: %s" % d.said)
            return
        if self.copy and d.run("check", *d.option_args(), self.copy) != 0:
            raise Problem("check of the snapshot: %s" % d.said)
        if d.mount() != 0:  # recovers, if there is something to recover
            raise Problem("mount: %s" % d.said)
        self.model.seen(d.files())
        if d.unmount() != 0:
            raise Problem("unmount: %s" % d.said)
        d.nothing_left()
        if d.check() != 0:
            raise Problem("check: %s" % d.said)
        self.end_tpm()

    def end_tpm(self):
        d = self.d
        code = d.mount("tpm=2.0")
        if code == 5 and not self.had_tpm:
            code = d.mount("tpm=2.0,tpm_manufacture")
        if code != 0:
            raise Problem("mount with the TPM: exit %d: %s" % (code, d.said))
        value = nv_value(d.tpm(nv_read()))
        if value not in self.nv:
            raise Problem("the TPM shows %r; allowed: %r" % (value, self.nv))
        if d.unmount() != 0:
            raise Problem("unmount: %s" % d.said)
        d.nothing_left()
        if d.check() != 0:
            raise Problem("check: %s" % d.said)


def sealing(directory):
    path = os.path.join(directory, "key")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
        f.write("5a" * 32)
    return ["key_file=" + path, "key_format=hex"]


def one(args, work, fault):
    """Returns (hit, errors, counts); a Problem when there is one."""
    name, nth, word, kind = fault
    directory = tempfile.mkdtemp(dir=work)
    control = Control(os.path.join(directory, "control"))
    daemon = Daemon(args.program, directory, args.library, control, sealing(directory) if kind == "sealed" else ())
    run = Run(daemon, may_end=name == "alloc")
    if name:
        code = SHORT if word == "SHORT" else getattr(errno, word)
        control.plan(name, nth, code)
    fatal = name in ("write", "flush") and (name == "flush" or word not in HARMLESS)
    try:
        run.live(lambda: fatal and control.hits > 0)
        counts, hit = control.counts(), control.hits
        control.heal()
        run.end()
        if not hit and run.errors:
            raise Problem("untouched, yet refused: %s" % run.errors)
        if word in HARMLESS and name in ("read", "write") and run.errors:
            raise Problem("%s refuses: %s" % (word, run.errors))
        return hit, run.errors, counts
    finally:
        daemon.clean_up()
        shutil.rmtree(directory, ignore_errors=True)


def tried(args, work, end, fault):
    """Returns (errors, problem), or None when the time is over.  Runs in a process of the pool."""
    if end and time.monotonic() > end:
        return None
    try:
        hit, errors, _ = one(args, work, fault)
        if args.only:
            print(hit, errors, flush=True)
        return errors, None
    except (Problem, OSError, ValueError, subprocess.TimeoutExpired) as e:
        print("--only %s:%d:%s:%s: %s" % (*fault, e), flush=True)
        return [], str(e)


def plan_of(counts, args):
    """All faults, or, in a sample, all in turn, so that no class starves."""
    faults = [(c, n, e, kind) for kind in KINDS for c in CLASSES for n in range(1, counts[kind][c] + 1)
              for e in FAULTS[c]]
    if args.all:
        return faults
    rng = random.Random(args.seed)
    by_class = {c: rng.sample(f, len(f)) for c in CLASSES if (f := [x for x in faults if x[0] == c])}
    turns = []
    while by_class:
        for c in list(by_class):
            turns.append(by_class[c].pop())
            if not by_class[c]:
                del by_class[c]
    return turns


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("library")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", help="one fault, as a failed run names it")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="vnvram-faults.", dir=os.environ.get("TMPDIR"))
    runs, refused, bad = {c: 0 for c in CLASSES}, 0, 0
    try:
        if args.only:
            name, nth, word, kind = args.only.split(":")
            faults, end = [(name, int(nth), word, kind)], None
        else:
            counts = {kind: one(args, work, (None, 0, None, kind))[2] for kind in KINDS}
            for kind in KINDS:
                print("seed %d; calls in a run, %s: %s" % (args.seed, kind, counts[kind]), flush=True)
            faults = plan_of(counts, args)
            end = None if args.all else time.monotonic() + args.seconds
        first = len(CLASSES)  # of a sample, these at least, however slow the machine
        with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
            results = [pool.submit(tried, args, work, end if i >= first else None, f) for i, f in enumerate(faults)]
            for fault, result in zip(faults, results):
                if (result := result.result()) is None:
                    continue
                runs[fault[0]] += 1
                refused += bool(result[0])
                bad += result[1] is not None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("faults tried: %s; runs that refused something: %d; broken promises: %d" % (runs, refused, bad))
    sys.exit(bad > 0)


main()
