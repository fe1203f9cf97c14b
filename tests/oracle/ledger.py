#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether the ledger is true: what a guest misses in a gap, against what it would have had.

    ledger.py --rom ROM --replay LEDGER [--group NAME]... [--cases N] [--per-boot N]
              [--ends N] [--seed N] [--boot N]

A guest on stock QEMU programs its timers at random, in warped virtual time. At a random
instant it is stopped and its state saved; then the same machine goes on, through what would
have been the gap, and its handlers acknowledge and count every interrupt. The library
computes the ledger for that state and that gap (ledger.c): for each timer `missed` must be
what the guest has counted, for every end of the gap that is asked about.

Exit status: 0 all agree, 1 a mismatch, 77 there is no QEMU to ask.
"""
import random
import subprocess
import sys
import tempfile
import time

import oracle
from oracle import streampatch

S = oracle.S
ENTRY_NS = 4            # from taking an interrupt to its stamp, in rom.S
LATE_NS = 1000          # handlers wait for others, and for accesses
PAIR_NS = 1000          # of two interrupts so near that they are one expiry: see expiries()
GAP_MAX = 10 * S
END_OF_GAP = 1 << 16


class Script(oracle.Script):
    """Waits by executing: an alarm of its own would be one timer more."""

    def wait(self, ns):
        self.ops.append((oracle.OP_WAIT, 0, 1, 0, max(1, min(int(ns), GAP_MAX))))

    def capture(self, number):
        self.ops.append((oracle.OP_CAPTURE, 0, 0, 0, number))


# ---- timers that run: (the shortest period in ns; gaps are a thousand of it at most) ----

class Pit(oracle.Pit):
    header = {"irqs": 1}

    def arm(self, s):
        mode = self.rng.choice([0, 2, 2, 2, 3, 3, 3, 4])
        self.count = max(5, self.number())
        s.out8(0x43, 0x30 | mode << 1)
        s.out8(0x40, self.count & 0xff)
        s.out8(0x40, self.count >> 8)
        self.state = 3

    def period(self):
        return self.count * 838


class Rtc(oracle.Rtc):
    header = {"irqs": 0x100, "acks_rtc": 1}

    def arm(self, s):
        self.a = 0x20 | self.rng.randint(1, 15)
        self.b = 0x42 | self.rng.choice([0, 0, 0x10, 0x20, 0x30, 4])
        self.put(s, 10, self.a)
        self.put(s, 11, self.b)

    def period(self):
        rate = self.a & 15
        if not self.b & 0x40 or rate == 0:
            return S // 100
        return S * (128 << rate - 1 if rate <= 2 else 1 << rate - 1) // 32768


class Hpet(oracle.Hpet):
    header = {"pins": 0xff0000, "level_pins": 0xf00000, "acks_hpet": 1}

    def arm(self, s):
        for _ in range(self.rng.randint(1, 4)):
            self.set_timer(s)
        self.put(s, 0x10, 1)

    def period(self):
        return max(oracle.SHORTEST, self.fastest) * 10


class Lapic(oracle.Lapic):
    header = {}

    def arm(self, s):
        self.span = max(self.rng.getrandbits(self.rng.randint(11, 30)), 2000)
        s.write(1, 4, oracle.LAPIC + 0x320, 0x70 | self.rng.choice([0, 0x20000, 0x20000]))
        s.write(1, 4, oracle.LAPIC + 0x3e0, self.rng.getrandbits(4) & 0xb)
        s.write(1, 4, oracle.LAPIC + 0x380, self.span)

    def period(self):
        return self.span


class PmTimer(oracle.PmTimer):
    header = {"irqs": 0x200, "acks_pm": 1}

    def arm(self, s):
        s.write(0, 2, oracle.PM, 1)
        s.write(0, 2, oracle.PM + 2, 1)

    def period(self):
        return S // 50


class Together:
    header = {"irqs": 0x301, "pins": 0xff0000, "level_pins": 0xf00000, "acks_hpet": 1,
              "acks_rtc": 1, "acks_pm": 1}

    def __init__(self, rng):
        self.rng = rng
        self.parts = [kind(rng) for kind in (Pit, Rtc, Hpet, Lapic, PmTimer)]

    def step(self, s):
        before = len(s.ops)
        self.rng.choice(self.parts).step(s)
        longest = 250 * self.period()
        for i in range(before, len(s.ops)):
            if s.ops[i][0] == oracle.OP_WAIT:
                s.ops[i] = s.ops[i][:4] + (1 + s.ops[i][4] % longest,)

    def arm(self, s):
        for part in self.parts:
            if self.rng.random() < 0.8:
                part.arm(s)

    def period(self):
        return min(part.period() for part in self.parts)


GROUPS = {"pit": Pit, "rtc": Rtc, "hpet": Hpet, "lapic": Lapic, "pm": PmTimer,
          "together": Together}


def make_script(group, rng, count):
    device, s = GROUPS[group](rng), Script(rng)
    s.write(1, 4, oracle.LAPIC + 0x320, 0x10070)        # not the vector of rom.c's own alarm
    for number in range(count):
        for _ in range(rng.randint(0, 12)):
            device.step(s)
        if rng.random() < 0.85:
            device.arm(s)
        s.wait(rng.uniform(0, 3.3 * device.period()) + rng.uniform(0, 2000))
        s.capture(number)
        s.wait(min(GAP_MAX, rng.choice([3, 30, 300, 1000]) * device.period()) *
               rng.uniform(0.1, 1))
        s.mark(END_OF_GAP | number)
    return s.ops


# ---- what the guest counted ----

def timer_of(vector):
    if 0x60 <= vector <= 0x67 or 0x80 <= vector <= 0x82:
        return "hpet[%d]" % (vector & 3)
    return {0x20: "pit", 0x28: "rtc", 0x29: "pm_timer", 0x70: "lapic[0]"}[vector]


def gaps(log):
    """For each case: number, interrupts as [timer, instant, vector], the end of what was run."""
    taken, number, index = None, None, 0
    for line in oracle.log_lines(log):
        words = line.split()
        if words[0] == "m" and int(words[1]) & END_OF_GAP:
            yield number, taken, int(words[2])
            taken = None
        elif words[0] == "m":
            number, taken = int(words[1]), []
        elif taken is None:
            continue
        elif words[0] == "i":
            vector = int(words[1], 16)
            taken.append([timer_of(vector), int(words[2]) - ENTRY_NS, vector])
        elif words[:4] == ["w", "p", "1", "70"]:
            index = int(words[4], 16)
        elif words[:4] == ["r", "p", "1", "71"] and index == 12:
            if not int(words[4], 16) & 0x40:
                taken[-1][0] = "rtc, no tick"   # an update or an alarm


def expiries(taken, end):
    """
    How often each timer expired up to an instant. With counted instructions QEMU's HPET fires
    each expiry of a periodic timer twice, one tick apart, and a level is up the second time:
    what follows so soon is the same expiry.
    """
    counts, latest = {}, {}
    for timer, t, counted in taken:
        pair = timer.startswith("hpet") and t - latest.get(timer, -S) <= PAIR_NS
        if counted and t <= end and not pair:
            counts[timer] = counts.get(timer, 0) + 1
        latest[timer] = t
    counts.pop("rtc, no tick", None)
    return counts


def pending(image):
    """
    Vectors of interrupts that were raised before the machine stopped, and not taken: they are
    in the interrupt controllers, and the timer has them behind it. The emulator likes to
    stop there: its clock goes on to the next expiry when the processor has nothing to do.
    """
    vectors = set()
    for i in range(8):
        word = image.get("apic", "irr[%d]" % i)
        vectors |= {32 * i + bit for bit in range(32) if word >> bit & 1}
    for i in range(2):
        byte = image.get("i8259", "irr", i)
        vectors |= {0x20 + 8 * i + bit for bit in range(8) if byte >> bit & 1}
    return vectors


def after_stop(taken, at, left):
    """Interrupts as (timer, instant, whether the stop had it still before it)."""
    result = []
    for timer, t, vector in taken:
        before = t < at or (vector in left and t <= at + LATE_NS)
        if before:
            left.discard(vector)
        result.append((timer, t, not before))
    return result


def is_clear(taken, t):
    """No handler was entered so soon after t that its interrupt may be from before."""
    return not any(t < entered <= t + LATE_NS for _, entered, _ in taken)


class Ledger:
    """The library."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self):
        words = self.process.stdout.readline().split()
        if not words:
            raise RuntimeError("the library gave up")
        return words

    def stream(self, path, image):
        # the i8254's part does not say what its line was last told
        self.ask("s %d %s" % (image.get("i8259", "last_irr", 0) & 1, path))
        return int(self.read()[1])

    def rows(self, end):
        self.ask("g %d" % end)
        rows = {}
        while True:
            words = self.read()
            if words[0] == "end":
                return rows
            rows[words[1]] = tuple(map(int, words[2:]))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Totals:
    def __init__(self):
        self.cases = self.ends = self.missed = self.unclear = 0
        self.timers = set()
        self.bad = []

    def add(self, other):
        self.cases += other.cases
        self.ends += other.ends
        self.missed += other.missed
        self.unclear += other.unclear
        self.timers |= other.timers
        self.bad += other.bad


