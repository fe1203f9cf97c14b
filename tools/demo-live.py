#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The live demonstration that tools/demo --live prepares.

Two libvirt hosts on this machine, the wall clock of one 3 s ahead. A running guest is moved
there by plain libvirt and back by `guestclock migrate`. Truth is this machine's own clock,
which neither host sets: what the guest reads is compared with it before and after.
"""
import argparse
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "tests", "e2e"))
sys.dont_write_bytecode = True
import guest  # noqa: E402
import libvirtd  # noqa: E402
import qemu  # noqa: E402
import twohosts  # noqa: E402

AHEAD_NS = 3 * 10**9
CLOCKS = {"tsc": "TSC", "hpet": "HPET", "pm": "PM timer", "rtc": "RTC"}


def lost(two, before, old):
    """What each clock lost since those readings, ms, for a guest that has just arrived."""
    errors = guest.errors(before, two.readings(old + 1))
    return {name: -errors[name][0] / 1e6 for name in CLOCKS}


def plain(two, start):
    before = two.readings(start)
    with two.relay("a", "b"):
        two.virsh_migrate("a", "b")
    return lost(two, before, start)


def ours(two, start, options):
    """The move, and what its report says."""
    before = two.readings(start)
    command = [os.path.abspath(options.guestclock), "migrate", twohosts.NAME, two.a.uri, "-c", two.b.uri,
               "--via", "unix:" + two.socket_in("a", twohosts.DAEMON_SOCKET)]
    print("\n$ guestclock migrate %s qemu+unix:///system?socket=... --via unix:..." % twohosts.NAME,
          flush=True)
    done = two.b.run(command, timeout=120)
    if done.returncode:
        raise qemu.QmpError("guestclock migrate said:\n" + done.stderr)
    print(done.stdout)
    return lost(two, before, start)


def demonstrate(options, work):
    print("starting two libvirt hosts, the second one's wall clock 3 s ahead ...", flush=True)
    with twohosts.TwoHosts(work, options.guest, options.wallshift) as two:
        with open(os.path.join(two.a.at, "guestclock/etc/guestclock.conf"), "w",
                  encoding="utf-8") as out:
            out.write("[daemon]\nlibvirt = %s\n" % two.a.uri)
        two.guestclockd("a", options.guestclockd)
        start = two.boot("a")
        two.b.set_wall(AHEAD_NS)
        print("$ virsh migrate --live --p2p %s ..." % twohosts.NAME, flush=True)
        results = [plain(two, start), ours(two, start + 1, options)]
    print("What the guest's clocks lost, by this machine's own clock:\n")
    print("%-12s%16s  %18s" % ("", "virsh migrate", "guestclock migrate"))
    for name, title in CLOCKS.items():
        print("%-12s%13.3f ms  %15.3f ms" % (title, *(result[name] + 0.0 for result in results)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("guestclock", "guestclockd", "guest", "wallshift"):
        parser.add_argument("--" + name, required=True)
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="gclk-")	# short: sockets stand below it
    try:
        qemu.available()
        libvirtd.available()
        demonstrate(options, work)
    except (libvirtd.VirshError, qemu.QmpError, qemu.Skip) as error:
        print("tools/demo: error: %s" % error, file=sys.stderr)
        return 3
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
