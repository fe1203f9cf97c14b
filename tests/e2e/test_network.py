#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`guestclock migrate` between two hosts that reach each other by network alone.

By qemu+ssh:// and by qemu+tls://, as an operator would, with the keys and certificates where
libvirt has them: libvirt's own connection, and ours. What is not let in moves nothing.
Disks that are not shared go along.

    test_network.py --guest guest.elf --wallshift wallshift.so --guestclock guestclock
                    --guestclockd guestclockd --exchange bench-exchange [--long] [--seed N]
"""
import os
import random
import shutil
import subprocess
import time

import libvirtd
import pki
import qemu
import tally
import test_migrate
import twohosts

SSH_PORT = 2222
SSHD = """
Port %(port)d
HostKey %(at)s/ssh/host
AuthorizedKeysFile %(at)s/ssh/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH=%(at)s/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
"""
WRAPPER = """#!/bin/sh
exec env ASAN_OPTIONS=verify_asan_link_order=0 %(preload)s %(program)s "$@"
"""
CONFIG = """
Host friend-%(other)s
  HostName %(other)s
  Port %(port)d
  IdentityFile %(key)s
  StrictHostKeyChecking no
"""


class Network(test_migrate.Hosts):
    """The hosts, with a cable; commands say where to, and nothing of guestclock."""

    def __init__(self, t, two, args):
        two.connect()
        super().__init__(t, two, args)
        self.uri = self.ssh

    @staticmethod
    def settings():
        return "listen = :16519\n"

    def command(self, *options, via=None):
        return [os.path.abspath(self.args.guestclock), "migrate", twohosts.NAME,
                self.uri(self.other()), "-c", self.two.hosts[self.at].uri] + \
            (["--via", via] if via else []) + list(options)

    # ---- ssh ----

    def key(self):
        return os.path.join(self.two.work, "key")

    def start_sshd(self):
        generate = [libvirtd.find("ssh-keygen"), "-q", "-t", "ed25519", "-N", ""]
        subprocess.run(generate + ["-f", self.key()], check=True)
        for name, host in self.two.hosts.items():
            for sub in ("ssh", "bin", "home/.ssh"):
                os.makedirs(os.path.join(host.at, sub))
            os.makedirs(os.path.join(host.run_dir, "sshd"))
            os.chmod(os.path.join(host.run_dir, "sshd"), 0o755)
            subprocess.run(generate + ["-f", os.path.join(host.at, "ssh/host")], check=True)
            shutil.copy(self.key() + ".pub", os.path.join(host.at, "ssh/authorized"))
            self.write(host, "ssh/config", SSHD % {"port": SSH_PORT, "at": host.at})
            self.write(host, "home/.ssh/config", CONFIG % {
                "other": "ab"[name == "a"], "port": SSH_PORT, "key": self.key()})
            self.write(host, "bin/guestclock", WRAPPER % {
                "program": os.path.abspath(self.args.guestclock),
                "preload": " ".join("%s=%s" % one for one in host.preload().items())})
            os.chmod(os.path.join(host.at, "bin/guestclock"), 0o755)
            with open(os.path.join(host.at, "sshd.log"), "wb") as log:
                host.popen([libvirtd.find("sshd"), "-D", "-e", "-f",
                            os.path.join(host.at, "ssh/config")],
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @staticmethod
    def write(host, name, text):
        with open(os.path.join(host.at, name), "w", encoding="utf-8") as out:
            out.write(text)

    def ssh(self, there):
        """All that is not usual in the URI."""
        return "qemu+ssh://root@%s:%d/system?keyfile=%s&no_verify=1" % (
            there, SSH_PORT, self.key())

    @staticmethod
    def ssh_alias(there):
        """All of it in ~/.ssh/config."""
        return "qemu+ssh://friend-%s/system" % there

    @staticmethod
    def tls(there):
        return "qemu+tls://%s/system" % there


def move(hosts, name, *options, via=None):
    found = test_migrate.ours(hosts, name, *options, via=via)
    if found:
        test_migrate.judge(hosts, name, *found)
    return found


def by_ssh(hosts):
    hosts.start_sshd()
    hosts.uri = hosts.ssh
    move(hosts, "ssh")


# ---- TLS ----

def refused(hosts, name, words, *options, via=None):
    """Nothing has moved, and the sentence says why."""
    t, two, source = hosts.t, hosts.two, hosts.at
    done = hosts.run(*options, via=via)
    t.check(name, done.returncode not in (0, 13) and words in done.stderr and
            "Nothing was changed" in done.stderr and done.stdout == "" and
            two.states() == {source: "running", hosts.other(): None} and
            not os.path.exists(two.socket_in(source)) and
            not os.path.exists(two.socket_in(hosts.other())),
            "%d: %s" % (done.returncode, done.stderr.strip()[-250:]))


def client(directory):
    """Options for who would be that client."""
    return ["--tls-ca", os.path.join(directory, "cacert.pem"),
            "--tls-cert", os.path.join(directory, "clientcert.pem"),
            "--tls-key", os.path.join(directory, "clientkey.pem")]


def second_daemon(hosts, **settings):
    """Another guestclockd at the destination; its address."""
    name, port = "other%d" % len(hosts.two.hosts[hosts.other()].children), 17000 + len(
        hosts.two.hosts[hosts.other()].children)
    host = hosts.two.hosts[hosts.other()]
    path = "/run/guestclock/%s.sock" % name
    hosts.write(host, name + ".conf", "[daemon]\nlisten = :%d\nsocket = %s\n" % (port, path) +
                "".join("%s = %s\n" % one for one in settings.items()))
    hosts.two.guestclockd(hosts.other(), hosts.args.guestclockd, "--conf",
                          os.path.join(host.at, name + ".conf"), path=path)
    return "tls:%s:%d" % (hosts.other(), port)


def by_tls(hosts, ours):
    two = hosts.two
    hosts.uri = hosts.tls
    move(hosts, "TLS, three connections", "--parallel", "--parallel-connections", "3")
    not_by_tls(hosts, ours)
    hosts.t.check("and it still runs", two.runs(hosts.start))


def not_by_tls(hosts, ours):
    here, there, work = hosts.at, hosts.other(), hosts.two.work
    address, wallshift = twohosts.ADDRESS, os.path.abspath(hosts.args.wallshift)
    theirs = pki.Authority(work, "theirs")
    strange = theirs.directory(os.path.join(work, "strange"), here, address[here])
    refused(hosts, "TLS: an authority that is not ours", "not accepted", *client(strange))
    shutil.copy(ours.ca, os.path.join(strange, "cacert.pem"))
    refused(hosts, "TLS: a client of another authority", "unknown ca", *client(strange))
    old = ours.directory(os.path.join(work, "old"), here, address[here], past=wallshift)
    refused(hosts, "TLS: a client whose certificate has expired", "expired", *client(old))
    refused(hosts, "TLS: no certificate", "cannot be read", *client(
        os.path.join(work, "nowhere")))
    refused(hosts, "TLS: a name that is not in the certificate", "mismatch",
            "--tls-name", "elsewhere")
    old = ours.directory(os.path.join(work, "server"), there, address[there], past=wallshift)
    refused(hosts, "TLS: a daemon whose certificate has expired", "expired",
            via=second_daemon(hosts, tls_cert=old + "/clientcert.pem",
                              tls_key=old + "/clientkey.pem"))
    refused(hosts, "TLS: a client that the daemon does not expect", "may not connect",
            via=second_daemon(hosts, tls_names="CN=somebody"))


# ---- how far the clocks are apart ----

def apart(hosts):
    """What the two ends make of a wall clock that is wrong by 3 s, on all sorts of ways."""
    t, two = hosts.t, hosts.two
    shift, seconds = 3 * 10**9, 20 if hosts.args.long else 2
    two.b.set_wall(shift)
    for name, here, there in (("the cable", None, None),
                              ("20 ms, jitter 5 ms", "delay 20ms 5ms", "delay 20ms 5ms"),
                              ("5 ms, 1 % lost", "delay 5ms loss 1%", "delay 5ms loss 1%"),
                              ("30 ms there, 10 ms back", "delay 30ms", "delay 10ms")):
        wrong = [done.stderr for done in (
            host.run(["tc", "qdisc", "replace", "dev", "net0", "root", "netem"] + how.split())
            for host, how in ((two.a, here), (two.b, there)) if how) if done.returncode]
        if wrong:
            t.skip("clocks apart, " + name, "tc netem: " + wrong[0].strip())
            continue
        done = two.a.run([os.path.abspath(hosts.args.exchange), str(seconds), "tls:b",
                          str(shift)])
        t.check("clocks apart, " + name, done.returncode == 0,
                " ".join((done.stdout + done.stderr).split()))
    for host in two.hosts.values():
        host.run(["tc", "qdisc", "del", "dev", "net0", "root"])
    two.b.set_wall(0)


# ---- disks ----

IMAGES = "/var/lib/libvirt/images"
DISKS = "".join("""
<disk type='file' device='disk'><driver name='qemu' type='%s'/>
  <source file='%s/%s'/><target dev='%s' bus='%s'/></disk>""" % (kind, IMAGES, name, target, bus)
    for name, kind, target, bus in (("whole.raw", "raw", "vda", "virtio"),
                                    ("top.qcow2", "qcow2", "vdb", "virtio")))


class Disks:
    """One that is copied whole, and one above a base that both hosts have."""

    MIB = 12

    def __init__(self, two, rng):
        self.two = two
        for host in two.hosts.values():
            os.makedirs(self.path(host, ""))
        self.data = rng.randbytes(self.MIB << 20)
        with open(self.path(two.a, "base.raw"), "wb") as out:
            out.write(rng.randbytes(self.MIB << 20))
        shutil.copy(self.path(two.a, "base.raw"), self.path(two.b, "base.raw"))
        for host in two.hosts.values():
            self.empty(host)
        with open(self.path(two.a, "whole.raw"), "wb") as out:
            out.write(self.data)
        self.image("io", "-c", "write -P 0x5a 1M 300k", "-c", "write -P 0xa5 7M 64k",
                   self.path(two.a, "top.qcow2"))

    @staticmethod
    def path(host, name):
        return os.path.join(host.at, "lib/images", name)

    @staticmethod
    def image(what, *arguments):
        return subprocess.run([libvirtd.find("qemu-" + what)] + list(arguments), check=True,
                              capture_output=True, text=True).stdout

    def empty(self, host):
        """What must be there before a disk comes."""
        with open(self.path(host, "whole.raw"), "wb") as out:
            out.truncate(self.MIB << 20)
        self.image("img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw",
                   self.path(host, "top.qcow2"))

    def same(self, name):
        """[] where the two hosts' disk of that name says the same."""
        kind = name.split(".")[1]
        done = subprocess.run([libvirtd.find("qemu-img"), "compare", "-U", "-f", kind, "-F", kind,
                               self.path(self.two.a, name), self.path(self.two.b, name)],
                              capture_output=True, text=True)
        return [] if done.returncode == 0 else [done.stdout + done.stderr]

    def check(self, t, name):
        for disk in ("whole.raw", "top.qcow2"):
            t.differences("%s: %s is the same" % (name, disk), self.same(disk))
        with open(self.path(self.two.b, "whole.raw"), "rb") as file:
            t.check(name + ": what was written is there", file.read() == self.data)

    def blocks(self, host, name):
        return os.stat(self.path(host, name)).st_blocks * 512


