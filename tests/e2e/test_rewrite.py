#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A rewritten guest, in stock QEMU, reads what truth says.

Truth is the host's raw clock between what the guest read before the save and after the
restore; the library has no part in it. For every run: the error of every clock, the plan's
bound over it, the interrupts counted against the ledger.

    test_rewrite.py --guest guest.elf --guestclock guestclock [--only NAME] [--third 1|2|3] [--long]

Most of the time is waiting: the thirds run side by side.
"""
import sys

import guest
import measure
import qemu

ERROR_NS = 2e6			# with the stop and resume instants known
BOUND_NS = 5e6
RTC_NS = 5e6			# what an update edge resolves
CONT_NS = 20e6
CLOCKS = {"tsc": "tsc", "hpet": "hpet", "pm": "pm_timer", "pit2": "pit", "rtc": "rtc"}
# 20 Hz: slow enough that a busy host loses no tick of its own
ALL = "pit=20 hpet=20 lapic=20 report=50 edge=poll"

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def bounds(run):
    return {row["clock"]: None if row["bound_ns"] is None else int(row["bound_ns"])
            for row in run.answer["bounds"]}


def ledger(run, timer):
    for row in run.answer["ledger"]:
        if row["timer"] == timer:
            return {key: int(value) if str(value).isdigit() else value
                    for key, value in row.items()}
    return None


def check_clocks(lab, name, run, expected, rtc=0):
    """Every clock is off by what the policy says (ns) and no more; the bound covers the rest.

    A guest that is resumed late is late by that: the error counts from the instant at which
    RESUME was stamped, the bound from there too; not an RTC that goes by the host's clock.
    """
    late = run.resumed - run.announced
    stated = bounds(run)
    found = run.errors(near=expected - late)
    of_host = {"rtc"} if "clock=vm" not in str(run.saved.options.get("rtc")) else ()
    for clock, row in CLOCKS.items():
        if clock not in found:
            continue
        error, sure = found[clock]
        error -= rtc if clock == "rtc" else expected
        limit = RTC_NS + sure if clock == "rtc" else ERROR_NS
        if clock not in of_host:
            error += late
        lab.check("%s: %s is right" % (name, clock), abs(error) <= limit,
                  "%+.3f ms, sure to %.3f ms, resumed %.3f ms late" %
                  (error / 1e6, sure / 1e6, late / 1e6))
        bound = stated.get(row)
        own = sure or RTC_NS	# an edge that came as an interrupt says nothing of its own
        lab.check("%s: the bound of %s covers it" % (name, clock),
                  bound is not None and abs(error) <= bound + own,
                  "%s ms" % ("unbounded" if bound is None else "%.3f" % (bound / 1e6)))
        if clock != "rtc":
            lab.check("%s: the bound of %s is at most 5 ms" % (name, clock),
                      bound is not None and bound <= BOUND_NS)


def check_cont(lab, name, run):
    lab.check("%s: cont takes at most 20 ms" % name, run.cont_ns <= CONT_NS,
              "%.1f ms" % (run.cont_ns / 1e6))


def tick_faults(run, timer, counted_ns):
    """What is wrong between the ledger and the interrupts that the guest counted.

    The guest's TSC moved by what was counted, so it knows how many should have come; those
    that did not are `missing`.
    """
    source, name, hz = timer
    row = ledger(run, name)
    if row is None:
        return ["the ledger has no %s" % name]
    missing, due = run.missing(source, hz), counted_ns * hz / 1e9
    faults = []
    if abs(missing - round(missing)) > 0.2:
        faults.append("%s lost its phase: %.3f missing" % (source, missing))
    if abs(row["missed"] - due) > 1.01:
        faults.append("%s missed %d by the ledger, %.2f by the clock" %
                      (source, row["missed"], due))
    if round(missing) != row["missed"] - row["replayed"]:
        faults.append("%s: %.2f missing, %d missed and %d replayed by the ledger" %
                      (source, missing, row["missed"], row["replayed"]))
    return faults


def check_ticks(lab, name, attempt):
    """attempt() returns faults; a busy host loses a tick now and then, never three times."""
    for _ in range(3):
        faults = attempt()
        if not faults:
            break
        print("# %s: %s: once more" % (name, "; ".join(faults)), flush=True)
    lab.check("%s: interrupts are what the ledger says" % name, not faults, "; ".join(faults))


def own_elapsed(run):
    """How long the guest was away by the stamps, announced resume."""
    return run.announced - run.saved.stop


# ---- the cases ----

@case
def count(lab):
    """5 s by default: all clocks right."""
    saved = measure.Saved(lab, ALL, lines=60)
    run = measure.rewritten(saved, pause_s=5, lines=60)
    check_clocks(lab, "5 s", run, 0)
    check_cont(lab, "5 s", run)


def on_axis(policy):
    return [word for timer in ("pit", "hpet", "lapic")
            for word in ("--ticks", "%s=%s" % (timer, policy))]


@case
def ticks(lab):
    """PIT, LAPIC and HPET, merged and discarded: the guest's count equals the ledger."""
    for via, append in (("ioapic", ALL), ("8259", ALL + " pic=yes")):
        for policy in ("merge", "discard"):
            def attempt():
                saved = measure.Saved(lab, append, lines=60)
                run = measure.rewritten(saved, *on_axis(policy), pause_s=2, lines=60)
                return [fault for timer in timers(saved)
                        for fault in tick_faults(run, timer, own_elapsed(run))]
            check_ticks(lab, "%s, %s" % (via, policy), attempt)


