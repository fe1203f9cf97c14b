#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The libvirt hook: what plain `virsh restore` and `virsh start` make of a guest with it.

One libvirtd in private namespaces, one small TCG guest, guestclock-hook installed below
hooks/qemu.d. The guest's own readings decide; the hook's bound must cover the error, and the
absolute error is only held against a second, as others use the machine too.

    test_hook.py --guest guest.elf --guestclock guestclock --hook guestclock-hook [--long]
"""
import json
import os
import signal
import struct
import subprocess
import tempfile
import time

import guest
import libvirtd
import qemu
import test_libvirt
import twohosts

NAME = test_libvirt.NAME
BOUND_NS = 1e9
# what the guest's lines themselves leave open, and the TSC's rate
READING_NS = 2e6


class Lab(test_libvirt.Lab):
    def __init__(self, args, work):
        hooks = os.path.join(work, "etc", "hooks", "qemu.d")
        os.makedirs(hooks)
        self.install(os.path.join(hooks, "50-guestclock"), os.path.abspath(args.hook), work)
        super().__init__(args, work)
        self.args = args

    def install(self, path, hook, work):
        with open(path, "w", encoding="utf-8") as out:
            out.write("#!/bin/sh\nexec '%s' --conf '%s/hook.conf' --state '%s/state' "
                      "--audit '%s/audit' \"$@\"\n" % (hook, work, work, work))
        os.chmod(path, 0o755)

    def configure(self, **settings):
        with open(self.path("hook.conf"), "w", encoding="utf-8") as out:
            out.write("[hook]\n" + "".join("%s = %s\n" % one for one in settings.items()))

    def audited(self):
        if not os.path.exists(self.path("audit")):
            return []
        with open(self.path("audit"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def audit(self, n, timeout=20):
        """The n-th line of the audit log, counted from 1."""
        end = time.monotonic() + timeout
        while len(self.audited()) < n:
            if time.monotonic() > end:
                raise qemu.QmpError("the hook wrote %d lines, not %d" %
                                    (len(self.audited()), n))
            time.sleep(0.05)
        return self.audited()[n - 1]


def bound_of(record, clock):
    for row in record["clocks"]:
        if row["clock"] == clock:
            return row["error_ns"], row["bound_ns"]
    raise KeyError(clock)


def loaded(lab, name, command):
    """A plain virsh command that brings the guest back: what the guest says, and the record."""
    starts, lines = lab.port.count(), len(lab.audited())
    lab.virsh(*command)
    after = lab.lines(lab.port.wait(starts + 1), test_libvirt.ENOUGH)
    return after, lab.audit(lines + 1)


def check_right(lab, name, before, after, record):
    """The guest's clocks went on, and the hook's own figures hold."""
    found = guest.errors(test_libvirt.steady(before), test_libvirt.steady(after))
    lab.t.check(name + ": carried out", record["verdict"] in ("done", "late"),
                "%s; %s" % (record["verdict"], record["why"]))
    for clock in ("tsc",):
        error, sure = found[clock]
        known, bound = bound_of(record, clock)
        known, bound = int(known), None if bound is None else int(bound)
        lab.t.check("%s: %s, the bound covers the error" % (name, clock),
                    bound is not None and abs(error - known) <= bound + sure + READING_NS,
                    "%+.2f ms, of which %+.2f known, bound %.2f ms" % (
                        error / 1e6, known / 1e6, (bound or 0) / 1e6))
        lab.t.check("%s: %s, the bound is no excuse" % (name, clock),
                    bound is not None and bound <= BOUND_NS and abs(error) <= BOUND_NS)
    lab.t.check(name + ": the RTC was read and is right",
                "rtc" in found and abs(found["rtc"][0]) <= BOUND_NS,
                "%+.1f ms" % (found["rtc"][0] / 1e6) if "rtc" in found else "")


def report(lab):
    """The default: no byte is changed, and the log says what would have been."""
    lab.configure(restore="report")
    path, _ = test_libvirt.saved(lab, "report")
    original = test_libvirt.digest(path)
    _, record = loaded(lab, "report", ("restore", path))
    lab.t.check("report: no byte is changed", test_libvirt.digest(path) == original)
    lab.t.check("report: says so", record["verdict"] == "untouched" and
                record["domain"] == NAME and "report" in record["why"] and
                int(record["gap_ns"]) > 0, "%s: %s" % (record["verdict"], record["why"]))
    lab.virsh("destroy", NAME)


def off(lab):
    lab.configure(restore="off")
    path, _ = test_libvirt.saved(lab, "off")
    n = len(lab.audited())
    lab.virsh("restore", path)
    lab.virsh("destroy", NAME)
    lab.t.check("off: nothing is looked at", len(lab.audited()) == n)


def rewrite(lab):
    """One image, three times: plain virsh restore, and each time right (R9)."""
    lab.configure(restore="rewrite")
    path, before = test_libvirt.saved(lab, "rewrite")
    original = test_libvirt.digest(path)
    for turn in (1, 2, 3):
        name = "restore %d" % turn
        time.sleep(1)
        after, record = loaded(lab, name, ("restore", path))
        check_right(lab, name, before, after, record)
        lab.virsh("destroy", NAME)
        wait_closed(lab, path)
    lab.must("undo", path, "--json")
    lab.t.check("restore: undo brings every byte back",
                test_libvirt.digest(path) == original)


def wait_closed(lab, path):
    """The follower closes the record behind its reader; until then it holds the image."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        status, _, _ = lab.run("rewrite", path, "--in-place", "--elapsed", "1s", "--json")
        if status == 0:
            return
        time.sleep(0.1)
    raise qemu.QmpError("the image stays in use")