def judge(group, rows, counts, where, totals):
    for timer in sorted(set(rows) | set(counts)):
        if group not in ("together", timer.partition("[")[0].partition("_")[0]):
            continue    # one that the guest has not programmed, and does not let in
        owed, missed, replayed, merged, dropped = rows.get(timer, (0,) * 5)
        if missed != counts.get(timer, 0):
            totals.bad.append("%s: %s: the ledger says %d, the guest counted %d" %
                              (where, timer, missed, counts.get(timer, 0)))
        if owed + missed != replayed + merged + dropped:
            totals.bad.append("%s: %s: %d + %d is not %d + %d + %d" %
                              (where, timer, owed, missed, replayed, merged, dropped))
        totals.missed += missed
        if missed:
            totals.timers.add(timer)


def judge_case(args, group, rng, ledger, stream, case, totals):
    number, taken, last = case
    image = streampatch.read(stream)
    at = ledger.stream(stream, image)
    taken = after_stop(taken, at, pending(image))
    totals.cases += 1
    for _ in range(args.ends):
        for _ in range(100):
            end = rng.randint(at, last)
            if is_clear(taken, end):
                break
        else:
            totals.unclear += 1
            continue
        totals.ends += 1
        judge(group, ledger.rows(end), expiries(taken, end),
              "case %d, from %d to %d" % (number, at, end), totals)


