#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A live migration through the two ends of the proxy: two bare QEMUs, no libvirt.

The guest's own readings decide: what its clocks lost over the blackout, against the host's
raw clock. The same migration without the ends is the comparison.

    test_proxy.py --guest guest.elf --guestclock guestclock-live [--only NAME] [--long]
"""
import json
import os
import subprocess
import sys
import time

import guest
import measure
import qemu

ERROR_NS = 2e6
APPEND = "pit=20 hpet=20 report=50 edge=irq"
LINES = 60

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Pair:
    """A running guest, and a QEMU that waits for it at a socket."""

    def __init__(self, lab, **options):
        self.lab = lab
        self.here = lab.path("here.sock")
        self.there = lab.path("there.sock")
        self.options = {**lab.options, **options, "kernel": lab.guest, "append": APPEND}
        self.source = qemu.Qemu(lab.work, **self.options)
        try:
            self.destination = qemu.Qemu(lab.work, **self.options,
                                         extra=["-incoming", "unix:" + self.there])
        except BaseException:
            self.source.close()
            raise
        for one in (self.source, self.destination):
            one.qmp.cmd("migrate-set-capabilities", capabilities=[
                {"capability": "return-path", "state": True}])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.source.close()
        self.destination.close()

    def migrate(self, path, timeout=60):
        """Returns the source's last MIGRATION status."""
        first = len(self.source.qmp.events)
        self.source.qmp.cmd("migrate", uri="unix:" + path)
        return self.source.qmp.event(
            "MIGRATION", first, timeout,
            lambda event: event["data"]["status"] in ("completed", "failed", "cancelled")
        )[1]["data"]["status"]


class Proxy:
    """One guestclock-live proxy; ready once it says so."""

    def __init__(self, lab, *args, wait=True):
        self.process = subprocess.Popen([lab.command, "proxy", "--json", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.said = ""
        while wait and not self.said.rstrip("\n").split("\n")[-1].startswith(
                "guestclock: ready"):
            line = self.process.stderr.readline()
            if not line:
                self.process.wait()
                raise qemu.QmpError("the proxy is not ready: " + self.said)
            self.said += line

    def report(self, timeout=20):
        """(exit code, the report or None, messages)"""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise qemu.QmpError("the proxy does not end: " + err)
        return self.process.returncode, json.loads(out) if out.strip() else None, err


def ends(lab, pair, *args):
    """Both ends: the source's here, the destination's as its child."""
    stdio = "'%s' proxy --stdio --directory '%s' --margins '%s'" % (
        lab.command, lab.work, lab.path("margins"))
    return Proxy(lab, "--listen", pair.here, "--there", pair.there, "--to",
                 "exec:exec " + stdio, *args)


def moved(lab, through, **options):
    """(errors by clock, STOP to RESUME in ns, report or None) of one migration."""
    with Pair(lab, **options) as pair:
        guest.reports(pair.source, LINES, 60)
        proxy = through(pair)
        before = [line for line in guest.parse(pair.source.serial.take())
                  if line.kind == "G"][5:]
        status = pair.migrate(pair.here if proxy else pair.there)
        if status != "completed":
            raise qemu.QmpError("the migration %s: %s" % (status, proxy and proxy.report()))
        stop = pair.source.qmp.event("STOP")[1]["real"]
        resume = pair.destination.qmp.event("RESUME")[1]["real"]
        after = guest.reports(pair.destination, LINES, 60)
        report = proxy.report() if proxy else (0, None, "")
    return guest.errors(before, after), resume - stop, report


def show(name, errors, blackout_ns, report):
    print("# %s: blackout %.3f ms; %s" % (
        name, blackout_ns / 1e6, ", ".join("%s %+.3f ms" % (clock, error / 1e6)
                                           for clock, (error, sure) in errors.items())))
    if report:
        print("#   report: " + json.dumps(report))


@case
def stock(lab):
    errors, blackout_ns, _ = moved(lab, lambda pair: None)
    show("stock", errors, blackout_ns, None)
    lab.check("stock: the TSC loses the blackout",
              abs(errors["tsc"][0] + blackout_ns) < 3e6, "%.3f ms of %.3f ms" %
              (errors["tsc"][0] / 1e6, blackout_ns / 1e6))


@case
def through(lab):
    errors, blackout_ns, (status, report, messages) = moved(
        lab, lambda pair: ends(lab, pair))
    show("ends", errors, blackout_ns, report)
    print(messages)
    lab.check("ends: exit 0", status == 0, messages)
    bounds = {row["clock"]: row["bound_ns"] for row in report["clocks"]}
    for clock, row in (("tsc", "tsc"), ("hpet", "hpet")):
        error, sure = errors[clock]
        bound = bounds[row]
        lab.check("ends: the bound of %s covers its error" % clock,
                  bound is not None and abs(error) <= int(bound) + sure,
                  "%+.3f ms of %s ms" % (error / 1e6, bound and "%.3f" % (int(bound) / 1e6)))


def body(lab):
    for name, function in CASES.items():
        if not lab.args.only or name == lab.args.only:
            function(lab)


def main():
    def add(parser):
        parser.add_argument("--only", choices=sorted(CASES))
        parser.add_argument("--long", action="store_true")
    lab = measure.Lab(__doc__, add)
    sys.exit(lab.main(body, need_command=True))


if __name__ == "__main__":
    main()
