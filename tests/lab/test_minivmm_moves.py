#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Guests of examples/minivmm, moved between emulated hosts with a real Linux KVM: do the
clocks that they read go on as they should?

    test_minivmm_moves.py [--build DIR] [--long | --row N] [--verbose]

Truth is what the hosts' own clocks say, read by hostclock.c: nothing of the library takes
part. What a guest's TSC reads is the host's plus the offset in debugfs, which is exact;
kvmclock, HPET and RTC are held against the TSC by what the guest reports. The hosts' wall
clocks are an hour apart, and each host has a virtual time of its own: how far apart they are
at a move is declared, and everything follows from that.

Every line is "name: ok|FAIL|skipped: figures", the last one "N passed, N failed, N skipped".
Exit status 0, 1 if something failed, 77 if nothing could be run.
"""
import argparse
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True
import guest  # noqa: E402
import lab    # noqa: E402

NS = 10**9
SLACK_NS = 1000		# of virtual time, beside the bound that is printed
APART_NS = 2		# kvmclock against the TSC
GAP_NS = 3 * NS
RATES = {"pit": guest.rate_of_pit(25), "hpet": 25, "lapic": 25, "rtc": 8}
# The PIT's phase restarts, and a present tick of it can vanish in an owed one.
LOST = {"pit": 5, "hpet": 2, "lapic": 2, "rtc": 2}
GUEST = "pit=25 hpet=25 lapic=25 rtc=8 report=5"


class Clocks:
    """One reading of hostclock."""

    def __init__(self, words):
        self.tsc, self.raw, self.real, self.mono, self.width = map(int, words)


class Stretch:
    """What stretch.sh said of a stretch of the guest's life on one host."""

    def __init__(self, host, text):
        self.host, self.offsets, self.disagreement, self.ratio = host, [], 0, (1, 0)
        self.late, self.status, said, lines = False, None, [], []
        for line in text.split("\n"):
            kind, _, rest = line.partition(" ")
            if kind in ("began", "ended"):
                setattr(self, kind, Clocks(rest.split()))
            elif kind == "offset":
                self.offsets.append(int(rest))
            elif kind == "ratio":
                self.ratio = tuple(map(int, rest.split()))	# all vCPUs' are alike
            elif kind == "disagreement":
                self.disagreement = int(rest)
            elif kind == "late":
                self.late = True
            elif kind == "status":
                self.status = int(rest)
            elif kind == "said":
                said.append(rest)
            elif kind == "guest":
                lines.append(rest)
        self.said = "\n".join(said)
        whole = guest.parse([(None, ("\n".join(lines) + "\n").encode())])
        self.lines = [line for line in whole if line.kind == "G"]
        # of the host's TSC, by all of the time that it has been looked at; of the guest's
        since = host.__dict__.setdefault("first", self.began)
        self.host_hz = (self.ended.tsc - since.tsc) * NS / (self.ended.raw - since.raw)
        self.hz = self.host_hz * self.ratio[0] / 2**self.ratio[1]

    def tsc(self, clocks, vcpu=0):
        """What the guest's TSC reads when the host's clocks do so."""
        return (clocks.tsc * self.ratio[0] >> self.ratio[1]) + self.offsets[vcpu]

    def findings(self):
        """{id: sentence}."""
        return {name: text for name, text in
                re.findall(r"(?:error|warning|note): ([a-z-]+): [^:]*: (.*)", self.said)}

    def bound(self, clock):
        found = re.search(r"bound: %s: (\d+) ns" % clock, self.said)
        return int(found[1]) if found and int(found[1]) < 1 << 62 else None

    def ledger(self):
        """{timer: (owed, missed, replayed, merged, dropped)}."""
        found = re.findall(r"ledger: ([a-z]+)\S*: owed (\d+) \+ missed (\d+) = replayed (\d+)"
                           r" \+ merged (\d+) \+ dropped (\d+)", self.said)
        return {name: tuple(map(int, numbers)) for name, *numbers in found}

    def ahead(self, clock, ns_per_tick):
        """How far a clock is ahead of the TSC, by the line on which it is least: a reading
        may come late, never early."""
        return min(line[clock] * ns_per_tick - (line["t0"] + line.after[clock]) * NS / self.hz
                   for line in self.lines)


