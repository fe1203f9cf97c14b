#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stock Debian guest across 10, 60 and 3600 s, HPET on and off: its console says no stall,
lockup, unstable clocksource or reset that the plan did not announce, nor does systemd restart
a service unannounced; and its clocks went as far as the policy says.

    test_debian.py --work DIR --guestclock COMMAND --long

Runs only with --long: making the guest and every case takes about half an hour.
"""
import argparse
import os
import subprocess
import sys

import debian
import qemu

SKIPPED = 77
ERROR_NS = 50e6			# a line of the guest on a busy machine; the clocks are test_rewrite's
CASES = [(10, "count"), (60, "count"), (3600, "count"), (3600, "cap=60s"), (3600, "wall"),
         (3600, "freeze")]
# The word that a finding must say for this to have been announced.
WORDS = {"RCU stall": "stall", "soft lockup": "lockup", "hard lockup": "lockup",
         "hung task": "stall", "unstable clocksource": "clocksource", "oops": "\0",
         "restarted": "watchdog"}

failed, n_checks = [], 0


def check(name, ok, detail=""):
    global n_checks
    n_checks += 1
    if not ok:
        failed.append(name)
    print("%s: %s%s" % (name, "ok" if ok else "FAIL", "  " + detail if detail else ""),
          flush=True)


def announcement(command, outcome):
    """All that the plan's findings say: their sentences, and what `explain` adds."""
    text = []
    for finding in outcome.findings:
        told = subprocess.run([command, "explain", finding["id"]], capture_output=True,
                              text=True, check=True)
        text += [finding["message"], finding["advice"], told.stdout]
    return " ".join(text)


def judge(command, outcome):
    debian.report(outcome)
    name = outcome.name()
    check("%s: no reset" % name, not outcome.gone)
    check("%s: systemd answers" % name, outcome.answered)
    said = announcement(command, outcome)
    happened = dict(outcome.trouble)
    if outcome.restarted:
        happened["restarted"] = sorted(outcome.restarted)
    for what, lines in happened.items():
        check("%s: %s was announced" % (name, what), WORDS[what] in said, lines[0].strip())
    clocks = ["tsc", "mono", "boot", "real"]
    if outcome.counted() and outcome.sources != ["tsc"]:
        clocks = ["tsc"]		# the others go as far as that counter's turn lets them
        lost = abs(outcome.moved.get("mono", 0) - outcome.counted()) > ERROR_NS
        check("%s: what %s loses was announced" % (name, " ".join(outcome.sources)),
              not lost or "clocksource" in said,
              "went %+.3f s" % (outcome.moved.get("mono", 0) / 1e9))
    for clock in clocks:
        wrong = outcome.moved.get(clock, float("inf")) - outcome.counted()
        check("%s: %s went as far as asked" % (name, clock), abs(wrong) <= ERROR_NS,
              "%+.1f ms" % (wrong / 1e6))
    if outcome.real_set_s is not None:
        check("%s: its clock can be set" % name, abs(outcome.real_set_s - outcome.gap_s) <= 5)
    if outcome.control is not None:
        check("%s: a stopped service is still killed" % name, outcome.control)


def run(options):
    files = debian.make(options.work)
    for hpet in (True, False):
        saved = debian.Saved(debian.Machine(options.work, files, hpet))
        try:
            for gap_s, policy in CASES:
                judge(options.guestclock,
                      debian.case(saved, options.guestclock, gap_s, policy,
                                  control=(gap_s, policy) == CASES[0]))
        finally:
            saved.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=os.environ.get("GCLK_WORK"))
    parser.add_argument("--guestclock", default=os.environ.get("GCLK_COMMAND"))
    parser.add_argument("--guest", help="taken, as by the other tests, and not used")
    parser.add_argument("--long", action="store_true")
    options = parser.parse_args()
    try:
        if not options.long:
            raise qemu.Skip("only with --long")
        if not options.guestclock or not os.path.exists(options.guestclock):
            raise qemu.Skip("no guestclock (--guestclock)")
        qemu.available()
        run(options)
    except qemu.Skip as reason:
        print("skipped: %s" % reason)
        return SKIPPED
    print("%d checks, %d failed%s" % (n_checks, len(failed),
                                      "".join("\n  " + name for name in failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
