#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The suite `scaling` of test-kvm on kvm-intel with TSC scaling in hardware, as Bochs has it.

    in_bochs.py --test EXE --cache DIR [--model corei7_skylake_x] [--suite scaling]...

By hand: it takes one to four minutes. Needs Debian's bochs bochs-term bochsbios vgabios
grub-pc-bin grub-common xorriso mtools; exit status 77 where they are not. Time in there is
that of the emulated machine (50 million instructions make a second).
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab"))
sys.dont_write_bytecode = True
import lab  # noqa: E402

LIMIT_S = 420
MODULES = ("irqbypass", "kvm", "kvm-intel")
INIT = """#!/bin/sh
export PATH=/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in %s; do insmod /modules/$module.ko || echo "no $module"; done
uname -r
%s %s > /tmp/said 2>&1
grep -v '^ *$' /tmp/said
sleep 1
poweroff -f
"""
GRUB = """set timeout=0
menuentry host {
	linux /boot/vmlinuz console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off nokaslr \\
		lpj=4000000
	initrd /boot/initramfs
}
"""
BOCHS = """memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=%(model)s, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none, time0=1795228008
ata0-master: type=cdrom, path=%(work)s/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=%(work)s/serial
display_library: term
log: %(work)s/log
"""


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def make_image(options, work):
    """A CD that boots a kernel and an initramfs with the test in it."""
    kernel = lab.kernel(options.cache)
    archive = lab.Initramfs()
    archive.busybox()
    for directory in ("proc", "sys", "dev", "tmp", "run"):
        archive.directory(directory)
    for module in MODULES:
        archive.file("modules/" + module + ".ko", kernel.module(module))
    archive.program(options.test)
    archive.data("init", (INIT % (" ".join(MODULES), os.path.basename(options.test),
                                  " ".join(options.suite))).encode(), 0o755)
    os.makedirs(work + "/iso/boot/grub")
    archive.write(work + "/iso/boot/initramfs")
    shutil.copy(kernel.image, work + "/iso/boot/vmlinuz")
    write(work + "/iso/boot/grub/grub.cfg", GRUB)
    subprocess.run([lab.need("grub-mkrescue", "grub-common"), "-o", work + "/cd.iso",
                    work + "/iso"], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def run(options, work):
    """What the host said on its serial port until it switched itself off."""
    write(work + "/bochsrc", BOCHS % {"model": options.model, "work": work})
    write(work + "/debugger", "c\n")	# Debian's build starts in its debugger
    bochs = "env TERM=xterm %s -q -f %s/bochsrc -rc %s/debugger" % (
        lab.need("bochs", "bochs"), work, work)
    process = subprocess.Popen([lab.need("script", "bsdutils"), "-qc", bochs, "/dev/null"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)	# our own session: script and its bochs
        process.wait()
    with open(work + "/serial", encoding="utf-8", errors="replace") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--test", required=True, type=os.path.abspath)
    parser.add_argument("--cache", required=True, type=os.path.abspath)
    parser.add_argument("--model", default="corei7_skylake_x")
    parser.add_argument("--suite", action="append")
    options = parser.parse_args()
    options.suite = options.suite or ["scaling"]
    began = time.monotonic()
    try:
        for package in ("grub-pc-bin", "bochsbios", "vgabios"):
            if not os.path.exists("/usr/share/doc/" + package):
                raise lab.Skip("the package %s is not installed" % package)
        with lab.turn(options.cache), \
                tempfile.TemporaryDirectory(prefix="work-", dir=options.cache) as work:
            make_image(options, work)
            said = run(options, work)
    except lab.Skip as reason:
        print("skipped: %s" % reason)
        return 77
    counts = re.search(r"^cases: (\d+) passed, (\d+) failed, (\d+) skipped", said, re.MULTILINE)
    print(said.strip())
    print("%s: %.0f s" % (options.model, time.monotonic() - began))
    return 0 if counts and int(counts[1]) and counts[2] == counts[3] == "0" else 1


if __name__ == "__main__":
    sys.exit(main())
