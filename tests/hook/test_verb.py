#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""guestclock hook: installs, explains, takes away, and touches nothing that is not its own.

    test_verb.py --guestclock guestclock
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest

STATE = 11
options = None


class Hook(unittest.TestCase):
    def setUp(self):
        self.kept = tempfile.TemporaryDirectory(prefix="gclk-hooks-")
        self.addCleanup(self.kept.cleanup)
        self.dir = self.kept.name
        self.path = os.path.join(self.dir, "qemu.d", "50-guestclock")

    def run_verb(self, *arguments, code=0):
        done = subprocess.run([options.guestclock, "hook", "--dir", self.dir, *arguments],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout, done.stderr

    def answer(self, *arguments):
        return json.loads(self.run_verb("--json", *arguments)[0])

    def test_install_and_uninstall(self):
        self.assertFalse(self.answer()["installed"])
        self.assertFalse(os.path.exists(os.path.join(self.dir, "qemu.d")))
        text = self.run_verb("--install")[0]
        self.assertIn("systemctl reload libvirtd", text)
        self.assertTrue(os.access(self.path, os.X_OK))
        self.assertEqual(os.path.basename(os.readlink(self.path)), "guestclock-hook")
        again = self.answer("--install")
        self.assertTrue(again["installed"])
        self.assertFalse(again["reload_needed"])
        self.assertFalse(self.answer("--uninstall")["installed"])
        self.assertFalse(os.path.lexists(self.path))
        self.run_verb("--uninstall")		# as often as one likes

    def test_no_reload_where_libvirt_looks_already(self):
        other = os.path.join(self.dir, "qemu")
        with open(other, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n")
        os.chmod(other, 0o755)
        self.assertFalse(self.answer("--install")["reload_needed"])

    def test_what_is_not_its_own_stays(self):
        os.mkdir(os.path.dirname(self.path))
        with open(self.path, "w", encoding="ascii") as file:
            file.write("somebody's")
        for verb in ("--install", "--uninstall"):
            said = self.run_verb(verb, code=STATE)[1]
            self.assertIn("Nothing was changed", said)
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), "somebody's")

    def test_settings_are_explained(self):
        conf = os.path.join(self.dir, "conf")
        with open(conf, "w", encoding="ascii") as file:
            file.write("[hook]\nrestore = rewrite\ncheck = off\npin_tsc = yes\n")
        found = self.answer("--conf", conf)
        self.assertEqual((found["restore"], found["check"], found["pin_tsc"]),
                         ("rewrite", "off", True))
        text = self.run_verb("--conf", conf)[0]
        self.assertRegex(text, r"rewrite: .*virsh restore")
        self.assertRegex(text, r"pin_tsc +yes: .*taints")
        with open(conf, "w", encoding="ascii") as file:
            file.write("[hook]\nrestore = perhaps\n")
        said = self.run_verb("--conf", conf)[1]
        self.assertIn("report, rewrite or off", said)

    def test_one_thing_at_a_time(self):
        self.run_verb("--install", "--uninstall", code=2)
        self.assertEqual(os.listdir(self.dir), [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--guestclock", default=os.environ.get("GCLK_COMMAND"))
    options, rest = parser.parse_known_args()
    unittest.main(argv=sys.argv[:1] + rest)
