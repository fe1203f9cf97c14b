#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stock QEMU's timer devices as the oracle for ours.

    oracle.py --rom ROM --replay REPLAY [--group NAME]... [--scripts N] [--steps N]
              [--per-boot N] [--seed N] [--boot N] [--keep DIR]

Random scripts of register accesses and waits run in a small guest (rom.c) on stock QEMU in
warped virtual time, where each is stamped to the ns. The same accesses then go to our models
(replay.c): every value read, every interrupt and its instant, and every field of the state in
the stream that QEMU saves at the end must be the same.

A failing boot is run again alone with --seed and --boot as printed. Exit status: 0 all agree,
1 a mismatch, 77 there is no QEMU to ask.
"""
import argparse
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import streampatch  # noqa: E402

MAGIC = 0x6b6c6367
SCRIPT, LOG = 0x100000, 0x1000000
OP_END, OP_WRITE, OP_READ, OP_WAIT, OP_MARK, OP_CAPTURE = range(6)
ACCESS_INSNS = 5        # from the RDTSC to the access, in rom.S
HPET, LAPIC, PM = 0xfed00000, 0xfee00000, 0x600
S = 1000000000
SHORTEST = 500          # ticks: a handler takes up to 300 ns, and must not be all that runs
RTC_BASE = 1709164780   # 2024-02-28T23:59:40Z: a leap day is near


class Script:
    """Operations, and how often the device may interrupt while it waits."""

    def __init__(self, rng):
        self.rng = rng
        self.ops = []
        self.busy = False

    def write(self, space, size, addr, value):
        self.ops.append((OP_WRITE, size, space, addr, value))

    def read(self, space, size, addr):
        self.ops.append((OP_READ, size, space, addr, 0))

    def out8(self, port, value):
        self.write(0, 1, port, value)

    def in8(self, port):
        self.read(0, 1, port)

    def wait(self, ns):
        """Up to 10 s by counting instructions, so that the clock never jumps (rom.c)."""
        self.ops.append((OP_WAIT, 0, self.busy and ns <= 10 * S, 0, max(1, int(ns))))

    def mark(self, number):
        self.ops.append((OP_MARK, 0, 0, 0, number))

    def wait_deaf(self, ns):
        """With interrupts off."""
        self.ops.append((OP_WAIT, 0, 2, 0, max(1, int(ns))))

    def wait_up_to(self, ns):
        """1 ns to ns, each order of magnitude alike."""
        self.wait(10 ** self.rng.uniform(0, max(0.1, len(str(int(ns))) - 1 + 0.3)) % (ns + 1))


# ---- what random guests do to each device ----

class Pit:
    """Waits are bounded by the fastest period that channel 0 may have."""
    header = {"irqs": 1}

    def __init__(self, rng):
        self.rng = rng
        self.state, self.latch, self.access, self.count = 0, 0, 0, 65536

    def number(self):
        kind = self.rng.random()
        if kind < 0.2:
            return self.rng.choice([0, 1, 2, 3, 4, 5, 255, 256, 257, 41, 14551, 65535, 1193])
        return self.rng.getrandbits(self.rng.randint(2, 16))

    def byte_written(self, value):
        """Follows what channel 0 makes of a byte: its count is the bound for waits."""
        if self.state in (0, 1):
            self.count = value
        elif self.state == 2:
            self.count = value << 8
        elif self.state == 3:
            self.latch, self.state = value, 4
            return
        else:
            self.count, self.state = self.latch | value << 8, 3
        self.count = self.count or 65536

    def longest_wait(self):
        return min(10 * S, 250 * self.count * 838 + 2000)

    def step(self, s):
        rng = self.rng
        kind = rng.random()
        channel = rng.choice([0, 0, 0, 1, 2, 2])
        if kind < 0.22:
            access, mode = rng.choice([1, 2, 3, 3, 3]), rng.randint(0, 7)
            s.out8(0x43, channel << 6 | access << 4 | mode << 1 | rng.randint(0, 1))
            if channel == 0:
                self.state = access
            if rng.random() < 0.8:
                value = self.number()
                for byte in ([value & 0xff, value >> 8] if access == 3 else [value & 0xff]):
                    s.out8(0x40 + channel, byte)
                    if channel == 0:
                        self.byte_written(byte)
        elif kind < 0.30:
            value = rng.getrandbits(8)
            s.out8(0x40 + channel, value)
            if channel == 0:
                self.byte_written(value)
        elif kind < 0.38:
            s.out8(0x43, channel << 6 | rng.getrandbits(4))
        elif kind < 0.46:
            s.out8(0x43, 0xc0 | rng.getrandbits(6))
        elif kind < 0.62:
            s.in8(0x40 + channel)
            if rng.random() < 0.5:
                s.in8(0x40 + channel)
        elif kind < 0.64:
            s.in8(0x43)
        elif kind < 0.70:
            s.out8(0x61, rng.getrandbits(8))
        elif kind < 0.76:
            s.in8(0x61)
        else:
            s.wait_up_to(self.longest_wait())


class Rtc:
    header = {"irqs": 0x100, "acks_rtc": 1}
    busy = True
    rates = range(16)

    def __init__(self, rng):
        self.rng = rng
        self.a, self.b = 0x26, 0x02

    def put(self, s, index, value):
        s.out8(0x70, index)
        s.out8(0x71, value)

    def shown(self, value):
        return value if self.b & 4 else value // 10 << 4 | value % 10

    def hour(self):
        hour = self.rng.randint(0, 23)
        if self.b & 2:
            return self.shown(hour)
        return self.shown(hour % 12 or 12) | (0x80 if hour >= 12 else 0)

    def set_time(self, s):
        rng = self.rng
        register = rng.choice([0, 2, 4, 6, 7, 8, 9, 0x32, 0x37])
        values = {0: rng.randint(0, 59), 2: rng.randint(0, 59), 6: rng.randint(1, 7),
                  7: rng.randint(1, 31), 8: rng.randint(1, 12), 9: rng.randint(0, 99),
                  0x32: rng.choice([19, 20, 21]), 0x37: rng.choice([19, 20, 21])}
        if rng.random() < 0.5:
            values.update({0: rng.randint(55, 59), 2: 59, 7: rng.choice([28, 29, 30, 31])})
        if rng.random() < 0.04:
            self.put(s, register, rng.getrandbits(8))
        else:
            self.put(s, register, self.hour() if register == 4 else self.shown(values[register]))

    def set_alarm(self, s):
        rng = self.rng
        for register in (1, 3, 5):
            if rng.random() < 0.6:
                if rng.random() < 0.5:
                    value = 0xc0 | rng.getrandbits(6)
                elif register == 5:
                    value = self.hour()
                else:
                    value = self.shown(rng.randint(0, 59))
                self.put(s, register, rng.getrandbits(8) if rng.random() < 0.05 else value)

    def longest_wait(self):
        rate = self.a & 15
        if not self.b & 0x40 or rate == 0:
            return self.rng.choice([10, 10, 100, 10000]) * S
        period = S * (128 << rate - 1 if rate <= 2 else 1 << rate - 1) // 32768
        return min(10 * S if self.rng.random() < 0.1 else 2 * S, 250 * period)

    def step(self, s):
        rng = self.rng
        kind = rng.random()
        if kind < 0.12:
            self.a = rng.choice([0x20, 0x20, 0x20, 0x20, 0x00, 0x10, 0x60, 0x70, 0x30, 0x50])
            self.a |= rng.choice(self.rates)
            self.put(s, 10, self.a | rng.choice([0, 0x80]))
        elif kind < 0.30:
            self.b = rng.getrandbits(8) & (0xff if rng.random() < 0.3 else 0x7f)
            self.put(s, 11, self.b)
        elif kind < 0.40:
            self.set_time(s)
        elif kind < 0.48:
            self.set_alarm(s)
        elif kind < 0.56:
            s.out8(0x70, 12)
            s.in8(0x71)
        elif kind < 0.60:
            s.out8(0x70, 10)
            s.in8(0x71)
        elif kind < 0.64:
            register = rng.choice([12, 13, 14, 15, 0x20, 0x31, 0x33, 0x36, 0x38, 0x7f])
            self.put(s, register, rng.getrandbits(8))
        elif kind < 0.66:
            s.in8(0x70)
        elif kind < 0.76:
            s.out8(0x70, rng.choice([0, 2, 4, 6, 7, 8, 9, 0x32, 0x37, 11, 13, 1, 3, 5]) |
                   rng.choice([0, 0x80]))
            s.in8(0x71)
        else:
            busy, s.busy = s.busy, s.busy and bool(self.b & 0x40)
            s.wait_up_to(self.longest_wait())
            s.busy = busy


class RtcSlew(Rtc):
    """Lost ticks are owed. Through the IOAPIC: the PIC does not tell the RTC what it lost."""
    header = {"pins": 0x100, "acks_rtc": 1}
    options = ["-global", "mc146818rtc.lost_tick_policy=slew"]
    rates = [0, 1, 2] + list(range(4, 16))  # QEMU replays 8192 Hz every 4 / 8 = 0 clocks: for ever

    def step(self, s):
        super().step(s)
        rate = self.a & 15
        if self.b & 0x40 and rate and self.rng.random() < 0.15:
            period = S * (128 << rate - 1 if rate <= 2 else 1 << rate - 1) // 32768
            s.wait_deaf(min(S // 2, self.rng.uniform(0.1, 30) * period))


class Hpet:
    """Level timers on pins 20..23, edge timers on 16..19, so that each pin knows its kind."""
    header = {"pins": 0xff0000, "level_pins": 0xf00000, "acks_hpet": 1}
    busy = True
    timers = (0, 1, 2)
    legacy = False

    def __init__(self, rng):
        self.rng = rng
        self.config = 0
        self.leveled = [0] * 3
        self.periodic, self.has_period = [False] * 3, [False] * 3
        self.fastest = 1 << 28

    def put(self, s, register, value):
        s.write(1, 4, HPET + register, value & 0xffffffff)

    def get(self, s, register):
        s.read(1, 4, HPET + register)

    def number(self):
        return self.rng.getrandbits(self.rng.randint(6, 31))

    def set_timer(self, s):
        rng = self.rng
        n = rng.choice(self.timers)
        base = 0x100 + 0x20 * n
        if self.leveled[n]:
            # an input that is up when its timer leaves it stays up for ever: a storm
            self.put(s, base, self.leveled[n] & ~4)
            self.leveled[n] = 0
        config = rng.choice([0, 4, 4, 4]) | rng.choice([0, 8 | 0x40, 8 | 0x40, 8, 0x40])
        config |= rng.choice([0, 0x100])
        if rng.random() < 0.2:
            config |= 2 | (20 + n) << 9
        else:
            config |= (16 + n) << 9
        if rng.random() < 0.15 and not config & 2:
            config |= 0x4000
            self.put(s, base + 0x14, 0xfee00000)
            self.put(s, base + 0x10, 0x80 + n)
        self.put(s, base, config)
        self.leveled[n] = config if config & 2 else 0
        self.periodic[n] = bool(config & 8)
        if rng.random() < 0.8:
            self.comparator(s, base)
        if config & 8 and rng.random() < 0.9:
            period = max(self.number(), SHORTEST)
            self.fastest = min(self.fastest, period)
            self.put(s, base + 8, period)

    def comparator(self, s, base):
        n, value = (base - 0x100) // 0x20, self.number()
        if self.rng.random() < 0.3:
            # a 32-bit period whose low half is still 0 is one that QEMU never gets past
            high = self.rng.choice([0, 0, 0, 1])
            self.put(s, base + 12, high if self.has_period[n] else 0)
        self.fastest = min(self.fastest, max(value, SHORTEST))
        self.put(s, base + 8, max(value, SHORTEST))
        self.has_period[n] |= self.periodic[n]

    def longest_wait(self):
        longest = 10 * S if self.rng.random() < 0.05 else S
        return min(longest, 100 * max(SHORTEST, self.fastest) * 10)

    def step(self, s):
        rng = self.rng
        kind = rng.random()
        if kind < 0.22:
            self.set_timer(s)
        elif kind < 0.32:
            self.config = rng.choice([0, 1, 1, 1])
            if self.legacy:
                self.config |= rng.choice([0, 2])
            self.put(s, 0x10, self.config)
        elif kind < 0.36:
            self.put(s, 0xf0, rng.choice([0, 0xfffff000, rng.getrandbits(32)]))
            if rng.random() < 0.5:
                # with a comparator far behind QEMU goes to it period by period: seconds to years
                self.put(s, 0xf4, rng.choice([0, 0, 0, 1]))
        elif kind < 0.40:
            self.put(s, 0x20, rng.getrandbits(3))
        elif kind < 0.46:
            self.comparator(s, 0x100 + 0x20 * rng.choice(self.timers))
        elif kind < 0.62:
            self.get(s, 0xf0)
            if rng.random() < 0.3:
                self.get(s, 0xf4)
        elif kind < 0.76:
            register = rng.choice([0, 4, 8, 0xc, 0x10, 0x14])
            self.get(s, 0x100 + 0x20 * rng.choice(self.timers) + register)
        elif kind < 0.82:
            self.get(s, rng.choice([0, 4, 0x10, 0x14, 0x20, 0x24]))
        else:
            s.wait_up_to(self.longest_wait())


class Lapic:
    """The LAPIC timer itself; waits end by HPET timer 2."""
    header = {"hpet_alarm": 1, "pins": 0x10000}

    def __init__(self, rng):
        self.rng = rng
        self.span = 1 << 40

    def step(self, s):
        rng = self.rng
        kind = rng.random()
        if kind < 0.15:
            value = 0x70 | rng.choice([0, 0x20000, 0x20000, 0x40000])
            value |= rng.choice([0, 0, 0, 0x10000])
            s.write(1, 4, LAPIC + 0x320, value)
        elif kind < 0.30:
            count = max(rng.getrandbits(rng.randint(0, 32)), SHORTEST)
            if rng.random() < 0.05:
                count = 0
            else:
                self.span = count
            s.write(1, 4, LAPIC + 0x380, count)
        elif kind < 0.40:
            s.write(1, 4, LAPIC + 0x3e0, rng.getrandbits(4) & 0xb)
        elif kind < 0.66:
            s.read(1, 4, LAPIC + 0x390)
        elif kind < 0.76:
            s.read(1, 4, LAPIC + rng.choice([0x320, 0x380, 0x3e0]))
        else:
            s.wait_up_to(min(10 * S, 100 * self.span + 1000))


class PmTimer:
    header = {"irqs": 0x200}

    def __init__(self, rng):
        self.rng = rng

    def step(self, s):
        rng = self.rng
        kind = rng.random()
        if kind < 0.15:
            s.write(0, 2, PM + 2, rng.choice([0, 1, 1, 1, 0x101, 0x20]))
        elif kind < 0.40:
            s.write(0, 2, PM, rng.choice([1, 1, 1, 0, 0xffff]))
        elif kind < 0.55:
            s.read(0, 2, PM)
        elif kind < 0.60:
            s.read(0, 2, PM + 2)
        elif kind < 0.78:
            s.read(0, 4, PM + 8)
        else:
            s.wait_up_to(rng.choice([10] * 30 + [10000]) * S)


class Together:
    """PIT, RTC and HPET at once, with legacy replacement."""
    busy = True
    header = {"irqs": 0x101, "pins": 0xff0000, "level_pins": 0xf00000, "acks_hpet": 1,
              "acks_rtc": 1}

    def __init__(self, rng):
        self.rng = rng
        self.parts = [Pit(rng), Rtc(rng), Hpet(rng)]
        self.parts[2].legacy = True

    def step(self, s):
        part = self.rng.choice(self.parts)
        before = len(s.ops)
        part.step(s)
        bound = min(p.longest_wait() for p in self.parts)
        for i in range(before, len(s.ops)):
            if s.ops[i][0] == OP_WAIT:
                # never in HLT, for the HPET's sake (rom.c)
                s.ops[i] = (OP_WAIT, 0, 1, 0, 1 + s.ops[i][4] % int(min(bound, 10 * S)))


GROUPS = {"pit": Pit, "rtc": Rtc, "rtc-slew": RtcSlew, "hpet": Hpet, "lapic": Lapic, "pm": PmTimer,
          "together": Together}
COMPARED = {"together": ["pit", "rtc", "hpet"], "rtc-slew": ["rtc"]}


def make_scripts(group, rng, first, count, steps):
    """One boot's worth: the device is not reset between scripts."""
    device = GROUPS[group](rng)
    script = Script(rng)
    script.busy = getattr(device, "busy", False)
    for number in range(first, first + count):
        script.mark(number)
        for _ in range(steps):
            device.step(script)
    return script.ops


