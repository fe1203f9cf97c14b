#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`guestclock migrate` between two libvirt hosts, judged by what the guest itself reads.

A running guest is moved to and fro by us and by plain libvirt in one run: stock loses the
blackout, ours loses nothing that its report does not say, whatever the hosts' wall clocks
say. Then guests that are suspended, refusals, and clients that are killed.

    test_migrate.py --guest guest.elf --wallshift wallshift.so --guestclock guestclock
                    --guestclockd guestclockd [--part moves|ways|steps|kills] [--long] [--seed N]
"""
import json
import math
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time

import guest
import libvirtd
import qemu
import tally
import twohosts

LIMIT_NS = 2e6			# of a clock that is not said to be late
BOUND_NS = 5e6
RTC_NS = 5e6
BLACKOUT_NS = 50e6		# more than plain libvirt's
SHIFTS = (0, 3 * 10**9, -3 * 10**9)
PIT_TURN_NS = 65536e9 / 1193182
STEPS = (3600 * 10**9, -3600 * 10**9, 10**9, -10**9, 50 * 10**6, -50 * 10**6)
SETTLE_S = 3			# after a kill
NAMES = {"tsc": "tsc", "hpet": "hpet", "pm": "pm_timer", "pit2": "pit"}


def median(values):
    return sorted(values)[len(values) // 2]


class Hosts:
    """The two hosts with a daemon each, the guest, and the commands."""

    def __init__(self, t, two, args):
        self.t, self.two, self.args = t, two, args
        for name, host in two.hosts.items():
            with open(os.path.join(host.at, "guestclock/etc/guestclock.conf"), "w",
                      encoding="utf-8") as out:
                out.write("[daemon]\nlibvirt = %s\n%s" % (host.uri, self.settings()))
            two.guestclockd(name, args.guestclockd)
        self.events = {name: two.events(name) for name in two.hosts}
        self.start = two.boot("a")
        self.at = "a"
        self.wide, self.rtc = [], []	# bounds over 5 ms, errors beyond the bound

    @staticmethod
    def settings():
        """What else the daemons are to know."""
        return ""

    def other(self):
        return "b" if self.at == "a" else "a"

    def command(self, *options, via=None):
        there = self.other()
        return [os.path.abspath(self.args.guestclock), "migrate", twohosts.NAME,
                self.two.hosts[there].uri, "-c", self.two.hosts[self.at].uri, "--via",
                via or "unix:" + self.two.socket_in(there, twohosts.DAEMON_SOCKET)] + \
            list(options)

    def stdio(self):
        """The other end as ssh would start it."""
        host = self.two.hosts[self.other()]
        return "exec:" + " ".join(host.within([
            os.path.abspath(self.args.guestclock), "proxy", "--stdio", "--libvirt",
            "'%s'" % host.uri]))

    def run(self, *options, via=None, timeout=60):
        return self.two.hosts[self.at].run(self.command(*options, via=via), timeout=timeout)

    def arrived(self):
        self.at = self.other()
        self.start = self.two.port.count()

    def lines(self, start):
        return [line for line in guest.parse(self.two.port.wait(start).take())
                if line.kind == "G"]

    def backwards(self, source, destination):
        """Clocks that read less on arrival than at last."""
        last, first = self.lines(source)[-1], self.lines(destination)[0]
        return [name for name, clock in guest.clocks(last).items()
                if not clock.wraps and not clock.down and
                clock.value(first) < clock.value(last)]

    def is_idle(self, name):
        """libvirt is done with what it was asked for."""
        try:
            return "None" in self.two.hosts[name].virsh("domjobinfo", twohosts.NAME)
        except libvirtd.VirshError:
            return False		# in the midst of it

    def where(self):
        states = self.two.states()
        return [name for name, state in states.items() if state], states


# ---- moves ----

def ours(hosts, name, *options, via=None):
    """One move of ours: (errors, report, blackout), or None where it failed."""
    t, two = hosts.t, hosts.two
    before = two.readings(hosts.start)
    source, old = hosts.at, hosts.start
    done = hosts.run("--json", *options, via=via)
    if not t.check(name + ": exit status", done.returncode == 0, done.stderr.strip()[-300:]):
        return None
    report = json.loads(done.stdout)
    reports = getattr(hosts.args, "reports", None)
    if reports:
        with open(reports, "a", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")
    before = two.readings(old)
    hosts.arrived()
    after = two.readings(hosts.start)
    t.check(name + ": it runs there alone",
            two.states() == {source: None, hosts.at: "running"}, repr(two.states()))
    t.differences(name + ": no clock went backwards", hosts.backwards(old, hosts.start))
    errors = guest.errors(before, after)
    if errors["rtc"][0] < -RTC_NS:
        # its one edge may have come late, as interrupts do: the earliest of three counts
        errors = guest.errors(before, two.readings(hosts.start, 6 * twohosts.ENOUGH))
    return errors, report


def against_report(errors, clocks):
    """What the guest reads against what the report says: (the largest unsaid error, what is
    beyond its bound, bounds over 5 ms). Not the RTC, which goes by walls."""
    worst, faults, wide = 0, [], []
    for mine, its in NAMES.items():
        error, sure = errors[mine]
        said = int(clocks[its]["error_ns"])
        bound = clocks[its]["bound_ns"]
        bound = float("inf") if bound is None else int(bound)
        off = abs(error - said)
        if mine == "pit2":	# 16 bits
            off = abs(math.remainder(error - said, PIT_TURN_NS))
        worst = max(worst, off - sure)
        if off > bound + sure:
            faults.append("%s: %+.3f ms, said %+.3f +- %.3f" % (mine, error / 1e6, said / 1e6,
                                                                bound / 1e6))
        if bound > BOUND_NS:
            wide.append("%s: %.3f ms" % (mine, bound / 1e6))
    return worst, faults, wide


def judge(hosts, name, errors, report):
    """The largest error that the report does not say."""
    clocks = {one["clock"]: one for one in report["clocks"]}
    worst, faults, wide = against_report(errors, clocks)
    rtc, bound = errors["rtc"][0], int(clocks["rtc"]["bound_ns"])
    detail = "off by %+.3f ms, said %+.3f; rtc %+.3f ms; apart %s ns" % (
        errors["tsc"][0] / 1e6, int(clocks["tsc"]["error_ns"]) / 1e6, rtc / 1e6,
        report["disagreement"]["ns"] if report["disagreement"] else None)
    hosts.t.differences(name + ": the bounds cover the errors", faults, detail)
    hosts.wide.append(bool(wide))
    # an edge is seen late where the guest waits for a processor
    hosts.rtc.append(abs(rtc) - bound)
    hosts.t.check(name + ": the RTC goes on", abs(rtc) <= 4 * RTC_NS + bound,
                  "%+.3f ms" % (rtc / 1e6))
    return worst


def read_back(t, name, report):
    """What the monitor shows of an emulated guest is what was written (R7)."""
    rows = {one["clock"]: one for one in report["clocks"]}
    for clock in ("virtual_clock", "hpet", "rtc"):
        row = rows[clock]
        t.check("%s: %s was read back" % (name, clock), row["proof"] == "verified",
                "%s by %s: %s ns off, read to %s" % (row["proof"], row["read_by"],
                                                     row["read_ns"], row["read_width_ns"]))
    t.check(name + ": of the rest nothing is claimed",
            all(row["unread"] for row in rows.values() if row["proof"] == "unverified") and
            rows["tsc"]["proof"] == "unverified", rows["tsc"]["unread"])


def stock(hosts, name):
    """Plain libvirt through a relay: it loses the blackout."""
    t, two = hosts.t, hosts.two
    first = {host: events.count() for host, events in hosts.events.items()}
    source, old = hosts.at, hosts.start
    with two.relay(source, hosts.other()):
        two.virsh_migrate(source, hosts.other())
    before = two.readings(old)
    hosts.arrived()
    errors = guest.errors(before, two.readings(hosts.start))
    blackout = hosts.events[hosts.at].wait("RESUME", first[hosts.at]) - \
        hosts.events[source].wait("STOP", first[source])
    error, sure = errors["tsc"]
    t.check(name + ": stock loses the blackout", abs(error + blackout) <= BOUND_NS + sure,
            "%+.3f ms of %.3f ms" % (error / 1e6, blackout / 1e6))
    return blackout


def children_since(pid, boot_ns):
    """When a process's children began that began since: CLOCK_BOOTTIME, to 10 ms."""
    began = []
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%d/stat" % int(entry), encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except (ValueError, OSError):
            continue
        ns = int(fields[19]) * 10**9 // os.sysconf("SC_CLK_TCK")
        if int(fields[1]) == pid and ns >= boot_ns:
            began.append(ns)
    return began


