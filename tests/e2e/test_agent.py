#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The guest's own wall clock, set through its agent after a restore and after a migration.

A running Linux reads its RTC never again. With --gap wall its monotonic clock stands still
over the gap, and the agent is asked to set its wall clock. The guest is Debian's kernel with
busybox, Debian's qemu-guest-agent and a program that says what the clocks read.

    test_agent.py --guestclock guestclock --guestclockd guestclockd --wallshift wallshift.so
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "lab"))
sys.dont_write_bytecode = True
import debian  # noqa: E402
import lab  # noqa: E402
import libvirtd  # noqa: E402
import qemu  # noqa: E402
import tally  # noqa: E402
import twohosts  # noqa: E402

MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
           "virtio_pci", "virtio_console")
AGENT = "qemu-ga"
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in %s; do insmod /modules/$module.ko; done
gc clocks /dev/ttyS0 &
while :; do [ -e /stop ] || %s -m virtio-serial -p /dev/vport*p1 -t /tmp; sleep 1; done
"""
CHANNEL = """<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""
GAP_S = 3
NEAR_NS = 0.1e9			# a line of the guest's on its way, on a busy host
SAID = re.compile(r"it is ([+-]\d+) us off, known to within (\d+) us")


def pack(work, cache):
    """(kernel, initramfs) of the guest."""
    os.makedirs(cache, exist_ok=True)
    kernel = lab.kernel(cache)
    archive = lab.Initramfs()
    archive.busybox()
    for directory in ("proc", "sys", "dev", "tmp", "run"):
        archive.directory(directory)
    archive.data("init", (INIT % (" ".join(MODULES), AGENT)).encode(), 0o755)
    archive.link("sbin/hwclock", "/bin/busybox")	# what the agent sets the RTC with
    archive.program(libvirtd.find(AGENT))
    shutil.copy(lab.compile_static(os.path.join(HERE, "debian-guest.c"), work),
                os.path.join(work, "gc"))
    archive.file("bin/gc", os.path.join(work, "gc"))
    for module in MODULES:
        archive.file("modules/%s.ko" % module, kernel.module(module))
    path = os.path.join(work, "initramfs")
    archive.write(path)
    return kernel.image, path


class Guest:
    def __init__(self, t, two, args):
        self.t, self.two, self.args = t, two, args
        for name, host in two.hosts.items():
            with open(os.path.join(host.at, "guestclock/etc/guestclock.conf"), "w",
                      encoding="utf-8") as out:
                out.write("[daemon]\nlibvirt = %s\n" % host.uri)
            two.guestclockd(name, args.guestclockd)

    def boot(self):
        self.two.a.virsh("create", self.two.xml)
        self.wait_for_agent("a", 120)

    def agent(self, host, command, **arguments):
        return self.two.hosts[host].virsh("qemu-agent-command", twohosts.NAME, json.dumps(
            {"execute": command, "arguments": arguments} if arguments else
            {"execute": command}))

    def wait_for_agent(self, host, timeout):
        end = time.monotonic() + timeout
        while True:
            try:
                return self.agent(host, "guest-ping")
            except libvirtd.VirshError as error:
                if time.monotonic() > end:
                    raise qemu.QmpError("no agent in the guest: %s" % error)
            time.sleep(0.2)

    def stop_agent(self, host):
        self.agent(host, "guest-exec", path="/bin/sh",
                   arg=["-c", "touch /stop; killall " + AGENT])
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.agent(host, "guest-ping")
            except libvirtd.VirshError:
                return
            time.sleep(0.2)

    def readings(self, n=6, timeout=60):
        """What the guest's clocks read, by the serial port of its latest start."""
        serial = self.two.port.wait(self.two.port.count())
        first = len(debian.readings(serial.take()))
        end = time.monotonic() + timeout
        while True:
            found = debian.readings(serial.take())[first:]
            if len(found) >= n:
                return found
            if time.monotonic() > end:
                raise qemu.QmpError("the guest says nothing")
            time.sleep(0.1)

    def run(self, host, *arguments, timeout=60):
        done = self.two.hosts[host].run([os.path.abspath(self.args.guestclock)] + list(arguments),
                              timeout=timeout)
        if done.returncode not in (0, 13):
            raise qemu.QmpError("guestclock %s: exit %d: %s" % (
                arguments[0], done.returncode, done.stderr))
        return done.stdout + done.stderr


