#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every value that `guestclock inspect` prints, against three other readings.

    bytes     tests/e2e/reading.py works out from the image's bytes what each clock says;
              the answer's state, its source fields and the table of the text must agree
    QEMU      an emulator that holds the image stopped at its instant is asked for its
              registers: PIT, HPET, RTC, PM timer, local APIC
    guest     what the guest itself read last, and when the host saw it stop

    test_inspect.py --guest guest.elf --guestclock guestclock [--only WORD] [--keep DIRECTORY]
"""
import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import guest
import qemu
import reading
import streampatch
import tally

ZONE = "XST-5:45"		# east of Greenwich, and not by whole hours
TIMERS = "pit=100 rtc=64 hpet=50 lapic=100 report=50"
SLEW = "base=localtime,clock=vm,driftfix=slew"
DEVICES = ["-device", "i6300esb", "-device", "ib700", "-device", "e1000e", "-device",
           "qemu-xhci", "-device", "ich9-usb-ehci1,id=ehci", "-device", "usb-tablet,bus=ehci.0"]


class Case:
    def __init__(self, name, append=TIMERS, ask=False, live=False, rare=False, over=False,
                 **options):
        self.name, self.append, self.ask, self.live = name, append, ask, live
        self.rare = rare		# not every machine can start it
        self.over = over		# saved over an older file, whose birth it keeps
        self.options = dict({"accel": "tcg", "machine": "pc", "smp": 1, "hpet": True,
                             "rtc": "base=utc"}, **options)

    @property
    def rtc_clock(self):
        match = re.search("clock=(vm|rt|host)", self.options["rtc"])
        return match.group(1) if match else "host"

    @property
    def accel(self):
        return self.options["accel"].partition(",")[0]


def matrix():
    """pc and q35, TCG and KVM, 1 and 4 vCPUs, HPET on and off; the RTC's options in turn."""
    clocks = ["base=utc", "base=localtime", "base=utc,clock=vm", "base=utc,driftfix=slew", SLEW]
    n = 0
    for accel in ("tcg", "kvm"):
        for machine in ("pc", "q35"):
            for smp in (1, 4):
                for hpet in (True, False):
                    rtc = clocks[n % len(clocks)]
                    yield Case("%s %s %d vCPU%s hpet %s -rtc %s" %
                               (accel, machine, smp, "s" if smp > 1 else "",
                                "on" if hpet else "off", rtc),
                               TIMERS + (" smp=%d" % smp if smp > 1 else ""), n in (0, 4, 7, 9, 12),
                               accel=accel, machine=machine, smp=smp, hpet=hpet, rtc=rtc)
                    n += 1


def known_wrong():
    """Read wrongly so far: only when asked for by name."""
    yield Case("tcg q35, -icount", "pit=100 lapic=100 report=50", True,
               accel="tcg,thread=single", machine="q35", extra=["-icount", "shift=3,sleep=off"])


def others():
    yield Case("tcg pc, all RTC options", rtc=SLEW, ask=True)
    yield Case("kvm q35, all RTC options", rtc=SLEW, ask=True, accel="kvm", machine="q35")
    yield Case("tcg pc, -rtc clock=rt", rtc="base=utc,clock=rt")
    yield Case("tcg pc, the firmware alone", None, True)
    yield Case("kvm q35, the firmware alone", None, accel="kvm", machine="q35")
    yield Case("tcg q35, watchdogs, network, USB", "watchdog=60 pet=yes " + TIMERS,
               machine="q35", extra=DEVICES)
    yield Case("kvm pc, watchdogs, network, USB", "watchdog=60 " + TIMERS, accel="kvm",
               extra=DEVICES)
    yield Case("tcg pc, the firmware with USB", None, extra=DEVICES)
    yield Case("tcg pc, HPET legacy, alarm and update interrupts",
               "hpet=100 hpetmode=legacy pit=100 edge=irq report=50", True)
    yield Case("tcg pc, one-shot", "lapic=100 lapicmode=oneshot report=50", True)
    yield Case("kvm pc, TSC deadline", "lapic=20 lapicmode=deadline report=50", accel="kvm")
    yield Case("kvm pc, Hyper-V", TIMERS, rare=True, accel="kvm",
               cpu="host,hv-time,hv-synic,hv-stimer,hv-vpindex,hv-runtime,hv-frequencies")
    yield Case("tcg pc, a frequency given", cpu="qemu64,tsc-frequency=2000000000")
    yield Case("tcg pc, saved while it ran", live=True)
    yield Case("tcg pc, over an older image", over=True)
    yield Case("tcg pc 4.2", "pit=100 report=50", machine="pc-i440fx-4.2")


