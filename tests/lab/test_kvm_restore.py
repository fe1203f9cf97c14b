#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A KVM guest of stock QEMU, saved, rewritten by `guestclock`, restored with a pause between
the load and the resume: are its TSC and kvmclock where truth says?

    test_kvm_restore.py [--build DIR] [--host virtual|plain|local]...

Truth is computed here, from the host's TSC and clocks; nothing of the library takes part.
The TSC's error is exact where debugfs tells KVM's offset: the whole gap is counted, so the
offset has to be the same before and after. kvmclock's error follows from it and from the
pairs (TSC, kvmclock) that the guest read. The arrival of the guest's lines is a second,
coarser witness of both, and the only one where debugfs is silent.

Every line is "name: ok|FAIL|skipped: figures", the last one "N passed, N failed, N skipped".
Exit status 0, 1 if something failed, 77 if nothing could be run.
"""
import argparse
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True
import guest  # noqa: E402
import lab    # noqa: E402

FIRMWARE = ["qboot.rom", "kvmvapic.bin", "multiboot.bin", "multiboot_dma.bin"]
FIRMWARE_DIR = "/usr/share/qemu"
HOLD_S = 3		# between stop and save of the live-like run
LEAD_S = 2		# from before the rewriting to the end of the load
TRIES = 3
CONTROL_NS = 100000000	# how well the loss without us is what it should be
PLAN_NS = 100000	# how far off a plan itself may be, with its instants known
ERROR_NS = 10000000
BOUND_NS = 20000000
NS = 10**9


class Stamp:
    """One reading of the host's clocks: TSC ticks, ns of three clocks."""

    def __init__(self, words):
        self.tsc, self.raw, self.real, self.mono = (int(word) for word in words)


class Answer:
    """What one command of vmrun answered."""

    def __init__(self):
        self.value = self.status = self.began = self.ended = self.sent = self.replied = None
        self.instant = self.event = None
        self.output, self.lines = [], []

    def text(self):
        return "\n".join(self.output)


def qmp(name, **arguments):
    """The command of vmrun that sends a command of QMP."""
    request = {"execute": name}
    if arguments:
        request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
    return "qmp " + json.dumps(request)


class Runner:
    """vmrun on some host, and the one virtual machine that it runs.

    A run of commands that hang together in time goes in one batch: how long this side takes
    to answer means nothing in the host's time, and can be much of it.
    """

    def __init__(self, host, vmrun, directory, append, n_lines, verbose):
        self.directory, self.append, self.verbose = directory, append, verbose
        self.listen = ["forget", "lines %d" % n_lines]
        self.last_event, self.log = None, []
        self.talk = host.talk("%s %s" % (vmrun, directory))
        while self.talk.read() != "V vmrun":
            pass

    def quit(self):
        self.talk.send("quit")
        while self.talk.read() != "Q":
            pass

    def batch(self, *commands):
        """The answers to several commands; LabError if one failed."""
        for command in commands:
            self.talk.send(command)
        answers = [self._answer() for _ in commands]
        for command, (answer, complaint) in zip(commands, answers):
            if complaint or answer.status:
                raise lab.LabError("\n".join([command, complaint or "status %d" % answer.status] +
                                             answer.output + self.log[-10:]))
        return [answer for answer, _ in answers]

    def command(self, text):
        return self.batch(text)[0]

    def _answer(self):
        answer, complaint = Answer(), None
        while True:
            line = self.talk.read(120)
            if self.verbose and line[:1] not in "SO":
                print("    " + line[:200], file=sys.stderr)
            kind, rest = line[:1], line[2:]
            if kind == "D":
                words = rest.split()
                answer.began, answer.ended = Stamp(words[:4]), Stamp(words[4:8])
                answer.event = self.last_event
                return answer, complaint
            if kind == "?":
                complaint = rest
            else:
                complaint = self._take(kind, rest, answer) or complaint

    def _take(self, kind, rest, answer):
        if kind == "S":
            words = rest.split(" ", 4)
            line = guest.parse_line(words[4].encode(), Stamp(words[:4]))
            if line and line.kind == "G":
                answer.lines.append(line)
        elif kind == "E":
            words = rest.split(" ", 4)
            event = json.loads(words[4])
            when = event["timestamp"]
            event["real"] = when["seconds"] * NS + when["microseconds"] * 1000
            event["arrival"] = Stamp(words[:4])
            self.last_event = event
            if event.get("data", {}).get("status") == "failed":
                return "QEMU says: failed"
        elif kind == "R":
            words = rest.split(" ", 8)
            answer.sent, answer.replied = Stamp(words[:4]), Stamp(words[4:8])
            reply = json.loads(words[8])
            answer.value = reply.get("return")
            return reply.get("error", {}).get("desc")
        elif kind == "I":
            answer.instant = int(rest.split()[1])
        elif kind == "O":
            answer.output.append(rest)
        elif kind == "X":
            answer.status = int(rest)
        elif kind == "L":
            self.log.append(rest)
        return None

    # ---- QEMU ----

    def qemu(self, kernel, incoming=False):
        """The commands that start it."""
        args = ["qemu-system-x86_64", "-accel", "kvm", "-machine", "pc", "-cpu", "host",
                "-m", "16", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-bios", "qboot.rom", "-kernel", kernel, "-append", self.append,
                "-chardev", "socket,id=com1,path=%s/serial" % self.directory,
                "-serial", "chardev:com1", "-qmp", "unix:%s/qmp" % self.directory]
        if incoming:
            args += ["-incoming", "defer", "-S"]
        events = {"capability": "events", "state": True}
        return ["start " + "\t".join(args),
                qmp("migrate-set-capabilities", capabilities=[events])]


