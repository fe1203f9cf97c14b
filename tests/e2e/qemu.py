# SPDX-License-Identifier: MIT
"""Driving a stock qemu-system-x86_64 for the end-to-end tests.

Qemu starts one emulator, talks QMP to it, stamps every byte of its serial port, and ends what
it started (by process id). Guest time never enters here: stamps are the host's.
"""
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
QBOOT = "/usr/share/qemu/qboot.rom"


class Skip(Exception):
    """What a test needs is not on this machine."""


class Stamp(ctypes.Structure):
    """One reading of the host's clocks: TSC ticks, and ns of three clocks."""
    _fields_ = [("tsc", ctypes.c_uint64), ("raw", ctypes.c_int64),
                ("real", ctypes.c_int64), ("mono", ctypes.c_int64)]


def _load_stamper():
    """stamp.so from GCLK_STAMP, or compiled here into a temporary directory."""
    path = os.environ.get("GCLK_STAMP")
    if not path:
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            raise Skip("no C compiler for tests/e2e/stamp.c")
        directory = tempfile.mkdtemp(prefix="gclk-stamp-")
        path = os.path.join(directory, "stamp.so")
        subprocess.run(compiler.split() + ["-O2", "-shared", "-fPIC", "-o", path,
                                           os.path.join(HERE, "stamp.c")], check=True)
        lib = ctypes.CDLL(path)
        shutil.rmtree(directory)
    else:
        lib = ctypes.CDLL(path)
    lib.stamped_read.restype = ctypes.c_long
    lib.stamped_read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong,
                                 ctypes.POINTER(Stamp)]
    lib.stamp_now.argtypes = [ctypes.POINTER(Stamp)]
    lib.wait_realtime.argtypes = [ctypes.c_int64, ctypes.c_int64]
    return lib


_stamper = None


def stamper():
    global _stamper
    if _stamper is None:
        _stamper = _load_stamper()
    return _stamper


def now():
    """The host's clocks, now."""
    stamp = Stamp()
    stamper().stamp_now(ctypes.byref(stamp))
    return stamp


def wait_until(realtime_ns, spin_ns=1500000):
    """Return at realtime_ns: sleeping, and looking at the clock for the last spin_ns."""
    stamper().wait_realtime(realtime_ns, spin_ns)


def tsc_hz(seconds=1.0, _first=[]):
    """The host TSC's rate against CLOCK_MONOTONIC_RAW, over the longest span known."""
    if not _first:
        _first.append(now())
        time.sleep(seconds)
    last = now()
    return (last.tsc - _first[0].tsc) * 1e9 / (last.raw - _first[0].raw)


class QmpError(Exception):
    pass


class Qmp:
    """A QMP connection. Events are kept, stamped by QEMU (real, in ns) and at arrival."""

    def __init__(self, sock):
        self.sock = sock
        self.arrived = []	# not yet parsed
        self.rest = b""
        self._events = []
        self.replies = []
        self.changed = threading.Condition()
        self.closed = False
        self.answered = None	# when the last reply arrived
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        self.cmd("qmp_capabilities")

    def _read(self):
        """Stamps, and no more: an event wakes it in the midst of what QEMU does, and it may have
        woken on QEMU's own processor."""
        go_first()
        buffer = ctypes.create_string_buffer(65536)
        while True:
            stamp = Stamp()
            n = stamper().stamped_read(self.sock.fileno(), buffer, 65536, ctypes.byref(stamp))
            with self.changed:
                self.closed = n <= 0
                self.arrived.append((stamp, buffer.raw[:max(n, 0)]))
                self.changed.notify_all()
            if n <= 0:
                return

    def _parse(self):
        """What has arrived; self.changed is held."""
        while self.arrived:
            stamp, data = self.arrived.pop(0)
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                if line.strip():
                    self._take(json.loads(line), stamp)

    @property
    def events(self):
        """All so far."""
        with self.changed:
            self._parse()
            return self._events

    def _take(self, message, stamp):
        if "event" in message:
            when = message["timestamp"]
            message["real"] = when["seconds"] * 10**9 + when["microseconds"] * 1000
            message["arrival"] = stamp
            self._events.append(message)
        elif "QMP" not in message:
            self.replies.append(message)
            self.answered = stamp

    def _wait(self, ready, timeout, what):
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                self._parse()
                found = ready()
                if found is not None:
                    return found
                if self.closed:
                    raise QmpError("QEMU has gone while waiting for " + what)
                left = end - time.monotonic()
                if left <= 0:
                    raise QmpError("timeout waiting for " + what)
                self.changed.wait(left)

    def cmd(self, name, timeout=60, **arguments):
        request = {"execute": name}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        reply = self._wait(lambda: self.replies.pop(0) if self.replies else None, timeout,
                           name)
        if "error" in reply:
            raise QmpError("%s: %s" % (name, reply["error"]["desc"]))
        return reply["return"]

    def hmp(self, line, timeout=60):
        return self.cmd("human-monitor-command", timeout, command_line=line)

    def event(self, name, first=0, timeout=60, where=lambda event: True):
        """The first event of that name at or after index first; the index with it."""
        def find():
            for i in range(first, len(self._events)):
                if self._events[i]["event"] == name and where(self._events[i]):
                    return i, self._events[i]
            return None
        return self._wait(find, timeout, "event " + name)


