# SPDX-License-Identifier: MIT
"""Two libvirt hosts, a and b, on one machine, and the test guest that moves between them.

    with TwoHosts(work, guest_elf, wallshift) as two:
        start = two.boot("a")			# virsh create; the guest's first second
        two.b.set_wall(3 * 10**9)		# b's wall clock is 3 s ahead, from now on
        before = two.readings(start)
        with two.relay("a", "b"):		# a's SOCKET to b's
            two.virsh_migrate("a", "b")
        after = two.readings(start + 1)
        guest.errors(before, after)

Truth is the machine's own clock, which no process of the hosts moves. A QEMU is counted by
its start: each opens the serial port once more, so what the n-th one's guest said is
readings(n).

The hosts' QEMU runs as root, or as libvirt-qemu (user=). Their /run/guestclock is theirs;
guestclockd(host) starts the daemon in one. Whatever was started is ended by its process id.
"""
import os
import re
import select
import shutil
import socket
import subprocess
import threading
import time

import guest
import libvirtd
import qemu

NAME, UUID = "gclk-move", "3f6a1c80-52d7-4d0c-9a55-0d9c6f1e7b21"
SOCKET, NBD_SOCKET = ("/run/guestclock/%s%s.sock" % (UUID, kind) for kind in ("", ".nbd"))
DAEMON_SOCKET = "/run/guestclock/guestclockd.sock"
HOST_UUID = {"a": "11111111-1111-4111-8111-111111111111",
             "b": "22222222-2222-4222-8222-222222222222"}
ADDRESS = {"a": "192.0.2.1", "b": "192.0.2.2"}	# see connect()
ENOUGH = 25			# reports: half a second
SETTLED = 5			# the first ones of a guest that has just booted or arrived

DOMAIN = """
<domain type='qemu'>
  <name>%(name)s</name> <uuid>%(uuid)s</uuid> <memory unit='MiB'>%(mib)d</memory>
  <vcpu>%(vcpus)d</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>%(guest)s</kernel>
    <cmdline>%(cmdline)s</cmdline></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <clock offset='utc'>%(timers)s</clock>
  <devices>
    <emulator>%(qemu)s</emulator>
    %(devices)s
    <controller type='usb' model='none'/> <memballoon model='none'/>
    <serial type='unix'><source mode='connect' path='%(serial)s'/></serial>
  </devices>
</domain>
"""
CMDLINE = "pit=100 lapic=100 report=50 edge=irq"
TIMERS = "<timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='yes'/>"


def domain_xml(guest_elf, serial, name=NAME, uuid=UUID, mib=16, vcpus=1, cmdline=CMDLINE,
               timers=TIMERS, devices=""):
    return DOMAIN % {"name": name, "uuid": uuid, "mib": mib, "vcpus": vcpus, "timers": timers,
                     "cmdline": cmdline, "devices": devices, "serial": serial,
                     "guest": os.path.abspath(guest_elf),
                     "qemu": shutil.which("qemu-system-x86_64")}


