# SPDX-License-Identifier: MIT
"""A libvirt host of its own: one libvirtd in private namespaces, with its own /etc/libvirt,
/var/lib/libvirt, /var/log/libvirt, /var/cache/libvirt and /run. Nothing of the machine's own
libvirt is seen or touched. Everything that was started ends with it, by process id.

    with Host(directory) as host:
        host.virsh("create", xml_path)

Two of them are two hosts to libvirt (twohosts.py). Within one, `run` and `popen` start what
belongs to it: it has the host's /run, /etc/guestclock, /var/lib/guestclock and
/var/log/guestclock, too, and its wall clock, if that is to be wrong.
"""
import argparse
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import qemu
import streampatch
import tally

UUID = "5c1f3a52-8e0b-4f5e-9d3a-6f6b0c7a11d1"
QEMU_USER = (64055, 64055)

NAMESPACES = ["unshare", "-m", "-n", "-u", "--propagation", "private"]

ENTER = """
hostname %(name)s; ip link set lo up
mount --bind %(at)s/etc /etc/libvirt;   mount --bind %(at)s/lib /var/lib/libvirt
mount --bind %(at)s/log /var/log/libvirt; mount --bind %(at)s/cache /var/cache/libvirt
mount --bind %(at)s/etc/passwd /etc/passwd; mount --bind %(at)s/etc/group /etc/group
mount --bind %(at)s/etc/hosts /etc/hosts; mount --bind %(at)s/pki /etc/pki
mount --bind %(at)s/guestclock/etc /etc/guestclock
mount --bind %(at)s/guestclock/lib /var/lib/guestclock
mount --bind %(at)s/guestclock/log /var/log/guestclock
mount --bind %(run)s /run
exec env %(preload)s %(libvirtd)s -f /etc/libvirt/libvirtd.conf -p /run/libvirtd.pid %(listen)s
"""


class VirshError(Exception):
    pass


def find(program):
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def available():
    """Raise qemu.Skip where a private libvirtd cannot be had."""
    for program in ("libvirtd", "virsh", "unshare", "nsenter", "mount", "ip", "qemu-img"):
        if not find(program):
            raise qemu.Skip("%s is not installed" % program)
    if os.geteuid() != 0:
        raise qemu.Skip("only root may have private mount namespaces")
    done = subprocess.run(NAMESPACES + ["sh", "-c", "mount -t tmpfs none /mnt"],
                          capture_output=True, text=True)
    if done.returncode:
        raise qemu.Skip("no private namespaces: " + done.stderr.strip())
    # to mount on; empty directories are all that a test leaves on the machine
    for directory in ("etc", "var/lib", "var/log", "var/cache"):
        for owner in ("libvirt", "guestclock"):
            os.makedirs("/%s/%s" % (directory, owner), exist_ok=True)
    os.makedirs("/etc/pki", exist_ok=True)


# what tests are given: option -> where it stands if it is not, what it is
GIVEN = {
    "guest": ("GCLK_GUEST", "the test guest's ELF; the compiler may lack -m32"),
    "guestclock": ("GCLK_COMMAND", "the command"),
    "guestclockd": ("GCLK_DAEMON", "the daemon"),
    "hook": ("GCLK_HOOK", "libvirt's hook"),
    "wallshift": ("GCLK_WALLSHIFT_SO", "wallshift.so"),
    "slowwrite": ("GCLK_SLOWWRITE_SO", "slowwrite.so"),
    "exchange": ("GCLK_EXCHANGE", "bench-exchange"),
}