def go_first(thread=0):
    """This thread (0: the caller's) goes before others, where it may."""
    try:
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pass


class Serial:
    """The guest's serial port: raw chunks, each with the stamp of its arrival."""

    def __init__(self, sock):
        self.sock = sock
        self.chunks = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        go_first()			# a stamp is late by what this thread waits for a processor
        buffer = ctypes.create_string_buffer(4096)
        while True:
            stamp = Stamp()
            n = stamper().stamped_read(self.sock.fileno(), buffer, 4096, ctypes.byref(stamp))
            if n <= 0:
                return
            with self.lock:
                self.chunks.append((stamp, buffer.raw[:n]))

    def take(self):
        with self.lock:
            return list(self.chunks)


def available(accel="tcg"):
    """Raise Skip where QEMU, or what the accelerator needs, is not there."""
    if not shutil.which("qemu-system-x86_64"):
        raise Skip("qemu-system-x86_64 is not installed")
    if accel.startswith("kvm") and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("/dev/kvm cannot be opened")


class Qemu:
    """One emulator.

    accel     "tcg", "kvm", "tcg,thread=single", ...
    machine   "pc" or "q35", with further machine options if any
    hpet      False: none (hpet=off)
    rtc       the argument of -rtc
    incoming  True: started for restore(); the guest stays unborn until then
    paused    -S
    extra     further arguments
    """

    def __init__(self, workdir, kernel=None, append="", accel="tcg", machine="pc", cpu=None,
                 smp=1, hpet=True, rtc="base=utc", memory=16, incoming=False, paused=False,
                 bios=None, extra=()):
        available(accel)
        self.workdir = tempfile.mkdtemp(prefix="qemu-", dir=workdir)
        self.machine = machine
        if bios is None and accel.startswith("kvm") and os.path.exists(QBOOT):
            bios = QBOOT
        args = ["qemu-system-x86_64", "-accel", accel,
                "-machine", machine + ("" if hpet else ",hpet=off"),
                "-smp", str(smp), "-m", str(memory), "-rtc", rtc,
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        if cpu or accel.startswith("kvm"):
            args += ["-cpu", cpu or "host"]
        if hpet and machine.startswith("pc"):
            # pins 16..23 for the HPET, which q35 has anyway
            args += ["-global", "hpet.hpet-intcap=0xff0104"]
        if bios:
            args += ["-bios", bios]
        if kernel:
            args += ["-kernel", kernel, "-append", append]
        if incoming:
            args += ["-incoming", "defer"]
        if paused or incoming:
            args += ["-S"]
        self.launch = now()
        self._start(args, list(extra))

    def _start(self, args, extra):
        listeners = {}
        for name in ("serial", "qmp"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(os.path.join(self.workdir, name))
            listener.listen(1)
            listener.settimeout(30)
            listeners[name] = listener
        args += ["-chardev", "socket,id=com1,path=" + self.workdir + "/serial",
                 "-serial", "chardev:com1",
                 "-qmp", "unix:" + self.workdir + "/qmp"]
        self.args = args + extra
        self.log = open(os.path.join(self.workdir, "stderr"), "w+b")
        self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        try:
            self.serial = Serial(self._accept(listeners["serial"]))
            self.qmp = Qmp(self._accept(listeners["qmp"]))
            self.qmp.cmd("migrate-set-capabilities",
                         capabilities=[{"capability": "events", "state": True}])
            go_first(self.process.pid)
        except BaseException:
            self.close()
            raise
        finally:
            for listener in listeners.values():
                listener.close()

    def _accept(self, listener):
        listener.settimeout(0.2)
        for _ in range(150):
            try:
                sock = listener.accept()[0]
                sock.settimeout(None)
                return sock
            except socket.timeout:
                if self.process.poll() is not None:
                    break
        raise QmpError("QEMU did not start: " + self.stderr())

    def stderr(self):
        self.log.flush()
        with open(self.log.name, "rb") as log:
            return log.read().decode(errors="replace").strip()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """End the emulator that was started here, and nothing else."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for end in ("serial", "qmp"):
            if hasattr(self, end):
                getattr(self, end).sock.close()
        self.log.close()
        shutil.rmtree(self.workdir, ignore_errors=True)

    # ---- run state ----

    def stop(self):
        """Stop; returns the STOP event's own stamp (CLOCK_REALTIME, ns)."""
        first = len(self.qmp.events)
        self.qmp.cmd("stop")
        return self.qmp.event("STOP", first)[1]["real"]

    def cont(self, at=None):
        """Resume, at an instant if one is given. Returns (RESUME stamp, ns that cont took).

        self.resume_width is how long after the stamp the answer came, ns: the guest's
        clocks started in between.
        """
        first = len(self.qmp.events)
        if at is not None:
            wait_until(at)
        begin = now()
        self.qmp.cmd("cont")
        end = self.qmp.answered
        resumed = self.qmp.event("RESUME", first)[1]["real"]
        self.resume_width = end.real - resumed
        return resumed, end.raw - begin.raw

    def status(self):
        return self.qmp.cmd("query-status")["status"]

    # ---- images ----

    def migrated(self, first, what):
        def final(event):
            return event["data"]["status"] in ("completed", "failed")
        event = self.qmp.event("MIGRATION", first, 300, final)[1]
        if event["data"]["status"] != "completed":
            raise QmpError(what + " failed: " + self.stderr())
        return event

    def save(self, path, live=False):
        """The migration stream into a file; returns the STOP stamp (CLOCK_REALTIME, ns).

        live=False stops the guest first, as `virsh save` does; live=True lets the
        migration stop it.
        """
        first = len(self.qmp.events)
        if not live:
            self.stop()
        if os.path.exists(path):
            os.remove(path)
        # under its name when it is whole: QEMU is done with it when the pipe has the last bytes
        self.qmp.cmd("migrate", uri="exec:cat > '%s.part' && mv '%s.part' '%s'" % ((path,) * 3))
        self.migrated(first, "save")
        end = time.monotonic() + 60
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise QmpError("the image is not written")
            time.sleep(0.002)
        return self.qmp.event("STOP", first)[1]["real"]

    def savevm(self, name):
        """An internal snapshot of a guest with a qcow2 drive; returns the STOP stamp."""
        first = len(self.qmp.events)
        answer = self.qmp.hmp("savevm " + name, timeout=300)
        if answer.strip():
            raise QmpError("savevm: " + answer.strip())
        return self.qmp.event("STOP", first)[1]["real"]

    def load(self, path, uri=None):
        """Load a stream into an emulator started with incoming=True; it stays paused.

        Returns the arrival of the MIGRATION completed event.
        """
        first = len(self.qmp.events)
        self.qmp.cmd("migrate-incoming", uri=uri or "exec:cat '%s'" % path)
        return self.migrated(first, "load")

    # ---- the guest ----

    def wait_output(self, ready, timeout=30, what="output"):
        """Poll the serial port until ready(chunks) says something true; returns that."""
        end = time.monotonic() + timeout
        while True:
            found = ready(self.serial.take())
            if found:
                return found
            if self.process.poll() is not None:
                raise QmpError("QEMU has gone while waiting for %s: %s" %
                               (what, self.stderr()))
            if time.monotonic() > end:
                raise QmpError("timeout waiting for " + what)
            time.sleep(0.02)


def restore(workdir, path, paused=False, at=None, **options):
    """A new emulator with a saved guest in it. Returns (Qemu, RESUME stamp or None)."""
    emulator = Qemu(workdir, incoming=True, **options)
    try:
        emulator.load(path)
        resumed = None if paused else emulator.cont(at)[0]
    except BaseException:
        emulator.close()
        raise
    return emulator, resumed


if __name__ == "__main__":
    print("TSC %.0f Hz" % tsc_hz(), file=sys.stderr)
