#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demonstration that tools/demo prepares.

Truth is this host's CLOCK_MONOTONIC_RAW: every line of the guest is a pair (what the guest
read, when its mark arrived here). The smallest difference of the two over many lines tells
how far a clock is from truth, and how much further after a restore is what it lost.
"""
import argparse
import glob
import gzip
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "tests", "e2e"))
sys.dont_write_bytecode = True
import qemu  # noqa: E402

HPET_HZ = 100000000
LINES = 50			# two and a half seconds of the guest's
CLOCKS = ["TSC", "HPET", "CLOCK_MONOTONIC", "RTC"]
APPEND = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off nokaslr"
MEMORY_MIB = 128


class DemoError(Exception):
    pass


def unpack(package, directory):
    """The kernel itself out of its package, without the modules."""
    os.makedirs(directory, exist_ok=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package],
                          stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", directory, "--wildcards", "./boot/vmlinuz-*"],
                       stdin=archive.stdout, check=True)
    os.remove(package)


def kernel(work):
    """A Debian kernel: an installed one, or the package's file alone, unpacked under work."""
    def newest(directory):
        found = sorted(glob.glob(directory + "/vmlinuz-*-cloud-amd64"),
                       key=os.path.getmtime) or sorted(glob.glob(directory + "/vmlinuz-*"))
        return next((path for path in reversed(found) if os.access(path, os.R_OK)), None)

    path = newest("/boot") or newest(work + "/kernel/boot")
    if path:
        return path
    print("fetching a kernel package ...", flush=True)
    depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], text=True,
                             check=False, stdout=subprocess.PIPE).stdout
    names = [word for word in depends.split() if word.startswith("linux-image-")
             and word != "linux-image-cloud-amd64"]
    for name in names:
        if subprocess.run(["apt-get", "download", name], cwd=work, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            unpack(glob.glob(os.path.join(work, name + "_*.deb"))[0], work + "/kernel")
            break
    path = newest(work + "/kernel/boot")
    if not path:
        raise DemoError("no kernel for the guest. Try: apt-get install linux-image-cloud-amd64")
    return path


def cpio_entry(name, mode, data=b"", device=(0, 0)):
    """One entry of a newc archive."""
    name = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initramfs(work):
    """The guest's only program, compiled here, as /init."""
    program, path = os.path.join(work, "demo-init"), os.path.join(work, "demo.cpio.gz")
    subprocess.run(["gcc", "-O2", "-static", "-o", program,
                    os.path.join(HERE, "demo-guest.c")], check=True)
    with open(program, "rb") as file:
        init = file.read()
    archive = (cpio_entry("dev", stat.S_IFDIR | 0o755) +
               cpio_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)) +
               cpio_entry("init", stat.S_IFREG | 0o755, init) + cpio_entry("TRAILER!!!", 0))
    with gzip.open(path, "wb") as file:
        file.write(archive)
    return path


class Line:
    """What the guest read, in ns, and when that arrived, in ns of the raw clock."""

    def __init__(self, words, stamp):
        tsc, hpet, mono, rtc_s, since_edge = (int(word) for word in words)
        self.stamp = stamp
        self.ns = {"TSC": tsc * 1e9 / qemu.tsc_hz(), "CLOCK_MONOTONIC": mono}
        if hpet:
            self.ns["HPET"] = hpet * 1e9 / HPET_HZ
        if since_edge < 1050000000:	# else an edge was missed, as right after a restore
            self.ns["RTC"] = rtc_s * 1e9 + since_edge


def parse(chunks):
    """(what the guest says of itself, its lines)"""
    who, lines, text, stamp = None, [], None, None
    for arrival, data in chunks:
        for byte in data:
            if byte == 0x40:
                text, stamp = bytearray(), arrival
            elif byte in (0x0a, 0x0d) and text is not None:
                words = text.decode(errors="replace").split()
                if words[:1] == ["L"]:
                    who = words[1:]
                elif words[:1] == ["C"] and len(words) == 6:
                    lines.append(Line(words[1:], stamp.raw))
                text = None
            elif text is not None:
                text.append(byte)
    return who, lines


