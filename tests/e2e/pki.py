# SPDX-License-Identifier: MIT
"""Authorities and certificates, made by the openssl command, as libvirt has them.

    pki.Authority(directory, "ours").host(os.path.join(work, "a", "pki"), "a", "192.0.2.1")
"""
import os
import shutil
import struct
import subprocess

import qemu

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def available():
    if not shutil.which("openssl"):
        raise qemu.Skip("openssl is not installed")


def openssl(*arguments, **environment):
    subprocess.run(["openssl"] + list(arguments), check=True, capture_output=True,
                   env=dict(os.environ, **environment))


class Authority:
    def __init__(self, directory, name):
        os.makedirs(directory, exist_ok=True)
        self.at, self.name = directory, name
        self.ca, self.key = (os.path.join(directory, name + end) for end in ("-ca.pem", "-ca.key"))
        openssl("req", "-x509", *CURVE, "-keyout", self.key, "-out", self.ca, "-days", "2",
                "-subj", "/O=guestclock tests/CN=" + name)

    def sign(self, certificate, key, name, address, past=None):
        """past: wallshift.so; then the certificate ended nine days ago."""
        request, extra = (os.path.join(self.at, "%s-%s" % (self.name, end))
                          for end in ("request", "extra"))
        with open(extra, "w", encoding="ascii") as out:
            out.write("subjectAltName=DNS:%s,IP:%s\nbasicConstraints=critical,CA:FALSE\n"
                      "extendedKeyUsage=serverAuth,clientAuth\n" % (name, address))
        openssl("req", "-new", *CURVE, "-keyout", key, "-out", request,
                "-subj", "/O=guestclock tests/CN=" + name)
        environment = {}
        if past:
            shift = os.path.join(self.at, "shift")
            with open(shift, "wb") as out:
                out.write(struct.pack("=q", -10 * 86400 * 10**9))
            environment = {"LD_PRELOAD": past, "GCLK_WALLSHIFT": shift}
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key,
                "-CAcreateserial", "-out", certificate, "-days", "1", "-extfile", extra,
                **environment)

    def host(self, to, name, address):
        """libvirt's layout of /etc/pki: this host as server and as client."""
        libvirt, private = (os.path.join(to, sub) for sub in ("libvirt", "libvirt/private"))
        os.makedirs(private, exist_ok=True)
        os.makedirs(os.path.join(to, "CA"), exist_ok=True)
        shutil.copy(self.ca, os.path.join(to, "CA/cacert.pem"))
        for role in ("server", "client"):
            self.sign(os.path.join(libvirt, role + "cert.pem"),
                      os.path.join(private, role + "key.pem"), name, address)

    def directory(self, to, name, address, past=None):
        """The layout of a URI's pkipath."""
        os.makedirs(to, exist_ok=True)
        shutil.copy(self.ca, os.path.join(to, "cacert.pem"))
        self.sign(os.path.join(to, "clientcert.pem"), os.path.join(to, "clientkey.pem"),
                  name, address, past)
        return to
