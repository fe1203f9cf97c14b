#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The manual pages against the programs: every verb has its place, every option of a verb with
a page of its own stands there, and no page speaks of an option that there is not.

    man.py --guestclock COMMAND --guestclockd PROGRAM PAGE...
"""
import argparse
import os
import re
import subprocess
import sys

failed = 0


def check(name, found, detail=""):
    """One that holds where nothing was found."""
    global failed
    failed += bool(found)
    print("%s: %s" % (name, "FAIL  " + "; ".join(map(str, found)) if found else "ok"))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def said(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode == 0 else ""


def options_of_help(text):
    return set(re.findall(r"^  (?:-\w, |    |)--([a-z0-9-]+)", text, re.M))


def options_of_page(text):
    """Terms: lines at the margin that begin with an option, with more of them behind commas."""
    found = set()
    for line in re.findall(r"^\*\*-.*$", text, re.M):
        found.update(re.findall(r"\*\*--([a-z0-9-]+)\*\*", line))
    return found


def mentioned(text):
    return set(re.findall(r"\*\*--([a-z0-9-]+)\*\*", text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--guestclockd", required=True)
    parser.add_argument("pages", nargs="+")
    args = parser.parse_args()
    pages = {re.sub(r"\.\d\.rst$", "", os.path.basename(path)): read(path) for path in args.pages}
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", said(args.guestclock, "--help"), re.M)
    check("there are verbs", [] if len(verbs) > 8 else [len(verbs)])
    every = set()
    for verb in verbs:
        text = said(args.guestclock, verb, "--help")
        if not text:
            print("%s: skipped: this build has it not" % verb)
            continue
        options = options_of_help(text)
        every |= options
        page = pages.get("guestclock-" + verb)
        if page is None:
            check(verb + ": is in guestclock(1)", [] if re.search(
                r"^\*\*%s\*\*" % verb, pages["guestclock"], re.M) else ["it is not"])
            continue
        check(verb + ": its options are in its page", sorted(options - options_of_page(page)))
        check(verb + ": and no others", sorted(options_of_page(page) - options))
        check(verb + ": is named in guestclock(1)", [] if "guestclock-%s(1)" % verb in
              pages["guestclock"] else ["it is not"])
    daemon = options_of_help(said(args.guestclockd, "--help")) | {"version", "help"}
    check("guestclockd: its options are in its page",
          sorted(daemon ^ options_of_page(pages["guestclockd"])))
    for name, text in sorted(pages.items()):
        check(name + ": speaks of options that there are",
              sorted(mentioned(text) - every - daemon))
    # a page that another one names is there, or is somebody else's
    for name, text in sorted(pages.items()):
        check(name + ": names pages that there are",
              sorted(set(re.findall(r"\b(guestclock[a-z.-]*)\(\d\)", text)) - set(pages)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