def gone(accel):
    """Why that accelerator cannot be used; None: it can."""
    try:
        qemu.available(accel)
        with qemu.Qemu(None, accel=accel, paused=True):
            return None
    except (qemu.Skip, qemu.QmpError) as reason:
        return str(reason).split("\n")[-1]


def started(lab, case, options):
    try:
        return qemu.Qemu(lab.work, **options)
    except qemu.QmpError as error:
        if case.rare:
            raise qemu.Skip("this machine cannot start it: %s" % str(error).split("\n")[-1])
        raise


class Saved:
    """A guest in a file, and what only its starter knows."""

    def __init__(self, lab, case):
        self.path = os.path.join(lab.work, "older.img" if case.over else "saved.img")
        if case.over:
            with open(self.path, "wb") as older:
                older.write(bytes(1 << 16))
        options = dict(case.options)
        if case.append is not None:
            options.update(kernel=lab.guest, append=case.append)
        if os.path.exists(self.path) and not case.over:
            os.unlink(self.path)		# a file of its own has a birth of its own
        with started(lab, case, options) as emulator:
            if case.append is None:
                time.sleep(0.7)
            else:
                guest.reports(emulator, 12, 60)
            self.stop = emulator.save(self.path, case.live)
            self.lines = [line for line in guest.parse(emulator.serial.take())
                          if line.kind == "G"]
        self.facts = {"accel": case.accel, "mib": 16, "rtc_clock": case.rtc_clock}
        match = re.search("shift=([0-9]+)", " ".join(options.get("extra", ())))
        if match:
            self.facts["icount_shift"] = int(match.group(1))
        self.options = options
        self.image = streampatch.read(self.path)