def timers(saved):
    """(source in the guest, name in the ledger, true rate) of the timers of ALL."""
    image = saved.image
    lapic = (image.get("apic", "initial_count") + 1) << image.get("apic", "count_shift")
    pit = image.get("i8254", "channels[0].count")
    return [("pit", "pit", guest.PIT_HZ / pit), ("hpet", "hpet[0]", 20),
            ("lapic", "lapic[0]", 1e9 / lapic)]


@case
def policies(lab):
    """freeze, wall and cap over a gap of 4 s."""
    saved = measure.Saved(lab, ALL, lines=60)
    run = measure.rewritten(saved, "--gap", "freeze", pause_s=4, lines=60)
    check_clocks(lab, "freeze", run, -own_elapsed(run))	# the RTC is the host's, untouched
    run = measure.rewritten(saved, "--gap", "wall", lines=60)
    check_clocks(lab, "wall", run, -own_elapsed(run))
    for cap_s in (2, 3600):
        run = measure.rewritten(saved, "--gap", "cap=%ds" % cap_s, lines=60)
        lost = max(0, own_elapsed(run) - cap_s * 10**9)
        check_clocks(lab, "cap=%ds" % cap_s, run, -lost, rtc=-lost)


@case
def freeze_changes_nothing(lab):
    """freeze leaves every byte that a clock reads from (the RTC on the axis)."""
    saved = measure.Saved(lab, ALL, lines=20, rtc="base=utc,clock=vm")
    answer = measure.rewrite(saved, lab.path("out.img"), qemu.now().real, "--gap", "freeze")
    lab.check("freeze: no change listed", answer["changes"] == [], repr(answer["changes"])[:200])
    with open(saved.path, "rb") as before, open(lab.path("out.img"), "rb") as after:
        data = before.read()
        lab.check("freeze: the stream's bytes stand", after.read(len(data)) == data)


@case
def again(lab):
    """Rewriting twice, three restores at three times, a copy, undo."""
    saved = measure.Saved(lab, ALL, lines=60)
    first = measure.rewritten(saved, lines=60, name="first.img")
    check_clocks(lab, "first", first, 0)
    source = lab.path("first.img")
    for i in range(3):
        run = measure.rewritten(saved, source=source, pause_s=0, lines=60,
                                name="again%d.img" % i)
        check_clocks(lab, "rewritten, restore %d" % (i + 1), run, 0)
        source = lab.path("again%d.img" % i)
    other = measure.copy(source, lab.path("copy.img"))
    run = measure.rewritten(saved, source=other, lines=60, name="of-copy.img")
    check_clocks(lab, "a copy", run, 0)
    in_place(lab, saved, lab.path("of-copy.img"))


def in_place(lab, saved, path):
    def attempt(width_ns):
        resume_at = qemu.now().real + 2 * 10**9
        answer = measure.command(lab, "rewrite", path, "--in-place", "--captured-at",
                                 measure.rfc3339(saved.stop), "--resume-at",
                                 measure.rfc3339(resume_at))
        return measure.load(saved, path, 100, at=resume_at, answer=answer, width_ns=width_ns)
    check_clocks(lab, "in place", measure.undisturbed(attempt), 0)
    measure.command(lab, "undo", path)
    with open(saved.path, "rb") as before, open(path, "rb") as after:
        lab.check("undo: every byte is back", before.read() == after.read())


