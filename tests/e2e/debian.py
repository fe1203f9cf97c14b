#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stock Debian 12 guest across a gap: what its console says, what its clocks and systemd's
watchdogs do, and what the plan had announced.

    debian.py --work DIR --guestclock COMMAND [--hpet on|off] [--gap 10] [--policy count]
              [--smp N] [--cpu MODEL] [--repeat N] [--control]

The guest is Debian's own packages (debootstrap, linux-image-cloud-amd64, systemd), untouched
but for the units below, with its root on a virtio disk; it is made once under DIR. One
image is saved for each machine, and rewritten and restored for each case. The gap is given by
--elapsed, so that an hour takes no hour: only the RTC, which is the host's, shows that.
Making the guest needs root (debootstrap) and a Debian mirror.
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

sys.dont_write_bytecode = True
import qemu  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
MIRROR = os.environ.get("GCLK_MIRROR", "http://deb.debian.org/debian")
PACKAGES = "systemd-sysv,dbus,udev,linux-image-cloud-amd64"
MEMORY_MIB = 512
APPEND = "root=/dev/vda rw console=ttyS0"
BOOT_S = 400			# patience: the machine may be busy
# services with a watchdog: WatchdogSec, seconds between pings, thousands of turns before each
DOGS = {"gc-dog-10": (10, 3, 0), "gc-dog-30": (30, 10, 0), "gc-dog-90": (90, 30, 0),
        "gc-worker-10": (10, 3, 20000), "gc-worker-30": (30, 10, 20000),
        "gc-slow-30": (30, 10, 200000)}
CONTROL = "gc-dog-10"		# is stopped at the end: the watchdog must bite then
SHIPPED = ["systemd-journald", "systemd-udevd", "systemd-logind"]

UNITS = {
    "gc-clocks.service": "[Service]\nExecStart=/usr/local/bin/gc clocks /dev/ttyS0\n",
    "gc-churn.service": "[Service]\nExecStart=/usr/local/bin/gc churn 10\n",
    "gc-shell.service": "[Service]\nEnvironment=PS1= PS2=\nExecStart=/bin/sh\n"
                        "StandardInput=tty-force\n"
                        "StandardOutput=tty\nTTYPath=/dev/ttyS1\nRestart=always\n",
    "gc-tick.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "gc-tick.timer": "[Timer]\nOnActiveSec=20s\nOnUnitActiveSec=20s\nAccuracySec=100ms\n",
    "gc-minute.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "gc-minute.timer": "[Timer]\nOnCalendar=*:*:00\nAccuracySec=100ms\n",
}
for _name, (_limit, _ping, _work) in DOGS.items():
    UNITS[_name + ".service"] = (
        "[Service]\nType=notify\nWatchdogSec=%d\nRestart=always\n"
        "ExecStart=/usr/local/bin/gc dog %d %d\n" % (_limit, 1000 * _ping, _work))
STARTED = [name for name in UNITS if name.endswith(".timer")] + \
          [name for name in UNITS if name.endswith(".service")
           and name.replace(".service", ".timer") not in UNITS]

# What the console must not say unannounced, by name.
TROUBLE = {
    "RCU stall": r"rcu: .*(stall|starved)|rcu_\w+ (self-)?detected .*stall",
    "soft lockup": r"soft lockup",
    "hard lockup": r"hard LOCKUP|Watchdog detected hard",
    "hung task": r"blocked for more than \d+ seconds|hung_task",
    "unstable clocksource": r"[Cc]locksource.*(unstable|skew)|TSC unstable|Marking TSC",
    "oops": r"Oops|BUG:(?! soft lockup)|[Kk]ernel panic|WARNING: CPU",
}
# What it may say.
REMARKS = {
    "readout too long": r"Long readout interval",
    "clocksource switched": r"Switched to clocksource",
    "slow interrupt": r"interrupt took",
}


class Refused(Exception):
    """The guest could not be made; the reason."""


# ---- the image ----

def _run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **options)
    if done.returncode:
        raise qemu.QmpError("%s: %s" % (command[0], done.stdout[-600:]))
    return done.stdout


