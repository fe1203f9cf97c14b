# SPDX-License-Identifier: MIT
"""Hosts of the lab that scale TSCs in hardware: kvm-intel on a processor that Bochs emulates.

Time in there is that of the emulated machine: 50 million instructions make a second, and a
host that stands still (pause()) stands still in its own time as well. Needs Debian's bochs
bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools.
"""
import os
import shutil
import signal
import socket
import subprocess

import lab

GRUB = """set timeout=0
menuentry host {
	linux /boot/vmlinuz %s
	initrd /boot/initramfs
}
"""
CONFIG = """memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=%(model)s, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none, time0=%(time0)d
ata0-master: type=cdrom, path=%(work)s/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=%(console)s
com2: enabled=1, mode=socket-client, dev=127.0.0.1:%(port)d
display_library: term
log: %(work)s/bochs.log
"""


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class BochsHost(lab.Host):
    """An Intel processor with VMX and TSC scaling; model gives its frequency."""

    modules = ("irqbypass", "kvm", "kvm-intel")
    arguments = lab.Host.arguments + " lpj=4000000"

    def __init__(self, name, model, time0, *args, **kwargs):
        for package in ("grub-pc-bin", "bochsbios", "vgabios", "bochs-term"):
            if not os.path.exists("/usr/share/doc/" + package):
                raise lab.Skip("the package %s is not installed" % package)
        self.name, self.model, self.time0 = name, model, time0
        super().__init__(*args, **kwargs)
        self._make_image()

    def _make_image(self):
        """A CD that boots the kernel and the initramfs."""
        root = self.work + "/iso"
        os.makedirs(root + "/boot/grub")
        shutil.copy(self.initramfs, root + "/boot/initramfs")
        shutil.copy(self.kernel.image, root + "/boot/vmlinuz")
        write(root + "/boot/grub/grub.cfg", GRUB % self.arguments)
        subprocess.run([lab.need("grub-mkrescue", "grub-common"), "-o", self.work + "/cd.iso",
                        root], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def listen(self):
        listener = socket.socket(socket.AF_INET)
        listener.bind(("127.0.0.1", 0))
        return listener, listener.getsockname()[1]

    def emulator(self, channel):
        write(self.work + "/bochsrc", CONFIG % {
            "model": self.model, "work": self.work, "console": self.console,
            "time0": self.time0, "port": channel})
        write(self.work + "/debugger", "c\n")	# Debian's build starts in its debugger
        # it reads memory that it has not set: with meson's MALLOC_PERTURB_ it hangs
        # its display needs a terminal
        return [lab.need("script", "bsdutils"), "-qc", "exec env -u MALLOC_PERTURB_ TERM=xterm %s -q -f %s/bochsrc "
                "-rc %s/debugger" % (lab.need("bochs", "bochs"), self.work, self.work),
                "/dev/null"]

    # a session of its own: script(1), and the emulator beneath it
    own_session = True
    patience = 6

    def _signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        self._signal(signal.SIGKILL)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def go_on(self):
        self._signal(signal.SIGCONT)
