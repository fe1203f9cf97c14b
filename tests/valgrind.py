#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The verbs on real files, and the unit tests, under valgrind's memcheck.

    valgrind.py --build BUILD --data tests/data [--long] [--only NAME]

The short form runs each verb on one file; the long form every offline verb on every file
of tests/data, and each unit test program. Every invalid access, every jump or system call
that hangs on an uninitialised value and every block that nothing points to any more is a
fault. What each command ends with is held as well: a verb that refuses has not been run.
"""
import argparse
import glob
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

MEMCHECK = ["valgrind", "--quiet", "--error-exitcode=99", "--sim-hints=lax-ioctls",
            "--leak-check=full", "--num-callers=30",
            "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite",
            "--trace-children=yes", "--trace-children-skip=*/lzop,*/sh,/bin/*,/usr/bin/*"]
WITHOUT = {"test-alloc": "it replaces malloc() itself"}
NOT_CASES = {"compress/a_missing_program_is_named":
             "valgrind's vfork() is fork(), so posix_spawn() cannot say that there is no program"}
PLAN = ["--captured-at", "@1795228008.125+-1us", "--resume-at", "@1795231608.125",
        "--disagreement", "0+-1us", "--ticks", "pit=merge"]
PATIENCE_S = 1800


class World:
    def __init__(self, options):
        self.options = options
        self.command = os.path.join(options.build, "migrator", "guestclock")
        self.top = tempfile.mkdtemp(prefix="gclk-valgrind-")
        self.logs = os.path.join(self.top, "logs")
        os.mkdir(self.logs)
        self.passed, self.failed, self.skipped = 0, [], 0

    def at(self, name):
        return os.path.join(self.top, name)

    def complaints(self):
        """What valgrind wrote since it was last asked."""
        text = ""
        for path in sorted(glob.glob(os.path.join(self.logs, "*"))):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += file.read()
            os.remove(path)
        return text

    def under(self, name, command, allowed=(0,)):
        """One command; whether it ended as it should, without a complaint."""
        if self.options.only and self.options.only not in name:	# others may need what it makes
            return subprocess.run(command, stdout=subprocess.DEVNULL, env=self.environment(),
                                  cwd=self.top, check=False).returncode in allowed
        log = "--log-file=" + os.path.join(self.logs, "%p")
        try:
            done = subprocess.run(MEMCHECK + [log] + command, env=self.environment(), cwd=self.top,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                  errors="replace", stderr=subprocess.STDOUT, check=False,
                                  timeout=PATIENCE_S)
            code, said = done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            code, said = "none in %d s" % PATIENCE_S, ""
        complaint = self.complaints()
        if complaint or code not in allowed:
            self.failed.append(name)
            print("failed: %s: exit %s\n%s%s" % (name, code, tail(said), complaint[:6000]),
                  flush=True)
            return False
        self.passed += 1
        if self.options.long:
            print("ok: %s" % name, flush=True)
        return True

    def environment(self):
        # where the bytes of others are read in a child, its filter knows no valgrind
        return dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC", XDG_STATE_HOME=self.at("state"),
                    GUESTCLOCK_CONFINE="no")

    def verb(self, *args, allowed=(0,)):
        name = " ".join(os.path.basename(word) for word in args)
        return self.under(name, [self.command, *args], allowed)


def tail(text):
    return "".join("    " + line + "\n" for line in text.rstrip("\n").split("\n")[-12:])


def unpacked(world, path):
    """A stream that can be rewritten in place."""
    name = world.at(os.path.basename(path)[:-len(".xz")])
    with lzma.open(path) as packed, open(name, "wb") as file:
        shutil.copyfileobj(packed, file)
    return name


def on_image(world, path, host, whole):
    """Every verb that an image goes through."""
    image = unpacked(world, path)
    bundle, text = image + ".gclk", image + ".json"
    plan = PLAN + ["--host", host]
    out = image + ".out"
    world.verb("inspect", path)
    if whole:
        world.verb("rewrite", *plan, image, "-o", out)
        world.verb("inspect", "--json", image)
        world.verb("inspect", "--redact", "--json", image)
        world.verb("inspect", "--timeline", image + ".svg", image)
        world.verb("plan", *plan, image)
        world.verb("plan", "--json", *plan, image)
        world.verb("extract", image, "-o", text)
        world.verb("diff", image, out, allowed=(0, 1))
        world.verb("inspect", text)
        world.verb("diff", "--json", text, image, allowed=(0, 1))
        world.verb("extract", image, "-o", bundle)
    world.verb("rewrite", "--in-place", *plan, image)
    if whole:
        world.verb("inspect", image)
    world.verb("undo", image)


def on_bundles(world, whole):
    data = world.options.data
    if whole:
        world.verb("inspect", "--json", os.path.join(data, "bundle-v1.gclk"))
        world.verb("inspect", os.path.join(data, "bundle-v1.gclk"))
        world.verb("explain")
        world.verb("explain", "long-gap")
        world.verb("hook", allowed=(0, 1))
        world.verb("log", "--file", os.path.join(data, "wire-numbers-v1.txt"), allowed=(0, 3, 5, 6))


def on_seals(world, whole):
    data = world.options.data
    key, bundle = world.at("key"), os.path.join(data, "bundle-v1.gclk")
    sealed = world.at("state.gseal")
    if not world.verb("keygen", key):
        return
    world.verb("seal", "--key", key, "--to", key + ".pub", bundle, "-o", sealed)
    world.verb("open", "--key", key + ".pub", "--recipient", key, sealed, "-o", world.at("again.gclk"))
    if whole:
        world.verb("seal", "--key", key, bundle, "-o", world.at("signed.gseal"))
        world.verb("open", "--key", key + ".pub", world.at("signed.gseal"), "-o", world.at("b"))
        # a stranger's: refused
        world.verb("open", "--key", key + ".pub", os.path.join(data, "signed-v1.gseal"), "-o",
                   world.at("c"), allowed=range(1, 20))


def daemon(world):
    """guestclockd: one that talks nonsense to it, its numbers, other settings, and its end."""
    program = os.path.join(world.options.build, "migrator", "daemon", "guestclockd")
    if world.options.only and world.options.only not in "guestclockd" or \
       not os.access(program, os.X_OK):
        return
    conf, peer, metrics = map(world.at, ("daemon.conf", "peer", "metrics"))
    with open(conf, "w", encoding="ascii") as out:
        out.write("[daemon]\nsocket = %s\nmetrics = %s\ndirectories = %s\naudit = %s\n"
                  "margins = %s\n" % (peer, metrics, world.top, world.at("moves"),
                                      world.at("margins")))
    log = "--log-file=" + os.path.join(world.logs, "%p")
    with open(world.at("said"), "w+", encoding="utf-8") as said:
        child = subprocess.Popen(MEMCHECK + [log, program, "--conf", conf], stdout=said,
                                 stderr=said, env=world.environment())
        answers = [ask(peer, b"\0" * 64), ask(peer, b"GET / HTTP/1.0\r\n\r\n"),
                   ask(metrics, b"GET /metrics HTTP/1.0\r\n\r\n")]
        child.send_signal(signal.SIGHUP)
        answers.append(ask(peer, b"\xff" * 4096))
        child.terminate()
        try:
            code = child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        said.seek(0)
        complaint = world.complaints()
        if complaint or code or b"guestclock_build_info" not in answers[2]:
            world.failed.append("guestclockd")
            print("failed: guestclockd: exit %s\n%s%s" % (code, tail(said.read()), complaint))
            return
    world.passed += 1
    print("ok: guestclockd", flush=True)


def ask(path, text, patience_s=60):
    """What the other end answers until it closes; it may be slow to come up."""
    end, answer = time.monotonic() + patience_s, b""
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(patience_s)
            try:
                sock.connect(path)
            except OSError:
                time.sleep(0.2)
                continue
            try:
                sock.sendall(text)
                while True:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    answer += piece
            except OSError:
                pass			# it wants no more
            return answer
    return answer


def cases_of(world, path):
    """The cases to name: none where all of a program are to run."""
    listed = subprocess.run([path, "--list"], text=True, stdout=subprocess.PIPE,
                            check=False).stdout.split()
    without = [case for case in listed if case in NOT_CASES]
    for case in without:
        print("skipped: %s: %s" % (case, NOT_CASES[case]))
        world.skipped += 1
    return [case for case in listed if case not in NOT_CASES] if without else []


def unit_tests(world):
    for path in sorted(glob.glob(os.path.join(world.options.build, "tests", "*", "test-*"))):
        name = os.path.basename(path)
        if not (os.path.isfile(path) and os.access(path, os.X_OK)) or path.endswith(".py"):
            continue
        if name in WITHOUT:
            print("skipped: %s: %s" % (name, WITHOUT[name]))
            world.skipped += 1
            continue
        cases = cases_of(world, path)
        # 1: under valgrind a case that takes the time may find too much of it gone by
        world.under(name, [path] + cases, allowed=(0, 1))


def verbs(world):
    host = world.at("host.json")
    world.verb("host", "-o", host)
    streams = sorted(glob.glob(os.path.join(world.options.data, "streams", "*.xz")))
    for path in streams if world.options.long else streams[-1:]:
        on_image(world, path, host, world.options.long)
    on_bundles(world, world.options.long)
    on_seals(world, world.options.long)


def sanitized(command):
    symbols = subprocess.run(["nm", "-D", command], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL, check=False).stdout
    return re.search(r"__(asan|tsan|msan)_init", symbols) is not None


def is_readable(command):
    """An older valgrind gives up over a newer compiler's debugging information."""
    done = subprocess.run(["valgrind", command, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    return "debuginfo reader" not in done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--long", action="store_true", help="every file, and the unit tests")
    parser.add_argument("--only", help="what has this in its name")
    parser.add_argument("--verbs", action="store_true", help="not the unit tests")
    options = parser.parse_args()
    options.build, options.data = map(os.path.abspath, (options.build, options.data))
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed")
        return 77
    world = World(options)
    try:
        if sanitized(world.command):
            print("skipped: a sanitizer looks at the same already")
            return 77
        if not is_readable(world.command):
            print("skipped: this valgrind does not read what this compiler writes")
            return 77
        verbs(world)
        if options.long:
            daemon(world)
        if options.long and not options.verbs:
            unit_tests(world)
    finally:
        shutil.rmtree(world.top)
    print("cases: %d passed, %d failed, %d skipped" %
          (world.passed, len(world.failed), world.skipped))
    return 1 if world.failed else 0


if __name__ == "__main__":
    sys.exit(main())