def _bootstrap(root):
    for tool in ("debootstrap", "mke2fs", "qemu-img"):
        if not shutil.which(tool):
            raise qemu.Skip("%s is not installed" % tool)
    if os.getuid() != 0:
        raise qemu.Skip("only root may run debootstrap")
    shutil.rmtree(root, ignore_errors=True)
    # in mounts of its own: cut off in the middle, it leaves no /proc in the work directory
    done = subprocess.run(["unshare", "--mount", "debootstrap", "--variant=minbase",
                           "--include=" + PACKAGES, "bookworm", root, MIRROR], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise qemu.Skip("debootstrap failed: " + done.stdout.strip().split("\n")[-1])


def _write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _furnish(root):
    """The units, started at boot, and an empty root password for the console."""
    for name, text in UNITS.items():
        _write(os.path.join(root, "etc/systemd/system", name), "[Unit]\nDescription=%s\n\n%s" %
               (name, text))
    wants = os.path.join(root, "etc/systemd/system/multi-user.target.wants")
    os.makedirs(wants, exist_ok=True)
    for name in STARTED:
        link = os.path.join(wants, name)
        if not os.path.islink(link):
            os.symlink("/etc/systemd/system/" + name, link)
    compiler = os.environ.get("CC") or "gcc"
    _run(compiler.split() + ["-std=gnu11", "-O2", "-static", "-o",
                             os.path.join(root, "usr/local/bin/gc"),
                             os.path.join(HERE, "debian-guest.c")])
    _write(os.path.join(root, "etc/hostname"), "debian\n")
    shutil.rmtree(os.path.join(root, "var/cache/apt/archives"), ignore_errors=True)


def make(work):
    """{kernel, initrd, disk} of the guest under work; made where they are not there."""
    place = os.path.join(work, "debian")
    files = {name: os.path.join(place, name) for name in ("vmlinuz", "initrd", "disk.raw")}
    stamp = os.path.join(place, "made-from")
    with open(os.path.join(HERE, "debian-guest.c"), encoding="utf-8") as source:
        recipe = json.dumps([PACKAGES, UNITS, source.read()])
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            if file.read() == recipe:
                return files
    root = os.path.join(place, "root")
    if not os.path.exists(os.path.join(place, "bootstrapped")):
        print("# making a Debian guest, once: some minutes", flush=True)
        _bootstrap(root)
        _write(os.path.join(place, "bootstrapped"), "")
    _furnish(root)
    for name, pattern in (("vmlinuz", "vmlinuz-"), ("initrd", "initrd.img-")):
        found = [entry for entry in os.listdir(root + "/boot") if entry.startswith(pattern)]
        shutil.copyfile(os.path.join(root, "boot", sorted(found)[-1]), files[name])
    if os.path.exists(files["disk.raw"]):
        os.remove(files["disk.raw"])
    _run(["mke2fs", "-q", "-t", "ext4", "-d", root, files["disk.raw"], "1500M"])
    _write(stamp, recipe)
    return files


# ---- the machine ----

class Machine:
    """How a guest is started: everything that a restore must repeat."""

    def __init__(self, work, files, hpet=True, smp=1, cpu="qemu64", append=""):
        self.work, self.files, self.append = work, files, append
        self.hpet, self.smp, self.cpu = hpet, smp, cpu

    def name(self):
        return "%s, HPET %s, %d vCPU%s" % (self.cpu, "on" if self.hpet else "off", self.smp,
                                           ", " + self.append if self.append else "")

    def start(self, disk, incoming=False):
        shell = tempfile.mktemp(prefix="shell-", dir=self.work)
        extra = ["-initrd", self.files["initrd"], "-serial",
                 "unix:%s,server=on,wait=off" % shell,
                 "-drive", "file=%s,if=virtio,format=qcow2" % disk]
        emulator = qemu.Qemu(self.work, kernel=self.files["vmlinuz"],
                             append=(APPEND + " " + self.append).strip(),
                             cpu=self.cpu, smp=self.smp, hpet=self.hpet,
                             memory=MEMORY_MIB, incoming=incoming, extra=extra)
        emulator.shell = socket.socket(socket.AF_UNIX)
        emulator.shell.connect(shell)
        emulator.shell.settimeout(0.5)
        os.remove(shell)
        return emulator


def ask(emulator, command, timeout=90):
    """Have the guest's shell run a command; what it printed, or None."""
    text, end = b"", time.monotonic() + timeout
    emulator.shell.sendall(("\n( %s ) 2>&1; echo EN''D\n" % command).encode())
    while time.monotonic() < end:
        try:
            text += emulator.shell.recv(65536)
        except socket.timeout:
            continue
        if b"\nEND\r\n" in text:
            body = text.decode(errors="replace").split("EN''D\r\n", 1)[-1]
            return body.rpartition("END")[0].replace("\r", "").strip()
    return None


LINE = re.compile(rb"@GC (\d+) (\d+) (\d+) (\d+) ([\w-]+);")


class Reading:
    """One line of `gc clocks` and the stamp of its first byte."""

    def __init__(self, found, stamp):
        self.mono, self.tsc, self.boot, self.real = (int(found.group(i)) for i in (1, 2, 3, 4))
        self.source, self.stamp = found.group(5).decode(), stamp


def readings(chunks):
    text, starts = b"", []
    for stamp, data in chunks:
        starts.append((len(text), stamp))
        text += data
    found, at = [], 0
    for match in LINE.finditer(text):
        while at + 1 < len(starts) and starts[at + 1][0] <= match.start():
            at += 1
        found.append(Reading(match, starts[at][1]))
    return found


def console(chunks):
    """What is on the console besides those lines."""
    text = re.sub(rb"@GC [^;]*;\r?\n?", b"", b"".join(data for _, data in chunks))
    return [line.rstrip() for line in text.decode(errors="replace").split("\n")
            if line.strip()]


class Gone(Exception):
    """The guest was reset or its emulator ended."""


def listen(emulator, seconds, least=0):
    """Wait that long (and for so many lines); raises Gone when the guest goes."""
    end = time.monotonic() + seconds
    limit = end + 120
    while time.monotonic() < end or (len(readings(emulator.serial.take())) < least and
                                     time.monotonic() < limit):
        if emulator.process.poll() is not None or \
                any(event["event"] in ("RESET", "SHUTDOWN") for event in emulator.qmp.events):
            raise Gone()
        time.sleep(0.5)


# ---- save, restore ----

STATES = "for u in %s; do echo $u $(systemctl show -p NRestarts -p ActiveState " \
         "-p ExecMainPID --value $u); done"
TIMERS = "systemctl show -p LastTriggerUSec --timestamp=us --value gc-tick.timer " \
         "gc-minute.timer"


def states(emulator):
    """{unit: (restarts, main process)} as systemd has them; {} when it does not answer."""
    answer = ask(emulator, STATES % " ".join(list(DOGS) + SHIPPED)) or ""
    found = {}
    for line in answer.split("\n"):
        words = line.split()[-4:]
        if len(words) == 4 and words[1].isdigit() and words[2].isdigit():
            found[words[0]] = tuple(sorted((int(words[1]), int(words[2]))))
    return found


class Saved:
    """A guest that has settled, stopped and in a file, with its disk at that instant."""

    def __init__(self, machine, settle_s=25):
        self.machine = machine
        self.directory = tempfile.mkdtemp(prefix="saved-", dir=machine.work)
        self.image = os.path.join(self.directory, "image")
        self.disk = os.path.join(self.directory, "disk.qcow2")
        _run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
              machine.files["disk.raw"], self.disk])
        emulator = machine.start(self.disk)
        with emulator:
            emulator.wait_output(lambda chunks: b"login:" in b"".join(d for _, d in chunks),
                                 BOOT_S, "the login prompt")
            self.booted_s = (qemu.now().raw - emulator.launch.raw) / 1e9
            listen(emulator, settle_s, 20)
            self.states = states(emulator)
            if len(self.states) != len(DOGS) + len(SHIPPED):
                raise qemu.QmpError("systemd did not say how its services are: %r" %
                                    self.states)
            self.boot_says = ask(emulator, "dmesg | grep -iE 'clocksource|tsc|hpet|watchdog'")
            listen(emulator, 10)
            self.stop = emulator.save(self.image)
            chunks = emulator.serial.take()
        self.before = readings(chunks)[-25:]
        self.console = console(chunks)

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def guestclock(command, *args):
    done = subprocess.run([command, *args, "--json"], capture_output=True, text=True,
                          timeout=300, check=False)
    if done.returncode:
        raise qemu.QmpError("guestclock %s: exit %d: %s" % (args[0], done.returncode,
                                                            done.stderr.strip()))
    return json.loads(done.stdout)