def managed(lab):
    lab.configure(restore="rewrite")
    serial = lab.boot()
    lab.virsh("managedsave", NAME)
    before = lab.lines(serial, 1)
    time.sleep(1)
    after, record = loaded(lab, "managed save", ("start", NAME))
    check_right(lab, "managed save", before, after, record)
    lab.virsh("destroy", NAME)


def with_tsc(path, hz):
    """A domain that was defined with a TSC frequency: put into its image's XML by hand."""
    timer = b"<timer name='tsc' frequency='%d'/>" % hz
    with open(path, "r+b") as file:
        head = bytearray(file.read(92))
        length, _, _, cookie = struct.unpack_from("=IIII", head, 20)
        data = file.read(length)
        at = data.index(b"</clock>")
        struct.pack_into("=I", head, 32, cookie + len(timer) if cookie else 0)
        file.seek(0)
        file.write(head + (data[:at] + timer + data[at:])[:length])


def refusal(lab):
    """A guest that cannot be right here: one sentence, and everything as it was."""
    lab.configure(restore="rewrite")
    path, _ = test_libvirt.saved(lab, "refused")
    with_tsc(path, 1000000000)
    original, starts = test_libvirt.digest(path), lab.port.count()
    try:
        lab.virsh("restore", path)
        said = "nothing"
    except libvirtd.VirshError as error:
        said = str(error)
    lab.t.check("refused: libvirt shows the sentence", "1000000000 Hz" in said and
                "tsc-rate-not-honoured" in said, said[-400:])
    lab.t.check("refused: no QEMU was started", lab.port.count() == starts and
                lab.virsh("domstate", NAME) == "shut off")
    lab.t.check("refused: no byte is changed", test_libvirt.digest(path) == original)
    record = lab.audited()[-1]
    lab.t.check("refused: in the audit log", record["verdict"] == "refused" and
                "tsc-rate-not-honoured" in [one["id"] for one in record["findings"]],
                record["verdict"])


XML = """<domain type='kvm'><name>web1</name><uuid>%s</uuid>
<metadata><g:clocks xmlns:g='https://guestclock.dev/ns/domain/1' tsc_hz='2000000001' %%s/>
</metadata><clock offset='utc'>%%s</clock></domain>
""" % test_libvirt.UUID


