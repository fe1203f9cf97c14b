#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""KVM guests of stock libvirt in an emulated AMD host, where writes to a TSC are real: saved and
restored by `guestclock`, and moved live between two libvirt daemons of that host.

    test_kvm_libvirt.py [--build DIR] [--long] [--verbose]

Truth is the guest's own readings and KVM's offset in debugfs: TSC and kvmclock count the whole
gap, so the offset has to be the same before and after, and the pairs (TSC, kvmclock) that the
guest reads have to be as far apart. What our report says of the clocks that it read back is
held against the same truth.

Every line is "name: ok|FAIL|skipped: figures", the last one "N passed, N failed, N skipped".
Exit status 0, 1 if something failed, 77 if nothing could be run.
"""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True
import guest              # noqa: E402
import lab                # noqa: E402
import test_kvm_restore   # noqa: E402

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# a libvirtd with QEMU's driver alone, and the QEMU that it asks what it can do
PLUGINS = [LIBRARIES + "/libvirt/connection-driver/libvirt_driver_qemu.so",
           LIBRARIES + "/qemu/accel-tcg-x86_64.so", "/usr/lib/libvirt/libvirt_iohelper"]
CPU_MAP = "/usr/share/libvirt/cpu_map"
FIRMWARE = test_kvm_restore.FIRMWARE + ["linuxboot.bin", "linuxboot_dma.bin"]
ERROR_NS, BOUND_NS = test_kvm_restore.ERROR_NS, test_kvm_restore.BOUND_NS
PER_NS = 1.0			# TSC ticks of the host, in virtual time
ENOUGH = 4			# lines of the guest, two in a second
WAIT = 30			# so many for the first of a guest that was moved
NAME, UUID = "gclk-lab", "9b0f5f0e-3d55-4b57-a6c2-5a0e6a7c1f42"
HOST_UUID = {"a": "11111111-1111-4111-8111-111111111111",
             "b": "22222222-2222-4222-8222-222222222222"}

DOMAIN = """
<domain type='kvm'>
  <name>%(name)s</name> <uuid>%(uuid)s</uuid> <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type>
    <loader type='rom'>/usr/share/qemu/qboot.rom</loader> <kernel>%(guest)s</kernel>
    <cmdline>lapic=4 report=2</cmdline></os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'/>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/> <timer name='kvmclock' present='yes'/>
    <timer name='hpet' present='yes'/>
  </clock>
  <devices>
    <emulator>%(qemu)s</emulator>
    <controller type='usb' model='none'/> <memballoon model='none'/>
    <serial type='file'><source path='/tmp/serial' append='on'/></serial>
  </devices>
</domain>
"""

LIBVIRTD = """host_uuid = "%s"
unix_sock_dir = "/run/libvirt"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

QEMU = """stdio_handler = "file"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
seccomp_sandbox = 0
"""

FILES = {
    "/etc/passwd": "root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n",
    "/etc/group": "root:x:0:\nkvm:x:64:\nlibvirt-qemu:x:64055:\n",
    "/etc/hosts": "127.0.0.1 localhost a b\n",
    # what QEMU can do is asked once: the daemons share what libvirt keeps of it
    "/etc/up": """name=$1 at=/hosts/$1
mkdir -p $at/lib $at/log/qemu $at/run/libvirt $at/run/guestclock /hosts/cache /etc/libvirt
mkdir -p /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /var/log/guestclock
mkdir -p /var/lib/guestclock
[ -e /var/run ] || ln -s /run /var/run
unshare -m -n -u --propagation private sh -ec "hostname $name; ip link set lo up
mount --bind $at/etc /etc/libvirt; mount --bind $at/lib /var/lib/libvirt
mount --bind $at/log /var/log/libvirt; mount --bind /hosts/cache /var/cache/libvirt
mount --bind $at/run /run
exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirtd.pid" > $at/out 2>&1 < /dev/null &
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
[ -e $at/run/libvirt/libvirt-sock ] && exit 0; sleep 0.5; done
cat $at/out; exit 1
""",
    "/etc/within": "pid=$(cat /hosts/$1/run/libvirtd.pid); shift\n"
                   "exec nsenter -t $pid -m -n -u \"$@\"\n",
}