def listen(emulator, n, timeout=120):
    def ready(chunks):
        found = parse(chunks)
        return found if len(found[1]) >= n else None
    return emulator.wait_output(ready, timeout, "the guest's clocks")


def distance(lines, clock):
    """How far truth is ahead of a clock, ns, by its least delayed line; None if not seen."""
    seen = [line.stamp - line.ns[clock] for line in lines if clock in line.ns]
    return min(seen) if seen else None


def lost(before, after):
    result = {}
    for clock in CLOCKS:
        ends = distance(before, clock), distance(after, clock)
        result[clock] = None if None in ends else (ends[1] - ends[0]) / 1e9
    return result


def save(work, options, path):
    print("booting a Linux guest (software emulation) ...", flush=True)
    with qemu.Qemu(work, **options) as emulator:
        who, lines = listen(emulator, LINES)
        stopped = emulator.save(path)
        lines = parse(emulator.serial.take())[1]
    return who, lines[-LINES:], stopped


def restore(work, options, path, before, at=None):
    """Load, resume (at an instant), listen: what each clock lost, and the gap in s."""
    with qemu.Qemu(work, incoming=True, **options) as emulator:
        emulator.load(path)
        resumed, _ = emulator.cont(at)
        after = listen(emulator, LINES + 25)[1]
    return lost(before, after), resumed


def rewrite(guestclock, path, out, stopped, hold):
    """`guestclock rewrite`: the clocks as they must be at the instant that is returned."""
    at = qemu.now().real + int(hold * 1e9)
    command = [guestclock, "rewrite", path, "-o", out, "--captured-at", instant(stopped),
               "--resume-at", instant(at)]
    print("$ guestclock " + " ".join(os.path.basename(word) for word in command[1:]), flush=True)
    done = subprocess.run(command, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise DemoError("guestclock rewrite said:\n" + done.stdout)
    return at


def instant(ns):
    return "@%d.%09d" % divmod(ns, 10**9)


def show(who, gaps, results):
    def seconds(value):
        return "%12s" % ("not seen" if value is None else "%.3f" % (value + 0.0))
    columns = ["stock QEMU", "guestclock"]
    print("\nA Linux %s guest (clocksource %s), saved and restored:\n" %
          (who[0], who[1] if len(who) > 1 else "unknown"))
    print("%-28s%14s  %14s" % ("", *columns))
    print("%-28s%s s  %s s" % ("away for", *(seconds(gap) for gap in gaps)))
    for clock in CLOCKS:
        print("%-28s%s s  %s s" % ("lost on its " + clock,
                                   *(seconds(result[clock]) for result in results)))


def demonstrate(options, work):
    saved, out = os.path.join(work, "saved.img"), os.path.join(work, "rewritten.img")
    machine = {"kernel": kernel(options.work), "append": APPEND, "memory": MEMORY_MIB,
               "extra": ["-initrd", initramfs(work)]}
    qemu.tsc_hz()
    who, before, stopped = save(work, machine, saved)
    print("saved; waiting %g s ..." % options.seconds, flush=True)
    time.sleep(options.seconds)
    stock, resumed = restore(work, machine, saved, before)
    gaps, results = [(resumed - stopped) / 1e9], [stock]
    at = rewrite(options.guestclock, saved, out, stopped, 3)
    fixed, resumed = restore(work, machine, out, before, at)
    gaps.append((resumed - stopped) / 1e9)
    results.append(fixed)
    show(who, gaps, results)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guestclock", required=True, help="the command")
    parser.add_argument("--work", required=True, help="where a fetched kernel stays")
    parser.add_argument("--seconds", type=float, default=5, help="how long it stays saved")
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="gclk-demo-")	# short: sockets stand below it
    try:
        demonstrate(options, work)
    except (DemoError, qemu.QmpError, qemu.Skip) as error:
        print("tools/demo: error: %s" % error, file=sys.stderr)
        return 3
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
