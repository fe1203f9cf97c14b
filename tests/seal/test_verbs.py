#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""keygen, seal, open, inspect of what is sealed, and --redact, as their users meet them.

    test_verbs.py --guestclock COMMAND --data tests/data [-v] [TEST...]
"""
import argparse
import json
import lzma
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

REFUSED, USAGE, SYS, TRUNCATED, MALFORMED, VERSION, UNSUPPORTED, RANGE, STATE = \
    1, 2, 3, 5, 6, 7, 8, 9, 11
options = None


class Done:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr.decode("utf-8", "surrogateescape")


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="gclk-seal-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC",
                        XDG_STATE_HOME=os.path.join(self.dir, "state"))

    def path(self, name):
        return os.path.join(self.dir, name)

    def run_it(self, *args, stdin=None, env=None):
        args = [self.path(a[1:]) if a.startswith("@") else a for a in args]
        return Done(subprocess.run([options.guestclock, *args], input=stdin, timeout=60,
                                   check=False, env=dict(self.env, **(env or {})),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def works(self, *args, **more):
        done = self.run_it(*args, **more)
        self.assertEqual(done.code, 0, done.err)
        return done

    def answer(self, *args, **more):
        tree = json.loads(self.works(*args, "--json", **more).out)
        self.assertEqual((tree["schema"], tree["verb"]), ("guestclock.v1", args[0]))
        return tree

    def fails(self, code, *args, **more):
        done = self.run_it(*args, **more)
        self.assertEqual(done.code, code, done.err)
        self.assertEqual(done.out, b"")
        self.assertRegex(done.err, r"^guestclock: error: .*[.?] Nothing was changed\. Try: .+\n")
        return done

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def write(self, name, content, mode=0o644):
        with open(self.path(name), "wb") as file:
            file.write(content)
        os.chmod(self.path(name), mode)

    def data(self, name, to, mode=0o644):
        with open(os.path.join(options.data, name), "rb") as file:
            self.write(to, file.read(), mode)

    def bundle(self, name="a.gclk"):
        with lzma.open(os.path.join(options.data, "streams/q35-kvm-4.qs.xz")) as packed:
            self.write("a.qs", packed.read())
        self.works("extract", "@a.qs", "-o", "@" + name)

    def keys(self, *names):
        for name in names:
            self.works("keygen", "@" + name)


class Keygen(Case):
    def test_two_files_with_their_modes(self):
        for mask in (0o022, 0o000, 0o077):
            name = "key-%o" % mask
            before = os.umask(mask)
            try:
                answer = self.answer("keygen", "@" + name)
            finally:
                os.umask(before)
            mode = stat.S_IMODE(os.stat(self.path(name)).st_mode)
            self.assertEqual(mode, 0o600)
            self.assertEqual(stat.S_IMODE(os.stat(self.path(name + ".pub")).st_mode),
                             0o644 & ~mask)
            self.assertRegex(answer["id"], "^[0-9a-f]{64}$")
            private, public = self.read(name), self.read(name + ".pub")
            self.assertEqual(private.count(b"BEGIN PRIVATE KEY"), 2)
            self.assertEqual(public.count(b"BEGIN PUBLIC KEY"), 2)
            self.assertNotIn(b"PRIVATE", public)

    def test_never_replaces_a_file(self):
        self.keys("key")
        private, public = self.read("key"), self.read("key.pub")
        self.fails(SYS, "keygen", "@key")
        os.remove(self.path("key"))
        self.fails(SYS, "keygen", "@key")		# key.pub is there, so no key is left
        self.assertFalse(os.path.exists(self.path("key")))
        self.assertEqual(self.read("key.pub"), public)
        os.remove(self.path("key.pub"))
        os.symlink(self.path("elsewhere"), self.path("key"))
        self.fails(SYS, "keygen", "@key")
        self.assertFalse(os.path.exists(self.path("elsewhere")))
        self.assertNotEqual(private, b"")

    def test_no_two_are_the_same(self):
        self.keys("a", "b")
        self.assertNotEqual(self.read("a.pub"), self.read("b.pub"))


class Modes(Case):
    def test_unsafe_keys_are_refused(self):
        self.bundle()
        self.keys("key")
        for mode in (0o640, 0o604, 0o644, 0o666, 0o620, 0o602, 0o610):
            os.chmod(self.path("key"), mode)
            done = self.fails(REFUSED, "seal", "--key", "@key", "@a.gclk", "-o", "@out")
            self.assertIn("%04o" % mode, done.err)
            self.assertFalse(os.path.exists(self.path("out")))
        for mode in (0o600, 0o400):
            os.chmod(self.path("key"), mode)
            self.works("seal", "--key", "@key", "@a.gclk", "-o", "@out")
        for mode in (0o664, 0o646):
            os.chmod(self.path("key.pub"), mode)
            self.fails(REFUSED, "open", "--key", "@key.pub", "@out", "-o", "@back")
            self.assertFalse(os.path.exists(self.path("back")))

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to give files away")
    def test_somebody_elses_key_is_refused(self):
        self.bundle()
        self.keys("key")
        os.chown(self.path("key"), 65534, 65534)
        self.fails(REFUSED, "seal", "--key", "@key", "@a.gclk", "-o", "@out")

    def test_what_is_no_file_is_refused(self):
        self.bundle()
        os.mkfifo(self.path("pipe"), 0o600)
        self.fails(REFUSED, "seal", "--key", "@pipe", "@a.gclk", "-o", "@out")
        self.fails(REFUSED, "seal", "--key", self.dir, "@a.gclk", "-o", "@out")
        self.fails(SYS, "seal", "--key", "@nothing", "@a.gclk", "-o", "@out")
        self.write("large", b"-----BEGIN PRIVATE KEY-----\n" * 1000, 0o600)
        self.fails(RANGE, "seal", "--key", "@large", "@a.gclk", "-o", "@out")


class SealAndOpen(Case):
    def setUp(self):
        super().setUp()
        self.bundle()
        self.keys("alice", "bob", "eve")

    def seal(self, to, *more, key="@alice", of="@a.gclk"):
        return self.answer("seal", "--key", key, *more, of, "-o", "@" + to)

    def test_there_and_back(self):
        self.seal("signed")
        self.seal("secret", "--to", "@bob.pub")
        self.works("open", "--key", "@alice.pub", "@signed", "-o", "@one")
        self.works("open", "--key", "@alice.pub", "--recipient", "@bob", "@secret", "-o", "@two")
        self.assertEqual(self.read("one"), self.read("a.gclk"))
        self.assertEqual(self.read("two"), self.read("a.gclk"))
        self.assertIn(self.read("a.gclk"), self.read("signed"))
        self.assertNotIn(self.read("a.gclk")[20:60], self.read("secret"))

    def test_an_image_is_extracted_on_the_way(self):
        self.seal("sealed", of="@a.qs")
        self.works("open", "--key", "@alice.pub", "@sealed", "-o", "@back")
        self.assertIn(b"no clock differs", self.works("diff", "@a.gclk", "@back").out)

    def test_pipes(self):
        sealed = self.works("seal", "--key", "@alice", "-", "-o", "-",
                            stdin=self.read("a.gclk")).out
        back = self.works("open", "--key", "@alice.pub", "-", "-o", "-", stdin=sealed).out
        self.write("back", back)
        self.assertIn(b"no clock differs", self.works("diff", "@a.gclk", "@back").out)

    def test_wrong_keys(self):
        self.seal("s", "--to", "@bob.pub")
        for key, recipient in (("eve.pub", "bob"), ("bob.pub", "bob"), ("alice.pub", "eve"),
                               ("alice.pub", None)):
            more = ["--recipient", "@" + recipient] if recipient else []
            self.fails(REFUSED, "open", "--key", "@" + key, *more, "@s", "-o", "@out")
        self.fails(STATE, "open", "--key", "@alice.pub", "--recipient", "@bob.pub", "@s",
                   "-o", "@out")
        self.fails(STATE, "seal", "--key", "@alice.pub", "@a.gclk", "-o", "@out")
        self.assertFalse(os.path.exists(self.path("out")))

    def test_damage(self):
        self.seal("s", "--to", "@bob.pub")
        whole = self.read("s")
        rng = random.Random(1)
        opening = ("open", "--key", "@alice.pub", "--recipient", "@bob", "@d", "-o", "@out")
        for at in [0, 8, 10, 12, 16, 20, 24, 40, 56, 88, 120, 152, len(whole) - 80,
                   len(whole) - 1] + [rng.randrange(len(whole)) for _ in range(20)]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << rng.randrange(8)
            self.write("d", bytes(damaged))
            done = self.run_it(*opening)
            self.assertIn(done.code, (REFUSED, TRUNCATED, MALFORMED, VERSION, UNSUPPORTED, RANGE))
            self.assertIn("Nothing was changed", done.err)
        for n in (1, 7, 8, 151, 152, 153, len(whole) - 64, len(whole) - 1):
            self.write("d", whole[:n])
            self.fails(TRUNCATED, *opening)
        self.write("d", whole + b"\0")
        self.fails(MALFORMED, *opening)
        self.write("d", whole[:8] + b"\2\0" + whole[10:])
        self.fails(VERSION, *opening)
        self.fails(MALFORMED, *[a.replace("@d", "@a.gclk") for a in opening])
        self.assertFalse(os.path.exists(self.path("out")))

    def test_what_is_sealed_must_be_a_clock_state(self):
        self.write("text", b"no state at all")
        done = self.run_it("seal", "--key", "@alice", "@text", "-o", "@out")
        self.assertNotEqual(done.code, 0)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_files_from_earlier_releases(self):
        for name in ("seal-signer.pem", "seal-recipient.pem", "bundle-v1.gclk",
                     "signed-v1.gseal", "encrypted-v1.gseal"):
            self.data(name, name, 0o600)
        for name in ("signed-v1.gseal", "encrypted-v1.gseal"):
            self.works("open", "--key", "@seal-signer.pem", "--recipient", "@seal-recipient.pem",
                       "@" + name, "-o", "@out")
            self.assertEqual(self.read("out"), self.read("bundle-v1.gclk"))

    def test_inspect_says_what_it_is(self):
        sealed = self.seal("s", "--to", "@bob.pub")
        self.seal("signed")
        tree = self.answer("inspect", "@s")
        self.assertEqual(tree["format"], "sealed")
        self.assertEqual(tree["sealed"]["signer"], sealed["signer"])
        self.assertEqual(tree["sealed"]["recipient"], sealed["recipient"])
        self.assertEqual(tree["sealed"]["sequence"], sealed["sequence"])
        self.assertTrue(tree["sealed"]["encrypted"])
        self.assertIsNone(self.answer("inspect", "@signed")["sealed"]["recipient"])
        text = self.works("inspect", "@s").out.decode()
        self.assertIn("not proven", text)
        self.assertIn("guestclock open --key", text)
        self.works("inspect", "-", stdin=self.read("s"))
        self.write("cut", self.read("s")[:100])
        self.fails(TRUNCATED, "inspect", "@cut")
        for verb in (["plan"], ["extract", "-o", "@x"], ["rewrite", "-o", "@x"]):
            done = self.fails(UNSUPPORTED, verb[0], "@s", *verb[1:])
            self.assertIn("guestclock open", done.err)

    def test_usage(self):
        self.fails(USAGE, "seal", "@a.gclk", "-o", "@x")
        self.fails(USAGE, "seal", "--key", "@alice", "@a.gclk")
        self.fails(USAGE, "open", "--key", "@alice.pub", "@a.gclk")
        self.fails(USAGE, "keygen")
        for verb in ("keygen", "seal", "open"):
            self.assertIn(b"Example:", self.works(verb, "--help").out)


class Sequence(Case):
    def setUp(self):
        super().setUp()
        self.bundle()
        self.keys("alice")

    def seal(self, to, *more, **env):
        return int(self.answer("seal", "--key", "@alice", *more, "@a.gclk", "-o", "@" + to,
                               env=env)["sequence"])

    def open(self, name, *more, **env):
        return self.run_it("open", "--key", "@alice.pub", "@" + name, "-o", "@out", *more,
                           env=env)

    def test_each_sealing_has_a_larger_one(self):
        sequences = [self.seal("s%d" % i) for i in range(4)]
        self.assertEqual(sequences, sorted(set(sequences)))
        # also where the file of the sequences was lost
        shutil.rmtree(self.path("state"))
        self.assertGreater(self.seal("s4"), sequences[-1])

    def test_the_clock_that_went_back_gives_a_larger_one_still(self):
        first = self.seal("a")
        name = self.path("state/guestclock/sequences")
        with open(name, encoding="utf-8") as file:
            line = file.read()
        ahead = first + 10**18
        with open(name, "w", encoding="utf-8") as file:
            file.write(line.replace(str(first), str(ahead)))
        self.assertEqual(self.seal("b"), ahead + 1)

    def test_going_back_is_a_warning(self):
        here, there = self.path("there"), {"XDG_STATE_HOME": self.path("there")}
        first, second = self.seal("one"), self.seal("two")
        self.assertFalse(os.path.exists(here))
        self.assertEqual(self.open("one", **there).err, "")
        self.assertEqual(self.open("two", **there).err, "")
        self.assertEqual(self.open("two", **there).err, "")	# the same again is not back
        done = self.open("one", **there)
        self.assertEqual(done.code, 0)
        self.assertRegex(done.err, "^guestclock: warning: .*: sealed-state-older: .*%d.*%d"
                         % (first, second))
        self.assertEqual(self.read("out"), self.read("a.gclk"))
        done = self.open("one", "--check", "--json", **there)
        self.assertEqual(done.code, REFUSED)
        self.assertEqual(json.loads(done.out)["findings"][0]["id"], "sealed-state-older")
        self.works("explain", "sealed-state-older")

    def test_a_refused_one_is_not_remembered(self):
        self.seal("one")
        late = bytearray(self.read("one"))
        late[24:32] = b"\xff" * 8			# a forged sequence
        self.write("forged", bytes(late))
        there = {"XDG_STATE_HOME": self.path("there")}
        self.assertEqual(self.open("forged", **there).code, REFUSED)
        self.assertEqual(self.open("one", **there).err, "")

    def test_without_a_place_for_them_it_is_said(self):
        self.seal("one")
        self.write("blocked", b"")
        done = self.open("one", "--sequences", self.path("blocked/x"))
        self.assertEqual(done.code, 0)
        self.assertIn("guestclock: warning: ", done.err)
        self.write("damaged", b"nonsense\n")
        done = self.open("one", "--sequences", self.path("damaged"))
        self.assertEqual(done.code, 0)
        self.assertIn("line 1", done.err)
        self.assertEqual(self.read("damaged"), b"nonsense\n")

    def test_many_at_once_lose_none(self):
        sequences = []

        def seal(i):
            for j in range(5):
                sequences.append(self.seal("t%d-%d" % (i, j)))
        threads = [threading.Thread(target=seal, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(sequences)), 20)
        with open(self.path("state/guestclock/sequences"), encoding="utf-8") as file:
            [line] = file.read().splitlines()
        self.assertEqual(int(line.split()[2]), max(sequences))

    def test_the_file_keeps_the_last_4096(self):
        path = self.path("many")
        with open(path, "w", encoding="utf-8") as file:
            for i in range(4096):
                file.write("%064x %032x %d\n" % (i, i, i + 1))
        self.seal("x", "--sequences", path)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), 4096)
        self.assertTrue(lines[0].startswith("%064x " % 1))

    def test_who_seals_for_many_guests_pushes_nobody_else_out(self):
        path, ours = self.path("many"), "%064x %032x 7\n" % (1, 1)
        with open(path, "w", encoding="utf-8") as file:
            file.write(ours)				# not met for the longest time
            for i in range(4095):
                file.write("%064x %032x %d\n" % (2, i, i + 1))
        self.seal("x")
        done = self.open("x", "--sequences", path)
        self.assertEqual(done.code, 0)
        self.assertRegex(done.err, "warning: .*many.*full.*forgotten")
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        self.assertEqual(len(lines), 4096)
        self.assertEqual(lines[0], ours)
        self.assertEqual(lines[1].split()[1], "%032x" % 1)	# of the other the first went
        self.assertEqual(self.open("x", "--sequences", path).err, "")


class Redact(Case):
    """What is left of a redacted state tells nothing of the host."""

    HOST = {"hostname": "SECRET-host", "kernel_release": "SECRET-kernel",
            "boot_id": "SECRET-boot-id", "cpu_model": "SECRET-cpu", "clocksource": "SECRET-cs",
            "tsc_hz": "2987654321", "tsc_ticks": "8765432109876543", "raw_ns": "765432109876",
            "boottime_ns": "765432209876", "monotonic_ns": "765432309876"}
    STATE = {"n_vcpus": 1, "guest": {"machine": "pc-q35-7.2", "accelerator": "tcg", "run_state": "paused",
                       "uuid": "1" * 36},
             "tsc": [{"vcpu": 0, "value_ticks": "123456789012", "frequency_hz": "2000000000",
                      "measured_hz": "2000000123", "measured_ppb": 7, "offset_ticks":
                      "-5432109876501234", "offset_read_back_ticks": "-5432109876501299",
                      "ratio": "239851234567890", "ratio_frac_bits": 48,
                      "host_ticks": "5432209876543210"}],
             "kvmclock": {"clock_ns": "49382000000", "host_ticks": "5432309876543210"},
             "virtual_clock": {"clock_ns": "49382000000", "host_monotonic_ns": "654321098765"}}
    GONE = ["SECRET", "2987654321", "8765432109876543", "765432109876", "765432209876",
            "765432309876", "2000000123", "5432109876501234", "5432109876501299",
            "239851234567890", "5432209876543210", "5432309876543210", "654321098765"]

    def setUp(self):
        super().setUp()
        self.write("a.json", json.dumps({
            "schema": "guestclock.v1", "host": self.HOST, "state": self.STATE, "provenance": {
                "realtime_ns": "1795231000123456789", "uncertainty_ns": "1200000",
                "basis": "given"}}).encode())

    def left(self, data):
        return [word for word in self.GONE if word.encode() in data]

    def test_json(self):
        self.works("extract", "@a.json", "-o", "@plain.json")
        self.assertEqual(self.left(self.read("plain.json")), self.GONE)
        self.works("extract", "--redact", "@a.json", "-o", "@r.json")
        self.assertEqual(self.left(self.read("r.json")), [])
        self.assertEqual(json.loads(self.read("r.json"))["host"], {"hostname": "(redacted)"})

    def test_inspect(self):
        self.assertNotEqual(self.left(self.works("inspect", "@a.json", "--json").out), [])
        for more in ([], ["--json"]):
            self.assertEqual(self.left(self.works("inspect", "@a.json", "--redact", *more).out), [])

    def test_bundle(self):
        self.works("extract", "--redact", "@a.json", "-o", "@r.gclk")
        self.works("extract", "@r.gclk", "-o", "@back.json")
        self.assertEqual(self.left(self.read("r.gclk")), [])
        self.assertEqual(self.left(self.read("back.json")), [])
        # and what the guest itself reads is there
        tree = json.loads(self.read("back.json"))
        self.assertEqual(tree["state"]["tsc"][0]["value_ticks"], "123456789012")
        self.assertEqual(tree["state"]["kvmclock"]["clock_ns"], "49382000000")

    def test_an_image(self):
        with lzma.open(os.path.join(options.data, "streams/q35-kvm-4.qs.xz")) as packed:
            self.write("a.qs", packed.read())
        tree = self.answer("inspect", "@a.qs", "--redact")
        self.assertIsNone(tree["source"])
        self.works("inspect", "@a.qs", "--redact")
        self.works("extract", "@a.qs", "--redact", "-o", "@r.json")
        self.assertEqual(json.loads(self.read("r.json"))["host"], {"hostname": "(redacted)"})


class Small(Case):
    def test_the_command_itself_does_without_libcrypto(self):
        needed = subprocess.run(["readelf", "-d", options.guestclock], check=True, text=True,
                                stdout=subprocess.PIPE).stdout
        self.assertNotIn("libcrypto", needed)
        self.assertNotIn("guestclock-seal", needed)
        self.assertTrue(re.search("NEEDED.*libguestclock", needed))


def main():
    global options
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("-v", action="store_true")
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    suite = unittest.defaultTestLoader.loadTestsFromNames(options.tests, sys.modules[__name__]) \
        if options.tests else unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(sys.stdout, verbosity=2 if options.v else 1).run(suite)
    failed = len(result.failures) + len(result.errors)
    print("cases: %d passed, %d failed, %d skipped" %
          (result.testsRun - failed - len(result.skipped), failed, len(result.skipped)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