class Failed(Exception):
    """A command of the case did not do what it should; what came out has been said."""


class Hosts:
    """Two libvirt daemons, a and b, in one emulated host, and the guest on one of them."""

    def __init__(self, report, host, verbose):
        self.report, self.host, self.verbose = report, host, verbose
        self.had = 0		# lines of the guest
        self.stood = 0		# how often it has stood, as it says

    def run(self, command, timeout=120):
        began = time.monotonic()
        said = self.host.run(command, timeout)
        if self.verbose:
            print("    %.1f s: %s\n%s" % (time.monotonic() - began, command, said[-4000:]),
                  file=sys.stderr)
        return said

    def up(self, name):
        self.run("sh /etc/up " + name)

    def within(self, name, command):
        return self.run("sh /etc/within %s %s" % (name, command))

    def virsh(self, name, *arguments):
        return self.within(name, "virsh -q " + " ".join(arguments))

    def uri(self, name):
        return "qemu+unix:///system?socket=/hosts/%s/run/libvirt/libvirt-sock" % name

    def guestclock(self, case, name, *arguments):
        """The report; Failed where there is none."""
        said = self.run("sh /etc/within %s guestclock-live %s --json > /tmp/out 2> /tmp/err; "
                        "echo exit $?; cat /tmp/out; echo; echo @; cat /tmp/err" %
                        (name, " ".join(arguments)))
        text, _, complaint = said.partition("\n@")
        status, _, answer = text.partition("\n")
        if not case.check("exit status", status.strip() == "exit 0",
                          complaint.strip()[-400:] or status.strip()):
            raise Failed()
        return json.loads(answer)

    # ---- the guest ----

    def lines(self, more=ENOUGH):
        """All that the guest has said, once that are so many more."""
        self.had += more
        self.run("for i in $(seq 300); do [ $(grep -c '^@G' /tmp/serial) -ge %d ] && break; "
                 "sleep 0.1; done" % self.had)
        text = self.run("cat /tmp/serial").replace("\r", "") + "\n"
        found = [line for line in guest.parse([(None, text.encode())]) if line.kind == "G"]
        if len(found) < self.had:
            raise lab.LabError("the guest said %d lines, not %d" % (len(found), self.had))
        self.had = len(found)
        return found

    def offset(self):
        """What KVM adds to the host's TSC for the one guest that there is."""
        return int(self.run("cat /sys/kernel/debug/kvm/*-*/vcpu0/tsc-offset"))