def ahead(readings):
    """How far the guest's wall clock is ahead of the machine's, by its promptest line."""
    return -min(line.stamp.real - line.real for line in readings)


def gone(before, after):
    """By how much its monotonic clock fell behind the machine's."""
    return min(line.stamp.raw - line.mono for line in after) - \
        min(line.stamp.raw - line.mono for line in before)


def judge(t, name, before, after, text):
    """The monotonic clock stood, the wall clock is right, and as far off as was said."""
    said = SAID.search(text)
    if not t.check(name + ": it was set, and looked at", said, text.strip()[-400:]):
        return
    off, bound = (int(one) * 1000 for one in said.groups())
    t.check(name + ": the wall clock is right, as far off as was said",
            abs(ahead(after) - off) <= bound + NEAR_NS and abs(off) <= NEAR_NS,
            "%+.3f ms; said %+.3f +- %.3f ms" % (ahead(after) / 1e6, off / 1e6, bound / 1e6))
    t.check(name + ": the monotonic clock stood", gone(before, after) > 0,
            "%.3f ms" % (gone(before, after) / 1e6))


def restores(guest, at):
    t, two = guest.t, guest.two
    image = os.path.join(two.work, "image")
    own = ["-c", two.hosts[at].uri, "--audit", os.path.join(two.work, "audit")]
    for agent in (True, False):
        before = guest.readings()
        if not agent:
            guest.stop_agent(at)
        guest.run(at, "save", *own, twohosts.NAME, image)
        time.sleep(GAP_S)
        text = guest.run(at, "restore", *own, "--state", two.work, "--gap", "wall", image)
        after = guest.readings()
        if agent:
            judge(t, "restored", before, after, text)
        else:
            t.check("restored, without an agent: said", "wall-clock-behind" in text,
                    text.strip()[-400:])
            t.check("restored, without an agent: the wall clock is behind",
                    ahead(after) < -GAP_S * 1e9 + NEAR_NS, "%+.3f s" % (ahead(after) / 1e9))
        os.unlink(image)


def migration(guest):
    two = guest.two
    before = guest.readings()
    text = guest.run("a", "migrate", twohosts.NAME, two.b.uri, "-c", two.a.uri, "--via",
                     "unix:" + two.socket_in("b", twohosts.DAEMON_SOCKET), "--gap", "wall")
    judge(guest.t, "migrated", before, guest.readings(), text)


def body(args, work):
    if not args.long:
        raise qemu.Skip("only with --long: a Debian boots for a minute")
    for program, package in ((AGENT, "qemu-guest-agent"), ("nsenter", "util-linux")):
        if not libvirtd.find(program):
            raise qemu.Skip("%s is not installed (package %s)" % (program, package))
    t = tally.Tally()
    try:
        kernel, initramfs = pack(work, args.cache or work)
    except lab.Skip as reason:
        raise qemu.Skip(str(reason))
    with twohosts.TwoHosts(work, "/nonexistent", args.wallshift) as two:
        with open(two.xml, "w", encoding="utf-8") as out:
            text = twohosts.domain_xml(
                kernel, two.port.path, mib=160, devices=CHANNEL,
                cmdline="console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off nokaslr")
            out.write(text.replace("</kernel>", "</kernel><initrd>%s</initrd>" % initramfs))
        try:
            guest = Guest(t, two, args)
            guest.boot()
            migration(guest)
            restores(guest, "b")
        except (libvirtd.VirshError, qemu.QmpError, subprocess.SubprocessError) as error:
            t.check("moves", False, repr(error))
    return t.end()


def options(parser):
    parser.add_argument("--cache", help="where Debian's kernel is kept, if it is not installed")
    parser.add_argument("--long", action="store_true")


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guestclock", "guestclockd", "wallshift"), options)
