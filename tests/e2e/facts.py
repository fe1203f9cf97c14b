#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stock QEMU really does with a patched device tail: the source of
docs/qemu-carrier-facts.md.

    facts.py --guest guest.elf [--work DIR] [--accel tcg] [EXPERIMENT ...]

Every experiment boots the test guest, saves it stopped, patches the tail with
streampatch.py (never with the library), restores it, and says what the guest saw.
"""
import socket
import statistics
import sys
import time

import guest
import measure
import qemu
import streampatch
from measure import Saved

EXPERIMENTS = {}


def experiment(function):
    EXPERIMENTS[function.__name__] = function
    return function


def move_axis(image, ns):
    """The virtual clock and, under TCG, the TSC with it."""
    image.add("timer", "cpu_clock_offset", ns)
    image.add("timer", "cpu_ticks_offset", round(ns * qemu.tsc_hz() / 1e9))


def resume(saved, patch, lines=40, hold=0.0):
    """Patch a copy, load it paused, hold it, resume it, listen."""
    image = saved.image
    patch(image)
    path = saved.lab.path("patched.img")
    image.write(path)
    return measure.load(saved, path, lines, hold=hold)


# ---- where each timer's grid lies, by each device's own rule ----

def pit_grid(image):
    """(now, a grid point, period) of channel 0 in mode 2, on the axis.

    QEMU lowers the line there and raises it, which interrupts, one count later.
    """
    count = image.get("i8254", "channels[0].count")
    return (image.get("timer", "cpu_clock_offset"),
            image.get("i8254", "channels[0].count_load_time"), count * 1e9 / guest.PIT_HZ)


def lapic_grid(image):
    period = image.get("apic", "initial_count") + 1 << image.get("apic", "count_shift")
    return (image.get("timer", "cpu_clock_offset"),
            image.get("apic", "initial_count_load_time"), period)


def hpet_offset(image):
    offset = image.get("hpet", "hpet/offset:hpet_offset")
    return offset - (offset >> 63 << 64)


def hpet_grid(image):
    """In ticks of the counter."""
    now = (image.get("timer", "cpu_clock_offset") + hpet_offset(image)) // 10
    return now, image.get("hpet", "timer[0].cmp"), image.get("hpet", "timer[0].period")


def grid_point(grid, steps=0):
    """The first grid point after now, and steps further (-1: the last one up to now)."""
    now, base, period = grid
    return int(base + ((now - base) // period + 1 + steps) * period + 0.999999)


def set_pit(image, steps, up=0):
    """Rounded down, as QEMU does: it evaluates the output at this very instant, and one ns
    before the grid point the output is low. up=1 shows what rounding up does."""
    now, base, _ = pit_grid(image)
    count = image.get("i8254", "channels[0].count")
    k = (now - base) * guest.PIT_HZ // (count * 10**9) + 1 + steps
    when = base + k * count * 10**9 // guest.PIT_HZ + up
    image.set("i8254", "channels[0].next_transition_time", when)
    image.set("i8254", "channels[0].next_transition_time#1", when)


def set_lapic(image, steps):
    when = grid_point(lapic_grid(image), steps)
    image.set("apic", "next_time", when)
    image.set("apic", "timer_expiry", when)


def set_hpet(image, steps, comparator=True):
    """Comparator and expiry. A 32-bit comparator is compared with the low half alone."""
    when = grid_point(hpet_grid(image), steps)
    if comparator:
        is_32 = image.get("hpet", "timer[0].config") >> 8 & 1
        image.set("hpet", "timer[0].cmp", when & 0xffffffff if is_32 else when)
    image.set("hpet", "timer[0].qemu_timer", when * 10 - hpet_offset(image))


def set_hpet_expiry(image, steps):
    set_hpet(image, steps, comparator=False)


GRIDS = {"pit": pit_grid, "lapic": lapic_grid, "hpet": hpet_grid}
PLACES = {"pit": set_pit, "lapic": set_lapic, "hpet": set_hpet}
RATES = {"pit": guest.rate_of_pit, "lapic": lambda hz: 1e9 / (1000000000 // hz + 1),
         "hpet": lambda hz: hz, "rtc": lambda hz: hz}
HZ = 20			# slow enough that a busy host loses no tick of its own
TREATMENTS = {"left": None, "first after": 0, "one before": -1, "five before": -5}


def points_passed(source, before, after):
    """Grid points of the timer between now in one image and now in another."""
    (begin, base, period), (end, _, _) = GRIDS[source](before), GRIDS[source](after)
    return (end - base) // period - (begin - base) // period


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def quiet_pit(image):
    """The BIOS leaves channel 0 running at 18.2 Hz: keep it out of the other timers' way."""
    if image.get("i8254", "channels[0].next_transition_time") != -1:
        set_pit(image, 0)


