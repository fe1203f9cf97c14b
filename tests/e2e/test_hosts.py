#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`guestclock hosts` and `guestclock check` against two real libvirt daemons.

    test_hosts.py --guest guest.elf --guestclock guestclock --guestclockd guestclockd
                  --wallshift wallshift.so
"""
import json
import os
import re
import subprocess
import time

import libvirtd
import qemu
import tally
import twohosts

PINNED = ("<timer name='rtc' tickpolicy='catchup'/><timer name='pit' tickpolicy='delay'/>"
          "<timer name='tsc' frequency='%d'/>")
SYS, REFUSED, STATE = 3, 1, 11
SHIFT_NS = -3 * 10**9


class Lab:
    def __init__(self, t, two, command):
        self.t, self.two, self.command = t, two, os.path.abspath(command)

    def run(self, *arguments):
        """guestclock in host a: (exit status, answer or None, what it said)."""
        done = self.two.a.run([self.command] + list(arguments))
        answer = json.loads(done.stdout) if done.stdout.startswith("{") else None
        return done.returncode, answer, done.stdout + done.stderr

    def matrix(self, *uris):
        """{(from, to): how}, with a and b for the two hosts."""
        status, answer, text = self.run("hosts", "--json", *uris)
        if status:
            raise qemu.QmpError("hosts: exit %d: %s" % (status, text))
        names = {self.two.a.uri: "a", self.two.b.uri: "b"}
        return answer, {(names.get(pair["from"]), names.get(pair["to"])): pair["takes"]
                        for pair in answer["matrix"]}


def hosts(lab):
    a, b = lab.two.a.uri, lab.two.b.uri
    answer, takes = lab.matrix(a, b)
    lab.t.check("hosts: each other's guests", takes == {("a", "b"): "yes", ("b", "a"): "yes"},
                repr(takes))
    lab.t.check("hosts: who they are", [(host["name"], host["uuid"]) for host in answer["hosts"]]
                == [(name, twohosts.HOST_UUID[name]) for name in "ab"])
    capabilities = lab.two.a.virsh("capabilities")
    counter = re.search(r"<counter name='tsc' frequency='(\d+)'", capabilities)
    if counter:
        apart = abs(int(counter.group(1)) - int(answer["hosts"][0]["host"]["tsc_hz"]))
        lab.t.check("hosts: the frequency is libvirt's", apart <= 1000, "%d Hz apart" % apart)
    status, _, text = lab.run("hosts", a, b)
    lab.t.check("hosts: as a table", status == 0 and re.search(r"^a +- +yes$", text, re.M) and
                re.search(r"^b +yes +-$", text, re.M), text if status else "")


def silent_hosts(lab):
    a, nowhere = lab.two.a.uri, "qemu+unix:///system?socket=/nonexistent"
    status, answer, text = lab.run("hosts", "--json", a, nowhere)
    lab.t.check("hosts: one does not answer", status == 0 and
                [host["state"] for host in answer["hosts"]] == ["done", "failed"] and
                "warning" in text, text[-200:] if answer is None else "")
    status, _, text = lab.run("hosts", "--check", a, nowhere)
    lab.t.check("hosts: --check says so", status == REFUSED, "exit %d" % status)
    status, _, text = lab.run("hosts", nowhere)
    lab.t.check("hosts: none answers", status == SYS, "exit %d" % status)
    sleeper = os.path.join(lab.two.work, "sleeper")
    with_nobody = libvirtd.SerialPort(sleeper)		# accepts, and says nothing
    try:
        begin = time.monotonic()
        status, _, text = lab.run("hosts", "--timeout", "500ms", a,
                                  "qemu+unix:///system?socket=" + sleeper)
        took = time.monotonic() - begin
        lab.t.check("hosts: one is silent", status == 0 and "no answer in time" in text and
                    took < 10, "%.1f s" % took)
    finally:
        with_nobody.close()


def by_daemon(lab, program):
    """The other host's own profile, and how far its wall clock is, from its guestclockd."""
    lab.two.b.set_wall(SHIFT_NS)
    lab.two.guestclockd("b", program)
    via = "unix:" + lab.two.socket_in("b", twohosts.DAEMON_SOCKET)
    _, answer, text = lab.run("hosts", "--json", lab.two.a.uri, lab.two.b.uri,
                              "--via", "none", "--via", via)
    found = answer["hosts"][1]
    apart = found["wall_clock_minus_ours"] or {"ns": 0, "uncertainty_ns": 0}
    error = int(apart["ns"]) - SHIFT_NS
    lab.t.check("hosts: the other wall clock is measured", found["host"]["hostname"] == "b" and
                abs(error) <= int(apart["uncertainty_ns"]) <= 10**6,
                "%+.1f us of %.1f us" % (error / 1e3, int(apart["uncertainty_ns"]) / 1e3))
    # the daemon has said so, and made no move of it
    log = os.path.join(lab.two.work, "b", "guestclock", "log")
    lab.t.check("hosts: no move is recorded for it", not os.listdir(log), repr(os.listdir(log)))
    lab.two.b.set_wall(0)
    _, answer, text = lab.run("hosts", "--json", lab.two.b.uri, "--via", "unix:/nonexistent")
    lab.t.check("hosts: no daemon is no obstacle", "no guestclock answers" in text and
                answer["hosts"][0]["state"] == "done")


