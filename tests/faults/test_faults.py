#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every verb that reads or writes files, with a fault at every call.

    test_faults.py --guestclock COMMAND --inject LIBRARY --data tests/data [--long] [--only VERB] [--seed N]

The interposer (inject.c) makes one call of the program fail, move less than it was asked,
be interrupted, find the disk full, or be its last: the process is killed before it, or in
the middle of it. Once for each call; the short form takes a sample. Afterwards holds

  * an error has an exit code and one message that says whether something was changed, and
    if it says "Nothing was changed" then not one byte of any file was;
  * what was written whole or not at all is there whole or not at all, and nothing beside it;
  * an image is the old one, the new one, or one of which `undo` makes the old one, and
    which can be rewritten again;
  * what is no fault (a short or interrupted transfer) changes no answer.
"""
import argparse
import errno
import hashlib
import json
import lzma
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

SYS, NOMEM, UNSUPPORTED, UNPROVEN = 3, 4, 8, 13
options = None
rng = None
WHEN = ["--captured-at", "@1795228008.125+-1us", "--resume-at", "@1795231608.125"]
NO_FAULT = ("short", "again")


class Fault(Exception):
    pass


def digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return None


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


# ---- images ----

def libvirt_save(stream, compression=0):
    """A save image around a stream; compression 0: none, 1: gzip."""
    xml = (b"<domain type='kvm'><name>web1</name><uuid>8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a7"
           b"</uuid><os><type machine='pc-q35-7.2'>hvm</type></os></domain>\0")
    xml += b"\0" * 1024				# room, as virsh leaves it
    head = b"LibvirtQemudSave" + struct.pack("<IIIII", 2, len(xml), 1, compression, 0)
    if compression:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        stream = packer.compress(stream) + packer.flush()
    return head + b"\0" * (92 - len(head)) + xml + stream


def qcow2(stream):
    """A disk of 512 MB in which nothing is, and a snapshot of a machine."""
    size, disk = 65536, 512 << 20
    n = (len(stream) + size - 1) // size
    first = 7
    entry = struct.pack(">QIHHIIQIIQQ", 5 * size, 2, 1, 4, 1795228008, 125000000, 10**9, 0, 16,
                        len(stream), disk) + b"1" + b"snap"
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, disk, 0, 1, 3 * size,
                         size, 1, 1, 4 * size, 0, 0, 0, 4, 104)
    clusters = [header + b"\0" * 8, struct.pack(">Q", 2 * size),
                struct.pack(">%dH" % (first + n), *[1] * (first + n)),
                struct.pack(">Q", 0), entry,
                struct.pack(">QQ", 0, 6 * size | 1 << 63),
                struct.pack(">%dQ" % n, *[(first + i) * size | 1 << 63 for i in range(n)])]
    return b"".join(c.ljust(size, b"\0") for c in clusters) + stream.ljust(n * size, b"\0")


class World:
    """A directory with images as they were, and a fresh copy of each for every run."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="gclk-faults-")
        self.dir = os.path.join(self.top, "run")
        self.kept = os.path.join(self.top, "kept")
        os.mkdir(self.kept)
        with lzma.open(os.path.join(options.data, "streams/q35-kvm-4.qs.xz")) as packed:
            stream = packed.read()
        write(self.keep("stream"), stream)
        write(self.keep("save"), libvirt_save(stream))
        write(self.keep("save.gz"), libvirt_save(stream, 1))
        write(self.keep("disk.qcow2"), qcow2(stream))
        self.run(["host", "-o", self.keep("host.json")])
        self.run(["extract", self.keep("stream"), "-o", self.keep("state.gclk")])
        self.run(["keygen", self.keep("key")])
        self.run(["seal", "--key", self.keep("key"), self.keep("state.gclk"), "-o",
                  self.keep("state.gseal")])
        self.originals = {name: digest(self.keep(name)) for name in os.listdir(self.kept)}

    def keep(self, name):
        return os.path.join(self.kept, name)

    def path(self, name):
        return os.path.join(self.dir, name)

    def fresh(self, *names):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.mkdir(self.dir)
        for name in names:
            shutil.copy2(self.keep(name), self.path(name))

    def run(self, args, fault=None):
        env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC", XDG_STATE_HOME=self.top + "/state",
                   GUESTCLOCK_CONFINE="no")  # faults are counted in one process
        if fault:
            if os.path.exists(self.top + "/report"):
                os.remove(self.top + "/report")
            env.update(LD_PRELOAD=options.inject, GCLK_FAULT=fault,
                       GCLK_FAULT_REPORT=self.top + "/report")
        done = subprocess.run([options.guestclock, *args], env=env, cwd=self.dir
                              if os.path.isdir(self.dir) else self.top, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
        if not fault and done.returncode:
            raise Fault("%s: %s" % (" ".join(args), done.stderr.decode()))
        return done

    def counts(self, args):
        self.run(args, "count")
        words = read(self.top + "/report").decode().split()
        return dict(zip(("error", "moving", "changing", "bytes", "alloc"), map(int, words)))

    def hit(self):
        try:
            return read(self.top + "/report").decode().split()[5]
        except (FileNotFoundError, IndexError):
            return "-"


class Verb:
    """One command line, and what must hold after it."""

    def __init__(self, name, args, uses, output=None, in_place=None):
        self.name, self.args, self.uses = name, args, uses
        self.output = output		# made, whole or not at all
        self.in_place = in_place	# changed, and undone
        self.reads_json = "../kept/host.json" in args

    def prepare(self, world):
        world.fresh(*self.uses)

    def learn(self, world):
        """The answer without a fault, and how many calls there are."""
        self.prepare(world)
        self.answer = self.reduced(world.run(self.args).stdout)
        self.files = set(os.listdir(world.dir))
        if self.in_place:
            self.done = self.stream(world)
        self.prepare(world)
        self.counts = world.counts(self.args)
        if not self.counts["error"] or not self.counts["alloc"]:
            raise SystemExit("%s: no call was counted: the interposer is not in place" % self.name)

    def reduced(self, out):
        """What does not hang on when and where it ran."""
        unit = rb"[\d.]+\s+(?:days?|h|min|m|s|ms)\s+"
        return re.sub(rb"\d{4}-\d\d-\d\dT[\d:.]+Z|\d{2}:\d{2}:\d{2}(\.\d+)?|\d{19}|(?:" + unit +
                      rb")+ago|in [\d.]+ \S+", b"T", out)

    def stream(self, world):
        """The image's bytes without the undo record, which tells when it was written."""
        content = read(world.path(self.in_place))
        if self.in_place == "disk.qcow2":
            return None
        return content[:os.path.getsize(world.keep(self.in_place))]

    def check_message(self, done, kind):
        err = done.stderr.decode("utf-8", "replace")
        if done.returncode < 0:
            raise Fault("killed by signal %d: %s" % (-done.returncode, err))
        if done.returncode == 0:
            return
        if kind == "alloc" and done.returncode != NOMEM and \
           not (done.returncode in (SYS, UNPROVEN) and "Cannot allocate memory" in err) and \
           not (self.reads_json and re.search("host.json: (malformed|unsupported): ", err)) and \
           not (done.returncode == UNSUPPORTED and "libcrypto cannot" in err):
            raise Fault("no memory is reported as %d: %s" % (done.returncode, err))
        if not re.match(r"(guestclock: (warning|note): .*\n)*guestclock: error: .+\n", err) or \
           not ("Nothing was changed." in err or "undo" in err or self.output):
            raise Fault("exit %d with the message: %r" % (done.returncode, err))

    def check_files(self, world, done, hit):
        for name in self.uses:
            if name != self.in_place and digest(world.path(name)) != world.originals[name]:
                raise Fault("%s was changed" % name)
        left = set(os.listdir(world.dir)) - self.files
        if left and hit not in ("unlink", "kill") and done.returncode >= 0:
            raise Fault("left behind: %s" % ", ".join(left))
        if self.output and done.returncode == 0 and self.output not in os.listdir(world.dir):
            raise Fault("no %s, but exit 0" % self.output)

    def check_output(self, world):
        """An output that is there is whole."""
        path = world.path(self.output)
        if not os.path.exists(path):
            return
        if self.output.endswith(".pub"):
            world.run(["seal", "--key", path[:-4], world.keep("state.gclk"), "-o",
                       world.path("x")])
            world.run(["open", "--key", path, world.path("x"), "-o", world.path("y")])
        elif self.output.endswith(".json"):
            try:
                json.loads(read(path))
            except ValueError as reason:
                raise Fault("no JSON: %s" % reason) from None
        elif self.output.endswith(".gseal"):
            world.run(["open", "--key", world.keep("key.pub"), path, "-o", world.path("y")])
        else:
            world.run(["inspect", path])

    def check_image(self, world, done):
        path, name = world.path(self.in_place), self.in_place
        if digest(path) == world.originals[name]:
            if done.returncode == 0 and self.args[0] == "rewrite":
                raise Fault("exit 0, but nothing is rewritten")
            return
        if b"Nothing was changed." in done.stderr and self.args[0] != "undo":
            raise Fault("it says that nothing was changed, but %s was" % name)
        saved = read(path)
        world.run(["undo", path])
        if digest(path) != world.originals[name] and not self.same_guest(world, path):
            raise Fault("undo did not make the old %s again" % name)
        write(path, saved)
        world.run(["rewrite", *WHEN, "--host", world.keep("host.json"), "--disagreement",
                   "0+-1us", "--in-place", path])
        if self.args[0] == "rewrite" and self.stream(world) != self.done:
            raise Fault("rewriting again did not make the same image")
        world.run(["undo", path])
        if digest(path) != world.originals[name] and not self.same_guest(world, path):
            raise Fault("undo after rewriting again did not make the old %s" % name)

    def same_guest(self, world, path):
        """A qcow2 file may keep clusters that the record had: its guest counts."""
        if self.in_place != "disk.qcow2":
            return False
        done = [world.run(["inspect", "--json", p]).stdout for p in
                (path, world.keep(self.in_place))]
        trees = [json.loads(out) for out in done]
        return all(trees[0][key] == trees[1][key] for key in ("state", "source", "rewrite"))

    def is_json_c(self, done, kind):
        """json-c 0.16 does not look whether its strdup() and its objects succeeded."""
        return kind == "alloc" and self.reads_json and done.returncode == -signal.SIGSEGV

    def check(self, world, done, kind, hit):
        if self.is_json_c(done, kind):		# then at least nothing is changed
            for name in self.uses:
                if digest(world.path(name)) != world.originals[name]:
                    raise Fault("json-c fell, and %s was changed" % name)
            return
        killed = kind in ("kill", "torn") and hit != "-"
        if not killed:
            self.check_message(done, kind)
            self.check_files(world, done, hit)
            if (kind in NO_FAULT or hit == "-") and \
               (done.returncode or self.args[0] not in ("keygen", "host") and
                self.reduced(done.stdout) != self.answer):
                raise Fault("exit %d where nothing failed: %s" % (
                    done.returncode, done.stderr.decode()))
        if kind == "alloc" and done.returncode == 0 and "--json" in self.args and \
           self.reduced(done.stdout) != self.answer:
            raise Fault("exit 0, but the answer is another one")
        if self.output and not (killed and self.args[0] == "keygen"):
            self.check_output(world)
        if self.in_place:
            self.check_image(world, done)

    def inject(self, world, kind, n):
        self.prepare(world)
        fault = "%s:%d" % (kind, n)
        if kind == "error":
            fault += ":%d" % rng.choice((errno.EIO, errno.EIO, errno.ENOSPC, errno.EACCES))
        done = world.run(self.args, fault)
        hit = world.hit()
        try:
            self.check(world, done, kind, hit)
        except Fault as reason:
            raise Fault("%s, %s (%s): %s" % (self.name, fault, hit, reason)) from None
        return done.returncode, hit


class Undo(Verb):
    """Of an image that was rewritten in place."""

    def __init__(self, image):
        super().__init__("undo " + image, ["undo", image], [image], in_place=image)

    def prepare(self, world):
        rewritten = world.keep("rewritten-" + self.in_place)
        if not os.path.exists(rewritten):
            shutil.copy2(world.keep(self.in_place), rewritten)
            world.run(["rewrite", *WHEN, "--host", world.keep("host.json"), "--disagreement",
                       "0+-1us", "--in-place", rewritten])
        world.fresh()
        shutil.copy2(rewritten, world.path(self.in_place))


def verbs():
    plan = WHEN + ["--host", "../kept/host.json", "--disagreement", "0+-1us"]
    for image in ("stream", "save", "save.gz", "disk.qcow2"):
        yield Verb("inspect " + image, ["inspect", image], [image])
        yield Verb("rewrite -o " + image, ["rewrite", *plan, image, "-o", "out"], [image],
                   output="out") if image != "disk.qcow2" else \
            Verb("plan " + image, ["plan", *plan, image], [image])
    for image in ("stream", "save", "disk.qcow2"):
        yield Verb("rewrite --in-place " + image, ["rewrite", *plan, "--in-place", image],
                   [image], in_place=image)
        yield Undo(image)
    yield Verb("plan", ["plan", *plan, "save"], ["save"])
    yield Verb("diff", ["diff", "stream", "save"], ["stream", "save"])
    yield Verb("extract", ["extract", "save", "-o", "out"], ["save"], output="out")
    yield Verb("extract json", ["extract", "save", "-o", "out.json"], ["save"],
               output="out.json")
    yield Verb("inspect --json", ["inspect", "--json", "state.gclk"], ["state.gclk"])
    yield Verb("host -o", ["host", "--measure", "0s", "-o", "out.json"], [], output="out.json")
    yield Verb("keygen", ["keygen", "new"], [], output="new.pub")
    yield Verb("seal", ["seal", "--key", "../kept/key", "state.gclk", "-o", "out.gseal"],
               ["state.gclk"], output="out.gseal")
    yield Verb("open", ["open", "--key", "../kept/key.pub", "state.gseal", "-o", "out"],
               ["state.gseal"], output="out")


def places(count, share):
    """Some of 1..count, from all over it; in the long form all, or 600 of very many."""
    share = 600 if options.long else share
    if count <= share:
        return range(1, count + 1)
    step = count / share
    return sorted({1 + int(step * (i + rng.random())) for i in range(share)})


class Table:
    """What was injected, how often, and what came of it."""

    def __init__(self):
        self.rows, self.failed = {}, []

    def add(self, kind, code, hit):
        row = self.rows.setdefault(kind, {"all": 0, "hit": 0, "codes": {}})
        row["all"] += 1
        row["hit"] += hit != "-"
        row["codes"][code] = row["codes"].get(code, 0) + 1

    def show(self):
        for kind, row in self.rows.items():
            codes = ", ".join("%s: %d" % ("killed" if code == -signal.SIGKILL else
                                          "exit %d" % code, n)
                              for code, n in sorted(row["codes"].items()))
            print("%-22s %6d injected, %6d came to pass; %s" % (kind, row["all"], row["hit"],
                                                              codes))


def each_call(world, table):
    share = {"error": 5, "short": 3, "again": 2, "kill": 4, "torn": 4, "alloc": 4, "space": 3}
    for verb in verbs():
        if not verb.name.startswith(options.only):
            continue
        verb.learn(world)
        counts = {"error": verb.counts["error"], "short": verb.counts["moving"],
                  "again": verb.counts["moving"], "alloc": verb.counts["alloc"]}
        if verb.output or verb.in_place:
            counts.update(kill=verb.counts["changing"], torn=verb.counts["changing"],
                          space=verb.counts["bytes"])
        for kind, count in counts.items():
            if kind == "space":
                where = sorted({rng.randrange(count + 1) for _ in range(
                    60 if options.long else share[kind])} | {0}) if count else []
            else:
                where = places(count, share[kind])
            for n in where:
                try:
                    table.add(kind, *verb.inject(world, kind, n))
                except (Fault, subprocess.TimeoutExpired) as reason:
                    table.add(kind, 99, "x")
                    table.failed.append(str(reason))


def random_kills(world, table):
    """SIGKILL from outside, at any moment: of a rewriting, a second one, and an undo."""
    plan = WHEN + ["--host", world.keep("host.json"), "--disagreement", "0+-1us"]
    for i in range(400 if options.long else 40):
        image = ("stream", "save", "disk.qcow2")[i % 3]
        world.fresh(image)
        verb = Verb("random kill " + image, ["rewrite"], [image], in_place=image)
        path = world.path(image)
        if i % 2:
            world.run(["rewrite", *plan, "--in-place", path])
        args = ["undo", path] if i % 4 == 3 else ["rewrite", *plan, "--in-place", path]
        child = subprocess.Popen([options.guestclock, *args], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.02)
        child.kill()
        code = child.wait()
        try:
            world.run(["undo", path])
            if digest(path) != world.originals[image] and not verb.same_guest(world, path):
                raise Fault("killed at random: undo did not make the old %s" % image)
            table.add("kill at random", code, "kill" if code < 0 else "-")
        except Fault as reason:
            table.add("kill at random", 99, "x")
            table.failed.append("%s: %s" % (verb.name, reason))


def two_at_once(world, table):
    """Several processes rewrite, undo and read one image at the same time."""
    plan = WHEN + ["--host", world.keep("host.json"), "--disagreement", "0+-1us"]
    for i in range(60 if options.long else 9):
        image = ("stream", "save", "disk.qcow2")[i % 3]
        world.fresh(image)
        path = world.path(image)
        results = []

        def work(args, results=results):
            results.append((args[0], subprocess.run(
                [options.guestclock, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                check=False)))
        jobs = [["rewrite", *plan, "--in-place", path]] * 3 + [["undo", path]] * 2 + \
               [["inspect", path]] * 2
        rng.shuffle(jobs)
        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            for verb, done in results:
                # a reader may come between two writes: then it says so; a writer finds it in use
                allowed = (0, 11) if verb != "inspect" else (0, 5, 6, 11)
                if done.returncode not in allowed:
                    raise Fault("%s of %s ended with %d: %s" % (
                        verb, image, done.returncode, done.stderr.decode()))
                table.add("two processes, " + verb, done.returncode, "x")
            world.run(["undo", path])
            verb = Verb("two", ["rewrite"], [image], in_place=image)
            if digest(path) != world.originals[image] and not verb.same_guest(world, path):
                raise Fault("after several processes at once undo did not make the old %s" % image)
        except Fault as reason:
            table.add("two processes", 99, "x")
            table.failed.append(str(reason))


def main():
    global options, rng
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--inject", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--long", action="store_true", help="at every call")
    parser.add_argument("--only", default="", help="verbs whose name begins with this")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    symbols = subprocess.run(["nm", "-D", options.guestclock], stdout=subprocess.PIPE, text=True,
                             check=False).stdout
    if "__asan_init" in symbols:
        print("skipped: faults: a sanitizer has the calls that would be made to fail")
        return 77
    seed = options.seed if options.seed is not None else int(time.time())
    print("seed: %d" % seed)
    rng = random.Random(seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))	# and what was made is removed
    world, table = World(), Table()
    try:
        each_call(world, table)
        if not options.only:
            random_kills(world, table)
            two_at_once(world, table)
    finally:
        shutil.rmtree(world.top)
    table.show()
    for reason in table.failed[:200]:
        print("FAILED: " + reason)
    injected = sum(row["all"] for row in table.rows.values())
    print("cases: %d passed, %d failed, 0 skipped" % (injected - len(table.failed),
                                                      len(table.failed)))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
