# SPDX-License-Identifier: MIT
"""What a save and a restore do to a guest's clocks: the steps that tests, demonstration and
experiments share.

    saved = Saved(lab, "pit=100 report=50")           boot, listen, stop, save
    run = restored(saved)                             load it as it is, resume
    run = rewritten(saved, pause_s=5)                 guestclock rewrite, load, resume on time
    run.errors()                                      {clock: (error ns, sure to ns)}

Truth is the host's raw clock: nothing here asks the library what is right.
"""
import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import guest
import qemu
import streampatch

SKIPPED = 77
# from the rewriting to the resume, for the load in between: more where it took longer
LEAD_LEAST_S, LEAD_MOST_S = 0.7, 3.0


class Lab:
    """Where things are: the guest's ELF, the command, a directory to work in."""

    def __init__(self, description, add=None):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"),
                            help="the test guest's ELF (or GCLK_GUEST)")
        parser.add_argument("--guestclock", default=os.environ.get("GCLK_COMMAND"),
                            help="the command (or GCLK_COMMAND)")
        parser.add_argument("--work", default=os.environ.get("GCLK_WORK"),
                            help="directory for images (or GCLK_WORK)")
        parser.add_argument("--accel", default="tcg")
        parser.add_argument("--machine", default="pc")
        if add:
            add(parser)
        self.args = parser.parse_args()
        self.guest, self.command = self.args.guest, self.args.guestclock
        self.options = {"accel": self.args.accel, "machine": self.args.machine}
        self.lead_s = LEAD_LEAST_S
        self.failed = []
        self.n_checks = 0

    def main(self, body, need_command=False):
        """Run body(self) in a fresh directory; the exit status of the program."""
        try:
            qemu.available(self.args.accel)
            if not self.guest or not os.path.exists(self.guest):
                raise qemu.Skip("no test guest (--guest): the compiler may lack -m32")
            if need_command and not (self.command and os.path.exists(self.command)):
                raise qemu.Skip("no guestclock (--guestclock)")
            with tempfile.TemporaryDirectory(prefix="gclk-", dir=self.args.work) as self.work:
                body(self)
        except qemu.Skip as reason:
            print("skipped: %s" % reason)
            return SKIPPED
        print("%d checks, %d failed%s" % (self.n_checks, len(self.failed),
                                          "".join("\n  " + name for name in self.failed)))
        return 1 if self.failed else 0

    def check(self, name, ok, detail=""):
        self.n_checks += 1
        if not ok:
            self.failed.append(name)
        print("%s: %s%s" % (name, "ok" if ok else "FAIL", "  " + detail if detail else ""),
              flush=True)
        return ok

    def path(self, name):
        return os.path.join(self.work, name)