def encode(ops, header, q35):
    blob = struct.pack("<IIIIBBBBB11x", MAGIC, header.get("irqs", 0), header.get("pins", 0),
                       header.get("level_pins", 0), header.get("hpet_alarm", 0),
                       header.get("acks_rtc", 0), header.get("acks_hpet", 0), q35,
                       header.get("acks_pm", 0))
    blob += b"".join(struct.pack("<BBBxIQ", kind, size, space, addr, value)
                     for kind, size, space, addr, value in ops)
    return blob + struct.pack("<BBBxIQ", OP_END, 0, 0, 0, 0)


# ---- QEMU ----

class Qmp:
    def __init__(self, path, process):
        for _ in range(500):
            if process.poll() is not None:
                raise RuntimeError("QEMU ended: %s" % process.stderr.read().decode())
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.01)
        self.file = self.socket.makefile("rw")
        self.events = []
        self.receive()
        self.ask("qmp_capabilities")

    def receive(self):
        line = self.file.readline()
        if not line:
            raise RuntimeError("QEMU closed its monitor")
        return json.loads(line)

    def ask(self, command, **arguments):
        json.dump({"execute": command, "arguments": arguments}, self.file)
        self.file.write("\n")
        self.file.flush()
        while True:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise RuntimeError("%s: %s" % (command, answer["error"]["desc"]))
            else:
                return answer["return"]

    def go_on(self):
        """A migration that has completed may not be over yet."""
        for _ in range(500):
            try:
                return self.ask("cont")
            except RuntimeError as error:
                if "not finalized" not in str(error):
                    raise
            time.sleep(0.002)
        raise RuntimeError("the machine does not go on")

    def await_event(self, name):
        while name not in self.events:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer["event"])
        self.events.remove(name)