def offset(lines, field, hz=1e9):
    """How far the host's raw clock is ahead of a clock of the guest, by the promptest line."""
    return min(line.stamp.raw - getattr(line, field) * 1e9 / hz for line in lines)


class Outcome:
    """One restore: what was announced, what the console said, how the clocks moved."""

    def __init__(self, saved, gap_s, policy):
        self.saved, self.gap_s, self.policy = saved, gap_s, policy
        self.findings, self.said, self.trouble, self.remarks = [], [], {}, {}
        self.restarted, self.moved, self.gone = {}, {}, False
        self.sources, self.journal, self.cont_ms, self.answered = [], "", 0.0, True
        self.silence_s, self.timers, self.real_set_s, self.control = 0.0, "", None, None
        self.dogs = ""

    def name(self):
        return "%s, %d s, %s" % (self.saved.machine.name(), self.gap_s, self.policy)

    def read_console(self, lines):
        self.said = lines
        for patterns, found in ((TROUBLE, self.trouble), (REMARKS, self.remarks)):
            for name, pattern in patterns.items():
                hits = [line for line in lines if re.search(pattern, line)]
                if hits:
                    found[name] = hits

    def read_clocks(self, after, resumed):
        """How far each guest clock went over the gap, ns, from STOP to RESUME."""
        if not after:
            return
        gap = resumed - self.saved.stop
        rate = qemu.tsc_hz()
        for field, hz in (("mono", 1e9), ("boot", 1e9), ("real", 1e9), ("tsc", rate)):
            self.moved[field] = gap + offset(self.saved.before, field, hz) - \
                offset(after, field, hz)
        self.sources = sorted({line.source for line in after})
        self.silence_s = (after[0].stamp.real - resumed) / 1e9

    def read_states(self, now):
        self.answered = bool(now)
        for unit, state in now.items():
            if state != self.saved.states[unit]:
                self.restarted[unit] = state

    def counted(self):
        """What the policy lets the guest count, ns."""
        if self.policy.startswith("cap="):
            return min(self.gap_s, int(self.policy[4:-1])) * 10**9
        return self.gap_s * 10**9 if self.policy == "count" else 0

    def announced(self):
        return [finding["id"] for finding in self.findings]