class Guest:
    """A guest: where its state is, and all of its stretches so far."""

    options_of_vmm = ("--memory", "3")	# its RAM goes over a serial port

    def __init__(self, name, guest_words=GUEST, vcpus=1):
        self.name, self.words, self.vcpus = name, guest_words, vcpus
        self.stretches = []

    def stretch(self, host, reports, words, save, gap, *arguments):
        since = self.stretches[-1].ended.real if gap != "-" else "-"
        host.go_on()
        text = host.run("sh /files/stretch.sh %d %s %s %s %s %s" % (
            reports, words, save, gap, since, " ".join(arguments)), timeout=150)
        host.pause()		# idle time takes none, and a gap must not depend on us
        found = Stretch(host, text)
        if VERBOSE:
            print("\n".join("    " + line for line in text.split("\n")), file=sys.stderr)
        return found

    def keep(self, stretch):
        if stretch.late or stretch.status:
            raise lab.LabError("%s, %s: status %s, %d reports, said:\n%s" % (
                self.name, stretch.host.name, stretch.status, len(stretch.lines),
                stretch.said))
        self.stretches.append(stretch)
        return stretch

    def begin(self, host, reports=8):
        """Its first stretch."""
        return self.keep(self.stretch(host, reports, "-", self.saved, "-", "--smp", str(self.vcpus),
                                      *self.options_of_vmm, host.path("guest.elf"), self.words))

    @property
    def saved(self):
        """Where its state is, on each host where it was."""
        return "/tmp/saved-" + self.name

    def carry(self, host):
        """Its state to another host; that one goes on, the one where it was stands still."""
        here = self.stretches[-1].host
        if host is here:
            return
        here.go_on()
        here.run("tar c -C %s . | gzip -1 > /tmp/state" % self.saved)
        data = here.get("/tmp/state")
        here.pause()
        host.go_on()
        host.put("/tmp/state", data)
        host.run("rm -rf %s; mkdir %s; gzip -dc /tmp/state | tar x -C %s" %
                 ((self.saved,) * 3))

    def back(self, host):
        """The host where it could not go on stands still, the one where it was does not."""
        host.pause()
        self.stretches[-1].host.go_on()

    def move(self, host, ticks, reports=6, more=()):
        """Goes on there; a gap of GAP_NS, unless it is the host where it was."""
        same = host is self.stretches[-1].host
        self.carry(host)
        replay = ["replay: done"] if ticks in ("catchup", "delay") else []
        return self.keep(self.stretch(
            host, reports, "+".join(["verified"] + replay).replace(" ", "."), self.saved,
            "-" if same else GAP_NS, "--ticks", ticks, *more, "--from", self.saved))


# ---- hosts ----

class PairedHost(lab.VirtualAmdHost):
    """One of several in virtual time; those that have nothing to do stand still.

    Its kernel is told the frequency of its TSC, and has nothing to refine that by: left alone,
    it takes 1000.000 MHz for 999.999 every other time, and its wall clock goes accordingly.
    """

    memory_mib = 256
    arguments = lab.Host.arguments + " tsc_early_khz=1000000 hpet=disable pmtmr=0"

    def __init__(self, name, base, *args, **kwargs):
        self.name = name
        self.options = lab.VirtualAmdHost.options + ("-rtc", "base=%s,clock=vm" % base)
        super().__init__(*args, **kwargs)



class PlainHost(lab.AmdHost):
    """In real time, at the machine's own frequency."""

    name = "plain"
    memory_mib = 256

    def pause(self):
        """Real time does not stand."""

    go_on = pause


# ---- what has to hold ----

def us(ns):
    return "%+.3f us" % (ns / 1e3)