def save_stream(qmp, path):
    """While the machine stands; it may go on afterwards, its clock has not moved."""
    qmp.ask("migrate", uri="exec:cat > '%s'" % path)
    while True:
        status = qmp.ask("query-migrate").get("status")
        if status == "failed":
            raise RuntimeError("the state was not saved")
        if status == "completed":
            return path
        time.sleep(0.002)


def read_log(qmp, path):
    qmp.ask("pmemsave", val=LOG, size=32, filename=path)
    with open(path, "rb") as head:
        magic, count = struct.unpack_from("<II", head.read())
    if magic != MAGIC:
        raise RuntimeError("the guest wrote no log")
    qmp.ask("pmemsave", val=LOG + 32, size=max(1, 20 * count), filename=path)
    with open(path, "rb") as data:
        return data.read()[:20 * count]


def run_qemu(qemu, rom, blob, directory, machine, timeout, options=(), captures=0):
    """Returns (log bytes, paths of the streams: one for each capture, and that of the end)."""
    script, path = os.path.join(directory, "script.bin"), os.path.join(directory, "qmp")
    with open(script, "wb") as out:
        out.write(blob)
    process = subprocess.Popen(
        [qemu, "-machine", machine, "-accel", "tcg", "-icount", "shift=0,sleep=off", "-m", "64",
         "-bios", rom, "-nodefaults", "-display", "none", "-S", "-device", "pvpanic",
         "-action", "panic=pause", "-rtc", "base=2024-02-28T23:59:40,clock=vm", "-device",
         "loader,file=%s,addr=%d,force-raw=on" % (script, SCRIPT), "-qmp",
         "unix:%s,server=on,wait=off" % path] + list(options), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE)
    try:
        qmp = Qmp(path, process)
        qmp.socket.settimeout(timeout)
        streams = []
        for number in range(captures + 1):
            qmp.go_on()
            qmp.await_event("STOP")
            streams.append(os.path.join(directory, "stream-%d" % number))
            log = read_log(qmp, os.path.join(directory, "log.bin")) if number == captures else b""
            save_stream(qmp, streams[-1])
        qmp.ask("quit")
        process.wait(10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stderr.close()
    return log, streams


def log_lines(log):
    for at in range(0, len(log), 20):
        kind, size, space, addr, value, low, high = struct.unpack_from("<BBBxIIII", log, at)
        t = high << 32 | low
        if kind in (1, 2):
            yield "%s %s %d %x %x %d" % (" wr"[kind], "pm"[space], size, addr, value,
                                         t + ACCESS_INSNS)
        elif kind == 3:
            yield "i %x %d" % (addr, t)
        elif kind == 5:
            yield "d %d" % t
        else:
            yield "m %d %d" % (value, t)


# stream field -> ours; a channel or timer is filled in
PIT_FIELDS = {name: name for name in (
    "count", "latched_count", "count_latched", "status_latched", "status", "read_state",
    "write_state", "write_latch", "rw_mode", "mode", "bcd", "gate")}
PIT_FIELDS["count_load_time"] = "load_time_ns"
HPET_FIELDS = {"tn": "index", "config": "config", "cmp": "comparator_ticks", "fsb": "fsb_route",
               "period": "period_ticks", "wrap_flag": "wrap", "qemu_timer": "expiry_ns"}
RTC_FIELDS = {"cmos_index": "cmos_index", "periodic_timer": "periodic_expiry_ns",
              "next_periodic_time": "next_periodic_ns", "irq_coalesced": "owed_ticks",
              "period": "period_clocks", "base_rtc": "base_s", "last_update": "base_at_ns",
              "offset": "offset_ns", "update_timer": "update_expiry_ns",
              "next_alarm_time": "next_alarm_ns"}
APIC_FIELDS = {"lvt[0]": "lvt_timer", "initial_count": "initial_count",
               "divide_conf": "divide_config", "count_shift": "divide_shift",
               "initial_count_load_time": "load_time_ns", "next_time": "next_time_ns",
               "timer_expiry": "expiry_ns"}


def stream_lines(path):
    image = streampatch.read(path)
    now = image.get("timer", "timer/icount:qemu_icount_bias") + \
        image.get("timer", "timer/icount:qemu_icount")
    yield "e %d" % now

    def field(device, ours, section, theirs):
        value = image.get(section, theirs)
        return "f %s %s %d" % (device, ours, value & (1 << 64) - 1 if value < 0 else value)

    for n in range(3):
        for theirs, ours in PIT_FIELDS.items():
            yield field("pit", "channels[%d].%s" % (n, ours), "i8254",
                        "channels[%d].%s" % (n, theirs))
    yield field("pit", "channels[0].next_transition_ns", "i8254",
                "channels[0].next_transition_time")
    yield field("pit", "irq_disabled", "i8254", "channels[0].irq_disabled")
    yield field("pit", "speaker_data", "pcspk", "data_on")
    yield "f pit dummy_refresh_clock %d" % (image.get("pcspk", "dummy_refresh_clock") >> 4)
    for i, byte in enumerate(image.get("mc146818rtc", "cmos_data")):
        yield "f rtc cmos[%d] %d" % (i, byte)
    for theirs, ours in RTC_FIELDS.items():
        yield field("rtc", ours, "mc146818rtc", theirs)
    reinjected = "mc146818rtc/irq_reinject_on_ack_count:irq_reinject_on_ack_count"
    if image.has("mc146818rtc", reinjected):
        yield field("rtc", "reinject_on_ack", "mc146818rtc", reinjected)
    for theirs, ours in {"config": "config", "isr": "isr", "hpet_counter": "counter_ticks",
                         "num_timers": "n_timers"}.items():
        yield field("hpet", ours, "hpet", theirs)
    if image.has("hpet", "hpet/offset:hpet_offset"):
        yield field("hpet", "offset_ns", "hpet", "hpet/offset:hpet_offset")
    for n in range(3):
        for theirs, ours in HPET_FIELDS.items():
            yield field("hpet", "timers[%d].%s" % (n, ours), "hpet", "timer[%d].%s" % (n, theirs))
    for theirs, ours in APIC_FIELDS.items():
        yield field("lapic", ours, "apic", theirs)
    section, prefix = ("piix4_pm", "ar.") if image.find("piix4_pm") else ("ICH9LPC", "pm.")
    for theirs, ours in {"tmr.timer": "expiry_ns", "tmr.overflow_time": "overflow_ticks",
                         "pm1.evt.sts": "status", "pm1.evt.en": "enable"}.items():
        for name in ("ar." + theirs, "pm.acpi_regs." + theirs, "pm.ich9_pm." + theirs):
            if image.has(section, name):
                yield field("pm", ours, section, name)


def set_up_lines(args, machine, known={}):
    """What the machine itself sets up, read from a guest that does nothing."""
    if machine not in known:
        with tempfile.TemporaryDirectory(prefix="gclk-oracle-") as directory:
            stream = run_qemu(args.qemu, args.rom, encode([], {}, machine == "q35"), directory,
                              machine, args.timeout)[1][-1]
            image = streampatch.read(stream)
        cmos = image.get("mc146818rtc", "cmos_data")
        known[machine] = ["o seconds %d" % RTC_BASE,
                          "o routes %d" % (image.get("hpet", "timer[0].config") >> 32)]
        known[machine] += ["o cmos %d %d" % pair for pair in enumerate(cmos) if pair[0] != 0x32]
    return known[machine]


def run_boot(args, group, boot, first, count):
    rng = random.Random("%d/%s/%d" % (args.seed, group, boot))
    header = GROUPS[group].header
    machine = args.machine or ("q35" if boot % 2 else "pc")
    ops = make_scripts(group, rng, first, count, args.steps)
    with tempfile.TemporaryDirectory(prefix="gclk-oracle-") as directory:
        log, streams = run_qemu(args.qemu, args.rom, encode(ops, header, machine == "q35"),
                               directory, machine, args.timeout,
                               getattr(GROUPS[group], "options", ()))
        lines = ["c " + d for d in COMPARED.get(group, [group])]
        lines += set_up_lines(args, machine)
        lines += ["o slew"] if group == "rtc-slew" else []
        lines += list(log_lines(log)) + list(stream_lines(streams[-1]))
        if args.keep:
            os.makedirs(args.keep, exist_ok=True)
            with open(os.path.join(args.keep, "%s-%d.txt" % (group, boot)), "w") as out:
                out.write("\n".join(lines) + "\n")
            shutil.copy(streams[-1], os.path.join(args.keep, "%s-%d.stream" % (group, boot)))
    done = subprocess.run([args.replay], input="\n".join(lines) + "\n", text=True,
                          stdout=subprocess.PIPE)
    return done.returncode, done.stdout, machine


def run_until_agreed(args, group, boot, first, count):
    """The same boot up to three times.

    Scripts are deterministic, the emulator is not quite: its main loop sets a timer anew
    while the processor's thread looks for the next expiry, and on a busy machine that
    thread now and then runs past one (seen once in some 4000 scripts). A difference that
    is ours comes again each time. Every repetition is said.
    """
    for attempt in range(3):
        try:
            status, text, machine = run_boot(args, group, boot, first, count)
        except (RuntimeError, OSError) as error:
            status, text, machine = 1, "%s\n" % error, "?"
        if status == 0:
            break
        if attempt < 2:
            print("%s: boot %d differed (%s); again" %
                  (group, boot, text.splitlines()[0] if text else "no answer"), flush=True)
    return status, text, machine


def options(description, groups):
    """What every program that asks this oracle takes."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--rom", required=True)
    parser.add_argument("--replay", required=True, help="the program that answers with our models")
    parser.add_argument("--qemu", default=shutil.which("qemu-system-x86_64"))
    parser.add_argument("--group", action="append", choices=sorted(groups))
    parser.add_argument("--machine", choices=["pc", "q35"], help="default: by turns")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--boot", type=int, help="this one only")
    parser.add_argument("--timeout", type=float, default=120)
    return parser


def main():
    parser = options(__doc__, GROUPS)
    parser.add_argument("--scripts", type=int, default=40, help="for each group")
    parser.add_argument("--steps", type=int, default=50, help="of each script")
    parser.add_argument("--per-boot", type=int, default=0, help="scripts; default: 40 boots")
    parser.add_argument("--keep", metavar="DIR", help="keep the logs and streams")
    args = parser.parse_args()
    if not args.qemu:
        print("skipped: no qemu-system-x86_64")
        return 77
    print("seed: %d" % args.seed, flush=True)
    failed = 0
    for group in args.group or sorted(GROUPS):
        per_boot = args.per_boot or max(1, args.scripts // 40)
        began = time.time()
        totals = [0, 0, 0, 0]
        for boot, first in enumerate(range(0, args.scripts, per_boot)):
            if args.boot is not None and boot != args.boot:
                continue
            count = min(per_boot, args.scripts - first)
            status, text, machine = run_until_agreed(args, group, boot, first, count)
            for line in text.splitlines():
                words = line.replace(",", "").replace(";", "").split()
                if "accesses" in words:
                    totals[0] += int(words[1])
                    totals[1] += int(words[3])
                elif line.startswith("interrupts:"):
                    totals[2] += int(words[1])
                    totals[3] = max(totals[3], int(words[4]))
            if status:
                failed += 1
                print("%s: boot %d (%s) fails; again with --seed %d --scripts %d --steps %d "
                      "--per-boot %d --group %s --boot %d" %
                      (group, boot, machine, args.seed, args.scripts, args.steps, per_boot,
                       group, boot))
                print(text, flush=True)
                if failed >= 3:
                    return 1
        print("%s: %d scripts, %d accesses, %d rises, %d interrupts at most %d ns late, %.0f s" %
              (group, args.scripts, *totals, time.time() - began), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
