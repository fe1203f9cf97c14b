#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stock QEMU really does with a patched device tail: the source of
docs/qemu-carrier-facts.md.

    facts.py --guest guest.elf [--work DIR] [--accel tcg] [EXPERIMENT ...]

Every experiment boots the test guest, saves it stopped, patches the tail with
streampatch.py (never with the library), restores it, and says what the guest saw.
"""
import argparse
import os
import socket
import statistics
import sys
import tempfile
import time

import guest
import qemu
import streampatch

EXPERIMENTS = {}


def experiment(function):
    EXPERIMENTS[function.__name__] = function
    return function


class Saved:
    """A stopped guest in a file, with what it said before."""

    def __init__(self, lab, append, lines=60, **options):
        self.lab = lab
        self.options = dict(lab.options, kernel=lab.guest, append=append, **options)
        self.path = os.path.join(lab.work, "saved.img")
        with qemu.Qemu(lab.work, **self.options) as emulator:
            guest.reports(emulator, lines)
            self.stop = emulator.save(self.path)
            self.before = [line for line in guest.parse(emulator.serial.take())
                           if line.kind == "G"][5:]
        self.image = streampatch.read(self.path)

    def virtual(self):
        return self.image.get("timer", "cpu_clock_offset")


class Outcome:
    def __init__(self, saved, after, resumed, cont_ns):
        self.saved, self.after, self.resumed, self.cont_ns = saved, after, resumed, cont_ns

    def delivered(self, source, hz, moved_ns, settled=False):
        """Ticks that came for the span by which the axis was moved."""
        return moved_ns * hz / 1e9 - guest.missing(self.saved.before, self.after, source, hz,
                                                   settled=settled)


def move_axis(image, ns):
    """The virtual clock and, under TCG, the TSC with it."""
    image.add("timer", "cpu_clock_offset", ns)
    image.add("timer", "cpu_ticks_offset", round(ns * qemu.tsc_hz() / 1e9))


def resume(saved, patch, lines=40, hold=0.0, timeout=60):
    """Patch a copy, load it paused, hold it, resume it, listen."""
    image = streampatch.read(saved.path)
    patch(image)
    path = os.path.join(saved.lab.work, "patched.img")
    image.write(path)
    with qemu.Qemu(saved.lab.work, incoming=True, **saved.options) as emulator:
        emulator.load(path)
        time.sleep(hold)
        resumed, cont_ns = emulator.cont()
        return Outcome(saved, guest.reports(emulator, lines, timeout), resumed, cont_ns)


# ---- where each timer's grid lies, by each device's own rule ----

def pit_grid(image):
    """(a falling edge on the grid, period) of channel 0 in mode 2; it rises 1 count later."""
    count = image.get("i8254", "channels[0].count")
    return image.get("i8254", "channels[0].count_load_time"), count * 1e9 / guest.PIT_HZ


def lapic_grid(image):
    shift = image.get("apic", "count_shift")
    period = (image.get("apic", "initial_count") + 1) << shift
    return image.get("apic", "initial_count_load_time"), period


def hpet_grid(image):
    period = image.get("hpet", "timer[0].period")
    return image.get("hpet", "timer[0].cmp"), period


def grid_after(base, period, t, steps=0):
    """The first grid point after t, and steps further (-1: the last one up to t)."""
    return int(base + ((t - base) // period + 1 + steps) * period + 0.999999)


def set_pit(image, steps):
    base, period = pit_grid(image)
    when = grid_after(base, period, image.get("timer", "cpu_clock_offset"), steps)
    image.set("i8254", "channels[0].next_transition_time", when)
    image.set("i8254", "channels[0].next_transition_time#2", when)


def set_lapic(image, steps):
    base, period = lapic_grid(image)
    when = grid_after(base, period, image.get("timer", "cpu_clock_offset"), steps)
    image.set("apic", "next_time", when)
    image.set("apic", "timer_expiry", when)


def set_hpet(image, steps, comparator=True):
    """Comparator and expiry: the comparator counts 10 ns, offset from the virtual clock."""
    base, period = hpet_grid(image)
    offset = image.get("hpet", "hpet/offset:hpet_offset")
    offset -= (offset >> 63) << 64
    now = (image.get("timer", "cpu_clock_offset") + offset) // 10
    when = grid_after(base, period, now, steps)
    if comparator:
        image.set("hpet", "timer[0].cmp", when)
    image.set("hpet", "timer[0].qemu_timer", when * 10 - offset)


TIMERS = {
    "pit": (set_pit, guest.rate_of_pit),
    "lapic": (set_lapic, lambda hz: 1e9 / (1000000000 // hz + 1)),
    "hpet": (set_hpet, lambda hz: hz),
}
TREATMENTS = {"left": None, "first after": 0, "one before": -1, "five before": -5}


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def quiet_pit(image):
    """The BIOS leaves channel 0 running at 18.2 Hz: keep it out of the other timers' way."""
    if image.get("i8254", "channels[0].next_transition_time") != -1:
        set_pit(image, 0)


