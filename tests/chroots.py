#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The packages on whole systems: built there with their unit tests, installed on a bare one, purged.

    chroots.py SOURCE_TREE --roots DIR [--suites bookworm,trixie] [--mirror URL] [--lintian]
              [--keep DIR] [--nocheck] [--verbose]

SOURCE_TREE is one as a tarball unpacks, with debian/ in it. Each suite's bare system is made once under
DIR by debootstrap; what is built with and installed lies in layers above it (overlayfs), mounted
in a namespace of its own that ends with the command: nothing is ever mounted here. Needs root, a mirror
and some 2 GB for each suite.
"""
import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile

from cases import Skip

MIRROR = os.environ.get("GCLK_MIRROR", "http://deb.debian.org/debian")
SUITES = ["bookworm", "trixie"]
TOOLS = ["debootstrap", "unshare", "chroot", "dpkg-deb"]
# systemd for what tmpfiles and units leave behind
BARE = "ca-certificates,systemd"
PACKAGES = ["guestclock", "libguestclock0", "libguestclock-image0", "libguestclock-seal0",
            "libguestclock-dev"]
INSIDE = """set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --bind "$3" "$2/root/mnt"
cp -L /etc/resolv.conf "$2/root/etc/resolv.conf"
exec chroot "$2/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \\
	HOME=/root DEBIAN_FRONTEND=noninteractive sh -euc "$4"
