# SPDX-License-Identifier: MIT
"""Reading the test guest (tests/guest/README.md): its lines, its clocks against the host's.

Truth is the host's raw clock and TSC. Every line is a pair (what the guest read, when the
mark arrived); the arrival is late by a delay that is never negative, so over many lines the
smallest delay is the best witness: offset = min(arrival - reading). Two such offsets, before
a save and after a restore, differ by exactly what the clock lost.
"""
import calendar
import math

import qemu

PIT_HZ = 1193182
HPET_HZ = 100000000
PM_HZ = 3579545
LAPIC_HZ = 1000000000


def fnv1a(text):
    check = 0x811c9dc5
    for byte in text:
        check = (check ^ byte) * 0x01000193 & 0xffffffff
    return check


class Line:
    """One whole line: kind 'B', 'G' or 'P', the fields by name, the stamp of its mark.

    fields[name] is the number; after[name] is when its read began, TSC ticks after t0,
    took[name] how long until the next one began: the guest may have lost its processor.
    """

    def __init__(self, kind, fields, after, stamp):
        self.kind, self.fields, self.after, self.stamp = kind, fields, after, stamp
        begins = sorted(after.values()) + [fields.get("t9", 0) - fields.get("t0", 0)]
        self.took = {name: begins[begins.index(begin) + 1] - begin
                     for name, begin in after.items()}

    def __getitem__(self, name):
        return self.fields[name]

    def __contains__(self, name):
        return name in self.fields


def parse_line(text, stamp):
    """A Line, or None if the text is torn (its check does not match)."""
    body, _, check = text.rpartition(b" ck=")
    if not body or len(check) != 8 or int(check, 16) != fnv1a(body):
        return None
    fields, after = {}, {}
    for item in body.split()[1:]:
        key, _, value = item.decode().partition("=")
        value, _, delay = value.partition("/")
        fields[key] = int(value, 16)
        if delay:
            after[key] = int(delay, 16)
    return Line(body[:1].decode(), fields, after, stamp)


def parse(chunks):
    """All whole lines in stamped chunks. What comes before the first mark is dropped."""
    lines, text, stamp = [], None, None
    for arrival, data in chunks:
        for byte in data:
            if byte == 0x40:
                text, stamp = bytearray(), arrival
            elif byte == 0x0a:
                if text is not None:
                    try:
                        lines.append(parse_line(bytes(text), stamp))
                    except ValueError:
                        pass
                text = None
            elif text is not None:
                text.append(byte)
    return [line for line in lines if line]


def reports(emulator, n=1, timeout=30):
    """Wait for n whole 'G' lines in all; returns every 'G' line so far."""
    def ready(chunks):
        lines = parse(chunks)
        for line in lines:
            if line.kind == "P":
                raise qemu.QmpError("the guest took an exception: %r" % line.fields)
        found = [line for line in lines if line.kind == "G"]
        return found if len(found) >= n else None
    return emulator.wait_output(ready, timeout, "%d reports of the guest" % n)


def more_reports(emulator, n, timeout=30):
    """n lines more than there are now; returns those alone."""
    have = len([line for line in parse(emulator.serial.take()) if line.kind == "G"])
    return reports(emulator, have + n, timeout)[have:]


def bcd(value, digits):
    return int("%0*x" % (digits, value))


def rtc_seconds(value):
    """ccyymmddhhmmss as the registers hold it -> seconds since 1970, taken as UTC."""
    text = "%014d" % bcd(value, 14)
    return calendar.timegm((int(text[0:4]), int(text[4:6]), int(text[6:8]),
                            int(text[8:10]), int(text[10:12]), int(text[12:14])))


class Clock:
    """A counter: its field, rate, direction, and the ticks after which it repeats."""

    def __init__(self, field, hz, wraps=None, down=False):
        self.field, self.hz, self.wraps, self.down = field, hz, wraps, down

    def value(self, line):
        """The counter carried back to the mark, in ns of the clock (not unwrapped)."""
        ns = line[self.field] * 1e9 / self.hz
        if self.down:
            ns = -ns
        after = line.after.get(self.field, 0)
        return ns - after * 1e9 / qemu.tsc_hz()


