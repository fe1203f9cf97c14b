#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A live migration through the two ends of the proxy: two bare QEMUs, no libvirt.

The guest's own readings decide: what its clocks lost over the blackout, against the host's
raw clock. The same migration without the ends is the comparison.

    test_proxy.py --guest guest.elf --guestclock guestclock-live --guestclockd guestclockd
                  [--only NAME] [--long]
"""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import guest
import measure
import qemu

ERROR_NS = 2e6
APPEND = "pit=20 hpet=20 report=50 edge=poll"
LINES = 60

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Pair:
    """A running guest, and a QEMU that waits for it at a socket."""

    def __init__(self, lab, incoming_defer=False, **options):
        self.lab = lab
        self.deferred = incoming_defer
        self.here = lab.path("here.sock")
        self.there = lab.path("there.sock")
        self.options = {**lab.options, **options, "kernel": lab.guest, "append": APPEND}
        self.source = qemu.Qemu(lab.work, **self.options)
        try:
            self.destination = qemu.Qemu(lab.work, **self.options, extra=[
                "-incoming", "defer" if incoming_defer else "unix:" + self.there])
        except BaseException:
            self.source.close()
            raise
        for one in (self.source, self.destination):
            one.qmp.cmd("migrate-set-capabilities", capabilities=[
                {"capability": "return-path", "state": True}])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.source.close()
        self.destination.close()

    def migrate(self, path, timeout=60):
        """Returns the source's last MIGRATION status."""
        first = len(self.source.qmp.events)
        if self.deferred:
            self.destination.qmp.cmd("migrate-incoming", uri="unix:" + self.there)
        self.source.qmp.cmd("migrate", uri="unix:" + path)
        return self.source.qmp.event(
            "MIGRATION", first, timeout,
            lambda event: event["data"]["status"] in ("completed", "failed", "cancelled")
        )[1]["data"]["status"]