def deliveries(lab, source, hz, append, seconds, treatments, place=None, **options):
    """Rows of ticks(): one guest, saved once, restored under each treatment."""
    saved = Saved(lab, append + " report=50", lines=100, **options)
    rate = RATES[source](hz)
    control = resume(saved, lambda image: None, lines=100).missing(source, rate)
    for move in seconds:
        for name, steps in treatments.items():
            moved = []

            def patch(image):
                move_axis(image, move * 10**9)
                moved.append(points_passed(source, saved.image, image))
                if source != "pit":
                    quiet_pit(image)
                if steps is not None:
                    (place or PLACES[source])(image, steps)
            seen = resume(saved, patch, lines=100)
            delivered = moved[0] - seen.missing(source, rate) + control
            row(append, move, name, "%.2f" % delivered, "%.1f" % (seen.cont_ns / 1e6))


@experiment
def ticks(lab):
    """Next expiry left, on the first grid point after, one before: what the guest counts."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    for source in PLACES:
        deliveries(lab, source, HZ, "%s=%d" % (source, HZ), (10, 3600), TREATMENTS)


@experiment
def pic(lab):
    """The PIT through the 8259s, whose edge detector was saved with the line high."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    deliveries(lab, "pit", HZ, "pit=%d pic=yes" % HZ, (10, 3600), TREATMENTS)
    print("\nrounded up, not down:\n")
    deliveries(lab, "pit", HZ, "pit=%d pic=yes" % HZ, (10,), {"first after": 0, "one before": -1},
               lambda image, steps: set_pit(image, steps, up=1))


@experiment
def hpet(lab):
    """The HPET's other ways: 32 bits, edge, legacy, and the expiry without the comparator."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    few = {"left": None, "first after": 0, "one before": -1}
    deliveries(lab, "hpet", HZ, "hpet=20 hpetbits=32", (10, 30, 3600), few)
    deliveries(lab, "hpet", HZ, "hpet=20 hpettype=edge", (10,), few)
    deliveries(lab, "hpet", HZ, "hpet=20 hpetmode=legacy", (10, 3600), few)
    print("\nqemu_timer alone, comparator left:\n")
    deliveries(lab, "hpet", HZ, "hpet=20", (10, 3600), few, set_hpet_expiry)
    deliveries(lab, "hpet", HZ, "hpet=20 hpetbits=32", (10, 3600), few, set_hpet_expiry)


@experiment
def oneshot(lab):
    """A one-shot LAPIC timer, re-armed in its handler: when it first fires after the resume.

    It has no grid: each firing sets the next. So the first stamp is what there is to see.
    """
    row("axis moved, s", "expiry", "due in, ms", "first interrupt after the resume, ms",
        "cont, ms")
    saved = Saved(lab, "lapic=%d lapicmode=oneshot report=50" % HZ)
    for move, name, beyond in ((0, "left", None), (10, "left", None), (3600, "left", None),
                               (3600, "put 20 ms after V'", 20 * 10**6)):
        due = []

        def patch(image):
            move_axis(image, move * 10**9)
            quiet_pit(image)
            now = image.get("timer", "cpu_clock_offset")
            if beyond:
                image.set("apic", "next_time", now + beyond)
                image.set("apic", "timer_expiry", now + beyond)
            due.append(image.get("apic", "timer_expiry") - now)
            due.append(image.get("timer", "cpu_ticks_offset"))
        seen = resume(saved, patch)
        first = min(line["zlapic"] for line in seen.after if line["zlapic"] > due[1])
        row(move, name, "%.2f" % (due[0] / 1e6),
            "%.2f" % ((first - due[1]) * 1e3 / qemu.tsc_hz()), "%.1f" % (seen.cont_ns / 1e6))


@experiment
def storm(lab):
    """What it costs to leave overdue expiries in place, at 1 kHz."""
    row("guest", "axis moved, s", "next expiry", "ticks delivered for the gap", "cont, ms")
    for source in PLACES:
        deliveries(lab, source, 1000, "%s=1000" % source, (60, 600, 3600),
                   {"left": None, "first after": 0})


# ---- the RTC ----

RTC_HZ = 64
RTC_PERIOD = 10**9 // RTC_HZ


def age_rtc(image, ns):
    """As if the image had been saved ns earlier: every instant on the host's clock."""
    for name in ("periodic_timer", "next_periodic_time", "last_update", "update_timer",
                 "next_alarm_time"):
        if image.get("mc146818rtc", name) not in (-1, 0):
            image.add("mc146818rtc", name, -ns)


