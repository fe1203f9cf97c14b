#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Somebody sets the host's wall clock while a guest is saved, stands, or is restored.

One libvirtd in private namespaces with its own wall clock (wallshift.c), which QEMU, libvirt
and guestclock share; one small TCG guest. Truth is the machine's raw clock, and for the RTC the
machine's wall clock, which nobody sets. What the report says of an error is not counted; a
clock that is off by more than its bound beyond that is a failure.

    test_walls.py --guest guest.elf --guestclock guestclock --hook guestclock-hook
                  --wallshift wallshift.so [--long] [--only NAME]
"""
import json
import lzma
import os
import random
import signal
import subprocess
import threading
import time

import guest
import libvirtd
import qemu
import test_hook
import test_libvirt
import test_save

NAME = test_libvirt.NAME
SEED = int(os.environ.get("GCLK_SEED", time.time()))
MS, S = 10**6, 10**9
STEPS = (3600 * S, -3600 * S, S, -S, 50 * MS, -50 * MS)
# the guest is heard for longer than a second, so that its RTC's edge comes by
ENOUGH = 70
# a guest's lines, and its RTC's edge, which an interrupt shows; libvirt's hook tells less well
READING_NS, HOOK_READING_NS = test_save.READING_NS, test_hook.READING_NS
LATE_EDGE_NS = 40 * MS
chance = random.Random(SEED)


class Lab(test_save.Lab):
    def __init__(self, args, work):
        self.args = args
        hooks = os.path.join(work, "etc", "hooks", "qemu.d")
        os.makedirs(hooks)
        test_hook.Lab.install(self, os.path.join(hooks, "50-guestclock"),
                              os.path.abspath(args.hook), work)
        super().__init__(args, work)
        self.hook("off")

    def make_host(self, work):
        return libvirtd.Host(work, wallshift=os.path.abspath(self.args.wallshift))

    def end_domain(self):
        super().end_domain()
        self.host.set_wall(0)

    def environment(self):
        return self.host.environment(
            GCLK_WALLSHIFT=os.path.join(self.host.run_dir, "wallshift"))

    def audited(self):
        return test_hook.Lab.audited(self)

    def hook(self, restore):
        test_hook.Lab.configure(self, restore=restore)

    def heard(self, starts):
        """What the guest says after a restore; by the host's own stamps, that nobody set."""
        serial = self.port.wait(starts + 1)
        end = time.monotonic() + 60
        while True:
            found = [line for line in guest.parse(serial.take()) if line.kind == "G"]
            if len(found) >= ENOUGH:
                return found
            if time.monotonic() > end:
                raise qemu.QmpError("the guest reported %d times" % len(found))
            time.sleep(0.02)


class Setting:
    """In so many seconds somebody sets the host's wall clock, once."""

    def __init__(self, lab, wait, by_ns):
        self.lab, self.by_ns, self.done = lab, by_ns, False
        self.at_ns = None		# by the host's own CLOCK_MONOTONIC
        self.timer = threading.Timer(wait, self.set)
        self.timer.start()

    def set(self):
        self.at_ns = qemu.now().mono
        self.lab.host.set_wall(self.by_ns)
        self.done = True

    def end(self):
        """Whether it was set while we waited for it."""
        was = self.done
        self.timer.cancel()
        self.timer.join()
        return was


def check_clocks(lab, name, before, after, report, reading_ns, rtc_set_ns=0, may_set_ns=0):
    """Each clock within its bound, of which a known error is no part.

    rtc_set_ns: by which its RTC was set with the host's clock while it still ran. QEMU has armed
    the second's end before that, which comes late then.
    may_set_ns: the same, where nobody knows whether it ran again already.
    """
    rows = {one["clock"]: one for one in report["clocks"]}
    known = test_save.number(rows["tsc"]["error_ns"]) or 0
    found = guest.errors(test_libvirt.steady(before), test_libvirt.steady(after), near=known)
    outside, said = [], []
    for clock, word in test_save.ALL.items():
        if clock not in found:		# the RTC's edge may come late once its clock was set back
            continue
        error, sure = found[clock]
        known = test_save.number(rows[word]["error_ns"]) or 0
        if clock == "rtc":
            error = min(error - rtc_set_ns, error - rtc_set_ns - may_set_ns,
                        key=lambda one: abs(one - known))	# the report may have it as known
        bound = test_save.number(rows[word]["bound_ns"])
        limit = reading_ns + sure + (test_save.EDGE_NS if clock == "rtc" else 0) + \
            (LATE_EDGE_NS if clock == "rtc" and rtc_set_ns else 0)
        text = "%s %+.2f ms, %+.2f known, bound %s" % (
            clock, error / 1e6, known / 1e6, "none" if bound is None else "%.2f" % (bound / 1e6))
        said.append(text)
        if bound is None or bound > S or abs(error - known) > bound + limit:
            outside.append(text)
    lab.t.differences(name + ": each clock within its bound", outside, "; ".join(said))


def name_of(what, by_ns, wait=None):
    return "%s, set by %+g s%s" % (what, by_ns / S, "" if wait is None else
                                   " after %.0f ms" % (wait * 1000))


def while_it_stands(lab):
    """Between save and restore: the image tells how the wall clock stood."""
    path = lab.image("stands.img")
    before, _ = test_save.saved(lab, path)
    for by_ns in STEPS:
        lab.host.set_wall(by_ns)
        report, _ = restored(lab, path)
        check_clocks(lab, name_of("between save and restore", by_ns), before, _, report,
                     READING_NS)
        lab.t.check(name_of("the report names it", by_ns),
                    abs(int(report["disagreement"]["ns"]) - by_ns) < MS,
                    json.dumps(report["disagreement"]))
        lab.end_domain()
        lab.must("undo", path, "--json")