class Proxy:
    """One guestclock-live proxy; ready once it says so."""

    def __init__(self, lab, *args):
        self.process = subprocess.Popen([lab.command, "proxy", "--json", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.said = ""
        while "ready: unix:" not in self.said:
            line = self.process.stderr.readline()
            if not line:
                self.process.wait()
                raise NotReady(self.said)
            self.said += line

    def report(self, timeout=20):
        """(exit code, the report or None, messages)"""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise qemu.QmpError("the proxy does not end: " + err)
        return self.process.returncode, json.loads(out) if out.strip() else None, err

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class NotReady(Exception):
    pass


class Daemon:
    """A guestclockd with settings of its own."""

    def __init__(self, lab, name="daemon", **settings):
        self.socket = lab.path(name + ".sock")
        self.audit = lab.path(name + ".jsonl")
        self.conf = lab.path(name + ".conf")
        self.log_path = lab.path(name + ".log")
        self.settings = {"socket": self.socket, "directories": lab.work, "libvirt": "none",
                         "audit": self.audit, "margins": lab.path("margins"), **settings}
        self.write()
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen([lab.args.guestclockd, "--conf", self.conf],
                                            stderr=log)
        wait_for(lambda: "ready" in self.log() or self.process.poll() is not None, 10,
                 "guestclockd")
        if self.process.poll() is not None:
            raise qemu.QmpError("guestclockd did not start: " + self.log())

    def write(self):
        with open(self.conf, "w") as conf:
            conf.write("[daemon]\n" + "".join("%s = %s\n" % item
                                              for item in self.settings.items()))

    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self, sign=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def wait_for(ready, timeout, what):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.02)
    raise qemu.QmpError("timeout waiting for " + what)


class Left:
    """What stands where children meet: of one that was killed, of a new one, of one that lives."""

    def __init__(self):
        at = "/run/guestclock-ends-0" if os.geteuid() == 0 else os.path.join(
            os.environ.get("XDG_RUNTIME_DIR", "/tmp"), "guestclock-ends-%d" % os.geteuid())
        os.makedirs(at, mode=0o700, exist_ok=True)
        self.paths = {name: os.path.join(at, os.urandom(16).hex())
                      for name in ("dead", "new", "alive")}
        self.paths["other"] = os.path.join(at, "of-somebody-else")
        self.sockets = {}
        for name, path in self.paths.items():
            self.sockets[name] = socket.socket(socket.AF_UNIX)
            self.sockets[name].bind(path)
            if name == "alive":
                self.sockets[name].listen()
            else:
                self.sockets[name].close()
            if name != "new":
                os.utime(path, (time.time() - 120,) * 2)

    def wrong(self):
        return [name for name, path in self.paths.items()
                if os.path.exists(path) == (name == "dead")]

    def close(self):
        for name, path in self.paths.items():
            self.sockets[name].close()
            if os.path.exists(path):
                os.unlink(path)


def stdio(lab, *args):
    return "exec:exec '%s' proxy --stdio --directory '%s' --margins '%s' %s" % (
        lab.command, lab.work, lab.path("margins"), " ".join(args))


def source(lab, pair, to, *args):
    return Proxy(lab, "--listen", pair.here, "--there", pair.there, "--to", to, *args)


class Certificates:
    """An authority and what it signed, as libvirt lays them out; and another authority."""

    def __init__(self, lab):
        self.directory = lab.path("pki")
        os.makedirs(self.directory, exist_ok=True)
        if not shutil.which("openssl"):
            raise qemu.Skip("no openssl")
        self.authority("ca")
        self.authority("other")
        self.sign("server", "ca", "serverAuth", 1)
        self.sign("client", "ca", "clientAuth", 1)
        self.sign("stranger", "other", "clientAuth", 1)
        self.sign("expired", "ca", "clientAuth", -1)

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, *args):
        subprocess.run(["openssl", *args], check=True, cwd=self.directory,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def authority(self, name):
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-days", "2", "-subj", "/CN=" + name, "-keyout", name + "key.pem",
                 "-out", name + "cert.pem")

    def sign(self, name, by, usage, days):
        with open(self.path(name + ".ext"), "w") as extensions:
            extensions.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n"
                             "extendedKeyUsage=%s\n" % usage)
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-subj", "/O=Example/CN=" + name, "-keyout", name + "key.pem", "-out",
                 name + ".csr")
        self.run("x509", "-req", "-in", name + ".csr", "-CA", by + "cert.pem", "-CAkey",
                 by + "key.pem", "-CAcreateserial", "-days", str(days), "-extfile",
                 name + ".ext", "-out", name + "cert.pem")

    def server(self):
        return {"tls_ca": self.path("cacert.pem"), "tls_cert": self.path("servercert.pem"),
                "tls_key": self.path("serverkey.pem"), "tls_crl": "none"}

    def client(self, name="client", ca="ca"):
        return ["--tls-ca", self.path(ca + "cert.pem"), "--tls-cert",
                self.path(name + "cert.pem"), "--tls-key", self.path(name + "key.pem")]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Wire:
    """A stretch of TCP that can be slow, cut, or damage what it carries."""

    def __init__(self, port):
        self.to, self.pause, self.damage = port, 0.0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                here = self.listener.accept()[0]
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.to))
            self.sockets += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        try:
            while True:
                data = one.recv(16384)
                if not data:
                    other.shutdown(socket.SHUT_WR)
                    return
                if self.damage and len(data) > 1000:
                    data = data[:500] + bytes([data[500] ^ 1]) + data[501:]
                if self.pause:
                    time.sleep(len(data) * self.pause)
                other.sendall(data)
        except OSError:
            pass

    def cut(self):
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.cut()


# ---- moves that succeed ----

