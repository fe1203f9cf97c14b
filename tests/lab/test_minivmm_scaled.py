#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A guest of examples/minivmm, moved between hosts of 3499.912 and 2208.000 MHz that scale its
TSC in hardware: kvm-intel of a real Linux on processors that Bochs emulates.

    test_minivmm_scaled.py [--build DIR] [--long] [--verbose]

What has to hold is in test_minivmm_moves.py, with more: the TSC keeps its rate to 0.5 ppm, and
what kvmclock gains on it is what the restore said of the kernel's rounding. Truth is host's
clocks, and ratio and offset in debugfs; kvmclock is compared by the guest's own page, as it
stands in the saved states.
"""
import fractions
import json
import os
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import bochs                          # noqa: E402
import lab                            # noqa: E402
import test_minivmm_moves as moves    # noqa: E402

NS = moves.NS
RATE_PPM = 0.5
GUEST = "lapic=25 hpet=25 report=5"
NOON = 1795262400
HOSTS = [("fast", "corei7_skylake_x", NOON), ("slow", "corei3_cnl", NOON + 3600)]


class Saved:
    """A saved state: what the guest's clocks read at its capture, and the guest's clock page."""

    def __init__(self, state):
        tsc, vcpu = state["tsc"][0], state["vcpu"][0]
        self.tsc, self.hz = int(tsc["value_ticks"]), int(tsc["frequency_hz"])
        self.clock_ns = int(state["kvmclock"]["clock_ns"])
        self.page_tsc, self.page_ns = int(vcpu["pvclock_tsc_ticks"]), int(vcpu["pvclock_system_ns"])
        self.ns_per_tick = int(vcpu["pvclock_mul"]) * 2.0**(int(vcpu.get("pvclock_shift", 0)) - 32)

    def apart(self, since):
        """How far the page, as it was written at the restore, is from where the TSC puts the
        clock since that capture, in ns."""
        gone = self.page_tsc - since.tsc
        return float(self.page_ns - since.clock_ns - fractions.Fraction(gone * NS, self.hz))


class Guest(moves.Guest):
    """One whose saved states are looked at."""

    def __init__(self, options, *args):
        self.options = options
        super().__init__(*args)

    def keep(self, stretch):
        stretch = super().keep(stretch)
        stretch.host.go_on()
        clocks = stretch.host.get(self.saved + "/clocks.gclk")
        said = subprocess.run([self.options.guestclock, "inspect", "--json", "-"], input=clocks,
                              check=True, stdout=subprocess.PIPE).stdout
        stretch.host.pause()
        stretch.saved = Saved(json.loads(said)["state"])
        return stretch


class Move(moves.Move):
    """One that may change how the TSC is scaled."""

    held = ("tsc", "kvmclock")	# an instruction takes 20 ns here: an access to the HPET 10 us

    def errors(self):
        """kvmclock: at the restore, when its page was written anew."""
        found = super().errors()
        found["kvmclock"] = found["tsc"] + self.after.saved.apart(self.before.saved)
        return found

    def rate(self):
        ppm = (self.after.hz / self.before.hz - 1) * 1e6
        self.check("rate", abs(ppm) <= RATE_PPM, "%+.4f ppm; %.0f Hz on a host of %.0f" %
                   (ppm, self.after.hz, self.after.host_hz))

    def gain(self):
        """Of kvmclock on the TSC, from the restore on."""
        text = self.after.findings().get("kvmclock-rate-rounded", "")
        said = int(text.split("gains ")[1].split()[0]) if text else 0
        named = round(self.after.host_hz / 1000) * 1000 * self.after.hz / self.after.host_hz
        gains = (self.after.saved.ns_per_tick * named / NS - 1) * 1e9
        self.check("kvmclock's rate", abs(gains - said) <= 1,
                   "gains %.1f ppb on the TSC, said: %d" % (gains, said))

    def interrupts(self):
        pass		# test_minivmm_moves has those of all devices

    def everything(self):
        errors = super().everything()
        self.rate()
        self.gain()
        return errors


def go_along(report, moved, ways):
    for host in ways:
        before = moved.stretches[-1]
        Move(report, moves.arrow(before, host), before, 
             moved.move(host, "merge", reports=4)).everything()


def boot_all(hosts):
    """At the same time: each takes a processor of this machine for most of a minute."""
    failures = []

    def boot(host):
        try:
            host.__enter__()
            host.pause()
        except Exception as error:		# is raised again, by the thread that reports
            failures.append(error)

    threads = [threading.Thread(target=boot, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def run(report, options, work):
    what = {"programs": [options.minivmm, options.hostclock],
            "files": [options.guest, os.path.join(HERE, "stretch.sh")]}
    hosts = [bochs.BochsHost(*each, work, options.cache, **what) for each in HOSTS]
    try:
        boot_all(hosts)
        fast, slow = hosts
        fast.go_on()
        moved = Guest(options, "one", GUEST)
        moved.begin(fast, 4)
        go_along(report, moved, [slow, fast] * (5 if options.row else 1))
        if options.row:
            fast.pause()
            slow.go_on()
            other = Guest(options, "other", GUEST)
            other.begin(slow, 4)
            go_along(report, other, [fast, slow, slow, fast])
    finally:
        for host in hosts:
            if host.process:
                host.__exit__()


def main():
    options = moves.arguments(__doc__)
    moves.VERBOSE = options.verbose
    options.guestclock = options.build + "/migrator/guestclock"
    report = lab.Report()
    with report.part("two hosts that scale"), lab.place(options.cache) as work:
        options.hostclock = lab.compile_static(os.path.join(HERE, "hostclock.c"), work)
        run(report, options, work)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