def deliveries(lab, source, hz, append, seconds, treatments, **options):
    """Rows of ticks(): one guest, saved once, restored under each treatment."""
    place, rate = TIMERS[source]
    saved = Saved(lab, append + " report=50", lines=100, **options)
    for move in seconds:
        for name, steps in treatments.items():
            def patch(image):
                move_axis(image, move * 10**9)
                if source != "pit":
                    quiet_pit(image)
                if steps is not None:
                    place(image, steps)
            seen = resume(saved, patch, lines=100)
            row(append, move, name, "%.3f" % seen.delivered(source, rate(hz), move * 1e9),
                "%.1f" % (seen.cont_ns / 1e6))


@experiment
def ticks(lab):
    """Next expiry left, on the first grid point after, one before: what the guest counts."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    for source in TIMERS:
        deliveries(lab, source, 100, "%s=100" % source, (10, 3600), TREATMENTS)
    deliveries(lab, "hpet", 100, "hpet=100 hpetbits=32", (10, 3600), TREATMENTS)
    deliveries(lab, "hpet", 100, "hpet=100 hpettype=edge", (10,), TREATMENTS)
    deliveries(lab, "hpet", 100, "hpet=100 hpetmode=legacy", (10,), TREATMENTS)


@experiment
def storm(lab):
    """What it costs to leave overdue expiries in place, at 1 kHz."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    for source in TIMERS:
        deliveries(lab, source, 1000, "%s=1000" % source, (60, 600, 3600),
                   {"left": None, "first after": 0})


@experiment
def axis(lab):
    """What each clock of the guest reads when only the axis is moved, by seconds."""
    saved = Saved(lab, "report=50 edge=irq", lines=150)
    row("moved, s", "clock", "read beyond the move, us", "sure to, us")
    for seconds in (0, 10, 3600):
        seen = resume(saved, lambda image: move_axis(image, seconds * 10**9), lines=150)
        away = seen.resumed - saved.stop
        for name, (error, wide) in guest.errors(saved.before, seen.after,
                                                seconds * 1e9 - away).items():
            expected = 0 if name == "rtc" else seconds * 1e9 - away
            row(seconds, name, "%.1f" % ((error - expected) / 1e3), "%.1f" % (wide / 1e3))


@experiment
def stamps(lab):
    """STOP and RESUME stamps against the instants at which the virtual clock stood and ran."""
    row("clock stood before the STOP stamp, us", "clock ran after the RESUME stamp, us")

    for _ in range(lab.repeat):
        saved = Saved(lab, "report=50", lines=60)
        offset = saved.image.get("hpet", "hpet/offset:hpet_offset")
        offset -= (offset >> 63) << 64
        at_stop = saved.virtual() + offset
        real_minus_raw = statistics.median(line.stamp.real - line.stamp.raw
                                           for line in saved.before)
        clock = guest.clocks(saved.before[0])["hpet"]
        stood = at_stop + guest.offset(clock, saved.before).ns + real_minus_raw
        seen = resume(saved, lambda image: None, lines=60)
        ran = at_stop + guest.offset(clock, seen.after).ns + real_minus_raw
        row("%.1f" % ((saved.stop - stood) / 1e3), "%.1f" % ((ran - seen.resumed) / 1e3))


def load_held(lab, saved, path, hold):
    """Send all but the last byte, wait, send it: ns from there to the end of the load."""
    address = os.path.join(lab.work, "incoming")
    with open(path, "rb") as stream:
        data = stream.read()
    with qemu.Qemu(lab.work, incoming=True, **saved.options) as emulator:
        emulator.qmp.cmd("migrate-incoming", uri="unix:" + address)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address)
            sock.sendall(data[:-1])
            time.sleep(hold)
            early = [event for event in emulator.qmp.events if event["event"] == "MIGRATION"
                     and event["data"]["status"] == "completed"]
            sent = qemu.now()
            sock.sendall(data[-1:])
            event = emulator.qmp.event("MIGRATION", 0, 60,
                                       lambda e: e["data"]["status"] == "completed")[1]
        resumed, cont_ns = emulator.cont()
        return bool(early), event["real"] - sent.real, resumed - sent.real, cont_ns


@experiment
def gate(lab):
    """From the last byte of the vmdesc to the end of the load."""
    saved = Saved(lab, "report=20", lines=10)
    row("done before the byte", "byte to `completed`, ms", "byte to RESUME, ms", "cont, ms")
    for _ in range(lab.repeat):
        early, load, run, cont_ns = load_held(lab, saved, saved.path, 1.0)
        row(early, "%.2f" % (load / 1e6), "%.2f" % (run / 1e6), "%.2f" % (cont_ns / 1e6))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"))
    parser.add_argument("--work", default=os.environ.get("GCLK_WORK"))
    parser.add_argument("--accel", default="tcg")
    parser.add_argument("--machine", default="pc")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--source", dest="sources", action="append")
    parser.add_argument("experiment", nargs="*", metavar="EXPERIMENT",
                        help=", ".join(EXPERIMENTS))
    lab = parser.parse_args()
    lab.options = {"accel": lab.accel, "machine": lab.machine}
    try:
        qemu.available(lab.accel)
    except qemu.Skip as reason:
        print("skipped: %s" % reason)
        return 77
    with tempfile.TemporaryDirectory(prefix="facts-", dir=lab.work) as lab.work:
        for name in lab.experiment or EXPERIMENTS:
            print("\n### %s: %s\n" % (name, EXPERIMENTS[name].__doc__.split("\n")[0]))
            EXPERIMENTS[name](lab)
    return 0


if __name__ == "__main__":
    sys.exit(main())