def rfc3339(realtime_ns):
    whole = datetime.datetime.fromtimestamp(realtime_ns // 10**9, datetime.timezone.utc)
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + ".%09dZ" % (realtime_ns % 10**9)


STAMP_NS = 300000		# farther off than this, an event's stamp was the scheduler's
WIDTH_NS = 1000000		# between the RESUME stamp and the answer to cont
TRIES = 12


class Saved:
    """A stopped guest in a file, with what it said before, and the STOP stamp.

    On a busy host QEMU can lose its processor between stopping the clocks and stamping the
    event. Under TCG the image itself says what the guest's TSC was at the stop, and the
    guest's lines when that was: a guest whose stamp is off is saved again.
    """

    def __init__(self, lab, append, lines=60, name="saved.img", live=False, **options):
        self.lab = lab
        self.options = {**lab.options, **options, "kernel": lab.guest, "append": append}
        self.path = lab.path(name)
        with qemu.Qemu(lab.work, **self.options) as emulator:
            first = 0
            for _ in range(TRIES):
                guest.reports(emulator, first + lines, 60)
                self._save(emulator, live, first)
                if abs(self.stop_late) <= STAMP_NS:
                    return
                print("# the STOP stamp was %.1f ms late: saving once more" %
                      (self.stop_late / 1e6))
                first += len(self.before) + 5	# it stood still: what it said so far is past
                emulator.cont()
        raise qemu.QmpError("no STOP stamp within %d us in %d tries: the host is too busy" %
                            (STAMP_NS // 1000, TRIES))

    def _save(self, emulator, live, first):
        """first: of its lines that count, but for the next five."""
        self.stop = emulator.save(self.path, live)
        self.before = [line for line in guest.parse(emulator.serial.take())
                       if line.kind == "G"][first + 5:]
        self.stop_late = 0
        if self.options["accel"].startswith("tcg") and "-icount" not in str(self.options):
            ticks = self.image.get("timer", "cpu_ticks_offset")
            self.stop_late = self.stop - guest.instant_of_tsc(self.before, ticks)

    @property
    def image(self):
        return streampatch.read(self.path)


class Run:
    """A restored guest: what it said after, and the instants."""

    def __init__(self, saved, after, loaded, resumed, cont_ns, announced=None,
                 answer=None):
        self.saved, self.after = saved, after
        self.loaded, self.resumed, self.cont_ns = loaded, resumed, cont_ns
        self.announced, self.answer = announced, answer

    @property
    def gap_ns(self):
        return self.resumed - self.saved.stop

    def errors(self, near=0):
        """{clock: (guest minus truth, ns, how sure, ns)}; wrapping clocks: nearest to near."""
        return guest.errors(self.saved.before, self.after, near)

    def missing(self, source, hz, settled=False):
        """Interrupts that the guest's TSC says should have come, and did not."""
        return guest.missing(self.saved.before, self.after, source, hz, settled=settled)

    def missing_by_host(self, source, hz, settled=False):
        """The same on the host's time: for a timer that no save can stop."""
        late = guest.tsc_offset(self.after) - guest.tsc_offset(self.saved.before)
        return self.missing(source, hz, settled) + late * hz / qemu.tsc_hz()


class Disturbed(Exception):
    """The host was too busy for this run to say anything; another may."""


class Wide(Disturbed):
    """It cannot be told when the guest resumed."""


def load(saved, path, lines=60, at=None, hold=0.0, answer=None, timeout=60, width_ns=None):
    """Load an image paused, hold it, resume it (at an instant), listen.

    width_ns: a resume whose instant is known no better than so is Disturbed.
    """
    with qemu.Qemu(saved.lab.work, incoming=True, **saved.options) as emulator:
        loaded = emulator.load(path)["real"]
        time.sleep(hold)
        if at is not None and qemu.now().real > at:
            raise Disturbed("the load ended %.1f ms after the resume instant" %
                            ((loaded - at) / 1e6))
        resumed, cont_ns = emulator.cont(at)
        width = emulator.resume_width
        if width_ns is not None and width > width_ns:
            raise Wide("between RESUME and its answer lay %.1f ms" % (width / 1e6))
        after = guest.reports(emulator, lines, timeout)
    return Run(saved, after, loaded, resumed, cont_ns, at, answer)


def restored(saved, lines=60):
    """As stock QEMU does it."""
    return load(saved, saved.path, lines)


class CommandFailed(Exception):
    def __init__(self, status, stderr):
        Exception.__init__(self, "exit %d: %s" % (status, stderr.strip()))
        self.status, self.stderr = status, stderr


def command(lab, *args):
    """Run guestclock with --json; its answer. Raises CommandFailed."""
    done = subprocess.run([lab.command, *args, "--json"], capture_output=True, text=True,
                          timeout=300)
    if done.returncode:
        raise CommandFailed(done.returncode, done.stderr)
    return json.loads(done.stdout)


def rewrite(saved, out, resume_at, *extra, source=None, captured=True):
    """guestclock rewrite into another file; the plan that it answered with."""
    args = ["rewrite", source or saved.path, "-o", out, "--resume-at", rfc3339(resume_at)]
    if captured:
        args += ["--captured-at", rfc3339(saved.stop)]
    return command(saved.lab, *args, *extra)


def undisturbed(attempt):
    """attempt(width_ns), again while the host was too busy for it to say anything.

    Four vCPUs on two processors always are: later tries may be three times as wide.
    """
    for left in reversed(range(TRIES)):
        try:
            return attempt(WIDTH_NS if left > TRIES // 2 else 3 * WIDTH_NS)
        except Disturbed as disturbed:
            print("# %s: once more" % disturbed, flush=True)
    raise qemu.QmpError("no undisturbed resume in %d tries: the host is too busy, or cont is "
                        "slow" % TRIES)


def rewritten(saved, *extra, pause_s=0.0, lines=60, source=None, name="out.img"):
    """Wait, rewrite for an instant a little ahead, load paused, resume at that instant."""
    out, lab = saved.lab.path(name), saved.lab

    def attempt(width_ns):
        left = pause_s - lab.lead_s - (qemu.now().real - saved.stop) / 1e9
        time.sleep(max(0.0, left))
        resume_at = qemu.now().real + int(lab.lead_s * 1e9)
        answer = rewrite(saved, out, resume_at, *extra, source=source)
        try:
            return load(saved, out, lines, at=resume_at, answer=answer, width_ns=width_ns)
        except Wide:
            raise
        except Disturbed:
            lab.lead_s = min(2 * lab.lead_s, LEAD_MOST_S)	# on this host, today
            raise
    return undisturbed(attempt)


def copy(source, target):
    shutil.copyfile(source, target)
    return target


def run(body, description, **options):
    """For the scripts' last line."""
    sys.exit(Lab(description).main(body, **options))