def moved(lab, through, **options):
    """(errors by clock, STOP to RESUME in ns, report or None) of one migration."""
    with Pair(lab, **options) as pair:
        guest.reports(pair.source, LINES, 60)
        proxy = through(pair)
        before = [line for line in guest.parse(pair.source.serial.take())
                  if line.kind == "G"][5:]
        status = pair.migrate(pair.here if proxy else pair.there)
        if status != "completed":
            raise qemu.QmpError("the migration %s: %s" % (status, proxy and proxy.report()))
        stop = pair.source.qmp.event("STOP")[1]["real"]
        resume = pair.destination.qmp.event("RESUME")[1]["real"]
        after = guest.reports(pair.destination, LINES, 60)
        report = proxy.report() if proxy else (0, None, "")
    return guest.errors(before, after), resume - stop, report


def check_moved(lab, name, through, **options):
    errors, blackout_ns, (status, report, messages) = moved(lab, through, **options)
    print("# %s: blackout %.3f ms; %s" % (
        name, blackout_ns / 1e6, ", ".join("%s %+.3f ms" % (clock, error / 1e6)
                                           for clock, (error, _) in errors.items())))
    lab.check("%s: exit 0" % name, status == 0, messages)
    if not report:
        return None
    bounds = {row["clock"]: row["bound_ns"] for row in report["clocks"]}
    for clock in ("tsc", "hpet"):
        error, sure = errors[clock]
        bound = bounds.get(clock)
        lab.check("%s: the bound of %s covers its error" % (name, clock),
                  bound is not None and abs(error) <= int(bound) + sure,
                  "%+.3f ms of %s ms" % (error / 1e6, bound and "%.3f" % (int(bound) / 1e6)))
    lab.check("%s: the clocks were asked" % name,
              report["disagreement"]["basis"] == "exchange" and
              abs(int(report["disagreement"]["ns"])) <=
              int(report["disagreement"]["uncertainty_ns"]), str(report["disagreement"]))
    return report


@case
def stock(lab):
    """The comparison: without us the guest loses the blackout.

    By the stamps; on a busy host it can be longer than these say, not much shorter.
    """
    errors, blackout_ns, _ = moved(lab, lambda pair: None)
    lab.check("stock: the TSC loses the blackout",
              errors["tsc"][0] < -blackout_ns / 2, "%.3f ms of %.3f ms" %
              (errors["tsc"][0] / 1e6, blackout_ns / 1e6))


@case
def child(lab):
    """exec: the destination end is a child's standard input and output."""
    left = Left()
    try:
        check_moved(lab, "child", lambda pair: source(lab, pair, stdio(lab)))
        lab.check("child: of what is left behind, what killed ends had goes",
                  not left.wrong(), repr(left.wrong()))
    finally:
        left.close()


@case
def both(lab):
    """One process: a filter in a path."""
    check_moved(lab, "both", lambda pair: Proxy(
        lab, "--listen", pair.here, "--connect", pair.there, "--directory", lab.work,
        "--margins", lab.path("margins")))


@case
def daemon(lab):
    """A guestclockd over its UNIX socket; many moves leave nothing behind."""
    with Daemon(lab) as one:
        at_first = one.descriptors()
        for _ in range(10 if lab.args.long else 2):
            check_moved(lab, "daemon", lambda pair: source(lab, pair, "unix:" + one.socket))
        wait_for(lambda: one.descriptors() <= at_first, 5, "the daemon's descriptors")
        lab.check("daemon: no descriptor is left", one.descriptors() <= at_first)
        with open(one.audit) as audit:
            lines = [json.loads(line) for line in audit]
        lab.check("daemon: each move is in the log", len(lines) == (10 if lab.args.long else 2))
        status = one.close()
        lab.check("daemon: ends in order", status == 0, one.log())
        lab.check("daemon: its socket is gone", not os.path.exists(one.socket))


