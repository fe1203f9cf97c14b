#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times, memory and throughput on images of real guests, side by side with what they are
held against. Every row ends with the command that repeats it, on images that --keep leaves.

    bench.py --guestclock CMD --tools DIR [--quick] [--keep] [--work DIR]

Images, made by stock QEMU under TCG:
  small    a guest of 64 MiB
  large    a guest of 64 GiB whose memory is zero pages: 8 + 1 bytes for each 4 KiB
  sparse   the small one with a hole of 64 GiB within its RAM section: a file of that size,
           of which only the device tail can be read (a walk through it is not possible)
  memory   a guest with 1 GiB of random memory
  vcpus    a guest of 64 vCPUs
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "tests", "e2e"))
sys.dont_write_bytecode = True
import qemu  # noqa: E402
import streampatch  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
TIMES = 31


class Images:
    """Makes each image when it is asked for, once."""

    def __init__(self, work, quick):
        self.work, self.quick = work, quick

    def path(self, name):
        path = os.path.join(self.work, name + ".img")
        if not os.path.exists(path):
            print("making %s.img ..." % name, file=sys.stderr, flush=True)
            getattr(self, name)(path)
        return path

    def _save(self, path, **options):
        """A guest that has run its firmware for a second, stopped and saved."""
        with qemu.Qemu(self.work, **options) as emulator:
            time.sleep(1)
            emulator.save(path)

    def small(self, path):
        self._save(path, memory=64)

    def large(self, path):
        mib = 4096 if self.quick else 65536	# of which the host reserves nothing
        self._save(path, memory=mib, machine="pc,memory-backend=ram",
                   extra=["-object", "memory-backend-ram,id=ram,reserve=off,size=%dM" % mib])

    def vcpus(self, path):
        self._save(path, memory=64, smp=64)

    def memory(self, path):
        size = 256 * MIB if self.quick else GIB
        noise = os.path.join(self.work, "noise")
        with open(noise, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        self._save(path, memory=size // MIB + 256,
                   extra=["-device", "loader,file=%s,addr=0x4000000,force-raw=on" % noise])
        os.remove(noise)

    def sparse(self, path):
        with open(self.path("small"), "rb") as file:
            data = file.read()
        first = streampatch.Image(data).sections[0]
        name = first.name.encode()
        # the tail begins with the first section's header: type, id, name, instance, version
        tail = first.offset - (1 + 4 + 1 + len(name) + 4 + 4)
        split = max(tail - 4096, 0)
        with open(path, "wb") as file:
            file.write(data[:split])
            file.seek(64 * GIB, os.SEEK_CUR)
            file.write(data[split:])


def shell(command):
    """Seconds of a command that must succeed."""
    began = time.monotonic()
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def row(what, value, against, command):
    print("%-44s %16s   %-30s %s" % (what, value, against, command), flush=True)


class Bench:
    def __init__(self, options, images):
        self.command, self.tools = options.guestclock, options.tools
        self.images = images
        # a plan that needs no evidence: the same work on every image
        self.plan = ["--elapsed", "1h"]

    def shown(self, command):
        return " ".join(["guestclock"] + [os.path.basename(word) if os.sep in word else word
                                          for word in command])

    def tool(self, name, *arguments):
        """The numbers that one of the programs beside this file prints."""
        output = subprocess.run([os.path.join(self.tools, name), *arguments], text=True,
                                check=True, stdout=subprocess.PIPE).stdout
        return [int(word) for word in output.split()]

    def same_time(self, verb):
        """A verb on guests of every size: time must not grow, memory must not either."""
        first = None
        for name in ("small", "large", "sparse"):
            path = self.images.path(name)
            command = verb(path)
            ns, kib = self.tool("bench-run", str(TIMES), self.command, *command)
            took = ns / 1e9
            first = first or took
            size = os.path.getsize(path)
            row("%s, %s (%s)" % (command[0], name, human(size)), "%.1f ms" % (took * 1e3),
                "%.2f x small; %.1f MiB" % (took / first, kib / 1024), self.shown(command))

    def inspect(self):
        self.same_time(lambda path: ["inspect", path])

    def in_place(self):
        self.same_time(lambda path: ["rewrite", path, "--in-place"] + self.plan)
        for name in ("small", "large", "sparse"):
            subprocess.run([self.command, "undo", self.images.path(name)], check=True,
                           stdout=subprocess.DEVNULL)

    def full_pass(self):
        """Against cat, and against cat that waits for the disk or reads from a pipe itself."""
        source, out = self.images.path("memory"), os.path.join(self.images.work, "out.img")
        size = os.path.getsize(source)
        rewrite = "%s rewrite %%s -o '%s' %s" % (self.command, out, " ".join(self.plan))
        ways = (("cat IN > OUT", "cat '%s' > '%s'" % (source, out)),
                ("cat IN > OUT; sync OUT", "cat '%s' > '%s' && sync '%s'" % (source, out, out)),
                ("cat IN | cat > OUT", "cat '%s' | cat > '%s'" % (source, out)),
                ("rewrite IN -o OUT", rewrite % ("'%s'" % source)),
                ("rewrite IN -o OUT --sync", rewrite % ("'%s'" % source) + " --sync"),
                ("cat IN | rewrite - -o OUT", "cat '%s' | " % source + rewrite % "-"))
        seconds = {name: [] for name, _ in ways}
        for _ in range(6):		# in turns, so that the disk's moods meet all of them
            for name, command in ways:
                if os.path.exists(out):
                    os.remove(out)
                os.sync()
                seconds[name].append(shell(command))
        rates = {name: size / statistics.median(runs[1:]) for name, runs in seconds.items()}
        for name, command in ways:
            against = "; ".join("%3.0f %% of %s" % (100 * rates[name] / rates[way], way)
                                for way, _ in ways[:3])
            row(name + " (%s)" % human(size), "%.0f MB/s" % (rates[name] / 1e6), against,
                command.replace(self.images.work + os.sep, "").replace(
                    self.command, "guestclock"))
        os.remove(out)

    def planning(self):
        for name in ("small", "vcpus"):
            path = self.images.path(name)
            vcpus, ns = self.tool("bench-plan", path)
            row("plan, %d vCPU" % vcpus, "%d ns" % ns, "%.0f ns per vCPU" % (ns / vcpus),
                "bench-plan %s.img" % name)


def human(size):
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return "%.1f %s" % (size / unit, name)
    return "%d B" % size


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestclock", required=True)
    parser.add_argument("--tools", required=True, help="where bench-run and bench-plan are")
    parser.add_argument("--work", help="where the images go; those that are there are used")
    parser.add_argument("--keep", action="store_true", help="leave the images in --work")
    parser.add_argument("--quick", action="store_true", help="4 GiB for 64, 256 MiB for 1 GiB")
    parser.add_argument("only", nargs="*", help="inspect, in_place, full_pass, planning")
    options = parser.parse_args()
    work = options.work or tempfile.mkdtemp(prefix="gclk-bench-")
    os.makedirs(work, exist_ok=True)
    bench = Bench(options, Images(work, options.quick))
    try:
        for name in options.only or ("inspect", "in_place", "full_pass", "planning"):
            getattr(bench, name)()
    except qemu.Skip as reason:
        print("skipped: bench: %s" % reason)
        return 77
    finally:
        if not options.keep and not options.work:
            shutil.rmtree(work, ignore_errors=True)
    if options.keep:
        print("images are in %s" % work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
