#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs examples/minivmm on /dev/kvm with the test guest in it and reads what it reports.

    test_minivmm.py --minivmm EXE --guest ELF [--verbose]

Clocks are held against each other inside one report, never against the host's: how busy
the machine is does not matter. Every line is "name: ok|FAIL: figures"; exit status 77 with
the reason where there is no KVM.
"""
import argparse
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import guest  # noqa: E402

LIMIT_S = 60
RATES = {"pit": guest.rate_of_pit(25), "hpet": 25, "lapic": 25, "rtc": 8}


class Vmm:
    """A running minivmm; lines() are the guest's whole lines so far."""

    def __init__(self, exe, *arguments):
        self.text = b""
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([exe, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log)

    def said(self):
        """Standard error so far."""
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace").strip()

    def wait_for(self, text):
        end = time.monotonic() + LIMIT_S
        while text not in self.said():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("no \"%s\": %s" % (text, self.said()))
            time.sleep(0.01)

    def lines(self):
        return guest.parse([(None, self.text)])

    def reports(self, n):
        """n reports in all."""
        end = time.monotonic() + LIMIT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                found = [line for line in self.lines() if line.kind == "G"]
                if len(found) >= n:
                    return found
                if any(line.kind == "P" for line in self.lines()):
                    raise RuntimeError("the guest took an exception: %s" % self.text[-200:])
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError("%d of %d reports; %s" % (len(found), n, self.end()))
                if selector.select(0.5):
                    self.text += os.read(self.process.stdout.fileno(), 1 << 16)

    def more(self, n):
        return self.reports(len([1 for x in self.lines() if x.kind == "G"]) + n)[-n:]

    def command(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self):
        """Status and standard error."""
        if self.process.poll() is None:
            try:
                self.command("quit")
                self.process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
        self.text += self.process.communicate()[0]
        return self.process.returncode, self.said()


class Span:
    """Between two reports: what each clock counted, in its own ticks, read for read."""

    def __init__(self, first, last):
        self.first, self.last = first, last
        # the HPET, at 100 MHz exactly, is the measure; the TSC carries every reading to it
        self.ns = (last["hpet"] - first["hpet"]) * 10
        self.tsc_hz = self.tsc_between("hpet") * 1e9 / self.ns

    def tsc_between(self, name):
        return (self.last["t0"] + self.last.after[name]) - \
               (self.first["t0"] + self.first.after[name])

    def seconds(self, name):
        """True seconds between the two readings of a clock."""
        return self.tsc_between(name) / self.tsc_hz

    def counted(self, name, hz, wraps=None, down=False):
        """How far a counter is off what it should have counted, in ns."""
        ticks = self.last[name] - self.first[name]
        ticks = -ticks if down else ticks
        expected = self.seconds(name) * hz
        if wraps:
            ticks += round((expected - ticks) / wraps) * wraps
        return (ticks - expected) * 1e9 / hz

    def interrupts(self, name, hz):
        """Interrupts beyond what the time between the reports is worth."""
        ticks = self.last["n" + name] - self.first["n" + name]
        return ticks - (self.last["t0"] - self.first["t0"]) / self.tsc_hz * hz


def calm(lines):
    """The report that took least: a vCPU that lost its processor between two readings has
    them apart, which is no fault of a clock."""
    return min(lines, key=lambda line: line["t9"] - line["t0"])


class Checks:
    def __init__(self, verbose):
        self.verbose, self.failed, self.n = verbose, 0, 0

    def check(self, name, good, figures):
        self.n += 1
        self.failed += not good
        if self.verbose or not good:
            print("%s: %s: %s" % (name, "ok" if good else "FAIL", figures), flush=True)


def check_clocks(checks, when, span, lapic_hz=25):
    """1 ms beside 1 .. 2 s: a clock of another rate, or one that stood, would show."""
    readings = {
        "pv": span.counted("pv", 1e9),
        "pm": span.counted("pm", guest.PM_HZ, wraps=1 << 24),
        "pit2": span.counted("pit2", guest.PIT_HZ, wraps=65536, down=True),
        "lapic": span.counted("lapic", 1e9, wraps=1e9 / lapic_hz, down=True),
    }
    for name, error in readings.items():
        checks.check("%s: %s counts with the HPET" % (when, name), abs(error) < 1e6,
                     "%+.1f us in %.3f s" % (error / 1e3, span.ns / 1e9))
    rtc = guest.rtc_seconds(span.last["rtc"]) - guest.rtc_seconds(span.first["rtc"])
    checks.check("%s: rtc" % when, abs(rtc - span.seconds("rtc")) < 1.0,
                 "%d s in %.3f s" % (rtc, span.seconds("rtc")))


def check_interrupts(checks, when, span, rates):
    """A busy host makes some late, and what comes late may come as one: a few are missing.

    But for the PIT's, which the kernel counts, and delivers one per acknowledgement.
    """
    for name, hz in rates.items():
        error = span.interrupts(name, hz)
        few = max(3, 0 if name == "pit" else 0.4 * hz * span.ns / 1e9)
        checks.check("%s: %s interrupts" % (when, name), -few <= error <= 3,
                     "%+.1f of %.0f" % (error, hz * span.ns / 1e9))


def run_alone(checks, exe, elf):
    vmm = Vmm(exe, elf, "pit=25", "hpet=25", "lapic=25", "rtc=8", "report=20")
    lines = vmm.reports(40)
    boot = [line for line in vmm.lines() if line.kind == "B"][0]
    checks.check("boot: the HPET is found", boot["hpet"] == 0xfed00000, "%x" % boot["hpet"])
    span = Span(calm(lines[2:8]), calm(lines[-6:]))
    check_clocks(checks, "running", span)
    check_interrupts(checks, "running", span, RATES)
    checks.check("running: nothing goes backwards",
                 all(a["t9"] < b["t0"] and a["hpet"] < b["hpet"] and a["pv"] < b["pv"]
                     for a, b in zip(lines, lines[1:])), "%d reports" % len(lines))
    vmm.command("stop")
    time.sleep(0.3)
    silent = vmm.reports(len(lines))
    time.sleep(0.5)
    vmm.command("go")
    after = vmm.more(10)
    checks.check("stopped: no report comes", after[0]["seq"] <= silent[-1]["seq"] + 3,
                 "%d after %d" % (after[0]["seq"], silent[-1]["seq"]))
    check_clocks(checks, "after a stop", Span(calm(lines[2:8]), calm(after)))
    status, errors = vmm.end()
    checks.check("end", status == 0 and not errors, "status %s, %r" % (status, errors))


def run_legacy(checks, exe, elf):
    """The HPET takes IRQ 0: the kernel's PIT has to be silent, or both would be counted."""
    vmm = Vmm(exe, elf, "hpet=20", "hpetmode=legacy", "pit=100", "report=20")
    lines = vmm.reports(30)
    span = Span(lines[5], lines[-1])
    both = (span.last["nhpet"] + span.last["npit"]) - (span.first["nhpet"] + span.first["npit"])
    seconds = span.ns / 1e9
    checks.check("legacy: one source on IRQ 0", 0.6 * 20 * seconds - 3 <= both <= 20 * seconds + 3,
                 "%d in %.3f s" % (both, seconds))
    status, errors = vmm.end()
    checks.check("legacy: end", status == 0 and not errors, "status %s, %r" % (status, errors))


def run_smp(checks, exe, elf):
    vmm = Vmm(exe, "--smp", "3", elf, "lapic=25", "report=20")
    lines = vmm.reports(20)
    for n in (1, 2):
        good = [line for line in lines
                if line["apbegin"] <= line["tsc%d" % n] <= line["apend"]]
        checks.check("smp: TSC of vCPU %d is in step" % n, len(good) >= len(lines) - 1,
                     "%d of %d reports" % (len(good), len(lines)))
        span = Span(lines[2], lines[-1])
        ticks = span.last["nap%d" % n] - span.first["nap%d" % n]
        checks.check("smp: LAPIC timer of vCPU %d" % n,
                     -max(3, 10 * span.ns / 1e9) <= ticks - 25 * span.ns / 1e9 <= 3,
                     "%d in %.3f s" % (ticks, span.ns / 1e9))
    vmm.end()





def ledger(said):
    """{timer: (owed, missed, replayed, merged, dropped)} as minivmm printed it last."""
    found = re.findall(r"ledger: (\S+): owed (\d+) \+ missed (\d+) = replayed (\d+) \+ "
                       r"merged (\d+) \+ dropped (\d+)", said)
    return {name: tuple(map(int, numbers)) for name, *numbers in found}


def replayed(said):
    """{timer: (owed, delivered, remaining, dropped)} of the last report of the replay."""
    found = re.findall(r"replay: (\S+) \d+: owed (\d+), delivered (\d+), remaining (\d+), "
                       r"dropped (\d+)", said)
    return {name: tuple(map(int, numbers)) for name, *numbers in found}


def save(vmm, directory):
    vmm.command("save " + directory)
    vmm.wait_for("minivmm: saved")
    vmm.end()
    return [line for line in vmm.lines() if line.kind == "G"]


def check_move(checks, when, before, after, limit_ns=1e6):
    """From the last report before a move to one after it: what the guest can compare.

    The TSC is the measure, with the rate that it had before. The PIT's phase restarts.
    """
    hz = Span(calm(before[1:5]), calm(before[-4:])).tsc_hz
    span = Span(calm(before[-4:]), calm(after))
    span.tsc_hz = hz
    readings = {
        "hpet": span.counted("hpet", 1e8),
        "pv": span.counted("pv", 1e9),
        "pm": span.counted("pm", guest.PM_HZ, wraps=1 << 24),
        "lapic": span.counted("lapic", 1e9, wraps=1e9 / 25, down=True),
    }
    for name, error in readings.items():
        checks.check("%s: %s goes on with the TSC" % (when, name), abs(error) < limit_ns,
                     "%+.1f us in %.3f s" % (error / 1e3, span.seconds("hpet")))
    rtc = guest.rtc_seconds(span.last["rtc"]) - guest.rtc_seconds(span.first["rtc"])
    checks.check("%s: rtc" % when, abs(rtc - span.seconds("rtc")) < 1.0,
                 "%d s in %.3f s" % (rtc, span.seconds("rtc")))
    checks.check("%s: the guest was told once" % when, after[-1]["stopped"] ==
                 before[-1]["stopped"] + 1, "GUEST_STOPPED %d times" % after[-1]["stopped"])
    checks.check("%s: no report is lost" % when, after[0]["seq"] in
                 (before[-1]["seq"], before[-1]["seq"] + 1, before[-1]["seq"] + 2),
                 "%d after %d" % (after[0]["seq"], before[-1]["seq"]))


def check_counted(checks, when, before, after, hz_of_tsc, gap_s):
    """All interrupts, the gap's too. On a busy host those of the running guest may merge, and
    one that the kernel's timers make while an owed one is pending."""
    span = Span(before, after)
    span.tsc_hz = hz_of_tsc
    running_s = (after["t0"] - before["t0"]) / hz_of_tsc - gap_s
    for name, hz in RATES.items():
        error = span.interrupts(name, hz)
        few = 4 + (0.25 * hz * gap_s if name == "pit" else 0.4 * hz * running_s)
        checks.check("%s: %s interrupts, missed ones included" % (when, name),
                     -few <= error <= 4, "%+.1f of %.0f, the gap's %.0f among them" %
                     (error, hz * (running_s + gap_s), hz * gap_s))


def run_moved(checks, exe, elf):
    """Saved, left for 4 s, restored with every missed tick replayed."""
    with tempfile.TemporaryDirectory() as directory:
        vmm = Vmm(exe, elf, "pit=25", "hpet=25", "lapic=25", "rtc=8", "report=5")
        vmm.reports(14)
        before = save(vmm, directory)
        hz = Span(calm(before[1:5]), calm(before[-4:])).tsc_hz
        time.sleep(4)
        vmm = Vmm(exe, "--ticks", "catchup", "--from", directory)
        vmm.reports(3)
        vmm.wait_for("verified")
        vmm.wait_for("replay: done")
        vmm.more(3)
        status, said = vmm.end()
        after = [line for line in vmm.lines() if line.kind == "G"]
        checks.check("moved: end", status == 0, "status %s, %s" % (status, said))
        check_move(checks, "moved", before, after)
        gap = int(re.search(r"plan: gap (\d+) ns", said).group(1)) / 1e9
        entries, paid = ledger(said), replayed(said)
        for name, hz_of in RATES.items():
            entry = entries[name if name in ("pit", "rtc") else name + "[0]"]
            checks.check("moved: ledger of %s" % name, entry[2] == entry[1] and
                         abs(entry[1] - gap * hz_of) <= 1, "%s, %.1f fell in the gap" %
                         (entry, gap * hz_of))
            checks.check("moved: replay of %s" % name, paid[name][0] >= entry[2] and
                         paid[name] == (paid[name][0], paid[name][0], 0, 0),
                         "%s" % (paid[name],))
        check_counted(checks, "moved", before[5], after[-1], hz, gap)


def run_moved_in_the_middle(checks, exe, elf):
    """Moved again while ticks are still being paid out at the timers' own rate."""
    with tempfile.TemporaryDirectory() as directory:
        vmm = Vmm(exe, elf, "pit=25", "hpet=25", "lapic=25", "rtc=8", "report=5")
        vmm.reports(12)
        before = save(vmm, directory)
        hz = Span(calm(before[1:5]), calm(before[-4:])).tsc_hz
        time.sleep(3)
        gap_s = 0
        for policy, wanted in (("delay", 5), ("delay", 5), ("catchup", None)):
            vmm = Vmm(exe, "--ticks", policy, "--from", directory)
            vmm.reports(wanted or 3)
            if wanted:
                save(vmm, directory)
            else:
                vmm.wait_for("replay: done")
                vmm.more(3)
                vmm.end()
            said = vmm.said()
            gap_s += int(re.search(r"plan: gap (\d+) ns", said).group(1)) / 1e9
        owed = {name: entry[0] for name, entry in ledger(said).items()}
        checks.check("in the middle: ticks were owed", owed["pit"] > 0, "%s" % owed)
        paid = replayed(said)
        checks.check("in the middle: all are paid in the end",
                     all(entry[1] == entry[0] and entry[2] == 0 for entry in paid.values()),
                     "%s" % paid)
        last = [line for line in vmm.lines() if line.kind == "G"][-1]
        check_counted(checks, "in the middle", before[5], last, hz, gap_s)


def run_moved_smp(checks, exe, elf):
    """Three vCPUs, saved by a signal after a save that was called off."""
    with tempfile.TemporaryDirectory() as directory:
        vmm = Vmm(exe, "--smp", "3", "--state", directory + "/b", elf, "lapic=25", "report=5")
        vmm.reports(8)
        vmm.command("save " + directory + "/a")
        vmm.wait_for("minivmm: saved")
        vmm.command("go")
        vmm.more(4)
        vmm.process.send_signal(signal.SIGUSR1)
        vmm.process.wait(LIMIT_S)
        vmm.end()
        before = [line for line in vmm.lines() if line.kind == "G"]
        time.sleep(1)
        vmm = Vmm(exe, "--ticks", "merge", "--from", directory + "/b")
        vmm.reports(6)
        vmm.wait_for("verified")
        status, said = vmm.end()
        checks.check("moved smp: end", status == 0, "status %s, %s" % (status, said))
        after = [line for line in vmm.lines() if line.kind == "G"]
        check_move(checks, "moved smp", before, after)
        for n in (1, 2):
            good = [line for line in after
                    if line["apbegin"] <= line["tsc%d" % n] <= line["apend"]]
            checks.check("moved smp: TSC of vCPU %d is in step" % n,
                         len(good) >= len(after) - 1, "%d of %d" % (len(good), len(after)))
            ticks = after[-1]["nap%d" % n] - after[0]["nap%d" % n]
            span = Span(after[0], after[-1])
            checks.check("moved smp: LAPIC timer of vCPU %d" % n,
                         -max(3, 10 * span.ns / 1e9) <= ticks - 25 * span.ns / 1e9 <= 3,
                         "%d in %.3f s" % (ticks, span.ns / 1e9))


def run_frozen(checks, exe, elf):
    """A TSC that stands still over the gap has to be written; where that does not take, the
    VMM must say so and not go on."""
    with tempfile.TemporaryDirectory() as directory:
        vmm = Vmm(exe, elf, "hpet=25", "report=20")
        vmm.reports(15)
        before = save(vmm, directory)
        time.sleep(1)
        vmm = Vmm(exe, "--gap", "freeze", "--from", directory)
        try:
            after = vmm.reports(5)
        except RuntimeError:
            status, said = vmm.end()
            checks.check("frozen: refused by name", status == 3 and "tsc-not-honoured" in said,
                         "status %s: %s" % (status, said[-200:]))
            return
        gone = (after[-1]["hpet"] - before[-1]["hpet"]) / 1e8
        checks.check("frozen: the HPET stood", gone < 0.2 * len(after), "%.3f s" % gone)
        check_move(checks, "frozen", before, after)
        vmm.end()


def why_not():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return "/dev/kvm: %s" % error.strerror
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minivmm", required=True)
    parser.add_argument("--guest", required=True)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--only", help="one of the runs, by name")
    options = parser.parse_args()
    reason = why_not()
    if reason:
        print("skipped: %s" % reason)
        return 77
    checks = Checks(options.verbose)
    for run in (run_alone, run_legacy, run_smp, run_moved, run_moved_in_the_middle,
                run_moved_smp, run_frozen):
        if not options.only or run.__name__ == "run_" + options.only:
            run(checks, options.minivmm, options.guest)
    print("%d passed, %d failed" % (checks.n - checks.failed, checks.failed))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