def set_rtc(image, when, timer=True, field=True):
    """Next periodic interrupt: on the grid, at or after when (host ns)."""
    due = image.get("mc146818rtc", "next_periodic_time")
    due += max(0, -((due - when) // RTC_PERIOD)) * RTC_PERIOD
    if field:
        image.set("mc146818rtc", "next_periodic_time", due)
    if timer:
        image.set("mc146818rtc", "periodic_timer", due)


def rtc_row(lab, saved, name, patch, aged=0.0, hold=0.0, lines=160):
    """Ticks due from the STOP to the RESUME stamp, and delivered for them early and late."""
    hz = 32768 / saved.image.get("mc146818rtc", "period")

    def prepare(image):
        age_rtc(image, int(aged * 1e9))
        patch(image)
    seen = resume(saved, prepare, lines=lines, hold=hold)
    due = ((seen.resumed - saved.stop) / 1e9 + aged) * hz
    early, late = (due - seen.missing_by_host("rtc", hz, settled) - aged * hz
                   for settled in (False, True))
    row(name, "%.2f" % aged, "%.1f" % ((seen.resumed - saved.stop) / 1e9), "%.1f" % hold,
        saved.image.get("mc146818rtc", "irq_coalesced"),
        "%.2f" % due, "%.2f" % early, "%.2f" % late, "%.1f" % (seen.cont_ns / 1e6))


def rtc_rows(lab, rtc, cases):
    saved = Saved(lab, "rtc=%d report=20" % RTC_HZ, lines=40, rtc=rtc)
    print("\n-rtc %s: STOP to next_periodic_time in the image: %.1f ms\n" % (
        rtc, (saved.image.get("mc146818rtc", "next_periodic_time") - saved.stop) / 1e6))
    row("patch", "aged by, s", "STOP to RESUME, s", "held paused, s", "irq_coalesced saved",
        "due", "delivered at once", "delivered in the end", "cont, ms")
    for case in cases:
        rtc_row(lab, saved, *case)


@experiment
def rtc_host(lab):
    """RTC on the host's clock: what each age, and each patch, delivers."""
    def none(image):
        pass

    def owe(n):
        def patch(image):
            set_rtc(image, qemu.now().real + 300 * 10**6)
            image.add("mc146818rtc", "irq_coalesced", n)
        return patch

    def future(ns, **which):
        return lambda image: set_rtc(image, qemu.now().real + ns, **which)
    soon = 300 * 10**6
    def behind(seconds, n):
        """The grid point before now - seconds, and n owed."""
        def patch(image):
            set_rtc(image, qemu.now().real - int(seconds * 1e9) - RTC_PERIOD)
            image.add("mc146818rtc", "irq_coalesced", n)
        return patch
    cases = [("none", none), ("none", none, 5), ("none", none, 50), ("none", none, 70),
             ("none", none, 3600),
             ("none", none, 5, 3.0),
             ("both on the grid, 0.3 s ahead", future(soon), 3600),
             ("the same", future(soon), 3600, 3.0),
             ("next_periodic_time alone ahead", future(soon, timer=False), 5),
             ("periodic_timer alone ahead", future(soon, field=False), 5),
             ("both on the grid, just before now", behind(0, 0), 3600),
             ("both on the grid, 10 s before now", behind(10, 0), 3600)]
    owing = [("ahead, irq_coalesced + 100", owe(100), 3600),
             ("ahead, irq_coalesced + 1000", owe(1000), 3600),
             ("just before now, irq_coalesced + 100", behind(0, 100), 3600),
             ("10 s before now, irq_coalesced + 100", behind(10, 100), 3600),
             ("1 h before now, irq_coalesced + 100", behind(3600, 100), 3600)]
    rtc_rows(lab, "base=utc,driftfix=slew", cases[lab.skip:] + owing)
    rtc_rows(lab, "base=utc", cases[lab.skip:])


@experiment
def rtc_vm(lab):
    """RTC on the axis: left, and put on its grid."""
    def left(image):
        pass

    def put(steps, owed=0):
        def patch(image):
            due = image.get("mc146818rtc", "next_periodic_time")
            when = grid_point((image.get("timer", "cpu_clock_offset"), due, RTC_PERIOD), steps)
            image.set("mc146818rtc", "next_periodic_time", when)
            image.set("mc146818rtc", "periodic_timer", when)
            image.add("mc146818rtc", "irq_coalesced", owed)
        return patch
    cases = [(10, "left", left), (10, "first after", put(0)), (10, "one before", put(-1)),
             (10, "first after, irq_coalesced + 100", put(0, 100)),
             (10, "one before, irq_coalesced + 100", put(-1, 100)),
             (3600, "left", left), (3600, "one before, irq_coalesced + 100", put(-1, 100))]
    for drift in ("slew", "none"):
        saved = Saved(lab, "rtc=%d report=20" % RTC_HZ, lines=60,
                      rtc="clock=vm,driftfix=" + drift)
        hz = 32768 / saved.image.get("mc146818rtc", "period")
        print("\n-rtc clock=vm,driftfix=%s\n" % drift)
        row("axis moved, s", "next expiry", "due", "delivered at once",
            "delivered in the end (after 8 s)", "cont, ms")
        for move, name, patch in [(0, "left", left)] + cases:
            def prepare(image):
                move_axis(image, move * 10**9)
                quiet_pit(image)
                patch(image)
            seen = resume(saved, prepare, lines=160)
            early, late = (move * hz - seen.missing("rtc", hz, settled)
                           for settled in (False, True))
            row(move, name, "%.2f" % (move * hz), "%.2f" % early, "%.2f" % late,
                "%.1f" % (seen.cont_ns / 1e6))


@experiment
def rtc_stopped(lab):
    """A stopped guest with the RTC on the host's clock: do its ticks go on being counted?"""
    for drift in ("slew", "none"):
        options = dict(lab.options, kernel=lab.guest, append="rtc=64 report=20",
                       rtc="base=utc,driftfix=" + drift)
        with qemu.Qemu(lab.work, **options) as emulator:
            guest.reports(emulator, 20)
            stop = emulator.stop()
            time.sleep(3)
            path = lab.path("stopped.img")
            emulator.qmp.cmd("migrate", uri="exec:cat > '%s'" % path)
            emulator.migrated(0, "save")
            image = streampatch.read(path)
            print("driftfix=%s: saved 3 s after the stop: irq_coalesced %d, next_periodic_time "
              "%.3f s after the STOP stamp, C=%02x" % (
                  drift, image.get("mc146818rtc", "irq_coalesced"),
                  (image.get("mc146818rtc", "next_periodic_time") - stop) / 1e9,
                  image.get("mc146818rtc", "cmos_data")[12]))


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
        at_stop = saved.image.get("timer", "cpu_clock_offset") + hpet_offset(saved.image)
        real_minus_raw = statistics.median(line.stamp.real - line.stamp.raw
                                           for line in saved.before)
        clock = guest.clocks(saved.before[0])["hpet"]
        stood = at_stop + guest.offset(clock, saved.before).ns + real_minus_raw
        seen = resume(saved, lambda image: None, lines=60)
        ran = at_stop + guest.offset(clock, seen.after).ns + real_minus_raw
        row("%.1f" % ((saved.stop - stood) / 1e3), "%.1f" % ((ran - seen.resumed) / 1e3))


def load_held(lab, saved, path, hold):
    """Send all but the last byte, wait, send it: ns from there to the end of the load."""
    address = lab.path("incoming")
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


@experiment
def icount(lab):
    """A guest under -icount: which field moves it, and whether it then keeps its pace."""
    move = 10 * 10**9
    for mode in ("shift=auto", "shift=7,sleep=on"):
        saved = Saved(lab, "pit=100 report=10", lines=60, extra=("-icount", mode))
        print("\n-icount %s\n" % mode)
        row("fields + 10 s", "TSC, s", "HPET, s", "reports in 9 s",
            "TSC against real time after it")
        for names in ((), ("cpu_clock_offset",), ("timer/icount:qemu_icount_bias",),
                      ("cpu_clock_offset", "timer/icount:qemu_icount_bias")):
            image = saved.image
            for name in names:
                image.add("timer", name, move)
            image.write(lab.path("patched.img"))
            with qemu.Qemu(lab.work, incoming=True, **saved.options) as emulator:
                emulator.load(lab.path("patched.img"))
                emulator.cont()
                time.sleep(9)
                after = guest.reports(emulator)
            first, last, before = after[0], after[-1], saved.before[-1]
            rate = "-" if last is first else "%.2f" % (
                (last["t0"] - first["t0"]) / (last.stamp.raw - first.stamp.raw))
            row(" and ".join(names) or "none", "%.3f" % ((first["t0"] - before["t0"]) / 1e9),
                "%.3f" % ((first["hpet"] - before["hpet"]) / 1e8), len(after), rate)


def add_arguments(parser):
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--skip", type=int, default=0, help="of the cases of rtc_host")
    parser.add_argument("experiment", nargs="*", metavar="EXPERIMENT",
                        help=", ".join(EXPERIMENTS))


def body(lab):
    lab.repeat, lab.skip = lab.args.repeat, lab.args.skip
    for name in lab.args.experiment or EXPERIMENTS:
        print("\n### %s: %s\n" % (name, EXPERIMENTS[name].__doc__.split("\n")[0]))
        EXPERIMENTS[name](lab)


if __name__ == "__main__":
    sys.exit(measure.Lab(__doc__.split("\n")[0], add_arguments).main(body))