def run_boot(args, group, boot, count, totals):
    rng = random.Random("%d/ledger/%s/%d" % (args.seed, group, boot))
    machine = args.machine or ("q35" if boot % 2 else "pc")
    blob = oracle.encode(make_script(group, rng, count), GROUPS[group].header, machine == "q35")
    with tempfile.TemporaryDirectory(prefix="gclk-ledger-") as directory:
        log, streams = oracle.run_qemu(args.qemu, args.rom, blob, directory, machine,
                                       args.timeout, captures=count)
        ledger = Ledger(args.replay)
        for case in gaps(log):
            judge_case(args, group, rng, ledger, streams[case[0]], case, totals)
        ledger.close()
    return machine


def run_until_agreed(args, group, boot, count):
    """Up to three times, as in oracle.py: the emulator on a busy machine is not quite the same."""
    for attempt in range(3):
        totals, machine = Totals(), "?"
        try:
            machine = run_boot(args, group, boot, count, totals)
        except (RuntimeError, OSError) as error:
            totals.bad.append(str(error))
        if not totals.bad:
            break
        if attempt < 2:
            print("%s: boot %d differed (%s); again" % (group, boot, totals.bad[0]), flush=True)
    return totals, machine


def main():
    parser = oracle.options(__doc__, GROUPS)
    parser.add_argument("--cases", type=int, default=100, help="for each group")
    parser.add_argument("--per-boot", type=int, default=25, help="cases")
    parser.add_argument("--ends", type=int, default=4, help="of the gap, for each case")
    args = parser.parse_args()
    if not args.qemu:
        print("skipped: no qemu-system-x86_64")
        return 77
    print("seed: %d" % args.seed, flush=True)
    failed = False
    for group in args.group or sorted(GROUPS):
        totals, began = Totals(), time.time()
        for boot, first in enumerate(range(0, args.cases, args.per_boot)):
            if args.boot is not None and boot != args.boot:
                continue
            count = min(args.per_boot, args.cases - first)
            one, machine = run_until_agreed(args, group, boot, count)
            totals.add(one)
            if one.bad:
                print("%s: boot %d (%s) fails; again with --seed %d --cases %d --per-boot %d "
                      "--ends %d --group %s --boot %d" %
                      (group, boot, machine, args.seed, args.cases, args.per_boot, args.ends,
                       group, boot))
                print("\n".join(one.bad[:10]), flush=True)
        failed = failed or bool(totals.bad)
        print("%s: %d states, %d gaps, %d expiries of %s, %d left out as too near to an "
              "expiry, %d mismatches, %.0f s" %
              (group, totals.cases, totals.ends, totals.missed,
               ", ".join(sorted(totals.timers)), totals.unclear, len(totals.bad),
               time.time() - began), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
