# SPDX-License-Identifier: MIT
"""One line per check, and what they came to."""
import sys

SKIPPED = 77			# what meson takes for a test that could not run


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, ok, detail=""):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
        print("%s: %s%s" % (name, "ok" if ok else "FAIL", "  " + detail if detail else ""),
              flush=True)
        return ok

    def differences(self, name, found, detail=""):
        """A check that holds when the list is empty; the first of them are shown."""
        shown = "; ".join(str(one) for one in found[:6])
        more = " and %d more" % (len(found) - 6) if len(found) > 6 else ""
        return self.check(name, not found, shown + more if found else detail)

    def skip(self, name, reason):
        self.skipped += 1
        print("%s: skipped: %s" % (name, reason), flush=True)

    def end(self):
        """Prints the sums; the exit status."""
        print("cases: %d passed, %d failed, %d skipped" %
              (self.passed, self.failed, self.skipped))
        return 1 if self.failed else 0 if self.passed else SKIPPED


def skip_all(reason):
    """For a program that cannot run at all; the exit status."""
    print("skipped: %s" % reason)
    return SKIPPED


if __name__ == "__main__":
    sys.exit(skip_all("a module, not a test"))