@case
def tls(lab):
    """TLS 1.3, certificates on both sides."""
    pki, port = Certificates(lab), free_port()
    with Daemon(lab, listen="127.0.0.1:%d" % port, **pki.server()) as one:
        to = "tls:localhost:%d" % port
        check_moved(lab, "tls", lambda pair: source(lab, pair, to, *pki.client()))
        with Pair(lab) as pair:
            for name, args, word in (
                    ("a stranger's certificate", pki.client("stranger"), ""),
                    ("an expired certificate", pki.client("expired"), "expired"),
                    ("no certificate", ["--tls-ca", pki.path("cacert.pem"), "--tls-cert",
                                        lab.path("none.pem")], "cannot be read"),
                    ("an unknown authority", pki.client("client", "other"), "certificate"),
                    ("another host's name", pki.client() + ["--tls-name", "elsewhere"],
                     "certificate")):
                try:
                    source(lab, pair, to, *args).close()
                    said = None
                except NotReady as reason:
                    said = str(reason)
                lab.check("tls: refused: " + name, said is not None and word in said, said)
            lab.check("tls: the guest runs on", pair.source.status() == "running")
        lab.check("tls: the daemon says why", "expired" in one.log(), one.log())


# ---- moves that do not ----

def slow(pair):
    """So that there are seconds in which things can break."""
    pair.source.qmp.cmd("migrate-set-parameters", max_bandwidth=200000)


def check_stays(lab, name, pair):
    """Within 3 s the guest runs at the source, and the destination has not got it."""
    def over():
        status = pair.source.qmp.cmd("query-migrate").get("status")
        return status in ("failed", "cancelled", "completed")
    wait_for(over, 10, "the end of the migration")
    status = pair.source.qmp.cmd("query-migrate")["status"]
    wait_for(lambda: pair.source.status() == "running", 3, "the source's guest")
    lab.check("%s: the source's guest runs" % name, status != "completed", status)
    there = None
    if pair.destination.process.poll() is None:
        try:
            there = pair.destination.status()
        except (qemu.QmpError, OSError):
            pass
    lab.check("%s: the destination has not got it" % name, there != "running", str(there))
    guest.more_reports(pair.source, 3)


def broken(lab, name, to, break_it, delay, *args):
    with Pair(lab) as pair:
        guest.reports(pair.source, 5, 60)
        slow(pair)
        proxy = source(lab, pair, to, *args)
        try:
            first = len(pair.source.qmp.events)
            pair.source.qmp.cmd("migrate", uri="unix:" + pair.here)
            pair.source.qmp.event("MIGRATION", first, 10,
                                  lambda event: event["data"]["status"] == "active")
            time.sleep(delay)
            break_it(pair, proxy)
            check_stays(lab, name, pair)
            return proxy.report()
        finally:
            proxy.close()


@case
def killed(lab):
    """Either end is killed at a random moment."""
    for i in range(50 if lab.args.long else 5):
        broken(lab, "source end killed %d" % i, stdio(lab),
               lambda pair, proxy: proxy.process.kill(), random.uniform(0, 1.5))
        with Daemon(lab, "killed%d" % i) as one:
            status, report, said = broken(
                lab, "daemon killed %d" % i, "unix:" + one.socket,
                lambda pair, proxy: one.process.kill(), random.uniform(0, 1.5))
            lab.check("daemon killed %d: the source end says so" % i, status == 12, said)


@case
def wires(lab):
    """The connection is slow, stands still, is cut, or damages what it carries."""
    pki, port = Certificates(lab), free_port()
    with Daemon(lab, "wires", listen="127.0.0.1:%d" % port, **pki.server()) as one:
        wire = Wire(port)
        to = "tls:localhost:%d" % wire.port

        def slowly(pair):
            wire.pause = 1e-6		# 1 MB/s
            return source(lab, pair, to, *pki.client())
        check_moved(lab, "1 MB/s", slowly)
        wire.pause = 0.0

        def stalled(pair):
            proxy = source(lab, pair, to, *pki.client())

            def stand_still():
                one.process.send_signal(signal.SIGSTOP)
                time.sleep(1)
                one.process.send_signal(signal.SIGCONT)
            threading.Thread(target=stand_still, daemon=True).start()
            return proxy
        check_moved(lab, "stalled for 1 s", stalled)

        def damage(pair, proxy):
            wire.damage = True
        for name, break_it in (("cut", lambda pair, proxy: wire.cut()), ("damaged", damage)):
            status, report, said = broken(lab, name, to, break_it, random.uniform(0.2, 1),
                                          *pki.client())
            lab.check("%s: the source end says so" % name, status == 12, said)
        wire.close()
        lab.check("wires: the daemon is there", one.process.poll() is None, one.log())