def restored(lab, path):
    """(report, what the guest says)"""
    report = lab.load(path)
    return report, lab.heard(lab.starts)


def amid_restore(lab):
    path = lab.image("restore.img")
    before, _ = test_save.saved(lab, path)
    for turn in range(60 if lab.args.long else 6):
        by_ns, wait = STEPS[turn % len(STEPS)], chance.uniform(0.05, 0.7)
        setting = Setting(lab, wait, by_ns)
        report, after = restored(lab, path)
        name = name_of("amid a restore", by_ns, wait)
        lab.t.check(name + ": carried out", report["verdict"] in ("done", "late") and
                    setting.end(), report["verdict"])
        check_clocks(lab, name, before, after, report, READING_NS, may_set_ns=by_ns)
        lab.end_domain()


def amid_save(lab):
    for turn in range(30 if lab.args.long else 4):
        by_ns, wait = STEPS[turn % len(STEPS)], chance.uniform(0.0, 0.3)
        path = lab.image("save.img")
        serial = lab.boot()
        setting = Setting(lab, wait, by_ns)
        said = lab.save(NAME, path)
        name = name_of("amid a save", by_ns, wait)
        lab.t.check(name + ": its stop is known", said["verdict"] == "done" and
                    int(said["stopped"]["uncertainty_ns"]) < S, json.dumps(said["stopped"]))
        setting.end()
        lab.host.set_wall(by_ns)
        # an RTC that is set ahead ends its second at once: that edge is none
        before = [line for line in lab.lines(serial, 1)
                  if not setting.at_ns or line.stamp.mono < setting.at_ns]
        state = lab.must("inspect", "--json", path)["state"]
        ahead = int(said["stopped"]["realtime_ns"]) - guest.instant_of_tsc(
            before, int(state["tsc"][0]["value_ticks"]))
        ran_with_it = abs(ahead - by_ns) < abs(ahead)
        lab.t.check(name + ": and told rightly", min(abs(ahead), abs(ahead - by_ns)) <=
                    int(said["stopped"]["uncertainty_ns"]) + test_save.STOP_READING_NS,
                    "%+.2f ms" % (ahead / 1e6))
        report, after = restored(lab, path)
        check_clocks(lab, name, before, after, report, READING_NS,
                     by_ns if ran_with_it else 0)
        lab.end_domain()


def amid_hook(lab):
    """Plain virsh restore, and the hook writes behind libvirt's back."""
    path = lab.image("hook.img")
    before, _ = test_save.saved(lab, path)
    lab.hook("rewrite")
    for turn in range(30 if lab.args.long else 4):
        by_ns, wait = STEPS[turn % len(STEPS)], chance.uniform(0.05, 0.7)
        starts, lines = lab.port.count(), len(lab.audited())
        setting = Setting(lab, wait, by_ns)
        lab.virsh("restore", path)
        after = lab.heard(starts)
        record = test_hook.Lab.audit(lab, lines + 1)
        setting.end()
        name = name_of("amid the hook's writing", by_ns, wait)
        if lab.t.check(name + ": carried out", record["verdict"] in ("done", "late") or
                       "raced" in record["why"], "%s: %s" % (record["verdict"], record["why"])) \
           and record["verdict"] != "unproven":
            check_clocks(lab, name, before, after, record, HOOK_READING_NS,
                         may_set_ns=by_ns)
        lab.end_domain()
        test_hook.wait_closed(lab, path)
    lab.hook("off")


def amid_rewrite(lab):
    """The answer's instant is by the clock as it is in the end, or the answer says that it is not."""
    with lzma.open(os.path.join(lab.args.data, "streams", "q35-kvm-4.qs.xz")) as packed, \
         open(lab.path("stream"), "wb") as file:
        file.write(packed.read())
    told = 0
    for turn in range(200 if lab.args.long else 40):
        lab.host.set_wall(0)
        began = time.time_ns()
        child = subprocess.Popen(
            [lab.command, "rewrite", lab.path("stream"), "-o", lab.path("out"), "--json",
             "--captured-at", "@%d" % (began // S - 100)], env=lab.environment(),
            stdout=subprocess.PIPE, text=True)
        time.sleep(chance.uniform(0, 0.025))
        os.kill(child.pid, signal.SIGSTOP)
        by_ns = STEPS[turn % 4]
        lab.host.set_wall(by_ns)
        os.kill(child.pid, signal.SIGCONT)
        answer = json.loads(child.communicate(timeout=60)[0])
        run_ns = int(answer["resume_at"]["realtime_ns"])
        old = abs(run_ns - began) < 300 * S
        said = "wall-clock-set" in [one["id"] for one in answer["findings"]]
        told += said
        if not old and abs(run_ns - began - by_ns) > 300 * S or said and not old:
            lab.t.check(name_of("amid a rewriting", by_ns), False, "it is for %+.3f s%s" % (
                (run_ns - began) / 1e9, ", and says that the clock was set" if said else ""))
    lab.host.set_wall(0)
    lab.t.check("amid a rewriting: it was told", told > 0, "%d times" % told)


CASES = libvirtd.Cases([
    {"stands": while_it_stands, "restore": amid_restore, "save": amid_save, "hook": amid_hook,
     "rewrite": amid_rewrite}])
DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")


def options(parser):
    CASES.add(parser)
    parser.add_argument("--data", default=DATA)


def body(args, work):
    print("seed: %d" % SEED)
    test_save.has_live_verbs(args.guestclock)
    return CASES.run(args, Lab(args, work))


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guest", "guestclock", "hook", "wallshift"), options)
