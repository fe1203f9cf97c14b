# SPDX-License-Identifier: MIT
"""A libvirt host of its own: one libvirtd in private namespaces, with its own /etc/libvirt,
/var/lib/libvirt, /var/log/libvirt, /var/cache/libvirt and /run. Nothing of the machine's own
libvirt is seen or touched. Everything that was started ends with it, by process id.

    with Host(directory) as host:
        host.virsh("create", xml_path)
"""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import qemu

UUID = "5c1f3a52-8e0b-4f5e-9d3a-6f6b0c7a11d1"

NAMESPACES = ["unshare", "-m", "-n", "-u", "--propagation", "private"]

ENTER = """
hostname %(name)s; ip link set lo up
mount --bind %(at)s/etc /etc/libvirt;   mount --bind %(at)s/lib /var/lib/libvirt
mount --bind %(at)s/log /var/log/libvirt; mount --bind %(at)s/cache /var/cache/libvirt
mount --bind %(at)s/etc/passwd /etc/passwd; mount --bind %(at)s/etc/group /etc/group
mount --bind %(run)s /run
exec %(libvirtd)s -f /etc/libvirt/libvirtd.conf -p /run/libvirtd.pid
"""


class VirshError(Exception):
    pass


def find(program):
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def available():
    """Raise qemu.Skip where a private libvirtd cannot be had."""
    for program in ("libvirtd", "virsh", "unshare", "mount", "ip", "qemu-img"):
        if not find(program):
            raise qemu.Skip("%s is not installed" % program)
    if os.geteuid() != 0:
        raise qemu.Skip("only root may have private mount namespaces")
    done = subprocess.run(NAMESPACES + ["sh", "-c", "mount -t tmpfs none /mnt"],
                          capture_output=True, text=True)
    if done.returncode:
        raise qemu.Skip("no private namespaces: " + done.stderr.strip())
    for directory in ("etc", "var/lib", "var/log", "var/cache"):
        os.makedirs("/%s/libvirt" % directory, exist_ok=True)


class Host:
    def __init__(self, directory, image_format="raw"):
        self.at, self.process = directory, None
        for name in ("etc/qemu", "lib", "log/qemu", "cache"):
            os.makedirs(os.path.join(directory, name), exist_ok=True)
        # in memory, as /run is: libvirt waits for what it writes there to reach the disk
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else directory
        self.run = tempfile.mkdtemp(prefix="gclk-run-", dir=memory)
        os.makedirs(os.path.join(self.run, "libvirt"))
        self._write("etc/libvirtd.conf", 'host_uuid = "%s"' % UUID,
                    'unix_sock_dir = "/run/libvirt"', 'auth_unix_rw = "none"',
                    'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"')
        self._name_user("passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin")
        self._name_user("group", "libvirt-qemu:x:64055:")
        self.start(image_format)

    def _name_user(self, name, line):
        """The user that libvirt was built for: it must have a number, nothing runs as it."""
        with open("/etc/" + name, encoding="utf-8") as file:
            lines = file.read().rstrip("\n").split("\n")
        if not any(one.startswith("libvirt-qemu:") for one in lines):
            lines.append(line)
        self._write("etc/" + name, *lines)

    def _write(self, name, *lines):
        with open(os.path.join(self.at, name), "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")

    @property
    def uri(self):
        return "qemu+unix:///system?socket=%s/libvirt/libvirt-sock" % self.run

    # ---- the daemon ----

    def start(self, image_format="raw"):
        self._write("etc/qemu.conf", 'stdio_handler = "file"', 'security_driver = "none"',
                    "cgroup_controllers = [ ]", "namespaces = [ ]", 'user = "root"',
                    'group = "root"', "dynamic_ownership = 0", "remember_owner = 0",
                    'save_image_format = "%s"' % image_format,
                    'snapshot_image_format = "raw"')
        script = ENTER % {"name": "gclk-test", "at": self.at, "run": self.run,
                          "libvirtd": find("libvirtd")}
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
        """The guests by the ids that libvirt keeps of them, then the daemon."""
        pids = os.path.join(self.run, "libvirt", "qemu")
        for name in os.listdir(pids) if os.path.isdir(pids) else ():
            if name.endswith(".pid"):
                with open(os.path.join(pids, name), encoding="ascii") as file:
                    end_process(file.read())
        self.stop()
        shutil.rmtree(self.run, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ---- commands ----

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
