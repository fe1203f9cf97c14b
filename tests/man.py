#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The manual pages against the programs: every verb has its place, every option of the verbs that
have a page besides guestclock(1) stands there, and no page speaks of an option that there is not.

    man.py --guestclock COMMAND --guestclockd PROGRAM PAGE...
"""
import argparse
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e"))
import tally  # noqa: E402

t = tally.Tally()


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


def page_of(pages, verb):
    """The page in whose synopsis the verb stands; guestclock(1) has them all."""
    for name, text in sorted(pages.items()):
        synopsis = text.partition("SYNOPSIS")[2].partition("DESCRIPTION")[0]
        if name != "guestclock" and "**guestclock** **%s**" % verb in synopsis:
            return name
    return "guestclock"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--guestclockd", required=True)
    parser.add_argument("pages", nargs="+")
    args = parser.parse_args()
    pages = {re.sub(r"\.\d\.rst$", "", os.path.basename(path)): read(path) for path in args.pages}
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", said(args.guestclock, "--help"), re.M)
    t.differences("there are verbs", [] if len(verbs) > 8 else [len(verbs)])
    every, of_page = set(), {}
    for verb in verbs:
        text = said(args.guestclock, verb, "--help")
        if not text:
            print("%s: skipped: this build has it not" % verb)
            of_page.setdefault(page_of(pages, verb), []).append(None)
            continue
        options = options_of_help(text)
        every |= options
        of_page.setdefault(page_of(pages, verb), []).append(options)
        t.differences(verb + ": is in guestclock(1)", [] if re.search(
            r"^\|? ?\*\*%s\*\*|, \*\*%s\*\* " % (verb, verb), pages["guestclock"], re.M)
              else ["it is not"])
    for page, options in sorted(of_page.items()):
        if page == "guestclock" or None in options:
            continue
        whole, said_there = set().union(*options), options_of_page(pages[page])
        t.differences(page + ": has every option", sorted(whole - said_there))
        t.differences(page + ": and no other", sorted(said_there - whole))
        t.differences(page + ": is named in guestclock(1)", [] if page + "(1)" in pages["guestclock"]
              else ["it is not"])
    daemon = options_of_help(said(args.guestclockd, "--help")) | {"version", "help"}
    t.differences("guestclockd: its options are in its page",
                  sorted(daemon ^ options_of_page(pages["guestclockd"])))
    for name, text in sorted(pages.items()):
        t.differences(name + ": speaks of options that there are",
              sorted(mentioned(text) - every - daemon))
    # a page that another one names is there, or is somebody else's
    for name, text in sorted(pages.items()):
        t.differences(name + ": names pages that there are",
              sorted(set(re.findall(r"\b(guestclock[a-z.-]*)\(\d\)", text)) - set(pages)))
    return t.end()


if __name__ == "__main__":
    sys.exit(main())