TSC_OFFSET = "shell cat /sys/kernel/debug/kvm/*-*/vcpu0/tsc-offset 2>/dev/null || true"


def offset_in(answer):
    """What KVM adds to the host's TSC for the guest; None where debugfs does not tell."""
    return int(answer.output[0]) if len(answer.output) == 1 else None


class Saved:
    """A guest that was saved: the file, and what is known from before."""

    def __init__(self, path, before, offset, stop, stopped, size):
        self.path, self.lines, self.offset = path, before.lines, offset_in(offset)
        self.stop, self.stopped, self.size = stop, stopped.event, int(size.text())


def save_stopped(vm, path):
    """As `virsh save` does: stop, then save."""
    _, before, offset, stop, stopped, _, _, size = vm.batch(
        *vm.listen, TSC_OFFSET, qmp("stop"), "event STOP",
        qmp("migrate", uri="exec:cat > " + path), "event MIGRATION completed",
        "shell stat -c %s " + path)
    return Saved(path, before, offset, stop, stopped, size)


def save_live(vm, path):
    """As libvirt's live migration does: stopped by it, and held before the switch-over."""
    hold = {"capability": "pause-before-switchover", "state": True}
    _, before, offset, _, stop, stopped, *_, size = vm.batch(
        *vm.listen, TSC_OFFSET, qmp("migrate-set-capabilities", capabilities=[hold]),
        qmp("migrate", uri="exec:cat > " + path), "event STOP",
        "event MIGRATION pre-switchover", "wait %d" % (HOLD_S * 1000),
        qmp("migrate-continue", state="pre-switchover"), "event MIGRATION completed",
        "shell stat -c %s " + path)
    return Saved(path, before, offset, stop, stopped, size)


class Restored:
    """A guest that runs again: what was planned, and what is."""

    def __init__(self, saved, state, plan, answers):
        self.saved, self.state, self.plan = saved, state, plan
        self.load_at, self.run_at = answers[2].instant, answers[3].instant
        self.release, self.loaded = answers[7], answers[8]
        self.offset = offset_in(answers[9])
        self.cont, self.resumed, self.lines = answers[10], answers[11], answers[13].lines
        first, last = saved.lines[0].stamp, self.lines[-1].stamp
        self.per_ns = (last.tsc - first.tsc) / (last.raw - first.raw)	# TSC, over the test

    def bound(self, clock):
        for bound in self.plan["bounds"]:
            if bound["clock"] == clock:
                return None if bound["bound_ns"] is None else int(bound["bound_ns"])
        return None

    def tsc_start(self):
        """The host's TSC when the guest's had the value that was loaded."""
        return int(self.state["tsc"][0]["value_ticks"]) - self.offset

    def kvmclock_start(self):
        """The host's TSC when kvmclock had the value that was loaded."""
        line = clear(self.lines)
        since_ns = line["pv"] - int(self.state["kvmclock"]["clock_ns"])
        return line["t0"] + line.after["pv"] - self.offset - since_ns * self.per_ns

    def late_ns(self, tsc, real_ns):
        """How long after an instant of the wall clock the host's TSC was that."""
        stamp = self.release.began
        return (tsc - stamp.tsc) / self.per_ns + stamp.real - real_ns

    def in_time(self, promise_ns):
        """Whether load and resume were as near to their instants as was promised."""
        return self.offset is None or not promise_ns or promise_ns > max(
            abs(self.late_ns(self.tsc_start(), self.load_at)),
            abs(self.late_ns(self.kvmclock_start(), self.run_at)))