def an_hour_later(lab, append):
    saved = measure.Saved(lab, append, lines=60)
    out = lab.path("hour.img")
    answer = measure.command(lab, "rewrite", saved.path, "-o", out, "--elapsed", "3600s")
    return measure.undisturbed(lambda width_ns: measure.load(saved, out, 150, answer=answer,
                                                             width_ns=width_ns))


@case
def hour(lab):
    """3600 s by --elapsed: clocks, what cont takes (a PIT that only the BIOS armed, too)."""
    for append in (ALL, "report=50 edge=irq"):
        run = an_hour_later(lab, append)
        name = "1 h, %s" % append.split()[0]
        away = run.resumed - run.saved.stop
        found = run.errors(near=3600e9 - away)
        for clock in ("tsc", "hpet", "pm", "pit2"):
            error = found[clock][0] - (3600e9 - away)
            lab.check("%s: %s has gone on by an hour" % (name, clock), abs(error) <= ERROR_NS,
                      "%+.3f ms" % (error / 1e6))
        check_cont(lab, name, run)

    def attempt():
        run = an_hour_later(lab, ALL)
        return [fault for timer in timers(run.saved)
                for fault in tick_faults(run, timer, 3600 * 10**9)]
    check_ticks(lab, "1 h", attempt)


@case
def slew(lab):
    """RTC with driftfix=slew and catchup: every tick of the gap is replayed; discard: none."""
    for rtc, gap_s in (("base=utc,driftfix=slew", 3), ("clock=vm,driftfix=slew", 3)):
        saved = measure.Saved(lab, "rtc=64 report=20", lines=40, rtc=rtc)
        hz = 32768 / saved.image.get("mc146818rtc", "period")
        for policy in ("catchup", "discard"):
            run = measure.rewritten(saved, "--ticks", "rtc=" + policy, pause_s=gap_s, lines=110)
            name = "rtc %s, %s" % (rtc, policy)
            row = ledger(run, "rtc")
            if not lab.check("%s: the ledger has rtc" % name, row is not None):
                continue
            due = own_elapsed(run) * hz / 1e9
            missing = run.missing("rtc", hz, settled=True)
            lab.check("%s: missed what the gap holds" % name,
                      abs(row["missed"] + row["owed_before"] - due) <= 2,
                      "%d of %.2f" % (row["missed"] + row["owed_before"], due))
            wanted = row["missed"] + row["owed_before"] - row["replayed"]
            # on the host's clock QEMU replays by itself what falls between load and resume
            own = (run.resumed - run.loaded) * hz / 1e9 if "vm" not in rtc else 0
            own = own if policy == "discard" else 0
            lab.check("%s: receives what the ledger says" % name,
                      -own - 2 <= missing - wanted <= 2,
                      "%.2f missing, %d missed, %d replayed, %.1f after the load" %
                      (missing, row["missed"], row["replayed"], own))


@case
def slew_long(lab):
    """RTC with slew, 120 s by --elapsed (beyond QEMU's own 60 s), at the operator's word."""
    saved = measure.Saved(lab, "rtc=64 report=20", lines=40, rtc="clock=vm,driftfix=slew")
    hz = 32768 / saved.image.get("mc146818rtc", "period")
    out = lab.path("slew.img")
    answer = measure.command(lab, "rewrite", saved.path, "-o", out, "--elapsed", "120s",
                             "--ticks", "rtc=catchup")
    run = measure.load(saved, out, 500, answer=answer)
    row = ledger(run, "rtc")
    missing = run.missing("rtc", hz, settled=True)
    lab.check("slew, 120 s: at least 100 ticks replayed", row["replayed"] >= 100,
              "%d of %d" % (row["replayed"], row["missed"]))
    lab.check("slew, 120 s: receives what the ledger says",
              abs(missing - (row["missed"] - row["replayed"])) <= 2,
              "%.2f missing, %d missed, %d replayed" % (missing, row["missed"],
                                                        row["replayed"]))


