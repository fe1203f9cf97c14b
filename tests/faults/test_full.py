#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A disk that is really full: what is written there is whole, or is not there.

    test_full.py --guestclock COMMAND --hook guestclock-hook --books PROGRAM --data tests/data

A tmpfs of some MiB, mounted in a namespace of its own that ends with the test, and filled but
for 0, 1, 2, 4, ... pages until what is tried fits. Each verb that writes files; the undo of an
image on a disk that is full; the hook's rewriting of an image that its caller holds open; the
books: audit log, what earlier restores and moves took, sequences.
"""
import argparse
import hashlib
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SYS, STATE, UNPROVEN, SKIPPED = 3, 11, 13, 77
PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE_MIB = 12
FULL = "No space left on device"
UUID = "8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a7"
XML = ("<domain type='qemu'><name>web1</name><uuid>" + UUID + "</uuid>"
       "<os><type machine='pc-i440fx-2.3'>hvm</type></os>%s</domain>")
# as `guestclock save` says when it was stopped
CAPTURED = ("<metadata><g:clock xmlns:g='https://guestclock.dev/ns/domain/1' captured_at_ns='%d' "
            "captured_uncertainty_ns='1000' captured_digest='%s' captured_boot_id='%s'/></metadata>")
WHEN = ["--captured-at", "@1795228008.125+-1us", "--resume-at", "@1795231608.125",
        "--disagreement", "0+-1us"]
options = None


class Wrong(Exception):
    pass


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def save_image(stream, metadata=""):
    """Its last page is full, so that whatever is put behind it needs another."""
    xml = (XML % metadata).encode() + b"\0" + b"\0" * 1024
    xml += b"\0" * (-(92 + len(xml) + len(stream)) % PAGE)
    head = b"LibvirtQemudSave" + struct.pack("<IIIII", 2, len(xml), 1, 0, 0)
    return head + b"\0" * (92 - len(head)) + xml + stream


class Disk:
    """What is kept elsewhere, and the disk that is filled."""

    def __init__(self, top):
        self.kept, self.at = os.path.join(top, "kept"), os.path.join(top, "disk")
        os.mkdir(self.kept)
        os.mkdir(self.at)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % SIZE_MIB, "none", self.at],
                       check=True)
        self.make()

    def close(self):
        subprocess.run(["umount", "-l", self.at], check=False)

    def keep(self, name):
        return os.path.join(self.kept, name)

    def path(self, name):
        return os.path.join(self.at, name)

    def make(self):
        """One of each kind of file that the verbs take."""
        with lzma.open(os.path.join(options.data, "streams/pc-2.3.qs.xz")) as packed:
            stream = packed.read()
        write(self.keep("stream"), stream)
        write(self.keep("save"), save_image(stream))
        digest_ = self.run(["digest", self.keep("save")], command=options.books)
        write(self.keep("save"), save_image(stream, CAPTURED % (
            time.time_ns() - 60 * 10**9, digest_.stdout.strip(), boot_id())))
        for args in (["extract", self.keep("stream"), "-o", self.keep("state.gclk")],
                     ["keygen", self.keep("key")],
                     ["seal", "--key", self.keep("key"), self.keep("state.gclk"), "-o",
                      self.keep("state.gseal")],
                     ["host", "-o", self.keep("host.json")]):
            done = self.run(args)
            if done.returncode:
                raise Wrong("%s: %s" % (" ".join(args), done.stderr))

    def run(self, args, command=None, state=None):
        env = dict(os.environ, LC_ALL="C.UTF-8", XDG_STATE_HOME=state or self.keep("state"))
        return subprocess.run([command or options.guestclock, *args], env=env, cwd=self.at,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              check=False)

    def fill(self, names, pages):
        """These files, and room for so many pages."""
        for name in os.listdir(self.at):
            path = self.path(name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        for name in names:
            shutil.copy2(self.keep(name), self.path(name))
        free = os.statvfs(self.at).f_bavail * os.statvfs(self.at).f_frsize
        with open(self.path("filler"), "wb") as file:
            file.write(b"x" * (free - pages * PAGE))
        there = os.statvfs(self.at)
        if there.f_bavail * there.f_frsize != pages * PAGE:
            raise Wrong("the disk has %d bytes of room, not %d pages" % (
                there.f_bavail * there.f_frsize, pages))


class Tally:
    def __init__(self):
        self.passed, self.failed, self.refused, self.fitted = 0, [], 0, 0

    def each(self, disk, name, names, attempt):
        """attempt(pages) -> whether it fitted; from no room, where it must not, to room enough."""
        pages = 0
        while True:
            try:
                disk.fill(names, pages)
                fitted = attempt(pages)
                self.passed += 1
            except (Wrong, subprocess.TimeoutExpired) as reason:
                self.failed.append("%s, %d pages left: %s" % (name, pages, reason))
                return
            if fitted:
                self.fitted += 1
                if pages == 0:
                    self.failed.append("%s: it fitted where there was no room" % name)
                return
            self.refused += 1
            pages = 2 * pages or 1
            if pages * PAGE > SIZE_MIB << 19:
                self.failed.append("%s: it does not fit at all" % name)
                return


def left(disk, names):
    return sorted(set(os.listdir(disk.at)) - set(names) - {"filler"})


def check_message(done, effects):
    if done.returncode < 0:
        raise Wrong("killed by signal %d" % -done.returncode)
    if done.returncode not in (SYS, UNPROVEN):
        raise Wrong("exit %d: %s" % (done.returncode, done.stderr))
    if FULL not in done.stderr or not any(effect in done.stderr for effect in effects):
        raise Wrong("it says: %s" % done.stderr.strip())


def output_verb(disk, tally, name, args, names, outputs):
    """A verb that makes files: all of them and whole, or none, and nothing beside them."""
    def attempt(_):
        done = disk.run(args)
        for one in names:
            if digest(disk.path(one)) != digest(disk.keep(one)):
                raise Wrong("%s was changed" % one)
        there = left(disk, names)
        if done.returncode == 0:
            if there != sorted(outputs):
                raise Wrong("made %s" % there)
            check_whole(disk, outputs[0])
            return True
        check_message(done, ["Nothing was changed."])
        if there:
            raise Wrong("left behind: %s" % there)
        return False
    tally.each(disk, name, names, attempt)


def check_whole(disk, name):
    path = disk.path(name)
    if name.endswith(".svg"):
        with open(path, encoding="utf-8") as file:
            if not file.read().endswith("</svg>\n"):
                raise Wrong("the picture is cut")
        return
    if name.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            json.load(file)
        return
    if name.endswith(".gseal"):
        args = ["open", "--key", disk.keep("key.pub"), path, "-o", disk.keep("opened")]
    elif name == "new":
        args = ["seal", "--key", path, disk.keep("state.gclk"), "-o", disk.keep("sealed")]
    else:
        args = ["inspect", path]
    done = disk.run(args)
    if done.returncode:
        raise Wrong("%s is not whole: %s" % (name, done.stderr))


def in_place(disk, tally, name):
    """An image that has no room for its undo record is as it was; one that has, is undone."""
    def attempt(_):
        path = disk.path(name)
        done = disk.run(["rewrite", *WHEN, "--host", disk.keep("host.json"), "--in-place", path])
        if done.returncode:
            check_message(done, ["Nothing was changed.", "undo"])
        changed = digest(path) != digest(disk.keep(name))
        if changed and "Nothing was changed." in done.stderr:
            raise Wrong("it says that nothing was changed, but the image was")
        if left(disk, [name]):
            raise Wrong("left behind: %s" % left(disk, [name]))
        # and back, with what room there is now
        undo = disk.run(["undo", path])
        if undo.returncode or digest(path) != digest(disk.keep(name)):
            raise Wrong("undo on the full disk: exit %d: %s" % (undo.returncode, undo.stderr))
        return done.returncode == 0
    tally.each(disk, "rewrite --in-place " + name, [name], attempt)


def hook(disk, tally):
    """libvirtd, which is this program, holds an image open, and calls the hook."""
    conf = disk.keep("hook.conf")
    write(conf, b"[hook]\nrestore = rewrite\n")
    write(disk.keep("web1.xml"), (XML % "").encode())

    def attempt(_):
        path, audit = disk.path("save"), disk.keep("audit")
        if os.path.exists(audit):
            os.remove(audit)
        # no pipes: whoever reads the image for it may keep one where a sanitizer is to report
        with open(path, "rb"), open(disk.keep("web1.xml"), "rb") as xml, \
             open(disk.keep("said"), "w+", encoding="utf-8") as said:
            done = subprocess.run(
                [options.hook, "--conf", conf, "--state", disk.keep("state"), "--audit", audit,
                 "--host", disk.keep("host.json"), "web1", "restore", "begin", "-"], cwd=disk.at,
                stdin=xml, stdout=said, stderr=said,
                timeout=60, check=False)
            said.seek(0)
            if done.returncode:
                raise Wrong("exit %d: %s" % (done.returncode, said.read()))
        record = wait_for_line(audit)
        undo = disk.run(["undo", "--json", path])
        while undo.returncode == STATE:		# the follower has it a moment longer
            time.sleep(0.05)
            undo = disk.run(["undo", "--json", path])
        if undo.returncode or digest(path) != digest(disk.keep("save")):
            raise Wrong("undo: exit %d: %s" % (undo.returncode, undo.stderr))
        undone = json.loads(undo.stdout)["undone"]
        if record["verdict"] == "untouched":
            if FULL not in record["why"] or undone:
                raise Wrong("untouched, but undone: %s; it says: %s, %s" % (
                    undone, record["why"], [one["id"] for one in record["findings"]]))
            return False
        if not undone:
            raise Wrong("%s: nothing was rewritten: %s" % (record["verdict"], record["why"]))
        return True
    tally.each(disk, "hook", ["save"], attempt)


def wait_for_line(path):
    """What the hook writes in the end, or its follower, soon after the image was closed."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                lines = file.read()
            if lines.endswith("\n"):
                return json.loads(lines.splitlines()[-1])
        time.sleep(0.02)
    raise Wrong("the hook's follower says nothing for 30 s")