class Move:
    """From one stretch to the next."""

    held = ("tsc", "kvmclock", "hpet")	# against the truth
    lost = 1		# restores in between, of which each may cost a timer LOST ticks

    def __init__(self, report, name, before, after):
        self.report, self.name, self.before, self.after = report, name, before, after

    def check(self, what, holds, figures):
        return self.report.check("%s: %s" % (self.name, what), holds, figures)

    def tsc_error(self):
        """ns, exactly: the readings of both hosts are tied by what was declared."""
        a, b = self.before.ended, self.after.began
        if self.before.host is self.after.host:
            return (self.after.offsets[0] - self.before.offsets[0]) * NS / self.after.hz
        gone = b.real - a.real - self.after.disagreement
        ticks = self.after.tsc(b) - self.before.tsc(a)
        return ticks * NS / self.before.hz - gone

    def errors(self):
        """{clock: error in ns}: the TSC's, and with it that of what is read beside it."""
        tsc = self.tsc_error()
        beside = {"kvmclock": ("pv", 1), "hpet": ("hpet", 10)}
        found = {name: tsc + self.after.ahead(*how) - self.before.ahead(*how)
                 for name, how in beside.items()}
        found["tsc"] = tsc
        return found

    def clocks(self):
        errors = self.errors()
        width = self.before.ended.width / self.before.host_hz * NS + \
            self.after.began.width / self.after.host_hz * NS
        for clock in self.held:
            bound = self.after.bound(clock)
            self.check(clock, bound is not None and
                       abs(errors[clock]) <= width + SLACK_NS + bound,
                       "error %s, bound %s" % (us(errors[clock]),
                                               "none" if bound is None else us(bound)))
        self.check("tsc: the bound alone", abs(errors["tsc"]) <= width + self.after.bound("tsc"),
                   "error %s, bound %s, read to %s" %
                   (us(errors["tsc"]), us(self.after.bound("tsc")), us(width)))
        apart = errors["kvmclock"] - errors["tsc"]
        self.check("kvmclock with tsc", abs(apart) <= APART_NS, "%+.1f ns apart" % apart)
        return errors

    def forward(self):
        last, first = self.before.lines[-1], self.after.lines[0]
        steps = {name: first[name] - last[name] for name in ("t0", "pv", "hpet")}
        rtc = guest.rtc_seconds(first["rtc"]) - guest.rtc_seconds(last["rtc"])
        self.check("forward", min(steps.values()) > 0 and rtc >= 0,
                   "TSC %+d, kvmclock %+d ns, HPET %+d, RTC %+d s" %
                   (*steps.values(), rtc))
        seconds = (first["t0"] - last["t0"]) / self.after.hz
        self.check("rtc", abs(rtc - seconds) < 1, "%d s in %.3f s" % (rtc, seconds))

    def spread(self):
        before, after = [[offset - stretch.offsets[0] for offset in stretch.offsets]
                         for stretch in (self.before, self.after)]
        good = [line for line in self.after.lines if all(
            line["apbegin"] <= line["tsc%d" % n] <= line["apend"]
            for n in range(1, len(after)))]
        self.check("vCPUs in step", before == after and len(good) == len(self.after.lines),
                   "offsets %s before, %s after, ticks; %d of %d reports" %
                   (before, after, len(good), len(self.after.lines)))

    def interrupts(self):
        """Those of the running guest and those that the ledger promised, no other. What was late
        at the last line before, two of them amid a replay, came until the capture."""
        first, last = self.before.lines[-1], self.after.lines[-1]
        ledger = self.after.ledger()
        seconds = (last["t0"] - first["t0"]) / self.after.hz
        for name, hz in RATES.items():
            owed, missed, replayed, merged, dropped = ledger[name]
            counted = last["n" + name] - first["n" + name]
            expected = seconds * hz - merged - dropped
            self.check(name + " interrupts",
                       -LOST[name] * self.lost <= counted - expected <= 3 * self.lost,
                       "%d of %.1f; ledger %d + %d = %d + %d + %d" %
                       (counted, expected, owed, missed, replayed, merged, dropped))

    def told(self):
        before, after = self.before.lines[-1]["stopped"], self.after.lines[-1]["stopped"]
        self.check("the guest was told", after == before + 1, "GUEST_STOPPED %d times" % after)

    def everything(self):
        errors = self.clocks()
        self.forward()
        self.told()
        if len(self.after.offsets) > 1:
            self.spread()
        else:
            self.interrupts()
        return errors


class Amid(Move):
    """One with a report in the middle of a replay, which makes an access to the HPET longer."""

    held = ("tsc", "kvmclock")


def arrow(before, host):
    return "%s to %s" % (before.host.name, host.name)


def moves(report, moved, ways):
    """A guest along (host, policy of its ticks)... Returns all errors."""
    errors = []
    for host, ticks in ways:
        before = moved.stretches[-1]
        name = "%s, %s" % (arrow(before, host), ticks)
        errors.append(Move(report, name, before, moved.move(host, ticks)).everything())
    return errors