class TwoHosts:
    """work: a directory of a short name that every user may search (mkdtemp in /tmp).

    listen: the libvirts listen for TLS; what is in WORK/a/pki, WORK/b/pki is there already.
    """

    def __init__(self, work, guest_elf, wallshift=None, user="root", listen=False, **domain):
        self.work, self.hosts, self.closing = work, {}, []
        self.listen = listen
        os.chmod(work, 0o755)
        self.port = libvirtd.SerialPort(os.path.join(work, "serial"))
        os.chmod(self.port.path, 0o666)
        self.xml = os.path.join(work, "domain.xml")
        with open(self.xml, "w", encoding="utf-8") as out:
            out.write(domain_xml(guest_elf, self.port.path, **domain))
        try:
            self._start_both(user, wallshift)
        except BaseException:
            self.close()
            raise
        self.a, self.b = self.hosts["a"], self.hosts["b"]

    def _start_both(self, user, wallshift):
        """At once: each asks its QEMU for some seconds what it can do."""
        reasons = []

        def start(name):
            at = os.path.join(self.work, name)
            os.makedirs(at, exist_ok=True)
            try:
                self.hosts[name] = libvirtd.Host(
                    at, uuid=HOST_UUID[name], name=name, user=user, listen=self.listen,
                    wallshift=wallshift and os.path.abspath(wallshift))
            except (qemu.Skip, OSError, subprocess.SubprocessError) as reason:
                reasons.append(reason)
        threads = [threading.Thread(target=start, args=name) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if reasons:
            raise reasons[0]

    def close(self):
        for one in self.closing + list(self.hosts.values()) + [self.port]:
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def connect(self):
        """A cable between the hosts: they reach each other by name."""
        link = "ip link add net0 type veth peer name net0 netns %d" % self.b.process.pid
        done = self.a.run(["sh", "-c", link])
        if done.returncode:
            raise qemu.Skip("no network between namespaces: " + done.stderr.strip())
        for name, host in self.hosts.items():
            with open(os.path.join(host.at, "etc/hosts"), "a", encoding="utf-8") as out:
                out.write("".join("%s %s\n" % (ADDRESS[one], one) for one in ADDRESS))
            host.run(["sh", "-ec", "ip address add %s/24 dev net0; ip link set net0 up" %
                      ADDRESS[name]], check=True)

    # ---- the guest ----

    def boot(self, host="a"):
        """A new guest, when it has said enough. Its start, for readings()."""
        start = self.port.count() + 1
        self.hosts[host].virsh("create", self.xml)
        self.port.wait(start)
        self.readings(start, ENOUGH + SETTLED)
        return start

    def readings(self, start, n=ENOUGH, timeout=60, edge=True):
        """n reports or more of that start's QEMU, with an update edge of the RTC in them: not
        edge where that has been set, and QEMU does not see its second end for an hour."""
        serial = self.port.wait(start)
        end = time.monotonic() + timeout
        while True:
            found = [line for line in guest.parse(serial.take()) if line.kind == "G"]
            if len(found) >= n + SETTLED and \
                    (not edge or guest.rtc_minus_real(found[SETTLED:]) is not None):
                return found[SETTLED:]
            if time.monotonic() > end:
                raise qemu.QmpError("the guest reported %d times, not %d" % (len(found), n))
            time.sleep(0.02)

    def runs(self, start, within=3):
        """Does that start's guest say anything new, within so many seconds?"""
        serial = self.port.wait(start)
        had, end = len(serial.take()), time.monotonic() + within
        while len(serial.take()) == had and time.monotonic() < end:
            time.sleep(0.02)
        return len(serial.take()) > had

    def states(self):
        """{"a": "running", "b": None}: where the guest is, and how."""
        found = {}
        for name, host in self.hosts.items():
            try:
                found[name] = host.virsh("domstate", NAME)
            except libvirtd.VirshError:
                found[name] = None
        return found

    def destroy(self):
        for host in self.hosts.values():
            try:
                host.virsh("destroy", NAME)
            except libvirtd.VirshError:
                pass		# not here

    # ---- moves ----

    def virsh_migrate(self, source, destination, *options, p2p=True, timeout=60):
        """What plain libvirt makes of it, the stream going by SOCKET (see relay)."""
        there = self.hosts[destination].uri
        self.hosts[source].virsh("migrate", "--live", NAME, "--desturi", there, "--migrateuri",
                                 "unix://" + SOCKET, *(["--p2p"] if p2p else []), *options,
                                 timeout=timeout)

    def socket_in(self, host, path=SOCKET):
        """Where that path of a host is on this machine."""
        assert path.startswith("/run/")
        return os.path.join(self.hosts[host].run_dir, path[len("/run/"):])

    def relay(self, source, destination, path=SOCKET, through=None):
        return Relay(self.socket_in(source, path), self.socket_in(destination, path), through)

    def events(self, host):
        """QEMU's own events of that host, from now on; ends with the hosts."""
        self.closing.append(Events(self.hosts[host]))
        return self.closing[-1]

    def guestclockd(self, host, program, *options, env=None, timeout=10, path=DAEMON_SOCKET):
        """The daemon, running in that host. A Popen: its pid is the daemon's."""
        path = self.socket_in(host, path)
        log = os.path.join(self.work, host, "guestclockd.log")
        with open(log, "ab") as out:
            child = self.hosts[host].popen([os.path.abspath(program)] + list(options), env=env,
                                           stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + timeout
        while not answers(path):
            if child.poll() is not None or time.monotonic() > end:
                with open(log, encoding="utf-8", errors="replace") as out:
                    raise qemu.QmpError("guestclockd does not start: " + out.read()[-500:])
            time.sleep(0.02)
        return child


def answers(path):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
            return True
        except OSError:
            return False


class Relay:
    """Bytes between a listening path and another, both ways, with half-close; many at once.

    through(direction, data) may look at what passes, delay, or return other bytes; None cuts
    the connection. direction is "out" (from who dialled) or "back".
    """

    def __init__(self, listen, dial, through=None):
        self.path, self.dial, self.through = listen, dial, through
        self.pairs, self.bytes = [], {"out": 0, "back": 0}
        if os.path.exists(listen):
            os.unlink(listen)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(listen)
        os.chmod(listen, 0o666)		# with --parallel it is QEMU that dials
        self.listener.listen(16)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                ready = select.select([self.listener], [], [], 0.1)[0]
                near = self.listener.accept()[0] if ready else None
            except (OSError, ValueError):
                return		# closed
            if near:
                self._join(near)

    def _join(self, near):
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(self.dial)
        except OSError:
            near.close()
            far.close()
            return
        self.pairs.append((near, far))
        for job in ((near, far, "out"), (far, near, "back")):
            threading.Thread(target=self._pump, args=job, daemon=True).start()

    def _pump(self, source, sink, direction):
        try:
            while True:
                data = source.recv(1 << 18)
                if data and self.through:
                    data = self.through(direction, data)
                    if data is None:
                        self.cut()
                        return
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                self.bytes[direction] += len(data)
                sink.sendall(data)
        except OSError:
            pass		# one of them has gone

    def cut(self):
        """Both sides of every connection break, now."""
        for pair in self.pairs:
            for sock in pair:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.listener.close()
        self.thread.join()
        self.cut()
        for pair in self.pairs:
            for sock in pair:
                sock.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Events:
    """What QEMU says in a host, with its own stamps: of that host's wall clock, in ns."""

    PATTERN = re.compile(r"event (\S+) at (\d+)\.(\d{6}) for domain")

    def __init__(self, host):
        command = [libvirtd.find("virsh"), "-q", "-c", host.uri, "qemu-monitor-event", "--loop"]
        self.found, self.changed = [], threading.Condition()
        self.child = subprocess.Popen(["stdbuf", "-oL"] + command, text=True,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
        threading.Thread(target=self._read, daemon=True).start()
        # registered as soon as it waits: virsh says nothing of it
        time.sleep(0.3)

    def _read(self):
        for line in self.child.stdout:
            match = self.PATTERN.search(line)
            if match:
                real = int(match.group(2)) * 10**9 + int(match.group(3)) * 1000
                with self.changed:
                    self.found.append((match.group(1), real))
                    self.changed.notify_all()

    def wait(self, name, first=0, timeout=10):
        """The stamp of the first event of that name at or after index first."""
        def stamps():
            return [real for one, real in self.found[first:] if one == name]
        with self.changed:
            if not self.changed.wait_for(stamps, timeout):
                raise qemu.QmpError("no %s of QEMU; there were %r" % (name, self.found[first:]))
            return stamps()[0]

    def count(self):
        with self.changed:
            return len(self.found)

    def close(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
