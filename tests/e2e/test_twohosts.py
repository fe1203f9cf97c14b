#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Two libvirt hosts, and what stock libvirt does to a guest's clocks between them.

What the other tests stand on is proven here: a live migration over unix sockets works
peer-to-peer and direct, to and fro; by the guest's own readings stock loses the blackout;
and where one host's wall clock is wrong, its QEMU's stamps and its RTC are, too.

    test_twohosts.py --guest guest.elf --wallshift wallshift.so
"""
import subprocess
import time

import guest
import libvirtd
import qemu
import tally
import twohosts

NEAR_NS = 20e6			# the stamps of events, against the guest's clocks
DELAY_S = 0.3			# of the relay, when the guest has stopped: blackout
SHIFT_NS = 3 * 10**9
COUNTED = ("tsc", "hpet")	# clocks that QEMU keeps on its virtual one


class Traveller:
    """The guest, from move to move."""

    def __init__(self, t, two):
        self.t, self.two = t, two
        self.events = {name: two.events(name) for name in two.hosts}
        self.start = two.boot("a")

    def move(self, name, source, destination, p2p=True):
        """One stock migration: (errors of the clocks, STOP, RESUME by QEMU's stamps)."""
        first = {host: events.count() for host, events in self.events.items()}
        late = []

        def through(_, data):
            if not late and any(one == "STOP" for one, _ in
                                self.events[source].found[first[source]:]):
                late.append(time.sleep(DELAY_S))
            return data
        with self.two.relay(source, destination, through=through) as relay:
            self.two.virsh_migrate(source, destination, p2p=p2p)
        # the source's last words are all read: it has gone
        before = self.two.readings(self.start)
        self.start += 1
        after = self.two.readings(self.start)
        self.t.check(name + ": by the relay, both ways", relay.bytes["out"] > 100000 and
                     relay.bytes["back"] == 16, repr(relay.bytes))
        state = self.two.states()
        self.t.check(name + ": it runs there alone", state == {
            source: None, destination: "running"}, repr(state))
        return (guest.errors(before, after),
                self.events[source].wait("STOP", first[source]),
                self.events[destination].wait("RESUME", first[destination]))

    def check_lost(self, name, errors, blackout_ns):
        for clock in COUNTED:
            error, sure = errors[clock]
            self.t.check("%s: %s lost the blackout" % (name, clock),
                         blackout_ns >= DELAY_S * 1e9 and
                         abs(error + blackout_ns) <= NEAR_NS + sure,
                         "%+.3f ms of %.3f ms" % (error / 1e6, blackout_ns / 1e6))

    def check_rtc(self, name, errors, expected_ns):
        error = errors["rtc"][0]
        self.t.check("%s: the RTC moved by %+d s" % (name, expected_ns // 10**9),
                     abs(error - expected_ns) <= NEAR_NS, "%+.3f ms" % (error / 1e6))


def to_and_fro(traveller):
    for name, source, destination, p2p in (("p2p", "a", "b", True), ("direct", "b", "a", False)):
        errors, stop, resume = traveller.move(name, source, destination, p2p)
        traveller.check_lost(name, errors, resume - stop)
        traveller.check_rtc(name, errors, 0)


def wrong_wall_clock(traveller):
    """b is 3 s ahead: its QEMU says so, and the RTC of a guest that arrives jumps by it."""
    traveller.two.b.set_wall(SHIFT_NS)
    for name, source, destination, sign in (("+3 s", "a", "b", 1), ("back", "b", "a", -1)):
        errors, stop, resume = traveller.move(name, source, destination)
        apart = sign * SHIFT_NS
        traveller.check_lost(name, errors, resume - stop - apart)
        traveller.check_rtc(name, errors, apart)
    seen = traveller.two.b.run(["date", "+%s%N"]).stdout
    traveller.t.check("a program of that host sees its clock",
                      abs(int(seen) - qemu.now().real - SHIFT_NS) < 10**9, seen.strip())


def body(args, work):
    t = tally.Tally()
    with twohosts.TwoHosts(work, args.guest, args.wallshift) as two:
        try:
            traveller = Traveller(t, two)
            to_and_fro(traveller)
            wrong_wall_clock(traveller)
        except (libvirtd.VirshError, qemu.QmpError, subprocess.SubprocessError) as error:
            t.check("moves", False, repr(error))
    return t.end()


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guest", "wallshift"))