def watch(outcome, emulator, resumed, watch_s, control):
    """Listen to a restored guest, set its clock where the policy leaves it behind, ask."""
    listen(emulator, watch_s, 20)
    outcome.read_clocks(readings(emulator.serial.take()), resumed)
    if outcome.policy == "wall":
        true_s = outcome.gap_s + (qemu.now().real - resumed + outcome.saved.stop) / 1e9
        ask(emulator, "date -u -s @%.3f" % true_s)
        listen(emulator, 12)
        last = readings(emulator.serial.take())[-1]
        outcome.real_set_s = (last.real - last.stamp.real + resumed -
                              outcome.saved.stop) / 1e9
    outcome.read_states(states(emulator))
    outcome.journal = ask(emulator, "SYSTEMD_COLORS=0 journalctl -q --no-pager "
                                    "-o short-monotonic -n 90 -b") or ""
    outcome.timers = ask(emulator, TIMERS) or ""
    outcome.dogs = ask(emulator, "systemctl show -p Id "
                                 "-p WatchdogUSec -p NRestarts 'gc-*-[139]0.service'") or ""
    if control:
        ask(emulator, "kill -STOP $(systemctl show -p ExecMainPID --value %s)" % CONTROL)
        listen(emulator, 20)
        outcome.control = states(emulator).get(CONTROL) != outcome.saved.states[CONTROL]


