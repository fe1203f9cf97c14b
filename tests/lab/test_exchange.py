#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The clock exchange over TCP whose way the kernel delays, shakes and loses (tc netem).

Both ends read one clock, and one of them adds a known number: what is said against that is
the error. On an emulated host, since netem is a module that not every kernel has.

    test_exchange.py --bench bench-exchange --cache DIR [--seconds N]
"""
import argparse
import os
import re
import sys

sys.dont_write_bytecode = True
import lab

MS = 1e6
# what it is called, what netem does to each way, what the first bound is at least, what the
# error is at most
WAYS = (("loopback", None, 0, 1 * MS),
        ("0.2 ms each way", "delay 200us 20us", 0.15 * MS, 1 * MS),
        ("20 ms, jitter 5 ms", "delay 20ms 5ms", 10 * MS, 10 * MS),
        ("20 ms, jitter 5 ms, 3 % lost", "delay 20ms 5ms loss 3%", 10 * MS, 10 * MS),
        ("20 ms, a tenth at once", "delay 20ms reorder 10%", 0, 20 * MS))
SAID = re.compile(r" (\d+) looks; error: worst +([\d.]+) us, .* first +([\d.]+) us, last +([\d.]+) us;"
                  r" beyond it (\d+)$", re.MULTILINE)


class Host(lab.VirtualAmdHost):
    modules = lab.VirtualAmdHost.modules + ("sch_netem",)


def measure(host, tc, report, seconds, name, netem, least_ns, most_ns):
    if netem:
        host.run("%s qdisc replace dev lo root netem %s" % (tc, netem))
    said = host.run("bench-exchange %g tcp '%s' || true" % (seconds, name),
                    timeout=60 + 20 * seconds)
    found = SAID.search(said)
    if not report.check("%s: the ends talk" % name, found and int(found[1]) > 0, said.strip()):
        return
    worst, first, last = (float(found[i]) * 1e3 for i in (2, 3, 4))
    report.check("%s: the way is that slow" % name, first >= least_ns, "%.3f ms" % (first / MS))
    report.check("%s: never beyond its bound" % name, found[5] == "0",
                 "worst error %.3f ms, bound at the end %.3f ms" % (worst / MS, last / MS))
    report.check("%s: as near as the way allows" % name, worst <= most_ns,
                 "%.3f ms" % (worst / MS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", required=True, type=os.path.abspath)
    parser.add_argument("--cache", required=True, type=os.path.abspath,
                        help="where the host's kernel is kept")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    cache = options.cache
    report = lab.Report()
    tc = lab.need("tc", "iproute2")		# by its path: its name is one of busybox's own
    with lab.place(cache) as work, Host(work, cache, programs=[options.bench, tc]) as host:
        host.run("ip link set lo up")
        for way in WAYS:
            measure(host, tc, report, options.seconds, *way)
    return report.end()


if __name__ == "__main__":
    sys.exit(lab.script(main))
