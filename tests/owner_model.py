#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An exhaustive model of one writer across hosts (doc/format.md, section 11).

Hosts take, write, hand over and release one image on one disk.  A host may pause before any step.
The disk keeps writes in a cache until a flush: a power cut loses any of them and tears directories
and banks.  The writes of a commit land in any order; those that a host had on their way when it
crashed land later, whole or torn, or never.  One file in a slot of two banks; commits write it or
change the directory alone.

  G1  who acknowledges a commit, or shows a state, goes on from all that was acknowledged before
  G2  whatever an opener would read at any moment holds all that was acknowledged, or damage is
      found; and damage only if a host was overtaken while it had writes on their way
  G3  with fencing there is no damage; told of it (declared) or not (careful)

Then each rule is broken in turn, and must be missed.
"""
import argparse
import itertools
import sys
from collections import deque, namedtuple
from operator import itemgetter

TORN = 'torn'
R0, D0, B0 = 0, 2, 4

Rec = namedtuple('Rec', 'seq epoch host nonce kind guarded floor')
Dir = namedtuple('Dir', 'gen epoch nonce first guarded cid bank tag own clean')
# recs: both records as this host knows them; d: the directory it shows, at place at; q: writes on
# their way; nxt: the directory that they make
Host = namedtuple('Host', 'pc recs at_rec forced owned first guarded marked d at seen q nxt away')
# shown: the last state that anybody was told of; parent: of each state; stray: a former owner's
# writes may come
World = namedtuple('World', 'units hosts orphans shown parent stray'
                            ' takes commits crashes cuts overs')

BUSY = ('mended', 't1', 't2', 'commit', 'settle', 'close')
OFF = Host('off', None, 0, False, False, 0, False, False, None, 0, 0, frozenset(), None, None)

# Hosts, whether host 0 has the image at first, commits, takings, takeovers, crashes, power cuts.
Bounds = namedtuple('Bounds', 'hosts owned commits takes overs crashes cuts')
SOUND = (
    Bounds(2, False, 1, 2, 1, 0, 0),
    Bounds(2, True, 2, 2, 1, 0, 0),
    Bounds(2, True, 1, 2, 1, 1, 1),
)
DEEP = SOUND + (
    Bounds(2, False, 1, 3, 1, 0, 0),
    Bounds(2, True, 2, 2, 1, 0, 1),
    Bounds(2, True, 2, 2, 1, 1, 0),
    Bounds(2, True, 2, 2, 1, 1, 1),
    Bounds(2, True, 1, 3, 2, 1, 0),
    Bounds(2, False, 1, 3, 1, 1, 0),
    Bounds(2, False, 1, 3, 1, 0, 1),
    Bounds(3, True, 1, 3, 2, 0, 0),
)

# What is there for what goes wrong without it, and within which bounds.
RULES = {
    'confirm': ('a taking is one record instead of two', Bounds(2, False, 1, 2, 1, 0, 0)),
    'reread': ('a taker does not read the records again', Bounds(2, False, 1, 2, 1, 0, 0)),
    'contested': ('the newest record tells the owner, whatever the other one says',
                  Bounds(2, False, 1, 3, 1, 0, 0)),
    'early-read': ('the state is read before the records are there',
                   Bounds(2, True, 1, 2, 1, 0, 0)),
    'read-flush': ('what was read is not flushed', Bounds(2, True, 1, 2, 1, 0, 1)),
    'ack-check': ('no look at the records before the acknowledgement',
                  Bounds(2, True, 1, 2, 1, 0, 0)),
    'write-check': ('no look at the records before the first write',
                    Bounds(2, True, 1, 2, 1, 0, 0)),
    'commit-flush': ('no flush before the acknowledgement', Bounds(2, True, 1, 2, 1, 0, 1)),
    'second': ('a taking marks one directory instead of two', Bounds(2, True, 1, 2, 1, 0, 0)),
    'floor': ('no floor in the record', Bounds(2, True, 2, 2, 1, 1, 0)),
    'guarded': ('the record of a takeover does not say that it is one',
                Bounds(2, True, 2, 3, 1, 1, 0)),
    'settle': ('after a takeover commits are acknowledged before they are settled',
               Bounds(2, True, 2, 2, 1, 0, 0)),
    'refuse': ('what another host owns is taken as if it were free',
               Bounds(2, True, 1, 2, 1, 0, 0)),
    'take-back': ('what was handed over is taken back as it was left',
                  Bounds(2, True, 1, 3, 1, 0, 0)),
}


def cur(units, i):
    return units[i][-1]


def put(units, i, v):
    """What a unit may hold after a power cut, oldest first; the last is what is read now."""
    u = tuple(x for x in units[i] if x != v) + (v,) if units[i][-1] != v else units[i]
    if units[i][0] == v and u[0] != v:  # it is on the disk already, but others came between
        u = (v,) + u
    return units[:i] + (u,) + units[i + 1:]


def flushed(units):
    return tuple(u[-1:] for u in units)


def newest_record(recs):
    have = [r for r in recs if r]
    return max(have, key=lambda r: r.seq) if have else None


def floor_of(recs):
    r = newest_record(recs)
    return r.floor if r else 0


def is_stray(newest, older):
    return newest.epoch and newest.gen > newest.first and older.nonce != newest.nonce


def recover(units, floor):
    """What an opener takes: (directory, place, recovered, highest generation seen), or None for
    damage."""
    ds = [(cur(units, D0 + i), i) for i in (0, 1)]
    seen = max([d.gen for d, _ in ds if d != TORN], default=0)
    ds = [x for x in ds if x[0] != TORN]
    if any(d.epoch < floor for d, _ in ds):
        return None
    ds.sort(key=lambda x: -x[0].gen)
    if not ds or (len(ds) == 2 and (
            ds[0][0].gen == ds[1][0].gen or is_stray(ds[0][0], ds[1][0]))):
        return None
    whole = [cur(units, B0 + d.bank) == d.tag for d, _ in ds]
    d, at = ds[0]
    if whole[0]:
        return d, at, len(ds) == 1, seen
    if d.clean or not d.own or len(ds) == 1 or not whole[1]:
        return None
    return ds[1][0], ds[1][1], True, seen


class Model:
    def __init__(self, a, broken=None, fence='none'):
        self.a, self.broken, self.fence = a, broken, fence

    def start(self):
        d = [Dir(g, 0, 0, 0, False, 0, 0, 0, False, True) for g in (1, 2)]
        units = ((None,), (None,), (d[0],), (d[1],), (0,), ('old',))
        w = World(units, (OFF,) * self.a.hosts, (frozenset(),) * self.a.hosts, 0, (0,), False,
                  0, 0, 0, 0, 0)
        while self.a.owned and w.hosts[0].pc != 'serve':
            w = next(self.steps(w, 0))[1]
        return w

    # ---- judging -------------------------------------------------------------------------------

    @staticmethod
    def descends(w, cid, of):
        while cid > of:
            cid = w.parent[cid]
        return cid == of

    def judge(self, w):
        """What any opener would read now."""
        got = recover(w.units, floor_of([cur(w.units, R0), cur(w.units, R0 + 1)]))
        if got is None:
            if self.fence != 'none':
                return 'G3: damage, although former owners are fenced off'
            return None if w.stray else 'G2: damage, and nobody was overtaken while it wrote'
        if not self.descends(w, got[0].cid, w.shown):
            return 'G2: state %d is read, %d was acknowledged' % (got[0].cid, w.shown)
        return None

    def show(self, w, h, cid):
        """Host @h tells somebody of state @cid."""
        if not self.descends(w, cid, w.shown):
            return w, 'G1: host %d acknowledges state %d, not after %d' % (h, cid, w.shown)
        return w._replace(shown=cid), None

    # ---- steps of a host -----------------------------------------------------------------------

    def steps(self, w, h):
        """Yields (what, world, wrong)."""
        s = w.hosts[h]
        b = self.broken
        recs = (cur(w.units, R0), cur(w.units, R0 + 1))

        def to(w=w, **k):
            s2 = k.pop('base', s)._replace(**k)
            return w._replace(hosts=w.hosts[:h] + (s2,) + w.hosts[h + 1:])

        if s.q:
            for unit, v in sorted(s.q, key=itemgetter(0)):
                w2 = to(w._replace(units=put(w.units, unit, v)), q=s.q - {(unit, v)})
                yield 'lands %s' % name(unit, v), self.overtake(w2, h, unit, v), None
            return
        if s.pc == 'off':
            if w.takes < self.a.takes and (h == 0 or w.takes):  # which one is first is all one
                yield from self.begin(w, h, recs, to)
            return
        if s.pc in ('claimed', 'confirmed'):  # flush, and read again
            w2 = w._replace(units=flushed(w.units))
            if recs != s.recs and b != 'reread':
                yield 'somebody else takes it', to(w2, base=OFF), None
            elif s.pc == 'claimed' and b != 'confirm':
                r = s.recs[s.at_rec]
                yield 'confirms', self.record(
                    w2, h, s, r._replace(seq=r.seq + 1, kind='owned'), 'confirmed'), None
            else:
                yield 'has it', to(w2, pc='taken'), None
        elif s.pc == 'taken':
            yield from self.read_state(w, h, recs, to)
        elif s.pc == 'serve':
            yield from self.serving(w, h, recs, to)
        elif s.pc == 'floored':
            w = w._replace(units=flushed(w.units))
            if not self.own(s, recs):
                yield 'has lost it', to(w, base=OFF), None
            else:
                yield 'goes on', self.then(w, h), None
        elif s.pc in ('mended', 't1', 't2', 'commit', 'settle', 'close'):
            yield from self.wrote(w, h, recs, to)
        elif s.pc == 'release':
            yield 'has released it', to(w._replace(units=flushed(w.units)), pc='away',
                                        away=s.recs), None
        elif s.pc == 'away':
            yield 'ends', to(base=OFF), None
            if w.takes < self.a.takes:
                yield from self.begin(w, h, recs, to)

    def owned_by_other(self, recs, h):
        r = newest_record(recs)
        if not r:
            return False
        if r.kind != 'claim' and any(x and x.nonce != r.nonce for x in recs):
            return self.broken != 'contested'  # two takings met: nobody knows which one went on
        return r.kind != 'released' and r.host != h

    def claim(self, w, h, recs, s, forced, fenced=False):
        r = newest_record(recs)
        at = recs.index(r) if r else 1
        n = w.takes + 1
        kind = 'claim' if self.broken != 'confirm' else 'owned'
        rec = Rec((r.seq if r else 0) + 1, (r.epoch if r else 0) + 1, h, n, kind,
                  not fenced and (forced or bool(r and r.guarded and self.broken != 'guarded')),
                  r.floor if r and not fenced else 0)
        s = s._replace(pc='off', recs=recs, at_rec=at, forced=forced and not fenced,
                       owned=bool(r) and r.kind != 'released')
        return self.record(w._replace(takes=n), h, s, rec, 'claimed')

    def begin(self, w, h, recs, to):
        """Reads the records, decides, and sends its claim off."""
        s = w.hosts[h]._replace(nxt=None, q=frozenset())
        w = w._replace(orphans=w.orphans[:h] + (frozenset(),) + w.orphans[h + 1:])
        if self.broken == 'early-read':
            s = s._replace(nxt=recover(w.units, floor_of(recs)))
        if not self.owned_by_other(recs, h) or self.broken == 'refuse':
            yield 'takes it', self.claim(w, h, recs, s, False), None
            return
        if w.overs >= self.a.overs:
            return
        w = w._replace(overs=w.overs + 1)
        if self.fence == 'none':
            yield 'takes it over', self.claim(w, h, recs, s, True), None
            return
        k = newest_record(recs).host
        for k in range(self.a.hosts) if k == h else [k]:  # fenced off first
            if k != h:
                w = w._replace(hosts=w.hosts[:k] + (OFF,) + w.hosts[k + 1:],
                               orphans=w.orphans[:k] + (frozenset(),) + w.orphans[k + 1:])
        yield 'fences and takes over', self.claim(w, h, recs, s, True,
                                                  self.fence == 'declared'), None

    def record(self, w, h, s, rec, pc):
        """A record goes over the older one, and is the newest that its owner knows."""
        at = 1 - s.at_rec
        recs = (rec, s.recs[1]) if at == 0 else (s.recs[0], rec)
        s = s._replace(pc=pc, recs=recs, at_rec=at, q=frozenset([(R0 + at, rec)]))
        return w._replace(hosts=w.hosts[:h] + (s,) + w.hosts[h + 1:])

    def own(self, s, recs):
        """The owner's look."""
        return recs == s.recs

    def read_state(self, w, h, recs, to):
        s = w.hosts[h]
        got = recover(w.units, floor_of(s.recs))
        if self.broken == 'early-read':
            got = s.nxt
        if self.broken == 'take-back' and s.away:
            got = (s.d, s.at, False, s.seen)
        if got is None:
            yield 'finds damage', to(w, base=OFF), None
            return
        d, at, recovered, seen = got
        if s.away and d != s.d:
            yield 'does not take it back', to(w, base=OFF), None
            return
        if self.broken != 'read-flush':
            w = w._replace(units=flushed(w.units))
        mine = s.recs[s.at_rec]
        guarded = mine.guarded or d.guarded or d.epoch >= mine.epoch
        seen = max(seen, d.gen) + 1
        s = s._replace(pc='read', d=d, at=at, seen=seen, first=seen + 1, nxt=None, away=None,
                       marked=False, guarded=guarded and self.fence != 'declared' and
                       self.broken != 'settle')
        w = to(w, base=s)
        if recovered:
            if not self.own(s, recs):
                yield 'has lost it', to(w, base=OFF), None
            else:
                yield 'reads %d, mends' % d.cid, self.write_dir(w, h, 'mended', d.cid, True), None
        elif s.owned and not self.own(s, recs):
            yield 'has lost it', to(w, base=OFF), None
        else:
            yield 'reads %d' % d.cid, *self.then_serve(w, h)

    def then(self, w, h):
        return self.then_serve(w, h)[0]

    def then_serve(self, w, h):
        """Announces itself if it must, else serves."""
        s = w.hosts[h]
        if s.owned and not s.marked:
            return self.write_dir(w, h, 't1', s.d.cid, True), None
        s = s._replace(pc='serve', owned=False)
        w = w._replace(hosts=w.hosts[:h] + (s,) + w.hosts[h + 1:])
        return self.show(w, h, s.d.cid)

    def write_dir(self, w, h, pc, cid, clean, bank=None):
        """Sends a directory off to the older one's place, and a bank."""
        s = w.hosts[h]
        r = s.recs[s.at_rec]
        d = Dir(s.seen + 1, r.epoch, r.nonce, s.first, s.guarded, cid, s.d.bank, s.d.tag, False,
                clean)
        q = {(D0 + 1 - s.at, d)}
        if bank is not None:
            d = d._replace(bank=bank, tag=cid, own=True)
            q = {(D0 + 1 - s.at, d), (B0 + bank, cid)}
        s = s._replace(pc=pc, q=frozenset(q), nxt=d)
        return w._replace(hosts=w.hosts[:h] + (s,) + w.hosts[h + 1:])

    def wrote(self, w, h, recs, to):
        """Flushes, looks at the records, goes on."""
        pc = w.hosts[h].pc
        s = w.hosts[h]
        s = s._replace(d=s.nxt, at=1 - s.at, seen=s.nxt.gen, nxt=None)
        units = w.units if self.broken == 'commit-flush' else flushed(w.units)
        w = w._replace(units=units, hosts=w.hosts[:h] + (s,) + w.hosts[h + 1:])
        looks = self.broken != 'ack-check' or pc not in ('commit', 'settle')
        if looks and not self.own(s, recs):
            yield 'flushes, has lost it', to(w, base=OFF), None
        elif pc == 't1' and self.broken != 'second':
            yield 'flushes', self.write_dir(w, h, 't2', s.d.cid, True), None
        elif pc in ('t1', 't2'):
            s = s._replace(marked=True)
            w = w._replace(hosts=w.hosts[:h] + (s,) + w.hosts[h + 1:])
            r = s.recs[s.at_rec]
            if s.guarded and self.broken != 'floor':
                yield 'raises the floor', self.record(
                    w, h, s, r._replace(seq=r.seq + 1, floor=r.epoch), 'floored'), None
            else:
                yield 'flushes', *self.then_serve(w, h)
        elif pc == 'commit' and s.guarded:
            yield 'flushes', self.write_dir(w, h, 'settle', s.d.cid, True), None
        elif pc == 'close':
            yield 'releases', self.give_back(w, h), None
        else:
            yield 'flushes', *self.then_serve(w, h)

    def serving(self, w, h, recs, to):
        s = w.hosts[h]
        if not self.own(s, recs) and self.broken != 'write-check':
            yield 'has lost it', to(base=OFF), None
            return
        if w.commits < self.a.commits and not s.marked:
            yield 'announces itself', self.write_dir(w, h, 't1', s.d.cid, True), None
        elif w.commits < self.a.commits:
            cid = len(w.parent)
            w2 = w._replace(commits=w.commits + 1, parent=w.parent + (s.d.cid,))
            for what, bank in ('commits', 1 - s.d.bank), ('renames', None):
                yield '%s %d' % (what, cid), self.write_dir(w2, h, 'commit', cid, False, bank), None
        if s.d.clean:
            yield 'releases', self.give_back(w, h), None
        else:
            yield 'closes', self.write_dir(w, h, 'close', s.d.cid, True), None

    def give_back(self, w, h):
        s = w.hosts[h]
        r = s.recs[s.at_rec]
        return self.record(w, h, s, r._replace(seq=r.seq + 1, kind='released'), 'release')

    # ---- what befalls them ---------------------------------------------------------------------

    def next(self, w):
        for h in range(self.a.hosts):
            for what, w2, wrong in self.steps(w, h):
                yield 'host %d %s' % (h, what), w2, wrong
            s = w.hosts[h]
            if s.pc not in ('off', 'away') and w.crashes < self.a.crashes:
                w2 = w._replace(hosts=w.hosts[:h] + (OFF,) + w.hosts[h + 1:],
                                orphans=w.orphans[:h] + (s.q,) + w.orphans[h + 1:],
                                crashes=w.crashes + 1)
                yield 'host %d crashes' % h, w2, None
            for unit, v in sorted(w.orphans[h], key=itemgetter(0)):
                o = w.orphans[:h] + (w.orphans[h] - {(unit, v)},) + w.orphans[h + 1:]
                for x in (v,) if unit < D0 else (v, TORN):
                    w2 = w._replace(units=put(w.units, unit, x), orphans=o)
                    yield ('host %d is down, but %s lands' % (h, name(unit, x)),
                           self.overtake(w2, h, unit, x), None)
        if w.cuts < self.a.cuts and any(len(u) > 1 for u in w.units):
            ways = [u if len(u) == 1 or i < D0 else u + (TORN,) for i, u in enumerate(w.units)]
            for pick in itertools.product(*[sorted(set(x), key=repr) for x in ways]):
                # who has written since the last flush learns of it: its flush fails
                hosts = tuple(OFF if s.pc not in ('off', 'away', 'serve', 'taken') else s
                              for s in w.hosts)
                orphans = tuple(o | s.q if s.pc not in ('off', 'away', 'serve', 'taken') else o
                                for o, s in zip(w.orphans, w.hosts))
                yield 'the disk loses power', w._replace(
                    units=tuple((x,) for x in pick), hosts=hosts, orphans=orphans,
                    cuts=w.cuts + 1), None

    def overtake(self, w, h, unit, v):
        """Whether whoever is overtaken by the claim @v may have writes on their way."""
        if unit >= D0 or self.fence != 'none' or not v.guarded:
            return w
        busy = any(s.pc in BUSY for k, s in enumerate(w.hosts) if k != h)
        return w._replace(stray=True) if busy or any(w.orphans) else w

    def run(self, shortest=True):
        """All histories: (states, None), or up to the first one that goes wrong: (states, it)."""
        first = self.start()
        came = {first: None}
        edge = deque([first])
        while edge:
            w = edge.popleft() if shortest else edge.pop()
            for what, w2, wrong in self.next(w):
                if wrong is None and w2 in came:
                    continue
                wrong = wrong or self.judge(w2)
                if wrong:
                    trace = [what, wrong]
                    while came[w]:
                        what, w = came[w]
                        trace.insert(0, what)
                    return len(came), trace
                came[w2] = (what, w)
                edge.append(w2)
        return len(came), None