class Case:
    def __init__(self, hosts, name):
        self.hosts, self.name = hosts, name

    def check(self, what, holds, figures):
        return self.hosts.report.check("%s: %s" % (self.name, what), holds, figures)

    def errors(self, offset):
        """{clock: error in ns}, by the guest's pairs and KVM's offset; its last line of before
        and its first one of after. It tells the two apart by itself: the kernel marks each
        resume in its clock page."""
        stood, after = self.hosts.stood, []
        for _ in range(WAIT):
            found = self.hosts.lines(1)
            before = [line for line in found if line["stopped"] == stood]
            after = [line for line in found if line["stopped"] > stood]
            if len(after) >= 2:
                break
        if not before or len(after) < 2:
            raise lab.LabError("the guest does not say when it stood")
        self.hosts.stood = after[-1]["stopped"]
        tsc = (self.hosts.offset() - offset) / PER_NS
        # its clock is a little faster than the TSC, by up to 1 ppm: from line to line
        ahead = [test_kvm_restore.ahead_of_tsc(line, PER_NS) for line in (before[-1], after[0])]
        return {"tsc": tsc, "kvmclock": tsc + ahead[1] - ahead[0]}, before[-1], after[0]

    def judge(self, offset, report):
        """What the guest reads now, against the truth and the report."""
        errors, last, first = self.errors(offset)
        clocks = {one["clock"]: one for one in report["clocks"]}
        for clock, error in errors.items():
            row = clocks[clock]
            known, bound = int(row["error_ns"]), row["bound_ns"]
            self.check(clock + " goes on", abs(error) <= ERROR_NS, test_kvm_restore.ms(error))
            self.check(clock, abs(error - known) <= ERROR_NS and bound is not None and
                       abs(error - known) <= int(bound) <= BOUND_NS,
                       "error %s, said %s, bound %s" % (
                           test_kvm_restore.ms(error), test_kvm_restore.ms(known),
                           "none" if bound is None else test_kvm_restore.ms(int(bound))))
            self.proof(row, error, report)
        steps = [first["t0"] - last["t0"], first["pv"] - last["pv"]]
        self.check("forward", min(steps) > 0, "TSC %+d ticks, kvmclock %+d ns" % tuple(steps))
        for clock in ("rtc", "hpet"):
            row = clocks[clock]
            self.check(clock + " read back", row["proof"] == "verified",
                       "%s: %s off, read to %s, by %s" % (row["proof"], row["read_ns"],
                                                          row["read_width_ns"], row["read_by"]))

    def proof(self, row, error, report):
        """It was read back, and what was read is what the guest reads. The plan counts from
        the stop that it was given: that far may the two be apart."""
        sure = int(report["stopped"]["uncertainty_ns"]) + \
            int(report["disagreement"]["uncertainty_ns"]) + \
            int(row["read_width_ns"] or 0) + test_kvm_restore.PLAN_NS
        off = None if row["read_ns"] is None else int(row["read_ns"]) - error
        self.check(row["clock"] + " read back", row["proof"] == "verified" and
                   abs(off) <= sure,
                   "%s by %s: %s from what the guest reads, sure to %s%s" % (
                       row["proof"], row["read_by"],
                       "?" if off is None else test_kvm_restore.ms(off),
                       test_kvm_restore.ms(sure), row["unread"] or ""))


def save_restore(hosts):
    case = Case(hosts, "save, restore")
    offset = hosts.offset()
    hosts.guestclock(case, "a", "save", NAME, "/tmp/image")
    report = hosts.guestclock(case, "a", "restore", "/tmp/image", "--verify", "monitor")
    case.check("carried out", report["verdict"] in ("done", "late"), report["verdict"])
    case.judge(offset, report)


def migrate(hosts, source, destination):
    case = Case(hosts, "%s to %s" % (source, destination))
    hosts.lines(1)
    offset = hosts.offset()
    report = hosts.guestclock(
        case, source, "migrate", NAME, "'%s'" % hosts.uri(destination), "--via",
        "unix:/hosts/%s/run/guestclock/guestclockd.sock" % destination,
        "--verify", "monitor")
    case.check("carried out", report["verdict"] in ("done", "late"),
               "%s, blackout %s" % (report["verdict"],
                                    test_kvm_restore.ms(int(report["blackout_ns"] or 0))))
    if hosts.verbose:
        hosts.run("cat /hosts/%s/guestclockd.log /var/lib/guestclock/margins" % destination)
    case.judge(offset, report)


def daemon(hosts, name):
    hosts.run("sh /etc/within %s guestclockd > /hosts/%s/guestclockd.log 2>&1 < /dev/null & "
              "for i in $(seq 50); do [ -e /hosts/%s/run/guestclock/guestclockd.sock ] && break; "
              "sleep 0.1; done" % (name, name, name))


def live(hosts):
    hosts.up("b")
    daemon(hosts, "b")
    migrate(hosts, "a", "b")


def back(hosts):
    """The other way, on what the first move has taught: both hosts have one memory of it."""
    daemon(hosts, "a")
    migrate(hosts, "b", "a")


def stock(hosts):
    """Without us the TSC loses what lies between stop and load: the measure sees it."""
    case = Case(hosts, "virsh save, restore")
    offset = hosts.offset()
    hosts.run("sh /etc/within a virsh -q save " + NAME + " /tmp/plain; sleep 3; "
              "sh /etc/within a virsh -q restore /tmp/plain")
    errors, last, first = case.errors(offset)
    gap = (first["t0"] - hosts.offset()) - (last["t0"] - offset)
    case.check("loses the gap", errors["tsc"] < -3e9 and errors["kvmclock"] < -3e9 and
               -errors["tsc"] < gap, "TSC %s, kvmclock %s" % tuple(
                   map(test_kvm_restore.ms, errors.values())))