def books(disk, tally, book):
    """What is kept is as before, or has one entry more; the audit log has no half line."""
    def write():
        return disk.run([book, disk.path("book")], command=options.books)

    def attempt(pages):
        size = PAGE * SIZE_MIB
        os.truncate(disk.path("filler"), os.path.getsize(disk.path("filler")) - size)
        for _ in range(3):		# there is one already
            if write().returncode:
                raise Wrong("it cannot be begun: %s" % write().stderr)
        room = os.statvfs(disk.at)
        with open(disk.path("filler"), "ab") as file:
            file.write(b"x" * (room.f_bavail * room.f_frsize - pages * PAGE))
        before, names = content(disk), set(os.listdir(disk.at))
        done = write()
        after = content(disk)
        if set(os.listdir(disk.at)) != names:
            raise Wrong("left behind: %s" % (set(os.listdir(disk.at)) - names))
        if done.returncode == 0:
            if after == before and book != "learned":
                raise Wrong("nothing was written")
            return True
        if done.returncode != SYS or FULL not in done.stderr:
            raise Wrong("exit %d: %s" % (done.returncode, done.stderr))
        if after != before:
            raise Wrong("%d bytes became %d" % (len(before), len(after)))
        return False
    tally.each(disk, "the book " + book, [], attempt)