def name(unit, v):
    if unit < D0:
        return 'record %d (sequence %d, epoch %d)' % (unit, v.seq, v.epoch)
    if v == TORN:
        return 'half of %s %d' % ('directory' if unit < B0 else 'bank', unit % 2)
    if unit < B0:
        return 'directory %d (generation %d, state %d)' % (unit - D0, v.gen, v.cid)
    return 'bank %d (state %s)' % (unit - B0, v)


class Tap:
    def __init__(self):
        self.n = self.failed = self.states = 0

    def say(self, good, what, states, trace):
        self.n += 1
        self.states += states
        self.failed += not good
        print('%sok %d - %s: %d states' % ('' if good else 'not ', self.n, what, states))
        if not good:
            print('\n'.join('# ' + t for t in trace or ['nothing goes wrong']))

    def sound(self, bounds, fence):
        states, trace = Model(bounds, None, fence).run()
        has = ', one has it' if bounds.owned else ''
        what = ('%d hosts%s: %d commits, %d takings, %d takeovers, %d crashes, %d power cuts, '
                'fencing: %s' % (bounds.hosts, has, *bounds[2:], fence))
        self.say(trace is None, what, states, trace)

    def broken(self, rule):
        what, bounds = RULES[rule]
        states, trace = Model(bounds, rule).run(False)
        self.say(trace is not None, 'is missed: ' + what, states, trace)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument('--break', dest='rule', choices=RULES, help='show what goes wrong without it')
    p.add_argument('--deep', action='store_true', help='larger bounds, too: some minutes')
    for f in Bounds._fields[2:] + ('hosts',):
        p.add_argument('--' + f, type=int, help='bounds of your own: of each, 0 if not given')
    p.add_argument('--owned', action='store_true')
    a = p.parse_args()
    tap = Tap()
    if a.rule:
        states, trace = Model(RULES[a.rule][1], a.rule).run()
        print('\n'.join(trace or ['nothing goes wrong in %d states' % states]))
        return trace is not None
    own = [getattr(a, f) for f in Bounds._fields]
    bounds = DEEP if a.deep else SOUND
    if any(own):
        bounds = [Bounds(a.hosts or 2, *[x or 0 for x in own[1:]])]
    for b in bounds:
        for fence in ('none', 'careful', 'declared'):
            tap.sound(b, fence)
    for rule in [] if any(own) else RULES:
        tap.broken(rule)
    print('# %d states' % tap.states)
    print('1..%d' % tap.n)
    return tap.failed != 0


if __name__ == '__main__':
    sys.exit(main())