def spare_is_no_hurry(hosts, name, report):
    """The daemon has a process ready for the next stream; that begins once this guest runs."""
    host = hosts.two.hosts[hosts.at]
    ran_ns = int(report["ran"]["realtime_ns"]) - host.wall_ns - \
        (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    end, began = time.monotonic() + 10, []
    while not began and time.monotonic() < end:
        began = children_since(host.children[0].pid, ran_ns - int(report["blackout_ns"]))
    hosts.t.check(name + ": the next move's process begins after the resume",
                  began and min(began) > ran_ns - 10**7,
                  "%s ms" % ", ".join("%+.0f" % ((one - ran_ns) / 1e6) for one in began))


def moves(hosts, n):
    t = hosts.t
    plain = [stock(hosts, "stock %d" % i) for i in range(2)]
    unsaid, blackouts, late = [], [], []
    for i in range(n):
        if hosts.at == "a":
            hosts.two.b.set_wall(SHIFTS[i // 2 % len(SHIFTS)])
        name = "move %d" % (i + 1)
        found = ours(hosts, name, *(["--verify", "monitor"] if i == n - 1 else []))
        if not found:
            return
        if i == n - 1:
            read_back(t, name, found[1])
            spare_is_no_hurry(hosts, name, found[1])
        unsaid.append(judge(hosts, name, *found))
        blackouts.append(int(found[1]["blackout_ns"]))
        late.append(max(abs(int(one["error_ns"])) for one in found[1]["clocks"]))
    # Where threads wait for a processor, a stop is seen late, a resume is late and the call
    # that made it comes back late: bound and report have that. Where none does, the figures
    # hold.
    t.check("the bounds are at most 5 ms", sum(hosts.wide) * 4 <= len(hosts.wide),
            "but for %d of %d" % (sum(hosts.wide), len(hosts.wide)))
    t.check("what the guest reads is what was said, within 2 ms",
            sum(one <= LIMIT_NS for one in unsaid) * 4 >= 3 * len(unsaid),
            "median %.3f, worst %.3f ms" % (median(unsaid) / 1e6, max(unsaid) / 1e6))
    t.check("the RTC goes on, within 5 ms and the bound",
            sum(one <= RTC_NS for one in hosts.rtc) * 4 >= 3 * len(hosts.rtc),
            "median %.3f, worst %.3f ms beyond the bound" % (
                median(hosts.rtc) / 1e6, max(hosts.rtc) / 1e6))
    in_time = sum(one <= LIMIT_NS for one in late)
    t.check("resumes were in time, within 2 ms", in_time * 2 >= len(late),
            "%d of %d; median %.3f, worst %.3f ms late" % (
                in_time, len(late), median(late) / 1e6, max(late) / 1e6))
    t.check("the blackout is plain libvirt's + 50 ms at most",
            median(blackouts) <= max(plain) + BLACKOUT_NS,
            "%.1f ms, plain %.1f" % (median(blackouts) / 1e6, max(plain) / 1e6))
    hosts.two.b.set_wall(0) if hosts.at == "a" else None


def lines_so_far(hosts):
    """How many; the guest stood still at times, and what it said before that is past. It has said
    enough since when this returns."""
    n = len(hosts.two.readings(hosts.start, edge=False))
    hosts.two.readings(hosts.start, n + twohosts.ENOUGH, edge=False)
    return n


def arrived_after_a_step(hosts, name, done, stood):
    """Its clocks against their bounds, but for the RTC's. The report, and its clocks by name.

    stood: of the lines at the source those that do not count.
    """
    before = hosts.two.readings(hosts.start, edge=False)[stood:]
    hosts.arrived()
    report = json.loads(done.stdout)
    clocks = {one["clock"]: one for one in report["clocks"]}
    _, faults, _ = against_report(
        guest.errors(before, hosts.two.readings(hosts.start, edge=False)), clocks)
    first = report["clocks"][0]
    hosts.t.differences(name + ": the bounds cover the errors", faults, "%s: said %s +- %s ns" % (
        first["clock"], first["error_ns"], first["bound_ns"]))
    return report, clocks


def stepped(hosts, n, rng):
    """Somebody sets one host's wall clock while the guest moves: it arrives within its bounds, or
    the move is refused and it goes on. Its RTC, which follows the host's clock, is not judged."""
    t, two = hosts.t, hosts.two
    walls, refused = {"a": 0, "b": 0}, 0
    stood = lines_so_far(hosts)
    for _ in range(n):
        side, by_ns, wait_s = rng.choice("ab"), rng.choice(STEPS), rng.uniform(0, 1)
        walls[side] += by_ns
        source, old = hosts.at, hosts.start
        name = "from %s, %s's clock set by %+g s after %.0f ms" % (source, side, by_ns / 1e9,
                                                                   wait_s * 1e3)
        timer = threading.Timer(wait_s, two.hosts[side].set_wall, [walls[side]])
        timer.start()
        done = hosts.run("--json")
        timer.join()
        if done.returncode:
            states = two.states()
            if not t.check(name + ": refused, and it goes on",
                           re.search("cannot be|wall clock was set", done.stderr) and
                           states == {source: "running", hosts.other(): None},
                           "%s; %r" % (done.stderr.strip()[:300], states)):
                return
            stood, refused = lines_so_far(hosts), refused + 1
            continue
        arrived_after_a_step(hosts, name, done, stood)
        stood = 0
        t.differences(name + ": no clock went backwards",
                      [one for one in hosts.backwards(old, hosts.start) if one != "rtc"])
    print("# %d of %d refused" % (refused, n))
    for host in two.hosts.values():
        host.set_wall(0)


def stepped_while_it_stands(hosts):
    """Somebody sets the destination's wall clock between the plan and the resume: it runs at its
    instant none the less, and the report says what its RTC got."""
    t, two = hosts.t, hosts.two
    stood = lines_so_far(hosts)
    for by_ns in (3600 * 10**9, -3600 * 10**9):
        source, there = hosts.at, two.hosts[hosts.other()]
        name = "%s's clock set by %+g s while the guest stands" % (there.name, by_ns / 1e9)
        # earlier moves have taught that it takes a second
        margins = os.path.join(there.at, "guestclock/lib/margins")
        with open(margins, "w", encoding="ascii") as out:
            out.write("ready" + 4 * " 1000000000" + "\n")
        events, first = hosts.events[source], hosts.events[source].count()

        def set_it():
            events.wait("STOP", first, 30)
            time.sleep(0.4)		# the plan is made within 0.1 s
            there.set_wall(by_ns)
        thread = threading.Thread(target=set_it)
        thread.start()
        done = hosts.run("--json")
        thread.join()
        os.remove(margins)
        if not t.check(name + ": it arrives", done.returncode == 0, done.stderr.strip()[-300:]):
            return
        report, clocks = arrived_after_a_step(hosts, name, done, stood)
        stood = 0
        late_ns = int(report["ran"]["realtime_ns"]) - int(report["planned"]["realtime_ns"])
        t.check(name + ": it ran at its instant", abs(late_ns) < 50 * 10**6,
                "%+.3f ms late, away for %.3f s" % (late_ns / 1e6, int(report["blackout_ns"]) / 1e9))
        t.check(name + ": the RTC got it", abs(int(clocks["rtc"]["error_ns"]) - by_ns) < RTC_NS,
                clocks["rtc"]["error_ns"])
        there.set_wall(0)


def leaks(hosts, before):
    """Descriptors and memory of the daemons."""
    now = resources(hosts)
    hosts.t.differences("the daemons keep nothing of a move", [
        "%s: %d descriptors, %d before" % (name, now[name][0], before[name][0])
        for name in now if now[name][0] > before[name][0] + 2] + [
        "%s: %d KiB, %d before" % (name, now[name][1], before[name][1])
        for name in now if now[name][1] > before[name][1] * 2 + 8192], repr(now))


def resources(hosts):
    found = {}
    for name, host in hosts.two.hosts.items():
        pid = host.children[0].pid
        with open("/proc/%d/status" % pid, encoding="ascii") as file:
            memory = next(line for line in file if line.startswith("VmRSS"))
        found[name] = len(os.listdir("/proc/%d/fd" % pid)), int(memory.split()[1])
    return found


def other_ways(hosts):
    """Direct, by standard input and output, with several channels, suspended to end it."""
    for name, options, via in (("direct", ["--direct"], None), ("stdio", [], hosts.stdio),
                               ("parallel", ["--parallel", "--parallel-connections", "2"],
                                None),
                               ("timeout", ["--timeout", "1", "--bandwidth", "1",
                                            "--max-downtime", "1"], None)):
        found = ours(hosts, name, *options, via=via and via())
        if found:
            judge(hosts, name, *found)


def persistence(hosts):
    t, two = hosts.t, hosts.two
    source = hosts.at
    done = hosts.run("--persistent", "--undefine-source")
    hosts.arrived()
    listed = {name: host.virsh("list", "--persistent", "--name", "--all")
              for name, host in two.hosts.items()}
    t.check("persistent there, undefined here", done.returncode == 0 and listed == {
        source: "", hosts.at: twohosts.NAME}, repr(listed) + done.stderr)
    two.hosts[hosts.at].virsh("undefine", twohosts.NAME)


def standing(hosts):
    """Guests that are not to run there do not."""
    t, two = hosts.t, hosts.two
    for name, options, before in (("a suspended guest", (), "suspend"),
                                  ("--suspend", ("--suspend",), None)):
        two.readings(hosts.start)
        if before:
            two.hosts[hosts.at].virsh(before, twohosts.NAME)
        done = hosts.run(*options)
        hosts.arrived()
        t.check(name + " arrives suspended", done.returncode == 0 and
                two.states()[hosts.at] == "paused" and not two.runs(hosts.start, 0.5),
                repr(two.states()) + done.stderr)
        two.hosts[hosts.at].virsh("resume", twohosts.NAME)
        t.check(name + " can go on", two.runs(hosts.start))


def refusals(hosts):
    """Nothing has moved, nothing was touched, and the sentence says why."""
    t, two = hosts.t, hosts.two
    source = hosts.at

    def refused(name, code, words, *options, via=None):
        done = hosts.run(*options, via=via)
        t.check(name, done.returncode == code and words in done.stderr and
                "Nothing was changed" in done.stderr and done.stdout == "" and
                two.states() == {source: "running", hosts.other(): None} and
                not os.path.exists(two.socket_in(source)),
                "%d: %s" % (done.returncode, done.stderr.strip()[-250:]))
    refused("nobody there", 3, "nobody", via="unix:/run/guestclock/nobody.sock")
    refused("postcopy", 1, "postcopy", "--postcopy")
    refused("usage", 2, "not both", "--p2p", "--direct")
    two.hosts["b"].set_wall(3 * 10**9)
    refused("clocks too far apart", 1, "apart", "--max-disagreement", "1s")
    two.hosts["b"].set_wall(0)
    t.check("and it still runs", two.runs(hosts.start))


def interrupted(hosts):
    """^C while memory is copied: it goes on at the source."""
    child = hosts.two.hosts[hosts.at].popen(hosts.command("--bandwidth", "1"),
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                            text=True)
    end = time.monotonic() + 10
    while not os.path.exists(hosts.two.socket_in(hosts.at)) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    child.send_signal(2)
    said = child.communicate(timeout=30)[1]
    hosts.t.check("^C", child.returncode not in (0, -2) and "goes on at the source" in said and
                  "Nothing was changed" in said, "%d: %s" % (child.returncode, said.strip()))
    settled(hosts, "^C")


# ---- who is behind a socket ----

def listening(path):
    if os.path.exists(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(4)
    sock.settimeout(10)
    return sock


def receive(sock):
    """One frame: (type, body)."""
    data = b""
    while len(data) < 8 or len(data) < 8 + struct.unpack("<I", data[4:8])[0]:
        more = sock.recv(65536)
        if not more:
            raise qemu.QmpError("no whole frame: %r" % data)
        data += more
    return data[2], data[8:]


def say(path, body):
    """A hello; the connection, and what the other end says to it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    sock.sendall(b"Gc\x01\x00" + struct.pack("<I", len(body)) + body)
    return (sock,) + receive(sock)


def hello_of(hosts):
    """What a move of this guest begins with."""
    with listening(hosts.two.socket_in(hosts.at, "/run/guestclock/told.sock")) as told:
        child = hosts.two.hosts[hosts.at].popen(
            hosts.command(via="unix:" + told.getsockname()), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        near = told.accept()[0]
        body = receive(near)[1]
        near.close()
        child.wait(30)
    return body


def imposters(hosts):
    """A socket of the guest's name, made by somebody else, on the host where the guest is."""
    t, two = hosts.t, hosts.two
    daemon = two.socket_in(hosts.at, twohosts.DAEMON_SOCKET)
    body = hello_of(hosts)
    # versions 1 to 1, the session; of its main connection
    main = body[:22] + b"\x20\x02\x28\x00"
    two.hosts[hosts.at].virsh("suspend", twohosts.NAME)
    with listening(two.socket_in(hosts.at)) as imposter:
        control, kind, _ = say(daemon, body)
        channel, answer, why = say(daemon, main)
        t.check("a guest that was suspended here does not arrive", kind == 2 and answer == 3 and
                b"awaits no such guest" in why, "%d %d %r" % (kind, answer, why))
        t.check("nor is anything sent to who pretends so", imposter.accept()[0].recv(1) == b"")
        time.sleep(0.5)
        t.check("and it stays suspended", two.states()[hosts.at] == "paused")
        control.close()
        channel.close()
        two.hosts[hosts.at].virsh("resume", twohosts.NAME)

        # others' ways lead through others' sockets: then it is told
        path = two.socket_in(hosts.at, "/run/guestclock/way.sock")
        child = two.hosts[hosts.at].popen(
            [os.path.abspath(hosts.args.guestclock), "proxy", "--listen", path, "--to",
             "unix:" + daemon, "--there", twohosts.SOCKET, "--uuid", twohosts.UUID],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        child.stderr.readline()		# ready
        with socket.socket(socket.AF_UNIX) as source:
            source.connect(path)
            imposter.accept()[0].close()
        child.communicate(timeout=30)
    with open(os.path.join(two.work, hosts.at, "guestclockd.log"),
              encoding="utf-8") as log:
        t.check("who listens there is told from the guest's process",
                "process %d listens there, and the guest's is " % os.getpid() in log.read())
    os.unlink(two.socket_in(hosts.at))
    settled(hosts, "after that")


# ---- kills ----

def settles(hosts):
    """(where, the start that talks, states) of a guest that runs at one place within 3 s."""
    begin = time.monotonic()
    before = {n: len(hosts.two.port.wait(n).take())
              for n in range(1, hosts.two.port.count() + 1)}
    while True:
        talks = [n for n in range(hosts.two.port.count(), 0, -1)
                 if len(hosts.two.port.wait(n).take()) > before.get(n, 0)]
        where, states = hosts.where()
        if len(where) == 1 and states[where[0]] == "running" and talks:
            return where[0], talks[0], states
        if time.monotonic() > begin + SETTLE_S:
            return None, None, states
        time.sleep(0.05)


def settled(hosts, name):
    """Within 3 s the guest runs at exactly one place, and says so itself; and it stays."""
    begin = time.monotonic()
    at, start, states = settles(hosts)
    took = time.monotonic() - begin
    if at and not hosts.is_idle(at):	# libvirt has not seen yet that nobody listens
        while time.monotonic() < begin + 30 and not any(map(hosts.is_idle, "ab")):
            time.sleep(0.1)
        at, start, states = settles(hosts)
    if not hosts.t.check(name + ": it runs at exactly one place within 3 s", at,
                         "%r after %.1f s" % (states, took)):
        return False
    hosts.at, hosts.start = at, start
    return True


def kill_one(hosts, name, when):
    """A client killed -9 at a moment that when(child) waits for."""
    child = hosts.two.hosts[hosts.at].popen(hosts.command(), stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, text=True)
    moment = when(child)
    child.kill()
    said = child.communicate()[1].strip()
    return settled(hosts, "%s (%s%s)" % (name, moment, ": " + said[-400:] if said else ""))


def kills(hosts, n, rng):
    """At any moment; and between the stop of the guest and its resume."""
    def anywhere(child):
        pause = rng.uniform(0, 1.2)
        try:
            child.wait(pause)
            return "it had ended"
        except subprocess.TimeoutExpired:
            return "%.0f ms after the start" % (pause * 1e3)

    def standing_still(child):
        events, pause = hosts.events[hosts.at], rng.uniform(0, 0.05)
        first = events.count()
        while not any(one == "STOP" for one, _ in events.found[first:]):
            if child.poll() is not None:
                return "it had ended"
            time.sleep(0.0005)
        time.sleep(pause)
        return "%.0f ms after the stop" % (pause * 1e3)
    homes = []
    for i in range(n):
        source = hosts.at
        if not kill_one(hosts, "kill %d" % (i + 1), standing_still if i % 2 else anywhere):
            return
        homes.append(hosts.at == source)
        hosts.two.readings(hosts.start)
    hosts.t.check("the daemons live", all(
        host.children[0].poll() is None for host in hosts.two.hosts.values()),
        "%d of %d stayed" % (sum(homes), n))


def interrupts(hosts, n, rng):
    """^C at any moment: either it was too late, or the guest goes on where it was."""
    for i in range(n):
        name, source, pause = "^C %d" % (i + 1), hosts.at, rng.uniform(0, 3)
        child = hosts.two.hosts[source].popen(hosts.command(), stdout=subprocess.DEVNULL,
                                              stderr=subprocess.PIPE, text=True)
        try:
            child.wait(pause)
        except subprocess.TimeoutExpired:
            child.send_signal(2)
        said = child.communicate(timeout=60)[1].strip()
        if not settled(hosts, "%s after %.0f ms" % (name, pause * 1e3)):
            return
        hosts.t.check(name + ": the guest is where the exit status says",
                      (hosts.at == source) == (child.returncode not in (0, 13)) and
                      (said or child.returncode in (0, -2)),
                      "%d, %s; %s" % (child.returncode, "there" if hosts.at != source else
                                      "here", said[-300:]))
        hosts.two.readings(hosts.start)


def kill_suspended(hosts):
    """A suspended guest stays suspended, wherever it is."""
    t, two = hosts.t, hosts.two
    two.hosts[hosts.at].virsh("suspend", twohosts.NAME)
    child = two.hosts[hosts.at].popen(hosts.command(), stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
    time.sleep(0.6)
    child.kill()
    child.wait()
    end, where, states = time.monotonic() + SETTLE_S, [], {}
    while time.monotonic() < end and not (len(where) == 1 and states[where[0]] == "paused"):
        time.sleep(0.1)
        where, states = hosts.where()
    t.check("a suspended guest, its client killed", len(where) == 1 and
            states[where[0]] == "paused", repr(states))
    if len(where) == 1:
        hosts.at = where[0]
        two.hosts[hosts.at].virsh("resume", twohosts.NAME)
        settled(hosts, "and it goes on")


def body(args, work):
    t = tally.Tally()
    rng = random.Random(args.seed)
    print("seed %d" % args.seed)
    with twohosts.TwoHosts(work, args.guest, args.wallshift) as two:
        try:
            hosts = Hosts(t, two, args)
            if args.part in ("moves", "all"):
                before = resources(hosts)
                moves(hosts, 200 if args.long else 20)
                leaks(hosts, before)
            if args.part in ("ways", "all"):
                other_ways(hosts)
                persistence(hosts)
                standing(hosts)
                refusals(hosts)
                interrupted(hosts)
                imposters(hosts)
            if args.part in ("ways", "steps", "all"):
                stepped(hosts, 40 if args.long else 4, rng)
                stepped_while_it_stands(hosts)
            if args.part in ("kills", "all"):
                kills(hosts, 200 if args.long else args.kills, rng)
                interrupts(hosts, 40 if args.long else 4, rng)
                kill_suspended(hosts)
        except (libvirtd.VirshError, qemu.QmpError, subprocess.SubprocessError) as error:
            t.check("moves", False, repr(error))
    return t.end()


def options(parser):
    parser.add_argument("--part", choices=("moves", "ways", "steps", "kills", "all"),
                        default="all")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--reports", help="a file for what was said of each move")
    parser.add_argument("--seed", type=int, default=int(time.time()))


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guest", "guestclock", "guestclockd", "wallshift"), options)
