#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rewritten images in stock libvirt: saved, rewritten, restored, with the clocks right.

One libvirtd in private namespaces, one small TCG guest. Truth is the host's raw clock between
what the guest read before and after; what `inspect` says of each image is compared with the
bytes (reading.py).

    test_libvirt.py --guest guest.elf --guestclock guestclock [--only NAME]
"""
import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import struct
import subprocess
import time

import guest
import libvirtd
import qemu
import reading
import streampatch
import tally

NAME, UUID = "gclk-test", "8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a0"
ERROR_NS = 1e9			# virsh starts when it starts; other tests measure precisely
RESUME_S = 2.0			# to load in
ENOUGH = 25			# reports: half a second
OWNER = (64055, 64055)
STATE_REFUSED = 11

DOMAIN = """
<domain type='qemu'>
  <name>%(name)s</name> <uuid>%(uuid)s</uuid> <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>%(guest)s</kernel>
    <cmdline>pit=100 lapic=100 report=50 edge=irq</cmdline></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <clock offset='variable' adjustment='3600' basis='utc'>
    <timer name='rtc' tickpolicy='catchup'/> <timer name='pit' tickpolicy='discard'/>
    <timer name='hpet' present='no'/>
  </clock>
  <devices>
    <emulator>%(qemu)s</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='%(work)s/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>
    <controller type='usb' model='none'/> <memballoon model='none'/>
    <serial type='unix'><source mode='connect' path='%(work)s/serial'/></serial>
  </devices>
</domain>
"""


class Lab:
    def __init__(self, args, work):
        self.t, self.work, self.command = tally.Tally(), work, args.guestclock
        self.xml = self.path("domain.xml")
        with open(self.xml, "w", encoding="utf-8") as out:
            out.write(DOMAIN % {"name": NAME, "uuid": UUID, "work": work,
                                "guest": os.path.abspath(args.guest),
                                "qemu": shutil.which("qemu-system-x86_64")})
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.path("disk.qcow2"),
                        "16M"], check=True)
        self.port = libvirtd.SerialPort(self.path("serial"))
        self.host = self.make_host(work)
        self.virsh("define", self.xml)

    def make_host(self, work):
        return libvirtd.Host(work)

    def environment(self):
        """Of guestclock; None: the test's own."""
        return None

    def close(self):
        self.host.close()
        self.port.close()

    def end_domain(self):
        try:
            self.virsh("destroy", NAME)
        except libvirtd.VirshError:
            pass			# it does not run

    def path(self, name):
        return os.path.join(self.work, name)

    def virsh(self, *arguments):
        return self.host.virsh(*arguments)

    def run(self, *arguments):
        """guestclock: (exit status, answer or None, what it said)."""
        done = subprocess.run([self.command] + list(arguments), capture_output=True, text=True,
                              timeout=120, env=self.environment())
        answer = json.loads(done.stdout) if done.stdout.startswith("{") else None
        return done.returncode, answer, done.stdout + done.stderr

    def must(self, *arguments):
        status, answer, text = self.run(*arguments)
        if status:
            raise qemu.QmpError("guestclock %s: exit %d: %s" % (arguments[0], status, text))
        return answer

    # ---- the guest ----

    def lines(self, serial, n, timeout=60):
        """Wait for n reports in all; of many, until the RTC's second was seen to begin."""
        end = time.monotonic() + timeout
        while True:
            found = [line for line in guest.parse(serial.take()) if line.kind == "G"]
            if len(found) >= n and (
                    n < ENOUGH or guest.rtc_minus_real(steady(found)) is not None):
                return found
            if time.monotonic() > end:
                raise qemu.QmpError("the guest reported %d times, not %d" % (len(found), n))
            time.sleep(0.02)

    def boot(self):
        """A new guest; its serial port and what it said in its first second."""
        before = self.port.count()
        self.virsh("start", NAME)
        serial = self.port.wait(before + 1)
        self.lines(serial, ENOUGH)
        return serial

    def resumed(self, before_starts, at_ns):
        """The domain was loaded paused: resume it at that instant, and listen."""
        serial = self.port.wait(before_starts + 1)
        late = max(0, qemu.now().real - at_ns)
        qemu.wait_until(at_ns, 0)
        self.virsh("resume", NAME)
        return self.lines(serial, ENOUGH), late


def steady(lines):
    return lines[5:]


# ---- images ----

def header(path):
    """(data_len, compression) of a save image."""
    with open(path, "rb") as file:
        return header_of(file.read(92))


