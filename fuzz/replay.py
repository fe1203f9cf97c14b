#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every fuzz target over its seeds and over what was ever found for it.

    replay.py BUILD FOUND TARGET...
"""
import os
import subprocess
import sys
import tempfile


def main(build, found, *targets):
    failed = 0
    with tempfile.TemporaryDirectory(prefix="gclk-seeds-") as seeds:
        subprocess.run([os.path.join(build, "fuzz-seeds"), seeds], check=True)
        for target in targets:
            done = subprocess.run([os.path.join(build, "fuzz-" + target),
                                   os.path.join(seeds, target), os.path.join(found, target)])
            if done.returncode:
                print("fuzz-%s: exit %d" % (target, done.returncode))
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