def call(lab, operation, xml):
    """The hook itself, as libvirt calls it: (status, stdout, stderr)."""
    path = os.path.join(lab.host.at, "etc", "hooks", "qemu.d", "50-guestclock")
    done = subprocess.run([path, "web1"] + operation.split() + ["-"], input=xml, text=True,
                          capture_output=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def migrate_begin(lab):
    """What a destination's libvirt asks of it."""
    far = "<timer name='tsc' frequency='1000000000'/>"
    lab.configure()
    status, out, said = call(lab, "migrate begin", XML % ("", far))
    lab.t.check("migrate begin: refused in one line", status == 1 and not out and
                said.count("\n") == 1 and "1000000000 Hz" in said, said.strip())
    lab.t.check("migrate begin: a guest without needs passes, unchanged",
                call(lab, "migrate begin", XML % ("", "")) == (0, "", ""))
    lab.configure(check="report")
    lab.t.check("check = report: it passes",
                call(lab, "migrate begin", XML % ("", far))[:2] == (0, ""))
    status, out, said = call(lab, "migrate begin", XML % ("pin_tsc='yes'", ""))
    lab.t.check("pin_tsc: QEMU's command line", status == 0 and
                "<qemu:arg value='x86_64-cpu.tsc-frequency=2000000001'/>" in out and
                "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'" in out, said)
    lab.configure(check="perhaps")
    lab.t.check("broken settings stop nobody",
                call(lab, "migrate begin", XML % ("", far))[0] == 0)
    lab.configure()
    for operation in ("prepare begin", "started begin", "release end", "migrate end",
                      "reconnect begin", "rubbish", ""):
        lab.t.check("\"%s\" is let pass" % operation,
                    call(lab, operation, "rubbish")[:2] == (0, ""))
    lab.t.check("a domain that is none is let pass",
                call(lab, "restore begin", "rubbish")[:2] == (0, ""))


def beside_the_verb(lab):
    """`guestclock restore` on a host with the hook: one of them writes, and says so once."""
    if lab.run("restore", "--help")[0]:
        lab.t.skip("beside the verb", "guestclock was built without libvirt")
        return
    lab.configure(restore="rewrite")
    path, before = test_libvirt.saved(lab, "beside the verb")
    starts, lines = lab.port.count(), len(lab.audited())
    record = lab.must("restore", "-c", lab.host.uri, "--json", "--audit", lab.path("audit"),
                      "--state", lab.path("state"), path)
    after = lab.lines(lab.port.wait(starts + 1), test_libvirt.ENOUGH)
    check_right(lab, "beside the verb", before, after, record)
    lab.t.check("beside the verb: one line in the log", len(lab.audited()) == lines + 1 and
                lab.audited()[-1]["verb"] == "restore")
    lab.virsh("destroy", NAME)


BIG_MIB = 2304
BIG_NS = 100e6


def big_domain(lab):
    """The same guest with 2 GiB of memory that holds something: no page is zero."""
    filling = lab.path("filling")		# 1 GiB, twice: QEMU reads a file in one piece
    with open("/dev/urandom", "rb") as source, open(filling, "wb") as out:
        for _ in range(1024):
            out.write(source.read(1 << 20))
    with open(lab.xml, encoding="utf-8") as file:
        xml = file.read()
    xml = xml.replace("<domain type='qemu'>", "<domain type='qemu' "
                      "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>")
    xml = xml.replace("<memory unit='MiB'>16</memory>",
                      "<memory unit='MiB'>%d</memory>" % BIG_MIB)
    devices = "".join("<qemu:arg value='-device'/><qemu:arg "
                      "value='loader,file=%s,addr=%d,force-raw=on'/>" % (filling, at)
                      for at in (64 << 20, 1088 << 20))
    xml = xml.replace("</domain>", "<qemu:commandline>%s</qemu:commandline></domain>" % devices)
    with open(lab.path("big.xml"), "w", encoding="utf-8") as out:
        out.write(xml)
    lab.virsh("undefine", NAME)
    lab.virsh("define", lab.path("big.xml"))


def make_cold(path):
    """Its pages are on the disk, and nowhere else."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def big(lab):
    """2 GiB, from the disk, by plain virsh restore; several times, as a host learns."""
    lab.configure(restore="rewrite")
    big_domain(lab)
    path = lab.path("big.img")
    serial = lab.boot()
    lab.host.virsh("save", NAME, path, timeout=300)
    before = lab.lines(serial, 1)
    for turn, options in ((1, []), (2, []), (3, []), (4, ["--bypass-cache"])):
        name = "2 GiB, restore %s" % " ".join([str(turn)] + options)
        make_cold(path)
        starts, lines = lab.port.count(), len(lab.audited())
        begin = time.monotonic()
        lab.host.virsh("restore", path, *options, timeout=300)
        print("%s: took %.1f s" % (name, time.monotonic() - begin))
        after = lab.lines(lab.port.wait(starts + 1), test_libvirt.ENOUGH)
        record = lab.audit(lines + 1)
        check_right(lab, name, before, after, record)
        error = guest.errors(test_libvirt.steady(before), test_libvirt.steady(after))["tsc"][0]
        lab.t.check(name + ": right to 100 ms", abs(error) <= BIG_NS, "%+.1f ms" % (error / 1e6))
        lab.virsh("destroy", NAME)
        wait_closed(lab, path)


def put_hook(two, name, hook, *options):
    """Into a libvirtd that runs already: it looks for its first hook when it is told to."""
    host = two.hosts[name]
    directory = os.path.join(host.at, "etc", "hooks", "qemu.d")
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "50-guestclock")
    with open(path, "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\nexec '%s' --conf '%s/hook.conf' --state '%s' --audit '%s/audit' "
                  "%s \"$@\"\n" % (os.path.abspath(hook), host.at, host.at, host.at,
                                  " ".join(options)))
    os.chmod(path, 0o755)
    with open(os.path.join(host.at, "hook.conf"), "w", encoding="utf-8") as out:
        out.write("[hook]\npin_tsc = yes\n")
    host.process.send_signal(signal.SIGHUP)
    time.sleep(1)


def profile_of_another_host(lab, path):
    """This host, if its TSC were a tenth faster and could not be scaled."""
    lab.must("host", "-o", path, "--json")
    with open(path, encoding="utf-8") as file:
        profile = json.load(file)
    host = profile.get("host", profile)
    hz = int(host["tsc_hz"])
    host["tsc_hz"] = str(hz * 11 // 10)
    host.pop("tsc_ratio_frac_bits", None)
    host["flags"] &= ~8			# TSC scaling
    with open(path, "w", encoding="utf-8") as out:
        json.dump(profile, out)
    return hz


def two_hosts(lab):
    """Between two daemons: a refusal leaves the guest where it runs; a pin arrives."""
    profile = lab.path("profile.json")
    hz = profile_of_another_host(lab, profile)
    timers = twohosts.TIMERS + "<timer name='tsc' frequency='%d'/>" % hz
    with tempfile.TemporaryDirectory(prefix="gclk-") as work, \
         twohosts.TwoHosts(work, lab.args.guest, timers=timers) as two:
        put_hook(two, "b", lab.args.hook, "--host", profile)
        start = two.boot("a")
        said = migrated(two)
        lab.t.check("two hosts: refused in libvirt's own error", "this host's at %d Hz" %
                    (hz * 11 // 10) in said, said[-300:])
        lab.t.check("two hosts: the guest runs on where it was", two.runs(start) and
                    two.states() == {"a": "running", "b": None}, repr(two.states()))
        two.destroy()
        # the same host, a guest without a frequency of its own: pinned on its way
        put_hook(two, "b", lab.args.hook)
        with open(two.xml, encoding="utf-8") as file:
            xml = file.read()
        xml = xml.replace("<timer name='tsc' frequency='%d'/>" % hz, "").replace(
            "<vcpu>", "<metadata><g:clocks xmlns:g='https://guestclock.dev/ns/domain/1' "
            "tsc_hz='%d'/></metadata><vcpu>" % hz)
        with open(two.xml, "w", encoding="utf-8") as out:
            out.write(xml)
        start = two.boot("a")
        said = migrated(two)
        live = "" if said else two.b.virsh("dumpxml", twohosts.NAME)
        lab.t.check("two hosts: a pinned frequency is in the live XML",
                    "x86_64-cpu.tsc-frequency=%d" % hz in live, said)
        lab.t.check("two hosts: it runs there", two.states() == {"a": None, "b": "running"} and
                    two.runs(start + 1), repr(two.states()))


def migrated(two):
    """Plain libvirt's migration from a to b: what it complains of, or nothing."""
    try:
        with two.relay("a", "b"):
            two.virsh_migrate("a", "b")
        return ""
    except libvirtd.VirshError as error:
        return str(error)


def read_ahead(lab):
    """virsh restore --bypass-cache of a small image: all of it is read before the hook runs."""
    lab.configure(restore="rewrite")
    path, _ = test_libvirt.saved(lab, "read ahead")
    original = test_libvirt.digest(path)
    try:
        _, record = loaded(lab, "read ahead", ("restore", path, "--bypass-cache"))
    except libvirtd.VirshError as error:
        lab.t.skip("read ahead", str(error)[-200:])
        return
    lab.t.check("read ahead: left alone, and said so", record["verdict"] == "untouched",
                record["why"])
    lab.t.check("read ahead: no byte is changed", test_libvirt.digest(path) == original)
    lab.virsh("destroy", NAME)


CASES = libvirtd.Cases([
    {"refusal": refusal, "read-ahead": read_ahead, "migrate": migrate_begin, "report": report,
     "off": off},
    {"rewrite": rewrite, "managed": managed},
    {"two-hosts": two_hosts, "verb": beside_the_verb}],
    rare={"big": big})


if __name__ == "__main__":
    libvirtd.main(__doc__, lambda args, work: CASES.run(args, Lab(args, work)),
                  ("guest", "guestclock", "hook"), CASES.add)