CASES = {"save": save_restore, "live": live, "back": back}
LONG = {"stock": stock}


def files_of(options, work):
    """Everything that the host needs besides programs: (path there, path here)."""
    found = [(os.path.join(test_kvm_restore.FIRMWARE_DIR, name),) * 2 for name in FIRMWARE
             if os.path.exists(os.path.join(test_kvm_restore.FIRMWARE_DIR, name))]
    found += [(path,) * 2 for path in glob.glob(CPU_MAP + "/*.xml")]
    texts = dict(FILES)
    for name, uuid in HOST_UUID.items():
        texts["/hosts/%s/etc/libvirtd.conf" % name] = LIBVIRTD % uuid
        texts["/hosts/%s/etc/qemu.conf" % name] = QEMU
    texts["/etc/domain.xml"] = DOMAIN % {
        "name": NAME, "uuid": UUID, "guest": "/files/" + os.path.basename(options.guest),
        "qemu": shutil.which("qemu-system-x86_64")}
    for path, text in texts.items():
        here = os.path.join(work, path.strip("/").replace("/", "-"))
        with open(here, "w", encoding="utf-8") as file:
            file.write(text)
        found.append((path, here))
    return found + [options.guest]


def programs_of(options):
    needed = [lab.need("qemu-system-x86_64", "qemu-system-x86"),
              shutil.which("libvirtd", path="/usr/sbin:/usr/bin:/sbin:/bin") or
              lab.need("libvirtd", "libvirt-daemon"), lab.need("virsh", "libvirt-clients")]
    for path in PLUGINS:
        if not os.path.exists(path):
            raise lab.Skip("%s is not there (package libvirt-daemon, qemu-system-x86)" % path)
    return needed + PLUGINS + [options.live, options.daemon]


def run_all(report, options, work):
    began = time.monotonic()
    host = lab.VirtualAmdHost(work, options.cache, programs=programs_of(options),
                              files=files_of(options, work))
    with host:
        hosts = Hosts(report, host, options.verbose)
        hosts.up("a")
        hosts.virsh("a", "create", "/etc/domain.xml")
        hosts.lines()
        print("boot: %.0f s" % (time.monotonic() - began), flush=True)
        for name, function in {**CASES, **(LONG if options.long else {})}.items():
            at = time.monotonic()
            try:
                function(hosts)
            except Failed:
                return
            except lab.LabError as error:
                report.check(name, False, str(error).replace("\n", "\n    "))
                return
            print("%s: %.0f s" % (name, time.monotonic() - at), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.environ.get("GCLK_BUILD")
    parser.add_argument("--build", default=build or os.path.join(ROOT, "build", "gcc"),
                        help="where meson built guestclock and the test guest")
    parser.add_argument("--guest", default=os.environ.get("GCLK_GUEST"))
    parser.add_argument("--cache", help="where the kernel is kept; default: in the build")
    parser.add_argument("--long", action="store_true", help="also without us")
    parser.add_argument("--verbose", action="store_true", help="every command, on stderr")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.live = options.build + "/migrator/guestclock-live"
    options.daemon = options.build + "/migrator/daemon/guestclockd"
    options.guest = options.guest or options.build + "/tests/guest/guest.elf"
    options.cache = options.cache or options.build + "/lab"
    for path in (options.live, options.daemon, options.guest):
        if not os.path.exists(path):
            parser.error("%s is not there: build first, or say --build" % path)
    return options


def has_live_verbs(options):
    done = subprocess.run([options.live, "restore", "--help"], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise lab.Skip("guestclock was built without libvirt: " + done.stderr.strip())


def main():
    options = arguments()
    report = lab.Report()
    with report.part("libvirt in an emulated host"), lab.place(options.cache) as work:
        has_live_verbs(options)
        run_all(report, options, work)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
