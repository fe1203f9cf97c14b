# SPDX-License-Identifier: MIT
"""Linux hosts with a KVM of their own, on a machine that need not have any.

A Host boots a Debian kernel in an emulator, with an initramfs made here of busybox, KVM's
modules and whatever a test carries in (programs with their libraries, files). Its second
serial port is a shell: run() for commands, talk() for a program to converse with. Nothing
is installed and nothing but the cache directory is kept.

    with lab.AmdHost(work, cache, programs=["/usr/bin/qemu-system-x86_64"]) as host:
        print(host.run("cat /sys/module/kvm_amd/parameters/npt"))

A further kind of host is a class with its own modules and emulator(): where the serial
ports come out, and which command line boots (kernel, initramfs, arguments).
"""
import base64
import contextlib
import fcntl
import glob
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "/usr/bin/busybox"
LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "lib64/ld-linux-x86-64.so.2"

INIT = """#!/bin/sh
export PATH=/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t debugfs debug /sys/kernel/debug
# KVM keeps the TSC frequency that the kernel has when it is loaded, and the kernel refines
# its own for a second or two: until then the clocksource is called tsc-early
source=/sys/devices/system/clocksource/clocksource0/current_clocksource
for i in 1 2 3 4 5 6 7 8 9; do [ $(cat $source) = tsc-early ] && sleep 0.5; done
for module in %s; do insmod /modules/$module.ko || echo "lab: no $module"; done
stty -F /dev/ttyS1 raw -echo 115200
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
echo @lab ready
while read -r line; do eval "$line"; done
poweroff -f
"""


class Skip(Exception):
    """What the lab needs is not on this machine."""


class LabError(Exception):
    """A host, or what runs on it, did not do what it should."""


def need(program, package):
    """The path of a program, or Skip."""
    path = shutil.which(program)
    if not path:
        raise Skip("%s is not installed (package %s)" % (program, package))
    return path