def in_the_middle(report, moved, there, back):
    """Moved again while ticks are being replayed: what was delivered does not come twice, and
    what was not is not lost."""
    before = moved.stretches[-1]
    moved.carry(there)
    middle = moved.keep(moved.stretch(there, 1, "-", moved.saved, GAP_NS, "--ticks", "catchup",
                                      "--from", moved.saved))
    name = "%s, %s, in the middle" % (arrow(before, there), arrow(middle, back))
    Amid(report, name, before, middle).clocks()
    after = moved.move(back, "catchup")
    Amid(report, name, middle, after).clocks()
    owed = {timer: numbers[0] for timer, numbers in after.ledger().items()}
    report.check(name + ": ticks were still owed", max(owed.values()) > 0, str(owed))
    whole = Move(report, name, before, after)
    whole.lost = 2
    whole.interrupts()


PIT_NS = 50000		# two ways through an emulated kernel


def phase_of_the_pit(report, moved, host):
    """It comes back where the VMM asks for it, and no tick is lost for it."""
    before = moved.stretches[-1]
    after = moved.move(host, "merge", more=["--time-pit"])
    name = "%s, the PIT in phase" % arrow(before, host)
    found = re.search(r"pit: (-?\d+) ns off its phase, to \+-(\d+) ns$", after.said, re.MULTILINE)
    report.check(name, bool(found) and abs(int(found[1])) + int(found[2]) <= PIT_NS,
                 found[0] if found else after.said)
    Move(report, name, before, after).everything()


def refused(report, name, moved, stretch, finding, what_for):
    """Refused by name, before the guest ran; where it was, it still can."""
    report.check("%s: refused" % name, stretch.status == 3 and finding in stretch.findings()
                 and not stretch.lines and "GUEST_STOPPED" not in stretch.said,
                 "status %s, %s: %s" % (stretch.status, finding,
                                        stretch.findings().get(finding, stretch.said)))
    before = moved.stretches[-1]
    if before.host is not stretch.host:
        moved.back(stretch.host)
    Move(report, "%s: %s" % (name, what_for), before,
         moved.move(before.host, "merge")).everything()


def unmeasured(report, moved, host):
    """Wall clocks an hour apart, and nobody says so: no jump."""
    before = moved.stretches[-1]
    moved.carry(host)
    stretch = moved.stretch(host, 4, "verified", "-", "-", "--from", moved.saved)
    refused(report, "%s, not measured" % arrow(before, host), moved, stretch,
            "wall-clocks-unmeasured", "goes on at its source")


def slower_host(report, one, plain):
    """From a fast host to one that has less than half its frequency."""
    moved = Guest("fast")
    before = moved.begin(plain)
    moved.carry(one)
    name = "%.0f to %.0f MHz" % (before.hz / 1e6, one_hz(one) / 1e6)
    stretch = moved.stretch(one, 4, "-", "-", GAP_NS, "--from", moved.saved)
    finding = "tsc-rate-not-honoured"
    report.check(name + ": refused", stretch.status == 3 and finding in stretch.findings() and
                 not stretch.lines, "status %s, %s: %s" %
                 (stretch.status, finding, stretch.findings().get(finding, stretch.said)))
    stretch = moved.stretch(one, 4, "-", "-", GAP_NS, "--force", finding, "--from", moved.saved)
    report.check(name + ", forced", "tsc-catches-up" in stretch.findings() and
                 stretch.status == 0 and len(stretch.lines) >= 4,
                 "status %s, %d reports, %s" % (stretch.status, len(stretch.lines),
                                                stretch.findings().get("tsc-catches-up",
                                                                       stretch.said)))
    steps = [b[name] - a[name] for name in ("t0", "pv", "hpet")
             for a, b in zip(before.lines[-1:] + stretch.lines, stretch.lines)]
    report.check(name + ", forced: forward", bool(steps) and min(steps) > 0,
                 "%d steps, the least %+d" % (len(steps), min(steps, default=0)))


def one_hz(host):
    """The frequency of a host's TSC."""
    a, b = (Clocks(line.split()) for line in
            host.run("hostclock; sleep 0.2; hostclock").split("\n") if line)
    return (b.tsc - a.tsc) * NS / (b.raw - a.raw)


def faster_host(report, moved, plain):
    """To a host of more than twice the frequency: no kernel can hold that back."""
    before = moved.stretches[-1]
    name = "%.0f to %.0f MHz" % (before.hz / 1e6, one_hz(plain) / 1e6)
    moved.carry(plain)
    stretch = moved.stretch(plain, 4, "verified", "-", GAP_NS, "--from", moved.saved)
    refused(report, name, moved, stretch, "tsc-rate-not-honoured", "goes on at its source")


