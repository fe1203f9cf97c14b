#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds everything every way and runs every test.

One line per step; what failed and what was skipped, and why, in full. The last line is
"N passed, N failed, N skipped", counted in cases: each CUnit program and each Python test
says "cases: N passed, N failed, N skipped" at its end (the end-to-end ones "N checks, N
failed"), and a test that does not is one case.
The exit status is not 0 when anything failed.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import glob
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build")
FUZZ = os.path.join(ROOT, "tools", "fuzz")
# what the fuzzers need; without the operands of comparisons, which would double the tests' time
FUZZED = "-Dc_args=-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp"
IDLE = ("chrt", "--idle", "0")	# only what nobody else wants of the processors
STOLEN = 0.05			# of a run: then what measures time measured the neighbours
PURE = ["core", "devices", "plan"]
CASES = re.compile(r"^cases: (\d+) passed, (\d+) failed, (\d+) skipped", re.MULTILINE)
CHECKS = re.compile(r"^(\d+) checks, (\d+) failed", re.MULTILINE)
SKIPPED = re.compile(r"^\s*(skipped: .*)$", re.MULTILINE)
SANITIZERS = {
    # not strict_string_checks: strndup() of what has no NUL is what strndup() is for
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


class Total:
    """Cases so far, and why some were not run."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.reasons = {}
        self.lock = threading.Lock()

    def add(self, passed, failed, skipped):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped

    def add_output(self, output, ok):
        """The cases in a test's output; a test that failed has failed at least once."""
        counts = [tuple(map(int, found)) for found in CASES.findall(output)]
        counts += [(int(all_) - int(bad), int(bad), 0) for all_, bad in CHECKS.findall(output)]
        passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else \
                                  (int(ok), int(not ok), 0)
        if not ok and failed == 0:
            failed = 1
        self.add(passed, failed, skipped)
        for reason in SKIPPED.findall(output):
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        return passed, failed, skipped


class Check:
    def __init__(self, options):
        self.options = options
        self.total = Total()
        self.said = {}			# test -> what it said when it failed last
        self.began = time.monotonic()

    def say(self, name, what, since, more=""):
        """One write: two may be speaking at once."""
        line = "%-28s %-40s %5.0f s" % (name, what, time.monotonic() - since)
        sys.stdout.write("\n".join([line] + ([more] if more else [])) + "\n")
        sys.stdout.flush()

    def fail(self, name, output, since, cases=1):
        self.total.add(0, cases, 0)
        self.say(name, "FAILED", since, tail(output, 40))

    def setup(self, name, arguments, env):
        """Configure a build directory once; meson notices changes by itself."""
        directory = os.path.join(BUILD, name)
        if not os.path.exists(os.path.join(directory, "build.ninja")):
            shutil.rmtree(directory, ignore_errors=True)
            run(["meson", "setup", directory, ROOT] + arguments, env)
        return directory

    def build(self, name, arguments=(), env=None):
        """The build directory, or None where it did not build."""
        since = time.monotonic()
        try:
            directory = self.setup(name, list(arguments), env)
            run(["ninja", "-C", directory, "--quiet", "-k", "0"], env)
        except subprocess.CalledProcessError as error:
            self.fail("build " + name, error.stdout, since)
            return None
        self.say("build " + name, "ok", since)
        return directory

    def meson_test(self, name, directory, arguments=(), env=None, patience=4, again=False,
                   before=()):
        """Returns whether it passed. What failed and is asked again counts nothing yet: what it
        said of that is kept in self.said. before: what the command begins with."""
        since = time.monotonic()
        base = "log-" + re.sub(r"[^a-z0-9]+", "-", name.lower())	# two may run at once
        log = os.path.join(directory, "meson-logs", base + ".json")
        command = [*before, "meson", "test", "-C", directory, "--logbase", base,
                   "--print-errorlogs", "--timeout-multiplier", str(patience)]
        if os.path.exists(log):
            os.remove(log)
        done = subprocess.run(command + list(arguments), env=environment(env), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        results = results_of(log)
        if done.returncode != 0 and again:
            self.said[name] = "\n".join(telling(output_of(result)) for result in results) or \
                              done.stdout
            self.say("test " + name, "failed; once more later", since,
                     tail(failures(self.said[name]), 8))
            return False
        counts, bad = (0, 0, 0), []
        for result in results:
            counts = self._one_result(result, counts, bad)
        if done.returncode != 0 and not bad:
            bad.append(done.stdout)
            self.total.add(0, 1, 0)
        self.say("test " + name, "%d passed, %d failed, %d skipped" % counts, since,
                 "\n".join(tail(output, 60) for output in bad))
        return done.returncode == 0

    def _one_result(self, result, counts, bad):
        output = output_of(result)
        if result["result"] == "SKIP":
            self.total.add(0, 0, 1)
            reason = "skipped: %s: %s" % (result["name"], output.strip().split("\n")[-1])
            self.total.reasons[reason] = self.total.reasons.get(reason, 0) + 1
            return (counts[0], counts[1], counts[2] + 1)
        ok = result["result"] in ("OK", "EXPECTEDFAIL")
        added = self.total.add_output(output, ok)
        if not ok:
            bad.append("--- %s: %s\n%s" % (result["name"], result["result"], telling(output)))
        return tuple(a + b for a, b in zip(counts, added))

    def program(self, path, arguments, timeout):
        """A test program by itself."""
        name, since = os.path.relpath(path, ROOT), time.monotonic()
        try:
            done = subprocess.run([path] + arguments, text=True, errors="replace",
                                  stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=timeout)
            output, status = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode(errors="replace") + "\ntimed out"
            status = 1
        counts = self.total.add_output(output, status == 0)
        self.say(name, "%d passed, %d failed, %d skipped" % counts, since,
                 tail(output, 60) if status != 0 else "")

    # ---- the ways ----

    def gcc(self):
        """All but the emulated machines."""
        directory = self.build("gcc", env={"CC": "gcc"})
        if directory:
            self.meson_test("gcc", directory, ["--no-suite", "e2e", "--no-suite", "lab"],
                            {"CC": "gcc"})

    def sanitizers(self):
        """All but the emulated machines, and clang's warnings of every file. Returns the build
        directory if it has fuzzers in it: they take the same objects."""
        env = dict(SANITIZERS, CC="clang")
        fuzz = runpy.run_path(FUZZ)["has_libfuzzer"]()
        arguments = ["-Db_sanitize=address,undefined", "-Db_lundef=false",
                     "-Dbuildtype=debugoptimized"]
        directory = self.build("sanitize", arguments +
                               ([FUZZED] if fuzz else []), env)
        if directory:
            self.meson_test("ASan + UBSan", directory,
                            ["--no-suite", "layers", "--no-suite", "e2e",
                             "--no-suite", "oracle", "--no-suite", "lab"], env)
        return directory if fuzz else None

    def fuzzers(self, directory):
        """A second each, one after the other."""
        self.program(FUZZ, ["--seconds", "1", "--build", directory], 900)

    def pure_layers(self):
        """No answer may hang on what a compiler, its optimiser or NDEBUG made of the code. Of
        each way no more is built than these tests need."""
        ways = (("clang", "clang", []),
                ("O0", "gcc", ["-Dbuildtype=debug"]),
                ("O3-NDEBUG", "gcc", ["-Dbuildtype=release", "-Db_ndebug=true"]))
        for name, compiler, arguments in ways:
            env = {"CC": compiler}
            since = time.monotonic()
            try:
                directory = self.setup(name, arguments, env)
                names = tests_of(directory, PURE)
            except subprocess.CalledProcessError as error:
                self.fail("build " + name, error.stdout, since)
                continue
            self.meson_test("%s %s" % (name, ", ".join(PURE)), directory, names, env)

    def all_ways(self):
        self.gcc()
        fuzzed = self.sanitizers()
        with concurrent.futures.ThreadPoolExecutor(1) as beside:	# the fuzzers take one processor
            fuzzing = beside.submit(self.fuzzers, fuzzed) if fuzzed else None
            self.pure_layers()
            if fuzzing:
                fuzzing.result()

    def with_guests(self):
        """Stock QEMU with guests in it, two tests side by side, and emulated hosts.

        The former mostly wait, and measure milliseconds. The latter have a virtual time of their
        own and never wait: they take what is left of the processors (SCHED_IDLE), and all of
        them when the others are done. What fails is asked again alone, twice at most.
        """
        directory = os.path.join(BUILD, "gcc")
        if not os.path.exists(os.path.join(directory, "build.ninja")):
            return			# which has failed already
        for name in self.in_lanes(directory):
            for _ in range(2):
                before = processor_times()
                if self.meson_test(name, directory, [name], patience=2, again=True):
                    break
            else:
                self.failed_thrice(name, stolen_since(before))

    def failed_thrice(self, name, stolen):
        """A machine whose processors others had meanwhile says nothing of us."""
        if stolen < STOLEN:
            self.total.add(0, 1, 0)
            print("test %s: FAILED three times\n%s" % (name, tail(self.said[name], 200)),
                  flush=True)
            return
        self.total.add(0, 0, 1)
        self.total.reasons["skipped: %s: it failed three times, the last time while the "
                           "hypervisor had %d %% of the processors' time" %
                           (name, stolen * 100)] = 1

    def in_lanes(self, directory):
        """The names of those that failed.

        One lane takes from the front, one from the back: meson.build has the long ones at both
        ends, so that both end at about the same time, and those that never let a processor go
        at the front, so that one of them at a time runs while there are others. The third has the
        emulated hosts, and helps when it is through with them: a fourth would starve those.
        """
        waiting = collections.deque(suite_of(directory, "e2e"))
        hosts = collections.deque(suite_of(directory, "lab"))
        failed = []

        def take(lists):
            for next_one, before in lists:
                for name in until_empty(next_one):
                    if not self.meson_test(name, directory, ["--no-rebuild", name], patience=1,
                                           again=True, before=before):
                        failed.append(name)
        lanes = ([(hosts.popleft, IDLE), (waiting.pop, ())],
                 [(waiting.popleft, ()), (hosts.pop, ())],
                 [(waiting.pop, ()), (hosts.pop, ())])
        with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
            for lane in [pool.submit(take, lists) for lists in lanes]:
                lane.result()
        return failed

    def long_guests(self):
        directory = os.path.join(BUILD, "gcc")
        if not os.path.exists(os.path.join(directory, "build.ninja")):
            return			# which has failed already
        for name in suite_of(directory, "lab") + suite_of(directory, "e2e"):
            longer = ["--test-args=--long"] if takes_long(directory, name) else []
            self.meson_test(name, directory, [name] + longer, patience=12)

    def longer(self):
        """The random tests once more, with twenty times as many cases."""
        pattern = os.path.join(BUILD, "gcc", "tests", "*", "test-*")
        for path in sorted(glob.glob(pattern)):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                self.program(path, ["--scale", "20"], 7200)
        self.oracle()
        self.meson_test("valgrind, all", os.path.join(BUILD, "gcc"),
                        ["valgrind", "--test-args=--long"], patience=24)

    def oracle(self):
        """10,000 scripts and 3,000 gaps for each device."""
        directory = os.path.join(BUILD, "gcc")
        for name in suite_of(directory, "oracle"):
            more = "--cases 3000 --per-boot 50" if name.startswith("ledger") else \
                   "--scripts 10000 --per-boot 250"
            self.meson_test(name, directory, [name, "--test-args=" + more], patience=12)

    def run(self):
        self.all_ways()
        if not self.options.quick and not self.options.long:
            self.with_guests()
        if self.options.long:
            self.longer()
            self.long_guests()
        for reason, times in sorted(self.total.reasons.items()):
            print(reason + (" (%d times)" % times if times > 1 else ""))
        print("%d s in all" % (time.monotonic() - self.began))
        print("%d passed, %d failed, %d skipped" %
              (self.total.passed, self.total.failed, self.total.skipped))
        return 1 if self.total.failed or not self.total.passed else 0


def until_empty(next_one):
    """What a deque still gives, from which others take, too."""
    with contextlib.suppress(IndexError):
        while True:
            yield next_one()


def processor_times():
    """(taken by the hypervisor, all), in ticks."""
    with open("/proc/stat", encoding="ascii") as file:
        times = [int(word) for word in file.readline().split()[1:9]]
    return times[7], sum(times)


def stolen_since(before):
    stolen, total = (now - then for now, then in zip(processor_times(), before))
    return stolen / max(1, total)


def environment(env):
    return dict(os.environ, **(env or {}))


def run(command, env=None):
    subprocess.run(command, env=environment(env), check=True, text=True,
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def tests_of(directory, names):
    """Those of these tests that exist: naming one that does not is an error to meson."""
    done = subprocess.run(["meson", "test", "-C", directory, "--list"], text=True, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    known = {line.split(" / ")[-1].strip() for line in done.stdout.split("\n")}
    return [name for name in names if name in known]


def suite_of(directory, suite):
    """The names of a suite's tests, in order."""
    done = subprocess.run(["meson", "test", "-C", directory, "--list", "--suite", suite],
                          text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return [line.split(" / ")[-1].strip() for line in done.stdout.split("\n") if " / " in line]


def takes_long(directory, name):
    """Whether a test's script has a long form."""
    with open(os.path.join(directory, "meson-info", "intro-tests.json"), encoding="utf-8") as file:
        command = next(test["cmd"] for test in json.load(file) if test["name"] == name)
    scripts = [word for word in command if word.endswith(".py")]
    return any("--long" in subprocess.run([sys.executable, script, "--help"], text=True,
                                          capture_output=True).stdout for script in scripts)


def results_of(log):
    """What meson has written of each test."""
    if not os.path.exists(log):
        return []
    with open(log, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def output_of(result):
    return result.get("stdout", "") + result.get("stderr", "")


def failures(output):
    return "\n".join(line for line in output.split("\n")
                     if re.search(r"FAIL|TIMEOUT|^failed", line)) or output


def telling(output):
    """Of a long list of checks, those that failed and the end; anything else as it is."""
    lines = output.rstrip("\n").split("\n")
    if not CHECKS.search(output):
        return output
    return "\n".join([line for line in lines[:-5] if ": FAIL" in line] + lines[-5:])


def tail(text, lines):
    cut = (text or "").rstrip("\n").split("\n")
    return "\n".join((["    ..."] if len(cut) > lines else []) +
                     ["    " + line for line in cut[-lines:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="without the end-to-end tests")
    group.add_argument("--long", action="store_true",
                       help="twenty times the random cases, the long end-to-end tests")
    return Check(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