def main(description, body, given, add=None):
    """A test's program: its options, body(args, a directory to work in); does not return.

    given  those of GIVEN without which it cannot run
    add    add(parser): options of its own
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    for name in given:
        variable, what = GIVEN[name]
        parser.add_argument("--" + name, default=os.environ.get(variable),
                            help="%s (or %s)" % (what, variable))
    if add:
        add(parser)
    sys.exit(_run(body, parser.parse_args(), given))


def _run(body, args, given):
    """The exit status, also where it cannot run here."""
    try:
        qemu.available()
        available()
        for name in given:
            if not os.path.exists(getattr(args, name) or ""):
                raise qemu.Skip("no --%s: %s" % (name, GIVEN[name][1]))
        # not in a build directory: a path to a socket holds 107 bytes
        with tempfile.TemporaryDirectory(prefix="gclk-") as work:
            os.chmod(work, 0o755)
            return body(args, work)
    except qemu.Skip as reason:
        return tally.skip_all(reason)


class Cases:
    """A test's cases, in parts of about the same time, and some for --long alone.

    parts  [{name: function(lab)}], rare  {name: function(lab)}
    """

    def __init__(self, parts, rare=None):
        self.parts, self.rare = parts, rare or {}

    def add(self, parser):
        names = sorted(name for part in self.parts + [self.rare] for name in part)
        parser.add_argument("--only", action="append", choices=names)
        parser.add_argument("--long", action="store_true")
        if len(self.parts) > 1:
            parser.add_argument("--part", type=int, choices=range(1, len(self.parts) + 1))

    def _chosen(self, args):
        part = getattr(args, "part", None)
        for number, cases in enumerate(self.parts, 1):
            if part in (None, number):
                yield from cases.items()
        # the rare ones are the second part's, so that none is run twice
        if args.long and part in (None, 2):
            yield from self.rare.items()

    def run(self, args, lab):
        """All that were asked for; the exit status. One that ends otherwise has failed."""
        try:
            for name, function in self._chosen(args):
                if args.only and name not in args.only:
                    continue
                try:
                    function(lab)
                except (VirshError, qemu.QmpError, streampatch.Malformed,
                        subprocess.SubprocessError, KeyError, IndexError) as error:
                    lab.t.check(name + " runs", False, repr(error))
                lab.end_domain()
            return lab.t.end()
        finally:
            lab.close()


class Host:
    """directory  where it keeps its /etc/libvirt and so on; must be there
    uuid, name  what libvirt and the kernel call it: two hosts need two of each
    user       whose its QEMU is: root, or libvirt-qemu
    wallshift  wallshift.so: its wall clock can be set wrong (set_wall)
    listen     libvirtd listens for TLS, too, with what DIRECTORY/pki has (its /etc/pki)
    """

    def __init__(self, directory, image_format="raw", uuid=UUID, name="gclk-test", user="root",
                 wallshift=None, listen=False):
        self.at, self.process, self.name, self.user = directory, None, name, user
        self.wallshift, self.listen, self.children, self.wall_ns = wallshift, listen, [], 0
        for sub in ("etc/qemu", "etc/hooks", "lib", "log/qemu", "cache", "guestclock/etc",
                    "guestclock/lib", "guestclock/log", "home", "pki"):
            os.makedirs(os.path.join(directory, sub), exist_ok=True)
        # in memory, as /run is: libvirt waits for what it writes there to reach the disk
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else directory
        self.run_dir = tempfile.mkdtemp(prefix="gclk-run-", dir=memory)
        os.chmod(self.run_dir, 0o755)
        for sub in ("libvirt", "guestclock"):
            os.makedirs(os.path.join(self.run_dir, sub))
        if user != "root":
            os.chown(os.path.join(self.run_dir, "guestclock"), *QEMU_USER)
        self.set_wall(0)
        self._write("etc/libvirtd.conf", 'host_uuid = "%s"' % uuid,
                    'unix_sock_dir = "/run/libvirt"', 'auth_unix_rw = "none"',
                    'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"')
        self._write("etc/hosts", "127.0.0.1 localhost " + name)
        self._name_user("passwd", "libvirt-qemu:x:%d:%d::/nonexistent:/usr/sbin/nologin" %
                        QEMU_USER)
        self._name_user("group", "libvirt-qemu:x:%d:" % QEMU_USER[1])
        self.start(image_format)

    def _name_user(self, name, line):
        """The user that libvirt was built for: it must have a number. Root has a home here."""
        with open("/etc/" + name, encoding="utf-8") as file:
            lines = file.read().rstrip("\n").split("\n")
        if name == "passwd":
            lines = [":".join(one.split(":")[:5] + [os.path.join(self.at, "home"), "/bin/sh"])
                     if one.startswith("root:") else one for one in lines]
        if not any(one.startswith("libvirt-qemu:") for one in lines):
            lines.append(line)
        self._write("etc/" + name, *lines)

    def _write(self, name, *lines):
        with open(os.path.join(self.at, name), "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")

    @property
    def uri(self):
        """Good on the machine and within every other host: for peer-to-peer, too."""
        return "qemu+unix:///system?socket=%s/libvirt/libvirt-sock" % self.run_dir

    # ---- the daemon ----

    def start(self, image_format="raw"):
        self._write("etc/qemu.conf", 'stdio_handler = "file"', 'security_driver = "none"',
                    "cgroup_controllers = [ ]", "namespaces = [ ]", 'user = "%s"' % self.user,
                    'group = "%s"' % self.user, "dynamic_ownership = 0", "remember_owner = 0",
                    'save_image_format = "%s"' % image_format,
                    'snapshot_image_format = "raw"')
        script = ENTER % {"name": self.name, "at": self.at, "run": self.run_dir,
                          "listen": "--listen" if self.listen else "",
                          "libvirtd": find("libvirtd"), "preload": " ".join(
                              "%s=%s" % one for one in self.preload().items())}
        with open(os.path.join(self.at, "out"), "ab") as out:
            self.process = subprocess.Popen(NAMESPACES + ["sh", "-ec", script], stdout=out,
                                            stderr=out, stdin=subprocess.DEVNULL,
                                            start_new_session=True)
        end = time.monotonic() + 60
        while subprocess.run([find("virsh"), "-c", self.uri, "uri"],
                             capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                reason = self.messages()
                self.stop()
                raise qemu.Skip("libvirtd does not start: " + reason)
            time.sleep(0.1)

    def messages(self):
        with open(os.path.join(self.at, "out"), encoding="utf-8", errors="replace") as out:
            return out.read().strip()[-300:]

    def stop(self):
        """The daemon alone; its guests go on."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process:
            self.process.wait()
        self.process = None

    def restart(self, image_format):
        self.stop()
        self.start(image_format)

    def close(self):
        """What was started in it, the guests by the ids that libvirt keeps, the daemon."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        pids = os.path.join(self.run_dir, "libvirt", "qemu")
        for name in os.listdir(pids) if os.path.isdir(pids) else ():
            if name.endswith(".pid"):
                with open(os.path.join(pids, name), encoding="ascii") as file:
                    end_process(file.read())
        self.stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ---- its wall clock ----

    def preload(self):
        """What a process of this host has in its environment, to see its wall clock."""
        return {"LD_PRELOAD": self.wallshift} if self.wallshift else {}

    def set_wall(self, ns):
        """How far its wall clock is ahead of the machine's: at once, for all its processes."""
        self.wall_ns = ns
        path = os.path.join(self.run_dir, "wallshift")
        with open(path, "r+b" if os.path.exists(path) else "wb") as file:
            file.write(struct.pack("=q", ns))

    # ---- commands ----

    def within(self, arguments):
        """The command line that runs these within the host's namespaces."""
        return [find("nsenter"), "-t", str(self.process.pid), "-m", "-n", "-u",
                "--"] + list(arguments)

    def environment(self, **more):
        found = dict(os.environ, **self.preload(), **more)
        if self.wallshift:	# a sanitizer's library need not be the first
            found["ASAN_OPTIONS"] = ":".join(filter(None, (found.get("ASAN_OPTIONS"),
                                                           "verify_asan_link_order=0")))
        return found

    def run(self, arguments, timeout=60, env=None, **options):
        """A program of this host, to its end. Paths are absolute, the directory is /."""
        return subprocess.run(self.within(arguments), text=True, capture_output=True,
                              timeout=timeout, env=self.environment(**(env or {})), **options)

    def popen(self, arguments, env=None, **options):
        """A program of this host, which ends with it at the latest. Its pid is the child's."""
        child = subprocess.Popen(self.within(arguments), env=self.environment(**(env or {})),
                                 **options)
        self.children.append(child)
        return child

    def virsh(self, *arguments, timeout=60):
        done = subprocess.run([find("virsh"), "-q", "-c", self.uri] + list(arguments), text=True,
                              capture_output=True, timeout=timeout)
        if done.returncode:
            raise VirshError("virsh %s: %s" % (arguments[0], done.stderr.strip()))
        return done.stdout.strip()


def end_process(text):
    try:
        os.kill(int(text), signal.SIGKILL)
    except (ValueError, ProcessLookupError):
        pass


class SerialPort:
    """Where a domain's serial port connects to: again with each start of the guest.

    <serial type='unix'><source mode='connect' path=.../></serial>
    """

    def __init__(self, path):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.serials, self.changed = [], threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            with self.changed:
                self.serials.append(qemu.Serial(sock))
                self.changed.notify_all()

    def count(self):
        with self.changed:
            return len(self.serials)

    def wait(self, n, timeout=30):
        """The n-th start's chunks come from here (counted from 1)."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.serials) >= n, timeout):
                raise qemu.QmpError("the guest did not open its serial port")
            return self.serials[n - 1]

    def close(self):
        self.listener.close()
        for serial in self.serials:
            serial.sock.close()
