#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every fact of a dialect stands in docs/devices.md, and nothing there that is no fact."""
import re
import sys

header, page = (open(path, encoding="utf-8").read() for path in sys.argv[1:3])
facts = set()
for body in re.findall(r"struct gclk_\w+_dialect \{(.*?)\n\};", header, re.S):
    code = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    facts |= set(re.findall(r"\b(\w+);", code)) - {"name"}
tables = page.split("## Evidence")[0]
rows = {name for row in re.findall(r"^\| (`.*?) \|", tables, re.M)
        for name in re.findall(r"`(\w+)`", row)}
for name in sorted(facts ^ rows):
    print("%s: %s" % (name, "not in the docs" if name in facts else "not in devices.h"))
sys.exit(1 if facts != rows or len(facts) < 30 else 0)