"""
BUILD = """apt-get update -q
cd /mnt/*/debian/..
apt-get build-dep -q -y --no-install-recommends ./
%sdpkg-buildpackage -us -uc -b
"""
LINTIAN = """apt-get install -q -y --no-install-recommends lintian
lintian --allow-root --fail-on error --no-tag-display-limit /mnt/*.changes
"""
# what is not a trace of a package: caches, logs, dpkg's own books
IGNORED = ["/proc", "/sys", "/dev", "/mnt", "/tmp", "/var/cache", "/var/log", "/var/lib/dpkg",
           "/var/lib/apt", "/run/lock", "/run/systemd"]
LIST = "find / %s > /mnt/%%s" % " ".join("-path %s -prune -o" % path for path in IGNORED) + " -print"
INSTALL = """apt-get update -q
apt-get satisfy -q -y --no-install-recommends "$(cat /mnt/depends)"
""" + LIST % "before" + """
apt-get install -q -y --no-install-recommends /mnt/*.deb
""" + LIST % "installed" + """
guestclock --version
systemd-analyze --man=no verify /usr/lib/systemd/system/guestclockd*.socket
test -L /etc/systemd/system/sockets.target.wants/guestclockd.socket
test ! -e /etc/systemd/system/sockets.target.wants/guestclockd-tls.socket
mkdir -p /var/lib/guestclock
guestclock keygen /root/key && guestclock host > /dev/null
mkdir -p /etc/libvirt/hooks && guestclock hook --install
test -x /etc/libvirt/hooks/qemu.d/50-guestclock
apt-get purge -q -y %s
rm -f /root/key /root/key.pub && rmdir /etc/libvirt/hooks/qemu.d /etc/libvirt/hooks
rmdir --ignore-fail-on-non-empty /etc/libvirt
""" % " ".join(PACKAGES) + LIST % "after"


def run(command, **options):
    done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode:
        raise AssertionError("%s: exit %d\n%s" % (" ".join(command[:6])[:200], done.returncode,
                                                  done.stdout[-6000:]))
    return done.stdout


class System:
    """A suite's bare system, never changed, and layers above it."""

    def __init__(self, roots, suite, mirror):
        self.suite, self.base = suite, os.path.join(os.path.abspath(roots), suite)
        if os.path.exists(self.base + ".made"):
            return
        os.makedirs(self.base, exist_ok=True)
        done = subprocess.run(["unshare", "--mount", "debootstrap", "--variant=minbase",
                               "--include=" + BARE, suite, self.base, mirror], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise Skip("debootstrap %s: %s" % (suite, done.stdout.strip().split("\n")[-1]))
        with open(self.base + ".made", "w", encoding="ascii"):
            pass

    def layer(self, name):
        """The directory of a layer, kept from run to run."""
        path = "%s.%s" % (self.base, name)
        for part in ("up", "work", "root"):
            os.makedirs(os.path.join(path, part), exist_ok=True)
        return path

    def run(self, layer, share, script):
        """A shell script in the layer, with the directory share at /mnt."""
        return run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", INSIDE, "sh",
                    self.base, layer, share, script])


def depends(packages):
    """What the packages need that is not among them, as `apt-get satisfy` reads it."""
    wanted = set()
    for package in packages:
        text = run(["dpkg-deb", "--field", package, "Depends"])
        wanted |= {one.strip() for one in text.replace("\n", " ").split(",")}
    return ", ".join(sorted(one for one in wanted if one and one.split()[0] not in PACKAGES))


def traces(share):
    """What was installed, and what is left of it after a purge."""
    def listed(name):
        with open(os.path.join(share, name), encoding="utf-8", errors="replace") as file:
            return set(file.read().split("\n"))
    before, installed, after = map(listed, ("before", "installed", "after"))
    return sorted(installed - before), sorted(after - before)


def on(suite, tree, options):
    """The packages of the tree, built on a suite and installed there; what is wrong with it."""
    system = System(options.roots, suite, options.mirror)
    with tempfile.TemporaryDirectory(prefix="gclk-%s-" % suite, dir=options.roots) as share:
        os.chmod(share, 0o755)		# apt reads as a user of its own
        shutil.copytree(tree, os.path.join(share, "guestclock"), symlinks=True)
        said = system.run(system.layer("build"), share,
                          BUILD % ("DEB_BUILD_OPTIONS=nocheck " if options.nocheck else "") +
                          (LINTIAN if options.lintian else ""))
        if options.verbose:
            print(said)
        packages = sorted(glob.glob(os.path.join(share, "*.deb")))
        packages = [path for path in packages if "-dbgsym_" not in path]
        if sorted(os.path.basename(path).partition("_")[0] for path in packages) != \
                sorted(PACKAGES):
            yield "%s: built only %s" % (suite, packages)
        for path in glob.glob(os.path.join(share, "*-dbgsym_*.deb")):
            os.remove(path)
        if options.keep:
            keep(share, os.path.join(options.keep, suite))
        with open(os.path.join(share, "depends"), "w", encoding="utf-8") as file:
            file.write(depends(packages))
        bare = system.layer("bare")
        shutil.rmtree(bare)
        said = system.run(system.layer("bare"), share, INSTALL)
        if options.verbose:
            print(said)
        installed, left = traces(share)
        print("%s: %d packages, %d files and directories installed" %
              (suite, len(packages), len(installed)))
        yield from ("%s: %s is not installed" % (suite, name) for name in missing(installed))
        yield from ("%s: left after a purge: %s" % (suite, path) for path in left)


def keep(share, directory):
    os.makedirs(directory, exist_ok=True)
    for path in glob.glob(os.path.join(share, "guestclock_*.*")) + \
            glob.glob(os.path.join(share, "*.deb")):
        shutil.copy2(path, directory)


def missing(installed):
    """Of what a package must bring, what this one does not."""
    wanted = ["/bin/guestclock", "/sbin/guestclockd", "/libexec/guestclock/guestclock-hook",
              "/libexec/guestclock/guestclock-live", "/system/guestclockd.socket",
              "/tmpfiles.d/guestclock.conf", "/etc/guestclock/guestclock.conf",
              "/bash-completion/completions/guestclock", "/man1/guestclock.1.gz",
              "/pkgconfig/libguestclock.pc"]
    return [name for name in wanted if not any(path.endswith(name) for path in installed)]


def check(tree, options):
    if os.getuid() != 0:
        raise Skip("only root makes systems to install on")
    for tool in TOOLS:
        if not shutil.which(tool):
            raise Skip("no systems to install on without " + tool)
    os.makedirs(options.roots, exist_ok=True)
    faults = []
    for suite in options.suites.split(","):
        faults += on(suite, tree, options)
    return faults


def parser():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("tree")
    words.add_argument("--roots", required=True)
    words.add_argument("--suites", default=",".join(SUITES))
    words.add_argument("--mirror", default=MIRROR)
    words.add_argument("--lintian", action="store_true")
    words.add_argument("--nocheck", action="store_true", help="without the unit tests")
    words.add_argument("--keep", metavar="DIR", help="where the packages are to be kept")
    words.add_argument("--verbose", action="store_true")
    return words


def main():
    options = parser().parse_args()
    try:
        faults = check(options.tree, options)
    except Skip as reason:
        print("skipped: %s" % reason)
        return 77
    except AssertionError as error:
        faults = [str(error)]
    print("\n".join(faults) if faults else "packages: as they should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
