#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command as its users meet it: what it prints, how it ends, what it leaves behind.

    cli.py --guestclock COMMAND --data tests/data [-v] [TEST...]
"""
import argparse
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

REFUSED, USAGE, SYS, TRUNCATED, MALFORMED, VERSION, UNSUPPORTED, RANGE = 1, 2, 3, 5, 6, 7, 8, 9
VERBS = ["host", "inspect", "diff", "plan", "rewrite", "undo", "extract", "explain", "log",
         "hook"]
# of guestclock-live, which a build without libvirt has not
SEAL_VERBS = ["keygen", "seal", "open"]		# tests/seal has what they do
LIVE_VERBS = ["save", "restore", "migrate", "proxy", "check", "hosts"]
options = None

STATE = {
    "n_vcpus": 2,
    "guest": {"name": "web1", "machine": "pc-q35-7.2", "accelerator": "tcg", "run_state": "paused"},
    "tsc": [{"vcpu": 0, "value_ticks": "123456789012", "frequency_hz": "2000000000"},
            {"vcpu": 1, "value_ticks": "123456789012", "frequency_hz": "2000000000"}],
    "virtual_clock": {"clock_ns": "49382000000", "host_ticks": "123456789012"},
    "pit": {"dialect": "qemu", "channels": [
        {"count": 11932, "mode": 2, "gate": True, "load_time_ns": "1000000",
         "next_transition_ns": "49385000000"},
        {"count": 65536, "mode": 0}, {"count": 65536, "mode": 0}]},
    "pm_timer": {"bits": 24},
    "lapic": [{"vcpu": 0, "dialect": "qemu", "lvt_timer": 0x200ec, "initial_count": 1000000,
               "divide_config": 11, "divide_shift": 0, "load_time_ns": "49381500000",
               "next_time_ns": "49382500000", "expiry_ns": "49382500000"},
              {"vcpu": 1, "lvt_timer": 0x10000}],
}


class Done:
    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr


def run(*args, stdin=None, env=None):
    """The command; its output as bytes where it is no text."""
    environment = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC", TERM="xterm")
    environment.pop("NO_COLOR", None)
    environment.update(env or {})
    process = subprocess.run([options.guestclock, *args], input=stdin, timeout=120, check=False,
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout = process.stdout.decode("utf-8", "surrogateescape")
    process.stderr = process.stderr.decode("utf-8", "surrogateescape")
    return Done(process)


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="gclk-cli-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
        return self.path(name)

    def bundle(self, name="state.json", **changes):
        tree = {"schema": "guestclock.v1", "state": dict(STATE, **changes), "provenance": {
            "realtime_ns": "1795231000123456789", "uncertainty_ns": "1200000", "basis": "given"}}
        return self.write(name, json.dumps(tree))

    def stream(self, name):
        """A real migration stream from tests/data."""
        with lzma.open(os.path.join(options.data, "streams", name + ".qs.xz")) as packed:
            return self.write(name, packed.read())

    def fails(self, code, *args, **more):
        """Ends with a code, prints nothing as a result, and says why in the form of the contract."""
        done = run(*args, **more)
        self.assertEqual(done.code, code, done.err)
        self.assertEqual(done.out, "")
        self.assertRegex(done.err, r"^guestclock: error: .*[.?] Nothing was changed\. Try: .+\n")
        return done

    def works(self, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.code, 0, done.err)
        return done

    def answer(self, *args, **more):
        """A JSON answer, and that it begins as each of them does."""
        tree = json.loads(self.works(*args, "--json", **more).out)
        self.assertEqual(list(tree)[:2], ["schema", "verb"])
        self.assertEqual((tree["schema"], tree["verb"]), ("guestclock.v1", args[0]))
        return tree


class Log(Case):
    """The audit log as `log` reads it."""

    def move(self, n, **changes):
        at = 1795228000 + 60 * n
        return dict({
            "schema": "guestclock.v1", "verb": "migrate", "domain": "web%d" % (n % 2),
            "uuid": "8c2b66d2-8b1c-4b52-9f3e-2a64b1a5b6a%d" % (n % 2), "from": "a", "to": "b",
            "verdict": "done", "written": {"realtime_ns": str(at * 10**9)},
            "stopped": {"realtime_ns": str(at * 10**9), "uncertainty_ns": "1000", "basis": "event"},
            "gap_ns": "40000000", "blackout_ns": str((n + 1) * 10**6), "hold_ns": "0",
            "clocks": [{"clock": "tsc", "correction_ns": "40000000",
                        "error_ns": str(-1000 * n), "bound_ns": "900000"}],
            "findings": [{"id": "gap-counted", "severity": "note"}]}, **changes)

    def log(self, *moves):
        return self.write("moves.jsonl", "".join(
            move if isinstance(move, str) else json.dumps(move) + "\n" for move in moves))

    def test_moves_and_pairs_of_hosts(self):
        path = self.log(*(self.move(n) for n in range(20)))
        answer = self.answer("log", "--file", path)
        self.assertEqual(len(answer["moves"]), 20)
        self.assertEqual(answer["damaged_lines"], 0)
        [pair] = answer["pairs"]
        self.assertEqual((pair["from"], pair["to"], pair["moves"], pair["done"]),
                         ("a", "b", 20, 20))
        # the nearest rank: the 10th and the 19th of 20
        self.assertEqual(pair["blackout_ns"], {"p50": "10000000", "p95": "19000000",
                                               "max": "20000000"})
        self.assertEqual(pair["error_ns"]["max"], "19000")
        text = self.works("log", "--file", path).out
        self.assertEqual(text.count("migrate a -> b"), 20)
        self.assertRegex(text, r"a -> b +20 +20 +10.0 ms +19.0 ms")

    def test_one_guest(self):
        path = self.log(*(self.move(n) for n in range(6)))
        for who in ("web1", "8C2B66D2-8b1c-4b52-9f3e-2a64b1a5b6a1"):
            answer = self.answer("log", "--file", path, who)
            self.assertEqual({move["domain"] for move in answer["moves"]}, {"web1"})
            self.assertEqual(len(answer["moves"]), 3)
        self.assertIn("No move of web7", self.works("log", "--file", path, "web7").out)

    def test_since(self):
        path = self.log(*(self.move(n) for n in range(6)))
        for since in ("@1795228180", "2026-11-21T02:29:40Z"):
            self.assertEqual(len(self.answer("log", "--file", path, "--since", since)["moves"]), 3)
        at = int((time.time() - 3600) * 1e9)
        path = self.log(self.move(0), self.move(1, written={"realtime_ns": str(at)}))
        self.assertEqual(len(self.answer("log", "--file", path, "--since", "2h")["moves"]), 1)
        self.assertEqual(len(self.answer("log", "--file", path, "--since", "30min")["moves"]), 0)
        self.fails(USAGE, "log", "--since", "yesterday")

    def test_damaged_lines_are_left_out(self):
        path = self.log(self.move(0), '{"schema":\n', self.move(1), "\n", "\0\xff\n",
                        "x" * 300000 + "\n", self.move(2), json.dumps(self.move(3)))
        done = self.works("log", "--file", path, "--json")
        answer = json.loads(done.out)
        self.assertEqual([move["blackout_ns"] for move in answer["moves"]],
                         ["1000000", "2000000", "3000000", "4000000"])
        self.assertEqual(answer["damaged_lines"], 3)
        self.assertRegex(done.err, r"^guestclock: warning: .*3 damaged lines .* line 2: ")

    def test_no_log(self):
        self.fails(SYS, "log", "--file", self.path("nothing"))

    def test_what_a_terminal_must_not_see(self):
        path = self.log(self.move(0, domain="\x1b[2Jweb\u202e", to="\x07b"))
        out = self.works("log", "--file", path).out
        self.assertIn("?[2Jweb?", out)
        self.assertNotIn("\x1b", out)


class Journal(Case):
    def test_priorities_where_standard_error_is_the_journal(self):
        path = self.path("stderr")
        for stream, expected in ((None, "guestclock: error: "), ("1:2", "guestclock: error: "),
                                 ("", "<3>guestclock: error: ")):
            with open(path, "wb") as err:
                info = os.fstat(err.fileno())
                env = dict(os.environ, JOURNAL_STREAM=stream or "%d:%d" % (
                    info.st_dev, info.st_ino))
                if stream is None:
                    del env["JOURNAL_STREAM"]
                subprocess.run([options.guestclock, "inspect", self.path("nothing")], env=env,
                               stdout=subprocess.DEVNULL, stderr=err, check=False)
            with open(path, encoding="utf-8") as err:
                self.assertTrue(err.read().startswith(expected), stream)


class Help(Case):
    def test_list_of_verbs(self):
        done = self.works("--help")
        listed = re.findall(r"^  ([a-z]+) ", done.out, re.M)
        self.assertEqual(listed, VERBS + SEAL_VERBS + LIVE_VERBS)
        self.assertEqual(self.works("-h").out, done.out)

    def test_every_verb_teaches(self):
        for verb in VERBS:
            text = self.works(verb, "--help").out
            self.assertRegex(text, r"\AUsage: guestclock %s " % verb)
            self.assertRegex(text, r"\nExample:\n  guestclock %s " % verb)
            for option in ("--help", "--json", "--color"):
                self.assertIn(option, text)
            self.assertLessEqual(max(map(len, text.splitlines())), 90, verb)

    def test_version(self):
        self.assertRegex(self.works("--version").out, r"\Aguestclock \d+\.\d+\.\d+\n\Z")

    def test_no_verb_is_usage(self):
        done = run()
        self.assertEqual((done.code, done.out), (USAGE, ""))

    def test_wrong_verbs(self):
        self.assertIn("is it inspect?", self.fails(USAGE, "inspct", "x").err)
        self.fails(USAGE, "--nonsense")
        self.fails(USAGE, "migrates")

    def test_an_answer_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([options.guestclock, "explain"], stdout=full, check=False,
                                  stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, SYS)
        self.assertIn(b"could not be written", done.stderr)

    def test_wrong_arguments(self):
        for args in (["inspect"], ["inspect", "a", "b"], ["diff", "a"], ["plan", "--gap"],
                     ["plan", "x", "--gap", "maybe"], ["plan", "x", "--ticks", "tsc=merge"],
                     ["plan", "x", "--disagreement", "5ms"], ["plan", "x", "--force", "nothing"],
                     ["plan", "x", "--captured-at", "yesterday"], ["rewrite", "x"],
                     ["rewrite", "x", "--in-place", "-o", "y"], ["rewrite", "-", "--in-place"],
                     ["extract", "x"], ["undo", "-"], ["explain", "no-such-thing"],
                     ["diff", "-", "-"], ["inspect", "x", "--color", "blue"]):
            with self.subTest(args=args):
                self.fails(USAGE, *args)


class Explain(Case):
    def test_all_findings_and_codes_are_listed(self):
        listed = self.works("explain").out
        tree = self.answer("explain")
        self.assertEqual([row["exit_code"] for row in tree["exit_codes"]], list(range(14)))
        ids = [row["id"] for row in tree["findings"]]
        self.assertEqual(len(ids), len(set(ids)))
        for name in ids:
            self.assertRegex(name, r"\A[a-z0-9]+(-[a-z0-9]+)*\Z")
            self.assertIn("\n%s " % name, "\n" + listed)
            self.assertIn(name, self.works("explain", name).out)

    def test_one(self):
        tree = self.answer("explain", "long-gap")
        self.assertEqual([row["id"] for row in tree["findings"]], ["long-gap"])
        self.assertEqual(tree["exit_codes"], [])
        self.assertIn("truncated", self.works("explain", "5").out)


class Inputs(Case):
    def test_missing(self):
        self.assertIn("No such file", self.fails(SYS, "inspect", self.path("none")).err)

    def test_empty(self):
        self.fails(TRUNCATED, "inspect", self.write("empty", b""))
        self.fails(TRUNCATED, "inspect", "-", stdin=b"")

    def test_a_directory(self):
        self.fails(SYS, "inspect", self.dir)

    def test_wrong_magic(self):
        for content in (b"\x7fELF" + bytes(100), b"hello, world\n" * 10, bytes(4096)):
            done = run("inspect", self.write("odd", content))
            self.assertIn(done.code, (MALFORMED, UNSUPPORTED), done.err)
            self.assertRegex(done.err, r"\Aguestclock: error: .*odd: (malformed|unsupported): ")

    def test_bundle_truncated_anywhere(self):
        with open(os.path.join(options.data, "bundle-v1.gclk"), "rb") as source:
            whole = source.read()
        self.works("inspect", self.write("whole", whole))
        for size in sorted({1, 7, 8, 12, 15, 16, 17, len(whole) // 2, len(whole) - 1}):
            done = run("inspect", self.write("part", whole[:size]))
            self.assertIn(done.code, (TRUNCATED, MALFORMED), "%d bytes: %s" % (size, done.err))

    def test_bad_json(self):
        for content, code in (("{", (MALFORMED, TRUNCATED)), ("{}", (MALFORMED, VERSION)),
                              ('{"schema": "guestclock.v9"}', (VERSION,)),
                              ('{"schema": "guestclock.v1", "state": 5}', (MALFORMED,)),
                              ("{" + '"a":[' * 5000, (MALFORMED, TRUNCATED, RANGE))):
            done = run("inspect", self.write("bad.json", content))
            self.assertIn(done.code, code, "%.40s: %s" % (content, done.err))

    def test_by_content_not_by_name(self):
        self.works("inspect", self.bundle(name="looks-like.save"))

    def test_standard_input(self):
        path = self.bundle()
        with open(path, "rb") as source:
            content = source.read()
        piped = self.works("inspect", "-", stdin=content).out
        named = self.works("inspect", path).out
        self.assertEqual(piped.splitlines()[1], named.splitlines()[1])
        with open(path, "rb") as source:
            done = subprocess.run([options.guestclock, "inspect", "--json", "-"], stdin=source,
                                  stdout=subprocess.PIPE, check=True)
        self.assertEqual(json.loads(done.stdout)["state"]["n_vcpus"], 2)

    def test_names_of_guests_do_not_reach_the_terminal(self):
        path = self.bundle(guest={"name": "a\x1b]0;owned\x07b\u202e"})
        out = self.works("inspect", path).out
        self.assertIn("a?]0;owned?b", out)
        for char in "\x1b\x07\u202e":
            self.assertNotIn(char, out)
        self.fails(SYS, "inspect", self.path("no\x1b[31msuch"))


class Inspect(Case):
    def test_text(self):
        out = self.works("inspect", self.bundle()).out
        self.assertRegex(out, r"(?m)^tsc\[0\] +123 456 789 012 ticks +2 GHz$")
        self.assertRegex(out, r"(?m)^virtual_clock +49.382s +1 GHz$")
        self.assertRegex(out, r"(?m)^lapic\[0\] .* in 500 us, every 1.00 ms$")
        self.assertRegex(out, r"(?m)^captured +2026-11-21 03:16:40.123 UTC \u00b11.20 ms by given")
        self.assertRegex(out, r"(?m)^NEXT ")
        self.assertLessEqual(len(out.splitlines()), 24)	# one screen
        self.assertNotIn("\x1b", out)

    def test_color_is_asked_for(self):
        path = self.bundle()
        self.assertIn("\x1b[", self.works("inspect", path, "--color", "always").out)
        self.assertNotIn("\x1b[", self.works("inspect", path, "--color=never").out)

    def test_without_utf8(self):
        self.assertIn("+-1.20 ms", self.works("inspect", self.bundle(), env={"LC_ALL": "C"}).out)

    def test_json(self):
        tree = self.answer("inspect", self.bundle())
        self.assertEqual(tree["format"], "bundle")
        self.assertEqual(tree["captured"]["realtime_ns"], "1795231000123456789")
        self.assertEqual(tree["captured"]["rfc3339"], "2026-11-21T03:16:40.123456789Z")
        self.assertEqual(tree["captured"]["uncertainty_ns"], "1200000")
        self.assertEqual(tree["state"]["tsc"][1]["value_ticks"], "123456789012")
        self.assertEqual(tree["state"]["virtual_clock"]["clock_ns"], "49382000000")
        for key in ("source", "findings"):
            self.assertIn(key, tree)

    def test_unknown_capture_is_null(self):
        path = self.write("bare.json", json.dumps({"schema": "guestclock.v1", "state": STATE}))
        captured = self.answer("inspect", path)["captured"]
        self.assertIsNone(captured["realtime_ns"])
        self.assertIsNone(captured["uncertainty_ns"])

    def test_check(self):
        apart = [dict(STATE["tsc"][0]), dict(STATE["tsc"][1], value_ticks="223456789012")]
        path = self.bundle(tsc=apart)
        self.assertIn("tsc-skew", [f["id"] for f in self.answer("inspect", path)["findings"]])
        done = run("inspect", "--check", path)
        self.assertEqual(done.code, REFUSED)
        self.assertIn("tsc-skew", done.out)


class Extract(Case):
    def test_round_trip(self):
        path, bundle, text = self.bundle(), self.path("out.gclk"), self.path("out.json")
        self.works("extract", path, "-o", bundle)
        self.works("extract", bundle, "-o", text)
        first = self.answer("inspect", path)
        for other in (bundle, text):
            tree = self.answer("inspect", other)
            self.assertEqual(tree["state"], first["state"])
            self.assertEqual(tree["captured"], first["captured"])
            self.assertEqual(self.answer("diff", path, other)["changes"], [])
        with open(bundle, "rb") as source:
            self.assertEqual(source.read(4), b"\x89GCL")
        self.assertEqual(sorted(os.listdir(self.dir)), ["out.gclk", "out.json", "state.json"])

    def test_to_standard_output(self):
        path = self.bundle()
        self.assertEqual(json.loads(self.works("extract", path, "-o", "-", "--json").out)["schema"],
                         "guestclock.v1")

    def test_an_answer_of_inspect_is_a_bundle_too(self):
        path = self.bundle()
        again = self.write("again.json", self.works("inspect", "--json", path).out)
        self.assertEqual(self.answer("inspect", again)["captured"],
                         self.answer("inspect", path)["captured"])

    def test_where_nothing_can_be_written(self):
        self.fails(SYS, "extract", self.bundle(), "-o", self.path("none/out.gclk"))
        self.assertEqual(os.listdir(self.dir), ["state.json"])


class Diff(Case):
    def test_changes(self):
        a = self.bundle("a.json")
        b = self.bundle("b.json", virtual_clock={"clock_ns": "49382000007"},
                        tsc=[STATE["tsc"][0], dict(STATE["tsc"][1], value_ticks="123456789000")])
        changes = {(c["clock"], c["field"]): c for c in self.answer("diff", a, b)["changes"]}
        moved = changes["virtual_clock", "clock_ns"]
        self.assertEqual((moved["unit"], moved["a"], moved["b"], moved["delta"]),
                         ("ns", "49382000000", "49382000007", "7"))
        self.assertEqual(changes["tsc[1]", "value_ticks"]["delta"], "-12")
        self.assertIsNone(changes["virtual_clock", "host_ticks"]["b"])
        self.assertEqual(len(changes), 3)
        self.assertRegex(self.works("diff", a, b).out, r"(?m)^tsc\[1\] +value_ticks .* -12 ticks$")

    def test_check(self):
        a, b = self.bundle("a.json"), self.bundle("b.json", n_vcpus=2, pm_timer={"bits": 32})
        self.assertEqual(run("diff", a, a, "--check").code, 0)
        self.assertEqual(run("diff", a, b).code, 0)
        self.assertEqual(run("diff", a, b, "--check").code, REFUSED)


class Host(Case):
    def test_profile(self):
        profile = self.path("host.json")
        self.works("host", "--measure", "0s", "-o", profile)
        with open(profile, encoding="utf-8") as source:
            tree = json.load(source)
        self.assertEqual((tree["schema"], tree["verb"]), ("guestclock.v1", "host"))
        self.assertEqual(tree["host"]["hostname"], os.uname().nodename)
        self.assertEqual(self.answer("host", "--measure", "0s")["host"].keys(),
                         tree["host"].keys())
        self.assertIn(os.uname().release, self.works("host", "--measure", "0s").out)

    def test_policy(self):
        conf = self.write("conf", "[policy]\ngap = cap=60s\nticks = rtc=catchup\n")
        rows = {row["setting"]: row for row in self.answer("host", "--policy", "--conf",
                                                           conf)["policy"]}
        self.assertEqual(rows["gap"]["value"], "cap=1min")
        self.assertEqual(rows["gap"]["origin"], conf + ":2")
        self.assertEqual(rows["ticks.rtc"]["value"], "catchup")
        self.assertEqual(rows["long_gap"]["origin"], "built-in")
        self.fails(MALFORMED, "host", "--policy", "--conf", self.write("bad", "[policy]\ngap=x\n"))
        self.fails(SYS, "host", "--policy", "--conf", self.path("none"))


class Images(Case):
    """Real streams: captured by stock QEMU, see tests/data/streams."""
    # resumed an hour after it stopped, both instants exact
    HOUR = ["--captured-at", "@1795228000.000000000+-0s", "--resume-at", "@1795231600.000000000",
            "--ticks", "pit=merge"]

    def setUp(self):
        super().setUp()
        self.image = self.stream("q35-kvm-4" if options.kvm else "pc-xbzrle")
        with open(self.image, "rb") as source:
            self.original = source.read()

    def content(self, path=None):
        with open(path or self.image, "rb") as source:
            return source.read()

    def picture(self, *args):
        """The elements of a timeline, by name."""
        path = self.path("timeline.svg")
        self.works("inspect", "--timeline", path, *args)
        found = {}
        for element in xml.etree.ElementTree.parse(path).getroot():
            found.setdefault(element.tag.rpartition("}")[2], []).append(element)
        return found

    def test_timeline(self):
        plain = self.picture(self.stream("pc-xbzrle"))	# a PIT of 1 kHz, five periods a side
        names = [text.text for text in plain["text"]]
        self.assertIn("pit[0]", names)
        self.assertNotIn("resume", names)
        self.assertGreaterEqual(len(plain["path"]), 1 + 9)
        gap = self.picture("--elapsed", "10s", self.stream("pc-xbzrle"))
        names = [text.text for text in gap["text"]]
        self.assertIn("10.0 s", names)
        self.assertTrue(any(re.search(r"^(9999|1000\d) missed: ", name) for name in names), names)

    def test_timeline_of_extremes_ends(self):
        golden = os.path.join(options.data, "bundle-v1.gclk")
        self.assertTrue(self.picture(golden)["text"])

    def test_inspect(self):
        tree = self.answer("inspect", self.image)
        self.assertEqual(tree["format"], "qemu-stream")
        clock = tree["state"]["virtual_clock"]["clock_ns"]
        self.assertEqual(tree["source"]["timer"]["cpu_clock_offset"], clock)
        self.assertIsNone(tree["rewrite"])
        pit = tree["source"]["i8254"]	# channel 0's next transition stands there twice
        self.assertEqual(pit["channels[0].next_transition_time#1"],
                         tree["state"]["pit"]["channels"][0]["next_transition_ns"])
        self.assertIn("virtual_clock", self.works("inspect", self.image).out)
        self.assertEqual(self.answer("inspect", "-", stdin=self.original)["state"], tree["state"])

    def test_truncated(self):
        for size in (3, 100, len(self.original) // 2, len(self.original) - 1):
            done = run("inspect", self.write("part", self.original[:size]))
            self.assertIn(done.code, (TRUNCATED, MALFORMED, UNSUPPORTED), done.err)
            self.assertRegex(done.err, r"\Aguestclock: error: .*part: ")

    def test_plan_changes_nothing(self):
        tree = self.answer("plan", self.image, *self.HOUR)
        self.assertEqual((tree["gap_ns"], tree["policy"]), ("3600000000000", "count"))
        self.assertEqual(tree["resume_at"]["rfc3339"], "2026-11-21T03:26:40.000000000Z")
        before = self.answer("inspect", self.image)["state"]["virtual_clock"]["clock_ns"]
        after = tree["state"]["virtual_clock"]["clock_ns"]
        self.assertEqual(int(after) - int(before), 3600 * 10**9)
        self.assertIn("long-gap", [f["id"] for f in tree["findings"]])
        for entry in tree["ledger"]:
            self.assertEqual(int(entry["owed_before"]) + int(entry["missed"]),
                             int(entry["replayed"]) + int(entry["merged"]) + int(entry["dropped"]))
        self.assertEqual(self.content(), self.original)
        self.assertEqual(run("plan", self.image, *self.HOUR, "--check").code, REFUSED)
        text = self.works("plan", self.image, *self.HOUR).out
        self.assertRegex(text, r"(?m)^virtual_clock .* \+1h ")

    def test_elapsed_is_the_gap(self):
        tree = self.answer("plan", self.image, "--elapsed", "90s")
        self.assertEqual(tree["gap_ns"], "90000000000")
        capped = self.answer("plan", self.image, "--elapsed", "90s", "--gap", "cap=1min")
        self.assertEqual((capped["counted_ns"], capped["cap_ns"]), ("60000000000",) * 2)

    def test_rewrite_a_copy_and_undo(self):
        out = self.path("out")
        tree = self.answer("rewrite", self.image, "-o", out, *self.HOUR)
        self.assertEqual(tree["output"], out)
        self.assertIn(("timer", "cpu_clock_offset"),
                      [(c["section"], c["field"]) for c in tree["changes"]])
        self.assertEqual(self.content(), self.original)
        self.assertNotEqual(self.content(out), self.original)
        now = self.answer("inspect", out)
        self.assertEqual(now["state"]["virtual_clock"], tree["state"]["virtual_clock"])
        self.assertEqual(now["rewrite"]["gap_ns"], "3600000000000")
        self.assertEqual(now["captured"]["realtime_ns"], "1795228000000000000")
        self.assertNotEqual(self.answer("diff", self.image, out)["changes"], [])
        self.assertTrue(self.answer("undo", out)["undone"])
        self.assertEqual(self.content(out), self.original)
        self.assertFalse(self.answer("undo", out)["undone"])

    def test_rewrite_in_place_twice_is_from_the_capture(self):
        self.works("rewrite", self.image, "--in-place", *self.HOUR)
        once = self.content()
        self.assertNotEqual(once, self.original)
        tree = self.answer("plan", self.image, "--resume-at", "@1795231600.000000000")
        self.assertEqual(tree["gap_ns"], "3600000000000")	# its own provenance knows the stop
        self.works("rewrite", self.image, "--in-place", "--resume-at", "@1795235200")
        again = self.answer("inspect", self.image)
        self.assertEqual(again["rewrite"]["gap_ns"], "7200000000000")
        self.assertEqual(again["rewrite"]["times"], 2)
        self.works("undo", self.image)
        self.assertEqual(self.content(), self.original)

    def test_freeze_changes_no_byte(self):
        tree = self.answer("rewrite", self.image, "--in-place", *self.HOUR, "--gap", "freeze")
        self.assertEqual(tree["changes"], [])
        self.assertEqual(self.content(), self.original)

    def test_last_line(self):
        out = self.path("out")
        text = self.works("rewrite", self.image, "-o", out, *self.HOUR, env={"TZ": "CET-1"}).out
        self.assertRegex(text.splitlines()[-1], r"\Aresume at (2026-11-21 )?04:26:40\.000 "
                         r"\(CET\); each second later is a second slow\Z")

    def test_resume_is_now_or_soon(self):
        self.works("rewrite", self.image, "--in-place", "--captured-at", "@%d" % (time.time() - 60))
        run_ns = int(self.answer("inspect", self.image)["rewrite"]["run_realtime_ns"])
        self.assertLess(abs(run_ns / 1e9 - time.time()), 10)

    def test_unknown_capture_is_refused(self):
        done = run("rewrite", "-", "-o", self.path("out"), "--json", stdin=self.original)
        answer = json.loads(done.out)
        self.assertEqual((done.code, answer["refused"], answer["output"], answer["changes"]),
                         (REFUSED, True, None, []))
        self.assertFalse(os.path.exists(self.path("out")))
        refused = run("plan", "-", stdin=self.original)	# a pipe has no birth
        self.assertEqual(refused.code, REFUSED)
        self.assertRegex(refused.err, r"guestclock: error: standard input: capture-instant-unknown: "
                         r".*\. Nothing was changed\. Try: .*--force=capture-instant-unknown")

    def test_onto_itself_is_usage(self):
        self.fails(USAGE, "rewrite", self.image, "-o", self.image)
        os.symlink(self.image, self.path("link"))
        self.fails(USAGE, "rewrite", self.image, "-o", self.path("link"))
        self.assertEqual(self.content(), self.original)

    def test_a_named_pipe_is_standard_input_or_nothing(self):
        os.mkfifo(self.path("pipe"))
        self.assertIn("- < PIPE", self.fails(UNSUPPORTED, "inspect", self.path("pipe")).err)

    def test_no_device_is_replaced(self):
        self.fails(UNSUPPORTED, "rewrite", self.image, "-o", "/dev/null", *self.HOUR)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_a_bundle_has_no_loader(self):
        bundle = self.path("state.gclk")
        self.works("extract", self.image, "-o", bundle)
        self.fails(UNSUPPORTED, "plan", bundle)
        self.fails(UNSUPPORTED, "rewrite", bundle, "-o", self.path("out"))
        self.assertEqual(self.answer("diff", self.image, bundle)["changes"], [])

    def test_through_pipes(self):
        out = self.path("out")
        profile = self.path("host.json")	# measured once, where the kernel tells no frequency
        self.works("host", "-o", profile)
        hour = [*self.HOUR, "--host", profile]
        self.works("rewrite", "-", "-o", out, *hour, stdin=self.original)
        other = self.path("other")
        self.works("rewrite", self.image, "-o", other, *hour)
        self.assertEqual(self.answer("diff", out, other)["changes"], [])


class NewerHost(Case):
    """A plan for another host, from its profile."""

    def test_other_wall_clock(self):
        image, profile = self.stream("pc-xbzrle"), self.path("host.json")
        self.works("host", "-o", profile)
        with open(profile, encoding="utf-8") as source:
            tree = json.load(source)
        tree["host"]["boot_id"] = "00000000-0000-0000-0000-000000000000"
        tree["host"]["flags"] = 0
        tree["host"].pop("flags_names", None)
        other = self.write("other.json", json.dumps(tree))
        args = ["plan", image, "--captured-at", "@1795228000.000000000", "--resume-at",
                "@1795228010.000000000"]
        self.assertEqual(self.answer(*args)["disagreement"]["basis"], "assumed-same-host")
        self.assertEqual(self.answer(*args, "--host", profile)["disagreement"]["basis"],
                         "assumed-same-host")
        refused = run(*args, "--host", other)
        self.assertEqual(refused.code, REFUSED)
        self.assertIn("wall-clocks-unmeasured", refused.err)
        answer = self.answer(*args, "--host", other, "--force", "wall-clocks-unmeasured")
        self.assertEqual(answer["disagreement"]["basis"], "unmeasured")
        self.assertIsNone(answer["disagreement"]["uncertainty_ns"])
        self.assertIn("wall-clocks-unmeasured", [f["id"] for f in answer["findings"]])
        given = self.answer(*args, "--host", other, "--disagreement", "2ms+-100us")
        self.assertEqual(given["gap_ns"], str(10 * 10**9 - 2000000))
        self.fails(SYS, *args, "--host", self.path("none"))
        self.assertNotEqual(run(*args, "--host", image).code, 0)


def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--kvm", action="store_true", help="use a stream of a KVM guest")
    options, rest = parser.parse_known_args()
    unittest.main(argv=sys.argv[:1] + rest)


if __name__ == "__main__":
    main()
