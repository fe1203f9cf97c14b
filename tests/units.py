#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The systemd units: systemd takes every line of them, and what they expose is little.

    units.py --service SERVICE --daemon PROGRAM SOCKET...
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e"))
import tally  # noqa: E402

EXPOSED = 3.5			# systemd's own measure, 0 to 10; an unconfined service has 9.6
t = tally.Tally()


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def stage(args, directory):
    """The units as they would be installed, with a program that is there."""
    program = os.path.abspath(args.daemon)
    for path in [args.service] + args.sockets:
        text = re.sub(r"^ExecStart=\S*/guestclockd$", "ExecStart=" + program, read(path),
                      flags=re.M)
        with open(os.path.join(directory, os.path.basename(path)), "w", encoding="utf-8") as out:
            out.write(text)


def calls_of(analyze, name, known):
    """A set of system calls by systemd's name for it, or a call by its own."""
    if not name.startswith("@"):
        return {name}
    if name not in known:
        known[name] = set()
        said = subprocess.run([analyze, "--no-pager", "syscall-filter", name],
                              capture_output=True, text=True, check=True).stdout
        for word in re.findall(r"^ +([@\w]+)$", said, re.M):
            known[name] |= calls_of(analyze, word, known)
    return known[name]


def filtered(args):
    """What is left of the system calls: each line adds, or with ~ takes away."""
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        t.skip("system calls", "systemd-analyze is not installed")
        return
    allowed, known = set(), {}
    for line in re.findall(r"^SystemCallFilter=(.*)$", read(args.service), re.M):
        for name in line.lstrip("~").split():
            calls = calls_of(analyze, name, known)
            allowed = allowed - calls if line.startswith("~") else allowed | calls
    # glibc's adjtimex() is either; socket_group of a socket of its own
    needs = {"adjtimex", "clock_adjtime", "fchown", "chown", "fchownat", "clock_nanosleep",
             "chroot", "setgroups", "setresgid", "setresuid", "prlimit64", "prctl", "execve",
             "sched_setscheduler", "setpriority"}
    never = {"settimeofday", "clock_settime", "init_module", "reboot", "mount", "swapon"}
    t.check("it may ask how the wall clock is kept, and own its sockets", needs <= allowed,
            repr(sorted(needs - allowed)))
    t.check("it may not set the clock, and more", not never & allowed,
            repr(sorted(never & allowed)))


def verify(args, directory):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        t.skip("systemd-analyze", "it is not installed")
        return
    units = [os.path.join(directory, os.path.basename(path))
             for path in [args.service] + args.sockets]
    done = subprocess.run([analyze, "--man=no", "--recursive-errors=no", "verify"] + units,
                          capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "guestclock" in line]
    t.check("systemd takes them", not said, "; ".join(said[:4]))
    done = subprocess.run([analyze, "security", "--offline=true", "--no-pager", units[0]],
                          capture_output=True, text=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    if found:
        t.check("little is exposed", float(found.group(1)) <= EXPOSED, found.group(1))
    else:
        t.skip("exposure", "this systemd does not tell it")


def promises(args):
    """What the programs count on."""
    text = read(args.service)
    for line in ("Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict",
                 "StateDirectory=guestclock", "LogsDirectory=guestclock"):
        t.check(line, re.search("^" + re.escape(line) + "$", text, re.M) is not None)
    capabilities = " ".join(re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M)).split()
    t.check("no capability to set the time", "CAP_SYS_TIME" not in capabilities)
    # as migrator/confine does it; CAP_KILL, for it is another user's process then
    confining = {"CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT", "CAP_KILL"}
    t.check("it may confine a process of its own, and end it", confining <= set(capabilities),
            repr(sorted(confining - set(capabilities))))
    # a thread with SCHED_RR, processes at CONFINE_NICE_LIVE: each within what its limit allows
    limits = dict(re.findall(r"^Limit(RTPRIO|NICE)=(-?\d+)$", text, re.M))
    t.check("its threads may hurry", int(limits.get("RTPRIO", 0)) >= 1 and
            int(limits.get("NICE", 0)) <= -10 and
            not re.search(r"^RestrictRealtime=(yes|true|on|1)$", text, re.M), repr(limits))
    sockets = re.search(r"^Sockets=(.*)$", text, re.M).group(1).split()
    t.check("its sockets are the ones here",
          sorted(sockets) == sorted(os.path.basename(path) for path in args.sockets))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--service", required=True)
    parser.add_argument("--daemon", required=True)
    parser.add_argument("sockets", nargs="+")
    args = parser.parse_args()
    promises(args)
    filtered(args)
    with tempfile.TemporaryDirectory(prefix="gclk-units-") as directory:
        stage(args, directory)
        verify(args, directory)
    return t.end()


if __name__ == "__main__":
    sys.exit(main())
