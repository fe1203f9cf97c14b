#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the tree against docs/architecture.md: who may include whom, what the libraries
need and export, what pure code must not contain.

    layers.py SOURCE_ROOT [BUILD_ROOT]      without a build only the sources are looked at
"""
import os
import re
import shutil
import subprocess
import sys

from cases import Skip, case, run_all

# What each directory may include in quotes: itself and what stands below it.
LAYERS = {
    "lib/core": ["core"],
    "devices": ["core", "devices"],
    "lib/plan": ["core", "devices", "plan"],
    # siblings: none sees another
    "lib/bundle": ["core", "devices", "plan", "bundle", "guestclock/v1"],
    "lib/kvm": ["core", "devices", "plan", "kvm"],
    "lib/image": ["core", "devices", "plan", "image"],
    "lib/seal": ["core", "seal"],
    # programs see the public headers and the numbers (lib/core), of which they have a copy
    "migrator": ["core", "migrator"],
    "migrator/peer": ["core", "migrator", "guestclock/v1"],
    "migrator/virt": ["core", "migrator"],
    "migrator/daemon": ["core", "migrator"],
    "migrator/hook": ["core", "migrator"],
    "examples": [],
}
PURE = ["lib/core", "devices", "lib/plan"]
# Headers with which code can neither read a clock nor open anything.
PURE_HEADERS = {"assert.h", "byteswap.h", "ctype.h", "endian.h", "errno.h", "inttypes.h",
                "limits.h", "stdalign.h", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h",
                "stdio.h", "stdlib.h", "string.h", "strings.h"}
PUBLIC_HEADERS = {"stdbool.h", "stddef.h", "stdint.h"}
# Who may use which other people's library, by the begin of the header's name.
FOREIGN = {
    "protobuf-c": ["lib/bundle", "migrator/peer"],
    "libxml/": ["lib/image", "migrator/virt"],
    "json-c/": ["lib/image", "migrator", "migrator/peer", "migrator/virt"], "json.h": ["lib/image", "migrator"],
    "zlib.h": ["lib/image"], "bzlib.h": ["lib/image"], "lzma.h": ["lib/image"],
    "zstd.h": ["lib/image"],
    "linux/kvm": ["lib/kvm", "examples"], "asm/kvm": ["lib/kvm"],
    "ini.h": ["migrator", "migrator/hook", "migrator/daemon"],
    "openssl/": ["lib/seal", "migrator/peer"],
    "libvirt/": ["migrator/virt"],
}
NEEDED = {
    "lib/libguestclock.so": {"libc", "libprotobuf-c"},
    "lib/libguestclock-image.so": {"libc", "libguestclock", "libxml2", "libjson-c", "libz",
                                   "libbz2", "liblzma", "libzstd"},
    "lib/libguestclock-seal.so": {"libc", "libguestclock", "libcrypto"},
    "migrator/guestclock": {"libc", "libguestclock", "libguestclock-image", "libjson-c",
                            "libinih"},
    "migrator/guestclock-live": {"libc", "libguestclock", "libguestclock-image", "libjson-c",
                                 "libinih", "libprotobuf-c", "libssl", "libcrypto", "libvirt",
                                 "libvirt-qemu", "libxml2"},
    "migrator/daemon/guestclockd": {"libc", "libguestclock", "libguestclock-image", "libjson-c",
                                    "libinih", "libprotobuf-c", "libssl", "libcrypto",
                                    "libvirt", "libvirt-qemu"},
}
HYPERVISORS = re.compile(r"\w*(?:qemu|kvm|xen|libvirt|vmware|hyper-?v\b|bhyve|virtualbox)\w*",
                         re.IGNORECASE)
# kvmclock is what guests call that clock; the rest are words of the host's profile.
NOT_HYPERVISORS = re.compile(r"\w*kvmclock\w*|GCLK_HOST_KVM", re.IGNORECASE)
HOST_FLAGS = ("lib/plan/host.c", '"kvm"')
SPDX_ENDINGS = (".c", ".h", ".S", ".ld", ".map", ".py", ".sh", ".build", ".proto", ".service")
SPDX = "SPDX-License-Identifier: MIT"
INCLUDE = re.compile(r'^\s*#\s*include\s*(<([^>]+)>|"([^"]+)")', re.MULTILINE)

root, build = None, None


def files_of(directory, endings=(".c", ".h")):
    """Of a layer: not of another one that lies in its directory."""
    for path, names, files in os.walk(os.path.join(root, directory)):
        inside = os.path.relpath(path, root)
        names[:] = [name for name in names if not name.startswith(".") and
                    "%s/%s" % (inside, name) not in LAYERS]
        for name in files:
            if name.endswith(endings):
                yield os.path.relpath(os.path.join(path, name), root)


def text_of(path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def code_of(path, strings=False):
    """The text without comments and, unless wanted, without strings."""
    def keep(found):
        piece = found.group(0)
        if piece[0] == "/":
            return "\n" * piece.count("\n") or " "
        return piece if strings else '""'
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', keep,
                  text_of(path), flags=re.DOTALL)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def includes(path):
    text = text_of(path)
    for found in INCLUDE.finditer(text):
        yield line_of(text, found.start()), found.group(2), found.group(3)


def in_directory(header, directories):
    return any(header.startswith(directory + "/") for directory in directories)


@case
def quoted_includes_point_downwards():
    for layer, allowed in LAYERS.items():
        for path in files_of(layer):
            for line, _, header in includes(path):
                beside = header and "/" not in header and os.path.exists(
                    os.path.join(root, os.path.dirname(path), header))
                if header and not beside and not in_directory(header, allowed):
                    yield "%s:%d: %s may not include \"%s\"" % (path, line, layer, header)


@case
def other_libraries_stay_where_they_belong():
    for layer in LAYERS:
        for path in files_of(layer):
            for line, header, _ in includes(path):
                for begin, allowed in FOREIGN.items():
                    if header and header.startswith(begin) and layer not in allowed:
                        yield "%s:%d: <%s> belongs to %s" % (
                            path, line, header, ", ".join(allowed) or "nobody")


@case
def pure_layers_include_nothing_that_has_effects():
    for layer in PURE:
        for path in files_of(layer):
            for line, header, _ in includes(path):
                if header and not header.startswith("guestclock/") and \
                   header not in PURE_HEADERS:
                    yield "%s:%d: <%s>" % (path, line, header)


@case
def pure_layers_do_not_see_what_stands_above_them():
    above = {"guestclock/bundle.h", "guestclock/kvm.h", "guestclock/image.h",
             "guestclock/guestclock.h"}
    higher = {"lib/core": above | {"guestclock/plan.h", "guestclock/devices.h",
                                   "guestclock/state.h"},
              "devices": above | {"guestclock/plan.h"}, "lib/plan": above,
              "lib/bundle": {"guestclock/kvm.h", "guestclock/image.h"},
              "lib/kvm": {"guestclock/image.h", "guestclock/bundle.h"},
              "lib/image": {"guestclock/kvm.h"},
              "lib/seal": {"guestclock/kvm.h", "guestclock/image.h", "guestclock/bundle.h"}}
    for layer, forbidden in higher.items():
        for path in files_of(layer):
            for line, header, _ in includes(path):
                if header in forbidden:
                    yield "%s:%d: %s may not include <%s>" % (path, line, layer, header)


@case
def pure_layers_have_no_floating_point():
    number = re.compile(r"\b(?:float|double|_Complex|_Float\d+\w*)\b|"
                        r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+[eE][+-]?\d+)")
    for layer in PURE:
        for path in files_of(layer):
            code = code_of(path)
            for found in number.finditer(code):
                yield "%s:%d: %s" % (path, line_of(code, found.start()), found.group(0))


@case
def the_plan_names_no_hypervisor():
    for path in files_of("lib/plan"):
        text = text_of(path)
        for found in HYPERVISORS.finditer(text):
            quoted = text[found.start() - 1:found.end() + 1]
            if not NOT_HYPERVISORS.fullmatch(found.group(0)) and (path, quoted) != HOST_FLAGS:
                yield "%s:%d: %s" % (path, line_of(text, found.start()), found.group(0))


@case
def public_headers_include_little():
    for path in files_of("lib/include"):
        for line, header, quoted in includes(path):
            if quoted or not (header.startswith("guestclock/") or header in PUBLIC_HEADERS):
                yield "%s:%d: %s" % (path, line, quoted or header)


def tracked_files():
    """What git knows; in an unpacked release, every file that is no build's."""
    done = subprocess.run(["git", "-C", root, "ls-files", "-z"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False) if shutil.which("git") else None
    if done and done.returncode == 0 and done.stdout:
        return [path for path in done.stdout.decode().split("\0")
                if path and os.path.isfile(os.path.join(root, path))]
    found = []
    for path, names, files in os.walk(root):
        names[:] = [name for name in names
                    if name not in (".git", "__pycache__") and not name.startswith("build")]
        found += [os.path.relpath(os.path.join(path, name), root) for name in files]
    return found


def is_source(path, head):
    if in_directory(path, ["tests/data"]) or in_directory(path, ["fuzz/corpus"]):
        return False
    return path.endswith(SPDX_ENDINGS) or head.startswith(b"#!")


@case
def every_source_states_its_licence():
    for path in tracked_files():
        with open(os.path.join(root, path), "rb") as file:
            head = file.read(400)
        if not is_source(path, head):
            continue
        lines = head.decode("utf-8", "replace").split("\n")
        if SPDX not in lines[1 if head.startswith(b"#!") and len(lines) > 1 else 0]:
            yield "%s: no \"%s\" in its first line" % (path, SPDX)


def compilers():
    cc = os.environ.get("CC", "cc").split()
    cxx = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    yield cc + ["-std=c11", "-x", "c"], "C11"
    if cxx:
        yield [cxx, "-std=c++17", "-x", "c++"], "C++17"


def public_headers():
    directory = os.path.join(root, "lib/include/guestclock")
    return sorted(name for name in os.listdir(directory) if name.endswith(".h"))


@case
def public_headers_compile_alone():
    for compiler, language in compilers():
        for name in public_headers():
            done = subprocess.run(
                compiler + ["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                            "-I", os.path.join(root, "lib/include"), "-"],
                input="#include <guestclock/%s>\n" % name, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                yield "<guestclock/%s> as %s:\n%s" % (name, language, done.stdout)


def built(path):
    if build is None:
        raise Skip("no build directory was given")
    path = os.path.join(build, path)
    if not os.path.exists(path):
        raise Skip("%s is not built" % path)
    return path


def output_of(command):
    return subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE).stdout


@case
def libraries_and_command_need_only_what_is_listed():
    for name, allowed in NEEDED.items():
        text = output_of(["readelf", "-d", built(name)])
        for needed in re.findall(r"\(NEEDED\)[^\[]*\[(.+?)\.so", text):
            if needed not in allowed | {"ld-linux-x86-64", "ld-linux"}:
                yield "%s needs %s" % (name, needed)


def exported(library):
    """Names and nm's types of what a library defines; not the version's own symbol."""
    for line in output_of(["nm", "-D", "--defined-only", built(library)]).split("\n"):
        words = line.split()
        if len(words) == 3 and words[1] != "A":
            yield words[2].split("@")[0]


def libraries():
    return [name for name in NEEDED if name.startswith("lib/")]


@case
def exported_symbols_begin_with_gclk():
    for library in libraries():
        for symbol in exported(library):
            if not symbol.startswith("gclk_"):
                yield "%s exports %s" % (library, symbol)


def declared():
    """Functions and objects that the public headers declare."""
    text = "".join("#include <guestclock/%s>\n" % name for name in public_headers())
    command = os.environ.get("CC", "cc").split() + [
        "-E", "-P", "-x", "c", "-I", os.path.join(root, "lib/include"), "-"]
    done = subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.PIPE)
    return declarations(done.stdout)


def declarations(text):
    """The names in top-level statements that are neither types nor static."""
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|__extension__", "", text)
    while True:			# bodies and lists of members, from the inside
        shorter = re.sub(r"\{[^{}]*\}", "\x01", text)
        if shorter == text:
            break
        text = shorter
    text = re.sub(r"\)\s*\x01", ");", text)	# a function's body ends a statement too
    found = set()
    for statement in text.split(";"):
        statement = " ".join(statement.split())
        if statement.startswith(("typedef", "static")) or "gclk_" not in statement:
            continue
        function = re.match(r"[^(]*?\b(gclk_\w+)\s*\(", statement)
        if function:
            found.add(function.group(1))
        elif statement.startswith("extern"):
            found.update(re.findall(r"(?:[\s*,])(gclk_\w+)\s*(?=\[|,|$)",
                                    re.sub(r"struct gclk_\w+", "", statement)))
    return found


@case
def no_table_is_exported_as_an_array():
    """A program that refers to one has its size in it, and a longer one would not fit: the
    program gets a pointer. A struct is what the version of the library says it is."""
    text = ""
    for name in public_headers():
        with open(os.path.join(root, "lib/include/guestclock", name), encoding="utf-8") as file:
            text += file.read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    for statement in re.findall(r"^extern [^(;]*;", text, re.MULTILINE):
        if "[" in statement:
            yield "%s" % " ".join(statement.split())


@case
def public_headers_and_exports_are_the_same():
    names = declared()
    symbols = {symbol for library in libraries() for symbol in exported(library)}
    for name in sorted(names - symbols):
        yield "%s is declared in a public header and exported by no library" % name
    for name in sorted(symbols - names):
        yield "%s is exported and in no public header" % name


def main():
    global root, build
    root = os.path.abspath(sys.argv[1])
    build = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    return run_all("layers")


if __name__ == "__main__":
    sys.exit(main())
