#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the streams of this directory anew, with a stock QEMU: make.py [-d DIRECTORY] [NAME...]

The guest is a firmware of our own, a few instructions long: it programs the PIT and the RTC,
fills eight pages at 128 KiB and goes on changing a little of each. For every stream the page
at 0x20000 is also saved by QMP once the migration is complete, so that what the stream says
of it can be checked; its FNV-1a hash is printed.
"""
import argparse
import json
import lzma
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

FIRMWARE = """
	.code16
	.globl _start
_start:	cli
	movb $0x34, %al		# PIT channel 0: mode 2, 1193
	outb %al, $0x43
	movb $0xa9, %al
	outb %al, $0x40
	movb $0x04, %al
	outb %al, $0x40
	movb $0x0a, %al		# RTC: 1024 Hz, periodic interrupt on
	outb %al, $0x70
	movb $0x26, %al
	outb %al, $0x71
	movb $0x0b, %al
	outb %al, $0x70
	movb $0x42, %al
	outb %al, $0x71
	movw $0x2000, %ax
	movw %ax, %ds
	xorw %bx, %bx
fill:	movb %bh, %al		# every 256 bytes their own number
	movb %bh, %ah
	movw %ax, (%bx)
	addw $2, %bx
	cmpw $0x8000, %bx
	jne fill
again:	movl %cr0, %edx		# CR0.WP flushes the TLB: QEMU 7.2's emulation does not log
	xorl $0x10000, %edx	# writes to pages whose entries outlive the start of a round
	movl %edx, %cr0
	xorw %bx, %bx
page:	incw 0x10(%bx)
	incw 0x812(%bx)
	addw $0x1000, %bx
	cmpw $0x8000, %bx
	jne page
	jmp again
	.org 0xfff0
	ljmp $0xf000, $_start
	.org 0x10000
"""

# name: arguments of QEMU, capabilities, what else
TCG = ["-accel", "tcg"]
KVM = ["-accel", "kvm"]
STREAMS = {
    "pc-xbzrle": (TCG + ["-machine", "pc"], ["xbzrle", "return-path"], {"rounds": 6}),
    "pc-compress": (TCG + ["-machine", "pc"], ["compress"], {"rounds": 3}),
    "q35-kvm-4": (KVM + ["-machine", "q35", "-smp", "4", "-device", "i6300esb", "-rtc",
                         "base=localtime,clock=vm,driftfix=slew"], [], {}),
    "pc-multifd": (TCG + ["-machine", "pc,hpet=off", "-smp", "2"], ["multifd"], {}),
    "pc-shared-uuid": (TCG + ["-machine", "pc,memory-backend=m", "-object",
                              "memory-backend-memfd,id=m,size=4M,share=on", "-uuid",
                              "00112233-4455-6677-8899-aabbccddeeff"],
                       ["x-ignore-shared", "validate-uuid"], {}),
    "pc-2.3": (TCG + ["-machine", "pc-i440fx-2.3"], [], {}),
    "pc-icount": (TCG + ["-machine", "pc", "-icount", "shift=3"], [], {}),
}


class Qmp:
    def __init__(self, path):
        deadline = time.time() + 10
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.time() > deadline:
                    raise
                time.sleep(0.05)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise RuntimeError("%s: %s" % (command, answer["error"]["desc"]))
            if "return" in answer:
                return answer["return"]


class Sink:
    """Takes a migration: the main channel into a file, others to nowhere. Answers pings."""

    def __init__(self, path, out):
        self.out, self.listener = out, socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self.main = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection = self.listener.accept()[0]
            threading.Thread(target=self.take, args=(connection,), daemon=True).start()

    def take(self, connection):
        first = connection.recv(4, socket.MSG_WAITALL)
        if first != b"QEVM":
            while connection.recv(1 << 16):
                pass
            return
        self.main = connection
        with open(self.out, "wb") as file:
            file.write(first)
            ping = False
            while True:
                data = connection.recv(1 << 16)
                if not data:
                    return
                file.write(data)
                file.flush()
                if not ping and b"\x08\x00\x02\x00\x04" in data[:4096]:
                    ping = True
                    connection.sendall(bytes.fromhex("0002000400000001"))

    def finish(self):
        self.main.sendall(bytes.fromhex("0001000400000000"))


def firmware(directory):
    paths = [os.path.join(directory, "fw." + end) for end in ("s", "o", "bin")]
    with open(paths[0], "w") as file:
        file.write(FIRMWARE)
    subprocess.run(["as", "--32", "-o", paths[1], paths[0]], check=True)
    subprocess.run(["objcopy", "-O", "binary", paths[1], paths[2]], check=True)
    # the far jump's target needs no linker: _start is at 0
    return paths[2]


def make(name, out):
    arguments, capabilities, how = STREAMS[name]
    with tempfile.TemporaryDirectory() as directory:
        qmp_path, in_path = directory + "/qmp", directory + "/migrate"
        raw = directory + "/raw"
        process = subprocess.Popen(
            ["qemu-system-x86_64", "-display", "none", "-nodefaults", "-vga", "none",
             "-net", "none", "-m", "4", "-bios", firmware(directory),
             "-qmp", "unix:%s,server=on,wait=off" % qmp_path] + arguments,
            stdin=subprocess.DEVNULL)
        try:
            qmp = Qmp(qmp_path)
            sink = Sink(in_path, raw)
            qmp("migrate-set-capabilities",
                capabilities=[{"capability": c, "state": True} for c in capabilities])
            rounds = how.get("rounds", 0)
            if rounds:
                qmp("migrate-set-parameters", **{"max-bandwidth": 100000, "downtime-limit": 1})
            time.sleep(0.7)
            qmp("migrate", uri="unix:" + in_path)
            deadline = time.time() + 60
            while True:
                state = qmp("query-migrate")
                if state.get("ram", {}).get("dirty-sync-count", 0) >= rounds > 0:
                    qmp("migrate-set-parameters", **{"downtime-limit": 2000})
                    rounds = 0
                if state["status"] in ("completed", "failed"):
                    break
                if "return-path" in capabilities and not qmp("query-status")["running"] and \
                        os.path.getsize(raw) and settled(raw):
                    sink.finish()
                if time.time() > deadline:
                    raise RuntimeError("%s does not end: %s" % (name, state))
                time.sleep(0.1)
            if state["status"] != "completed":
                raise RuntimeError("%s: %s" % (name, state))
            qmp("pmemsave", val=0x20000, size=4096, filename=directory + "/page")
            time.sleep(0.2)
            hash_ = 0xcbf29ce484222325
            with open(directory + "/page", "rb") as file:
                for byte in file.read():
                    hash_ = (hash_ ^ byte) * 0x100000001b3 & 0xffffffffffffffff
            with open(raw, "rb") as file:
                data = file.read()
        finally:
            process.kill()
            process.wait()
    packed = lzma.compress(data, preset=6 | lzma.PRESET_EXTREME)
    with open(os.path.join(out, name + ".qs.xz"), "wb") as file:
        file.write(packed)
    print("%-16s %8d bytes, %6d packed, page 0x20000: 0x%016x" %
          (name, len(data), len(packed), hash_))


def settled(path):
    before = os.path.getsize(path)
    time.sleep(0.3)
    return os.path.getsize(path) == before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-d", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for name in options.names or STREAMS:
        make(name, options.d)
    return 0


if __name__ == "__main__":
    sys.exit(main())
