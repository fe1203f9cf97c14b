# SPDX-License-Identifier: MIT
"""Cases that give what is wrong, one text for each fault, and how they are run and counted."""

cases = []


def case(function):
    cases.append(function)
    return function


class Skip(Exception):
    """A case that cannot be decided here, and why."""


def run_all(suite, *arguments):
    """Runs each case on the arguments; the exit status. AssertionError is a fault, too."""
    passed = failed = skipped = 0
    for function in cases:
        try:
            faults = list(function(*arguments))
        except Skip as reason:
            print("skipped: %s/%s: %s" % (suite, function.__name__, reason))
            skipped += 1
            continue
        except AssertionError as error:
            faults = [str(error)]
        passed += not faults
        failed += bool(faults)
        if faults:
            print("failed: %s/%s" % (suite, function.__name__))
            print("\n".join("    " + fault for fault in faults))
    print("cases: %d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0