class Asked:
    """A stock emulator that stands at the instant of the image; its registers."""

    def __init__(self, lab, saved):
        path = os.path.join(lab.work, "qtest")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(30)
            options = dict(saved.options)
            options["extra"] = list(options.get("extra", ())) + \
                ["-qtest", "unix:" + path, "-qtest-log", "/dev/null"]
            self.emulator = qemu.Qemu(lab.work, incoming=True, **options)
            self.sock = listener.accept()[0]
        os.unlink(path)
        self.lines = self.sock.makefile("r")
        self.emulator.load(saved.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.lines.close()
        self.sock.close()
        self.emulator.close()

    def command(self, line):
        self.sock.sendall(line.encode() + b"\n")
        while True:
            words = self.lines.readline().split()
            if not words or words[0] == "FAIL":
                raise qemu.QmpError("qtest %s: %s" % (line, " ".join(words)))
            if words[0] == "OK":
                return int(words[1], 0) if len(words) > 1 else None

    def latched(self, channel):
        self.command("outb 0x43 0x%x" % (channel << 6))
        low = self.command("inb 0x%x" % (0x40 + channel))
        return low | self.command("inb 0x%x" % (0x40 + channel)) << 8

    def cmos(self, i):
        self.command("outb 0x70 0x%x" % i)
        return self.command("inb 0x71")

    def rtc_seconds(self):
        """The time of the registers; they are BCD."""
        text = "".join("%02x" % self.cmos(i) for i in (0x32, 9, 8, 7, 4, 2, 0))
        return guest.rtc_seconds(int(text, 16))

    def lapic_count(self):
        """What HMP says of the first processor's timer."""
        text = self.emulator.qmp.hmp("info lapic 0")
        return int(re.search(r"current_count = (\d+)", text).group(1))


class Lab:
    def __init__(self, args, work):
        self.work, self.guest, self.command = work, args.guest, args.guestclock
        self.keep = args.keep
        self.t = tally.Tally()
        self.env = dict(os.environ, NO_COLOR="1", LC_ALL="C")

    def run(self, *arguments):
        done = subprocess.run([self.command] + list(arguments), env=self.env, text=True,
                              capture_output=True, timeout=120)
        if done.returncode:
            raise qemu.QmpError("exit %d: %s" % (done.returncode, done.stderr.strip()))
        return done.stdout

    def inspect(self, saved):
        """(answer, table of the text). The capture is estimated: the reading needs it too."""
        answer = json.loads(self.run("inspect", "--json", saved.path))
        captured = answer["captured"]["realtime_ns"]
        if captured is not None:
            saved.facts["captured_ns"] = int(captured)
            saved.facts["captured_coarse"] = answer["captured"]["uncertainty_ns"] is None
        return answer, reading.table_of(self.run("inspect", saved.path))


def check_bytes(t, name, saved, answer, table):
    expected = reading.expected_state(saved.image, saved.facts)
    found = reading.numbers(answer["state"])
    t.differences(name + ": state", reading.differences(expected, found))
    wrong, n = reading.source_differences(saved.image, answer["source"])
    t.differences(name + ": source fields", wrong, "%d" % n)
    t.differences(name + ": table", reading.row_differences(
        reading.expected_rows(saved.image, saved.facts), table), "%d rows" % len(table))


def check_captured(t, name, saved, answer):
    """The bound on the stop is true."""
    captured = answer["captured"]
    if captured["basis"] == "none":
        t.check(name + ": captured", captured["realtime_ns"] is None, "nothing tells when")
        return
    if captured["uncertainty_ns"] is None:
        t.check(name + ": captured", int(captured["realtime_ns"]) + 10**9 >= saved.stop,
                "an upper limit, by " + captured["basis"])
        return
    error = int(captured["realtime_ns"]) - saved.stop
    t.check(name + ": captured", abs(error) <= int(captured["uncertainty_ns"]),
            "%s is off by %+.1f of %.1f ms" % (captured["basis"], error / 1e6,
                                               int(captured["uncertainty_ns"]) / 1e6))


def check_guest(t, name, saved, answer):
    """The TSC at the stop is not before the guest's last reading, nor long after it."""
    last = saved.lines[-1]["t9"]
    tsc = int(answer["state"]["tsc"][0]["value_ticks"])
    hz = 1e9 if "icount_shift" in saved.facts else qemu.tsc_hz()
    ahead = (tsc - last) / hz
    t.check(name + ": TSC goes on from the guest's last reading", 0 <= ahead <= 0.5,
            "%.3f ms later" % (ahead * 1e3))


def check_wall(t, case, saved, answer):
    """An RTC on the host's clock shows the host's time, in its zone."""
    rtc = reading.numbers(answer["state"]["rtc"])
    zone_s = reading.local_offset_s() if "localtime" in case.options["rtc"] else 0
    shows = rtc["base_s"] * 10**9 + saved.stop - rtc["base_at_ns"] + rtc["offset_ns"]
    error = shows - zone_s * 10**9 - saved.stop
    t.check(case.name + ": RTC is the host's clock", abs(error) <= 1.1e9,
            "%+.3f s%s" % (error / 1e9, ", %d s east" % zone_s if zone_s else ""))


def number_of(text):
    return int(re.match(r"[0-9 ]+", text).group(0).replace(" ", ""))


def check_asked(t, name, saved, answer, table, asked):
    """QEMU's registers at the instant of the image."""
    state = reading.numbers(answer["state"])
    in_kernel = state["guest"]["accelerator"] == "kvm"
    for n in () if in_kernel else (0, 2):
        channel = state["pit"]["channels"][n]
        if channel["rw_mode"] == "word" and not channel["count_latched"]:
            count = asked.latched(n)
            shown = number_of(table["pit[%d]" % n][0])
            t.check("%s: QEMU's PIT %d" % (name, n), count == shown & 0xffff,
                    "%d, inspect %d" % (count, shown))
    if "hpet" in state:
        base = 0xfed00000
        counter = asked.command("readq 0x%x" % (base + 0xf0))
        t.check(name + ": QEMU's HPET", counter == number_of(table["hpet"][0]),
                "%d, inspect %s" % (counter, table["hpet"][0]))
        registers = [(asked.command("readq 0x%x" % (base + 0x100 + 0x20 * n)),
                      asked.command("readq 0x%x" % (base + 0x108 + 0x20 * n)))
                     for n in range(len(state["hpet"]["timers"]))]
        said = [(timer["config"], timer["comparator_ticks"]) for timer in state["hpet"]["timers"]]
        t.check(name + ": QEMU's HPET timers", registers == said, repr(registers[0]))
    ticks = asked.command("inl 0x608") & 0xffffff
    t.check(name + ": QEMU's PM timer", ticks == number_of(table["pm_timer"][0]),
            "%d, inspect %s" % (ticks, table["pm_timer"][0]))
    if not in_kernel and state["lapic"][0]["initial_count"]:
        count = asked.lapic_count()
        t.check(name + ": QEMU's LAPIC", count == number_of(table["lapic[0]"][0]),
                "%d, inspect %s" % (count, table["lapic[0]"][0]))
    check_asked_rtc(t, name, state["rtc"], asked)


def check_asked_rtc(t, name, rtc, asked):
    """On the host's clock it goes on while it is read: so does what is expected."""
    ns = [rtc["base_s"] * 10**9 + now - rtc["base_at_ns"] + rtc["offset_ns"] for now in
          (rtc_clock_now(rtc, asked), )]
    seconds = asked.rtc_seconds()
    ns.append(rtc["base_s"] * 10**9 + rtc_clock_now(rtc, asked) - rtc["base_at_ns"] +
              rtc["offset_ns"])
    t.check(name + ": QEMU's RTC", ns[0] // 10**9 <= seconds <= ns[1] // 10**9,
            "%d, expected %d..%d" % (seconds, ns[0] // 10**9, ns[1] // 10**9))


def rtc_clock_now(rtc, asked):
    if rtc["axis"] == "guest":
        return asked.axis
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def check(lab, case):
    saved = Saved(lab, case)
    if lab.keep:
        shutil.copy(saved.path, os.path.join(lab.keep, re.sub(r"\W+", "-", case.name) + ".img"))
    answer, table = lab.inspect(saved)
    check_bytes(lab.t, case.name, saved, answer, table)
    lab.t.check(case.name + ": run state", answer["state"]["guest"]["run_state"] ==
                ("running" if case.live else "paused"))
    check_captured(lab.t, case.name, saved, answer)
    if case.rtc_clock == "host":
        check_wall(lab.t, case, saved, answer)
    if saved.lines:
        check_guest(lab.t, case.name, saved, answer)
    if case.ask:
        with Asked(lab, saved) as asked:
            asked.axis = reading.Guest(saved.image, saved.facts).axis
            check_asked(lab.t, case.name, saved, answer, table, asked)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"))
    parser.add_argument("--guestclock", default=os.environ.get("GCLK_COMMAND"))
    parser.add_argument("--work", default=os.environ.get("GCLK_WORK"))
    parser.add_argument("--only", metavar="WORD", help="cases with that in their name")
    parser.add_argument("--keep", metavar="DIRECTORY", help="leave the images there")
    return parser.parse_args()


def chosen(word):
    cases = list(matrix()) + list(others())
    if word:
        return [case for case in cases + list(known_wrong()) if word in case.name]
    return cases


def main():
    args = arguments()
    reason = gone("tcg")
    if reason:
        return tally.skip_all(reason)
    if not args.guest or not os.path.exists(args.guest):
        return tally.skip_all("no test guest (--guest): the compiler may lack -m32")
    os.environ["TZ"] = ZONE
    time.tzset()
    no_kvm = gone("kvm")
    with tempfile.TemporaryDirectory(prefix="gclk-", dir=args.work) as work:
        lab = Lab(args, work)
        for case in chosen(args.only):
            if case.accel == "kvm" and no_kvm:
                lab.t.skip(case.name, no_kvm)
                continue
            try:
                check(lab, case)
            except qemu.Skip as reason:
                lab.t.skip(case.name, reason)
            except (qemu.QmpError, streampatch.Malformed, KeyError) as error:
                lab.t.check(case.name + " runs", False, repr(error))
        return lab.t.end()


if __name__ == "__main__":
    sys.exit(main())