def rewrite(guestclock, saved, path, promise_ns):
    keep = "+-%dns" % promise_ns if promise_ns else ""
    stop = "@%d.%06d" % divmod(saved.stopped["real"] // 1000, 10**6)
    stop += "+-%dns" % (promise_ns / 3) if promise_ns else ""
    return ("shell %s rewrite %s -o %s --json --captured-at %s --load-at $LOAD%s "
            "--resume-at $RUN%s" % (guestclock, saved.path, path, stop, keep, keep))


class Way:
    """How guests are restored on a host: what with, how long they are paused between load
    and resume, and how near to their instants load and resume are promised to be."""

    def __init__(self, where):
        self.kernel, self.guestclock = where["kernel"], where["guestclock"]
        self.pause_us, self.promise_ns = where["pause_s"] * 1000000, where["promise_ns"]


def restore(vm, saved, way, state=None):
    """Load, the stream's last byte held back until LOAD; pause; resume at RUN. With a
    rewriting for these two instants, unless the file's own state is given: then as it is."""
    path = saved.path if state else saved.path + ".out"
    answers = vm.batch(
        *vm.qemu(way.kernel, incoming=True),
        "instant LOAD %d" % (LEAD_S * 1000000), "instant RUN %d LOAD" % way.pause_us,
        "wait 0" if state else rewrite(way.guestclock, saved, path, way.promise_ns),
        qmp("migrate-incoming", uri="unix:%s/stream" % vm.directory),
        "feed %s %d" % (path, saved.size - 1),
        "at LOAD release", "event MIGRATION completed", TSC_OFFSET,
        "at RUN " + qmp("cont"), "event RESUME", *vm.listen)
    plan = None if state else json.loads(answers[4].text())
    return Restored(saved, state or plan["state"], plan, answers)


def restore_in_time(vm, saved, way):
    """The same, again where the machine was too busy for the promise to be kept."""
    for _ in range(TRIES):
        restored = restore(vm, saved, way)
        if restored.in_time(way.promise_ns):
            return restored
    raise lab.Skip("too busy: %d loads and resumes were not within %s of their instants" %
                   (TRIES, ms(way.promise_ns)))


# ---- truth ----

def clear(lines):
    """The line on which kvmclock was read with the least in between."""
    return min(lines, key=lambda line: line.took["pv"])


def ahead_of_tsc(line, per_ns):
    """kvmclock minus the TSC, both read by the guest, ns."""
    return line["pv"] - (line["t0"] + line.after["pv"]) / per_ns


class Errors:
    """What the guest's clocks read after, less what they read before plus the true time
    in between, ns: exactly (None where debugfs is silent), and by the lines' arrival."""

    def __init__(self, saved, restored):
        per_ns = restored.per_ns
        before, after = saved.lines, restored.lines
        self.tsc_lines = (self._tsc_late(before) - self._tsc_late(after)) / per_ns
        self.pv_lines = self._pv_late(before, per_ns) - self._pv_late(after, per_ns)
        self.tsc = self.pv = None
        if saved.offset is not None and restored.offset is not None:
            self.tsc = (restored.offset - saved.offset) / per_ns
            self.pv = (self.tsc + ahead_of_tsc(clear(after), per_ns) -
                       ahead_of_tsc(clear(before), per_ns))

    @staticmethod
    def _tsc_late(lines):
        return min(line.stamp.tsc - line["t0"] for line in lines)

    @staticmethod
    def _pv_late(lines, per_ns):
        return min(line.stamp.raw - line["pv"] + line.after["pv"] / per_ns for line in lines)

    def best(self, clock):
        exact = self.tsc if clock == "tsc" else self.pv
        return exact if exact is not None else \
            self.tsc_lines if clock == "tsc" else self.pv_lines

    def coarse(self, clock):
        return self.tsc_lines if clock == "tsc" else self.pv_lines


def ms(ns):
    return "%+.3f ms" % (ns / 1e6)


# ---- what has to hold ----

class Case:
    """One way of saving, on one host."""

    def __init__(self, report, name, saved):
        self.report, self.name, self.saved = report, name, saved

    def check(self, what, holds, figures):
        return self.report.check("%s: %s" % (self.name, what), holds, figures)

    def stock(self, restored):
        """Without us: what is lost is what the references say, so the measure sees it.
        Returns whether the TSC was set at all."""
        errors = Errors(self.saved, restored)
        stopped = self.saved.stopped["real"]
        lost = {"tsc": restored.load_at - stopped, "kvmclock": restored.run_at - stopped}
        honoured = errors.best("tsc") < -lost["tsc"] / 2
        for clock, away in lost.items():
            error = errors.best(clock)
            if clock == "tsc" and not honoured:
                self.report.skip("%s: stock tsc" % self.name, "writes to the TSC are ignored "
                                 "here: of %s it lost %s" % (ms(away), ms(-error)))
                continue
            self.check("stock " + clock, abs(error + away) <= CONTROL_NS,
                       "lost %s of %s" % (ms(-error), ms(away)))
        return honoured

    def clock(self, errors, restored, clock):
        """The error, and whether the plan's bound tells the truth about it."""
        error, bound = errors.best(clock), restored.bound(clock)
        self.check(clock, abs(error) <= ERROR_NS and bound is not None and
                   abs(error) <= bound <= BOUND_NS,
                   "error %s, bound %s, by arrival %s" %
                   (ms(error), "none" if bound is None else ms(bound), ms(errors.coarse(clock))))

    def forward(self, restored):
        """R1: no clock runs backwards over the gap."""
        last, first = self.saved.lines[-1], restored.lines[0]
        steps = [first["t0"] - last["t0"], first["pv"] - last["pv"]]
        self.check("forward", min(steps) > 0, "TSC %+d ticks, kvmclock %+d ns" % tuple(steps))

    def tsc_offset(self, restored):
        """KVM's offset is the planned TSC minus the host's at an instant in the load."""
        per_ns, start = restored.per_ns, restored.tsc_start()
        first, last = restored.release.began.tsc, restored.loaded.ended.tsc
        self.check("tsc-offset", first <= start <= last,
                   "%d: TSC started %s after the stream's last byte was sent, %s after its "
                   "instant; load reported %s later" %
                   (restored.offset, ms((start - first) / per_ns),
                    ms(restored.late_ns(start, restored.load_at)), ms((last - start) / per_ns)))

    def kvmclock_start(self, restored):
        """kvmclock read the planned value at an instant in `cont`."""
        per_ns, start = restored.per_ns, restored.kvmclock_start()
        first, last = restored.cont.sent.tsc, restored.resumed.ended.tsc
        self.check("kvmclock start", first <= start <= last,
                   "%s after cont was sent, %s after its instant" %
                   (ms((start - first) / per_ns), ms(restored.late_ns(start, restored.run_at))))

    def plan(self, restored, errors, state, within_ns):
        """The plan itself: each clock's error without how late it stopped and started. A
        stopped QEMU reads kvmclock a little after the TSC: that much it is ahead."""
        stop = int(state["tsc"][0]["value_ticks"]) - self.saved.offset
        early = restored.late_ns(stop, self.saved.stopped["real"])
        off = [errors.tsc + restored.late_ns(restored.tsc_start(), restored.load_at) - early,
               errors.pv + restored.late_ns(restored.kvmclock_start(), restored.run_at) - early]
        self.check("plan", max(map(abs, off)) <= within_ns,
                   "TSC %s, kvmclock %s, with the true instants" % tuple(map(ms, off)))

    def inspected(self, state):
        """The saved TSC is what KVM's offset says, at an instant in the stop."""
        stamp = self.saved.stopped["arrival"]
        per_ns = (stamp.tsc - self.saved.lines[0].stamp.tsc) / \
                 (stamp.raw - self.saved.lines[0].stamp.raw)
        at = int(state["tsc"][0]["value_ticks"]) - self.saved.offset
        event = stamp.tsc - (stamp.real - self.saved.stopped["real"]) * per_ns
        self.check("inspect tsc", self.saved.stop.sent.tsc <= at <= stamp.tsc,
                   "read %s before the STOP event's stamp" % ms((event - at) / per_ns))

    def restored(self, restored, state, honoured, promise_ns):
        errors = Errors(self.saved, restored)
        if honoured:
            self.clock(errors, restored, "tsc")
        else:
            self.report.skip(self.name + ": tsc", "writes to the TSC are ignored here; its "
                             "error is %s" % ms(errors.best("tsc")))
        self.clock(errors, restored, "kvmclock")
        self.forward(restored)
        if restored.offset is not None:
            self.tsc_offset(restored)
            self.kvmclock_start(restored)
            self.plan(restored, errors, state, max(PLAN_NS, promise_ns // 4))

    def pause_removed(self, restored):
        """D1, the time that kvmclock alone went on, was found through the guest's page."""
        found = {finding["id"]: finding["message"] for finding in restored.plan["findings"]
                 if finding["id"].startswith("kvmclock")}
        self.check("pause before the save", list(found) == ["kvmclock-pause-removed"],
                   "; ".join(found.values()) or "nothing is said of it")


def inspect(vm, way, saved):
    answer = vm.command("shell %s inspect --json %s" % (way.guestclock, saved.path))
    return json.loads(answer.text())["state"]


def run_on(report, host, options, where):
    """Everything, on one host."""
    vm = Runner(host, where["vmrun"], where["directory"], where["append"], where["n_lines"],
                options.verbose)
    way, files = Way(where), where["files"]
    vm.batch(*vm.qemu(way.kernel), *vm.listen)
    saved = save_stopped(vm, files + "/stopped.img")
    case = Case(report, host.name, saved)
    state = inspect(vm, way, saved)
    honoured = case.stock(restore(vm, saved, way, state))
    if saved.offset is not None:
        case.inspected(state)
    case.restored(restore_in_time(vm, saved, way), state, honoured, way.promise_ns)
    # the guest that was just restored goes on, and is saved the other way
    saved = save_live(vm, files + "/live.img")
    case = Case(report, host.name + ", live", saved)
    state = inspect(vm, way, saved)
    restored = restore_in_time(vm, saved, way)
    case.restored(restored, state, honoured, way.promise_ns)
    case.pause_removed(restored)
    vm.quit()


def on_emulated(report, kind, options, work, promise_ns):
    firmware = [(os.path.join(FIRMWARE_DIR, name),) * 2 for name in FIRMWARE
                if os.path.exists(os.path.join(FIRMWARE_DIR, name))]
    qemu = lab.need("qemu-system-x86_64", "qemu-system-x86")
    host = kind(work, options.cache, programs=[qemu, options.vmrun, options.guestclock],
                files=firmware + [options.guest])
    with host:
        run_on(report, host, options, {
            "vmrun": "vmrun", "directory": "/run/vm", "files": "/tmp",
            "guestclock": "guestclock", "kernel": host.path(options.guest),
            "append": "lapic=4 report=2", "n_lines": 5, "pause_s": 5,
            "promise_ns": promise_ns})


def on_this_machine(report, options, work):
    lab.need("qemu-system-x86_64", "qemu-system-x86")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise lab.Skip("/dev/kvm cannot be opened")
    with lab.Local(work) as host:
        run_on(report, host, options, {
            "vmrun": options.vmrun, "directory": work + "/vm", "files": work,
            "guestclock": options.guestclock, "kernel": options.guest,
            "append": "lapic=100 report=20", "n_lines": 30, "pause_s": 2,
            "promise_ns": 2000000})


# In virtual time a host acts at its instants. An emulated one in real time is a very slow
# one, and this machine may be busy: they promise what they can keep.
HOSTS = {
    "virtual": lambda *args: on_emulated(args[0], lab.VirtualAmdHost, *args[1:], 0),
    "plain": lambda *args: on_emulated(args[0], lab.AmdHost, *args[1:], 6000000),
    "local": on_this_machine,
}
NAMES = {"virtual": lab.VirtualAmdHost.name, "plain": lab.AmdHost.name,
         "local": lab.Local.name}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("GCLK_BUILD")
    parser.add_argument("--build", default=build or os.path.join(ROOT, "build", "gcc"),
                        help="where meson built guestclock and the test guest")
    parser.add_argument("--guestclock", default=os.environ.get("GUESTCLOCK"))
    parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"))
    parser.add_argument("--cache", help="where the kernel is kept; default: in the build")
    parser.add_argument("--host", action="append", choices=sorted(HOSTS),
                        help="default: virtual, then local")
    parser.add_argument("--long", action="store_true", help="on every host")
    parser.add_argument("--verbose", action="store_true", help="the conversation, on stderr")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.guestclock = options.guestclock or options.build + "/migrator/guestclock"
    options.guest = options.guest or options.build + "/tests/guest/guest.elf"
    options.cache = options.cache or options.build + "/lab"
    for path in (options.guestclock, options.guest):
        if not os.path.exists(path):
            parser.error("%s is not there: build first, or say --build" % path)
    return options


def main():
    options = arguments()
    report = lab.Report()
    hosts = options.host or (["virtual", "plain", "local"] if options.long else
                             ["virtual", "local"])
    with lab.place(options.cache) as work:
        options.vmrun = lab.compile_static(os.path.join(HERE, "vmrun.c"), work)
        for name in hosts:
            with report.part(NAMES[name]):
                HOSTS[name](report, options, work)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
