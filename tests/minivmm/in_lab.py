#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""minivmm on real Linux KVM that honours TSC writes: moved within an emulated AMD host.

    in_lab.py --minivmm EXE --guest ELF --cache DIR [--host virtual|plain]... [--verbose]

Three moves of one guest, each from the state that the one before left: counted with the
source's boot known, counted as if it came from elsewhere, and frozen. Then one to another
host, whose wall clock is an hour ahead. In all of them the guest holds its clocks against
each other. Exit status 77 with the reason where the hosts cannot be made.
"""
import argparse
import base64
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lab"))
sys.dont_write_bytecode = True
import lab  # noqa: E402
import test_minivmm as tests  # noqa: E402

HOSTS = {"virtual": lab.VirtualAmdHost, "plain": lab.AmdHost}
LIMIT_NS = 50e3  # the TSC's rate before the move is known to 5 ppm
GUEST = "pit=25 hpet=25 lapic=25 rtc=8 report=5"
MOVES = [
    ("same boot", "--ticks catchup"),
    ("from elsewhere", "--elsewhere --disagreement 0 --ticks catchup"),
    ("frozen", "--elsewhere --disagreement 0 --gap freeze"),
]


# The other host's wall clock: 3600 s ahead, and it boots 20 s later than the first.
AHEAD_S = 3600
WALL_CLOCKS = ("2030-01-01T00:00:00", "2030-01-01T01:00:20")


def at_wall_clock(kind, base):
    """A kind of host whose wall clock begins there and is as virtual as the rest."""
    return type(kind.__name__, (kind,), {
        "options": tuple(kind.options) + ("-rtc", "base=%s,clock=vm" % base)})


class Ran:
    """One minivmm's output, as a Vmm has it."""

    def __init__(self, host, run_s, save_to, arguments):
        out = host.run("{ sleep %s; echo save %s; echo quit; } | minivmm %s 2>/tmp/said" %
                       (run_s, save_to, arguments), timeout=240)
        self.said = host.run("cat /tmp/said")
        self.lines = [line for line in tests.guest.parse([(None, out.encode() + b"\n")])
                      if line.kind == "G"]
        if len(self.lines) < 8:
            raise lab.LabError("%d reports: %s" % (len(self.lines), self.said))


def check_frozen(checks, before, after, gap_s):
    span = tests.Span(tests.calm(before[-4:]), tests.calm(after))
    gone = span.ns / 1e9
    checks.check("frozen: nothing of the gap is counted",
                 gone < gap_s, "%.3f s, the gap was %.3f s" % (gone, gap_s))


def check_counted(checks, when, before, after, hz_of_tsc):
    """Nothing merges there. A grid is off by less than one at either end; the PIT's starts
    anew, after a gap of which whole periods are counted: less than three in all. And one of
    its own ticks may expire in the instant in which an owed one is pending: one in 500.
    """
    span = tests.Span(before, after)
    span.tsc_hz = hz_of_tsc
    for name, hz in tests.RATES.items():
        error = span.interrupts(name, hz)
        all_of_them = hz * (after["t0"] - before["t0"]) / hz_of_tsc
        checks.check("%s: %s interrupts, missed ones included" % (when, name),
                     -4 - all_of_them / 500 < error < 1.1 if name == "pit" else abs(error) < 2,
                     "%+.2f of %.0f" % (error, all_of_them))


def moves(checks, host, elf):
    runs = [Ran(host, 3, "/tmp/0", "%s %s" % (host.path(elf), GUEST))]
    hz = tests.Span(tests.calm(runs[0].lines[1:5]), tests.calm(runs[0].lines[-4:])).tsc_hz
    for n, (name, arguments) in enumerate(MOVES):
        host.run("sleep 4")
        runs.append(Ran(host, 4, "/tmp/%d" % (n + 1), "%s --from /tmp/%d" % (arguments, n)))
        before, after, said = runs[-2].lines, runs[-1].lines, runs[-1].said
        gap = int(re.search(r"plan: gap (\d+) ns", said).group(1)) / 1e9
        checks.check("%s: done, and verified" % name, "minivmm: verified" in said and
                     "minivmm: error" not in said, said)
        tests.check_move(checks, name, before, after, LIMIT_NS)
        if name == "frozen":
            check_frozen(checks, before, after, gap)
            continue
        checks.check("%s: replay" % name, "replay: done" in said, said[-200:])
        check_counted(checks, name, before[-1], after[-1], hz)


def move_between(checks, kind, options, work):
    parts = {"programs": [options.minivmm], "files": [options.guest]}
    with at_wall_clock(kind, WALL_CLOCKS[0])(work, options.cache, **parts) as first:
        before = Ran(first, 3, "/tmp/0", "%s %s" % (first.path(options.guest), GUEST)).lines
        text = first.run("cd /tmp/0 && tar c . | gzip -9 | base64 -w 3000", timeout=240)
    carried = os.path.join(work, "carried")
    with open(carried, "wb") as file:
        file.write(base64.b64decode("".join(text.split())))
    # on board from the start: while a host waits for a command its clock runs as fast as it can
    parts["files"].append(carried)
    with at_wall_clock(kind, WALL_CLOCKS[1])(work, options.cache, **parts) as second:
        second.run("mkdir /tmp/0; cd /tmp/0; gzip -d < %s | tar x" % second.path(carried))
        run = Ran(second, 6, "/tmp/1", "--disagreement %d --ticks catchup --from /tmp/0" %
                  (AHEAD_S * 10**9))
    gap = int(re.search(r"plan: gap (\d+) ns", run.said).group(1)) / 1e9
    checks.check("another host: the hour is no part of the gap", 10 < gap < 40, "%.3f s" % gap)
    checks.check("another host: done, and verified", "minivmm: verified" in run.said and
                 "minivmm: error" not in run.said, run.said)
    checks.check("another host: replay", "replay: done" in run.said, run.said[-300:])
    tests.check_move(checks, "another host", before, run.lines, LIMIT_NS)
    hz = tests.Span(tests.calm(before[1:5]), tests.calm(before[-4:])).tsc_hz
    check_counted(checks, "another host", before[-1], run.lines[-1], hz)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minivmm", required=True, type=os.path.abspath)
    parser.add_argument("--guest", required=True, type=os.path.abspath)
    parser.add_argument("--cache", required=True, type=os.path.abspath,
                        help="where the host's kernel is kept")
    parser.add_argument("--host", action="append", choices=sorted(HOSTS))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    checks = tests.Checks(options.verbose)
    with lab.place(options.cache) as work:
        for name in options.host or ["virtual"]:
            with HOSTS[name](work, options.cache, programs=[options.minivmm],
                             files=[options.guest]) as host:
                moves(checks, host, options.guest)
            move_between(checks, HOSTS[name], options, work)
    print("%d passed, %d failed" % (checks.n - checks.failed, checks.failed))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(lab.script(main))
