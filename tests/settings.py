#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The sample of the settings, the manual page and the programs know the same ones.

    settings.py --sample guestclock.conf --manual guestclock.conf.5.rst --guestclock COMMAND
                --guestclockd PROGRAM
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e"))
import tally  # noqa: E402

t = tally.Tally()


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sample_settings(text):
    """{(section, name): value}, commented out or not."""
    found, section = {}, None
    for line in text.splitlines():
        heading = re.match(r"\[(\w+)\]$", line)
        setting = re.match(r";?(\w+) = (.*)$", line)
        if heading:
            section = heading.group(1)
        elif setting and section:
            found[section, setting.group(1)] = setting.group(2)
    return found


def manual_settings(text):
    """{(section, name)}: the terms of the page, a line of their own."""
    found, section = set(), None
    for line in text.splitlines():
        heading = re.match(r"\[(\w+)\]$", line)
        if heading:
            section = heading.group(1)
        elif re.match(r"[A-Z ]+$", line):
            section = None
        elif section and re.match(r"\*\*\w+\*\*.*=", line):
            found.update((section, name) for name in
                         re.findall(r"(?:^|, )\*\*([a-z_]+)\*\*(?=,| =)", line))
    return found


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).strip()


def with_settings(args, settings):
    """What the programs say to them: (exit of guestclockd --check, of host --policy, text)."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        for section in sorted({section for section, _ in settings}):
            file.write("[%s]\n" % section)
            file.writelines("%s = %s\n" % (name, value)
                            for (where, name), value in settings.items() if where == section)
        file.flush()
        daemon, said = run(args.guestclockd, "--check", "--conf", file.name)
        command, more = run(args.guestclock, "host", "--policy", "--conf", file.name)
    return daemon, command, said + "\n" + more


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("sample", "manual", "guestclock", "guestclockd"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    sample = sample_settings(read(args.sample))
    manual = manual_settings(read(args.manual))
    t.check("the sample has settings of all sections",
          {section for section, _ in sample} == {"policy", "daemon", "hook", "privilege"}, repr(len(sample)))
    unknown = sorted(set(sample) - manual)
    t.check("the manual knows those of the sample", not unknown, repr(unknown))
    daemon, command, said = with_settings(args, sample)
    t.check("guestclockd takes them", daemon == 0, said if daemon else "")
    t.check("guestclock takes them, without a word", command == 0 and "warning" not in said,
          said if command or "warning" in said else "")
    values = {"ticks": "rtc=catchup", "users": "root", "socket_group": "root",
              "tls_names": "CN=a; CN=b"}
    for section, name in sorted(manual - set(sample)):
        value = values.get(name, "none")
        daemon, command, said = with_settings(args, {(section, name): value})
        t.check("[%s] %s" % (section, name), daemon == 0 and command == 0 and
              "warning" not in said, "" if daemon == 0 and command == 0 else said)
    for name, value in (("tls_names", ""), ("tls_names", "CN=a;"), ("tls_names", "CN=a;;CN=b"),
                        ("users", "root,"), ("directories", "relative"), ("socket_mode", "07777")):
        daemon, _, said = with_settings(args, {("daemon", name): value})
        t.check("[daemon] %s = \"%s\" is refused" % (name, value), daemon != 0 and name in said, said)
    for section, word in (("daemon", "refused"), ("policy", "warned about")):
        daemon, command, said = with_settings(args, {(section, "no_such_setting"): "1"})
        t.check("[%s] a setting that there is not is %s" % (section, word),
              (daemon != 0 if section == "daemon" else command == 0 and "warning" in said), said)
    return t.end()


if __name__ == "__main__":
    sys.exit(main())