def compile_static(source, directory):
    """A program that needs nothing of the host but its kernel; its path."""
    compiler = (os.environ.get("CC") or "cc").split()
    need(compiler[0], "gcc")
    path = os.path.join(directory, os.path.basename(source)[:-len(".c")])
    done = subprocess.run(compiler + ["-std=gnu11", "-O2", "-static", "-o", path, source],
                          text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        raise LabError("%s does not compile:\n%s" % (source, done.stdout))
    return path


class Report:
    """The lines that this program prints, and what they add up to."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, holds, figures):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        print("%s: %s: %s" % (name, "ok" if holds else "FAIL", figures), flush=True)
        return holds

    def skip(self, name, reason):
        self.skipped += 1
        print("%s: skipped: %s" % (name, reason), flush=True)

    @contextlib.contextmanager
    def part(self, name):
        """What cannot go on in it counts as skipped, or failed; at its end it says how long it took."""
        began = time.monotonic()
        try:
            yield
        except Skip as reason:
            self.skip(name, reason)
        except LabError as error:
            self.check(name, False, str(error).replace("\n", "\n    "))
        print("%s: %.0f s" % (name, time.monotonic() - began), flush=True)

    def end(self):
        counts = "%d passed, %d failed, %d skipped" % (self.passed, self.failed, self.skipped)
        print("cases: %s\n%s" % (counts, counts))
        return 1 if self.failed else 0 if self.passed else 77


# ---- what hosts are made of ----

class Kernel:
    """A Debian kernel: its image and its modules."""

    def __init__(self, root):
        found = sorted(glob.glob(os.path.join(root, "boot", "vmlinuz-*-cloud-amd64")),
                       key=os.path.getmtime)
        usable = [path for path in found if os.access(path, os.R_OK) and
                  os.path.isdir(self._modules(root, path))]
        if not usable:
            raise LookupError(root)
        self.image = usable[-1]
        self.modules = self._modules(root, usable[-1])

    @staticmethod
    def _modules(root, image):
        release = os.path.basename(image)[len("vmlinuz-"):]
        return os.path.join(root, "lib", "modules", release, "kernel")

    def module(self, name):
        """The file of a module by the name that it is loaded by."""
        for directory, _, files in os.walk(self.modules):
            for file in files:
                if file.split(".ko")[0].replace("_", "-") == name.replace("_", "-"):
                    return os.path.join(directory, file)
        raise LabError("the kernel has no module %s" % name)


def _download(directory):
    """The kernel's package (the one that KERNEL depends on) unpacked, not installed."""
    need("apt-get", "apt")
    need("dpkg-deb", "dpkg")
    show = subprocess.run(["apt-cache", "depends", KERNEL], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    names = re.findall(r"Depends: (linux-image-\S+-cloud-amd64)", show)
    for name in names:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            done = subprocess.run(["apt-get", "download", name], cwd=scratch, check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            packages = glob.glob(scratch + "/*.deb")
            if done.returncode == 0 and packages:
                target = os.path.join(directory, "kernel")
                shutil.rmtree(target, ignore_errors=True)
                subprocess.run(["dpkg-deb", "-x", packages[0], scratch + "/kernel"], check=True)
                os.rename(scratch + "/kernel", target)
                return
    raise Skip("the package %s cannot be downloaded" % KERNEL)


def kernel(cache):
    """The kernel in the cache, else the installed one, else from Debian's archive."""
    with open(os.path.join(cache, "kernel.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for root in (os.path.join(cache, "kernel"), "/"):
            try:
                return Kernel(root)
            except LookupError:
                pass
        _download(cache)
        return Kernel(os.path.join(cache, "kernel"))


class Initramfs:
    """A newc archive in the making. Directories come by themselves."""

    def __init__(self):
        self.entries = {}

    def _entry(self, path, mode, data):
        path = path.strip("/")
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self._entry(parent, 0o040755, b"")
        self.entries.setdefault(path, (mode, data))

    def directory(self, path):
        self._entry(path, 0o040755, b"")

    def link(self, path, target):
        self._entry(path, 0o120777, target.encode())

    def data(self, path, data, mode=0o644):
        self._entry(path, 0o100000 | mode, data)

    def file(self, path, source):
        with open(source, "rb") as file:
            self.data(path, file.read(), os.stat(source).st_mode & 0o777)

    def program(self, source):
        """A program at its own place, in /bin too, with every library that it is linked with."""
        self.file(source, source)
        self.link("bin/" + os.path.basename(source), source)
        listing = subprocess.run(["ldd", source], text=True, check=False,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if "not found" in listing:
            raise LabError("%s lacks libraries:\n%s" % (source, listing))
        for name, found in re.findall(r"(\S+) => (/\S+)", listing):
            self.file(LIBRARIES + "/" + name, found)
        for found in re.findall(r"^\s*(/\S+) \(", listing, re.MULTILINE):
            self.file(LOADER, found)

    def busybox(self):
        if not os.access(BUSYBOX, os.X_OK):
            raise Skip("%s is not installed (package busybox-static)" % BUSYBOX)
        self.file("bin/busybox", BUSYBOX)
        names = subprocess.run([BUSYBOX, "--list"], text=True, check=True,
                               stdout=subprocess.PIPE).stdout
        for name in names.split():
            self.link("bin/" + name, "busybox")

    def write(self, path):
        with open(path, "wb") as file:
            for number, (name, (mode, data)) in enumerate(self.entries.items(), 1):
                file.write(self._newc(number, name, mode, data))
            file.write(self._newc(0, "TRAILER!!!", 0, b""))

    @staticmethod
    def _newc(number, name, mode, data):
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


# ---- conversation ----

class Lines:
    """Lines to and from a pair of descriptors."""

    patience = 1	# by which all limits are multiplied

    def __init__(self, read_fd, write_fd, alive=lambda: True, why=lambda: ""):
        self.read_fd, self.write_fd, self.alive, self.why = read_fd, write_fd, alive, why
        self.buffer = b""

    def send(self, line):
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self.write_fd, data):]

    def read(self, timeout=60):
        """The next line, without its end."""
        timeout *= self.patience
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise LabError("nothing was said for %g s. %s" % (timeout, self.why()))
            if not select.select([self.read_fd], [], [], min(left, 1))[0]:
                if not self.alive():
                    raise LabError("the other side has ended. " + self.why())
                continue
            chunk = os.read(self.read_fd, 65536)
            if not chunk:
                raise LabError("the other side has ended. " + self.why())
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r").decode(errors="replace")


class Local:
    """The machine itself, with the part of a Host's face that tests of VMMs use."""

    name = "this machine"

    def __init__(self, work):
        self.work = work
        self.children = []

    def path(self, source):
        """Where a file that a test brings is on this host."""
        return source

    def talk(self, command):
        child = subprocess.Popen(["/bin/sh", "-c", "exec " + command], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        self.children.append(child)
        return Lines(child.stdout.fileno(), child.stdin.fileno(),
                     lambda: child.poll() is None)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for child in self.children:
            child.stdin.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()


class Host:
    """A host that is emulated: what all kinds have in common.

    programs  paths; each comes with its libraries, and is found by its name
    files     paths, or pairs (path on the host, path here)
    """

    name = "a host"
    modules = ()
    arguments = ("console=ttyS0 panic=-1 quiet tsc=reliable mitigations=off nokaslr lsm= "
                 "cryptomgr.notests")

    def __init__(self, work, cache, programs=(), files=()):
        self.work = tempfile.mkdtemp(prefix="host-", dir=work)
        self.console = os.path.join(self.work, "console")
        self.kernel = kernel(cache)
        self.initramfs = os.path.join(self.work, "initramfs")
        self._pack(programs, files)
        self.process = self.lines = None

    def _pack(self, programs, files):
        archive = Initramfs()
        archive.busybox()
        for directory in ("proc", "sys", "dev", "tmp", "run"):
            archive.directory(directory)
        archive.data("init", (INIT % " ".join(self.modules)).encode(), 0o755)
        for module in self.modules:
            archive.file("modules/" + module + ".ko", self.kernel.module(module))
        for program in programs:
            archive.program(program)
        for item in files:
            path, source = item if isinstance(item, tuple) else (self.path(item), item)
            archive.file(path, source)
        archive.write(self.initramfs)

    def path(self, source):
        """Where a file that a test brings is on this host."""
        return "/files/" + os.path.basename(source)

    def emulator(self, channel):
        """The command that boots; its second serial port connects to this socket path."""
        raise NotImplementedError

    patience = 4		# with a machine that is busy with other things
    own_session = False		# of processes, where the emulator is not the child itself

    def listen(self):
        """A socket for the second serial port, and its address for emulator()."""
        listener = socket.socket(socket.AF_UNIX)
        path = os.path.join(self.work, "channel")
        listener.bind(path)
        return listener, path

    def __enter__(self):
        listener, address = self.listen()
        with listener, open(os.path.join(self.work, "log"), "wb") as log:
            listener.listen(1)
            listener.settimeout(30)
            self.process = subprocess.Popen(self.emulator(address), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            start_new_session=self.own_session)
            try:
                self.socket = listener.accept()[0]
            except socket.timeout:
                self.__exit__()
                raise LabError("%s did not start: %s" % (self.name, self.said())) from None
        self.socket.setblocking(True)
        self.lines = Lines(self.socket.fileno(), self.socket.fileno(),
                           lambda: self.process.poll() is None, self.said)
        self.lines.patience = self.patience
        try:
            while self.lines.read(120) != "@lab ready":
                pass
        except LabError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        """End the emulator that was started here, and nothing else."""
        if self.process.poll() is None:
            self.kill()
        self.process.wait()
        if self.lines:
            self.socket.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def kill(self):
        self.process.kill()

    def said(self):
        """The end of what the host's kernel and the emulator said."""
        text = ""
        for name in ("log", "console"):
            path = os.path.join(self.work, name)
            if os.path.exists(path):
                with open(path, "rb") as file:
                    text += file.read().decode(errors="replace")
        return "\n".join(text.strip().split("\n")[-15:])

    def run(self, command, timeout=60):
        """A command's output on the host; LabError if it failed."""
        self.lines.send("{ %s; } </dev/null; status=$?; echo; echo @lab $status" % command)
        said = []
        while True:
            line = self.lines.read(timeout)
            if line.startswith("@lab "):
                break
            said.append(line)
        text = "\n".join(said[:-1])
        if line != "@lab 0":
            raise LabError("%s: %s: status %s\n%s" % (self.name, command, line[5:], text))
        return text

    def put(self, path, data):
        """A file on the host. It goes over the serial port, so it should be small."""
        text = base64.b64encode(data)
        self.lines.send("head -c %d | base64 -d > %s; echo; echo @lab $?" % (len(text), path))
        self.lines.send(text.decode())
        while not self.lines.read().startswith("@lab "):
            pass

    def get(self, path):
        """A file of the host, the same way."""
        return base64.b64decode("".join(self.run("base64 " + path).split()))

    def pause(self):
        """Its processor stands, and with it virtual time; not for hosts in real time."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def talk(self, command):
        """A program to converse with; the shell is back when it has ended."""
        self.lines.send(command)
        return self.lines


class AmdHost(Host):
    """An AMD processor with SVM, emulated by QEMU in software; its TSC is the machine's."""

    name = "AMD host"
    modules = ("irqbypass", "kvm", "kvm-amd")
    memory_mib = 1024
    options = ()

    def emulator(self, channel):
        return [need("qemu-system-x86_64", "qemu-system-x86"),
                "-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-m", str(self.memory_mib),
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-serial", "file:" + self.console,
                "-chardev", "socket,id=channel,path=" + channel, "-serial", "chardev:channel",
                "-kernel", self.kernel.image, "-initrd", self.initramfs,
                "-append", self.arguments] + list(self.options)


class VirtualAmdHost(AmdHost):
    """The same in virtual time: an instruction takes 1 ns, idle time takes none, the TSC has
    1 GHz. What is measured in there does not depend on how busy the machine is."""

    name = "AMD host in virtual time"
    options = ("-icount", "shift=0,sleep=off")


def turn(cache):
    """Held as long as the file object lives: no more emulated hosts at work than processors."""
    os.makedirs(cache, exist_ok=True)
    slots = [open(os.path.join(cache, "lock%d" % n), "w", encoding="utf-8")
             for n in range(os.cpu_count() or 1)]
    while True:
        for slot in slots:
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return slot
        time.sleep(0.2)


@contextlib.contextmanager
def place(cache):
    """A turn, and a directory for what is made meanwhile."""
    with turn(cache), tempfile.TemporaryDirectory(prefix="work-", dir=cache) as work:
        yield work


def script(main):
    """main()'s exit status; 77 or 1 where it could not go on."""
    try:
        return main()
    except Skip as reason:
        print("skipped: %s" % reason)
        return 77
    except LabError as error:
        print("failed: %s" % error)
        return 1
