#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stock QEMU loses when a guest is saved, left and restored.

This is the fault that guestclock is for: if one of these checks fails, QEMU has changed, and
the carrier's rows with it.
"""
import time

import measure

PAUSE_S = 5


def body(lab):
    saved = measure.Saved(lab, "pit=100 hpet=100 lapic=100 report=50 edge=irq", lines=150)
    time.sleep(PAUSE_S)
    run = measure.restored(saved, lines=150)
    lost = run.errors(near=-run.gap_ns)
    for name in ("tsc", "hpet", "pm", "pit2"):
        error, sure = lost[name]
        lab.check("stock %s loses the whole gap" % name, abs(error + run.gap_ns) <= 2e6,
                  "%+.6f s of a gap of %.6f s, sure to %.0f us" %
                  (error / 1e9, run.gap_ns / 1e9, sure / 1e3))
        lab.check("%s is measured to 200 us" % name, sure <= 200e3, "%.1f us" % (sure / 1e3))
    error, _ = lost["rtc"]
    lab.check("stock rtc, on the host's clock, loses nothing", abs(error) <= 5e6,
              "%+.6f s" % (error / 1e9))


measure.run(body, __doc__)
