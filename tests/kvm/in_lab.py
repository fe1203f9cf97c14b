#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The suite `devkvm` of test-kvm, and the LAPIC's of test-kernel, on real Linux KVM that honours TSC writes and has its master
clock: inside an emulated AMD host (tests/lab), which has what the machine itself may lack.

    in_lab.py --test EXE [--kernel-test EXE] --cache DIR [--host virtual|plain]...

A case that is skipped there is a failure. Exit status 77 with the reason where the host cannot
be made at all.
"""
import argparse
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab"))
sys.dont_write_bytecode = True
import lab  # noqa: E402

HOSTS = {"virtual": lab.VirtualAmdHost, "plain": lab.AmdHost}
NOTES = re.compile(r"^ \(|^    \S|^skipped|had failures|^\s+\d+\. ")


def run_on(kind, options, work):
    """Whether every case passed on this kind of host."""
    tests = [(path, suite) for path, suite in ((options.test, "devkvm"),
                                               (options.kernel_test, "kernel_lapic")) if path]
    with kind(work, options.cache, programs=[path for path, _ in tests]) as host:
        said = [host.run("%s %s || true" % (os.path.basename(path), suite), timeout=240)
                for path, suite in tests]
        kernel = host.run("uname -r").strip()
    print("%s, Linux %s" % (host.name, kernel))
    return all([passed(text) for text in said])


def passed(said):
    counts = re.search(r"^cases: (\d+) passed, (\d+) failed, (\d+) skipped", said, re.MULTILINE)
    for line in said.split("\n"):
        if NOTES.search(line) or line.startswith("cases:"):
            print("    " + line.strip())
    return bool(counts) and int(counts[1]) > 0 and counts[2] == counts[3] == "0"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--test", required=True, type=os.path.abspath)
    parser.add_argument("--kernel-test", type=os.path.abspath)
    parser.add_argument("--cache", required=True, type=os.path.abspath,
                        help="where the host's kernel is kept")
    parser.add_argument("--host", action="append", choices=sorted(HOSTS))
    options = parser.parse_args()
    failed = 0
    with lab.place(options.cache) as work:
        for name in options.host or ["virtual"]:
            failed += not run_on(HOSTS[name], options, work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(lab.script(main))