def content(disk):
    with open(disk.path("book"), "rb") as file:
        return file.read()


def sealing_without_a_book(disk, tally):
    """The sequences are on the full disk: it is sealed by the wall clock alone, and that is said."""
    def attempt(_):
        state = disk.path("state")
        done = disk.run(["seal", "--key", disk.keep("key"), disk.keep("state.gclk"), "-o",
                         disk.keep("new.gseal")], state=state)
        os.remove(disk.keep("new.gseal"))
        if done.returncode:
            raise Wrong("exit %d: %s" % (done.returncode, done.stderr))
        kept = os.path.exists(os.path.join(state, "guestclock", "sequences"))
        if kept == (FULL in done.stderr):
            raise Wrong("kept: %s, and it says: %s" % (kept, done.stderr.strip()))
        return kept
    tally.each(disk, "seal, with its sequences", [], attempt)


def all_of_it(disk, tally):
    plan = WHEN + ["--host", disk.keep("host.json")]
    for name in ("stream", "save"):
        output_verb(disk, tally, "rewrite -o " + name, ["rewrite", *plan, name, "-o", "out"],
                    [name], ["out"])
    in_place(disk, tally, "save")
    output_verb(disk, tally, "extract", ["extract", "save", "-o", "out"], ["save"], ["out"])
    output_verb(disk, tally, "extract, JSON", ["extract", "save", "-o", "out.json"], ["save"],
                ["out.json"])
    output_verb(disk, tally, "host -o", ["host", "--measure", "0s", "-o", "out.json"], [],
                ["out.json"])
    output_verb(disk, tally, "keygen", ["keygen", "new"], [], ["new", "new.pub"])
    output_verb(disk, tally, "seal", ["seal", "--key", disk.keep("key"), "state.gclk", "-o",
                                      "out.gseal"], ["state.gclk"], ["out.gseal"])
    output_verb(disk, tally, "open", ["open", "--key", disk.keep("key.pub"), "state.gseal", "-o",
                                      "out"], ["state.gseal"], ["out"])
    output_verb(disk, tally, "inspect --timeline", ["inspect", "--timeline", "out.svg",
                                                    disk.keep("stream")], [], ["out.svg"])
    hook(disk, tally)
    for book in ("audit", "learned", "margins", "sequence"):
        books(disk, tally, book)
    sealing_without_a_book(disk, tally)


def inside():
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="gclk-full-") as top:
        os.chmod(top, 0o755)
        disk = Disk(top)
        try:
            all_of_it(disk, tally)
        finally:
            disk.close()
    for reason in tally.failed:
        print("FAILED: " + reason)
    print("%d times there was no room, %d things fitted in the end" % (tally.refused, tally.fitted))
    print("cases: %d passed, %d failed, 0 skipped" % (tally.passed, len(tally.failed)))
    return 1 if tally.failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--hook", required=True)
    parser.add_argument("--books", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    global options
    options = arguments()
    if options.inside:
        return inside()
    private = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        print("skipped: only root may mount a disk to fill")
        return SKIPPED
    try:
        tried = subprocess.run(private + ["mount", "-t", "tmpfs", "none", "/mnt"],
                               capture_output=True, text=True, check=False)
    except FileNotFoundError:
        tried = None
    if not tried or tried.returncode:
        print("skipped: no disk can be mounted here: %s" %
              (tried.stderr.strip() if tried else "there is no unshare"))
        return SKIPPED
    return subprocess.run(private + [sys.executable, *sys.argv, "--inside"],
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