@case
def cancelled(lab):
    """The hypervisor gives up; the daemon is told to end; the proxy is told to end."""
    with Daemon(lab, "cancelled") as one:
        status, report, said = broken(
            lab, "migrate_cancel", "unix:" + one.socket,
            lambda pair, proxy: pair.source.qmp.cmd("migrate_cancel"), 0.5)
        lab.check("migrate_cancel: reported", report and report["verdict"] == "cancelled", said)
        status, report, said = broken(
            lab, "SIGTERM to the source end", "unix:" + one.socket,
            lambda pair, proxy: proxy.process.terminate(), 0.5)
        lab.check("SIGTERM to the source end: reported",
                  report and report["verdict"] == "cancelled", said)
        status, report, said = broken(
            lab, "destination gone", "unix:" + one.socket,
            lambda pair, proxy: pair.destination.process.kill(), 0.5)
        lab.check("destination gone: reported", report and report["verdict"] == "cancelled",
                  said)
        status, report, said = broken(
            lab, "SIGTERM to the daemon", "unix:" + one.socket,
            lambda pair, proxy: one.process.terminate(), 0.5)
        lab.check("SIGTERM to the daemon: reported", report and
                  "shutting down" in report["why"], said)
        lab.check("SIGTERM to the daemon: it ends", one.process.wait(10) == 0)


@case
def hostile(lab):
    """Garbage, silence, too many: the daemon goes on."""
    with Daemon(lab, "hostile", max_sessions=1, max_connections=4) as one:
        for garbage in (b"", b"GET / HTTP/1.0\r\n\r\n", b"Gc\x01\x00\xff\xff\xff\xff",
                        b"Gc\x01\x00\x05\x00\x00\x00hello", b"QEVM" + bytes(4096),
                        b"Gc\x04\x00\x00\x00\x00\x00"):
            with socket.socket(socket.AF_UNIX) as talker:
                talker.connect(one.socket)
                talker.settimeout(5)
                try:
                    talker.sendall(garbage)
                    talker.shutdown(socket.SHUT_WR)
                    while talker.recv(4096):
                        pass
                except ConnectionError:
                    pass
        silent = [socket.socket(socket.AF_UNIX) for _ in range(6)]
        for talker in silent:
            talker.connect(one.socket)
        wait_for(lambda: "limit" in one.log(), 5, "the limit on connections")
        for talker in silent:
            talker.close()
        lab.check("hostile: the daemon is there", one.process.poll() is None, one.log())
        with Pair(lab) as pair:
            wait_for(lambda: one.descriptors() < 16, 5, "closed connections")
            first = source(lab, pair, "unix:" + one.socket)
            try:
                Proxy(lab, "--listen", lab.path("more.sock"), "--there", pair.there, "--to",
                      "unix:" + one.socket).close()
                said = None
            except NotReady as reason:
                said = str(reason)
            lab.check("hostile: a second session is beyond the limit", said and "limit" in said,
                      said)
            first.close()
            try:
                Proxy(lab, "--listen", lab.path("more.sock"), "--there", "/etc/passwd.sock",
                      "--to", "unix:" + one.socket).close()
                said = None
            except NotReady as reason:
                said = str(reason)
            lab.check("hostile: no socket outside its directory is dialled",
                      said and "no directory" in said, said)
        one.settings["max_sessions"] = "many"
        one.write()
        one.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "stay as they were" in one.log(), 5, "a refused reload")
        one.settings["max_sessions"] = 5
        one.write()
        one.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "read again" in one.log(), 5, "a reload")