def disks(hosts, ours, rng):
    t, two = hosts.t, hosts.two
    two.destroy()
    with open(two.xml, "w", encoding="utf-8") as out:
        out.write(twohosts.domain_xml(hosts.args.guest, two.port.path, devices=DISKS))
    both = Disks(two, rng)
    hosts.at = "a"
    hosts.start = two.boot("a")
    good = ours.directory(os.path.join(two.work, "good"), "a", twohosts.ADDRESS["a"])
    hosts.uri = lambda there: hosts.tls(there) + "?pkipath=" + good
    killed_amid_disks(hosts, both)
    both.empty(two.b)
    if move(hosts, "disks above their base", "--copy-storage-inc"):
        both.check(t, "disks above their base")
        t.check("disks above their base: it did not go along",
                both.blocks(two.b, "top.qcow2") < 2 << 20,
                "%d bytes" % both.blocks(two.b, "top.qcow2"))
    both.empty(two.a)
    hosts.uri = hosts.ssh_alias
    if move(hosts, "named disks", "--copy-storage-all", "--migrate-disk", "vda",
            "--migrate-disk", "vdb"):
        both.check(t, "named disks")


def killed_amid_disks(hosts, both):
    t, two = hosts.t, hosts.two
    before = both.blocks(two.b, "whole.raw")
    child = two.a.popen(hosts.command("--copy-storage-all", "--bandwidth", "4"),
                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 20
    while both.blocks(two.b, "whole.raw") < before + (2 << 20) and child.poll() is None and \
            time.monotonic() < end:
        time.sleep(0.02)
    copied = both.blocks(two.b, "whole.raw")
    child.kill()
    said = child.communicate()[1].strip()
    test_migrate.settled(hosts, "killed amid the disks")
    with open(both.path(two.a, "whole.raw"), "rb") as file:
        whole = file.read() == both.data
    t.check("killed amid the disks: it stayed, with them", hosts.at == "a" and whole and
            0 < copied < both.MIB << 20 and two.states()["b"] is None,
            "%d bytes were there; %r %s" % (copied, two.states(), said))


def body(args, work):
    pki.available()
    for program in ("sshd", "ssh", "ssh-keygen"):
        if not libvirtd.find(program):
            raise qemu.Skip("%s is not installed" % program)
    t = tally.Tally()
    rng = random.Random(args.seed)
    print("seed %d" % args.seed)
    ours = pki.Authority(work, "ours")
    for name, address in twohosts.ADDRESS.items():
        ours.host(os.path.join(work, name, "pki"), name, address)
    with twohosts.TwoHosts(work, args.guest, args.wallshift, listen=True) as two:
        try:
            hosts = Network(t, two, args)
            by_ssh(hosts)
            by_tls(hosts, ours)
            apart(hosts)
            disks(hosts, ours, rng)
        except (libvirtd.VirshError, qemu.QmpError, subprocess.SubprocessError) as error:
            t.check("moves", False, repr(error))
    return t.end()


def options(parser):
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))


if __name__ == "__main__":
    libvirtd.main(__doc__, body, ("guest", "guestclock", "guestclockd", "wallshift", "exchange"),
                  options)