def header_of(head):
    _, length, _, compressed = struct.unpack_from("=IIII", head, 16)
    return length, compressed


def stream_of(path):
    """The QEMU stream in a save image."""
    length, compressed = header(path)
    with open(path, "rb") as file:
        data = file.read()[92 + length:]
    if compressed == 4:
        return subprocess.run(["lzop", "-dc"], input=data, capture_output=True,
                              check=True).stdout
    return [bytes, gzip.decompress, bz2.decompress, lzma.decompress][compressed](data)


def stream_of_snapshot(path, name):
    """The vm state in a qcow2 file, by the snapshot's own L1 table."""
    with open(path, "rb") as file:
        data = file.read()
    bits, size = struct.unpack_from(">IQ", data, 20)
    count, at = struct.unpack_from(">IQ", data, 60)
    cluster, per_table = 1 << bits, 1 << bits >> 3
    for _ in range(count):
        l1_at, l1_size, id_len, name_len = struct.unpack_from(">QIHH", data, at)
        state_size, extra = struct.unpack_from(">II", data, at + 32)
        if extra >= 8:
            state_size = struct.unpack_from(">Q", data, at + 40)[0]
        text = at + 40 + extra + id_len
        if data[text:text + name_len].decode() == name:
            break
        at = -(-(text + name_len) // 8) * 8
    else:
        raise KeyError(name)
    whole = cluster * per_table
    first = -(-size // whole)
    found = bytearray()
    for i in range(first, l1_size):
        table = struct.unpack_from(">Q", data, l1_at + 8 * i)[0] & 0x00fffffffffffe00
        for j in range(per_table) if table else ():
            place = struct.unpack_from(">Q", data, table + 8 * j)[0] & 0x00fffffffffffe00
            found += data[place:place + cluster] if place else bytes(cluster)
    return bytes(found[:state_size])


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def facts(in_xml):
    known = {"accel": "tcg", "mib": 16, "rtc_clock": "host", "catches_up": in_xml}
    return dict(known, name=NAME, uuid=UUID) if in_xml else known


def check_reading(lab, name, answer, stream, in_xml=True):
    """What inspect says, against the bytes."""
    expected = reading.expected_state(streampatch.Image(stream), facts(in_xml))
    lab.t.differences(name + ": inspect reads the bytes",
                      reading.differences(expected, reading.numbers(answer["state"])))


def check_domain(lab, name, path):
    answer = lab.must("inspect", "--json", path)
    domain = answer["domain"]
    said = (domain["name"], domain["uuid"], domain["clock_offset"],
            {timer["name"]: timer["tickpolicy"] for timer in domain["timers"]})
    lab.t.check(name + ": inspect knows the domain", said ==
                (NAME, UUID, "variable", {"rtc": "catchup", "pit": "discard", "hpet": None}),
                repr(said))
    status, _, text = lab.run("inspect", path)
    lab.t.check(name + ": and says so", status == 0 and NAME in text and UUID in text and
                "variable, utc" in text and "rtc catchup, pit discard" in text)
    return answer


def check_captured(lab, name, answer, before):
    """Under TCG the image says the TSC at the stop, and the guest's lines when that was."""
    stop = guest.instant_of_tsc(before, int(answer["state"]["tsc"][0]["value_ticks"]))
    error = int(answer["captured"]["realtime_ns"]) - stop
    bound = answer["captured"]["uncertainty_ns"]
    lab.t.check(name + ": captured", bound is not None and abs(error) <= int(bound) + 10**6,
                "%s is off by %+.1f of %s ms" % (answer["captured"]["basis"], error / 1e6,
                                                 bound and "%.1f" % (int(bound) / 1e6)))


def check_clocks(lab, name, before, after, late):
    """Every clock went on over the gap; each second that the load was late is one slow."""
    found = guest.errors(steady(before), steady(after))
    for clock, (error, sure) in sorted(found.items()):
        if clock in ("tsc", "pm"):
            error += late
        lab.t.check("%s: %s went on" % (name, clock), abs(error) <= ERROR_NS + sure,
                    "%+.3f s%s" % (error / 1e9, ", loaded %.1f s late" % (late / 1e9)
                                   if late else ""))
    lab.t.check(name + ": TSC and RTC were read", {"tsc", "rtc"} <= set(found))


def check_policies(lab, name, answer):
    """The domain's tick policies are the plan's."""
    said = {row["timer"]: row["policy"] for row in answer["ledger"]}
    lab.t.check(name + ": the XML's tick policy is the plan's", said.get("pit") == "discard",
                repr(said))


def resume_instant():
    return qemu.now().real + int(RESUME_S * 1e9)


def at_text(ns):
    return "@%d.%09d" % divmod(ns, 10**9)


# ---- the cases ----

def saved(lab, name):
    """virsh save of a fresh guest, checked. (path, what the guest said)"""
    path = lab.path("saved.img")
    if os.path.exists(path):
        os.unlink(path)
    serial = lab.boot()
    lab.virsh("save", NAME, path)
    before = lab.lines(serial, 1)
    answer = check_domain(lab, name, path)
    check_reading(lab, name, answer, stream_of(path))
    check_captured(lab, name, answer, before)
    os.chown(path, *OWNER)
    return path, before


def check_owner(lab, name, path):
    info = os.stat(path)
    lab.t.check(name + ": owner and mode stay", (info.st_uid, info.st_gid, info.st_mode & 0o7777)
                == OWNER + (0o600,), "%d:%d %o" % (info.st_uid, info.st_gid,
                                                   info.st_mode & 0o7777))


def restore(lab, name, path, before, at):
    starts = lab.port.count()
    lab.virsh("restore", path, "--paused")
    after, late = lab.resumed(starts, at)
    check_clocks(lab, name, before, after, late)
    lab.virsh("destroy", NAME)


def raw(lab):
    path, before = saved(lab, "raw")
    original = digest(path)
    at = resume_instant()
    answer = lab.must("rewrite", path, "--in-place", "--resume-at", at_text(at), "--json")
    check_policies(lab, "raw", answer)
    check_owner(lab, "raw", path)
    lab.t.check("raw: rewritten", digest(path) != original)
    restore(lab, "raw", path, before, at)
    lab.must("undo", path, "--json")
    lab.t.check("raw: undo brings every byte back", digest(path) == original)
    check_owner(lab, "raw, undone", path)
    over(lab, path)


def over(lab, path):
    """libvirt writes over an image that is there: its birth is that of the older one."""
    serial = lab.boot()
    lab.virsh("save", NAME, path)
    answer = lab.must("inspect", "--json", path)
    before = lab.lines(serial, 1)
    if answer["captured"]["uncertainty_ns"] is None:
        lab.t.check("saved over an older image: captured is an upper limit",
                    int(answer["captured"]["realtime_ns"]) + 10**9 >= guest.instant_of_tsc(
                        before, int(answer["state"]["tsc"][0]["value_ticks"])))
    else:
        check_captured(lab, "saved over an older image", answer, before)


def paused(lab):
    """Stopped by somebody else, long before it was saved: the file's birth is too late."""
    path = lab.path("paused.img")
    serial = lab.boot()
    lab.virsh("suspend", NAME)
    before = lab.lines(serial, 1)
    time.sleep(1)
    lab.virsh("save", NAME, path)
    answer = lab.must("inspect", "--json", path)
    captured = answer["captured"]
    stop = guest.instant_of_tsc(before, int(answer["state"]["tsc"][0]["value_ticks"]))
    lab.t.check("paused before the save: captured is an upper limit",
                captured["uncertainty_ns"] is None and int(captured["realtime_ns"]) >= stop,
                "%s, %.1f s after the stop" % (captured["basis"],
                                               (int(captured["realtime_ns"]) - stop) / 1e9))


def compressed(lab, word):
    if word == "lzop" and not shutil.which("lzop"):
        lab.t.skip(word, "lzop is not installed")
        return
    lab.host.restart(word)
    path, before = saved(lab, word)
    out = lab.path("out.img")
    if os.path.exists(out):
        os.unlink(out)
    original = digest(path)
    at = resume_instant()
    status, _, text = lab.run("rewrite", path, "-o", out, "--resume-at", at_text(at))
    if status and word in ("bzip2", "lzop"):
        lab.t.check(word + ": refused with advice", "Try: " in text and not os.path.exists(out),
                    text.strip())
        return
    if not lab.t.check(word + ": rewritten", status == 0, "" if status == 0 else text.strip()):
        return
    lab.t.check(word + ": the input stands", digest(path) == original)
    lab.t.check(word + ": the compression stays", header(out)[1] == header(path)[1])
    check_owner(lab, word, out)
    restore(lab, word, out, before, at)


def gzip_image(lab):
    compressed(lab, "gzip")


def bzip2_image(lab):
    compressed(lab, "bzip2")


def xz_image(lab):
    compressed(lab, "xz")


def lzop_image(lab):
    """A program reads it, and root has none run on foreign bytes but where it was told to."""
    os.environ["GUESTCLOCK_CONFINE"] = "no"
    try:
        compressed(lab, "lzop")
    finally:
        del os.environ["GUESTCLOCK_CONFINE"]
    if os.path.exists(lab.path("saved.img")) and shutil.which("lzop"):
        status, _, text = lab.run("inspect", lab.path("saved.img"))
        lab.t.check("lzop: confined it is refused with advice",
                    status != 0 and "confine = no" in text, text.strip())


def managed(lab):
    """managedsave, and the start that finds it."""
    serial = lab.boot()
    lab.virsh("managedsave", NAME)
    before = lab.lines(serial, 1)
    path = os.path.join(lab.host.at, "lib", "qemu", "save", NAME + ".save")
    check_domain(lab, "managedsave", path)
    at = resume_instant()
    lab.must("rewrite", path, "--in-place", "--resume-at", at_text(at), "--json")
    starts = lab.port.count()
    lab.virsh("start", NAME, "--paused")
    after, late = lab.resumed(starts, at)
    check_clocks(lab, "managedsave", before, after, late)
    lab.virsh("destroy", NAME)


def internal(lab):
    """A snapshot of the running machine in its qcow2 disk."""
    name, disk = "internal snapshot", lab.path("disk.qcow2")
    serial = lab.boot()
    before = lab.lines(serial, ENOUGH)
    lab.virsh("snapshot-create-as", NAME, "s1")
    answer = lab.must("inspect", "--json", "--snapshot", "s1", disk)
    check_captured(lab, name, answer, before)
    status, _, text = lab.run("rewrite", disk, "--snapshot", "s1", "--in-place")
    lab.t.check(name + ": refused while the domain runs", status == STATE_REFUSED and
                "Nothing was changed" in text, text.strip())
    lab.virsh("destroy", NAME)
    check_reading(lab, name, lab.must("inspect", "--json", "--snapshot", "s1", disk),
                  stream_of_snapshot(disk, "s1"), in_xml=False)
    original = digest(disk)
    lab.must("rewrite", disk, "--snapshot", "s1", "--in-place", "--elapsed", "1h", "--json")
    lab.t.check(name + ": rewritten", digest(disk) != original)
    lab.must("undo", disk, "--snapshot", "s1", "--json")
    lab.t.check(name + ": undo brings every byte back", digest(disk) == original)
    at = resume_instant()
    lab.must("rewrite", disk, "--snapshot", "s1", "--in-place", "--resume-at", at_text(at),
             "--json")
    checked = subprocess.run(["qemu-img", "check", "-q", disk], capture_output=True, text=True)
    lab.t.check(name + ": qemu-img finds nothing wrong", checked.returncode == 0,
                (checked.stdout + checked.stderr).strip())
    starts = lab.port.count()
    lab.virsh("snapshot-revert", NAME, "s1", "--paused")
    after, late = lab.resumed(starts, at)
    check_clocks(lab, name, before, after, late)
    lab.virsh("destroy", NAME)


def external(lab):
    """The memory of an external snapshot: read here, and restored by `virsh restore`."""
    name, path = "external snapshot", lab.path("memory.img")
    serial = lab.boot()
    before = lab.lines(serial, ENOUGH)
    lab.virsh("snapshot-create-as", NAME, "s2", "--memspec", "file=%s,snapshot=external" % path,
              "--diskspec", "vda,snapshot=external,file=" + lab.path("overlay.qcow2"))
    answer = check_domain(lab, name, path)
    check_reading(lab, name, answer, stream_of(path))
    check_captured(lab, name, answer, before)
    lab.virsh("destroy", NAME)
    at = resume_instant()
    lab.must("rewrite", path, "--in-place", "--resume-at", at_text(at), "--json")
    starts = lab.port.count()
    lab.virsh("restore", path, "--paused")
    after, late = lab.resumed(starts, at)
    check_clocks(lab, name, before, after, late)
    lab.virsh("destroy", NAME)


CASES = libvirtd.Cases([
    {"raw": raw, "paused": paused, "managedsave": managed, "internal": internal,
     "gzip": gzip_image, "xz": xz_image, "bzip2": bzip2_image, "lzop": lzop_image,
     "external": external}])


if __name__ == "__main__":
    libvirtd.main(__doc__, lambda args, work: CASES.run(args, Lab(args, work)),
                  ("guest", "guestclock"), CASES.add)