@case
def service(lab):
    """As systemd starts it: a socket that is there already, and word of every step."""
    conf, path = lab.path("service.conf"), lab.path("service.sock")
    with open(conf, "w") as out:
        out.write("[daemon]\nsocket = none\ndirectories = %s\nlibvirt = none\naudit = none\n"
                  "margins = none\nmetrics = %s\n" % (lab.work, lab.path("metrics.sock")))
    with socket.socket(socket.AF_UNIX) as listener, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(path)
        listener.listen(8)
        notified.bind(lab.path("notify"))
        notified.settimeout(10)
        started = subprocess.Popen(
            ["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&%d" % listener.fileno(), "sh",
             lab.args.guestclockd, "--conf", conf], pass_fds=[listener.fileno()],
            env={**os.environ, "NOTIFY_SOCKET": lab.path("notify")}, stderr=subprocess.DEVNULL)
        try:
            lab.check("service: says that it is ready", b"READY=1" in notified.recv(4096))
            with Pair(lab) as pair:
                proxy = source(lab, pair, "unix:" + path)
                status = pair.migrate(pair.here)
                _, report, said = proxy.report()
                lab.check("service: takes a guest", status == "completed",
                          "%s: %s %s" % (status, report and report["why"], said))
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(lab.path("metrics.sock"))
                asker.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                text = b""
                while not text.endswith(b"# EOF\n"):
                    piece = asker.recv(65536)
                    if not piece:
                        break
                    text += piece
            lab.check("service: has counted it", b"moves_total{" in text and
                      b'verdict="unproven"} 1' in text, str(text[:600]))
            started.send_signal(signal.SIGHUP)
            words = notified.recv(4096) + notified.recv(4096)
            lab.check("service: says that it reloads", words == b"RELOADING=1READY=1", str(words))
        finally:
            started.terminate()
            status = started.wait(10)
        lab.check("service: says that it ends", notified.recv(4096) == b"STOPPING=1")
        lab.check("service: ends in order", status == 0)
        lab.check("service: leaves the socket that is not its own", os.path.exists(path))


@case
def suspended(lab):
    """A suspended guest arrives suspended, its clocks untouched."""
    with Pair(lab) as pair:
        guest.reports(pair.source, 5, 60)
        pair.source.stop()
        proxy = source(lab, pair, stdio(lab))
        lab.check("suspended: migrated", pair.migrate(pair.here) == "completed")
        status, report, said = proxy.report()
        lab.check("suspended: it stays so", pair.destination.status() == "paused")
        lab.check("suspended: reported", report["verdict"] == "untouched", str(report["why"]))


@case
def unreadable(lab):
    """What cannot be filtered passes untouched, or is refused."""
    with Pair(lab) as pair:
        for one in (pair.source, pair.destination):
            one.qmp.cmd("migrate-set-capabilities", capabilities=[
                {"capability": "return-path", "state": False}])
        guest.reports(pair.source, 5, 60)
        proxy = source(lab, pair, stdio(lab))
        lab.check("unreadable: migrated", pair.migrate(pair.here) == "completed")
        status, report, said = proxy.report()
        lab.check("unreadable: reported", report["verdict"] == "untouched" and
                  report["findings"][0]["id"] == "no-return-path", str(report["why"]))
        guest.more_reports(pair.destination, 3)


@case
def multifd(lab):
    """Several connections: the first is filtered, the others pass as they are."""
    def through(pair):
        for one in (pair.source, pair.destination):
            one.qmp.cmd("migrate-set-capabilities", capabilities=[
                {"capability": "multifd", "state": True}])
        return source(lab, pair, stdio(lab))
    check_moved(lab, "multifd", through, incoming_defer=True)


def body(lab):
    for name, function in CASES.items():
        if not lab.args.only or name == lab.args.only:
            function(lab)


def main():
    def add(parser):
        parser.add_argument("--only", choices=sorted(CASES))
        parser.add_argument("--long", action="store_true")
        parser.add_argument("--guestclockd", default=os.environ.get("GCLK_DAEMON"))
    lab = measure.Lab(__doc__, add)
    sys.exit(lab.main(body, need_command=True))


if __name__ == "__main__":
    main()