def check(lab):
    lab.two.boot("a")
    status, answer, text = lab.run("check", twohosts.NAME, lab.two.b.uri, "--json")
    if not lab.t.check("check: a running guest", status == 0, text if status else ""):
        return
    domain = answer["domain"]
    lab.t.check("check: knows it", (domain["name"], domain["uuid"], domain["state"]) ==
                (twohosts.NAME, twohosts.UUID, "running"))
    found = [(finding["id"], finding["clock"]) for finding in answer["findings"]]
    lab.t.check("check: what its XML leaves open", found == [("ticks-policy-unknown", "pit")],
                repr(found))
    lab.t.check("check: the other host takes it", [host["takes"] for host in answer["hosts"]] ==
                ["yes"])
    status, _, text = lab.run("check", twohosts.NAME, lab.two.b.uri)
    lab.t.check("check: for people", status == 0 and "running on a" in text and
                re.search(r"^b +yes", text, re.M), text if status else "")
    status, _, text = lab.run("check", "nobody")
    lab.t.check("check: no such guest", status == STATE and "Nothing was changed" in text, text)
    lab.two.destroy()


def pinned(lab):
    """Defined, not started: a frequency that no host here has."""
    _, answer, _ = lab.run("host", "--json")
    here = int(answer["host"]["tsc_hz"])
    scales = "tsc_scaling" in answer["host"]["flags_names"]
    with open(lab.two.xml, encoding="utf-8") as file:
        xml = file.read()
    for name, hz, kvm in (("the host's", here, False), ("200 ppm more", here + here // 5000, False),
                          ("twice it", 2 * here, False), ("twice it, KVM", 2 * here, True)):
        text = re.sub("<clock.*</clock>", "<clock offset='utc'>%s</clock>" % (PINNED % hz), xml,
                      flags=re.S).replace("type='qemu'", "type='kvm'" if kvm else "type='qemu'")
        path = os.path.join(lab.two.work, "pinned.xml")
        with open(path, "w", encoding="utf-8") as out:
            out.write(text.replace("<name>", "<name>pinned-").replace("3f6a1c80", "3f6a1c81"))
        try:
            lab.two.a.virsh("define", path)
        except libvirtd.VirshError as error:
            lab.t.skip("pinned to " + name, str(error))
            continue
        expected = {"the host's": "yes", "200 ppm more": "drifting", "twice it": "no",
                    "twice it, KVM": "scaled" if scales else "no"}[name]
        status, answer, said = lab.run("check", "--json", "pinned-" + twohosts.NAME,
                                       lab.two.b.uri)
        takes = answer["hosts"][0]["takes"] if answer else said
        lab.t.check("check: pinned to " + name, status == 0 and takes == expected, takes)
        status, _, _ = lab.run("check", "--check", "pinned-" + twohosts.NAME, lab.two.b.uri)
        lab.t.check("check: --check, pinned to " + name, status ==
                    (0 if expected in ("yes", "scaled") else REFUSED), "exit %d" % status)


def body(args, work):
    t = tally.Tally()
    with twohosts.TwoHosts(work, args.guest, args.wallshift) as two:
        lab = Lab(t, two, args.guestclock)
        for function in (hosts, silent_hosts, by_daemon, check, pinned):
            try:
                function(lab, *([args.guestclockd] if function == by_daemon else []))
            except (libvirtd.VirshError, qemu.QmpError, subprocess.SubprocessError,
                    KeyError) as error:
                t.check(function.__name__ + " runs", False, repr(error))
    return t.end()


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guest", "guestclock", "guestclockd", "wallshift"))