def clocks(line, lapic_hz=0):
    """The clocks that a guest has, by name, judged by one of its lines."""
    known = {
        "tsc": Clock("t0", qemu.tsc_hz()),
        "pvclock": Clock("pv", 1e9),
        "hpet": Clock("hpet", HPET_HZ),
        "pm": Clock("pm", PM_HZ, wraps=1 << 24),
        "pit2": Clock("pit2", PIT_HZ, wraps=65536, down=True),
    }
    if lapic_hz:
        known["lapic"] = Clock("lapic", LAPIC_HZ, wraps=LAPIC_HZ // lapic_hz, down=True)
    return {name: clock for name, clock in known.items() if clock.field in line}


class Offset:
    """Arrival minus reading at the least delayed line, ns; wide: how sure.

    wide is how far apart the halves of the lines put it: two witnesses of one thing.
    """

    def __init__(self, ns, wide):
        self.ns, self.wide = ns, wide


def _unwrapped(clock, lines):
    """Readings at the marks in ns; a wrapping counter is continued by the guest's TSC.

    (By the arrival stamps it cannot be: one late line would put it a period off.)
    """
    values = [clock.value(line) for line in lines]
    if clock.wraps is None:
        return values
    period, tick = clock.wraps * 1e9 / clock.hz, 1e9 / qemu.tsc_hz()
    for i in range(1, len(values)):
        true = values[i - 1] + (lines[i]["t0"] - lines[i - 1]["t0"]) * tick
        values[i] += round((true - values[i]) / period) * period
    return values


def _undisturbed(clock, lines):
    """The lines whose reading of the clock took no longer than usual (half as much more)."""
    took = sorted(line.took.get(clock.field, 0) for line in lines)
    return [line.took.get(clock.field, 0) <= 1.5 * took[len(took) // 4] for line in lines]


def offset(clock, lines):
    """How far host raw time is ahead of the clock, by the least delayed of the lines."""
    late = [line.stamp.raw - value for line, value, good in
            zip(lines, _unwrapped(clock, lines), _undisturbed(clock, lines)) if good]
    halves = [min(late[0::2]), min(late[1::2])] if len(late) > 1 else [late[0]] * 2
    return Offset(min(late), abs(halves[0] - halves[1]))


def tsc_offset(lines):
    """The same for the TSC, in ticks of it: exact, since the host's TSC has its rate."""
    late = [line.stamp.tsc - line["t0"] for line in lines]
    return min(late)


def error_ns(clock, before, after, near=0):
    """What the clock reads after, less (what it read before + true elapsed time): ns.

    Negative: it has lost. A wrapping clock knows its error only modulo its period; the
    value nearest to `near` is returned. Second: how sure.
    """
    if clock.field == "t0":
        lost = (tsc_offset(before) - tsc_offset(after)) * 1e9 / qemu.tsc_hz()
        return lost, offset(clock, before).wide + offset(clock, after).wide
    first, last = offset(clock, before), offset(clock, after)
    error = first.ns - last.ns
    if clock.wraps:
        period = clock.wraps * 1e9 / clock.hz
        error -= round((error - near) / period) * period
    return error, first.wide + last.wide


def errors(before, after, near=0, lapic_hz=0):
    """{clock: (error ns, how sure ns)} for every clock of the guest, the RTC included."""
    both = {name: error_ns(clock, before, after, near)
            for name, clock in clocks(before[0], lapic_hz).items()}
    edges = [rtc_minus_real(lines) for lines in (before, after)]
    if None not in edges:
        both["rtc"] = (edges[1][0] - edges[0][0], edges[0][1] + edges[1][1])
    return both


def rtc_minus_real(lines):
    """(RTC minus the host's CLOCK_REALTIME at an update edge, how sure), ns; None: none seen.

    The edge was stamped with the guest's TSC; the lines tie that to the host's clocks.
    Interrupts are late, never early, and nothing says how late: the earliest edge counts, as
    if it were exact. An edge that was looked for lies between two looks.
    """
    late = tsc_offset(lines)
    reference = lines[-1].stamp

    def real(tsc):
        return reference.real - (reference.tsc - (tsc + late)) * 1e9 / qemu.tsc_hz()

    least, most = [], []
    seen = lines[0]["nedge"]
    for line in lines[1:]:
        if line["nedge"] != seen:
            seen = line["nedge"]
            least.append(rtc_seconds(line["edge"]) * 10**9 - real(line["zedge"]))
            if line.fields.get("aedge"):
                most.append(rtc_seconds(line["edge"]) * 10**9 - real(line["aedge"]))
    if not least:
        return None
    low, high = max(least), min(most, default=max(least))
    return (low + high) / 2, abs(high - low) / 2


def phase(lines, source, hz, edge=slice(None)):
    """Guest TSC, in ns, at which the source's interrupt number 0 would have come.

    An interrupt is stamped late, never early, so the least of (stamp - number x period)
    over all lines has the true fraction of a period. How many whole periods it stands off
    changes where a tick is lost or replayed: that is judged by the lines `edge` alone.
    """
    period = 1e9 / hz
    ticks = 1e9 / qemu.tsc_hz()
    found = [line["z" + source] * ticks - line["n" + source] * period
             for line in lines if line["n" + source]]
    least = min(found)
    return least + math.floor((min(found[edge]) - least) / period + 0.2) * period


def missing(before, after, source, hz, settled=False):
    """Interrupts that the guest's TSC says should have come between, and did not.

    Whole where the timer kept its grid against the TSC; the fraction is a phase shift.
    Only the lines next to the gap count, so that a tick lost to a busy host elsewhere is
    not blamed on it; settled=True takes the last lines after instead, when replay is over.
    """
    old = after[0]["z" + source]		# perhaps stamped before the save
    after = [line for line in after if line["z" + source] != old]
    first = phase(before, source, hz, slice(-2, None))
    last = phase(after, source, hz, slice(-4, None) if settled else slice(0, 4))
    return (last - first) * hz / 1e9


def instant_of_tsc(lines, tsc):
    """When the guest's TSC had that value, on the host's CLOCK_REALTIME."""
    reference = lines[-1].stamp
    return reference.real - round((reference.tsc - (tsc + tsc_offset(lines))) * 1e9 /
                                  qemu.tsc_hz())


def rate_of_pit(hz):
    """What the guest's divider makes of a wish."""
    return PIT_HZ / min(65536, PIT_HZ // hz)


def grid_points(first_ns, period_ns, begin_ns, end_ns):
    """How many of first + k x period lie in (begin, end]: the ledger's own arithmetic."""
    def upto(t):
        return math.floor((t - first_ns) / period_ns)
    return upto(end_ns) - upto(begin_ns)
