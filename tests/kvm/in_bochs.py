#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The suite `scaling` of test-kvm on kvm-intel with TSC scaling in hardware, as Bochs has it.

    in_bochs.py --test EXE --cache DIR [--model corei7_skylake_x] [--suite scaling]...

By hand: it takes one to four minutes. tests/lab/bochs.py says what it needs; exit status 77
where that is not there. Guests are moved between such hosts by tests/lab/test_minivmm_scaled.py.
"""
import argparse
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab"))
sys.dont_write_bytecode = True
import bochs  # noqa: E402
import lab    # noqa: E402

TIME0 = 1795228008


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--test", required=True, type=os.path.abspath)
    parser.add_argument("--cache", required=True, type=os.path.abspath)
    parser.add_argument("--model", default="corei7_skylake_x")
    parser.add_argument("--suite", action="append")
    options = parser.parse_args()
    options.suite = options.suite or ["scaling"]
    began = time.monotonic()
    with lab.place(options.cache) as work, \
            bochs.BochsHost(options.model, options.model, TIME0, work, options.cache,
                            programs=[options.test]) as host:
        said = host.run("%s %s || true" % (os.path.basename(options.test),
                                           " ".join(options.suite)), timeout=240)
    counts = re.search(r"^cases: (\d+) passed, (\d+) failed, (\d+) skipped", said, re.MULTILINE)
    print(said.strip())
    print("%s: %.0f s" % (options.model, time.monotonic() - began))
    return 0 if counts and int(counts[1]) and counts[2] == counts[3] == "0" else 1


if __name__ == "__main__":
    sys.exit(lab.script(main))