def in_a_row(report, moved, hosts, n):
    """Do errors add up? Those of a row are known as one is: each reading between them ends one
    move and begins the next. Bounds may be ten times what 95 in 100 errors keep to, or what can
    be read at all where errors are smaller than that."""
    first, errors, bounds = moved.stretches[-1], [], {"tsc": [], "kvmclock": []}
    for i in range(n):
        before = moved.stretches[-1]
        after = moved.move(hosts[i % len(hosts)], "merge", reports=3)
        errors.append(Move(report, "", before, after).errors())
        for clock, series in bounds.items():
            series.append(after.bound(clock))
        if i % 10 == 9:
            print("%d moves: %s" % (i + 1, us(errors[-1]["tsc"])), flush=True)
    last = moved.stretches[-1]
    width = (first.ended.width + last.ended.width) / last.host_hz * NS
    for clock, series in bounds.items():
        sizes = sorted(abs(error[clock]) for error in errors)
        at_95 = sizes[len(sizes) * 95 // 100]
        total = sum(error[clock] for error in errors)
        report.check("%d moves in a row: %s" % (n, clock),
                     all(abs(error[clock]) <= bound + width
                         for error, bound in zip(errors, series)) and
                     abs(total) <= width + APART_NS and max(series) <= 10 * max(at_95, width),
                     "95 %% within %s, worst %s, together %s, bound %s, read to %s" %
                     (us(at_95), us(sizes[-1]), us(total), us(max(series)), us(width)))
    apart = last.ahead("pv", 1) - first.ahead("pv", 1)
    report.check("%d moves in a row: kvmclock with tsc" % n, abs(apart) <= APART_NS,
                 "%+.1f ns in all" % apart)


HOSTS = [("A", "2026-11-21T12:00:00"), ("B", "2026-11-21T13:00:00")]


def run(report, options, work):
    what = {"programs": [options.minivmm, options.hostclock],
            "files": [options.guest, os.path.join(HERE, "stretch.sh")]}
    with PairedHost(*HOSTS[0], work, options.cache, **what) as one:
        one.pause()
        with PairedHost(*HOSTS[1], work, options.cache, **what) as two:
            two.pause()
            one.go_on()
            moved = Guest("one")
            moved.begin(one)
            moves(report, moved, [(two, "catchup"), (one, "merge"), (one, "catchup"),
                                  (one, "delay"), (one, "discard")])
            in_the_middle(report, moved, two, one)
            phase_of_the_pit(report, moved, one)
            unmeasured(report, moved, two)
            both = Guest("two", "lapic=25 report=5", 2)
            both.begin(one)
            moves(report, both, [(two, "merge")])
            if options.row:
                in_a_row(report, both, [one, two], options.row)
            two.pause()
        one.go_on()
        with PlainHost(work, options.cache, **what) as plain:
            faster_host(report, moved, plain)
            slower_host(report, one, plain)


def arguments(description):
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("GCLK_BUILD")
    parser.add_argument("--build", default=build or os.path.join(ROOT, "build", "gcc"),
                        help="where meson built minivmm and the test guest")
    parser.add_argument("--minivmm")
    parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"))
    parser.add_argument("--cache", help="where the kernel is kept; default: in the build")
    parser.add_argument("--row", type=int, default=0, help="so many moves in a row as well")
    parser.add_argument("--long", action="store_const", dest="row", const=100,
                        help="100 of them")
    parser.add_argument("--verbose", action="store_true", help="all that is said, on stderr")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.minivmm = options.minivmm or options.build + "/examples/minivmm"
    options.guest = options.guest or options.build + "/tests/guest/guest.elf"
    options.cache = options.cache or options.build + "/lab"
    for path in (options.minivmm, options.guest):
        if not os.path.exists(path):
            parser.error("%s is not there: build first, or say --build" % path)
    return options


def main():
    global VERBOSE
    options = arguments(__doc__)
    VERBOSE = options.verbose
    report = lab.Report()
    with report.part("two AMD hosts"), lab.place(options.cache) as work:
        options.hostclock = lab.compile_static(os.path.join(HERE, "hostclock.c"), work)
        run(report, options, work)
    return report.end()


VERBOSE = False

if __name__ == "__main__":
    sys.exit(main())