@case
def modes(lab):
    """q35, 32-bit and legacy HPET, 4 vCPUs, RTC on the axis; --long: one-shot LAPIC, no HPET,
    local time."""
    rarely = (("one-shot", ALL + " lapicmode=oneshot", {}),
              ("no hpet", ALL, {"hpet": False}),
              ("localtime", ALL, {"rtc": "base=localtime"}))
    for name, append, options in (
            ("q35", ALL, {"machine": "q35"}),
            ("hpet 32 bits", ALL + " hpetbits=32", {}),
            ("hpet legacy", ALL + " hpetmode=legacy", {}),
            ("4 vcpus", ALL + " smp=4", {"smp": 4}),
            ("rtc vm", ALL, {"rtc": "base=utc,clock=vm"}),
            *(rarely if lab.args.long else ())):
        saved = measure.Saved(lab, append, lines=60, **options)
        run = measure.rewritten(saved, lines=60)
        check_clocks(lab, name, run, 0)
        check_cont(lab, name, run)


@case
def icount(lab):
    """-icount: the axis is counted, the TSC is the axis; both go on by the gap, then at their pace."""
    saved = measure.Saved(lab, "pit=100 report=10", lines=40, extra=("-icount", "shift=7,sleep=on"))
    answer = measure.command(lab, "inspect", saved.path)
    stop_ns = int(answer["state"]["virtual_clock"]["clock_ns"])
    before = saved.before[-1]
    lab.check("icount: the axis found goes on from the guest's last reading",
              0 <= stop_ns - before["t9"] <= 0.5e9, "%.3f ms later" % ((stop_ns - before["t9"]) / 1e6))
    for gap in ("10s", "3600s"):
        counted = int(gap[:-1]) * 10**9
        answer = measure.command(lab, "rewrite", saved.path, "-o", lab.path("icount.img"),
                                 "--elapsed", gap)
        run = measure.load(saved, lab.path("icount.img"), 40, answer=answer)
        first, last = run.after[0], run.after[-1]
        lab.check("icount: the guest finds %s counted" % gap,
                  0 <= first["t0"] - stop_ns - counted <= 0.5e9,
                  "first reading %.3f ms after it" % ((first["t0"] - stop_ns - counted) / 1e6))
        apart = 10 * (first["hpet"] - before["hpet"]) - (first["t0"] - before["t0"])
        lab.check("icount: TSC and HPET stay together over %s" % gap, abs(apart) <= 20e6,
                  "%.3f ms" % (apart / 1e6))
        rate = (last["t0"] - first["t0"]) / (last.stamp.raw - first.stamp.raw)
        lab.check("icount: it keeps its pace after %s" % gap, 0.8 <= rate <= 1.25, "%.2f" % rate)


@case
def live(lab):
    """Saved by a live migration, and a TSC that must not have gone back."""
    saved = measure.Saved(lab, ALL, lines=60, live=True)
    run = measure.rewritten(saved, lines=60)
    check_clocks(lab, "live", run, 0)
    lab.check("live: the TSC goes on from where it was",
              run.after[0]["t0"] > saved.before[-1]["t9"])


@case
def long(lab):
    """120 s in real time."""
    saved = measure.Saved(lab, ALL, lines=60)
    run = measure.rewritten(saved, pause_s=120, lines=60)
    check_clocks(lab, "120 s", run, 0)
    check_cont(lab, "120 s", run)


LONG = {"long"}


def add_arguments(parser):
    parser.add_argument("--only", action="append", choices=sorted(CASES))
    parser.add_argument("--third", type=int, choices=(1, 2, 3), help="every third case alone")
    parser.add_argument("--long", action="store_true", help="the 120 s gap, too")


def chosen(args):
    """The names of the cases to run, in order."""
    if args.only:
        return [name for name in CASES if name in args.only]
    names = [name for name in CASES if args.long or name not in LONG]
    return names[args.third - 1::3] if args.third else names


def body(lab):
    for name in chosen(lab.args):
        function = CASES[name]
        print("# %s: %s" % (name, function.__doc__.split("\n")[0]), flush=True)
        try:
            function(lab)
        except (qemu.QmpError, measure.CommandFailed) as error:
            lab.check("%s runs" % name, False, str(error))


if __name__ == "__main__":
    sys.exit(measure.Lab(__doc__.split("\n")[0], add_arguments).main(body, need_command=True))