def case(saved, command, gap_s, policy, watch_s=25, control=False):
    """Rewrite the image for that gap, restore it, watch it."""
    outcome = Outcome(saved, gap_s, policy)
    image = os.path.join(saved.directory, "rewritten")
    disk = os.path.join(saved.directory, "used.qcow2")
    args = [saved.image, "--elapsed", "%ds" % gap_s, "--gap", policy]
    outcome.findings = guestclock(command, "plan", *args)["findings"]
    guestclock(command, "rewrite", *args, "-o", image)
    shutil.copyfile(saved.disk, disk)
    emulator = saved.machine.start(disk, incoming=True)
    with emulator:
        emulator.load(image)
        resumed, cont_ns = emulator.cont()
        outcome.cont_ms = cont_ns / 1e6
        try:
            watch(outcome, emulator, resumed, watch_s, control)
        except Gone:
            outcome.gone = True
        outcome.read_console(console(emulator.serial.take()))
        if outcome.gone:
            outcome.read_clocks(readings(emulator.serial.take()), resumed)
    os.remove(image)
    return outcome


# ---- telling ----

def report(outcome, out=sys.stdout):
    def put(name, text):
        print("  %-12s %s" % (name, text), file=out, flush=True)
    print("== %s" % outcome.name(), file=out)
    put("announced", ", ".join(outcome.announced()) or "nothing")
    put("cont", "%.1f ms, first line after %.2f s" % (outcome.cont_ms, outcome.silence_s))
    for clock, ns in outcome.moved.items():
        put(clock, "%+.4f s, asked %+.4f s" % (ns / 1e9, outcome.counted() / 1e9))
    put("source", " ".join(outcome.sources))
    put("reset", "yes" if outcome.gone else "no")
    put("systemd", "answers" if outcome.answered else "DOES NOT ANSWER")
    put("restarted", ", ".join(sorted(outcome.restarted)) or "none")
    if outcome.control is not None:
        put("control", "a stopped service is killed: %s" % outcome.control)
    if outcome.real_set_s is not None:
        put("set", "clock set: the guest's is %+.3f s from its image's and %d s" %
            (outcome.real_set_s, outcome.gap_s))
    put("trouble", ", ".join(outcome.trouble) or "none")
    put("remarks", ", ".join(outcome.remarks) or "none")
    hits = [line for lines in outcome.trouble.values() for line in lines]
    for line in hits[:12]:
        put("console", line[:150])
    put("console", "%d lines in all" % len(outcome.said))
    for line in outcome.journal.split("\n"):
        if re.search(r"Watchdog|timeout|Failed|killed|jump|Time has been|ABRT|SIG", line):
            put("journal", line[:170])
    put("dogs", " ".join(outcome.dogs.split()))
    put("timers", " | ".join(line for line in outcome.timers.split("\n") if line))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="where the guest is kept")
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--hpet", choices=["on", "off"], action="append")
    parser.add_argument("--gap", type=int, action="append", help="seconds")
    parser.add_argument("--policy", action="append")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--cpu", default="qemu64")
    parser.add_argument("--append", default="", help="more kernel parameters")
    parser.add_argument("--repeat", type=int, default=1, help="images, each saved anew")
    parser.add_argument("--control", action="store_true",
                        help="stop a service at the end of the first case, too")
    options = parser.parse_args()
    files = make(options.work)
    for _ in range(options.repeat):
        for hpet in options.hpet or ["on", "off"]:
            machine = Machine(options.work, files, hpet == "on", options.smp,
                              options.cpu, options.append)
            saved = Saved(machine)
            print("# %s: up in %.0f s\n%s" % (machine.name(), saved.booted_s,
                                              saved.boot_says), flush=True)
            control = options.control
            for policy in options.policy or ["count"]:
                for gap_s in options.gap or [10, 60, 3600]:
                    report(case(saved, options.guestclock, gap_s, policy, control=control))
                    control = False
            saved.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
